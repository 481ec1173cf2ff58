"""MongoDB servers: standalone, replica sets, a sharded cluster."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Sequence

import pymongo

from server import START_S, Server, Started, free_port, give_to_server, wait_for


class Mongod(Server):
    """One mongod: standalone or, with replica_set, a member of a set that has yet to be initiated."""

    def __init__(self, folder: Path | str, replica_set: str | None = None, port: int | None = None,
                 cache_gb: float = 0.5):
        super().__init__(folder, shlex.split(os.environ["MONGOD_COMMAND"]), port)
        self.replica_set = replica_set
        self.cache_gb = cache_gb
        self.client_options: dict = {}  # what every client needs, such as TLS

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def uri(self) -> str:
        return f"mongodb://{self.address}/?directConnection=true"

    def arguments(self) -> list[str]:
        return ["--dbpath", str(self.data), "--port", str(self.port), "--bind_ip", "127.0.0.1", "--nounixsocket",
                "--wiredTigerCacheSizeGB", str(self.cache_gb),
                "--setParameter", "enableTestCommands=1",  # failCommand
                # A killed process's open transaction keeps others out for that long.
                "--setParameter", "transactionLifetimeLimitSeconds=10",
                "--setParameter", "diagnosticDataCollectionEnabled=false",
                *(["--replSet", self.replica_set] if self.replica_set else [])]

    def client(self, **options) -> pymongo.MongoClient:
        """Connects directly to this member, primary or not."""
        return pymongo.MongoClient("127.0.0.1", self.port, directConnection=True,
                                   **{"serverSelectionTimeoutMS": 5000, **self.client_options, **options})

    def answers(self) -> bool:
        with self.client(serverSelectionTimeoutMS=500) as client:
            try:
                return bool(client.admin.command("ping"))
            except pymongo.errors.PyMongoError:
                return False


class ReplicaSet(Started):
    """Members on one machine; each is a Mongod that can be stopped, killed and frozen by itself."""

    def __init__(self, folder: Path | str, members: int = 1, cache_gb: float = 0.5, name: str = "rs0"):
        self.name = name
        self.members = [Mongod(Path(folder) / f"mongod{i}", self.name, cache_gb=cache_gb) for i in range(members)]

    @property
    def uri(self) -> str:
        return f"mongodb://{','.join(m.address for m in self.members)}/?replicaSet={self.name}"

    def client(self, **options) -> pymongo.MongoClient:
        return pymongo.MongoClient(self.uri, **{"serverSelectionTimeoutMS": 10000, **options})

    def start(self, extra_args: Sequence[str] | None = None) -> "ReplicaSet":
        """Initiates the set if it is new; returns once it has a primary."""
        is_new = not self.members[0].data.exists()
        for member in self.members:
            member.start(extra_args, wait=False)
        for member in self.members:
            member.wait_ready()
        if is_new:
            with self.members[0].client() as client:
                client.admin.command("replSetInitiate", {
                    "_id": self.name,
                    "members": [{"_id": i, "host": m.address} for i, m in enumerate(self.members)],
                    "settings": {"electionTimeoutMillis": 2000}})
        self.primary()
        return self

    def primary(self, timeout: float = START_S) -> Mongod:
        """Waits for a member that accepts writes."""
        def find() -> Mongod | None:
            return next((m for m in self.members if m.running and self._state(m).get("isWritablePrimary")), None)
        return wait_for(find, timeout, "a primary")

    @staticmethod
    def _state(member: Mongod) -> dict:
        with member.client(serverSelectionTimeoutMS=500, socketTimeoutMS=500) as client:
            try:
                return client.admin.command("hello")
            except pymongo.errors.PyMongoError:
                return {}

    def stop(self) -> None:
        for member in reversed(self.members):
            member.stop()

    def discard(self) -> None:
        for member in self.members:
            member.discard()


class GuardedSet(ReplicaSet):
    """A set of one member that requires a password; `root` may do everything. With TLS, which needs a file with
    certificate and key and one with their authority, it accepts nothing else."""

    def __init__(self, folder: Path, certificate: Path | None = None, authority: Path | None = None):
        super().__init__(folder, cache_gb=0.25)
        self.key = folder / "key"
        self.tls_arguments, self.uri_options = [], "&authSource=admin"
        if certificate:
            self.tls_arguments = ["--tlsMode", "requireTLS", "--tlsCertificateKeyFile", str(certificate), "--tlsCAFile", str(authority),
                                  "--tlsAllowConnectionsWithoutCertificates"]
            self.members[0].client_options = {"tls": True, "tlsCAFile": str(authority)}
            self.uri_options += f"&tls=true&tlsCAFile={authority}"

    @property
    def uri(self) -> str:
        return self.uri_of("root", "root")

    def uri_of(self, user: str, password: str) -> str:
        return super().uri.replace("mongodb://", f"mongodb://{user}:{password}@") + self.uri_options

    def start(self, extra_args: Sequence[str] | None = None) -> "GuardedSet":
        self.key.write_text("bm90IGEgc2VjcmV0")
        give_to_server(self.key)
        super().start(["--auth", "--keyFile", str(self.key), *self.tls_arguments, *(extra_args or [])])
        with self.members[0].client() as client:  # the first user may be created from this machine
            client.admin.command("createUser", "root", pwd="root", roles=["root"])
        return self


class Mongos(Server):
    """The router of a sharded cluster, whose configuration is kept in a replica set."""

    def __init__(self, folder: Path | str, config: ReplicaSet):
        super().__init__(folder, shlex.split(os.environ["MONGOS_COMMAND"]))
        self.config = config

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/"

    def arguments(self) -> list[str]:
        return ["--configdb", f"{self.config.name}/{self.config.members[0].address}", "--port", str(self.port),
                "--bind_ip", "127.0.0.1", "--nounixsocket", "--setParameter", "diagnosticDataCollectionEnabled=false",
                "--setParameter", "enableTestCommands=1"]

    def answers(self) -> bool:
        with pymongo.MongoClient(self.uri, serverSelectionTimeoutMS=500) as client:
            try:
                return bool(client.admin.command("ping"))
            except pymongo.errors.PyMongoError:
                return False


class ShardedCluster(Started):
    """Two shards of one member each behind one router."""

    def __init__(self, folder: Path | str):
        self.config = ReplicaSet(Path(folder) / "config", cache_gb=0.25, name="config")
        self.shards = [ReplicaSet(Path(folder) / name, cache_gb=0.25, name=name) for name in ("shard0", "shard1")]
        self.mongos = Mongos(Path(folder) / "mongos", self.config)

    @property
    def uri(self) -> str:
        return self.mongos.uri

    def start(self) -> "ShardedCluster":
        self.config.start(["--configsvr"])
        for shard in self.shards:
            shard.start(["--shardsvr"])
        self.mongos.port = free_port()  # only now: in the seconds before, another test's server could take it
        self.mongos.start()
        with pymongo.MongoClient(self.uri) as client:
            for shard in self.shards:
                client.admin.command("addShard", f"{shard.name}/{shard.members[0].address}")
        return self

    def discard(self) -> None:
        self.mongos.discard()
        for replica_set in (*self.shards, self.config):
            replica_set.discard()
