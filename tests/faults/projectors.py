"""Projectors under a supervisor that restarts them, as systemd would, and records how they end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

from proxy import Proxy
from server import wait_for

PASSWORD = "n0t-in-any-l0g-Xq7"
STORE_AWAY = 3  # exit status: a store was unreachable at the start


class Projector:
    """A supervised projector with its own proxy to MySQL; runs until stop()."""

    def __init__(self, binary: str, mapping: Path, proxy: Proxy, log: Path):
        self.argv = [binary, "run", "-c", str(mapping)]
        self.proxy = proxy
        self.log = log
        self.next_environment: dict[str, str] = {}  # for the next start only
        self.environment: dict[str, str] = {}  # for every start
        self.exits: list[int] = []
        self.starts = 0
        self.process: subprocess.Popen | None = None
        self._wanted = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        log.write_bytes(b"")

    def start(self) -> "Projector":
        self._wanted = True
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._thread.start()
        wait_for(lambda: self.process, 60, "the projector's process")
        return self

    def _supervise(self) -> None:
        while self._wanted:
            with self._lock:
                environment = {**os.environ, **self.environment, **self.next_environment}
                self.next_environment = {}
                with self.log.open("ab") as log:
                    self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                                    stderr=log, env=environment)
                self.starts += 1
            status = self.process.wait()
            self.exits.append(status)
            if self._wanted:
                time.sleep(0.1 if status != STORE_AWAY else 0.5)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def wait_running(self) -> None:
        wait_for(lambda: self.running, 60, "the projector to be started again")

    def signal(self, number: int) -> None:
        if self.running:
            self.process.send_signal(number)

    def kill(self) -> None:
        """The supervisor starts it again."""
        self.wait_running()
        starts = self.starts
        self.signal(signal.SIGKILL)
        wait_for(lambda: self.starts > starts, 60, "the projector to be started again")

    def restart_with(self, **environment: str) -> None:
        """The next process, started at once, gets these additional environment variables."""
        self.wait_running()
        self.next_environment = environment
        self.kill()

    def wait_exit(self, count: int, timeout: float, what: str) -> None:
        wait_for(lambda: len(self.exits) >= count, timeout, what)

    def stop(self, timeout: float = 90) -> int:
        """Sends SIGTERM; returns the exit status of the last process."""
        self._wanted = False
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        self._thread.join(timeout)
        if self._thread.is_alive():
            self.signal(signal.SIGABRT)  # a core dump is more useful than a silent kill
            raise AssertionError(f"the projector did not stop within {timeout:g} s of SIGTERM:\n{self.log_tail()}")
        return self.exits[-1]

    def discard(self) -> None:
        self._wanted = False
        self.signal(signal.SIGKILL)

    # What it reports

    def log_size(self) -> int:
        return self.log.stat().st_size

    def log_since(self, offset: int) -> str:
        with self.log.open("rb") as log:
            log.seek(offset)
            return log.read().decode(errors="replace")

    def wait_log(self, pattern: str, since: int, timeout: float = 90) -> re.Match:
        return wait_for(lambda: re.search(pattern, self.log_since(since), re.MULTILINE), timeout,
                        f"/{pattern}/ in {self.log.name}:\n{self.log_tail()}")

    def log_tail(self, lines: int = 25) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    # What resources it uses

    def memory_mb(self) -> float:
        text = Path(f"/proc/{self.pid}/status").read_text()
        match = re.search(r"^VmRSS:\s+(\d+) kB", text, re.MULTILINE)
        return int(match[1]) / 1024 if match else 0.0

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))
