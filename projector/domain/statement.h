/* statement.h - the one SQL statement of an `sql` rule: named parameters become placeholders. */
#pragma once

#include "projector/domain/mapping.h"

/* Whether the statement only changes rows: one INSERT, UPDATE, DELETE or REPLACE, also after WITH.
 * Any other could end the transaction (DDL, COMMIT, TRUNCATE), change the session (SET) or have
 * unknown effects (CALL). */
bool statement_changes_rows(const char *text);

/* Fills statement, parameter_count and parameters of the rule from ":name" marks outside quotes and
 * comments. Refuses an empty statement and more than one. `ret_wrong` says what was expected. */
bool statement_parse(const char *text, Arena *arena, Rule *rule, const char **ret_wrong);

/* Whether the statement contains the name, of a column say, quoted or not and in whatever case. */
bool statement_names(const char *text, const char *name);

/* The statement with `to` instead of `table`; free it. NULL when it does not simply change that
 * table: INSERT or REPLACE INTO it, UPDATE it SET, DELETE FROM it; or when it names it
 * together with its database, which could also be a column. */
char *statement_retarget(const char *text, const char *table, const char *to);
