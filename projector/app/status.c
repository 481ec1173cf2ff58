/* status.c - `projector status`: what is in the outbox, who works, how far behind. */
#include "projector/app/command.h"
#include "projector/domain/datetime.h"
#include "projector/infra/mongo/lease.h"
#include "projector/infra/mongo/outbox.h"

#include <jansson.h>
#include <stdio.h>

typedef struct Status {
  const char *name;
  OutboxCounts counts;
  LeaseView lease;
  int64_t blocked;        /* aggregates behind a failed or dead event */
  Failure mongodb, mysql; /* class NONE: reached */
  char mongodb_server[128], mysql_server[128];
} Status;

static bool ask_mongodb(const Config *config, Status *status, Failure *ret_failure) {
  g_autoptr(MongoStore) store = mongo_store_open(&config->mongodb, ret_failure);
  if (!store)
    return false;
  g_strlcpy(status->mongodb_server, mongo_store_server(store), sizeof status->mongodb_server);
  g_autoptr(Outbox) outbox = outbox_new(store, "");
  return outbox_count(outbox, &status->counts, ret_failure) &&
         outbox_count_blocked(outbox, &status->blocked, ret_failure) &&
         lease_look(store, config->name, &status->lease, ret_failure);
}

static bool ask_mysql(const Config *config, Status *status, Failure *ret_failure) {
  g_autoptr(Session) session = session_open(&config->mysql, ret_failure);
  if (!session)
    return false;
  g_strlcpy(status->mysql_server, session_server(session), sizeof status->mysql_server);
  return true;
}

static int64_t waiting(const OutboxCounts *counts) {
  return counts->pending + counts->in_progress + counts->failed;
}

/* How long the oldest event that still has to be applied has been waiting. */
static int64_t lag_ms(const OutboxCounts *counts) {
  return counts->oldest_occurred_at && counts->server_time > counts->oldest_occurred_at
             ? counts->server_time - counts->oldest_occurred_at
             : 0;
}

static const char *state(const Status *status) {
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

static void print_json(const Status *status) {
  const OutboxCounts *counts = &status->counts;
  char text[DATETIME_TEXT_SIZE];
  json_t *json = json_pack(
      "{s:s, s:{s:s, s:s?, s:I}, s:{s:I, s:I, s:I, s:I, s:s?}, s:I, s:I, s:o, s:o}", "name",
      status->name, "projector", "state", state(status), "owner",
      status->lease.held ? status->lease.owner : NULL, "lease_expires_in_ms",
      (json_int_t)MAX(status->lease.expires_in_ms, 0), "outbox", "pending",
      (json_int_t)counts->pending, "in_progress", (json_int_t)counts->in_progress, "failed",
      (json_int_t)counts->failed, "dead", (json_int_t)counts->dead, "oldest_occurred_at",
      counts->oldest_occurred_at ? oldest(status, text) : NULL, "lag_ms",
      (json_int_t)lag_ms(counts), "blocked_aggregates", (json_int_t)status->blocked, "mongodb",
      store_json(&status->mongodb, status->mongodb_server), "mysql",
      store_json(&status->mysql, status->mysql_server));
  char *line = json_dumps(json, JSON_INDENT(2));
  printf("%s\n", line);
  free(line);
  json_decref(json);
}

static void print_store(const char *label, const Failure *failure, const char *server) {
  printf("%-20s%s\n", label, failure->class == FAILURE_NONE ? server : failure->message);
}

static void print_text(const Status *status) {
  const OutboxCounts *counts = &status->counts;
  char text[DATETIME_TEXT_SIZE];
  printf("%-20s%s\n", "projector", status->name);
  printf("%-20s%s%s%s\n", "state", state(status), status->lease.held ? ", owner " : "",
         status->lease.held ? status->lease.owner : "");
  if (status->mongodb.class == FAILURE_NONE) {
    printf("%-20s%lld pending, %lld in progress, %lld failed, %lld dead\n", "outbox",
           (long long)counts->pending, (long long)counts->in_progress, (long long)counts->failed,
           (long long)counts->dead);
    printf("%-20s%s\n", "oldest event", counts->oldest_occurred_at ? oldest(status, text) : "none");
    printf("%-20s%lld ms\n", "lag", (long long)lag_ms(counts));
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
  Status view = {.name = config->name};
  ask_mongodb(config, &view, &view.mongodb);
  ask_mysql(config, &view, &view.mysql);
  if (as_json)
    print_json(&view);
  else
    print_text(&view);
  return exit_status(&view);
}
