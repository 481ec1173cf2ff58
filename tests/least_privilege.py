"""Users with exactly the privileges that docs/security.md and sql/grants.sql grant."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import Iterator

from workspace import ROOT, Workspace

ACTIONS = {"outbox": ["find", "insert", "update", "remove", "changeStream", "listIndexes"],
           "outbox_search": ["find", "insert", "update", "listIndexes"], "accounts": ["find"], "projector_leases": ["find", "insert", "update"],
           "projector_claims": ["find", "insert", "update", "remove"], "outbox_archive": ["find", "insert", "update"]}
COUNTED = {"outbox_commands": ["find"]}  # nothing but their number needs it


def privileges(database: str, without: tuple[str, str] | None = None) -> list[dict]:
    """The privileges of the role in docs/security.md; `without` names a collection and an action to leave out."""
    given = {collection: [a for a in actions if (collection, a) != without] for collection, actions in {**ACTIONS, **COUNTED}.items()}
    return [{"resource": {"db": database, "collection": collection}, "actions": actions} for collection, actions in given.items() if actions]


def make_mongodb_user(ws: Workspace, password: str) -> None:
    """A user with that role alone; both are named after the workspace."""
    ws.mongo.admin.command("createRole", ws.name, privileges=privileges(ws.name), roles=[])
    ws.mongo.admin.command("createUser", ws.name, pwd=password, roles=[ws.name], mechanisms=["SCRAM-SHA-256"])


@contextmanager
def mysql_users(ws: Workspace) -> Iterator[dict[str, str]]:
    """The users of sql/grants.sql by their names there; here they are named after this workspace and connect from
    127.0.0.1. The passwords are those in the file."""
    names = {"projector": f"p{ws.name[2:]}", "projector_schema": f"s{ws.name[2:]}", "projector_fill": f"f{ws.name[2:]}"}
    text = re.sub(r"^--.*$", "", (ROOT / "sql/grants.sql").read_text(), flags=re.M)
    for old, new in names.items():
        text = text.replace(f"{old}@'%'", f"{new}@'127.0.0.1'")
    try:
        for statement in filter(str.strip, text.split(";")):
            ws.query(statement)
        yield names
    finally:
        for name in names.values():
            ws.query(f"DROP USER IF EXISTS {name}@'127.0.0.1'")
