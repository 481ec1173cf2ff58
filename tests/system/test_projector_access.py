"""MongoDB with access control: the role in docs/security.md is sufficient, and `check` names each missing action."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Iterator

import pytest

from endpoint import Endpoint
from least_privilege import ACTIONS, COUNTED, make_mongodb_user, privileges
from mongod import GuardedSet
from workspace import ROOT, WAIT_S, Stores, Workspace, decimal


@pytest.fixture
def guarded(stores, server_folder, tmp_path):
    """A workspace on a replica set that requires a password; its user has that role."""
    with GuardedSet(server_folder) as mongo:
        with Workspace(Stores(mongo.uri, stores.mysql_port, stores.mysql_host), tmp_path) as ws:
            ws.create()
            assert ws.outbox_program("init", "--archive", "--feed", "outbox_search").returncode == 0
            make_mongodb_user(ws, "projector")
            ws.mapping(mongodb={"uri": mongo.uri_of(ws.name, "projector"), "retain": "archive", "feeds": ["outbox_search"]})
            yield ws


def findings(ws) -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in ws.projector("check", "--json").stdout.splitlines()]
    return [(line["verdict"], line["text"]) for line in lines
            if line["verdict"] != "ok" and not line["text"].startswith("no projector reads the feed")]


@pytest.mark.thorough
def test_the_documented_role_is_enough_and_each_action_is_needed(guarded):
    manual = (ROOT / "docs/security.md").read_text()
    for collection, actions in {**ACTIONS, **COUNTED}.items():
        assert f'on("{collection}", {", ".join(json.dumps(a) for a in actions)})' in manual
    assert findings(guarded) == []
    assert re.search(r"^ok +mongodb +not checked, because the user may not listCollections: .* a validator", guarded.projector("check").stdout, re.M)
    guarded.put(guarded.event("a1", "AccountOpened", user_id="u1", name="Ada", balance=decimal("1.00")))
    guarded.run_once()
    assert len(guarded.rows("account")) == 1 and guarded.db["outbox_archive"].find_one() and guarded.db["outbox_search"].find_one()
    for command in (["status"], ["events"], ["list"], ["explain", "account", "a1"], ["archive", "verify"], ["reconcile"],
                    ["replay", "--projection", "account"], ["rebuild", "--shadow", "--drop-old"]):
        done = guarded.projector(*command)
        assert done.returncode in (0, 1), done.stderr
    for collection, actions in ACTIONS.items():
        for action in actions:
            guarded.mongo.admin.command("updateRole", guarded.name, privileges=privileges(guarded.name, (collection, action)))
            told = findings(guarded)
            assert told[0][0] == "error" and told[0][1].startswith(f"the user may not {action} on {guarded.name}.{collection}; grant"), told
            assert f'{{ resource: {{ db: "{guarded.name}", collection: "{collection}" }}, actions: ["{action}"] }}' in told[0][1]
    guarded.mongo.admin.command("updateRole", guarded.name, privileges=[], roles=[{"role": "readWrite", "db": guarded.name}])
    assert [told for level, told in findings(guarded) if level == "error"] == []  # a built-in role


@pytest.mark.thorough
def test_who_may_not_count_the_receipts_asks_for_them_once(guarded, server_folder):
    """mongod logs every refusal, and `run` looks at its outbox every second."""
    guarded.mongo.admin.command("updateRole", guarded.name, privileges=privileges(guarded.name, ("outbox_commands", "find")))
    guarded.db.command("profile", 2)
    guarded.mapping(**{**json.loads(guarded.file.read_text()), "http": "127.0.0.1:0"})
    def looks() -> int:
        return guarded.db["system.profile"].count_documents({"ns": guarded.outbox.full_name, "command.aggregate": "outbox"})
    with guarded.start_projector() as projector:
        endpoint = Endpoint(projector)
        before = refusals(server_folder)
        guarded.wait(lambda: looks() > 8, what="more looks")
        assert "projector_command_receipts" not in endpoint.metrics() and "projector_outbox_events" in endpoint.get("/metrics").text
        assert refusals(server_folder) - before <= 1 and guarded.projector("status").returncode == 0


def refusals(folder: Path) -> int:
    """How often mongod has logged that somebody may not look at the receipts."""
    return sum("outbox_commands" in line and "not authorized" in line for log in folder.rglob("log") for line in log.read_text(errors="replace").splitlines())


@pytest.mark.thorough
def test_without_the_right_to_claim_by_the_batch_a_gap_is_waited_for_and_work_goes_on(guarded):
    """Events are claimed in their own documents then, which is slower and as safe, whatever becomes of them."""
    guarded.file.write_text(json.dumps({**json.loads(guarded.file.read_text()), "gap_wait_ms": 300000}))
    guarded.mongo.admin.command("updateRole", guarded.name, privileges=[
        given for given in privileges(guarded.name) if given["resource"]["collection"] != "projector_claims"])
    with guarded.start_projector() as projector:
        projector.wait_log("info working")
        open_account(guarded, "a1", version=1)
        guarded.wait_drained()
        waits = guarded.event("a1", "MoneyDeposited", version=3, amount=decimal("3.00"))
        guarded.put(waits)
        open_account(guarded, "a2")
        guarded.wait(lambda: len(guarded.rows("account")) == 2, what="the other account")
        guarded.wait_status(waits, "pending")
        guarded.put(guarded.event("a1", "MoneyDeposited", version=2, at=waits["occurred_at"] - timedelta(milliseconds=1), amount=decimal("2.00")))
        guarded.wait_drained()
        assert projector.stop() == 0
        assert "events are claimed one by one" in projector.log_text()
    assert [str(row["balance"]) for row in guarded.rows("account")] == ["6.00", "1.00"]


def test_without_a_login_the_outbox_is_closed(guarded):
    guarded.mapping(mongodb={"uri": re.sub(r"//.*@", "//", guarded.stores.mongo_uri)})
    done = guarded.projector("check")
    assert done.returncode == 2 and re.search(r"^error +mongodb .*(authenticat|authoriz)", done.stdout, re.M), done.stdout


@pytest.mark.thorough
def test_the_role_of_a_writer_is_enough_and_without_the_receipts_it_writes_as_before(guarded):
    writer = f"{guarded.name}_writer"
    actions = {"outbox": ["find", "insert"], "accounts": ["find", "insert", "update", "remove"],
               "outbox_deleted": ["find", "insert", "update"], "outbox_commands": ["find", "insert", "update"]}
    documented = (ROOT / "docs/writing-events.md").read_text()
    for collection, names in actions.items():
        assert f'on("{collection}", {", ".join(json.dumps(a) for a in names)})' in documented
    def role(*without: str) -> list[dict]:
        return [{"resource": {"db": guarded.name, "collection": c}, "actions": a} for c, a in actions.items() if c not in without]
    guarded.mongo.admin.command("createRole", writer, privileges=role(), roles=[])
    guarded.mongo.admin.command("createUser", writer, pwd="writer", roles=[writer], mechanisms=["SCRAM-SHA-256"])
    guarded.stores.mongo_uri = re.sub(r"//.*@", f"//{writer}:writer@", guarded.stores.mongo_uri)
    def put(_id: str, change: dict) -> int:
        event = {"_id": _id, "aggregate_type": "account", "aggregate_id": "a1", "event_type": "E", "payload": {}, "entity": change}
        return guarded.outbox_program("put", "--entities", "accounts", input=json.dumps(event)).returncode
    assert [put("c-1", {"insert": {}}), put("c-1", {"insert": {}})] == [0, 0]
    assert [put("c-2", {"update": {}}), put("c-3", {"replace": {}}), put("c-4", {"delete": True})] == [0, 0, 0]
    guarded.mongo.admin.command("updateRole", writer, privileges=role("outbox_commands"))
    assert [put("c-5", {"insert": {}}), put("c-5", {"update": {}})] == [0, 1]


def open_account(ws: Workspace, account: str, version: int | None = None) -> None:
    ws.put(ws.event(account, "AccountOpened", version, user_id="u1", name="Ada", balance=decimal("1.00")))


def take_from_file(ws: Workspace, section: str, key: str, file: Path, **others: str) -> None:
    """The mapping with that secret read from a file."""
    path = ws.mapping(sweep_interval_ms=200, backoff_ms=20)
    content = json.loads(path.read_text())
    content[section].update({f"{key}_file": str(file), **others})
    del content[section][key]
    path.write_text(json.dumps(content))


STARTS_AGAIN = "a secret file has changed since it was read: restarting with it"


@pytest.fixture
def secret(bank, tmp_path) -> Iterator[Path]:
    """The file of a password, which the mapping names; `set_password` changes it in MySQL."""
    user, file = password_user(bank), tmp_path / "password"
    file.write_text("first\n")
    file.chmod(0o600)
    bank.query(f"CREATE USER {user}@'127.0.0.1' IDENTIFIED BY 'first'")
    bank.query(f"GRANT ALL ON {bank.name}.* TO {user}@'127.0.0.1'")
    try:
        take_from_file(bank, "mysql", "password", file, user=user)
        yield file
    finally:
        bank.query(f"DROP USER {user}@'127.0.0.1'")


def password_user(ws: Workspace) -> str:
    return f"r{ws.name[2:]}"


def set_password(ws: Workspace, password: str) -> None:
    ws.query(f"ALTER USER {password_user(ws)}@'127.0.0.1' IDENTIFIED BY '{password}'")


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_a_secret_ends_with_its_line_whatever_editor_wrote_it(bank, secret, ending):
    secret.write_bytes(b"first" + ending)
    open_account(bank, "a1")
    bank.run_once()
    assert len(bank.rows("account")) == 1


def test_a_changed_password_file_of_mysql_is_read_again_before_giving_up(bank, secret):
    with bank.start_projector() as projector:
        projector.wait_log("info working")
        secret.write_text("second\n")
        set_password(bank, "second")
        bank.end_sessions(password_user(bank))
        open_account(bank, "a1")
        bank.wait_drained()
        projector.wait_log(STARTS_AGAIN)
        set_password(bank, "third")  # and the file is not changed
        bank.end_sessions(password_user(bank))
        open_account(bank, "a2")
        assert projector.popen.wait(WAIT_S) == 2
        assert "second" not in projector.log_text() and "third" not in projector.log_text()


def test_a_changed_password_file_is_read_again_while_the_old_sessions_still_work(bank, secret):
    """The workers notice nothing, but nothing could be swept, and the next broken connection would be the last."""
    with bank.start_projector() as projector:
        open_account(bank, "a1")
        bank.wait_drained()
        secret.write_text("second\n")
        set_password(bank, "second")
        projector.wait_log(STARTS_AGAIN)
        open_account(bank, "a2")
        bank.wait_drained()
        assert projector.running


@pytest.mark.thorough
def test_a_changed_uri_file_of_mongodb_is_read_again_before_giving_up(guarded, tmp_path):
    uri, secret = guarded.stores.mongo_uri.replace("root:root@", f"{guarded.name}:PASSWORD@"), tmp_path / "uri"
    secret.write_text(uri.replace("PASSWORD", "projector"))
    secret.chmod(0o600)
    take_from_file(guarded, "mongodb", "uri", secret)
    with guarded.start_projector() as projector:
        projector.wait_log("info working")
        secret.write_text(uri.replace("PASSWORD", "second"))
        guarded.mongo.admin.command("dropUser", guarded.name)  # existing logins are shut out at once
        guarded.mongo.admin.command("createUser", guarded.name, pwd="second", roles=[guarded.name], mechanisms=["SCRAM-SHA-256"])
        open_account(guarded, "a1")
        guarded.wait_drained()
        projector.wait_log(STARTS_AGAIN)
