"""What child tables cost: orders of ten lines, written as one row or as one row and ten, by turns. Each order is
first inserted; later events change one line, drop one and add one."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING

from measure import BenchError, Cost, measure, print_table, progress
from workspace import PROJECTOR, Workspace

if TYPE_CHECKING:
    from bench import Bench

LINES = 10
GOAL = 3  # at most so many times as long as one row
FIRST = datetime(2026, 1, 1)

ORDER = {"aggregate_type": "order", "table": "orders",
         "key": {"order_id": {"from": "$aggregate_id", "type": "varchar(36)"}},
         "columns": {"customer": {"from": "customer", "type": "varchar(40)"},
                     "placed_at": {"from": "$occurred_at", "type": "datetime(3)"}},
         "events": {"OrderPlaced": {"op": "upsert"}}}
CHILD = {"table": "order_line", "from": "lines", "key": {"line_no": {"from": "$item.no", "type": "int"}},
         "columns": {"sku": {"from": "$item.sku", "type": "varchar(20)"}, "qty": {"from": "$item.qty", "type": "int"}}}
MAPPINGS = {"one row": ORDER, f"and {LINES} lines": {**ORDER, "children": [CHILD]}}


def children(bench: "Bench") -> None:
    new, events = bench.args.aggregates, bench.args.events // 4
    workloads = {"inserted": (new, new), "changed": (max(events, new), new)}
    for workload, (count, orders) in workloads.items():
        costs: dict[str, list[Cost]] = {name: [] for name in MAPPINGS}
        for turn in range(bench.args.turns):
            progress(f"children, {workload}: turn {turn + 1} of {bench.args.turns}")
            for name in costs if turn % 2 == 0 else reversed(costs):
                costs[name].append(drain(bench, MAPPINGS[name], count, orders))
        show(bench, workload, count, costs)


def show(bench: "Bench", workload: str, events: int, costs: dict[str, list[Cost]]) -> None:
    alone, together = costs.values()
    ratio = median(b.seconds / a.seconds for a, b in zip(alone, together))
    mysqld = median(b.cpu_s["mysqld"] / a.cpu_s["mysqld"] for a, b in zip(alone, together))
    medians = {name: Cost.median(turns) for name, turns in costs.items()}
    bench.results.setdefault("children", {})[workload] = {
        "events": events, "times_as_long": ratio, "times_mysqld_cpu": mysqld,
        "with": {name: {"events_per_s": events / cost.seconds, "cpu_s": cost.cpu_s, "peak_mb": cost.peak_mb,
                        "turns_s": [c.seconds for c in costs[name]]} for name, cost in medians.items()}}
    print_table(f"children: {events:,} orders {workload}, median of {bench.args.turns} turns; CPU in us of an event",
                ("", "events/s", "CPU", "own", "mongod", "mysqld", "peak MB", "others' cores"),
                [(name, f"{events / cost.seconds:,.0f}", f"{cost.cpu_us(events):.0f}",
                  *(f"{cost.cpu_s[p] * 1e6 / events:.0f}" for p in ("own", "mongod", "mysqld")), f"{cost.peak_mb:.0f}",
                  f"{cost.others:.1f}") for name, cost in medians.items()])
    print(f"  mysqld's CPU: {mysqld:.2f} times that of one row")
    bench.goal("children", f"orders with {LINES} lines {workload}, of the time of one row", ratio, GOAL)


def drain(bench: "Bench", projection: dict, events: int, orders: int) -> Cost:
    with Workspace(bench.stores, bench.folder) as ws:
        ws.mapping([projection], **dict(bench.args.set))
        ws.create()
        load(ws, events, orders)
        cost = measure(PROJECTOR, "run", "--once", "-c", ws.file, log=bench.folder / "children.log")
        found = [ws.query(f"SELECT COUNT(*) AS n FROM {table}")[0]["n"]
                 for table in ("orders", "order_line") if table == "orders" or "children" in projection]
        if found != [orders, orders * LINES][:len(found)] or ws.outbox.find_one() is not None:
            raise BenchError(f"{found} rows of {orders} orders, or events are left")
        return cost


def load(ws: Workspace, events: int, orders: int) -> None:
    for first in range(0, events, 1000):
        ws.outbox.insert_many([placed(n, orders) for n in range(first, min(first + 1000, events))], ordered=False)


def placed(number: int, orders: int) -> dict:
    """The order's state at its n-th event: lines n to n + 9, of which one has another quantity than before."""
    order, turn = number % orders, number // orders
    lines = [{"no": no, "sku": f"sku-{order % 1000}-{no}", "qty": turn if no == turn + 5 else 1} for no in range(turn, turn + LINES)]
    return {"_id": uuid.uuid4(), "aggregate_type": "order", "aggregate_id": f"order-{order}", "version": turn + 1,
            "event_type": "OrderPlaced", "occurred_at": FIRST + timedelta(milliseconds=number),
            "payload": {"customer": f"customer {order % 100}", "lines": lines}}
