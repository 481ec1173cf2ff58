"""rebuild: tables are filled from the entities while events flow; nothing is lost and nothing is applied twice."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from bson import Int64

from bank import SHORT_LEASE
from entities import MOMENT, account, fill
from test_projector_reconcile import demo, differences, fill_quickly, reconcile, state_folder
from workspace import WAIT_S, bank_projections, decimal

__all__ = ["state_folder"]  # the fixture of reconcile's tests: a state folder per test


def rebuild(ws, *arguments: str, status: int = 0, timeout: float = 2 * WAIT_S) -> list[dict]:
    done = ws.projector("rebuild", "--json", *arguments, timeout=timeout)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def sums(lines: list[dict], table: str = "account") -> dict:
    [line] = [line for line in lines if line.get("rebuilt") == table]
    return line


def balances(ws) -> tuple[dict, dict]:
    return ({a["_id"]: a["balance"].to_decimal() for a in ws.accounts.find()},
            {row["account_id"]: row["balance"] for row in ws.rows("account")})


def two_tables() -> list[dict]:
    [first] = bank_projections()
    second = json.loads(json.dumps(first)) | {"table": "account_name"}
    del second["always"]
    second["columns"] = {"name": first["columns"]["name"]}
    second["events"] = {"AccountOpened": {"op": "upsert"}, "AccountRenamed": {"op": "update", "columns": ["name"]},
                        "AccountClosed": {"op": "delete"}}
    return [first, second]


MODES = [[], ["--shadow", "--drop-old"]]


# the effect


def test_an_empty_table_is_filled(bank):
    fill(bank, [account(n) for n in range(1200)])
    before = bank.rows("account")
    bank.query("TRUNCATE account")
    done = sums(rebuild(bank))
    assert (done["entities"], done["deleted"], done["left"]) == (1200, 0, 0)
    for row in before:  # $occurred_at of the entity, not of its event
        del row["updated_at"]
    assert [{k: v for k, v in row.items() if k != "updated_at"} for row in bank.rows("account")] == before
    assert differences(reconcile(bank)) == []


def deposit(ws, account_id: str, version: int, amount: str) -> dict:
    """The entity and its event, as one transaction would leave them."""
    ws.accounts.update_one({"_id": account_id}, {"$inc": {"balance": decimal(amount)}, "$set": {"version": Int64(version)}})
    event = ws.event(account_id, "MoneyDeposited", version, amount=decimal(amount))
    ws.put(event)
    return event


@pytest.mark.parametrize("mode", MODES)
def test_what_waits_in_the_outbox_is_not_applied_again(bank, mode):
    fill(bank, [account(n) for n in range(10)])
    for n in range(5):
        for version in (2, 3, 4):
            deposit(bank, f"a{n}", version, "10.00")
    rebuild(bank, *mode)
    assert differences(reconcile(bank)) == []
    bank.run_once()
    in_mongodb, in_mysql = balances(bank)
    assert in_mysql == in_mongodb
    assert differences(reconcile(bank)) == []


@pytest.mark.parametrize("mode", MODES)
def test_what_waits_for_an_entity_that_never_had_an_event_is_not_applied_again(bank, mode):
    """No position records that its row is newer."""
    bank.mapping(gap_wait_ms=0)
    bank.accounts.insert_one(account(1, version=Int64(3)))
    event = deposit(bank, "a1", 4, "5.00")
    rebuild(bank, *mode)
    bank.run_once()
    assert bank.rows("account")[0]["balance"] == decimal("15.50").to_decimal()
    assert bank.ledger()[str(event["_id"])] == "superseded"


@pytest.mark.parametrize("mode", MODES)
def test_a_late_event_that_the_entity_contains(bank, mode):
    """Version 2 arrives after version 3 was applied without it: both the position and the entity say 3."""
    bank.mapping(gap_wait_ms=0, **SHORT_LEASE)
    fill(bank, [account(1)])
    bank.put(bank.event("a1", "MoneyDeposited", 3, amount=decimal("100.00")))
    bank.run_once()
    bank.accounts.update_one({"_id": "a1"}, {"$inc": {"balance": decimal("110.00")}, "$set": {"version": Int64(3)}})
    late = bank.event("a1", "MoneyDeposited", 2, amount=decimal("10.00"), at=MOMENT)
    bank.put(late)
    rebuild(bank, "account", *mode)
    bank.run_once()
    assert bank.found(late) is None and bank.ledger()[str(late["_id"])] == "superseded"
    in_mongodb, in_mysql = balances(bank)
    assert in_mysql == in_mongodb


@pytest.mark.parametrize("mode", MODES)
def test_an_entity_that_is_gone_before_its_last_events_are_applied(bank, mode):
    """Its row is deleted with it: the deposit before the deletion must not need it."""
    bank.mapping(max_attempts=1)
    fill(bank, [account(1), account(2)])
    deposit(bank, "a1", 2, "10.00")
    bank.accounts.delete_one({"_id": "a1"})
    bank.put(bank.event("a1", "AccountClosed", 3))
    rebuild(bank, "account", *mode)
    bank.run_once()
    assert bank.outbox.find_one() is None
    assert [row["account_id"] for row in bank.rows("account")] == ["a2"]


@pytest.mark.parametrize("mode", MODES)
def test_a_damaged_table(bank, mode):
    fill(bank, [account(n) for n in range(50)])
    bank.query("UPDATE account SET balance = balance + 100 WHERE account_id < 'a3'")
    bank.query("DELETE FROM account WHERE account_id > 'a4'")
    bank.query("INSERT INTO account SELECT CONCAT('x', account_id), user_id, name, balance, opened_at, updated_at"
               " FROM account")
    lines = rebuild(bank, *mode)
    assert sums(lines)["entities"] == 50
    if not mode:
        assert sums(lines)["deleted"] > 10
    assert differences(reconcile(bank)) == []
    assert len(bank.rows("account")) == 50


@pytest.mark.thorough
@pytest.mark.parametrize("mode", MODES)
def test_a_new_table_of_known_aggregates(ws, mode):
    """A second table is added for events that were applied long ago: filling it must leave the first one correct."""
    first, second = two_tables()
    ws.mapping([first])
    ws.create()
    fill(ws, [account(n) for n in range(20)])
    ws.mapping([first, second])
    ws.create()
    deposit(ws, "a3", 2, "10.00")
    assert sums(rebuild(ws, "account_name", *mode), "account_name")["entities"] == 20
    assert len(ws.rows("account_name")) == 20
    ws.run_once()
    in_mongodb, in_mysql = balances(ws)
    assert in_mysql == in_mongodb
    assert differences(reconcile(ws)) == []


@pytest.mark.parametrize("mode", MODES)
def test_all_tables(ws, mode):
    ws.mapping(two_tables())
    ws.create()
    fill(ws, [account(n) for n in range(20)])
    for table in ("account", "account_name"):
        ws.query(f"DELETE FROM {table} WHERE account_id > 'a2'")
    lines = rebuild(ws, *mode)
    assert [line["rebuilt"] for line in lines] == ["account", "account_name"]
    assert [line["entities"] for line in lines] == [20, 20]
    assert differences(reconcile(ws)) == []


@pytest.mark.parametrize("mode", MODES)
def test_what_cannot_be_taken_is_named(bank, mode):
    fill(bank, [account(n) for n in range(6)])
    bank.query("TRUNCATE account")
    bank.accounts.update_one({"_id": "a1"}, {"$set": {"name": "x" * 101}})
    bank.accounts.update_one({"_id": "a2"}, {"$unset": {"version": 1}})
    lines = rebuild(bank, *mode, status=1)
    left = {line["aggregate_id"]: line["reason"] for line in lines if "aggregate_id" in line}
    assert "varchar(100)" in left["a1"] and "no version" in left["a2"] and len(left) == 2
    if not mode:
        assert sums(lines)["left"] == 2
        assert [row["account_id"] for row in bank.rows("account")] == ["a0", "a3", "a4", "a5"]
    else:
        assert bank.rows("account") == []


def test_what_mysql_refuses_of_a_batch_is_found(bank):
    fill(bank, [account(n) for n in range(40)])
    bank.query("ALTER TABLE account ADD CONSTRAINT no_eve CHECK (name <> 'Eve')")
    bank.query("TRUNCATE account")
    bank.accounts.update_one({"_id": "a7"}, {"$set": {"name": "Eve"}})
    [left] = [line for line in rebuild(bank, status=1) if "aggregate_id" in line]
    assert left["aggregate_id"] == "a7" and "no_eve" in left["reason"]
    assert len(bank.rows("account")) == 39


def test_nothing_to_fill(bank):
    assert sums(rebuild(bank))["entities"] == 0


def test_the_rate_is_kept(bank):
    bank.accounts.insert_many(account(n) for n in range(100))
    assert sums(rebuild(bank, "--rate", "100"))["seconds"] > 0.9
    assert differences(reconcile(bank)) == []


def test_at_a_low_rate_every_entity_becomes_a_row_too(bank):
    """Then a page is a single entity."""
    bank.accounts.insert_many(account(n) for n in range(3))
    rebuild(bank, "--rate", "4")
    assert len(bank.rows("account")) == 3


# wrong use


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("arguments, said", [
    (["nowhere"], "no projection fills a table nowhere"),
    (["unseen"], 'unseen has no "entities" to rebuild from'),
    (["account", "unseen"], "expected one TABLE"),
    (["--rate", "-1"], "--rate"),
    (["by_event"], "belongs to an event"),
    (["account"], 'projections[2]: sibling takes the same events as account and needs "entities" too'),
])
def test_wrong_use(ws, arguments, said):
    [first] = bank_projections()
    unseen = json.loads(json.dumps(first)) | {"table": "unseen", "aggregate_type": "unseen"}
    sibling = json.loads(json.dumps(first)) | {"table": "sibling"}
    del unseen["entities"], sibling["entities"]
    by_event = json.loads(json.dumps(first)) | {"table": "by_event", "aggregate_type": "other"}
    by_event["key"] = {"id": {"from": "$event_id", "type": "varchar(36)"}}
    ws.mapping([first, unseen, sibling, by_event])
    ws.create()
    ws.accounts.insert_one(account(1))
    done = ws.projector("rebuild", *arguments)
    assert done.returncode == 2
    assert said in done.stderr and done.stdout == ""
    assert ws.rows("account") == []


@pytest.mark.parametrize("mode", MODES)
def test_a_store_that_is_away(bank, mode):
    bank.mapping(mysql={"port": 1})
    assert bank.projector("rebuild", "account", *mode).returncode == 3
    bank.mapping(mongodb={"uri": "mongodb://127.0.0.1:1/?replicaSet=rs0&serverSelectionTimeoutMS=300"})
    assert bank.projector("rebuild", "account", *mode).returncode == 3


@pytest.mark.parametrize("mode", MODES)
def test_a_table_that_is_not_there(bank, mode):
    bank.accounts.insert_one(account(1))
    bank.query("DROP TABLE account")
    done = bank.projector("rebuild", "account", *mode)
    assert done.returncode == 2
    assert "account does not exist" in done.stderr and "schema --apply" in done.stderr


# while events flow


@pytest.mark.thorough(beyond=1)
@pytest.mark.parametrize("mode", MODES)
def test_while_events_flow(bank, mode):
    """The table is corrupted and rebuilt again and again while the projector writes to it. A deposit applied twice, or
    not at all, would leave a wrong balance."""
    bank.mapping(**SHORT_LEASE)
    rounds = 0
    with bank.start_projector():
        writer = demo(bank, 1000, 10)
        bank.wait(lambda: len(bank.rows("account")) > 20, what="some accounts")
        while writer.poll() is None:
            ids = [row["account_id"] for row in bank.rows("account")]
            for account_id in ids[:5]:
                bank.query("UPDATE account SET balance = balance + 100 WHERE account_id = %s", account_id)
            bank.query("INSERT IGNORE INTO account VALUES (%s, 'u', 'Nobody', 1, NULL, '2024-01-01')", f"x{ids[5][1:]}")
            rebuild(bank, "account", *mode)
            rounds += 1
        assert writer.returncode == 0
        bank.wait_drained()
    assert rounds > 0
    assert differences(reconcile(bank)) == []
    in_mongodb, in_mysql = balances(bank)
    assert in_mysql == in_mongodb and len(in_mysql) > 20


# the swap


def tables(ws) -> set[str]:
    return {next(iter(row.values())) for row in ws.query("SHOW TABLES LIKE 'account%'")}


def shadow(ws, *arguments: str, status: int = 0) -> list[dict]:
    return rebuild(ws, "account", "--shadow", *arguments, status=status)


@pytest.mark.thorough
def test_the_old_table_stays_and_is_never_overwritten(bank):
    fill(bank, [account(n) for n in range(5)])
    bank.query("UPDATE account SET name = 'Eve' WHERE account_id = 'a1'")
    bank.query("ALTER TABLE account ADD COLUMN note VARCHAR(10) DEFAULT 'mine', ADD INDEX by_name (name)")
    before = bank.rows("account")
    assert sums(shadow(bank))["entities"] == 5
    assert tables(bank) == {"account", "account__old"}
    assert bank.rows("account__old") == before
    assert {row["note"] for row in bank.rows("account")} == {"mine"}
    assert "by_name" in {row["Key_name"] for row in bank.query("SHOW INDEX FROM account")}
    assert differences(reconcile(bank)) == []

    done = bank.projector("rebuild", "account", "--shadow")
    assert done.returncode == 2
    assert "account__old exists" in done.stderr and "--drop-old" in done.stderr
    assert bank.rows("account__old") == before
    shadow(bank, "--drop-old")
    assert {row["name"] for row in bank.rows("account__old")} == {f"Ada {n}" for n in range(5)}


def test_the_live_table_is_not_touched_before_the_swap(bank):
    """All but one of its entities can be taken."""
    fill(bank, [account(n) for n in range(5)])
    bank.query("UPDATE account SET name = 'Eve'")
    bank.accounts.update_one({"_id": "a1"}, {"$set": {"name": "x" * 101}})
    before = bank.rows("account")
    done = bank.projector("rebuild", "account", "--shadow")
    assert done.returncode == 1
    assert "varchar(100)" in done.stdout and "account is unchanged" in done.stderr
    assert bank.rows("account") == before and tables(bank) == {"account"}


@pytest.mark.thorough(beyond=1)
@pytest.mark.parametrize("statement, said", [
    ("CREATE TRIGGER spy BEFORE UPDATE ON account FOR EACH ROW SET NEW.name = 'Eve'", "the trigger spy"),
    ("CREATE TABLE child (a VARCHAR(36) CHARACTER SET utf8mb4 COLLATE {collation} NOT NULL,"
     " CONSTRAINT ours FOREIGN KEY (a) REFERENCES account (account_id))", "the foreign key ours"),
    ("CREATE TABLE branch (id INT PRIMARY KEY);"
     "ALTER TABLE account ADD branch INT NULL, ADD CONSTRAINT its FOREIGN KEY (branch) REFERENCES branch (id)", "the foreign key its"),
])
def test_what_a_swap_would_leave_behind(bank, statement, said):
    [column] = bank.query("SHOW FULL COLUMNS FROM account LIKE 'account_id'")
    for part in statement.format(collation=column["Collation"]).split(";"):
        bank.query(part)
    done = bank.projector("rebuild", "account", "--shadow")
    assert done.returncode == 2 and said in done.stderr
    assert tables(bank) == {"account"}


@pytest.mark.thorough
def test_a_foreign_key_of_another_database_is_not_left_behind(bank):
    other = f"{bank.name}_o"
    [column] = bank.query("SHOW FULL COLUMNS FROM account LIKE 'account_id'")
    bank.query(f"CREATE DATABASE {other}")
    try:
        bank.query(f"CREATE TABLE {other}.report (a VARCHAR(36) CHARACTER SET utf8mb4 COLLATE {column['Collation']} NOT NULL,"
                   f" CONSTRAINT theirs FOREIGN KEY (a) REFERENCES {bank.name}.account (account_id))")
        done = bank.projector("rebuild", "account", "--shadow")
    finally:
        bank.query(f"DROP DATABASE {other}")
    assert done.returncode == 2 and "the foreign key theirs" in done.stderr
    assert tables(bank) == {"account"}


def test_a_key_that_an_entity_can_change(ws):
    [projection] = bank_projections()
    projection["key"] = {"name": {"from": "name", "type": "varchar(36)"}}
    del projection["always"]
    projection["columns"] = {"user_id": projection["columns"]["user_id"]}
    projection["events"] = {"AccountOpened": {"op": "upsert"}}
    ws.mapping([projection])
    ws.create()
    done = ws.projector("rebuild", "--shadow")
    assert done.returncode == 2 and "its key name comes from the entity" in done.stderr


def test_drop_old_alone_is_wrong_use(bank):
    done = bank.projector("rebuild", "--drop-old")
    assert done.returncode == 2 and "--drop-old needs --shadow" in done.stderr


def test_a_new_row_that_is_not_what_was_written(bank):
    """A second unique key makes one row overwrite another: the comparison finds that, and nothing is swapped."""
    [projection] = bank_projections()
    bank.mapping([projection | {"allow_unique_keys": True}])
    bank.accounts.insert_many([account(1), account(2, user_id="u1")])
    bank.query("ALTER TABLE account ADD UNIQUE (user_id)")
    lines = shadow(bank, status=1)
    assert "differs from what was written" in lines[0]["reason"]
    assert tables(bank) == {"account"} and bank.rows("account") == []


THE_RENAME = "RENAME TABLE `account` TO `account__old`"  # not those that probe the privileges


def waiting(ws, what: str) -> list[dict]:
    return [row for row in ws.query("SHOW PROCESSLIST") if what in (row["Info"] or "") and row["db"] == ws.name
            and "SHOW" not in row["Info"]]


def start_shadow(ws) -> subprocess.Popen:
    return start(ws, "rebuild", "--shadow", "--drop-old", "account")


def start(ws, *command: str) -> subprocess.Popen:
    return subprocess.Popen(ws._projector(*command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True, env={**os.environ, **ws.environment})


def held_open(ws):
    """A session that reads the table and leaves its transaction open: a RENAME has to wait for it."""
    reader = ws.stores.mysql(ws.name)
    with reader.cursor() as cursor:
        cursor.execute("START TRANSACTION")
        cursor.execute("SELECT COUNT(*) FROM account")
    return reader


def lock_row(session, table: str, account_id: str) -> None:
    with session.cursor() as cursor:
        cursor.execute("START TRANSACTION")
        cursor.execute(f"SELECT * FROM {table} WHERE account_id = %s FOR UPDATE", account_id)


def test_events_wait_for_the_swap(bank):
    """A reader delays the RENAME. Deposits that arrive meanwhile are applied to the new table."""
    bank.mapping(**SHORT_LEASE)
    fill(bank, [account(n) for n in range(10)])
    with bank.start_projector() as projector, held_open(bank) as reader:
        projector.wait_log("working")
        process = start_shadow(bank)
        bank.wait(lambda: waiting(bank, THE_RENAME), what="the RENAME")
        bank.wait(lambda: "account__old" not in tables(bank), what="the gate to open")
        events = [deposit(bank, "a1", version, "10.00") for version in (2, 3)]
        bank.wait(lambda: len(waiting(bank, "account")) > 1, what="the projector to wait behind the RENAME")
        reader.rollback()
        assert process.wait(WAIT_S) == 0, process.stderr.read()
        bank.wait_gone(*events)
    assert "account__old" in tables(bank)
    in_mongodb, in_mysql = balances(bank)
    assert in_mysql == in_mongodb
    assert {row["balance"] for row in bank.rows("account__old")} == {decimal("10.50").to_decimal()}


@pytest.mark.thorough
def test_what_is_applied_while_the_gate_closes_is_in_the_new_table_and_then_nothing_is_applied(bank):
    """A transaction is in progress when everything has been copied: the gate waits for it, then its account is copied
    again. A lock delays that, and the next event waits for the swap."""
    bank.mapping(**SHORT_LEASE)
    fill(bank, [account(n) for n in range(10)])
    live, copy = (bank.stores.mysql(bank.name) for _ in range(2))
    with bank.start_projector() as projector, live, copy:
        projector.wait_log("working")
        lock_row(live, "account", "a1")
        events = [bank.event("a1", "MoneyDeposited", 2, amount=decimal("10.00"))]
        bank.put(events)
        bank.wait_lock_wait()
        process = start_shadow(bank)
        bank.wait(lambda: waiting(bank, "LOCK TABLES projector_fence WRITE"), what="the gate")
        bank.accounts.update_one({"_id": "a1"}, {"$inc": {"balance": decimal("10.00")}, "$set": {"version": Int64(2)}})
        lock_row(copy, "account__new", "a1")
        live.rollback()
        bank.wait(lambda: waiting(bank, "INSERT INTO `account__new`"), what="the last copy")
        events.append(deposit(bank, "a2", 2, "10.00"))
        bank.wait(lambda: waiting(bank, "(SELECT epoch"), what="the projector to wait for the swap")
        copy.rollback()
        assert process.wait(WAIT_S) == 0, process.stderr.read()
        bank.wait_gone(*events)
    in_mongodb, in_mysql = balances(bank)
    assert in_mysql == in_mongodb


@pytest.mark.thorough
def test_killed_while_the_rename_waits(bank):
    """Swapped or not, the stores agree in the end."""
    bank.mapping(**SHORT_LEASE)
    fill(bank, [account(n) for n in range(10)])
    with bank.start_projector() as projector, held_open(bank) as reader:
        projector.wait_log("working")
        process = start_shadow(bank)
        bank.wait(lambda: waiting(bank, THE_RENAME), what="the RENAME")
        process.kill()
        process.wait()
        event = deposit(bank, "a1", 2, "10.00")
        reader.rollback()
        bank.wait_gone(event)
        assert differences(reconcile(bank)) == []
    shadow(bank, "--resume", "--drop-old")
    assert tables(bank) == {"account", "account__old"}
    in_mongodb, in_mysql = balances(bank)
    assert in_mysql == in_mongodb


def test_a_gate_that_is_lost_swaps_nothing(bank):
    """The session that keeps events from being applied is killed while a transaction delays the gate's lock, then again
    while the RENAME is pending: the placeholder blocks any RENAME."""
    fill(bank, [account(n) for n in range(10)])
    before = bank.rows("account")
    holder = bank.stores.mysql(bank.name)
    with holder, holder.cursor() as cursor:
        cursor.execute("START TRANSACTION")
        cursor.execute("SELECT * FROM projector_fence")
        process = start_shadow(bank)
        [gate] = bank.wait(lambda: waiting(bank, "LOCK TABLES projector_fence WRITE"), what="the gate")
        bank.query(f"KILL {gate['Id']}")
        assert process.wait(WAIT_S) != 0
        holder.rollback()
    assert bank.rows("account") == before
    shadow(bank, "--resume")
    assert differences(reconcile(bank)) == []
    assert tables(bank) == {"account", "account__old"}


# interrupted


@pytest.mark.thorough
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("resume", [False, True])
def test_killed_and_started_again(bank, mode, resume):
    fill_quickly(bank, 10000)
    bank.query("UPDATE account SET name = 'Eve' WHERE CRC32(account_id) % 50 = 1")
    bank.query("DELETE FROM account WHERE CRC32(account_id) % 50 = 2")
    bank.query("INSERT INTO account SELECT CONCAT('x', account_id), user_id, name, balance, opened_at, updated_at"
               " FROM account WHERE CRC32(account_id) % 50 = 3")
    assert any(bank.kill_at(5, "rebuild", *mode, "account") for _ in range(5))  # a busy machine may be too late
    deposit(bank, "a000003", 2, "10.00")  # of a part that was already filled
    deposit(bank, "a009999", 2, "10.00")
    arguments = [*mode, *(["--resume"] if resume else []), "account"]
    for lines in (3, 8):
        bank.kill_at(lines, "rebuild", *arguments)
    done = sums(rebuild(bank, *arguments))
    assert done["entities"] == 10000
    assert not bank.state_file("rebuild").exists()
    bank.run_once()
    assert differences(reconcile(bank)) == []
    assert len(bank.rows("account")) == 10000
    in_mongodb, in_mysql = balances(bank)
    assert in_mysql == in_mongodb


@pytest.mark.thorough
@pytest.mark.parametrize("mode", MODES)
def test_a_changed_mapping_is_not_resumed(bank, mode):
    fill_quickly(bank, 5000)
    assert any(bank.kill_at(2, "rebuild", *mode, "account") for _ in range(5))  # a busy machine may be too late
    kept, rows = bank.state_file("rebuild").read_bytes(), bank.rows("account")
    [projection] = bank_projections()
    projection["columns"]["name"]["from"] = "user_id"
    bank.mapping([projection])
    done = bank.projector("rebuild", "--resume", *mode, "account")
    assert done.returncode == 2
    assert "mapping or the options" in done.stderr
    assert bank.state_file("rebuild").read_bytes() == kept and bank.rows("account") == rows


def test_nothing_to_resume(bank):
    fill(bank, [account(1)])
    done = bank.projector("rebuild", "--resume")
    assert done.returncode == 0
    assert "nothing to resume" in done.stderr and "account: 1 entities" in done.stdout


@pytest.mark.thorough
def test_killed_again_and_again_while_events_flow(bank):
    """A shadow is built, killed at some moment, resumed or restarted, swapped: a hundred accounts stay correct."""
    bank.mapping(**SHORT_LEASE)
    swaps = kills = 0
    with bank.start_projector():
        writer = demo(bank, 500, 12)
        bank.wait(lambda: len(bank.rows("account")) > 20, what="some accounts")
        while writer.poll() is None:
            arguments = ["account", "--shadow", "--drop-old", *(["--resume"] if kills % 2 else [])]
            process = subprocess.Popen(bank._projector("rebuild", *arguments), stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                       env={**os.environ, **bank.environment})
            try:  # later each time, so that the kills cover the whole run
                process.wait(0.02 * (kills % 15 + 1))
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
            else:
                assert process.returncode in (0, 1, 2)
                swaps += process.returncode == 0
                kills += 1
            process.wait()
        assert writer.returncode == 0
        bank.wait_drained()
    assert kills > 5
    assert differences(reconcile(bank)) == []
    in_mongodb, in_mysql = balances(bank)
    assert in_mysql == in_mongodb
    shadow(bank, "--resume", "--drop-old")
    assert tables(bank) == {"account", "account__old"}
    assert differences(reconcile(bank)) == []
