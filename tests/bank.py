"""Events and settings that many tests share."""

from __future__ import annotations

from typing import Any

from workspace import Workspace, decimal

# Retries and sweeps within seconds instead of minutes, yet not so often that they keep a machine busy.
FAST = {"backoff_ms": 20, "sweep_interval_ms": 200}
SHORT_LEASE = {**FAST, "lease_ms": 2000}  # a take-over within seconds


def amount_of(value: Any) -> Any:
    return decimal(value) if isinstance(value, str) else value


def opened(ws: Workspace, account: Any = "a1", version: int | None = None, balance: Any = "100.00", name: str = "Ada", **more: Any) -> dict:
    return ws.event(account, "AccountOpened", version, user_id="u1", name=name, balance=amount_of(balance), **more)


def deposited(ws: Workspace, account: str = "a1", amount: Any = "1.00", **more: Any) -> dict:
    return ws.event(account, "MoneyDeposited", amount=amount_of(amount), **more)


def impossible(ws: Workspace, account: str = "a1", **more: Any) -> dict:
    """An event that fails because its amount is not a number."""
    return ws.event(account, "MoneyDeposited", amount="much", **more)
