"""replay: the rows end up as if the events had been applied one after the other, whatever happens meanwhile."""

from __future__ import annotations

import json
import subprocess
import threading
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Iterator
from uuid import UUID

import pytest
from bson import Int64, MaxKey, ObjectId, Timestamp

from bank import SHORT_LEASE
from replays import ARCHIVE, bank, entity, fold, leftovers, life, opened, shown, verify
from workspace import WAIT_S, Process, Workspace, bank_projections, decimal


def replay(ws: Workspace, *arguments: str, status: int = 0, table: str = "account") -> subprocess.CompletedProcess:
    if not {"--to", "--aggregate"} & set(arguments):
        arguments = (*arguments, "--drop-old")
    done = ws.projector("replay", "--projection", table, *arguments, timeout=4 * WAIT_S)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done


@contextmanager
def replaying(ws: Workspace, *arguments: str) -> Iterator[Process]:
    process = Process(ws._projector("replay", "--projection", "account", *arguments), ws.folder / "replay.log",
                      ws.environment)
    ws.started.append(process)
    try:
        yield process
    finally:
        if process.running:
            process.kill()


# filling


def test_a_table_that_was_emptied(bank):
    events = life(bank, 20, 12)
    bank.put(events)
    bank.run_once()
    before = bank.rows("account")
    assert shown(bank) == fold(events)
    bank.query("DELETE FROM account")
    done = replay(bank, "--json")
    assert bank.rows("account") == before
    assert json.loads(done.stdout)["events"] == len(events)
    assert leftovers(bank) == ([], [])
    more = [bank.event(f"a{n}", "MoneyDeposited", 13, amount=decimal("5.00")) for n in range(20)]
    bank.put(more)
    bank.run_once()
    assert shown(bank) == fold(events + more)


@pytest.mark.thorough
def test_a_table_that_is_new_in_the_mapping(bank):
    """The old mapping stays in use until the new one takes over: events that need a row wait for it."""
    events = life(bank, 5, 6)
    bank.put(events)
    bank.run_once()
    [first] = bank_projections()
    second = json.loads(json.dumps(first)) | {"table": "second"}
    second["events"]["AccountFrozen"]["statement"] = second["events"]["AccountFrozen"]["statement"].replace(
        "UPDATE account ", "UPDATE second ")
    bank.mapping([first, second], **ARCHIVE, **SHORT_LEASE, max_attempts=1000)
    assert bank.projector("schema", "--apply").returncode == 0
    with bank.start_projector() as projector:
        projector.wait_log("working")
        more = [bank.event(f"a{n}", "MoneyDeposited", 7, amount=decimal("5.00")) for n in range(5)]
        more.append(opened(bank, "b1"))
        bank.put(more)
        for event in more[:5]:
            assert "row missing" in bank.wait_status(event, "failed")["last_error"]["message"]
        replay(bank, table="second")
        bank.wait_drained()
        assert projector.stop() == 0
    assert shown(bank) == shown(bank, "second") == fold(events + more)
    assert leftovers(bank) == ([], [])


def test_replayed_again_and_again_it_stays_the_same(bank):
    events = life(bank, 10, 8)
    bank.put(events)
    bank.run_once()
    for _ in range(3):
        replay(bank)
        assert shown(bank) == fold(events)


def test_nothing_at_all(bank):
    done = replay(bank)
    assert "0 events" in done.stdout and bank.rows("account") == []


def test_a_closed_account_and_one_that_came_back(bank):
    events = [opened(bank, "a1"), opened(bank, "a2"), bank.event("a1", "AccountClosed", 2),
              bank.event("a2", "AccountClosed", 2), bank.event("a2", "AccountOpened", 3, user_id="u", name="New",
                                                               balance=decimal("1.00"))]
    bank.put(events)
    bank.run_once()
    replay(bank)
    assert shown(bank) == fold(events) == {"a2": ("New", Decimal("1.00"))}


# live events meanwhile


@pytest.mark.thorough
def test_live_deltas_meanwhile(bank):
    """Writers never stop; in the end the rows are correct, and no event is lost or counted twice."""
    events = life(bank, 30, 40)
    bank.put(events)
    bank.run_once()
    stop = threading.Event()
    written: list[dict] = []

    def write() -> None:
        version = 41
        while not stop.wait(0.03):  # about a thousand events a second
            batch = [bank.event(f"a{n}", "MoneyDeposited", version, amount=decimal("0.01")) for n in range(30)]
            batch.append(opened(bank, f"new{version}"))
            bank.outbox.insert_many(batch)
            written.extend(batch)
            version += 1

    with bank.start_projector() as projector:
        projector.wait_log("working")
        writer = threading.Thread(target=write)
        writer.start()
        try:
            bank.query("DELETE FROM account WHERE account_id IN ('a1', 'a2')")
            for _ in range(3):
                replay(bank)
        finally:
            stop.set()
            writer.join()
        bank.projector("retry", "--all-dead")  # those that a slow replay kept without their row for too long
        bank.wait_drained()
        assert projector.stop() == 0
    assert len(written) > 100
    assert shown(bank) == fold(events + written)
    assert leftovers(bank) == ([], [])


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_live_events_that_come_faster_than_they_are_replayed(bank):
    """The outbox never empties, and `run` takes larger batches:
    replay would never catch up, so `run` has to wait for it."""
    events = life(bank, 30, 3)
    bank.put(events)
    bank.run_once()
    stop = threading.Event()
    written: list[dict] = []

    def write() -> None:
        while not stop.is_set():
            if bank.outbox.estimated_document_count() < 3000:
                batch = [bank.event(f"a{n % 30}", "MoneyDeposited", amount=decimal("0.01")) for n in range(1000)]
                bank.outbox.insert_many(batch, ordered=False)
                written.extend(batch)

    with bank.start_projector() as projector:
        projector.wait_log("working")
        writer = threading.Thread(target=write)
        writer.start()
        try:
            bank.wait(lambda: len(written) > 3000, what="a backlog")
            bank.mapping(**ARCHIVE, **SHORT_LEASE, batch=150)  # of the replay alone
            replay(bank)
            assert writer.is_alive()
            bank.wait(lambda: bank.outbox.find_one(), what="events that are still written")
        finally:
            stop.set()
            writer.join()
        bank.wait_drained()
        assert projector.stop() == 0
    assert shown(bank) == fold(events + written)
    assert leftovers(bank) == ([], [])


@pytest.mark.thorough(beyond=1)
@pytest.mark.parametrize("odd", [Timestamp(4000000000, 1), MaxKey(), [datetime(2100, 1, 1)]], ids=["timestamp", "maxkey", "array"])
def test_an_archived_time_that_is_none_does_not_unbind_the_scan(bank, odd):
    """In BSON's order it is later than all dates; the scan would chase events archived meanwhile."""
    events = life(bank, 2, 2)
    bank.put(events)
    bank.run_once()
    bank.db["outbox_archive"].insert_one(opened(bank, "odd") | {"occurred_at": odd})
    bank.db.command("profile", 2)
    try:
        replay(bank)
    finally:
        bank.db.command("profile", 0)
    end = max(e["occurred_at"] for e in events) + timedelta(milliseconds=1)
    assert bank.db["system.profile"].count_documents({"command.find": "outbox_archive", "command.filter.occurred_at.$lt": end}) == 1
    assert shown(bank) == fold(events)


@contextmanager
def archive_refuses(ws: Workspace) -> Iterator[None]:
    """Events are applied, but can neither be archived nor leave the outbox."""
    ws.db.command("collMod", "outbox_archive", validator={"never": {"$exists": True}})
    try:
        yield
    finally:
        ws.db.command("collMod", "outbox_archive", validator={})


def test_what_is_applied_but_not_archived_yet(bank):
    events = life(bank, 4, 5)
    bank.put(events[:8])
    bank.run_once()
    with archive_refuses(bank):
        with bank.start_projector() as projector:
            projector.wait_log("working")
            bank.put(events[8:])
            bank.wait(lambda: len(bank.ledger()) == len(events), what="all events in the ledger")
            projector.kill()
        assert bank.outbox.count_documents({}) > 0
        late = bank.event("a1", "MoneyDeposited", 6, amount=decimal("3.00"))  # it was never applied
        bank.put(late)
        bank.query("DELETE FROM account")
        replay(bank)
        assert shown(bank) == fold(events)
    bank.query("UPDATE projector_applied SET applied_at = applied_at - INTERVAL 1 HOUR")  # long before the replay
    with archive_refuses(bank):
        replay(bank)
        assert shown(bank) == fold(events)
    bank.run_once()
    bank.wait_drained()
    assert shown(bank) == fold(events + [late])


def test_an_event_that_a_refresh_contains_but_nobody_applied(bank):
    """The refresh took its effect from the entity; the event itself
    will only be superseded, so the replay must apply it."""
    bank.mapping(**ARCHIVE, **SHORT_LEASE | {"backoff_ms": 300000})  # no retry is under way when it is killed
    events = [opened(bank, "a1")]
    bank.put(events)
    bank.run_once()
    bad = bank.event("a1", "MoneyDeposited", 2, amount="no number")
    good = bank.event("a1", "MoneyDeposited", 3, amount=decimal("5.00"))
    with bank.start_projector() as projector:
        bank.put(bad, good)
        bank.wait_status(bad, "failed")
        projector.kill()
    bank.accounts.insert_one({"_id": "a1", "user_id": "u", "name": "Ada a1", "balance": decimal("15.00"),
                              "version": Int64(3)})
    assert bank.projector("refresh", "account", "a1").returncode == 0
    done = replay(bank, status=1)
    assert str(bad["_id"]) in done.stderr and "--skip" in done.stderr
    replay(bank, "--skip", str(bad["_id"]))
    bank.run_once()
    assert shown(bank) == fold([*events, good])
    assert bank.ledger()[str(good["_id"])] == "superseded"


# interruptions


@pytest.mark.thorough
def test_killed_in_the_middle_and_started_again(bank):
    bank.mapping(**ARCHIVE, **SHORT_LEASE, batch=5)
    events = life(bank, 50, 30)
    bank.put(events)
    bank.run_once()
    scope = f"{bank.name}/account"
    replayed = "SELECT COUNT(*) AS n FROM projector_applied WHERE projector = %s"
    for part in (0.1, 0.3, 0.5):
        with replaying(bank) as process:
            bank.wait(lambda: bank.query(replayed, scope)[0]["n"] > part * len(events), what="a part of the events")
            process.kill()
        assert shown(bank) == fold(events)  # the live table is unchanged
    assert bank.query(replayed, scope)[0]["n"] < len(events)
    more = [bank.event(f"a{n}", "MoneyDeposited", 31, amount=decimal("5.00")) for n in range(50)]
    bank.put(more)
    bank.run_once()
    done = replay(bank, "--json")
    assert "continues with account__replay" in done.stderr
    assert json.loads(done.stdout)["events"] < len(events)
    assert shown(bank) == fold(events + more)
    assert leftovers(bank) == ([], [])


def test_killed_while_it_waits_for_the_owner(bank):
    events = life(bank, 5, 5)
    bank.put(events)
    bank.run_once()
    with bank.stores.mysql(bank.name) as owner, owner.cursor() as transaction:  # it lasts
        transaction.execute("START TRANSACTION")
        transaction.execute("SELECT * FROM projector_fence WHERE projector = %s AND part = 0 LOCK IN SHARE MODE", (bank.name,))
        with replaying(bank) as process:
            bank.wait(lambda: "account__replay" in leftovers(bank)[0], what="the new table")
            process.kill()
    replay(bank)
    assert shown(bank) == fold(events)


def test_another_mapping_does_not_go_on_with_it(bank):
    bank.put(life(bank, 3, 3))
    bank.run_once()
    done = replay(bank, "--to", "2100-01-01T00:00:00Z")
    assert "account__replay" in done.stdout
    done = replay(bank, status=2)
    assert "--restart" in done.stderr
    replay(bank, "--restart")
    assert leftovers(bank) == ([], [])


# order


def test_late_events_end_where_the_order_says(bank):
    """Live they were superseded or added; the archive has their true order."""
    first = opened(bank, "a1")
    bank._clock += timedelta(seconds=10)
    renamed = bank.event("a1", "AccountRenamed", name="Newest")
    bank.put(first, renamed)
    bank.run_once()
    late = bank.event("a1", "MoneyDeposited", at=renamed["occurred_at"] - timedelta(seconds=5), amount=decimal("2.00"))
    bank.put(late)
    bank.run_once()
    replay(bank)
    assert shown(bank) == fold([first, renamed, late]) == {"a1": ("Newest", Decimal("12.00"))}


def test_an_event_that_is_late_between_two_rounds(bank):
    """The replay was killed after newer events of the account; it folds this one from the beginning."""
    first, renamed = opened(bank, "a1"), bank.event("a1", "AccountRenamed", name="Newest",
                                                    at=bank._clock + timedelta(seconds=10))
    bank.put(first, renamed)
    bank.run_once()
    replay(bank, "--to", "2100-01-01T00:00:00Z")
    late = [bank.event("a1", "AccountRenamed", at=bank._clock + timedelta(seconds=2), name="Older"),
            bank.event("a1", "AccountFrozen", at=bank._clock + timedelta(seconds=3)),
            bank.event("a1", "MoneyDeposited", at=bank._clock + timedelta(seconds=4), amount=decimal("2.00"))]
    bank.accounts.insert_one({"_id": "a1", "user_id": "u", "name": "Newest", "balance": decimal("12.00"),
                              "version": Int64(9)})
    bank.put(late)
    bank.run_once()
    replay(bank, "--to", "2100-01-01T00:00:00Z")
    assert shown(bank, "account__replay") == fold([first, renamed, *late]) == {"a1": ("Newest", Decimal("12.00"))}


def test_rows_that_several_aggregates_share(ws):
    """A sum per user: no row belongs to one account, so late deltas are added."""
    ws.mapping([{"aggregate_type": "account", "table": "wealth", "key": {"user_id": {"from": "user_id", "type": "varchar(9)"}},
                 "columns": {"balance": {"from": "balance", "type": "decimal(18,2)"}},
                 "events": {"UserJoined": {"op": "upsert"}, "MoneyDeposited": {"op": "add", "columns": {"balance": "amount"}}}}],
               **ARCHIVE, **SHORT_LEASE)
    ws.create()
    ws.put(ws.event("u1", "UserJoined", 1, user_id="u1", balance=decimal("0.00")))
    ws.run_once()  # before the others, which another worker may have
    ws.put([ws.event(f"a{n}", "MoneyDeposited", user_id="u1", amount=decimal("1.50")) for n in range(10)])
    ws.run_once()
    assert ws.outbox.find_one() is None
    replay(ws, table="wealth")
    assert [row["balance"] for row in ws.rows("wealth")] == [Decimal("15.00")]
    done = ws.projector("replay", "--projection", "wealth", "--aggregate", "account", "a1")
    assert done.returncode == 2 and "$aggregate_id" in done.stderr


@pytest.mark.thorough
def test_a_skipped_event_stays_skipped(bank):
    """Even when the ledger has forgotten it: the archive has a mark."""
    bank.mapping(**ARCHIVE, **SHORT_LEASE, max_attempts=1)
    events = [opened(bank, "a1"), bank.event("a1", "MoneyDeposited", 2, amount=decimal("1000000000000000000"))]
    bank.put(events)
    bank.run_once()
    bank.wait_status(events[1], "dead")
    assert bank.projector("skip", str(events[1]["_id"])).returncode == 0
    more = bank.event("a1", "MoneyDeposited", 3, amount=decimal("1.00"))
    bank.put(more)
    bank.run_once()
    assert [e["_id"] for e in bank.db["outbox_archive"].find({"skipped_at": {"$exists": True}})] == [events[1]["_id"]]
    for _ in range(2):
        assert "skipped events left out: 1" in replay(bank).stdout
        assert shown(bank) == fold([events[0], more])
        bank.query("DELETE FROM projector_applied")
    assert json.loads(replay(bank, "--json").stdout)["skipped"] == 1
    replay(bank, "--aggregate", "account", "a1")
    assert shown(bank) == fold([events[0], more])
    assert f"skipped     {events[1]['_id']}" in bank.projector("explain", "account", "a1").stdout

    bank.accounts.insert_one(entity("a1", 3, name="Ada a1", balance=decimal("11.00")))
    archived = bank.db["outbox_archive"]
    archived.update_one({"_id": events[0]["_id"]}, {"$unset": {"payload.opened_at": 1}})
    [sums] = verify(bank)
    assert (sums["equal"], sums["gaps"], sums["skipped"]) == (1, 0, 1)
    bank.accounts.update_one({"_id": "a1"}, {"$set": {"balance": decimal("12.00")}})
    found, _ = verify(bank, status=1)
    assert found["reason"] == "balance: entity 12, events 11; 1 skipped"
    assert "skipped events left out: 1" in bank.projector("archive", "verify").stdout


def test_an_archive_without_marks_is_read_with_the_ledger(bank):
    """Events were moved there by other means: those that the ledger calls skipped are left out."""
    events = [opened(bank, "a1"), bank.event("a1", "MoneyDeposited", 2, amount=decimal("1.00"))]
    bank.put(events)
    bank.run_once()
    bank.query("UPDATE projector_applied SET outcome = 'skipped' WHERE event_id = %s", str(events[1]["_id"]))
    assert "skipped events left out: 1" in replay(bank).stdout
    assert shown(bank) == fold(events[:1])


def test_a_skip_of_what_was_applied_is_no_skip(bank):
    """Its projector died between commit and acknowledgement, and then an operator lost patience."""
    bank.put(event := opened(bank, "a1"))
    bank.run_once()
    bank.db["outbox_archive"].delete_one({"_id": event["_id"]})
    bank.put({**event, "status": "dead", "attempts": 10})
    assert bank.projector("skip", str(event["_id"])).returncode == 0
    assert bank.ledger() == {str(event["_id"]): "applied"}
    assert "skipped_at" not in bank.db["outbox_archive"].find_one({"_id": event["_id"]})


def test_a_skip_that_is_cut_short_leaves_its_mark(bank):
    """The ledger says `skipped`, then MongoDB is away; the sweeper takes the event out."""
    bank.mapping(**ARCHIVE, **SHORT_LEASE, max_attempts=1, claim_timeout_ms=1000)
    events = [opened(bank, "a1"), bank.event("a1", "MoneyDeposited", 2, amount="no number"), opened(bank, "a2")]
    bank.put(events)
    bank.run_once()
    bank.wait_status(events[1], "dead")
    with archive_refuses(bank):
        assert bank.projector("skip", str(events[1]["_id"])).returncode != 0
        assert bank.ledger()[str(events[1]["_id"])] == "skipped"
    with bank.start_projector() as projector:
        bank.wait_drained()
        assert projector.stop() == 0
    assert {e["_id"] for e in bank.db["outbox_archive"].find({"skipped_at": {"$exists": False}})} == {
        events[0]["_id"], events[2]["_id"]}
    assert bank.db["outbox_archive"].count_documents({}) == 3


def test_an_event_is_left_out_however_its_id_is_spelt(bank):
    ids = [UUID(int=0xabcdef), ObjectId("0123456789abcdef01234567"), "a string", Int64(42)]
    events = [opened(bank, "a1")]
    events += [bank.event("a1", "MoneyDeposited", n, amount=decimal("1.00")) | {"_id": name} for n, name in enumerate(ids, 2)]
    bank.put(events)
    bank.run_once()
    skips = [option for name in ids[:-1] for option in ("--skip", str(name) if name == "a string" else str(name).upper())]
    replay(bank, *skips, "--skip", "42", "--skip", "nobody-has-this")
    assert shown(bank) == fold(events[:1])


# parts


def test_the_state_at_a_time(bank):
    events = life(bank, 4, 6)
    bank.put(events)
    bank.run_once()
    before, at = shown(bank), events[12]["occurred_at"]
    done = replay(bank, "--to", at.isoformat(timespec="milliseconds") + "Z")
    assert shown(bank, "account__replay") == fold(e for e in events if e["occurred_at"] < at)
    assert shown(bank) == before and "account__replay" in done.stdout


def test_events_from_a_time(bank):
    events = [opened(bank, "a1"), opened(bank, "a2")]
    bank._clock += timedelta(seconds=5)
    later = [opened(bank, "b1"), bank.event("b1", "MoneyDeposited", 2, amount=decimal("1.00"))]
    bank.put(events, later)
    bank.run_once()
    zone = later[0]["occurred_at"] + timedelta(hours=2)
    done = replay(bank, "--from", zone.isoformat(timespec="milliseconds") + "+02:00")
    assert shown(bank) == fold(later) and "rows lost, because no replayed event makes them: 2 of account" in done.stdout
    bank.put(bank.event("a1", "MoneyDeposited", 2, amount=decimal("1.00")))
    bank.run_once()  # its account is no longer in the table, and says so
    assert bank.outbox.find_one()["status"] == "failed"


def test_one_aggregate_where_it_stands(bank):
    events = life(bank, 4, 6)
    bank.put(events)
    bank.run_once()
    bank.query("UPDATE account SET balance = 0 WHERE account_id IN ('a1', 'a2')")
    pending = bank.event("a1", "MoneyDeposited", 7, amount=decimal("1.00"))
    bank.put(pending)
    done = replay(bank, "--aggregate", "account", "a1")
    assert "made from 6 events" in done.stdout
    expected = fold(events)
    assert shown(bank) == expected | {"a2": (expected["a2"][0], Decimal(0))}
    replay(bank, "--aggregate", "account", "a2")
    bank.run_once()
    assert shown(bank) == fold([*events, pending])
    assert "no applied event" in replay(bank, "--aggregate", "account", "zz", status=1).stdout
    for account_id, status, count in ("a1", 0, 7), ("zz", 1, 0):
        told = json.loads(replay(bank, "--json", "--aggregate", "account", account_id, status=status).stdout)
        assert told == {"table": "account", "aggregate_type": "account", "aggregate_id": account_id, "events": count}
    assert leftovers(bank) == ([], [])


# wrong use


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("arguments, says", [
    ([], "--projection"),
    (["--projection", "nowhere"], "no projection fills a table nowhere"),
    (["--projection", "account", "--from", "yesterday"], "--from: expected a time like"),
    (["--projection", "account", "--to", "2026-01-01"], "--to: expected a time like"),
    (["--projection", "account", "--aggregate", "account"], "--aggregate TYPE ID"),
    (["--projection", "account", "--aggregate", "user", "u1"], "filled from events of account"),
    (["--projection", "account", "extra"], "too many"),
])
def test_wrong_use(bank, arguments, says):
    done = bank.projector("replay", *arguments)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1


def test_no_archive(bank):
    bank.mapping(**SHORT_LEASE)
    done = replay(bank, status=2)
    assert "no outbox_archive" in done.stderr and "rebuild" in done.stderr
    bank.db["outbox_archive"].insert_one(opened(bank, "a1"))
    done = replay(bank, status=2)
    assert "archive" in done.stderr and "--to" in done.stderr


def test_no_table(bank):
    bank.query("DROP TABLE account")
    assert "schema --apply" in replay(bank, status=2).stderr


def test_unreachable_stores(bank):
    bank.mapping(mongodb={"retain": "archive", "uri": "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=300"})
    replay(bank, status=3)
    bank.mapping(**ARCHIVE, mysql={"port": 9})
    replay(bank, status=3)


def test_a_hole_in_the_archive_is_told(bank):
    """An applied event exists nowhere any more: the live table stays."""
    bank.put(events := life(bank, 3, 3))
    bank.run_once()
    with archive_refuses(bank):
        with bank.start_projector() as projector:
            projector.wait_log("working")
            lost = bank.event("a1", "MoneyDeposited", 4, amount=decimal("1.00"))
            bank.put(lost)
            bank.wait(lambda: str(lost["_id"]) in bank.ledger(), what="the event in the ledger")
            projector.kill()
        bank.outbox.delete_many({})
        done = replay(bank, status=1)
        assert str(lost["_id"]) in done.stderr and "neither" in done.stderr
    assert shown(bank) == fold([*events, lost])


def test_a_statement_that_may_change_other_tables_is_refused(bank):
    [projection] = bank_projections()
    projection["events"]["AccountFrozen"]["statement"] = (
        "INSERT INTO audit SELECT * FROM account WHERE account_id = :$aggregate_id")
    bank.mapping([projection], **ARCHIVE)
    assert "events.AccountFrozen.statement" in replay(bank, status=2).stderr


def test_a_table_that_others_refer_to_is_refused(bank):
    bank.put(life(bank, 2, 2))
    bank.run_once()
    bank.query("CREATE TABLE card LIKE account")
    bank.query("ALTER TABLE card ADD FOREIGN KEY (account_id) REFERENCES account (account_id)")
    assert "foreign key" in replay(bank, status=2).stderr


# written rows are read back


@pytest.mark.parametrize("batch", [1, 500])
def test_a_key_that_takes_two_ids_for_one_ends_the_replay(bank, batch):
    bank.mapping(**ARCHIVE, **SHORT_LEASE, batch=batch)
    bank.put(opened(bank, "a1"), opened(bank, "b1"), opened(bank, "A1"), opened(bank, "c1"))
    bank.run_once()
    bank.query("DELETE FROM account")
    bank.query("ALTER TABLE account MODIFY account_id VARCHAR(36) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL")
    done = replay(bank, status=1)
    assert "account A1" in done.stderr and "expected an id of its own for the key account_id" in done.stderr
    assert bank.rows("account") == []  # and nothing was swapped


def test_a_second_unique_key_that_makes_one_row_of_two_ends_the_replay(bank):
    bank.put(opened(bank, "a1"), {**opened(bank, "a2"), "payload": opened(bank, "a1")["payload"]})
    bank.run_once()
    bank.query("DELETE FROM account")
    bank.query("ALTER TABLE account ADD UNIQUE (name)")
    assert "account a2" in replay(bank, status=1).stderr
