/* actions.h - retry, skip and refresh over HTTP: executed one after another in a separate thread,
 * because they wait for the stores. */
#pragma once

#include "projector/app/web/monitor.h"
#include "projector/infra/http/server.h"

typedef struct Actions Actions;

Actions *actions_start(const Config *config, MongoStore *store, Monitor *monitor);
/* Waits for the running action; all others, including later ones, are refused. */
void actions_end(Actions *actions);
void actions_free(Actions *actions);

/* Answers the request, now or later. `verb`: "show" (changes nothing), "retry", "skip" or
 * "refresh"; the body names an event {"event_id"} or an aggregate {"aggregate_type",
 * "aggregate_id"}; for a retry also all events of one kind {"state", "event_type", "class",
 * "reason"}. */
void actions_take(Actions *actions, HttpRequest *request, const char *verb);
