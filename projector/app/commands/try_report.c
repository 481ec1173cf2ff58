/* try_report.c - the effect of an event in a rehearsal, as JSON or text. */
#include "projector/app/commands/try.h"

#include "projector/app/shared/command.h"
#include "projector/app/shared/value_json.h"
#include "projector/infra/mysql/apply.h"

#include <stdio.h>
#include <string.h>

const char *try_outcome(const Rehearsed *done) {
  const char *outcome = verdict_outcome(done->verdict);
  if (outcome)
    return outcome;
  switch (done->verdict) {
  case VERDICT_KNOWN: return "known";
  case VERDICT_FAILED: return "failed";
  default: return "waits";
  }
}

/* --- as JSON -------------------------------------------------------------------------------- */

json_t *try_row_json(const Projection *projection, const Value *values) {
  json_t *row = json_object();
  for (unsigned i = 0; i < projection->column_count; i++)
    json_object_set_new(row, projection->columns[i].name,
                        column_json(&projection->columns[i], &values[i]));
  return row;
}

static json_t *key_json(const FoldedRow *row) {
  json_t *key = json_object();
  for (unsigned i = 0; i < row->projection->key_count; i++)
    json_object_set_new(key, row->projection->columns[i].name,
                        column_json(&row->projection->columns[i], &row->key[i]));
  return key;
}

static json_t *columns_json(const FoldedRow *row, bool update) {
  const Projection *projection = row->projection;
  json_t *columns = json_object();
  for (unsigned i = projection->key_count; i < projection->column_count; i++) {
    unsigned at = i - projection->key_count;
    const Column *column = &projection->columns[i];
    if (!update)
      json_object_set_new(columns, column->name, column_json(column, &row->row[at]));
    else if (row->modes[at] == COLUMN_SET)
      json_object_set_new(columns, column->name, column_json(column, &row->updates[at]));
    else if (row->modes[at] == COLUMN_ADD)
      json_object_set_new(columns, column->name,
                          json_pack("{s:o}", "add", column_json(column, &row->updates[at])));
  }
  return columns;
}

static void add_change(json_t *changes, const FoldedRow *row, const char *kind, json_t *columns) {
  json_array_append_new(changes,
                        json_pack("{s:s, s:s, s:o, s:o}", "table", row->projection->table, "change",
                                  kind, "key", key_json(row), "columns", columns));
}

static void add_step(json_t *changes, const Step *step) {
  if (step->statement) {
    json_array_append_new(changes,
                          json_pack("{s:s, s:s}", "table", step->statement->rule->projection->table,
                                    "change", "sql"));
    return;
  }
  for (guint i = 0; i < step->rows->len; i++) {
    const FoldedRow *row = step->rows->pdata[i];
    if (row->update && !row->missed)
      add_change(changes, row, "update", columns_json(row, true));
    if (row->remove && !row->missed)
      add_change(changes, row, "delete", json_object());
    if (row->write)
      add_change(changes, row, "write", columns_json(row, false));
  }
}

static json_t *sql_json(const Fold *fold, bool mariadb) {
  g_autoptr(GPtrArray) statements = g_ptr_array_new_with_free_func(g_free);
  json_t *lines = json_array();
  apply_print(fold, mariadb, statements);
  for (guint i = 0; i < statements->len; i++)
    json_array_append_new(lines, text_json(statements->pdata[i], strlen(statements->pdata[i])));
  return lines;
}

json_t *try_report(const Event *event, const Rehearsed *done, bool mariadb) {
  json_t *changes = json_array();
  bool fold = done->fold && done->verdict != VERDICT_FAILED;
  for (unsigned i = 0; fold && i < fold_step_count(done->fold); i++)
    add_step(changes, fold_step(done->fold, i));
  json_t *report = json_pack(
      "{s:o, s:o, s:o, s:o, s:s, s:b}", "event_id", id_json(&event->key.event_id), "aggregate_type",
      event->aggregate.type ? text_json(event->aggregate.type, event->aggregate.type_length)
                            : json_null(),
      "aggregate_id", id_json(&event->aggregate.id), "event_type",
      event->event_type ? text_json(event->event_type, event->event_type_length) : json_null(),
      "outcome", try_outcome(done), "refreshed", done->refreshed);
  json_object_set_new(report, "error",
                      done->failure
                          ? text_json(done->failure->message, strlen(done->failure->message))
                          : json_null());
  json_object_set_new(report, "changes", changes);
  json_object_set_new(report, "sql", fold ? sql_json(done->fold, mariadb) : json_array());
  return report;
}

/* --- for status, list and explain ----------------------------------------------------------- */

static void print_text(const json_t *value) {
  print_clean(stdout, json_is_string(value) ? json_string_value(value) : "NULL");
}

static void print_member(const json_t *object, const char *key) {
  print_text(json_object_get(object, key));
}

static void print_columns(const json_t *columns, const char *first) {
  const char *name, *before = first;
  const json_t *value;
  json_object_foreach((json_t *)columns, name, value) {
    const json_t *delta = json_object_get(value, "add");
    printf("%s%s %s", before, name, delta ? "+ " : "");
    print_text(delta ? delta : value);
    before = ", ";
  }
}

static void print_change(const json_t *change) {
  printf("  %s: %s", json_string_value(json_object_get(change, "table")),
         json_string_value(json_object_get(change, "change")));
  print_columns(json_object_get(change, "key"), " ");
  print_columns(json_object_get(change, "columns"), ": ");
  putchar('\n');
}

void try_print(const json_t *report) {
  size_t i;
  const json_t *member;
  print_member(report, "event_id");
  putchar(' ');
  print_member(report, "event_type");
  fputs(" of ", stdout);
  print_member(report, "aggregate_type");
  putchar(' ');
  print_member(report, "aggregate_id");
  printf(": %s%s\n", json_string_value(json_object_get(report, "outcome")),
         json_is_true(json_object_get(report, "refreshed")) ? ", after a refresh from the entity"
                                                            : "");
  if (json_is_string(json_object_get(report, "error"))) {
    fputs("  ", stdout);
    print_member(report, "error");
    putchar('\n');
  }
  json_array_foreach(json_object_get(report, "changes"), i, member) {
    print_change(member);
  }
  json_array_foreach(json_object_get(report, "sql"), i, member) {
    fputs("  ", stdout);
    print_text(member);
    putchar('\n');
  }
}
