"""The test servers themselves: a fault test is worth no more than the fault it believes to cause."""

from __future__ import annotations

import pymongo
import pymysql
import pytest

from servers import Mysqld, ReplicaSet


def test_a_workspace_starts_empty_in_both_stores(ws):
    assert ws.outbox.find_one() is None
    assert ws.query("SHOW TABLES") == []


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
