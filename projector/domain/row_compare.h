/* row_compare.h - whether a row matches its entity, and what a mismatch means.
 *
 * Pure: the entity is mapped with the conversions that `run` uses, the row comes as values of the
 * same kinds, and versions and the outbox decide between different and merely lagging. */
#pragma once

#include "projector/domain/children.h"
#include "projector/domain/order.h"
#include "projector/domain/value.h"

typedef enum DifferenceKind {
  DIFFERENCE_NONE,
  DIFFERENCE_MISSING_ROW,
  DIFFERENCE_EXTRA_ROW,
  DIFFERENCE_COLUMNS,
  DIFFERENCE_UNMAPPABLE,      /* the entity does not fit the mapping */
  DIFFERENCE_POSITION_AHEAD,  /* of the entity's version */
  DIFFERENCE_POSITION_BEHIND, /* and no event is left that could move it */
  DIFFERENCE_APPLIED_EVENT,   /* in the outbox although the ledger has it */
  DIFFERENCE_DEAD_EVENT,
  DIFFERENCE_KINDS,
} DifferenceKind;

/* "missing row", "different columns" … */
const char *difference_name(DifferenceKind kind);

/* The columns of a projection that are read for comparing: the key, then those to compare. */
typedef struct Layout {
  const Projection *projection;
  unsigned key_count, count;
  const Column **columns;
  const struct Layout *children; /* of the child tables */
  bool by_parent; /* of a child table: by its parent's key alone, which several rows have */
  int mark;       /* the column that marks a deleted row (mapping.h), compared or not; -1: none */
  bool *of_mark;  /* by column: a soft delete sets it */
  unsigned json_slack; /* of the server that the rows come from (real.h); 0: exact */
} Layout;

/* Returns false when an entity alone does not determine the key, because a part of it comes from
 * the event. */
bool layout_init(const Projection *projection, Arena *arena, Layout *ret_layout,
                 Failure *ret_failure);

/* The expected row: `count` values, of which those not in `known` cannot be derived from the
 * entity, because only its events have them. `entity` is an event whose payload is the entity. */
typedef struct Expected {
  Value *values;
  bool *known;
  const ChildRows **children; /* by child table; NULL: there are none */
  bool absent; /* the entity does not match the projection's `when`: there should be no row; only
                  the key's values are filled in */
} Expected;

bool layout_map(const Layout *layout, const Event *entity, Arena *arena, Expected *ret_expected,
                Failure *ret_failure);
/* The key alone. */
bool layout_map_key(const Layout *layout, const Event *entity, Arena *arena, Value *ret_key,
                    Failure *ret_failure);

/* The fields of an entity that make up its key, as a MongoDB projection; NULL: all fields, when it
 * cannot be expressed. Free with bson_destroy. */
bson_t *layout_key_fields(const Layout *layout);

/* Whether the values are equal; JSON is compared by content, and its doubles to within `json_slack`
 * units in the last place. */
bool column_equal(const Column *column, const Value *expected, const Value *found,
                  unsigned json_slack);
/* Whether the row differs from the known value in that column. Columns set by a soft delete belong
 * to the event: when the row and the entity are both marked, they are not compared. */
bool layout_differs(const Layout *layout, const Expected *expected, const Value *row,
                    unsigned index);
/* Whether the row is marked as deleted. */
bool layout_is_marked(const Layout *layout, const Value *row);
/* Whether the row matches all known values; false for a row that should be absent. */
bool layout_equal(const Layout *layout, const Expected *expected, const Value *row);

typedef struct Sight {
  bool entity, row, equal; /* equal: both are there and agree */
  bool absent;             /* the entity shows no row (Expected) */
  bool strays;             /* there are rows of child tables although there is no row */
  int64_t version;         /* of the entity; 0: none */
  Position position;
  bool pending; /* the outbox holds an event of the aggregate that was not applied */
} Sight;

typedef struct Decision {
  DifferenceKind row, position; /* DIFFERENCE_NONE: nothing wrong there */
  bool lagging;
} Decision;

/* The result of checking an aggregate once. */
Decision difference_decide(const Sight *sight);

/* The possible ids of an entity whose key column, filled from $aggregate_id, has this value; at
 * most AGGREGATE_IDS. 0: they cannot be derived. */
enum { AGGREGATE_IDS = IDS_OF_TEXT };
unsigned aggregate_ids_of(const Layout *layout, const Value *key, Arena *arena,
                          Id ret_ids[static AGGREGATE_IDS]);
