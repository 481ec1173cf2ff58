"""What MongoDB refuses, and what is superseded although nobody can look it up: visible, with the reason."""

from __future__ import annotations

import json
import re

import pytest

from endpoint import Endpoint
from bank import opened
from feeds import FEED
from workspace import Workspace, bank_projections, decimal

SETTINGS = {"http": "127.0.0.1:0", "backoff_ms": 20, "sweep_interval_ms": 500, "lease_ms": 4000}
# Refuses the projector's fields for one account only, so the check at the start finds no fault with it.
VALIDATOR = {"$or": [{"aggregate_id": {"$ne": "bad"}}, {"status": {"$exists": False}}]}


def listed(ws: Workspace, *arguments: str) -> list[dict]:
    return [json.loads(line) for line in ws.projector("list", "--json", *arguments).stdout.splitlines()]


def test_an_event_that_mongodb_refuses_to_mark_is_listed_with_the_reason(bank):
    bank.mapping(**SETTINGS)
    with bank.start_projector() as process:
        process.wait_log("info working")
        endpoint = Endpoint(process)
        # A deposit without its account fails, and its failure has to be marked in its own document.
        bank.db.command("collMod", "outbox", validator=VALIDATOR)
        bank.put(bad := {**bank.event("bad", "MoneyDeposited", amount=decimal("1.00")), "attempts": 1}, good := opened(bank, "a1"))
        bank.wait_gone(good)
        (told,) = bank.wait(lambda: listed(bank), what="a line of list")
        assert (told["event_id"], told["state"]) == (str(bad["_id"]), "refused")
        assert told["reason"]["code"] == 121 and "validation" in told["reason"]["message"]
        assert listed(bank, "--state", "refused") == [told] and listed(bank, "--state", "pending") == [told]
        assert listed(bank, "--aggregate", "account", "a1") == []
        bank.put(dead := {**opened(bank, "a2"), "status": "dead"})
        assert [event["state"] for event in listed(bank, "--limit", "1")] == ["dead"] and len(listed(bank, "--limit", "2")) == 2
        bank.outbox.delete_one({"_id": dead["_id"]})
        text = bank.projector("list").stdout
        assert re.search(r"^refused +\S+ +account bad ", text, re.MULTILINE), text
        live = bank.wait(lambda: (t := endpoint.get("/live").json["troubles"]) and t, what="the page")
        assert (live[0]["event_id"], live[0]["state"]) == (str(bad["_id"]), "refused")
        bank.wait(lambda: (a := endpoint.get("/readyz")).status == 503 and "MongoDB refuses to mark or to copy events" in a.text,
                  what="readiness to end")
        bank.db.command("collMod", "outbox", validator={})
        bank.put(opened(bank, "bad", at=bad["occurred_at"].replace(year=2020)))
        bank.wait_drained()
        assert listed(bank) == []


@pytest.mark.thorough
def test_what_was_refused_under_an_earlier_owner_is_not_shown_for_ever(bank):
    bank.mapping(**SETTINGS)
    with bank.start_projector() as process:
        process.wait_log("info working")
        bank.db.command("collMod", "outbox", validator=VALIDATOR)
        bank.put(bad := {**bank.event("bad", "MoneyDeposited", amount=decimal("1.00")), "attempts": 1})
        bank.wait(lambda: listed(bank), what="a line of list")
        process.kill()
    bank.db.command("collMod", "outbox", validator={})
    bank.put(opened(bank, "bad", at=bad["occurred_at"].replace(year=2020)))
    with bank.start_projector():
        bank.wait_drained()
        bank.wait(lambda: bank.db["projector_leases"].find_one({"_id": f"refused:{bank.name}"})["events"] == [], what="an empty list")


def never_pending(name: str) -> dict:
    """Allows that document any other status."""
    return {"$or": [{"_id": {"$ne": name}}, {"status": {"$ne": "pending"}}]}


def test_an_event_that_cannot_be_released_keeps_no_other_in_progress(ws):
    """A feed refuses the copy of the first one, so those behind it are released, some together."""
    ws.mapping(**SETTINGS, claim_timeout_ms=1000, mongodb={"feeds": [FEED]})
    ws.create()
    ws.db.create_collection(FEED, validator={"_id": {"$ne": "a"}})
    ws.db.command("collMod", "outbox", validator=never_pending("e"))
    first, *behind = [{**opened(ws, "a1"), "_id": name, "attempts": 1} for name in "abcdefgh"]
    ws.put(first, behind)
    with ws.start_projector() as process:
        process.wait_log("cannot mark events in the outbox .*121")
        ws.wait(lambda: [e["_id"] for e in ws.outbox.find({"status": "in_progress"})] == ["e"], what="all others to be released")
        assert ws.outbox.count_documents({}) == 8
        ws.db.command("collMod", "outbox", validator={})
        ws.db.command("collMod", FEED, validator={})
        ws.wait_drained()


@pytest.mark.thorough
def test_a_mongodb_that_refuses_writes_is_told_everywhere(bank):
    bank.mapping(**{**SETTINGS, "lease_ms": 20000})
    with bank.start_projector() as process:
        endpoint = Endpoint(process)
        bank.wait(lambda: endpoint.get("/readyz").text == "ready: working\n", what="readiness")
        bank.db.command("collMod", "projector_leases", validator={"never": True})
        try:
            answer = bank.wait(lambda: (a := endpoint.get("/readyz")).status == 503 and "MongoDB" in a.text and a, what="readyz")
            assert re.search(r"MongoDB refuses to work since .* \(121\)\. .*nothing is lost", answer.text)
            metrics = endpoint.metrics()
            assert metrics["projector_lease_held"] == 1  # reported before the lease, and all work with it, is lost
            assert metrics['projector_store_up{store="mongodb"}'] == 1 and metrics['projector_store_usable{store="mongodb"}'] == 0
            status = bank.projector("status")
            assert status.returncode == 3
            assert re.search(r"^mongodb +MongoDB .*, refuses to work: .* \(121\)$", status.stdout, re.MULTILINE)
        finally:
            bank.db.command("collMod", "projector_leases", validator={})
        bank.wait(lambda: endpoint.get("/readyz").status == 200, what="readiness")
        assert bank.projector("status").returncode == 0


def test_what_is_superseded_without_an_entity_is_counted_and_told_once_for_its_aggregate(ws):
    projections = [{k: v for k, v in p.items() if k != "entities"} for p in bank_projections()]
    ws.mapping(projections, **SETTINGS)
    ws.create()
    with ws.start_projector() as process:
        endpoint = Endpoint(process)
        late = [opened(ws, "a1") for _ in range(3)] + [opened(ws, "a2")]
        ws.put(newer := [opened(ws, "a1"), opened(ws, "a2")])
        ws.wait_gone(*newer)
        ws.put(late)
        ws.wait_gone(*late)
        ws.wait(lambda: endpoint.metrics()['projector_events_superseded_without_entity_total{projection="account"}'] == 4)
        ws.wait(lambda: sorted(re.findall(r"event superseded without an entity event=\S+ aggregate=\"(account \S+)\"", process.log_text()))
                == ["account a1", "account a2"], what="one line for each aggregate")
