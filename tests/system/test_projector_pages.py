"""Reconcile reads in pages, and proves nothing unless it reaches the end of both stores."""

from __future__ import annotations

import json

import pytest
from bson import Int64, ObjectId

ROWS = 5300  # more than a page of keys (5000), and several of entities (1000)


@pytest.mark.thorough
def test_every_entity_and_every_row_of_many_pages_is_compared(ws, tmp_path):
    """Ids of all types, and pages cut short because their entities are large."""
    ws.environment["XDG_STATE_HOME"] = str(tmp_path / "state")
    ws.mapping([{"aggregate_type": "thing", "table": "thing", "entities": "things",
                 "key": {"tenant": {"from": "tenant", "type": "varchar(10)"}, "id": {"from": "$aggregate_id", "type": "varchar(36)"}},
                 "columns": {"text": {"from": "text", "type": "text"}}, "events": {"Made": {"op": "upsert"}}}])
    ws.create()
    ids = [*range(1500), *(f"t{n:05}" for n in range(1500, ROWS - 2)), ObjectId(), ObjectId()]
    things = [{"_id": id, "tenant": f"c{n % 2}", "text": "x" * (5000 if n < 1300 else 5), "version": Int64(1)}
              for n, id in enumerate(ids)]
    ws.db["things"].insert_many(things)
    with ws.mysql.cursor() as cursor:
        cursor.executemany("INSERT INTO thing VALUES (%s, %s, %s)", [(t["tenant"], str(t["_id"]), t["text"]) for t in things])

    def found(status: int) -> list[tuple[str, str]]:
        done = ws.projector("reconcile", "--json")
        assert done.returncode == status, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        [sums] = [line for line in lines if line.get("sums") == "thing"]
        assert (sums["entities"], sums["rows"]) == (ROWS, ROWS)
        return sorted((line["difference"], line["aggregate_id"]) for line in lines if "difference" in line)

    assert found(0) == []
    last = str(ids[-1])
    ws.query("DELETE FROM thing WHERE id = %s", last)  # of the last entity
    ws.query("INSERT INTO thing VALUES ('c9', 'zz', 'x')")  # the last row
    assert found(1) == [("extra row", "zz"), ("missing row", last)]
