"""What the contestants run in: Python environments, databases, a broker.

Everything here is thrown away at the end but the peers' environments, which
are kept under `.envs/` and made again only when a requirement changes.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg

HERE = Path(__file__).parent
ROOT = HERE.parent

REQUIREMENTS = {
    "dbos": ["dbos==3.4.*", "psycopg[binary]"],
    "pgqueuer": ["pgqueuer==1.6.*", "asyncpg", "uvloop"],
    "absurd": ["absurd-sdk==0.5.*", "absurdctl==0.5.*", "psycopg[binary]"],
    "celery": ["celery[redis]==5.7.*"],
}

# For everybody alike. A server's own defaults are for a small machine; these
# keep a checkpoint from falling into one contestant's turn and not another's.
SERVER_SETTINGS = {
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "max_connections": "200",
}


def python_of(peer: str) -> str:
    """Return the Python of the peer's own environment, made if need be."""
    place = HERE / ".envs" / peer
    python = place / "bin" / "python"
    stamp = place / "requirements"
    wanted = "\n".join(REQUIREMENTS[peer])
    if stamp.exists() and stamp.read_text() == wanted and python.exists():
        return str(python)
    print(f"installing {peer} into {place.relative_to(ROOT)}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS[peer]], check=True)
    stamp.write_text(wanted)
    return str(python)


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """Start a server with fsync on and yield the URL of a database in it."""
    from tests.throwaway_postgres import server

    with server(fsync=True, settings=SERVER_SETTINGS) as url:
        yield url


@contextlib.contextmanager
def redis() -> Iterator[str | None]:
    """Start Redis, as it comes, and yield its URL; None where there is none."""
    binary = shutil.which("redis-server")
    if binary is None:
        yield None
        return
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-redis-") as place:
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", place]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            wait_for_port(port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for_port(port: int, *, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nothing answers on port {port} after {seconds} s")


def named(url: str, database: str) -> str:
    """Return the URL of another database on the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


def create_database(url: str, name: str, *, template: str = "template1") -> str:
    """Create the database anew from the template, and return its URL."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    return named(url, name)


def drop_database(url: str, name: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def environment(**more: str) -> dict[str, str]:
    """Return the variables a contestant's process gets."""
    return {**os.environ, "PYTHONUNBUFFERED": "1", **more}
