"""What the examples share. The two stores: a database of its name in MongoDB, and `<example>_read` in MySQL."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Callable

import pymongo
import pymysql


class Failure(Exception):
    pass


class Stores:
    def __init__(self, example: str) -> None:
        self.example = example
        self.client = pymongo.MongoClient(os.environ["MONGO_URI"], uuidRepresentation="standard")
        self.source = self.client[example]
        self.mysql = pymysql.connect(host=os.environ["MYSQL_HOST"], port=int(os.environ["MYSQL_PORT"]), user="root",
                                     autocommit=True, charset="utf8mb4")
        self.query(f"CREATE DATABASE {example}_read CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        self.query(f"GRANT ALL ON {example}_read.* TO {os.environ['PROJECTOR_MYSQL_USER']}@'127.0.0.1'")
        self.mysql.select_db(f"{example}_read")

    def query(self, statement: str) -> tuple[tuple, ...]:
        with self.mysql.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    def applied(self) -> int:
        return self.query(f"SELECT COUNT(*) FROM projector_applied WHERE projector = '{self.example}'")[0][0]

    def waiting(self) -> tuple[int, float]:
        """The number of events in the outbox, and the age of the oldest in ms."""
        oldest = self.source.outbox.find_one(sort=[("occurred_at", 1)], projection=["occurred_at"])
        if oldest is None:
            return 0, 0
        age = datetime.now(timezone.utc).replace(tzinfo=None) - oldest["occurred_at"]
        return self.source.outbox.estimated_document_count(), max(0, age.total_seconds() * 1000)


def run(demo: Callable[[Path, Path], None]) -> int:
    """Runs it with a folder and the path of a log in it; returns the exit status."""
    with tempfile.TemporaryDirectory(prefix="projector-demo.") as name:
        log = Path(name) / "projector.log"
        try:
            demo(Path(name), log)
            return 0
        except (Failure, subprocess.TimeoutExpired) as failure:
            print(f"\ndemo: {failure}", file=sys.stderr)
            if log.exists():
                print("the projector's last words:", *log.read_text(errors="replace").splitlines()[-15:],
                      sep="\n  ", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\ninterrupted: cleaning up", file=sys.stderr)
            return 130
