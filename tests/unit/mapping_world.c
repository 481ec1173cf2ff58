/* mapping_world.c - draws mappings and events, and folds the events one by one. */
#include "tests/unit/mapping_world.h"

#include <stdlib.h>
#include <string.h>

enum { DRAWS = 60, HOME_CONDITIONS = 3 };

static const char *const names[] = {"Placed",  "Changed", "Set",   "Raised",
                                    "Lowered", "Removed", "Marked"};
static const char *const homes[] = {"web", "shop", "phone"};

/* The first ones look at the home alone, so an entity can be asked too. */
static const char *const conditions[] = {
    "{'path': 'home', 'in': ['web', 'shop']}",
    "{'not': {'path': 'home', 'is': 'phone'}}",
    "{'path': ['nothing', 'home'], 'is': 'web'}",
    "{'path': 'flag', 'is': true}",
    "{'all': [{'path': 'flag', 'exists': true}, {'path': 'flag', 'is': true}]}",
    "{'any': [{'path': 'flag', 'exists': false}, {'path': 'home', 'is': 'web'}]}",
    "{'path': 'by', 'in': [1, 2.0, {'$numberDecimal': '3.00'}]}",
};

/* 1: it holds; 0: not; -1: it misses a path. */
static int holds(int condition, const Told *told) {
  int home = told->home == NO_HOME ? -1 : 1;
  switch (condition) {
  case 0: return home < 0 ? -1 : told->home == WEB || told->home == SHOP;
  case 1: return home < 0 ? -1 : told->home != PHONE;
  case 2: return home < 0 ? -1 : told->home == WEB;
  case 3: return told->flag == NONE ? -1 : told->flag;
  case 4: return told->flag == NONE ? 0 : told->flag;
  case 5: return told->flag == NONE ? 1 : home < 0 ? -1 : told->home == WEB;
  case 6: return told->by <= 3;
  default: return 1;
  }
}

unsigned world_random(World *world, unsigned limit) {
  return (unsigned)g_rand_int_range(world->random, 0, (gint32)limit);
}

static bool chance(World *world, unsigned percent) {
  return world_random(world, 100) < percent;
}

const char *told_name(const Told *told) {
  return names[told->kind];
}

/* --- mappings -------------------------------------------------------------------------------- */

static void draw_features(World *world) {
  Features *has = &world->has;
  has->always = chance(world, 50);
  has->total_default = chance(world, 50);
  has->note_default = chance(world, 50);
  has->lines_default = chance(world, 50);
  has->soft = !world->any_arrival || chance(world, 50);
  has->new_lines = chance(world, 50);
  has->constant_delta = chance(world, 50);
  has->projection_when = chance(world, 50) ? (int)world_random(world, HOME_CONDITIONS) : -1;
  for (Kind kind = 0; kind < KINDS; kind++)
    has->rule_when[kind] = chance(world, 25) ? (int)world_random(world, COUNT_OF(conditions)) : -1;
  has->flow_when = chance(world, 50) ? (int)world_random(world, COUNT_OF(conditions)) : -1;
}

static void append_when(GString *json, int condition) {
  if (condition >= 0)
    g_string_append_printf(json, ", 'when': %s", conditions[condition]);
}

static void append_rule(GString *json, const World *world, Kind kind, const char *rule) {
  g_string_append_printf(json, "%s'%s': {%s", kind ? ", " : "", names[kind], rule);
  if (!strstr(rule, "ignore"))
    append_when(json, world->has.rule_when[kind]);
  g_string_append_c(json, '}');
}

static void append_orders(GString *json, const World *world) {
  const Features *has = &world->has;
  g_string_append_printf(
      json,
      "{'aggregate_type': 'order', 'table': 'orders', 'entities': 'orders',"
      " 'key': {'id': {'from': '$aggregate_id', 'type': 'varchar(9)'}}, 'columns': {"
      "'total': {'from': ['total', 'amount'], 'type': 'int'%s},"
      " 'note': {'from': '/a.b/n', 'type': 'int', 'null': true%s},"
      " 'source': {'value': 3, 'type': 'int'},"
      " 'gone': {'from': 'gone', 'type': 'int', 'null': true},"
      " 'stamp': {'from': 'at', 'type': 'int'}},"
      " 'children': [{'table': 'line', 'from': ['lines', 'old_lines']%s,"
      "  'key': {'no': {'from': ['$item.no', '$item.nr'], 'type': 'int'}},"
      "  'columns': {'qty': {'from': '$item.qty', 'type': 'int', 'default': 1},"
      "   'at': {'from': '$index', 'type': 'int'},"
      "   'mark': {'from': ['$item.m', 'batch'], 'type': 'int', 'null': true}}}]%s",
      has->total_default ? ", 'default': 7" : "", has->note_default ? ", 'default': 5" : "",
      has->lines_default ? ", 'default': []" : "", has->always ? ", 'always': ['stamp']" : "");
  append_when(json, has->projection_when);
  g_string_append(json, ", 'events': {");
  append_rule(json, world, PLACED, "'op': 'upsert'");
  append_rule(json, world, CHANGED,
              has->new_lines ? "'op': 'update', 'columns': {'line': 'new_lines'}"
                             : "'op': 'update', 'columns': ['line']");
  append_rule(json, world, SET,
              "'op': 'update', 'columns': {'total': ['total', 'amount'],"
              " 'note': {'from': '/a.b/n', 'default': 9}}");
  append_rule(json, world, RAISED,
              has->constant_delta ? "'op': 'add', 'columns': {'total': {'value': 2}}"
                                  : "'op': 'add', 'columns': {'total': 'by'}");
  append_rule(json, world, LOWERED, "'op': 'subtract', 'columns': {'total': 'by'}");
  append_rule(json, world, REMOVED, "'op': 'delete'");
  append_rule(json, world, MARKED,
              has->soft ? "'op': 'delete', 'set': {'gone': 'at'}" : "'op': 'ignore'");
  g_string_append(json, "}}");
}

static void append_flow(GString *json, const World *world) {
  g_string_append(json,
                  ", {'aggregate_type': 'order', 'table': 'flow', 'entities': 'orders',"
                  " 'key': {'id': {'from': '$aggregate_id', 'type': 'varchar(9)'}},"
                  " 'columns': {'moves': {'from': 'moves', 'type': 'int', 'default': 0},"
                  "  'sum': {'from': 'sum', 'type': 'int', 'default': 0}},"
                  " 'events': {'Placed': {'op': 'upsert'}, 'Removed': {'op': 'delete'},"
                  "  'Lowered': {'op': 'subtract', 'columns': {'sum': 'by'}},"
                  "  'Raised': {'op': 'add', 'columns': {'sum': 'by', 'moves': {'value': 1}}");
  append_when(json, world->has.flow_when);
  g_string_append(json, "}}}");
}

static void make_mapping(World *world) {
  g_autoptr(GString) json = g_string_new("{'projections': [");
  Failure failure = {0};
  append_orders(json, world);
  append_flow(json, world);
  g_string_append(json, "]}");
  world->mapping_text = g_strdup(json->str);
  world->mapping = mapping_from(json->str, &failure);
  if (!world->mapping)
    fail_msg("the world's own mapping is wrong: %s: %s", failure.message, json->str);
}

/* --- the plain fold -------------------------------------------------------------------------- */

static int compare_lines(const void *a, const void *b) {
  return ((const Line *)a)->at - ((const Line *)b)->at;
}

void lines_sort(Shown *shown) {
  qsort(shown->lines, shown->line_count, sizeof *shown->lines, compare_lines);
}

void world_clear(Shown shown[static ORDERS]) {
  memset(shown, 0, ORDERS * sizeof *shown);
}

/* False: the value is missing, or null. A rule that names its own paths has its own default. */
static bool take_total(const Features *has, const Told *told, int *ret_total) {
  bool otherwise = told->kind == PLACED && has->total_default;
  *ret_total = told->total_at == NOWHERE ? 7 : told->total;
  return told->total_at == NEW_NAME || told->total_at == OLD_NAME ||
         (told->total_at == NOWHERE && otherwise);
}

static int take_note(const Told *told, int otherwise) {
  return told->note_at == NOWHERE ? otherwise : told->note_at == NULL_THERE ? NONE : told->note;
}

static bool take_lines(const Features *has, const Told *told, Shown *shown) {
  bool renamed = told->kind == CHANGED && has->new_lines;
  shown->line_count = 0;
  if (told->lines_at == NULL_THERE)
    return false;
  if (told->lines_at == NOWHERE)
    return has->lines_default && !renamed;
  for (unsigned i = 0; i < told->line_count; i++) {
    const Line *line = &told->lines[i];
    for (unsigned k = 0; k < i; k++)
      if (told->lines[k].no == line->no)
        return false;
    shown->lines[shown->line_count++] = (Line){line->no, line->qty == NONE ? 1 : line->qty, (int)i,
                                               line->mark == NONE ? told->batch : line->mark};
  }
  return true;
}

static bool place(const Features *has, const Told *told, bool all_homes, Shown *shown) {
  int wanted = all_homes ? 1 : holds(has->projection_when, told);
  if (wanted < 0)
    return false;
  shown->there = wanted == 1;
  if (!shown->there) {
    shown->line_count = 0;
    return true;
  }
  shown->cells[NOTE] = take_note(told, has->note_default ? 5 : NONE);
  shown->cells[SOURCE] = 3;
  shown->cells[GONE] = NONE;
  shown->cells[STAMP] = told->at;
  return take_total(has, told, &shown->cells[TOTAL]) && take_lines(has, told, shown);
}

static bool change_orders(const Features *has, const Told *told, bool all_homes, Shown *shown) {
  bool good = shown->there, marked = good && shown->cells[GONE] != NONE;
  switch (told->kind) {
  case PLACED: return place(has, told, all_homes, shown);
  case REMOVED:
    shown->there = false;
    shown->line_count = 0;
    return true;
  case MARKED:
    if (!shown->there)
      return true;
    shown->cells[GONE] = told->at;
    break;
  case CHANGED: good = good && take_lines(has, told, shown); break;
  case SET:
    good = good && take_total(has, told, &shown->cells[TOTAL]);
    shown->cells[NOTE] = take_note(told, 9);
    break;
  case RAISED:
    good = good && !marked;
    shown->cells[TOTAL] += has->constant_delta ? 2 : told->by;
    break;
  case LOWERED:
    good = good && !marked;
    shown->cells[TOTAL] -= told->by;
    break;
  case KINDS: break;
  }
  if (has->always)
    shown->cells[STAMP] = told->at;
  return good;
}

static bool change_flow(const Told *told, Shown *shown) {
  switch (told->kind) {
  case PLACED:
    shown->flow_there = true;
    shown->flow[MOVES] = shown->flow[SUM] = 0;
    return true;
  case REMOVED: shown->flow_there = false; return true;
  case RAISED:
    shown->flow[MOVES]++;
    shown->flow[SUM] += told->by;
    return shown->flow_there;
  case LOWERED: shown->flow[SUM] -= told->by; return shown->flow_there;
  default: return true;
  }
}

/* `all_homes`: as if the projection had no condition, which gives the entity. */
static Outcome apply(const Features *has, const Told *told, bool all_homes, Shown *shown) {
  Shown after = *shown;
  int orders = holds(has->rule_when[told->kind], told);
  int flow = told->kind == RAISED
                 ? holds(has->flow_when, told)
                 : told->kind == PLACED || told->kind == LOWERED || told->kind == REMOVED;
  if (told->kind == MARKED && !has->soft)
    orders = 0;
  if (orders < 0 || flow < 0 || (orders && !change_orders(has, told, all_homes, &after)) ||
      (flow && !change_flow(told, &after)))
    return OUTCOME_FAILED;
  *shown = after;
  return orders || flow ? OUTCOME_APPLIED : OUTCOME_IGNORED;
}

void world_fold(const World *world, Shown shown[static ORDERS], Outcome outcomes[static TOLD_MAX]) {
  bool blocked[ORDERS] = {false};
  world_clear(shown);
  for (unsigned i = 0; i < world->told_count; i++) {
    const Told *told = &world->told[i];
    outcomes[i] =
        blocked[told->order] ? OUTCOME_WAITS : apply(&world->has, told, false, &shown[told->order]);
    blocked[told->order] |= outcomes[i] == OUTCOME_FAILED;
  }
}

/* --- events ---------------------------------------------------------------------------------- */

static void draw_lines(World *world, Told *told) {
  told->line_count = world_random(world, LINES_MAX);
  for (unsigned i = 0; i < told->line_count; i++)
    told->lines[i] = (Line){.no = (int)(i * 3 + world_random(world, 3)),
                            .qty = chance(world, 30) ? NONE : (int)world_random(world, 4),
                            .mark = chance(world, 50) ? NONE : (int)world_random(world, 3)};
  if (!world->any_arrival && told->line_count > 1 && chance(world, 3))
    told->lines[1].no = told->lines[0].no;
  for (unsigned i = told->line_count; i > 1; i--) {
    unsigned other = world_random(world, i);
    Line kept = told->lines[i - 1];
    told->lines[i - 1] = told->lines[other];
    told->lines[other] = kept;
  }
}

static void draw_told(World *world, Told *told, int at) {
  bool wild = !world->any_arrival;
  *told = (Told){.order = world_random(world, ORDERS),
                 .kind = (Kind)world_random(world, KINDS),
                 .home = (Home)world_random(world, 3),
                 .flag = (int)world_random(world, 2),
                 .total = (int)world_random(world, 50),
                 .note = (int)world_random(world, 50),
                 .by = 1 + (int)world_random(world, 6),
                 .at = at,
                 .total_at = chance(world, 60) ? NEW_NAME : OLD_NAME,
                 .note_at = chance(world, 60)   ? NEW_NAME
                            : chance(world, 50) ? NOWHERE
                                                : NULL_THERE,
                 .lines_at = chance(world, 60) ? NEW_NAME : OLD_NAME,
                 .batch = chance(world, 50) ? NONE : (int)world_random(world, 5)};
  if (chance(world, 25))
    told->kind = PLACED;
  if (told->kind == CHANGED && world->has.new_lines)
    told->lines_at = NEW_NAME;
  if (chance(world, 10))
    told->total_at = NOWHERE;
  if (chance(world, 10))
    told->lines_at = NOWHERE;
  if (wild && chance(world, 2))
    told->total_at = NULL_THERE;
  if (wild && chance(world, 2))
    told->lines_at = NULL_THERE;
  if (wild && chance(world, 4))
    told->home = NO_HOME;
  if (wild && chance(world, 4))
    told->flag = NONE;
  draw_lines(world, told);
}

/* Deltas commute with each other, and with nothing else: such an order has one state, and then
 * deltas, with lines of their own. Other orders have no deltas. */
static bool suits(const Told *told, const Shown *entity, const Features *has) {
  bool delta = told->kind == RAISED || told->kind == LOWERED;
  if (told->kind == (has->soft ? REMOVED : MARKED))
    return false;
  if (told->order % 2)
    return !delta;
  return delta || told->kind == CHANGED || (told->kind == PLACED && !entity->flow_there);
}

static bool draw_good(World *world, Told *told, int at, Shown *shown, Shown *entities) {
  for (int draws = 0; draws < DRAWS; draws++) {
    draw_told(world, told, at);
    Shown row = shown[told->order], entity = entities[told->order];
    if (!suits(told, &entity, &world->has) ||
        apply(&world->has, told, false, &row) == OUTCOME_FAILED ||
        apply(&world->has, told, true, &entity) == OUTCOME_FAILED)
      continue;
    if (told->order % 2 == 0 && told->kind == PLACED && !row.there)
      continue; /* its deltas would find no row */
    shown[told->order] = row;
    entities[told->order] = entity;
    return true;
  }
  return false;
}

static void append_items(bson_t *payload, const char *name, const Line *lines, unsigned count,
                         bool old_names) {
  bson_t items = BSON_INITIALIZER, item;
  for (unsigned i = 0; i < count; i++) {
    char key[12];
    g_snprintf(key, sizeof key, "%u", i);
    bson_append_document_begin(&items, key, -1, &item);
    bson_append_int32(&item, old_names && i % 2 ? "nr" : "no", 2, lines[i].no);
    if (lines[i].qty != NONE)
      BSON_APPEND_INT32(&item, "qty", lines[i].qty);
    if (lines[i].mark != NONE)
      BSON_APPEND_INT32(&item, "m", lines[i].mark);
    bson_append_document_end(&items, &item);
  }
  bson_append_array(payload, name, -1, &items);
  bson_destroy(&items);
}

static void append_note(bson_t *payload, Place place, int note) {
  bson_t inner;
  if (place == NOWHERE)
    return;
  bson_append_document_begin(payload, "a.b", 3, &inner);
  if (place == NULL_THERE)
    BSON_APPEND_NULL(&inner, "n");
  else
    BSON_APPEND_INT32(&inner, "n", note);
  bson_append_document_end(payload, &inner);
}

static void append_payload(const World *world, const Told *told, bson_t *payload) {
  bool renamed = told->kind == CHANGED && world->has.new_lines;
  if (told->home != NO_HOME)
    BSON_APPEND_UTF8(payload, "home", homes[told->home]);
  if (told->flag != NONE)
    BSON_APPEND_BOOL(payload, "flag", told->flag == 1);
  if (told->total_at == NULL_THERE)
    BSON_APPEND_NULL(payload, "total");
  else if (told->total_at != NOWHERE)
    BSON_APPEND_INT32(payload, told->total_at == NEW_NAME ? "total" : "amount", told->total);
  append_note(payload, told->note_at, told->note);
  BSON_APPEND_INT32(payload, "by", told->by);
  BSON_APPEND_INT32(payload, "at", told->at);
  if (told->batch != NONE)
    BSON_APPEND_INT32(payload, "batch", told->batch);
  if (told->lines_at == NULL_THERE)
    bson_append_null(payload, renamed ? "new_lines" : "lines", -1);
  else if (told->lines_at != NOWHERE)
    append_items(payload,
                 renamed                      ? "new_lines"
                 : told->lines_at == NEW_NAME ? "lines"
                                              : "old_lines",
                 told->lines, told->line_count, true);
}

static void encode(const World *world, Told *told, unsigned index) {
  bson_t document = BSON_INITIALIZER, payload;
  char order[8], id[12];
  g_snprintf(order, sizeof order, "o%u", told->order);
  g_snprintf(id, sizeof id, "e%08u", index);
  BSON_APPEND_UTF8(&document, "_id", id);
  BSON_APPEND_UTF8(&document, "aggregate_type", "order");
  BSON_APPEND_UTF8(&document, "aggregate_id", order);
  BSON_APPEND_UTF8(&document, "event_type", names[told->kind]);
  BSON_APPEND_DATE_TIME(&document, "occurred_at", 1000 + (int64_t)index);
  if (told->version)
    BSON_APPEND_INT64(&document, "version", told->version);
  BSON_APPEND_DOCUMENT_BEGIN(&document, "payload", &payload);
  append_payload(world, told, &payload);
  bson_append_document_end(&document, &payload);
  told->event = event_decode(&document);
  bson_destroy(&document);
}

static void make_events(World *world) {
  Shown shown[ORDERS], entities[ORDERS];
  int64_t versions[ORDERS] = {0};
  unsigned most = 1 + world_random(world, TOLD_MAX);
  world_clear(shown);
  world_clear(entities);
  while (world->told_count < most) {
    unsigned index = world->told_count;
    Told *told = &world->told[index];
    if (!world->any_arrival)
      draw_told(world, told, (int)index);
    else if (!draw_good(world, told, (int)index, shown, entities))
      return;
    if (world->any_arrival)
      told->version = ++versions[told->order];
    encode(world, told, index);
    world->told_count++;
  }
}

/* --- the writer ------------------------------------------------------------------------------ */

void world_write(World *world, unsigned index) {
  Told *told = &world->told[index];
  told->written = true;
  if (apply(&world->has, told, true, &world->entities[told->order]) == OUTCOME_FAILED)
    fail_msg("PROPERTY_SEED=%u: the writer's own event %u fails", world->seed, index);
  if (told->kind == PLACED && holds(world->has.rule_when[PLACED], told) == 1)
    world->homes[told->order] = told->home;
  world->newest[told->order] = told->version;
}

bson_t *world_entity(const World *world, unsigned order) {
  const Shown *entity = &world->entities[order];
  if (!entity->flow_there)
    return NULL;
  bson_t *document = bson_new();
  char id[8];
  g_snprintf(id, sizeof id, "o%u", order);
  BSON_APPEND_UTF8(document, "_id", id);
  BSON_APPEND_INT64(document, "version", world->newest[order]);
  BSON_APPEND_UTF8(document, "home", homes[world->homes[order]]);
  BSON_APPEND_INT32(document, "moves", entity->flow[MOVES]);
  BSON_APPEND_INT32(document, "sum", entity->flow[SUM]);
  BSON_APPEND_INT32(document, "total", entity->cells[TOTAL]);
  append_note(document, entity->cells[NOTE] == NONE ? NULL_THERE : NEW_NAME, entity->cells[NOTE]);
  BSON_APPEND_INT32(document, "at", entity->cells[STAMP]);
  if (entity->cells[GONE] != NONE)
    BSON_APPEND_INT32(document, "gone", entity->cells[GONE]);
  append_items(document, "lines", entity->lines, entity->line_count, false);
  return document;
}

/* --- the world ------------------------------------------------------------------------------- */

World *world_new(guint32 seed, bool any_arrival) {
  World *world = g_new0(World, 1);
  world->seed = seed;
  world->any_arrival = any_arrival;
  world->random = g_rand_new_with_seed(seed);
  draw_features(world);
  if (any_arrival) /* a table of the two has the row whenever the other has it */
    world->has.rule_when[PLACED] = world->has.rule_when[REMOVED] = -1;
  if (any_arrival && world->has.always) /* a late delta sets no `always` column, even if the newer
                                           events were ignored */
    world->has.rule_when[RAISED] = world->has.rule_when[LOWERED] = -1;
  make_mapping(world);
  make_events(world);
  return world;
}

void world_free(World *world) {
  if (!world)
    return;
  for (unsigned i = 0; i < world->told_count; i++)
    event_free(world->told[i].event);
  mapping_free(world->mapping);
  g_free(world->mapping_text);
  g_rand_free(world->random);
  g_free(world);
}

static void append_cell(GString *text, int cell) {
  if (cell == NONE)
    g_string_append(text, " null");
  else
    g_string_append_printf(text, " %d", cell);
}

char *shown_text(const Shown *shown) {
  GString *text = g_string_new(shown->there ? "row" : "no row");
  for (unsigned i = 0; shown->there && i < CELLS; i++)
    append_cell(text, shown->cells[i]);
  g_string_append(text, "; flow");
  for (unsigned i = 0; shown->flow_there && i < FLOWS; i++)
    append_cell(text, shown->flow[i]);
  for (unsigned i = 0; i < shown->line_count; i++) {
    const Line *line = &shown->lines[i];
    g_string_append_printf(text, "; line %d:", line->no);
    append_cell(text, line->qty);
    append_cell(text, line->at);
    append_cell(text, line->mark);
  }
  return g_string_free(text, FALSE);
}
