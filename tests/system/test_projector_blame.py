"""Whose fault a failure is: told by what was being done, and by whether the server does the work of others meanwhile."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import pytest

from least_privilege import mysql_users
from servers import Mysqld, scratch_folder
from workspace import Stores, Workspace

MB = 1024 * 1024
FAST = {"backoff_ms": 20, "sweep_interval_ms": 150}

NOTES = [{"aggregate_type": "note", "table": "note",
          "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}},
          "columns": {"body": {"from": "body", "type": "longtext", "null": True}, "data": {"from": "data", "type": "json", "null": True}},
          "events": {"Written": {"op": "upsert"}, "Changed": {"op": "update", "columns": ["body"]},
                     "Stated": {"op": "sql", "statement": "UPDATE note SET body = :body WHERE id = :$aggregate_id"}}}]


def note(ws: Workspace, aggregate_id: str, event_type: str = "Written", **payload) -> dict:
    return {**ws.event(aggregate_id, event_type, **payload), "aggregate_type": "note"}


@pytest.fixture(scope="module")
def mysqld() -> Iterator[Mysqld]:
    """A server that the tests of this module may set as they like; they set it back."""
    folder = scratch_folder()
    with Mysqld(folder / "mysqld") as server:
        yield server
    folder.rmdir()


@pytest.fixture
def own(stores: Stores, mysqld: Mysqld, tmp_path: Path) -> Iterator[Workspace]:
    """A workspace on that server."""
    with Workspace(Stores(stores.mongo_uri, mysqld.port), tmp_path) as workspace:
        yield workspace


@contextmanager
def global_set(ws: Workspace, name: str, value: object) -> Iterator[None]:
    """A variable of the server; sessions that are there keep their own."""
    before = ws.query(f"SELECT @@GLOBAL.{name} AS v")[0]["v"]
    ws.query(f"SET GLOBAL {name} = %s", value)
    try:
        yield
    finally:
        ws.query(f"SET GLOBAL {name} = %s", before)


@contextmanager
def ordinary_user(ws: Workspace, projections: list[dict], **overrides) -> Iterator[str]:
    """The mapping with a user who may do what sql/grants.sql says, and nothing else."""
    ws.mapping(projections, **overrides)
    ws.create()
    ws.query("CREATE TABLE IF NOT EXISTS account (account_id varchar(36) PRIMARY KEY)")  # sql/grants.sql names it
    with mysql_users(ws) as names:
        user = names["projector"]
        for projection in projections:
            ws.query(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {projection['table']} TO {user}@'127.0.0.1'")
        ws.mapping(projections, mysql={"user": user, "password": "change-me-1"}, **overrides)
        yield user


def test_what_is_above_the_packet_limit_fails_by_itself(own):
    """The server would cut the connection, which looks like an outage: such a statement is never sent."""
    with global_set(own, "max_allowed_packet", 4 * MB), ordinary_user(own, NOTES, **FAST, max_attempts=2, workers=1):
        first = [note(own, f"n{n}", body="short") for n in range(3)]
        too_large = [note(own, "text", body="\n" + "x" * 5 * MB), note(own, "json", data={"v": "\x01" * MB}),
                     note(own, "n0", "Stated", body="x" * 5 * MB), note(own, "n1", "Changed", body="é" * 2 * MB)]
        large = [note(own, "large", body="\n" + "x" * (3 * MB // 2)), note(own, "n2", "Stated", body="x" * 3 * MB)]
        small = [note(own, f"s{n}", body="short") for n in range(20)]
        with own.start_projector() as projector:
            own.put(first, too_large, large, small)
            own.wait_gone(*first, *large, *small, timeout=60)
            for event in too_large:
                dead = own.wait_status(event, "dead", timeout=60)
                assert (dead["attempts"], dead["last_error"]["class"], dead["last_error"]["code"]) == (2, "size", 1153)
                assert "max_allowed_packet is 4194304" in dead["last_error"]["message"]
            assert "MySQL cannot be reached" not in projector.log_text() and "code=2006" not in projector.log_text()
    assert {r["id"]: len(r["body"]) for r in own.query("SELECT id, body FROM note WHERE id IN ('large', 'n2')")} == {
        "large": 1 + 3 * MB // 2, "n2": 3 * MB}


def test_a_large_row_does_not_fail_for_the_rows_beside_it(own):
    """Alone it is below the limit; with the others of its statement it would not be."""
    with global_set(own, "max_allowed_packet", 2 * MB), ordinary_user(own, NOTES, workers=1):
        sizes = [400_000, 100_000, 850_000, 300_000, 10, 800_000, 500_000]
        own.put(note(own, f"n{n}", body="") for n in range(len(sizes)))
        own.run_once()
        for kind in "Written", "Changed":
            own.put(note(own, f"n{n}", kind, body="\n" * size) for n, size in enumerate(sizes))
            assert "class=size" not in own.run_once().stderr
            assert [len(row["body"]) for row in own.query("SELECT body FROM note ORDER BY id")] == sizes
            own.query("UPDATE note SET body = ''")


def test_a_limit_that_is_lowered_counts_from_the_next_session_on(own):
    with global_set(own, "max_allowed_packet", 16 * MB), ordinary_user(own, NOTES, **FAST, max_attempts=1, workers=1) as user:
        with own.start_projector() as projector:
            event = note(own, "n1", body="x" * 3 * MB)
            own.put(event)
            own.wait_gone(event)
            own.query("SET GLOBAL max_allowed_packet = %s", MB)
            own.end_sessions(user)
            event, other = note(own, "n2", body="x" * 3 * MB), note(own, "n3", body="x")
            own.put(event, other)
            assert own.wait_status(event, "dead")["last_error"]["class"] == "size"
            own.wait_gone(other)
            assert projector.stop() == 0
