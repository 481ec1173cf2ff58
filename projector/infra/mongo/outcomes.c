/* outcomes.c - bounded lists in one document. */
#include "projector/infra/mongo/outcomes.h"

#include <string.h>

enum { NOTES_MAX = 256 };

static const char collection_name[] = "projector_leases";

static void append_note(bson_t *array, unsigned index, const VersionOutcome *outcome) {
  char key[16];
  bson_t note;
  g_snprintf(key, sizeof key, "%u", index);
  bson_append_document_begin(array, key, -1, &note);
  bson_append_utf8(&note, "type", -1, outcome->aggregate->type,
                   (int)outcome->aggregate->type_length);
  id_append_bson(&outcome->aggregate->id, &note, "id");
  BSON_APPEND_INT64(&note, "first", outcome->first);
  BSON_APPEND_INT64(&note, "last", outcome->last);
  BSON_APPEND_UTF8(&note, "outcome", outcome->outcome);
  bson_append_document_end(array, &note);
}

/* What nobody applied is known from here alone, so it has a list of its own, which the others do
 * not fill. */
static const char *list_of(const VersionOutcome *outcome) {
  return strcmp(outcome->outcome, "missing") != 0 ? "outcomes" : "missing";
}

/* Appends the notes of that list, the newest if they are too many. */
static void append_push(bson_t *push, const char *name, const VersionOutcome *list, size_t count) {
  bson_t notes = BSON_INITIALIZER;
  size_t from = count;
  unsigned noted = 0;
  for (size_t kept = 0; from > 0 && kept < NOTES_MAX; from--)
    kept += !strcmp(list_of(&list[from - 1]), name);
  for (size_t i = from; i < count; i++)
    if (!strcmp(list_of(&list[i]), name))
      append_note(&notes, noted++, &list[i]);
  if (noted > 0)
    BCON_APPEND(push, name, "{", "$each", BCON_ARRAY(&notes), "$slice", BCON_INT32(-NOTES_MAX),
                "}");
  bson_destroy(&notes);
}

static bson_t *filter_of(const char *name) {
  g_autofree char *id = g_strdup_printf("%s:outcomes", name);
  return BCON_NEW("_id", BCON_UTF8(id));
}

bool outcomes_note(MongoStore *store, const char *name, const VersionOutcome *list, size_t count,
                   Failure *ret_failure) {
  bson_t push = BSON_INITIALIZER, reply;
  bson_error_t error;
  append_push(&push, "outcomes", list, count);
  append_push(&push, "missing", list, count);
  bson_t *filter = filter_of(name), *options = BCON_NEW("upsert", BCON_BOOL(true));
  bson_t *update = BCON_NEW("$push", BCON_DOCUMENT(&push));
  mongo_append_simple(options);
  mongoc_client_t *client = mongo_store_borrow(store);
  mongoc_collection_t *leases =
      mongoc_client_get_collection(client, mongo_store_settings(store)->database, collection_name);
  bool good = mongoc_collection_update_one(leases, filter, update, options, &reply, &error) ||
              mongo_fail(&error, &reply, ret_failure);
  bson_destroy(&reply);
  mongoc_collection_destroy(leases);
  mongo_store_return(store, client);
  bson_destroy(filter);
  bson_destroy(options);
  bson_destroy(update);
  bson_destroy(&push);
  return good;
}

static int64_t number_of(const bson_iter_t *note, const char *name) {
  bson_iter_t member;
  return bson_iter_recurse(note, &member) && bson_iter_find(&member, name)
             ? bson_iter_as_int64(&member)
             : 0;
}

static bool is_about(const bson_iter_t *note, const Aggregate *aggregate, int64_t version) {
  bson_iter_t member;
  Aggregate noted;
  if (!bson_iter_recurse(note, &member) || !bson_iter_find(&member, "type") ||
      !BSON_ITER_HOLDS_UTF8(&member))
    return false;
  noted.type = bson_iter_utf8(&member, &noted.type_length);
  return bson_iter_recurse(note, &member) && bson_iter_find(&member, "id") &&
         id_from_iter(&member, &noted.id) && aggregate_equal(&noted, aggregate) &&
         number_of(note, "first") <= version && version <= number_of(note, "last");
}

static void take_newest(const bson_t *document, const char *list, const Aggregate *aggregate,
                        int64_t version, char **outcome) {
  bson_iter_t iter, note, member;
  if (!bson_iter_init_find(&iter, document, list) || !bson_iter_recurse(&iter, &note))
    return;
  while (bson_iter_next(&note))
    if (is_about(&note, aggregate, version) && bson_iter_recurse(&note, &member) &&
        bson_iter_find(&member, "outcome") && BSON_ITER_HOLDS_UTF8(&member)) {
      g_free(*outcome);
      *outcome = g_strdup(bson_iter_utf8(&member, NULL));
    }
}

bool outcomes_find(MongoStore *store, const char *name, const Aggregate *aggregate, int64_t version,
                   char **ret_outcome, Failure *ret_failure) {
  bson_t *filter = filter_of(name), options = BSON_INITIALIZER;
  const bson_t *document, *reply;
  bson_error_t error;
  mongo_append_simple(&options);
  mongoc_client_t *client = mongo_store_borrow(store);
  mongoc_collection_t *leases =
      mongoc_client_get_collection(client, mongo_store_settings(store)->database, collection_name);
  mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(leases, filter, &options, NULL);
  *ret_outcome = NULL;
  if (mongoc_cursor_next(cursor, &document)) {
    take_newest(document, "missing", aggregate, version, ret_outcome);
    take_newest(document, "outcomes", aggregate, version, ret_outcome); /* what came late */
  }
  bool good = !mongoc_cursor_error_document(cursor, &error, &reply) ||
              mongo_fail(&error, reply, ret_failure);
  mongoc_cursor_destroy(cursor);
  mongoc_collection_destroy(leases);
  mongo_store_return(store, client);
  bson_destroy(filter);
  bson_destroy(&options);
  return good;
}
