"""Stores that fail and recover, and a change stream that is lost: no event is lost, and none pays for it."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from bson import Int64

from bank import FAST, deposited, impossible, opened
from endpoint import Endpoint
from mongod import ReplicaSet
from mysqld import Mysqld
from workspace import Stores, Workspace

SLOW = {**FAST, "backoff_ms": 300000}  # failed events stay failed during the test


def balance(ws, account="a1") -> Decimal | None:
    rows = ws.query("SELECT balance FROM account WHERE account_id = %s", account)
    return rows[0]["balance"] if rows else None


class Stream:
    """Deposits on ten accounts in turn, and the balances they must end with."""

    def __init__(self, ws: Workspace):
        self.ws, self.count = ws, 0
        ws.put(opened(ws, f"a{n}", balance="0.00") for n in range(10))

    def put(self, count: int = 50) -> None:
        self.ws.put(deposited(self.ws, f"a{n % 10}") for n in range(count))
        self.count += count

    def applied(self) -> int:
        return self.ws.query("SELECT COUNT(*) AS n FROM projector_applied")[0]["n"] - 10

    def check(self) -> None:
        self.ws.wait_drained()
        assert [r["balance"] for r in self.ws.rows("account")] == [Decimal(self.count // 10)] * 10
        assert self.applied() == self.count


@pytest.fixture
def private_mysql(stores, server_folder, tmp_path):
    with Mysqld(server_folder / "mysqld") as mysql:
        with Workspace(Stores(stores.mongo_uri, mysql.port), tmp_path) as ws:
            ws.server = mysql
            yield ws


def test_mysql_killed_and_started_again_under_load(private_mysql):
    ws = private_mysql
    ws.mapping(**FAST, batch=10)
    ws.create()
    with ws.start_projector() as projector:
        load = Stream(ws)
        load.put(200)
        ws.wait(lambda: load.applied() > 50, what="some events")
        ws.server.kill()
        load.put(100)
        projector.wait_log("class=unavailable")
        ws.wait(lambda: ws.outbox.find_one({"status": "failed", "last_error.class": "unavailable"}), what="a mark in the outbox")
        assert ws.outbox.find_one({"attempts": {"$gt": 1}}) is None  # it used up no attempt
        ws.server.start()
        ws.mysql = ws.stores.mysql(ws.name)
        ws.wait(lambda: load.applied() > 200, what="work to go on")
        load.put(100)
        load.check()
        assert projector.running and "event failed" not in projector.log_text()


def test_a_cut_connection_is_no_failure_of_the_events(bank):
    bank.mapping(**FAST, batch=5)
    with bank.start_projector() as projector:
        projector.wait_log("info working")
        load = Stream(bank)
        for _ in range(4):
            load.put(100)
            bank.end_sessions("projector")
            bank.wait_drained()  # an event that breaks the connection three times alone fails
        load.check()
        failed = [line for line in projector.log_text().splitlines() if re.search("event (failed|dead)", line)]
        assert all(re.search("event failed .*class=unavailable", line) for line in failed)  # it was alone when the connection was cut


@pytest.fixture
def private_mongo(stores, server_folder, tmp_path):
    with ReplicaSet(server_folder, cache_gb=0.25) as mongo:
        with Workspace(Stores(mongo.uri, stores.mysql_port, stores.mysql_host), tmp_path) as ws:
            ws.server = mongo
            yield ws


def test_mongodb_killed_and_started_again_under_load(private_mongo):
    ws = private_mongo
    ws.mapping(**FAST, batch=10)
    ws.create()
    with ws.start_projector() as projector:
        load = Stream(ws)
        load.put(200)
        ws.wait(lambda: load.applied() > 50, what="some events")
        ws.server.members[0].kill()
        projector.wait_log("class=unavailable source=mongodb")
        ws.server.start()
        load.put(100)
        load.check()
        assert projector.running and "event failed" not in projector.log_text()


# the change stream


@pytest.mark.parametrize("how", ["drop", "rename"])
def test_an_outbox_that_is_dropped_or_renamed_is_followed_again(bank, how):
    bank.mapping(**FAST)
    with bank.start_projector() as projector:
        bank.put(opened(bank))
        bank.wait_drained()
        if how == "drop":
            bank.outbox.drop()
        else:
            bank.outbox.rename("old")
        projector.wait_log("reading the outbox again .*dropped or renamed")
        bank.put(deposited(bank))
        bank.wait_drained()
        bank.put(deposited(bank))
        bank.wait_drained()
    assert balance(bank) == Decimal("102.00")


@pytest.mark.thorough(beyond=2)
@pytest.mark.whole_server
@pytest.mark.parametrize("code, label", [(286, "NonResumableChangeStreamError"), (280, "NonResumableChangeStreamError"),
                                         (260, None), (43, None), (237, None), (10334, None), (11601, None)])
def test_a_lost_stream_is_made_up_for_by_a_scan(private_failpoints, code, label):
    ws = private_failpoints
    ws.mapping(**{**FAST, "sweep_interval_ms": 600000})  # which would find what the stream does not deliver
    with ws.start_projector() as projector:
        ws.put(opened(ws))
        ws.wait_drained()
        data = {"failCommands": ["getMore"], "errorCode": code, "appName": "projector", **({"errorLabels": [label]} if label else {})}
        ws.mongo.admin.command({"configureFailPoint": "failCommand", "mode": {"times": 3}, "data": data})
        for _ in range(20):
            ws.put(deposited(ws))
        ws.wait_drained()
        ws.put(deposited(ws))
        ws.wait_drained()
        assert projector.running
    assert balance(ws) == Decimal("121.00")


@pytest.mark.whole_server
def test_the_metric_of_the_stream_is_1_only_while_it_is_followed(private_failpoints):
    ws = private_failpoints
    ws.mapping(**FAST, http="127.0.0.1:0")
    with ws.start_projector() as projector:
        endpoint = Endpoint(projector)

        def up() -> float:
            return endpoint.metrics()["projector_change_stream_up"]

        ws.wait(lambda: up() == 1, what="a stream that is followed")
        data = {"failCommands": ["getMore"], "errorCode": 286, "errorLabels": ["NonResumableChangeStreamError"], "appName": "projector"}
        ws.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})
        ws.wait(lambda: up() == 0, what="a stream that is lost")
        assert endpoint.metrics()["projector_lease_held"] == 1
        ws.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
        ws.wait(lambda: up() == 1, what="a stream that is followed again")


ANSWERS = [*({"errorCode": code} for code in (11600, 189, 10107, 13435, 91, 112, 251, 50, 262)), {"closeConnection": True},
           *({"writeConcernError": {"code": code, "errmsg": "not yet"}} for code in (64, 100))]


@pytest.mark.thorough(beyond=3)
@pytest.mark.whole_server
@pytest.mark.parametrize("answer", ANSWERS, ids=str)
def test_what_mongodb_answers_to_claims_and_acknowledgements_is_no_events_fault(private_failpoints, answer):
    """Driver and program retry: no event is lost, applied twice, or charged an attempt."""
    ws = private_failpoints
    ws.mapping(**FAST, mongodb={"retain": "archive"})
    with ws.start_projector() as projector:
        ws.put(opened(ws))
        ws.wait_drained()
        commands = ["update", "delete", "insert", "findAndModify"] + ([] if "writeConcernError" in answer else ["find", "aggregate"])
        data = {"failCommands": commands, **answer, "appName": "projector"}
        ws.mongo.admin.command({"configureFailPoint": "failCommand", "mode": {"times": 6}, "data": data})
        events = [deposited(ws) for _ in range(20)]
        for event in events:
            ws.put(event)
        ws.wait_drained()
        ws.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
        assert "event failed" not in projector.log_text() and projector.running
    assert balance(ws) == Decimal("120.00")
    archived = list(ws.db["outbox_archive"].find())
    assert len(archived) == 21 and not any(event.get("attempts") for event in archived)


@pytest.fixture
def private_failpoints(bank):
    """failCommand applies to the whole server, but only the projector's connections are meant."""
    yield bank
    bank.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


def test_the_aggregate_ids_that_look_alike_are_different_aggregates(bank):
    bank.mapping(**SLOW)
    bank.put(opened(bank, 5), impossible(bank, 5), deposited(bank, 5))
    bank.put(deposited(bank, "5"))  # the text is no number: not behind the failed event
    bank.put(deposited(bank, Int64(5)))  # int32 and int64 are: behind it
    bank.run_once()
    assert balance(bank, "5") == Decimal("101.00")
    assert bank.outbox.count_documents({}) == 3


@pytest.mark.thorough
def test_a_locked_table_is_waited_for_and_leaves_no_session_behind(bank):
    """LOCK TABLES, like DDL, by default keeps others waiting for a year:
    holding the fence's lock, long after their client has given up."""
    bank.mapping(**FAST)
    bank.put(opened(bank))
    bank.run_once()
    events = [deposited(bank) for _ in range(10)]
    def waited() -> list[int]:
        return [row["Time"] for row in bank.query("SHOW FULL PROCESSLIST") if row["db"] == bank.name and "metadata lock" in (row["State"] or "")]
    with bank.stores.mysql(bank.name) as other, other.cursor() as cursor, bank.start_projector() as projector:
        projector.wait_log("info working")
        cursor.execute("LOCK TABLES account WRITE")
        bank.put(events)
        longest = 0
        def gave_up() -> bool:
            nonlocal longest
            longest = max([longest, *waited()])
            return longest >= 8 and max(waited(), default=0) < 5
        bank.wait(gave_up, what="the end of the first wait")
        assert longest <= 20
        assert len(waited()) <= 2  # one per worker
        cursor.execute("UNLOCK TABLES")
        bank.wait_drained()
        assert balance(bank) == Decimal("110.00")
        assert projector.stop() == 0
    assert set(bank.ledger().values()) == {"applied"}
