/* explain_children.c - how many rows child tables have, and which of them differ. */
#include "projector/app/commands/explain_children.h"

#include "projector/app/shared/command.h"
#include "projector/app/shared/value_json.h"

#include <stdio.h>

enum { LABEL = 12 };

static json_t *difference_json(const Difference *difference) {
  const Layout *child = difference->layout;
  json_t *key = json_object();
  for (unsigned i = child->projection->parent->key_count; i < child->key_count; i++)
    json_object_set_new(key, child->columns[i]->name, value_json(&difference->key[i]));
  return json_pack("{s:o, s:s}", "key", key, "finding", difference_name(difference->kind));
}

static json_t *child_json(const ChildTables *tables, const Layout *layout, unsigned at,
                          const Value *key, const Expected *expected) {
  const GPtrArray *rows = child_set_find(tables->sets->pdata[at], key);
  json_t *json = json_pack("{s:s, s:i, s:n, s:[]}", "table", layout->children[at].projection->table,
                           "rows", rows ? (int)rows->len : 0, "entity", "different");
  if (expected)
    json_object_set_new(json, "entity", json_integer(expected->children[at]->count));
  return json;
}

bool explain_children(Stores *stores, const Layout *layout, ExplainedChildren *of, Arena *arena,
                      json_t *json, Failure *ret_failure) {
  const Difference like = {.kind = DIFFERENCE_NONE};
  g_autoptr(GArray) differences = g_array_new(FALSE, TRUE, sizeof(Difference));
  g_autoptr(ChildTables) tables =
      child_tables_read(stores, layout, &of->key, 1, arena, ret_failure);
  if (!tables)
    return false;
  json_t *children = json_array();
  for (unsigned i = 0; i < layout->projection->child_count; i++) {
    json_array_append_new(children, child_json(tables, layout, i, of->key, of->expected));
    of->any |= child_set_find(tables->sets->pdata[i], of->key) != NULL;
  }
  if (of->expected)
    child_tables_differ(tables, layout, of->expected, &like, arena, differences);
  for (guint i = 0; i < differences->len; i++) {
    const Difference *difference = &g_array_index(differences, Difference, i);
    json_t *child = json_array_get(children, (size_t)(difference->layout - layout->children));
    json_array_append_new(json_object_get(child, "different"), difference_json(difference));
  }
  json_object_set_new(json, "children", children);
  of->equal = differences->len == 0;
  return true;
}

static void print_key(const json_t *key) {
  const char *name;
  const json_t *value;
  json_object_foreach((json_t *)key, name, value) {
    printf(" %s ", name);
    print_clean(stdout, json_is_string(value) ? json_string_value(value) : "?");
  }
}

void explain_print_children(const json_t *projection) {
  size_t i, k;
  const json_t *child, *row;
  json_array_foreach(json_object_get(projection, "children"), i, child) {
    const json_t *different = json_object_get(child, "different");
    printf("%-*s%s: %lld rows", LABEL, "children",
           json_string_value(json_object_get(child, "table")),
           (long long)json_integer_value(json_object_get(child, "rows")));
    if (json_is_integer(json_object_get(child, "entity")))
      printf(", %lld in the entity",
             (long long)json_integer_value(json_object_get(child, "entity")));
    putchar('\n');
    json_array_foreach(different, k, row) {
      printf("%-*s ", LABEL, "");
      print_key(json_object_get(row, "key"));
      printf(": %s\n", json_string_value(json_object_get(row, "finding")));
    }
  }
}
