"""MongoDB with access control: the role of the README is enough, and `check` names each action that is missing."""

from __future__ import annotations

import json
import os
import re

import pytest

from servers import ReplicaSet, server_user
from workspace import ROOT, Stores, Workspace, decimal

ACTIONS = {"outbox": ["find", "update", "remove", "changeStream", "listIndexes"], "accounts": ["find"],
           "projector_leases": ["find", "insert", "update"], "outbox_archive": ["find", "insert", "update"]}


@pytest.fixture
def guarded(stores, server_folder, tmp_path):
    """A workspace on a replica set that lets nobody in without a password; its user `projector` has the role `projecting`."""
    key = server_folder / "key"
    key.write_text("bm90IGEgc2VjcmV0")
    key.chmod(0o400)
    if user := server_user():
        os.chown(key, user["user"], user["group"])
    mongo = ReplicaSet(server_folder, cache_gb=0.25)
    try:
        mongo.start(["--auth", "--keyFile", str(key)])
        with mongo.members[0].client() as client:  # the first user may be made from this machine
            client.admin.command("createUser", "root", pwd="root", roles=["root"])
        uri = mongo.uri.replace("mongodb://", "mongodb://{user}:{user}@") + "&authSource=admin"
        with Workspace(Stores(uri.format(user="root"), stores.mysql_port, stores.mysql_host), tmp_path) as ws:
            ws.create()
            ws.mongo.admin.command("createRole", "projecting", privileges=privileges(ws), roles=[])
            ws.mongo.admin.command("createUser", "projector", pwd="projector", roles=["projecting"])
            ws.mapping(mongodb={"uri": uri.format(user="projector"), "retain": "archive"})
            yield ws
    finally:
        mongo.discard()


def privileges(ws, without: tuple[str, str] | None = None) -> list[dict]:
    given = {collection: [a for a in actions if (collection, a) != without] for collection, actions in ACTIONS.items()}
    return [{"resource": {"db": ws.name, "collection": collection}, "actions": actions} for collection, actions in given.items() if actions]


def findings(ws) -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in ws.projector("check", "--json").stdout.splitlines()]
    return [(line["verdict"], line["text"]) for line in lines if line["verdict"] != "ok"]


def test_the_role_of_the_readme_is_enough_and_each_action_is_needed(guarded):
    readme = (ROOT / "README.md").read_text()
    for collection, actions in ACTIONS.items():
        assert f'on("{collection}", {", ".join(json.dumps(a) for a in actions)})' in readme
    assert findings(guarded) == []
    guarded.put(guarded.event("a1", "AccountOpened", user_id="u1", name="Ada", balance=decimal("1.00")))
    guarded.run_once()
    assert len(guarded.rows("account")) == 1 and guarded.db["outbox_archive"].find_one()
    for command in (["status"], ["list"], ["explain", "account", "a1"], ["archive", "verify"], ["reconcile"],
                    ["replay", "--projection", "account"], ["rebuild", "--shadow", "--drop-old"]):
        done = guarded.projector(*command)
        assert done.returncode in (0, 1), done.stderr
    for collection, actions in ACTIONS.items():
        for action in actions:
            guarded.mongo.admin.command("updateRole", "projecting", privileges=privileges(guarded, (collection, action)))
            told = findings(guarded)
            assert told[0][0] == "error" and told[0][1].startswith(f"the user may not {action} on {guarded.name}.{collection}; grant"), told
            assert f'{{ resource: {{ db: "{guarded.name}", collection: "{collection}" }}, actions: ["{action}"] }}' in told[0][1]
    guarded.mongo.admin.command("updateRole", "projecting", privileges=[], roles=[{"role": "readWrite", "db": guarded.name}])
    assert findings(guarded) == []  # a role of the server's own


def test_without_a_login_the_outbox_is_closed(guarded):
    guarded.mapping(mongodb={"uri": re.sub(r"//.*@", "//", guarded.stores.mongo_uri)})
    done = guarded.projector("check")
    assert done.returncode == 2 and re.search(r"^error +mongodb .*(authenticat|authoriz)", done.stdout, re.M), done.stdout
