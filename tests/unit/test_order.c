/* test_order.c - where an event stands relative to its aggregate's position. */
#include "projector/domain/order.h"
#include "tests/unit/support.h"

typedef struct Moment {
  int64_t time, version;
  const char *id;
} Moment;

static OrderKey key_of(Moment moment) {
  return (OrderKey){
      .occurred_at = moment.time,
      .version = moment.version,
      .event_id = {.kind = ID_STRING, .length = 1, .bytes = (const uint8_t *)moment.id}};
}

typedef struct StandingCase {
  const char *name;
  bool known;
  Moment last;
  int64_t max_version, refreshed_version;
  Moment event;
  bool gap_waited;
  Standing expected;
} StandingCase;

static const StandingCase standing_cases[] = {
    {"first event, no version", false, {0}, 0, 0, {5, 0, "a"}, false, STANDING_NEXT},
    {"first event, version 1", false, {0}, 0, 0, {5, 1, "a"}, false, STANDING_NEXT},
    {"first event, version 2", false, {0}, 0, 0, {5, 2, "a"}, false, STANDING_GAP},
    {"first event, version 2, waited", false, {0}, 0, 0, {5, 2, "a"}, true, STANDING_NEXT},
    {"first event, last version of all",
     false,
     {0},
     0,
     0,
     {5, INT64_MAX, "a"},
     false,
     STANDING_NEXT},
    {"first event, version 10", false, {0}, 0, 0, {5, 10, "a"}, false, STANDING_GAP},
    {"first event, version 11", false, {0}, 0, 0, {5, 11, "a"}, false, STANDING_NEXT},

    {"later, no versions", true, {5, 0, "a"}, 0, 0, {6, 0, "b"}, false, STANDING_NEXT},
    {"same time, later id", true, {5, 0, "a"}, 0, 0, {5, 0, "b"}, false, STANDING_NEXT},
    {"same time, earlier id", true, {5, 0, "b"}, 0, 0, {5, 0, "a"}, false, STANDING_LATE},
    {"earlier", true, {5, 0, "a"}, 0, 0, {4, 0, "b"}, false, STANDING_LATE},
    {"the same event", true, {5, 0, "a"}, 0, 0, {5, 0, "a"}, false, STANDING_REPEATED},
    {"the same event with version", true, {5, 3, "a"}, 3, 0, {5, 3, "a"}, false, STANDING_REPEATED},
    {"same id at another time", true, {5, 0, "a"}, 0, 0, {6, 0, "a"}, false, STANDING_NEXT},

    {"next version", true, {5, 3, "a"}, 3, 0, {6, 4, "b"}, false, STANDING_NEXT},
    {"next version at the same time", true, {5, 3, "b"}, 3, 0, {5, 4, "a"}, false, STANDING_NEXT},
    {"a version left out", true, {5, 3, "a"}, 3, 0, {6, 5, "b"}, false, STANDING_GAP},
    {"a version left out, waited", true, {5, 3, "a"}, 3, 0, {6, 5, "b"}, true, STANDING_NEXT},
    {"many left out", true, {5, 3, "a"}, 3, 0, {6, 900, "b"}, false, STANDING_GAP},
    {"the version again, later", true, {5, 3, "a"}, 3, 0, {6, 3, "b"}, false, STANDING_NEXT},
    {"a smaller version, later", true, {5, 3, "a"}, 3, 0, {6, 1, "b"}, false, STANDING_NEXT},
    {"a version after none", true, {5, 0, "a"}, 0, 0, {6, 7, "b"}, false, STANDING_NEXT},
    {"none after a version", true, {5, 3, "a"}, 3, 0, {6, 0, "b"}, false, STANDING_NEXT},
    {"gap over a version that was none", true, {6, 0, "b"}, 3, 0, {7, 5, "c"}, false, STANDING_GAP},
    {"after the last version of all",
     true,
     {5, INT64_MAX, "a"},
     INT64_MAX,
     0,
     {6, 1, "b"},
     false,
     STANDING_NEXT},
    {"the last version of all",
     true,
     {5, INT64_MAX - 1, "a"},
     INT64_MAX - 1,
     0,
     {6, INT64_MAX, "b"},
     false,
     STANDING_NEXT},
    {"late with a missing version", true, {5, 3, "a"}, 3, 0, {4, 9, "b"}, false, STANDING_LATE},
    {"late and waited", true, {5, 3, "a"}, 3, 0, {4, 2, "b"}, true, STANDING_LATE},

    {"below the refresh", true, {5, 3, "a"}, 7, 7, {6, 6, "b"}, false, STANDING_CONTAINED},
    {"at the refresh", true, {5, 3, "a"}, 7, 7, {6, 7, "b"}, false, STANDING_CONTAINED},
    {"above the refresh", true, {5, 3, "a"}, 7, 7, {6, 8, "b"}, false, STANDING_NEXT},
    {"gap above the refresh", true, {5, 3, "a"}, 7, 7, {6, 9, "b"}, false, STANDING_GAP},
    {"late but in the refresh", true, {5, 3, "a"}, 7, 7, {4, 2, "b"}, false, STANDING_CONTAINED},
    {"late, above the refresh", true, {5, 3, "a"}, 7, 7, {4, 8, "b"}, false, STANDING_LATE},
    {"no version after a refresh", true, {5, 3, "a"}, 7, 7, {6, 0, "b"}, false, STANDING_NEXT},
    {"refresh of a new aggregate", false, {0}, 0, 4, {6, 4, "b"}, false, STANDING_CONTAINED},
};

static void test_standing(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(standing_cases); i++) {
    const StandingCase *row = &standing_cases[i];
    const Position position = {.known = row->known,
                               .last = row->known ? key_of(row->last) : (OrderKey){0},
                               .max_version = row->max_version,
                               .refreshed_version = row->refreshed_version};
    const Event event = {.key = key_of(row->event)};
    check_number(row->name, order_standing(&position, &event, row->gap_waited), row->expected);
  }
}

static const struct {
  const char *name;
  bool known;
  Moment last;
  int64_t max_version;
  Moment event;
  bool moves;
  int64_t max_version_after;
} advance_cases[] = {
    {"the first event", false, {0}, 0, {5, 0, "a"}, true, 0},
    {"the first event with version", false, {0}, 0, {5, 4, "a"}, true, 4},
    {"before 1970", false, {0}, 0, {-5, 0, "a"}, true, 0},
    {"a later event", true, {5, 1, "a"}, 1, {6, 2, "b"}, true, 2},
    {"a late event", true, {5, 2, "a"}, 2, {4, 1, "b"}, false, 2},
    {"a late event with a higher version", true, {5, 2, "a"}, 2, {4, 3, "b"}, false, 3},
    {"an event without version", true, {5, 2, "a"}, 2, {6, 0, "b"}, true, 2},
    {"the same event", true, {5, 2, "a"}, 2, {5, 2, "a"}, false, 2},
};

static void test_advance(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(advance_cases); i++) {
    OrderKey before = advance_cases[i].known ? key_of(advance_cases[i].last) : (OrderKey){0};
    Position position = {.known = advance_cases[i].known,
                         .last = before,
                         .max_version = advance_cases[i].max_version,
                         .refreshed_version = 9};
    const Event event = {.key = key_of(advance_cases[i].event)};
    order_advance(&position, &event);
    const OrderKey *expected = advance_cases[i].moves ? &event.key : &before;
    check_number(advance_cases[i].name, order_key_compare(&position.last, expected), 0);
    check_number(advance_cases[i].name, position.max_version, advance_cases[i].max_version_after);
    check_number(advance_cases[i].name, position.refreshed_version, 9);
    check_that(advance_cases[i].name, position.known, "something was applied now");
  }
}

static const struct {
  const char *name;
  bool known;
  Moment last, event;
  bool reused;
} reuse_cases[] = {
    {"the next version", true, {5, 3, "a"}, {6, 4, "b"}, false},
    {"the same version, later", true, {5, 3, "a"}, {6, 3, "b"}, true},
    {"a smaller version, later", true, {5, 3, "a"}, {6, 1, "b"}, true},
    {"a smaller version at the same time", true, {5, 3, "b"}, {5, 2, "c"}, false},
    {"a smaller version, late", true, {5, 3, "a"}, {4, 2, "b"}, false},
    {"the event itself", true, {5, 3, "a"}, {5, 3, "a"}, false},
    {"the last one had no version", true, {5, 0, "a"}, {6, 1, "b"}, false},
    {"it has no version", true, {5, 3, "a"}, {6, 0, "b"}, false},
    {"nothing was applied", false, {0}, {6, 1, "b"}, false},
};

static void versions_are_used_again_only_by_later_events(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(reuse_cases); i++) {
    const Position position = {.known = reuse_cases[i].known,
                               .last = reuse_cases[i].known ? key_of(reuse_cases[i].last)
                                                            : (OrderKey){0},
                               .max_version = 9,
                               .refreshed_version = 9};
    const Event event = {.key = key_of(reuse_cases[i].event)};
    check_number(reuse_cases[i].name, order_reuses_version(&position, &event),
                 reuse_cases[i].reused);
  }
}

static void an_event_is_early_until_its_time_is_within_the_limit(void **state) {
  (void)state;
  static const struct {
    const char *name;
    int64_t occurred_at, now_ms, future_ms, expected;
  } cases[] = {
      {"in the past", 900, 1000, 100, 0},
      {"at the limit", 1100, 1000, 100, 0},
      {"behind it", 1101, 1000, 100, 1},
      {"no limit", 1001, 1000, 0, 1},
      {"the last time of all", INT64_MAX, 1000, 100, INT64_MAX - 1100},
      {"no time", INT64_MIN, 1000, 100, 0},
  };
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    const Event event = {.key = {.occurred_at = cases[i].occurred_at}};
    check_number(cases[i].name, order_early_ms(&event, cases[i].now_ms, cases[i].future_ms),
                 cases[i].expected);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_standing),
      cmocka_unit_test(test_advance),
      cmocka_unit_test(versions_are_used_again_only_by_later_events),
      cmocka_unit_test(an_event_is_early_until_its_time_is_within_the_limit),
  };
  return RUN_TESTS(tests);
}
