"""The projector dies at each point around a copy while another projector reads the feed. The second read model must
equal a plain fold of the events, whose deltas would show any double, and the archive's numbers must have no gap."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import workspace
from feeds import FEED, SETTINGS, fold, reader_mapping, start_reader, turnover
from workspace import Process, Workspace, decimal
from world import build

POINTS = ["after_feed", "before_fed", "after_claim", "after_commit", "before_acknowledge", "before_feed", "after_acknowledge",
          "in_sweeper", "before_numbered"]


@pytest.fixture
def one(ws: Workspace, monkeypatch) -> Workspace:
    monkeypatch.setattr(workspace, "PROJECTOR", build())
    ws.mapping(mongodb={"feeds": [FEED], "retain": "archive"}, **SETTINGS)
    ws.create()
    assert ws.outbox_program("init", "--archive", "--feed", FEED).returncode == 0
    return ws


def start(ws: Workspace, **environment: str) -> Process:
    process = Process(ws._projector("run"), ws.folder / f"run{len(ws.started)}.log", environment)
    ws.started.append(process)
    return process


def write(ws: Workspace, round_: int) -> list[dict]:
    """Some accounts, and one deposit that stays in the outbox: its
    account does not exist until the last round opens it."""
    events = [ws.event(f"r{round_}a{n}", "AccountOpened", user_id="u1", name="Ada", balance=decimal("5.00")) for n in range(40)]
    events += [ws.event(f"r{round_}a{n % 40}", "MoneyDeposited", amount=decimal("0.01")) for n in range(400)]
    ws.put(events)
    return events


@pytest.mark.thorough
@pytest.mark.parametrize("point", POINTS)
def test_each_death_around_a_copy(one, point):
    readers = reader_mapping(one)
    written, deaths = [], 0
    stuck = {**one.event("r0a0", "MoneyDeposited", amount=decimal("7.00")), "status": "dead", "attempts": 10}
    with start_reader(one, readers):
        written += write(one, 0)
        first = start(one)
        one.wait_drained()
        first.stop()
        one.put(stuck)  # dead, so the feeder copies it, and what is held behind it
        written.append(stuck)
        for round_ in range(1, 4):
            written += write(one, round_)
            one.put(behind := one.event("r0a0", "MoneyDeposited", amount=decimal("0.50")))
            written.append(behind)
            process = start(one, PROJECTOR_CRASH_AT=f"{point}:{round_}")
            one.wait(lambda: not process.running or one.outbox.count_documents({"fed_at": None}) == 0,
                     what="the death, or all to be applied or copied")
            deaths += not process.running and process.popen.returncode == -signal.SIGKILL
            process.kill()
        last = start(one)
        one.wait(lambda: one.outbox.count_documents({}) == one.outbox.count_documents({"aggregate_id": "r0a0", "fed_at": {"$exists": True}}),
                 3 * workspace.WAIT_S, "what can be applied to leave")
        assert one.projector("retry", str(stuck["_id"])).returncode == 0
        one.wait_drained()
        one.wait(lambda: one.db[FEED].find_one() is None, what="an empty feed")
        # The server ends a killed process's open transaction after 60 s (transactionLifetimeLimitSeconds).
        one.wait(lambda: one.db["outbox_archive"].count_documents({"seq": {"$exists": True}}) == len(written), 100, "all numbers")
        assert last.stop() == 0
    assert turnover(one) == fold(written)
    balances = {row["account_id"]: row["balance"] for row in one.rows("account")}
    assert balances == {key: sum(row) for key, row in fold(written).items()}
    assert sorted(e["seq"] for e in one.db["outbox_archive"].find()) == list(range(1, len(written) + 1))
    assert deaths > 0 or point == "in_sweeper"


def test_a_frozen_owner_that_wakes_up_copies_nothing_again(one):
    """Its lease has run out, the next owner has taken the events out, and the feed's reader has forgotten them."""
    readers = reader_mapping(one)
    written = [one.event(f"a{n}", "AccountOpened", user_id="u1", name="Ada", balance=decimal("5.00")) for n in range(5)]
    written += [one.event(f"a{n}", "MoneyDeposited", amount=decimal("0.01")) for n in range(5)]
    frozen = start(one, PROJECTOR_FREEZE_AT="before_acknowledge")
    one.put(written)
    one.wait(lambda: is_stopped(frozen), what="the freeze")
    with start_reader(one, readers) as reader:
        start(one)
        one.wait_drained()
        one.wait(lambda: one.db[FEED].find_one() is None, what="an empty feed")
        assert turnover(one) == fold(written)
        one.query("DELETE FROM projector_applied WHERE projector <> %s", one.name)
        frozen.resume()
        frozen.wait_log("the tenure ended")
        frozen.wait_log("standing by")
        assert one.db[FEED].find_one() is None and reader.running
    assert turnover(one) == fold(written)


def is_stopped(process: Process) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
