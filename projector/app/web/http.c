/* http.c - the routes. Answers come from memory, except those of actions (behind a token), of /wait
 * (one thread asks MySQL for all who wait) and of /events (each reader has its thread). */
#include "projector/app/web/http.h"

#include "projector/app/web/actions.h"
#include "projector/app/web/event_readers.h"
#include "projector/app/web/exposition.h"
#include "projector/app/web/health.h"
#include "projector/app/web/page/page.h"
#include "projector/infra/http/server.h"
#include "projector/infra/log.h"

#include <arpa/inet.h>
#include <string.h>

struct Http {
  const Config *config;
  Metrics *metrics;
  Monitor *monitor;
  HttpServer *server;
  Actions *actions; /* atomic; NULL: not open */
  Waiting *waiting;
  EventReaders *readers;
};

static HttpAnswer plain(unsigned status, const char *text) {
  return (HttpAnswer){.status = status,
                      .type = "text/plain; charset=utf-8",
                      .body = g_bytes_new(text, strlen(text))};
}

static HttpAnswer json_answer(json_t *json, size_t flags) {
  char *text = json_dumps(json, flags);
  json_decref(json);
  if (!text) /* a text from outside that is not UTF-8 */
    return plain(500, "this cannot be represented as JSON\n");
  return (HttpAnswer){.status = 200,
                      .type = "application/json",
                      .body = g_bytes_new_with_free_func(text, strlen(text), free, text)};
}

/* --- for machines --------------------------------------------------------------------------- */

static HttpAnswer get_metrics(Http *http, HttpRequest *request) {
  (void)request;
  g_auto(Figures) figures = metrics_read(http->metrics);
  g_autoptr(Report) report = monitor_report(http->monitor);
  const OpenRequests open = {waiting_count(http->waiting), event_readers_count(http->readers)};
  return (HttpAnswer){
      .status = 200,
      .type = "text/plain; version=0.0.4; charset=utf-8",
      .body = g_string_free_to_bytes(exposition(http->config, &figures, report, &open))};
}

static HttpAnswer get_health(Http *http, HttpRequest *request) {
  (void)http, (void)request;
  return plain(200, "alive\n");
}

static HttpAnswer get_readiness(Http *http, HttpRequest *request) {
  (void)request;
  g_auto(Figures) figures = metrics_read(http->metrics);
  g_autoptr(Report) report = monitor_report(http->monitor);
  g_autoptr(GPtrArray) remarks =
      health_judge(report, &figures, &http->config->settings, g_get_monotonic_time());
  g_autoptr(GString) text = g_string_new(NULL);
  for (guint i = 0; i < remarks->len; i++) {
    const Remark *remark = remarks->pdata[i];
    if (remark->unready)
      g_string_append_printf(text, "not ready: %s\n", remark->text);
  }
  const PauseState *pause =
      figures.role == ROLE_WORKING ? &figures.tenure.pause : &report->status.lease.pause;
  if (text->len == 0 && pause->on) {
    g_autofree char *paused = health_pause_text(pause);
    g_string_append_printf(text, "ready: %s\n", paused);
    return plain(200, text->str);
  }
  if (text->len == 0)
    return plain(200, figures.role == ROLE_WORKING ? "ready: working\n" : "ready: standing by\n");
  return plain(503, text->str);
}

static HttpAnswer get_status(Http *http, HttpRequest *request) {
  (void)request;
  g_autoptr(Report) report = monitor_report(http->monitor);
  if (!report->looked_at || !report->stores_known)
    return plain(503, "the stores have not been checked yet\n");
  return json_answer(status_json(&report->status), JSON_INDENT(2));
}

/* --- for the page --------------------------------------------------------------------------- */

static json_t *tenure_json(const TenureView *view) {
  static const char *const readers[] = {"scanning", "streaming", "waiting"};
  return json_pack("{s:I, s:i, s:i, s:I, s:I, s:I, s:I, s:s, s:I}", "epoch",
                   (json_int_t)view->epoch, "workers", (int)view->workers, "waiting",
                   (int)view->waiting, "queued", (json_int_t)view->queued, "in_hand",
                   (json_int_t)view->in_hand, "bytes", (json_int_t)view->bytes, "held",
                   (json_int_t)view->held, "reader", readers[view->reader], "restarts",
                   (json_int_t)view->restarts);
}

static json_t *projection_json(const char *table, const int64_t outcomes[static OUTCOME_COUNT]) {
  return json_pack(
      "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "table", table, "applied",
      (json_int_t)outcomes[OUTCOME_APPLIED], "superseded", (json_int_t)outcomes[OUTCOME_SUPERSEDED],
      "ignored", (json_int_t)outcomes[OUTCOME_IGNORED], "late", (json_int_t)outcomes[OUTCOME_LATE],
      "failed", (json_int_t)outcomes[OUTCOME_FAILED], "dead", (json_int_t)outcomes[OUTCOME_DEAD],
      "gaps", (json_int_t)outcomes[OUTCOME_GAP]);
}

static json_t *projections_json(const Config *config, const Figures *figures) {
  json_t *list = json_array();
  for (unsigned i = 0; i < figures->tables; i++)
    json_array_append_new(list, projection_json(i + 1 < figures->tables
                                                    ? mapping_projection(config->mapping, i)->table
                                                    : "",
                                                figures->outcomes[i]));
  return list;
}

static json_t *health_json(const GPtrArray *remarks) {
  json_t *list = json_array();
  for (guint i = 0; i < remarks->len; i++) {
    const Remark *remark = remarks->pdata[i];
    g_autofree char *text = g_utf8_make_valid(remark->text, -1);
    json_array_append_new(
        list, json_pack("{s:s, s:s}", "level", remark->bad ? "bad" : "warn", "text", text));
  }
  return list;
}

static json_t *measured(double value) {
  return value < 0 ? json_null() : json_real(value);
}

/* [time, events/s, lag, worst lag, age of the oldest event], times in ms. */
static json_t *samples_json(Monitor *monitor, int64_t after_ms) {
  g_autofree Sample *samples = g_new(Sample, SAMPLES_MAX);
  unsigned count = monitor_samples(monitor, after_ms, samples);
  json_t *list = json_array();
  for (unsigned i = 0; i < count; i++)
    json_array_append_new(list, json_pack("[I, f, o, o, f]", (json_int_t)samples[i].at_ms,
                                          samples[i].per_s, measured(samples[i].lag_ms),
                                          measured(samples[i].worst_ms), samples[i].oldest_ms));
  return list;
}

static HttpAnswer get_live(Http *http, HttpRequest *request) {
  static const char *const roles[] = {"starting", "standby", "working"};
  const char *after = http_request_query(request, "after");
  g_auto(Figures) figures = metrics_read(http->metrics);
  g_autoptr(Report) report = monitor_report(http->monitor);
  int64_t now = g_get_monotonic_time();
  int64_t age_ms = report->looked_at ? (now - report->looked_at) / 1000 : -1;
  g_autoptr(GPtrArray) remarks = health_judge(report, &figures, &http->config->settings, now);
  return json_answer(
      json_pack("{s:s, s:s, s:I, s:b, s:s, s:I, s:I, s:o, s:o, s:o, s:O, s:O, s:o, s:o}", "name",
                http->config->name, "version", PROJECTOR_VERSION, "now",
                (json_int_t)(g_get_real_time() / 1000), "actions",
                http->config->settings.admin_token != NULL, "role", roles[figures.role],
                "looked_ms_ago", (json_int_t)age_ms, "committed", (json_int_t)figures.committed,
                "health", health_json(remarks), "status", status_json(&report->status), "tenure",
                tenure_json(&figures.tenure), "troubles", report->troubles, "kinds", report->kinds,
                "projections", projections_json(http->config, &figures), "samples",
                samples_json(http->monitor, after ? g_ascii_strtoll(after, NULL, 10) : 0)),
      JSON_COMPACT | JSON_REAL_PRECISION(6));
}

static HttpAnswer get_page(Http *http, HttpRequest *request) {
  (void)http, (void)request;
  return (HttpAnswer){.status = 200,
                      .type = "text/html; charset=utf-8",
                      .policy = page_policy,
                      .body = g_bytes_new_static(page_html, page_length)};
}

/* --- actions: who may ------------------------------------------------------------------------ */

/* Takes the same time whether or not the texts differ, and where. */
static bool is_same(const char *secret, const char *text) {
  size_t length = strlen(text), secret_length = strlen(secret);
  volatile unsigned char difference = length != secret_length;
  for (size_t i = 0; i < length; i++)
    difference |= (unsigned char)(text[i] ^ secret[i % secret_length]);
  return difference == 0;
}

/* A browser says which site a request comes from; pages of other sites are refused, with or without
 * the token. */
static bool is_same_origin(const HttpRequest *request) {
  const char *origin = http_request_header(request, "Origin");
  const char *host = http_request_header(request, "Host");
  const char *site = http_request_header(request, "Sec-Fetch-Site");
  if (site && strcmp(site, "same-origin") != 0 && strcmp(site, "none") != 0)
    return false;
  const char *name = origin ? strstr(origin, "://") : NULL;
  return !origin || (name && host && !strcmp(name + strlen("://"), host));
}

/* Returns whether the request carries the token; if not, it has been answered. */
static bool is_allowed(const Http *http, HttpRequest *request) {
  static const char bearer[] = "Bearer ";
  const char *secret = http->config->settings.admin_token;
  const char *given = http_request_header(request, "Authorization");
  if (!secret)
    http_answer(request, plain(403, "actions are off: name a file in admin_token_file\n"));
  else if (!is_same_origin(request))
    http_answer(request, plain(403, "not from this page\n"));
  else if (!given || g_ascii_strncasecmp(given, bearer, strlen(bearer)) != 0 ||
           !is_same(secret, given + strlen(bearer)))
    http_answer(request, plain(401, "the token is missing or wrong\n"));
  else
    return true;
  return false;
}

static void act(Http *http, HttpRequest *request, const char *verb) {
  const char *type = http_request_header(request, "Content-Type");
  Actions *actions = g_atomic_pointer_get(&http->actions);
  if (!is_allowed(http, request))
    return;
  if (!type || !g_str_has_prefix(type, "application/json"))
    http_answer(request, plain(415, "expected application/json\n"));
  else if (!actions)
    http_answer(request, plain(503, "starting\n"));
  else
    actions_take(actions, request, verb);
}

/* --- routes --------------------------------------------------------------------------------- */

static const struct {
  const char *path;
  HttpAnswer (*get)(Http *http, HttpRequest *request);
  const char *verb; /* of an action; with neither, the request waits */
} routes[] = {
    {"/", get_page, NULL},          {"/metrics", get_metrics, NULL},
    {"/healthz", get_health, NULL}, {"/readyz", get_readiness, NULL},
    {"/status", get_status, NULL},  {"/live", get_live, NULL},
    {"/retry", NULL, "retry"},      {"/skip", NULL, "skip"},
    {"/refresh", NULL, "refresh"},  {"/show", NULL, "show"},
    {"/pause", NULL, "pause"},      {"/resume", NULL, "resume"},
    {"/explain", NULL, "explain"},  {"/wait", NULL, NULL},
};

/* Another site can make its own name lead here, so on loopback only loopback names are answered. */
static bool is_known_host(const Http *http, const HttpRequest *request) {
  const char *host = http_request_header(request, "Host");
  if (!http_server_is_local(http->server) || !host)
    return true;
  g_autofree char *name = g_strdup(host);
  char *colon = strrchr(name, ':');
  if (colon && !strchr(colon, ']'))
    *colon = '\0';
  struct in_addr address;
  return (inet_pton(AF_INET, name, &address) == 1 && ntohl(address.s_addr) >> 24 == 127) ||
         !g_ascii_strcasecmp(name, "localhost") || !strcmp(name, "[::1]");
}

static HttpAnswer refuse_method(const char *allowed) {
  HttpAnswer answer = plain(405, "this method is not allowed here\n");
  answer.allow = allowed;
  return answer;
}

static void send_events(Http *http, HttpRequest *request, const char *method) {
  if (strcmp(method, "GET") != 0)
    http_answer(request, refuse_method("GET"));
  else if (is_allowed(http, request))
    event_readers_take(http->readers, request);
}

static void handle(HttpRequest *request, void *data) {
  Http *http = data;
  const char *method = http_request_method(request), *path = http_request_path(request);
  bool gets = !strcmp(method, "GET") || !strcmp(method, "HEAD");
  if (!is_known_host(http, request)) {
    http_answer(request, plain(421, "this address is for 127.0.0.1 and localhost\n"));
    return;
  }
  if (!strcmp(path, "/events")) {
    send_events(http, request, method);
    return;
  }
  for (size_t i = 0; i < G_N_ELEMENTS(routes); i++) {
    if (strcmp(path, routes[i].path) != 0)
      continue;
    bool get = routes[i].get || !routes[i].verb;
    if (get && !gets)
      http_answer(request, refuse_method("GET, HEAD"));
    else if (routes[i].get)
      http_answer(request, routes[i].get(http, request));
    else if (get)
      waiting_take(http->waiting, request);
    else if (strcmp(method, "POST") != 0)
      http_answer(request, refuse_method("POST"));
    else
      act(http, request, routes[i].verb);
    return;
  }
  http_answer(request, plain(404, "not found\n"));
}

Http *http_start(const Config *config, Metrics *metrics, Monitor *monitor, Waiting *waiting,
                 Failure *ret_failure) {
  g_autoptr(Http) http = g_new0(Http, 1);
  *http = (Http){.config = config, .metrics = metrics, .monitor = monitor, .waiting = waiting};
  http->readers = event_readers_new(config, metrics);
  http->server = http_server_listen(config->settings.http, ret_failure);
  if (!http->server || !http_server_start(http->server, handle, http, ret_failure))
    return NULL;
  log_info("HTTP", LOG_FIELDS(LOG_TEXT("address", http_server_address(http->server)),
                              LOG_TEXT("actions", config->settings.admin_token ? "on" : "off")));
  return g_steal_pointer(&http);
}

void http_open_actions(Http *http, MongoStore *store) {
  if (http->config->settings.admin_token)
    g_atomic_pointer_set(&http->actions, actions_start(http->config, store, http->monitor));
}

void http_free(Http *http) {
  if (!http)
    return;
  Actions *actions = g_atomic_pointer_get(&http->actions);
  event_readers_end(http->readers);
  /* This answers deferred requests, without which the server cannot stop. */
  actions_end(actions);
  waiting_end(http->waiting);
  http_server_free(http->server);
  actions_free(actions);
  event_readers_free(http->readers);
  g_free(http);
}
