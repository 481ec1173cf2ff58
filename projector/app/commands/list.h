/* list.h - an event as `list --json` shows it. */
#pragma once

#include "projector/domain/event.h"
#include "projector/infra/mongo/refused.h"

#include <jansson.h>

/* Includes the reason for its state, from its last_error. Free it. */
json_t *list_event_json(const Event *event);
/* The same for an event that MongoDB refuses to mark. */
json_t *list_refused_json(const Event *event, const Refused *refused);
