"""Commands are executed once: what was written under an event id is not written again, however often it is sent."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from datetime import datetime, timedelta, timezone

import bson
import pytest
from bson import Int64

from workspace import OUTBOX

DAYS = 86400


def command(_id="c-1", aggregate_id="t1", **members) -> dict:
    return {"_id": _id, "aggregate_type": "thing", "aggregate_id": aggregate_id, "event_type": "ThingHappened",
            "payload": {"amount": 10}, **members}


def deposit(_id="c-1", aggregate_id="t1", **members) -> dict:
    return command(_id, aggregate_id, entity={"update": {"$inc": {"balance": 10}}}, **members)


def put(ws, *events: dict, options: tuple = (), uri: str = "") -> subprocess.CompletedProcess:
    lines = "".join(json.dumps(e) + "\n" for e in events)
    more = ["--uri", ws.stores.mongo_uri + uri] if uri else []
    return ws.outbox_program("put", "--entities", "things", *options, *more, input=lines)


def receipts(ws, *events: dict, uri: str = "") -> list[dict]:
    done = put(ws, *events, options=("--json",), uri=uri)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def things(ws):
    """An outbox with receipts, and one entity at version 1."""
    ws.outbox_program("init", check=True)
    assert put(ws, command("open", entity={"insert": {"balance": 100}})).returncode == 0
    return ws


def commands(ws):
    return ws.db.outbox_commands


def thing(ws, _id="t1") -> dict:
    return ws.db.things.find_one({"_id": _id})


# Executed once


def test_a_repeated_command_changes_nothing_and_answers_with_the_version_of_then(things):
    first, = receipts(things, deposit())
    later, = receipts(things, deposit("c-2"))
    again, = receipts(things, deposit())
    assert (first["version"], first["repeated"], later["version"]) == (2, False, 3)
    assert again == {**first, "repeated": True}
    assert (thing(things)["balance"], thing(things)["version"]) == (120, 3)
    assert things.outbox.count_documents({}) == 3


def test_it_is_known_after_its_event_has_left_the_outbox(things):
    first, = receipts(things, deposit())
    things.outbox.delete_many({})
    again, = receipts(things, deposit())
    assert again == {**first, "repeated": True}
    assert thing(things)["balance"] == 110
    assert things.outbox.count_documents({}) == 0


def test_put_prints_the_id_and_says_that_it_was_repeated(things):
    put(things, deposit())
    done = put(things, deposit())
    assert (done.returncode, done.stdout) == (0, "c-1\n")
    assert done.stderr == "outbox: line 1: c-1: repeated, written before with version 2\n"
    put(things, command("alone"))
    assert put(things, command("alone")).stderr == "outbox: line 1: alone: repeated, written before\n"


def test_the_receipt_is_the_documents_contract(things):
    put(things, deposit())
    receipt = commands(things).find_one({"_id": "c-1"})
    assert set(receipt) == {"_id", "at", "aggregate_type", "aggregate_id", "version", "occurred_at", "content"}
    assert (receipt["aggregate_type"], receipt["aggregate_id"], receipt["version"]) == ("thing", "t1", 2)
    assert isinstance(receipt["version"], Int64)
    assert abs(receipt["at"] - datetime.now(timezone.utc).replace(tzinfo=None)) < timedelta(minutes=1)
    assert receipt["occurred_at"] == things.outbox.find_one({"_id": "c-1"})["occurred_at"]
    # As docs/writing-events.md specifies it, so that programs in other languages can write it too.
    assert receipt["content"] == hashlib.sha256(bson.encode({"event_type": "ThingHappened", "payload": {"amount": 10}})).digest()


@pytest.mark.thorough(beyond=3)
@pytest.mark.parametrize("_id", ["c-1", {"$uuid": "0190a000-0000-7000-8000-000000000001"}, {"$oid": "0190a00000007000800000aa"}])
@pytest.mark.parametrize("aggregate_id", ["a", 5, {"$numberLong": "5000000000"}, {"$uuid": "0190a000-0000-7000-8000-000000000002"},
                                          {"$oid": "0190a00000007000800000bb"}])
def test_ids_of_all_kinds(things, _id, aggregate_id):
    insert = {"entity": {"insert": {}}}
    first, again = receipts(things, command(_id, aggregate_id, **insert), command(_id, aggregate_id, **insert))
    assert (first["repeated"], again["repeated"]) == (False, True)
    assert put(things, command(_id, "other", **insert)).returncode == 2


@pytest.mark.parametrize("entity", [{"insert": {"balance": 1}}, {"replace": {"balance": 1}}, {"delete": True},
                                    {"update": {"$set": {"balance": 1}}, "expected_version": 1}],
                         ids=["insert", "replace", "delete", "expected_version"])
def test_a_repeat_succeeds_although_the_change_could_not_be_made_again(things, entity):
    aggregate_id = "new" if "insert" in entity else "t1"
    event = command("c-1", aggregate_id, entity=entity)
    first, again = receipts(things, event, event)
    assert again == {**first, "repeated": True}


def test_events_without_an_entity_are_written_once_too(things):
    first, again = receipts(things, command(version=7), command(version=7))
    assert (first["version"], again["repeated"], again["version"]) == (7, True, 7)
    things.outbox.delete_many({})
    assert receipts(things, command())[0] == again
    assert things.outbox.count_documents({}) == 0


def test_an_event_of_that_id_from_before_the_receipts_counts_as_repeated(ws):
    assert put(ws, command("open", entity={"insert": {"balance": 100}}), deposit()).returncode == 0
    ws.outbox_program("init", check=True)
    again, = receipts(ws, deposit())
    assert (again["repeated"], again["version"], thing(ws)["balance"]) == (True, 2, 110)
    assert put(ws, command(payload={"amount": 11})).returncode == 2


def test_many_at_once_execute_a_command_once(things):
    answers = []
    def send():
        answers.append(receipts(things, *[deposit(f"c-{i}") for i in range(10)]))
    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 6
    for i in range(10):
        same = [answer[i] for answer in answers]
        assert sum(not a["repeated"] for a in same) == 1
        assert len({a["version"] for a in same}) == 1
    assert (thing(things)["balance"], thing(things)["version"]) == (200, 11)
    assert things.outbox.count_documents({}) == 11


@pytest.mark.whole_server
def test_it_is_found_when_the_first_answer_was_lost(things):
    """It is committed, but the writer dies without hearing of it; then the command is sent again."""
    application = f"lost-{things.name}"
    fault = {"failCommands": ["commitTransaction"], "appName": application, "writeConcernError": {"code": 91, "errmsg": "shutting down"}}
    things.mongo.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=fault)
    try:
        first = subprocess.Popen([OUTBOX, "put", "--entities", "things", "--database", things.name, "--uri",
                                  f"{things.stores.mongo_uri}&appName={application}"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        first.stdin.write((json.dumps(deposit()) + "\n").encode())
        first.stdin.close()
        things.wait(lambda: thing(things)["balance"] == 110)
        first.kill()
        first.wait()
    finally:
        things.mongo.admin.command("configureFailPoint", "failCommand", mode="off")
    answer, = receipts(things, deposit())
    assert (answer["version"], answer["repeated"]) == (2, True)
    assert (thing(things)["balance"], thing(things)["version"]) == (110, 2)


@pytest.mark.thorough(beyond=1)
@pytest.mark.whole_server
@pytest.mark.parametrize("failing", ["find", "update", "insert", "listCollections"])
def test_a_passing_fault_leaves_one_receipt_and_one_change(things, failing):
    application = f"fault-{things.name}"
    for fault in ({"closeConnection": True}, {"errorCode": 189}):
        data = {"failCommands": [failing], "appName": application, **fault}
        things.mongo.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=data)
        try:
            assert receipts(things, deposit(), uri=f"&appName={application}")[0]["version"] == 2
        finally:
            things.mongo.admin.command("configureFailPoint", "failCommand", mode="off")
    assert thing(things)["balance"] == 110
    assert commands(things).count_documents({"_id": "c-1"}) == 1


# Misuse


@pytest.mark.thorough(beyond=3)
@pytest.mark.parametrize("other, said", [
    ({"aggregate_id": "t2"}, "on thing t1"), ({"aggregate_type": "job"}, "on thing t1"),
    ({"event_type": "OtherHappened"}, "another event_type or payload"), ({"payload": {"amount": 11}}, "another event_type or payload"),
    ({"payload": {"amount": "10"}}, "another event_type or payload"), ({"payload": {}}, "another event_type or payload")])
@pytest.mark.parametrize("gone", [False, True], ids=["in the outbox", "gone"])
def test_a_known_id_with_another_aggregate_or_content_is_an_error(things, other, said, gone):
    put(things, command("open2", "t2", entity={"insert": {"balance": 5}}), deposit())
    if gone:
        things.outbox.delete_many({})
    before = (thing(things), thing(things, "t2"), things.outbox.count_documents({}))
    done = put(things, {**deposit(), **other})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("outbox: line 1: _id: c-1 is the id of an earlier command")
    assert said in done.stderr
    assert (thing(things), thing(things, "t2"), things.outbox.count_documents({})) == before


def test_metadata_and_the_order_of_fields_do_not_make_it_another_command(things):
    first = {**deposit(), "payload": {"a": 1, "b": {"x": [1, 2], "y": 2}}, "metadata": {"traceparent": "00-1"}}
    again = {**deposit(), "payload": {"b": {"y": 2, "x": [1, 2]}, "a": 1}, "metadata": {"traceparent": "00-2"}}
    assert [r["repeated"] for r in receipts(things, first, again)] == [False, True]
    assert put(things, {**again, "payload": {"b": {"y": 2, "x": [2, 1]}, "a": 1}}).returncode == 2


def test_a_receipt_of_another_program_needs_no_content(things):
    commands(things).insert_one({"_id": "c-1", "at": datetime.now(), "aggregate_type": "thing", "aggregate_id": "t1", "version": 9})
    again, = receipts(things, deposit())
    assert again == {"event_id": "c-1", "version": 9, "repeated": True}
    assert thing(things)["balance"] == 100


def test_a_refused_command_leaves_no_receipt(things):
    refused = command(entity={"update": {"$inc": {"balance": 10}}, "expected_version": 7})
    assert put(things, refused).returncode == 1
    assert put(things, command("c-2", "nobody", entity={"update": {}})).returncode == 1
    things.db.create_collection("strict", validator={"n": {"$type": "int"}})
    assert put(things, command("c-3", "s", entity={"collection": "strict", "insert": {"n": "x"}})).returncode == 2
    assert [r["_id"] for r in commands(things).find()] == ["open"]
    assert receipts(things, deposit())[0]["repeated"] is False
    assert thing(things)["balance"] == 110


def test_no_entity_is_kept_among_the_receipts(things):
    done = put(things, command(entity={"collection": "outbox_commands", "insert": {}}))
    assert (done.returncode, done.stderr) == (2, "outbox: line 1: collection: expected one for entities, found outbox_commands, which belongs to the outbox or to the projector\n")


# What init creates


def expiry(ws) -> int | None:
    indexes = [i for i in commands(ws).list_indexes() if list(i["key"]) == ["at"]]
    assert len(indexes) == 1
    return indexes[0].get("expireAfterSeconds")


def test_receipts_are_kept_for_thirty_days(ws):
    ws.outbox_program("init", check=True)
    assert expiry(ws) == 30 * DAYS


@pytest.mark.parametrize("text, seconds", [("7d", 7 * DAYS), ("12h", 12 * 3600), ("90m", 5400), ("30s", 30), ("3600", 3600),
                                           ("never", None), ("0", None), ("0d", None)])
def test_init_takes_a_time_in_the_units_people_write(ws, text, seconds):
    ws.outbox_program("init", "--commands-ttl", text, check=True)
    assert expiry(ws) == seconds


def test_a_time_that_is_set_stays_until_another_is_asked_for(ws):
    for arguments, seconds in [(["--commands-ttl", "7d"], 7 * DAYS), ([], 7 * DAYS), (["--commands-ttl", "1h"], 3600),
                               (["--commands-ttl", "never"], None), ([], None), (["--commands-ttl", "2d"], 2 * DAYS)]:
        ws.outbox_program("init", *arguments, check=True)
        assert expiry(ws) == seconds, arguments


@pytest.mark.parametrize("text", ["", "x", "5x", "-1", "1.5d", "1dd", "99999999999", "69y", "30 d"])
def test_init_refuses_what_is_no_time(ws, text):
    done = ws.outbox_program("init", "--commands-ttl", text)
    assert done.returncode == 2
    assert "--commands-ttl: expected a time like 30d" in done.stderr
    assert ws.db.list_collection_names() == []


def test_without_receipts_all_is_as_it_was(ws):
    ws.outbox_program("init", "--no-commands", check=True)
    assert "outbox_commands" not in ws.db.list_collection_names()
    assert put(ws, command("open", entity={"insert": {"balance": 100}}), deposit()).returncode == 0
    assert put(ws, deposit()).returncode == 1
    assert "outbox_commands" not in ws.db.list_collection_names()
    assert ws.outbox_program("init", "--no-commands", "--commands-ttl", "1d").returncode == 2


def test_an_outbox_of_another_name_has_receipts_of_its_own(ws):
    ws.outbox_program("init", "--outbox", "box", check=True)
    assert "box_commands" in ws.db.list_collection_names()
    done = ws.outbox_program("put", "--outbox", "box", input=json.dumps(command()))
    assert done.returncode == 0, done.stderr
    assert ws.db.box_commands.count_documents({}) == 1


# What `projector check` reports


def receipts_line(ws) -> tuple[str, str]:
    lines = [json.loads(line) for line in ws.projector("check", "--json").stdout.splitlines()]
    found = [(line["verdict"], line["text"]) for line in lines if "executed commands" in line["text"]]
    assert len(found) == 1, lines
    return found[0]


def test_check_names_how_long_commands_are_remembered(bank):
    assert receipts_line(bank) == ("ok", f"executed commands are remembered for {30 * DAYS} s")
    bank.outbox_program("init", "--commands-ttl", "never", check=True)
    assert receipts_line(bank) == ("ok", "executed commands are remembered forever")
    commands(bank).drop_index("at")
    verdict, text = receipts_line(bank)
    assert verdict == "warning" and "never removed" in text and "`outbox init` creates it" in text
    commands(bank).drop()
    verdict, text = receipts_line(bank)
    assert verdict == "ok" and "`outbox init` creates their collection" in text


@pytest.mark.thorough
def test_a_command_that_is_repeated_after_its_receipt_expired(bank):
    """It is executed again. While the ledger knows its event, the row does not follow: `check` says so of such times."""
    def deposited() -> dict:
        event = {"_id": "c-1", "aggregate_type": "account", "aggregate_id": "a1", "event_type": "MoneyDeposited",
                 "payload": {"amount": {"$numberDecimal": "10.00"}}, "entity": {"update": {"$inc": {"balance": {"$numberDecimal": "10.00"}}}}}
        done = bank.outbox_program("put", "--entities", "accounts", "--json", input=json.dumps(event) + "\n")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    bank.put(bank.event("a1", "AccountOpened", 1, user_id="u1", name="Ada", balance=bson.Decimal128("100.00")))
    bank.accounts.insert_one({"_id": "a1", "version": Int64(1), "last_event_at": datetime(2026, 1, 1), "balance": bson.Decimal128("100.00")})
    assert deposited()["repeated"] is False
    bank.run_once()
    assert deposited()["repeated"] is True
    commands(bank).delete_many({})  # the index on `at` has done it
    assert deposited()["repeated"] is False
    bank.run_once()
    balances = bank.accounts.find_one()["balance"].to_decimal(), bank.rows("account")[0]["balance"]
    assert [str(b) for b in balances] == ["120.00", "110.00"] and bank.outbox.find_one() is None
    commands(bank).delete_many({})
    bank.query("DELETE FROM projector_applied")  # its retention has passed, too
    assert deposited()["version"] == 4
    bank.run_once()
    assert str(bank.rows("account")[0]["balance"]) == "120.00"
    bank.mapping(ledger_retention=30 * DAYS + 1)
    assert receipts_line(bank)[0] == "warning" and "changes its entity and not its row" in receipts_line(bank)[1]
    bank.mapping(ledger_retention=30 * DAYS)
    assert receipts_line(bank)[0] == "ok"
