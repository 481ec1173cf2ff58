"""The log and the three standard descriptors: no thread waits for a
reader, and nothing is written where it does not belong."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import subprocess
from contextlib import contextmanager
from typing import Iterator

import pytest

from bank import opened
from workspace import OUTBOX, ROOT, WAIT_S, Workspace

F_SETPIPE_SZ = 1031


class DeafLog:
    """A pipe of 4 kB that is not read until the test does so."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, F_SETPIPE_SZ, 4096)

    def read_all(self) -> str:
        """Everything up to the end; the program must have ended."""
        os.close(self.writer)
        with os.fdopen(self.reader, "rb") as pipe:
            return pipe.read().decode()

    def read_until(self, pattern: str) -> str:
        text = ""
        while not re.search(pattern, text):
            text += os.read(self.reader, 65536).decode()
        return text


@contextmanager
def with_deaf_log(ws: Workspace) -> Iterator[tuple[subprocess.Popen, DeafLog]]:
    log = DeafLog()
    process = subprocess.Popen(ws._projector("run"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log.writer)
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()


def refused(ws: Workspace, count: int) -> list[dict]:
    """Events that fail, each of which is reported in the log."""
    return [ws.event(f"bad{i}", "MoneyDeposited", amount="much" * 50) for i in range(count)]


def test_a_log_that_nobody_reads_stops_nothing_and_says_what_was_dropped(bank):
    bank.mapping(permanent="dead", log="json")
    bank.put(refused(bank, 2000))
    with with_deaf_log(bank) as (process, log):
        bank.wait(lambda: bank.outbox.count_documents({"status": "dead"}) == 2000, what="2000 dead events")
        bank.put(event := opened(bank, "a1"))
        bank.wait_gone(event)
        text = log.read_until("lines were dropped here[^\n]*\n")
        process.terminate()
        assert process.wait(WAIT_S) == 0
        text += log.read_all()
    lines = text.splitlines()
    times = [re.search(r'"time":"([^"]+)"', line)[1] for line in lines if '"event dead"' in line]
    notices = [i for i, line in enumerate(lines) if "lines were dropped here" in line]
    assert len(notices) == 1 and "event dead" in lines[notices[0] - 1]
    dropped = int(re.search(r'"lines":(\d+)', lines[notices[0]])[1])
    assert dropped + sum('"event dead"' in line for line in lines) == pytest.approx(2000, abs=20)
    assert times == sorted(times)


def test_it_stops_in_time_with_a_log_that_nobody_reads(bank):
    bank.mapping(permanent="dead")
    bank.put(refused(bank, 200))
    with with_deaf_log(bank) as (process, _):
        bank.wait(lambda: bank.outbox.count_documents({"status": "dead"}) == 200, what="200 dead events")
        process.terminate()
        assert process.wait(WAIT_S) == 0


def test_a_log_whose_reader_has_gone_stops_nothing(bank):
    reader, writer = os.pipe()
    os.close(reader)
    bank.put(event := opened(bank, "a1"))
    process = subprocess.Popen(bank._projector("run"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=writer)
    try:
        bank.wait_gone(event)
        process.terminate()
        assert process.wait(WAIT_S) == 0
    finally:
        process.kill()
        os.close(writer)


def descriptors(pid: int) -> dict[int, str]:
    return {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)}


def close_standard() -> None:
    for fd in (0, 1, 2):
        os.close(fd)


def test_closed_standard_descriptors_do_not_become_connections(bank):
    bank.put(event := opened(bank, "a1"))
    process = subprocess.Popen(bank._projector("run"), preexec_fn=close_standard)
    try:
        bank.wait_gone(event)
        assert descriptors(process.pid) == dict.fromkeys((0, 1, 2), "/dev/null")
        process.terminate()
        assert process.wait(WAIT_S) == 0
    finally:
        process.kill()


def test_the_write_side_fills_closed_descriptors_too(ws):
    ws.outbox_program("init", check=True)
    process = subprocess.Popen([OUTBOX, "demo", "--uri", ws.stores.mongo_uri, "--database", ws.name, "--seconds", "60"],
                               preexec_fn=close_standard)
    try:
        ws.wait(lambda: ws.outbox.find_one(), what="an event")
        assert descriptors(process.pid) == dict.fromkeys((0, 1, 2), "/dev/null")
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("command", [["list"], ["schema"], ["check"], ["explain", "account", "a1"], ["status"], ["list", "--json"]])
def test_results_that_find_no_room_are_an_error(bank, command):
    bank.mapping(permanent="dead")
    bank.put(opened(bank, "a1"), bank.event("a1", "MoneyDeposited", amount="much"))
    bank.run_once()
    with open("/dev/full", "w") as full:
        done = subprocess.run(bank._projector(*command), stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "projector: the output could not be written in full\n")


def test_a_reader_that_has_seen_enough_is_no_error(bank):
    bank.mapping(permanent="dead")
    bank.put(refused(bank, 500))
    bank.run_once()
    process = subprocess.Popen(bank._projector("list"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(WAIT_S) == 0 and process.stderr.read() == ""


def test_a_state_file_that_is_a_link_is_refused(bank):
    target = bank.folder / "precious"
    target.write_text("precious\n")
    link = bank.folder / "state"
    link.symlink_to(target)
    done = bank.projector("reconcile", "--state", str(link))
    assert "it is a symbolic link, which is not followed" in done.stderr
    assert target.read_text() == "precious\n" and link.is_symlink()


def test_the_programs_are_hardened():
    notes = subprocess.run(["readelf", "-ld", OUTBOX], capture_output=True, text=True).stdout
    assert "BIND_NOW" in notes and "GNU_RELRO" in notes
    commands = ROOT / "build/compile_commands.json"
    if platform.machine() == "x86_64" and commands.exists() and "cc " in (text := commands.read_text()):
        for flag in ("-D_FORTIFY_SOURCE=3", "-fstack-clash-protection", "-fcf-protection", "-fstack-protector-strong"):
            assert flag in text, flag
