/* readers.c - who reads what this projector hands on: a second projector on each feed, in the
 * plainest way, and a consumer of archived events. What must hold for them. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

enum { LONG_US = 8000000, SHORT_US = 400000 };

/* --- a second projector ------------------------------------------------------------------------
 */

static int compare_pointers(const void *a, const void *b) {
  return event_compare(*(SimEvent *const *)a, *(SimEvent *const *)b);
}

static void check_order(const SimEvent *event, unsigned feed) {
  const SimEvent *last = sim.read_last[feed][event->aggregate];
  if (sim.orderly && !event->copies[feed].lost && last && event_compare(event, last) < 0)
    sim_fail("%s of a%u comes into feed %u behind %s, though all came in order", event->id,
             event->aggregate, feed, last->id);
}

static void apply(SimEvent *event, unsigned feed) {
  FeedCopy *copy = &event->copies[feed];
  if (copy->known)
    return;
  sim_trace("%s is applied from feed %u", event->id, feed);
  check_order(event, feed);
  copy->known = true;
  if (++copy->applied > 1)
    sim_fail("%s is applied from feed %u for the %u. time", event->id, feed, copy->applied);
  const SimEvent **last = &sim.read_last[feed][event->aggregate];
  if (!*last || event_compare(event, *last) > 0)
    *last = event;
}

/* In order, as far as it gets; it may die between its commit and its acknowledgement. */
static void read_all(unsigned feed) {
  SimEvent *found[EVENTS_MAX];
  unsigned count = 0;
  for (unsigned i = 0; i < sim.event_count; i++)
    if (sim.events[i].copies[feed].present)
      found[count++] = &sim.events[i];
  if (count > 1)
    qsort(found, count, sizeof *found, compare_pointers);
  if (!sim.quiet && sim_chance(200))
    count = sim_random(count + 1);
  for (unsigned i = 0; i < count; i++) {
    apply(found[i], feed);
    found[i]->copies[feed].present = !sim.quiet && sim_chance(20);
  }
}

static void read_feed(void *data) {
  unsigned feed = GPOINTER_TO_UINT(data);
  while (!sim.over) {
    fiber_sleep_us(sim_between(1000, !sim.quiet && sim_chance(50) ? LONG_US : SHORT_US));
    if (fiber_now_us() >= sim.faults.away_until[MONGO])
      read_all(feed);
  }
}

/* --- a consumer of archived events --------------------------------------------------------------
 */

static const SimEvent *numbered(int64_t seq) {
  for (unsigned i = 0; i < sim.event_count; i++)
    if (sim.events[i].seq == seq)
      return &sim.events[i];
  return NULL;
}

static void consume(void *unused) {
  (void)unused;
  while (!sim.over) {
    fiber_sleep_us(sim_between(1000, SHORT_US));
    while (sim.consumed < sim.last_number) {
      if (!numbered(sim.consumed + 1))
        sim_fail("nothing has number %lld, and %lld is given", (long long)sim.consumed + 1,
                 (long long)sim.last_number);
      sim.consumed++;
    }
  }
}

void check_number(const SimEvent *event) {
  if (event->seq <= sim.consumed)
    sim_fail("%s gets number %lld, and a consumer is at %lld", event->id, (long long)event->seq,
             (long long)sim.consumed);
  for (unsigned i = 0; i < sim.event_count; i++)
    if (&sim.events[i] != event && sim.events[i].seq == event->seq)
      sim_fail("%s and %s have number %lld", event->id, sim.events[i].id, (long long)event->seq);
}

/* --- both ----------------------------------------------------------------------------------------
 */

void readers_start(void) {
  for (unsigned feed = 0; sim.feeds && feed < FEEDS; feed++)
    fiber_start("reads", NULL, read_feed, GUINT_TO_POINTER(feed));
  if (sim.archive)
    fiber_start("consumes", NULL, consume, NULL);
}

void readers_lose_feed(void) {
  unsigned feed = sim_random(FEEDS);
  sim_trace("feed %u is dropped", feed);
  for (unsigned i = 0; i < sim.event_count; i++) {
    FeedCopy *copy = &sim.events[i].copies[feed];
    copy->lost |= copy->present;
    copy->present = false;
  }
}

void readers_forget(void) {
  for (unsigned i = 0; i < sim.event_count; i++)
    for (unsigned feed = 0; feed < FEEDS; feed++)
      sim.events[i].copies[feed].known = false;
}

void check_copied(const SimEvent *event, const char *how) {
  for (unsigned feed = 0; sim.feeds && feed < FEEDS; feed++)
    if (event->copies[feed].copied == 0)
      sim_fail("%s is %s, and feed %u has never had it", event->id, how, feed);
}

void check_archived(const SimEvent *event, const char *how) {
  if (!event->archived && (sim.archive || !strcmp(event->outcome, "skipped")))
    sim_fail("%s is %s, and is not in the archive", event->id, how);
}

const char *check_unread(void) {
  static char text[64];
  for (unsigned i = 0; i < sim.event_count; i++) {
    const SimEvent *event = &sim.events[i];
    const char *what = NULL;
    if (sim.feeds && event->present && !event->fed)
      what = "is not marked as being in every feed";
    for (unsigned feed = 0; feed < FEEDS; feed++)
      if (event->copies[feed].present)
        what = "was not read from its feed";
    if (sim.archive && event->archived && !event->seq)
      what = "has no number";
    if (what) {
      g_snprintf(text, sizeof text, "%s %s", event->id, what);
      return text;
    }
  }
  return NULL;
}

void check_read(void) {
  for (unsigned i = 0; i < sim.event_count; i++) {
    const SimEvent *event = &sim.events[i];
    for (unsigned feed = 0; sim.feeds && feed < FEEDS; feed++)
      if (event->copies[feed].applied == 0 && !event->copies[feed].lost)
        sim_fail("%s was never read from feed %u", event->id, feed);
    if (sim.archive && !event->present && !event->seq)
      sim_fail("%s has no number", event->id);
  }
}
