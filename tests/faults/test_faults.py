"""The short form: the most telling faults with fixed seeds, then some from a seed that is printed.

The faults of one stage run one after the other, so there are several stages in parallel."""

from __future__ import annotations

import random
from typing import Iterator

import pytest

import faults_blame  # noqa: F401 - fills the catalog
import faults_mongo  # noqa: F401
import faults_mysql  # noqa: F401
import faults_process  # noqa: F401
from catalog import FAULTS, Stage, progress
from checker import Violation
from world import World

# Of all kinds; each `./run test` plays them.
ALWAYS = ["commits_lost_both_ways", "crash_before_commit", "mysql_killed_and_started", "step_down", "change_stream_lost"]
TELLING = [
    *ALWAYS, "crash_before_acknowledge", "killer_event", "frozen_in_a_transaction", "race_with_kills",
    "crash_after_claim", "crash_after_commit", "crash_in_sweeper", "crash_in_claim_sweep", "crash_before_claim_forgotten",
    "poisoned_events", "sent_again", "mysql_sessions_killed", "mysql_read_only", "mysql_small_packets", "deadlock",
    "column_dropped_and_back", "primary_killed_and_started", "writes_refused", "outbox_renamed_and_back", "oversized_event",
    "frozen_beyond_its_lease", "frozen_in_the_sweeper", "wedged_worker", "wedged_janitor", "wedged_acker", "wedged_reader",
    "big_statement", "statement_cuts_the_connection", "unknown_codes_from_the_proxy", "offline_mode",
]
SEED = random.SystemRandom().randrange(1 << 31)
STAGES = 3


def on_stage(number: int) -> pytest.MarkDecorator:
    """The stage is built once, in the worker that runs the group."""
    return pytest.mark.xdist_group(f"faults_{number % STAGES}")


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with World(seed=7) as world:
        stage = Stage(world)
        stage.checker.healed()
        yield stage


LIES = {
    "a delta applied twice": ("UPDATE wallet SET balance = balance + 1, moves = moves + 1 WHERE wallet_id = 0",
                              "UPDATE wallet SET balance = balance - 1, moves = moves - 1 WHERE wallet_id = 0"),
    "a name that nobody gave": ("UPDATE contact SET name = CONCAT(name, '!')",
                                "UPDATE contact SET name = LEFT(name, CHAR_LENGTH(name) - 1)"),
    "an event nobody wrote": ("INSERT INTO projector_applied (projector, event_id_kind, event_id, outcome) "
                              "VALUES ('bank', 'string', 'nobody', 'applied')",
                              "DELETE FROM projector_applied WHERE event_id = 'nobody'"),
    "a position ahead": ("UPDATE projector_position SET max_version = max_version + 1 WHERE version IS NOT NULL",
                         "UPDATE projector_position SET max_version = max_version - 1 WHERE version IS NOT NULL"),
}


@pytest.mark.thorough(beyond=len(ALWAYS))
@pytest.mark.parametrize("name", [pytest.param(name, marks=on_stage(number)) for number, name in enumerate(TELLING)])
def test_heals(stage: Stage, name: str) -> None:
    play(stage, name)


@pytest.mark.thorough(beyond=2)
@on_stage(1)
@pytest.mark.parametrize("lie", LIES)
def test_checker_notices(stage: Stage, lie: str) -> None:
    """Damage that faults must never cause is done by hand."""
    tell, undo = LIES[lie]
    with stage.world.writing():
        progress(stage.world, 60)
    stage.checker.healed()
    stage.world.sql(tell)
    with pytest.raises(Violation):
        stage.checker.healed()
    stage.world.sql(undo)
    stage.checker.healed()


@pytest.mark.thorough
@on_stage(1)
def test_checker_notices_what_is_left_behind(stage: Stage) -> None:
    """An event that stays in the outbox, and one missing from the ledger."""
    event = stage.world.bank.event("profile", "p0", "ProfileSaved", name="left")
    stage.world.db.outbox.insert_one({**event, "status": "dead"})
    with pytest.raises(Violation):
        stage.checker.healed(within=2)
    stage.world.db.outbox.delete_one({"_id": event["_id"]})
    stage.world.bank.history["profile", "p0"].append(event)
    with pytest.raises(Violation):
        stage.checker.healed()
    stage.world.bank.history["profile", "p0"].remove(event)
    stage.checker.healed()


@on_stage(2)
def test_random_faults(stage: Stage) -> None:
    print(f"again with: ./run faults --seed {SEED}")
    stage.world.random.seed(SEED)
    for name in random.Random(SEED).sample(sorted(n for n, f in FAULTS.items() if not f.slow), 4):
        play(stage, name)


def play(stage: Stage, name: str) -> None:
    """Skips the remaining faults of a stage that is broken."""
    if getattr(stage, "broken", None):
        pytest.skip(f"the stage was left broken by {stage.broken}")
    try:
        stage.play(name)
    except BaseException:
        stage.broken = name
        print(stage.world.story())
        raise
