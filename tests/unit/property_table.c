/* property_table.c - rows in memory, and the execution of a Fold on them. */
#include "tests/unit/property_table.h"

#include <stdlib.h>
#include <string.h>

/* --- rows ------------------------------------------------------------------------------------ */

void table_copy(Table *table, const Table *from) {
  table->count = from->count;
  memcpy(table->rows, from->rows, from->count * sizeof *from->rows);
}

Row *table_find(Table *table, unsigned projection, const char *key) {
  for (unsigned i = 0; i < table->count; i++)
    if (table->rows[i].projection == projection && !strcmp(table->rows[i].key, key))
      return &table->rows[i];
  return NULL;
}

Row *table_open(Table *table, unsigned projection, const char *key) {
  Row *row = table_find(table, projection, key);
  if (row)
    return row;
  row = &table->rows[table->count++];
  *row = (Row){.projection = projection};
  g_strlcpy(row->key, key, sizeof row->key);
  return row;
}

void table_remove(Table *table, unsigned projection, const char *key) {
  Row *row = table_find(table, projection, key);
  if (row)
    *row = table->rows[--table->count];
}

bool table_empty(Table *table, unsigned projection) {
  unsigned before = table->count;
  for (unsigned i = table->count; i-- > 0;)
    if (table->rows[i].projection == projection)
      table->rows[i] = table->rows[--table->count];
  return table->count < before;
}

void key_append(char key[static 96], const Cell *cell) {
  size_t length = strlen(key);
  if (cell->kind == CELL_TEXT)
    g_snprintf(key + length, 96 - length, "/%s", cell->text);
  else
    g_snprintf(key + length, 96 - length, "/%lld", (long long)cell->cents);
}

bool cell_add(Cell *cell, const Cell *delta, const WorldType *type) {
  if (cell->kind == CELL_NULL)
    return false;
  if (type->family == FAMILY_REAL) {
    cell->real += delta->real;
    return true;
  }
  int64_t sum = cell->cents + delta->cents;
  if (sum < type->low || sum > type->high)
    return false;
  cell->cents = sum;
  return true;
}

bool cell_turn_sign(Cell *cell, const WorldType *type) {
  cell->real = -cell->real;
  if (cell->kind != CELL_NUMBER)
    return true;
  cell->cents = -cell->cents;
  return cell->cents >= type->low && cell->cents <= type->high;
}

static int compare_texts(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

static void append_cell(GString *text, const Cell *cell) {
  switch (cell->kind) {
  case CELL_NULL: g_string_append(text, " null"); return;
  case CELL_NUMBER: g_string_append_printf(text, " %lld", (long long)cell->cents); return;
  case CELL_REAL: g_string_append_printf(text, " %.17g", cell->real); return;
  case CELL_TEXT: g_string_append_printf(text, " '%s'", cell->text); return;
  }
}

char *table_text(const Table *table, const World *world) {
  g_auto(GStrv) lines = g_new0(char *, table->count + 1);
  for (unsigned i = 0; i < table->count; i++) {
    const Row *row = &table->rows[i];
    g_autoptr(GString) line = g_string_new(NULL);
    g_string_printf(line, "t%u %s:", row->projection, row->key);
    for (unsigned j = 0; j < world->projections[row->projection].column_count; j++)
      append_cell(line, &row->cells[j]);
    lines[i] = g_strdup(line->str);
  }
  qsort(lines, table->count, sizeof *lines, compare_texts);
  return g_strjoinv("\n", lines);
}

/* --- values of the code under test as cells -------------------------------------------------- */

/* "-12.5" as hundredths; more than two fraction digits would be a wrong value here. */
static int64_t cents_of_text(const Value *value) {
  char text[64];
  g_snprintf(text, sizeof text, "%.*s", (int)value->length, value->text);
  char *point = strchr(text, '.');
  int64_t cents = llabs(strtoll(text, NULL, 10)) * 100;
  if (point) {
    size_t digits = strlen(point + 1);
    if (digits > 2)
      fail_msg("a value with more digits than anything had: %s", text);
    cents += strtoll(point + 1, NULL, 10) * (digits == 1 ? 10 : 1);
  }
  return text[0] == '-' ? -cents : cents;
}

static Cell cell_of(const Value *value) {
  Cell cell = {.kind = CELL_NUMBER};
  switch (value->kind) {
  case VALUE_NULL: return (Cell){.kind = CELL_NULL};
  case VALUE_INT: cell.cents = value->integer * 100; return cell;
  case VALUE_UINT: cell.cents = (int64_t)value->natural * 100; return cell;
  case VALUE_DECIMAL: cell.cents = cents_of_text(value); return cell;
  case VALUE_DOUBLE: return (Cell){.kind = CELL_REAL, .real = value->real};
  case VALUE_TEXT:
    cell.kind = CELL_TEXT;
    g_snprintf(cell.text, sizeof cell.text, "%.*s", (int)value->length, value->text);
    return cell;
  case VALUE_BINARY:
  case VALUE_DATE:
  case VALUE_DATETIME: break;
  }
  fail_msg("a value of a kind that no column has: %d", (int)value->kind);
  return cell;
}

static void key_of(const FoldedRow *folded, char key[static 96]) {
  key[0] = '\0';
  for (unsigned i = 0; i < folded->projection->key_count; i++) {
    Cell cell = cell_of(&folded->key[i]);
    key_append(key, &cell);
  }
}

/* --- execution ------------------------------------------------------------------------------- */

static bool execute_update(Table *table, const World *world, const FoldedRow *folded) {
  const WorldProjection *projection = &world->projections[folded->projection->index];
  char key[96];
  key_of(folded, key);
  Row *row = table_find(table, folded->projection->index, key);
  if (!row)
    return false;
  for (unsigned i = 0; i < projection->column_count; i++) {
    if (folded->modes[i] == COLUMN_KEEP)
      continue;
    Cell value = cell_of(&folded->updates[i]);
    if (folded->modes[i] == COLUMN_SET)
      row->cells[i] = value;
    else if (!cell_add(&row->cells[i], &value, projection->columns[i].type))
      return false;
  }
  return true;
}

static void execute_remove(Table *table, const FoldedRow *folded) {
  char key[96];
  key_of(folded, key);
  table_remove(table, folded->projection->index, key);
}

static void execute_write(Table *table, const World *world, const FoldedRow *folded) {
  char key[96];
  key_of(folded, key);
  Row *row = table_open(table, folded->projection->index, key);
  for (unsigned i = 0; i < world->projections[folded->projection->index].column_count; i++)
    row->cells[i] = cell_of(&folded->row[i]);
}

/* The rows of a phase are independent, so they are executed in another order than they come. */
static bool execute_rows(Table *table, const World *world, const GPtrArray *rows) {
  for (unsigned i = rows->len; i-- > 0;) {
    const FoldedRow *folded = rows->pdata[i];
    if (folded->update && !execute_update(table, world, folded))
      return false;
  }
  for (unsigned i = rows->len; i-- > 0;) {
    const FoldedRow *folded = rows->pdata[i];
    if (folded->remove)
      execute_remove(table, folded);
  }
  for (unsigned i = rows->len; i-- > 0;) {
    const FoldedRow *folded = rows->pdata[i];
    if (folded->write)
      execute_write(table, world, folded);
  }
  return true;
}

static bool execute_statement(Table *table, const World *world, const Change *change) {
  const Projection *projection = change->rule->projection;
  if (!change->key)
    return table_empty(table, projection->index);
  const FoldedRow row = {.projection = projection, .key = change->key};
  char key[96];
  key_of(&row, key);
  Row *found = table_find(table, projection->index, key);
  return found &&
         cell_turn_sign(&found->cells[0], world->projections[projection->index].columns[0].type);
}

bool table_execute(Table *table, const World *world, const Fold *fold) {
  for (unsigned i = 0; i < fold_step_count(fold); i++) {
    const Step *step = fold_step(fold, i);
    if (!(step->statement ? execute_statement(table, world, step->statement)
                          : execute_rows(table, world, step->rows)))
      return false;
  }
  return true;
}
