/* stores.h - what the programs of the bench share: the way to the stores, and out. */
#pragma once

#include <glib.h>
#include <mongoc/mongoc.h>
#include <mysql.h>

#include <stdbool.h>

/* Ends the program with one line unless good. */
void check(bool good, const char *what, const char *why);

/* A number among the arguments, from 1 to most; `fallback` when it is not there. */
guint argument(int argc, char **argv, int index, guint fallback, guint most);

/* The stores are named by the environment, as `./run servers env` prints it. Neither returns
 * NULL. */
mongoc_client_t *open_mongo(void);
MYSQL *open_mysql(const char *database, unsigned long flags);

/* Runs one statement, or several on a connection with CLIENT_MULTI_STATEMENTS. */
void run_sql(MYSQL *mysql, const char *sql, size_t length);
