/* lane_world.c - events for the tests of a lane. */
#include "tests/unit/lane_world.h"

#include <stdio.h>
#include <string.h>

const LaneLimits roomy = {.events = LIMIT, .bytes = 1 << 20, .holds = 1000000};

static QueuedEvent *event_named(const char *id, const char *aggregate, int64_t time,
                                const char *status, int attempts) {
  bson_t *document = BCON_NEW(
      "_id", BCON_UTF8(id), "aggregate_type", BCON_UTF8("account"), "aggregate_id",
      BCON_UTF8(aggregate), "event_type", BCON_UTF8("Opened"), "occurred_at", BCON_DATE_TIME(time),
      "payload", "{", "}", "status", BCON_UTF8(status), "attempts", BCON_INT32(attempts));
  QueuedEvent *event = queued_event_new(event_decode(document));
  bson_destroy(document);
  return event;
}

QueuedEvent *event_of(const char *aggregate, int64_t time, const char *status, int attempts) {
  g_autofree char *id = g_strdup_printf("%s-%d", aggregate, (int)time);
  return event_named(id, aggregate, time, status, attempts);
}

QueuedEvent *twin(const char *id, const char *aggregate, int64_t time) {
  return event_named(id, aggregate, time, "pending", 0);
}

QueuedEvent *pending(const char *aggregate, int64_t time) {
  return event_of(aggregate, time, "pending", 0);
}

const Taking usual = {.max_events = LIMIT, .max_bytes = 1 << 20};

const char *take(Lane *lane, GPtrArray *taken) {
  static char text[512];
  QueuedEvent *events[LIMIT];
  text[0] = '\0';
  size_t count = lane_take(lane, &usual, events);
  for (size_t i = 0; i < count; i++) {
    g_ptr_array_add(taken, events[i]);
    char id[ID_TEXT_SIZE];
    id_text(&events[i]->event->key.event_id, id);
    size_t length = strlen(text);
    snprintf(text + length, sizeof text - length, "%s%s", i ? " " : "", id);
  }
  return text;
}

QueuedEvent *last(const GPtrArray *taken) {
  return taken->pdata[taken->len - 1];
}

bool look(Lane *lane, HoldView *ret_view) {
  return lane_take_due(lane, ret_view, 1) == 1;
}
