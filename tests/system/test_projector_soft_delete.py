"""Soft deletes: the row of a deleted entity stays with a mark, and
everything that compares or fills rows understands it."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from bson import Int64

from workspace import WAIT_S, decimal

MOMENT = datetime(2024, 5, 6, 7, 8, 9, 123000)
CUSTOMERS = {"aggregate_type": "customer", "table": "customer", "entities": "customers",
             "key": {"customer_id": {"from": "$aggregate_id", "type": "varchar(36)"}},
             "columns": {"name": {"from": "name", "type": "varchar(40)"},
                         "credit": {"from": "credit", "type": "decimal(10,2)"},
                         "deleted_at": {"from": "deleted_at", "type": "datetime(3)", "null": True}},
             "events": {"CustomerOpened": {"op": "upsert"}, "CustomerRenamed": {"op": "update", "columns": ["name"]},
                        "CreditRaised": {"op": "add", "columns": {"credit": "by"}},
                        "CustomerClosed": {"op": "delete", "set": {"deleted_at": "$occurred_at"}}}}


@pytest.fixture
def shop(ws, tmp_path):
    ws.environment["XDG_STATE_HOME"] = str(tmp_path / "state")
    ws.mapping([CUSTOMERS], backoff_ms=20, max_attempts=2, gap_wait_ms=50)
    ws.create()
    return ws


def customer(number: int, version: int = 1, **changes) -> dict:
    return {"_id": f"c{number}", "name": f"Ada {number}", "credit": decimal("10.00"), "version": Int64(version), **changes}


def said(ws, entity: dict, event_type: str, version: int, **payload) -> dict:
    return {**ws.event(entity["_id"], event_type, version, **payload), "aggregate_type": "customer"}


def opened(ws, entity: dict) -> dict:
    return said(ws, entity, "CustomerOpened", entity["version"], name=entity["name"], credit=entity["credit"])


def fill(ws, count: int) -> list[dict]:
    entities = [customer(n) for n in range(count)]
    ws.db["customers"].insert_many(entities)
    ws.put(opened(ws, entity) for entity in entities)
    ws.run_once()
    return entities


def close(ws, entity: dict, version: int = 2) -> dict:
    """The entity is deleted, and its event marks the row."""
    event = said(ws, entity, "CustomerClosed", version)
    ws.db["customers"].delete_one({"_id": entity["_id"]})
    ws.put(event)
    return event


def lines(ws, command: str, *arguments: str, status: int = 0) -> list[dict]:
    done = ws.projector(command, "--json", *arguments, timeout=2 * WAIT_S)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def differences(ws, *arguments: str, status: int = 0) -> list[tuple]:
    return [(line["difference"], line["aggregate_id"]) for line in lines(ws, "reconcile", *arguments, status=status)
            if "difference" in line]


def marks(ws) -> dict:
    return {row["customer_id"]: row["deleted_at"] for row in ws.rows("customer")}


def test_the_row_stays_and_an_upsert_clears_the_mark(shop):
    entities = fill(shop, 2)
    event = close(shop, entities[0])
    shop.run_once()
    assert marks(shop) == {"c0": event["occurred_at"], "c1": None}
    assert shop.rows("customer")[0]["name"] == "Ada 0"
    shop.db["customers"].insert_one(customer(0, version=3, name="Ada again"))
    shop.put(opened(shop, customer(0, version=3, name="Ada again")))
    shop.run_once()
    assert marks(shop) == {"c0": None, "c1": None}
    assert differences(shop) == []


def test_a_delete_that_meets_no_row_is_fine(shop):
    shop.put(said(shop, customer(7), "CustomerClosed", 1))
    shop.run_once()
    assert shop.rows("customer") == []
    assert list(shop.ledger().values()) == ["applied"]


@pytest.mark.parametrize("in_one_batch", [True, False])
def test_a_delta_on_a_marked_row_is_row_missing(shop, in_one_batch):
    entities = fill(shop, 1)
    close(shop, entities[0])
    if not in_one_batch:
        shop.run_once()
    delta = said(shop, entities[0], "CreditRaised", 3, by=decimal("1.00"))
    shop.put(delta)
    shop.projector("run", "--once")
    found = shop.found(delta)
    assert "row missing in customer" in found["last_error"]["message"]
    assert str(shop.rows("customer")[0]["credit"]) == "10.00"
    assert shop.rows("customer")[0]["deleted_at"] is not None


def test_a_delta_and_its_delete_in_one_batch(shop):
    entities = fill(shop, 1)
    shop.put(said(shop, entities[0], "CreditRaised", 2, by=decimal("1.00")))
    close(shop, entities[0], version=3)
    shop.run_once()
    assert str(shop.rows("customer")[0]["credit"]) == "11.00"
    assert shop.rows("customer")[0]["deleted_at"] is not None


def test_a_late_upsert_does_not_bring_the_row_back(shop):
    entity = customer(1)
    first = opened(shop, entity)
    renamed = said(shop, entity, "CustomerOpened", 2, name="Newer", credit=decimal("1.00"))
    closed = said(shop, entity, "CustomerClosed", 3)
    late = said(shop, entity, "CustomerOpened", None, name="Late", credit=decimal("5.00"))
    late["occurred_at"] = renamed["occurred_at"]
    shop.put(first, renamed, closed)
    shop.run_once()
    shop.put(late)
    shop.run_once()
    assert shop.rows("customer")[0]["deleted_at"] == closed["occurred_at"]
    assert shop.rows("customer")[0]["name"] == "Newer"


def test_reconcile_takes_a_marked_row_for_a_gone_entity(shop):
    entities = fill(shop, 4)
    close(shop, entities[0])
    shop.run_once()
    assert differences(shop) == []
    # deleted without a mark; marked but not deleted; an entity with the mark is equal whatever its time
    shop.db["customers"].delete_one({"_id": "c1"})
    shop.query("UPDATE customer SET deleted_at = '2024-01-01' WHERE customer_id IN ('c2', 'c3')")
    shop.db["customers"].update_one({"_id": "c3"}, {"$set": {"deleted_at": MOMENT}})
    assert sorted(differences(shop, status=1)) == [("different columns", "c2"), ("extra row", "c1")]
    before = marks(shop)
    found = {line["aggregate_id"]: line for line in lines(shop, "reconcile", "--repair") if "difference" in line}
    assert found["c1"]["outcome"] == "marked as deleted" and found["c1"]["mended"]
    after = marks(shop)
    assert after["c0"] == before["c0"] and after["c1"] is not None and after["c2"] is None
    assert differences(shop) == []


def test_a_refresh_keeps_an_existing_mark(shop):
    entities = fill(shop, 3)
    event = close(shop, entities[0])
    shop.db["customers"].update_one({"_id": "c1"}, {"$set": {"deleted_at": MOMENT, "name": "Left"}})
    shop.put(said(shop, entities[1], "CustomerClosed", 2), said(shop, entities[2], "CustomerClosed", 2))
    shop.run_once()
    before = marks(shop)
    late = said(shop, entities[0], "CustomerRenamed", None, name="Late")
    late["occurred_at"] = datetime(2020, 1, 1)
    shop.put(late)
    shop.run_once()
    assert (marks(shop)["c0"], shop.rows("customer")[0]["name"]) == (event["occurred_at"], "Ada 0")
    shop.db["customers"].update_many({}, {"$set": {"version": Int64(2)}})
    assert shop.projector("refresh", "customer", "c1").returncode == 0
    assert shop.projector("refresh", "customer", "c2").returncode == 0
    assert marks(shop) == {**before, "c2": None}  # whose entity is not deleted
    assert shop.rows("customer")[1]["name"] == "Left"
    done = shop.projector("explain", "--json", "customer", "c1")
    assert json.loads(done.stdout)["projections"][0]["finding"] == "equal", done.stdout


def test_a_row_that_no_event_made_is_marked_with_the_time_at_which_it_was_found_to_be_gone(shop):
    shop.db["customers"].insert_one(customer(1))
    assert shop.projector("rebuild").returncode == 0
    shop.db["customers"].delete_one({})
    assert differences(shop, "--repair") == [("extra row", "c1")]
    assert marks(shop)["c1"].year > 2024


@pytest.mark.parametrize("shadow", [[], ["--shadow"]])
def test_rebuild_carries_marked_rows_over(shop, shadow):
    entities = fill(shop, 4)
    event = close(shop, entities[0])
    shop.run_once()
    shop.query("UPDATE customer SET name = 'wrong' WHERE customer_id = 'c1'")
    done = lines(shop, "rebuild", *shadow)
    assert done[-1]["left"] == 0
    assert {row["customer_id"]: (row["name"], row["deleted_at"]) for row in shop.rows("customer")} == {
        "c0": ("Ada 0", event["occurred_at"]), "c1": ("Ada 1", None), "c2": ("Ada 2", None), "c3": ("Ada 3", None)}
    assert differences(shop) == []


@pytest.mark.parametrize("wrong, expected", [
    ({"op": "delete", "set": {"name": "name"}}, "at least one column with \"null\": true"),
    ({"op": "delete", "set": {"customer_id": "$aggregate_id"}}, "part of the key"),
    ({"op": "delete", "set": {}}, "an object of column"),
])
def test_a_set_that_marks_nothing_is_refused(shop, wrong, expected):
    shop.mapping([{**CUSTOMERS, "events": {"CustomerOpened": {"op": "upsert"}, "CustomerClosed": wrong}}])
    done = shop.projector("check")
    assert done.returncode == 2 and expected in done.stderr, done.stderr
    assert "projections[0].events.CustomerClosed.set" in done.stderr


def test_a_soft_delete_sets_what_every_event_sets(shop):
    shop.mapping([{**CUSTOMERS, "always": ["seen_at"], "columns": {
        **CUSTOMERS["columns"], "seen_at": {"from": "$occurred_at", "type": "datetime(3)", "null": True, "compare": False}}}])
    shop.create()
    entities = fill(shop, 1)
    event = close(shop, entities[0])
    shop.run_once()
    assert [(row["deleted_at"], row["seen_at"]) for row in shop.rows("customer")] == [(event["occurred_at"], event["occurred_at"])]
    assert differences(shop) == []
