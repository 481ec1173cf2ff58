"""What `status` and `explain` say is known, or they say that it is not."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from bson import Int64

from workspace import Workspace, decimal

UNKNOWN = {"pending": None, "in_progress": None, "failed": None, "dead": None, "future": None, "oldest_occurred_at": None}


def opened(ws: Workspace, account: str, version: int | None = None, **more) -> dict:
    return ws.event(account, "AccountOpened", version, user_id="u1", name="Ada", balance=decimal("1.00"), **more)


@pytest.mark.thorough
def test_what_mongodb_could_not_be_asked_for_is_null(bank):
    bank.mapping(mongodb={"uri": "mongodb://127.0.0.1:1/?replicaSet=rs0"})
    done = bank.projector("status", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 3 and told["mongodb"]["reason"] and told["mysql"]["usable"]
    assert told["projector"] == {"state": "unknown", "owner": None, "lease_expires_in_ms": None} and told["outbox"] == UNKNOWN
    assert {told[name] for name in ("lag_ms", "oldest_age_ms", "blocked_aggregates", "feeds", "paused")} == {None}
    assert "pending" not in bank.projector("status").stdout


def test_missing_tables_are_no_store_that_is_away(ws):
    ws.outbox_program("init", check=True)
    done = ws.projector("status", "--json")
    assert done.returncode == 2 and json.loads(done.stdout)["mysql"]["code"] == 1146


def test_an_event_held_for_its_time_is_no_failure(bank):
    then = datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(days=400)
    bank.mapping(backoff_ms=300000)  # the failed event below stays failed
    with bank.start_projector() as process:
        bank.put(opened(bank, "a1"), early := bank.event("a1", "AccountRenamed", at=then, name="Grace"))
        bank.wait_status(early, "failed")
        done = bank.wait(lambda: (d := bank.projector("status", "--json")).returncode == 0 and d, what="a good status")
        told = json.loads(done.stdout)
        assert (told["outbox"]["failed"], told["outbox"]["future"], told["blocked_aggregates"]) == (0, 1, 0)
        assert "0 failed, 0 dead, 1 held until the time in occurred_at is near" in bank.projector("status").stdout
        bank.put(bad := bank.event("a2", "AccountRenamed", name="Ada"))  # there is no such row
        bank.wait_status(bad, "failed")
        done = bank.projector("status", "--json")
        assert done.returncode == 1 and json.loads(done.stdout)["outbox"]["failed"] == 1
        assert process.stop() == 0
    assert bank.projector("skip", str(bad["_id"])).returncode == 0
    done = bank.projector("status", "--json")  # nobody works any more who would apply it in time
    told = json.loads(done.stdout)["outbox"]
    assert (done.returncode, told["pending"], told["failed"], told["future"]) == (1, 0, 0, 1)


# explain


def told(ws: Workspace, *arguments: str) -> dict:
    return json.loads(ws.projector("explain", "account", "a1", *arguments, "--json").stdout)


def test_a_row_lags_whichever_version_is_looked_at(bank):
    bank.mapping(mongodb={"retain": "archive"}, backoff_ms=300000)
    bank.put(opened(bank, "a1", 1))
    bank.run_once()
    bank.put(bank.event("a1", "MoneyDeposited", 2, amount="much"), bank.event("a1", "MoneyDeposited", 3, amount=decimal("1.00")))
    bank.run_once()
    bank.accounts.insert_one({"_id": "a1", "version": Int64(3), "last_event_at": datetime(2026, 1, 1), "user_id": "u1", "name": "Ada",
                              "balance": decimal("3.00")})
    assert [told(bank, *version)["projections"][0]["finding"] for version in ((), ("1",), ("2",), ("3",))] == ["lagging"] * 4
    assert [told(bank, version)["outbox"][0]["state"] for version in ("2", "3")] == ["failed", "held"]
    assert [event["state"] for event in told(bank)["outbox"]] == ["failed", "held"]


def test_a_row_lags_behind_more_events_than_are_shown(bank):
    events = [opened(bank, "a1", 1)] + [bank.event("a1", "MoneyDeposited", v, amount=decimal("1.00")) for v in range(2, 61)]
    bank.put(events[:51])
    bank.run_once()
    bank.put(events)  # those of a writer that was applied, and are still there
    bank.accounts.insert_one({"_id": "a1", "version": Int64(60), "last_event_at": datetime(2026, 1, 1), "user_id": "u1", "name": "Ada",
                              "balance": decimal("60.00")})
    assert told(bank)["projections"][0]["finding"] == "lagging"
