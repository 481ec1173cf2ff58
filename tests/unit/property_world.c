/* property_world.c - makes random mappings and events for the property test. */
#include "tests/unit/property_world.h"

#include <stdlib.h>
#include <string.h>

static const WorldType types[] = {
    {.text = "tinyint", .low = -12800, .high = 12700, .step = 100, .narrow = true},
    {.text = "smallint unsigned", .low = 0, .high = 6553500, .step = 100, .narrow = true},
    {.text = "decimal(4,1)",
     .low = -99990,
     .high = 99990,
     .step = 10,
     .reads_text = true,
     .narrow = true},
    {.text = "int", .low = -214748364800, .high = 214748364700, .step = 100},
    {.text = "bigint",
     .low = -INT64_C(1000000000000000),
     .high = INT64_C(1000000000000000),
     .step = 100},
    {.text = "decimal(18,2)",
     .low = -INT64_C(999999999999999999),
     .high = INT64_C(999999999999999999),
     .step = 1,
     .reads_text = true},
    {.text = "double", .family = FAMILY_REAL},
    {.text = "varchar(4)", .family = FAMILY_TEXT, .characters = 4},
    {.text = "varchar(40)", .family = FAMILY_TEXT, .characters = 40},
};
enum {
  TINYINT,
  FIRST_WIDE = 3,
  INT = 3,
  BIGINT,
  DECIMAL,
  DOUBLE,
  SHORT_TEXT,
  LONG_TEXT,
  TYPE_COUNT
};

static const char *const field_names[] = {"kn",    "kt",   "whole",        "natural",
                                          "cents", "text", "$aggregate_id"};
static const char *const operation_names[] = {"upsert", "update", "add",   "subtract",
                                              "delete", "sql",    "ignore"};

/* splitmix64 */
static uint64_t next_random(World *world) {
  uint64_t z = world->random += 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

unsigned world_random(World *world, unsigned limit) {
  return (unsigned)(next_random(world) >> 32) % limit;
}

static bool chance(World *world, unsigned percent) {
  return world_random(world, 100) < percent;
}

/* --- aggregates ------------------------------------------------------------------------------ */

static const struct {
  unsigned type;
  enum { NAMED, NUMBERED, UUID } id_kind;
  const char *id;
} aggregates[WORLD_AGGREGATES] = {
    {0, NAMED, "one"}, {0, NUMBERED, "5"}, {0, UUID, "11111111-1111-1111-1111-111111111111"},
    {1, NAMED, "one"}, {1, NUMBERED, "5"},
};

unsigned world_aggregate_type(unsigned aggregate) {
  return aggregates[aggregate].type;
}

const char *world_aggregate_id(unsigned aggregate) {
  return aggregates[aggregate].id;
}

static void append_aggregate_id(bson_t *document, unsigned aggregate) {
  static const uint8_t ones[16] = {0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11,
                                   0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11};
  const char *id = aggregates[aggregate].id;
  switch (aggregates[aggregate].id_kind) {
  case NAMED: BSON_APPEND_UTF8(document, "aggregate_id", id); return;
  case NUMBERED: BSON_APPEND_INT64(document, "aggregate_id", strtoll(id, NULL, 10)); return;
  case UUID:
    BSON_APPEND_BINARY(document, "aggregate_id", BSON_SUBTYPE_UUID, ones, sizeof ones);
    return;
  }
}

/* --- mappings -------------------------------------------------------------------------------- */

/* A field that fits the column more often than not. */
static Field random_field(World *world, const WorldType *type) {
  if (chance(world, 5))
    return FIELD_WHOLE + world_random(world, FIELD_COUNT - FIELD_WHOLE);
  if (type->family == FAMILY_TEXT)
    return chance(world, 90) ? FIELD_TEXT : FIELD_WHOLE;
  if (type->narrow)
    return FIELD_NATURAL;
  return type->step == 100 || chance(world, 30) ? FIELD_WHOLE : FIELD_CENTS;
}

static const WorldType *random_type(World *world, const WorldProjection *projection) {
  if (world->kind == WORLD_ANYTHING)
    return &types[world_random(world, TYPE_COUNT)];
  if (projection->deltas)
    return &types[chance(world, 50) ? BIGINT : DECIMAL];
  return &types[BIGINT + world_random(world, DOUBLE + 1 - BIGINT)];
}

static void make_keys(World *world, WorldProjection *projection) {
  projection->key_count = world->kind == WORLD_ANYTHING ? 1 + world_random(world, 2) : 1;
  projection->keys[0] = (WorldColumn){.type = &types[LONG_TEXT], .field = FIELD_AGGREGATE_ID};
  projection->keys[1] = (WorldColumn){.type = &types[SHORT_TEXT], .field = FIELD_KEY_TEXT};
  if (world->shared_rows && chance(world, 70))
    projection->keys[0] = (WorldColumn){.type = &types[INT], .field = FIELD_KEY_NUMBER};
}

static void make_columns(World *world, WorldProjection *projection) {
  projection->column_count = 1 + world_random(world, WORLD_COLUMNS);
  for (unsigned i = 0; i < projection->column_count; i++) {
    const WorldType *type = random_type(world, projection);
    projection->columns[i] = (WorldColumn){
        .type = type, .field = random_field(world, type), .nullable = chance(world, 50)};
  }
}

static Operation random_operation(World *world, const WorldProjection *projection) {
  static const Operation any[] = {OP_UPSERT,   OP_UPSERT,   OP_UPSERT, OP_UPDATE, OP_UPDATE,
                                  OP_ADD,      OP_ADD,      OP_ADD,    OP_ADD,    OP_SUBTRACT,
                                  OP_SUBTRACT, OP_SUBTRACT, OP_DELETE, OP_IGNORE};
  if (world->kind == WORLD_ANYTHING && chance(world, 10))
    return OP_SQL;
  if (world->kind == WORLD_ANYTHING)
    return any[world_random(world, COUNT_OF(any))];
  if (projection->deltas)
    return chance(world, 50) ? OP_ADD : OP_SUBTRACT;
  return chance(world, 75) ? OP_UPSERT : OP_DELETE;
}

/* Whether the rule may change the column: deltas need numbers, and those of a narrow column all
 * increase it. */
static bool rule_can_take(const WorldRule *rule, const WorldColumn *column) {
  if (rule->operation == OP_UPDATE)
    return true;
  return column->type->family != FAMILY_TEXT &&
         (rule->operation == OP_ADD || !column->type->narrow);
}

/* The first event type creates rows in every table, so that there is something to change. */
static void make_rule(World *world, WorldProjection *projection, WorldRule *rule) {
  bool creates = world->kind == WORLD_ANYTHING && rule == projection->rules;
  *rule = (WorldRule){.present = true,
                      .operation = creates ? OP_UPSERT : random_operation(world, projection)};
  rule->own_row = rule->operation == OP_SQL && (!world->shared_rows || chance(world, 60));
  if (rule->operation != OP_UPDATE && rule->operation != OP_ADD && rule->operation != OP_SUBTRACT)
    return;
  for (unsigned i = 0; i < projection->column_count; i++) {
    const WorldColumn *column = &projection->columns[i];
    if (!rule_can_take(rule, column) || chance(world, 40))
      continue;
    bool one_way = rule->operation == OP_ADD && column->type->narrow;
    rule->columns[rule->count] = i;
    rule->fields[rule->count++] = one_way ? FIELD_NATURAL : random_field(world, column->type);
  }
  if (rule->count == 0)
    rule->operation = world->kind == WORLD_ANYTHING ? OP_UPSERT : OP_IGNORE;
}

static void make_projection(World *world, unsigned index) {
  WorldProjection *projection = &world->projections[index];
  projection->aggregate_type = world_random(world, 2);
  projection->deltas =
      world->kind == WORLD_DELTAS || (world->kind == WORLD_MIXED && chance(world, 50));
  make_keys(world, projection);
  make_columns(world, projection);
  for (unsigned i = 0; i < WORLD_EVENT_TYPES; i++)
    if (world->kind != WORLD_ANYTHING || chance(world, 85))
      make_rule(world, projection, &projection->rules[i]);
}

/* --- mappings as JSON ------------------------------------------------------------------------ */

static void append_column(GString *json, const char *name, unsigned index,
                          const WorldColumn *column) {
  g_string_append_printf(json, "%s'%s%u': {'from': '%s', 'type': '%s'%s}", index ? ", " : "", name,
                         index, field_names[column->field], column->type->text,
                         column->nullable ? ", 'null': true" : "");
}

static void append_statement(GString *json, unsigned table, const WorldProjection *projection,
                             const WorldRule *rule) {
  if (!rule->own_row) {
    g_string_append_printf(json, ", 'statement': 'DELETE FROM t%u'", table);
    return;
  }
  g_string_append_printf(json, ", 'statement': 'UPDATE t%u SET c0 = - c0", table);
  for (unsigned i = 0; i < projection->key_count; i++)
    g_string_append_printf(json, " %s k%u = :%s", i ? "AND" : "WHERE", i,
                           field_names[projection->keys[i].field]);
  g_string_append(json, "'");
}

static void append_rule(GString *json, unsigned event_type, unsigned table,
                        const WorldProjection *projection) {
  const WorldRule *rule = &projection->rules[event_type];
  g_string_append_printf(json, "'E%u': {'op': '%s'", event_type, operation_names[rule->operation]);
  if (rule->operation == OP_SQL)
    append_statement(json, table, projection, rule);
  for (unsigned i = 0; i < rule->count; i++)
    g_string_append_printf(json, "%s'c%u': '%s'", i ? ", " : ", 'columns': {", rule->columns[i],
                           field_names[rule->fields[i]]);
  g_string_append(json, rule->count ? "}}" : "}");
}

static void append_projection(GString *json, unsigned index, const WorldProjection *projection) {
  g_string_append_printf(json, "%s{'aggregate_type': '%s', 'table': 't%u', 'key': {",
                         index ? ", " : "", projection->aggregate_type ? "b" : "a", index);
  for (unsigned i = 0; i < projection->key_count; i++)
    append_column(json, "k", i, &projection->keys[i]);
  g_string_append(json, "}, 'columns': {");
  for (unsigned i = 0; i < projection->column_count; i++)
    append_column(json, "c", i, &projection->columns[i]);
  g_string_append(json, "}, 'events': {'Other': {'op': 'ignore'}");
  for (unsigned i = 0; i < WORLD_EVENT_TYPES; i++)
    if (projection->rules[i].present) {
      g_string_append(json, ", ");
      append_rule(json, i, index, projection);
    }
  g_string_append(json, "}}");
}

static void make_mapping(World *world) {
  g_autoptr(GString) json = g_string_new(NULL);
  g_string_printf(json, "{'unknown_events': '%s', 'projections': [",
                  world->ignores_unknown ? "ignore" : "fail");
  for (unsigned i = 0; i < world->projection_count; i++)
    append_projection(json, i, &world->projections[i]);
  g_string_append(json, "]}");
  Failure failure = {0};
  world->mapping = mapping_from(json->str, &failure);
  if (!world->mapping)
    fail_msg("the world's own mapping is wrong: %s: %s", failure.message, json->str);
}

/* --- values ---------------------------------------------------------------------------------- */

static void set_text(Model *model, const char *text) {
  model->kind = MODEL_TEXT;
  g_strlcpy(model->text, text, sizeof model->text);
  model->characters = (unsigned)g_utf8_strlen(text, -1);
}

static void random_text(World *world, Model *model) {
  static const char *const texts[] = {
      "",   "x",         "it's",     "\"; -",
      "\\", "e\xcc\x81", "too long", "\xf0\x9f\x92\xb6\xf0\x9f\x92\xb6\xf0\x9f\x92\xb6"};
  set_text(model, texts[world_random(world, world->hostile ? 8 : 6)]);
}

static void random_encoding(World *world, Model *model) {
  model->kind = MODEL_NUMBER;
  if (model->cents % 100 != 0)
    model->encoding = world->writes_decimals && chance(world, 70) ? AS_DECIMAL : AS_DOUBLE;
  else
    model->encoding = world_random(world, world->writes_decimals ? 4 : 3);
  if (model->encoding == AS_INT32 && llabs(model->cents) > INT64_C(200000000000))
    model->encoding = AS_INT64;
}

static int64_t random_cents(World *world, Field field) {
  int64_t cents = 100 * (int64_t)world_random(world, chance(world, 90) ? 20 : 130);
  if (field == FIELD_CENTS)
    cents += world_random(world, 100);
  return field != FIELD_NATURAL && chance(world, 40) ? -cents : cents;
}

static void random_numeric_text(World *world, Model *model, Field field) {
  model->cents = random_cents(world, field);
  char text[32];
  g_snprintf(text, sizeof text, "%s%lld.%02lld", model->cents < 0 ? "-" : "",
             llabs(model->cents) / 100, llabs(model->cents) % 100);
  set_text(model, text);
  model->numeric_text = true;
}

static void hostile_value(World *world, Model *model, Field field) {
  switch (world_random(world, 7)) {
  case 0: model->kind = MODEL_NULL; return;
  case 1: model->kind = MODEL_MISSING; return;
  case 2: model->kind = MODEL_FLAG; return;
  case 3: random_text(world, model); return;
  case 4: random_numeric_text(world, model, field); return;
  case 5: model->cents = INT64_C(400000000000); break; /* 4e9: above int */
  default: model->cents = 10 * (int64_t)world_random(world, 100); break;
  }
  random_encoding(world, model);
}

static void random_value(World *world, Model *model, Field field) {
  if (chance(world, world->hostile)) {
    hostile_value(world, model, field);
  } else if (field == FIELD_TEXT) {
    random_text(world, model);
  } else {
    model->cents = random_cents(world, field);
    random_encoding(world, model);
  }
}

/* Values that fit every column of the quiet worlds. */
static void fitting_value(World *world, Model *model) {
  model->cents = random_cents(world, FIELD_WHOLE);
  random_encoding(world, model);
  if (world->kind == WORLD_MIXED)
    model->encoding = AS_INT64;
}

static void make_fields(World *world, WorldEvent *event) {
  static const char *const key_texts[] = {"x", "x", "x", "y", "X"};
  for (Field i = FIELD_WHOLE; i < FIELD_COUNT; i++)
    if (world->kind == WORLD_ANYTHING)
      random_value(world, &event->fields[i], i);
    else
      fitting_value(world, &event->fields[i]);
  bool good = !chance(world, world->hostile / 4);
  if (good || chance(world, 50))
    set_text(&event->fields[FIELD_KEY_TEXT], key_texts[world_random(world, COUNT_OF(key_texts))]);
  event->fields[FIELD_KEY_NUMBER] = (Model){.kind = good ? MODEL_NUMBER : MODEL_FLAG,
                                            .encoding = world_random(world, 4),
                                            .cents = 100 * (int64_t)world_random(world, 3)};
}

/* --- events ---------------------------------------------------------------------------------- */

static void make_event(World *world, unsigned index) {
  WorldEvent *event = &world->events[index];
  event->aggregate = world_random(world, WORLD_AGGREGATES);
  event->event_type = chance(world, 25) ? 0 : world_random(world, WORLD_EVENT_TYPES);
  bool first = event->event_type == 0 && chance(world, 50);
  event->time = first ? -5 : (int64_t)world_random(world, 30) - 5;
  event->id_rank = world_random(world, 3);
  for (unsigned i = 0; i < sizeof event->id; i++)
    event->id[i] = (uint8_t)('0' + world_random(world, 10));
  event->id[0] = (uint8_t)(index % 7 + '0');
  event->id[1] = (uint8_t)(index + '0'); /* no two are the same */
  make_fields(world, event);
}

static int compare_events(const WorldEvent *a, const WorldEvent *b) {
  if (a->time != b->time)
    return a->time < b->time ? -1 : 1;
  if (a->version != b->version)
    return a->version < b->version ? -1 : 1;
  if (a->id_rank != b->id_rank)
    return a->id_rank < b->id_rank ? -1 : 1;
  return memcmp(a->id, b->id, a->id_rank == 2 ? 12 : 16);
}

void world_order(const World *world, unsigned order[static WORLD_EVENTS]) {
  for (unsigned i = 0; i < world->event_count; i++) {
    unsigned at = i;
    for (; at > 0 && compare_events(&world->events[i], &world->events[order[at - 1]]) < 0; at--)
      order[at] = order[at - 1];
    order[at] = i;
  }
}

/* Versions rise with the order; a world has none, all, gaps, or any number anywhere. */
static void make_versions(World *world) {
  unsigned order[WORLD_EVENTS], habit = world_random(world, 4);
  int64_t next[WORLD_AGGREGATES] = {0};
  world_order(world, order);
  for (unsigned i = 0; i < world->event_count && habit > 0; i++) {
    WorldEvent *event = &world->events[order[i]];
    next[event->aggregate] += 1 + (habit >= 2 && chance(world, 15));
    event->version = next[event->aggregate];
    if (habit == 3 && chance(world, 30))
      event->version = world_random(world, 12);
  }
}

static void append_number(bson_t *document, const char *name, const Model *model) {
  bson_decimal128_t decimal;
  char text[32];
  switch (model->encoding) {
  case AS_INT32: BSON_APPEND_INT32(document, name, (int32_t)(model->cents / 100)); return;
  case AS_INT64: BSON_APPEND_INT64(document, name, model->cents / 100); return;
  case AS_DOUBLE: BSON_APPEND_DOUBLE(document, name, (double)model->cents / 100); return;
  case AS_DECIMAL:
    g_snprintf(text, sizeof text, "%lldE-2", (long long)model->cents);
    bson_decimal128_from_string(text, &decimal);
    BSON_APPEND_DECIMAL128(document, name, &decimal);
    return;
  }
}

static void append_model(bson_t *document, const char *name, const Model *model) {
  switch (model->kind) {
  case MODEL_MISSING: return;
  case MODEL_NULL: BSON_APPEND_NULL(document, name); return;
  case MODEL_FLAG: BSON_APPEND_BOOL(document, name, true); return;
  case MODEL_TEXT: BSON_APPEND_UTF8(document, name, model->text); return;
  case MODEL_NUMBER: append_number(document, name, model); return;
  }
}

static void append_event_id(bson_t *document, const WorldEvent *event) {
  bson_oid_t oid;
  if (event->id_rank == 0) {
    bson_append_utf8(document, "_id", -1, (const char *)event->id, 16);
  } else if (event->id_rank == 1) {
    BSON_APPEND_BINARY(document, "_id", BSON_SUBTYPE_UUID, event->id, 16);
  } else {
    bson_oid_init_from_data(&oid, event->id);
    BSON_APPEND_OID(document, "_id", &oid);
  }
}

static void encode_event(WorldEvent *event) {
  g_autoptr(bson_t) document = bson_new();
  bson_t payload;
  char name[8];
  g_snprintf(name, sizeof name, "E%u", event->event_type);
  append_event_id(document, event);
  BSON_APPEND_UTF8(document, "aggregate_type", world_aggregate_type(event->aggregate) ? "b" : "a");
  append_aggregate_id(document, event->aggregate);
  BSON_APPEND_UTF8(document, "event_type", name);
  BSON_APPEND_DATE_TIME(document, "occurred_at", event->time);
  if (event->version)
    BSON_APPEND_INT64(document, "version", event->version);
  BSON_APPEND_DOCUMENT_BEGIN(document, "payload", &payload);
  for (unsigned i = 0; i < FIELD_COUNT; i++)
    append_model(&payload, field_names[i], &event->fields[i]);
  bson_append_document_end(document, &payload);
  event->event = event_decode(document);
  if (event->event->malformed)
    fail_msg("the world's own event is wrong: %s", event->event->malformed->message);
}

World *world_new(uint64_t seed, WorldKind kind) {
  World *world = g_new0(World, 1);
  world->random = seed * 4 + kind;
  world->kind = kind;
  world->shared_rows = kind == WORLD_ANYTHING && chance(world, 50);
  world->writes_decimals = chance(world, 50);
  world->hostile = chance(world, 40) ? 0 : 1 + world_random(world, 12);
  world->ignores_unknown = kind != WORLD_ANYTHING || chance(world, 80);
  world->projection_count = 1 + world_random(world, WORLD_PROJECTIONS);
  for (unsigned i = 0; i < world->projection_count; i++)
    make_projection(world, i);
  make_mapping(world);
  world->event_count = 1 + world_random(world, WORLD_EVENTS);
  for (unsigned i = 0; i < world->event_count; i++)
    make_event(world, i);
  make_versions(world);
  for (unsigned i = 0; i < world->event_count; i++)
    encode_event(&world->events[i]);
  return world;
}

void world_free(World *world) {
  if (!world)
    return;
  for (unsigned i = 0; i < world->event_count; i++)
    event_free(world->events[i].event);
  mapping_free(world->mapping);
  g_free(world);
}
