"""`when`: what a condition excludes is ignored or has no row, on every path that writes or compares rows."""

from __future__ import annotations

import json
from datetime import timedelta

from bson import Int64
from test_projector_reconcile import state_folder

__all__ = ["state_folder"]

KEY = {"id": {"from": "$aggregate_id", "type": "varchar(36)"}}


def orders(**more) -> dict:
    return {"aggregate_type": "account", "table": "orders", "entities": "orders",
            "when": {"path": "kind", "in": ["web", "shop"]}, "key": KEY,
            "columns": {"kind": {"from": "kind", "type": "varchar(10)"}, "city": {"from": "city", "type": "varchar(20)", "default": ""}},
            "events": {"Placed": {"op": "upsert"}, "Closed": {"op": "delete"},
                       "Moved": {"op": "update", "columns": ["city"], "when": {"path": "city", "exists": True}}}, **more}


def prepared(ws, *projections: dict, **settings) -> None:
    ws.mapping(list(projections) or [orders()], backoff_ms=300000, **settings)
    ws.create()


def entity(ws, id: str, version: int, **fields) -> None:
    ws.db["orders"].replace_one({"_id": id}, {"_id": id, "version": Int64(version), **fields}, upsert=True)


def table(ws, name: str = "orders") -> dict[str, str]:
    return {row["id"]: row["kind"] for row in ws.rows(name)}


def lines(done) -> list[dict]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def findings(ws, *arguments: str, status: int) -> list[tuple]:
    done = ws.projector("reconcile", "--json", *arguments)
    assert done.returncode == status, done.stderr
    return [(d["difference"], d.get("aggregate_id")) for d in lines(done) if "difference" in d]


def outcome(ws, event: dict) -> str | None:
    return ws.ledger().get(str(event["_id"]))


def position(ws, id: str) -> int:
    [row] = ws.query("SELECT max_version FROM projector_position WHERE aggregate_id = %s", id)
    return row["max_version"]


def test_an_event_that_does_not_match_its_rule_is_ignored(ws):
    prepared(ws)
    placed = ws.event("o-1", "Placed", version=1, kind="web", city="Bern")
    without, moved = ws.event("o-1", "Moved", version=2), ws.event("o-1", "Moved", version=3, city="Basel")
    ws.put(placed, without, moved)
    ws.run_once()
    assert [outcome(ws, e) for e in (placed, without, moved)] == ["applied", "ignored", "applied"]
    assert ws.rows("orders") == [{"id": "o-1", "kind": "web", "city": "Basel"}]


def test_an_ignored_event_never_counts_as_overwriting_what_comes_late(ws):
    """The upsert that does not match left the row as it was, so the older event still matters."""
    upsert_of_web = {"op": "upsert", "when": {"path": "kind", "is": "web"}}
    prepared(ws, orders(when={"path": "kind", "exists": True}, events={"Placed": upsert_of_web}))
    web = ws.event("o-1", "Placed", kind="web", city="Bern")
    phone = ws.event("o-1", "Placed", kind="phone", city="")
    ws.put(phone)
    ws.run_once()
    ws.put(web)
    ws.run_once()
    assert outcome(ws, phone) == "ignored"
    assert table(ws) == {"o-1": "web"}


def test_a_conditional_upsert_that_comes_late_is_taken_from_the_entity(ws):
    """Newer events may have left columns out, so superseding it would lose its values."""
    prepared(ws, orders(events={"Placed": {"op": "upsert"}, "Moved": {"op": "upsert", "when": {"path": "kind", "is": "web"}}}))
    late = ws.event("o-1", "Placed", version=1, kind="shop", city="Bern")
    newer = ws.event("o-1", "Moved", version=2, kind="web", city="Basel")
    entity(ws, "o-1", 2, kind="web", city="Chur")
    ws.mapping([orders(events={"Placed": {"op": "upsert"}, "Moved": {"op": "upsert", "when": {"path": "kind", "is": "web"}}})], gap_wait_ms=0)
    ws.put(newer)
    ws.run_once()
    ws.put(late)
    ws.run_once()
    assert outcome(ws, late) == "superseded"
    assert ws.rows("orders") == [{"id": "o-1", "kind": "web", "city": "Chur"}]


def test_an_upsert_that_does_not_match_removes_the_row_and_an_older_state_cannot_come_back(ws):
    prepared(ws, gap_wait_ms=0)
    web, phone = ws.event("o-1", "Placed", version=1, kind="web"), ws.event("o-1", "Placed", version=3, kind="phone")
    older = ws.event("o-1", "Placed", version=2, at=phone["occurred_at"] - timedelta(microseconds=500), kind="shop")
    older["occurred_at"] = web["occurred_at"]
    ws.put(web)
    ws.run_once()
    assert table(ws) == {"o-1": "web"}
    ws.put(phone)
    ws.run_once()
    assert table(ws) == {} and position(ws, "o-1") == 3 and outcome(ws, phone) == "applied"
    ws.put(older)
    ws.run_once()
    assert table(ws) == {} and outcome(ws, older) == "superseded"


def test_a_batch_that_enters_and_leaves_a_projection_leaves_what_came_last(ws):
    prepared(ws)
    ws.put([ws.event(f"o-{n}", "Placed", kind=kind) for n in (1, 2, 3) for kind in ("web", "phone", "shop")[:n]])
    ws.run_once()
    assert table(ws) == {"o-1": "web", "o-3": "shop"}


def test_a_missing_path_is_that_events_failure(ws):
    prepared(ws)
    event = ws.event("o-1", "Placed", city="Bern")
    ws.put(event)
    ws.projector("run", "--once")
    error = ws.found(event)["last_error"]
    assert error["message"] == 'orders: payload.kind: expected a value to compare with in "when", found nothing'
    assert error["class"] == "data"


def test_reconcile_reports_and_repairs_the_row_of_an_entity_that_left_the_projection(ws, state_folder):
    prepared(ws)
    for id, kind in (("o-1", "web"), ("o-2", "phone"), ("o-3", "phone"), ("o-4", "shop")):
        entity(ws, id, 1, kind=kind, city="")
    ws.put([ws.event(f"o-{n}", "Placed", version=1, kind="web") for n in (1, 2)])
    ws.run_once()
    assert sorted(findings(ws, status=1)) == [("extra row", "o-2"), ("missing row", "o-4")]
    assert sorted(findings(ws, "--repair", status=0)) == [("extra row", "o-2"), ("missing row", "o-4")]
    assert table(ws) == {"o-1": "web", "o-4": "shop"}
    assert findings(ws, status=0) == []


def test_an_entity_that_the_condition_cannot_judge_is_reported(ws, state_folder):
    prepared(ws)
    entity(ws, "o-1", 1, city="Bern")
    assert findings(ws, status=1) == [("unmappable entity", "o-1")]


def test_refresh_and_rebuild_leave_out_what_does_not_match(ws, state_folder):
    prepared(ws)
    ws.put([ws.event(f"o-{n}", "Placed", version=1, kind="web") for n in (1, 2)])
    ws.run_once()
    for id, kind in (("o-1", "phone"), ("o-2", "shop"), ("o-3", "web"), ("o-4", "phone")):
        entity(ws, id, 2, kind=kind, city="")
    assert ws.projector("refresh", "account", "o-1").returncode == 0
    assert table(ws) == {"o-2": "web"} and position(ws, "o-1") == 2
    for mode in ([], ["--shadow"]):
        ws.query("DELETE FROM orders")
        ws.query("INSERT INTO orders VALUES ('o-4', 'web', '')")
        done = ws.projector("rebuild", *mode)
        assert done.returncode == 0, done.stderr
        assert table(ws) == {"o-2": "shop", "o-3": "web"}
    assert findings(ws, status=0) == []


def test_replay_and_archive_verify_judge_with_the_condition(ws, state_folder):
    prepared(ws, mongodb={"retain": "archive"})
    for id, kinds in (("o-1", ["web", "phone"]), ("o-2", ["phone", "web"]), ("o-3", ["phone"])):
        ws.put([ws.event(id, "Placed", version=n + 1, kind=kind) for n, kind in enumerate(kinds)])
        entity(ws, id, len(kinds), kind=kinds[-1], city="")
    ws.run_once()
    assert table(ws) == {"o-2": "web"}
    ws.query("DELETE FROM orders")
    done = ws.projector("replay", "--projection", "orders")
    assert done.returncode == 0, done.stderr
    assert table(ws) == {"o-2": "web"}
    done = ws.projector("archive", "verify", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    entity(ws, "o-2", 2, kind="phone", city="")
    done = ws.projector("archive", "verify", "--json")
    assert done.returncode == 1
    assert [(d["aggregate_id"], d["reason"]) for d in lines(done) if "finding" in d] == [
        ("o-2", 'the events make a row, and the entity does not match "when"')]


def test_explain_says_why_there_is_no_row(ws):
    prepared(ws)
    entity(ws, "o-1", 1, kind="phone", city="")
    [shown] = json.loads(ws.projector("explain", "account", "o-1", "--json").stdout)["projections"]
    assert (shown["finding"], shown["reason"]) == ("none", 'the entity does not match "when", so it has no row')
    ws.query("INSERT INTO orders VALUES ('o-1', 'web', '')")
    [shown] = json.loads(ws.projector("explain", "account", "o-1", "--json").stdout)["projections"]
    assert shown["finding"] == "extra row"


def test_several_projections_divide_an_aggregates_rows_by_condition(ws):
    """A row that moves from one table to the other does so in one transaction, and is never in both."""
    tables = [orders(table=kind, when={"path": "kind", "is": kind}, events={"Placed": {"op": "upsert"}}) for kind in ("web", "shop")]
    prepared(ws, *tables)
    for kind in ("web", "shop", "phone", "web"):
        ws.put(ws.event("o-1", "Placed", kind=kind))
        ws.run_once()
        assert [name for name in ("web", "shop") if table(ws, name)] == ([kind] if kind != "phone" else [])
