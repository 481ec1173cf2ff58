/* outbox_check.h - events of the outbox that need attention: dead ones, and those that the ledger
 * contains. */
#pragma once

#include "projector/app/reconcile/difference.h"

/* `type` NULL: of any aggregate type. */
bool outbox_check(Stores *stores, const char *type, DifferenceSink sink, void *data,
                  Failure *ret_failure);
