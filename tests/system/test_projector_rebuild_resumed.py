"""`rebuild --shadow --resume` after somebody has changed what the interrupted one left."""

from __future__ import annotations

import pytest

from entities import account, fill
from test_projector_rebuild import differences, reconcile, shadow, start_shadow, tables, waiting


@pytest.mark.thorough
def test_a_new_table_that_was_dropped_in_between_was_not_swapped(bank):
    fill(bank, [account(n) for n in range(10)])
    with bank.stores.mysql(bank.name) as holder, holder.cursor() as cursor:
        cursor.execute("START TRANSACTION")
        cursor.execute("SELECT * FROM projector_fence")
        process = start_shadow(bank)
        bank.wait(lambda: waiting(bank, "LOCK TABLES projector_fence WRITE"), what="the gate")
        process.kill(), process.wait()
    bank.query("DROP TABLE account__new")
    bank.query("UPDATE account SET balance = balance + 1")
    shadow(bank, "--resume")
    assert tables(bank) == {"account", "account__old"} and differences(reconcile(bank)) == []
