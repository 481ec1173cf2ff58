/* waiting.c - the waiting requests, the commits that answer them, and the threads that query and
 * expire them. */
#include "projector/app/web/waiting.h"

#include "projector/app/shared/account.h"
#include "projector/infra/clock.h"
#include "projector/infra/lock.h"
#include "projector/infra/log.h"
#include "projector/infra/mongo/outcomes.h"
#include "projector/infra/mysql/session_thread.h"

#include <string.h>

enum {
  WAITERS_MAX = 256,
  TIMEOUT_MS = 5000, /* if the request gives none */
  TIMEOUT_MAX_MS = 60000,
  ASK_MS = 1000,      /* between two queries about all of them */
  THOROUGH_EVERY = 5, /* every so many queries also look for what blocks */
  ANSWER_S = 5,       /* of MySQL, for an answer */
  GONE_MS = 500,      /* between two checks that the clients are connected */
  FIRST_MS = 1500,    /* longest first query about a request, whatever its timeout */
};

G_STATIC_ASSERT((int)WAITERS_MAX < (int)HTTP_DEFERRED_MAX);

typedef struct Waiter {
  HttpRequest *request; /* NULL: answered */
  Question question;
  int64_t since, ends_at; /* monotonic, us */
  bool ask;               /* query soon */
  bool asked;             /* queried at least once */
  bool asking;            /* the thread has it in hand, and frees it if it was answered meanwhile */
} Waiter;

struct Waiting {
  const Config *config;
  Metrics *metrics;
  MongoStore *store; /* NULL: not started */
  GThread *asker, *ender;
  GMutex lock;
  GCond changed;
  bool ending;
  GPtrArray *waiters; /* of Waiter */
};

/* --- answers -------------------------------------------------------------------------------- */

static HttpAnswer answer_json(unsigned status, json_t *json) {
  char *text = json_dumps(json, JSON_COMPACT);
  json_decref(json);
  if (!text)
    text = strdup("{}");
  return (HttpAnswer){.status = status,
                      .type = "application/json",
                      .body = g_bytes_new_with_free_func(text, strlen(text), free, text)};
}

static HttpAnswer answer_error(unsigned status, const char *error) {
  return answer_json(status, json_pack("{s:s}", "error", error));
}

static HttpAnswer answer_of(const Account *account) {
  if (account->state == ACCOUNT_DONE)
    return answer_json(200, json_pack("{s:s}", "outcome", account->outcome));
  g_autofree char *id = g_utf8_make_valid(account->event_id, -1);
  return answer_json(409, json_pack("{s:s, s:s, s:s}", "error",
                                    "the aggregate waits behind a failed or dead event", "event_id",
                                    id, "state", account->dead ? "dead" : "failed"));
}

/* Call under the lock. Removes the waiter and answers it. */
static void dismiss(Waiting *waiting, Waiter *waiter, HttpAnswer answer) {
  HttpRequest *request = g_steal_pointer(&waiter->request);
  bool asking = waiter->asking;
  g_ptr_array_remove_fast(waiting->waiters, waiter);
  if (!asking)
    g_free(waiter);
  http_answer(request, answer);
}

/* --- what the workers report --------------------------------------------------------------- */

static bool is_about(const Question *question, const Event *event) {
  for (unsigned i = 0; i < question->count; i++)
    if (question->hashes[i] == event->aggregate_hash && event_has_aggregate(event) &&
        aggregate_equal(&question->aggregates[i], &event->aggregate))
      return true;
  return false;
}

/* NULL: the items do not say. */
static const char *outcome_among(const Waiter *waiter, const Item *items, size_t count,
                                 bool *ret_passed) {
  for (size_t i = 0; i < count; i++) {
    const Event *event = items[i].event;
    if (event->key.version < waiter->question.version || !is_about(&waiter->question, event))
      continue;
    const char *outcome = account_outcome(verdict_outcome(items[i].verdict));
    if (event->key.version == waiter->question.version && outcome &&
        question_is_exact(&waiter->question, &event->aggregate))
      return outcome;
    *ret_passed = true;
  }
  return NULL;
}

static void answer_committed(Waiting *waiting, const Item *items, size_t count) {
  bool any = false;
  SCOPED_LOCK(&waiting->lock);
  for (guint i = waiting->waiters->len; i > 0; i--) {
    Waiter *waiter = waiting->waiters->pdata[i - 1];
    bool passed = false;
    const char *outcome = outcome_among(waiter, items, count, &passed);
    if (outcome)
      dismiss(waiting, waiter, answer_of(&(Account){.state = ACCOUNT_DONE, .outcome = outcome}));
    else if (passed)
      waiter->ask = any = true;
  }
  if (any)
    g_cond_broadcast(&waiting->changed);
}

/* Notes every outcome that is not simply applied, for those who ask later; and what was noted as
 * missing, and was applied after all. */
static void note_outcomes(const Waiting *waiting, const Item *items, size_t count) {
  g_autofree VersionOutcome *notes = g_new(VersionOutcome, count);
  size_t noted = 0;
  for (size_t i = 0; i < count; i++) {
    const Event *event = items[i].event;
    const char *outcome = account_outcome(verdict_outcome(items[i].verdict));
    if (outcome && event->key.version &&
        (items[i].late || items[i].was_missing || items[i].verdict == VERDICT_SUPERSEDED))
      notes[noted++] =
          (VersionOutcome){&event->aggregate, event->key.version, event->key.version, outcome};
  }
  Failure failure = {0};
  if (noted > 0 && !outcomes_note(waiting->store, waiting->config->name, notes, noted, &failure))
    log_failure(LOG_LEVEL_WARNING, "cannot record the outcomes of late events", &failure);
}

static void on_committed(const Item *items, size_t count, void *data) {
  Waiting *waiting = data;
  answer_committed(waiting, items, count);
  note_outcomes(waiting, items, count);
}

static void on_failed(const Event *event, void *data) {
  Waiting *waiting = data;
  Account account = {.state = ACCOUNT_BLOCKED, .dead = event->status == STATUS_DEAD};
  bool any = false; /* to be asked: whether there is an aggregate of the text itself */
  id_text(&event->key.event_id, account.event_id);
  SCOPED_LOCK(&waiting->lock);
  for (guint i = waiting->waiters->len; i > 0; i--) {
    Waiter *waiter = waiting->waiters->pdata[i - 1];
    if (event->key.version > waiter->question.version || !is_about(&waiter->question, event))
      continue;
    if (question_is_exact(&waiter->question, &event->aggregate))
      dismiss(waiting, waiter, answer_of(&account));
    else
      waiter->ask = any = true;
  }
  if (any)
    g_cond_broadcast(&waiting->changed);
}

/* --- the thread that ends --------------------------------------------------------------------- */

/* A timeout of 0 looks once, but not at a store that does not answer. */
static int64_t end_of(const Waiter *waiter) {
  return waiter->asked ? waiter->ends_at
                       : MAX(waiter->ends_at, waiter->since + (int64_t)FIRST_MS * 1000);
}

/* Call under the lock. Ends requests that have waited long enough and, with `look`, those whose
 * clients have gone. Returns when the next one ends. */
static int64_t dismiss_late(Waiting *waiting, int64_t now, bool look) {
  int64_t next = INT64_MAX;
  for (guint i = waiting->waiters->len; i > 0; i--) {
    Waiter *waiter = waiting->waiters->pdata[i - 1];
    int64_t end = end_of(waiter);
    if (end <= now || (look && http_has_hung_up(waiter->request)))
      dismiss(waiting, waiter, answer_error(408, "not in time"));
    else
      next = MIN(next, end);
  }
  return next;
}

static gpointer run_ender(gpointer data) {
  Waiting *waiting = data;
  int64_t look_at = 0;
  SCOPED_LOCK(&waiting->lock);
  while (!waiting->ending) {
    int64_t now = clock_us();
    bool look = now >= look_at;
    int64_t next = dismiss_late(waiting, now, look);
    if (look)
      look_at = now + (int64_t)GONE_MS * 1000;
    if (waiting->waiters->len == 0)
      g_cond_wait(&waiting->changed, &waiting->lock);
    else
      g_cond_wait_until(&waiting->changed, &waiting->lock, MIN(next, look_at));
  }
  return NULL;
}

/* --- the thread that asks ------------------------------------------------------------------- */

/* Call under the lock. Chooses the requests to query about. A standby queries about all of them,
 * once a second. What blocks is looked for when a request is new, and seldom afterwards. */
static GPtrArray *choose(Waiting *waiting, bool all, bool thorough) {
  GPtrArray *chosen = g_ptr_array_new();
  bool working = metrics_role(waiting->metrics) == ROLE_WORKING;
  for (guint i = 0; i < waiting->waiters->len; i++) {
    Waiter *waiter = waiting->waiters->pdata[i];
    if (!all && !(working && waiter->ask))
      continue;
    waiter->question.brief = !waiter->ask && !thorough;
    waiter->ask = false;
    waiter->asking = true;
    g_ptr_array_add(chosen, waiter);
  }
  return chosen;
}

static bool ensure_stores(Waiting *waiting, Stores *stores, Failure *ret_failure) {
  stores->config = waiting->config;
  stores->store = waiting->store;
  stores->ledger = (Ledger){waiting->config->name, 0, false};
  if (!stores->outbox)
    stores->outbox = outbox_new_for_command(waiting->store, "wait");
  MysqlSettings mysql = waiting->config->mysql;
  mysql.answer_s = ANSWER_S;
  return session_follow(&stores->session, &mysql, ret_failure);
}

static void ask(Waiting *waiting, Asking *asking, GPtrArray *chosen) {
  Failure failure = {0};
  g_autoptr(GPtrArray) questions = g_ptr_array_new();
  for (guint i = 0; i < chosen->len; i++)
    g_ptr_array_add(questions, &((Waiter *)chosen->pdata[i])->question);
  bool good = ensure_stores(waiting, asking->stores, &failure) &&
              account_ask(asking, (Question *const *)questions->pdata, questions->len, &failure);
  if (!good && asking->stores->session) {
    session_close(asking->stores->session);
    asking->stores->session = NULL;
  }
  if (!good)
    log_failure(LOG_LEVEL_WARNING, "cannot read the position of an aggregate", &failure);
  SCOPED_LOCK(&waiting->lock);
  for (guint i = 0; i < chosen->len; i++) {
    Waiter *waiter = chosen->pdata[i];
    waiter->asking = false;
    waiter->asked = true;
    if (!waiter->request)
      g_free(waiter);
    else if (good && waiter->question.answer.state != ACCOUNT_OPEN)
      dismiss(waiting, waiter, answer_of(&waiter->question.answer));
  }
  g_cond_broadcast(&waiting->changed);
}

static bool wants(Waiting *waiting) {
  bool working = metrics_role(waiting->metrics) == ROLE_WORKING;
  for (guint i = 0; working && i < waiting->waiters->len; i++)
    if (((Waiter *)waiting->waiters->pdata[i])->ask)
      return true;
  return false;
}

typedef struct Rounds {
  int64_t ask_at; /* when to query about all */
  unsigned count; /* of these */
} Rounds;

/* Waits until there is something to query. NULL: it must end. */
static GPtrArray *await_work(Waiting *waiting, Rounds *rounds) {
  SCOPED_LOCK(&waiting->lock);
  bool all = false;
  while (!waiting->ending) {
    int64_t now = clock_us();
    all = waiting->waiters->len > 0 && now >= rounds->ask_at;
    if (all)
      rounds->ask_at = now + (int64_t)ASK_MS * 1000;
    if (all || wants(waiting))
      return choose(waiting, all, all && ++rounds->count % THOROUGH_EVERY == 0);
    if (waiting->waiters->len == 0)
      g_cond_wait(&waiting->changed, &waiting->lock);
    else
      g_cond_wait_until(&waiting->changed, &waiting->lock, rounds->ask_at);
  }
  return NULL;
}

static gpointer run_asker(gpointer data) {
  Waiting *waiting = data;
  Stores stores = {0};
  Failure ignored = {0};
  g_autoptr(Archive) archive = NULL;
  Rounds rounds = {0};
  GPtrArray *chosen;
  while ((chosen = await_work(waiting, &rounds))) {
    if (!archive)
      archive = archive_open(&waiting->config->mongodb, &ignored);
    Asking asking = {.stores = &stores, .archive = archive};
    ask(waiting, &asking, chosen);
    g_ptr_array_unref(chosen);
  }
  outbox_free(stores.outbox);
  session_close(stores.session);
  return NULL;
}

/* --- requests ------------------------------------------------------------------------------- */

/* What a query string names. */
typedef struct Named {
  char *type, *id, *kind, *version, *timeout;
  const char *wrong; /* NULL: nothing is wrong */
} Named;

static void named_clear(Named *named) {
  g_free(named->type);
  g_free(named->id);
  g_free(named->kind);
  g_free(named->version);
  g_free(named->timeout);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Named, named_clear)

/* Decodes a query parameter (%41, +). An unknown name is ignored. */
static bool take_parameter(const char *name, const char *value, void *data) {
  Named *named = data;
  char **place = !strcmp(name, "type")         ? &named->type
                 : !strcmp(name, "id")         ? &named->id
                 : !strcmp(name, "id_kind")    ? &named->kind
                 : !strcmp(name, "version")    ? &named->version
                 : !strcmp(name, "timeout_ms") ? &named->timeout
                                               : NULL;
  if (!place)
    return true;
  if (*place) {
    named->wrong = "expected each parameter once";
    return false;
  }
  g_autofree char *spaced = g_strdelimit(g_strdup(value), "+", ' ');
  *place = g_uri_unescape_string(spaced, NULL);
  if (!*place)
    named->wrong = "expected a valid query string";
  return *place != NULL;
}

/* What is wrong; NULL: nothing. */
static const char *read_request(const Waiting *waiting, const HttpRequest *request,
                                Waiter *waiter) {
  g_auto(Named) named = {0};
  gint64 timeout_ms = TIMEOUT_MS;
  http_request_each_query(request, take_parameter, &named);
  const char *wrong = named.wrong;
  if (!wrong)
    wrong = question_init(&waiter->question, waiting->config->mapping, named.type, named.id,
                          named.kind, named.version);
  if (!wrong && named.timeout &&
      !g_ascii_string_to_signed(named.timeout, 10, 0, TIMEOUT_MAX_MS, &timeout_ms, NULL))
    wrong = "expected timeout_ms from 0 to 60000";
  waiter->since = clock_us();
  waiter->ends_at = waiter->since + timeout_ms * 1000;
  return wrong;
}

/* NULL: it waits. */
static const char *add(Waiting *waiting, HttpRequest *request, Waiter *waiter,
                       unsigned *ret_status) {
  SCOPED_LOCK(&waiting->lock);
  *ret_status = 503;
  if (waiting->ending)
    return "the projector is stopping";
  if (!waiting->store)
    return "starting";
  *ret_status = 429;
  if (waiting->waiters->len >= WAITERS_MAX)
    return "too many requests are waiting; try again later";
  waiter->request = request;
  waiter->ask = true;
  http_defer(request);
  g_ptr_array_add(waiting->waiters, waiter);
  g_cond_broadcast(&waiting->changed);
  return NULL;
}

void waiting_take(Waiting *waiting, HttpRequest *request) {
  Waiter *waiter = g_new0(Waiter, 1);
  unsigned status = 400;
  const char *wrong = read_request(waiting, request, waiter);
  if (!wrong)
    wrong = add(waiting, request, waiter, &status);
  if (!wrong)
    return;
  g_free(waiter);
  http_answer(request, answer_error(status, wrong));
}

unsigned waiting_count(Waiting *waiting) {
  SCOPED_LOCK(&waiting->lock);
  return waiting->waiters->len;
}

/* --- its life ------------------------------------------------------------------------------- */

Waiting *waiting_new(const Config *config, Metrics *metrics) {
  Waiting *waiting = g_new0(Waiting, 1);
  *waiting = (Waiting){.config = config, .metrics = metrics, .waiters = g_ptr_array_new()};
  g_mutex_init(&waiting->lock);
  g_cond_init(&waiting->changed);
  return waiting;
}

void waiting_start(Waiting *waiting, MongoStore *store) {
  g_mutex_lock(&waiting->lock);
  waiting->store = store;
  g_mutex_unlock(&waiting->lock);
  metrics_listen(waiting->metrics, &(MetricsListener){on_committed, on_failed, waiting});
  waiting->asker = session_thread_new("waiting", run_asker, waiting);
  waiting->ender = g_thread_new("wait-limits", run_ender, waiting);
}

void waiting_end(Waiting *waiting) {
  if (!waiting)
    return;
  g_mutex_lock(&waiting->lock);
  waiting->ending = true;
  g_cond_broadcast(&waiting->changed);
  g_mutex_unlock(&waiting->lock);
  if (waiting->asker)
    g_thread_join(g_steal_pointer(&waiting->asker));
  if (waiting->ender)
    g_thread_join(g_steal_pointer(&waiting->ender));
  SCOPED_LOCK(&waiting->lock);
  while (waiting->waiters->len > 0)
    dismiss(waiting, waiting->waiters->pdata[0], answer_error(503, "the projector is stopping"));
}

void waiting_free(Waiting *waiting) {
  if (!waiting)
    return;
  waiting_end(waiting);
  g_ptr_array_unref(waiting->waiters);
  g_mutex_clear(&waiting->lock);
  g_cond_clear(&waiting->changed);
  g_free(waiting);
}
