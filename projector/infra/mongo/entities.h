/* entities.h - reads a collection of entities: in pages by `_id`, by sample, by ids.
 *
 * Each call is a separate query, so no cursor and no snapshot outlives it. Reads are majority. An
 * Entities belongs to one thread. */
#pragma once

#include "projector/domain/event.h"
#include "projector/infra/mongo/store.h"

typedef struct Entities Entities;

/* `fields`, when given, selects what is read of the documents ({"_id": 1, "iban": 1}); it is
 * copied. */
Entities *entities_open(MongoStore *store, const char *collection, const bson_t *fields);
void entities_close(Entities *entities);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Entities, entities_close)

/* Up to `limit` documents (bson_t *, owned by the array) after `after`, a document with an `_id`
 * (NULL: from the first), in the order of `_id` over all its types; fewer when they are large.
 * None: there are no more, as confirmed by the server. */
bool entities_page(Entities *entities, const bson_t *after, unsigned limit, GPtrArray *documents,
                   Failure *ret_failure);
/* Up to `size` documents chosen at random; fewer when they are large. */
bool entities_sample(Entities *entities, int64_t size, GPtrArray *documents, Failure *ret_failure);
/* Those of the ids that exist. */
bool entities_find(Entities *entities, const Id *ids, size_t count, GPtrArray *documents,
                   Failure *ret_failure);
/* Whether the collection (or view) exists, however few documents it has; also `true` if the user
 * may not ask. */
bool entities_exist(MongoStore *store, const char *collection, bool *ret_exist,
                    Failure *ret_failure);
bool entities_estimate(Entities *entities, int64_t *ret_count, Failure *ret_failure);

/* {"_id": …} of the document. */
bson_t *entity_mark(const bson_t *document);
