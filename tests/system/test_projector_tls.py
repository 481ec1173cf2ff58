"""TLS and logins of both stores, with real certificates and users with minimal privileges: the requested protection is
in effect, or the connection is refused."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Iterator

import pytest
from bson import Int64

from certificates import Authority
from forwarding import recording
from least_privilege import make_mongodb_user, mysql_users
from mongod import GuardedSet
from mysqld import Mysqld
from server import give_to_server, scratch_folder, wait_for
from workspace import WAIT_S, Stores, Workspace, decimal, last_said, said

MONGODB_PASSWORD, MYSQL_PASSWORD = "s3cr3t-mongodb", "change-me-1"
HERE = ("localhost", "127.0.0.1")
SOON = "&serverSelectionTimeoutMS=3000"


class SecureStores:
    """Both stores with TLS and a certificate from our authority;
    MongoDB accepts nothing else, MySQL requires it of one user."""

    def __init__(self, folder: Path):
        self.authority = Authority(folder / "authority.pem", "ours")
        self.stranger = Authority(folder / "stranger.pem", "somebody else")
        self.certificate = folder / "server.pem"
        self.issue(*HERE)
        self.mongo = GuardedSet(folder, self.certificate, self.authority.file)
        self.mysql = Mysqld(folder / "mysqld")
        self.mysql_arguments = [f"--ssl-ca={self.authority.file}", f"--ssl-cert={self.certificate}", f"--ssl-key={self.certificate}"]

    def start(self) -> "SecureStores":
        self.mysql.start(self.mysql_arguments, wait=False)
        self.mongo.start()
        self.mysql.wait_ready()
        return self

    def discard(self) -> None:
        self.mysql.discard()
        self.mongo.discard()

    def issue(self, *hosts: str, **valid: timedelta) -> None:
        self.authority.issue(self.certificate, *hosts, **valid)
        give_to_server(self.certificate)

    def mysql_does(self, statement: str) -> None:
        """Through its socket, which needs no TLS."""
        with self.mysql.connect(unix_socket=self.mysql.socket) as connection, connection.cursor() as cursor:
            cursor.execute(statement)

    def show(self, *hosts: str, **valid: timedelta) -> None:
        """From now on both servers present a new certificate."""
        self.issue(*hosts, **valid)
        self.mysql_does("FLUSH SSL" if self.mysql.is_mariadb else "ALTER INSTANCE RELOAD TLS")
        with self.mongo.members[0].client(username="root", password="root", tlsInsecure=True) as client:
            client.admin.command("rotateCertificates")

    @contextmanager
    def mysql_without_tls(self) -> Iterator[None]:
        """MySQL, which is slow to start, can turn TLS off at runtime."""
        if self.mysql.is_mariadb:
            self.mysql.restart(["--skip-ssl"])  # from 11.4 on it creates its own certificate
        else:
            self.certificate.write_text("none")
            self.mysql_does("ALTER INSTANCE RELOAD TLS NO ROLLBACK ON ERROR")
        try:
            yield
        finally:
            if self.mysql.is_mariadb:
                self.mysql.restart(self.mysql_arguments)
            else:
                self.show(*HERE)

    @contextmanager
    def showing(self, *hosts: str, **valid: timedelta) -> Iterator[None]:
        try:
            self.show(*hosts, **valid)
            yield
        finally:
            self.show(*HERE)


@pytest.fixture(scope="module")
def secure(stores) -> Iterator[SecureStores]:
    folder = scratch_folder()
    servers = SecureStores(folder)
    try:
        yield servers.start()
    finally:
        servers.discard()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def workspace(secure: SecureStores, folder: Path) -> Iterator[Workspace]:
    """Databases with a waiting event; the projector's users have their privileges and nothing else."""
    with Workspace(Stores.of(secure.mongo, secure.mysql), folder) as ws:
        ws.create()
        make_mongodb_user(ws, MONGODB_PASSWORD)
        with mysql_users(ws) as users:
            ws.user = users["projector"]
            ws.query(f"ALTER USER {ws.user}@'127.0.0.1' REQUIRE SSL")
            ws.mongodb_uri = secure.mongo.uri_of(ws.name, MONGODB_PASSWORD)
            ws.authority = str(secure.authority.file)
            ws.waiting = put_account(ws, "a1")
            secured(ws)
            yield ws


@pytest.fixture
def ws(secure, tmp_path) -> Iterator[Workspace]:
    with workspace(secure, tmp_path) as ws:
        yield ws


@pytest.fixture(scope="module")
def refused(secure, tmp_path_factory) -> Iterator[Workspace]:
    """One for all tests in which nothing may be written."""
    with workspace(secure, tmp_path_factory.mktemp("refused")) as ws:
        yield ws


def secured(ws, mongodb: dict | None = None, **mysql) -> None:
    """A valid mapping file except for these settings; None stands for the default."""
    settings = {"user": ws.user, "password": MYSQL_PASSWORD, "tls": "verify", "tls_ca": ws.authority, **mysql}
    ws.mapping(mongodb={"uri": ws.mongodb_uri, "retain": "archive", **(mongodb or {})},
               mysql={key: value for key, value in settings.items() if value is not None},
               backoff_ms=20, sweep_interval_ms=200, lease_ms=1000)


def uri(ws, *changes: tuple[str, str]) -> dict:
    """The connection string with replacements, and with short timeouts."""
    text = ws.mongodb_uri + SOON
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return {"uri": text}


def put_account(ws, name: str) -> dict:
    """An entity and the event that opened it."""
    payload = {"user_id": "u1", "name": "Ada", "balance": decimal("10.00")}
    event = ws.event(name, "AccountOpened", 1, **payload)
    ws.accounts.insert_one({"_id": name, **payload, "version": Int64(1), "last_event_at": event["occurred_at"]})
    ws.put(event)
    return event


def without_secrets(text: str) -> str:
    assert MONGODB_PASSWORD not in text and MYSQL_PASSWORD not in text and "s3cr3t" not in text, text
    return text


def findings(ws, status: int = 0) -> list[tuple[str, str, str]]:
    """The findings of `check`."""
    done = ws.projector("check", "--json")
    assert done.returncode == status, done.stdout + done.stderr
    lines = [json.loads(line) for line in without_secrets(done.stdout).splitlines()]
    return [(line["verdict"], line["subject"], line["text"]) for line in lines]


def refusal(ws, store: str, status: int = 3) -> str:
    """The line with which `run` exits."""
    done = ws.projector("run", "--once")
    line = last_said(done, status)
    assert line.startswith(f"projector: {store}: ") and " info " not in done.stderr, done.stderr
    return without_secrets(done.stderr) and line


def assert_untouched(ws) -> None:
    """Nothing was written anywhere."""
    assert ws.found(ws.waiting) == ws.waiting and ws.db["projector_leases"].find_one() is None
    assert not any(ws.rows(table) for table in ("account", "projector_applied", "projector_position", "projector_fence"))


# as it should be


@pytest.mark.thorough
def test_with_tls_and_no_more_privileges_than_needed(ws, secure):
    told = findings(ws)
    assert {verdict for verdict, _, _ in told} == {"ok"}, told
    assert ("ok", "mongodb", "TLS in use, the server's certificate is verified") in told
    assert any(re.fullmatch(r"TLS in use \(TLSv1\.[23], [A-Z0-9_-]+\), the server's certificate is verified", text)
               for _, subject, text in told if subject == "mysql"), told
    assert "warning" not in without_secrets(ws.run_once().stderr)
    assert len(ws.rows("account")) == 1 and ws.db["outbox_archive"].find_one()
    with ws.start_projector("--debug") as projector:
        projector.wait_log("info working")
        put_account(ws, "a2")
        ws.wait_drained()

        def kinds_of_sessions() -> set[str]:
            """The server soon closes an idle one."""
            put_account(ws, f"b{len(ws.rows('account'))}")
            ws.wait_drained()
            return {row["type"] for row in ws.query("SELECT CONNECTION_TYPE AS type FROM performance_schema.threads"
                                                    " WHERE PROCESSLIST_USER = %s", ws.user)}
        if not secure.mysql.is_mariadb:  # which shows nobody else's; this user can only log in with TLS
            assert ws.wait(kinds_of_sessions, what="a session of the projector") == {"SSL/TLS"}
        assert ws.projector("status").returncode == 0 and ws.projector("reconcile").returncode == 0
        assert projector.stop() == 0
        without_secrets(projector.log_text())
    assert {"a1", "a2"} <= {row["account_id"] for row in ws.rows("account")}


@pytest.mark.thorough
def test_the_systems_authorities_are_the_default(ws):
    """OpenSSL reads them from this variable."""
    ws.environment["SSL_CERT_FILE"] = ws.authority
    secured(ws, uri(ws, (f"&tlsCAFile={ws.authority}", "")), tls_ca=None)
    ws.run_once()
    assert len(ws.rows("account")) == 1


# servers that cannot be trusted


@pytest.mark.thorough
def test_another_authority_is_refused(refused, secure):
    stranger = secure.stranger.file
    secured(refused, uri(refused, (f"tlsCAFile={refused.authority}", f"tlsCAFile={stranger}")), tls_ca=str(stranger))
    assert {subject for verdict, subject, _ in findings(refused, 3) if verdict == "error"} == {"mongodb", "mysql"}
    check_both_are_refused(refused, stranger)
    assert_untouched(refused)


@pytest.mark.thorough
def test_without_a_file_the_systems_authorities_do_not_know_ours(refused):
    check_both_are_refused(refused, None)
    assert_untouched(refused)


@pytest.mark.thorough
def test_a_certificate_for_another_host_is_refused(refused, secure):
    with secure.showing("elsewhere.example"):
        check_both_are_refused(refused, refused.authority)
    assert_untouched(refused)


@pytest.mark.thorough
def test_a_certificate_that_has_expired_is_refused(refused, secure):
    valid = timedelta(seconds=8)  # no server would load one that has already expired
    end = datetime.now(timezone.utc) + valid
    with secure.showing(*HERE, valid=valid):
        wait_for(lambda: datetime.now(timezone.utc) > end, WAIT_S, "the certificate to expire")
        check_both_are_refused(refused, refused.authority)
    assert_untouched(refused)


def check_both_are_refused(ws, authority: Path | str | None) -> None:
    """Each on its own, while the other store is not verified; None: by the system's authorities."""
    secured(ws, uri(ws, ("&tls=true", "&tls=true&tlsInsecure=true"), (f"&tlsCAFile={ws.authority}", "")),
            tls_ca=str(authority) if authority else None)
    line = refusal(ws, "mysql")
    cause, advice = line.split("; mysql.tls is ")
    assert line.endswith("(2026)") and "certificate" in cause and "mysql.tls_ca" in advice, line
    secured(ws, uri(ws, (f"&tlsCAFile={ws.authority}", f"&tlsCAFile={authority}" if authority else "")), tls="insecure")
    line = refusal(ws, "mongodb")
    assert "certificate verify failed" in line and "tlsCAFile" in line, line


def test_a_file_that_is_not_there_is_told_at_once(refused):
    secured(refused, tls_ca="/nowhere/ca.pem")
    assert "mysql.tls_ca: /nowhere/ca.pem: No such file" in said(refused.projector("run"), 2)
    for option in ("tlsCAFile", "tlsCertificateKeyFile"):
        secured(refused, uri(refused, (f"&tlsCAFile={refused.authority}", f"&{option}=/nowhere/ca.pem")))
        assert re.search(rf"mongodb\.uri: {option}: /nowhere/ca\.pem: No such file", said(refused.projector("run"), 2), re.I)


@pytest.mark.thorough
def test_a_certificate_that_turns_bad_while_it_runs_is_waited_for(ws, secure):
    with ws.start_projector() as projector:
        ws.wait_drained()
        with secure.showing("elsewhere.example"):
            ws.end_sessions(ws.user)
            event = put_account(ws, "a2")
            projector.wait_log(r"class=unavailable source=mysql code=2026")
        ws.wait_gone(event)
        assert projector.stop() == 0
    assert len(ws.rows("account")) == 2


# no TLS on one side


def test_a_mysql_without_tls_is_refused(refused, secure):
    with secure.mysql_without_tls():
        for tls in ("verify", "insecure"):
            with recording(secure.mysql.port) as (port, sent):
                secured(refused, tls=tls, port=port)
                line = refusal(refused, "mysql")
            assert line.endswith("(2026)") and f'mysql.tls is "{tls}"' in line, line
            # MariaDB's client from 3.4 on logs in before we can see that nothing is encrypted.
            assert refused.user.encode() not in sent or (tls == "insecure" and re.search(rb"_client_version.3\.[4-9]", sent))
    refused.mysql.ping(reconnect=True)
    refused.mysql.select_db(refused.name)
    assert_untouched(refused)


def test_a_mongod_without_tls_is_refused(refused, stores):
    secured(refused, {"uri": f"{stores.mongo_uri}&tls=true&tlsInsecure=true{SOON}"})
    line = refusal(refused, "mongodb")
    assert "TLS handshake failed" in line and "the server needs it" in line, line
    assert_untouched(refused)


def test_a_server_that_wants_tls_takes_nothing_else(ws, secure):
    secured(ws, uri(ws, ("&tls=true", "&tls=false")))
    refusal(ws, "mongodb")
    secured(ws, tls="off")
    assert "REQUIRE SSL" in refusal(ws, "mysql", 2)
    ws.query(f"ALTER USER {ws.user}@'127.0.0.1' REQUIRE NONE")
    secure.mysql_does("SET GLOBAL require_secure_transport = ON")
    try:
        assert "require_secure_transport" in refusal(ws, "mysql", 2)
    finally:
        secure.mysql_does("SET GLOBAL require_secure_transport = OFF")
    assert_untouched(ws)


# verification off: never silently


def check_warns(ws, store: str, pattern: str) -> None:
    """In the log, as every command does at its start, and in its findings."""
    done = ws.projector("check")
    assert done.returncode == 0 and re.findall(r"^warning +(\w+) ", done.stdout, re.M) == [store], done.stdout
    assert re.search(pattern, done.stdout)
    assert re.search(rf"^\S+ warning configuration reason=.*{pattern}", without_secrets(done.stderr), re.M), done.stderr


def test_a_mongodb_that_is_not_verified_is_warned_about(refused):
    for old, new in (("tls=true", "tls=true&tlsInsecure=true"), ("tls=true", "tls=true&tlsAllowInvalidCertificates=true"),
                     ("tls=true", "ssl=true&sslAllowInvalidCertificates=true")):
        secured(refused, uri(refused, (old, new)))
        check_warns(refused, "mongodb", r"mongodb\.uri: the server's certificate is not verified.* tlsInsecure and tlsAllowInvalidCertificates")
    secured(refused, uri(refused, ("tls=true", "tls=true&tlsAllowInvalidHostnames=true")))
    check_warns(refused, "mongodb", r"mongodb\.uri: the host name in the server's certificate is not verified.* tlsAllowInvalidHostnames")


def test_a_mysql_that_is_not_verified_is_warned_about(refused):
    secured(refused, tls="insecure")
    check_warns(refused, "mysql", r"mysql\.tls: .*insecure.* does not verify the server's certificate")


def test_plain_text_to_another_host_is_warned_about(refused):
    secured(refused, {"uri": "mongodb://mongo.example.com/?replicaSet=rs0"})
    done = refused.projector("schema")
    assert re.search(r"^\S+ warning configuration reason=\"mongodb\.uri: without tls=true .* in plain text", done.stderr, re.M)
    assert done.returncode == 0


# logins


def test_a_wrong_password_is_one_line(refused):
    secured(refused, password="s3cr3t")
    assert "Access denied" in refusal(refused, "mysql", 2)
    secured(refused, uri(refused, (MONGODB_PASSWORD, "s3cr3t")))
    assert "uthentication failed" in refusal(refused, "mongodb", 2)
    assert_untouched(refused)


@pytest.mark.thorough(beyond=1)
@pytest.mark.parametrize("change", ["IDENTIFIED BY 'another'", "ACCOUNT LOCK", "PASSWORD EXPIRE"])
def test_a_mysql_login_that_ends_while_it_runs_stops_it(ws, change):
    with ws.start_projector() as projector:
        ws.wait_drained()
        ws.query(f"ALTER USER {ws.user}@'127.0.0.1' {change}")
        ws.end_sessions(ws.user)
        event = put_account(ws, "a2")
        assert projector.popen.wait(WAIT_S) == 2
        assert re.search(r"^projector: mysql: .*(denied|expired|SET PASSWORD)", without_secrets(projector.log_text()), re.M)
    assert ws.found(event).get("attempts", 0) == 0


@pytest.mark.thorough
def test_a_mongodb_login_that_ends_while_it_runs_stops_it(ws):
    admin = ws.mongo.admin
    with ws.start_projector() as projector:
        ws.wait_drained()
        admin.command("updateUser", ws.name, pwd="another")
        commands = ["aggregate", "delete", "find", "findAndModify", "getMore", "insert", "update"]
        admin.command("configureFailPoint", "failCommand", mode="alwaysOn",
                      data={"failCommands": commands, "closeConnection": True, "appName": "projector"})
        try:
            assert projector.popen.wait(WAIT_S) == 2
        finally:
            admin.command("configureFailPoint", "failCommand", mode="off")
        assert re.search(r"^projector: mongodb: .*uthentication failed", without_secrets(projector.log_text()), re.M)
