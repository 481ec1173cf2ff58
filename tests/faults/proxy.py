"""A TCP proxy in front of MySQL that can cut, hold or delay traffic, go deaf,
lose a COMMIT or its answer, and answer chosen statements itself."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import contextmanager
from typing import Iterator

from server import free_port

COM_QUERY, COM_STMT_EXECUTE = 3, 23


def error_packet(sequence: int, code: int) -> bytes:
    body = b"\xff" + struct.pack("<H", code) + b"#HY000" + b"the proxy says so"
    return len(body).to_bytes(3, "little") + bytes([sequence & 255]) + body


class Link:
    """One client connection and its counterpart to the server."""

    def __init__(self, proxy: "Proxy", client: socket.socket, server: socket.socket):
        self.proxy, self.client, self.server = proxy, client, server
        self.deaf = False  # half-open: whatever arrives is silently discarded
        self.committing = False  # a COMMIT was forwarded, its answer is outstanding
        self.probing = False  # the commit belongs to a probe
        self.cut_answer = False
        self.said = b""  # since the last START TRANSACTION, for answers that depend on it
        for run in (self._from_client, self._from_server):
            threading.Thread(target=run, daemon=True).start()

    def cut(self) -> None:
        """Both ends get a reset, as a firewall would send."""
        for end in (self.client, self.server):
            try:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()
        self.proxy.links.discard(self)

    def cut_client(self) -> None:
        """The client sees a reset at once; the server notices nothing, so its session stays behind."""
        self.deaf = True
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.shutdown(socket.SHUT_RDWR)

    def _from_client(self) -> None:
        """Forwards whole packets only, so that a COMMIT can be told from everything else."""
        pending = b""
        while data := self._receive(self.client):
            pending += data
            packets = b""
            while len(pending) >= 4 and len(pending) >= (size := 4 + int.from_bytes(pending[:3], "little")):
                packet, pending = pending[:size], pending[size:]
                if packets and self.proxy.answers:
                    if not self._forward(self.server, packets):
                        break
                    packets = b""
                if self.proxy._answers(self, packet):
                    if self.proxy.code is None:
                        self.proxy.to_refuse = self.proxy.falls
                        return self.cut()
                    self._forward(self.client, error_packet(packet[3] + 1, self.proxy.code))
                    continue
                self.probing |= b"'probe'" in packet
                if packet[4:5] == bytes([COM_QUERY]) and packet[5:].strip().upper() == b"COMMIT":
                    if self.proxy._lose(self, "request"):
                        return self.cut()
                    self.committing = True
                    self.cut_answer = self.proxy._lose(self, "answer")
                packets += packet
            if not self._forward(self.server, packets):
                break
        if not self.deaf:  # a half-open connection ends on one side only
            self.cut()

    def _from_server(self) -> None:
        while data := self._receive(self.server):
            if self.committing:
                self.committing = False
                if data[4:5] == b"\0" and not self.probing:  # a probe changes nothing that the fence guards
                    self.proxy.commits += 1
                self.probing = False
                if self.cut_answer:
                    break
            if not self._forward(self.client, data):
                break
        self.cut()

    def _receive(self, end: socket.socket) -> bytes:
        try:
            data = end.recv(65536)
        except OSError:
            return b""
        if self.proxy.delay_s:
            time.sleep(self.proxy.delay_s)
        self.proxy.open.wait()
        return data

    def _forward(self, end: socket.socket, data: bytes) -> bool:
        if self.deaf:
            return True
        try:
            end.sendall(data)
            return True
        except OSError:
            return False


class Proxy:
    """Listens on its own port; `commits` counts the COMMITs that the server confirmed."""

    def __init__(self, port: int):
        self.target = port
        self.port = free_port()
        self.links: set[Link] = set()
        self.commits = 0
        self.lost = 0  # COMMITs or answers swallowed so far
        self.delay_s = 0.0
        self.accepting = True
        self.open = threading.Event()  # cleared: everything is held back
        self.open.set()
        self.answers = False
        self.pattern = self.after = b""
        self.code: int | None = None
        self.answered = 0
        self.falls = 0  # so many new connections are refused after each one that was cut as an answer
        self.to_refuse = 0
        self._to_lose: list[str] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        self.open.set()
        self.cut_all()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self.accepting or self.to_refuse:
                self.to_refuse -= bool(self.to_refuse)
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.links.add(Link(self, client, server))

    def _lose(self, link: Link, what: str) -> bool:
        with self._lock:
            if not self._to_lose or self._to_lose[0] != what:
                return False
            self._to_lose.pop(0)
            self.lost += 1
            return True

    def _answers(self, link: Link, packet: bytes) -> bool:
        """Whether the proxy answers this statement itself, recognised by its text or by a value in hexadecimal."""
        if packet[4] not in (COM_QUERY, COM_STMT_EXECUTE):
            return False
        if packet[5:].startswith(b"START TRANSACTION"):
            link.said = b""
        if self.after:
            link.said += packet[5:]
        with self._lock:
            hit = self.answers and (self.pattern in packet or self.pattern.hex().upper().encode() in packet)
            hit = hit and (not self.after or self.after in link.said)
            self.answered += hit
            return hit

    # What a test can do

    def answer(self, pattern: str | None, code: int | None = None, after: str = "") -> None:
        """Statements that contain the text are answered with an error of that code (None: the connection is cut); with
        `after`, only if an earlier statement of their transaction contained that. Pattern None: no longer."""
        with self._lock:
            self.answers = pattern is not None
            self.pattern, self.code, self.after = (pattern or "").encode(), code, after.encode()

    def cut_all(self) -> int:
        links = list(self.links)
        for link in links:
            link.cut()
        return len(links)

    def lose_commits(self, *what: str) -> None:
        """The fates of the next COMMITs: "request" is cut before it reaches the server, "answer" after."""
        with self._lock:
            self._to_lose.extend(what)

    def keep_commits(self) -> None:
        with self._lock:
            self._to_lose.clear()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Existing connections are cut and new ones closed at once."""
        self.accepting = False
        self.cut_all()
        try:
            yield
        finally:
            self.accepting = True

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Nothing passes; all of it arrives later."""
        self.open.clear()
        try:
            yield
        finally:
            self.open.set()

    @contextmanager
    def slow(self, delay_s: float) -> Iterator[None]:
        """Each chunk of data is delayed by that much, in both directions."""
        self.delay_s = delay_s
        try:
            yield
        finally:
            self.delay_s = 0.0

    def deafen(self) -> int:
        """Existing connections become half-open; new ones work."""
        links = list(self.links)
        for link in links:
            link.deaf = True
        return len(links)

    def abandon(self) -> int:
        """Clients are reset; the server's sessions stay and keep their locks."""
        links = list(self.links)
        for link in links:
            try:
                link.cut_client()
            except OSError:
                pass
        return len(links)
