"""MySQL or MariaDB servers."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pymysql

from server import START_S, Server, ServerError, server_user

PROJECTOR_USER = PROJECTOR_PASSWORD = "projector"  # the user of the program under test
NEW_MYSQL_DATA = "new-mysql-data"  # in the shared servers' folder, for private ones: creating a data folder takes 5 s


def copy_data(source: Path, target: Path) -> None:
    """Copies the data of a server that has never run; holes in its files are not written."""
    subprocess.run(["cp", "--archive", "--sparse=always", "--no-target-directory", source, target], check=True)
    (target / "auto.cnf").unlink(missing_ok=True)  # MySQL's identifier of that one server


class Mysqld(Server):
    """MySQL or MariaDB; root has no password. The user `projector` has one and is an ordinary user: it owns the
    databases of tests (`t_…`), but not the server."""

    def __init__(self, folder: Path | str, port: int | None = None):
        super().__init__(folder, shlex.split(os.environ["MYSQLD_COMMAND"]), port)
        self.is_mariadb = os.environ.get("MYSQL_TARGET") == "mariadb"
        self.is_new = False

    @property
    def socket(self) -> str:
        return str(self.folder / "s")

    def arguments(self) -> list[str]:
        # A private tmpdir: at its start MariaDB removes whatever looks like a temporary table, even another server's.
        return [f"--datadir={self.data}", f"--tmpdir={self.temporary}", f"--port={self.port}", "--bind-address=127.0.0.1",
                f"--socket={self.socket}", f"--pid-file={self.folder / 'pid'}", "--skip-name-resolve",
                *([] if self.is_mariadb else ["--mysqlx=OFF", "--secure-file-priv=NULL"])]

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    def prepare(self) -> None:
        super().prepare()
        self.temporary.mkdir(exist_ok=True)
        if user := server_user():
            os.chown(self.temporary, user["user"], user["group"])
        if any(self.data.iterdir()):
            return
        self.is_new = True
        template = Path(os.environ.get("SERVERS_FOLDER", "/nowhere"), NEW_MYSQL_DATA)
        if template.exists():
            copy_data(template, self.data)
        elif self.launch(self._create_command()).wait() != 0:
            raise ServerError(f"{self.name} could not create its data folder:\n{self.log_tail()}")

    def _create_command(self) -> list[str]:
        if not self.is_mariadb:
            return [*self.command, "--initialize-insecure", f"--datadir={self.data}"]
        prefix = Path(self.command[0]).resolve().parent.parent
        places = [prefix / "bin", prefix / "scripts", Path("/usr/bin")]
        tool = next((p / "mariadb-install-db" for p in places if (p / "mariadb-install-db").exists()), None)
        if tool is None:
            raise ServerError(f"mariadb-install-db was not found beside {self.command[0]}: install mariadb-server")
        return [str(tool), "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db",
                f"--basedir={prefix}", f"--datadir={self.data}"]

    def wait_ready(self, timeout: float = START_S) -> "Mysqld":
        super().wait_ready(timeout)
        if self.is_new:
            self._create_users()
            self.is_new = False
        return self

    def _create_users(self) -> None:
        """By address, so that they do not depend on how this machine resolves its name."""
        with self.connect(unix_socket=self.socket) as connection, connection.cursor() as cursor:
            for statement in ("CREATE USER IF NOT EXISTS root@'127.0.0.1' IDENTIFIED BY ''",
                              "GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION",
                              f"CREATE USER {PROJECTOR_USER}@'127.0.0.1' IDENTIFIED BY '{PROJECTOR_PASSWORD}'",
                              f"GRANT ALL ON `t\\_%`.* TO {PROJECTOR_USER}@'127.0.0.1'"):
                cursor.execute(statement)

    def connect(self, **options) -> pymysql.Connection:
        return pymysql.connect(**{"host": "127.0.0.1", "port": self.port, "user": "root", "autocommit": True,
                                  "connect_timeout": 5, "charset": "utf8mb4", **options})

    def answers(self) -> bool:
        try:
            self.connect(unix_socket=self.socket).close()
            return True
        except pymysql.MySQLError:
            return False
