"""What reconcile and rebuild refuse, leave alone, and try again."""

from __future__ import annotations

import uuid
from datetime import datetime

import pytest

from claims import ago
from entities import account, fill, opened
from test_projector_rebuild import MODES, rebuild, shadow, tables, two_tables
from test_projector_reconcile import differences, fill_quickly, reconcile, state_folder
from workspace import WAIT_S, bank_projections

__all__ = ["state_folder"]  # the fixture of reconcile's tests: a state folder per test


@pytest.mark.thorough
@pytest.mark.parametrize("mode", MODES)
def test_a_rebuild_deletes_no_row_because_the_collection_is_missing(bank, mode):
    """A misspelt collection, or one that was dropped: the same as a mistake that an operator makes."""
    fill(bank, [account(n) for n in range(3)])
    [projection] = bank_projections()
    bank.mapping([projection | {"entities": "acounts"}])
    refused = bank.projector("rebuild", *mode)
    assert refused.returncode == 2 and "acounts does not exist" in refused.stderr and "--force" in refused.stderr, refused
    bank.mapping()
    bank.accounts.drop()
    assert bank.projector("rebuild", *mode).returncode == 2
    assert len(bank.rows("account")) == 3 and tables(bank) == {"account"}
    bank.db.create_collection("accounts")  # empty is not missing
    rebuild(bank, *mode)
    assert bank.rows("account") == []
    fill(bank, [account(n) for n in range(3)])
    bank.accounts.drop()
    rebuild(bank, "--force", *mode)
    assert bank.rows("account") == []


def test_no_row_of_a_second_table_goes_because_its_collection_is_missing(ws):
    """The aggregate's rows are written in all its tables, so the rebuild of one would empty the other."""
    first, second = two_tables()
    ws.mapping([first, second])
    ws.create()
    fill(ws, [account(n) for n in range(3)])
    ws.mapping([first, second | {"entities": "acounts"}])
    refused = ws.projector("rebuild", "account")
    assert refused.returncode == 2 and "the table account_name has rows" in refused.stderr, refused
    assert len(ws.rows("account_name")) == 3


def test_a_repair_deletes_no_row_because_the_collection_is_missing(bank):
    fill(bank, [account(n) for n in range(3)])
    bank.accounts.drop()
    said = "does not exist, but the table account has rows"
    for arguments in [], ["--repair", "--dry-run"]:
        told = bank.projector("reconcile", *arguments)
        assert told.returncode == 1 and told.stderr.count(said) == 1 and "--force" in told.stderr, told
    refused = bank.projector("reconcile", "--repair")
    assert refused.returncode == 2 and said in refused.stderr and "--force" in refused.stderr, refused
    assert len(bank.rows("account")) == 3
    assert bank.projector("reconcile", "--force").returncode == 2
    assert all(d["mended"] for d in differences(reconcile(bank, "--repair", "--force")))
    assert bank.rows("account") == []


@pytest.mark.thorough
def test_an_applied_event_that_a_command_has_claimed_is_not_called_taken_out(bank):
    """What a skip is about to take out is left to it, until its claim is old."""
    fill(bank, [account(1)])
    again = {**opened(bank, account(1)), "status": "in_progress", "claimed_by": "command:skip:elsewhere:1:00000000",
             "claimed_at": ago(seconds=-50)}
    again["_id"] = uuid.UUID(next(iter(bank.ledger())))
    bank.put(again)
    [told] = differences(reconcile(bank, "--repair", status=1))
    assert told["difference"] == "applied event in outbox" and not told["mended"] and "a command has claimed it" in told["outcome"]
    assert bank.found(again)
    bank.outbox.update_one({"_id": again["_id"]}, {"$set": {"claimed_at": datetime(2020, 1, 1)}})
    done = bank.projector("reconcile", "--repair", "--json")
    assert done.returncode == 0 and bank.found(again) is None, (done.stdout.splitlines()[1], bank.found(again))


def test_another_server_is_not_resumed(bank):
    """The same names on another port, or behind another host of MongoDB, are other stores."""
    fill_quickly(bank, 5000)
    assert any(bank.kill_at(5, "reconcile") for _ in range(5)) and bank.state_file("reconcile").exists()
    for other in {"mysql": {"port": 1}}, {"mongodb": {"uri": "mongodb://127.0.0.1:1/?replicaSet=rs0"}}:
        bank.mapping(**other)
        done = bank.projector("reconcile", "--resume")
        assert done.returncode == 2 and "the stores, the mapping or the options are not those" in done.stderr, done
    bank.mapping()
    assert bank.projector("reconcile", "--resume").returncode in (0, 1)


def test_an_unusable_entity_and_a_refused_one_are_both_named(bank):
    """Both in one batch: the first does not fit the mapping, the second one's row MySQL refuses."""
    fill(bank, [account(n) for n in range(5)])
    bank.query("ALTER TABLE account ADD CONSTRAINT no_eve CHECK (name <> 'Eve')")
    bank.accounts.update_one({"_id": "a1"}, {"$set": {"name": "x" * 101}})
    bank.accounts.update_one({"_id": "a3"}, {"$set": {"name": "Eve"}})
    lines = shadow(bank, status=1)
    assert sorted(line["aggregate_id"] for line in lines if "reason" in line) == ["a1", "a3"]


@pytest.mark.thorough
def test_a_copy_that_meets_a_lock_is_run_again(bank):
    bank.mapping(mysql={"lock_wait_s": 1})
    fill(bank, [account(n) for n in range(9)])

    def transaction() -> int:
        found = [row["trx_id"] for row in bank.query("SELECT trx_id, trx_query FROM information_schema.INNODB_TRX")
                 if "INSERT INTO `account__new`" in (row["trx_query"] or "")]
        return found[0] if found else 0

    writer = bank.stores.mysql(bank.name)
    with bank.start_command("rebuild", "--shadow", "--rate", "1") as process, writer, writer.cursor() as cursor:
        bank.wait(lambda: "account__new" in tables(bank) and bank.rows("account__new"), what="the first copy")
        cursor.execute("START TRANSACTION")
        cursor.execute("SELECT * FROM account__new FOR UPDATE")
        first = bank.wait(transaction, what="the copy to wait")
        bank.wait(lambda: transaction() not in (0, first) or not process.running, what="a second try")
        writer.rollback()
        assert process.popen.wait(2 * WAIT_S) == 0, process.log_text()
    assert differences(reconcile(bank)) == []
