/* mapping_private.h - what the files that read the mapping file share. */
#pragma once

#include "projector/domain/mapping.h"

struct Mapping {
  Arena *arena;           /* every string below */
  GPtrArray *projections; /* of Projection */
  GPtrArray *tables;      /* of Projection: the same, each with its child tables behind it */
  GHashTable *rules; /* "aggregate type\0event type" as GBytes → GPtrArray of Rule, NULL-ended */
  bool ignores_unknown;
};

/* --- mapping.c --- */

bool mapping_take_table(Mapping *mapping, const json_t *json, const char *path,
                        Projection *projection, Failure *ret_failure);
/* Appends the columns of the object, or of a key, to those of the projection. */
bool mapping_parse_columns(Mapping *mapping, Projection *projection, const json_t *json,
                           const char *path, bool is_key, Failure *ret_failure);

/* --- mapping_children.c --- */

/* Reads `children` of the projection, the key and columns of which are there. */
bool mapping_parse_children(Mapping *mapping, Projection *projection, const json_t *json,
                            const char *path, Failure *ret_failure);
/* The child table that an update names among its columns; `from` is NULL or where its array is.
 * `*ret_found` false: there is no child table of that name. */
bool mapping_parse_child_update(Mapping *mapping, const char *name, const json_t *from,
                                const char *path, Rule *rule, bool *ret_found,
                                Failure *ret_failure);
