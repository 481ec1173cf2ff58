"""A local port that forwards to another one."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import Callable, Iterator


Carry = Callable[[socket.socket, socket.socket], None]


def end(*sockets: socket.socket) -> None:
    for each in sockets:
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


@contextmanager
def relaying(host: str, port: int, there: Carry, back: Carry) -> Iterator[int]:
    """A port of this address that forwards to a port on loopback. Each connection has two threads: `there` carries from
    the client to the server, `back` from the server to the client."""
    def run(carry: Carry, source: socket.socket, target: socket.socket) -> None:
        try:
            carry(source, target)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            end(source, target)

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", port))
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for ends in ((there, client, server), (back, server, client)):
                threading.Thread(target=run, args=ends, daemon=True).start()

    with socket.create_server((host, 0)) as listener:
        threading.Thread(target=accept, args=[listener], daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def plainly(source: socket.socket, target: socket.socket) -> None:
    while data := source.recv(65536):
        target.sendall(data)


@contextmanager
def forwarding(host: str, port: int, hear: Callable[[bytearray], None] | None = None) -> Iterator[int]:
    """The same, unchanged. `hear` gets what a client has sent and may remove what it has understood from the front; the
    rest is passed again together with what the client sends next."""
    def heard(source: socket.socket, target: socket.socket) -> None:
        said = bytearray()
        while data := source.recv(65536):
            said.extend(data)
            hear(said)
            target.sendall(data)

    with relaying(host, port, heard if hear else plainly, plainly) as forwarded:
        yield forwarded


@contextmanager
def recording(port: int) -> Iterator[tuple[int, bytearray]]:
    """The same on loopback, with everything that clients have sent."""
    said = bytearray()

    def keep(heard: bytearray) -> None:
        said.extend(heard)
        heard.clear()

    with forwarding("127.0.0.1", port, keep) as forwarded:
        yield forwarded, said


def renumbered(greeting: bytes) -> bytes:
    """MySQL's first packet with another number of the connection: it follows the version, which ends with a zero."""
    at = greeting.index(b"\0", 5) + 1
    number = int.from_bytes(greeting[at:at + 4], "little") + 1_000_000
    return greeting[:at] + number.to_bytes(4, "little") + greeting[at + 4:]


@contextmanager
def forgetting(port: int, what: bytes) -> Iterator[tuple[int, Callable[[], None]]]:
    """The same on loopback, and a function that ends the connections on which a client has said `what`, for the client
    alone: the server still has them, as it does behind a router that has forgotten them. As a proxy does, it greets
    with numbers of its own."""
    said: list[socket.socket] = []
    forgotten: list[socket.socket] = []
    over = threading.Event()

    def there(source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(65536):
            if what in data and source not in said:
                said.append(source)
            target.sendall(data)
        if source in forgotten:
            over.wait()

    def back(source: socket.socket, target: socket.socket) -> None:
        target.sendall(renumbered(source.recv(65536)))
        plainly(source, target)

    def forget() -> None:
        forgotten.extend(said)
        end(*forgotten)

    with relaying("127.0.0.1", port, there, back) as forwarded:
        try:
            yield forwarded, forget
        finally:
            over.set()
