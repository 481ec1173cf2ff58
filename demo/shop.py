"""The shop, for some seconds: customers, and orders with lines. A writer in Python that knows nothing but the event
document stores each entity change and its event in one transaction. The projector carries them into MySQL: order lines
go into a child table, and customers who leave stay as marked rows. At the end every row is compared. Started by
`./run demo --example shop`."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path

import pymongo
from bson import Decimal128, Int64
from pymongo.errors import PyMongoError

from demo import OUTBOX, PROJECTOR, SECONDS, call, cell, follow, page_address
from stores import Failure, Stores, run

SHOP = ["--uri", os.environ["MONGO_URI"], "--database", "shop", "--outbox", "outbox"]
COUNTRIES = ["NL", "DE", "FR", "JP", "BR"]
GOODS = [("tea", "4.20"), ("cup", "7.50"), ("pot", "24.00"), ("honey", "6.95"), ("spoon", "2.10")]


class Shop(Stores):
    def __init__(self) -> None:
        super().__init__("shop")

    def orders_in_mongodb(self) -> dict[str, tuple]:
        return {o["_id"]: (o["customer_id"], o["state"], o["total"].to_decimal(),
                           [(line["sku"], line["qty"], line["price"].to_decimal()) for line in o["lines"]])
                for o in self.source.orders.find({"state": {"$in": ["open", "paid"]}})}

    def orders_in_mysql(self) -> dict[str, tuple]:
        lines: dict[str, list] = {}
        for order, *line in self.query("SELECT order_id, sku, qty, price FROM order_line ORDER BY order_id, line_no"):
            lines.setdefault(order, []).append(tuple(line))
        return {row[0]: (*row[1:], lines.pop(row[0], [])) for row in
                self.query("SELECT order_id, customer_id, state, total FROM orders")} | \
            {order: ("lines without an order", "", Decimal(0), rows) for order, rows in lines.items()}

    def customers(self) -> tuple[set[str], set[str], set[str]]:
        """Their ids: in MongoDB, then in MySQL without a mark and with one."""
        rows = self.query("SELECT customer_id, deleted_at FROM customer")
        return ({c["_id"] for c in self.source.customers.find()}, {r[0] for r in rows if not r[1]}, {r[0] for r in rows if r[1]})


class Writer(threading.Thread):
    """Customers register, move and leave; orders are placed, changed, paid and cancelled."""

    def __init__(self, stores: Shop) -> None:
        super().__init__(daemon=True)
        self.stores, self.shop = stores, stores.source
        self.chance = random.Random(7)
        self.customers: list[str] = []
        self.orders: list[str] = []
        self.returncode: int | None = None
        self.reason = ""
        self.events, self.left = 0, 0

    def poll(self) -> int | None:
        return self.returncode

    def run(self) -> None:
        end = time.monotonic() + SECONDS
        try:
            while time.monotonic() < end:
                self.step()
            self.returncode = 0
        except PyMongoError as failure:
            self.reason, self.returncode = str(failure), 1

    def write(self, collection: str, identity: str, event_type: str, change: dict | None, payload: dict) -> None:
        """Stores the entity (None: deletes it) and its event in one transaction."""
        entities = self.shop[collection]
        with self.stores.client.start_session() as session, session.start_transaction():
            if change is None:
                before = entities.find_one_and_delete({"_id": identity}, session=session)
                version = (before or {}).get("version", 0) + 1
            else:
                after = entities.find_one_and_update({"_id": identity}, {"$set": change, "$inc": {"version": Int64(1)}}, upsert=True,
                                                     return_document=pymongo.ReturnDocument.AFTER, session=session)
                version = after["version"]
            self.shop.outbox.insert_one({
                "_id": uuid.uuid4(), "aggregate_type": collection.rstrip("s"), "aggregate_id": identity, "version": Int64(version),
                "event_type": event_type, "occurred_at": datetime.now(timezone.utc), "payload": payload}, session=session)
        self.events += 1

    def step(self) -> None:
        draw = self.chance.random()
        if draw < 0.15 or len(self.customers) < 5:
            identity = f"c{len(self.customers) + self.left:05}"
            person = {"full_name": f"Customer {identity}", "address": {"country": self.chance.choice(COUNTRIES)}}
            self.write("customers", identity, "CustomerRegistered", person, person)
            self.customers.append(identity)
        elif draw < 0.20:
            country = {"country": self.chance.choice(COUNTRIES)}
            self.write("customers", self.chance.choice(self.customers), "CustomerMoved", {"address": country}, {"address": country})
        elif draw < 0.23 and len(self.customers) > 10:
            identity = self.customers.pop(self.chance.randrange(len(self.customers)))
            self.left += 1
            self.write("customers", identity, "CustomerLeft", None, {})
        elif draw < 0.55 or not self.orders:
            identity = f"o{self.events:06}"
            order = {"customer_id": self.chance.choice(self.customers), "state": "open", "placed_at": datetime.now(timezone.utc), **self.lines()}
            self.write("orders", identity, "OrderPlaced", order, order)
            self.orders.append(identity)
        elif draw < 0.75:
            lines = self.lines()
            self.write("orders", self.chance.choice(self.orders), "OrderChanged", lines, lines)
        elif draw < 0.92:
            self.write("orders", self.chance.choice(self.orders), "OrderPaid", {"state": "paid"}, {"state": "paid"})
        else:
            identity = self.orders.pop(self.chance.randrange(len(self.orders)))
            self.write("orders", identity, "OrderCancelled", {"state": "cancelled"}, {"state": "cancelled"})

    def lines(self) -> dict:
        """One to ten lines, and their total."""
        chosen = [(*self.chance.choice(GOODS), self.chance.randrange(1, 4)) for _ in range(self.chance.randrange(1, 11))]
        total = sum((Decimal(price) * qty for _, price, qty in chosen), Decimal(0))
        return {"lines": [{"sku": sku, "qty": qty, "price": Decimal128(price)} for sku, price, qty in chosen], "total": Decimal128(total)}


def mapping_file(folder: Path) -> Path:
    """shop.json with a free port, which is a number and so cannot be a ${variable}."""
    mapping = json.loads((Path(__file__).parent / "shop.json").read_text())
    mapping["mysql"]["port"] = int(os.environ["MYSQL_PORT"])
    mapping["http"] = "127.0.0.1:0"  # 9464 may be in use
    password = folder / "password"
    password.touch(mode=0o600)
    password.write_text(os.environ["PROJECTOR_MYSQL_PASSWORD"])
    os.environ["SHOP_PASSWORD_FILE"] = str(password)
    file = folder / "shop.json"
    file.write_text(json.dumps(mapping, indent=2))
    return file


def show(mongodb: dict[str, tuple], mysql: dict[str, tuple], different: list[str]) -> None:
    def side(row: tuple | None) -> str:
        return f"{cell(row[1], 10)} {row[2]:>9} {len(row[3]):>3} {'line ' if len(row[3]) == 1 else 'lines'}" if row else cell("(none)", 30)

    print(f"\n{'order':10} {'MongoDB: orders':30}   MySQL: orders, order_line")
    for key in (different or sorted(mongodb))[:6]:
        print(f"{cell(key, 10)} {side(mongodb.get(key))} {'!=' if key in different else '=='} {side(mysql.get(key))}")
    for name, rows in (("MongoDB", mongodb), ("MySQL  ", mysql)):
        print(f"{name}: {len(rows):,} orders with {sum(len(row[3]) for row in rows.values()):,} lines")


def compare(stores: Shop, writer: Writer) -> None:
    mongodb, mysql = stores.orders_in_mongodb(), stores.orders_in_mysql()
    different = sorted(i for i in mongodb.keys() | mysql.keys() if mongodb.get(i) != mysql.get(i))
    show(mongodb, mysql, different)
    entities, present, marked = stores.customers()
    cancelled = stores.source.orders.count_documents({"state": "cancelled"})
    print(f"The {cancelled:,} cancelled orders have no rows: shop.json has a \"when\" for open and paid ones.\n"
          f"customers: {len(entities):,} in MongoDB, {len(present):,} in MySQL; the rows of {len(marked):,} who left stay, marked as deleted")
    if different or not mongodb:
        raise Failure(f"{len(different)} orders differ" if different else "no order was written")
    if entities != present or len(marked) != writer.left:
        raise Failure("the customers differ")
    print(f"\n{stores.applied():,} events applied: the stores agree on every order, every line and every customer")


def demo(folder: Path, log: Path) -> None:
    stores = Shop()
    mapping = str(mapping_file(folder))
    call(OUTBOX, "init", *SHOP)
    call(PROJECTOR, "schema", "-c", mapping, "--apply")
    print(f"a shop writes for {SECONDS} s, the projector follows; the mapping is demo/shop.json", flush=True)
    with log.open("wb") as stderr:
        projector = subprocess.Popen([PROJECTOR, "run", "-c", mapping], stdin=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL, stderr=stderr)
    writer = Writer(stores)
    try:
        print(f"watch it: http://{page_address(projector, log)}/", flush=True)
        writer.start()
        follow(stores, writer, projector)
        projector.terminate()
        if (status := projector.wait(10)) != 0:
            raise Failure(f"the projector answered SIGTERM with status {status}, not 0")
    finally:
        projector.kill()
        projector.wait()
    compare(stores, writer)
    print(f"\n$ projector reconcile\n{call(PROJECTOR, 'reconcile', '-c', mapping, '--state', str(folder / 'reconcile'))}",
          "(It counts the cancelled orders among the entities, and the marked customers among the rows.)")


if __name__ == "__main__":
    sys.exit(run(demo))
