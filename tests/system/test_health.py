"""What an operator is told at the worst moments: a store hangs or refuses, an owner has died, work stands still."""

from __future__ import annotations

import json
import re
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Iterator

import pytest

from bank import opened
from endpoint import Endpoint
from faults.proxy import Proxy
from mongod import ReplicaSet
from mysqld import Mysqld
from workspace import Process, Stores, Workspace, decimal

SETTINGS = {"http": "127.0.0.1:0", "backoff_ms": 20, "sweep_interval_ms": 500}


@contextmanager
def working(ws: Workspace, **settings) -> Iterator[tuple[Process, Endpoint]]:
    ws.mapping(**{**SETTINGS, **settings})
    with ws.start_projector() as process:
        endpoint = Endpoint(process)
        wait_ready(ws, endpoint)
        yield process, endpoint


def wait_ready(ws: Workspace, endpoint: Endpoint) -> None:
    ws.wait(lambda: endpoint.get("/readyz").text == "ready: working\n", what="readiness")


def wait_reason(ws: Workspace, endpoint: Endpoint, pattern: str) -> str:
    """Waits until /readyz and the page show this reason; returns the answer of /readyz."""
    answer = ws.wait(lambda: (a := endpoint.get("/readyz")).status == 503 and re.search(pattern, a.text) and a, what=pattern)
    ws.wait(lambda: any(remark["level"] == "bad" and re.search(pattern, "not ready: " + remark["text"])
                        for remark in endpoint.get("/live").json["health"]), what=f"{pattern} on the page")
    return answer.text


@contextmanager
def paused(server) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextmanager
def read_only(mysql: Mysqld) -> Iterator[None]:
    variable = "read_only" if mysql.is_mariadb else "super_read_only"
    with mysql.connect() as root, root.cursor() as cursor:
        cursor.execute(f"SET GLOBAL {variable} = 1")
        try:
            yield
        finally:
            cursor.execute(f"SET GLOBAL {variable} = 0")
            cursor.execute("SET GLOBAL read_only = 0")


@pytest.fixture
def private(stores, server_folder: Path, tmp_path: Path) -> Iterator[tuple[Workspace, Mysqld]]:
    """A MySQL for this test beside the shared MongoDB."""
    with Mysqld(server_folder / "mysqld") as mysql, Workspace(Stores(stores.mongo_uri, mysql.port), tmp_path) as ws:
        ws.create()
        yield ws, mysql


def test_a_mysql_that_hangs_is_told_everywhere_until_it_is_back(private):
    ws, mysql = private
    with working(ws) as (_, endpoint):
        with paused(mysql):
            ws.put([opened(ws, f"a{i}") for i in range(500)])
            said = wait_reason(ws, endpoint, r"MySQL cannot be reached since \d\d:\d\d:\d\d UTC \([\d.]+ m?s\): .*nothing is lost")
            assert "MongoDB cannot" not in said
            metrics = endpoint.metrics()
            assert metrics['projector_store_up{store="mysql"}'] == metrics['projector_store_usable{store="mysql"}'] == 0
            assert metrics['projector_store_up{store="mongodb"}'] == 1
            status = ws.projector("status", "--json")
            assert status.returncode == 3 and json.loads(status.stdout)["mysql"]["usable"] is False
            over_http = endpoint.get("/status").json["mysql"]
            assert (over_http["reachable"], over_http["since_ms"] > 0) == (False, True)
        wait_ready(ws, endpoint)
        assert endpoint.metrics()['projector_store_up{store="mysql"}'] == 1
        ws.wait_drained()
        ws.wait(lambda: endpoint.get("/live").json["status"]["outbox"]["pending"] == 0, what="figures that are new")


@pytest.mark.thorough
def test_a_mongodb_that_hangs_is_told_everywhere_until_it_is_back(stores, server_folder, tmp_path):
    with ReplicaSet(server_folder, cache_gb=0.25) as mongo, Workspace(Stores(mongo.uri, stores.mysql_port), tmp_path) as ws:
        ws.create()
        with working(ws, lease_ms=60000) as (_, endpoint):
            with paused(mongo.members[0]):
                said = wait_reason(ws, endpoint, r"MongoDB cannot be reached since \d\d:\d\d:\d\d UTC \([\d.]+ m?s\): ")
                assert "MySQL cannot" not in said
                assert endpoint.metrics()['projector_store_up{store="mongodb"}'] == 0
                assert ws.projector("status").returncode == 3
                ws.wait(lambda: any("The figures of the outbox are" in remark["text"] for remark in endpoint.get("/live").json["health"]),
                        what="old figures to be news")
            wait_ready(ws, endpoint)


@pytest.mark.thorough
def test_a_mysql_that_refuses_to_be_written_is_told_everywhere(private):
    ws, mysql = private
    with working(ws) as (_, endpoint):
        with read_only(mysql):
            wait_reason(ws, endpoint, r"MySQL refuses to work since .* \(1290\)\. .*nothing is lost")
            metrics = endpoint.metrics()
            assert metrics['projector_store_up{store="mysql"}'] == 1 and metrics['projector_store_usable{store="mysql"}'] == 0
            status = ws.projector("status")
            assert status.returncode == 3
            assert re.search(r"^mysql +M\S+ \S.*, refuses to work: .* \(1290\)$", status.stdout, re.MULTILINE)
            ws.put(event := opened(ws, "a1"))
            wait_reason(ws, endpoint, r"MySQL refuses")
            ws.wait(lambda: re.search(r"\d of 2 workers wait for a store since .* \(1290\)", endpoint.get("/readyz").text), what="workers")
            wait_reason(ws, endpoint, r"MySQL refuses to work since \S+ UTC \((?!\d+ ms|[0-2]\.)")  # of several looks, one a second
        ws.wait_gone(event)
        wait_ready(ws, endpoint)


def copy_own_tables(ws: Workspace, source: Mysqld, target: Mysqld) -> None:
    """As a replica would have them."""
    with source.connect() as before, target.connect() as after, before.cursor() as reads, after.cursor() as writes:
        writes.execute(f"CREATE DATABASE {ws.name}")
        for database, cursor in ((ws.name, reads), (ws.name, writes)):
            cursor.execute(f"USE {database}")
        reads.execute("SHOW TABLES")
        for (table,) in reads.fetchall():
            reads.execute(f"SHOW CREATE TABLE {table}")
            writes.execute(reads.fetchall()[0][1])
            reads.execute(f"SELECT * FROM {table}")
            for row in reads.fetchall():
                writes.execute(f"INSERT INTO {table} VALUES ({', '.join(['%s'] * len(row))})", row)
        after.commit()


@pytest.mark.thorough
def test_after_a_switchover_the_new_primary_is_asked(stores, server_folder, tmp_path):
    """The old one keeps its sessions and only refuses to be written; new sessions lead to the new one."""
    with (Mysqld(server_folder / "old") as old, Mysqld(server_folder / "new") as new, closing(Proxy(old.port)) as router,
          Workspace(Stores(stores.mongo_uri, router.port), tmp_path) as ws):
        ws.create()
        with working(ws) as (_, endpoint), read_only(old):
            wait_reason(ws, endpoint, r"MySQL refuses to work since .* \(1290\)")
            copy_own_tables(ws, old, new)
            router.target = new.port
            wait_ready(ws, endpoint)
            ws.put(event := opened(ws, "a1"))
            ws.wait_gone(event)
            ws.mysql.close()  # led to the old one
            ws.mysql = ws.stores.mysql(ws.name)


SEMISYNC = "rpl_semi_sync_source"


def hanging_commits(mysql: Mysqld) -> tuple[list[str], list[str]]:
    """What makes each COMMIT wait, here for a replica that there is not, and what ends that."""
    if mysql.is_mariadb:
        return ["BACKUP STAGE START", "BACKUP STAGE BLOCK_COMMIT"], ["BACKUP STAGE END"]
    return ([f"INSTALL PLUGIN {SEMISYNC} SONAME 'semisync_source.so'", f"SET GLOBAL {SEMISYNC}_timeout = 600000",
             f"SET GLOBAL {SEMISYNC}_enabled = 1"], [f"SET GLOBAL {SEMISYNC}_enabled = 0"])


@contextmanager
def doing(mysql: Mysqld, ws: Workspace, before: list[str], after: list[str]) -> Iterator[None]:
    with mysql.connect() as root, root.cursor() as cursor:
        for statement in [f"USE {ws.name}", *before]:
            cursor.execute(statement)
        try:
            yield
        finally:
            for statement in after:
                cursor.execute(statement)


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("before, after, code", [
    (["FLUSH TABLES WITH READ LOCK"], ["UNLOCK TABLES"], 1205), (["LOCK TABLES projector_fence WRITE"], ["UNLOCK TABLES"], 1205),
    (["RENAME TABLE projector_fence TO away"], ["RENAME TABLE away TO projector_fence"], 1146),
    ([], [], 0)], ids=["backup", "lock", "missing", "commit"])
def test_a_mysql_that_can_be_read_but_not_written_is_told_while_nothing_waits(private, before, after, code):
    ws, mysql = private
    with working(ws) as (_, endpoint):
        with doing(mysql, ws, *((before, after) if before else hanging_commits(mysql))):
            wait_reason(ws, endpoint, rf"MySQL refuses to work since .* \({code}\)" if code else "MySQL (cannot be reached|refuses to work)")
            status = ws.projector("status")
            assert status.returncode == (2 if code == 1146 else 3) and re.search(r"^mysql .*(refuses to work: |no answer|Lost connection|cannot)", status.stdout, re.M), status.stdout
        wait_ready(ws, endpoint)


@pytest.mark.thorough
def test_that_nobody_can_become_the_owner_is_not_ready(private):
    """The fence cannot be taken over while MySQL is read-only; a standby that waits for this is not healthy."""
    ws, mysql = private
    ws.mapping(**SETTINGS)
    with read_only(mysql), ws.start_projector() as process:
        endpoint = Endpoint(process)
        wait_reason(ws, endpoint, r"This process cannot become the owner since .* \(1290\)")


@pytest.mark.thorough
def test_work_that_stands_still_is_never_well(bank):
    with working(bank) as (_, endpoint):
        bank.put(first := opened(bank, "a1"))
        bank.wait_gone(first)
        with bank.stores.mysql(bank.name) as connection, connection.cursor() as cursor:
            connection.begin()
            cursor.execute("SELECT * FROM account FOR UPDATE")
            bank.put(waiting := bank.event("a1", "MoneyDeposited", amount=decimal("1.00")))
            remark = bank.wait(lambda: next((r for r in endpoint.get("/live").json["health"] if "none has been applied for" in r["text"]), None))
            assert re.fullmatch(r"1 event is taken from the outbox, and none has been applied for [\d.]+ s\.", remark["text"])
            connection.rollback()
        bank.wait_gone(waiting)
        bank.wait(lambda: endpoint.get("/live").json["health"] == [], what="nothing to be said")


def test_status_after_the_owner_died_says_how_long_its_lease_runs(bank):
    with working(bank, lease_ms=50000) as (process, _):
        process.kill()
    status = bank.projector("status")
    assert re.search(r"^lease +ends in [1-5]?\d(\.\d)? s unless renewed; last renewed [\d.]+ m?s ago$", status.stdout, re.MULTILINE)
    assert 0 < json.loads(bank.projector("status", "--json").stdout)["projector"]["lease_expires_in_ms"] <= 50000
    bank.put(opened(bank, "a1"))
    for silent_ms, counts in (1000, True), (21000, False):  # what it told last: that nothing waits
        bank.db["projector_leases"].update_one({"_id": bank.name}, [{"$set": {
            "lag_ms": 0, "prolonged_at": {"$subtract": ["$$NOW", silent_ms]}, "settled_at": {"$subtract": ["$$NOW", 3600000]}}}])
        assert (json.loads(bank.projector("status", "--json").stdout)["lag_ms"] == 0) == counts
