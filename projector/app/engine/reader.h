/* reader.h - brings every event of the outbox into the lanes: catch-up scan, then change stream. */
#pragma once

#include "projector/app/engine/lanes.h"
#include "projector/app/engine/stop.h"
#include "projector/infra/mongo/store.h"
#include "projector/infra/pulse.h"

typedef struct Reader Reader;

/* Starts the thread. With `once` it scans until a scan finds nothing that the lanes take, waits
 * for what is in hand in between, and then requests the stop. */
Reader *reader_start(MongoStore *store, Lanes *lanes, Stop *stop, bool once);
/* Waits for the end; request the stop and stop the lanes first. Frees. */
void reader_finish(Reader *reader);

typedef enum ReaderState { READER_SCANNING, READER_STREAMING, READER_WAITING } ReaderState;

ReaderState reader_state(Reader *reader);
/* Everything that could be read before this time has been passed to the lanes; ms since 1970 by
 * MongoDB's clock, 0: unknown. `*ret_heard_at` (monotonic, us) is when MongoDB answered last. */
int64_t reader_given_until(Reader *reader, int64_t *ret_heard_at);
/* At work while it reads; the change stream answers once in STREAM_AWAIT_MS even without events. */
Pulse *reader_pulse(Reader *reader);
/* How often the change stream had to be opened again. */
int64_t reader_restarts(Reader *reader);
