"""Two ids of different kinds with the same text, as 5 and "5": what is done about one leaves the other alone."""

from __future__ import annotations

import json
import uuid
from datetime import datetime

from bson import Int64

from bank import FAST, opened
from endpoint import TOKEN, Endpoint
from workspace import Workspace, decimal

SLOW = {"backoff_ms": 300000}  # failed events stay failed during the test
U = uuid.UUID("0190a000-0000-7000-8000-00000000000a")


def dead(ws: Workspace, aggregate_id, version: int, event_id) -> dict:
    return {**ws.event(aggregate_id, "AccountRenamed", version, name="Ada"), "_id": event_id, "status": "dead", "attempts": 10}


def entity(ws: Workspace, account_id, version: int) -> None:
    ws.accounts.insert_one({"_id": account_id, "version": Int64(version), "last_event_at": datetime(2026, 1, 1), "user_id": "u1",
                            "name": "Ada", "balance": decimal("7.00")})


def statuses(ws: Workspace) -> dict:
    return {(type(e["_id"]).__name__, e["aggregate_id"]): e.get("status") for e in ws.outbox.find()}


def listed(ws: Workspace, *arguments: str) -> list[dict]:
    return [json.loads(line) for line in ws.projector("list", "--json", *arguments).stdout.splitlines()]


def test_a_refresh_frees_the_events_of_its_aggregate_alone(bank):
    bank.mapping(**SLOW)
    bank.put(dead(bank, "a1", 1, U), dead(bank, "a2", 1, str(U)))
    entity(bank, "a1", 1)
    assert bank.projector("refresh", "account", "a1").returncode == 0
    assert statuses(bank) == {("UUID", "a1"): "pending", ("str", "a2"): "dead"}


def test_a_repair_frees_the_event_that_it_found_alone(bank):
    bank.mapping(**SLOW)
    bank.put(dead(bank, "a1", 1, U), dead(bank, "a2", 1, str(U)))
    entity(bank, "a1", 1)
    bank.projector("reconcile", "--repair")
    assert statuses(bank) == {("UUID", "a1"): "pending", ("str", "a2"): "dead"}


def test_a_key_that_no_longer_tells_case_is_noticed_while_events_flow(bank):
    """No statement fails when the collation changes, and the session stays."""
    bank.mapping(**FAST, workers=1)
    with bank.start_projector():
        bank.put(opened(bank, "Ann", name="upper"))
        bank.wait_drained()
        bank.query("ALTER TABLE account MODIFY account_id varchar(36) COLLATE utf8mb4_general_ci NOT NULL")

        def is_noticed() -> bool:
            bank.put(event := opened(bank, "ann", name="lower"))
            bank.wait(lambda: (bank.found(event) or {"status": "gone"}).get("status") in ("failed", "dead", "gone"))
            return bank.found(event) is not None

        bank.wait(is_noticed, what="an event that is refused")


def test_an_aggregate_is_told_from_another_by_the_kind_of_its_id(bank):
    bank.mapping(**SLOW)
    bank.put(dead(bank, 5, 1, "number"), dead(bank, "5", 1, "text"))
    entity(bank, 5, 1)
    refused = bank.projector("refresh", "account", "5")
    assert refused.returncode == 2 and "kinds string and int" in refused.stderr and "--id-kind" in refused.stderr
    assert set(statuses(bank).values()) == {"dead"}
    assert bank.projector("refresh", "account", "5", "--id-kind", "uuid").returncode == 2
    assert bank.projector("refresh", "account", "5", "--id-kind", "int").returncode == 0
    assert statuses(bank) == {("str", 5): "pending", ("str", "5"): "dead"}
    for kind, event in ("int", "number"), ("string", "text"):
        told = json.loads(bank.projector("explain", "account", "5", "--id-kind", kind, "--json").stdout)
        assert [e["event_id"] for e in told["outbox"]] == [event] and told["aggregate_id_kind"] == kind
    told = bank.projector("explain", "account", "5")
    assert told.returncode == 0 and "its id is of the kind string; one of the kind int has the same text" in told.stdout
    assert [(e["event_id"], e["aggregate_id_kind"]) for e in listed(bank, "--aggregate", "account", "5")] == [("text", "string")]


def test_retry_and_skip_take_one_kind_when_it_is_named(bank):
    bank.mapping(**SLOW)
    bank.put(dead(bank, "a1", 1, U), dead(bank, "a2", 1, str(U)))
    assert "1 event would be tried again" in bank.projector("retry", str(U), "--id-kind", "string", "--dry-run").stdout
    assert bank.projector("retry", str(U), "--id-kind", "string").stdout == "1 event will be tried again\n"
    assert statuses(bank) == {("UUID", "a1"): "dead", ("str", "a2"): "pending"}
    assert bank.projector("skip", str(U), "--id-kind", "int").returncode == 1
    assert bank.projector("skip", str(U), "--id-kind", "number").returncode == 2
    assert bank.projector("skip", str(U), "--id-kind", "uuid").stdout.endswith("\n1 event skipped\n")
    assert statuses(bank) == {("str", "a2"): "pending"}


def test_the_page_acts_on_the_event_that_it_shows(bank):
    token = bank.folder / "token"
    token.touch(mode=0o600)
    token.write_text(TOKEN)
    bank.mapping(http="127.0.0.1:0", admin_token_file=str(token), **SLOW)
    bank.put(dead(bank, "a1", 1, U), dead(bank, "a2", 1, str(U)), dead(bank, 5, 1, "number"), dead(bank, "5", 1, "text"))
    entity(bank, 5, 1)
    with bank.start_projector() as process:
        endpoint = Endpoint(process)
        troubles = bank.wait(lambda: len(t := endpoint.get("/live").json["troubles"]) == 4 and t, what="the dead events")
        assert {(t["event_id"], t["event_id_kind"], t["aggregate_id_kind"]) for t in troubles} == {
            (str(U), "uuid", "string"), (str(U), "string", "string"), ("number", "string", "int"), ("text", "string", "string")}
        for kind, account in ("uuid", "a1"), ("string", "a2"):
            assert endpoint.act("show", {"event_id": str(U), "event_id_kind": kind}).json["aggregate_id"] == account
        assert endpoint.act("skip", {"event_id": str(U), "event_id_kind": "uuid"}).json == {"count": 1}
        assert bank.outbox.find_one({"_id": str(U)})["status"] == "dead"
        five = {"aggregate_type": "account", "aggregate_id": "5"}
        assert endpoint.act("refresh", five).status == 409
        assert endpoint.act("refresh", {**five, "aggregate_id_kind": "int"}).json == {"version": 1, "left": 0}
        assert endpoint.act("explain", {**five, "aggregate_id_kind": "string"}).json["outbox"][0]["event_id"] == "text"
        for wrong in {**five, "aggregate_id_kind": "number"}, {"event_id": "x", "aggregate_id_kind": "int"}, {**five, "kind": "int"}:
            assert endpoint.act("retry", wrong).status == 400, wrong
    assert bank.outbox.find_one({"_id": "text"})["status"] == "dead"


def test_what_mongodb_refuses_is_listed_without_its_namesake(bank):
    bank.outbox.insert_many([{**bank.event("a1", "AccountOpened"), "_id": U}, {**bank.event("a2", "AccountOpened"), "_id": str(U)}])
    bank.db["projector_leases"].insert_one({"_id": f"refused:{bank.name}", "count": 1, "events": [
        {"event_id": U, "class": "data", "code": 121, "message": "refused"}]})
    assert [(e["event_id_kind"], e["state"]) for e in listed(bank, "--state", "refused")] == [("uuid", "refused")]
