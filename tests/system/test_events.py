"""Events on demand: archived events once more, in the order of numbers that the owner gives, without anything being triggered."""

from __future__ import annotations

import json
import subprocess
import threading
from datetime import datetime, timedelta

import pytest
from bson import Int64, json_util

from workspace import MAJORITY, Workspace, decimal, said

ARCHIVE = {"retain": "archive"}


@pytest.fixture
def kept(ws: Workspace) -> Workspace:
    ws.mapping(mongodb=ARCHIVE)
    ws.create()
    assert ws.outbox_program("init", "--archive").returncode == 0
    return ws


def opened(ws: Workspace, account: str, **more) -> dict:
    return {**ws.event(account, "AccountOpened", user_id="u1", name="Ada", balance=decimal("10.00")), **more}


def deposited(ws: Workspace, account: str, **more) -> dict:
    return {**ws.event(account, "MoneyDeposited", amount=decimal("1.00")), **more}


def lines(ws: Workspace, *arguments: str) -> list[dict]:
    done = ws.projector("events", *arguments)
    assert done.returncode == 0, done.stderr
    return [json_util.loads(line) for line in done.stdout.splitlines()]


def numbered(ws: Workspace, count: int) -> None:
    ws.wait(lambda: ws.db["outbox_archive"].count_documents({"seq": {"$exists": True}}) >= count, what=f"{count} numbers")


def archive_all(ws: Workspace, *events: dict) -> None:
    """Written, applied, archived and numbered."""
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


def test_what_is_asked_for(kept):
    events = [opened(kept, "a1", version=Int64(1)), deposited(kept, "a1", version=Int64(2)), opened(kept, "a2", version=Int64(1))]
    archive_all(kept, *events)
    at = [e["occurred_at"].isoformat(timespec="milliseconds") + "Z" for e in events]

    def asked(*arguments: str) -> list[int]:
        return [e["cursor"] for e in lines(kept, *arguments)]

    assert asked("--aggregate-type", "account") == [1, 2, 3] and asked("--aggregate-type", "order") == []
    assert asked("--aggregate", "account", "a1") == [1, 2] == asked("--aggregate-type", "account", "--aggregate-id", "a1")
    assert asked("--aggregate", "account", "a1", "2") == [2] == asked("--aggregate", "account", "a1", "--version", "2")
    assert asked("--event-type", "AccountOpened") == [1, 3] and asked("--event-type", "AccountOpened", "--after", "1") == [3]
    assert asked("--from", at[1]) == [2, 3] and asked("--to", at[1]) == [1] and asked("--from", at[1], "--to", at[2]) == [2]
    assert asked("--limit", "2") == [1, 2]


@pytest.mark.parametrize("arguments, complaint", [
    (["--after", "-1"], "after: expected a number"), (["--after", "x"], "after: expected a number"),
    (["--from", "noon"], "from: expected a time"), (["--aggregate-id", "a1"], "aggregate_id: expected aggregate_type"),
    (["--version", "1"], "version: expected"), (["--follow", "--waiting"], "cannot be followed"), (["x"], "--aggregate TYPE ID"),
    (["--aggregate", "account"], "--aggregate TYPE ID")])
def test_what_has_no_meaning_is_refused(kept, arguments, complaint):
    assert complaint in said(kept.projector("events", *arguments), 2)


def test_without_an_archive_it_is_refused(bank):
    assert 'mongodb.retain is "delete"' in said(bank.projector("events"), 2)


def test_whoever_archives_events_get_a_number(kept):
    """The sweeper and a skip as well as the worker; and what was archived before there were numbers."""
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
    assert done.returncode == 0 and done.stdout == "" and "`projector run` gives it" in done.stderr


def test_asking_changes_nothing(kept):
    archive_all(kept, opened(kept, "a1"), deposited(kept, "a1"))
    before = list(kept.db["outbox_archive"].find()), list(kept.db["projector_leases"].find()), kept.ledger()
    lines(kept), lines(kept, "--waiting")
    assert (list(kept.db["outbox_archive"].find()), list(kept.db["projector_leases"].find()), kept.ledger()) == before


def test_an_older_owner_gives_no_numbers(kept):
    kept.db["projector_leases"].insert_one({"_id": "events:outbox", "epoch": Int64(1000), "seq": Int64(7)})
    kept.put(opened(kept, "a1"))
    with kept.start_projector() as projector:
        projector.wait_log("a later owner gives the archived events their numbers")
    assert kept.db["outbox_archive"].find_one({"seq": {"$exists": True}}) is None


def test_followed_while_events_come_late_and_projectors_change(kept):
    """No event is missed or doubled by who is further on, whatever is written, killed and started meanwhile."""
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
