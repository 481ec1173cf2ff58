"""Mappings that nobody should write: each is refused with a line that explains why, or does what it says."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from typing import Any, Callable

import jsonschema
import pytest
from workspace import PROJECTOR, ROOT

PROJECTION = {
    "aggregate_type": "order", "table": "orders", "entities": "orders", "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}},
    "columns": {"kind": {"from": "kind", "type": "varchar(10)", "null": True}, "n": {"from": "n", "type": "int", "default": 0},
                "gone": {"from": "gone", "type": "datetime(3)", "null": True}},
    "children": [{"table": "line", "from": "lines", "default": [], "key": {"no": {"from": "$index", "type": "int"}},
                  "columns": {"sku": {"from": "$item.sku", "type": "varchar(9)", "null": True}}}],
    "events": {"Put": {"op": "upsert"}, "Removed": {"op": "delete"}}}


@pytest.fixture
def mapped(tmp_path: Path) -> Callable:
    """What events do under a changed mapping; a text if the mapping is refused."""
    def run(change: Callable[[dict], Any], *events: tuple) -> list[dict] | str:
        file = tmp_path / "m.json"
        file.write_text(json.dumps(mapping_of(change)))
        documents = [{"_id": f"e{n}", "aggregate_type": "order", "aggregate_id": "o", "event_type": type, "payload": payload,
                      "occurred_at": {"$date": f"2026-01-01T00:00:{n:02}Z"}} for n, (type, payload) in enumerate(events)]
        done = subprocess.run([PROJECTOR, "try", "-c", str(file), "--json"], input=json.dumps(documents), capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, 1, 2), done.stderr
        return done.stderr if done.returncode == 2 else [json.loads(line) for line in done.stdout.splitlines()]
    return run


def child(projection: dict) -> dict:
    return projection["children"][0]


def event(type: str, **rule) -> Callable[[dict], Any]:
    return lambda p: p["events"].update({type: rule})


REFUSED = [
    (lambda p: child(p).update(table="ORDERS"), "another projection fills ORDERS already"),
    (lambda p: child(p).update(table="projector_applied"), "a table that is not the projector's own"),
    (lambda p: child(p)["key"].update(ID={"from": "$index", "type": "int"}), "key.ID: this column is named twice"),
    (lambda p: child(p)["columns"].update(id={"from": "$item.x", "type": "int"}), "columns.id: this column is named twice"),
    (lambda p: p.update(children=[*p["children"], {**child(p), "table": "Line"}]), "another projection fills Line already"),
    (lambda p: child(p).update(default=5), "children[0].default: expected [], found 5"),
    (lambda p: child(p).update(default=[{"sku": 5}]), "children[0].default: expected []"),
    (lambda p: child(p).update({"from": "$payload"}), "expected the path of an array in the payload, found $payload"),
    (lambda p: child(p).update({"from": ["lines", "$metadata.x"]}), "expected the path of an array in the payload, found $metadata.x"),
    (event("U", op="update", columns={"line": "$version"}), "expected the path of an array in the payload, found $version"),
    (event("U", op="update", columns={"line": {"value": []}}), "unknown key; known here: from, default"),
    (event("U", op="update", columns=["line", "LINE"]), "this child table is named twice"),
    (event("S", op="delete", set={"gone": {"value": None}}), "S.set.gone: expected a value, which marks a deleted row, found null"),
    (event("S", op="delete", set={"gone": {"value": "never"}}), 'found string of 5 bytes "never" that is no time written'),
    (event("S", op="delete", set={"n": {"value": 1}}), 'at least one column with "null": true'),
    (event("S", op="delete", set={"line": "lines"}), "which only an update can name"),
    (event("S", op="delete", set={"id": "x"}), "which is part of the key"),
    (lambda p: p.update(always=["n", "N"]), "always[1]: this column is named twice"),
    (lambda p: p.update(always=["line"]), "always[0]: expected one of the projection's columns"),
    (lambda p: p["columns"]["n"].update(default="x"), "default: expected int, found string of 1 bytes"),
    (lambda p: p["columns"]["n"].update(default=None), "default: expected int, found null"),
    (lambda p: p["columns"].update(e={"from": "e", "type": "enum('a','a')"}), "columns.e.type: expected"),
    (lambda p: p["columns"].update(e={"from": "e", "type": "enum('a ')"}), "columns.e.type: expected"),
    (lambda p: p["columns"].update(j={"value": {"a": [{"$numberDecimal": "12,50"}]}, "type": "json"}), 'columns.j.value.a[0].$numberDecimal: expected a number of at most 34 digits, found "12,50"'),
    (lambda p: p.update(when={"path": "kind", "is": {"$numberDecimal": "12,50"}}), "when.is.$numberDecimal: expected"),
    (lambda p: p.update(when={"path": "kind", "in": []}), "when.in: expected a list of at least one value"),
    (lambda p: p.update(when={"path": "$event_type", "is": "x"}), "a path that an entity has too"),
    (lambda p: p["columns"]["kind"].update({"from": "/a~"}), "columns.kind.from: expected"),
    (lambda p: p["columns"]["kind"].update({"from": ""}), "columns.kind.from: expected"),
    (lambda p: p["columns"]["kind"].update({"from": "$payload"}), "columns.kind: expected $payload on a column of type json alone"),
    (lambda p: child(p)["columns"]["sku"].update({"from": ["$item.sku", "$payload"]}), "children[0].columns.sku: expected $payload on"),
    (event("U", op="update", columns={"kind": "$payload"}), "events.U.columns.kind: expected $payload on a column of type json alone"),
    (event("A", op="add", columns={"n": "$payload"}), "events.A.columns.n: expected $payload on a column of type json alone"),
]

# What the schema cannot say: it compares no two places of a file, and reads no value by the type of its column.
BEYOND_THE_SCHEMA = ("already", "named twice", "child table", "only an update can name", "part of the key", "found $version", "unknown key; known here: from, default",
                     "which marks a deleted row", 'is no time written', '"null": true', "one of the projection's columns", "found string of 1 bytes",
                     "columns.e.type: expected", "$payload on a column")


def mapping_of(change: Callable[[dict], Any]) -> dict:
    projection = copy.deepcopy(PROJECTION)
    change(projection)
    return {"name": "x", "mongodb": {"uri": "mongodb://127.0.0.1:1", "database": "d"}, "mysql": {"user": "u", "database": "d"},
            "projections": [projection]}


def objections(mapping: dict) -> list[str]:
    schema = json.loads((ROOT / "docs/projector.schema.json").read_text())
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(mapping)]


@pytest.mark.parametrize("change, reason", REFUSED, ids=range(len(REFUSED)))
def test_the_schema_refuses_what_it_can_say(change, reason):
    assert objections(mapping_of(change)) or any(words in reason for words in BEYOND_THE_SCHEMA)


EXTENDED = [{"$oid": "0123456789abcdefABCDEF01"}, {"$uuid": "0190a000-0000-7000-8000-000000000001"}, {"$numberInt": "-5"}, {"$numberLong": "5"},
            {"$numberDouble": "-Infinity"}, {"$numberDouble": "1.5E+3"}, {"$numberDecimal": "-1.5e3"}, {"$numberDecimal": "NaN"}, {"$numberDecimal": "inf"},
            {"$date": 5}, {"$date": {"$numberLong": "5"}}, {"$date": "2026-01-31T23:59Z"}, {"a": True, "$date": "never"}, [{"$minKey": 1}],
            {"$binary": {"base64": "", "subType": "00"}}, {"$binary": "", "$type": "00"}, {"$regex": "", "$options": ""}, [[None]], {}]
NO_VALUE = [{"$oid": "x"}, {"$uuid": "x"}, {"$numberInt": "1.5"}, {"$numberLong": 5}, {"$numberDouble": "abc"}, {"$numberDouble": ".5"},
            {"$numberDecimal": "1,5"}, {"$date": "rubbish"}, {"$date": {"$numberLong": 5}}, {"$date": {}}, [{"a": {"$oid": ""}}]]


@pytest.mark.thorough(beyond=7)
@pytest.mark.parametrize("value, good", [*((value, True) for value in EXTENDED), *((value, False) for value in NO_VALUE)], ids=json.dumps)
def test_schema_and_program_agree_on_constants(mapped, value, good):
    for change in (lambda p: p["columns"].update(j={"value": value, "type": "json"}),
                   lambda p: p["columns"].update(j={"from": "j", "default": value, "type": "json", "null": True}),
                   lambda p: p["events"].update(S={"op": "update", "columns": {"kind": {"from": "kind"}}, "when": {"path": "x", "in": [value]}})):
        done = mapped(change, ("Removed", {}))
        scalar = not isinstance(value, list) or "when" not in json.dumps(mapping_of(change))
        assert isinstance(done, list) == (good and scalar), done
        assert bool(objections(mapping_of(change))) != (good and scalar)


@pytest.mark.parametrize("condition", [{"path": "$event_type", "is": 1}, {"path": ["kind", "$metadata.x"], "exists": True}, {"path": "$aggregate_id", "is": 1},
                                       {"not": {"any": [{"all": [{"path": "$version", "is": 1}]}]}}, {"path": "$payload", "exists": True}])
def test_schema_and_program_agree_on_what_an_entity_has(mapped, condition):
    change = lambda p: p.update(when=condition)  # noqa: E731
    assert isinstance(mapped(change, ("Removed", {})), str) == bool(objections(mapping_of(change)))


@pytest.mark.parametrize("type", ["int", "json", "varchar(5)", "datetime(3)"])
@pytest.mark.parametrize("more", [{}, {"null": True}, {"null": False}])
@pytest.mark.parametrize("of", [lambda p: p, child], ids=["projection", "child"])
def test_schema_and_program_agree_on_a_constant_null(mapped, type, more, of):
    for null in {"from": "d", "default": None}, {"value": None}:
        change = lambda p: of(p)["columns"].update(d={**null, "type": type, **more})  # noqa: E731
        assert isinstance(mapped(change, ("Removed", {})), str) == bool(objections(mapping_of(change)))


@pytest.mark.parametrize("change, reason", REFUSED)
def test_what_can_be_known_is_refused_at_once(mapped, change, reason):
    refusal = mapped(change)
    assert isinstance(refusal, str) and reason in refusal and "projections[0]" in refusal, refusal


def nested(depth: int) -> dict:
    condition = {"path": "kind", "exists": True}
    for _ in range(depth):
        condition = {"not": condition}
    return condition


def test_conditions_are_nested_sixteen_deep(mapped):
    assert mapped(lambda p: p.update(when=nested(15)), ("Put", {}))[0]["outcome"] == "applied"
    assert "16 deep" in mapped(lambda p: p.update(when=nested(17)))


NUMBERS = [1, 1.0, {"$numberLong": "1"}, {"$numberDecimal": "1.00"}]
OTHERS = [True, "1", None, {"$numberDecimal": "NaN"}, {"$numberDouble": "NaN"}, 2, {"$numberDecimal": "1.0000000000000000001"}, {"$date": "1970-01-01T00:00:00.001Z"}]


@pytest.mark.parametrize("wanted", NUMBERS + OTHERS, ids=str)
def test_is_compares_numbers_by_value_and_all_else_by_type(mapped, wanted):
    values = NUMBERS + OTHERS
    done = mapped(lambda p: p.update(when={"path": "v", "is": wanted}), *(("Put", {"v": value}) for value in values))
    found = [value for value, report in zip(values, done) if [change["change"] for change in report["changes"]] == ["write"]]
    assert found == (NUMBERS if wanted in NUMBERS and wanted is not True else [wanted])


@pytest.mark.parametrize("pointer, found", [("/a~1b", "slash"), ("/a~0b", "tilde"), ("/", "empty"), ("/l/0", "first"), ("/l/00", None), ("/l/-", None),
                                            ("/l/1//x", "deep"), ("/$id", "dollar"), ("/a.b", "dot")])
def test_pointers(mapped, pointer, found):
    payload = {"a/b": "slash", "a~b": "tilde", "": "empty", "l": ["first", {"": {"x": "deep"}}], "$id": "dollar", "a.b": "dot"}
    [done] = mapped(lambda p: p["columns"]["kind"].update({"from": pointer}), ("Put", payload))
    assert done["changes"][0]["columns"]["kind"] == found


def changes(report: dict) -> list[tuple]:
    return [(c["table"], c["change"], c["key"].get("no"), c["columns"].get("sku")) for c in report["changes"] if c["table"] == "line"]


@pytest.mark.parametrize("lines, outcome", [({"a": 1}, "failed"), (None, "failed"), ("x", "failed"), ([1, "x", None, [1]], "applied"), ([], "applied")])
def test_what_is_no_array_fails_and_items_need_be_no_documents(mapped, lines, outcome):
    [done] = mapped(lambda p: None, ("Put", {"lines": lines}))
    assert done["outcome"] == outcome
    assert changes(done) == ([("line", "write", str(n), None) for n in range(len(lines))] if outcome == "applied" else [])


@pytest.mark.parametrize("type, one, other", [("int", 1, 1.0), ("decimal(9,2)", {"$numberDecimal": "1.0"}, "1.00"), ("varchar(9)", 7, "7"),
                                              ("datetime(3)", "2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00")])
def test_keys_that_become_one_value_are_one_key(mapped, type, one, other):
    [done] = mapped(lambda p: child(p).update(key={"k": {"from": "$item.k", "type": type}}), ("Put", {"lines": [{"k": one}, {"k": other}]}))
    assert done["outcome"] == "failed" and "found items 0 and 1 with one key" in done["error"]


def test_a_key_of_an_item_is_never_null(mapped):
    [done] = mapped(lambda p: child(p).update(key={"k": {"from": "$item.k", "type": "int"}}), ("Put", {"lines": [{"k": None}]}))
    assert done["error"] == "orders: line, item 0 of lines: $item.k: expected int, found null"


@pytest.mark.thorough
def test_ten_thousand_items_and_what_replaces_them(mapped):
    first, second = mapped(lambda p: None, ("Put", {"lines": [{"sku": str(n)} for n in range(10000)]}), ("Put", {"lines": [{"sku": "0"}, {"sku": "x"}]}))
    assert len(changes(first)) == 10000
    assert sorted(changes(second)) == sorted([("line", "write", "1", "x")] + [("line", "delete", str(n), None) for n in range(2, 10000)])


def test_an_update_of_children_may_say_what_is_missing(mapped):
    rules = {"U": {"op": "update", "columns": {"line": {"from": ["new", "more"], "default": []}}}}
    done = mapped(lambda p: p["events"].update(rules), ("Put", {"lines": [{"sku": "a"}, {"sku": "b"}]}), ("U", {"more": [{"sku": "a"}]}), ("U", {}))
    assert [changes(d) for d in done[1:]] == [[("line", "delete", "1", None)], [("line", "delete", "0", None)]]
    assert any(sql.startswith("DELETE t FROM") and "`line`" in sql for sql in done[2]["sql"])


def test_an_upsert_after_a_delete_and_a_delete_leave_no_children_behind(mapped):
    done = mapped(lambda p: None, ("Put", {"lines": [{"sku": "a"}]}), ("Removed", {}), ("Put", {"lines": [{"sku": "b"}]}), ("Removed", {}), ("Removed", {}))
    assert [changes(d) for d in done[1:]] == [[("line", "delete", "0", None)], [("line", "write", "0", "b")], [("line", "delete", "0", None)], []]


@pytest.mark.parametrize("type, value, said", [
    ("datetime(3)", "2026-01-31T12:00:00.1234Z", "no time written 2024-01-31T12:34:56.789Z"),
    ("datetime(0)", "2026-01-31T12:00:00.1Z", "no time written 2024-01-31T12:34:56Z"),
    ("datetime(6)", "2026-02-29T12:00:00Z", "no time written 2024-01-31T12:34:56.789012Z"),
    ("timestamp(1)", "2026-01-31", "no time written 2024-01-31T12:34:56.7Z"),
    ("timestamp(3)", "2038-01-19T03:14:08Z", "not between 1970-01-01T00:00:01Z and 2038-01-19T03:14:07Z"),
    ("date", "2026-02-30", "no date written 2024-01-31")])
def test_a_reason_says_how_a_time_is_written_in_its_column(mapped, type, value, said):
    [done] = mapped(lambda p: p["columns"]["kind"].update(type=type), ("Put", {"kind": value}))
    assert done["error"] == f'orders: payload.kind: expected {type}, found string of {len(value)} bytes "{value}" that is {said}'


@pytest.mark.parametrize("value, said", [
    ({"a": [1, {"b": {"$numberDecimal": "NaN"}}], "c": {"$numberDouble": "Infinity"}}, "found Decimal128 NaN in a.1.b that"),
    ([{"$date": {"$numberLong": "253402300800000"}}], "found date out of range in 0 that"),
    ({"x" * 100: {"$numberDouble": "NaN"}}, f"found double nan in {'x' * 59} that"),
    ({"$numberDouble": "NaN"}, "found double nan that")])
def test_a_reason_names_the_value_that_plain_json_does_not_hold(mapped, value, said):
    """In a large document it would be looked for in vain."""
    [done] = mapped(lambda p: p["columns"].update(doc={"from": "doc", "type": "json", "json": "plain"}), ("Put", {"doc": value}))
    assert done["error"] == f"orders: payload.doc: expected json, {said} plain JSON does not hold exactly"


def test_values_in_reasons_are_shortened(mapped):
    [done] = mapped(lambda p: None, ("Put", {"n": "x" * 100}))
    assert done["error"] == f'orders: payload.n: expected int, found string of 100 bytes "{"x" * 60}"…'
