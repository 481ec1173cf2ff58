/* numbering.c - sequence numbers, page by page in transactions. */
#include "projector/infra/mongo/numbering.h"

#include "projector/infra/crash.h"
#include "projector/infra/mongo/outbox_private.h"

#include <string.h>

enum {
  PAGE = 1000,
  TOGETHER = 100, /* ids in one statement, each of which is searched in their list */
  DUPLICATE_KEY = 11000,
};

static const char leases[] = "projector_leases";

struct Numbering {
  MongoStore *store;
  Outbox *archive;
  char *archive_name, *key;
  int64_t epoch;
  EventCursor *cursor; /* of events without a number; NULL: not open */
};

static char *key_of(const char *outbox) {
  return g_strconcat("events:", outbox, NULL);
}

Numbering *numbering_new(MongoStore *store, int64_t epoch) {
  const char *outbox = mongo_store_settings(store)->outbox;
  Numbering *numbering = g_new0(Numbering, 1);
  numbering->store = store;
  numbering->archive_name = g_strconcat(outbox, "_archive", NULL);
  numbering->archive = outbox_new_on(store, "", numbering->archive_name);
  numbering->key = key_of(outbox);
  numbering->epoch = epoch;
  return numbering;
}

void numbering_free(Numbering *numbering) {
  if (!numbering)
    return;
  event_cursor_free(numbering->cursor);
  outbox_free(numbering->archive);
  g_free(numbering->archive_name);
  g_free(numbering->key);
  g_free(numbering);
}

/* --- one page ------------------------------------------------------------------------------- */

static bson_t *unnumbered(void) {
  return BCON_NEW("seq", BCON_NULL); /* or the field is missing */
}

/* Adds the ids of the next page: {"0": id …}. All pages come from one cursor, so that an archive
 * that was never numbered is sorted only once. */
static bool read_page(Numbering *numbering, bson_t *ids, uint32_t *ret_count,
                      Failure *ret_failure) {
  const bson_t *document = NULL;
  uint32_t count = 0;
  if (!numbering->cursor) {
    bson_t *options = outbox_sorted_options(numbering->archive);
    BCON_APPEND(options, "projection", "{", "_id", BCON_INT32(1), "}", "allowDiskUse",
                BCON_BOOL(true), "batchSize", BCON_INT32(PAGE));
    numbering->cursor = outbox_find(numbering->archive, unnumbered(), options);
  }
  while (count < PAGE && (document = event_cursor_next(numbering->cursor, ret_failure))) {
    char buffer[16];
    const char *key;
    g_autoptr(Event) event = event_decode(document);
    bson_uint32_to_string(count++, &key, buffer, sizeof buffer);
    event_append_id(event, ids, key);
  }
  if (!document)
    g_clear_pointer(&numbering->cursor, event_cursor_free);
  *ret_count = count;
  return ret_failure->class == FAILURE_NONE;
}

/* Runs a command in the transaction. */
static bool run(const Numbering *numbering, mongoc_client_session_t *session, const bson_t *command,
                bson_t *ret_reply, bson_error_t *error) {
  mongoc_client_t *client = mongoc_client_session_get_client(session);
  bson_t options = BSON_INITIALIZER;
  bson_init(ret_reply);
  bool good = mongoc_client_session_append(session, &options, error);
  if (good) {
    bson_destroy(ret_reply);
    good = mongoc_client_command_with_opts(client, mongo_store_settings(numbering->store)->database,
                                           command, NULL, &options, ret_reply, error);
  }
  bson_destroy(&options);
  return good;
}

/* Reserves the page's numbers; returns the number before its first. */
static bool take_numbers(const Numbering *numbering, mongoc_client_session_t *session,
                         uint32_t count, int64_t *ret_before, Failure *ret_failure) {
  bson_t *command =
      BCON_NEW("findAndModify", BCON_UTF8(leases), "query", "{", "_id", BCON_UTF8(numbering->key),
               "epoch", "{", "$lte", BCON_INT64(numbering->epoch), "}", "}", "update", "{", "$set",
               "{", "epoch", BCON_INT64(numbering->epoch), "}", "$inc", "{", "seq",
               BCON_INT64(count), "}", "}", "upsert", BCON_BOOL(true), "new", BCON_BOOL(true));
  bson_t reply;
  bson_error_t error;
  bson_iter_t iter, value;
  mongo_append_simple(command);
  bool good = run(numbering, session, command, &reply, &error);
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

/* {q: {_id: {$in: ids}, seq: null}, u: [{$set: {seq: before + 1 + place in ids}}]} */
static void append_statement(bson_t *statements, const char *key, const bson_t *ids,
                             int64_t before) {
  BCON_APPEND(statements, key, "{", "q", "{", "_id", "{", "$in", BCON_ARRAY(ids), "}", "seq",
              BCON_NULL, "}", "u", "[", "{", "$set", "{", "seq", "{", "$add", "[",
              BCON_INT64(before + 1), "{", "$indexOfArray", "[", "{", "$literal", BCON_ARRAY(ids),
              "}", BCON_UTF8("$_id"), "]", "}", "]", "}", "}", "}", "]", "multi", BCON_BOOL(true),
              "collation", "{", "locale", BCON_UTF8("simple"), "}", "}");
}

static bson_t *write_command(const Numbering *numbering, const bson_t *ids, int64_t before) {
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
  bson_t *command =
      BCON_NEW("update", BCON_UTF8(numbering->archive_name), "updates", BCON_ARRAY(&statements));
  bson_destroy(&some);
  bson_destroy(&statements);
  return command;
}

/* All or none: an event that was numbered or removed since it was read leaves no hole. */
static bool write_numbers(const Numbering *numbering, mongoc_client_session_t *session,
                          const bson_t *ids, uint32_t count, int64_t before, Failure *ret_failure) {
  bson_t *command = write_command(numbering, ids, before), reply;
  bson_error_t error;
  bson_iter_t iter;
  bool good =
      run(numbering, session, command, &reply, &error) || mongo_fail(&error, &reply, ret_failure);
  if (good && bson_iter_init_find(&iter, &reply, "writeErrors"))
    good = failure_set(ret_failure, FAILURE_UNKNOWN, SOURCE_MONGODB, 0,
                       "an archived event refuses its number");
  else if (good && (!bson_iter_init_find(&iter, &reply, "n") ||
                    bson_iter_as_int64(&iter) != (int64_t)count))
    good = failure_set(ret_failure, FAILURE_CONFLICT, SOURCE_MONGODB, 0,
                       "the archive has changed since it was read");
  bson_destroy(&reply);
  bson_destroy(command);
  return good;
}

static bool commit(mongoc_client_session_t *session, Failure *ret_failure) {
  bson_t reply;
  bson_error_t error;
  bool good = mongoc_client_session_commit_transaction(session, &reply, &error) ||
              mongo_fail(&error, &reply, ret_failure);
  bson_destroy(&reply);
  return good;
}

static bool number_in(const Numbering *numbering, mongoc_client_session_t *session,
                      const bson_t *ids, uint32_t count, Failure *ret_failure) {
  int64_t before = 0;
  mongoc_write_concern_t *majority = mongoc_write_concern_new();
  mongoc_transaction_opt_t *options = mongoc_transaction_opts_new();
  bson_error_t error;
  mongoc_write_concern_set_wmajority(majority, -1);
  mongoc_transaction_opts_set_write_concern(options, majority);
  bool good = mongoc_client_session_start_transaction(session, options, &error) ||
              mongo_fail(&error, NULL, ret_failure);
  mongoc_transaction_opts_destroy(options);
  mongoc_write_concern_destroy(majority);
  if (!good)
    return false;
  if (take_numbers(numbering, session, count, &before, ret_failure) &&
      write_numbers(numbering, session, ids, count, before, ret_failure)) {
    crash_point("before_numbered");
    return commit(session, ret_failure); /* in doubt: events without a number are read again */
  }
  mongoc_client_session_abort_transaction(session, NULL);
  return false;
}

static bool number(const Numbering *numbering, const bson_t *ids, uint32_t count,
                   Failure *ret_failure) {
  bson_error_t error;
  mongoc_client_t *client = mongo_store_borrow(numbering->store);
  mongoc_client_session_t *session = mongoc_client_start_session(client, NULL, &error);
  bool good = (session || mongo_fail(&error, NULL, ret_failure)) &&
              number_in(numbering, session, ids, count, ret_failure);
  if (session)
    mongoc_client_session_destroy(session);
  mongo_store_return(numbering->store, client);
  return good;
}

bool numbering_step(Numbering *numbering, int64_t *ret_count, Failure *ret_failure) {
  bson_t ids = BSON_INITIALIZER;
  uint32_t count = 0;
  bool good = read_page(numbering, &ids, &count, ret_failure) &&
              (count == 0 || number(numbering, &ids, count, ret_failure));
  bson_destroy(&ids);
  if (!good)
    g_clear_pointer(&numbering->cursor, event_cursor_free);
  *ret_count = good ? count : 0;
  return good;
}

/* --- reading -------------------------------------------------------------------------------- */

bool numbering_last(MongoStore *store, const char *outbox, int64_t *ret_last,
                    Failure *ret_failure) {
  g_autofree char *key = key_of(outbox);
  g_autoptr(Outbox) counters = outbox_new_on(store, "", leases);
  g_autoptr(EventCursor) cursor =
      outbox_find(counters, BCON_NEW("_id", BCON_UTF8(key)), bson_new());
  const bson_t *document = event_cursor_next(cursor, ret_failure);
  *ret_last = document ? numbering_of(document) : 0;
  return ret_failure->class == FAILURE_NONE;
}

int64_t numbering_of(const bson_t *document) {
  bson_iter_t iter;
  return bson_iter_init_find(&iter, document, "seq") && BSON_ITER_HOLDS_NUMBER(&iter)
             ? bson_iter_as_int64(&iter)
             : 0;
}

EventCursor *numbering_find(Outbox *archive, bson_t *filter, int64_t after, int limit) {
  BCON_APPEND(filter, "seq", "{", "$gt", BCON_INT64(after), "}");
  return outbox_find(archive, filter,
                     BCON_NEW("sort", "{", "seq", BCON_INT32(1), "}", "limit", BCON_INT64(limit),
                              "readConcern", "{", "level", BCON_UTF8("snapshot"), "}"));
}

bool numbering_is_behind(Outbox *archive, bool *ret_behind, Failure *ret_failure) {
  g_autoptr(EventCursor) cursor =
      outbox_find(archive, unnumbered(),
                  BCON_NEW("projection", "{", "_id", BCON_INT32(1), "}", "limit", BCON_INT64(1)));
  *ret_behind = event_cursor_next(cursor, ret_failure) != NULL;
  return ret_failure->class == FAILURE_NONE;
}
