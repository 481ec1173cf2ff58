/* event.h - an outbox event, decoded from its BSON document, and the order of events.
 *
 * The contract of the document is in docs/writing-events.md. Decoding never fails: a document that
 * breaks the contract becomes an Event whose `malformed` says why, because it too has to be marked,
 * listed and resolved like any other event that cannot be applied. */
#pragma once

#include "projector/domain/failure.h"

#include <bson/bson.h>
#include <glib.h>

enum {
  EVENT_ID_MAX = 64,        /* bytes of an event id that is a string */
  AGGREGATE_TYPE_MAX = 128, /* bytes */
  AGGREGATE_ID_MAX = 255,   /* bytes of an aggregate id that is a string */
  EVENT_TYPE_MAX = 128,     /* bytes */
  ATTEMPTS_MAX = 1000000,   /* a higher number in a document is not ours */
  DUE_MAX_MS = 86400000,    /* an event is checked again after a day at most */
  ID_TEXT_SIZE = 256,       /* a buffer that holds any valid id as text, with its NUL */
  IDS_OF_TEXT = 4,          /* at most */
};

/* In MongoDB's sort order of types, so that an index scan and the projector agree. */
typedef enum IdKind {
  ID_INT,
  ID_STRING,
  ID_UUID,
  ID_OBJECTID,
  ID_OTHER, /* not allowed by the contract; kept so that the event can still be addressed */
  ID_KINDS = ID_OTHER, /* how many the contract allows, from 0 */
} IdKind;

typedef struct Id {
  IdKind kind;
  uint32_t length;
  int64_t number; /* ID_INT */
  const uint8_t *bytes;
} Id;

/* The event of an owner whose commit was answered last, in the form in which the lease keeps it. */
typedef struct LastCommit {
  char event_id[ID_TEXT_SIZE];
  IdKind kind;
  int64_t at_ms; /* since 1970, by MongoDB's clock; 0: none is known */
} LastCommit;

/* Order of one aggregate's events: time, then version (none sorts first), then event id. */
typedef struct OrderKey {
  int64_t occurred_at; /* ms since 1970, UTC */
  int64_t version;     /* 0: none */
  Id event_id;
} OrderKey;

typedef struct Aggregate {
  const char *type; /* not NUL-terminated inside an Event */
  uint32_t type_length;
  Id id;
} Aggregate;

/* As in the outbox; a missing or unknown status counts as pending. */
typedef enum EventStatus {
  STATUS_PENDING,
  STATUS_IN_PROGRESS,
  STATUS_FAILED,
  STATUS_DEAD,
} EventStatus;

/* Small, because thousands of events are in memory. */
typedef struct Event {
  OrderKey key;
  Aggregate aggregate;
  uint64_t aggregate_hash;
  const char *event_type;
  uint32_t event_type_length;
  EventStatus status;        /* when the document was read */
  int attempts;              /* from the document; the claim adds one */
  bool retried;              /* it had failed, and not by a crash, before it was claimed */
  bool skipped;              /* by hand; set by whoever asks the ledger, or reads the archive */
  int64_t due_in_ms;         /* until the next attempt, where a look-up adds it; may be negative */
  const bson_iter_t *item;   /* set by children.c: at one item of an array; else NULL */
  const uint8_t *item_index; /* {"index": …} of that item, as BSON */
  uint32_t item_index_length;
  Failure *malformed; /* NULL for a good event */
  bson_t *other_id;   /* backs key.event_id when its kind is ID_OTHER */
  /* BSON, to be looked at by event_document … event_metadata: */
  const uint8_t *document; /* the bytes behind this struct */
  const uint8_t *payload;  /* in the document; NULL: there is none */
  const uint8_t *metadata;
} Event;

/* Views of the event's documents, in the caller's memory; empty when there is none. */
const bson_t *event_document(const Event *event, bson_t *view);
const bson_t *event_payload(const Event *event, bson_t *view);
const bson_t *event_metadata(const Event *event, bson_t *view);

/* An event that MongoDB refuses to mark, and why. At most so many are listed. */
enum { REFUSED_MAX = 200 };

typedef struct Refused {
  Id id; /* of the event; its bytes are here */
  uint8_t bytes[EVENT_ID_MAX];
  Failure failure;
} Refused;

/* The first field of a document that was translated from another outbox's form (event_fields.h):
 * there an event id may also be an integer. */
#define EVENT_IS_FOREIGN "$foreign"

/* Copies the document. Never NULL. */
Event *event_decode(const bson_t *document);
void event_free(Event *event);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Event, event_free)

/* Whether the event has a place in its aggregate's order: aggregate and event id are readable.
 * Otherwise it blocks nothing. */
bool event_has_aggregate(const Event *event);
/* Memory that an event of this document needs, in bytes. */
size_t event_memory(const Event *event);

int id_compare(const Id *a, const Id *b);
bool id_equal(const Id *a, const Id *b);
/* Kind names as they stand in the MySQL tables: int, string, uuid, objectid, other. */
const char *id_kind_name(IdKind kind);
/* False when it is none of the names that the contract allows. */
bool id_kind_from_name(const char *name, IdKind *ret_kind);
/* The usual text form: UUID with hyphens, ObjectId in hex, numbers in decimal, strings as they are
 * (cut to the buffer for an id that breaks the contract). Returns the length. */
size_t id_text(const Id *id, char text[static ID_TEXT_SIZE]);
/* Reads the text form of a kind. UUID and ObjectId need room for their bytes; a string stays where
 * it is. False when the text is not of that kind. */
bool id_from_text(IdKind kind, const char *text, size_t length, uint8_t bytes[static 16],
                  Id *ret_id);
/* Every id that an operator's text may mean: the string, then UUID, ObjectId or integer. Returns
 * how many; they point into the text or `bytes`. */
unsigned ids_from_text(const char *text, size_t length, uint8_t bytes[static 16],
                       Id ret_ids[static IDS_OF_TEXT]);
/* Leaves only the one of that kind (id_kind_name); false: there is none, and all stay. */
bool ids_keep_kind(Id ids[static IDS_OF_TEXT], unsigned *count, const char *kind);
bool id_from_iter(const bson_iter_t *iter, Id *ret_id);
/* The same for what may be an aggregate's id: a string has 1 to AGGREGATE_ID_MAX bytes of UTF-8. */
bool aggregate_id_from_iter(const bson_iter_t *iter, Id *ret_id);
/* Appends the id as the BSON value it came from (int32 as int64); not for ID_OTHER. */
void id_append_bson(const Id *id, bson_t *document, const char *key);
/* Appends the event's `_id` whatever its type. */
void event_append_id(const Event *event, bson_t *document, const char *key);

int order_key_compare(const OrderKey *a, const OrderKey *b);
/* Copies the key; its event id's bytes go into `id_bytes`, cut for an id that breaks the
 * contract. */
void order_key_copy(const OrderKey *from, OrderKey *key, uint8_t id_bytes[static EVENT_ID_MAX]);

uint64_t aggregate_hash(const Aggregate *aggregate);
bool aggregate_equal(const Aggregate *a, const Aggregate *b);
/* By type, then by id. */
int aggregate_compare(const Aggregate *a, const Aggregate *b);
/* A copy with its own memory, freed with g_free. */
Aggregate *aggregate_copy(const Aggregate *aggregate);
/* "account acc-1", for logs and messages; cut to the buffer. */
const char *aggregate_text(const Aggregate *aggregate, char *text, size_t size);

/* GLib adapters: keys are Aggregate* or Id*. */
guint aggregate_hash_key(gconstpointer aggregate);
gboolean aggregate_equal_key(gconstpointer a, gconstpointer b);
guint id_hash_key(gconstpointer id);
gboolean id_equal_key(gconstpointer a, gconstpointer b);
