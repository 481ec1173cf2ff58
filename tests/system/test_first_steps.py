"""The first steps, typed as shown in the README and docs/install.md, on this test's stores."""

from __future__ import annotations

import os
import re
import subprocess
import textwrap
from pathlib import Path

import pytest

from workspace import OUTBOX, PROJECTOR, ROOT, WAIT_S

# Without a terminal there is no password prompt, and the test's server has its own port.
MYSQL = """#!/bin/bash
arguments=()
for argument; do [[ $argument == -p ]] || arguments+=("$argument"); done
exec {client} --protocol=tcp --port={port} "${{arguments[@]}}"
"""


def shell_blocks(document: str, begin: str, end: str) -> str:
    text = (ROOT / document).read_text()
    part = text[text.index(begin):text.index(end)]
    return "\n".join(textwrap.dedent(block) for block in re.findall(r"^ *```sh\n(.*?)^ *```$", part, re.M | re.S))


@pytest.fixture
def typed(ws, tmp_path):
    """Runs commands in a folder with demo/ and sql/, on databases of this test."""
    read = f"{ws.name}_read"
    tools = tmp_path / "tools"
    (tmp_path / "demo").mkdir()
    tools.mkdir()
    mapping = (ROOT / "demo/bank.json").read_text()
    mapping = mapping.replace('"database": "bank"', f'"database": "{ws.name}"').replace("bank_read", read)
    (tmp_path / "demo/bank.json").write_text(mapping.replace("3306", str(ws.stores.mysql_port)))
    (tmp_path / "root.password").write_text("\n")
    (tmp_path / "root.password").chmod(0o600)
    client = next(c for c in ("/usr/bin/mariadb", "/usr/bin/mysql") if Path(c).exists())
    (tools / "mysql").write_text(MYSQL.format(client=client, port=ws.stores.mysql_port))
    (tools / "mysql").chmod(0o755)

    def run(commands: str) -> str:
        commands = re.sub(r"^\./run build$|^export PATH=.*$|^mysql .*grants\.sql$", "", commands, flags=re.M)
        commands = re.sub(r"MONGO_URI='[^']*'", f"MONGO_URI='{ws.stores.mongo_uri}'", commands)
        commands = commands.replace("MYSQL_HOST=127.0.0.1", f"MYSQL_HOST={ws.stores.mysql_host}")
        commands = re.sub(r"\bbank_read\b", read, commands).replace("--database bank", f"--database {ws.name}")
        path = f"{tools}:{Path(PROJECTOR).parent}:{Path(OUTBOX).parent}:{os.environ['PATH']}"
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", commands], cwd=tmp_path, capture_output=True, text=True,
                              timeout=4 * WAIT_S, env={**os.environ, **ws.environment, "PATH": path})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    yield run, read
    ws.query(f"DROP DATABASE IF EXISTS {read}")


@pytest.fixture(autouse=True)
def state_folder(ws, tmp_path):
    ws.environment["XDG_STATE_HOME"] = str(tmp_path / "state")


def test_the_quick_start(ws, typed):
    run, read = typed
    commands = shell_blocks("README.md", "## Quick start", "## Guarantees")
    assert len(commands.splitlines()) <= 25
    output = run(commands)
    assert output.count("no difference") == 2
    assert [str(row["balance"]) for row in ws.query(f"SELECT balance FROM {read}.account")] == ["35.00"]


def test_the_installation(ws, typed):
    run, read = typed
    commands = shell_blocks("docs/install.md", "## Steps", "Start a second projector")
    output = run(commands.replace("MYSQL_USER=projector BANK_PASSWORD_FILE=projector.password",
                                  "MYSQL_USER=root BANK_PASSWORD_FILE=root.password")
                 .replace("projector list -c bank.json --state all", "projector list -c bank.json --state all || true"))
    assert "CREATE TABLE" in output and "no difference" in output
    assert ws.query(f"SELECT COUNT(*) AS n FROM {read}.projector_applied")[0]["n"] == 200
