"""The bank, for 20 seconds: `outbox demo` writes events to MongoDB, and the projector carries them into MySQL. At the
end every account is compared, both here and by `projector reconcile`. Started by `./run demo`, with the servers in the
environment. The figures come from the two stores, not from the projector."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import unicodedata
from decimal import Decimal
from pathlib import Path

from stores import Failure, Stores, run

RATE = 300
SECONDS = int(os.environ.get("DEMO_SECONDS", "20"))
DRAIN_LIMIT_S = 15
OUTBOX = os.environ["OUTBOX_BIN"]
PROJECTOR = os.environ["PROJECTOR_BIN"]
FEED = "outbox_movements"
BANK = ["--uri", os.environ["MONGO_URI"], "--database", "bank", "--outbox", "outbox"]


class Bank(Stores):
    def __init__(self) -> None:
        super().__init__("bank")

    def accounts_in_mongodb(self) -> dict[str, tuple]:
        return {a["_id"]: (a["user_id"], a["name"], a["balance"].to_decimal(), a["opened_at"])
                for a in self.source.accounts.find()}

    def accounts_in_mysql(self) -> dict[str, tuple]:
        rows = self.query("SELECT account_id, user_id, name, balance, opened_at FROM account")
        return {row[0]: row[1:] for row in rows}


class StatusLine:
    """One line: rewritten in place on a terminal, printed every two seconds elsewhere."""

    def __init__(self, stores: Bank) -> None:
        self.stores = stores
        self.terminal = sys.stdout.isatty()
        self.every_s = 0.5 if self.terminal else 2
        self.start = self.shown_at = time.monotonic()
        self.applied = 0

    def update(self, now: float | None = None) -> None:
        now = now or time.monotonic()
        if now - self.shown_at < self.every_s:
            return
        applied = self.stores.applied()
        waiting, lag_ms = self.stores.waiting()
        rate = (applied - self.applied) / (now - self.shown_at)
        text = (f"{now - self.start:4.0f} s   applied {applied:6,}   {rate:6,.0f} events/s   "
                f"lag {lag_ms:5,.0f} ms   outbox {waiting:4,}")
        print(f"\r\033[K{text}" if self.terminal else text, end="" if self.terminal else "\n", flush=True)
        self.applied, self.shown_at = applied, now

    def close(self) -> None:
        if self.terminal:
            print()


def call(*argv: str) -> str:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"{' '.join([Path(argv[0]).name, argv[1]])} failed with status {done.returncode}:\n"
                      f"{done.stdout}{done.stderr}")
    return done.stdout


def mapping_file(folder: Path) -> Path:
    """bank.json with a free port, which is a number and so cannot be a ${variable}."""
    mapping = json.loads((Path(__file__).parent / "bank.json").read_text())
    mapping["mysql"]["port"] = int(os.environ["MYSQL_PORT"])
    mapping["mongodb"]["feeds"] = [FEED]
    mapping["http"] = "127.0.0.1:0"  # 9464 may be in use
    password = folder / "password"
    password.touch(mode=0o600)
    password.write_text(os.environ["PROJECTOR_MYSQL_PASSWORD"])
    os.environ["BANK_PASSWORD_FILE"] = str(password)
    file = folder / "bank.json"
    file.write_text(json.dumps(mapping, indent=2))
    return file


MOVED = {"aggregate_type": "account", "table": "movements",
         "key": {"account_id": {"from": "$aggregate_id", "type": "varchar(36)"}},
         "columns": {"opened_with": {"from": "balance", "type": "decimal(18,2)"}, "moved": {"from": "moved", "type": "decimal(18,2)"}},
         "events": {"AccountOpened": {"op": "sql", "statement": "INSERT INTO movements VALUES (:$aggregate_id, :balance, 0)"},
                    "MoneyDeposited": {"op": "add", "columns": {"moved": "amount"}},
                    "MoneyWithdrawn": {"op": "subtract", "columns": {"moved": "amount"}},
                    "AccountClosed": {"op": "delete"}}}


def second_mapping_file(folder: Path, first: str) -> str:
    """The mapping of a second projector, whose outbox is the first one's feed."""
    mapping = json.loads(Path(first).read_text())
    mapping["name"] = "movements"
    mapping["mongodb"] = {"uri": "${MONGO_URI}", "database": "bank", "outbox": FEED}
    mapping["projections"], mapping["unknown_events"], mapping["http"] = [MOVED], "ignore", ""
    file = folder / "movements.json"
    file.write_text(json.dumps(mapping, indent=2))
    return str(file)


def second_read_model(folder: Path, stores: Bank, mapping: str, accounts: dict[str, tuple]) -> str:
    """Filled from the feed at the very end: each account's movements must add up to its balance."""
    second = second_mapping_file(folder, mapping)
    call(PROJECTOR, "schema", "-c", second, "--apply")
    call(PROJECTOR, "run", "-c", second, "--once")
    sums = dict(stores.query("SELECT account_id, opened_with + moved FROM movements"))
    if sums != {key: row[2] for key, row in accounts.items()}:
        raise Failure("the second read model does not agree")
    return f"a second read model, filled from the feed {FEED}: {len(sums):,} accounts, whose movements add up to their balances"


def page_address(projector: subprocess.Popen, log: Path) -> str:
    """The port is chosen at run time, so it is read from the log."""
    deadline = time.monotonic() + 15
    while not (found := re.search(r"HTTP address=(\S+)", log.read_text())):
        if projector.poll() is not None or time.monotonic() > deadline:
            raise Failure("the projector does not start")
        time.sleep(0.02)
    return found[1]


def follow(stores: Stores, writer: subprocess.Popen, projector: subprocess.Popen) -> None:
    """Shows the progress until the writer has ended and the outbox is empty."""
    line = StatusLine(stores)
    try:
        deadline = None
        while deadline is None or stores.waiting()[0] > 0:
            if projector.poll() is not None:
                raise Failure(f"the projector ended with status {projector.returncode}")
            if deadline is None and writer.poll() is not None:
                deadline = time.monotonic() + DRAIN_LIMIT_S
            if deadline is not None and time.monotonic() > deadline:
                raise Failure(f"the outbox still holds {stores.waiting()[0]} events, {DRAIN_LIMIT_S} s after the last")
            line.update()
            time.sleep(0.05)
    finally:
        line.close()
    if writer.returncode != 0:
        raise Failure(f"the writer ended with status {writer.returncode}")


def cell(value: object, width: int) -> str:
    """Some names are hostile on purpose: removes control characters, and pads to the width on screen."""
    text, used = "", 0
    for char in str(value):
        if unicodedata.category(char).startswith("C"):
            continue
        wide = 0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if used + wide > width:
            break
        text, used = text + char, used + wide
    return text + " " * (width - used)


def compare(mongodb: dict[str, tuple], mysql: dict[str, tuple]) -> list[str]:
    """The ids of accounts that differ in any field."""
    return sorted(i for i in mongodb.keys() | mysql.keys() if mongodb.get(i) != mysql.get(i))


def show(mongodb: dict[str, tuple], mysql: dict[str, tuple], different: list[str]) -> None:
    def side(row: tuple | None) -> str:
        return f"{cell(row[1], 28)} {row[2]:>12}" if row else cell("(none)", 41)

    print(f"\n{'account':38} {'MongoDB: accounts':41}   MySQL: account")
    for key in (different or sorted(mongodb))[:6]:
        sign = "!=" if key in different else "=="
        print(f"{cell(key, 38)} {side(mongodb.get(key))} {sign} {side(mysql.get(key))}")

    def totals(rows: dict[str, tuple]) -> str:
        return f"{len(rows):,} accounts, {sum((row[2] for row in rows.values()), Decimal(0)):,} in all"
    print(f"\nMongoDB: {totals(mongodb)}\nMySQL:   {totals(mysql)}")


def demo(folder: Path, log: Path) -> None:
    stores = Bank()
    mapping = str(mapping_file(folder))
    call(OUTBOX, "init", *BANK, "--feed", FEED)
    call(PROJECTOR, "schema", "-c", mapping, "--apply")
    print(f"a bank writes {RATE} events a second for {SECONDS} s, the projector follows", flush=True)
    with log.open("wb") as stderr:
        projector = subprocess.Popen([PROJECTOR, "run", "-c", mapping], stdin=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL, stderr=stderr)
    print(f"watch it: http://{page_address(projector, log)}/", flush=True)
    writer = subprocess.Popen([OUTBOX, "demo", *BANK, "--rate", str(RATE), "--seconds", str(SECONDS), "--quiet"],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        follow(stores, writer, projector)
        projector.terminate()
        if (status := projector.wait(10)) != 0:
            raise Failure(f"the projector answered SIGTERM with status {status}, not 0")
    finally:
        for process in (writer, projector):
            process.kill()
            process.wait()
    mongodb, mysql = stores.accounts_in_mongodb(), stores.accounts_in_mysql()
    different = compare(mongodb, mysql)
    show(mongodb, mysql, different)
    if different or not mongodb:
        raise Failure(f"{len(different)} accounts differ" if different else "no account was written")
    print(f"\n{stores.applied():,} events applied: the stores agree on every field of every account")
    print(second_read_model(folder, stores, mapping, mongodb))
    print(f"\n$ projector reconcile\n{call(PROJECTOR, 'reconcile', '-c', mapping, '--state', str(folder / 'reconcile'))}",
          end="")


if __name__ == "__main__":
    sys.exit(run(demo))
