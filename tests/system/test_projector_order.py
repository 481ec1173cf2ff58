"""Order: reverse arrival, late events, refreshes and gaps, in real stores."""

from __future__ import annotations

import re
import uuid
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from bson import ObjectId

from bank import FAST
from endpoint import Endpoint
from workspace import WAIT_S, bank_projections, decimal

NOON = datetime(2026, 3, 1, 12)


def at(ms: int) -> datetime:
    return NOON + timedelta(milliseconds=ms)


def opened(ws, account="a1", name="Ada", balance="100.00", **more) -> dict:
    return ws.event(account, "AccountOpened", user_id="u1", name=name, balance=decimal(balance),
                    **{"at": at(0), **more})


def renamed(ws, name, ms, account="a1", **more) -> dict:
    return ws.event(account, "AccountRenamed", at=at(ms), name=name, **more)


def deposited(ws, amount, ms, account="a1", **more) -> dict:
    return ws.event(account, "MoneyDeposited", at=at(ms), amount=decimal(amount), **more)


def row(ws, account="a1") -> dict | None:
    rows = ws.query("SELECT * FROM account WHERE account_id = %s", account)
    return rows[0] if rows else None


def position(ws) -> tuple:
    [row] = ws.query("SELECT * FROM projector_position")
    return row["occurred_at"], row["version"], row["event_id"].decode()


def key(event: dict) -> tuple:
    return event["occurred_at"], event.get("version"), str(event["_id"])


def without_entities() -> list[dict]:
    [account] = bank_projections()
    return [{k: v for k, v in account.items() if k != "entities"}]


def journal(ws, **settings) -> None:
    """A table with one row per event, numbered in the order of application, and how often each was applied."""
    ws.query("CREATE TABLE journal (event_id VARCHAR(64) PRIMARY KEY, times INT NOT NULL DEFAULT 1,"
             " n BIGINT NOT NULL AUTO_INCREMENT, KEY (n))")
    statement = "INSERT INTO journal (event_id) VALUES (:$event_id) ON DUPLICATE KEY UPDATE times = times + 1"
    ws.mapping([{"aggregate_type": "account", "table": "journal",
                 "key": {"event_id": {"from": "$event_id", "type": "varchar(64)"}},
                 "events": {"Noted": {"op": "sql", "statement": statement}}}], **FAST, **settings)
    ws.create()


def journalled(ws) -> list[str]:
    return [row["event_id"] for row in ws.query("SELECT * FROM journal ORDER BY n")]


# arrival in another order


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("batch", [1, 7, 500])
@pytest.mark.parametrize("versions", [False, True], ids=["by time", "by version"])
def test_reverse_arrival_is_applied_in_order(ws, batch, versions):
    journal(ws, batch=batch)
    events = [ws.event(a, "Noted", version=n + 1 if versions else None, at=at(n)) for n in range(12) for a in ("a1", "a2")]
    ws.put(reversed(events))
    ws.run_once()
    order = journalled(ws)
    for aggregate in ("a1", "a2"):
        mine = [str(e["_id"]) for e in events if e["aggregate_id"] == aggregate]
        assert [i for i in order if i in mine] == mine


def test_equal_times_are_ordered_by_version_then_by_id(ws):
    journal(ws)
    ids = ["A", "B", "a", "é", uuid.UUID(int=1), uuid.UUID(int=2**127), ObjectId(b"\0" * 12), ObjectId(b"\xff" * 12)]
    unversioned = [{**ws.event("a1", "Noted", at=at(0)), "_id": i} for i in ids]
    versioned = [{**ws.event("a1", "Noted", version=n + 1, at=at(0)), "_id": f"{9 - n}"} for n in range(3)]
    ws.put(reversed(unversioned + versioned))
    ws.run_once()
    assert journalled(ws) == [str(i) for i in ids] + ["9", "8", "7"]


def test_one_worker_keeps_the_order_across_aggregates(ws):
    journal(ws, workers=1, batch=10)
    events = [ws.event(f"a{n % 7}", "Noted", at=at(n)) for n in range(60)]
    ws.put(events[1::2], events[::2])
    ws.run_once()
    assert journalled(ws) == [str(e["_id"]) for e in events]


def test_late_versions_before_the_epoch_and_after_2038(ws):
    journal(ws, future_ms=253402300800000)
    events = [ws.event("a1", "Noted", at=t) for t in (datetime(1000, 1, 1), datetime(1969, 12, 31, 23, 59, 59, 999000),
                                                      datetime(2100, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999000))]
    ws.put(reversed(events))
    ws.run_once()
    assert journalled(ws) == [str(e["_id"]) for e in events]
    assert position(ws) == key(events[-1])


# late events


def test_a_late_delta_is_applied_and_the_position_stays(bank):
    last = deposited(bank, "10.00", 10)
    bank.put(opened(bank), last)
    bank.run_once()
    late = [deposited(bank, "1.00", 5), bank.event("a1", "MoneyWithdrawn", at=at(6), amount=decimal("0.25"))]
    bank.put(late)
    bank.run_once()
    assert row(bank)["balance"] == Decimal("110.75")
    assert {bank.ledger()[str(e["_id"])] for e in late} == {"applied"}
    assert position(bank) == key(last)


@pytest.mark.parametrize("event_type", ["AccountOpened", "AccountClosed"])
def test_a_late_row_or_delete_is_superseded(bank, event_type):
    bank.put(opened(bank), renamed(bank, "Ada L.", 10))
    bank.run_once()
    before = row(bank)
    late = opened(bank, name="Old", at=at(5)) if event_type == "AccountOpened" else bank.event("a1", "AccountClosed", at=at(5))
    bank.put(late)
    bank.run_once()
    assert row(bank) == before and before["name"] == "Ada L."
    assert bank.ledger()[str(late["_id"])] == "superseded"
    assert bank.found(late) is None


KEPT = {"aggregate_type": "account", "table": "kept", "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}},
        "columns": {"total": {"from": "total", "type": "decimal(10,2)"}},
        "events": {"AccountOpened": {"op": "upsert"}, "MoneyDeposited": {"op": "add", "columns": {"total": "amount"}}}}


def removing(op: str, entities: bool, *more: dict) -> list[dict]:
    """A table whose rows one event type removes or marks, and others. Each row of its child table is one of its own."""
    columns = {"total": {"from": "total", "type": "decimal(10,2)", "null": True}}
    if op == "mark":
        columns["closed_at"] = {"from": "closed_at", "type": "datetime(3)", "null": True}
    removed = {"AccountClosed": {"op": "delete", **({"set": {"closed_at": "$occurred_at"}} if op == "mark" else {})}}
    account = {**KEPT, "table": "account", "columns": columns, "events": {**KEPT["events"], **removed},
               "children": [{"table": "card", "from": "cards", "default": [], "key": {"card": {"from": "$item", "type": "int"}}}]}
    return [{**one, **({"entities": "accounts"} if entities else {})} for one in (account, *more)]


def begun(ws, account: str) -> dict:
    return ws.event(account, "AccountOpened", at=at(0), total=decimal("100.00"), cards=[1, 2])


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("entities", [True, False])
@pytest.mark.parametrize("op", ["delete", "mark"])
def test_a_late_delta_whose_row_a_newer_event_removed_is_superseded(ws, op, entities):
    """The others of its batch and of its aggregate go on; what it adds to another table is added."""
    ws.mapping(removing(op, entities), **FAST)
    ws.create()
    ws.put(begun(ws, "a1"), begun(ws, "a2"), ws.event("a1", "AccountClosed", at=at(10)))
    ws.run_once()
    before = [ws.rows(table) for table in ("account", "card")]
    late = [deposited(ws, "1.00", 5), deposited(ws, "2.00", 6)]
    ws.put(late, deposited(ws, "3.00", 20, "a2"), begun(ws, "a1") | {"_id": uuid.uuid4(), "occurred_at": at(30)})
    ws.run_once()
    assert {ws.ledger()[str(e["_id"])] for e in late} == {"superseded"}
    assert ws.outbox.count_documents({}) == 0
    assert {r["id"]: r["total"] for r in ws.rows("account")} == {"a1": Decimal("100.00"), "a2": Decimal("103.00")}
    assert before[0] != ws.rows("account")


@pytest.mark.parametrize("op", ["delete", "mark"])
def test_a_late_delta_is_added_to_the_tables_that_still_have_the_row(ws, op):
    ws.mapping(removing(op, False, KEPT), **FAST)
    ws.create()
    ws.put(begun(ws, "a1"), ws.event("a1", "AccountClosed", at=at(10)))
    ws.run_once()
    before = ws.rows("account")
    late = deposited(ws, "1.00", 5)
    ws.put(late)
    ws.run_once()
    assert ws.ledger()[str(late["_id"])] == "applied" and ws.found(late) is None
    assert ws.rows("account") == before
    assert [r["total"] for r in ws.rows("kept")] == [Decimal("101.00")]


def test_a_late_delta_without_a_row_takes_it_from_the_entity_if_there_is_one(ws):
    ws.mapping(removing("delete", True), **FAST)
    ws.create()
    ws.put(begun(ws, "a1"), ws.event("a1", "AccountClosed", at=at(10)))
    ws.run_once()
    ws.accounts.insert_one({"_id": "a1", "version": 7, "last_event_at": at(40), "total": decimal("7.00"), "cards": [3]})
    late = deposited(ws, "1.00", 5)
    ws.put(late)
    ws.run_once()
    assert ws.ledger()[str(late["_id"])] == "superseded"
    assert [(r["id"], r["total"]) for r in ws.rows("account")] == [("a1", Decimal("7.00"))]
    assert [r["card"] for r in ws.rows("card")] == [3]


NO_REMOVAL: dict = {"more": {}, "events": {}}
CONDITION = {"more": {"when": {"path": "amount", "exists": True}}, "events": {}}  # removes no row where nothing writes whole rows
ANOTHERS_REMOVAL = {"more": {}, "events": {"AccountClosed": {"op": "delete"}, "AccountOpened": {"op": "upsert"}}}


def transfers(ws, *, more: dict, events: dict, key: dict | None = None) -> None:
    """Rows whose key several transfers may name; another program makes them."""
    ws.mapping([{**KEPT, "aggregate_type": "transfer", "key": {"id": {"from": "to", "type": "varchar(36)"}, **(key or {})},
                 "events": {"MoneyDeposited": KEPT["events"]["MoneyDeposited"], **events}, **more}], **FAST)
    ws.create()


def transfer(ws, transfer_id: str, event_type: str, ms: int, to: str, **more) -> dict:
    return {**ws.event(transfer_id, event_type, at=at(ms), to=to, **more), "aggregate_type": "transfer"}


@pytest.mark.thorough(beyond=1)
@pytest.mark.parametrize("how", [NO_REMOVAL, CONDITION, ANOTHERS_REMOVAL], ids=["", "when", "delete"])
def test_a_late_delta_waits_for_a_row_that_another_aggregate_makes(ws, how):
    """Nothing tells whether a row that several may make and remove was there: it is not lost, and who waits for it is shown."""
    transfers(ws, **how)
    ws.query("INSERT INTO kept VALUES ('a1', 10)")
    newer, late = (transfer(ws, "t1", "MoneyDeposited", ms, to, amount=decimal("1.00")) for ms, to in ((10, "a1"), (5, "a2")))
    ws.put(newer)
    ws.run_once()
    ws.put(late)
    ws.run_once()
    assert ws.found(late)["last_error"]["message"] == "row missing in kept"
    ws.query("INSERT INTO kept VALUES ('a2', 10)")
    with ws.start_projector():
        ws.wait_gone(late)
    assert [r["total"] for r in ws.rows("kept")] == [Decimal("11.00"), Decimal("11.00")]


def test_a_late_delta_to_a_row_that_is_marked_waits_for_nothing_whoever_marked_it(ws):
    mark = {"closed_at": {"from": "closed_at", "type": "datetime(3)", "null": True}}
    transfers(ws, more={"columns": {**KEPT["columns"], **mark}},
              events={"AccountClosed": {"op": "delete", "set": {"closed_at": "$occurred_at"}}})
    ws.query("INSERT INTO kept VALUES ('a1', 10, NULL), ('a2', 10, NULL)")
    ws.put(transfer(ws, "t2", "AccountClosed", 7, "a2"), transfer(ws, "t1", "MoneyDeposited", 10, "a1", amount=decimal("1.00")))
    ws.run_once()
    late = transfer(ws, "t1", "MoneyDeposited", 5, "a2", amount=decimal("1.00"))
    ws.put(late)
    ws.run_once()
    assert ws.ledger()[str(late["_id"])] == "superseded" and ws.found(late) is None
    assert [r["total"] for r in ws.rows("kept")] == [Decimal("11.00"), Decimal("10.00")]


def test_a_late_delta_to_one_of_several_rows_of_its_aggregate_waits_for_none_that_was_removed(ws):
    """With the aggregate's id in the key, no other aggregate can make the row."""
    transfers(ws, **ANOTHERS_REMOVAL, key={"by": {"from": "$aggregate_id", "type": "varchar(36)"}})
    ws.put(transfer(ws, "t1", "AccountOpened", 1, "a1", total=decimal("10.00")), transfer(ws, "t1", "AccountOpened", 2, "a2", total=decimal("10.00")),
           transfer(ws, "t1", "AccountClosed", 10, "a2"))
    ws.run_once()
    late = [transfer(ws, "t1", "MoneyDeposited", 5, to, amount=decimal("1.00")) for to in ("a1", "a2")]
    ws.put(late)
    ws.run_once()
    assert [ws.ledger()[str(e["_id"])] for e in late] == ["applied", "superseded"]
    assert [(r["id"], r["total"]) for r in ws.rows("kept")] == [("a1", Decimal("11.00"))]


@pytest.mark.parametrize("late", [True, False])
def test_a_delta_that_is_the_events_own_fault_still_fails(ws, late):
    """A row that is there with NULL, and, of an event in order, one that is not there."""
    ws.mapping(removing("delete", False), **FAST)
    ws.create()
    ws.put(begun(ws, "a1"), ws.event("a1", "AccountClosed", at=at(10)) if not late else deposited(ws, "1.00", 10))
    ws.run_once()
    ws.query("UPDATE account SET total = NULL")
    wrong = deposited(ws, "1.00", 5 if late else 20)
    ws.put(wrong)
    ws.run_once()
    assert ws.found(wrong)["last_error"]["message"] == "row missing in account"


def entity(ws, version, name="Ada of the entity", balance="77.00", account="a1") -> None:
    ws.accounts.replace_one({"_id": account}, {"_id": account, "version": version, "last_event_at": at(1000), "user_id": "u9",
                                               "name": name, "balance": decimal(balance), "opened_at": at(0)}, upsert=True)


@pytest.mark.parametrize("event_type", ["AccountRenamed", "AccountFrozen"])
def test_a_late_update_or_sql_takes_the_row_from_the_entity(bank, event_type):
    bank.put(opened(bank, version=1), renamed(bank, "Ada L.", 10, version=3))
    bank.file = bank.mapping(gap_wait_ms=0)
    bank.run_once()
    entity(bank, version=4)
    late = bank.event("a1", event_type, version=2, at=at(5), name="Late")
    contained = deposited(bank, "1000.00", 20, version=4)  # the entity already contains it
    after = deposited(bank, "1.00", 30, version=5)
    bank.put(after, contained, late)
    bank.run_once()
    assert row(bank) == {"account_id": "a1", "user_id": "u9", "name": "Ada of the entity", "balance": Decimal("78.00"),
                         "opened_at": at(0), "updated_at": at(30)}
    ledger = bank.ledger()
    assert [ledger[str(e["_id"])] for e in (late, contained, after)] == ["superseded", "superseded", "applied"]


def test_a_refresh_that_may_contain_what_waits_without_a_version_says_so(bank):
    """Only versions tell what an entity contains."""
    bank.mapping(**FAST)
    bank.put(opened(bank), renamed(bank, "Ada B.", 20))
    bank.run_once()
    entity(bank, 4)
    bank.put(renamed(bank, "Ada A.", 10), deposited(bank, "1.00", 15), deposited(bank, "5.00", 30), renamed(bank, "Ada C.", 40))
    told = re.findall(r"events may count twice.*reason=.*contain (\d+) waiting events that have no version", bank.run_once().stderr)
    assert told == ["2"]


def test_a_refresh_that_meets_a_lock_does_not_keep_all_aggregates_waiting(bank):
    bank.mapping(**FAST, workers=2, gap_wait_ms=0, mysql={"lock_wait_s": 2})
    bank.put(opened(bank, version=1), renamed(bank, "Ada L.", 10, version=3))
    bank.run_once()
    entity(bank, version=4)
    late = renamed(bank, "Late", 5, version=2)

    def waits_for_row() -> bool:
        return any("INTO `account`" in (r["Info"] or "") or "INTO account" in (r["Info"] or "")
                   for r in bank.query("SHOW FULL PROCESSLIST") if r["db"] == bank.name)

    with bank.start_projector() as projector, bank.stores.mysql(bank.name) as lock, lock.cursor() as cursor:
        projector.wait_log("info working")
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM account WHERE account_id = 'a1' FOR UPDATE")
        bank.put(late)
        bank.wait(waits_for_row, what="the refresh to meet the lock")
        bank.put(opened(bank, f"b{i}") for i in range(8))
        bank.wait(lambda: bank.query("SELECT 1 FROM account WHERE account_id LIKE 'b%%' LIMIT 1"),
                  what="others beside the locked row")
        assert row(bank)["name"] == "Ada L."
        cursor.execute("COMMIT")
        bank.wait_drained()
    assert row(bank)["name"] == "Ada of the entity"
    assert len(bank.query("SELECT account_id FROM account")) == 9


@pytest.mark.whole_server  # failCommand
def test_a_refresh_that_meets_an_outage_is_not_its_events_failure(bank):
    bank.mapping(**FAST, gap_wait_ms=0)
    bank.put(opened(bank, version=1), renamed(bank, "Ada L.", 10, version=3))
    bank.run_once()
    entity(bank, version=4)
    late = renamed(bank, "Late", 5, version=2)
    away = {"failCommands": ["find"], "namespace": f"{bank.name}.accounts", "errorCode": 189, "appName": "projector"}
    with bank.start_projector() as projector:
        projector.wait_log("info working")
        bank.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": away})
        try:
            bank.put(late)
            projector.wait_log("class=unavailable source=mongodb")
            assert bank.found(late).get("attempts", 0) <= 1  # the one in progress
        finally:
            bank.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
        bank.wait_drained()
        assert "event failed" not in projector.log_text()
    assert row(bank)["name"] == "Ada of the entity"


@pytest.mark.thorough
def test_what_is_written_during_a_scan_keeps_its_order(bank):
    """The first of two sorts before what the scan has already read, the second after it. The scan has to wait for room:
    it has not read all when they are written."""
    bank.mapping(**FAST, workers=1, batch=1, memory_mb=16)
    blocked = opened(bank, "first", at=at(1))
    bank.put(blocked)
    bank.run_once()
    bank.put(deposited(bank, "1.00", 2, "first"), [opened(bank, f"n{n}", at=at(10 + n)) | {"ballast": "x" * 40000} for n in range(1000)])
    with bank.stores.mysql(bank.name) as lock, lock.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM account WHERE account_id = 'first' FOR UPDATE")
        with bank.start_projector():
            bank.wait(lambda: bank.outbox.find_one({"status": "in_progress"}), what="the scan to have begun")
            pair = opened(bank, "a1", name="One", at=at(0)), opened(bank, "a1", name="Two", at=at(700))  # in a later page
            for event in pair:
                bank.put(event)
            cursor.execute("COMMIT")
            bank.wait_drained(3 * WAIT_S)
    assert [bank.ledger()[str(e["_id"])] for e in pair] == ["applied", "applied"] and row(bank)["name"] == "Two"


@pytest.mark.parametrize("there", [True, False])
def test_a_late_row_that_nothing_newer_wrote_is_taken_from_the_entity(ws, there):
    """Two tables, each with a separate event type: the position is the aggregate's, the row is not."""
    key = {"k": {"from": "$aggregate_id", "type": "varchar(36)"}}
    ws.mapping([{"aggregate_type": "account", "table": table, "entities": "accounts", "key": key, "columns":
                 {"name": {"from": name, "type": "varchar(20)"}}, "events": {event: {"op": "upsert"}}}
                for table, name, event in (("one", "name", "Named"), ("two", "street", "Moved"))], **FAST)
    ws.create()
    ws.put(ws.event("a1", "Moved", street="Newer", at=at(10)))
    ws.run_once()
    if there:
        ws.accounts.insert_one({"_id": "a1", "version": 7, "last_event_at": at(10), "name": "Ada", "street": "Newer"})
    late = ws.event("a1", "Named", name="Ada", at=at(5))
    ws.put(late)
    ws.run_once()
    assert [r["name"] for r in ws.rows("one")] == (["Ada"] if there else [])
    assert [r["name"] for r in ws.rows("two")] == ["Newer"]
    assert ws.ledger()[str(late["_id"])] == "superseded" and ws.found(late) is None


@pytest.mark.parametrize("removed", ["dropped", "misspelt"])
def test_a_late_update_removes_no_row_because_the_collection_of_entities_is_missing(bank, removed):
    entity(bank, version=1)
    bank.put(opened(bank), renamed(bank, "Ada L.", 10))
    bank.run_once()
    before = row(bank)
    [account] = bank_projections()
    if removed == "dropped":
        bank.accounts.drop()
    bank.mapping([account | {"entities": "accounts" if removed == "dropped" else "acounts"}], **FAST)
    late = renamed(bank, "Late", 5)
    bank.put(late)
    bank.run_once()
    assert row(bank) == before
    reason = bank.found(late)["last_error"]
    assert reason["code"] == 26 and "counts does not exist" in reason["message"] and 'correct "entities"' in reason["message"], reason
    bank.mapping(**FAST)
    entity(bank, version=2)
    with bank.start_projector():
        bank.wait_gone(late)
    assert row(bank)["name"] == "Ada of the entity"


def test_a_late_update_of_an_entity_that_is_gone_removes_the_row(bank):
    entity(bank, version=1, account="another")
    bank.put(opened(bank, version=1), renamed(bank, "Ada L.", 10, version=2), renamed(bank, "Ada M.", 20, version=3))
    bank.run_once()
    late = renamed(bank, "Late", 5)
    bank.put(late)
    bank.run_once()
    assert row(bank) is None
    assert bank.ledger()[str(late["_id"])] == "superseded"


def test_a_late_update_without_entities_fails_and_says_why(ws):
    ws.mapping(without_entities(), **FAST)
    ws.create()
    ws.put(opened(ws), renamed(ws, "Ada L.", 10), opened(ws, "a2"))
    ws.run_once()
    late = renamed(ws, "Late", 5)
    ws.put(late, deposited(ws, "1.00", 20, "a2"))
    ws.run_once()
    error = ws.found(late)["last_error"]
    assert error["class"] == "data" and "late update" in error["message"] and "entities" in error["message"]
    assert row(ws)["name"] == "Ada L."
    assert row(ws, "a2")["balance"] == Decimal("101.00")


@pytest.mark.thorough
@pytest.mark.parametrize("entities", [True, False])
def test_events_sent_again_after_they_were_applied_change_nothing(ws, entities):
    """Even an update or a statement, which would be refreshed or fail as late if it were not in the ledger."""
    ws.mapping(bank_projections() if entities else without_entities(), **FAST)
    ws.create()
    events = [opened(ws), renamed(ws, "Ada L.", 10), ws.event("a1", "AccountFrozen", at=at(20)), deposited(ws, "1.00", 30),
              ws.event("a1", "StatementSent", at=at(40)), deposited(ws, "1.00", 50)]
    ws.put(events)
    ws.run_once()
    before, ledger = row(ws), ws.ledger()
    assert before["balance"] == Decimal("102.00") and before["name"] == "Ada L. (frozen)"
    for again in (events, events[1:2], events[2:3], events[3:4]):
        ws.put(again)
        ws.run_once()
        assert list(ws.outbox.find()) == []
    assert row(ws) == before
    assert ws.ledger() == ledger and len(ledger) == len(events)


# gaps


def test_a_gap_is_waited_for_and_filled(bank):
    bank.mapping(**FAST, gap_wait_ms=120000)
    first, second, third = opened(bank, version=1), renamed(bank, "Ada L.", 10, version=2), deposited(bank, "1.00", 20, version=3)
    other = opened(bank, "a2", version=1)
    with bank.start_projector() as projector:
        bank.put(third, second, other)
        bank.wait_gone(other)
        assert bank.outbox.count_documents({}) == 2 and row(bank) is None
        bank.put(first)
        bank.wait_drained()  # long before gap_wait_ms
        assert (row(bank)["name"], row(bank)["balance"]) == ("Ada L.", Decimal("101.00"))
        assert set(bank.ledger().values()) == {"applied"}
        assert "versions missing" not in projector.log_text()


def test_gaps_fill_one_by_one_in_any_order(bank):
    bank.mapping(**FAST, gap_wait_ms=120000)
    events = [opened(bank, version=1)] + [renamed(bank, f"Ada {n}", 10 * n, version=n) for n in range(2, 9)]
    with bank.start_projector():
        for n in (7, 5, 3, 2, 1, 6, 8, 4):
            bank.put(events[n - 1])
        bank.wait_drained()
    assert row(bank)["name"] == "Ada 8"
    assert position(bank) == key(events[-1])


def test_a_gap_that_never_fills_is_named_and_passed(bank):
    bank.mapping(**FAST, gap_wait_ms=300)
    bank.put(opened(bank, version=1), deposited(bank, "1.00", 40, version=5), deposited(bank, "2.00", 50, version=6))
    log = bank.run_once().stderr
    assert row(bank)["balance"] == Decimal("103.00")
    line = next(line for line in log.splitlines() if "versions missing" in line)
    assert "first_version=2" in line and "last_version=4" in line and '"account a1"' in line


def test_a_gap_that_cannot_be_noted_is_named_and_passed_all_the_same(bank):
    bank.mapping(**FAST, gap_wait_ms=300)
    bank.put(opened(bank, version=1))
    bank.run_once()  # which makes the collection
    bank.db.command("collMod", "projector_leases", validator={"missing": {"$exists": False}})
    with bank.start_projector() as projector:
        bank.put(deposited(bank, "1.00", 40, version=3))
        projector.wait_log("cannot record the missing versions .*121")
        projector.wait_log("versions missing, continuing without them .*first_version=2 last_version=2")
        bank.wait_drained()
    assert row(bank)["balance"] == Decimal("101.00")


@pytest.mark.whole_server
def test_a_gap_that_falls_due_while_mongodb_does_not_answer_is_looked_into_before_it_is_passed(bank):
    bank.mapping(**FAST, gap_wait_ms=10000, http="127.0.0.1:0")
    bank.put(opened(bank, version=1))
    with bank.start_projector() as projector:
        bank.wait_drained()
        bank.put(deposited(bank, "1.00", 40, version=3))
        bank.wait(lambda: Endpoint(projector).metrics()["projector_held_aggregates"] == 1, what="the gap")
        bank.mongo.admin.command("configureFailPoint", "failCommand", mode="alwaysOn",
                                 data={"failCommands": ["find"], "errorCode": 50, "appName": "projector", "namespace": f"{bank.name}.outbox"})
        try:
            projector.wait_log("cannot look for missing versions")
        finally:
            bank.mongo.admin.command("configureFailPoint", "failCommand", mode="off")
        bank.wait_drained()
        projector.wait_log("versions missing, continuing without them .*first_version=2 last_version=2")


def test_a_missing_event_that_comes_after_the_wait_is_late(bank):
    bank.mapping(**FAST, gap_wait_ms=50)
    third = renamed(bank, "Ada L.", 20, version=3)
    bank.put(opened(bank, version=1), third)
    bank.run_once()
    second = deposited(bank, "5.00", 10, version=2)
    bank.put(second)
    bank.run_once()
    assert (row(bank)["name"], row(bank)["balance"]) == ("Ada L.", Decimal("105.00"))
    assert position(bank) == key(third)


def test_no_wait_for_gaps_when_it_is_zero(bank):
    bank.mapping(**FAST, gap_wait_ms=0)
    bank.put(opened(bank, version=1), [deposited(bank, "1.00", 10 * n, version=2 * n) for n in range(1, 5)])
    bank.run_once()
    assert row(bank)["balance"] == Decimal("104.00")
    assert bank.outbox.find_one() is None
