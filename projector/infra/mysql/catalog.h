/* catalog.h - compares MySQL's tables with the mapping. */
#pragma once

#include "projector/domain/mapping.h"
#include "projector/infra/finding.h"
#include "projector/infra/mysql/session.h"

/* Compares the projector's own tables and the projections' tables with the database. Returns an
 * array of Finding, empty when there are none; NULL when the server could not be queried. */
GPtrArray *catalog_check(Session *session, const Mapping *mapping, Failure *ret_failure);

/* The index that a join by the projection's key has to use: " FORCE INDEX (PRIMARY)", or "" when
 * the key is not the table's primary key or the table is not visible. Cached in the session; NULL
 * when the server could not be queried. */
const char *catalog_key_hint(Session *session, const Projection *projection, Failure *ret_failure);

/* ALTER TABLE statements that add the columns that an existing table lacks; NULL on failure. Empty
 * when the table is missing altogether (`*ret_exists` is false then). */
GPtrArray *catalog_missing_columns(Session *session, const Projection *projection, bool *ret_exists,
                                   Failure *ret_failure);
/* Names of missing columns of a table that is there which are NOT NULL; borrowed. */
bool catalog_columns_without_value(Session *session, const Projection *projection, GPtrArray *names,
                                   Failure *ret_failure);
