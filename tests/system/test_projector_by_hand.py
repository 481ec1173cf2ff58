"""What an operator decides by hand: it loses nothing, can be tried
dry, and is recorded with its originator in the owner's log."""

from __future__ import annotations

import base64
import getpass
import json
import uuid
from datetime import datetime, timedelta

import pytest
from bson import Decimal128, Int64, ObjectId, json_util

from workspace import Workspace, decimal

MOMENT = datetime(2024, 5, 6, 7, 8, 9, 123000)


@pytest.fixture(autouse=True)
def state_folder(ws, tmp_path):
    ws.environment["XDG_STATE_HOME"] = str(tmp_path / "state")


def dead(ws: Workspace, aggregate: str = "a1", message: str = "no such account", **changes) -> dict:
    event = {**ws.event(aggregate, "MoneyDeposited", 2, amount=decimal("12.50"), note="from Eve"), "status": "dead",
             "attempts": 10, "last_error": {"class": "data", "code": 0, "message": message, "at": MOMENT}, **changes}
    ws.put(event)
    return event


def open_account(ws: Workspace, aggregate: str = "a1") -> None:
    fields = {"user_id": "u1", "name": "Ada", "balance": decimal("10.50")}
    ws.accounts.insert_one({"_id": aggregate, "version": Int64(1), "last_event_at": MOMENT, **fields})
    ws.put(ws.event(aggregate, "AccountOpened", Int64(1), **fields))
    ws.run_once()


# skip keeps what it takes out


def test_a_skipped_event_is_printed_and_kept(bank):
    event = dead(bank)
    done = bank.projector("skip", str(event["_id"]))
    assert done.returncode == 0, done.stderr
    printed, count = done.stdout.splitlines()
    assert json_util.loads(printed)["payload"] == event["payload"]
    assert count == "1 event skipped"
    kept = bank.db["outbox_archive"].find_one()
    assert kept["payload"] == event["payload"] and kept["skipped_at"] and kept["last_error"]["message"] == "no such account"


@pytest.mark.parametrize("command", [["skip"], ["skip", "--json"], ["skip", "--json", "--dry-run"]])
def test_what_was_skipped_can_be_put_back_as_printed(bank, command):
    """With an id of its own: under the old one it is known, as skipped. Every field that the projector writes is there."""
    now = datetime(2026, 1, 1)
    event = dead(bank, attempts=3, next_attempt_at=now, fed_at=now, fed_to=["x"], metadata={"who": "me"},
                 payload={"amount": Decimal128("2.50"), "n": Int64(2**40), "d": 0.5, "at": now, "id": uuid.uuid4(), "oid": ObjectId(), "null": None})
    stated = {**event, "claimed_by": "projector:x", "claimed_at": now}
    bank.outbox.replace_one({"_id": event["_id"]}, stated)
    printed = bank.projector(*command, "--all-dead").stdout
    text = json.dumps(json.loads(printed)["events"][0]) if "--json" in command else printed.splitlines()[0]
    again = uuid.uuid4()
    line = text.replace(base64.b64encode(event["_id"].bytes).decode(), base64.b64encode(again.bytes).decode())
    put = bank.outbox_program("put", input=line + "\n")
    assert (put.returncode, put.stderr, put.stdout) == (0, "", f"{again}\n")
    found = bank.outbox.find_one({"_id": again})
    written = ("aggregate_type", "aggregate_id", "version", "event_type", "occurred_at", "payload", "metadata")
    assert {k: v for k, v in found.items() if k not in ("_id", "status")} == {k: event[k] for k in written if k in event}


def test_skipped_events_as_json(bank):
    events = [dead(bank, f"a{n}") for n in range(3)]
    said = json.loads(bank.projector("skip", "--all-dead", "--json").stdout)
    assert said["count"] == 3 and len(said["events"]) == 3
    assert bank.db["outbox_archive"].count_documents({}) == len(events)
    assert json.loads(bank.projector("skip", "--all-dead", "--json").stdout) == {"events": [], "count": 0}


@pytest.mark.parametrize("command", [["skip", "--json"], ["skip", "--json", "--dry-run"], ["skip"]])
def test_what_a_skip_prints_is_json_whatever_the_event_has(bank, command):
    note = "".join(map(chr, (0x1B, 0x7F, 0x85, 0x9F, 0x202E, 0x2028)))
    event = dead(bank)
    bank.outbox.update_one({"_id": event["_id"]}, {"$set": {"payload.note": note}})
    done = bank.projector(*command, "--all-dead")
    assert done.returncode == 0, done.stderr
    assert not any(c in done.stdout for c in note)
    printed = json.loads(done.stdout if "--json" in command else done.stdout.splitlines()[0])
    assert (printed["events"][0] if "--json" in command else printed)["payload"]["note"] == note


def test_a_skip_that_fails_halfway_says_what_it_skipped(bank):
    events = [dead(bank, f"a{n}", _id=uuid.UUID(int=n)) for n in range(1, 3)]
    bank.query("CREATE TRIGGER once BEFORE INSERT ON projector_applied FOR EACH ROW"
               " SET NEW.outcome = IF(NEW.event_id = %s, 'none', NEW.outcome)", str(events[1]["_id"]))
    with bank.start_projector() as projector:
        projector.wait_log("working")
        done = bank.projector("skip", "--all-dead", "--json")
        assert done.returncode != 0 and "after 1 skipped event" in done.stderr, done
        printed = json.loads(done.stdout)
        assert (printed["count"], len(printed["events"])) == (1, 1)
        projector.wait_log("skip of 1 event")


def test_an_applied_event_is_not_kept_for_that(bank):
    """With "retain": "delete" only skipped events go to the archive."""
    open_account(bank)
    assert bank.db["outbox_archive"].find_one() is None


def test_a_skip_that_the_sweeper_finishes_keeps_the_event_too(bank):
    event = dead(bank, status="in_progress", claimed_by="command:skip:elsewhere:1:00000000", claimed_at=datetime(2020, 1, 1))
    bank.query("INSERT INTO projector_applied (projector, event_id_kind, event_id, applied_at, outcome) "
               "VALUES (%s, 'uuid', %s, NOW(6), 'skipped')", bank.name, str(event["_id"]))
    bank.mapping(sweep_interval_ms=100, claim_timeout_ms=1000)
    with bank.start_projector():
        bank.wait_gone(event)
    assert bank.db["outbox_archive"].find_one({"_id": event["_id"]})["skipped_at"]


@pytest.mark.parametrize("state", [{"attempts": 1}, {"attempts": 10}, {"attempts": 3, "next_attempt_at": True}],
                         ids=["dead at once", "dead", "failed"])
def test_an_event_of_a_skip_that_died_is_as_it_was(bank, state):
    """Nothing was decided about it: it is not tried again, and its reason stays."""
    if "next_attempt_at" in state:
        state = {**state, "next_attempt_at": datetime.utcnow().replace(microsecond=0) + timedelta(minutes=3)}
    event = dead(bank, status="in_progress", claimed_by="command:skip:elsewhere:1:00000000", claimed_at=datetime(2020, 1, 1), **state)
    bank.mapping(sweep_interval_ms=100, claim_timeout_ms=1000)
    with bank.start_projector():
        found = bank.wait_status(event, "failed" if "next_attempt_at" in state else "dead")
    assert found == {k: v for k, v in {**event, "status": found["status"]}.items() if k not in ("claimed_by", "claimed_at")}


def test_an_archive_with_skipped_events_only_is_no_archive(bank):
    event = dead(bank)
    assert bank.projector("skip", str(event["_id"])).returncode == 0
    assert 'mongodb.retain is "delete"' in bank.projector("archive", "verify").stderr


@pytest.mark.parametrize("command, verb", [("retry", "tried again"), ("skip", "skipped")])
def test_a_dry_run_changes_nothing(bank, command, verb):
    event = dead(bank)
    done = bank.projector(command, "--all-dead", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "from Eve" in done.stdout and done.stdout.endswith(f"1 event would be {verb}\n")
    assert bank.found(event) == event and bank.ledger() == {}
    assert json.loads(bank.projector(command, "--all-dead", "--dry-run", "--json").stdout)["count"] == 1


def test_all_of_a_kind(bank):
    first, second = dead(bank, "a1", "reason one"), dead(bank, "a2", "reason two")
    other = dead(bank, "a3", "reason one", event_type="MoneyWithdrawn")
    done = bank.projector("skip", "--all-dead", "--type", "MoneyDeposited", "--class", "data", "--reason", "reason one")
    assert done.stdout.endswith("1 event skipped\n")
    assert bank.found(first) is None and bank.found(second) and bank.found(other)
    assert bank.projector("retry", "--type", "MoneyDeposited").returncode == 2


# refresh without an entity


def test_a_refresh_without_an_entity_is_refused(bank):
    open_account(bank)
    event = dead(bank)
    bank.accounts.delete_many({})
    refused = bank.projector("refresh", "account", "a1")
    assert refused.returncode == 1 and "refused (--force does it" in refused.stderr, refused.stderr
    assert len(bank.rows("account")) == 1 and bank.found(event) == event
    dry = bank.projector("refresh", "account", "a1", "--dry-run")
    assert dry.returncode == 1 and "would remove" in dry.stdout and "name Ada" in dry.stdout
    forced = bank.projector("refresh", "account", "a1", "--force")
    assert forced.returncode == 0, forced.stderr
    assert "Removed:" in forced.stdout and "account: account_id a1" in forced.stdout and "name Ada" in forced.stdout
    assert bank.rows("account") == []


def test_a_forced_refresh_supersedes_all_events_however_many(bank):
    """Of a thousand the first page tells the rest."""
    open_account(bank)
    bank.mapping(gap_wait_ms=0, max_attempts=1)
    bank.accounts.delete_many({})
    bank.put(bank.event("a1", "MoneyDeposited", Int64(n), amount=decimal("1.00")) for n in range(2, 1102))
    bank.put(bank.event("a1", "AccountOpened", Int64(1102), user_id="u1", name="Ada", balance=decimal("1.00")))
    assert bank.projector("refresh", "account", "a1", "--force").returncode == 0
    bank.run_once()
    assert bank.outbox.find_one() is None and bank.rows("account") == []


def test_a_refresh_frees_only_what_the_entity_contains(bank):
    open_account(bank)
    contained, later = dead(bank), dead(bank, version=3)
    bank.accounts.update_one({"_id": "a1"}, {"$set": {"version": Int64(2)}})
    assert "1 " in bank.projector("refresh", "account", "a1").stdout
    assert bank.found(contained)["status"] == "pending" and bank.found(later) == later


@pytest.mark.thorough(beyond=1)
@pytest.mark.parametrize("command", ["refresh", "json", "repair"])
def test_what_a_refresh_supersedes_is_named_and_kept(bank, command):
    """The payload may be the only record of what nobody applied."""
    open_account(bank)
    contained = dead(bank)
    bank.accounts.update_one({"_id": "a1"}, {"$set": {"version": Int64(2)}})
    done = bank.projector(*{"refresh": ["refresh", "account", "a1"], "json": ["refresh", "account", "a1", "--json"],
                            "repair": ["reconcile", "--repair"]}[command])
    assert str(contained["_id"]) in done.stdout or command != "repair", done.stdout
    if command == "json":
        [event] = json.loads(done.stdout)["superseded"]
        assert event["payload"] == {"note": "from Eve"} | event["payload"]
    elif command == "refresh":
        assert "from Eve" in done.stdout and "1 failed or dead event, contained in this version, superseded" in done.stdout
    bank.run_once()
    assert bank.found(contained) is None
    kept = bank.db["outbox_archive"].find_one({"_id": contained["_id"]})
    assert kept["payload"] == contained["payload"] and "skipped_at" in kept
    assert bank.projector("wait", "account", "a1", "2", "--timeout-ms", "0").stdout == "superseded\n"
    bank.mapping(mongodb={"retain": "archive"})
    [explained] = json.loads(bank.projector("explain", "account", "a1", "--json").stdout)["archive"]
    assert (explained["state"], explained["ledger"]["outcome"]) == ("archived", "superseded")


def test_a_repair_does_not_remove_what_a_dead_event_belongs_to(bank):
    """The event's writer may never have stored an entity."""
    bank.put(bank.event("a1", "AccountOpened", 1, user_id="u1", name="Ada", balance=decimal("10.50")))
    bank.run_once()
    bank.query("DELETE FROM account")
    event = dead(bank)
    done = bank.projector("reconcile", "--repair", "--json")
    [line] = [line for line in map(json.loads, done.stdout.splitlines()) if line.get("difference") == "dead event"]
    assert done.returncode == 1 and not line["mended"] and "there is no such entity" in line["outcome"]
    assert bank.found(event) == event


def test_a_refresh_that_a_trigger_changes_is_told(bank):
    open_account(bank)
    bank.query("CREATE TRIGGER upper_name BEFORE UPDATE ON account FOR EACH ROW SET NEW.name = UPPER(NEW.name)")
    done = bank.projector("refresh", "account", "a1")
    assert done.returncode == 1 and "still different" in done.stdout and "entity Ada, row ADA" in done.stdout


# who did it


def test_every_action_by_hand_stands_in_the_log_of_the_owner(bank):
    bank.mapping(lease_ms=2000)
    open_account(bank)
    bank.mapping(lease_ms=2000, max_attempts=1)
    events = [dead(bank, f"b{n}") for n in range(3)]
    assert bank.projector("skip", str(events[0]["_id"])).returncode == 0  # no projector is running yet
    with bank.start_projector() as projector:
        projector.wait_log(rf"done by hand.*skip of 1 event \(event {events[0]['_id']}\), by {getpass.getuser()}@")
        assert bank.projector("skip", "--aggregate", "account", "b1").returncode == 0
        projector.wait_log(r"done by hand.*skip of 1 event \(account b1\), by ")
        dead(bank, "b4")
        assert bank.projector("retry", "--all-dead", "--class", "data").returncode == 0
        projector.wait_log(r"done by hand.*retry of \d+ events? \(any type, data\), by ")
        dead(bank, "b5")
        assert bank.projector("retry", "--all-dead").returncode == 0
        projector.wait_log(r"done by hand.*retry of \d+ events? \(all dead events\), by ")
        assert bank.projector("refresh", "account", "a1").returncode == 0
        projector.wait_log(r"done by hand.*refresh of account a1, by ")
        bank.query("DELETE FROM account")
        assert bank.projector("reconcile", "--repair").returncode in (0, 1)
        projector.wait_log(r"done by hand.*reconcile --repair: 1 differences? repaired, by ")


def test_an_interrupted_skip_stands_in_the_log_too(bank):
    events = [dead(bank, f"b{n}") for n in range(3)]
    bank.db.create_collection("outbox_archive", validator={"_id": {"$ne": events[1]["_id"]}})
    done = bank.projector("skip", "--all-dead")
    assert done.returncode != 0 and bank.found(events[0]) is None and bank.found(events[2])
    with bank.start_projector() as projector:
        projector.wait_log(r"done by hand.*interrupted skip of 1 event \(all dead events\), by ")


@pytest.mark.thorough
def test_actions_for_which_there_is_no_room_are_counted(bank):
    for n in range(103):
        bank.db["projector_leases"].update_one({"_id": bank.name}, {
            "$inc": {"by_hand_count": 1}, "$push": {"by_hand": {"$each": [f"act {n}"], "$slice": -100}}}, upsert=True)
    event = dead(bank)
    assert bank.projector("skip", str(event["_id"])).returncode == 0
    assert len(bank.db["projector_leases"].find_one({"_id": bank.name})["by_hand"]) == 100
    with bank.start_projector() as projector:
        projector.wait_log(r'done by hand what="4 more before these, of which only the number is kept"')
        projector.wait_log(r'done by hand what="act 102"')


# why there is nothing to do


def test_why_there_is_nothing_to_retry(bank):
    open_account(bank)
    [applied] = bank.ledger()
    waiting = bank.event("a9", "AccountOpened", 1, user_id="u", name="n", balance=decimal("1"))
    bank.put(waiting)
    def said(event_id: str) -> str:
        done = bank.projector("retry", event_id)
        assert (done.returncode, done.stdout) == (1, "0 events will be tried again\n")
        return done.stderr
    assert f"event {applied} was applied at 20" in said(applied)
    assert "is pending, neither failed nor dead" in said(str(waiting["_id"]))
    assert "is not known: neither the outbox nor the ledger has it" in said("nobody")


# many dead events


def test_a_summary_counts_by_reason_class_and_type(bank):
    for n in range(3):
        dead(bank, f"a{n}", "row missing in account")
    other = dead(bank, "a9", "no such thing", event_type="MoneyWithdrawn")
    told = [json.loads(line) for line in bank.projector("list", "--summary", "--json").stdout.splitlines()]
    assert [(line["count"], line["state"], line["event_type"], line["class"], line["message"]) for line in told] == [
        (3, "dead", "MoneyDeposited", "data", "row missing in account"), (1, "dead", "MoneyWithdrawn", "data", "no such thing")]
    assert told[1]["example"] == str(other["_id"])
    assert "       3  dead        MoneyDeposited  data: row missing in account" in bank.projector("list", "--summary").stdout


def test_a_list_can_show_the_payload(bank):
    dead(bank)
    assert '"note" : "from Eve"' in bank.projector("list", "--payload").stdout
    [line] = bank.projector("list", "--payload", "--json").stdout.splitlines()
    assert json.loads(line)["payload"]["note"] == "from Eve"


def test_an_old_error_is_shown_as_old(bank):
    dead(bank)
    assert bank.projector("retry", "--all-dead").returncode == 0
    assert "before it was tried again: data: no such account" in bank.projector("list", "--state", "pending").stdout
    [line] = [json.loads(text) for text in bank.projector("list", "--state", "pending", "--json").stdout.splitlines()]
    assert line["reason"]["old"] is True
    explained = bank.projector("explain", "account", "a1")
    assert "before it was tried again: no such account" in explained.stdout, explained.stdout
