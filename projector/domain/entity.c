/* entity.c - an entity in the form of an event. */
#include "projector/domain/entity.h"

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
