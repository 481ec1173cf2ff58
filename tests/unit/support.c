/* support.c - documents from JSON, values as text, checks that name their case. */
#include "tests/unit/support.h"

#include "projector/domain/datetime.h"

#include <string.h>

static unsigned check_count;

int count_report(void **state) {
  (void)state;
  print_message("%u checks\n", check_count);
  return 0;
}

void check_text(const char *name, const char *found, const char *expected) {
  check_count++;
  if (g_strcmp0(found, expected))
    fail_msg("%s: found \"%s\", expected \"%s\"", name, found ? found : "(null)",
             expected ? expected : "(null)");
}

void check_number(const char *name, int64_t found, int64_t expected) {
  check_count++;
  if (found != expected)
    fail_msg("%s: found %lld, expected %lld", name, (long long)found, (long long)expected);
}

void check_that(const char *name, bool holds, const char *what) {
  check_count++;
  if (!holds)
    fail_msg("%s: not so: %s", name, what);
}

char *json_text(const char *text) {
  return g_strdelimit(g_strdup(text), "'", '"');
}

bson_t *document_from(const char *json) {
  g_autofree char *text = json_text(json);
  bson_error_t error;
  bson_t *document = bson_new_from_json((const uint8_t *)text, -1, &error);
  if (!document)
    fail_msg("the test's own JSON is wrong: %s: %s", error.message, text);
  return document;
}

Event *event_from(const char *json) {
  g_autoptr(bson_t) document = document_from(json);
  return event_decode(document);
}

json_t *json_from(const char *json) {
  g_autofree char *text = json_text(json);
  json_error_t error;
  json_t *file = json_loads(text, JSON_REJECT_DUPLICATES, &error);
  if (!file)
    fail_msg("the test's own JSON is wrong: line %d: %s", error.line, error.text);
  return file;
}

Mapping *mapping_from(const char *json, Failure *ret_failure) {
  json_t *file = json_from(json);
  Mapping *mapping = mapping_parse(file, ret_failure);
  json_decref(file);
  return mapping;
}

static char *bytes_text(const Value *value) {
  GString *text = g_string_new("bytes ");
  for (uint32_t i = 0; i < value->length; i++)
    g_string_append_printf(text, "%02x", value->bytes[i]);
  return g_string_free(text, FALSE);
}

static char *visible_text(const Value *value) {
  GString *text = g_string_new("text ");
  for (uint32_t i = 0; i < value->length; i++)
    if (value->text[i])
      g_string_append_c(text, value->text[i]);
    else
      g_string_append(text, "\\0");
  return g_string_free(text, FALSE);
}

uint64_t cases_to_try(uint64_t usual) {
  const char *many = getenv("PROPERTY_SEEDS");
  char *end = NULL;
  uint64_t count = many ? g_ascii_strtoull(many, &end, 10) : usual;
  check_that("PROPERTY_SEEDS", count > 0 && count <= UINT32_MAX && (!end || !*end),
             "a number from 1 to 4294967295");
  return count;
}

static char *time_text(const char *name, int64_t us, unsigned fraction, size_t length) {
  char text[DATETIME_TEXT_SIZE];
  datetime_format(us, fraction, text);
  return g_strdup_printf("%s %.*s", name, (int)length, text);
}

char *value_text(const Value *value) {
  char number[G_ASCII_DTOSTR_BUF_SIZE];
  switch (value->kind) {
  case VALUE_NULL: return g_strdup("null");
  case VALUE_INT: return g_strdup_printf("int %lld", (long long)value->integer);
  case VALUE_UINT: return g_strdup_printf("uint %llu", (unsigned long long)value->natural);
  case VALUE_DOUBLE:
    return g_strdup_printf("double %s", g_ascii_dtostr(number, sizeof number, value->real));
  case VALUE_DECIMAL: return g_strdup_printf("decimal %.*s", (int)value->length, value->text);
  case VALUE_TEXT: return visible_text(value);
  case VALUE_BINARY: return bytes_text(value);
  case VALUE_DATE: return time_text("date", value->us, 0, 10);
  case VALUE_DATETIME: return time_text("datetime", value->us, value->length, DATETIME_TEXT_SIZE);
  }
  return g_strdup("(unknown kind)");
}
