"""The projector's own fields with values of other types, as a writer or a person at a shell may leave them: nothing stalls."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from bson import Decimal128, Int64, MinKey, Regex, Timestamp

from bank import FAST, impossible, opened

NUMBERS: dict[str, Any] = {
    "int": 2, "double": 2.0, "fraction": 2.5, "small fraction": 0.5, "negative": -3, "negative double": -3.5, "decimal": Decimal128("2"),
    "decimal below 3": Decimal128("2.999999999999999999999999999999999"), "decimal with exponent": Decimal128("2E+3"),
    "decimal too long": Decimal128("1E+6000"), "decimal too short": Decimal128("1E-6000"), "above any": Int64(5000000),
    "largest": Int64(2**63 - 1), "infinite": float("inf"), "minus infinite": float("-inf"), "infinite decimal": Decimal128("Infinity"),
    "NaN": float("nan"), "NaN decimal": Decimal128("NaN")}
OTHERS: dict[str, Any] = {"array": [5], "array of several": [0, 5.5], "empty array": [], "text": "2", "null": None, "document": {"n": 2}, "true": True,
                          "date": datetime(2026, 1, 1), "least": MinKey()}
ATTEMPTS = {**NUMBERS, **OTHERS}
STATUSES: dict[str, Any] = {"array": ["in_progress"], "array of dead": ["dead"], "array of failed": ["failed"], "null": None, "number": 3, "document": {},
                            "another": "waiting"}


def left(bank) -> dict:
    return {e["aggregate_id"]: (e.get("status"), e.get("attempts"), e.get("last_error")) for e in bank.outbox.find()}


@pytest.fixture(params=[True, False], ids=["claims of the batch", "claims in the documents"])
def claiming(bank, request):
    """By the batch, or in the events' own documents, as by a user without rights on projector_claims: here by their status."""
    return {} if request.param else {"status": "failed"}


def test_an_event_is_applied_whatever_its_attempts_are(bank, claiming):
    bank.mapping(**FAST)
    bank.put({**opened(bank, kind), "attempts": value, **claiming} for kind, value in ATTEMPTS.items())
    bank.run_once()
    assert left(bank) == {}
    assert {r["account_id"] for r in bank.rows("account")} == set(ATTEMPTS)


def test_an_event_that_fails_uses_up_its_attempts_whatever_they_were(bank, claiming):
    bank.mapping(**FAST, max_attempts=4)
    bank.put({**impossible(bank, kind), "attempts": value, **claiming} for kind, value in ATTEMPTS.items())
    with bank.start_projector():
        bank.wait(lambda: {status for status, _, _ in left(bank).values()} == {"dead"}, what="all to be dead")
    for kind, (_, attempts, error) in left(bank).items():
        assert isinstance(attempts, int) and error["class"] == "data", (kind, attempts, error)
        assert attempts == 4 or ATTEMPTS[kind] in NUMBERS.values() and attempts > 4, (kind, attempts)


@pytest.mark.parametrize("attempts", [None, 1])
def test_a_status_outside_the_contract_is_none(bank, attempts):
    bank.mapping(**FAST)
    bank.put({**opened(bank, kind), "status": value, "attempts": attempts} for kind, value in STATUSES.items())
    bank.run_once()
    assert left(bank) == {}


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("value", [Timestamp(2**31, 1), "soon", 5, None, Regex("x"), [datetime(2100, 1, 1)]], ids=lambda v: type(v).__name__)
def test_a_claim_without_a_proper_time_is_abandoned(bank, value):
    bank.mapping(**FAST)
    event = {**opened(bank, "a1"), "status": "in_progress", "claimed_by": f"{bank.name}@elsewhere:1#1", "claimed_at": value, "attempts": 1}
    late = {**opened(bank, "a2"), "status": "failed", "next_attempt_at": value, "attempts": 1}
    with bank.start_projector() as projector:
        projector.wait_log("info working")
        bank.put(event, late)
        bank.wait_gone(event, late)
