"""Child tables: the rows of an array follow their parent's row through every operation and every command."""

from __future__ import annotations

import copy
import json
import random
import signal
from collections import Counter
from datetime import datetime

import pytest
from bson import Int64

from refusals import MysqlWire, Refusing, refusing_port
from test_projector_rebuild import waiting
from workspace import ROOT, WAIT_S

ORDERS = {"aggregate_type": "order", "table": "orders", "entities": "orders",
          "key": {"order_id": {"from": "$aggregate_id", "type": "varchar(36)"}},
          "columns": {"customer": {"from": "customer", "type": "varchar(40)"},
                      "total": {"from": "total", "type": "int"},
                      "deleted_at": {"from": "deleted_at", "type": "datetime(3)", "null": True}},
          "children": [{"table": "order_line", "from": "lines",
                        "key": {"line_no": {"from": "$index", "type": "int"}},
                        "columns": {"sku": {"from": "$item.sku", "type": "varchar(20)"},
                                    "qty": {"from": "$item.qty", "type": "int"}}},
                       {"table": "order_tag", "from": "tags", "default": [],
                        "key": {"tag": {"from": "$item", "type": "varchar(20)"}}}],
          "events": {"OrderPlaced": {"op": "upsert"},
                     "OrderMoved": {"op": "update", "columns": ["customer"]},
                     "LinesChanged": {"op": "update", "columns": ["total", "order_line"]},
                     "TagsChanged": {"op": "update", "columns": {"order_tag": "new_tags"}},
                     "TotalRaised": {"op": "add", "columns": {"total": "by"}},
                     "OrderRemoved": {"op": "delete"},
                     "OrderCancelled": {"op": "delete", "set": {"deleted_at": "$occurred_at"}}}}


@pytest.fixture
def shop(ws, tmp_path):
    ws.environment["XDG_STATE_HOME"] = str(tmp_path / "state")
    ws.mapping([ORDERS], backoff_ms=20, max_attempts=2, gap_wait_ms=50)
    ws.create()
    return ws


def lines_of(*parts: str) -> list[dict]:
    """"apple 2" means two apples."""
    return [{"sku": part.split()[0], "qty": int(part.split()[1])} for part in parts]


def order(number: int, *lines: str, version: int = 1, **changes) -> dict:
    return {"_id": f"o{number}", "customer": f"c{number}", "total": 10, "lines": lines_of(*lines), "version": Int64(version), **changes}


def event(ws, aggregate: str, event_type: str, version: int | None, **payload) -> dict:
    return {**ws.event(aggregate, event_type, version, **payload), "aggregate_type": "order"}


def placed(ws, entity: dict) -> dict:
    payload = {k: v for k, v in entity.items() if k not in ("_id", "version")}
    return event(ws, entity["_id"], "OrderPlaced", entity["version"], **payload)


def place(ws, *entities: dict) -> None:
    for entity in entities:
        ws.db["orders"].replace_one({"_id": entity["_id"]}, entity, upsert=True)
    ws.put(placed(ws, entity) for entity in entities)
    ws.run_once()


def lines(ws) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in ws.query("SELECT * FROM order_line ORDER BY order_id, line_no"):
        found.setdefault(row["order_id"], []).append(f"{row['sku']} {row['qty']}")
    return found


def tags(ws) -> list[tuple]:
    return [(row["order_id"], row["tag"]) for row in ws.query("SELECT * FROM order_tag ORDER BY 1, 2")]


def told(ws, command: str, *arguments: str, status: int = 0) -> list[dict]:
    done = ws.projector(command, "--json", *arguments, timeout=2 * WAIT_S)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def differences(ws, *arguments: str, status: int = 0) -> list[tuple]:
    return sorted((line["table"], line["difference"], line["aggregate_id"], line["key"].get("line_no", line["key"].get("tag")))
                  for line in told(ws, "reconcile", *arguments, status=status) if "difference" in line)


# the effect of events


def test_an_upsert_replaces_the_rows(shop):
    place(shop, order(1, "apple 1", "pear 2", tags=["new"]), order(2, "fig 3"))
    assert lines(shop) == {"o1": ["apple 1", "pear 2"], "o2": ["fig 3"]}
    place(shop, order(1, "apple 1", version=2, tags=["old", "sale"]))
    assert lines(shop) == {"o1": ["apple 1"], "o2": ["fig 3"]}
    assert tags(shop) == [("o1", "old"), ("o1", "sale")]
    place(shop, order(1, version=3))
    assert (lines(shop), tags(shop)) == ({"o2": ["fig 3"]}, [])


def test_what_is_equal_is_not_written_again(shop):
    shop.query("ALTER TABLE order_line ADD COLUMN own INT NOT NULL DEFAULT 0")
    place(shop, order(1, "apple 1", "pear 2", "fig 3"))
    shop.query("UPDATE order_line SET own = 7")
    place(shop, order(1, "apple 1", "pear 9", version=2))
    assert [(row["sku"], row["qty"], row["own"]) for row in shop.rows("order_line")] == [("apple", 1, 7), ("pear", 9, 7)]


class Counting(Refusing):
    """Refuses nothing, and counts the statements that name a table."""

    def __init__(self, table: str) -> None:
        super().__init__()
        self.table = table
        self.verbs: Counter[str] = Counter()

    def meets(self, store: str, shape: str) -> bool:
        if f"`{self.table}`" in shape:
            self.verbs[shape.split()[0]] += 1
        return False


@pytest.mark.thorough
def test_a_batch_takes_the_same_few_statements_however_many_rows_it_has(shop):
    counts = []
    for orders in (1, 60):
        place(shop, *(order(n, "pear 1", "plum 2", "fig 3", version=1) for n in range(orders)))
        counting = Counting("order_line")
        with refusing_port(counting, "mysql", MysqlWire, shop.stores.mysql_port) as port:
            shop.mapping([ORDERS], workers=1, batch=orders, linger_ms=5000, mysql={"host": "127.0.0.1", "port": port})
            changed = [order(n, "pear 1", "plum 5", version=2) if n % 2 == 0 else order(n, "pear 1", "plum 2", "fig 3", "kiwi 1", version=2)
                       for n in range(orders)]
            place(shop, *changed)
        shop.mapping([ORDERS], workers=1)
        assert lines(shop) == {f"o{n}": ["pear 1", "plum 5"] if n % 2 == 0 else ["pear 1", "plum 2", "fig 3", "kiwi 1"] for n in range(orders)}
        counts.append(counting.verbs)
        place(shop, *(order(n, version=3) for n in range(orders)))
        shop.query("DELETE FROM projector_position")
        shop.query("DELETE FROM orders")
    assert counts == [{"SELECT": 1, "DELETE": 1, "INSERT": 1}, {"SELECT": 1, "DELETE": 1, "INSERT": 2}]


def test_an_upsert_without_the_array_fails(shop):
    wrong = [event(shop, "o1", "OrderPlaced", 1, customer="c", total=1), event(shop, "o2", "OrderPlaced", 1, customer="c", total=1, lines="x"),
             event(shop, "o3", "OrderPlaced", 1, customer="c", total=1, lines=[{"sku": "a"}]),
             event(shop, "o4", "OrderPlaced", 1, customer="c", total=1, lines=[], tags=["a", "b", "a"])]
    shop.put(wrong)
    shop.projector("run", "--once")
    reasons = [shop.found(e)["last_error"]["message"] for e in wrong]
    assert "payload.lines: expected an array for child table order_line, found nothing" in reasons[0]
    assert "expected an array for child table order_line, found string" in reasons[1]
    assert "order_line, item 0 of lines" in reasons[2] and "$item.qty" in reasons[2]
    assert 'in child table order_tag, found items 0 and 2 with one key: "tag a"' in reasons[3]
    assert shop.rows("orders") == []


def test_keys_that_the_table_takes_for_one_are_that_events_failure(shop):
    shop.query("ALTER TABLE order_tag MODIFY tag VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL")
    good, wrong = placed(shop, order(1, tags=["a"])), placed(shop, order(2, tags=["a", "A"]))
    shop.put(good, wrong)
    shop.projector("run", "--once")
    assert tags(shop) == [("o1", "a")]
    assert shop.found(wrong)["last_error"]["class"] == "data"
    place(shop, order(1, tags=["A"], version=2))
    assert tags(shop) == [("o1", "A")]


def test_an_update_touches_them_only_when_it_names_the_table(shop):
    place(shop, order(1, "apple 1", tags=["x"]))
    shop.put(event(shop, "o1", "OrderMoved", 2, customer="other", lines=lines_of("no 1")))
    shop.run_once()
    assert lines(shop) == {"o1": ["apple 1"]}
    shop.put(event(shop, "o1", "LinesChanged", 3, total=5, lines=lines_of("fig 4", "kiwi 5")))
    shop.put(event(shop, "o1", "TagsChanged", 4, new_tags=["y", "z"]))
    shop.run_once()
    assert (lines(shop), tags(shop)) == ({"o1": ["fig 4", "kiwi 5"]}, [("o1", "y"), ("o1", "z")])
    missing = event(shop, "o9", "TagsChanged", 1, new_tags=["y"])
    shop.put(missing)
    shop.projector("run", "--once")
    assert "row missing in orders" in shop.found(missing)["last_error"]["message"]
    assert ("o9", "y") not in tags(shop)


@pytest.mark.parametrize("in_one_batch", [True, False])
def test_a_delete_takes_them_and_a_later_upsert_brings_none_of_the_old_ones(shop, in_one_batch):
    events = [placed(shop, order(1, "apple 1", "pear 2", "fig 3")), event(shop, "o1", "OrderRemoved", 2), placed(shop, order(1, "kiwi 4", version=3))]
    for e in [events] if in_one_batch else [[e] for e in events]:
        shop.put(e)
        shop.run_once()
    assert lines(shop) == {"o1": ["kiwi 4"]}
    shop.put(event(shop, "o1", "OrderRemoved", 4))
    shop.run_once()
    assert (lines(shop), shop.rows("orders")) == ({}, [])


def test_children_of_a_marked_row_stay(shop):
    place(shop, order(1, "apple 1"), order(2, "fig 1"))
    shop.db["orders"].delete_one({"_id": "o1"})
    shop.put(event(shop, "o1", "OrderCancelled", 2))
    shop.run_once()
    assert lines(shop) == {"o1": ["apple 1"], "o2": ["fig 1"]}
    assert differences(shop) == []
    assert told(shop, "rebuild")[-1]["left"] == 0
    assert lines(shop) == {"o1": ["apple 1"], "o2": ["fig 1"]}
    assert told(shop, "rebuild", "--shadow")[-1]["left"] == 0
    assert lines(shop) == {"o1": ["apple 1"], "o2": ["fig 1"]}
    assert shop.rows("orders")[0]["deleted_at"] is not None


def test_a_late_upsert_is_superseded_with_its_children(shop):
    late = placed(shop, order(1, "old 1", version=1))
    place(shop, order(1, "apple 1", version=2))
    shop.put(late)
    shop.run_once()
    assert lines(shop) == {"o1": ["apple 1"]}


def test_a_late_update_of_children_refreshes(shop):
    late = event(shop, "o1", "LinesChanged", None, total=1, lines=lines_of("late 1"))
    place(shop, order(1, "apple 1", "pear 2", version=1))
    shop.query("DELETE FROM order_line WHERE line_no = 0")
    shop.put(late)
    shop.run_once()
    assert lines(shop) == {"o1": ["apple 1", "pear 2"]}


# commands


def test_schema_and_check_know_child_tables(shop):
    assert "PRIMARY KEY (`order_id`, `line_no`)" in shop.projector("schema").stdout
    assert shop.projector("check").returncode in (0, 1)
    assert "order_line" not in shop.projector("check").stdout
    shop.query("DROP TABLE order_line")
    assert "projections[0].children[0].table: order_line does not exist" in shop.projector("check").stdout
    shop.query("CREATE TABLE order_line (line_no INT, order_id VARCHAR(36) COLLATE utf8mb4_bin, sku VARCHAR(20) NOT NULL, qty INT NOT NULL,"
               " PRIMARY KEY (line_no, order_id), UNIQUE (sku))")
    found = shop.projector("check").stdout
    assert "the key of child table order_line has to begin with that of orders" in found
    assert "a unique key other than" in found


@pytest.mark.parametrize("change, expected", [
    (lambda p: p["children"][0].update(children=[]), "children[0].children: a child table has no child tables of its own"),
    (lambda p: p["children"][1].update(table="order_line"), "another projection fills order_line already"),
    (lambda p: p["children"][1].update(table="customer"), "is a column of orders too"),
    (lambda p: p["children"][0]["key"].update(order_id={"from": "$index", "type": "int"}), "named twice"),
    (lambda p: p["children"][0].update(key={}), "an object with at least one column"),
    (lambda p: p["columns"].update(no={"from": "$item.sku", "type": "int"}), "which only a child table's columns have"),
    (lambda p: p["events"].update(X={"op": "add", "columns": {"order_line": "x"}}), "which only an update can name"),
])
def test_refused_mappings(ws, change, expected):
    projection = copy.deepcopy(ORDERS)
    change(projection)
    ws.mapping([projection])
    done = ws.projector("check")
    assert done.returncode == 2 and expected in done.stderr, done.stderr
    assert "projections[0]" in done.stderr


def test_one_projection_per_child_table(ws):
    ws.mapping([ORDERS, {"aggregate_type": "x", "table": "ORDER_LINE", "key": {"id": {"from": "$aggregate_id", "type": "int"}},
                         "events": {"E": {"op": "upsert"}}}])
    assert "another projection fills ORDER_LINE already" in ws.projector("check").stderr


def spoil(shop) -> list[tuple]:
    shop.query("DELETE FROM order_line WHERE order_id = 'o1' AND line_no = 1")
    shop.query("UPDATE order_line SET qty = 99 WHERE order_id = 'o2'")
    shop.query("INSERT INTO order_tag VALUES ('o3', 'stray')")
    shop.query("INSERT INTO order_line VALUES ('gone', 0, 'x', 1), ('gone', 1, 'y', 1)")
    return [("order_line", "different columns", "o2", "0"), ("order_line", "extra row", "gone", "0"), ("order_line", "extra row", "gone", "1"),
            ("order_line", "missing row", "o1", "1"), ("order_tag", "extra row", "o3", "stray")]


def test_reconcile_finds_each_child_row_and_repairs_it_with_its_parent(shop):
    place(shop, order(1, "apple 1", "pear 2"), order(2, "fig 3"), order(3, "kiwi 4"))
    before = (shop.rows("orders"), lines(shop), tags(shop))
    assert differences(shop) == []
    planted = spoil(shop)
    assert differences(shop, status=1) == planted
    assert differences(shop, "--repair") == planted
    assert (shop.rows("orders"), lines(shop), tags(shop)) == before
    assert differences(shop) == []


def test_child_rows_without_a_row_above_them_are_found(shop):
    """Of an entity that `when` excludes, and of one that is gone."""
    with_customer = {**ORDERS, "when": {"path": "customer", "exists": True}}
    shop.mapping([with_customer], mongodb={"retain": "archive"}, backoff_ms=20)
    place(shop, order(1, "apple 1"), order(2, "pear 2"))
    shop.db["orders"].update_one({"_id": "o1"}, {"$unset": {"customer": ""}})
    shop.db["orders"].delete_one({"_id": "o2"})
    shop.query("DELETE FROM orders")
    expected = [("order_line", "extra row", "o1", "0"), ("order_line", "extra row", "o2", "0")]
    for aggregate in ("o1", "o2"):
        done = shop.projector("explain", "--json", "order", aggregate)
        [projection] = json.loads(done.stdout)["projections"]
        assert projection["finding"] == "extra row" and projection["children"][0]["rows"] == 1
    assert differences(shop, status=1) == expected
    assert differences(shop, "--repair") == expected
    assert lines(shop) == {} and differences(shop) == []


@pytest.mark.thorough
def test_an_entity_that_leaves_the_projection_takes_its_children_along(shop):
    shop.mapping([{**ORDERS, "when": {"path": "total", "is": 10}}], backoff_ms=20, gap_wait_ms=0)
    place(shop, order(1, "apple 1", tags=["new"]), order(2, "fig 2"))
    place(shop, order(1, "apple 1", version=2, total=11, tags=["new"]))
    assert (lines(shop), tags(shop)) == ({"o2": ["fig 2"]}, [])
    shop.db["orders"].update_one({"_id": "o2"}, {"$set": {"total": 11}})
    found = {row[:3] for row in differences(shop, "--repair")}
    assert found == {("orders", "extra row", "o2"), ("order_line", "extra row", "o2")}
    assert (shop.rows("orders"), lines(shop)) == ([], {})
    place(shop, order(1, "kiwi 3", version=3))
    shop.query("DELETE FROM order_line")
    shop.db["orders"].update_one({"_id": "o2"}, {"$set": {"total": 10}})
    assert told(shop, "rebuild", "--shadow")[-1]["left"] == 0
    assert lines(shop) == {"o1": ["kiwi 3"], "o2": ["fig 2"]}


def test_an_entity_without_the_array_has_no_children(shop):
    """An upsert must carry it, an entity need not."""
    place(shop, order(1, "apple 1"))
    shop.db["orders"].update_one({"_id": "o1"}, {"$unset": {"lines": ""}})
    assert differences(shop, status=1) == [("order_line", "extra row", "o1", "0")]
    assert shop.projector("refresh", "order", "o1").returncode == 0
    assert lines(shop) == {} and differences(shop) == []
    assert told(shop, "rebuild", "--shadow")[-1]["left"] == 0


def test_reconcile_leaves_out_what_is_not_to_be_compared(shop):
    projection = json.loads(json.dumps(ORDERS))
    [line] = [child for child in projection["children"] if child["table"] == "order_line"]
    line["columns"]["qty"]["compare"] = False
    shop.mapping([projection], backoff_ms=20)
    place(shop, order(1, "apple 1", "pear 2"))
    shop.query("UPDATE order_line SET qty = 99")
    assert differences(shop) == []
    shop.query("UPDATE order_line SET sku = 'fig' WHERE line_no = 1")
    assert differences(shop, status=1) == [("order_line", "different columns", "o1", "1")]


@pytest.mark.thorough
@pytest.mark.parametrize("shadow", [[], ["--shadow"]])
def test_rebuild_fills_child_tables(shop, shadow):
    place(shop, order(1, "apple 1", "pear 2", tags=["t"]), order(2, "fig 3"), order(3, "kiwi 4"))
    before = (shop.rows("orders"), lines(shop), tags(shop))
    spoil(shop)
    shop.query("DELETE FROM orders WHERE order_id = 'o3'")
    assert told(shop, "rebuild", *shadow)[-1]["left"] == 0
    assert (shop.rows("orders"), lines(shop), tags(shop)) == before
    assert differences(shop) == []


def test_what_a_swap_of_child_tables_would_leave_behind(shop):
    place(shop, order(1, "apple 1"))
    shop.query("CREATE TABLE order_line__old (mine INT)")
    refused = shop.projector("rebuild", "--shadow")
    assert refused.returncode == 2 and "order_line__old exists, from an earlier rebuild" in refused.stderr
    assert shop.rows("order_line__old") == []
    shop.query("DROP TABLE order_line__old")
    shop.query("CREATE TRIGGER spy BEFORE UPDATE ON order_line FOR EACH ROW SET NEW.sku = 'x'")
    refused = shop.projector("rebuild", "--shadow")
    assert refused.returncode == 2 and "order_line is part of the trigger spy" in refused.stderr
    assert lines(shop) == {"o1": ["apple 1"]}


@pytest.mark.thorough
def test_replay_and_archive_verify_know_them(shop):
    shop.mapping([ORDERS], mongodb={"retain": "archive"}, backoff_ms=20)
    place(shop, order(1, "apple 1", "pear 2", tags=["t"]), order(2, "fig 3"))
    shop.db["orders"].update_one({"_id": "o2"}, {"$set": {"lines": lines_of("kiwi 5"), "total": 5, "version": Int64(2)}})
    shop.put(event(shop, "o2", "LinesChanged", 2, total=5, lines=lines_of("kiwi 5")))
    shop.run_once()
    before = (shop.rows("orders"), lines(shop), tags(shop))
    assert told(shop, "archive", "verify")[-1]["equal"] == 2
    shop.query("DELETE FROM order_line")
    shop.query("INSERT INTO order_tag VALUES ('o1', 'wrong')")
    assert shop.projector("replay", "--projection", "orders").returncode == 0
    assert (shop.rows("orders"), lines(shop), tags(shop)) == before
    shop.db["orders"].update_one({"_id": "o1"}, {"$set": {"lines": lines_of("apple 2")}})
    [finding, _] = told(shop, "archive", "verify", status=1)
    assert (finding["finding"], finding["aggregate_id"]) == ("different", "o1")
    assert "order_line" in finding["reason"]


def test_explain_shows_them(shop):
    place(shop, order(1, "apple 1", "pear 2"))
    shop.query("UPDATE order_line SET qty = 5 WHERE line_no = 1")
    document = json.loads(shop.projector("explain", "--json", "order", "o1").stdout)
    [projection] = document["projections"]
    assert projection["finding"] == "different columns"
    assert projection["children"] == [
        {"table": "order_line", "rows": 2, "entity": 2, "different": [{"key": {"line_no": "1"}, "finding": "different columns"}]},
        {"table": "order_tag", "rows": 0, "entity": 0, "different": []}]
    assert "order_line: 2 rows, 2 in the entity" in shop.projector("explain", "order", "o1").stdout


# all of it together


def fold(events: list[dict]) -> dict:
    """The simplest reading of the mapping: rows, lines and tags by order."""
    rows: dict = {}
    for e in events:
        aggregate, kind, payload = e["aggregate_id"], e["event_type"], e["payload"]
        if kind == "OrderPlaced":
            rows[aggregate] = {"customer": payload["customer"], "total": payload["total"], "deleted": None,
                               "lines": [f"{x['sku']} {x['qty']}" for x in payload["lines"]], "tags": sorted(payload.get("tags", []))}
        elif kind == "OrderRemoved":
            rows.pop(aggregate, None)
        elif kind == "OrderCancelled" and aggregate in rows:
            rows[aggregate]["deleted"] = e["occurred_at"]
        elif kind == "OrderMoved":
            rows[aggregate]["customer"] = payload["customer"]
        elif kind == "LinesChanged":
            rows[aggregate].update(total=payload["total"], lines=[f"{x['sku']} {x['qty']}" for x in payload["lines"]])
        elif kind == "TotalRaised":
            rows[aggregate]["total"] += payload["by"]
    return rows


def random_events(ws, seed: int, orders: int, count: int) -> list[dict]:
    """Events that can all be applied in order."""
    chance = random.Random(seed)
    there: dict[str, str] = {}
    versions: dict[str, int] = {}
    events = []
    for _ in range(count):
        aggregate = f"o{chance.randrange(orders)}"
        some = [{"sku": chance.choice("abc"), "qty": chance.randrange(9)} for _ in range(chance.randrange(5))]
        choices = {None: ["OrderPlaced"], "there": ["OrderPlaced", "OrderMoved", "LinesChanged", "TotalRaised", "OrderRemoved", "OrderCancelled"],
                   "marked": ["OrderPlaced", "OrderRemoved", "OrderCancelled", "OrderMoved"]}[there.get(aggregate)]
        kind = chance.choice(choices)
        payload = {"OrderPlaced": {"customer": chance.choice("xyz"), "total": chance.randrange(100), "lines": some,
                                   "tags": sorted(set(chance.choices("pqr", k=chance.randrange(3))))},
                   "OrderMoved": {"customer": chance.choice("uvw")}, "LinesChanged": {"total": chance.randrange(100), "lines": some},
                   "TotalRaised": {"by": 1}}.get(kind, {})
        versions[aggregate] = versions.get(aggregate, 0) + 1
        events.append(event(ws, aggregate, kind, versions[aggregate], **payload))
        there[aggregate] = {"OrderPlaced": "there", "OrderRemoved": None, "OrderCancelled": "marked"}.get(kind, there.get(aggregate))
    return events


def state(ws) -> dict:
    rows = {row["order_id"]: {"customer": row["customer"], "total": row["total"], "deleted": row["deleted_at"], "lines": [], "tags": []}
            for row in ws.rows("orders")}
    for aggregate, found in lines(ws).items():
        rows[aggregate]["lines"] = found
    for aggregate, tag in tags(ws):
        rows[aggregate]["tags"].append(tag)
    return rows


@pytest.mark.thorough(beyond=1)
@pytest.mark.parametrize("seed", range(6))
def test_rows_are_what_a_plain_fold_makes_them(shop, seed):
    chance = random.Random(seed)
    events = random_events(shop, seed, orders=4, count=120)
    shop.mapping([ORDERS], batch=chance.choice([1, 7, 500]), workers=chance.choice([1, 3]), backoff_ms=20, gap_wait_ms=20)
    left = list(events)
    while left:
        size = chance.randrange(1, 60)
        part, left = left[:size], left[size:]
        shop.put(part)
        shop.run_once()
    assert shop.outbox.count_documents({}) == 0
    assert state(shop) == fold(events)


@pytest.mark.thorough
def test_kills_leave_no_half_replaced_rows(shop):
    events = random_events(shop, 99, orders=6, count=400)
    shop.mapping([ORDERS], batch=20, backoff_ms=20, lease_ms=2000, sweep_interval_ms=200, claim_timeout_ms=3000)
    shop.put(events)
    chance = random.Random(5)
    for _ in range(6):
        with shop.start_projector() as process:
            before = len(shop.ledger())
            shop.wait(lambda: len(shop.ledger()) > before + chance.randrange(40) or shop.outbox.count_documents({}) == 0)
            process.popen.send_signal(signal.SIGKILL)
            process.popen.wait()
    with shop.start_projector():
        shop.wait_drained()
    assert state(shop) == fold(events)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(3))
def test_late_events_end_at_the_entities(shop, seed):
    """Events arrive in any order, and there are entities to refresh from: the rows end up as the entities say."""
    chance = random.Random(seed)
    events = random_events(shop, 1000 + seed, orders=5, count=60)
    last = {e["aggregate_id"]: e["version"] for e in events}
    expected = fold(events)
    shop.mapping([ORDERS], batch=chance.choice([3, 500]), backoff_ms=20, gap_wait_ms=1)
    for aggregate, row in expected.items():
        entity = {"_id": aggregate, "customer": row["customer"], "total": row["total"], "lines": lines_of(*row["lines"]), "tags": row["tags"],
                  "version": Int64(last[aggregate])}
        shop.db["orders"].insert_one(entity if row["deleted"] is None else {**entity, "deleted_at": row["deleted"]})
    chance.shuffle(events)
    for at in range(0, len(events), 15):
        shop.put(events[at:at + 15])
        shop.projector("run", "--once")
    for _ in range(20):
        shop.projector("run", "--once")
        if shop.outbox.count_documents({}) == 0:
            break
    found = state(shop)
    for aggregate in expected:
        assert (found[aggregate].pop("deleted") is None) == (expected[aggregate].pop("deleted") is None), aggregate
        assert found[aggregate] == expected[aggregate], aggregate


def test_the_shop_of_the_demo_is_a_mapping(ws):
    ws.mapping(json.loads((ROOT / "demo/shop.json").read_text())["projections"])
    done = ws.projector("schema")
    assert done.returncode == 0 and "`order_line`" in done.stdout, done.stderr


# keys that are not the aggregate's


def test_an_upsert_with_another_key_leaves_the_old_row_and_reconcile_reports_it(shop):
    """As docs/mapping-file.md says: the event carries the new key alone."""
    shop.mapping([{**ORDERS, "key": {"order_id": {"from": "code", "type": "varchar(36)"}}}], backoff_ms=20)
    place(shop, order(1, "apple 1", code="n1"))
    place(shop, order(1, "pear 2", version=2, code="n2"))
    assert lines(shop) == {"n1": ["apple 1"], "n2": ["pear 2"]}
    [found] = [line for line in told(shop, "reconcile", "--repair", status=1) if "difference" in line]
    assert (found["table"], found["difference"], found["key"]) == ("orders", "extra row", {"order_id": "n1"})
    assert found["outcome"].startswith("left: its key does not identify the aggregate")
    shop.put(event(shop, "o1", "OrderRemoved", 3, code="n1"), placed(shop, order(1, "pear 2", version=4, code="n2")))
    shop.run_once()
    assert lines(shop) == {"n2": ["pear 2"]} and [row["order_id"] for row in shop.rows("orders")] == ["n2"]


@pytest.mark.thorough
@pytest.mark.parametrize("killed", [False, True])
def test_nothing_is_applied_to_the_old_table_while_a_reader_of_a_child_delays_the_swap(shop, killed):
    """A RENAME asks for order_line before orders: while it waits there, orders is open to everybody."""
    place(shop, order(1, "apple 1"))
    reader = shop.stores.mysql(shop.name)
    with shop.start_projector() as projector, reader:
        projector.wait_log("working")
        with reader.cursor() as cursor:
            cursor.execute("START TRANSACTION")
            cursor.execute("SELECT * FROM order_line")
        with shop.start_command("rebuild", "--shadow") as process:
            shop.wait(lambda: waiting(shop, "RENAME TABLE `orders` TO `orders__old`"), what="the RENAME")
            if killed:
                process.popen.kill()
                process.popen.wait()
            shop.db["orders"].update_one({"_id": "o1"}, {"$set": {"customer": "Eve", "version": Int64(2)}})
            moved = event(shop, "o1", "OrderMoved", 2, customer="Eve")
            shop.put(moved)
            shop.wait(lambda: waiting(shop, "(SELECT epoch") or shop.found(moved) is None, what="the event to be tried")
            reader.rollback()
            assert process.popen.wait(WAIT_S) == (-signal.SIGKILL if killed else 0)
        shop.wait_gone(moved)
    assert [row["customer"] for row in shop.rows("orders")] == ["Eve"]
    assert differences(shop) == []


def test_a_shadow_names_the_entity_whose_partition_is_missing(ws, tmp_path):
    ws.environment["XDG_STATE_HOME"] = str(tmp_path / "state")
    ws.mapping([{"aggregate_type": "order", "table": "orders", "entities": "orders",
                 "key": {"id": {"from": "$aggregate_id", "type": "int"}},
                 "columns": {"total": {"from": "total", "type": "int"}}, "events": {"OrderPlaced": {"op": "upsert"}}}])
    ws.create()
    ws.query("ALTER TABLE orders PARTITION BY RANGE (id) (PARTITION low VALUES LESS THAN (100))")
    ws.db["orders"].insert_many([{"_id": id, "total": 1, "version": Int64(1)} for id in (1, 2, 100)])
    done = ws.projector("rebuild", "--shadow", timeout=2 * WAIT_S)
    assert done.returncode == 1 and "100" in done.stdout and "no partition" in done.stdout, done.stdout
    wrong = event(ws, 100, "OrderPlaced", 1, total=1)
    ws.put(wrong)
    ws.projector("run", "--once")
    assert ws.found(wrong)["last_error"]["class"] == "data"
