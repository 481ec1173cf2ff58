"""MariaDB's own type uuid: a column may have it, also one of a child table; a key may not, and `check` says so."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from bson import Int64

from workspace import WAIT_S

OWNER, OTHER = UUID("00ff10a0-0000-4000-8000-5c2700220a1a"), UUID("c0ffee00-1111-4222-8333-444455556666")
PROJECTION = {"aggregate_type": "account", "table": "item", "entities": "items",
              "key": {"id": {"from": "$aggregate_id", "type": "uuid"}},
              "columns": {"owner": {"from": "owner", "type": "uuid", "null": True}, "n": {"from": "n", "type": "int"}},
              "children": [{"table": "part", "from": "parts", "key": {"code": {"from": "$item.code", "type": "uuid"}},
                            "columns": {"maker": {"from": "$item.maker", "type": "uuid"}}}],
              "events": {"Put": {"op": "upsert"}, "Given": {"op": "update", "columns": ["owner"]}, "Parted": {"op": "update", "columns": ["part"]},
                         "Named": {"op": "sql", "statement": "UPDATE item SET owner = :owner WHERE id = :$aggregate_id"}}}


@pytest.fixture
def items(ws, tmp_path):
    [row] = ws.query("SELECT VERSION() AS version")
    if "MariaDB" not in row["version"]:
        pytest.skip("only MariaDB has this type")
    ws.environment["XDG_STATE_HOME"] = str(tmp_path / "state")
    ws.mapping([PROJECTION], mongodb={"retain": "archive"}, backoff_ms=300000, gap_wait_ms=0)
    ws.create()
    ws.query("ALTER TABLE item MODIFY owner UUID NULL")
    ws.query("ALTER TABLE part MODIFY maker UUID NOT NULL")
    return ws


def told(ws, *arguments: str, status: int = 0) -> list[dict]:
    done = ws.projector(*arguments, "--json", timeout=2 * WAIT_S)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_column_of_that_type_in_every_command(items):
    """Written by upsert, update and sql, as UUID and as text; compared, mended, rebuilt and replayed."""
    ids = [UUID(int=n) for n in range(1, 4)]
    parts = [{"code": OWNER, "maker": str(OTHER).upper()}, {"code": str(OTHER), "maker": OWNER}]
    items.db["items"].insert_many({"_id": id, "owner": owner, "n": 1, "parts": parts, "version": Int64(2)}
                                  for id, owner in zip(ids, (OWNER, str(OTHER), OTHER)))
    items.put(items.event(id, "Put", 1, owner=None, n=1, parts=parts[:1]) for id in ids)
    items.put(items.event(ids[0], "Given", 2, owner=OWNER), items.event(ids[1], "Named", 2, owner=str(OTHER)),
              items.event(ids[2], "Given", 2, owner=OTHER), *(items.event(id, "Parted", 3, parts=parts) for id in ids))
    items.db["items"].update_many({}, {"$set": {"version": Int64(3)}})
    items.run_once()
    rows = items.rows("item")
    assert [(row["id"], UUID(str(row["owner"]))) for row in rows] == [(ids[0].bytes, OWNER), (ids[1].bytes, OTHER), (ids[2].bytes, OTHER)]
    assert sorted((row["code"], UUID(str(row["maker"]))) for row in items.rows("part")) == sorted(
        [(OWNER.bytes, OTHER), (OTHER.bytes, OWNER)] * 3)
    assert not [line for line in told(items, "reconcile") if "difference" in line]
    before = (items.rows("item"), items.query("SELECT * FROM part ORDER BY id, code"))
    for command in (["reconcile", "--repair"], ["rebuild"], ["rebuild", "--shadow", "--drop-old"],
                    ["replay", "--projection", "item", "--drop-old"]):
        items.query("UPDATE item SET owner = %s", str(OWNER))
        items.query("UPDATE part SET maker = %s", str(OTHER))
        if "reconcile" in command:
            assert len([line for line in told(items, *command) if "difference" in line]) > 2
        else:
            told(items, *command)
        assert (items.rows("item"), items.query("SELECT * FROM part ORDER BY id, code")) == before, command


@pytest.mark.parametrize("table, column, path", [("item", "id", "projections[0].key.id"), ("part", "code", "projections[0].children[0].key.code"),
                                                ("part", "id", "projections[0].children[0].key.id")])
def test_a_key_of_that_type_is_refused_beforehand(items, table, column, path):
    items.query(f"ALTER TABLE {table} MODIFY {column} UUID NOT NULL")
    done = items.projector("check")
    assert done.returncode == 2 and f"{path}: MariaDB sorts a key of type uuid by its parts" in done.stdout, done.stdout
    refused = items.projector("rebuild", "--shadow")
    assert refused.returncode == 2 and "make it binary(16)" in refused.stderr, refused.stderr
