/* log.h - one line per event on stderr, as text or JSON, with stable field names.
 *
 * Only `app` logs; everything below returns a Failure. Fields never carry payload values or
 * secrets. */
#pragma once

#include "projector/domain/failure.h"

typedef enum LogLevel {
  LOG_LEVEL_DEBUG,
  LOG_LEVEL_INFO,
  LOG_LEVEL_WARNING,
  LOG_LEVEL_ERROR
} LogLevel;

typedef struct LogField {
  const char *name;
  const char *text; /* NULL: `number` counts */
  int64_t number;
} LogField;

#define LOG_FIELDS(...) ((const LogField[]){__VA_ARGS__, {NULL, NULL, 0}})
#define LOG_TEXT(field_name, value)                                                                \
  { (field_name), (value), 0 }
#define LOG_NUMBER(field_name, value)                                                              \
  { (field_name), NULL, (value) }

/* From now on lines are written by a separate thread (log_writer.h): logging never blocks. */
void log_setup(bool json, LogLevel lowest);
/* A plain line, in order with log entries: the final message of a command. */
void log_plain(const char *text);
/* Call before the process ends: flushes the log to stderr, waiting at most half a second for a
 * reader. */
void log_finish(void);
/* `fields` may be NULL. Threads may log at the same time; lines do not mix. */
void log_write(LogLevel level, const char *message, const LogField *fields);

#define log_info(message, fields) log_write(LOG_LEVEL_INFO, (message), (fields))
#define log_warning(message, fields) log_write(LOG_LEVEL_WARNING, (message), (fields))
#define log_error(message, fields) log_write(LOG_LEVEL_ERROR, (message), (fields))

/* The failure as it may be logged: without payload values, unless the level is debug. */
Failure log_redacted(const Failure *failure);

/* Logs a failure with its class, source, code and message; a repetition (same message and failure)
 * is counted and logged at most once in ten seconds. */
void log_failure(LogLevel level, const char *message, const Failure *failure);
