/* entity.h - an entity's document, read as if it were an event: the mapping knows only events. */
#pragma once

#include "projector/domain/mapping.h"

/* The entity's `_id` as the id of an aggregate; it points into the document. Returns false when no
 * event can name it, and entity_misfit says why. */
bool entity_id(const bson_t *entity, Id *ret_id);
void entity_misfit(const bson_t *entity, Failure *ret_failure);
/* {"_id": …} as extended JSON, to find the entity by; a long one is cut. Free with g_free. */
char *entity_id_text(const bson_t *entity);
/* The entity's `version`; 0: none. */
int64_t entity_version(const bson_t *entity);
/* The time of the entity's last event, `last_event_at`, in ms since 1970; `otherwise` when it has
 * none. */
int64_t entity_time(const bson_t *entity, int64_t otherwise);

/* The time from which the projection's row of the entity is written: its own, or the `known` one of
 * its aggregate (INT64_MIN: none). An entity that nothing is known of, because its writer keeps no
 * `last_event_at`, takes `now`, unless a column that is compared would get it: INT64_MIN. */
int64_t entity_time_to_write(const Projection *projection, const bson_t *entity, int64_t known,
                             int64_t now);

/* An event of the aggregate whose payload is the entity. Version 0 and time INT64_MIN: none. */
Event *entity_as_event(const bson_t *entity, const Aggregate *aggregate, int64_t version,
                       int64_t occurred_at);
