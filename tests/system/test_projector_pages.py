"""Reconcile reads in pages, and proves nothing unless it reaches the end of both stores."""

from __future__ import annotations

import json

from bson import Int64

ROWS = 5300  # more than a page of keys (5000), and several of entities (1000)


def test_every_entity_and_every_row_of_many_pages_is_compared(ws, tmp_path):
    ws.environment["XDG_STATE_HOME"] = str(tmp_path / "state")
    ws.mapping([{"aggregate_type": "thing", "table": "thing", "entities": "things",
                 "key": {"tenant": {"from": "tenant", "type": "varchar(10)"}, "id": {"from": "$aggregate_id", "type": "varchar(36)"}},
                 "columns": {"n": {"from": "n", "type": "int"}}, "events": {"Made": {"op": "upsert"}}}])
    ws.create()
    things = [{"_id": f"t{n:05}", "tenant": f"c{n % 2}", "n": n, "version": Int64(1)} for n in range(ROWS)]
    ws.db["things"].insert_many(things)
    rows = sorted((thing["tenant"], thing["_id"], thing["n"]) for thing in things)
    with ws.mysql.cursor() as cursor:
        cursor.executemany("INSERT INTO thing VALUES (%s, %s, %s)", rows)

    def found(status: int) -> list[tuple[str, str]]:
        done = ws.projector("reconcile", "--json")
        assert done.returncode == status, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        [sums] = [line for line in lines if line.get("sums") == "thing"]
        assert sums["entities"] == ROWS
        return sorted((line["difference"], line["aggregate_id"]) for line in lines if "difference" in line)

    assert found(0) == []
    ws.query("DELETE FROM thing WHERE id = %s", things[-1]["_id"])  # the last entity
    ws.query("INSERT INTO thing VALUES ('c9', 'zz', 1)")  # the last row
    assert found(1) == [("extra row", "zz"), ("missing row", things[-1]["_id"])]
