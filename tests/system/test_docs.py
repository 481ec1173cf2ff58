"""The examples in the documents work: the check of the archive."""

from __future__ import annotations

import json
import re

from workspace import ROOT


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / document).read_text(), re.M | re.S)


def test_the_check_of_the_archive_finds_what_is_missing(bank):
    (source,) = (b for b in blocks("docs/event-sourcing.md", "js") if "outbox_archive.aggregate" in b)
    pipeline = json.loads(source[source.index("["):source.rindex("]") + 1])
    event = {"aggregate_type": "account", "occurred_at": None}
    bank.db.outbox_archive.insert_many(
        {**event, "aggregate_id": name, "version": version}
        for name, versions in {"whole": [1, 2], "gap": [1, 3], "twice": [1, 2, 2], "headless": [2, 3], "none": [None]}.items()
        for version in versions)
    bank.outbox.insert_one({**event, "_id": "e3", "aggregate_id": "whole", "version": 3})
    found = bank.db.outbox_archive.aggregate(pipeline, allowDiskUse=True)
    assert sorted(f["_id"]["id"] for f in found) == ["gap", "headless", "none", "twice"]
