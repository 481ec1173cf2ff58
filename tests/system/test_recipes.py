"""The recipes of docs/writing-events.md, starting with an empty store, in every
language available on this machine. Drivers come from the languages' own registries
into the cache of ./run; a recipe without either is skipped and reported."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Callable

import pytest

from workspace import OUTBOX, ROOT, WAIT_S, Workspace

FETCH_S = 300
GO_MODULES = ("go.mongodb.org/mongo-driver/v2@v2.0.0", "github.com/google/uuid@v1.6.0")
NODE_PACKAGE = "mongodb@6.12.0"
JAVA_DRIVER = "org.mongodb:mongodb-driver-sync:5.2.1"


def section(title: str) -> str:
    """The text below a heading, up to the next heading of any level."""
    text = (ROOT / "docs/writing-events.md").read_text()
    found = re.search(rf"^#+ {re.escape(title)}[^\n]*\n(.*?)(?=^##+ |\Z)", text, re.M | re.S)
    assert found, f"there is no section {title}"
    return found[1]


def code(title: str, language: str) -> str:
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", section(title), re.M | re.S)
    return block


def placed(source: str, ws: Workspace) -> str:
    """The recipe, adapted to this test's stores."""
    source, uris = re.subn(r'"mongodb://127\.0\.0\.1:27017/[^"]*"', json.dumps(ws.stores.mongo_uri), source)
    source, names = re.subn(r'"bank"', json.dumps(ws.name), source)
    assert uris == 1 and names >= 1
    return source


def cached(name: str, fetch: Callable[[Path], None]) -> Path:
    """A folder in the cache, which `fetch` fills if it is missing; skips the test if that fails."""
    cache = Path(os.environ.get("PROJECTOR_CACHE") or ("/var/cache/projector" if os.geteuid() == 0 else Path.home() / ".cache/projector"))
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder, done = cache / name, cache / name / "done"
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                fetch(folder)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                pytest.skip(f"cannot fetch the driver: {' '.join(map(str, error.cmd))}")
            done.touch()
    return folder


def needs(program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"there is no {program}")


def ran(*argv: str | Path, cwd: Path, **environment: str) -> None:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=FETCH_S, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout + done.stderr


def fetched(*argv: str | Path, cwd: Path, **environment: str) -> None:
    subprocess.run(argv, cwd=cwd, capture_output=True, timeout=FETCH_S, check=True, env={**os.environ, **environment})


def check_bank(bank: Workspace) -> None:
    """One account with a single deposit, although it was sent twice; the other one closed."""
    assert [event["version"] for event in bank.outbox.find().sort("occurred_at")] == [1, 2, 1, 2]
    assert bank.accounts.find_one()["version"] == 2 and bank.accounts.count_documents({}) == 1
    assert bank.db.outbox_commands.count_documents({"at": {"$type": "date"}}) == 4
    bank.run_once()
    (row,) = bank.rows("account")
    assert (row["account_id"], row["name"], row["balance"]) == ("acc-1", "Ada", Decimal("25.00"))
    done = bank.projector("reconcile")
    assert done.returncode == 0, done.stdout


def test_python(bank, tmp_path):
    ran(sys.executable, "-c", placed(code("Python", "python"), bank), cwd=tmp_path)
    check_bank(bank)


@pytest.mark.thorough
def test_node(bank, tmp_path):
    needs("npm")
    modules = cached("recipe-node", lambda folder: fetched("npm", "install", "--silent", "--ignore-scripts", NODE_PACKAGE, cwd=folder))
    (tmp_path / "node_modules").symlink_to(modules / "node_modules")
    (tmp_path / "bank.mjs").write_text(placed(code("Node.js", "js"), bank))
    ran("node", "bank.mjs", cwd=tmp_path)
    check_bank(bank)


@pytest.mark.thorough
def test_go(bank, tmp_path):
    needs("go")

    def fetch(folder: Path) -> None:
        fetched("go", "mod", "init", "bank", cwd=folder, GOFLAGS="-mod=mod")
        fetched("go", "get", *GO_MODULES, cwd=folder, GOFLAGS="-mod=mod")

    modules = cached("recipe-go", fetch)
    for name in ("go.mod", "go.sum"):
        shutil.copy(modules / name, tmp_path)
    (tmp_path / "main.go").write_text(placed(code("Go", "go"), bank))
    ran("go", "run", "-mod=mod", "main.go", cwd=tmp_path)
    check_bank(bank)


@pytest.mark.thorough
def test_java(bank, tmp_path):
    needs("javac")
    needs("mvn")

    def fetch(folder: Path) -> None:
        group, artifact, version = JAVA_DRIVER.split(":")
        (folder / "pom.xml").write_text(
            "<project><modelVersion>4.0.0</modelVersion><groupId>bank</groupId><artifactId>bank</artifactId><version>1</version>"
            f"<dependencies><dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
            f"<version>{version}</version></dependency></dependencies></project>")
        fetched("mvn", "-q", "-B", "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies",
                "-DoutputDirectory=jars", cwd=folder)

    jars = cached("recipe-java", fetch) / "jars"
    (tmp_path / "Bank.java").write_text(placed(code("Java", "java"), bank))
    ran("javac", "-cp", f"{jars}/*", "Bank.java", cwd=tmp_path)
    ran("java", "-cp", f"{jars}/*:.", "Bank", cwd=tmp_path)
    check_bank(bank)


def test_c(bank, tmp_path):
    (tmp_path / "bank.c").write_text(placed(code("C, with liboutbox", "c"), bank))
    (command,) = code("C, with liboutbox", "sh").splitlines()
    library = Path(OUTBOX).with_name("liboutbox.a")
    flags = ["-fsanitize=address,undefined"] if "sanitize" in OUTBOX else []
    command = command.replace("build/outbox/liboutbox.a", str(library)).replace("-I.", f"-I{ROOT} {' '.join(flags)}")
    ran("bash", "-euo", "pipefail", "-c", command, cwd=tmp_path)
    ran(tmp_path / "bank", cwd=tmp_path)
    check_bank(bank)


def test_a_shell(bank, tmp_path):
    source = code("A shell", "sh").replace("--database bank", f"--database {bank.name}")
    ran("bash", "-euo", "pipefail", "-c", source, cwd=tmp_path, MONGO_URI=bank.stores.mongo_uri,
        PATH=f"{Path(OUTBOX).parent}:{os.environ['PATH']}")
    check_bank(bank)


def test_orders_with_money_and_nested_documents(ws, tmp_path):
    mapping = json.loads("{" + code("An order: money and nested documents", "json").rstrip() + "}")
    ws.mapping(projections=mapping["projections"])
    ws.create()
    functions, end, _ = placed(code("Python", "python"), ws).partition('\n\nopen_account(uuid.uuid4(), "acc-1"')
    assert end
    ran(sys.executable, "-c", f"{functions}\n\n{code('An order: money and nested documents', 'python')}", cwd=tmp_path)
    ws.run_once()
    (row,) = ws.rows("orders")
    assert (row["order_id"], row["customer_id"], row["total"], row["city"]) == ("ord-1", "cus-7", Decimal("43.85"), "Basel")
    assert json.loads(row["lines"])[0]["sku"] == "tea"
    done = ws.projector("reconcile")
    assert done.returncode == 0, done.stdout
