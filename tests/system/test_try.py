"""projector try: events in, changes out, without a store; a file of cases as a team's own test."""

from __future__ import annotations

import json
import re
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from decimal import Decimal
from pathlib import Path

import pytest
from workspace import PROJECTOR, ROOT

MAPPING = {
    "name": "x", "mongodb": {"uri_file": "/nowhere", "database": "${NOT_SET}"}, "mysql": {"user": "u", "database": "${NOT_SET}"},
    "projections": [{
        "aggregate_type": "order", "table": "orders", "entities": "orders", "when": {"path": "kind", "in": ["web", "shop"]},
        "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}},
        "columns": {"kind": {"from": "kind", "type": "varchar(10)"}, "total": {"from": "total", "type": "decimal(9,2)"},
                    "city": {"from": "city", "type": "varchar(20)", "null": True}},
        "events": {"Placed": {"op": "upsert"}, "Raised": {"op": "add", "columns": {"total": "by"}},
                   "Moved": {"op": "update", "columns": ["city"], "when": {"path": "city", "exists": True}},
                   "Closed": {"op": "delete"}, "Stated": {"op": "sql", "statement": "DELETE FROM orders WHERE id = :$aggregate_id"}}}]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mapping.json").write_text(json.dumps(MAPPING))
    return tmp_path


def run(folder: Path, *arguments: str, status: int = 0, stdin: str = "") -> str:
    done = subprocess.run([PROJECTOR, "try", "-c", str(folder / "mapping.json"), *arguments], input=stdin, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status < 2 else done.stderr


def event(type: str, id: str = "o-1", number: int = 1, **payload) -> dict:
    return {"_id": f"e-{type}-{number}", "aggregate_type": "order", "aggregate_id": id, "event_type": type,
            "occurred_at": {"$date": f"2026-01-01T00:00:{number:02}Z"}, "payload": payload}


def reports(folder: Path, *events: dict, status: int = 0) -> list[dict]:
    file = folder / "events.json"
    file.write_text("\n".join(map(json.dumps, events)))
    return [json.loads(line) for line in run(folder, "--json", str(file), status=status).splitlines()]


def test_an_event_gives_its_changes_and_the_sql_of_run(folder):
    [placed, raised] = reports(folder, event("Placed", kind="web", total={"$numberDecimal": "1.50"}), event("Raised", number=2, by=2))
    assert placed["outcome"] == raised["outcome"] == "applied"
    assert placed["changes"] == [{"table": "orders", "change": "write", "key": {"id": "o-1"},
                                  "columns": {"kind": "web", "total": "1.50", "city": None}}]
    assert raised["changes"] == [{"table": "orders", "change": "update", "key": {"id": "o-1"}, "columns": {"total": {"add": "2.00"}}}]
    assert placed["sql"][0].startswith("INSERT INTO `orders` (`id`,`kind`,`total`,`city`) VALUES ('o-1','web',1.5,NULL)")
    [other] = json.loads(run(folder, "--json", "--mariadb", stdin=json.dumps(event("Placed", kind="web", total=1))))["sql"]
    assert "VALUES(`kind`)" in other


def test_what_fails_says_why_with_its_path_and_later_events_wait(folder):
    failed, waiting, other = reports(folder, event("Placed", kind="web"), event("Closed", number=2), event("Placed", "o-2", 3, kind="web", total=1), status=1)
    assert (failed["outcome"], failed["error"]) == ("failed", "orders: payload.total: expected decimal(9,2), found nothing")
    assert (waiting["outcome"], waiting["changes"], other["outcome"]) == ("waits", [], "applied")
    [malformed] = reports(folder, {"_id": "e"}, status=1)
    assert malformed["error"].startswith("aggregate_type: expected a string")
    [missing] = reports(folder, event("Raised", by=1), status=1)
    assert missing["error"] == "row missing in orders"
    [unknown] = reports(folder, event("Renamed"), status=1)
    assert unknown["error"] == "event_type: expected one that a projection of order names, found Renamed"


def test_a_late_delta_whose_row_is_gone_ends_as_in_run(folder):
    done = reports(folder, event("Placed", kind="web", total=1, number=1), event("Closed", number=5), event("Raised", by=2, number=3),
                   event("Placed", kind="web", total=4, number=7))
    assert [d["outcome"] for d in done] == ["applied", "applied", "superseded", "applied"]
    assert done[2]["changes"] == []


def test_a_late_delta_whose_row_another_aggregate_may_still_make_fails_as_in_run(folder):
    """Its key comes from the payload, so that the row may be anybody's."""
    orders = {**MAPPING["projections"][0], "key": {"id": {"from": "to", "type": "varchar(36)"}},
              "events": {"Placed": {"op": "upsert"}, "Raised": {"op": "add", "columns": {"total": "by"}}}}
    (folder / "mapping.json").write_text(json.dumps({**MAPPING, "projections": [{k: v for k, v in orders.items() if k not in ("entities", "when")}]}))
    [placed, raised] = reports(folder, event("Placed", number=10, to="a", kind="web", total=1), event("Raised", number=5, to="b", by=2), status=1)
    assert (placed["outcome"], raised["outcome"], raised["error"]) == ("applied", "failed", "row missing in orders")


def test_conditions_statements_repeats_and_late_events_end_as_in_run(folder):
    first = event("Placed", kind="web", total=1, number=2)
    done = reports(folder, first, event("Moved", number=3), first, event("Placed", kind="phone", total=1, number=4),
                   event("Placed", kind="shop", total=5, number=1), event("Stated", "o-9", 5))
    assert [d["outcome"] for d in done] == ["applied", "ignored", "known", "applied", "superseded", "applied"]
    assert done[3]["changes"] == [{"table": "orders", "change": "delete", "key": {"id": "o-1"}, "columns": {}}]
    assert done[5]["sql"] == ["DELETE FROM orders WHERE id = ? -- :$aggregate_id = 'o-9'"]


def test_a_condition_on_ignore_changes_nothing(folder):
    [projection] = MAPPING["projections"]
    ignored = {"Sent": {"op": "ignore", "when": {"path": "kind", "is": "web"}}}
    (folder / "mapping.json").write_text(json.dumps({**MAPPING, "projections": [{**projection, "events": ignored}]}))
    sent = reports(folder, event("Sent", kind="web"), event("Sent", kind="shop", number=2))
    assert [one["outcome"] for one in sent] == ["ignored", "ignored"]


def test_a_delete_of_a_row_that_is_not_there_changes_nothing(folder):
    [closed] = reports(folder, event("Closed"))
    assert (closed["outcome"], closed["changes"]) == ("applied", []) and "DELETE" in closed["sql"][0]
    soft = {**MAPPING["projections"][0]["events"], "Closed": {"op": "delete", "set": {"city": "$event_type"}}}
    (folder / "mapping.json").write_text(json.dumps({**MAPPING, "projections": [{**MAPPING["projections"][0], "events": soft}]}))
    [closed, placed, again] = reports(folder, event("Closed"), event("Placed", number=2, kind="web", total=1), event("Closed", number=3))
    assert (closed["outcome"], closed["changes"], again["changes"][0]["change"]) == ("applied", [], "update")
    [_, unsure] = reports(folder, event("Stated", "o-9"), event("Closed", number=2))  # what the statement did is not known
    assert [change["change"] for change in unsure["changes"]] == ["update"]


@pytest.mark.parametrize("changes, path", [({"unknown_event": "ignore"}, "unknown_event"), ({"mongodb": {"layouts": "debezium"}}, "mongodb.layouts")])
def test_a_key_that_run_does_not_know_is_refused_here_too(folder, changes, path):
    (folder / "mapping.json").write_text(json.dumps({**MAPPING, **changes}))
    assert f"mapping.json: {path}: unknown key; known here: " in run(folder, stdin=json.dumps(event("Placed", kind="web", total=1)), status=2)


def test_what_the_file_takes_from_the_environment_is_taken_here_too(folder, monkeypatch):
    monkeypatch.setenv("LAYOUT", "debezium")
    monkeypatch.setenv("TYPE", "kind_of_event")
    monkeypatch.setenv("UNKNOWN", "ignore")
    (folder / "mapping.json").write_text(json.dumps({**MAPPING, "unknown_events": "${UNKNOWN}", "mongodb": {
        **MAPPING["mongodb"], "layout": "${LAYOUT}", "fields": {"event_type": "${TYPE}"}}}))
    for type, outcome in (("Closed", "applied"), ("Unknown", "ignored")):
        [report] = reports(folder, {"_id": "e", "aggregatetype": "order", "aggregateid": "o-1", "kind_of_event": type,
                                    "timestamp": {"$date": "2026-01-01T00:00:00Z"}, "payload": {}})
        assert report["outcome"] == outcome, report


OTHER_NAMES = {"fields": {"aggregate_type": "kind", "aggregate_id": "subject", "event_type": "what", "occurred_at": "when", "payload": "body"}}


@pytest.mark.parametrize("mongodb, document", [
    ({"layout": "debezium"}, {"aggregatetype": "order", "aggregateid": "o-1", "type": "Placed", "timestamp": {"$date": "2026-01-01T00:00:00Z"},
                              "payload": '{"kind": "web", "total": 12345.67}'}),
    ({"layout": "debezium"}, {"_id": {"$oid": "6954ce80aabbccddeeff0011"}, "aggregatetype": "order", "aggregateid": "o-1", "type": "Placed",
                              "payload": {"kind": "web", "total": 12345.67}}),
    (OTHER_NAMES, {"kind": "order", "subject": "o-1", "what": "Placed", "when": {"$date": "2026-01-01T00:00:00Z"},
                   "body": {"kind": "web", "total": {"$numberDecimal": "12345.67"}}}),
    ({"layout": "debezium", "fields": {"payload": "body"}},
     {"aggregatetype": "order", "aggregateid": "o-1", "type": "Placed", "timestamp": {"$date": "2026-01-01T00:00:00Z"},
      "body": '{"kind": "web", "total": "12345.67"}'}),
])
def test_an_outbox_with_other_names_is_read_as_run_reads_it(folder, mongodb, document):
    """Alone, and as a case with rows before and after."""
    (folder / "mapping.json").write_text(json.dumps({**MAPPING, "mongodb": {**MAPPING["mongodb"], **mongodb}}))
    document = {"_id": "e-1", **document}
    [report] = reports(folder, document)
    assert report["outcome"] == "applied" and report["changes"][0]["columns"] == {"kind": "web", "total": "12345.67", "city": None}, report
    cases = folder / "cases.json"
    cases.write_text(json.dumps([{"name": "placed", "events": [document], "expect": {"orders": [{"id": "o-1", "kind": "web", "total": "12345.67"}]}}]))
    assert "ok 1 - placed" in run(folder, "--expect", str(cases))
    wrong = {key: value for key, value in document.items() if key not in ("type", "what")}
    [report] = reports(folder, wrong, status=1)
    assert "event_type" in report["error"] or "what" in report["error"] or "type" in report["error"], report


def with_column(folder: Path, column: str, **more: str) -> None:
    """The mapping with this text as its column, which json.dumps could not write."""
    text = json.dumps({**MAPPING, "projections": [{**MAPPING["projections"][0], "columns": {"n": "COLUMN"}, **more,
                                                   "events": {"Placed": {"op": "upsert"}}}]})
    (folder / "mapping.json").write_text(text.replace('"COLUMN"', column).replace('"WHEN"', '{"path": "n", "is": 12345678901234567.89}'))


@pytest.mark.parametrize("type, written, found", [
    ("decimal(40,20)", "12345678901234567890.12345678901234", "12345678901234567890.12345678901234000000"),
    ("decimal(20,2)", "12345678901234567.89", "12345678901234567.89"), ("decimal(20,2)", "0.1", "0.10"),
    ("bigint unsigned", "18446744073709551615", "18446744073709551615"), ("bigint", "9007199254740993", "9007199254740993"),
    ("bigint", "-9223372036854775808", "-9223372036854775808"), ("double", "0.1", "0.1"), ("double", "1e300", "1e+300"),
])
@pytest.mark.parametrize("form", ['"value": {}', '"from": "nowhere", "default": {}'])
def test_a_number_in_the_file_keeps_every_digit(folder, type, written, found, form):
    with_column(folder, '{"type": "%s", %s}' % (type, form.format(written)))
    [report] = reports(folder, event("Placed", kind="web"))
    assert report["changes"][0]["columns"] == {"n": found} or report["changes"][0]["columns"]["n"] == int(found), report
    [number] = re.findall(r"VALUES \('o-1',([^)]*)\)", report["sql"][0])
    assert (float if type == "double" else Decimal)(number) == (float if type == "double" else Decimal)(written)


@pytest.mark.parametrize("column, said", [
    ('{"type": "double", "value": 12345678901234567.89}', "columns.n: value: expected double, found Decimal128 12345678901234567.89"),
    ('{"type": "double", "value": 9007199254740993}', "columns.n: value: expected double, found int64 9007199254740993"),
    ('{"type": "bigint", "value": 9223372036854775808}', "columns.n: value: expected bigint, found Decimal128 9223372036854775808"),
    ('{"type": "decimal(60,2)", "value": 123456789012345678901234567890123456}', "more than 34 digits, which are not kept exactly: write it as a text"),
    ('{"type": "decimal(9,2)", "value": 0.123}', "columns.n: value: expected decimal(9,2)"),
    ('{"type": 12345678901234567890, "value": 1}', "columns.n.type: expected a string, found 12345678901234567890"),
])
def test_a_number_that_would_lose_digits_is_refused(folder, column, said):
    with_column(folder, column)
    assert said in run(folder, stdin=json.dumps(event("Placed", kind="web")), status=2)


def test_a_condition_compares_every_digit(folder):
    with_column(folder, '{"type": "varchar(9)", "value": "x"}', when="WHEN")
    for number, changes in (("12345678901234567.89", ["write"]), ("12345678901234567.90", []), ("12345678901234568", [])):
        [report] = reports(folder, event("Placed", n={"$numberDecimal": number}))
        assert [change["change"] for change in report["changes"]] == changes, (number, report)


def test_a_key_that_changes_leaves_both_rows_each_with_its_lines(folder):
    """One aggregate, two keys: neither takes the other's child rows, and a delete takes those of the key that it names."""
    projection = {"aggregate_type": "order", "table": "coded", "key": {"code": {"from": "code", "type": "varchar(9)"}},
                  "columns": {"n": {"from": "n", "type": "int", "default": 0}},
                  "children": [{"table": "line", "from": "lines", "key": {"no": {"from": "$index", "type": "int"}},
                                "columns": {"sku": {"from": "$item", "type": "varchar(9)"}}}],
                  "events": {"Placed": {"op": "upsert"}, "Lined": {"op": "update", "columns": ["line"]}, "Removed": {"op": "delete"}}}
    (folder / "mapping.json").write_text(json.dumps({**MAPPING, "projections": [projection]}))
    events = [event("Placed", code="A", lines=["a1", "a2"]), event("Placed", number=2, code="B", lines=["b1"]),
              event("Lined", number=3, code="B", lines=["b2", "b3"])]
    rows = {"A": ["a1", "a2"], "B": ["b2", "b3"]}
    cases = [{"name": "both", "events": events}, {"name": "one removed", "events": [*events, event("Removed", number=4, code="A")]}]
    for case, keys in zip(cases, ("AB", "B")):
        case["expect"] = {"coded": [{"code": key} for key in keys],
                          "line": [{"code": key, "no": no, "sku": sku} for key in keys for no, sku in enumerate(rows[key])]}
    (folder / "cases.json").write_text(json.dumps(cases))
    assert run(folder, "--expect", str(folder / "cases.json")).count("\nok ") == 2
    [*_, missing] = reports(folder, *events, event("Removed", number=4, code="A"), event("Lined", number=5, code="A", lines=[]), status=1)
    assert missing["error"] == "row missing in coded"


def test_text_for_people(folder):
    text = run(folder, stdin=json.dumps(event("Placed", kind="web", total=1)))
    assert text.splitlines()[:2] == ["e-Placed-1 Placed of order o-1: applied",
                                     "  orders: write id o-1: kind web, total 1.00, city NULL"]


@pytest.mark.parametrize("input, error", [
    ("{", "not valid JSON"), ("5", "expected an event document"), ('{"_id": {"$oid": "x"}}', "document 1._id.$oid: expected 24 hexadecimal digits")])
def test_what_is_no_document_is_wrong_use(folder, input, error):
    assert error in run(folder, stdin=input, status=2)


# --- cases ---

def case(name: str = "a case", **members) -> dict:
    return {"name": name, **members}


def cases(folder: Path, *all: dict, status: int = 0, format: str = "tap") -> str:
    (folder / "cases.json").write_text(json.dumps({"cases": all}))
    return run(folder, "--expect", str(folder / "cases.json"), "--format", format, status=status)


def short(type: str, id: str = "o-1", **payload) -> dict:
    return {"aggregate_type": "order", "aggregate_id": id, "event_type": type, "payload": payload}


ROW = {"id": "o-1", "kind": "web", "total": "10.00", "city": None}
GOOD = [
    case("a row is written", events=[short("Placed", kind="web", total=10)], expect={"orders": [ROW]}),
    case("a delta is added to a given row", given={"orders": [ROW]}, events=[short("Raised", by=2.5)], expect={"orders": [{"id": "o-1", "total": "12.50"}]}),
    case("what does not match is gone", given={"orders": [ROW]}, events=[short("Placed", kind="phone", total=1)], expect={"orders": []}, outcomes=["applied"]),
    case("an error can be expected", events=[short("Raised", by=1)], error="row missing", outcomes=["failed"]),
    case("a late event is taken from the entity", entities={"orders": [{"_id": "o-1", "version": 2, "kind": "shop", "total": 7}]},
         events=[{**short("Placed", kind="web", total=1), "version": 2, "occurred_at": {"$date": "2026-01-02T00:00:00Z"}},
                 {**short("Moved", city="Bern"), "version": 1, "occurred_at": {"$date": "2026-01-01T00:00:00Z"}}],
         expect={"orders": [{"id": "o-1", "kind": "shop", "total": "7.00"}]}, outcomes=["applied", "superseded"]),
    case("what the entity has is not added again", entities={"orders": [{"_id": "o-1", "version": 3, "kind": "shop", "total": 7}]},
         events=[{**short("Placed", kind="web", total=1), "version": 1, "occurred_at": {"$date": "2026-01-02T00:00:00Z"}},
                 {**short("Moved", city="Bern"), "version": 2, "occurred_at": {"$date": "2026-01-01T00:00:00Z"}},
                 {**short("Raised", by=5), "version": 3, "occurred_at": {"$date": "2026-01-03T00:00:00Z"}},
                 {**short("Raised", by=2), "version": 4, "occurred_at": {"$date": "2026-01-04T00:00:00Z"}}],
         expect={"orders": [{"id": "o-1", "kind": "shop", "total": "9.00"}]}, outcomes=["applied", "superseded", "superseded", "applied"]),
]
BAD = [
    (case(given={"orders": [ROW]}, events=[], expect={"orders": []}), 'orders: expected no such row: {"id": "o-1"'),
    (case(events=[], expect={"orders": [ROW]}), 'orders: expected a row {"id": "o-1"'),
    (case(given={"orders": [ROW]}, events=[], expect={"orders": [{**ROW, "total": "10.01"}]}), "orders.total: expected 10.01, found 10"),
    (case(events=[short("Raised", by=1)], expect={"orders": []}), "an event failed: row missing in orders"),
    (case(events=[], error="row missing"), "error: expected row missing, found none"),
    (case(events=[short("Moved")], outcomes=["applied"]), 'outcomes: expected ["applied"], found ["ignored"]'),
    (case(events=[short("Stated")], expect={"orders": []}), "events[0] has an sql statement, which only a server can run"),
]


def test_cases_that_hold(folder):
    assert cases(folder, *GOOD).splitlines() == ["TAP version 13", f"1..{len(GOOD)}", *(f"ok {n} - {c['name']}" for n, c in enumerate(GOOD, 1))]


@pytest.mark.parametrize("bad, reason", BAD, ids=[reason for _, reason in BAD])
def test_a_case_that_does_not_hold_says_what_differs(folder, bad, reason):
    lines = cases(folder, GOOD[0], bad, status=1).splitlines()
    assert lines[2:4] == ["ok 1 - a row is written", "not ok 2 - a case"]
    assert any(line.startswith(f"# {reason}") for line in lines[4:]), lines


def test_junit(folder):
    suite = ElementTree.fromstring(cases(folder, GOOD[0], case('<&"', events=[], expect={"orders": [ROW]}), status=1, format="junit"))[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert [(c.get("name"), len(c.findall("failure"))) for c in suite] == [("a row is written", 0), ('<&"', 1)]


HOSTILE = ["# SKIP", "a # TODO later", "two\nnot ok 3 - lines", "\x1b[31m", "]]>", "\ufffe\uffff", "\\# ", "\r\x7f", "<a b='&amp;'>"]


def test_hostile_names_end_no_line_and_begin_no_directive_in_tap(folder):
    wrong = [case(name, events=[], expect={"orders": [ROW]}) for name in HOSTILE]
    lines = [line for line in cases(folder, *wrong, status=1).splitlines() if not line.startswith("# ")]
    assert lines[:2] == ["TAP version 13", f"1..{len(HOSTILE)}"] and len(lines) == 2 + len(HOSTILE)
    for number, line in enumerate(lines[2:], 1):
        assert line.startswith(f"not ok {number} - ") and not any(ord(c) < 32 or ord(c) == 127 for c in line)
        assert "#" not in line.replace("\\\\", "").replace("\\#", ""), line


def test_hostile_names_and_reasons_are_well_formed_junit(folder):
    wrong = [case(name, events=[], expect={"orders": [{**ROW, "kind": name[:10]}]}) for name in HOSTILE]
    suite = ElementTree.fromstring(cases(folder, *wrong, status=1, format="junit"))[0]
    assert [len(c.findall("failure")) for c in suite] == [1] * len(HOSTILE)
    assert [suite[n].get("name") for n in (0, 1, 4, 8)] == [HOSTILE[n] for n in (0, 1, 4, 8)]


NO_VALUES = [
    ({"$numberDecimal": "1,50"}, '$numberDecimal: expected a number of at most 34 digits, found "1,50"'),
    ({"$numberDouble": "abc"}, '$numberDouble: expected a string with a number that a double can hold, found "abc"'),
    ({"$date": "rubbish"}, '$date: expected a time like 2026-01-31T23:59:59.123Z, found "rubbish"'),
    ({"$oid": "x" * 24}, f'$oid: expected 24 hexadecimal digits, found "{"x" * 24}"'),
    ({"$timestamp": {"t": 4294967296, "i": 1}}, "$timestamp.t: expected an integer from 0 to 4294967295, found 4294967296"),
]


@pytest.mark.parametrize("value, message", NO_VALUES)
def test_what_is_no_value_is_refused_in_an_event(folder, value, message):
    """libbson reads it as 0, NaN or another value."""
    (folder / "event.json").write_text(json.dumps(event("Placed", kind="web", total=[value])))
    assert f"payload.total[0].{message}" in run(folder, str(folder / "event.json"), status=2)


@pytest.mark.parametrize("value, message", NO_VALUES)
def test_what_is_no_value_is_refused_in_a_case(folder, value, message):
    assert f"cases[0]: entities.orders[0].total.{message}" in cases(folder, case(events=[], entities={"orders": [{"total": value}]}), status=2)
    assert f"cases[0]: expect.orders[0].kind.{message}" in cases(folder, case(events=[], expect={"orders": [{**ROW, "kind": value}]}), status=2)


@pytest.mark.parametrize("value, message", NO_VALUES)
def test_what_is_no_value_is_refused_in_a_constant(folder, value, message):
    """The commands that need a mapping read them with the same function: a default, a value, a condition."""
    for path, change in (("columns.city.default", lambda p: p["columns"]["city"].update(default=value)),
                         ("columns.city.value", lambda p: p["columns"].update(city={"value": value, "type": "json"})),
                         ("when.is", lambda p: p.update(when={"path": "kind", "is": value})),
                         ("when.in[1]", lambda p: p.update(when={"path": "kind", "in": ["web", value]}))):
        mapping = json.loads(json.dumps(MAPPING))
        change(mapping["projections"][0])
        (folder / "mapping.json").write_text(json.dumps(mapping))
        assert f"projections[0].{path}.{message}" in run(folder, "--json", status=2)


@pytest.mark.parametrize("value, message", NO_VALUES)
def test_what_is_no_value_in_a_payload_of_text_is_the_events_failure(folder, value, message):
    mapping = json.loads(json.dumps(MAPPING))
    mapping["mongodb"]["layout"] = "debezium"
    (folder / "mapping.json").write_text(json.dumps(mapping))
    [report] = reports(folder, {"_id": "e-1", "aggregatetype": "order", "aggregateid": "o-1", "type": "Placed", "timestamp": 1700000000000,
                                "payload": json.dumps({"kind": "web", "total": value})}, status=1)
    assert (report["outcome"], report["error"]) == ("failed", f"payload.total.{message}")


@pytest.mark.parametrize("wrong, message", [
    (case(), "events: expected a list of event documents, found nothing"),
    (case(events=[], expected={}), "expected: unknown key"),
    (case(events=[short("Placed")]), "expect: expected at least one table (or outcomes, or an error), found nothing"),
    (case(events=[short("Placed")], expect={}), "expect: expected at least one table (or outcomes, or an error), found an object"),
    (case(events=[], expect=[]), "expect: expected an object of table and rows, found an empty array"),
    (case(events=[], expect={"orders": {}}), "expect.orders: expected a list of rows, found an object"),
    (case(events=[], expect={"orders": []}, entities={"orders": {}}), "entities.orders: expected a list of documents, found an object"),
    (case(events=[], expect={"orders": []}, entities={"order": []}), "entities.order: no projection reads this collection"),
    (case(events=[], expect={"orders": []}, outcomes={}), "outcomes: expected a list with the outcome of each event"),
    ({"events": []}, "name: expected a string"),
    (case(events=[], given={"nothing": []}), "given.nothing: no projection fills this table"),
    (case(events=[], given={"orders": [{"kind": "web"}]}), "given.orders[0].id: expected a value"),
    (case(events=[], given={"orders": [{"id": "o", "x": 1}]}), "it has a column that the projection does not fill"),
    (case(events=[], given={"orders": [{"id": "o", "total": "much"}]}), "value: expected decimal(9,2), found string of 4 bytes \"much\" that is no number"),
])
def test_a_wrong_file_of_cases_is_wrong_use(folder, wrong, message):
    error = cases(folder, wrong, status=2)
    assert message in error and "cases[0]" in error


@pytest.mark.parametrize("text, message", [
    ('{"cases": []}', "cases: expected at least one case, found an empty list"), ("[]", "cases: expected at least one case, found an empty list"),
    ("{}", "cases: expected a list of cases, found nothing"), ("", "cases.json:1:0:"),
    ('{"cases": [], "case": []}', "case: unknown key; known here: $schema, cases")])
def test_a_file_without_cases_is_wrong_use(folder, text, message):
    (folder / "cases.json").write_text(text)
    error = run(folder, "--expect", str(folder / "cases.json"), status=2)
    assert message in error and "cases.json" in error


@pytest.mark.parametrize("text", ["", " \n", "[]", "[[], []]"])
def test_input_without_an_event_is_wrong_use(folder, text):
    assert run(folder, stdin=text, status=2) == "projector: -: expected an event document, found none\n"


def test_a_thousand_cases_take_no_time_to_speak_of(folder):
    """If each took milliseconds, nobody would run them; compared with the time to start any program."""
    begun = time.monotonic()
    cases(folder, GOOD[0])
    empty = time.monotonic() - begun
    begun = time.monotonic()
    cases(folder, *GOOD * 200)
    assert time.monotonic() - begun < 1 + 10 * empty


def test_the_example_of_the_manual(tmp_path):
    """docs/try.md's cases pass with the bank's mapping."""
    text = (ROOT / "docs/try.md").read_text()
    (tmp_path / "cases.json").write_text(text.split("```json\n")[1].split("```")[0])
    done = subprocess.run([PROJECTOR, "try", "-c", str(ROOT / "demo/bank.json"), "--expect", str(tmp_path / "cases.json")], capture_output=True,
                          text=True, timeout=60)
    assert (done.returncode, done.stdout.count("\nok ")) == (0, 3), done.stdout + done.stderr
