"""Claims: whose an event is, what the sweeper may take, and what becomes of events that change hands."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Iterator

import pymysql
import pytest

from bank import deposited, impossible, opened
from workspace import Workspace

SWEEPING = {"backoff_ms": 20, "sweep_interval_ms": 100}
QUIET = {"backoff_ms": 20, "sweep_interval_ms": 600000}
PAIRS = {"workers": 1, "batch": 2, "linger_ms": 700}  # two events that are put together are one batch
ANOTHER = {"status": "in_progress", "attempts": 1, "claimed_by": "elsewhere:1#1"}


def ago(**time: float) -> datetime:
    """As MongoDB keeps it."""
    then = datetime.now(timezone.utc).replace(tzinfo=None) - timedelta(**time)
    return then.replace(microsecond=then.microsecond // 1000 * 1000)


def old_claim(ws: Workspace, account: str) -> dict:
    return {**opened(ws, account), **ANOTHER, "claimed_at": ago(hours=2)}


def is_swept(ws: Workspace, account: str) -> None:
    """The sweeper has looked at everything since this call: it has found one that is old enough for any limit."""
    ws.put(event := old_claim(ws, account))
    ws.wait_gone(event)


@contextmanager
def row_locked(ws: Workspace, account: str = "a1") -> Iterator[pymysql.cursors.Cursor]:
    with ws.stores.mysql(ws.name) as lock, lock.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM account WHERE account_id = %s FOR UPDATE", account)
        yield cursor


# the sweeper


def test_the_sweeper_leaves_young_claims_of_others_alone(bank):
    bank.mapping(**SWEEPING, claim_timeout_ms=3600000)
    with bank.start_projector() as projector:
        projector.wait_log("info working")
        is_swept(bank, "a0")  # so the first sweep, which takes young claims too, is over
        young = {**opened(bank), **ANOTHER, "claimed_at": ago(minutes=30)}
        bank.put(young)
        for account in ("a2", "a3"):
            is_swept(bank, account)
        assert bank.found(young) == young


def test_the_sweeper_leaves_alone_what_is_being_worked_on(bank):
    """However long it takes: the claim grows old while the transaction waits for somebody's lock."""
    bank.mapping(**{**SWEEPING, "backoff_ms": 300000}, claim_timeout_ms=1000)
    bank.put(opened(bank), marker := impossible(bank, "a2"))
    bank.run_once()
    event = deposited(bank)
    with bank.start_projector() as projector, row_locked(bank) as cursor:
        projector.wait_log("info working")
        bank.put(event)
        bank.wait_lock_wait()
        claimed = bank.found(event)
        bank.wait(lambda: ago(seconds=1) > claimed["claimed_at"], what="an old claim")
        bank.outbox.update_one({"_id": marker["_id"]}, {"$set": {**ANOTHER, "claimed_at": ago(hours=2)}})
        bank.wait_status(marker, "pending")  # so the sweeper has been there
        assert bank.found(event) == claimed
        cursor.execute("COMMIT")
        bank.wait_gone(event)
    assert bank.rows("account")[0]["balance"] == Decimal("101.00")


def test_an_event_that_was_claimed_again_while_the_sweeper_asked_the_ledger_is_not_put_back(bank):
    bank.mapping(**SWEEPING, claim_timeout_ms=60000)
    event = old_claim(bank, "a1")
    again = {"claimed_by": "elsewhere:2#2"}

    def asks_the_ledger() -> bool:
        return any("projector_applied" in (r["Info"] or "") for r in bank.query("SHOW FULL PROCESSLIST")
                   if r["db"] == bank.name and (r["Info"] or "").startswith("SELECT event_id"))

    with bank.start_projector() as projector, bank.stores.mysql(bank.name) as lock, lock.cursor() as cursor:
        projector.wait_log("info working")
        is_swept(bank, "a0")
        cursor.execute("LOCK TABLES projector_applied WRITE")
        bank.put(event)
        bank.wait(asks_the_ledger, what="the sweeper to ask the ledger")
        again["claimed_at"] = ago()
        bank.outbox.update_one({"_id": event["_id"]}, {"$set": again})
        cursor.execute("UNLOCK TABLES")
        is_swept(bank, "a2")
        assert bank.found(event) == {**event, **again}


def test_the_sweeper_acknowledges_an_applied_event_however_many_attempts_it_took(bank):
    """It was the last attempt that worked, and its projector died before it could say so."""
    bank.mapping(**QUIET, max_attempts=3)
    first = opened(bank)
    bank.put(first)
    bank.run_once()
    bank.put({**first, **ANOTHER, "attempts": 3, "claimed_at": ago(hours=2)})
    done = bank.run_once()
    assert bank.outbox.find_one() is None and "dead" not in done.stderr
    assert len(bank.rows("account")) == 1


# events that change hands


@pytest.mark.parametrize("change", [{"status": "dead"}, {**ANOTHER, "claimed_at": ago()}], ids=["dead", "taken"])
def test_an_event_that_became_anothers_in_the_queue_is_left_to_it(bank, change):
    bank.mapping(**QUIET, workers=1, batch=1)
    bank.put(opened(bank))
    bank.run_once()
    first, second, third = deposited(bank), opened(bank, "a2"), opened(bank, "a3")
    with bank.start_projector() as projector, row_locked(bank) as cursor:
        projector.wait_log("info working")
        bank.put(first, second, third)
        bank.wait_lock_wait()
        bank.outbox.update_one({"_id": second["_id"]}, {"$set": change})
        cursor.execute("COMMIT")
        bank.wait_gone(first, third)
        assert bank.found(second) == {**second, **change}
    assert [row["account_id"] for row in bank.rows("account")] == ["a1", "a3"]


@pytest.mark.parametrize("what", ["given back", "failed", "applied"])
def test_an_event_that_another_claimed_meanwhile_is_settled_only_when_it_was_applied(bank, what):
    """A claim that is lost, by a sweep say, is another's: what is to do is for it to say; what is done is done."""
    bank.mapping(**QUIET, **PAIRS, gap_wait_ms=600000)
    bank.put(opened(bank))
    bank.run_once()
    first, after = deposited(bank), opened(bank, "a3")
    second = {"given back": {**opened(bank, "a2"), "version": 5}, "failed": impossible(bank, "a2"), "applied": opened(bank, "a2")}[what]
    with bank.start_projector() as projector, row_locked(bank) as cursor:
        projector.wait_log("info working")
        bank.put(first, second)
        bank.wait_lock_wait()
        bank.wait_status(second, "in_progress")
        bank.outbox.update_one({"_id": second["_id"]}, {"$set": {"claimed_by": "elsewhere:1#1"}})
        taken = bank.found(second)
        cursor.execute("COMMIT")
        bank.wait_gone(first)
        bank.put(after)
        bank.wait_gone(after)  # in a later batch
        if what == "applied":
            bank.wait_gone(second)
        else:
            assert bank.found(second) == taken


def test_an_event_that_is_given_back_has_lost_no_attempt(bank):
    bank.mapping(**QUIET, gap_wait_ms=600000)
    event = {**opened(bank), "version": 5}
    with bank.start_projector():
        bank.put(event)
        stored = bank.wait(lambda: bank.outbox.find_one({"status": "pending", "attempts": {"$exists": True}}), what="the gap")
    assert stored["attempts"] == 0 and not {"claimed_by", "claimed_at"} & stored.keys()


def test_before_a_retry_comes_what_sorts_before_it_read_or_not(bank):
    """The earlier event had no aggregate when it was read; no stream tells that somebody has mended it."""
    bank.mapping(**{**QUIET, "backoff_ms": 300000})
    earlier, failed = opened(bank), deposited(bank)  # which has no row yet
    del earlier["aggregate_id"]
    with bank.start_projector():
        bank.put(earlier, failed)
        bank.wait_status(earlier, "dead")
        bank.wait_status(failed, "failed")
        bank.outbox.update_one({"_id": earlier["_id"]}, {"$set": {"aggregate_id": "a1", "status": "pending"}})
        assert bank.projector("retry", str(failed["_id"])).returncode == 0
        bank.wait_drained()
    assert bank.rows("account")[0]["balance"] == Decimal("101.00")


def test_a_failed_event_is_not_tried_before_its_time_although_others_are_swept_and_retried(bank):
    bank.mapping(**{**SWEEPING, "backoff_ms": 300000})
    bad, other = impossible(bank, "a1"), impossible(bank, "a2")
    with bank.start_projector():
        bank.put(bad, other)
        failed = bank.wait_status(bad, "failed")
        bank.wait_status(other, "failed")
        assert bank.projector("retry", str(other["_id"])).returncode == 0  # every hold is looked at
        bank.wait(lambda: bank.found(other)["attempts"] == 1 and bank.found(other)["status"] == "failed", what="the retry")
        for account in ("a3", "a4"):
            is_swept(bank, account)
        assert bank.found(bad) == failed
