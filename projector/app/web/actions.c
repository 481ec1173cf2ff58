/* actions.c - what the page's buttons do. */
#include "projector/app/web/actions.h"

#include "projector/app/commands/explain.h"
#include "projector/app/commands/list.h"
#include "projector/app/reconcile/repair_check.h"
#include "projector/app/shared/find.h"
#include "projector/app/shared/resolve.h"
#include "projector/infra/log.h"
#include "projector/infra/mysql/session_thread.h"

#include <string.h>

enum {
  WAITING_MAX = 8,
  PAYLOAD_MAX = 65536, /* bytes of text shown on the page */
};

static const char stopping[] = "the projector is stopping";

typedef struct Action {
  HttpRequest *request; /* NULL: marks the end */
  const char *verb;     /* a string literal */
  json_t *target;
} Action;

struct Actions {
  const Config *config;
  MongoStore *store;
  Monitor *monitor;
  GAsyncQueue *queue;
  GThread *thread;
  bool ending; /* under the lock of the queue */
};

static Action *new_action(HttpRequest *request, const char *verb, json_t *target) {
  Action *action = g_new(Action, 1);
  *action = (Action){.request = request, .verb = verb, .target = json_incref(target)};
  return action;
}

static const char *text_of(const json_t *target, const char *key) {
  return json_string_value(json_object_get(target, key));
}

static HttpAnswer say(unsigned status, json_t *json) {
  char *text = json_dumps(json, JSON_COMPACT);
  json_decref(json);
  if (!text) /* a text from outside that is not UTF-8 */
    text = strdup("{}");
  return (HttpAnswer){.status = status,
                      .type = "application/json",
                      .body = g_bytes_new_with_free_func(text, strlen(text), free, text)};
}

static HttpAnswer refuse(unsigned status, const char *why) {
  return say(status, json_pack("{s:s}", "error", why));
}

static HttpAnswer failed(const Failure *failure) {
  unsigned status = failure_class_is_outage(failure->class) ? 503 : 409;
  return refuse(status, failure->message);
}

/* --- doing it ------------------------------------------------------------------------------- */

static Sought sought_of(const json_t *target) {
  return (Sought){.type = text_of(target, "aggregate_type"),
                  .text = text_of(target, "aggregate_id"),
                  .kind = text_of(target, "aggregate_id_kind")};
}

/* What still differs after the refresh, or NULL; free with g_free. */
static bool look_again(const Actions *actions, const json_t *target, char **ret_still,
                       Failure *ret_failure) {
  Stores stores = {0};
  Sought sought = sought_of(target);
  *ret_still = NULL;
  bool good =
      stores_open(actions->config, "page", &stores, ret_failure) &&
      find_aggregate(actions->config, stores.outbox, &sought, ret_failure) &&
      (!sought.found || repair_check_aggregate(&stores, &sought.aggregate, ret_still, ret_failure));
  stores_close(&stores);
  return good;
}

/* Refused without an entity; `projector refresh --force` does that. */
static HttpAnswer refresh(const Actions *actions, const json_t *target) {
  Failure failure = {0};
  Refreshed done;
  g_autofree char *still = NULL;
  Sought sought = sought_of(target);
  if (!resolve_refresh_safely(actions->config, actions->store, &sought, &done, &failure))
    return failed(&failure);
  if (!done.found)
    return refuse(404, "there is no such entity and no such event");
  if (!look_again(actions, target, &still, &failure))
    return failed(&failure);
  json_t *json =
      json_pack("{s:I, s:I}", "version", (json_int_t)done.version, "left", (json_int_t)done.left);
  if (done.unversioned > 0)
    json_object_set_new(json, "unversioned", json_integer(done.unversioned));
  if (still)
    json_object_set_new(json, "different", json_string(still));
  return say(200, json);
}

/* What the operator decides about. */
static HttpAnswer show(const Actions *actions, const json_t *target) {
  Failure failure = {0};
  g_autoptr(Event) event = resolve_show(actions->store, text_of(target, "event_id"),
                                        text_of(target, "event_id_kind"), &failure);
  if (!event)
    return failure.class == FAILURE_NONE ? refuse(404, "the event is not in the outbox any more")
                                         : failed(&failure);
  bson_t view;
  char *text = bson_as_relaxed_extended_json(event_payload(event, &view), NULL);
  size_t length = text ? strlen(text) : 0;
  bool cut = length > PAYLOAD_MAX;
  g_autofree char *part = g_utf8_make_valid(text ? text : "", (gssize)MIN(length, PAYLOAD_MAX));
  bson_free(text);
  json_t *json = list_event_json(event);
  json_object_set_new(json, "payload", json_string(part));
  json_object_set_new(json, "cut", json_boolean(cut));
  return say(200, json);
}

/* The same as `explain`. */
static HttpAnswer explain(const Actions *actions, const json_t *target) {
  Stores stores = {0};
  Failure failure = {0};
  bool found;
  if (!stores_open(actions->config, "page", &stores, &failure))
    return failed(&failure);
  json_t *document = json_object();
  const Explained what = {text_of(target, "aggregate_type"), text_of(target, "aggregate_id"),
                          text_of(target, "aggregate_id_kind"), 0};
  bool good = explain_aggregate(&stores, &what, document, &found, &failure);
  stores_close(&stores);
  if (good && found)
    return say(200, document);
  json_decref(document);
  return good ? refuse(404, "there is no such entity and no such event") : failed(&failure);
}

static HttpAnswer set_pause(const Actions *actions, bool pause) {
  Failure failure = {0};
  PauseChange change;
  if (!resolve_pause(actions->config, actions->store, pause, &change, &failure))
    return failed(&failure);
  return say(200, json_pack("{s:b, s:b}", "paused", change.pause.on, "changed", change.changed));
}

static HttpAnswer resolve_events(const Actions *actions, const char *verb, const json_t *target) {
  Selection selection = {
      .event_id = text_of(target, "event_id"),
      .aggregate_type = text_of(target, "aggregate_type"),
      .aggregate_id = text_of(target, "aggregate_id"),
      .id_kind =
          text_of(target, text_of(target, "event_id") ? "event_id_kind" : "aggregate_id_kind"),
      .event_type = text_of(target, "event_type"),
      .error_class = text_of(target, "class"),
      .error_message = text_of(target, "reason"),
      .states = resolve_blocking};
  const char *const one_state[] = {text_of(target, "state"), NULL};
  if (one_state[0])
    selection.states = one_state;
  Failure failure = {0};
  int64_t count;
  bool good = !strcmp(verb, "retry")
                  ? resolve_retry(actions->config, actions->store, &selection, &count, &failure)
                  : resolve_skip(actions->config, actions->store, &selection, &count, &failure);
  if (!good)
    return failed(&failure);
  if (count == 0)
    return refuse(404, "the event is neither failed nor dead any more");
  return say(200, json_pack("{s:I}", "count", (json_int_t)count));
}

/* Where the request came from, and the name given by a proxy with a login: "192.0.2.7 (ada) over
 * HTTP". */
static char *person_of(const HttpRequest *request) {
  const char *name = http_request_header(request, "X-Forwarded-User");
  return name && *name ? g_strdup_printf("%s (%.64s) over HTTP", http_request_peer(request), name)
                       : g_strdup_printf("%s over HTTP", http_request_peer(request));
}

static void log_action(const Action *action, const char *person, const HttpAnswer *answer) {
  g_autofree char *target = json_dumps(action->target, JSON_COMPACT);
  log_info("action over HTTP",
           LOG_FIELDS(LOG_TEXT("action", action->verb), LOG_TEXT("target", target),
                      LOG_TEXT("by", person), LOG_NUMBER("status", (int64_t)answer->status)));
}

static HttpAnswer act(Actions *actions, const Action *action) {
  if (!strcmp(action->verb, "show"))
    return show(actions, action->target);
  if (!strcmp(action->verb, "explain"))
    return explain(actions, action->target);
  g_autofree char *person = person_of(action->request);
  resolve_for(person);
  bool pauses = !strcmp(action->verb, "pause") || !strcmp(action->verb, "resume");
  HttpAnswer answer = pauses ? set_pause(actions, !strcmp(action->verb, "pause"))
                      : !strcmp(action->verb, "refresh")
                          ? refresh(actions, action->target)
                          : resolve_events(actions, action->verb, action->target);
  resolve_for(NULL);
  log_action(action, person, &answer);
  monitor_look(actions->monitor);
  return answer;
}

static bool is_ending(Actions *actions) {
  g_async_queue_lock(actions->queue);
  bool ending = actions->ending;
  g_async_queue_unlock(actions->queue);
  return ending;
}

static void carry_out(Actions *actions, const Action *action) {
  HttpAnswer answer;
  if (is_ending(actions))
    answer = refuse(503, stopping);
  else
    answer = act(actions, action);
  http_answer(action->request, answer);
}

static gpointer run(gpointer data) {
  Actions *actions = data;
  for (bool going_on = true; going_on;) {
    Action *action = g_async_queue_pop(actions->queue);
    going_on = action->request != NULL;
    if (going_on)
      carry_out(actions, action);
    json_decref(action->target);
    g_free(action);
  }
  return NULL;
}

Actions *actions_start(const Config *config, MongoStore *store, Monitor *monitor) {
  Actions *actions = g_new0(Actions, 1);
  *actions =
      (Actions){.config = config, .store = store, .monitor = monitor, .queue = g_async_queue_new()};
  actions->thread = session_thread_new("actions", run, actions);
  return actions;
}

void actions_end(Actions *actions) {
  if (!actions)
    return;
  g_async_queue_lock(actions->queue);
  actions->ending = true;
  g_async_queue_push_unlocked(actions->queue, new_action(NULL, NULL, NULL));
  g_async_queue_unlock(actions->queue);
  g_thread_join(actions->thread);
}

void actions_free(Actions *actions) {
  if (!actions)
    return;
  g_async_queue_unref(actions->queue);
  g_free(actions);
}

/* --- taking it ------------------------------------------------------------------------------ */

/* All events of one state, type and reason. */
static bool names_kind(const json_t *target) {
  const char *state = text_of(target, "state");
  return json_object_size(target) == 4 && text_of(target, "event_type") &&
         text_of(target, "class") && text_of(target, "reason") && state &&
         g_strv_contains(resolve_blocking, state);
}

/* That many members, and perhaps the kind of the id that they name. */
static bool has_members(const json_t *target, size_t count, const char *kind) {
  const char *name = text_of(target, kind);
  IdKind ignored;
  return json_object_size(target) == count + (name && id_kind_from_name(name, &ignored));
}

static bool names_target(const json_t *target, const char *verb) {
  bool aggregate = text_of(target, "aggregate_type") && text_of(target, "aggregate_id") &&
                   has_members(target, 2, "aggregate_id_kind");
  bool event = text_of(target, "event_id") && has_members(target, 1, "event_id_kind");
  if (!strcmp(verb, "show"))
    return event;
  if (!strcmp(verb, "pause") || !strcmp(verb, "resume"))
    return json_is_object(target) && json_object_size(target) == 0;
  if (!strcmp(verb, "refresh") || !strcmp(verb, "explain"))
    return aggregate;
  return event || aggregate || (!strcmp(verb, "retry") && names_kind(target));
}

/* NULL: queued. */
static const char *enqueue(Actions *actions, HttpRequest *request, const char *verb,
                           json_t *target) {
  const char *why = NULL;
  g_async_queue_lock(actions->queue);
  if (actions->ending) {
    why = stopping;
  } else if (g_async_queue_length_unlocked(actions->queue) >= WAITING_MAX) {
    why = "too many actions at once; try again later";
  } else {
    http_defer(request);
    g_async_queue_push_unlocked(actions->queue, new_action(request, verb, target));
  }
  g_async_queue_unlock(actions->queue);
  return why;
}

void actions_take(Actions *actions, HttpRequest *request, const char *verb) {
  const GString *body = http_request_body(request);
  json_t *target = json_loadb(body->str, body->len, JSON_REJECT_DUPLICATES, NULL);
  if (!names_target(target, verb)) {
    http_answer(request, refuse(400, "expected {\"event_id\"}, or {\"aggregate_type\", "
                                     "\"aggregate_id\"} (perhaps with \"event_id_kind\" or "
                                     "\"aggregate_id_kind\"), or of retry {\"state\", "
                                     "\"event_type\", \"class\", \"reason\"}, as strings"));
  } else {
    const char *why = enqueue(actions, request, verb, target);
    if (why)
      http_answer(request, refuse(503, why));
  }
  json_decref(target);
}
