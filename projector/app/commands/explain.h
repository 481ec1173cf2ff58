/* explain.h - everything known about one aggregate, as `explain --json` prints it. */
#pragma once

#include "projector/app/shared/stores.h"

#include <jansson.h>

/* Fills in the document, with only the event of that version (0: the first ones). `*ret_found` is
 * false when there is no such aggregate. */
bool explain_aggregate(Stores *stores, const char *type, const char *id, int64_t version,
                       json_t *document, bool *ret_found, Failure *ret_failure);
