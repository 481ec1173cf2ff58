/* fake_feeder.c - the simulation has no feeds, and numbers nothing. */
#include "projector/app/engine/feeder.h"
#include "projector/app/engine/numberer.h"

Numberer *numberer_new(MongoStore *store, int64_t epoch, Metrics *metrics, Stop *stop) {
  (void)store, (void)epoch, (void)metrics, (void)stop;
  return NULL;
}

void numberer_start(Numberer *numberer) {
  (void)numberer;
}

void numberer_free(Numberer *numberer) {
  (void)numberer;
}

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
