"""Rows of entities of which the projector knows little: no event, no time."""

from __future__ import annotations

import json
import re

import pytest
from bson import Int64

from entities import account
from test_projector_rebuild import deposit, rebuild, sums
from test_projector_reconcile import differences, reconcile
from workspace import bank_projections, decimal


def test_entities_that_never_had_an_event(bank):
    bank.accounts.insert_many(account(n, version=Int64(3)) for n in range(5))
    assert sums(rebuild(bank))["entities"] == 5
    deposit(bank, "a1", 4, "5.00")
    bank.run_once()
    assert bank.rows("account")[1]["balance"] == decimal("15.50").to_decimal()
    assert differences(reconcile(bank)) == []


def without_time(number: int) -> dict:
    """As a writer that is not ours keeps it."""
    return {key: value for key, value in account(number, version=Int64(3)).items() if key != "last_event_at"}


@pytest.mark.parametrize("command", [["rebuild"], ["rebuild", "--shadow", "--drop-old"], ["reconcile", "--repair"], ["refresh", "account", "a1"]],
                         ids=lambda command: " ".join(command[:2]))
def test_an_entity_that_tells_no_time_gets_a_row_if_nobody_compares_its_time(bank, command):
    bank.accounts.insert_one(without_time(1))
    for _ in "at first", "again, with a position that no event made":
        done = bank.projector(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        [row] = bank.rows("account")
        assert row["balance"] == decimal("10.50").to_decimal() and row["updated_at"].year > 2024
        assert differences(reconcile(bank)) == []
        bank.query("UPDATE account SET balance = 0")


@pytest.mark.parametrize("ignored", [False, True])
def test_a_time_that_is_compared_is_never_made_up(ws, ignored):
    """An event that is ignored makes a position, but applies nothing."""
    [projection] = bank_projections()
    projection["columns"]["updated_at"].pop("compare")
    ws.mapping([projection])
    ws.create()
    ws.accounts.insert_one(without_time(1))
    if ignored:
        ws.put(ws.event("a1", "StatementSent", 3))
        ws.run_once()
        explained = json.loads(ws.projector("explain", "account", "a1", "--json").stdout)
        assert explained["position"] == {"version": 3, "event_id": None, "occurred_at": None, "refreshed_version": None}
        assert re.search("accounted for up to version 3\n +no event was applied", ws.projector("explain", "account", "a1").stdout)
    done = ws.projector("rebuild")
    assert done.returncode == 1 and "$occurred_at: expected datetime(3), found nothing" in done.stdout + done.stderr
    assert ws.rows("account") == []


@pytest.mark.parametrize("compared", [0, 1], ids=["the first compares", "the second compares"])
@pytest.mark.parametrize("command", [["rebuild"], ["refresh", "account", "a1"]], ids=lambda command: command[0])
def test_of_two_projections_neither_makes_up_what_the_other_compares(ws, command, compared):
    projections = bank_projections() + [{**bank_projections()[0], "table": "account_too"}]
    projections[compared]["columns"]["updated_at"].pop("compare")
    ws.mapping(projections)
    ws.create()
    ws.accounts.insert_one(without_time(1))
    done = ws.projector(*command)
    assert done.returncode == 1 and "$occurred_at: expected datetime(3), found nothing" in done.stdout + done.stderr
    assert ws.rows("account") == ws.rows("account_too") == []
