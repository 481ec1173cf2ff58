/* property_world.h - random mappings and events, in the property test's own terms: nothing here
 * reads what the code under test made of them. */
#pragma once

#include "tests/unit/support.h"

enum {
  WORLD_PROJECTIONS = 3,
  WORLD_COLUMNS = 4,
  WORLD_EVENT_TYPES = 8,
  WORLD_AGGREGATES = 5,
  WORLD_EVENTS = 48,
};

/* Numbers are counted in hundredths, so that plain integers can check the decimals. */
typedef struct WorldType {
  const char *text;
  enum { FAMILY_NUMBER, FAMILY_REAL, FAMILY_TEXT } family;
  int64_t low, high, step;
  unsigned characters; /* of a text */
  bool reads_text;     /* a number in a text will do */
  bool narrow;         /* sums overflow: its deltas all go one way (see fold.h) */
} WorldType;

/* The fields of a payload; the aggregate's id stands in for one. Now and then one holds something
 * else than its name says, or nothing. */
typedef enum Field {
  FIELD_KEY_NUMBER,
  FIELD_KEY_TEXT,
  FIELD_WHOLE,
  FIELD_NATURAL, /* whole and not negative */
  FIELD_CENTS,
  FIELD_TEXT,
  FIELD_COUNT,
  FIELD_AGGREGATE_ID = FIELD_COUNT,
} Field;

typedef struct Model {
  enum { MODEL_MISSING, MODEL_NULL, MODEL_FLAG, MODEL_TEXT, MODEL_NUMBER } kind;
  enum { AS_INT32, AS_INT64, AS_DOUBLE, AS_DECIMAL } encoding; /* of a number */
  int64_t cents; /* of a number, and of a text that is one */
  bool numeric_text;
  char text[32];
  unsigned characters;
} Model;

typedef struct WorldColumn {
  const WorldType *type;
  Field field;
  bool nullable;
} WorldColumn;

typedef struct WorldRule {
  bool present;
  Operation operation;
  bool own_row;   /* sql: turns the sign of the first column in the event's row; else: empties the
                     projection's table */
  unsigned count; /* of an update's or a delta's columns */
  unsigned columns[WORLD_COLUMNS];
  Field fields[WORLD_COLUMNS];
} WorldRule;

typedef struct WorldProjection {
  unsigned aggregate_type;
  bool deltas; /* all its rules add and subtract, and its rows are there from the start */
  unsigned key_count, column_count;
  WorldColumn keys[2], columns[WORLD_COLUMNS];
  WorldRule rules[WORLD_EVENT_TYPES];
} WorldProjection;

typedef struct WorldEvent {
  unsigned aggregate, event_type;
  int64_t time, version;
  unsigned id_rank; /* string, UUID, ObjectId */
  uint8_t id[16];
  Model fields[FIELD_COUNT];
  Event *event; /* as the code under test sees it */
} WorldEvent;

typedef enum WorldKind {
  WORLD_ANYTHING, /* all operations, values that fail */
  WORLD_DELTAS,   /* adds and subtracts that always fit, for rows that are there */
  WORLD_MIXED,    /* deltas like these in some tables, upserts and deletes in others */
} WorldKind;

typedef struct World {
  uint64_t random;
  WorldKind kind;
  bool shared_rows; /* aggregates may write the same row */
  bool ignores_unknown;
  bool writes_decimals; /* some numbers come as Decimal128 */
  unsigned hostile;     /* percent of values that are not what the field's name says */
  unsigned projection_count, event_count;
  WorldProjection projections[WORLD_PROJECTIONS];
  WorldEvent events[WORLD_EVENTS];
  Mapping *mapping;
} World;

World *world_new(uint64_t seed, WorldKind kind);
void world_free(World *world);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(World, world_free)

/* A number from 0 to below `limit`, from the world's own stream. */
unsigned world_random(World *world, unsigned limit);
/* The aggregate's type ("a" or "b") as a number, and its id as a text column holds it. */
unsigned world_aggregate_type(unsigned aggregate);
const char *world_aggregate_id(unsigned aggregate);
/* Indexes of the events by (time, version, id), as the contract orders them. */
void world_order(const World *world, unsigned order[static WORLD_EVENTS]);
