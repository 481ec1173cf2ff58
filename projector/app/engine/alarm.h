/* alarm.h - lets one thread sleep until a time that others may bring forward. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

typedef struct Alarm Alarm;

Alarm *alarm_new(void);
void alarm_free(Alarm *alarm);
/* Ends the sleep, or the next one if no thread is sleeping. NULL is allowed. */
void alarm_ring(Alarm *alarm);
/* Sleeps that long, or until it rings. */
void alarm_sleep(Alarm *alarm, int64_t ms);
