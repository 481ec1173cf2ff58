/* actions.h - retry, skip and refresh as a person asks for them over HTTP: one after the other, in
 * a thread of their own, because they wait for the stores. */
#pragma once

#include "projector/app/web/monitor.h"
#include "projector/infra/http/server.h"

typedef struct Actions Actions;

Actions *actions_start(const Config *config, MongoStore *store, Monitor *monitor);
/* Waits for the one that is being done; the others are answered without, also those that come
 * still. */
void actions_end(Actions *actions);
void actions_free(Actions *actions);

/* Answers the request, now or later. `verb`: "show" (changes nothing), "retry", "skip" or
 * "refresh"; the body names an event {"event_id"} or an aggregate {"aggregate_type",
 * "aggregate_id"}; of a retry also all events of one kind {"state", "event_type", "class",
 * "reason"}. */
void actions_take(Actions *actions, HttpRequest *request, const char *verb);
