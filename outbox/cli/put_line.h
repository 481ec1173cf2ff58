// One object of `outbox put`: from BSON to an event and the change that goes with it.
#ifndef OUTBOX_CLI_PUT_LINE_H
#define OUTBOX_CLI_PUT_LINE_H

#include "outbox/outbox.h"

// Points into the document it was read from, which must outlive it, and into itself: not to be
// copied.
typedef struct {
  outbox_event_t event;
  bool has_change;
  outbox_change_t change;
  // What `event` and `change` point to.
  bson_value_t id, aggregate_id;
  bson_t payload, metadata, document;
  int64_t occurred_at_ms;
  uint8_t new_id[16];
} put_line_t;

// `entities`: the collection for an entity that names none; NULL: it has to. An event without an id
// gets one. Returns false, and `message` (size bytes) begins with the path of the field.
bool put_line_read(const bson_t *object, const char *entities, put_line_t *ret_line, char *message,
                   size_t size);
void put_line_clear(put_line_t *line);

#endif
