"""The functions that answer false whatever happens, because they fill in why something failed: `return good ||
failure_set(...)`. Such a call has one outcome, not two."""

from __future__ import annotations

import re
from pathlib import Path

DEFINITION = re.compile(r"^(?:[A-Za-z_][\w ]*?[ *])?bool (\w+)\([^;{]*\) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
RETURN = re.compile(r"\breturn\b\s*(.*?);", re.DOTALL)


def always_false(sources: list[Path]) -> set[str]:
    """A function is one of them if each of its returns is `false` or a call of another one."""
    returns: dict[str, list[str]] = {}
    for source in sources:
        for name, body in DEFINITION.findall(source.read_text(encoding="utf-8")):
            returns.setdefault(name, []).extend(RETURN.findall(body))
    found: set[str] = set()
    while more := {name for name, values in returns.items() if name not in found and values
                   and all(value == "false" or is_call(value, found) for value in values)}:
        found |= more
    return found


def is_call(text: str, names: set[str]) -> bool:
    """Whether the text is nothing but a call of one of them."""
    match = re.match(r"(\w+)\(", text)
    if not match or match[1] not in names:
        return False
    depth = 0
    for at, quoted, character in unquoted(text):
        depth += 0 if quoted else {"(": 1, ")": -1}.get(character, 0)
        if depth == 0 and at >= match.end() - 1:
            return at == len(text) - 1
    return False


def unquoted(text: str):
    """Each character with its place and whether it is inside a literal."""
    quote, escaped = "", False
    for at, character in enumerate(text):
        yield at, bool(quote), character
        if escaped:
            escaped = False
        elif quote:
            escaped, quote = character == "\\", "" if character == quote else quote
        elif character in "\"'":
            quote = character
