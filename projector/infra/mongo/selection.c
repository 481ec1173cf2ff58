/* selection.c - filters made from user input. */
#include "projector/infra/mongo/selection.h"

#include "projector/domain/id_text.h"
#include "projector/infra/mongo/claims.h"
#include "projector/infra/mongo/outbox_private.h"

#include <string.h>

enum { PAGE = 200 }; /* events in one answer */

/* Ids that the text may stand for; of a kind that it cannot be: none. */
static void append_candidates(bson_t *filter, const char *key, const char *text, const char *kind) {
  uint8_t bytes[16];
  Id ids[IDS_OF_TEXT];
  unsigned count = ids_from_text(text, strlen(text), bytes, ids);
  if (kind && !ids_keep_kind(ids, &count, kind))
    count = 0;
  outbox_append_ids(filter, key, ids, count);
}

/* The same of events. An `_id` that breaks the contract is named by its Extended JSON, as `list`
 * shows it. */
static void append_event(bson_t *filter, const char *text, const char *kind) {
  bson_t *other = kind ? NULL : id_other_from_text(text);
  bson_t candidates = BSON_INITIALIZER, array = BSON_INITIALIZER;
  bson_iter_t iter, list, value;
  append_candidates(&candidates, "_id", text, kind);
  if (other && bson_iter_init_find(&value, other, "") && bson_iter_init(&iter, &candidates) &&
      bson_iter_find_descendant(&iter, "_id.$in", &list) && bson_iter_recurse(&list, &iter)) {
    while (bson_iter_next(&iter))
      bson_append_iter(&array, NULL, 0, &iter);
    bson_append_iter(&array, "other", -1, &value);
    BCON_APPEND(filter, "_id", "{", "$in", BCON_ARRAY(&array), "}");
  } else {
    bson_concat(filter, &candidates);
  }
  bson_destroy(&array);
  bson_destroy(&candidates);
  if (other)
    bson_destroy(other);
}

/* "": no text is there, as `list --summary` and the page's kinds show it. */
static void append_text(bson_t *filter, const char *key, const char *text) {
  if (*text)
    BSON_APPEND_UTF8(filter, key, text);
  else
    BCON_APPEND(filter, key, "{", "$not", "{", "$gt", BCON_UTF8(""), "}", "}");
}

/* An event without a status is pending, and so is one whose status is outside the contract. */
static void append_states(bson_t *filter, const char *const *states) {
  static const char *const known[] = {"in_progress", "failed", "dead", NULL};
  bool pending = g_strv_contains(states, "pending");
  bson_t array = BSON_INITIALIZER;
  uint32_t count = 0;
  for (const char *const *name = pending ? known : states; *name; name++) {
    char buffer[16];
    const char *index;
    if (pending && g_strv_contains(states, *name))
      continue;
    bson_uint32_to_string(count++, &index, buffer, sizeof buffer);
    BSON_APPEND_UTF8(&array, index, *name);
  }
  BCON_APPEND(filter, "status", "{", pending ? "$nin" : "$in", BCON_ARRAY(&array), "}");
  bson_destroy(&array);
}

/* An event claimed by the batch is in progress, although its document says pending. */
static void append_states_and_claims(bson_t *filter, const Selection *selection) {
  bool pending = g_strv_contains(selection->states, "pending");
  bool in_progress = g_strv_contains(selection->states, "in_progress");
  const GHashTable *in_hand = selection->in_hand;
  bson_t stated = BSON_INITIALIZER, claimed = BSON_INITIALIZER;
  append_states(&stated, selection->states);
  if (in_hand)
    claims_append_filter(&claimed, in_hand);
  if (!in_hand || pending == in_progress)
    bson_concat(filter, &stated);
  else if (in_progress)
    BCON_APPEND(filter, "$or", "[", BCON_DOCUMENT(&stated), BCON_DOCUMENT(&claimed), "]");
  else
    BCON_APPEND(filter, "$and", "[", BCON_DOCUMENT(&stated), "{", "$nor", "[",
                BCON_DOCUMENT(&claimed), "]", "}", "]");
  bson_destroy(&claimed);
  bson_destroy(&stated);
}

bson_t *selection_filter(const Outbox *outbox, const Selection *selection) {
  bson_t *filter = bson_new();
  if (selection->event)
    outbox_append_ids(filter, "_id", selection->event, 1);
  if (selection->event_id)
    append_event(filter, selection->event_id, selection->id_kind);
  if (selection->aggregate)
    outbox_append_aggregate(outbox, filter, selection->aggregate);
  if (selection->aggregate_type)
    BSON_APPEND_UTF8(filter, outbox_field(outbox, FIELD_AGGREGATE_TYPE), selection->aggregate_type);
  if (selection->aggregate_id)
    append_candidates(filter, outbox_field(outbox, FIELD_AGGREGATE_ID), selection->aggregate_id,
                      selection->id_kind);
  if (selection->version)
    BSON_APPEND_INT64(filter, outbox_field(outbox, FIELD_VERSION), selection->version);
  if (selection->event_type)
    append_text(filter, outbox_field(outbox, FIELD_EVENT_TYPE), selection->event_type);
  if (selection->error_class)
    append_text(filter, "last_error.class", selection->error_class);
  if (selection->error_message)
    append_text(filter, "last_error.message", selection->error_message);
  if (selection->in_time)
    outbox_append_times(outbox, filter, selection->from, selection->to);
  if (selection->states)
    append_states_and_claims(filter, selection);
  return filter;
}

EventCursor *selection_find(Outbox *outbox, const Selection *selection) {
  bson_t *options = outbox_sorted_options(outbox);
  if (selection->limit > 0)
    BSON_APPEND_INT64(options, "limit", selection->limit);
  BCON_APPEND(options, "allowDiskUse", BCON_BOOL(true), "batchSize", BCON_INT32(PAGE));
  return outbox_find(outbox, selection_filter(outbox, selection), options);
}

bool selection_retry(Outbox *outbox, const Selection *selection, int64_t *ret_count,
                     Failure *ret_failure) {
  bson_t *filter = selection_filter(outbox, selection);
  bson_t *update = BCON_NEW("$set", "{", "status", BCON_UTF8("pending"), "attempts", BCON_INT32(0),
                            "}", "$unset", "{", "next_attempt_at", BCON_INT32(1), "}");
  bool good = outbox_update_many(outbox, filter, update, ret_count, ret_failure);
  bson_destroy(update);
  bson_destroy(filter);
  return good;
}
