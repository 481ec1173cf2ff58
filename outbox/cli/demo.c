// `outbox demo`: several writers change the accounts of a small bank at a given rate.
#include "outbox/cli/bank.h"
#include "outbox/cli/cli.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum { WRITERS_MAX = 64, ACCOUNTS_MAX = 10000000, SLICE_US = 50000, LATE_US = G_USEC_PER_SEC };

typedef struct {
  outbox_t *outbox;
  char *entities;
  int rate;    // events per second, all writers together; 0: no limit
  int seconds; // 0: until a signal
  int events;  // 0: no limit
  int accounts;
  int seed;
  int writers;
  gboolean quiet;
  int64_t start_us;
  // Written by the writers.
  gint written, opened, closed;
  gint stop;
  GMutex mutex; // of error
  outbox_error_t error;
} demo_t;

typedef struct {
  demo_t *demo;
  int index;
  GThread *thread;
} writer_t;

static volatile sig_atomic_t signalled;

static void on_signal(int number) {
  (void)number;
  signalled = 1;
}

static bool must_stop(demo_t *demo) {
  return signalled || g_atomic_int_get(&demo->stop);
}

// Waits for the writer's turn. After an outage there is no burst: the schedule moves.
static void await_turn(demo_t *demo, int64_t turn, int64_t *base_us) {
  if (demo->rate == 0) {
    return;
  }
  int64_t due_us = *base_us + turn * G_USEC_PER_SEC / demo->rate;
  int64_t wait_us = due_us - g_get_monotonic_time();
  if (wait_us < -LATE_US) {
    *base_us -= wait_us;
  }
  while (wait_us > 0 && !must_stop(demo)) {
    g_usleep((gulong)MIN(wait_us, SLICE_US));
    wait_us = due_us - g_get_monotonic_time();
  }
}

static bool write_move(demo_t *demo, bank_account_t *account, bank_move_t *move) {
  outbox_error_t error;
  bson_value_t id = outbox_id_string(move->kind == OUTBOX_DELETE ? account->id : move->after.id);
  outbox_change_t change = {.collection = demo->entities,
                            .kind = move->kind,
                            .document = move->kind == OUTBOX_DELETE ? NULL : &move->change};
  outbox_event_t event = {.aggregate_type = "account",
                          .aggregate_id = &id,
                          .event_type = move->event_type,
                          .payload = &move->payload};
  if (!outbox_write(demo->outbox, &change, &event, NULL, &error)) {
    g_mutex_lock(&demo->mutex);
    if (demo->error.kind == OUTBOX_OK) {
      demo->error = error;
    }
    g_mutex_unlock(&demo->mutex);
    g_atomic_int_set(&demo->stop, 1);
    return false;
  }
  g_atomic_int_inc(&demo->written);
  if (move->kind == OUTBOX_INSERT) {
    g_atomic_int_inc(&demo->opened);
  } else if (move->kind == OUTBOX_DELETE) {
    g_atomic_int_inc(&demo->closed);
  }
  *account = move->after;
  return true;
}

// Each writer has its own accounts and random numbers, so that a seed always gives the same
// events.
static gpointer run_writer(gpointer data) {
  writer_t *writer = data;
  demo_t *demo = writer->demo;
  int count = demo->accounts / demo->writers + (writer->index < demo->accounts % demo->writers);
  g_autofree bank_account_t *accounts = g_new0(bank_account_t, count);
  const guint32 seed[] = {(guint32)demo->seed, (guint32)writer->index};
  GRand *random = g_rand_new_with_seed_array(seed, G_N_ELEMENTS(seed));
  int64_t base_us = demo->start_us;
  for (int64_t turn = writer->index; demo->events == 0 || turn < demo->events;
       turn += demo->writers) {
    await_turn(demo, turn, &base_us);
    if (must_stop(demo)) {
      break;
    }
    bank_account_t *account = &accounts[g_rand_int_range(random, 0, count)];
    bank_move_t move;
    bank_next(random, account, g_get_real_time() / 1000, &move);
    bool good = write_move(demo, account, &move);
    bank_move_clear(&move);
    if (!good) {
      break;
    }
  }
  g_rand_free(random);
  return NULL;
}

static double elapsed_s(const demo_t *demo) {
  return (double)(g_get_monotonic_time() - demo->start_us) / G_USEC_PER_SEC;
}

// Shows the progress until every writer is done or time is up: on a terminal in one line that is
// overwritten, otherwise a line every two seconds.
static void watch(demo_t *demo, writer_t *writers) {
  bool terminal = isatty(STDERR_FILENO);
  int64_t every_us = terminal ? G_USEC_PER_SEC / 4 : 2 * G_USEC_PER_SEC;
  int64_t shown_us = demo->start_us;
  gint shown = 0;
  while (!must_stop(demo)) {
    g_usleep(SLICE_US);
    int64_t now_us = g_get_monotonic_time();
    gint written = g_atomic_int_get(&demo->written);
    if (!demo->quiet && now_us - shown_us >= every_us) {
      double rate = (written - shown) * (double)G_USEC_PER_SEC / (double)(now_us - shown_us);
      fprintf(stderr, terminal ? "\r%d events, %.0f/s \033[K" : "%d events, %.0f/s\n", written,
              rate);
      shown = written;
      shown_us = now_us;
    }
    if ((demo->seconds > 0 && elapsed_s(demo) >= demo->seconds) ||
        (demo->events > 0 && written >= demo->events)) {
      g_atomic_int_set(&demo->stop, 1);
    }
  }
  for (int i = 0; i < demo->writers; i++) {
    g_thread_join(writers[i].thread);
  }
  if (terminal && !demo->quiet) {
    fputs("\r\033[K", stderr);
  }
}

static int run(demo_t *demo) {
  outbox_error_t error;
  if (!outbox_init(demo->outbox, &error) ||
      !outbox_create_collection(demo->outbox, demo->entities, &error)) {
    cli_say("%s", error.message);
    return cli_status(&error);
  }
  // A second signal ends the program at once.
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGINT, &action, NULL);
  g_autofree writer_t *writers = g_new0(writer_t, demo->writers);
  demo->start_us = g_get_monotonic_time();
  for (int i = 0; i < demo->writers; i++) {
    writers[i] = (writer_t){.demo = demo, .index = i};
    writers[i].thread = g_thread_new("writer", run_writer, &writers[i]);
  }
  watch(demo, writers);
  double seconds = elapsed_s(demo);
  printf("wrote %d events in %.1f s (%.0f/s): %d accounts opened, %d closed, %d open\n",
         demo->written, seconds, demo->written / seconds, demo->opened, demo->closed,
         demo->opened - demo->closed);
  if (demo->error.kind != OUTBOX_OK) {
    cli_say("%s", demo->error.message);
  }
  return cli_status(&demo->error);
}

static bool check_range(const char *option, int value, int least, int most) {
  if (value < least || value > most) {
    cli_say("--%s: expected %d to %d, found %d", option, least, most, value);
    return false;
  }
  return true;
}

static const char DESCRIPTION[] =
    "Opens accounts and then deposits, withdraws, renames, sends statements, freezes and closes,\n"
    "each time changing the entity and writing its event in one transaction. Prints a summary on\n"
    "stdout, progress on stderr. SIGTERM or SIGINT ends it cleanly. Account ids are new in\n"
    "every run; with the same --seed and --writers everything else is the same.";

int cli_demo(int argc, char **argv) {
  demo_t demo = {.rate = 200, .seconds = -1, .accounts = 100, .seed = 1, .writers = 4};
  g_autofree char *entities = NULL;
  const GOptionEntry entries[] = {
      {"rate", 0, 0, G_OPTION_ARG_INT, &demo.rate,
       "events per second; 0: as fast as possible (default: 200)", "N"},
      {"seconds", 0, 0, G_OPTION_ARG_INT, &demo.seconds,
       "how long; 0: until SIGTERM (default: 20, or as long as --events needs)", "S"},
      {"events", 0, 0, G_OPTION_ARG_INT, &demo.events, "how many events (default: no limit)", "N"},
      {"accounts", 0, 0, G_OPTION_ARG_INT, &demo.accounts,
       "accounts that are open at a time (default: 100)", "N"},
      {"writers", 0, 0, G_OPTION_ARG_INT, &demo.writers, "threads that write (default: 4)", "N"},
      {"seed", 0, 0, G_OPTION_ARG_INT, &demo.seed, "seed of the random choices (default: 1)", "N"},
      {"entities", 0, 0, G_OPTION_ARG_STRING, &entities,
       "collection of the accounts (default: accounts)", "NAME"},
      {"quiet", 'q', 0, G_OPTION_ARG_NONE, &demo.quiet, "no progress, only the summary", NULL},
      {NULL},
  };
  const cli_usage_t usage = {.name = "demo",
                             .summary = "write the events of a small bank at a rate",
                             .description = DESCRIPTION,
                             .entries = entries};
  g_auto(cli_store_t) store = {0};
  int status;
  if (!cli_parse(&usage, argc, argv, &store, &status)) {
    return status;
  }
  if (demo.seconds < 0) {
    demo.seconds = demo.events > 0 ? 0 : 20;
  }
  if (!check_range("rate", demo.rate, 0, 1000000) ||
      !check_range("seconds", demo.seconds, 0, G_MAXINT) ||
      !check_range("events", demo.events, 0, G_MAXINT) ||
      !check_range("accounts", demo.accounts, 1, ACCOUNTS_MAX) ||
      !check_range("writers", demo.writers, 1, WRITERS_MAX)) {
    return STATUS_WRONG;
  }
  demo.writers = MIN(demo.writers, demo.accounts);
  demo.entities = entities ? entities : (char *)"accounts";
  g_autoptr(outbox_t) outbox = cli_open(&store, true, &status);
  if (!outbox) {
    return status;
  }
  demo.outbox = outbox;
  g_mutex_init(&demo.mutex);
  status = run(&demo);
  g_mutex_clear(&demo.mutex);
  return status;
}
