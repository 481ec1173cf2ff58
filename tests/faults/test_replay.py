"""`replay` dies at each of its crash points while events flow, and is restarted: the rows must equal a plain fold."""

from __future__ import annotations

import random
import signal
import threading
from datetime import timedelta

import pytest

import workspace
from bank import SHORT_LEASE
from replays import ARCHIVE, fold, leftovers, life, opened, shown
from workspace import Process, Workspace, decimal
from world import build

ONCE = ["replay_before_create", "replay_with_gate", "replay_before_swap", "swap_waiting", "swap_free", "replay_after_swap",
        "replay_after_clear"]
EACH_BATCH = ["replay_before_commit", "replay_after_commit"]
SEED = random.SystemRandom().randrange(1 << 31)
ACCOUNTS = 12


@pytest.fixture
def bank(ws: Workspace, monkeypatch) -> Workspace:
    monkeypatch.setattr(workspace, "PROJECTOR", build())
    ws.mapping(**ARCHIVE, **SHORT_LEASE)
    ws.create()
    assert ws.outbox_program("init", "--outbox", "outbox_archive").returncode == 0
    return ws


class Writer(threading.Thread):
    """Writes deltas and new accounts until it is told to stop; some events are sent late."""

    def __init__(self, ws: Workspace, seed: int):
        super().__init__()
        self.ws, self.dice = ws, random.Random(seed)
        self.written: list[dict] = []
        self.done = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.done.wait(0.02):
            number += 1
            late = {"at": self.ws._clock - timedelta(milliseconds=self.dice.randint(1, 50))} if self.dice.random() < 0.1 else {}
            batch = [self.ws.event(f"a{self.dice.randrange(ACCOUNTS)}", "MoneyDeposited", amount=decimal("0.01"), **late),
                     opened(self.ws, f"new{number}")]
            self.ws.outbox.insert_many(batch)
            self.written.extend(batch)


def replay(ws: Workspace, *arguments: str, **environment: str) -> int:
    process = Process(ws._projector("replay", "--projection", "account", "--drop-old", *arguments),
                      ws.folder / f"replay{len(ws.started)}.log", environment)
    ws.started.append(process)
    return process.popen.wait(120)


def die_at(ws: Workspace, dice: random.Random, point: str) -> None:
    passage = dice.randint(1, 6) if point in EACH_BATCH else 1
    status = replay(ws, PROJECTOR_CRASH_AT=f"{point}:{passage}")
    if status == 0:  # too little was left to do; from the beginning there is enough
        status = replay(ws, "--restart", PROJECTOR_CRASH_AT=point)
    assert status == -signal.SIGKILL, f"{point}: {status}\n{ws.started[-1].log_tail()}"


@pytest.mark.thorough
@pytest.mark.parametrize("seed", [1, SEED], ids=["seed 1", "a new seed"])
def test_killed_at_each_point(bank: Workspace, seed: int) -> None:
    print(f"seed {seed}")
    dice = random.Random(seed)
    bank.mapping(**ARCHIVE, **SHORT_LEASE, batch=dice.choice([10, 40, 200]))
    events = life(bank, ACCOUNTS, 25, seed)
    bank.put(events)
    bank.run_once()
    points = 2 * EACH_BATCH + ONCE
    dice.shuffle(points)
    with bank.start_projector() as projector:
        projector.wait_log("working")
        writer = Writer(bank, seed)
        writer.start()
        try:
            for point in points:
                die_at(bank, dice, point)
                flows = len(writer.written)  # a dead process locks nobody out
                bank.wait(lambda: len(writer.written) > flows + 2, what="more events")
                last = writer.written[flows + 1]
                bank.wait(lambda: not bank.outbox.find_one({"_id": last["_id"]}), what=f"live events after {point}")
            assert replay(bank) == 0, bank.started[-1].log_tail()
        finally:
            writer.done.set()
            writer.join()
        bank.wait_drained()
        assert projector.stop() == 0
    assert shown(bank) == fold(events + writer.written)
    assert leftovers(bank) == ([], [])
