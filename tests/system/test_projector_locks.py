"""Rows locked by somebody else: who waits for them, and who does not."""

from __future__ import annotations

from contextlib import contextmanager
from decimal import Decimal
from typing import Iterator

import pytest
from pymysql.cursors import Cursor

from bank import FAST, deposited, opened
from endpoint import Endpoint
from workspace import WAIT_S, Workspace, bank_projections

SHORT_WAITS = {"mysql": {"lock_wait_s": 2}}  # the default of 10 s is tested once


@contextmanager
def locked(bank: Workspace, *statements: str) -> Iterator[Cursor]:
    """Locks the rows of these queries until the block ends."""
    with bank.stores.mysql(bank.name) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        for statement in statements:
            assert cursor.execute(statement + " FOR UPDATE") > 0
        yield cursor
        cursor.execute("COMMIT")


def row_of(account: str) -> str:
    return f"SELECT * FROM account FORCE INDEX (PRIMARY) WHERE account_id = '{account}'"


def position_of(account: str) -> str:
    return ("SELECT * FROM projector_position FORCE INDEX (PRIMARY) WHERE projector = DATABASE()"
            f" AND aggregate_type = 'account' AND aggregate_id_kind = 'string' AND aggregate_id = '{account}'")


def test_a_locked_row_is_waited_for(bank):
    bank.mapping(**FAST)
    bank.put(opened(bank, "a1"))
    bank.run_once()
    event = deposited(bank, "a1")
    with bank.start_projector() as projector:
        projector.wait_log("info working")
        with locked(bank, row_of("a1")):
            bank.put(event)
            bank.wait_status(event, "in_progress")
            bank.wait_lock_wait()
        bank.wait_drained()
    assert bank.rows("account")[0]["balance"] == Decimal("101.00")


def pairs() -> dict:
    """A table whose key has two columns."""
    return {"aggregate_type": "account", "table": "pair",
            "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}, "kind": {"from": "kind", "type": "int"}},
            "columns": {"coins": {"from": "coins", "type": "int"}},
            "events": {"AccountOpened": {"op": "upsert"}, "MoneyDeposited": {"op": "add", "columns": {"coins": "coins"}},
                       "AccountClosed": {"op": "delete"}}}


@pytest.mark.thorough
def test_only_the_rows_of_the_batch_are_waited_for(ws):
    """Even in tables of a few rows, which an optimizer prefers to read from end to end, others' rows included."""
    ws.mapping(bank_projections() + [pairs()], **FAST, workers=1)
    ws.create()

    def project(*events: dict) -> None:
        ws.query("ANALYZE TABLE account, pair, projector_position")
        ws.put({**event, "payload": {**event["payload"], "kind": 1, "coins": 1}} for event in events)
        assert "code=1205" not in ws.run_once().stderr

    project(opened(ws, "a2x"))
    with locked(ws, row_of("a2x"), position_of("a2x"), "SELECT * FROM pair FORCE INDEX (PRIMARY) WHERE id = 'a2x' AND kind = 1"):
        for count in 1, 2, 3, 8:
            accounts = [f"a{i}" for i in range(1, count + 1)]
            project(*(opened(ws, account) for account in accounts))
            project(*(deposited(ws, account) for account in accounts))
            project(*(ws.event(account, "AccountClosed") for account in accounts))
    assert [(row["account_id"], row["balance"]) for row in ws.rows("account")] == [("a2x", 100)]
    assert [row["id"] for row in ws.rows("pair")] == ["a2x"]


def test_positions_are_locked_in_an_order_that_others_can_keep_to(bank):
    """Whatever the order of the events: otherwise two transactions that lock the same ones would deadlock."""
    bank.mapping(**FAST, workers=1)
    bank.put(opened(bank, f"a{i}") for i in range(3))
    bank.run_once()
    bank.put(deposited(bank, f"a{i}") for i in (2, 1, 0))
    with locked(bank, position_of("a0")) as stranger, bank.start_projector("--once") as projector:
        bank.wait_lock_wait("(SELECT epoch")
        stranger.execute(position_of("a1") + " FOR UPDATE")
        stranger.execute(position_of("a2") + " FOR UPDATE")
        stranger.execute("COMMIT")
        assert projector.popen.wait(WAIT_S) == 0
        assert "code=1213" not in projector.log_text()
    assert [row["balance"] for row in bank.rows("account")] == [Decimal("101.00")] * 3


def test_events_are_applied_to_a_key_that_is_no_primary_key(bank):
    """Which index is the key's may change during a session."""
    bank.mapping(**FAST, workers=1)

    def project() -> None:
        bank.put(opened(bank, "a1"), opened(bank, "a2"))
        bank.wait_drained()
        bank.put(deposited(bank, "a1"), bank.event("a2", "AccountClosed"))
        bank.wait_drained()
        assert [(row["account_id"], row["balance"]) for row in bank.query("SELECT * FROM account")] == [("a1", Decimal("101.00"))]

    with bank.start_projector() as projector:
        project()
        bank.query("ALTER TABLE account DROP PRIMARY KEY, ADD UNIQUE KEY one (account_id)")
        project()
        projector.wait_log("code=1176")


@pytest.mark.thorough(beyond=1)
@pytest.mark.parametrize("row, together, settings", (("a1", False, SHORT_WAITS), ("a2", True, SHORT_WAITS), ("a2", True, {})),
                         ids=("before the others", "with the others", "with the others, and the default wait"))
def test_a_row_lock_does_not_keep_all_aggregates_waiting(bank, row, together, settings):
    """Each worker has the events of its own lane, so the other one continues.
    Events that share a lane with the locked one are tried without it."""
    bank.mapping(**FAST, **settings, workers=2, claim_mark_ms=100)
    bank.put(opened(bank, row))
    bank.run_once()
    event, others = deposited(bank, row), [opened(bank, f"b{i}") for i in range(8)]
    with bank.start_projector() as projector:
        projector.wait_log("info working")
        with locked(bank, row_of(row)):
            if together:
                bank.put(event, others)
            else:
                bank.put(event)
                bank.wait_lock_wait()
                bank.put(others)
            bank.wait(lambda: len(bank.rows("account")) > 1, timeout=30, what="others beside the locked row")
            bank.wait_status(event, "in_progress")
        bank.wait_drained()
    balances = {one["account_id"]: one["balance"] for one in bank.rows("account")}
    assert balances == {row: Decimal("101.00"), **{other["aggregate_id"]: Decimal("100.00") for other in others}}


@pytest.mark.thorough
def test_an_event_is_not_dead_before_the_ledger_was_asked_whether_it_was_applied(bank):
    """It was applied, and is sent again with an amount that is none, in a batch that never comes as far as the ledger."""
    bank.mapping(**FAST, workers=1, permanent="dead", http="127.0.0.1:0", mysql={"lock_wait_s": 1})
    bank.put(opened(bank, "a1"), opened(bank, "a2"), opened(bank, "a3"), once := deposited(bank, "a1"))
    bank.run_once()
    with bank.start_projector() as projector, locked(bank, position_of("a2")):
        projector.wait_log("info working")
        endpoint = Endpoint(projector)
        with locked(bank, position_of("a3")):
            bank.put(deposited(bank, "a3"))
            bank.wait_lock_wait("(SELECT epoch")
            bank.put({**once, "payload": {**once["payload"], "amount": "much"}}, deposited(bank, "a2"))
            bank.wait(lambda: endpoint.metrics()["projector_queue_events"] == 2, what="both in the queue, for one batch")
        told = projector.wait_log(rf"event (failed|dead) event={once['_id']}.* code=(\d+)", timeout=60)
        assert told.groups() == ("failed", "1205")
    bank.run_once()
    assert bank.outbox.find_one() is None
    assert [row["balance"] for row in bank.rows("account")] == [Decimal("101.00")] * 3
