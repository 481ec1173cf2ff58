"""Columns that the mapping does not name belong to others: no command that fills a table may lose what they hold."""

from __future__ import annotations

import pytest
from bson import Int64

from entities import MOMENT, account, fill
from replays import ARCHIVE, life
from test_projector_children import ORDERS, order, place
from test_projector_rebuild import shadow, start, state_folder, tables, waiting
from workspace import WAIT_S, bank_projections

__all__ = ["state_folder"]  # the fixture of reconcile's tests: a state folder per test

NOTES = ("ADD COLUMN note VARCHAR(20) DEFAULT 'none', ADD COLUMN seen INT NOT NULL DEFAULT 0,"
         " ADD COLUMN made TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,"
         " ADD COLUMN doubled DECIMAL(20,2) GENERATED ALWAYS AS (balance * 2) VIRTUAL")


def good(ws, *arguments: str) -> None:
    done = ws.projector(*arguments, timeout=2 * WAIT_S)
    assert done.returncode == 0, (done.stdout, done.stderr)


def write_notes(ws) -> None:
    ws.query(f"ALTER TABLE account {NOTES}")
    ws.query("UPDATE account SET note = CONCAT('of ', account_id), seen = 3, made = '2020-01-02 03:04:05'")


def notes(ws) -> dict[str, tuple]:
    return {row["account_id"]: (row["note"], row["seen"], str(row["made"])) for row in ws.rows("account")}


def filled(ws, count: int = 5, **settings) -> dict[str, tuple]:
    ws.mapping(**settings)
    fill(ws, [account(n) for n in range(count)])
    write_notes(ws)
    return {f"a{n}": (f"of a{n}", 3, "2020-01-02 03:04:05") for n in range(count)}


@pytest.mark.thorough
def test_a_shadow_has_them(bank):
    """More rows than one page, one of them new since."""
    expected = filled(bank, 2100)
    bank.accounts.insert_one(account(9999, version=Int64(1)))
    shadow(bank)
    found = notes(bank)
    assert found.pop("a9999")[:2] == ("none", 0)
    assert found == expected


@pytest.mark.thorough
@pytest.mark.parametrize("command", [("rebuild", "--shadow", "account"), ("replay", "--projection", "account")],
                         ids=["shadow", "replay"])
def test_it_has_what_was_written_until_the_swap(bank, command):
    """A transaction holds up the gate; meanwhile somebody writes a note. Rows that others have locked do not hold up the
    copy of their notes."""
    filled(bank, **ARCHIVE)
    with bank.stores.mysql(bank.name) as other, other.cursor() as cursor:
        cursor.execute("START TRANSACTION")
        cursor.execute("SELECT * FROM projector_fence")
        cursor.execute("SELECT * FROM account WHERE account_id = 'a1' FOR UPDATE")
        process = start(bank, *command, "--drop-old")
        bank.wait(lambda: waiting(bank, "LOCK TABLES projector_fence WRITE"), what="the gate")
        bank.query("UPDATE account SET note = 'late' WHERE account_id = 'a2'")
        other.rollback()
        assert process.wait(WAIT_S) == 0, process.stderr.read()
    assert notes(bank)["a2"][0] == "late"


def test_a_replay_has_them(bank):
    bank.mapping(**ARCHIVE)
    bank.put(life(bank, 5, 6))
    bank.run_once()
    write_notes(bank)
    before = bank.rows("account")
    bank.query("UPDATE account SET balance = 0")
    good(bank, "replay", "--projection", "account")
    assert bank.rows("account") == before


def test_a_replay_counts_again_what_a_statement_counts(bank):
    """The column is no column of the mapping, but its statement writes it."""
    [projection] = bank_projections()
    projection["events"]["StatementSent"] = {
        "op": "sql", "statement": "UPDATE account SET seen = seen + 1 WHERE account_id = :$aggregate_id"}
    bank.mapping([projection], **ARCHIVE)
    bank.query(f"ALTER TABLE account {NOTES}")
    bank.put(life(bank, 1, 1), *(bank.event("a0", "StatementSent", n) for n in (2, 3)))
    bank.run_once()
    bank.query("UPDATE account SET note = 'mine', seen = 77")
    good(bank, "replay", "--projection", "account")
    assert [notes(bank)[key][:2] for key in ("a0",)] == [("mine", 2)]
    bank.query("UPDATE account SET seen = 77")
    done = bank.projector("replay", "--projection", "account", "--aggregate", "account", "a0")
    assert done.returncode == 0 and "begin with their defaults (note, seen, made)" in done.stderr, done.stderr
    assert notes(bank)["a0"][:2] == ("none", 2)


def test_one_row_written_again_has_them(bank):
    bank.mapping(**ARCHIVE)
    bank.put(life(bank, 2, 8))
    bank.run_once()
    write_notes(bank)
    before = bank.rows("account")
    bank.query("UPDATE account SET balance = 0")
    done = bank.projector("replay", "--projection", "account", "--aggregate", "account", "a1")
    assert done.returncode == 0 and "defaults" not in done.stderr, done.stderr
    assert [row for row in bank.rows("account") if row["account_id"] == "a1"] == \
        [row for row in before if row["account_id"] == "a1"]


@pytest.mark.parametrize("number", ["BIGINT NOT NULL AUTO_INCREMENT UNIQUE", "VARCHAR(20) NULL UNIQUE"])
def test_a_value_of_its_own_for_each_row_is_not_given_to_others(bank, number):
    [projection] = bank_projections()
    bank.mapping([{**projection, "allow_unique_keys": True}], **ARCHIVE)
    bank.query(f"ALTER TABLE account ADD COLUMN nr {number}")
    good(bank, "replay", "--projection", "account")  # there is no row that could lose one
    bank.query("DROP TABLE account__old")
    fill(bank, [account(n) for n in range(3)])
    before = bank.rows("account")
    for command in (["rebuild", "--shadow"], ["replay", "--projection", "account"]):
        done = bank.projector(*command)
        assert done.returncode == 2 and "account.nr is not in the mapping" in done.stderr, done.stderr
        assert bank.rows("account") == before and tables(bank) == {"account"}


@pytest.mark.thorough
def test_child_tables_have_them_too(ws, tmp_path):
    ws.environment["XDG_STATE_HOME"] = str(tmp_path / "state")
    ws.mapping([ORDERS], **ARCHIVE)
    ws.create()
    place(ws, order(1, "apple 1", "pear 2"), order(2, "fig 3"))
    ws.query("ALTER TABLE order_line ADD COLUMN picked INT NOT NULL DEFAULT 0")
    ws.query("UPDATE order_line SET picked = 1 + line_no")
    before = ws.rows("order_line")
    for command in (["rebuild", "--shadow", "--drop-old"], ["replay", "--projection", "orders", "--drop-old"]):
        ws.query("UPDATE order_line SET qty = 0")
        good(ws, *command)
        assert ws.rows("order_line") == before


def test_a_column_that_touches_itself_is_left_as_the_mapping_says(bank):
    """ON UPDATE CURRENT_TIMESTAMP: that others' columns are copied is no reason to change it."""
    expected = filled(bank, 3)
    bank.query("ALTER TABLE account MODIFY updated_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)"
               " ON UPDATE CURRENT_TIMESTAMP(3)")
    shadow(bank)
    assert notes(bank) == expected
    assert {row["updated_at"] for row in bank.rows("account")} == {MOMENT}
