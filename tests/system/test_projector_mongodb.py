"""What the projector requests of MongoDB is fixed by the projector: texts compare byte by byte whatever a collection's
collation, and read and write concerns never come from the connection string."""

from __future__ import annotations

import pytest

from bank import opened
from workspace import Workspace, decimal

NO_CASE = {"locale": "en", "strength": 2}


@pytest.fixture
def insensitive(ws) -> Workspace:
    """An outbox and entities that take "zz" and "ZZ" for the same."""
    ws.db.create_collection("outbox", collation=NO_CASE)
    ws.db.create_collection("accounts", collation=NO_CASE)
    ws.create()
    return ws


def test_a_collation_of_the_outbox_makes_no_two_aggregates_one(insensitive):
    ws = insensitive
    small, large = ws.event("zz", "AccountOpened"), ws.event("ZZ", "AccountOpened")  # nothing in them: they fail
    ws.put(small, large)
    ws.mapping(max_attempts=1)
    ws.run_once()
    assert ws.projector("skip", "--aggregate", "account", "zz").returncode == 0
    assert ws.found(small) is None and ws.found(large)["status"] == "dead"
    ws.put(*(opened(ws, account) for account in ("ZZ", "zz")))
    ws.run_once()
    assert [row["account_id"] for row in ws.rows("account")] == ["zz"]  # ZZ waits behind its dead event
    assert "account zz" not in ws.projector("list", "--state", "held").stdout


def test_an_outbox_with_a_collation_has_indexes_that_can_be_used(ws):
    ws.db.create_collection("outbox", collation=NO_CASE)
    for name, keys in (("order", ["occurred_at", "version", "_id"]), ("aggregate_order", ["aggregate_type", "aggregate_id", "occurred_at"])):
        ws.outbox.create_index([(key, 1) for key in keys], name=name)  # with the outbox's collation: no look-up uses it
    assert ws.projector("check").stdout.count("the outbox has no index on") == 2
    ws.create()
    assert "the outbox has no index on" not in ws.projector("check").stdout
    plan = ws.outbox.find({"aggregate_type": "account", "aggregate_id": "zz"}, collation={"locale": "simple"}).explain()
    assert "aggregate_order" in str(plan["queryPlanner"]["winningPlan"])


def test_an_entity_is_found_by_its_own_id_only(insensitive):
    ws = insensitive
    ws.accounts.insert_one({"_id": "ZZ", "user_id": "u1", "name": "Ada", "balance": decimal("1.00"), "version": 1})
    ws.put(opened(ws, "zz", version=1))
    ws.run_once()
    done = ws.projector("reconcile")
    assert done.returncode == 1 and "missing row" in done.stdout and "extra row" in done.stdout, done.stdout


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("options", ["w=0", "w=1&journal=false&wtimeoutMS=1", "readConcernLevel=local", "readConcernLevel=available&w=1",
                                     "readPreference=secondary&maxStalenessSeconds=120", "readPreference=nearest&readPreferenceTags=dc:none",
                                     "retryWrites=false&retryReads=false&appName=other&socketTimeoutMS=200"])
def test_read_and_write_concern_are_never_those_of_the_uri(bank, options):
    bank.mapping(mongodb={"uri": f"{bank.stores.mongo_uri}&{options}", "retain": "archive"})
    bank.db.command("profile", 2, filter={"appName": "projector"})
    bank.put(opened(bank, "a1"), bank.event("a1", "MoneyDeposited"))
    with bank.start_projector() as projector:
        projector.wait_log("event failed")
        bank.wait(lambda: bank.db["outbox_archive"].find_one())
        projector.stop()
    bank.projector("status"), bank.projector("list"), bank.projector("retry", "--all-dead")
    bank.db.command("profile", 0)
    commands = [entry["command"] for entry in bank.db["system.profile"].find({"appName": "projector", "ns": {"$regex": "outbox|leases"}})]
    commands = [c for c in commands if c.get("autocommit") is not False]  # there begin and commit specify it
    writes = [c for c in commands if c.keys() & {"update", "delete", "findAndModify", "insert"}]
    reads = [c for c in commands if c.keys() & {"find", "aggregate"}]
    assert writes and reads
    for command in writes:
        quick = "outbox" in (command.get("update"), command.get("delete"))
        assert command["writeConcern"]["w"] in (["majority", 1] if quick else ["majority"]), command
    for command in reads:
        assert command.get("readConcern", {}).get("level") in ("majority", "snapshot", "local"), command
        assert command.get("$readPreference", {"mode": "primary"})["mode"] in ("primary", "primaryPreferred"), command


ALL_FIELDS = ["status", "attempts", "claimed_by", "claimed_at", "next_attempt_at", "last_error"]
CONTRACT = ["_id", "aggregate_type", "aggregate_id", "event_type", "occurred_at", "payload", "version"]


def closed(fields: list[str]) -> dict:
    """A validator that allows no other fields."""
    return {"$jsonSchema": {"additionalProperties": False, "properties": {field: {} for field in fields}}}


@pytest.mark.parametrize("options, told", [
    ({"capped": True, "size": 100000}, "is capped"),
    ({"validator": closed(CONTRACT)}, "refuses what the projector writes"),
    ({"timeseries": {"timeField": "occurred_at"}}, "is a timeseries"),
    ({"viewOn": "elsewhere", "pipeline": []}, "is a view"),
], ids=["capped", "validator", "time series", "view"])
def test_an_outbox_that_cannot_be_one_is_refused(ws, options, told):
    assert ws.projector("schema", "--apply").returncode == 0
    ws.db.create_collection("outbox", **options)
    (ws.db["elsewhere"] if "viewOn" in options else ws.outbox).insert_one(opened(ws, "a1"))
    check, run = ws.projector("check"), ws.projector("run", "--once")
    assert (check.returncode, run.returncode) == (2, 2), check.stdout + run.stderr
    assert told in check.stdout and told in run.stderr
    assert ws.rows("account") == []


def test_an_outbox_of_which_mongodb_deletes_events_is_refused(bank):
    bank.outbox.create_index("occurred_at", name="old", expireAfterSeconds=3600)
    done = bank.projector("run", "--once")
    assert done.returncode == 2 and 'has the TTL index old' in done.stderr and 'dropIndex("old")' in done.stderr
    bank.outbox.drop_index("old")
    bank.run_once()


@pytest.mark.thorough(beyond=1)
@pytest.mark.parametrize("options, told", [({"collation": NO_CASE}, "has a collation of its own"),
                                           ({"validator": closed(CONTRACT + ALL_FIELDS)}, "has a validator"),
                                           ({"validator": closed(CONTRACT), "validationAction": "warn"}, None)],
                         ids=["collation", "validator", "warn"])
def test_an_outbox_that_is_only_risky_is_told(ws, options, told):
    ws.db.create_collection("outbox", **options)
    ws.create()
    ws.put(opened(ws, "a1"))
    check, run = ws.projector("check"), ws.run_once()
    assert check.returncode == 0
    if told:
        assert told in check.stdout and told in run.stderr
    assert len(ws.rows("account")) == 1
