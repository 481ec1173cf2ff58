"""MySQL Group Replication with one primary on this machine, and a
stand-in for MySQL Router: a port that leads to the primary."""

from __future__ import annotations

import socket
import threading
import uuid
from pathlib import Path
from typing import Sequence

import pymysql

from mysqld import Mysqld
from server import free_port, wait_for


class Member(Mysqld):
    """One server of the group; when restarted, it rejoins."""

    def __init__(self, folder: Path, number: int, group: str, addresses: Sequence[str], consistency: str):
        super().__init__(folder)
        self.options = [
            f"--server-id={number}", "--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--report-host=127.0.0.1",
            f"--report-port={self.port}", "--plugin-load-add=group_replication.so", f"--loose-group-replication-group-name={group}",
            f"--loose-group-replication-local-address={addresses[number - 1]}",
            f"--loose-group-replication-group-seeds={','.join(addresses)}", "--loose-group-replication-ip-allowlist=127.0.0.1/8",
            "--loose-group-replication-recovery-get-public-key=ON", f"--loose-group-replication-consistency={consistency}",
            "--loose-group-replication-member-expel-timeout=1", "--innodb-buffer-pool-size=64M"]

    def arguments(self) -> list[str]:
        return [*super().arguments(), *self.options, f"--loose-group-replication-start-on-boot={'OFF' if self.is_new else 'ON'}"]

    def ask(self, *statements: str) -> list[tuple]:
        with self.connect() as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def first_start(self) -> None:
        """Clears its binary log, which so far holds what no other member has: its users."""
        self.start()
        self.ask("RESET BINARY LOGS AND GTIDS",
                 "CHANGE REPLICATION SOURCE TO SOURCE_USER = 'root' FOR CHANNEL 'group_replication_recovery'")

    def states(self) -> list[tuple[str, str, int]]:
        """State, role and port of each member that it knows; empty if it does not answer."""
        try:
            return self.ask("SELECT MEMBER_STATE, MEMBER_ROLE, MEMBER_PORT FROM performance_schema.replication_group_members")
        except pymysql.MySQLError:
            return []

    def is_primary(self) -> bool:
        return self.running and ("ONLINE", "PRIMARY", self.port) in self.states()


class Group:
    """Three members, as a context manager that returns once all are online."""

    def __init__(self, folder: Path, consistency: str = "BEFORE_ON_PRIMARY_FAILOVER"):
        addresses = [f"127.0.0.1:{free_port()}" for _ in range(3)]
        name = str(uuid.uuid4())
        self.members = [Member(folder / f"member{n}", n, name, addresses, consistency) for n in (1, 2, 3)]

    def __enter__(self) -> "Group":
        try:
            first, *others = self.members
            first.first_start()
            first.ask("SET GLOBAL group_replication_bootstrap_group = ON", "START GROUP_REPLICATION",
                      "SET GLOBAL group_replication_bootstrap_group = OFF")
            for member in others:
                member.first_start()
                member.ask("START GROUP_REPLICATION")
            self.wait_whole()
            return self
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_) -> None:
        for member in self.members:
            member.discard()

    def wait_whole(self) -> None:
        wait_for(lambda: any(sum(state == "ONLINE" for state, *_ in m.states()) == 3 for m in self.members if m.running), 120,
                 "three members online")

    def primary(self) -> Member:
        return wait_for(lambda: next((m for m in self.members if m.is_primary()), None), 60, "a primary")


class Router:
    """A port that leads to whichever member is primary when a client connects."""

    def __init__(self, group: Group):
        self.group = group
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            primary = next((m for m in self.group.members if m.is_primary()), None)
            if primary is None:
                return
            try:
                server = socket.create_connection(("127.0.0.1", primary.port))
            except OSError:
                return
            with server:
                back = threading.Thread(target=self._carry, args=[server, client], daemon=True)
                back.start()
                self._carry(client, server)
                back.join()

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def __enter__(self) -> "Router":
        return self

    def __exit__(self, *_) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
