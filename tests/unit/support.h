/* support.h - what the unit tests share: documents from JSON, values as text, checks that name
 * their case. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "projector/domain/value.h"

G_DEFINE_AUTOPTR_CLEANUP_FUNC(bson_t, bson_destroy)

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))
#define RUN_TESTS(tests) cmocka_run_group_tests_name(__FILE__, tests, NULL, count_report)

/* A failed check ends the test and says which row of its table was wrong. */
void check_text(const char *name, const char *found, const char *expected);
void check_number(const char *name, int64_t found, int64_t expected);
void check_that(const char *name, bool holds, const char *what);
/* Prints how many checks the program made; a group teardown. */
int count_report(void **state);

/* How many cases to try: PROPERTY_SEEDS, set where a tool slows the program down; else `usual`. */
uint64_t cases_to_try(uint64_t usual);

/* `text` with double quotes for single ones, so that JSON in a table stays readable. */
char *json_text(const char *text);
/* A document from extended JSON; the test fails when it is invalid. */
bson_t *document_from(const char *json);
Event *event_from(const char *json);
/* A JSON value; the test fails when it is invalid. Free with json_decref. */
json_t *json_from(const char *json);
/* NULL when the mapping is refused; then the failure is set. */
Mapping *mapping_from(const char *json, Failure *ret_failure);

/* "int 5", "decimal 12.5", "text abc", "bytes 00ff", "datetime 2024-01-02 00:00:00.000", "null";
 * NUL bytes of a text as \0. Free with g_free. */
char *value_text(const Value *value);
