"""Faults that need private servers: a full disk, an oplog that rolls over."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import pymysql
import pytest

from catalog import applied, more, progress
from checker import Checker
from world import World

DISK_MB = 300


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A tmpfs for the server's data folder."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)],
                             capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a full disk needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(folder: Path) -> Path:
    """Uses up all remaining space of the disk."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 65536):
                pass
        except OSError:
            pass
    return ballast


@pytest.mark.thorough
def test_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """MySQL's disk fills up; once there is room again, work continues by itself."""
    monkeypatch.delenv("SERVERS_FOLDER", raising=False)  # a redo log copied with holes would kill the server
    world = World(seed=21, members=1)
    with small_disk(world.mysql.folder), world:
        checker = Checker(world)
        checker.healed()
        # Free space inside existing files would be used up first.
        world.sql("CREATE TABLE big (n INT AUTO_INCREMENT PRIMARY KEY, t LONGTEXT)", database="bank")
        with world.writing():
            progress(world, 20)
            ballast = fill(world.mysql.folder)
            try:
                refusals = eat_up(world)
                before = applied(world)
                more(world, 400)
                stalled = applied(world) < before + 400
                if stalled:  # a probe that writes nothing would succeed: the owner's own trouble is reported
                    world.wait(lambda: "refuses to work" in status(world), 60, "status to tell it")
            finally:
                ballast.unlink()
            progress(world, 20)
        checker.healed()
        checker.exits(set())
        assert refusals, "the server never said that its disk was full"
        print(f"while the disk was full {'some events waited' if stalled else 'all events found room'}")


def status(world: World) -> str:
    """The line about MySQL."""
    argv = [world.projector.argv[0], "status", *world.projector.argv[2:]]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    return next((line for line in done.stdout.splitlines() if line.startswith("mysql")), "")


def eat_up(world: World) -> int:
    """Fills the free pages of the tablespaces until the server refuses."""
    refusals = 0
    for _ in range(200):
        try:
            world.sql("INSERT INTO big (t) VALUES (REPEAT('x', 500000))")
        except pymysql.MySQLError as error:
            if error.args[0] in (1021, 1114, 3019, 1030):
                refusals += 1
                break
            raise
    return refusals


def oldest(world: World):
    return world.client.local["oplog.rs"].find_one(sort=[("$natural", 1)])["ts"]


@pytest.mark.thorough
def test_oplog_rolls_over_while_frozen() -> None:
    """The stream's position is gone when the projector wakes up, so it scans the outbox again."""
    with World(seed=22, members=1, mongo_args=["--oplogSize", "4", "--syncdelay", "1"]) as world:
        checker = Checker(world)
        with world.writing():
            progress(world, 20)
        checker.healed()
        roll_over(world, lambda: world.projector.signal(signal.SIGSTOP), lambda: world.projector.signal(signal.SIGCONT))
        checker.healed()
        checker.exits(set())


@pytest.mark.slow
def test_oplog_rolls_over_while_down() -> None:
    """No position in the stream is stored, so none can be lost."""
    with World(seed=23, members=1, mongo_args=["--oplogSize", "4", "--syncdelay", "1"]) as world:
        checker = Checker(world)
        with world.writing():
            progress(world, 20)
        checker.healed()
        roll_over(world, world.projector.stop, world.projector.start)
        checker.healed()


def roll_over(world: World, leave, come_back) -> None:
    leave()
    world.bank.write(world.bank.batch(50))
    written = world.client.admin.command("ping")["operationTime"]
    filler = world.client.get_database("filler").filler
    for _ in range(2000):
        if oldest(world) > written:
            break
        filler.insert_many([{"ballast": os.urandom(100_000)} for _ in range(10)])
        world.client.admin.command("fsync")  # nothing after the last checkpoint is truncated
    assert oldest(world) > written, "the oplog did not roll over"
    come_back()
