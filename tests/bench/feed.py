"""What a feed costs the drain, measured with and without one by
turns, and whether any of it happens before a commit."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from measure import BenchError, Cost, measure, print_table, progress
from workspace import PROJECTOR

if TYPE_CHECKING:
    from bench import Bench

FEED = "outbox_second"
GOAL = 1.25  # at most so many times as long as without


def feed(bench: "Bench") -> None:
    costs: dict[str, list[Cost]] = {"without": [], "with a feed": []}
    for turn in range(bench.args.turns):
        progress(f"feed: turn {turn + 1} of {bench.args.turns}")
        for name in costs if turn % 2 == 0 else reversed(costs):
            costs[name].append(drain(bench, [] if name == "without" else [FEED]))
    events = bench.args.events
    ratio = median(b.seconds / a.seconds for a, b in zip(costs["without"], costs["with a feed"]))
    medians = {name: Cost.median(turns) for name, turns in costs.items()}
    bench.results["feed"] = {"times_as_long": ratio, "with": {
        name: {"events_per_s": events / cost.seconds, "cpu_s": cost.cpu_s, "peak_mb": cost.peak_mb,
               "turns_s": [c.seconds for c in costs[name]]} for name, cost in medians.items()}}
    print_table(f"feed: {events:,} events, median of {bench.args.turns} turns; CPU in us of an event",
                ("", "events/s", "CPU", "own", "mongod", "mysqld", "peak MB", "others' cores"),
                [(name, f"{events / cost.seconds:,.0f}", f"{cost.cpu_us(events):.0f}",
                  *(f"{cost.cpu_s[p] * 1e6 / events:.0f}" for p in ("own", "mongod", "mysqld")), f"{cost.peak_mb:.0f}",
                  f"{cost.others:.1f}") for name, cost in medians.items()])
    bench.goal("feed", "drain with a feed, of the time without", ratio, GOAL)


def drain(bench: "Bench", feeds: list[str]) -> Cost:
    with bench.workspace(mongodb={"feeds": feeds}) as ws:
        for name in feeds:
            ws.outbox_program("init", "--feed", name, check=True)
        bench.load(ws, "upsert", bench.args.events)
        cost = measure(PROJECTOR, "run", "--once", "-c", ws.file, log=bench.folder / "feed.log")
        for name in feeds:
            if (copies := ws.db[name].count_documents({})) != bench.args.events:
                raise BenchError(f"the feed has {copies} copies of {bench.args.events} events")
        if ws.outbox.find_one() is not None:
            raise BenchError("the outbox is not empty")
        return cost
