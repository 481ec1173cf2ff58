"""When archived events get the numbers with which they can be fetched."""

from __future__ import annotations

from datetime import datetime

from bson import Int64

from feeds import deposited, opened
from test_events import archive_all, kept, lines, numbered  # noqa: F401 - a fixture
from workspace import said


def test_what_a_single_run_has_archived_can_be_fetched_at_once(kept):
    kept.put([deposited(kept, f"a{n}") for n in range(20)], [opened(kept, f"b{n}") for n in range(1100)])
    kept.run_once()
    assert [e["cursor"] for e in lines(kept)] == list(range(1, 1101))


def test_events_behind_a_page_that_was_there_before_are_numbered_too(bank):
    """Without the archive's indexes a cursor's result is sorted as a whole, and shows nothing that came later. It has several
    pages, so that it is still open when the run's events come."""
    bank.mapping(mongodb={"retain": "archive"}, workers=1)
    bank.db["outbox_archive"].insert_many({**deposited(bank, f"a{n}"), "applied_at": datetime(2024, 1, 1)} for n in range(5000))
    bank.put([opened(bank, f"b{n}") for n in range(50)])
    bank.run_once()
    assert bank.db["outbox_archive"].count_documents({"seq": {"$exists": False}}) == 0
    assert [e["cursor"] for e in lines(bank)] == list(range(1, 5051))


def test_versions_of_an_aggregate_that_are_archived_together_are_numbered_in_their_order(kept):
    """Their ids are random, and MongoDB reads by id what is copied by id."""
    kept.put([{**opened(kept, f"a{n}"), "version": Int64(1)} for n in range(10)],
             [{**deposited(kept, f"a{n % 10}"), "version": Int64(2 + n // 10)} for n in range(300)])
    with kept.start_projector():
        kept.wait_drained()
        numbered(kept, 310)
    seen: dict[str, int] = {}
    for event in lines(kept):
        assert event["version"] == seen.get(event["aggregate_id"], 0) + 1
        seen[event["aggregate_id"]] = event["version"]


def test_copies_reach_the_archive_in_their_order(kept):
    """What is read from the archive by its natural order was copied in that order."""
    kept.put([{**opened(kept, f"a{n}"), "version": Int64(1)} for n in range(300)])
    kept.run_once()
    times = [event["occurred_at"] for event in kept.db["outbox_archive"].find().sort("$natural", 1)]
    assert times == sorted(times)


def test_a_counter_that_is_older_than_the_archive_gives_no_number_twice(kept):
    """projector_leases alone was restored."""
    archive_all(kept, *(opened(kept, f"a{n}") for n in range(5)))
    assert kept.db["projector_leases"].update_one({"_id": "events:outbox"}, {"$set": {"seq": Int64(2)}}).matched_count == 1
    archive_all(kept, *(opened(kept, f"b{n}") for n in range(3)))
    assert [e["cursor"] for e in lines(kept)] == list(range(1, 9))


def test_a_cursor_before_the_beginning_of_a_pruned_archive_is_refused(kept):
    archive_all(kept, *(opened(kept, f"a{n}") for n in range(5)))
    kept.db["outbox_archive"].delete_many({"seq": {"$lte": 3}})
    for after in "1", "2":
        told = said(kept.projector("events", "--after", after), 1)
        assert f"the events behind the cursor {after} are no longer in the archive, which begins at 4" in told
    assert [e["cursor"] for e in lines(kept)] == [4, 5] == [e["cursor"] for e in lines(kept, "--after", "3")]
    kept.db["outbox_archive"].delete_many({})
    assert "begins at 6" in said(kept.projector("events", "--after", "4", "--event-type", "AccountOpened"), 1)
    assert lines(kept, "--after", "5") == []


def test_what_waits_is_shown_wherever_it_is_on_its_way(kept):
    """In the archive with a number, there without one, or in the outbox: in this order."""
    archive_all(kept, numbered_one := opened(kept, "a1"))
    unnumbered = deposited(kept, "a1")
    kept.db["outbox_archive"].insert_one({**unnumbered, "applied_at": datetime(2024, 1, 1)})
    kept.put(waiting := deposited(kept, "a1"))
    found = lines(kept, "--waiting", "--aggregate", "account", "a1")
    assert [e["_id"] for e in found] == [numbered_one["_id"], unnumbered["_id"], waiting["_id"]]
    assert [e.get("cursor") for e in found] == [1, None, None]
