/* outbox_check.h - events of the outbox that need somebody: dead ones, and those that the ledger
 * has. */
#pragma once

#include "projector/app/reconcile/difference.h"

/* `type` NULL: of any aggregate type. */
bool stray_events(Stores *stores, const char *type, DifferenceSink sink, void *data,
                  Failure *ret_failure);
