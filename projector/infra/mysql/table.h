/* table.h - what a table is, as information_schema tells this user. */
#pragma once

#include "projector/infra/mysql/session.h"

typedef struct TableColumn {
  char *name, *type, *full_type, *charset, *collation;
  bool nullable, has_default, generated;
  uint64_t bytes, characters;
  unsigned precision, scale, fraction;
  bool touches_itself;
} TableColumn;

typedef struct TableIndex {
  char *name;
  bool prefix;        /* only a prefix of some column is unique */
  GPtrArray *columns; /* names */
} TableIndex;

typedef struct Table {
  GPtrArray *columns; /* of TableColumn; empty: the table does not exist */
  GPtrArray *unique;  /* of TableIndex */
  bool mariadb;
} Table;

/* An empty one. */
Table *table_new(const Session *session);
void table_free(Table *table);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Table, table_free)

/* A table that is missing, or that the user may not see, has no columns. NULL when the server could
 * not be asked; the same for the others. */
Table *table_read(Session *session, const char *name, Failure *ret_failure);
/* Only its unique keys. */
bool table_read_unique(Session *session, const char *name, Table *table, Failure *ret_failure);
/* By name, whatever its case; NULL: there is none. */
const TableColumn *table_find_column(const Table *table, const char *name);
/* The query with the table's name as a literal behind it, ordered by its first two columns. */
MYSQL_RES *table_ask(Session *session, const char *query, const char *table, Failure *ret_failure);
