/* numbering.c - which archived events get which sequence numbers: page by page in transactions. */
#include "projector/infra/mongo/numbering.h"

#include "projector/infra/clock.h"
#include "projector/infra/crash.h"
#include "projector/infra/mongo/numbering_private.h"

enum {
  LEFT_OUT_MAX = 100, /* if MongoDB refuses more, it is not the events' fault */
  AGAIN_S = 10,       /* between two tries of an event that is left out */
};

struct Numbering {
  MongoStore *store;
  Outbox *archive;
  int64_t epoch;
  NumberingRefused refused;
  void *data;
  EventCursor *cursor;  /* of events without a number; NULL: not open */
  GHashTable *left_out; /* {"0": id} of an event → when it is tried again (monotonic, us) */
  unsigned met;         /* events left out that this cursor has met */
  int64_t highest;      /* number in the archive; -1: not looked yet */
};

Numbering *numbering_new(MongoStore *store, int64_t epoch, NumberingRefused refused, void *data) {
  g_autofree char *archive = mongo_archive_name(mongo_store_settings(store)->outbox);
  Numbering *numbering = g_new0(Numbering, 1);
  numbering->store = store;
  numbering->archive = outbox_new_on(store, "", archive);
  numbering->epoch = epoch;
  numbering->highest = -1;
  numbering->refused = refused;
  numbering->data = data;
  numbering->left_out =
      g_hash_table_new_full(g_bytes_hash, g_bytes_equal, (GDestroyNotify)g_bytes_unref, g_free);
  return numbering;
}

void numbering_free(Numbering *numbering) {
  if (!numbering)
    return;
  event_cursor_free(numbering->cursor);
  g_hash_table_unref(numbering->left_out);
  outbox_free(numbering->archive);
  g_free(numbering);
}

unsigned numbering_left_out(const Numbering *numbering) {
  return g_hash_table_size(numbering->left_out);
}

/* --- events that are left out --------------------------------------------------------------- */

static GBytes *key_of(const Event *event) {
  bson_t id = BSON_INITIALIZER;
  event_append_id(event, &id, "0");
  GBytes *key = g_bytes_new(bson_get_data(&id), id.len);
  bson_destroy(&id);
  return key;
}

/* NULL: it is not left out. */
static const int64_t *due_at(const Numbering *numbering, const Event *event) {
  g_autoptr(GBytes) key = key_of(event);
  return g_hash_table_lookup(numbering->left_out, key);
}

/* Returns false, with the failure, when the step cannot go on. */
static bool leave_out(Numbering *numbering, const Event *event, Failure *failure) {
  bool known = due_at(numbering, event) != NULL;
  if (!known && (numbering_left_out(numbering) >= LEFT_OUT_MAX ||
                 !numbering->refused(event, failure, numbering->data)))
    return false;
  int64_t *again_at = g_new(int64_t, 1);
  *again_at = clock_us() + AGAIN_S * 1000000LL;
  g_hash_table_replace(numbering->left_out, key_of(event), again_at);
  numbering->met++;
  *failure = (Failure){0};
  return true;
}

static void take_back(Numbering *numbering, Event *const *events, size_t count) {
  for (size_t i = 0; numbering_left_out(numbering) > 0 && i < count; i++) {
    g_autoptr(GBytes) key = key_of(events[i]);
    g_hash_table_remove(numbering->left_out, key);
  }
}

/* --- one page ------------------------------------------------------------------------------- */

/* The next page, and those that were left out and are due `again`. All pages come from one cursor,
 * so that an archive that was never numbered is sorted only once. */
static bool read_page(Numbering *numbering, GPtrArray *page, GPtrArray *again,
                      Failure *ret_failure) {
  const bson_t *document = NULL;
  if (!numbering->cursor) {
    numbering->cursor = numbers_find_missing(numbering->archive);
    numbering->met = 0;
  }
  while (page->len < NUMBERING_PAGE &&
         (document = event_cursor_next(numbering->cursor, ret_failure))) {
    g_autoptr(Event) event = event_decode(document);
    const int64_t *due = due_at(numbering, event);
    numbering->met += due != NULL;
    if (!due)
      g_ptr_array_add(page, g_steal_pointer(&event));
    else if (*due <= clock_us())
      g_ptr_array_add(again, g_steal_pointer(&event));
  }
  if (!document && numbering->met == 0) /* they have gone */
    g_hash_table_remove_all(numbering->left_out);
  if (!document)
    g_clear_pointer(&numbering->cursor, event_cursor_free);
  return ret_failure->class == FAILURE_NONE;
}

/* All or none: an event that was numbered or removed since it was read leaves no hole. In doubt
 * nothing is lost: events without a number are read again. `*ret_refused`: MongoDB refuses to
 * change one of the events. */
static bool number(Numbering *numbering, const bson_t *ids, uint32_t count, bool *ret_refused,
                   Failure *ret_failure) {
  int64_t before = 0, written = 0;
  *ret_refused = false;
  if (numbering->highest < 0 &&
      !numbers_find_highest(numbering->archive, &numbering->highest, ret_failure)) {
    numbering->highest = -1;
    return false;
  }
  const NumberClaim claim = {numbering->epoch, count, numbering->highest};
  NumberTransaction *transaction = numbers_begin(numbering->store, ret_failure);
  if (!transaction)
    return false;
  bool good = numbers_take(transaction, &claim, &before, ret_failure);
  if (good && !numbers_write(transaction, ids, before, &written, ret_failure)) {
    *ret_refused = failure_is_refusal(ret_failure);
    good = false;
  }
  if (good && written != (int64_t)count)
    good = failure_set(ret_failure, FAILURE_CONFLICT, SOURCE_MONGODB, 0,
                       "the archive has changed since it was read");
  if (good)
    crash_point("before_numbered");
  good = good && numbers_commit(transaction, ret_failure);
  numbers_end(transaction);
  if (good)
    numbering->highest = before + (int64_t)count;
  return good;
}

/* If MongoDB refuses events together, halving finds those that it refuses alone. */
static bool number_some(Numbering *numbering, Event *const *events, size_t count, int64_t *numbered,
                        Failure *ret_failure) {
  bson_t ids = BSON_INITIALIZER;
  bool refused = false;
  for (size_t i = 0; i < count; i++) {
    char buffer[16];
    const char *key;
    bson_uint32_to_string((uint32_t)i, &key, buffer, sizeof buffer);
    event_append_id(events[i], &ids, key);
  }
  bool good = count == 0 || number(numbering, &ids, (uint32_t)count, &refused, ret_failure);
  bson_destroy(&ids);
  if (good) {
    take_back(numbering, events, count);
    *numbered += (int64_t)count;
  }
  if (good || !refused)
    return good;
  if (count == 1)
    return leave_out(numbering, events[0], ret_failure);
  *ret_failure = (Failure){0};
  size_t half = count / 2;
  return number_some(numbering, events, half, numbered, ret_failure) &&
         number_some(numbering, events + half, count - half, numbered, ret_failure);
}

/* Numbers the cursor's next page, and what was left out and is due again. */
static bool number_page(Numbering *numbering, int64_t *count, Failure *ret_failure) {
  g_autoptr(GPtrArray) page = g_ptr_array_new_with_free_func((GDestroyNotify)event_free);
  g_autoptr(GPtrArray) again = g_ptr_array_new_with_free_func((GDestroyNotify)event_free);
  bool good = read_page(numbering, page, again, ret_failure) &&
              number_some(numbering, (Event *const *)page->pdata, page->len, count, ret_failure);
  for (guint i = 0; good && i < again->len; i++)
    good = number_some(numbering, (Event *const *)again->pdata + i, 1, count, ret_failure);
  return good;
}

/* A cursor may end without an event although some came after it was opened, and a whole page may be
 * left out. So nothing is left only when a cursor that was opened here has ended. */
bool numbering_step(Numbering *numbering, int64_t *ret_count, Failure *ret_failure) {
  int64_t count = 0;
  bool good, complete;
  do {
    complete = !numbering->cursor;
    good = number_page(numbering, &count, ret_failure);
    complete &= !numbering->cursor;
  } while (good && count == 0 && !complete);
  if (!good)
    g_clear_pointer(&numbering->cursor, event_cursor_free);
  *ret_count = good ? count : 0;
  return good;
}
