/* check.c - `projector check`: everything that can be known before the first event, one line
 * each. */
#include "projector/app/commands/check_ids.h"
#include "projector/app/commands/check_readers.h"
#include "projector/app/shared/command.h"
#include "projector/app/shared/identity.h"
#include "projector/infra/mongo/outbox.h"
#include "projector/infra/mongo/outbox_state.h"
#include "projector/infra/mongo/shape.h"
#include "projector/infra/mysql/catalog.h"
#include "projector/infra/mysql/privileges.h"

#include <string.h>

enum {
  CLOCKS_MS = 2000,
  MAJORITY_MS = 10000, /* an idle primary writes every 10 s */
  OPLOG_MS = 3600 * 1000,
  PACKET_BYTES = 16 << 20, /* an event can be that large */
};

/* `weakness` NULL: TLS with a verified certificate, or no network at all. */
static void print_encryption(CheckReport *report, const char *subject, bool tls,
                             const char *details, const char *weakness) {
  if (weakness)
    check_print(report, "warning", subject, weakness);
  else if (tls)
    check_print_format(report, "ok", subject, "TLS in use%s, the server's certificate is verified",
                       details);
  else
    check_good(report, subject, "no TLS: the connection stays on this machine");
}

/* --- MongoDB -------------------------------------------------------------------------------- */

static bool check_actions(CheckReport *report, const Config *config, MongoStore *store,
                          const char *collection, const char *const *actions) {
  Failure failure = {0};
  g_autoptr(GPtrArray) missing = mongo_missing_actions(store, collection, actions, &failure);
  if (!missing) {
    check_failed(report, "mongodb", &failure);
    return false;
  }
  if (missing->len == 0)
    return true;
  g_ptr_array_add(missing, NULL);
  g_autofree char *names = g_strjoinv(", ", (char **)missing->pdata);
  g_autofree char *quoted = g_strjoinv("\", \"", (char **)missing->pdata);
  check_print_format(
      report, "error", "mongodb",
      "the user may not %s on %s.%s; grant its role { resource: { db: \"%s\", collection: "
      "\"%s\" }, actions: [\"%s\"] }",
      names, config->mongodb.database, collection, config->mongodb.database, collection, quoted);
  return false;
}

/* Skipped events are archived in any case, but `run` does not need the privilege. */
static void check_skip(CheckReport *report, MongoStore *store, const char *archive,
                       const char *const *actions) {
  Failure failure = {0};
  g_autoptr(GPtrArray) missing = mongo_missing_actions(store, archive, actions, &failure);
  if (!missing)
    check_failed(report, "mongodb", &failure);
  else if (missing->len > 0)
    check_print_format(
        report, "warning", "mongodb",
        "the user may not write to %s, where a skipped event is kept: `skip` will be "
        "refused; grant find, insert and update",
        archive);
}

static void check_roles(CheckReport *report, const Config *config, MongoStore *store) {
  static const char *const outbox[] = {"find",         "update",      "remove",
                                       "changeStream", "listIndexes", NULL};
  static const char *const entities[] = {"find", NULL};
  static const char *const written[] = {"find", "insert", "update", NULL};
  bool all = check_actions(report, config, store, config->mongodb.outbox, outbox);
  static const char *const claims[] = {"find", "insert", "update", "remove", NULL};
  all &= check_actions(report, config, store, "projector_leases", written);
  all &= check_actions(report, config, store, "projector_claims", claims);
  g_autofree char *archive = mongo_archive_name(config->mongodb.outbox);
  if (config->mongodb.archive) {
    static const char *const put_back[] = {"insert", NULL}; /* needed after a restore of MySQL */
    all &= check_actions(report, config, store, config->mongodb.outbox, put_back);
    all &= check_actions(report, config, store, archive, written);
  } else {
    check_skip(report, store, archive, written);
  }
  static const char *const fed[] = {"find", "insert", "update", "listIndexes", NULL};
  const char *const *feed = config->mongodb.feeds;
  for (; feed && *feed; feed++)
    all &= check_actions(report, config, store, *feed, fed);
  for (unsigned i = 0; i < mapping_projection_count(config->mapping); i++) {
    const Projection *projection = mapping_projection(config->mapping, i);
    if (projection->entities)
      all &= check_actions(report, config, store, projection->entities, entities);
  }
  if (!report->mongodb.has_user)
    check_print(report, report->mongodb.local ? "ok" : "warning", "mongodb",
                "no login: without access control every client may do everything");
  else if (all)
    check_good(report, "mongodb", "the user has the privileges that the mapping needs");
}

static bool is_named_before(const Mapping *mapping, unsigned index) {
  const char *entities = mapping_projection(mapping, index)->entities;
  for (unsigned i = 0; i < index; i++)
    if (!g_strcmp0(mapping_projection(mapping, i)->entities, entities))
      return true;
  return false;
}

static void check_entity_collections(CheckReport *report, const Config *config, MongoStore *store) {
  Failure failure = {0};
  g_autoptr(GPtrArray) findings = findings_new();
  for (unsigned i = 0; i < mapping_projection_count(config->mapping); i++) {
    const Projection *projection = mapping_projection(config->mapping, i);
    if (projection->entities && !is_named_before(config->mapping, i) &&
        !mongo_check_entities(store, projection->entities, findings, &failure)) {
      check_failed(report, "mongodb", &failure);
      return;
    }
  }
  check_print_findings(report, "mongodb", findings, NULL);
}

/* A connection string that leads to one member alone keeps the driver from finding the others. */
static void check_members(CheckReport *report) {
  const MongoFacts *facts = &report->mongodb;
  if (!facts->pinned)
    return;
  check_print_format(
      report, facts->is_primary ? "warning" : "error", "mongodb",
      facts->is_primary
          ? "mongodb.uri leads to %s alone, one of %u members: after a failover `run` cannot work "
            "until that member is the primary again; add replicaSet=%s, and remove "
            "directConnection"
          : "mongodb.uri leads to %s alone, one of %u members, and it is not the primary: `run` "
            "cannot work there; add replicaSet=%s, and remove directConnection",
      facts->member, facts->members, facts->set);
}

static void check_majority(CheckReport *report) {
  int64_t lag_ms = report->mongodb.majority_lag_ms;
  if (lag_ms > MAJORITY_MS)
    check_print_format(
        report, "warning", "mongodb",
        "a majority of the members is %lld s behind the newest write, and events are "
        "projected only once it has them; see rs.status()",
        (long long)lag_ms / 1000);
  else if (lag_ms >= 0)
    check_good(report, "mongodb", "a majority of the members is up to date");
}

static void check_oplog(CheckReport *report) {
  const MongoFacts *facts = &report->mongodb;
  if (facts->oplog_ms < 0)
    check_good(report, "mongodb",
               "the oplog was not checked: this user may not read it, and need not");
  else if (facts->oplog_full && facts->oplog_ms < OPLOG_MS)
    check_print_format(
        report, "warning", "mongodb",
        "the oplog covers only %lld s: after a longer stop the outbox is scanned again, "
        "and no event is lost; replSetResizeOplog enlarges it",
        (long long)facts->oplog_ms / 1000);
  else
    check_print_format(report, "ok", "mongodb", "the oplog covers %lld s%s",
                       (long long)facts->oplog_ms / 1000, facts->oplog_full ? "" : " and has room");
}

static void check_identity(CheckReport *report, const Config *config, MongoStore *store) {
  Failure failure = {0};
  report->has_identity = outbox_identity_look(store, &report->identity, &failure);
  if (!report->has_identity || !identity_check_name(config, &report->identity, &failure))
    check_failed(report, "mongodb", &failure);
  else if (*report->identity.projector)
    check_print_format(report, "ok", "mongodb", "the outbox serves this projector, \"%s\"",
                       config->name);
  else
    check_good(report, "mongodb", "the outbox serves no projector yet");
}

static void check_mongodb(CheckReport *report, const Config *config) {
  Failure failure = {0};
  g_autoptr(MongoStore) store = mongo_store_open_single(&config->mongodb, &failure);
  if (!store) {
    check_failed(report, "mongodb", &failure);
    return;
  }
  check_good(report, "mongodb", mongo_store_server(store));
  report->has_mongodb = mongo_inspect(store, &report->mongodb, &failure);
  if (!report->has_mongodb) {
    check_failed(report, "mongodb", &failure);
    return;
  }
  print_encryption(report, "mongodb", report->mongodb.tls, "", report->mongodb.weakness);
  check_members(report);
  check_roles(report, config, store);
  check_entity_collections(report, config, store);
  check_majority(report);
  check_oplog(report);
  g_autoptr(Outbox) outbox = outbox_new(store, "");
  OutboxCounts counts;
  if (!outbox_count(outbox, config->settings.future_ms, &counts, &failure)) {
    check_failed(report, "mongodb", &failure);
    return;
  }
  g_autofree char *text =
      g_strdup_printf("outbox %s.%s can be read", config->mongodb.database, config->mongodb.outbox);
  check_good(report, "mongodb", text);
  const EventCollection events = {outbox, "outbox", config->mongodb.outbox, ""};
  check_indexes(report, config, &events);
  check_identity(report, config, store);
  check_readers(report, config, store);
  g_autoptr(GPtrArray) findings = findings_new();
  bool seen = true;
  if (mongo_check_outbox(store, findings, &seen, &failure))
    check_print_findings(report, "mongodb", findings, NULL);
  else
    check_failed(report, "mongodb", &failure);
  if (!seen) /* the documented role does not include it */
    check_print_format(
        report, "ok", "mongodb",
        "not checked, because the user may not listCollections: whether %s.%s is capped, or "
        "has a collation or a validator that refuses the projector's fields",
        config->mongodb.database, config->mongodb.outbox);
}

/* --- MySQL ---------------------------------------------------------------------------------- */

static void check_server(CheckReport *report, const Config *config, const Session *session) {
  const MysqlFacts *facts = &report->mysql;
  size_t packet = session_packet_limit(session);
  g_autofree char *details = g_strdup_printf(" (%s)", facts->tls);
  print_encryption(report, "mysql", *facts->tls, details, mysql_weakness(&config->mysql));
  if (facts->strict)
    check_good(report, "mysql", "sql_mode is strict in our sessions");
  else
    check_wrong(report, "mysql",
                "sql_mode is not strict although it was set: does a proxy change it?");
  if (facts->read_only)
    check_print(
        report, "warning", "mysql",
        "the server is read-only: events wait until it accepts writes, or until mysql.host names "
        "the primary");
  if (packet < PACKET_BYTES)
    check_print_format(
        report, "warning", "mysql",
        "max_allowed_packet is %zu bytes: an event that needs a longer statement fails; "
        "64 MiB is a good value",
        packet);
  else
    check_print_format(report, "ok", "mysql", "max_allowed_packet is %zu bytes", packet);
}

static bool has_json(const Mapping *mapping) {
  for (unsigned i = 0; i < mapping_projection_count(mapping); i++) {
    const Projection *projection = mapping_projection(mapping, i);
    for (unsigned k = 0; k < projection->column_count; k++)
      if (projection->columns[k].type.kind == TYPE_JSON)
        return true;
  }
  return false;
}

/* No setting can change this, so it is only reported. */
static void check_json(CheckReport *report, const Config *config, Session *session) {
  Failure failure = {0};
  unsigned slack;
  if (!has_json(config->mapping))
    return;
  if (!mysql_json_slack(session, &slack, &failure))
    check_failed(report, "mysql", &failure);
  else if (slack > 0)
    check_print_format(
        report, "warning", "mysql",
        "this server changes some doubles with 16 or 17 digits in json columns by one unit "
        "in the last place when it reads them (MySQL 8.0 does, 9 does not); reconcile takes "
        "doubles that are up to %u units apart for equal. Where every digit counts, use a "
        "double column, or write the number as a text",
        slack);
}

/* What makes a new primary have everything that the old one had committed. */
static void check_group(CheckReport *report) {
  const MysqlFacts *facts = &report->mysql;
  if (!facts->in_group)
    return;
  if (!facts->group_has_one_primary)
    check_print(
        report, "warning", "mysql",
        "the group has several primaries: conflicting transactions on different members are "
        "rolled back at COMMIT; set group_replication_single_primary_mode = ON");
  if (!strcmp(facts->group_consistency, "EVENTUAL"))
    check_print(
        report, "warning", "mysql",
        "group_replication_consistency is EVENTUAL: a new primary may answer before it has applied "
        "what the old one had committed; set it to BEFORE_ON_PRIMARY_FAILOVER on every member");
  else if (facts->group_has_one_primary)
    check_print_format(report, "ok", "mysql", "Group Replication with one primary, consistency %s",
                       facts->group_consistency);
}

static void check_source(CheckReport *report, const Config *config, Session *session) {
  Failure failure = {0};
  KeptSource kept;
  if (!source_read(session, config->name, &kept, &failure))
    check_failed(report, "mysql", &failure);
  else if (!kept.kept)
    check_print(report, "warning", "mysql", identity_not_kept);
  else if (report->has_identity && !identity_check_source(&report->identity, &kept, &failure))
    check_failed(report, "mysql", &failure);
  else if (*kept.text)
    check_good(report, "mysql", "the rows came from this outbox");
}

static void check_mysql(CheckReport *report, const Config *config) {
  Failure failure = {0};
  g_autoptr(Session) session = session_open(&config->mysql, &failure);
  if (!session) {
    check_failed(report, "mysql", &failure);
    return;
  }
  check_good(report, "mysql", session_server(session));
  report->has_mysql = mysql_inspect(session, &report->mysql, &failure);
  if (report->has_mysql) {
    check_server(report, config, session);
    check_group(report);
  } else {
    check_failed(report, "mysql", &failure);
    failure = (Failure){0};
  }
  check_json(report, config, session);
  check_throttle(report, config, session);
  g_autoptr(GPtrArray) privileges = privileges_check(session, config->mapping, &failure);
  g_autoptr(GPtrArray) tables =
      privileges ? catalog_check(session, config->mapping, &failure) : NULL;
  if (!tables) {
    check_failed(report, "mysql", &failure);
    return;
  }
  bool fit = check_print_findings(report, "tables", tables,
                                  "the projector's tables and the projections' fit the mapping");
  check_source(report, config, session);
  /* The user's privileges on a missing table are unknown. */
  check_print_findings(report, "mysql", privileges,
                       fit ? "the user has the privileges that the mapping needs" : NULL);
}

/* Ids can be compared only when both stores and their tables are there. */
static void check_keys(CheckReport *report, const Config *config) {
  Failure failure = {0};
  if (report->any_error || report->unreachable)
    return;
  g_autoptr(GPtrArray) findings = check_ids(config, &failure);
  if (findings)
    check_print_findings(report, "tables", findings,
                         "the tables' keys distinguish the aggregates' ids");
  else
    check_failed(report, "tables", &failure);
}

/* Both measured against ours. */
static void check_clocks(CheckReport *report) {
  if (!report->has_mongodb || !report->has_mysql)
    return;
  int64_t apart_ms = ABS(report->mysql.clock_ahead_ms - report->mongodb.clock_ahead_ms);
  if (apart_ms > CLOCKS_MS)
    check_print_format(
        report, "warning", "clocks",
        "MySQL's and MongoDB's clocks are %lld ms apart: times in the ledger and in the "
        "outbox cannot be compared; run NTP on both",
        (long long)apart_ms);
  else
    check_print_format(report, "ok", "clocks", "MySQL's and MongoDB's clocks agree within %d ms",
                       CLOCKS_MS);
}

/* What a refresh makes of a column that comes from an event. */
static const char *after_refresh(const Column *column) {
  for (const Source *place = &column->from; place; place = place->otherwise)
    if (place->constant)
      return "the column gets its default";
  return column->nullable ? "the column becomes NULL" : "that fails, because it must not be NULL";
}

static void check_refresh_of(CheckReport *report, const Projection *projection) {
  for (unsigned i = projection->key_count; i < projection->column_count; i++) {
    const Column *column = &projection->columns[i];
    const Source *place = &column->from;
    while (place && !source_is_of_event(place))
      place = place->otherwise;
    if ((int)i == projection->mark || !place)
      continue;
    g_autofree char *source = source_name(place);
    check_print_format(
        report, "warning", "file",
        "%s.%s comes from %s, which only an event has: when a row is taken from an entity that "
        "tells no other value (for a late event, by refresh, rebuild or reconcile --repair), %s; "
        "write the value into the entity too, or into a column that the mapping does not name",
        projection->table, column->name, source, after_refresh(column));
  }
}

static void check_event_columns(CheckReport *report, const Mapping *mapping) {
  for (unsigned i = 0; i < mapping_projection_count(mapping); i++)
    if (mapping_projection(mapping, i)->entities)
      check_refresh_of(report, mapping_projection(mapping, i));
}

/* A position is common to all tables of a type, so one table without entities takes away the
 * refresh of all. */
static void check_entities(CheckReport *report, const Config *config) {
  const Mapping *mapping = config->mapping;
  for (unsigned i = 0; i < mapping_projection_count(mapping); i++) {
    const Projection *without = mapping_projection(mapping, i);
    if (!without->entities && !config->mongodb.archive)
      check_print_format(
          report, "warning", "file",
          "projections[%u]: %s has no \"entities\", and \"retain\" is \"delete\": its rows can "
          "never be filled or repaired again, and it begins with the events that come from "
          "now on; name the entities' collection, or set mongodb.retain to \"archive\"",
          i, without->table);
    for (unsigned k = 0; !without->entities && k < mapping_projection_count(mapping); k++) {
      const Projection *with = mapping_projection(mapping, k);
      if (!with->entities || strcmp(with->aggregate_type, without->aggregate_type) != 0)
        continue;
      check_print_format(
          report, "warning", "file",
          "projections[%u]: %s has no \"entities\": refresh, rebuild and reconcile --repair "
          "are refused for all tables of %s, %s too, and a new table cannot be filled from "
          "the entities",
          i, without->table, without->aggregate_type, with->table);
      break;
    }
  }
}

int command_check(int argc, char **argv) {
  CheckReport report = {0};
  gboolean as_json = FALSE;
  const GOptionEntry options[] = {
      {"json", 0, 0, G_OPTION_ARG_NONE, &as_json, "One JSON object per line", NULL},
      G_OPTION_ENTRY_NULL};
  g_autoptr(Config) config = NULL;
  int status;
  if (!command_begin(
          &argc, &argv,
          &(CommandHelp){
              "- preflight",
              "Checks the file, the stores, privileges and tables without changing anything.",
              options},
          &config, &status))
    return status;
  if (argc != 1)
    return command_misuse("expected no arguments");
  report.as_json = as_json;
  check_good(&report, "file", "the mapping file is valid");
  check_entities(&report, config);
  check_event_columns(&report, config->mapping);
  check_waiting(&report, config);
  check_mongodb(&report, config);
  check_mysql(&report, config);
  check_keys(&report, config);
  check_clocks(&report);
  return report.unreachable ? EXIT_UNREACHABLE : report.any_error ? EXIT_WRONG : EXIT_GOOD;
}
