/* log.h - one line an event on stderr, as text or JSON, with stable field names.
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

/* From here on lines go through a thread of their own (log_writer.h): nobody who logs waits. */
void log_setup(bool json, LogLevel lowest);
/* A line that is no entry of the log, in order with those that are: the last words of a command. */
void log_plain(const char *text);
/* Before the process ends: what was logged reaches stderr, if somebody reads it, within half a
 * second. */
void log_finish(void);
/* `fields` may be NULL. Threads may log at the same time; lines do not mix. */
void log_write(LogLevel level, const char *message, const LogField *fields);

#define log_info(message, fields) log_write(LOG_LEVEL_INFO, (message), (fields))
#define log_warning(message, fields) log_write(LOG_LEVEL_WARNING, (message), (fields))
#define log_error(message, fields) log_write(LOG_LEVEL_ERROR, (message), (fields))

/* The failure as it may be told: without values of payloads, unless the level is debug. */
Failure log_told(const Failure *failure);

/* Logs a failure with its class, source, code and message; one that repeats an earlier one (same
 * message and failure) is counted and told at most once in ten seconds. */
void log_failure(LogLevel level, const char *message, const Failure *failure);
