"""A soft delete that waits in the outbox while something else takes the rows of its aggregate from the entities: its mark
and what only it knows are neither guessed nor lost."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from bson import Int64

from workspace import WAIT_S

COLUMNS = {"name": {"from": "name", "type": "varchar(20)"}, "del": {"from": "del", "type": "datetime(3)", "null": True},
           "why": {"from": "why", "type": "varchar(20)", "null": True}, "ver": {"from": "$version", "type": "bigint"}}
ORDERS = {"aggregate_type": "o", "table": "o", "entities": "o", "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}},
          "columns": COLUMNS, "always": ["ver"],
          "children": [{"table": "ol", "from": "lines", "key": {"line": {"from": "$index", "type": "int"}},
                        "columns": {"sku": {"from": "$item", "type": "varchar(9)"}}}],
          "events": {"U": {"op": "upsert"}, "M": {"op": "update", "columns": ["name"]},
                     "C": {"op": "delete", "set": {"del": "$occurred_at", "why": "reason"}}}}


def at(second: int) -> datetime:
    return datetime(2024, 5, 6, 7, 8, second)


def event(ws, type: str, version: int, id: str = "o1", **payload) -> dict:
    return {**ws.event(id, type, version, at(version), **payload), "aggregate_type": "o"}


def closed(ws) -> dict:
    return event(ws, "C", 4, reason="fraud")


@pytest.fixture
def orders(ws, tmp_path):
    ws.environment["XDG_STATE_HOME"] = str(tmp_path / "state")
    ws.mapping([ORDERS], backoff_ms=20, max_attempts=2, gap_wait_ms=0, workers=1)
    ws.create()
    ws.db.create_collection("o")
    return ws


def apply(ws, *events: dict) -> None:
    ws.put(*events)
    ws.run_once()


def opened(ws) -> dict:
    return event(ws, "U", 1, name="Ada", lines=["x", "y"])


def marks(ws) -> list[tuple]:
    return [(row["del"], row["why"], row["ver"]) for row in ws.rows("o")]


def done(ws, *arguments: str) -> str:
    ran = ws.projector(*arguments, timeout=2 * WAIT_S)
    assert ran.returncode == 0, (ran.stdout, ran.stderr)
    return ran.stdout


def test_a_late_update_leaves_the_row_to_the_soft_delete_that_waits(orders):
    apply(orders, opened(orders), event(orders, "M", 3, name="Bea"))
    late, close = event(orders, "M", 2, name="Cyd"), closed(orders)
    apply(orders, late, close)
    assert marks(orders) == [(at(4), "fraud", 4)]
    assert orders.rows("o")[0]["name"] == "Bea"
    ledger = orders.ledger()
    assert (ledger[str(late["_id"])], ledger[str(close["_id"])]) == ("superseded", "applied")
    done(orders, "reconcile")


def test_a_late_update_does_not_settle_a_soft_delete_that_has_failed(orders):
    apply(orders, opened(orders), event(orders, "M", 3, name="Bea"))
    close = event(orders, "C", 4, reason=["no", "text"])
    orders.put(close)
    orders.projector("run", "--once", timeout=2 * WAIT_S)
    orders.put(event(orders, "M", 2, name="Cyd"))
    orders.projector("run", "--once", timeout=2 * WAIT_S)
    assert marks(orders) == [(None, None, 3)] and orders.found(close)["last_error"]["class"] == "data"


def test_a_shadow_takes_the_row_to_which_a_soft_delete_is_still_to_come(orders):
    apply(orders, opened(orders))
    orders.put(closed(orders))
    assert json.loads(done(orders, "rebuild", "--shadow", "--json").splitlines()[-1])["left"] == 0
    orders.run_once()
    assert marks(orders) == [(at(4), "fraud", 4)]
    assert [row["sku"] for row in orders.rows("ol")] == ["x", "y"]
    done(orders, "reconcile")


def test_a_forced_refresh_marks_the_row_as_the_waiting_soft_delete_would(orders):
    apply(orders, opened(orders))
    orders.put(closed(orders))
    done(orders, "refresh", "--force", "o", "o1")
    orders.run_once()
    assert marks(orders) == [(at(4), "fraud", 4)]


def test_a_forced_refresh_takes_no_mark_from_a_dead_soft_delete(orders):
    """MySQL has refused what it says, and would again."""
    orders.query("ALTER TABLE o ADD CONSTRAINT no_fraud CHECK (why <> 'fraud')")
    apply(orders, opened(orders))
    close = closed(orders)
    orders.put(close)
    orders.wait(lambda: orders.projector("run", "--once") and orders.found(close)["status"] == "dead", what="a dead event")
    done(orders, "refresh", "--force", "o", "o1")
    orders.run_once()
    assert orders.ledger()[str(close["_id"])] == "superseded"
    assert marks(orders) == [(at(1), None, 4)]


def test_a_forced_refresh_marks_a_row_as_the_last_of_two_soft_deletes_would(orders):
    """The row was opened again between the two, and that waits too."""
    apply(orders, opened(orders), event(orders, "C", 2, reason="first"))
    orders.put(event(orders, "U", 3, name="Bea", lines=[]), closed(orders))
    done(orders, "refresh", "--force", "o", "o1")
    orders.run_once()
    assert marks(orders) == [(at(4), "fraud", 4)]


# --- a soft delete with `when` -------------------------------------------------------------------

CHANGED = {"op": "delete", "set": {"del": "$occurred_at", "why": "reason"}, "when": {"path": "status", "is": "closed"}}


def changed(ws, version: int, status: str) -> dict:
    return event(ws, "S", version, status=status, reason="fraud")


def with_when(ws, **changes) -> None:
    ws.mapping([{**ORDERS, "events": {**ORDERS["events"], "S": {**CHANGED, **changes}}}], backoff_ms=20, max_attempts=2,
               gap_wait_ms=0, workers=1)


def test_a_forced_refresh_takes_no_mark_from_an_event_that_does_not_match(orders):
    with_when(orders)
    apply(orders, opened(orders))
    orders.put(changed(orders, 2, "closed"), changed(orders, 3, "sent"))
    done(orders, "refresh", "--force", "o", "o1")
    orders.run_once()
    [(deleted, why, _)] = marks(orders)
    assert (deleted, why) == (at(2), "fraud")


def test_a_forced_refresh_finds_the_mark_that_only_an_event_knows_behind_one_that_does_not_match(orders):
    with_when(orders, set={"del": "on", "why": "reason"})
    apply(orders, opened(orders))
    orders.put({**changed(orders, 2, "closed"), "payload": {"status": "closed", "on": at(2), "reason": "fraud"}},
               changed(orders, 3, "sent"))
    done(orders, "refresh", "--force", "o", "o1")
    assert marks(orders)[0][:2] == (at(2), "fraud")


def test_a_late_update_waits_for_no_soft_delete_that_does_not_match(orders):
    with_when(orders)
    apply(orders, opened(orders), event(orders, "M", 3, name="Bea"))
    orders.put(event(orders, "M", 2, name="Cyd"), changed(orders, 4, "sent"))
    orders.run_once()
    assert marks(orders) == [(at(3), None, 4)]


# --- an entity that lives and carries a mark of its own -------------------------------------------


def closes_again(ws) -> tuple[dict, dict]:
    """The row is marked; what waits opens it and marks it again. The entity is two versions ahead, and marked too."""
    apply(ws, opened(ws), event(ws, "C", 2, reason="moved"))
    ws.db["o"].insert_one({"_id": "o1", "name": "Dee", "del": datetime(2025, 1, 1), "lines": ["z"], "version": Int64(5)})
    return event(ws, "U", 3, name="Bea", lines=[]), closed(ws), event(ws, "M", 5, name="Dee")


@pytest.mark.parametrize("how", ["refresh", "rebuild", "rebuild --shadow"])
def test_a_row_marked_before_gets_the_mark_that_waits(orders, how):
    orders.put(*closes_again(orders))
    done(orders, *how.split(), *(["o", "o1"] if how == "refresh" else []))
    orders.run_once()
    assert marks(orders) == [(at(4), "fraud", 5)]
    assert [row["sku"] for row in orders.rows("ol")] == ["z"]


def test_a_late_update_of_a_row_marked_before_brings_the_mark_that_waits(orders):
    waiting = closes_again(orders)
    orders.put({**event(orders, "M", 1, name="Cyd"), "occurred_at": at(0)}, *waiting)
    orders.run_once()
    assert marks(orders) == [(at(4), "fraud", 5)]


def test_a_row_opened_again_by_what_waits_does_not_keep_the_mark_it_had(orders):
    *opens, _, _ = closes_again(orders)
    orders.put(*opens)
    done(orders, "refresh", "o", "o1")
    assert marks(orders) == [(datetime(2025, 1, 1), None, 5)]


def test_of_two_soft_deletes_that_wait_each_leaves_what_only_it_sets(orders):
    """The row is not opened in between, so what an older one has set stays as well."""
    orders.db["o"].insert_one({"_id": "o1", "name": "Dee", "del": datetime(2025, 1, 1), "lines": [], "version": Int64(5)})
    orders.mapping([{**ORDERS, "events": {**ORDERS["events"], "P": {"op": "delete", "set": {"del": "$occurred_at"}}}}],
                   backoff_ms=20, max_attempts=2, gap_wait_ms=0, workers=1)
    apply(orders, opened(orders), event(orders, "C", 2, reason="moved"))
    orders.put(event(orders, "P", 3))
    done(orders, "refresh", "o", "o1")
    assert marks(orders) == [(at(3), "moved", 5)]
