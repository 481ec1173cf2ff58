"""When archived events get the numbers with which they can be fetched."""

from __future__ import annotations

from datetime import datetime

from feeds import deposited, opened
from test_events import kept, lines  # noqa: F401 - a fixture


def test_what_a_single_run_has_archived_can_be_fetched_at_once(kept):
    kept.put([deposited(kept, f"a{n}") for n in range(20)], [opened(kept, f"b{n}") for n in range(1100)])
    kept.run_once()
    assert [e["cursor"] for e in lines(kept)] == list(range(1, 1101))


def test_events_behind_a_page_that_was_there_before_are_numbered_too(bank):
    """Without the archive's indexes a page is sorted as a whole, and shows nothing that came later."""
    bank.mapping(mongodb={"retain": "archive"}, workers=1)
    bank.db["outbox_archive"].insert_many({**deposited(bank, f"a{n}"), "applied_at": datetime(2024, 1, 1)} for n in range(1000))
    bank.put([opened(bank, f"b{n}") for n in range(50)])
    bank.run_once()
    assert bank.db["outbox_archive"].count_documents({"seq": {"$exists": False}}) == 0
    assert [e["cursor"] for e in lines(bank)] == list(range(1, 1051))
