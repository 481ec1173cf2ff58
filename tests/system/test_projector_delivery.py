"""From the outbox to the row and out of the outbox: nothing lost, nothing doubled, nothing half done."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Iterator

import pytest

from bank import FAST, deposited, impossible, opened
from claims import ago
from endpoint import Endpoint
from forwarding import plainly, recording, relaying
from mysqld import PROJECTOR_USER
from workspace import WAIT_S, Workspace, bank_projections, decimal

QUIET = {"backoff_ms": 20, "sweep_interval_ms": 600000}  # neither a sweep nor a second read can help
SLOW = {"backoff_ms": 300000}


def row(ws: Workspace, account: str = "a1") -> dict:
    return ws.query("SELECT * FROM account WHERE account_id = %s", account)[0]


def at(seconds: int) -> datetime:
    return datetime(2026, 1, 1) + timedelta(seconds=seconds)


# into the queue


def test_once_goes_on_with_what_was_written_while_it_worked(bank):
    bank.mapping(**QUIET, workers=1)
    bank.put(opened(bank))
    bank.run_once()
    first, second = deposited(bank), opened(bank, "a2")
    with bank.stores.mysql(bank.name) as lock, lock.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM account FOR UPDATE")
        bank.put(first)
        with bank.start_projector("--once") as projector:
            bank.wait_lock_wait()
            bank.put(second)
            cursor.execute("COMMIT")
            assert projector.popen.wait(WAIT_S) == 0
    assert bank.outbox.find_one() is None


@pytest.mark.whole_server  # failCommand
def test_once_reads_again_when_a_scan_fails(bank):
    """What the scan had not reached still has to be done."""
    bank.mapping(**QUIET)
    bank.put(opened(bank, f"a{n}") for n in range(1500))  # more than the scan reads at once
    data = {"failCommands": ["getMore"], "errorCode": 8, "appName": "projector", "namespace": f"{bank.name}.outbox"}
    bank.mongo.admin.command({"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": data})
    try:
        done = bank.run_once()
    finally:
        bank.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
    assert "reading the outbox again" in done.stderr
    assert bank.outbox.find_one() is None and len(bank.rows("account")) == 1500


# sessions


def test_a_session_that_the_server_ended_while_idle_is_no_outage(bank):
    bank.mapping(**QUIET, lease_ms=2000)

    def sessions() -> int:
        return len([1 for row in bank.query("SHOW FULL PROCESSLIST") if row["db"] == bank.name and row["User"] != "root"])

    with bank.start_projector() as projector:
        bank.put(opened(bank))
        bank.wait_drained()
        bank.wait(lambda: sessions() <= 1, what="the server to end what is idle")  # one asks every second how MySQL is
        bank.put(deposited(bank))
        bank.wait_drained()
        assert "cannot project" not in projector.log_text() and "tried again" not in projector.log_text()


def test_a_transaction_that_met_a_conflict_is_run_again_at_once(bank):
    """Killed by the server's administrator, for example: nobody's fault, and not the event's failure."""
    bank.mapping(**QUIET, workers=1)
    bank.put(opened(bank))
    bank.run_once()
    with bank.start_projector() as projector, bank.stores.mysql(bank.name) as lock, lock.cursor() as cursor:
        projector.wait_log("info working")
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM account FOR UPDATE")
        bank.put(event := deposited(bank))
        bank.wait_lock_wait()
        for session in bank.query("SHOW FULL PROCESSLIST"):
            if session["db"] == bank.name and (session["Info"] or "").startswith("UPDATE"):
                bank.query(f"KILL QUERY {session['Id']}")
        projector.wait_log("a transaction is retried class=conflict")
        bank.wait_lock_wait()
        bank.wait_status(event, "in_progress")
        cursor.execute("COMMIT")
        bank.wait_drained()
        assert "event failed" not in projector.log_text()


def test_the_client_gives_away_no_files_and_takes_no_second_statement(bank):
    """As it declares at login: no LOCAL INFILE, no MULTI_STATEMENTS, and affected rows are found rows."""
    found_rows, local_files, multi_statements = 1 << 1, 1 << 7, 1 << 16
    with recording(bank.stores.mysql_port) as (port, sent):
        bank.mapping(mysql={"port": port})
        bank.projector("status")
    flags = int.from_bytes(sent[4:8], "little")
    assert flags & (found_rows | local_files | multi_statements) == found_rows


# out of the outbox


def test_an_event_stays_in_the_outbox_until_its_copy_is_in_the_archive(bank):
    """An acknowledgement that MongoDB refuses is repeated until it succeeds, without the help of a sweep."""
    bank.mapping(**QUIET, mongodb={"retain": "archive"}, claim_mark_ms=3600000)
    bank.db.create_collection("outbox_archive", validator={"never": True})
    event = opened(bank)
    with bank.start_projector() as projector:
        projector.wait_log("info working")
        bank.put(event)
        projector.wait_log("applied event cannot leave the outbox")
        assert row(bank)["balance"] == Decimal("100.00") and bank.found(event) == event
        bank.db.command("collMod", "outbox_archive", validator={})
        bank.wait_drained()
        assert bank.db["outbox_archive"].find_one({"_id": event["_id"]})
        assert projector.stop() == 0


def test_what_is_written_once_the_scan_is_over_comes_by_the_stream(bank):
    bank.mapping(**QUIET)
    with bank.start_projector() as projector:
        projector.wait_log("info working")
        for n in range(5):
            bank.put(event := opened(bank, f"a{n}"))
            bank.wait_gone(event)


def test_the_ledger_keeps_an_entry_for_its_time_and_while_the_event_is_in_the_outbox(bank):
    """Without its entry, an event that is sent again would be applied twice."""
    bank.mapping(**FAST, claim_timeout_ms=3600000)
    events = [opened(bank, f"a{n}") for n in range(3)]
    young, _, there = (str(event["_id"]) for event in events)
    with bank.start_projector() as projector:
        bank.put(events)
        bank.wait_drained()  # so the first sweep, which would take another's claim, is over
        bank.put({**events[2], "status": "in_progress", "claimed_by": "elsewhere:1#1", "claimed_at": ago(minutes=1)})
        bank.query("UPDATE projector_applied SET applied_at = applied_at - INTERVAL 8 DAY WHERE event_id <> %s", young)
        projector.wait_log("pruned the ledger entries=1")
        assert set(bank.ledger()) == {young, there}
        bank.outbox.delete_one({"_id": events[2]["_id"]})
        bank.wait(lambda: set(bank.ledger()) == {young}, what="the entry of the event that has left the outbox")


def test_the_ledger_is_pruned_behind_many_entries_that_have_to_stay(bank):
    """More than it looks at in one step: all of them are events that cannot leave the outbox."""
    bank.mapping(**FAST, claim_timeout_ms=3600000)
    stay, gone = [opened(bank, f"a{n}") for n in range(501)], opened(bank, "b1")
    with bank.start_projector():
        bank.put([*stay, gone])
        bank.wait_drained()
        bank.put([{**event, "status": "in_progress", "claimed_by": "elsewhere:1#1", "claimed_at": ago(minutes=1)} for event in stay])
        bank.query("UPDATE projector_applied SET applied_at = applied_at - INTERVAL IF(event_id = %s, 8, 9) DAY", str(gone["_id"]))
        bank.wait(lambda: str(gone["_id"]) not in bank.ledger(), what="the entry of the event that has left the outbox")
    assert set(bank.ledger()) == {str(event["_id"]) for event in stay}


def test_the_ledger_is_not_pruned_until_the_outbox_has_been_read(bank):
    """What is given late may be an event whose entry is old by then; here the first scan waits for room."""
    bank.mapping(**FAST, workers=1, batch=1, mysql={"lock_wait_s": 600})
    old = opened(bank)
    bank.put(old)
    bank.run_once()
    bank.query("UPDATE projector_applied SET applied_at = applied_at - INTERVAL 8 DAY")
    bank.put([deposited(bank) for _ in range(100)])
    lease = bank.db["projector_leases"]
    lease.update_one({"_id": bank.name}, {"$unset": {"lag_ms": 1}})
    with bank.stores.mysql(bank.name) as lock, lock.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM account WHERE account_id = 'a1' FOR UPDATE")
        with bank.start_projector():
            bank.wait(lambda: "lag_ms" in lease.find_one({"_id": bank.name}), what="the owner's first report")
            for n in range(3):  # the first sweep prunes nothing, and the last one may not have come so far
                left = {**opened(bank, f"b{n}"), "status": "in_progress", "claimed_by": "elsewhere:1#1", "claimed_at": datetime(2020, 1, 1)}
                bank.put(left)
                bank.wait(lambda: (bank.found(left) or {}).get("claimed_by") != "elsewhere:1#1", what="a sweep")
            assert str(old["_id"]) in bank.ledger()
            cursor.execute("COMMIT")
            bank.wait(lambda: str(old["_id"]) not in bank.ledger(), what="the entry that is old, once all has been read")


def test_an_entry_of_the_event_applied_last_that_was_pruned_is_no_loss(bank):
    """By a clock of MySQL that was put right it may look old at once."""
    bank.mapping(**FAST)
    with bank.start_projector() as projector:
        for event in (young := opened(bank)), (last := opened(bank, "a2")):
            bank.put(event)
            bank.wait_drained()
        bank.query("UPDATE projector_applied SET applied_at = applied_at - INTERVAL 8 DAY WHERE event_id = %s", str(last["_id"]))
        projector.wait_log("pruned the ledger entries=1")
        bank.end_sessions(PROJECTOR_USER)
        bank.put(opened(bank, "a3"))
        bank.wait_drained()
        assert str(young["_id"]) in bank.ledger() and "the ledger does not have it" not in projector.log_text()


@contextmanager
def mysql_in_2033(port: int) -> Iterator[int]:
    """A port to MySQL behind which the clock of a session stands in 2033."""
    def carry(client: socket.socket, server: socket.socket) -> None:
        while data := client.recv(65536):
            server.sendall(data.replace(b"timestamp = DEFAULT", b"timestamp = 2e9    "))

    with relaying("127.0.0.1", port, carry, plainly) as relayed:
        yield relayed


def test_a_clock_of_mysql_that_is_put_ahead_makes_no_entry_old(bank):
    """Years have passed by MySQL's clock, and no time by MongoDB's."""
    event, old = opened(bank), opened(bank, "a2")
    bank.put(event, old)
    bank.run_once()
    bank.query("UPDATE projector_applied SET applied_at = applied_at - INTERVAL 8 DAY WHERE event_id = %s", str(old["_id"]))
    with mysql_in_2033(bank.stores.mysql_port) as port:
        bank.mapping(**FAST, mysql={"host": "127.0.0.1", "port": port})
        with bank.start_projector():
            bank.wait(lambda: str(old["_id"]) not in bank.ledger(), what="the entry that is old by both clocks")
        assert str(event["_id"]) in bank.ledger()


def test_the_ledger_forgets_no_entry_whose_id_merely_reads_the_same(bank):
    bank.mapping(**FAST)
    with bank.start_projector() as projector:
        event = opened(bank)
        bank.put(event, {**opened(bank, "a2"), "_id": str(event["_id"])})
        bank.wait_drained()
        bank.query("UPDATE projector_applied SET applied_at = applied_at - INTERVAL 8 DAY WHERE event_id_kind = 'uuid'")
        projector.wait_log("pruned the ledger entries=1")
        assert [entry["event_id_kind"] for entry in bank.query("SELECT event_id_kind FROM projector_applied")] == ["string"]


def test_the_ledger_keeps_the_entry_of_what_is_in_memory(bank):
    """Majority reads still show events that have only just left the outbox."""
    bank.mapping(**FAST, workers=1, http="127.0.0.1:0", mysql={"lock_wait_s": 600})
    first, second = opened(bank), opened(bank, "a2")
    ids = [str(event["_id"]) for event in (first, second)]
    with bank.start_projector() as projector, bank.stores.mysql(bank.name) as lock, lock.cursor() as cursor:
        endpoint = Endpoint(projector)
        bank.put(first, second)
        bank.wait_drained()
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM account WHERE account_id = 'a1' FOR UPDATE")
        bank.put(deposited(bank))
        bank.wait_lock_wait()
        bank.put(second)
        bank.wait(lambda: endpoint.metrics()["projector_queue_events"] == 1, what="the repeated event behind the lock")
        bank.outbox.delete_one({"_id": second["_id"]})
        bank.query("UPDATE projector_applied SET applied_at = applied_at - INTERVAL 8 DAY WHERE projector = %s"
                   " AND event_id_kind = 'uuid' AND event_id IN %s", bank.name, ids)
        projector.wait_log("pruned the ledger entries=1")
        assert ids[0] not in bank.ledger() and ids[1] in bank.ledger()
        cursor.execute("COMMIT")
        bank.wait(lambda: ids[1] not in bank.ledger(), what="the entry of what is in memory no more")
    assert len(bank.rows("account")) == 2


def test_what_another_name_has_applied_is_not_known_to_this_one(bank):
    """The ledger's tables may be shared, and an event id may recur in another outbox."""
    event = opened(bank)
    bank.put(event)
    bank.run_once()
    bank.mapping(name="other", mongodb={"outbox": "outbox2"}, **SLOW)
    bank.outbox_program("init", "--outbox", "outbox2", check=True)
    here = {**impossible(bank, "a2"), "_id": event["_id"]}
    bank.db["outbox2"].insert_one(here)
    bank.run_once()
    assert bank.db["outbox2"].find_one()["status"] == "failed"
    assert bank.query("SELECT projector FROM projector_applied") == [{"projector": bank.name}]


# rows


def nullable(ws: Workspace) -> None:
    [projection] = bank_projections()
    projection["columns"]["balance"]["null"] = True
    ws.mapping([projection], **SLOW)
    ws.create()


@pytest.mark.parametrize("together", [True, False])
def test_a_delta_of_null_is_its_events_failure_and_changes_nothing(ws, together):
    nullable(ws)
    events = opened(ws, balance=None), deposited(ws)
    ws.put(events[0])
    if not together:
        ws.run_once()
    ws.put(events[1])
    ws.run_once()
    assert ws.found(events[0]) is None and ws.found(events[1])["status"] == "failed"
    assert row(ws)["balance"] is None
    ws.query("UPDATE account SET balance = 5")
    assert ws.projector("retry", str(events[1]["_id"])).returncode == 0
    ws.run_once()
    assert row(ws)["balance"] == Decimal("6.00")


def test_every_sign_alone_arrives_unchanged(bank):
    """Both in a text of harmless letters and in one that is not."""
    names = [f"a{chr(code)}b" for code in range(32, 127)] + ["'", "\\", "a\\", "''", "O'Brien", "x' OR 'a", "\0", "\n"]
    bank.put({**opened(bank, name), "payload": {"user_id": "u1", "name": name, "balance": decimal("1.00")}} for name in names)
    bank.put({**bank.event(name, "AccountRenamed"), "payload": {"name": name + name}} for name in names)
    bank.run_once()
    assert sorted((row["account_id"], row["name"]) for row in bank.rows("account")) == sorted((name, name + name) for name in names)


def test_rows_that_refer_to_others_are_deleted_before_them(ws):
    """The mapping file lists parents first, but a foreign key requires their children to be deleted first."""
    key = {"id": {"from": "$aggregate_id", "type": "varchar(36)"}}
    events = {"Made": {"op": "upsert"}, "Gone": {"op": "delete"}}
    ws.mapping([{"aggregate_type": "thing", "table": table, "key": key, "columns": {"n": {"from": "n", "type": "int"}},
                 "events": events} for table in ("parent", "child")], **SLOW)
    ws.create()
    ws.query("ALTER TABLE child ADD FOREIGN KEY (id) REFERENCES parent (id)")
    made, gone = ({**ws.event("t1", kind, n=1), "aggregate_type": "thing"} for kind in ("Made", "Gone"))
    ws.put(made)
    ws.run_once()
    assert len(ws.rows("child")) == 1
    ws.put(gone)
    ws.run_once()
    assert ws.found(gone) is None and ws.rows("parent") == ws.rows("child") == []


# statements


def with_statement(ws: Workspace, statement: str) -> None:
    [projection] = bank_projections()
    projection["events"]["AccountFrozen"]["statement"] = statement
    ws.mapping([projection], **SLOW)
    ws.create()


def test_a_statement_sees_nothing_that_is_not_committed(ws):
    with_statement(ws, "UPDATE account SET name = (SELECT COUNT(*) FROM note) WHERE account_id = :$aggregate_id")
    ws.query("CREATE TABLE note (id INT PRIMARY KEY)")
    ws.put(opened(ws))
    ws.run_once()
    with ws.stores.mysql(ws.name) as other, other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO note VALUES (1)")
        ws.put(ws.event("a1", "AccountFrozen"))
        ws.run_once()
        assert row(ws)["name"] == "0"
        cursor.execute("COMMIT")
    ws.put(ws.event("a1", "AccountFrozen"))
    ws.run_once()
    assert row(ws)["name"] == "1"


def test_a_statement_runs_at_read_committed_in_utc(ws):
    """What a user's own statement sees of the session is the same on each server, whatever its defaults."""
    names = "SHOW VARIABLES WHERE Variable_name IN ('transaction_isolation', 'tx_isolation')"  # the latter is MariaDB's
    isolation = ws.query(names)[0]["Variable_name"]
    with_statement(ws, f"UPDATE account SET name = CONCAT(@@{isolation}, ' ', @@time_zone) WHERE account_id = :$aggregate_id")
    ws.put(opened(ws), ws.event("a1", "AccountFrozen"))
    ws.run_once()
    assert row(ws)["name"] == "READ-COMMITTED +00:00"


def test_a_statement_whose_result_does_not_fit_is_its_events_failure(bank):
    """Never truncated, whatever the server's sql_mode."""
    bank.mapping(**SLOW)
    long = {**opened(bank), "payload": {"user_id": "u1", "name": "x" * 95, "balance": decimal("1.00")}}
    frozen = bank.event("a1", "AccountFrozen")  # appends to the name
    bank.put(long, frozen)
    bank.run_once()
    assert bank.found(frozen)["last_error"]["code"] == 1406
    assert row(bank)["name"] == "x" * 95


# refresh and skip


def test_a_refresh_never_goes_back_behind_what_was_applied(bank):
    """An entity that was reset, for example from a backup, is behind its events."""
    bank.mapping(**SLOW)
    bank.put(opened(bank, version=1), *[deposited(bank, version=n) for n in (2, 3)])
    bank.run_once()
    before, position = row(bank), bank.rows("projector_position")
    bank.accounts.insert_one({"_id": "a1", "version": 2, "user_id": "u1", "name": "Old", "balance": decimal("101.00")})
    done = bank.projector("refresh", "account", "a1")
    assert done.returncode != 0 and "the entity is at version 2, behind version 3 that was applied" in done.stderr
    assert row(bank) == before and bank.rows("projector_position") == position


def test_a_refresh_takes_no_rows_of_two_versions(ws):
    """Two tables of one aggregate, each with a separate collection of entities."""
    key = {"k": {"from": "$aggregate_id", "type": "varchar(36)"}}
    ws.mapping([{"aggregate_type": "account", "table": table, "entities": table + "s", "key": key,
                 "columns": {"n": {"from": "n", "type": "int"}}, "events": {"Made": {"op": "upsert"}}} for table in ("one", "two")], **SLOW)
    ws.create()
    ws.db["ones"].insert_one({"_id": "a1", "version": 2, "n": 2})
    ws.db["twos"].insert_one({"_id": "a1", "version": 3, "n": 3})
    done = ws.projector("refresh", "account", "a1")
    assert done.returncode != 0 and "differ in version" in done.stderr
    assert ws.rows("one") == ws.rows("two") == []


def test_what_a_refresh_contains_is_superseded_up_to_its_own_version(bank):
    bank.mapping(**SLOW)
    bank.accounts.insert_one({"_id": "a1", "version": 3, "last_event_at": at(0), "user_id": "u1", "name": "Ada",
                              "balance": decimal("7.00")})
    assert bank.projector("refresh", "account", "a1").returncode == 0
    events = opened(bank, version=1), deposited(bank, version=2), deposited(bank, version=3), deposited(bank, version=4)
    bank.put(*events)
    bank.run_once()
    assert [bank.ledger()[str(e["_id"])] for e in events] == ["superseded"] * 3 + ["applied"]
    assert row(bank)["balance"] == Decimal("8.00")


def test_what_sorts_before_a_skipped_event_is_not_late(ws):
    """It would fail as a late update without entities."""
    [projection] = bank_projections()
    del projection["entities"]
    ws.mapping([projection], **SLOW)
    ws.create()
    bad = impossible(ws, at=at(20))
    ws.put(opened(ws, at=at(0)), bad)
    ws.run_once()
    assert ws.projector("skip", str(bad["_id"])).returncode == 0
    earlier = ws.event("a1", "AccountRenamed", at=at(10), name="Ada L.")
    ws.put(earlier)
    ws.run_once()
    assert ws.ledger()[str(earlier["_id"])] == "applied" and row(ws)["name"] == "Ada L."


def test_a_skipped_event_that_is_sent_again_stays_skipped(bank):
    bank.mapping(**SLOW)
    bad = deposited(bank)  # no row yet
    bank.put(bad)
    bank.run_once()
    assert bank.projector("skip", str(bad["_id"])).returncode == 0
    bank.put(opened(bank), bad)
    bank.run_once()
    assert bank.outbox.find_one() is None
    assert bank.ledger()[str(bad["_id"])] == "skipped" and row(bank)["balance"] == Decimal("100.00")


def test_a_retry_is_seen_at_once(bank):
    bank.mapping(**{**QUIET, "permanent": "dead"}, max_attempts=2)
    bad = impossible(bank)
    with bank.start_projector():
        bank.put(bad)
        dead = bank.wait_status(bad, "dead")
        bank.outbox.update_one({"_id": bad["_id"]}, {"$set": {"payload.amount": decimal("1.00"), "attempts": 2}})
        bank.put(first := opened(bank, at=at(0)))
        bank.wait_gone(first)
        assert bank.found(bad)["status"] == "dead" and dead["attempts"] == 1
        assert bank.projector("retry", str(bad["_id"])).returncode == 0
        bank.wait_drained()
    assert row(bank)["balance"] == Decimal("101.00")


def test_a_retried_event_has_all_its_attempts_before_it(bank):
    bank.mapping(**SLOW, max_attempts=2)
    bad = {**impossible(bank), "status": "dead", "attempts": 2}
    bank.put(bad)
    assert bank.projector("retry", str(bad["_id"])).returncode == 0
    bank.run_once()
    assert (bank.found(bad)["status"], bank.found(bad)["attempts"]) == ("failed", 1)


def test_a_retried_event_shows_no_time_of_a_next_attempt(bank):
    """It is tried at once."""
    bank.put({**(event := opened(bank)), "status": "failed", "attempts": 2, "next_attempt_at": datetime(2100, 1, 1)})
    assert bank.projector("retry", str(event["_id"])).returncode == 0
    assert bank.found(event) == {**event, "status": "pending", "attempts": 0}


def test_a_command_takes_over_only_what_is_failed_or_dead(bank):
    bank.mapping(**SLOW)
    bank.put(pending := opened(bank), taken := {**opened(bank, "a2"), "status": "in_progress", "claimed_by": "elsewhere:1#1"})
    for command in ("retry", "skip"):
        for event in (pending, taken):
            assert bank.projector(command, str(event["_id"])).returncode == 1
            assert bank.found(event) == event
