"""How an operator handles failed events: `list`, `retry`, `skip`, `refresh`, with every form of id."""

from __future__ import annotations

import json
import subprocess
import uuid
from datetime import datetime

import pytest
from bson import Decimal128, Int64, ObjectId

from entities import account
from workspace import said

SLOW = {"backoff_ms": 300000}  # failed events stay failed during the test

# Ids that the shell and the option parser could mistake for something else.
UUIDS = [uuid.UUID(f"748e8672-7c90-4631-9824-c398966e22c{n}") for n in range(3)]
OBJECT_IDS = [ObjectId(f"6b08368f30e01958ae7988c{n}") for n in range(3)]
IDS = [UUIDS[0], OBJECT_IDS[0], "my event", "5", str(UUIDS[1]), str(OBJECT_IDS[1]), "-x", "--", "--all-dead", "q'\"`\\"]
AGGREGATES = ["plain", UUIDS[2], OBJECT_IDS[2], 5, -5, Int64(-2**63), "-5", "--json", "--"]


def renamed(ws, aggregate_id, event_id=None) -> dict:
    """An event that fails: it has no row."""
    event = ws.event(aggregate_id, "AccountRenamed", name="Ada")
    return event if event_id is None else {**event, "_id": event_id}


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("event_id", IDS, ids=str)
def test_an_event_is_named_by_the_usual_text_of_its_id(bank, event_id):
    bank.mapping(**SLOW)
    event = renamed(bank, "a1", event_id)
    bank.put(event)
    bank.run_once()
    assert bank.projector("retry", "--", str(event_id)).stdout == "1 event will be tried again\n"
    assert (bank.found(event)["status"], bank.found(event)["attempts"]) == ("pending", 0)
    bank.run_once()
    assert bank.projector("skip", "--", str(event_id)).stdout.endswith("\n1 event skipped\n")
    assert bank.found(event) is None and set(bank.ledger().values()) == {"skipped"}
    for command in ("retry", "skip"):
        assert bank.projector(command, "--", str(event_id)).returncode == 1


def test_an_id_that_breaks_the_contract_is_named_as_it_is_listed(bank):
    bank.mapping(**SLOW)
    wrong = [42, 1.5, {"a": 1}, "", "x" * 70, True, datetime(2026, 1, 1), {"long": "ä" * 400}]
    bank.put(*({**bank.event("a1", "AccountOpened", 1), "_id": _id, "status": "dead"} for _id in wrong))
    names = [json.loads(line)["event_id"] for line in bank.projector("list", "--json").stdout.splitlines()]
    assert len(set(names)) == len(wrong) and {"42", "1.5", '"' + "x" * 70 + '"', "true"} <= set(names)
    assert max(map(len, bank.projector("list").stdout.splitlines())) < 400
    left = len(wrong)
    for name in names:
        assert bank.projector("retry", "--dry-run", name).stdout.endswith("1 event would be tried again\n"), name
        assert bank.projector("skip", name).stdout.endswith("\n1 event skipped\n"), name
        left -= 1
        assert bank.outbox.count_documents({}) == left
    bank.put({**bank.event("a1", "AccountOpened", 1), "_id": 42, "status": "dead"})
    for nobody in '{"$gt": 0}', '{"$regularExpression": {"pattern": ".", "options": ""}}', "[42]", '42, "x": 1', "43":
        assert bank.projector("skip", nobody).returncode == 1, nobody


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("aggregate_id", AGGREGATES, ids=lambda value: f"{type(value).__name__} {value}")
def test_an_aggregate_is_named_by_the_usual_text_of_its_id(bank, aggregate_id):
    bank.mapping(**SLOW)
    name = ["--", "account", str(aggregate_id)]
    event = renamed(bank, aggregate_id)
    bank.put(event)
    bank.run_once()
    [line] = bank.projector("list", "--json", "--aggregate", *name).stdout.splitlines()
    assert json.loads(line)["aggregate_id"] == str(aggregate_id)
    assert bank.projector("retry", "--aggregate", *name).stdout == "1 event will be tried again\n"
    bank.run_once()
    assert bank.projector("skip", "--aggregate", *name).stdout.endswith("\n1 event skipped\n")
    bank.accounts.insert_one({"_id": aggregate_id, "user_id": "u", "name": "Zoë", "balance": 1, "version": 1})
    assert bank.projector("refresh", *name).returncode == 0
    assert bank.rows("account")[0]["account_id"] == str(aggregate_id)


def test_a_skipped_event_without_a_time_is_accounted_for(bank):
    bank.mapping(**SLOW, gap_wait_ms=60000)
    opened, timeless, after = (bank.event("a1", kind, version, user_id="u", name="Ada", balance=1)
                               for version, kind in enumerate(["AccountOpened", "AccountRenamed", "AccountRenamed"], 1))
    del timeless["occurred_at"]
    bank.put(opened, timeless)
    bank.run_once()
    assert bank.projector("skip", str(timeless["_id"])).stdout.endswith("\n1 event skipped\n")
    assert bank.ledger()[str(timeless["_id"])] == "skipped"
    bank.put(after)
    assert "versions missing" not in bank.run_once().stderr  # and no wait for version 2
    assert bank.ledger()[str(after["_id"])] == "applied"


def test_results_for_machines(bank):
    def said(*arguments) -> tuple[int, dict]:
        done = bank.projector(arguments[0], "--json", *arguments[1:])
        return done.returncode, json.loads(done.stdout)
    bank.mapping(**SLOW)
    bank.put(renamed(bank, "a1"), renamed(bank, "a2"))
    bank.run_once()
    assert said("retry", "--all-dead") == (1, {"count": 0})
    assert said("retry", "--aggregate", "account", "a1") == (0, {"count": 1})
    bank.run_once()
    bank.accounts.insert_one({"_id": "a1", "user_id": "u", "name": "Zoë", "balance": 1, "version": 3,
                              "last_event_at": datetime(2026, 1, 1)})
    assert said("refresh", "account", "a1") == (0, {"version": 3, "left": 1, "unversioned": 1})  # an event without a version
    assert said("refresh", "account", "a3") == (1, {"version": None, "left": 0})
    status, skipped = said("skip", "--aggregate", "account", "a1")
    assert (status, skipped["count"], len(skipped["events"])) == (0, 1, 1)


def test_a_negative_number_is_an_id(bank):
    bank.accounts.insert_one({**account(1), "_id": -5})
    bank.put(bank.event(-5, "AccountRenamed", 1, name="Eve"))
    assert bank.projector("refresh", "account", "-5", "--json").returncode == 0
    assert [row["account_id"] for row in bank.rows("account")] == ["-5"]
    bank.run_once()
    assert bank.projector("wait", "account", "-5", "1", "--timeout-ms", "0").returncode == 0
    assert "expected a version from 1" in said(bank.projector("wait", "account", "-5", "-1"), 2)
    assert "Unknown option -x5" in said(bank.projector("refresh", "account", "-x5"), 2)


def test_a_reason_with_control_characters_is_named_as_it_is_shown(bank):
    """Neither log nor terminal gets them raw."""
    bank.mapping(**SLOW, permanent="dead")
    bank.put([bank.event(f"a{n}", "Un\x1b[31mheard\n\u202eof") for n in range(3)])
    bank.run_once()
    [kind] = [json.loads(line) for line in bank.projector("list", "--summary", "--json").stdout.splitlines()]
    shown = bank.projector("list", "--summary").stdout
    assert kind["message"] in shown and not {"\x1b", "\u202e"} & set(shown + kind["message"]) and "\\x1b[31m" in kind["message"]
    assert bank.projector("retry", "--all-dead", "--reason", kind["message"]).stdout == "3 events will be tried again\n"
    with bank.start_projector() as process:
        process.wait_log("done by hand")
        bank.wait(lambda: bank.outbox.count_documents({"status": "dead"}) == 3, what="three dead events again")
    assert not {"\x1b", "\u202e"} & set(process.log_text())
    raw = bank.projector("retry", "--all-dead", "--reason", "Un\x1b[31mheard\n")
    assert (raw.returncode, raw.stdout, raw.stderr) == (1, "0 events will be tried again\n", "")
    for arguments, refusal in ((["--all-dead", "--reason", b"\xff"], "Invalid byte sequence"), ([b"\xff"], "expected texts in UTF-8"),
                               (["--aggregate", "account", b"\xff"], "expected texts in UTF-8")):
        for command in "retry", "skip":
            done = subprocess.run([*bank._projector(command), *arguments], capture_output=True, text=True)
            assert done.returncode == 2 and refusal in done.stderr
    told = bank.projector("refresh", "account", "a\x1b[2J\n1")
    assert told.returncode == 1 and told.stdout == "no entity and no event of account a\\x1b[2J\\x0a1\n"
    assert bank.projector("skip", "--all-dead", "--reason", kind["message"]).stdout.endswith("3 events skipped\n")


def test_a_refresh_says_that_waiting_events_without_a_version_may_count_twice(bank):
    """The entity contains the deposit, and nobody can know."""
    bank.put(bank.event("a1", "AccountOpened", user_id="u", name="Ada", balance=Decimal128("1.00")))
    bank.run_once()
    bank.put([bank.event("a1", "MoneyDeposited", amount=Decimal128("2.00")) for _ in range(2)])
    bank.accounts.insert_one({"_id": "a1", "user_id": "u", "name": "Ada", "balance": Decimal128("5.00"), "version": 3,
                              "last_event_at": datetime(2026, 1, 1)})
    done = bank.projector("refresh", "account", "a1")
    assert done.returncode == 0 and "2 waiting events have no version" in done.stdout and "may count twice" in done.stdout
    bank.run_once()
    assert str(bank.rows("account")[0]["balance"]) == "9.00"
    assert bank.projector("reconcile", "--repair").returncode == 0
    assert str(bank.rows("account")[0]["balance"]) == "5.00"
    assert "no version" not in bank.projector("refresh", "account", "a1").stdout


@pytest.mark.parametrize("status", ["failed", "dead"])
def test_an_event_that_could_not_be_skipped_is_what_it_was(bank, status):
    bank.mapping(**SLOW)
    event = {**renamed(bank, "a1"), "status": status, "attempts": 3}
    bank.put(event)
    bank.query("RENAME TABLE projector_applied TO elsewhere")
    assert bank.projector("skip", str(event["_id"])).returncode != 0
    assert bank.found(event) == event
    bank.query("RENAME TABLE elsewhere TO projector_applied")
    assert bank.projector("skip", str(event["_id"])).returncode == 0
    assert bank.found(event) is None and bank.ledger() == {str(event["_id"]): "skipped"}


@pytest.mark.whole_server
def test_a_store_that_cannot_answer_has_not_said_no(bank):
    """Exit status 1 of `list` means that there is nothing to list."""
    commands = [("list",), ("list", "--state", "held"), ("retry", "--all-dead"), ("skip", "x"), ("refresh", "account", "a1")]
    for name, *arguments in commands:
        data = {"failCommands": ["find", "update"], "errorCode": 8, "appName": "projector"}
        bank.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})
        try:
            done = bank.projector(name, *arguments)
        finally:
            bank.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
        assert (done.returncode, done.stdout) == (3, "") and done.stderr.startswith("projector: mongodb: "), name
        assert bank.projector(name, *arguments).returncode == 1, name


def test_a_table_that_is_full_has_not_said_no(bank):
    """Once there is room, the same command works. Here a trigger says what the server does."""
    bank.accounts.insert_one(account("1"))
    bank.query("CREATE TRIGGER no_room BEFORE INSERT ON account FOR EACH ROW"
               " SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1114, MESSAGE_TEXT = 'The table ''account'' is full'")
    for command in (("refresh", "account", "a1"), ("rebuild", "account")):
        assert said(bank.projector(*command), 3).endswith("The table … is full (1114)")
        assert bank.rows("account") == []
    bank.query("DROP TRIGGER no_room")
    assert bank.projector("refresh", "account", "a1").returncode == 0
    assert [row["account_id"] for row in bank.rows("account")] == ["a1"]
