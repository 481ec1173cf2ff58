/* explain.c - `projector explain`: one aggregate on one screen.
 *
 * Position, events, entity and rows in one look each; `reconcile` looks twice before it is sure.
 * The result is one JSON document, or the same as text. */
#include "projector/app/commands/explain.h"
#include "projector/app/commands/explain_children.h"

#include "projector/app/commands/list.h"
#include "projector/app/shared/command.h"
#include "projector/app/shared/resolve.h"
#include "projector/app/shared/stores.h"
#include "projector/app/shared/value_json.h"
#include "projector/domain/datetime.h"
#include "projector/domain/entity.h"
#include "projector/infra/mongo/archive.h"
#include "projector/infra/mongo/claims.h"
#include "projector/infra/mysql/rows.h"

#include <string.h>

enum { EVENTS_SHOWN = 50, LABEL = 12 };

typedef struct Explain {
  Stores *stores;
  Archive *archive; /* NULL: there is none */
  const Aggregate *aggregate;
  int64_t version; /* only the event with this version; 0: the first events */
  Pool *pool;
  Position position;
  bool pending;         /* the outbox has an event that the ledger does not have */
  const Event *blocker; /* the first failed or dead event; NULL: there is none */
  json_t *document;
} Explain;

static json_t *time_json(int64_t ms) {
  char text[DATETIME_TEXT_SIZE];
  if (!datetime_in_range(ms))
    return json_null();
  datetime_format(ms * 1000, 3, text);
  return json_string(text);
}

static json_t *version_json(int64_t version) {
  return version ? json_integer(version) : json_null();
}

/* --- position ------------------------------------------------------------------------------- */

static bool explain_position(Explain *explain, Failure *ret_failure) {
  g_autoptr(AggregateSet) set = aggregate_set_new(explain->pool->arena);
  const AggregateState *state = aggregate_set_open(set, explain->aggregate);
  if (!ledger_look_at_positions(explain->stores->session, &explain->stores->ledger, set,
                                explain->pool->arena, ret_failure))
    return false;
  const Position *position = &state->position;
  bool applied = order_applied_at(position) != INT64_MIN;
  explain->position = *position;
  json_object_set_new(
      explain->document, "position",
      !position->known
          ? json_null()
          : json_pack("{s:o, s:o, s:o, s:o}", "version", version_json(position->max_version),
                      "event_id", applied ? id_json(&position->last.event_id) : json_null(),
                      "occurred_at", applied ? time_json(position->last.occurred_at) : json_null(),
                      "refreshed_version", version_json(position->refreshed_version)));
  return true;
}

/* --- events --------------------------------------------------------------------------------- */

/* As in `list --json`, with what the ledger says about it. */
static json_t *event_json(const Event *event, bool archived, const LedgerEntry *entry) {
  json_t *json = list_event_json(event);
  json_object_del(json, "aggregate_type");
  json_object_del(json, "aggregate_id");
  /* the archive marks superseded ones, too, that nobody applied: the ledger tells which, until it
   * is pruned */
  bool skipped =
      entry->outcome ? !strcmp(entry->outcome, verdict_outcome(VERDICT_SKIPPED)) : event->skipped;
  if (archived || entry->outcome)
    json_object_set_new(json, "state",
                        json_string(skipped    ? "skipped"
                                    : archived ? "archived"
                                               : "applied"));
  json_object_set_new(json, "ledger",
                      entry->outcome ? json_pack("{s:s, s:s}", "outcome", entry->outcome,
                                                 "applied_at", entry->applied_at)
                                     : json_null());
  return json;
}

/* Whether an event of the aggregate waits, whichever of them are shown. */
static bool find_pending(Explain *explain, Outbox *outbox, Failure *ret_failure) {
  g_autoptr(EventCursor) cursor = outbox_find_keys(outbox, explain->aggregate, 0);
  for (bool more = true; more && !explain->pending;) {
    Item items[EVENTS_SHOWN] = {0};
    LedgerEntry entries[EVENTS_SHOWN] = {0};
    size_t count = 0;
    const bson_t *document;
    while (count < EVENTS_SHOWN && (document = event_cursor_next(cursor, ret_failure)))
      items[count++].event = pool_keep(explain->pool, event_decode(document));
    more = count == EVENTS_SHOWN;
    if (ret_failure->class != FAILURE_NONE ||
        !ledger_find_entries(explain->stores->session, &explain->stores->ledger, items, count,
                             entries, ret_failure))
      return false;
    for (size_t i = 0; i < count; i++)
      explain->pending |= !entries[i].outcome;
  }
  return true;
}

static bool find_blocker(Explain *explain, Outbox *outbox, Failure *ret_failure) {
  const Selection blocking = {
      .aggregate = explain->aggregate, .states = resolve_blocking, .limit = 1};
  g_autoptr(EventCursor) cursor = selection_find(outbox, &blocking);
  const bson_t *document = event_cursor_next(cursor, ret_failure);
  explain->blocker = document ? pool_keep(explain->pool, event_decode(document)) : NULL;
  return ret_failure->class == FAILURE_NONE;
}

static bool is_held(const Explain *explain, const Event *event) {
  return explain->blocker && event->status == STATUS_PENDING &&
         order_key_compare(&event->key, &explain->blocker->key) > 0;
}

/* The first events of the aggregate in the collection behind `outbox`. */
static bool explain_events(Explain *explain, Outbox *outbox, const char *name, bool archived,
                           Failure *ret_failure) {
  Item items[EVENTS_SHOWN] = {0};
  LedgerEntry entries[EVENTS_SHOWN] = {0};
  size_t count = 0;
  g_autoptr(GHashTable) in_hand = claims_in_hand(outbox, ret_failure);
  if (!in_hand)
    return false;
  g_autoptr(EventCursor) cursor =
      explain->version
          ? outbox_find_versions(outbox, explain->aggregate, explain->version, explain->version)
          : outbox_find_aggregate(outbox, explain->aggregate, NULL, EVENTS_SHOWN);
  const bson_t *document;
  while (count < EVENTS_SHOWN && (document = event_cursor_next(cursor, ret_failure)))
    items[count++].event =
        pool_keep(explain->pool, archived ? archive_decode(document) : event_decode(document));
  if (ret_failure->class != FAILURE_NONE ||
      !ledger_find_entries(explain->stores->session, &explain->stores->ledger, items, count,
                           entries, ret_failure))
    return false;
  if (!archived &&
      (!find_pending(explain, outbox, ret_failure) || !find_blocker(explain, outbox, ret_failure)))
    return false;
  json_t *events = json_array();
  for (size_t i = 0; i < count; i++) {
    if (!archived)
      claims_show(in_hand, items[i].event);
    json_t *json = event_json(items[i].event, archived, &entries[i]);
    if (!archived && !entries[i].outcome && is_held(explain, items[i].event))
      json_object_set_new(json, "state", json_string("held"));
    json_array_append_new(events, json);
  }
  json_object_set_new(explain->document, name, events);
  return true;
}

static bool explain_archive(Explain *explain, Failure *ret_failure) {
  if (explain->archive)
    return explain_events(explain, archive_events(explain->archive), "archive", true, ret_failure);
  json_object_set_new(explain->document, "archive", json_null());
  return true;
}

/* --- rows ----------------------------------------------------------------------------------- */

static bool read_entity(Explain *explain, const Projection *projection, Event **ret_entity,
                        Failure *ret_failure) {
  bson_t *document = NULL;
  *ret_entity = NULL;
  if (!outbox_read_entity(explain->stores->outbox, projection->entities, &explain->aggregate->id,
                          &document, ret_failure))
    return false;
  if (document) {
    *ret_entity = pool_keep(explain->pool,
                            entity_as_event(document, explain->aggregate, entity_version(document),
                                            entity_time(document, INT64_MIN)));
    bson_destroy(document);
  }
  return true;
}

/* Each column with the entity's value, the row's, or both. */
static json_t *columns_json(const Layout *layout, const Expected *expected, const Value *row) {
  json_t *columns = json_object();
  for (unsigned i = 0; i < layout->count; i++) {
    json_t *column = json_object();
    bool known = expected && expected->known[i];
    if (known)
      json_object_set_new(column, "entity", column_json(layout->columns[i], &expected->values[i]));
    if (row)
      json_object_set_new(column, "row", column_json(layout->columns[i], &row[i]));
    json_object_set_new(column, "different",
                        json_boolean(known && row && layout_differs(layout, expected, row, i)));
    json_object_set_new(columns, layout->columns[i]->name, column);
  }
  return columns;
}

static const char *conclude(const Sight *sight, bool unmappable) {
  Decision decision = difference_decide(sight);
  if (unmappable)
    decision.row = sight->pending ? DIFFERENCE_NONE : DIFFERENCE_UNMAPPABLE;
  if (decision.row != DIFFERENCE_NONE || decision.position != DIFFERENCE_NONE)
    return difference_name(decision.row != DIFFERENCE_NONE ? decision.row : decision.position);
  return decision.lagging ? "lagging" : sight->row ? "equal" : "none";
}

static void set_finding(json_t *json, const char *finding, const char *reason) {
  json_object_set_new(json, "finding", json_string(finding));
  json_object_set_new(json, "reason", reason ? text_json(reason, strlen(reason)) : json_null());
}

static bool explain_row(Explain *explain, const Projection *projection, const Event *entity,
                        json_t *json, Failure *ret_failure) {
  Layout layout;
  Expected expected;
  Failure unfit = {0};
  Value *key = arena_alloc(explain->pool->arena, projection->key_count, sizeof *key);
  g_autoptr(RowSet) set = row_set_new(explain->pool->arena);
  bson_t nothing = BSON_INITIALIZER;
  if (!entity)
    entity = pool_keep(explain->pool, entity_as_event(&nothing, explain->aggregate, 0, INT64_MIN));
  bson_t view;
  const bson_t *fields = event_payload(entity, &view);
  bool gone = bson_empty(fields);
  json_object_set_new(json, "marked", json_false());
  if (!layout_init(projection, explain->pool->arena, &layout, &unfit) ||
      !layout_map_key(&layout, entity, explain->pool->arena, key, &unfit)) {
    set_finding(json, "unknown", unfit.message);
    return true;
  }
  layout.json_slack = explain->stores->json_slack;
  bool mapped = !gone && layout_map(&layout, entity, explain->pool->arena, &expected, &unfit);
  bool absent = mapped && expected.absent;
  if (!rows_find(explain->stores->session, &layout, (const Value *const *)&key, 1, set,
                 ret_failure))
    return false;
  const Value *row = row_set_find(set, key);
  const char *refusal = row_set_refusal(set, key);
  bool says_gone = gone && row && layout_is_marked(&layout, row);
  Sight sight = {.entity = !gone,
                 .absent = absent,
                 .row = row && !says_gone,
                 .equal = mapped && row && layout_equal(&layout, &expected, row),
                 .version = gone ? 0 : entity_version(fields),
                 .position = explain->position,
                 .pending = explain->pending};
  ExplainedChildren children = {.key = key, .expected = mapped ? &expected : NULL, .equal = true};
  if (projection->child_count > 0 && !refusal &&
      !explain_children(explain->stores, &layout, &children, explain->pool->arena, json,
                        ret_failure))
    return false;
  sight.equal = sight.equal && children.equal;
  sight.strays = children.any && !row;
  const char *why = gone ? NULL : mapped ? refusal : unfit.message;
  json_object_set_new(json, "marked", json_boolean(row && layout_is_marked(&layout, row)));
  set_finding(json, conclude(&sight, why != NULL),
              absent && !why ? "the entity does not match \"when\", so it has no row" : why);
  if ((mapped && !absent) || row)
    json_object_set_new(json, "columns",
                        columns_json(&layout, mapped && !absent ? &expected : NULL, row));
  return true;
}

/* Takes `json` over. */
static bool explain_projection(Explain *explain, const Projection *projection, json_t *json,
                               Failure *ret_failure) {
  Event *entity = NULL;
  json_array_append_new(json_object_get(explain->document, "projections"), json);
  if (!projection->entities) {
    set_finding(json, "unknown", "the projection has no \"entities\" to compare with");
    return true;
  }
  if (!read_entity(explain, projection, &entity, ret_failure))
    return false;
  bson_t view;
  const bson_t *fields = entity ? event_payload(entity, &view) : NULL;
  if (entity)
    json_object_set_new(json, "entity",
                        json_pack("{s:o, s:o}", "version", version_json(entity_version(fields)),
                                  "last_event_at", time_json(entity_time(fields, INT64_MIN))));
  return explain_row(explain, projection, entity, json, ret_failure);
}

static bool explain_rows(Explain *explain, Failure *ret_failure) {
  const Mapping *mapping = explain->stores->config->mapping;
  json_object_set_new(explain->document, "projections", json_array());
  for (unsigned i = 0; i < mapping_projection_count(mapping); i++) {
    const Projection *projection = mapping_projection(mapping, i);
    if (projection_is_of(projection, explain->aggregate->type, explain->aggregate->type_length) &&
        !explain_projection(explain, projection,
                            json_pack("{s:s, s:s?, s:n, s:n, s:n, s:n}", "table", projection->table,
                                      "entities", projection->entities, "entity", "finding",
                                      "reason", "columns"),
                            ret_failure))
      return false;
  }
  return true;
}

static bool explain_all(Explain *explain, Failure *ret_failure) {
  return explain_position(explain, ret_failure) &&
         explain_events(explain, explain->stores->outbox, "outbox", false, ret_failure) &&
         explain_archive(explain, ret_failure) && explain_rows(explain, ret_failure);
}

/* --- the screen ----------------------------------------------------------------------------- */

static const char *text_of(const json_t *json, const char *name) {
  return json_string_value(json_object_get(json, name));
}

static long long number_of(const json_t *json, const char *name) {
  return json_integer_value(json_object_get(json, name));
}

static const char *time_of(const json_t *json, const char *name) {
  const char *text = text_of(json, name);
  return text && *text ? text : "(no time)";
}

/* Nothing for 0, which means that there is none. */
static void print_version(const json_t *of, const char *after) {
  long long version = number_of(of, "version");
  if (version > 0)
    printf("version %lld%s", version, after);
}

static void print_position(const json_t *position) {
  printf("%-*s", LABEL, "position");
  if (json_is_null(position)) {
    puts("none: nothing was applied yet");
    return;
  }
  bool applied = text_of(position, "event_id") != NULL;
  if (number_of(position, "version") > 0)
    printf("%s up to version %lld\n%-*s", applied ? "applied" : "accounted for",
           number_of(position, "version"), LABEL, "");
  if (applied) {
    printf("last event ");
    print_clean(stdout, text_of(position, "event_id"));
    printf(" of %s\n", time_of(position, "occurred_at"));
  } else {
    puts("no event was applied");
  }
  if (number_of(position, "refreshed_version"))
    printf("%-*srow taken from the entity at version %lld\n", LABEL, "",
           number_of(position, "refreshed_version"));
}

static void print_event(const json_t *event) {
  const char *message = text_of(json_object_get(event, "reason"), "message");
  long long attempts = number_of(event, "attempts");
  printf("  %-*s", LABEL, text_of(event, "state"));
  print_clean(stdout, text_of(event, "event_id"));
  printf("  ");
  print_clean(stdout, text_of(event, "event_type"));
  printf("\n  %*s", LABEL, "");
  print_version(event, "  ");
  fputs(time_of(event, "occurred_at"), stdout);
  if (attempts > 0)
    printf("  %lld attempt%s", attempts, attempts == 1 ? "" : "s");
  putchar('\n');
  if (message && *message) {
    bool old = json_is_true(json_object_get(json_object_get(event, "reason"), "old"));
    printf("  %*s%s", LABEL, "", old ? "before it was tried again: " : "");
    print_clean(stdout, message);
    putchar('\n');
  }
}

static void print_events(const char *label, const json_t *events) {
  size_t count = json_array_size(events);
  if (json_is_null(events))
    return;
  printf("%-*s%s%zu event%s\n", LABEL, label, count == EVENTS_SHOWN ? "the first " : "", count,
         count == 1 ? "" : "s");
  for (size_t i = 0; i < count; i++)
    print_event(json_array_get(events, i));
}

static void print_value(const json_t *value) {
  print_clean(stdout, json_is_null(value) ? "NULL" : json_string_value(value));
}

static void print_columns(json_t *columns) {
  const char *name;
  json_t *column;
  json_object_foreach(columns, name, column) {
    const json_t *entity = json_object_get(column, "entity"), *row = json_object_get(column, "row");
    bool differs = json_is_true(json_object_get(column, "different"));
    printf("  %-*s%s: ", LABEL, differs ? "different" : "", name);
    if (entity && (differs || !row)) {
      printf("entity ");
      print_value(entity);
    }
    if (row) {
      printf(differs ? ", row " : "");
      print_value(row);
    }
    putchar('\n');
  }
}

static void print_finding(const json_t *projection) {
  static const struct {
    const char *finding, *text;
  } longer[] = {{"lagging", "lagging, events wait in the outbox"},
                {"equal", "equal to the entity"},
                {"none", "none, and no entity"},
                {"unknown", "cannot be determined"}};
  const char *text = text_of(projection, "finding"), *reason = text_of(projection, "reason");
  if (!strcmp(text, "none") && json_is_true(json_object_get(projection, "marked")))
    text = "marked as deleted, and no entity";
  for (size_t i = 0; i < G_N_ELEMENTS(longer); i++)
    if (!strcmp(text, longer[i].finding))
      text = longer[i].text;
  printf("%-*s%s: %s", LABEL, "row", text_of(projection, "table"), text);
  if (reason) {
    printf(": ");
    print_clean(stdout, reason);
  }
  putchar('\n');
}

static void print_projection(const json_t *projection) {
  const json_t *entity = json_object_get(projection, "entity");
  const char *entities = text_of(projection, "entities");
  if (entities && json_is_null(entity))
    printf("%-*s%s: none\n", LABEL, "entity", entities);
  else if (entities) {
    printf("%-*s%s: ", LABEL, "entity", entities);
    print_version(entity, ", ");
    printf("last event %s\n", time_of(entity, "last_event_at"));
  }
  print_finding(projection);
  print_columns(json_object_get(projection, "columns"));
  explain_print_children(projection);
}

static void print_screen(const json_t *document) {
  const json_t *projections = json_object_get(document, "projections");
  if (!json_is_true(json_object_get(document, "found"))) {
    printf("no entity and no event of ");
    print_clean(stdout, text_of(document, "aggregate_type"));
    putchar(' ');
    print_clean(stdout, text_of(document, "aggregate_id"));
    putchar('\n');
    return;
  }
  if (text_of(document, "another_id_kind"))
    printf("%-*sits id is of the kind %s; one of the kind %s has the same text: --id-kind\n", LABEL,
           "another", text_of(document, "aggregate_id_kind"), text_of(document, "another_id_kind"));
  print_position(json_object_get(document, "position"));
  print_events("outbox", json_object_get(document, "outbox"));
  print_events("archive", json_object_get(document, "archive"));
  for (size_t i = 0; i < json_array_size(projections); i++)
    print_projection(json_array_get(projections, i));
}

/* --- the command ---------------------------------------------------------------------------- */

/* If the entity is gone, the aggregate may exist only in the archive. */
static bool find_anywhere(const Stores *stores, Archive *archive, Sought *sought,
                          Failure *ret_failure) {
  return find_aggregate(stores->config, stores->outbox, sought, ret_failure) &&
         (sought->found || !archive ||
          find_aggregate(stores->config, archive_events(archive), sought, ret_failure));
}

bool explain_aggregate(Stores *stores, const Explained *what, json_t *document, bool *ret_found,
                       Failure *ret_failure) {
  const MongoSettings *settings = &stores->config->mongodb;
  Sought sought = {.type = what->type, .text = what->id, .kind = what->kind};
  g_autoptr(Archive) archive = settings->archive ? archive_open(settings, ret_failure) : NULL;
  if ((settings->archive && !archive) || !find_anywhere(stores, archive, &sought, ret_failure))
    return false;
  *ret_found = sought.found;
  json_object_set_new(document, "aggregate_type", text_json(what->type, strlen(what->type)));
  json_object_set_new(document, "aggregate_id",
                      *ret_found ? id_json(&sought.aggregate.id)
                                 : text_json(what->id, strlen(what->id)));
  json_object_set_new(document, "found", json_boolean(*ret_found));
  if (!*ret_found)
    return true;
  json_object_set_new(document, "aggregate_id_kind",
                      json_string(id_kind_name(sought.aggregate.id.kind)));
  json_object_set_new(document, "another_id_kind",
                      sought.another ? json_string(sought.another) : json_null());
  Pool pool = pool_new();
  Explain explain = {.stores = stores,
                     .archive = archive,
                     .aggregate = &sought.aggregate,
                     .version = what->version,
                     .pool = &pool,
                     .document = document};
  bool good = explain_all(&explain, ret_failure);
  pool_free(&pool);
  *ret_found = what->version == 0 || json_array_size(json_object_get(document, "outbox")) > 0 ||
               json_array_size(json_object_get(document, "archive")) > 0;
  return good;
}

int command_explain(int argc, char **argv) {
  g_autoptr(Config) config = NULL;
  Failure failure = {0};
  Stores stores;
  g_autofree char *version = NULL, *kind = NULL;
  gboolean as_json = FALSE;
  Explained what = {0};
  bool found;
  int status;
  const GOptionEntry options[] = {
      {"version", 0, 0, G_OPTION_ARG_STRING, &version, "Only the event with this version", "N"},
      {"id-kind", 0, 0, G_OPTION_ARG_STRING, &kind,
       "The id is of this kind alone: string, int, uuid or objectid", "KIND"},
      {"json", 0, 0, G_OPTION_ARG_NONE, &as_json, "One JSON document", NULL},
      G_OPTION_ENTRY_NULL};
  if (!command_begin(
          &argc, &argv,
          &(CommandHelp){
              "TYPE ID [VERSION] - one aggregate on one screen",
              "Shows the aggregate's position, its events with states and reasons, its entity and "
              "its rows, column by column, as of now. Exit status 1 if there is no such aggregate, "
              "or no event with that version in outbox and archive.",
              options},
          &config, &status))
    return status;
  if (argc < 3 || argc > 4)
    return command_misuse("expected TYPE ID [VERSION]");
  if (!command_version(argc == 4 ? argv[3] : version, &what.version))
    return EXIT_WRONG;
  what.type = argv[1];
  what.id = argv[2];
  what.kind = kind;
  if (!stores_open(config, "explain", &stores, &failure))
    return command_fail(&failure);
  json_t *document = json_object();
  bool good = explain_aggregate(&stores, &what, document, &found, &failure);
  if (good && as_json)
    command_print_json(document, JSON_INDENT(2));
  else if (good)
    print_screen(document);
  json_decref(document);
  stores_close(&stores);
  return !good ? command_fail(&failure) : found ? EXIT_GOOD : EXIT_NO;
}
