"""A second read model on a feed: its mapping, its projector, and its expected rows."""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Iterator

from bank import SHORT_LEASE
from workspace import Process, Workspace, decimal

FEED = "outbox_search"
SETTINGS = {**SHORT_LEASE, "claim_timeout_ms": 1000, "gap_wait_ms": 100}

# Another view of the same events: money in and out, which renames never touch. A delta applied twice would show.
TURNOVER = [{
    "aggregate_type": "account", "table": "turnover",
    "key": {"account_id": {"from": "$aggregate_id", "type": "varchar(36)"}},
    "columns": {"opened_with": {"from": "balance", "type": "decimal(18,2)"},
                "paid_in": {"from": "paid_in", "type": "decimal(18,2)"},
                "paid_out": {"from": "paid_out", "type": "decimal(18,2)"}},
    "events": {"AccountOpened": {"op": "sql", "statement": "INSERT INTO turnover VALUES (:$aggregate_id, :balance, 0, 0)"},
               "AccountRenamed": {"op": "ignore"},
               "MoneyDeposited": {"op": "add", "columns": {"paid_in": "amount"}},
               "MoneyWithdrawn": {"op": "add", "columns": {"paid_out": "amount"}}},
}]


def opened(ws: Workspace, account: Any, **fields) -> dict:
    """With more fields of the event, beside its payload."""
    return {**ws.event(account, "AccountOpened", user_id="u1", name="Ada", balance=decimal("10.00")), **fields}


def deposited(ws: Workspace, account: Any, amount: str = "1.00", **fields) -> dict:
    return {**ws.event(account, "MoneyDeposited", amount=decimal(amount)), **fields}


def reader_mapping(ws: Workspace, feed: str = FEED, **overrides) -> Path:
    """The mapping of the feed's projector, separate from the workspace's own; also creates its tables."""
    own = ws.file
    mongodb = {"outbox": feed, **overrides.pop("mongodb", {})}
    file = ws.mapping(TURNOVER, name=f"{ws.name}_{feed}", mongodb=mongodb, **SETTINGS, **overrides)
    applied = ws.projector("schema", "--apply")
    assert applied.returncode == 0, applied.stderr
    ws.file = own
    return file


@contextmanager
def using(ws: Workspace, file: Path) -> Iterator[None]:
    own, ws.file = ws.file, file
    try:
        yield
    finally:
        ws.file = own


@contextmanager
def start_reader(ws: Workspace, file: Path) -> Iterator[Process]:
    with using(ws, file):
        started = ws.start_projector()
        process = started.__enter__()
    try:
        yield process
    finally:
        started.__exit__(None, None, None)


def fold(events: list[dict]) -> dict[str, tuple[Decimal, Decimal, Decimal]]:
    """What TURNOVER makes of the events, each applied once."""
    rows: dict[str, list[Decimal]] = defaultdict(lambda: [Decimal("0.00")] * 3)
    for event in events:
        row, payload = rows[event["aggregate_id"]], event["payload"]
        for place, (event_type, field) in enumerate([("AccountOpened", "balance"), ("MoneyDeposited", "amount"),
                                                     ("MoneyWithdrawn", "amount")]):
            if event["event_type"] == event_type:
                row[place] += payload[field].to_decimal()
    return {key: tuple(row) for key, row in rows.items()}


def turnover(ws: Workspace) -> dict[str, tuple[Decimal, Decimal, Decimal]]:
    return {row["account_id"]: (row["opened_with"], row["paid_in"], row["paid_out"]) for row in ws.rows("turnover")}


def feed_documents(ws: Workspace, feed: str = FEED) -> list[dict]:
    return list(ws.db[feed].find().sort([("occurred_at", 1), ("version", 1), ("_id", 1)]))


def checks(ws: Workspace) -> list[dict]:
    return [json.loads(line) for line in ws.projector("check", "--json").stdout.splitlines()]
