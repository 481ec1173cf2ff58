"""Where values come from (constants, lists of paths, JSON Pointers,
the whole payload, defaults), on every path to MySQL."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal

import pytest
from bson import Decimal128, Int64, ObjectId
from test_projector_reconcile import state_folder

__all__ = ["state_folder"]

PROJECTION = {
    "aggregate_type": "account", "table": "orders", "entities": "orders",
    "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}, "tenant": {"value": "acme", "type": "varchar(10)"}},
    "columns": {"customer": {"from": ["customer_id", "customer"], "type": "varchar(40)"},
                "source": {"value": "outbox", "type": "varchar(10)"},
                "city": {"from": "/address.city", "type": "varchar(60)", "default": ""},
                "owner": {"from": "/$ref/0/name", "type": "varchar(20)", "null": True},
                "price": {"from": "price", "type": "decimal(9,2)", "default": {"$numberDecimal": "0.00"}},
                "visits": {"from": "visits", "type": "int", "default": 0},
                "document": {"from": "$payload", "type": "json", "null": True, "compare": False}},
    "events": {"Placed": {"op": "upsert"},
               "Seen": {"op": "add", "columns": {"visits": {"value": 1}}},
               "Raised": {"op": "add", "columns": {"price": ["by", "amount"]}},
               "Renamed": {"op": "update", "columns": ["customer", "city"]},
               "Moved": {"op": "update", "columns": {"city": {"from": "/new.city", "default": "nowhere"}}},
               "Stated": {"op": "sql", "statement": "UPDATE orders SET customer = :customer_id, city = :/new.city,"
                                                     " document = :$payload WHERE id = :$aggregate_id"}},
}


def insert(ws, collection: str, documents: list[dict]) -> None:
    """As a raw command: PyMongo's own insert refuses names with dots and dollars, which the server accepts."""
    assert ws.db.command("insert", collection, documents=documents, codec_options=ws.db.codec_options)["ok"]


def put(ws, *events: tuple) -> list[dict]:
    documents = [ws.event(id, type, version=version, **payload) for id, type, version, payload in events]
    insert(ws, "outbox", documents)
    ws.run_once()
    assert list(ws.outbox.find({}, {"last_error.message": 1})) == []
    return documents


def row(ws, id: str = "o-1") -> dict:
    [found] = [r for r in ws.rows("orders") if r["id"] == id]
    return found


def test_values_of_events(ws):
    ws.mapping([PROJECTION])
    ws.create()
    new = {"customer_id": "c-1", "customer": "old", "address.city": "Bern", "$ref": [{"name": "Ann"}], "price": Decimal128("12.50")}
    put(ws, ("o-1", "Placed", 1, new), ("o-2", "Placed", 1, {"customer": "c-2"}))
    first, second = row(ws), row(ws, "o-2")
    assert (first["tenant"], first["source"], first["customer"], first["city"], first["owner"], str(first["price"]), first["visits"]) == (
        "acme", "outbox", "c-1", "Bern", "Ann", "12.50", 0)
    assert json.loads(first["document"])["address.city"] == "Bern"
    assert (second["customer"], second["city"], second["owner"], str(second["price"])) == ("c-2", "", None, "0.00")
    put(ws, ("o-1", "Seen", 2, {}), ("o-1", "Seen", 3, {}), ("o-1", "Raised", 4, {"amount": 0.5}), ("o-1", "Renamed", 5, {"customer": "c-3"}))
    first = row(ws)
    assert (first["visits"], str(first["price"]), first["customer"], first["city"]) == (2, "13.00", "c-3", "")
    put(ws, ("o-1", "Moved", 6, {}))
    assert row(ws)["city"] == "nowhere"
    put(ws, ("o-1", "Stated", 7, {"customer": "c-4", "new.city": "Chur"}))
    first = row(ws)
    assert (first["customer"], first["city"], json.loads(first["document"])) == ("c-4", "Chur", {"customer": "c-4", "new.city": "Chur"})


def test_values_of_entities(ws, state_folder):
    """Refresh, reconcile and rebuild look in the same places as events do; a constant applies to the entity too."""
    ws.mapping([PROJECTION])
    ws.create()
    insert(ws, "orders", [{"_id": "o-1", "version": Int64(1), "customer": "c-1", "address.city": "Bern", "visits": 2},
                          {"_id": "o-2", "version": Int64(1), "customer_id": "c-2", "$ref": [{"name": "Ann"}]}])
    for command in (["refresh", "account", "o-1"], ["rebuild"], ["rebuild", "--shadow"], ["reconcile"]):
        done = ws.projector(*command)
        assert done.returncode == 0, done.stdout + done.stderr
    assert [(r["id"], r["tenant"], r["customer"], r["city"], r["owner"], r["visits"]) for r in ws.rows("orders")] == [
        ("o-1", "acme", "c-1", "Bern", None, 2), ("o-2", "acme", "c-2", "", "Ann", 0)]
    ws.query("UPDATE orders SET source = 'other' WHERE id = 'o-2'")
    done = ws.projector("reconcile", "--json", "--repair")
    [found] = [json.loads(line) for line in done.stdout.splitlines() if "\"difference\"" in line]
    assert found["columns"] == {"source": {"entity": "outbox", "row": "other"}}
    assert row(ws, "o-2")["source"] == "outbox"


def test_what_is_nowhere_names_every_place(ws):
    ws.mapping([PROJECTION], backoff_ms=300000)
    ws.create()
    event = ws.event("o-1", "Placed")
    ws.put(event)
    ws.projector("run", "--once")
    assert ws.found(event)["last_error"]["message"] == (
        "orders: payload.customer_id or payload.customer: expected varchar(40), found nothing")


def test_plain_json(ws, state_folder):
    """Numbers as numbers, times and ids as text; reconcile finds them equal on every server."""
    ws.mapping([{"aggregate_type": "account", "table": "documents", "entities": "documents",
                 "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}},
                 "columns": {"document": {"from": "document", "type": "json", "json": "plain"}}, "events": {"Put": {"op": "upsert"}}}],
               backoff_ms=300000)
    ws.create()
    document = {"money": Decimal128("12.50"), "big": Int64(2**63 - 1), "real": 0.1, "at": datetime(2024, 2, 29, 1, 2, 3, 4000),
                "oid": ObjectId("65a000000000000000000001"), "list": [None, True, {"n": Decimal128("-3")}], "text": "q\"\\ \N{ROCKET}"}
    bad = ws.event("d-2", "Put", document={"n": Decimal128("1.23456789012345678901E-40")})
    ws.put(ws.event("d-1", "Put", version=1, document=document), bad)
    ws.projector("run", "--once")
    [found] = ws.rows("documents")
    assert json.loads(found["document"]) == {
        "money": 12.5, "big": 2**63 - 1, "real": 0.1, "at": "2024-02-29T01:02:03.004Z", "oid": "65a000000000000000000001",
        "list": [None, True, {"n": -3}], "text": "q\"\\ \N{ROCKET}"}
    assert "that plain JSON does not hold exactly" in ws.found(bad)["last_error"]["message"]
    ws.db["documents"].insert_one({"_id": "d-1", "version": Int64(1), "document": document})
    assert ws.projector("reconcile").returncode == 0


def test_always_is_set_by_every_update_and_delta_but_not_by_a_late_one(ws):
    ws.mapping([{"aggregate_type": "account", "table": "counters", "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}},
                 "columns": {"n": {"from": "n", "type": "int"}, "name": {"from": "name", "type": "varchar(9)", "default": ""},
                             "updated_at": {"from": "$occurred_at", "type": "datetime(3)"}},
                 "always": ["updated_at"],
                 "events": {"Put": {"op": "upsert"}, "Added": {"op": "add", "columns": {"n": "by"}}, "Taken": {"op": "subtract", "columns": {"n": "by"}},
                            "Named": {"op": "update", "columns": ["name"]}}}])
    ws.create()
    at = [datetime(2026, 1, 1, 0, 0, n) for n in range(7)]

    def apply(*events: tuple) -> tuple:
        ws.put([ws.event("c", type, at=at[n], **payload) for type, n, payload in events])
        ws.run_once()
        [row] = ws.rows("counters")
        return row["n"], row["name"], row["updated_at"]

    assert apply(("Put", 0, {"n": 1}), ("Added", 1, {"by": 2})) == (3, "", at[1])  # folded into one row
    assert apply(("Added", 2, {"by": 2}), ("Taken", 3, {"by": 1})) == (4, "", at[3])  # folded into one sum
    assert apply(("Named", 5, {"name": "x"})) == (4, "x", at[5])
    assert apply(("Added", 4, {"by": 10})) == (14, "x", at[5])  # late: only the delta


def test_rows_of_the_rarer_types_are_compared_exactly(ws, state_folder):
    """A float is read with all its digits, a bit as a number, a time as the mapping writes it."""
    types = {"f": ("float", 1234567.5), "b": ("bit(1)", True), "t": ("time(3)", "-12:34:56.5"), "e": ("enum('a','b')", "b"), "y": ("year", 2155)}
    ws.mapping([{"aggregate_type": "account", "table": "rare", "entities": "rare", "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}},
                 "columns": {name: {"from": name, "type": type} for name, (type, _) in types.items()}, "events": {"Put": {"op": "upsert"}}}])
    ws.create()
    assert ws.projector("check").returncode == 0
    values = {name: value for name, (_, value) in types.items()}
    ws.put(ws.event("r-1", "Put", version=1, **values))
    ws.run_once()
    ws.db["rare"].insert_one({"_id": "r-1", "version": Int64(1), **values})
    done = ws.projector("reconcile", "--json")
    assert done.returncode == 0, done.stdout
    ws.query("UPDATE rare SET f = 1234567.625, b = 0, t = '-12:34:56.501', e = 'a', y = 2154")
    [found] = [json.loads(line) for line in ws.projector("reconcile", "--json").stdout.splitlines() if "\"difference\"" in line]
    assert sorted(found["columns"]) == ["b", "e", "f", "t", "y"]


WIDE = {"money": "0.1234567890123456789", "negative": "-98765432109876543210.5", "natural": "123456789012345678901234567890", "tiny": "1E-29"}


@pytest.mark.parametrize("op", ["upsert", "update"])
def test_plain_json_keeps_every_digit_of_a_number(ws, state_folder, op):
    """Whether the server keeps JSON as text or numbers as doubles: what both can hold arrives with all its digits."""
    ws.mapping([{"aggregate_type": "account", "table": "documents", "entities": "documents",
                 "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}},
                 "columns": {"document": {"from": "document", "type": "json", "json": "plain", "default": {}}},
                 "events": {"Made": {"op": "upsert"}, "Put": {"op": op, **({"columns": ["document"]} if op == "update" else {})}}}],
               backoff_ms=300000)
    ws.create()
    documents = {"d-1": {"a\"b\\ \n\N{ROCKET}": [1, 0.1, {"n": Decimal128(text), "also": None, "in": ["x", True, []]}]} for text in WIDE.values()}
    documents = {f"d-{n}": {"a\"b\\ \n\N{ROCKET}": [1, 0.1, {"n": Decimal128(text), "also": None, "in": ["x,y:", True, [], {}]}], "u": 2**63}
                 if n != 2 else {"n": Decimal128(text)} for n, text in enumerate(WIDE.values())}
    documents = {id: {k: Decimal128(str(v)) if v == 2**63 else v for k, v in d.items()} for id, d in documents.items()}
    documents["d-9"] = {"plain": [1, "0.5"]}  # in the same statement, without a wide number
    ws.put([ws.event(id, "Made", version=1) for id in documents], [ws.event(id, "Put", version=2, document=d) for id, d in documents.items()])
    ws.run_once()
    rows = {row["id"]: json.loads(row["document"], parse_float=Decimal) for row in ws.rows("documents")}
    expected = {id: json.loads(json.dumps(d, default=lambda number: f"#{number.to_decimal():f}#").replace('"#', "").replace('#"', ""), parse_float=Decimal)
                for id, d in documents.items()}
    assert rows == expected
    ws.db["documents"].insert_many({"_id": id, "version": Int64(2), "document": d} for id, d in documents.items())
    done = ws.projector("reconcile", "--json")
    assert done.returncode == 0, done.stdout
    ws.db["documents"].update_one({"_id": "d-2"}, {"$set": {"document.n": Decimal128("123456789012345678901234567891")}})
    assert ws.projector("reconcile").returncode == 1  # off by one in the last place, which no double shows


def test_numbers_that_no_json_column_holds_are_that_events_failure(ws):
    ws.mapping([{"aggregate_type": "account", "table": "documents", "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}},
                 "columns": {"document": {"from": "document", "type": "json", "json": "plain"}}, "events": {"Put": {"op": "upsert"}}}],
               backoff_ms=300000)
    ws.create()
    wrong = [ws.event(f"d-{text[:9]}", "Put", document={"n": Decimal128(text)}) for text in ("1.23456789012345678901E-40", "1234567890123456789012345678901234E+60", "NaN")]
    ws.put(wrong)
    ws.projector("run", "--once")
    for event in wrong:
        assert "that plain JSON does not hold exactly" in ws.found(event)["last_error"]["message"]
    assert ws.rows("documents") == []
