/* prefetch.h - reads the events and entities of many aggregates of one type with two queries. */
#pragma once

#include "projector/app/shared/refresh.h"
#include "projector/app/shared/stores.h"
#include "projector/infra/mongo/entities.h"

typedef struct Reads Reads;

/* For aggregates of this collection of entities; it is not copied. */
Reads *reads_new(Stores *stores, const char *entities);
void reads_free(Reads *reads);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Reads, reads_free)

/* What it reads lives until the next read. */
Prefetch reads_prefetch(Reads *reads);
