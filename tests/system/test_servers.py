"""The test servers themselves: a fault test is only worth as much as the fault it causes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pymongo
import pymysql
import pytest

from mongod import ReplicaSet
from mysqld import Mysqld
from servers import end_leftovers
from workspace import ROOT, WAIT_S


def test_a_workspace_starts_empty_in_both_stores(ws):
    assert ws.outbox.find_one() is None
    assert ws.query("SHOW TABLES") == []


@pytest.mark.whole_server
def test_the_shared_mongodb_has_change_streams_and_failpoints(ws):
    with ws.outbox.watch() as stream:
        ws.put(ws.event("a1", "AccountClosed"))
        assert next(stream)["fullDocument"]["aggregate_id"] == "a1"
    ws.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


def test_the_program_connects_to_mysql_with_a_password(ws):
    options = {"host": ws.stores.mysql_host, "port": ws.stores.mysql_port, "user": "projector"}
    pymysql.connect(**options, password="projector", database=ws.name).close()
    with pytest.raises(pymysql.err.OperationalError):
        pymysql.connect(**options, password="wrong")


@pytest.mark.thorough
def test_mysql_keeps_committed_rows_when_killed(server_folder):
    with Mysqld(server_folder / "mysqld") as mysql:
        with mysql.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE d")
            cursor.execute("CREATE TABLE d.t (n INT PRIMARY KEY)")
            cursor.execute("INSERT INTO d.t VALUES (1)")
        mysql.kill()
        assert not mysql.answers()
        mysql.start()
        with mysql.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT n FROM d.t")
            assert cursor.fetchall() == ((1,),)
        mysql.pause()
        with pytest.raises(pymysql.err.OperationalError):
            mysql.connect(read_timeout=1, connect_timeout=1)
        mysql.resume()
        mysql.restart(["--max-connections=77"])
        with mysql.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT @@max_connections")
            assert cursor.fetchall() == ((77,),)


@pytest.mark.thorough
def test_a_set_of_three_elects_another_primary(server_folder):
    with ReplicaSet(server_folder, members=3, cache_gb=0.25) as mongo:
        first = mongo.primary()
        with mongo.client() as client:
            things = client.d.get_collection("things", write_concern=pymongo.WriteConcern("majority"))
            things.insert_one({"_id": 1})
            first.kill()
            assert mongo.primary() is not first
            assert things.find_one() == {"_id": 1}
        first.start()
        first.wait_ready()


HUNG = """
def test_that_hangs(bank):
    with bank.start_projector() as projector:
        projector.wait_log("info working")
        print(f"<{projector.pid}>")
        bank.wait(lambda: False, timeout=3600)
"""


@pytest.mark.thorough
def test_a_hung_test_fails_by_itself_with_its_stack_and_its_projector_is_ended(stores, tmp_path):
    file = tmp_path / "test_hung.py"
    file.write_text(HUNG)
    servers = {"MONGO_URI": stores.mongo_uri, "MYSQL_HOST": stores.mysql_host, "MYSQL_PORT": str(stores.mysql_port)}
    done = subprocess.run([sys.executable, "-m", "pytest", "-c", ROOT / "tests/pytest.ini", "--rootdir", ROOT / "tests", "-p", "conftest",
                           "-p", "no:xdist", "--timeout", "30", file], capture_output=True, text=True, timeout=3 * WAIT_S,
                          env={**os.environ, **servers, "PYTHONPATH": f"{ROOT}/tests:{ROOT}/tests/servers"})
    assert done.returncode == 1 and "Timeout >30.0s" in done.stdout, done.stdout + done.stderr
    assert "bank.wait(lambda: False" in done.stdout
    assert not Path("/proc", re.search(r"<(\d+)>", done.stdout)[1]).exists()


def test_what_a_run_leaves_behind_is_ended(tmp_path):
    child = subprocess.Popen(["sleep", "3600"], env={**os.environ, "SERVERS_FOLDER": str(tmp_path)})
    other = subprocess.Popen(["sleep", "3600"], env={**os.environ, "SERVERS_FOLDER": f"{tmp_path}x"})
    try:
        end_leftovers(tmp_path)
        assert child.wait(WAIT_S) == -9 and other.poll() is None
    finally:
        for process in (child, other):
            process.kill()
            process.wait()


def test_the_last_lines_of_a_run_say_what_was_not_run(tmp_path):
    (tmp_path / "pytest.xml").write_text("""<testsuites><testsuite>
        <testcase classname="a" name="good"/><testcase classname="a" name="later"><skipped message="no browser"/></testcase>
        </testsuite></testsuites>""")
    (tmp_path / "collected").write_text("good\nlater\nnever\n")
    (tmp_path / "deselected").write_text("another\n")
    done = subprocess.run([sys.executable, ROOT / "tests/servers/summary.py", tmp_path, "pytest:2"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["pytest: ended with status 2", "not run: 1 skipped: no browser", "not run: 1 not selected by the arguments of the run",
                                        "not run: 1 not begun when pytest ended", "1 passed, 1 failed"]
