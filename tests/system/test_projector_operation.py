"""Operation: --once, stopping, archive, standby, memory, idling, status, secrets, least privilege."""

from __future__ import annotations

import json
import re
import signal as signals
import time
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest

from bank import FAST, deposited
from bank import opened as opened_with
from workspace import AT_ONCE_S, WAIT_S, Process, bank_projections, decimal

opened = partial(opened_with, balance="0.00")


def applied(ws) -> int:
    return ws.query("SELECT COUNT(*) AS n FROM projector_applied")[0]["n"]


def load(ws, count: int, accounts: int = 100, **payload) -> None:
    ws.put(opened(ws, f"a{n}") for n in range(accounts))
    while count:
        piece = min(count, 5000)
        ws.put(deposited(ws, f"a{n % accounts}", **payload) for n in range(piece))
        count -= piece


def proc_status(process: Process, field: str) -> int:
    return int(re.search(rf"^{field}:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text(), re.M)[1])


def cpu_ticks(process: Process) -> int:
    return sum(map(int, Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))


# ends


def test_once_applies_everything_and_ends(bank):
    load(bank, 3000)
    done = bank.run_once()
    assert bank.outbox.find_one() is None
    assert bank.query("SELECT SUM(balance) AS s FROM account")[0]["s"] == Decimal(3000)
    assert applied(bank) == 3100
    assert "stopped working applied=3100" in done.stderr
    assert done.stdout == ""


def test_once_leaves_what_cannot_be_applied_now_and_ends(bank):
    bank.mapping(**{**FAST, "backoff_ms": 300000}, gap_wait_ms=100)
    first, bad = opened(bank), bank.event("a1", "MoneyDeposited", amount="x")
    bank.put(first, bad, deposited(bank), opened(bank, "a2", version=5))
    bank.run_once()
    assert [e["_id"] for e in bank.outbox.find({"aggregate_id": "a2"})] == []
    assert bank.outbox.count_documents({}) == 2


@pytest.mark.thorough
@pytest.mark.parametrize("signal", ["SIGTERM", "SIGINT"])
def test_a_signal_under_load_ends_in_order_and_soon(bank, signal):
    bank.mapping(batch=50)
    load(bank, 20000)
    for _ in range(5):  # on a busy machine a store may not answer in time
        before = applied(bank)
        with bank.start_projector() as projector:
            bank.wait(lambda: applied(bank) > before + 1000, what="the load to be worked on")
            asked = time.monotonic()
            projector.popen.send_signal(getattr(signals, signal))
            assert projector.popen.wait(WAIT_S) == 0
            assert time.monotonic() - asked < AT_ONCE_S
            assert f"stopping signal={signal}" in projector.log_text()
            if "stopping in mid-batch" not in projector.log_text():
                break
    left = bank.outbox.count_documents({})
    assert 0 < left < 20000  # it was midway
    assert bank.outbox.find_one({"status": {"$in": ["in_progress", "failed"]}}) is None
    assert bank.outbox.find_one({"attempts": {"$gt": 0}}) is None
    assert applied(bank) == 20100 - left  # what was committed was also acknowledged
    assert bank.query("SELECT SUM(balance) AS s FROM account")[0]["s"] == applied(bank) - bank.query(
        "SELECT COUNT(*) AS n FROM account")[0]["n"]


def stopped_while_it_acknowledges(ws, account: str) -> bool:
    """Two events are committed, of which the first cannot leave the outbox
    until the stop has begun. Returns whether there was time."""
    first, second = opened(ws, account), opened(ws, account + "x")
    ws.put(first)
    before = applied(ws)
    with ws.mongo.start_session() as session, session.start_transaction(), ws.start_projector() as projector:
        ws.outbox.with_options(write_concern=None).update_one({"_id": first["_id"]}, {"$set": {"seen": True}}, session=session)
        ws.wait(lambda: applied(ws) == before + 1, what="the first event")
        ws.put(second)
        ws.wait(lambda: applied(ws) == before + 2, what="the second event")
        projector.popen.terminate()
        projector.wait_log("stopping signal")
        ws.wait(lambda: not projector.running or ws.db["projector_claims"].find_one() is None, what="the workers to end")
        session.abort_transaction()
        assert projector.popen.wait(WAIT_S) == 0
        return "stopping in mid-batch" not in projector.log_text()


def test_a_stop_in_order_acknowledges_what_was_committed(bank):
    bank.mapping()
    for n in range(10):  # a busy machine may be too late
        if stopped_while_it_acknowledges(bank, f"a{n}"):
            break
    assert bank.outbox.find_one() is None


def test_a_signal_does_not_wait_for_a_lock_of_somebody_else(bank):
    bank.mapping(**FAST)
    bank.put(opened(bank))
    bank.run_once()
    event = deposited(bank)
    with bank.start_projector() as projector, bank.stores.mysql(bank.name) as lock, lock.cursor() as cursor:
        projector.wait_log("info working")
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM account FOR UPDATE")
        bank.put(event)
        bank.wait_lock_wait()
        asked = time.monotonic()
        assert projector.stop() == 0
        assert time.monotonic() - asked < AT_ONCE_S
        assert "stopping in mid-batch: a store did not answer in time" in projector.log_text()
        cursor.execute("COMMIT")
    with bank.start_projector() as projector:  # the lease is free, and the event is found
        bank.wait_drained()
    assert bank.rows("account")[0]["balance"] == Decimal("1.00")


def test_who_cannot_raise_the_epoch_does_not_keep_the_lease(bank):
    """Somebody holds the fence in MySQL: another projector may be able to continue."""
    bank.mapping(**FAST, lease_ms=600000, mysql={"lock_wait_s": 1})
    bank.run_once()
    with bank.stores.mysql(bank.name) as lock, lock.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM projector_fence FOR UPDATE")
        with bank.start_projector() as projector:
            projector.wait_log("cannot become the owner")
            bank.wait(lambda: bank.db["projector_leases"].find_one()["expires_at"] == datetime(1970, 1, 1), what="a free lease")


def test_once_without_an_outbox_ends(bank):
    bank.mapping(**FAST)
    bank.outbox.drop()
    done = bank.run_once()
    assert "warning" not in done.stderr and "error" not in done.stderr


def test_a_signal_ends_the_wait_for_a_store_and_for_the_lease(bank):
    bank.mapping(**FAST)
    with bank.start_projector() as owner, bank.start_projector() as standby:
        bank.wait(lambda: "standing by" in owner.log_text() + standby.log_text())
        for process in (standby, owner):
            asked = time.monotonic()
            assert process.stop() == 0
            assert time.monotonic() - asked < AT_ONCE_S


@pytest.mark.thorough
def test_once_beside_a_working_projector_says_so_and_ends(bank):
    bank.mapping(**FAST, lease_ms=5000)
    with bank.start_projector() as owner:
        owner.wait_log("info working")
        done = bank.projector("run", "--once")
        assert done.returncode == 1
        assert len(re.findall("standing by: another projector", done.stderr)) == 1
        assert re.fullmatch(r"projector: another projector of this name is working.*", done.stderr.splitlines()[-1])
        owner.kill()
    bank.put(opened(bank))
    bank.run_once()  # a dead owner's lease ends
    assert bank.outbox.find_one() is None


# archive


def test_archive_keeps_the_events_with_the_time_of_application(bank):
    bank.mapping(mongodb={"retain": "archive"}, **FAST)
    before = datetime.now(timezone.utc).replace(tzinfo=None) - timedelta(seconds=1)
    events = [opened(bank), {**deposited(bank, version=2), "metadata": {"tenant": "t"}}]
    events[0]["version"] = 1
    bank.put(events)
    bank.run_once()
    assert bank.outbox.find_one() is None
    archive = bank.db["outbox_archive"]
    for event in events:
        kept = archive.find_one({"_id": event["_id"]})
        assert {k: kept[k] for k in event} == event
        assert not {"status", "claimed_by", "claimed_at", "next_attempt_at", "skipped_at"} & kept.keys()
        assert before < kept["applied_at"] < before + timedelta(seconds=60)
    bank.put(events)  # sent again: neither applied nor archived a second time
    without_number = {"seq": False}  # assigned by a separate thread, in its own time
    kept = list(archive.find(projection=without_number).sort("_id"))
    bank.run_once()
    assert bank.outbox.find_one() is None and list(archive.find(projection=without_number).sort("_id")) == kept
    assert bank.rows("account")[0]["balance"] == Decimal("1.00")


# owners


@pytest.mark.thorough
def test_a_standby_takes_over_at_once_when_asked_and_within_the_lease_after_a_kill(bank):
    bank.mapping(**FAST, lease_ms=3000 * AT_ONCE_S)  # lasts longer than what is allowed to it below
    with bank.start_projector() as first:
        first.wait_log("info working")
        with bank.start_projector() as second, bank.start_projector() as third:
            second.wait_log("standing by")
            third.wait_log("standing by")
            assert first.stop() == 0
            owner = bank.wait(lambda: next((p for p in (second, third) if "info working" in p.log_text()), None), 2 * AT_ONCE_S, "a new owner")
            other = third if owner is second else second
            owner.kill()
            other.wait_log("info working")
            bank.put(opened(bank))
            bank.wait_drained()
    epoch = bank.query("SELECT epoch FROM projector_fence")
    assert epoch == [{"epoch": 3}]


@pytest.mark.thorough
def test_a_frozen_owner_that_wakes_up_writes_nothing(bank):
    bank.mapping(**FAST, batch=10, lease_ms=4000)
    load(bank, 3000)
    with bank.start_projector() as frozen:
        bank.wait(lambda: applied(bank) > 200, what="some events")
        frozen.pause()
        with bank.start_projector() as other:
            other.wait_log("info working")
            bank.wait_drained()
            before = bank.rows("account")
            frozen.resume()
            frozen.wait_log("the tenure ended class=fenced")
            assert bank.rows("account") == before
            bank.put(deposited(bank))
            bank.wait_drained()
    assert bank.query("SELECT SUM(balance) AS s FROM account")[0]["s"] == Decimal(3001)
    assert applied(bank) == 3101


def test_projectors_of_other_names_do_not_disturb_each_other(bank):
    """Each has its own ledger and positions; both would take events out of one outbox, so the second has its own."""
    bank.mapping(**FAST)
    bank.db["outbox2"].insert_one({**opened(bank, "b1")})
    bank.put(opened(bank, "a1"))
    with bank.start_projector() as first:
        first.wait_log("info working")
        bank.mapping(name="other", mongodb={"outbox": "outbox2"}, **FAST)
        with bank.start_projector() as second:
            second.wait_log("info working")
            bank.wait(lambda: len(bank.rows("account")) == 2)
    assert {r["projector"] for r in bank.query("SELECT projector FROM projector_applied")} == {bank.name, "other"}


# bounds


@pytest.mark.thorough
def test_memory_stays_within_its_bound_with_a_large_backlog(bank):
    bank.mapping(memory_mb=64)
    load(bank, 30_000, accounts=1000, filler="x" * 3000)  # 90 MB and more
    with bank.start_projector() as projector:
        bank.wait_drained(4 * WAIT_S)
        peak_kb = proc_status(projector, "VmHWM")
        assert projector.stop() == 0
    assert bank.query("SELECT SUM(balance) AS s FROM account")[0]["s"] == Decimal(30_000)
    assert peak_kb < 64 * 1024, f"{peak_kb} kB"


@pytest.mark.thorough
@pytest.mark.parametrize("size, count, most_mb", [(4_000_000, 60, 160), (15_000_000, 4, 64 + 5 * 15)], ids=["4 MB", "15 MB"])
def test_memory_with_large_events_is_what_the_manual_says(ws, size, count, most_mb):
    ws.mapping([{"aggregate_type": "account", "table": "letter", "key": {"id": {"from": "$aggregate_id", "type": "varchar(40)"}},
                 "columns": {"content": {"from": "content", "type": "longtext"}}, "events": {"Written": {"op": "upsert"}}}], memory_mb=64)
    ws.create()
    with ws.start_projector() as projector:
        for i in range(count):
            ws.put(ws.event(f"l{i}", "Written", content="x" * size))
        ws.wait_drained(2 * WAIT_S)
        peak_kb = proc_status(projector, "VmHWM")
    assert peak_kb < most_mb * 1024, f"{peak_kb} kB"


@pytest.mark.thorough
def test_many_blocked_events_cost_no_memory(bank):
    bank.mapping(**{**FAST, "backoff_ms": 300000}, memory_mb=64)
    bad = bank.event("a1", "MoneyDeposited", amount="x")
    with bank.start_projector() as projector:
        bank.put(bad)
        bank.wait_status(bad, "failed")
        for _ in range(6):
            bank.put(bank.event("a1", "StatementSent", filler="x" * 2000) for _ in range(5000))
        other = opened(bank, "a2")
        bank.put(other)
        bank.wait_gone(other)
        assert proc_status(projector, "VmHWM") < 64 * 1024
        bank.outbox.delete_one({"_id": bad["_id"]})
        bank.wait_drained(2 * WAIT_S)
        assert proc_status(projector, "VmHWM") < 64 * 1024
    assert applied(bank) == 30001


def test_a_connection_string_that_allows_few_connections_is_enough(bank):
    bank.mapping(**FAST, workers=8, mongodb={"uri": bank.stores.mongo_uri + "&maxPoolSize=1&minPoolSize=1"})
    load(bank, 500)
    bank.run_once()
    assert bank.outbox.find_one() is None and applied(bank) == 600
    assert bank.projector("status").returncode == 0


def test_a_short_command_ends_at_once_when_it_has_its_answer(bank):
    def seconds(command: str) -> float:
        started = time.monotonic()
        assert bank.projector(command).returncode == 0
        return time.monotonic() - started

    usual = []
    for _ in range(20):
        usual.append(seconds("schema"))  # without a store
        if seconds("status") < 0.5:  # closing a pool takes half a second
            return
    if sorted(usual)[len(usual) // 2] > 0.1:
        pytest.skip("the machine is too busy to tell")
    raise AssertionError("no quick answer")


def test_a_killed_projector_leaves_nothing_in_shared_memory(bank, monkeypatch):
    monkeypatch.delenv("MONGOC_DISABLE_SHM")
    with bank.start_projector() as projector:
        projector.wait_log("info working")
        assert not Path(f"/dev/shm/mongoc-{projector.pid}").exists()


@pytest.mark.whole_server
def test_an_idle_projector_asks_once_a_second_and_uses_no_cpu(bank):
    with bank.start_projector() as projector:
        projector.wait_log("info working")
        def get_mores() -> int:
            return bank.mongo.admin.command("serverStatus")["metrics"]["commands"]["getMore"]["total"]
        other_clients = bank.mongo.admin.command({"currentOp": 1, "$all": True, "command.getMore": {"$exists": True},
                                                  "appName": {"$ne": "projector"}})["inprog"]
        assert other_clients == []

        def is_idle() -> bool:
            first, started, ticks = get_mores(), time.monotonic(), cpu_ticks(projector)
            bank.wait(lambda: get_mores() >= first + 4, what="four getMores")
            seconds, used = time.monotonic() - started, cpu_ticks(projector) - ticks
            assert seconds > 2.5
            return used / 100 / seconds < 0.02
        bank.wait(is_idle, what="next to no processor time")  # the first seconds are those of the start


# status


def test_status_tells_states_lag_and_owner(bank):
    bank.mapping(**{**FAST, "backoff_ms": 300000})
    def status() -> tuple[int, dict]:
        done = bank.projector("status", "--json")
        return done.returncode, json.loads(done.stdout)
    code, empty = status()
    assert code == 0 and empty["projector"]["state"] == "stopped"
    assert empty["outbox"] == {"pending": 0, "in_progress": 0, "failed": 0, "dead": 0, "future": 0, "oldest_occurred_at": None}
    long_ago = datetime.now(timezone.utc).replace(tzinfo=None) - timedelta(hours=1)
    first, bad = opened(bank, at=long_ago), bank.event("a1", "MoneyDeposited", at=long_ago + timedelta(seconds=1), amount="x")
    bank.put(first, bad, deposited(bank))
    code, waiting = status()
    assert code == 1 and waiting["outbox"]["pending"] == 3
    assert 3600_000 <= waiting["lag_ms"] < 3700_000
    with bank.start_projector() as projector:
        bank.wait_status(bad, "failed")
        # Status reads with majority, which an acknowledgement does not wait for.
        bank.wait(lambda: status()[1]["outbox"]["pending"] == 1, what="the first to be acknowledged")
        code, failing = status()
        assert code == 1
        assert failing["projector"]["state"] == "running" and f":{projector.pid}" in failing["projector"]["owner"]
        assert (failing["outbox"]["failed"], failing["outbox"]["pending"], failing["blocked_aggregates"]) == (1, 1, 1)
        assert failing["mongodb"]["reachable"] and failing["mysql"]["reachable"]
        bank.wait(lambda: re.search(r"^outbox +1 pending, 0 in progress, 1 failed, 0 dead$", bank.projector("status").stdout, re.M),
                  what="the first event's end, as a majority sees it")
        bank.outbox.delete_one({"_id": bad["_id"]})
        bank.wait_drained()
        assert status()[0] == 0


# secrets


def test_no_password_leaves_the_process(bank, tmp_path):
    secret = "s3cr3t-'\\\"passwörd"
    user = f"u{bank.name[2:12]}"
    bank.query(f"CREATE USER {user}@'127.0.0.1' IDENTIFIED BY %s", secret)
    try:
        bank.query(f"GRANT ALL ON {bank.name}.* TO {user}@'127.0.0.1'")
        file = tmp_path / "password"
        file.write_text(secret + "\n")
        file.chmod(0o600)
        told = ""
        for options in ({"password": secret}, {"password_file": str(file)}, {"password": "${BANK_SECRET}"}):
            bank.environment["BANK_SECRET"] = secret
            path = bank.mapping(**FAST)
            content = json.loads(path.read_text())
            content["mysql"] = {**{k: v for k, v in content["mysql"].items() if k != "password"}, "user": user, **options}
            path.write_text(json.dumps(content))
            with bank.start_projector("--debug") as projector:
                event = opened(bank, f"a{len(told)}")
                bank.put(event)
                bank.wait_gone(event)
                told += Path(f"/proc/{projector.pid}/cmdline").read_text()
                assert projector.stop() == 0
                told += projector.log_text()
            for command in [["status"], ["status", "--json"], ["check"], ["schema"]] if "password_file" in options else []:
                done = bank.projector(*command)
                assert done.returncode == 0, done.stderr
                told += done.stdout + done.stderr
        content["mysql"]["password"] = "wr0ng-" + secret
        path.write_text(json.dumps(content))
        done = bank.projector("run")
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        told += done.stderr
    finally:
        bank.query(f"DROP USER {user}@'127.0.0.1'")
    assert "s3cr3t" not in told and "wr0ng" not in told


def test_a_password_in_the_mongodb_uri_is_not_told(bank):
    uri = bank.stores.mongo_uri.replace("mongodb://", "mongodb://someone:s3cr3t@")
    bank.mapping(mongodb={"uri": uri})
    for command in (["run"], ["status"], ["status", "--json"], ["check"]):
        done = bank.projector(*command)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "s3cr3t" not in done.stdout + done.stderr
        assert "uthentication failed" in done.stdout + done.stderr


def test_values_that_mysql_quotes_are_not_logged(bank):
    """A second unique key, a wrong text for a statement's number: the
    event records the whole reason, the log does not."""
    bank.query("ALTER TABLE account ADD UNIQUE KEY by_user (user_id)")
    [projection] = bank_projections()
    projection["allow_unique_keys"] = True
    projection["events"]["AccountFrozen"]["statement"] = "INSERT INTO account (account_id, user_id, name, balance, updated_at) VALUES (:a, :b, 'n', :c, NOW(3))"
    bank.mapping([projection], **{**FAST, "backoff_ms": 300000})
    def frozen(account: str, a: str, b: str, c: str) -> dict:
        return bank.event(account, "AccountFrozen", a=a, b=b, c=c)
    twice, wrong = frozen("x", "x1", "s3cr3t-user", "1"), frozen("y", "y1", "other", "s3cr3t-number")
    bank.put(frozen("w", "w1", "s3cr3t-user", "1"))
    bank.run_once()
    bank.put(twice, wrong)
    told = bank.run_once().stderr
    assert "s3cr3t" not in told
    assert re.search(r"code=1062 reason=\"Duplicate entry … for key '(account\.)?by_user'\"", told), told
    assert re.search(r"code=1366 reason=\"Incorrect decimal value: … for column", told), told
    assert "s3cr3t-user" in bank.found(twice)["last_error"]["message"]
    assert "s3cr3t-number" in bank.found(wrong)["last_error"]["message"]
    assert "s3cr3t-user" in bank.projector("list").stdout
    bank.outbox.update_many({}, {"$set": {"status": "pending"}})
    assert "s3cr3t-user" in bank.projector("run", "--once", "--debug").stderr


def test_what_comes_from_outside_cannot_steer_a_terminal(bank):
    steer = "\x1b]0;owned\x07\x9b2J\x7fä"
    bank.put({**bank.event(f"a{steer}", f"No{steer}"), "_id": f"e{steer}"})
    bank.run_once()
    shown = bank.projector("list").stdout
    clean = r"\x1b]0;owned\x07\x9b2J\x7fä"
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown), shown
    assert all(f"{first}{clean}" in shown for first in ("e", "a", "No")), shown
    bank.outbox.update_one({}, {"$set": {"last_error.class": steer, "last_error.message": steer}})
    assert f"{clean}: {clean}" in bank.projector("list").stdout
    bank.mapping(name=f"x{steer}")
    assert r"\x1b]0;owned\x07\x9b2J" in bank.projector("run").stderr and "\x1b" not in bank.projector("run").stderr


def test_json_logs_are_json(bank):
    bank.mapping(**FAST, log="json")
    with bank.start_projector() as projector, bank.start_projector() as standby:
        bank.wait(lambda: "standing by" in projector.log_text() + standby.log_text())
        first, bad = opened(bank), bank.event("a1", "MoneyDeposited", amount="x\ny")
        bank.put(first, bad)
        bank.wait_status(bad, "failed")
        assert (projector.stop(), standby.stop()) == (0, 0)
    lines = [json.loads(line) for p in (projector, standby) for line in p.log_text().splitlines()]
    assert all(line["level"] in ("info", "warning", "error") and line["time"].endswith("Z") for line in lines)
    assert {"working", "standing by: another projector of this name is working", "event failed", "stopping"} <= {l["message"] for l in lines}
