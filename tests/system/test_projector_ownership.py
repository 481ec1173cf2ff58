"""One active owner: what lease, epoch and the fence's lock prevent."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Iterator

import pymysql
import pytest

from bank import deposited, opened
from claims import row_locked
from workspace import WAIT_S, Process, Workspace

PATIENT = {"lock_wait_s": 600}  # no wait for what the test has locked ends before its time
QUIET = {"backoff_ms": 20, "sweep_interval_ms": 600000, "mysql": PATIENT}  # no sweep can help
ELSEWHERE = {"owner": "elsewhere:1:0", "expires_at": datetime(2100, 1, 1)}
RAISING = "INSERT INTO projector_fence"


def now() -> datetime:
    time = datetime.now(timezone.utc).replace(tzinfo=None)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def balance(ws: Workspace, account: str = "a1") -> Decimal:
    return ws.query("SELECT balance FROM account WHERE account_id = %s", account)[0]["balance"]


def lease(ws: Workspace) -> dict:
    return ws.db["projector_leases"].find_one({"_id": ws.name})


def give_lease_away(ws: Workspace) -> None:
    ws.db["projector_leases"].update_one({"_id": ws.name}, {"$set": ELSEWHERE})


def waits_for_the_fence(ws: Workspace) -> bool:
    return any((row["Info"] or "").startswith(RAISING) for row in ws.query("SHOW FULL PROCESSLIST") if row["db"] == ws.name)


@contextmanager
def owner_in_transaction(ws: Workspace, event: dict) -> Iterator[tuple[Process, pymysql.cursors.Cursor]]:
    with ws.start_projector() as owner, row_locked(ws) as cursor:
        owner.wait_log("info working")
        ws.put(event)
        ws.wait_lock_wait()
        yield owner, cursor


def test_a_new_owner_waits_for_the_transaction_of_the_one_before_it(bank):
    """Without the fence's lock, the older transaction would commit after the newer owner has read its positions."""
    bank.mapping(**QUIET, lease_ms=3000)
    bank.put(opened(bank))
    bank.run_once()
    event = deposited(bank)
    with owner_in_transaction(bank, event) as (frozen, cursor):
        frozen.pause()
        with bank.start_projector() as other:
            bank.wait(lambda: waits_for_the_fence(bank) or "info working" in other.log_text(), what="the lease to end")
            assert "info working" not in other.log_text()
            cursor.execute("COMMIT")
            other.wait_log("info working", timeout=40)  # the server would end any other session after 60 s
            bank.wait_drained()
            frozen.resume()
            frozen.wait_log("the tenure ended")
            assert balance(bank) == Decimal("101.00")


def test_an_owner_of_an_older_epoch_commits_nothing(bank):
    bank.mapping(**QUIET)
    bank.put(opened(bank))
    with bank.start_projector() as owner:
        bank.wait_drained()
        bank.query("UPDATE projector_fence SET epoch = epoch + 1")  # as another owner would
        bank.put(deposited(bank))
        owner.wait_log("the tenure ended class=fenced .*another projector of this name works now")
        bank.wait_drained()  # it has become the owner again
    assert bank.query("SELECT epoch FROM projector_fence") == [{"epoch": 3}]
    assert balance(bank) == Decimal("101.00")


def test_each_owner_has_an_epoch_above_all_before_it(bank):
    bank.mapping(**QUIET)
    for epoch in (1, 2, 3):
        bank.run_once()
        assert bank.query("SELECT epoch FROM projector_fence") == [{"epoch": epoch}]


def test_an_owner_whose_lease_another_has_taken_stops_at_its_next_heartbeat(bank):
    bank.mapping(**QUIET, lease_ms=10000)
    with bank.start_projector() as owner:
        owner.wait_log("info working")
        give_lease_away(bank)
        owner.wait_log("the tenure ended")
        assert "another projector of this name holds the lease" in owner.log_text()
        owner.wait_log("standing by")
        event = opened(bank)
        bank.put(event)
        assert owner.stop() == 0
    assert bank.found(event) == event


def test_a_projector_that_stops_leaves_the_lease_to_the_one_that_took_over(bank):
    bank.mapping(**QUIET, lease_ms=4000)
    with bank.start_projector() as owner:
        owner.wait_log("info working")
        give_lease_away(bank)
        owner.wait_log("the tenure ended")
        assert owner.stop() == 0
    assert {key: lease(bank)[key] for key in ELSEWHERE} == ELSEWHERE


def test_a_stop_gives_the_lease_back(bank):
    bank.mapping(**QUIET, lease_ms=600000)
    with bank.start_projector() as owner:
        owner.wait_log("info working")
        assert lease(bank)["expires_at"] > now()
        assert owner.stop() == 0
    assert lease(bank)["expires_at"] == datetime(1970, 1, 1)


@pytest.mark.slow
def test_an_owner_that_cannot_prolong_its_lease_takes_nothing_more(bank):
    bank.mapping(**QUIET, lease_ms=12000)
    with bank.start_projector() as owner:
        owner.wait_log("info working")
        bank.db.command("collMod", "projector_leases", validator={"never": True})
        ended = owner.wait_log(r"^(\S+)Z error the tenure ended class=fenced .*the lease could not be renewed in time")[1]
        assert datetime.fromisoformat(ended) < lease(bank)["expires_at"]
        assert "stopped working" not in owner.log_text().split("the tenure ended")[0]  # said before anything is waited for
        event = opened(bank)
        bank.put(event)
        owner.wait_log("cannot become the owner")
        assert bank.found(event) == event
        bank.db.command("collMod", "projector_leases", validator={})
        bank.wait_drained()
    assert balance(bank) == Decimal("100.00")


def test_who_loses_the_lease_while_it_raises_the_epoch_does_not_work(bank):
    bank.mapping(**QUIET, lease_ms=600000)
    bank.run_once()
    with bank.stores.mysql(bank.name) as lock, lock.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM projector_fence FOR UPDATE")
        with bank.start_projector() as projector:
            bank.wait(lambda: waits_for_the_fence(bank), what="the projector to raise the epoch")
            give_lease_away(bank)
            cursor.execute("COMMIT")
            bank.wait(lambda: "standing by" in projector.log_text() or "info working" in projector.log_text(), what="its role")
            assert "info working" not in projector.log_text()


def test_a_lease_that_has_not_expired_is_not_taken(bank):
    bank.mapping(**QUIET)
    bank.run_once()
    give_lease_away(bank)
    event = opened(bank)
    bank.put(event)
    with bank.start_projector() as projector:
        projector.wait_log("standing by")
        assert projector.stop() == 0
    assert bank.found(event) == event and {key: lease(bank)[key] for key in ELSEWHERE} == ELSEWHERE


def test_a_command_writes_only_while_the_owner_is_locked_out(bank):
    bank.mapping(**{**QUIET, "backoff_ms": 300000})
    dead = deposited(bank, "a2")  # it meets no row
    bank.put(opened(bank), dead)
    bank.run_once()
    event = deposited(bank)
    with owner_in_transaction(bank, event) as (_, cursor), bank.start_command("skip", str(dead["_id"])) as skip:
        bank.wait(lambda: waits_for_the_fence(bank) or not skip.running, what="the command to ask for the fence")
        assert skip.running
        cursor.execute("COMMIT")
        assert skip.popen.wait(WAIT_S) == 0
        bank.wait_drained()
    assert bank.ledger()[str(dead["_id"])] == "skipped" and balance(bank) == Decimal("101.00")


def test_a_command_leaves_alone_what_is_no_longer_failed_when_its_turn_comes(bank):
    """It lists everything that is failed, and takes the events over one by one."""
    bank.mapping(**{**QUIET, "backoff_ms": 300000})
    first, second = deposited(bank, "a2"), deposited(bank, "a2")  # they meet no row
    bank.put({**first, "status": "failed"}, {**second, "status": "failed"})
    bank.run_once()
    with bank.stores.mysql(bank.name) as lock, lock.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM projector_fence FOR UPDATE")
        with bank.start_command("skip", "--aggregate", "account", "a2") as skip:
            bank.wait(lambda: waits_for_the_fence(bank), what="the command to have the first")
            taken = {"status": "in_progress", "claimed_by": "elsewhere:1#1"}
            bank.outbox.update_one({"_id": second["_id"]}, {"$set": taken})
            cursor.execute("COMMIT")
            assert skip.popen.wait(WAIT_S) == 0
    assert bank.ledger() == {str(first["_id"]): "skipped"}
    assert {key: bank.found(second)[key] for key in taken} == taken


@pytest.mark.parametrize("status", ["failed", "dead"])
def test_a_command_that_cannot_write_gives_back_what_it_had_taken(bank, status):
    bank.mapping(**{**QUIET, "mysql": {"lock_wait_s": 1}})
    bank.run_once()
    event = {**deposited(bank), "status": status, "attempts": 2}
    bank.put(event)
    with bank.stores.mysql(bank.name) as lock, lock.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM projector_fence FOR UPDATE")
        done = bank.projector("skip", str(event["_id"]))
        assert done.returncode != 0 and "Lock wait timeout" in done.stderr, done.stderr
    assert bank.found(event) == event and bank.ledger() == {}
    assert bank.projector("skip", str(event["_id"])).returncode == 0
    assert bank.found(event) is None and bank.ledger() == {str(event["_id"]): "skipped"}


def test_a_position_that_is_read_is_locked_until_the_transaction_ends(bank):
    bank.mapping(**QUIET)
    bank.put(opened(bank))
    bank.run_once()
    select = "SELECT * FROM projector_position WHERE aggregate_id = 'a1' FOR UPDATE NOWAIT"
    with owner_in_transaction(bank, deposited(bank)) as (_, cursor):
        with pytest.raises(pymysql.MySQLError) as refused:
            bank.query(select)
        assert refused.value.args[0] in (1205, 3572)
        cursor.execute("COMMIT")
        bank.wait_drained()
    assert len(bank.query(select)) == 1


@pytest.mark.parametrize("age", [timedelta(0), timedelta(hours=1)])
def test_a_new_owner_leaves_alone_what_a_command_has_just_seized(bank, age):
    """If the command has died, its claim ages, and the event is what it was: dead."""
    bank.mapping(**{**QUIET, "sweep_interval_ms": 100})
    seized = {**opened(bank, "a2"), "status": "in_progress", "attempts": 1, "claimed_by": "command:skip:elsewhere:1:0",
              "claimed_at": now() - age}
    other = {**seized, **opened(bank, "a3"), "claimed_by": "dead:1#1", "claimed_at": now()}
    bank.put(seized, other)
    with bank.start_projector() as projector:
        projector.wait_log("swept events that were left in progress")
        bank.wait_gone(other)
        if age:
            bank.wait_status(seized, "dead")
        else:
            assert bank.found(seized) == seized
