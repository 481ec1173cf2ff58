/* events.c - the events of the bench. */
#include "events.h"

#include <stdio.h>
#include <string.h>

enum { FROZEN_MAX = 5 }; /* so many times " (frozen)" still fits into the name */

typedef struct Account {
  bool open;
  int frozen;
  gint64 version, balance;
} Account;

typedef void Writer(Events *events, Account *account, bson_t *event);

struct Events {
  Writer *write;
  const char *prefix;
  guint aggregates;
  guint64 count;
  char *filler; /* a text that no column uses; NULL: none */
  guint8 id[16];
  GRand *random; /* seeded, the same in every run; ids are not */
  Account *accounts;
};

/* --- parts of an event --------------------------------------------------------------------- */

/* The write side's event ids are UUIDs of version 7: time, then a counter, then noise. */
static void next_id(Events *events) {
  guint64 time = (guint64)g_get_real_time() / 1000, count = ++events->count;
  for (int i = 0; i < 6; i++)
    events->id[i] = (guint8)(time >> (40 - 8 * i));
  for (int i = 0; i < 4; i++)
    events->id[8 + i] = (guint8)(count >> (24 - 8 * i));
  events->id[6] = 0x70;
  events->id[8] = (events->id[8] & 0x3f) | 0x80;
}

static void append_decimal(bson_t *payload, const char *name, gint64 cents) {
  char text[32];
  bson_decimal128_t decimal;
  snprintf(text, sizeof text, "%" G_GINT64_FORMAT ".%02d", cents / 100, (int)(cents % 100));
  bson_decimal128_from_string(text, &decimal);
  BSON_APPEND_DECIMAL128(payload, name, &decimal);
}

static void append_name(Events *events, bson_t *payload) {
  char name[64];
  snprintf(name, sizeof name, "Some O'Name %08x", g_rand_int(events->random));
  BSON_APPEND_UTF8(payload, "name", name);
}

static void append_user(Events *events, bson_t *payload) {
  char user[64];
  snprintf(user, sizeof user, "user-%08x", g_rand_int(events->random));
  BSON_APPEND_UTF8(payload, "user_id", user);
}

static void begin(bson_t *event, const char *type, bson_t *payload) {
  BSON_APPEND_UTF8(event, "event_type", type);
  BSON_APPEND_DOCUMENT_BEGIN(event, "payload", payload);
}

/* --- workloads ----------------------------------------------------------------------------- */

static void write_whole(Events *events, Account *account, bson_t *event) {
  bson_t payload;
  account->open = true;
  begin(event, "AccountUpdated", &payload);
  append_user(events, &payload);
  append_name(events, &payload);
  BSON_APPEND_INT64(&payload, "balance", account->balance);
  BSON_APPEND_UTF8(&payload, "currency", "EUR");
  if (events->filler)
    BSON_APPEND_UTF8(&payload, "filler", events->filler);
  bson_append_document_end(event, &payload);
}

static void write_upsert(Events *events, Account *account, bson_t *event) {
  account->balance = g_rand_int_range(events->random, 0, 1000000);
  write_whole(events, account, event);
}

static void write_delta(Events *events, Account *account, bson_t *event) {
  if (!account->open) {
    write_whole(events, account, event);
    return;
  }
  bson_t payload;
  gint64 amount = g_rand_int_range(events->random, 1, 1000);
  account->balance += amount;
  begin(event, "MoneyDeposited", &payload);
  BSON_APPEND_INT64(&payload, "amount", amount);
  bson_append_document_end(event, &payload);
}

static void open_account(Events *events, Account *account, bson_t *event) {
  bson_t payload;
  account->open = true;
  account->balance = g_rand_int_range(events->random, 0, 100000);
  begin(event, "AccountOpened", &payload);
  append_user(events, &payload);
  append_name(events, &payload);
  append_decimal(&payload, "balance", account->balance);
  BSON_APPEND_DATE_TIME(&payload, "opened_at", 1700000000000);
  bson_append_document_end(event, &payload);
}

static void move_money(Account *account, gint64 amount, bson_t *event) {
  bson_t payload;
  account->balance += amount;
  begin(event, amount > 0 ? "MoneyDeposited" : "MoneyWithdrawn", &payload);
  append_decimal(&payload, "amount", amount > 0 ? amount : -amount);
  bson_append_document_end(event, &payload);
}

static void rename_account(Events *events, Account *account, bson_t *event) {
  bson_t payload;
  account->frozen = 0;
  begin(event, "AccountRenamed", &payload);
  append_name(events, &payload);
  bson_append_document_end(event, &payload);
}

static void write_plain(const char *type, bson_t *event) {
  bson_t payload;
  begin(event, type, &payload);
  bson_append_document_end(event, &payload);
}

/* The shares are those of outbox/cli/bank.c. */
static void write_bank(Events *events, Account *account, bson_t *event) {
  int dice = g_rand_int_range(events->random, 0, 100);
  gint64 most = MIN(account->balance, 50000);
  if (!account->open) {
    open_account(events, account, event);
  } else if (dice < 35 && most > 0) {
    move_money(account, -(gint64)g_rand_int_range(events->random, 1, (int)most + 1), event);
  } else if (dice < 80) {
    move_money(account, g_rand_int_range(events->random, 1, 50001), event);
  } else if (dice < 88) {
    rename_account(events, account, event);
  } else if (dice < 97 && (dice < 95 || account->frozen == FROZEN_MAX)) {
    write_plain("StatementSent", event);
  } else if (dice < 97) {
    account->frozen++;
    write_plain("AccountFrozen", event);
  } else {
    *account = (Account){.version = account->version};
    write_plain("AccountClosed", event);
  }
}

/* --- events -------------------------------------------------------------------------------- */

Events *events_new(const char *workload, const char *prefix, guint aggregates) {
  static const struct {
    const char *name;
    Writer *write;
  } workloads[] = {{"upsert", write_upsert}, {"delta", write_delta}, {"bank", write_bank}};
  for (gsize i = 0; i < G_N_ELEMENTS(workloads); i++) {
    if (strcmp(workload, workloads[i].name))
      continue;
    Events *events = g_new0(Events, 1);
    events->write = workloads[i].write;
    events->prefix = prefix;
    events->aggregates = aggregates;
    events->random = g_rand_new_with_seed(1);
    events->accounts = g_new0(Account, aggregates);
    guint32 noise = g_random_int();
    memcpy(events->id + 12, &noise, sizeof noise);
    return events;
  }
  return NULL;
}

void events_fill(Events *events, guint bytes) {
  events->filler = g_strnfill(bytes, 'x');
}

void events_free(Events *events) {
  g_free(events->filler);
  g_rand_free(events->random);
  g_free(events->accounts);
  g_free(events);
}

void events_next(Events *events, gint64 occurred_at, bson_t *ret_event) {
  guint index = (guint)(events->count % events->aggregates);
  Account *account = &events->accounts[index];
  char aggregate[64];
  snprintf(aggregate, sizeof aggregate, "%s%06u", events->prefix, index);
  next_id(events);
  bson_append_binary(ret_event, "_id", 3, BSON_SUBTYPE_UUID, events->id, sizeof events->id);
  BSON_APPEND_UTF8(ret_event, "aggregate_type", "account");
  BSON_APPEND_UTF8(ret_event, "aggregate_id", aggregate);
  BSON_APPEND_INT64(ret_event, "version", ++account->version);
  BSON_APPEND_DATE_TIME(ret_event, "occurred_at", occurred_at);
  events->write(events, account, ret_event);
  BSON_APPEND_UTF8(ret_event, "status", "pending");
}

Totals events_totals(const Events *events) {
  Totals totals = {0};
  for (guint i = 0; i < events->aggregates; i++) {
    if (!events->accounts[i].open)
      continue;
    totals.rows++;
    totals.balance += events->accounts[i].balance;
  }
  return totals;
}
