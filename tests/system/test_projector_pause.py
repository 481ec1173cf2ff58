"""`projector pause` and `resume`: nothing is applied and no lock is
held, whoever owns the name, and every output shows it."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import datetime
from typing import Iterator

import pytest

from bank import opened
from endpoint import TOKEN, Endpoint
from servers import Mysqld
from workspace import Process, Stores, Workspace, decimal

# A pause is heard of with the next heartbeat; and no wait for a row that the test has locked ends before its time.
LISTENING = {"http": "127.0.0.1:0", "lease_ms": 4000, "sweep_interval_ms": 200, "mysql": {"lock_wait_s": 600}}


def abandoned(ws: Workspace, account: str) -> None:
    """An event that the sweeper will put back at its next sweep."""
    ws.put({**opened(ws, account), "status": "in_progress", "attempts": 1, "claimed_by": "gone", "claimed_at": datetime(2020, 1, 1)})


@contextmanager
def working(ws: Workspace, **settings: object) -> Iterator[tuple[Process, Endpoint]]:
    ws.mapping(**LISTENING, **settings)
    with ws.start_projector() as process:
        endpoint = Endpoint(process)
        ws.wait(lambda: endpoint.get("/readyz").status == 200)
        yield process, endpoint


def pause(ws: Workspace, endpoint: Endpoint) -> None:
    assert ws.projector("pause").returncode == 0
    ws.wait(lambda: endpoint.metrics()["projector_paused"] == 1)


def test_nothing_is_applied_and_nothing_held_until_it_is_resumed(bank):
    with working(bank) as (process, endpoint):
        bank.put(opened(bank, "a1"))
        bank.wait_drained()
        pause(bank, endpoint)
        event = opened(bank, "a2")
        bank.put(event)
        bank.wait(lambda: endpoint.metrics()["projector_queue_events"] == 1)
        for n in (3, 4):  # later events get as far, and no further
            abandoned(bank, f"a{n}")
            bank.wait(lambda: endpoint.metrics()["projector_queue_events"] == n - 1, what="what the sweeper has put back")
        found = bank.found(event)
        assert found.get("status", "pending") == "pending" and "claimed_by" not in found
        assert len(bank.rows("account")) == 1
        bank.query("LOCK TABLES account WRITE")  # no transaction of the projector is in the way
        bank.query("UNLOCK TABLES")
        assert endpoint.metrics()["projector_lease_held"] == 1
        assert bank.projector("resume").stdout == "resumed\n"
        bank.wait_gone(event)
        bank.wait_drained()
        assert len(bank.rows("account")) == 4
        process.wait_log("resumed")
        assert "paused" in process.log_text()


@pytest.mark.thorough
def test_a_pause_that_begins_in_an_outage_is_ready_once_that_is_over(bank, server_folder, tmp_path):
    with Mysqld(server_folder / "mysql") as mysql, Workspace(Stores(bank.stores.mongo_uri, mysql.port), tmp_path) as ws:
        ws.create()
        with working(ws) as (process, endpoint):
            ws.put(before := opened(ws, "a0"))
            ws.wait_gone(before)  # an owner that has only begun would give up
            mysql.kill()
            ws.put(event := opened(ws, "a1"))
            ws.wait(lambda: endpoint.get("/readyz").status == 503, what="the end of readiness")
            assert ws.projector("pause").returncode == 0
            process.wait_log("paused: nothing is applied")
            mysql.start()
            ws.wait(lambda: endpoint.get("/readyz").status == 200, what="readiness")
            assert ws.found(event) and len(ws.rows("account")) == 1
            assert ws.projector("resume").returncode == 0
            ws.wait_gone(event)


@pytest.mark.thorough
def test_the_owner_finishes_the_batch_that_it_has_begun_keeps_the_lease_and_holds_nothing(bank):
    with working(bank) as (process, endpoint):
        bank.put(first := opened(bank, "a1"))
        bank.wait_gone(first)
        epoch = bank.db["projector_leases"].find_one({"_id": bank.name})["epoch"]
        begun = bank.event("a1", "MoneyDeposited", 2, amount=decimal("1.00"))
        with bank.stores.mysql(bank.name) as holder, holder.cursor() as cursor:
            cursor.execute("START TRANSACTION")
            cursor.execute("SELECT * FROM account WHERE account_id = 'a1' FOR UPDATE")
            bank.put(begun)
            bank.wait_lock_wait()
            pause(bank, endpoint)
            bank.put(later := opened(bank, "a2"))
            bank.wait(lambda: endpoint.metrics()["projector_queue_events"] >= 1, what="a later event")
            holder.rollback()
        bank.wait_gone(begun)
        assert bank.ledger()[str(begun["_id"])] == "applied" and bank.found(later)
        bank.query("LOCK TABLES account WRITE, projector_position WRITE, projector_fence WRITE")  # nobody is in the way
        bank.query("UNLOCK TABLES")
        lease = bank.db["projector_leases"].find_one({"_id": bank.name})
        bank.wait(lambda: bank.db["projector_leases"].find_one({"_id": bank.name})["expires_at"] > lease["expires_at"], what="a renewal")
        bank.wait(lambda: endpoint.metrics()["projector_in_hand_events"] == 0, what="empty hands")
        assert lease["epoch"] == epoch
        assert bank.db["projector_claims"].find_one({"events": later["_id"]}) is None
        assert bank.projector("resume").returncode == 0
        bank.wait_gone(later)


@pytest.mark.thorough
def test_what_is_skipped_or_refreshed_during_a_pause_is_done(bank):
    with working(bank) as (process, endpoint):
        bank.put(first := opened(bank, "a1"), dead := {**bank.event("a1", "MoneyDeposited", 2, amount="much"), "status": "dead", "attempts": 10})
        bank.wait_gone(first)
        pause(bank, endpoint)
        bank.accounts.insert_one({"_id": "a1", "version": 1, "user_id": "u1", "name": "Grace", "balance": decimal("5.00")})
        assert bank.projector("refresh", "account", "a1").returncode == 0
        assert bank.rows("account")[0]["name"] == "Grace"
        assert bank.projector("skip", str(dead["_id"])).returncode == 0
        bank.put(later := bank.event("a1", "MoneyDeposited", 3, amount=decimal("1.00")))
        assert bank.projector("wait", "account", "a1", "2", "--timeout-ms", "0").stdout == "skipped\n"
        assert bank.projector("wait", "account", "a1", "3", "--timeout-ms", "0").returncode == 1
        bank.wait(lambda: endpoint.metrics()["projector_queue_events"] == 1, what="an event that only the pause keeps")
        bank.accounts.update_one({}, {"$set": {"version": 2}})
        assert bank.projector("rebuild", "account").returncode == 0
        assert bank.found(later)
        assert bank.projector("resume").returncode == 0
        bank.wait_gone(later)
    assert str(bank.rows("account")[0]["balance"]) == "6.00"


@pytest.mark.thorough
def test_an_event_that_was_deleted_during_a_pause_is_not_applied(bank):
    with working(bank) as (_, endpoint):
        pause(bank, endpoint)
        gone, kept = opened(bank, "a1"), opened(bank, "a2")
        bank.put(gone, kept)
        bank.wait(lambda: endpoint.metrics()["projector_queue_events"] == 2)
        bank.outbox.delete_one({"_id": gone["_id"]})
        assert bank.projector("resume").returncode == 0
        bank.wait_gone(kept)
    assert [row["account_id"] for row in bank.rows("account")] == ["a2"] and list(bank.ledger()) == [str(kept["_id"])]


def test_everybody_says_by_whom_and_since_when(bank):
    with working(bank) as (_, endpoint):
        told = bank.projector("pause").stdout
        assert told.startswith("paused by ") and told.endswith("UTC\n")
        by = told.split()[2]
        bank.wait(lambda: endpoint.metrics()["projector_paused"] == 1)
        ready = bank.wait(lambda: (a := endpoint.get("/readyz")).text.startswith(f"ready: paused by {by} since ") and a)
        assert ready.status == 200
        status = bank.projector("status")
        assert f"paused              by {by} since" in status.stdout and status.returncode == 0
        paused = json.loads(bank.projector("status", "--json").stdout)["paused"]
        assert paused["by"] == by and paused["since"]
        bank.wait(lambda: (endpoint.get("/live").json["status"]["paused"] or {}).get("by") == by)
        bank.wait(lambda: any("`projector resume`" in remark["text"] for remark in endpoint.get("/live").json["health"]))
        assert bank.projector("pause").stdout == told.rstrip("\n") + ", as before\n"
        assert bank.projector("resume").returncode == 0
        bank.wait(lambda: endpoint.get("/readyz").text == "ready: working\n")
        assert json.loads(bank.projector("status", "--json").stdout)["paused"] is None
        again = bank.projector("resume")
        assert (again.returncode, again.stdout) == (1, "it was not paused\n")


def test_a_pause_is_ready_however_long_events_wait(bank):
    """An orchestrator would replace the process."""
    with working(bank, ready_lag_ms=1) as (_, endpoint):
        pause(bank, endpoint)
        bank.put(opened(bank, "a1"))
        bank.wait(lambda: endpoint.get("/status").json["lag_ms"] > 1, what="a lag above ready_lag_ms")
        answer = endpoint.get("/readyz")
        assert answer.status == 200 and answer.text.startswith("ready: paused by ")


@pytest.mark.thorough
def test_a_pause_outlives_its_owner(bank):
    with working(bank) as (first, endpoint):
        pause(bank, endpoint)
        event = opened(bank, "a1")
        bank.put(event)
        first.kill()
    with working(bank) as (_, endpoint):
        bank.wait(lambda: endpoint.metrics()["projector_paused"] == 1)
        bank.wait(lambda: endpoint.metrics()["projector_queue_events"] == 1)
        assert bank.found(event) and bank.rows("account") == []
        assert bank.projector("resume").returncode == 0
        bank.wait_gone(event)


def test_a_name_that_never_ran_can_be_paused(bank):
    bank.mapping(**LISTENING)
    assert bank.projector("pause").returncode == 0
    bank.put(opened(bank, "a1"))
    with working(bank) as (_, endpoint):
        bank.wait(lambda: endpoint.metrics()["projector_queue_events"] == 1)
        assert bank.rows("account") == []


def test_machines_are_told_too(bank):
    def told(command: str, status: int) -> dict:
        done = bank.projector(command, "--json")
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout)
    first = told("pause", 0)
    assert first["paused"] and first["changed"] and "@" in first["by"] and first["since"]
    assert told("pause", 0) == {**first, "changed": False}
    assert told("resume", 0) == {"paused": False, "changed": True}
    assert told("resume", 1) == {"paused": False, "changed": False}


def test_once_says_that_it_is_paused_and_applies_nothing(bank):
    bank.put(opened(bank, "a1"))
    assert bank.projector("pause").returncode == 0
    done = bank.projector("run", "--once")
    assert done.returncode == 1
    assert "nothing is applied until `projector resume`" in done.stderr.splitlines()[-1]
    assert bank.outbox.count_documents({}) == 1 and bank.rows("account") == []
    assert bank.projector("resume").returncode == 0
    bank.run_once()
    assert len(bank.rows("account")) == 1


def test_a_pause_ends_in_order_with_sigterm(bank):
    with working(bank) as (process, endpoint):
        pause(bank, endpoint)
        bank.put(opened(bank, "a1"))
        bank.wait(lambda: endpoint.metrics()["projector_queue_events"] == 1)
        assert process.stop() == 0
    assert bank.outbox.count_documents({}) == 1


# Over HTTP


def with_token(ws: Workspace) -> None:
    file = ws.folder / "token"
    file.touch(mode=0o600)
    file.write_text(TOKEN + "\n")
    ws.mapping(**LISTENING, admin_token_file=str(file))


def test_the_page_pauses_and_resumes_behind_the_token(bank):
    with_token(bank)
    with bank.start_projector() as process:
        endpoint = Endpoint(process)
        bank.wait(lambda: endpoint.get("/readyz").status == 200)
        assert endpoint.act("pause", {}, token=None).status == 401
        assert endpoint.act("pause", {"event_id": "x"}).status == 400
        assert endpoint.get("/pause").status == 405
        answer = endpoint.act("pause", {})
        assert (answer.status, answer.json) == (200, {"paused": True, "changed": True})
        assert endpoint.act("pause", {}).json == {"paused": True, "changed": False}
        bank.wait(lambda: endpoint.metrics()["projector_paused"] == 1)
        assert endpoint.act("resume", {}).json == {"paused": False, "changed": True}
        bank.wait(lambda: endpoint.metrics()["projector_paused"] == 0)


def test_a_search_by_aggregate_gives_what_explain_shows(bank):
    with_token(bank)
    bank.put(opened(bank, "a1"))
    with bank.start_projector() as process:
        endpoint = Endpoint(process)
        bank.wait_drained()
        target = {"aggregate_type": "account", "aggregate_id": "a1"}
        bank.accounts.insert_one({"_id": "a1", "version": 1, "user_id": "u1", "name": "Ada", "balance": decimal("100.00")})
        assert endpoint.act("explain", target, token=None).status == 401
        found = endpoint.act("explain", target)
        assert found.status == 200
        assert found.json == json.loads(bank.projector("explain", "account", "a1", "--json").stdout)
        assert endpoint.act("explain", {**target, "aggregate_id": "nobody"}).status == 404
        assert endpoint.act("explain", {"aggregate_id": "a1"}).status == 400
