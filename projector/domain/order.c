/* order.c - the rules of order: pure functions of position and event. */
#include "projector/domain/order.h"

#include "projector/domain/datetime.h"

enum { FIRST_VERSIONS = 10 /* up to here a new aggregate's versions may arrive out of order */ };

/* An aggregate that was never seen starts before version 1. If its first events are few, they may
 * still be on their way; a read model that begins later meets other aggregates in the middle of
 * their lives. An aggregate whose events had no version so far offers nothing to compare with. */
static bool has_gap(const Position *position, const Event *event) {
  if (event->key.version == 0)
    return false;
  if (position->known ? position->max_version == 0 : event->key.version > FIRST_VERSIONS)
    return false;
  return event->key.version - 1 > position->max_version; /* this form cannot overflow */
}

Standing order_standing(const Position *position, const Event *event, bool gap_waited) {
  if (event->key.version != 0 && event->key.version <= position->refreshed_version)
    return STANDING_CONTAINED;
  if (position->known) {
    int order = order_key_compare(&event->key, &position->last);
    if (order <= 0)
      return order == 0 ? STANDING_REPEATED : STANDING_LATE;
  }
  return !gap_waited && has_gap(position, event) ? STANDING_GAP : STANDING_NEXT;
}

bool order_reuses_version(const Position *position, const Event *event) {
  return position->known && event->key.version != 0 &&
         event->key.version <= position->last.version &&
         event->key.occurred_at > position->last.occurred_at;
}

int64_t order_early_ms(const Event *event, int64_t now_ms, int64_t future_ms) {
  int64_t from = now_ms + future_ms;
  return event->key.occurred_at > from ? event->key.occurred_at - from : 0;
}

void order_advance(Position *position, const Event *event) {
  if (!position->known || order_key_compare(&event->key, &position->last) > 0)
    position->last = event->key;
  if (event->key.version > position->max_version)
    position->max_version = event->key.version;
  position->known = true;
}

int64_t order_applied_at(const Position *position) {
  return position->known && position->last.occurred_at > DATETIME_FIRST_MS
             ? position->last.occurred_at
             : INT64_MIN;
}

void order_pass(Position *position, const Event *event) {
  static const uint8_t no_bytes[1] = {0};
  if (!position->known) /* before every event */
    position->last = (OrderKey){.occurred_at = DATETIME_FIRST_MS,
                                .event_id = {.kind = ID_STRING, .bytes = no_bytes}};
  if (event->key.version > position->max_version)
    position->max_version = event->key.version;
  position->known = true;
}
