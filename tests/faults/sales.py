"""Sales and baskets: what the mapping file can say beyond plain columns, so that faults meet it too.

    sale      versions, entities, strictly in order: child tables, soft and hard deletes, conditions on projection and rules,
              constants, defaults, lists of paths, `always`, and deltas, so that an event that is applied twice shows
    basket    the same without deltas, some events held back and sent late: refreshes

The fold knows nothing of the mapping: it keeps what the writer's entity is, and says what the tables have to show of it."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

from bson import Decimal128, Int64

KINDS = {"sale": 12, "basket": 10}  # aggregates of each


def _projection(kind: str) -> dict:
    deltas = kind == "sale"
    columns = {"customer": {"from": ["customer_id", "customer"], "type": "varchar(40)"},
               "source": {"value": "outbox", "type": "varchar(10)"},
               "city": {"from": "/address/city", "type": "varchar(60)", "default": "nowhere"},
               "deleted": {"from": "deleted", "type": "bigint", "null": True}}
    events: dict[str, dict] = {
        "Placed": {"op": "upsert"}, "Lined": {"op": "update", "columns": {f"{kind}_line": "new_lines"}},
        "Moved": {"op": "update", "columns": {"city": "/new/city"}, "when": {"path": "/new/city", "exists": True}},
        "Closed": {"op": "delete", "set": {"deleted": "$version"}}}
    if deltas:
        columns |= {"total": {"from": "total", "type": "decimal(18,2)"}, "moves": {"from": "moves", "type": "bigint", "default": 0},
                    "touched": {"from": "$version", "type": "bigint"}}
        events |= {"Raised": {"op": "add", "columns": {"total": "amount", "moves": {"value": 1}}}, "Removed": {"op": "delete"}}
    return {"aggregate_type": kind, "table": kind, "entities": f"{kind}s", "when": {"path": "channel", "in": ["web", "shop"]},
            "key": {f"{kind}_id": {"from": "$aggregate_id", "type": "varchar(36)"}}, "columns": columns,
            "children": [{"table": f"{kind}_line", "from": ["lines", "old_lines"], "default": [],
                          "key": {"line_no": {"from": "$index", "type": "int"}},
                          "columns": {"sku": {"from": ["$item.sku", "$item.name"], "type": "varchar(20)"},
                                      "qty": {"from": "$item.qty", "type": "int", "default": 1}}}],
            "events": {f"{kind.title()}{name}": rule for name, rule in events.items()},
            **({"always": ["touched"]} if deltas else {})}


def _flow(kind: str) -> dict:
    """A second table of the aggregate type, with another choice of events: none of them is ignored by both."""
    events = {"Placed": {"op": "upsert"}, "Moved": {"op": "update", "columns": {"place": {"from": "/new/city", "default": "unsaid"}}}}
    columns = {"place": {"from": "place", "type": "varchar(60)", "default": "new"}}
    if kind == "sale":
        columns |= {"raised": {"from": "raised", "type": "decimal(18,2)", "default": 0}}
        events |= {"Raised": {"op": "add", "columns": {"raised": "amount"}, "when": {"all": [{"path": "loud", "exists": True}, {"path": "loud", "is": True}]}},
                   "Removed": {"op": "delete"}}
    return {"aggregate_type": kind, "table": f"{kind}_flow", "entities": f"{kind}s",
            "key": {f"{kind}_id": {"from": "$aggregate_id", "type": "varchar(36)"}}, "columns": columns,
            "events": {f"{kind.title()}{name}": rule for name, rule in events.items()}}


def projections() -> list[dict]:
    return [make(kind) for kind in KINDS for make in (_projection, _flow)]


# A refresh keeps an existing mark, so of a basket only that it is marked is certain.
TABLES = {"sale": ("customer", "source", "city", "deleted", "total", "moves", "touched"), "sale_flow": ("place", "raised"),
          "basket": ("customer", "source", "city", "(deleted IS NOT NULL)"), "basket_flow": ("place",)}
CHILDREN = {"sale_line": ("line_no", "sku", "qty"), "basket_line": ("line_no", "sku", "qty")}


# The fold


def _lines(items: list[dict]) -> list[dict]:
    return [{"sku": item.get("sku", item.get("name")), "qty": item.get("qty", 1)} for item in items]


def _change(entity: dict | None, event: dict, payload: dict) -> dict | None:
    """The writer's entity after the event."""
    name = event["event_type"][len(event["aggregate_type"]):]
    if name == "Placed":
        return {"channel": payload["channel"], "customer": payload.get("customer_id", payload.get("customer")),
                "city": payload.get("address", {}).get("city", "nowhere"), "deleted": None, "total": payload["total"], "moves": 0, "raised": Decimal(0),
                "place": "new", "lines": _lines(payload.get("lines", payload.get("old_lines", []))), "touched": event["version"]}
    if name == "Removed":
        return None
    assert entity is not None, event
    entity = {**entity, "touched": event["version"]}
    if name == "Lined":
        entity["lines"] = _lines(payload["new_lines"])
    elif name == "Closed":
        entity["deleted"] = event["version"]
    elif name == "Moved":
        entity["place"] = payload.get("new", {}).get("city", "unsaid")
        if "new" in payload:
            entity["city"] = payload["new"]["city"]
        else:
            entity["touched"] = None  # ignored by this table
    elif name == "Raised":
        entity["total"] += payload["amount"]
        entity["moves"] += 1
        entity["raised"] += payload["amount"] if payload.get("loud") else 0
    return entity


def fold_one(rows: dict[str, Any], event: dict, payload: dict) -> None:
    """`rows` has the entity too, under ""."""
    kind, before = event["aggregate_type"], rows.get("")
    entity = _change(before, event, payload)
    rows.clear()
    if entity is None:
        return
    entity["touched"] = before["touched"] if entity["touched"] is None else entity["touched"]
    rows[""] = entity
    rows[f"{kind}_flow"] = entity
    if entity["channel"] != "phone":
        rows[kind] = {**entity, "source": "outbox", "(deleted IS NOT NULL)": int(entity["deleted"] is not None)}
        rows[f"{kind}_line"] = [{"line_no": number, **line} for number, line in enumerate(entity["lines"])]


def document(entity: dict) -> dict:
    """The entity as it is stored."""
    stored = {key: Decimal128(value) if isinstance(value, Decimal) else Int64(value) if isinstance(value, int) else value
              for key, value in entity.items() if key not in ("city", "touched") and value is not None}
    return {**stored, "address": {"city": entity["city"]}}


# Events


def _items(dice: random.Random) -> list[dict]:
    return [{dice.choice(("sku", "name")): f"s{dice.randrange(20)}", **({"qty": dice.randrange(9)} if dice.random() < 0.7 else {})}
            for _ in range(dice.randrange(6))]


def _placed(dice: random.Random) -> dict:
    payload: dict[str, Any] = {"channel": dice.choice(("web", "shop", "web", "phone")), "total": Decimal128(Decimal(dice.randrange(9999)) / 100),
                               dice.choice(("customer_id", "customer")): f"c{dice.randrange(99)}"}
    if dice.random() < 0.7:
        payload["address"] = {"city": f"city {dice.randrange(9)}"}
    if dice.random() < 0.8:
        payload[dice.choice(("lines", "old_lines"))] = _items(dice)
    return payload


def draw(dice: random.Random, kind: str, entity: dict | None) -> tuple[str, dict]:
    """An event that the entity can have, without its prefix, and its payload."""
    if not entity:
        return "Placed", _placed(dice)
    names = ["Placed", "Closed"] + ["Removed"] * (kind == "sale")
    if entity["channel"] != "phone":
        names += ["Lined", "Lined", "Moved", "Moved"]
        names += ["Raised"] * 8 * (kind == "sale" and entity["deleted"] is None)
    name = dice.choice(names)
    if name == "Lined":
        return name, {"new_lines": _items(dice)}
    if name == "Moved":
        return name, {"new": {"city": f"city {dice.randrange(9)}"}} if dice.random() < 0.7 else {}
    if name == "Raised":
        loud = dice.choice(({}, {"loud": True}, {"loud": False}))
        return name, {"amount": Decimal128(Decimal(dice.randint(1, 9999)) / 100), **loud}
    return name, _placed(dice) if name == "Placed" else {}
