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

/* --- mapping_columns.c --- */

/* The table of that name among projections; NULL: there is none. */
const Projection *mapping_find_among(const GPtrArray *tables, const char *table);
/* The text, kept as long as the mapping. */
const char *mapping_keep(Mapping *mapping, const char *text);
/* False, with what was expected at `key` of the object at `path`. */
bool mapping_wrong(Failure *ret_failure, const char *path, const char *key, const char *expected,
                   const json_t *found);
/* The column's index, or -1. */
int mapping_find_column(const Projection *projection, const char *name);
/* Whether the column can hold what its source is known to give: constants, and whole payloads. */
bool mapping_check_sources(const Column *column, const char *path, Failure *ret_failure);

bool mapping_take_table(Mapping *mapping, const json_t *json, const char *path,
                        Projection *projection, Failure *ret_failure);
/* Appends the columns of the object, or of a key, to those of the projection. */
bool mapping_parse_columns(Mapping *mapping, Projection *projection, const json_t *json,
                           const char *path, bool is_key, Failure *ret_failure);

/* --- mapping_children.c --- */

/* Reads `children` of the projection, whose key and columns have already been read. */
bool mapping_parse_children(Mapping *mapping, Projection *projection, const json_t *json,
                            const char *path, Failure *ret_failure);
/* The child table that an update names among its columns; `from` is NULL or where its array is.
 * `*ret_found` false: there is no child table of that name. */
bool mapping_parse_child_update(Mapping *mapping, const char *name, const json_t *from,
                                const char *path, Rule *rule, bool *ret_found,
                                Failure *ret_failure);
