/* waiting.h - `GET /wait`: requests that are answered when a version is accounted for.
 *
 * The worker's commit answers them. Besides, one thread asks the stores: about a new request once,
 * and about all of them together once a second, because commands commit in other processes. On a
 * standby it does only that. A store that does not answer holds that thread, so another one ends
 * requests that have waited long enough or whose client has disconnected. */
#pragma once

#include "projector/app/engine/metrics.h"
#include "projector/app/shared/config.h"
#include "projector/infra/http/server.h"
#include "projector/infra/mongo/store.h"

typedef struct Waiting Waiting;

/* Listens to the metrics; before the first worker starts. Everything given must outlive it. */
Waiting *waiting_new(const Config *config, Metrics *metrics);
/* Gives it access to the stores; until then requests are refused. */
void waiting_start(Waiting *waiting, MongoStore *store);
/* Refuses waiting and later requests. */
void waiting_end(Waiting *waiting);
void waiting_free(Waiting *waiting);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Waiting, waiting_free)

/* Answers the request, now or later. */
void waiting_take(Waiting *waiting, HttpRequest *request);
/* The number of waiting requests. */
unsigned waiting_count(Waiting *waiting);
