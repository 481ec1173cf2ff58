"""Events in a batch, in the queue, or in other hands."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Iterator

import pymysql

from bank import deposited
from endpoint import Endpoint
from workspace import Process, Workspace, decimal

PATIENT = {"mysql": {"lock_wait_s": 600}}  # no wait for a row that the test has locked ends before its time
SWEEPING = {"backoff_ms": 20, "sweep_interval_ms": 100, "claim_mark_ms": 100, **PATIENT}
QUIET = {"backoff_ms": 20, "sweep_interval_ms": 600000, "claim_mark_ms": 100, **PATIENT}
ANOTHER = {"status": "in_progress", "attempts": 1, "claimed_by": "elsewhere:1#1"}


def ago(**time: float) -> datetime:
    """A time in the past, at MongoDB's precision."""
    then = datetime.now(timezone.utc).replace(tzinfo=None) - timedelta(**time)
    return then.replace(microsecond=then.microsecond // 1000 * 1000)


@contextmanager
def row_locked(ws: Workspace, account: str = "a1") -> Iterator[pymysql.cursors.Cursor]:
    """Keeps whoever changes the row inside the transaction."""
    with ws.stores.mysql(ws.name) as lock, lock.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM account WHERE account_id = %s FOR UPDATE", account)
        yield cursor


@contextmanager
def queued_behind_a_lock(ws: Workspace, event: dict) -> Iterator[tuple[Process, pymysql.cursors.Cursor]]:
    """The event has been read, and waits in the queue for a batch that waits for a row."""
    with ws.start_projector() as projector, row_locked(ws) as cursor:
        projector.wait_log("info working")
        endpoint = Endpoint(projector)
        ws.put(deposited(ws))
        ws.wait_lock_wait()
        ws.put(event)
        ws.wait(lambda: endpoint.metrics()["projector_queue_events"] == 1, what="its place in the queue")
        yield projector, cursor


def correct(ws: Workspace, event: dict, amount: str) -> None:
    """As operations.md says."""
    ws.outbox.update_one({"_id": event["_id"], "status": {"$in": ["failed", "dead"]}},
                         {"$set": {"status": "pending", "attempts": 0, "payload.amount": decimal(amount)}, "$unset": {"next_attempt_at": ""}})
