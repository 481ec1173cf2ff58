// The bank of `outbox demo`: opens, renames, freezes and closes accounts, and moves money.
#include "outbox/cli/bank.h"

#include <stdio.h>
#include <string.h>

static const char FROZEN[] = " (frozen)";

// Some are meant to be awkward: quotes, backslashes, accents, scripts, four-byte characters.
static const char *const FIRST_NAMES[] = {
    "Ada",  "Grace", "Edsger", "Barbara", "Zoë",      "José",   "Łukasz",   "Søren",
    "Ngọc", "李",    "Мария",  "עדי",     "Ὀδυσσεύς", "D'Arcy", "Jean-Luc", "🚀 Kim",
};
static const char *const LAST_NAMES[] = {
    "Lovelace",
    "Hopper",
    "Dijkstra",
    "O'Brien",
    "Núñez",
    "Müller-Lüdenscheidt",
    "小龙",
    "Åström",
    "\"Pepe\" Ruiz",
    "Back\\slash",
    "Ivanova; DROP TABLE account; --",
    "👩‍🚀",
    "Smith",
    "100%_Sure",
    "Tab\tbed",
    "Jr. ",
};

bson_decimal128_t bank_decimal(int64_t cents) {
  char text[32];
  int64_t absolute = cents < 0 ? -cents : cents;
  bson_decimal128_t decimal;
  snprintf(text, sizeof text, "%s%" G_GINT64_FORMAT ".%02d", cents < 0 ? "-" : "", absolute / 100,
           (int)(absolute % 100));
  bson_decimal128_from_string(text, &decimal);
  return decimal;
}

static void append_cents(bson_t *document, const char *field, int64_t cents) {
  bson_decimal128_t decimal = bank_decimal(cents);
  BSON_APPEND_DECIMAL128(document, field, &decimal);
}

static void new_name(GRand *random, char ret_name[BANK_NAME_MAX_BYTES + 1]) {
  g_snprintf(ret_name, BANK_NAME_MAX_BYTES + 1, "%s %s",
             FIRST_NAMES[g_rand_int_range(random, 0, G_N_ELEMENTS(FIRST_NAMES))],
             LAST_NAMES[g_rand_int_range(random, 0, G_N_ELEMENTS(LAST_NAMES))]);
}

// Ids are never reused, not even by a later run with the same seed, so they do not come from the
// random numbers. They have two forms, to show that an id may be any string.
static void new_id(GRand *random, char ret_id[37]) {
  uint8_t bytes[16];
  outbox_uuid7(bytes);
  GString *text = g_string_new(NULL);
  for (int i = 0; i < 16; i++) {
    g_string_append_printf(text, "%02x", bytes[i]);
  }
  if (g_rand_boolean(random)) {
    g_string_prepend(text, "acc-");
  } else {
    for (int at = 20; at >= 8; at -= 4) {
      g_string_insert_c(text, at, '-');
    }
  }
  g_strlcpy(ret_id, text->str, 37);
  g_string_free(text, TRUE);
}

static void open_account(GRand *random, int64_t now_ms, bank_move_t *move) {
  char user_id[37];
  move->event_type = "AccountOpened";
  move->kind = OUTBOX_INSERT;
  move->after.open = true;
  move->after.cents = g_rand_int_range(random, 0, 100001);
  new_id(random, move->after.id);
  new_name(random, move->after.name);
  g_snprintf(user_id, sizeof user_id, "user-%08x", g_rand_int(random));
  BSON_APPEND_UTF8(&move->payload, "user_id", user_id);
  BSON_APPEND_UTF8(&move->payload, "name", move->after.name);
  append_cents(&move->payload, "balance", move->after.cents);
  BSON_APPEND_DATE_TIME(&move->payload, "opened_at", now_ms);
  bson_concat(&move->change, &move->payload);
}

static void move_money(int64_t cents, bank_move_t *move) {
  bson_t fields;
  move->event_type = cents > 0 ? "MoneyDeposited" : "MoneyWithdrawn";
  move->after.cents += cents;
  append_cents(&move->payload, "amount", cents > 0 ? cents : -cents);
  BSON_APPEND_DOCUMENT_BEGIN(&move->change, "$inc", &fields);
  append_cents(&fields, "balance", cents);
  bson_append_document_end(&move->change, &fields);
}

static void set_name(bank_move_t *move) {
  bson_t fields;
  BSON_APPEND_DOCUMENT_BEGIN(&move->change, "$set", &fields);
  BSON_APPEND_UTF8(&fields, "name", move->after.name);
  bson_append_document_end(&move->change, &fields);
}

static void rename_account(GRand *random, bank_move_t *move) {
  move->event_type = "AccountRenamed";
  new_name(random, move->after.name);
  BSON_APPEND_UTF8(&move->payload, "name", move->after.name);
  set_name(move);
}

static bool can_freeze(const bank_account_t *account) {
  return g_utf8_strlen(account->name, -1) + (glong)strlen(FROZEN) <= BANK_NAME_MAX_CHARS;
}

void bank_next(GRand *random, const bank_account_t *account, int64_t now_ms,
               bank_move_t *ret_move) {
  // Filled in place: a bson_t that has grown points into itself.
  bank_move_t *move = ret_move;
  *move = (bank_move_t){.kind = OUTBOX_UPDATE, .after = *account};
  bson_init(&move->payload);
  bson_init(&move->change);
  int dice = g_rand_int_range(random, 0, 100);
  if (!account->open) {
    open_account(random, now_ms, move);
  } else if (dice < 35 && account->cents > 0) {
    move_money(-(int64_t)g_rand_int_range(random, 1, (int)MIN(account->cents, 50000) + 1), move);
  } else if (dice < 80) {
    move_money(g_rand_int_range(random, 1, 50001), move);
  } else if (dice < 88) {
    rename_account(random, move);
  } else if (dice < 95) {
    move->event_type = "StatementSent"; // only the entity's version changes
  } else if (dice < 97 && can_freeze(account)) {
    move->event_type = "AccountFrozen";
    g_strlcat(move->after.name, FROZEN, sizeof move->after.name);
    set_name(move);
  } else {
    move->event_type = "AccountClosed";
    move->kind = OUTBOX_DELETE;
    move->after = (bank_account_t){0};
  }
}

void bank_move_clear(bank_move_t *move) {
  bson_destroy(&move->payload);
  bson_destroy(&move->change);
}
