/* fuzz_event.c - event documents as any producer may have stored them, up to a few at once.
 *
 * Promises: decoding ends, and says what is wrong with what breaks the contract; a good event's ids
 * survive their text and their BSON; the event written again decodes to the same; the order of
 * events is one order. */
#include "tests/fuzz/fuzz.h"

#include "projector/domain/describe.h"
#include "projector/domain/event.h"

#include <string.h>

G_DEFINE_AUTOPTR_CLEANUP_FUNC(bson_t, bson_destroy)

enum { EVENTS_MAX = 4 };

static void check_id_as_text(const Id *id) {
  char text[ID_TEXT_SIZE];
  uint8_t bytes[16], more_bytes[16];
  Id read, all[IDS_OF_TEXT];
  size_t length = id_text(id, text);
  PROMISE(id_from_text(id->kind, text, length, bytes, &read), "the id's text is not read: %s",
          text);
  PROMISE(id_equal(id, &read), "the id's text is another id: %s", text);
  bool found = false;
  unsigned count = ids_from_text(text, length, more_bytes, all);
  for (unsigned i = 0; i < count; i++)
    found |= id_equal(id, &all[i]);
  PROMISE(found, "nobody who types %s means this id", text);
}

static void check_id_as_bson(const Id *id) {
  bson_t document = BSON_INITIALIZER;
  bson_iter_t iter;
  Id read;
  id_append_bson(id, &document, "id");
  PROMISE(bson_iter_init_find(&iter, &document, "id") && id_from_iter(&iter, &read) &&
              id_equal(id, &read),
          "the id changes when it is written as BSON");
  bson_destroy(&document);
}

static void check_aggregate(const Aggregate *aggregate) {
  char text[512];
  PROMISE(aggregate->type_length >= 1 && aggregate->type_length <= AGGREGATE_TYPE_MAX,
          "an aggregate type of %u bytes is taken", aggregate->type_length);
  PROMISE(utf8_is_valid(aggregate->type, aggregate->type_length), "a type that is no UTF-8");
  g_autofree Aggregate *copy = aggregate_copy(aggregate);
  PROMISE(aggregate_equal(aggregate, copy) && aggregate_compare(aggregate, copy) == 0 &&
              aggregate_hash(aggregate) == aggregate_hash(copy),
          "a copy of an aggregate differs");
  aggregate_text(aggregate, text, sizeof text);
  check_id_as_text(&aggregate->id);
  check_id_as_bson(&aggregate->id);
}

static bson_t *written_again(const Event *event) {
  bson_t view;
  bson_t *document = bson_new();
  event_append_id(event, document, "_id");
  bson_append_utf8(document, "aggregate_type", -1, event->aggregate.type,
                   (int)event->aggregate.type_length);
  id_append_bson(&event->aggregate.id, document, "aggregate_id");
  if (event->key.version)
    BSON_APPEND_INT64(document, "version", event->key.version);
  bson_append_utf8(document, "event_type", -1, event->event_type, (int)event->event_type_length);
  BSON_APPEND_DATE_TIME(document, "occurred_at", event->key.occurred_at);
  BSON_APPEND_DOCUMENT(document, "payload", event_payload(event, &view));
  BSON_APPEND_DOCUMENT(document, "metadata", event_metadata(event, &view));
  return document;
}

static void check_good_event(const Event *event) {
  bson_t view, other;
  PROMISE(event->key.version >= 0, "a negative version is taken");
  PROMISE(event->event_type_length >= 1 && event->event_type_length <= EVENT_TYPE_MAX,
          "an event type of %u bytes is taken", event->event_type_length);
  PROMISE(event_has_aggregate(event), "a good event has no aggregate");
  check_id_as_text(&event->key.event_id);
  check_id_as_bson(&event->key.event_id);
  g_autoptr(bson_t) document = written_again(event);
  g_autoptr(Event) again = event_decode(document);
  PROMISE(!again->malformed, "written again it is refused: %s", again->malformed->message);
  PROMISE(order_key_compare(&event->key, &again->key) == 0, "written again it sorts elsewhere");
  PROMISE(aggregate_equal(&event->aggregate, &again->aggregate), "the aggregate has changed");
  PROMISE(event->aggregate_hash == again->aggregate_hash, "the aggregate's hash has changed");
  PROMISE(event->event_type_length == again->event_type_length &&
              !memcmp(event->event_type, again->event_type, event->event_type_length),
          "the event type has changed");
  PROMISE(bson_equal(event_payload(event, &view), event_payload(again, &other)),
          "the payload has changed");
  PROMISE(bson_equal(event_metadata(event, &view), event_metadata(again, &other)),
          "the metadata have changed");
}

static void check_event(const Event *event) {
  bson_t found = BSON_INITIALIZER;
  OrderKey copy;
  uint8_t bytes[EVENT_ID_MAX];
  bson_t view;
  PROMISE(event->attempts >= 0 && event->attempts <= ATTEMPTS_MAX, "attempts %d", event->attempts);
  PROMISE(event_memory(event) > event_document(event, &view)->len, "its memory is not counted");
  event_append_id(event, &found, "_id");
  bson_destroy(&found);
  order_key_copy(&event->key, &copy, bytes);
  if (event->key.event_id.kind != ID_OTHER)
    PROMISE(order_key_compare(&event->key, &copy) == 0, "a copied key sorts elsewhere");
  if (event->malformed)
    PROMISE(event->malformed->class == FAILURE_DATA && *event->malformed->message,
            "a malformed event does not say why");
  else
    check_good_event(event);
  if (event_has_aggregate(event))
    check_aggregate(&event->aggregate);
}

static int sign(int order) {
  return (order > 0) - (order < 0);
}

static void check_order(Event *const *events, unsigned count) {
  for (unsigned a = 0; a < count; a++)
    for (unsigned b = 0; b < count; b++) {
      const OrderKey *x = &events[a]->key, *y = &events[b]->key;
      int order = sign(order_key_compare(x, y));
      PROMISE(order == -sign(order_key_compare(y, x)), "the order depends on who is asked first");
      PROMISE(order != 0 || id_equal(&x->event_id, &y->event_id), "two events share a place");
      for (unsigned c = 0; c < count; c++)
        PROMISE(order > 0 || order_key_compare(y, &events[c]->key) > 0 ||
                    order_key_compare(x, &events[c]->key) <= 0,
                "the order goes round in a circle");
      const Aggregate *p = &events[a]->aggregate, *q = &events[b]->aggregate;
      if (!event_has_aggregate(events[a]) || !event_has_aggregate(events[b]))
        continue;
      PROMISE(sign(aggregate_compare(p, q)) == -sign(aggregate_compare(q, p)) &&
                  (aggregate_compare(p, q) == 0) == aggregate_equal(p, q) &&
                  (!aggregate_equal(p, q) || aggregate_hash(p) == aggregate_hash(q)),
              "aggregates are compared in two ways");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const uint8_t *at = data, *end = data + size;
  Event *events[EVENTS_MAX];
  unsigned count = 0;
  for (bson_t *document; count < EVENTS_MAX && (document = fuzz_next_document(&at, end));
       bson_destroy(document)) {
    events[count] = event_decode(document);
    check_event(events[count++]);
  }
  check_order(events, count);
  for (unsigned i = 0; i < count; i++)
    event_free(events[i]);
  return 0;
}
