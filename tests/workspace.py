"""What a test of real stores works with: databases of its own, a mapping file, the two programs.

    def test_deposit(bank):
        bank.put(bank.event("a1", "AccountOpened", user_id="u1", name="Ada", balance=decimal("10.00")))
        assert bank.projector("run", "--once").returncode == 0
        assert bank.rows("account")[0]["balance"] == Decimal("10.00")

Tests wait for conditions (wait, wait_drained, wait_log), never for a time to pass.
"""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator

import jsonschema
import pymongo
import pymysql
from bson import Decimal128
from pymongo.collection import Collection
from pymongo.write_concern import WriteConcern

from mongod import ReplicaSet
from mysqld import PROJECTOR_PASSWORD, PROJECTOR_USER, Mysqld
from server import wait_for

ROOT = Path(__file__).resolve().parent.parent
PROJECTOR = os.environ.get("PROJECTOR_BIN", str(ROOT / "build/projector/projector"))
OUTBOX = os.environ.get("OUTBOX_BIN", str(ROOT / "build/outbox/outbox"))
MAJORITY = WriteConcern("majority")
# For what takes a second on a quiet machine: only a failing test or a fully loaded machine waits longer.
WAIT_S = float(os.environ.get("TEST_WAIT_S", "60"))
# What "at once" may take under load; less than what it must not wait for: a lock (10 s) or an answer (30 s).
AT_ONCE_S = 8

# libmongoc keeps counters in /dev/shm/mongoc-PID. If a killed process left them there (the projector leaves none), a
# later process with the same pid reports that on stderr.
os.environ["MONGOC_DISABLE_SHM"] = "1"


def bank_projections() -> list[dict]:
    return json.loads((ROOT / "demo/bank.json").read_text())["projections"]


@functools.cache
def mapping_validator() -> jsonschema.protocols.Validator:
    schema = json.loads((ROOT / "docs/projector.schema.json").read_text())
    return jsonschema.validators.validator_for(schema)(schema)


def decimal(text: str) -> Decimal128:
    return Decimal128(text)


def said(done: subprocess.CompletedProcess, code: int) -> str:
    """The only line on stderr."""
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout == ""
    assert re.fullmatch(r"projector( \w+)?: [^\n]+\n", done.stderr), done.stderr
    return done.stderr.strip()


def last_said(done: subprocess.CompletedProcess, code: int) -> str:
    """The last line of `run`; warnings may precede it."""
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr.splitlines()[-1]


@dataclass
class Stores:
    """Addresses of the stores; root has no password, the program's own user has one."""

    mongo_uri: str
    mysql_port: int
    mysql_host: str = "127.0.0.1"

    @classmethod
    def from_environment(cls) -> "Stores":
        return cls(os.environ["MONGO_URI"], int(os.environ["MYSQL_PORT"]), os.environ["MYSQL_HOST"])

    @classmethod
    def of(cls, mongo: ReplicaSet, mysql: Mysqld) -> "Stores":
        return cls(mongo.uri, mysql.port)

    def mongo(self) -> pymongo.MongoClient:
        """Reads with majority, as the programs do: what a test has waited for is what a program called next finds."""
        return pymongo.MongoClient(self.mongo_uri, uuidRepresentation="standard", serverSelectionTimeoutMS=20000,
                                   readConcernLevel="majority")

    def mysql(self, database: str | None = None) -> pymysql.Connection:
        return pymysql.connect(host=self.mysql_host, port=self.mysql_port, user="root", database=database,
                               autocommit=True, charset="utf8mb4", cursorclass=pymysql.cursors.DictCursor,
                               init_command="SET time_zone = '+00:00'")


def last_lines(text: str, lines: int = 40) -> str:
    return "\n".join(text.splitlines()[-lines:])


class Process:
    """A program that runs alongside the test; its stderr goes to a file."""

    def __init__(self, argv: list[str], log: Path, environment: dict[str, str]):
        self.title = " ".join([Path(argv[0]).name, *argv[1:]])
        self.log = log
        with log.open("wb") as stderr:
            self.popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
                                          env={**os.environ, **environment})

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def stop(self, timeout: float = WAIT_S) -> int:
        """Sends SIGTERM; returns the exit status."""
        self.popen.terminate()
        return self.popen.wait(timeout)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def pause(self) -> None:
        self.popen.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.popen.send_signal(signal.SIGCONT)

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def log_tail(self, lines: int = 40) -> str:
        return last_lines(self.log_text(), lines)

    def wait_log(self, pattern: str, timeout: float = WAIT_S) -> re.Match:
        """Waits until stderr matches; fails if the process ends first."""
        def find() -> re.Match | None:
            ended = not self.running
            match = re.search(pattern, self.log_text(), re.MULTILINE)
            assert match or not ended, f"{self.title} ended with status {self.popen.returncode} without /{pattern}/"
            return match
        return wait_for(find, timeout, f"/{pattern}/ in the log of {self.title}")


@dataclass
class Made:
    """What `outbox init` and `projector schema --apply` have made in empty databases."""

    tables: list[str]
    collections: dict[str, list[pymongo.IndexModel]]

    @classmethod
    def by_programs(cls, ws: "Workspace") -> "Made":
        names = [name for row in ws.query("SHOW TABLES") for name in row.values()]
        tables = [ws.query(f"SHOW CREATE TABLE `{name}`")[0]["Create Table"] for name in names]
        assert not any(ws.query(f"SELECT 1 FROM `{name}` LIMIT 1") for name in names)
        found = list(ws.db.list_collections())
        assert not any(collection["options"] or ws.db[collection["name"]].find_one() for collection in found)
        return cls(tables, {c["name"]: [pymongo.IndexModel(list(index.pop("key").items()), **index)
                                        for index in ws.db[c["name"]].list_indexes() if index["name"] != "_id_"] for c in found})

    def repeat(self, ws: "Workspace") -> None:
        for table in self.tables:
            ws.query(table)
        for name, indexes in self.collections.items():
            if indexes:
                ws.db[name].create_indexes(indexes)
            else:
                ws.db.create_collection(name)


_made: dict[str, Made] = {}  # by _kind_of_mapping


class Workspace:
    def __init__(self, stores: Stores, folder: Path):
        self.stores = stores
        self.folder = folder
        self.name = f"t_{uuid.uuid4().hex[:12]}"  # of both databases
        self.file: Path | None = None  # the mapping file that projector() and start_projector() use
        self.environment: dict[str, str] = {}  # additional environment variables for the programs
        self.started: list[Process] = []
        self.logs: list[tuple[str, str]] = []  # of programs that have ended: which, and its stderr
        self._clock = datetime.now(timezone.utc).replace(microsecond=0, tzinfo=None)

    def __enter__(self) -> "Workspace":
        self.mongo = self.stores.mongo()
        self.mysql = self.stores.mysql()
        self.query(f"CREATE DATABASE {self.name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        self.mysql.close()
        self.mysql = self.stores.mysql(self.name)  # still selected after a reconnect
        return self

    def __exit__(self, *_) -> None:
        for process in self.started:
            if process.running:
                process.kill()
        self.mongo.drop_database(self.name)
        self.mongo.close()
        with self.stores.mysql() as connection, connection.cursor() as cursor:  # the test may have lost its own
            cursor.execute(f"DROP DATABASE IF EXISTS {self.name}")
        self.mysql.close()

    # MongoDB

    @property
    def db(self) -> pymongo.database.Database:
        return self.mongo.get_database(self.name, write_concern=MAJORITY)

    @property
    def outbox(self) -> Collection:
        return self.db["outbox"]

    @property
    def accounts(self) -> Collection:
        return self.db["accounts"]

    def event(self, aggregate_id: Any, event_type: str, version: int | None = None, at: datetime | None = None,
              **payload: Any) -> dict:
        """An event of the bank; without `at` its time is 1 ms after the previous one's."""
        self._clock += timedelta(milliseconds=1)
        event = {"_id": uuid.uuid4(), "aggregate_type": "account", "aggregate_id": aggregate_id,
                 "event_type": event_type, "occurred_at": at or self._clock, "payload": payload}
        return event if version is None else {**event, "version": version}

    def put(self, *events: dict | Iterable[dict]) -> None:
        """Inserts raw events in the order given; accepts events and lists of events."""
        flat = [e for item in events for e in ([item] if isinstance(item, dict) else item)]
        self.outbox.insert_many(flat)

    def found(self, event: dict) -> dict | None:
        """The event as it is in the outbox."""
        return self.outbox.find_one({"_id": event["_id"]})

    # MySQL

    def query(self, statement: str, *values: Any) -> list[dict]:
        self.mysql.ping(reconnect=True)
        with self.mysql.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def end_sessions(self, user: str) -> None:
        """Kills every session of the user in this database."""
        for row in self.query("SELECT ID FROM information_schema.PROCESSLIST WHERE DB = %s AND USER = %s", self.name, user):
            try:
                self.query(f"KILL {row['ID']}")
            except pymysql.MySQLError as error:
                assert error.args[0] == 1094, error  # it is already gone

    def rows(self, table: str) -> list[dict]:
        """All rows, ordered by the first column."""
        return self.query(f"SELECT * FROM {table} ORDER BY 1")

    def ledger(self) -> dict[str, str]:
        """The outcome of each applied event, by the text form of its id."""
        return {row["event_id"].decode(): row["outcome"] for row in self.query("SELECT * FROM projector_applied")}

    # The programs

    def mapping(self, projections: list[dict] | None = None, **overrides: Any) -> Path:
        """Writes a mapping file and makes it the current one; `mongodb` and `mysql` are merged, other keys replaced."""
        content = {
            "name": self.name,
            "mongodb": {"uri": self.stores.mongo_uri, "database": self.name, "outbox": "outbox",
                        **overrides.pop("mongodb", {})},
            "mysql": {"host": self.stores.mysql_host, "port": self.stores.mysql_port, "user": PROJECTOR_USER,
                      "password": PROJECTOR_PASSWORD, "database": self.name, **overrides.pop("mysql", {})},
            "http": "",
            **overrides,
            "projections": bank_projections() if projections is None else projections,
        }
        content = {key: value for key, value in content.items() if value is not None}  # None: the default
        self.file = self.folder / f"mapping{len(list(self.folder.glob('mapping*.json')))}.json"
        self.file.write_text(json.dumps(content, indent=2))
        self.file.chmod(0o600)
        return self.file

    def create(self) -> None:
        """Creates the outbox with its indexes and the tables of the mapping, and checks the mapping against the JSON Schema.
        The programs do it once for each kind of mapping; a later test of the same process gets the same by the same
        DDL, which takes half of the CPU."""
        mapping_validator().validate(json.loads((self.file or self.mapping()).read_text()))
        kind, empty = self._kind_of_mapping(), not self.db.list_collection_names() and not self.query("SHOW TABLES")
        if empty and kind in _made:
            _made[kind].repeat(self)
            return
        self.outbox_program("init", check=True)
        applied = self.projector("schema", "--apply")
        assert applied.returncode == 0, applied.stderr
        if empty:
            _made[kind] = Made.by_programs(self)

    def _kind_of_mapping(self) -> str:
        """What decides which tables and indexes are made."""
        mapping = json.loads((self.file or self.mapping()).read_text())
        return json.dumps([PROJECTOR, OUTBOX, self.stores.mysql_port, self.environment, mapping["projections"],
                           {**mapping["mongodb"], "uri": "", "database": ""}, {**mapping["mysql"], "database": ""}])

    def run_once(self) -> subprocess.CompletedProcess:
        """Applies everything in the outbox; the log is in the result's stderr."""
        done = self.projector("run", "--once")
        self.logs.append(("projector run --once", done.stderr))
        assert done.returncode == 0, done.stderr
        return done

    def projector(self, command: str, *arguments: str, timeout: float = 2 * WAIT_S) -> subprocess.CompletedProcess:
        argv = self._projector(command, *arguments)
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
                              env={**os.environ, **self.environment})

    @contextmanager
    def start_projector(self, *arguments: str) -> Iterator[Process]:
        """Starts `projector run` alongside the test; it is killed at the end unless the test has stopped it."""
        with self.start_command("run", *arguments) as process:
            yield process

    @contextmanager
    def start_command(self, command: str, *arguments: str) -> Iterator[Process]:
        """Starts another command alongside the test; it is killed at the end unless it has ended."""
        process = Process(self._projector(command, *arguments), self.folder / f"{command}{len(self.started)}.log", self.environment)
        self.started.append(process)
        try:
            yield process
        finally:
            if process.running:
                process.kill()

    def outbox_program(self, command: str, *arguments: str, input: str | None = None,
                       check: bool = False) -> subprocess.CompletedProcess:
        return subprocess.run([OUTBOX, command, "--uri", self.stores.mongo_uri, "--database", self.name, *arguments],
                              input=input or "", capture_output=True, text=True, timeout=120, check=check)

    def _projector(self, command: str, *arguments: str) -> list[str]:
        return [PROJECTOR, command, "-c", str(self.file or self.mapping()), *arguments]

    # Waiting

    def wait(self, condition: Callable[[], Any], timeout: float = WAIT_S, what: str = "the condition") -> Any:
        return wait_for(condition, timeout, what)

    def wait_status(self, event: dict, status: str, timeout: float = WAIT_S) -> dict:
        """Waits until the event has that status in the outbox, and returns its document."""
        return self.wait(lambda: (d := self.found(event)) and d.get("status") == status and d, timeout,
                         f"event {event['_id']} to be {status}")

    def wait_gone(self, *events: dict, timeout: float = WAIT_S) -> None:
        """Waits until these events have left the outbox."""
        ids = [e["_id"] for e in events]
        self.wait(lambda: self.outbox.find_one({"_id": {"$in": ids}}) is None, timeout, f"{len(ids)} events to be applied")

    def wait_lock_wait(self, statement: str = "UPDATE (SELECT") -> None:
        """Waits until a worker waits for a row. Not by INNODB_TRX: the
        servers refresh it only when nobody has read it for a while."""
        self.wait(lambda: any((row["Info"] or "").startswith(statement) for row in self.query("SHOW FULL PROCESSLIST")
                              if row["db"] == self.name), what="a lock wait")

    def state_file(self, command: str) -> Path:
        """Where that command keeps what `--resume` needs."""
        return Path(self.environment["XDG_STATE_HOME"]) / f"projector/{self.name}.{command}"

    def kill_at(self, lines: int, command: str, *arguments: str) -> bool:
        """Kills the command once its state file has grown by that many lines; False if it had ended before."""
        process = subprocess.Popen(self._projector(command, "--json", *arguments), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **self.environment})
        file = self.state_file(command)
        before = file.read_bytes().count(b"\n") if "--resume" in arguments and file.exists() else 0
        while process.poll() is None:
            if file.exists() and file.read_bytes().count(b"\n") >= before + lines:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.001)
        return process.returncode == -signal.SIGKILL

    def wait_drained(self, timeout: float = WAIT_S) -> None:
        self.wait(lambda: self.outbox.find_one() is None, timeout, "an empty outbox")
