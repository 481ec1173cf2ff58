/* source.h - the row of projector_source: which outbox a projector's rows in MySQL came from. */
#pragma once

#include "projector/infra/mysql/session.h"

enum { SOURCE_SIZE = 65 };

typedef struct KeptSource {
  bool kept; /* false: this installation has no such table, or the user may not use it */
  char text[SOURCE_SIZE]; /* "": none was noted yet */
} KeptSource;

bool source_read(Session *session, const char *projector, KeptSource *ret_source,
                 Failure *ret_failure);
/* Records the source if there is none yet, or always with `overwrite`; then reads it back, as
 * source_read. */
bool source_write(Session *session, const char *projector, const char *source, bool overwrite,
                  KeptSource *ret_source, Failure *ret_failure);
