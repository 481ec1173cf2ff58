/* fake_feeder.c - the simulation has no feeds. */
#include "projector/app/engine/feeder.h"

Feeder *feeder_new(MongoStore *store, const char *owner, Stop *stop) {
  (void)store, (void)owner, (void)stop;
  return NULL;
}

void feeder_start(Feeder *feeder) {
  (void)feeder;
}

void feeder_free(Feeder *feeder) {
  (void)feeder;
}

bool feeder_has_marked_none(Feeder *feeder, Event *const *events, size_t count) {
  (void)feeder, (void)events, (void)count;
  return true;
}
