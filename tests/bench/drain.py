"""How fast a full outbox is emptied, by turns: by two floors (floor.c), a program written by hand (by_hand.js), the projector."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Callable

from measure import BenchError, Cost, measure, print_table, progress

if TYPE_CHECKING:
    from bench import Bench

BY_HAND = Path(__file__).with_name("by_hand.js")
PROJECTOR = {"upsert": "projector, upserts", "delta": "projector, deltas", "bank": "projector, bank"}
TITLES = {"floor": "floor", "unclaimed": "floor without claims", "by hand": "by hand in Node.js", **PROJECTOR}

GOALS = {"floor": 0.95, "unclaimed": 0.65, "by hand": 1.4}  # at least so many times as fast
GOAL_CPU = 1.1  # at most so many times the floor's
GOAL_MB = 32


def drain(bench: "Bench") -> None:
    contestants = contestants_of(bench)
    costs: dict[str, list[Cost]] = {name: [] for name in contestants}
    for turn in range(bench.args.turns):
        progress(f"drain: turn {turn + 1} of {bench.args.turns}")
        for name, empty in contestants.items():
            costs[name].append(empty())
    show(bench, costs)


def contestants_of(bench: "Bench") -> dict[str, Callable[[], Cost]]:
    floor = str(bench.programs / "floor")
    contestants = {"floor": lambda: without_projector(bench, floor),
                   "unclaimed": lambda: without_projector(bench, floor, "unclaimed")}
    if os.environ.get("NODE_PATH"):
        contestants["by hand"] = lambda: without_projector(bench, "node", BY_HAND)
    else:
        print("without the program written by hand: it needs node, npm and their registry")
    for workload in PROJECTOR:
        contestants[workload] = lambda workload=workload: bench.drain_projector(workload, bench.args.events)
    return contestants


def without_projector(bench: "Bench", program: str, *arguments: str | Path, events: int | None = None) -> Cost:
    """Runs a floor or the hand-written program, whose script precedes the database in the arguments."""
    events = events or bench.args.events
    with bench.workspace() as ws:
        bench.load(ws, "upsert", events)
        argv = [*arguments, ws.name] if program == "node" else [ws.name, *arguments]
        cost = measure(program, *argv, log=bench.folder / "floor.log")
        [counts] = ws.query("SELECT (SELECT COUNT(*) FROM applied) AS applied, COUNT(*) AS r FROM account")
        if counts["applied"] != events:
            raise BenchError(f"{program} applied {counts} of {events} events")
        ws.wait_drained(30)  # its last deletion is acknowledged, but perhaps not yet by a majority
        return cost


def show(bench: "Bench", costs: dict[str, list[Cost]]) -> None:
    events = bench.args.events
    medians = {name: Cost.median(turns) for name, turns in costs.items()}

    def speed(name: str, to: str) -> float:
        """Runs them by turns, because the machine's speed may change meanwhile."""
        return median(b.seconds / a.seconds for a, b in zip(costs[name], costs[to]))

    def cpu(name: str) -> float:
        return median(a.cpu_us(events) / b.cpu_us(events) for a, b in zip(costs[name], costs["floor"]))

    yardsticks = [name for name in GOALS if name in costs]
    rows, figures = [], {}
    for name, cost in medians.items():
        ratios = {to: speed(name, to) for to in yardsticks}
        us = {process: used * 1e6 / events for process, used in cost.cpu_s.items()}
        figures[name] = {"events_per_s": events / cost.seconds, "of": ratios, "cpu_us": us, "cpu_of_floor": cpu(name),
                         "peak_mb": cost.peak_mb, "others": cost.others, "turns_s": [c.seconds for c in costs[name]]}
        rows.append((TITLES[name], f"{events / cost.seconds:,.0f}", *(f"{ratio:.2f}" for ratio in ratios.values()),
                     f"{sum(us.values()):.0f}", f"{cpu(name):.2f}", *(f"{us[p]:.0f}" for p in ("own", "mongod", "mysqld")),
                     f"{cost.peak_mb:.0f}", f"{cost.others:.1f}"))
    bench.results["drain"] = figures
    print_table(f"drain: {events:,} events over {bench.args.aggregates:,} aggregates, median of {bench.args.turns} turns;"
                " CPU in us of an event",
                ("", "events/s", *(f"of {to}" for to in yardsticks), "CPU", "of floor's", "own", "mongod", "mysqld", "peak MB",
                 "others' cores"), rows)
    for name in PROJECTOR:
        for to in yardsticks:
            bench.goal("drain", f"{name}, of {to}", figures[name]["of"][to], GOALS[to], at_least=True)
        bench.goal("drain", f"{name}, CPU of the floor's", figures[name]["cpu_of_floor"], GOAL_CPU)
    bench.goal("drain", "peak memory", max(figures[name]["peak_mb"] for name in PROJECTOR), GOAL_MB, unit=" MB")
