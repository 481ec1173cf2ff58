"""A session is what the projector specifies, whatever the server hands out through its globals or through
`init_connect`, which spares only privileged users. On a private server."""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager
from typing import Iterator

import pymysql
import pytest

from bank import opened
from mysqld import PROJECTOR_PASSWORD, PROJECTOR_USER, Mysqld
from server import scratch_folder
from workspace import Stores, Workspace, bank_projections, decimal

# On both servers: what is handed out, and what our sessions have.
VARIABLES = {
    "autocommit": ("0", "1"),
    "completion_type": ("'RELEASE'", "NO_CHAIN"),
    "sql_mode": ("'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,PAD_CHAR_TO_FULL_LENGTH,HIGH_NOT_PRECEDENCE'",
                 "NO_AUTO_VALUE_ON_ZERO,STRICT_TRANS_TABLES,STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,"
                 "ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"),
    "character_set_client": ("latin1", "utf8mb4"),
    "character_set_connection": ("latin1", "utf8mb4"),
    "character_set_results": ("latin1", "utf8mb4"),
    "collation_connection": ("latin1_german1_ci", "utf8mb4_general_ci"),
    "time_zone": ("'+05:00'", "+00:00"),
    "foreign_key_checks": ("0", "1"),
    "unique_checks": ("0", "1"),
    "explicit_defaults_for_timestamp": ("0", "1"),
    "sql_auto_is_null": ("1", "0"),
    "sql_safe_updates": ("1", "0"),
    "div_precision_increment": ("0", "4"),
    "group_concat_max_len": ("4", "16777216"),
    "lc_messages": ("'en_GB'", "en_US"),
    "lc_time_names": ("'en_GB'", "en_US"),
    "default_week_format": ("3", "0"),
    "sql_select_limit": ("1", "18446744073709551615"),
    "max_join_size": ("1", None),  # changes sql_big_selects as well
    "sql_big_selects": ("0", "1"),
    "max_sort_length": ("64", "4096"),
    "innodb_lock_wait_timeout": ("2", "10"),
    "lock_wait_timeout": ("2", "10"),
    "wait_timeout": ("20", None),  # workers have one of their own
    "net_read_timeout": ("20", "60"),
    "net_write_timeout": ("20", "60"),
    "timestamp": ("86400", None),
}
OF_MYSQL = {
    "transaction_isolation": ("'SERIALIZABLE'", "READ-COMMITTED"),
    "transaction_read_only": ("1", "0"),
    "use_secondary_engine": ("FORCED", "OFF"),
    "max_execution_time": ("2000", "0"),
    "windowing_use_high_precision": ("0", "1"),
}
OF_MARIADB = {
    "tx_isolation": ("'SERIALIZABLE'", "READ-COMMITTED"),
    "tx_read_only": ("1", "0"),
    "old_mode": ("'ZERO_DATE_TIME_CAST'", "UTF8_IS_UTF8MB3"),
    "check_constraint_checks": ("0", "1"),
    "sql_if_exists": ("1", "0"),
    "skip_replication": ("1", "0"),
    "default_regex_flags": ("'EXTENDED'", ""),
    "max_recursive_iterations": ("1", "4294967295"),
    "system_versioning_asof": ("'2020-01-01'", "DEFAULT"),
    "max_statement_time": ("20", "0.000000"),
    "idle_transaction_timeout": ("20", "0"),
    "idle_readonly_transaction_timeout": ("20", "0"),
    "idle_write_transaction_timeout": ("20", "0"),
}


@pytest.fixture(scope="module")
def server(stores) -> Iterator[Mysqld]:
    folder = scratch_folder()
    with Mysqld(folder / "mysqld") as mysql:
        yield mysql
    shutil.rmtree(folder, ignore_errors=True)


class Odd(Workspace):
    """A workspace on that server."""

    server: Mysqld

    def connect(self) -> pymysql.Connection:
        return self.server.connect(user=PROJECTOR_USER, password=PROJECTOR_PASSWORD, database=self.name, autocommit=None)

    @contextmanager
    def handing_out(self, statement: str) -> Iterator[None]:
        """To ordinary users, such as the projector's."""
        self.query("SET GLOBAL init_connect = %s", statement)
        try:
            yield
        finally:
            self.query("SET GLOBAL init_connect = ''")


@pytest.fixture
def odd(stores, server, tmp_path) -> Iterator[Odd]:
    with Odd(Stores(stores.mongo_uri, server.port), tmp_path) as ws:
        ws.server = server
        yield ws


@pytest.fixture
def bank(odd) -> Odd:
    odd.create()
    return odd


@pytest.mark.thorough
def test_every_variable_has_our_value_whatever_is_handed_out(odd):
    variables = {**VARIABLES, **(OF_MARIADB if odd.server.is_mariadb else OF_MYSQL)}
    ours = {name: value for name, (_, value) in variables.items() if value is not None}
    shown = ", ".join(f"'{name}=', @@SESSION.{name}, '\\n'" for name in ours)
    odd.mapping([{"aggregate_type": "account", "table": "seen", "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}},
                  "columns": {"values": {"from": "values", "type": "text"}, "clock": {"from": "clock", "type": "text"}},
                  "events": {"Opened": {"op": "upsert"}, "Looked": {
                      "op": "sql", "statement": f"UPDATE seen SET `values` = CONCAT({shown}), clock = NOW() WHERE id = :$aggregate_id"}}}])
    odd.create()
    handed = ", ".join(f"{name} = {value}" for name, (value, _) in variables.items())
    with odd.handing_out(f"SET SESSION {handed}"):
        with odd.connect() as connection, connection.cursor() as cursor:  # it really is handed out
            for name, value in ours.items():
                cursor.execute(f"SELECT CAST(@@SESSION.{name} AS CHAR)")
                assert cursor.fetchone()[0] != value, name
        odd.put(odd.event("a1", "Opened", values="", clock=""), odd.event("a1", "Looked"))
        odd.run_once()
    row = odd.rows("seen")[0]
    seen = dict(line.split("=", 1) for line in row["values"].splitlines())
    assert {name: {"ON": "1", "OFF": "0"}.get(value, value) for name, value in seen.items()} == \
        {name: {"OFF": "0"}.get(value, value) for name, value in ours.items()}
    assert row["clock"] > "2020"


def test_autocommit_off_loses_nothing(bank):
    with bank.handing_out("SET autocommit = 0"):
        assert bank.projector("check").returncode == 0
        bank.put(opened(bank, "a1"))
        bank.run_once()
    assert len(bank.rows("account")) == 1


@pytest.mark.thorough
def test_a_transaction_that_is_handed_out_is_not_ours(bank):
    with bank.handing_out("BEGIN"):
        bank.put(opened(bank, "a1"))
        bank.run_once()
        assert bank.projector("status").returncode == 0
    assert len(bank.rows("account")) == 1
    assert bank.query("SELECT epoch FROM projector_fence")[0]["epoch"] == 1


@pytest.mark.thorough
def test_a_database_that_is_handed_out_is_not_ours(bank):
    other = f"{bank.name}_other"
    bank.query(f"CREATE DATABASE {other}")
    try:
        for table in ("account", "projector_applied", "projector_fence", "projector_position"):
            bank.query(f"CREATE TABLE {other}.{table} LIKE {table}")
        with bank.handing_out(f"USE {other}"):
            bank.put(opened(bank, "a1"))
            bank.run_once()
        assert len(bank.rows("account")) == 1
        assert bank.query(f"SELECT * FROM {other}.account") == []
    finally:
        bank.query(f"DROP DATABASE {other}")


def test_a_limit_of_rows_lets_no_older_row_overwrite_a_newer_one(bank):
    accounts = [f"a{i:03}" for i in range(250)]
    older = [opened(bank, account, name="old") for account in accounts]
    newer = [opened(bank, account, name="new") for account in accounts]
    with bank.handing_out("SET sql_select_limit = 100"):
        bank.put(newer)
        bank.run_once()
        bank.put(older)
        bank.run_once()
        assert {row["name"] for row in bank.rows("account")} == {"new"}
        bank.accounts.insert_many({"_id": account, "user_id": "u1", "name": "new", "balance": decimal("100.00")} for account in accounts)
        told = bank.projector("reconcile", "account")
    assert told.returncode == 0, told.stdout


def test_another_character_set_mangles_no_text(bank):
    statement = "UPDATE account SET name = CONCAT(:greeting, name) WHERE account_id = :$aggregate_id"
    projections = bank_projections()
    projections[0]["events"]["Greeted"] = {"op": "sql", "statement": statement}
    bank.mapping(projections)
    with bank.handing_out("SET NAMES latin1"):
        bank.put(opened(bank, "a1", name="Zoë"), bank.event("a1", "Greeted", greeting="你好, "))
        bank.run_once()
    assert bank.rows("account")[0]["name"] == "你好, Zoë"


def test_an_upsert_of_id_0_makes_no_other_row(odd):
    odd.mapping([{"aggregate_type": "account", "table": "numbered", "key": {"id": {"from": "$aggregate_id", "type": "int"}},
                  "columns": {"name": {"from": "name", "type": "varchar(20)"}}, "events": {"Opened": {"op": "upsert"}}}])
    odd.create()
    odd.query("ALTER TABLE numbered MODIFY id INT NOT NULL AUTO_INCREMENT")
    for name in ("first", "second"):
        odd.put(odd.event(0, "Opened", name=name))
        odd.run_once()
    assert odd.rows("numbered") == [{"id": 0, "name": "second"}]


def test_a_variable_that_cannot_be_had_is_named(bank):
    """The next AUTO_INCREMENT value is one that only its use can reset."""
    with bank.handing_out("SET insert_id = 7"):
        for command in (["run", "--once"], ["check"], ["reconcile"]):
            done = bank.projector(*command)
            assert done.returncode == 2, done.stderr
            assert "the session's insert_id is 7, not 0" in done.stdout + done.stderr


def test_commands_say_the_same_of_a_server_that_hands_out_odd_things(bank):
    bank.put(opened(bank, "a1"))
    bank.run_once()
    bank.accounts.insert_one({"_id": "a1", "user_id": "u1", "name": "Ada", "balance": decimal("100.00"), "version": 1})
    with bank.handing_out("SET NAMES latin1, autocommit = 0, sql_select_limit = 0, sql_safe_updates = 1, completion_type = 1"):
        for command in (["check"], ["status"], ["reconcile"], ["rebuild"], ["rebuild", "--shadow"], ["refresh", "account", "a1"],
                        ["explain", "account", "a1"]):
            done = bank.projector(*command)
            assert done.returncode == 0, (command, done.stdout, done.stderr)
        assert bank.projector("list").returncode == 1  # nothing
    assert len(bank.rows("account")) == 1


def statements_of(ws: Workspace) -> Iterator[tuple[str, bool]]:
    """Each statement of the projector's sessions, and whether it was sent within a transaction."""
    within: dict[int, bool] = {}
    for row in ws.query("SELECT thread_id AS id, CONVERT(argument USING utf8mb4) AS text FROM mysql.general_log WHERE user_host LIKE %s"
                        " AND command_type IN ('Query', 'Execute') ORDER BY event_time", f"{PROJECTOR_USER}%"):
        if row["text"] == "START TRANSACTION":
            within[row["id"]] = True
        yield row["text"], within.get(row["id"], False)
        if row["text"].upper() in ("COMMIT", "ROLLBACK"):
            within[row["id"]] = False


def test_what_decides_that_something_is_missing_is_read_in_a_transaction(bank):
    """A proxy that divides reads from writes sends a lone SELECT to a replica, which may lag."""
    bank.query("SET GLOBAL log_output = 'TABLE'")
    bank.query("SET GLOBAL general_log = 1")
    first, known, gap = opened(bank, "a1", version=1), opened(bank, "a2"), bank.event("a1", "MoneyDeposited", version=3, amount=decimal("1.00"))
    with bank.start_projector() as projector:
        bank.put(first)
        bank.wait_drained()
        bank.query("INSERT INTO projector_applied (projector, event_id_kind, event_id, outcome) SELECT projector, event_id_kind, %s, outcome"
                   " FROM projector_applied", str(known["_id"]))
        bank.put(known)
        bank.wait_drained()
        bank.put(gap)
        projector.wait_log("versions missing")
    bank.query("SET GLOBAL general_log = 0")
    reads = [(text, within) for text, within in statements_of(bank) if re.search("SELECT.* FROM projector_", text)]
    assert [text for text, within in reads if not within] == []
    for what in "SELECT source FROM projector_source", "SELECT epoch FROM projector_fence", "SELECT EXISTS .SELECT 1 FROM projector_applied", \
                "SELECT event_id, outcome, applied_at FROM projector_applied":
        assert any(re.search(what, text) for text, _ in reads), what


@pytest.mark.parametrize("forbids", ["YES", "SUPER"])
def test_a_server_that_lets_nobody_set_the_clock(stores, tmp_path, forbids):
    """MariaDB's secure_timestamp. There nobody else has set it either."""
    if not Mysqld(tmp_path).is_mariadb:
        pytest.skip("only MariaDB has secure_timestamp")
    folder = scratch_folder()

    class Secure(Mysqld):
        def arguments(self) -> list[str]:
            return [*super().arguments(), f"--secure-timestamp={forbids}"]

    with Secure(folder / "mysqld") as server, Workspace(Stores(stores.mongo_uri, server.port), tmp_path) as ws:
        ws.create()
        ws.put(opened(ws, "a1"))
        ws.run_once()
        assert len(ws.rows("account")) == 1
    shutil.rmtree(folder, ignore_errors=True)
