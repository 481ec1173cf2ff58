/* event_fields.h - existing outboxes: where their documents store the fields of the contract.
 *
 * Such a document is translated into the contract's form (event.h) where it is read, so that
 * nothing else has to know about it. The projector's own fields (status, attempts …) keep
 * their names in every outbox. */
#pragma once

#include "projector/domain/event.h"

#include <jansson.h>

typedef enum EventField {
  FIELD_AGGREGATE_TYPE,
  FIELD_AGGREGATE_ID,
  FIELD_VERSION,
  FIELD_EVENT_TYPE,
  FIELD_OCCURRED_AT,
  FIELD_PAYLOAD,
  FIELD_METADATA,
  EVENT_FIELDS,
} EventField;

typedef struct EventFields {
  bool foreign; /* some name is not the contract's: documents have to be translated */
  const char *names[EVENT_FIELDS]; /* dotted paths in the documents of the outbox */
} EventFields;

/* Fields that the projector writes into events, by what they say. */
typedef enum OwnFields {
  OWN_STATE = 1,    /* what is being done with an event of the outbox */
  OWN_FED = 2,      /* which feeds have it */
  OWN_ATTEMPTS = 4, /* how often it was tried, and the last failure */
  OWN_KEPT = 8,     /* when it was applied or skipped: in the archive */
  OWN_NUMBER = 16,  /* its place in the archive */
  OWN_ALL = 31,
} OwnFields;

bool event_field_is_own(const char *name, OwnFields kinds);
/* Appends the document without those fields, and without the mark of a translated one. */
void event_append_without(const bson_t *document, OwnFields kinds, bson_t *to);
/* Appends the names of those fields to an array that is empty. */
void event_own_names(OwnFields kinds, bson_t *array);

/* The contract's names. */
extern const EventFields event_fields_contract;

/* Reads `layout` and `fields` of the object `mongodb` of the mapping file. Names live as long as
 * the JSON. */
bool event_fields_parse(const json_t *mongodb, EventFields *ret_fields, Failure *ret_failure);

/* The document in the contract's form; a new one. A time may be a date, a number of milliseconds
 * since 1970 or a text, or that of the ObjectId when there is none; payload and metadata may be
 * JSON in a text. Anything else is passed through and makes the event malformed. */
bson_t *event_fields_translate(const EventFields *fields, const bson_t *document);
/* The same with an empty payload (null if it is no document), without metadata and other fields. */
bson_t *event_fields_translate_briefly(const EventFields *fields, const bson_t *document);
