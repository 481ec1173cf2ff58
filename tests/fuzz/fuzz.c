/* fuzz.c - reports broken promises, and turns input into text. */
#include "tests/fuzz/fuzz.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void promise_broken(const char *file, int line, const char *format, ...) {
  va_list args;
  va_start(args, format);
  dprintf(STDERR_FILENO, "%s:%d: broken promise: ", file,
          line); /* a target may have moved stderr */
  vdprintf(STDERR_FILENO, format, args);
  dprintf(STDERR_FILENO, "\n");
  va_end(args);
  abort();
}
