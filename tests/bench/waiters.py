"""200 requests each wait for the next version of their own account, and one account after the other is written. How
long after the row comes the answer? Both are measured in one run: the row is polled as an application would do it."""

from __future__ import annotations

import random
import selectors
import socket
import threading
import time
from typing import TYPE_CHECKING

from endpoint import Endpoint
from measure import percentile, print_table, progress

if TYPE_CHECKING:
    from bench import Bench

WAITERS, WRITTEN, RATE = 200, 1000, 50
LOOK_S = 0.0003
GOAL_MS = 5  # p99 of the answer, after that of the row


class Waiters:
    def __init__(self, ws, endpoint: Endpoint):
        self.ws, self.endpoint = ws, endpoint
        self.versions = [1] * WAITERS
        self.acknowledged: dict[tuple[int, int], float] = {}
        self.visible: dict[tuple[int, int], float] = {}
        self.answered: dict[tuple[int, int], float] = {}
        self.under_way: set[tuple[int, int]] = set()  # written, and the row not seen yet
        self.selector = selectors.DefaultSelector()

    def wait_for_next(self, account: int) -> None:
        version = self.versions[account] + 1
        client = socket.create_connection((self.endpoint.host, self.endpoint.port))
        client.sendall(f"GET /wait?type=account&id=w{account}&version={version}&timeout_ms=60000 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        self.selector.register(client, selectors.EVENT_READ, (account, version))

    def write(self) -> None:
        for _ in range(WRITTEN):
            account = random.choice([a for a in range(WAITERS) if (a, self.versions[a] + 1) not in self.acknowledged])
            key = (account, self.versions[account] + 1)
            event = updated(self.ws, *key)
            self.under_way.add(key)
            self.ws.outbox.insert_one(event)
            self.acknowledged[key] = time.monotonic()
            time.sleep(random.uniform(0.5, 1.5) / RATE)

    def look(self) -> None:
        with self.ws.stores.mysql(self.ws.name) as connection, connection.cursor() as cursor:
            while len(self.visible) < WRITTEN:
                for account, version in list(self.under_way):
                    cursor.execute("SELECT version FROM account WHERE id = %s", (f"w{account}",))
                    if cursor.fetchone()["version"] >= version:
                        self.visible[account, version] = time.monotonic()
                        self.under_way.remove((account, version))
                time.sleep(LOOK_S)

    def take_answers(self) -> None:
        while len(self.answered) < WRITTEN:
            for key, _ in self.selector.select(1):
                self.answered[key.data] = time.monotonic()
                assert b" 200 " in (answer := key.fileobj.recv(4096)), answer
                self.selector.unregister(key.fileobj)
                key.fileobj.close()
                account, version = key.data
                self.versions[account] = version
                self.wait_for_next(account)


def updated(ws, account: int, version: int) -> dict:
    return ws.event(f"w{account}", "AccountUpdated", version, user_id="u", name="n", balance=version, currency="EUR")


def waiters(bench: "Bench") -> None:
    progress(f"waiters: {WAITERS} wait, {WRITTEN} events at {RATE} a second")
    with bench.workspace(http="127.0.0.1:0") as ws:
        ws.put([updated(ws, account, 1) for account in range(WAITERS)])
        with ws.start_projector() as projector:
            run = Waiters(ws, Endpoint(projector))
            ws.wait_drained()
            for account in range(WAITERS):
                run.wait_for_next(account)
            ws.wait(lambda: run.endpoint.metrics()["projector_waiters"] == WAITERS)
            threads = [threading.Thread(target=step) for step in (run.look, run.write)]
            for thread in threads:
                thread.start()
            run.take_answers()
            for thread in threads:
                thread.join()
    def quantiles(times: dict) -> dict[str, float]:
        ms = sorted((times[key] - since) * 1000 for key, since in run.acknowledged.items())
        return {"p50": percentile(ms, 0.5), "p90": percentile(ms, 0.9), "p99": percentile(ms, 0.99), "max": ms[-1]}
    answer, row = quantiles(run.answered), quantiles(run.visible)
    bench.results["waiters"] = {"answer_ms": answer, "row_ms": row}
    print_table(f"waiters: {WAITERS} wait; ms since the acknowledged insert, of {WRITTEN} events", ("", *answer),
                [(name, *(f"{v:.1f}" for v in figures.values())) for name, figures in (("row visible", row), ("answer", answer))])
    bench.goal("waiters", "p99 of the answer after that of the row", answer["p99"] - row["p99"], GOAL_MS, unit=" ms")
