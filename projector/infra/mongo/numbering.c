/* numbering.c - which archived events get which sequence numbers: page by page in transactions. */
#include "projector/infra/mongo/numbering.h"

#include "projector/infra/crash.h"
#include "projector/infra/mongo/numbering_private.h"

struct Numbering {
  MongoStore *store;
  Outbox *archive;
  int64_t epoch;
  EventCursor *cursor; /* of events without a number; NULL: not open */
};

Numbering *numbering_new(MongoStore *store, int64_t epoch) {
  g_autofree char *archive = mongo_archive_name(mongo_store_settings(store)->outbox);
  Numbering *numbering = g_new0(Numbering, 1);
  numbering->store = store;
  numbering->archive = outbox_new_on(store, "", archive);
  numbering->epoch = epoch;
  return numbering;
}

void numbering_free(Numbering *numbering) {
  if (!numbering)
    return;
  event_cursor_free(numbering->cursor);
  outbox_free(numbering->archive);
  g_free(numbering);
}

/* --- one page ------------------------------------------------------------------------------- */

/* Adds the ids of the next page: {"0": id …}. All pages come from one cursor, so that an archive
 * that was never numbered is sorted only once. */
static bool read_page(Numbering *numbering, bson_t *ids, uint32_t *ret_count,
                      Failure *ret_failure) {
  const bson_t *document = NULL;
  uint32_t count = 0;
  if (!numbering->cursor)
    numbering->cursor = numbers_find_missing(numbering->archive);
  while (count < NUMBERING_PAGE && (document = event_cursor_next(numbering->cursor, ret_failure))) {
    char buffer[16];
    const char *key;
    g_autoptr(Event) event = event_decode(document);
    bson_uint32_to_string(count++, &key, buffer, sizeof buffer);
    event_append_id(event, ids, key);
  }
  if (!document)
    g_clear_pointer(&numbering->cursor, event_cursor_free);
  *ret_count = count;
  return ret_failure->class == FAILURE_NONE;
}

/* All or none: an event that was numbered or removed since it was read leaves no hole. In doubt
 * nothing is lost: events without a number are read again. */
static bool number(const Numbering *numbering, const bson_t *ids, uint32_t count,
                   Failure *ret_failure) {
  int64_t before = 0, written = 0;
  NumberTransaction *transaction = numbers_begin(numbering->store, ret_failure);
  if (!transaction)
    return false;
  bool good = numbers_take(transaction, numbering->epoch, count, &before, ret_failure) &&
              numbers_write(transaction, ids, before, &written, ret_failure);
  if (good && written != (int64_t)count)
    good = failure_set(ret_failure, FAILURE_CONFLICT, SOURCE_MONGODB, 0,
                       "the archive has changed since it was read");
  if (good)
    crash_point("before_numbered");
  good = good && numbers_commit(transaction, ret_failure);
  numbers_end(transaction);
  return good;
}

bool numbering_step(Numbering *numbering, int64_t *ret_count, Failure *ret_failure) {
  bson_t ids = BSON_INITIALIZER;
  uint32_t count = 0;
  bool good = read_page(numbering, &ids, &count, ret_failure) &&
              (count == 0 || number(numbering, &ids, count, ret_failure));
  bson_destroy(&ids);
  if (!good)
    g_clear_pointer(&numbering->cursor, event_cursor_free);
  *ret_count = good ? count : 0;
  return good;
}
