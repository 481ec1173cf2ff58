/* test_plan.c - verdicts of a batch: late, gap, contained, repeated, failed, and who waits. */
#include "projector/domain/plan.h"
#include "tests/unit/support.h"

#include <string.h>

#define KEY "'k': {'from': '$aggregate_id', 'type': 'varchar(9)'}"
#define COLUMN "'n': {'from': 'n', 'type': 'tinyint'}"
#define KEY_AND_EVENTS                                                                             \
  "'key': {" KEY "}, 'columns': {" COLUMN "}, 'events': {"                                         \
  "'put': {'op': 'upsert'}, 'set': {'op': 'update', 'columns': ['n']},"                            \
  "'add': {'op': 'add', 'columns': {'n': 'n'}}, 'sub': {'op': 'subtract', 'columns': {'n': 'n'}}," \
  "'del': {'op': 'delete'}, 'sql': {'op': 'sql', 'statement': 'UPDATE t SET n = :n'},"             \
  "'ign': {'op': 'ignore'}}"

/* "plain" and "sum" have no entities, "healed" has, "both" only in one of its two projections,
 * "pair" in both. Whatever happens to "whole" writes its whole row; "parts" has a row in each of
 * two tables, each with events of its own; "own" has a statement that touches one row. */
static const char mapping_file[] =
    "{%s 'projections': ["
    "{'aggregate_type': 'plain', 'table': 'plain', " KEY_AND_EVENTS "},"
    "{'aggregate_type': 'healed', 'table': 'healed', 'entities': 'e', " KEY_AND_EVENTS "},"
    "{'aggregate_type': 'both', 'table': 'b1', 'entities': 'e', " KEY_AND_EVENTS "},"
    "{'aggregate_type': 'both', 'table': 'b2', " KEY_AND_EVENTS "},"
    "{'aggregate_type': 'pair', 'table': 'p1', 'entities': 'e', 'key': {" KEY "},"
    " 'columns': {" COLUMN "}, 'events': {'mix': {'op': 'upsert'}, 'mixset': {'op': 'add',"
    " 'columns': {'n': 'n'}}}},"
    "{'aggregate_type': 'pair', 'table': 'p2', 'entities': 'e', 'key': {" KEY "},"
    " 'columns': {" COLUMN "}, 'events': {'mix': {'op': 'add', 'columns': {'n': 'n'}},"
    " 'mixset': {'op': 'update', 'columns': ['n']}}},"
    "{'aggregate_type': 'sum', 'table': 's1', 'key': {" KEY "},"
    " 'columns': {" COLUMN "}, 'events': {'mix': {'op': 'upsert'}}},"
    "{'aggregate_type': 'sum', 'table': 's2', 'key': {" KEY "},"
    " 'columns': {" COLUMN "}, 'events': {'mix': {'op': 'add', 'columns': {'n': 'n'}}}},"
    "{'aggregate_type': 'whole', 'table': 'w1', 'entities': 'e', 'key': {" KEY "},"
    " 'columns': {" COLUMN "}, 'events': {'put': {'op': 'upsert'}, 'del': {'op': 'delete'},"
    " 'ign': {'op': 'ignore'}}},"
    "{'aggregate_type': 'own', 'table': 'o', 'key': {" KEY "}, 'columns': {" COLUMN "},"
    " 'events': {'put': {'op': 'upsert'}, 'own': {'op': 'sql',"
    " 'statement': 'UPDATE o SET n = n + 1 WHERE k = :$aggregate_id'}}},"
    "{'aggregate_type': 'parts', 'table': 'q1', 'entities': 'e', 'key': {" KEY "},"
    " 'columns': {" COLUMN "}, 'events': {'put': {'op': 'upsert'}}},"
    "{'aggregate_type': 'parts', 'table': 'q2', 'entities': 'e', 'key': {" KEY "},"
    " 'columns': {" COLUMN "}, 'events': {'ext': {'op': 'upsert'}}}]}";

static const char *const verdict_names[] = {
    [VERDICT_NONE] = "none",
    [VERDICT_APPLIED] = "applied",
    [VERDICT_SUPERSEDED] = "superseded",
    [VERDICT_IGNORED] = "ignored",
    [VERDICT_SKIPPED] = "skipped",
    [VERDICT_KNOWN] = "known",
    [VERDICT_FAILED] = "failed",
    [VERDICT_REFRESH] = "refresh",
    [VERDICT_GAP] = "gap",
    [VERDICT_WAIT] = "wait",
};

typedef struct PlanCase {
  const char *name;
  const char
      *positions;     /* "plain/a 10 v2", or with a refresh "plain/a 10 v2 r2", separated by ", " */
  const char *events; /* "plain/a 10 v2 add 5": aggregate, time, version (v0: none), type, n */
  const char *verdicts;
  const char *after; /* positions that moved */
} PlanCase;

/* Marks before an event: "=" the ledger has it, "!" it failed in MySQL before, "~" its missing
 * versions were waited for. */
static const PlanCase plan_cases[] = {
    {"in order", "", "plain/a 1 v1 put 1, plain/a 2 v2 add 5, plain/a 3 v3 del",
     "applied applied applied", "plain/a 3 v3"},
    {"ignored", "", "plain/a 1 v1 ign", "ignored", "plain/a -30610224000000 v1"},
    {"two aggregates", "", "plain/a 1 v0 put 1, plain/b 1 v0 put 2, plain/a 2 v0 add 3",
     "applied applied applied", "plain/a 2 v0, plain/b 1 v0"},
    {"same id, other type", "", "plain/a 1 v1 put 1, healed/a 1 v1 put 1", "applied applied",
     "plain/a 1 v1, healed/a 1 v1"},

    {"late add", "plain/a 10 v0", "plain/a 5 v0 add 1", "applied late", "plain/a 10 v0"},
    {"late subtract", "plain/a 10 v0", "plain/a 5 v0 sub 1", "applied late", "plain/a 10 v0"},
    {"late upsert", "plain/a 10 v0", "plain/a 5 v0 put 1", "superseded late", "plain/a 10 v0"},
    {"late delete", "plain/a 10 v0", "plain/a 5 v0 del", "superseded late", "plain/a 10 v0"},
    {"ignored first, older one after it", "", "plain/a 9 v0 ign, plain/a 5 v0 put 1",
     "ignored applied", "plain/a 5 v0"},
    {"late ignored", "plain/a 10 v0", "plain/a 5 v0 ign", "ignored", "plain/a 10 v0"},
    {"late update without entities", "plain/a 10 v0", "plain/a 5 v0 set 1", "failed late", ""},
    {"late update with entities", "healed/a 10 v0", "healed/a 5 v0 set 1", "refresh late", ""},
    {"late sql without entities", "plain/a 10 v0", "plain/a 5 v0 sql 1", "failed late", ""},
    {"late sql with entities", "healed/a 10 v0", "healed/a 5 v0 sql 1", "refresh late", ""},
    {"late update, entities for one of two", "both/a 10 v0", "both/a 5 v0 set 1", "failed late",
     ""},
    {"late upsert, newer events may have written parts only", "healed/a 10 v0",
     "healed/a 5 v0 put 1", "refresh late", ""},
    {"late upsert, newer events have written the whole row", "whole/a 10 v0", "whole/a 5 v0 put 1",
     "superseded late", "whole/a 10 v0"},
    {"late delete, newer events have written the whole row", "whole/a 10 v0", "whole/a 5 v0 del",
     "superseded late", "whole/a 10 v0"},
    {"late upsert, newer events may be of the other table", "parts/a 10 v0", "parts/a 5 v0 put 1",
     "refresh late", ""},
    {"late upsert and add in two projections", "sum/a 10 v0", "sum/a 5 v0 mix 1", "applied late",
     "sum/a 10 v0"},
    {"late add and update in two projections", "pair/a 10 v0", "pair/a 5 v0 mixset 1",
     "refresh late", ""},
    {"late by its id only", "plain/a 10 v0", "plain/a 10 v0 put 1 id=0", "superseded late",
     "plain/a 10 v0"},
    {"later by its id only", "plain/a 10 v0", "plain/a 10 v0 put 1 id=z", "applied",
     "plain/a 10 v0"},
    {"late raises the highest version", "plain/a 10 v3", "plain/a 5 v4 add 1", "applied late",
     "plain/a 10 v4"},
    {"late ones and next ones together", "plain/a 10 v0",
     "plain/a 5 v0 add 1, plain/a 6 v0 put 1, plain/a 11 v0 put 1",
     "applied late superseded late applied", "plain/a 11 v0"},

    {"gap at the start", "", "plain/a 1 v2 put 1", "gap from 1", ""},
    {"gap", "plain/a 1 v1", "plain/a 2 v3 put 1", "gap from 2", ""},
    {"gap waited", "plain/a 1 v1", "~plain/a 2 v3 put 1", "applied", "plain/a 2 v3"},
    {"behind a gap", "", "plain/a 1 v2 put 1, plain/a 2 v3 add 1, plain/b 2 v1 put 1",
     "gap from 1 wait applied", "plain/b 2 v1"},
    {"the gap closes in the batch", "",
     "plain/a 1 v1 put 1, plain/a 2 v2 add 1, plain/a 3 v3 add 1", "applied applied applied",
     "plain/a 3 v3"},
    {"a gap in the middle", "", "plain/a 1 v1 put 1, plain/a 2 v3 add 1, plain/a 3 v4 add 1",
     "applied gap from 2 wait", "plain/a 1 v1"},
    {"waited for one, not for the next", "", "~plain/a 1 v2 put 1, plain/a 2 v4 add 1",
     "applied gap from 3", "plain/a 1 v2"},
    {"an ignored event can show a gap", "plain/a 1 v1", "plain/a 2 v3 ign", "gap from 2", ""},

    {"contained in a refresh", "healed/a 5 v7 r7",
     "healed/a 3 v6 set 1, healed/a 4 v6 add 1, healed/a 6 v7 set 1, healed/a 7 v8 set 1",
     "superseded superseded superseded applied", "healed/a 7 v8"},
    {"late above the refresh", "healed/a 5 v7 r7", "healed/a 4 v8 add 1", "applied late",
     "healed/a 5 v8"},

    {"the last event again", "plain/a 10 v2", "plain/a 10 v2 add 1 id=P", "known", ""},
    {"the last event again, then a next one", "plain/a 10 v2",
     "plain/a 10 v2 add 1 id=P, plain/a 11 v3 add 1", "known applied", "plain/a 11 v3"},
    {"twice in one batch", "", "plain/a 1 v1 put 1 id=e, plain/a 1 v1 put 1 id=e", "applied known",
     "plain/a 1 v1"},
    {"known from the ledger", "plain/a 10 v0", "=plain/a 5 v0 add 1, plain/a 11 v0 add 1",
     "known applied", "plain/a 11 v0"},
    {"known does not move the position", "", "=plain/a 5 v1 add 1", "known", ""},

    {"a value that does not fit", "", "plain/a 1 v1 put x, plain/a 2 v2 add 1, plain/b 2 v1 put 1",
     "failed wait applied", "plain/b 2 v1"},
    {"unknown event", "", "plain/a 1 v1 other 1, plain/a 2 v2 add 1", "failed wait", ""},
    {"unknown aggregate type", "", "none/a 1 v1 put 1, plain/a 1 v1 put 1", "failed applied",
     "plain/a 1 v1"},
    {"failed in MySQL", "", "!plain/a 1 v1 put 1, plain/a 2 v2 add 1, plain/b 3 v1 put 1",
     "failed wait applied", "plain/b 3 v1"},
    {"two that fail", "", "plain/a 1 v1 put x, plain/a 2 v2 put x", "failed wait", ""},
    {"before the failed one", "", "plain/a 1 v1 put 1, plain/a 2 v2 put x, plain/a 3 v3 add 1",
     "applied failed wait", "plain/a 1 v1"},
    {"a failure behind a gap waits", "", "plain/a 1 v2 put 1, plain/a 2 v3 put x",
     "gap from 1 wait", ""},
    {"a known one behind a failed one", "",
     "plain/a 1 v0 put x, =plain/a 2 v0 add 1, plain/a 3 v0 add 1", "failed known wait", ""},

    {"row deleted in the batch", "", "plain/a 1 v1 del, plain/a 2 v2 add 1, plain/a 3 v3 put 1",
     "applied failed wait", "plain/a 1 v1"},
    {"a sum that does not fit", "",
     "plain/a 1 v1 put 100, plain/a 2 v2 add 100, plain/a 3 v3 sub 100, plain/b 4 v1 put 1",
     "applied failed wait applied", "plain/a 1 v1, plain/b 4 v1"},
    {"two culprits", "",
     "plain/a 1 v0 del, plain/b 1 v0 del, plain/a 2 v0 add 1, plain/b 2 v0 add 1, plain/c 3 v0 put "
     "1",
     "applied applied failed failed applied", "plain/a 1 v0, plain/b 1 v0, plain/c 3 v0"},
    {"a culprit and a late failure", "plain/b 9 v0",
     "plain/a 1 v0 del, plain/b 1 v0 set 1, plain/a 2 v0 add 1, plain/b 10 v0 add 1",
     "applied failed late failed wait", "plain/a 1 v0"},
    {"skipped by a person", "", "-plain/a 1 v1 put x, plain/a 2 v2 add 1", "skipped applied",
     "plain/a 2 v2"},
    {"does not fit, but is contained", "healed/a 5 v7 r7",
     "healed/a 6 v6 put x, healed/a 7 v8 put 1", "superseded applied", "healed/a 7 v8"},
    {"does not fit, but was applied", "plain/a 10 v2",
     "plain/a 10 v2 put x id=P, plain/a 11 v3 put 1", "known applied", "plain/a 11 v3"},
    {"does not fit and is late", "plain/a 10 v0", "plain/a 5 v0 put x, plain/a 11 v0 put 1",
     "failed wait", ""},
    {"contained, but behind a failed one", "healed/a 5 v7 r7",
     "healed/a 6 v8 put x, healed/a 7 v6 put x", "failed wait", ""},
    {"a refresh holds the later ones", "healed/a 10 v0",
     "healed/a 5 v0 set 1, healed/a 6 v0 add 1, healed/a 11 v0 put 1, healed/b 11 v0 put 1",
     "refresh late wait wait applied", "healed/b 11 v0"},
};

static Mapping *read_mapping(const char *settings) {
  g_autofree char *file = g_strdup_printf(mapping_file, settings);
  Failure failure = {0};
  Mapping *mapping = mapping_from(file, &failure);
  check_text("mapping", failure.message, "");
  return mapping;
}

/* --- reading a case -------------------------------------------------------------------------- */

typedef struct Spec {
  char type[16], id[16], time[16], operation[16], number[16], event_id[16];
  int64_t version, refreshed;
} Spec;

/* "plain/a 10 v2", then in any order "r2", "id=e", an operation followed by a number. */
static Spec read_spec(const char *text, const char *event_id) {
  Spec spec = {.number = "0"};
  g_auto(GStrv) words = g_strsplit(text, " ", 0);
  g_auto(GStrv) aggregate = g_strsplit(words[0], "/", 2);
  if (g_strv_length(words) < 3 || !aggregate[1] || words[2][0] != 'v')
    fail_msg("the test's own event or position is wrong: %s", text);
  g_strlcpy(spec.type, aggregate[0], sizeof spec.type);
  g_strlcpy(spec.id, aggregate[1], sizeof spec.id);
  g_strlcpy(spec.time, words[1], sizeof spec.time);
  g_strlcpy(spec.event_id, event_id, sizeof spec.event_id);
  spec.version = g_ascii_strtoll(words[2] + 1, NULL, 10);
  for (unsigned i = 3; words[i]; i++)
    if (g_str_has_prefix(words[i], "id="))
      g_strlcpy(spec.event_id, words[i] + 3, sizeof spec.event_id);
    else if (words[i][0] == 'r')
      spec.refreshed = g_ascii_strtoll(words[i] + 1, NULL, 10);
    else
      g_strlcpy(spec.operation[0] ? spec.number : spec.operation, words[i], sizeof spec.number);
  if (!spec.operation[0])
    g_strlcpy(spec.operation, "put", sizeof spec.operation);
  return spec;
}

static Event *event_of_spec(const Spec *spec) {
  g_autofree char *version = spec->version ? g_strdup_printf("'version': {'$numberLong': '%lld'},",
                                                             (long long)spec->version)
                                           : g_strdup("");
  bool is_number = strcmp(spec->number, "x") != 0;
  g_autofree char *json = g_strdup_printf(
      "{'_id': '%s', 'aggregate_type': '%s', 'aggregate_id': '%s', 'event_type': '%s', %s"
      " 'occurred_at': {'$date': {'$numberLong': '%s'}}, 'payload': {'n': %s}}",
      spec->event_id, spec->type, spec->id, spec->operation, version, spec->time,
      is_number ? spec->number : "'x'");
  return event_from(json);
}

static Item item_of(const char *text, unsigned index) {
  Item item = {0};
  char mark = text[0];
  if (strchr("=!~-", mark))
    text++;
  g_autofree char *event_id = g_strdup_printf("e%02u", index);
  Spec spec = read_spec(text, event_id);
  item.event = event_of_spec(&spec);
  item.gap_waited = mark == '~';
  item.verdict = mark == '='   ? VERDICT_KNOWN
                 : mark == '!' ? VERDICT_FAILED
                 : mark == '-' ? VERDICT_SKIPPED
                               : VERDICT_NONE;
  return item;
}

/* The position's last event has the id "P". Its event is kept because the position points to its
 * bytes. */
static Event *open_position(AggregateSet *set, const char *text) {
  Spec spec = read_spec(text, "P");
  Event *event = event_of_spec(&spec);
  Position *position = &aggregate_set_open(set, &event->aggregate)->position;
  order_advance(position, event);
  position->refreshed_version = spec.refreshed;
  return event;
}

/* --- writing the outcome --------------------------------------------------------------------- */

static char *verdict_text(const Item *items, unsigned count) {
  GString *text = g_string_new(NULL);
  for (unsigned i = 0; i < count; i++) {
    g_string_append_printf(text, "%s%s%s", i ? " " : "", verdict_names[items[i].verdict],
                           items[i].late ? " late" : "");
    if (items[i].verdict == VERDICT_GAP)
      g_string_append_printf(text, " from %lld", (long long)items[i].gap_first);
  }
  return g_string_free(text, FALSE);
}

static char *moved_text(const AggregateSet *set) {
  GString *text = g_string_new(NULL);
  for (unsigned i = 0; i < aggregate_set_count(set); i++) {
    const AggregateState *state = aggregate_set_get(set, i);
    if (!state->moved)
      continue;
    g_string_append_printf(
        text, "%s%.*s/%.*s %lld v%lld", text->len ? ", " : "", (int)state->aggregate->type_length,
        state->aggregate->type, (int)state->aggregate->id.length,
        (const char *)state->aggregate->id.bytes, (long long)state->position.last.occurred_at,
        (long long)state->position.max_version);
  }
  return g_string_free(text, FALSE);
}

static void check_failures(const char *name, const Item *items, unsigned count) {
  for (unsigned i = 0; i < count; i++)
    if (items[i].verdict == VERDICT_FAILED && items[i].failure)
      check_that(name, items[i].failure->class == FAILURE_DATA && *items[i].failure->message,
                 "a failed event says why");
}

static bool any_applied(const Item *items, unsigned count) {
  for (unsigned i = 0; i < count; i++)
    if (items[i].verdict == VERDICT_APPLIED)
      return true;
  return false;
}

static void check_plan(const Mapping *mapping, const PlanCase *row) {
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(AggregateSet) set = aggregate_set_new(arena);
  g_autoptr(GPtrArray) kept = g_ptr_array_new_with_free_func((GDestroyNotify)event_free);
  g_auto(GStrv) positions = g_strsplit(row->positions, ", ", 0);
  g_auto(GStrv) events = g_strsplit(row->events, ", ", 0);
  for (unsigned i = 0; positions[i]; i++)
    g_ptr_array_add(kept, open_position(set, positions[i]));
  Item items[8];
  unsigned count = 0;
  for (; events[count]; count++) {
    items[count] = item_of(events[count], count);
    g_ptr_array_add(kept, items[count].event);
  }
  plan_map(mapping, items, count, arena);
  g_autoptr(Fold) fold = plan_decide(mapping, items, count, set, arena);
  g_autofree char *verdicts = verdict_text(items, count);
  g_autofree char *moved = moved_text(set);
  check_text(row->name, verdicts, row->verdicts);
  check_text(row->name, moved, row->after);
  check_number(row->name, fold_step_count(fold) > 0, any_applied(items, count));
  check_failures(row->name, items, count);
}

static void test_plans(void **state) {
  (void)state;
  g_autoptr(Mapping) mapping = read_mapping("");
  for (size_t i = 0; i < COUNT_OF(plan_cases); i++)
    check_plan(mapping, &plan_cases[i]);
}

static void test_unknown_events_ignored(void **state) {
  (void)state;
  static const PlanCase cases[] = {
      {"unknown event", "", "plain/a 1 v1 other 1, plain/a 2 v2 put 1", "ignored applied",
       "plain/a 2 v2"},
      {"unknown aggregate type", "", "none/a 1 v1 put 1", "ignored", "none/a -30610224000000 v1"},
      {"unknown and late", "plain/a 9 v0", "plain/a 1 v0 other 1", "ignored", "plain/a 9 v0"},
  };
  g_autoptr(Mapping) mapping = read_mapping("'unknown_events': 'ignore',");
  for (size_t i = 0; i < COUNT_OF(cases); i++)
    check_plan(mapping, &cases[i]);
}

/* --- what the plan hands on ------------------------------------------------------------------ */

static Item planned(const Mapping *mapping, const char *position, const char *event, Arena *arena,
                    GPtrArray *kept, Fold **ret_fold) {
  g_autoptr(AggregateSet) set = aggregate_set_new(arena);
  if (*position)
    g_ptr_array_add(kept, open_position(set, position));
  Item item = item_of(event, 0);
  g_ptr_array_add(kept, item.event);
  plan_map(mapping, &item, 1, arena);
  *ret_fold = plan_decide(mapping, &item, 1, set, arena);
  return item;
}

/* A newer event removed the rows of a late event's deltas, which was found out after a failure. */
static void test_late_delta_without_its_row(void **state) {
  (void)state;
  static const struct {
    const char *name, *position, *event;
    RowState row;
    bool no_entity, unhealed;
    Verdict verdict;
  } cases[] = {
      {"missing", "plain/a 10 v0", "plain/a 5 v0 add 1", ROW_MISSING, 0, 1, VERDICT_SUPERSEDED},
      {"marked", "plain/a 10 v0", "plain/a 5 v0 add 1", ROW_MARKED, 0, 1, VERDICT_SUPERSEDED},
      {"there", "plain/a 10 v0", "plain/a 5 v0 add 1", ROW_THERE, 0, 0, VERDICT_APPLIED},
      {"not removable", "sum/a 10 v0", "sum/a 5 v0 mix 1", ROW_MISSING, 0, 0, VERDICT_APPLIED},
      {"entities", "healed/a 10 v0", "healed/a 5 v0 add 1", ROW_MISSING, 0, 0, VERDICT_REFRESH},
      {"no entity", "healed/a 10 v0", "healed/a 5 v0 add 1", ROW_MISSING, 1, 0, VERDICT_SUPERSEDED},
      {"in order", "plain/a 3 v0", "plain/a 5 v0 add 1", ROW_MISSING, 0, 0, VERDICT_APPLIED},
  };
  g_autoptr(Mapping) mapping = read_mapping("");
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    g_autoptr(Arena) arena = arena_new();
    g_autoptr(AggregateSet) set = aggregate_set_new(arena);
    Event *last = open_position(set, cases[i].position);
    Item item = item_of(cases[i].event, 0);
    item.no_entity = cases[i].no_entity;
    plan_map(mapping, &item, 1, arena);
    item.changes.changes[0].row = cases[i].row;
    g_autoptr(Fold) fold = plan_decide(mapping, &item, 1, set, arena);
    check_text(cases[i].name, verdict_names[item.verdict], verdict_names[cases[i].verdict]);
    check_number(cases[i].name, fold_step_count(fold), item.verdict == VERDICT_APPLIED);
    check_that(cases[i].name, item.unhealed == cases[i].unhealed, "unhealed");
    event_free(item.event);
    event_free(last);
  }
}

/* Of a late event with an upsert and an add, only the add may reach the table. */
static void test_late_event_keeps_its_deltas_only(void **state) {
  (void)state;
  g_autoptr(Mapping) mapping = read_mapping("");
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(GPtrArray) kept = g_ptr_array_new_with_free_func((GDestroyNotify)event_free);
  g_autoptr(Fold) fold = NULL;
  planned(mapping, "sum/a 10 v0", "sum/a 5 v0 mix 1", arena, kept, &fold);
  check_number("steps", fold_step_count(fold), 1);
  const Step *step = fold_step(fold, 0);
  check_number("rows", step->rows->len, 1);
  const FoldedRow *row = step->rows->pdata[0];
  check_text("table", row->projection->table, "s2");
  check_that("phases", row->update && !row->remove && !row->write, "it is an update");
}

/* One worker keeps the order of all events, several that of each aggregate's alone. */
static void test_the_order_of_all_is_kept_where_it_counts(void **state) {
  (void)state;
  static const char *const events[] = {"own/a 1 v0 own 1", "own/a 2 v0 put 2", "own/b 3 v0 own 3",
                                       "own/b 4 v0 put 4"};
  g_autoptr(Mapping) mapping = read_mapping("");
  for (int ordered = 0; ordered < 2; ordered++) {
    g_autoptr(Arena) arena = arena_new();
    g_autoptr(AggregateSet) set = aggregate_set_new(arena);
    Item items[COUNT_OF(events)];
    if (ordered)
      aggregate_set_keep_order(set);
    for (unsigned i = 0; i < COUNT_OF(events); i++)
      items[i] = item_of(events[i], i);
    plan_map(mapping, items, COUNT_OF(items), arena);
    g_autoptr(Fold) fold = plan_decide(mapping, items, COUNT_OF(items), set, arena);
    check_number("steps", fold_step_count(fold), ordered ? 4 : 3);
    for (unsigned i = 0; i < COUNT_OF(events); i++)
      event_free(items[i].event);
  }
}

static void test_messages(void **state) {
  (void)state;
  static const struct {
    const char *position, *event, *message;
  } cases[] = {
      {"plain/a 9 v0", "plain/a 1 v0 set 1",
       "late update: a newer event was applied, and plain has no \"entities\" to refresh from"},
      {"plain/a 9 v0", "plain/a 1 v0 sql 1",
       "late sql: a newer event was applied, and plain has no \"entities\" to refresh from"},
      {"", "plain/a 1 v0 put x",
       "plain: payload.n: expected tinyint, found string of 1 bytes \"x\""},
      {"", "plain/a 1 v0 other 1",
       "event_type: expected one that a projection of plain names, found other"},
  };
  g_autoptr(Mapping) mapping = read_mapping("");
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(GPtrArray) kept = g_ptr_array_new_with_free_func((GDestroyNotify)event_free);
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    g_autoptr(Fold) fold = NULL;
    Item item = planned(mapping, cases[i].position, cases[i].event, arena, kept, &fold);
    check_text(cases[i].event, item.failure->message, cases[i].message);
    check_number(cases[i].event, fold_step_count(fold), 0);
  }
}

static void test_malformed_events(void **state) {
  (void)state;
  g_autoptr(Mapping) mapping = read_mapping("");
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(AggregateSet) set = aggregate_set_new(arena);
  g_autoptr(Event) nothing = event_from("{'_id': 'n'}");
  g_autoptr(Event) no_payload =
      event_from("{'_id': 'p', 'aggregate_type': 'plain', 'aggregate_id': 'a', 'event_type': 'put',"
                 " 'occurred_at': {'$date': {'$numberLong': '5'}}}");
  Item good = item_of("plain/a 7 v0 put 1", 0), other = item_of("plain/b 7 v0 put 1", 1);
  Item items[] = {{.event = nothing}, {.event = no_payload}, good, other};
  plan_sort(items, COUNT_OF(items));
  plan_map(mapping, items, COUNT_OF(items), arena);
  g_autoptr(Fold) fold = plan_decide(mapping, items, COUNT_OF(items), set, arena);
  g_autofree char *verdicts = verdict_text(items, COUNT_OF(items));
  check_text("malformed", verdicts, "failed failed wait applied");
  check_number("malformed", fold_step_count(fold), 1);
  check_text("reason", items[1].failure->message, "payload: expected a document, found nothing");
  event_free(good.event);
  event_free(other.event);
}

static void test_sort(void **state) {
  (void)state;
  static const char *const events[] = {"plain/b 3 v0 put 1 id=a", "plain/a 2 v2 put 1 id=b",
                                       "plain/a 2 v1 put 1 id=c", "plain/a 2 v0 put 1 id=e",
                                       "plain/a 2 v0 put 1 id=d", "plain/a 1 v9 put 1 id=f"};
  static const char expected[] = "fdecba";
  Item items[COUNT_OF(events)];
  for (unsigned i = 0; i < COUNT_OF(events); i++)
    items[i] = item_of(events[i], i);
  plan_sort(items, COUNT_OF(events));
  for (unsigned i = 0; i < COUNT_OF(events); i++) {
    check_number("place", items[i].event->key.event_id.bytes[0], expected[i]);
    event_free(items[i].event);
  }
}

static void test_no_events(void **state) {
  (void)state;
  g_autoptr(Mapping) mapping = read_mapping("");
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(AggregateSet) set = aggregate_set_new(arena);
  plan_sort(NULL, 0);
  plan_map(mapping, NULL, 0, arena);
  g_autoptr(Fold) fold = plan_decide(mapping, NULL, 0, set, arena);
  check_number("steps", fold_step_count(fold), 0);
}

static void test_outcomes(void **state) {
  (void)state;
  static const char *const outcomes[COUNT_OF(verdict_names)] = {
      [VERDICT_APPLIED] = "applied",
      [VERDICT_SUPERSEDED] = "superseded",
      [VERDICT_IGNORED] = "ignored",
      [VERDICT_SKIPPED] = "skipped",
  };
  for (size_t i = 0; i < COUNT_OF(outcomes); i++)
    check_text(verdict_names[i], verdict_outcome((Verdict)i), outcomes[i]);
}

static void test_aggregate_set(void **state) {
  (void)state;
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(AggregateSet) set = aggregate_set_new(arena);
  Item one = item_of("plain/a 1 v0 put 1", 0), same = item_of("plain/a 2 v0 put 1", 1),
       other = item_of("plain/b 1 v0 put 1", 2);
  check_that("new", !aggregate_set_find(set, &one.event->aggregate), "it is not there");
  AggregateState *made = aggregate_set_open(set, &one.event->aggregate);
  check_that("made", !made->position.known && !made->moved && !made->blocked, "nothing is known");
  check_that("same", aggregate_set_open(set, &same.event->aggregate) == made, "it is found again");
  check_that("same", aggregate_set_find(set, &same.event->aggregate) == made, "it is found again");
  check_that("other", aggregate_set_open(set, &other.event->aggregate) != made, "it is another");
  check_number("count", aggregate_set_count(set), 2);
  check_that("get", aggregate_set_get(set, 0) == made, "in the order of making");
  event_free(one.event);
  event_free(same.event);
  event_free(other.event);
}

/* Two transactions that lock the same positions must not meet head-on. */
static void test_positions_are_locked_in_one_order(void **state) {
  static const char *const arrivals[][3] = {{"a", "b", "c"}, {"c", "a", "b"}, {"b", "c", "a"}};
  (void)state;
  for (size_t i = 0; i < G_N_ELEMENTS(arrivals); i++) {
    g_autoptr(Arena) arena = arena_new();
    g_autoptr(AggregateSet) set = aggregate_set_new(arena);
    Item items[3];
    for (unsigned k = 0; k < 3; k++) {
      g_autofree char *text = g_strdup_printf("plain/%s 1 v0 put 1", arrivals[i][k]);
      items[k] = item_of(text, k);
      aggregate_set_open(set, &items[k].event->aggregate);
    }
    aggregate_set_sort(set);
    for (unsigned k = 0; k < 3; k++) {
      const Id *id = &aggregate_set_get(set, k)->aggregate->id;
      check_that("order", id->length == 1 && id->bytes[0] == (uint8_t) "abc"[k],
                 "by the aggregate alone");
    }
    for (unsigned k = 0; k < 3; k++)
      event_free(items[k].event);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_plans),
      cmocka_unit_test(test_unknown_events_ignored),
      cmocka_unit_test(test_late_event_keeps_its_deltas_only),
      cmocka_unit_test(test_late_delta_without_its_row),
      cmocka_unit_test(test_the_order_of_all_is_kept_where_it_counts),
      cmocka_unit_test(test_messages),
      cmocka_unit_test(test_malformed_events),
      cmocka_unit_test(test_sort),
      cmocka_unit_test(test_no_events),
      cmocka_unit_test(test_outcomes),
      cmocka_unit_test(test_aggregate_set),
      cmocka_unit_test(test_positions_are_locked_in_one_order),
  };
  return RUN_TESTS(tests);
}
