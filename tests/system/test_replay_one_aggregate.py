"""replay --aggregate: the row of one aggregate, as far as its events were applied or taken from its entity."""

from __future__ import annotations

from bson import Int64

from replays import bank, fold, opened, shown
from workspace import decimal


def test_a_row_has_what_a_refresh_took_before_its_event_was_applied(bank):
    bank.put(first := opened(bank, "a1"))
    bank.run_once()
    bank.put(waiting := bank.event("a1", "MoneyDeposited", 2, amount=decimal("5.00")))
    bank.accounts.insert_one({"_id": "a1", "user_id": "u", "name": "Ada a1", "balance": decimal("15.00"), "version": Int64(2)})
    assert bank.projector("refresh", "account", "a1").returncode == 0
    bank.query("UPDATE account SET balance = 0")
    done = bank.projector("replay", "--projection", "account", "--aggregate", "account", "a1")
    assert (done.returncode, shown(bank)) == (0, fold([first, waiting])), done.stderr
    bank.run_once()
    assert shown(bank) == fold([first, waiting])


def test_a_row_that_a_trigger_changes_is_not_called_replayed(bank):
    bank.put(opened(bank, "a1"))
    bank.run_once()
    bank.query("CREATE TRIGGER upper BEFORE UPDATE ON account FOR EACH ROW SET NEW.name = UPPER(NEW.name)")
    bank.query("CREATE TRIGGER upper_too BEFORE INSERT ON account FOR EACH ROW SET NEW.name = UPPER(NEW.name)")
    done = bank.projector("replay", "--projection", "account", "--aggregate", "account", "a1")
    assert done.returncode == 1 and "name: written Ada a1, found ADA A1" in done.stderr
    assert bank.rows("account")[0]["name"] == "Ada a1"
