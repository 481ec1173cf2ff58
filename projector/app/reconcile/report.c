/* report.c - lines of differences and sums. */
#include "projector/app/reconcile/report.h"

#include "projector/app/shared/command.h"
#include "projector/app/shared/value_json.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
  INDENT = 26,
  SHOWN = 60, /* bytes of a long text shown in the table */
};

/* --- lines ---------------------------------------------------------------------------------- */

static void add_columns(json_t *line, const Difference *difference) {
  const Layout *layout = difference->layout;
  json_t *columns = json_object();
  for (unsigned i = 0; i < layout->count; i++) {
    const Value *expected = &difference->expected->values[i], *found = &difference->row[i];
    if (layout_differs(layout, difference->expected, difference->row, i))
      json_object_set_new(
          columns, layout->columns[i]->name,
          json_pack("{s:o, s:o}", "entity", value_json(expected), "row", value_json(found)));
  }
  json_object_set_new(line, "columns", columns);
}

static void add_row(json_t *line, const Difference *difference) {
  const Layout *layout = difference->layout;
  json_object_set_new(line, "table", json_string(layout->projection->table));
  json_t *key = json_object();
  for (unsigned i = 0; difference->key && i < layout->key_count; i++)
    json_object_set_new(key, layout->columns[i]->name, value_json(&difference->key[i]));
  json_object_set_new(line, "key", key);
  if (difference->kind == DIFFERENCE_COLUMNS)
    add_columns(line, difference);
}

static void add_event(json_t *line, const Event *event) {
  json_object_set_new(line, "event_id", id_json(&event->key.event_id));
  json_object_set_new(line, "event_version", json_integer(event->key.version));
}

json_t *report_difference(const Difference *difference) {
  json_t *line = json_pack("{s:s}", "difference", difference_name(difference->kind));
  if (difference->aggregate) {
    const Aggregate *aggregate = difference->aggregate;
    json_object_set_new(line, "aggregate_type", text_json(aggregate->type, aggregate->type_length));
    json_object_set_new(line, "aggregate_id", id_json(&aggregate->id));
  }
  if (difference->entity_id)
    json_object_set_new(line, "entity_id",
                        text_json(difference->entity_id, strlen(difference->entity_id)));
  if (difference->layout)
    add_row(line, difference);
  if (difference->event)
    add_event(line, difference->event);
  if (difference->version)
    json_object_set_new(line, "entity_version", json_integer(difference->version));
  if (difference->applied)
    json_object_set_new(line, "applied_version", json_integer(difference->applied));
  if (difference->reason)
    json_object_set_new(line, "reason", text_json(difference->reason, strlen(difference->reason)));
  if (difference->outcome) {
    json_object_set_new(line, "outcome",
                        text_json(difference->outcome, strlen(difference->outcome)));
    json_object_set_new(line, "mended", json_boolean(difference->repaired));
  }
  return line;
}

static int64_t sum_of(const ReportSums *sums) {
  int64_t sum = 0;
  for (int kind = 0; kind < DIFFERENCE_KINDS; kind++)
    sum += sums->found[kind];
  return sum;
}

json_t *report_sums(const ReportSums *sums) {
  json_t *kinds = json_object();
  for (int kind = 0; kind < DIFFERENCE_KINDS; kind++)
    if (sums->found[kind])
      json_object_set_new(kinds, difference_name((DifferenceKind)kind),
                          json_integer(sums->found[kind]));
  json_t *line = json_pack("{s:s?, s:I, s:I, s:o, s:I}", "sums", sums->table, "differences",
                           (json_int_t)sum_of(sums), "mended", (json_int_t)sums->repaired, "kinds",
                           kinds, "lagging", (json_int_t)sums->counts.lagging);
  if (sums->repaired)
    json_object_set_new(line, "mending_seconds", json_real(sums->repairing));
  if (sums->table) {
    json_object_set_new(line, "entities", json_integer(sums->counts.entities));
    if (sums->rows_too)
      json_object_set_new(line, "rows", json_integer(sums->counts.rows));
    json_object_set_new(line, "seconds", json_real(sums->seconds));
  }
  return line;
}

/* --- the table ------------------------------------------------------------------------------ */

static void print_value(const json_t *value, size_t from) {
  const char *text = json_string_value(value);
  if (!text) {
    printf("NULL");
    return;
  }
  size_t length = strlen(text);
  from = MIN(from, length);
  g_autofree char *cut = g_strndup(text + from, SHOWN);
  g_autofree char *valid = g_utf8_make_valid(cut, -1);
  printf(from > 0 ? "\"…" : "\"");
  print_clean(stdout, valid);
  printf(length - from > SHOWN ? "…\"" : "\"");
}

/* Where to start showing a long text: shortly before it differs. */
static size_t start_of(const json_t *entity, const json_t *row) {
  const char *a = json_string_value(entity), *b = json_string_value(row);
  size_t same = 0;
  while (a && b && a[same] && a[same] == b[same])
    same++;
  return same > SHOWN / 2 ? same - SHOWN / 3 : 0;
}

static void print_columns(const json_t *columns) {
  const char *name;
  const json_t *both;
  json_object_foreach((json_t *)columns, name, both) {
    const json_t *entity = json_object_get(both, "entity"), *row = json_object_get(both, "row");
    size_t from = start_of(entity, row);
    printf("%*s%s: entity ", INDENT, "", name);
    print_value(entity, from);
    printf(", row ");
    print_value(row, from);
    putchar('\n');
  }
}

static void print_member(const char *label, const json_t *line, const char *member) {
  const json_t *value = json_object_get(line, member);
  if (json_is_integer(value))
    printf("  %s %lld", label, (long long)json_integer_value(value));
  else if (json_is_string(value)) {
    printf("  %s ", label);
    print_clean(stdout, json_string_value(value));
  }
}

static void print_aggregate(const json_t *line) {
  const char *id = json_string_value(json_object_get(line, "aggregate_id"));
  if (json_object_get(line, "entity_id")) {
    print_member("entity", line, "entity_id");
    return;
  }
  print_member("of", line, "aggregate_type");
  putchar(' ');
  print_clean(stdout, id ? id : "?");
}

static void print_detail(const json_t *line, const char *member) {
  const json_t *value = json_object_get(line, member);
  if (!value)
    return;
  printf("%*s", INDENT, "");
  print_clean(stdout, json_string_value(value));
  putchar('\n');
}

static void print_difference(const json_t *line) {
  const json_t *table = json_object_get(line, "table"), *key = json_object_get(line, "key");
  printf("%-*s", INDENT, json_string_value(json_object_get(line, "difference")));
  if (table)
    printf("%s", json_string_value(table));
  const char *name;
  const json_t *value;
  json_object_foreach((json_t *)key, name, value) {
    printf(" %s ", name);
    print_value(value, 0);
  }
  if (!table)
    print_clean(stdout, json_string_value(json_object_get(line, "event_id")));
  if (json_object_size(key) == 0) /* an event, or an entity that has no key */
    print_aggregate(line);
  print_member("entity at version", line, "entity_version");
  print_member("applied up to", line, "applied_version");
  putchar('\n');
  print_columns(json_object_get(line, "columns"));
  print_detail(line, "reason");
  print_detail(line, "outcome");
}

static long long number_of(const json_t *line, const char *member) {
  return json_integer_value(json_object_get(line, member));
}

static void print_sums(const json_t *line) {
  const char *table = json_string_value(json_object_get(line, "sums"));
  long long differences = number_of(line, "differences"), repaired = number_of(line, "mended");
  if (table)
    printf("%s: %lld entities", table, number_of(line, "entities"));
  else
    printf("events of the outbox");
  if (json_object_get(line, "rows"))
    printf(" and %lld rows", number_of(line, "rows"));
  if (table)
    printf(" in %.1f s", json_real_value(json_object_get(line, "seconds")));
  printf(differences ? ": %lld difference%s" : ": no difference", differences,
         differences == 1 ? "" : "s");
  if (number_of(line, "lagging"))
    printf(", %lld lagging", number_of(line, "lagging"));
  if (repaired)
    printf(", %lld repaired in %.1f s", repaired,
           json_real_value(json_object_get(line, "mending_seconds")));
  putchar('\n');
  const char *name;
  const json_t *count;
  /* cppcheck-suppress unknownMacro */
  json_object_foreach(json_object_get(line, "kinds"), name, count)
      printf("  %-23s %lld\n", name, (long long)json_integer_value(count));
}

void report_print(const json_t *line, bool as_json) {
  if (isatty(STDERR_FILENO))
    fprintf(stderr, "\r\033[K");
  if (as_json) {
    command_print_json(line, JSON_COMPACT | JSON_REAL_PRECISION(6));
  } else if (json_object_get(line, "sums")) {
    print_sums(line);
  } else {
    print_difference(line);
  }
}
