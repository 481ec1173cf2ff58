"""A parent with many rows in its child table: what a repair costs grows with their number, not with its square."""

from __future__ import annotations

import os
import subprocess

import pytest

from test_projector_children import event, lines_of, order, shop  # noqa: F401  (shop is a fixture)


def repaired(ws, number: int, children: int, breaks: str) -> int:
    """The most memory that the repair of these rows needed, in KB."""
    entity = order(number, *[f"apple {n}" for n in range(10, children + 10)])
    ws.db["orders"].insert_one(entity)
    ws.put(event(ws, entity["_id"], "OrderPlaced", 1, **{key: entity[key] for key in ("customer", "total", "lines")}))
    ws.run_once()
    ws.query(f"{breaks} WHERE order_id = %s", entity["_id"])
    arguments = ws._projector("reconcile", "--repair", "orders")
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, env={**os.environ, **ws.environment}) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    found = ws.query("SELECT qty FROM order_line WHERE order_id = %s ORDER BY line_no", entity["_id"])
    assert [row["qty"] for row in found] == [line["qty"] for line in entity["lines"]]
    return usage.ru_maxrss


@pytest.mark.parametrize("breaks", ["DELETE FROM order_line", "UPDATE order_line SET qty = 9"], ids=["missing", "different"])
def test_a_repair_looks_at_a_parent_once_however_many_children_differ(shop, breaks):  # noqa: F811
    """Each look maps all items of the entity: one for each of 800 would take some 100 MB, and a minute."""
    few, many = repaired(shop, 1, 50, breaks), repaired(shop, 2, 800, breaks)
    assert many - few < 40 * 1024
