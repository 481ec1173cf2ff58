/* list.h - an event as `list --json` shows it. */
#pragma once

#include "projector/domain/event.h"

#include <jansson.h>

/* With the reason why it is where it is, from its last_error. Free it. */
json_t *list_event_json(const Event *event);
