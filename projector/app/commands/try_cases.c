/* try_cases.c - a team's own tests of its mapping: given rows, events, expected rows. */
#include "projector/app/commands/try.h"

#include "outbox/text/clean.h"
#include "projector/app/shared/command.h"
#include "projector/domain/json.h"
#include "projector/domain/row_compare.h"
#include "projector/domain/value_text.h"

#include <stdio.h>
#include <string.h>

/* One case while it runs. */
typedef struct TryCase {
  const Config *config;
  const json_t *json;
  Rehearsal *rehearsal;
  Arena *arena;
  json_t *outcomes;        /* of the events, in order */
  const char *first_error; /* of a failed event, or NULL */
  GString *wrong;          /* one line for each difference; empty: none */
} TryCase;

typedef struct Result {
  char *name, *wrong; /* wrong "": passed */
} Result;

static void result_free(gpointer data) {
  Result *result = data;
  g_free(result->name);
  g_free(result->wrong);
  g_free(result);
}

static bool refuse(Failure *ret_failure, const char *path, const char *what) {
  return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0, "%s: %s", path, what);
}

/* --- rows from JSON ------------------------------------------------------------------------- */

/* A value as a constant of the mapping file, or in the text form that commands print. */
static bool read_value(const Column *column, const json_t *json, const char *path, Arena *arena,
                       Value *ret_value, Failure *ret_failure) {
  Source source = {.text = "value"};
  Column like = *column;
  like.nullable = true; /* a row may hold what no event could bring */
  if (json_is_string(json) && column->type.kind != TYPE_JSON &&
      value_from_text(json_string_value(json), json_string_length(json), &column->type, arena,
                      ret_value))
    return true;
  return constant_from_json(json, path, arena, &source.constant, &source.constant_length,
                            ret_failure) &&
         (value_for_column(NULL, &source, &like, arena, ret_value, ret_failure) ||
          failure_prefix(ret_failure, "%s", path));
}

typedef struct GivenRow {
  const json_t *json;
  Value *values; /* of all columns */
  bool *known;   /* those that the file gives; the others are NULL */
} GivenRow;

static bool read_row(const Projection *projection, const json_t *json, const char *path,
                     Arena *arena, GivenRow *ret_row, Failure *ret_failure) {
  Value *values = arena_alloc(arena, projection->column_count, sizeof *values);
  bool *known = arena_alloc(arena, projection->column_count, sizeof *known);
  unsigned taken = 0;
  if (!json_is_object(json))
    return json_complain(path, "a row, an object of columns", json, ret_failure);
  for (unsigned i = 0; i < projection->column_count; i++) {
    const Column *column = &projection->columns[i];
    const json_t *value = json_object_get(json, column->name);
    g_autofree char *full = json_path(path, column->name);
    known[i] = value != NULL;
    taken += known[i];
    if (!value && i < projection->key_count)
      return refuse(ret_failure, full, "expected a value, because it is part of the key");
    if (value && !read_value(column, value, full, arena, &values[i], ret_failure))
      return false;
  }
  if (taken < json_object_size(json))
    return refuse(ret_failure, path, "it has a column that the projection does not fill");
  *ret_row = (GivenRow){json, values, known};
  return true;
}

static bool read_rows(const TryCase *of, const Projection *projection, const json_t *json,
                      const char *path, GivenRow *ret_rows, Failure *ret_failure) {
  size_t i;
  const json_t *row;
  json_array_foreach(json, i, row) {
    g_autofree char *full = g_strdup_printf("%s[%zu]", path, i);
    if (!read_row(projection, row, full, of->arena, &ret_rows[i], ret_failure))
      return false;
  }
  return true;
}

typedef void (*RowSink)(TryCase *of, const Projection *projection, const GivenRow *rows,
                        size_t count);

static bool each_table(TryCase *of, const char *key, RowSink sink, Failure *ret_failure) {
  const json_t *tables = json_object_get(of->json, key), *rows;
  const char *table;
  if (tables && !json_is_object(tables))
    return json_complain(key, "an object of table and rows", tables, ret_failure);
  json_object_foreach((json_t *)tables, table, rows) {
    const Projection *projection = mapping_find_table(of->config->mapping, table);
    g_autofree char *path = json_path(key, table);
    if (!projection)
      return refuse(ret_failure, path, "no projection fills this table");
    if (!json_is_array(rows))
      return json_complain(path, "a list of rows", rows, ret_failure);
    size_t count = json_array_size(rows);
    GivenRow *given = arena_alloc(of->arena, count, sizeof *given);
    if (!read_rows(of, projection, rows, path, given, ret_failure))
      return false;
    sink(of, projection, given, count);
  }
  return true;
}

static void put_rows(TryCase *of, const Projection *projection, const GivenRow *rows,
                     size_t count) {
  for (size_t i = 0; i < count; i++)
    rehearsal_put_row(of->rehearsal, projection, rows[i].values);
}

static bool is_read(const Mapping *mapping, const char *collection) {
  bool read = false;
  for (unsigned i = 0; i < mapping_projection_count(mapping); i++)
    read = read || !g_strcmp0(mapping_projection(mapping, i)->entities, collection);
  return read;
}

static bool put_entities(TryCase *of, Failure *ret_failure) {
  const json_t *collections = json_object_get(of->json, "entities"), *documents, *document;
  const char *name;
  size_t i;
  if (collections && !json_is_object(collections))
    return json_complain("entities", "an object of collection and documents", collections,
                         ret_failure);
  json_object_foreach((json_t *)collections, name, documents) {
    g_autofree char *list = json_path("entities", name);
    if (!is_read(of->config->mapping, name))
      return refuse(ret_failure, list, "no projection reads this collection");
    if (!json_is_array(documents))
      return json_complain(list, "a list of documents", documents, ret_failure);
    json_array_foreach(documents, i, document) {
      g_autofree char *path = g_strdup_printf("entities.%s[%zu]", name, i);
      bson_t *bson = try_bson(document, path, ret_failure);
      if (!bson)
        return false;
      rehearsal_put_entity(of->rehearsal, name, bson);
      bson_destroy(bson);
    }
  }
  return true;
}

/* --- events --------------------------------------------------------------------------------- */

/* Gives an event an id and a time if it has none, so that a case can leave out what it is not
 * about. */
static json_t *complete(const Config *config, const json_t *document, size_t index) {
  enum { FIRST_S = 1767225600 /* 2026-01-01 */ };
  json_t *whole = json_copy((json_t *)document);
  if (config->mongodb.fields.foreign)
    return whole; /* the outbox's own layout decides how times are written */
  if (!json_object_get(whole, "_id"))
    json_object_set_new(whole, "_id", json_sprintf("event-%zu", index + 1));
  if (!json_object_get(whole, "occurred_at"))
    json_object_set_new(whole, "occurred_at",
                        json_pack("{s:{s:o}}", "$date", "$numberLong",
                                  json_sprintf("%lld", FIRST_S * 1000LL + (long long)index + 1)));
  return whole;
}

static bool take_event(TryCase *of, const json_t *document, size_t index, Failure *ret_failure) {
  g_autofree char *path = g_strdup_printf("events[%zu]", index);
  if (!json_is_object(document))
    return json_complain(path, "an event document", document, ret_failure);
  json_t *whole = complete(of->config, document, index);
  Event *event = try_event(of->config, whole, path, ret_failure);
  json_decref(whole);
  if (!event)
    return false;
  const Rehearsed done = rehearsal_take(of->rehearsal, event);
  json_array_append_new(of->outcomes, json_string(try_outcome(&done)));
  if (done.failure && !of->first_error)
    of->first_error = done.failure->message;
  if (done.statement)
    g_string_append_printf(of->wrong, "%s has an sql statement, which only a server can run\n",
                           path);
  return true;
}

static bool take_events(TryCase *of, Failure *ret_failure) {
  const json_t *events = json_object_get(of->json, "events"), *document;
  size_t i;
  if (!json_is_array(events))
    return json_complain("events", "a list of event documents", events, ret_failure);
  json_array_foreach(events, i, document) {
    if (!take_event(of, document, i, ret_failure))
      return false;
  }
  return true;
}

/* --- expectations --------------------------------------------------------------------------- */

static void append_row(GString *text, const Projection *projection, const Value *values) {
  json_t *json = try_row_json(projection, values);
  char *dump = json_dumps(json, 0);
  g_string_append(text, dump);
  free(dump);
  json_decref(json);
}

static void compare_row(TryCase *of, const Projection *projection, const Value *expected,
                        const bool *known, const Value *found) {
  for (unsigned i = projection->key_count; i < projection->column_count; i++) {
    const Column *column = &projection->columns[i];
    if (!known[i] || column_equal(column, &expected[i], &found[i], 0))
      continue;
    g_string_append_printf(of->wrong, "%s.%s: expected ", projection->table, column->name);
    value_append_text(of->wrong, &expected[i]);
    g_string_append(of->wrong, ", found ");
    value_append_text(of->wrong, &found[i]);
    g_string_append(of->wrong, " in ");
    append_row(of->wrong, projection, found);
    g_string_append_c(of->wrong, '\n');
  }
}

/* The table holds these rows and no others. */
static void expect_rows(TryCase *of, const Projection *projection, const GivenRow *rows,
                        size_t count) {
  g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
  for (size_t i = 0; i < count; i++) {
    const Value *found = rehearsal_find(of->rehearsal, projection, rows[i].values);
    if (found) {
      g_hash_table_add(seen, (gpointer)found);
      compare_row(of, projection, rows[i].values, rows[i].known, found);
      continue;
    }
    char *text = json_dumps(rows[i].json, 0);
    g_string_append_printf(of->wrong, "%s: expected a row %s, found none\n", projection->table,
                           text);
    free(text);
  }
  for (unsigned k = 0; k < rehearsal_row_count(of->rehearsal); k++) {
    RehearsedRow there = rehearsal_row(of->rehearsal, k);
    if (there.projection != projection || g_hash_table_contains(seen, there.values))
      continue;
    g_string_append_printf(of->wrong, "%s: expected no such row: ", projection->table);
    append_row(of->wrong, projection, there.values);
    g_string_append_c(of->wrong, '\n');
  }
}

/* A case that compares nothing would hold whatever the mapping does. */
static bool check_expects(const json_t *json, Failure *ret_failure) {
  const json_t *expect = json_object_get(json, "expect");
  return json_object_size(expect) > 0 || (expect && !json_is_object(expect)) ||
         json_object_get(json, "outcomes") || json_object_get(json, "error") ||
         json_complain("expect", "at least one table (or outcomes, or an error)", expect,
                       ret_failure);
}

static bool expect_error(TryCase *of, Failure *ret_failure) {
  const char *error = NULL;
  if (!json_take_text(of->json, "", "error", false, &error, ret_failure))
    return false;
  if (error && !(of->first_error && strstr(of->first_error, error)))
    g_string_append_printf(of->wrong, "error: expected %s, found %s\n", error,
                           of->first_error ? of->first_error : "none");
  else if (!error && of->first_error && !json_object_get(of->json, "outcomes"))
    g_string_append_printf(of->wrong, "an event failed: %s\n", of->first_error);
  return true;
}

static bool expect_outcomes(TryCase *of, Failure *ret_failure) {
  const json_t *outcomes = json_object_get(of->json, "outcomes");
  if (!outcomes)
    return true;
  if (!json_is_array(outcomes))
    return json_complain("outcomes", "a list with the outcome of each event", outcomes,
                         ret_failure);
  if (json_equal((json_t *)outcomes, of->outcomes))
    return true;
  char *expected = json_dumps(outcomes, 0), *found = json_dumps(of->outcomes, 0);
  g_string_append_printf(of->wrong, "outcomes: expected %s, found %s\n", expected, found);
  free(expected);
  free(found);
  return true;
}

static bool run_case(const Config *config, const json_t *json, Result *result,
                     Failure *ret_failure) {
  static const char *const keys[] = {"name",   "given",    "entities", "events",
                                     "expect", "outcomes", "error",    NULL};
  g_autoptr(Rehearsal) rehearsal = rehearsal_new(config->mapping);
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(GString) wrong = g_string_new(NULL);
  TryCase of = {config, json, rehearsal, arena, json_array(), NULL, wrong};
  const char *name = NULL;
  bool good = json_check_object(json, "", keys, ret_failure) &&
              json_take_text(json, "", "name", true, &name, ret_failure) &&
              each_table(&of, "given", put_rows, ret_failure) && put_entities(&of, ret_failure) &&
              take_events(&of, ret_failure) && check_expects(json, ret_failure) &&
              each_table(&of, "expect", expect_rows, ret_failure) &&
              expect_error(&of, ret_failure) && expect_outcomes(&of, ret_failure);
  json_decref(of.outcomes);
  if (!good) { /* a value that cannot be read is the file's fault */
    ret_failure->class = FAILURE_CONFIG;
    ret_failure->source = SOURCE_PROJECTOR;
  }
  if (good)
    *result = (Result){g_strdup(name), g_strdup(wrong->str)};
  return good;
}

/* --- results -------------------------------------------------------------------------------- */

/* Behind a bare # a description ends, and a directive may begin: "# SKIP" is a passed test. */
static void print_description(const char *name) {
  g_auto(GStrv) plain = g_strsplit(name, "\\", -1);
  g_autofree char *backslashes = g_strjoinv("\\\\", plain);
  g_auto(GStrv) parts = g_strsplit(backslashes, "#", -1);
  g_autofree char *escaped = g_strjoinv("\\#", parts);
  print_clean(stdout, escaped);
}

static void print_tap(const GPtrArray *results) {
  printf("TAP version 13\n1..%u\n", results->len);
  for (guint i = 0; i < results->len; i++) {
    const Result *result = results->pdata[i];
    g_auto(GStrv) lines = g_strsplit(result->wrong, "\n", -1);
    printf("%s %u - ", *result->wrong ? "not ok" : "ok", i + 1);
    print_description(result->name);
    putchar('\n');
    for (char **line = lines; *line; line++)
      if (**line) {
        fputs("# ", stdout);
        print_clean(stdout, *line);
        putchar('\n');
      }
  }
}

static unsigned count_wrong(const GPtrArray *results) {
  unsigned count = 0;
  for (guint i = 0; i < results->len; i++)
    count += *((const Result *)results->pdata[i])->wrong != '\0';
  return count;
}

/* As references to characters: the same text for a reader of XML, and harmless for a terminal. */
static void print_hidden_escaped(const char *text) {
  for (const char *at = text; *at; at = g_utf8_next_char(at)) {
    gunichar c = g_utf8_get_char(at);
    if (c > 0x7F && is_hidden_character(c))
      printf("&#x%x;", (unsigned)c);
    else
      fwrite(at, 1, (size_t)(g_utf8_next_char(at) - at), stdout);
  }
}

/* GLib escapes what XML requires, except what XML 1.0 does not allow even escaped: control
 * characters, and two that are no characters (U+FFFE, U+FFFF). */
static void print_xml(const char *text) {
  g_autofree char *valid = g_utf8_make_valid(text, -1);
  for (char *at = valid; *at; at++)
    if (g_ascii_iscntrl(*at) && *at != '\n' && *at != '\t')
      *at = '?';
    else if (g_str_has_prefix(at, "\xef\xbf\xbe") || g_str_has_prefix(at, "\xef\xbf\xbf"))
      at[2] = '\xbd'; /* U+FFFD */
  g_autofree char *escaped = g_markup_escape_text(valid, -1);
  print_hidden_escaped(escaped);
}

static void print_junit(const GPtrArray *results, const char *file) {
  printf("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"");
  print_xml(file);
  printf("\" tests=\"%u\" failures=\"%u\">\n", results->len, count_wrong(results));
  for (guint i = 0; i < results->len; i++) {
    const Result *result = results->pdata[i];
    printf("  <testcase classname=\"projector.try\" name=\"");
    print_xml(result->name);
    if (!*result->wrong) {
      puts("\"/>");
      continue;
    }
    printf("\">\n    <failure message=\"the expectation is not met\">");
    print_xml(result->wrong);
    puts("</failure>\n  </testcase>");
  }
  puts("</testsuite>\n</testsuites>");
}

static void print_lines(const GPtrArray *results) {
  for (guint i = 0; i < results->len; i++) {
    const Result *result = results->pdata[i];
    json_t *line = json_pack("{s:s, s:b, s:s?}", "case", result->name, "good", !*result->wrong,
                             "reason", *result->wrong ? result->wrong : NULL);
    command_print_json(line, JSON_COMPACT);
    json_decref(line);
  }
}

/* --- the file ------------------------------------------------------------------------------- */

static bool check_list(const json_t *cases, Failure *ret_failure) {
  if (!json_is_array(cases))
    return json_complain("cases", "a list of cases", cases, ret_failure);
  return json_array_size(cases) > 0 ||
         refuse(ret_failure, "cases", "expected at least one case, found an empty list");
}

static json_t *read_cases(const char *file, Failure *ret_failure) {
  json_error_t error;
  json_t *root = json_load_file(file, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
  static const char *const keys[] = {"$schema", "cases", NULL};
  if (!root) {
    failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0, "%s:%d:%d: %s", file, error.line,
                error.column, error.text);
    return NULL;
  }
  bool bare = json_is_array(root);
  json_t *cases = json_incref(bare ? root : json_object_get(root, "cases"));
  bool good =
      (bare || json_check_object(root, "", keys, ret_failure)) && check_list(cases, ret_failure);
  json_decref(root);
  if (good)
    return cases;
  json_decref(cases);
  failure_prefix(ret_failure, "%s", file);
  return NULL;
}

bool try_cases(const Config *config, const char *file, CaseFormat format, bool *ret_good,
               Failure *ret_failure) {
  g_autoptr(GPtrArray) results = g_ptr_array_new_with_free_func(result_free);
  json_t *cases = read_cases(file, ret_failure), *one;
  size_t i;
  bool good = cases != NULL;
  json_array_foreach(cases, i, one) {
    Result *result = g_new0(Result, 1);
    g_ptr_array_add(results, result);
    good = good && (run_case(config, one, result, ret_failure) ||
                    failure_prefix(ret_failure, "%s: cases[%zu]", file, i));
  }
  json_decref(cases);
  if (!good)
    return false;
  if (format == FORMAT_TAP)
    print_tap(results);
  else if (format == FORMAT_JUNIT)
    print_junit(results, file);
  else
    print_lines(results);
  *ret_good = count_wrong(results) == 0;
  return true;
}
