/* status.c - `projector status`: what the outbox holds, who is the owner, how far it is behind. */
#include "projector/app/commands/status.h"

#include "projector/app/shared/command.h"
#include "projector/app/shared/identity.h"
#include "projector/domain/blame.h"
#include "projector/domain/datetime.h"
#include "projector/infra/mysql/probe.h"

#include <jansson.h>
#include <stdio.h>

enum {
  ANSWER_S = 3,    /* a person is waiting */
  TOLD_MS = 20000, /* an owner's report that is older does not count; above the longest interval of
                      heartbeats */
};

bool status_ask_mongodb(Status *status, MongoStore *store, Outbox *outbox, Failure *ret_failure) {
  status->counted =
      outbox_count(outbox, status->future_ms, &status->counts, ret_failure) &&
      outbox_count_blocked(outbox, status->future_ms, &status->blocked, ret_failure) &&
      lease_look(store, status->name, &status->lease, ret_failure) &&
      feeds_find_source(store, &status->source, ret_failure) &&
      feeds_view(store, status->feeds, &status->feed_count, ret_failure) &&
      mongo_count_receipts(store, &status->receipts, ret_failure);
  return status->counted;
}

/* Of a worker: locks of others, missing tables and missing privileges are reported elsewhere. */
static bool is_refused(const Failure *failure) {
  return failure_class_is_outage(failure->class) || failure->class == FAILURE_UNKNOWN;
}

static bool is_broken(const Failure *failure) {
  return failure->code >= 2000 && failure->code < 3000; /* the client's own */
}

/* Another look may have met the row first. */
static bool has_met_another(const Failure *failure) {
  return failure->class == FAILURE_CONFLICT && !blame_is_lock_wait(failure);
}

/* A session that was refused is not kept: behind a router another server may be the primary by now,
 * and the old one would refuse for ever. */
void status_ask_mysql(StoreState *state, const MysqlSettings *settings, const char *projector,
                      bool write, Session **session) {
  if (!session_follow(session, settings, &state->failure))
    return;
  Failure failure = {0};
  g_strlcpy(state->server, session_server(*session), sizeof state->server);
  state->reachable = true;
  if (write ? probe_write(*session, projector, &failure) : probe_admits(*session, &failure))
    return;
  g_clear_pointer(session, session_close);
  if (has_met_another(&failure))
    return;
  if (blame_is_lock_wait(&failure))
    failure_prefix(&failure, "projector_fence cannot be written: it is locked, or a COMMIT hangs");
  state->failure = failure;
  state->reachable = !is_broken(&failure);
}

void status_take_trouble(Status *status, const Failure *trouble, int64_t since_ms) {
  StoreState *store = trouble->source == SOURCE_MYSQL ? &status->mysql : &status->mongodb;
  bool of_a_store = trouble->source == SOURCE_MYSQL || trouble->source == SOURCE_MONGODB;
  bool counts = trouble->source == SOURCE_MONGODB || is_refused(trouble);
  if (!of_a_store || !counts || trouble->class == FAILURE_CONFIG ||
      store->failure.class != FAILURE_NONE)
    return;
  store->failure = *trouble;
  store->since_ms = since_ms;
}

static int64_t waiting(const OutboxCounts *counts) {
  return counts->pending + counts->in_progress + counts->failed;
}

int64_t status_oldest_age_ms(const Status *status) {
  const OutboxCounts *counts = &status->counts;
  return counts->oldest_occurred_at && counts->server_time > counts->oldest_occurred_at
             ? counts->server_time - MAX(counts->oldest_occurred_at, DATETIME_FIRST_MS)
             : 0;
}

int64_t status_lag_ms(const Status *status) {
  const LeaseView *lease = &status->lease;
  if (status->knows_lag)
    return status->lag_ms;
  if (waiting(&status->counts) == 0)
    return 0;
  if (lease->held && lease->lag_ms >= 0 && lease->prolonged_ms_ago < TOLD_MS)
    return lease->lag_ms + (lease->lag_ms > TOLD_MS / 10 ? lease->prolonged_ms_ago : 0);
  /* If there never was an owner, only the writer's time is known. */
  return lease->settled_at ? MAX(status->counts.server_time - lease->settled_at, 0)
                           : status_oldest_age_ms(status);
}

const char *status_state(const Status *status) {
  if (status->mongodb.failure.class != FAILURE_NONE)
    return "unknown";
  return status->lease.held ? "running" : "stopped";
}

static const char *oldest(const Status *status, char text[static DATETIME_TEXT_SIZE]) {
  if (!datetime_in_range(status->counts.oldest_occurred_at))
    return "out of range";
  datetime_format(status->counts.oldest_occurred_at * 1000, 3, text);
  return text;
}

static json_t *store_json(const StoreState *state) {
  bool usable = state->failure.class == FAILURE_NONE;
  json_t *json = json_pack("{s:b, s:b}", "reachable", state->reachable, "usable", usable);
  if (state->reachable)
    json_object_set_new(json, "server", json_string(state->server));
  if (!usable) {
    g_autofree char *reason = g_utf8_make_valid(state->failure.message, -1);
    json_object_set_new(json, "reason", json_string(reason));
    json_object_set_new(json, "code", json_integer(state->failure.code));
    json_object_set_new(json, "since_ms",
                        state->since_ms ? json_integer(state->since_ms) : json_null());
  }
  return json;
}

static json_t *feeds_json(const Status *status) {
  if (!status->counted)
    return json_null();
  json_t *list = json_array();
  for (unsigned i = 0; i < status->feed_count; i++) {
    const FeedView *feed = &status->feeds[i];
    json_array_append_new(list, json_pack("{s:s, s:I, s:s?, s:b}", "name", feed->name, "events",
                                          (json_int_t)feed->events, "projector",
                                          *feed->reader ? feed->reader : NULL, "running",
                                          feed->reader_works));
  }
  return list;
}

/* null: the outbox is no feed. */
static json_t *source_json(const Status *status) {
  const FeedSource *source = &status->source;
  if (!status->counted || !*source->name)
    return json_null();
  return json_pack("{s:s, s:b, s:o}", "projector", source->name, "running", source->works, "lag_ms",
                   source->lag_ms >= 0 ? json_integer(source->lag_ms) : json_null());
}

static json_t *pause_json(const PauseState *pause) {
  char since[DATETIME_TEXT_SIZE];
  if (!pause->on)
    return json_null();
  g_autofree char *by = g_utf8_make_valid(pause->by, -1);
  datetime_format(pause->since_ms * 1000, 3, since);
  return json_pack("{s:s, s:s}", "by", by, "since", since);
}

/* What MongoDB has not told is null: 0 would be a claim. */
static json_t *known(const Status *status, int64_t number) {
  return status->counted ? json_integer(number) : json_null();
}

static json_t *outbox_json(const Status *status) {
  const OutboxCounts *counts = &status->counts;
  char text[DATETIME_TEXT_SIZE];
  return json_pack("{s:o, s:o, s:o, s:o, s:o, s:s?}", "pending", known(status, counts->pending),
                   "in_progress", known(status, counts->in_progress), "failed",
                   known(status, counts->failed), "dead", known(status, counts->dead), "future",
                   known(status, counts->future), "oldest_occurred_at",
                   counts->oldest_occurred_at ? oldest(status, text) : NULL);
}

json_t *status_json(const Status *status) {
  return json_pack("{s:s, s:{s:s, s:s?, s:o}, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "name",
                   status->name, "projector", "state", status_state(status), "owner",
                   status->lease.held ? status->lease.owner : NULL, "lease_expires_in_ms",
                   known(status, MAX(status->lease.expires_in_ms, 0)), "outbox",
                   outbox_json(status), "lag_ms", known(status, status_lag_ms(status)),
                   "oldest_age_ms", known(status, status_oldest_age_ms(status)),
                   "blocked_aggregates", known(status, status->blocked), "paused",
                   pause_json(&status->lease.pause), "source", source_json(status), "feeds",
                   feeds_json(status), "mongodb", store_json(&status->mongodb), "mysql",
                   store_json(&status->mysql));
}

static void print_json(const Status *status) {
  json_t *json = status_json(status);
  command_print_json(json, JSON_INDENT(2));
  json_decref(json);
}

static void print_store(const char *label, const StoreState *state) {
  printf("%-20s", label);
  if (state->reachable)
    print_clean(stdout, state->server);
  if (state->failure.class != FAILURE_NONE) {
    printf("%s", state->reachable ? ", refuses to work: " : "");
    print_clean(stdout, state->failure.message);
    if (state->failure.code)
      printf(" (%d)", state->failure.code);
  }
  putchar('\n');
}

static void print_pause(const PauseState *pause) {
  char time[DATETIME_TEXT_SIZE];
  datetime_format(pause->since_ms * 1000, 0, time);
  printf("%-20sby ", "paused");
  print_clean(stdout, pause->by);
  printf(" since %s UTC; `projector resume` ends it\n", time);
}

static void print_lease(const LeaseView *lease) {
  char left[DURATION_TEXT_SIZE], silent[DURATION_TEXT_SIZE];
  duration_text(lease->expires_in_ms, left);
  printf("%-20sends in %s unless renewed", "lease", left);
  if (lease->prolonged_ms_ago >= 0)
    printf("; last renewed %s ago", duration_text(lease->prolonged_ms_ago, silent));
  putchar('\n');
}

static void print_source(const FeedSource *source) {
  char lag[DURATION_TEXT_SIZE];
  printf("%-20sthe outbox is a feed of ", "source");
  print_clean(stdout, source->name);
  if (!source->works)
    printf(", which is not running: nothing new arrives\n");
  else if (source->lag_ms >= 0)
    printf(", which is running; its lag: %s\n", duration_text(source->lag_ms, lag));
  else
    printf(", which is running\n");
}

static void print_feed(const FeedView *feed) {
  printf("%-20s", "feed");
  print_clean(stdout, feed->name);
  printf(": %lld event%s, ", (long long)feed->events, feed->events == 1 ? "" : "s");
  printf(*feed->reader ? "read by " : "no reader");
  print_clean(stdout, feed->reader);
  printf("%s\n", !*feed->reader       ? ""
                 : feed->reader_works ? ", which is running"
                                      : ", which is not running");
}

static void print_text(const Status *status) {
  const OutboxCounts *counts = &status->counts;
  char text[DATETIME_TEXT_SIZE], lag[DURATION_TEXT_SIZE];
  printf("%-20s%s\n", "projector", status->name);
  printf("%-20s%s%s", "state", status_state(status), status->lease.held ? ", owner " : "");
  print_clean(stdout, status->lease.held ? status->lease.owner : "");
  putchar('\n');
  if (status->lease.held)
    print_lease(&status->lease);
  if (*status->lease.not_served) {
    printf("%-20s", "not as mapped");
    print_clean(stdout, status->lease.not_served);
    puts(" gets no events from the owner: restart every process of this name with this mapping "
         "file");
  }
  if (status->lease.pause.on)
    print_pause(&status->lease.pause);
  if (status->counted) {
    printf("%-20s%lld pending, %lld in progress, %lld failed, %lld dead", "outbox",
           (long long)counts->pending, (long long)counts->in_progress, (long long)counts->failed,
           (long long)counts->dead);
    if (counts->future > 0)
      printf(", %lld held until the time in occurred_at is near", (long long)counts->future);
    putchar('\n');
    printf("%-20s%s\n", "oldest event", counts->oldest_occurred_at ? oldest(status, text) : "none");
    printf("%-20s%s\n", "lag", duration_text(status_lag_ms(status), lag));
    printf("%-20s%lld\n", "blocked aggregates", (long long)status->blocked);
    if (*status->source.name)
      print_source(&status->source);
    for (unsigned i = 0; i < status->feed_count; i++)
      print_feed(&status->feeds[i]);
  }
  print_store("mongodb", &status->mongodb);
  print_store("mysql", &status->mysql);
}

/* As in command_fail: what waiting does not mend. */
static bool is_wrong(const Failure *failure) {
  return failure->class == FAILURE_CONFIG || failure->class == FAILURE_MAPPING;
}

static int exit_status(const Status *status) {
  if (is_wrong(&status->mongodb.failure) || is_wrong(&status->mysql.failure))
    return EXIT_WRONG;
  if (status->mongodb.failure.class != FAILURE_NONE || status->mysql.failure.class != FAILURE_NONE)
    return EXIT_UNREACHABLE;
  bool healthy = status->counts.failed == 0 && status->counts.dead == 0 &&
                 (status->lease.held || waiting(&status->counts) + status->counts.future == 0);
  return healthy ? EXIT_GOOD : EXIT_NO;
}

/* Reading may work while writing does not: a full disk, a lock for a backup, a validator. Missing
 * privileges are reported by `check`. */
static void try_write(StoreState *state, const MongoSettings *settings, const char *name) {
  MongoSettings hasty = *settings;
  Failure failure = {0};
  hasty.timeout_ms = ANSWER_S * 1000;
  g_autoptr(MongoStore) store = mongo_store_open_single(&hasty, &failure);
  if ((!store || !lease_try_write(store, name, &failure)) && failure.class != FAILURE_CONFIG)
    state->failure = failure;
}

int command_status(int argc, char **argv) {
  gboolean as_json = FALSE;
  const GOptionEntry options[] = {{"json", 0, 0, G_OPTION_ARG_NONE, &as_json, "For machines", NULL},
                                  G_OPTION_ENTRY_NULL};
  g_autoptr(Config) config = NULL;
  int status;
  if (!command_begin(&argc, &argv,
                     &(CommandHelp){"- outbox, lag, owner, stores",
                                    "Exit status 1 when events have failed or are dead, or wait "
                                    "while no projector works.",
                                    options},
                     &config, &status))
    return status;
  if (argc != 1)
    return command_misuse("expected no arguments");
  Status view = {.name = config->name, .future_ms = config->settings.future_ms};
  MongoSettings mongodb = config->mongodb;
  MysqlSettings mysql = config->mysql;
  mongodb.connect_ms = ANSWER_S * 1000;
  mysql.answer_s = ANSWER_S;
  mysql.lock_wait_s = 1;
  Failure *failure = &view.mongodb.failure;
  g_autoptr(MongoStore) store = mongo_store_open_single(&mongodb, failure);
  g_autoptr(Outbox) outbox = store ? outbox_new(store, "") : NULL;
  if (store)
    g_strlcpy(view.mongodb.server, mongo_store_server(store), sizeof view.mongodb.server);
  OutboxIdentity identity;
  bool known = store && outbox_identity_look(store, &identity, failure);
  if (known && !identity_check_name(config, &identity, failure))
    return command_fail(failure);
  view.mongodb.reachable = known && status_ask_mongodb(&view, store, outbox, failure);
  if (view.mongodb.reachable)
    try_write(&view.mongodb, &mongodb, config->name);
  g_autoptr(Session) session = NULL;
  status_ask_mysql(&view.mysql, &mysql, config->name, true, &session);
  if (view.lease.held && view.lease.prolonged_ms_ago < TOLD_MS)
    status_take_trouble(&view, &view.lease.trouble, view.lease.trouble_since_ms);
  if (as_json)
    print_json(&view);
  else
    print_text(&view);
  return exit_status(&view);
}
