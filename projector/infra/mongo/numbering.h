/* numbering.h - assigns sequence numbers to archived events, the order in which they can be fetched
 * on demand.
 *
 * An event gets its number (`seq`, from 1) once its copy in the archive is visible to a majority,
 * whoever archived it. The numbers of a page and the counter, a document beside the leases keyed
 * "events:" and the outbox, are written in one transaction, so that they become visible together;
 * an owner with a lower epoch than the counter's is fenced out. So nothing ever appears below a
 * number that was already readable. */
#pragma once

#include "projector/infra/mongo/outbox.h"

typedef struct Numbering Numbering;

/* Is told of an event that MongoDB refuses to change, once. Returns false to end the step. */
typedef bool (*NumberingRefused)(const Event *event, const Failure *failure, void *data);

/* For one ownership. */
Numbering *numbering_new(MongoStore *store, int64_t epoch, NumberingRefused refused, void *data);
void numbering_free(Numbering *numbering);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Numbering, numbering_free)

/* Numbers some events, in their order; `*ret_count` counts them, 0: none is left but those that are
 * left out. FAILURE_FENCED: a later owner has numbered since.
 *
 * An event that MongoDB refuses to change is left out, and tried again every ten seconds; it gets
 * the number that is next when MongoDB agrees. If it refuses more than a hundred, the step fails.
 */
bool numbering_step(Numbering *numbering, int64_t *ret_count, Failure *ret_failure);
/* How many events are left out. */
unsigned numbering_left_out(const Numbering *numbering);

/* --- reading; the outbox is that of the archive --- */

/* The highest epoch that has numbered events of this outbox, under whatever name; 0: none yet. */
bool numbering_epoch(MongoStore *store, int64_t *ret_epoch, Failure *ret_failure);
/* The last number assigned; 0: none yet. `*ret_moment` (may be NULL): when it was read. */
bool numbering_last(MongoStore *store, const char *outbox, int64_t *ret_last, Moment *ret_moment,
                    Failure *ret_failure);
/* The lowest number that is still in the archive; 0: there is none. */
bool numbering_oldest(Outbox *archive, int64_t *ret_oldest, Failure *ret_failure);

/* As of which moment events are read: exactly then, or then or later, because a primary that was
 * just elected may still show an earlier one. */
typedef struct AsOf {
  Moment moment;
  bool exactly;
} AsOf;

/* At most `limit` numbered events behind `after` that the filter selects, in the order of their
 * numbers. Takes ownership of the filter. */
EventCursor *numbering_find(Outbox *archive, bson_t *filter, int64_t after, AsOf as_of, int limit);
/* For a filter: only archived events that have no number yet. */
void numbering_append_missing(bson_t *filter);
/* Events of the outbox or of the archive, in their own order. Takes ownership of the filter. */
EventCursor *numbering_find_in_order(Outbox *events, bson_t *filter, AsOf as_of);
/* The number of a document of the archive; 0: it has none. */
int64_t numbering_of(const bson_t *document);
/* Whether archived events wait for a number. */
bool numbering_is_behind(Outbox *archive, bool *ret_behind, Failure *ret_failure);
