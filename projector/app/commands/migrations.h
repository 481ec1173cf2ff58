/* migrations.h - the files of sql/, built into the program by embed.py. */
#pragma once

#include <stddef.h>

typedef struct Migration {
  const char *name; /* "001_projector.sql" */
  const char *sql;
} Migration;

extern const Migration migrations[];
extern const size_t migration_count;
