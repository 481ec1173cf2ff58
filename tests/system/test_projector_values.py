"""Values: what MongoDB holds arrives in MySQL unchanged on every
path or fails as its event's error; hostile texts do no harm."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import uuid
from datetime import date, datetime, timedelta
from decimal import Decimal, localcontext

import pytest
from bson import Binary, Decimal128, Int64, ObjectId

ROCKET = "\N{ROCKET}"
UUID = uuid.UUID("00ff10a0-0000-4000-8000-5c2700220a1a")
OID = ObjectId("00ff5c27220a0d1a00000000")
BYTES = bytes(range(256))
TEXTS = ["", " ", "trailing ", "q'uo\"te`", "back\\slash \\' \\", "NUL \0 in \0", "line\nfeed\r\ttab\x1a\x7f", f"é ü 漢 {ROCKET}\u202e",
         "'; DROP TABLE v; --", "%s %d ${HOME} :$aggregate_id ? /* x */ # y", "\u0000", "_utf8mb4 X'41'"]

# type, values: (BSON value, what MySQL must return) or a value that is the same in both
VALUES: list[tuple[str, list]] = [
    ("boolean", [(True, 1), (False, 0), (1, 1)]),
    ("tinyint", [-128, 127, 0]),
    ("tinyint unsigned", [0, 255]),
    ("smallint", [-2**15, 2**15 - 1]),
    ("smallint unsigned", [2**16 - 1]),
    ("mediumint", [-2**23, 2**23 - 1]),
    ("mediumint unsigned", [2**24 - 1]),
    ("int", [-2**31, 2**31 - 1, (7.0, 7), (Decimal128("7E1"), 70)]),
    ("int unsigned", [(Int64(2**32 - 1), 2**32 - 1)]),
    ("bigint", [(Int64(-2**63), -2**63), (Int64(2**63 - 1), 2**63 - 1), 0, (Decimal128("-9223372036854775808"), -2**63)]),
    ("bigint unsigned", [(Int64(2**63 - 1), 2**63 - 1), (Decimal128("18446744073709551615"), 2**64 - 1), 0]),
    ("double", [0.1, -1.7976931348623157e308, 5e-324, 2.2250738585072014e-308, 1 / 3, (2**53, float(2**53)), 123456789.12345679]),
    ("decimal(65,30)", [(Decimal128(t), Decimal(t)) for t in ("1234567890123456789012345678901234", "-0.000000000000000000000000000001",
                                                            "1234567890.123456789012345678901234", "0", "-0")]),
    ("decimal(34,0)", [(Decimal128(t), Decimal(t)) for t in ("9" * 34, "-" + "9" * 34, "1E33")]),
    ("decimal(18,2)", [(Decimal128("-9999999999999999.99"), Decimal("-9999999999999999.99")), (Int64(2**53 + 1), Decimal(2**53 + 1)),
                       (0.07, Decimal("0.07")), ("1.10", Decimal("1.10")), (Decimal128("1.1000"), Decimal("1.10"))]),
    ("char(20)", [t for t in TEXTS if not t.endswith(" ") and len(t) <= 20] + [ROCKET * 20]),
    ("varchar(300)", TEXTS + [ROCKET * 300, (UUID, str(UUID)), (OID, str(OID)), (Int64(-5), "-5")]),
    ("tinytext", [ROCKET * 63 + "xyz", ""]),
    ("text", TEXTS + ["é" * 32767]),
    ("mediumtext", ["x" * 200_000 + ROCKET]),
    ("longtext", ["'" * 100_000]),
    ("binary(12)", [(OID, OID.binary), Binary(b"\0" * 12)]),
    ("varbinary(300)", [Binary(BYTES), Binary(b""), Binary(b"a\0 "), (UUID, UUID.bytes)]),
    ("tinyblob", [Binary(BYTES[1:])]),
    ("blob", [Binary(BYTES * 255)]),
    ("mediumblob", [Binary(BYTES * 500)]),
    ("longblob", [Binary(b"'\\" * 50_000)]),
    ("date", [(datetime(1000, 1, 1), date(1000, 1, 1)), (datetime(9999, 12, 31), date(9999, 12, 31)), ("2024-02-29", date(2024, 2, 29))]),
    ("datetime(3)", [datetime(1000, 1, 1), datetime(1969, 12, 31, 23, 59, 59, 999000), datetime(9999, 12, 31, 23, 59, 59, 999000)]),
    ("datetime(6)", [datetime(2024, 2, 29, 1, 2, 3, 4000), ("2024-02-29T01:02:03.000004Z", datetime(2024, 2, 29, 1, 2, 3, 4))]),
    ("datetime", [datetime(2024, 3, 31, 2, 30), datetime(1, 1, 1), datetime(999, 12, 31, 23, 59, 59),
                  ("2024-02-29T01:02:03+02:00", datetime(2024, 2, 28, 23, 2, 3)), ("2024-02-29T01:02:03.0000000Z", datetime(2024, 2, 29, 1, 2, 3))]),
    ("enum('a','B c')", ["B c", "a"]),
    ("year", [1901, 2155]),
    ("time", ["-838:59:59", ("12:34:56.000", "12:34:56")]),
    ("time(3)", [("12:34:56.5", "12:34:56.500")]),
    ("bit(1)", [(True, b"\x01"), (False, b"\x00"), (1, b"\x01")]),
    ("float", [0.5, -1234.25, (3, 3.0)]),  # as text, a server shows only six of its digits
    ("timestamp(3)", [datetime(1970, 1, 1, 0, 0, 1), datetime(2038, 1, 19, 3, 14, 7, 999000), datetime(2024, 3, 31, 1, 30)]),
    ("uuid", [(UUID, UUID.bytes), (str(UUID), UUID.bytes)]),
    ("json", [({"a": Int64(2**63 - 1), "b": [1, None, True, {"c": f"q\"'\\ {ROCKET} \0"}], "": {}},
               {"a": 2**63 - 1, "b": [1, None, True, {"c": f"q\"'\\ {ROCKET} \0"}], "": {}}),
              ([], []), ([Int64(-2**63), 0.1], [-2**63, 0.1]), ({"d": Decimal128("9" * 34)}, {"d": {"$numberDecimal": "9" * 34}}),
              ("just a text", "just a text"), (5, 5), (False, False),
              ({"_id": OID, "at": datetime(2024, 2, 29)}, {"_id": {"$oid": str(OID)}, "at": {"$date": "2024-02-29T00:00:00Z"}})]),
]


def projection(column_type: str, nullable: bool = False, table: str = "v") -> dict:
    return {"aggregate_type": table, "table": table, "entities": table,
            "key": {"id": {"from": "$aggregate_id", "type": "varchar(64)"}},
            "columns": {"value": {"from": "deep.value", "type": column_type, "null": nullable}},
            "events": {"Put": {"op": "upsert"}, "Changed": {"op": "update", "columns": ["value"]},
                       "Stated": {"op": "sql", "statement": f"UPDATE {table} SET value = :deep.value WHERE id = :$aggregate_id"}}}


def thing(ws, aggregate_id, event_type, value, table: str = "v", **more) -> dict:
    return {**ws.event(aggregate_id, event_type, deep={"value": value}, **more), "aggregate_type": table}


def table_name(column_type: str) -> str:
    return "v_" + re.sub(r"\W+", "_", column_type)


def found(value, column_type: str):
    if isinstance(value, timedelta):
        seconds, micros = abs(value) // timedelta(seconds=1), abs(value) % timedelta(seconds=1) // timedelta(microseconds=1)
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}" + (f".{micros // 1000:03}" if "(" in column_type else "")
        return f"-{clock}" if value < timedelta(0) else clock
    return json.loads(value) if column_type == "json" else value


def pairs(values: list) -> list[tuple]:
    return [v if isinstance(v, tuple) else (v, bytes(v) if isinstance(v, Binary) else v) for v in values]


def same(found, expected) -> bool:
    return found == expected and type(found) is type(expected)


PATHS = ("upsert", "update", "sql", "refresh")


@pytest.mark.thorough
def test_values_arrive_unchanged_on_every_path(ws):
    """Upsert; update and bound parameter, on a row that holds another
    value; refresh from the entity. One table per type."""
    ws.mapping([projection(t, table=table_name(t)) for t, _ in VALUES], backoff_ms=300000)
    ws.create()
    cases = [(t, f"{n} {path}", path, value, pairs(values)[-1][0], expected)
             for t, values in VALUES for n, (value, expected) in enumerate(pairs(values)) for path in PATHS]
    ws.put(thing(ws, id, "Put", value if path == "upsert" else other, table_name(t), version=1) for t, id, path, value, other, _ in cases)
    ws.run_once()
    events = []
    for t, id, path, value, other, _ in cases:
        match path:
            case "update": events.append(thing(ws, id, "Changed", value, table_name(t), version=2))
            case "sql": events.append(thing(ws, id, "Stated", value, table_name(t), version=2))
            case "refresh":
                ws.db[table_name(t)].insert_one({"_id": id, "version": 9, "deep": {"value": value}})
                events.append(thing(ws, id, "Changed", other, table_name(t), at=datetime(2000, 1, 1)))  # late
    ws.put(sorted(events, key=lambda e: e["event_type"]))
    ws.run_once()
    assert [(e["aggregate_type"], e["aggregate_id"], e["last_error"]["message"]) for e in ws.outbox.find()] == []
    rows = {(t, row["id"]): found(row["value"], t) for t, _ in VALUES for row in ws.rows(table_name(t))}
    wrong = {(t, id): (rows[t, id], expected) for t, id, *_, expected in cases if not same(rows[t, id], expected)}
    assert not wrong


MISSING = object()
NOT_FITTING = [
    ("boolean", [2, "true", 1.0, None]),
    ("tinyint", [128, -129, "1", 1.5, True, Decimal128("1.5"), Decimal128("NaN"), float("inf")]),
    ("tinyint unsigned", [-1, 256]),
    ("mediumint", [2**23]),
    ("int unsigned", [-1, Int64(2**32)]),
    ("bigint", [Decimal128("9223372036854775808"), 1e19, "5"]),
    ("bigint unsigned", [Int64(-1), Decimal128("18446744073709551616")]),
    ("double", [Int64(2**53 + 1), Decimal128("0.1"), "0.1", float("nan"), float("inf"), float("-inf")]),
    ("decimal(18,2)", [Decimal128("0.001"), Decimal128("10000000000000000"), Decimal128("Infinity"), 0.001, "1,5", "", True]),
    ("char(3)", ["abcd", "ab ", 5.5]),
    ("varchar(3)", ["abcd", ROCKET * 4, {"a": 1}, [1], True, Binary(b"a")]),
    ("tinytext", [ROCKET * 64]),
    ("binary(12)", [Binary(b"\0" * 11), Binary(b"\0" * 13), UUID, "x" * 12]),
    ("varbinary(3)", [Binary(b"abcd"), "abc"]),
    ("date", [datetime(2024, 1, 1, 0, 0, 0, 1000), "2023-02-29", "yesterday", 5]),
    ("datetime(3)", ["2024-02-29T01:02:03.000004Z", "2024-01-01", Int64(1)]),
    ("datetime", [datetime(2024, 1, 1, 0, 0, 0, 1000)]),
    ("timestamp(3)", [datetime(1970, 1, 1), datetime(2038, 1, 19, 3, 14, 8)]),
    ("uuid", [Binary(b"\0" * 16), "not a uuid", OID, str(UUID)[:-1]]),
    ("json", [None]),
]


FITTING = {"binary(12)": OID, "varbinary(3)": Binary(b"a"), "uuid": UUID, "char(3)": "a", "varchar(3)": "a", "tinytext": "a",
           **{t: datetime(2024, 1, 1) for t in ("date", "datetime(3)", "datetime", "timestamp(3)")}}


def test_what_does_not_fit_is_its_events_error_and_changes_no_row(ws):
    ws.mapping([projection(t, table=table_name(t)) for t, _ in NOT_FITTING], backoff_ms=300000)
    ws.create()
    cases = [(t, f"{n} {event_type}", event_type, value) for t, values in NOT_FITTING for n, value in enumerate([*values, MISSING])
             for event_type in ("Put", "Changed", "Stated")]
    ws.put(thing(ws, id, "Put", FITTING.get(t, 1), table_name(t)) for t, id, *_ in cases)
    ws.run_once()
    before = {t: ws.rows(table_name(t)) for t, _ in NOT_FITTING}
    assert sum(len(rows) for rows in before.values()) == len(cases)
    events = [thing(ws, id, event_type, value, table_name(t)) for t, id, event_type, value in cases]
    for event in events:
        if event["payload"]["deep"]["value"] is MISSING:
            event["payload"]["deep"] = {}
    ws.put(events)
    ws.run_once()
    assert {t: ws.rows(table_name(t)) for t, _ in NOT_FITTING} == before
    errors = {e["_id"]: e["last_error"] for e in ws.outbox.find()}
    assert errors.keys() == {e["_id"] for e in events}
    for event, (t, _, event_type, value) in zip(events, cases):
        found = {None: "null", MISSING: "nothing"}.get(value if value is None or value is MISSING else 0, ".+")
        message = rf"{table_name(t)}: payload\.deep\.value: expected {re.escape(t)}, found {found}"
        assert re.fullmatch(message, errors[event["_id"]]["message"]), (t, value, errors[event["_id"]])
        assert errors[event["_id"]]["class"] == "data"


def test_null_and_missing_become_null_where_the_column_allows_it(ws):
    ws.mapping([projection("json", nullable=True)])
    ws.create()
    events = [thing(ws, f"{n}{kind}", "Put", None) for n, kind in enumerate(("null", "missing"))]
    del events[1]["payload"]["deep"]["value"]
    change, state = thing(ws, "2", "Put", 5), thing(ws, "3", "Put", 5)
    ws.put(events, change, state, thing(ws, "2", "Changed", None), thing(ws, "3", "Stated", None))
    ws.run_once()
    assert [row["value"] for row in ws.rows("v")] == [None] * 4


def test_parameters_without_a_column_are_bound_as_what_they_are(ws):
    p = projection("longtext", nullable=True)
    p["events"]["Stated"]["statement"] = ("INSERT INTO v (id, value) VALUES (:$aggregate_id, CONCAT_WS('|', :i, :d, :t, :b, :n, HEX(:x), :at,"
                                          " :$version, :$occurred_at, :$event_type, :$metadata.tenant.name, :$event_id, :u, :o, :j))")
    ws.mapping([p])
    ws.create()
    event = {**thing(ws, "a'b", "Stated", 0, version=7, at=datetime(2024, 2, 29, 1, 2, 3, 4000)), "metadata": {"tenant": {"name": "t'\\"}}}
    event["payload"] = {"i": Int64(-2**63), "d": Decimal128("0.12"), "t": "x'\\\0y", "b": True, "n": None, "x": Binary(b"\0\xff"),
                        "at": datetime(1969, 12, 31, 23, 59, 59, 5000), "u": UUID, "o": OID, "j": {"k": [1]}}
    ws.mapping([p], gap_wait_ms=0)
    ws.put(event)
    ws.run_once()
    [row] = ws.rows("v")
    assert row == {"id": "a'b", "value": "|".join([str(-2**63), "0.12", "x'\\\0y", "1", "00FF", "1969-12-31 23:59:59.005", "7",
                                                   "2024-02-29 01:02:03.004", "Stated", "t'\\", str(event["_id"]), str(UUID), str(OID),
                                                   '{ "k" : [ 1 ] }'])}


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("key_type, ids", [
    ("bigint", [Int64(-2**63), -1, 0, Int64(2**63 - 1)]), ("varchar(64)", ["", "a", "A", "a ", "ä", "é\0", ROCKET]),
    ("uuid", [UUID, uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)]), ("binary(12)", [OID, ObjectId(b"\0" * 12), ObjectId(b" " * 12)]),
    ("decimal(20,0)", [5, Int64(-2**63)]), ("varchar(36)", [UUID, OID, 5, "x"])], ids=lambda v: v if isinstance(v, str) else "")
def test_rows_are_found_by_keys_of_every_type(ws, key_type, ids):
    """Including keys that a looser comparison would consider equal: case, accents, a trailing blank."""
    p = projection("bigint")
    p["key"]["id"]["type"] = key_type
    p["events"].update(Up={"op": "add", "columns": {"value": "deep.value"}}, Gone={"op": "delete"})
    ids = [i for i in ids if i != ""]  # an id has at least one byte
    ws.mapping([p])
    ws.create()
    ws.put([thing(ws, i, "Put", n) for n, i in enumerate(ids)])
    ws.run_once()
    ws.put([thing(ws, i, "Up", 100) for i in ids], thing(ws, ids[0], "Changed", -5))
    ws.run_once()
    values = [-5, *(100 + n for n in range(1, len(ids)))]
    assert sorted(row["value"] for row in ws.rows("v")) == values
    ws.put(thing(ws, ids[0], "Gone", 0))
    ws.run_once()
    assert sorted(row["value"] for row in ws.rows("v")) == values[1:]


def number(value) -> int | float | Decimal:
    return value.to_decimal() if isinstance(value, Decimal128) else value


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("name", ["n", "v", "t", "k0", "new", "select"])
def test_a_table_may_have_any_name(ws, name):
    """Whatever names the statements use for their own parts."""
    ws.mapping([{"aggregate_type": "account", "table": name, "key": {"id": {"from": "$aggregate_id", "type": "varchar(20)"}},
                 "columns": {name: {"from": "value", "type": "int"}},
                 "events": {"Set": {"op": "upsert"}, "Changed": {"op": "update", "columns": [name]}, "Added": {"op": "add", "columns": {name: "value"}},
                            "Removed": {"op": "delete"}}}])
    ws.create()
    for event_type, value in (("Set", 1), ("Set", 2), ("Changed", 3), ("Added", 4)):
        ws.put(ws.event("a", event_type, value=value), ws.event("b", event_type, value=-value))
        ws.run_once()
    assert ws.rows(f"`{name}`") == [{"id": "a", name: 7}, {"id": "b", name: -7}]
    ws.put(ws.event("a", "Removed"))
    ws.run_once()
    assert ws.rows(f"`{name}`") == [{"id": "b", name: -7}]


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("column_type, first, deltas", [
    ("bigint", Int64(2**63 - 11), [1] * 10), ("bigint unsigned", Decimal128("18446744073709551605"), [1] * 10),
    ("decimal(65,30)", Decimal128("1234567890123456789012345678901234"), [Decimal128("0.000000000000000000000000000001")] * 9),
    ("tinyint", -128, [100, 100, 55]), ("double", 0.0, [0.1] * 10)])
def test_deltas_are_exact_within_a_batch_and_across(ws, column_type, first, deltas):
    p = projection(column_type)
    p["events"].update(Up={"op": "add", "columns": {"value": "deep.value"}}, Down={"op": "subtract", "columns": {"value": "deep.value"}})
    expected = number(first)
    with localcontext(prec=70):
        for delta in deltas:
            expected += number(delta)
        down = expected
        for delta in deltas[:-1]:
            down -= number(delta)
    ws.mapping([p])
    ws.create()
    ws.put(thing(ws, "t0", "Put", first), thing(ws, "t1", "Put", first))
    ws.run_once()
    for id, batch in ("t0", 500), ("t1", 1):
        ws.mapping([p], batch=batch)
        ws.put([thing(ws, id, "Up", d) for d in deltas])
        ws.run_once()
        assert list(ws.outbox.find()) == []
        assert {row["id"]: row["value"] for row in ws.rows("v")}[id] == expected
    ws.put([thing(ws, id, "Down", d) for d in deltas[:-1]], thing(ws, "t0", "Up", 1))
    ws.run_once()
    rows = {row["id"]: row["value"] for row in ws.rows("v")}
    assert ws.outbox.count_documents({"last_error.code": {"$in": [1264, 1690]}}) == (column_type not in ("double", "decimal(65,30)"))
    assert rows["t1"] == down


HOSTILE = ["' OR '1'='1", "\\", "\\'; DROP TABLE account; -- ", "a\nb 2026-01-01T00:00:00.000Z error forged=1", "\r\nX: y", "x\0y",
           "$where", "$$NOW", "{$ne: 1}", "%n%s%x", "`;`", "x" * 64, f"{ROCKET}" * 16, "\u202egnp.exe", "\x1b[2J\x07", "../../etc/passwd"]


def test_hostile_ids_and_texts_do_no_harm(bank):
    bank.mapping(backoff_ms=300000)
    opened, renamed, failing = [], [], []
    for n, text in enumerate(HOSTILE):
        account = text[:36]
        opened.append({**bank.event(account, "AccountOpened", user_id=account, name=text, balance=Decimal128("1")), "_id": text})
        renamed.append({**bank.event(account, "AccountRenamed", name=text[::-1]), "_id": text[:-1] + "2"})
        failing.append({**bank.event(account, text, why=text), "_id": text[:-1] + "3", "metadata": {"key " + re.sub("[\0.$]", "", text): text}})
    bank.put(opened)
    bank.run_once()
    bank.put(renamed, failing)
    done = bank.run_once()
    rows = {row["account_id"]: row["name"] for row in bank.rows("account")}
    assert rows == {text[:36]: text[::-1] for text in HOSTILE}
    ids = {e["_id"] for e in opened + renamed}
    assert bank.ledger().keys() == {i.encode().decode() for i in ids} and len(bank.ledger()) == 2 * len(HOSTILE)
    assert bank.outbox.count_documents({"status": "failed"}) == len(HOSTILE)
    for event in failing:
        assert "expected one that a projection of account names" in bank.found(event)["last_error"]["message"]
    for line in done.stderr.splitlines():
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (info|warning|error) [a-zM]", line), line
        assert not re.search(r"[\x00-\x1f\x7f]", line) and " error forged" not in line.split('"')[0], line
    failed = {re.search(r' event=("(?:[^"\\]|\\.)*"|\S+)', line)[1] for line in done.stderr.splitlines() if " event failed " in line}
    assert len(failed) == len(HOSTILE)
    assert {row["n"] for row in bank.query("SELECT COUNT(*) AS n FROM projector_position")} == {len(HOSTILE)}


def test_the_json_log_stays_json_whatever_the_texts(bank):
    bank.mapping(backoff_ms=300000, log="json")
    bank.put([{**bank.event(text[:36], text, why=text), "_id": text} for text in HOSTILE])
    lines = [json.loads(line) for line in bank.run_once().stderr.splitlines()]
    assert {"time", "level", "message"} <= set.intersection(*(set(line) for line in lines))
    failed = {line["event"] for line in lines if line["message"] == "event failed"}
    assert failed >= {text for text in HOSTILE if "\0" not in text}
    assert len(failed) == len(HOSTILE)


def test_any_bytes_in_ids_are_kept_apart(bank):
    """64 bytes each, so that nothing is truncated: all event ids and aggregate ids are distinct."""
    rnd = random.Random(4)
    ids = sorted({"".join(chr(rnd.randrange(0, 128)) for _ in range(64)) for _ in range(300)})
    bank.put([{**bank.event(i[:36], "AccountOpened", user_id="u", name=i, balance=Decimal128("0")), "_id": i} for i in ids])
    bank.run_once()
    assert {(row["account_id"], row["name"]) for row in bank.rows("account")} == {(i[:36], i) for i in ids}
    assert set(bank.ledger()) == set(ids)


@pytest.mark.thorough
def test_large_payloads_are_split_into_statements(ws):
    """More than max_allowed_packet in one batch, with rows of a megabyte."""
    ws.mapping([projection("longblob")], batch=200, workers=1)
    ws.create()
    blob = os.urandom(1_000_000)
    ws.put(thing(ws, f"t{n}", "Put", Binary(blob[n:])) for n in range(30))
    ws.run_once()
    rows = ws.query("SELECT id, SHA2(value, 256) AS sha FROM v WHERE id = 't0'")
    assert rows[0]["sha"] == hashlib.sha256(blob).hexdigest()
    assert {row["length"] for row in ws.query("SELECT LENGTH(value) AS length FROM v")} == {1_000_000 - n for n in range(30)}
