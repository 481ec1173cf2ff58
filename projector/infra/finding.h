/* finding.h - what `check` and the start of `run` find in a store. */
#pragma once

#include <glib.h>
#include <stdbool.h>

typedef struct Finding {
  bool error; /* false: a warning, the projector works */
  char *text; /* what is wrong and how to repair it, one line */
} Finding;

GPtrArray *findings_new(void);
void finding_add(GPtrArray *findings, bool error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
