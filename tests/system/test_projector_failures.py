"""Failures of events and of stores: what waits, what flows, what heals."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest

from bank import FAST, deposited, impossible, opened
from workspace import WAIT_S, bank_projections, decimal

SHORT_LEASE = {**FAST, "lease_ms": 1000}  # only where a projector is killed: a busy machine may lose so short a lease
SLOW = {**FAST, "backoff_ms": 300000}  # failed events stay failed during the test


def balance(ws, account="a1") -> Decimal | None:
    rows = ws.query("SELECT balance FROM account WHERE account_id = %s", account)
    return rows[0]["balance"] if rows else None


def now() -> datetime:
    """At MongoDB's precision."""
    time = datetime.now(timezone.utc).replace(tzinfo=None)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


# one event fails


def test_a_failed_event_says_why_and_when_it_is_tried_again(bank):
    bank.mapping(**{**FAST, "backoff_ms": 200000})
    first, bad = opened(bank), deposited(bank, amount="1.001")
    bank.put(first, bad)
    bank.run_once()
    stored = bank.found(bad)
    assert stored["status"] == "failed" and stored["attempts"] >= 1  # the jitter may draw a short wait
    assert not {"claimed_by", "claimed_at"} & stored.keys()
    error = stored["last_error"]
    assert set(error) == {"class", "code", "message", "at"}
    assert error["class"] == "data" and error["code"] == 0
    assert error["message"] == ("account: payload.amount: expected decimal(18,2), found Decimal128 1.001, "
                                "which has more than 2 digits behind the point")
    assert abs(error["at"] - now()) < timedelta(seconds=30)
    longest_ms = min(200000 * 2 ** (stored["attempts"] - 1), 300000)
    assert error["at"] < stored["next_attempt_at"] <= error["at"] + timedelta(milliseconds=longest_ms)
    assert balance(bank) == Decimal("100.00")
    assert str(bad["_id"]) not in bank.ledger()


def test_an_error_of_mysql_has_its_code(bank):
    bank.mapping(**SLOW)
    bad = deposited(bank, amount="1.00")
    bank.put(opened(bank, balance="9999999999999999.99"))
    bank.run_once()
    bank.put(bad)
    bank.run_once()
    error = bank.found(bad)["last_error"]
    assert (error["class"], error["code"]) == ("data", 1264)
    assert balance(bank) == Decimal("9999999999999999.99")


def test_an_aggregate_waits_behind_its_failed_event_and_others_flow(bank):
    bank.mapping(**SLOW)
    first, bad, waiting = opened(bank), impossible(bank), [deposited(bank) for _ in range(5)]
    with bank.start_projector() as first_projector:
        bank.put(first, bad, waiting[:2])
        bank.wait_status(bad, "failed")
        bank.put(waiting[2:], opened(bank, "a2"), deposited(bank, "a2"))
        bank.wait(lambda: balance(bank, "a2") == Decimal("101.00"), what="the other aggregate")
        assert {bank.found(e).get("status", "pending") for e in waiting} == {"pending"}
        assert {bank.found(e).get("attempts", 0) for e in waiting} == {0}
        assert first_projector.stop() == 0
    with bank.start_projector() as projector:  # the hold outlives the process
        late_and_good = opened(bank, "a3")
        bank.put(deposited(bank), late_and_good)
        bank.wait_gone(late_and_good)
        assert balance(bank) == Decimal("100.00")
        assert bank.outbox.count_documents({"aggregate_id": "a1"}) == 7
        assert projector.stop() == 0


def test_an_event_that_cannot_be_mapped_waits_behind_one_that_mysql_refuses(bank):
    """Although another one of the batch cannot be mapped for the same reason, and is marked first."""
    bank.mapping(**SLOW, workers=1)
    bad, refused, behind = deposited(bank, "a2", "1.001"), deposited(bank, "a1"), deposited(bank, "a1", "1.001")
    bank.put(bad, refused, behind)
    bank.run_once()
    assert [bank.found(event).get("status") for event in (bad, refused)] == ["failed", "failed"]
    assert bank.found(behind) == behind


def test_a_culprit_in_a_full_batch_leaves_the_others_applied(bank):
    bank.mapping(**SLOW, batch=500, workers=1)
    bank.put(opened(bank, f"a{n}", balance="0.00") for n in range(50))
    bank.run_once()
    events = [deposited(bank, f"a{n % 50}") for n in range(500)]
    events[250]["aggregate_id"] = "nobody"  # only MySQL finds out: no such row
    events[251].update(aggregate_id="full", event_type="AccountOpened",
                       payload={"user_id": "u", "name": "n", "balance": decimal("9999999999999999.99")})
    events[252]["aggregate_id"] = "full"
    bank.put(events)
    bank.run_once()
    left = list(bank.outbox.find().sort("occurred_at"))
    assert [e["_id"] for e in left] == [events[250]["_id"], events[252]["_id"]]
    assert [e["last_error"]["message"] for e in left][0] == "row missing in account"
    total = bank.query("SELECT SUM(balance) AS s FROM account WHERE account_id <> 'full'")[0]["s"]
    assert total == Decimal("497.00")
    assert len(bank.ledger()) == 50 + 498


def test_the_last_attempt_is_dead_and_keeps_its_aggregate_blocked(bank):
    bank.mapping(**FAST, max_attempts=3)
    first, bad = opened(bank), bank.event("a1", "MoneyDeposited", amount=True)
    with bank.start_projector() as projector:
        bank.put(first, bad, deposited(bank))
        dead = bank.wait_status(bad, "dead")
        assert dead["attempts"] == 3 and "next_attempt_at" not in dead
        assert dead["last_error"]["message"].endswith("found bool true")
        projector.wait_log(r"error event dead .*attempt=3")
        other = opened(bank, "a2")
        bank.put(other)
        bank.wait_gone(other)
    assert balance(bank) == Decimal("100.00")


@pytest.mark.parametrize("permanent, status", [("dead", "dead"), ("retry", "failed")])
def test_permanent_errors_die_at_once_when_the_mapping_says_so(bank, permanent, status):
    bank.mapping(**SLOW, permanent=permanent)
    first, bad = opened(bank), deposited(bank, amount="1.001")
    bank.put(first, bad)
    bank.run_once()
    stored = bank.found(bad)
    assert stored["status"] == status and (stored["attempts"] == 1 or status == "failed")  # jitter may be short


def test_a_missing_row_is_no_permanent_error(bank):
    """An earlier event may still create it."""
    bank.mapping(**SLOW, permanent="dead")
    early, late = opened(bank), deposited(bank)
    with bank.start_projector():
        bank.put(late)
        bank.wait_status(late, "failed")
        bank.put(early)
        bank.wait_drained()
    assert balance(bank) == Decimal("101.00")


@pytest.mark.thorough(beyond=1)
@pytest.mark.parametrize("event_type, payload", [("AccountRenamed", {"name": "x"}), ("MoneyDeposited", {"amount": decimal("1")}),
                                                 ("MoneyWithdrawn", {"amount": decimal("1")}), ("AccountFrozen", {})])
def test_what_needs_a_row_fails_without_one_and_works_once_it_is_there(bank, event_type, payload):
    bank.mapping(**FAST, max_attempts=1000)
    event = bank.event("a1", event_type, **payload)
    with bank.start_projector():
        bank.put(event)
        assert bank.wait_status(event, "failed")["last_error"]["message"] == "row missing in account"
        bank.put(opened(bank, at=event["occurred_at"] - timedelta(seconds=1)))  # applied at once, wakes the retry
        bank.wait_drained()
    assert set(bank.ledger().values()) == {"applied"}


def test_an_earlier_event_is_applied_at_once_and_wakes_the_failed_one(bank):
    bank.mapping(**SLOW)
    early = opened(bank)
    late = deposited(bank)
    with bank.start_projector():
        bank.put(late)
        bank.wait_status(late, "failed")
        bank.put(early)
        bank.wait_drained()
    assert balance(bank) == Decimal("101.00")


def test_too_many_blocked_aggregates_are_an_alarm_and_others_go_on(bank):
    """In whichever lanes they are: the limit applies to all workers together."""
    bank.mapping(**SLOW, max_blocked=4, workers=2)
    with bank.start_projector() as projector:
        bank.put(impossible(bank, f"b{n}") for n in range(3))
        bank.wait(lambda: bank.outbox.count_documents({"status": "failed"}) == 3, what="three failed events")
        fresh = [opened(bank, f"a{n}") for n in range(10)]
        bank.put(fresh)
        bank.wait_gone(*fresh)
        assert "too many aggregates" not in projector.log_text()
        bank.put(impossible(bank, "b3"))
        projector.wait_log("too many aggregates are blocked by failed events.*blocked_aggregates=4 max_blocked=4")
        fresh = [opened(bank, f"c{n}") for n in range(10)]
        bank.put(fresh)
        bank.wait_gone(*fresh)


def test_a_poison_event_is_logged_once_in_a_while(bank):
    bank.mapping(**FAST, max_attempts=1000)
    bad = impossible(bank, "a1")
    with bank.start_projector() as projector:
        bank.put(bad)
        bank.wait(lambda: bank.found(bad).get("attempts", 0) >= 6, what="six attempts")
        assert projector.log_text().count("event failed") <= 2


def test_the_time_in_a_failed_event_is_as_far_away_as_backoff_ms_says(bank):
    bank.mapping(**SLOW)
    bank.put(bad := [opened(bank, f"a{n}", balance="1e30") for n in range(10)])
    bank.run_once()
    waits = [stored["next_attempt_at"] - stored["last_error"]["at"] for stored in map(bank.found, bad)]
    assert timedelta(seconds=1) < max(waits) <= timedelta(seconds=300)  # each may be short


def test_a_failed_event_keeps_its_time_over_a_restart_and_a_retry_does_not_wait(bank):
    """A projector that keeps restarting does not use up its attempts."""
    bank.mapping(**SLOW)
    bad = opened(bank, balance="1e30")
    bank.put(bad)
    bank.run_once()
    due = bank.wait_status(bad, "failed")["last_error"]["at"] + timedelta(seconds=280)  # jitter may be short
    bank.outbox.update_one({"_id": bad["_id"]}, {"$set": {"payload.balance": decimal("100"), "next_attempt_at": due}})
    with bank.start_projector():
        other = opened(bank, "a2")
        bank.put(other)
        bank.wait_gone(other)
        waits = bank.found(bad)
        assert (waits["status"], waits["attempts"], waits["next_attempt_at"]) == ("failed", 1, due)
        assert bank.projector("retry", str(bad["_id"])).returncode == 0
        bank.wait_gone(bad)


@pytest.mark.parametrize("version", [11, 57])
def test_aggregates_that_begin_in_the_middle_are_no_gaps(bank, version):
    """The read model is younger than its aggregates: nobody waits for events of long ago."""
    bank.mapping(**SLOW, gap_wait_ms=600000, max_blocked=10)
    bank.put(opened(bank, f"a{n}", version=version) for n in range(300))
    with bank.start_projector() as projector:
        bank.wait_drained()
        assert "too many" not in projector.log_text() and "versions missing" not in projector.log_text()


def test_first_events_wait_for_those_before_them_however_old_they_are_when_a_scan_finds_them(bank):
    bank.mapping(**FAST, gap_wait_ms=120000)
    long_ago = now() - timedelta(hours=1)
    second = deposited(bank, at=long_ago + timedelta(seconds=1), version=2)
    other = opened(bank, "a2", version=1)
    bank.put(second, other)
    with bank.start_projector():
        bank.wait_gone(other)
        assert bank.found(second) is not None
        bank.put(opened(bank, version=1, at=long_ago))
        bank.wait_drained()
    assert balance(bank) == Decimal("101.00") and set(bank.ledger().values()) == {"applied"}


@pytest.mark.thorough
def test_a_flood_of_first_events_with_a_version_above_1_is_applied_after_one_wait(bank):
    """The entities are older than their outbox: their first events arrive through a change stream."""
    bank.mapping(**FAST, gap_wait_ms=200)
    with bank.start_projector() as projector:
        bank.put(opened(bank, "first", version=1))
        bank.wait_drained()
        bank.put(opened(bank, f"a{n}", version=3) for n in range(500))
        bank.wait_drained(60)
        assert "versions missing" in projector.log_text() and "too many" not in projector.log_text()


def test_many_events_of_one_millisecond_behind_a_hold_follow(bank):
    """More than one page of them, ordered by id. No sweep would find what the hold forgot."""
    bank.mapping(**{**SLOW, "sweep_interval_ms": 600000})
    moment = datetime(2024, 5, 1)
    opening = opened(bank, at=datetime(2024, 4, 30), balance="1e30")
    bank.put(opening, [deposited(bank, at=moment) for _ in range(700)])
    with bank.start_projector():
        bank.wait_status(opening, "failed")
        bank.outbox.update_one({"_id": opening["_id"]}, {"$set": {"payload.balance": decimal("100")}})
        assert bank.projector("retry", str(opening["_id"])).returncode == 0
        bank.wait_drained()
    assert balance(bank) == Decimal("800.00")


def test_a_delete_that_meets_no_row_is_fine(bank):
    bank.put(bank.event("a1", "AccountClosed"))
    bank.run_once()
    assert list(bank.ledger().values()) == ["applied"]


def test_an_update_that_changes_nothing_is_no_missing_row(bank):
    bank.put(opened(bank), [bank.event("a1", "AccountRenamed", name="Ada") for _ in range(3)], deposited(bank, amount="0.00"))
    bank.run_once()
    bank.put(bank.event("a1", "AccountRenamed", name="Ada"), deposited(bank, amount="0"))
    bank.run_once()
    assert set(bank.ledger().values()) == {"applied"} and len(bank.ledger()) == 7


def test_unknown_event_types_fail_or_are_ignored(bank):
    bank.mapping(**SLOW)
    unknown, stranger = bank.event("a1", "AccountPainted"), {**bank.event("a1", "AccountOpened"), "aggregate_type": "boat"}
    bank.put(opened(bank), unknown, stranger)
    bank.run_once()
    assert "expected one that a projection of account names, found AccountPainted" in bank.found(unknown)["last_error"]["message"]
    assert "aggregate_type: expected one that a projection takes, found boat" == bank.found(stranger)["last_error"]["message"]
    bank.mapping(**FAST, unknown_events="ignore")
    bank.outbox.update_many({}, {"$set": {"status": "pending"}})
    bank.put(deposited(bank))
    bank.run_once()
    assert bank.outbox.find_one() is None
    assert [bank.ledger()[str(e["_id"])] for e in (unknown, stranger)] == ["ignored", "ignored"]
    assert balance(bank) == Decimal("101.00")


MALFORMED = [
    ("aggregate_id", None), ("aggregate_id", 1.5), ("aggregate_type", None), ("aggregate_type", ""), ("event_type", 5),
    ("occurred_at", None), ("occurred_at", "2026-01-01"), ("payload", None), ("payload", [1]), ("version", 0), ("version", -1),
    ("version", "1"), ("_id", 5), ("_id", {"a": 1}), ("_id", "x" * 65), ("_id", ""), ("metadata", "x"), ("aggregate_id", "x" * 256),
]


def test_malformed_events_are_marked_and_hurt_nobody(bank):
    bank.mapping(**SLOW)
    bad = [{**opened(bank, f"bad{n}"), "metadata": {"n": n}, field: value} for n, (field, value) in enumerate(MALFORMED)]
    bad = [{k: v for k, v in event.items() if v is not None} for event in bad]
    bank.put(bad, opened(bank, "a2"))
    bank.run_once()
    for event, (field, value) in zip(bad, MALFORMED):
        stored = bank.outbox.find_one({"_id": event["_id"]})
        assert stored["status"] in ("failed", "dead"), (field, value)
        assert stored["last_error"]["class"] == "data"
        assert field in stored["last_error"]["message"], (field, value, stored["last_error"])
    assert [row["account_id"] for row in bank.rows("account")] == ["a2"]


ALL_NULL = dict.fromkeys(["status", "version", "metadata", "attempts", "next_attempt_at", "claimed_by", "claimed_at", "last_error"])
FOREIGN = [ALL_NULL, {"attempts": "many"}, {"attempts": [1]}, {"attempts": -3}, {"attempts": 99}, {"status": "failed", "attempts": None}, {"status": "new"}, {"status": 5},
           {"next_attempt_at": "soon", "claimed_by": 5, "claimed_at": 5, "last_error": "none"}]


def test_fields_of_ours_that_a_writer_fills_in_are_no_obstacle(bank):
    """As an object mapper does that writes every field of its class."""
    bank.mapping(**SLOW)
    events = [{**opened(bank, f"a{n}"), **fields} for n, fields in enumerate(FOREIGN)]
    failing = {**impossible(bank), **ALL_NULL}
    bank.put(events, failing)
    bank.run_once()
    assert [row["account_id"] for row in bank.rows("account")] == [f"a{n}" for n in range(len(FOREIGN))]
    stored = bank.found(failing)
    assert stored["status"] == "failed" and stored["attempts"] >= 1 and bank.outbox.count_documents({}) == 1


def test_mending_an_event_by_hand_lets_it_and_those_behind_it_through_in_order(bank):
    bank.mapping(**SLOW, max_attempts=1)
    first, bad = opened(bank), bank.event("a1", "AccountRenamed", name=5.5)
    behind = [bank.event("a1", "AccountRenamed", name=f"Ada {n}") for n in range(300)]
    with bank.start_projector() as projector:
        bank.put(first, bad, behind[:150])
        bank.wait_status(bad, "dead")
        bank.put(behind[150:])
        bank.outbox.update_one({"_id": bad["_id"]}, {"$set": {"status": "pending", "payload.name": "mended"}, "$unset": {"attempts": 1}})
        bank.wait_drained()
        assert "late" not in projector.log_text()
    assert bank.rows("account")[0]["name"] == "Ada 299"
    assert set(bank.ledger().values()) == {"applied"} and len(bank.ledger()) == 302


@pytest.mark.parametrize("field, max_attempts", [("occurred_at", 1), ("occurred_at", 10), ("version", 1)],
                         ids=("time", "time-failed", "version"))
def test_an_event_whose_place_is_mended_by_hand_has_its_turn_at_it(bank, field, max_attempts):
    """Without a time or a version it sorts before all others of its aggregate."""
    bank.mapping(**SLOW, max_attempts=max_attempts)
    first, bad, behind = opened(bank), bank.event("a1", "AccountRenamed", name="Bob"), bank.event("a1", "AccountRenamed", name="Cy")
    for version, event in enumerate((first, bad, behind), start=1):
        event |= {"version": version, **({"occurred_at": first["occurred_at"]} if field == "version" else {})}
    right = bad[field]
    bad[field] = str(right)
    with bank.start_projector():
        bank.put(bad)
        bank.wait_status(bad, "dead" if max_attempts == 1 else "failed")
        bank.put(first, behind)
        bank.outbox.update_one({"_id": bad["_id"]}, {"$set": {"status": "pending", field: right}, "$unset": {"attempts": 1}})
        bank.wait_drained()
    assert bank.rows("account")[0]["name"] == "Cy"
    assert set(bank.ledger().values()) == {"applied"} and len(bank.ledger()) == 3


def test_an_event_that_gets_another_aggregate_by_hand_lets_the_first_go_on(bank):
    bank.mapping(**SLOW, max_attempts=1)
    first, other, bad, behind = opened(bank), opened(bank, "a2"), impossible(bank), deposited(bank)
    with bank.start_projector():
        bank.put(first, other, bad, behind)
        bank.wait_status(bad, "dead")
        bank.outbox.update_one({"_id": bad["_id"]}, {"$set": {"aggregate_id": "a2"}})
        bank.wait(lambda: balance(bank) == Decimal("101.00"), what="what was behind it")
        bank.outbox.update_one({"_id": bad["_id"]}, {"$set": {"status": "pending", "payload.amount": decimal("0.50")}, "$unset": {"attempts": 1}})
        bank.wait_drained()
    assert (balance(bank), balance(bank, "a2")) == (Decimal("101.00"), Decimal("100.50"))


def test_removing_the_event_that_blocks_lets_the_others_through(bank):
    bank.mapping(**SLOW)
    first, bad = opened(bank), impossible(bank)
    with bank.start_projector():
        bank.put(first, bad, deposited(bank))
        bank.wait_status(bad, "failed")
        bank.outbox.delete_one({"_id": bad["_id"]})
        bank.wait_drained()
    assert balance(bank) == Decimal("101.00")


def test_an_aggregate_with_several_failing_events_stops_at_each(bank):
    bank.mapping(**SLOW)
    events = [opened(bank), impossible(bank), deposited(bank), impossible(bank), deposited(bank)]
    bad = events[1], events[3]
    with bank.start_projector():
        bank.put(events)
        for event, expected in zip(bad, ("100.00", "101.50")):
            bank.wait_status(event, "failed")
            assert balance(bank) == Decimal(expected)
            bank.outbox.update_one({"_id": event["_id"]}, {"$set": {"status": "pending", "payload.amount": decimal("0.50")}})
        bank.wait_drained()
    assert balance(bank) == Decimal("103.00")


# tables that do not fit


def second_table() -> dict:
    return {"aggregate_type": "wallet", "table": "wallet", "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}},
            "columns": {"coins": {"from": "coins", "type": "int"}},
            "events": {"Filled": {"op": "upsert"}, "Paid": {"op": "subtract", "columns": {"coins": "coins"}}}}


def filled(ws, coins=10, wallet="w1") -> dict:
    return {**ws.event(wallet, "Filled", coins=coins), "aggregate_type": "wallet"}


@pytest.mark.parametrize("break_it, mend_it, code", [
    ("ALTER TABLE account DROP COLUMN name", "ALTER TABLE account ADD COLUMN name varchar(100) NOT NULL DEFAULT 'was lost'", 1054),
    ("RENAME TABLE account TO hidden", "RENAME TABLE hidden TO account", 1146),
], ids=["column", "table"])
def test_a_table_that_breaks_while_running_stops_its_events_until_it_is_back(bank, break_it, mend_it, code):
    bank.mapping(bank_projections() + [second_table()], **FAST, max_attempts=2)
    bank.create()
    with bank.start_projector() as projector:
        bank.put(opened(bank), opened(bank, "a2"))
        bank.wait_drained()
        bank.query(break_it)
        waiting = [bank.event("a1", "AccountRenamed", name="Ada L."), deposited(bank), bank.event("a2", "AccountRenamed", name="Bob")]
        bank.put(waiting, filled(bank))
        failed = bank.wait_status(waiting[0], "failed")
        assert failed["last_error"]["class"] == "mapping" and failed["last_error"]["code"] == code
        assert failed.get("attempts", 0) == 0
        bank.wait(lambda: bank.rows("wallet"), what="the other projection")
        bank.query(mend_it)
        bank.outbox.update_many({"status": "failed"}, {"$set": {"status": "pending"}})  # rather than await a retry
        bank.wait_drained()
        assert projector.running
    assert [(r["name"], r["balance"]) for r in bank.rows("account")] == [("Ada L.", Decimal("101.00")), ("Bob", Decimal("100.00"))]


# a projector that died


@pytest.mark.parametrize("claimed_at", [True, False])
def test_claims_of_another_are_swept_when_they_are_old(bank, claimed_at):
    bank.mapping(**FAST, claim_timeout_ms=2000)
    with bank.start_projector() as projector:
        projector.wait_log("info working")
        bank.put(opened(bank))
        bank.wait_drained()
        foreign = {**deposited(bank), "status": "in_progress", "attempts": 1, "claimed_by": "elsewhere:1#1"}
        if claimed_at:
            foreign["claimed_at"] = now() - timedelta(seconds=60)
        bank.put(foreign)
        bank.wait_drained()
        projector.wait_log("swept events that were left in progress")
    assert balance(bank) == Decimal("101.00")


@pytest.mark.thorough
def test_many_claims_of_another_do_not_keep_the_sweeper_from_its_work(bank):
    bank.mapping(**FAST, claim_timeout_ms=2000)
    with bank.start_projector() as projector:
        projector.wait_log("info working")
        bank.put([{**opened(bank, f"a{n}"), "status": "in_progress", "attempts": 1, "claimed_by": "elsewhere:1#1", "claimed_at": now()}
                  for n in range(2000)])
        bank.wait_drained(timeout=3 * WAIT_S)
    assert bank.query("SELECT COUNT(*) AS n, SUM(balance) AS s FROM account")[0] == {"n": 2000, "s": Decimal("200000.00")}


def test_a_new_owner_finishes_what_a_dead_one_had_claimed(bank):
    """Events applied but not acknowledged are taken out; the others are applied."""
    bank.put(opened(bank), deposited(bank))
    bank.run_once()
    claim = {"status": "in_progress", "attempts": 1, "claimed_by": "dead:1#1", "claimed_at": now()}
    again = {**deposited(bank), "_id": uuid.UUID(next(iter(bank.ledger())))}
    bank.put([{**again, **claim}, {**deposited(bank, amount="2.00"), **claim}])
    done = bank.run_once()
    assert bank.outbox.find_one() is None
    assert balance(bank) == Decimal("103.00")
    assert "swept events that were left in progress events=2" in done.stderr


def test_an_event_that_kills_its_process_each_time_ends_as_dead(bank):
    bank.mapping(**FAST, max_attempts=3)
    first = opened(bank)
    bad = {**deposited(bank), "status": "in_progress", "attempts": 3, "claimed_by": "dead:1#1", "claimed_at": now()}
    bank.put(first, bad, deposited(bank))
    bank.run_once()
    assert bank.found(bad)["status"] == "dead" and bank.found(bad)["last_error"]["class"] == "crash"
    assert balance(bank) == Decimal("100.00")


def test_an_event_that_was_retried_when_the_process_died_is_not_to_blame_yet(bank):
    """It did not run alone: another event may have killed the process."""
    bank.mapping(**FAST, max_attempts=3)
    first = opened(bank)
    retried = {**deposited(bank), "status": "in_progress", "attempts": 5, "claimed_by": "dead:1#1", "claimed_at": now(),
               "next_attempt_at": now()}
    bank.put(first, retried)
    bank.run_once()
    assert balance(bank) == Decimal("101.00") and bank.outbox.find_one() is None


def test_an_event_that_was_retried_and_kills_its_process_ends_as_dead(bank):
    """After the first crash it runs alone; after the second it is known to be the cause."""
    bank.mapping(**SHORT_LEASE, max_attempts=3)
    bank.put(opened(bank))
    bank.run_once()
    bad = {**deposited(bank), "status": "in_progress", "attempts": 5, "claimed_by": "dead:1#1", "claimed_at": now(),
           "next_attempt_at": now()}
    bank.put(bad)
    with bank.stores.mysql(bank.name) as lock, lock.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM account FOR UPDATE")
        with bank.start_projector() as projector:
            bank.wait(lambda: bank.found(bad)["attempts"] == 6)
            projector.kill()
        cursor.execute("ROLLBACK")
    with bank.start_projector():
        assert bank.wait_status(bad, "dead")["last_error"]["class"] == "crash"


def test_what_may_have_killed_the_process_is_claimed_while_nothing_else_is(bank):
    """Row locks keep in progress whatever is claimed; with a failed event that is retried others may run."""
    bank.mapping(**SHORT_LEASE, workers=4, max_attempts=100)
    accounts = [f"a{number}" for number in range(8)]
    bank.put(*(opened(bank, account) for account in accounts))
    bank.run_once()
    bank.put(*({**deposited(bank, account), "attempts": 2} for account in accounts))

    def claimed() -> int:
        return bank.outbox.count_documents({"status": "in_progress", "next_attempt_at": None})

    with bank.stores.mysql(bank.name) as lock, lock.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM account FOR UPDATE")
        for _ in range(3):
            with bank.start_projector() as projector:
                bank.wait_lock_wait()
                bank.wait(claimed)
                projector.kill()
            assert claimed() <= 1
        cursor.execute("ROLLBACK")
    with bank.start_projector():
        bank.wait_drained()


def test_kill_after_the_claim_restart_applies_once(bank):
    """A row lock keeps the transaction open, so that the kill comes between claim and COMMIT."""
    bank.mapping(**SHORT_LEASE)
    bank.put(opened(bank))
    bank.run_once()
    event = deposited(bank)
    with bank.stores.mysql(bank.name) as lock, lock.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM account FOR UPDATE")
        with bank.start_projector() as projector:
            bank.put(event)
            bank.wait_status(event, "in_progress")
            projector.kill()
        cursor.execute("ROLLBACK")
    with bank.start_projector() as projector:
        projector.wait_log("swept events")
        bank.wait_drained()
    assert balance(bank) == Decimal("101.00")
