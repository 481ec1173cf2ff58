/* replay.h - what the files of `replay` share: replay.c is the command, replay_rounds.c decides
 * which events are due, replay_apply.c applies them. docs/adr/0015-replay.md explains the
 * algorithm. */
#pragma once

#include "projector/app/shared/config.h"
#include "projector/domain/fold.h"
#include "projector/infra/mongo/archive.h"
#include "projector/infra/mysql/ledger.h"
#include "projector/infra/mysql/shadow.h"

/* Rows that a swap would lose. */
typedef struct LostRows {
  int64_t count;      /* at most 1000 */
  int64_t started_us; /* when the counting began (clock.h) */
  bool more;          /* there may be more: the counting has ended early */
  GString *text;      /* "3 of account (the first: account_id = a7)"; empty: none */
} LostRows;

typedef struct Replay {
  const Config *config;
  const Projection *projection; /* as the file has it */
  Mapping *mapping;             /* of that projection alone, onto the table to fill */
  const Projection *target;     /* its projection */
  MongoStore *store;
  Outbox *outbox;
  Archive *archive;
  Session *session;
  Shadow shadow;       /* without names: one aggregate */
  Session *renamer;    /* keeps the table reserved (shadow.h); NULL: one aggregate */
  Session *gate;       /* while it is closed, the owner waits (shadow.h); NULL: it is open */
  Ledger live, scope;  /* of the projector, and of this replay */
  unsigned json_slack; /* of that server (real.h) */
  EventRange range;
  Arena *arena;          /* of ids that are left out */
  GHashTable *leave_out; /* of Id */
  int64_t replayed;      /* events applied to the target */
  int64_t skipped;       /* skipped events of the archive, which are not applied */
  int64_t unreadable;    /* events of the archive that an earlier build could read */
  int64_t forgotten;     /* events that MySQL has lost and that may count twice */
  char *first_forgotten; /* one of them; NULL: none */
  LostRows lost;         /* of the live table, when it was last compared with the new one */
  bool keep_row;         /* of one aggregate: overwritten, so other columns stay as they are */
} Replay;

/* --- replay_awake.c --- */

/* To be called before each piece of work, which is small: no session of the replay is silent for
 * longer, and one that was lost is replaced, except the gate's. */
bool replay_keep_awake(Replay *replay, Failure *ret_failure);

/* --- replay_apply.c --- */

/* Whether the event is one to replay: in range, neither malformed nor skipped, not left out. */
bool replay_takes(const Replay *replay, const Event *event);
/* Applies events that the scope's ledger does not contain to the target, in transactions of at most
 * a batch. They are sorted, and replay_takes holds for each. */
bool replay_apply(Replay *replay, Event *const *events, size_t count, Failure *ret_failure);
/* Rebuilds the row of one aggregate in the live table, `target`. `*ret_events` is the number of
 * events applied. */
bool replay_aggregate(Replay *replay, const Aggregate *aggregate, int64_t *ret_events,
                      Failure *ret_failure);

/* --- replay_check.c --- */

/* Reads back the rows that the fold has just written to the target: FAILURE_DATA when one shows
 * something else, or cannot be found by its key. Rows before an sql statement are passed over. */
bool replay_look_again(const Replay *replay, const Fold *fold, Failure *ret_failure);

/* --- replay_rounds.c --- */

/* Replays what the projector has applied, until little is left. `ret_until` is up to when. */
bool replay_catch_up(Replay *replay, char ret_until[static LEDGER_TIME_SIZE], Failure *ret_failure);
/* Replays the rest, while the owner is locked out. */
bool replay_finish(Replay *replay, const char *since, Failure *ret_failure);

/* --- lost_rows.c --- */

/* Fills `lost`: rows of the live table whose aggregates were applied, and of which no event was
 * replayed, unless an operator has seen to that. While the gate is closed; so at most 1000 are
 * counted, and once there is one, for 4 s at most. */
bool replay_find_lost(Replay *replay, Failure *ret_failure);
