"""The two stores of an example: a database of its name in MongoDB, and `<example>_read` in MySQL."""

from __future__ import annotations

import os
from datetime import datetime, timezone

import pymongo
import pymysql


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
