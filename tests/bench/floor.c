/* floor.c - the floor under every projector: the same stores, the same steps, nothing else.
 *
 *   floor DATABASE                     empties a full outbox, and prints the number of events
 *   floor DATABASE unclaimed           the same without the claims
 *   floor DATABASE follow              follows the change stream until SIGTERM; prints "ready"
 *
 * Four stages work at the same time, each on its own connections, batches flowing between them:
 *
 *   scan ▶ claim (updateMany) ▶ ledger rows and upserts, one MySQL transaction ▶ delete by id
 *
 * To follow, one worker takes whatever has come; what it has committed is deleted beside it.
 *
 * No order, no positions, no fence, no mapping, no failures: an error ends it. The events are those
 * of the workload "upsert" (events.h), in the collection `outbox` of DATABASE; the tables are made
 * again in DATABASE of MySQL. */
#include "stores.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { QUEUED_MAX = 4, WORKERS = 2, BATCH = 500, GATHER_US = 10000 };

/* --- batches and the pipes between the stages ---------------------------------------------- */

/* Documents of one aggregate shard; without documents: the end of the stream. */
typedef struct Batch {
  guint count;
  bson_t *documents[];
} Batch;

static Batch *batch_new(guint size) {
  return g_malloc0(sizeof(Batch) + size * sizeof(bson_t *));
}

static void batch_free(Batch *batch) {
  for (guint i = 0; i < batch->count; i++)
    bson_destroy(batch->documents[i]);
  g_free(batch);
}

/* A bounded queue that makes its writer wait. */
typedef struct Pipe {
  GMutex lock;
  GCond changed;
  GQueue batches;
} Pipe;

static void pipe_init(Pipe *pipe) {
  g_mutex_init(&pipe->lock);
  g_cond_init(&pipe->changed);
  g_queue_init(&pipe->batches);
}

static void pipe_put(Pipe *pipe, Batch *batch) {
  g_mutex_lock(&pipe->lock);
  while (g_queue_get_length(&pipe->batches) >= QUEUED_MAX)
    g_cond_wait(&pipe->changed, &pipe->lock);
  g_queue_push_tail(&pipe->batches, batch);
  g_cond_broadcast(&pipe->changed);
  g_mutex_unlock(&pipe->lock);
}

/* The stream ends with an empty batch, which the caller frees like any other. */
static Batch *pipe_get(Pipe *pipe) {
  g_mutex_lock(&pipe->lock);
  while (g_queue_is_empty(&pipe->batches))
    g_cond_wait(&pipe->changed, &pipe->lock);
  Batch *batch = g_queue_pop_head(&pipe->batches);
  g_cond_broadcast(&pipe->changed);
  g_mutex_unlock(&pipe->lock);
  return batch;
}

/* --- the transaction ----------------------------------------------------------------------- */

static void make_tables(const char *database) {
  static const char sql[] =
      "DROP TABLE IF EXISTS account, applied;"
      "CREATE TABLE account (id VARCHAR(64) PRIMARY KEY, user_id VARCHAR(64), name VARCHAR(100),"
      " balance BIGINT, currency CHAR(3), version BIGINT, occurred_at DATETIME(3));"
      "CREATE TABLE applied (event_id BINARY(16) PRIMARY KEY,"
      " applied_at DATETIME(3) DEFAULT CURRENT_TIMESTAMP(3))";
  MYSQL *mysql = open_mysql(database, CLIENT_MULTI_STATEMENTS);
  run_sql(mysql, sql, strlen(sql));
  mysql_close(mysql);
}

/* --- an event as SQL ----------------------------------------------------------------------- */

static bson_iter_t field(const bson_t *document, const char *path) {
  bson_iter_t top, found = {0};
  check(bson_iter_init(&top, document) && bson_iter_find_descendant(&top, path, &found), path,
        "missing in an event");
  return found;
}

static void append_text(GString *sql, MYSQL *mysql, const bson_t *document, const char *path) {
  bson_iter_t iter = field(document, path);
  uint32_t length;
  const char *text = bson_iter_utf8(&iter, &length);
  gsize before = sql->len;
  g_string_set_size(sql, before + 2 * length + 3);
  sql->str[before] = '\'';
  gsize escaped = mysql_real_escape_string(mysql, sql->str + before + 1, text, length);
  sql->str[before + 1 + escaped] = '\'';
  g_string_truncate(sql, before + escaped + 2);
}

static void append_number(GString *sql, const bson_t *document, const char *path) {
  bson_iter_t iter = field(document, path);
  g_string_append_printf(sql, "%" G_GINT64_FORMAT, bson_iter_as_int64(&iter));
}

static void append_time(GString *sql, const bson_t *document) {
  bson_iter_t iter = field(document, "occurred_at");
  int64_t ms = bson_iter_date_time(&iter);
  time_t seconds = ms / 1000;
  struct tm tm;
  char text[32];
  gmtime_r(&seconds, &tm);
  strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm);
  g_string_append_printf(sql, "'%s.%03d'", text, (int)(ms % 1000));
}

static void append_id(GString *sql, const bson_t *document) {
  static const char digits[] = "0123456789ABCDEF";
  bson_iter_t iter = field(document, "_id");
  uint32_t length = 0;
  const uint8_t *bytes = NULL;
  bson_iter_binary(&iter, NULL, &length, &bytes);
  g_string_append(sql, "X'");
  for (uint32_t i = 0; i < length; i++) {
    g_string_append_c(sql, digits[bytes[i] >> 4]);
    g_string_append_c(sql, digits[bytes[i] & 15]);
  }
  g_string_append_c(sql, '\'');
}

static void append_row(GString *sql, MYSQL *mysql, const bson_t *event) {
  append_text(sql, mysql, event, "aggregate_id");
  g_string_append_c(sql, ',');
  append_text(sql, mysql, event, "payload.user_id");
  g_string_append_c(sql, ',');
  append_text(sql, mysql, event, "payload.name");
  g_string_append_c(sql, ',');
  append_number(sql, event, "payload.balance");
  g_string_append_c(sql, ',');
  append_text(sql, mysql, event, "payload.currency");
  g_string_append_c(sql, ',');
  append_number(sql, event, "version");
  g_string_append_c(sql, ',');
  append_time(sql, event);
}

static void write_transaction(GString *sql, MYSQL *mysql, const Batch *batch) {
  g_string_assign(sql, "BEGIN;INSERT INTO applied (event_id) VALUES");
  for (guint i = 0; i < batch->count; i++) {
    g_string_append(sql, i ? ",(" : "(");
    append_id(sql, batch->documents[i]);
    g_string_append_c(sql, ')');
  }
  g_string_append(sql, ";INSERT INTO account VALUES");
  for (guint i = 0; i < batch->count; i++) {
    g_string_append(sql, i ? ",(" : "(");
    append_row(sql, mysql, batch->documents[i]);
    g_string_append_c(sql, ')');
  }
  g_string_append(sql, " ON DUPLICATE KEY UPDATE user_id=VALUES(user_id),name=VALUES(name),"
                       "balance=VALUES(balance),currency=VALUES(currency),version=VALUES(version),"
                       "occurred_at=VALUES(occurred_at);COMMIT");
}

/* --- the stages ---------------------------------------------------------------------------- */

static const char *database;
static bool unclaimed;
static Pipe loaded[WORKERS], applied;

/* As the projector does: writes that may be lost in a failover need not wait for a majority. */
static mongoc_collection_t *open_outbox(mongoc_client_t *client) {
  mongoc_collection_t *outbox = mongoc_client_get_collection(client, database, "outbox");
  mongoc_write_concern_t *quick = mongoc_write_concern_new();
  mongoc_write_concern_set_w(quick, 1);
  mongoc_collection_set_write_concern(outbox, quick);
  mongoc_write_concern_destroy(quick);
  return outbox;
}

/* {_id: {$in: […]}} */
static bson_t *by_id(const Batch *batch) {
  bson_t *filter = bson_new(), in, ids;
  BSON_APPEND_DOCUMENT_BEGIN(filter, "_id", &in);
  BSON_APPEND_ARRAY_BEGIN(&in, "$in", &ids);
  for (guint i = 0; i < batch->count; i++) {
    bson_iter_t id = field(batch->documents[i], "_id");
    char buffer[16];
    const char *key;
    size_t length = bson_uint32_to_string(i, &key, buffer, sizeof buffer);
    bson_append_iter(&ids, key, (int)length, &id);
  }
  bson_append_array_end(&in, &ids);
  bson_append_document_end(filter, &in);
  return filter;
}

static void claim(mongoc_collection_t *outbox, const Batch *batch, const bson_t *mark) {
  bson_error_t error;
  if (unclaimed)
    return;
  bson_t *filter = by_id(batch);
  bool good = mongoc_collection_update_many(outbox, filter, mark, NULL, NULL, &error);
  check(good, "claim", error.message);
  bson_destroy(filter);
}

static bson_t *claim_mark(void) {
  return BCON_NEW("$set", "{", "status", BCON_UTF8("in_progress"), "claimed_by", BCON_UTF8("floor"),
                  "claimed_at", BCON_DATE_TIME(1700000000000), "}");
}

static void delete_batch(mongoc_collection_t *outbox, const Batch *batch) {
  bson_error_t error;
  bson_t *filter = by_id(batch);
  bool good = mongoc_collection_delete_many(outbox, filter, NULL, NULL, &error);
  check(good, "delete", error.message);
  bson_destroy(filter);
}

static gpointer work(gpointer data) {
  Pipe *source = data;
  mongoc_client_t *client = open_mongo();
  mongoc_collection_t *outbox = open_outbox(client);
  bson_t *mark = claim_mark();
  GString *sql = g_string_sized_new(256 * 1024);
  Batch *batch;
  mysql_thread_init();
  /* One round trip for a whole transaction, which a lower bound may do. */
  MYSQL *mysql = open_mysql(database, CLIENT_MULTI_STATEMENTS);
  while ((batch = pipe_get(source))->count > 0) {
    claim(outbox, batch, mark);
    write_transaction(sql, mysql, batch);
    run_sql(mysql, sql->str, sql->len);
    pipe_put(&applied, batch);
  }
  batch_free(batch);
  mysql_close(mysql);
  mysql_thread_end();
  g_string_free(sql, TRUE);
  bson_destroy(mark);
  mongoc_collection_destroy(outbox);
  mongoc_client_destroy(client);
  return NULL;
}

static gpointer acknowledge(G_GNUC_UNUSED gpointer data) {
  mongoc_client_t *client = open_mongo();
  mongoc_collection_t *outbox = open_outbox(client);
  Batch *batch;
  while ((batch = pipe_get(&applied))->count > 0) {
    delete_batch(outbox, batch);
    batch_free(batch);
  }
  batch_free(batch);
  mongoc_collection_destroy(outbox);
  mongoc_client_destroy(client);
  return NULL;
}

/* Reads the outbox once and deals each aggregate to one worker; returns the number of events. */
static guint64 scan(void) {
  mongoc_client_t *client = open_mongo();
  mongoc_collection_t *outbox = open_outbox(client);
  bson_t everything = BSON_INITIALIZER;
  mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(outbox, &everything, NULL, NULL);
  Batch *open[WORKERS];
  const bson_t *event;
  guint64 count = 0;
  bson_error_t error = {0};
  for (guint i = 0; i < WORKERS; i++)
    open[i] = batch_new(BATCH);
  for (; mongoc_cursor_next(cursor, &event); count++) {
    bson_iter_t aggregate = field(event, "aggregate_id");
    guint to = g_str_hash(bson_iter_utf8(&aggregate, NULL)) % WORKERS;
    open[to]->documents[open[to]->count++] = bson_copy(event);
    if (open[to]->count == BATCH) {
      pipe_put(&loaded[to], open[to]);
      open[to] = batch_new(BATCH);
    }
  }
  check(!mongoc_cursor_error(cursor, &error), "scan", error.message);
  for (guint i = 0; i < WORKERS; i++) {
    bool rest = open[i]->count > 0;
    pipe_put(&loaded[i], open[i]);
    if (rest)
      pipe_put(&loaded[i], batch_new(0));
  }
  mongoc_cursor_destroy(cursor);
  mongoc_collection_destroy(outbox);
  mongoc_client_destroy(client);
  return count;
}

/* --- following ----------------------------------------------------------------------------- */

static GAsyncQueue *arrived, *committed; /* of bson_t */

/* Whatever is there, at least one; waits at most that long for more. */
static Batch *gather(GAsyncQueue *queue, gint64 wait_us) {
  Batch *batch = batch_new(BATCH);
  bson_t *document = g_async_queue_pop(queue);
  gint64 until = g_get_monotonic_time() + wait_us;
  while (document) {
    batch->documents[batch->count++] = document;
    gint64 left = until - g_get_monotonic_time();
    document = batch->count == BATCH ? NULL
               : left > 0            ? g_async_queue_timeout_pop(queue, (guint64)left)
                                     : g_async_queue_try_pop(queue);
  }
  return batch;
}

static gpointer work_along(G_GNUC_UNUSED gpointer data) {
  mongoc_collection_t *outbox = open_outbox(open_mongo());
  bson_t *mark = claim_mark();
  GString *sql = g_string_new(NULL);
  mysql_thread_init();
  MYSQL *mysql = open_mysql(database, CLIENT_MULTI_STATEMENTS);
  for (;;) {
    Batch *batch = gather(arrived, 0);
    claim(outbox, batch, mark);
    write_transaction(sql, mysql, batch);
    run_sql(mysql, sql->str, sql->len);
    for (guint i = 0; i < batch->count; i++)
      g_async_queue_push(committed, batch->documents[i]);
    g_free(batch);
  }
  return NULL;
}

static gpointer acknowledge_along(G_GNUC_UNUSED gpointer data) {
  mongoc_collection_t *outbox = open_outbox(open_mongo());
  for (;;) {
    Batch *batch = gather(committed, GATHER_US);
    delete_batch(outbox, batch);
    batch_free(batch);
  }
  return NULL;
}

static G_NORETURN void follow(void) {
  mongoc_collection_t *outbox = open_outbox(open_mongo());
  bson_t *pipeline =
      BCON_NEW("pipeline", "[", "{", "$match", "{", "operationType", BCON_UTF8("insert"), "}", "}",
               "{", "$project", "{", "fullDocument", BCON_INT32(1), "}", "}", "]");
  bson_t *options = BCON_NEW("maxAwaitTimeMS", BCON_INT64(1000), "batchSize", BCON_INT32(1000));
  mongoc_change_stream_t *changes = mongoc_collection_watch(outbox, pipeline, options);
  arrived = g_async_queue_new();
  committed = g_async_queue_new();
  g_thread_new("work", work_along, NULL);
  g_thread_new("acknowledge", acknowledge_along, NULL);
  const bson_t *change, *reply;
  bson_error_t error = {0};
  mongoc_change_stream_next(changes, &change); /* opens it: nothing is inserted before "ready" */
  printf("ready\n");
  fflush(stdout);
  while (!mongoc_change_stream_error_document(changes, &error, &reply)) {
    if (!mongoc_change_stream_next(changes, &change))
      continue;
    bson_iter_t document = field(change, "fullDocument");
    uint32_t length;
    const uint8_t *bytes;
    bson_iter_document(&document, &length, &bytes);
    g_async_queue_push(arrived, bson_new_from_data(bytes, length));
  }
  check(false, "change stream", error.message);
  abort();
}

int main(int argc, char **argv) {
  g_set_prgname("floor");
  check(argc == 2 || argc == 3, "usage", "floor DATABASE [unclaimed|follow]");
  database = argv[1];
  mongoc_init();
  mysql_library_init(0, NULL, NULL);
  make_tables(database);
  if (argc == 3 && !strcmp(argv[2], "follow"))
    follow();
  unclaimed = argc == 3 && !strcmp(argv[2], "unclaimed");
  GThread *threads[WORKERS];
  pipe_init(&applied);
  GThread *acknowledger = g_thread_new("acknowledge", acknowledge, NULL);
  for (guint i = 0; i < WORKERS; i++) {
    pipe_init(&loaded[i]);
    threads[i] = g_thread_new("work", work, &loaded[i]);
  }
  guint64 count = scan();
  for (guint i = 0; i < WORKERS; i++)
    g_thread_join(threads[i]);
  pipe_put(&applied, batch_new(0));
  g_thread_join(acknowledger);
  printf("%" G_GUINT64_FORMAT "\n", count);
  mysql_library_end();
  mongoc_cleanup();
  return 0;
}
