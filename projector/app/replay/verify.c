/* verify.c - `projector archive verify`: whether the events alone give the state of each entity, so
 * that they could be the source (event sourcing).
 *
 * An entity and its event are written in one transaction. So if an entity is the same before and
 * after its events are read, these are all of its events, and none is newer. */
#include "projector/app/reconcile/report.h"
#include "projector/app/replay/history.h"
#include "projector/app/shared/command.h"
#include "projector/app/shared/progress.h"
#include "projector/domain/entity.h"
#include "projector/domain/rehydrate.h"
#include "projector/domain/retarget.h"
#include "projector/infra/mongo/entities.h"

#include <stdio.h>
#include <string.h>

enum {
  PAGE = 100, /* entities at a time */
  LOOKS = 6,  /* at an entity that keeps changing */
};

typedef struct Verify {
  const Config *config;
  const Projection *projection;
  Layout layout;
  Outbox *outbox;
  Archive *archive;
  bool as_json;
  int64_t counts[REHYDRATEINGS], gaps, skipped, busy, aggregates, unmappable;
} Verify;

/* --- output -------------------------------------------------------------------------------- */

static char *describe(const Rehydrated *rehydrated) {
  g_autoptr(GString) text = g_string_new(NULL);
  char id[ID_TEXT_SIZE];
  if (rehydrated->failure.class != FAILURE_NONE) {
    if (rehydrated->culprit) {
      id_text(&rehydrated->culprit->key.event_id, id);
      g_string_append_printf(text, "event %s: ", id);
    }
    g_string_append(text, rehydrated->failure.message);
  } else if (rehydrated->column) {
    g_string_append_printf(text, "%s: entity ", rehydrated->column->name);
    value_append_text(text, &rehydrated->expected);
    g_string_append(text, ", events ");
    value_append_text(text, &rehydrated->found);
  } else if (rehydrated->child) {
    g_string_append_printf(text, "%s: %u rows differ between the entity and the events",
                           rehydrated->child->table, rehydrated->child_rows);
  } else if (rehydrated->outcome == REHYDRATED_OTHERWISE) {
    g_string_append(
        text, rehydrated->absent   ? "the events make a row, and the entity does not match \"when\""
              : rehydrated->entity ? "there is an entity, but the events produce no row"
                                   : "the events produce a row, but there is no entity");
  }
  if (rehydrated->missing_count > 0)
    g_string_append_printf(text, "%sversion %lld is missing%s", text->len ? "; " : "",
                           (long long)rehydrated->missing,
                           rehydrated->missing_count > 1 ? ", and later ones" : "");
  if (rehydrated->skipped > 0)
    g_string_append_printf(text, "%s%lld skipped", text->len ? "; " : "",
                           (long long)rehydrated->skipped);
  return g_string_free(g_steal_pointer(&text), FALSE);
}

static void print_finding(const Verify *verify, const char *kind, const char *id,
                          const char *reason, int64_t missing) {
  if (verify->as_json) {
    g_autofree char *valid = g_utf8_make_valid(id, -1), *why = g_utf8_make_valid(reason, -1);
    json_t *line =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:I}", "finding", kind, "table",
                  verify->projection->table, "aggregate_type", verify->projection->aggregate_type,
                  "aggregate_id", valid, "reason", why, "missing_versions", (json_int_t)missing);
    report_print(line, true);
    json_decref(line);
    return;
  }
  printf("%-10s %s ", kind, verify->projection->aggregate_type);
  print_clean(stdout, id);
  printf("  ");
  print_clean(stdout, reason);
  putchar('\n');
}

static void count_and_print(Verify *verify, const Aggregate *aggregate,
                            const Rehydrated *rehydrated) {
  char id[ID_TEXT_SIZE];
  verify->counts[rehydrated->outcome]++;
  verify->gaps += rehydrated->missing_count > 0;
  verify->skipped += rehydrated->skipped;
  bool good = rehydrated->outcome == REHYDRATED || rehydrated->outcome == REHYDRATED_UNKNOWN;
  if (good && rehydrated->missing_count == 0)
    return;
  g_autofree char *reason = describe(rehydrated);
  id_text(&aggregate->id, id);
  print_finding(verify, good ? "gap" : rehydration_name(rehydrated->outcome), id, reason,
                rehydrated->missing_count);
}

/* Nothing is known of it, so the answer cannot be yes. */
static void print_changing(Verify *verify, const Aggregate *aggregate) {
  char id[ID_TEXT_SIZE];
  id_text(&aggregate->id, id);
  verify->busy++;
  print_finding(verify, "changing", id, "the entity changed during every check; verify it again",
                0);
}

/* An entity whose `_id` no event can name has no events. */
static void print_unmappable(Verify *verify, const bson_t *entity) {
  Failure failure;
  g_autofree char *id = entity_id_text(entity);
  entity_misfit(entity, &failure);
  verify->aggregates++;
  verify->unmappable++;
  print_finding(verify, "unmappable", id, failure.message, 0);
}

static void print_sums(const Verify *verify) {
  const int64_t *counts = verify->counts;
  if (verify->as_json) {
    json_t *line = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "sums", verify->projection->table,
        "aggregates", (json_int_t)verify->aggregates, "equal", (json_int_t)counts[REHYDRATED],
        "different", (json_int_t)counts[REHYDRATED_OTHERWISE], "broken",
        (json_int_t)counts[REHYDRATED_BROKEN], "unknown", (json_int_t)counts[REHYDRATED_UNKNOWN],
        "gaps", (json_int_t)verify->gaps, "skipped", (json_int_t)verify->skipped, "changing",
        (json_int_t)verify->busy, "unmappable", (json_int_t)verify->unmappable);
    report_print(line, true);
    json_decref(line);
    return;
  }
  printf("%s: %lld aggregates: %lld reproduced by their events alone, %lld different, %lld broken, "
         "%lld "
         "with a gap\n",
         verify->projection->table, (long long)verify->aggregates, (long long)counts[REHYDRATED],
         (long long)counts[REHYDRATED_OTHERWISE], (long long)counts[REHYDRATED_BROKEN],
         (long long)verify->gaps);
  if (verify->unmappable)
    printf("  %lld with an _id that cannot be an aggregate's id\n", (long long)verify->unmappable);
  if (counts[REHYDRATED_UNKNOWN])
    printf("  %lld with an sql statement, which only MySQL could run: replay, then reconcile\n",
           (long long)counts[REHYDRATED_UNKNOWN]);
  if (verify->skipped)
    printf("  skipped events left out: %lld\n", (long long)verify->skipped);
  if (verify->busy)
    printf("  %lld not verified, because they changed during every check\n",
           (long long)verify->busy);
}

/* --- one aggregate -------------------------------------------------------------------------- */

static int compare_events(gconstpointer a, gconstpointer b) {
  const Event *const *x = a, *const *y = b;
  return order_key_compare(&(*x)->key, &(*y)->key);
}

static void judge(Verify *verify, const Aggregate *aggregate, const History *history,
                  const bson_t *entity) {
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(GPtrArray) events = g_ptr_array_new();
  g_autoptr(Event) view = entity ? entity_as_event(entity, aggregate, entity_version(entity),
                                                   entity_time(entity, INT64_MIN))
                                 : NULL;
  g_ptr_array_extend(events, history->archived, NULL, NULL);
  g_ptr_array_extend(events, history->waiting, NULL, NULL);
  g_ptr_array_sort(events, compare_events);
  Rehydrated rehydrated = rehydrate(verify->config->mapping, &verify->layout,
                                    (Event **)(void *)events->pdata, events->len, view, arena);
  count_and_print(verify, aggregate, &rehydrated);
}

static bool same_entity(const bson_t *a, const bson_t *b) {
  return a && b ? bson_equal(a, b) : a == b;
}

/* Takes over `entity` (NULL: none). */
static bool verify_aggregate(Verify *verify, const Aggregate *aggregate, bson_t *entity,
                             Failure *ret_failure) {
  bool good = true, settled = false;
  verify->aggregates++;
  for (int look = 0; good && !settled && look < LOOKS; look++) {
    bson_t *again = NULL;
    g_autoptr(History) history =
        history_read(verify->outbox, verify->archive, aggregate, ret_failure);
    good = history && outbox_read_entity(verify->outbox, verify->projection->entities,
                                         &aggregate->id, &again, ret_failure);
    settled = good && same_entity(entity, again);
    if (settled)
      judge(verify, aggregate, history, entity);
    if (entity)
      bson_destroy(entity);
    entity = again;
  }
  if (entity)
    bson_destroy(entity);
  if (good && !settled)
    print_changing(verify, aggregate);
  return good;
}

static Aggregate aggregate_of(const Verify *verify, const Id *id) {
  const char *type = verify->projection->aggregate_type;
  return (Aggregate){.type = type, .type_length = (uint32_t)strlen(type), .id = *id};
}

/* --- all of them ---------------------------------------------------------------------------- */

static bool verify_entities(Verify *verify, Entities *entities, Failure *ret_failure) {
  g_autoptr(GPtrArray) page = g_ptr_array_new_with_free_func((GDestroyNotify)bson_destroy);
  bson_t *after = NULL;
  Progress progress;
  int64_t total;
  bool good = entities_estimate(entities, &total, ret_failure);
  progress_begin(&progress, verify->projection->table, 0, good ? total : 0);
  for (bool end = false; good && !end;) {
    g_ptr_array_set_size(page, 0);
    good = entities_page(entities, after, PAGE, page, ret_failure);
    for (guint i = 0; good && i < page->len; i++) {
      Id id;
      if (entity_id(page->pdata[i], &id)) {
        Aggregate aggregate = aggregate_of(verify, &id);
        good = verify_aggregate(verify, &aggregate, bson_copy(page->pdata[i]), ret_failure);
      } else {
        print_unmappable(verify, page->pdata[i]);
      }
      progress_show(&progress, verify->aggregates);
    }
    end = page->len == 0;
    if (after)
      bson_destroy(after);
    after = end ? NULL : entity_mark(page->pdata[page->len - 1]);
  }
  progress_end(&progress);
  if (after)
    bson_destroy(after);
  return good;
}

/* Checks aggregates that have events but no entity any more. */
static bool verify_gone(Verify *verify, Failure *ret_failure) {
  g_autoptr(EventCursor) cursor =
      archive_list_aggregates(verify->archive, verify->projection->aggregate_type);
  g_autoptr(Event) last = NULL;
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = event_decode(document);
    bson_t *entity = NULL;
    if (!event_has_aggregate(event) ||
        (last && aggregate_equal(&last->aggregate, &event->aggregate)))
      continue;
    if (!outbox_read_entity(verify->outbox, verify->projection->entities, &event->aggregate.id,
                            &entity, ret_failure))
      return false;
    if (entity)
      bson_destroy(entity);
    else if (!verify_aggregate(verify, &event->aggregate, NULL, ret_failure))
      return false;
    g_clear_pointer(&last, event_free);
    last = g_steal_pointer(&event);
  }
  return ret_failure->class == FAILURE_NONE;
}

static bool verify_projection(Verify *verify, MongoStore *store, Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  if (!projection_owns_rows(verify->projection))
    return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                       "projections[%u]: the key of %s is not $aggregate_id alone, so its rows are "
                       "not those of one aggregate",
                       verify->projection->index, verify->projection->table);
  g_autoptr(Entities) entities = entities_open(store, verify->projection->entities, NULL);
  if (!layout_init(verify->projection, arena, &verify->layout, ret_failure) ||
      !verify_entities(verify, entities, ret_failure) || !verify_gone(verify, ret_failure))
    return false;
  print_sums(verify);
  return true;
}

static bool is_good(const Verify *verify) {
  return verify->counts[REHYDRATED_OTHERWISE] == 0 && verify->counts[REHYDRATED_BROKEN] == 0 &&
         verify->gaps == 0 && verify->unmappable == 0 && verify->busy == 0;
}

static int verify_all(const Config *config, const GPtrArray *projections, bool as_json) {
  Failure failure = {0};
  bool empty, equal = true;
  g_autoptr(MongoStore) store = mongo_store_open_single(&config->mongodb, &failure);
  g_autoptr(Archive) archive = store ? archive_open(&config->mongodb, &failure) : NULL;
  if (!archive || !archive_is_empty(archive, &empty, &failure))
    return command_fail(&failure);
  if (empty && !config->mongodb.archive) {
    failure_set(&failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                "mongodb.retain is \"delete\" and there is no %s_archive: set \"archive\"",
                config->mongodb.outbox);
    return command_fail(&failure);
  }
  g_autoptr(Outbox) outbox = outbox_new_for_command(store, "archive");
  for (guint i = 0; i < projections->len; i++) {
    Verify verify = {.config = config,
                     .projection = projections->pdata[i],
                     .outbox = outbox,
                     .archive = archive,
                     .as_json = as_json};
    if (!verify_projection(&verify, store, &failure))
      return command_fail(&failure);
    equal &= is_good(&verify);
  }
  return equal ? EXIT_GOOD : EXIT_NO;
}

int command_archive(int argc, char **argv) {
  g_autoptr(Config) config = NULL;
  gboolean as_json = FALSE;
  int status;
  Failure failure = {0};
  const GOptionEntry options[] = {
      {"json", 0, 0, G_OPTION_ARG_NONE, &as_json, "One JSON object per line", NULL},
      G_OPTION_ENTRY_NULL};
  if (!command_begin(
          &argc, &argv,
          &(CommandHelp){
              "verify [TABLE] - whether events alone reproduce the entities",
              "Folds the archived events of each aggregate, and those that wait in the "
              "outbox, with the mapping and compares the result with the entity. Names the "
              "aggregates that differ or kept changing, and missing versions. Exit status 1 if "
              "there are any.",
              options},
          &config, &status))
    return status;
  if (argc < 2 || argc > 3 || strcmp(argv[1], "verify") != 0)
    return command_misuse("expected verify [TABLE]");
  g_autoptr(GPtrArray) projections = g_ptr_array_new();
  if (!command_projections(config, argc > 2 ? argv[2] : NULL, "compare with", projections,
                           &failure))
    return command_fail(&failure);
  return verify_all(config, projections, as_json);
}
