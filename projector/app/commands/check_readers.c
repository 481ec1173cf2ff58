/* check_readers.c - receipts, feeds, archive, waiting, pause and replicas. */
#include "projector/app/commands/check_readers.h"

#include "projector/domain/datetime.h"
#include "projector/infra/http/neighbour.h"
#include "projector/infra/mongo/feeds.h"
#include "projector/infra/mongo/lease.h"
#include "projector/infra/mongo/numbering.h"
#include "projector/infra/mongo/outbox_state.h"
#include "projector/infra/mongo/receipts.h"
#include "projector/infra/mongo/shape.h"
#include "projector/infra/mysql/replica.h"

#include <string.h>

enum { UNAUTHORIZED = 13 };

/* --- indexes -------------------------------------------------------------------------------- */

/* How to create the index if it is missing; `option` is that of `outbox init`. */
static char *index_advice(const Config *config, const char *collection, const char *const *keys,
                          const char *option) {
  if (!config->mongodb.fields.foreign)
    return g_strdup_printf("`outbox init%s` creates it", option);
  g_autofree char *all = g_strjoinv("\": 1, \"", (char **)keys);
  return g_strdup_printf("db.getCollection(\"%s\").createIndex({\"%s\": 1}) creates it", collection,
                         all);
}

static void check_index(CheckReport *report, const Config *config, const EventCollection *of,
                        const char *const *keys) {
  Failure failure = {0};
  bool found;
  g_autofree char *list = g_strjoinv(", ", (char **)keys);
  g_autofree char *advice = index_advice(config, of->collection, keys, of->option);
  if (!outbox_has_index(of->events, keys, &found, &failure))
    check_failed(report, "mongodb", &failure);
  else if (found)
    check_print_format(report, "ok", "mongodb", "%s index on (%s)", of->name, list);
  else
    check_print_format(report, "warning", "mongodb",
                       "the %s has no index on (%s), so look-ups scan all of it; %s", of->name,
                       list, advice);
}

void check_indexes(CheckReport *report, const Config *config, const EventCollection *of) {
  const EventFields *fields =
      config->mongodb.fields.foreign ? &config->mongodb.fields : &event_fields_contract;
  const char *const *names = fields->names;
  bool by_id = !strcmp(names[FIELD_OCCURRED_AT], "_id");
  const char *const order[] = {names[FIELD_OCCURRED_AT], by_id ? NULL : names[FIELD_VERSION], "_id",
                               NULL};
  const char *const aggregate[] = {names[FIELD_AGGREGATE_TYPE], names[FIELD_AGGREGATE_ID],
                                   names[FIELD_OCCURRED_AT], NULL};
  check_index(report, config, of, order);
  check_index(report, config, of, aggregate);
}

/* --- commands ------------------------------------------------------------------------------- */

/* The ledger must have forgotten an event by the time at which its command may come again. */
static void check_expiry(CheckReport *report, const Config *config, const Receipts *receipts) {
  int64_t ledger_s = config->settings.ledger_retention_s;
  if (receipts->ttl_s < ledger_s)
    check_print_format(report, "warning", "mongodb",
                       "executed commands are remembered for %lld s, and the ledger knows their "
                       "events for %lld s (ledger_retention): a command that is sent again in "
                       "between changes its entity and not its row; `outbox init --commands-ttl`",
                       (long long)receipts->ttl_s, (long long)ledger_s);
  else
    check_print_format(report, "ok", "mongodb", "executed commands are remembered for %lld s",
                       (long long)receipts->ttl_s);
}

/* A feed's events come from commands that were executed elsewhere. */
static void check_receipts(CheckReport *report, const Config *config, MongoStore *store,
                           const FeedSource *source) {
  const char *outbox = *source->name ? source->outbox : config->mongodb.outbox;
  Failure failure = {0};
  Receipts receipts;
  if (!*outbox)
    return;
  if (!mongo_look_at_receipts(store, outbox, &receipts, &failure)) {
    check_failed(report, "mongodb", &failure);
    return;
  }
  switch (receipts.state) {
  case RECEIPTS_NONE:
    check_good(report, "mongodb",
               "no receipts of executed commands: a command that is sent twice is executed twice; "
               "`outbox init` creates their collection");
    break;
  case RECEIPTS_HIDDEN: break; /* only writers need them */
  case RECEIPTS_EXPIRE: check_expiry(report, config, &receipts); break;
  case RECEIPTS_FOREVER:
    check_good(report, "mongodb", "executed commands are remembered forever");
    break;
  case RECEIPTS_UNBOUND:
    check_print(
        report, "warning", "mongodb",
        "the receipts of executed commands are never removed: they have no index on `at`; `outbox "
        "init` creates it");
    break;
  }
}

/* --- feeds ---------------------------------------------------------------------------------- */

/* Whether the feed's reader takes events out of it. */
static void check_reader(CheckReport *report, const Config *config, const FeedView *feed) {
  long long events = (long long)feed->events;
  char lag[DURATION_TEXT_SIZE];
  if (!*feed->reader)
    check_print_format(
        report, "warning", "mongodb",
        "no projector reads the feed %s (%lld events), and it grows: start one whose "
        "mapping file has \"outbox\": \"%s\", or remove the feed from mongodb.feeds",
        feed->name, events, feed->name);
  else if (!feed->reader_works)
    check_print_format(
        report, "warning", "mongodb",
        "the projector \"%s\", which reads the feed %s (%lld events), is not running, and "
        "the feed grows",
        feed->reader, feed->name, events);
  else if (feed->reader_lag_ms > config->settings.ready_lag_ms)
    check_print_format(
        report, "warning", "mongodb",
        "the projector \"%s\" is %s behind with the feed %s (%lld events): its own status "
        "says why",
        feed->reader, duration_text(feed->reader_lag_ms, lag), feed->name, events);
  else
    check_print_format(report, "ok", "mongodb", "the feed %s (%lld events) is read by \"%s\"",
                       feed->name, events, feed->reader);
}

static bool check_feed(CheckReport *report, MongoStore *store, const char *feed) {
  Failure failure = {0};
  g_autoptr(GPtrArray) findings = findings_new();
  if (mongo_check_feed(store, feed, findings, &failure))
    return check_print_findings(report, "mongodb", findings, NULL);
  check_failed(report, "mongodb", &failure);
  return false;
}

static void check_feeds(CheckReport *report, const Config *config, MongoStore *store) {
  Failure failure = {0};
  FeedView feeds[FEEDS_MAX];
  unsigned count;
  if (!feeds_view(store, feeds, &count, &failure)) {
    check_failed(report, "mongodb", &failure);
    return;
  }
  for (unsigned i = 0; i < count; i++) {
    g_autofree char *name = g_strdup_printf("feed %s", feeds[i].name);
    g_autofree char *option = g_strdup_printf(" --feed %s", feeds[i].name);
    g_autoptr(Outbox) feed = outbox_new_on(store, "", feeds[i].name);
    const EventCollection events = {feed, name, feeds[i].name, option};
    if (check_feed(report, store, feeds[i].name))
      check_indexes(report, config, &events);
    check_reader(report, config, &feeds[i]);
  }
}

static void check_source(CheckReport *report, const Config *config, const FeedSource *source) {
  char lag[DURATION_TEXT_SIZE];
  if (!*source->name)
    return;
  if (!source->works)
    check_print_format(report, "warning", "mongodb",
                       "%s is a feed, and the projector \"%s\", which copies events into it, is "
                       "not running: nothing new arrives here, and no lag shows that",
                       config->mongodb.outbox, source->name);
  else if (source->lag_ms > config->settings.ready_lag_ms)
    check_print_format(report, "warning", "mongodb",
                       "%s is a feed, and the projector \"%s\", which copies events into it, is %s "
                       "behind: its own status says why",
                       config->mongodb.outbox, source->name, duration_text(source->lag_ms, lag));
  else
    check_print_format(report, "ok", "mongodb", "%s is a feed that \"%s\" copies events into",
                       config->mongodb.outbox, source->name);
}

/* After a change of the mapping file a standby may have taken over with what it had read before. */
static void check_copies(CheckReport *report, const Config *config, MongoStore *store) {
  LeaseView lease;
  Failure failure = {0};
  if (lease_look(store, config->name, &lease, &failure) && *lease.not_served)
    check_print_format(
        report, "warning", "mongodb",
        "the working projector (%s) copies no events into %s, as this mapping file says: "
        "restart every process of this name, standbys first",
        lease.owner, lease.not_served);
}

/* --- events on demand ----------------------------------------------------------------------- */

/* Whether the archive's events are numbered. */
static void check_numbers(CheckReport *report, const Config *config, MongoStore *store,
                          Outbox *archive) {
  Failure failure = {0};
  int64_t last;
  bool behind;
  LeaseView lease;
  if (!numbering_last(store, config->mongodb.outbox, &last, NULL, &failure) ||
      !numbering_is_behind(archive, &behind, &failure) ||
      !lease_look(store, config->name, &lease, &failure))
    check_failed(report, "mongodb", &failure);
  else if (behind && !lease.held)
    check_print_format(report, "warning", "mongodb",
                       "archived events wait for a number, so they cannot be fetched on demand yet "
                       "(the last one is %lld): the projector that numbers them is not running",
                       (long long)last);
  else
    check_print_format(report, "ok", "mongodb",
                       "archived events can be fetched on demand, up to number %lld%s",
                       (long long)last, behind ? "; more are being numbered" : "");
}

/* Skipped events are kept there, whatever `retain` says. Returns false when it is no collection for
 * that. */
static bool check_archive_shape(CheckReport *report, MongoStore *store) {
  Failure failure = {0};
  g_autoptr(GPtrArray) findings = findings_new();
  if (mongo_check_archive(store, findings, &failure))
    return check_print_findings(report, "mongodb", findings, NULL);
  check_failed(report, "mongodb", &failure);
  return false;
}

/* The user may lack the privilege to look at indexes. */
static void check_archive(CheckReport *report, const Config *config, MongoStore *store) {
  static const char *const number[] = {"seq", NULL};
  Failure failure = {0};
  bool found;
  if (!check_archive_shape(report, store))
    return;
  if (!config->mongodb.archive) {
    check_good(report, "mongodb",
               "applied events are deleted, so they cannot be fetched on demand; \"retain\": "
               "\"archive\" keeps them from then on");
    return;
  }
  g_autofree char *name = mongo_archive_name(config->mongodb.outbox);
  g_autoptr(Outbox) archive = outbox_new_on(store, "", name);
  if (!outbox_has_index(archive, number, &found, &failure)) {
    if (failure.code != UNAUTHORIZED)
      check_failed(report, "mongodb", &failure);
    return;
  }
  if (found)
    check_good(report, "mongodb", "archive index on (seq)");
  else
    check_print(
        report, "warning", "mongodb",
        "the archive has no index on (seq), so numbering and fetching events scan all of it; "
        "`outbox init --archive` creates it");
  check_numbers(report, config, store, archive);
}

/* --- waiting for a write -------------------------------------------------------------------- */

/* `run` refuses an address that the mapping file names, and does without the default one. */
static void check_lost_address(CheckReport *report, const Config *config, const char *why) {
  check_print_format(report, config->settings.http_asked_for ? "error" : "warning", "http",
                     "GET /wait cannot answer, nor the page: %s", why);
}

void check_waiting(CheckReport *report, const Config *config) {
  const char *address = config->settings.http;
  g_autofree char *name = NULL;
  Failure why = {0};
  if (!*address) {
    check_good(report, "http",
               "no GET /wait, because \"http\" is \"\": whether a write has arrived is told by "
               "`projector wait` and projector_position");
    return;
  }
  switch (http_find_neighbour(address, &name, &why)) {
  case NEIGHBOUR_NONE:
    check_print_format(report, "ok", "http",
                       "GET /wait can answer at %s, where `run` will listen%s", address,
                       g_str_has_suffix(address, ":0") ? "; it logs the port, which is another one "
                                                         "after each start"
                                                       : "");
    break;
  case NEIGHBOUR_PROJECTOR:
    if (!name || !strcmp(name, config->name)) {
      check_print_format(report, "ok", "http", "GET /wait answers at %s", address);
      break;
    }
    failure_prefix(&why, "the projector \"%s\" is there", name);
    check_lost_address(report, config, why.message);
    break;
  case NEIGHBOUR_OTHER: check_lost_address(report, config, why.message); break;
  }
}

/* --- pause and replicas ---------------------------------------------------------------------- */

static void check_pause(CheckReport *report, const Config *config, MongoStore *store) {
  Failure failure = {0};
  LeaseView lease;
  char since[DATETIME_TEXT_SIZE];
  if (!lease_look(store, config->name, &lease, &failure)) {
    check_failed(report, "mongodb", &failure);
  } else if (!lease.pause.on) {
    check_good(report, "mongodb", "not paused");
  } else {
    datetime_format(lease.pause.since_ms * 1000, 0, since);
    check_print_format(report, "warning", "mongodb",
                       "paused by %s since %s UTC: nothing is applied until `projector resume`",
                       lease.pause.by, since);
  }
}

static void check_replica(CheckReport *report, const Config *config, Session *session,
                          const char *address) {
  g_autofree char *host = NULL;
  MysqlSettings settings = replica_settings(&config->mysql, address, &host);
  Failure failure = {0};
  ReplicaFacts facts;
  g_autoptr(Session) replica = session_open(&settings, &failure);
  if (!replica || !replica_inspect(session, replica, config->name, &facts, &failure)) {
    bool ignored = config->settings.ignore_unreachable_replicas;
    check_print_format(report, ignored ? "warning" : "error", "mysql",
                       "the replica %s cannot be asked how far it is, %s: %s", address,
                       ignored ? "and is left out, as replica_unreachable says"
                               : "so nothing is applied",
                       failure.message);
  } else if (facts.is_primary) {
    check_print_format(report, "warning", "mysql",
                       "the replica %s is the server of mysql.host itself, which never lags",
                       address);
  } else if (facts.is_stranger || facts.is_empty) {
    check_print_format(report, "warning", "mysql",
                       "the replica %s %s: does it replicate from mysql.host?", address,
                       facts.is_empty ? "has no entry of this projector's ledger"
                                      : "has entries in its ledger that mysql.host has not");
  } else {
    check_print_format(report, "ok", "mysql", "the replica %s %s", address,
                       facts.is_behind ? "is some entries behind" : "has all that mysql.host has");
  }
}

void check_throttle(CheckReport *report, const Config *config, Session *session) {
  int64_t most_per_s = config->settings.max_events_per_s;
  if (most_per_s > 0)
    check_print_format(report, "ok", "mysql",
                       "at most %lld events a second are applied (max_events_per_s)",
                       (long long)most_per_s);
  int64_t most_s = config->settings.max_replica_lag_s;
  if (most_s == 0 && config->replicas && config->replicas->len > 0)
    check_print(report, "warning", "mysql", "mysql.replicas has no effect: max_replica_lag_s is 0");
  for (guint i = 0; most_s > 0 && i < config->replicas->len; i++)
    check_replica(report, config, session, config->replicas->pdata[i]);
}

/* -------------------------------------------------------------------------------------------- */

void check_readers(CheckReport *report, const Config *config, MongoStore *store) {
  FeedSource source = {0};
  Failure failure = {0};
  check_pause(report, config, store);
  if (feeds_find_source(store, &source, &failure))
    check_source(report, config, &source);
  else
    check_failed(report, "mongodb", &failure);
  check_receipts(report, config, store, &source);
  check_feeds(report, config, store);
  check_copies(report, config, store);
  check_archive(report, config, store);
}
