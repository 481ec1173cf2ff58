/* mapping_children.c - reads the child tables of a projection from the mapping file. */
#include "projector/domain/mapping_private.h"

#include "projector/domain/json.h"

#include <string.h>

enum { CHILDREN_MAX = 32 }; /* the bits of Rule.child_tables */

static Projection *child_new(Mapping *mapping, Projection *parent, const char *path) {
  Projection *child = g_new0(Projection, 1);
  child->index = parent->index;
  child->rank = mapping->tables->len;
  child->mark = -1;
  child->parent = parent;
  child->path = arena_copy(mapping->arena, path, strlen(path));
  child->aggregate_type = parent->aggregate_type;
  child->entities = parent->entities;
  child->when = parent->when;
  child->columns = g_new(Column, parent->key_count);
  memcpy(child->columns, parent->columns, parent->key_count * sizeof(Column));
  child->column_count = child->key_count = parent->key_count;
  parent->children[parent->child_count++] = child;
  g_ptr_array_add(mapping->tables, child);
  return child;
}

static bool check_name(const Mapping *mapping, const Projection *parent, const json_t *json,
                       const char *path, Failure *ret_failure) {
  const char *table = json_string_value(json_object_get(json, "table"));
  for (unsigned i = 0; table && i < parent->column_count; i++)
    if (!g_ascii_strcasecmp(parent->columns[i].name, table))
      return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                         "%s.table: %s is a column of %s too, so an update that names it would "
                         "be ambiguous",
                         path, table, parent->table);
  return !table || !mapping_find_among(mapping->tables, table) ||
         failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                     "%s.table: another projection fills %s already", path, table);
}

/* Of a list of paths, the one that no entity has; NULL: none. */
static const char *not_of_entity(const Source *source) {
  for (; source; source = source->otherwise) {
    Source place = *source;
    place.otherwise = NULL;
    if (!source_is_of_entity(&place))
      return place.text;
  }
  return NULL;
}

/* Rows with values that only an event has could not be compared with an entity. */
static bool check_sources(const Projection *child, Failure *ret_failure) {
  for (unsigned i = child->parent->key_count; i < child->column_count; i++) {
    const char *wrong = not_of_entity(&child->columns[i].from);
    if (wrong)
      return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                         "%s: its column %s comes from %s, which an entity does not have; expected "
                         "$index, $item, $item.x, a payload path or $aggregate_id",
                         child->path, child->columns[i].name, wrong);
  }
  return true;
}

/* Only the payload has arrays, and it is all that an entity has. */
static bool check_items(const json_t *json, const char *path, const Source *items, bool of_entity,
                        Failure *ret_failure) {
  const json_t *otherwise = json_is_object(json) ? json_object_get(json, "default") : NULL;
  if (otherwise && (!json_is_array(otherwise) || json_array_size(otherwise) > 0))
    return mapping_wrong(ret_failure, path, "default", "[]", otherwise);
  for (const Source *place = items; place; place = place->otherwise) {
    bool metadata = g_str_has_prefix(place->text, "$metadata.");
    if (!place->constant && (!place->in_payload || place->text[0] == '$') &&
        (of_entity || !metadata))
      return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                         "%s: expected the path of an array in the payload, found %s", path,
                         place->text);
  }
  return true;
}

static bool parse_child(Mapping *mapping, Projection *parent, const json_t *json, const char *path,
                        Failure *ret_failure) {
  static const char *const keys[] = {"table", "from", "default", "key", "columns", NULL};
  if (json_is_object(json) && json_object_get(json, "children"))
    return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                       "%s.children: a child table has no child tables of its own; keep the inner "
                       "array in a column of type json, or write it as an array of the entity",
                       path);
  if (!json_check_object(json, path, keys, ret_failure) ||
      !check_name(mapping, parent, json, path, ret_failure))
    return false;
  Projection *child = child_new(mapping, parent, path);
  g_autofree char *key_path = json_path(path, "key");
  g_autofree char *columns_path = json_path(path, "columns");
  const json_t *columns = json_object_get(json, "columns");
  return mapping_take_table(mapping, json, path, child, ret_failure) &&
         source_from_members(json, path, mapping->arena, &child->items, ret_failure) &&
         check_items(json, path, &child->items, true, ret_failure) &&
         mapping_parse_columns(mapping, child, json_object_get(json, "key"), key_path, true,
                               ret_failure) &&
         (!columns ||
          mapping_parse_columns(mapping, child, columns, columns_path, false, ret_failure)) &&
         check_sources(child, ret_failure);
}

bool mapping_parse_children(Mapping *mapping, Projection *projection, const json_t *json,
                            const char *path, Failure *ret_failure) {
  const json_t *children = json_object_get(json, "children"), *value;
  g_autofree char *full = json_path(path, "children");
  if (!children)
    return true;
  if (!json_is_array(children) || json_array_size(children) == 0 ||
      json_array_size(children) > CHILDREN_MAX)
    return json_complain(full, "a list of 1 to 32 child tables", children, ret_failure);
  projection->children = g_new0(Projection *, json_array_size(children));
  size_t i;
  json_array_foreach(children, i, value) {
    g_autofree char *member = g_strdup_printf("%s[%zu]", full, i);
    if (!parse_child(mapping, projection, value, member, ret_failure))
      return false;
  }
  return true;
}

bool mapping_parse_child_update(Mapping *mapping, const char *name, const json_t *from,
                                const char *path, Rule *rule, bool *ret_found,
                                Failure *ret_failure) {
  const Projection *projection = rule->projection;
  unsigned at = 0;
  while (at < projection->child_count &&
         g_ascii_strcasecmp(projection->children[at]->table, name) != 0)
    at++;
  *ret_found = at < projection->child_count;
  if (!*ret_found)
    return true;
  if (rule->operation != OP_UPDATE)
    return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                       "%s: %s is a child table, which only an update can name", path, name);
  if (rule->child_tables & UINT32_C(1) << at)
    return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                       "%s: this child table is named twice", path);
  if (!rule->items)
    rule->items = arena_alloc(mapping->arena, projection->child_count, sizeof *rule->items);
  rule->child_tables |= UINT32_C(1) << at;
  rule->items[at] = projection->children[at]->items;
  static const char *const keys[] = {"from", "default", NULL};
  return !from ||
         ((json_is_object(from)
               ? json_check_object(from, path, keys, ret_failure) &&
                     source_from_members(from, path, mapping->arena, &rule->items[at], ret_failure)
               : source_from_json(from, path, mapping->arena, &rule->items[at], ret_failure)) &&
          check_items(from, path, &rule->items[at], false, ret_failure));
}
