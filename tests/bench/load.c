/* load.c - fills an outbox.
 *
 *   load DATABASE WORKLOAD EVENTS AGGREGATES [BYTES]
 *
 * Inserts EVENTS events of WORKLOAD (events.h) over AGGREGATES accounts into the collection
 * `outbox` of DATABASE, whole states with so many bytes more, and prints what the table has to hold
 * in the end: rows and sum of balances. */
#include "events.h"
#include "stores.h"

#include <stdio.h>

enum { TOGETHER = 1000, TOGETHER_BYTES = 40000000 };

static const gint64 first_event_ms = 1700000000000;

static void insert(mongoc_collection_t *outbox, bson_t **documents, guint count) {
  bson_error_t error;
  bson_t *options = BCON_NEW("ordered", BCON_BOOL(false));
  bool good = mongoc_collection_insert_many(outbox, (const bson_t **)documents, count, options,
                                            NULL, &error);
  check(good, "insert", error.message);
  bson_destroy(options);
  for (guint i = 0; i < count; i++)
    bson_destroy(documents[i]);
}

int main(int argc, char **argv) {
  g_set_prgname("load");
  check(argc == 5 || argc == 6, "usage", "load DATABASE WORKLOAD EVENTS AGGREGATES [BYTES]");
  guint count = argument(argc, argv, 3, 0, 100000000), open = 0;
  Events *events = events_new(argv[2], "account-", argument(argc, argv, 4, 0, 10000000));
  check(events != NULL, argv[2], "no such workload");
  if (argc == 6)
    events_fill(events, argument(argc, argv, 5, 0, 16000000));
  gsize bytes = 0;
  mongoc_init();
  mongoc_client_t *client = open_mongo();
  mongoc_collection_t *outbox = mongoc_client_get_collection(client, argv[1], "outbox");
  g_autofree bson_t **documents = g_new(bson_t *, TOGETHER);
  for (guint i = 0; i < count; i++) {
    documents[open] = bson_new();
    events_next(events, first_event_ms + i, documents[open]);
    bytes += documents[open++]->len;
    if (open == TOGETHER || bytes > TOGETHER_BYTES || i + 1 == count) {
      insert(outbox, documents, open);
      open = 0;
      bytes = 0;
    }
  }
  Totals totals = events_totals(events);
  printf("{\"rows\": %" G_GINT64_FORMAT ", \"balance\": %" G_GINT64_FORMAT "}\n", totals.rows,
         totals.balance);
  events_free(events);
  mongoc_collection_destroy(outbox);
  mongoc_client_destroy(client);
  mongoc_cleanup();
  return 0;
}
