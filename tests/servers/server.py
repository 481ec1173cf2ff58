"""One server process of any kind, and what everything that starts servers needs."""

from __future__ import annotations

import os
import pwd
import random
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Callable, Sequence

START_S = 180  # until a server answers; seconds on a quiet machine
OPEN_FILES = 64000  # what MongoDB's production notes ask for


class ServerError(Exception):
    pass


def wait_for(condition: Callable[[], object], timeout: float, what: str) -> object:
    """Polls until the condition holds, and returns its result. What takes long is asked for less often: most looks cost
    a query, and many tests wait at once."""
    begun = time.monotonic()
    while not (result := condition()):
        waited = time.monotonic() - begun
        if waited > timeout:
            raise TimeoutError(f"waited {timeout:g} s for {what}")
        time.sleep(min(max(waited / 10, 0.01), 0.1))
    return result


_given: set[int] = set()


def free_port() -> int:
    """A free port below the ephemeral range: otherwise a client that connects to the port of a stopped server could be
    given that very port as its own, and connect to itself."""
    first = 20000 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8 * 1500  # each worker has its own
    while True:
        port = random.randint(first, first + 1499)
        if port in _given:
            continue
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                _given.add(port)
                return port
            except OSError:
                continue


def server_user() -> dict:
    """Popen arguments that drop root: servers without passwords should own nothing but their data."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def raise_open_files() -> None:
    """A mongod shared by all tests opens more files than the 1024 that a login shell allows at first."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = OPEN_FILES if most == resource.RLIM_INFINITY else min(most, OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (enough, most))


def give_to_server(secret: Path) -> None:
    """Makes the file readable to the server alone, which insists on that."""
    secret.chmod(0o600)
    if user := server_user():
        os.chown(secret, user["user"], user["group"])


MEMORY = Path("/dev/shm")
ROOM_GB = 12  # for the data of all servers of a run, and as much again for everything else


def roomy_memory() -> bool:
    """Servers whose data is in memory need a tenth less processor time and never wait for a disk."""
    try:
        room, lines = os.statvfs(MEMORY), Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return False
    available = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), 0) * 1024
    return min(room.f_bavail * room.f_frsize, available) >= ROOM_GB << 30 and "TMPDIR" not in os.environ


def scratch_folder() -> Path:
    """A short path (a socket's may have 107 bytes) that `nobody` can enter; inside the shared servers' folder, if there
    is one, so that it is removed with it."""
    shared = os.environ.get("SERVERS_FOLDER", "")
    folder = Path(tempfile.mkdtemp(prefix="projector.", dir=shared if os.path.isdir(shared) else MEMORY if roomy_memory() else None))
    folder.chmod(0o711)
    return folder


class Started:
    """As a context manager: started, and discarded at the end, even if it did not start."""

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.discard()
            raise

    def __exit__(self, *_) -> None:
        self.discard()


class Server(Started):
    """One server process with its own folder and port, which outlive stop() and kill()."""

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
        """Prepares the folder for the first start."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data.mkdir(exist_ok=True)
        if user := server_user():
            for path in (self.folder, self.data):
                os.chown(path, user["user"], user["group"])

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def launch(self, command: Sequence[str]) -> subprocess.Popen:
        """A separate session keeps the terminal's Ctrl-C away from the server."""
        with self.log.open("ab") as log:
            try:
                return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                        stderr=log, cwd=self.folder, start_new_session=True, preexec_fn=raise_open_files,
                                        **server_user())
            except PermissionError as error:
                raise ServerError(f"{self.name}: user nobody, who runs it, may not execute {command[0]}: "
                                  "put it, or PROJECTOR_CACHE, where everyone can read") from error

    def start(self, extra_args: Sequence[str] | None = None, wait: bool = True) -> "Server":
        """Without extra_args it starts the same way as before."""
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
        """Shuts it down properly, as an operator would."""
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
        """Ends it the quick way; its data is no longer needed."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
