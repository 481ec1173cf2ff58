"""replay: no row that the live table shows goes missing without being named, whatever the archive lacks."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import contextmanager
from typing import Iterator

import pytest

from bank import SHORT_LEASE
from replays import ARCHIVE, bank, entity, fold, leftovers, life, opened, shown
from test_projector_children import ORDERS, lines, order, place
from test_projector_rebuild import start, state_folder, waiting
from test_soft_delete_marks import CLOSED, customers, table
from workspace import WAIT_S, Workspace, decimal

__all__ = ["bank", "state_folder"]
MANY = 1200  # aggregates: several pages, and more than are counted while `run` waits
SCANNED = 5000  # positions at a time


def replay(ws: Workspace, table: str, *arguments: str, status: int = 0) -> subprocess.CompletedProcess:
    done = ws.projector("replay", "--projection", table, *arguments, timeout=2 * WAIT_S)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done


def long_ago(ws: Workspace) -> None:
    """What is applied was applied before the last minute, into which a replay looks back with the ledger."""
    ws.query("UPDATE projector_applied SET applied_at = applied_at - INTERVAL 1 HOUR")


def refused(ws: Workspace, table: str, says: str) -> None:
    done = replay(ws, table, status=2)
    assert f"the archive has no events to make these rows from, and the swap would lose them: {says}; nothing was swapped" in done.stderr
    assert "rebuild" in done.stderr and "--force" in done.stderr


def test_an_archive_that_began_later(bank):
    """Its first events were deleted, not archived."""
    bank.mapping(**SHORT_LEASE)
    bank.put(life(bank, 3, 4))
    bank.run_once()
    long_ago(bank)
    bank.mapping(**ARCHIVE, **SHORT_LEASE)
    later = life(bank, 2, 3, prefix="b")
    bank.put(later)
    bank.run_once()
    before = bank.rows("account")
    refused(bank, "account", "3 of account (the first: account_id = a0)")
    assert bank.rows("account") == before
    done = replay(bank, "account", "--force")
    assert "rows lost, because no replayed event makes them: 3 of account (the first: account_id = a0)" in done.stdout
    assert shown(bank) == fold(later) and bank.rows("account__old") == before


@pytest.mark.thorough
def test_a_refused_replay_continues_with_force(bank):
    events = life(bank, 4, 3)
    bank.put(events)
    bank.run_once()
    long_ago(bank)
    bank.db["outbox_archive"].delete_many({"aggregate_id": {"$in": ["a1", "a3"]}})
    refused(bank, "account", "2 of account (the first: account_id = a1)")
    done = replay(bank, "account", "--force", "--drop-old", "--json")
    assert json.loads(done.stdout)["lost_rows"] == 2 and "continues with account__replay" in done.stderr
    assert shown(bank) == fold(e for e in events if e["aggregate_id"] in ("a0", "a2"))
    assert leftovers(bank) == ([], [])
    assert json.loads(replay(bank, "account", "--drop-old", "--json").stdout)["lost_rows"] == 0


def project(ws: Workspace, accounts: list[str], position: bool = True) -> None:
    """Rows as of a refresh; without a position as of somebody else."""
    with ws.stores.mysql(ws.name) as session, session.cursor() as cursor:
        cursor.executemany("INSERT INTO account SELECT %s, user_id, name, balance, opened_at, updated_at FROM account"
                           " WHERE account_id = 'a1'", accounts)
        if position:
            cursor.executemany("INSERT INTO projector_position SELECT projector, aggregate_type, aggregate_id_kind, %s, occurred_at, version,"
                               " event_id_kind, event_id, max_version, refreshed_version FROM projector_position"
                               f" WHERE aggregate_id = 'a1' AND projector = '{ws.name}'", accounts)
        session.commit()


@pytest.mark.thorough
def test_rows_of_every_page_are_counted(bank):
    bank.put([opened(bank, "a1"), opened(bank, "z1")])
    bank.run_once()
    project(bank, [f"m{n}" for n in range(MANY)])
    told = re.search(r"lose them: at least (\d+) of account \(the first: account_id = m0\)", replay(bank, "account", status=2).stderr)
    assert told and int(told[1]) <= 1000  # fewer on a machine that does not count as many in time


def test_rows_that_are_nobodys_go_as_ever(bank):
    """A replay mends a table: what was put in by hand, and what the events have removed, goes."""
    events = life(bank, 3, 3)
    closed = [opened(bank, "gone"), bank.event("gone", "AccountClosed", 2)]
    bank.put(events, closed)
    bank.run_once()
    project(bank, ["gone", "by hand"], position=False)
    assert json.loads(replay(bank, "account", "--drop-old", "--json").stdout)["lost_rows"] == 0
    assert shown(bank) == fold(events)


def test_aggregates_of_rows_with_keys_of_their_own(ws):
    """Their rows cannot be found by their aggregates, which are counted instead."""
    ws.mapping([{"aggregate_type": "account", "table": "entry", "key": {"number": {"from": "number", "type": "int"}}, "columns": {},
                 "events": {"Booked": {"op": "upsert"}}}], **ARCHIVE, backoff_ms=20)
    ws.create()
    ws.put(ws.event(account, "Booked", 1, number=n) for n, account in enumerate(("a1", "a2", "a3")))
    ws.run_once()
    long_ago(ws)
    ws.db["outbox_archive"].delete_many({"aggregate_id": {"$ne": "a2"}})
    refused(ws, "entry", "those of 2 aggregates of entry (the first: account a1)")
    replay(ws, "entry", "--force")
    assert [row["number"] for row in ws.rows("entry")] == [1]


def test_what_an_operator_has_skipped_or_leaves_out_is_not_lost(ws):
    """The archive has these events: that they make no row is what was asked for."""
    ws.mapping([{"aggregate_type": "account", "table": "entry", "key": {"number": {"from": "number", "type": "int"}}, "columns": {},
                 "events": {"Booked": {"op": "upsert"}}}], **ARCHIVE, backoff_ms=300000)
    ws.create()
    events = [ws.event(account, "Booked", 1, number=number) for account, number in (("a1", 1), ("a2", "two"), ("a3", 3))]
    ws.put(events)
    ws.run_once()
    assert ws.projector("skip", str(events[1]["_id"])).returncode == 0
    ws.wait(lambda: ws.db["outbox_archive"].count_documents({}) == 3, what="the archive")
    replay(ws, "entry", "--skip", str(events[2]["_id"]), "--drop-old")
    assert [row["number"] for row in ws.rows("entry")] == [1]


@pytest.mark.thorough
def test_a_row_of_a_refresh_after_a_skip_is_lost(bank):
    """No event makes it, although the archive has one."""
    bank.mapping(**ARCHIVE, backoff_ms=300000)
    bad = opened(bank, "a2")
    bad["payload"]["name"] = "x" * 101
    bank.put(opened(bank, "a1"), bad)
    bank.run_once()
    assert bank.projector("skip", str(bad["_id"])).returncode == 0
    bank.wait(lambda: bank.db["outbox_archive"].count_documents({}) == 2, what="the archive")
    bank.accounts.insert_one(entity("a2", 1))
    assert bank.projector("refresh", "account", "a2").returncode == 0
    refused(bank, "account", "1 of account (the first: account_id = a2)")
    replay(bank, "account", "--force")
    assert set(shown(bank)) == {"a1"}


@contextmanager
def before_the_gate_closes(ws: Workspace) -> Iterator[subprocess.Popen]:
    """A replay that is about to look for the rows that would be lost; afterwards it does, and finds some."""
    with ws.stores.mysql(ws.name) as other, other.cursor() as cursor:
        cursor.execute("START TRANSACTION")
        cursor.execute("SELECT * FROM projector_fence")
        process = start(ws, "replay", "--projection", "account")
        ws.wait(lambda: waiting(ws, "LOCK TABLES projector_fence WRITE"), what="the gate")
        yield process
        other.rollback()
        assert process.wait(WAIT_S) == 2


def test_a_row_that_comes_at_the_last_moment(bank):
    """A repair may write it, from an entity without archived events."""
    bank.put(life(bank, 3, 3))
    bank.run_once()
    with before_the_gate_closes(bank) as process:
        project(bank, ["late"])
    assert "1 of account (the first: account_id = late)" in process.stderr.read()
    assert len(bank.rows("account")) == 4
    bank.put(bank.event("a1", "MoneyDeposited", 4, amount=decimal("1.00")))
    bank.run_once()  # the gate is open again
    bank.wait_drained()


@pytest.mark.thorough
@pytest.mark.whole_server  # failCommand
def test_the_counting_ends_when_it_takes_long(bank):
    """Each look into the archive takes longer than the owner may wait: after the first, one row is named, and that is enough."""
    bank.put(life(bank, 3, 3))
    bank.run_once()
    try:
        with before_the_gate_closes(bank) as process:
            project(bank, ["late", "later", "latest"])
            bank.mongo.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data={
                "failCommands": ["find"], "blockConnection": True, "blockTimeMS": 4500, "appName": "projector"})
    finally:
        bank.mongo.admin.command("configureFailPoint", "failCommand", mode="off")
    assert "at least 1 of account (the first: account_id = late)" in process.stderr.read()


@contextmanager
def slow_log(ws: Workspace) -> Iterator[None]:
    """mysql.slow_log gets every statement of new sessions."""
    [before] = ws.query("SELECT @@GLOBAL.log_output AS log_output, @@GLOBAL.long_query_time AS long_query_time, @@GLOBAL.slow_query_log AS slow_query_log")
    try:
        ws.query("SET GLOBAL log_output = 'TABLE', GLOBAL long_query_time = 0, GLOBAL slow_query_log = 1")
        yield
    finally:
        ws.query("SET GLOBAL slow_query_log = %s, GLOBAL long_query_time = %s, GLOBAL log_output = %s",
                 before["slow_query_log"], before["long_query_time"], before["log_output"])


@pytest.mark.thorough
@pytest.mark.whole_server  # its slow log
def test_no_statement_scans_all_positions(bank):
    """Nearly all have one in the replay, so that little is found in many."""
    digits = "(SELECT 0 AS d" + "".join(f" UNION ALL SELECT {n}" for n in range(1, 10)) + ")"
    thousands = f"(SELECT 0 AS d{''.join(f' UNION ALL SELECT {n}' for n in range(1, 6 * SCANNED // 1000))})"
    bank.put(life(bank, 3, 3))
    bank.run_once()
    with slow_log(bank), before_the_gate_closes(bank) as process:
        for name in bank.name, f"{bank.name}/account":
            bank.query("INSERT INTO projector_position SELECT %s, aggregate_type, aggregate_id_kind, CONCAT('m', 1000 * m.d + 100 * c.d + 10 * x.d + i.d),"
                       " occurred_at, version, event_id_kind, event_id, max_version, refreshed_version FROM projector_position"
                       f" JOIN {thousands} m JOIN {digits} c JOIN {digits} x JOIN {digits} i WHERE projector = %s"
                       " AND aggregate_type = 'account' AND aggregate_id_kind = 'string' AND aggregate_id = 'a1'", name, bank.name)
        project(bank, ["z1"])
    assert "them: 1 of account (the first: account_id = z1)" in process.stderr.read()
    examined = [row["rows_examined"] for row in bank.query(
        "SELECT sql_text, rows_examined FROM mysql.slow_log WHERE db = %s AND sql_text LIKE '%%FROM projector_position p%%'", bank.name)]
    assert SCANNED <= max(examined) <= 2 * SCANNED + 10 and len(examined) > 6, examined  # each with the replay's


def test_rows_that_are_marked_as_deleted(ws):
    ws.mapping([customers()], **ARCHIVE, backoff_ms=20, gap_wait_ms=0)
    ws.create()
    for id in "c1", "c2":
        ws.put(ws.event(id, "Opened", 1, kind="web"), ws.event(id, "Closed", 2, closed_at=CLOSED, reason="left"))
    ws.put(ws.event("c3", "Opened", 1, kind="web"))
    ws.run_once()
    before = table(ws)
    replay(ws, "customer", "--drop-old")
    assert table(ws) == before and before["c1"][2] == CLOSED
    long_ago(ws)
    ws.db["outbox_archive"].delete_many({"aggregate_id": "c2"})
    refused(ws, "customer", "1 of customer (the first: id = c2)")
    assert table(ws) == before


@pytest.mark.thorough
def test_rows_of_child_tables(ws):
    """They go with their parent's. Where the order was replayed, its events decide."""
    ws.mapping([ORDERS], **ARCHIVE, backoff_ms=20)
    ws.create()
    place(ws, order(1, "apple 1", "pear 2", tags=["t"]), order(2, "fig 3"))
    ws.run_once()
    long_ago(ws)
    ws.query("INSERT INTO order_line VALUES ('o2', 1, 'kiwi', 5)")
    archived = list(ws.db["outbox_archive"].find({"aggregate_id": "o1"}))
    ws.db["outbox_archive"].delete_many({"aggregate_id": "o1"})
    before = ws.rows("orders"), lines(ws)
    refused(ws, "orders", "1 of orders (the first: order_id = o1)")
    assert (ws.rows("orders"), lines(ws)) == before
    ws.db["outbox_archive"].insert_many(archived)
    replay(ws, "orders")
    assert lines(ws) == {"o1": ["apple 1", "pear 2"], "o2": ["fig 3"]}


def test_an_event_that_can_no_longer_be_read_is_told(bank):
    """An earlier build took it."""
    events = life(bank, 2, 3)
    bank.put(events)
    bank.run_once()
    bank.db["outbox_archive"].insert_one({**bank.event("a0", "MoneyDeposited", 4, amount=decimal("1.00")), "payload": "no document"})
    done = replay(bank, "account", "--drop-old", "--json")
    assert json.loads(done.stdout)["unreadable"] == 1 and "cannot be read, and is left out: payload: expected" in done.stderr
    assert "because they cannot be read: 1" in replay(bank, "account", "--drop-old").stdout
    assert shown(bank) == fold(events)


def test_what_a_large_rehearsal_left_in_the_ledger_is_removed(bank):
    """Events that it had applied to a table which is gone would be left out of the new one."""
    events = life(bank, 3, 3)
    bank.put(events)
    bank.run_once()
    ids = [*(f"'int', '{n}'" for n in range(20001)), *(f"'uuid', '{event['_id']}'" for event in events)]
    bank.query("INSERT INTO projector_applied (projector, event_id_kind, event_id, outcome) VALUES "
               + ",".join(f"('{bank.name}/account', {one}, 'applied')" for one in ids))
    replay(bank, "account", "--drop-old")
    assert shown(bank) == fold(events) and leftovers(bank) == ([], [])
