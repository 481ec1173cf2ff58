/* source.c - reads sources from the mapping file, and finds their values in events. */
#include "projector/domain/source.h"

#include "projector/domain/json.h"
#include "projector/domain/json_document.h"

#include <string.h>

static const struct {
  const char *name, *field;
} event_fields[] = {
    {"$event_id", "_id"},          {"$aggregate_id", "aggregate_id"},
    {"$version", "version"},       {"$occurred_at", "occurred_at"},
    {"$event_type", "event_type"},
};

static const char whole_payload[] = "$payload";

/* --- reading one text ----------------------------------------------------------------------- */

static bool is_path(const char *text, size_t length) {
  if (length == 0 || text[0] == '.' || text[length - 1] == '.')
    return false;
  for (size_t i = 0; i < length; i++)
    if (text[i] == '$' || (text[i] == '.' && text[i + 1] == '.'))
      return false;
  return true;
}

/* Undoes ~1 and ~0 in place (RFC 6901, section 4). Returns false for an invalid ~ sequence. */
static bool unescape(char *step) {
  char *to = step;
  for (const char *at = step; *at; at++) {
    if (*at != '~') {
      *to++ = *at;
      continue;
    }
    at++;
    if (*at != '0' && *at != '1')
      return false;
    *to++ = *at == '0' ? '~' : '/';
  }
  *to = '\0';
  return true;
}

static bool parse_pointer(const char *text, Arena *arena, Source *source) {
  g_auto(GStrv) parts = g_strsplit(text, "/", -1); /* the first one, before the slash, is empty */
  guint count = g_strv_length(parts);
  const char **steps = arena_alloc(arena, count, sizeof *steps);
  for (guint i = 1; i < count; i++) {
    if (!unescape(parts[i]))
      return false;
    steps[i - 1] = arena_copy(arena, parts[i], strlen(parts[i]));
  }
  source->steps = steps;
  source->in_payload = true;
  return true;
}

/* A source in an item of an array: the item, a path into it, or its index. */
static void parse_item(Source *source) {
  static const char index[] = "$index", item[] = "$item", inside[] = "$item.";
  const char *path = source->text + strlen(inside);
  source->in_item = !strcmp(source->text, index) || !strcmp(source->text, item) ||
                    (g_str_has_prefix(source->text, inside) && is_path(path, strlen(path)));
  source->in_payload = source->in_item;
  if (source->in_item)
    source->path = source->text + 1;
}

static void parse_event_field(Source *source) {
  static const char metadata[] = "$metadata.";
  if (!strcmp(source->text, whole_payload)) {
    source->path = "payload";
    source->in_payload = true;
  } else if (g_str_has_prefix(source->text, metadata) &&
             is_path(source->text + strlen(metadata), strlen(source->text + strlen(metadata)))) {
    source->path = source->text + 1;
  }
  for (size_t i = 0; i < G_N_ELEMENTS(event_fields); i++)
    if (!strcmp(source->text, event_fields[i].name))
      source->path = event_fields[i].field;
}

bool source_parse(const char *text, size_t length, Arena *arena, Source *ret_source) {
  Source source = {.text = arena_copy(arena, text, length)};
  if (strlen(source.text) != length)
    return false;
  if (length > 0 && text[0] == '$') {
    parse_event_field(&source);
    if (!source.path)
      parse_item(&source);
  } else if (length > 0 && text[0] == '/') {
    if (!parse_pointer(source.text, arena, &source))
      return false;
  } else if (is_path(text, length)) {
    source.in_payload = true;
    source.path = source.text;
  }
  if (!source.path && !source.steps)
    return false;
  source.dotted = source.path && strchr(source.path, '.') != NULL;
  *ret_source = source;
  return true;
}

/* --- constants ------------------------------------------------------------------------------ */

bool constant_from_json(const json_t *json, const char *path, Arena *arena,
                        const uint8_t **ret_bytes, uint32_t *ret_length, Failure *ret_failure) {
  const char *dot = strrchr(path, '.'); /* the document's only key is the last of the path */
  const char *key = dot ? dot + 1 : path;
  g_autofree char *outer = g_strndup(path, dot ? (gsize)(dot - path) : 0);
  json_t *wrapped = json_pack("{s:O}", key, (json_t *)json);
  size_t size = json_dumpb(wrapped, NULL, 0, JSON_COMPACT);
  char *text = arena_alloc(arena, size + 1, 1);
  json_dumpb(wrapped, text, size, JSON_COMPACT);
  json_decref(wrapped);
  bson_t *document = json_document_read(text, size, outer, ret_failure);
  if (!document)
    return false;
  *ret_length = document->len;
  *ret_bytes = (const uint8_t *)arena_copy(arena, bson_get_data(document), document->len);
  bson_destroy(document);
  return true;
}

bool constant_find(const uint8_t *bytes, uint32_t length, bson_iter_t *ret_iter) {
  return bson_iter_init_from_data(ret_iter, bytes, length) && bson_iter_next(ret_iter);
}

static bool constant_source(const json_t *json, const char *path, const char *text, Arena *arena,
                            Source *ret_source, Failure *ret_failure) {
  *ret_source = (Source){.text = text};
  return constant_from_json(json, path, arena, &ret_source->constant, &ret_source->constant_length,
                            ret_failure);
}

/* --- reading JSON --------------------------------------------------------------------------- */

/* The last path of a chain, which may be written only while it is built. */
static Source *last_of(Source *source) {
  while (source->otherwise)
    source = (Source *)source->otherwise;
  return source;
}

static bool parse_text(const json_t *json, const char *path, Arena *arena, Source *ret_source,
                       Failure *ret_failure) {
  return (json_is_string(json) &&
          source_parse(json_string_value(json), json_string_length(json), arena, ret_source)) ||
         json_complain(path, A_SOURCE, json, ret_failure);
}

bool source_check_event(const Source *source, const char *path, Failure *ret_failure) {
  for (; source; source = source->otherwise)
    if (source->in_item)
      return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                         "%s: expected " A_SOURCE ", found %s, which only a child table's columns "
                         "have",
                         path, source->text);
  return true;
}

bool source_from_json(const json_t *json, const char *path, Arena *arena, Source *ret_source,
                      Failure *ret_failure) {
  if (!json_is_array(json))
    return parse_text(json, path, arena, ret_source, ret_failure);
  if (json_array_size(json) == 0)
    return json_complain(path, "a list of at least one path", json, ret_failure);
  Source first = {0};
  size_t i;
  const json_t *member;
  json_array_foreach(json, i, member) {
    g_autofree char *full = g_strdup_printf("%s[%zu]", path, i);
    Source *place = i == 0 ? &first : arena_alloc(arena, 1, sizeof *place);
    if (!parse_text(member, full, arena, place, ret_failure))
      return false;
    if (i > 0)
      last_of(&first)->otherwise = place;
  }
  *ret_source = first;
  return true;
}

bool source_from_members(const json_t *object, const char *path, Arena *arena, Source *ret_source,
                         Failure *ret_failure) {
  const json_t *from = json_object_get(object, "from"), *value = json_object_get(object, "value"),
               *otherwise = json_object_get(object, "default");
  if (value && (from || otherwise))
    return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                       "%s: expected \"value\" alone, or \"from\" with or without \"default\"",
                       path);
  g_autofree char *from_path = json_path(path, "from"), *value_path = json_path(path, "value"),
                  *default_path = json_path(path, "default");
  if (value)
    return constant_source(value, value_path, "value", arena, ret_source, ret_failure);
  Source source = {0};
  if (!source_from_json(from, from_path, arena, &source, ret_failure))
    return false;
  if (otherwise) {
    Source *last = arena_alloc(arena, 1, sizeof *last);
    if (!constant_source(otherwise, default_path, "default", arena, last, ret_failure))
      return false;
    last_of(&source)->otherwise = last;
  }
  *ret_source = source;
  return true;
}

/* --- finding -------------------------------------------------------------------------------- */

/* An array index as RFC 6901 defines it: digits without leading zeros. BSON's own array keys have
 * the same form, but a document could have others that look similar. */
static bool is_index(const char *step) {
  size_t length = strlen(step);
  return length > 0 && length < 10 && (step[0] != '0' || length == 1) &&
         strspn(step, "0123456789") == length;
}

static bool follow(const bson_t *payload, const char *const *steps, bson_iter_t *ret_iter) {
  bson_iter_t at, inner;
  if (!bson_iter_init_find(&at, payload, steps[0]))
    return false;
  for (steps++; *steps; steps++) {
    if (BSON_ITER_HOLDS_ARRAY(&at) && !is_index(*steps))
      return false;
    if (!(BSON_ITER_HOLDS_DOCUMENT(&at) || BSON_ITER_HOLDS_ARRAY(&at)) ||
        !bson_iter_recurse(&at, &inner) || !bson_iter_find(&inner, *steps))
      return false;
    at = inner;
  }
  *ret_iter = at;
  return true;
}

static bool is_whole_payload(const Source *source) {
  return source->in_payload && !source->in_item && source->text[0] == '$';
}

static bool find_in_item(const Source *source, const Event *event, bson_iter_t *ret_iter) {
  const char *inside = strchr(source->path, '.');
  bson_iter_t members;
  if (!event->item)
    return false;
  if (!strcmp(source->path, "index"))
    return bson_iter_init_from_data(ret_iter, event->item_index, event->item_index_length) &&
           bson_iter_find(ret_iter, source->path);
  if (!inside) {
    *ret_iter = *event->item;
    return true;
  }
  return (BSON_ITER_HOLDS_DOCUMENT(event->item) || BSON_ITER_HOLDS_ARRAY(event->item)) &&
         bson_iter_recurse(event->item, &members) &&
         bson_iter_find_descendant(&members, inside + 1, ret_iter);
}

static bool find_here(const Source *source, const Event *event, bson_iter_t *ret_iter) {
  bson_iter_t iter;
  bson_t view;
  if (source->constant)
    return constant_find(source->constant, source->constant_length, ret_iter);
  if (source->in_item)
    return find_in_item(source, event, ret_iter);
  if (source->steps)
    return follow(event_payload(event, &view), source->steps, ret_iter);
  const bson_t *document = source->in_payload && !is_whole_payload(source)
                               ? event_payload(event, &view)
                               : event_document(event, &view);
  if (!source->dotted)
    return bson_iter_init_find(ret_iter, document, source->path);
  return bson_iter_init(&iter, document) &&
         bson_iter_find_descendant(&iter, source->path, ret_iter);
}

const Source *source_find(const Source *source, const Event *event, bson_iter_t *ret_iter) {
  while (source && !find_here(source, event, ret_iter))
    source = source->otherwise;
  return source;
}

bool source_known(const Source *source, const Event *entity) {
  bson_iter_t iter;
  for (; source; source = source->otherwise) {
    if (find_here(source, entity, &iter))
      return true;
    if (!source->in_payload && !source->constant)
      return false; /* an event may have the field */
  }
  return true;
}

/* --- kinds ---------------------------------------------------------------------------------- */

static bool is_aggregate_id(const Source *place) {
  return !place->in_payload && place->path && !strcmp(place->path, "aggregate_id");
}

bool source_is_aggregate_id(const Source *source) {
  return is_aggregate_id(source);
}

bool source_is_of_entity(const Source *source) {
  for (; source; source = source->otherwise)
    if (!source->in_payload && !source->constant && !is_aggregate_id(source))
      return false;
  return true;
}

bool source_is_of_aggregate(const Source *source) {
  return source->constant ||
         is_aggregate_id(source); /* every event has it, so no further path is tried */
}

bool source_is_known_of_gone(const Source *source) {
  static const char *const known[] = {"aggregate_id", "version", "occurred_at", NULL};
  return source->constant ||
         (!source->in_payload && source->path && g_strv_contains(known, source->path));
}

bool source_is_of_event(const Source *place) {
  return !place->in_payload && !source_is_known_of_gone(place);
}

char *source_name(const Source *place) {
  bool inside = place->in_payload && !place->in_item && !is_whole_payload(place);
  return g_strconcat(!inside ? "" : place->steps ? "payload" : "payload.", place->text, NULL);
}

char *source_names(const Source *source) {
  g_autoptr(GString) names = g_string_new(NULL);
  for (const Source *place = source; place; place = place->otherwise) {
    g_autofree char *name = source_name(place);
    g_string_append_printf(names, "%s%s", names->len ? " or " : "", name);
  }
  return g_string_free(g_steal_pointer(&names), FALSE);
}

bool source_add_fields(const Source *source, GPtrArray *names) {
  bool good = true;
  for (; source; source = source->otherwise) {
    if (source->constant || !source->in_payload || source->in_item)
      continue;
    if (is_whole_payload(source))
      return false;
    char *name = source->steps ? g_strdup(source->steps[0])
                               : g_strndup(source->path, strcspn(source->path, "."));
    g_ptr_array_add(names, name);
    good = good && *name && !strpbrk(name, ".$");
  }
  return good;
}
