"""MySQL Group Replication: the primary is killed under load, again and again."""

from __future__ import annotations

import os
import threading
from decimal import Decimal

import pymysql
import pytest

from group_replication import Group, Router
from mysqld import Mysqld
from workspace import Stores, Workspace, decimal

pytestmark = pytest.mark.skipif(os.environ.get("MYSQL_TARGET") != "mysql", reason="Group Replication is MySQL's")

ACCOUNTS, KILLS, BACKLOG = 20, 2, 1000


class Writer(threading.Thread):
    """Writes deposits and renames until stopped; keeps track of the expected rows."""

    def __init__(self, ws: Workspace):
        super().__init__(daemon=True)
        self.ws, self.ending = ws, threading.Event()
        self.rows = {f"a{i}": {"balance": Decimal(0), "name": "Ada", "version": 1} for i in range(ACCOUNTS)}
        ws.put([ws.event(a, "AccountOpened", 1, user_id="u", name="Ada", balance=decimal("0.00")) for a in self.rows])

    def run(self) -> None:
        number = 0
        while not self.ending.is_set():
            if self.ws.outbox.estimated_document_count() > BACKLOG:
                self.ending.wait(0.01)
                continue
            events = []
            for account, row in self.rows.items():
                number += 1
                row["version"] += 1
                if number % 3:
                    row["balance"] += number
                    events.append(self.ws.event(account, "MoneyDeposited", row["version"], amount=decimal(f"{number}.00")))
                else:
                    row["name"] = f"name {number}"
                    events.append(self.ws.event(account, "AccountRenamed", row["version"], name=row["name"]))
            self.ws.put(events)

    def finish(self) -> None:
        self.ending.set()
        self.join()


def applied(ws: Workspace) -> int:
    """The number of events in the ledger; -1 while there is no primary to ask."""
    try:
        return ws.query("SELECT COUNT(*) AS n FROM projector_applied")[0]["n"]
    except pymysql.MySQLError:
        return -1


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_a_primary_that_is_killed_under_load_costs_no_event_no_order_and_no_hand(stores, server_folder, tmp_path):
    with Group(server_folder) as group, Router(group) as router:
        with Workspace(Stores(stores.mongo_uri, router.port), tmp_path) as ws:
            ws.mapping(backoff_ms=50, sweep_interval_ms=500)
            ws.create()
            assert "Group Replication with one primary, consistency BEFORE_ON_PRIMARY_FAILOVER" in ws.projector("check").stdout
            with ws.start_projector() as projector:
                writer = Writer(ws)
                writer.start()
                for _ in range(KILLS):
                    before = ws.wait(lambda: max(applied(ws), 0), 60, "an answer")
                    ws.wait(lambda: applied(ws) > before + 200, 60, "some progress")
                    killed = group.primary()
                    killed.kill()
                    assert group.primary() is not killed
                    killed.start()
                    group.wait_whole()
                writer.finish()
                ws.wait_drained(120)
                assert projector.running
            found = {row["account_id"]: (row["balance"], row["name"]) for row in ws.rows("account")}
            assert found == {account: (row["balance"], row["name"]) for account, row in writer.rows.items()}
            assert applied(ws) == sum(r["version"] for r in writer.rows.values())


@pytest.mark.thorough
def test_check_tells_when_a_group_may_lose_commits_at_a_change_of_the_primary(stores, server_folder, tmp_path):
    with Mysqld(server_folder / "alone") as mysql:
        mysql.restart(["--plugin-load-add=group_replication.so", "--loose-group-replication-group-name=8d3f8ab2-6a3c-4b8e-9b0a-0d6a0f3f6f11",
                       "--loose-group-replication-consistency=EVENTUAL", "--loose-group-replication-start-on-boot=OFF",
                       "--loose-group-replication-single-primary-mode=OFF"])
        with Workspace(Stores(stores.mongo_uri, mysql.port), tmp_path) as ws:
            ws.create()
            told = ws.projector("check").stdout
            assert "set it to BEFORE_ON_PRIMARY_FAILOVER on every member" in told
            assert "set group_replication_single_primary_mode = ON" in told
