"""Feeds: every event is copied into each feed, at the latest before it leaves the outbox, whatever removes it."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from datetime import datetime

import bson
import pytest
from bson import Int64

from endpoint import Endpoint
from feeds import FEED, SETTINGS, checks, deposited, feed_documents, fold, opened, reader_mapping, start_reader, turnover, using
from workspace import ROOT, Workspace, bank_projections, decimal, said

OWN = {"status", "attempts", "next_attempt_at", "claimed_by", "claimed_at", "last_error", "fed_at", "fed_to"}
SECOND = "outbox_audit"
MOMENT = datetime(2024, 5, 6, 7, 8, 9, 123000)


@pytest.fixture(params=["delete", "archive"])
def fed(request, ws: Workspace) -> Workspace:
    """A workspace with two feeds."""
    ws.mapping(mongodb={"feeds": [FEED, SECOND], "retain": request.param}, **SETTINGS)
    ws.create()
    assert ws.outbox_program("init", "--feed", FEED, "--feed", SECOND).returncode == 0
    return ws


@pytest.fixture
def one(ws: Workspace) -> Workspace:
    ws.mapping(mongodb={"feeds": [FEED]}, **SETTINGS)
    ws.create()
    return ws


def fail_for_ever(ws: Workspace, account: str = "a9", status: str = "dead") -> dict:
    """An event that stays in the outbox."""
    event = {**deposited(ws, account), "status": status, "attempts": 10,
             "last_error": {"class": "data", "code": 0, "message": "row missing", "at": MOMENT},
             "next_attempt_at": datetime(2200, 1, 1)}
    ws.put(event)
    return event


# what is copied when


def test_each_feed_has_every_event_as_it_was_written(fed):
    events = [opened(fed, "a1", metadata={"trace": "t1"}), deposited(fed, "a1"), opened(fed, "a2")]
    fed.put(events)
    fed.run_once()
    assert fed.outbox.find_one() is None and len(fed.rows("account")) == 2
    for feed in FEED, SECOND:
        copies = feed_documents(fed, feed)
        assert [c["_id"] for c in copies] == [e["_id"] for e in events]
        assert copies[0]["metadata"] == {"trace": "t1"} and copies[1]["payload"] == events[1]["payload"]
        assert not any(OWN & copy.keys() for copy in copies)


def test_no_feed_no_mark(bank):
    fail_for_ever(bank)
    bank.put(opened(bank, "a1"))
    with bank.start_projector():
        bank.wait(lambda: bank.outbox.count_documents({}) == 1)
        bank.put(opened(bank, "a2"))
        bank.wait(lambda: len(bank.rows("account")) == 2)
    assert "fed_at" not in bank.outbox.find_one()


def test_what_stays_is_copied_meanwhile_in_order_and_marked(fed):
    """A dead event and those held behind it: the feed does not hold them back."""
    dead = fail_for_ever(fed, "a1")
    held = [deposited(fed, "a1", f"{n}.00") for n in range(1, 20)]
    fed.put(held)
    with fed.start_projector():
        for feed in FEED, SECOND:
            fed.wait(lambda: fed.db[feed].count_documents({}) == 20, what=f"20 copies in {feed}")
        fed.wait(lambda: fed.outbox.count_documents({"fed_at": {"$exists": True}}) == 20)
    assert fed.found(dead)["status"] == "dead" and fed.outbox.count_documents({}) == 20
    for feed in FEED, SECOND:
        natural = [c["_id"] for c in fed.db[feed].find().sort("$natural", 1)]
        assert natural == [dead["_id"], *(e["_id"] for e in held)]
        assert not any(OWN & copy.keys() for copy in feed_documents(fed, feed))


@pytest.mark.thorough
def test_while_mysql_takes_nothing_events_reach_the_feed(one):
    one.put(opened(one, "a1"))
    with one.start_projector():
        one.wait_drained()
        with one.stores.mysql(one.name) as connection, connection.cursor() as cursor:
            connection.begin()
            cursor.execute("SELECT * FROM projector_fence FOR UPDATE")
            one.put([deposited(one, "a1") for _ in range(2500)])
            one.wait(lambda: one.db[FEED].count_documents({}) == 2501, what="all copies")
            assert one.rows("account")[0]["balance"] == 10
            connection.rollback()
        one.wait_drained()
    assert one.rows("account")[0]["balance"] == 2510
    assert one.db[FEED].count_documents({}) == 2501


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("way", ["skip", "retry"])
def test_what_was_copied_before_is_not_copied_again_when_it_leaves(fed, way):
    """By then the ledger of the feed's reader may have forgotten it."""
    bad = deposited(fed, "a1")
    fed.put(bad)
    fed.mapping(mongodb={"feeds": [FEED, SECOND]}, **{**SETTINGS, "max_attempts": 1})
    with fed.start_projector():
        fed.wait_status(bad, "dead")
        fed.wait(lambda: (fed.found(bad) or {}).get("fed_at"))
        for feed in FEED, SECOND:
            fed.db[feed].delete_many({})  # the readers have applied it
        if way == "retry":
            fed.query("INSERT INTO account (account_id, user_id, name, balance, updated_at) VALUES ('a1', 'u1', 'Ada', 1, NOW())")
        assert fed.projector(way, str(bad["_id"])).returncode == 0
        fed.wait_gone(bad)
        fed.put(opened(fed, "a2"))
        fed.wait(lambda: fed.db[SECOND].find_one())
    for feed in FEED, SECOND:
        assert [c["aggregate_id"] for c in feed_documents(fed, feed)] == ["a2"]


def test_marked_events_of_an_earlier_process_are_not_copied_again(one):
    one.put({**opened(one, "a1"), "fed_at": MOMENT, "fed_to": [FEED]}, opened(one, "a2"))
    one.run_once()
    assert [c["aggregate_id"] for c in feed_documents(one)] == ["a2"]


def test_a_feed_that_is_named_later_gets_what_waits(one):
    """`fed_to` records which feeds have it."""
    dead = fail_for_ever(one)
    one.put({**deposited(one, "a8"), "fed_at": MOMENT, "fed_to": [FEED], "status": "dead", "attempts": 10})
    one.mapping(mongodb={"feeds": [FEED, SECOND]}, **SETTINGS)
    with one.start_projector():
        one.wait(lambda: one.db[SECOND].count_documents({}) == 2)
        one.wait(lambda: set(one.outbox.find_one({"aggregate_id": "a8"})["fed_to"]) == {FEED, SECOND})
    assert [c["_id"] for c in feed_documents(one)] == [dead["_id"]]


def test_a_copy_that_its_reader_has_claimed_stays_as_it_is(fed):
    event = opened(fed, "a1")
    claim = {"status": "dead", "attempts": 7, "claimed_by": "another"}
    fed.db[FEED].insert_one({**event, **claim})
    fed.put(event, opened(fed, "a2"))
    fed.run_once()
    assert fed.outbox.find_one() is None  # it is not refused either
    copy, other = feed_documents(fed)
    assert claim.items() <= copy.items() and other["aggregate_id"] == "a2"


def test_what_the_sweeper_takes_out_is_copied_before(fed):
    event = {**opened(fed, "a1"), "status": "in_progress", "claimed_by": "gone", "claimed_at": datetime(2020, 1, 1), "attempts": 1}
    fed.query("INSERT INTO projector_applied (projector, event_id_kind, event_id, applied_at, outcome) "
              "VALUES (%s, 'uuid', %s, NOW(6), 'applied')", fed.name, str(event["_id"]))
    fed.put(event)
    fed.run_once()
    assert fed.outbox.find_one() is None
    assert [c["_id"] for c in feed_documents(fed)] == [event["_id"]]
    assert not OWN & feed_documents(fed)[0].keys()


@pytest.mark.thorough
def test_what_the_sweeper_takes_out_takes_what_came_before_it_along(fed):
    """A dead owner's last batch, spanning many aggregates, is
    swept before the events that its acker had not reached."""
    events = [opened(fed, f"a{n}") for n in range(120)] + [deposited(fed, f"a{n}", f"{i}.00") for i in (1, 2, 3) for n in range(120)]
    for event in events:
        fed.query("INSERT INTO projector_applied (projector, event_id_kind, event_id, applied_at, outcome) "
                  "VALUES (%s, 'uuid', %s, NOW(6), 'applied')", fed.name, str(event["_id"]))
    claim = {"status": "in_progress", "claimed_by": "gone", "claimed_at": datetime(2020, 1, 1), "attempts": 1}
    fed.put([{**e, **claim} if e["payload"].get("amount") in (decimal("1.00"), decimal("3.00")) else e for e in events])
    fed.run_once()
    for feed in FEED, SECOND:
        natural = list(fed.db[feed].find().sort("$natural", 1))
        assert len(natural) == len(events)
        for n in range(120):
            amounts = [str(c["payload"].get("amount", "opened")) for c in natural if c["aggregate_id"] == f"a{n}"]
            assert amounts == ["opened", "1.00", "2.00", "3.00"]


def test_a_skipped_event_is_copied_before(fed):
    dead = fail_for_ever(fed)
    assert fed.projector("skip", str(dead["_id"])).returncode == 0
    assert [c["_id"] for c in feed_documents(fed, SECOND)] == [dead["_id"]]


def test_an_event_that_a_refresh_supersedes_is_copied_before(fed):
    fed.accounts.insert_one({"_id": "a9", "version": Int64(5), "last_event_at": MOMENT, "user_id": "u1", "name": "Ada",
                             "balance": decimal("7.00")})
    dead = {**fail_for_ever(fed), "version": Int64(5)}
    fed.outbox.replace_one({"_id": dead["_id"]}, dead)
    assert fed.projector("refresh", "account", "a9").returncode == 0
    fed.run_once()
    assert fed.outbox.find_one() is None and len(feed_documents(fed)) == 1


def test_events_put_back_from_the_archive_are_not_fed_again(ws):
    """After a restore of MySQL: the feed's reader has not lost anything."""
    ws.mapping(mongodb={"feeds": [FEED], "retain": "archive"}, **SETTINGS)
    ws.create()
    events = [{**opened(ws, "a1"), "version": Int64(1)}, {**deposited(ws, "a1"), "version": Int64(2)}]
    ws.put(events)
    ws.run_once()
    ws.db[FEED].delete_many({})
    for table in "account", "projector_applied", "projector_position":
        ws.query(f"DELETE FROM {table}")
    ws.put({**deposited(ws, "a1"), "version": Int64(3)})
    with ws.start_projector():
        ws.wait(lambda: ws.rows("account") and ws.rows("account")[0]["balance"] == 12)
        ws.wait_drained()
    assert [c["version"] for c in feed_documents(ws)] == [3]


def outbox_status(ws: Workspace) -> dict:
    return json.loads(ws.projector("status", "--json").stdout)["outbox"]


def listed(ws: Workspace, *arguments: str) -> dict[str, dict]:
    return {row["event_id"]: row for row in map(json.loads, ws.projector("list", "--json", *arguments).stdout.splitlines())}


@pytest.mark.thorough
@pytest.mark.parametrize("refused_by", ["validator", "unique index"])
def test_a_copy_that_a_feed_refuses_holds_only_its_aggregate(one, refused_by):
    """Not even a new owner is kept from working, whose predecessor had the event in hand. In the feed nothing of the
    aggregate comes before it."""
    bad = opened(one, "a1", tag="bad")
    one.db.create_collection(FEED)
    if refused_by == "validator":
        one.db.command("collMod", FEED, validator={"tag": {"$ne": "bad"}})
    else:
        one.db[FEED].create_index("tag", unique=True, sparse=True)
        one.db[FEED].insert_one({"_id": "other", "tag": "bad"})
    others = [opened(one, f"b{n}") for n in range(30)]
    one.put([*others[:15], bad, deposited(one, "a1"), *others[15:]])
    with one.start_projector() as projector:
        one.wait_gone(*others)
        projector.wait_log(f"applied event cannot leave the outbox .*aggregate=\"account a1\".*the feed {FEED}")
        told = one.wait(lambda: listed(one).get(str(bad["_id"])))
        assert told["state"] == "refused" and FEED in told["reason"]["message"]
        projector.kill()
    with one.start_projector():
        one.put(later := opened(one, "a2"))
        one.wait_gone(later)
        assert one.outbox.count_documents({}) == 2 and one.db[FEED].find_one({"aggregate_id": "a1"}) is None
        one.db.command("collMod", FEED, validator={})
        one.db[FEED].delete_one({"_id": "other"})
        one.wait_drained()
    copies = one.db[FEED].find({"aggregate_id": "a1"}).sort("$natural", 1)
    assert [c["event_type"] for c in copies] == ["AccountOpened", "MoneyDeposited"]
    assert one.db[FEED].count_documents({}) == 33 and one.rows("account")[0]["balance"] == 11


def test_an_event_is_not_taken_for_the_copy_of_another(one):
    """A collation that the feed got while the projector ran takes both ids for equal."""
    with one.start_projector() as projector:
        projector.wait_log("info working")
        one.db.drop_collection(FEED)
        one.db.create_collection(FEED, collation={"locale": "en", "strength": 2})
        one.put(first := {**opened(one, "a1"), "_id": "zz"})
        one.wait_gone(first)
        one.put({**opened(one, "a2"), "_id": "ZZ"})
        projector.wait_log('applied event cannot leave the outbox .*aggregate="account a2".*another event')
        assert [e["_id"] for e in one.outbox.find()] == ["ZZ"]
        one.put(repeated := {**opened(one, "a1"), "_id": "zz"})
        one.wait_gone(repeated)


@pytest.mark.thorough
def test_many_copies_that_a_feed_refuses_hold_no_other_aggregate_for_long(one):
    one.db.create_collection(FEED, validator={"tag": {"$ne": "bad"}})
    bad = [opened(one, f"a{n}", tag="bad") for n in range(50)]
    good = [opened(one, f"b{n}") for n in range(50)]
    one.put(*[event for pair in zip(bad, good, strict=True) for event in pair])
    with one.start_projector() as projector:
        one.wait_gone(*good)
        projector.wait_log("applied event cannot leave the outbox")
        assert one.outbox.count_documents({}) == 50
        one.db.command("collMod", FEED, validator={})
        one.wait_drained()
    assert one.db[FEED].count_documents({}) == 100


@pytest.mark.parametrize("refused", ["copy", "mark"])
def test_a_waiting_event_that_is_refused_keeps_no_other_from_the_feed(one, refused):
    where, field = (FEED, "_id") if refused == "copy" else ("outbox", "fed_at")
    one.db.create_collection(FEED)
    with one.start_projector() as projector:
        projector.wait_log("info working")
        one.db.command("collMod", where, validator={"$or": [{"tag": {"$ne": "bad"}}, {field: {"$exists": False}}]})
        one.put(bad := {**deposited(one, "a1", tag="bad"), "status": "dead", "attempts": 10})
        one.put(deposited(one, "a1"))
        fail_for_ever(one, "a3")
        projector.wait_log("event cannot be (copied|marked as copied) into the feeds .*aggregate=\"account a1\"")
        one.wait(lambda: one.outbox.count_documents({"aggregate_id": "a3", "fed_at": {"$exists": True}}) == 1)
        one.wait(lambda: one.db[FEED].count_documents({"aggregate_id": "a1"}) == (0 if refused == "copy" else 2), what="the copies")
        one.db.command("collMod", where, validator={})
        one.wait(lambda: one.db[FEED].count_documents({"aggregate_id": "a1"}) == 2)
    copies = one.db[FEED].find({"aggregate_id": "a1"}).sort("$natural", 1)
    assert next(copies)["_id"] == bad["_id"]


@pytest.mark.thorough
def test_an_event_that_has_no_room_for_the_marks_of_the_archive_holds_only_its_aggregate(ws):
    ws.mapping(mongodb={"retain": "archive"}, **SETTINGS)
    ws.create()
    large = opened(ws, "a1", metadata={"filler": ""})
    large["metadata"]["filler"] = "x" * (16 * 1024 * 1024 - len(bson.encode(large)) - 5)
    ws.put(large, other := opened(ws, "a2"))
    with ws.start_projector() as projector:
        ws.wait_gone(other)
        projector.wait_log('applied event cannot leave the outbox .*aggregate="account a1".*class=size')
        assert len(ws.rows("account")) == 2
        ws.outbox.update_one({"_id": large["_id"]}, {"$unset": {"metadata": 1}})
        ws.wait_drained()
    assert ws.db.outbox_archive.count_documents({}) == 2


def test_copies_are_on_a_majority_before_the_event_leaves(one):
    one.mongo.admin.command("profile", 0)
    one.db.command("profile", 2)
    try:
        one.put(opened(one, "a1"))
        one.run_once()
    finally:
        one.db.command("profile", 0)
    written = list(one.db["system.profile"].find({"ns": f"{one.name}.{FEED}", "op": "insert"}))
    assert written and all(w["command"]["writeConcern"]["w"] == "majority" for w in written)


@pytest.mark.whole_server  # failCommand
def test_a_copy_in_front_of_a_known_one_is_on_a_majority_too(one):
    """An insert that ends at a copy which is there already says of those before it only whether the majority has them."""
    events = [opened(one, "a1"), deposited(one, "a1")]
    one.db[FEED].insert_one(events[1])
    one.put(events)
    data = {"failCommands": ["insert"], "appName": "projector", "namespace": f"{one.name}.{FEED}",
            "writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}}
    one.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})
    try:
        with one.start_projector() as projector:
            one.wait(lambda: "the majority has not confirmed the copies" in projector.log_text() or one.outbox.find_one() is None)
            assert one.outbox.count_documents({}) == 2
            one.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
            one.wait_drained()
    finally:
        one.mongo.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
    assert len(feed_documents(one)) == 2


# the second read model


def test_an_empty_name_which_the_driver_refuses_by_default_reaches_the_feed(fed):
    """An event is copied as its writer's driver wrote it."""
    event = opened(fed, "a1")
    event["payload"][""] = {"": 2}
    fed.put(event)
    assert "warning" not in fed.run_once().stderr
    [copy] = feed_documents(fed)
    assert copy["payload"] == event["payload"]


@pytest.mark.thorough
def test_a_second_read_model_with_another_mapping(fed):
    fed.create()
    readers = reader_mapping(fed)
    events = [opened(fed, f"a{n}") for n in range(20)] + [deposited(fed, f"a{n % 20}", f"0.{n:02}") for n in range(100)]
    with fed.start_projector() as main, start_reader(fed, readers) as reader:
        fed.put(events)
        fed.wait_drained()
        fed.wait(lambda: fed.db[FEED].find_one() is None, what="an empty feed")
        assert main.stop() == 0 and reader.stop() == 0
    assert turnover(fed) == fold(events) and len(fed.rows("account")) == 20
    assert fed.db[SECOND].count_documents({}) == len(events)


@pytest.mark.thorough
def test_a_reader_that_is_away_for_longer_than_its_ledger_lasts(one):
    """What it had applied before is not fed again when it leaves the outbox; newer events are in the feed."""
    readers = reader_mapping(one)
    first, stuck = opened(one, "a1"), {**deposited(one, "a1", "7.00"), "status": "dead", "attempts": 10}
    behind = deposited(one, "a1", "2.00")
    with one.start_projector():
        with start_reader(one, readers) as reader:
            one.put(first)
            one.wait_drained()
            one.put(stuck, behind)
            one.wait(lambda: turnover(one).get("a1", (0, 0))[1] == 9, what="what is stuck here, applied there")
            one.wait(lambda: one.outbox.count_documents({"fed_to": FEED}) == 2 and not one.db[FEED].find_one())
            assert reader.stop() == 0
        one.query("DELETE FROM projector_applied WHERE projector <> %s", one.name)  # as if its retention had passed
        assert one.projector("retry", str(stuck["_id"])).returncode == 0
        meanwhile = [deposited(one, "a1", "0.50") for _ in range(40)]
        one.put(meanwhile)
        one.wait_drained()
        assert one.db[FEED].count_documents({}) == 40
        with start_reader(one, readers):
            one.wait(lambda: one.db[FEED].find_one() is None, what="an empty feed")
    assert turnover(one) == fold([first, stuck, behind, *meanwhile])


def test_what_a_reader_has_in_hand_is_in_progress_in_the_feed_alone(one):
    readers = reader_mapping(one, mysql={"lock_wait_s": 600})
    one.put(event := opened(one, "a1"))
    one.run_once()
    one.put(event)  # sent again, it waits here
    with one.stores.mysql(one.name) as holder, holder.cursor() as cursor, start_reader(one, readers):
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO turnover VALUES ('a1', 0, 0, 0)")
        with using(one, readers):
            one.wait(lambda: outbox_status(one)["in_progress"] == 1, what="an event in the reader's hand")
        told = outbox_status(one)
        assert (told["pending"], told["in_progress"]) == (1, 0)
        assert list(listed(one, "--state", "pending")) == [str(event["_id"])] and listed(one, "--state", "in_progress") == {}


def test_a_second_name_on_one_outbox_is_told_of_feeds(one):
    one.run_once()
    one.mapping(name=f"{one.name}_other")
    message = one.projector("run", "--once")
    assert message.returncode == 2 and '"feeds"' in message.stderr and one.name in message.stderr


def test_a_dropped_feed_is_made_anew(one):
    one.put(opened(one, "a1"))
    readers = reader_mapping(one)
    with one.start_projector(), start_reader(one, readers):
        one.wait(lambda: turnover(one))
        one.db.drop_collection(FEED)
        events = [deposited(one, "a1") for _ in range(50)]
        one.put(events)
        one.wait_drained()
        one.wait(lambda: turnover(one)["a1"][1] == 50, what="deposits behind the drop")


# configuration, check, status


@pytest.mark.parametrize("feeds, complaint", [
    (["outbox"], "collections other than the outbox"), (["outbox_archive"], "collections other than the outbox"),
    (["projector_leases"], "collections other than the outbox"), (["f", "f"], "each feed once"), ("f", "an array"),
    (["$f"], "the name of a collection"), ([5], "a string"), (["accounts"], "accounts is a feed")])
def test_feeds_that_cannot_be(ws, feeds, complaint):
    ws.mapping(mongodb={"feeds": feeds})
    assert complaint in said(ws.projector("status"), 2)


@pytest.mark.thorough
def test_status_and_check_show_the_feeds(one):
    [line] = [c for c in checks(one) if FEED in c["text"] and "no projector reads" in c["text"]]
    assert line["verdict"] == "warning"
    assert any("no index" in c["text"] and FEED in c["text"] for c in checks(one))
    one.put(opened(one, "a1"), deposited(one, "a1"))
    one.run_once()
    feed = {"name": FEED, "events": 2, "projector": None, "running": False}
    assert json.loads(one.projector("status", "--json").stdout)["feeds"] == [feed]
    assert f"{FEED}: 2 events, no reader" in one.projector("status").stdout
    assert one.outbox_program("init", "--feed", FEED).returncode == 0
    assert not any("no index" in c["text"] and FEED in c["text"] for c in checks(one))
    readers = reader_mapping(one)
    with start_reader(one, readers):
        one.wait(lambda: json.loads(one.projector("status", "--json").stdout)["feeds"][0]["running"])
        one.wait(lambda: one.db[FEED].find_one() is None)
        one.wait(lambda: not any(c["verdict"] != "ok" and FEED in c["text"] for c in checks(one)), what="nothing to mend")
    one.wait(lambda: any("is not running" in c["text"] and FEED in c["text"] and c["verdict"] == "warning" for c in checks(one)))


def test_a_reader_is_told_of_its_source(one):
    """What waits there is in no lag of the reader."""
    readers = reader_mapping(one)
    with one.start_projector(), using(one, readers):
        one.wait(lambda: (json.loads(one.projector("status", "--json").stdout)["source"] or {}).get("running"))
        assert f"the outbox is a feed of {one.name}, which is running" in one.projector("status").stdout
        assert any(c["verdict"] == "ok" and f'{FEED} is a feed that "{one.name}" copies events into' in c["text"] for c in checks(one))
        assert not any("receipts" in c["text"] and f"{FEED}_commands" in c["text"] for c in checks(one))
    with using(one, readers):
        one.wait(lambda: not json.loads(one.projector("status", "--json").stdout)["source"]["running"])
        assert "which is not running: nothing new arrives" in one.projector("status").stdout
        assert any(c["verdict"] == "warning" and "is not running: nothing new arrives here" in c["text"] for c in checks(one))
    assert json.loads(one.projector("status", "--json").stdout)["source"] is None


def test_a_reader_is_not_repaired_while_its_source_is_behind(one):
    """The entities contain what has not reached the feed."""
    one.run_once()
    entities = [{**projection, "entities": "accounts"} for projection in bank_projections()]
    file = one.mapping(entities, name=f"{one.name}_reader", mongodb={"outbox": FEED}, **SETTINGS)
    with using(one, file):
        assert one.projector("schema", "--apply").returncode == 0
        one.run_once()
        refused = said(one.projector("reconcile", "--repair"), 2)
        assert f'the projector "{one.name}", which copies events into it, is not running: entities may be ahead' in refused
        done = one.projector("reconcile")
        assert done.returncode == 0 and "entities may be ahead of the feed" in done.stderr
        assert one.projector("reconcile", "--repair", "--force").returncode == 0
        for lag_ms, status in ((60000, 2), (0, 0)):  # it runs, and is behind or is not
            one.db["projector_leases"].update_one({"_id": one.name}, [{"$set": {
                "expires_at": {"$add": ["$$NOW", 3600000]}, "prolonged_at": "$$NOW", "lag_ms": lag_ms}}])
            done = one.projector("reconcile", "--repair")
            assert done.returncode == status and ("may be behind" in done.stderr) == (status == 2), done.stderr


# a feed that is named later


def named_later(one: Workspace) -> tuple[list[dict], list[dict]]:
    """What was applied before anybody thought of a feed, and what is in it."""
    one.mapping(mongodb={"retain": "archive"}, **SETTINGS)
    before = [opened(one, f"a{n}", version=Int64(1)) for n in range(6)]
    before += [deposited(one, f"a{n % 6}", f"0.{n:02}", version=Int64(2 + n // 6)) for n in range(12)]
    one.put(before)
    one.run_once()
    one.mapping(mongodb={"retain": "archive", "feeds": [FEED]}, **SETTINGS)
    fed = [deposited(one, f"a{n}", "1.00", version=Int64(4)) for n in range(6)] + [opened(one, "a9", version=Int64(1))]
    one.put(fed)
    one.run_once()
    assert [c["_id"] for c in feed_documents(one)] == [e["_id"] for e in fed]
    return before, fed


@pytest.mark.thorough
@pytest.mark.parametrize("away", [False, True])
def test_a_feed_that_is_named_later_is_filled_from_the_archive(one, away):
    """By the steps of docs/feeds.md: what is in the archive and in the feed counts once; and its own replay gives the same."""
    before, fed = named_later(one)
    readers = reader_mapping(one, mongodb={"retain": "archive"})
    [stages] = re.findall(r"db\.outbox_archive\.aggregate\((\[.*?\])\)\n", (ROOT / "docs/feeds.md").read_text(), re.S)
    pipeline = json.loads(re.sub(r"([{,]\s*)([$\w]+):", r'\1"\2":', stages))
    for _ in range(2):
        one.db["outbox_archive"].aggregate(pipeline)
    assert not any(OWN & copy.keys() for copy in feed_documents(one)) and len(feed_documents(one)) == len(before + fed)
    one.put(last := deposited(one, "a1", "5.00", version=Int64(5)))
    if away:
        one.run_once()
    with start_reader(one, readers):
        if not away:
            one.run_once()
        one.wait(lambda: one.db[FEED].find_one() is None, what="an empty feed")
        assert turnover(one) == fold([*before, *fed, last])
        with using(one, readers):
            done = one.projector("replay", "--projection", "turnover")
        assert done.returncode == 0, done.stderr
    assert turnover(one) == fold([*before, *fed, last])


@pytest.mark.thorough
@pytest.mark.parametrize("shadow", [[], ["--shadow"]])
def test_a_feed_that_is_named_later_is_filled_by_rebuild_of_its_projector(one, tmp_path, shadow):
    one.environment["XDG_STATE_HOME"] = str(tmp_path / "state")
    before, fed = named_later(one)
    sums = {account: opened_with + paid_in for account, (opened_with, paid_in, _) in fold(before + fed).items()}
    one.accounts.insert_many({"_id": account, "version": Int64(1 if account == "a9" else 4), "user_id": "u1", "name": "Ada",
                              "balance": decimal(str(sum)), "last_event_at": fed[-1]["occurred_at"]} for account, sum in sums.items())
    own = one.file
    [projection] = bank_projections()
    readers = one.mapping([{**projection, "table": "second", "events": {name: rule for name, rule in projection["events"].items() if rule["op"] != "sql"}}],
                          name=f"{one.name}_second", mongodb={"outbox": FEED}, **SETTINGS, max_attempts=1000)
    assert one.projector("schema", "--apply").returncode == 0
    one.file = own
    with start_reader(one, readers):
        one.wait(lambda: one.db[FEED].count_documents({"status": "failed"}) >= 1 and len(one.rows("second")) == 1, what="deltas without rows")
        with using(one, readers):
            done = one.projector("rebuild", *shadow, "second")
            assert done.returncode == 0, done.stderr
        one.put(last := deposited(one, "a1", "5.00", version=Int64(5)))
        one.run_once()
        one.wait(lambda: one.db[FEED].find_one() is None, what="an empty feed")
    sums["a1"] += last["payload"]["amount"].to_decimal()
    assert {row["account_id"]: row["balance"] for row in one.rows("second")} == sums


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ("feed", "archive"))
def test_an_owner_with_an_older_mapping_file_is_told(ws, kind):
    """A new feed: all processes are restarted, and the standby takes over with what it has read before."""
    section, collection = ({"feeds": [FEED]}, FEED) if kind == "feed" else ({"retain": "archive"}, "outbox_archive")
    lacks = f"copies no events into {collection}"
    former = ws.mapping(**SETTINGS)
    ws.create()
    with ws.start_projector() as old:
        old.wait_log("info working")
        ws.mapping(mongodb=section, http="127.0.0.1:0", **SETTINGS)
        ws.outbox_program("init", "--feed", FEED, check=True)
        ws.wait(lambda: lacks in ws.projector("check").stdout, what="check to say so")
        assert f"{collection} gets no events from the owner" in ws.projector("status").stdout
        with ws.start_projector() as new:
            page = Endpoint(new)
            ws.wait(lambda: lacks in page.get("/live").text, what="the page to say so")
            old.stop()
            new.wait_log("info working")
            assert lacks not in ws.projector("check").stdout and "no longer copied" not in new.log_text()
    ws.file = former
    with ws.start_projector() as dropping:
        dropping.wait_log(f'events are no longer copied into a collection.* collection={collection}')
