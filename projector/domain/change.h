/* change.h - what one event does to the rows: the `map` step. */
#pragma once

#include "projector/domain/children.h"

/* What is there of the row of a late delta, once it was looked for. */
typedef enum RowState { ROW_NOT_LOOKED_FOR, ROW_THERE, ROW_MARKED, ROW_MISSING } RowState;

/* One event's effect on one projection. Values live as long as the event and the arena. */
typedef struct Change {
  const Rule *rule;
  Value *key;       /* key_count values; NULL for ignore, and for sql that may touch any row */
  Value *values;    /* upsert: the columns after the key; update, add, subtract, soft delete: as
                       assignments (subtract already negated); sql: the parameters */
  bool deltas_only; /* of a late event: the columns that its rule also sets are older than the
                     * row's */
  RowState row;
  bool keep_mark; /* of an entity: columns that a soft delete has set in a marked row stay, as long
                     as the entity is marked too */
  bool gone;      /* of an entity that no longer exists */
  const ChildRows **children; /* upsert, update: by child table; NULL: not touched */
} Change;

typedef struct ChangeList {
  unsigned count; /* 0: the event is ignored */
  Change *changes;
} ChangeList;

/* Maps one event. False when it is malformed, unknown or a value does not fit. */
bool change_list_map(const Mapping *mapping, const Event *event, Arena *arena, ChangeList *ret_list,
                     Failure *ret_failure);

/* Whether it would count twice if it were applied twice: it adds, or a statement of its own may. */
bool change_list_counts(const Mapping *mapping, const Event *event);

/* The upsert that takes the row from the entity; `entity` is an event whose payload is the
 * entity. */
bool change_from_entity(const Projection *projection, const Event *entity, Arena *arena,
                        Change *ret_change, Failure *ret_failure);
/* The delete of the row of an aggregate whose entity no longer exists; with soft deletes it marks
 * the row, unless it is already marked, and leaves the columns whose values only an event has. An
 * ignore when the mark is one of these. `event` has no payload. False when the key needs more than
 * the event document's own fields. */
bool change_for_missing_entity(const Projection *projection, const Event *event, Arena *arena,
                               Change *ret_change, Failure *ret_failure);
/* The same for the row with that key, whatever the aggregate's is. */
bool change_for_row_of_missing_entity(const Projection *projection, const Value *key,
                                      const Event *event, Arena *arena, Change *ret_change,
                                      Failure *ret_failure);
/* Whether an upsert marks its row as deleted. */
bool change_is_marked(const Change *change);
/* The soft delete of a row that comes from an entity: what every event sets is as the entity has
 * it, which is newer. */
Change *change_to_mark(const Change *row, const Change *change, Arena *arena);
/* Where the mark of a deleted row comes from if only an event has it, whichever; else NULL. */
const Source *change_unknown_mark(const Projection *projection);
/* The removal of the aggregate's row, before its events are folded into it again. */
bool change_for_removal(const Projection *projection, const Event *event, Arena *arena,
                        Change *ret_change, Failure *ret_failure);
/* The removal of the row with that key. */
Change *change_for_row(const Projection *projection, const Value *key, Arena *arena);

/* Whether a late delta's row is known to be removed: it is marked as deleted, or missing where
 * nobody else can make it, or where `refreshable`: then its entity decides. Any other row that is
 * missing may be still to come from another aggregate. */
bool change_has_lost_row(const Change *change, bool refreshable);
