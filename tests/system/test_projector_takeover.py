"""Who works: a standby takes over from an owner whose heartbeats have stopped, and
only then; and stores restored to an earlier state are noticed."""

from __future__ import annotations

import re
import socket
import threading
import time
import uuid
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Iterator

import pymongo
import pytest
from bson import Int64

from bank import FAST
from bank import opened as opened_with
from endpoint import Endpoint
from forwarding import relaying
from mysqld import PROJECTOR_USER
from refusals import MongodbWire
from workspace import WAIT_S, Process, Workspace, decimal

LONG_LEASE = {**FAST, "lease_ms": 600000}  # nobody waits for it to expire
OWN_TABLES = ("projector_applied", "projector_position", "projector_fence")

opened = partial(opened_with, version=1, balance="10.00")


def deposited(ws: Workspace, version: int, amount: str = "1.00", account: str = "a1") -> dict:
    return ws.event(account, "MoneyDeposited", version, amount=decimal(amount))


def lease(ws: Workspace) -> dict:
    return ws.db["projector_leases"].find_one({"_id": ws.name})


def wait_beats(ws: Workspace, count: int) -> None:
    """Waits until the owner has sent that many more heartbeats."""
    begun = lease(ws)["beat"]
    ws.wait(lambda: lease(ws)["beat"] >= begun + count, 60, f"{count} heartbeats")


@contextmanager
def owner_and_standby(ws: Workspace, **standbys: object) -> Iterator[tuple[Process, Process]]:
    """The standby has learnt the owner's rhythm. `standbys`: its settings, where they differ."""
    with ws.start_projector() as owner:
        owner.wait_log("info working")
        if standbys:
            ws.mapping(**standbys)
        with ws.start_projector() as standby:
            standby.wait_log("standing by")
            ws.wait(lambda: lease(ws).get("standby"), 200, "the owner to know of a standby")
            wait_beats(ws, 12)
            yield owner, standby


def test_a_standby_takes_over_from_a_killed_owner_long_before_its_lease_expires(bank):
    bank.mapping(**{**LONG_LEASE, "lease_ms": 20000})
    with owner_and_standby(bank) as (owner, standby):
        owner.kill()
        standby.wait_log("info working")
        said = standby.wait_log(r"heartbeats have stopped.* silent_ms=(\d+) patience_ms=(\d+)")
        assert int(said[1]) >= int(said[2])
        bank.put(opened(bank))
        bank.wait_drained()


def test_a_standby_looks_at_the_tables_again_when_it_takes_over(bank):
    """A unique key that came meanwhile would let one account overwrite another."""
    bank.mapping(**{**LONG_LEASE, "lease_ms": 20000})
    with owner_and_standby(bank) as (owner, standby):
        bank.query("ALTER TABLE account ADD UNIQUE KEY by_name (name)")
        owner.kill()
        assert standby.popen.wait(WAIT_S) == 2
        assert "a unique key other than the mapping's, by_name (name)" in standby.log_text()


@pytest.mark.thorough
def test_an_owner_that_was_paused_finds_another_working_and_writes_nothing_more(bank):
    bank.mapping(**{**LONG_LEASE, "lease_ms": 20000})
    with owner_and_standby(bank) as (owner, standby):
        owner.pause()
        standby.wait_log("info working")
        bank.put(opened(bank), deposited(bank, 2))
        bank.wait_drained()
        owner.resume()
        owner.wait_log("the tenure ended class=fenced")
        assert bank.rows("account")[0]["balance"] == 11


@pytest.mark.thorough
def test_a_standby_that_was_paused_itself_does_not_suspect_the_owner(bank):
    bank.mapping(**{**LONG_LEASE, "lease_ms": 20000})
    with owner_and_standby(bank) as (owner, standby):
        standby.pause()
        begun = time.monotonic()
        wait_beats(bank, 10)
        paused_ms = (time.monotonic() - begun) * 1000
        standby.resume()
        wait_beats(bank, 5)
        log = standby.log_text()
        silences = [int(ms) for ms in re.findall(r"silent_ms=(\d+)", log)]  # the owner's own, on a machine that is busy enough
        assert all(silence < paused_ms for silence in silences)
        assert silences or "info working" not in log and owner.running


class Delay:
    """A port of a mongod that holds back the first attempt to seize the lease."""

    def __init__(self, ws: Workspace) -> None:
        self.attempted, self.over = threading.Event(), threading.Event()
        [(_, self.mongodb)] = pymongo.uri_parser.parse_uri(ws.stores.mongo_uri)["nodelist"]

    def there(self, client: socket.socket, server: socket.socket) -> None:
        pending = b""
        while data := client.recv(65536):
            pending += data
            while 0 < (size := MongodbWire.size(pending)) <= len(pending):
                if MongodbWire.shape(pending[:size]) == "findAndModify projector_leases _id owner beat":
                    self.attempted.set()
                    self.over.wait()
                server.sendall(pending[:size])
                pending = pending[size:]

    def back(self, server: socket.socket, client: socket.socket) -> None:
        while data := server.recv(65536):
            client.sendall(data)


@pytest.mark.thorough
def test_a_suspicion_that_reaches_mongodb_after_a_heartbeat_takes_nothing(bank):
    """The owner was paused for just as long as it took to suspect it."""
    settings = {**LONG_LEASE, "lease_ms": 20000}
    bank.mapping(**settings)
    delay = Delay(bank)
    with relaying("127.0.0.1", delay.mongodb, delay.there, delay.back) as port:
        with owner_and_standby(bank, **settings, mongodb={"uri": f"mongodb://127.0.0.1:{port}/?directConnection=true"}) as (owner, standby):
            owner.pause()
            assert delay.attempted.wait(60)
            owner.resume()
            wait_beats(bank, 2)
            delay.over.set()
            wait_beats(bank, 3)
            assert "info working" not in standby.log_text()
            bank.put(opened(bank))
            bank.wait_drained()
            assert "fenced" not in owner.log_text() and owner.running


def test_an_owner_without_a_standby_keeps_its_slow_heartbeat(bank):
    bank.mapping(**LONG_LEASE)
    with bank.start_projector() as owner:
        owner.wait_log("info working")
        begun = lease(bank)["beat"]
        bank.put(opened(bank))
        bank.wait_drained()
        assert lease(bank)["beat"] <= begun + 1


# restores


def back_up(ws: Workspace) -> None:
    for table in (*OWN_TABLES, "account"):
        ws.query(f"CREATE TABLE backup_{table} LIKE {table}")
        ws.query(f"INSERT INTO backup_{table} SELECT * FROM {table}")


def restore(ws: Workspace) -> None:
    for table in (*OWN_TABLES, "account"):
        ws.query(f"DELETE FROM {table}")
        ws.query(f"INSERT INTO {table} SELECT * FROM backup_{table}")


def test_a_mysql_restored_below_a_stopped_projector_is_refused_until_it_is_adopted(bank):
    bank.mapping(**FAST)
    bank.put(opened(bank))
    bank.run_once()
    back_up(bank)
    bank.put(deposited(bank, 2))
    bank.run_once()
    restore(bank)
    bank.put(deposited(bank, 3))
    for _ in range(3):  # retrying does not wear it down
        refused = bank.projector("run", "--once")
        assert refused.returncode == 2
        assert re.search(r"MySQL has lost what was applied: its fence has epoch 1, but 2 was reached", refused.stderr)
        assert "--adopt" in refused.stderr and "reconcile --repair" in refused.stderr
    assert bank.rows("account")[0]["balance"] == 10
    done = bank.projector("run", "--once", "--adopt")
    assert done.returncode == 0, done.stderr
    assert bank.query("SELECT epoch FROM projector_fence")[0]["epoch"] > 2
    bank.run_once()


def test_a_mysql_without_our_rows_is_another_server(bank):
    bank.mapping(**FAST)
    bank.put(opened(bank))
    bank.run_once()
    for table in OWN_TABLES:
        bank.query(f"DELETE FROM {table}")
    refused = bank.projector("run", "--once")
    assert refused.returncode == 2 and "its fence has epoch 0, but 1 was reached" in refused.stderr


def test_a_mysql_restored_below_a_running_projector_ends_it_with_status_2(bank):
    bank.mapping(**FAST)
    bank.run_once()
    bank.run_once()
    back_up(bank)
    with bank.start_projector() as projector:
        projector.wait_log("info working")
        bank.put(opened(bank))
        bank.wait_drained()
        restore(bank)
        bank.put(deposited(bank, 2))
        assert projector.popen.wait(WAIT_S) == 2
        assert "MySQL has lost what was applied" in projector.log_text()
    assert bank.outbox.count_documents({}) == 1  # the outbox loses nothing


LOST = r"MySQL has lost what was applied: event \S+, committed at .* UTC, is not in its ledger"


@pytest.mark.thorough
def test_a_restore_within_one_ownership_ends_a_running_projector(bank):
    """The epoch cannot tell: the owner is the same as when the backup was made."""
    bank.mapping(**FAST)
    with bank.start_projector() as projector:
        bank.put(opened(bank))
        bank.wait_drained()
        back_up(bank)
        bank.put(deposited(bank, 2))
        bank.wait_drained()
        restore(bank)
        bank.end_sessions(PROJECTOR_USER)  # as every restore does
        bank.put(deposited(bank, 3))
        assert projector.popen.wait(WAIT_S) == 2
        assert re.search(LOST, projector.log_text()) and "reconcile --repair" in projector.log_text()
    assert bank.outbox.count_documents({}) == 1


def refreshed_late(ws: Workspace) -> None:
    ws.put(ws.event("a1", "AccountRenamed", 5, name="Later"))
    ws.wait_drained()
    ws.accounts.insert_one({"_id": "a1", "version": 5, "last_event_at": datetime.now(timezone.utc), "user_id": "u1", "name": "Later",
                            "balance": decimal("10.00"), "opened_at": datetime.now(timezone.utc)})
    back_up(ws)
    ws.put({**ws.event("a1", "AccountRenamed", 4, name="Late"), "occurred_at": datetime(2020, 1, 1)})
    ws.wait_drained()


def applied_by_each_worker(ws: Workspace) -> None:
    """The last one is there, and not that of the other worker, whose answer came earlier."""
    for n in range(8):
        ws.put(last := opened(ws, f"b{n}"))
        ws.wait_drained()
    back_up(ws)
    ws.query("DELETE FROM backup_projector_applied WHERE event_id <> %s", str(last["_id"]))


@pytest.mark.thorough(beyond=1)
@pytest.mark.parametrize("apply_last", [refreshed_late, applied_by_each_worker])
def test_every_commit_may_be_the_one_that_a_failover_loses(bank, apply_last):
    bank.mapping(**FAST, gap_wait_ms=0, workers=2)
    with bank.start_projector() as projector:
        bank.put(opened(bank))
        bank.wait_drained()
        apply_last(bank)
        restore(bank)
        bank.end_sessions(PROJECTOR_USER)
        bank.put(deposited(bank, 6))
        assert projector.popen.wait(WAIT_S) == 2
        assert re.search(LOST, projector.log_text())


@pytest.mark.thorough
@pytest.mark.parametrize("ended", ("stopped", "killed"))
def test_a_restore_within_one_ownership_is_refused_by_the_next_owner_until_it_is_adopted(bank, ended):
    bank.mapping(**FAST, lease_ms=2000)
    with bank.start_projector() as projector:
        bank.put(opened(bank))
        bank.wait_drained()
        back_up(bank)
        bank.put(last := deposited(bank, 2))
        bank.wait_drained()
        bank.wait(lambda: bank.db["projector_leases"].find_one({"applied_last.event_id": str(last["_id"])}), what="the lease to know it")
        projector.stop() if ended == "stopped" else projector.kill()
    restore(bank)
    bank.put(deposited(bank, 3))
    for _ in range(2):
        refused = bank.projector("run", "--once")
        assert refused.returncode == 2 and re.search(LOST, refused.stderr), refused.stderr
    done = bank.projector("run", "--once", "--adopt")
    assert done.returncode == 0 and re.search(LOST, done.stderr), done.stderr
    bank.run_once()


@pytest.mark.thorough
def test_a_failover_that_takes_the_owner_with_it_is_noticed_by_the_next_one(bank):
    """Since its last heartbeat it has committed more: its claim says what."""
    bank.mapping(**FAST, lease_ms=2000, workers=1)
    with bank.start_projector() as projector:
        bank.put(opened(bank))
        bank.wait_drained()
        back_up(bank)
        lost = [deposited(bank, 2), deposited(bank, 3)]
        for event in lost:
            bank.put(event)
            bank.wait_drained()
        projector.kill()
    bank.db["projector_leases"].update_one({"_id": bank.name}, {"$set": {"applied_last": None}})
    restore(bank)
    refused = bank.projector("run", "--once")
    assert refused.returncode == 2 and re.search(LOST, refused.stderr) and str(lost[0]["_id"]) in refused.stderr, refused.stderr
    done = bank.projector("run", "--once", "--adopt")
    assert done.returncode == 0 and re.search(LOST, done.stderr), done.stderr
    bank.run_once()


@pytest.mark.thorough
def test_what_another_worker_committed_later_hides_no_loss(bank):
    bank.mapping(**FAST)
    bank.put(there := opened(bank))
    bank.run_once()
    now = datetime.now(timezone.utc)
    for n, (event_id, age_s) in enumerate(((there["_id"], 0), (uuid.uuid4(), 1))):
        bank.db["projector_claims"].insert_one({
            "_id": f"{bank.name}/dead:1#0/{n}", "name": bank.name, "outbox": "outbox", "claimed_by": "dead:1#0", "worker": n,
            "epoch": Int64(0), "claimed_at": now, "events": [],
            "committed": {"event_id": str(event_id), "kind": "uuid", "at": now - timedelta(seconds=age_s)}})
    refused = bank.projector("run", "--once")
    assert refused.returncode == 2 and re.search(LOST, refused.stderr) and str(event_id) in refused.stderr, refused.stderr
    assert bank.projector("run", "--once", "--adopt").returncode == 0
    bank.run_once()


@pytest.mark.thorough
def test_runs_that_end_at_once_notice_a_restore_too(bank):
    bank.mapping(**FAST)
    bank.put(opened(bank))
    bank.run_once()
    back_up(bank)
    bank.put(deposited(bank, 2))
    bank.run_once()
    epochs = bank.query("SELECT * FROM projector_fence")
    restore(bank)
    bank.query("UPDATE projector_fence SET epoch = %s", epochs[0]["epoch"])  # as if the owner had not changed
    refused = bank.projector("run", "--once")
    assert refused.returncode == 2 and re.search(LOST, refused.stderr), refused.stderr
    assert bank.projector("run", "--once", "--adopt").returncode == 0
    bank.run_once()


def test_a_ledger_that_was_pruned_by_hand_is_no_loss(bank):
    bank.mapping(**FAST)
    bank.put(opened(bank))
    bank.run_once()
    bank.query("DELETE FROM projector_applied")
    bank.put(deposited(bank, 2))
    bank.run_once()


def test_a_server_that_lags_for_a_moment_is_waited_for(bank):
    bank.mapping(**FAST)
    with bank.start_projector() as projector:
        for event in (opened(bank), deposited(bank, 2)):
            bank.put(event)
            bank.wait_drained()
        bank.query("CREATE TABLE behind LIKE projector_applied")
        bank.query("INSERT INTO behind SELECT * FROM projector_applied ORDER BY applied_at DESC LIMIT 1")
        bank.query("DELETE FROM projector_applied WHERE event_id IN (SELECT event_id FROM behind)")
        bank.end_sessions(PROJECTOR_USER)
        bank.put(deposited(bank, 3))
        projector.wait_log("the ledger does not have it: a server that lags, or that has lost it")
        bank.query("INSERT INTO projector_applied SELECT * FROM behind")
        bank.wait_drained()
        assert projector.running


def test_after_a_restore_missing_versions_come_back_from_the_archive(bank):
    bank.mapping(**FAST, mongodb={"retain": "archive"}, gap_wait_ms=50)
    bank.put(opened(bank))
    bank.run_once()
    back_up(bank)
    bank.put(deposited(bank, 2, "5.00"), deposited(bank, 3, "7.00"))
    bank.run_once()
    bank.db["outbox_archive"].update_many({}, {"$set": {"attempts": 9, "last_error": {"class": "unknown"}}})  # it was their last attempt
    restore(bank)
    bank.put(deposited(bank, 4, "100.00"))
    bank.mapping(**FAST, mongodb={"retain": "archive"}, gap_wait_ms=50, claim_mark_ms=3600000, mysql={"lock_wait_s": 600})
    with bank.stores.mysql(bank.name) as stranger, stranger.cursor() as cursor, bank.start_projector("--adopt") as projector:
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM account FOR UPDATE")
        projector.wait_log("put back from the archive")
        assert not bank.outbox.find_one({"$or": [{"attempts": {"$gt": 0}}, {"last_error": {"$exists": True}}]})  # all begin anew
        cursor.execute("ROLLBACK")
        bank.wait_drained()
    assert bank.rows("account")[0]["balance"] == 122
    assert bank.db["outbox_archive"].count_documents({"applied_at": {"$exists": True}}) == 4


def test_what_a_person_skipped_does_not_come_back_from_the_archive(bank):
    bank.mapping(**FAST, mongodb={"retain": "archive"}, gap_wait_ms=50, permanent="dead")
    bank.put(opened(bank))
    bank.run_once()
    back_up(bank)
    bad = bank.event("a1", "MoneyDeposited", 2, amount="nonsense")
    bank.put(bad)
    bank.run_once()
    assert bank.projector("skip", str(bad["_id"])).returncode == 0
    restore(bank)
    bank.put(deposited(bank, 3, "100.00"))
    with bank.start_projector("--adopt") as projector:
        projector.wait_log("versions missing, continuing without them")
        bank.wait_drained()
    assert bank.rows("account")[0]["balance"] == 110


@pytest.mark.parametrize("refreshed", [False, True], ids=["applied", "superseded"])
def test_versions_that_a_restored_mongodb_gives_again_are_reported(bank, refreshed):
    bank.mapping(**FAST)
    bank.put(opened(bank), *[deposited(bank, version) for version in (2, 3, 4)])
    bank.run_once()
    if refreshed:
        bank.accounts.insert_one({"_id": "a1", "user_id": "u1", "name": "Ada", "balance": decimal("13.00"), "version": 4,
                                  "opened_at": None})
        assert bank.projector("refresh", "account", "a1").returncode == 0
    bank.mapping(http="127.0.0.1:0", **FAST)
    with bank.start_projector() as process:
        endpoint = Endpoint(process)
        bank.put(deposited(bank, 3))  # as if version 3 had never existed
        what = "event superseded: its version was used before" if refreshed else "version used before"
        process.wait_log(f'warning {what} .*aggregate="account a1"')
        bank.wait(lambda: sum(value for name, value in endpoint.metrics().items()
                              if name.startswith("projector_reused_versions_total")) == 1, what="the metric")
