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

static bool exists(const Config *config, Outbox *outbox, const Aggregate *aggregate,
                   bool *ret_found, Failure *ret_failure) {
  g_autoptr(EventCursor) cursor = outbox_find_aggregate(outbox, aggregate, NULL, 1);
  *ret_found = event_cursor_next(cursor, ret_failure) != NULL;
  return ret_failure->class == FAILURE_NONE &&
         (*ret_found || find_entity(config, outbox, aggregate, ret_found, ret_failure));
}

bool find_aggregate(const Config *config, Outbox *outbox, Sought *sought, Failure *ret_failure) {
  Id ids[IDS_OF_TEXT];
  unsigned count = ids_from_text(sought->text, strlen(sought->text), sought->bytes, ids);
  if (sought->kind && !ids_keep_kind(ids, &count, sought->kind))
    return failure_refuse(ret_failure,
                          "expected an id of that kind: string, int, uuid or objectid");
  sought->found = false;
  sought->another = NULL;
  for (unsigned k = 0; k < count && !sought->another; k++) {
    const Aggregate aggregate = {sought->type, (uint32_t)strlen(sought->type), ids[k]};
    bool found;
    if (!exists(config, outbox, &aggregate, &found, ret_failure))
      return false;
    if (found && sought->found)
      sought->another = id_kind_name(ids[k].kind);
    else if (found || !sought->found)
      sought->aggregate = aggregate;
    sought->found |= found;
  }
  return true;
}

bool find_one_aggregate(const Config *config, Outbox *outbox, Sought *sought,
                        Failure *ret_failure) {
  if (!find_aggregate(config, outbox, sought, ret_failure))
    return false;
  return !sought->another ||
         failure_refuse(ret_failure,
                        "two aggregates have an id of that text: of the kinds %s and %s; say "
                        "which one (--id-kind)",
                        id_kind_name(sought->aggregate.id.kind), sought->another);
}
