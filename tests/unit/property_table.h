/* property_table.h - rows in memory, and what a Fold does to them, as fold.h says. */
#pragma once

#include "projector/domain/fold.h"
#include "tests/unit/property_world.h"

enum { TABLE_ROWS = WORLD_EVENTS * WORLD_PROJECTIONS + WORLD_AGGREGATES * WORLD_PROJECTIONS };

typedef struct Cell {
  enum { CELL_NULL, CELL_NUMBER, CELL_REAL, CELL_TEXT } kind;
  int64_t cents;
  double real;
  char text[48];
} Cell;

typedef struct Row {
  unsigned projection;
  char key[96];
  Cell cells[WORLD_COLUMNS];
} Row;

/* The tables of all projections. */
typedef struct Table {
  unsigned count;
  Row rows[TABLE_ROWS];
} Table;

void table_copy(Table *table, const Table *from);
Row *table_find(Table *table, unsigned projection, const char *key);
/* The row of that key, made when it is missing. */
Row *table_open(Table *table, unsigned projection, const char *key);
void table_remove(Table *table, unsigned projection, const char *key);
/* Removes all rows of a projection; false when there are none. */
bool table_empty(Table *table, unsigned projection);
/* Appends a key column's value to the key's text. */
void key_append(char key[static 96], const Cell *cell);
/* `cell` + `delta`; false when it is NULL or the sum does not fit the type. */
/* False when its type does not hold it. */
bool cell_turn_sign(Cell *cell, const WorldType *type);
bool cell_add(Cell *cell, const Cell *delta, const WorldType *type);

/* Executes the steps: in each, all updates, then all removals, then all writes. False when an
 * updated row is missing, a sum does not fit or a statement touches no row. */
bool table_execute(Table *table, const World *world, const Fold *fold);
/* All rows as text, sorted, for comparing and printing. Free with g_free. */
char *table_text(const Table *table, const World *world);
