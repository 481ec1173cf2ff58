/* describe.h - what was found where something else was expected, for the reasons of failures. */
#pragma once

#include <bson/bson.h>
#include <stdbool.h>
#include <stddef.h>

enum {
  DESCRIPTION_SIZE = 400, /* a value of that many characters, of four bytes each, and its type */
  DESCRIBED_CHARACTERS = 60,
};

/* Whether the bytes are UTF-8 as MySQL reads it: NUL is a character, its overlong form is not. */
bool utf8_is_valid(const char *text, size_t length);
/* The type as MongoDB's documents call it, and the value, texts and documents shortened to
 * DESCRIBED_CHARACTERS: `int64 5`, `string of 3 bytes "abc"`, `document {"a": 1}`. A text that is
 * not UTF-8 is described by its first invalid byte. A log leaves out what is in quotes
 * (failure_without_values). */
void bson_describe(const bson_iter_t *iter, char *text, size_t size);
