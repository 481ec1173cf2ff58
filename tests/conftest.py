"""Fixtures shared by all suites that use real servers; see workspace.py for what a test can do with them.

Tests run in parallel, in several workers (pytest-xdist). They share one pair of servers, in which each test has its own
databases. Three kinds of tests are exceptions:

- A test that kills, freezes or reconfigures a server has a private one (server_folder).
- A test that changes or counts something server-wide, such as a fail point or a global variable, is marked
  `whole_server`: these share a second pair, one after the other in one worker.
- A test that uses a fixture of module scope, which is expensive to set up, stays in the worker that has it; a test that
  names a group (xdist_group) runs in that group's worker.

A run takes as long as its last test, so groups start first, then tests marked `slow`: those of ten seconds and more on
a quiet machine, most of which only wait. With --quick, tests marked `thorough` are left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Iterable, Iterator

import pytest

from server import scratch_folder
from servers import Pair
from workspace import ROOT, Stores, Workspace, last_lines


@pytest.fixture(scope="session")
def stores() -> Iterator[Stores]:
    """The shared servers: those of ./run, or our own without it."""
    if "MONGO_URI" in os.environ:
        yield Stores.from_environment()
    else:
        provide("provide_servers ${MYSQL_TARGET:-mysql}")
        with Pair(scratch_folder()) as pair:
            yield Stores.of(pair.mongo, pair.mysql)


def provide(command: str) -> None:
    """Without ./run, sets the same environment from the same script."""
    script = f". scripts/packages.sh; . scripts/provide.sh; {command}; env -0"
    shell = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    os.environ.update(line.split("=", 1) for line in shell.stdout.decode().split("\0") if "=" in line)


@pytest.fixture(scope="session")
def promtool() -> str:
    if "PROMTOOL" not in os.environ:
        provide("provide_test_tools")
    return os.environ["PROMTOOL"]


@pytest.fixture(scope="session")
def second_stores(stores: Stores) -> Iterator[Stores]:
    """The servers for tests marked `whole_server`."""
    with Pair(scratch_folder()) as pair:
        yield Stores.of(pair.mongo, pair.mysql)


@pytest.fixture
def ws(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workspace]:
    """Databases for this test in both stores, dropped at its end; the mapping is the bank's."""
    alone = request.node.get_closest_marker("whole_server")
    with Workspace(request.getfixturevalue("second_stores" if alone else "stores"), tmp_path) as workspace:
        yield workspace


@pytest.fixture
def bank(ws: Workspace) -> Workspace:
    """A workspace whose outbox and tables exist."""
    ws.create()
    return ws


@pytest.fixture
def server_folder() -> Iterator[Path]:
    """A folder for a test's private servers: pytest's tmp_path is closed to the user who runs them."""
    folder = scratch_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="without the tests marked `thorough`")


def is_left_out(item: pytest.Item, seen: Counter[str]) -> bool:
    """`seen` counts the cases of each test function."""
    marker = item.get_closest_marker("thorough")
    function = item.nodeid.partition("[")[0]
    seen[function] += 1
    return marker is not None and seen[function] > marker.kwargs.get("beyond", 0)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist takes the groups into the tests' names
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of a group run in one worker. Groups take longest and begin first, then slow tests."""
    for item in items:
        fixtures = [found[-1] for found in item._fixtureinfo.name2fixturedefs.values()]
        if item.get_closest_marker("xdist_group"):
            continue
        if item.get_closest_marker("whole_server"):
            item.add_marker(pytest.mark.xdist_group("whole_server"))
        elif any(fixture.scope == "module" for fixture in fixtures):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    if config.getoption("--quick"):
        seen: Counter[str] = Counter()
        left_out = {item for item in items if is_left_out(item, seen)}
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: (not item.get_closest_marker("xdist_group"),
                                 not (item.get_closest_marker("slow") or item.get_closest_marker("thorough"))))


def tell_summary(file: str, lines: Iterable[str]) -> None:
    """Feeds the last lines of ./run test (summary.py). All workers
    collect the same tests, so only the first reports."""
    if "TEST_RESULTS" in os.environ and os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0":
        with Path(os.environ["TEST_RESULTS"], file).open("a") as results:
            results.writelines(f"{line}\n" for line in lines)


def pytest_deselected(items: list[pytest.Item]) -> None:
    tell_summary("deselected", (item.nodeid for item in items))


def pytest_collection_finish(session: pytest.Session) -> None:
    tell_summary("collected", (item.nodeid for item in session.items))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """A failed test shows the log of its projectors."""
    report = (yield).get_result()
    arguments = getattr(item, "funcargs", {}).values() if report.failed else ()
    for workspace in {id(a): a for a in arguments if isinstance(a, Workspace)}.values():
        logs = workspace.logs + [(process.title, process.log_text()) for process in workspace.started]
        report.sections.extend((f"stderr of {title}", last_lines(log)) for title, log in logs)
