"""`list` by state and type, and a `run --once` whose reading of the outbox fails."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from datetime import datetime
from typing import Iterator

import pytest

SLOW = {"backoff_ms": 300000}  # failed events stay failed during the test


def listed(ws, *arguments: str) -> list[dict]:
    done = ws.projector("list", "--json", *arguments)
    assert done.returncode == (0 if done.stdout else 1), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def blocked(bank) -> dict[str, list[dict]]:
    """Two aggregates, each with an event that fails because it has no row, and with later events behind it."""
    bank.mapping(**SLOW)
    events = {account: [bank.event(account, "AccountRenamed", 1, name="Ada"), bank.event(account, "AccountClosed", 2),
                        bank.event(account, "AccountRenamed", 3, name="Eve")] for account in ("a1", "a2")}
    bank.put(*events.values())
    bank.run_once()
    return events


def ids(events: list[dict]) -> list[str]:
    return [str(event.get("event_id", event.get("_id"))) for event in events]


def test_list_held_names_what_waits_and_behind_which_event(bank, blocked):
    found = listed(bank, "--state", "held")
    assert ids(found) == ids(blocked["a1"][1:] + blocked["a2"][1:])
    for event in found:
        assert event["state"] == "held"
        assert event["reason"]["message"] == f"waits behind {blocked[event['aggregate_id']][0]['_id']}"
    text = bank.projector("list", "--state", "held").stdout
    assert text.count(f"waits behind {blocked['a1'][0]['_id']}") == 2
    bank.outbox.update_one({"_id": blocked["a1"][1]["_id"]}, {"$set": {"status": "dead"}})  # before an earlier one came, and failed
    assert ids(listed(bank, "--state", "held")) == ids(blocked["a1"][2:] + blocked["a2"][1:])  # each once


def test_list_held_keeps_to_the_aggregate_the_type_and_the_limit(bank, blocked):
    assert ids(listed(bank, "--state", "held", "--aggregate", "account", "a2")) == ids(blocked["a2"][1:])
    assert ids(listed(bank, "--state", "held", "--aggregate", "account", "a2", "3")) == ids(blocked["a2"][2:])
    assert ids(listed(bank, "--state", "held", "--type", "AccountClosed")) == ids([blocked["a1"][1], blocked["a2"][1]])
    assert ids(listed(bank, "--state", "held", "--limit", "3")) == ids(blocked["a1"][1:] + blocked["a2"][1:2])
    assert listed(bank, "--state", "held", "--type", "StatementSent") == []
    bank.put({**bank.event("a0", "AccountClosed", 1, at=datetime(2020, 1, 1)), "status": "dead", "attempts": 1})  # nothing waits behind it
    assert ids(listed(bank, "--state", "held", "--limit", "1")) == ids(blocked["a1"][1:2])


def test_a_type_that_the_table_is_not_of_is_misuse(bank):
    done = bank.projector("list", "--aggregate", "order", "7", "--projection", "account")
    assert done.returncode == 2 and "another aggregate type" in done.stderr


def test_list_held_is_empty_once_nothing_blocks(bank, blocked):
    for events in blocked.values():
        assert bank.projector("skip", str(events[0]["_id"])).returncode == 0
    assert listed(bank, "--state", "held") == []
    assert ids(listed(bank, "--state", "pending")) == ids(blocked["a1"][1:] + blocked["a2"][1:])


def test_a_summary_keeps_a_tab_in_a_type_apart_from_the_reason(bank):
    bank.mapping(**SLOW)
    event = {**bank.event("a1", "Account\tOpened", 1), "status": "dead", "attempts": 1,
             "last_error": {"class": "data", "code": 0, "message": "no\tsuch type"}}
    bank.put(event)
    [kind] = listed(bank, "--summary")
    assert (kind["event_type"], kind["message"], kind["class"], kind["count"]) == ("Account\tOpened", "no\tsuch type", "data", 1)


@contextmanager
def failing(ws, command: str, mode: object, code: int) -> Iterator[None]:
    data = {"failCommands": [command], "errorCode": code, "appName": "projector"}
    ws.mongo.admin.command({"configureFailPoint": "failCommand", "mode": mode, "data": data})
    try:
        yield
    finally:
        ws.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


@pytest.mark.whole_server
def test_once_reads_again_after_a_scan_that_failed_and_ends_when_all_is_applied(bank):
    events = [bank.event(f"a{n}", "AccountOpened", user_id="u1", name="Ada", balance=1) for n in range(1200)]
    bank.put(events)
    with failing(bank, "getMore", {"times": 1}, 8):  # the scan alone reads more than one batch
        done = bank.run_once()
    assert "reading the outbox again" in done.stderr
    assert bank.outbox.find_one() is None and len(bank.ledger()) == len(events)


@pytest.mark.whole_server
def test_once_ends_with_the_reason_when_it_may_not_read_the_outbox(bank):
    event = bank.event("a1", "AccountOpened", user_id="u1", name="Ada", balance=1)
    bank.put(event)
    with failing(bank, "find", "alwaysOn", 13):
        done = bank.projector("run", "--once")
    assert done.returncode == 2, done.stderr
    assert re.match(r"projector: mongodb: .*\b13\b", done.stderr.splitlines()[-1]), done.stderr
    assert bank.found(event) == event and bank.ledger() == {}
