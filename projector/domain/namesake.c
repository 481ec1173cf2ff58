/* namesake.c - aggregates whose ids differ in kind alone. */
#include "projector/domain/namesake.h"

#include <string.h>

static bool is_text_of(const Id *id, const char *text, size_t length) {
  char usual[ID_TEXT_SIZE];
  return id_text(id, usual) == length && memcmp(usual, text, length) == 0;
}

/* A text is the usual one of an int, a UUID or an ObjectId, or of none of them. */
static bool kind_of_text(const Id *id, Arena *arena, Id *ret_id) {
  static const IdKind kinds[] = {ID_INT, ID_UUID, ID_OBJECTID};
  const char *text = (const char *)id->bytes;
  uint8_t bytes[16];
  Id found;
  for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++)
    if (id_from_text(kinds[i], text, id->length, bytes, &found) &&
        is_text_of(&found, text, id->length)) {
      if (found.length)
        found.bytes = (const uint8_t *)arena_copy(arena, bytes, found.length);
      *ret_id = found;
      return true;
    }
  return false;
}

bool id_namesake(const Id *id, Arena *arena, Id *ret_id) {
  char text[ID_TEXT_SIZE];
  if (id->kind == ID_STRING)
    return id->length > 0 && kind_of_text(id, arena, ret_id);
  if (id->kind == ID_OTHER)
    return false;
  size_t length = id_text(id, text);
  *ret_id = (Id){.kind = ID_STRING,
                 .length = (uint32_t)length,
                 .bytes = (const uint8_t *)arena_copy(arena, text, length)};
  return true;
}

/* Other types take ids of one kind. */
static bool takes_kinds(TypeKind kind) {
  return type_is_text(kind) || kind == TYPE_DECIMAL || kind == TYPE_UUID;
}

bool projection_mixes_kinds(const Projection *projection) {
  bool any = false;
  for (unsigned i = 0; i < projection->key_count; i++) {
    if (!source_is_of_aggregate(&projection->columns[i].from))
      return false;
    if (source_is_aggregate_id(&projection->columns[i].from)) {
      if (!takes_kinds(projection->columns[i].type.kind))
        return false;
      any = true;
    }
  }
  return any;
}

static bool type_mixes_kinds(const Mapping *mapping, const Aggregate *aggregate) {
  for (unsigned i = 0; i < mapping_projection_count(mapping); i++) {
    const Projection *projection = mapping_projection(mapping, i);
    if (projection_is_of(projection, aggregate->type, aggregate->type_length) &&
        projection_mixes_kinds(projection))
      return true;
  }
  return false;
}

void namesakes_find(const Mapping *mapping, const Item *items, size_t count,
                    AggregateSet *aggregates, AggregateSet *others, Arena *arena) {
  for (size_t i = 0; i < count; i++) {
    const Event *event = items[i].event;
    if (items[i].verdict != VERDICT_NONE || !event_has_aggregate(event))
      continue;
    AggregateState *state = aggregate_set_open(aggregates, &event->aggregate);
    Id id;
    if (state->namesake || !order_is_untouched(&state->position) ||
        !type_mixes_kinds(mapping, &event->aggregate) ||
        !id_namesake(&event->aggregate.id, arena, &id))
      continue;
    Aggregate *namesake = arena_alloc(arena, 1, sizeof *namesake);
    *namesake = event->aggregate;
    namesake->id = id;
    state->namesake = aggregate_set_find(aggregates, namesake);
    if (!state->namesake)
      state->namesake = aggregate_set_open(others, namesake);
  }
}
