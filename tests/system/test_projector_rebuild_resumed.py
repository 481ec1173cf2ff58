"""`rebuild --resume` after something has changed since the interrupted one."""

from __future__ import annotations

import pymongo
import pytest

from entities import account, fill
from test_projector_rebuild import differences, fill_quickly, rebuild, reconcile, shadow, start_shadow, state_folder, sums, tables, waiting

__all__ = ["state_folder"]


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


def test_the_hosts_may_stand_in_another_order(bank):
    host = pymongo.uri_parser.parse_uri(bank.stores.mongo_uri)["nodelist"][0]
    hosts = ["{}:{}".format(*host), "127.0.0.1:1"]  # one is away
    uris = [bank.stores.mongo_uri.replace(hosts[0], ",".join(order)) for order in (hosts, hosts[::-1])]
    fill_quickly(bank, 5000)
    bank.query("DELETE FROM account")
    bank.mapping(mongodb={"uri": uris[0]})
    assert any(bank.kill_at(2, "rebuild", "account") for _ in range(5))  # a busy machine may be too late
    bank.mapping(mongodb={"uri": uris[1]})
    assert sums(rebuild(bank, "--resume", "account"))["entities"] == len(bank.rows("account")) == 5000
