"""Claims: who owns an event, what the sweeper may take, and what happens to events that change hands."""

from __future__ import annotations

import json
from contextlib import suppress
from decimal import Decimal

import pymysql
import pytest
from pymongo.read_concern import ReadConcern

from bank import deposited, impossible, opened
from claims import ANOTHER, QUIET, SWEEPING, ago, row_locked
from endpoint import Endpoint
from workspace import WAIT_S, Workspace

PAIRS = {"workers": 1, "batch": 2, "linger_ms": 1500}  # two events inserted together are one batch


def old_claim(ws: Workspace, account: str) -> dict:
    return {**opened(ws, account), **ANOTHER, "claimed_at": ago(hours=2)}


def is_swept(ws: Workspace, account: str) -> None:
    """Since this call the sweeper has looked at everything: it has found a claim that is old enough for any limit."""
    ws.put(event := old_claim(ws, account))
    ws.wait_gone(event)


# the sweeper


def test_the_sweeper_leaves_young_claims_of_others_alone(bank):
    bank.mapping(**SWEEPING, claim_timeout_ms=3600000)
    with bank.start_projector() as projector:
        projector.wait_log("info working")
        is_swept(bank, "a0")  # so the first sweep, which also takes young claims, is over
        young = {**opened(bank), **ANOTHER, "claimed_at": ago(minutes=30)}
        bank.put(young)
        for account in ("a2", "a3"):
            is_swept(bank, account)
        assert bank.found(young) == young


@pytest.mark.parametrize("whose", ["an owner's", "a command's"])
def test_a_claim_from_the_far_future_keeps_no_aggregate_for_ever(bank, whose):
    """A clock was ahead, and was put right; or somebody inserted a copy of what was claimed once."""
    bank.mapping(**SWEEPING, claim_timeout_ms=3600000)
    first, second = opened(bank), deposited(bank)
    with bank.start_projector() as projector:
        projector.wait_log("info working")
        is_swept(bank, "a0")  # so the first sweep, which looks at no time, is over
        soon = {**opened(bank, "a2"), **ANOTHER, "claimed_at": ago(minutes=-30)}
        late = {**ANOTHER, "claimed_at": ago(hours=-2)}
        if whose == "a command's":
            late["claimed_by"] = "command:skip:elsewhere:1:00000000"
        bank.put(soon, {**first, **late}, second)
        if whose == "a command's":
            assert "claimed_by" not in bank.wait_status(first, "dead")  # it had seized what was dead
        else:
            bank.wait_gone(second)
        is_swept(bank, "a3")
        assert bank.found(soon) == soon


def test_the_sweeper_leaves_alone_what_is_being_worked_on(bank):
    """However long that takes: the claim ages while the transaction waits for somebody's lock."""
    bank.mapping(**{**SWEEPING, "backoff_ms": 300000}, claim_timeout_ms=1000)
    bank.put(opened(bank), marker := impossible(bank, "a2"))
    bank.run_once()
    event = deposited(bank)
    with bank.start_projector() as projector, row_locked(bank) as cursor:
        projector.wait_log("info working")
        bank.put(event)
        bank.wait_lock_wait()
        claimed = bank.wait_status(event, "in_progress")
        bank.wait(lambda: ago(seconds=1) > claimed["claimed_at"], what="an old claim")
        bank.outbox.update_one({"_id": marker["_id"]}, {"$set": {**ANOTHER, "claimed_at": ago(hours=2)}})
        bank.wait(lambda: bank.found(marker)["status"] != "in_progress", what="the sweeper")
        assert bank.found(event) == claimed
        cursor.execute("COMMIT")
        bank.wait_gone(event)
    assert bank.rows("account")[0]["balance"] == Decimal("101.00")


def wait_for_the_sweeper(ws: Workspace) -> None:
    """Until it asks the ledger, which the test has locked, whether events that were claimed are applied. What else the
    projector asks there, as for entries to prune, is killed: the next sweep begins with the claims."""
    def asks() -> bool:
        asked = [(r["Id"], r["Info"]) for r in ws.query("SHOW FULL PROCESSLIST")
                 if r["db"] == ws.name and (r["Info"] or "").startswith("SELECT") and "projector_applied" in r["Info"]]
        if any(statement.startswith("SELECT event_id,") for _, statement in asked):
            return True
        for session, _ in asked:
            with suppress(pymysql.MySQLError):  # it may have ended by itself
                ws.query(f"KILL QUERY {session}")
        return False
    ws.wait(asks, what="the sweeper to ask the ledger")


def test_an_event_that_was_claimed_again_while_the_sweeper_asked_the_ledger_is_not_put_back(bank):
    bank.mapping(**SWEEPING, claim_timeout_ms=60000)
    event = old_claim(bank, "a1")
    again = {"claimed_by": "elsewhere:2#2"}
    with bank.start_projector() as projector, bank.stores.mysql(bank.name) as lock, lock.cursor() as cursor:
        projector.wait_log("info working")
        is_swept(bank, "a0")
        cursor.execute("LOCK TABLES projector_applied WRITE")
        bank.put(event)
        wait_for_the_sweeper(bank)
        again["claimed_at"] = ago()
        bank.outbox.update_one({"_id": event["_id"]}, {"$set": again})
        cursor.execute("UNLOCK TABLES")
        is_swept(bank, "a2")
        assert bank.found(event) == {**event, **again}


def test_the_sweeper_takes_no_event_for_applied_whose_id_merely_reads_the_same(bank):
    bank.mapping(**SWEEPING)
    claimed = old_claim(bank, "a2")
    with bank.start_projector():
        bank.put({**opened(bank), "_id": str(claimed["_id"])})
        bank.wait_drained()
        bank.put(claimed)
        bank.wait_drained()
    assert {row["account_id"] for row in bank.rows("account")} == {"a1", "a2"}


def test_the_sweeper_acknowledges_an_applied_event_however_many_attempts_it_took(bank):
    """The last attempt succeeded, and its projector died before it could say so."""
    bank.mapping(**QUIET, max_attempts=3)
    first = opened(bank)
    bank.put(first)
    bank.run_once()
    bank.put({**first, **ANOTHER, "attempts": 3, "claimed_at": ago(hours=2)})
    done = bank.run_once()
    assert bank.outbox.find_one() is None and "dead" not in done.stderr
    assert len(bank.rows("account")) == 1


# events that change hands


@pytest.mark.parametrize("change", [{"status": "dead"}, {**ANOTHER, "claimed_at": ago()}], ids=["dead", "taken"])
def test_an_event_that_became_anothers_in_the_queue_is_left_to_it(bank, change):
    bank.mapping(**QUIET, workers=1, batch=1)
    bank.put(opened(bank))
    bank.run_once()
    first, second, third = deposited(bank), opened(bank, "a2"), opened(bank, "a3")
    with bank.start_projector() as projector, row_locked(bank) as cursor:
        projector.wait_log("info working")
        bank.put(first, second, third)
        bank.wait_status(first, "in_progress")  # so it took longer than claim_mark_ms
        bank.outbox.update_one({"_id": second["_id"]}, {"$set": change})
        cursor.execute("COMMIT")
        bank.wait_gone(first, third)
        assert bank.found(second) == {**second, **change}
    assert [row["account_id"] for row in bank.rows("account")] == ["a1", "a3"]


def test_an_event_whose_id_is_none_is_dead_although_its_worker_stood_still(bank):
    """Such an id cannot be looked for."""
    bank.mapping(**QUIET, workers=1, batch=1)
    bank.put(opened(bank))
    bank.run_once()
    bank.put(first := deposited(bank), nameless := {**opened(bank, "a2"), "_id": 5})
    with row_locked(bank) as cursor, bank.start_command("run", "--once") as run:
        bank.wait_status(first, "in_progress")  # so it took longer than claim_mark_ms
        cursor.execute("COMMIT")
        assert run.popen.wait(WAIT_S) == 0
    assert "_id" in bank.found(nameless)["last_error"]["message"]


def test_what_comes_behind_an_event_that_became_anothers_in_the_queue_waits_for_it(bank):
    bank.mapping(**QUIET, workers=1)
    bank.put(opened(bank))
    bank.run_once()
    first, second, behind, third = deposited(bank), opened(bank, "a2"), deposited(bank, "a2"), opened(bank, "a3")
    with bank.start_projector() as projector, row_locked(bank) as cursor:
        projector.wait_log("info working")
        bank.put(first)
        bank.wait_lock_wait()
        bank.put(second, behind, third)  # the next batch
        bank.wait_status(first, "in_progress")  # so it took longer than claim_mark_ms
        bank.outbox.update_one({"_id": second["_id"]}, {"$set": {**ANOTHER, "claimed_at": ago()}})
        cursor.execute("COMMIT")
        bank.wait_gone(first, third)
        assert bank.found(behind) == behind
        bank.outbox.update_one({"_id": second["_id"]}, {"$set": {"status": "pending", "attempts": 0}})
        bank.wait_drained()
        assert "event failed" not in projector.log_text()
    assert [str(row["balance"]) for row in bank.rows("account")] == ["101.00", "101.00", "100.00"]


@pytest.mark.thorough(beyond=1)
@pytest.mark.parametrize("what", ["given back", "failed", "applied"])
def test_an_event_that_another_claimed_meanwhile_is_settled_only_when_it_was_applied(bank, what):
    """A claim that was lost, to a sweep for example, belongs to another:
    that one decides what is still open; what is done stays done."""
    bank.mapping(**QUIET, **PAIRS, gap_wait_ms=600000)
    bank.put(opened(bank))
    bank.run_once()
    first, after = deposited(bank), opened(bank, "a3")
    second = {"given back": {**opened(bank, "a2"), "version": 5}, "failed": impossible(bank, "a2"), "applied": opened(bank, "a2")}[what]
    with bank.start_projector() as projector, row_locked(bank) as cursor:
        projector.wait_log("info working")
        bank.put(first, second)
        bank.wait_lock_wait()
        bank.wait_status(second, "in_progress")
        bank.outbox.update_one({"_id": second["_id"]}, {"$set": {"claimed_by": "elsewhere:1#1"}})
        taken = bank.found(second)
        cursor.execute("COMMIT")
        bank.wait_gone(first)
        bank.put(after)
        bank.wait_gone(after)  # in a later batch
        if what == "applied":
            bank.wait_gone(second)
            assert [row["account_id"] for row in bank.rows("account")] == ["a1", "a2", "a3"]
        else:
            assert bank.found(second) == taken


def test_an_event_that_is_given_back_has_lost_no_attempt(bank):
    bank.mapping(**QUIET, **PAIRS, gap_wait_ms=600000)
    bank.put(opened(bank))
    bank.run_once()
    event = {**opened(bank, "a2"), "version": 5}
    with bank.start_projector() as projector, row_locked(bank) as cursor:
        projector.wait_log("info working")
        bank.put(deposited(bank), event)
        bank.wait_status(event, "in_progress")
        cursor.execute("COMMIT")
        stored = bank.wait_status(event, "pending")
    assert stored["attempts"] == 0 and not {"claimed_by", "claimed_at"} & stored.keys()


@pytest.mark.thorough
def test_a_failed_event_that_is_given_back_is_failed_as_before(bank):
    """Its turn does not come, because one before it fails in the same batch. What it waits for, and until when, is still
    shown; after a retry by hand nothing is."""
    bank.mapping(**{**QUIET, **PAIRS, "backoff_ms": 300000}, http="127.0.0.1:0")
    bank.put(opened(bank))
    bank.run_once()
    failed = {"status": "failed", "attempts": 1, "next_attempt_at": ago(seconds=1),
              "last_error": {"class": "data", "code": 0, "message": "row missing in account", "at": ago(seconds=30)}}
    bad, waits = impossible(bank, "a2"), {**deposited(bank, "a2"), **failed}
    with bank.start_projector() as projector, row_locked(bank) as cursor:
        endpoint = Endpoint(projector)
        projector.wait_log("info working")
        bank.put(deposited(bank))
        bank.wait_lock_wait()
        bank.put(bad)
        bank.put(waits)
        bank.wait(lambda: endpoint.metrics()["projector_queue_events"] == 2, what="both to be queued")
        with bank.outbox.watch([{"$match": {"documentKey._id": waits["_id"], "operationType": "update"}}]) as changes:
            cursor.execute("COMMIT")
            assert [next(changes)["updateDescription"]["updatedFields"]["status"] for _ in range(2)] == ["in_progress", "failed"]
        assert bank.found(waits) == waits
        assert bank.wait_status(bad, "failed")["attempts"] >= 1


def test_before_a_retry_comes_what_sorts_before_it_read_or_not(bank):
    """The earlier event had no aggregate when it was read, and no stream reports that somebody has mended it."""
    bank.mapping(**{**QUIET, "backoff_ms": 300000})
    earlier, failed = opened(bank), deposited(bank)  # which has no row yet
    del earlier["aggregate_id"]
    with bank.start_projector():
        bank.put(earlier, failed)
        bank.wait_status(earlier, "dead")
        bank.wait_status(failed, "failed")
        bank.outbox.update_one({"_id": earlier["_id"]}, {"$set": {"aggregate_id": "a1", "status": "pending"}})
        assert bank.projector("retry", str(failed["_id"])).returncode == 0 or not bank.found(failed)  # jitter may draw a short wait
        bank.wait_drained()
    assert bank.rows("account")[0]["balance"] == Decimal("101.00")


def test_a_failed_event_is_not_tried_before_its_time_although_others_are_swept_and_retried(bank):
    bank.mapping(**{**SWEEPING, "backoff_ms": 300000})
    bads, other = [impossible(bank, f"b{n}") for n in range(8)], impossible(bank, "a2")
    with bank.start_projector():
        bank.put(bads, other)
        failed = max((bank.wait_status(bad, "failed") for bad in bads), key=lambda e: e["next_attempt_at"])  # jitter may draw a short wait
        before = bank.wait_status(other, "failed")
        assert bank.projector("retry", str(other["_id"])).returncode == 0  # every hold is checked
        bank.wait(lambda: (e := bank.found(other))["status"] == "failed" and e["last_error"]["at"] > before["last_error"]["at"], what="the retry")
        for account in ("a3", "a4"):
            is_swept(bank, account)
        assert bank.found(failed) == failed


# batch claims


BY_THE_BATCH = {**QUIET, "claim_mark_ms": 3600000, "workers": 1}


def claims(ws: Workspace) -> list[dict]:
    return list(ws.db["projector_claims"].find())


def listed(ws: Workspace, state: str) -> set[str]:
    lines = ws.projector("list", "--state", state, "--json").stdout.splitlines()
    return {json.loads(line)["event_id"] for line in lines}


def json_of(ws: Workspace, *command: str) -> dict:
    return json.loads(ws.projector(*command, "--json").stdout)


def dead_claim(ws: Workspace, *events: dict, **more) -> dict:
    claim = {"_id": f"{ws.name}/dead:1#0/0", "name": ws.name, "outbox": "outbox", "claimed_by": "dead:1#0", "worker": 0, "epoch": 0,
             "claimed_at": ago(minutes=1), "events": [e["_id"] for e in events], **more}
    ws.db["projector_claims"].insert_one(claim)
    return claim


def test_a_batch_is_claimed_in_one_document_and_shown_as_in_progress(bank):
    bank.mapping(**BY_THE_BATCH)
    bank.put(opened(bank))
    bank.run_once()
    event = deposited(bank)
    with bank.start_projector() as projector, row_locked(bank) as cursor:
        projector.wait_log("info working")
        bank.put(event)
        bank.wait_lock_wait()
        [claim] = bank.wait(lambda: claims(bank), what="the claim, as a majority has it")
        assert (claim["name"], claim["epoch"], claim["events"]) == (bank.name, 2, [event["_id"]]) and claim["claimed_by"].endswith("#2")
        assert bank.found(event) == event
        bank.wait(lambda: [json_of(bank, "status")["outbox"][state] for state in ("pending", "in_progress")] == [0, 1],
                  what="the claim, as a majority has it")
        assert listed(bank, "in_progress") == {str(event["_id"])} and listed(bank, "pending") == set()
        [shown] = [e for e in json_of(bank, "explain", "account", "a1")["outbox"] if e["event_id"] == str(event["_id"])]
        assert shown["state"] == "in_progress"
        cursor.execute("COMMIT")
        bank.wait_drained()
        assert projector.stop() == 0
    assert claims(bank) == []


def test_what_takes_long_is_marked_in_its_own_document_as_far_as_it_has_not_committed(bank):
    bank.mapping(**QUIET, **PAIRS)
    bank.put(opened(bank), opened(bank, "a2"))
    bank.run_once()
    events = [deposited(bank), deposited(bank, "a2")]
    with bank.start_projector() as projector, row_locked(bank) as cursor:
        projector.wait_log("info working")
        bank.put(*events)
        for event in events:
            stored = bank.wait_status(event, "in_progress")
            assert stored["attempts"] == 1 and stored["claimed_by"].endswith("#2") and stored["claimed_at"]
        cursor.execute("COMMIT")
        bank.wait_drained()


@pytest.mark.thorough
def test_an_attempt_that_ended_with_its_projector_is_counted_once(bank):
    bank.mapping(**{**BY_THE_BATCH, "lease_ms": 3000})
    bank.put(opened(bank))
    bank.run_once()
    event = deposited(bank)
    with row_locked(bank) as cursor:
        with bank.start_projector() as projector:
            projector.wait_log("info working")
            bank.put(event)
            bank.wait_lock_wait()
            projector.kill()
        bank.end_sessions("projector")
        [left] = bank.wait(lambda: claims(bank), what="the claim, as a majority has it")
        with bank.start_projector() as projector:
            projector.wait_log("swept the claims of a former owner events=1")
            stored = bank.wait_status(event, "in_progress")  # attempted events are claimed in their own documents
            assert stored["attempts"] == 2
            assert left["_id"] not in {c["_id"] for c in claims(bank)}
            cursor.execute("COMMIT")
            bank.wait_drained()
    assert bank.rows("account")[0]["balance"] == Decimal("101.00")


def test_what_a_dead_owner_had_applied_is_taken_out_and_what_was_changed_since_stays(bank):
    bank.mapping(**BY_THE_BATCH)
    applied, bad, gone = opened(bank), opened(bank, "a2"), opened(bank, "a3")
    bank.put(applied)
    bank.run_once()
    bad |= {"status": "dead", "attempts": 3}
    bank.put(applied, bad)
    claim = dead_claim(bank, applied, bad, gone)
    bank.run_once()
    assert bank.outbox.find_one({"_id": applied["_id"]}) is None and bank.found(bad) == bad
    assert bank.outbox.find_one({"_id": gone["_id"]}) is None  # nothing is made up
    assert claim["_id"] not in {c["_id"] for c in claims(bank)}


@pytest.mark.thorough
@pytest.mark.parametrize("claimed", ["by the batch", "alone", "for the last time"])
def test_an_owner_begins_although_mongodb_refuses_to_change_what_the_former_one_left(bank, claimed):
    """Such an event is named in the log; the others are applied. The standby has looked at the outbox before that."""
    bank.mapping(**QUIET, max_attempts=3, lease_ms=5000)
    bank.put(opened(bank), opened(bank, "a2"))
    bank.run_once()
    fixed, free = {**deposited(bank), "tag": "fixed"}, deposited(bank, "a2")
    left = {"status": "in_progress", "attempts": 1, "claimed_by": "dead:1#0", "claimed_at": ago(minutes=1)}
    with bank.start_projector() as owner:
        owner.wait_log("info working")
        with bank.start_projector() as standby:
            standby.wait_log("standing by")
            assert bank.projector("pause").returncode == 0
            owner.wait_log("warning paused")
            if claimed == "by the batch":
                bank.put(fixed, free)
                dead_claim(bank, fixed, free)
                as_left = {"attempts": {"$exists": False}}
            else:
                bank.put({**fixed, **left, "attempts": 3 if claimed == "for the last time" else 1}, {**free, **left})
                as_left = {"status": "in_progress"}
            bank.db.command("collMod", "outbox", validator={"$or": [{"tag": {"$ne": "fixed"}}, as_left]})
            owner.kill()
            standby.wait_log(f"an abandoned event cannot be swept: {fixed['_id']}")
            assert bank.projector("resume").returncode == 0
            bank.wait_gone(free)
            bank.db.command("collMod", "outbox", validator={})
            assert standby.stop() == 0
    bank.run_once()
    found = bank.found(fixed)
    assert found["status"] == "dead" if claimed == "for the last time" else found is None


def test_a_claim_stays_until_what_it_names_is_settled(bank):
    """If the projector dies in between, the next one finds it."""
    bank.mapping(**{**BY_THE_BATCH, "sweep_interval_ms": 100})
    with bank.start_projector() as projector, bank.stores.mysql(bank.name) as lock, lock.cursor() as cursor:
        projector.wait_log("info working")
        cursor.execute("LOCK TABLES projector_applied WRITE")
        claim = dead_claim(bank, opened(bank))
        wait_for_the_sweeper(bank)
        # Local: what was deleted just now is seen as deleted.
        assert list(bank.db.get_collection("projector_claims", read_concern=ReadConcern("local")).find()) == [claim]
        cursor.execute("UNLOCK TABLES")
        bank.wait(lambda: claims(bank) == [], what="the end of the claim")


def test_a_claim_that_its_owner_wrote_again_while_it_was_swept_is_swept_again(bank):
    """An owner that does not know yet that it has a successor may still claim; those attempts count too."""
    bank.mapping(**{**BY_THE_BATCH, "sweep_interval_ms": 100})
    with bank.start_projector() as projector, bank.stores.mysql(bank.name) as lock, lock.cursor() as cursor:
        projector.wait_log("info working")
        cursor.execute("LOCK TABLES projector_applied WRITE")
        claim = dead_claim(bank, opened(bank))
        wait_for_the_sweeper(bank)
        again = {"claimed_at": ago(), "events": [opened(bank, account)["_id"] for account in ("a2", "a3")]}
        bank.db["projector_claims"].update_one({"_id": claim["_id"]}, {"$set": again})
        cursor.execute("UNLOCK TABLES")
        projector.wait_log("swept the claims of a former owner events=2")
        bank.wait(lambda: claims(bank) == [], what="the end of the claim")


def test_the_claims_of_a_live_owner_and_of_other_names_are_never_swept(bank):
    bank.mapping(**{**BY_THE_BATCH, "sweep_interval_ms": 100})
    with bank.start_projector() as projector:
        projector.wait_log("info working")
        newer = dead_claim(bank, _id="newer", epoch=1)
        other = dead_claim(bank, _id="other", name="another")
        dead_claim(bank)
        bank.wait(lambda: len(claims(bank)) == 2, what="a sweep")
        assert claims(bank) == [newer, other]


def test_an_innocent_of_a_batch_that_killed_its_projector_does_not_die_with_it(bank):
    """Not even if only one attempt is allowed: nobody knows which event of the batch it was."""
    bank.mapping(**BY_THE_BATCH, max_attempts=1)
    events = [opened(bank), opened(bank, "a2")]
    bank.put(events)
    dead_claim(bank, *events)
    bank.run_once()
    assert bank.outbox.find_one() is None and len(bank.rows("account")) == 2


def test_an_event_that_was_deleted_while_its_worker_stood_still_is_not_applied(bank):
    bank.mapping(**QUIET, workers=1, batch=1)
    bank.put(opened(bank))
    bank.run_once()
    first, second, third = deposited(bank), opened(bank, "a2"), opened(bank, "a3")
    with bank.start_projector() as projector, row_locked(bank) as cursor:
        projector.wait_log("info working")
        bank.put(first, second, third)
        bank.wait_status(first, "in_progress")  # so it took longer than claim_mark_ms
        bank.outbox.delete_one({"_id": second["_id"]})
        cursor.execute("COMMIT")
        bank.wait_gone(first, third)
    assert [row["account_id"] for row in bank.rows("account")] == ["a1", "a3"]


@pytest.mark.thorough
def test_a_mark_of_an_event_that_is_gone_makes_none(bank):
    """Two events of a batch: one was deleted by hand while the other's row was locked, before they were marked."""
    bank.mapping(**{**QUIET, "claim_mark_ms": 2000}, **PAIRS)
    bank.put(opened(bank))
    bank.run_once()
    events = [deposited(bank), opened(bank, "a2")]
    with bank.start_projector() as projector, row_locked(bank) as cursor:
        projector.wait_log("info working")
        bank.put(*events)
        bank.wait_lock_wait()
        bank.outbox.delete_one({"_id": events[1]["_id"]})
        bank.wait_status(events[0], "in_progress")
        assert bank.outbox.count_documents({}) == 1
        cursor.execute("COMMIT")
        bank.wait_drained()


@pytest.mark.whole_server  # read_only
def test_while_it_is_not_sure_that_mysql_is_back_one_event_tries(bank):
    bank.mapping(**QUIET, workers=1)
    bank.put(opened(bank))
    bank.run_once()
    first = deposited(bank)
    with bank.start_projector() as projector, bank.stores.mysql(bank.name) as lock, lock.cursor() as cursor:
        projector.wait_log("info working")
        bank.query("SET GLOBAL read_only = 1")
        try:
            bank.put(first, opened(bank, "a2"), opened(bank, "a3"))
            projector.wait_log("MySQL accepts no transaction")
            cursor.execute("BEGIN")
            cursor.execute("SELECT * FROM account WHERE account_id = 'a1' FOR UPDATE")
        finally:
            bank.query("SET GLOBAL read_only = 0")
        bank.wait_lock_wait()
        assert bank.wait(lambda: listed(bank, "in_progress"), what="a claim") == {str(first["_id"])}
        cursor.execute("COMMIT")
        bank.wait_drained()
    assert len(bank.rows("account")) == 3
