/* account.h - whether a version of an aggregate is accounted for in MySQL, and how: what `wait` and
 * `GET /wait` answer. */
#pragma once

#include "projector/app/shared/stores.h"
#include "projector/infra/mongo/archive.h"

typedef enum AccountState {
  ACCOUNT_OPEN,    /* not yet */
  ACCOUNT_DONE,    /* `outcome` says how */
  ACCOUNT_BLOCKED, /* it, or an event before it, is failed or dead */
} AccountState;

typedef struct Account {
  AccountState state;
  const char *outcome; /* static: applied, superseded, skipped or missing */
  bool dead;           /* of the event that blocks */
  char event_id[ID_TEXT_SIZE];
} Account;

/* A version of an aggregate, by the text of its id, which may be an id of several kinds. */
typedef struct Question {
  char type[AGGREGATE_TYPE_MAX + 1], text[AGGREGATE_ID_MAX + 1];
  int64_t version;
  uint8_t bytes[16]; /* of an id that is no text */
  Aggregate aggregates[IDS_OF_TEXT];
  uint64_t hashes[IDS_OF_TEXT]; /* of these */
  unsigned count;               /* of these */
  bool brief;                   /* do not check whether something blocks */
  Account answer;
} Question;

/* What is wrong with it, as a message; NULL: nothing. `kind`: of the id (id_kind_name), NULL: any
 * that its text may stand for. The struct points into itself: do not copy it. */
const char *question_init(Question *question, const Mapping *mapping, const char *type,
                          const char *text, const char *kind, const char *version);
/* Whether the question's text is the text form of the aggregate's id: a UUID or an ObjectId may be
 * asked for in upper case. One that is not decides only if there is no aggregate of this text. */
bool question_is_exact(const Question *question, const Aggregate *aggregate);
/* The static name for a ledger outcome: "ignored" counts as applied; NULL: none of these. */
const char *account_outcome(const char *ledger_outcome);

typedef struct Asking {
  Stores *stores;
  Archive *archive; /* NULL: not consulted */
} Asking;

/* Queries MySQL once for all of them, then MongoDB for each that needs it, and sets their
 * answers. */
bool account_ask(const Asking *asking, Question *const *questions, size_t count,
                 Failure *ret_failure);
