/* outbox_fields.c - parts of queries, with the names that the outbox uses for its fields. */
#include "projector/infra/mongo/outbox_private.h"

#include <string.h>

static const EventFields *fields_of(const Outbox *outbox) {
  const EventFields *fields = &mongo_store_settings(outbox_store(outbox))->fields;
  return fields->foreign ? fields : &event_fields_contract;
}

bool outbox_is_foreign(const Outbox *outbox) {
  return fields_of(outbox)->foreign;
}

const char *outbox_field(const Outbox *outbox, EventField field) {
  return fields_of(outbox)->names[field];
}

bson_t *outbox_sorted_options(const Outbox *outbox) {
  bson_t *options = bson_new(), sort;
  const char *time = outbox_field(outbox, FIELD_OCCURRED_AT);
  BSON_APPEND_DOCUMENT_BEGIN(options, "sort", &sort);
  if (strcmp(time, "_id") != 0) { /* otherwise the ids are already in the order of the times */
    BSON_APPEND_INT32(&sort, time, 1);
    BSON_APPEND_INT32(&sort, outbox_field(outbox, FIELD_VERSION), 1);
  }
  BSON_APPEND_INT32(&sort, "_id", 1);
  bson_append_document_end(options, &sort);
  return options;
}

/* As event_fields_translate reads it: a date, milliseconds, a text, or the time in the ObjectId. */
bson_t *outbox_time(const Outbox *outbox) {
  g_autofree char *name = g_strconcat("$", outbox_field(outbox, FIELD_OCCURRED_AT), NULL);
  if (!outbox_is_foreign(outbox))
    return BCON_NEW("e", BCON_UTF8(name));
  return BCON_NEW("e", "{", "$ifNull", "[", "{", "$convert", "{", "input", "{", "$cond", "[", "{",
                  "$isNumber", BCON_UTF8(name), "}", "{", "$convert", "{", "input", BCON_UTF8(name),
                  "to", BCON_UTF8("long"), "onError", BCON_NULL, "}", "}", BCON_UTF8(name), "]",
                  "}", "to", BCON_UTF8("date"), "onError", BCON_NULL, "onNull", BCON_NULL, "}", "}",
                  "{", "$convert", "{", "input", BCON_UTF8("$_id"), "to", BCON_UTF8("date"),
                  "onError", BCON_NULL, "onNull", BCON_NULL, "}", "}", "]", "}");
}

void outbox_append_aggregate(const Outbox *outbox, bson_t *filter, const Aggregate *aggregate) {
  bson_append_utf8(filter, outbox_field(outbox, FIELD_AGGREGATE_TYPE), -1, aggregate->type,
                   (int)aggregate->type_length);
  id_append_bson(&aggregate->id, filter, outbox_field(outbox, FIELD_AGGREGATE_ID));
}

/* An index serves the comparison of a field; in another outbox only an expression yields the
 * time. */
void outbox_append_times(const Outbox *outbox, bson_t *filter, int64_t from, int64_t to) {
  bson_t when, *time = outbox_time(outbox);
  bson_iter_t iter;
  bson_iter_init_find(&iter, time, "e");
  if (outbox_is_foreign(outbox)) {
    BCON_APPEND(filter, "$expr", "{", "$and", "[", "{", "$gte", "[", BCON_ITER(&iter),
                BCON_DATE_TIME(from), "]", "}", "{", "$lt", "[", BCON_ITER(&iter),
                BCON_DATE_TIME(to), "]", "}", "]", "}");
  } else {
    BSON_APPEND_DOCUMENT_BEGIN(filter, outbox_field(outbox, FIELD_OCCURRED_AT), &when);
    BSON_APPEND_DATE_TIME(&when, "$gte", from);
    if (to != INT64_MAX)
      BSON_APPEND_DATE_TIME(&when, "$lt", to);
    bson_append_document_end(filter, &when);
  }
  bson_destroy(time);
}
