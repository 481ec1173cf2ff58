"""No command hands a terminal what an event contains: characters that move the cursor, begin a line or
turn the direction of what follows are escaped, in text, in JSON and in messages on stderr."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Iterator

import pytest
from bson import json_util

from entities import MOMENT
from replays import ARCHIVE, SHORT_LEASE, bank, entity, opened
from workspace import Workspace

__all__ = ["bank"]

HIDDEN = "\x1b[2J\x9b\x7f\u202e\u2066\u200f\u2028"
ESCAPED = r"\x1b[2J\x9b\x7f\u202e\u2066\u200f\u2028"
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
GOOD, BAD, LOST, LONG, STALE = (f"{letter}{HIDDEN}" for letter in "abcde")
BAD_EVENT = f"bad{HIDDEN}"

# Each prints something of an event, an id or a value, on stdout or stderr. Nothing here changes a store.
LOOKS = [
    ["status"], ["list"], ["list", "--json"], ["list", "--payload"], ["list", "--json", "--payload"], ["list", "--summary"],
    ["list", "--state", "all"], ["list", "--aggregate", "account", BAD],
    ["explain", "account", GOOD], ["explain", "account", BAD], ["explain", "--json", "account", BAD], ["explain", "account", f"no{HIDDEN}"],
    ["events"], ["events", "--waiting"],
    ["wait", "account", BAD, "2", "--timeout-ms", "100"],
    ["retry", "--dry-run", BAD_EVENT], ["retry", "--dry-run", "--json", "--all-dead"], ["retry", f"no{HIDDEN}"],
    ["skip", "--dry-run", BAD_EVENT], ["skip", "--dry-run", "--json", "--all-dead"], ["skip", f"no{HIDDEN}"],
    ["refresh", "--dry-run", "account", BAD], ["refresh", "account", f"no{HIDDEN}"],
    ["reconcile"], ["reconcile", "--json"],
    ["archive", "verify"], ["archive", "verify", "--json"],
    ["replay", "--projection", "account"], ["replay", "--projection", "account", "--aggregate", "account", GOOD],
    ["replay", "--projection", "account", "--aggregate", "account", f"no{HIDDEN}"],
]
# In this order each has something to print.
CHANGES = [
    ["retry", BAD_EVENT], ["run", "--once"], ["skip", BAD_EVENT], ["refresh", "account", STALE], ["refresh", "--force", "account", LOST],
    ["rebuild"], ["reconcile", "--repair"],
    ["replay", "--projection", "account", "--force", "--drop-old"],
]
MAY_SAY_NOTHING = (["status"], ["retry", BAD_EVENT])  # what they print has nothing of the event


def harmless(title: object, done: subprocess.CompletedProcess, silent: bool = False) -> Iterator[str]:
    """What is wrong with the output."""
    text = done.stdout + done.stderr
    if raw := RAW.search(text):
        yield f"{title}: {text[max(raw.start() - 80, 0):raw.end() + 20]!r}"
    elif not silent and not re.search("u202e|&#x202e;", text):
        yield f"{title} prints nothing of it: {text!r}"


def try_cases(ws: Workspace) -> Iterator[tuple[list[str], subprocess.CompletedProcess]]:
    event = {**opened(ws, GOOD), "_id": f"good{HIDDEN}"}
    event["payload"]["name"] = f"Ada{HIDDEN}"
    events, cases = ws.folder / "events.json", ws.folder / "cases.json"
    bad = {**event, "_id": BAD_EVENT, "event_type": f"Made{HIDDEN}Up"}
    events.write_text("\n".join(json_util.dumps(e) for e in (event, bad)))
    cases.write_text(json.dumps([{"name": f"case{HIDDEN}", "events": [json.loads(json_util.dumps(event))], "expect": {"account": []}}]))
    for options in (["--json", str(events)], [str(events)], ["--expect", str(cases)], ["--expect", str(cases), "--format", "junit"]):
        yield ["try", *options], ws.projector("try", *options)


@pytest.fixture
def world(bank: Workspace) -> Workspace:
    """A difference, a dead event, one in the archive that cannot be read, a row that the archive does not tell of."""
    bank.mapping(**ARCHIVE, **SHORT_LEASE, permanent="dead")
    bank.put({**opened(bank, GOOD), "_id": f"good{HIDDEN}"}, opened(bank, LOST),
             {**bank.event(BAD, f"Made{HIDDEN}Up", 1), "_id": BAD_EVENT}, {**bank.event(STALE, f"Made{HIDDEN}Up", 1), "_id": f"stale{HIDDEN}"})
    archive = bank.db["outbox_archive"]
    with bank.start_projector() as projector:
        bank.wait(lambda: bank.outbox.count_documents({"status": "dead"}) == 2 and archive.count_documents({"seq": {"$exists": True}}) == 2,
                  what="two dead events and two that are archived and numbered")
        assert projector.stop() == 0
    archive.delete_one({"aggregate_id": LOST})
    bank.query("UPDATE projector_applied SET applied_at = applied_at - INTERVAL 1 HOUR")  # before what a replay looks back to
    archive.insert_one({**bank.event(GOOD, "MoneyDeposited", 2), "_id": f"old{HIDDEN}", "payload": f"no document{HIDDEN}"})
    bank.accounts.insert_many([entity(account, 1, name=f"{HIDDEN}{'Eve' * (50 if account == LONG else 1)}", last_event_at=MOMENT)
                               for account in (GOOD, BAD, STALE, LONG)])
    return bank


@pytest.mark.thorough
def test_no_command_passes_on_what_an_event_contains(world):
    wrong = []
    for command in LOOKS + CHANGES:
        wrong += harmless(command, world.projector(*command), command in MAY_SAY_NOTHING)
    for command, done in try_cases(world):
        wrong += harmless(command, done)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("how", ["text", "json"])
def test_the_log_passes_on_nothing_either(bank, how):
    bank.mapping(permanent="dead", log=how)
    bank.put({**bank.event(BAD, f"Made{HIDDEN}Up"), "_id": BAD_EVENT})
    assert not list(harmless(how, bank.run_once()))


def test_events_are_the_same_as_json(world):
    [event] = [e for line in world.projector("events").stdout.splitlines() if (e := json.loads(line))["_id"] == f"good{HIDDEN}"]
    assert event["aggregate_id"] == GOOD and event["payload"]["name"] == f"Ada {GOOD}"
    [skipped] = json.loads(world.projector("skip", "--dry-run", "--json", BAD_EVENT).stdout)["events"]
    assert (skipped["_id"], skipped["aggregate_id"], skipped["event_type"]) == (BAD_EVENT, BAD, f"Made{HIDDEN}Up")


def test_the_write_side_passes_on_nothing(bank):
    event = {"_id": BAD_EVENT, "aggregate_type": "account", "aggregate_id": BAD, "event_type": "AccountClosed", "payload": {}}
    first, again, unknown = (bank.outbox_program("put", *options, input=json.dumps(document)) for options, document in (
        ([], event), (["--json"], {**event, "_id": f"other{HIDDEN}"}), ([], {f"member{HIDDEN}": 1})))
    repeated = bank.outbox_program("put", input=json.dumps(event))
    assert (first.returncode, again.returncode, repeated.returncode, unknown.returncode) == (0, 0, 0, 2)
    assert not [w for done in (first, again, repeated, unknown) for w in harmless(done.args[1], done)]
    assert first.stdout == f"bad{ESCAPED}\n" and "repeated" in repeated.stderr
    assert json.loads(again.stdout)["event_id"] == f"other{HIDDEN}"
