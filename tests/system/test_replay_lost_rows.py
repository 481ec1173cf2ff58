"""replay: no row that the live table shows goes missing without being named, whatever the archive lacks."""

from __future__ import annotations

import json
import subprocess

import pytest

from bank import SHORT_LEASE
from replays import ARCHIVE, bank, fold, leftovers, life, opened, shown
from test_projector_children import ORDERS, lines, order, place
from test_projector_rebuild import start, state_folder, waiting
from test_soft_delete_marks import CLOSED, customers, table
from workspace import WAIT_S, Workspace, decimal

__all__ = ["bank", "state_folder"]
MANY = 12000  # rows: several pages


def replay(ws: Workspace, table: str, *arguments: str, status: int = 0) -> subprocess.CompletedProcess:
    done = ws.projector("replay", "--projection", table, *arguments, timeout=2 * WAIT_S)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done


def long_ago(ws: Workspace) -> None:
    """What is applied was applied before the last minute, into which a replay looks back with the ledger."""
    ws.query("UPDATE projector_applied SET applied_at = applied_at - INTERVAL 1 HOUR")


def refused(ws: Workspace, table: str, says: str) -> None:
    done = replay(ws, table, status=2)
    assert f"the swap would lose them: {says}; nothing was swapped" in done.stderr
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


def test_rows_of_every_page_are_counted(bank):
    bank.put([opened(bank, "a1"), opened(bank, "z1")])
    bank.run_once()
    with bank.stores.mysql(bank.name) as session, session.cursor() as cursor:
        cursor.executemany("INSERT INTO account SELECT %s, user_id, name, balance, opened_at, updated_at FROM account"
                           " WHERE account_id = 'a1'", [f"m{n}" for n in range(MANY)])
        session.commit()
    refused(bank, "account", f"{MANY} of account (the first: account_id = m0)")


def test_a_row_that_comes_at_the_last_moment(bank):
    """A repair may write it, from an entity without archived events."""
    bank.put(life(bank, 3, 3))
    bank.run_once()
    with bank.stores.mysql(bank.name) as other, other.cursor() as cursor:
        cursor.execute("START TRANSACTION")
        cursor.execute("SELECT * FROM projector_fence")
        process = start(bank, "replay", "--projection", "account")
        bank.wait(lambda: waiting(bank, "LOCK TABLES projector_fence WRITE"), what="the gate")
        bank.query("INSERT INTO account SELECT 'late', user_id, name, balance, opened_at, updated_at FROM account LIMIT 1")
        other.rollback()
        assert process.wait(WAIT_S) == 2
    assert "1 of account (the first: account_id = late)" in process.stderr.read()
    assert len(bank.rows("account")) == 4
    bank.put(bank.event("a1", "MoneyDeposited", 4, amount=decimal("1.00")))
    bank.run_once()  # the gate is open again
    bank.wait_drained()


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


@pytest.mark.parametrize("whole", [True, False], ids=["aggregate", "rows"])
def test_rows_of_child_tables(ws, whole):
    ws.mapping([ORDERS], **ARCHIVE, backoff_ms=20)
    ws.create()
    place(ws, order(1, "apple 1", "pear 2", tags=["t"]), order(2, "fig 3"))
    ws.run_once()
    long_ago(ws)
    if whole:
        ws.db["outbox_archive"].delete_many({"aggregate_id": "o1"})
        says = "1 of orders (the first: order_id = o1), 2 of order_line (the first: order_id = o1, line_no = 0)"
        says += ", 1 of order_tag (the first: order_id = o1, tag = t)"
    else:  # a refresh may have taken them from an entity whose events have none
        ws.query("INSERT INTO order_line VALUES ('o2', 1, 'kiwi', 5)")
        says = "1 of order_line (the first: order_id = o2, line_no = 1)"
    before = ws.rows("orders"), lines(ws)
    refused(ws, "orders", says)
    assert (ws.rows("orders"), lines(ws)) == before
    replay(ws, "orders", "--force")
    assert lines(ws) == ({"o2": ["fig 3"]} if whole else {"o1": ["apple 1", "pear 2"], "o2": ["fig 3"]})
