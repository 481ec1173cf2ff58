"""What reconcile, --repair, rebuild and refresh report is true: they
read to the end, and look again before they claim success."""

from __future__ import annotations

import json
import random
import uuid
from datetime import datetime

import pytest
from bson import Binary, Int64

from workspace import Workspace, decimal

MOMENT = datetime(2024, 5, 6, 7, 8, 9, 123000)
MEGABYTES_9 = "x" * (9 * 1024 * 1024)


@pytest.fixture(autouse=True)
def state_folder(ws, tmp_path):
    ws.environment["XDG_STATE_HOME"] = str(tmp_path / "state")


def account(key, **changes) -> dict:
    return {"_id": key, "user_id": "u1", "name": "Ada", "balance": decimal("10.50"), "opened_at": MOMENT,
            "version": Int64(1), "last_event_at": MOMENT, **changes}


def opened(ws: Workspace, entity: dict) -> dict:
    payload = {k: entity[k] for k in ("user_id", "name", "balance", "opened_at")}
    return ws.event(entity["_id"], "AccountOpened", entity["version"], **payload)


def fill(ws: Workspace, *entities: dict) -> None:
    """Writes entities, and the rows that their events would produce."""
    for entity in entities:
        ws.accounts.insert_one(entity)
    ws.put(opened(ws, entity) for entity in entities)
    ws.run_once()


def lines_of(ws: Workspace, command: str, *arguments: str, status: int) -> list[dict]:
    done = ws.projector(command, *arguments, "--json", timeout=120)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def found(lines: list[dict], kind: str) -> list[dict]:
    return [line for line in lines if line.get("difference") == kind]


def sums(lines: list[dict], table: str | None = "account", member: str = "sums") -> dict:
    [line] = [line for line in lines if member in line and line[member] == table]
    return line


# reading in pages reaches the end


@pytest.mark.thorough
def test_entities_of_9_mb_side_by_side_are_all_compared(bank):
    for n in range(4):
        bank.accounts.insert_one(account(f"a{n}", scan=MEGABYTES_9))
    lines = lines_of(bank, "reconcile", status=1)
    assert sums(lines)["entities"] == 4
    assert {line["aggregate_id"] for line in found(lines, "missing row")} == {"a0", "a1", "a2", "a3"}


@pytest.mark.thorough
def test_entities_of_9_mb_side_by_side_are_all_verified(bank):
    bank.mapping(mongodb={"retain": "archive"})
    for n in range(4):
        bank.accounts.insert_one(account(f"a{n}", scan=MEGABYTES_9))
    lines = lines_of(bank, "archive", "verify", status=1)
    assert sums(lines)["aggregates"] == 4


@pytest.mark.thorough
@pytest.mark.parametrize("mode", [(), ("--shadow",)], ids=["in-place", "shadow"])
def test_entities_of_9_mb_side_by_side_all_become_rows(bank, mode):
    for n in range(4):
        bank.accounts.insert_one(account(f"a{n}", scan=MEGABYTES_9))
    lines_of(bank, "rebuild", *mode, status=0)
    assert len(bank.rows("account")) == 4


@pytest.mark.parametrize("options", [{"collation": {"locale": "en", "strength": 2}},
                                     {"clusteredIndex": {"key": {"_id": 1}, "unique": True}}], ids=["collation", "clustered"])
def test_an_unusual_collection_is_read_to_the_end(bank, options):
    bank.accounts.drop()
    bank.db.create_collection("accounts", **options)
    bank.accounts.insert_many(account(key) for n in range(1200) for key in (f"a{n}", n))
    lines = lines_of(bank, "reconcile", status=1)
    assert sums(lines)["entities"] == 2400
    assert len(found(lines, "missing row")) == 2400


def test_more_events_behind_a_refresh_than_one_page_are_replayed(bank):
    """A replay takes events that wait in the outbox even though a refresh has taken their effect from the entity."""
    bank.mapping(mongodb={"retain": "archive"})
    fill(bank, account("a1"))
    deposits = [bank.event("a1", "MoneyDeposited", n + 2, amount=decimal("1.00")) for n in range(1100)]
    bank.put(deposits)
    bank.accounts.update_one({"_id": "a1"}, {"$set": {"version": Int64(1101), "balance": decimal("1110.50")}})
    assert bank.projector("refresh", "account", "a1").returncode == 0
    done = bank.projector("replay", "--projection", "account", "--drop-old", timeout=120)
    assert done.returncode == 0, done.stderr
    assert bank.rows("account")[0]["balance"] == decimal("1110.50").to_decimal()


@pytest.mark.thorough
def test_events_behind_refreshes_of_more_aggregates_than_one_page_are_replayed(bank):
    """Ids of two kinds have pages of their own; nothing waits for the aggregates of the first page."""
    bank.mapping(mongodb={"retain": "archive"})
    kinds = sorted((f"a{n}" for n in range(510)), key=str), sorted(range(510), key=str)
    fill(bank, *(account(key) for keys in kinds for key in keys))
    waiting = [*kinds[0][-5:], *kinds[1][-5:]]
    bank.put(bank.event(key, "MoneyDeposited", 2, amount=decimal("1.00")) for key in waiting)
    bank.accounts.update_many({}, {"$set": {"version": Int64(2)}})
    bank.accounts.update_many({"_id": {"$in": waiting}}, {"$set": {"balance": decimal("11.50")}})
    assert bank.projector("rebuild", "account", timeout=120).returncode == 0
    assert bank.query("SELECT COUNT(*) AS n FROM projector_position WHERE refreshed_version = 2")[0]["n"] == 1020
    done = bank.projector("replay", "--projection", "account", "--drop-old", timeout=120)
    assert done.returncode == 0, done.stderr
    raised = {row["account_id"] for row in bank.rows("account") if row["balance"] == decimal("11.50").to_decimal()}
    assert raised == {str(key) for key in waiting}


# entities that no event can name

NAMELESS = {"UUID of subtype 3": Binary(uuid.UUID(int=1).bytes, 3), "double": 1.5, "document": {"a": 1}, "empty": "",
            "too long": "x" * 256}


@pytest.mark.thorough
def test_an_id_that_no_aggregate_can_have_is_a_finding(bank):
    fill(bank, account("good"))
    for key in NAMELESS.values():
        bank.accounts.insert_one(account(key))
    lines = lines_of(bank, "reconcile", status=1)
    unmappable = found(lines, "unmappable entity")
    assert sums(lines)["entities"] == 6
    assert len(unmappable) == 5
    assert any("UUID" in line["entity_id"] or "binary" in line["entity_id"] for line in unmappable)
    assert all("_id: expected what can be an aggregate's id" in line["reason"] for line in unmappable)
    told = bank.projector("reconcile").stdout
    assert "unmappable entity         account  entity {" in told.replace("{ ", "{"), told
    assert "found double 1.5" in told and "found string of 256 bytes" in told


@pytest.mark.thorough
@pytest.mark.parametrize("mode", [(), ("--shadow",)], ids=["in-place", "shadow"])
def test_rebuild_names_an_id_that_no_aggregate_can_have(bank, mode):
    for key in ["good", *NAMELESS.values()]:
        bank.accounts.insert_one(account(key))
    lines = lines_of(bank, "rebuild", *mode, status=1)
    assert len([line for line in lines if "_id: expected" in line.get("reason", "")]) == 5
    assert [row["account_id"] for row in bank.rows("account")] == ([] if mode else ["good"])


def test_verify_names_an_id_that_no_aggregate_can_have(bank):
    bank.mapping(mongodb={"retain": "archive"})
    fill(bank, account("good"))
    for key in NAMELESS.values():
        bank.accounts.insert_one(account(key))
    lines = lines_of(bank, "archive", "verify", status=1)
    assert (sums(lines)["aggregates"], sums(lines)["unmappable"], sums(lines)["equal"]) == (6, 5, 1)


def test_a_row_that_may_be_of_such_an_entity_is_not_deleted(bank):
    """Its writer calls it 00000000-…-1 in events, but stores a UUID of subtype 3."""
    bank.put(opened(bank, account(str(uuid.UUID(int=1)))))
    bank.run_once()
    bank.accounts.insert_one(account(Binary(uuid.UUID(int=1).bytes, 3)))
    lines = lines_of(bank, "reconcile", "--repair", status=1)
    [extra] = found(lines, "extra row")
    assert not extra["mended"] and extra["outcome"].startswith("left: the row may belong to an entity whose _id cannot be")
    lines_of(bank, "rebuild", status=1)
    assert len(bank.rows("account")) == 1


def test_a_row_without_an_entity_is_not_said_to_be_of_another_id_that_its_text_may_mean(bank):
    key = uuid.UUID("0190a000-0000-7000-8000-00000000000a")
    fill(bank, account(key))
    bank.put(opened(bank, account(str(key).upper())))
    bank.run_once()
    [extra] = found(lines_of(bank, "reconcile", "--repair", status=0), "extra row")
    assert extra["aggregate_id"] == str(key).upper(), extra
    assert [row["account_id"] for row in bank.rows("account")] == [str(key)]


def test_a_key_that_the_column_cannot_hold_does_not_end_the_comparison(bank):
    fill(bank, *(account(f"a{n}") for n in range(5)))
    bank.query("ALTER TABLE account MODIFY account_id VARCHAR(36) CHARACTER SET latin1 COLLATE latin1_bin NOT NULL")
    bank.query("DELETE FROM account WHERE account_id = 'a3'")
    bank.accounts.insert_many([account("😀"), account("Ω")])
    lines = lines_of(bank, "reconcile", status=1)
    assert sums(lines)["entities"] == 7
    assert {line["aggregate_id"] for line in found(lines, "missing row")} >= {"a3"}
    assert {line["aggregate_id"] for line in lines if "difference" in line} == {"a3", "😀", "Ω"}
    lines = lines_of(bank, "reconcile", "--repair", status=1)
    assert [line["aggregate_id"] for line in lines if line.get("mended") is True] == ["a3"]


# an unverified repair is only a claim

UPPER = "CREATE TRIGGER upper_{when} BEFORE {when} ON account FOR EACH ROW SET NEW.name = UPPER(NEW.name)"


def with_trigger(ws: Workspace) -> None:
    for when in ("INSERT", "UPDATE"):
        ws.query(UPPER.format(when=when))


def test_what_a_trigger_changes_is_not_called_mended(bank):
    fill(bank, account("a1"), account("a2", name="BOB"))
    with_trigger(bank)
    bank.query("DELETE FROM account")
    lines = lines_of(bank, "reconcile", "--repair", status=1)
    by_id = {line["aggregate_id"]: line for line in found(lines, "missing row")}
    assert by_id["a2"]["mended"] and not by_id["a1"]["mended"]
    assert "still different" in by_id["a1"]["outcome"] and "entity Ada, row ADA" in by_id["a1"]["outcome"]
    assert sums(lines)["mended"] == 1


def test_a_row_that_a_trigger_brings_back_is_not_called_deleted(bank):
    fill(bank, account("a1"))
    bank.query("CREATE TABLE tomb (account_id VARCHAR(36))")
    bank.query("INSERT INTO account (account_id, user_id, name, balance, updated_at) "
               "VALUES ('ghost', 'u', 'n', 1, '2024-01-01')")
    bank.query("CREATE TRIGGER keep BEFORE DELETE ON account FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'kept'")
    lines = lines_of(bank, "reconcile", "--repair", status=1)
    [extra] = found(lines, "extra row")
    assert not extra["mended"]


def test_a_key_that_takes_two_ids_for_one_is_told(bank):
    bank.query("ALTER TABLE account MODIFY account_id VARCHAR(36) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL")
    fill(bank, account("a1"))
    bank.accounts.insert_one(account("A1", name="Other"))
    lines = lines_of(bank, "reconcile", "--repair", status=1)
    [missing] = found(lines, "missing row")
    assert missing["aggregate_id"] == "A1" and not missing["mended"]
    assert "considers equal" in missing["outcome"]
    assert any(line["reason"].startswith("account: ") for line in lines_of(bank, "rebuild", status=1) if "reason" in line)


def test_check_compares_the_ids_of_every_page(bank):
    bank.query("ALTER TABLE account MODIFY account_id VARCHAR(36) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL")
    bank.accounts.insert_many(account(f"{letter}{n}") for n in range(225) for letter in "aA")
    assert ": 225 such ids in all" in bank.projector("check").stdout


def test_rebuild_looks_at_what_it_has_written(bank):
    with_trigger(bank)
    for n in range(3):
        bank.accounts.insert_one(account(f"a{n}", name="Ada" if n == 1 else "ADA"))
    lines = lines_of(bank, "rebuild", status=1)
    [left] = [line for line in lines if "reason" in line]
    assert left["aggregate_id"] == "a1" and "entity Ada, row ADA" in left["reason"]
    assert sums(lines, member="rebuilt")["left"] == 1
    bank.query("DROP TRIGGER upper_INSERT")
    bank.query("DROP TRIGGER upper_UPDATE")
    lines_of(bank, "rebuild", status=0)


def test_a_dead_event_whose_refresh_went_wrong_is_not_called_mended(bank):
    fill(bank, account("a1"))
    with_trigger(bank)
    bank.accounts.update_one({"_id": "a1"}, {"$set": {"name": "Eve", "version": Int64(2)}})
    renamed = bank.event("a1", "AccountRenamed", 2, name="Eve")
    bank.put({**renamed, "status": "dead"})
    lines = lines_of(bank, "reconcile", "--repair", status=1)
    [dead] = found(lines, "dead event")
    assert not dead["mended"] and "entity Eve, row EVE" in dead["outcome"]


def test_an_event_that_a_refresh_contains_explains_no_difference(bank):
    """It will be superseded when its turn comes, so it will not correct the row."""
    fill(bank, account("a1"))
    bank.accounts.update_one({"_id": "a1"}, {"$set": {"name": "Eve", "version": Int64(2)}})
    bank.put(bank.event("a1", "AccountRenamed", 2, name="Eve"))
    assert bank.projector("refresh", "account", "a1").returncode == 0
    bank.query("UPDATE account SET name = 'spoiled'")
    lines = lines_of(bank, "reconcile", status=1)
    assert len(found(lines, "different columns")) == 1
    assert sums(lines)["lagging"] == 0


# a server that alters doubles in JSON


def with_json(ws: Workspace) -> None:
    ws.mapping([{"aggregate_type": "account", "table": "reading", "entities": "accounts",
                 "key": {"id": {"from": "$aggregate_id", "type": "varchar(20)"}},
                 "columns": {"j": {"from": "j", "type": "json"}},
                 "events": {"AccountOpened": {"op": "upsert"}}}])
    ws.create()


def server_changes_doubles(ws: Workspace) -> bool:
    if "MariaDB" in ws.query("SELECT VERSION() AS v")[0]["v"]:
        return False
    [row] = ws.query("SELECT CAST(CAST('0.9452706955539223' AS JSON) AS CHAR) AS t")
    return row["t"] != "0.9452706955539223"


def test_doubles_in_json_make_no_endless_difference(ws):
    """MySQL 8.0 alters one in nine by a unit in the last place; check reports that."""
    with_json(ws)
    source = random.Random(11)
    for n in range(20):
        entity = account(f"a{n}", j=[source.random() * 10 ** source.randrange(-30, 30) for _ in range(50)])
        ws.accounts.insert_one(entity)
        ws.put(ws.event(entity["_id"], "AccountOpened", Int64(1), j=entity["j"]))
    ws.run_once()
    lines_of(ws, "reconcile", status=0)
    assert ("changes some doubles" in ws.projector("check").stdout) == server_changes_doubles(ws)


def test_a_double_that_really_differs_is_a_difference(ws):
    with_json(ws)
    ws.accounts.insert_one(account("a1", j={"x": [0.9452706955539223]}))
    ws.put(ws.event("a1", "AccountOpened", Int64(1), j={"x": [0.9452706955539223]}))
    ws.run_once()
    ws.query("UPDATE reading SET j = '{\"x\": [0.9452706955539299]}'")
    lines = lines_of(ws, "reconcile", status=1)
    assert len(found(lines, "different columns")) == 1
    assert server_changes_doubles(ws) or set_nearest(ws)


def set_nearest(ws: Workspace) -> bool:
    """On an exact server even the neighbouring double is a difference."""
    ws.query("UPDATE reading SET j = '{\"x\": [0.9452706955539224]}'")
    return len(found(lines_of(ws, "reconcile", status=1), "different columns")) == 1


def test_plain_numbers_in_json_arrive_as_they_were_written(ws):
    """With as few digits as needed, even through a parser that cuts off the 18th."""
    with_json(ws)
    numbers = [12.34, 0.1, 99.99, 1e15, 123456.789, 0.07, 1.005, 4.35]
    ws.accounts.insert_one(account("a1", j=numbers))
    ws.put(ws.event("a1", "AccountOpened", Int64(1), j=numbers))
    ws.run_once()
    assert json.loads(ws.rows("reading")[0]["j"]) == numbers
