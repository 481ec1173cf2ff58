/* fuzz.h - what the fuzz targets share.
 *
 * Each target is one libFuzzer program: LLVMFuzzerTestOneInput() takes bytes as a hostile or broken
 * outside would send them, and checks promises about what the program makes of them. A broken
 * promise ends the process, as a finding of a sanitizer does, and libFuzzer keeps the input. */
#pragma once

#include <bson/bson.h>
#include <glib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the process unless `holds`; the rest says which promise was broken. */
#define PROMISE(holds, ...)                                                                        \
  do {                                                                                             \
    if (!(holds))                                                                                  \
      promise_broken(__FILE__, __LINE__, __VA_ARGS__);                                             \
  } while (0)
_Noreturn void promise_broken(const char *file, int line, const char *format, ...)
    G_GNUC_PRINTF(3, 4);

/* The next document of an input that holds one or several: extended JSON on a line of its own, or
 * the bytes of BSON. Both ways are needed: seeds are text, and JSON cannot say all that BSON can.
 * NULL: no more. `*at` moves behind it. */
bson_t *fuzz_next_document(const uint8_t **at, const uint8_t *end);
