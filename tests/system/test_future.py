"""An event whose time is far ahead of MongoDB's clock visibly waits for
that time; other events of its aggregate do not wait for it."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone

import pytest

from bank import opened
from endpoint import Endpoint
from workspace import Workspace, decimal

SETTINGS = {"backoff_ms": 20, "sweep_interval_ms": 500, "lease_ms": 2000}


def ahead(**delta) -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None, microsecond=0) + timedelta(**delta)


def listed(ws: Workspace, *arguments: str) -> list[dict]:
    return [json.loads(line) for line in ws.projector("list", "--json", *arguments).stdout.splitlines()]


def test_an_event_from_the_future_is_held_with_its_reason_and_burns_no_attempt(bank):
    bank.mapping(**SETTINGS)
    early = bank.event("a1", "AccountRenamed", at=(then := ahead(days=400)), name="Grace")
    with bank.start_projector() as process:
        bank.put(first := opened(bank, "a1"), early)
        bank.wait_gone(first)
        held = bank.wait_status(early, "failed")
        assert held["attempts"] == 0
        assert held["last_error"]["class"] == "data"
        assert re.match(r"occurred_at: .* is more than future_ms \(1 d.*\) ahead of MongoDB's clock; .* held", held["last_error"]["message"])
        assert abs(held["next_attempt_at"] - (then - timedelta(days=1))) < timedelta(seconds=5)
        process.wait_log(r"warning event held event=")
        bank.put(renamed := bank.event("a1", "AccountRenamed", name="Ada L."), deposited := bank.event("a1", "MoneyDeposited", amount=decimal("2.00")))
        bank.wait_gone(renamed, deposited)
        assert (bank.rows("account")[0]["name"], str(bank.rows("account")[0]["balance"])) == ("Ada L.", "102.00")
        (told,) = listed(bank)
        assert told["event_id"] == str(early["_id"]) and "future_ms" in told["reason"]["message"] and told["attempts"] == 0
        assert bank.projector("retry", str(early["_id"])).returncode == 0  # nobody can bring its time forward
        bank.wait(lambda: bank.found(early).get("status") == "failed" and "next_attempt_at" in bank.found(early), what="it to be held again")
        assert process.stop() == 0
    again = bank.run_once()
    assert bank.found(early)["attempts"] == 0 and "event failed" not in again.stderr


@pytest.mark.thorough
def test_it_is_applied_when_its_time_has_come_near(bank):
    bank.mapping(**SETTINGS, future_ms=2000)
    with bank.start_projector() as projector:
        projector.wait_log("info working")
        bank.put(first := opened(bank, "a1"), early := bank.event("a1", "AccountRenamed", at=(then := ahead(seconds=7)), name="Grace"))
        bank.wait_gone(first)
        bank.wait_gone(early)
        assert ahead() >= then - timedelta(seconds=3.5)
    assert bank.rows("account")[0]["name"] == "Grace"


def test_a_larger_future_ms_lets_it_through_after_a_restart(bank):
    bank.mapping(**SETTINGS)
    bank.put(opened(bank, "a1"), early := bank.event("a1", "AccountRenamed", at=ahead(days=3), name="Grace"))
    bank.run_once()
    assert bank.found(early)["status"] == "failed"
    bank.mapping(**SETTINGS, future_ms=5 * 86400 * 1000)
    bank.run_once()
    assert bank.found(early) is None and bank.rows("account")[0]["name"] == "Grace"


def test_many_at_once_are_a_clock_alarm_and_no_failures(bank):
    bank.mapping(**SETTINGS, http="127.0.0.1:0", max_blocked=5)
    with bank.start_projector() as process:
        endpoint = Endpoint(process)
        bank.put([opened(bank, f"a{i}", at=ahead(days=2)) for i in range(30)])
        process.wait_log(r"error the times of many events are far ahead of MongoDB's clock: a clock is wrong")
        remark = bank.wait(lambda: next((r for r in endpoint.get("/live").json["health"]
                                         if re.match(r"30 aggregates wait .* a clock is wrong", r["text"])), None), what="all thirty")
        assert remark["level"] == "bad"
        metrics = endpoint.metrics()
        assert metrics["projector_future_aggregates"] == 30
        assert metrics['projector_events_failed_total{projection="account"}'] == 0
        assert endpoint.get("/readyz").status == 200  # what can be applied is applied
        bank.put(good := opened(bank, "b1"))
        bank.wait_gone(good)
        assert "too many aggregates are blocked" not in process.log_text() and "event failed" not in process.log_text()
