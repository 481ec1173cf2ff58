/* explain.h - everything known about one aggregate, as `explain --json` prints it. */
#pragma once

#include "projector/app/shared/stores.h"

#include <jansson.h>

/* What to explain. */
typedef struct Explained {
  const char *type, *id;
  const char *kind; /* of the id (id_kind_name); NULL: the first that exists */
  int64_t version;  /* only the event of that version; 0: the first ones */
} Explained;

/* Fills in the document. `*ret_found` is false when there is no such aggregate. */
bool explain_aggregate(Stores *stores, const Explained *what, json_t *document, bool *ret_found,
                       Failure *ret_failure);
