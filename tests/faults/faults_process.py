"""Faults of the projector's process (crashes at each point, freezes, races, handovers) and of single events."""

from __future__ import annotations

import signal
import time
from datetime import datetime, timezone

from catalog import FAULTS, HEAL_S, KILLED, Fault, Stuck, fault, last, more, progress
from world import World

CRASH_POINTS = ("after_claim", "after_begin", "after_ledger", "after_rows", "before_commit", "after_commit",
                "before_acknowledge", "after_acknowledge", "in_lease_renewal")


def crash_at(world: World, point: str) -> None:
    """At the n-th passage of the point, several times in a row."""
    for _ in range(world.random.randint(1, 3)):
        projector = world.projector
        exits = len(projector.exits)
        projector.restart_with(PROJECTOR_CRASH_AT=f"{point}:{world.random.randint(1, 6)}")
        projector.wait_exit(exits + 2, 60, f"the crash {point}")


for point in CRASH_POINTS:
    FAULTS[f"crash_{point}"] = Fault(f"crash_{point}", lambda world, point=point: crash_at(world, point),
                                     {KILLED}, 60, 2, False)


@fault(exits={KILLED})
def crash_in_sweeper(world: World) -> None:
    """The sweeper needs work: an event that another owner claimed in its own document and abandoned."""
    projector = world.projector
    exits = len(projector.exits)
    projector.signal(signal.SIGSTOP)  # so that it does not sweep the event itself before it is killed
    with world.bank.gate:
        event = world.bank.account(f"a{world.random.randrange(3)}")
        world.bank.write([event], status="in_progress", attempts=1, claimed_by="elsewhere:1#0", claimed_at=datetime.now(timezone.utc))
    projector.restart_with(PROJECTOR_CRASH_AT="in_sweeper")
    projector.wait_exit(exits + 2, 60, "the crash in the sweeper")


def crash_sweeping_claims(world: World, point: str) -> None:
    """A projector dies with events in hand, and the next one crashes while it sweeps that batch's claims."""
    projector = world.projector
    exits = len(projector.exits)
    projector.restart_with(PROJECTOR_CRASH_AT="after_claim:2")
    projector.wait_exit(exits + 1, 60, "the first end")
    projector.next_environment = {"PROJECTOR_CRASH_AT": point}
    projector.wait_exit(exits + 3, 60, f"the crash {point}")


@fault(exits={KILLED})
def crash_in_claim_sweep(world: World) -> None:
    crash_sweeping_claims(world, "in_claim_sweep")


@fault(exits={KILLED})
def crash_before_claim_forgotten(world: World) -> None:
    crash_sweeping_claims(world, "before_claim_forgotten")


@fault(exits={KILLED}, weight=3)
def killed_at_random(world: World) -> None:
    for _ in range(world.random.randint(2, 5)):
        more(world, world.random.randint(1, 30))
        world.projector.kill()


@fault(exits={0}, weight=1)
def stopped_and_started(world: World) -> None:
    for _ in range(2):
        starts = world.projector.starts
        world.projector.signal(signal.SIGTERM)
        world.wait(lambda: world.projector.starts > starts, 90, "the new process")
        progress(world, 20)


@fault()
def frozen_shortly(world: World) -> None:
    world.projector.signal(signal.SIGSTOP)
    try:
        last(world, 0.2, 1.5)
    finally:
        world.projector.signal(signal.SIGCONT)


# Several projectors of one name


@fault(exits={KILLED})
def race_with_kills(world: World) -> None:
    """Three of one name, killed in turn: one works, and another takes over."""
    others = [world.add_projector(), world.add_projector()]
    for _ in range(4):
        progress(world, 20)
        world.random.choice(world.projectors).kill()
    progress(world, 20)
    for other in others:
        world.remove_projector(other)


def owner(world: World):
    """The projector that is working now, according to the lease."""
    lease = world.db.projector_leases.find_one({"_id": world.name}) or {}
    pid = lease.get("owner", "::").split(":")[1]
    return next((p for p in world.projectors if str(p.pid) == pid), None)


@fault(exits={KILLED})
def frozen_beyond_its_lease(world: World) -> None:
    """The other takes over; the frozen one wakes up and can no longer commit anything."""
    second = world.add_projector()
    first = world.wait(lambda: owner(world), 90, "an owner")
    standby = second if first is world.projector else world.projector
    offset, standing = first.log_size(), standby.log_size()
    first.signal(signal.SIGSTOP)
    standby.wait_log("info working name=", standing, 90)
    progress(world, 20)
    commits = first.proxy.commits
    first.signal(signal.SIGCONT)
    first.wait_log("stopped working", offset, 30)
    progress(world, 20)
    assert owner(world) is standby, "the owner changed"
    assert first.proxy.commits == commits, f"the fenced projector committed {first.proxy.commits - commits} times"
    world.remove_projector(second)


@fault(exits={KILLED})
def frozen_in_a_transaction(world: World) -> None:
    """It holds the fence's lock while frozen; the other must be able to take over all the same."""
    first = world.projector
    exits, offset = len(first.exits), first.log_size()
    point = world.random.choice(("after_begin", "after_ledger", "after_rows", "before_commit"))
    first.restart_with(PROJECTOR_FREEZE_AT=f"{point}:{world.random.randint(1, 4)}")
    world.wait(lambda: process_state(first.pid) == "T", 90, "the freeze")
    second = world.add_projector()
    second.wait_log("info working name=", 0, 90)
    progress(world, 20)
    commits = first.proxy.commits
    first.signal(signal.SIGCONT)
    first.wait_log("stopped working", offset, 30)
    progress(world, 20)
    assert first.proxy.commits == commits, "the fenced projector committed"
    assert len(first.exits) == exits + 1, "the fenced projector ended"
    world.remove_projector(second)


@fault(exits={KILLED})
def frozen_in_the_sweeper(world: World) -> None:
    """A new owner freezes while it sweeps what its predecessor left,
    holding the fence's lock; the other takes over all the same."""
    first = world.projector
    exits, offset = len(first.exits), first.log_size()
    first.restart_with(PROJECTOR_CRASH_AT="after_claim:2")
    first.wait_exit(exits + 1, 60, "the end with claims in hand")
    first.next_environment = {"PROJECTOR_FREEZE_AT": "in_claim_sweep"}
    world.wait(lambda: first.pid and process_state(first.pid) == "T", 90, "the freeze")
    second = world.add_projector()
    second.wait_log("info working name=", 0, 90)
    progress(world, 20)
    commits = first.proxy.commits
    first.signal(signal.SIGCONT)
    first.wait_log("the tenure ended|cannot become the owner|standing by", offset, 60)
    progress(world, 20)
    assert first.proxy.commits == commits, "the fenced projector committed"
    world.remove_projector(second)


def wedged(world: World, point: str, part: str) -> None:
    """A thread hangs where no timeout applies: the process releases the
    lease and exits, instead of keeping everybody out, and leaving its work undone."""
    first = world.projector
    exits, offset = len(first.exits), first.log_size()
    first.restart_with(PROJECTOR_HANG_AT=point, PROJECTOR_STUCK_MS="3000")
    first.wait_log(f"error stuck .*{part}.* has made no progress for", offset, 90)
    first.wait_exit(exits + 2, 60, "the end of the wedged process")
    progress(world, 20)


WEDGED = {"worker": ("after_claim:3", "a worker"), "janitor": ("before_sweep:3", "the janitor"),
          "acker": ("before_acknowledge:3", "the acker"), "reader": ("after_read:3", "the reader")}
for who, (where, called) in WEDGED.items():
    FAULTS[f"wedged_{who}"] = Fault(f"wedged_{who}", lambda world, where=where, called=called: wedged(world, where, called),
                                    {KILLED, 3}, HEAL_S, 2, False)


def process_state(pid: int) -> str:
    """"T" while it is stopped; "" once it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


@fault(exits={0})
def clean_handover(world: World) -> None:
    """The lease lasts a minute, so a successor that takes over within seconds did not wait for it to expire."""
    first = world.add_projector(lease_ms=60000)
    while owner(world) is not first:  # either of the two may be next; make it the one with the long lease
        starts, offset = world.projector.starts, world.projector.log_size()
        world.projector.signal(signal.SIGTERM)
        world.wait(lambda: world.projector.starts > starts, 90, "the new process")
        world.projector.wait_log("standing by|info working name=", offset)
    progress(world, 20)
    offset, started = world.projector.log_size(), time.monotonic()
    world.remove_projector(first)
    world.projector.wait_log("info working name=", offset, 30)
    assert time.monotonic() - started < 20, "the handover waited for the lease"


# Single events


@fault(exits={KILLED})
def killer_event(world: World) -> Stuck:
    """It kills its process each time; it ends up dead and takes no other event with it."""
    with world.bank.gate:
        event = world.bank.account(f"a{world.random.randrange(3)}")
        world.bank.blocked.add((event["aggregate_type"], event["aggregate_id"]))
        world.projector.environment = {"PROJECTOR_CRASH_ON": str(event["_id"])}
        world.projector.kill()
        world.bank.write([event, world.bank.account(event["aggregate_id"])])
    world.wait(lambda: (world.db.outbox.find_one({"_id": event["_id"]}) or {}).get("status") == "dead", 90,
               "the killer to be dead")

    def repair() -> None:
        world.projector.environment = {}
        world.projector.kill()
        free(world, event)
    return Stuck([event], repair)


def free(world: World, event: dict, **changes) -> None:
    """What an operator does after mending the cause: pending again, with no attempts counted."""
    world.db.outbox.update_one({"_id": event["_id"]}, {
        "$set": {"status": "pending", "attempts": 0, **changes}, "$unset": {"last_error": 1, "next_attempt_at": 1}})
    world.db.projector_leases.update_one({"_id": world.name}, {"$inc": {"nudges": 1}})
    world.bank.blocked.discard((event["aggregate_type"], event["aggregate_id"]))


@fault(weight=3)
def poisoned_events(world: World) -> Stuck:
    """Values that do not fit, unknown types: the culprits end up dead, events behind them wait, all others flow."""
    culprits, good = [], {}
    with world.bank.gate:
        for number in world.random.sample(range(3, 12), 3):
            aggregate_id = f"a{number}"
            if not world.bank.entities.get(("account", aggregate_id), {}).get("rows"):
                world.bank.write([world.bank.account(aggregate_id)])
            event = world.bank.versioned("account", aggregate_id, "AccountRenamed", name="good")
            good[event["_id"]] = event["event_type"]
            poison(world, event)
            world.bank.blocked.add(("account", aggregate_id))
            world.bank.write([event] + [world.bank.account(aggregate_id) for _ in range(3)])
            culprits.append(event)
    more(world, 100)

    def repair() -> None:
        for event in culprits:
            event.update(event_type="AccountRenamed", payload={"name": "good"})
            free(world, event, event_type="AccountRenamed", payload=event["payload"])
    return Stuck(culprits, repair)


def poison(world: World, event: dict) -> None:
    kind = world.random.randrange(3)
    if kind == 0:
        event["payload"] = {"name": "x" * 101}
    elif kind == 1:
        event["payload"] = {}
    else:
        event["event_type"] = "NobodyKnows"


@fault(weight=2)
def sent_again(world: World) -> None:
    """The same ids, long after they were applied."""
    for _ in range(3):
        world.bank.resend(60)
        more(world, 20)
