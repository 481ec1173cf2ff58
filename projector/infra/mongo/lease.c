/* lease.c - the lease document in the collection projector_leases. */
#include "projector/infra/mongo/lease.h"

#include "projector/infra/mongo/last_commit.h"

#include <string.h>

static const char collection_name[] = "projector_leases";

enum { STANDBY_SEEN_MS = 5000, REPORTS_MAX = 100 };

struct Lease {
  MongoStore *store;
  mongoc_client_t *client;
  mongoc_collection_t *leases;
  char *name, *owner;
  int64_t lease_ms;
};

Lease *lease_new(MongoStore *store, const char *name, const char *owner, int64_t lease_ms) {
  Lease *lease = g_new0(Lease, 1);
  lease->store = store;
  lease->client = mongo_store_borrow(store);
  lease->leases = mongoc_client_get_collection(lease->client, mongo_store_settings(store)->database,
                                               collection_name);
  lease->name = g_strdup(name);
  lease->owner = g_strdup(owner);
  lease->lease_ms = lease_ms;
  return lease;
}

void lease_free(Lease *lease) {
  if (!lease)
    return;
  mongoc_collection_destroy(lease->leases);
  mongo_store_return(lease->store, lease->client);
  g_free(lease->name);
  g_free(lease->owner);
  g_free(lease);
}

/* null: there is none */
static void append_trouble(bson_t *fields, const OwnerReport *report) {
  if (!report || report->trouble.class == FAILURE_NONE) {
    BSON_APPEND_NULL(fields, "$literal");
    return;
  }
  g_autofree char *message = g_utf8_make_valid(report->trouble.message, -1);
  BCON_APPEND(fields, "$literal", "{", "source",
              BCON_UTF8(report->trouble.source == SOURCE_MYSQL ? "mysql" : "mongodb"), "class",
              BCON_UTF8(failure_class_name(report->trouble.class)), "code",
              BCON_INT32(report->trouble.code), "message", BCON_UTF8(message), "since",
              BCON_DATE_TIME(report->trouble_since_ms), "}");
}

/* The collections into which an owner copies the events that leave the outbox; to be freed. */
static GPtrArray *copies_of(const MongoSettings *settings) {
  GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
  const char *const *feed = settings->feeds;
  for (; feed && *feed; feed++)
    g_ptr_array_add(names, g_strdup(*feed));
  if (settings->archive)
    g_ptr_array_add(names, mongo_archive_name(settings->outbox));
  return names;
}

/* A process that asks for the lease leaves them as they are until it is the owner. */
static void append_copies(bson_t *fields, const MongoSettings *settings, bool is_owner) {
  if (!is_owner) {
    BCON_APPEND(fields, "$ifNull", "[", BCON_UTF8("$copies_to"), BCON_NULL, "]");
    return;
  }
  g_autoptr(GPtrArray) names = copies_of(settings);
  bson_t list = BSON_INITIALIZER;
  for (guint i = 0; i < names->len; i++) {
    g_autofree char *key = g_strdup_printf("%u", i);
    BSON_APPEND_UTF8(&list, key, names->pdata[i]);
  }
  BSON_APPEND_ARRAY(fields, "$literal", &list);
  bson_destroy(&list);
}

static bool lists(const bson_t *document, const char *path, const char *name) {
  bson_iter_t iter, array, member;
  if (!bson_iter_init(&iter, document) || !bson_iter_find_descendant(&iter, path, &array) ||
      !BSON_ITER_HOLDS_ARRAY(&array)) /* an older version has not written it */
    return true;
  for (bson_iter_recurse(&array, &member); bson_iter_next(&member);)
    if (BSON_ITER_HOLDS_UTF8(&member) && !strcmp(bson_iter_utf8(&member, NULL), name))
      return true;
  return false;
}

/* The first of ours that the document does not list. */
static void find_not_served(const MongoSettings *settings, const bson_t *document,
                            char name[static COPIES_NAME_SIZE]) {
  g_autoptr(GPtrArray) names = copies_of(settings);
  *name = '\0';
  for (guint i = 0; i < names->len && !*name; i++)
    if (!lists(document, "copies_to", names->pdata[i]))
      g_strlcpy(name, names->pdata[i], COPIES_NAME_SIZE);
}

/* The first that the document lists and that is not ours. */
static void find_dropped(const MongoSettings *settings, const bson_t *document,
                         char name[static COPIES_NAME_SIZE]) {
  g_autoptr(GPtrArray) names = copies_of(settings);
  bson_iter_t iter, array, member;
  *name = '\0';
  if (!bson_iter_init(&iter, document) ||
      !bson_iter_find_descendant(&iter, "value.copies_to", &array) ||
      !BSON_ITER_HOLDS_ARRAY(&array) || !bson_iter_recurse(&array, &member))
    return;
  while (bson_iter_next(&member) && !*name)
    if (BSON_ITER_HOLDS_UTF8(&member) &&
        !g_ptr_array_find_with_equal_func(names, bson_iter_utf8(&member, NULL), g_str_equal, NULL))
      g_strlcpy(name, bson_iter_utf8(&member, NULL), COPIES_NAME_SIZE);
}

/* One atomic step decides: the fields change only if the lease is free, expired or ours. */
static bson_t *acquire_update(const Lease *lease, int64_t epoch, const OwnerReport *report) {
  bson_t settled = BSON_INITIALIZER, lag = BSON_INITIALIZER, trouble = BSON_INITIALIZER,
         last = BSON_INITIALIZER, copies = BSON_INITIALIZER;
  append_trouble(&trouble, report);
  append_copies(&copies, mongo_store_settings(lease->store), epoch != 0);
  if (report) {
    BSON_APPEND_DATE_TIME(&settled, "$literal", report->settled_at);
    last_commit_append(&last, "$literal", &report->last_commit);
  } else {
    BCON_APPEND(&settled, "$ifNull", "[", BCON_UTF8("$settled_at"), BCON_UTF8("$$NOW"), "]");
    BCON_APPEND(&last, "$ifNull", "[", BCON_UTF8("$applied_last"), BCON_NULL, "]");
  }
  BCON_APPEND(&lag, "$literal", BCON_INT64(report ? report->lag_ms : -1));
  bson_t *free = BCON_NEW("free", "{", "$or", "[", "{", "$lte", "[", "{", "$ifNull", "[",
                          BCON_UTF8("$expires_at"), BCON_DATE_TIME(0), "]", "}", BCON_UTF8("$$NOW"),
                          "]", "}", "{", "$eq", "[", BCON_UTF8("$owner"), "{", "$literal",
                          BCON_UTF8(lease->owner), "}", "]", "}", "]", "}");
  bson_t *fields = BCON_NEW(
      "owner", "{", "$cond", "[", BCON_UTF8("$free"), "{", "$literal", BCON_UTF8(lease->owner), "}",
      BCON_UTF8("$owner"), "]", "}", "expires_at", "{", "$cond", "[", BCON_UTF8("$free"), "{",
      "$add", "[", BCON_UTF8("$$NOW"), BCON_INT64(lease->lease_ms), "]", "}",
      BCON_UTF8("$expires_at"), "]", "}", "settled_at", "{", "$cond", "[", BCON_UTF8("$free"),
      BCON_DOCUMENT(&settled), BCON_UTF8("$settled_at"), "]", "}", "lag_ms", "{", "$cond", "[",
      BCON_UTF8("$free"), BCON_DOCUMENT(&lag), BCON_UTF8("$lag_ms"), "]", "}", "trouble", "{",
      "$cond", "[", BCON_UTF8("$free"), BCON_DOCUMENT(&trouble), BCON_UTF8("$trouble"), "]", "}",
      "copies_to", "{", "$cond", "[", BCON_UTF8("$free"), BCON_DOCUMENT(&copies),
      BCON_UTF8("$copies_to"), "]", "}", "applied_last", "{", "$cond", "[", BCON_UTF8("$free"),
      BCON_DOCUMENT(&last), BCON_UTF8("$applied_last"), "]", "}", "prolonged_at", "{", "$cond", "[",
      BCON_UTF8("$free"), BCON_UTF8("$$NOW"), BCON_UTF8("$prolonged_at"), "]", "}", "beat", "{",
      "$cond", "[", BCON_UTF8("$free"), "{", "$add", "[", "{", "$ifNull", "[", BCON_UTF8("$beat"),
      BCON_INT64(0), "]", "}", BCON_INT64(1), "]", "}", BCON_UTF8("$beat"), "]", "}", "standby_at",
      "{", "$cond", "[", BCON_UTF8("$free"), BCON_UTF8("$standby_at"), BCON_UTF8("$$NOW"), "]", "}",
      "epoch", "{", "$cond", "[", BCON_UTF8("$free"), "{", "$max", "[", BCON_UTF8("$epoch"),
      BCON_INT64(epoch), "]", "}", BCON_UTF8("$epoch"), "]", "}", "nudges", "{", "$ifNull", "[",
      BCON_UTF8("$nudges"), BCON_INT64(0), "]", "}", "standby", "{", "$gt", "[",
      BCON_UTF8("$standby_at"), "{", "$subtract", "[", BCON_UTF8("$$NOW"),
      BCON_INT64(STANDBY_SEEN_MS), "]", "}", "]", "}");
  bson_t *update = BCON_NEW("update", "[", "{", "$set", BCON_DOCUMENT(free), "}", "{", "$set",
                            BCON_DOCUMENT(fields), "}", "{", "$unset", BCON_UTF8("free"), "}", "]");
  bson_destroy(free);
  bson_destroy(fields);
  bson_destroy(&settled);
  bson_destroy(&lag);
  bson_destroy(&trouble);
  bson_destroy(&last);
  bson_destroy(&copies);
  return update;
}

/* findAndModify of the lease's document. The reply's `value` has the new document, or null if none
 * matched. Takes over filter and update. */
static bool modify(Lease *lease, bson_t *filter, bson_t *update, bool upsert, bson_t *ret_reply,
                   Failure *ret_failure) {
  bson_error_t error;
  bson_t command = BSON_INITIALIZER;
  BSON_APPEND_UTF8(&command, "findAndModify", collection_name);
  BSON_APPEND_DOCUMENT(&command, "query", filter);
  bson_concat(&command, update);
  BSON_APPEND_BOOL(&command, "upsert", upsert);
  BSON_APPEND_BOOL(&command, "new", true);
  mongo_append_simple(&command);
  bool good = mongoc_client_write_command_with_opts(lease->client,
                                                    mongo_store_settings(lease->store)->database,
                                                    &command, NULL, ret_reply, &error) ||
              mongo_fail(&error, ret_reply, ret_failure);
  bson_destroy(&command);
  bson_destroy(update);
  bson_destroy(filter);
  return good;
}

static int64_t number_at(const bson_t *document, const char *path, int64_t otherwise) {
  bson_iter_t iter, member;
  return bson_iter_init(&iter, document) && bson_iter_find_descendant(&iter, path, &member) &&
                 BSON_ITER_HOLDS_NUMBER(&member)
             ? bson_iter_as_int64(&member)
             : otherwise;
}

static int64_t time_at(const bson_t *document, const char *path) {
  bson_iter_t iter, member;
  return bson_iter_init(&iter, document) && bson_iter_find_descendant(&iter, path, &member) &&
                 BSON_ITER_HOLDS_DATE_TIME(&member)
             ? bson_iter_date_time(&member)
             : 0;
}

static const char *text_at(const bson_t *document, const char *path, bson_iter_t *member) {
  bson_iter_t iter;
  return bson_iter_init(&iter, document) && bson_iter_find_descendant(&iter, path, member) &&
                 BSON_ITER_HOLDS_UTF8(member)
             ? bson_iter_utf8(member, NULL)
             : "";
}

static bool is_true_at(const bson_t *document, const char *path) {
  bson_iter_t iter, member;
  return bson_iter_init(&iter, document) && bson_iter_find_descendant(&iter, path, &member) &&
         bson_iter_as_bool(&member);
}

static bool has_at(const bson_t *document, const char *path) {
  bson_iter_t iter, member;
  return bson_iter_init(&iter, document) && bson_iter_find_descendant(&iter, path, &member);
}

static PauseState pause_at(const bson_t *document, const char *path) {
  PauseState pause = {.on = has_at(document, path)};
  bson_iter_t member;
  if (pause.on) {
    g_autofree char *by = g_strdup_printf("%s.by", path);
    g_autofree char *at = g_strdup_printf("%s.at", path);
    g_strlcpy(pause.by, text_at(document, by, &member), sizeof pause.by);
    pause.since_ms = time_at(document, at);
  }
  return pause;
}

bool lease_acquire(Lease *lease, int64_t epoch, const OwnerReport *report, LeaseState *ret_state,
                   Failure *ret_failure) {
  bson_t reply;
  bson_iter_t owner;
  bool good = modify(lease, BCON_NEW("_id", BCON_UTF8(lease->name)),
                     acquire_update(lease, epoch, report), true, &reply, ret_failure);
  if (good) {
    *ret_state =
        (LeaseState){.owned = !strcmp(text_at(&reply, "value.owner", &owner), lease->owner),
                     .standby = is_true_at(&reply, "value.standby"),
                     .reports = has_at(&reply, "value.by_hand.0"),
                     .nudges = number_at(&reply, "value.nudges", 0),
                     .epoch = number_at(&reply, "value.epoch", 0),
                     .now_ms = time_at(&reply, "value.prolonged_at"),
                     .settled_at = time_at(&reply, "value.settled_at"),
                     .pause = pause_at(&reply, "value.paused"),
                     .last_commit = last_commit_at(&reply, "value.applied_last")};
    find_dropped(mongo_store_settings(lease->store), &reply, ret_state->dropped);
  }
  bson_destroy(&reply);
  return good;
}

/* The driver knows it from the primary's last answer to its monitoring; a router does not report
 * it. */
static uint64_t election_of(mongoc_client_t *client) {
  bson_error_t error;
  mongoc_server_description_t *primary = mongoc_client_select_server(client, true, NULL, &error);
  uint64_t election = 0;
  bson_iter_t iter;
  if (primary &&
      bson_iter_init_find(&iter, mongoc_server_description_hello_response(primary), "electionId") &&
      BSON_ITER_HOLDS_OID(&iter))
    election = bson_oid_hash(bson_iter_oid(&iter)) + (uint64_t)1;
  mongoc_server_description_destroy(primary);
  return election;
}

bool lease_watch(Lease *lease, LeaseLook *ret_look, Failure *ret_failure) {
  bson_t *filter = BCON_NEW("_id", BCON_UTF8(lease->name)), options = BSON_INITIALIZER;
  mongo_append_simple(&options);
  mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(lease->leases, filter, &options, NULL);
  bson_destroy(&options);
  const bson_t *document, *reply;
  bson_error_t error;
  bson_iter_t owner;
  LeaseLook look = {.beat = -1};
  if (mongoc_cursor_next(cursor, &document)) {
    look.beat = number_at(document, "beat", -1);
    g_strlcpy(look.owner, text_at(document, "owner", &owner), sizeof look.owner);
  }
  bool good = !mongoc_cursor_error_document(cursor, &error, &reply) ||
              mongo_fail(&error, reply, ret_failure);
  if (good) {
    look.election = election_of(lease->client);
    *ret_look = look;
  }
  mongoc_cursor_destroy(cursor);
  bson_destroy(filter);
  return good;
}

bool lease_seize(Lease *lease, const LeaseLook *seen, bool *ret_owned, Failure *ret_failure) {
  bson_t reply;
  bson_iter_t owner;
  bson_t *filter = BCON_NEW("_id", BCON_UTF8(lease->name), "owner", BCON_UTF8(seen->owner), "beat",
                            BCON_INT64(seen->beat));
  bson_t *update =
      BCON_NEW("update", "[", "{", "$set", "{", "owner", "{", "$literal", BCON_UTF8(lease->owner),
               "}", "expires_at", "{", "$add", "[", BCON_UTF8("$$NOW"), BCON_INT64(lease->lease_ms),
               "]", "}", "prolonged_at", BCON_UTF8("$$NOW"), "beat", "{", "$add", "[",
               BCON_UTF8("$beat"), BCON_INT64(1), "]", "}", "}", "}", "]");
  bool good = modify(lease, filter, update, false, &reply, ret_failure);
  if (good)
    *ret_owned = !strcmp(text_at(&reply, "value.owner", &owner), lease->owner);
  bson_destroy(&reply);
  return good;
}

static bool update_one(mongoc_collection_t *leases, bson_t *filter, bson_t *update, bool upsert,
                       Failure *ret_failure) {
  bson_error_t error;
  bson_t reply;
  bson_t *options = BCON_NEW("upsert", BCON_BOOL(upsert));
  mongo_append_simple(options);
  bool good = mongoc_collection_update_one(leases, filter, update, options, &reply, &error) ||
              mongo_fail(&error, &reply, ret_failure);
  bson_destroy(&reply);
  bson_destroy(options);
  bson_destroy(filter);
  bson_destroy(update);
  return good;
}

bool lease_release(Lease *lease, const LastCommit *last, Failure *ret_failure) {
  bson_t fields = BSON_INITIALIZER;
  BSON_APPEND_DATE_TIME(&fields, "expires_at", 0);
  if (last)
    last_commit_append(&fields, "applied_last", last);
  bool good = update_one(lease->leases,
                         BCON_NEW("_id", BCON_UTF8(lease->name), "owner", BCON_UTF8(lease->owner)),
                         BCON_NEW("$set", BCON_DOCUMENT(&fields)), false, ret_failure);
  bson_destroy(&fields);
  return good;
}

bool lease_try_write(MongoStore *store, const char *name, Failure *ret_failure) {
  g_autoptr(Lease) lease = lease_new(store, name, "", 0);
  g_autofree char *id = g_strdup_printf("write:%s", name);
  return update_one(lease->leases, BCON_NEW("_id", BCON_UTF8(id)),
                    BCON_NEW("$currentDate", "{", "at", BCON_BOOL(true), "}"), true, ret_failure);
}

bool lease_report(MongoStore *store, const char *name, const char *act, Failure *ret_failure) {
  g_autoptr(Lease) lease = lease_new(store, name, "", 0);
  g_autofree char *valid = g_utf8_make_valid(act, -1);
  return update_one(lease->leases, BCON_NEW("_id", BCON_UTF8(name)),
                    BCON_NEW("$inc", "{", "nudges", BCON_INT64(1), "by_hand_count", BCON_INT64(1),
                             "}", "$push", "{", "by_hand", "{", "$each", "[", BCON_UTF8(valid), "]",
                             "$slice", BCON_INT32(-REPORTS_MAX), "}", "}"),
                    true, ret_failure);
}

/* Those that had no room are counted. */
static void add_unkept(const bson_t *reply, GPtrArray *acts) {
  bson_iter_t iter, count;
  int64_t lost = -(int64_t)acts->len;
  if (bson_iter_init(&iter, reply) &&
      bson_iter_find_descendant(&iter, "value.by_hand_count", &count))
    lost += bson_iter_as_int64(&count);
  if (lost > 0)
    g_ptr_array_insert(acts, 0,
                       g_strdup_printf("%lld more before these, of which only the number is kept",
                                       (long long)lost));
}

bool lease_take_reports(Lease *lease, GPtrArray *acts, Failure *ret_failure) {
  bson_t reply, command = BSON_INITIALIZER;
  bson_error_t error;
  bson_iter_t iter, array, member;
  BCON_APPEND(&command, "findAndModify", BCON_UTF8(collection_name), "query", "{", "_id",
              BCON_UTF8(lease->name), "owner", BCON_UTF8(lease->owner), "}", "update", "{",
              "$unset", "{", "by_hand", BCON_INT32(1), "by_hand_count", BCON_INT32(1), "}", "}");
  bool good = mongoc_client_write_command_with_opts(lease->client,
                                                    mongo_store_settings(lease->store)->database,
                                                    &command, NULL, &reply, &error) ||
              mongo_fail(&error, &reply, ret_failure);
  bson_destroy(&command);
  if (good && bson_iter_init(&iter, &reply) &&
      bson_iter_find_descendant(&iter, "value.by_hand", &array) && BSON_ITER_HOLDS_ARRAY(&array) &&
      bson_iter_recurse(&array, &member))
    while (bson_iter_next(&member))
      if (BSON_ITER_HOLDS_UTF8(&member))
        g_ptr_array_add(acts, g_strdup(bson_iter_utf8(&member, NULL)));
  if (good)
    add_unkept(&reply, acts);
  bson_destroy(&reply);
  return good;
}

static void read_trouble(const bson_t *document, LeaseView *view) {
  bson_iter_t message, source;
  const char *text = text_at(document, "trouble.message", &message);
  if (!*text)
    return;
  bool mysql = !strcmp(text_at(document, "trouble.source", &source), "mysql");
  failure_set(&view->trouble, FAILURE_UNAVAILABLE, mysql ? SOURCE_MYSQL : SOURCE_MONGODB,
              (int)number_at(document, "trouble.code", 0), "%s", text);
  view->trouble_since_ms = time_at(document, "trouble.since");
}

static bson_t *pause_update(const char *by) {
  return by ? BCON_NEW("update", "[", "{", "$set", "{", "paused", "{", "$ifNull", "[",
                       BCON_UTF8("$paused"), "{", "by", "{", "$literal", BCON_UTF8(by), "}", "at",
                       BCON_UTF8("$$NOW"), "}", "]", "}", "}", "}", "]")
            : BCON_NEW("update", "[", "{", "$unset", BCON_UTF8("paused"), "}", "]");
}

bool lease_pause(MongoStore *store, const char *name, const char *by, PauseChange *ret_change,
                 Failure *ret_failure) {
  g_autoptr(Lease) lease = lease_new(store, name, "", 0);
  g_autofree char *valid = by ? g_utf8_make_valid(by, -1) : NULL;
  LeaseView before;
  bson_t reply;
  if (!lease_look(store, name, &before, ret_failure))
    return false;
  bool good = modify(lease, BCON_NEW("_id", BCON_UTF8(name)), pause_update(valid), by != NULL,
                     &reply, ret_failure);
  if (good)
    *ret_change = (PauseChange){.pause = pause_at(&reply, "value.paused"),
                                .changed = before.pause.on != (by != NULL)};
  bson_destroy(&reply);
  return good;
}

bool lease_look(MongoStore *store, const char *name, LeaseView *ret_view, Failure *ret_failure) {
  g_autoptr(Lease) lease = lease_new(store, name, "", 0);
  bson_t *pipeline =
      BCON_NEW("pipeline", "[", "{", "$match", "{", "_id", BCON_UTF8(name), "}", "}", "{", "$set",
               "{", "left", "{", "$subtract", "[", BCON_UTF8("$expires_at"), BCON_UTF8("$$NOW"),
               "]", "}", "silent", "{", "$subtract", "[", BCON_UTF8("$$NOW"),
               BCON_UTF8("$prolonged_at"), "]", "}", "}", "}", "]");
  bson_t options = BSON_INITIALIZER;
  mongo_append_simple(&options);
  mongoc_cursor_t *cursor =
      mongoc_collection_aggregate(lease->leases, MONGOC_QUERY_NONE, pipeline, &options, NULL);
  bson_destroy(&options);
  LeaseView view = {.prolonged_ms_ago = -1, .lag_ms = -1};
  const bson_t *document, *reply;
  bson_error_t error;
  bson_iter_t iter;
  if (mongoc_cursor_next(cursor, &document)) {
    if (bson_iter_init_find(&iter, document, "left") && BSON_ITER_HOLDS_INT(&iter))
      view.expires_in_ms = bson_iter_as_int64(&iter);
    if (bson_iter_init_find(&iter, document, "silent") && BSON_ITER_HOLDS_INT(&iter))
      view.prolonged_ms_ago = bson_iter_as_int64(&iter);
    if (bson_iter_init_find(&iter, document, "owner") && BSON_ITER_HOLDS_UTF8(&iter))
      g_strlcpy(view.owner, bson_iter_utf8(&iter, NULL), sizeof view.owner);
    view.lag_ms = number_at(document, "lag_ms", -1);
    view.settled_at = time_at(document, "settled_at");
    view.held = view.expires_in_ms > 0;
    view.pause = pause_at(document, "paused");
    read_trouble(document, &view);
    if (view.held)
      find_not_served(mongo_store_settings(store), document, view.not_served);
  }
  bool good = !mongoc_cursor_error_document(cursor, &error, &reply) ||
              mongo_fail(&error, reply, ret_failure);
  mongoc_cursor_destroy(cursor);
  bson_destroy(pipeline);
  if (good)
    *ret_view = view;
  return good;
}
