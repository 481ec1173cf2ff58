/* outbox_check.c - reads the outbox once, and checks suspicious events again. */
#include "projector/app/reconcile/outbox_check.h"

#include "projector/app/reconcile/recheck.h"
#include "projector/infra/mongo/selection.h"

#include <string.h>

enum {
  BATCH = 500,
  SUSPECTS = 5000, /* collected before they are checked again */
  LOOKS_MAX = 5,   /* waits for an acknowledgement that may be on its way */
  WAIT_MS = 1000,
};

typedef struct OutboxCheck {
  Stores *stores;
  const char *type;
  DifferenceSink sink;
  void *data;
} OutboxCheck;

static bool is_of_type(const OutboxCheck *check, const Event *event) {
  return !check->type ||
         (event->aggregate.type && strlen(check->type) == event->aggregate.type_length &&
          !memcmp(check->type, event->aggregate.type, event->aggregate.type_length));
}

static bool hand_over(const OutboxCheck *check, DifferenceKind kind, const GPtrArray *events,
                      const GPtrArray *reasons, Failure *ret_failure) {
  g_autoptr(GArray) differences = g_array_new(FALSE, TRUE, sizeof(Difference));
  for (guint i = 0; i < events->len; i++) {
    Event *event = events->pdata[i];
    Difference difference = {.kind = kind,
                             .event = event,
                             .aggregate = event_has_aggregate(event) ? &event->aggregate : NULL,
                             .reason = reasons ? reasons->pdata[i] : NULL};
    g_array_append_val(differences, difference);
  }
  return differences->len == 0 || check->sink((Difference *)(void *)differences->data,
                                              differences->len, check->data, ret_failure);
}

/* --- dead ----------------------------------------------------------------------------------- */

static const char *reason_of(const Event *event) {
  bson_iter_t iter, message;
  bson_t view;
  return bson_iter_init(&iter, event_document(event, &view)) &&
                 bson_iter_find_descendant(&iter, "last_error.message", &message) &&
                 BSON_ITER_HOLDS_UTF8(&message)
             ? bson_iter_utf8(&message, NULL)
             : NULL;
}

static bool dead_events(const OutboxCheck *check, Failure *ret_failure) {
  static const char *const dead[] = {"dead", NULL};
  g_autoptr(EventCursor) cursor =
      selection_find(check->stores->outbox, &(Selection){.states = dead});
  for (bool more = true; more;) {
    g_autoptr(GPtrArray) events = g_ptr_array_new_with_free_func((GDestroyNotify)event_free);
    g_autoptr(GPtrArray) reasons = g_ptr_array_new();
    const bson_t *document = NULL;
    while (events->len < BATCH && (document = event_cursor_next(cursor, ret_failure))) {
      g_autoptr(Event) event = event_decode(document);
      if (!is_of_type(check, event))
        continue;
      g_ptr_array_add(reasons, (gpointer)reason_of(event));
      g_ptr_array_add(events, g_steal_pointer(&event));
    }
    more = document != NULL;
    if ((!more && ret_failure->class != FAILURE_NONE) || !stores_wake(check->stores, ret_failure) ||
        !hand_over(check, DIFFERENCE_DEAD_EVENT, events, reasons, ret_failure))
      return false;
  }
  return true;
}

/* --- applied -------------------------------------------------------------------------------- */

static bool remove_gone(const OutboxCheck *check, GPtrArray *events, Failure *ret_failure) {
  for (guint from = 0; from < events->len; from += BATCH) {
    g_autoptr(GArray) gone = g_array_new(FALSE, FALSE, sizeof(Id));
    guint end = MIN(events->len, from + BATCH);
    for (guint i = from; i < end; i++)
      g_array_append_val(gone, ((Event *)events->pdata[i])->key.event_id);
    if (!outbox_remove_present(check->stores->outbox, gone, ret_failure))
      return false;
    for (guint g = 0; g < gone->len; g++)
      for (guint i = from; i < end; i++)
        if (events->pdata[i] &&
            id_equal(&((Event *)events->pdata[i])->key.event_id, &g_array_index(gone, Id, g))) {
          event_free(events->pdata[i]);
          events->pdata[i] = NULL;
          break;
        }
  }
  while (g_ptr_array_remove(events, NULL))
    ;
  return true;
}

/* If all is well, an applied event disappears soon. */
static bool settle_applied(const OutboxCheck *check, GPtrArray *events, Failure *ret_failure) {
  for (int look = 0; look < LOOKS_MAX && events->len > 0; look++) {
    g_usleep(WAIT_MS * 1000);
    if (!remove_gone(check, events, ret_failure))
      return false;
  }
  bool good = hand_over(check, DIFFERENCE_APPLIED_EVENT, events, NULL, ret_failure);
  g_ptr_array_set_size(events, 0);
  return good;
}

/* Moves those that the ledger has to `known`. */
static bool keep_known(const OutboxCheck *check, GPtrArray *events, GPtrArray *known,
                       Failure *ret_failure) {
  g_autofree Item *items = g_new0(Item, events->len + 1);
  for (guint i = 0; i < events->len; i++)
    items[i].event = events->pdata[i];
  if (!recheck_ask_ledger(check->stores, items, events->len, ret_failure))
    return false;
  for (guint i = 0; i < events->len; i++)
    if (items[i].verdict == VERDICT_KNOWN)
      g_ptr_array_add(known, g_steal_pointer(&events->pdata[i]));
  return true;
}

static void free_event(gpointer event) {
  event_free(event);
}

static bool applied_events(const OutboxCheck *check, Failure *ret_failure) {
  g_autoptr(EventCursor) cursor = outbox_list_events(check->stores->outbox);
  g_autoptr(GPtrArray) known = g_ptr_array_new_with_free_func(free_event);
  for (bool more = true; more;) {
    g_autoptr(GPtrArray) events = g_ptr_array_new_with_free_func(free_event);
    const bson_t *document = NULL;
    while (events->len < BATCH && (document = event_cursor_next(cursor, ret_failure))) {
      g_autoptr(Event) event = event_decode(document);
      if (is_of_type(check, event) && event_has_aggregate(event))
        g_ptr_array_add(events, g_steal_pointer(&event));
    }
    more = document != NULL;
    if ((!more && ret_failure->class != FAILURE_NONE) || !stores_wake(check->stores, ret_failure) ||
        !keep_known(check, events, known, ret_failure) ||
        ((!more || known->len >= SUSPECTS) && !settle_applied(check, known, ret_failure)))
      return false;
  }
  return true;
}

bool outbox_check(Stores *stores, const char *type, DifferenceSink sink, void *data,
                  Failure *ret_failure) {
  OutboxCheck check = {stores, type, sink, data};
  return dead_events(&check, ret_failure) && applied_events(&check, ret_failure);
}
