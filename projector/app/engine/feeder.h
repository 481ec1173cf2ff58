/* feeder.h - copies events that stay in the outbox for longer than a second into the feeds: failed,
 * dead and held ones, and all while MySQL is unreachable. Others are copied when they leave
 * (outbox_acknowledge); so an event that waits in the outbox does not delay the feeds.
 *
 * Once a second it reads the events that were present at the time of its previous read. While
 * events are being acknowledged it copies one page per read, so that a backlog, which is copied
 * when it leaves, is not copied twice. */
#pragma once

#include "projector/app/engine/metrics.h"
#include "projector/app/engine/stop.h"
#include "projector/app/engine/watch.h"
#include "projector/infra/mongo/outbox.h"
#include "projector/infra/pulse.h"

typedef struct Feeder Feeder;

/* For one ownership. NULL: no feed is named. */
Feeder *feeder_new(MongoStore *store, const char *owner, Stop *stop, Watch *watch,
                   Metrics *metrics);
/* Waits for the thread, if one was started; request the stop first. */
void feeder_free(Feeder *feeder);
/* Copies in a thread until the stop is requested. NULL is allowed. */
void feeder_start(Feeder *feeder);
/* At work while it looks and copies. NULL of NULL. */
Pulse *feeder_pulse(Feeder *feeder);

/* Events have left the outbox. NULL is allowed. */
void feeder_note_acknowledged(Feeder *feeder, size_t count);
/* Whether this feeder has marked none of these events: then the copies in memory are current. NULL
 * is allowed. */
bool feeder_has_marked_none(Feeder *feeder, Event *const *events, size_t count);
