"""What becomes of events that are changed while they wait in the queue for their batch."""

from __future__ import annotations

import pytest

from bank import deposited, impossible, opened
from claims import ANOTHER, QUIET, ago, correct, queued_behind_a_lock


def test_an_event_that_is_retried_by_hand_while_it_is_in_the_queue_has_all_attempts_again(bank):
    """Its batch has to wait, but not so long that the queue is read anew."""
    bank.mapping(**QUIET | {"claim_mark_ms": 3600000}, workers=1, batch=1, max_attempts=3, http="127.0.0.1:0")
    bank.put(opened(bank))
    bank.run_once()
    tired = {**impossible(bank, "a2"), "attempts": 2}
    with queued_behind_a_lock(bank, tired) as (projector, cursor):
        bank.outbox.update_one({"_id": tired["_id"]}, {"$set": {"attempts": 0}})
        cursor.execute("COMMIT")
        assert bank.wait_status(tired, "dead")["attempts"] == 3
        assert projector.stop() == 0


@pytest.mark.parametrize("change", [{"status": "dead"}, {**ANOTHER, "claimed_at": ago()}], ids=["dead", "taken"])
def test_an_event_with_attempts_that_became_anothers_in_the_queue_is_left_to_it(bank, change):
    """Only its claim tells: the queue is not read anew."""
    bank.mapping(**QUIET | {"claim_mark_ms": 3600000}, workers=1, batch=1, http="127.0.0.1:0")
    bank.put(opened(bank))
    bank.run_once()
    tried = {**opened(bank, "a2"), "attempts": 2}
    with queued_behind_a_lock(bank, tried) as (projector, cursor):
        bank.outbox.update_one({"_id": tried["_id"]}, {"$set": change})
        cursor.execute("COMMIT")
        last = opened(bank, "a3")
        bank.put(last)
        bank.wait_gone(last)
        assert bank.found(tried) == {**tried, **change}
        assert projector.stop() == 0
    assert [row["account_id"] for row in bank.rows("account")] == ["a1", "a3"]


def test_an_event_that_is_corrected_while_it_is_in_the_queue_is_applied_as_it_is_now(bank):
    """One whose failure cost no attempt: only its status tells that it is another."""
    bank.mapping(**QUIET | {"claim_mark_ms": 3600000}, workers=1, batch=1, http="127.0.0.1:0")
    bank.put(opened(bank), opened(bank, "a2"))
    bank.run_once()
    wrong = {**deposited(bank, "a2", "5.00"), "status": "failed", "attempts": 0, "next_attempt_at": ago(minutes=1)}
    with queued_behind_a_lock(bank, wrong) as (_, cursor):
        correct(bank, wrong, "7.00")
        cursor.execute("COMMIT")
        bank.wait_drained()
    assert [str(row["balance"]) for row in bank.rows("account")] == ["101.00", "107.00"]


@pytest.mark.whole_server  # read_only
def test_an_event_that_is_corrected_during_an_outage_is_applied_as_it_is_now(bank):
    bank.mapping(**QUIET)
    bank.put(opened(bank))
    bank.run_once()
    wrong = deposited(bank, "a1", "5.00")
    with bank.start_projector() as projector:
        projector.wait_log("info working")
        bank.query("SET GLOBAL read_only = 1")
        try:
            bank.put(wrong)
            assert bank.wait_status(wrong, "failed")["attempts"] == 0
            correct(bank, wrong, "7.00")
        finally:
            bank.query("SET GLOBAL read_only = 0")
        bank.wait_drained()
    assert [str(row["balance"]) for row in bank.rows("account")] == ["107.00"]
