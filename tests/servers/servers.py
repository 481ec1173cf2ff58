"""Local MongoDB and MySQL servers: only this folder knows how they are started.

Its modules provide servers that tests can stop, kill, freeze and restart: MongoDB in mongod.py, MySQL and MariaDB in
mysqld.py, what they share in server.py.

    with ReplicaSet(folder, members=3) as mongo, Mysqld(folder / "mysql") as mysql:
        mysql.kill(); mysql.start()

This program starts the pair of servers that tests, bench and demo share:

    servers.py with -- COMMAND...            runs COMMAND with the servers in its environment
    servers.py up | env | down  STATE_FILE   keeps them running between calls

The commands that start the servers come from provide.sh: MONGOD_COMMAND, MYSQLD_COMMAND, MYSQL_TARGET.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Sequence

from mongod import ReplicaSet
from mysqld import NEW_MYSQL_DATA, PROJECTOR_PASSWORD, PROJECTOR_USER, Mysqld, copy_data
from server import ServerError, Started, scratch_folder, wait_for


class Pair(Started):
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



def run_with_servers(command: Sequence[str]) -> int:
    """Whatever ends this process, except SIGKILL, also ends the
    command, the servers, and what the command left running."""
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
    """SIGINT lets Python programs clean up; a terminal has already sent it, and a second one would interrupt that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if not sys.stdin.isatty():
            child.send_signal(signal.SIGINT)
        child.wait(30)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def end_leftovers(folder: Path) -> None:
    """Servers, projectors and browsers that a test started and
    could not end: all have the folder in their environment."""
    mark = f"SERVERS_FOLDER={folder}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                print(f"left running, ended now: {(process / 'comm').read_text().strip()} ({process.name})", file=sys.stderr)
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            pass  # not ours, or already gone


def parent_death_signal(number: int) -> None:
    """`./run` may be killed without being able to clean up."""
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
    """The pids that still belong to this state's servers: the number alone may have been reused."""
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
