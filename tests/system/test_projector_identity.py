"""One outbox serves one name, and one outbox is behind each name in MySQL."""

from __future__ import annotations

import json
import re
import uuid
from contextlib import contextmanager
from typing import Iterator

import pytest

from least_privilege import mysql_users
from mongod import ReplicaSet
from workspace import Workspace, bank_projections, decimal

FAST = {"lease_ms": 1000, "sweep_interval_ms": 200, "backoff_ms": 50}


def opened(ws: Workspace, account: str = "a1") -> dict:
    return ws.event(account, "AccountOpened", user_id="u1", name="Ada", balance=decimal("10.00"))


def identity(ws: Workspace, outbox: str = "outbox") -> dict | None:
    return ws.db["projector_leases"].find_one({"_id": f"outbox:{outbox}"})


def verdicts(ws: Workspace, pattern: str) -> list[str]:
    lines = [json.loads(line) for line in ws.projector("check", "--json").stdout.splitlines()]
    return [line["verdict"] for line in lines if re.search(pattern, line["text"])]


@pytest.fixture
def elsewhere(bank) -> Iterator[str]:
    """Another MongoDB database, which has an outbox of its own."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    bank.mongo[name].create_collection("outbox")
    yield name
    bank.mongo.drop_database(name)


@contextmanager
def mysql_users_without_source(ws: Workspace) -> Iterator[dict]:
    """A user with the grants of the version before."""
    user = f"u{ws.name[2:12]}"
    ws.query(f"CREATE USER {user}@'127.0.0.1' IDENTIFIED BY 'x'")
    try:
        for table, privileges in {"account": "SELECT, INSERT, UPDATE, DELETE", "projector_applied": "SELECT, INSERT, DELETE",
                                  "projector_position": "SELECT, INSERT, UPDATE", "projector_fence": "SELECT, INSERT, UPDATE"}.items():
            ws.query(f"GRANT {privileges} ON {table} TO {user}@'127.0.0.1'")
        yield {"user": user, "password": "x"}
    finally:
        ws.query(f"DROP USER {user}@'127.0.0.1'")


def test_a_second_name_on_an_outbox_is_refused_and_the_first_goes_on(bank):
    with bank.start_projector() as first:
        first.wait_log("info working")
        bank.mapping(name="second", **FAST)
        for _ in range(2):
            refused = bank.projector("run", "--once")
            assert refused.returncode == 2
            assert f'serves the projector "{bank.name}"' in refused.stderr and "--adopt" in refused.stderr
        assert verdicts(bank, "serves the projector") == ["error"]
        assert bank.projector("check").returncode == 2
        bank.put(opened(bank))
        bank.wait_drained()
        assert first.running
    assert bank.query("SELECT DISTINCT projector FROM projector_applied") == [{"projector": bank.name}]
    assert bank.query("SELECT projector FROM projector_fence WHERE part = 0") == [{"projector": bank.name}]


def test_a_renamed_projector_adopts_the_outbox_and_the_old_name_is_refused(bank):
    bank.mapping(**FAST)
    bank.run_once()
    old = bank.file
    bank.mapping(name="renamed", **FAST)
    adopted = bank.projector("run", "--once", "--adopt")
    assert adopted.returncode == 0, adopted.stderr
    bank.put(opened(bank))
    bank.run_once()
    assert bank.outbox.find_one() is None and verdicts(bank, "the outbox serves this projector") == ["ok"]
    bank.file = old
    refused = bank.projector("run", "--once")
    assert refused.returncode == 2 and 'serves the projector "renamed"' in refused.stderr


def test_an_outbox_is_not_adopted_from_a_projector_that_works(bank):
    bank.mapping(**FAST)
    with bank.start_projector() as first:
        first.wait_log("info working")
        bank.mapping(name="second", **FAST)
        refused = bank.projector("run", "--once", "--adopt")
        assert refused.returncode == 2 and "works on this outbox at this moment" in refused.stderr
        bank.put(opened(bank))
        bank.wait_drained()
    assert identity(bank)["projector"] == bank.name


def test_the_same_name_with_another_mongodb_is_refused_until_it_is_adopted(bank, elsewhere):
    bank.mapping(**FAST)
    here = bank.file
    with bank.start_projector() as first:
        first.wait_log("info working")
        epoch = bank.query("SELECT epoch FROM projector_fence WHERE part = 0")
        bank.mapping(mongodb={"database": elsewhere}, **FAST)
        refused = bank.projector("run", "--once")
        assert refused.returncode == 2
        assert "filled from another MongoDB" in refused.stderr and "--adopt" in refused.stderr
        assert bank.query("SELECT epoch FROM projector_fence WHERE part = 0") == epoch  # the first was not disturbed
        assert verdicts(bank, "filled from another MongoDB") == ["error"]
        assert bank.mongo[elsewhere]["projector_leases"].find_one({"_id": "outbox:outbox"}) is None  # free for its own name
        bank.put(opened(bank))
        bank.wait_drained()
        assert first.running
        adopted = bank.projector("run", "--once", "--adopt")
        assert adopted.returncode == 0, adopted.stderr
        assert first.popen.wait(30) == 2 and "filled from another MongoDB" in first.log_text()
    bank.run_once()  # it has moved for good
    bank.file = here
    assert bank.projector("run", "--once").returncode == 2


def test_the_same_name_with_another_outbox_is_refused(bank):
    bank.mapping(**FAST)
    bank.run_once()
    bank.db.create_collection("outbox_two")
    bank.mapping(mongodb={"outbox": "outbox_two"}, **FAST)
    refused = bank.projector("run", "--once")
    assert refused.returncode == 2 and "filled from another MongoDB or outbox" in refused.stderr


def test_another_mongodb_cluster_is_another_source(bank, server_folder):
    bank.mapping(**FAST)
    bank.run_once()
    with ReplicaSet(server_folder) as mongo:
        bank.mapping(mongodb={"uri": mongo.uri}, **FAST)
        refused = bank.projector("run", "--once")
        assert refused.returncode == 2 and "filled from another MongoDB" in refused.stderr
        adopted = bank.projector("run", "--once", "--adopt")
        assert adopted.returncode == 0, adopted.stderr
        bank.run_once()


def test_a_changed_mapping_is_told_once(bank):
    bank.mapping(**FAST)
    told = "warning the mapping has changed since the last start"
    assert told not in bank.run_once().stderr
    assert told not in bank.run_once().stderr
    [projection] = bank_projections()
    projection["events"]["Extra"] = {"op": "ignore"}
    bank.mapping([projection], **FAST, max_blocked=7)
    changed = bank.run_once().stderr
    assert told in changed and "`rebuild`" in changed
    bank.mapping([dict(reversed(projection.items()))], **FAST)  # in another order it is the same
    assert told not in bank.run_once().stderr


def test_an_installation_without_the_table_works_as_before_and_says_once_what_to_do(bank, elsewhere):
    bank.mapping(**FAST)
    bank.query("DROP TABLE projector_source")
    bank.put(opened(bank))
    with mysql_users_without_source(bank) as user:
        for mysql in ({}, user):
            bank.mapping(mysql=mysql, **FAST)
            done = bank.run_once()
            assert len(re.findall("the table projector_source is missing", done.stderr)) == 1
            assert "schema --apply" in done.stderr and bank.outbox.find_one() is None
            assert bank.projector("check").returncode == 0 and verdicts(bank, "projector_source is missing") == ["warning"]
    bank.mapping(**FAST)
    with bank.start_projector() as projector:  # and once for all tenures of a process
        projector.wait_log("info working")
        bank.query("UPDATE projector_fence SET epoch = epoch + 1")
        bank.put(opened(bank, "a2"))
        projector.wait_log("(?s)info working.*info working")
        bank.wait_drained()
        assert projector.log_text().count("the table projector_source is missing") == 1
    assert bank.projector("schema", "--apply").returncode == 0
    assert "projector_source" not in bank.run_once().stderr
    assert bank.query("SELECT * FROM projector_source") == [{"projector": bank.name, "source": identity(bank)["source"]}]
    bank.mapping(mongodb={"database": elsewhere}, **FAST)
    assert bank.projector("run", "--once").returncode == 2


def test_an_installation_of_before_is_adopted_in_silence(bank):
    """It has a lease and an epoch, and neither an identity in MongoDB nor one in MySQL."""
    bank.mapping(**FAST)
    bank.run_once()
    bank.db["projector_leases"].delete_one({"_id": "outbox:outbox"})
    bank.query("DELETE FROM projector_source")
    bank.put(opened(bank))
    assert "warning" not in bank.run_once().stderr
    assert identity(bank)["projector"] == bank.name and bank.outbox.find_one() is None


def test_the_granted_privileges_are_enough_for_the_identity(bank, elsewhere):
    with mysql_users(bank) as users:
        user = {"user": users["projector"], "password": "change-me-1"}
        bank.mapping(mysql=user, **FAST)
        assert "projector_source" not in bank.run_once().stderr
        bank.mapping(mysql=user, mongodb={"database": elsewhere}, **FAST)
        assert bank.projector("run", "--once").returncode == 2
        assert bank.projector("run", "--once", "--adopt").returncode == 0
        bank.run_once()
