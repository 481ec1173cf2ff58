"""Adds up the JUnit files of a test run: summary.py [--note TEXT] FOLDER STEP:STATUS...

Its last line is the run's last line, "N passed, N failed". A step that failed as a whole, without a
failed test in FOLDER/STEP.xml to show for it, counts as one failure.
"""

import argparse
import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def count(file: Path) -> dict[str, int]:
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for case in ET.parse(file).iter("testcase") if file.exists() else ():
        outcomes = {child.tag for child in case}
        counts["failed" if outcomes & {"failure", "error"} else "skipped" if "skipped" in outcomes else "passed"] += 1
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--note", default="")
    parser.add_argument("folder", type=Path)
    parser.add_argument("steps", nargs="+")
    args = parser.parse_args()

    total = {"passed": 0, "failed": 0, "skipped": 0}
    for step in args.steps:
        name, status = step.split(":")
        counts = count(args.folder / f"{name}.xml")
        if status != "0" and not counts["failed"]:
            counts["failed"] = 1
            print(f"{name}: ended with status {status}")
        for key, value in counts.items():
            total[key] += value
    if total["skipped"]:
        print(f"{total['skipped']} skipped")
    note = f" ({args.note})" if args.note else ""
    print(f"{total['passed']} passed, {total['failed']} failed{note}")
    return 0 if total["passed"] and not total["failed"] else 1


if __name__ == "__main__":
    sys.exit(main())
