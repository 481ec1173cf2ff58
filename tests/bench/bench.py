"""Speed, latency and memory of the projector on real servers; started by `./run bench`.

    drain     how fast a full outbox is emptied, against the floor of the two stores and a program written by hand
    feed      what a feed costs the drain
    children  what ten rows of a child table cost, beside the one above them
    live      from the acknowledged insert to the visible row under a steady load, against a bare follower
    waiters   how soon after a row becomes visible the requests waiting for it are answered
    backlog   memory with a million events waiting
    large     memory with events of a megabyte
    idle      what the projector uses when there is nothing to do
    reconcile a million entities against a million rows, and 10,000 differences repaired
    rebuild   a table of a million rows from its entities
    grown     a drain into tables far larger than MySQL's memory, against one into empty tables
    pruning   live events while old ledger rows are removed

Absolute figures differ from machine to machine and from hour to hour, so what is compared runs by turns and
the ratio counts. A missed goal is reported but does not fail the run; wrong rows do.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, Iterable, Iterator

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "servers")]

import pymongo.errors
import pymysql

from children import children
from drain import drain, without_projector
from feed import feed
from grown import grown, pruning
from measure import BenchError, Cost, Meter, measure, peak_mb, percentile, print_table, progress, run
from waiters import waiters
from workspace import PROJECTOR, Stores, Workspace, bank_projections

PROGRAMS = Path(PROJECTOR).parents[1] / "tests/bench"  # load, live and floor, of the same build

GOAL_P50, GOAL_P99 = 0.9, 1.0  # of the floor's
GOAL_BACKLOG_MB = 32
GOAL_FLAT = 0.9
GOAL_LARGE_MB = 64
GOAL_RECONCILE_S, GOAL_RECONCILE_MB = 60, 64  # of a million entities
GOAL_REBUILD_MB = 64
GOAL_REPAIR_S = 30  # of 10,000 differences, without finding them
GOAL_IDLE_CPU = 0.01  # of one core
GOAL_IDLE_COMMANDS = 1.1  # a second, of one kind on one collection

ACCOUNT = {  # of the workloads "upsert" and "delta", and of the floor
    "aggregate_type": "account", "table": "account",
    "key": {"id": {"from": "$aggregate_id", "type": "varchar(64)"}},
    "columns": {
        "user_id": {"from": "user_id", "type": "varchar(64)"},
        "name": {"from": "name", "type": "varchar(100)"},
        "balance": {"from": "balance", "type": "bigint"},
        "currency": {"from": "currency", "type": "char(3)"},
        "version": {"from": "$version", "type": "bigint"},
        "occurred_at": {"from": "$occurred_at", "type": "datetime(3)"},
    },
    "events": {"AccountUpdated": {"op": "upsert"}, "MoneyDeposited": {"op": "add", "columns": {"balance": "amount"}}},
}
CENTS = {"upsert": 1, "delta": 1, "bank": 100}


REBUILDS = {"an empty table": [], "a full table": [], "a new one beside it": ["--shadow"]}


@dataclass
class Live:
    """One turn of the live part."""

    told: dict[str, Any]  # by the program `live`
    cores: dict[str, float]  # "own", "mongod", "mysqld", "writers", "probes"
    others: float  # cores that everything else on the machine used


class Bench:
    def __init__(self, args: argparse.Namespace, folder: Path):
        self.args = args
        self.folder = folder
        self.programs = PROGRAMS
        self.stores = Stores.from_environment()
        self.results: dict[str, Any] = {"events": args.events, "aggregates": args.aggregates, "turns": args.turns}
        self.goals: list[dict] = []

    def goal(self, part: str, what: str, value: float, limit: float, at_least: bool = False, unit: str = "") -> None:
        met = value >= limit if at_least else value <= limit
        self.goals.append({"part": part, "what": what, "value": value, "limit": limit, "met": met})
        print(f"  {'met   ' if met else 'MISSED'}  {what}: {value:.3g}{unit}, goal "
              f"{'at least' if at_least else 'at most'} {limit:g}{unit}", flush=True)

    @contextmanager
    def workspace(self, workload: str = "upsert", **overrides: Any) -> Iterator[Workspace]:
        """An outbox and tables for one part."""
        with Workspace(self.stores, self.folder) as ws:
            settings = {**dict(self.args.set), **overrides}
            ws.mapping(bank_projections() if workload == "bank" else [ACCOUNT], **settings)
            ws.create()
            yield ws

    def load(self, ws: Workspace, workload: str, events: int, *more_bytes: str, aggregates: int = 0) -> dict:
        totals = json.loads(run(PROGRAMS / "load", ws.name, workload, str(events), str(aggregates or self.args.aggregates), *more_bytes))
        return {**totals, "balance": totals["balance"] / CENTS[workload]}

    # drain, see drain.py

    def drain_projector(self, workload: str, events: int, *more_bytes: str, **settings: Any) -> Cost:
        with self.workspace(workload, **settings) as ws:
            totals = self.load(ws, workload, events, *more_bytes)
            cost = measure(PROJECTOR, "run", "--once", "-c", ws.file, log=self.folder / f"{workload}.log")
            check_rows(ws, totals, events)
            return cost

    # live

    def live(self) -> None:
        """The projector and a bare follower by turns, because the figures depend on what the machine can do at all."""
        measured: dict[str, list[Live]] = {"projector": [], "floor": []}
        for number in range(self.args.turns):
            progress(f"live: {self.args.rate} events a second for {self.args.seconds} s, twice; "
                     f"turn {number + 1} of {self.args.turns}")
            for name in ("floor", "projector") if number % 2 == 0 else ("projector", "floor"):
                measured[name].append(self.live_floor() if name == "floor" else self.live_projector())
        self.show_live(measured)

    def live_projector(self) -> Live:
        with self.workspace() as ws:
            return self.follow(ws)

    def follow(self, ws: Workspace) -> Live:
        with ws.start_projector() as projector:
            warm_up(ws)
            live = self.measure_live(ws, projector.pid)
            ws.wait_drained(30)
            check_rows(ws, {"rows": live.told["rows"] + 1, "balance": live.told["balance"]}, live.told["written"] + 1)
            if (status := projector.stop()) != 0:
                raise BenchError(f"the projector answered SIGTERM with status {status}")
            return live

    def live_floor(self) -> Live:
        with self.workspace() as ws, subprocess.Popen([PROGRAMS / "floor", ws.name, "follow"], text=True,
                                                      stdout=subprocess.PIPE) as floor:
            try:
                if floor.stdout.readline() != "ready\n":
                    raise BenchError("the floor does not follow")
                live = self.measure_live(ws, floor.pid)
                ws.wait_drained(30)
                [counts] = ws.query("SELECT COUNT(*) AS applied FROM applied")
                if counts["applied"] != live.told["written"]:
                    raise BenchError(f"the floor applied {counts['applied']} of {live.told['written']} events")
                return live
            finally:
                floor.kill()

    def measure_live(self, ws: Workspace, pid: int) -> Live:
        args, meter = self.args, Meter(own=pid)
        told = json.loads(run(PROGRAMS / "live", ws.name, str(args.rate), str(args.seconds), str(args.probes),
                              str(args.aggregates)))
        cpu = meter.read() | {"writers": told["writers_cpu_us"] / 1e6, "probes": told["probes_cpu_us"] / 1e6}
        cores = {name: used / meter.seconds for name, used in cpu.items()}
        return Live(told, cores, meter.others(sum(cpu.values())))

    def show_live(self, measured: dict[str, list[Live]]) -> None:
        titles = {"projector": "acknowledged insert to visible row", "floor": "the same by the floor"}
        figures = {name: {"ms": quantiles(us for live in lives for us in live.told["visible_us"]),
                          "cores": {who: median(live.cores[who] for live in lives) for who in lives[0].cores},
                          "others": median(live.others for live in lives)} for name, lives in measured.items()}
        lives = measured["projector"]
        visible, insert = figures["projector"]["ms"], quantiles(us for live in lives for us in live.told["insert_us"])
        probes = sum(len(live.told["visible_us"]) for live in lives)
        rate = sum(live.told["written"] for live in lives) / self.args.seconds / len(lives)
        late_ms = max(live.told["late_us"] for live in lives) / 1000
        ratios = {what: median(quantiles(a.told["visible_us"])[what] / quantiles(b.told["visible_us"])[what]
                               for a, b in zip(lives, measured["floor"])) for what in ("p50", "p99")}
        self.results["live"] = {"events_per_s": rate, "probes": probes, "visible_ms": visible, "insert_ms": insert,
                                "writers_late_ms": late_ms, "of_floor": ratios, "with": figures}
        print_table(f"live: {rate:,.0f} events/s, {len(lives)} times {self.args.seconds} s; ms, of {probes} probes",
                    ("", *visible),
                    [(titles[name], *(f"{v:.1f}" for v in figures[name]["ms"].values())) for name in titles]
                    + [("for comparison, the insert itself", *(f"{v:.1f}" for v in insert.values()))])
        for name, used in figures.items():
            print(f"  cores used with the {name}: " + ", ".join(f"{who} {share:.2f}" for who, share in used["cores"].items())
                  + f", others {used['others']:.2f}")
        print(f"  writers at most {late_ms:.0f} ms behind")
        self.goal("live", "p50, of the floor's", ratios["p50"], GOAL_P50)
        self.goal("live", "p99, of the floor's", ratios["p99"], GOAL_P99)

    # backlog

    def backlog(self) -> None:
        """Rate and memory must not depend on how many events are waiting; the floor shows what the stores do to it."""
        events = self.args.backlog
        costs: dict[tuple[str, int], Cost] = {}
        for count in (events // 5, events):
            progress(f"backlog: {count:,} events")
            costs["projector", count] = self.drain_projector("upsert", count)
            costs["floor", count] = without_projector(self, str(self.programs / "floor"), events=count)
        rates = {which: which[1] / cost.seconds for which, cost in costs.items()}
        flat = {name: rates[name, events] / rates[name, events // 5] for name in ("projector", "floor")}
        us = {which: {process: used * 1e6 / which[1] for process, used in cost.cpu_s.items()} for which, cost in costs.items()}
        self.results["backlog"] = {f"{name}, {count}": {"events_per_s": rates[name, count], "peak_mb": cost.peak_mb, "cpu_us": us[name, count]}
                                   for (name, count), cost in costs.items()}
        print_table("backlog; CPU us/event", ("", "events/s", "own", "mongod", "mysqld", "peak MB"),
                    [(f"{name}, {count:,} events", f"{rates[name, count]:,.0f}",
                      *(f"{us[name, count][p]:.0f}" for p in ("own", "mongod", "mysqld")), f"{cost.peak_mb:.1f}")
                     for (name, count), cost in costs.items()])
        print(f"  the floor's rate, of that with a fifth: {flat['floor']:.2f}")
        self.goal("backlog", "peak memory", costs["projector", events].peak_mb, GOAL_BACKLOG_MB, unit=" MB")
        self.goal("backlog", "rate, of that with a fifth", flat["projector"], GOAL_FLAT, at_least=True)

    # large

    def large(self) -> None:
        """Memory with events of a megabyte; with 64 it should stay below 64 MB."""
        events, size = self.args.large, 1_000_000
        progress(f"large: {events} events of {size:,} bytes")
        cost = self.drain_projector("upsert", events, str(size), memory_mb=GOAL_LARGE_MB)
        self.results["large"] = {"events": events, "bytes": size, "events_per_s": events / cost.seconds, "peak_mb": cost.peak_mb}
        print_table(f"large: {events} events of {size:,} bytes, memory_mb {GOAL_LARGE_MB}", ("", "events/s", "peak MB"),
                    [("projector, upserts", f"{events / cost.seconds:,.0f}", f"{cost.peak_mb:.1f}")])
        self.goal("large", "peak memory", cost.peak_mb, GOAL_LARGE_MB, unit=" MB")

    # idle

    def idle(self) -> None:
        seconds = self.args.idle
        progress(f"idle: {seconds} s")
        with self.workspace() as ws, ws.start_projector() as projector:
            warm_up(ws)
            time.sleep(1)
            ws.db.command("profile", 2)  # shows who sent what, unlike the server's own counters
            statements, meter = mysql_statements(ws), Meter(projector=projector.pid)
            time.sleep(seconds)
            cpu, elapsed = meter.read(), meter.seconds
            statements = mysql_statements(ws) - statements - 1  # this one
            ws.db.command("profile", 0)
            commands = mongo_commands(ws)
            memory = peak_mb(projector.pid)
            projector.stop()
        rates = {what: count / elapsed for what, count in commands.items()}
        cores = {name: used / elapsed for name, used in cpu.items()}
        self.results["idle"] = {"cores": cores, "mongodb_commands_per_s": rates, "peak_mb": memory,
                                "mysql_statements_per_s": statements / elapsed}
        print_table(f"idle: {seconds} s", ("sent by the projector", "a second"),
                    [(f"MongoDB: {what}", f"{rate:.1f}") for what, rate in sorted(rates.items())]
                    + [("MySQL: statements", f"{statements / elapsed:.1f}")])
        print("  cores used: " + ", ".join(f"{name} {share:.3f}" for name, share in cores.items())
              + f"; memory {memory:.1f} MB")
        self.goal("idle", "cores used by the projector", cores["projector"], GOAL_IDLE_CPU)
        self.goal("idle", "most frequent command to MongoDB", max(rates.values(), default=0), GOAL_IDLE_COMMANDS,
                  unit="/s")

    # reconcile

    def reconcile(self) -> None:
        entities, planted = self.args.entities, min(10_000, self.args.entities // 4)
        progress(f"reconcile: {entities:,} entities")
        with self.workspace("bank") as ws:
            fill_both(ws, entities)
            equal = self.run_reconcile(ws)
            plant_differences(ws, entities, planted)
            found, mended = self.run_reconcile(ws, status=1), self.run_reconcile(ws, "--repair")
            self.run_reconcile(ws)
        per_million = equal.seconds * 1_000_000 / entities
        said = re.search(r"(\d+) repaired in ([\d.]+) s", mended.stdout)
        if not said or int(said[1]) < planted * 0.9:
            raise BenchError(f"not all of {planted} differences were repaired: {mended.stdout.strip()}")
        repair_s = float(said[2]) * 10_000 / int(said[1])
        costs = {"equal": equal, f"{planted:,} differences found": found, "found and mended": mended}
        self.results["reconcile"] = {"entities": entities, "planted": planted, "repair_s": repair_s} | {
            name: {"seconds": cost.seconds, "peak_mb": cost.peak_mb, "cpu_s": cost.cpu_s} for name, cost in costs.items()}
        print_table(f"reconcile: {entities:,} entities, as many rows",
                    ("", "s", "CPU s own", "mongod", "mysqld", "peak MB", "others' cores"),
                    [(name, f"{cost.seconds:.1f}", *(f"{cost.cpu_s[p]:.1f}" for p in ("own", "mongod", "mysqld")),
                      f"{cost.peak_mb:.0f}", f"{cost.others:.1f}") for name, cost in costs.items()])
        self.goal("reconcile", "a million entities", per_million, GOAL_RECONCILE_S, unit=" s")
        self.goal("reconcile", "peak memory", max(cost.peak_mb for cost in costs.values()), GOAL_RECONCILE_MB, unit=" MB")
        self.goal("reconcile", "10,000 differences repaired", repair_s, GOAL_REPAIR_S, unit=" s")

    def run_reconcile(self, ws: Workspace, *arguments: str, status: int = 0) -> Cost:
        return measure(PROJECTOR, "reconcile", "-c", ws.file, "--state", self.folder / "reconcile", *arguments,
                       log=self.folder / "reconcile.log", status=status)


    # rebuild

    def rebuild(self) -> None:
        entities = self.args.entities
        progress(f"rebuild: {entities:,} entities")
        with self.workspace("bank") as ws:
            fill_both(ws, entities)
            costs = {}
            for name, arguments in REBUILDS.items():
                if name == "an empty table":
                    ws.query("TRUNCATE account")
                costs[name] = measure(PROJECTOR, "rebuild", "-c", ws.file, "--state", self.folder / "rebuild",
                                      *arguments, "account", log=self.folder / "rebuild.log", status=0)
                [found] = ws.query("SELECT COUNT(*) AS n, SUM(balance) AS total FROM account")
                if found["n"] != entities or found["total"] * 2 != entities * 21:
                    raise BenchError(f"rebuild: {found}")
        self.results["rebuild"] = {"entities": entities} | {
            name: {"seconds": cost.seconds, "peak_mb": cost.peak_mb, "cpu_s": cost.cpu_s} for name, cost in costs.items()}
        print_table(f"rebuild: {entities:,} entities",
                    ("", "rows/s", "s", "CPU s own", "mongod", "mysqld", "peak MB", "others' cores"),
                    [(name, f"{entities / cost.seconds:,.0f}", f"{cost.seconds:.1f}",
                      *(f"{cost.cpu_s[p]:.1f}" for p in ("own", "mongod", "mysqld")),
                      f"{cost.peak_mb:.0f}", f"{cost.others:.1f}") for name, cost in costs.items()])
        self.goal("rebuild", "peak memory", max(cost.peak_mb for cost in costs.values()), GOAL_REBUILD_MB, unit=" MB")


def quantiles(us: Iterable[int]) -> dict[str, float]:
    ms = sorted(one / 1000 for one in us)
    return {"p50": percentile(ms, 0.5), "p90": percentile(ms, 0.9), "p99": percentile(ms, 0.99), "max": ms[-1]}


def fill_both(ws: Workspace, count: int) -> None:
    """Accounts with their rows and positions, generated inside the servers."""
    digits = {"$range": [0, 10]}
    places = range(len(str(count - 1)))
    ws.db.aggregate([
        {"$documents": [{"n": 0}]},
        *(stage for _ in places for stage in (
            {"$set": {"digit": digits}}, {"$unwind": "$digit"},
            {"$project": {"n": {"$add": [{"$multiply": ["$n", 10]}, "$digit"]}}})),
        {"$match": {"n": {"$lt": count}}}, {"$set": {"text": {"$toString": "$n"}}},
        {"$project": {"_id": {"$concat": ["account-with-an-id-of-30-bytes", "$text"]}, "user_id": "$text",
                      "name": {"$concat": ["Ada ", "$text"]}, "balance": {"$toDecimal": "10.50"},
                      "opened_at": datetime(1970, 1, 2), "last_event_at": datetime(1970, 1, 2),
                      "version": {"$toLong": 1}}}, {"$out": ws.accounts.name}], allowDiskUse=True)
    numbers = "SELECT " + " + ".join(f"d{p}.d * {10**p}" for p in places) + " AS n FROM " + ", ".join(
        f"(SELECT 0 d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5"
        f" UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9) d{p}" for p in places)
    key, day = "CONCAT('account-with-an-id-of-30-bytes', n)", "'1970-01-02'"
    ws.query(f"INSERT INTO account SELECT {key}, n, CONCAT('Ada ', n), 10.50, {day}, {day} FROM ({numbers}) s"
             f" WHERE n < {count}")
    ws.query(f"INSERT INTO projector_position (projector, aggregate_type, aggregate_id_kind, aggregate_id, occurred_at,"
             f" version, event_id_kind, event_id, max_version, refreshed_version) SELECT '{ws.name}', 'account', 'string', {key}, {day}, 1, 'string',"
             f" 'first', 1, NULL FROM ({numbers}) s WHERE n < {count}")


def plant_differences(ws: Workspace, entities: int, count: int) -> None:
    """Changed rows, missing rows and rows without an entity, spread over the table."""
    step = entities // count * 4
    ws.query(f"INSERT INTO account SELECT CONCAT('x', user_id), user_id, name, balance, opened_at, updated_at"
             f" FROM account WHERE user_id MOD {step} = 2")
    ws.query(f"UPDATE account SET balance = balance + 0.01 WHERE user_id MOD {step} IN (0, 1) AND name LIKE 'Ada%'")
    ws.query(f"DELETE FROM account WHERE user_id MOD {step} = 3")


def check_rows(ws: Workspace, totals: dict, events: int) -> None:
    """Compares the rows with what the writer reports it wrote."""
    [account] = ws.query("SELECT COUNT(*) AS found, COALESCE(SUM(balance), 0) AS balance FROM account")
    [ledger] = ws.query("SELECT COUNT(*) AS found FROM projector_applied WHERE applied_at > NOW() - INTERVAL 1 DAY")
    left = ws.outbox.count_documents({})
    found = (account["found"], round(float(account["balance"]), 2), ledger["found"], left)
    wanted = (totals["rows"], round(float(totals["balance"]), 2), events, 0)
    if found != wanted:
        raise BenchError(f"wrong result: rows, balance, ledger and outbox are {found}, not {wanted}")


def warm_up(ws: Workspace) -> None:
    """Sends one event through the whole projector: afterwards it follows the stream."""
    ws.put(ws.event("first", "AccountUpdated", 1, user_id="u", name="n", balance=0, currency="EUR"))
    ws.wait_drained(30)


def mysql_statements(ws: Workspace) -> int:
    [row] = ws.query("SHOW GLOBAL STATUS LIKE 'Questions'")
    return int(row["Value"])


def mongo_commands(ws: Workspace) -> dict[str, int]:
    """How often the projector sent each command to each collection."""
    counts: dict[str, int] = {}
    for entry in ws.db["system.profile"].find({"appName": "projector"}):
        name = next(iter(entry.get("command", {})), entry["op"])
        name = entry["op"] if name == "q" else name
        what = f"{name} {entry['ns'].partition('.')[2]}"
        counts[what] = counts.get(what, 0) + 1
    return counts


def setting(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    return key, int(value) if value.lstrip("-").isdigit() else value


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="PART", choices=PARTS, action="append",
                        help=f"one of {', '.join(PARTS)}; may be repeated")
    parser.add_argument("--quick", action="store_true", help="one turn, a short live part, no backlog")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--aggregates", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=5, help="of drain and live, whose medians are shown")
    parser.add_argument("--rate", type=int, default=1000, help="events a second in the live part")
    parser.add_argument("--seconds", type=int, default=10, help="of a round of the live part")
    parser.add_argument("--probes", type=int, default=40, help="probes a second among them")
    parser.add_argument("--backlog", type=int, default=1_000_000, metavar="EVENTS")
    parser.add_argument("--large", type=int, default=1000, metavar="EVENTS", help="of a megabyte each")
    parser.add_argument("--entities", type=int, default=1_000_000, help="of the reconcile and rebuild parts")
    parser.add_argument("--ledger", type=int, default=3_000_000, metavar="ROWS", help="in the grown part, with a tenth as many aggregates")
    parser.add_argument("--full", action="store_true", help="grown: 20 million rows; pruning: 10 million; backlog: 5 million events; hours")
    parser.add_argument("--idle", type=int, default=10, metavar="SECONDS")
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="KEY=VALUE",
                        help="a setting of the mapping file, e.g. workers=1")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE",
                        help="the figures for machines; without FILE on stdout, and the tables on stderr")
    args = parser.parse_args(argv)
    if args.quick:
        args.turns, args.seconds, args.entities = 1, min(args.seconds, 5), min(args.entities, 100_000)
    if args.full:
        args.backlog = 5_000_000
    args.parts = args.only or [part for part in PARTS if not (args.quick and part in ("backlog", "grown", "pruning"))]
    return args


PARTS = {"drain": drain, "feed": feed, "children": children, "live": Bench.live, "waiters": waiters, "backlog": Bench.backlog,
         "large": Bench.large, "idle": Bench.idle, "reconcile": Bench.reconcile, "rebuild": Bench.rebuild,
         "grown": grown, "pruning": pruning}


def main() -> int:
    args = parse(sys.argv[1:])
    if "MONGO_URI" not in os.environ:
        print("bench: start it through ./run bench, which brings servers", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="projector-bench.") as name, redirect_stdout(
            sys.stderr if args.json == "-" else sys.stdout):
        bench = Bench(args, Path(name))
        try:
            for part in args.parts:
                PARTS[part](bench)
        except (BenchError, AssertionError, TimeoutError, OSError, subprocess.SubprocessError,
                pymongo.errors.PyMongoError, pymysql.MySQLError) as error:
            print(f"bench: {' '.join(str(error).split())}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
        missed = sum(not goal["met"] for goal in bench.goals)
        print(f"\n{len(bench.goals) - missed} goals met, {missed} missed; {os.cpu_count()} cores, "
              f"load {os.getloadavg()[0]:.1f}")
    if args.json:
        told = json.dumps({**bench.results, "goals": bench.goals}, indent=2) + "\n"
        sys.stdout.write(told) if args.json == "-" else Path(args.json).write_text(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
