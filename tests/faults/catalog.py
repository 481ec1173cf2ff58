"""The named faults: what a fault is, how one is played and then checked."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from typing import Callable

from checker import HEAL_S, Checker
from world import World

KILLED = -signal.SIGKILL
AWAY = 3  # a projector started while a store is down says so and exits; its supervisor restarts it


@dataclass
class Stuck:
    """Events that must end up dead, with everything behind them waiting, until `repair` frees them."""

    events: list[dict]
    repair: Callable[[], None]


@dataclass
class Fault:
    name: str
    play: Callable[[World], Stuck | None]
    exits: set[int]
    heal_s: float
    weight: int
    slow: bool  # takes too long for every round


FAULTS: dict[str, Fault] = {}


def fault(exits: set[int] = frozenset(), heal_s: float = HEAL_S, weight: int = 2, slow: bool = False):
    """A fault is a function of the world. The bank writes while it runs; the checks follow."""
    def register(function: Callable[[World], Stuck | None]) -> Callable:
        name = function.__name__
        FAULTS[name] = Fault(name, function, set(exits), heal_s, weight, slow)
        return function
    return register


@dataclass
class Stage:
    """A world with its checker, in which faults are played one after the other."""

    world: World
    checker: Checker = field(init=False)

    def __post_init__(self):
        self.checker = Checker(self.world)

    def play(self, name: str) -> float:
        """Returns the seconds until everything was right again after the fault."""
        fault = FAULTS[name]
        self.world.faults.append(name)
        with self.world.writing():
            stuck = fault.play(self.world)
        taken = self.checker.healed(stuck.events if stuck else (), fault.heal_s)
        if stuck:
            stuck.repair()
            taken += self.checker.healed((), fault.heal_s)
        self.checker.exits(fault.exits)
        return taken


# Helpers that the faults share

def more(world: World, events: int = 40, timeout: float = 120) -> None:
    """Waits until the bank has written that many more events."""
    wanted = world.bank.count + events
    world.wait(lambda: world.bank.count >= wanted, timeout, f"{events} more events of the bank")


def applied(world: World) -> int:
    return world.sql("SELECT COUNT(*) FROM projector_applied")[0][0]


def progress(world: World, events: int = 20, timeout: float = 120) -> None:
    """Waits until that many more were applied."""
    wanted = applied(world) + events
    world.wait(lambda: applied(world) >= wanted, timeout, f"{events} more applied events")


def last(world: World, low_s: float, high_s: float) -> None:
    """The duration of a fault that ends in no other way: part of the fault itself, not of a check."""
    time.sleep(world.random.uniform(low_s, high_s))
