"""Ids that a table's key cannot tell apart: `check` reports an error, and two aggregates never share a row."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from bson import Int64

PROJECTION = {"aggregate_type": "account", "table": "people", "entities": "people", "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}},
              "columns": {"name": {"from": "name", "type": "varchar(20)"}, "n": {"from": "n", "type": "int", "default": 0},
                          "gone": {"from": "gone", "type": "datetime(3)", "null": True}},
              "children": [{"table": "mail", "from": "mails", "default": [], "key": {"address": {"from": "$item", "type": "varchar(40)"}}}],
              "events": {"Put": {"op": "upsert"}, "Named": {"op": "update", "columns": ["name"]}, "Raised": {"op": "add", "columns": {"n": "by"}},
                         "Marked": {"op": "delete", "set": {"gone": "$occurred_at"}}, "Removed": {"op": "delete"}}}
PAIRS = [("ann", "Ann"), ("zoe", "zoé"), ("ann", "ann ")]


@pytest.fixture
def loose(ws, tmp_path):
    ws.environment["XDG_STATE_HOME"] = str(tmp_path / "state")
    ws.mapping([PROJECTION], backoff_ms=300000, gap_wait_ms=0)
    ws.create()
    for table in ("people", "mail"):
        ws.query(f"ALTER TABLE {table} MODIFY id VARCHAR(36) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL")
    return ws


def people(ws) -> list[tuple]:
    return [(row["id"], row["name"], row["n"], row["gone"]) for row in ws.rows("people")]


@pytest.mark.thorough
@pytest.mark.parametrize("one, other", PAIRS)
def test_the_second_of_two_ids_never_shares_the_first_ones_row(loose, one, other):
    loose.put(loose.event(one, "Put", name="first", mails=["a@b"]))
    loose.run_once()
    before = (people(loose), loose.rows("mail"))
    wrong = [loose.event(other, "Put", name="second", mails=["c@d"])]
    loose.put(wrong)
    loose.projector("run", "--once")
    error = loose.found(wrong[0])["last_error"]
    assert error["class"] == "data" and "found the row of an id that differs in case, accents or blanks" in error["message"]
    assert (people(loose), loose.rows("mail")) == before
    assert loose.projector("skip", str(wrong[0]["_id"])).returncode == 0
    for type, payload in (("Named", {"name": "second"}), ("Raised", {"by": 5})):
        event = loose.event(other, type, **payload)
        loose.put(event)
        loose.projector("run", "--once")
        assert loose.found(event)["last_error"]["message"] == "row missing in people"
        assert loose.projector("skip", str(event["_id"])).returncode == 0
    loose.put(loose.event(other, "Marked"), loose.event(other, "Removed"))
    loose.run_once()
    assert (people(loose), loose.rows("mail")) == before
    loose.put(loose.event(one, "Put", name="changed", mails=["a@b"]), loose.event(one, "Raised", by=1))
    loose.run_once()
    assert people(loose) == [(one, "changed", 1, None)]


def test_both_of_one_batch_fail_or_one_does(loose):
    events = [loose.event("ann", "Put", name="x"), loose.event("Ann", "Put", name="y"), loose.event("bob", "Put", name="z")]
    loose.put(events)
    loose.projector("run", "--once")
    assert [p[:2] for p in people(loose)] == [("ann", "x"), ("bob", "z")]
    assert loose.found(events[1])["last_error"]["class"] == "data"


def findings(ws) -> str:
    done = ws.projector("check")
    return "\n".join(line for line in done.stdout.splitlines() if line.startswith("error")), done.returncode


@pytest.mark.thorough(beyond=5)
@pytest.mark.parametrize("one, other", PAIRS + [("7", 7), ("7", Int64(7))])
@pytest.mark.parametrize("where", ["outbox", "entities", "positions", "both"])
def test_check_finds_them_where_they_are(loose, one, other, where):
    if where == "outbox":
        loose.put(loose.event(one, "Put", name="a"), loose.event(other, "Put", name="b"))
    elif where == "entities":
        loose.db["people"].insert_many([{"_id": id, "name": "x", "version": Int64(1)} for id in (one, other)])
    elif where == "positions":
        loose.put(loose.event(one, "Put", name="a"), loose.event(other, "Removed"))
        loose.run_once()
    else:
        loose.put(loose.event(one, "Put", name="a"))
        loose.db["people"].insert_one({"_id": other, "name": "x", "version": Int64(1)})
    text, status = findings(loose)
    assert status == 2
    assert "projections[0].key.id: " in text and f'"{one}"' in text and str(other) in text


def test_check_is_content_with_ids_that_the_key_tells_apart(ws):
    ws.mapping([PROJECTION])
    ws.create()
    ws.put(*(ws.event(id, "Put", name="x") for pair in PAIRS for id in pair))
    assert findings(ws) == ("", 0)


ALONE = {key: value for key, value in PROJECTION.items() if key != "children"}
HEX = "c0ffee00-1111-4222-8333-444455556666"


@pytest.mark.thorough(beyond=1)
@pytest.mark.parametrize("type, ids", [
    ("uuid", [HEX, HEX.upper()]), ("uuid", [HEX, UUID(HEX)]),
    ("decimal(9,2)", ["7", "7.0"]), ("decimal(9,2)", ["7.00", 7]),
    ("datetime(3)", ["2026-01-01T00:00:00Z", "2026-01-01T02:00:00+02:00"]),
])
def test_check_finds_ids_that_are_one_value_of_a_key_of_another_type(ws, type, ids):
    ws.mapping([{**ALONE, "key": {"id": {"from": "$aggregate_id", "type": type}}}])
    ws.create()
    ws.put(*(ws.event(id, "Put", name="x") for id in ids))
    text, status = findings(ws)
    assert status == 2 and "would share a row" in text and all(str(id) in text for id in ids), text


@pytest.mark.parametrize("loose_table", ["people", "mail"])
def test_check_looks_at_the_key_of_each_table(ws, loose_table):
    """A child's table may have a collation of its own: then the second one's items meet the first one's."""
    ws.mapping([PROJECTION], backoff_ms=300000, gap_wait_ms=0)
    ws.create()
    ws.query(f"ALTER TABLE {loose_table} MODIFY id VARCHAR(36) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL")
    ws.put(ws.event(id, "Put", name="x", mails=["a@b"]) for id in ("ann", "Ann", "ANN"))
    text, status = findings(ws)
    lines = [line for line in text.splitlines() if "considers the ids" in line]
    assert status == 2 and len(lines) == 2 and all(f"the collation of {loose_table}.id" in line for line in lines), text


def test_ids_that_are_one_in_several_tenants_are_a_warning(loose):
    key = {"tenant": {"from": "tenant", "type": "varchar(20)"}, **PROJECTION["key"]}
    loose.query("DROP TABLE people, mail")
    loose.mapping([{**ALONE, "key": key}])
    loose.create()
    loose.query("ALTER TABLE people MODIFY id VARCHAR(36) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL")
    ids = (("ann", "t1"), ("Ann", "t2"), ("7", "t1"), (7, "t2"))
    loose.put(loose.event(id, "Put", name="a", tenant=tenant) for id, tenant in ids)
    done = loose.projector("check")
    assert done.returncode == 0 and "would share a row" in done.stdout and "considers the ids" in done.stdout, done.stdout


@pytest.mark.thorough(beyond=1)
@pytest.mark.parametrize("type, usual, others", [
    ("uuid", HEX, [HEX.upper(), HEX.title()]),
    ("decimal(20,0)", "7", ["07", "+7", "7.0", "7e0", "70e-1"]),
    ("decimal(9,2)", "7.5", ["7.50", "07.5", "+7.5", "75e-1"]),
    ("decimal(9,2)", "0", ["-0", "0.0", "00"]),
])
def test_an_id_in_another_spelling_fails_instead_of_sharing_the_row(ws, tmp_path, type, usual, others):
    ws.environment["XDG_STATE_HOME"] = str(tmp_path / "state")
    rename = {"op": "sql", "statement": "UPDATE alone SET name = :name WHERE id = :$aggregate_id"}
    any_row = {"op": "sql", "statement": "UPDATE alone SET name = :name WHERE id = :$aggregate_id LIMIT 1"}
    ws.mapping([{**ALONE, "table": "alone", "key": {"id": {"from": "$aggregate_id", "type": type}},
                 "events": {**ALONE["events"], "Renamed": rename, "Changed": any_row}}], backoff_ms=300000, gap_wait_ms=0)
    ws.create()
    ws.put(ws.event(usual, "Put", name="first"))
    ws.run_once()
    before = ws.rows("alone")
    wrong = [ws.event(other, kind, name="second") for other, kind in zip(others, ["Put", "Renamed", "Changed", "Put", "Put"])]
    ws.put(wrong)
    ws.projector("run", "--once")
    for event in wrong:
        error = ws.found(event)["last_error"]
        assert error["class"] == "data" and "$aggregate_id: expected" in error["message"] \
            and f'found "{event["aggregate_id"]}"' in error["message"], error
    assert ws.rows("alone") == before
    ws.outbox.delete_many({})
    ws.db["people"].insert_many({"_id": id, "name": "first", "version": Int64(1)} for id in (usual, others[0]))
    done = ws.projector("reconcile", "--json")
    differences = [line for line in map(json.loads, done.stdout.splitlines()) if "difference" in line]
    assert done.returncode == 1 and [line["aggregate_id"] for line in differences] == [others[0]], done.stdout
    assert "another spelling" in differences[0]["reason"]


@pytest.mark.parametrize("type, ids", [("bigint", ["7", "007"]), ("int", ["7"]), ("date", ["2026-1-1"])])
def test_texts_are_no_ids_for_a_key_of_numbers_or_dates(ws, type, ids):
    """So no two spellings meet there."""
    ws.mapping([{**ALONE, "key": {"id": {"from": "$aggregate_id", "type": type}}}], backoff_ms=300000)
    ws.create()
    events = [ws.event(id, "Put", name="x") for id in ids]
    ws.put(events)
    ws.projector("run", "--once")
    assert all(f"expected {type}" in ws.found(event)["last_error"]["message"] for event in events)
    assert ws.rows(ALONE["table"]) == []
