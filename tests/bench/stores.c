/* stores.c - the way to the stores, and out. */
#include "stores.h"

#include <stdio.h>
#include <stdlib.h>

void check(bool good, const char *what, const char *why) {
  if (good)
    return;
  fprintf(stderr, "%s: %s: %s\n", g_get_prgname(), what, why);
  exit(1);
}

guint argument(int argc, char **argv, int index, guint fallback, guint most) {
  if (index >= argc)
    return fallback;
  guint64 number = 0;
  check(g_ascii_string_to_unsigned(argv[index], 10, 1, most, &number, NULL), argv[index],
        "not a number in range");
  return (guint)number;
}

static const char *variable(const char *name) {
  const char *value = g_getenv(name);
  check(value != NULL, name, "not set; start it through ./run bench");
  return value;
}

mongoc_client_t *open_mongo(void) {
  mongoc_client_t *client = mongoc_client_new(variable("MONGO_URI"));
  check(client != NULL, "MONGO_URI", "not a URI");
  return client;
}

MYSQL *open_mysql(const char *database, unsigned long flags) {
  MYSQL *mysql = mysql_init(NULL);
  unsigned port = (unsigned)g_ascii_strtoull(variable("MYSQL_PORT"), NULL, 10);
  bool good = mysql_real_connect(mysql, variable("MYSQL_HOST"), variable("MYSQL_USER"),
                                 variable("MYSQL_PASSWORD"), database, port, NULL, flags) != NULL;
  check(good, "MySQL", mysql_error(mysql));
  return mysql;
}

void run_sql(MYSQL *mysql, const char *sql, size_t length) {
  int status = mysql_real_query(mysql, sql, length);
  for (; status == 0; status = mysql_next_result(mysql)) {
    MYSQL_RES *result = mysql_store_result(mysql);
    if (result)
      mysql_free_result(result);
  }
  check(status < 0, "MySQL", mysql_error(mysql));
}
