/* stream.h - the outbox's change stream, with its three outcomes named. */
#pragma once

#include "projector/infra/mongo/store.h"

typedef enum StreamResult {
  STREAM_EVENT, /* an event was inserted: here is its document */
  STREAM_IDLE,  /* nothing for about a second */
  STREAM_LOST,  /* it cannot continue: scan the outbox again and open a new one */
} StreamResult;

typedef struct Stream Stream;

enum { STREAM_AWAIT_MS = 1000 }; /* of one getMore; far below the socket timeout */

/* Opens the stream from that cluster time on, inclusive. Never NULL: failures come from
 * stream_next. Borrows a client of its own. */
Stream *stream_open(MongoStore *store, uint32_t seconds, uint32_t increment);
void stream_free(Stream *stream);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Stream, stream_free)

/* `*ret_document` lives until the next call. `*ret_at_ms` is, by MongoDB's clock in ms since 1970,
 * when the event was committed; with STREAM_IDLE a time before which everything that was committed
 * has been delivered. 0: not known. */
StreamResult stream_next(Stream *stream, bson_t *ret_document, int64_t *ret_at_ms,
                         Failure *ret_failure);
