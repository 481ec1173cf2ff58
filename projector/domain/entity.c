/* entity.c - an entity in the form of an event. */
#include "projector/domain/entity.h"

#include "projector/domain/describe.h"

#include <string.h>

enum { SHOWN = 200 }; /* bytes of an `_id` quoted in messages */

bool entity_id(const bson_t *entity, Id *ret_id) {
  bson_iter_t iter;
  return bson_iter_init_find(&iter, entity, "_id") && aggregate_id_from_iter(&iter, ret_id);
}

void entity_misfit(const bson_t *entity, Failure *ret_failure) {
  char found[DESCRIPTION_SIZE] = "nothing";
  bson_iter_t iter;
  if (bson_iter_init_find(&iter, entity, "_id"))
    bson_describe(&iter, found, sizeof found);
  failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0,
              "_id: expected what can be an aggregate's id (a string of 1 to 255 bytes, a UUID of "
              "subtype 4, an ObjectId, an int32 or an int64), found %s",
              found);
}

char *entity_id_text(const bson_t *entity) {
  bson_t id = BSON_INITIALIZER;
  bson_iter_t iter;
  if (bson_iter_init_find(&iter, entity, "_id"))
    bson_append_iter(&id, "_id", -1, &iter);
  char *json = bson_as_relaxed_extended_json(&id, NULL);
  bson_destroy(&id);
  bool long_one = json && strlen(json) > SHOWN;
  g_autofree char *cut = g_strndup(json ? json : "{}", SHOWN);
  bson_free(json);
  g_autofree char *valid = g_utf8_make_valid(cut, -1);
  return g_strconcat(valid, long_one ? "…" : "", NULL);
}

int64_t entity_version(const bson_t *entity) {
  bson_iter_t iter;
  return bson_iter_init_find(&iter, entity, "version") && BSON_ITER_HOLDS_NUMBER(&iter)
             ? bson_iter_as_int64(&iter)
             : 0;
}

int64_t entity_time(const bson_t *entity, int64_t otherwise) {
  bson_iter_t iter;
  return bson_iter_init_find(&iter, entity, "last_event_at") && BSON_ITER_HOLDS_DATE_TIME(&iter)
             ? bson_iter_date_time(&iter)
             : otherwise;
}

static bool compares_time(const Projection *projection) {
  for (unsigned i = 0; i < projection->column_count; i++) {
    const Column *column = &projection->columns[i];
    for (const Source *place = &column->from; place; place = place->otherwise)
      if (!place->in_payload && !g_strcmp0(place->text, "$occurred_at") &&
          (i < projection->key_count || column->compare))
        return true;
  }
  for (unsigned i = 0; i < projection->child_count; i++)
    if (compares_time(projection->children[i]))
      return true;
  return false;
}

int64_t entity_time_to_write(const Projection *projection, const bson_t *entity, int64_t known,
                             int64_t now) {
  int64_t time = entity_time(entity, known);
  return time == INT64_MIN && !compares_time(projection) ? now : time;
}

Event *entity_as_event(const bson_t *entity, const Aggregate *aggregate, int64_t version,
                       int64_t occurred_at) {
  bson_t document = BSON_INITIALIZER;
  bson_append_utf8(&document, "aggregate_type", -1, aggregate->type, (int)aggregate->type_length);
  id_append_bson(&aggregate->id, &document, "aggregate_id");
  if (version)
    BSON_APPEND_INT64(&document, "version", version);
  if (occurred_at != INT64_MIN)
    BSON_APPEND_DATE_TIME(&document, "occurred_at", occurred_at);
  BSON_APPEND_DOCUMENT(&document, "payload", entity);
  Event *event = event_decode(&document);
  bson_destroy(&document);
  return event;
}
