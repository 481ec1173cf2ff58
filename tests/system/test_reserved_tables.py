"""replay and rebuild --shadow: one of them at a time builds beside a table, and the next one is told which."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import Iterator

import pytest

from entities import account, fill
from forwarding import forgetting, recording
from replays import ARCHIVE, bank, fold, leftovers, life, shown
from test_projector_rebuild import start, state_folder, waiting
from workspace import WAIT_S, Workspace

__all__ = ["bank", "state_folder"]
REPLAY = "replay", "--projection", "account"
SHADOW = "rebuild", "--shadow", "account"
RESERVED = "SHA2(CONCAT(DATABASE(), '/account'), 256)"


@pytest.fixture
def events(bank) -> list[dict]:
    bank.mapping(**ARCHIVE, backoff_ms=20, mysql={"lock_wait_s": 60})  # while others are refused
    bank.put(events := life(bank, 3, 3))
    bank.run_once()
    return events


@contextmanager
def held_up(ws: Workspace, *command: str) -> Iterator[subprocess.Popen]:
    """The command waits for the fence, with its table reserved, until this ends."""
    with ws.stores.mysql(ws.name) as owner, owner.cursor() as cursor:
        cursor.execute("START TRANSACTION")
        cursor.execute("SELECT * FROM projector_fence WHERE projector = %s AND part = 0 LOCK IN SHARE MODE", (ws.name,))
        process = start(ws, *command)
        ws.wait(lambda: waiting(ws, "LOCK TABLES projector_fence WRITE") or waiting(ws, "INSERT INTO projector_fence"),
                what=f"{command} to wait")
        yield process


def refused(ws: Workspace, *command: str, says: str) -> None:
    done = ws.projector(*command, timeout=2 * WAIT_S)
    assert done.returncode == 2 and says in done.stderr, (done.returncode, done.stderr)


@pytest.mark.thorough
def test_a_second_replay_is_refused(bank, events):
    with held_up(bank, *REPLAY, "--drop-old") as first:
        refused(bank, *REPLAY, says="another replay of account is running")
        refused(bank, *REPLAY, "--restart", says="another replay of account is running")
        refused(bank, *REPLAY, "--to", "2100-01-01T00:00:00Z", says="another replay of account is running")
        refused(bank, *SHADOW, says="a replay of account is running")
    assert first.wait(WAIT_S) == 0, first.stderr.read()
    assert shown(bank) == fold(events) and leftovers(bank) == ([], [])


@pytest.mark.thorough
def test_a_replay_beside_a_rebuild_is_refused(bank, events):
    with held_up(bank, *SHADOW) as first:
        refused(bank, *REPLAY, says="a rebuild --shadow of account is running")
        refused(bank, *SHADOW, says="another rebuild --shadow of account is running")
    first.wait(WAIT_S)


def test_a_replay_that_was_killed_is_continued_at_once(bank, events):
    with held_up(bank, *REPLAY) as first:
        bank.wait(lambda: all(leftovers(bank)), what="a table and a ledger to continue with")
        first.kill()
        first.wait(WAIT_S)
        second = start(bank, *REPLAY, "--drop-old")
    assert second.wait(WAIT_S) == 0
    assert "continues with account__replay" in second.stderr.read()
    assert shown(bank) == fold(events) and leftovers(bank) == ([], [])


@pytest.mark.parametrize("taken", [False, True], ids=["free", "taken"])
def test_a_reservation_that_was_lost_is_taken_anew(bank, events, taken):
    """Its connection is silent for as long as the replay lasts; something on the way may drop it."""
    with bank.stores.mysql(bank.name) as other, other.cursor() as cursor:
        with held_up(bank, *REPLAY, "--drop-old") as first:
            bank.query(f"KILL {bank.query(f'SELECT IS_USED_LOCK({RESERVED}) AS id')[0]['id']}")
            if taken:
                bank.wait(lambda: bank.query(f"SELECT IS_FREE_LOCK({RESERVED}) AS free")[0]["free"], what="the session's end")
                cursor.execute(f"SELECT GET_LOCK({RESERVED}, 0)")
        assert first.wait(WAIT_S) == (2 if taken else 0)
    if taken:
        assert "a rebuild --shadow of account is running" in first.stderr.read()
    assert shown(bank) == fold(events)


@contextmanager
def held_up_at_work(ws: Workspace, *command: str) -> Iterator[subprocess.Popen]:
    """The command waits to create its table, with that reserved and the gate still open."""
    with ws.stores.mysql(ws.name) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLES account WRITE")
        process = start(ws, *command)
        ws.wait(lambda: waiting(ws, "LIKE `account`"), what=f"{command} to wait")
        yield process


@pytest.mark.thorough
@pytest.mark.parametrize("command", [REPLAY, SHADOW], ids=["replay", "rebuild"])
def test_a_connection_that_only_the_server_still_has(bank, command):
    """A router has forgotten it: the server is not told, and keeps the reservation."""
    fill(bank, [account(n) for n in range(3)])
    with forgetting(bank.stores.mysql_port, b"GET_LOCK") as (port, forget):
        bank.mapping(**ARCHIVE, backoff_ms=20, mysql={"port": port})
        with held_up_at_work(bank, *command, "--drop-old") as process:
            forget()
        assert process.wait(2 * WAIT_S) == 0, process.stderr.read()
    assert len(bank.rows("account")) == 3


def test_the_connection_of_the_reservation_is_not_silent(bank, events):
    """Otherwise a router would forget it."""
    with recording(bank.stores.mysql_port) as (port, said):
        bank.mapping(**ARCHIVE, backoff_ms=20, batch=1, mysql={"port": port})
        done = bank.projector(*REPLAY, "--drop-old")
    assert done.returncode == 0, done.stderr
    before = said[:said.rindex(b"LOCK TABLES projector_fence WRITE")]
    assert before.count(b"DO 0") >= len(events)
