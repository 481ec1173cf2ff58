/* source.h - where a value comes from: the `from`, `value` and `default` of the mapping file.
 *
 * A source is a chain of places. The first one that is present supplies the value; a constant
 * (`value`, `default`) always is. An explicit null counts as present. */
#pragma once

#include "projector/domain/arena.h"
#include "projector/domain/event.h"

#include <jansson.h>

typedef struct Source Source;
struct Source {
  bool in_payload; /* of this place; else it is a field of the event document */
  bool dotted;
  const char *path; /* as BSON path: "amount", "aggregate_id", "metadata.tenant"; NULL: another
                     * form */
  const char *text; /* as the file says it: "amount", "$aggregate_id", "/a.b/$id", "$payload" */
  const char *const *steps; /* of a JSON Pointer, unescaped, NULL-terminated */
  const uint8_t *constant;  /* a BSON document with one value */
  uint32_t constant_length;
  const Source *otherwise; /* the next place when this one is missing; NULL: none */
  bool in_item;            /* of an item of a child table's array (children.h), or its index */
};

/* What `from` accepts, for messages. */
#define A_SOURCE                                                                                   \
  "a payload path, a JSON Pointer, $payload or one of $event_id, $aggregate_id, $version, "        \
  "$occurred_at, $event_type, $metadata.x"

/* Reads a dotted path into the payload, a JSON Pointer into it (it begins with /), `$payload`, or
 * `$event_id`, `$aggregate_id`, `$version`, `$occurred_at`, `$event_type`, `$metadata.x`. False
 * when it is none of these; or `$index`, `$item`, `$item.x` for a child table. Strings go into the
 * arena. */
bool source_parse(const char *text, size_t length, Arena *arena, Source *ret_source);

/* Refuses $item and $index, which only a child table's columns have. */
bool source_check_event(const Source *source, const char *path, Failure *ret_failure);

/* Reads a path as above, or a list of them. The
 * failure names `path`. */
bool source_from_json(const json_t *json, const char *path, Arena *arena, Source *ret_source,
                      Failure *ret_failure);
/* Reads `from` with `default`, or `value`, of an object whose path is `path`. */
bool source_from_members(const json_t *object, const char *path, Arena *arena, Source *ret_source,
                         Failure *ret_failure);

/* Finds the value. Returns the place that holds it, or NULL when none does. */
const Source *source_find(const Source *source, const Event *event, bson_iter_t *ret_iter);
/* Whether an entity, read as an event (entity.h), gives the same value as its events. Returns false
 * when a field that only an event has comes first. */
bool source_known(const Source *source, const Event *entity);

/* Whether every place is in the entity: its payload, its id, or a constant. */
bool source_is_of_entity(const Source *source);
/* Whether it is the aggregate's id, or a constant: the same in every event of an aggregate. */
bool source_is_of_aggregate(const Source *source);
bool source_is_aggregate_id(const Source *source);
/* Whether it is known of an aggregate whose entity is gone: its id, its newest version, the time,
 * or a constant. */
bool source_is_known_of_gone(const Source *source);
/* Whether this place is in events alone, so that an entity tells nothing of it. */
bool source_is_of_event(const Source *place);
/* The place as messages name it: "payload.amount", "payload/a.b", "$aggregate_id". Free with
 * g_free. */
char *source_name(const Source *place);
/* All its places: "payload.name or payload.old_name". Free with g_free. */
char *source_names(const Source *source);
/* Adds the top-level payload fields that the source reads to `names` (of char *). Returns false
 * when a MongoDB query cannot name them: the whole payload, a name with a dot or a dollar. */
bool source_add_fields(const Source *source, GPtrArray *names);

/* A JSON value as BSON, with Extended JSON interpreted: {"$numberDecimal": …}. The
 * bytes are a document with one value. False when it is no value: a failure at `path`. */
bool constant_from_json(const json_t *json, const char *path, Arena *arena,
                        const uint8_t **ret_bytes, uint32_t *ret_length, Failure *ret_failure);
bool constant_find(const uint8_t *bytes, uint32_t length, bson_iter_t *ret_iter);
