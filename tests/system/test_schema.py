"""`projector schema` prints the tables that a mapping needs, or makes them, and changes nothing else."""

from __future__ import annotations

import json
import re

import pytest

from bank import opened
from workspace import bank_projections


def create_statements(ws) -> dict[str, str]:
    return {t: list(ws.query(f"SHOW CREATE TABLE {t}")[0].values())[1] for row in ws.query("SHOW TABLES") for t in row.values()}


def test_schema_prints_what_a_client_can_run(ws):
    done = ws.projector("schema")
    assert done.returncode == 0 and ws.query("SHOW TABLES") == []
    text = re.sub(r"^--.*$", "", done.stdout, flags=re.M)
    for statement in filter(str.strip, text.split(";\n")):
        ws.query(statement)
    by_hand = create_statements(ws)
    for table in by_hand:
        ws.query(f"DROP TABLE {table}")
    assert ws.projector("schema", "--apply").returncode == 0
    assert create_statements(ws) == by_hand
    assert ws.projector("check").returncode == 0


def test_schema_apply_creates_what_is_missing_and_changes_nothing_else(bank):
    before = create_statements(bank)
    assert set(before) == {"account", "projector_applied", "projector_position", "projector_fence", "projector_source"}
    bank.put(opened(bank))
    bank.run_once()
    rows = bank.rows("account")
    again = bank.projector("schema", "--apply")
    assert again.returncode == 0 and "account: in place" in again.stdout
    assert create_statements(bank) == before
    [projection] = bank_projections()
    projection["columns"]["note"] = {"from": "note", "type": "varchar(20)", "null": True}
    projection["columns"]["rank"] = {"from": "rank", "type": "int", "null": True}
    bank.mapping([projection])
    added = bank.projector("schema", "--apply")
    assert added.returncode == 0 and "ADD COLUMN `note` varchar(20) NULL" in added.stdout
    assert [{**row, "note": None, "rank": None} for row in rows] == bank.rows("account")
    assert bank.projector("check").returncode == 0
    bank.mapping()  # columns that are no longer mapped stay
    bank.projector("schema", "--apply")
    assert "note" in bank.rows("account")[0]


def test_schema_apply_never_narrows(bank):
    bank.query("ALTER TABLE account MODIFY name varchar(50) NOT NULL, MODIFY user_id longtext NOT NULL")
    before = create_statements(bank)
    done = bank.projector("schema", "--apply")
    assert done.returncode == 2 and "varchar(50); widen the column" in done.stderr
    assert create_statements(bank) == before


@pytest.mark.parametrize("key, column, code", [("varchar(1000)", "int", 1071), ("varchar(36)", "varchar(16383)", 1118)])
def test_a_table_that_no_server_can_have_is_the_mappings_fault(ws, key, column, code):
    ws.mapping([{"aggregate_type": "x", "table": "x", "key": {"id": {"from": "$aggregate_id", "type": key}},
                 "columns": {"c": {"from": "c", "type": column}}, "events": {"E": {"op": "upsert"}}}])
    done = ws.projector("schema", "--apply")
    assert done.returncode == 2 and f"x: " in done.stderr and f"({code})" in done.stderr, done.stderr


def test_schema_of_every_type_fits_its_own_check(ws):
    types = ["boolean", "tinyint", "tinyint unsigned", "smallint", "mediumint unsigned", "int", "bigint", "bigint unsigned", "double", "decimal(65,30)",
             "decimal(1,0)", "char(255)", "varchar(500)", "tinytext", "text", "mediumtext", "longtext", "binary(255)", "varbinary(1000)", "tinyblob", "blob",
             "mediumblob", "longblob", "date", "datetime", "datetime(6)", "timestamp", "timestamp(3)", "json", "uuid"]
    columns = {f"c{n}": {"from": f"f{n}", "type": t, "null": n % 2 == 0} for n, t in enumerate(types)}
    keys = {"k1": {"from": "$aggregate_id", "type": "uuid"}, "k2": {"from": "d", "type": "date"}, "select": {"from": "s", "type": "varchar(100)"}}
    ws.mapping([{"aggregate_type": "x", "table": "order", "key": keys, "columns": columns, "events": {"E": {"op": "upsert"}}}])
    assert ws.projector("schema", "--apply").returncode == 0
    done = ws.projector("check")
    assert done.returncode == 0, done.stdout


def test_machines_get_one_object_a_line(ws):
    def lines(*arguments: str) -> list[dict]:
        done = ws.projector("schema", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]
    for line in lines():
        ws.query(line["statement"])
    by_hand = create_statements(ws)
    ws.query("DROP TABLE account")
    assert lines("--apply")[-1] == {"table": "account", "done": "created"} and create_statements(ws) == by_hand
    assert lines("--apply")[-1] == {"table": "account", "done": "in place"}
