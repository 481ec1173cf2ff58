"""What happens when the tables have grown: a drain with a full ledger, and pruning while events keep coming."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Iterator

from measure import BenchError, Cost, measure, print_table, progress
from workspace import PROJECTOR, Workspace

if TYPE_CHECKING:
    from bench import Bench

GOAL_GROWN = 0.7  # at least, of the rate with empty tables
GOAL_PRUNING = 2  # at most, times p99 without pruning
POOL_MB = 128
ROWS_PER_AGGREGATE = (10, 300)  # of the ledger: the events are spread over as many aggregates as that makes
FILL_ROWS = 100_000  # a transaction
PAGES = ("Innodb_pages_read", "Innodb_pages_written")


def numbers(start: int, count: int) -> str:
    """A SELECT of one column n."""
    digits = "(SELECT 0 d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5" \
             " UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)"
    places = range(len(str(count - 1)))
    n = " + ".join(f"d{p}.d * {10 ** p}" for p in places)
    return f"SELECT {start} + {n} AS n FROM {', '.join(f'{digits} d{p}' for p in places)} WHERE {n} < {count} ORDER BY n"


def chunks(count: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, FILL_ROWS):
        yield start, min(FILL_ROWS, count - start)


def fill_ledger(ws: Workspace, rows: int, days_ago: int) -> None:
    """Ids as the write side makes them: time first, so that they increase."""
    for start, count in chunks(rows):
        ws.query("INSERT INTO projector_applied (projector, event_id_kind, event_id, outcome, applied_at)"
                 f" SELECT '{ws.name}', 'uuid', LOWER(CONCAT(LPAD(HEX(n), 8, '0'), '-0000-7000-8000-',"
                 " LPAD(HEX(n * 40503 MOD 281474976710656), 12, '0'))), 'applied',"
                 f" NOW(3) - INTERVAL {days_ago} DAY + INTERVAL n DIV 1000 SECOND FROM ({numbers(start, count)}) s")


def fill_aggregates(ws: Workspace, aggregates: int) -> None:
    for start, count in chunks(aggregates):
        account = "CONCAT('account-', LPAD(n, GREATEST(6, LENGTH(n)), '0'))"
        ws.query("INSERT INTO projector_position (projector, aggregate_type, aggregate_id_kind, aggregate_id, occurred_at,"
                 f" event_id_kind, event_id) SELECT '{ws.name}', 'account', 'string', {account}, '2020-01-01',"
                 f" 'uuid', UUID() FROM ({numbers(start, count)}) s")
        ws.query("INSERT INTO account (id, user_id, name, balance, currency, version, occurred_at)"
                 f" SELECT {account}, 'user-12345678', 'Some Name 12345678', 0, 'EUR', 0, '2020-01-01' FROM ({numbers(start, count)}) s")


def status(ws: Workspace) -> dict[str, int]:
    return {row["Variable_name"]: int(row["Value"]) for row in ws.query("SHOW GLOBAL STATUS LIKE 'Innodb_pages%'")}


def grown(bench: "Bench") -> None:
    args = bench.args
    rows, aggregates = (20_000_000, 2_000_000) if args.full else (args.ledger, args.ledger // 10)
    measured: dict[tuple[int, str], list[tuple[Cost, dict[str, float]]]] = {}
    with bench.workspace() as full:
        [pool] = full.query("SELECT @@innodb_buffer_pool_size AS bytes")
        progress(f"grown: filling the ledger with {rows:,} rows, and {aggregates:,} aggregates")
        fill_ledger(full, rows, 3)
        fill_aggregates(full, aggregates)
        for turn in range(args.turns):
            for each in ROWS_PER_AGGREGATE:
                progress(f"grown: turn {turn + 1} of {args.turns}, {each} rows per aggregate")
                with bench.workspace() as empty:
                    measured.setdefault((each, "empty"), []).append(drain_over(bench, empty, rows // each))
                full.query("DELETE FROM projector_applied WHERE applied_at > NOW() - INTERVAL 1 DAY")
                full.db["projector_leases"].update_many({}, {"$unset": {"applied_last": 1}})  # else that is a lost commit
                full.query("UPDATE projector_position SET occurred_at = '2020-01-01', version = NULL, max_version = NULL"
                           " WHERE version IS NOT NULL")
                measured.setdefault((each, "grown"), []).append(drain_over(bench, full, rows // each))
    rates = {what: args.events / median(cost.seconds for cost, _ in turns) for what, turns in measured.items()}
    pages = {what: {page: median(used[page] for _, used in turns) for page in PAGES} for what, turns in measured.items()}
    ratios = {each: median(b.seconds / a.seconds for (a, _), (b, _) in zip(measured[each, "grown"], measured[each, "empty"]))
              for each in ROWS_PER_AGGREGATE}
    bench.results["grown"] = [{"ledger": rows, "aggregates": rows // each, "of_empty": ratios[each],
                               **{name: {"events_per_s": rates[each, name], "pages_per_event": pages[each, name]}
                                  for name in ("empty", "grown")}} for each in ROWS_PER_AGGREGATE]
    print_table(f"grown: a ledger of {rows:,} rows, {aggregates:,} aggregates, a pool of {pool['bytes'] >> 20} MB; median of {args.turns}",
                ("", "events/s", "pages read per event", "written"),
                [(f"{name} tables, events of {rows // each:,} aggregates", f"{rates[each, name]:,.0f}",
                  *(f"{pages[each, name][page]:.2f}" for page in PAGES)) for each, name in measured])
    if pool["bytes"] > POOL_MB << 20:
        print(f"  the pool is larger than the {POOL_MB} MB that this part is about")
    for each, ratio in ratios.items():
        bench.goal("grown", f"of the rate with empty tables, {each} rows per aggregate", ratio, GOAL_GROWN, at_least=True)


def drain_over(bench: "Bench", ws: Workspace, aggregates: int) -> tuple[Cost, dict[str, float]]:
    """The same events in both cases, spread over all existing aggregates."""
    events = bench.args.events
    bench.load(ws, "upsert", events, aggregates=aggregates)
    before = status(ws)
    cost = measure(PROJECTOR, "run", "--once", "-c", ws.file, log=bench.folder / "grown.log")
    after = status(ws)
    [ledger] = ws.query("SELECT COUNT(*) AS found FROM projector_applied WHERE applied_at > NOW() - INTERVAL 1 DAY")
    if ledger["found"] != events or ws.outbox.find_one() is not None:
        raise BenchError(f"grown: {ledger['found']} of {events} events are in the ledger")
    return cost, {what: (after[what] - before[what]) / events for what in PAGES}


def pruning(bench: "Bench") -> None:
    """Live events while a ledger is being pruned, and without pruning, by turns."""
    from bench import quantiles

    args = bench.args
    rows = 10_000_000 if args.full else args.ledger // 3
    p99: dict[str, list[float]] = {"nothing to prune": [], "pruning": []}
    rates = []
    for turn in range(args.turns):
        progress(f"pruning: turn {turn + 1} of {args.turns}")
        for name in p99:
            with bench.workspace(sweep_interval_ms=1000) as ws:
                fill_ledger(ws, rows, 30 if name == "pruning" else 3)  # both, because MySQL writes its pages for a while
                told = bench.follow(ws).told
                if name == "pruning":
                    [left] = ws.query("SELECT COUNT(*) AS rows_left FROM projector_applied WHERE applied_at < NOW() - INTERVAL 8 DAY")
                    rates.append((rows - left["rows_left"]) / args.seconds)
                p99[name].append(quantiles(told["visible_us"])["p99"])
    ratio = median(a / b for a, b in zip(p99["pruning"], p99["nothing to prune"]))
    bench.results["pruning"] = {"rows": rows, "rows_per_s": median(rates), "p99_ms": {name: median(ms) for name, ms in p99.items()},
                                "p99_of_without": ratio}
    print_table(f"pruning: {rows:,} old rows, {args.rate} events/s; median of {args.turns}", ("", "p99 ms", "rows pruned a second"),
                [(name, f"{median(ms):.1f}", f"{median(rates):,.0f}" if name == "pruning" else "") for name, ms in p99.items()])
    if median(rates) == 0:
        raise BenchError("nothing was pruned")
    bench.goal("pruning", "p99, times that without", ratio, GOAL_PRUNING)
