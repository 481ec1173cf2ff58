"""What the documents refer to exists: commands with their options,
links, headings; decisions have a status and a date."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from workspace import OUTBOX, PROJECTOR, ROOT

DOCUMENTS = sorted({ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md",
                    *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md"), *ROOT.glob("tests/**/README.md")})
PROGRAMS = {"projector": PROJECTOR, "outbox": OUTBOX}
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)
COMMAND = re.compile(r"\b(projector|outbox) ([a-z]+(?: verify)?)\b([^|;&`\n)]*)")
LINK = re.compile(r"(?<!!)\[[^]]*\]\(([^)\s]+)\)")


def document_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def help_of(program: str, *command: str) -> str:
    done = subprocess.run([PROGRAMS[program], *command, "--help"], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


@cache
def commands_of(program: str) -> set[str]:
    return set(re.findall(r"^  (\w+) ", help_of(program), re.M))


def shown_as_commands(text: str) -> list[str]:
    """What a reader would type: lines of shell blocks, lines after a prompt, and code between backticks."""
    lines, prose = [], text
    for _, language, block in FENCE.findall(text):
        prose = prose.replace(block, "")
        block = re.sub(r"\\\n\s*", " ", block)
        if language == "sh":
            lines += re.sub(r"(?m)(^| )#.*$", "", block).splitlines()
        elif not language:
            lines += [line[2:] for line in block.splitlines() if line.startswith("$ ")]
    return lines + re.findall(r"`((?:projector|outbox) [^`]+)`", prose)


def heading_anchors(path: Path) -> set[str]:
    text = FENCE.sub("", path.read_text())
    titles = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title) for title in re.findall(r"^#+ (.*)$", text, re.M)]
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=document_id)
def test_each_command_that_is_shown_exists_with_its_options(document):
    wrong = []
    for line in shown_as_commands(document.read_text()):
        for program, command, rest in COMMAND.findall(re.sub(r"docker compose (exec|run) (--rm )?\S+|kubectl .* -- |^install .*", "", line)):
            name = command.split()[0]
            if name not in commands_of(program):
                wrong.append(f"{program} {name}: {line.strip()}")
                continue
            known = help_of(program, name)
            wrong += [f"{option}: {line.strip()}" for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", rest)
                      if not re.search(rf"{option}\b", known) and option != "--help"]
    assert wrong == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=document_id)
def test_each_link_leads_somewhere(document):
    broken = []
    for target in LINK.findall(FENCE.sub("", document.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in heading_anchors(path)):
            broken.append(target)
    assert broken == []


def test_each_command_has_a_place_in_the_documents():
    manual = "".join(path.read_text() for path in DOCUMENTS)
    for program in PROGRAMS:
        assert commands_of(program)
        for command in commands_of(program):
            assert re.search(rf"`{command}\b|{program} {command}\b", manual), f"{program} {command}"


def test_each_decision_has_a_status_a_date_and_a_line_in_the_list():
    listed = (ROOT / "docs/adr/README.md").read_text()
    decisions = sorted(ROOT.glob("docs/adr/[0-9]*.md"))
    assert decisions
    for decision in decisions:
        first, _, status = decision.read_text().splitlines()[:3]
        assert re.fullmatch(rf"# {decision.name[:4]} \S.*", first), decision.name
        assert re.match(r"Status: (proposed|deferred|accepted(, \w+ superseded by \d{4}(, \w+ by \d{4})*)?|superseded by \d{4}) · Date: \d{4}-\d\d-\d\d", status), decision.name
        assert f"[{decision.name[:4]}]({decision.name})" in listed, decision.name


def test_the_readme_fits_on_three_screens():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 180
