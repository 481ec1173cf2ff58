/* test_source.c - lists of paths, JSON Pointers, constants and defaults, and what entities
 * provide. */
#include "projector/domain/entity.h"
#include "tests/unit/support.h"

#include <string.h>

static const char event_json[] =
    "{'_id': 'e-1', 'aggregate_type': 'order', 'aggregate_id': 'o-1',"
    " 'version': {'$numberLong': '7'}, 'event_type': 'Placed',"
    " 'occurred_at': {'$date': {'$numberLong': '1714979289123'}}, 'metadata': {'name': 'meta'},"
    " 'payload': {'old': 'o', 'nothing': null, 'a': {'b': 'nested'}, 'a.b': 'dotted',"
    "   '$id': 'dollar', 'm~n': 'tilde', 'p/q': 'slash', '': 'empty', '0': 'zero',"
    "   'list': ['first', {'x': 'second'}], 'deep': {'x.y': [{'$z': 'end'}]}, 'v': 5}}";

static bool take(const char *members, Arena *arena, Column *column, Failure *ret_failure) {
  json_t *json = json_from(members);
  bool good = source_from_members(json, "c", arena, &column->from, ret_failure);
  json_decref(json);
  return good;
}

/* A value of type text (json for documents), from the event above. */
static const struct {
  const char *members, *expected;
} cases[] = {
    {"{'from': 'old'}", "text o"},
    {"{'from': ['new', 'old']}", "text o"},
    {"{'from': ['old', 'new']}", "text o"},
    {"{'from': ['x', 'y', '$metadata.name']}", "text meta"},
    {"{'from': ['nothing', 'old']}", "null"}, /* null counts as present */
    {"{'from': ['new', 'newer']}",
     "! payload.new or payload.newer: expected longtext, found nothing"},
    {"{'from': ['new', '$metadata.x', '/a/c']}",
     "! payload.new or $metadata.x or payload/a/c: expected longtext, found nothing"},
    {"{'from': ['list', 'old']}",
     "! payload.list: expected longtext, found array \"[ \"first\", { \"x\" : \"second\" } ]\""},
    {"{'from': 'new', 'default': 'd'}", "text d"},
    {"{'from': 'old', 'default': 'd'}", "text o"},
    {"{'from': ['new', 'newer'], 'default': ''}", "text "},
    {"{'from': 'nothing', 'default': 'd'}", "null"},
    {"{'from': '$metadata.none', 'default': 'd'}", "text d"},
    {"{'value': 'outbox'}", "text outbox"},
    {"{'value': {'$oid': '65a000000000000000000001'}}", "text 65a000000000000000000001"},

    /* RFC 6901 */
    {"{'from': '/old'}", "text o"},
    {"{'from': '/a/b'}", "text nested"},
    {"{'from': '/a.b'}", "text dotted"},
    {"{'from': 'a.b'}", "text nested"},
    {"{'from': '/$id'}", "text dollar"},
    {"{'from': '/m~0n'}", "text tilde"},
    {"{'from': '/p~1q'}", "text slash"},
    {"{'from': '/'}", "text empty"},
    {"{'from': '/0'}", "text zero"},
    {"{'from': '/list/0'}", "text first"},
    {"{'from': '/list/1/x'}", "text second"},
    {"{'from': '/deep/x.y/0/$z'}", "text end"},
    {"{'from': '/list/2', 'default': 'd'}", "text d"},
    {"{'from': '/list/-', 'default': 'd'}", "text d"}, /* after the last: nothing is there */
    {"{'from': '/list/00', 'default': 'd'}", "text d"},
    {"{'from': '/list/01', 'default': 'd'}", "text d"},
    {"{'from': '/list/x', 'default': 'd'}", "text d"},
    {"{'from': '/old/x', 'default': 'd'}", "text d"},
    {"{'from': '/a', 'default': 'd'}",
     "! payload/a: expected longtext, found document \"{ \"b\" : \"nested\" }\""},
    {"{'from': '/~01', 'default': 'd'}", "text d"}, /* ~01 is ~1, not a slash */
};

static void test_places(void **state) {
  (void)state;
  g_autoptr(Event) event = event_from(event_json);
  g_autoptr(Arena) arena = arena_new();
  check_that("event", !event->malformed, "it is well-formed");
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    const char *members = cases[i].members;
    Column column = {.name = "c", .nullable = strstr(cases[i].expected, "null") != NULL};
    column_type_parse("longtext", &column.type);
    Failure failure = {0};
    Value value;
    check_that(members, take(members, arena, &column, &failure), "it is taken");
    g_autofree char *found = value_for_column(event, &column.from, &column, arena, &value, &failure)
                                 ? value_text(&value)
                                 : g_strdup_printf("! %s", failure.message);
    check_text(members, found, cases[i].expected);
  }
}

static void test_the_whole_payload(void **state) {
  (void)state;
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(Event) event = event_from(
      "{'_id': 'e', 'aggregate_type': 'o', 'aggregate_id': 'o-1', 'event_type': 'E',"
      " 'occurred_at': {'$date': {'$numberLong': '1'}}, 'payload': {'a': 1, 'payload': 2}}");
  Column column = {.name = "c"};
  column_type_parse("json", &column.type);
  Failure failure = {0};
  Value value;
  check_that("json", take("{'from': '$payload'}", arena, &column, &failure), "it is taken");
  check_that("json", value_for_column(event, &column.from, &column, arena, &value, &failure),
             "it converts");
  g_autofree char *found = value_text(&value);
  check_text("json", found, "text { \"a\" : 1, \"payload\" : 2 }");
}

/* What an entity provides, and the field's name in a query. */
static const struct {
  const char *members;
  bool known, of_entity, of_aggregate;
  const char *fields; /* "!": a query cannot name them */
} knowledge[] = {
    {"{'from': 'a'}", true, true, false, "a"},
    {"{'from': 'none.x'}", true, true, false, "none"},
    {"{'from': ['none', 'a.b']}", true, true, false, "none a"},
    {"{'from': '$aggregate_id'}", true, true, true, ""},
    {"{'value': 1}", true, true, true, ""},
    {"{'from': '$payload'}", true, true, false, "!"},
    {"{'from': '/a/b'}", true, true, false, "a"},
    {"{'from': '/x.y'}", true, true, false, "!"},
    {"{'from': '/$x'}", true, true, false, "!"},
    {"{'from': '$version'}", true, false, false, ""}, /* the entity has one */
    {"{'from': '$occurred_at'}", false, false, false, ""},
    {"{'from': '$event_type'}", false, false, false, ""},
    {"{'from': '$metadata.x', 'default': 0}", false, false, false, ""},
    {"{'from': ['$metadata.x', 'a']}", false, false, false, "a"},
    {"{'from': ['a', '$metadata.x']}", true, false, false, "a"},
    {"{'from': ['none', '$metadata.x']}", false, false, false, "none"},
    {"{'from': 'none', 'default': 0}", true, true, false, "none"},
};

static void test_what_an_entity_tells(void **state) {
  (void)state;
  g_autoptr(Arena) arena = arena_new();
  const Aggregate aggregate = {
      .type = "o", .type_length = 1, .id = {ID_STRING, 3, 0, (const uint8_t *)"o-1"}};
  bson_t *entity = bson_new_from_json((const uint8_t *)"{\"a\": {\"b\": 1}}", -1, NULL);
  g_autoptr(Event) event = entity_as_event(entity, &aggregate, 5, INT64_MIN);
  bson_destroy(entity);
  for (size_t i = 0; i < COUNT_OF(knowledge); i++) {
    const char *members = knowledge[i].members;
    Column column = {0};
    Failure failure = {0};
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    check_that(members, take(members, arena, &column, &failure), "it is taken");
    check_number(members, source_known(&column.from, event), knowledge[i].known);
    check_number(members, source_is_of_entity(&column.from), knowledge[i].of_entity);
    check_number(members, source_is_of_aggregate(&column.from), knowledge[i].of_aggregate);
    bool named = source_add_fields(&column.from, names);
    g_ptr_array_add(names, NULL);
    g_autofree char *fields = g_strjoinv(" ", (char **)names->pdata);
    check_text(members, named ? fields : "!", knowledge[i].fields);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_places),
      cmocka_unit_test(test_the_whole_payload),
      cmocka_unit_test(test_what_an_entity_tells),
  };
  return RUN_TESTS(tests);
}
