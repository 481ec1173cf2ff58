"""Prints lines and branches per folder, the lines that nothing ran and the outcomes that no condition
had, from `llvm-cov export`.

A branch is one outcome of one condition: `if (a && b)` has four. Branches inside a library's macros or
inline functions are the library's, and not counted. `good || failure_set(...)` has three: what
always answers false (always_false.py) cannot be true."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from always_false import always_false, is_call

ROOT = Path(__file__).resolve().parents[2]


def export(profile: str, programs: list[str]) -> list[dict]:
    objects = [part for program in programs[1:] for part in ("-object", program)]
    command = ["llvm-cov", "export", f"-instr-profile={profile}", programs[0], *objects]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["data"][0]["files"]


def own(files: list[dict]) -> dict[Path, dict]:
    """The program's own sources; generated ones are in the build folder."""
    named = {Path(file["filename"]).resolve(): file for file in files}
    return {name.relative_to(ROOT): file for name, file in named.items()
            if name.is_relative_to(ROOT / "projector") or name.is_relative_to(ROOT / "outbox")}


def row(name: str, lines: list[int], branches: list[int]) -> str:
    def share(part: list[int]) -> str:
        return f"{100 * part[1] / part[0]:6.1f} %" if part[0] else "       -"
    return (f"{name:28}{share(lines)} of {lines[0]:6} lines   {share(branches)} of {branches[0]:6} branches")


def counts(file: dict, what: str) -> list[int]:
    return [file["summary"][what]["count"], file["summary"][what]["covered"]]


def add(total: list[int], more: list[int]) -> None:
    total[0] += more[0]
    total[1] += more[1]


def missed_lines(file: dict) -> list[str]:
    """Where code begins that nothing ran: segments are [line, column, count, has_count, is_entry, is_gap]."""
    lines = sorted({s[0] for s in file["segments"] if s[3] and s[4] and s[2] == 0 and not s[5]})
    return [str(line) for line in lines]


class Outcomes:
    """The branches of one file; a branch is [line, column, end line, end column, times true, times false, ...]."""

    def __init__(self, name: Path, file: dict, refusals: set[str]):
        self.lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        self.file = file
        self.impossible = [b for b in file["branches"] if is_call(self.text(b), refusals)]

    def text(self, branch: list) -> str:
        line, column, end_line, end_column = branch[:4]
        if line == end_line:
            return self.lines[line - 1][column - 1:end_column - 1]
        return "\n".join([self.lines[line - 1][column - 1:], *self.lines[line:end_line - 1],
                          self.lines[end_line - 1][:end_column - 1]])

    def counts(self) -> list[int]:
        count, covered = counts(self.file, "branches")
        return [count - len(self.impossible), covered - sum(b[4] > 0 for b in self.impossible)]

    def missed(self) -> list[str]:
        found = []
        for branch in sorted(self.file["branches"]):
            never = [what for what, times in (("true", branch[4]), ("false", branch[5])) if times == 0
                     and not (what == "true" and branch in self.impossible)]
            if never:
                condition = " ".join(self.text(branch).split())
                found.append(f"{branch[0]}: never {' or '.join(never)}: {condition}")
        return found


def main() -> None:
    profile, details, *programs = sys.argv[1:]
    files = own(export(profile, programs))
    refusals = always_false([*ROOT.glob("projector/**/*.c"), *ROOT.glob("outbox/**/*.c")])
    folders: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([0, 0], [0, 0]))
    with open(details, "w", encoding="utf-8") as text:
        for name, file in sorted(files.items()):
            outcomes = Outcomes(name, file, refusals)
            lines, branches = counts(file, "lines"), outcomes.counts()
            for total in (folders[str(name.parent)], folders["all"]):
                add(total[0], lines)
                add(total[1], branches)
            print(row(str(name), lines, branches), file=text)
            if missed := missed_lines(file):
                print("    not run, from line", " ".join(missed), file=text)
            for missed in outcomes.missed():
                print(f"    {missed}", file=text)
    everything = folders.pop("all")
    for folder, (lines, branches) in sorted(folders.items()):
        print(row(folder, lines, branches))
    print(row("all", *everything))
    print(f"each file, with what was not run: {Path(details).resolve().relative_to(ROOT)}")


if __name__ == "__main__":
    main()
