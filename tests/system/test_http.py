"""The HTTP endpoint: metrics, health, status, actions, and what hostile clients can do."""

from __future__ import annotations

import json
import re
import resource
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Iterator

import pytest

from bank import impossible, opened
from endpoint import TOKEN, Endpoint
from entities import account
from mysqld import Mysqld
from server import free_port
from workspace import AT_ONCE_S, ROOT, WAIT_S, Process, Stores, Workspace, decimal

LISTENING = {"http": "127.0.0.1:0", "backoff_ms": 20, "sweep_interval_ms": 200}


def test_the_kernel_probes_a_client_that_says_nothing(bank):
    """A follower whose host vanished without a word would keep its place for ever."""
    bank.mapping(**LISTENING)
    with bank.start_projector() as process:
        port = int(Endpoint(process).url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as client:
            addresses = f"0100007F:{port:04X} 0100007F:{client.getsockname()[1]:04X} 01"
            timer = re.search(rf"{addresses} \S+ (\d\d):([0-9A-F]+)", Path("/proc/net/tcp").read_text())
            assert timer[1] == "02" and int(timer[2], 16) <= 60 * 100  # keepalive; jiffies of 10 ms


def with_token(ws: Workspace, **overrides) -> None:
    """A mapping with actions enabled."""
    file = ws.folder / "token"
    file.touch(mode=0o600)
    file.write_text(TOKEN + "\n")
    ws.mapping(**{**LISTENING, "admin_token_file": str(file), **overrides})


@contextmanager
def listening(ws: Workspace, role: str = "working") -> Iterator[tuple[Process, Endpoint]]:
    with ws.start_projector() as process:
        endpoint = Endpoint(process)
        ws.wait(lambda: endpoint.get("/readyz").text == f"ready: {role}\n", what=f"readiness: {role}")
        yield process, endpoint


# Metrics

def test_metrics_count_what_was_applied_by_projection(bank, promtool):
    bank.mapping(**LISTENING, permanent="dead")
    bank.put([opened(bank, f"a{i}") for i in range(20)], impossible(bank, "a1"), bank.event("a2", "StatementSent"))
    with listening(bank) as (_, endpoint):
        bank.wait(lambda: endpoint.metrics()["projector_events_committed_total"] == 21, what="21 events")
        bank.wait(lambda: endpoint.metrics()['projector_outbox_events{state="dead"}'] == 1, what="a dead event")
        bank.wait(lambda: endpoint.metrics()["projector_blocked_aggregates"] == 1, what="the aggregate behind it")  # counted later
        metrics = endpoint.metrics()
        checked = subprocess.run([promtool, "check", "metrics"], input=endpoint.get("/metrics").text,
                                 capture_output=True, text=True)
    assert metrics['projector_events_applied_total{projection="account"}'] == 20
    assert metrics['projector_events_ignored_total{projection="account"}'] == 1
    assert metrics['projector_events_failed_total{projection="account"}'] == 1
    assert metrics['projector_events_dead_total{projection="account"}'] == 1
    assert metrics["projector_lag_seconds_count"] == 21
    assert metrics['projector_lag_seconds_bucket{le="+Inf"}'] == 21
    assert metrics["projector_batch_events_sum"] == 21
    assert metrics["projector_lease_held"] == 1 and metrics["projector_epoch"] >= 1
    assert metrics['projector_store_up{store="mysql"}'] == metrics['projector_store_up{store="mongodb"}'] == 1
    assert 0 <= time.time() - metrics["process_start_time_seconds"] < 600
    assert metrics["process_resident_memory_bytes"] > 1e6 and metrics["process_open_fds"] > 5
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_the_rows_of_the_ledger_are_those_of_now(bank):
    """MySQL 8 gives whoever asks an estimate that may be of yesterday."""
    bank.query("SELECT TABLE_ROWS FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s", bank.name)
    bank.query("INSERT INTO projector_applied (projector, event_id_kind, event_id, outcome) VALUES " + ",".join(
        f"('another', 'int', '{n}', 'applied')" for n in range(1000)))
    bank.mapping(**LISTENING)
    with listening(bank) as (_, endpoint):
        bank.wait(lambda: endpoint.metrics()["projector_ledger_rows"] > 500, what="the rows of now")


def test_a_bucket_holds_what_equals_its_bound(bank):
    bank.mapping(**LISTENING)
    bank.put(opened(bank, "a1"))
    with listening(bank) as (_, endpoint):
        bank.wait(lambda: endpoint.metrics()["projector_events_committed_total"] == 1, what="the event")
        metrics = endpoint.metrics()
    assert metrics["projector_batch_events_sum"] == metrics['projector_batch_events_bucket{le="1"}'] == 1


def test_every_metric_is_explained_and_the_alert_rules_are_valid(bank, promtool):
    bank.mapping(**LISTENING, mongodb={"retain": "archive", "feeds": ["outbox_search"]})
    assert bank.outbox_program("init", "--archive", "--feed", "outbox_search").returncode == 0
    bank.db["projector_leases"].insert_many([
        {"_id": "source", "copies_to": ["outbox"], "lag_ms": 6000, "expires_at": datetime(2200, 1, 1)},
        {"_id": "reader", "lag_ms": 7000, "expires_at": datetime(2200, 1, 1)}, {"_id": "outbox:outbox_search", "projector": "reader"}])
    with listening(bank) as (_, endpoint):
        lags = {'projector_source_lag_seconds{source="source"}': 6, 'projector_feed_lag_seconds{feed="outbox_search"}': 7}
        bank.wait(lambda: lags.items() <= endpoint.metrics().items(), what="the lags, in seconds")
        named = set(re.findall(r"^# TYPE (\S+)", endpoint.get("/metrics").text, re.MULTILINE))
    operations = (ROOT / "docs/operations.md").read_text()
    assert [name for name in sorted(named) if f"`{name}`" not in operations] == []
    rules = ROOT / "docs/alerts.yaml"
    checked = subprocess.run([promtool, "check", "rules", str(rules)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    used = set(re.findall(r"\b(?:projector|process)_[a-z_]+", " ".join(re.findall(r"expr: (.*)", rules.read_text()))))
    assert used and {re.sub("_(bucket|sum|count)$", "", name) for name in used} <= named


OWNER, STANDBY = 'job="projector", instance="a"', 'job="projector", instance="b"'
HEALTHY = {f"{name}{{{labels}}}": "0x80" for labels in (OWNER, STANDBY) for name in (
    "projector_waiting_seconds", "projector_future_aggregates", "projector_blocked_aggregates", "projector_workers_waiting",
    "projector_change_stream_restarts_total", "projector_numbering_lag_seconds")} | {f"{name}{{{labels}{more}}}": values for labels in (OWNER, STANDBY) for name, more, values in (
        ("up", "", "1x80"), ("projector_info", ', name="bank"', "1x80"), ("projector_feed_reader_running", ', feed="outbox_search"', "1x80"), ("projector_source_running", ', source="bank"', "1x80"), ("projector_last_look_age_seconds", "", "1x80"),
        *((name, f', store="{store}"', "1x80") for name in ("projector_store_up", "projector_store_usable") for store in ("mysql", "mongodb")),
        *(("projector_outbox_events", f', state="{state}"', "0x80") for state in ("dead", "failed")))} | {
    f"projector_lease_held{{{OWNER}}}": "1x80", f"projector_lease_held{{{STANDBY}}}": "0x80",
    f'projector_lag_seconds_bucket{{{OWNER}, le="1"}}': "0+100x80", f'projector_lag_seconds_bucket{{{OWNER}, le="10"}}': "0+100x80",
    f'projector_lag_seconds_bucket{{{OWNER}, le="+Inf"}}': "0+100x80",
    f'projector_retries_total{{{OWNER}, class="conflict"}}': "0+1x80",
    f'projector_events_late_total{{{OWNER}, projection="account"}}': "0+1x80"}


@pytest.mark.thorough(beyond=4)
@pytest.mark.parametrize("alert, ill", {
    "": {},
    "ProjectorNobodyWorks": {f"projector_lease_held{{{OWNER}}}": "0x80"},
    "ProjectorDown": {f"up{{{STANDBY}}}": "0x80"},
    "ProjectorLag": {f"projector_waiting_seconds{{{OWNER}}}": "0+30x80"},
    "ProjectorSlow": {f'projector_lag_seconds_bucket{{{OWNER}, le="1"}}': "0+50x80"},
    "ProjectorClock": {f"projector_future_aggregates{{{OWNER}}}": "10x80"},
    "ProjectorDeadEvents": {f'projector_outbox_events{{{OWNER}, state="dead"}}': "1x80"},
    "ProjectorFailedEvents": {f'projector_outbox_events{{{OWNER}, state="failed"}}': "1x80"},
    "ProjectorBlockedAggregates": {f"projector_blocked_aggregates{{{OWNER}}}": "1001x80"},
    "ProjectorStoreAway": {f'projector_store_{what}{{{OWNER}, store="mysql"}}': "0x80" for what in ("up", "usable")},
    "ProjectorStoreRefuses": {f'projector_store_usable{{{OWNER}, store="mysql"}}': "0x80"},
    "ProjectorCircuitOpen": {f"projector_workers_waiting{{{OWNER}}}": "2x80"},
    "ProjectorConflicts": {f'projector_retries_total{{{OWNER}, class="conflict"}}': "0+60x80"},
    "ProjectorLateEvents": {f'projector_events_late_total{{{OWNER}, projection="account"}}': "0+60x80"},
    "ProjectorChangeStreamRestarts": {f"projector_change_stream_restarts_total{{{OWNER}}}": "0+1x80"},
    "ProjectorFeedUnread": {f'projector_feed_reader_running{{{labels}, feed="outbox_search"}}': "0x80" for labels in (OWNER, STANDBY)},
    "ProjectorSourceDown": {f'projector_source_running{{{labels}, source="bank"}}': "0x80" for labels in (OWNER, STANDBY)},
    "ProjectorNumbering": {f"projector_numbering_lag_seconds{{{OWNER}}}": "0+30x80"},
    "ProjectorNotLooking": {f"projector_last_look_age_seconds{{{OWNER}}}": "0+30x80"},
}.items())
def test_each_alert_fires_at_what_it_names_and_none_while_all_is_well(promtool, tmp_path, alert, ill):
    """Prometheus evaluates the rules over 40 minutes."""
    assert ill.keys() <= HEALTHY.keys()
    fires = [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if alert else []
    (tmp_path / "alerts.json").write_text(json.dumps({
        "rule_files": [str(ROOT / "docs/alerts.yaml")],
        "tests": [{"interval": "30s", "input_series": [{"series": name, "values": values} for name, values in (HEALTHY | ill).items()],
                   "promql_expr_test": [{"expr": 'count by (alertname) (ALERTS{alertstate="firing"})', "eval_time": "40m", "exp_samples": fires}]}]}))
    done = subprocess.run([promtool, "test", "rules", str(tmp_path / "alerts.json")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_its_test():
    [rules] = [mark for mark in test_each_alert_fires_at_what_it_names_and_none_while_all_is_well.pytestmark if mark.name == "parametrize"]
    assert {name for name, _ in rules.args[1]} - {""} == set(re.findall(r"- alert: (\w+)", (ROOT / "docs/alerts.yaml").read_text()))


def test_late_events_and_gaps_are_counted(bank):
    bank.mapping(**LISTENING, gap_wait_ms=10)
    early = opened(bank, "a1")
    with listening(bank) as (_, endpoint):
        bank.put(opened(bank, "a1"))
        bank.wait_drained()
        bank.put(early, opened(bank, "a2", version=5))
        bank.wait_drained()
        metrics = bank.wait(lambda: (m := endpoint.metrics())["projector_events_committed_total"] == 3 and m)
    assert metrics['projector_events_late_total{projection="account"}'] == 1
    assert metrics['projector_events_superseded_total{projection="account"}'] == 1
    assert metrics['projector_gaps_total{projection="account"}'] >= 1


# Health and status

def test_owner_and_standby_are_ready_and_say_which_they_are(bank):
    bank.mapping(**LISTENING)
    with listening(bank) as (_, owner), listening(bank, "standing by") as (_, standby):
        assert owner.get("/healthz").text == standby.get("/healthz").text == "alive\n"
        assert owner.metrics()["projector_lease_held"] == 1
        assert standby.metrics()["projector_lease_held"] == 0


def test_status_is_that_of_the_command(bank):
    bank.mapping(**LISTENING, permanent="dead")
    bank.put(opened(bank, "a1"), dead := impossible(bank, "a1"))
    with listening(bank) as (_, endpoint):
        bank.wait_status(dead, "dead")
        answer = bank.wait(lambda: (a := endpoint.get("/status")).json["outbox"]["dead"] == a.json["blocked_aggregates"] == 1 and a)
        command = json.loads(bank.projector("status", "--json").stdout)
    assert answer.headers["Content-Type"] == "application/json"
    over_http = answer.json
    for status in (over_http, command):  # what changed meanwhile
        assert status.pop("lag_ms") >= 0 and status.pop("oldest_age_ms") >= 0 and status["projector"].pop("lease_expires_in_ms") > 0
    assert over_http == command


def test_without_mysql_it_is_alive_and_not_ready_until_it_is_back(stores, server_folder, tmp_path):
    with Mysqld(server_folder / "mysqld") as mysql, \
            Workspace(Stores(stores.mongo_uri, mysql.port), tmp_path) as ws:
        ws.create()
        ws.mapping(**LISTENING)
        with listening(ws) as (process, endpoint):
            mysql.stop()
            ws.put(event := opened(ws, "a1"))
            ws.wait(lambda: (a := endpoint.get("/readyz")).status == 503 and "MySQL cannot be reached" in a.text, what="it to say no")
            assert endpoint.get("/healthz").status == 200
            ws.wait(lambda: endpoint.metrics()["projector_workers_waiting"] > 0, what="the open circuit")
            ws.wait(lambda: endpoint.metrics()['projector_retries_total{class="unavailable"}'] > 0, what="a retry")
            metrics = endpoint.metrics()
            assert metrics['projector_store_up{store="mysql"}'] == 0
            assert metrics['projector_store_up{store="mongodb"}'] == 1
            mysql.start()
            ws.wait_gone(event)
            ws.wait(lambda: endpoint.get("/readyz").status == 200, what="readiness")
            ws.wait(lambda: endpoint.metrics()["projector_workers_waiting"] == 0, what="the closed circuit")
            mysql.pause()
            try:
                ws.outbox.insert_one(opened(ws, "a2"))
                ws.wait(lambda: endpoint.metrics()["projector_in_hand_events"] > 0, what="a transaction that hangs")
                asked = time.monotonic()
                assert process.stop() == 0 and time.monotonic() - asked < AT_ONCE_S
            finally:
                mysql.resume()


def test_lag_above_the_limit_is_not_ready(bank):
    bank.mapping(**LISTENING, permanent="dead", ready_lag_ms=1500)
    with listening(bank) as (_, endpoint):
        bank.put(impossible(bank, "a1"), opened(bank, "a1"))
        answer = bank.wait(lambda: (a := endpoint.get("/readyz")).status == 503 and a, what="it to say no")
    assert re.fullmatch(r"not ready: The oldest event has waited [\d.]+ s, more than ready_lag_ms, which is 1.5 s\n", answer.text)


def test_sigusr1_tells_the_status_and_sighup_does_nothing(bank):
    bank.mapping(**LISTENING)
    with listening(bank) as (process, endpoint):
        process.popen.send_signal(signal.SIGHUP)
        process.popen.send_signal(signal.SIGUSR1)
        line = process.wait_log(r"info status name=(\S+) state=(\S+) owner=\S+ pending=0 .* mysql=")
        assert (line[1], line[2]) == (bank.name, "running")
        assert endpoint.get("/readyz").text == "ready: working\n"
        assert process.stop() == 0


def test_sigusr1_works_without_http(bank):
    bank.mapping(http="")
    with bank.start_projector() as process:
        process.wait_log("info working")
        assert "HTTP" not in process.log_text()
        process.popen.send_signal(signal.SIGUSR1)
        process.wait_log(r"info status name=\S+ state=running")
        assert process.stop() == 0


# Start

def refusal(ws: Workspace, **overrides) -> str:
    ws.mapping(**overrides)
    with ws.start_projector() as process:
        assert process.popen.wait(WAIT_S) == 2
    lines = process.log_text().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_a_port_in_use_is_one_clear_error(bank):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert refusal(bank, http=address) == (f"projector: http: {address}: the port is in use; name another one, "
                                               "port 0 for any that is free, or \"\" for none")


def test_a_second_projector_on_the_default_port_works_without(bank):
    """Nobody asked for the port; if it is in use, that must not prevent a standby from starting."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def take() -> bool:
            try:
                taken.bind(("127.0.0.1", 9464))
                taken.listen()
                return True
            except OSError:
                return False
        with suppress(TimeoutError):  # another one keeps it: just as good
            bank.wait(take, 20, "the port of a test beside this one")
        bank.mapping(http=None)
        bank.put(opened(bank, "a1"))
        with bank.start_projector() as projector:
            projector.wait_log("no HTTP: set")
            bank.wait_drained()
            assert projector.stop() == 0


@pytest.mark.parametrize("address", ["9464", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "::1:9464", ":80", "127.0.0.1:x"])
def test_an_address_that_is_none_is_refused(bank, address):
    said = refusal(bank, http=address)
    assert said == f'projector: {bank.file}: http: expected HOST:PORT, as in 127.0.0.1:9464, or "" for none, found "{address}"'
    assert bank.projector("check").returncode == 2


def test_a_short_token_is_refused(bank):
    file = bank.folder / "token"
    file.touch(mode=0o600)
    file.write_text("secret\n")
    assert refusal(bank, admin_token_file=str(file)).endswith("admin_token_file: expected a token of at least 16 characters")


def test_a_given_port_is_taken_and_once_needs_none(bank):
    port = free_port()
    bank.mapping(**{**LISTENING, "http": f"127.0.0.1:{port}"})
    with listening(bank) as (process, endpoint):
        assert endpoint.port == port
        process.stop()
        bank.run_once()


# Actions

def test_actions_are_off_without_a_token_file(bank):
    bank.mapping(**LISTENING)
    with listening(bank) as (_, endpoint):
        answer = endpoint.act("retry", {"event_id": "x"})
    assert (answer.status, answer.text) == (403, "actions are off: name a file in admin_token_file\n")


def test_actions_want_the_token_from_the_page_itself(bank):
    with_token(bank, permanent="dead")
    bank.put(dead := impossible(bank, "a1"))
    with listening(bank) as (_, endpoint):
        bank.wait_status(dead, "dead")
        target = {"event_id": str(dead["_id"])}
        assert endpoint.act("skip", target, token=None).status == 401
        assert endpoint.act("skip", target, token="another token that is wrong").status == 401
        assert endpoint.act("skip", target, token=TOKEN + TOKEN).status == 401
        assert endpoint.act("skip", target, Origin="http://elsewhere.example").status == 403
        for site in ("cross-site", "same-site"):  # a sibling, as wiki.example.com of projector.example.com
            assert endpoint.act("skip", target, Sec_Fetch_Site=site).status == 403, site
        assert endpoint.act("skip", target, Content_Type="text/plain").status == 415
        assert "frame-ancestors 'none'" in endpoint.get("/").headers["Content-Security-Policy"]  # whose clicks these would be
        assert endpoint.get("/skip").status == 405
        for body in (b"", b"{", [], {}, {"event_id": 5}, {"event_id": "x", "more": "y"}, {"aggregate_type": "account"}):
            assert endpoint.act("skip", body).status == 400, body
        assert endpoint.act("refresh", target).status == 400
        assert bank.found(dead)["status"] == "dead"
        assert endpoint.act("skip", target, Origin=endpoint.url, Sec_Fetch_Site="same-origin").json == {"count": 1}
        assert endpoint.act("skip", target).status == 404
    assert bank.found(dead) is None
    assert bank.ledger() == {str(dead["_id"]): "skipped"}


def test_a_whole_kind_of_events_is_retried_but_not_skipped(bank):
    with_token(bank, permanent="dead")
    bank.put(dead := impossible(bank, "a1"))
    with listening(bank) as (_, endpoint):
        error = bank.wait_status(dead, "dead")["last_error"]
        kind = {"state": "dead", "event_type": dead["event_type"], "class": error["class"], "reason": error["message"]}
        assert endpoint.act("skip", kind).status == 400
        assert bank.found(dead)["status"] == "dead"
        assert endpoint.act("retry", kind).json == {"count": 1}


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("part", [TOKEN[:-1], TOKEN[:8], TOKEN[0], "", TOKEN + "x", TOKEN[1:], TOKEN.upper(), "\t" + TOKEN])
def test_no_part_of_the_token_opens_the_actions(bank, part):
    with_token(bank)
    with listening(bank) as (_, endpoint):
        assert endpoint.act("retry", {"event_id": "x"}, Authorization=f"Bearer {part}").status == 401
        assert endpoint.act("retry", {"event_id": "x"}, Authorization=part).status == 401
        assert endpoint.act("retry", {"event_id": "x"}).status == 404  # with the complete token: no such event


def test_a_dead_event_is_retried_and_an_aggregate_refreshed(bank):
    with_token(bank, permanent="dead", lease_ms=2000)
    bank.accounts.insert_one({"_id": "a2", "user_id": "u2", "name": "Grace", "balance": decimal("7.00"), "version": 3,
                              "last_event_at": datetime.now(timezone.utc)})
    bank.put(opened(bank, "a1"), dead := impossible(bank, "a1"), stale := {**impossible(bank, "a2"), "version": 3})
    with listening(bank) as (_, endpoint):
        bank.wait_status(dead, "dead")
        bank.wait_status(stale, "dead")
        bank.outbox.update_one({"_id": dead["_id"]}, {"$set": {"payload.amount": decimal("2.00")}})
        assert endpoint.act("retry", {"aggregate_type": "account", "aggregate_id": "a1"}).json == {"count": 1}
        assert endpoint.act("refresh", {"aggregate_type": "account", "aggregate_id": "a2"}).json == {"version": 3, "left": 0}
        assert endpoint.act("refresh", {"aggregate_type": "account", "aggregate_id": "nobody"}).status == 404
        bank.wait_drained()
    assert {row["account_id"]: str(row["balance"]) for row in bank.rows("account")} == {"a1": "102.00", "a2": "7.00"}


def test_what_is_decided_over_http_can_be_seen_before_and_says_who_did_it(bank):
    with_token(bank, permanent="dead", lease_ms=2000)
    bank.put(dead := impossible(bank, "a1"), long := bank.event("a1", "AccountRenamed", name="x" * 65536))
    with listening(bank) as (process, endpoint):
        bank.wait_status(dead, "dead")
        target = {"event_id": str(dead["_id"])}
        assert endpoint.act("show", target, token=None).status == 401
        shown = endpoint.act("show", target).json
        assert (shown["event_id"], shown["state"], shown["cut"]) == (target["event_id"], "dead", False)
        assert json.loads(shown["payload"]) == {"amount": "much"}
        part = endpoint.act("show", {"event_id": str(long["_id"])}).json
        assert (len(part["payload"]), part["cut"]) == (65536, True)
        assert endpoint.act("show", {"event_id": "nothing"}).status == 404
        assert endpoint.act("show", {"aggregate_type": "account", "aggregate_id": "a1"}).status == 400
        kind = {"state": "dead", "event_type": "MoneyDeposited", "class": "data", "reason": shown["reason"]["message"]}
        assert endpoint.act("skip", kind).status == 400
        assert endpoint.act("retry", {**kind, "reason": "another"}).status == 404
        assert endpoint.act("retry", {**kind, "state": "pending"}).status == 400
        (live,) = bank.wait(lambda: endpoint.get("/live").json["kinds"], what="the kind")
        assert live == {**kind, "count": 1, "example": target["event_id"], "example_kind": "uuid"}
        assert endpoint.act("retry", kind, X_Forwarded_User="ada").json == {"count": 1}
        process.wait_log(r'done by hand what="retry of 1 event \(MoneyDeposited, data: .*\), by 127\.0\.0\.1 \(ada\) over HTTP \(pid')


def test_a_kind_without_a_type_or_a_reason_is_retried_too(bank):
    """The page shows what is missing as an empty text."""
    with_token(bank, permanent="dead", lease_ms=2000)
    typeless = opened(bank, "a1")
    del typeless["event_type"]
    bank.put(typeless, {**opened(bank, "a2"), "status": "dead", "attempts": 10})
    with listening(bank) as (_, endpoint):
        bank.wait_status(typeless, "dead")
        kinds = bank.wait(lambda: len(k := endpoint.get("/live").json["kinds"]) == 2 and k, what="both kinds")
        bank.outbox.update_one({"_id": typeless["_id"]}, {"$set": {"payload": typeless["payload"], "repaired": True}})
        for kind in kinds:
            assert "" in (kind["event_type"], kind["reason"])
            target = {name: kind[name] for name in ("state", "event_type", "class", "reason")}
            assert endpoint.act("retry", target).json == {"count": 1}
        bank.wait(lambda: [row["account_id"] for row in bank.rows("account")] == ["a2"], what="what is whole to be applied")
        bank.wait_status(typeless, "dead")
    done = bank.projector("retry", "--all-dead", "--type", "")
    assert done.stdout == "1 event will be tried again\n"


def test_an_action_while_mysql_is_away_is_told_to_come_again(stores, server_folder, tmp_path):
    """409 would say that it cannot be done."""
    with Mysqld(server_folder / "mysqld") as mysql, Workspace(Stores(stores.mongo_uri, mysql.port), tmp_path) as ws:
        ws.create()
        with_token(ws)
        ws.accounts.insert_one(account(1))
        ws.put(dead := {**impossible(ws, "a1"), "status": "dead", "attempts": 10})
        actions = {"refresh": {"aggregate_type": "account", "aggregate_id": "a1"}, "skip": {"event_id": str(dead["_id"])}}
        with listening(ws) as (_, endpoint):
            mysql.stop()
            for verb, target in actions.items():
                answer = endpoint.act(verb, target)
                assert answer.status == 503 and "error" in answer.json, (verb, answer)
            assert ws.found(dead)["status"] == "dead"
            mysql.start()
            for verb, target in actions.items():
                ws.wait(lambda: endpoint.act(verb, target).status == 200, what=f"{verb}, tried again")


def test_the_token_is_in_no_answer_and_no_log(bank):
    with_token(bank, permanent="dead")
    bank.put(impossible(bank, "a1"))
    with listening(bank) as (process, endpoint):
        bank.wait(lambda: endpoint.get("/live").json["troubles"], what="the dead event")
        endpoint.act("skip", {"event_id": "x"})
        said = "".join(endpoint.get(path).text for path in ("/", "/live", "/status", "/metrics", "/readyz"))
        assert TOKEN not in said + process.log_text()


# Hostile clients

def exchange(endpoint: Endpoint, request: bytes) -> bytes:
    """The answer to these bytes; empty if the connection just ends."""
    with socket.create_connection((endpoint.host, endpoint.port), timeout=WAIT_S) as connection:
        answer = b""
        with suppress(OSError):  # it may have been answered, and closed, before it was sent whole
            connection.sendall(request)
        with suppress(OSError):
            while part := connection.recv(65536):
                answer += part
        return answer


def test_actions_are_bounded_and_one_more_is_told_so(bank):
    """The first waits for somebody's lock, eight wait behind it."""
    with_token(bank)
    bank.accounts.insert_one(account(1))
    target = {"aggregate_type": "account", "aggregate_id": "a1"}
    with listening(bank) as (_, endpoint), bank.stores.mysql(bank.name) as lock, ThreadPoolExecutor(12) as pool:
        lock.begin()
        lock.cursor().execute("SELECT * FROM projector_fence FOR UPDATE")
        answers = [pool.submit(endpoint.act, "refresh", target) for _ in range(12)]
        refused = bank.wait(lambda: [a.result() for a in answers if a.done() and "too many actions" in a.result().text], what="a refusal")
        lock.rollback()
        assert refused[0].status == 503
        assert sorted({a.result().status for a in answers}) == [200, 503]


HEAD = b"Host: localhost\r\n"
NO_ANSWER = 0  # the connection ends
BAD_REQUESTS = {
    "an unknown path": (b"GET /nothing HTTP/1.1\r\n" + HEAD + b"\r\n", 404),
    "a path upwards": (b"GET /%00%2e%2e/etc/passwd HTTP/1.1\r\n" + HEAD + b"\r\n", 404),
    "a method": (b"DELETE / HTTP/1.1\r\n" + HEAD + b"\r\n", 405),
    "another site's name": (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
    "a name that looks local": (b"GET /status HTTP/1.1\r\nHost: 127.evil.example\r\n\r\n", 421),
    "a huge length": (b"POST /retry HTTP/1.1\r\n" + HEAD + b"Content-Length: 999999999999\r\n\r\n", 413),
    "the largest body": (b"POST /retry HTTP/1.1\r\n" + HEAD + b"Content-Length: 4096\r\n\r\n" + b"x" * 4096, 403),  # read whole: actions are off
    "a byte more": (b"POST /retry HTTP/1.1\r\n" + HEAD + b"Content-Length: 4097\r\n\r\n" + b"x" * 4097, 413),
    "a large body": (b"POST /retry HTTP/1.1\r\n" + HEAD + b"Content-Length: 100000\r\n\r\n" + b"x" * 100000, 413),
    "a negative length": (b"POST /retry HTTP/1.1\r\n" + HEAD + b"Content-Length: -1\r\n\r\n", 400),
    "endless chunks": (b"POST /retry HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
                       + (b"1000\r\n" + b"x" * 4096 + b"\r\n") * 2, None),
    "chunks beyond the limit": (b"POST /retry HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
                                + (b"1000\r\n" + b"x" * 4096 + b"\r\n") * 2 + b"0\r\n\r\n", NO_ANSWER),
    "a large header": (b"GET / HTTP/1.1\r\n" + HEAD + b"X: " + b"x" * 100000 + b"\r\n\r\n", 431),
    "a long line": (b"GET /" + b"x" * 100000 + b" HTTP/1.1\r\n\r\n", 414),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 600 + b"\n\n", None),
    "no version": (b"GET\r\n\r\n\r\n", None),
}


def test_a_bad_request_is_refused_and_no_more(bank):
    bank.mapping(**LISTENING)
    with listening(bank) as (process, endpoint):
        for name, (request, status) in BAD_REQUESTS.items():
            answer = exchange(endpoint, request)
            if status == NO_ANSWER:
                assert answer == b"", name
                continue
            assert answer[:13] == f"HTTP/1.1 {status} ".encode() if status else not answer.startswith(b"HTTP/1.1 2"), name
            assert endpoint.get("/readyz").status == 200, name
        assert process.stop() == 0


def test_slow_connections_that_are_never_idle_keep_no_probe_away(bank):
    """Each sends one more byte just in time, so that no idle timeout ends it."""
    bank.mapping(**LISTENING)
    with listening(bank) as (_, endpoint), ExitStack() as stack:
        done = threading.Event()
        slow = [stack.enter_context(socket.create_connection((endpoint.host, endpoint.port), timeout=WAIT_S)) for _ in range(500)]

        def drip() -> None:
            while True:
                for connection in slow:
                    with suppress(OSError):
                        connection.send(b"G")
                if done.wait(1):
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert endpoint.get("/healthz").status == 200
        finally:
            done.set()
            dripping.join()


@pytest.mark.thorough
def test_thousands_of_connections_do_not_hurt(bank):
    """Slow ones never end, and more arrive all the time: events flow, probes are answered, memory stays."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    bank.mapping(**LISTENING)
    with listening(bank) as (process, endpoint), ExitStack() as connections:
        for _ in range(20):
            endpoint.get("/live")  # the cost of ordinary use is not counted
        before = endpoint.metrics()
        for i in range(3000):
            connection = connections.enter_context(socket.create_connection((endpoint.host, endpoint.port), timeout=WAIT_S))
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
            if i % 100 == 0:
                bank.put(opened(bank, f"a{i}"))
        assert endpoint.get("/healthz").status == 200
        bank.wait_drained()
        after = endpoint.metrics()
        assert after["projector_events_committed_total"] == 30
        assert after["process_resident_memory_bytes"] - before["process_resident_memory_bytes"] < 4e6
        bank.wait(lambda: endpoint.metrics()["process_open_fds"] < before["process_open_fds"] + 70,
                  what="the end of what is not young any more")
        assert process.stop() == 0
