/* status.c - `projector status`: what is in the outbox, who works, how far behind. */
#include "projector/app/status.h"

#include "projector/app/command.h"
#include "projector/domain/datetime.h"

#include <jansson.h>
#include <stdio.h>

void status_ask_mongodb(Status *status, MongoStore *store, Outbox *outbox) {
  status->mongodb = (Failure){0};
  g_strlcpy(status->mongodb_server, mongo_store_server(store), sizeof status->mongodb_server);
  if (outbox_count(outbox, &status->counts, &status->mongodb) &&
      outbox_count_blocked(outbox, &status->blocked, &status->mongodb))
    lease_look(store, status->name, &status->lease, &status->mongodb);
}

void status_ask_mysql(Status *status, const Session *session) {
  status->mysql = (Failure){0};
  g_strlcpy(status->mysql_server, session_server(session), sizeof status->mysql_server);
}

static int64_t waiting(const OutboxCounts *counts) {
  return counts->pending + counts->in_progress + counts->failed;
}

int64_t status_lag_ms(const Status *status) {
  const OutboxCounts *counts = &status->counts;
  return counts->oldest_occurred_at && counts->server_time > counts->oldest_occurred_at
             ? counts->server_time - MAX(counts->oldest_occurred_at, DATETIME_FIRST_MS)
             : 0;
}

const char *status_state(const Status *status) {
  if (status->mongodb.class != FAILURE_NONE)
    return "unknown";
  return status->lease.held ? "running" : "stopped";
}

static const char *oldest(const Status *status, char text[static DATETIME_TEXT_SIZE]) {
  if (!datetime_in_range(status->counts.oldest_occurred_at))
    return "out of range";
  datetime_format(status->counts.oldest_occurred_at * 1000, 3, text);
  return text;
}

static json_t *store_json(const Failure *failure, const char *server) {
  return failure->class == FAILURE_NONE
             ? json_pack("{s:b, s:s}", "reachable", 1, "server", server)
             : json_pack("{s:b, s:s}", "reachable", 0, "reason", failure->message);
}

json_t *status_json(const Status *status) {
  const OutboxCounts *counts = &status->counts;
  char text[DATETIME_TEXT_SIZE];
  return json_pack("{s:s, s:{s:s, s:s?, s:I}, s:{s:I, s:I, s:I, s:I, s:s?}, s:I, s:I, s:o, s:o}",
                   "name", status->name, "projector", "state", status_state(status), "owner",
                   status->lease.held ? status->lease.owner : NULL, "lease_expires_in_ms",
                   (json_int_t)MAX(status->lease.expires_in_ms, 0), "outbox", "pending",
                   (json_int_t)counts->pending, "in_progress", (json_int_t)counts->in_progress,
                   "failed", (json_int_t)counts->failed, "dead", (json_int_t)counts->dead,
                   "oldest_occurred_at", counts->oldest_occurred_at ? oldest(status, text) : NULL,
                   "lag_ms", (json_int_t)status_lag_ms(status), "blocked_aggregates",
                   (json_int_t)status->blocked, "mongodb",
                   store_json(&status->mongodb, status->mongodb_server), "mysql",
                   store_json(&status->mysql, status->mysql_server));
}

static void print_json(const Status *status) {
  json_t *json = status_json(status);
  command_print_json(json, JSON_INDENT(2));
  json_decref(json);
}

static void print_store(const char *label, const Failure *failure, const char *server) {
  printf("%-20s%s\n", label, failure->class == FAILURE_NONE ? server : failure->message);
}

static void print_text(const Status *status) {
  const OutboxCounts *counts = &status->counts;
  char text[DATETIME_TEXT_SIZE];
  printf("%-20s%s\n", "projector", status->name);
  printf("%-20s%s%s%s\n", "state", status_state(status), status->lease.held ? ", owner " : "",
         status->lease.held ? status->lease.owner : "");
  if (status->mongodb.class == FAILURE_NONE) {
    printf("%-20s%lld pending, %lld in progress, %lld failed, %lld dead\n", "outbox",
           (long long)counts->pending, (long long)counts->in_progress, (long long)counts->failed,
           (long long)counts->dead);
    printf("%-20s%s\n", "oldest event", counts->oldest_occurred_at ? oldest(status, text) : "none");
    printf("%-20s%lld ms\n", "lag", (long long)status_lag_ms(status));
    printf("%-20s%lld\n", "blocked aggregates", (long long)status->blocked);
  }
  print_store("mongodb", &status->mongodb, status->mongodb_server);
  print_store("mysql", &status->mysql, status->mysql_server);
}

static int exit_status(const Status *status) {
  if (status->mongodb.class == FAILURE_CONFIG || status->mysql.class == FAILURE_CONFIG)
    return EXIT_WRONG;
  if (status->mongodb.class != FAILURE_NONE || status->mysql.class != FAILURE_NONE)
    return EXIT_UNREACHABLE;
  bool healthy = status->counts.failed == 0 && status->counts.dead == 0 &&
                 (status->lease.held || waiting(&status->counts) == 0);
  return healthy ? EXIT_GOOD : EXIT_NO;
}

int command_status(int argc, char **argv) {
  gboolean as_json = FALSE;
  const GOptionEntry options[] = {{"json", 0, 0, G_OPTION_ARG_NONE, &as_json, "For machines", NULL},
                                  G_OPTION_ENTRY_NULL};
  g_autoptr(Config) config = NULL;
  int status;
  if (!command_begin(
          &argc, &argv, "- outbox, lag, owner, stores",
          "Exit status 1 when events have failed or are dead, or wait while nobody works.", options,
          &config, &status))
    return status;
  if (argc != 1)
    return command_misuse("expected no arguments");
  Status view = {.name = config->name};
  g_autoptr(MongoStore) store = mongo_store_open_single(&config->mongodb, &view.mongodb);
  g_autoptr(Outbox) outbox = store ? outbox_new(store, "") : NULL;
  if (store)
    status_ask_mongodb(&view, store, outbox);
  g_autoptr(Session) session = session_open(&config->mysql, &view.mysql);
  if (session)
    status_ask_mysql(&view, session);
  if (as_json)
    print_json(&view);
  else
    print_text(&view);
  return exit_status(&view);
}
