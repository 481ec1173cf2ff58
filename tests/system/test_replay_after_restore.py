"""replay: of a MySQL that was restored to an earlier state no delta counts twice: what it has lost comes back by itself."""

from __future__ import annotations

from decimal import Decimal

import pytest

from bank import SHORT_LEASE
from replays import ARCHIVE, bank, entity, fold, opened, shown
from test_projector_rebuild import state_folder
from test_projector_takeover import back_up, restore
from workspace import WAIT_S, Workspace, bank_projections, decimal

__all__ = ["bank", "state_folder"]


def replay(ws: Workspace, *arguments: str, status: int = 0) -> str:
    done = ws.projector("replay", "--projection", "account", "--drop-old", *arguments, timeout=2 * WAIT_S)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return done.stderr


def deposit(ws: Workspace, account: str, version: int) -> dict:
    return ws.event(account, "MoneyDeposited", version, amount=decimal("5.00"))


def lose(ws: Workspace, before: list[dict], lost: list[dict]) -> None:
    """MySQL is restored to the state before the lost events, and the projector goes on with it."""
    ws.put(before)
    ws.run_once()
    back_up(ws)
    ws.put(lost)
    ws.run_once()
    restore(ws)
    adopted = ws.projector("run", "--once", "--adopt")
    assert adopted.returncode == 0, adopted.stderr


def test_it_is_refused_until_the_positions_have_moved(bank):
    events = [opened(bank, "a1"), deposit(bank, "a1", 2), deposit(bank, "a1", 3), deposit(bank, "a1", 4)]
    lose(bank, events[:2], events[2:])
    said = replay(bank, status=2)
    assert f"MySQL has lost 2 events that were applied before (the first: {events[2]['_id']}, version 3 of account a1)" in said
    assert "reconcile --repair" in said and "--force" in said
    assert shown(bank) == fold(events[:2])
    bank.accounts.insert_one(entity("a1", 4, balance=decimal("25.00")))
    assert bank.projector("reconcile", "--repair").returncode == 0
    replay(bank)
    events.append(deposit(bank, "a1", 5))
    bank.put(events[-1])
    bank.run_once()
    assert shown(bank) == fold(events) == {"a1": ("Ada a1", Decimal("30.00"))}


@pytest.mark.thorough
def test_or_until_what_was_lost_has_come_back(bank):
    events = [opened(bank, "a1"), deposit(bank, "a1", 2), deposit(bank, "a1", 3)]
    lose(bank, events[:2], events[2:])
    replay(bank, status=2)
    events.append(deposit(bank, "a1", 4))
    bank.put(events[-1])
    bank.run_once()
    replay(bank)
    assert shown(bank) == fold(events)


def test_force_accepts_it(bank):
    events = [opened(bank, "a1"), deposit(bank, "a1", 2), deposit(bank, "a1", 3)]
    lose(bank, events[:1], events[1:])
    replay(bank, "--force")
    assert shown(bank) == fold(events)


@pytest.mark.thorough
def test_an_aggregate_that_mysql_has_never_seen_comes_back_from_its_first_event(bank):
    events = [opened(bank, "a1"), opened(bank, "b1"), deposit(bank, "b1", 2)]
    lose(bank, events[:1], events[1:])
    replay(bank)
    events.append(deposit(bank, "b1", 3))
    bank.put(events[-1])
    bank.run_once()
    assert shown(bank) == fold(events)


@pytest.mark.parametrize("sql", [False, True], ids=["overwrites", "counts"])
def test_only_a_projection_that_counts_is_refused(bank, sql):
    """A statement may count."""
    [projection] = bank_projections()
    statement = projection["events"]["AccountFrozen"]
    projection["events"] = {"AccountOpened": {"op": "upsert"}, "AccountRenamed": {"op": "update", "columns": ["name"]},
                            "AccountFrozen": statement if sql else {"op": "ignore"}}
    bank.mapping([projection], **ARCHIVE, **SHORT_LEASE)
    events = [opened(bank, "a1"), bank.event("a1", "AccountRenamed", 2, name="Bob"), bank.event("a1", "AccountFrozen", 3)]
    lose(bank, events[:1], events[1:])
    replay(bank, status=2 if sql else 0)
    assert shown(bank) == fold(events[:1] if sql else events[:2])


def test_what_the_ledger_has_forgotten_is_not_lost(bank):
    events = [opened(bank, "a1"), deposit(bank, "a1", 2), deposit(bank, "a1", 3)]
    bank.put(events)
    bank.run_once()
    bank.query("DELETE FROM projector_applied")
    replay(bank)
    assert shown(bank) == fold(events)
