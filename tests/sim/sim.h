/* sim.h - the simulated world: everything outside the code under test, made from one seed.
 *
 * Every call of the code under test into a store ends here. It takes virtual time, may fail before
 * or after its effect, and lets the other fibers continue meanwhile. */
#pragma once

#include "projector/app/engine/metrics.h"
#include "projector/app/engine/stop.h"
#include "projector/app/shared/config.h"
#include "projector/infra/mongo/selection.h"
#include "projector/infra/mysql/session.h"
#include "tests/sim/fiber.h"

enum {
  EVENTS_MAX = 90,
  AGGREGATES = 5,
  ACCOUNTS = 3, /* of them; the others are meters */
  FEEDS = 2,
  OWNER_MAX = 128,
  SKEW_MOST_MS = 24000, /* between the two stores, but for a clock that was set wrong */
};

typedef enum Kind {
  OPENED,
  RENAMED,
  NOTED,
  DEPOSITED,
  WITHDRAWN,
  RESTATED,
  DOUBLED,
  CLOSED,
  SEEN,
  RESET,
  COUNTED,
  LABELLED,
  GONE,
  NAMELESS, /* no projection knows it */
} Kind;

/* What a statement with a poisoned name does. */
typedef enum Harm {
  HARM_REFUSED, /* the server refuses the value */
  HARM_BREAKS,  /* the server falls over it: the connection is lost */
  HARM_SLOW,    /* the client gives up waiting; the server continues for a while */
} Harm;

/* The rows of one aggregate: of an account in `account` and `turnover`, of a meter in `meter`. */
typedef struct State {
  bool present, totalled;
  int64_t balance, total;
  char name[24], note[24]; /* note "": NULL */
} State;

/* What the projector writes into an event's document. */
typedef struct Marks {
  bool present;
  EventStatus status;
  int attempts;
  char claimed_by[OWNER_MAX];
  int64_t claimed_at, next_attempt_at; /* ms of MongoDB's clock */
} Marks;

/* The event in one feed, and at its reader. */
typedef struct FeedCopy {
  bool present;
  bool lost;  /* the feed was dropped before it was read */
  bool known; /* to the reader's ledger */
  unsigned copied, applied;
} FeedCopy;

/* An event as its producer knows it, its document in the outbox, its entry in the ledger. */
typedef struct SimEvent {
  unsigned index, aggregate;
  Kind kind;
  char id[16];
  int64_t version, occurred_at;
  int64_t amount;
  char name[24];
  bool unmappable;
  Harm harm;
  int64_t poison_until; /* us; until then its name does harm to the statement that writes it */
  int64_t insert_at;
  int64_t inserted_at;

  bool present;
  EventStatus status;
  int attempts, excused; /* excused: attempts that were used up rightly */
  int uncounted; /* times it was marked as failed without paying; a new insert does not undo that:
                  * the projector remembers breaks by id */
  unsigned
      broke; /* times the connection broke at its ledger entry or its rows, when it was alone */
  /* Its claimer does not know that it has it, or could not give it back: an earlier event may hold
   * it up then. */
  bool unanswered;
  bool refused;         /* it could not leave when it was swept: it goes back, and to the acker */
  bool retried, shared; /* by several owners: then the attempts in memory may be another's */
  char claimed_by[OWNER_MAX], last_owner[OWNER_MAX];
  int64_t claimed_at, next_attempt_at; /* ms of MongoDB's clock */
  int64_t claimed_us,
      blocked_us; /* failed by its own fault, as the owner knows, or was told to try again; 0: no */
  FailureClass error;
  Marks agreed;      /* what a majority knows until the members agree on the document as it is */
  int64_t agreed_at; /* us */

  bool fed;           /* marked as being in every feed */
  int64_t removed_at; /* us */
  FeedCopy copies[FEEDS];
  bool archived;
  int64_t seq; /* its number in the archive; 0: none yet */

  bool ledgered, pruned;
  const char *outcome;
  int64_t ledgered_us, ledgered_at; /* ms of MySQL's clock */
  unsigned applications;
} SimEvent;

typedef struct SimPosition {
  bool known;
  int64_t occurred_at, version;
  char id[16];
  int64_t max_version, refreshed_version;
} SimPosition;

/* What the checker believes about an aggregate, from commits alone. */
typedef struct Belief {
  State state;
  SimPosition position;
  bool tainted;      /* a late or skipped event: the rows need not be the fold in order any more */
  int64_t mended_us; /* by a command */
} Belief;

typedef struct Entity {
  State state;
  int64_t version, last_event_at;
} Entity;

typedef struct Tx Tx;

/* Projections, by their number in the mapping. */
enum { ACCOUNT, TURNOVER, METER, TABLES };

typedef enum StoreKind { MONGO, MYSQL_SERVER, STORES } StoreKind;

/* One projector process. */
typedef struct Instance {
  unsigned number;
  bool killed;  /* nothing it does has an effect any more */
  bool frozen;  /* as by SIGSTOP */
  bool trapped; /* frozen as soon as it has claimed something */
  bool ended;
  int64_t epoch;             /* that it took last */
  int64_t cut_until[STORES]; /* us; its own way to the store is cut */
  int64_t deaf_until;        /* us; its heartbeat does not come through */
  Stop *process;
  Metrics *metrics;
} Instance;

/* Where a statement can fail. */
typedef enum Place {
  AT_CONNECT,
  AT_SETUP, /* of a session; and the look whether it is alive */
  AT_BEGIN,
  AT_FENCE,
  AT_POSITIONS,
  AT_LEDGER,
  AT_LOOK, /* into the ledger */
  AT_ROWS,
  AT_SQL,
  AT_WRITE_POSITIONS,
  AT_COMMIT,
  PLACES
} Place;

typedef enum Break { NO_BREAK, BREAK_BEFORE, BREAK_AFTER } Break;

/* What goes wrong with statements of one place, for a while. */
typedef struct PlaceFault {
  int64_t until; /* us */
  unsigned permille;
  int code;  /* that the server answers */
  Break how; /* or the connection breaks, before or after the effect */
} PlaceFault;

typedef struct Faults {
  unsigned before[STORES], after[STORES]; /* permille of the calls */
  unsigned partial;                       /* permille of the writes of several documents */
  int64_t away_until[STORES];             /* us */
  int64_t full_until, strange_until, busy_until;
  int64_t dropped_until;
  unsigned dropped; /* projection whose table is missing */
  int64_t locked_until;
  unsigned locked; /* projection whose table another keeps locked, */
  bool only_rows;  /* or all of its rows */
  int64_t history_until, stream_lags_until;
  int64_t restored_until; /* entities are as a backup had them, */
  int64_t restored_by;    /* so many versions ago */
  int64_t log_blocked_until;
  PlaceFault at[PLACES];
  unsigned size_limit;
} Faults;

typedef struct Counts {
  int64_t steps, commits, applied, superseded, ignored, skipped, late, refreshed, gaps, known;
  int64_t failed, dead, kills, freezes, rivals, stops, outages, ambiguous, fenced, swept, faults;
  int64_t histories, cuts, suspicions, probes, blamed, places, broken, slow, locks, held_tables,
      jumps, skews, retries, skips, refreshes, duplicates, partial, pruned, rescans, rollbacks,
      restored, lags, overtaken, batch_claims, batch_marks, batch_swept, copies, copied_again,
      fed_marks, drops, numbered, number_conflicts, gone, loss_looks, seeds;
} Counts;

/* The lease document; expires_at in ms of MongoDB's clock. */
typedef struct LeaseRow {
  unsigned owner;
  int64_t expires_at, standby_at, beat, epoch, nudges;
  uint64_t election;
  LastCommit last_commit;
} LeaseRow;

typedef struct Sim {
  uint64_t seed, random, fingerprint;
  bool trace, quiet, over;
  bool orderly; /* the events of an aggregate are inserted in their order */
  Config config;
  MongoStore *store;
  unsigned event_count;
  SimEvent events[EVENTS_MAX];
  Entity entities[AGGREGATES];
  GArray *inserts; /* of unsigned: the change stream */
  State rows[AGGREGATES];
  SimPosition positions[AGGREGATES];
  int64_t epoch;
  LeaseRow lease;
  int64_t skew_ms[STORES]; /* of its server's clock, two of them up to SKEW_MOST_MS apart */
  int64_t skewed_us;       /* changed last */
  Belief beliefs[AGGREGATES];
  GPtrArray *transactions; /* of Tx */
  Faults faults;
  bool feeds, archive; /* are named, is kept */
  const SimEvent *read_last[FEEDS][AGGREGATES];
  int64_t last_number, numbers_epoch, consumed; /* of the archive; by who asks for events */
  unsigned numberings, numbering; /* transactions; that which has the counter, 0: none */
  int64_t numbering_until;        /* us; when its client is gone */
  Instance *current;
  GPtrArray *instances;
  bool produced;
  unsigned operators; /* running */
} Sim;

extern Sim sim;
extern Counts counts;

/* --- sim.c: chance, time, trace --- */

unsigned sim_random(unsigned limit);
bool sim_chance(unsigned permille);
int64_t sim_between(int64_t low, int64_t high);
/* The clock of the store's server. */
int64_t sim_server_ms(StoreKind store);
/* The monotonic clock of the running process. */
int64_t sim_monotonic_us(void);
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Prints seed and last steps and ends the program. */
_Noreturn void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void sim_print_trace(void);

/* The two ends of a call into a store; false: it fails, before or after its effect. */
bool call_begin(StoreKind store, const char *what, Failure *ret_failure);
bool call_end(StoreKind store, const char *what, Failure *ret_failure);

/* --- workload.c: what events mean, in the plainest way --- */

Mapping *workload_mapping(void);
/* Makes all events of the seed. */
void workload_make(void);
const char *kind_name(Kind kind);
/* One event's whole effect; false, and nothing changed, when it cannot be applied. */
bool event_apply(State *state, const SimEvent *event);
/* The effect of a late one: its deltas alone. */
bool event_apply_deltas(State *state, const SimEvent *event);
bool event_has_deltas(const SimEvent *event);
bool event_needs_refresh(const SimEvent *event); /* when it is late */
/* The state of an entity at a version: all events up to it, in order. */
State state_at(unsigned aggregate, int64_t version);
bool state_equal(const State *a, const State *b);
const char *state_text(const State *state);
int event_compare(const SimEvent *a, const SimEvent *b);
SimEvent *event_of_id(const Id *id);
unsigned aggregate_of_id(const Id *id);
bool is_account(unsigned aggregate);
/* The producers: insert the events when their time comes. */
void produce(void *unused);

/* --- fake_mongo.c --- */

void mongo_insert(SimEvent *event);
/* No claims, for another seed. */
void claims_reset(void);
/* A failover: what no majority knew yet is taken back. */
void mongo_roll_back(void);
bson_t *mongo_document(const SimEvent *event);

/* Whether a filter of the outbox, in the simulation's own form, selects the event. */
bool filter_selects(const char *owner, const bson_t *filter, const SimEvent *event);

/* --- readers.c: who reads what this projector hands on --- */

/* Starts the second projectors, one for each feed, and who asks for archived events. */
void readers_start(void);
/* Somebody drops a feed. */
void readers_lose_feed(void);
/* So much later their ledgers know nothing any more. */
void readers_forget(void);
void check_copied(const SimEvent *event, const char *how);
void check_archived(const SimEvent *event, const char *how);
void check_number(const SimEvent *event);
/* NULL when every event of the outbox is in every feed, and what is in a feed was read. */
const char *check_unread(void);
void check_read(void);

/* --- fake_mysql.c --- */

typedef struct Insert {
  SimEvent *event;
  const char *outcome;
} Insert;

/* A transaction as the server has it. */
struct Tx {
  Instance *instance;
  unsigned long session;
  int64_t epoch;          /* that it has shown; 0: none */
  bool shared, exclusive; /* locks of the fence */
  bool doomed;            /* its client is gone; rolled back at `dies_at` */
  int64_t dies_at, begun_at;
  bool locked[AGGREGATES], touched[AGGREGATES], moved[AGGREGATES];
  State rows[AGGREGATES];
  SimPosition positions[AGGREGATES];
  unsigned insert_count;
  Insert inserts[EVENTS_MAX];
};

/* The server loses all connections. */
void mysql_disconnect_all(void);

/* --- checker.c --- */

void check_commit(const Tx *tx);
void check_removed(const SimEvent *event, const char *how);
void check_marked(const SimEvent *event, const Failure *failure, bool dead, bool counted);
void check_swept(SimEvent *event);
/* Of what is about to be swept by the owner of that name. */
void check_abandoned(const SimEvent *event, const char *owner, bool applied, int64_t older_than_ms);
void check_attempts(const SimEvent *event);
void check_instances(void);
/* NULL when only what must wait is in the outbox; else what is not settled yet. Aggregates that
 * have rows in the table do not count (TABLES: all do). */
const char *check_unsettled(unsigned but_for_table);
void check_end(void);

/* --- instance.c and operator.c --- */

Instance *instance_start(void);
bool instance_lives(const Instance *instance);
bool instance_is_owner(const Instance *instance);
void instance_kill(Instance *instance);
void instance_stop(Instance *instance); /* as by SIGTERM */
void instances_free(void);
/* One command, chosen by chance, on an aggregate that has something to repair. */
void operate(void *unused);
/* One refresh; a retry of all that blocks, some time later. */
void operate_refresh(void *unused);
void operate_retry(void *unused);
bool operator_skip(const SimEvent *event);
/* Makes trouble, ends it, and waits until all is settled. */
void supervise(void *unused);
