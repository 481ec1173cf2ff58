/* mapping.h - which events change which rows: the `projections` of the mapping file, checked.
 *
 * The file's format is a contract (docs/mapping-file.md explains it on the bank example). A Mapping
 * never changes once it has been read, so all threads share it. */
#pragma once

#include "projector/domain/condition.h"
#include "projector/domain/source.h"
#include "projector/domain/types.h"

#include <glib.h>
#include <jansson.h>

typedef struct Column {
  const char *name;
  ColumnType type;
  Source from;
  bool nullable;
  bool compare; /* compared by reconcile */
} Column;

typedef enum Operation {
  OP_UPSERT,
  OP_UPDATE,
  OP_ADD,
  OP_SUBTRACT,
  OP_DELETE,
  OP_SQL,
  OP_IGNORE,
} Operation;

const char *operation_name(Operation operation);
/* Whether it adds to what is there. */
static inline bool operation_is_delta(Operation operation) {
  return operation == OP_ADD || operation == OP_SUBTRACT;
}

typedef struct Assignment {
  unsigned column; /* index into the projection's columns */
  bool set;        /* by `always`: set the value, also where an add or subtract would add */
  Source from;
} Assignment;

typedef struct Parameter {
  Source from;
  int column; /* the column with the same source, whose type the value takes; -1: its natural
               * type */
} Parameter;

typedef struct Projection Projection;

/* What one event type does to one projection. */
typedef struct Rule {
  const Projection *projection;
  const char *event_type;
  Operation operation;
  const Condition *when;     /* an event that does not match is ignored; NULL: all do */
  unsigned assignment_count; /* update, add, subtract; of a soft delete what marks the row */
  Assignment *assignments;
  bool soft;             /* delete: the row stays, and gets the assignments */
  const char *statement; /* sql: with ? for each parameter */
  uint32_t child_tables; /* update: a bit for each child table that it names */
  Source *items;         /* their arrays, by child table */
  bool of_entity;        /* upsert: from an entity and not from an event */
  unsigned parameter_count;
  Parameter *parameters;
  /* sql: by key column, the parameter with its value, of a statement that touches only the row with
   * that key; NULL: one that may touch anything. */
  const unsigned *key_parameters;
} Rule;

struct Projection {
  unsigned index;
  const char *aggregate_type;
  const char *table;
  const char *entities; /* NULL: none, so no refresh */
  const Condition
      *when; /* an upsert or an entity that does not match has no row; NULL: all have one */
  unsigned key_count; /* columns[0 … key_count-1] are the key */
  unsigned column_count;
  Column *columns;
  unsigned always_count; /* columns that every update and delta also sets */
  unsigned *always;
  unsigned rule_count;
  Rule *rules;
  Rule removal; /* replaces an upsert that does not match `when`: the delete of its row */
  bool allow_unique_keys;
  unsigned rank;            /* among all tables; child tables come behind their parent */
  const char *path;         /* "projections[0]", "projections[0].children[1]" */
  const Projection *parent; /* of a child table (children.h); else NULL */
  Source items;             /* of a child table: its array */
  unsigned child_count;
  Projection **children;
  int mark;              /* the column that marks a deleted row by not being NULL; -1: none */
  const Rule *soft_rule; /* the first soft delete, or NULL */
};

typedef struct Mapping Mapping;

/* `json` is the whole file; its other keys are ignored. */
Mapping *mapping_parse(const json_t *json, Failure *ret_failure);
void mapping_free(Mapping *mapping);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Mapping, mapping_free)

unsigned mapping_projection_count(const Mapping *mapping);
const Projection *mapping_projection(const Mapping *mapping, unsigned index);
/* The projection of that table, or NULL. */
const Projection *mapping_find(const Mapping *mapping, const char *table);
/* All tables: each projection's, then those of its children. */
unsigned mapping_table_count(const Mapping *mapping);
const Projection *mapping_table(const Mapping *mapping, unsigned index);
const Projection *mapping_find_table(const Mapping *mapping, const char *table);

/* Whether the projection is for aggregates of that type. */
bool projection_is_of(const Projection *projection, const char *aggregate_type, size_t length);
/* Whether an event of its aggregate can remove a row, and no other aggregate has that row too. */
bool projection_removes_own_rows(const Projection *projection);
/* Whether each event type that changes a row of the projection's aggregates writes or removes the
 * whole row: then any newer event has overwritten what an older one would write. */
bool mapping_overwrites(const Mapping *mapping, const Projection *projection);

/* The rules of all projections for this event, NULL-terminated, in the file's order; NULL when no
 * projection names it. */
const Rule *const *mapping_rules(const Mapping *mapping, const char *aggregate_type,
                                 size_t aggregate_type_length, const char *event_type,
                                 size_t event_type_length);
/* Whether events that no projection names are ignored instead of failing. */
bool mapping_ignores_unknown(const Mapping *mapping);
