/* explain.h - all that is known of one aggregate, as `explain --json` prints it. */
#pragma once

#include "projector/app/shared/stores.h"

#include <jansson.h>

/* Fills in the document, of its events only the one with that version (0: the first ones); without
 * the aggregate (`*ret_found` false) it says that. */
bool explain_aggregate(Stores *stores, const char *type, const char *id, int64_t version,
                       json_t *document, bool *ret_found, Failure *ret_failure);
