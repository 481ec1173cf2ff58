/* outbox_private.h - what the files that work on the outbox collection share. */
#pragma once

#include "projector/infra/mongo/outbox.h"

/* Its members are for outbox.c, outbox_handle.c and leave_commands.c. */
struct Outbox {
  MongoStore *store;
  mongoc_client_t *client;
  mongoc_collection_t *events;
  char *owner;
  bson_t *write, *quick_write; /* options; the latter of what may be lost in a failover
                                  (docs/adr/0010-quick-claims.md) */
};

const char *outbox_owner(const Outbox *outbox);
MongoStore *outbox_store(const Outbox *outbox);
const char *outbox_name(const Outbox *outbox);
/* Options of a write that may be lost in a failover (docs/adr/0010-quick-claims.md). */
const bson_t *outbox_quick_write(const Outbox *outbox);
/* Both belong to the outbox. */
mongoc_client_t *outbox_client(const Outbox *outbox);
mongoc_collection_t *outbox_collection(const Outbox *outbox);
/* Another collection of its database, by the same client; destroy it. */
mongoc_collection_t *outbox_neighbour(const Outbox *outbox, const char *name);
/* `key`: {"$in": the ids} */
void outbox_append_ids(bson_t *filter, const char *key, const Id *ids, size_t count);
/* "_id": {"$in": the ids of the events} */
void outbox_append_event_ids(bson_t *filter, Event *const *events, size_t count);
/* {"0": id, "1": id …} of the events */
void outbox_list_ids(bson_t *array, Event *const *events, size_t count);
/* The same of those that a person has skipped. */
void outbox_list_skipped(bson_t *array, Event *const *events, size_t count);
/* An expression: whether the event's own document counts attempts. What is no number, or below 1,
 * counts none, as event_decode sees it. */
void outbox_append_counted(bson_t *expression);
/* An event that is pending and was never attempted: what is claimed by the batch stays so. */
void outbox_append_untouched(bson_t *filter);
/* What outbox_find_abandoned says. */
void outbox_append_abandoned(bson_t *filter, const Outbox *outbox, int64_t older_than_ms);
/* Also, that a command has seized it. */
void outbox_append_seized(bson_t *filter);
/* {"sort": the order of events} */
bson_t *outbox_sorted_options(const Outbox *outbox);
/* The name of a field in the outbox's documents. */
const char *outbox_field(const Outbox *outbox, EventField field);
/* Whether they have to be translated (domain/event_fields.h). */
bool outbox_is_foreign(const Outbox *outbox);
/* The expression of an event's time, as a document {"e": …}. Destroy it. */
bson_t *outbox_time(const Outbox *outbox);
/* Events whose time is in [from, to); INT64_MAX: no end. */
void outbox_append_times(const Outbox *outbox, bson_t *filter, int64_t from, int64_t to);
/* Aggregate type and id. */
void outbox_append_aggregate(const Outbox *outbox, bson_t *filter, const Aggregate *aggregate);
/* Takes ownership of filter and options. */
EventCursor *outbox_find(Outbox *outbox, bson_t *filter, bson_t *options);
/* The same in a session of its own, for event_cursor_moment. */
EventCursor *outbox_find_timed(Outbox *outbox, bson_t *filter, bson_t *options);
/* The same with nothing of the payload, but still events that can be decoded. */
EventCursor *outbox_find_briefly(Outbox *outbox, bson_t *filter, bson_t *options);

enum { FIRST_BATCH = 4 }; /* documents in a first answer, when nothing is known about their size */

typedef struct AnswerSize {
  uint32_t mean_bytes; /* of the last documents */
  uint32_t batch;      /* what was therefore asked for; 0: nothing */
} AnswerSize;

/* Asks for fewer documents in an answer when they are large. */
void outbox_suit_answers(mongoc_cursor_t *cursor, AnswerSize *size, const bson_t *document);
/* The same in the order of the times, whatever types the time's field has; direction 1 or -1,
 * limit 0: all. The server sorts without an index. */
EventCursor *outbox_find_by_time(Outbox *outbox, bson_t *filter, int direction, int limit);
bool outbox_update_many(Outbox *outbox, const bson_t *filter, const bson_t *update,
                        int64_t *ret_matched, Failure *ret_failure);
/* The same with options of outbox_quick_write. */
bool outbox_update_quickly(Outbox *outbox, const bson_t *filter, const bson_t *update,
                           int64_t *ret_matched, Failure *ret_failure);

/* A write to some of the events. */
typedef bool (*OutboxWrite)(Outbox *outbox, Event *const *events, size_t count, const void *data,
                            Failure *ret_failure);

/* Writes to all of them but those for which MongoDB refuses it: one validator's no would otherwise
 * keep those behind it from being written. Fails with the last refusal, and goes on looking for
 * those that are refused alone only while they are few. */
bool outbox_write_around(Outbox *outbox, Event *const *events, size_t count, OutboxWrite write,
                         const void *data, Failure *ret_failure);

/* --- how events leave: leave.c decides, leave_commands.c sends --- */

/* Events that the filter selects leave, once their copies are where they belong. `whole`: they were
 * read whole, so that copies can be made of them. */
bool outbox_take_out(Outbox *outbox, const bson_t *filter, Event *const *events, size_t count,
                     bool whole, Failure *ret_failure);
/* For a majority; a copy that is there stays as it is. */
bool outbox_copy_to_archive(Outbox *outbox, const bson_t *filter, Event *const *events,
                            size_t count, Failure *ret_failure);
bool outbox_delete(Outbox *outbox, const bson_t *filter, Failure *ret_failure);
