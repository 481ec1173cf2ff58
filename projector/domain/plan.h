/* plan.h - what to do with a batch: a verdict for each event, and the folded changes.
 *
 * The decision is pure: it takes the mapped events in order and the positions of their aggregates,
 * and determines what one MySQL transaction has to do. The engine carries it out. */
#pragma once

#include "projector/domain/fold.h"
#include "projector/domain/order.h"

typedef enum Verdict {
  VERDICT_NONE,       /* not decided yet */
  VERDICT_APPLIED,    /* in the fold; ledger outcome `applied` */
  VERDICT_SUPERSEDED, /* late, the row shows a newer state; ledger outcome `superseded` */
  VERDICT_IGNORED,    /* changes nothing; ledger outcome `ignored` */
  VERDICT_SKIPPED,    /* an operator decided to continue without it; ledger outcome `skipped` */
  VERDICT_KNOWN,      /* applied before: acknowledge without writing */
  VERDICT_FAILED,     /* `failure` says why; later events of its aggregate wait */
  VERDICT_REFRESH,    /* late: take the row from the entity; later ones wait for that */
  VERDICT_GAP,        /* wait for a missing version; later events wait behind it */
  VERDICT_WAIT,       /* behind one of the three above in the same batch */
} Verdict;

/* The outcome's name in the ledger; NULL when the verdict is not recorded there. */
const char *verdict_outcome(Verdict verdict);

typedef struct Item {
  Event *event;
  void *carrier;      /* of the event, as its caller knows it; not looked at here */
  bool gap_waited;    /* missing versions before it were waited for in vain */
  bool no_entity;     /* it was looked for, to take the row from, and is not there */
  ChangeList changes; /* as mapped */
  ChangeList effect;  /* those of them in the fold; of a late event only the deltas */
  Verdict verdict;
  bool late;
  bool was_missing;            /* its version may have been noted as missing before */
  bool else_superseded;        /* VERDICT_REFRESH: superseded if there is nothing to refresh from */
  bool unhealed;               /* VERDICT_SUPERSEDED, and there is no entity to take the row from */
  bool failure_is_provisional; /* it came of the others of this batch: without them it may not */
  bool reuses_version;         /* order.h; a warning, whatever the verdict */
  int64_t gap_first;           /* VERDICT_GAP: the first missing version */
  Failure *failure;            /* VERDICT_FAILED, or it could not be mapped; in the arena */
} Item;

/* The aggregates of a batch and their positions. */
typedef struct AggregateState {
  const Aggregate *aggregate; /* of one of the events */
  Position position;
  bool moved;   /* the plan moved the position: write it */
  bool blocked; /* a verdict of this plan holds the later events */
} AggregateState;

typedef struct AggregateSet AggregateSet;

AggregateSet *aggregate_set_new(Arena *arena);
/* The order of all events counts, not only that of each aggregate's. */
void aggregate_set_keep_order(AggregateSet *set);
void aggregate_set_free(AggregateSet *set);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(AggregateSet, aggregate_set_free)
/* The state of an aggregate, made when it is new. */
AggregateState *aggregate_set_open(AggregateSet *set, const Aggregate *aggregate);
AggregateState *aggregate_set_find(AggregateSet *set, const Aggregate *aggregate);
unsigned aggregate_set_count(const AggregateSet *set);
AggregateState *aggregate_set_get(const AggregateSet *set, unsigned index);
/* Sorts by aggregate_compare: a common order in which all transactions take their locks. */
void aggregate_set_sort(AggregateSet *set);

/* Maps the events of items without a verdict; what cannot be mapped gets VERDICT_FAILED. */
void plan_map(const Mapping *mapping, Item *items, size_t count, Arena *arena);

/* Decides every item that is not FAILED or KNOWN already; `items` are sorted by order key. Moves
 * the positions in the set. The result is never NULL. */
Fold *plan_decide(const Mapping *mapping, Item *items, size_t count, AggregateSet *aggregates,
                  Arena *arena);

/* Sorts items by order key. */
void plan_sort(Item *items, size_t count);
