/* http.h - the HTTP endpoints of a running projector: metrics, health, status, the page, actions,
 * waiting for a version, archived events. */
#pragma once

#include "projector/app/web/monitor.h"
#include "projector/app/web/waiting.h"

typedef struct Http Http;

/* Listens and answers at once, even while the process stands by. FAILURE_CONFIG when it cannot
 * listen. Everything given must outlive it. */
Http *http_start(const Config *config, Metrics *metrics, Monitor *monitor, Waiting *waiting,
                 Failure *ret_failure);
/* Enables actions; before this they are refused. */
void http_open_actions(Http *http, MongoStore *store);
void http_free(Http *http);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Http, http_free)
