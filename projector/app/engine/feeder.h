/* feeder.h - copies into the feeds what stays in the outbox for longer than a second: failed, dead
 * and held events, and all while MySQL is away. What leaves sooner is copied on its way out
 * (outbox_acknowledge); so an event that waits here holds nothing there.
 *
 * Once a second it asks for events that were there at the time of the look before. While events are
 * being acknowledged it copies one page a look, so that a backlog, which is copied on its way out,
 * is not copied from here as well. */
#pragma once

#include "projector/app/engine/stop.h"
#include "projector/infra/mongo/outbox.h"

typedef struct Feeder Feeder;

/* For one ownership. NULL: no feed is named. */
Feeder *feeder_new(MongoStore *store, const char *owner, Stop *stop);
/* Waits for the thread, if one was started; request the stop first. */
void feeder_free(Feeder *feeder);
/* Looks once; gives the ms until it should look again. */
int64_t feeder_step(Feeder *feeder);
/* Runs steps in a thread until the stop is requested. NULL is allowed. */
void feeder_start(Feeder *feeder);

/* Whether none of these events, about to leave the outbox, was marked as copied by this feeder:
 * then what is in memory says all. NULL is allowed. Called from the acker's thread. */
bool feeder_has_marked_none(Feeder *feeder, Event *const *events, size_t count);
