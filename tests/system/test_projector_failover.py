"""Whatever a MongoDB failover must not undo is written and read with majority."""

from __future__ import annotations

import dataclasses
import json
from typing import Iterator

import pytest
from pymongo.uri_parser import parse_uri

from bank import impossible, opened
from wire import Wire, recorded
from workspace import Workspace

MAJORITY = {"w": "majority"}


@pytest.fixture
def wire(bank: Workspace) -> Iterator[Wire]:
    """What both programs send to MongoDB in this workspace."""
    port = parse_uri(bank.stores.mongo_uri)["nodelist"][0][1]
    with recorded(port) as wire:
        bank.stores = dataclasses.replace(bank.stores, mongo_uri=wire.uri())
        yield wire


def concerns(commands: list[dict]) -> list[dict | None]:
    assert commands
    return [command.get("writeConcern") for command in commands]


def test_the_lease_is_on_a_majority(bank, wire):
    bank.mapping()
    bank.run_once()
    assert set(map(str, concerns(wire.named("findAndModify", findAndModify="projector_leases")))) == {str(MAJORITY)}
    assert concerns(wire.named("update", update="projector_leases"))[-1] == MAJORITY  # given back


def test_failures_and_what_a_person_decides_are_on_a_majority(bank, wire):
    bank.mapping(backoff_ms=300000)
    bank.put(bad := impossible(bank, "a2"))
    bank.run_once()
    updates = concerns(wire.named("update", update="outbox"))
    assert updates == [MAJORITY] * len(updates)
    claims = concerns(wire.named("update", update="projector_claims"))
    assert claims == [{"w": 1}] * len(claims)
    for command in ("retry", "skip"):
        wire.commands.clear()
        if command == "skip":
            bank.run_once()
            wire.commands.clear()
        assert bank.projector(command, str(bad["_id"])).returncode == 0
        assert all(c == MAJORITY for c in concerns(wire.named("update")))


def test_the_archives_copy_is_on_a_majority_before_the_event_leaves_the_outbox(bank, wire):
    bank.mapping(mongodb={"retain": "archive"})
    bank.put(event := opened(bank))
    bank.run_once()
    names = [next(iter(command)) for command in wire.commands]
    [copy] = [c for c in wire.named("aggregate", aggregate="outbox") if any("$merge" in stage for stage in c["pipeline"])]
    assert copy["writeConcern"] == MAJORITY
    assert wire.commands.index(copy) < names.index("delete")
    assert bank.db["outbox_archive"].find_one({"_id": event["_id"]})


def test_numbers_are_given_on_a_majority(bank, wire):
    bank.mapping(mongodb={"retain": "archive"})
    bank.put(opened(bank))
    with bank.start_projector():
        bank.wait(lambda: bank.db["outbox_archive"].find_one({"seq": 1}), what="a number")
    assert concerns(wire.named("commitTransaction")) == [MAJORITY]


def test_what_may_roll_back_is_not_read(bank, wire):
    bank.mapping(gap_wait_ms=0)
    bank.accounts.insert_one({"_id": "a1", "user_id": "u", "name": "Zoë", "balance": 1, "version": 3})
    bank.put(opened(bank))
    bank.run_once()
    assert bank.projector("refresh", "account", "a1").returncode == 0
    assert bank.projector("reconcile").returncode in (0, 1)
    finds = wire.named("find")
    scan = [c for c in finds if c["find"] == "outbox" and c["readConcern"]["level"] == "snapshot"]
    entities = wire.named("find", find="accounts")
    assert scan and entities
    assert {c["readConcern"]["level"] for c in entities} == {"majority"}


ENTITY = {"insert": {"text": "a"}}


@pytest.mark.parametrize("entity, receipts", [(None, True), (None, False), (ENTITY, True)],
                         ids=["event alone", "event alone, no receipts", "with its entity"])
def test_what_the_outbox_program_calls_stored_is_on_a_majority(bank, wire, entity, receipts):
    if not receipts:
        bank.db.drop_collection("outbox_commands")
    event = {"aggregate_type": "thing", "aggregate_id": "t1", "event_type": "Made", "payload": {}}
    if entity:
        event["entity"] = {**entity, "collection": "things"}
    done = bank.outbox_program("put", input=json.dumps(event))
    assert done.returncode == 0, done.stderr
    assert concerns(wire.named("commitTransaction") or wire.named("insert", insert="outbox")) == [MAJORITY]
