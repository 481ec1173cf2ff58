/* mapping.c - reads and checks the projections of the mapping file. */
#include "projector/domain/mapping_private.h"

#include "projector/domain/event.h"
#include "projector/domain/json.h"
#include "projector/domain/mark.h"
#include "projector/domain/statement.h"
#include "projector/domain/value.h"

#include <string.h>

const char *operation_name(Operation operation) {
  static const char *const names[] = {"upsert", "update", "add",   "subtract",
                                      "delete", "sql",    "ignore"};
  return names[operation];
}

static void projection_free(gpointer data) {
  Projection *projection = data;
  for (unsigned i = 0; i < projection->child_count; i++)
    projection_free(projection->children[i]);
  g_free(projection->children);
  for (unsigned i = 0; i < projection->rule_count; i++) {
    g_free(projection->rules[i].assignments);
    g_free(projection->rules[i].parameters);
  }
  g_free(projection->rules);
  g_free(projection->always);
  g_free(projection->columns);
  g_free(projection);
}

/* Events with a longer type are rejected when they are read. */
static bool is_type(const char *text, size_t most) {
  return *text && strlen(text) <= most;
}

static bool parse_when(Mapping *mapping, const json_t *json, const char *path, ConditionScope scope,
                       const Condition **ret_when, Failure *ret_failure) {
  const json_t *when = json_object_get(json, "when");
  g_autofree char *full = json_path(path, "when");
  if (!when)
    return true;
  *ret_when = condition_parse(when, full, scope, mapping->arena, ret_failure);
  return *ret_when != NULL;
}

/* --- events ------------------------------------------------------------------------------- */

/* A path, a list of paths, or an object like a column's. */
static bool parse_assigned(Mapping *mapping, const json_t *from, const char *path,
                           const Column *column, Source *ret_source, Failure *ret_failure) {
  static const char *const keys[] = {"from", "value", "default", NULL};
  Column like = *column;
  if (!(json_is_object(from)
            ? json_check_object(from, path, keys, ret_failure) &&
                  source_from_members(from, path, mapping->arena, &like.from, ret_failure)
            : source_from_json(from, path, mapping->arena, &like.from, ret_failure)) ||
      !source_check_event(&like.from, path, ret_failure) ||
      !mapping_check_sources(&like, path, ret_failure))
    return false;
  *ret_source = like.from;
  return true;
}

static bool parse_assignment(Mapping *mapping, const char *name, const json_t *from,
                             const char *path, Rule *rule, Failure *ret_failure) {
  const Projection *projection = rule->projection;
  bool is_child;
  if (!mapping_parse_child_update(mapping, name, from, path, rule, &is_child, ret_failure))
    return false;
  if (is_child)
    return true;
  int index = mapping_find_column(projection, name);
  if (index < (int)projection->key_count)
    return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                       "%s: expected one of the projection's columns, found \"%.60s\"%s", path,
                       name, index >= 0 ? ", which is part of the key" : "");
  const Column *column = &projection->columns[index];
  bool delta = operation_is_delta(rule->operation);
  if (delta && !type_is_numeric(column->type.kind))
    return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                       "%s: expected a column with numbers to %s, found %s", path,
                       operation_name(rule->operation), column->type.text);
  Assignment assignment = {.column = (unsigned)index, .from = column->from};
  if (from && !parse_assigned(mapping, from, path, column, &assignment.from, ret_failure))
    return false;
  for (unsigned i = 0; i < rule->assignment_count; i++)
    if (rule->assignments[i].column == assignment.column)
      return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                         "%s: this column is named twice", path);
  rule->assignments[rule->assignment_count++] = assignment;
  return true;
}

/* `columns` is an object of column → payload path, or for `update` a list of columns that take the
 * path of their own definition. */
static bool parse_assignments(Mapping *mapping, const json_t *json, const char *path,
                              const char *member_name, Rule *rule, Failure *ret_failure) {
  g_autofree char *full = json_path(path, member_name);
  json = json_object_get(json, member_name);
  bool list_allowed = rule->operation == OP_UPDATE;
  size_t count = json_is_object(json) ? json_object_size(json) : json_array_size(json);
  if (count == 0 || !(json_is_object(json) || list_allowed))
    return json_complain(full,
                         list_allowed ? "a list of columns, or an object of column and payload path"
                                      : "an object of column and payload path",
                         json, ret_failure);
  rule->assignments = g_new0(Assignment, count);
  const char *name;
  json_t *value;
  json_object_foreach((json_t *)json, name, value) {
    g_autofree char *member = json_path(full, name);
    if (!parse_assignment(mapping, name, value, member, rule, ret_failure))
      return false;
  }
  size_t i;
  json_array_foreach(json, i, value) {
    g_autofree char *member = g_strdup_printf("%s[%zu]", full, i);
    if (!json_is_string(value))
      return json_complain(member, "the name of a column", value, ret_failure);
    if (!parse_assignment(mapping, json_string_value(value), NULL, member, rule, ret_failure))
      return false;
  }
  return true;
}

/* A constant null would mark nothing. */
static bool check_mark(const Rule *rule, const char *path, Failure *ret_failure) {
  int mark = mark_of_rule(rule);
  for (unsigned i = 0; i < rule->assignment_count; i++) {
    const Source *from = &rule->assignments[i].from;
    bson_iter_t iter;
    if ((int)rule->assignments[i].column == mark && from->constant &&
        constant_find(from->constant, from->constant_length, &iter) && BSON_ITER_HOLDS_NULL(&iter))
      return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                         "%s.set.%s: expected a value, which marks a deleted row, found null", path,
                         rule->projection->columns[mark].name);
  }
  return true;
}

/* The mark is the first column of `set` that may be NULL: NULL means that the row is not
 * deleted. */
static bool parse_soft_delete(Mapping *mapping, const json_t *json, const char *path, Rule *rule,
                              Failure *ret_failure) {
  const Projection *projection = rule->projection;
  rule->soft = true;
  return parse_assignments(mapping, json, path, "set", rule, ret_failure) &&
         (mark_of_rule(rule) >= 0 ||
          mapping_wrong(
              ret_failure, path, "set",
              "at least one column with \"null\": true that an upsert takes from its payload; "
              "NULL there means that a row is not deleted",
              json_object_get(json, "set"))) &&
         check_mark(rule, path, ret_failure) &&
         (!projection->soft_rule || mark_of_rule(rule) == projection->mark ||
          failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                      "%s.set: expected %s first, which marks the deleted rows of %s", path,
                      projection->columns[projection->mark].name, projection->table));
}

/* The columns of `always` that the rule does not name itself. */
static bool add_always(Rule *rule) {
  const Projection *projection = rule->projection;
  unsigned own = rule->assignment_count;
  rule->assignments = g_renew(Assignment, rule->assignments, own + projection->always_count);
  for (unsigned i = 0; i < projection->always_count; i++) {
    unsigned column = projection->always[i];
    bool named = false;
    for (unsigned k = 0; k < own; k++)
      named |= rule->assignments[k].column == column;
    if (!named)
      rule->assignments[rule->assignment_count++] =
          (Assignment){.column = column, .set = true, .from = projection->columns[column].from};
  }
  return true;
}

static bool parse_always(Projection *projection, const json_t *json, const char *path,
                         Failure *ret_failure) {
  const json_t *list = json_object_get(json, "always"), *name;
  size_t i;
  g_autofree char *full = json_path(path, "always");
  if (list && !json_is_array(list))
    return json_complain(full, "a list of columns", list, ret_failure);
  projection->always = g_new0(unsigned, json_array_size(list) + 1);
  json_array_foreach(list, i, name) {
    g_autofree char *member = g_strdup_printf("%s[%zu]", full, i);
    int column =
        json_is_string(name) ? mapping_find_column(projection, json_string_value(name)) : -1;
    if (column < (int)projection->key_count)
      return json_complain(member, "one of the projection's columns that is not part of the key",
                           name, ret_failure);
    for (unsigned k = 0; k < projection->always_count; k++)
      if (projection->always[k] == (unsigned)column)
        return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                           "%s: this column is named twice", member);
    projection->always[projection->always_count++] = (unsigned)column;
  }
  return true;
}

static bool parse_rule(Mapping *mapping, const json_t *json, const char *path, Rule *rule,
                       Failure *ret_failure) {
  static const char *const operations[] = {"upsert", "update", "add",    "subtract",
                                           "delete", "sql",    "ignore", NULL};
  static const char *const plain_keys[] = {"op", "when", NULL};
  static const char *const column_keys[] = {"op", "columns", "when", NULL};
  static const char *const sql_keys[] = {"op", "statement", "when", NULL};
  static const char *const delete_keys[] = {"op", "set", "when", NULL};
  int operation = -1;
  if (!json_is_object(json))
    return json_complain(path, "an object with \"op\"", json, ret_failure);
  if (!json_take_choice(json, path, "op", operations, &operation, ret_failure))
    return false;
  if (operation < 0)
    return mapping_wrong(ret_failure, path, "op",
                         "upsert, update, add, subtract, delete, sql or ignore", NULL);
  rule->operation = (Operation)operation;
  switch (rule->operation) {
  case OP_UPDATE:
  case OP_ADD:
  case OP_SUBTRACT:
    return json_check_object(json, path, column_keys, ret_failure) &&
           parse_assignments(mapping, json, path, "columns", rule, ret_failure) && add_always(rule);
  case OP_SQL: {
    const char *statement = NULL, *expected;
    if (!json_check_object(json, path, sql_keys, ret_failure) ||
        !json_take_text(json, path, "statement", true, &statement, ret_failure))
      return false;
    if (statement_parse(statement, mapping->arena, rule, &expected)) {
      if (statement_changes_rows(rule->statement))
        return true;
      expected = "one INSERT, UPDATE, DELETE or REPLACE";
    }
    return mapping_wrong(ret_failure, path, "statement", expected,
                         json_object_get(json, "statement"));
  }
  case OP_DELETE:
    return json_check_object(json, path, delete_keys, ret_failure) &&
           (!json_object_get(json, "set") ||
            (parse_soft_delete(mapping, json, path, rule, ret_failure) && add_always(rule)));
  case OP_UPSERT:
  case OP_IGNORE: break;
  }
  return json_check_object(json, path, plain_keys, ret_failure);
}

static GBytes *rule_key(const char *aggregate_type, size_t aggregate_type_length,
                        const char *event_type, size_t event_type_length) {
  g_autoptr(GByteArray) key = g_byte_array_new();
  g_byte_array_append(key, (const guint8 *)aggregate_type, (guint)aggregate_type_length);
  g_byte_array_append(key, (const guint8 *)"", 1);
  g_byte_array_append(key, (const guint8 *)event_type, (guint)event_type_length);
  return g_byte_array_free_to_bytes(g_steal_pointer(&key));
}

static void index_rule(Mapping *mapping, const Rule *rule) {
  g_autoptr(GBytes) key =
      rule_key(rule->projection->aggregate_type, strlen(rule->projection->aggregate_type),
               rule->event_type, strlen(rule->event_type));
  GPtrArray *rules = g_hash_table_lookup(mapping->rules, key);
  if (!rules) {
    rules = g_ptr_array_new();
    g_hash_table_insert(mapping->rules, g_bytes_ref(key), rules);
  } else {
    g_ptr_array_set_size(rules, (gint)rules->len - 1); /* without the NULL at the end */
  }
  g_ptr_array_add(rules, (gpointer)rule);
  g_ptr_array_add(rules, NULL);
}

static bool parse_rules(Mapping *mapping, Projection *projection, const json_t *json,
                        const char *path, Failure *ret_failure) {
  if (!json_is_object(json) || json_object_size(json) == 0)
    return json_complain(path, "an object with at least one event type", json, ret_failure);
  projection->rules = g_new0(Rule, json_object_size(json));
  const char *name;
  const json_t *value;
  json_object_foreach((json_t *)json, name, value) {
    g_autofree char *full = json_path(path, name);
    Rule *rule = &projection->rules[projection->rule_count++];
    rule->projection = projection;
    rule->event_type = mapping_keep(mapping, name);
    if (!is_type(name, EVENT_TYPE_MAX))
      return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                         "%s: expected the name of an event type, of 1 to 128 bytes", full);
    if (!parse_rule(mapping, value, full, rule, ret_failure) ||
        !parse_when(mapping, value, full, CONDITION_OF_EVENT, &rule->when, ret_failure))
      return false;
    if (rule->soft && !projection->soft_rule) {
      projection->soft_rule = rule;
      projection->mark = mark_of_rule(rule);
    }
    index_rule(mapping, rule);
  }
  return true;
}

/* --- projections -------------------------------------------------------------------------- */

static bool parse_projection(Mapping *mapping, const json_t *json, const char *path,
                             Failure *ret_failure) {
  static const char *const keys[] = {
      "aggregate_type", "table",  "entities",          "when", "key", "columns", "children",
      "always",         "events", "allow_unique_keys", NULL};
  if (!json_check_object(json, path, keys, ret_failure))
    return false;
  Projection *projection = g_new0(Projection, 1);
  projection->index = mapping->projections->len;
  projection->rank = mapping->tables->len;
  projection->path = mapping_keep(mapping, path);
  projection->mark = -1;
  g_ptr_array_add(mapping->projections, projection);
  g_ptr_array_add(mapping->tables, projection);

  const char *type = NULL, *entities = NULL;
  if (!json_take_text(json, path, "aggregate_type", true, &type, ret_failure) ||
      !mapping_take_table(mapping, json, path, projection, ret_failure) ||
      !json_take_collection(json, path, "entities", &entities, ret_failure) ||
      !json_take_bool(json, path, "allow_unique_keys", &projection->allow_unique_keys, ret_failure))
    return false;
  if (!is_type(type, AGGREGATE_TYPE_MAX))
    return mapping_wrong(ret_failure, path, "aggregate_type", "a name of 1 to 128 bytes",
                         json_object_get(json, "aggregate_type"));
  projection->aggregate_type = mapping_keep(mapping, type);
  projection->entities = entities ? mapping_keep(mapping, entities) : NULL;
  projection->removal = (Rule){.projection = projection, .event_type = "", .operation = OP_DELETE};
  if (!parse_when(mapping, json, path, CONDITION_OF_ENTITY, &projection->when, ret_failure))
    return false;

  g_autofree char *key_path = json_path(path, "key");
  g_autofree char *columns_path = json_path(path, "columns");
  g_autofree char *events_path = json_path(path, "events");
  const json_t *columns = json_object_get(json, "columns");
  return mapping_parse_columns(mapping, projection, json_object_get(json, "key"), key_path, true,
                               ret_failure) &&
         (!columns ||
          mapping_parse_columns(mapping, projection, columns, columns_path, false, ret_failure)) &&
         mapping_parse_children(mapping, projection, json, path, ret_failure) &&
         parse_always(projection, json, path, ret_failure) &&
         parse_rules(mapping, projection, json_object_get(json, "events"), events_path,
                     ret_failure);
}

static bool parse_all(Mapping *mapping, const json_t *json, Failure *ret_failure) {
  static const char *const unknown[] = {"fail", "ignore", NULL};
  int choice = 0;
  if (!json_take_choice(json, "", "unknown_events", unknown, &choice, ret_failure))
    return false;
  mapping->ignores_unknown = choice == 1;
  const json_t *projections = json_object_get(json, "projections");
  if (!json_is_array(projections) || json_array_size(projections) == 0)
    return json_complain("projections", "a list of at least one projection", projections,
                         ret_failure);
  size_t i;
  const json_t *value;
  json_array_foreach(projections, i, value) {
    g_autofree char *path = g_strdup_printf("projections[%zu]", i);
    const char *table = json_string_value(json_object_get(value, "table"));
    if (table && mapping_find_table(mapping, table))
      return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                         "%s.table: another projection fills %s already", path, table);
    if (!parse_projection(mapping, value, path, ret_failure))
      return false;
  }
  return true;
}

Mapping *mapping_parse(const json_t *json, Failure *ret_failure) {
  g_autoptr(Mapping) mapping = g_new0(Mapping, 1);
  mapping->arena = arena_new();
  mapping->projections = g_ptr_array_new_with_free_func(projection_free);
  mapping->tables = g_ptr_array_new();
  mapping->rules = g_hash_table_new_full(g_bytes_hash, g_bytes_equal, (GDestroyNotify)g_bytes_unref,
                                         (GDestroyNotify)g_ptr_array_unref);
  if (!parse_all(mapping, json, ret_failure))
    return NULL;
  return g_steal_pointer(&mapping);
}

void mapping_free(Mapping *mapping) {
  if (!mapping)
    return;
  g_hash_table_unref(mapping->rules);
  g_ptr_array_unref(mapping->tables);
  g_ptr_array_unref(mapping->projections);
  arena_free(mapping->arena);
  g_free(mapping);
}

unsigned mapping_projection_count(const Mapping *mapping) {
  return mapping->projections->len;
}

const Projection *mapping_projection(const Mapping *mapping, unsigned index) {
  return mapping->projections->pdata[index];
}

const Projection *mapping_find(const Mapping *mapping, const char *table) {
  return mapping_find_among(mapping->projections, table);
}

const Projection *mapping_find_table(const Mapping *mapping, const char *table) {
  return mapping_find_among(mapping->tables, table);
}

unsigned mapping_table_count(const Mapping *mapping) {
  return mapping->tables->len;
}

const Projection *mapping_table(const Mapping *mapping, unsigned index) {
  return mapping->tables->pdata[index];
}

const Rule *const *mapping_rules(const Mapping *mapping, const char *aggregate_type,
                                 size_t aggregate_type_length, const char *event_type,
                                 size_t event_type_length) {
  char key[512];
  size_t length = aggregate_type_length + 1 + event_type_length;
  if (length > sizeof key)
    return NULL;
  memcpy(key, aggregate_type, aggregate_type_length);
  key[aggregate_type_length] = '\0';
  memcpy(key + aggregate_type_length + 1, event_type, event_type_length);
  g_autoptr(GBytes) bytes = g_bytes_new_static(key, length);
  GPtrArray *rules = g_hash_table_lookup(mapping->rules, bytes);
  return rules ? (const Rule *const *)rules->pdata : NULL;
}

bool mapping_ignores_unknown(const Mapping *mapping) {
  return mapping->ignores_unknown;
}

bool projection_is_of(const Projection *projection, const char *aggregate_type, size_t length) {
  return strlen(projection->aggregate_type) == length &&
         !memcmp(projection->aggregate_type, aggregate_type, length);
}

bool projection_removes_own_rows(const Projection *projection) {
  bool own = false, removes = false;
  for (unsigned i = 0; i < projection->key_count; i++)
    own |= source_is_aggregate_id(&projection->columns[i].from);
  for (unsigned i = 0; i < projection->rule_count; i++)
    removes |= projection->rules[i].operation == OP_DELETE ||
               (projection->rules[i].operation == OP_UPSERT && projection->when);
  return own && removes;
}

static bool overwrites(const Projection *projection, const char *event_type) {
  for (unsigned i = 0; i < projection->rule_count; i++)
    if (!strcmp(projection->rules[i].event_type, event_type))
      return !projection->rules[i].when &&
             (projection->rules[i].operation == OP_UPSERT ||
              (projection->rules[i].operation == OP_DELETE && !projection->rules[i].soft));
  return false;
}

bool mapping_overwrites(const Mapping *mapping, const Projection *projection) {
  const char *type = projection->aggregate_type;
  for (unsigned i = 0; i < mapping_projection_count(mapping); i++) {
    const Projection *other = mapping_projection(mapping, i);
    for (unsigned j = 0; projection_is_of(other, type, strlen(type)) && j < other->rule_count; j++)
      if (other->rules[j].operation != OP_IGNORE &&
          !overwrites(projection, other->rules[j].event_type))
        return false;
  }
  return true;
}
