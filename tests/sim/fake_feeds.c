/* fake_feeds.c - the feeds and the archive in memory, behind infra/mongo/feeds_private.h and the
 * part of outbox_private.h that events leave by. Filters are in a form of the simulation's own. */
#include "projector/infra/mongo/feeds_private.h"
#include "tests/sim/fake_mongo.h"

#include <stdlib.h>
#include <string.h>

const char *const feed_names[] = {"feed0", "feed1", NULL};

const MongoSettings *mongo_store_settings(const MongoStore *store) {
  static MongoSettings settings;
  (void)store;
  settings = (MongoSettings){.database = "sim",
                             .outbox = "outbox",
                             .archive = sim.archive,
                             .feeds = sim.feeds ? feed_names : NULL};
  return &settings;
}

MongoStore *outbox_store(const Outbox *outbox) {
  (void)outbox;
  return sim.store;
}

bool outbox_is_foreign(const Outbox *outbox) {
  (void)outbox;
  return false;
}

Outbox *outbox_new_on(MongoStore *store, const char *owner, const char *collection) {
  (void)collection;
  return outbox_new(store, owner);
}

/* --- filters --------------------------------------------------------------------------------- */

static void list_ids(bson_t *array, Event *const *events, size_t count, bool skipped_only) {
  uint32_t at = 0;
  for (size_t i = 0; i < count; i++) {
    g_autofree char *key = g_strdup_printf("%u", at);
    if (skipped_only && !events[i]->skipped)
      continue;
    at++;
    event_append_id(events[i], array, key);
  }
}

void outbox_list_skipped(bson_t *array, Event *const *events, size_t count) {
  list_ids(array, events, count, true);
}

void outbox_append_event_ids(bson_t *filter, Event *const *events, size_t count) {
  bson_t ids = BSON_INITIALIZER;
  list_ids(&ids, events, count, false);
  BCON_APPEND(filter, "_id", "{", "$in", BCON_ARRAY(&ids), "}");
  bson_destroy(&ids);
}

void outbox_append_abandoned(bson_t *filter, const Outbox *outbox, int64_t older_than_ms) {
  (void)outbox;
  BSON_APPEND_INT64(filter, "abandoned", older_than_ms);
}

void outbox_append_aggregate(const Outbox *outbox, bson_t *filter, const Aggregate *aggregate) {
  (void)outbox;
  BSON_APPEND_INT32(filter, "aggregate", (int)aggregate_of_id(&aggregate->id));
}

int64_t abandoned_ms(const bson_t *filter) {
  bson_iter_t iter;
  return bson_iter_init_find(&iter, filter, "abandoned") ? bson_iter_int64(&iter) : -1;
}

static bool lists(bson_iter_t *in, const SimEvent *event) {
  bson_iter_t list, ids;
  Id id;
  if (!bson_iter_recurse(in, &list) || !bson_iter_find(&list, "$in") ||
      !bson_iter_recurse(&list, &ids))
    sim_fail("ids are not asked for by a list");
  while (bson_iter_next(&ids))
    if (id_from_iter(&ids, &id) && event_of_id(&id)->index == event->index)
      return true;
  return false;
}

static bool any_selects(const char *owner, bson_iter_t *array, const SimEvent *event, bool all) {
  bson_iter_t branches;
  bson_iter_recurse(array, &branches);
  while (bson_iter_next(&branches)) {
    const uint8_t *bytes;
    uint32_t length;
    bson_t branch;
    bson_iter_document(&branches, &length, &bytes);
    bson_init_static(&branch, bytes, length);
    if (filter_selects(owner, &branch, event) != all)
      return !all;
  }
  return all;
}

static bool is_until(bson_iter_t *bound, const SimEvent *event) {
  bson_iter_t until;
  bson_iter_recurse(bound, &until);
  return bson_iter_find(&until, "$lte") && event->occurred_at <= bson_iter_date_time(&until);
}

bool filter_selects(const char *owner, const bson_t *filter, const SimEvent *event) {
  const Outbox outbox = {.owner = (char *)owner};
  bson_iter_t iter;
  bool good = bson_iter_init(&iter, filter);
  while (good && bson_iter_next(&iter)) {
    const char *key = bson_iter_key(&iter);
    if (!strcmp(key, "_id"))
      good = lists(&iter, event);
    else if (!strcmp(key, "abandoned"))
      good = is_abandoned(&outbox, event, bson_iter_int64(&iter));
    else if (!strcmp(key, "aggregate"))
      good = event->aggregate == (unsigned)bson_iter_int32(&iter);
    else if (!strcmp(key, "occurred_at"))
      good = is_until(&iter, event);
    else if (!strcmp(key, "$and") || !strcmp(key, "$or"))
      good = any_selects(owner, &iter, event, key[1] == 'a');
    else
      sim_fail("a filter that the simulation does not know: %s", key);
  }
  return good;
}

EventCursor *outbox_find(Outbox *outbox, bson_t *filter, bson_t *options) {
  EventCursor *cursor = cursor_new(outbox, FILTERED);
  cursor->filter = filter;
  bson_destroy(options);
  return cursor;
}

static int compare_pointers(const void *a, const void *b) {
  return event_compare(*(SimEvent *const *)a, *(SimEvent *const *)b);
}

/* What the server finds now, in order. */
static size_t find(const Outbox *outbox, const bson_t *filter, SimEvent *found[EVENTS_MAX]) {
  size_t count = 0;
  for (unsigned i = 0; i < sim.event_count; i++)
    if (sim.events[i].present && filter_selects(outbox->owner, filter, &sim.events[i]))
      found[count++] = &sim.events[i];
  if (count > 1)
    qsort(found, count, sizeof(SimEvent *), compare_pointers);
  return count;
}

/* --- the archive ------------------------------------------------------------------------------ */

bool outbox_copy_to_archive(Outbox *outbox, const bson_t *filter, Event *const *events,
                            size_t count, Failure *ret_failure) {
  (void)events, (void)count;
  if (!call_begin(MONGO, "archive", ret_failure))
    return false;
  SimEvent *found[EVENTS_MAX];
  bool whole;
  size_t reached = reach(find(outbox, filter, found), &whole);
  for (size_t i = 0; i < reached; i++)
    found[i]->archived = true;
  return whole ? call_end(MONGO, "archive", ret_failure) : broken_off("archive", ret_failure);
}

/* --- copies ----------------------------------------------------------------------------------- */

static unsigned feed_of(const char *name) {
  return !strcmp(name, feed_names[1]);
}

static void put(unsigned feed, SimEvent *event) {
  FeedCopy *copy = &event->copies[feed];
  if (copy->present)
    return;
  copy->present = true;
  counts.copies++;
  counts.copied_again += copy->copied > 0;
  copy->copied++;
  sim_trace("  %s is copied into %s", event->id, feed_names[feed]);
}

/* It finds first and writes then; meanwhile others write too. */
bool feed_copy_into(Outbox *outbox, const char *feed, const bson_t *filter, Failure *ret_failure) {
  if (!call_begin(MONGO, "copy into the feed", ret_failure))
    return false;
  SimEvent *found[EVENTS_MAX];
  bool whole;
  size_t reached = reach(find(outbox, filter, found), &whole), unfed = 0;
  for (size_t i = 0; i < reached; i++)
    if (!found[i]->fed)
      found[unfed++] = found[i];
  fiber_sleep_us(sim_between(0, 2000));
  for (size_t i = 0; i < unfed; i++)
    put(feed_of(feed), found[i]);
  return whole ? call_end(MONGO, "copy into the feed", ret_failure)
               : broken_off("copy into the feed", ret_failure);
}

static SimEvent *event_of_copy(const bson_t *copy) {
  bson_iter_t iter;
  Id id;
  if (bson_has_field(copy, "status") || bson_has_field(copy, "fed_to"))
    sim_fail("a copy carries what only the outbox is told");
  return bson_iter_init_find(&iter, copy, "_id") && id_from_iter(&iter, &id) ? event_of_id(&id)
                                                                             : NULL;
}

bool feed_insert(Outbox *outbox, const char *feed, const bson_t **copies, size_t count,
                 Failure *ret_failure) {
  (void)outbox;
  if (!call_begin(MONGO, "insert into the feed", ret_failure))
    return false;
  bool whole;
  size_t reached = reach(count, &whole);
  for (size_t i = 0; i < reached; i++)
    put(feed_of(feed), event_of_copy(copies[i]));
  return whole ? call_end(MONGO, "insert into the feed", ret_failure)
               : broken_off("insert into the feed", ret_failure);
}

/* --- what stays ------------------------------------------------------------------------------- */

bool feed_mark(Outbox *outbox, const bson_t *filter, int64_t *ret_count, Failure *ret_failure) {
  if (!call_begin(MONGO, "mark as fed", ret_failure))
    return false;
  SimEvent *found[EVENTS_MAX];
  bool whole;
  size_t reached = reach(find(outbox, filter, found), &whole);
  int64_t count = 0;
  for (size_t i = 0; i < reached; i++) {
    if (found[i]->fed)
      continue;
    check_copied(found[i], "marked as being in every feed");
    write_by_majority(found[i]);
    found[i]->fed = true;
    count++;
    sim_trace("  %s is marked as fed", found[i]->id);
  }
  counts.fed_marks += count;
  if (!whole)
    return broken_off("mark as fed", ret_failure);
  if (!call_end(MONGO, "mark as fed", ret_failure))
    return false;
  *ret_count = count;
  return true;
}

bool feeds_look(Outbox *outbox, bool *ret_any, Moment *ret_moment, Failure *ret_failure) {
  (void)outbox;
  *ret_any = false;
  *ret_moment = (Moment){0};
  if (!call_begin(MONGO, "look for what is not fed", ret_failure))
    return false;
  int64_t now = fiber_now_us();
  bool any = false;
  for (unsigned i = 0; i < sim.event_count && !any; i++)
    any = as_known_to_majority(&sim.events[i]).present && !sim.events[i].fed;
  if (!call_end(MONGO, "look for what is not fed", ret_failure))
    return false;
  *ret_any = any;
  *ret_moment = (Moment){1 + (uint32_t)(now / 1000000), (uint32_t)(now % 1000000)};
  return true;
}

bool feeds_have_marked(Outbox *outbox, bool *ret_any, Failure *ret_failure) {
  (void)outbox;
  *ret_any = false;
  if (!call_begin(MONGO, "look for what is fed", ret_failure))
    return false;
  bool any = false;
  for (unsigned i = 0; i < sim.event_count && !any; i++)
    any = as_known_to_majority(&sim.events[i]).present && sim.events[i].fed;
  if (!call_end(MONGO, "look for what is fed", ret_failure))
    return false;
  *ret_any = any;
  return true;
}

EventCursor *feeds_find(Outbox *outbox, const Moment *moment) {
  EventCursor *cursor = cursor_new(outbox, UNFED);
  cursor->moment_us = (int64_t)(moment->seconds - 1) * 1000000 + moment->increment;
  return cursor;
}
