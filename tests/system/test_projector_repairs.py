"""Repairs and rebuilds: what they leave alone, and what they retry."""

from __future__ import annotations

import json

import pytest

from bank import opened
from workspace import WAIT_S, Workspace, decimal

SLOW = {"backoff_ms": 300000}


@pytest.fixture(autouse=True)
def state_folder(ws, tmp_path):
    ws.environment["XDG_STATE_HOME"] = str(tmp_path / "state")


def entity(ws: Workspace, version: int = 1, account: str = "a1") -> dict:
    return {"_id": account, "version": version, "last_event_at": ws.event(account, "x")["occurred_at"], "user_id": "u1",
            "name": "Ada", "balance": decimal("10.00")}


def test_a_dead_event_that_the_entity_does_not_contain_stays_dead(bank):
    bank.mapping(**SLOW, gap_wait_ms=0)
    dead = {**bank.event("a1", "MoneyDeposited", 5, amount="much"), "status": "dead", "attempts": 10}
    bank.accounts.insert_one(entity(bank))
    bank.put(opened(bank, version=1, balance="10.00"), dead)
    bank.run_once()
    done = bank.projector("reconcile", "--repair", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    [told] = [line for line in lines if line.get("difference") == "dead event"]
    assert done.returncode == 1 and not told["mended"]
    assert bank.found(dead) == dead


def test_a_repair_that_meets_a_lock_is_run_again(bank):
    bank.mapping(**SLOW)
    bank.accounts.insert_one(entity(bank))
    bank.put(opened(bank, version=1, balance="10.00"))
    bank.run_once()
    bank.query("UPDATE account SET name = 'Eve'")
    with bank.stores.mysql(bank.name) as lock, lock.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM projector_fence FOR UPDATE")
        with bank.start_command("reconcile", "--repair") as repair:
            bank.wait_lock_wait("INSERT INTO projector_fence")
            for session in bank.query("SHOW FULL PROCESSLIST"):
                if session["db"] == bank.name and (session["Info"] or "").startswith("INSERT INTO projector_fence"):
                    bank.query(f"KILL QUERY {session['Id']}")
            cursor.execute("COMMIT")
            assert repair.popen.wait(WAIT_S) == 0
    assert bank.rows("account")[0]["name"] == "Ada"
