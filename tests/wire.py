"""Records what clients send to a mongod: a port that leads to it and keeps each command."""

from __future__ import annotations

import struct
from contextlib import contextmanager
from typing import Iterator

import bson
from bson.codec_options import CodecOptions

from forwarding import forwarding

OP_MSG = 2013
OPTIONS = CodecOptions(uuid_representation=bson.binary.UuidRepresentation.STANDARD, unicode_decode_error_handler="replace")


class Wire:
    """The commands so far; a command's name is its first key, and document sequences are left out."""

    def __init__(self) -> None:
        self.port = 0
        self.commands: list[dict] = []

    def named(self, name: str, **fields: object) -> list[dict]:
        """The commands of that name with these fields, such as `update="outbox"`."""
        return [command for command in list(self.commands)
                if next(iter(command)) == name and all(command.get(key) == value for key, value in fields.items())]

    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/?directConnection=true"

    def take(self, pending: bytearray) -> None:
        """Removes complete messages from the front."""
        while len(pending) >= 16:
            length, _, _, opcode = struct.unpack_from("<iiii", pending)
            if len(pending) < length:
                return
            message = bytes(pending[:length])
            del pending[:length]
            at = 20  # after header and flags
            while opcode == OP_MSG and at < length - 4:
                size = struct.unpack_from("<i", message, at + 1)[0]
                if message[at] == 0:
                    self.commands.append(bson.decode(message[at + 1:at + 1 + size], OPTIONS))
                at += 1 + size


@contextmanager
def recorded(port: int) -> Iterator[Wire]:
    """`port`: that of the mongod on this machine."""
    wire = Wire()
    with forwarding("127.0.0.1", port, wire.take) as wire.port:
        yield wire
