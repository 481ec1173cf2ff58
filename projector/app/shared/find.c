/* find.c - looks for an aggregate in the outbox and among the entities. */
#include "projector/app/shared/find.h"

#include <string.h>

bool find_aggregate(const Config *config, Outbox *outbox, const char *type, const char *text,
                    uint8_t bytes[static 16], Aggregate *ret_aggregate, bool *ret_found,
                    Failure *ret_failure) {
  Id ids[IDS_OF_TEXT];
  unsigned count = ids_from_text(text, strlen(text), bytes, ids);
  *ret_found = false;
  for (unsigned k = 0; k < count && !*ret_found; k++) {
    Aggregate aggregate = {.type = type, .type_length = (uint32_t)strlen(type), .id = ids[k]};
    *ret_aggregate = aggregate;
    g_autoptr(EventCursor) cursor = outbox_find_aggregate(outbox, &aggregate, NULL, 1);
    *ret_found = event_cursor_next(cursor, ret_failure) != NULL;
    if (ret_failure->class != FAILURE_NONE)
      return false;
    for (unsigned i = 0; i < mapping_projection_count(config->mapping) && !*ret_found; i++) {
      const Projection *projection = mapping_projection(config->mapping, i);
      bson_t *entity = NULL;
      if (strcmp(projection->aggregate_type, type) != 0 || !projection->entities)
        continue;
      if (!outbox_read_entity(outbox, projection->entities, &aggregate.id, &entity, ret_failure))
        return false;
      *ret_found = entity != NULL;
      if (entity)
        bson_destroy(entity);
    }
  }
  return true;
}
