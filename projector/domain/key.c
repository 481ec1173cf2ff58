/* key.c - converts the values of a key, and refuses ids in unusual spellings. */
#include "projector/domain/key.h"

#include <string.h>

bool key_check_spelling(const Event *event, const Column *column, const Value *key,
                        Failure *ret_failure) {
  const Id *id = &event->aggregate.id;
  char text[ID_TEXT_SIZE];
  const char *usual = text;
  size_t length;
  bool decimal = column->type.kind == TYPE_DECIMAL;
  if (!source_is_aggregate_id(&column->from) || id->kind != ID_STRING ||
      !(decimal || column->type.kind == TYPE_UUID))
    return true;
  if (decimal) {
    usual = key->text;
    length = key->length;
  } else {
    length = id_text(&(Id){.kind = ID_UUID, .bytes = key->bytes, .length = key->length}, text);
  }
  return (length == id->length && !memcmp(usual, id->bytes, length)) ||
         failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0,
                     "$aggregate_id: expected %s, because another spelling is another aggregate "
                     "with the same key, found \"%.*s\"",
                     decimal ? "a number without needless digits, signs and exponents"
                             : "a uuid in small letters",
                     (int)MIN(id->length, 60), (const char *)id->bytes);
}

bool key_map(const Event *event, const Column *column, Arena *arena, Value *ret_value,
             Failure *ret_failure) {
  return value_for_column(event, &column->from, column, arena, ret_value, ret_failure) &&
         key_check_spelling(event, column, ret_value, ret_failure);
}
