/* event_readers.h - GET /events: archived events, streamed to a few readers at once.
 *
 * Each reader has a thread and a connection to MongoDB of its own, and memory for one page of
 * events; a slow reader delays only its own thread. */
#pragma once

#include "projector/app/engine/metrics.h"
#include "projector/app/shared/config.h"
#include "projector/infra/http/server.h"

typedef struct EventReaders EventReaders;

/* Everything given must outlive it. */
EventReaders *event_readers_new(const Config *config, Metrics *metrics);
/* Answers: 200 and JSON lines, 400 for an invalid query, 409 without an archive or
 * for a cursor that is ahead of it, 429 when too many read, 503 when MongoDB cannot be reached. */
void event_readers_take(EventReaders *readers, HttpRequest *request);
/* Those that are being answered. */
unsigned event_readers_count(EventReaders *readers);
/* Aborts all streams and waits for their threads; call before the server ends. NULL is allowed. */
void event_readers_end(EventReaders *readers);
void event_readers_free(EventReaders *readers);
