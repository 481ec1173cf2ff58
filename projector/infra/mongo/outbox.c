/* outbox.c - reads and marks outbox documents. */
#include "projector/infra/mongo/outbox.h"

#include "outbox/text/clean.h"
#include "projector/infra/mongo/outbox_private.h"

#include <string.h>

/* --- claim ---------------------------------------------------------------------------------- */

bool outbox_is_ours(const Outbox *outbox, const bson_t *document) {
  bson_iter_t iter;
  return bson_iter_init_find(&iter, document, "claimed_by") && BSON_ITER_HOLDS_UTF8(&iter) &&
         !strcmp(bson_iter_utf8(&iter, NULL), outbox->owner);
}

/* Not all could be claimed, or the answer to an earlier attempt was lost: finds out which are
 * ours. */
static bool look_at_claims(Outbox *outbox, Event *const *events, size_t count, Claim *ret_claims,
                           Failure *ret_failure) {
  g_autoptr(GHashTable) index_of = g_hash_table_new(id_hash_key, id_equal_key);
  for (size_t i = 0; i < count; i++)
    g_hash_table_insert(index_of, &events[i]->key.event_id, GSIZE_TO_POINTER(i + 1));
  bson_t *filter = bson_new();
  outbox_append_event_ids(filter, events, count);
  g_autoptr(EventCursor) cursor = outbox_find(
      outbox, filter,
      BCON_NEW("projection", "{", "_id", BCON_INT32(1), "status", BCON_INT32(1), "claimed_by",
               BCON_INT32(1), "}", "readConcern", "{", "level", BCON_UTF8("local"), "}"));
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) found = event_decode(document);
    size_t at = GPOINTER_TO_SIZE(g_hash_table_lookup(index_of, &found->key.event_id));
    if (at)
      ret_claims[at - 1] = found->status == STATUS_IN_PROGRESS && outbox_is_ours(outbox, document)
                               ? CLAIM_OURS
                               : CLAIM_TAKEN;
  }
  return ret_failure->class == FAILURE_NONE;
}

/* The attempts and the status, as far as a claim compares them. */
static int as_read(const Event *event) {
  return 2 * event->attempts + (event->status == STATUS_FAILED);
}

static int by_what_was_read(const void *a, const void *b) {
  int first = as_read(*(Event *const *)a), second = as_read(*(Event *const *)b);
  return (first > second) - (first < second);
}

/* As event_decode sees it: the whole part of a number from 1 on; that and nothing else. An array is
 * none, although a filter looks into it. */
static void append_attempts(bson_t *filter, int attempts) {
  bson_t range = BSON_INITIALIZER;
  BSON_APPEND_INT32(&range, "$gte", MAX(attempts, 1));
  if (attempts > 0 && attempts < ATTEMPTS_MAX)
    BSON_APPEND_INT32(&range, "$lt", attempts + 1);
  BCON_APPEND(&range, "$not", "{", "$type", BCON_UTF8("array"), "}");
  if (attempts > 0)
    BSON_APPEND_DOCUMENT(filter, "attempts", &range);
  else
    BCON_APPEND(filter, "$nor", "[", "{", "attempts", BCON_DOCUMENT(&range), "}", "]");
  bson_destroy(&range);
}

/* {$or: [{_id: {$in: [those with this number]}, attempts: number, $expr: failed or not} ...]}:
 * somebody who has retried an event by hand since it was read has given it all attempts again, or
 * only another status. */
static void append_as_read(bson_t *filter, Event *const *events, size_t count) {
  g_autofree Event **sorted = g_memdup2(events, count * sizeof *events);
  bson_t branches = BSON_INITIALIZER;
  uint32_t branch_count = 0;
  qsort(sorted, count, sizeof *sorted, by_what_was_read);
  for (size_t from = 0, to; from < count; from = to) {
    for (to = from; to < count && as_read(sorted[to]) == as_read(sorted[from]); to++)
      ;
    bson_t branch = BSON_INITIALIZER;
    char buffer[16];
    const char *key;
    outbox_append_event_ids(&branch, sorted + from, to - from);
    append_attempts(&branch, sorted[from]->attempts);
    BCON_APPEND(&branch, "$expr", "{", sorted[from]->status == STATUS_FAILED ? "$eq" : "$ne", "[",
                BCON_UTF8("$status"), BCON_UTF8("failed"), "]", "}");
    bson_uint32_to_string(branch_count++, &key, buffer, sizeof buffer);
    BSON_APPEND_DOCUMENT(&branches, key, &branch);
    bson_destroy(&branch);
  }
  BSON_APPEND_ARRAY(filter, "$or", &branches);
  bson_destroy(&branches);
}

/* An update pipeline, because $inc would refuse what a writer may have put into the field, null for
 * example, and with it the whole claim; here it becomes the number that event_decode sees. */
static bson_t *claim_update(const Outbox *outbox) {
  bson_t counted = BSON_INITIALIZER;
  outbox_append_counted(&counted);
  bson_t *update = BCON_NEW("0", "{", "$set", "{", "status", BCON_UTF8("in_progress"), "claimed_by",
                            "{", "$literal", BCON_UTF8(outbox->owner), "}", "claimed_at",
                            BCON_UTF8("$$NOW"), "attempts", "{", "$add", "[", BCON_INT32(1), "{",
                            "$cond", "[", BCON_DOCUMENT(&counted), "{", "$toInt", "{", "$min", "[",
                            BCON_UTF8("$attempts"), BCON_INT32(ATTEMPTS_MAX), "]", "}", "}",
                            BCON_INT32(0), "]", "}", "]", "}", "}", "}");
  bson_destroy(&counted);
  return update;
}

bool outbox_claim(Outbox *outbox, Event *const *events, size_t count, Claim *ret_claims,
                  Failure *ret_failure) {
  bson_t filter = BSON_INITIALIZER;
  append_as_read(&filter, events, count);
  BCON_APPEND(&filter, "$nor", "[", "{", "status", "{", "$in", "[", BCON_UTF8("in_progress"),
              BCON_UTF8("dead"), "]", "$not", "{", "$type", BCON_UTF8("array"), "}", "}", "}", "]");
  bson_t *update = claim_update(outbox);
  int64_t matched = 0;
  bool good = outbox_update_quickly(outbox, &filter, update, &matched, ret_failure);
  bson_destroy(update);
  bson_destroy(&filter);
  if (!good)
    return false;
  bool all = matched == (int64_t)count;
  for (size_t i = 0; i < count; i++)
    ret_claims[i] = all ? CLAIM_OURS : CLAIM_GONE;
  return all || look_at_claims(outbox, events, count, ret_claims, ret_failure);
}

/* --- sweep ----------------------------------------------------------------------------------- */

/* Takes a claim away: an event with the time of its next attempt had failed, the others get
 * `other`. `more`: what else is set. */
static bson_t *unclaim_update(const char *other, const bson_t *more) {
  bson_t set = BSON_INITIALIZER;
  BCON_APPEND(&set, "status", "{", "$cond", "[", "{", "$eq", "[", "{", "$type",
              BCON_UTF8("$next_attempt_at"), "}", BCON_UTF8("date"), "]", "}", BCON_UTF8("failed"),
              BCON_UTF8(other), "]", "}");
  if (more)
    bson_concat(&set, more);
  bson_t *update = BCON_NEW("0", "{", "$set", BCON_DOCUMENT(&set), "}", "1", "{", "$unset", "[",
                            BCON_UTF8("claimed_by"), BCON_UTF8("claimed_at"), "]", "}");
  bson_destroy(&set);
  return update;
}

/* A dead event has no next attempt. */
static bool unseize_abandoned(Outbox *outbox, const bson_t *filter, Failure *ret_failure) {
  bson_t *update = unclaim_update("dead", NULL);
  bool good = outbox_update_many(outbox, filter, update, NULL, ret_failure);
  bson_destroy(update);
  return good;
}

static bool end_abandoned(Outbox *outbox, const bson_t *filter, SweepAction action, bool with_error,
                          Failure *ret_failure) {
  static const char crashed[] = "the projector ended each time it worked on this event";
  bson_t update = BSON_INITIALIZER, set;
  BSON_APPEND_DOCUMENT_BEGIN(&update, "$set", &set);
  BSON_APPEND_UTF8(&set, "status", action == SWEEP_DEAD ? "dead" : "pending");
  if (with_error)
    BCON_APPEND(&set, "last_error", "{", "class", BCON_UTF8("crash"), "code", BCON_INT32(0),
                "message", BCON_UTF8(crashed), "at", BCON_DATE_TIME(g_get_real_time() / 1000), "}");
  bson_append_document_end(&update, &set);
  BCON_APPEND(&update, "$unset", "{", "claimed_by", BCON_INT32(1), "claimed_at", BCON_INT32(1),
              "next_attempt_at", BCON_INT32(1), "}");
  bool good = outbox_update_many(outbox, filter, &update, NULL, ret_failure);
  bson_destroy(&update);
  return good;
}

bool outbox_sweep(Outbox *outbox, Event *const *events, size_t count, SweepAction action,
                  int64_t older_than_ms, Failure *ret_failure) {
  if (count == 0)
    return true;
  bson_t filter = BSON_INITIALIZER;
  outbox_append_event_ids(&filter, events, count);
  outbox_append_abandoned(&filter, outbox, older_than_ms);
  if (action == SWEEP_UNSEIZE)
    outbox_append_seized(&filter);
  bool good = action == SWEEP_ACKNOWLEDGE
                  ? outbox_take_out(outbox, &filter, events, count, false, ret_failure)
              : action == SWEEP_UNSEIZE
                  ? unseize_abandoned(outbox, &filter, ret_failure)
                  : end_abandoned(outbox, &filter, action, action == SWEEP_DEAD, ret_failure);
  if (!good && action == SWEEP_DEAD && ret_failure->class == FAILURE_SIZE) { /* see mark_failed */
    *ret_failure = (Failure){0};
    good = end_abandoned(outbox, &filter, action, false, ret_failure);
  }
  bson_destroy(&filter);
  return good;
}

/* --- release and marks ---------------------------------------------------------------------- */

/* A retry by hand takes the time of the next attempt away. */
static bson_t *release_update(bool failed) {
  if (!failed)
    return BCON_NEW("$set", "{", "status", BCON_UTF8("pending"), "}", "$unset", "{", "claimed_by",
                    BCON_INT32(1), "claimed_at", BCON_INT32(1), "}", "$inc", "{", "attempts",
                    BCON_INT32(-1), "}");
  bson_t *one_less =
      BCON_NEW("attempts", "{", "$add", "[", BCON_UTF8("$attempts"), BCON_INT32(-1), "]", "}");
  bson_t *update = unclaim_update("pending", one_less);
  bson_destroy(one_less);
  return update;
}

static bool release(Outbox *outbox, Event *const *events, size_t count, const void *failed,
                    Failure *ret_failure) {
  bson_t filter = BSON_INITIALIZER;
  outbox_append_event_ids(&filter, events, count);
  BSON_APPEND_UTF8(&filter, "status", "in_progress");
  BSON_APPEND_UTF8(&filter, "claimed_by", outbox->owner);
  bson_t *update = release_update(*(const bool *)failed);
  bool good = outbox_update_many(outbox, &filter, update, NULL, ret_failure);
  bson_destroy(update);
  bson_destroy(&filter);
  return good;
}

static bool release_those(Outbox *outbox, Event *const *events, size_t count, bool failed,
                          Failure *ret_failure) {
  g_autofree Event **those = g_new(Event *, count);
  size_t those_count = 0;
  for (size_t i = 0; i < count; i++)
    if ((events[i]->status == STATUS_FAILED) == failed)
      those[those_count++] = events[i];
  return those_count == 0 ||
         outbox_write_around(outbox, those, those_count, release, &failed, ret_failure);
}

bool outbox_release(Outbox *outbox, Event *const *events, size_t count, Failure *ret_failure) {
  bool good = release_those(outbox, events, count, false, ret_failure);
  if (!good && !failure_is_refusal(ret_failure))
    return false;
  return release_those(outbox, events, count, true, ret_failure) && good;
}

/* An update pipeline, because only there the server's clock can be added to; texts are literals. An
 * event claimed by the batch has no attempt in its document yet. */
static bson_t *failed_update(const FailedMark *mark, bool with_error) {
  g_autoptr(GString) message = g_string_new(NULL);
  text_append_clean(message, mark->failure->message, ""); /* as it is shown, so it can be named */
  return BCON_NEW(
      "pipeline", "[", "{", "$set", "{", "status", BCON_UTF8(mark->dead ? "dead" : "failed"),
      "attempts", "{", "$add", "[", "{", "$cond", "[", "{", "$eq", "[", BCON_UTF8("$status"),
      BCON_UTF8("in_progress"), "]", "}", BCON_UTF8("$attempts"), BCON_INT32(1), "]", "}",
      BCON_INT32(mark->counts ? 0 : -1), "]", "}", "next_attempt_at", "{", "$cond", "[",
      BCON_BOOL(mark->dead), BCON_UTF8("$$REMOVE"), "{", "$add", "[", BCON_UTF8("$$NOW"),
      BCON_INT64(mark->delay_ms), "]", "}", "]", "}", "last_error", "{", "$cond", "[",
      BCON_BOOL(with_error), "{", "class", BCON_UTF8(failure_class_name(mark->failure->class)),
      "code", BCON_INT32(mark->failure->code), "message", "{", "$literal", BCON_UTF8(message->str),
      "}", "at", BCON_UTF8("$$NOW"), "}", BCON_UTF8("$$REMOVE"), "]", "}", "}", "}", "{", "$unset",
      "[", BCON_UTF8("claimed_by"), BCON_UTF8("claimed_at"), "]", "}", "]");
}

static bool mark_failed(Outbox *outbox, const bson_t *filter, const FailedMark *mark,
                        bool with_error, Failure *ret_failure) {
  bson_t *update = failed_update(mark, with_error);
  bson_iter_t iter;
  bson_t stages;
  uint32_t length;
  const uint8_t *bytes;
  bson_iter_init_find(&iter, update, "pipeline");
  bson_iter_array(&iter, &length, &bytes);
  bson_init_static(&stages, bytes, length);
  bool good = outbox_update_many(outbox, filter, &stages, NULL, ret_failure);
  bson_destroy(update);
  return good;
}

/* Claimed in its own document, or by the batch: then the document is as it was read. */
static void append_claimed(bson_t *filter, const Outbox *outbox) {
  bson_t untouched = BSON_INITIALIZER;
  outbox_append_untouched(&untouched);
  BCON_APPEND(filter, "$or", "[", "{", "status", BCON_UTF8("in_progress"), "claimed_by",
              BCON_UTF8(outbox->owner), "}", BCON_DOCUMENT(&untouched), "]");
  bson_destroy(&untouched);
}

/* A document near the limit of 16 MB may have no room for the reason; what replaces the claim takes
 * no more room than the claim. */
bool outbox_mark_failed(Outbox *outbox, Event *const *events, size_t count, const FailedMark *mark,
                        Failure *ret_failure) {
  bson_t filter = BSON_INITIALIZER;
  outbox_append_event_ids(&filter, events, count);
  append_claimed(&filter, outbox);
  bool good = mark_failed(outbox, &filter, mark, true, ret_failure) ||
              (ret_failure->class == FAILURE_SIZE &&
               mark_failed(outbox, &filter, mark, false, ret_failure));
  bson_destroy(&filter);
  return good;
}

bool outbox_unseize(Outbox *outbox, const Event *event, Failure *ret_failure) {
  bson_t filter = BSON_INITIALIZER;
  event_append_id(event, &filter, "_id");
  BSON_APPEND_UTF8(&filter, "status", "in_progress");
  BSON_APPEND_UTF8(&filter, "claimed_by", outbox_owner(outbox));
  bson_t *update =
      BCON_NEW("$set", "{", "status", BCON_UTF8(event->status == STATUS_DEAD ? "dead" : "failed"),
               "}", "$unset", "{", "claimed_by", BCON_INT32(1), "claimed_at", BCON_INT32(1), "}");
  bool good = outbox_update_many(outbox, &filter, update, NULL, ret_failure);
  bson_destroy(update);
  bson_destroy(&filter);
  return good;
}

bool outbox_seize(Outbox *outbox, const Event *event, bool *ret_seized, Failure *ret_failure) {
  bson_t filter = BSON_INITIALIZER;
  event_append_id(event, &filter, "_id");
  BCON_APPEND(&filter, "status", "{", "$in", "[", BCON_UTF8("failed"), BCON_UTF8("dead"), "]", "}");
  bson_t *update = BCON_NEW("$set", "{", "status", BCON_UTF8("in_progress"), "claimed_by",
                            BCON_UTF8(outbox_owner(outbox)), "}", "$currentDate", "{", "claimed_at",
                            BCON_BOOL(true), "}");
  int64_t matched = 0;
  bool good = outbox_update_many(outbox, &filter, update, &matched, ret_failure);
  if (good)
    *ret_seized = matched == 1;
  bson_destroy(update);
  bson_destroy(&filter);
  return good;
}
