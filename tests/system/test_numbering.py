"""When archived events get the numbers with which they can be fetched."""

from __future__ import annotations

from feeds import deposited, opened
from test_events import kept, lines  # noqa: F401 - a fixture


def test_what_a_single_run_has_archived_can_be_fetched_at_once(kept):
    kept.put([deposited(kept, f"a{n}") for n in range(20)], [opened(kept, f"b{n}") for n in range(1100)])
    kept.run_once()
    assert [e["cursor"] for e in lines(kept)] == list(range(1, 1101))
