"""Before the first event: invalid files, stores and tables; `check`."""

from __future__ import annotations

import json
import re
import socket

import pytest

from bank import FAST, opened
from forwarding import forwarding
from mongod import Mongod
from mysqld import Mysqld
from server import free_port
from vitess import vitess
from workspace import Stores, Workspace, bank_projections, decimal, last_said, said

COMMANDS = ["run", "check", "schema", "status"]


# the file


def changed(path: str, value) -> dict:
    """The bank's projections with one key changed, or removed if the value is None."""
    [projection] = bank_projections()
    *way, last = path.split(".")
    target = projection
    for key in way:
        target = target[key]
    if value is None:
        del target[last]
    else:
        target[last] = value
    return {"projections": [projection]}


WRONG = [
    (changed("columns.balance.type", "decimal(70,2)"), r"projections\[0\]\.columns\.balance\.type: expected .*found \"decimal\(70,2\)\""),
    (changed("columns.balance.type", "money"), r"projections\[0\]\.columns\.balance\.type: "),
    (changed("columns.balance.from", "$nonsense"), r"projections\[0\]\.columns\.balance\.from: "),
    (changed("columns.na`me", {"from": "name", "type": "text"}), r"projections\[0\]\.columns\.na`me: "),
    (changed("events.AccountOpened.op", "upset"), r"projections\[0\]\.events\.AccountOpened\.op: expected one of"),
    (changed("events.AccountRenamed.columns", ["nome"]), r"projections\[0\]\.events\.AccountRenamed\.columns"),
    (changed("events.MoneyDeposited.columns", {"name": "amount"}), r"projections\[0\]\.events\.MoneyDeposited\.columns\.name: "),
    (changed("events.AccountFrozen.statement", "UPDATE account SET name = ?"), r"projections\[0\]\.events\.AccountFrozen\.statement: "),
    (changed("events.AccountFrozen.statement", "DELETE FROM a; DELETE FROM b"), r"statement: expected one statement"),
    (changed("events.AccountFrozen.statement", "TRUNCATE account"), r"projections\[0\]\.events\.AccountFrozen\.statement: expected one INSERT, UPDATE, DELETE or REPLACE, found"),
    (changed("key", None), r"projections\[0\]\.key: "),
    (changed("table", "account; DROP"), r"projections\[0\]\.table: expected an identifier"),
    (changed("extra", 1), r"projections\[0\]\.extra: unknown key"),
    ({"nonsense": 1}, r"nonsense: unknown key"),
    ({"workers": 0}, r"workers: expected a whole number from 1"),
    ({"workers": "two"}, r"workers: expected a whole number .*found \"two\""),
    ({"batch": 2.0}, r"batch: expected a whole number from 1 to 10000, found 2\.0$"),
    ({"batch": 1.5}, r"batch: expected a whole number"),
    ({"name": "a b"}, r"name: expected"),
    ({"log": "xml"}, r"log: expected one of text, json"),
    ({"projections": []}, r"projections: expected a list of at least one"),
    ({"mongodb": {"retain": "keep"}}, r"mongodb\.retain: expected one of delete, archive"),
    ({"mongodb": {"uri": "${NOT_SET_ANYWHERE}"}}, r"mongodb\.uri: the environment variable NOT_SET_ANYWHERE is not set"),
    ({"mongodb": {"database": "a.b"}}, r"mongodb\.database: expected .*found \"a\.b\""),
    ({"mongodb": {"outbox": ""}}, r"mongodb\.outbox: expected the name of a collection .*found \"\""),
    (changed("entities", "a$b"), r"projections\[0\]\.entities: expected the name of a collection"),
    (changed("entities", "outbox"), r"projections\[0\]\.entities: outbox is the outbox"),
    (changed("entities", "outbox_archive"), r"projections\[0\]\.entities: outbox_archive is the outbox's archive"),
    (changed("table", "projector_Fence"), r"projections\[0\]\.table: expected a table that is not the projector's own"),
    (changed("aggregate_type", "a" * 129), r"projections\[0\]\.aggregate_type: expected a name of 1 to 128 bytes"),
    ({"mysql": {"port": 70000}}, r"mysql\.port: expected a whole number from 1 to 65535"),
    ({"mysql": {"password_file": "/nowhere"}}, r"mysql\.password_file: "),
    ({"mysql": {"tls": "maybe"}}, r"mysql\.tls: expected one of"),
]


@pytest.mark.thorough(beyond=8)
@pytest.mark.parametrize("overrides, message", WRONG, ids=[m.replace("\\", "")[:45] for _, m in WRONG])
def test_a_wrong_file_is_refused_with_the_path_of_the_key(ws, overrides, message):
    ws.mapping(overrides.pop("projections", None), **{k: dict(v) if isinstance(v, dict) else v for k, v in overrides.items()})
    line = said(ws.projector("run"), 2)
    assert re.search(rf"^projector: {re.escape(str(ws.file))}: {message}" if not message.startswith("statement") else message, line), line
    assert ws.query("SHOW TABLES") == [] and ws.db.list_collection_names() == []


@pytest.mark.parametrize("text, message", [("", "not valid JSON"), ("{", "not valid JSON"), ("[]", "expected an object"), ("null", "not valid JSON"),
                                           ('{"name": "a", "name": "b"}', "not valid JSON"), ('{"name": "\\u0000"}', "not valid JSON"),
                                           (None, "No such file"), ("\xff", "not valid JSON")])
def test_a_file_that_is_no_mapping(ws, text, message):
    ws.mapping()
    ws.file.unlink() if text is None else ws.file.write_bytes(text.encode("latin-1"))
    for command in COMMANDS:
        assert message in said(ws.projector(command), 2)


def test_a_byte_order_mark_is_no_part_of_the_file(ws):
    ws.mapping()
    ws.file.write_bytes(b"\xef\xbb\xbf" + ws.file.read_bytes())
    assert ws.projector("schema").returncode == 0


def test_wrong_use(ws):
    assert "unknown command dance" in said(ws.projector("dance"), 2)
    assert "--nonsense" in said(ws.projector("run", "--nonsense"), 2)
    ws.mapping()
    for command in COMMANDS:
        assert "expected no arguments" in said(ws.projector(command, "extra"), 2)
    assert "--limit: expected" in said(ws.projector("list", "--limit", "-1"), 2)
    for command in ["", *COMMANDS]:
        done = ws.projector(*[command, "--help"][not command:])
        assert done.returncode == 0 and "projector" in done.stdout and done.stderr == ""


def test_a_secret_that_others_can_read_is_warned_about(bank, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("projector\n")
    secret.chmod(0o604)
    path = bank.mapping()
    content = json.loads(path.read_text())
    del content["mysql"]["password"]
    content["mysql"]["password_file"] = str(secret)
    path.write_text(json.dumps(content))
    done = bank.run_once()
    assert re.search(r"warning configuration reason=.*mysql\.password_file: .* can be read by every user", done.stderr)
    secret.chmod(0o600)
    assert "can be read" not in bank.run_once().stderr


def test_numbers_may_come_from_the_environment(bank):
    bank.mapping(workers="${N_WORKERS}", mysql={"port": "${BANK_PORT}"})
    bank.environment.update(N_WORKERS="3", BANK_PORT=str(bank.stores.mysql_port))
    assert "workers=3" in bank.run_once().stderr
    bank.environment["BANK_PORT"] = "many"
    assert re.search(r"mysql\.port: expected a whole number", said(bank.projector("run"), 2))


WRONG_URIS = ["http://user:s3cr3t@x/", "user:s3cr3t@x", "mongodb://user:s3cr3t", "mongodb://user:s3c/s3cr3t@x/", "mongodb://user:@s3cr3t@x/", "mongodb://user:1/s3cr3t@x/db",
              "mongodb://user:s3cr3t%zz@x/", "mongodb://user:a\"s3cr3t'b@x:y/", "mongodb://x/?password=s3cr3t&ssl", "mongodb://user:s3cr3t@/",
              "mongodb://x/?tls=s3cr3t", "mongodb://x/?authMechanism=s3cr3t"]


@pytest.mark.thorough(beyond=4)
@pytest.mark.parametrize("uri", WRONG_URIS)
def test_a_uri_that_is_none_is_not_shown(ws, uri):
    for wrong in ({"uri": uri}, {"uri": "${WRONG_URI}"}):
        ws.environment["WRONG_URI"] = uri
        ws.mapping(mongodb=wrong)
        for command in ("run", "list"):
            line = said(ws.projector(command), 2)
            assert line.startswith(f"projector: {ws.file}: mongodb.uri: ") and "expected mongodb://" in line, line
            assert "s3c" not in line


def test_a_secret_of_the_wrong_type_is_not_shown(ws):
    for section, wrong in (("mysql", {"password": 31337}), ("mongodb", {"uri": 31337}), ("mysql", {"password_file": 31337})):
        ws.mapping(**{section: wrong})
        line = said(ws.projector("run"), 2)
        assert f"{section}.{next(iter(wrong))}: expected a string, found a number" in line and "31337" not in line
    ws.mapping(admin_token=31337)
    assert said(ws.projector("run"), 2).endswith("admin_token: expected a string, found a number")
    path = ws.mapping()
    for broken in ('"s3cr3t" "', '"s3cr3t\n"', 's3cr3t', '"s3cr3t\\x"'):
        text = path.read_text().replace('"password": "projector"', f'"password": {broken}')
        assert broken in text
        (ws.folder / "broken.json").write_text(text)
        ws.file = ws.folder / "broken.json"
        assert "s3cr3t" not in said(ws.projector("run"), 2)


# the stores


@pytest.mark.thorough
def test_unreachable_stores(bank):
    port = free_port()
    bank.mapping(mysql={"port": port})
    for command in (["run"], ["run", "--once"]):
        line = last_said(bank.projector(*command), 3)
        assert line.startswith("projector: mysql: ") and f"127.0.0.1:{port}" in line
    bank.mapping(mongodb={"uri": f"mongodb://127.0.0.1:{port}/?replicaSet=rs0&serverSelectionTimeoutMS=300"})
    line = last_said(bank.projector("run"), 3)
    assert line.startswith("projector: mongodb: ") and str(port) in line
    for command in (["check"], ["status"], ["status", "--json"]):
        done = bank.projector(*command)
        assert done.returncode == 3
        assert str(port) in done.stdout + done.stderr
    assert json.loads(bank.projector("status", "--json").stdout)["mysql"]["reachable"]


def test_a_wrong_password_and_an_unknown_database(bank):
    bank.mapping(mysql={"password": "wrong"})
    line = last_said(bank.projector("run"), 2)
    assert "Access denied" in line and "(1045)" in line and "wrong" not in line
    bank.mapping(mysql={"database": "t_nowhere"})
    assert re.search(r"nknown database.*\(1049\)", last_said(bank.projector("run"), 2))


def test_a_standalone_mongod_is_refused(bank, server_folder):
    with Mongod(server_folder / "alone") as alone:
        bank.mapping(mongodb={"uri": f"mongodb://{alone.address}/"})
        line = last_said(bank.projector("run"), 2)
        assert "standalone" in line and "--replSet" in line
        assert bank.projector("check").returncode == 2
        with alone.client() as client:
            assert bank.name not in client.list_database_names()


def own_address() -> str | None:
    """An address of this machine that is not loopback; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return None if probe.getsockname()[0].startswith("127.") else probe.getsockname()[0]


def test_tls_is_the_default_to_another_host(bank):
    host = own_address()
    if host is None:
        pytest.skip("this machine has no address but loopback")
    with forwarding(host, bank.stores.mysql_port) as port:
        bank.mapping(mysql={"host": host, "port": port})
        line = last_said(bank.projector("run", "--once"), 3)
        assert re.search(r"\(2026\)$", line) and 'mysql.tls is "verify", the default' in line and "mysql.tls_ca" in line, line
        bank.mapping(mysql={"host": host, "port": port, "tls": "off"})
        bank.put(opened(bank))
        assert re.search(r"warning configuration reason=.*mysql\.tls: .*off.* in plain text", bank.run_once().stderr)
        assert len(bank.rows("account")) == 1
    bank.mapping(mysql={"host": "127.0.0.1"})
    assert "configuration" not in bank.run_once().stderr


# the tables


def test_missing_tables_are_refused_and_nothing_is_written(ws):
    ws.mapping()
    ws.put(opened(ws))
    line = last_said(ws.projector("run"), 2)
    assert "projector_applied" in line and "projector schema --apply" in line
    assert ws.query("SHOW TABLES") == []
    assert ws.outbox.find_one().get("status") is None
    assert ws.db.list_collection_names() == ["outbox"]


BAD_TABLES = [
    ("DROP TABLE account", "error", r"projections\[0\]\.table: account does not exist"),
    ("ALTER TABLE account DROP COLUMN name", "error", r"projections\[0\]\.columns\.name: table account has no such column"),
    ("ALTER TABLE account MODIFY name varchar(99) NOT NULL", "error", r"columns\.name: expected a column that holds every varchar\(100\), found varchar\(99\)"),
    ("ALTER TABLE account MODIFY balance decimal(17,2) NOT NULL", "error", r"columns\.balance: expected .* found decimal\(17,2\)"),
    ("ALTER TABLE account MODIFY balance decimal(18,1) NOT NULL", "error", r"columns\.balance: "),
    ("ALTER TABLE account MODIFY balance decimal(18,4) NOT NULL", "error", r"columns\.balance: expected .* found decimal\(18,4\)"),
    ("ALTER TABLE account MODIFY balance double NOT NULL", "error", r"columns\.balance: "),
    ("ALTER TABLE account MODIFY opened_at datetime(3) NOT NULL", "error", r"columns\.opened_at: \"null\" is true, but account\.opened_at is NOT NULL"),
    ("ALTER TABLE account MODIFY opened_at datetime NULL", "error", r"columns\.opened_at: "),
    ("ALTER TABLE account MODIFY name varchar(100) CHARACTER SET latin1 NOT NULL", "warning", r"character set latin1"),
    ("ALTER TABLE account MODIFY account_id varchar(36) COLLATE utf8mb4_general_ci NOT NULL", "warning", r"key\.account_id: with collation utf8mb4_general_ci .* case"),
    ("ALTER TABLE account MODIFY account_id varchar(36) COLLATE utf8mb4_bin NOT NULL", "warning", r"key\.account_id: with collation utf8mb4_bin .* trailing spaces"),
    ("ALTER TABLE account ADD UNIQUE KEY by_user (user_id)", "error", r"account has a unique key other than the mapping's, by_user \(user_id\), .*; drop it, or"),
    ("ALTER TABLE account ADD UNIQUE KEY short (account_id(8))", "error", r"a unique key other than the mapping's, short \(account_id; only their beginning\)"),
    ("ALTER TABLE account DROP PRIMARY KEY, ADD PRIMARY KEY (account_id(20))", "error", r"a unique key other than the mapping's, PRIMARY .* make the mapping's key the table's primary key"),
    ("ALTER TABLE account DROP PRIMARY KEY", "error", r"key: table account needs a primary or unique key"),
    ("ALTER TABLE account DROP PRIMARY KEY, ADD PRIMARY KEY (account_id, user_id)", "error", r"a unique key other than the mapping's, PRIMARY \(account_id, user_id\)|needs a primary or unique key on exactly these"),
    ("ALTER TABLE account ADD stranger int NOT NULL", "error", r"account\.stranger is NOT NULL, has no default and is not mapped"),
    ("ALTER TABLE account DROP COLUMN balance, ADD balance decimal(18,2) GENERATED ALWAYS AS (1) STORED", "error", r"generated column"),
    ("DROP TABLE projector_position", "error", r"table projector_position is missing"),
    ("ALTER TABLE account ENGINE = MyISAM", "error", r"projections\[0\]\.table: account has engine MyISAM, which cannot roll back: .*ENGINE = InnoDB"),
    ("ALTER TABLE projector_applied ENGINE = MyISAM", "error", r"table projector_applied has engine MyISAM"),
    ("ALTER TABLE projector_applied DROP PRIMARY KEY", "error", r"table projector_applied needs a primary or unique key on exactly \(projector, event_id_kind, event_id\)"),
    ("ALTER TABLE projector_applied DROP PRIMARY KEY, ADD PRIMARY KEY (projector, event_id_kind, event_id, applied_at)", "error",
     r"table projector_applied needs .*ALTER TABLE projector_applied DROP PRIMARY KEY, ADD PRIMARY KEY \(projector, event_id_kind, event_id\)"),
    ("ALTER TABLE projector_position DROP PRIMARY KEY, ADD UNIQUE KEY (projector, aggregate_type, aggregate_id_kind, aggregate_id(20))", "error",
     r"table projector_position needs a primary or unique key on exactly"),
    ("ALTER TABLE projector_fence DROP PRIMARY KEY, ADD PRIMARY KEY (projector)", "error", r"table projector_fence needs .* on exactly \(projector, part\)"),
    ("ALTER TABLE projector_applied DROP PRIMARY KEY, ADD UNIQUE KEY own (event_id, projector, event_id_kind)", "ok", r"fit the mapping"),
    ("ALTER TABLE projector_position MODIFY occurred_at DATETIME NOT NULL", "error",
     r"table projector_position: column occurred_at is datetime instead of .*; ALTER TABLE projector_position MODIFY COLUMN occurred_at DATETIME\(3\) NOT NULL"),
    ("ALTER TABLE projector_applied MODIFY applied_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP", "error",
     r"table projector_applied: column applied_at is datetime instead of .*; ALTER TABLE projector_applied MODIFY COLUMN applied_at DATETIME\(3\) NOT NULL DEFAULT"),
    ("ALTER TABLE projector_position MODIFY aggregate_id VARCHAR(255) NOT NULL", "error", r"column aggregate_id is varchar\(255\) instead of VARBINARY\(255\) NOT NULL; ALTER"),
    ("ALTER TABLE projector_applied ALTER applied_at DROP DEFAULT", "error", r"projector_applied: column applied_at is NOT NULL and has no default, .*: CURRENT_TIMESTAMP\(3\)"),
    ("ALTER TABLE projector_fence ADD note INT NOT NULL", "error", r"projector_fence: column note is NOT NULL and has no default, .*, or remove it"),
    ("ALTER TABLE projector_applied ADD note INT NOT NULL DEFAULT 3, MODIFY event_id VARBINARY(100) NOT NULL", "ok", r"fit the mapping"),
    ("ALTER TABLE account MODIFY balance decimal(18,2) unsigned NOT NULL", "warning", r"columns\.balance: decimal\(18,2\) unsigned is unsigned"),
    ("ALTER TABLE account MODIFY updated_at datetime(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3)", "warning",
     r"columns\.updated_at: account\.updated_at has ON UPDATE CURRENT_TIMESTAMP"),
    ("CREATE TRIGGER louder BEFORE INSERT ON account FOR EACH ROW SET NEW.name = UPPER(NEW.name)", "warning", r"account has the trigger louder"),
    ("ALTER TABLE account ADD stranger int NOT NULL DEFAULT 5, ADD other int NULL", "ok", r"fit the mapping"),
    ("ALTER TABLE account MODIFY name longtext NOT NULL, MODIFY balance decimal(40,10) NOT NULL, MODIFY opened_at datetime(6) NULL", "ok", r"fit the mapping"),
    ("ALTER TABLE account DROP PRIMARY KEY, ADD UNIQUE KEY (account_id)", "ok", r"fit the mapping"),
]


@pytest.mark.thorough(beyond=8)
@pytest.mark.parametrize("statement, verdict, message", BAD_TABLES, ids=[s[:60] for s, *_ in BAD_TABLES])
def test_check_finds_what_is_wrong_with_a_table_and_run_refuses_it(bank, statement, verdict, message):
    bank.query(statement)
    done = bank.projector("check", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert any(line["verdict"] == verdict and re.search(message, line["text"]) for line in lines), lines
    assert [line for line in lines if line["verdict"] == "error"] or verdict != "error"
    assert done.returncode == (2 if verdict == "error" else 0)
    if verdict == "error":
        bank.put(opened(bank))
        before = bank.query("SELECT TABLE_NAME, CREATE_TIME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s", bank.name)
        assert re.search(message, last_said(bank.projector("run", "--once"), 2))
        assert bank.outbox.find_one().get("status") is None
        assert bank.query("SELECT TABLE_NAME, CREATE_TIME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s", bank.name) == before


def test_a_ledger_without_its_key_gets_it_back_as_check_says(bank):
    """Without it, the same event counts a second time."""
    bank.query("ALTER TABLE projector_applied DROP PRIMARY KEY")
    line = last_said(bank.projector("run"), 2)
    bank.query(re.search(r"ALTER TABLE projector_applied ADD PRIMARY KEY \(.*?\)", line)[0])
    assert bank.projector("check").returncode == 0
    first, deposit = opened(bank), bank.event("a1", "MoneyDeposited", amount=decimal("1.00"))
    for events in ([first, deposit], [deposit]):
        bank.put(events)
        bank.run_once()
    assert bank.rows("account")[0]["balance"] == 101


SPECIAL = {"size": "enum('small','large')", "built": "year", "opens": "time(3)", "open": "bit(1)", "rate": "float"}


@pytest.mark.thorough(beyond=2)
@pytest.mark.parametrize("column, wrong", [
    ("size", "enum('small','big')"), ("size", "varchar(3)"), ("built", "tinyint"), ("opens", "time(0)"),
    ("opens", "datetime(3)"), ("open", "varchar(5)"), ("rate", "float(5,2)"), ("rate", "decimal(5,2)")])
def test_check_finds_columns_that_hold_other_values_than_the_special_types(ws, column, wrong):
    ws.mapping([{"aggregate_type": "account", "table": "shops", "events": {"Opened": {"op": "upsert"}},
                 "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}},
                 "columns": {name: {"from": name, "type": type} for name, type in SPECIAL.items()}}])
    ws.create()
    assert ws.projector("check").returncode == 0
    ws.query(f"ALTER TABLE shops MODIFY {column} {wrong} NOT NULL")
    assert f"columns.{column}: " in last_said(ws.projector("run", "--once"), 2)


def test_a_column_that_rounds_holds_no_double(ws):
    ws.mapping([{"aggregate_type": "account", "table": "rate", "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}},
                 "columns": {"rate": {"from": "rate", "type": "double"}}, "events": {"Opened": {"op": "upsert"}}}])
    ws.create()
    assert ws.projector("check").returncode == 0
    ws.query("ALTER TABLE rate MODIFY rate double(10,2) NOT NULL")
    assert "columns.rate: expected a column that holds every double, found double(10,2)" in last_said(ws.projector("run", "--once"), 2)


def test_names_may_be_words_of_sql(ws):
    ws.mapping([{"aggregate_type": "account", "table": "order", "entities": "accounts",
                 "key": {"group": {"from": "$aggregate_id", "type": "varchar(36)"}},
                 "columns": {"select": {"from": "name", "type": "varchar(100)"}, "rank": {"from": "n", "type": "int"}},
                 "events": {"Opened": {"op": "upsert"}, "Renamed": {"op": "update", "columns": ["select"]},
                            "Added": {"op": "add", "columns": {"rank": "n"}}, "Closed": {"op": "delete"}}}])
    ws.create()
    ws.put(ws.event("a1", "Opened", name="Ada", n=1), ws.event("a2", "Opened", name="Eve", n=1))
    ws.run_once()
    ws.put(ws.event("a1", "Renamed", name="Zoe"), ws.event("a1", "Added", n=2), ws.event("a2", "Closed"))
    ws.run_once()
    ws.accounts.insert_one({"_id": "a1", "version": 1, "name": "Zoe", "n": 3})
    assert ws.rows("`order`") == [{"group": "a1", "select": "Zoe", "rank": 3}]
    assert ws.projector("check").returncode == 0
    assert ws.projector("reconcile").returncode == 0 == ws.projector("rebuild", "--shadow").returncode


def test_a_user_of_mysql_may_have_any_name_and_password(bank):
    user = f"ü{bank.name[2:]}"
    bank.query(f"CREATE USER {user}@'127.0.0.1' IDENTIFIED BY 'pässwörd'")
    try:
        bank.query(f"GRANT ALL ON {bank.name}.* TO {user}@'127.0.0.1'")
        bank.mapping(mysql={"user": user, "password": "pässwörd"})
        bank.put(opened(bank))
        bank.run_once()
        assert len(bank.rows("account")) == 1
    finally:
        bank.query(f"DROP USER {user}@'127.0.0.1'")


def test_a_column_without_a_sign_holds_no_numbers_that_have_one(ws):
    ws.mapping([{"aggregate_type": "account", "table": "score", "key": {"id": {"from": "$aggregate_id", "type": "varchar(36)"}},
                 "columns": {"score": {"from": "score", "type": "int"}}, "events": {"Opened": {"op": "upsert"}}}])
    ws.create()
    ws.query("ALTER TABLE score MODIFY score bigint unsigned NOT NULL")
    assert "columns.score: expected a column that holds every int, found bigint" in last_said(ws.projector("run", "--once"), 2)


def test_a_foreign_key_is_told(bank):
    bank.query("CREATE TABLE owner AS SELECT user_id AS id FROM account")  # with its character set
    bank.query("ALTER TABLE owner ADD PRIMARY KEY (id)")
    bank.query("ALTER TABLE account ADD CONSTRAINT owned FOREIGN KEY (user_id) REFERENCES owner (id)")
    told = r"account has the foreign key owned to owner: with several workers .*1452"
    check = bank.projector("check")
    assert check.returncode == 0 and re.search(told, check.stdout) and "without an event" not in check.stdout
    bank.query("ALTER TABLE account DROP FOREIGN KEY owned, ADD CONSTRAINT owned2 FOREIGN KEY (user_id) REFERENCES owner (id) ON DELETE CASCADE")
    said = r"rows of account change with those of owner, by the foreign key owned2, without an event"
    assert re.search(said, bank.projector("check").stdout) and re.search(said, bank.run_once().stderr)


def test_an_event_before_that_of_the_row_it_refers_to_waits_for_it(ws):
    """As the manual says of a foreign key between tables of two aggregates."""
    key = {"id": {"from": "$aggregate_id", "type": "int"}}
    ws.mapping([{"aggregate_type": name, "table": name, "key": key, "columns": columns, "events": {"Made": {"op": "upsert"}}}
                for name, columns in (("owner", {}), ("pet", {"owner": {"from": "owner", "type": "int"}}))], **FAST)
    ws.create()
    ws.query("ALTER TABLE pet ADD FOREIGN KEY (owner) REFERENCES owner (id)")
    pet = {**ws.event(1, "Made", owner=7), "aggregate_type": "pet"}
    ws.put(pet)
    with ws.start_projector():
        assert ws.wait_status(pet, "failed")["last_error"]["code"] == 1452
        ws.put({**ws.event(7, "Made"), "aggregate_type": "owner"})
        ws.wait_gone(pet)
    assert ws.rows("pet") == [{"id": 1, "owner": 7}]


def test_a_foreign_key_of_a_child_table_to_its_parent_is_not_told(ws):
    ws.mapping([{**bank_projections()[0], "children": [
        {"table": "card", "from": "cards", "key": {"number": {"from": "$item", "type": "int"}}, "default": []}]}])
    ws.create()
    ws.query("ALTER TABLE card ADD FOREIGN KEY (account_id) REFERENCES account (account_id)")
    check = ws.projector("check")
    assert check.returncode == 0 and "foreign key" not in check.stdout, check.stdout


@pytest.mark.thorough(beyond=2)
@pytest.mark.slow
@pytest.mark.parametrize("settings, status, told", [
    (["--log-bin=binlog", "--server-id=7", "--binlog-format=STATEMENT"], 2, "binlog_format is STATEMENT"),
    (["--innodb-flush-log-at-trx-commit=0"], 0, "innodb_flush_log_at_trx_commit is 0"),
    (["--innodb-flush-log-at-trx-commit=2"], 0, "innodb_flush_log_at_trx_commit is 2: a crash of the machine"),
    (["--log-bin=binlog", "--server-id=7", "--sync-binlog=0", "--skip-innodb-doublewrite"], 0, "sync_binlog is 0"),
], ids=["statement", "flush", "flush later", "sync"])
def test_a_server_that_is_set_up_wrong_is_refused_and_a_risk_is_told(stores, server_folder, tmp_path, settings, status, told):
    mysql = Mysqld(server_folder / "mysqld").start(settings)
    try:
        with Workspace(Stores(stores.mongo_uri, mysql.port), tmp_path) as ws:
            ws.outbox_program("init", check=True)
            assert ws.projector("schema", "--apply").returncode == status
            ws.put(opened(ws))
            check, run = ws.projector("check"), ws.projector("run", "--once")
            assert (check.returncode, run.returncode) == (status, status), check.stdout + run.stderr
            assert told in check.stdout and told in run.stderr
            assert len(ws.rows("account")) == (status == 0)
    finally:
        mysql.discard()


@pytest.mark.thorough
def test_a_mysql_without_a_redo_log_or_repairable_pages_is_told(stores, server_folder, tmp_path):
    mysql = Mysqld(server_folder / "mysqld")
    if mysql.is_mariadb:
        pytest.skip("MySQL alone can be set up so")
    mysql.start(["--innodb-doublewrite=DETECT_ONLY"])
    try:
        with Workspace(Stores(stores.mongo_uri, mysql.port), tmp_path) as ws:
            ws.create()
            ws.query("ALTER INSTANCE DISABLE INNODB REDO_LOG")
            check = ws.projector("check")
            assert check.returncode == 0
            assert "the redo log is disabled" in check.stdout and "innodb_doublewrite is DETECT_ONLY" in check.stdout
    finally:
        mysql.discard()


@pytest.mark.parametrize("shards, verdict, message", [
    (["KS/-80", "KS/80-"], "error", r"Vitess keeps the keyspace KS on 2 shards: .* not atomic"),
    (["KS/0", "other/-80", "other/80-", "KStoo/-80"], "ok", r"^MySQL 8\.0\.40-Vitess$"),
    (None, "warning", r"Vitess does not say on how many shards"),
], ids=["several", "one", "unknown"])
def test_a_vitess_of_several_shards_is_refused(bank, shards, verdict, message):
    if "MariaDB" in bank.query("SELECT VERSION() AS v")[0]["v"]:
        pytest.skip("Vitess speaks as MySQL does")
    bank.put(opened(bank))
    with vitess(bank.stores.mysql_port, shards and [shard.replace("KS", bank.name) for shard in shards]) as port:
        bank.mapping(mysql={"port": port})
        check, run = bank.projector("check", "--json"), bank.projector("run", "--once")
    lines = [json.loads(line) for line in check.stdout.splitlines()]
    message = message.replace("KS", bank.name)
    assert any(line["verdict"] == verdict and re.search(message, line["text"]) for line in lines), lines
    status = 2 if verdict == "error" else 0
    assert (check.returncode, run.returncode) == (status, status), check.stdout + run.stderr
    if verdict != "ok":
        assert re.search(message, run.stderr)
    assert len(bank.rows("account")) == (status == 0)


@pytest.mark.parametrize("version, status", [(b"8.0.18", 2), (b"8.0.19", 0)])
def test_a_mysql_that_does_not_know_our_statements_is_refused(bank, version, status):
    if "MariaDB" in bank.query("SELECT VERSION() AS v")[0]["v"]:
        pytest.skip("MySQL's versions")
    bank.put(opened(bank))
    with vitess(bank.stores.mysql_port, None, version) as port:
        bank.mapping(mysql={"port": port})
        check, run = bank.projector("check"), bank.projector("run", "--once")
    assert (check.returncode, run.returncode) == (status, status), check.stdout + run.stderr
    assert ("8.0.18 is too old" in check.stdout, "8.0.18 is too old" in run.stderr) == (status == 2, status == 2)
    assert len(bank.rows("account")) == (status == 0)


def test_a_key_in_utf8mb3_is_told(bank):
    bank.query("ALTER TABLE account MODIFY account_id varchar(36) CHARACTER SET utf8mb3 COLLATE utf8mb3_bin NOT NULL")
    text = bank.projector("check").stdout
    assert re.search(r"^(error|warning) +tables .*key\.account_id: .*character set utf8mb3", text, re.M), text


def test_a_key_of_another_character_set(bank):
    """MySQL compares such keys as far as the character set allows; MariaDB does not."""
    bank.query("ALTER TABLE account MODIFY account_id varchar(36) CHARACTER SET latin1 COLLATE latin1_bin NOT NULL")
    done = bank.projector("check")
    verdict = "error" if "MariaDB" in done.stdout else "warning"
    assert re.search(rf"^{verdict} +tables .*key\.account_id: .*character set latin1", done.stdout, re.M), done.stdout
    if verdict == "warning":
        bank.put(opened(bank, "é"), bank.event("é", "AccountRenamed", name="x"), opened(bank, "小"))
        assert "code=1366" in bank.run_once().stderr
        unknown = bank.event("大", "AccountClosed")
        bank.put(opened(bank, "?"), unknown, opened(bank, "ü"), bank.event("ü", "AccountClosed"))
        bank.run_once()
        assert bank.found(unknown)["last_error"]["code"] in (3854, 1267)  # as for an update; 8.0 says 1267
        assert [row["account_id"] for row in bank.rows("account")] == ["?", "é"]


def test_a_second_unique_key_may_be_allowed(bank):
    bank.query("ALTER TABLE account ADD UNIQUE KEY by_user (user_id)")
    [projection] = bank_projections()
    bank.mapping([{**projection, "allow_unique_keys": True}])
    assert bank.projector("check").returncode == 0


def test_check_says_what_is_good_in_one_line_each(bank):
    done = bank.projector("check")
    assert done.returncode == 0 and done.stderr == ""
    full = re.compile(r"warning +mongodb +the oplog covers only")  # other tests fill that of the shared server
    lines = [line for line in done.stdout.splitlines() if not full.match(line)]
    assert [line for line in lines if not re.match(r"ok +(file|http|mongodb|mysql|tables|clocks) ", line)] == []
    assert {line.split()[1] for line in lines} == {"file", "http", "mongodb", "mysql", "tables", "clocks"}
    bank.outbox.drop_indexes()
    assert re.search(r"^warning +mongodb .*no index on \(occurred_at", bank.projector("check").stdout, re.M)


@pytest.mark.whole_server
def test_check_warns_of_a_server_that_will_not_take_everything(bank):
    before = bank.query("SELECT @@GLOBAL.read_only AS read_only, @@GLOBAL.max_allowed_packet AS max_allowed_packet")[0]
    bank.query("SET GLOBAL read_only = 1, GLOBAL max_allowed_packet = 1048576")
    try:
        done = bank.projector("check")
    finally:
        bank.query("SET GLOBAL read_only = %s, GLOBAL max_allowed_packet = %s", *before.values())
    assert done.returncode == 0
    assert re.search(r"^warning +mysql +the server is read-only", done.stdout, re.M)
    assert re.search(r"^warning +mysql +max_allowed_packet is 1048576 bytes", done.stdout, re.M)
