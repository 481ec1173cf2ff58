"""liboutbox and the program `outbox` on a real replica set."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import time
import uuid
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pymongo
import pytest
from bson import ObjectId

from mongod import Mongod, ReplicaSet
from server import free_port
from workspace import AT_ONCE_S, OUTBOX, PROJECTOR, WAIT_S

FIELDS = ["_id", "aggregate_type", "aggregate_id", "version", "event_type", "occurred_at", "payload", "metadata", "status"]
UNKNOWN_COMMIT = "UnknownTransactionCommitResult"
TRANSIENT = "TransientTransactionError"


def event(aggregate_id="t1", **members) -> dict:
    return {"aggregate_type": "thing", "aggregate_id": aggregate_id, "event_type": "ThingHappened", "payload": {}, **members}


def put(ws, *events: dict | str, uri: str = "", entities: str = "things") -> subprocess.CompletedProcess:
    lines = "".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in events)
    more = ["--uri", ws.stores.mongo_uri + uri] if uri else []
    return ws.outbox_program("put", "--entities", entities, *more, input=lines)


def put_good(ws, *events: dict | str, **options) -> list[str]:
    done = put(ws, *events, **options)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


def thing(ws, _id="t1") -> dict | None:
    return ws.db.things.find_one({"_id": _id})


def assert_history(events: list[dict], first: int = 1) -> None:
    """Ordered by time, the versions have no gap, and no two times are equal."""
    events = sorted(events, key=lambda e: (e["occurred_at"], e["version"]))
    assert [e["version"] for e in events] == list(range(first, first + len(events)))
    assert len({e["occurred_at"] for e in events}) == len(events)


# outbox init


def test_init_creates_what_is_missing_and_nothing_twice(ws):
    for _ in range(2):
        done = ws.outbox_program("init")
        assert (done.returncode, done.stderr) == (0, "")
    assert {"outbox", "outbox_deleted", "accounts"} <= set(ws.db.list_collection_names())
    keys = {name: index["key"] for name, index in ws.outbox.index_information().items()}
    assert keys["order"] == [("occurred_at", 1), ("version", 1), ("_id", 1)]
    assert keys["aggregate_order"] == [("aggregate_type", 1), ("aggregate_id", 1), ("occurred_at", 1), ("version", 1), ("_id", 1)]
    assert keys["failed"] == [("status", 1), ("next_attempt_at", 1)]


def test_the_partial_index_answers_for_failed_events_only(ws):
    ws.outbox_program("init", check=True)
    def index_used(status) -> str:
        plan = ws.outbox.find({"status": status, "next_attempt_at": {"$lt": datetime.now()}}).explain()
        return json.dumps(plan["queryPlanner"]["winningPlan"], default=str)
    for status in ("failed", "dead", {"$in": ["failed", "dead"]}):
        assert '"indexName": "failed"' in index_used(status)
    assert '"indexName": "failed"' not in index_used("in_progress")


# outbox put


def test_put_writes_the_document_of_the_contract(ws):
    ids = put_good(ws, event(), event(_id="e-1", version=7, metadata={"tenant": "x"}, occurred_at="2026-01-31T23:59:59.123+01:00"),
                   event({"$uuid": "0190a000-0000-7000-8000-000000000001"}, _id={"$oid": "0190a00000007000800000aa"},
                         occurred_at={"$date": "1969-12-31T23:59:59.999Z"}),
                   event(5), event({"$numberLong": "-9223372036854775808"}))
    assert ids[1:3] == ["e-1", "0190a00000007000800000aa"]
    stored = list(ws.outbox.find().sort("$natural"))
    assert [str(e["_id"]) for e in stored] == ids
    plain, full, typed, small, large = stored
    assert list(plain) == [f for f in FIELDS if f not in ("version", "metadata")]
    assert plain["_id"].version == 7 and plain["status"] == "pending"
    assert abs(plain["occurred_at"] - datetime.utcnow()) < timedelta(minutes=1)
    assert list(full) == FIELDS
    assert full["occurred_at"] == datetime(2026, 1, 31, 22, 59, 59, 123000)
    assert typed["aggregate_id"] == uuid.UUID("0190a000-0000-7000-8000-000000000001")
    assert typed["_id"] == ObjectId("0190a00000007000800000aa")
    assert typed["occurred_at"] == datetime(1969, 12, 31, 23, 59, 59, 999000)
    assert (small["aggregate_id"], large["aggregate_id"]) == (5, -2**63)
    types = ws.outbox.aggregate([{"$project": {"id": {"$type": "$aggregate_id"}, "version": {"$type": "$version"}}}])
    types = {e["_id"]: (e["id"], e["version"]) for e in types}
    assert [types[e["_id"]] for e in stored] == [("string", "missing"), ("string", "long"), ("binData", "missing"),
                                                ("int", "missing"), ("long", "missing")]


def test_put_keeps_values_exact(ws):
    payload = {"text": "'; DROP TABLE x; -- \\ \" \u0000 é 🚀 \u202e", "": {"$a": 1, "b.c": [None, True]},
               "long": {"$numberLong": "9223372036854775807"}, "decimal": {"$numberDecimal": "1.10"}}
    put_good(ws, event("'\"\\🚀", payload=payload))
    stored = ws.outbox.find_one()
    assert stored["aggregate_id"] == "'\"\\🚀"
    assert stored["payload"]["text"] == payload["text"]
    assert stored["payload"][""] == payload[""]
    assert stored["payload"]["long"] == 2**63 - 1
    assert str(stored["payload"]["decimal"]) == "1.10"


GOOD = '"aggregate_type": "a", "aggregate_id": "1", "event_type": "E"'

HOSTILE = [
    ("", "expected an event on stdin"),
    ("[]", "line 1: expected an object"),
    ("{", "line 1: expected the end of the object"),
    ("{\"a\": tru}", "line 1: a: expected a value of JSON, found tru"),
    ("{%s, \"payload\": {}} {}" % GOOD, "line 1: expected the end of the line"),
    ("{%s, \"payload\": {}, \"nonsense\": 1}" % GOOD, "line 1: nonsense: this member is not known"),
    ("{%s}" % GOOD, "line 1: payload: expected a value, found nothing"),
    ("{%s, \"payload\": \"x\"}" % GOOD, "line 1: payload: expected a document, found a string"),
    ("{%s, \"payload\": {\"n\": 99999999999999999999}}" % GOOD, "line 1: payload.n: expected an integer of at most 64 bits"),
    ("{%s, \"payload\": {}, \"version\": -1}" % GOOD, "line 1: version: expected 1 or more, found -1"),
    ("{%s, \"payload\": {}, \"occurred_at\": \"2026-02-30T00:00:00Z\"}" % GOOD, "line 1: occurred_at: expected a time"),
    ("{%s, \"payload\": {}, \"_id\": \"%s\"}" % (GOOD, "x" * 65), "line 1: _id: expected 1 to 64 bytes, found 65"),
    ("{%s, \"payload\": {}, \"_id\": 5}" % GOOD, "line 1: _id: expected a UUID"),
    ("{\"aggregate_type\": \"a\", \"aggregate_id\": {}, \"event_type\": \"E\", \"payload\": {}}", "line 1: aggregate_id: expected a string"),
    ("{\"aggregate_type\": \"\", \"aggregate_id\": 1, \"event_type\": \"E\", \"payload\": {}}", "line 1: aggregate_type: expected 1 to 128 bytes"),
    ("{\"aggregate_type\": \"a\\u0000\", \"aggregate_id\": 1, \"event_type\": \"E\", \"payload\": {}}", "line 1: aggregate_type: expected a string without NUL"),
    ("{%s, \"payload\": %s1%s}" % (GOOD, '{"a":' * 2000, "}" * 2000), "line 1: payload.a.a.a"),
    ("{%s, \"payload\": {}, \"entity\": {\"update\": {\"$set\": {\"version\": 9}}}}" % GOOD, "line 1: update.$set.version: this field is set by liboutbox"),
    ("{%s, \"payload\": {}, \"entity\": {\"update\": {\"$nonsense\": {\"a\": 9}}}}" % GOOD, "line 1: entity: "),
    ("{%s, \"payload\": {}, \"entity\": {\"insert\": {}, \"collection\": \"outbox\"}}" % GOOD, "line 1: collection: expected one for entities, found outbox"),
    ("{%s, \"payload\": {}, \"version\": 1, \"entity\": {\"delete\": true}}" % GOOD, "line 1: version: expected none beside an entity"),
]


@pytest.mark.thorough(beyond=7)
@pytest.mark.parametrize("text, complaint", HOSTILE, ids=range(len(HOSTILE)))
def test_put_says_what_is_wrong_in_one_line_and_writes_nothing(ws, text, complaint):
    done = put(ws, text)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("outbox: " + complaint) and done.stderr.count("\n") == 1
    assert ws.outbox.find_one() is None and ws.db.things.find_one() is None


def test_both_programs_say_their_version():
    said = [subprocess.run([program, "--version"], capture_output=True, text=True).stdout for program in (OUTBOX, PROJECTOR)]
    assert re.fullmatch(r"outbox (\d+\.\d+\.\d+)\nprojector \1\n", "".join(said))


@pytest.mark.parametrize("value, complaint", [
    ('{"$numberDouble": "abc"}', 'payload.a[0].$numberDouble: expected a string with a number that a double can hold, found "abc"'),
    ('{"\\u0024date": "rubbish"}', 'payload.a[0].$date: expected a time like 2026-01-31T23:59:59.123Z, found "rubbish"'),
    ('{"$oid": "zzzzzzzzzzzzzzzzzzzzzzzz"}', 'payload.a[0].$oid: expected 24 hexadecimal digits, found "zzzzzzzzzzzzzzzzzzzzzzzz"'),
    ('{"$numberDecimal": "1,5"}', 'payload.a[0].$numberDecimal: expected a number of at most 34 digits, found "1,5"'),
    ("9223372036854775808", "payload.a[0]: expected an integer of at most 64 bits, found 9223372036854775808"),
])
def test_put_refuses_what_is_no_value_with_its_path(ws, value, complaint):
    """libbson reads it as 0, NaN or another value. All forms: tests/unit/outbox/test_extended_json.c."""
    done = put(ws, event(), json.dumps(event(payload={"a": ["HERE"]})).replace('"HERE"', value))
    assert (done.returncode, done.stderr) == (2, f"outbox: line 2: {complaint}\n")
    assert ws.outbox.count_documents({}) == 1


def test_put_takes_doubles_as_json_dumps_writes_them(ws):
    put_good(ws, event(payload={"a": [float("nan"), float("inf")], "b": float("-inf")}))
    stored = ws.outbox.find_one()["payload"]
    assert math.isnan(stored["a"][0]) and (stored["a"][1], stored["b"]) == (math.inf, -math.inf)


def test_put_refuses_bytes_that_are_not_utf8(ws):
    line = b'{"aggregate_type": "\xff", "aggregate_id": "1", "event_type": "E", "payload": {}}\n'
    done = subprocess.run([OUTBOX, "put", "--uri", ws.stores.mongo_uri, "--database", ws.name], input=line, capture_output=True)
    assert (done.returncode, done.stderr) == (2, b"outbox: line 1: expected UTF-8, found other bytes\n")


@pytest.mark.thorough
def test_put_refuses_an_event_that_no_change_stream_could_carry(ws):
    done = put(ws, event(payload={"text": "x" * (16 * 1024 * 1024 - 1000)}))
    assert done.returncode == 2
    assert "line 1: payload: expected an event of at most" in done.stderr
    put_good(ws, event(payload={"text": "x" * (16 * 1024 * 1024 - 70_000)}))


def test_put_stops_at_the_first_bad_line(ws):
    done = put(ws, event(), "", json.dumps(event(), indent=2), event(payload=1), event())
    assert done.returncode == 2
    lines_before = 1 + 1 + len(json.dumps(event(), indent=2).splitlines())
    assert done.stderr == f"outbox: line {lines_before + 1}: payload: expected a document, found an integer\n"
    assert len(done.stdout.split()) == ws.outbox.count_documents({}) == 2


def test_without_receipts_put_answers_no_to_an_event_id_that_is_in_the_outbox(ws):
    put_good(ws, event(_id="e-1"))
    done = put(ws, event(_id="e-1"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "outbox: line 1: _id: an event with the id e-1 is in the outbox already\n"


# The entity and its event


def test_an_entity_and_its_events_have_one_version_and_one_time(ws):
    put_good(ws, event(entity={"insert": {"n": 1, "text": "a"}}),
             event(entity={"update": {"$set": {"text": "b"}, "$inc": {"n": 2}, "$max": {"m": 5}}}),
             event(entity={"update": {}}))
    put_good(ws, event(entity={"replace": {"text": "$version", "list": [1]}}))  # later: see the next test
    assert_history(list(ws.outbox.find()))
    entity = thing(ws)
    assert list(entity) == ["_id", "version", "text", "list", "last_event_at"]
    assert (entity["version"], entity["text"]) == (4, "$version")
    assert entity["last_event_at"] == ws.outbox.find_one({"version": 4})["occurred_at"]
    assert ws.db.things.find_one({"version": {"$type": "long"}, "last_event_at": {"$type": "date"}})


def test_two_changes_within_a_millisecond_have_two_times(ws):
    """Then version and time are written once more."""
    put_good(ws, event(entity={"insert": {}}), *[event(entity={"update": {}}), event(entity={"replace": {"n": 0}})] * 10)
    assert_history(list(ws.outbox.find()))
    assert thing(ws)["version"] == 21


def test_an_entity_from_before_begins_at_version_one(ws):
    ws.db.things.insert_one({"_id": "t1", "n": 5})
    put_good(ws, event(entity={"update": {"$inc": {"n": 1}}}))
    put_good(ws, event(entity={"replace": {"n": 0}}))
    assert_history(list(ws.outbox.find()))
    assert thing(ws)["version"] == 2


@pytest.mark.parametrize("change", [{"update": {}}, {"replace": {}}, {"delete": True}])
def test_a_missing_entity_is_an_error_and_nothing_is_written(ws, change):
    done = put(ws, event(entity=change))
    assert (done.returncode, done.stderr) == (1, "outbox: line 1: entity: missing in things\n")
    assert ws.outbox.find_one() is None and thing(ws) is None


def test_an_entity_is_not_inserted_over(ws):
    put_good(ws, event(entity={"insert": {"n": 1}}))
    done = put(ws, event(entity={"insert": {"n": 2}}))
    assert done.returncode == 1 and "entity: exists already in things" in done.stderr
    assert thing(ws)["n"] == 1 and ws.outbox.count_documents({}) == 1


def test_a_unique_index_of_the_entities_is_not_taken_for_a_known_event(ws):
    ws.db.things.create_index("n", unique=True)
    put_good(ws, event("t1", entity={"insert": {"n": 1}}), event("t2", entity={"insert": {"n": 2}}))
    done = put(ws, event("t2", entity={"update": {"$set": {"n": 1}}}))
    assert done.returncode == 1 and "line 1: entity: " in done.stderr and "n_1" in done.stderr
    assert thing(ws, "t2")["version"] == 1 and ws.outbox.count_documents({}) == 2


@pytest.mark.parametrize("change", [{"update": {"$set": {"n": 2}}}, {"replace": {"n": 2}}, {"delete": True}])
def test_an_expected_version_guards_the_change(ws, change):
    put_good(ws, event(entity={"insert": {"n": 1}}))
    before = thing(ws)
    done = put(ws, event(entity={**change, "expected_version": 2}))
    assert (done.returncode, done.stderr) == (1, "outbox: line 1: entity: expected version 2, found 1\n")
    assert thing(ws) == before and ws.outbox.count_documents({}) == 1
    put_good(ws, event(entity={**change, "expected_version": 1}))
    assert ws.outbox.count_documents({"version": 2}) == 1


@pytest.mark.parametrize("change", [{"update": {"$set": {"n": 2}}}, {"replace": {"n": 2}}, {"delete": True}])
def test_when_the_event_cannot_be_stored_the_entity_stays_as_it_was(ws, change):
    put_good(ws, event(entity={"insert": {"n": 1}}), event("other", _id="taken"))
    before = thing(ws)
    done = put(ws, event(_id="taken", entity=change))
    assert done.returncode == 1 and "already" in done.stderr
    assert thing(ws) == before and ws.outbox.count_documents({}) == 2
    assert ws.db.outbox_deleted.find_one() is None


def test_an_entity_whose_version_is_no_integer_is_left_alone(ws):
    ws.db.things.insert_one({"_id": "t1", "version": 1.5})
    done = put(ws, event(entity={"update": {}}))
    assert (done.returncode, done.stderr) == (2, "outbox: line 1: entity: its version is not an integer\n")
    assert thing(ws) == {"_id": "t1", "version": 1.5} and ws.outbox.find_one() is None


def test_an_entity_goes_on_where_a_deleted_one_ended(ws):
    put_good(ws, event(entity={"insert": {"n": 1}}), event(entity={"delete": True}))
    ahead = ws.db.outbox_deleted.find_one()["deleted_at"] + timedelta(hours=1)
    ws.db.outbox_deleted.update_one({}, {"$set": {"deleted_at": ahead}})  # the deleting writer's clock was ahead
    ws.outbox.update_one({"version": 2}, {"$set": {"occurred_at": ahead}})
    put_good(ws, event(entity={"insert": {"n": 2}}), event(entity={"update": {}}), event(entity={"delete": True}),
             event("t2", entity={"insert": {}}))
    assert_history(list(ws.outbox.find({"aggregate_id": "t1"})))
    assert ws.outbox.find_one({"version": 3})["occurred_at"] == ahead + timedelta(milliseconds=1)
    assert ws.db.outbox_deleted.find_one()["version"] == 5
    assert thing(ws) is None and thing(ws, "t2")["version"] == 1


@pytest.mark.parametrize("change", [{"update": {}}, {"replace": {}}])
def test_times_rise_although_the_clock_of_the_last_writer_was_ahead(ws, change):
    put_good(ws, event(entity={"insert": {}}))
    ahead = datetime.utcnow().replace(microsecond=0) + timedelta(hours=2)
    ws.db.things.update_one({}, {"$set": {"last_event_at": ahead}})
    put_good(ws, event(entity=change), event(entity=change))
    times = [e["occurred_at"] for e in ws.outbox.find({"version": {"$gte": 2}}).sort("version", 1)]
    assert times == [ahead + timedelta(milliseconds=n) for n in (1, 2)]
    assert thing(ws)["last_event_at"] == times[-1]


def test_writers_that_meet_on_one_entity_leave_no_gap(ws):
    put_good(ws, event(entity={"insert": {"n": 0}}))
    line = json.dumps(event(entity={"update": {"$inc": {"n": 1}}})) + "\n"
    writers = [subprocess.Popen([OUTBOX, "put", "--uri", ws.stores.mongo_uri, "--database", ws.name, "--entities", "things"],
                                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) for _ in range(4)]
    for writer in writers:
        writer.stdin.write(line * 50)
        writer.stdin.close()
    assert [writer.wait(60) for writer in writers] == [0] * 4
    assert_history(list(ws.outbox.find()))
    assert ws.outbox.count_documents({}) == 201
    assert (thing(ws)["n"], thing(ws)["version"]) == (200, 201)


@pytest.mark.thorough
@pytest.mark.whole_server  # failCommand
def test_the_library_from_c(ws):
    program = Path(OUTBOX).with_name("test_outbox_api")
    if not program.exists():
        pytest.skip("built without cmocka")
    done = subprocess.run([program, ws.stores.mongo_uri, ws.name], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


# Faults of the store


@pytest.mark.thorough(beyond=2)
@pytest.mark.whole_server
@pytest.mark.parametrize("data", [
    {"failCommands": ["findAndModify"], "errorCode": 112, "errorLabels": [TRANSIENT]},
    {"failCommands": ["insert"], "errorCode": 112, "errorLabels": [TRANSIENT]},
    {"failCommands": ["findAndModify"], "closeConnection": True},
    {"failCommands": ["insert"], "closeConnection": True},
    {"failCommands": ["commitTransaction"], "errorCode": 251, "errorLabels": [TRANSIENT]},
    {"failCommands": ["commitTransaction"], "errorCode": 91},
    {"failCommands": ["commitTransaction"], "closeConnection": True},
    {"failCommands": ["commitTransaction"], "errorCode": 64, "errorLabels": [UNKNOWN_COMMIT]},
    # It commits, but the answer is an error: the repeat must find it done.
    {"failCommands": ["commitTransaction"], "writeConcernError": {"code": 91, "errmsg": "shutting down"}},
], ids=lambda data: "-".join(str(v) for v in data.values()))
def test_a_passing_fault_is_overcome_and_the_change_made_once(ws, data):
    put_good(ws, event(entity={"insert": {"n": 0}}))
    application = f"fault-{ws.name}"
    ws.mongo.admin.command("configureFailPoint", "failCommand", mode={"times": 3}, data={**data, "appName": application})
    try:
        put_good(ws, event(entity={"update": {"$inc": {"n": 1}}}), uri=f"&appName={application}")
    finally:
        fired = ws.mongo.admin.command("configureFailPoint", "failCommand", mode="off")["count"]
    assert fired >= 1
    assert (thing(ws)["n"], thing(ws)["version"]) == (1, 2)
    assert_history(list(ws.outbox.find()))
    assert ws.outbox.count_documents({}) == 2


@pytest.mark.whole_server
def test_what_may_be_stored_is_not_told_as_refused(ws):
    """The first answer to the commit was lost, also where only the driver has seen that; a later one does not say how it ended."""
    put_good(ws, event(entity={"insert": {"n": 0}}))
    application = f"fault-{ws.name}"
    fault = {"failCommands": ["commitTransaction"], "appName": application}
    lost = {"writeConcernError": {"code": 91, "errmsg": "shutting down"}}
    ws.mongo.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data={**fault, **lost})
    try:
        with subprocess.Popen([OUTBOX, "put", "--entities", "things", "--database", ws.name, "--uri", f"{ws.stores.mongo_uri}&appName={application}"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as writer:
            writer.stdin.write(json.dumps(event(entity={"update": {"$inc": {"n": 1}}})) + "\n")
            writer.stdin.close()
            ws.wait(lambda: thing(ws)["n"] == 1, what="the commit")
            ws.mongo.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data={**fault, "errorCode": 13})
            assert "(whether it was stored is not known)" in writer.stderr.read()
    finally:
        ws.mongo.admin.command("configureFailPoint", "failCommand", mode="off")
    assert writer.returncode == 3


@pytest.mark.whole_server
def test_faults_of_inserts_and_deletes_are_overcome_too(ws):
    application = f"fault-{ws.name}"
    for command in ("find", "update", "delete", "findAndModify"):
        for fault in ({"closeConnection": True}, {"errorCode": 189}):
            data = {"failCommands": [command], **fault, "appName": application}
            ws.mongo.admin.command("configureFailPoint", "failCommand", mode={"times": 2}, data=data)
            try:
                put_good(ws, event(entity={"insert": {}}), event(entity={"delete": True}), uri=f"&appName={application}")
            finally:
                ws.mongo.admin.command("configureFailPoint", "failCommand", mode="off")
    assert_history(list(ws.outbox.find()))
    assert ws.outbox.count_documents({}) == 16 and thing(ws) is None


@pytest.mark.thorough
def test_the_demo_survives_the_loss_of_the_primary(server_folder):
    with ReplicaSet(server_folder, members=3, cache_gb=0.25) as mongo, mongo.client(uuidRepresentation="standard") as client:
        demo = subprocess.Popen([OUTBOX, "demo", "--uri", mongo.uri, "--rate", "100", "--seconds", "12", "--quiet"],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while client.bank.outbox.estimated_document_count() < 100:
            assert demo.poll() is None
            time.sleep(0.1)
        mongo.primary().kill()
        output, complaint = demo.communicate(timeout=90)
        assert demo.returncode == 0, complaint
        majority = client.get_database("bank", read_concern=pymongo.read_concern.ReadConcern("majority"))
        mongo.primary()
        assert output.startswith(f"wrote {majority.outbox.count_documents({})} events")
        assert_entities_are_the_fold(majority)


@pytest.mark.thorough
def test_a_standalone_server_is_refused(server_folder):
    with Mongod(server_folder) as mongod:
        plain = f"mongodb://{mongod.address}/"
        searching = plain + "?replicaSet=rs0&serverSelectionTimeoutMS=500"
        for command in ("init", "put", "demo"):
            for uri in (plain, searching, mongod.uri):
                done = subprocess.run([OUTBOX, command, "--uri", uri], input="", capture_output=True, text=True, timeout=WAIT_S)
                assert done.returncode == 2
                assert "replica set" in done.stderr and done.stderr.count("\n") == 1
        with mongod.client() as client:
            assert "bank" not in client.list_database_names()


def test_a_server_that_is_not_there_is_said_in_one_line():
    uri = f"mongodb://user:geheim@127.0.0.1:{free_port()}/?serverSelectionTimeoutMS=300"
    for command in ("init", "put", "demo"):
        done = subprocess.run([OUTBOX, command, "--uri", uri], input="", capture_output=True, text=True, timeout=WAIT_S)
        assert done.returncode == 3
        assert done.stderr.count("\n") == 1 and "geheim" not in done.stderr


# The command line


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["init", "--nonsense"], ["init", "extra"], ["demo", "--rate", "-1"],
                                       ["demo", "--rate", "x"], ["demo", "--writers", "0"], ["put", "--uri", "nonsense"]])
def test_wrong_use_is_status_2(arguments):
    done = subprocess.run([OUTBOX, *arguments], input="", capture_output=True, text=True, timeout=WAIT_S)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr


@pytest.mark.parametrize("name", ["outbox", "outbox_archive", "outbox_deleted", "outbox_commands", "projector_claims", "projector_leases"])
def test_init_and_put_refuse_names_of_the_outbox_and_of_the_projector(ws, name):
    """Entities there would be read as events, and a feed is written by the projector alone."""
    for option, expected in (("--entities", "one for entities"), ("--feed", "one for a feed")):
        done = ws.outbox_program("init", option, name)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"collection: expected {expected}, found {name}, which belongs to the outbox or to the projector" in done.stderr
    done = put(ws, event(entity={"insert": {"a": 1}}), entities=name)
    assert (done.returncode, f"expected one for entities, found {name}" in done.stderr) == (2, True)
    assert ws.outbox.find_one() is None and ws.db[name].find_one() is None


def test_an_application_may_name_its_entities_after_a_projector(ws):
    """Only two such names are the projector's. A feed, which is a new collection, gets none of them."""
    assert ws.outbox_program("init", "--entities", "projector_slides").returncode == 0
    put_good(ws, event(entity={"insert": {"a": 1}}), entities="projector_slides")
    assert ws.db["projector_slides"].find_one({"_id": "t1"})["a"] == 1
    refused = ws.outbox_program("init", "--feed", "projector_slides")
    assert (refused.returncode, refused.stderr) == (2, "outbox: collection: expected one for a feed, found "
                                                       "projector_slides; names that begin with projector_ are kept for the projector's own collections\n")


def test_init_refuses_a_feed_that_is_for_entities_too(ws):
    done = ws.outbox_program("init", "--entities", "things", "--feed", "things")
    assert (done.returncode, done.stderr) == (2, "outbox: --feed things: expected a collection of its own, found one for entities\n")


@pytest.mark.parametrize("arguments", [["--help"], ["init", "--help"], ["put", "-h"], ["demo", "--help"]])
def test_help_goes_to_stdout(arguments):
    done = subprocess.run([OUTBOX, *arguments], capture_output=True, text=True, timeout=WAIT_S)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage:" in done.stdout


def test_the_uri_may_come_from_a_file_that_others_cannot_read(ws, tmp_path):
    file = tmp_path / "uri"
    file.write_text(ws.stores.mongo_uri + "\n")
    command = [OUTBOX, "init", "--uri-file", str(file), "--database", ws.name]
    file.chmod(0o644)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "can be read by everyone" in done.stderr
    file.chmod(0o600)
    assert subprocess.run(command).returncode == 0
    file.unlink()
    assert subprocess.run(command, capture_output=True).returncode == 2


# outbox demo


def fold(events: list[dict]) -> dict[str, dict]:
    """The rows that the bank's mapping makes of the events."""
    accounts: dict[str, dict] = {}
    for e in sorted(events, key=lambda e: (e["aggregate_id"], e["occurred_at"], e["version"])):
        _id, payload = e["aggregate_id"], e["payload"]
        match e["event_type"]:
            case "AccountOpened":
                assert _id not in accounts
                accounts[_id] = {**payload, "balance": payload["balance"].to_decimal()}
            case "AccountRenamed":
                accounts[_id]["name"] = payload["name"]
            case "MoneyDeposited":
                accounts[_id]["balance"] += payload["amount"].to_decimal()
            case "MoneyWithdrawn":
                accounts[_id]["balance"] -= payload["amount"].to_decimal()
                assert accounts[_id]["balance"] >= 0
            case "AccountFrozen":
                accounts[_id]["name"] += " (frozen)"
            case "StatementSent":
                assert payload == {}
            case "AccountClosed":
                del accounts[_id]
        assert e["aggregate_type"] == "account" and len(_id) <= 36
        assert _id not in accounts or len(accounts[_id]["name"]) <= 100
    return accounts


def assert_entities_are_the_fold(db) -> None:
    events = list(db.outbox.find())
    last: dict[str, dict] = {}
    histories: dict[str, list] = {}
    for e in events:
        histories.setdefault(e["aggregate_id"], []).append(e)
    for _id, history in histories.items():
        assert_history(history)
        last[_id] = max(history, key=lambda e: e["version"])
    entities = {}
    for entity in db.accounts.find():
        _id = entity.pop("_id")
        assert (entity.pop("version"), entity.pop("last_event_at")) == (last[_id]["version"], last[_id]["occurred_at"])
        entity["balance"] = entity["balance"].to_decimal()
        entities[_id] = entity
    assert entities == fold(events)


@pytest.mark.thorough
def test_the_demos_accounts_are_what_its_events_say(ws):
    for seed in ("1", "2"):  # a second run adds to the accounts of the first
        done = ws.outbox_program("demo", "--events", "1500", "--rate", "0", "--accounts", "30", "--seed", seed, check=True)
        assert done.stdout.startswith("wrote 1500 events")
    assert ws.outbox.count_documents({}) == 3000
    kinds = {"AccountOpened", "AccountRenamed", "MoneyDeposited", "MoneyWithdrawn", "AccountFrozen", "StatementSent", "AccountClosed"}
    assert set(ws.outbox.distinct("event_type")) == kinds
    assert_entities_are_the_fold(ws.db)
    assert all(a["balance"].to_decimal().as_tuple().exponent == -2 for a in ws.accounts.find())
    assert sum(a["balance"].to_decimal() for a in ws.accounts.find()) > Decimal(0)


@pytest.mark.thorough
def test_a_seed_gives_the_same_events_again(ws):
    def contents() -> list:
        ids: dict[str, int] = {}
        events = list(ws.outbox.find().sort("_id", 1))
        ws.outbox.delete_many({})
        return [(ids.setdefault(e["aggregate_id"], len(ids)), e["event_type"], {**e["payload"], "opened_at": None}) for e in events]
    runs = []
    for _ in range(2):
        ws.outbox_program("demo", "--events", "300", "--rate", "0", "--accounts", "10", "--writers", "1", "--seed", "7", check=True)
        runs.append(contents())
    assert runs[0] == runs[1]


def test_the_demo_keeps_its_rate_and_ends_in_good_order(ws):
    demo = subprocess.Popen([OUTBOX, "demo", "--uri", ws.stores.mongo_uri, "--database", ws.name, "--rate", "20", "--seconds", "0"],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    ws.wait(lambda: ws.outbox.count_documents({}) >= 20)

    def rate() -> float:
        before, began = ws.outbox.count_documents({}), time.monotonic()
        ws.wait(lambda: ws.outbox.count_documents({}) >= before + 40)
        return 40 / (time.monotonic() - began)
    ws.wait(lambda: 16 < rate() < 25, 2 * WAIT_S, "two seconds that nothing else disturbs")
    began = time.monotonic()
    demo.send_signal(signal.SIGTERM)
    output, progress = demo.communicate(timeout=WAIT_S)
    assert demo.returncode == 0 and time.monotonic() - began < AT_ONCE_S
    assert output.startswith(f"wrote {ws.outbox.count_documents({})} events")
    assert " events, " in progress and "\r" not in progress  # plain lines, because it is not a terminal
    assert_entities_are_the_fold(ws.db)
