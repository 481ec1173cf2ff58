"""Any statement of a command may fail. Each command runs once for each statement
that it sends, and a store refuses that one. The command must report it and fail, or
do without and succeed as usual; the next run completes what it began.

Thousands of runs, so a usual `./run test` leaves them to `./run test --all`."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Callable, Iterator

import pymongo
import pytest
from bson import Int64

from bank import SHORT_LEASE
from entities import account, fill
from refusals import CUT, FORBIDDEN, REFUSED, UNKNOWN, Refusing, refusing_stores
from test_projector_children import ORDERS, lines, lines_of, order, place
from workspace import Workspace, bank_projections, decimal

pytestmark = pytest.mark.thorough

SETTINGS = {**SHORT_LEASE, "gap_wait_ms": 20}
SESSION = ("SET ", "SELECT VERSION()")  # every session begins with these: testing one command is enough
SPARED = (
    "RENAME TABLE",  # a refused one takes as long as a slow one: once is enough, below
    "find oplog.rs",  # "the oplog was not checked", and the exit status stays the same
    "commitTransaction",  # a real error of the server would end the transaction
)

Done = subprocess.CompletedProcess
Run = Callable[[], Done]


@pytest.fixture
def refusing(ws: Workspace) -> Iterator[Refusing]:
    [(_, port)] = pymongo.uri_parser.parse_uri(ws.stores.mongo_uri)["nodelist"]
    ws.environment["XDG_STATE_HOME"] = str(ws.folder / "state")
    with refusing_stores(port, ws.stores.mysql_port) as refusing:
        yield refusing


def statements(refusing: Refusing, run: Run, beginning: bool, codes: dict[str, int] | None) -> list[tuple[str, str]]:
    """The statements that an undisturbed run sends to each store."""
    refusing.begin()
    assert run().returncode in (0, 1)
    return [(store, shape) for store in ("mongodb", "mysql") for shape in refusing.said[store]
            if not (codes is UNKNOWN and shape.startswith(SPARED)) and (beginning or not shape.startswith(SESSION))]


def sweep(refusing: Refusing, run: Run, good: Callable[[Done], bool], prepare: Callable[[], None] = lambda: None,
          beginning: bool = False, codes: dict[str, int] | None = UNKNOWN) -> None:
    prepare()
    silent = []
    for store, shape in statements(refusing, run, beginning, codes):
        prepare()
        refusing.begin(store, shape, codes)
        done = run()
        told = done.returncode != 0 and (codes is CUT or REFUSED in done.stderr + done.stdout) or \
            any(line.startswith("warning") and REFUSED in line for line in done.stdout.splitlines())
        if refusing.fired and not told and not good(done):
            silent.append((store, shape, done.returncode, done.stdout, done.stderr))
        refusing.begin()
    assert not silent
    prepare()
    again = run()
    assert good(again), again.stdout + again.stderr


# commands that only read


def without_numbers(text: str) -> str:
    text = re.sub(r"\d[\d.]* (?:ms|s|min|h|d)\b", "#", text)  # a duration's unit changes with time
    return re.sub(r"\d[\d.:TZ-]*|[0-9a-f]{8}-[0-9a-f-]{27}| +", "#", text)


@pytest.fixture
def busy(ws: Workspace) -> Workspace:
    """Entities and rows, archived events, a dead event with another behind it, and one that waits."""
    ws.mapping(mongodb={"retain": "archive"}, max_attempts=1, **SETTINGS)
    ws.create()
    assert ws.outbox_program("init", "--archive").returncode == 0
    fill(ws, [account(n) for n in range(3)])
    ws.put(ws.event("none", "AccountRenamed", 2, name="Eve"), ws.event("none", "AccountRenamed", 3, name="Eve"))
    ws.run_once()
    ws.put(ws.event("a1", "MoneyDeposited", 2, amount=decimal("1.00")))
    ws.query("UPDATE account SET name = 'Eve' WHERE account_id = 'a2'")
    return ws


@pytest.mark.parametrize("arguments", [
    ["check"], ["status"], ["list"], ["list", "--state", "held"], ["list", "--summary"], ["explain", "account", "a1"],
    ["explain", "account", "none"], ["schema", "--apply"], ["wait", "account", "a1", "1"], ["reconcile"], ["events"],
    ["archive", "verify"],
])
def test_an_answer_is_complete_or_the_command_says_why_not(busy, refusing, arguments):
    busy.mapping(max_attempts=1, **SETTINGS, **refusing.settings(retain="archive"))
    undisturbed = busy.projector(*arguments)
    assert undisturbed.returncode in (0, 1), undisturbed.stderr
    sweep(refusing, lambda: busy.projector(*arguments), beginning=arguments == ["check"],
          good=lambda done: (done.returncode, without_numbers(done.stdout))
          == (undisturbed.returncode, without_numbers(undisturbed.stdout)))


@pytest.mark.parametrize("arguments", [["status"], ["list"], ["explain", "account", "a1"], ["wait", "account", "a1", "1"],
                                       ["reconcile"]])
def test_an_answer_without_a_privilege_is_complete_or_the_command_says_why_not(busy, refusing, arguments):
    busy.mapping(max_attempts=1, **SETTINGS, **refusing.settings(retain="archive"))
    undisturbed = busy.projector(*arguments)
    sweep(refusing, lambda: busy.projector(*arguments), codes=FORBIDDEN,
          good=lambda done: (done.returncode, without_numbers(done.stdout))
          == (undisturbed.returncode, without_numbers(undisturbed.stdout)))


# commands that repair rows


def spoil(bank: Workspace) -> None:
    bank.query("UPDATE account SET name = 'Eve' WHERE account_id = 'a1'")
    bank.query("DELETE FROM account WHERE account_id = 'a2'")
    bank.query("INSERT IGNORE INTO account SELECT 'x', user_id, name, balance, opened_at, updated_at FROM account LIMIT 1")


def entities_as_rows(bank: Workspace) -> bool:
    return ({a["_id"]: (a["name"], a["balance"].to_decimal()) for a in bank.accounts.find()}
            == {row["account_id"]: (row["name"], row["balance"]) for row in bank.rows("account")})


@pytest.mark.parametrize("arguments", [["rebuild"], ["rebuild", "--shadow", "--drop-old"], ["reconcile", "--repair"],
                                       ["refresh", "account", "a1"]])
def test_rows_are_mended_or_the_command_says_that_they_are_not(bank, refusing, arguments):
    bank.mapping(**SETTINGS)
    fill(bank, [account(n) for n in range(4)])
    if arguments[0] == "rebuild":  # an entity that contains an event still to be applied
        bank.accounts.update_one({"_id": "a3"}, {"$set": {"version": Int64(2), "balance": decimal("11.50")}})
        bank.put(bank.event("a3", "MoneyDeposited", 2, amount=decimal("1.00")))
    bank.mapping(**SETTINGS, **refusing.settings())

    def prepare() -> None:
        if arguments[0] == "refresh":
            bank.query("UPDATE account SET name = 'Eve' WHERE account_id = 'a1'")
        else:
            spoil(bank)
    sweep(refusing, lambda: bank.projector(*arguments), lambda done: done.returncode == 0 and entities_as_rows(bank), prepare)


@pytest.mark.slow
def test_a_rename_that_mysql_refuses_is_told_by_its_reason(bank, refusing):
    bank.mapping(**SETTINGS)
    fill(bank, [account(1)])
    bank.mapping(**SETTINGS, **refusing.settings())
    refusing.begin("mysql", "RENAME TABLE `account` TO `account__old`, `account__new` TO `account`", UNKNOWN)
    done = bank.projector("rebuild", "--shadow")
    assert refusing.fired and done.returncode == 3 and REFUSED in done.stderr, done.stderr
    assert entities_as_rows(bank)


@pytest.mark.parametrize("arguments", [["rebuild"], ["rebuild", "--shadow", "--drop-old"], ["reconcile", "--repair"]])
def test_child_rows_are_mended_or_the_command_says_that_they_are_not(ws, refusing, arguments):
    ws.mapping([ORDERS], **SETTINGS)
    ws.create()
    place(ws, order(1, "apple 2", "pear 3", tags=["new"]), order(2, "plum 1"))
    right = lines(ws)
    ws.mapping([ORDERS], **SETTINGS, **refusing.settings())

    def prepare() -> None:
        ws.query("UPDATE order_line SET qty = qty + 100 WHERE order_id = 'o1' AND qty < 100")
        ws.query("DELETE FROM order_line WHERE order_id = 'o2'")
        ws.query("INSERT IGNORE INTO order_line VALUES ('o9', 1, 'nothing', 1)")
    sweep(refusing, lambda: ws.projector(*arguments), lambda done: done.returncode == 0 and lines(ws) == right, prepare)


def softly(projection: dict) -> dict:
    """Rows stay, marked, when their entity is deleted."""
    closed = {"closed_at": {"from": "closed_at", "type": "datetime(3)", "null": True}}
    marks = {"AccountClosed": {"op": "delete", "set": {"closed_at": "$occurred_at"}}}
    return projection | {"columns": projection["columns"] | closed, "events": projection["events"] | marks}


@pytest.mark.parametrize("arguments", [["rebuild"], ["rebuild", "--shadow", "--drop-old"], ["reconcile", "--repair"]])
def test_marked_rows_stay_marked_or_the_command_says_that_they_do_not(ws, refusing, arguments):
    [projection] = bank_projections()
    ws.mapping([softly(projection)], **SETTINGS)
    ws.create()
    fill(ws, [account(n) for n in range(3)])
    ws.accounts.delete_one({"_id": "a0"})
    ws.put(ws.event("a0", "AccountClosed", 2))
    ws.run_once()
    ws.accounts.delete_one({"_id": "a2"})
    if arguments[0] == "rebuild":
        ws.put(ws.event("a2", "AccountClosed", 2))
    ws.mapping([softly(projection)], **SETTINGS, **refusing.settings())

    def good(done: Done) -> bool:
        rows = {row["account_id"]: (row["name"], row["closed_at"] is None) for row in ws.rows("account")}
        return done.returncode == 0 and rows["a1"] == ("Ada 1", True) and not rows["a0"][1]
    sweep(refusing, lambda: ws.projector(*arguments), good,
          lambda: ws.query("UPDATE account SET name = 'Eve' WHERE account_id = 'a1'"))


@pytest.mark.parametrize("arguments", [[], ["--aggregate", "account", "a1"]])
def test_a_replay_fills_the_table_or_says_that_it_did_not(busy, refusing, arguments):
    right = busy.rows("account")
    busy.mapping(max_attempts=1, **SETTINGS, **refusing.settings(retain="archive"))
    right = [row | {"name": f"Ada {row['account_id'][1]}"} for row in right]
    more = arguments or ["--drop-old"]
    sweep(refusing, lambda: busy.projector("replay", "--projection", "account", *more),
          lambda done: done.returncode == 0 and (bool(arguments) or busy.rows("account") == right),
          lambda: busy.query("UPDATE account SET name = 'Eve' WHERE account_id IN ('a1', 'a2')"))


# commands on events


@pytest.mark.parametrize("command", ["retry", "skip"])
def test_a_dead_event_is_freed_or_the_command_says_that_it_is_not(bank, refusing, command):
    bank.mapping(max_attempts=1, **SETTINGS)
    dead = bank.event("none", "AccountRenamed", 2, name="Eve")
    bank.put(dead)
    bank.run_once()
    stays = bank.found(dead)
    bank.mapping(max_attempts=1, **SETTINGS, **refusing.settings())

    def prepare() -> None:
        bank.outbox.replace_one({"_id": stays["_id"]}, stays, upsert=True)
        bank.query("DELETE FROM projector_applied")
    sweep(refusing, lambda: bank.projector(command, str(dead["_id"])), prepare=prepare,
          good=lambda done: done.returncode == 0 and (bank.found(dead) or {}).get("status") != "dead")


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_a_pause_begins_and_ends_or_the_command_says_that_it_did_not(bank, refusing, command):
    bank.mapping(**SETTINGS, **refusing.settings())
    other = "pause" if command == "resume" else "resume"
    sweep(refusing, lambda: bank.projector(command), lambda done: done.returncode == 0, lambda: bank.projector(other))


@pytest.mark.parametrize("codes", [UNKNOWN, CUT], ids=["refused", "cut"])
def test_run_once_applies_all_or_says_why_not(bank, refusing, codes):
    bank.mapping(**SETTINGS, **refusing.settings())

    def prepare() -> None:
        bank.outbox.delete_many({})
        for table in ("account", "projector_applied", "projector_position"):
            bank.query(f"DELETE FROM {table}")
        bank.put(bank.event("a1", "AccountOpened", 1, user_id="u1", name="Ada", balance=decimal("1.00")),
                 bank.event("a1", "MoneyDeposited", 2, amount=decimal("1.00")))

    def applied(done: Done) -> bool:
        return done.returncode == 0 and [row["balance"] for row in bank.rows("account")] == [decimal("2.00").to_decimal()]

    def retried(done: Done) -> bool:
        """A cut connection may be the fault of an event that is alone: --once tells it, and leaves its retry to the next run."""
        return codes is CUT and "event failed" in done.stderr
    sweep(refusing, lambda: bank.projector("run", "--once"), lambda done: applied(done) or retried(done), prepare, True, codes)
    assert [row["balance"] for row in bank.rows("account")] == [decimal("2.00").to_decimal()]


def test_run_once_archives_and_copies_all_or_says_why_not(bank, refusing):
    """If an event's feed or archive refuses something, the next run does it, and nothing twice."""
    kept = {"retain": "archive", "feeds": ["outbox_search"]}
    for option in (["--archive"], ["--feed", "outbox_search"]):
        bank.outbox_program("init", *option, check=True)
    bank.mapping(**SETTINGS, **refusing.settings(**kept))

    def prepare() -> None:
        for collection in ("outbox", "outbox_archive", "outbox_search", "projector_claims"):
            bank.db[collection].delete_many({})
        for table in ("account", "projector_applied", "projector_position"):
            bank.query(f"DELETE FROM {table}")
        bank.put(bank.event("a1", "AccountOpened", 1, user_id="u1", name="Ada", balance=decimal("1.00")),
                 bank.event("a1", "MoneyDeposited", 2, amount=decimal("1.00")))

    def kept_all(done: Done) -> bool:
        return (done.returncode == 0 and [row["balance"] for row in bank.rows("account")] == [decimal("2.00").to_decimal()]
                and [bank.db[name].count_documents({}) for name in ("outbox", "outbox_archive", "outbox_search")] == [0, 2, 2])

    def kept_or_kept_next(done: Done) -> bool:
        """An event that is copied alone may be refused alone: it is reported, and left to the next run."""
        return kept_all(done) or (REFUSED in done.stderr and kept_all(bank.projector("run", "--once")))
    sweep(refusing, lambda: bank.projector("run", "--once"), kept_or_kept_next, prepare)


@pytest.mark.slow
def test_an_event_that_fails_is_marked_or_the_log_says_why_not(bank, refusing):
    bank.mapping(**SETTINGS | {"backoff_ms": 300000}, **refusing.settings())
    bad = bank.event("none", "AccountRenamed", 2, name="Eve")

    def prepare() -> None:
        bank.outbox.delete_many({})
        bank.put(bad)
    sweep(refusing, lambda: bank.projector("run", "--once"), prepare=prepare,
          good=lambda done: done.returncode == 0
          and (bank.found(bad).get("status") == "failed" or REFUSED in done.stderr))


# the program outbox


@pytest.mark.parametrize("arguments", [["--archive", "--feed", "search"], ["--commands-ttl", "3d"], ["--commands-ttl", "never"]])
def test_an_outbox_is_set_up_or_init_says_why_not(ws, refusing, arguments):
    def prepare() -> None:
        ws.mongo.drop_database(ws.name)
        if "--archive" not in arguments:
            ws.outbox_program("init", check=True)
    sweep(refusing, lambda: ws.outbox_program("init", "--uri", refusing.mongodb_uri(), *arguments),
          lambda done: (done.returncode, done.stderr) == (0, ""), prepare)


@pytest.mark.parametrize("codes", [UNKNOWN, CUT], ids=["refused", "cut"])
def test_an_entity_and_its_event_are_written_or_put_says_that_they_are_not(ws, refusing, codes):
    changes = [{"insert": {"name": "Ada"}}, {"update": {"$set": {"name": "Eve"}}}, {"replace": {"name": "Bob"}},
               {"delete": True}, {"insert": {"name": "Ada"}}]
    lines = "\n".join(json.dumps({"aggregate_type": "thing", "aggregate_id": "t1", "event_type": "ThingHappened",
                                  "payload": {"number": n}, "entity": change}) for n, change in enumerate(changes))

    def prepare() -> None:
        for collection in ("outbox", "outbox_deleted", "outbox_commands", "things"):
            ws.db[collection].delete_many({})
    ws.outbox_program("init", check=True)

    def consistent(done: Done) -> bool:
        """Everything reported as written is stored, without a gap, and
        the entity is at the version of the last event."""
        stored = [event["payload"]["number"] for event in ws.outbox.find().sort("version", 1)]
        entity, tombstone = ws.db.things.find_one(), ws.db.outbox_deleted.find_one()
        version = (entity or tombstone or {"version": 0})["version"]
        return stored == list(range(len(stored))) and len(stored) == version >= len(done.stdout.split())

    def good(done: Done) -> bool:
        return done.returncode == 0 and consistent(done) and ws.outbox.count_documents({}) == len(changes)

    def run() -> Done:
        done = ws.outbox_program("put", "--uri", refusing.mongodb_uri(), "--entities", "things", input=lines)
        assert consistent(done), (done.stdout, done.stderr, list(ws.outbox.find()), list(ws.db.things.find()))
        return done
    sweep(refusing, run, good, prepare, codes=codes)
