/* event_reports.h - what is said about single events: in the log, and, of those that MongoDB
 * refuses, in `list` and on the page. */
#pragma once

#include "projector/app/engine/metrics.h"
#include "projector/app/engine/watch.h"
#include "projector/infra/log.h"

/* Repeated reports for an event are logged once in ten seconds, with a count. */
void report_event(Watch *watch, LogLevel level, const char *message, const Event *event,
                  const Failure *failure);
/* MongoDB refuses to mark the event, to copy it, or to let it leave the outbox. */
void report_refused(Watch *watch, Metrics *metrics, const char *message, const Event *event,
                    const Failure *failure);
