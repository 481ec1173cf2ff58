"""Changing the mapping as described in docs/changing-the-mapping.md: no downtime, no failed event."""

from __future__ import annotations

import copy
import json
from datetime import date, datetime, timedelta
from decimal import Decimal

import pytest
from bson import Int64

from workspace import Workspace, bank_projections, decimal

MOMENT = datetime(2024, 5, 6, 7, 8, 9, 123000)


@pytest.fixture(autouse=True)
def state_folder(ws, tmp_path):
    ws.environment["XDG_STATE_HOME"] = str(tmp_path / "state")


def open_account(ws: Workspace, number: int, **fields) -> None:
    fields = {"user_id": "u1", "name": f"Ada {number}", "balance": decimal("10.50"), "city": "Bern", **fields}
    ws.accounts.insert_one({"_id": f"a{number}", "version": Int64(1), "last_event_at": MOMENT, **fields})
    ws.put(event := ws.event(f"a{number}", "AccountOpened", Int64(1), **fields))
    ws.wait_gone(event)


def applied(ws: Workspace) -> None:
    done = ws.projector("schema", "--apply")
    assert done.returncode == 0, done.stderr


def rebuilt(ws: Workspace, table: str) -> None:
    done = ws.projector("rebuild", table)
    assert done.returncode == 0, done.stdout + done.stderr


def with_city(**options) -> list[dict]:
    projections = bank_projections()
    projections[0]["columns"]["city"] = {"from": "city", "type": "varchar(40)", **options}
    return projections


def test_a_column(bank):
    with bank.start_projector() as old:
        open_account(bank, 1)
        bank.mapping(with_city(null=True))
        applied(bank)
        open_account(bank, 2)  # the old file stays in use
        assert old.stop() == 0
    with bank.start_projector():
        open_account(bank, 3)
        rebuilt(bank, "account")
        assert [row["city"] for row in bank.rows("account")] == ["Bern"] * 3
    assert bank.outbox.find_one() is None


def test_a_column_that_old_rows_have_no_value_for_is_refused(bank):
    with bank.start_projector() as old:
        open_account(bank, 1)
        bank.mapping(with_city())
        refused = bank.projector("schema", "--apply")
        assert refused.returncode == 2 and "account has rows, and its new column city is NOT NULL" in refused.stderr
        assert "city" not in bank.rows("account")[0]
        open_account(bank, 2)  # nothing changes for the running one
        assert old.stop() == 0
    bank.query("DELETE FROM account")
    applied(bank)  # it may be added to an empty table


def test_nothing_is_changed_when_one_of_the_tables_is_refused(bank):
    first, second = copy.deepcopy(bank_projections()[0]), {**copy.deepcopy(bank_projections()[0]), "table": "second"}
    bank.mapping([first, second])
    applied(bank)
    with bank.start_projector():
        open_account(bank, 1)
    first["columns"]["nick"] = {"from": "nick", "type": "varchar(40)", "null": True}
    second["columns"]["city"] = {"from": "city", "type": "varchar(40)"}
    bank.mapping([first, second])
    refused = bank.projector("schema", "--apply")
    assert refused.returncode == 2 and "second has rows, and its new column city is NOT NULL" in refused.stderr
    assert "nick" not in bank.rows("account")[0]


def test_a_column_with_a_default(bank):
    """Existing rows get it, and so do new rows from a projector that still runs with the older file."""
    with bank.start_projector() as old:
        open_account(bank, 1)
        bank.mapping(with_city(default="Zürich's"))
        applied(bank)
        open_account(bank, 2)
        assert [row["city"] for row in bank.rows("account")] == ["Zürich's"] * 2
        assert old.stop() == 0
    with bank.start_projector():
        open_account(bank, 3)
        rebuilt(bank, "account")
    assert [row["city"] for row in bank.rows("account")] == ["Bern"] * 3


DEFAULTS = {"boolean": (True, 1), "bigint unsigned": (2**62, 2**62), "double": (1.5, 1.5), "decimal(18,2)": ("-1.50", Decimal("-1.50")),
            "char(5)": ("ab", "ab"), "text": ("größer \\ 'x'", "größer \\ 'x'"), "longtext": ("", ""),
            "binary(3)": ({"$binary": {"base64": "AAH/", "subType": "00"}}, b"\0\1\xff"),
            "blob": ({"$binary": {"base64": "AAH/", "subType": "00"}}, b"\0\1\xff"),
            "date": ("2026-01-31", date(2026, 1, 31)), "datetime(3)": ("2026-01-31T01:02:03.004Z", datetime(2026, 1, 31, 1, 2, 3, 4000)),
            "timestamp(3)": ("2026-01-31T01:02:03.004Z", datetime(2026, 1, 31, 1, 2, 3, 4000)), "json": ({"a": ["ö"]}, '{"a": ["ö"]}'),
            "enum('s','m')": ("m", "m"), "time(3)": ("-01:02:03.500", -timedelta(hours=1, minutes=2, seconds=3.5)),
            "uuid": ("00112233-4455-6677-8899-aabbccddeeff", bytes.fromhex("00112233445566778899aabbccddeeff"))}


def test_a_default_of_every_type(bank):
    with bank.start_projector():
        open_account(bank, 1)
    projections = bank_projections()
    for n, (kind, (value, _)) in enumerate(DEFAULTS.items()):
        projections[0]["columns"][f"c{n}"] = {"from": f"c{n}", "type": kind, "default": value}
    bank.mapping(projections)
    applied(bank)
    assert bank.projector("check").returncode == 0
    row = bank.rows("account")[0]
    for n, (kind, (_, value)) in enumerate(DEFAULTS.items()):
        found = row[f"c{n}"]
        assert (found.replace(" ", "") == value.replace(" ", "") if kind == "json" else found == value), (kind, found)


def test_a_renamed_field(bank):
    projections = bank_projections()
    projections[0]["columns"]["name"]["from"] = "full_name"
    with bank.start_projector() as old:
        open_account(bank, 1)
        bank.accounts.update_many({}, [{"$set": {"full_name": "$name"}}])
        open_account(bank, 2, full_name="Ada 2")
        assert old.stop() == 0
    assert bank.projector("list", "--state", "all").returncode == 1  # nothing waits
    bank.mapping(projections)
    with bank.start_projector():
        open_account(bank, 3, full_name="Ada 3")
        done = bank.projector("reconcile", "account")
        assert done.returncode == 0, done.stdout
    assert [row["name"] for row in bank.rows("account")] == ["Ada 1", "Ada 2", "Ada 3"]


def further() -> list[dict]:
    projections = bank_projections()
    second = copy.deepcopy(projections[0])
    second["table"] = "account_city"
    del second["always"]
    second["columns"] = {"city": {"from": "city", "type": "varchar(40)"}}
    second["events"] = {"AccountOpened": {"op": "upsert"}, "AccountClosed": {"op": "delete"}}
    return [*projections, second]


@pytest.mark.thorough
def test_a_further_table_and_one_that_goes(bank):
    with bank.start_projector() as old:
        open_account(bank, 1)
        file = bank.file
        bank.mapping(further())
        applied(bank)
        open_account(bank, 2)
        assert old.stop() == 0
    with bank.start_projector() as new:
        open_account(bank, 3)
        rebuilt(bank, "account_city")
        assert [row["account_id"] for row in bank.rows("account_city")] == ["a1", "a2", "a3"]
        assert new.stop() == 0
    bank.file = file
    with bank.start_projector():
        open_account(bank, 4)
        bank.query("DROP TABLE account_city")
        open_account(bank, 5)
    assert len(bank.rows("account")) == 5


def test_check_tells_a_further_table_without_entities(bank):
    projections = further()
    del projections[1]["entities"]
    bank.mapping(projections)
    applied(bank)
    done = bank.projector("check", "--json")
    told = [line["text"] if "text" in line else str(line) for line in map(json.loads, done.stdout.splitlines())]
    assert any('projections[1]: account_city has no "entities"' in text for text in told), told
    assert any("can never be filled or repaired again" in text for text in told), told
    bank.mapping(projections, mongodb={"retain": "archive"})
    assert "can never be filled or repaired again" not in bank.projector("check").stdout
    assert done.returncode == 0


# messages that would cost a new user time


def failed_reason(ws: Workspace, **changes) -> str:
    event = {**ws.event("a1", "AccountOpened", Int64(1), user_id="u", name="n", balance=decimal("1.00")), **changes}
    ws.put(event)
    ws.run_once()
    return ws.found(event)["last_error"]["message"]


@pytest.mark.thorough(beyond=1)
@pytest.mark.parametrize("changes, said", [
    ({"aggregate_type": "acount"}, "aggregate_type: expected one that a projection takes, found acount"),
    ({"event_type": "AccountOpend"}, "event_type: expected one that a projection of account names, found AccountOpend"),
    ({"payload": {"user_id": "u", "name": "n", "balance": decimal("1.005")}},
     "payload.balance: expected decimal(18,2), found Decimal128 1.005, which has more than 2 digits behind the point"),
    ({"payload": {"user_id": "u", "name": "n", "balance": decimal("1"), "opened_at": "2024-01-31 12:34:56"}},
     "payload.opened_at: expected datetime(3), found string of 19 bytes \"2024-01-31 12:34:56\" that is no time written 2024-01-31T12:34:56.789Z"),
], ids=["aggregate type", "event type", "decimals", "time"])
def test_a_reason_says_what_to_mend(bank, changes, said):
    assert said in failed_reason(bank, **changes)


def test_explain_shows_decimals_whole_and_who_waits(bank):
    bank.accounts.insert_one({"_id": "a1", "version": Int64(1), "user_id": "u", "name": "n", "balance": decimal("37.70")})
    bank.put(bank.event("a1", "AccountOpened", Int64(1), user_id="u", name="n", balance=decimal("37.70")))
    bank.run_once()
    bank.put({**bank.event("a1", "AccountRenamed", Int64(2), name=5), "status": "dead"},
             bank.event("a1", "AccountRenamed", Int64(3), name="m"))
    told = json.loads(bank.projector("explain", "account", "a1", "--json").stdout)
    assert [event["state"] for event in told["outbox"]] == ["dead", "held"]
    text = bank.projector("explain", "account", "a1").stdout
    assert "37.70" in text and "37.7\n" not in text
