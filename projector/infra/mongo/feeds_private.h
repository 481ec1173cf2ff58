/* feeds_private.h - what feeds.c decides is done by feed_commands.c: one command each. */
#pragma once

#include "projector/infra/mongo/feeds.h"

/* The names, NULL-terminated. */
static inline const char *const *feeds_of(const MongoStore *store) {
  static const char *const nothing[] = {NULL};
  const char *const *feeds = mongo_store_settings(store)->feeds;
  return feeds ? feeds : nothing;
}

/* By the server: the events that the filter selects and that do not carry the feed's mark, in
 * order, for a majority. Copies that are there stay as they are. */
bool feed_copy_into(Outbox *outbox, const char *feed, const bson_t *filter, Failure *ret_failure);
/* Of documents in memory, in order, for a majority. `*ret_known`, and false: one is there already,
 * and what follows it has not been inserted. */
bool feed_insert(Outbox *outbox, const char *feed, const bson_t **copies, size_t count,
                 bool *ret_known, Failure *ret_failure);
/* Marks the events that the filter selects as being in every feed, for a majority. */
bool feed_mark(Outbox *outbox, const bson_t *filter, int64_t *ret_count, Failure *ret_failure);
