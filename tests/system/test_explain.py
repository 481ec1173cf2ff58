"""`explain`: everything known about one aggregate."""

from __future__ import annotations

import json
import re

import pytest
from bson import Int64

from entities import account, fill, opened
from workspace import decimal


@pytest.fixture(autouse=True)
def state_folder(ws, tmp_path):
    ws.environment["XDG_STATE_HOME"] = str(tmp_path / "state")


def test_explain_shows_one_aggregate(bank):
    bank.mapping(mongodb={"retain": "archive"}, max_attempts=1)
    fill(bank, [account(1), account(2)])
    bad = bank.event("a1", "AccountRenamed", 2)  # no name
    waiting = bank.event("a1", "MoneyDeposited", 3, amount=decimal("1.00"))
    bank.put(bad, waiting)
    bank.run_once()
    bank.wait_status(bad, "dead")
    bank.accounts.update_one({"_id": "a1"}, {"$set": {"version": Int64(3), "balance": decimal("11.50")}})
    said = bank.projector("explain", "account", "a1")
    assert said.returncode == 0, said.stderr
    for line in (r"position +applied up to version 1\n +last event [0-9a-f-]{36} of ", r"outbox +2 events",
                 rf"  dead +{bad['_id']}  AccountRenamed\n +version 2 .* 1 attempt\n +account: payload.name: expected",
                 rf"  held +{waiting['_id']}", r"archive +1 event\n  archived ", r"entity +accounts: version 3",
                 r"row +account: lagging", r"  different +balance: entity 11.50, row 10.50\n", r"   name: Ada 1\n"):
        assert re.search(line, said.stdout), (line, said.stdout)

    bank.query("UPDATE account SET name = 'Eve' WHERE account_id = 'a2'")
    assert "row         account: different columns" in bank.projector("explain", "account", "a2").stdout
    bank.query("DELETE FROM account WHERE account_id = 'a2'")
    assert "row         account: missing row" in bank.projector("explain", "account", "a2").stdout
    nobody = bank.projector("explain", "account", "nobody")
    assert (nobody.returncode, nobody.stdout) == (1, "no entity and no event of account nobody\n")
    assert bank.projector("explain", "account").returncode == 2


def explain(ws, *arguments, status=0):
    done = ws.projector("explain", "--json", *arguments)
    assert (done.returncode, done.stderr) == (status, ""), done
    return json.loads(done.stdout)


def test_explain_as_json(bank):
    bank.mapping(mongodb={"retain": "archive"}, max_attempts=1)
    fill(bank, [account(1), account(2)])
    bad = bank.event("a1", "AccountRenamed", 2)  # no name
    waiting = bank.event("a1", "MoneyDeposited", 3, amount=decimal("1.00"))
    bank.put(bad, waiting)
    bank.run_once()
    bank.wait_status(bad, "dead")
    bank.accounts.update_one({"_id": "a1"}, {"$set": {"version": Int64(3), "balance": decimal("11.50")}})
    said = explain(bank, "account", "a1")
    [opened], [dead, pending], [row] = said["archive"], said["outbox"], said["projections"]
    assert (said["aggregate_type"], said["aggregate_id"], said["found"]) == ("account", "a1", True)
    assert said["position"] == {"version": 1, "event_id": opened["event_id"], "occurred_at": opened["occurred_at"],
                                "refreshed_version": None}
    assert (opened["state"], opened["ledger"]["outcome"]) == ("archived", "applied")
    assert opened["ledger"]["applied_at"] > "2026"
    assert (dead["event_id"], dead["state"], dead["attempts"], dead["ledger"]) == (str(bad["_id"]), "dead", 1, None)
    assert "payload.name: expected" in dead["reason"]["message"]
    assert (pending["event_id"], pending["state"], pending["version"]) == (str(waiting["_id"]), "held", 3)
    assert (row["table"], row["entities"], row["entity"]["version"], row["finding"]) == ("account", "accounts", 3, "lagging")
    assert row["columns"]["balance"] == {"entity": "11.50", "row": "10.50", "different": True}
    assert row["columns"]["name"] == {"entity": "Ada 1", "row": "Ada 1", "different": False}
    assert "payload" not in json.dumps(said["outbox"][1:])

    assert explain(bank, "account", "a2")["projections"][0]["finding"] == "equal"
    bank.query("DELETE FROM account WHERE account_id = 'a2'")
    [row] = explain(bank, "account", "a2")["projections"]
    assert row["finding"] == "missing row" and "row" not in row["columns"]["name"]
    bank.accounts.update_one({"_id": "a2"}, {"$set": {"name": True}})
    [row] = explain(bank, "account", "a2")["projections"]
    assert row["finding"] == "unmappable entity" and row["reason"] == "payload.name: expected varchar(100), found bool true"
    assert explain(bank, "account", "nobody", status=1) == {"aggregate_type": "account", "aggregate_id": "nobody", "found": False}


HOSTILE = ["a' OR '1'='1", "`; DROP TABLE account; --", '{"$ne": null}', "$where", "line\nbreak \x1b[2J", "\x9b31m", "Ζωή 🏦", "\\", " ", "-5"]


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("name", HOSTILE)
def test_explain_of_ids_that_mean_mischief(bank, name):
    """A hostile id is mere text to both stores and to the terminal."""
    fill(bank, [account(1)])
    nobody = bank.projector("explain", "--", "account", name)
    assert nobody.returncode == 1 and not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", nobody.stdout)
    assert explain(bank, "--", "account", name, status=1)["aggregate_id"] == name
    fill(bank, [account(1) | {"_id": name}])
    assert explain(bank, "--", "account", name)["projections"][0]["finding"] == "equal"
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", bank.projector("explain", "--", "account", name).stdout)


def test_explain_of_what_is_no_text(bank):
    done = bank.projector("explain", "--json", "acc\udcffount", "a\udcfe1")
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr
    if done.stdout:
        assert json.loads(done.stdout)["found"] is False


def test_a_row_that_is_marked_as_deleted_is_said_to_be_there(ws):
    ws.mapping([{"aggregate_type": "account", "table": "a", "entities": "accounts", "key": {"id": {"from": "$aggregate_id", "type": "varchar(9)"}},
                 "columns": {"gone": {"from": "gone", "type": "datetime(3)", "null": True}},
                 "events": {"Opened": {"op": "upsert"}, "Closed": {"op": "delete", "set": {"gone": "$occurred_at"}}}}],
               mongodb={"retain": "archive"})
    ws.create()
    ws.put(ws.event("a1", "Opened", 1), ws.event("a1", "Closed", 2), ws.event("a2", "Closed", 1))
    ws.run_once()
    assert re.search(r"row +a: marked as deleted, and no entity\n +id: a1\n", ws.projector("explain", "account", "a1").stdout)
    assert re.search(r"row +a: none, and no entity\n", ws.projector("explain", "account", "a2").stdout)
    assert [explain(ws, "account", id)["projections"][0]["marked"] for id in ("a1", "a2")] == [True, False]
