"""Fixtures that all suites of real servers share; see workspace.py for what a test can do with them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Iterator

import pytest

from servers import Pair, scratch_folder
from workspace import ROOT, Stores, Workspace


@pytest.fixture(scope="session")
def stores() -> Iterator[Stores]:
    """The shared servers: those of ./run, or else our own."""
    if "MONGO_URI" in os.environ:
        yield Stores.from_environment()
    else:
        provide("provide_servers ${MYSQL_TARGET:-mysql}")
        with Pair(scratch_folder()) as pair:
            yield Stores.of(pair.mongo, pair.mysql)


def provide(command: str) -> None:
    """Without ./run: what it has in the environment comes from the same script."""
    script = f". tests/servers/packages.sh; . tests/servers/provide.sh; {command}; env -0"
    shell = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    os.environ.update(line.split("=", 1) for line in shell.stdout.decode().split("\0") if "=" in line)


@pytest.fixture(scope="session")
def promtool() -> str:
    if "PROMTOOL" not in os.environ:
        provide("provide_test_tools")
    return os.environ["PROMTOOL"]


@pytest.fixture
def ws(stores: Stores, tmp_path: Path) -> Iterator[Workspace]:
    """Databases of the test's own in both stores, dropped at its end; the mapping is the bank's."""
    with Workspace(stores, tmp_path) as workspace:
        yield workspace


@pytest.fixture
def bank(ws: Workspace) -> Workspace:
    """A workspace whose outbox and tables exist."""
    ws.create()
    return ws


@pytest.fixture
def server_folder() -> Iterator[Path]:
    """For a test's private servers: pytest's tmp_path is closed to the user who runs them."""
    folder = scratch_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """A failed test shows what its projectors said."""
    report = (yield).get_result()
    workspace = getattr(item, "funcargs", {}).get("ws")
    if report.failed and workspace is not None:
        for process in workspace.started:
            report.sections.append((f"stderr of {process.title}", process.log_tail()))
