"""`check` of MongoDB: whether the connection string finds every member, the server's version, what the entities are."""

from __future__ import annotations

import json
import re
import socket
from typing import Iterator

import pytest
from pymongo.uri_parser import parse_uri

from bank import SHORT_LEASE, opened
from forwarding import plainly, relaying
from mongod import ReplicaSet
from workspace import Stores, Workspace, bank_projections, last_said

PINNED = "mongodb.uri leads to"


def found(ws: Workspace, pattern: str) -> list[str]:
    """The verdicts of the lines that match."""
    lines = [json.loads(line) for line in ws.projector("check", "--json").stdout.splitlines()]
    return [line["verdict"] for line in lines if re.search(pattern, line["text"])]


# the connection string


@pytest.fixture
def three(stores: Stores, server_folder, tmp_path) -> Iterator[tuple[ReplicaSet, Workspace]]:
    with ReplicaSet(server_folder, members=3, cache_gb=0.25) as mongo, Workspace(Stores(mongo.uri, stores.mysql_port), tmp_path) as ws:
        ws.create()
        yield mongo, ws


@pytest.mark.thorough
def test_a_connection_string_that_finds_one_member_of_several_is_told(three):
    mongo, ws = three
    primary = mongo.primary()
    [secondary, _] = [member for member in mongo.members if member is not primary]
    for member, verdict, status in ((primary, "warning", 0), (secondary, "error", 2)):
        for options in ("", "?directConnection=true", "?directConnection=true&replicaSet=rs0"):
            ws.mapping(mongodb={"uri": f"mongodb://{member.address}/{options}"}, **SHORT_LEASE)
            assert found(ws, f"{PINNED} {member.address} alone, one of 3 members.*add replicaSet=rs0") == [verdict], options
            assert ws.projector("check").returncode == status
        ws.put(event := opened(ws, f"a-{verdict}"))
        if verdict == "error":  # what the error saves its reader from
            with ws.start_projector() as projector:
                projector.wait_log(r"\b10107\b")
        else:
            ws.run_once()
        assert (ws.found(event) is not None) == (verdict == "error")
        for options in ("?replicaSet=rs0", "?directConnection=false"):
            ws.mapping(mongodb={"uri": f"mongodb://{member.address}/{options}"})
            assert found(ws, PINNED) == [] and ws.projector("check").returncode == 0, options


@pytest.mark.thorough
def test_a_set_of_one_member_has_no_other_to_find(bank):
    host, port = parse_uri(bank.stores.mongo_uri)["nodelist"][0]
    for options in ("", "?directConnection=true"):
        bank.mapping(mongodb={"uri": f"mongodb://{host}:{port}/{options}"})
        assert found(bank, PINNED) == [] and bank.projector("check").returncode == 0


# the version


@pytest.mark.parametrize("version, status", [("5.9.9", 2), ("6.0.0", 0)])
def test_a_mongodb_that_is_too_old_is_refused(bank, version, status):
    """No such server can be had here: the right one says that it is another."""
    true = bank.mongo.server_info()["version"]
    assert len(true) == len(version)
    bank.put(opened(bank))

    def renamed(server: socket.socket, client: socket.socket) -> None:
        while data := server.recv(65536):
            client.sendall(data.replace(b"\2version\0\6\0\0\0" + true.encode(), b"\2version\0\6\0\0\0" + version.encode()))

    with relaying("127.0.0.1", parse_uri(bank.stores.mongo_uri)["nodelist"][0][1], plainly, renamed) as port:
        bank.mapping(mongodb={"uri": f"mongodb://127.0.0.1:{port}/?directConnection=true"})
        check, run = bank.projector("check"), bank.projector("run", "--once")
    assert (check.returncode, run.returncode) == (status, status), check.stdout + run.stderr
    says = f"MongoDB {version} is too old: the projector needs 6.0 or newer" if status else f"MongoDB {version}, replica set"
    assert says in check.stdout and (not status or says in last_said(run, status))
    assert len(bank.rows("account")) == (status == 0)


# the entities


@pytest.mark.parametrize("options, kind", [({"viewOn": "people", "pipeline": []}, "view"), ({"timeseries": {"timeField": "at"}}, "timeseries")])
def test_entities_that_cannot_be_compared_are_refused(bank, options, kind):
    bank.accounts.drop()  # `outbox init` has made it
    bank.db.create_collection("accounts", **options)
    assert found(bank, rf'{bank.name}\.accounts, which "entities" names, is a {kind}') == ["error"]
    assert bank.projector("check").returncode == 2


@pytest.mark.thorough
def test_entities_are_an_ordinary_collection_or_none_yet(bank):
    [account] = bank_projections()
    bank.mapping([account, {**account, "table": "account2"}])  # both name it
    bank.create()
    assert found(bank, "which \"entities\" names") == [] and bank.projector("check").returncode == 0
    bank.accounts.drop()
    assert found(bank, "which \"entities\" names") == [] and bank.projector("check").returncode == 0
    bank.db.create_collection("accounts", viewOn="people", pipeline=[])
    assert found(bank, "which \"entities\" names") == ["error"]
