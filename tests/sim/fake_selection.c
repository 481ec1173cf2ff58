/* fake_selection.c - the outbox in memory as commands see it, behind infra/mongo/selection.h. */
#include "tests/sim/fake_mongo.h"

#include <string.h>

static bool is_id(const Id *id, const char *text) {
  return !id || (id->length == strlen(text) && !memcmp(id->bytes, text, id->length));
}

bool is_selected(const Selection *selection, const SimEvent *event) {
  char aggregate[] = {'a', (char)('0' + event->aggregate), '\0'};
  const char *type = is_account(event->aggregate) ? "account" : "meter";
  return event->present && is_id(selection->event, event->id) &&
         is_id(selection->aggregate ? &selection->aggregate->id : NULL, aggregate) &&
         (!selection->event_id || !strcmp(selection->event_id, event->id)) &&
         (!selection->aggregate_type || !strcmp(selection->aggregate_type, type)) &&
         (!selection->aggregate_id || !strcmp(selection->aggregate_id, aggregate)) &&
         (!selection->states || g_strv_contains(selection->states, status_names[event->status]));
}

EventCursor *selection_find(Outbox *outbox, const Selection *selection) {
  EventCursor *cursor = cursor_new(outbox, SELECTED);
  cursor->selection = selection;
  return cursor;
}

static void retry(SimEvent *event) {
  write_by_majority(event);
  event->attempts = event->excused = 0;
  event->retried = true;
  if (event->blocked_us && event->status == STATUS_DEAD) /* a failed one may already be queued */
    event->blocked_us = fiber_now_us();
  event->next_attempt_at = 0;
  set_status(event, STATUS_PENDING);
}

bool selection_retry(Outbox *outbox, const Selection *selection, int64_t *ret_count,
                     Failure *ret_failure) {
  (void)outbox;
  if (!call_begin(MONGO, "retry", ret_failure))
    return false;
  SimEvent *selected[EVENTS_MAX];
  size_t count = 0;
  for (unsigned i = 0; i < sim.event_count; i++)
    if (is_selected(selection, &sim.events[i]))
      selected[count++] = &sim.events[i];
  bool whole;
  size_t reached = reach(count, &whole);
  for (size_t i = 0; i < reached; i++)
    retry(selected[i]);
  if (!whole)
    return broken_off("retry", ret_failure);
  if (!call_end(MONGO, "retry", ret_failure))
    return false;
  *ret_count = (int64_t)count;
  return true;
}

bool outbox_seize(Outbox *outbox, const Event *event, bool *ret_seized, Failure *ret_failure) {
  if (!call_begin(MONGO, "seize", ret_failure))
    return false;
  SimEvent *found = event_of_id(&event->key.event_id);
  bool seized = found->present && (found->status == STATUS_FAILED || found->status == STATUS_DEAD);
  if (seized) {
    write_by_majority(found);
    g_strlcpy(found->claimed_by, outbox->owner, sizeof found->claimed_by);
    found->claimed_at = sim_server_ms(MONGO);
    found->claimed_us = fiber_now_us();
    set_status(found, STATUS_IN_PROGRESS);
  }
  if (!call_end(MONGO, "seize", ret_failure))
    return false;
  *ret_seized = seized;
  return true;
}

bool outbox_unseize(Outbox *outbox, const Event *event, Failure *ret_failure) {
  if (!call_begin(MONGO, "unseize", ret_failure))
    return false;
  SimEvent *found = event_of_id(&event->key.event_id);
  if (is_ours(outbox, found) && found->status == STATUS_IN_PROGRESS) {
    write_by_majority(found);
    set_status(found, event->status == STATUS_DEAD ? STATUS_DEAD : STATUS_FAILED);
  }
  return call_end(MONGO, "unseize", ret_failure);
}
