/* outbox_handle.c - the collection with its client, and what every write to it needs. */
#include "projector/infra/mongo/outbox_private.h"

#include <unistd.h>

#define BY_HAND "command:"

enum { REFUSED_MOST = 20 /* events for which a write is refused, one by one */ };

Outbox *outbox_new(MongoStore *store, const char *owner) {
  return outbox_new_on(store, owner, mongo_store_settings(store)->outbox);
}

Outbox *outbox_new_for_command(MongoStore *store, const char *command) {
  g_autofree char *owner = g_strdup_printf(BY_HAND "%s:%s:%d:%08x", command, g_get_host_name(),
                                           (int)getpid(), g_random_int());
  return outbox_new(store, owner);
}

Outbox *outbox_new_on(MongoStore *store, const char *owner, const char *collection) {
  const MongoSettings *settings = mongo_store_settings(store);
  Outbox *outbox = g_new0(Outbox, 1);
  outbox->store = store;
  outbox->client = mongo_store_borrow(store);
  outbox->events = mongoc_client_get_collection(outbox->client, settings->database, collection);
  outbox->owner = g_strdup(owner);
  outbox->write = BCON_NEW("writeConcern", "{", "w", BCON_UTF8("majority"), "}");
  outbox->quick_write = BCON_NEW("writeConcern", "{", "w", BCON_INT32(1), "}");
  mongo_append_simple(outbox->write);
  mongo_append_simple(outbox->quick_write);
  return outbox;
}

void outbox_free(Outbox *outbox) {
  if (!outbox)
    return;
  mongoc_collection_destroy(outbox->events);
  mongo_store_return(outbox->store, outbox->client);
  g_free(outbox->owner);
  bson_destroy(outbox->write);
  bson_destroy(outbox->quick_write);
  g_free(outbox);
}

const char *outbox_owner(const Outbox *outbox) {
  return outbox->owner;
}

MongoStore *outbox_store(const Outbox *outbox) {
  return outbox->store;
}

const char *outbox_name(const Outbox *outbox) {
  return mongo_store_settings(outbox->store)->outbox;
}

const bson_t *outbox_quick_write(const Outbox *outbox) {
  return outbox->quick_write;
}

mongoc_client_t *outbox_client(const Outbox *outbox) {
  return outbox->client;
}

mongoc_collection_t *outbox_collection(const Outbox *outbox) {
  return outbox->events;
}

mongoc_collection_t *outbox_neighbour(const Outbox *outbox, const char *name) {
  return mongoc_client_get_collection(outbox->client, mongo_store_settings(outbox->store)->database,
                                      name);
}

/* --- lists of ids --------------------------------------------------------------------------- */

/* {"0": id, "1": id …} of the events, or only of the skipped ones. */
static void list_ids(bson_t *array, Event *const *events, size_t count, bool skipped_only) {
  uint32_t at = 0;
  for (size_t i = 0; i < count; i++) {
    char buffer[16];
    const char *key;
    if (skipped_only && !events[i]->skipped)
      continue;
    bson_uint32_to_string(at++, &key, buffer, sizeof buffer);
    event_append_id(events[i], array, key);
  }
}

void outbox_list_ids(bson_t *array, Event *const *events, size_t count) {
  list_ids(array, events, count, false);
}

void outbox_list_skipped(bson_t *array, Event *const *events, size_t count) {
  list_ids(array, events, count, true);
}

void outbox_append_event_ids(bson_t *filter, Event *const *events, size_t count) {
  bson_t array = BSON_INITIALIZER;
  list_ids(&array, events, count, false);
  BCON_APPEND(filter, "_id", "{", "$in", BCON_ARRAY(&array), "}");
  bson_destroy(&array);
}

static bool update_with(Outbox *outbox, const bson_t *filter, const bson_t *update,
                        const bson_t *options, int64_t *ret_matched, Failure *ret_failure) {
  bson_error_t error;
  bson_t reply;
  bool good =
      mongoc_collection_update_many(outbox->events, filter, update, options, &reply, &error) ||
      mongo_fail(&error, &reply, ret_failure);
  bson_iter_t iter;
  if (good && ret_matched)
    *ret_matched =
        bson_iter_init_find(&iter, &reply, "matchedCount") ? bson_iter_as_int64(&iter) : 0;
  bson_destroy(&reply);
  return good;
}

bool outbox_update_many(Outbox *outbox, const bson_t *filter, const bson_t *update,
                        int64_t *ret_matched, Failure *ret_failure) {
  return update_with(outbox, filter, update, outbox->write, ret_matched, ret_failure);
}

bool outbox_update_quickly(Outbox *outbox, const bson_t *filter, const bson_t *update,
                           int64_t *ret_matched, Failure *ret_failure) {
  return update_with(outbox, filter, update, outbox->quick_write, ret_matched, ret_failure);
}

typedef struct Around {
  OutboxWrite write;
  const void *data;
  unsigned refused; /* events, alone */
  Failure refusal;
} Around;

static bool write_around(Outbox *outbox, Event *const *events, size_t count, Around *around,
                         Failure *ret_failure) {
  Failure failure = {0};
  if (count == 0 || around->refused >= REFUSED_MOST ||
      around->write(outbox, events, count, around->data, &failure))
    return true;
  if (!failure_is_refusal(&failure)) {
    *ret_failure = failure;
    return false;
  }
  around->refusal = failure;
  around->refused += count == 1;
  return count == 1 ||
         (write_around(outbox, events, count / 2, around, ret_failure) &&
          write_around(outbox, events + count / 2, count - count / 2, around, ret_failure));
}

bool outbox_write_around(Outbox *outbox, Event *const *events, size_t count, OutboxWrite write,
                         const void *data, Failure *ret_failure) {
  Around around = {.write = write, .data = data};
  if (!write_around(outbox, events, count, &around, ret_failure))
    return false;
  if (around.refusal.class == FAILURE_NONE)
    return true;
  *ret_failure = around.refusal;
  return false;
}

void outbox_append_counted(bson_t *expression) {
  BCON_APPEND(expression, "$and", "[", "{", "$isNumber", BCON_UTF8("$attempts"), "}", "{", "$gte",
              "[", BCON_UTF8("$attempts"), BCON_INT32(1), "]", "}", "]");
}

/* As event_decode sees it: a status outside the contract counts as missing. */
void outbox_append_untouched(bson_t *filter) {
  bson_t counted = BSON_INITIALIZER;
  outbox_append_counted(&counted);
  BCON_APPEND(filter, "$expr", "{", "$not", "[", "{", "$or", "[", "{", "$in", "[",
              BCON_UTF8("$status"), "[", BCON_UTF8("in_progress"), BCON_UTF8("failed"),
              BCON_UTF8("dead"), "]", "]", "}", BCON_DOCUMENT(&counted), "]", "}", "]", "}");
  bson_destroy(&counted);
}

void outbox_append_seized(bson_t *filter) {
  BCON_APPEND(filter, "$and", "[", "{", "claimed_by", "{", "$regex", BCON_UTF8("^" BY_HAND), "}",
              "}", "]");
}

void outbox_append_abandoned(bson_t *filter, const Outbox *outbox, int64_t older_than_ms) {
  BSON_APPEND_UTF8(filter, "status", "in_progress");
  /* A claimed_at that is no date, or missing, is older than any time; one that is as far ahead was
   * given by a clock that was wrong, and would never grow old. */
  if (older_than_ms > 0)
    BCON_APPEND(filter, "$expr", "{", "$or", "[", "{", "$ne", "[", "{", "$type",
                BCON_UTF8("$claimed_at"), "}", BCON_UTF8("date"), "]", "}", "{", "$lt", "[",
                BCON_UTF8("$claimed_at"), "{", "$subtract", "[", BCON_UTF8("$$NOW"),
                BCON_INT64(older_than_ms), "]", "}", "]", "}", "{", "$gt", "[",
                BCON_UTF8("$claimed_at"), "{", "$add", "[", BCON_UTF8("$$NOW"),
                BCON_INT64(older_than_ms), "]", "}", "]", "}", "]", "}");
  else /* a command is about to settle what it has seized; if it dies, its claim grows old */
    BCON_APPEND(filter, "claimed_by", "{", "$ne", BCON_UTF8(outbox->owner), "$not", "{", "$regex",
                BCON_UTF8("^" BY_HAND), "}", "}");
}
