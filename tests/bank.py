"""Events and settings that many tests share."""

from __future__ import annotations

from typing import Any

from workspace import Workspace, decimal

# Retries and sweeps within seconds instead of minutes, yet not so often that they keep a machine busy.
FAST = {"backoff_ms": 20, "sweep_interval_ms": 150}


def amount_of(value: Any) -> Any:
    return decimal(value) if isinstance(value, str) else value


def opened(ws: Workspace, account: str = "a1", balance: Any = "100.00", **more: Any) -> dict:
    return ws.event(account, "AccountOpened", user_id="u1", name="Ada", balance=amount_of(balance), **more)


def deposited(ws: Workspace, account: str = "a1", amount: Any = "1.00", **more: Any) -> dict:
    return ws.event(account, "MoneyDeposited", amount=amount_of(amount), **more)


def impossible(ws: Workspace, account: str = "a1", **more: Any) -> dict:
    """An event that fails because its amount is not a number."""
    return ws.event(account, "MoneyDeposited", amount="much", **more)
