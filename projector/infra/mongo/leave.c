/* leave.c - how events leave the outbox. */
#include "projector/infra/mongo/feeds.h"
#include "projector/infra/mongo/outbox_private.h"

/* Skipped events are always kept: the payload may be the only record of what was lost. */
static bool keep(Outbox *outbox, const bson_t *filter, Event *const *events, size_t count,
                 Failure *ret_failure) {
  bson_t skipped = BSON_INITIALIZER, only = BSON_INITIALIZER;
  outbox_list_skipped(&skipped, events, count);
  bool all = mongo_store_settings(outbox_store(outbox))->archive, some = !bson_empty(&skipped);
  if (!all)
    BCON_APPEND(&only, "$and", "[", BCON_DOCUMENT(filter), "{", "_id", "{", "$in",
                BCON_ARRAY(&skipped), "}", "}", "]");
  bool good = (!all && !some) ||
              outbox_copy_to_archive(outbox, all ? filter : &only, events, count, ret_failure);
  bson_destroy(&only);
  bson_destroy(&skipped);
  return good;
}

bool outbox_keep(Outbox *outbox, Event *event, Failure *ret_failure) {
  if (mongo_store_settings(outbox_store(outbox))->archive)
    return true;
  bson_t filter = BSON_INITIALIZER;
  bool before = event->skipped;
  event->skipped = true;
  outbox_append_event_ids(&filter, &event, 1);
  bool good = keep(outbox, &filter, &event, 1, ret_failure);
  event->skipped = before;
  bson_destroy(&filter);
  return good || failure_prefix(ret_failure, "a superseded event is kept in %s_archive",
                                mongo_store_settings(outbox_store(outbox))->outbox);
}

/* All callers take events out of the outbox here, so nothing leaves before its copies are where
 * they belong. `whole`: the events were read whole, so copies can be made from them. */
bool outbox_take_out(Outbox *outbox, const bson_t *filter, Event *const *events, size_t count,
                     bool whole, Failure *ret_failure) {
  return keep(outbox, filter, events, count, ret_failure) &&
         (whole && !outbox_is_foreign(outbox) /* documents of other outboxes were translated */
              ? feeds_copy_whole(outbox, events, count, ret_failure)
              : feeds_copy_with_earlier(outbox, filter, ret_failure)) &&
         outbox_delete(outbox, filter, ret_failure);
}

/* By id alone, whoever has claimed the event by now: acknowledged events are in the ledger. */
static bool acknowledge(Outbox *outbox, Event *const *events, size_t count, bool whole,
                        Failure *ret_failure) {
  bson_t filter = BSON_INITIALIZER;
  outbox_append_event_ids(&filter, events, count);
  bool good = outbox_take_out(outbox, &filter, events, count, whole, ret_failure);
  bson_destroy(&filter);
  return good;
}

bool outbox_acknowledge(Outbox *outbox, Event *const *events, size_t count, Failure *ret_failure) {
  return acknowledge(outbox, events, count, false, ret_failure);
}

bool outbox_acknowledge_whole(Outbox *outbox, Event *const *events, size_t count,
                              Failure *ret_failure) {
  return acknowledge(outbox, events, count, true, ret_failure);
}
