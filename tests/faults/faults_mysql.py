"""Faults of MySQL and of the connection to it."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import Iterator

import pymysql

from catalog import AWAY, applied, fault, last, more, progress
from world import USER, World

# The server


@fault(exits={AWAY})
def mysql_killed_and_started(world: World) -> None:
    world.mysql.kill()
    more(world)
    world.mysql.start()


@fault(exits={AWAY}, weight=1)
def mysql_restarted(world: World) -> None:
    world.mysql.stop()
    more(world)
    world.mysql.start()


@contextmanager
def frozen(server) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


@fault(exits={AWAY})
def mysql_frozen(world: World) -> None:
    with frozen(world.mysql):
        last(world, 0.5, 6)


def projector_sessions(world: World) -> list[int]:
    return [row[0] for row in world.sql(f"SELECT id FROM information_schema.processlist WHERE user = '{USER}'")]


def kill_sessions(world: World, how: str = "CONNECTION") -> int:
    killed = 0
    for session in projector_sessions(world):
        try:
            world.sql(f"KILL {how} {session}")
            killed += 1
        except pymysql.MySQLError:
            pass  # it has gone by itself
    return killed


@fault()
def mysql_sessions_killed(world: World) -> None:
    killed = 0
    while killed < 6:
        killed += kill_sessions(world)
        more(world, 10)


@fault()
def mysql_queries_killed(world: World) -> None:
    for _ in range(10):
        kill_sessions(world, "QUERY")
        more(world, 5)


@contextmanager
def read_only(world: World) -> Iterator[None]:
    """The projector's user has no privilege that would let it write despite this."""
    world.sql("SET GLOBAL read_only = 1" if world.mysql.is_mariadb else "SET GLOBAL super_read_only = 1")
    try:
        yield
    finally:
        world.sql(*([] if world.mysql.is_mariadb else ["SET GLOBAL super_read_only = 0"]), "SET GLOBAL read_only = 0")


@fault()
def mysql_read_only(world: World) -> None:
    with read_only(world):
        before = applied(world)
        more(world)
        assert applied(world) == before, "the server was not read-only"


@fault(weight=1)
def mysql_out_of_connections(world: World) -> None:
    world.sql("CREATE USER IF NOT EXISTS filler@'127.0.0.1' IDENTIFIED BY 'filler'")
    with ExitStack() as fillers:
        # Root uses a single connection: the server may not have a second one to spare.
        root = fillers.enter_context(world.mysql.connect()).cursor()
        for _ in range(20):
            fillers.enter_context(world.mysql.connect(user="filler", password="filler"))
        root.execute("SET GLOBAL max_connections = 20")
        try:
            root.execute(f"SELECT id FROM information_schema.processlist WHERE user = '{USER}'")
            for (session,) in root.fetchall():
                try:
                    root.execute(f"KILL {session}")
                except pymysql.MySQLError:
                    pass  # it has gone by itself
            more(world)
        finally:
            root.execute("SET GLOBAL max_connections = 151")


@fault()
def mysql_small_packets(world: World) -> None:
    """Batches that do not fit are halved until they do: work continues below the limit."""
    limit = world.sql("SELECT @@GLOBAL.max_allowed_packet")[0][0]
    world.sql("SET GLOBAL max_allowed_packet = 2048")
    try:
        kill_sessions(world)
        with world.bank.gate:
            events = world.bank.batch(300)
            world.bank.write(events)
            world.wait(lambda: not world.db.outbox.count_documents({"_id": {"$in": [e["_id"] for e in events]}}), 60,
                       "a large backlog to be applied in small packets")
    finally:
        world.sql(f"SET GLOBAL max_allowed_packet = {limit}")
        kill_sessions(world)


# Locks


def metric(world: World, name: str) -> int:
    world.sql(f"SET GLOBAL innodb_monitor_enable = '{name}'")
    return world.sql(f"SELECT count FROM information_schema.innodb_metrics WHERE name = '{name}'")[0][0]


def row_lock_waits(world: World) -> int:
    return int(world.sql("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")[0][1])


@fault(slow=True, heal_s=90)
def row_locked_beyond_the_timeout(world: World) -> None:
    before = metric(world, "lock_timeouts")
    with world.mysql.connect(database="bank", autocommit=False) as other, other.cursor() as cursor:
        cursor.execute("SELECT * FROM account FOR UPDATE")
        world.wait(lambda: metric(world, "lock_timeouts") > before, 120, "a lock wait timeout")
        other.rollback()


@fault(weight=1)
def row_locked_for_a_while(world: World) -> None:
    with world.mysql.connect(database="bank", autocommit=False) as other, other.cursor() as cursor:
        cursor.execute("SELECT * FROM wallet FOR UPDATE")
        more(world, 60)
        other.rollback()


@fault()
def deadlock(world: World) -> None:
    """The other session has written more, so the projector becomes the victim."""
    world.sql("CREATE TABLE IF NOT EXISTS heavy (n INT)")
    before = metric(world, "lock_deadlocks")
    for _ in range(20):
        with world.mysql.connect(database="bank", autocommit=False) as other, other.cursor() as cursor:
            cursor.execute("INSERT INTO heavy VALUES " + ",".join(["(1)"] * 2000))
            cursor.execute("SELECT * FROM account FOR UPDATE")
            world.wait(lambda: row_lock_waits(world) > 0, 90, "the projector to wait for a row")
            try:
                cursor.execute("SELECT * FROM projector_position FOR UPDATE")
            except pymysql.err.OperationalError:
                pass  # it was the victim itself
            other.rollback()
        if metric(world, "lock_deadlocks") > before + 1:
            return
    raise AssertionError("no deadlock came about")


@fault(weight=1)
def table_locked(world: World) -> None:
    with world.mysql.connect(database="bank") as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLES account WRITE")
        more(world, 60)
        cursor.execute("UNLOCK TABLES")


@fault(slow=True, heal_s=120)
def table_locked_beyond_the_timeout(world: World) -> None:
    """A table lock is not a row lock: waiting for it has a separate timeout."""
    with world.mysql.connect(database="bank") as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLES account WRITE")
        last(world, 33, 36)
        cursor.execute("UNLOCK TABLES")


@fault()
def column_dropped_and_back(world: World) -> None:
    """Its projection waits for it, the others continue."""
    with world.mysql.connect(database="bank", autocommit=True) as other, other.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS kept")
        # The lock keeps wallets from changing between the copy and the drop.
        cursor.execute("CREATE TABLE kept (wallet_id BIGINT PRIMARY KEY, moves BIGINT)")
        cursor.execute("LOCK TABLES wallet WRITE, kept WRITE")
        cursor.execute("INSERT INTO kept SELECT wallet_id, moves FROM wallet")
        cursor.execute("ALTER TABLE wallet DROP COLUMN moves")
        cursor.execute("UNLOCK TABLES")
        world.wait(lambda: world.db.outbox.find_one({"last_error.class": "mapping"}), 90, "a failure of class mapping")
        progress(world, 40)
        cursor.execute("LOCK TABLES wallet WRITE, kept WRITE")
        cursor.execute("ALTER TABLE wallet ADD COLUMN moves BIGINT NOT NULL DEFAULT 0")
        cursor.execute("UPDATE wallet JOIN kept USING (wallet_id) SET wallet.moves = kept.moves")
        cursor.execute("UNLOCK TABLES")


# The connection


@fault()
def connections_cut(world: World) -> None:
    cut = 0
    while cut < 8:
        cut += world.projector.proxy.cut_all()
        more(world, 10)


@fault()
def connections_refused(world: World) -> None:
    with world.projector.proxy.refusing():
        more(world)


@fault()
def everything_held_back(world: World) -> None:
    with world.projector.proxy.holding():
        last(world, 0.5, 5)


@fault(weight=1)
def slow_network(world: World) -> None:
    with world.projector.proxy.slow(world.random.uniform(0.005, 0.05)):
        more(world, 100)


def lose(world: World, *what: str) -> None:
    proxy = world.projector.proxy
    wanted = proxy.lost + len(what)
    proxy.lose_commits(*what)
    try:
        world.wait(lambda: proxy.lost >= wanted, 120, "the COMMITs to be lost")
    finally:
        proxy.keep_commits()


@fault(weight=4)
def commit_lost_on_the_way_there(world: World) -> None:
    lose(world, *["request"] * 3)


@fault(weight=4)
def commit_lost_on_the_way_back(world: World) -> None:
    lose(world, *["answer"] * 3)


@fault(weight=4)
def commits_lost_both_ways(world: World) -> None:
    lose(world, *(world.random.choice(("answer", "request")) for _ in range(8)))


@fault(heal_s=150, slow=True)
def sessions_abandoned(world: World) -> None:
    """The projector sees its connections reset; the server does not, and keeps
    the locks of a transaction that is just then waiting for a row."""
    with world.mysql.connect(database="bank", autocommit=False) as other, other.cursor() as cursor:
        cursor.execute("SELECT * FROM account FOR UPDATE")
        world.wait(lambda: row_lock_waits(world) > 0, 90, "the projector to wait for a row")
        world.projector.proxy.abandon()
        other.rollback()


@fault(heal_s=150, slow=True)
def connections_half_open(world: World) -> None:
    world.wait(world.projector.proxy.deafen, 60, "connections")
    more(world, 10)
