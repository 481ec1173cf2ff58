"""The program's privileges in both stores: the granted ones are sufficient, and each missing one is named."""

from __future__ import annotations

import json
import re
from datetime import datetime
from decimal import Decimal

import pymysql
import pytest

from bank import FAST, deposited, opened
from least_privilege import mysql_users
from workspace import WAIT_S, bank_projections, decimal


FILLING = (["rebuild", "account", "--shadow"], ["replay", "--projection", "account"])


def test_the_granted_privileges_are_enough_and_no_more(bank):
    with mysql_users(bank) as users:
        archive = {"retain": "archive"}
        bank.mapping(mysql={"user": users["projector"], "password": "change-me-1"}, mongodb=archive, **FAST, gap_wait_ms=50)
        check = bank.projector("check")
        assert check.returncode == 0, check.stdout
        bank.accounts.insert_one({"_id": "a1", "version": 9, "user_id": "u", "name": "n", "balance": decimal("5")})
        bank.put(opened(bank, version=1), deposited(bank, version=2), bank.event("a1", "AccountFrozen", version=3),
                 opened(bank, "a2"), bank.event("a2", "AccountClosed"))
        bank.run_once()
        bank.put(bank.event("a1", "AccountRenamed", at=datetime(2000, 1, 1), name="late"))  # a refresh
        bank.run_once()
        assert bank.outbox.find_one() is None
        assert [(r["account_id"], r["balance"]) for r in bank.rows("account")] == [("a1", Decimal("5.00"))]
        stores = bank.stores
        with pymysql.connect(host=stores.mysql_host, port=stores.mysql_port, user=users["projector"], password="change-me-1", database=bank.name) as c:
            for forbidden in ("DROP TABLE account", "ALTER TABLE account ADD x INT", "DELETE FROM projector_position",
                              "CREATE TABLE x (y INT)", "UPDATE projector_applied SET outcome = 'skipped'"):
                with pytest.raises(pymysql.err.OperationalError), c.cursor() as cursor:
                    cursor.execute(forbidden)
        assert bank.projector("rebuild", "account").returncode == 0
        assert bank.projector("replay", "--projection", "account", "--aggregate", "account", "nobody").returncode == 1
        for command in FILLING:
            denied = bank.projector(*command)
            assert denied.returncode == 2 and " may not CREATE account;" in denied.stderr, denied.stderr
        bank.mapping(mysql={"user": users["projector_fill"], "password": "change-me-3"}, mongodb=archive)
        rebuild, replay = FILLING
        for command in (rebuild, [*replay, "--from", "2001-01-01T00:00:00Z"]):  # the late one has no row before it
            done = bank.projector(*command, "--drop-old")
            assert done.returncode == 0, done.stderr
        bank.mapping(bank_projections() + [{"aggregate_type": "x", "table": "brand_new", "key": {"id": {"from": "$aggregate_id", "type": "int"}},
                                            "events": {"E": {"op": "upsert"}}}], mysql={"user": users["projector_schema"], "password": "change-me-2"})
        applied_schema = bank.projector("schema", "--apply")
        assert applied_schema.returncode == 0, applied_schema.stderr


MISSING = [("SELECT", "account"), ("INSERT", "account"), ("UPDATE", "account"), ("DELETE", "account"), ("SELECT", "projector_applied"),
           ("INSERT", "projector_applied"), ("DELETE", "projector_applied"), ("SELECT", "projector_position"), ("INSERT", "projector_position"),
           ("UPDATE", "projector_position"), ("SELECT", "projector_fence"), ("INSERT", "projector_fence"), ("UPDATE", "projector_fence"),
           ("SELECT", "projector_source"), ("INSERT", "projector_source"), ("UPDATE", "projector_source")]


@pytest.mark.thorough
def test_check_names_each_grant_that_is_missing(bank):
    """A user with all grants of sql/grants.sql but one."""
    user = f"u{bank.name[2:12]}"
    tables = {"account": "SELECT, INSERT, UPDATE, DELETE", "projector_applied": "SELECT, INSERT, DELETE",
              "projector_position": "SELECT, INSERT, UPDATE", "projector_fence": "SELECT, INSERT, UPDATE",
              "projector_source": "SELECT, INSERT, UPDATE"}
    bank.query(f"CREATE USER {user}@'127.0.0.1' IDENTIFIED BY 'x'")
    def findings() -> list[tuple[str, str]]:
        lines = [json.loads(line) for line in bank.projector("check", "--json").stdout.splitlines()]
        return [(l["verdict"], l["text"]) for l in lines if l["verdict"] != "ok" and l["subject"] == "mysql"]
    try:
        for table, privileges in tables.items():
            bank.query(f"GRANT {privileges} ON {table} TO {user}@'127.0.0.1'")
        bank.mapping(mysql={"user": user, "password": "x"})
        assert findings() == []
        for privilege, table in MISSING:
            bank.query(f"REVOKE {privilege} ON {table} FROM {user}@'127.0.0.1'")
            if (privilege, table) == ("SELECT", "projector_source"):  # it might as well not exist
                [(verdict, text)] = findings()
                assert verdict == "warning" and "schema --apply" in text and "sql/grants.sql" in text
                bank.query(f"GRANT {privilege} ON {table} TO {user}@'127.0.0.1'")
                continue
            [(verdict, text)] = [f for f in findings() if f"may not {privilege} {table}" in f[1]]
            assert verdict == ("warning" if table == "projector_source" or (privilege, table) == ("DELETE", "projector_applied") else "error")
            assert f"GRANT {privilege} ON {table} TO '{user}'@'127.0.0.1'" in text
            assert len(findings()) <= 2  # the statement of the `sql` op may lack it too
            bank.query(f"GRANT {privilege} ON {table} TO {user}@'127.0.0.1'")
        bank.query(f"REVOKE UPDATE, DELETE ON account FROM {user}@'127.0.0.1'")
        bank.query(f"GRANT UPDATE (user_id, name, balance, opened_at, updated_at) ON account TO {user}@'127.0.0.1'")
        [projection] = bank_projections()
        del projection["entities"], projection["events"]["AccountClosed"]
        bank.mapping([projection], mysql={"user": user, "password": "x"})
        assert findings() == []  # on some columns is enough, and no DELETE is needed without `delete` and refresh
        conditional = {**projection, "when": {"path": "balance", "exists": True}}  # what does not match has no row
        bank.mapping([conditional], mysql={"user": user, "password": "x"})
        assert ["may not DELETE account" in text for _, text in findings()] == [True]
        bank.query("CREATE TABLE tag (account_id VARCHAR(36), tag VARCHAR(20), PRIMARY KEY (account_id, tag))")
        bank.query(f"GRANT SELECT ON tag TO {user}@'127.0.0.1'")
        tags = {"table": "tag", "from": "tags", "key": {"tag": {"from": "$item", "type": "varchar(20)"}}}
        bank.mapping([{**projection, "children": [tags]}], mysql={"user": user, "password": "x"})
        assert [privilege for _, text in findings() for privilege in re.findall(r"may not (\w+) tag;", text)] == ["INSERT", "DELETE"]
        projection["events"]["AccountFrozen"]["statement"] = "DELETE FROM account WHERE account_id = :$aggregate_id"
        bank.mapping([projection], mysql={"user": user, "password": "x"})
        [(verdict, text)] = findings()
        assert verdict == "error" and "projections[0].events.AccountFrozen.statement: DELETE command denied" in text
    finally:
        bank.query(f"DROP USER {user}@'127.0.0.1'")


@pytest.mark.thorough
@pytest.mark.parametrize("command", FILLING, ids=["rebuild", "replay"])
def test_filling_a_table_names_the_privilege_that_is_missing_and_writes_nothing(bank, command):
    user = f"u{bank.name[2:12]}"
    everything = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, LOCK TABLES, TRIGGER"
    bank.mapping(mongodb={"retain": "archive"})
    bank.put(opened(bank))
    bank.run_once()
    bank.accounts.insert_one({"_id": "a1", "version": 1, "user_id": "u", "name": "n", "balance": decimal("5")})

    def written() -> list:
        tables = [t for row in bank.query("SHOW TABLES") for t in row.values()]
        return [(table, bank.query(f"CHECKSUM TABLE `{table}`")) for table in tables]
    before = written()
    bank.query(f"CREATE USER {user}@'127.0.0.1' IDENTIFIED BY 'x'")
    try:
        bank.mapping(mysql={"user": user, "password": "x"}, mongodb={"retain": "archive"})
        for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP", "LOCK TABLES"):
            bank.query(f"GRANT {everything} ON {bank.name}.* TO {user}@'127.0.0.1'")
            bank.query(f"REVOKE {privilege} ON {bank.name}.* FROM {user}@'127.0.0.1'")
            done = bank.projector(*command)
            assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, (privilege, done)
            assert re.search(rf"may not [A-Z, ]*{privilege}\b", done.stderr) or privilege == "SELECT", (privilege, done.stderr)
            assert written() == before
        bank.query(f"GRANT {everything} ON {bank.name}.* TO {user}@'127.0.0.1'")
        done = bank.projector(*command)
        assert done.returncode == 0, done.stderr
    finally:
        bank.query(f"DROP USER {user}@'127.0.0.1'")


def test_a_replay_that_does_not_swap_needs_no_privilege_for_it(bank):
    user = f"u{bank.name[2:12]}"
    bank.mapping(mongodb={"retain": "archive"})
    bank.put(opened(bank))
    bank.run_once()
    bank.query(f"CREATE USER {user}@'127.0.0.1' IDENTIFIED BY 'x'")
    try:
        bank.query(f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP ON {bank.name}.* TO {user}@'127.0.0.1'")
        bank.mapping(mysql={"user": user, "password": "x"}, mongodb={"retain": "archive"})
        done = bank.projector("replay", "--projection", "account", "--to", "2100-01-01T00:00:00Z")
        assert done.returncode == 0, done.stderr
    finally:
        bank.query(f"DROP USER {user}@'127.0.0.1'")
    assert len(bank.rows("account__replay")) == 1


def test_check_reads_the_statements_of_sql_ops(bank):
    [projection] = bank_projections()
    for statement, message in (("UPDATE account SET nome = 'x'", "1054|nknown column"), ("UPDATE acount SET name = 'x'", "doesn't exist"),
                               ("UPDATE account SET name", "SQL syntax")):
        projection["events"]["AccountFrozen"]["statement"] = statement
        bank.mapping([projection])
        done = bank.projector("check")
        assert done.returncode == 2
        assert re.search(rf"^error +mysql +projections\[0\]\.events\.AccountFrozen\.statement: .*({message})", done.stdout, re.M), done.stdout


REFUSALS = {"on a table of the projector's": ("REVOKE INSERT ON projector_position FROM {}", "INSERT command denied"),
            "on the ledger": ("REVOKE INSERT ON projector_applied FROM {}", "INSERT command denied"),
            "on a target table": ("REVOKE INSERT, UPDATE ON account FROM {}", "INSERT command denied|UPDATE command denied"),
            "on the whole connection": ("ALTER USER {} IDENTIFIED BY 'another'", "Access denied for user")}


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("what", REFUSALS)
def test_a_privilege_that_is_taken_away_stops_the_projector_with_a_clear_line_and_is_no_events_failure(bank, what):
    name = f"u{bank.name[2:12]}"
    user = f"{name}@'127.0.0.1'"
    refuse, reason = REFUSALS[what]
    bank.query(f"CREATE USER {user} IDENTIFIED BY 'x'")
    try:
        for table in ("account", *(t for row in bank.query("SHOW TABLES LIKE 'projector%%'") for t in row.values())):
            bank.query(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {user}")
        bank.mapping(mysql={"user": name, "password": "x"}, **FAST, claim_mark_ms=3600000)
        with bank.start_projector() as projector:
            bank.put(opened(bank))
            bank.wait_drained()
            bank.query(refuse.format(user))
            bank.end_sessions(name)
            event = opened(bank, "a2")
            bank.put(event)
            assert projector.popen.wait(WAIT_S) == 2
            assert re.search(rf"^projector: mysql: .*({reason})", projector.log_text(), re.M)
            assert "event failed" not in projector.log_text()
        assert bank.found(event) == event  # untouched
    finally:
        bank.query(f"DROP USER {user}")
