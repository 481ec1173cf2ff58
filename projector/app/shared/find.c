/* find.c - looks for an aggregate in the outbox and among the entities. */
#include "projector/app/shared/find.h"

#include <string.h>

bool find_entity(const Config *config, Outbox *outbox, const Aggregate *aggregate, bool *ret_found,
                 Failure *ret_failure) {
  *ret_found = false;
  for (unsigned i = 0; i < mapping_projection_count(config->mapping) && !*ret_found; i++) {
    const Projection *projection = mapping_projection(config->mapping, i);
    bson_t *entity = NULL;
    if (!projection_is_of(projection, aggregate->type, aggregate->type_length) ||
        !projection->entities)
      continue;
    if (!outbox_read_entity(outbox, projection->entities, &aggregate->id, &entity, ret_failure))
      return false;
    *ret_found = entity != NULL;
    if (entity)
      bson_destroy(entity);
  }
  return true;
}

bool find_aggregate(const Config *config, Outbox *outbox, Sought *sought, Failure *ret_failure) {
  Id ids[IDS_OF_TEXT];
  unsigned count = ids_from_text(sought->text, strlen(sought->text), sought->bytes, ids);
  sought->found = false;
  for (unsigned k = 0; k < count && !sought->found; k++) {
    sought->aggregate = (Aggregate){
        .type = sought->type, .type_length = (uint32_t)strlen(sought->type), .id = ids[k]};
    g_autoptr(EventCursor) cursor = outbox_find_aggregate(outbox, &sought->aggregate, NULL, 1);
    sought->found = event_cursor_next(cursor, ret_failure) != NULL;
    if (ret_failure->class != FAILURE_NONE ||
        (!sought->found &&
         !find_entity(config, outbox, &sought->aggregate, &sought->found, ret_failure)))
      return false;
  }
  return true;
}
