"""`projector wait` and `GET /wait`: whether a write has arrived in MySQL, and how."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any, Iterator

import pytest
from bson import Int64, ObjectId

from bank import opened
from endpoint import Endpoint
from forwarding import recording
from refusals import MysqlWire, Refusing, refusing_port
from servers import Mysqld
from workspace import AT_ONCE_S, ROOT, WAIT_S, Stores, Workspace, decimal

LISTENING = {"http": "127.0.0.1:0", "backoff_ms": 20, "gap_wait_ms": 50, "sweep_interval_ms": 200}
T = datetime(2026, 1, 31, 12)


def deposit(ws: Workspace, account: Any, version: int, **more) -> dict:
    return ws.event(account, "MoneyDeposited", version, amount=decimal("1.00"), **more)


def impossible(ws: Workspace, account: Any, version: int) -> dict:
    return ws.event(account, "MoneyDeposited", version, amount="much")


def waited(ws: Workspace, account: str, version: int, timeout_ms: int = 0) -> tuple[int, str]:
    done = ws.projector("wait", "account", account, str(version), "--timeout-ms", str(timeout_ms))
    assert done.stderr == "", done.stderr
    return done.returncode, done.stdout.strip()


@contextmanager
def listening(ws: Workspace, role: str = "working", **overrides) -> Iterator[Endpoint]:
    ws.mapping(**{**LISTENING, **overrides})
    with ws.start_projector() as process:
        endpoint = Endpoint(process)
        ws.wait(lambda: endpoint.get("/readyz").text == f"ready: {role}\n", what=f"readiness: {role}")
        yield endpoint


def ask(endpoint: Endpoint, account: str, version: int, timeout_ms: int | None = 60000, type_: str = "account") -> tuple[int, dict]:
    query = {"type": type_, "id": account, "version": version, **({} if timeout_ms is None else {"timeout_ms": timeout_ms})}
    answer = endpoint.get("/wait?" + urllib.parse.urlencode(query))
    return answer.status, json.loads(answer.text)


# The command


def test_it_prints_how_a_version_was_accounted_for(bank):
    bank.mapping(gap_wait_ms=20)
    assert waited(bank, "a1", 1) == (1, "not in time")
    bank.put(opened(bank, "a1", 1), deposit(bank, "a1", 2))
    assert waited(bank, "a1", 2) == (1, "not in time")
    bank.run_once()
    assert [waited(bank, "a1", v) for v in (1, 2)] == [(0, "applied")] * 2
    assert waited(bank, "a1", 3) == (1, "not in time")


def test_an_event_that_changes_nothing_counts_as_applied(bank):
    bank.put(opened(bank, "a1", 1), bank.event("a1", "StatementSent", 2))
    bank.run_once()
    assert waited(bank, "a1", 2) == (0, "applied")


def test_versions_without_an_event_are_missing_until_one_comes_late(bank):
    bank.mapping(gap_wait_ms=20)
    bank.put(opened(bank, "a1", 1, at=T), deposit(bank, "a1", 4, at=T + timedelta(seconds=4)))
    bank.run_once()
    assert [waited(bank, "a1", v) for v in (2, 3, 4)] == [(0, "missing"), (0, "missing"), (0, "applied")]
    late = deposit(bank, "a1", 2, at=T + timedelta(seconds=2))
    bank.put(late)
    assert waited(bank, "a1", 2) == (1, "not in time")  # it does exist after all
    bank.run_once()
    assert [waited(bank, "a1", v) for v in (2, 3, 4)] == [(0, "applied"), (0, "missing"), (0, "applied")]


@pytest.mark.thorough
def test_a_version_that_was_missing_and_is_applied_in_order_is_applied(bank):
    bank.mapping(**{**LISTENING, "gap_wait_ms": 12000}, lease_ms=4000)  # it is paused before the wait is over
    with bank.start_projector() as process:
        bank.put(opened(bank, "a1", 1, at=T), deposit(bank, "a1", 4, at=T + timedelta(seconds=4)))
        bank.wait(lambda: Endpoint(process).metrics()["projector_held_aggregates"] == 1, what="the gap")
        assert bank.projector("pause").returncode == 0
        process.wait_log("warning paused")
        process.wait_log("versions missing")
        bank.put(deposit(bank, "a1", 2, at=T + timedelta(seconds=2)))
        bank.wait(lambda: Endpoint(process).metrics()["projector_queue_events"] == 2, what="both events in the queue")
        assert bank.projector("resume").returncode == 0
        bank.wait_drained()
        assert [waited(bank, "a1", v) for v in (2, 3, 4)] == [(0, "applied"), (0, "missing"), (0, "applied")]


@pytest.mark.thorough
def test_a_late_event_that_a_newer_state_had_overtaken_is_superseded(bank):
    bank.put(opened(bank, "a1", 2, at=T + timedelta(seconds=2)))
    bank.run_once()
    bank.put(opened(bank, "a1", 1, at=T))
    bank.run_once()
    assert [waited(bank, "a1", v) for v in (1, 2)] == [(0, "superseded"), (0, "applied")]


def test_however_many_are_superseded_at_once_each_is_told_as_such(bank):
    bank.put(opened(bank, "a1", 21, at=T + timedelta(seconds=2)))
    bank.run_once()
    bank.put([opened(bank, "a1", v, at=T + timedelta(milliseconds=v)) for v in range(1, 21)])
    bank.run_once()
    assert [waited(bank, "a1", v) for v in (1, 17, 20, 21)] == [(0, "superseded")] * 3 + [(0, "applied")]


@pytest.mark.thorough
def test_a_version_stays_missing_however_many_are_superseded_after_it(bank):
    bank.mapping(gap_wait_ms=20)
    bank.put(opened(bank, "a1", 1, at=T), deposit(bank, "a1", 3, at=T + timedelta(seconds=4)), opened(bank, "a2", 301, at=T + timedelta(seconds=2)))
    bank.run_once()
    bank.put([opened(bank, "a2", v, at=T + timedelta(milliseconds=v)) for v in range(1, 301)])
    bank.run_once()
    assert (waited(bank, "a1", 2), waited(bank, "a2", 300)) == ((0, "missing"), (0, "superseded"))


@pytest.mark.thorough
def test_a_version_that_came_late_is_not_missing_again_when_its_note_is_forgotten(bank):
    bank.mapping(gap_wait_ms=20)
    bank.put(opened(bank, "a1", 1, at=T), deposit(bank, "a1", 4, at=T + timedelta(seconds=4)), opened(bank, "a2", 301, at=T + timedelta(seconds=2)))
    bank.run_once()
    bank.put(deposit(bank, "a1", 2, at=T + timedelta(seconds=2)))
    bank.run_once()
    bank.put([opened(bank, "a2", v, at=T + timedelta(milliseconds=v)) for v in range(1, 301)])
    bank.run_once()
    assert [waited(bank, "a1", v) for v in (2, 3)] == [(0, "applied"), (0, "missing")]
    notes = [v for kept in bank.db["projector_leases"].find() for v in kept.values() if isinstance(v, list)]
    assert max(map(len, notes)) == 256


def test_nothing_waits_behind_an_event_whose_time_is_far_ahead(bank):
    early = deposit(bank, "a1", 2, at=datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(days=400))
    bank.put(opened(bank, "a1", 1), early)
    bank.run_once()
    assert waited(bank, "a1", 3) == (1, "not in time")
    assert waited(bank, "a1", 2, 60000) == (1, f"waits behind the failed event {early['_id']}")
    bank.put(deposit(bank, "a1", 3))
    with listening(bank) as endpoint:
        assert ask(endpoint, "a1", 3)[0] == 200
        assert (ask(endpoint, "a1", 2)[0], ask(endpoint, "a1", 4, 0)[0]) == (409, 408)


def test_behind_a_failed_or_dead_event_it_answers_at_once_with_its_id(bank):
    first, culprit = opened(bank, "a1", 1), impossible(bank, "a1", 2)
    bank.put(first, culprit, deposit(bank, "a1", 3), opened(bank, "a2", 1))
    for permanent, state in (("retry", "failed"), ("dead", "dead")):
        bank.mapping(permanent=permanent, backoff_ms=1)
        bank.outbox.update_many({}, {"$unset": {"next_attempt_at": 1}})
        bank.run_once()
        began = time.monotonic()
        for version in (2, 3, 4):
            assert waited(bank, "a1", version, 60000) == (1, f"waits behind the {state} event {culprit['_id']}")
        assert time.monotonic() - began < 3 * AT_ONCE_S
        assert [waited(bank, "a1", 1), waited(bank, "a2", 1)] == [(0, "applied")] * 2
    assert bank.projector("skip", str(culprit["_id"])).returncode == 0
    bank.run_once()
    assert [waited(bank, "a1", v) for v in (1, 2, 3)] == [(0, "applied"), (0, "skipped"), (0, "applied")]


def test_an_event_that_an_outage_holds_blocks_nobody(bank):
    held = {"status": "failed", "attempts": 0, "next_attempt_at": T + timedelta(days=9999), "last_error": {"class": "unavailable", "message": "away"}}
    bank.put({**opened(bank, "a1", 1), **held})
    assert waited(bank, "a1", 1) == (1, "not in time")


def test_a_dead_event_is_told_behind_one_that_an_outage_holds(bank):
    excused, dead = deposit(bank, "a1", 1), deposit(bank, "a1", 2)
    bank.put({**excused, "status": "failed", "attempts": 1, "last_error": {"class": "unavailable", "code": 2013}}, {**dead, "status": "dead"})
    assert waited(bank, "a1", 3) == (1, f"waits behind the dead event {dead['_id']}")


def test_ids_of_two_kinds_with_one_text_are_told_apart(bank):
    """What blocks "5" does not block 5, and is not reported for it."""
    culprit = impossible(bank, "5", 2)
    bank.put(opened(bank, 5, 1), {**culprit, "status": "dead"})
    bank.run_once()

    def kind(name: str, version: int) -> tuple[int, str]:
        done = bank.projector("wait", "account", "5", str(version), "--timeout-ms", "0", "--id-kind", name)
        return done.returncode, done.stdout.strip()

    assert kind("int", 1) == (0, "applied") and kind("int", 3) == (1, "not in time")
    assert kind("string", 3) == (1, f"waits behind the dead event {culprit['_id']}")
    assert waited(bank, "5", 1) == (0, "applied")
    assert kind("uuid", 1)[0] == kind("number", 1)[0] == 2
    with listening(bank) as endpoint:
        def answer(name: str, version: int) -> int:
            return endpoint.get(f"/wait?type=account&id=5&id_kind={name}&version={version}&timeout_ms=0").status

        assert [answer("int", 1), answer("int", 3), answer("string", 3), answer("uuid", 1)] == [200, 408, 409, 400]


def test_what_another_id_has_says_nothing_about_the_text_itself(bank):
    """"007" is not 7, and a string in upper case is not the UUID that it may stand for."""
    upper = "0190A000-0000-7000-8000-00000000000A"
    for other in 7, uuid.UUID(upper):
        bank.put(opened(bank, other, 1), deposit(bank, other, 2), deposit(bank, other, 3))
    bank.run_once()
    assert waited(bank, "007", 3) == (1, "not in time")
    assert waited(bank, upper, 3) == (0, "applied")  # as a person may type it
    bank.put(opened(bank, upper, 1), deposit(bank, upper, 2))
    assert waited(bank, upper, 3) == (1, "not in time")
    bank.run_once()
    assert waited(bank, upper, 2) == (0, "applied") and waited(bank, upper, 3) == (1, "not in time")


def test_a_commit_of_another_id_does_not_answer_for_the_text_itself(bank):
    text, alone = "0190A000-0000-7000-8000-00000000000A", "0190A000-0000-7000-8000-00000000000B"
    bank.put(opened(bank, text, 1), opened(bank, uuid.UUID(text), 1), opened(bank, uuid.UUID(alone), 1))
    with listening(bank) as endpoint, ThreadPoolExecutor() as pool:
        bank.wait_drained()
        answers = [pool.submit(ask, endpoint, account, 2, 1500) for account in (text, alone)]
        bank.wait(lambda: endpoint.metrics()["projector_waiters"] == 2)
        bank.put(deposit(bank, uuid.UUID(text), 2), deposit(bank, uuid.UUID(alone), 2))
        assert [answer.result()[0] for answer in answers] == [408, 200]


def test_an_earlier_version_may_wait_behind_a_later_one_that_comes_first_by_its_time(bank):
    culprit = impossible(bank, "a1", 2)
    bank.put(culprit, opened(bank, "a1", 1))
    bank.run_once()
    assert waited(bank, "a1", 1, 60000) == (1, f"waits behind the failed event {culprit['_id']}")


def test_json_and_wrong_use(bank):
    bank.put(opened(bank, "a1", 1), impossible(bank, "a1", 2))
    bank.run_once()
    def told(version: int) -> dict:
        return json.loads(bank.projector("wait", "account", "a1", str(version), "--timeout-ms", "0", "--json").stdout)
    assert told(1) == {"outcome": "applied"}
    assert told(2)["outcome"] is None and told(2)["state"] in ("failed", "dead")
    for arguments in (["account", "a1"], ["account", "a1", "0"], ["account", "a1", "x"], ["nobody", "a1", "1"],
                      ["account", "a1", "1", "--timeout-ms", "-1"], ["account", "", "1"]):
        assert bank.projector("wait", *arguments).returncode == 2


IDS = ["a b+c&d=e%41ü", uuid.UUID("0190a000-0000-7000-8000-000000000001"), ObjectId("0190a00000007000800000aa"), 5, Int64(2**53 + 1)]


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("account", IDS, ids=str)
def test_ids_of_all_kinds(bank, account):
    with listening(bank) as endpoint:
        with ThreadPoolExecutor() as pool:
            soon = pool.submit(ask, endpoint, str(account), 1)
            bank.wait(lambda: endpoint.metrics()["projector_waiters"] == 1)
            bank.put(opened(bank, account, 1))
            assert soon.result() == (200, {"outcome": "applied"})
        assert ask(endpoint, str(account), 1) == (200, {"outcome": "applied"})
    assert waited(bank, str(account), 1) == (0, "applied")


# GET /wait


def test_the_commit_answers_and_no_waiter_asks_mysql(bank):
    bank.put(opened(bank, "a1", 1))
    with (recording(bank.stores.mysql_port) as (port, said), listening(bank, mysql={"port": port}) as endpoint,
          ThreadPoolExecutor(150) as pool):
        bank.wait_drained()
        waiting = [pool.submit(ask, endpoint, "a1", 2, 60000) for _ in range(150)]
        bank.wait(lambda: endpoint.metrics()["projector_waiters"] == 150)
        # not the sweeper's, whether there is any position
        asked = lambda: said.count(b"projector_position") - said.count(b"SELECT 1 FROM projector_position")
        began, before = time.monotonic(), asked()
        bank.wait(lambda: asked() >= before + 8, what="four questions, which name it twice")
        assert time.monotonic() - began > 1  # after those for new waiters, one per second for all of them
        bank.put(deposit(bank, "a1", 2))
        assert [w.result() for w in waiting] == [(200, {"outcome": "applied"})] * 150
        bank.wait(lambda: endpoint.metrics()["projector_waiters"] == 0, what="the end of all waits")


def test_it_ends_with_408_in_time(bank):
    with listening(bank) as endpoint:
        began = time.monotonic()
        assert ask(endpoint, "a1", 1, 300) == (408, {"error": "not in time"})
        assert 0.3 <= time.monotonic() - began < AT_ONCE_S


def test_a_timeout_of_0_looks_once(bank):
    bank.put(opened(bank, "a1", 1))
    with listening(bank) as endpoint:
        bank.wait_drained()
        assert [ask(endpoint, "a1", version, 0)[0] for version in (1, 2)] * 5 == [200, 408] * 5


@pytest.mark.parametrize("state", ["failed", "dead"])
def test_behind_a_failed_event_it_is_409_at_once(bank, state):
    culprit = impossible(bank, "a1", 2)
    bank.put(opened(bank, "a1", 1))
    with listening(bank, backoff_ms=300000, max_attempts=1 if state == "dead" else 10) as endpoint, ThreadPoolExecutor() as pool:
        bank.wait_drained()
        soon = [pool.submit(ask, endpoint, "a1", v) for v in (2, 3)]
        bank.wait(lambda: endpoint.metrics()["projector_waiters"] == 2)
        bank.put(culprit)
        answers = [w.result() for w in soon]
        bank.wait_status(culprit, state)
        bank.wait(lambda: ask(endpoint, "a1", 2, 0)[0] == 409, what="the mark, as a majority has it")
        answers += [ask(endpoint, "a1", v, 0) for v in (2, 3)] + [ask(endpoint, "a1", 2, 900) for _ in range(4)]
        for status, body in answers:
            assert (status, body["event_id"], body["state"]) == (409, str(culprit["_id"]), state)
        assert ask(endpoint, "a1", 1)[0] == 200


def test_wrong_questions_are_400(bank):
    with listening(bank) as endpoint:
        for query in ("", "type=account&id=a1", "type=account&version=1", "id=a1&version=1", "type=nobody&id=a1&version=1",
                      "type=account&id=a1&version=0", "type=account&id=a1&version=x", "type=account&id=&version=1",
                      "type=account&id=a1&version=1&timeout_ms=-1", "type=account&id=a1&version=1&timeout_ms=60001",
                      "type=account&id=%ff&version=1", "type=account&id=%00&version=1", "type=account&id=%4&version=1",
                      "type=account&id=a1&version=-1", "type=account&id=a1&version=1.0", "type=account&id=a1&version=0x1",
                      "type=account&id=a1&version=9223372036854775808", "type=account&id=a1&version=", "type=account&id=a1&version",
                      "type=account&id=a1&version=%201", "type=account&id=a1&version=1&timeout_ms=", "type=account&id=a1&version=1&timeout_ms",
                      "type=account&id=a1&version=1&version=2", "type=account&id=a1&id=a1&version=1", "type=&id=a1&version=1",
                      "type=account&type=account&id=a1&version=1", "type=account&id=a1&version=1&timeout_ms=1&timeout_ms=2",
                      "type=ACCOUNT&id=a1&version=1", "type=account&id=" + "x" * 256 + "&version=1"):
            answer = endpoint.get("/wait?" + query)
            assert answer.status == 400 and "error" in json.loads(answer.text), query


def test_what_is_odd_but_has_a_meaning_is_answered(bank):
    bank.put(opened(bank, "a1", 1), opened(bank, "ä", 1))
    with listening(bank) as endpoint:
        bank.wait_drained()
        for query in ("type=account&id=a1&version=1&other=1", "type=%61ccount&id=%61%31&version=%31", "version=01&id=a1&type=account",
                      "type=account&id=%c3%a4&version=1", "type=account&id=%C3%A4&version=1&timeout_ms=60000"):
            assert endpoint.get("/wait?" + query).status == 200, query
        head = endpoint.request("HEAD", "/wait?type=account&id=a1&version=1")
        assert head.status == 200 and head.text == ""
        assert endpoint.get(f"/wait?type=account&id=a1&version={2**63 - 1}&timeout_ms=10").status == 408
        for method in "POST", "PUT", "DELETE", "OPTIONS":
            refused = endpoint.request(method, "/wait?type=account&id=a1&version=1")
            assert refused.status == 405 and refused.headers["Allow"] == "GET, HEAD"
    assert waited(bank, "a1", 2, 1) == (1, "not in time") == waited(bank, "a1", 2**63 - 1, 1)


def test_a_huge_timeout_of_the_command_is_no_short_one(bank):
    with bank.start_command("wait", "account", "a1", "1", "--timeout-ms", str(2**63 - 1)) as waiting:
        bank.wait(lambda: bank.query("SELECT 1 FROM information_schema.PROCESSLIST WHERE DB = %s AND USER = 'projector'", bank.name))
        bank.put(opened(bank, "a1", 1))
        bank.run_once()
        assert waiting.popen.wait(WAIT_S) == 0


def send_wait(endpoint: Endpoint, version: int, timeout_ms: int = 60000) -> socket.socket:
    client = socket.create_connection((endpoint.host, endpoint.port))
    client.sendall(f"GET /wait?type=account&id=a1&version={version}&timeout_ms={timeout_ms} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return client


def test_who_hangs_up_gives_its_place_back(bank):
    """Otherwise a few impatient clients could keep all others out for the length of their timeouts."""
    bank.put(opened(bank, "a1", 1))
    with listening(bank) as endpoint:
        bank.wait_drained()
        clients = [send_wait(endpoint, 2) for _ in range(256)]
        bank.wait(lambda: endpoint.metrics()["projector_waiters"] == 256)
        for client in clients[1:]:
            client.close()
        bank.wait(lambda: endpoint.metrics()["projector_waiters"] == 1, what="the places of those who are gone")
        bank.put(deposit(bank, "a1", 2))
        assert clients[0].recv(4096).startswith(b"HTTP/1.1 200")


@pytest.mark.thorough
def test_thousands_of_idle_connections_keep_nobody_waiting(bank):
    bank.put(opened(bank, "a1", 1))
    with listening(bank) as endpoint:
        bank.wait_drained()
        waiting = [send_wait(endpoint, 2) for _ in range(50)]
        bank.wait(lambda: endpoint.metrics()["projector_waiters"] == 50)
        idle = []
        for _ in range(5000):
            idle = [*idle[-400:], socket.create_connection((endpoint.host, endpoint.port))]
        assert endpoint.metrics()["projector_waiters"] == 50
        bank.put(deposit(bank, "a1", 2))
        assert all(client.recv(4096).startswith(b"HTTP/1.1 200") for client in waiting)
        assert ask(endpoint, "a1", 2) == (200, {"outcome": "applied"})


@pytest.mark.thorough
def test_waiters_are_bounded_and_others_are_answered_meanwhile(bank):
    bank.put(opened(bank, "a1", 1))
    with listening(bank) as endpoint, ThreadPoolExecutor(280) as pool:
        bank.wait_drained()
        waiting = [pool.submit(ask, endpoint, "a1", 2) for _ in range(256)]
        bank.wait(lambda: endpoint.metrics()["projector_waiters"] == 256)
        assert ask(endpoint, "a1", 2)[0] == 429
        assert endpoint.get("/healthz").status == 200
        bank.put(deposit(bank, "a1", 2))
        assert {w.result()[0] for w in waiting} == {200}


def test_a_burst_of_waiters_loses_none(bank):
    """All connect before the first request is read."""
    bank.put(opened(bank, "a1", 1))
    with listening(bank) as endpoint:
        bank.wait_drained()
        clients = [socket.create_connection((endpoint.host, endpoint.port)) for _ in range(200)]
        for client in clients:
            client.sendall(b"GET /wait?type=account&id=a1&version=2&timeout_ms=60000 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        bank.wait(lambda: endpoint.metrics()["projector_waiters"] == 200)
        bank.put(deposit(bank, "a1", 2))
        for client in clients:
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
            client.close()


def test_what_a_person_does_elsewhere_is_noticed(bank):
    culprit = impossible(bank, "a1", 1)
    bank.put(culprit)
    with listening(bank, permanent="dead") as endpoint, ThreadPoolExecutor() as pool:
        bank.wait_status(culprit, "dead")
        assert bank.projector("skip", str(culprit["_id"])).returncode == 0
        assert bank.wait(lambda: (a := ask(endpoint, "a1", 1))[0] == 200 and a) == (200, {"outcome": "skipped"})


def test_a_standby_answers_too(bank):
    with listening(bank) as _:
        with listening(bank, "standing by", name=bank.name) as standby, ThreadPoolExecutor() as pool:
            soon = pool.submit(ask, standby, "a1", 1)
            bank.wait(lambda: standby.metrics()["projector_waiters"] == 1)
            bank.put(opened(bank, "a1", 1))
            assert soon.result() == (200, {"outcome": "applied"})


class Asked(Refusing):
    """Refuses nothing, and counts the statements about positions."""

    count = 0

    def meets(self, store: str, shape: str) -> bool:
        self.count += "projector_position" in shape
        return False


@pytest.mark.thorough
def test_a_standby_asks_mysql_once_a_second_however_many_wait(bank):
    asked, seconds = Asked(), 4
    with listening(bank), refusing_port(asked, "mysql", MysqlWire, bank.stores.mysql_port) as port:
        with listening(bank, "standing by", name=bank.name, mysql={"host": "127.0.0.1", "port": port}) as standby, ThreadPoolExecutor(40) as pool:
            begun, before = time.monotonic(), asked.count
            answers = list(pool.map(lambda n: ask(standby, f"a{n}", 1, seconds * 1000), range(40)))
            count, took = asked.count - before, time.monotonic() - begun
    assert {status for status, _ in answers} == {408}
    assert 2 <= count <= took + 2


def test_a_stop_answers_those_who_wait(bank):
    bank.mapping(**LISTENING)
    with bank.start_projector() as process, ThreadPoolExecutor() as pool:
        endpoint = Endpoint(process)
        bank.wait(lambda: endpoint.get("/readyz").text == "ready: working\n")
        soon = pool.submit(ask, endpoint, "a1", 1)
        bank.wait(lambda: endpoint.metrics()["projector_waiters"] == 1)
        assert process.stop() == 0
        assert soon.result()[0] == 503


@pytest.mark.thorough
@pytest.mark.whole_server
def test_a_mysql_that_does_not_answer_holds_no_timeout_up(bank, server_folder, tmp_path):
    with Mysqld(server_folder / "mysql") as mysql, Workspace(Stores(bank.stores.mongo_uri, mysql.port), tmp_path) as ws:
        ws.create()
        with listening(ws) as endpoint, ThreadPoolExecutor() as pool:
            first = pool.submit(ask, endpoint, "a1", 1, 60000)
            ws.wait(lambda: endpoint.metrics()["projector_waiters"] == 1)
            mysql.pause()
            try:
                began = time.monotonic()
                answers = [pool.submit(ask, endpoint, "a2", 1, ms) for ms in (0, 300, 3000)]
                assert [a.result()[0] for a in answers[:2]] == [408] * 2
                assert "cannot read the position" not in ws.started[-1].log_text()  # MySQL may still answer
                assert answers[2].result()[0] == 408 and 3 <= time.monotonic() - began < 3 + 2 * AT_ONCE_S
            finally:
                mysql.resume()
            ws.put(opened(ws, "a1", 1))
            assert first.result() == (200, {"outcome": "applied"})


@pytest.mark.thorough
@pytest.mark.whole_server
def test_while_mysql_is_away_it_waits(bank, server_folder, tmp_path):
    with Mysqld(server_folder / "mysql") as mysql, Workspace(Stores(bank.stores.mongo_uri, mysql.port), tmp_path) as ws:
        ws.create()
        with listening(ws) as endpoint, ThreadPoolExecutor() as pool:
            mysql.kill()
            soon = pool.submit(ask, endpoint, "a1", 1)
            ws.wait(lambda: endpoint.metrics()["projector_waiters"] == 1)
            ws.put(opened(ws, "a1", 1))
            mysql.start()
            assert soon.result() == (200, {"outcome": "applied"})


# The examples of the document


def example(language: str, endpoint: Endpoint) -> str:
    [block] = re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "docs/waiting.md").read_text(), re.M | re.S)
    assert block.count("http://127.0.0.1:9464") == 1
    patient, count = re.subn(r"(timeout_ms|timeoutMs)( ?= ?)1000\b", r"\g<1>\g<2>30000", block)  # on a busy machine too
    assert count == 1
    return patient.replace("http://127.0.0.1:9464", endpoint.url)


def test_the_python_of_the_docs_shows_a_row_that_has_the_write(bank):
    def write(command: str, account: str, amount: int) -> int:
        bank.put(opened(bank, account, 1))
        return 1

    with listening(bank) as endpoint:
        names = {"deposit": write, "command_id": "c1", "amount": 1, "session": {},
                 "query": lambda sql, account: bank.rows("account")}
        exec(example("python", endpoint), names)
        assert names["fresh"] is True and [row["account_id"] for row in names["row"]] == ["acc-1"]
        assert names["await_write"]("account", "acc-1", 2, timeout_ms=50) is False
    assert names["await_write"]("account", "acc-1", 1, timeout_ms=50) is False


@pytest.mark.thorough
def test_the_node_of_the_docs_waits_for_the_write(bank, tmp_path):
    if not shutil.which("node"):
        pytest.skip("there is no node")
    around = """
        const request = {session: {}}, commandId = "c1", amount = 1;
        const deposit = async () => 1, mysql = {execute: async () => [[]]};
        %s
        console.log(JSON.stringify([fresh, await awaitWrite("account", "acc-1", 2, 50)]));"""
    with listening(bank) as endpoint:
        bank.put(opened(bank, "acc-1", 1))
        (tmp_path / "page.mjs").write_text(around % example("js", endpoint))
        done = subprocess.run(["node", tmp_path / "page.mjs"], capture_output=True, text=True, timeout=60)
        assert (done.stdout, done.stderr) == ("[true,false]\n", "")
