"""A port behind which MySQL claims to be Vitess, or another version, which cannot be installed here."""

from __future__ import annotations

import socket
import struct
from contextlib import contextmanager
from typing import Iterator

from forwarding import relaying

VERSION = b"8.0.40-Vitess"
QUERY = 3


def take(source: socket.socket) -> tuple[int, bytes] | None:
    """Reads a packet: its number and content; None at the end."""
    head = source.recv(4, socket.MSG_WAITALL)
    if len(head) < 4:
        return None
    length = struct.unpack("<I", head[:3] + b"\0")[0]
    return head[3], source.recv(length, socket.MSG_WAITALL) if length else b""


def give(target: socket.socket, number: int, content: bytes) -> None:
    target.sendall(struct.pack("<I", len(content))[:3] + bytes([number]) + content)


@contextmanager
def vitess(port: int, shards: list[str] | None, version: bytes = VERSION) -> Iterator[int]:
    """`port`: that of a MySQL on this machine. `shards`: the answer to SHOW VITESS_SHARDS; None: it is refused."""
    listed = b" UNION ALL ".join(b"SELECT '%s'" % shard.encode() for shard in shards or [])

    def said(statement: bytes) -> bytes:
        if statement == b"SHOW VITESS_SHARDS" and shards is not None:
            return listed
        return statement.replace(b"VERSION()", b"'%s'" % version)

    def ask(client: socket.socket, server: socket.socket) -> None:
        while packet := take(client):
            number, content = packet
            is_query = number == 0 and content[:1] == bytes([QUERY])
            give(server, number, content[:1] + said(content[1:]) if is_query else content)

    def answer(server: socket.socket, client: socket.socket) -> None:
        number, greeting = take(server)
        give(client, number, greeting[:1] + version + greeting[greeting.index(b"\0"):])
        while data := server.recv(65536):
            client.sendall(data)

    with relaying("127.0.0.1", port, ask, answer) as relayed:
        yield relayed
