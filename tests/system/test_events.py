"""Events on demand: archived events can be fetched again in the order of
the numbers that the owner assigned, without triggering anything."""

from __future__ import annotations

import http.client
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.parse
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Iterator

import pytest
from bson import Int64, encode, json_util
from bson.raw_bson import RawBSONDocument

from endpoint import TOKEN, Endpoint
from feeds import deposited, opened
from workspace import MAJORITY, ROOT, Workspace, said

ARCHIVE = {"retain": "archive"}


@pytest.fixture
def kept(ws: Workspace) -> Workspace:
    """One worker, so that events are archived, and numbered, in the order in which they were written."""
    ws.mapping(mongodb=ARCHIVE, workers=1)
    ws.create()
    assert ws.outbox_program("init", "--archive").returncode == 0
    return ws


def lines(ws: Workspace, *arguments: str) -> list[dict]:
    done = ws.projector("events", *arguments)
    assert done.returncode == 0, done.stderr
    return [json_util.loads(line) for line in done.stdout.splitlines()]


def numbered(ws: Workspace, count: int) -> None:
    ws.wait(lambda: ws.db["outbox_archive"].count_documents({"seq": {"$exists": True}}) >= count, what=f"{count} numbers")


def archive_all(ws: Workspace, *events: dict) -> None:
    """Writes the events, and waits until they are applied, archived and numbered."""
    before = ws.db["outbox_archive"].count_documents({})
    ws.put(*events)
    with ws.start_projector() as projector:
        ws.wait_drained()
        numbered(ws, before + len(events))
        assert projector.stop() == 0


def test_events_come_in_the_order_of_their_cursors(kept):
    events = [opened(kept, "a1"), deposited(kept, "a1"), opened(kept, "a2", metadata={"trace": "t"})]
    archive_all(kept, *events)
    found = lines(kept)
    assert [e["_id"] for e in found] == [e["_id"] for e in events]
    assert [e["cursor"] for e in found] == [1, 2, 3] and found[2]["metadata"] == {"trace": "t"}
    assert found[1]["payload"]["amount"] == events[1]["payload"]["amount"] and found[0]["applied_at"]
    assert not {"seq", "attempts", "status", "last_error", "claimed_by"} & found[0].keys()
    raw = json.loads(kept.projector("events").stdout.splitlines()[0])
    assert raw["cursor"] == 1 and raw["occurred_at"]["$date"].endswith("Z")
    assert [e["cursor"] for e in lines(kept, "--after", "2")] == [3] and lines(kept, "--after", "3") == []


@pytest.mark.thorough
def test_what_is_asked_for(kept):
    events = [opened(kept, "a1", version=Int64(1)), deposited(kept, "a1", version=Int64(2)), opened(kept, "a2", version=Int64(1))]
    archive_all(kept, *events)
    at = [e["occurred_at"].isoformat(timespec="milliseconds") + "Z" for e in events]

    def asked(*arguments: str) -> list[int]:
        return [e["cursor"] for e in lines(kept, *arguments)]

    assert asked("--aggregate-type", "account") == [1, 2, 3] and asked("--aggregate-type", "order") == []
    assert asked("--aggregate", "account", "a1") == [1, 2] == asked("--aggregate-type", "account", "--aggregate-id", "a1")
    assert asked("--id-kind", "string", "--aggregate", "account", "a1") == [1, 2] and asked("--id-kind", "int", "--aggregate", "account", "5") == []
    assert asked("--aggregate", "account", "a1", "2") == [2] == asked("--aggregate", "account", "a1", "--version", "2")
    assert asked("--event-type", "AccountOpened") == [1, 3] and asked("--event-type", "AccountOpened", "--after", "1") == [3]
    assert asked("--from", at[1]) == [2, 3] and asked("--to", at[1]) == [1] and asked("--from", at[1], "--to", at[2]) == [2]
    assert asked("--limit", "2") == [1, 2]


def test_what_is_asked_for_comes_whole(kept):
    """In two pages of events that were numbered by three statements."""
    kept.db["outbox_archive"].insert_many({**deposited(kept, f"a{n}"), "applied_at": datetime(2024, 1, 1)} for n in range(250))
    with kept.start_projector():
        numbered(kept, 250)
    assert [e["cursor"] for e in lines(kept)] == list(range(1, 251))


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("arguments, complaint", [
    (["--after", "-1"], "after: expected a number"), (["--after", "x"], "after: expected a number"),
    (["--from", "noon"], "from: expected a time"), (["--aggregate-id", "a1"], "aggregate_id: expected aggregate_type"),
    (["--version", "1"], "version: expected"), (["--follow", "--waiting"], "cannot be followed"), (["x"], "--aggregate TYPE ID"),
    (["--id-kind", "int"], "expected aggregate_id"), (["--id-kind", "x", "--aggregate", "account", "a1"], "expected string, int"),
    (["--aggregate", "account"], "--aggregate TYPE ID")])
def test_what_has_no_meaning_is_refused(kept, arguments, complaint):
    assert complaint in said(kept.projector("events", *arguments), 2)


def test_without_an_archive_it_is_refused(bank):
    assert 'mongodb.retain is "delete"' in said(bank.projector("events"), 2)


def test_whoever_archives_events_get_a_number(kept):
    """Whether the sweeper, a skip or a worker archives them, and events archived before numbers existed."""
    old = [{**opened(kept, f"old{n}"), "applied_at": datetime(2024, 1, 1)} for n in range(3)]
    kept.db["outbox_archive"].insert_many(old)
    swept = {**opened(kept, "s1"), "status": "in_progress", "claimed_by": "gone", "claimed_at": datetime(2020, 1, 1), "attempts": 1}
    kept.query("INSERT INTO projector_applied (projector, event_id_kind, event_id, applied_at, outcome) "
               "VALUES (%s, 'uuid', %s, NOW(6), 'applied')", kept.name, str(swept["_id"]))
    dead = {**deposited(kept, "d1"), "status": "dead", "attempts": 10}
    kept.put(swept, dead)
    assert kept.projector("skip", str(dead["_id"])).returncode == 0
    with kept.start_projector():
        numbered(kept, 5)
    found = lines(kept)
    assert sorted(e["cursor"] for e in found) == [1, 2, 3, 4, 5]
    assert {e["_id"] for e in found} == {e["_id"] for e in [*old, swept, dead]}
    assert next(e for e in found if e["_id"] == dead["_id"])["skipped_at"]


def test_an_archive_without_numbers_gets_them_in_the_order_of_its_events(kept):
    old = [{**opened(kept, f"old{n}"), "applied_at": datetime(2024, 1, 1)} for n in range(5)]
    kept.db["outbox_archive"].insert_many(old[::-1])
    with kept.start_projector():
        numbered(kept, 5)
    assert [(e["cursor"], e["_id"]) for e in lines(kept)] == [(n + 1, e["_id"]) for n, e in enumerate(old)]


def test_a_writers_own_field_is_no_number(kept):
    archive_all(kept, opened(kept, "a1", seq=7), opened(kept, "a2", seq="x"))
    assert sorted((e["cursor"], e["aggregate_id"]) for e in lines(kept)) == [(1, "a1"), (2, "a2")]


@pytest.mark.thorough
def test_numbers_go_on_when_their_counter_is_lost(kept):
    """It lies in projector_leases, which may be dropped."""
    archive_all(kept, opened(kept, "a1"), deposited(kept, "a1"))
    assert kept.db["projector_leases"].delete_one({"_id": "events:outbox"}).deleted_count == 1
    archive_all(kept, opened(kept, "a2"))
    archive_all(kept, opened(kept, "a3"))
    assert [e["cursor"] for e in lines(kept)] == [1, 2, 3, 4]


def numbers(ws: Workspace) -> dict[str, int]:
    return {e["_id"]: e["seq"] for e in ws.db["outbox_archive"].find({"seq": {"$exists": True}})}


@pytest.mark.thorough
def test_an_event_that_mongodb_refuses_to_number_stops_no_other(kept):
    """The others' numbers leave nothing out; it gets the next one as soon as it is accepted."""
    events = [{**opened(kept, f"a{n}"), "_id": f"e{n:02}", "applied_at": datetime(2024, 1, 1)} for n in range(20)]
    kept.db["outbox_archive"].insert_many(events)
    kept.db.command("collMod", "outbox_archive", validator={"$or": [{"seq": {"$exists": False}}, {"_id": {"$nin": ["e00", "e07", "e19"]}}]})
    with kept.start_projector() as projector:
        numbered(kept, 17)
        expected = {e["_id"]: n + 1 for n, e in enumerate(e for e in events if e["_id"] not in ("e00", "e07", "e19"))}
        assert numbers(kept) == expected
        kept.put(later := {**opened(kept, "b"), "_id": "later"})
        kept.wait(lambda: numbers(kept).get("later") == 18, what="the number of a later event")
        projector.wait_log("archived event gets no number for now event=e07 class=data code=121")
        kept.db.command("collMod", "outbox_archive", validator={})
        numbered(kept, 21)
        assert len(re.findall("gets no number for now", projector.log_text())) == 3
    assert numbers(kept) == {**expected, "later": 18, "e00": 19, "e07": 20, "e19": 21}
    assert kept.db["projector_leases"].find_one({"_id": "events:outbox"})["seq"] == 21


def set_back(ws: Workspace, number: int) -> None:
    """What a restore of MongoDB does to the numbers: those above this one have never been."""
    ws.db["outbox_archive"].delete_many({"seq": {"$gt": number}})
    assert ws.db["projector_leases"].update_one({"_id": "events:outbox"}, {"$set": {"seq": Int64(number)}}).matched_count == 1


@pytest.mark.thorough
def test_a_cursor_that_is_ahead_of_the_archive_is_refused(kept):
    """Events that get the numbers below it again would be missed."""
    archive_all(kept, *(opened(kept, f"a{n}") for n in range(3)))
    set_back(kept, 2)
    for after, more in ("3", []), (str(2**63 - 1), ["--follow"]), ("3", ["--event-type", "AccountOpened", "--waiting"]):
        told = said(kept.projector("events", "--after", after, *more), 1)
        assert f"the cursor {after} is ahead of the archive, which ends at 2: MongoDB was restored?" in told
    assert lines(kept, "--after", "2") == []


@pytest.mark.thorough
def test_a_follower_notices_that_the_numbers_went_back(kept):
    archive_all(kept, *(opened(kept, f"a{n}") for n in range(3)))
    follower = subprocess.Popen(kept._projector("events", "--follow"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert [json.loads(follower.stdout.readline())["cursor"] for _ in range(3)] == [1, 2, 3]
        set_back(kept, 1)
        assert follower.wait(timeout=120) == 1 and "the cursor 3 is ahead of the archive, which ends at 1" in follower.stderr.read()
    finally:
        follower.kill()
        follower.communicate()


@pytest.mark.thorough
def test_an_archive_whose_counter_is_lost_can_be_read(kept):
    archive_all(kept, opened(kept, "a1"), deposited(kept, "a1"))
    assert kept.db["projector_leases"].delete_one({"_id": "events:outbox"}).deleted_count == 1
    assert [e["cursor"] for e in lines(kept)] == [1, 2] and [e["cursor"] for e in lines(kept, "--after", "1")] == [2]
    assert lines(kept, "--after", "2") == []


def with_other_bytes(event: dict, good: str, bad: bytes) -> RawBSONDocument:
    """The event with bytes that are not UTF-8 in a text, as drivers that do not check may write it."""
    raw = encode({**event, "applied_at": datetime(2024, 1, 1)})
    assert raw.count(good.encode()) == 1 and len(good) == len(bad)
    return RawBSONDocument(raw.replace(good.encode(), bad))


def test_a_text_that_is_not_utf_8_is_repaired(kept):
    """MongoDB keeps it, JSON does not."""
    events = [opened(kept, f"a{n}", metadata={"trace": "t-zz", "note": "ä"}) for n in range(3)]
    kept.db["outbox_archive"].insert_many([events[0], with_other_bytes(events[1], "t-zz", b"t-\xff\xfe"), events[2]])
    kept.outbox.insert_one(with_other_bytes({**opened(kept, "b"), "metadata": {"k-zz": 1}, "status": "dead", "attempts": 10}, "k-zz", b"k-\xff\xfe"))
    with kept.start_projector():
        numbered(kept, 3)
    found = lines(kept, "--waiting")
    assert [e["_id"] for e in found[:3]] == [e["_id"] for e in events] and [e.get("cursor") for e in found] == [1, 2, 3, None]
    assert [e["metadata"]["trace"] for e in found[:3]] == ["t-zz", "t-\ufffd\ufffd", "t-zz"]
    assert found[1] == {**found[1], "payload": found[0]["payload"], "event_type": "AccountOpened", "aggregate_id": "a1"}
    assert found[3]["metadata"] == {"k-\ufffd\ufffd": 1} and not any("unreadable" in e for e in found)


def test_what_waits_has_no_cursor(kept):
    archive_all(kept, opened(kept, "a1"))
    dead = {**deposited(kept, "d1"), "status": "dead", "attempts": 10}
    kept.put(dead)
    first, second = lines(kept, "--waiting")
    assert first["cursor"] == 1 and "cursor" not in second and second["_id"] == dead["_id"] and second["status"] == "dead"
    assert len(lines(kept)) == 1


def test_without_an_owner_it_says_that_numbers_are_missing(kept):
    kept.db["outbox_archive"].insert_one({**opened(kept, "a1"), "applied_at": datetime(2024, 1, 1)})
    done = kept.projector("events")
    assert done.returncode == 0 and done.stdout == "" and "`projector run` assigns it" in done.stderr


def test_asking_changes_nothing(kept):
    archive_all(kept, opened(kept, "a1"), deposited(kept, "a1"))
    before = list(kept.db["outbox_archive"].find()), list(kept.db["projector_leases"].find()), kept.ledger()
    lines(kept), lines(kept, "--waiting")
    assert (list(kept.db["outbox_archive"].find()), list(kept.db["projector_leases"].find()), kept.ledger()) == before


def test_an_older_owner_gives_no_numbers(kept):
    with kept.start_projector() as projector:
        projector.wait_log("info working")  # a new owner begins above the numbers' epoch
        kept.db["projector_leases"].update_one({"_id": "events:outbox"}, {"$set": {"epoch": Int64(1000), "seq": Int64(7)}}, upsert=True)
        kept.put(opened(kept, "a1"))
        projector.wait_log("a later owner numbers the archived events")
    assert kept.db["outbox_archive"].find_one({"seq": {"$exists": True}}) is None


@pytest.mark.thorough
def test_followed_while_events_come_late_and_projectors_change(kept):
    """No follower misses or doubles an event, whatever is written, killed and started meanwhile."""
    written, found = [], []
    follower = subprocess.Popen(kept._projector("events", "--follow"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    reading = threading.Thread(target=lambda: found.extend(json_util.loads(line) for line in follower.stdout))
    reading.start()
    try:
        for round_ in range(4):
            with kept.start_projector() as projector:
                for n in range(10):
                    events = [opened(kept, f"r{round_}n{n}x{i}") for i in range(20)]
                    events[0]["occurred_at"] -= timedelta(hours=1)  # written late
                    with kept.mongo.start_session() as session, session.start_transaction(write_concern=MAJORITY):
                        kept.outbox.with_options(write_concern=None).insert_many(events, session=session)
                    written += events
                kept.wait(lambda: len(found) > round_ * 150)
                projector.kill()
        with kept.start_projector():
            kept.wait(lambda: len(found) >= len(written), what="all events at the follower")
    finally:
        follower.terminate()
        reading.join()
    assert [e["cursor"] for e in found] == list(range(1, len(written) + 1))
    assert {e["_id"] for e in found} == {e["_id"] for e in written}


# addressed by version


@pytest.mark.thorough
def test_an_event_is_named_by_type_aggregate_and_version(kept):
    events = [opened(kept, "a1", version=Int64(1)), deposited(kept, "a1", version=Int64(2))]
    archive_all(kept, *events)
    kept.put({**deposited(kept, "a1", version=Int64(3)), "status": "dead", "attempts": 10})
    document = json.loads(kept.projector("explain", "account", "a1", "2", "--json").stdout)
    assert [e["version"] for e in document["archive"]] == [2] and document["outbox"] == []
    assert kept.projector("explain", "account", "a1", "--version", "3").returncode == 0
    assert kept.projector("explain", "account", "a1", "4").returncode == 1
    for arguments in ["account", "a1", "3"], ["account", "a1", "--version", "3"]:
        done = kept.projector("list", "--json", "--aggregate", *arguments)
        assert [json.loads(line)["version"] for line in done.stdout.splitlines()] == [3]
    assert kept.projector("list", "--aggregate", "account", "a1", "2").returncode == 1
    assert "VERSION: expected a number" in said(kept.projector("explain", "account", "a1", "0"), 2)


# over HTTP


@contextmanager
def serving(ws: Workspace, **mongodb) -> Iterator[Endpoint]:
    file = ws.folder / "token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    ws.mapping(mongodb={**ARCHIVE, **mongodb}, http="127.0.0.1:0", admin_token_file=str(file))
    with ws.start_projector() as projector:
        yield Endpoint(projector)


def get(endpoint: Endpoint, token: str | None = TOKEN, **query) -> tuple[int, str]:
    answer = endpoint.get(f"/events?{urllib.parse.urlencode(query)}", **({"Authorization": f"Bearer {token}"} if token else {}))
    return answer.status, answer.text


def asked(endpoint: Endpoint, **query) -> list[dict]:
    status, text = get(endpoint, **query)
    assert status == 200, text
    return [json_util.loads(line) for line in text.splitlines()]


def test_over_http_it_is_the_same(kept):
    events = [opened(kept, "a 1", version=Int64(1)), deposited(kept, "a 1", version=Int64(2)), opened(kept, "ä&2")]
    archive_all(kept, *events)
    expected = kept.projector("events").stdout
    with serving(kept) as endpoint:
        assert get(endpoint) == (200, expected)
        assert [e["cursor"] for e in asked(endpoint, after=1)] == [2, 3]
        assert [e["cursor"] for e in asked(endpoint, aggregate_type="account", aggregate_id="ä&2")] == [3]
        assert [e["cursor"] for e in asked(endpoint, aggregate_type="account", aggregate_id="a 1", version=2)] == [2]
        assert [e["cursor"] for e in asked(endpoint, event_type="MoneyDeposited")] == [2]
        assert [e["cursor"] for e in asked(endpoint, **{"from": events[2]["occurred_at"].isoformat() + "Z"})] == [3]
        for query in {"after": "x"}, {"version": 1}, {"colour": "red"}, {"from": "noon"}, {"follow": 1, "waiting": 1}:
            assert get(endpoint, **query)[0] == 400, query
        assert get(endpoint, token=None)[0] == 401 and get(endpoint, token="another token of a kind")[0] == 401
        assert endpoint.request("POST", "/events", {}).status == 405


def test_without_a_token_in_the_file_nobody_reads_events(kept):
    kept.mapping(mongodb=ARCHIVE, http="127.0.0.1:0")
    with kept.start_projector() as projector:
        endpoint = Endpoint(projector)
        for token in None, TOKEN:
            status, text = get(endpoint, token=token)
            assert status == 403 and "admin_token_file" in text


def test_no_part_of_the_token_opens_the_events(kept):
    with serving(kept) as endpoint:
        for token in *(TOKEN[:n] for n in range(1, len(TOKEN))), TOKEN + TOKEN, TOKEN + " ", TOKEN.upper():
            assert get(endpoint, token=token)[0] == 401, token
        assert get(endpoint)[0] == 200


def test_numbers_are_given_to_what_a_majority_has(kept):
    """A copy that a failover may still take back gets none."""
    kept.mongo.admin.command("profile", 0)
    kept.db.command("profile", 2)
    try:
        archive_all(kept, opened(kept, "a1"))
    finally:
        kept.db.command("profile", 0)
    asked = list(kept.db["system.profile"].find({"ns": f"{kept.name}.outbox_archive", "op": "query", "command.filter.seq": None,
                                                 "command.filter": {"$exists": True}}))
    assert asked and {a["command"].get("readConcern", {}).get("level") for a in asked} == {"majority"}
    written = list(kept.db["system.profile"].find({"ns": f"{kept.name}.outbox_archive", "op": "update", "command.q.seq": None}))
    assert written


def test_hostile_questions_over_http(kept):
    archive_all(kept, opened(kept, "a1", version=Int64(1)), opened(kept, "5", version=Int64(1)), opened(kept, Int64(5), version=Int64(1)))
    with serving(kept) as endpoint:
        def status(query: str, token: str = f"Bearer {TOKEN}") -> int:
            return endpoint.get(f"/events?{query}", Authorization=token).status
        for query in ("after=", "after", "after=-1", "after=1.5", "after=0x1", "after=+1", "after=1%20", "after=1%00", "after=1&after=2",
                      "after=9223372036854775808", "after=abc", "limit=-1", "follow=maybe", "version=0", "aggregate_id=a1",
                      "aggregate_type=account&aggregate_id=a1&version=x", "from=2026-02-30", "to=", "event_type=", "event_type=%ff",
                      "event_type=a&event_type=b", "aggregate_id_kind=int", "aggregate_type=account&aggregate_id=5&aggregate_id_kind=x", "%61fter=1", "AFTER=1", "after=1;limit=1"):
            assert status(query) == 400, query
        for query in "after=3", "from=2026-02-01&to=2026-01-01", "event_type=Nothing", "limit=1&follow=1", "":
            assert status(query) == 200, query
        for query in "after=9223372036854775807", "after=4&follow=1":
            assert status(query) == 409, query
        assert len(asked(endpoint, aggregate_type="account", aggregate_id="5")) == 2
        assert [e["cursor"] for e in asked(endpoint, aggregate_type="account", aggregate_id="5", aggregate_id_kind="int")] == [3]
        for wrong in ("", "Bearer", "Bearer ", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN,
                      f"Bearer {TOKEN},{TOKEN}", f"Bearer{TOKEN}"):
            assert status("", wrong) == 401, wrong
        assert status("", f"bearer {TOKEN}") == 200  # the scheme is case-insensitive
        for method in "HEAD", "POST", "DELETE":
            refused = endpoint.request(method, "/events", Authorization=f"Bearer {TOKEN}")
            assert refused.status == 405 and refused.headers["Allow"] == "GET"


def follower_of_nothing(endpoint):
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=60)
    connection.request("GET", "/events?follow=1&event_type=Never", headers={"Authorization": f"Bearer {TOKEN}"})
    answer = connection.getresponse()
    return (connection, answer) if answer.status == 200 else connection.close()


def test_followers_of_nothing_leave_when_they_hang_up(kept):
    """Nothing is ever sent to them that would reveal that they have gone."""
    with serving(kept) as endpoint:
        for _ in range(3):
            readers = []
            for _ in range(4):  # those of the round before may still be leaving
                readers.append(kept.wait(lambda: follower_of_nothing(endpoint), what="a place"))
            assert get(endpoint)[0] == 429
            kept.wait(lambda: endpoint.metrics()["projector_event_readers"] == 4, what="those that read")
            for connection, answer in readers:
                answer.close(), connection.close()
            kept.wait(lambda: get(endpoint)[0] == 200, what="a free place")
        kept.wait(lambda: endpoint.metrics()["projector_event_readers"] == 0, what="all to have left")


def test_without_an_archive_http_refuses_too(bank):
    with serving(bank, retain="delete") as endpoint:
        status, text = get(endpoint)
        assert status == 409 and "mongodb.retain" in text


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_a_large_archive_is_streamed_to_a_slow_reader(kept):
    payload = {"text": "x" * 10000}
    kept.db["outbox_archive"].insert_many(
        {**kept.event(f"a{n}", "Noted"), "payload": payload, "applied_at": datetime(2024, 1, 1)} for n in range(3000))
    with serving(kept) as endpoint:
        numbered(kept, 3000)
        process = next(p for p in kept.started if p.running)
        peak_kb = lambda: int(next(l for l in open(f"/proc/{process.pid}/status") if l.startswith("VmHWM")).split()[1])
        before = peak_kb()
        connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=60)
        connection.request("GET", "/events", headers={"Authorization": f"Bearer {TOKEN}"})
        answer = connection.getresponse()
        cursors = [json.loads(line)["cursor"] for line in answer]
        connection.close()
        assert cursors == list(range(1, 3001)) and peak_kb() - before < 20_000


def follow(endpoint: Endpoint) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=60)
    connection.request("GET", "/events?follow=1", headers={"Authorization": f"Bearer {TOKEN}"})
    return connection, connection.getresponse()


@pytest.mark.thorough
def test_a_few_follow_at_once_and_no_more(kept):
    with serving(kept) as endpoint:
        readers = [follow(endpoint) for _ in range(4)]
        assert [answer.status for _, answer in readers] == [200] * 4 and endpoint.metrics()["projector_event_readers"] == 4
        assert get(endpoint)[0] == 429
        kept.put(opened(kept, "a1"))
        assert [json.loads(answer.readline())["cursor"] for _, answer in readers] == [1] * 4
        readers[0][1].close()
        readers[0][0].close()
        kept.wait(lambda: get(endpoint)[0] == 200, what="a free place")
        assert kept.started[-1].stop() == 0
    for _, answer in readers[1:]:
        with pytest.raises(http.client.IncompleteRead):
            answer.read()


@pytest.mark.thorough
@pytest.mark.whole_server  # failCommand
def test_while_events_wait_to_be_applied_readers_rest_longer(kept):
    """Four times as long as a page took, so that projecting comes first."""
    pages, page_s = 5, 0.2
    kept.db["outbox_archive"].insert_many({**kept.event(f"a{n}", "Noted"), "applied_at": datetime(2024, 1, 1)} for n in range(pages * 200))
    slow = {"failCommands": ["find"], "blockConnection": True, "blockTimeMS": int(page_s * 1000), "appName": "projector",
            "namespace": f"{kept.name}.outbox_archive"}

    def taken() -> float:
        begun = time.monotonic()
        assert len(asked(endpoint)) == pages * 200
        return time.monotonic() - begun

    with serving(kept) as endpoint:
        numbered(kept, pages * 200)
        assert kept.projector("pause").returncode == 0
        kept.wait(lambda: endpoint.metrics()["projector_paused"] == 1, what="the pause")
        kept.put(opened(kept, "a1"))
        kept.wait(lambda: endpoint.metrics()["projector_queue_events"] == 1, what="an event that waits")
        kept.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": slow})
        try:
            busy = taken()
            assert busy > pages * page_s + (pages - 1) * 4 * page_s
            kept.outbox.delete_many({})
            assert kept.projector("resume").returncode == 0
            kept.wait(lambda: endpoint.metrics()["projector_queue_events"] == 0, what="nothing that waits")
            kept.wait(lambda: taken() < busy - (pages - 1) * 2 * page_s, what="a read that rests less")
        finally:
            kept.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


@pytest.mark.thorough
@pytest.mark.whole_server  # failCommand
def test_an_answer_that_breaks_off_does_not_look_complete(kept):
    archive_all(kept, opened(kept, "a1"))
    data = {"failCommands": ["find"], "errorCode": 8, "appName": "projector", "namespace": f"{kept.name}.outbox_archive"}
    with serving(kept) as endpoint:
        assert len(asked(endpoint)) == 1
        kept.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})
        try:
            with pytest.raises(http.client.HTTPException):
                get(endpoint)
        finally:
            kept.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
        assert len(asked(endpoint)) == 1


@contextmanager
def consumer_of_the_docs(ws: Workspace, url: str, patience_s: int = 60) -> Iterator[subprocess.Popen]:
    [program] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/events-on-demand.md").read_text(), re.S)
    assert "timeout=60" in program
    consumer = subprocess.Popen([sys.executable, "-c", program.replace("timeout=60", f"timeout={patience_s}")], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True,
                                env={**os.environ, "PROJECTOR_URL": url, "PROJECTOR_TOKEN": TOKEN, "STORE": str(ws.folder / "store.sqlite")})
    try:
        yield consumer
    finally:
        consumer.kill()
        consumer.communicate()


def stored(ws: Workspace) -> list[tuple]:
    """What the consumer has, with its texts."""
    store = ws.folder / "store.sqlite"
    if not store.exists():
        return []
    with sqlite3.connect(store) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'event'").fetchone():
            return []  # the consumer has not got that far
        return connection.execute("SELECT id, type, account, payload FROM event").fetchall()


@pytest.mark.thorough
def test_the_consumer_of_the_docs_fills_its_store_without_a_double(kept):
    """It and the projector are killed and restarted while events are written late."""
    written: list[dict] = []
    for round_ in range(3):
        with serving(kept) as endpoint, consumer_of_the_docs(kept, endpoint.url):
            for n in range(5):
                events = [opened(kept, f"r{round_}n{n}x{i}") for i in range(20)]
                events[0]["occurred_at"] -= timedelta(hours=1)
                kept.put(events)
                written += events
            kept.wait(lambda: len(stored(kept)) >= len(written) - 60 * (round_ < 2), what="events in the consumer's store")
    assert len(stored(kept)) == len({row[0] for row in stored(kept)}) == len(written)


@pytest.mark.thorough
def test_the_consumer_of_the_docs_outlives_a_peer_that_vanished(kept):
    """It answers nothing more, and closes nothing."""
    with serving(kept) as endpoint, consumer_of_the_docs(kept, endpoint.url, patience_s=2) as consumer:
        kept.put(opened(kept, "a1"))
        kept.wait(lambda: len(stored(kept)) == 1, what="an event in the consumer's store")
        [process] = [p for p in kept.started if p.running]
        process.pause()
        try:
            kept.put(opened(kept, "a2"))
            assert "timed out" in consumer.stdout.readline()
        finally:
            process.resume()
        kept.wait(lambda: len(stored(kept)) == 2, what="the next event in its store")


def test_the_consumer_of_the_docs_takes_events_that_are_no_json_or_lack_fields(kept):
    bad = with_other_bytes(opened(kept, "a1", metadata={"trace": "t-zz"}), "t-zz", b"t-\xff\xfe")
    kept.db["outbox_archive"].insert_many([bad, {"_id": "bare", "skipped_at": datetime(2024, 1, 1)}, {**opened(kept, "a3"), "applied_at": datetime(2024, 1, 1)}])
    with serving(kept) as endpoint, consumer_of_the_docs(kept, endpoint.url):
        kept.wait(lambda: len(stored(kept)) == 3, what="all events in the consumer's store")


@pytest.mark.thorough
def test_the_consumer_of_the_docs_ends_when_its_cursor_is_refused(kept):
    with serving(kept) as endpoint, consumer_of_the_docs(kept, endpoint.url) as consumer:
        kept.put(*(opened(kept, f"a{n}") for n in range(3)))
        kept.wait(lambda: len(stored(kept)) == 3, what="all events in the consumer's store")
        set_back(kept, 1)
        assert "the cursor 3 is ahead of the archive, which ends at 1" in consumer.communicate(timeout=120)[1]
        assert consumer.returncode == 1
