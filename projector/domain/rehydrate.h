/* rehydrate.h - whether an aggregate's events alone reproduce its entity.
 *
 * Pure: the events are folded with the mapping into one row, and the entity is mapped into the same
 * row, as reconcile does. */
#pragma once

#include "projector/domain/event.h"
#include "projector/domain/row_compare.h"

typedef enum Rehydration {
  REHYDRATED,           /* the events reproduce the entity */
  REHYDRATED_OTHERWISE, /* a column differs, or one of the two has no row */
  REHYDRATED_BROKEN,    /* an event cannot be applied after those before it */
  REHYDRATED_UNKNOWN,   /* an sql statement is involved: only a server could run it */
  REHYDRATEINGS,
} Rehydration;

const char *rehydration_name(Rehydration outcome);

typedef struct Rehydrated {
  Rehydration outcome;
  const Column *column; /* REHYDRATED_OTHERWISE: the first that differs; NULL: the row as a whole */
  const Projection *child; /* REHYDRATED_OTHERWISE: the child table that differs, and in how many */
  unsigned child_rows;     /* rows; or NULL */
  Value expected, found;   /* of the column: by the entity, by the events */
  bool row, entity;        /* whether the events give a row, and whether there is an entity */
  bool absent;             /* the entity does not match the projection's `when`: it has no row */
  const Event *culprit;    /* REHYDRATED_BROKEN */
  int64_t skipped;         /* events that are not folded, because an operator skipped them */
  Failure failure;         /* REHYDRATED_BROKEN; or the entity cannot be mapped */
  int64_t missing, missing_count; /* first version without an event, and how many; 0: none */
} Rehydrated;

/* `events` are all of the aggregate's, in order, at least one unless there is an entity; `entity`
 * is an event whose payload is the entity, or NULL. Values live as long as these and the arena. */
Rehydrated rehydrate(const Mapping *mapping, const Layout *layout, Event *const *events,
                     size_t count, const Event *entity, Arena *arena);
