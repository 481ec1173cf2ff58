/* retarget.c - a mapping file cut down to one projection, with the name of its table replaced. */
#include "projector/domain/retarget.h"

#include "projector/domain/statement.h"

#include <string.h>

static bool retarget_rules(json_t *events, const Projection *projection, const char *table,
                           Failure *ret_failure) {
  const char *name;
  json_t *rule;
  json_object_foreach(events, name, rule) {
    const char *statement = json_string_value(json_object_get(rule, "statement"));
    if (!statement)
      continue;
    g_autofree char *other = statement_retarget(statement, projection->table, table);
    if (!other)
      return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                         "projections[%u].events.%s.statement: expected INSERT INTO, UPDATE … SET "
                         "or DELETE FROM %s alone: any other would change the rows that are shown "
                         "while a table beside them is filled",
                         projection->index, name, projection->table);
    json_object_set_new(rule, "statement", json_string(other));
  }
  return true;
}

/* The key that names the table, in whatever case; NULL: none, or no object. */
static const char *key_of_table(json_t *columns, const char *table) {
  const char *key;
  json_t *value;
  json_object_foreach(columns, key, value) {
    if (!g_ascii_strcasecmp(key, table))
      return key;
  }
  return NULL;
}

/* An update names child tables among its columns, in a list or an object. */
static void rename_columns(json_t *rule, const Projection *projection, const char *suffix) {
  json_t *columns = json_object_get(rule, "columns"), *value;
  for (unsigned k = 0; k < projection->child_count; k++) {
    const char *old = projection->children[k]->table;
    g_autofree char *name = g_strconcat(old, suffix, NULL);
    size_t i;
    json_array_foreach(columns, i, value) {
      if (json_is_string(value) && !g_ascii_strcasecmp(json_string_value(value), old))
        json_array_set_new(columns, i, json_string(name));
    }
    const char *key = key_of_table(columns, old);
    if (key && *suffix) {
      json_object_set(columns, name, json_object_get(columns, key));
      json_object_del(columns, key);
    }
  }
}

void mapping_rename(json_t *json, const Projection *projection, const char *table) {
  const char *suffix = table + strlen(projection->table);
  size_t i;
  json_t *child;
  json_object_set_new(json, "table", json_string(table));
  json_array_foreach(json_object_get(json, "children"), i, child) {
    g_autofree char *name = g_strconcat(projection->children[i]->table, suffix, NULL);
    json_object_set_new(child, "table", json_string(name));
  }
  const char *event_type;
  json_t *rule;
  json_object_foreach(json_object_get(json, "events"), event_type, rule) {
    rename_columns(rule, projection, suffix);
  }
}

Mapping *mapping_retarget(const json_t *json, const Projection *projection, const char *table,
                          Failure *ret_failure) {
  json_t *one =
      json_deep_copy(json_array_get(json_object_get(json, "projections"), projection->index));
  mapping_rename(one, projection, table);
  json_object_del(one, "entities");
  Mapping *mapping = NULL;
  if (retarget_rules(json_object_get(one, "events"), projection, table, ret_failure)) {
    json_t *file = json_pack("{s:s, s:[O]}", "unknown_events", "ignore", "projections", one);
    mapping = mapping_parse(file, ret_failure);
    json_decref(file);
  }
  json_decref(one);
  return mapping;
}

bool projection_owns_rows(const Projection *projection) {
  bool named = false;
  for (unsigned i = 0; i < projection->key_count; i++) {
    const Source *from = &projection->columns[i].from;
    if (!source_is_of_aggregate(from))
      return false;
    named = named || source_is_aggregate_id(from);
  }
  return named;
}
