/* list.c - `projector list`: events by state, aggregate or type, with the reason. */
#include "projector/app/commands/list.h"

#include "projector/app/shared/command.h"
#include "projector/domain/datetime.h"
#include "projector/domain/id_text.h"
#include "projector/infra/mongo/claims.h"
#include "projector/infra/mongo/selection.h"

#include <stdio.h>
#include <string.h>

static const char *const blocking[] = {"failed", "dead", NULL};

/* Events with the same state, type and reason. */
typedef struct Kind {
  const char *state;
  char *class, *type, *message;
  int64_t count;
  char *example;
} Kind;

typedef struct Lister {
  bool as_json, payload;
  GHashTable *kinds;   /* of --summary: a set of Kind; or NULL */
  GHashTable *refused; /* Id → Refused: events that MongoDB refuses to mark */
  int64_t count;
} Lister;

/* From last_error; the texts belong to the event. */
typedef struct Reason {
  const char *class, *message;
  int64_t code;
} Reason;

static Reason reason_of(const Event *event) {
  Reason reason = {"", "", 0};
  bson_iter_t iter, error;
  bson_t view;
  if (!bson_iter_init_find(&iter, event_document(event, &view), "last_error") ||
      !BSON_ITER_HOLDS_DOCUMENT(&iter) || !bson_iter_recurse(&iter, &error))
    return reason;
  while (bson_iter_next(&error)) {
    const char *key = bson_iter_key(&error);
    if (!strcmp(key, "class") && BSON_ITER_HOLDS_UTF8(&error))
      reason.class = bson_iter_utf8(&error, NULL);
    else if (!strcmp(key, "message") && BSON_ITER_HOLDS_UTF8(&error))
      reason.message = bson_iter_utf8(&error, NULL);
    else if (!strcmp(key, "code") && BSON_ITER_HOLDS_INT(&error))
      reason.code = bson_iter_as_int64(&error);
  }
  return reason;
}

static const char *state_name(const Event *event) {
  static const char *const names[] = {"pending", "in_progress", "failed", "dead"};
  return names[event->status];
}

/* Of an attempt before the event was made pending again. */
static bool is_old(const Event *event, const char *state, const Reason *reason) {
  return *reason->class && event->status == STATUS_PENDING && !strcmp(state, "pending");
}

/* NULL: it is none that the contract knows. */
static const char *kind_of(const Id *id) {
  return id->kind == ID_OTHER ? NULL : id_kind_name(id->kind);
}

static json_t *to_json(const Event *event, const char *state, const Reason *reason) {
  char id[ID_TEXT_SIZE], aggregate_id[ID_TEXT_SIZE], time[DATETIME_TEXT_SIZE] = "";
  id_text(&event->key.event_id, id);
  id_text(&event->aggregate.id, aggregate_id);
  if (event->key.occurred_at != INT64_MIN)
    datetime_format(event->key.occurred_at * 1000, 3, time);
  g_autofree char *whole_id = id_other_json(&event->key.event_id); /* as `skip` takes it */
  g_autofree char *valid_id = g_utf8_make_valid(whole_id ? whole_id : id, -1);
  g_autofree char *valid_aggregate_id = g_utf8_make_valid(aggregate_id, -1);
  g_autofree char *type =
      g_strndup(event->aggregate.type ? event->aggregate.type : "", event->aggregate.type_length);
  g_autofree char *event_type =
      g_strndup(event->event_type ? event->event_type : "", event->event_type_length);
  g_autofree char *message = g_utf8_make_valid(reason->message, -1);
  g_autofree char *class = g_utf8_make_valid(reason->class, -1);
  json_t *json = json_pack(
      "{s:s, s:s?, s:s, s:s, s:s, s:s?, s:s, s:I, s:s, s:i, s:{s:s, s:I, s:s}}", "event_id",
      valid_id, "event_id_kind", kind_of(&event->key.event_id), "state", state, "aggregate_type",
      type, "aggregate_id", valid_aggregate_id, "aggregate_id_kind", kind_of(&event->aggregate.id),
      "event_type", event_type, "version", (json_int_t)event->key.version, "occurred_at", time,
      "attempts", event->attempts, "reason", "class", class, "code", (json_int_t)reason->code,
      "message", message);
  if (is_old(event, state, reason))
    json_object_set_new(json_object_get(json, "reason"), "old", json_true());
  return json;
}

json_t *list_event_json(const Event *event) {
  Reason reason = reason_of(event);
  return to_json(event, state_name(event), &reason);
}

static void print_json(const Event *event, const char *state, const Reason *reason, bool payload) {
  json_t *line = to_json(event, state, reason);
  bson_t view;
  char *text = payload ? bson_as_relaxed_extended_json(event_payload(event, &view), NULL) : NULL;
  if (text)
    json_object_set_new(line, "payload", json_loads(text, JSON_ALLOW_NUL, NULL));
  bson_free(text);
  command_print_json(line, JSON_COMPACT);
  json_decref(line);
}

static void print_text(const Event *event, const char *state, const Reason *reason) {
  char id[ID_TEXT_SIZE], aggregate[AGGREGATE_TYPE_MAX + ID_TEXT_SIZE + 2];
  char time[DATETIME_TEXT_SIZE] = "no time";
  g_autofree char *event_type =
      g_strndup(event->event_type ? event->event_type : "", event->event_type_length);
  id_text(&event->key.event_id, id);
  aggregate_text(&event->aggregate, aggregate, sizeof aggregate);
  if (event->key.occurred_at != INT64_MIN)
    datetime_format(event->key.occurred_at * 1000, 3, time);
  printf("%-11s ", state);
  print_clean(stdout, id);
  printf("  ");
  print_clean(stdout, aggregate);
  printf("  ");
  print_clean(stdout, event_type);
  printf("\n%12s", "");
  if (event->key.version > 0)
    printf("version %lld  ", (long long)event->key.version);
  fputs(time, stdout);
  if (event->attempts > 0)
    printf("  %d attempt%s", event->attempts, event->attempts == 1 ? "" : "s");
  if (*reason->class) {
    printf("\n            %s", is_old(event, state, reason) ? "before it was tried again: " : "");
    print_clean(stdout, reason->class);
    if (reason->code)
      printf(" %lld", (long long)reason->code);
    printf(": ");
    print_clean(stdout, reason->message);
  }
  putchar('\n');
}

static void kind_free(gpointer data) {
  Kind *kind = data;
  g_free(kind->class);
  g_free(kind->type);
  g_free(kind->message);
  g_free(kind->example);
  g_free(kind);
}

/* By state, class, type and message. */
static int kind_compare(const Kind *a, const Kind *b) {
  int order = strcmp(a->state, b->state);
  if (!order)
    order = strcmp(a->class, b->class);
  if (!order)
    order = strcmp(a->type, b->type);
  return order ? order : strcmp(a->message, b->message);
}

static guint kind_hash(gconstpointer data) {
  const Kind *kind = data;
  return ((g_str_hash(kind->state) * 31 + g_str_hash(kind->class)) * 31 + g_str_hash(kind->type)) *
             31 +
         g_str_hash(kind->message);
}

static gboolean kind_equal(gconstpointer a, gconstpointer b) {
  return kind_compare(a, b) == 0;
}

static void count_kind(Lister *lister, const Event *event, const char *state,
                       const Reason *reason) {
  g_autofree char *type =
      g_strndup(event->event_type ? event->event_type : "", event->event_type_length);
  const Kind sought = {.state = state,
                       .class = (char *)reason->class,
                       .type = type,
                       .message = (char *)reason->message};
  Kind *kind = g_hash_table_lookup(lister->kinds, &sought);
  if (!kind) {
    char id[ID_TEXT_SIZE];
    id_text(&event->key.event_id, id);
    kind = g_new(Kind, 1);
    *kind = (Kind){.state = state,
                   .class = g_strdup(reason->class),
                   .type = g_steal_pointer(&type),
                   .message = g_strdup(reason->message),
                   .example = g_strdup(id)};
    g_hash_table_insert(lister->kinds, kind, kind);
  }
  kind->count++;
}

/* "123  dead  data  MoneyDeposited  row missing in account  (0189…, say)", most frequent first. */
static gint compare_kinds(gconstpointer a, gconstpointer b) {
  const Kind *x = a, *y = b;
  return x->count != y->count ? (x->count < y->count) - (x->count > y->count) : kind_compare(x, y);
}

static void print_kind(const Kind *kind, bool as_json) {
  if (as_json) {
    g_autofree char *type = g_utf8_make_valid(kind->type, -1);
    g_autofree char *class = g_utf8_make_valid(kind->class, -1);
    g_autofree char *message = g_utf8_make_valid(kind->message, -1);
    g_autofree char *example = g_utf8_make_valid(kind->example, -1);
    json_t *line = json_pack("{s:I, s:s, s:s, s:s, s:s, s:s}", "count", (json_int_t)kind->count,
                             "state", kind->state, "class", class, "event_type", type, "message",
                             message, "example", example);
    command_print_json(line, JSON_COMPACT);
    json_decref(line);
    return;
  }
  printf("%8lld  %-11s ", (long long)kind->count, kind->state);
  print_clean(stdout, kind->type);
  printf("  ");
  print_clean(stdout, kind->class);
  printf(": ");
  print_clean(stdout, kind->message);
  printf("  (for example ");
  print_clean(stdout, kind->example);
  printf(")\n");
}

static void print_kinds(const Lister *lister) {
  g_autoptr(GList) kinds = g_hash_table_get_keys(lister->kinds);
  kinds = g_list_sort(kinds, compare_kinds);
  for (GList *at = kinds; at; at = at->next)
    print_kind(at->data, lister->as_json);
}

static void print_payload(const Event *event) {
  bson_t view;
  char *json = bson_as_relaxed_extended_json(event_payload(event, &view), NULL);
  printf("            ");
  command_print_json_text(json ? json : "{}");
  putchar('\n');
  bson_free(json);
}

static void print_event(Lister *lister, const Event *event, const char *state,
                        const Reason *reason) {
  lister->count++;
  if (lister->kinds) {
    count_kind(lister, event, state, reason);
  } else if (lister->as_json) {
    print_json(event, state, reason, lister->payload);
  } else {
    print_text(event, state, reason);
    if (lister->payload)
      print_payload(event);
  }
}

static Reason reason_of_refused(const Refused *refused) {
  return (Reason){failure_class_name(refused->failure.class), refused->failure.message,
                  refused->failure.code};
}

json_t *list_refused_json(const Event *event, const Refused *refused) {
  Reason reason = reason_of_refused(refused);
  return to_json(event, "refused", &reason);
}

static void print_as_it_is(Lister *lister, const Event *event) {
  const Refused *refused = event->status == STATUS_PENDING
                               ? g_hash_table_lookup(lister->refused, &event->key.event_id)
                               : NULL;
  Reason reason = refused ? reason_of_refused(refused) : reason_of(event);
  print_event(lister, event, refused ? "refused" : state_name(event), &reason);
}

/* Their documents still say pending. */
static bool list_refused(Lister *lister, Outbox *outbox, const Selection *selection,
                         Failure *ret_failure) {
  GHashTableIter iter;
  gpointer value;
  g_hash_table_iter_init(&iter, lister->refused);
  while (g_hash_table_iter_next(&iter, NULL, &value)) {
    static const char *const states[] = {"pending", NULL};
    Selection one = *selection;
    one.event = &((const Refused *)value)->id;
    one.states = states;
    if (selection->limit > 0 && lister->count >= selection->limit)
      return true;
    g_autoptr(EventCursor) cursor = selection_find(outbox, &one);
    const bson_t *document;
    while ((document = event_cursor_next(cursor, ret_failure))) {
      g_autoptr(Event) event = event_decode(document);
      print_as_it_is(lister, event);
    }
    if (ret_failure->class != FAILURE_NONE)
      return false;
  }
  return true;
}

static bool list_selected(Lister *lister, Outbox *outbox, const Selection *selection,
                          Failure *ret_failure) {
  g_autoptr(GHashTable) in_hand = claims_in_hand(outbox, ret_failure);
  if (!in_hand)
    return false;
  Selection selected = *selection;
  selected.in_hand = in_hand;
  g_autoptr(EventCursor) cursor = selection_find(outbox, &selected);
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = event_decode(document);
    claims_show(in_hand, event);
    print_as_it_is(lister, event);
  }
  return ret_failure->class == FAILURE_NONE;
}

static bool is_of_type(const Event *event, const char *type) {
  return !type || (event->event_type && event->event_type_length == strlen(type) &&
                   !memcmp(event->event_type, type, event->event_type_length));
}

/* Events that wait behind a failed or dead one: for each blocking event, the later ones. */
static bool list_held(Lister *lister, Outbox *outbox, const Selection *selection,
                      Failure *ret_failure) {
  Selection heads = *selection;
  heads.states = blocking;
  heads.event_id = heads.event_type = NULL;
  heads.limit = 0;
  heads.version = 0;
  g_autoptr(EventCursor) cursor = selection_find(outbox, &heads);
  g_autoptr(GHashTable) seen =
      g_hash_table_new_full(aggregate_hash_key, aggregate_equal_key, g_free, NULL);
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) head = event_decode(document);
    if (!event_has_aggregate(head) || !g_hash_table_add(seen, aggregate_copy(&head->aggregate)))
      continue;
    char id[ID_TEXT_SIZE];
    id_text(&head->key.event_id, id);
    g_autofree char *message = g_strdup_printf("waits behind %s", id);
    Reason reason = {"held", message, 0};
    g_autoptr(EventCursor) behind =
        outbox_find_aggregate(outbox, &head->aggregate, &head->key, G_MAXINT);
    while ((document = event_cursor_next(behind, ret_failure))) {
      g_autoptr(Event) event = event_decode(document);
      if (event->status == STATUS_PENDING && is_of_type(event, selection->event_type) &&
          (selection->version == 0 || event->key.version == selection->version) &&
          (selection->limit == 0 || lister->count < selection->limit))
        print_event(lister, event, "held", &reason);
    }
    if (ret_failure->class != FAILURE_NONE)
      return false;
  }
  return ret_failure->class == FAILURE_NONE;
}

/* Values of `--state` beyond the states of the documents. */
typedef struct Scope {
  bool held;     /* only events that wait behind failed or dead ones */
  bool refused;  /* also events that MongoDB refuses to mark */
  bool selected; /* also events in the selection's states */
} Scope;

static bool list_scope(Lister *lister, Outbox *outbox, const Selection *selection, Scope scope,
                       Failure *ret_failure) {
  if (scope.held)
    return list_held(lister, outbox, selection, ret_failure);
  return (!scope.selected || list_selected(lister, outbox, selection, ret_failure)) &&
         (!scope.refused || list_refused(lister, outbox, selection, ret_failure));
}

static int list_events(const Config *config, Lister *lister, const Selection *selection,
                       Scope scope) {
  Failure failure = {0};
  g_autoptr(MongoStore) store = mongo_store_open_single(&config->mongodb, &failure);
  if (!store)
    return command_fail(&failure);
  g_autoptr(Outbox) outbox = outbox_new(store, "");
  g_autoptr(GHashTable) refused = refused_read(store, config->name, &failure);
  lister->refused = refused;
  if (!refused || !list_scope(lister, outbox, selection, scope, &failure))
    return command_fail(&failure);
  if (lister->kinds)
    print_kinds(lister);
  return lister->count > 0 ? EXIT_GOOD : EXIT_NO;
}

/* The type whose rows the table has. */
static bool choose_type(const Config *config, const char *table, const char **type,
                        int *ret_status) {
  const Projection *projection = mapping_find(config->mapping, table);
  *ret_status = EXIT_WRONG;
  if (!projection) {
    command_misuse("--projection: no projection fills a table of this name");
    return false;
  }
  if (*type && strcmp(*type, projection->aggregate_type) != 0) {
    command_misuse("--projection: its table has rows of another aggregate type");
    return false;
  }
  *type = projection->aggregate_type;
  return true;
}

int command_list(int argc, char **argv) {
  static const char *const all_states[] = {"pending", "in_progress", "failed", "dead", NULL};
  g_autofree char *state = NULL, *type = NULL, *table = NULL, *version = NULL;
  gboolean by_aggregate = FALSE, as_json = FALSE, summary = FALSE, payload = FALSE;
  int limit = 0, status;
  const GOptionEntry options[] = {
      {"state", 0, 0, G_OPTION_ARG_STRING, &state,
       "failed, dead, refused (MongoDB refuses the projector's marks), held, pending, in_progress "
       "or all "
       "(default: failed, dead and refused)",
       "STATE"},
      {"aggregate", 0, 0, G_OPTION_ARG_NONE, &by_aggregate,
       "Only of one aggregate: --aggregate TYPE ID [VERSION]", NULL},
      {"version", 0, 0, G_OPTION_ARG_STRING, &version, "Only the event with this version", "N"},
      {"type", 0, 0, G_OPTION_ARG_STRING, &type, "Only of this event type", "EVENT_TYPE"},
      {"projection", 0, 0, G_OPTION_ARG_STRING, &table, "Only of aggregates that fill this table",
       "TABLE"},
      {"summary", 0, 0, G_OPTION_ARG_NONE, &summary,
       "Count by state, event type and reason, with an example", NULL},
      {"payload", 0, 0, G_OPTION_ARG_NONE, &payload, "Include the payload of each event", NULL},
      {"limit", 0, 0, G_OPTION_ARG_INT, &limit, "At most N events", "N"},
      {"json", 0, 0, G_OPTION_ARG_NONE, &as_json, "One JSON object per line", NULL},
      G_OPTION_ENTRY_NULL};
  g_autoptr(Config) config = NULL;
  if (!command_begin(&argc, &argv,
                     &(CommandHelp){"[TYPE ID [VERSION]] - list events of the outbox",
                                    "Lists events in order, with the reason for their state. Exit "
                                    "status 1 if there are none.",
                                    options},
                     &config, &status))
    return status;
  const char *one_state[] = {state, NULL};
  Selection selection = {.event_type = type, .states = blocking, .limit = limit};
  bool held = state && !strcmp(state, "held"), only_refused = state && !strcmp(state, "refused");
  if (by_aggregate ? argc < 3 || argc > 4 : argc != 1 || version)
    return command_misuse("expected --aggregate TYPE ID [VERSION], or no arguments");
  if (!command_version(argc == 4 ? argv[3] : version, &selection.version))
    return EXIT_WRONG;
  if (limit < 0)
    return command_misuse("--limit: expected a number of events, or 0 for all");
  if (state && !held && !only_refused && strcmp(state, "all") != 0 &&
      !g_strv_contains(all_states, state))
    return command_misuse(
        "--state: expected failed, dead, refused, held, pending, in_progress or all");
  if (state && !held && !only_refused)
    selection.states = strcmp(state, "all") != 0 ? one_state : NULL;
  selection.aggregate_type = by_aggregate ? argv[1] : NULL;
  selection.aggregate_id = by_aggregate ? argv[2] : NULL;
  if (table && !choose_type(config, table, &selection.aggregate_type, &status))
    return status;
  g_autoptr(GHashTable) kinds = g_hash_table_new_full(kind_hash, kind_equal, kind_free, NULL);
  Lister lister = {.as_json = as_json, .payload = payload, .kinds = summary ? kinds : NULL};
  Scope scope = {.held = held, .refused = !state || only_refused, .selected = !only_refused};
  return list_events(config, &lister, &selection, scope);
}
