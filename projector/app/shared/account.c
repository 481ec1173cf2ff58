/* account.c - looks at the position first, then for the event: in the outbox, the archive and the
 * notes. */
#include "projector/app/shared/account.h"

#include "projector/app/shared/resolve.h"
#include "projector/domain/describe.h"
#include "projector/infra/mongo/outcomes.h"

#include <string.h>

static bool is_projected(const Mapping *mapping, const char *type) {
  for (unsigned i = 0; i < mapping_projection_count(mapping); i++)
    if (projection_is_of(mapping_projection(mapping, i), type, (uint32_t)strlen(type)))
      return true;
  return false;
}

const char *question_init(Question *question, const Mapping *mapping, const char *type,
                          const char *text, const char *kind, const char *version) {
  Id ids[IDS_OF_TEXT];
  gint64 number;
  *question = (Question){0};
  if (!type || !*type || !text || !*text)
    return "expected an aggregate's type and id";
  if (!is_projected(mapping, type))
    return "no projection takes this aggregate type";
  if (strlen(text) > AGGREGATE_ID_MAX || !utf8_is_valid(text, strlen(text)))
    return "expected an id of at most 255 bytes in UTF-8";
  if (!version || !g_ascii_string_to_signed(version, 10, 1, G_MAXINT64, &number, NULL))
    return "expected a version from 1";
  g_strlcpy(question->type, type, sizeof question->type);
  g_strlcpy(question->text, text, sizeof question->text);
  question->version = number;
  question->count = ids_from_text(question->text, strlen(question->text), question->bytes, ids);
  if (kind && !ids_keep_kind(ids, &question->count, kind))
    return "expected an id of that kind: string, int, uuid or objectid";
  for (unsigned i = 0; i < question->count; i++) {
    question->aggregates[i] = (Aggregate){
        .type = question->type, .type_length = (uint32_t)strlen(question->type), .id = ids[i]};
    question->hashes[i] = aggregate_hash(&question->aggregates[i]);
  }
  return NULL;
}

bool question_is_exact(const Question *question, const Aggregate *aggregate) {
  char text[ID_TEXT_SIZE];
  id_text(&aggregate->id, text);
  return !strcmp(text, question->text);
}

const char *account_outcome(const char *ledger_outcome) {
  static const char *const outcomes[] = {"applied", "superseded", "skipped", "missing"};
  for (size_t i = 0; i < G_N_ELEMENTS(outcomes); i++)
    if (!g_strcmp0(ledger_outcome, outcomes[i]))
      return outcomes[i];
  return g_strcmp0(ledger_outcome, "ignored") ? NULL : "applied";
}

static void finish(Question *question, const char *outcome) {
  question->answer = (Account){.state = ACCOUNT_DONE, .outcome = outcome};
}

static bool is_outage(const char *name) {
  for (FailureClass class = FAILURE_NONE; class <= FAILURE_UNKNOWN; class ++)
    if (!strcmp(name, failure_class_name(class)))
      return failure_class_is_outage(class);
  return false;
}

/* An event that failed because a store was unavailable is retried as soon as it is back, so waiting
 * for it makes sense. */
static bool blocks(const Event *event) {
  bson_iter_t iter, class;
  bson_t view;
  bool excused = bson_iter_init(&iter, event_document(event, &view)) &&
                 bson_iter_find_descendant(&iter, "last_error.class", &class) &&
                 BSON_ITER_HOLDS_UTF8(&class) && is_outage(bson_iter_utf8(&class, NULL));
  return event->status == STATUS_DEAD || (event->status == STATUS_FAILED && !excused);
}

/* Its time is far ahead, and nothing waits behind it until then. */
static bool is_early(const Asking *asking, const Event *event) {
  return event->status == STATUS_FAILED &&
         order_early_ms(event, g_get_real_time() / 1000,
                        asking->stores->config->settings.future_ms) > 0;
}

static void block(Question *question, const Event *event) {
  question->answer = (Account){.state = ACCOUNT_BLOCKED, .dead = event->status == STATUS_DEAD};
  id_text(&event->key.event_id, question->answer.event_id);
}

/* What the ledger says about one event; NULL: nothing. */
static bool look_into_ledger(const Asking *asking, Event *event, const char **ret_outcome,
                             Failure *ret_failure) {
  Item item = {.event = event};
  LedgerEntry entry = {0};
  if (!ledger_find_entries(asking->stores->session, &asking->stores->ledger, &item, 1, &entry,
                           ret_failure))
    return false;
  *ret_outcome = account_outcome(entry.outcome);
  return true;
}

/* Recheck for events with that version in the outbox. `*ret_since`: the time of one that MySQL does
 * not have; INT64_MIN: there is none. */
static bool look_into_outbox(const Asking *asking, Question *question, const Aggregate *aggregate,
                             int64_t *ret_since, Failure *ret_failure) {
  g_autoptr(EventCursor) cursor =
      outbox_find_versions(asking->stores->outbox, aggregate, question->version, question->version);
  const bson_t *document;
  *ret_since = INT64_MIN;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = event_decode(document);
    const char *outcome;
    if (!look_into_ledger(asking, event, &outcome, ret_failure))
      return false;
    if (outcome) {
      finish(question, outcome);
      continue;
    }
    *ret_since = event->key.occurred_at;
    if (blocks(event)) {
      block(question, event);
      return true;
    }
  }
  return ret_failure->class == FAILURE_NONE;
}

/* The aggregate's first failed or dead event that blocks, if it comes before the version: before
 * the version's event, of the time `since`, or (INT64_MIN: not written yet) by its own version. One
 * that an outage holds may stand before it. */
static bool look_for_block(const Asking *asking, Question *question, const Aggregate *aggregate,
                           int64_t since, Failure *ret_failure) {
  const Selection selection = {.aggregate = aggregate, .states = resolve_blocking};
  g_autoptr(EventCursor) cursor = selection_find(asking->stores->outbox, &selection);
  const bson_t *document;
  while (question->answer.state == ACCOUNT_OPEN &&
         (document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = event_decode(document);
    if (blocks(event) && !is_early(asking, event) &&
        (event->key.version < question->version || event->key.occurred_at < since))
      block(question, event);
  }
  return ret_failure->class == FAILURE_NONE;
}

/* The event has left the outbox. Skipped ones are in the archive in any case, and so, with the same
 * mark, are failed ones that a refresh contained: the ledger tells which. */
static bool look_into_archive(const Asking *asking, Question *question, const Aggregate *aggregate,
                              const char **ret_outcome, Failure *ret_failure) {
  *ret_outcome = NULL;
  if (!asking->archive)
    return true;
  g_autoptr(EventCursor) cursor = outbox_find_versions(archive_events(asking->archive), aggregate,
                                                       question->version, question->version);
  const bson_t *document = event_cursor_next(cursor, ret_failure);
  if (!document) { /* the user may lack the privilege to read it */
    *ret_failure = (Failure){0};
    return true;
  }
  g_autoptr(Event) event = archive_decode(document);
  if (!look_into_ledger(asking, event, ret_outcome, ret_failure))
    return false;
  if (!*ret_outcome)
    *ret_outcome = event->skipped ? "skipped" : "applied";
  return true;
}

/* The position has reached the version, and its event is gone. */
static bool outcome_when_gone(const Asking *asking, Question *question, const AggregateState *state,
                              Failure *ret_failure) {
  const Position *position = &state->position;
  const Stores *stores = asking->stores;
  const char *outcome;
  g_autofree char *noted = NULL;
  if (!look_into_archive(asking, question, state->aggregate, &outcome, ret_failure))
    return false;
  if (!outcome && !outcomes_find(stores->store, stores->config->name, state->aggregate,
                                 question->version, &noted, ret_failure))
    return false;
  if (!outcome)
    outcome = account_outcome(noted);
  /* no event of that version was applied: the row was taken from the entity */
  bool refreshed = question->version <= position->refreshed_version &&
                   question->version > position->last.version;
  finish(question, outcome ? outcome : refreshed ? "superseded" : "applied");
  return true;
}

static bool ask_one(const Asking *asking, Question *question, const AggregateState *state,
                    Failure *ret_failure) {
  const Position *position = &state->position;
  bool reached = position->known &&
                 MAX(position->max_version, position->refreshed_version) >= question->version;
  int64_t since;
  if (question->brief && !reached)
    return true;
  if (!look_into_outbox(asking, question, state->aggregate, &since, ret_failure))
    return false;
  if (question->answer.state != ACCOUNT_OPEN)
    return true;
  if (reached && since == INT64_MIN)
    return outcome_when_gone(asking, question, state, ret_failure);
  return look_for_block(asking, question, state->aggregate, since, ret_failure);
}

/* Whether the aggregate whose id is the text itself was applied or has an event. */
static bool exact_exists(const Asking *asking, const Question *question, AggregateSet *set,
                         bool *ret_exists, Failure *ret_failure) {
  *ret_exists = false;
  for (unsigned k = 0; k < question->count && !*ret_exists; k++) {
    const Aggregate *aggregate = &question->aggregates[k];
    if (!question_is_exact(question, aggregate))
      continue;
    g_autoptr(EventCursor) cursor =
        outbox_find_aggregate(asking->stores->outbox, aggregate, NULL, 1);
    *ret_exists = aggregate_set_find(set, aggregate)->position.known ||
                  event_cursor_next(cursor, ret_failure);
    if (ret_failure->class != FAILURE_NONE)
      return false;
  }
  return true;
}

/* Of several aggregates that the text may stand for, one that is done decides before one that is
 * blocked; one whose id has another text form decides only if there is none of this text. */
static bool ask_each(const Asking *asking, Question *question, AggregateSet *set,
                     Failure *ret_failure) {
  Account best = {0};
  for (unsigned k = 0; k < question->count && best.state != ACCOUNT_DONE; k++) {
    question->answer = (Account){0};
    bool exists = false;
    if (!ask_one(asking, question, aggregate_set_find(set, &question->aggregates[k]), ret_failure))
      return false;
    if (question->answer.state != ACCOUNT_OPEN &&
        !question_is_exact(question, &question->aggregates[k]) &&
        !exact_exists(asking, question, set, &exists, ret_failure))
      return false;
    if (exists)
      continue;
    if (best.state == ACCOUNT_OPEN || question->answer.state == ACCOUNT_DONE)
      best = question->answer;
  }
  question->answer = best;
  return true;
}

bool account_ask(const Asking *asking, Question *const *questions, size_t count,
                 Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(AggregateSet) set = aggregate_set_new(arena);
  for (size_t i = 0; i < count; i++)
    for (unsigned k = 0; k < questions[i]->count; k++)
      aggregate_set_open(set, &questions[i]->aggregates[k]);
  if (!ledger_look_at_positions(asking->stores->session, &asking->stores->ledger, set, arena,
                                ret_failure))
    return false;
  for (size_t i = 0; i < count; i++)
    if (!ask_each(asking, questions[i], set, ret_failure))
      return false;
  return true;
}
