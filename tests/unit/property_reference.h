/* property_reference.h - what events do, one by one, in the plainest way. */
#pragma once

#include "tests/unit/property_table.h"

typedef enum Outcome { OUTCOME_WAITS, OUTCOME_APPLIED, OUTCOME_IGNORED, OUTCOME_FAILED } Outcome;

typedef struct Story {
  Table table;
  Outcome outcomes[WORLD_EVENTS];
  int last[WORLD_AGGREGATES];  /* index of the last event that changed a row; -1: none */
  bool seen[WORLD_AGGREGATES]; /* an event took effect or was ignored */
  int64_t max_version[WORLD_AGGREGATES];
} Story;

/* Applies one event; the table is as before when it fails. */
Outcome reference_apply(const World *world, const WorldEvent *event, Table *table);
/* Applies all events in their order to `story->table`; behind a failed one its aggregate waits. */
void reference_run(const World *world, Story *story);
