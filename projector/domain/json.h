/* json.h - reads and checks a JSON file: every error names the path of the key. */
#pragma once

#include "projector/domain/failure.h"

#include <glib.h>
#include <jansson.h>

/* "name: expected a string, found 5" as a configuration failure; returns false. The value of a
 * secret is not shown. */
bool json_complain(const char *path, const char *expected, const json_t *found,
                   Failure *ret_failure);

/* Whether `value` is an object with no keys but those in the NULL-terminated list. */
bool json_check_object(const json_t *value, const char *path, const char *const *known_keys,
                       Failure *ret_failure);

/* The members below leave `*ret_…` alone when the key is absent, unless `required`. Texts are
 * borrowed from the JSON value. `path` is the path of the object, "" at the top. */
bool json_take_text(const json_t *object, const char *path, const char *key, bool required,
                    const char **ret_text, Failure *ret_failure);
bool json_take_collection(const json_t *object, const char *path, const char *key,
                          const char **ret_name, Failure *ret_failure);
bool json_take_bool(const json_t *object, const char *path, const char *key, bool *ret_bool,
                    Failure *ret_failure);
bool json_take_number(const json_t *object, const char *path, const char *key, int64_t low,
                      int64_t high, int64_t *ret_number, Failure *ret_failure);
/* One of a NULL-terminated list of words, by its index. */
bool json_take_choice(const json_t *object, const char *path, const char *key,
                      const char *const *words, int *ret_index, Failure *ret_failure);

/* "outer.key", or "key" when the outer path is empty. Free with g_free. */
char *json_path(const char *outer, const char *key);
