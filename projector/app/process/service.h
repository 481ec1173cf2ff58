/* service.h - notifies the service manager: up, working or standing by, alive, stopping. Like the
 * log, there is one per process; without a manager it does nothing.
 *
 * Alive means progress: whoever is at work, a worker that has a batch, for example, gets answers
 * from the stores, good or bad. A part that waits for events or for an unreachable store is alive
 * too. One that makes no move in spite of all timeouts is hung: the manager then ends the process,
 * and the next one recovers what it left. Starting, standing by and stopping are not watched. */
#pragma once

#include "projector/infra/pulse.h"

#include <stdbool.h>
#include <stdint.h>

/* Configuration and tables are valid; from now on only outages can happen, and the process survives
 * those. */
void service_is_up(void);
void service_is_stopping(void);

typedef struct ServicePart {
  const char *name; /* "a worker"; a literal */
  int64_t rest_ms;  /* for so long it makes no move while all is well */
  Pulse *pulse;     /* lives until the tenure ends */
} ServicePart;

/* A tenure with these parts begins, which may take `step_ms` for one step; it ends. */
void service_begins_work(const ServicePart *parts, unsigned count, int64_t step_ms);
void service_ends_work(void);
/* Looks at all parts; call it several times a second. */
void service_look(void);
/* Whether no part, and not the thread that calls service_look either, has been silent for so long.
 * For the thread that notifies the manager, four times within its limit. */
bool service_is_alive(int64_t limit_us, const char **ret_part);
/* How long a part has been at work without a move, in ms; of several, the one with the longest. */
int64_t service_stuck_ms(const char **ret_part);
