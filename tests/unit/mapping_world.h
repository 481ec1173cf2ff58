/* mapping_world.h - random mappings of orders, their events, and a plain fold of them: nothing here
 * looks at what the code under test made of them. */
#pragma once

#include "tests/unit/support.h"

#include <limits.h>

enum {
  ORDERS = 4,
  TOLD_MAX = 60,
  LINES_MAX = 6,
  NONE = INT_MIN, /* NULL */
};

/* Columns of `orders` and of `flow`. */
enum { TOTAL, NOTE, SOURCE, GONE, STAMP, CELLS };
enum { MOVES, SUM, FLOWS };

typedef enum Kind { PLACED, CHANGED, SET, RAISED, LOWERED, REMOVED, MARKED, KINDS } Kind;
typedef enum Home { WEB, SHOP, PHONE, NO_HOME } Home;
/* Where a value is in a payload: under its name, under its old name, nowhere, or null. */
typedef enum Place { NEW_NAME, OLD_NAME, NOWHERE, NULL_THERE } Place;
typedef enum Outcome { OUTCOME_WAITS, OUTCOME_APPLIED, OUTCOME_IGNORED, OUTCOME_FAILED } Outcome;

typedef struct Line {
  int no, qty, at, mark; /* of an event: NONE is missing */
} Line;

/* What the tables show of one order. */
typedef struct Shown {
  bool there, flow_there;
  int cells[CELLS], flow[FLOWS];
  unsigned line_count;
  Line lines[LINES_MAX];
} Shown;

typedef struct Told {
  unsigned order;
  Kind kind;
  Home home;
  int flag; /* 0, 1, or NONE: missing */
  int total, note, by, at;
  Place total_at, note_at, lines_at;
  int batch; /* the mark of lines without one; NONE: missing */
  unsigned line_count;
  Line lines[LINES_MAX];
  int64_t version; /* 0: none */
  bool written;
  Event *event; /* as the code under test sees it */
} Told;

/* What the mapping has. A condition is a number (mapping_world.c), or -1. */
typedef struct Features {
  bool always, total_default, note_default, lines_default, soft, new_lines, constant_delta;
  int projection_when, rule_when[KINDS], flow_when;
} Features;

typedef struct World {
  guint32 seed;
  GRand *random;
  bool any_arrival; /* events are good, and have versions */
  Features has;
  char *mapping_text;
  Mapping *mapping;
  unsigned told_count;
  Told told[TOLD_MAX]; /* in order */
  /* The writer's entities, as the events written so far leave them. */
  Shown entities[ORDERS];
  Home homes[ORDERS];
  int64_t newest[ORDERS]; /* version */
} World;

World *world_new(guint32 seed, bool any_arrival);
void world_free(World *world);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(World, world_free)
unsigned world_random(World *world, unsigned limit);

void world_clear(Shown shown[static ORDERS]);
/* The rows after all events, one by one in order, and what becomes of each. One that fails holds up
 * its order. */
void world_fold(const World *world, Shown shown[static ORDERS], Outcome outcomes[static TOLD_MAX]);
/* The writer writes the event, with its entity. */
void world_write(World *world, unsigned index);
/* The order's entity; NULL: none. */
bson_t *world_entity(const World *world, unsigned order);

const char *told_name(const Told *told);
void lines_sort(Shown *shown);
/* Free with g_free. */
char *shown_text(const Shown *shown);
