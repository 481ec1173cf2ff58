/* feeds_private.h - what feeds.c decides is done by feed_commands.c: one command each. */
#pragma once

#include "projector/infra/mongo/feeds.h"

/* The names, NULL-terminated. */
static inline const char *const *feeds_of(const MongoStore *store) {
  static const char *const nothing[] = {NULL};
  const char *const *feeds = mongo_store_settings(store)->feeds;
  return feeds ? feeds : nothing;
}

/* Appends a document's fields, without the projector's own. */
static inline void feed_append_copy(const bson_t *document, bson_t *copy) {
  event_append_without(document, OWN_STATE | OWN_FED | OWN_ATTEMPTS, copy);
}

/* Inserts what the feed does not have, in order, for a majority; what is there stays as it is. What
 * follows a copy that the feed refuses is not inserted. The list is changed. */
bool feed_insert(Outbox *outbox, const char *feed, const bson_t **copies, size_t count,
                 Failure *ret_failure);
/* The same for the events of the outbox that the filter selects and that do not carry the feed's
 * mark, in their order. */
bool feed_copy_into(Outbox *outbox, const char *feed, const bson_t *filter, Failure *ret_failure);
/* Marks the events that the filter selects as being in every feed, for a majority. */
bool feed_mark(Outbox *outbox, const bson_t *filter, int64_t *ret_count, Failure *ret_failure);
