/* alarm.c - a flag that a thread can sleep on. */
#include "projector/app/engine/alarm.h"

#include "projector/infra/lock.h"

#include <glib.h>

struct Alarm {
  GMutex lock;
  GCond changed;
  bool rung;
};

Alarm *alarm_new(void) {
  Alarm *alarm = g_new0(Alarm, 1);
  g_mutex_init(&alarm->lock);
  g_cond_init(&alarm->changed);
  return alarm;
}

void alarm_free(Alarm *alarm) {
  if (!alarm)
    return;
  g_mutex_clear(&alarm->lock);
  g_cond_clear(&alarm->changed);
  g_free(alarm);
}

void alarm_ring(Alarm *alarm) {
  if (!alarm)
    return;
  SCOPED_LOCK(&alarm->lock);
  alarm->rung = true;
  g_cond_broadcast(&alarm->changed);
}

void alarm_sleep(Alarm *alarm, int64_t ms) {
  int64_t until = g_get_monotonic_time() + ms * 1000;
  SCOPED_LOCK(&alarm->lock);
  while (!alarm->rung)
    if (!g_cond_wait_until(&alarm->changed, &alarm->lock, until))
      break;
  alarm->rung = false;
}
