"""The promises that are checked after each fault: waits for recovery, then compares everything with the fold."""

from __future__ import annotations

import shutil
import subprocess
import time
import uuid
from typing import Any

from pymongo.errors import PyMongoError

from projectors import PASSWORD
from sales import CHILDREN
from workload import TABLES, fold, order_key
from world import World

MEMORY_MB = 96  # of a projector with memory_mb 32
GROWTH_MB = 24  # of one process over all faults
DESCRIPTORS = 60
HEAL_S = 180  # longer than a projector takes to notice, and to tell, that a worker of its own hangs


class Violation(AssertionError):
    """A promise was not kept."""


def must(condition: Any, message: str) -> None:
    if not condition:
        raise Violation(message)


class Checker:
    def __init__(self, world: World):
        self.world = world
        self.first_use: dict[int, tuple[float, int]] = {}  # by pid, when it was first seen healthy
        self.checks = 0

    def healed(self, stuck: list[dict] = (), within: float = HEAL_S) -> float:
        """Waits until all is applied except the stuck events and
        what waits behind them; returns the seconds it took."""
        started = time.monotonic()
        expected, waiting = self._split(list(stuck))
        ids = {e["_id"] for e in waiting}
        while True:
            left = self._outbox()
            if left is not None and set(left) <= ids and not any(
                    d.get("status") == "in_progress" for d in left.values()) and self._settled(stuck, left):
                break
            if time.monotonic() - started > within:
                raise Violation(f"not healed within {within:g} s: {self._describe(left, ids)}\n{self._inside()}")
            time.sleep(0.1)
        taken = time.monotonic() - started
        self.compare(expected, waiting)
        self._resources()
        self._secrets()
        self.checks += 1
        return taken

    # The expected state

    def _split(self, stuck: list[dict]) -> tuple[dict, list[dict]]:
        """By aggregate, the events that must have been applied and those that must still be in the outbox."""
        first = {}
        for event in stuck:
            key = (event["aggregate_type"], event["aggregate_id"])
            first[key] = min(first.get(key, order_key(event)), order_key(event))
        with self.world.bank.lock:
            history = {key: list(events) for key, events in self.world.bank.history.items()}
        expected = {key: [e for e in events if key not in first or order_key(e) < first[key]]
                    for key, events in history.items()}
        waiting = [e for key, events in history.items() if key in first for e in events
                   if order_key(e) >= first[key]]
        return expected, waiting

    def _outbox(self) -> dict | None:
        try:
            return {d["_id"]: d for d in self.world.db.outbox.find({}, {"status": 1, "attempts": 1, "last_error": 1})}
        except PyMongoError:
            return None

    @staticmethod
    def _settled(stuck: list[dict], left: dict) -> bool:
        return all(left.get(e["_id"], {}).get("status") == "dead" for e in stuck)

    @staticmethod
    def _describe(left: dict | None, ids: set) -> str:
        if left is None:
            return "MongoDB does not answer"
        extra = [d for i, d in left.items() if i not in ids]
        return f"{len(left)} events in the outbox, {len(extra)} of them should be gone: {extra[:5]}"

    def _inside(self) -> str:
        """What nobody can find out afterwards: events and claims as they are, and what each thread does, where there is gdb."""
        try:
            events = [{**event, "payload": ...} for event in self.world.db.outbox.find().limit(20)]
            claims = [{**claim, "events": str(claim.get("events"))[:200]} for claim in self.world.db.projector_claims.find()]
        except PyMongoError as error:
            events, claims = [], [error]
        stacks = [subprocess.run(["gdb", "-p", str(projector.pid), "-batch", "-ex", "thread apply all bt 12"],
                                 stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
                  for projector in self.world.projectors if shutil.which("gdb") and projector.running]
        return "\n".join(map(str, ["events", *events, "claims", *claims, *stacks]))

    def compare(self, expected: dict, waiting: list[dict]) -> None:
        self._rows(expected)
        self._ledger(expected)
        self._positions(expected)
        left = self._outbox()
        must(left is not None and set(left) == {e["_id"] for e in waiting},
             f"the outbox holds {len(left or ())} events, {len(waiting)} must wait")

    def _rows(self, expected: dict) -> None:
        want: dict[str, dict] = {table: {} for table in TABLES}
        for (kind, aggregate_id), events in expected.items():
            for table, row in fold(events).items():
                if table in TABLES:
                    want[table][aggregate_id] = tuple(row[c] for c in TABLES[table])
        self._child_rows(expected)
        for table, columns in TABLES.items():
            key = f"{table.split('_')[0]}_id"
            have = {row[0]: row[1:] for row in self.world.sql(f"SELECT {key}, {', '.join(columns)} FROM {table}")}
            for aggregate_id in have.keys() | want[table].keys():
                must(have.get(aggregate_id) == want[table].get(aggregate_id),
                     f"{table} {aggregate_id}: the row is {have.get(aggregate_id)}, "
                     f"the fold is {want[table].get(aggregate_id)}\n{self._history(expected, table, aggregate_id)}")

    def _child_rows(self, expected: dict) -> None:
        for table, columns in CHILDREN.items():
            kind = table.split("_")[0]
            have: dict[str, list] = {}
            for row in self.world.sql(f"SELECT {kind}_id, {', '.join(columns)} FROM {table} ORDER BY 1, 2"):
                have.setdefault(row[0], []).append(row[1:])
            for (of, aggregate_id), events in expected.items():
                rows = [tuple(line[c] for c in columns) for line in fold(events).get(table, ())] if of == kind else []
                must(of != kind or have.pop(aggregate_id, []) == rows,
                     f"{table} {aggregate_id}: the fold is {rows}\n{self._history(expected, table, aggregate_id)}")
            must(not have, f"{table} has rows of {list(have)[:5]}, which no event placed")

    @staticmethod
    def _history(expected: dict, table: str, aggregate_id: Any) -> str:
        events = sorted(expected.get((table.split("_")[0], aggregate_id), ()), key=order_key)[-8:]
        return "\n".join(f"  {e['occurred_at']} v{e.get('version')} {e['_id']} {e['event_type']} "
                         f"{str(e['payload'])[:200]}" for e in events)

    def _ledger(self, expected: dict) -> None:
        want = {self._text(e["_id"]): e for events in expected.values() for e in events}
        rows = self.world.sql("SELECT event_id, outcome FROM projector_applied")
        have = {row[0].decode() for row in rows}
        missing, extra = want.keys() - have, have - want.keys()
        must(len(have) == len(rows), "an event id is in the ledger twice")
        must(not missing, f"{len(missing)} events are not in the ledger: {sorted(missing)[:5]}")
        must(not extra, f"{len(extra)} events in the ledger that must not be applied: {sorted(extra)[:5]}")

    @staticmethod
    def _text(identity: Any) -> str:
        return str(identity) if isinstance(identity, uuid.UUID) else str(identity)

    def _positions(self, expected: dict) -> None:
        rows = self.world.sql("SELECT aggregate_type, aggregate_id, occurred_at, version, event_id, max_version "
                              "FROM projector_position")
        have = {(r[0].decode(), r[1].decode()): r[2:] for r in rows}
        for (kind, aggregate_id), events in expected.items():
            moving = [e for e in events if e["event_type"] != "StatementSent"]  # an ignored event makes nothing late
            if not moving:
                continue
            last = max(moving, key=order_key)
            position = have.pop((kind, str(aggregate_id)), None)
            want = (last["occurred_at"], last.get("version"), self._text(last["_id"]).encode(),
                    max((e.get("version", 0) for e in events)) or None)
            must(position == want, f"position of {kind} {aggregate_id}: {position}, not {want}")
        must(not have, f"positions of aggregates that have no applied event: {list(have)[:5]}")

    def _resources(self) -> None:
        for projector in self.world.projectors:
            if not projector.running:
                continue
            memory, descriptors = projector.memory_mb(), projector.descriptors()
            first_memory, first_descriptors = self.first_use.setdefault(projector.pid, (memory, descriptors))
            must(memory <= MEMORY_MB, f"{projector.log.name} uses {memory:.0f} MB")
            must(memory - first_memory <= GROWTH_MB,
                 f"{projector.log.name} grew from {first_memory:.0f} to {memory:.0f} MB")
            must(descriptors <= DESCRIPTORS and descriptors - first_descriptors <= 20,
                 f"{projector.log.name} has {descriptors} open descriptors, {first_descriptors} at first")

    def _secrets(self) -> None:
        for projector in self.world.projectors:
            must(PASSWORD not in projector.log.read_text(errors="replace"), f"the password is in {projector.log.name}")
            must(PASSWORD.encode() not in self._command_line(projector), "the password is among the arguments")

    @staticmethod
    def _command_line(projector: Any) -> bytes:
        try:
            with open(f"/proc/{projector.pid}/cmdline", "rb") as file:
                return file.read()
        except OSError:
            return b""

    def exits(self, allowed: set[int]) -> None:
        """No projector may have ended in any way but the one a fault caused."""
        for projector in self.world.projectors:
            bad = [status for status in projector.exits if status not in allowed]
            must(not bad, f"{projector.log.name} ended with status {bad}")
            projector.exits.clear()
