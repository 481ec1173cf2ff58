"""Tests the tests: plants small faults in copies of the program and checks whether a test notices.

    ./run mutants              the whole catalogue
    ./run mutants NAME…        these mutants only
    ./run mutants --resume     continues an interrupted run: leaves out those already killed
    ./run mutants --list       lists the catalogue
    ./run mutants --check      only checks that each old text and each system test is where the catalogue says

The catalogue is in the .toml files next to this one, with a table for each mutant:

    [name]
    promise = "what users rely on and the fault breaks"
    file = "path from the root"
    old = "a text that occurs in the file exactly once"
    new = "its replacement"
    tests = ["order", "simulation:2019000", "test_projector_order.py::test_name"]

`tests` names those that have to notice: names of meson's tests (the simulation with its first seed, where the usual
ones do not show a rare fault), and system tests as pytest writes them. They run first,
and once without any mutant beforehand. A mutant that names no tests faces all unit tests, the simulation, and then the
whole system suite, which takes minutes.

Exit status 1: a mutant survives or does not build, its old text does not occur exactly once, or one of its tests fails
without any mutant.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/servers"))
from server import scratch_folder  # noqa: E402
from servers import Pair, parent_death_signal  # noqa: E402

WORK = ROOT / ".scratch/mutants"
KILLED = WORK / "killed"  # by the last run, one name per line
PASSED = WORK / "passed"  # the tests that passed in that run without any mutant
SEEDS = "3000"        # of the simulation
LIMIT_S = 300         # of one program of unit tests, one run of the simulation, one system test
SUITE_LIMIT_S = 3600  # of the whole system suite
PROGRAMS = ["projector/projector", "outbox/outbox", "outbox/test_outbox_api"]
# A mutant may leave a function without a caller: warnings are not errors here.
OPTIONS = ["-Dbuildtype=debug", "-Doptimization=1", "-Dwerror=false"]


class Wrong(Exception):
    """What prevents a mutant from being tried."""


@dataclass
class Mutant:
    name: str
    promise: str
    file: str
    old: str
    new: str
    tests: list[str] = field(default_factory=list)

    def mutated(self, tree: Path) -> str:
        path = tree / self.file
        text = path.read_text() if path.exists() else ""
        if (found := text.count(self.old)) != 1:
            raise Wrong(f"its old text stands {found} times in {self.file}: {self.old!r}")
        return text.replace(self.old, self.new)

    def check(self, tree: Path) -> None:
        """Raises Wrong unless its old text and its system tests exist."""
        self.mutated(tree)
        for test in self.system_tests():
            file, _, name = test.partition("::")
            path = tree / "tests/system" / file
            if not path.exists() or name and f"def {name.partition('[')[0]}(" not in path.read_text():
                raise Wrong(f"there is no test {test}")

    def unit_tests(self) -> list[str]:
        return [test for test in self.tests if ".py" not in test]

    def system_tests(self) -> list[str]:
        return [test for test in self.tests if ".py" in test]


@dataclass
class Result:
    mutant: Mutant
    verdict: str  # killed, SURVIVES, WRONG
    text: str     # the test that noticed, or what is wrong
    seconds: float


def read_catalogue() -> dict[str, Mutant]:
    catalogue: dict[str, Mutant] = {}
    for file in sorted(Path(__file__).parent.glob("*.toml")):
        for name, entry in tomllib.loads(file.read_text()).items():
            if name in catalogue:
                raise SystemExit(f"mutants: {name} is there twice")
            try:
                catalogue[name] = Mutant(name, **entry)
            except TypeError as error:
                raise SystemExit(f"mutants: {file.name}: {name}: {error}") from None
    return catalogue


# --- programs ------------------------------------------------------------------------------------

_live: set[subprocess.Popen] = set()
_lock = threading.Lock()
_ending = threading.Event()


def _kill(process: subprocess.Popen) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)  # with everything it has started
    except ProcessLookupError:
        pass


def end(pool: ThreadPoolExecutor) -> None:
    pool.shutdown(wait=False, cancel_futures=True)
    _ending.set()
    with _lock:
        for process in _live:
            _kill(process)


def run(command: list[str], limit: float, folder: Path, **environment: str) -> tuple[int | None, str]:
    """Returns the exit status, None on timeout, and the output."""
    if _ending.is_set():
        raise Wrong("interrupted")
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                               start_new_session=True)
    with _lock:
        _live.add(process)
    try:
        said, _ = process.communicate(timeout=limit)
        return process.returncode, said
    except subprocess.TimeoutExpired:
        _kill(process)
        said, _ = process.communicate()
        return None, said
    finally:
        _kill(process)
        with _lock:
            _live.discard(process)


# --- a copy of the tree --------------------------------------------------------------------------

class Copy:
    """A copy of the checkout with a build folder, kept from run to run, and its own servers."""

    def __init__(self, number: int):
        self.tree = WORK / str(number)
        self.build = self.tree / "build"
        self.meson_tests: dict[str, dict] = {}
        self.servers: dict[str, str] = {}  # the environment in which the programs find them

    def prepare(self) -> None:
        """Writes only the files that differ, so that only those are rebuilt."""
        listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                                check=True, stdout=subprocess.PIPE, text=True).stdout
        files = {name for name in listed.split("\0") if name and (ROOT / name).is_file()}
        for name in files:
            source, target = ROOT / name, self.tree / name
            if not target.exists() or source.read_bytes() != target.read_bytes():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
                target.chmod(source.stat().st_mode)
        for folder, folders, names in os.walk(self.tree):
            folders[:] = [f for f in folders if Path(folder, f) != self.build and f != "__pycache__"]
            for name in names:
                if str(Path(folder, name).relative_to(self.tree)) not in files:
                    Path(folder, name).unlink()
        if not (self.build / "build.ninja").exists():
            self._call("meson setup", ["meson", "setup", *OPTIONS, str(self.build)])
        self.make(["build.ninja"])  # again, where a meson.build has changed
        told = subprocess.run(["meson", "introspect", "--tests", str(self.build)], cwd=self.tree, check=True,
                              stdout=subprocess.PIPE, text=True).stdout
        self.meson_tests = {test["name"]: test for test in json.loads(told)}
        self.make_for_suites()

    def _call(self, what: str, command: list[str]) -> None:
        # One cache for all copies, where the compiler has one.
        status, said = run(command, 1800, self.tree, CCACHE_BASEDIR=str(WORK), CCACHE_NOHASHDIR="1")
        if status != 0:
            raise Wrong(f"{what} failed:\n{said[-3000:]}")

    def make(self, targets: list[str]) -> None:
        self._call("its build", ["ninja", "-C", str(self.build), *targets])

    def make_for_suites(self) -> None:
        """Builds not everything: a man page takes as long as a test."""
        self.make([*self.targets_of(self.of_suites()), *PROGRAMS])

    def of_suites(self) -> list[str]:
        """The quick suites, the simulation last; without those that are
        expected to fail, which meson does not report here."""
        suite = {name: test["suite"][0].split(":")[-1] for name, test in self.meson_tests.items() if not name.endswith("_can_fail")}
        return [name for kind in ("unit", "sim") for name in suite if suite[name] == kind]

    def targets_of(self, tests: list[str]) -> list[str]:
        """The targets to build for these meson tests."""
        paths = [self.build / word for name in tests for word in self._meson_test(name)["cmd"]]
        return [str(p.relative_to(self.build)) for p in paths if p.is_relative_to(self.build) and ".." not in p.parts]

    def _meson_test(self, name: str) -> dict:
        program = name.partition(":")[0]
        if program not in self.meson_tests:
            raise Wrong(f"there is no test {program!r}")
        return self.meson_tests[program]

    def meson_test(self, name: str) -> str | None:
        """Runs one; returns what noticed something, or None."""
        first = name.partition(":")[2] or "1"
        status, said = run(self._meson_test(name)["cmd"], LIMIT_S, self.build, SIM_SEEDS=SEEDS, SIM_FIRST=first)
        if status == 0:
            return None
        failed = list(dict.fromkeys(re.findall(r"\[  FAILED  \] (\w+)$", said, re.MULTILINE)))
        reasons = [line.strip() for line in said.splitlines() if re.match(r"(SIM_SEED=|seed )\d", line)]
        detail = failed or reasons[:1] or (["took too long"] if status is None else [f"status {status}"])
        return f"{name}: {', '.join(detail)}"

    def pytest(self, tests: list[str], limit: float) -> str | None:
        """Runs them until the first one that notices something."""
        failed = self.failing(tests, limit, "-x")
        return failed[0] if failed else None

    def failing(self, tests: list[str], limit: float, *options: str) -> list[str]:
        status, said = run([sys.executable, "-m", "pytest", "-q", *options, *[f"tests/system/{test}" for test in tests]],
                           limit, self.tree, **self.servers,
                           PROJECTOR_BIN=str(self.build / PROGRAMS[0]), OUTBOX_BIN=str(self.build / PROGRAMS[1]))
        if status == 0:
            return []
        if status is None:
            return [f"{tests[0]}: took too long"]
        # pytest-xdist appends a test's group to its name, which may contain spaces; pytest a reason.
        failed = re.findall(r"^(?:FAILED|ERROR) tests/system/(.+?)(?:@\S+)?(?: - .*)?$", said, re.MULTILINE)
        if status != 1 or not failed:
            raise Wrong(f"pytest ended with status {status}:\n{said[-3000:]}")
        return failed


# --- trying --------------------------------------------------------------------------------------

def try_named(copy: Copy, mutant: Mutant) -> str | None:
    """Builds no more than the next test needs."""
    unit, system = mutant.unit_tests(), mutant.system_tests()
    if unit:
        copy.make(copy.targets_of(unit))
    for test in unit:
        if noticed := copy.meson_test(test):
            return noticed
    if not system:
        return None
    copy.make(PROGRAMS)
    return copy.pytest(system, LIMIT_S * len(system))


def try_all(copy: Copy) -> str | None:
    copy.make_for_suites()
    for test in copy.of_suites():
        if noticed := copy.meson_test(test):
            return noticed
    return copy.pytest([""], SUITE_LIMIT_S)


def try_mutant(copies: SimpleQueue, mutant: Mutant, unfit: set[str]) -> Result:
    copy, begun = copies.get(), time.monotonic()

    def result(verdict: str, text: str) -> Result:
        return Result(mutant, verdict, text, time.monotonic() - begun)

    path = copy.tree / mutant.file
    try:
        if failing := unfit.intersection(mutant.tests):
            raise Wrong(f"{min(failing)} fails without any mutant")
        before, after = path.read_bytes(), mutant.mutated(copy.tree)
        try:
            path.write_text(after)
            noticed = try_named(copy, mutant) if mutant.tests else try_all(copy)
        finally:
            path.write_bytes(before)
        return result("killed", noticed) if noticed else result("SURVIVES", mutant.promise)
    except Wrong as wrong:
        return result("WRONG", str(wrong))
    finally:
        copies.put(copy)


def names_in(file: Path) -> set[str]:
    return set(file.read_text().splitlines()) if file.exists() else set()


def failing_anyway(copy: Copy, mutants: list[Mutant]) -> set[str]:
    """Which of the named tests fail twice without any mutant: such a test proves nothing."""
    wanted = {test for mutant in mutants for test in mutant.tests} - names_in(PASSED)
    unit = {test for test in wanted if test in copy.meson_tests}
    system = sorted(test for test in wanted if ".py" in test)
    unfit = {test for test in sorted(unit) if copy.meson_test(test)}
    if system:
        failed = copy.failing(system, LIMIT_S * len(system), "-n", str(3 * (os.cpu_count() or 1)), "--dist", "loadgroup")
        again = [test for test in failed if copy.pytest([test], LIMIT_S)]
        # A parametrized test may be named without its parameters, and a whole file without its tests.
        unfit |= {test for test in system if any(re.match(re.escape(test) + r"(\[|::|$)", name) for name in again)}
    for test in sorted(unfit):
        print(f"fails without any mutant: {test}", flush=True)
    PASSED.write_text("".join(f"{test}\n" for test in sorted(names_in(PASSED) | wanted - unfit)))
    return unfit


def usual_jobs() -> int:
    """Most of the time a test waits for what the fault prevents. Each copy has its own servers."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return max(1, min(4 * (os.cpu_count() or 1), memory_gb // 2))


def needs_servers(mutant: Mutant) -> bool:
    return bool(mutant.system_tests() or not mutant.tests)


def try_them(mutants: list[Mutant], jobs: int, stack: ExitStack) -> list[Result]:
    begun, results = time.monotonic(), []
    copies = [Copy(number) for number in range(min(jobs, len(mutants)))]
    pool = stack.enter_context(ThreadPoolExecutor(len(copies)))
    stack.callback(end, pool)
    copies[0].prepare()  # the others then find most of it in the compiler's cache
    list(pool.map(Copy.prepare, copies[1:]))
    if any(map(needs_servers, mutants)):
        for copy in copies:
            copy.servers = stack.enter_context(Pair(scratch_folder())).environment()
    print(f"ready after {time.monotonic() - begun:.0f} s", flush=True)
    unfit = failing_anyway(copies[0], mutants)
    print(f"the tests ran without any mutant, after {time.monotonic() - begun:.0f} s", flush=True)
    free: SimpleQueue = SimpleQueue()
    for copy in copies:
        free.put(copy)
    # The quick ones first.
    order = sorted(mutants, key=needs_servers)
    for future in as_completed([pool.submit(try_mutant, free, mutant, unfit) for mutant in order]):
        results.append(one := future.result())
        if one.verdict == "killed":
            with KILLED.open("a") as killed:
                killed.write(f"{one.mutant.name}\n")
        print(f"{one.verdict:9} {one.mutant.name:34} {one.seconds:5.0f} s  {one.text}", flush=True)
    count = sum(one.verdict == "killed" for one in results)
    survivors = sorted(one.mutant.name for one in results if one.verdict == "SURVIVES")
    wrong = sorted(one.mutant.name for one in results if one.verdict == "WRONG")
    print(f"{count} of {len(results)} mutants killed in {time.monotonic() - begun:.0f} s")
    for what, names in (("survive", survivors), ("could not be tried", wrong)):
        if names:
            print(f"{what}: {', '.join(names)}")
    return results


def check(mutants: list[Mutant]) -> int:
    status = 0
    for mutant in mutants:
        try:
            mutant.check(ROOT)
        except Wrong as wrong:
            print(f"{mutant.name}: {wrong}")
            status = 1
    return status


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run mutants", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--jobs", type=int, default=usual_jobs(), help="so many side by side")
    args = parser.parse_args()
    catalogue = read_catalogue()
    if unknown := [name for name in args.names if name not in catalogue]:
        parser.error(f"there is no mutant {unknown[0]!r}; --list shows them")
    mutants = [catalogue[name] for name in args.names] or list(catalogue.values())
    if args.list:
        for mutant in mutants:
            print(f"{mutant.name:34} {mutant.file}: {mutant.promise}")
        return 0
    if args.check:
        return check(mutants)
    if not args.resume:
        for file in (KILLED, PASSED):
            file.unlink(missing_ok=True)
    elif killed := names_in(KILLED):
        mutants = [mutant for mutant in mutants if mutant.name not in killed]
        print(f"{len(killed)} were killed before, {len(mutants)} are left", flush=True)
    if not mutants:
        return 0
    try:
        with ExitStack() as stack:
            return int(any(one.verdict != "killed" for one in try_them(mutants, args.jobs, stack)))
    except Wrong as wrong:
        print(wrong)
        return 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that everything that was started ends too
    parent_death_signal(signal.SIGTERM)
    sys.exit(main())
