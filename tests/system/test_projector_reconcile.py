"""reconcile: every planted difference is found and repaired, and nothing else is, whatever happens meanwhile."""

from __future__ import annotations

import fcntl
import json
import re
import subprocess
import uuid
from datetime import datetime

import pytest
from bson import Int64, ObjectId

from bank import SHORT_LEASE
from entities import MOMENT, account, fill, opened
from forwarding import forwarding
from workspace import OUTBOX, WAIT_S, bank_projections, decimal


@pytest.fixture(autouse=True)
def state_folder(ws, tmp_path):
    ws.environment["XDG_STATE_HOME"] = str(tmp_path / "state")


def reconcile(ws, *arguments: str, status: int = 0, timeout: float = 2 * WAIT_S) -> list[dict]:
    done = ws.projector("reconcile", "--json", *arguments, timeout=timeout)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def differences(lines: list[dict]) -> list[dict]:
    return [line for line in lines if "difference" in line]


def kinds(lines: list[dict]) -> dict[str, set[str]]:
    """Ids by kind of difference."""
    found: dict[str, set[str]] = {}
    for line in differences(lines):
        found.setdefault(line["difference"], set()).add(line.get("aggregate_id") or str(line.get("key")))
    return found


def sums(lines: list[dict], table: str | None = "account") -> dict:
    [line] = [line for line in lines if "sums" in line and line["sums"] == table]
    return line


# what is equal


def test_equal_stores(bank):
    fill(bank, [account(n) for n in range(10)])
    lines = reconcile(bank)
    assert differences(lines) == []
    assert (sums(lines)["entities"], sums(lines)["rows"], sums(lines)["lagging"]) == (10, 10, 0)


def test_nothing_at_all_is_equal(bank):
    assert differences(reconcile(bank)) == []


EVERY_TYPE = {
    "b": ("boolean", [True, False]),
    "i8": ("tinyint", [-128, 127]),
    "i24u": ("mediumint unsigned", [0, 16777215]),
    "i64": ("bigint", [-2**63, 2**63 - 1]),
    "i64u": ("bigint unsigned", [0, decimal("18446744073709551615")]),
    "d": ("double", [0.1 + 0.2, 1.7976931348623157e308, 5e-324, -0.0, 1e22, 123456789.123456789]),
    "dec": ("decimal(18,2)", [decimal("-12.5"), decimal("1E+3"), "7", 0.1]),
    "dec65": ("decimal(65,30)", [decimal("1234567890.123456789012345678901234")]),
    "c": ("char(5)", ["", "ab", "Ωé"]),
    "v": ("varchar(40)", ["", " blank ", "quote ' \\ \0 \n", "e\u0301", "\u00e9", "😀", uuid.UUID(int=5), 7]),
    "t": ("text", ["", "x" * 65535]),
    "bin": ("binary(4)", [b"\0\0\0\0", b"\xff\x00 \n"]),
    "vb": ("varbinary(20)", [b"", b"\0", ObjectId("0123456789abcdef01234567")]),
    "bl": ("blob", [b"\0" * 1000]),
    "da": ("date", [datetime(2024, 2, 29), "1999-12-31"]),
    "dt": ("datetime(3)", [MOMENT, datetime(1000, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999000)]),
    "dt6": ("datetime(6)", ["2024-01-02T03:04:05.678901Z", MOMENT]),
    "ts": ("timestamp(3)", [MOMENT, datetime(1970, 1, 1, 0, 0, 1)]),
    "j": ("json", [{"b": 1, "a": [1.5, 2.0, None, {"ä": "😀\0"}], "long": 2**62}, [], "text", 5, 1.0, True, 1e300,
                   {"when": MOMENT, "id": uuid.UUID(int=1), "dec": decimal("1.10"), "n": 0.1}]),
    "u": ("uuid", [uuid.UUID(int=3), "0189ABCD-0000-7000-8000-00000000000A"]),
}


def test_no_type_makes_a_difference_of_encoding(ws):
    columns = {name: {"from": name, "type": kind, "null": True} for name, (kind, _) in EVERY_TYPE.items()}
    ws.mapping([{"aggregate_type": "account", "table": "every", "entities": "everything",
                 "key": {"id": {"from": "$aggregate_id", "type": "varchar(20)"}}, "columns": columns,
                 "events": {"AccountOpened": {"op": "upsert"}}}])
    ws.create()
    most = max(len(values) for _, values in EVERY_TYPE.values())
    entities = [{"_id": f"e{n}", "version": Int64(1)} |
                {name: values[n] for name, (_, values) in EVERY_TYPE.items() if n < len(values)} for n in range(most)]
    fill(ws, entities, "everything")
    assert len(ws.rows("every")) == most
    lines = reconcile(ws)
    assert differences(lines) == []
    assert sums(lines, "every")["lagging"] == 0


KEYS = {
    "int": ({"id": {"from": "$aggregate_id", "type": "int"}}, [1, 5, 10, -7]),
    "bigint unsigned": ({"id": {"from": "$aggregate_id", "type": "bigint unsigned"}}, [1, Int64(2**40)]),
    "uuid": ({"id": {"from": "$aggregate_id", "type": "uuid"}}, [uuid.UUID(int=9), str(uuid.UUID(int=8))]),
    "uuid as text": ({"id": {"from": "$aggregate_id", "type": "varchar(36)"}}, [uuid.UUID(int=9), "x", 5, ObjectId()]),
    "binary": ({"id": {"from": "$aggregate_id", "type": "binary(12)"}}, [ObjectId(), ObjectId()]),
    "composite": ({"tenant": {"from": "tenant", "type": "varchar(10)"},
                   "id": {"from": "$aggregate_id", "type": "varchar(36)"}}, ["a", "b ", "B"]),
    "payload": ({"no": {"from": "deep.no", "type": "decimal(10,2)"}}, ["x1", "x2", "x3"]),
}


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("name", KEYS)
def test_keys_of_any_kind(ws, name):
    key, ids = KEYS[name]
    projection = {"aggregate_type": "account", "table": "keyed", "entities": "keyed", "key": key,
                  "columns": {"name": {"from": "name", "type": "varchar(20)"}},
                  "events": {"AccountOpened": {"op": "upsert"}, "AccountClosed": {"op": "ignore"}}}
    ws.mapping([projection])
    ws.create()
    entities = [{"_id": i, "tenant": "t", "deep": {"no": decimal(f"{n}.5")}, "name": f"n{n}", "version": Int64(1)}
                for n, i in enumerate(ids)]
    fill(ws, entities, "keyed")
    assert differences(reconcile(ws)) == []

    ws.query("UPDATE keyed SET name = 'N0' WHERE name = 'n0'")
    ws.db["keyed"].delete_one({"name": "n1"})
    lines = reconcile(ws, status=1)
    assert sorted(d["difference"] for d in differences(lines)) == ["different columns", "extra row"]

    mended = reconcile(ws, "--repair", status=1 if name == "payload" else 0)
    left = [d for d in differences(mended) if not d["mended"]]
    if name == "payload":
        assert "does not identify the aggregate" in left[0]["outcome"]
        ws.query("DELETE FROM keyed WHERE name = 'n1'")
    assert differences(reconcile(ws)) == []


# planted faults

FAULTS = {
    "deleted row": ("DELETE FROM account WHERE account_id = 'a3'", "missing row"),
    "changed": ("UPDATE account SET name = 'Eve' WHERE account_id = 'a3'", "different columns"),
    "trailing blank": ("UPDATE account SET name = 'Ada 3 ' WHERE account_id = 'a3'", "different columns"),
    "case": ("UPDATE account SET name = 'ada 3' WHERE account_id = 'a3'", "different columns"),
    "last decimal": ("UPDATE account SET balance = 10.51 WHERE account_id = 'a3'", "different columns"),
    "NULL": ("UPDATE account SET opened_at = NULL WHERE account_id = 'a3'", "different columns"),
    "a millisecond": ("UPDATE account SET opened_at = opened_at + INTERVAL 1000 MICROSECOND WHERE account_id = 'a3'",
                      "different columns"),
    "added row": ("INSERT INTO account SELECT 'zz', user_id, name, balance, opened_at, updated_at FROM account LIMIT 1",
                  "extra row"),
    "position ahead": ("UPDATE projector_position SET version = 9, max_version = 9 WHERE aggregate_id = 'a3'",
                       "position ahead of entity"),
    "position lost": ("UPDATE projector_position SET version = 1, max_version = 1 WHERE aggregate_id = 'a3'",
                      "position behind entity"),
}


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_and_mended(bank, name):
    statement, kind = FAULTS[name]
    fill(bank, [account(n, version=Int64(2)) for n in range(6)])
    bank.query(statement)
    target = "zz" if kind == "extra row" else "a3"
    assert kinds(reconcile(bank, status=1)) == {kind: {target}}

    planned = reconcile(bank, "--repair", "--dry-run", status=1)
    assert differences(planned)[0]["outcome"].startswith("would ")
    assert kinds(reconcile(bank, status=1)) == {kind: {target}}

    mended = reconcile(bank, "--repair")
    assert kinds(mended) == {kind: {target}}
    assert differences(mended)[0]["mended"]
    assert differences(reconcile(bank)) == []
    assert len(bank.rows("account")) == 6


def test_null_for_empty_and_a_microsecond_in_a_finer_column(ws):
    [projection] = bank_projections()
    projection["columns"]["note"] = {"from": "note", "type": "varchar(10)", "null": True}
    ws.mapping([projection])
    ws.create()
    ws.query("ALTER TABLE account MODIFY opened_at DATETIME(6) NULL")
    fill(ws, [account(n, note="") for n in range(4)])
    assert differences(reconcile(ws)) == []
    ws.query("UPDATE account SET note = NULL WHERE account_id = 'a1'")
    ws.query("UPDATE account SET opened_at = opened_at + INTERVAL 1 MICROSECOND WHERE account_id = 'a2'")
    found = {d["aggregate_id"]: d["columns"] for d in differences(reconcile(ws, "--repair"))}
    assert found["a1"] == {"note": {"entity": "", "row": None}}
    assert list(found["a2"]) == ["opened_at"]
    assert differences(reconcile(ws)) == []


def test_both_values_and_the_versions_are_told(bank):
    fill(bank, [account(1)])
    bank.query("UPDATE account SET balance = 10.51, name = 'Eve'")
    [found] = differences(reconcile(bank, status=1))
    assert found["columns"] == {"balance": {"entity": "10.5", "row": "10.51"},
                                "name": {"entity": "Ada 1", "row": "Eve"}}
    assert (found["table"], found["key"], found["entity_version"], found["applied_version"]) == (
        "account", {"account_id": "a1"}, 1, 1)
    said = bank.projector("reconcile")
    assert said.returncode == 1
    assert 'name: entity "Ada 1", row "Eve"' in said.stdout
    assert "account: 1 entities and 1 rows" in said.stdout and "1 difference" in said.stdout


def test_the_row_of_a_closed_account(bank):
    fill(bank, [account(n) for n in range(3)])
    bank.accounts.delete_one({"_id": "a1"})
    bank.put(bank.event("a1", "AccountClosed", 2))
    bank.run_once()
    assert differences(reconcile(bank)) == []
    bank.query("INSERT INTO account SELECT 'a1', user_id, name, balance, opened_at, updated_at FROM account LIMIT 1")
    assert kinds(reconcile(bank, "--repair")) == {"extra row": {"a1"}}
    assert [row["account_id"] for row in bank.rows("account")] == ["a0", "a2"]


def test_a_column_that_is_not_to_be_compared_is_not(bank):
    fill(bank, [account(1)])
    bank.query("UPDATE account SET updated_at = '2000-01-01'")
    assert differences(reconcile(bank)) == []


def test_an_entity_that_does_not_fit_is_told(bank):
    fill(bank, [account(1), account(2)])
    bank.accounts.update_one({"_id": "a1"}, {"$set": {"name": "x" * 101}})
    [found] = differences(reconcile(bank, "--repair", status=1))
    assert (found["difference"], found["mended"]) == ("unmappable entity", False)
    assert "varchar(100)" in found["reason"]
    assert re.search(r"^unmappable entity +account  of account a1  entity at version 1  applied up to 1$", bank.projector("reconcile").stdout, re.M)


def test_the_sum_of_the_longest_name_stands_apart(bank):
    fill(bank, [account(1)])
    bank.query("UPDATE projector_position SET version = 9, max_version = 9")
    assert "\n  position ahead of entity 1\n" in bank.projector("reconcile").stdout


def test_what_mysql_refuses_is_left_and_the_others_are_mended(bank):
    fill(bank, [account(n) for n in range(20)])
    bank.query("UPDATE account SET name = 'Eve'")
    bank.query("CREATE TRIGGER refuse BEFORE UPDATE ON account FOR EACH ROW IF NEW.account_id = 'a7' THEN"
               " SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not this one', MYSQL_ERRNO = 3819; END IF")
    lines = reconcile(bank, "--repair", status=1)
    assert {d["aggregate_id"] for d in differences(lines) if not d["mended"]} == {"a7"}
    [left] = [d for d in differences(lines) if not d["mended"]]
    assert "not this one" in left["outcome"]
    bank.query("DROP TRIGGER refuse")
    assert kinds(reconcile(bank, "--repair")) == {"different columns": {"a7"}}


def test_events_after_a_repair_are_applied_once(bank):
    """The position was ahead and the row wrong: later events are neither superseded nor applied twice."""
    fill(bank, [account(1, balance=decimal("15.50"), version=Int64(3))])
    deposit = bank.event("a1", "MoneyDeposited", 2, amount=decimal("1.00"))
    bank.query("UPDATE projector_position SET occurred_at = '2090-01-01', version = 50, max_version = 50,"
               " refreshed_version = 50")
    bank.query("UPDATE account SET balance = 0")
    assert set(kinds(reconcile(bank, "--repair"))) == {"position ahead of entity", "different columns"}

    later = bank.event("a1", "MoneyDeposited", 4, amount=decimal("4.50"))
    bank.accounts.update_one({"_id": "a1"}, {"$set": {"balance": decimal("20.00"), "version": Int64(4)}})
    bank.put(deposit, later)  # the entity that the row was taken from contains the first
    bank.run_once()
    assert str(bank.rows("account")[0]["balance"]) == "20.00"
    bank.put(later)
    bank.run_once()
    assert str(bank.rows("account")[0]["balance"]) == "20.00"
    assert differences(reconcile(bank)) == []


# lagging


def test_what_waits_in_the_outbox_is_lagging(bank):
    fill(bank, [account(n) for n in range(4)])
    bank.accounts.insert_one(account(9))
    bank.accounts.update_one({"_id": "a1"}, {"$set": {"name": "New", "version": Int64(2)}})
    bank.accounts.delete_one({"_id": "a2"})
    bank.put(opened(bank, account(9)), bank.event("a1", "AccountRenamed", 2, name="New"),
             bank.event("a2", "AccountClosed", 2))
    lines = reconcile(bank)
    assert differences(lines) == []
    assert sums(lines)["lagging"] == 3
    bank.run_once()
    lines = reconcile(bank)
    assert (differences(lines), sums(lines)["lagging"]) == ([], 0)


def test_an_entity_without_version(bank):
    entities = [account(n) for n in range(4)]
    for entity in entities:
        del entity["version"]
    fill(bank, entities)
    assert differences(reconcile(bank)) == []
    bank.query("UPDATE account SET name = 'Eve' WHERE account_id = 'a1'")
    bank.accounts.update_one({"_id": "a2"}, {"$set": {"name": "New"}})
    bank.put(bank.event("a2", "AccountRenamed", name="New"))
    lines = reconcile(bank, status=1)
    assert kinds(lines) == {"different columns": {"a1"}}
    assert sums(lines)["lagging"] == 1


@pytest.mark.thorough
def test_dead_events_and_applied_ones(bank):
    bank.mapping(max_attempts=1)
    fill(bank, [account(n) for n in range(3)])
    bad = bank.event("a1", "AccountRenamed", 2)  # no name
    bank.put(bad)
    bank.run_once()
    bank.wait_status(bad, "dead")
    again = opened(bank, account(2))
    again["_id"] = uuid.UUID(next(i for i in bank.ledger()))
    bank.put(again)
    lines = reconcile(bank, status=1)
    assert sorted(d["difference"] for d in differences(lines)) == ["applied event in outbox", "dead event"]

    bank.accounts.update_one({"_id": "a1"}, {"$set": {"name": "New", "version": Int64(2)}})
    mended = reconcile(bank, "--repair")
    assert all(d["mended"] for d in differences(mended))
    bank.run_once()
    assert bank.outbox.find_one() is None
    assert {row["account_id"]: row["name"] for row in bank.rows("account")}["a1"] == "New"
    assert differences(reconcile(bank)) == []


@pytest.mark.thorough
def test_an_applied_event_that_waits_to_leave_the_outbox_explains_no_other_row(bank):
    fill(bank, [account(1)])
    bank.put({**opened(bank, account(1)), "_id": uuid.UUID(next(i for i in bank.ledger()))})
    bank.query("UPDATE account SET name = 'Somebody'")
    assert sorted(d["difference"] for d in differences(reconcile(bank, status=1))) == ["applied event in outbox", "different columns"]


def test_an_applied_event_that_leaves_the_outbox_meanwhile_is_no_difference(bank):
    """Its acknowledgement was under way."""
    fill(bank, [account(1)])
    again = {**opened(bank, account(1)), "_id": uuid.UUID(next(i for i in bank.ledger()))}
    bank.put(again)
    with bank.stores.mysql(bank.name) as lock, lock.cursor() as cursor:
        cursor.execute("LOCK TABLES projector_applied WRITE")
        with bank.start_command("reconcile") as process:
            bank.wait(lambda: any("FROM projector_applied" in (r["Info"] or "") for r in bank.query("SHOW FULL PROCESSLIST")
                                  if r["db"] == bank.name and "SHOW" not in (r["Info"] or "")), what="the question about the event")
            bank.outbox.delete_one({"_id": again["_id"]})
            cursor.execute("UNLOCK TABLES")
            assert process.popen.wait(WAIT_S) == 0, process.log_text()


# parts of it


@pytest.mark.thorough(beyond=1)
@pytest.mark.parametrize("size", [2000, 200, 5000], ids=["few of many", "in one round", "all"])
def test_a_sample_has_no_entity_twice(bank, size):
    """Pages are of 1000, and those of a small sample are chosen apart from each other."""
    count = 21000 if size == 2000 else 2500
    bank.accounts.insert_many([{"_id": f"a{n}", "version": Int64(1), "user_id": "u", "name": "n", "balance": decimal("1.00")} for n in range(count)])
    lines = reconcile(bank, "--projection", "account", "--sample", str(size), status=1)
    found = [line["key"]["account_id"] for line in lines if line.get("difference") == "missing row"]
    assert len(found) == len(set(found)) == min(size, count)


def test_a_range_and_a_sample(bank):
    fill(bank, [account(n) for n in range(9)])
    bank.query("UPDATE account SET name = 'Eve' WHERE account_id IN ('a1', 'a5')")
    bank.query("DELETE FROM account WHERE account_id = 'a7'")
    lines = reconcile(bank, "account", "--key-from", "a4", "--key-to", "a6", status=1)
    assert kinds(lines) == {"different columns": {"a5"}}
    assert (sums(lines)["entities"], sums(lines)["rows"]) == (3, 3)
    lines = reconcile(bank, "--projection", "account", "--sample", "9", status=1)
    assert sums(lines)["entities"] == 9
    assert kinds(lines) == {"different columns": {"a1", "a5"}, "missing row": {"a7"}}


def test_several_projections_of_one_type(ws):
    [first] = bank_projections()
    second = json.loads(json.dumps(first)) | {"table": "account_name"}
    del second["always"]
    second["columns"] = {"name": first["columns"]["name"]}
    second["events"] = {"AccountOpened": {"op": "upsert"}, "AccountRenamed": {"op": "upsert"},
                        "AccountClosed": {"op": "delete"}}
    third = json.loads(json.dumps(second)) | {"aggregate_type": "other", "table": "elsewhere"}
    del third["entities"]
    ws.mapping([first, second, third])
    ws.create()
    fill(ws, [account(n) for n in range(3)])
    ws.query("DELETE FROM account_name WHERE account_id = 'a1'")
    ws.query("UPDATE projector_position SET version = 9, max_version = 9 WHERE aggregate_id = 'a2'")
    found = [(d["difference"], d["table"]) for d in differences(reconcile(ws, status=1))]
    assert sorted(found) == [("missing row", "account_name"), ("position ahead of entity", "account")]
    assert differences(reconcile(ws, "account_name", "--repair"))[0]["mended"]
    assert len(ws.rows("account_name")) == 3


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("arguments, said", [
    (["nowhere"], "no projection fills a table nowhere"),
    (["unseen"], 'unseen has no "entities"'),
    (["account", "unseen"], "expected one TABLE"),
    (["--dry-run"], "--dry-run needs --repair"),
    (["--key-from", "a"], "need a TABLE"),
    (["--resume", "--sample", "5"], "--resume and --sample exclude each other"),
    (["by_event"], "belongs to an event"),
])
def test_wrong_use(ws, arguments, said):
    [first] = bank_projections()
    unseen = json.loads(json.dumps(first)) | {"table": "unseen"}
    del unseen["entities"]
    by_event = json.loads(json.dumps(first)) | {"table": "by_event"}
    by_event["key"] = {"id": {"from": "$event_id", "type": "varchar(36)"}}
    ws.mapping([first, unseen, by_event])
    ws.create()
    done = ws.projector("reconcile", *arguments)
    assert done.returncode == 2
    assert said in done.stderr and done.stdout == ""


def test_a_store_that_is_away(bank):
    bank.mapping(mysql={"port": 1})
    assert bank.projector("reconcile").returncode == 3
    bank.mapping(mongodb={"uri": "mongodb://127.0.0.1:1/?replicaSet=rs0&serverSelectionTimeoutMS=300"})
    assert bank.projector("reconcile").returncode == 3


def test_a_table_that_is_not_there(bank):
    bank.accounts.insert_one(account(1))
    bank.query("DROP TABLE account")
    done = bank.projector("reconcile")
    assert done.returncode == 2 and "account" in done.stderr


# while events flow


def demo(ws, rate: int, seconds: int) -> subprocess.Popen:
    return subprocess.Popen([OUTBOX, "demo", "--uri", ws.stores.mongo_uri, "--database", ws.name,
                             "--rate", str(rate), "--seconds", str(seconds), "--quiet"], stdin=subprocess.DEVNULL)


@pytest.mark.slow
def test_no_false_difference_while_events_flow(bank):
    bank.mapping(**SHORT_LEASE)
    with bank.start_projector():
        writer = demo(bank, 1000, 12)
        rounds = entities = 0
        while writer.poll() is None:
            lines = reconcile(bank)
            assert differences(lines) == []
            rounds, entities = rounds + 1, entities + sums(lines)["entities"]
        assert writer.returncode == 0
        bank.wait_drained()
    assert rounds > 0 and entities > 0
    lines = reconcile(bank)
    assert (differences(lines), sums(lines)["lagging"]) == ([], 0)


@pytest.mark.thorough
def test_repair_while_events_flow(bank):
    """Differences are planted and repaired again and again while the projector
    works; in the end nothing was lost and nothing applied twice."""
    bank.mapping(**SHORT_LEASE)
    mended = 0
    with bank.start_projector():
        writer = demo(bank, 500, 10)
        bank.wait(lambda: len(bank.rows("account")) > 20, what="some accounts")
        while writer.poll() is None:
            ids = [row["account_id"] for row in bank.rows("account")]
            bank.query("DELETE FROM account WHERE account_id = %s", ids[0])
            bank.query("UPDATE account SET balance = balance + 100 WHERE account_id = %s", ids[1])
            bank.query("UPDATE projector_position SET version = version + 5, max_version = max_version + 5 WHERE projector = %s"
                       " AND aggregate_type = 'account' AND aggregate_id_kind = 'string' AND aggregate_id = %s", bank.name, ids[2])
            done = bank.projector("reconcile", "--repair", "--json")
            assert done.returncode in (0, 1), done.stderr
            mended += sum(json.loads(line).get("mended") is True for line in done.stdout.splitlines())
        assert writer.returncode == 0

        def settled() -> bool:
            """A deleted row makes events fail until it is repaired; if
            the entity is gone too, an operator has to decide."""
            bank.projector("reconcile", "--repair")
            for account in bank.outbox.distinct("aggregate_id", {"status": "dead"}):
                if not bank.accounts.find_one(account):
                    bank.projector("refresh", "--force", "account", account)
            bank.projector("retry", "--all-dead")
            return bank.outbox.find_one() is None
        bank.wait(settled, what="an empty outbox")
    assert mended > 0
    assert differences(reconcile(bank)) == []
    in_mongodb = {a["_id"]: a["balance"].to_decimal() for a in bank.accounts.find()}
    assert {row["account_id"]: row["balance"] for row in bank.rows("account")} == in_mongodb


# interrupted


def fill_quickly(ws, count: int) -> None:
    """Entities and rows without events between them."""
    for start in range(0, count, 5000):
        entities = [account(f"{n:06}") for n in range(start, min(start + 5000, count))]
        ws.accounts.insert_many(entities)
        ws.query("INSERT INTO account VALUES " + ",".join(
            f"('{e['_id']}', '{e['user_id']}', '{e['name']}', 10.50, '{MOMENT}', '{MOMENT}')" for e in entities))


@pytest.mark.thorough
@pytest.mark.parametrize("repair", [False, True])
def test_killed_and_resumed(bank, repair):
    fill_quickly(bank, 20000)
    bank.query("UPDATE account SET name = 'Eve' WHERE CRC32(account_id) % 500 = 1")
    bank.query("DELETE FROM account WHERE CRC32(account_id) % 500 = 2")
    bank.query("INSERT INTO account SELECT CONCAT('x', account_id), user_id, name, balance, opened_at, updated_at"
               " FROM account WHERE CRC32(account_id) % 500 = 3")
    if not repair:
        waiting = [row["account_id"] for row in bank.query("SELECT account_id FROM account WHERE CRC32(account_id) % 500 = 4")]
        bank.put(opened(bank, entity) for entity in bank.accounts.find({"_id": {"$in": waiting}}))
        bank.query("DELETE FROM account WHERE CRC32(account_id) % 500 = 4")
    expected = reconcile(bank, status=1)
    assert len(differences(expected)) > 60 and (repair or sums(expected)["lagging"] > 10)
    assert not bank.state_file("reconcile").exists()

    arguments = ["--repair"] if repair else []
    killed = any(bank.kill_at(5, "reconcile", *arguments) for _ in range(5))  # a busy machine may be too late
    assert killed and bank.state_file("reconcile").exists()
    for lines in (2, 9, 30):
        bank.kill_at(lines, "reconcile", "--resume", *arguments)
    resumed = reconcile(bank, "--resume", *arguments, status=0 if repair else 1)
    if repair:  # what was repaired just before a kill is not reported again
        assert differences(reconcile(bank)) == []
        assert len(bank.rows("account")) == 20000
    else:
        assert kinds(resumed) == kinds(expected)
        assert len(differences(resumed)) == len(differences(expected))
        for key in ("entities", "rows", "differences", "kinds", "lagging"):
            assert sums(resumed)[key] == sums(expected)[key]
    assert not bank.state_file("reconcile").exists()


def test_with_another_mapping_or_another_server_it_is_not_resumed(bank):
    fill_quickly(bank, 5000)
    assert any(bank.kill_at(2, "reconcile") for _ in range(5))
    kept = bank.state_file("reconcile").read_bytes()
    with forwarding("127.0.0.1", bank.stores.mysql_port) as port:
        bank.mapping(mysql={"port": port})
        assert "not those of the interrupted run" in bank.projector("reconcile", "--resume").stderr
    [projection] = bank_projections()
    projection["columns"]["name"]["compare"] = False
    bank.mapping([projection])
    done = bank.projector("reconcile", "--resume")
    assert done.returncode == 2
    assert "mapping or the options" in done.stderr
    assert bank.state_file("reconcile").read_bytes() == kept


def test_a_dry_run_is_not_resumed_as_a_repair(bank):
    """What it had gone over would never be repaired."""
    fill_quickly(bank, 5000)
    assert any(bank.kill_at(2, "reconcile", "--repair", "--dry-run") for _ in range(5))
    done = bank.projector("reconcile", "--repair", "--resume")
    assert done.returncode == 2 and "mapping or the options" in done.stderr


def test_two_at_once_do_not_share_a_state_file(bank):
    file = bank.state_file("reconcile")
    file.parent.mkdir(parents=True)
    with file.open("w") as open_elsewhere:
        fcntl.flock(open_elsewhere, fcntl.LOCK_EX)
        done = bank.projector("reconcile")
    assert "another process of this name has it open" in done.stderr and file.read_text() == ""


def test_nothing_to_resume(bank):
    fill(bank, [account(1)])
    done = bank.projector("reconcile", "--resume")
    assert done.returncode == 0
    assert "nothing to resume" in done.stderr and "1 entities and 1 rows" in done.stdout


def test_no_row_is_locked_by_a_comparison(bank):
    """Another session holds locks on a row, its position and the fence: the comparison does not wait for them."""
    fill(bank, [account(n) for n in range(3)])
    bank.query("UPDATE account SET name = 'Eve' WHERE account_id = 'a1'")
    bank.query("START TRANSACTION")
    bank.query("SELECT * FROM account FOR UPDATE")
    bank.query("SELECT * FROM projector_position FOR UPDATE")
    bank.query("SELECT * FROM projector_fence FOR UPDATE")
    assert kinds(reconcile(bank, status=1)) == {"different columns": {"a1"}}
    bank.query("ROLLBACK")
