/* tenure.h - the time in which this process owns the name. Losing it ends the tenure, not the
 * process. */
#pragma once

#include "projector/app/engine/metrics.h"
#include "projector/app/engine/stop.h"
#include "projector/app/shared/config.h"
#include "projector/infra/mongo/store.h"

/* Stands by until this process owns the name, then works until the tenure is lost or `process` has
 * to stop. A failure that a retry cannot fix requests the stop of `process`. With `once` it ends
 * when the outbox holds nothing that can be applied now, and requests that stop too. Returns false
 * when a failure ended it soon after it began; the caller pauses, longer each time. */
bool tenure_serve(const Config *config, MongoStore *store, Metrics *metrics, Pace *pace,
                  Stop *process, bool once);
