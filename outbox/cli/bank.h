// The bank of `outbox demo`: what an account does next. Pure but for the random numbers it is
// handed.
#ifndef OUTBOX_CLI_BANK_H
#define OUTBOX_CLI_BANK_H

#include "outbox/outbox.h"

#include <glib.h>

enum { BANK_NAME_MAX_CHARS = 100, BANK_NAME_MAX_BYTES = 4 * BANK_NAME_MAX_CHARS };

// What the writer remembers of an account, so that it need not read it back.
typedef struct {
  bool open;
  char id[37];
  char name[BANK_NAME_MAX_BYTES + 1];
  int64_t cents;
} bank_account_t;

// An event, the change of the entity that goes with it, and the account afterwards.
typedef struct {
  const char *event_type;
  bson_t payload;
  outbox_change_kind_t kind;
  bson_t change;        // empty for OUTBOX_DELETE
  bank_account_t after; // becomes the account once the event is written
} bank_move_t;

// An account that is not open gets opened, under a new id.
void bank_next(GRand *random, const bank_account_t *account, int64_t now_ms, bank_move_t *ret_move);
void bank_move_clear(bank_move_t *move);

// Cents as a Decimal128 with two decimals.
bson_decimal128_t bank_decimal(int64_t cents);

#endif
