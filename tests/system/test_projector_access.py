"""MongoDB with access control: the role of the README is enough, and `check` names each action that is missing."""

from __future__ import annotations

import json
import re

import pytest

from least_privilege import ACTIONS, make_mongodb_user, privileges
from servers import GuardedSet
from workspace import ROOT, Stores, Workspace, decimal


@pytest.fixture
def guarded(stores, server_folder, tmp_path):
    """A workspace on a replica set that lets nobody in without a password; its user has the role of the README."""
    with GuardedSet(server_folder) as mongo:
        with Workspace(Stores(mongo.uri, stores.mysql_port, stores.mysql_host), tmp_path) as ws:
            ws.create()
            make_mongodb_user(ws, "projector")
            ws.mapping(mongodb={"uri": mongo.uri_of(ws.name, "projector"), "retain": "archive"})
            yield ws


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
            guarded.mongo.admin.command("updateRole", guarded.name, privileges=privileges(guarded.name, (collection, action)))
            told = findings(guarded)
            assert told[0][0] == "error" and told[0][1].startswith(f"the user may not {action} on {guarded.name}.{collection}; grant"), told
            assert f'{{ resource: {{ db: "{guarded.name}", collection: "{collection}" }}, actions: ["{action}"] }}' in told[0][1]
    guarded.mongo.admin.command("updateRole", guarded.name, privileges=[], roles=[{"role": "readWrite", "db": guarded.name}])
    assert findings(guarded) == []  # a role of the server's own


def test_without_a_login_the_outbox_is_closed(guarded):
    guarded.mapping(mongodb={"uri": re.sub(r"//.*@", "//", guarded.stores.mongo_uri)})
    done = guarded.projector("check")
    assert done.returncode == 2 and re.search(r"^error +mongodb .*(authenticat|authoriz)", done.stdout, re.M), done.stdout
