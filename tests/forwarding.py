"""A port that leads to another one."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import Iterator


@contextmanager
def forwarding(host: str, port: int, sent: bytearray | None = None) -> Iterator[int]:
    """A port of this address that leads to a port on loopback; what clients say is kept in `sent`."""
    def carry(source: socket.socket, target: socket.socket, kept: bytearray | None) -> None:
        try:
            while data := source.recv(65536):
                if kept is not None:
                    kept.extend(data)
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
            for ends in ((client, server, sent), (server, client, None)):
                threading.Thread(target=carry, args=ends, daemon=True).start()

    with socket.create_server((host, 0)) as listener:
        threading.Thread(target=accept, args=[listener], daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
