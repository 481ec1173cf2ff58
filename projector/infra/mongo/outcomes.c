/* outcomes.c - bounded lists in one document. */
#include "projector/infra/mongo/outcomes.h"

#include <string.h>

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

static bson_t *filter_of(const char *name) {
  g_autofree char *id = g_strdup_printf("%s:outcomes", name);
  return BCON_NEW("_id", BCON_UTF8(id));
}

static int64_t number_of(const bson_iter_t *note, const char *name) {
  bson_iter_t member;
  return bson_iter_recurse(note, &member) && bson_iter_find(&member, name)
             ? bson_iter_as_int64(&member)
             : 0;
}

static bool aggregate_of(const bson_iter_t *note, Aggregate *ret_aggregate) {
  bson_iter_t member;
  if (!bson_iter_recurse(note, &member) || !bson_iter_find(&member, "type") ||
      !BSON_ITER_HOLDS_UTF8(&member))
    return false;
  ret_aggregate->type = bson_iter_utf8(&member, &ret_aggregate->type_length);
  return bson_iter_recurse(note, &member) && bson_iter_find(&member, "id") &&
         id_from_iter(&member, &ret_aggregate->id);
}

static bool is_about(const bson_iter_t *note, const Aggregate *aggregate, int64_t version) {
  Aggregate noted;
  return aggregate_of(note, &noted) && aggregate_equal(&noted, aggregate) &&
         number_of(note, "first") <= version && version <= number_of(note, "last");
}

/* NULL: there is none, or it could not be read. Destroy it. */
static bson_t *read_notes(mongoc_collection_t *leases, const bson_t *filter, Failure *ret_failure) {
  bson_t options = BSON_INITIALIZER, *notes = NULL;
  const bson_t *document, *reply;
  bson_error_t error;
  mongo_append_simple(&options);
  mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(leases, filter, &options, NULL);
  if (mongoc_cursor_next(cursor, &document))
    notes = bson_copy(document);
  if (mongoc_cursor_error_document(cursor, &error, &reply))
    mongo_fail(&error, reply, ret_failure);
  mongoc_cursor_destroy(cursor);
  bson_destroy(&options);
  return notes;
}

static const char *outcome_of(const bson_iter_t *note) {
  bson_iter_t member;
  return bson_iter_recurse(note, &member) && bson_iter_find(&member, "outcome") &&
                 BSON_ITER_HOLDS_UTF8(&member)
             ? bson_iter_utf8(&member, NULL)
             : NULL;
}

static void take_newest(const bson_t *document, const char *list, const Aggregate *aggregate,
                        int64_t version, char **outcome) {
  bson_iter_t iter, note;
  if (!bson_iter_init_find(&iter, document, list) || !bson_iter_recurse(&iter, &note))
    return;
  while (bson_iter_next(&note))
    if (is_about(&note, aggregate, version) && outcome_of(&note)) {
      g_free(*outcome);
      *outcome = g_strdup(outcome_of(&note));
    }
}

/* --- noting --------------------------------------------------------------------------------- */

static bool is_missing(const VersionOutcome *outcome) {
  return !strcmp(outcome->outcome, "missing");
}

/* Was missing, and came late: a note among the others would be forgotten before the one that says
 * missing. */
static bool corrects(const VersionOutcome *outcome, const bson_t *notes) {
  g_autofree char *noted = NULL;
  if (notes)
    take_newest(notes, "missing", outcome->aggregate, outcome->first, &noted);
  return noted && strcmp(noted, outcome->outcome) != 0;
}

/* What nobody applied is known from here alone, so it has a list of its own, which the others do
 * not fill. */
static bool belongs(const VersionOutcome *outcome, const char *list, const bson_t *notes) {
  bool missing = is_missing(outcome) || corrects(outcome, notes);
  return strcmp(list, "missing") != 0 ? !is_missing(outcome) : missing;
}

/* Appends the notes of that list, the newest if they are too many. */
static void append_push(bson_t *push, const char *name, const VersionOutcome *list, size_t count,
                        const bson_t *notes) {
  bson_t added = BSON_INITIALIZER;
  size_t from = count;
  unsigned noted = 0;
  for (size_t kept = 0; from > 0 && kept < OUTCOMES_MAX; from--)
    kept += belongs(&list[from - 1], name, notes);
  for (size_t i = from; i < count; i++)
    if (belongs(&list[i], name, notes))
      append_note(&added, noted++, &list[i]);
  if (noted > 0)
    BCON_APPEND(push, name, "{", "$each", BCON_ARRAY(&added), "$slice", BCON_INT32(-OUTCOMES_MAX),
                "}");
  bson_destroy(&added);
}

static bool push_notes(mongoc_collection_t *leases, const bson_t *filter,
                       const VersionOutcome *list, size_t count, const bson_t *notes,
                       Failure *ret_failure) {
  bson_t push = BSON_INITIALIZER, reply;
  bson_error_t error;
  append_push(&push, "outcomes", list, count, notes);
  append_push(&push, "missing", list, count, notes);
  bson_t *options = BCON_NEW("upsert", BCON_BOOL(true));
  bson_t *update = BCON_NEW("$push", BCON_DOCUMENT(&push));
  mongo_append_simple(options);
  bool good = mongoc_collection_update_one(leases, filter, update, options, &reply, &error) ||
              mongo_fail(&error, &reply, ret_failure);
  bson_destroy(&reply);
  bson_destroy(options);
  bson_destroy(update);
  bson_destroy(&push);
  return good;
}

bool outcomes_note(MongoStore *store, const char *name, const VersionOutcome *list, size_t count,
                   Failure *ret_failure) {
  Failure failure = {0};
  bson_t *filter = filter_of(name), *notes = NULL;
  mongoc_client_t *client = mongo_store_borrow(store);
  mongoc_collection_t *leases =
      mongoc_client_get_collection(client, mongo_store_settings(store)->database, collection_name);
  for (size_t i = 0; i < count; i++)
    if (!is_missing(&list[i])) {
      notes = read_notes(leases, filter, &failure);
      break;
    }
  bool good =
      failure.class == FAILURE_NONE && push_notes(leases, filter, list, count, notes, &failure);
  if (!good)
    *ret_failure = failure;
  if (notes)
    bson_destroy(notes);
  mongoc_collection_destroy(leases);
  mongo_store_return(store, client);
  bson_destroy(filter);
  return good;
}

/* --- reading -------------------------------------------------------------------------------- */

static bool read_all(MongoStore *store, const char *name, bson_t **ret_notes,
                     Failure *ret_failure) {
  Failure failure = {0};
  bson_t *filter = filter_of(name);
  mongoc_client_t *client = mongo_store_borrow(store);
  mongoc_collection_t *leases =
      mongoc_client_get_collection(client, mongo_store_settings(store)->database, collection_name);
  *ret_notes = read_notes(leases, filter, &failure);
  if (failure.class != FAILURE_NONE)
    *ret_failure = failure;
  mongoc_collection_destroy(leases);
  mongo_store_return(store, client);
  bson_destroy(filter);
  return failure.class == FAILURE_NONE;
}

bool outcomes_find(MongoStore *store, const char *name, const Aggregate *aggregate, int64_t version,
                   char **ret_outcome, Failure *ret_failure) {
  bson_t *notes;
  if (!read_all(store, name, &notes, ret_failure))
    return false;
  *ret_outcome = NULL;
  if (notes) {
    take_newest(notes, "missing", aggregate, version, ret_outcome);
    take_newest(notes, "outcomes", aggregate, version, ret_outcome); /* what came late */
    bson_destroy(notes);
  }
  return true;
}

bool outcomes_each_missing(MongoStore *store, const char *name, OutcomeSink sink, void *data,
                           Failure *ret_failure) {
  bson_t *notes;
  bson_iter_t list, note;
  if (!read_all(store, name, &notes, ret_failure))
    return false;
  if (notes && bson_iter_init_find(&list, notes, "missing") && bson_iter_recurse(&list, &note))
    while (bson_iter_next(&note)) {
      Aggregate aggregate;
      VersionOutcome one = {&aggregate, number_of(&note, "first"), number_of(&note, "last"),
                            outcome_of(&note)};
      if (one.outcome && is_missing(&one) && aggregate_of(&note, &aggregate))
        sink(&one, data);
    }
  if (notes)
    bson_destroy(notes);
  return true;
}
