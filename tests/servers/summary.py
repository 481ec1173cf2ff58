"""Adds up the JUnit files of a test run: summary.py [--note TEXT] FOLDER STEP:STATUS...

Prints what was not run and why and then, as the run's last line, "N passed, N failed". A step that failed as a whole,
without a failed test in FOLDER/STEP.xml, counts as one failure. Besides the JUnit files, FOLDER may contain lists from
conftest.py, one test per line: `collected` and `deselected`; and `note`, a line from ./run itself.
"""

import argparse
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path


class Results:
    def __init__(self, folder: Path):
        self.folder = folder
        self.passed = self.failed = 0
        self.skipped: Counter[str] = Counter()  # by reason

    def add(self, step: str, status: str) -> None:
        failed = self.failed
        file = self.folder / f"{step}.xml"
        for case in ET.parse(file).iter("testcase") if file.exists() else ():
            outcomes = {child.tag: child for child in case}
            if outcomes.keys() & {"failure", "error"}:
                self.failed += 1
            elif (skipped := outcomes.get("skipped")) is not None:
                self.skipped[skipped.get("message") or f"says {step}'s {case.get('name')}"] += 1
            else:
                self.passed += 1
        if status != "0" and self.failed == failed:
            self.failed += 1
            print(f"{step}: ended with status {status}")

    def lines(self, name: str) -> list[str]:
        file = self.folder / name
        return file.read_text().splitlines() if file.exists() else []

    def not_run(self) -> list[str]:
        said = [f"{count} skipped: {' '.join(reason.split())}" for reason, count in self.skipped.items()]
        if deselected := self.lines("deselected"):
            said.append(f"{len(deselected)} not selected by the arguments of the run")
        file = self.folder / "pytest.xml"
        cases = {(c.get("classname"), c.get("name")) for c in ET.parse(file).iter("testcase")} if file.exists() else ()
        if (missing := len(self.lines("collected")) - len(cases)) > 0:
            said.append(f"{missing} not begun when pytest ended")
        return said + self.lines("note")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--note", default="")
    parser.add_argument("folder", type=Path)
    parser.add_argument("steps", nargs="+")
    args = parser.parse_args()

    results = Results(args.folder)
    for step in args.steps:
        results.add(*step.split(":"))
    for line in results.not_run():
        print(f"not run: {line}")
    note = f" ({args.note})" if args.note else ""
    print(f"{results.passed} passed, {results.failed} failed{note}")
    return 0 if results.passed and not results.failed else 1


if __name__ == "__main__":
    sys.exit(main())
