"""Whose fault a failure is: judged by what was being done, and by whether the server works for others meanwhile."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Iterator

import pytest
from bson import Decimal128

from bank import FAST
from faults.proxy import Proxy
from least_privilege import mysql_users
from mysqld import Mysqld
from server import scratch_folder
from workspace import Stores, Workspace

MB = 1024 * 1024
locks = pytest.mark.xdist_group("blame_locks")  # they wait long: in a worker of their own, with a private server

NOTES = [{"aggregate_type": "note", "table": "note",
          "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}},
          "columns": {"body": {"from": "body", "type": "longtext", "null": True}, "data": {"from": "data", "type": "json", "null": True}},
          "events": {"Written": {"op": "upsert"}, "Changed": {"op": "update", "columns": ["body"]},
                     "Stated": {"op": "sql", "statement": "UPDATE note SET body = :body WHERE id = :$aggregate_id"}}}]


def note(ws: Workspace, aggregate_id: str, event_type: str = "Written", **payload) -> dict:
    return {**ws.event(aggregate_id, event_type, **payload), "aggregate_type": "note"}


@pytest.fixture(scope="module")
def mysqld() -> Iterator[Mysqld]:
    """A server that the tests of this module may configure as they like; they restore it."""
    folder = scratch_folder()
    with Mysqld(folder / "mysqld") as server:
        yield server
    folder.rmdir()


@pytest.fixture
def own(stores: Stores, mysqld: Mysqld, tmp_path: Path) -> Iterator[Workspace]:
    """A workspace on that server."""
    with Workspace(Stores(stores.mongo_uri, mysqld.port), tmp_path) as workspace:
        yield workspace


@contextmanager
def global_set(ws: Workspace, name: str, value: object) -> Iterator[None]:
    """Sets a variable of the server; existing sessions keep their own value."""
    before = ws.query(f"SELECT @@GLOBAL.{name} AS v")[0]["v"]
    ws.query(f"SET GLOBAL {name} = %s", value)
    try:
        yield
    finally:
        ws.query(f"SET GLOBAL {name} = %s", before)


@contextmanager
def ordinary_user(ws: Workspace, projections: list[dict], **overrides) -> Iterator[str]:
    """The mapping with a user that has the privileges of sql/grants.sql and nothing else."""
    ws.mapping(projections, **overrides)
    ws.create()
    ws.query("CREATE TABLE IF NOT EXISTS account (account_id varchar(36) PRIMARY KEY)")  # sql/grants.sql names it
    with mysql_users(ws) as names:
        user = names["projector"]
        for projection in projections:
            ws.query(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {projection['table']} TO {user}@'127.0.0.1'")
        ws.mapping(projections, mysql={"user": user, "password": "change-me-1", **overrides.pop("mysql", {})}, **overrides)
        yield user


@pytest.mark.thorough
def test_what_is_above_the_packet_limit_fails_by_itself(own):
    """The server would cut the connection, which looks like an outage: so such a statement is never sent."""
    with global_set(own, "max_allowed_packet", 4 * MB), ordinary_user(own, NOTES, **FAST, max_attempts=2, workers=1):
        first = [note(own, f"n{n}", body="short") for n in range(3)]
        too_large = [note(own, "text", body="\n" + "x" * 5 * MB), note(own, "json", data={"v": "\x01" * MB}),
                     note(own, "n0", "Stated", body="x" * 5 * MB), note(own, "n1", "Changed", body="é" * 2 * MB)]
        large = [note(own, "large", body="\n" + "x" * (3 * MB // 2)), note(own, "n2", "Stated", body="x" * 3 * MB)]
        small = [note(own, f"s{n}", body="short") for n in range(20)]
        with own.start_projector() as projector:
            own.put(first, too_large, large, small)
            own.wait_gone(*first, *large, *small, timeout=60)
            for event in too_large:
                dead = own.wait_status(event, "dead", timeout=60)
                assert (dead["attempts"], dead["last_error"]["class"], dead["last_error"]["code"]) == (2, "size", 1153)
                assert "max_allowed_packet is 4194304" in dead["last_error"]["message"]
            assert "MySQL cannot be reached" not in projector.log_text() and "code=2006" not in projector.log_text()
    assert {r["id"]: len(r["body"]) for r in own.query("SELECT id, body FROM note WHERE id IN ('large', 'n2')")} == {
        "large": 1 + 3 * MB // 2, "n2": 3 * MB}


@pytest.mark.thorough
def test_a_large_row_does_not_fail_for_the_rows_beside_it(own):
    """Alone it is below the limit; together with the others of its statement it would not be."""
    with global_set(own, "max_allowed_packet", 2 * MB), ordinary_user(own, NOTES, workers=1):
        sizes = [400_000, 100_000, 850_000, 300_000, 10, 800_000, 500_000]
        own.put(note(own, f"n{n}", body="") for n in range(len(sizes)))
        own.run_once()
        for kind in "Written", "Changed":
            own.put(note(own, f"n{n}", kind, body="\n" * size) for n, size in enumerate(sizes))
            assert "class=size" not in own.run_once().stderr
            assert [len(row["body"]) for row in own.query("SELECT body FROM note ORDER BY id")] == sizes
            own.query("UPDATE note SET body = ''")


@pytest.mark.thorough
def test_a_limit_that_is_lowered_counts_from_the_next_session_on(own):
    with global_set(own, "max_allowed_packet", 16 * MB), ordinary_user(own, NOTES, **FAST, max_attempts=1, workers=1) as user:
        with own.start_projector() as projector:
            event = note(own, "n1", body="x" * 3 * MB)
            own.put(event)
            own.wait_gone(event)
            own.query("SET GLOBAL max_allowed_packet = %s", MB)
            own.end_sessions(user)
            event, other = note(own, "n2", body="x" * 3 * MB), note(own, "n3", body="x")
            own.put(event, other)
            assert own.wait_status(event, "dead")["last_error"]["class"] == "size"
            own.wait_gone(other)
            assert projector.stop() == 0


# --- statements that break the connection, and servers that refuse to work

ACCOUNTS = [{"aggregate_type": "account", "table": "account",
             "key": {"account_id": {"from": "$aggregate_id", "type": "varchar(36)"}},
             "columns": {"coins": {"from": "coins", "type": "int"}},
             "events": {"Opened": {"op": "upsert"}, "Added": {"op": "add", "columns": {"coins": "coins"}},
                        "Slept": {"op": "sql", "statement": "UPDATE account SET coins = coins + SLEEP(:seconds) WHERE account_id = :$aggregate_id"}}}]
WALLETS = [{**ACCOUNTS[0], "aggregate_type": "wallet", "table": "wallet"}]


def opened(ws: Workspace, aggregate_id: str, kind: str = "account") -> dict:
    return {**ws.event(aggregate_id, "Opened", coins=1), "aggregate_type": kind}


def errors(ws: Workspace) -> set[tuple]:
    """Of the waiting events: one that is being retried has one attempt more, which is given back."""
    found = ws.outbox.find({"last_error": {"$exists": True}, "status": {"$ne": "in_progress"}})
    return {(e["last_error"]["class"], e["last_error"]["code"], e.get("attempts", 0)) for e in found}


@contextmanager
def behind_proxy(ws: Workspace, projections: list[dict], **overrides) -> Iterator[Proxy]:
    """An ordinary user whose connections go through a proxy that may answer in place of the server."""
    proxy = Proxy(ws.stores.mysql_port)
    try:
        with ordinary_user(ws, projections, **overrides) as user:
            ws.mapping(projections, mysql={"user": user, "password": "change-me-1", "port": proxy.port}, **overrides)
            yield proxy
    finally:
        proxy.close()


@pytest.mark.thorough
def test_a_statement_that_cuts_the_connection_again_and_again_is_its_events_failure(own):
    """Because of a proxy with its own limit, for example. All others flow meanwhile, even those of its batch."""
    with behind_proxy(own, NOTES, **FAST, max_attempts=1, workers=1) as proxy:
        proxy.answer("poisonous", None)
        bad = note(own, "bad", body="poisonous")
        others = [note(own, f"n{n}", body="short") for n in range(100)]
        with own.start_projector() as projector:
            own.put(others[:50], bad, others[50:])
            own.wait_gone(*others, timeout=60)
            dead = own.wait_status(bad, "dead", timeout=60)
            assert (dead["attempts"], dead["last_error"]["class"]) == (1, "unknown") and "alone it broke" in dead["last_error"]["message"]
            assert proxy.answered <= 20  # once per halving, then three times alone
            proxy.answer(None)
            assert own.projector("retry", str(bad["_id"])).returncode == 0
            own.wait_drained()
            assert projector.stop() == 0


@pytest.mark.thorough
def test_a_statement_that_brings_the_server_down_is_its_events_failure(own):
    """Each time nothing works until the server is back, so the connection that is tried next does not tell whose fault it was."""
    with behind_proxy(own, NOTES, **FAST, max_attempts=1, workers=1) as proxy:
        proxy.answer("poisonous", None)
        proxy.falls = 3
        bad = note(own, "bad", body="poisonous")
        with own.start_projector():
            own.put(bad)
            dead = own.wait_status(bad, "dead")
            assert (dead["attempts"], dead["last_error"]["class"]) == (1, "unknown")
            own.put(other := note(own, "n1", body="short"))
            own.wait_gone(other)


@pytest.mark.thorough
def test_a_transaction_too_large_to_commit_is_its_events_failure(own):
    """As group replication (3100) or Galera reports at COMMIT."""
    with behind_proxy(own, NOTES, **FAST, max_attempts=1, workers=1) as proxy:
        proxy.answer("COMMIT", 3100, after="huge")
        bad, others = note(own, "bad", body="huge"), [note(own, f"n{n}", body="short") for n in range(20)]
        with own.start_projector():
            own.put(others[:10], bad, others[10:])
            own.wait_gone(*others, timeout=60)
            dead = own.wait_status(bad, "dead", timeout=60)
            assert (dead["attempts"], dead["last_error"]["class"], dead["last_error"]["code"]) == (1, "size", 3100)


@pytest.mark.thorough(beyond=4)
@pytest.mark.parametrize("code", (3032, 1047, 9001, 4999))
@pytest.mark.parametrize("pattern", ("", "INSERT INTO", "ON DUPLICATE KEY", "COMMIT"), ids=("all", "ledger", "rows", "commits"))
def test_a_server_that_refuses_to_work_burns_no_attempts(own, code, pattern):
    """Whatever the error number and wherever it occurs: the server refuses a probe too."""
    with behind_proxy(own, NOTES, **FAST, max_attempts=2) as proxy:
        first, events = note(own, "n0"), [note(own, f"n{n}", body="short") for n in range(30)]
        with own.start_projector() as projector:
            own.put(first)
            own.wait_gone(first)
            proxy.answer(pattern, code)
            own.put(events)
            projector.wait_log("MySQL (accepts no transaction|cannot be reached)")
            refused = proxy.answered
            own.wait(lambda: proxy.answered >= refused + 10, what="more tries")
            assert {(c, a) for c, _, a in errors(own)} <= {("unavailable", 0)}
            proxy.answer(None)
            own.wait_drained()


def test_an_event_that_cannot_be_mapped_keeps_its_attempts_in_an_outage_too(own):
    """Until MySQL answers it is not known whether the event was applied before."""
    with behind_proxy(own, NOTES, **FAST, max_attempts=1, workers=1) as proxy, own.start_projector() as projector:
        own.put(first := note(own, "n0"))
        own.wait_gone(first)
        proxy.answer("projector_fence", 9001)
        own.put(bad := note(own, "x" * 37))
        projector.wait_log("MySQL accepts no transaction")
        assert own.found(bad).get("status") != "dead" and {(c, a) for c, _, a in errors(own)} <= {("unavailable", 0)}
        proxy.answer(None)
        assert own.wait_status(bad, "dead")["last_error"]["class"] == "data"


@pytest.mark.thorough
@pytest.mark.parametrize("code", (4999, 1037, 1461, 4081))
def test_a_server_that_refuses_one_tables_rows_is_believed_after_a_probe(own, code):
    """The probe succeeds, so after three tries the event is to blame; also where the number usually means an outage."""
    with behind_proxy(own, NOTES, **FAST, max_attempts=2, workers=1) as proxy:
        proxy.answer("INSERT INTO `note`", code, after="strange")
        bad, other = note(own, "bad", body="strange"), note(own, "n1", body="short")
        with own.start_projector():
            own.put(bad, other)
            own.wait_gone(other)
            assert own.wait_status(bad, "dead")["last_error"]["class"] == "unknown"


@pytest.mark.thorough
def test_without_room_for_prepared_statements_other_events_flow(own):
    with ordinary_user(own, NOTES, **FAST, max_attempts=1000, workers=1):
        own.put(first := note(own, "n0", body="first"))
        own.run_once()
        with own.start_projector():
            with global_set(own, "max_prepared_stmt_count", 0):
                own.put(stated := note(own, "n0", "Stated", body="stated"))
                own.wait(lambda: (own.found(stated).get("last_error") or {}).get("code") == 1461, what="the refusal")
                own.put(others := [note(own, f"n{n}", body="short") for n in range(1, 9)])
                own.wait_gone(*others)
                assert own.found(stated)
            own.wait_drained()
    assert own.rows("note")[0]["body"] == "stated"


def test_offline_mode_burns_no_attempts(own, mysqld):
    if mysqld.is_mariadb:
        pytest.skip("MariaDB has no offline mode")
    with ordinary_user(own, NOTES, **FAST, max_attempts=2):
        first, events = note(own, "n0"), [note(own, f"n{n}", body="short") for n in range(30)]
        with own.start_projector() as projector:
            own.put(first)
            own.wait_gone(first)
            with global_set(own, "offline_mode", 1):
                own.put(events)
                projector.wait_log("code=3032")
                projector.wait_log("MySQL cannot be reached")
                assert {(c, a) for c, _, a in errors(own)} <= {("unavailable", 0)}
            own.wait_drained()


@pytest.mark.thorough
@locks
def test_a_slow_statement_is_its_events_failure(own):
    """It takes longer than the answer's timeout; the session is
    killed on the server, so that its locks are released."""
    with ordinary_user(own, ACCOUNTS, **FAST, max_attempts=1, workers=2, mysql={"lock_wait_s": 1}) as user:
        with own.start_projector() as projector:
            own.put(opened(own, "slow"), opened(own, "a1"))
            own.wait_drained()
            slow = {**own.event("slow", "Slept", seconds=100), "aggregate_type": "account"}
            others = [opened(own, f"b{n}") for n in range(20)]
            own.put(others[:10], slow, others[10:])
            own.wait_gone(*others, timeout=80)
            dead = own.wait_status(slow, "dead", timeout=200)
            assert (dead["attempts"], dead["last_error"]["class"], dead["last_error"]["code"]) == (1, "unknown", 2013)
            own.wait(lambda: not own.query("SELECT id FROM information_schema.processlist WHERE user = %s AND info LIKE '%%SLEEP%%'", user),
                     what="the end of the statement")
            assert projector.stop() == 0


# --- locks

def events_of(ws: Workspace, kind: str, count: int) -> list[dict]:
    return [opened(ws, f"{kind}{n}", kind) for n in range(count)]


SHORT_WAITS = {"mysql": {"lock_wait_s": 2}}  # the default of 10 s is tested once


@pytest.mark.thorough
@locks
@pytest.mark.parametrize("lock, settings", [("LOCK TABLES account WRITE", {}), ("LOCK TABLES account READ", SHORT_WAITS),
                                            ("SELECT * FROM account FOR UPDATE", SHORT_WAITS)], ids=("write", "read", "rows"))
def test_a_locked_table_stops_its_own_events_only(own, lock, settings):
    with ordinary_user(own, ACCOUNTS + WALLETS, **FAST, **settings, max_attempts=2, workers=2):
        own.put(events_of(own, "account", 12), events_of(own, "wallet", 12))
        own.run_once()
        with own.start_projector() as projector:
            projector.wait_log("info working")
            with own.stores.mysql(own.name) as stranger, stranger.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute(lock)
                locked, free = events_of(own, "account", 12), events_of(own, "wallet", 12)
                own.put(e for pair in zip(locked, free) for e in pair)
                projector.wait_log("a table is locked.*account", timeout=120)
                own.wait_gone(*free, timeout=90)
                more = [e for n in range(3) for e in events_of(own, "wallet", 12)]
                own.put(more, events_of(own, "account", 1))
                own.wait_gone(*more, timeout=90)
                held = own.wait(lambda: own.outbox.find_one({"status": "failed", "last_error.message": {"$regex": "^table account is locked"}}),
                                what="an event that waits, with the reason")
                assert (held["last_error"]["class"], held["last_error"]["code"]) == ("conflict", 1205)
                assert held.get("attempts", 0) == 0 and {e.get("attempts", 0) for e in own.outbox.find({"status": "failed"})} <= {0}
                cursor.execute("UNLOCK TABLES")
                cursor.execute("COMMIT")
            own.wait_drained(60)


def test_a_new_column_that_has_no_default_stops_its_own_table_only(own):
    """1364 is of class data, but of no event in particular."""
    with ordinary_user(own, ACCOUNTS + WALLETS, **FAST, max_attempts=2, workers=1):
        with own.start_projector() as projector:
            projector.wait_log("info working")
            own.query("ALTER TABLE account ADD extra INT NOT NULL")
            own.put(events_of(own, "account", 12), free := events_of(own, "wallet", 5))
            own.wait_gone(*free)
            own.wait(lambda: own.outbox.count_documents({"status": "failed"}) == 12, what="all to wait with the reason")
            own.put(more := [opened(own, f"more{n}", "wallet") for n in range(5)])
            own.wait_gone(*more)
            assert own.outbox.count_documents({"status": "dead"}) == 0
            assert own.outbox.count_documents({"attempts": {"$gt": 0}}) < 3
            own.query("ALTER TABLE account DROP COLUMN extra")
            own.wait_drained(60)


def test_a_ledger_that_was_changed_is_no_events_failure(own):
    with ordinary_user(own, ACCOUNTS, **FAST, max_attempts=2):
        with own.start_projector() as projector:
            projector.wait_log("info working")
            own.query("ALTER TABLE projector_applied ALTER applied_at DROP DEFAULT")
            own.put(events_of(own, "account", 5))
            own.wait(lambda: projector.log_text().count("cannot project") >= 4, what="some attempts")
            assert own.outbox.count_documents({"status": "dead"}) == own.outbox.count_documents({"attempts": {"$gt": 0}}) == 0
            assert "default" in projector.log_text()
            own.query("ALTER TABLE projector_applied MODIFY applied_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)")
            own.wait_drained(60)


@pytest.mark.thorough
def test_a_trigger_whose_definer_has_no_rights_stops_its_own_table_only(own):
    definer = f"d{own.name[2:12]}"
    with ordinary_user(own, ACCOUNTS + WALLETS, **FAST, max_attempts=2, workers=1):
        own.query("CREATE TABLE audit (id varchar(36))")
        own.query(f"CREATE USER {definer}@'127.0.0.1'")
        own.query(f"GRANT SELECT, TRIGGER ON account TO {definer}@'127.0.0.1'")
        own.query(f"CREATE DEFINER = {definer}@'127.0.0.1' TRIGGER audited AFTER INSERT ON account FOR EACH ROW INSERT INTO audit VALUES (NEW.account_id)")
        try:
            with own.start_projector() as projector:
                own.put(events_of(own, "account", 5), free := events_of(own, "wallet", 5))
                own.wait_gone(*free)
                projector.wait_log("a table needs a privilege that is missing class=config.*table account")
                own.put(more := [opened(own, f"more{n}", "wallet") for n in range(5)])
                own.wait_gone(*more)
                held = own.wait(lambda: own.outbox.find_one({"status": "failed"}), what="an event that waits, with the reason")
                assert held["last_error"]["class"] == "config" and {e.get("attempts", 0) for e in own.outbox.find({"status": "failed"})} <= {0}
                assert own.rows("account") == [] and projector.running
                own.query(f"GRANT INSERT ON audit TO {definer}@'127.0.0.1'")
                own.wait_drained(60)
        finally:
            own.query(f"DROP USER {definer}@'127.0.0.1'")


@pytest.mark.thorough
def test_a_trigger_whose_definer_is_gone_stops_its_own_table_only(own):
    """As after a dump that was loaded without its users. No attempt is burnt, also by a single event."""
    with ordinary_user(own, ACCOUNTS + WALLETS, **FAST, max_attempts=1, workers=1):
        own.query("CREATE DEFINER = nobody@'127.0.0.1' TRIGGER audited AFTER INSERT ON account FOR EACH ROW SET @inserted = 1")
        with own.start_projector() as projector:
            own.put(events_of(own, "account", 1), free := events_of(own, "wallet", 5))
            own.wait_gone(*free)
            held = own.wait(lambda: own.outbox.find_one({"status": "failed"}), what="an event that waits, with the reason")
            assert (held["last_error"]["class"], held["last_error"]["code"], held.get("attempts", 0)) == ("mapping", 1449, 0)
            own.query("DROP TRIGGER audited")
            own.wait_drained()
            assert projector.running


@pytest.mark.thorough
@locks
def test_late_events_of_a_locked_table_stop_their_own_table_only(own):
    """Their rows are taken from the entities, in transactions of their own."""
    projections = [{**p, "entities": p["table"] + "s", "events": {**p["events"], "Set": {"op": "update", "columns": ["coins"]}}}
                   for p in ACCOUNTS + WALLETS]
    with ordinary_user(own, projections, **FAST, **SHORT_WAITS, max_attempts=2, workers=1):
        late = [{**own.event(f"account{n}", "Set", coins=5), "aggregate_type": "account"} for n in range(12)]
        own.put(events_of(own, "account", 12))
        own.db["accounts"].insert_many({"_id": f"account{n}", "coins": 7, "version": 1} for n in range(12))
        own.run_once()
        with own.start_projector() as projector, own.stores.mysql(own.name) as stranger, stranger.cursor() as cursor:
            projector.wait_log("info working")
            cursor.execute("LOCK TABLES account WRITE")
            own.put(late)
            projector.wait_log("a table is locked.*account", timeout=60)
            own.put(free := events_of(own, "wallet", 12))
            own.wait_gone(*free, timeout=60)
            held = own.wait(lambda: own.outbox.find_one({"status": "failed", "last_error.message": {"$regex": "^table account is locked"}}),
                            what="an event that waits, with the reason")
            assert held["last_error"]["code"] == 1205 and {attempts for *_, attempts in errors(own)} <= {0}
            assert own.outbox.count_documents({"_id": {"$in": [e["_id"] for e in late]}}) == 12
            cursor.execute("UNLOCK TABLES")
            own.wait_drained(60)
    assert {row["coins"] for row in own.rows("account")} == {7}


@pytest.mark.thorough
@locks
def test_a_waiting_alter_table_stops_its_own_events_only(own):
    """Nobody holds the lock that others wait for: a request for it is enough."""
    with ordinary_user(own, ACCOUNTS + WALLETS, **FAST, **SHORT_WAITS, workers=2):
        own.put(opened(own, "a1"))
        own.run_once()
        with own.start_projector() as projector, own.stores.mysql(own.name) as reader, own.stores.mysql(own.name) as changer:
            projector.wait_log("info working")
            with reader.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute("SELECT * FROM account")
                alter = threading.Thread(target=lambda: changer.query("ALTER TABLE account ADD COLUMN more INT NULL"))
                alter.start()
                own.wait_lock_wait("ALTER TABLE")
                locked, free = opened(own, "a2"), events_of(own, "wallet", 10)
                own.put(locked, free)
                projector.wait_log("a table is locked.*account", timeout=60)
                own.wait_gone(*free, timeout=90)
                cursor.execute("COMMIT")
            alter.join()
            own.wait_drained(60)


@pytest.mark.thorough
@locks
def test_a_lock_of_our_own_tables_is_an_outage(own):
    with ordinary_user(own, ACCOUNTS, **FAST, **SHORT_WAITS, max_attempts=2, workers=2):
        own.put(opened(own, "a1"))
        own.run_once()
        with own.start_projector() as projector:
            projector.wait_log("info working")
            with own.stores.mysql(own.name) as stranger, stranger.cursor() as cursor:
                cursor.execute("LOCK TABLES projector_position WRITE")
                own.put(events_of(own, "account", 10))
                projector.wait_log("MySQL accepts no transaction", timeout=60)
                assert {(c, a) for c, _, a in errors(own)} <= {("unavailable", 0)}
                cursor.execute("UNLOCK TABLES")
            own.wait_drained(60)


def test_the_sweeper_of_an_older_epoch_takes_nothing(bank):
    """In particular not what the new owner has in hand: the sweeper checks the fence first."""
    bank.mapping(**FAST)
    claimed = {**bank.event("a1", "AccountOpened", user_id="u", name="n", balance=Decimal128("1")), "status": "in_progress",
               "claimed_by": "another:1#99", "claimed_at": datetime(2020, 1, 1), "attempts": 1}
    with bank.start_projector() as projector:
        projector.wait_log("info working")
        bank.query("UPDATE projector_fence SET epoch = epoch + 1 WHERE part = 0")
        bank.put(claimed)
        projector.wait_log("another projector of this name works now")
        bank.wait_drained()  # by its next tenure
        projector.wait_log("swept events that were left in progress")
        log = projector.log_text()
        assert 0 <= log.index("another projector of this name works now") < log.index("swept events that were left in progress")
