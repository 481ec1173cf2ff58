/* fill.c - reads the ids of entities and hands them out in batches. */
#include "projector/app/rebuild/fill.h"

#include "projector/domain/entity.h"
#include "projector/infra/clock.h"
#include "projector/infra/mongo/entities.h"

#include <string.h>

enum {
  PAGE = 500,
  BYTES_MAX = 4 * 1024 * 1024, /* of the documents of a batch */
};

struct Fill {
  Stores *stores;
  const char *aggregate_type;
  Entities *ids;
  int64_t rate;
  int64_t started_us, handed_out; /* for the rate that is shown */
};

static Entities *open_sizes(Stores *stores, const char *collection) {
  bson_t *fields = BCON_NEW("_id", BCON_INT32(1), "bytes", "{", "$bsonSize", "$$ROOT", "}");
  Entities *sizes = entities_open(stores->store, collection, fields);
  bson_destroy(fields);
  return sizes;
}

Fill *fill_new(Stores *stores, const Projection *projection, int64_t rate) {
  Fill *fill = g_new0(Fill, 1);
  *fill = (Fill){.stores = stores,
                 .aggregate_type = projection->aggregate_type,
                 .ids = open_sizes(stores, projection->entities),
                 .rate = rate,
                 .started_us = clock_us()};
  return fill;
}

void fill_free(Fill *fill) {
  if (!fill)
    return;
  entities_close(fill->ids);
  g_free(fill);
}

static void keep_rate(Fill *fill) {
  if (fill->rate == 0)
    return;
  int64_t due_us = fill->started_us + fill->handed_out * 1000000 / fill->rate;
  int64_t now_us = clock_us();
  if (due_us > now_us)
    g_usleep((gulong)(due_us - now_us));
}

static int64_t bytes_of(const bson_t *document) {
  bson_iter_t iter;
  return bson_iter_init_find(&iter, document, "bytes") ? bson_iter_as_int64(&iter) : 0;
}

/* The next batch of the page. An `_id` that no aggregate can have is left out; the comparison at
 * the end reports it. */
static guint next_batch(const Fill *fill, const GPtrArray *documents, guint from,
                        GArray *aggregates) {
  int64_t bytes = 0;
  guint at = from;
  for (; at < documents->len && (at == from || bytes < BYTES_MAX); at++) {
    Aggregate aggregate = {.type = fill->aggregate_type,
                           .type_length = (uint32_t)strlen(fill->aggregate_type)};
    bytes += bytes_of(documents->pdata[at]);
    if (entity_id(documents->pdata[at], &aggregate.id))
      g_array_append_val(aggregates, aggregate);
  }
  return at;
}

/* By id; one that is gone has no size. */
static bool read_sizes(Stores *stores, const FillBatch *batch, GPtrArray *documents, Id *ids,
                       GHashTable *sizes, Failure *ret_failure) {
  g_autoptr(Entities) entities = open_sizes(stores, batch->entities);
  g_autofree Id *wanted = g_new(Id, batch->count);
  for (size_t i = 0; i < batch->count; i++)
    wanted[i] = batch->aggregates[i].id;
  if (!entities_find(entities, wanted, batch->count, documents, ret_failure))
    return false;
  for (guint i = 0; i < documents->len; i++)
    if (entity_id(documents->pdata[i], &ids[i]))
      g_hash_table_insert(sizes, &ids[i], documents->pdata[i]);
  return true;
}

bool fill_by_size(Stores *stores, const FillBatch *batch, FillTake take, void *data,
                  Failure *ret_failure) {
  g_autoptr(GPtrArray) documents = g_ptr_array_new_with_free_func((GDestroyNotify)bson_destroy);
  g_autoptr(GHashTable) sizes = g_hash_table_new(id_hash_key, id_equal_key);
  g_autofree Id *ids = g_new(Id, batch->count + 1);
  if (!read_sizes(stores, batch, documents, ids, sizes, ret_failure))
    return false;
  for (size_t at = 0; at < batch->count;) {
    size_t end = at;
    for (int64_t bytes = 0; end < batch->count && (end == at || bytes < BYTES_MAX); end++) {
      const bson_t *size = g_hash_table_lookup(sizes, &batch->aggregates[end].id);
      bytes += size ? bytes_of(size) : 0;
    }
    if (!take(batch->aggregates + at, end - at, data, ret_failure))
      return false;
    at = end;
  }
  return true;
}

bool fill_page(Fill *fill, bson_t **after, FillTake take, void *data, int64_t *done, bool *ret_end,
               Failure *ret_failure) {
  g_autoptr(GPtrArray) documents = g_ptr_array_new_with_free_func((GDestroyNotify)bson_destroy);
  unsigned page = fill->rate ? (unsigned)CLAMP(fill->rate / 4, 1, PAGE) : PAGE;
  if (!entities_page(fill->ids, *after, page, documents, ret_failure))
    return false;
  *ret_end = documents->len == 0;
  for (guint at = 0; at < documents->len;) {
    g_autoptr(GArray) aggregates = g_array_new(FALSE, FALSE, sizeof(Aggregate));
    at = next_batch(fill, documents, at, aggregates);
    if (!stores_wake(fill->stores, ret_failure) ||
        (aggregates->len > 0 &&
         !take((const Aggregate *)(void *)aggregates->data, aggregates->len, data, ret_failure)))
      return false;
    fill->handed_out += aggregates->len;
    *done += aggregates->len;
    keep_rate(fill);
  }
  if (*ret_end)
    return true;
  if (*after)
    bson_destroy(*after);
  *after = entity_mark(documents->pdata[documents->len - 1]);
  return true;
}
