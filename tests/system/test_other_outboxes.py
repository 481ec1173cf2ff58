"""Existing outboxes with Debezium's layout or any other field names: reading, order, claims, archive and tools."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest
from bson import Int64, ObjectId
from test_projector_reconcile import state_folder

__all__ = ["state_folder"]

START = datetime(2026, 1, 1)

PROJECTION = {
    "aggregate_type": "order", "table": "orders", "entities": "orders",
    "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}},
    "columns": {"status": {"from": "status", "type": "varchar(20)"}, "total": {"from": "total", "type": "decimal(9,2)", "default": 0},
                "changed_at": {"from": "$occurred_at", "type": "datetime(3)", "compare": False}},
    "events": {"Placed": {"op": "upsert"}, "Changed": {"op": "update", "columns": ["status"]}, "Closed": {"op": "delete"}}}


class Writer:
    """Writes events the way the owner of that outbox does."""

    settings: dict

    def __init__(self, ws):
        self.ws, self.number = ws, 0

    def put(self, *events: tuple) -> list[dict]:
        documents = [self.document(*event) for event in events]
        self.ws.outbox.insert_many(documents)
        return documents

    def next(self, at: int | None) -> datetime:
        self.number += 1
        return START + timedelta(seconds=self.number if at is None else at)


class Debezium(Writer):
    settings = {"layout": "debezium"}

    def document(self, id: str, type: str, payload: dict, at: int | None = None) -> dict:
        return {"_id": ObjectId(), "aggregatetype": "order", "aggregateid": id, "type": type, "payload": payload,
                "timestamp": self.next(at)}


class DebeziumText(Debezium):
    """The payload is JSON in a text, the time in milliseconds."""

    def document(self, id: str, type: str, payload: dict, at: int | None = None) -> dict:
        event = super().document(id, type, payload, at)
        ms = int((event["timestamp"] - datetime(1970, 1, 1)).total_seconds() * 1000)
        return {**event, "payload": json.dumps(payload), "timestamp": Int64(ms)}


class DebeziumByObjectId(Debezium):
    """Without a separate time."""

    def document(self, id: str, type: str, payload: dict, at: int | None = None) -> dict:
        event = super().document(id, type, payload, at)
        seconds = int((event.pop("timestamp") - datetime(1970, 1, 1)).total_seconds())
        return {**event, "_id": ObjectId(seconds.to_bytes(4, "big") + ObjectId().binary[4:])}


class Cap(Writer):
    """CAP's collection of published messages: ids are numbers, the headers are nested."""

    settings = {"fields": {"aggregate_type": "Headers.aggregate-type", "aggregate_id": "Headers.aggregate-id", "event_type": "Name",
                           "occurred_at": "Added", "payload": "Content", "metadata": "Headers"}}

    def document(self, id: str, type: str, payload: dict, at: int | None = None) -> dict:
        added = self.next(at)
        return {"_id": Int64(10**17 + self.number), "Version": "v1", "Name": type, "Content": json.dumps(payload),
                "Headers": {"aggregate-type": "order", "aggregate-id": id}, "Added": added, "StatusName": "Scheduled", "Retries": 0}


class Eventuate(Writer):
    """Eventuate's messages: text ids, times in milliseconds, other field names."""

    settings = {"fields": {"aggregate_type": "destination", "aggregate_id": "headers.PARTITION_ID", "event_type": "headers.event-type",
                           "occurred_at": "creation_time", "payload": "payload", "metadata": "headers"}}

    def document(self, id: str, type: str, payload: dict, at: int | None = None) -> dict:
        ms = int((self.next(at) - datetime(1970, 1, 1)).total_seconds() * 1000)
        return {"_id": f"{ms:016x}-{self.number:016x}", "destination": "order", "headers": {"PARTITION_ID": id, "event-type": type},
                "payload": json.dumps(payload), "published": 0, "creation_time": Int64(ms)}


@pytest.fixture(params=[Debezium, DebeziumText, DebeziumByObjectId, Cap, Eventuate], ids=lambda c: c.__name__)
def writer(request, ws):
    ws.mapping([PROJECTION], mongodb={**request.param.settings, "retain": "archive"}, backoff_ms=300000)
    assert ws.projector("schema", "--apply").returncode == 0
    return request.param(ws)


def correct(ws, event: dict, content: dict) -> None:
    field = "Content" if "Content" in event else "payload"
    ws.outbox.update_one({"_id": event["_id"]}, {"$set": {field: json.dumps(content) if isinstance(event[field], str) else content}})


def statuses(ws) -> dict[str, str]:
    return {row["id"]: row["status"] for row in ws.rows("orders")}


@pytest.mark.thorough(beyond=2)
def test_events_are_applied_in_order_and_archived(writer):
    ws = writer.ws
    writer.put(("o-1", "Placed", {"status": "new", "total": 12.5}, 1), ("o-2", "Placed", {"status": "new"}, 2), ("o-1", "Changed", {"status": "paid"}, 4))
    ws.run_once()
    assert statuses(ws) == {"o-1": "paid", "o-2": "new"}
    [first, _] = ws.rows("orders")
    assert (str(first["total"]), first["changed_at"]) == ("12.50", START + timedelta(seconds=1))
    writer.put(("o-1", "Placed", {"status": "old"}, 3))  # late
    writer.put(("o-2", "Closed", {}, 5))
    ws.run_once()
    assert statuses(ws) == {"o-1": "paid"}
    assert ws.outbox.count_documents({}) == 0 and ws.db["outbox_archive"].count_documents({"applied_at": {"$exists": True}}) == 5


@pytest.mark.thorough(beyond=2)
def test_the_stream_brings_events_while_it_runs(writer):
    ws = writer.ws
    with ws.start_projector() as process:
        process.wait_log("watching|running|owner")
        for n in range(3):
            writer.put((f"o-{n}", "Placed", {"status": "new"}), (f"o-{n}", "Changed", {"status": f"s{n}"}))
        ws.wait(lambda: statuses(ws) == {f"o-{n}": f"s{n}" for n in range(3)}, what="the rows")
        ws.wait_drained()


@pytest.mark.thorough(beyond=2)
def test_a_failed_event_holds_its_aggregate_and_the_tools_find_it(writer, state_folder):
    ws = writer.ws
    bad, later, other = writer.put(("o-1", "Placed", {}), ("o-1", "Changed", {"status": "paid"}), ("o-2", "Placed", {"status": "new"}))
    ws.projector("run", "--once")
    assert statuses(ws) == {"o-2": "new"}
    [listed] = [json.loads(line) for line in ws.projector("list", "--json", "--state", "failed").stdout.splitlines()]
    assert (listed["aggregate_type"], listed["aggregate_id"], listed["event_type"], listed["event_id"]) == ("order", "o-1", "Placed", str(bad["_id"]))
    assert "payload.status: expected varchar(20), found nothing" in str(listed)
    shown = json.loads(ws.projector("explain", "order", "o-1", "--json").stdout)
    assert [e["event_type"] for e in shown["outbox"]] == ["Placed", "Changed"]
    correct(ws, bad, {"status": "new"})
    assert ws.projector("retry", "--aggregate", "order", "o-1").returncode == 0
    ws.run_once()
    assert statuses(ws) == {"o-1": "paid", "o-2": "new"} and ws.outbox.count_documents({}) == 0


@pytest.mark.thorough(beyond=2)
def test_an_event_is_fed_once(writer):
    """With an event, the later ones of its aggregate are copied too, as no index bounds their times."""
    ws = writer.ws
    ws.mapping([PROJECTION], mongodb={**writer.settings, "feeds": ["copies"]}, backoff_ms=300000)
    first, bad = writer.put(("o-1", "Placed", {"status": "new"}), ("o-1", "Changed", {}))
    ws.projector("run", "--once")
    assert [event["_id"] for event in ws.outbox.find()] == [bad["_id"]]
    correct(ws, bad, {"status": "paid"})
    assert ws.projector("retry", "--aggregate", "order", "o-1").returncode == 0
    ws.run_once()
    assert ws.outbox.count_documents({}) == 0 and statuses(ws) == {"o-1": "paid"}
    assert [copy["_id"] for copy in ws.db["copies"].find()] == [first["_id"], bad["_id"]]


@pytest.mark.thorough(beyond=2)
def test_what_is_in_a_batch_is_listed_as_in_progress(writer):
    ws = writer.ws
    writer.put(("o-1", "Placed", {"status": "new"}))
    ws.run_once()
    with ws.start_projector() as process, ws.stores.mysql(ws.name) as lock, lock.cursor() as cursor:
        process.wait_log("info working")
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM orders FOR UPDATE")
        [event] = writer.put(("o-1", "Changed", {"status": "paid"}))
        ws.wait_lock_wait()
        [listed] = [json.loads(line) for line in ws.projector("list", "--json", "--state", "in_progress").stdout.splitlines()]
        assert (listed["event_id"], listed["state"]) == (str(event["_id"]), "in_progress")
        cursor.execute("ROLLBACK")
        ws.wait_drained()


def minutes(n: int) -> str:
    return f"{n // 60:02}:{n % 60:02}"


@pytest.mark.parametrize("time, of", [
    ("_id", lambda n: {"_id": ObjectId(f"{0x60000000:08x}{n:016x}"), "version": Int64(252 - n)}),  # all within one second
    ("timestamp", lambda n: {"_id": ObjectId(), "timestamp": f"2026-01-01T{minutes(n)}:00" + (f"+{minutes(n)}" if n % 2 else "Z")}),
], ids=["times of ids", "times as texts"])
def test_what_waits_behind_a_failed_event_comes_in_the_order_of_its_times(ws, time, of):
    """Whatever order the stored values have; they are more than are read at once."""
    ws.mapping([PROJECTION], backoff_ms=300000, gap_wait_ms=0,
               mongodb={"fields": {"aggregate_type": "aggregatetype", "aggregate_id": "aggregateid", "event_type": "type",
                                   "occurred_at": time, "payload": "payload", "version": "version"}})
    ws.create()
    order = {"aggregatetype": "order", "aggregateid": "o-1"}
    bad = {**order, "_id": ObjectId("1" * 24), "timestamp": "2000-01-01T00:00:00Z", "version": Int64(1), "type": "Placed", "payload": {}}
    events = [{**order, "type": "Changed", "payload": {"status": f"s{n}"}, **of(n)} for n in range(1, 251)]
    ws.outbox.insert_many([bad, *events])
    with ws.start_projector() as process:
        process.wait_log("info working")
        ws.wait_status(bad, "failed")
        ws.outbox.update_one({"_id": bad["_id"]}, {"$set": {"payload": {"status": "new"}}})
        assert ws.projector("retry", str(bad["_id"])).returncode == 0
        ws.wait_drained()
    assert set(ws.ledger().values()) == {"applied"}


@pytest.mark.thorough(beyond=2)
def test_replay_and_archive_verify_read_the_archive(writer, state_folder):
    ws = writer.ws
    writer.put(*((f"o-{n}", type, {"status": type, "total": n}) for type in ("Placed", "Changed") for n in range(5)))
    ws.run_once()
    rows = ws.rows("orders")
    ws.query("DELETE FROM orders")
    done = ws.projector("replay", "--projection", "orders")
    assert done.returncode == 0, done.stderr
    assert ws.rows("orders") == rows
    ws.db["orders"].insert_many([{"_id": f"o-{n}", "version": Int64(1), "status": "Changed", "total": n} for n in range(5)])
    done = ws.projector("archive", "verify", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["equal"] == 5


@pytest.mark.thorough(beyond=1)
@pytest.mark.parametrize("times", [
    [{"timestamp": datetime(2020, 1, 1)}, {}],  # then the ObjectId's
    [{"timestamp": "2026-01-01T00:00:01Z"}, {"timestamp": "2026-01-01T00:00:01.500Z"}],
    [{"timestamp": "2026-01-01T03:00:00+02:00"}, {"timestamp": "2026-01-01T02:00:00Z"}],
])
def test_replay_takes_events_in_the_order_of_their_times_whatever_form_they_have(ws, state_folder, times):
    ws.mapping([PROJECTION], mongodb={"layout": "debezium", "retain": "archive"})
    ws.create()
    for number, time in enumerate(times):
        ws.outbox.insert_one({"_id": ObjectId(), "aggregatetype": "order", "aggregateid": "o-1", "type": "Placed",
                              "payload": {"status": f"s{number}"}, **time})
        ws.run_once()
    assert statuses(ws) == {"o-1": "s1"}
    ws.query("DELETE FROM orders")
    # The events of the last minute are replayed by their ids, whatever their times are.
    ws.query("UPDATE projector_applied SET applied_at = applied_at - INTERVAL 1 HOUR")
    done = ws.projector("replay", "--projection", "orders")
    assert done.returncode == 0, done.stderr
    assert statuses(ws) == {"o-1": "s1"}


@pytest.mark.thorough
def test_rows_are_repaired_and_filled_from_the_entities(writer, state_folder):
    ws = writer.ws
    ws.db["orders"].insert_many([{"_id": f"o-{n}", "version": Int64(1), "status": "new", "total": n} for n in range(3)])
    writer.put(*((f"o-{n}", "Placed", {"status": "new", "total": n}) for n in range(3)))
    ws.run_once()
    ws.query("UPDATE orders SET status = 'wrong' WHERE id = 'o-1'")
    done = ws.projector("reconcile", "--json", "--repair")
    assert json.loads(done.stdout.splitlines()[0])["aggregate_id"] == "o-1" and done.returncode == 0, done.stdout
    assert set(statuses(ws).values()) == {"new"}
    ws.query("UPDATE orders SET status = 'wrong'")
    assert ws.projector("refresh", "order", "o-2").returncode == 0
    assert statuses(ws) == {"o-0": "wrong", "o-1": "wrong", "o-2": "new"}
    for way in ([], ["--shadow"]):
        ws.query("DELETE FROM orders WHERE id <> 'o-2'")
        done = ws.projector("rebuild", *way)
        assert done.returncode == 0, done.stderr
        assert statuses(ws) == {f"o-{n}": "new" for n in range(3)}
    writer.put(("o-1", "Changed", {"status": "paid"}))
    ws.run_once()
    assert statuses(ws)["o-1"] == "paid"


@pytest.mark.thorough(beyond=2)
def test_status_counts_and_check_names_the_index_that_is_missing(writer):
    ws = writer.ws
    writer.put(("o-1", "Placed", {}, 1), ("o-2", "Placed", {"status": "new"}, 2))
    oldest = json.loads(ws.projector("status", "--json").stdout)
    assert "2026-01-01" in json.dumps(oldest)
    report = ws.projector("check").stdout
    names = writer.settings.get("fields", {"aggregate_type": "aggregatetype", "aggregate_id": "aggregateid", "occurred_at": "timestamp"})
    assert f'the outbox has no index on ({names["aggregate_type"]}, {names["aggregate_id"]}, {names["occurred_at"]})' in report
    assert f'createIndex({{"{names["aggregate_type"]}": 1' in report
    ws.outbox.create_index([(names[n], 1) for n in ("aggregate_type", "aggregate_id", "occurred_at")])
    report = ws.projector("check").stdout
    assert f'outbox index on ({names["aggregate_type"]}, {names["aggregate_id"]}, {names["occurred_at"]})' in report


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("payload, reason", [
    ("no JSON", 'payload: expected a document, found string of 7 bytes "no JSON"'),
    ('{"status": ', "payload.status: expected a value of JSON, found the end of the text"),
    ('{"status": {"$date": "rubbish"}}', 'payload.status.$date: expected a time like 2026-01-31T23:59:59.123Z, found "rubbish"'),
    ('{"status": 0.12345678901234567890123456789012345}', "payload: expected JSON whose numbers have at most 34 digits, found more"),
    ('{"status": "a", "status": "b"}', "payload.status: expected once, found again"),
    ('{"status": "a", "l": [1, {"x": {"y": 1, "z": 2, "y": 3}}]}', "payload.l[1].x.y: expected once, found again"),
])
def test_what_is_no_event_fails_with_its_reason(ws, payload, reason):
    ws.mapping([PROJECTION], mongodb={"layout": "debezium"}, backoff_ms=300000)
    assert ws.projector("schema", "--apply").returncode == 0
    event = {**Debezium(ws).document("o-1", "Placed", {}), "payload": payload}
    ws.outbox.insert_one(event)
    ws.projector("run", "--once")
    assert ws.found(event)["last_error"]["message"] == reason


@pytest.mark.parametrize("mongodb, message", [
    ({"layout": "other"}, "mongodb.layout: expected one of outbox, debezium, found \"other\""),
    ({"fields": []}, "mongodb.fields: expected an object"),
    ({"fields": {"type": "t"}}, "mongodb.fields.type: unknown key; known here: aggregate_type, aggregate_id, version, event_type, occurred_at, payload, metadata"),
    ({"fields": {"version": 5}}, "mongodb.fields.version: expected a string, found 5"),
    ({"fields": {"version": "status"}}, "mongodb.fields.version: expected a field of the outbox's documents, which the projector does not write itself"),
    ({"fields": {"version": "$v"}}, "mongodb.fields.version: expected a field"),
])
def test_wrong_settings_are_refused(ws, mongodb, message):
    ws.mapping([PROJECTION], mongodb=mongodb)
    done = ws.projector("schema")
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
