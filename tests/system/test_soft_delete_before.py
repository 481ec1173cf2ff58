"""Events that wait in the outbox before a soft delete, while the entity is gone: what they do to the row is not lost."""

from __future__ import annotations

import pytest

from test_soft_delete_waiting import ORDERS, apply, at, done, event, opened, orders  # noqa: F401
from workspace import decimal

SUMS = {**ORDERS, "columns": {**ORDERS["columns"], "credit": {"from": "credit", "type": "decimal(10,2)", "default": "0"}},
        "events": {**ORDERS["events"], "A": {"op": "add", "columns": {"credit": "by"}}}}


@pytest.fixture
def sums(orders):  # noqa: F811
    orders.query("DROP TABLE o, ol")
    orders.mapping([SUMS], backoff_ms=20, max_attempts=2, gap_wait_ms=0, workers=1)
    orders.create()
    apply(orders, {**opened(orders), "payload": {"name": "Ada", "lines": ["x", "y"], "credit": decimal("10.00")}})
    return orders


def rows(ws) -> list[tuple]:
    return [(str(row["credit"]), row["del"], row["why"], row["ver"]) for row in ws.rows("o")]


@pytest.mark.parametrize("shadow", [[], ["--shadow"]], ids=["in place", "shadow"])
def test_a_rebuild_leaves_a_row_to_what_waits_before_its_soft_delete(sums, shadow):
    waiting = [event(sums, "A", 2, by=decimal("5.00")), event(sums, "C", 3, reason="fraud")]
    sums.put(waiting)
    done(sums, "rebuild", *shadow)
    sums.run_once()
    assert rows(sums) == [("15.00", at(3), "fraud", 3)]
    assert [sums.ledger()[str(each["_id"])] for each in waiting] == ["applied"] * 2
    assert [row["sku"] for row in sums.rows("ol")] == ["x", "y"]
    done(sums, "reconcile")
