"""A sharded cluster instead of a replica set: outbox, archive and entities are spread over two shards."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from typing import Iterator

import pytest

from feeds import FEED, fold, reader_mapping, start_reader, turnover
from mongod import ShardedCluster
from server import scratch_folder
from workspace import OUTBOX, Stores, Workspace, decimal

COMPARED = "SELECT account_id, user_id, name, balance, opened_at FROM account ORDER BY 1"


@pytest.fixture(scope="module")
def cluster() -> Iterator[ShardedCluster]:
    if not shutil.which(shlex.split(os.environ["MONGOS_COMMAND"])[0]):
        pytest.skip("there is no mongos beside the mongod in use")
    folder = scratch_folder()
    with ShardedCluster(folder) as cluster:
        yield cluster
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def spread(cluster, stores, tmp_path) -> Iterator[Workspace]:
    """A workspace with an outbox and sharded collections: the outbox by aggregate_id, the others by _id."""
    with Workspace(Stores(cluster.uri, stores.mysql_port, stores.mysql_host), tmp_path) as ws:
        ws.environment["XDG_STATE_HOME"] = str(tmp_path)
        ws.mapping(mongodb={"retain": "archive"}, backoff_ms=20)
        ws.create()
        ws.outbox_program("init", "--archive", check=True)
        for collection, key in ("outbox", "aggregate_id"), ("outbox_archive", "_id"), ("accounts", "_id"):
            ws.mongo.admin.command("shardCollection", f"{ws.name}.{collection}", key={key: "hashed"})
        yield ws


def lines(ws: Workspace, command: str, *arguments: str, status: int = 0) -> list[dict]:
    done = ws.projector(command, "--json", *arguments)
    assert done.returncode == status, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.thorough
def test_check_finds_nothing_to_mend(spread):
    assert [line for line in lines(spread, "check") if line["verdict"] != "ok"] == []


@pytest.mark.thorough
def test_the_bank_on_two_shards(spread):
    """Written, projected, archived, compared, refilled, replayed."""
    with spread.start_projector() as projector:
        assert spread.outbox_program("demo", "--events", "2000", "--rate", "0", "--accounts", "50", "--quiet").returncode == 0
        spread.wait_drained()
        assert projector.stop() == 0
    assert spread.db["outbox_archive"].count_documents({}) == 2000 == len(spread.ledger())
    told = spread.query(COMPARED)
    assert len(told) == spread.accounts.count_documents({}) >= 50
    assert spread.projector("reconcile").returncode == 0
    assert spread.projector("archive", "verify").returncode == 0
    for command in (("reconcile", "--repair"), ("rebuild", "account"), ("rebuild", "account", "--shadow"),
                    ("replay", "--projection", "account", "--drop-old")):
        spread.query("UPDATE account SET balance = balance + 1 WHERE account_id = %s", told[0]["account_id"])
        done = spread.projector(*command)
        assert spread.query(COMPARED) == told, (command, done.stderr)


@pytest.mark.thorough
def test_a_feed_of_two_shards(spread):
    """From an outbox on two shards into a feed on one; stuck events are copied and marked meanwhile, on both shards."""
    spread.mapping(mongodb={"retain": "archive", "feeds": [FEED]}, backoff_ms=20)
    assert spread.outbox_program("init", "--feed", FEED).returncode == 0
    readers = reader_mapping(spread)
    opened = [spread.event(f"a{n}", "AccountOpened", user_id="u", name="n", balance=decimal("1.00")) for n in range(20)]
    stuck = [{**spread.event(f"a{n}", "MoneyDeposited", amount=decimal("3.00")), "status": "dead", "attempts": 10} for n in range(20)]
    late = [spread.event(f"a{n % 20}", "MoneyDeposited", amount=decimal("0.25")) for n in range(200)]
    with spread.start_projector(), start_reader(spread, readers):
        spread.put(opened)
        spread.wait_drained()
        spread.put(stuck, late)
        spread.wait(lambda: spread.outbox.count_documents({"fed_to": FEED}) == 220, what="marks on both shards")
        spread.wait(lambda: turnover(spread) == fold([*opened, *stuck, *late]), what="the second read model")
        assert {row["balance"] for row in spread.rows("account")} == {1}
        assert spread.projector("retry", "--all-dead").returncode == 0
        spread.wait_drained()
        spread.wait(lambda: spread.db[FEED].find_one() is None, what="an empty feed")
    assert turnover(spread) == fold([*opened, *stuck, *late])


@pytest.mark.thorough
def test_a_feed_that_is_sharded_by_something_else_is_reported(spread):
    spread.mapping(mongodb={"feeds": [FEED, "outbox_audit"]})
    for feed, key in (FEED, "aggregate_id"), ("outbox_audit", "_id"):
        assert spread.outbox_program("init", "--feed", feed).returncode == 0
        spread.mongo.admin.command("shardCollection", f"{spread.name}.{feed}", key={key: "hashed"})
    done = spread.projector("check", "--json")
    assert done.returncode == 0
    [told] = [line for line in map(json.loads, done.stdout.splitlines()) if "sharded by" in line["text"]]
    assert told["verdict"] == "warning" and f'{FEED} is sharded by {{ "aggregate_id" : "hashed" }}' in told["text"]


@pytest.mark.thorough
def test_a_command_sent_twice_at_once_on_two_shards(spread):
    """The receipts are on one shard, and some of so many entities on the other. MongoDB 8.2 reports a write conflict on
    either, which is retried: that both shards are read as of one moment is not promised, and was not seen to fail."""
    spread.outbox_program("init", check=True)

    def write(account: str, uri: str) -> subprocess.Popen:
        event = {"_id": f"open {account}", "aggregate_type": "account", "aggregate_id": account, "event_type": "AccountOpened",
                 "payload": {"user_id": "u", "name": "n"}, "entity": {"insert": {"balance": 1}}}
        program = subprocess.Popen([OUTBOX, "put", "--uri", uri, "--database", spread.name, "--entities", "accounts"],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        program.stdin.write(json.dumps(event) + "\n")
        program.stdin.close()
        return program

    accounts = [f"a{n}" for n in range(12)]
    for account in accounts:
        found = spread.mongo.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data={
            "failCommands": ["insert"], "appName": "slow", "blockConnection": True, "blockTimeMS": 2500})
        slow = write(account, spread.stores.mongo_uri + "?appName=slow")
        spread.mongo.admin.command("waitForFailPoint", "failCommand", timesEntered=found["count"] + 1, maxTimeMS=60000)
        quick = write(account, spread.stores.mongo_uri)
        for program in quick, slow:
            assert program.wait(120) == 0, program.stderr.read()
    assert spread.outbox.count_documents({}) == spread.accounts.count_documents({}) == len(accounts)


def test_archived_events_are_fetched_in_the_order_of_their_numbers_on_two_shards(spread):
    spread.put(spread.event(f"a{n}", "AccountOpened", user_id="u", name="n", balance=decimal("1.00")) for n in range(30))
    spread.run_once()
    numbers = [line["cursor"] for line in lines(spread, "events")]
    assert numbers == list(range(1, 31))
    with spread.start_command("events", "--follow", "--after", "30") as follower, spread.start_projector():
        spread.put(spread.event("a1", "AccountClosed"))
        spread.wait_drained()
        spread.wait(lambda: spread.db["outbox_archive"].find_one({"seq": 31}), what="its number")
        assert follower.running, follower.log_text()
    assert [line["cursor"] for line in lines(spread, "events", "--after", "30")] == [31]


def test_a_failed_event_on_two_shards(spread):
    """Deltas would show if anything were applied twice on the way. No retry is due while a run ends: it would give it back, untried."""
    spread.mapping(mongodb={"retain": "archive"}, backoff_ms=300000)
    accounts = [f"a{n}" for n in range(20)]
    spread.put(spread.event(a, "AccountOpened", user_id="u", name=a, balance=decimal("1.00")) for a in accounts)
    culprits = [spread.event(a, "Unheard") for a in accounts[:10]]
    spread.put(culprits, [spread.event(a, "MoneyDeposited", amount=decimal("1.00")) for a in accounts])
    spread.run_once()
    assert {row["account_id"]: row["balance"] for row in spread.rows("account")} == {a: 1 if a in accounts[:10] else 2 for a in accounts}
    left = {str(e["_id"]): e["status"] for e in spread.outbox.find({"event_type": "Unheard"})}
    assert left == {str(e["_id"]): "failed" for e in culprits}
    assert {line["event_id"] for line in lines(spread, "list", "--state", "failed")} == set(left)
    assert spread.projector("retry", "--aggregate", "account", accounts[0]).returncode == 0
    assert spread.projector("explain", "account", accounts[0]).returncode == 0
    spread.run_once()
    for event in culprits:
        assert spread.projector("skip", str(event["_id"])).returncode == 0
    spread.run_once()
    assert {row["balance"] for row in spread.rows("account")} == {2}
    assert spread.outbox.count_documents({}) == 0
