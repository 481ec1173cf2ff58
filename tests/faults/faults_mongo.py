"""Faults of MongoDB: members, elections, error codes, the outbox collection itself."""

from __future__ import annotations

import bson
import pymongo
from pymongo.errors import OperationFailure, PyMongoError

from catalog import AWAY, KILLED, fault, last, more, progress
from checker import MEMORY_MB
from world import World

# Members


@fault(exits={AWAY})
def primary_killed_and_started(world: World) -> None:
    primary = world.mongo.primary()
    primary.kill()
    if len(world.mongo.members) > 1:
        more(world)
    primary.start()


@fault(exits={AWAY}, weight=1)
def all_members_killed_and_started(world: World) -> None:
    for member in world.mongo.members:
        member.kill()
    last(world, 0, 3)
    world.mongo.start()


@fault(exits={AWAY})
def primary_frozen(world: World) -> None:
    """For less or for more time than the others need to elect a new one."""
    primary = world.mongo.primary()
    primary.pause()
    try:
        last(world, 0.5, 6)
    finally:
        primary.resume()


@fault(exits={AWAY}, weight=1)
def all_members_frozen(world: World) -> None:
    for member in world.mongo.members:
        member.pause()
    try:
        last(world, 0.5, 6)
    finally:
        for member in world.mongo.members:
            member.resume()


@fault(exits={AWAY})
def step_down(world: World) -> None:
    def ask(client: pymongo.MongoClient) -> None:
        try:
            client.admin.command({"replSetStepDown": 3, "secondaryCatchUpPeriodSecs": 2, "force": True})
        except (OperationFailure, PyMongoError):
            pass  # it may close our connection as well
    before = world.mongo.primary()
    world.primary_client(ask)
    world.mongo.primary()
    if len(world.mongo.members) > 1:
        world.wait(lambda: world.mongo.primary() is not before or world.bank.count, 90, "an election")
    more(world)


@fault(weight=1)
def secondary_killed(world: World) -> None:
    primary = world.mongo.primary()
    others = [m for m in world.mongo.members if m is not primary]
    if not others:
        return
    victim = world.random.choice(others)
    victim.kill()
    more(world)
    victim.start()


@fault()
def all_sessions_killed(world: World) -> None:
    """Everybody's cursors and transactions end midway."""
    for _ in range(5):
        world.primary_client(lambda client: client.admin.command("killAllSessions", []))
        more(world, 10)


# Answers that fail points make the server return, to the projector only


def answer_with(world: World, commands: list[str], code: int | None, times: int, **data) -> None:
    """Waits until the server has returned that answer that many times and work continues."""
    how = {"closeConnection": True} if code is None else {"errorCode": code}
    fail(world, {"failCommands": commands, **how, **data}, times)


def fail(world: World, data: dict, times: int) -> None:
    with world.mongo.primary().client(socketTimeoutMS=130000) as client:
        def configure(**command) -> dict:
            return client.admin.command({"configureFailPoint": "failCommand", **command})
        before = configure(mode={"times": times}, data={"appName": "projector", **data})["count"]
        try:
            client.admin.command("waitForFailPoint", "failCommand", timesEntered=before + times, maxTimeMS=120000)
        finally:
            configure(mode="off")
    progress(world, 20)


@fault(weight=5)
def change_stream_lost(world: World) -> None:
    """Any error code, on getMore and then on the aggregate that reopens the stream."""
    for code in world.random.sample((286, 280, 260, 43, 91, 189, 10334, 136, 237, 11601, 234), 4):
        answer_with(world, ["getMore", "aggregate"], code, world.random.randint(1, 4))


@fault(weight=3)
def writes_refused(world: World) -> None:
    """Claims, marks, acknowledgements and the lease, with and without the label that allows the driver to retry."""
    for code in world.random.sample((91, 189, 10107, 11602, 112, 50, 262, None), 4):
        labels = {} if code is None or world.random.random() < 0.5 else {"errorLabels": ["RetryableWriteError"]}
        commands = world.random.choice((["update"], ["delete"], ["update", "delete"], ["findAndModify"]))
        answer_with(world, commands, code, world.random.randint(1, 6), **labels)


@fault(weight=2)
def reads_refused(world: World) -> None:
    for code in world.random.sample((91, 189, 43, 11600, 13436, None), 3):
        answer_with(world, ["find", "getMore", "ping"], code, world.random.randint(1, 6))


@fault(weight=2)
def connections_closed_by_mongodb(world: World) -> None:
    answer_with(world, ["aggregate", "getMore", "update", "delete", "find", "findAndModify"], None,
                world.random.randint(3, 20))


@fault(weight=2)
def acknowledgement_uncertain(world: World) -> None:
    """The write takes place, but the answer is a write concern error."""
    fail(world, {"failCommands": ["update", "delete", "findAndModify"],
                 "writeConcernError": {"code": 91, "errmsg": "made up by a test"}}, world.random.randint(2, 8))


# The outbox


@fault(weight=1)
def outbox_renamed_and_back(world: World) -> None:
    with world.bank.gate:
        world.db.outbox.rename("outbox_away")
        last(world, 0.2, 2)
        world.client.admin.command("renameCollection", "bank.outbox_away", to="bank.outbox", dropTarget=True)
    more(world)


@fault(weight=1)
def outbox_dropped(world: World) -> None:
    """Dropped while empty, so nothing is lost; the stream ends with an invalidate."""
    with world.bank.gate:
        world.wait(lambda: world.db.outbox.find_one() is None, 120, "an empty outbox")
        world.db.outbox.drop()
        world.db.create_collection("outbox")
        world.db.outbox.create_index([("occurred_at", 1), ("version", 1), ("_id", 1)])
    more(world)


def large_event(world: World, spare: int, event_type: str = "ProfileSaved", **fields: object) -> dict:
    """Leaves that many bytes of the 16 MB that a document may have."""
    event = world.bank.event("profile", "large", event_type, name="large", ballast="") | fields
    event["payload"]["ballast"] = "x" * (16 * 1024 * 1024 - spare - len(bson.encode(event)))
    world.bank.write([event])
    del event["payload"]["ballast"]  # the history need not keep it
    return event


@fault(exits={KILLED}, weight=1)
def oversized_event(world: World) -> None:
    """So large that there is hardly any room for the change that wraps it."""
    event = large_event(world, 600)
    world.wait(lambda: world.db.outbox.find_one({"_id": event["_id"]}, {"_id": 1}) is None, 120, "the large event to go")
    most = MEMORY_MB + 4 * 16  # several cursors buffer it, too
    assert world.projector.memory_mb() < most, f"{world.projector.memory_mb():.0f} MB in use"
    world.projector.kill()  # memory that the allocator keeps would distort later measurements


@fault(exits={KILLED}, weight=1)
def event_without_room_for_a_mark(world: World) -> None:
    """Tried before, so that it is claimed in its own document, and MongoDB cannot write that: all other aggregates
    flow, until an operator takes it out."""
    offset = world.projector.log_size()
    event = large_event(world, 0, status="pending", attempts=1)
    world.projector.wait_log("event cannot be claimed", offset)
    progress(world, 100)
    with world.bank.lock:
        world.bank.history["profile", "large"].remove(event)
    world.db.outbox.delete_one({"_id": event["_id"]})
    world.projector.kill()


@fault(exits={KILLED}, weight=1)
def event_without_room_for_its_error(world: World) -> None:
    """The claim fits, but the reason of the failure does not: it still ends up dead."""
    event = large_event(world, 150, "NobodyKnows")
    with world.bank.lock:
        world.bank.history["profile", "large"].remove(event)
    world.wait(lambda: world.db.outbox.find_one({"_id": event["_id"], "status": "dead"}, {"_id": 1}), 60, "a dead event")
    progress(world, 100)
    world.db.outbox.delete_one({"_id": event["_id"]})
    world.projector.kill()
