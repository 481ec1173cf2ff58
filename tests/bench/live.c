/* live.c - writes events at a rate, and measures how soon they show in MySQL.
 *
 *   live DATABASE RATE SECONDS PROBES AGGREGATES
 *
 * WRITERS threads insert RATE events a second between them, one by one, each acknowledged by a
 * majority. Beside them PROBES times a second one event of an account of its own is inserted the
 * same way: the clock starts when the insert is acknowledged, and stops when a SELECT by primary
 * key finds the row. It pauses between two looks, at the cost of the result: without that the
 * looking took a fifth of a core from what is measured. DATABASE is the name of both databases.
 * Prints one JSON object. */
#include "events.h"
#include "stores.h"

#include <stdio.h>
#include <time.h>

enum { WRITERS = 8, GIVE_UP_S = 20, LOOK_PAUSE_US = 250, US = G_USEC_PER_SEC };

typedef struct Writer {
  const char *database;
  guint rate, seconds; /* rate of this writer */
  guint aggregates;
  int index;
  gint64 start; /* monotonic, us */
  GThread *thread;
  Totals totals;
  GArray *insert_us, *visible_us; /* of gint64; visible_us is used only by the prober */
  gint64 late_us;                 /* at most behind its schedule */
  gint64 cpu_us;
} Writer;

static gint64 thread_cpu_us(void) {
  struct timespec used;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return used.tv_sec * US + used.tv_nsec / 1000;
}

static void sleep_until(Writer *writer, gint64 due) {
  struct timespec until = {.tv_sec = due / US, .tv_nsec = due % US * 1000};
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
  gint64 late_us = g_get_monotonic_time() - due;
  writer->late_us = MAX(writer->late_us, late_us);
}

/* Returns the time of the acknowledgement. */
static gint64 insert(Writer *writer, mongoc_collection_t *outbox, Events *events) {
  bson_error_t error;
  bson_t event = BSON_INITIALIZER;
  events_next(events, g_get_real_time() / 1000, &event);
  gint64 before = g_get_monotonic_time();
  bool good = mongoc_collection_insert_one(outbox, &event, NULL, NULL, &error);
  gint64 now = g_get_monotonic_time(), took = now - before;
  check(good, "insert", error.message);
  g_array_append_val(writer->insert_us, took);
  bson_destroy(&event);
  return now;
}

static mongoc_collection_t *open_outbox(mongoc_client_t *client, const char *database) {
  mongoc_collection_t *outbox = mongoc_client_get_collection(client, database, "outbox");
  mongoc_write_concern_t *majority = mongoc_write_concern_new();
  mongoc_write_concern_set_wmajority(majority, -1);
  mongoc_collection_set_write_concern(outbox, majority);
  mongoc_write_concern_destroy(majority);
  return outbox;
}

static gpointer write_events(gpointer data) {
  Writer *writer = data;
  char prefix[16];
  snprintf(prefix, sizeof prefix, "%c-", 'a' + writer->index);
  mongoc_client_t *client = open_mongo();
  mongoc_collection_t *outbox = open_outbox(client, writer->database);
  Events *events = events_new("upsert", prefix, writer->aggregates);
  guint64 count = (guint64)writer->rate * writer->seconds;
  /* Each starts a little later than the one before: an even flow, not bursts. */
  gint64 start = writer->start + US / writer->rate * writer->index / WRITERS;
  for (guint64 i = 0; i < count; i++) {
    sleep_until(writer, start + (gint64)(i * US / writer->rate));
    insert(writer, outbox, events);
  }
  writer->totals = events_totals(events);
  events_free(events);
  mongoc_collection_destroy(outbox);
  mongoc_client_destroy(client);
  writer->cpu_us = thread_cpu_us();
  return NULL;
}

static bool is_visible(MYSQL *mysql, const char *sql, size_t length) {
  check(mysql_real_query(mysql, sql, length) == 0, "SELECT", mysql_error(mysql));
  MYSQL_RES *result = mysql_store_result(mysql);
  check(result != NULL, "SELECT", mysql_error(mysql));
  bool found = mysql_num_rows(result) > 0;
  mysql_free_result(result);
  return found;
}

static gpointer probe(gpointer data) {
  Writer *writer = data;
  guint count = writer->rate * writer->seconds;
  mysql_thread_init();
  MYSQL *mysql = open_mysql(writer->database, 0);
  mongoc_client_t *client = open_mongo();
  mongoc_collection_t *outbox = open_outbox(client, writer->database);
  Events *events = events_new("upsert", "probe-", count);
  for (guint i = 0; i < count; i++) {
    char sql[96];
    int length = snprintf(sql, sizeof sql, "SELECT 1 FROM account WHERE id = 'probe-%06u'", i);
    /* Not in step with the writers. */
    gint64 jitter = g_random_int_range(0, US / (gint)writer->rate / 2);
    sleep_until(writer, writer->start + (gint64)i * US / writer->rate + jitter);
    gint64 written = insert(writer, outbox, events);
    while (!is_visible(mysql, sql, (size_t)length)) {
      check(g_get_monotonic_time() - written < (gint64)GIVE_UP_S * US, "probe",
            "the row did not come");
      g_usleep(LOOK_PAUSE_US);
    }
    gint64 took = g_get_monotonic_time() - written;
    g_array_append_val(writer->visible_us, took);
  }
  writer->totals = events_totals(events);
  events_free(events);
  mongoc_collection_destroy(outbox);
  mongoc_client_destroy(client);
  mysql_close(mysql);
  mysql_thread_end();
  writer->cpu_us = thread_cpu_us();
  return NULL;
}

static void print_list(const char *name, const GArray *list) {
  printf(", \"%s\": [", name);
  for (guint i = 0; i < list->len; i++)
    printf(i ? ", %" G_GINT64_FORMAT : "%" G_GINT64_FORMAT, g_array_index(list, gint64, i));
  printf("]");
}

static void print(const Writer *writers) {
  const Writer *prober = &writers[WRITERS];
  Totals totals = {0};
  guint written = 0;
  gint64 late_us = 0, cpu_us = 0;
  for (int i = 0; i <= WRITERS; i++) {
    totals.rows += writers[i].totals.rows;
    totals.balance += writers[i].totals.balance;
    written += writers[i].insert_us->len;
    late_us = MAX(late_us, writers[i].late_us);
    cpu_us += writers[i].cpu_us;
  }
  printf("{\"written\": %u, \"rows\": %" G_GINT64_FORMAT ", \"balance\": %" G_GINT64_FORMAT
         ", \"late_us\": %" G_GINT64_FORMAT ", \"writers_cpu_us\": %" G_GINT64_FORMAT
         ", \"probes_cpu_us\": %" G_GINT64_FORMAT,
         written, totals.rows, totals.balance, late_us, cpu_us - prober->cpu_us, prober->cpu_us);
  print_list("insert_us", prober->insert_us);
  print_list("visible_us", prober->visible_us);
  printf("}\n");
}

int main(int argc, char **argv) {
  g_set_prgname("live");
  check(argc == 6, "usage", "live DATABASE RATE SECONDS PROBES AGGREGATES");
  guint rate = argument(argc, argv, 2, 0, 100000), seconds = argument(argc, argv, 3, 0, 3600);
  guint probes = argument(argc, argv, 4, 0, 1000), aggregates = argument(argc, argv, 5, 0, 1000000);
  mongoc_init();
  mysql_library_init(0, NULL, NULL);
  Writer writers[WRITERS + 1];
  gint64 start = g_get_monotonic_time() + US / 2;
  for (int i = 0; i <= WRITERS; i++) {
    writers[i] = (Writer){.database = argv[1],
                          .rate = i < WRITERS ? MAX((rate - probes) / WRITERS, 1) : probes,
                          .seconds = seconds,
                          .aggregates = MAX(aggregates / WRITERS, 1),
                          .index = i,
                          .start = start,
                          .insert_us = g_array_new(FALSE, FALSE, sizeof(gint64)),
                          .visible_us = g_array_new(FALSE, FALSE, sizeof(gint64))};
    writers[i].thread = g_thread_new("writer", i < WRITERS ? write_events : probe, &writers[i]);
  }
  for (int i = 0; i <= WRITERS; i++)
    g_thread_join(writers[i].thread);
  print(writers);
  for (int i = 0; i <= WRITERS; i++) {
    g_array_unref(writers[i].insert_us);
    g_array_unref(writers[i].visible_us);
  }
  mysql_library_end();
  mongoc_cleanup();
  return 0;
}
