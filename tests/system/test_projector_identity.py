"""One outbox serves one name, and one outbox is behind each name in MySQL."""

from __future__ import annotations

import json
import re
import uuid
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Iterator

import pytest
from bson import ObjectId

from bank import FAST, opened
from least_privilege import mysql_users
from mongod import ReplicaSet
from workspace import WAIT_S, Workspace, bank_projections, decimal

SETTINGS = {**FAST, "lease_ms": 1000}


def identity(ws: Workspace, outbox: str = "outbox") -> dict | None:
    return ws.db["projector_leases"].find_one({"_id": f"outbox:{outbox}"})


def verdicts(ws: Workspace, pattern: str) -> list[str]:
    lines = [json.loads(line) for line in ws.projector("check", "--json").stdout.splitlines()]
    return [line["verdict"] for line in lines if re.search(pattern, line["text"])]


@pytest.fixture
def elsewhere(bank) -> Iterator[str]:
    """Another MongoDB database with its own outbox."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    bank.mongo[name].create_collection("outbox")
    yield name
    bank.mongo.drop_database(name)


@contextmanager
def mysql_users_without_source(ws: Workspace) -> Iterator[dict]:
    """A user with the grants of the previous version."""
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
        bank.mapping(name="second", **SETTINGS)
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


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("arguments", [
    ["rebuild"], ["reconcile", "--repair"], ["refresh", "account", "a1"], ["skip", "--all-dead"], ["explain", "account", "a1"],
    ["wait", "account", "a1", "1"], ["replay", "--projection", "account"], ["retry", "--all-dead"], ["skip", "--all-dead", "--dry-run"], ["pause"], ["resume"], ["status"]], ids=lambda arguments: arguments[0])
def test_a_command_of_another_name_or_with_another_mongodb_changes_nothing(bank, elsewhere, arguments):
    """Such as the URI of one environment and the password of another in one shell."""
    archive = {"mongodb": {"retain": "archive"}}
    bank.mapping(**SETTINGS, **archive)
    bank.outbox_program("init", "--archive", check=True)
    bank.put(opened(bank))
    bank.run_once()
    dead = {**bank.event("a2", "MoneyDeposited", 1, amount=decimal("1.00")), "status": "dead", "attempts": 10}
    bank.put(dead)
    told = bank.query("SELECT * FROM account"), bank.ledger(), bank.query("SELECT * FROM projector_position")
    others = [({}, "second", "serves the projector"), ({"database": elsewhere}, bank.name, "another MongoDB or outbox")]
    only_mongodb = arguments[0] in ("retry", "pause", "resume", "status") or "--dry-run" in arguments
    for mongodb, name, reason in others[:1 if only_mongodb else 2]:
        bank.mapping(**SETTINGS, name=name, mongodb={**archive["mongodb"], **mongodb})
        refused = bank.projector(*arguments)
        assert refused.returncode == 2 and reason in refused.stderr, refused.stdout + refused.stderr
    assert (bank.query("SELECT * FROM account"), bank.ledger(), bank.query("SELECT * FROM projector_position")) == told
    assert bank.found(dead)["status"] == "dead" and bank.db["projector_leases"].find_one({"_id": "second"}) is None


def test_a_renamed_projector_adopts_the_outbox_and_the_old_name_is_refused(bank):
    bank.mapping(**SETTINGS)
    bank.run_once()
    old = bank.file
    bank.mapping(name="renamed", **SETTINGS)
    adopted = bank.projector("run", "--once", "--adopt")
    assert adopted.returncode == 0, adopted.stderr
    bank.put(opened(bank))
    bank.run_once()
    assert bank.outbox.find_one() is None and verdicts(bank, "the outbox serves this projector") == ["ok"]
    bank.file = old
    refused = bank.projector("run", "--once")
    assert refused.returncode == 2 and 'serves the projector "renamed"' in refused.stderr


@pytest.mark.thorough
def test_a_renamed_projector_numbers_the_archive_in_its_first_tenure(bank):
    """Numbering continues under the new name, whose fence begins again."""
    archive = {"mongodb": {"retain": "archive"}}
    bank.mapping(**SETTINGS, **archive)
    for n, event in enumerate((opened(bank), deposited(bank, 2), deposited(bank, 3)), 1):
        bank.put(event)  # a third of so short a lease may not be enough to number it, on a busy machine
        bank.wait(lambda: (bank.run_once(), bank.db["outbox_archive"].find_one({"seq": n}))[1], what="the number")
    bank.mapping(name="renamed", **SETTINGS, **archive)
    bank.put(deposited(bank, 4))
    with bank.start_projector("--adopt") as projector:
        bank.wait(lambda: bank.db["outbox_archive"].find_one({"seq": 4}), what="the next number")
        assert projector.stop() == 0
        assert "a later owner numbers" not in projector.log_text()


def deposited(ws: Workspace, version: int, amount: str = "1.00") -> dict:
    return ws.event("a1", "MoneyDeposited", version=version, amount=decimal(amount))


def balance(ws: Workspace) -> Decimal:
    [row] = ws.query("SELECT balance FROM account WHERE account_id = 'a1'")
    return row["balance"]


def renamed_once(ws: Workspace, name: str) -> str:
    ws.mapping(name=name, **SETTINGS, gap_wait_ms=600000)
    adopted = ws.projector("run", "--once", "--adopt")
    assert adopted.returncode == 0, adopted.stderr
    return adopted.stderr


def test_what_the_earlier_name_has_applied_is_not_applied_again(bank):
    """Deltas that it committed but had not yet taken out, one that its writer sends again, and a late one."""
    bank.mapping(**SETTINGS)
    events = [opened(bank, version=1, balance="10.00"), *(deposited(bank, version) for version in range(2, 50))]
    kinds = [deposited(bank, 50), deposited(bank, 51)]
    kinds[0]["_id"], kinds[1]["_id"] = ObjectId(), "a text of any kind"
    bank.put(*events, *kinds)
    bank.run_once()
    bank.outbox.insert_many(events[10:] + kinds)
    assert "events=51" in renamed_once(bank, "renamed")
    assert balance(bank) == Decimal("60.00") and bank.outbox.find_one() is None
    bank.put(deposited(bank, 52), events[7])  # no gap to wait for, and a known event
    bank.run_once()
    assert balance(bank) == Decimal("61.00") and bank.outbox.find_one() is None
    late = {**deposited(bank, 0), "occurred_at": events[0]["occurred_at"] - timedelta(days=1)}
    del late["version"]
    bank.put(late)
    bank.run_once()
    assert balance(bank) == Decimal("62.00")
    old = bank.query("SELECT aggregate_id, max_version FROM projector_position WHERE projector = 'renamed'")
    assert [(row["aggregate_id"], row["max_version"]) for row in old] == [(b"a1", 52)]
    bank.outbox.insert_many([events[5], deposited(bank, 53)])
    renamed_once(bank, bank.name)  # and back again: its own positions are older than what it inherits
    assert balance(bank) == Decimal("63.00") and bank.outbox.find_one() is None


def test_a_rename_that_is_interrupted_is_finished_at_the_next_start(bank):
    bank.mapping(**SETTINGS)
    events = [opened(bank, balance="10.00"), *(bank.event("a1", "MoneyDeposited", amount=decimal("1.00")) for _ in range(3))]
    bank.put(*events)
    bank.run_once()
    bank.outbox.insert_many(events)
    for name in ("between", "renamed"):  # the first of them died before it had the ledger
        bank.db["projector_leases"].update_one({"_id": "outbox:outbox"}, {"$set": {"projector": name, "inherits": bank.name}})
    bank.mapping(name="renamed", **SETTINGS)
    bank.run_once()
    assert balance(bank) == Decimal("13.00") and "inherits" not in identity(bank)


def test_a_name_that_never_came_to_work_leaves_what_it_had_inherited(bank):
    bank.mapping(**SETTINGS)
    events = [opened(bank, balance="10.00"), bank.event("a1", "MoneyDeposited", amount=decimal("1.00"))]
    bank.put(*events)
    bank.run_once()
    bank.outbox.insert_one(events[1])  # a delta that the opening before it would hide
    bank.db["projector_leases"].update_one({"_id": "outbox:outbox"}, {"$set": {"projector": "between", "inherits": bank.name}})
    renamed_once(bank, "renamed")
    assert balance(bank) == Decimal("11.00") and bank.outbox.find_one() is None


def test_a_transaction_of_the_earlier_name_is_waited_for(bank):
    """Its process is gone but its session still open: what that commits is known too."""
    bank.mapping(**SETTINGS)
    bank.put(opened(bank))
    bank.run_once()
    deposit = bank.event("a1", "MoneyDeposited", amount=decimal("1.00"))
    bank.put(deposit)
    with bank.stores.mysql(bank.name) as zombie, zombie.cursor() as cursor:
        zombie.begin()
        cursor.execute("SELECT epoch FROM projector_fence WHERE part = 0 LOCK IN SHARE MODE")
        cursor.execute("UPDATE account SET balance = balance + 1")
        cursor.execute("INSERT INTO projector_applied (projector, event_id_kind, event_id, outcome) VALUES (%s, 'uuid', %s, 'applied')",
                       (bank.name, str(deposit["_id"])))
        bank.mapping(name="renamed", **SETTINGS)
        with bank.start_projector("--adopt") as projector:
            bank.wait_lock_wait("UPDATE projector_fence")
            zombie.commit()
            projector.wait_log("info working")
            bank.wait_drained()
    assert balance(bank) == Decimal("101.00")


@pytest.mark.thorough
def test_a_long_ledger_is_inherited_whole(bank):
    """More than one page of it with ids of two kinds, and of positions."""
    bank.mapping(**SETTINGS)
    bank.run_once()
    bank.query("CREATE TABLE bytes (n INT PRIMARY KEY)")
    bank.query("INSERT INTO bytes VALUES " + ", ".join(f"({n})" for n in range(256)))
    numbers = "FROM bytes a, bytes b WHERE b.n < 100"
    for kind in ("uuid", "string"):
        bank.query(f"INSERT INTO projector_applied SELECT '{bank.name}', '{kind}', HEX(a.n + 256 * b.n), 'applied', '2026-01-01' {numbers}")
    bank.query(f"INSERT INTO projector_position SELECT '{bank.name}', 'account', 'string', HEX(a.n + 256 * b.n), '2026-01-01', 3, 'uuid', 'x', 4, 5 {numbers}")
    renamed_once(bank, "renamed")
    for table, key in (("projector_applied", "event_id_kind, event_id, outcome, applied_at"),
                       ("projector_position", "aggregate_id, occurred_at, version, event_id, max_version, refreshed_version")):
        of = [bank.query(f"SELECT {key} FROM {table} WHERE projector = %s ORDER BY 1, 2", name) for name in (bank.name, "renamed")]
        assert of[0] == of[1] and len(of[0]) >= 25600


def test_a_rename_together_with_another_mysql_is_told(bank):
    bank.mapping(**SETTINGS)
    bank.run_once()
    bank.query("DELETE FROM projector_fence")
    assert "the earlier name never worked with this MySQL" in renamed_once(bank, "renamed")


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
    bank.mapping(**SETTINGS)
    here = bank.file
    with bank.start_projector() as first:
        first.wait_log("info working")
        epoch = bank.query("SELECT epoch FROM projector_fence WHERE part = 0")
        bank.mapping(mongodb={"database": elsewhere}, **SETTINGS)
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
        assert first.popen.wait(WAIT_S) == 2 and "filled from another MongoDB" in first.log_text()
    bank.run_once()  # it has moved for good
    bank.file = here
    assert bank.projector("run", "--once").returncode == 2


def test_the_same_name_with_another_outbox_is_refused(bank):
    bank.mapping(**SETTINGS)
    bank.run_once()
    bank.db.create_collection("outbox_two")
    bank.mapping(mongodb={"outbox": "outbox_two"}, **SETTINGS)
    refused = bank.projector("run", "--once")
    assert refused.returncode == 2 and "filled from another MongoDB or outbox" in refused.stderr


def test_another_mongodb_cluster_is_another_source(bank, server_folder):
    bank.mapping(**SETTINGS)
    bank.run_once()
    with ReplicaSet(server_folder) as mongo:
        bank.mapping(mongodb={"uri": mongo.uri}, **SETTINGS)
        refused = bank.projector("run", "--once")
        assert refused.returncode == 2 and "filled from another MongoDB" in refused.stderr
        adopted = bank.projector("run", "--once", "--adopt")
        assert adopted.returncode == 0, adopted.stderr
        bank.run_once()


def test_a_changed_mapping_is_told_once(bank):
    bank.mapping(**SETTINGS)
    told = "warning the mapping has changed since the last start"
    assert told not in bank.run_once().stderr
    assert told not in bank.run_once().stderr
    [projection] = bank_projections()
    projection["events"]["Extra"] = {"op": "ignore"}
    bank.mapping([projection], **SETTINGS, max_blocked=7)
    changed = bank.run_once().stderr
    assert told in changed and "`rebuild`" in changed
    bank.mapping([dict(reversed(projection.items()))], **SETTINGS)  # the order does not matter
    assert told not in bank.run_once().stderr


@pytest.mark.thorough
def test_an_installation_without_the_table_works_as_before_and_says_once_what_to_do(bank, elsewhere):
    bank.mapping(**SETTINGS)
    bank.query("DROP TABLE projector_source")
    bank.put(opened(bank))
    with mysql_users_without_source(bank) as user:
        for mysql in ({}, user):
            bank.mapping(mysql=mysql, **SETTINGS)
            done = bank.run_once()
            assert len(re.findall("the table projector_source is missing", done.stderr)) == 1
            assert "schema --apply" in done.stderr and bank.outbox.find_one() is None
            assert bank.projector("check").returncode == 0 and verdicts(bank, "projector_source is missing") == ["warning"]
    bank.mapping(**SETTINGS)
    with bank.start_projector() as projector:  # and only once for all tenures of a process
        projector.wait_log("info working")
        bank.query("UPDATE projector_fence SET epoch = epoch + 1")
        bank.put(opened(bank, "a2"))
        projector.wait_log("(?s)info working.*info working")
        bank.wait_drained()
        assert projector.log_text().count("the table projector_source is missing") == 1
    assert bank.projector("schema", "--apply").returncode == 0
    assert "projector_source" not in bank.run_once().stderr
    assert bank.query("SELECT * FROM projector_source") == [{"projector": bank.name, "source": identity(bank)["source"]}]
    bank.mapping(mongodb={"database": elsewhere}, **SETTINGS)
    assert bank.projector("run", "--once").returncode == 2


def test_an_installation_of_before_is_adopted_in_silence(bank):
    """It has a lease and an epoch, but no identity in MongoDB or MySQL."""
    bank.mapping(**SETTINGS)
    bank.run_once()
    bank.db["projector_leases"].delete_one({"_id": "outbox:outbox"})
    bank.query("DELETE FROM projector_source")
    bank.put(opened(bank))
    assert "warning" not in bank.run_once().stderr
    assert identity(bank)["projector"] == bank.name and bank.outbox.find_one() is None


def test_the_granted_privileges_are_enough_for_the_identity(bank, elsewhere):
    with mysql_users(bank) as users:
        user = {"user": users["projector"], "password": "change-me-1"}
        bank.mapping(mysql=user, **SETTINGS)
        assert "projector_source" not in bank.run_once().stderr
        bank.mapping(mysql=user, mongodb={"database": elsewhere}, **SETTINGS)
        assert bank.projector("run", "--once").returncode == 2
        assert bank.projector("run", "--once", "--adopt").returncode == 0
        bank.run_once()
