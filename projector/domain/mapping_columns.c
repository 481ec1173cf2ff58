/* mapping_columns.c - reads the tables and columns of a projection from the mapping file. */
#include "projector/domain/json.h"
#include "projector/domain/mapping_private.h"
#include "projector/domain/value.h"

#include <string.h>

const Projection *mapping_find_among(const GPtrArray *tables, const char *table) {
  for (unsigned i = 0; i < tables->len; i++) {
    const Projection *projection = tables->pdata[i];
    if (projection->table && !g_ascii_strcasecmp(projection->table, table))
      return projection;
  }
  return NULL;
}

const char *mapping_keep(Mapping *mapping, const char *text) {
  return arena_copy(mapping->arena, text, strlen(text));
}

bool mapping_wrong(Failure *ret_failure, const char *path, const char *key, const char *expected,
                   const json_t *found) {
  g_autofree char *full = json_path(path, key);
  return json_complain(full, expected, found, ret_failure);
}

/* The projector's own tables share a database with the user's. */
static bool is_own_table(const char *name) {
  static const char *const own[] = {"projector_applied", "projector_position", "projector_fence",
                                    "projector_source"};
  for (size_t i = 0; i < G_N_ELEMENTS(own); i++)
    if (!g_ascii_strcasecmp(name, own[i]))
      return true;
  return false;
}

/* MySQL would accept more if quoted; these names need no quotes anywhere. */
static bool is_identifier(const char *text) {
  size_t length = strlen(text);
  if (length < 1 || length > 64 || g_ascii_isdigit(text[0]))
    return false;
  for (size_t i = 0; i < length; i++)
    if (!g_ascii_isalnum(text[i]) && text[i] != '_' && text[i] != '$')
      return false;
  return true;
}

static bool take_identifier(Mapping *mapping, const json_t *json, const char *path, const char *key,
                            const char **ret_name, Failure *ret_failure) {
  const char *name = NULL;
  if (!json_take_text(json, path, key, true, &name, ret_failure))
    return false;
  if (!is_identifier(name))
    return mapping_wrong(ret_failure, path, key, "an identifier (1 to 64 letters, digits, _ or $)",
                         json_object_get(json, key));
  *ret_name = mapping_keep(mapping, name);
  return true;
}

bool mapping_take_table(Mapping *mapping, const json_t *json, const char *path,
                        Projection *projection, Failure *ret_failure) {
  return take_identifier(mapping, json, path, "table", &projection->table, ret_failure) &&
         (!is_own_table(projection->table) ||
          mapping_wrong(ret_failure, path, "table", "a table that is not the projector's own",
                        json_object_get(json, "table")));
}

/* A constant that does not fit its column is found when the file is read, and so is a whole payload
 * in a column that cannot hold a document. */
bool mapping_check_sources(const Column *column, const char *path, Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  for (const Source *place = &column->from; place; place = place->otherwise) {
    Value value;
    if (place->text && !strcmp(place->text, "$payload") && column->type.kind != TYPE_JSON)
      return failure_refuse(ret_failure, "%s: expected $payload on a column of type json alone",
                            path);
    if (place->constant && !value_for_column(NULL, place, column, arena, &value, ret_failure)) {
      ret_failure->class = FAILURE_CONFIG;
      ret_failure->source = SOURCE_PROJECTOR;
      return failure_prefix(ret_failure, "%s", path);
    }
  }
  return true;
}

static bool parse_column(Mapping *mapping, const char *name, const json_t *json, const char *path,
                         bool is_key, Column *ret_column, Failure *ret_failure) {
  static const char *const keys[] = {"from", "value",   "default", "type",
                                     "null", "compare", "json",    NULL};
  static const char *const key_keys[] = {"from", "value", "default", "type", NULL};
  Column column = {.compare = true};
  if (!is_identifier(name))
    return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                       "%s: not an identifier (1 to 64 letters, digits, _ or $)", path);
  const char *type = NULL;
  if (!json_check_object(json, path, is_key ? key_keys : keys, ret_failure) ||
      !json_take_text(json, path, "type", true, &type, ret_failure) ||
      !json_take_bool(json, path, "null", &column.nullable, ret_failure) ||
      !json_take_bool(json, path, "compare", &column.compare, ret_failure))
    return false;
  column.name = mapping_keep(mapping, name);
  if (!column_type_parse(mapping_keep(mapping, type), &column.type))
    return mapping_wrong(
        ret_failure, path, "type",
        "boolean, tinyint … bigint [unsigned], double, decimal(p,s), char(n), varchar(n), "
        "tinytext … longtext, binary(n), varbinary(n), tinyblob … longblob, date, "
        "datetime(f), timestamp(f), json, uuid, enum('a','b'), year, time(f), bit(1) or float",
        json_object_get(json, "type"));
  TypeKind kind = column.type.kind;
  static const char *const forms[] = {"extended", "plain", NULL};
  int form = 0;
  if (json_object_get(json, "json") && kind != TYPE_JSON)
    return mapping_wrong(ret_failure, path, "json", "it on a column of type json alone",
                         json_object_get(json, "json"));
  if (!json_take_choice(json, path, "json", forms, &form, ret_failure))
    return false;
  column.type.plain = form == 1;
  if (is_key &&
      (kind == TYPE_JSON || kind == TYPE_DOUBLE || kind == TYPE_ENUM || kind == TYPE_TIME ||
       kind == TYPE_BIT || kind == TYPE_FLOAT || (kind >= TYPE_TINYTEXT && kind <= TYPE_LONGTEXT) ||
       (kind >= TYPE_TINYBLOB && kind <= TYPE_LONGBLOB)))
    return mapping_wrong(ret_failure, path, "type", "a type that can be a primary key",
                         json_object_get(json, "type"));
  if (!source_from_members(json, path, mapping->arena, &column.from, ret_failure) ||
      !mapping_check_sources(&column, path, ret_failure))
    return false;
  *ret_column = column;
  return true;
}

int mapping_find_column(const Projection *projection, const char *name) {
  for (unsigned i = 0; i < projection->column_count; i++)
    if (!g_ascii_strcasecmp(projection->columns[i].name, name))
      return (int)i;
  return -1;
}

bool mapping_parse_columns(Mapping *mapping, Projection *projection, const json_t *json,
                           const char *path, bool is_key, Failure *ret_failure) {
  if (!json_is_object(json) || (is_key && json_object_size(json) == 0))
    return json_complain(path, is_key ? "an object with at least one column" : "an object", json,
                         ret_failure);
  projection->columns =
      g_renew(Column, projection->columns, projection->column_count + json_object_size(json) + 1);
  const char *name;
  const json_t *value;
  json_object_foreach((json_t *)json, name, value) {
    g_autofree char *full = json_path(path, name);
    if (mapping_find_column(projection, name) >= 0)
      return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                         "%s: this column is named twice", full);
    if (!parse_column(mapping, name, value, full, is_key,
                      &projection->columns[projection->column_count], ret_failure))
      return false;
    if (!projection->parent &&
        !source_check_event(&projection->columns[projection->column_count].from, full, ret_failure))
      return false;
    projection->column_count++;
  }
  if (is_key)
    projection->key_count = projection->column_count;
  return true;
}
