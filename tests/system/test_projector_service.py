"""Under a service manager: what it learns through NOTIFY_SOCKET, and that "alive" means that work continues."""

from __future__ import annotations

import re
import socket
from contextlib import contextmanager
from pathlib import Path

import pytest

from workspace import WAIT_S, Process, decimal


class Manager:
    """The other end of the socket."""

    def __init__(self, name: str):
        self.name = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(name)

    def environment(self, watchdog_ms: int) -> dict[str, str]:
        return {"NOTIFY_SOCKET": self.name.replace("\0", "@"), "WATCHDOG_USEC": str(watchdog_ms * 1000)}

    def next(self, expected: str, timeout: float = WAIT_S) -> str:
        """The next message that contains this; earlier ones are dropped."""
        self.socket.settimeout(timeout)
        while expected not in (message := self.socket.recv(4096).decode()):
            pass
        return message

    def forget(self) -> list[str]:
        """Drops the messages received so far."""
        self.socket.setblocking(False)
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages

    def fill(self) -> None:
        """As if nobody had read for a while: the socket takes no more messages."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            try:
                while True:
                    sender.sendto(b"X_FILLER=1", self.name)
            except BlockingIOError:
                pass


def started(bank, manager: Manager, watchdog_ms: int):
    bank.environment |= manager.environment(watchdog_ms)
    return bank.start_projector()


def looks(projector: Process) -> int:
    """How often the watchdog thread has slept between two checks."""
    [thread] = [task for task in Path(f"/proc/{projector.pid}/task").iterdir() if (task / "comm").read_text() == "watchdog\n"]
    return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)$", (thread / "status").read_text(), re.MULTILINE)[1])


@contextmanager
def locked(bank, table: str):
    """Somebody holds the rows of a table, and every worker waits for them."""
    with bank.stores.mysql(bank.name) as connection, connection.cursor() as cursor:
        connection.begin()
        cursor.execute(f"SELECT * FROM {table} FOR UPDATE")
        yield
        connection.rollback()


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_is_told_when_it_is_up_working_and_stopping(bank, tmp_path, abstract):
    manager = Manager("\0projector-test-" + tmp_path.name + str(id(bank)) if abstract else str(tmp_path / "s"))
    with started(bank, manager, 2000) as projector:
        assert "READY=1" in manager.next("READY=1").splitlines()
        manager.next("STATUS=working")
        manager.next("WATCHDOG=1")
        manager.next("WATCHDOG=1")
        assert projector.stop() == 0
        manager.next("STOPPING=1")


@pytest.mark.parametrize("watchdog_ms", [0, 2000])
def test_a_manager_that_does_not_read_stops_nothing_and_learns_later_what_it_missed(bank, tmp_path, watchdog_ms):
    manager = Manager(str(tmp_path / "s"))
    manager.fill()
    bank.put(bank.event("a1", "AccountOpened", user_id="u1", name="Ada", balance=decimal("1.00")))
    with started(bank, manager, watchdog_ms) as projector:
        bank.wait_drained()
        told = (next((m for m in manager.forget() if "READY=1" in m), None) or manager.next("READY=1")).splitlines()
        assert told[:2] == ["READY=1", "STATUS=working"]
        manager.fill()
        assert projector.stop() == 0


def test_alive_means_that_the_work_goes_on(bank, tmp_path):
    manager = Manager(str(tmp_path / "s"))
    bank.mapping(mysql={"lock_wait_s": 60})  # longer than the test holds its lock
    with started(bank, manager, 1000) as projector:
        manager.next("STATUS=working")
        projector.wait_log("WatchdogSec must be more than twice the longest step.*step_ms=90000 watchdog_ms=1000")
        bank.put(bank.event("a1", "AccountOpened", user_id="u1", name="Ada", balance=decimal("1.00")))
        bank.wait_drained()
        with locked(bank, "account"):
            bank.put(bank.event("a1", "MoneyDeposited", amount=decimal("1.00")))
            projector.wait_log("a part of this process hangs.*a worker")
            manager.forget()
            looked = looks(projector)
            heard: list[str] = []
            bank.wait(lambda: heard.extend(manager.forget()) or looks(projector) > looked + 3, what="looks of the thread that would tell it")
            assert not any("WATCHDOG=1" in message for message in heard)
        manager.next("WATCHDOG=1")
        bank.wait_drained()


@pytest.mark.thorough
def test_a_janitor_that_hangs_is_not_alive(bank, tmp_path):
    """No worker has anything to do, and nothing is retried or swept."""
    manager = Manager(str(tmp_path / "s"))
    bank.mapping(mysql={"lock_wait_s": 60}, sweep_interval_ms=100)
    with started(bank, manager, 1000) as projector:
        manager.next("STATUS=working")
        with locked(bank, "projector_fence WHERE part = 0"):
            projector.wait_log("a part of this process hangs.*the janitor")
        manager.forget()
        manager.next("WATCHDOG=1")


@pytest.mark.thorough
@pytest.mark.whole_server  # failCommand
def test_who_gets_an_answer_each_time_is_alive_however_long_the_work_takes(bank, tmp_path):
    """A sweep reads claims, events and the whole outbox: longer together than the watchdog allows for one answer."""
    manager = Manager(str(tmp_path / "s"))
    bank.mapping(sweep_interval_ms=100)
    slow = {"failCommands": ["find"], "blockConnection": True, "blockTimeMS": 1000, "appName": "projector"}
    with started(bank, manager, 4000) as projector:
        manager.next("STATUS=working")
        bank.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": slow})
        try:
            looked = looks(projector)
            bank.wait(lambda: looks(projector) > looked + 12, what="three times the watchdog's limit")
        finally:
            bank.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
        assert "hangs" not in projector.log_text()


@pytest.mark.thorough
def test_a_paused_owner_is_alive(bank, tmp_path):
    manager = Manager(str(tmp_path / "s"))
    with started(bank, manager, 3000) as projector:
        manager.next("STATUS=working")
        assert bank.projector("pause").returncode == 0
        projector.wait_log("paused: nothing is applied")
        bank.put(bank.event("a1", "AccountOpened", user_id="u1", name="Ada", balance=decimal("1.00")))
        looked = looks(projector)
        bank.wait(lambda: manager.forget() is not None and looks(projector) > looked + 8, what="twice the watchdog's limit")
        manager.next("WATCHDOG=1")
        assert bank.rows("account") == [] and "hangs" not in projector.log_text()


def test_a_standby_is_up_and_alive(bank, tmp_path):
    manager = Manager(str(tmp_path / "s"))
    with bank.start_projector() as owner:
        owner.wait_log("working")
        with started(bank, manager, 1000):
            assert "STATUS=standing by" in manager.next("READY=1")
            manager.next("WATCHDOG=1")
            manager.next("WATCHDOG=1")
