/* check_readers.h - what `check` reports on everything around the projector: writers who repeat
 * commands, the feeds and their readers, those who fetch events again or wait for a write, pauses,
 * and replicas that hold it back. */
#pragma once

#include "projector/app/commands/check_report.h"
#include "projector/app/shared/config.h"
#include "projector/infra/mongo/outbox.h"

/* A collection with events, and how it is spoken of. */
typedef struct EventCollection {
  Outbox *events;
  const char *name, *collection, *option; /* option: of `outbox init` */
} EventCollection;

/* The indexes that look-ups need. */
void check_indexes(CheckReport *report, const Config *config, const EventCollection *of);
void check_readers(CheckReport *report, const Config *config, MongoStore *store);
/* Whether `GET /wait` can be had. */
void check_waiting(CheckReport *report, const Config *config);
/* What holds a backlog back. `session` is with mysql.host. */
void check_throttle(CheckReport *report, const Config *config, Session *session);
