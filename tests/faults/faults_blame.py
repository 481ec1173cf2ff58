"""Faults that are easily blamed on the wrong party: on innocent events, or on a server that works."""

from __future__ import annotations

from catalog import Stuck, applied, fault, last, more, progress
from faults_mysql import kill_sessions
from faults_process import free
from world import World


def account_event(world: World, event_type: str, **payload) -> dict:
    """An event of an existing account, with others behind it; `mend` gives it valid content again."""
    with world.bank.gate:
        aggregate_id = f"a{world.random.randrange(3, 12)}"
        if not world.bank.entities.get(("account", aggregate_id), {}).get("rows"):
            world.bank.write([world.bank.account(aggregate_id)])
        event = world.bank.versioned("account", aggregate_id, "AccountRenamed", name="good")
        event.update(event_type=event_type, payload=payload)
        world.bank.blocked.add(("account", aggregate_id))
        world.bank.write([event] + [world.bank.account(aggregate_id) for _ in range(3)])
    return event


def mend(world: World, event: dict) -> None:
    event.update(event_type="AccountRenamed", payload={"name": "good"})
    free(world, event, event_type="AccountRenamed", payload=event["payload"])


def error_of(world: World, event: dict) -> dict:
    return (world.db.outbox.find_one({"_id": event["_id"]}) or {}).get("last_error", {})


@fault()
def big_statement(world: World) -> Stuck:
    """Above max_allowed_packet: never sent; its event ends dead as `size`, all others flow."""
    limit = world.sql("SELECT @@GLOBAL.max_allowed_packet")[0][0]
    world.sql("SET GLOBAL max_allowed_packet = 1048576")
    try:
        kill_sessions(world)
        event = account_event(world, "AccountSigned", text="x" * 2_000_000)
        progress(world, 60)
        world.wait(lambda: world.db.outbox.find_one({"_id": event["_id"], "status": "dead"}), 90, "the event to be dead")
        assert error_of(world, event)["class"] == "size"
    finally:
        world.sql(f"SET GLOBAL max_allowed_packet = {limit}")
    return Stuck([event], lambda: (mend(world, event), kill_sessions(world)) and None)


@fault(slow=True, heal_s=150)
def slow_statement(world: World) -> None:
    """It takes longer than the projector waits for an answer; after three attempts that is the event's own failure."""
    event = account_event(world, "AccountNapped", seconds=600)
    progress(world, 60)
    world.wait(lambda: error_of(world, event).get("class") == "unknown", 240, "the event to be found out")
    mend(world, event)


@fault()
def statement_cuts_the_connection(world: World) -> Stuck:
    """As a proxy with its own limits would."""
    proxy = world.projector.proxy
    proxy.answer("cut here")
    event = account_event(world, "AccountSigned", text="cut here")
    world.wait(lambda: error_of(world, event).get("class") == "unknown", 120, "the event to be found out")
    progress(world, 60)

    def repair() -> None:
        proxy.answer(None)
        mend(world, event)
    return Stuck([event], repair)


@fault(weight=4)
def unknown_codes_from_the_proxy(world: World) -> None:
    """A proxy without a backend, a node that left its cluster: nothing is applied, and no event loses an attempt."""
    proxy = world.projector.proxy
    code, pattern = world.random.choice((1047, 1105, 3032, 4999, 9001)), world.random.choice(("", "INSERT INTO", "COMMIT"))
    proxy.answer(pattern, code)
    try:
        world.wait(lambda: proxy.answered >= 3, 60, "answers of the proxy")
        before = applied(world)
        more(world, 60)
        last(world, 1, 5)
        assert applied(world) == before, "the proxy let something through"
        assert not world.db.outbox.count_documents({"status": "dead"}), "innocent events are dead"
    finally:
        proxy.answer(None)


@fault(weight=1)
def offline_mode(world: World) -> None:
    """MySQL's own way to disconnect ordinary users; on other servers their sessions are killed."""
    if world.mysql.is_mariadb:
        kill_sessions(world)
        return
    world.sql("SET GLOBAL offline_mode = 1")
    try:
        more(world, 60)
        assert not world.db.outbox.count_documents({"status": "dead"}), "innocent events are dead"
    finally:
        world.sql("SET GLOBAL offline_mode = 0")


@fault(slow=True, heal_s=120)
def table_locked_while_others_flow(world: World) -> None:
    """One read table is locked for long; events for other tables are applied meanwhile."""
    with world.mysql.connect(database="bank") as other, other.cursor() as cursor:
        offset = world.projector.log_size()
        cursor.execute("LOCK TABLES wallet WRITE")
        world.projector.wait_log("a table is locked", offset)
        progress(world, 100)
        cursor.execute("UNLOCK TABLES")
