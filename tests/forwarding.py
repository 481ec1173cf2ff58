"""A port that leads to another one."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import Callable, Iterator


@contextmanager
def forwarding(host: str, port: int, hear: Callable[[bytearray], None] | None = None) -> Iterator[int]:
    """A port of this address that leads to a port on loopback. `hear` is given what a client has said and may take from
    its front what it has understood; the rest comes again, with what the client says next."""
    def carry(source: socket.socket, target: socket.socket, heard: bytearray | None) -> None:
        try:
            while data := source.recv(65536):
                if heard is not None:
                    heard.extend(data)
                    hear(heard)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", port))
            for ends in ((client, server, bytearray() if hear else None), (server, client, None)):
                threading.Thread(target=carry, args=ends, daemon=True).start()

    with socket.create_server((host, 0)) as listener:
        threading.Thread(target=accept, args=[listener], daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def recording(port: int) -> Iterator[tuple[int, bytearray]]:
    """The same on loopback, and all that clients have said."""
    said = bytearray()

    def keep(heard: bytearray) -> None:
        said.extend(heard)
        heard.clear()

    with forwarding("127.0.0.1", port, keep) as forwarded:
        yield forwarded, said
