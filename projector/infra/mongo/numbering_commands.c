/* numbering_commands.c - what numbering archived events sends to MongoDB. */
#include "projector/infra/mongo/numbering_private.h"

#include "projector/infra/mongo/outbox_private.h"

#include <string.h>

enum {
  TOGETHER = 100,   /* ids in one statement, each of which is searched in their list */
  SMALL_PAGE = 200, /* of whole events */
  DUPLICATE_KEY = 11000,
};

static const char leases[] = "projector_leases";

struct NumberTransaction {
  MongoStore *store;
  mongoc_client_t *client;
  mongoc_client_session_t *session;
};

static char *key_of(const char *outbox) {
  return g_strconcat("events:", outbox, NULL);
}

void numbering_append_missing(bson_t *filter) {
  BSON_APPEND_NULL(filter, "seq"); /* or the field is missing */
}

static bson_t *unnumbered(void) {
  bson_t *filter = bson_new();
  numbering_append_missing(filter);
  return filter;
}

EventCursor *numbers_find_missing(Outbox *archive) {
  bson_t *options = outbox_sorted_options(archive);
  BCON_APPEND(options, "projection", "{", "_id", BCON_INT32(1), "}", "allowDiskUse",
              BCON_BOOL(true), "batchSize", BCON_INT32(NUMBERING_PAGE));
  return outbox_find(archive, unnumbered(), options);
}

/* --- the transaction of a page -------------------------------------------------------------- */

static bool start(NumberTransaction *transaction, Failure *ret_failure) {
  bson_error_t error;
  transaction->session = mongoc_client_start_session(transaction->client, NULL, &error);
  if (!transaction->session)
    return mongo_fail(&error, NULL, ret_failure);
  mongoc_write_concern_t *majority = mongoc_write_concern_new();
  mongoc_transaction_opt_t *options = mongoc_transaction_opts_new();
  mongoc_write_concern_set_wmajority(majority, -1);
  mongoc_transaction_opts_set_write_concern(options, majority);
  bool good = mongoc_client_session_start_transaction(transaction->session, options, &error) ||
              mongo_fail(&error, NULL, ret_failure);
  mongoc_transaction_opts_destroy(options);
  mongoc_write_concern_destroy(majority);
  return good;
}

NumberTransaction *numbers_begin(MongoStore *store, Failure *ret_failure) {
  NumberTransaction *transaction = g_new0(NumberTransaction, 1);
  transaction->store = store;
  transaction->client = mongo_store_borrow(store);
  if (start(transaction, ret_failure))
    return transaction;
  numbers_end(transaction);
  return NULL;
}

/* What is not committed is rolled back. */
void numbers_end(NumberTransaction *transaction) {
  if (transaction->session && mongoc_client_session_in_transaction(transaction->session))
    mongoc_client_session_abort_transaction(transaction->session, NULL);
  if (transaction->session)
    mongoc_client_session_destroy(transaction->session);
  mongo_store_return(transaction->store, transaction->client);
  g_free(transaction);
}

/* Runs a command in the transaction. */
static bool run(const NumberTransaction *transaction, const bson_t *command, bson_t *ret_reply,
                bson_error_t *error) {
  bson_t options = BSON_INITIALIZER;
  bson_init(ret_reply);
  bool good = mongoc_client_session_append(transaction->session, &options, error);
  if (good) {
    bson_destroy(ret_reply);
    good = mongoc_client_command_with_opts(transaction->client,
                                           mongo_store_settings(transaction->store)->database,
                                           command, NULL, &options, ret_reply, error);
  }
  bson_destroy(&options);
  return good;
}

static bool take(NumberTransaction *transaction, int64_t epoch, int64_t count, int64_t *ret_before,
                 Failure *ret_failure) {
  g_autofree char *id = key_of(mongo_store_settings(transaction->store)->outbox);
  bson_t *command =
      BCON_NEW("findAndModify", BCON_UTF8(leases), "query", "{", "_id", BCON_UTF8(id), "epoch", "{",
               "$lte", BCON_INT64(epoch), "}", "}", "update", "{", "$set", "{", "epoch",
               BCON_INT64(epoch), "}", "$inc", "{", "seq", BCON_INT64(count), "}", "}", "upsert",
               BCON_BOOL(true), "new", BCON_BOOL(true));
  bson_t reply;
  bson_error_t error;
  bson_iter_t iter, value;
  mongo_append_simple(command);
  bool good = run(transaction, command, &reply, &error);
  if (good && bson_iter_init(&iter, &reply) &&
      bson_iter_find_descendant(&iter, "value.seq", &value))
    *ret_before = bson_iter_as_int64(&value) - count;
  else if (!good && error.code == DUPLICATE_KEY)
    failure_set(ret_failure, FAILURE_FENCED, SOURCE_MONGODB, 0,
                "a later owner numbers the archived events");
  else if (!good)
    mongo_fail(&error, &reply, ret_failure);
  bson_destroy(&reply);
  bson_destroy(command);
  return good;
}

/* A counter that is new, or older than the archive, continues behind what the archive has:
 * projector_leases was lost, or restored alone. */
bool numbers_take(NumberTransaction *transaction, const NumberClaim *claim, int64_t *ret_before,
                  Failure *ret_failure) {
  int64_t before = 0;
  if (!take(transaction, claim->epoch, claim->count, &before, ret_failure))
    return false;
  *ret_before = MAX(before, claim->highest);
  int64_t missing = *ret_before - before;
  return missing == 0 || take(transaction, claim->epoch, missing, &before, ret_failure);
}

/* {q: {_id: {$in: ids}, seq: null}, u: [{$set: {seq: before + 1 + place in ids}}]} */
static void append_statement(bson_t *statements, const char *key, const bson_t *ids,
                             int64_t before) {
  BCON_APPEND(statements, key, "{", "q", "{", "_id", "{", "$in", BCON_ARRAY(ids), "}", "seq",
              BCON_NULL, "}", "u", "[", "{", "$set", "{", "seq", "{", "$add", "[",
              BCON_INT64(before + 1), "{", "$indexOfArray", "[", "{", "$literal", BCON_ARRAY(ids),
              "}", BCON_UTF8("$_id"), "]", "}", "]", "}", "}", "}", "]", "multi", BCON_BOOL(true),
              "collation", "{", "locale", BCON_UTF8("simple"), "}", "}");
}

static bson_t *write_command(const char *archive, const bson_t *ids, int64_t before) {
  bson_t statements = BSON_INITIALIZER, some = BSON_INITIALIZER;
  bson_iter_t iter;
  uint32_t count = 0, done = 0, statement = 0;
  char buffer[16];
  const char *key;
  bson_iter_init(&iter, ids);
  for (bool more = bson_iter_next(&iter); more;) {
    bson_uint32_to_string(count++, &key, buffer, sizeof buffer);
    bson_append_iter(&some, key, -1, &iter);
    more = bson_iter_next(&iter);
    if (more && count < TOGETHER)
      continue;
    bson_uint32_to_string(statement++, &key, buffer, sizeof buffer);
    append_statement(&statements, key, &some, before + done);
    done += count;
    count = 0;
    bson_reinit(&some);
  }
  bson_t *command = BCON_NEW("update", BCON_UTF8(archive), "updates", BCON_ARRAY(&statements));
  bson_destroy(&some);
  bson_destroy(&statements);
  return command;
}

static bool fail_refused(const bson_t *reply, Failure *ret_failure) {
  bson_iter_t iter, code, text;
  bson_error_t error;
  bool told = bson_iter_init(&iter, reply) &&
              bson_iter_find_descendant(&iter, "writeErrors.0.errmsg", &text) &&
              BSON_ITER_HOLDS_UTF8(&text) && bson_iter_init(&iter, reply) &&
              bson_iter_find_descendant(&iter, "writeErrors.0.code", &code);
  bson_set_error(&error, MONGOC_ERROR_SERVER, told ? (uint32_t)bson_iter_as_int64(&code) : 0, "%s",
                 told ? bson_iter_utf8(&text, NULL) : "no reason is told");
  mongo_fail(&error, NULL, ret_failure);
  return failure_prefix(ret_failure, "MongoDB refuses to number an archived event");
}

bool numbers_write(NumberTransaction *transaction, const bson_t *ids, int64_t before,
                   int64_t *ret_written, Failure *ret_failure) {
  g_autofree char *archive = mongo_archive_name(mongo_store_settings(transaction->store)->outbox);
  bson_t *command = write_command(archive, ids, before), reply;
  bson_error_t error;
  bson_iter_t iter;
  bool good = run(transaction, command, &reply, &error) || mongo_fail(&error, &reply, ret_failure);
  if (good && bson_iter_init_find(&iter, &reply, "writeErrors"))
    good = fail_refused(&reply, ret_failure);
  if (good)
    *ret_written = bson_iter_init_find(&iter, &reply, "n") ? bson_iter_as_int64(&iter) : 0;
  bson_destroy(&reply);
  bson_destroy(command);
  return good;
}

bool numbers_commit(NumberTransaction *transaction, Failure *ret_failure) {
  bson_t reply;
  bson_error_t error;
  bool good = mongoc_client_session_commit_transaction(transaction->session, &reply, &error) ||
              mongo_fail(&error, &reply, ret_failure);
  bson_destroy(&reply);
  return good;
}

/* --- reading -------------------------------------------------------------------------------- */

/* A number of the counter's document; 0: it has none. */
static bool read_counter(MongoStore *store, const char *outbox, const char *field, int64_t *ret,
                         Moment *ret_moment, Failure *ret_failure) {
  g_autofree char *key = key_of(outbox);
  g_autoptr(Outbox) counters = outbox_new_on(store, "", leases);
  g_autoptr(EventCursor) cursor =
      outbox_find_timed(counters, BCON_NEW("_id", BCON_UTF8(key)), bson_new());
  const bson_t *document = event_cursor_next(cursor, ret_failure);
  bson_iter_t iter;
  *ret = document && bson_iter_init_find(&iter, document, field) && BSON_ITER_HOLDS_NUMBER(&iter)
             ? bson_iter_as_int64(&iter)
             : 0;
  if (ret_moment)
    *ret_moment = event_cursor_moment(cursor);
  return ret_failure->class == FAILURE_NONE;
}

bool numbering_epoch(MongoStore *store, int64_t *ret_epoch, Failure *ret_failure) {
  return read_counter(store, mongo_store_settings(store)->outbox, "epoch", ret_epoch, NULL,
                      ret_failure);
}

bool numbering_last(MongoStore *store, const char *outbox, int64_t *ret_last, Moment *ret_moment,
                    Failure *ret_failure) {
  return read_counter(store, outbox, "seq", ret_last, ret_moment, ret_failure);
}

int64_t numbering_of(const bson_t *document) {
  bson_iter_t iter;
  return bson_iter_init_find(&iter, document, "seq") && BSON_ITER_HOLDS_NUMBER(&iter)
             ? bson_iter_as_int64(&iter)
             : 0;
}

/* `direction`: 1, the lowest; -1, the highest. */
static bool find_number(Outbox *archive, int direction, int64_t *ret_number, Failure *ret_failure) {
  g_autoptr(EventCursor) cursor =
      outbox_find(archive, BCON_NEW("seq", "{", "$type", BCON_UTF8("number"), "}"),
                  BCON_NEW("sort", "{", "seq", BCON_INT32(direction), "}", "limit", BCON_INT64(1),
                           "projection", "{", "seq", BCON_INT32(1), "}"));
  const bson_t *document = event_cursor_next(cursor, ret_failure);
  *ret_number = document ? numbering_of(document) : 0;
  return ret_failure->class == FAILURE_NONE;
}

bool numbering_oldest(Outbox *archive, int64_t *ret_oldest, Failure *ret_failure) {
  return find_number(archive, 1, ret_oldest, ret_failure);
}

bool numbers_find_highest(Outbox *archive, int64_t *ret_highest, Failure *ret_failure) {
  return find_number(archive, -1, ret_highest, ret_failure);
}

static void append_as_of(bson_t *options, AsOf as_of) {
  bson_t concern;
  BSON_APPEND_DOCUMENT_BEGIN(options, "readConcern", &concern);
  BSON_APPEND_UTF8(&concern, "level", "snapshot");
  if (as_of.moment.seconds)
    BSON_APPEND_TIMESTAMP(&concern, as_of.exactly ? "atClusterTime" : "afterClusterTime",
                          as_of.moment.seconds, as_of.moment.increment);
  bson_append_document_end(options, &concern);
}

EventCursor *numbering_find(Outbox *archive, bson_t *filter, int64_t after, AsOf as_of, int limit) {
  BCON_APPEND(filter, "seq", "{", "$gt", BCON_INT64(after), "}");
  bson_t *options = BCON_NEW("sort", "{", "seq", BCON_INT32(1), "}", "limit", BCON_INT64(limit));
  append_as_of(options, as_of);
  return outbox_find(archive, filter, options);
}

EventCursor *numbering_find_in_order(Outbox *events, bson_t *filter, AsOf as_of) {
  bson_t *options = outbox_sorted_options(events);
  BCON_APPEND(options, "allowDiskUse", BCON_BOOL(true), "batchSize", BCON_INT32(SMALL_PAGE));
  append_as_of(options, as_of);
  return outbox_find(events, filter, options);
}

bool numbering_is_behind(Outbox *archive, bool *ret_behind, Failure *ret_failure) {
  g_autoptr(EventCursor) cursor =
      outbox_find(archive, unnumbered(),
                  BCON_NEW("projection", "{", "_id", BCON_INT32(1), "}", "limit", BCON_INT64(1)));
  *ret_behind = event_cursor_next(cursor, ret_failure) != NULL;
  return ret_failure->class == FAILURE_NONE;
}
