/* log.c - writes log lines. */
#include "projector/infra/log.h"

#include "outbox/text/clean.h"
#include "projector/infra/lock.h"
#include "projector/infra/log_writer.h"

#include <glib.h>
#include <jansson.h>
#include <string.h>

enum {
  REPEAT_SECONDS = 10,
  FINISH_MS = 500,
};

static bool as_json;
static LogLevel lowest_level = LOG_LEVEL_INFO;

/* A failure that was logged lately; during an outage a few of them take turns. */
typedef struct LogRepeat {
  char message[64];
  Failure failure;
  int64_t at; /* monotonic, us; 0: an empty place */
  int64_t suppressed;
} LogRepeat;

enum { REPEAT_PLACES = 16 };

static GMutex repeat_lock, order_lock;
static LogRepeat repeats[REPEAT_PLACES];

static const char *level_name(LogLevel level) {
  static const char *const names[] = {"debug", "info", "warning", "error"};
  return names[level];
}

static char *timestamp(void) {
  g_autoptr(GDateTime) now = g_date_time_new_now_utc();
  g_autofree char *seconds = g_date_time_format(now, "%Y-%m-%dT%H:%M:%S");
  return g_strdup_printf("%s.%03dZ", seconds, g_date_time_get_microsecond(now) / 1000);
}

static char *json_line(const char *time, LogLevel level, const char *message,
                       const LogField *fields) {
  json_t *line = json_object();
  json_object_set_new(line, "time", json_string(time));
  json_object_set_new(line, "level", json_string(level_name(level)));
  json_object_set_new(line, "message", json_string(message));
  for (; fields && fields->name; fields++) {
    g_autofree char *valid = fields->text ? g_utf8_make_valid(fields->text, -1) : NULL;
    json_object_set_new(line, fields->name,
                        valid ? json_string(valid) : json_integer(fields->number));
  }
  char *text = json_dumps(line, JSON_COMPACT);
  char *clean = json_text_clean(text ? text : "{}");
  free(text);
  json_decref(line);
  return clean;
}

/* Otherwise control characters in an id could forge a log line. */
static void append_text_value(GString *line, const char *text) {
  bool plain = *text != '\0' && g_utf8_validate(text, -1, NULL);
  for (const char *at = text; plain && *at; at = g_utf8_next_char(at))
    plain = *at != ' ' && *at != '"' && *at != '=' && !is_hidden_character(g_utf8_get_char(at));
  if (plain) {
    g_string_append(line, text);
    return;
  }
  g_string_append_c(line, '"');
  text_append_clean(line, text, "\"\\");
  g_string_append_c(line, '"');
}

static char *text_line(const char *time, LogLevel level, const char *message,
                       const LogField *fields) {
  GString *line = g_string_new(NULL);
  g_string_append_printf(line, "%s %s %s", time, level_name(level), message);
  for (; fields && fields->name; fields++) {
    g_string_append_printf(line, " %s=", fields->name);
    if (fields->text)
      append_text_value(line, fields->text);
    else
      g_string_append_printf(line, "%lld", (long long)fields->number);
  }
  return g_string_free(line, FALSE);
}

static char *make_line(LogLevel level, const char *message, const LogField *fields) {
  g_autofree char *time = timestamp();
  return as_json ? json_line(time, level, message, fields)
                 : text_line(time, level, message, fields);
}

static char *notice(int64_t dropped) {
  return make_line(LOG_LEVEL_WARNING, "the log was not read in time: lines were dropped here",
                   LOG_FIELDS(LOG_NUMBER("lines", dropped)));
}

void log_setup(bool json, LogLevel lowest) {
  as_json = json;
  lowest_level = lowest;
  log_writer_start(notice);
}

void log_write(LogLevel level, const char *message, const LogField *fields) {
  if (level < lowest_level)
    return;
  /* The times in the log are in order. */
  SCOPED_LOCK(&order_lock);
  log_writer_put(make_line(level, message, fields));
}

void log_plain(const char *text) {
  log_writer_put(g_strdup(text));
}

void log_finish(void) {
  log_writer_flush(FINISH_MS);
}

static const char *source_name(FailureSource source) {
  static const char *const names[] = {"event", "mysql", "mongodb", "projector"};
  return names[source];
}

static bool is_same(const LogRepeat *place, const char *message, const Failure *failure) {
  return place->at && !strncmp(place->message, message, sizeof place->message - 1) &&
         place->failure.code == failure->code && place->failure.class == failure->class &&
         !strcmp(place->failure.message, failure->message);
}

/* The failure's own place, or that of the one logged the longest ago. */
static LogRepeat *find_place(const char *message, const Failure *failure) {
  LogRepeat *oldest = &repeats[0];
  for (size_t i = 0; i < REPEAT_PLACES; i++) {
    if (is_same(&repeats[i], message, failure))
      return &repeats[i];
    if (repeats[i].at < oldest->at)
      oldest = &repeats[i];
  }
  *oldest = (LogRepeat){.failure = *failure};
  g_strlcpy(oldest->message, message, sizeof oldest->message);
  return oldest;
}

/* Whether to log this failure now, and how many like it were left out. */
static bool may_log(const char *message, const Failure *failure, int64_t *ret_suppressed) {
  int64_t now = g_get_monotonic_time();
  SCOPED_LOCK(&repeat_lock);
  LogRepeat *place = find_place(message, failure);
  if (place->at && now - place->at < (int64_t)REPEAT_SECONDS * G_USEC_PER_SEC) {
    place->suppressed++;
    return false;
  }
  *ret_suppressed = place->suppressed;
  place->at = now;
  place->suppressed = 0;
  return true;
}

Failure log_redacted(const Failure *failure) {
  return lowest_level == LOG_LEVEL_DEBUG ? *failure : failure_without_values(failure);
}

void log_failure(LogLevel level, const char *message, const Failure *failure) {
  int64_t suppressed;
  Failure redacted = log_redacted(failure);
  if (!may_log(message, &redacted, &suppressed))
    return;
  LogField fields[6] = {LOG_TEXT("class", failure_class_name(failure->class)),
                        LOG_TEXT("source", source_name(failure->source)),
                        LOG_NUMBER("code", failure->code), LOG_TEXT("reason", redacted.message)};
  if (suppressed > 0)
    fields[4] = (LogField)LOG_NUMBER("repeated", suppressed);
  log_write(level, message, fields);
}
