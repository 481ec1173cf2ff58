"""Finds arguments with an effect or a call in GLib's macros that evaluate them twice.

`MIN(position, random())` draws two numbers: it compares one and returns the other, so an unsigned
subtraction may underflow. Give the value a name first.
"""

import re
import sys

TWICE = re.compile(r"\b(?:MIN|MAX|CLAMP|ABS)\s*\(")
SKIPPED = re.compile(r'/\*.*?\*/|"(?:\\.|[^"\\])*"|^\s*#define.*?$', re.S | re.M)
CALL_OR_EFFECT = re.compile(r"\b(?!(?:MIN|MAX|CLAMP|ABS|sizeof)\b)\w+\s*\(|\+\+|--|(?<![=!<>])=(?!=)")


def arguments(text: str, start: int) -> str:
    """The text between the parenthesis at `start` - 1 and its partner."""
    depth, end = 1, start
    while depth and end < len(text):
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        end += 1
    return text[start : end - 1]


def main(files: list[str]) -> int:
    found = 0
    for name in files:
        with open(name, encoding="utf-8") as file:
            text = SKIPPED.sub(lambda skipped: "\n" * skipped[0].count("\n"), file.read())
        for macro in TWICE.finditer(text):
            if CALL_OR_EFFECT.search(arguments(text, macro.end())):
                line = text.count("\n", 0, macro.start()) + 1
                print(f"{name}:{line}: evaluated twice: {macro[0]}{arguments(text, macro.end())})")
                found += 1
    return 1 if found else 0


sys.exit(main(sys.argv[1:]))
