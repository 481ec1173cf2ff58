/* shadow.h - a table that is built beside a live one, and the swap of the two.
 *
 * For a table t: t__new is built, t__copied records the version at which each aggregate was copied,
 * t__old is the previous t. The swap is atomic and includes everything written before it
 * (docs/adr/0014-rebuild.md). */
#pragma once

#include "projector/domain/arena.h"
#include "projector/domain/event.h"
#include "projector/domain/mapping.h"
#include "projector/infra/mysql/positions.h"
#include "projector/infra/mysql/session.h"

enum { SHADOW_CHILDREN = 32 }; /* child tables of a projection, at most */

typedef struct ShadowChild {
  const char *table;
  char fresh[80], old[80];
} ShadowChild;

typedef struct Shadow {
  const char *command; /* that builds it: "rebuild --shadow" or "replay" */
  const char *table;
  char fresh[80], copied[80], old[80]; /* their names */
  unsigned child_count;                /* child tables are built, and swapped, with their parent */
  ShadowChild children[SHADOW_CHILDREN];
} Shadow;

/* The names. False when they are longer than MySQL allows. */
bool shadow_name(const Projection *projection, Shadow *ret_shadow, Failure *ret_failure);
/* For a replay, which has a ledger of its own: t__replay instead of t__new, and no t__copied. */
bool shadow_name_replay(const Projection *projection, Shadow *ret_shadow, Failure *ret_failure);
/* After the swap, drops the previous tables. */
bool shadow_drop_old(Session *session, const Shadow *shadow, Failure *ret_failure);

/* The session that will send the RENAME. It reserves the table until its end: one command builds
 * beside a table at a time. NULL when another does (class CONFIG). */
Session *shadow_open_renamer(const MysqlSettings *settings, const Shadow *shadow,
                             Failure *ret_failure);
/* To be called now and then, and before the swap: a connection that is silent may be dropped by
 * something on the way, which need not tell the server. Then `*renamer` is replaced, and the former
 * session ended; it becomes NULL when this fails. */
bool shadow_keep_reserved(Session **renamer, const MysqlSettings *settings, const Shadow *shadow,
                          Failure *ret_failure);
/* Whether the table can be swapped: no foreign keys, no triggers, and no t__old unless it may be
 * dropped. Removes the leftovers of an interrupted swap. */
bool shadow_check(Session *session, const Shadow *shadow, bool drop_old, Failure *ret_failure);
bool shadow_table_exists(Session *session, const char *name, bool *ret_exists,
                         Failure *ret_failure);
/* Creates empty tables, replacing existing ones. */
bool shadow_create(Session *session, const Shadow *shadow, Failure *ret_failure);
bool shadow_drop(Session *session, const Shadow *shadow, Failure *ret_failure);

/* --- what was copied --- */

typedef struct ShadowNote {
  Id id;
  int64_t version; /* of the entity; of the position where it is gone */
  bool gone;       /* there is no entity, or one whose mark is still to come: newer than every event
                      still to be applied */
} ShadowNote;

/* Notes what was copied, in the transaction that writes the rows. */
bool shadow_note(Session *session, const Shadow *shadow, const ShadowNote *notes, size_t count,
                 Failure *ret_failure);
/* The versions up to which the copies contain the events: SHADOW_GONE, all. */
#define SHADOW_NOT_COPIED INT64_C(-1)
#define SHADOW_GONE INT64_MAX
bool shadow_find_noted(Session *session, const Shadow *shadow, const Id *ids, size_t count,
                       int64_t *ret_versions, Failure *ret_failure);

/* Aggregates whose position is at another version than their copy, at most `limit` at a time. */
PositionWalk *shadow_walk_moved(const Shadow *shadow, const char *projector,
                                const char *aggregate_type, unsigned limit);

/* --- the swap --- */

/* Notes in t__copied that the swap is about to be made: a t__old that exists later comes from it.
 */
bool shadow_mark(Session *session, const Shadow *shadow, Failure *ret_failure);
/* Whether the tables were swapped, and t__new not merely dropped. In doubt they were not. */
bool shadow_was_swapped(Session *session, const Shadow *shadow, bool *ret_swapped,
                        Failure *ret_failure);

/* Locks the fence's table for all others, and t__old as a placeholder. While `gate` lives, no event
 * is applied. */
bool shadow_close_gate(Session *gate, const Shadow *shadow, bool drop_old, Failure *ret_failure);
/* Releases it without a swap; no RENAME may be pending. */
void shadow_open_gate(Session *gate, const Shadow *shadow);
/* t becomes t__old and t__new becomes t by one RENAME, which `renamer` sends and `watcher` sees
 * waiting before the gate opens. If the gate was lost, nothing is renamed. */
bool shadow_swap(Session *gate, Session *renamer, Session *watcher, const Shadow *shadow,
                 Failure *ret_failure);
