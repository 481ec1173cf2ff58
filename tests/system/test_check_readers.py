"""What `check` reports on everything around the projector: feeds and their readers, those who fetch events again,
pauses, and replicas that hold it back. (Commands executed once: test_outbox_commands.py.)"""

from __future__ import annotations

import json
import re
import socket

import pymongo
import pytest

from endpoint import Endpoint
from bank import opened
from feeds import FEED, SETTINGS, checks, reader_mapping, start_reader
from refusals import REFUSED, UNKNOWN, refusing_stores
from servers import Mysqld
from workspace import PROJECTOR_USER, Stores, Workspace, bank_projections

CONTRACT = ["_id", "aggregate_type", "aggregate_id", "version", "event_type", "occurred_at", "payload", "metadata"]
OWN = ["status", "attempts", "next_attempt_at", "claimed_by", "claimed_at", "last_error"]


def line(ws: Workspace, pattern: str) -> tuple[str, str]:
    """The only line that contains the text."""
    found = [(c["verdict"], c["text"]) for c in checks(ws) if re.search(pattern, c["text"])]
    assert len(found) == 1, (pattern, found)
    return found[0]


@pytest.mark.thorough
def test_a_pause_with_who_and_since_when(bank):
    assert line(bank, "paused") == ("ok", "not paused")
    assert bank.projector("pause").returncode == 0
    verdict, text = line(bank, "paused")
    paused = json.loads(bank.projector("status", "--json").stdout)["paused"]
    assert verdict == "warning" and paused["by"] in text and "`projector resume`" in text
    assert re.search(r"since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC", text)
    assert bank.projector("check").returncode == 0
    assert bank.projector("resume").returncode == 0
    assert line(bank, "paused") == ("ok", "not paused")


# feeds


def closed(fields: list[str]) -> dict:
    """A validator that allows no other fields."""
    return {"$jsonSchema": {"properties": {field: {} for field in fields}, "additionalProperties": False}}


@pytest.mark.thorough
@pytest.mark.parametrize("options, said", [
    ({"capped": True, "size": 1 << 20}, "is capped"),
    ({"validator": closed(CONTRACT)}, "refuses what the projector writes"),
    ({"viewOn": "accounts", "pipeline": []}, "is a view")], ids=["capped", "validator", "view"])
def test_a_feed_that_can_be_no_outbox(ws, options, said):
    ws.mapping(mongodb={"feeds": [FEED]})
    ws.create()
    ws.db.create_collection(FEED, **options)
    ws.db["accounts"].insert_one({"_id": "a1"})
    if "validator" in options:
        ws.db[FEED].insert_one(opened(ws, "a1"))
    assert line(ws, f"{FEED}.*{said}|{said}.*{FEED}|validator of .*{FEED} {said}")[0] == "error"
    assert ws.projector("check").returncode == 2


NO_CASE = {"locale": "en", "strength": 2}


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("where", [FEED, "outbox_archive"])
@pytest.mark.parametrize("options, said", [
    ({"capped": True, "size": 1 << 20}, "is capped"), ({"collation": NO_CASE}, "has a collation of its own"),
    ({"viewOn": "accounts", "pipeline": []}, "is a view")], ids=["capped", "collation", "view"])
def test_what_cannot_take_every_copy_is_refused(ws, where, options, said):
    ws.mapping(mongodb={"feeds": [FEED], "retain": "archive"})
    ws.create()
    ws.db.create_collection(where, **options)
    ws.put(opened(ws, "a1"))
    check, run = ws.projector("check"), ws.projector("run", "--once")
    assert (check.returncode, run.returncode) == (2, 2), check.stdout + run.stderr
    assert f"{where} {said}" in check.stdout and f"{where} {said}" in run.stderr
    assert ws.outbox.count_documents({}) == 1


def test_an_archive_that_is_only_risky_is_told(ws):
    ws.mapping(mongodb={"retain": "archive"})
    ws.create()
    ws.db.create_collection("outbox_archive", validator={"never": {"$exists": False}})
    ws.db["outbox_archive"].create_index("applied_at", name="month", expireAfterSeconds=2592000)
    check, run = ws.projector("check"), ws.run_once()
    assert check.returncode == 0
    for said in ("outbox_archive has the TTL index month", "outbox_archive has a validator"):
        assert said in check.stdout and said in run.stderr


def test_a_feed_that_is_deleted_by_a_ttl_index_is_refused(ws):
    ws.mapping(mongodb={"feeds": [FEED]})
    ws.create()
    ws.db[FEED].create_index("occurred_at", name="old", expireAfterSeconds=3600)
    run = ws.projector("run", "--once")
    assert run.returncode == 2 and f"{FEED} has the TTL index old" in run.stderr


@pytest.mark.thorough
@pytest.mark.parametrize("status", ["pending", "in_progress", "failed", "dead"])
def test_an_outbox_whose_validator_refuses_a_status(ws, status):
    ws.mapping()
    ws.create()
    others = [s for s in ("pending", "in_progress", "failed", "dead") if s != status]
    ws.db.command("collMod", "outbox", validator={"$or": [{"status": {"$exists": False}}, {"status": {"$in": others}}]})
    ws.put(opened(ws, "a1"))
    assert line(ws, "validator")[0] == "error"
    ws.db.command("collMod", "outbox", validationLevel="off")
    assert ws.projector("check").returncode == 0 and "validator" not in ws.projector("check").stdout
    ws.run_once()


def test_an_outbox_whose_validator_refuses_the_mark_of_a_copy(ws):
    ws.mapping(mongodb={"feeds": [FEED]})
    ws.create()
    ws.db.command("collMod", "outbox", validator=closed(CONTRACT + OWN))
    ws.put(opened(ws, "a1"))
    verdict, text = line(ws, "validator")
    assert verdict == "error" and "fed_at, fed_to" in text
    ws.mapping()
    verdict, text = line(ws, "validator")
    assert verdict == "warning" and "fed_at" not in text


@pytest.mark.thorough
def test_a_feed_whose_reader_is_behind(ws):
    ws.mapping(mongodb={"feeds": [FEED]}, **SETTINGS, ready_lag_ms=500)
    ws.create()
    ws.outbox_program("init", "--feed", FEED, check=True)
    readers = reader_mapping(ws)
    with start_reader(ws, readers) as reader:
        reader.wait_log("working")
        with ws.stores.mysql(ws.name) as connection, connection.cursor() as cursor:
            connection.begin()
            cursor.execute("SELECT * FROM projector_fence WHERE projector = %s FOR UPDATE", (f"{ws.name}_{FEED}",))
            ws.db[FEED].insert_one(opened(ws, "a1"))
            found = ws.wait(lambda: next((c for c in checks(ws) if "behind with the feed" in c["text"]), None), what="a feed that is behind")
            assert found["verdict"] == "warning" and FEED in found["text"]
            connection.rollback()
        ws.wait(lambda: line(ws, f"the feed {FEED} ")[0] == "ok", what="a feed that is read")


# events on demand


@pytest.mark.thorough
def test_the_archive(ws):
    ws.mapping()
    ws.create()
    assert line(ws, "fetched on demand")[0] == "ok" and "deleted" in line(ws, "fetched on demand")[1]
    ws.mapping(mongodb={"retain": "archive"}, **SETTINGS)
    assert line(ws, r"no index on \(seq\)")[0] == "warning"
    ws.outbox_program("init", "--archive", check=True)
    assert line(ws, r"archive index on \(seq\)")[0] == "ok"
    ws.db["outbox_archive"].insert_one({**opened(ws, "a0"), "applied_at": ws._clock})
    verdict, text = line(ws, "archived events")
    assert verdict == "warning" and "not running" in text
    with ws.start_projector():
        ws.wait(lambda: line(ws, "archived events") == ("ok", "archived events can be fetched on demand, up to number 1"),
                what="a number")


def test_an_index_that_is_not_used_is_none(bank):
    """Hidden, or of some events only."""
    bank.outbox.drop_indexes()
    keys = [("occurred_at", 1), ("version", 1), ("_id", 1)]
    missing = r"outbox has no index on \(occurred_at, version, _id\)"
    for more in {"hidden": True}, {"sparse": True}, {"partialFilterExpression": {"status": "failed"}}:
        bank.outbox.create_index(keys, name="one", **more)
        assert line(bank, missing)[0] == "warning", more
        bank.outbox.drop_index("one")
    bank.outbox.create_index(keys, name="one")
    assert line(bank, r"outbox index on \(occurred_at, version, _id\)")[0] == "ok"


def test_a_limit_of_events_a_second_is_told(ws):
    ws.mapping(max_events_per_s=250)
    ws.create()
    told = [line for line in map(json.loads, ws.projector("check", "--json").stdout.splitlines()) if "max_events_per_s" in line["text"]]
    assert [(line["verdict"], line["text"]) for line in told] == [("ok", "at most 250 events a second are applied (max_events_per_s)")]


@pytest.mark.thorough
def test_metrics_of_feeds_and_numbers(ws):
    ws.mapping(mongodb={"feeds": [FEED], "retain": "archive"}, **SETTINGS, http="127.0.0.1:0")
    ws.create()
    readers = reader_mapping(ws)
    with ws.start_projector() as process:
        endpoint = Endpoint(process)
        names = {f'projector_feed_{what}{{feed="{FEED}"}}': value for what, value in (("events", 1), ("reader_running", 0))}
        ws.put(opened(ws, "a1"))
        ws.wait(lambda: names.items() <= endpoint.metrics().items(), what="an event in the feed")
        assert f'projector_feed_lag_seconds{{feed="{FEED}"}}' not in endpoint.metrics()
        ws.wait(lambda: endpoint.metrics()["projector_numbering_lag_seconds"] == 0, what="numbers")
        with start_reader(ws, readers):
            ws.wait(lambda: endpoint.metrics().get(f'projector_feed_lag_seconds{{feed="{FEED}"}}') == 0, what="a reader without a lag")
        ws.db.command("collMod", "outbox_archive", validator={"seq": {"$exists": False}})
        ws.put(opened(ws, "a2"))
        ws.wait(lambda: endpoint.metrics()["projector_numbering_lag_seconds"] > 1, what="numbers that are refused")
        ws.db.command("collMod", "outbox_archive", validator={})
        ws.wait(lambda: endpoint.metrics()["projector_numbering_lag_seconds"] == 0, what="numbers again")


def test_the_metric_of_receipts_counts_executed_commands(ws):
    ws.mapping(http="127.0.0.1:0", **SETTINGS)
    ws.create()
    with ws.start_projector() as process:
        endpoint = Endpoint(process)
        ws.wait(lambda: endpoint.metrics().get("projector_command_receipts") == 0, what="no receipts")
        events = "".join(json.dumps({"aggregate_type": "account", "aggregate_id": f"a{n}", "event_type": "Unheard", "payload": {}}) + "\n" for n in range(3))
        assert ws.outbox_program("put", input=events).returncode == 0
        ws.wait(lambda: endpoint.metrics().get("projector_command_receipts") == 3, what="three receipts")


# waiting for a write


@pytest.mark.thorough
def test_whether_get_wait_can_answer(bank):
    bank.mapping()
    assert line(bank, "GET /wait")[0] == "ok" and "`projector wait`" in line(bank, "GET /wait")[1]
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        bank.mapping(http=address)
        verdict, text = line(bank, "GET /wait")
        assert verdict == "error" and f"{address}: the port is in use" in text
        assert bank.projector("check").returncode == 2
    assert line(bank, "GET /wait") == ("ok", f"GET /wait can answer at {address}, where `run` will listen")
    with bank.start_projector() as process:
        endpoint = Endpoint(process)
        assert line(bank, "GET /wait") == ("ok", f"GET /wait answers at {address}")
        bank.wait(lambda: endpoint.get("/status").status == 200, what="a status, which has the name")
        assert line(bank, "GET /wait") == ("ok", f"GET /wait answers at {address}")
        bank.mapping(http=address, name="another")
        verdict, text = line(bank, "GET /wait")
        assert verdict == "error" and f'the projector "{bank.name}" is there' in text
    bank.mapping(http="127.0.0.1:0")
    assert "logs the port" in line(bank, "GET /wait")[1]


# replicas


def test_replicas_that_nobody_asks(bank):
    bank.mapping(mysql={"replicas": ["127.0.0.1:1"]})
    assert line(bank, "mysql.replicas")[0] == "warning"
    bank.mapping()
    assert not any("replica" in c["text"].replace("replica set", "") for c in checks(bank))


@pytest.mark.thorough
def test_what_is_wrong_with_a_replica(bank, server_folder):
    def use(address: str, **more) -> None:
        bank.mapping(max_replica_lag_s=5, mysql={"replicas": [address], **more})
    use("127.0.0.1:1")
    assert line(bank, "the replica ")[0] == "error" and bank.projector("check").returncode == 2
    use("127.0.0.1:1", replica_unreachable="ignore")
    assert line(bank, "the replica ")[0] == "warning" and bank.projector("check").returncode == 0
    use(f"{bank.stores.mysql_host}:{bank.stores.mysql_port}")
    assert "itself" in line(bank, "the replica ")[1]
    with Mysqld(server_folder / "replica") as replica:
        copy = Stores(bank.stores.mongo_uri, replica.port).mysql()
        def run(statement: str, *values) -> None:
            with copy.cursor() as cursor:
                cursor.execute(statement, values or None)
        run(f"CREATE DATABASE {bank.name}")
        use(f"127.0.0.1:{replica.port}")
        assert line(bank, "the replica 127")[0] == "error", "no table"
        run(f"USE {bank.name}")
        run(bank.query("SHOW CREATE TABLE projector_applied")[0]["Create Table"])
        assert line(bank, "the replica 127") == ("ok", f"the replica 127.0.0.1:{replica.port} has all that mysql.host has")
        bank.put(opened(bank, "a1"))
        bank.run_once()
        verdict, text = line(bank, "the replica 127")
        assert verdict == "warning" and "no entry" in text
        [row] = bank.query("SELECT * FROM projector_applied")
        insert = (f"INSERT INTO projector_applied (projector, event_id_kind, event_id, outcome, applied_at) VALUES ('{bank.name}', 'uuid', "
                  "%s, 'applied', %s)")
        run(insert, "x", row["applied_at"])
        assert line(bank, "the replica 127")[0] == "ok"
        bank.query(insert, "y", "2199-01-01 00:00:00.000")
        assert "some entries behind" in line(bank, "the replica 127")[1]
        run(insert, "z", "2198-01-01 00:00:00.000")
        verdict, text = line(bank, "the replica 127")
        assert verdict == "warning" and "that mysql.host has not" in text
        with copy.cursor() as cursor:
            cursor.execute("SELECT CONCAT('REVOKE ALL PRIVILEGES, GRANT OPTION FROM `', user, '`@`', host, '`') AS s FROM mysql.user"
                           " WHERE user = %s", (PROJECTOR_USER,))
            for revoke in cursor.fetchall():
                cursor.execute(revoke["s"])
        verdict, text = line(bank, "the replica 127")
        assert verdict == "error" and "denied" in text
        copy.close()


def test_indexes_that_could_not_be_looked_at_are_told(ws):
    """However often a check looks at those of the archive: whichever look fails, the check does not come out good."""
    [(_, port)] = pymongo.uri_parser.parse_uri(ws.stores.mongo_uri)["nodelist"]
    ws.mapping(mongodb={"retain": "archive"}, **SETTINGS)
    ws.create()
    ws.outbox_program("init", "--archive", check=True)
    with refusing_stores(port, ws.stores.mysql_port) as refusing:
        ws.mapping(**SETTINGS, **refusing.settings(retain="archive"))
        for look in range(10):
            refusing.begin("mongodb", "listIndexes outbox_archive", UNKNOWN, spared=look)
            done = ws.projector("check")
            if not refusing.fired:
                break
            assert done.returncode != 0 and REFUSED in done.stdout, (look, done.stdout)
    assert look > 1 and done.returncode == 0


def test_a_column_that_only_events_know_and_a_refresh_would_lose(ws):
    [projection] = bank_projections()
    changed = {"updated_by": {"from": "$metadata.user", "type": "varchar(40)", "null": True},
               "reason": {"from": ["reason", "$event_type"], "type": "varchar(40)"},
               "tenant": {"from": "$metadata.tenant", "default": "none", "type": "varchar(40)"},
               "version": {"from": "$version", "type": "bigint"}}
    ws.mapping([{**projection, "columns": {**projection["columns"], **changed}}])
    ws.create()
    found = [line["text"] for line in checks(ws) if "which only an event has" in line["text"]]
    assert [(text.split(",")[0], re.search(r"repair\), (.*?)[,;]", text)[1]) for text in found] == [
        ("account.updated_by comes from $metadata.user", "the column becomes NULL"), ("account.reason comes from $event_type", "that fails"),
        ("account.tenant comes from $metadata.tenant", "the column gets its default")]
