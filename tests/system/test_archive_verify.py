"""`archive verify`: whether the archived events account for everything in the entities."""

from __future__ import annotations

import threading

import pytest
from bson import Int64

from bank import SHORT_LEASE
from replays import bank, entity, opened, verify
from workspace import Workspace, decimal


def written(ws: Workspace) -> list[dict]:
    """Two accounts whose events reproduce them, and one that is closed."""
    events = [opened(ws, f"a{n}") for n in range(3)] + [
        ws.event("a0", "MoneyDeposited", 2, amount=decimal("2.50")), ws.event("a0", "AccountRenamed", 3, name="Eve"),
        ws.event("a2", "AccountClosed", 2)]
    for event in events[:3]:
        del event["payload"]["opened_at"]
    ws.accounts.insert_many([entity("a0", 3, name="Eve", balance=decimal("12.50")), entity("a1", 1)])
    ws.put(events)
    return events


@pytest.mark.thorough
def test_events_that_tell_everything(bank):
    written(bank)
    bank.run_once()
    waiting = bank.event("a1", "MoneyWithdrawn", 2, amount=decimal("1.00"))
    bank.put(waiting)  # not archived yet, but part of the log all the same
    bank.accounts.update_one({"_id": "a1"}, {"$set": {"balance": decimal("9.00"), "version": Int64(2)}})
    [sums] = verify(bank)
    assert (sums["aggregates"], sums["equal"]) == (3, 3)
    assert "3 reproduced by their events alone" in bank.projector("archive", "verify", "account").stdout


def test_what_the_events_do_not_tell(bank):
    events = written(bank)
    bank.run_once()
    archive = bank.db["outbox_archive"]
    archive.delete_one({"_id": events[3]["_id"]})  # a deposit of a0
    bank.accounts.update_one({"_id": "a1"}, {"$set": {"name": "Somebody"}})  # written past the outbox
    archive.delete_one({"_id": events[5]["_id"]})  # the closing of a2
    bank.accounts.insert_one(entity("a3", 1))  # without any event
    bank.put(bank.event("a4", "MoneyDeposited", 2, amount=decimal("1.00")))
    bank.accounts.insert_one(entity("a4", 2))
    *found, sums = verify(bank, status=1)
    reasons = {f["aggregate_id"]: (f["finding"], f["reason"]) for f in found}
    assert reasons["a0"] == ("different", "balance: entity 12.5, events 10; version 2 is missing")
    assert reasons["a1"] == ("different", 'name: entity Somebody, events Ada a1')
    assert reasons["a2"] == ("different", "the events produce a row, but there is no entity")
    assert reasons["a3"] == ("different", "there is an entity, but the events produce no row")
    assert reasons["a4"][0] == "broken" and "row missing" in reasons["a4"][1]
    assert (sums["different"], sums["broken"], sums["gaps"]) == (4, 1, 2)


@pytest.mark.thorough
def test_a_statement_is_not_judged(bank):
    written(bank)
    bank.put(bank.event("a1", "AccountFrozen", 2))
    bank.run_once()
    [sums] = verify(bank)
    assert (sums["equal"], sums["unknown"]) == (2, 1)


@pytest.mark.thorough
@pytest.mark.whole_server  # failCommand
def test_an_entity_that_changes_during_every_check_is_no_good_answer(bank):
    written(bank)
    bank.run_once()
    slow = {"failCommands": ["find"], "blockConnection": True, "blockTimeMS": 500, "appName": "projector", "namespace": f"{bank.name}.accounts"}
    ended = threading.Event()

    def change() -> None:
        while not ended.wait(0.01):
            bank.accounts.update_one({"_id": "a1"}, {"$inc": {"looked_at": 1}})

    bank.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": slow})
    writer = threading.Thread(target=change)
    writer.start()
    try:
        found, sums = verify(bank, status=1)
        text = bank.projector("archive", "verify", "account")
    finally:
        ended.set()
        writer.join()
        bank.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
    assert (found["finding"], found["aggregate_id"]) == ("changing", "a1") and (sums["equal"], sums["changing"]) == (2, 1)
    assert text.returncode == 1 and "1 not verified" in text.stdout
    assert [sums["changing"] for sums in verify(bank)] == [0]


@pytest.mark.thorough
def test_wrong_use_of_verify(bank):
    for arguments, says in ([], "verify [TABLE]"), (["mend"], "verify [TABLE]"), (["verify", "nowhere"], "nowhere"):
        done = bank.projector("archive", *arguments)
        assert done.returncode == 2 and says in done.stderr
    bank.mapping(**SHORT_LEASE)
    done = bank.projector("archive", "verify")
    assert done.returncode == 2 and "no outbox_archive" in done.stderr
