/* entity.h - an entity's document, read as if it were an event: the mapping knows only events. */
#pragma once

#include "projector/domain/event.h"

/* The entity's `version`; 0: none. */
int64_t entity_version(const bson_t *entity);
/* The time of the entity's last event, `last_event_at`, in ms since 1970; `otherwise` when it has
 * none. */
int64_t entity_time(const bson_t *entity, int64_t otherwise);

/* An event of the aggregate whose payload is the entity. Version 0 and time INT64_MIN: none. */
Event *entity_as_event(const bson_t *entity, const Aggregate *aggregate, int64_t version,
                       int64_t occurred_at);
