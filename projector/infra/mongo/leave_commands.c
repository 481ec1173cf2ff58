/* leave_commands.c - what taking events out of the outbox sends to MongoDB. */
#include "projector/infra/mongo/outbox_private.h"

/* Runs a pipeline that ends in $merge. */
static bool merge(Outbox *outbox, const bson_t *pipeline, Failure *ret_failure) {
  /* Events selected by a claim, or just marked, may not be majority-committed yet; the copy is,
   * before anything is deleted. */
  bson_t *options = BCON_NEW("readConcern", "{", "level", BCON_UTF8("local"), "}", "writeConcern",
                             "{", "w", BCON_UTF8("majority"), "}", "allowDiskUse", BCON_BOOL(true));
  mongo_append_simple(options);
  mongoc_cursor_t *cursor =
      mongoc_collection_aggregate(outbox->events, MONGOC_QUERY_NONE, pipeline, options, NULL);
  bson_destroy(options);
  const bson_t *document, *reply;
  bson_error_t error;
  mongoc_cursor_next(cursor, &document);
  bool good = !mongoc_cursor_error_document(cursor, &error, &reply) ||
              mongo_fail(&error, reply, ret_failure);
  mongoc_cursor_destroy(cursor);
  return good;
}

/* The ledger is pruned of skipped events, the archive is not. In their order, because the copies
 * become visible one by one, and are numbered as soon as they are. */
bool outbox_copy_to_archive(Outbox *outbox, const bson_t *filter, Event *const *events,
                            size_t count, Failure *ret_failure) {
  bson_t skipped = BSON_INITIALIZER, own = BSON_INITIALIZER;
  outbox_list_skipped(&skipped, events, count);
  event_own_names(OWN_STATE | OWN_FED | OWN_NUMBER, &own);
  g_autofree char *archive = mongo_archive_name(mongo_store_settings(outbox->store)->outbox);
  bson_t *sorted = outbox_sorted_options(outbox);
  bson_iter_t order;
  bson_iter_init_find(&order, sorted, "sort");
  bson_t *pipeline =
      BCON_NEW("pipeline", "[", "{", "$match", BCON_DOCUMENT(filter), "}", "{", "$sort",
               BCON_ITER(&order), "}", "{", "$set", "{", "applied_at", BCON_UTF8("$$NOW"),
               "skipped_at", "{", "$cond", "[", "{", "$in", "[", BCON_UTF8("$_id"), "{", "$literal",
               BCON_ARRAY(&skipped), "}", "]", "}", BCON_UTF8("$$NOW"), BCON_UTF8("$$REMOVE"), "]",
               "}", "}", "}", "{", "$unset", BCON_ARRAY(&own), "}", "{", "$merge", "{", "into",
               BCON_UTF8(archive), "whenMatched", BCON_UTF8("keepExisting"), "}", "}", "]");
  bool good = merge(outbox, pipeline, ret_failure);
  bson_destroy(pipeline);
  bson_destroy(sorted);
  bson_destroy(&own);
  bson_destroy(&skipped);
  return good;
}

bool outbox_can_keep(Outbox *outbox, Failure *ret_failure) {
  bson_t *none = BCON_NEW("_id", "{", "$in", "[", "]", "}");
  bool good = outbox_copy_to_archive(outbox, none, NULL, 0, ret_failure);
  bson_destroy(none);
  return good || failure_prefix(ret_failure, "a skipped event is kept in %s_archive",
                                mongo_store_settings(outbox->store)->outbox);
}

bool outbox_delete(Outbox *outbox, const bson_t *filter, Failure *ret_failure) {
  bson_error_t error;
  bson_t reply;
  bool good =
      mongoc_collection_delete_many(outbox->events, filter, outbox->quick_write, &reply, &error) ||
      mongo_fail(&error, &reply, ret_failure);
  bson_destroy(&reply);
  return good;
}
