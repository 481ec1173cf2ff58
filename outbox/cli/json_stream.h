// Splits a stream into JSON objects.
#ifndef OUTBOX_CLI_JSON_STREAM_H
#define OUTBOX_CLI_JSON_STREAM_H

#include <glib.h>
#include <stdbool.h>
#include <stdio.h>

enum { JSON_OBJECT_MAX_BYTES = 64 * 1024 * 1024 };

typedef enum { JSON_OBJECT, JSON_END, JSON_BAD } json_next_t;

typedef struct {
  FILE *file;
  int line; // lines finished so far
} json_stream_t;

// Reads the next object: one a line, or one spread over several. Nothing but space may follow it on
// its last line. JSON_OBJECT: `text` holds it and *ret_line is where it begins (from 1). JSON_BAD:
// `message` (size bytes) says what was expected and found, and *ret_line where; the stream is not
// to be read on.
json_next_t json_stream_next(json_stream_t *stream, GString *text, int *ret_line, char *message,
                             size_t size);

#endif
