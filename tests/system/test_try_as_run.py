"""`try` predicts what `run` does: random events, good, bad, late and repeated, have the same outcomes and rows in both.

More seeds: TRY_SEEDS=10-40 ./run test --suite system -k try_as_run
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from datetime import datetime, timedelta

import pytest
from bson import json_util
from workspace import PROJECTOR

FIRST, _, LAST = os.environ.get("TRY_SEEDS", "1-4").partition("-")
SEEDS = range(int(FIRST), int(LAST or FIRST) + 1)

PROJECTIONS = [
    {"aggregate_type": "order", "table": "orders", "when": {"path": "kind", "in": ["web", "shop"]},
     "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}},
     "columns": {"kind": {"from": ["sort", "kind"], "type": "enum('web','shop')"}, "total": {"from": "total", "type": "decimal(9,2)", "default": 0},
                 "city": {"from": "/address/city", "type": "varchar(20)", "null": True}, "source": {"value": "test", "type": "char(4)"},
                 "gone": {"from": "gone", "type": "datetime(3)", "null": True}, "at": {"from": "$occurred_at", "type": "datetime(3)"}},
     "always": ["at"],
     "children": [{"table": "line", "from": "lines", "key": {"no": {"from": "$index", "type": "int"}},
                   "columns": {"sku": {"from": "$item.sku", "type": "varchar(4)"}, "of": {"from": "kind", "type": "varchar(9)", "default": "-"}}},
                  {"table": "tag", "from": "tags", "default": [], "key": {"tag": {"from": "$item", "type": "varchar(9)"}}}],
     "events": {"Put": {"op": "upsert"}, "Moved": {"op": "update", "columns": ["city"], "when": {"path": "/address/city", "exists": True}},
                "Lined": {"op": "update", "columns": ["line"]}, "Tagged": {"op": "update", "columns": {"tag": "more", "total": "total"}},
                "Raised": {"op": "add", "columns": {"total": "by"}}, "Lowered": {"op": "subtract", "columns": {"total": "by"}},
                "Marked": {"op": "delete", "set": {"gone": "$occurred_at"}}, "Removed": {"op": "delete"}, "Noted": {"op": "ignore"}}},
    {"aggregate_type": "order", "table": "seen", "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}},
     "columns": {"n": {"from": "n", "type": "tinyint", "default": 1}},
     "events": {"Put": {"op": "upsert"}, "Raised": {"op": "add", "columns": {"n": {"value": 1}}}}}]
TABLES = ["orders", "line", "tag", "seen"]
START = datetime(2026, 1, 1)


def payload(chance: random.Random) -> dict:
    """Mostly what every event type needs; now and then something is missing or wrong."""
    full = {"kind": chance.choice(["web", "shop", "phone"]), "total": chance.choice([1, 2.5, "3.25"]), "by": chance.choice([1, 0.5]), "address": {"city": "Bern"},
            "lines": [{"sku": chance.choice("abc")} for _ in range(chance.randrange(4))], "tags": chance.sample("pqr", chance.randrange(4)),
            "more": chance.sample("xyz", chance.randrange(3))}
    if chance.random() < 0.1:
        full.pop(chance.choice(list(full)))
    if chance.random() < 0.05:
        full.update(chance.choice([{"total": "much"}, {"lines": [{"sku": "too long"}]}, {"tags": ["p", "p"]}, {"lines": {}}, {"by": 1e9}, {"more": [None]},
                                   {"sort": "fax"}, {"gone": START}]))
    return full


def make(chance: random.Random) -> list[list[dict]]:
    """In chunks, ordered by time within each; a later chunk may hold earlier events, and repeat some."""
    types = ["Put"] * 12 + list(PROJECTIONS[0]["events"])
    events = [{"_id": f"e{n}", "aggregate_type": "order", "aggregate_id": f"o{chance.randrange(8)}", "event_type": chance.choice(types),
               "occurred_at": START + timedelta(seconds=n), "payload": payload(chance)} for n in range(60)]
    late = chance.sample(events, 6)
    rest = [e for e in events if e not in late]
    pieces = [rest[:20], rest[20:], late[:3], late[3:]]
    return [sorted(piece, key=lambda e: e["occurred_at"]) for piece in pieces]


def text(value):
    return value.strftime("%Y-%m-%d %H:%M:%S.") + f"{value.microsecond // 1000:03}" if isinstance(value, datetime) else value if value is None else str(value)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", SEEDS)
def test_outcomes_and_rows_are_those_of_run(ws, seed):
    chance = random.Random(seed)
    ws.mapping(PROJECTIONS, backoff_ms=300000, max_attempts=5, batch=chance.choice([1, 500]))
    ws.create()
    pieces = make(chance)
    for n, piece in enumerate(pieces):
        held = set(ws.outbox.distinct("aggregate_id"))  # late events make `run` retry what waits; `try` does not
        pieces[n] = piece = [e for e in piece if n < 2 or e["aggregate_id"] not in held]
        if piece:
            ws.put([dict(e) for e in piece])
        ws.projector("run", "--once")
    ledger, left = ws.ledger(), {e["_id"]: e.get("status") for e in ws.outbox.find()}
    events = [e for piece in pieces for e in piece]
    outcomes = [ledger.get(e["_id"]) or ("failed" if left[e["_id"]] == "failed" else "waits") for e in events]
    rows = {table: [{name: text(value) for name, value in row.items()} for row in ws.query(f"SELECT * FROM {table}")] for table in TABLES}
    case = {"name": f"seed {seed}", "events": json.loads(json_util.dumps(events)), "expect": rows, "outcomes": outcomes}
    file = ws.folder / "cases.json"
    file.write_text(json.dumps({"cases": [case]}))
    done = subprocess.run([PROJECTOR, "try", "-c", str(ws.file), "--expect", str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "applied" in outcomes, "the seed tries nothing"
