/* watch.c - small tables of events and projections under one lock. */
#include "projector/app/engine/watch.h"

#include "projector/infra/clock.h"
#include "projector/infra/lock.h"

enum {
  SUSPECTS_MAX = 1000, /* beyond that, the one not seen for the longest time is forgotten */
  SEVERAL = 3,         /* aggregates */
  CLOSED_MS = 5000,
  TRIAL_MS = 40000,     /* then a trial without a result is over */
  TALLY_MS = 80000,     /* then an aggregate whose events no longer wait is dropped */
  REPEAT_PLACES = 4096, /* of events; if two share one, their reports are repeated more often */
  REPEAT_MS = 10000,
  REFUSED_MS = 30000, /* a refused event is tried again every 5 to 20 s */
  REFUSED_KEPT = 2 * REFUSED_MAX,
  ONCE_MAX = 20000, /* of aggregates; then the set is emptied */
};

typedef struct SuspectEvent {
  Id id;
  uint8_t bytes[EVENT_ID_MAX];
  int breaks;
  int64_t seen; /* monotonic, us */
} SuspectEvent;

typedef struct Tallied {
  uint64_t aggregate_hash;
  int64_t seen; /* monotonic, us: failed, or waited at the gate */
} Tallied;

typedef struct ClosedGate {
  bool closed, rows;
  int64_t until; /* monotonic, us; after that, an event may try */
  Failure why;
  Tallied aggregates[SEVERAL];
  unsigned count; /* of aggregates */
} ClosedGate;

typedef struct WatchRepeat {
  uint64_t what;
  int64_t at; /* monotonic, us; 0: an empty place */
  int64_t suppressed;
} WatchRepeat;

typedef struct Refusal {
  Refused refused;
  int64_t seen; /* monotonic, us */
} Refusal;

typedef struct MissedVersions {
  uint64_t aggregate_hash;
  int64_t first, last;
} MissedVersions;

struct Watch {
  GMutex lock;
  gint busy; /* atomic; entries in the tables. It is mostly 0, and then nobody takes the lock */
  GHashTable *suspects; /* Id → SuspectEvent */
  GHashTable *gates;    /* projection + 1 → ClosedGate */
  GHashTable *refusals; /* Id → Refusal */
  uint64_t refusals_changed;
  GHashTable *once; /* hashes of aggregates */
  WatchRepeat repeats[REPEAT_PLACES];
  gint any_missed;       /* atomic; mostly there is none, and then nobody takes the lock */
  unsigned missed_count; /* ever; the next one's place is that of the oldest */
  MissedVersions missed[WATCH_MISSED_MAX];
};

Watch *watch_new(void) {
  Watch *watch = g_new0(Watch, 1);
  g_mutex_init(&watch->lock);
  watch->suspects = g_hash_table_new_full(id_hash_key, id_equal_key, NULL, g_free);
  watch->gates = g_hash_table_new_full(NULL, NULL, NULL, g_free);
  watch->refusals = g_hash_table_new_full(id_hash_key, id_equal_key, NULL, g_free);
  watch->once = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
  return watch;
}

void watch_free(Watch *watch) {
  if (!watch)
    return;
  g_hash_table_unref(watch->suspects);
  g_hash_table_unref(watch->gates);
  g_hash_table_unref(watch->refusals);
  g_hash_table_unref(watch->once);
  g_mutex_clear(&watch->lock);
  g_free(watch);
}

static bool is_empty(Watch *watch) {
  return g_atomic_int_get(&watch->busy) == 0;
}

static void note_size(Watch *watch) {
  g_atomic_int_set(&watch->busy,
                   (gint)(g_hash_table_size(watch->suspects) + g_hash_table_size(watch->gates) +
                          g_hash_table_size(watch->refusals)));
}

/* --- events --------------------------------------------------------------------------------- */

static void make_room(Watch *watch) {
  GHashTableIter iter;
  gpointer value;
  const SuspectEvent *oldest = NULL;
  g_hash_table_iter_init(&iter, watch->suspects);
  while (g_hash_table_iter_next(&iter, NULL, &value)) {
    const SuspectEvent *one = value;
    if (!oldest || one->seen < oldest->seen)
      oldest = one;
  }
  if (oldest)
    g_hash_table_remove(watch->suspects, &oldest->id);
}

static SuspectEvent *find_or_add(Watch *watch, const Id *event) {
  SuspectEvent *suspect = g_hash_table_lookup(watch->suspects, event);
  if (suspect)
    return suspect;
  if (g_hash_table_size(watch->suspects) >= SUSPECTS_MAX)
    make_room(watch);
  OrderKey key = {.event_id = *event}, kept;
  suspect = g_new0(SuspectEvent, 1);
  order_key_copy(&key, &kept, suspect->bytes);
  suspect->id = kept.event_id;
  g_hash_table_insert(watch->suspects, &suspect->id, suspect);
  note_size(watch);
  return suspect;
}

static void suspect(Watch *watch, const Id *event, int breaks) {
  SCOPED_LOCK(&watch->lock);
  SuspectEvent *one = find_or_add(watch, event);
  one->breaks += breaks;
  one->seen = clock_us();
}

void watch_suspect(Watch *watch, const Id *event) {
  suspect(watch, event, 0);
}

void watch_count(Watch *watch, const Id *event) {
  suspect(watch, event, 1);
}

bool watch_suspects(Watch *watch, const Id *event) {
  if (is_empty(watch))
    return false;
  SCOPED_LOCK(&watch->lock);
  return g_hash_table_contains(watch->suspects, event);
}

int watch_breaks(Watch *watch, const Id *event) {
  SCOPED_LOCK(&watch->lock);
  const SuspectEvent *one = g_hash_table_lookup(watch->suspects, event);
  return one ? one->breaks : 0;
}

void watch_acquit(Watch *watch, const Id *event) {
  if (is_empty(watch))
    return;
  SCOPED_LOCK(&watch->lock);
  g_hash_table_remove(watch->suspects, event);
  watch->refusals_changed += g_hash_table_remove(watch->refusals, event);
  note_size(watch);
}

/* --- refused marks ---------------------------------------------------------------------------- */

void watch_refuse(Watch *watch, const Id *event, const Failure *failure) {
  SCOPED_LOCK(&watch->lock);
  Refusal *one = g_hash_table_lookup(watch->refusals, event);
  if (!one) {
    if (event->kind == ID_OTHER || g_hash_table_size(watch->refusals) >= REFUSED_KEPT)
      return;
    OrderKey key = {.event_id = *event}, kept;
    one = g_new0(Refusal, 1);
    order_key_copy(&key, &kept, one->refused.bytes);
    one->refused.id = kept.event_id;
    g_hash_table_insert(watch->refusals, &one->refused.id, one);
    watch->refusals_changed++;
    note_size(watch);
  }
  one->refused.failure = *failure;
  one->seen = clock_us();
}

static gboolean is_old(gpointer key, gpointer value, gpointer data) {
  (void)key;
  (void)data;
  return clock_us() - ((const Refusal *)value)->seen > (int64_t)REFUSED_MS * 1000;
}

uint64_t watch_refusals(Watch *watch) {
  SCOPED_LOCK(&watch->lock);
  watch->refusals_changed += g_hash_table_foreach_remove(watch->refusals, is_old, NULL);
  note_size(watch);
  return watch->refusals_changed;
}

GArray *watch_list_refused(Watch *watch) {
  SCOPED_LOCK(&watch->lock);
  GArray *list = g_array_new(FALSE, FALSE, sizeof(Refused));
  GHashTableIter iter;
  gpointer value;
  g_hash_table_iter_init(&iter, watch->refusals);
  while (g_hash_table_iter_next(&iter, NULL, &value))
    g_array_append_val(list, ((Refusal *)value)->refused);
  for (guint i = 0; i < list->len; i++) { /* growing the array may have moved the entries */
    Refused *one = &g_array_index(list, Refused, i);
    if (one->id.kind != ID_INT)
      one->id.bytes = one->bytes;
  }
  return list;
}

bool watch_is_first(Watch *watch, uint64_t aggregate_hash) {
  SCOPED_LOCK(&watch->lock);
  if (g_hash_table_size(watch->once) >= ONCE_MAX)
    g_hash_table_remove_all(watch->once);
  return g_hash_table_add(watch->once, g_memdup2(&aggregate_hash, sizeof aggregate_hash));
}

/* --- missing versions ------------------------------------------------------------------------ */

void watch_miss(Watch *watch, uint64_t aggregate_hash, int64_t first, int64_t last) {
  SCOPED_LOCK(&watch->lock);
  for (unsigned i = 0; i < MIN(watch->missed_count, WATCH_MISSED_MAX); i++) {
    const MissedVersions *one = &watch->missed[i];
    if (one->aggregate_hash == aggregate_hash && one->first == first && one->last == last)
      return; /* a look that is repeated, while MySQL is away, must not push out the others */
  }
  watch->missed[watch->missed_count++ % WATCH_MISSED_MAX] =
      (MissedVersions){aggregate_hash, first, last};
  g_atomic_int_set(&watch->any_missed, 1);
}

static bool misses(const Watch *watch, const Event *event) {
  int64_t version = event->key.version;
  for (unsigned i = 0; version > 0 && i < MIN(watch->missed_count, WATCH_MISSED_MAX); i++) {
    const MissedVersions *one = &watch->missed[i];
    if (one->aggregate_hash == event->aggregate_hash && one->first <= version &&
        version <= one->last)
      return true;
  }
  return false;
}

void watch_recall_missing(Watch *watch, Item *items, size_t count) {
  for (size_t i = 0; i < count; i++)
    items[i].was_missing = false;
  if (!g_atomic_int_get(&watch->any_missed))
    return;
  SCOPED_LOCK(&watch->lock); /* once for all of them */
  for (size_t i = 0; i < count; i++)
    items[i].was_missing = misses(watch, items[i].event);
}

bool watch_may_log(Watch *watch, const Id *event, const char *message, const Failure *failure,
                   int64_t *ret_suppressed) {
  SCOPED_LOCK(&watch->lock);
  uint64_t what = ((uint64_t)id_hash_key(event) << 32) ^ (uint64_t)(unsigned)failure->code ^
                  ((uint64_t)failure->class << 24) ^ g_str_hash(message);
  WatchRepeat *place = &watch->repeats[(what >> 32) % REPEAT_PLACES];
  int64_t now = clock_us();
  if (place->at && place->what == what && now - place->at < (int64_t)REPEAT_MS * 1000) {
    place->suppressed++;
    return false;
  }
  *ret_suppressed = place->what == what ? place->suppressed : 0;
  *place = (WatchRepeat){.what = what, .at = now};
  return true;
}

/* --- projections ---------------------------------------------------------------------------- */

static ClosedGate *find_gate(Watch *watch, unsigned projection) {
  return g_hash_table_lookup(watch->gates, GUINT_TO_POINTER(projection + 1));
}

static ClosedGate *find_or_add_gate(Watch *watch, unsigned projection) {
  ClosedGate *gate = find_gate(watch, projection);
  if (!gate) {
    gate = g_new0(ClosedGate, 1);
    g_hash_table_insert(watch->gates, GUINT_TO_POINTER(projection + 1), gate);
    note_size(watch);
  }
  return gate;
}

Gate watch_gate(Watch *watch, unsigned projection, Failure *ret_why, bool *ret_rows) {
  if (is_empty(watch))
    return GATE_OPEN;
  SCOPED_LOCK(&watch->lock);
  ClosedGate *gate = find_gate(watch, projection);
  if (!gate || !gate->closed)
    return GATE_OPEN;
  *ret_why = gate->why;
  *ret_rows = gate->rows;
  if (clock_us() < gate->until)
    return GATE_CLOSED;
  gate->until = clock_us() + (int64_t)TRIAL_MS * 1000;
  return GATE_TRIAL;
}

void watch_close(Watch *watch, unsigned projection, const Failure *why, bool rows) {
  SCOPED_LOCK(&watch->lock);
  ClosedGate *gate = find_or_add_gate(watch, projection);
  gate->closed = true;
  gate->rows = rows;
  gate->until = clock_us() + (int64_t)CLOSED_MS * 1000;
  gate->why = *why;
}

void watch_end_trial(Watch *watch, unsigned projection) {
  if (is_empty(watch))
    return;
  SCOPED_LOCK(&watch->lock);
  ClosedGate *gate = find_gate(watch, projection);
  int64_t now = clock_us();
  /* An earlier time means that it was closed again, for a reason that the trial met. */
  if (gate && gate->until > now + (int64_t)CLOSED_MS * 1000)
    gate->until = now;
}

void watch_open(Watch *watch, unsigned projection) {
  if (is_empty(watch))
    return;
  SCOPED_LOCK(&watch->lock);
  g_hash_table_remove(watch->gates, GUINT_TO_POINTER(projection + 1));
  note_size(watch);
}

/* Aggregates that were not seen for a while no longer count against the table. */
static void drop_old(ClosedGate *gate) {
  int64_t now = clock_us();
  unsigned kept = 0;
  for (unsigned i = 0; i < gate->count; i++)
    if (now - gate->aggregates[i].seen < (int64_t)TALLY_MS * 1000)
      gate->aggregates[kept++] = gate->aggregates[i];
  gate->count = kept;
}

static Tallied *find_tallied(ClosedGate *gate, uint64_t aggregate_hash) {
  for (unsigned i = 0; i < gate->count; i++)
    if (gate->aggregates[i].aggregate_hash == aggregate_hash)
      return &gate->aggregates[i];
  return NULL;
}

bool watch_tally(Watch *watch, unsigned projection, uint64_t aggregate_hash) {
  SCOPED_LOCK(&watch->lock);
  ClosedGate *gate = find_or_add_gate(watch, projection);
  drop_old(gate);
  Tallied *one = find_tallied(gate, aggregate_hash);
  if (!one && gate->count < SEVERAL)
    one = &gate->aggregates[gate->count++];
  if (one)
    *one = (Tallied){aggregate_hash, clock_us()};
  if (gate->count < SEVERAL && gate->rows)
    gate->closed = false;
  return gate->count == SEVERAL;
}

bool watch_tallied(Watch *watch, unsigned projection, uint64_t aggregate_hash) {
  SCOPED_LOCK(&watch->lock);
  ClosedGate *gate = find_gate(watch, projection);
  return gate && find_tallied(gate, aggregate_hash);
}

void watch_still_waits(Watch *watch, unsigned projection, uint64_t aggregate_hash) {
  SCOPED_LOCK(&watch->lock);
  ClosedGate *gate = find_gate(watch, projection);
  Tallied *one = gate ? find_tallied(gate, aggregate_hash) : NULL;
  if (one)
    one->seen = clock_us();
}
