"""Local MongoDB and MySQL servers: how one is started is known here and nowhere else.

As a module it gives tests servers that they can stop, kill, freeze and start again:

    with ReplicaSet(folder, members=3) as mongo, Mysqld(folder / "mysql") as mysql:
        mysql.kill(); mysql.start()

As a program it starts the pair that tests, bench and demo share:

    servers.py with -- COMMAND...            runs COMMAND with the servers in its environment
    servers.py up | env | down  STATE_FILE   keeps them running between calls

What starts the servers comes from provide.sh: MONGOD_COMMAND, MYSQLD_COMMAND, MYSQL_TARGET.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import pwd
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, Sequence

import pymongo
import pymysql

START_S = 180  # until a server answers; seconds on a quiet machine
PROJECTOR_USER = PROJECTOR_PASSWORD = "projector"  # the user of the program under test


class ServerError(Exception):
    pass


def wait_for(condition: Callable[[], object], timeout: float, what: str) -> object:
    """Polls until the condition holds, and returns what it gave."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}")
        time.sleep(0.02)
    return result


def free_port() -> int:
    """A free port below the ephemeral range: a client that knocks at the port of a stopped server
    could otherwise be given that very port for its own end, and connect to itself."""
    while True:
        port = random.randint(20000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def server_user() -> dict:
    """Popen arguments that drop root: servers without passwords should own nothing but their data."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def give_to_server(secret: Path) -> None:
    """A file that nobody but the server may read; it insists on that."""
    secret.chmod(0o600)
    if user := server_user():
        os.chown(secret, user["user"], user["group"])


def scratch_folder() -> Path:
    """A short path (a socket's may have 107 bytes) that `nobody` can enter; inside that of the shared servers, if there
    are any, so that it is removed with it."""
    shared = os.environ.get("SERVERS_FOLDER", "")
    folder = Path(tempfile.mkdtemp(prefix="projector.", dir=shared if os.path.isdir(shared) else None))
    folder.chmod(0o711)
    return folder


NEW_MYSQL_DATA = "new-mysql-data"  # in the shared servers' folder, for private ones: to make them anew takes 5 s each


def copy_data(source: Path, target: Path) -> None:
    """Of a server that has never run; the holes in its files are not written."""
    subprocess.run(["cp", "--archive", "--sparse=always", "--no-target-directory", source, target], check=True)
    (target / "auto.cnf").unlink(missing_ok=True)  # MySQL's number of the one server


class Server:
    """One server process on its own folder and port; both outlive stop() and kill()."""

    def __init__(self, folder: Path | str, command: Sequence[str], port: int | None = None):
        self.folder = Path(folder)
        self.command = list(command)
        self.port = port or free_port()
        self.log = self.folder / "log"
        self.extra_args: list[str] = []
        self.process: subprocess.Popen | None = None

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def arguments(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def prepare(self) -> None:
        """What has to be there before the first start."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data.mkdir(exist_ok=True)
        if user := server_user():
            for path in (self.folder, self.data):
                os.chown(path, user["user"], user["group"])

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def launch(self, command: Sequence[str]) -> subprocess.Popen:
        """A session of its own keeps Ctrl-C in the terminal away from the server."""
        with self.log.open("ab") as log:
            try:
                return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                        stderr=log, cwd=self.folder, start_new_session=True, **server_user())
            except PermissionError as error:
                raise ServerError(f"{self.name}: user nobody, who runs it, may not execute {command[0]}: "
                                  "put it, or PROJECTOR_CACHE, where everyone can read") from error

    def start(self, extra_args: Sequence[str] | None = None, wait: bool = True) -> "Server":
        """Without extra_args it starts as it did before."""
        if extra_args is not None:
            self.extra_args = list(extra_args)
        self.prepare()
        self.process = self.launch([*self.command, *self.arguments(), *self.extra_args])
        return self.wait_ready() if wait else self

    def wait_ready(self, timeout: float = START_S) -> "Server":
        def ready() -> bool:
            if not self.running:
                raise ServerError(f"{self.name} ended with status {self.process.returncode}:\n{self.log_tail()}")
            return self.answers()
        try:
            wait_for(ready, timeout, f"{self.name} to answer")
        except TimeoutError as error:
            raise ServerError(f"{error}:\n{self.log_tail()}") from None
        return self

    def signal(self, number: int) -> None:
        if self.running:
            self.process.send_signal(number)

    def stop(self, timeout: float = 60) -> None:
        """In good order, as an operator would."""
        self.resume()
        self.signal(signal.SIGTERM)
        if self.process:
            self.process.wait(timeout)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self.process:
            self.process.wait()

    def restart(self, extra_args: Sequence[str] | None = None) -> None:
        self.stop()
        self.start(extra_args)

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def log_tail(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def discard(self) -> None:
        """Ends it the quick way; its data are not wanted any more."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.discard()
            raise

    def __exit__(self, *_) -> None:
        self.discard()


class Mongod(Server):
    """One mongod: standalone, or with replica_set a member that somebody has yet to initiate."""

    def __init__(self, folder: Path | str, replica_set: str | None = None, port: int | None = None,
                 cache_gb: float = 0.5):
        super().__init__(folder, shlex.split(os.environ["MONGOD_COMMAND"]), port)
        self.replica_set = replica_set
        self.cache_gb = cache_gb
        self.client_options: dict = {}  # what every client needs: TLS, say

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
                "--setParameter", "diagnosticDataCollectionEnabled=false",
                *(["--replSet", self.replica_set] if self.replica_set else [])]

    def client(self, **options) -> pymongo.MongoClient:
        """Straight to this member, primary or not."""
        return pymongo.MongoClient("127.0.0.1", self.port, directConnection=True,
                                   **{"serverSelectionTimeoutMS": 5000, **self.client_options, **options})

    def answers(self) -> bool:
        with self.client(serverSelectionTimeoutMS=500) as client:
            try:
                return bool(client.admin.command("ping"))
            except pymongo.errors.PyMongoError:
                return False


class ReplicaSet:
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
        """Initiates the set when it is new, and returns when it has a primary."""
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

    def __enter__(self) -> "ReplicaSet":
        try:
            return self.start()
        except BaseException:
            self.discard()
            raise

    def __exit__(self, *_) -> None:
        self.discard()


class GuardedSet(ReplicaSet):
    """A set of one that lets nobody in without a password; `root` may do everything. With TLS, which needs a file with
    certificate and key and one with their authority, it answers nothing else."""

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
        with self.members[0].client() as client:  # the first user may be made from this machine
            client.admin.command("createUser", "root", pwd="root", roles=["root"])
        return self


class Mongos(Server):
    """The router of a sharded cluster, whose configuration is in a replica set."""

    def __init__(self, folder: Path | str, config: ReplicaSet):
        super().__init__(folder, shlex.split(os.environ["MONGOS_COMMAND"]))
        self.config = config

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/"

    def arguments(self) -> list[str]:
        return ["--configdb", f"{self.config.name}/{self.config.members[0].address}", "--port", str(self.port),
                "--bind_ip", "127.0.0.1", "--nounixsocket", "--setParameter", "diagnosticDataCollectionEnabled=false"]

    def answers(self) -> bool:
        with pymongo.MongoClient(self.uri, serverSelectionTimeoutMS=500) as client:
            try:
                return bool(client.admin.command("ping"))
            except pymongo.errors.PyMongoError:
                return False


class ShardedCluster:
    """Two shards of one member each, behind one router."""

    def __init__(self, folder: Path | str):
        self.config = ReplicaSet(Path(folder) / "config", cache_gb=0.25, name="config")
        self.shards = [ReplicaSet(Path(folder) / name, cache_gb=0.25, name=name) for name in ("shard0", "shard1")]
        self.mongos = Mongos(Path(folder) / "mongos", self.config)

    @property
    def uri(self) -> str:
        return self.mongos.uri

    def __enter__(self) -> "ShardedCluster":
        try:
            self.config.start(["--configsvr"])
            for shard in self.shards:
                shard.start(["--shardsvr"])
            self.mongos.start()
            with pymongo.MongoClient(self.uri) as client:
                for shard in self.shards:
                    client.admin.command("addShard", f"{shard.name}/{shard.members[0].address}")
            return self
        except BaseException:
            self.discard()
            raise

    def __exit__(self, *_) -> None:
        self.discard()

    def discard(self) -> None:
        self.mongos.discard()
        for replica_set in (*self.shards, self.config):
            replica_set.discard()


class Mysqld(Server):
    """MySQL or MariaDB; root has no password. User `projector` has one, and is an ordinary user: the databases of
    tests (`t_…`) belong to it, the server does not."""

    def __init__(self, folder: Path | str, port: int | None = None):
        super().__init__(folder, shlex.split(os.environ["MYSQLD_COMMAND"]), port)
        self.is_mariadb = os.environ.get("MYSQL_TARGET") == "mariadb"
        self.is_new = False

    @property
    def socket(self) -> str:
        return str(self.folder / "s")

    def arguments(self) -> list[str]:
        # A tmpdir of its own: a MariaDB that starts removes what looks like a temporary table, whoever uses it.
        return [f"--datadir={self.data}", f"--tmpdir={self.temporary}", f"--port={self.port}", "--bind-address=127.0.0.1",
                f"--socket={self.socket}", f"--pid-file={self.folder / 'pid'}", "--skip-name-resolve",
                *([] if self.is_mariadb else ["--mysqlx=OFF", "--secure-file-priv=NULL"])]

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    def prepare(self) -> None:
        super().prepare()
        self.temporary.mkdir(exist_ok=True)
        if user := server_user():
            os.chown(self.temporary, user["user"], user["group"])
        if any(self.data.iterdir()):
            return
        self.is_new = True
        template = Path(os.environ.get("SERVERS_FOLDER", "/nowhere"), NEW_MYSQL_DATA)
        if template.exists():
            copy_data(template, self.data)
        elif self.launch(self._create_command()).wait() != 0:
            raise ServerError(f"{self.name} could not create its data folder:\n{self.log_tail()}")

    def _create_command(self) -> list[str]:
        if not self.is_mariadb:
            return [*self.command, "--initialize-insecure", f"--datadir={self.data}"]
        prefix = Path(self.command[0]).resolve().parent.parent
        places = [prefix / "bin", prefix / "scripts", Path("/usr/bin")]
        tool = next((p / "mariadb-install-db" for p in places if (p / "mariadb-install-db").exists()), None)
        if tool is None:
            raise ServerError(f"mariadb-install-db was not found beside {self.command[0]}: install mariadb-server")
        return [str(tool), "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db",
                f"--basedir={prefix}", f"--datadir={self.data}"]

    def wait_ready(self, timeout: float = START_S) -> "Mysqld":
        super().wait_ready(timeout)
        if self.is_new:
            self._create_users()
            self.is_new = False
        return self

    def _create_users(self) -> None:
        """By address, so that they do not depend on how this machine resolves its own name."""
        with self.connect(unix_socket=self.socket) as connection, connection.cursor() as cursor:
            for statement in ("CREATE USER IF NOT EXISTS root@'127.0.0.1' IDENTIFIED BY ''",
                              "GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION",
                              f"CREATE USER {PROJECTOR_USER}@'127.0.0.1' IDENTIFIED BY '{PROJECTOR_PASSWORD}'",
                              f"GRANT ALL ON `t\\_%`.* TO {PROJECTOR_USER}@'127.0.0.1'"):
                cursor.execute(statement)

    def connect(self, **options) -> pymysql.Connection:
        return pymysql.connect(**{"host": "127.0.0.1", "port": self.port, "user": "root", "autocommit": True,
                                  "connect_timeout": 5, "charset": "utf8mb4", **options})

    def answers(self) -> bool:
        try:
            self.connect(unix_socket=self.socket).close()
            return True
        except pymysql.MySQLError:
            return False


class Pair:
    """The MongoDB and the MySQL that tests, bench and demo share."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.mongo = ReplicaSet(folder)
        self.mysql = Mysqld(folder / "mysqld")

    def start(self) -> "Pair":
        self.mysql.prepare()
        if "SERVERS_FOLDER" not in os.environ:  # else another pair has it
            copy_data(self.mysql.data, self.folder / NEW_MYSQL_DATA)
        self.mysql.start(wait=False)
        self.mongo.start()
        self.mysql.wait_ready()
        return self

    def environment(self) -> dict[str, str]:
        return {
            "MONGO_URI": self.mongo.uri,
            "MYSQL_HOST": "127.0.0.1", "MYSQL_PORT": str(self.mysql.port),
            "MYSQL_USER": "root", "MYSQL_PASSWORD": "",
            "PROJECTOR_MYSQL_USER": PROJECTOR_USER, "PROJECTOR_MYSQL_PASSWORD": PROJECTOR_PASSWORD,
            "MYSQL_TARGET": "mariadb" if self.mysql.is_mariadb else "mysql",
            "MONGO_PID": str(self.mongo.members[0].process.pid), "MYSQL_PID": str(self.mysql.process.pid),
            "SERVERS_FOLDER": str(self.folder),
            **{name: os.environ[name] for name in ("MONGOD_COMMAND", "MONGOS_COMMAND", "MYSQLD_COMMAND")
               if name in os.environ},
        }

    def versions(self) -> str:
        with self.mongo.client() as client, self.mysql.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT VERSION()")
            version = cursor.fetchone()[0].split("-")[0]
            return (f"MongoDB {client.server_info()['version']}, "
                    f"{'MariaDB' if self.mysql.is_mariadb else 'MySQL'} {version}")

    def discard(self) -> None:
        self.mongo.discard()
        self.mysql.discard()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> "Pair":
        try:
            return self.start()
        except BaseException:
            self.discard()
            raise

    def __exit__(self, *_) -> None:
        self.discard()


def run_with_servers(command: Sequence[str]) -> int:
    """Whatever ends this process, short of SIGKILL, also ends the command, the servers, and what the command leaves."""
    def interrupt(*_):
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
    parent_death_signal(signal.SIGTERM)
    with Pair(scratch_folder()) as pair:
        print(pair.versions(), file=sys.stderr)
        child = subprocess.Popen(command, env={**os.environ, **pair.environment()})
        try:
            return child.wait()
        except KeyboardInterrupt:
            end(child)
            return 130
        finally:
            end_leftovers(pair.folder)


def end(child: subprocess.Popen) -> None:
    """SIGINT lets Python programs clean up; a terminal has sent it already, and twice would break that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if not sys.stdin.isatty():
            child.send_signal(signal.SIGINT)
        child.wait(30)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def end_leftovers(folder: Path) -> None:
    """Servers, projectors and browsers that a test has started and could not end: all have the folder in their environment."""
    mark = f"SERVERS_FOLDER={folder}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                print(f"left running, ended now: {(process / 'comm').read_text().strip()} ({process.name})", file=sys.stderr)
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            pass  # not ours, or gone


def parent_death_signal(number: int) -> None:
    """`./run` may be killed without being able to tell."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(number))


def up(state_file: Path) -> int:
    if alive(read_state(state_file)):
        print("already running", file=sys.stderr)
        return show(state_file)
    pair = Pair(scratch_folder())
    try:
        pair.start()
        state_file.parent.mkdir(parents=True, exist_ok=True)
        state_file.write_text(json.dumps(pair.environment(), indent=2) + "\n")
    except BaseException:
        pair.discard()
        raise
    print(pair.versions(), file=sys.stderr)
    return show(state_file)


def show(state_file: Path) -> int:
    state = read_state(state_file)
    if not alive(state):
        print("not running: start them with './run servers up'", file=sys.stderr)
        return 1
    for name, value in state.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def down(state_file: Path) -> int:
    state = read_state(state_file)
    for pid in alive(state):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(state), 30, "the servers to end")
    if state:
        shutil.rmtree(state["SERVERS_FOLDER"], ignore_errors=True)
        state_file.unlink()
    return 0


def read_state(state_file: Path) -> dict[str, str]:
    return json.loads(state_file.read_text()) if state_file.exists() else {}


def alive(state: dict[str, str]) -> list[int]:
    """Pids that are still the servers of this state: a number alone may have gone to somebody else."""
    def is_ours(pid: str) -> bool:
        try:
            return state["SERVERS_FOLDER"].encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False
    return [int(state[name]) for name in ("MONGO_PID", "MYSQL_PID") if state and is_ours(state[name])]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("with")
    run.add_argument("argv", nargs="+", metavar="COMMAND")
    for name in ("up", "env", "down"):
        commands.add_parser(name).add_argument("state_file", type=Path)
    args = parser.parse_args()
    try:
        if args.command == "with":
            return run_with_servers(args.argv)
        return {"up": up, "env": show, "down": down}[args.command](args.state_file)
    except (ServerError, TimeoutError) as error:
        print(f"servers: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
