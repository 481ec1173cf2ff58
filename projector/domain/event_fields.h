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

/* The contract's names. */
extern const EventFields event_fields_contract;

/* Reads `layout` and `fields` of the object `mongodb` of the mapping file. Names live as long as
 * the JSON. */
bool event_fields_parse(const json_t *mongodb, EventFields *ret_fields, Failure *ret_failure);

/* The document in the contract's form; a new one. A time may be a date, a number of milliseconds
 * since 1970 or a text, or that of the ObjectId when there is none; payload and metadata may be
 * JSON in a text. Anything else is passed through and makes the event malformed. */
bson_t *event_fields_translate(const EventFields *fields, const bson_t *document);
