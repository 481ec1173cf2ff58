// Extended JSON: every value that is written is read, or refused in words.
#ifndef OUTBOX_TEXT_EXTENDED_JSON_H
#define OUTBOX_TEXT_EXTENDED_JSON_H

#include <bson/bson.h>
#include <stdbool.h>

enum { EXTENDED_JSON_MESSAGE_SIZE = 512 };

// Reads an object of JSON (RFC 8259) in which values that JSON does not have are written as MongoDB
// Extended JSON, in its second or its first version; NaN, Infinity and -Infinity may also stand
// bare. libbson alone reads much that is no such value without a word, as 0, as NaN, as another
// day, or not at all. A key that stands twice in an object is refused. `path` is where the object
// stands, "" at the top. Returns NULL when it is anything else, and `message` says at which path,
// what was expected, and what was found. Free with bson_destroy.
bson_t *extended_json_read(const char *text, size_t length, const char *path,
                           char message[static EXTENDED_JSON_MESSAGE_SIZE]);

#endif
