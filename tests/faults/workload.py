"""The bank that writes during the faults: events from a seed, and the fold that determines the expected rows.

The aggregate types are chosen so that the correct rows do not depend on when an event arrives:

    account   versions, entities, every operation, strictly in order
    contact   versions, entities, some events held back and sent late: deltas and refreshes
    wallet    no versions: an opening and deltas, with times inverted and equal
    profile   no versions: whole rows only, the newest by (time, id) wins
    sale, basket   what the mapping file can say beyond plain columns (sales.py)
"""

from __future__ import annotations

import random
import threading
import uuid
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Callable

import pymongo
from bson import Decimal128, Int64, ObjectId
from pymongo.errors import DuplicateKeyError, PyMongoError

import sales

ACCOUNTS, CONTACTS, WALLETS, PROFILES = 24, 10, 8, 12
TRAIL = 120  # characters kept of the versions that touched a row


def _projection(kind: str, columns: dict, events: dict, key_type: str = "varchar(36)", **more: Any) -> dict:
    return {"aggregate_type": kind, "table": kind, **more,
            "key": {f"{kind}_id": {"from": "$aggregate_id", "type": key_type}},
            "columns": {name: {"from": name, "type": type_} for name, type_ in columns.items()}, "events": events}


def _mark(table: str) -> dict:
    return {"op": "sql", "statement": f"UPDATE {table} SET trail = RIGHT(CONCAT(trail, ':', :$version), {TRAIL}) "
                                      f"WHERE {table}_id = :$aggregate_id"}


def _sql(change: str) -> dict:
    return {"op": "sql", "statement": f"UPDATE account SET {change} WHERE account_id = :$aggregate_id"}


def _delta(op: str, **columns: str) -> dict:
    return {"op": op, "columns": columns}


def projections() -> list[dict]:
    flow = _projection("account", {"deposited": "decimal(18,2)", "moves": "bigint"}, {
        "AccountOpened": {"op": "upsert"}, "MoneyDeposited": _delta("add", deposited="amount", moves="one"),
        "AccountClosed": {"op": "delete"}}, entities="accounts")
    return [
        _projection("account", {"name": "varchar(100)", "balance": "decimal(18,2)", "trail": "varchar(200)"}, {
            "AccountOpened": {"op": "upsert"}, "AccountRenamed": {"op": "update", "columns": ["name"]},
            "MoneyDeposited": _delta("add", balance="amount"), "MoneyWithdrawn": _delta("subtract", balance="amount"),
            "AccountMarked": _mark("account"), "AccountSigned": _sql("name = LEFT(:text, 100)"),
            "AccountNapped": _sql("name = IF(SLEEP(:seconds), name, name)"), "StatementSent": {"op": "ignore"},
            "AccountClosed": {"op": "delete"}}, entities="accounts"),
        {**flow, "table": "account_flow"},
        _projection("contact", {"name": "varchar(100)", "score": "bigint", "trail": "varchar(200)"}, {
            "ContactAdded": {"op": "upsert"}, "ContactRenamed": {"op": "update", "columns": ["name"]},
            "ContactScored": _delta("add", score="points"), "ContactMarked": _mark("contact")}, entities="contacts"),
        _projection("wallet", {"balance": "decimal(18,2)", "moves": "bigint"}, {
            "WalletOpened": {"op": "upsert"}, "WalletMoved": _delta("add", balance="amount", moves="one")},
            key_type="bigint"),
        _projection("profile", {"name": "varchar(100)"}, {
            "ProfileSaved": {"op": "upsert"}, "ProfileRemoved": {"op": "delete"}}),
        *sales.projections(),
    ]


TABLES = {"account": ("name", "balance", "trail"), "account_flow": ("deposited", "moves"),
          "contact": ("name", "score", "trail"), "wallet": ("balance", "moves"), "profile": ("name",), **sales.TABLES}


def order_key(event: dict) -> tuple:
    identity = event["_id"]
    raw = identity.bytes if isinstance(identity, uuid.UUID) else \
        identity.binary if isinstance(identity, ObjectId) else str(identity).encode()
    return event["occurred_at"], event.get("version", 0), raw


def native(value: Any) -> Any:
    return value.to_decimal() if isinstance(value, Decimal128) else int(value) if isinstance(value, Int64) else value


def fold_one(rows: dict[str, dict], event: dict) -> None:
    """The effect of one event on its aggregate's rows, by table."""
    kind, payload = event["event_type"], {k: native(v) for k, v in event["payload"].items()}
    if event["aggregate_type"] in sales.KINDS:
        sales.fold_one(rows, event, payload)
    elif kind in ("AccountOpened", "ContactAdded", "WalletOpened", "ProfileSaved"):
        for table, columns in TABLES.items():
            if table.split("_")[0] == event["aggregate_type"]:
                rows[table] = {column: payload[column] for column in columns}
    elif kind in ("AccountClosed", "ProfileRemoved"):
        rows.clear()
    elif kind in ("AccountRenamed", "ContactRenamed"):
        rows[event["aggregate_type"]]["name"] = payload["name"]
    elif kind in ("AccountMarked", "ContactMarked"):
        row = rows[event["aggregate_type"]]
        row["trail"] = f"{row['trail']}:{event['version']}"[-TRAIL:]
    elif kind == "MoneyDeposited":
        rows["account"]["balance"] += payload["amount"]
        rows["account_flow"]["deposited"] += payload["amount"]
        rows["account_flow"]["moves"] += 1
    elif kind == "MoneyWithdrawn":
        rows["account"]["balance"] -= payload["amount"]
    elif kind == "ContactScored":
        rows["contact"]["score"] += payload["points"]
    elif kind == "WalletMoved":
        rows["wallet"]["balance"] += payload["amount"]
        rows["wallet"]["moves"] += 1
    elif kind != "StatementSent":
        raise AssertionError(f"the fold does not know {kind}")


def fold(events: list[dict]) -> dict[str, dict]:
    rows: dict[str, dict] = {}
    for event in sorted(events, key=order_key):
        fold_one(rows, event)
    return rows


class Bank:
    """Makes events and writes them, each batch in one transaction with its entities and a marker.

    The marker settles what became of a transaction whose answer was lost: it is written again until
    it commits or meets its own marker."""

    def __init__(self, client: pymongo.MongoClient, database: str, seed: int):
        self.random = random.Random(seed)
        self.client = client
        self.db = client.get_database(database, write_concern=pymongo.WriteConcern("majority"))
        self.history: dict[tuple[str, Any], list[dict]] = {}  # all events written, by aggregate
        self.entities: dict[tuple[str, str], dict] = {}
        self.held_back: list[dict] = []
        self.makes_row = False  # the event just made, of a sale or a basket, makes its row
        self.blocked: set[tuple[str, Any]] = set()  # not written to while a test keeps them blocked
        self.batches = 0
        self.count = 0
        self.resent = 0
        self.lock = threading.Lock()
        self.gate = threading.RLock()  # held by a fault while the background writer waits
        for name in ("outbox", "accounts", "contacts", "batches", *(f"{kind}s" for kind in sales.KINDS)):
            if name not in self.db.list_collection_names():
                self.db.create_collection(name)

    # Events

    def _now(self) -> datetime:
        """The clock of one of two writers, which are an hour apart."""
        skew = timedelta(hours=self.random.choice((-0.5, 0.5)))
        now = datetime.now(timezone.utc).replace(tzinfo=None) + skew
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    def event(self, kind: str, aggregate_id: Any, event_type: str, **payload: Any) -> dict:
        identity = {"wallet": lambda: ObjectId(self.random.randbytes(12)),
                    "profile": lambda: f"p-{self.random.getrandbits(60):x}"}.get(
                        kind, lambda: uuid.UUID(bytes=self.random.randbytes(16), version=4))()
        return {"_id": identity, "aggregate_type": kind, "aggregate_id": aggregate_id, "event_type": event_type,
                "occurred_at": self._now(), "payload": payload}

    def _money(self) -> Decimal128:
        return Decimal128(Decimal(self.random.randint(1, 100000)) / 100)

    def versioned(self, kind: str, aggregate_id: str, event_type: str, **payload: Any) -> dict:
        """The next event of an entity, along with the entity's change."""
        event = self.event(kind, aggregate_id, event_type, **payload)
        entity = self.entities.setdefault((kind, aggregate_id), {"version": 0, "at": datetime.min, "rows": {}})
        entity["version"] += 1
        event["version"] = Int64(entity["version"])
        event["occurred_at"] = entity["at"] = max(event["occurred_at"], entity["at"] + timedelta(milliseconds=1)) \
            if entity["version"] > 1 else event["occurred_at"]
        fold_one(entity["rows"], event)
        return event

    def account(self, aggregate_id: str | None = None) -> dict:
        aggregate_id = aggregate_id or f"a{self.random.randrange(ACCOUNTS)}"
        entity = self.entities.get(("account", aggregate_id))
        choice = self.random.random()
        if not entity or not entity["rows"]:
            return self.versioned("account", aggregate_id, "AccountOpened", name=f"n{self.random.randrange(999)}",
                                  balance=self._money(), trail="", deposited=Decimal128("0.00"), moves=Int64(0))
        if choice < 0.35:
            return self.versioned("account", aggregate_id, "MoneyDeposited", amount=self._money(), one=Int64(1))
        if choice < 0.6:
            return self.versioned("account", aggregate_id, "MoneyWithdrawn", amount=self._money())
        if choice < 0.75:
            return self.versioned("account", aggregate_id, "AccountRenamed", name=f"é{self.random.randrange(9999)}")
        if choice < 0.9:
            return self.versioned("account", aggregate_id, "AccountMarked")
        return self.versioned("account", aggregate_id, "StatementSent" if choice < 0.95 else "AccountClosed")

    def contact(self) -> dict:
        aggregate_id = f"c{self.random.randrange(CONTACTS)}"
        if ("contact", aggregate_id) not in self.entities:
            return self.versioned("contact", aggregate_id, "ContactAdded", name="new", score=Int64(0), trail="")
        kind = self.random.choice(("ContactRenamed", "ContactScored", "ContactMarked"))
        payload = {"ContactRenamed": {"name": f"c{self.random.randrange(9999)}"},
                   "ContactScored": {"points": Int64(self.random.randint(-5, 9))}}.get(kind, {})
        return self.versioned("contact", aggregate_id, kind, **payload)

    def wallet(self) -> dict:
        aggregate_id = Int64(self.random.randrange(WALLETS))
        past = self.history.get(("wallet", aggregate_id))
        if not past and ("wallet", aggregate_id) not in self._opening:
            self._opening.add(("wallet", aggregate_id))
            event = self.event("wallet", aggregate_id, "WalletOpened", balance=Decimal128("0.00"), moves=Int64(0))
            event["occurred_at"] -= timedelta(days=1)
            return event
        event = self.event("wallet", aggregate_id, "WalletMoved", amount=self._money(), one=Int64(1))
        if past and self.random.random() < 0.3:  # at the time of another event, or slightly before it
            event["occurred_at"] = max(past[0]["occurred_at"] + timedelta(milliseconds=1), self.random.choice(past)
                                       ["occurred_at"] - timedelta(milliseconds=self.random.choice((0, 0, 5))))
        return event

    def profile(self) -> dict:
        aggregate_id = f"p{self.random.randrange(PROFILES)}"
        past = self.history.get(("profile", aggregate_id))
        event = self.event("profile", aggregate_id, "ProfileSaved", name=f"p{self.random.randrange(99999)}") \
            if self.random.random() < 0.85 else self.event("profile", aggregate_id, "ProfileRemoved")
        if past and self.random.random() < 0.3:
            event["occurred_at"] = self.random.choice(past)["occurred_at"]
        return event

    def sale(self, kind: str = "sale") -> dict:
        aggregate_id = f"{kind[0]}{self.random.randrange(sales.KINDS[kind])}"
        entity = self.entities.get((kind, aggregate_id), {"rows": {}})["rows"].get("")
        self.makes_row = not entity or entity["channel"] == "phone"
        name, payload = sales.draw(self.random, kind, entity)
        return self.versioned(kind, aggregate_id, kind.title() + name, **payload)

    def basket(self) -> dict:
        return self.sale("basket")

    # Writing

    def batch(self, size: int) -> list[dict]:
        """The events of one transaction, possibly with some that were held back earlier."""
        self._opening: set = set()
        events: list[dict] = []
        while len(events) < size:
            make = self.random.choices((self.account, self.contact, self.wallet, self.profile, self.sale, self.basket),
                                       (5, 2, 2, 2, 3, 2))[0]
            self.makes_row = False
            event = make() if make is not self.account else self._free_account()
            # Never one that makes its row, without which the later ones would be dead before it is released.
            if event["aggregate_type"] in ("contact", "basket") and event["version"] > 1 and not self.makes_row and self.random.random() < 0.1:
                self.held_back.append(event)
            else:
                events.append(event)
        if self.held_back and self.random.random() < 0.3:
            events += self.release()
        return events

    def _free_account(self) -> dict:
        free = [f"a{i}" for i in range(ACCOUNTS) if ("account", f"a{i}") not in self.blocked]
        return self.account(self.random.choice(free))

    def release(self) -> list[dict]:
        events, self.held_back = self.held_back, []
        return events

    def write(self, events: list[dict], give_up: Callable[[], bool] = lambda: False, **marks: Any) -> bool:
        """Retries until it is certain that the transaction committed. False: given up, perhaps not written.

        `marks`: what the documents have beyond the events, which an event sent again does not have."""
        marker = self.batches = self.batches + 1
        touched = {(e["aggregate_type"], e["aggregate_id"]) for e in events}
        while True:
            try:
                with self.client.start_session() as session:
                    session.with_transaction(lambda s: self._store(s, marker, [{**e, **marks} for e in events], touched))
                break
            except DuplicateKeyError as error:
                if "batches" not in str(error.details):
                    raise
                break
            except PyMongoError:
                if give_up():
                    raise
        with self.lock:
            for event in events:
                self.history.setdefault((event["aggregate_type"], event["aggregate_id"]), []).append(event)
            self.count += len(events)
        return True

    def _store(self, session: Any, marker: int, events: list[dict], touched: set) -> None:
        self.db.batches.insert_one({"_id": marker}, session=session)
        self.db.outbox.insert_many(events, session=session)
        for kind, aggregate_id in sorted((t for t in touched if t in self.entities), key=str):
            entity = self.entities[kind, aggregate_id]
            document = {"version": Int64(entity["version"]), "last_event_at": entity["at"]}
            if kind in sales.KINDS and entity["rows"]:
                document |= sales.document(entity["rows"][""])
            for row in entity["rows"].values() if kind not in sales.KINDS else ():
                document.update({k: Decimal128(v) if isinstance(v, Decimal) else Int64(v) if isinstance(v, int) else v
                                 for k, v in row.items()})
            collection = self.db[f"{kind}s"]
            if entity["rows"]:
                collection.replace_one({"_id": aggregate_id}, document, upsert=True, session=session)
            else:
                collection.delete_one({"_id": aggregate_id}, session=session)

    def resend(self, most: int) -> int:
        """Sends the same ids again long after they were applied and acknowledged, as a faulty producer might."""
        with self.lock:
            known = [e for events in self.history.values() for e in events
                     if (e["aggregate_type"], e["aggregate_id"]) not in self.blocked]
        chosen = self.random.sample(known, min(most, len(known)))
        for event in chosen:
            try:
                self.db.outbox.insert_one(event)
                self.resent += 1
            except DuplicateKeyError:
                pass  # still in the outbox
        return len(chosen)


class Writer:
    """Writes in the background from start to stop; events that were held back are sent at the end."""

    def __init__(self, bank: Bank, pause_s: float = 0.05):
        self.bank, self.pause_s = bank, pause_s
        self.failure: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                with self.bank.gate:
                    self.bank.write(self.bank.batch(self.bank.random.randint(1, 20)))
                self._stop.wait(self.pause_s)
            if self.bank.held_back:
                self.bank.write(self.bank.release())
        except BaseException as error:  # noqa: BLE001 - reported by finish()
            self.failure = error

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def finish(self, timeout: float = 120) -> None:
        self._stop.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise AssertionError("the writer is still waiting for MongoDB")
        if self.failure:
            raise self.failure

    def __exit__(self, kind, *_) -> None:
        self._stop.set()
        if kind is None:
            self.finish()
