/* explain.c - `projector explain`: one aggregate on one screen.
 *
 * Position, events, entity and rows in one look each; `reconcile` looks twice before it is sure. */
#include "projector/app/command.h"
#include "projector/app/find.h"
#include "projector/app/reconcile/difference.h"
#include "projector/app/reconcile/looks.h"
#include "projector/domain/datetime.h"
#include "projector/domain/entity.h"
#include "projector/infra/mysql/rows.h"

#include <stdio.h>
#include <string.h>

enum { EVENTS_SHOWN = 50, LABEL = 12 };

typedef struct Explain {
  Sides *sides;
  const Aggregate *aggregate;
  Pool *pool;
  Position position;
  bool pending; /* an event of the outbox that the ledger does not have */
} Explain;

static const char *time_text(int64_t ms, char text[static DATETIME_TEXT_SIZE]) {
  if (!datetime_in_range(ms))
    return "(no time)";
  datetime_format(ms * 1000, 3, text);
  return text;
}

static void print_id(const Id *id) {
  char text[ID_TEXT_SIZE];
  id_text(id, text);
  print_clean(stdout, text);
}

/* --- position ------------------------------------------------------------------------------- */

static bool explain_position(Explain *explain, Failure *ret_failure) {
  g_autoptr(AggregateSet) set = aggregate_set_new(explain->pool->arena);
  const AggregateState *state = aggregate_set_open(set, explain->aggregate);
  char time[DATETIME_TEXT_SIZE];
  if (!ledger_look_at_positions(explain->sides->session, &explain->sides->ledger, set,
                                explain->pool->arena, ret_failure))
    return false;
  const Position *position = &state->position;
  explain->position = *position;
  printf("%-*s", LABEL, "position");
  if (!position->known) {
    puts("none: nothing was applied yet");
    return true;
  }
  printf("applied up to version %lld, last event ", (long long)position->max_version);
  print_id(&position->last.event_id);
  printf(" of %s\n", time_text(position->last.occurred_at, time));
  if (position->refreshed_version)
    printf("%-*srow taken from the entity at version %lld\n", LABEL, "",
           (long long)position->refreshed_version);
  return true;
}

/* --- events --------------------------------------------------------------------------------- */

static void print_event(const Event *event, const char *state) {
  char time[DATETIME_TEXT_SIZE];
  g_autofree char *type =
      g_strndup(event->event_type ? event->event_type : "", event->event_type_length);
  bson_iter_t iter, message;
  printf("  %-*s", LABEL, state);
  print_id(&event->key.event_id);
  printf("  ");
  print_clean(stdout, type);
  printf("  version %lld  %s", (long long)event->key.version,
         time_text(event->key.occurred_at, time));
  if (event->attempts > 0)
    printf("  %d attempt%s", event->attempts, event->attempts == 1 ? "" : "s");
  putchar('\n');
  if (bson_iter_init(&iter, &event->document) &&
      bson_iter_find_descendant(&iter, "last_error.message", &message) &&
      BSON_ITER_HOLDS_UTF8(&message)) {
    printf("  %*s", LABEL, "");
    print_clean(stdout, bson_iter_utf8(&message, NULL));
    putchar('\n');
  }
}

static const char *state_of(const Item *item) {
  static const char *const names[] = {"pending", "in_progress", "failed", "dead"};
  return item->verdict == VERDICT_KNOWN ? "applied" : names[item->event->status];
}

/* The first events of the aggregate in the collection behind `outbox`. */
static bool explain_events(Explain *explain, Outbox *outbox, const char *label, bool archived,
                           Failure *ret_failure) {
  g_autoptr(GArray) items = g_array_new(FALSE, TRUE, sizeof(Item));
  g_autoptr(EventCursor) cursor =
      outbox_find_aggregate(outbox, explain->aggregate, NULL, EVENTS_SHOWN);
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    Item item = {.event = pool_keep(explain->pool, event_decode(document))};
    g_array_append_val(items, item);
  }
  if (ret_failure->class != FAILURE_NONE ||
      !looks_ask_ledger(explain->sides, (Item *)(void *)items->data, items->len, ret_failure))
    return false;
  printf("%-*s%s%u event%s\n", LABEL, label, items->len == EVENTS_SHOWN ? "the first " : "",
         items->len, items->len == 1 ? "" : "s");
  for (guint i = 0; i < items->len; i++) {
    const Item *item = &g_array_index(items, Item, i);
    print_event(item->event, archived ? "archived" : state_of(item));
    explain->pending |= !archived && item->verdict != VERDICT_KNOWN;
  }
  return true;
}

static bool explain_archive(Explain *explain, Failure *ret_failure) {
  MongoSettings settings = explain->sides->config->mongodb;
  if (!settings.archive)
    return true;
  g_autofree char *archive = g_strdup_printf("%s_archive", settings.outbox);
  settings.outbox = archive;
  g_autoptr(MongoStore) store = mongo_store_open_single(&settings, ret_failure);
  if (!store)
    return false;
  g_autoptr(Outbox) outbox = outbox_new(store, "");
  return explain_events(explain, outbox, "archive", true, ret_failure);
}

/* --- rows ----------------------------------------------------------------------------------- */

static bool read_entity(Explain *explain, const Projection *projection, Event **ret_entity,
                        Failure *ret_failure) {
  bson_t *document = NULL;
  char time[DATETIME_TEXT_SIZE];
  *ret_entity = NULL;
  if (!outbox_read_entity(explain->sides->outbox, projection->entities, &explain->aggregate->id,
                          &document, ret_failure))
    return false;
  printf("%-*s%s: ", LABEL, "entity", projection->entities);
  if (!document) {
    puts("none");
    return true;
  }
  int64_t version = entity_version(document), last = entity_time(document, INT64_MIN);
  *ret_entity =
      pool_keep(explain->pool, entity_as_event(document, explain->aggregate, version, last));
  printf("version %lld, last event %s\n", (long long)version, time_text(last, time));
  bson_destroy(document);
  return true;
}

static void print_value(const Value *value) {
  g_autoptr(GString) text = g_string_new(NULL);
  value_append_text(text, value);
  g_autofree char *valid = g_utf8_make_valid(text->str, (gssize)text->len);
  print_clean(stdout, valid);
}

static void print_columns(const Layout *layout, const Expected *expected, const Value *row) {
  for (unsigned i = 0; i < layout->count; i++) {
    bool known = expected && expected->known[i];
    bool differs = known && row && !column_equal(layout->columns[i], &expected->values[i], &row[i]);
    printf("  %-*s%s: ", LABEL, differs ? "different" : "", layout->columns[i]->name);
    if (differs || (known && !row)) {
      printf("entity ");
      print_value(&expected->values[i]);
    }
    if (row) {
      printf(differs ? ", row " : "");
      print_value(&row[i]);
    }
    putchar('\n');
  }
}

static void conclude(const Projection *projection, const Sight *sight) {
  Decision decision = difference_decide(sight);
  printf("%-*s%s: ", LABEL, "row", projection->table);
  if (decision.row != DIFFERENCE_NONE || decision.position != DIFFERENCE_NONE) {
    DifferenceKind kind = decision.row != DIFFERENCE_NONE ? decision.row : decision.position;
    printf("%s", difference_name(kind));
  } else if (decision.lagging) {
    printf("lagging, events wait in the outbox");
  } else {
    printf(sight->row ? "equal to the entity" : "none, and no entity");
  }
  putchar('\n');
}

static bool explain_row(Explain *explain, const Projection *projection, const Event *entity,
                        Failure *ret_failure) {
  Layout layout;
  Expected expected;
  Failure unfit = {0};
  Value *key = arena_alloc(explain->pool->arena, projection->key_count, sizeof *key);
  g_autoptr(GPtrArray) rows = g_ptr_array_new();
  bson_t nothing = BSON_INITIALIZER;
  if (!entity)
    entity = pool_keep(explain->pool, entity_as_event(&nothing, explain->aggregate, 0, INT64_MIN));
  bool gone = bson_empty(&entity->payload);
  if (!layout_init(projection, explain->pool->arena, &layout, &unfit) ||
      !layout_map_key(&layout, entity, explain->pool->arena, key, &unfit)) {
    printf("%-*s%s: cannot be told: %s\n", LABEL, "row", projection->table, unfit.message);
    return true;
  }
  bool mapped = !gone && layout_map(&layout, entity, explain->pool->arena, &expected, &unfit);
  if (!rows_find(explain->sides->session, &layout, (const Value *const *)&key, 1,
                 explain->pool->arena, rows, ret_failure))
    return false;
  const Value *row = rows->len ? rows->pdata[0] : NULL;
  Sight sight = {.entity = !gone,
                 .row = row != NULL,
                 .equal = mapped && row && layout_equal(&layout, &expected, row),
                 .version = gone ? 0 : entity_version(&entity->payload),
                 .position = explain->position,
                 .pending = explain->pending};
  conclude(projection, &sight);
  if (!gone && !mapped)
    printf("  %-*s%s\n", LABEL, "unmappable", unfit.message);
  if (mapped || row)
    print_columns(&layout, mapped ? &expected : NULL, row);
  return true;
}

static bool explain_rows(Explain *explain, Failure *ret_failure) {
  const Mapping *mapping = explain->sides->config->mapping;
  for (unsigned i = 0; i < mapping_projection_count(mapping); i++) {
    const Projection *projection = mapping_projection(mapping, i);
    Event *entity = NULL;
    if (strlen(projection->aggregate_type) != explain->aggregate->type_length ||
        memcmp(projection->aggregate_type, explain->aggregate->type,
               explain->aggregate->type_length) != 0)
      continue;
    if (!projection->entities)
      printf("%-*s%s: has no \"entities\" to compare with\n", LABEL, "row", projection->table);
    else if (!read_entity(explain, projection, &entity, ret_failure) ||
             !explain_row(explain, projection, entity, ret_failure))
      return false;
  }
  return true;
}

static bool explain_all(Explain *explain, Failure *ret_failure) {
  return explain_position(explain, ret_failure) &&
         explain_events(explain, explain->sides->outbox, "outbox", false, ret_failure) &&
         explain_archive(explain, ret_failure) && explain_rows(explain, ret_failure);
}

static int explain_with(Sides *sides, const char *type, const char *id) {
  Aggregate aggregate;
  uint8_t bytes[16];
  bool found;
  Failure failure = {0};
  if (!find_aggregate(sides->config, sides->outbox, type, id, bytes, &aggregate, &found, &failure))
    return command_fail(&failure);
  if (!found) {
    printf("no entity and no event of %s %s\n", type, id);
    return EXIT_NO;
  }
  Pool pool = pool_new();
  Explain explain = {.sides = sides, .aggregate = &aggregate, .pool = &pool};
  bool good = explain_all(&explain, &failure);
  pool_free(&pool);
  if (!good)
    return command_fail(&failure);
  return EXIT_GOOD;
}

int command_explain(int argc, char **argv) {
  g_autoptr(Config) config = NULL;
  Failure failure = {0};
  Sides sides;
  int status;
  if (!command_begin(&argc, &argv, "TYPE ID - one aggregate on one screen",
                     "Shows its position, its events with states and reasons, its entity and its "
                     "rows, column by column, as they are at this moment. Exit status 1 when there "
                     "is no such aggregate.",
                     NULL, &config, &status))
    return status;
  if (argc != 3)
    return command_misuse("expected TYPE ID");
  if (!sides_open(config, &sides, &failure))
    return command_fail(&failure);
  status = explain_with(&sides, argv[1], argv[2]);
  sides_close(&sides);
  return status;
}
