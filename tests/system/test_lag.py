"""How long events wait is measured by one clock, MongoDB's, from the moment at which they could be read; the writers'
clocks yield a separate figure."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Iterator

import pytest

from endpoint import Endpoint
from bank import deposited, impossible, opened
from claims import correct
from workspace import Process, Workspace, decimal

SETTINGS = {"http": "127.0.0.1:0", "backoff_ms": 20, "sweep_interval_ms": 500, "lease_ms": 2000}


def off_by(**delta) -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(**delta)


@contextmanager
def working(ws: Workspace, **settings) -> Iterator[tuple[Process, Endpoint]]:
    ws.mapping(**{**SETTINGS, **settings})
    with ws.start_projector() as process:
        endpoint = Endpoint(process)
        process.wait_log("info working")
        yield process, endpoint


def lag_of(ws: Workspace) -> int:
    return json.loads(ws.projector("status", "--json").stdout)["lag_ms"]


@pytest.mark.thorough(beyond=1)
@pytest.mark.parametrize("clock", [{"minutes": -2}, {"days": -2500}, {"hours": 3}], ids=["slow", "backfill", "fast"])
def test_a_writers_clock_makes_no_lag(bank, clock):
    with working(bank, ready_lag_ms=60000) as (_, endpoint):
        bank.wait(lambda: endpoint.get("/readyz").status == 200, what="readiness")
        for i in range(20):
            bank.put(event := opened(bank, f"a{i}", at=off_by(**clock)))
            bank.wait_gone(event)
            assert endpoint.get("/readyz").status == 200
        metrics = endpoint.metrics()
        assert metrics["projector_lag_seconds_count"] == 20
        assert metrics['projector_lag_seconds_bucket{le="60"}'] == 20
        assert metrics["projector_waiting_seconds"] < 60


@contextmanager
def locked(bank: Workspace) -> Iterator[None]:
    with bank.stores.mysql(bank.name) as connection, connection.cursor() as cursor:
        connection.begin()
        cursor.execute("SELECT * FROM account FOR UPDATE")
        yield
        connection.rollback()


def test_what_is_stuck_has_lag_although_its_writer_is_fast(bank):
    with working(bank) as (_, endpoint):
        bank.put(first := opened(bank, "a1"))
        bank.wait_gone(first)
        with locked(bank):
            bank.put(event := bank.event("a1", "MoneyDeposited", at=off_by(hours=3), amount=decimal("1.00")))
            bank.wait(lambda: endpoint.metrics()["projector_waiting_seconds"] > 3, what="lag")
            bank.wait(lambda: lag_of(bank) > 1000, what="the lag in status, of the last heartbeat")
        bank.wait_gone(event)
        bank.wait(lambda: endpoint.metrics()["projector_waiting_seconds"] == 0, what="no lag")
        bank.wait(lambda: endpoint.metrics()["projector_oldest_event_age_seconds"] == 0, what="no oldest event")


@pytest.mark.thorough
def test_what_waits_behind_a_dead_event_has_lag_and_the_dead_one_has_none(bank):
    with working(bank, permanent="dead") as (_, endpoint):
        bank.put(dead := bank.event("a1", "MoneyDeposited", at=off_by(hours=-1), amount="much"))
        bank.wait_status(dead, "dead")
        bank.wait(lambda: endpoint.metrics()["projector_outbox_events{state=\"dead\"}"] == 1, what="the count")
        assert endpoint.metrics()["projector_oldest_event_age_seconds"] == 0
        assert json.loads(bank.projector("status", "--json").stdout)["outbox"]["oldest_occurred_at"] is None
        bank.wait(lambda: endpoint.metrics()["projector_waiting_seconds"] == 0, what="no lag of the dead one")
        bank.put(opened(bank, "a1"))
        bank.wait(lambda: endpoint.metrics()["projector_waiting_seconds"] > 2, what="lag")


def test_what_was_done_before_a_dead_event_no_longer_counts_as_lag(bank):
    """An earlier one took its hold over for a while, with one behind it that is before the dead one."""
    with working(bank, permanent="dead") as (_, endpoint):
        bank.put(opened(bank, at=off_by(hours=-4)), last := impossible(bank, at=off_by(hours=-1)))
        bank.wait_status(last, "dead")
        bank.put(first := impossible(bank, at=off_by(hours=-3)))
        bank.wait_status(first, "dead")
        bank.put(between := deposited(bank, at=off_by(hours=-2)))
        bank.wait(lambda: endpoint.metrics()["projector_waiting_seconds"] > 0, what="lag of the one between")
        correct(bank, first, "1.00")
        bank.wait_gone(first)
        bank.wait_gone(between)
        bank.wait(lambda: endpoint.metrics()["projector_waiting_seconds"] == 0, what="no lag")
        assert bank.found(last)["status"] == "dead"


def test_a_projector_that_restarts_does_not_forget_how_long_events_wait(bank):
    """Each start finds the backlog by a scan; the lease records up to when everything was settled."""
    bank.put(first := opened(bank, "a1"))
    with working(bank, permanent="dead") as (process, _):
        bank.wait_gone(first)
        bank.wait(lambda: (bank.db["projector_leases"].find_one({"_id": bank.name}) or {}).get("lag_ms") == 0, what="a heartbeat")
        process.stop()
    bank.put(bank.event("a2", "MoneyDeposited", amount="much"), opened(bank, "a2"))  # dead, and one behind it
    settled = bank.db["projector_leases"].find_one({"_id": bank.name})["settled_at"]
    bank.db["projector_leases"].update_one({"_id": bank.name}, {"$set": {"settled_at": settled - timedelta(hours=3)}})
    for _ in range(2):
        assert lag_of(bank) > 3 * 3600 * 1000
        with working(bank, permanent="dead") as (process, endpoint):
            bank.wait(lambda: endpoint.metrics()["projector_waiting_seconds"] > 3 * 3600, what="the lag of three hours")
            bank.wait(lambda: lag_of(bank) > 3 * 3600 * 1000, what="the same in status")
            process.stop()


def test_an_idle_projector_keeps_the_moment_until_which_all_is_settled(bank):
    with working(bank) as (_, _endpoint):
        moment = bank.wait(lambda: (bank.db["projector_leases"].find_one({"_id": bank.name}) or {}).get("settled_at"))
        bank.wait(lambda: bank.db["projector_leases"].find_one({"_id": bank.name})["settled_at"] > moment, what="it to move on")
    assert lag_of(bank) == 0
