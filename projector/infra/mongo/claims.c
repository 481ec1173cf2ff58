/* claims.c - the documents of projector_claims. */
#include "projector/infra/mongo/claims.h"

#include "projector/infra/mongo/last_commit.h"
#include "projector/infra/mongo/outbox_private.h"

static const char collection_name[] = "projector_claims";

enum { UNAUTHORIZED = 13 };

static char *claim_id(const Outbox *outbox, const ClaimKey *key) {
  return g_strdup_printf("%s/%s/%u", key->name, outbox_owner(outbox), key->worker);
}

static bson_t *quick_options(const Outbox *outbox, bool upsert) {
  bson_t *options = bson_copy(outbox_quick_write(outbox));
  if (upsert)
    BSON_APPEND_BOOL(options, "upsert", true);
  return options;
}

/* --- of this owner -------------------------------------------------------------------------- */

bool claims_write(Outbox *outbox, const ClaimKey *key, Event *const *events, size_t count,
                  const LastCommit *committed, Failure *ret_failure) {
  g_autofree char *id = claim_id(outbox, key);
  bson_t ids = BSON_INITIALIZER, fields = BSON_INITIALIZER, reply;
  bson_error_t error;
  outbox_list_ids(&ids, events, count);
  BCON_APPEND(&fields, "name", BCON_UTF8(key->name), "outbox", BCON_UTF8(outbox_name(outbox)),
              "claimed_by", BCON_UTF8(outbox_owner(outbox)), "worker", BCON_INT32((int)key->worker),
              "epoch", BCON_INT64(key->epoch), "events", BCON_ARRAY(&ids));
  last_commit_append(&fields, "committed", committed);
  bson_t *filter = BCON_NEW("_id", BCON_UTF8(id)), *options = quick_options(outbox, true);
  bson_t *update = BCON_NEW("$set", BCON_DOCUMENT(&fields), "$currentDate", "{", "claimed_at",
                            BCON_BOOL(true), "}");
  mongoc_collection_t *claims = outbox_neighbour(outbox, collection_name);
  bool good = mongoc_collection_update_one(claims, filter, update, options, &reply, &error) ||
              mongo_fail(&error, &reply, ret_failure);
  bson_destroy(&reply);
  mongoc_collection_destroy(claims);
  bson_destroy(update);
  bson_destroy(options);
  bson_destroy(filter);
  bson_destroy(&fields);
  bson_destroy(&ids);
  return good;
}

static bool delete_one(Outbox *outbox, bson_t *filter, Failure *ret_failure) {
  bson_t reply, *options = quick_options(outbox, false);
  bson_error_t error;
  mongoc_collection_t *claims = outbox_neighbour(outbox, collection_name);
  bool good = mongoc_collection_delete_one(claims, filter, options, &reply, &error) ||
              mongo_fail(&error, &reply, ret_failure);
  bson_destroy(&reply);
  mongoc_collection_destroy(claims);
  bson_destroy(options);
  bson_destroy(filter);
  return good;
}

bool claims_remove(Outbox *outbox, const ClaimKey *key, Failure *ret_failure) {
  g_autofree char *id = claim_id(outbox, key);
  return delete_one(outbox, BCON_NEW("_id", BCON_UTF8(id)), ret_failure);
}

/* Each attempt counts once: only an event that is still as it was read has not been counted. */
bool claims_mark(Outbox *outbox, const bson_t *ids, Failure *ret_failure) {
  bson_t *filter = BCON_NEW("_id", "{", "$in", BCON_ARRAY(ids), "}");
  outbox_append_untouched(filter);
  bson_t *update = BCON_NEW("$set", "{", "status", BCON_UTF8("in_progress"), "claimed_by",
                            BCON_UTF8(outbox_owner(outbox)), "attempts", BCON_INT32(1), "}",
                            "$currentDate", "{", "claimed_at", BCON_BOOL(true), "}");
  bool good = outbox_update_quickly(outbox, filter, update, NULL, ret_failure);
  bson_destroy(update);
  bson_destroy(filter);
  return good;
}

/* --- of former owners ---------------------------------------------------------------------- */

/* The ids of a claim, as events that have nothing else. */
static void take_ids(const Outbox *outbox, const bson_t *document, GPtrArray *events) {
  bson_iter_t iter, id;
  if (!bson_iter_init_find(&iter, document, "events") || !BSON_ITER_HOLDS_ARRAY(&iter) ||
      !bson_iter_recurse(&iter, &id))
    return;
  while (bson_iter_next(&id)) {
    bson_t event = BSON_INITIALIZER;
    if (outbox_is_foreign(outbox)) /* which allows other ids */
      BSON_APPEND_BOOL(&event, EVENT_IS_FOREIGN, true);
    bson_append_iter(&event, "_id", -1, &id);
    g_ptr_array_add(events, event_decode(&event));
    bson_destroy(&event);
  }
}

/* Takes over the filter. */
static bool find_claims(Outbox *outbox, bson_t *filter, GPtrArray *claims, Failure *ret_failure) {
  bson_t *options = BCON_NEW("readConcern", "{", "level", BCON_UTF8("local"), "}");
  mongo_append_simple(options);
  mongoc_collection_t *collection = outbox_neighbour(outbox, collection_name);
  mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(collection, filter, options, NULL);
  const bson_t *document, *reply;
  bson_error_t error;
  while (mongoc_cursor_next(cursor, &document)) {
    AbandonedClaim *claim = abandoned_claim_new(bson_copy(document));
    take_ids(outbox, claim->document, claim->events);
    claim->committed = last_commit_at(claim->document, "committed");
    g_ptr_array_add(claims, claim);
  }
  bool good = !mongoc_cursor_error_document(cursor, &error, &reply) ||
              mongo_fail(&error, reply, ret_failure);
  mongoc_cursor_destroy(cursor);
  mongoc_collection_destroy(collection);
  bson_destroy(options);
  bson_destroy(filter);
  return good;
}

bool claims_find_abandoned(Outbox *outbox, const char *name, int64_t epoch, GPtrArray *ret_claims,
                           Failure *ret_failure) {
  abandoned_claims_own(ret_claims);
  return find_claims(outbox,
                     BCON_NEW("name", BCON_UTF8(name), "epoch", "{", "$lt", BCON_INT64(epoch), "}"),
                     ret_claims, ret_failure);
}

bool claims_count_attempt(Outbox *outbox, Event *const *events, size_t count,
                          Failure *ret_failure) {
  if (count == 0)
    return true;
  bson_t ids = BSON_INITIALIZER;
  outbox_list_ids(&ids, events, count);
  bson_t *filter = BCON_NEW("_id", "{", "$in", BCON_ARRAY(&ids), "}");
  outbox_append_untouched(filter);
  bson_t *update = BCON_NEW("$set", "{", "attempts", BCON_INT32(1), "}");
  bool good = outbox_update_many(outbox, filter, update, NULL, ret_failure);
  bson_destroy(update);
  bson_destroy(filter);
  bson_destroy(&ids);
  return good;
}

bool claims_forget(Outbox *outbox, const AbandonedClaim *claim, Failure *ret_failure) {
  bson_t *filter = bson_new();
  bson_iter_t iter;
  static const char *const same[] = {"_id", "claimed_at"};
  for (size_t i = 0; i < G_N_ELEMENTS(same); i++)
    if (bson_iter_init_find(&iter, claim->document, same[i]))
      bson_append_iter(filter, same[i], -1, &iter);
  return delete_one(outbox, filter, ret_failure);
}

/* --- for status, list and explain ----------------------------------------------------------- */

static void free_event(gpointer event) {
  event_free(event);
}

GHashTable *claims_in_hand(Outbox *outbox, Failure *ret_failure) {
  g_autoptr(GPtrArray) claims = g_ptr_array_new();
  abandoned_claims_own(claims);
  if (!find_claims(outbox, BCON_NEW("outbox", BCON_UTF8(outbox_name(outbox))), claims,
                   ret_failure) &&
      !claims_are_forbidden(ret_failure))
    return NULL;
  *ret_failure = (Failure){0};
  GHashTable *ids = g_hash_table_new_full(id_hash_key, id_equal_key, NULL, free_event);
  for (guint i = 0; i < claims->len; i++) {
    const AbandonedClaim *claim = g_ptr_array_index(claims, i);
    g_ptr_array_set_free_func(claim->events, NULL);
    for (guint j = 0; j < claim->events->len; j++) {
      Event *event = g_ptr_array_index(claim->events, j);
      g_hash_table_replace(ids, &event->key.event_id, event);
    }
  }
  return ids;
}

void claims_show(const GHashTable *in_hand, Event *event) {
  if (event->status == STATUS_PENDING &&
      g_hash_table_contains((GHashTable *)in_hand, &event->key.event_id))
    event->status = STATUS_IN_PROGRESS;
}

void claims_append_filter(bson_t *filter, const GHashTable *in_hand) {
  bson_t ids = BSON_INITIALIZER;
  GHashTableIter iter;
  gpointer event;
  uint32_t count = 0;
  g_hash_table_iter_init(&iter, (GHashTable *)in_hand);
  while (g_hash_table_iter_next(&iter, NULL, &event)) {
    char buffer[16];
    const char *key;
    bson_uint32_to_string(count++, &key, buffer, sizeof buffer);
    event_append_id(event, &ids, key);
  }
  BCON_APPEND(filter, "_id", "{", "$in", BCON_ARRAY(&ids), "}");
  outbox_append_untouched(filter);
  bson_destroy(&ids);
}

bool claims_are_forbidden(const Failure *failure) {
  return failure->source == SOURCE_MONGODB && failure->code == UNAUTHORIZED;
}
