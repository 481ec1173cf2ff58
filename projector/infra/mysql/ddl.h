/* ddl.h - tables and columns of a mapping as SQL. */
#pragma once

#include "projector/domain/mapping.h"

#include <glib.h>

/* CREATE TABLE for a projection, without a semicolon. Key columns of text compare byte by byte.
 * Free with g_free. */
char *ddl_create_table(const Projection *projection, bool mariadb);
/* Name, type and NULL or NOT NULL of a column of the projection. */
void ddl_append_column(GString *sql, const Projection *projection, unsigned index, bool mariadb);
/* " DEFAULT …" of a column whose mapping has a `value` or `default`: what existing rows get, and
 * rows from a projector that does not know the column yet. */
void ddl_append_default(GString *sql, const Column *column);
