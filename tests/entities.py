"""Entities of the bank, and the rows that their events produce."""

from __future__ import annotations

from datetime import datetime

from bson import Int64

from workspace import decimal

MOMENT = datetime(2024, 5, 6, 7, 8, 9, 123000)


def account(number: int | str, **changes) -> dict:
    return {"_id": f"a{number}", "user_id": f"u{number}", "name": f"Ada {number}", "balance": decimal("10.50"),
            "opened_at": MOMENT, "version": Int64(1), "last_event_at": MOMENT, **changes}


def opened(ws, entity: dict, version: int | None = 1) -> dict:
    """The event that opens the account with the entity's values."""
    payload = {k: v for k, v in entity.items() if k not in ("_id", "version", "last_event_at")}
    return ws.event(entity["_id"], "AccountOpened", version, **payload)


def fill(ws, entities: list[dict], collection: str = "accounts") -> None:
    """Writes entities, and the rows that their events would produce."""
    ws.db[collection].insert_many(entities)
    ws.put(opened(ws, entity, entity.get("version")) for entity in entities)
    ws.run_once()
