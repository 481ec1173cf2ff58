"""max_events_per_s and max_replica_lag_s: how fast events are applied; both can be changed while the projector runs."""

from __future__ import annotations

import json
import time

import pytest

from endpoint import Endpoint
from servers import Mysqld
from bank import opened
from workspace import Workspace, Stores

LISTENING = {"http": "127.0.0.1:0"}


def change(ws: Workspace, **settings) -> None:
    """Rewrites the mapping file that is in use."""
    content = json.loads(ws.file.read_text())
    mysql = settings.pop("mysql", {})
    content.update(settings)
    content["mysql"].update(mysql)
    ws.file.write_text(json.dumps(content))


def test_a_rate_is_kept_and_may_be_changed_live(bank):
    bank.mapping(**LISTENING, max_events_per_s=20)
    bank.put([opened(bank, f"a{i}") for i in range(600)])
    began = time.monotonic()
    with bank.start_projector() as process:
        bank.wait(lambda: len(bank.rows("account")) >= 40)
        assert time.monotonic() - began > 1.5  # 40 events at 20/s
        assert len(bank.rows("account")) < 300
        change(bank, max_events_per_s=0)
        process.wait_log("the pace has changed max_events_per_s=0")
        bank.wait_drained()
    assert len(bank.rows("account")) == 600


def test_a_file_that_cannot_be_used_changes_nothing(bank):
    bank.mapping(**LISTENING)
    with bank.start_projector() as process:
        process.wait_log("working")
        good = bank.file.read_text()
        bank.file.write_text("{")
        process.wait_log("the mapping file has changed and cannot be used")
        bank.put(opened(bank, "a1"))
        bank.wait_drained()
        bank.file.write_text(good)


@pytest.mark.parametrize("settings, said", [
    ({"max_replica_lag_s": 5}, "max_replica_lag_s: expected the replicas in mysql.replicas"),
    ({"max_replica_lag_s": 5, "mysql": {"replicas": ["nowhere"]}}, "mysql.replicas: expected an array of at most 16 HOST:PORT"),
    ({"max_replica_lag_s": 5, "mysql": {"replicas": "db:3306"}}, "mysql.replicas: expected an array of at most 16 HOST:PORT"),
    ({"max_events_per_s": -1}, "max_events_per_s"),
    ({"mysql": {"replica_unreachable": "maybe"}}, "mysql.replica_unreachable")])
def test_wrong_settings_are_refused(bank, settings, said):
    bank.mapping(**settings)
    done = bank.projector("status")
    assert done.returncode == 2 and said in done.stderr


@pytest.mark.thorough
@pytest.mark.whole_server
def test_nothing_is_applied_while_a_replica_lags_or_cannot_be_reached(bank, server_folder):
    """The replica is a separate server that has only what the test copies, like a replica whose applier is stopped."""
    with Mysqld(server_folder / "replica") as replica:
        copy = Stores(bank.stores.mongo_uri, replica.port).mysql()
        def run(statement: str, *values) -> None:
            with copy.cursor() as cursor:
                cursor.execute(statement, values or None)
        def catch_up() -> None:
            for row in bank.query("SELECT * FROM projector_applied"):
                run(f"REPLACE INTO {bank.name}.projector_applied (projector, event_id_kind, event_id, outcome, applied_at) VALUES (%s, %s, %s, %s, %s)",
                    row["projector"], row["event_id_kind"], row["event_id"], row["outcome"], row["applied_at"])
        run(f"CREATE DATABASE {bank.name}")
        run(f"USE {bank.name}")
        run(bank.query("SHOW CREATE TABLE projector_applied")[0]["Create Table"])
        bank.mapping(**LISTENING, max_replica_lag_s=2, mysql={"replicas": [f"127.0.0.1:{replica.port}", itself(bank)]})  # the slowest counts
        with bank.start_projector() as process:
            endpoint = Endpoint(process)
            bank.put(opened(bank, "a1"))
            bank.wait_drained()
            bank.wait(lambda: endpoint.metrics()["projector_throttled"] == 1, what="a lag")
            bank.wait(lambda: endpoint.metrics()["projector_replica_lag_seconds"] > 2, what="the lag itself")
            event = opened(bank, "a2")
            bank.put(event)
            bank.wait(lambda: endpoint.metrics()["projector_queue_events"] == 1)
            assert bank.found(event).get("status", "pending") == "pending"
            bank.wait(lambda: any("replicas have caught up" in r["text"] for r in endpoint.get("/live").json["health"]))
            catch_up()
            bank.wait_gone(event)
            process.wait_log("the replicas have caught up")
            bank.wait(lambda: endpoint.metrics()["projector_throttled"] == 1, what="a lag again")
            bank.query("DELETE FROM projector_applied")  # pruned, after a long time without events
            run("DELETE FROM projector_applied")
            bank.wait(lambda: endpoint.metrics()["projector_throttled"] == 0, what="the end of the lag")
            replica.kill()
            bank.wait(lambda: endpoint.metrics()["projector_throttled"] == 1, what="an unreachable replica")
            event = opened(bank, "a3")
            bank.put(event)
            bank.wait(lambda: endpoint.metrics()["projector_queue_events"] == 1)
            change(bank, mysql={"replica_unreachable": "ignore"})
            bank.wait_gone(event)
        copy.close()


def itself(ws: Workspace) -> str:
    """As a replica, it has all that the primary has."""
    return f"{ws.stores.mysql_host}:{ws.stores.mysql_port}"


def test_of_several_replicas_one_that_cannot_be_reached_counts_unless_told_otherwise(bank):
    bank.mapping(**LISTENING, max_replica_lag_s=5, mysql={"replicas": [itself(bank), "127.0.0.1:1"]})
    with bank.start_projector() as process:
        endpoint = Endpoint(process)
        bank.wait(lambda: endpoint.metrics()["projector_throttled"] == 1, what="an unreachable replica")
        process.wait_log("cannot read the lag of a replica .*replica 127.0.0.1:1")
        event = opened(bank, "a1")
        bank.put(event)
        bank.wait(lambda: endpoint.metrics()["projector_queue_events"] == 1)
        change(bank, mysql={"replica_unreachable": "ignore"})
        bank.wait_gone(event)
        bank.wait(lambda: endpoint.metrics()["projector_throttled"] == 0, what="the end of the lag")
        change(bank, mysql={"replica_unreachable": "lag"})
        bank.wait(lambda: endpoint.metrics()["projector_throttled"] == 1, what="an unreachable replica that counts again")
        change(bank, mysql={"replicas": [itself(bank)]})
        bank.wait(lambda: endpoint.metrics()["projector_throttled"] == 0, what="replicas that can be reached")


def test_the_lag_is_that_behind_the_server_that_is_written_to(bank):
    """A changed address takes effect with the next start, and this is said."""
    bank.mapping(**LISTENING, max_replica_lag_s=5, mysql={"replicas": ["127.0.0.1:1"]})
    with bank.start_projector() as process:
        endpoint = Endpoint(process)
        bank.wait(lambda: endpoint.metrics()["projector_throttled"] == 1, what="an unreachable replica")
        change(bank, mysql={"port": 1, "replicas": [itself(bank)]})
        process.wait_log("the mapping file has changed, and some of it takes effect only at the next start")
        bank.wait(lambda: endpoint.metrics()["projector_throttled"] == 0, what="a comparison with the server in use")
        change(bank, mysql={"port": bank.stores.mysql_port})
        event = opened(bank, "a1")
        bank.put(event)
        bank.wait_gone(event)
    assert process.log_text().count("takes effect only at the next start") == 1


def test_a_lag_that_cannot_be_measured_is_told(bank):
    bank.mapping(**LISTENING, max_replica_lag_s=5, mysql={"replicas": ["127.0.0.1:1"]})
    with bank.start_projector() as process:
        endpoint = Endpoint(process)
        bank.wait(lambda: endpoint.metrics()["projector_throttled"] == 1, what="an unreachable replica")
        bank.query("RENAME TABLE projector_applied TO elsewhere")
        process.wait_log("cannot read the ledger to compare with: replicas count as lagging until then")
        bank.query("RENAME TABLE elsewhere TO projector_applied")
        change(bank, mysql={"replicas": [itself(bank)]})
        bank.wait(lambda: endpoint.metrics()["projector_throttled"] == 0, what="the end of the lag")
