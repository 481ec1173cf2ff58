"""The stage of the faults: private servers, one or more projectors behind proxies, and the bank that writes."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

from projectors import PASSWORD, Projector
from proxy import Proxy
from mongod import ReplicaSet
from mysqld import Mysqld
from server import scratch_folder, wait_for
from workload import Bank, Writer, projections
from workspace import ROOT

USER = "faulty"
SETTINGS = {"workers": 2, "lease_ms": 2000, "sweep_interval_ms": 500, "claim_timeout_ms": 1500, "backoff_ms": 50,
            "gap_wait_ms": 200, "max_attempts": 6, "memory_mb": 32, "batch": 100}


def build() -> str:
    """The projector with crash points; FAULTS_PROJECTOR names an existing build."""
    if binary := os.environ.get("FAULTS_PROJECTOR"):
        return binary
    folder = ROOT / "build-faults"
    commands = [["ninja", "-C", str(folder), "--quiet", "projector/projector"]]
    if not (folder / "build.ninja").exists():
        commands.insert(0, ["meson", "setup", str(folder), str(ROOT), "-Dcrash_points=true"])
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    return str(folder / "projector/projector")


class World:
    """Servers, databases and projectors; `with World(seed=1) as world`."""

    def __init__(self, seed: int, members: int = 3, mongo_args: list[str] | None = None):
        self.seed = seed
        self.random = random.Random(seed)  # for the faults; the bank has its own
        self.folder = scratch_folder()
        self.logs = Path(os.environ.get("FAULTS_LOGS", str(self.folder)))
        self.mongo = ReplicaSet(self.folder, members=members, cache_gb=0.25)
        self.mongo_args = mongo_args or []
        self.mysql = Mysqld(self.folder / "mysqld")
        self.projectors: list[Projector] = []
        self.binary = build()
        self.name = "bank"
        self.faults: list[str] = []  # the steps so far

    def __enter__(self) -> "World":
        try:
            self.mysql.start(["--skip-log-bin", "--innodb-flush-log-at-trx-commit=1",
                              "--innodb-buffer-pool-size=64M"], wait=False)
            self.mongo.start(self.mongo_args)
            self.mysql.wait_ready()
            self.prepare()
            return self
        except BaseException:
            self.discard()
            raise

    def prepare(self) -> None:
        """Databases, the user, the mapping, the bank and one projector."""
        self.client = self.mongo.client(uuidRepresentation="standard", serverSelectionTimeoutMS=15000,
                                        retryWrites=True, socketTimeoutMS=15000, connectTimeoutMS=3000)
        # Only what the projector needs: without SUPER, so that read_only applies to it.
        self.sql(f"CREATE DATABASE {self.name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
                 f"CREATE USER {USER}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'",
                 f"GRANT ALL ON {self.name}.* TO {USER}@'127.0.0.1'", database=None)
        self.bank = Bank(self.client, self.name, self.seed)
        self.db = self.bank.db
        self.db.outbox.create_index([("occurred_at", 1), ("version", 1), ("_id", 1)])
        self.db.outbox.create_index([("aggregate_type", 1), ("aggregate_id", 1), ("occurred_at", 1)])
        projector = self.add_projector(start=False)
        done = subprocess.run([self.binary, "schema", "--apply", *projector.argv[2:]], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        projector.start().wait_log("info working name=", 0)

    def add_projector(self, start: bool = True, **settings: Any) -> Projector:
        number = len(list(self.folder.glob("mapping*.json")))
        proxy = Proxy(self.mysql.port)
        mapping = self.folder / f"mapping{number}.json"
        mapping.write_text(json.dumps({
            "name": self.name,
            "mongodb": {"uri": self.mongo.uri, "database": self.name},
            "mysql": {"host": "127.0.0.1", "port": proxy.port, "user": USER, "password": PASSWORD,
                      "database": self.name},
            "http": "", **SETTINGS, **settings, "projections": projections()}))
        mapping.chmod(0o600)
        projector = Projector(self.binary, mapping, proxy, self.logs / f"projector{number}.log")
        self.projectors.append(projector)
        if start:
            projector.start()
        return projector

    def remove_projector(self, projector: Projector) -> int:
        status = projector.stop()
        self.projectors.remove(projector)
        projector.proxy.close()
        return status

    @property
    def projector(self) -> Projector:
        return self.projectors[0]

    # The stores

    def sql(self, *statements: str, database: str | None = "bank", **options: Any) -> list[tuple]:
        """Runs the statements as root, past the proxy; returns the rows of the last."""
        with self.mysql.connect(database=database, read_timeout=60, **options) as connection, \
                connection.cursor() as cursor:
            cursor.execute("SET time_zone = '+00:00'")
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def primary_client(self, use) -> Any:
        with self.mongo.primary().client() as client:
            return use(client)

    @contextmanager
    def writing(self, pause_s: float = 0.05) -> Iterator[Writer]:
        with Writer(self.bank, pause_s) as writer:
            yield writer

    # The end

    def discard(self) -> None:
        for projector in self.projectors:
            projector.discard()
            projector.proxy.close()
        self.mongo.discard()
        self.mysql.discard()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __exit__(self, kind, *_) -> None:
        if kind is not None:
            print(self.story(), flush=True)
        self.discard()

    def story(self) -> str:
        """What a failure report contains: the seed, the faults so far, and the projectors' last log lines."""
        logs = "\n".join(f"--- {p.log.name} (exits {p.exits[-5:]})\n{p.log_tail(30)}" for p in self.projectors)
        return f"seed {self.seed}, after {len(self.faults)} faults: {', '.join(self.faults[-30:])}\n{logs}"

    def wait(self, condition, timeout: float, what: str) -> Any:
        return wait_for(condition, timeout, what)
