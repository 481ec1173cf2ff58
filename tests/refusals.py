"""Ports in front of both stores that refuse one statement of a client: the first of a given shape.

A shape is a statement without its values, so that it is the same in the next run. A refused statement never reaches
the store; its client gets an error ("the test refuses this"), or its connection is cut.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
from contextlib import contextmanager
from typing import Iterator

import bson
from bson.raw_bson import RawBSONDocument

from forwarding import end, plainly, relaying

REFUSED = "the test refuses this"
OP_MSG = 2013
UNKNOWN, FORBIDDEN, CUT = {"mysql": 1105, "mongodb": 8}, {"mysql": 1142, "mongodb": 13}, None
COM_QUERY, COM_STMT_PREPARE, COM_STMT_EXECUTE = 3, 22, 23
LITERAL = re.compile(r"""[xX_]?'(?:[^'\\]|\\.|'')*'|\b0x[0-9A-Fa-f]+|\bt_[0-9a-f]{12}\w*|\b[0-9]+(?:\.[0-9]+)?\b""", re.DOTALL)
NOT_OURS = ("hello", "isMaster", "ismaster", "saslStart", "saslContinue", "ping", "endSessions", "killCursors", "buildInfo")


class MysqlWire:
    """Splits a client's bytes into whole packets, and builds answers to them."""

    @staticmethod
    def size(pending: bytes) -> int:
        return 4 + int.from_bytes(pending[:3], "little") if len(pending) >= 4 else 0

    @staticmethod
    def shape(packet: bytes) -> str | None:
        if packet[3] != 0 or packet[4] not in (COM_QUERY, COM_STMT_PREPARE, COM_STMT_EXECUTE):
            return None
        if packet[4] == COM_STMT_EXECUTE:
            return f"execute {int.from_bytes(packet[5:9], 'little')}"
        text = LITERAL.sub("?", packet[5:].decode(errors="replace"))
        text = re.sub(r"(\((?:\?|NULL|, ?)+\))(?:, ?\((?:\?|NULL|, ?)+\))+", r"\1", text)
        text = re.sub(r"\?(?:, ?\?)+", "?", text)
        return None if text.upper() == "ROLLBACK" else " ".join(text.split())

    @staticmethod
    def refusal(packet: bytes, code: int) -> bytes:
        body = b"\xff" + struct.pack("<H", code) + b"#HY000" + REFUSED.encode()
        return len(body).to_bytes(3, "little") + b"\1" + body


class MongodbWire:
    @staticmethod
    def size(pending: bytes) -> int:
        return struct.unpack_from("<i", pending)[0] if len(pending) >= 16 else 0

    @staticmethod
    def shape(message: bytes) -> str | None:
        if struct.unpack_from("<i", message, 12)[0] != OP_MSG or message[20] != 0:
            return None
        command = RawBSONDocument(message[21:21 + struct.unpack_from("<i", message, 21)[0]])
        name = next(iter(command))
        if name in NOT_OURS:
            return None
        collection = command.get("collection") if name == "getMore" else command[name]
        stages = command.get("pipeline", [])
        keys = [*command.get("filter", {}), *command.get("query", {}), *(key for stage in stages for key in stage)]
        return LITERAL.sub("?", " ".join([name, str(collection), *keys]))

    @staticmethod
    def refusal(message: bytes, code: int) -> bytes:
        body = bson.encode({"ok": 0.0, "code": code, "codeName": "Refused", "errmsg": REFUSED})
        return struct.pack("<iiiiib", 21 + len(body), 0, struct.unpack_from("<i", message, 4)[0], OP_MSG, 0, 0) + body


class Refusing:
    """The statements sent since `begin`, and the shape to refuse."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.mysql_port = self.mongodb_port = 0
        self.begin()

    def begin(self, store: str = "", shape: str = "", codes: dict[str, int] | None = CUT, spared: int = 0) -> None:
        """So many of that shape are spared before one is refused."""
        with self._lock:
            self.store, self.refused, self.codes, self.fired, self.spared = store, shape, codes, False, spared
            self.said: dict[str, list[str]] = {"mysql": [], "mongodb": []}

    def meets(self, store: str, shape: str) -> bool:
        with self._lock:
            if shape not in self.said[store]:
                self.said[store].append(shape)
            if self.fired or (store, shape) != (self.store, self.refused):
                return False
            self.spared -= 1
            self.fired = self.spared < 0
            return self.fired

    def settings(self, **mongodb: object) -> dict:
        """The settings of the mapping file that lead through both ports."""
        return {"mongodb": {"uri": self.mongodb_uri(), **mongodb}, "mysql": {"host": "127.0.0.1", "port": self.mysql_port}}

    def mongodb_uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.mongodb_port}/?directConnection=true"


@contextmanager
def refusing_port(refusing: Refusing, store: str, wire: type, port: int) -> Iterator[int]:
    def forward(client: socket.socket, server: socket.socket) -> None:
        pending = b""
        while data := client.recv(65536):
            pending += data
            while 0 < (size := wire.size(pending)) <= len(pending):
                message, pending = pending[:size], pending[size:]
                shape = wire.shape(message)
                if not shape or not refusing.meets(store, shape):
                    server.sendall(message)
                elif refusing.codes is CUT:
                    return end(client, server)
                else:
                    client.sendall(wire.refusal(message, refusing.codes[store]))

    with relaying("127.0.0.1", port, forward, plainly) as relayed:
        yield relayed


@contextmanager
def refusing_stores(mongodb_port: int, mysql_port: int) -> Iterator[Refusing]:
    refusing = Refusing()
    with refusing_port(refusing, "mongodb", MongodbWire, mongodb_port) as refusing.mongodb_port, \
            refusing_port(refusing, "mysql", MysqlWire, mysql_port) as refusing.mysql_port:
        yield refusing
