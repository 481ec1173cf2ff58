"""What the tests of replay share: the lives of accounts, and the reference, a plain fold of their events."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from typing import Iterable

import pytest
from bson import Int64

from bank import SHORT_LEASE
from workspace import Workspace, decimal

ARCHIVE = {"mongodb": {"retain": "archive"}}


def fold(events: Iterable[dict]) -> dict[str, tuple[str, Decimal]]:
    """Name and balance of each account after its events, by key."""
    rows: dict[str, tuple[str, Decimal]] = {}
    for event in sorted(events, key=lambda e: (e["occurred_at"], e.get("version") or 0, e["_id"].bytes)):
        account, kind, payload = event["aggregate_id"], event["event_type"], event["payload"]
        if kind == "AccountOpened":
            rows[account] = (payload["name"], payload["balance"].to_decimal())
        elif kind == "AccountClosed":
            rows.pop(account, None)
        elif kind == "AccountRenamed":
            rows[account] = (payload["name"], rows[account][1])
        elif kind == "AccountFrozen":
            rows[account] = (rows[account][0] + " (frozen)", rows[account][1])
        elif kind in ("MoneyDeposited", "MoneyWithdrawn"):
            sign = 1 if kind == "MoneyDeposited" else -1
            rows[account] = (rows[account][0], rows[account][1] + sign * payload["amount"].to_decimal())
    return rows


def shown(ws: Workspace, table: str = "account") -> dict[str, tuple[str, Decimal]]:
    return {row["account_id"]: (row["name"], row["balance"]) for row in ws.rows(table)}


def opened(ws: Workspace, account: str, balance: str = "10.00", **more) -> dict:
    return ws.event(account, "AccountOpened", 1, user_id="u", name=f"Ada {account}", balance=decimal(balance),
                    opened_at=ws._clock, **more)


def life(ws: Workspace, accounts: int, each: int, seed: int = 7, prefix: str = "a") -> list[dict]:
    """Events of many accounts, the accounts taking turns."""
    dice = random.Random(seed)
    events = [opened(ws, f"{prefix}{n}") for n in range(accounts)]
    for version in range(2, each + 1):
        for n in range(accounts):
            kinds = ["MoneyDeposited"] * 5 + ["MoneyWithdrawn"] * 3 + ["AccountRenamed", "StatementSent"]
            kind = dice.choice(kinds + ["AccountFrozen"] * (version < 9))  # each makes a name longer
            payload = {"AccountRenamed": {"name": f"Bob {version}"}, "AccountFrozen": {}, "StatementSent": {}}.get(
                kind, {"amount": decimal(f"{dice.randint(1, 999) / 100:.2f}")})
            events.append(ws.event(f"{prefix}{n}", kind, version, **payload))
    return events


def leftovers(ws: Workspace) -> tuple[list, list]:
    """Tables and ledgers that a finished replay must not leave behind."""
    tables = [t for row in ws.query("SHOW TABLES") for t in row.values() if "__" in t]
    ledgers = ws.query("SELECT projector FROM projector_applied WHERE projector LIKE '%/%' UNION SELECT projector"
                       " FROM projector_position WHERE projector LIKE '%/%' UNION SELECT projector FROM"
                       " projector_fence WHERE projector LIKE '%/%'")
    return tables, list(ledgers)


@pytest.fixture
def bank(ws: Workspace) -> Workspace:
    """Replaces the usual bank with one that keeps an archive."""
    ws.mapping(**ARCHIVE, **SHORT_LEASE)
    ws.create()
    assert ws.outbox_program("init", "--outbox", "outbox_archive").returncode == 0
    return ws


def verify(ws: Workspace, status: int = 0) -> list[dict]:
    done = ws.projector("archive", "verify", "--json")
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def entity(account: str, version: int, **values) -> dict:
    return {"_id": account, "user_id": "u", "name": f"Ada {account}", "balance": decimal("10.00"),
            "version": Int64(version), **values}
