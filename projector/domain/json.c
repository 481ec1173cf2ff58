/* json.c - typed access to a JSON file, with paths in the errors. */
#include "projector/domain/json.h"

#include <stdio.h>
#include <string.h>

char *json_path(const char *outer, const char *key) {
  return *outer ? g_strdup_printf("%s.%s", outer, key) : g_strdup(key);
}

/* Keys whose value is a secret, or contains one. */
static bool is_secret(const char *path) {
  const char *dot = strrchr(path, '.');
  const char *key = dot ? dot + 1 : path;
  return g_str_has_prefix(key, "password") || g_str_has_prefix(key, "uri") ||
         g_str_has_prefix(key, "admin_token");
}

static void describe_secret(const json_t *value, char *text, size_t size) {
  g_strlcpy(text, json_is_string(value) ? "another text" : "a number", size);
}

static void describe(const json_t *value, char *text, size_t size) {
  const char *decimal = json_string_value(json_object_get(value, "$numberDecimal"));
  switch (value ? json_typeof(value) : JSON_NULL) {
  case JSON_OBJECT: snprintf(text, size, "%.60s", decimal ? decimal : "an object"); break;
  case JSON_ARRAY:
    snprintf(text, size, json_array_size(value) > 0 ? "an array" : "an empty array");
    break;
  case JSON_STRING: snprintf(text, size, "\"%.60s\"", json_string_value(value)); break;
  case JSON_INTEGER: snprintf(text, size, "%lld", (long long)json_integer_value(value)); break;
  case JSON_REAL: /* keeps the point: 2.0 is not the 2 that was expected */
    g_ascii_dtostr(text, (int)size, json_real_value(value));
    if (!strpbrk(text, ".e"))
      g_strlcat(text, ".0", size);
    break;
  case JSON_TRUE: snprintf(text, size, "true"); break;
  case JSON_FALSE: snprintf(text, size, "false"); break;
  case JSON_NULL: snprintf(text, size, value ? "null" : "nothing"); break;
  }
}

bool json_complain(const char *path, const char *expected, const json_t *found,
                   Failure *ret_failure) {
  char text[80];
  if (is_secret(path) && (json_is_string(found) || json_is_number(found)))
    describe_secret(found, text, sizeof text);
  else
    describe(found, text, sizeof text);
  return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0, "%s: expected %s, found %s",
                     *path ? path : "the file", expected, text);
}

bool json_check_object(const json_t *value, const char *path, const char *const *known_keys,
                       Failure *ret_failure) {
  if (!json_is_object(value))
    return json_complain(path, "an object", value, ret_failure);
  const char *key;
  const json_t *member;
  json_object_foreach((json_t *)value, key, member) {
    if (g_strv_contains(known_keys, key))
      continue;
    g_autofree char *full = json_path(path, key);
    g_autofree char *known = g_strjoinv(", ", (char **)known_keys);
    return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                       "%s: unknown key; known here: %s", full, known);
  }
  return true;
}

static bool complain_member(const char *path, const char *key, const char *expected,
                            const json_t *found, Failure *ret_failure) {
  g_autofree char *full = json_path(path, key);
  return json_complain(full, expected, found, ret_failure);
}

bool json_take_text(const json_t *object, const char *path, const char *key, bool required,
                    const char **ret_text, Failure *ret_failure) {
  const json_t *value = json_object_get(object, key);
  if (!value && !required)
    return true;
  if (!json_is_string(value) || strlen(json_string_value(value)) != json_string_length(value))
    return complain_member(path, key, "a string", value, ret_failure);
  *ret_text = json_string_value(value);
  return true;
}

/* Names that MongoDB refuses; it would say so only with the first command, and not name the key. */
static bool is_collection(const char *name) {
  return *name && *name != '.' && !strchr(name, '$') && !g_str_has_prefix(name, "system.");
}

bool json_take_collection(const json_t *object, const char *path, const char *key,
                          const char **ret_name, Failure *ret_failure) {
  const char *name = NULL;
  if (!json_take_text(object, path, key, false, &name, ret_failure))
    return false;
  if (!name)
    return true;
  if (!is_collection(name))
    return complain_member(path, key,
                           "the name of a collection (without $, not beginning with . or system.)",
                           json_object_get(object, key), ret_failure);
  *ret_name = name;
  return true;
}

bool json_take_bool(const json_t *object, const char *path, const char *key, bool *ret_bool,
                    Failure *ret_failure) {
  const json_t *value = json_object_get(object, key);
  if (!value)
    return true;
  if (!json_is_boolean(value))
    return complain_member(path, key, "true or false", value, ret_failure);
  *ret_bool = json_is_true(value);
  return true;
}

bool json_take_number(const json_t *object, const char *path, const char *key, int64_t low,
                      int64_t high, int64_t *ret_number, Failure *ret_failure) {
  const json_t *value = json_object_get(object, key);
  if (!value)
    return true;
  if (!json_is_integer(value) || json_integer_value(value) < low ||
      json_integer_value(value) > high) {
    g_autofree char *expected =
        g_strdup_printf("a whole number from %lld to %lld", (long long)low, (long long)high);
    return complain_member(path, key, expected, value, ret_failure);
  }
  *ret_number = json_integer_value(value);
  return true;
}

bool json_take_choice(const json_t *object, const char *path, const char *key,
                      const char *const *words, int *ret_index, Failure *ret_failure) {
  const json_t *value = json_object_get(object, key);
  if (!value)
    return true;
  for (int i = 0; words[i] && json_is_string(value); i++)
    if (!strcmp(words[i], json_string_value(value))) {
      *ret_index = i;
      return true;
    }
  g_autofree char *all = g_strjoinv(", ", (char **)words);
  g_autofree char *expected = g_strdup_printf("one of %s", all);
  return complain_member(path, key, expected, value, ret_failure);
}
