"""Ids that differ in kind alone, as the string "7" and the number 7: the first one has the row, the other fails at its first event."""

from __future__ import annotations

import json
import re
import uuid
from datetime import datetime

import pytest
from bson import Int64, ObjectId

from workspace import Workspace, decimal

SLOW = {"backoff_ms": 300000}  # failed events stay failed during the test
U, O = uuid.UUID("c0ffee00-1111-4222-8333-444455556666"), ObjectId("c0ffee0011112222aaaabbbb")
KINDS = [("7", 7), (Int64(-7), "-7"), (str(U), U), (U, str(U)), (str(O), O), (O, str(O))]
PLAIN = {"aggregate_type": "thing", "table": "thing", "entities": "things", "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}},
         "columns": {"name": {"from": "name", "type": "varchar(20)"}},
         "events": {"Put": {"op": "upsert"}, "Renamed": {"op": "update", "columns": ["name"]}, "Gone": {"op": "delete"},
                    "Seen": {"op": "ignore"}}}


def thing(ws: Workspace, aggregate_id, event_type: str = "Put", name: str = "") -> dict:
    return {**ws.event(aggregate_id, event_type, name=name), "aggregate_type": "thing"}


def things(ws: Workspace) -> list[tuple]:
    return [(row["id"], row["name"]) for row in ws.rows("thing")]


def prepared(ws: Workspace, key_type: str = "varchar(36)", **more) -> None:
    ws.mapping([{**PLAIN, "key": {"id": {"from": "$aggregate_id", "type": key_type}}}], **{**SLOW, **more})
    ws.create()


def check_refused(ws: Workspace, event: dict, owner: str) -> None:
    error = ws.found(event)["last_error"]
    assert error["class"] == "data" and f"in thing they have the key of the {owner} with the same text" in error["message"] and "refresh --id-kind" in error["message"] \
        and error["message"].endswith(f'found "{event["aggregate_id"]}"'), error


def name_of(aggregate_id) -> str:
    return {str: "string", int: "int", Int64: "int", uuid.UUID: "uuid", ObjectId: "objectid"}[type(aggregate_id)]


@pytest.mark.parametrize("one, other", KINDS)
def test_the_first_event_of_the_second_one_fails(ws, one, other):
    prepared(ws)
    ws.put(thing(ws, one, name="first"))
    ws.run_once()
    second, behind = thing(ws, other, name="second"), thing(ws, other, "Renamed", name="later")
    ws.put(second, behind, thing(ws, one, "Renamed", name="still its own"))
    done = ws.projector("run", "--once")
    assert things(ws) == [(str(one), "still its own")]
    check_refused(ws, second, name_of(one))
    assert ws.found(behind) is not None and "the same text" in done.stderr and f'found "{other}"' not in done.stderr


@pytest.mark.parametrize("one, other", KINDS)
def test_of_two_in_one_batch_the_earlier_one_has_the_row(ws, one, other):
    prepared(ws)
    second = thing(ws, other, name="second")
    ws.put(thing(ws, one, name="first") | {"occurred_at": datetime(2026, 1, 1)}, second)
    ws.projector("run", "--once")
    assert things(ws) == [(str(one), "first")]
    check_refused(ws, second, name_of(one))


@pytest.mark.parametrize("key_type, one, other", [("decimal(9,2)", "7", 7), ("decimal(20,0)", 7, "7"), ("uuid", U, str(U)), ("char(36)", str(U), U)])
def test_keys_of_other_types(ws, key_type, one, other):
    prepared(ws, key_type)
    ws.put(thing(ws, one, name="first"))
    ws.run_once()
    second = thing(ws, other, "Gone")
    ws.put(second)
    ws.projector("run", "--once")
    assert [name for _, name in things(ws)] == ["first"]
    check_refused(ws, second, name_of(one))


def test_many_at_once_whatever_the_worker(ws):
    prepared(ws, workers=4)
    numbers = range(400)
    events = [thing(ws, n if half else str(n), name=f"{half}") for half in (0, 1) for n in numbers]
    with ws.start_projector() as process:
        process.wait_log("owner")
        ws.outbox.insert_many(events, ordered=False)
        ws.wait(lambda: ws.outbox.count_documents({"status": "failed"}) == len(numbers), what="the second of each pair to fail")
    assert len(things(ws)) == len(numbers)
    left = {str(e["aggregate_id"]): e["payload"]["name"] for e in ws.outbox.find()}
    assert {id: {"0": "1", "1": "0"}[name] for id, name in left.items()} == dict(things(ws))


def test_what_was_ignored_or_skipped_takes_no_row(ws):
    prepared(ws)
    ws.put(thing(ws, "7", "Seen"), thing(ws, 7, name="first"), thing(ws, 8, name="of the int"), thing(ws, "8", "Seen"))
    ws.run_once()
    eight = thing(ws, "8", name="of the string")
    ws.put(thing(ws, 7, "Renamed", name="its own"), eight)
    ws.projector("run", "--once")
    assert things(ws) == [("7", "its own"), ("8", "of the int")]
    check_refused(ws, eight, "int")
    assert ws.projector("skip", str(eight["_id"])).returncode == 0
    again = thing(ws, "8", "Gone")
    ws.put(again)
    ws.projector("run", "--once")
    check_refused(ws, again, "int")
    assert things(ws) == [("7", "its own"), ("8", "of the int")]


def test_a_further_part_of_the_key_tells_them_apart(ws):
    key = {"tenant": {"from": "tenant", "type": "varchar(20)"}, **PLAIN["key"]}
    ws.mapping([{**PLAIN, "key": key, "events": {"Put": {"op": "upsert"}}}])
    ws.create()
    ws.put([{**thing(ws, id), "payload": {"name": "x", "tenant": tenant}} for id, tenant in (("7", "a"), (7, "b"))])
    ws.run_once()
    assert len(ws.rows("thing")) == 2 and ws.outbox.count_documents({}) == 0


def test_refresh_gives_the_row_to_the_one_that_is_named(ws):
    prepared(ws)
    ws.put(thing(ws, "7", name="first"))
    ws.run_once()
    ws.db["things"].insert_one({"_id": 7, "version": Int64(1), "name": "of the int", "last_event_at": datetime(2026, 1, 1)})
    ws.put({**thing(ws, 7, name="of the int"), "version": Int64(1)})
    ws.projector("run", "--once")
    assert things(ws) == [("7", "first")]
    assert ws.projector("refresh", "thing", "7", "--id-kind", "int").returncode == 0
    assert things(ws) == [("7", "of the int")]
    ws.run_once()
    assert ws.outbox.count_documents({}) == 0


def test_try_says_the_same(ws, tmp_path):
    ws.mapping([PLAIN])
    file = tmp_path / "events.json"
    file.write_text(json.dumps([{"_id": f"e{i}", "aggregate_type": "thing", "aggregate_id": id, "event_type": "Put", "version": 1,
                                 "occurred_at": {"$date": "2026-01-01T00:00:00Z"}, "payload": {"name": "x"}} for i, id in enumerate(["7", 7])]))
    done = ws.projector("try", str(file))
    assert done.returncode == 1 and re.search("in thing they have the key of the string with the same text", done.stdout), done.stdout
