/* fill.h - reads a collection of entities in small batches, at a bounded rate. */
#pragma once

#include "projector/app/shared/stores.h"

typedef struct Fill Fill;

/* `rate`: at most this many entities per second; 0: no limit. */
Fill *fill_new(Stores *stores, const Projection *projection, int64_t rate);
void fill_free(Fill *fill);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Fill, fill_free)

/* Takes a batch of aggregates that have an entity; their documents together are small. */
typedef bool (*FillTake)(const Aggregate *aggregates, size_t count, void *data,
                         Failure *ret_failure);

typedef struct FillBatch {
  const char *entities; /* their collection */
  const Aggregate *aggregates;
  size_t count;
} FillBatch;

/* Hands out aggregates whose entities may be large, in such batches. */
bool fill_by_size(Stores *stores, const FillBatch *batch, FillTake take, void *data,
                  Failure *ret_failure);

/* The next page. `*after` is the `_id` to continue from, NULL at first; it is replaced. `*done`
 * grows by the entities. `*ret_end`: there are no more. */
bool fill_page(Fill *fill, bson_t **after, FillTake take, void *data, int64_t *done, bool *ret_end,
               Failure *ret_failure);
