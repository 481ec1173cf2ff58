"""The PoC of compose.yaml, for real: build, up, kill MySQL and MongoDB in turn, bring them back, compare,
down and up again. Started by `./run compose-test`, with an engine and the images in the environment.

A step that does not succeed in time ends the test, with the state and the last log lines of every container."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from decimal import Decimal
from pathlib import Path
from typing import Callable

import pymongo
import pymysql

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "servers"))
from server import free_port, wait_for  # noqa: E402

LONG_RUNNING = ["mongo", "mysql", "writer", "projector", "movements"]
FEED = "outbox_movements"


class Failure(Exception):
    pass


def run(*argv: str, check: bool = True, show: bool = False) -> str:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=None if show else subprocess.PIPE,
                          stderr=None if show else subprocess.STDOUT, text=True)
    if check and done.returncode != 0:
        raise Failure(f"{' '.join(argv[1:])} ended with status {done.returncode}\n{done.stdout or ''}")
    return done.stdout or ""


def compose(*argv: str, **options) -> str:
    return run(os.environ["COMPOSE"], "--progress", "quiet", *argv, **options)


def inspect(service: str) -> dict:
    container = compose("ps", "--all", "--quiet", service).strip()
    return json.loads(run("docker", "inspect", container))[0]


def projector(*argv: str) -> str:
    return compose("exec", "-T", "projector", "projector", *argv, "-c", "/etc/projector/projector.json", check=False)


class Bank:
    """Both stores as a user on this machine reaches them: through the published ports."""

    def __init__(self) -> None:
        self.mongo = pymongo.MongoClient("127.0.0.1", int(os.environ["MONGO_PORT"]), directConnection=True,
                                         serverSelectionTimeoutMS=2000)
        self.password = compose("exec", "-T", "mysql", "cat", "/run/passwords/projector/password").strip()

    def query(self, statement: str) -> list[tuple]:
        with pymysql.connect(host="127.0.0.1", port=int(os.environ["MYSQL_PORT"]), user="projector",
                             password=self.password, database="bank_read", charset="utf8mb4",
                             connect_timeout=2) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def waiting(self, collection: str = "outbox") -> int:
        return self.mongo.bank[collection].count_documents({})

    def applied(self, projector: str = "bank") -> int:
        return self.query(f"SELECT COUNT(*) FROM projector_applied WHERE projector = '{projector}'")[0][0]

    def entities(self) -> dict[str, tuple]:
        return {a["_id"]: (a["user_id"], a["name"], a["balance"].to_decimal(), a["opened_at"])
                for a in self.mongo.bank.accounts.find()}

    def movements(self) -> dict[str, Decimal]:
        """The balances according to the second read model."""
        return dict(self.query("SELECT account_id, opened_with + paid_in - paid_out FROM movements"))

    def rows(self) -> dict[str, tuple]:
        rows = self.query("SELECT account_id, user_id, name, balance, opened_at FROM account")
        return {row[0]: row[1:] for row in rows}


def step(text: str) -> None:
    print(f"{time.monotonic() - STARTED:5.0f} s  {text}", flush=True)


def until(condition: Callable[[], object], timeout: float, what: str) -> None:
    def quiet() -> object:
        try:
            return condition()
        except (pymongo.errors.PyMongoError, pymysql.MySQLError, OSError):
            return False
    wait_for(quiet, timeout, what)


def check_hardening() -> None:
    for service in [*LONG_RUNNING, "init", "passwords"]:
        facts = inspect(service)
        user, host = facts["Config"]["User"], facts["HostConfig"]
        if user.split(":")[0] in ("", "0", "root"):
            raise Failure(f"{service} runs as root")
        if not host["ReadonlyRootfs"] or host["CapDrop"] != ["ALL"]:
            raise Failure(f"{service}: the root file system can be written, or there are capabilities left")
        open_ports = [b["HostIp"] for bound in (host["PortBindings"] or {}).values() for b in bound]
        if set(open_ports) - {"127.0.0.1"}:
            raise Failure(f"{service} is published on {open_ports}")


def follows(bank: Bank, more: int = 100) -> None:
    """Events arrive in MySQL through both the outbox and the feed, and neither collection grows."""
    until(lambda: bank.query("SELECT 1"), 60, "MySQL to answer")
    for name in ("bank", "movements"):
        goal = bank.applied(name) + more
        until(lambda: bank.applied(name) >= goal, 60, f"{more} more events of {name} in MySQL")
    until(lambda: bank.waiting() < 100, 60, "the outbox to empty")
    until(lambda: bank.waiting(FEED) < 100, 60, "the feed to empty")


def healed(bank: Bank, before: str, store: str) -> None:
    follows(bank)
    until(lambda: inspect("projector")["State"]["Health"]["Status"] == "healthy", 60, "a healthy projector")
    after = inspect("projector")
    if after["State"]["StartedAt"] != before or after["RestartCount"]:
        raise Failure(f"the projector was started again when {store} came back")


def kill_mysql(bank: Bank) -> None:
    before = inspect("projector")["State"]["StartedAt"]
    compose("kill", "mysql")
    step("mysql killed")
    until(lambda: bank.waiting() > 150, 60, "events to pile up in the outbox")
    step(f"{bank.waiting()} events wait in the outbox")
    compose("start", "mysql")
    healed(bank, before, "MySQL")
    step("mysql is back, and the projector has caught up")


def kill_mongo(bank: Bank) -> None:
    before = inspect("projector")["State"]["StartedAt"]
    compose("kill", "mongo")
    step("mongo killed")
    until(lambda: '"reachable": false' in projector("status", "--json"), 60, "`status` to show that MongoDB is away")
    compose("start", "mongo")
    healed(bank, before, "MongoDB")
    step("mongo is back, and the projector has caught up")


def compare(bank: Bank) -> int:
    """Once the writer has stopped, every field of every account is the same on both sides."""
    compose("stop", "writer")
    until(lambda: bank.waiting() == 0, 60, "the outbox to be empty")
    entities, rows = bank.entities(), bank.rows()
    different = [i for i in entities.keys() | rows.keys() if entities.get(i) != rows.get(i)]
    if different or not entities:
        raise Failure(f"{len(different)} of {len(entities)} accounts differ: {different[:3]}")
    step(f"{len(entities)} accounts are the same in both stores")
    until(lambda: bank.waiting(FEED) == 0, 60, "the feed to be empty")
    balances, movements = {i: row[2] for i, row in entities.items()}, bank.movements()
    different = [i for i in balances.keys() | movements.keys() if balances.get(i) != movements.get(i)]
    if different:
        raise Failure(f"the movements of {len(different)} accounts do not add up: {different[:3]}")
    step("their movements, which came through the feed, add up to their balances")
    verdict = compose("run", "--rm", "reconcile").strip().splitlines()
    step(f"reconcile: {verdict[-1]}")
    return len(entities)


def story() -> None:
    run(os.environ["COMPOSE"], "config", "--quiet")
    compose("build", "projector")
    size = int(run("docker", "image", "inspect", "--format", "{{.Size}}", "projector:local"))
    base = int(run("docker", "image", "inspect", "--format", "{{.Size}}", os.environ["DEBIAN_IMAGE"]))
    step(f"image built: {size / 1e6:.0f} MB, {(size - base) / 1e6:.0f} MB of them on top of Debian")
    compose("up", "--detach", "--wait", *LONG_RUNNING)
    step("up and healthy")
    check_hardening()
    bank = Bank()
    follows(bank)
    step("the projector follows the bank")
    check_metrics()
    kill_mysql(bank)
    kill_mongo(bank)
    accounts = compare(bank)
    compose("down")
    compose("up", "--detach", "--wait", *LONG_RUNNING)
    follows(bank)
    if compare(bank) < accounts:
        raise Failure("the data did not outlive down and up")
    step("down and up again: the data are still there")


def expressions() -> list[str]:
    """The queries of the dashboard's panels."""
    board = json.loads((ROOT / "demo/compose/grafana/projector.json").read_text())
    return [target["expr"].replace("$__rate_interval", "1m") for panel in board["panels"] for target in panel["targets"]]


def check_metrics() -> None:
    """Prometheus scrapes the metrics, and every panel has data."""
    compose("--profile", "metrics", "up", "--detach", "prometheus")

    def result(expression: str) -> list:
        query = urllib.parse.urlencode({"query": expression})
        url = f"http://127.0.0.1:{os.environ['PROMETHEUS_PORT']}/api/v1/query?{query}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)["data"]["result"]

    until(lambda: [r["value"][1] for r in result("up")] == ["1", "1"], 60, "Prometheus to read the metrics of both projectors")
    for expression in expressions():
        if expression.endswith("> 0"):  # empty while all is well, so only its form is checked
            result(expression)
        else:
            until(lambda: result(expression), 60, f"the dashboard's {expression}")
    step(f"Prometheus has an answer for all {len(expressions())} expressions of the dashboard")


def last_words() -> str:
    return compose("ps", "--all", check=False) + compose("--ansi", "never", "logs", "--tail", "8", check=False)


STARTED = time.monotonic()


def main() -> int:
    for name in ("MONGO_PORT", "MYSQL_PORT", "HTTP_PORT", "PROMETHEUS_PORT"):
        os.environ[name] = str(free_port())
    os.environ["COMPOSE_PROJECT_NAME"] = "projector-test"
    try:
        story()
    except (Failure, TimeoutError) as failure:
        print(f"{last_words()}\ncompose-test: {failure}")
        print("0 passed, 1 failed")
        return 1
    finally:
        compose("--profile", "*", "down", "--volumes", "--timeout", "5", check=False)
    print("1 passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
