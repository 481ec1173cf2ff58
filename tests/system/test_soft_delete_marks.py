"""Marks of deleted rows that only their event knows, and soft deletes together with `when`."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from bson import Int64

from workspace import WAIT_S

CLOSED = datetime(2024, 5, 6, 7, 8, 9)
WHY = 'deleted_at, which marks a deleted row, comes from payload.closed_at, which only an event has'


def customers(**more) -> dict:
    return {"aggregate_type": "account", "table": "customer", "entities": "customers",
            "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}},
            "columns": {"kind": {"from": "kind", "type": "varchar(10)"},
                        "reason": {"from": "reason", "type": "varchar(10)", "default": ""},
                        "deleted_at": {"from": "deleted_at", "type": "datetime(3)", "null": True}},
            "events": {"Opened": {"op": "upsert"}, "Named": {"op": "update", "columns": ["kind"]},
                       "Closed": {"op": "delete", "set": {"deleted_at": "closed_at", "reason": "reason"}}}, **more}


def begin(ws, tmp_path, *projections: dict) -> None:
    ws.environment["XDG_STATE_HOME"] = str(tmp_path / "state")
    ws.mapping(list(projections), backoff_ms=20, max_attempts=2, gap_wait_ms=0)
    ws.create()


def fill(ws, *ids: str, kind: str = "web") -> None:
    ws.db["customers"].insert_many({"_id": id, "kind": kind, "version": Int64(1)} for id in ids)
    ws.put(ws.event(id, "Opened", 1, kind=kind) for id in ids)
    ws.run_once()


def table(ws) -> dict:
    return {row["id"]: (row["kind"], row["reason"], row["deleted_at"]) for row in ws.rows("customer")}


def late(ws, id: str) -> dict:
    return {**ws.event(id, "Named", kind="late"), "occurred_at": datetime(2020, 1, 1)}


def told(ws, command: str, *arguments: str, status: int = 0) -> list[dict]:
    done = ws.projector(command, "--json", *arguments, timeout=2 * WAIT_S)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def outcomes(ws, *arguments: str, status: int = 0) -> dict:
    lines = told(ws, "reconcile", *arguments, status=status)
    return {line["aggregate_id"]: line["outcome"] for line in lines if "difference" in line}


def test_a_gone_entity_whose_row_is_marked_already_blocks_nothing(ws, tmp_path):
    begin(ws, tmp_path, customers())
    fill(ws, "c1")
    ws.put(ws.event("c1", "Closed", 2, closed_at=CLOSED, reason="moved"))
    ws.db["customers"].delete_one({"_id": "c1"})
    ws.run_once()
    event = late(ws, "c1")
    ws.put(event)
    ws.run_once()
    assert ws.ledger()[str(event["_id"])] == "superseded"
    assert table(ws) == {"c1": ("web", "moved", CLOSED)}


def test_a_late_event_of_a_gone_entity_leaves_the_mark_to_its_event(ws, tmp_path):
    begin(ws, tmp_path, customers())
    fill(ws, "c1")
    ws.db["customers"].delete_one({"_id": "c1"})
    ws.put(late(ws, "c1"), ws.event("c1", "Closed", 2, closed_at=CLOSED, reason="moved"))
    ws.run_once()
    assert table(ws) == {"c1": ("web", "moved", CLOSED)}


def test_a_late_event_of_a_gone_entity_whose_mark_nobody_can_tell_leaves_the_row(ws, tmp_path):
    """The event that marks it has yet to be written."""
    begin(ws, tmp_path, customers())
    fill(ws, "c1")
    ws.db["customers"].delete_one({"_id": "c1"})
    ws.put(late(ws, "c1"))
    ws.run_once()
    assert ws.outbox.find_one() is None and table(ws) == {"c1": ("web", "", None)}
    ws.put(ws.event("c1", "Closed", 2, closed_at=CLOSED, reason="moved"))
    ws.run_once()
    assert table(ws) == {"c1": ("web", "moved", CLOSED)}


def test_what_only_the_event_can_mark_is_said_with_what_to_do(ws, tmp_path):
    begin(ws, tmp_path, customers())
    fill(ws, "c1")
    ws.db["customers"].delete_one({"_id": "c1"})
    left = outcomes(ws, "--repair", status=1)["c1"]
    assert left.startswith("left: ") and WHY in left and "UPDATE customer SET deleted_at" in left
    ws.put(ws.event("c1", "Named", 2, kind="phone"))
    done = ws.projector("refresh", "--force", "account", "c1")
    assert done.returncode != 0 and WHY in done.stderr, done
    assert table(ws) == {"c1": ("web", "", None)}


def test_a_refresh_marks_with_what_is_known_and_leaves_the_rest(ws, tmp_path):
    closed = {"op": "delete", "set": {"deleted_at": "$occurred_at", "reason": "reason"}}
    rules = {"Opened": {"op": "upsert"}, "Closed": closed}
    begin(ws, tmp_path, customers(events=rules, always=["kind"]))
    fill(ws, "c1", "c2")
    ws.db["customers"].delete_many({})
    ws.put(ws.event("c1", "Closed", 2, reason="moved"))  # cannot be applied, and so marks nothing: `kind` is missing
    assert ws.projector("refresh", "--force", "account", "c1").returncode == 0
    assert outcomes(ws, "--repair") == {"c2": "marked as deleted"}
    assert [row[:2] for row in table(ws).values()] == [("web", "")] * 2
    assert all(row[2] for row in table(ws).values())


@pytest.mark.parametrize("order", [1, -1], ids=["first", "last"])
def test_of_two_soft_deletes_only_what_both_set_is_known(ws, tmp_path, order):
    """Whichever comes first in the file: no event has said which of them it was."""
    soft = {"Closed": {"op": "delete", "set": {"deleted_at": "$occurred_at", "reason": {"value": "closed"}}},
            "Merged": {"op": "delete", "set": {"deleted_at": "$occurred_at"}}}
    begin(ws, tmp_path, customers(events={"Opened": {"op": "upsert"}, **dict(list(soft.items())[::order])}))
    fill(ws, "c1")
    ws.db["customers"].delete_one({"_id": "c1"})
    assert outcomes(ws, "--repair") == {"c1": "marked as deleted"}
    [(kind, reason, deleted)] = table(ws).values()
    assert (kind, reason) == ("web", "") and deleted


@pytest.mark.parametrize("mark", ["closed_at", "$occurred_at"])
def test_a_row_whose_entity_left_the_projection_is_deleted_not_marked(ws, tmp_path, mark):
    rules = {"Opened": {"op": "upsert"}, "Closed": {"op": "delete", "set": {"deleted_at": mark}}}
    begin(ws, tmp_path, customers(when={"path": "kind", "is": "web"}, events=rules))
    fill(ws, "c1", "c2")
    ws.db["customers"].update_one({"_id": "c1"}, {"$set": {"kind": "phone"}})
    assert outcomes(ws, "--repair", "--dry-run", status=1) == {"c1": "would delete the row"}
    assert outcomes(ws, "--repair") == {"c1": "deleted"}
    assert list(table(ws)) == ["c2"]


def test_a_refresh_for_a_late_event_never_moves_a_time_back(ws, tmp_path):
    seen = {"seen_at": {"from": "$occurred_at", "type": "datetime(3)", "null": True, "compare": False}}
    begin(ws, tmp_path, customers(columns={**customers()["columns"], **seen}))
    fill(ws, "c1")
    [before] = ws.query("SELECT seen_at FROM customer")
    ws.put(late(ws, "c1"))
    ws.run_once()
    assert ws.query("SELECT seen_at FROM customer") == [before]


def test_a_shadow_keeps_the_mark_of_an_entity_that_carries_one(ws, tmp_path):
    begin(ws, tmp_path, customers())
    fill(ws, "c1", "c2")
    ws.put(ws.event("c1", "Closed", 2, closed_at=CLOSED, reason="moved"))
    changes = {"deleted_at": datetime(2025, 1, 1), "version": Int64(2), "kind": "phone"}
    ws.db["customers"].update_one({"_id": "c1"}, {"$set": changes})
    ws.run_once()
    assert told(ws, "rebuild", "--shadow")[-1]["left"] == 0
    assert table(ws) == {"c1": ("phone", "moved", CLOSED), "c2": ("web", "", None)}


def test_a_shadow_keeps_the_mark_that_was_set_before_its_entity_was_copied(ws, tmp_path):
    """After the marked rows were carried over, and before the row came from the entity, which carries another mark."""
    begin(ws, tmp_path, customers())
    fill(ws, *(f"c{n}" for n in range(1, 7)))
    with ws.start_command("rebuild", "--shadow", "--rate", "2") as rebuild:
        ws.wait(lambda: ws.query("SHOW TABLES LIKE 'customer\\_\\_new'") and ws.rows("customer__new"), what="the first copy")
        assert len(ws.rows("customer__new")) < 5
        ws.db["customers"].update_one({"_id": "c6"}, {"$set": {"deleted_at": datetime(2025, 1, 1), "version": Int64(2), "kind": "phone"}})
        ws.put(ws.event("c6", "Closed", 2, closed_at=CLOSED, reason="moved"))
        ws.run_once()
        assert rebuild.popen.wait(WAIT_S) == 0, rebuild.log_text()
    assert table(ws)["c6"] == ("phone", "moved", CLOSED)


def test_a_shadow_has_the_mark_that_is_set_after_its_entity_was_copied(ws, tmp_path):
    """The entity carried another mark when it was copied, at the version of the event that marks the row later."""
    begin(ws, tmp_path, customers())
    fill(ws, *(f"c{n}" for n in range(1, 7)))
    ws.db["customers"].update_one({"_id": "c1"}, {"$set": {"deleted_at": datetime(2025, 1, 1), "version": Int64(2)}})
    ws.put(ws.event("c1", "Closed", 2, closed_at=CLOSED, reason="moved"))
    with ws.start_command("rebuild", "--shadow", "--rate", "2") as rebuild:
        ws.wait(lambda: ws.query("SHOW TABLES LIKE 'customer\\_\\_new'") and ws.rows("customer__new"), what="the first copy")
        assert [row["id"] for row in ws.rows("customer__new")][0] == "c1"
        ws.run_once()
        assert rebuild.popen.wait(WAIT_S) == 0, rebuild.log_text()
    assert table(ws)["c1"] == ("web", "moved", CLOSED)


def test_a_shadow_takes_over_marked_rows_that_no_position_tells_of(ws, tmp_path):
    """Such as those of a table that was filled before the projector's time."""
    begin(ws, tmp_path, customers())
    fill(ws, "c1")
    ws.query("INSERT INTO customer VALUES ('c0', 'old', 'long ago', %s), ('c9', 'old', '', NULL)", CLOSED)
    assert told(ws, "rebuild", "--shadow")[-1]["left"] == 0
    assert table(ws) == {"c0": ("old", "long ago", CLOSED), "c1": ("web", "", None)}


@pytest.mark.parametrize("key", [{"id": "varchar(36)"}, {"place": "varchar(9)", "id": "varchar(36)"}], ids=["one", "two"])
def test_a_shadow_swaps_where_when_excludes_marked_rows(ws, tmp_path, key):
    """And takes over those without an entity, over several pages."""
    parts = {name: {"from": "$aggregate_id", "type": type} for name, type in key.items()}
    begin(ws, tmp_path, customers(key=parts, when={"path": "kind", "is": "web"}))
    fill(ws, "c1", "c2")
    ws.db["customers"].update_one({"_id": "c1"}, {"$set": {"kind": "phone"}})
    ws.query("UPDATE customer SET deleted_at = %s WHERE id = 'c1'", CLOSED)
    marks = [f"a{n:04}" for n in range(1300)]
    ids = "%s, " * len(key)
    rows = ", ".join(f"({ids}'old', '', {'%s' if n % 2 else 'NULL'})" for n in range(len(marks)))
    values = [value for n, id in enumerate(marks) for value in [id] * len(key) + [CLOSED] * (n % 2)]
    ws.query(f"INSERT INTO customer VALUES {rows}", *values)
    assert told(ws, "rebuild", "--shadow")[-1]["left"] == 0
    assert list(table(ws)) == marks[1::2] + ["c2"]
