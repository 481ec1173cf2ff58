"""A server whose InnoDB is read-only as a whole, as for a repair: it says of each table that it is read-only."""

from __future__ import annotations

import shutil

import pytest

from bank import opened
from mysqld import Mysqld
from server import scratch_folder
from workspace import Stores, Workspace


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--innodb-read-only=1", pytest.param("--innodb-force-recovery=4", marks=pytest.mark.thorough)])
def test_a_start_while_innodb_is_read_only_waits_for_it(stores, tmp_path, option):
    folder = scratch_folder()
    with Mysqld(folder / "mysqld") as server, Workspace(Stores(stores.mongo_uri, server.port), tmp_path) as ws:
        ws.mapping(lease_ms=1000)
        ws.create()
        ws.query("SET GLOBAL innodb_fast_shutdown = 0")
        server.restart([option])
        with ws.start_projector() as projector:
            ws.put(opened(ws, "a1"))
            told = projector.wait_log("cannot become the owner .*")[0]
            server.restart([])
            assert "class=unavailable" in told and "innodb_read_only" in told
            ws.wait_drained()
            assert projector.stop() == 0
        assert len(ws.rows("account")) == 1
    shutil.rmtree(folder, ignore_errors=True)
