/* event_reports.c - reports about single events. */
#include "projector/app/engine/event_reports.h"

void report_event(Watch *watch, LogLevel level, const char *message, const Event *event,
                  const Failure *failure) {
  char id[ID_TEXT_SIZE], aggregate[AGGREGATE_TYPE_MAX + ID_TEXT_SIZE + 2];
  int64_t suppressed = 0;
  if (!watch_may_log(watch, &event->key.event_id, message, failure, &suppressed))
    return;
  id_text(&event->key.event_id, id);
  aggregate_text(&event->aggregate, aggregate, sizeof aggregate);
  Failure redacted = log_redacted(failure);
  LogField fields[8] = {LOG_TEXT("event", id),
                        LOG_TEXT("aggregate", aggregate),
                        LOG_NUMBER("attempt", event->attempts + 1),
                        LOG_TEXT("class", failure_class_name(failure->class)),
                        LOG_NUMBER("code", failure->code),
                        LOG_TEXT("reason", redacted.message)};
  if (suppressed > 0)
    fields[6] = (LogField)LOG_NUMBER("repeated", suppressed);
  log_write(level, message, fields);
}

void report_refused(Watch *watch, Metrics *metrics, const char *message, const Event *event,
                    const Failure *failure) {
  report_event(watch, LOG_LEVEL_ERROR, message, event, failure);
  metrics_refused(metrics, failure);
  watch_refuse(watch, &event->key.event_id, failure);
}
