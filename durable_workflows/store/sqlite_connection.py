"""The engine's own connections to SQLite: how they open, run and break.

Whoever writes holds the one write lock of the file, so every transaction takes it
with its first statement: one that reads first and writes later fails when somebody
wrote in between, and no timeout helps it. The threads of one process take turns.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from django.db import connections

from durable_workflows.store.session import Result, Statement

T = TypeVar("T")

# Somebody else writes, or there is no room to write now.
RETRYABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_FULL,
}
# The file moved, its file system went away, or it can't be opened yet.
DISCONNECTS = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}


class Turn:
    """Lets the threads of this process write one after the other, as they came.

    SQLite lets go first who happens to ask when the lock is free: one busy writer made
    a beat wait for more than a second.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        try:
            gate.acquire()
        except BaseException:  # an interrupt: leave the line, or pass on a turn just given
            with self._lock:
                waiting = gate in self._waiting
                if waiting:
                    self._waiting.remove(gate)
            if not waiting:
                self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


_turns: dict[str, Turn] = {}
# In a forked child the thread whose turn it was does not exist.
os.register_at_fork(after_in_child=_turns.clear)


class Connection:
    """A connection of the engine's own, and the line it writes in."""

    __slots__ = ("raw", "turn")

    def __init__(self, raw: sqlite3.Connection, turn: Turn):
        self.raw, self.turn = raw, turn


def connect(using: str) -> Connection:
    """Open a connection as Django would for the alias: its functions, timeout and PRAGMAs."""
    wrapper = connections.create_connection(using)
    try:
        wrapper.connect()
    except BaseException:
        wrapper.close()
        raise
    wrapper.connection.isolation_level = None  # Python opens no transactions of its own
    name = str(wrapper.settings_dict["NAME"])
    return Connection(wrapper.connection, _turns.setdefault(name, Turn()))


def disconnect(connection: Connection) -> None:
    connection.raw.close()


def is_closed(connection: Connection) -> bool:
    return False  # there is nobody at the other end who could hang up


def execute(raw: sqlite3.Connection, sql: str, params: Sequence[Any] = ()) -> Result:
    """Run one statement; on the caller's connection within its transaction."""
    cursor = raw.execute(sql, params)
    if cursor.description is None:
        return Result([], cursor.rowcount)
    rows = cursor.fetchall()
    return Result(rows, len(rows))


def run(connection: Connection, sql: str, params: Sequence[Any] = ()) -> Result:
    return execute(connection.raw, sql, params)


def batch(connection: Connection, statements: list[Statement]) -> list[Result]:
    return transaction(connection, lambda run: [run(*statement) for statement in statements])


def transaction(connection: Connection, work: Callable[[Callable[..., Result]], T]) -> T:
    raw = connection.raw
    with connection.turn:
        raw.execute("BEGIN IMMEDIATE")
        try:
            answer = work(partial(execute, raw))
            raw.execute("COMMIT")
        except BaseException:
            mend(connection)
            raise
    return answer


def is_disconnect(error: Exception) -> bool:
    closed = isinstance(error, sqlite3.ProgrammingError) and "closed database" in str(error)
    return closed or _code(error) in DISCONNECTS


def is_retryable(error: Exception) -> bool:
    return _code(error) in RETRYABLE


def mend(connection: Connection) -> bool:
    """Return whether the connection can go on after a failed statement."""
    try:
        if connection.raw.in_transaction:
            connection.raw.execute("ROLLBACK")
    except sqlite3.Error:
        return False
    return True


def _code(error: BaseException | None) -> int | None:
    """Return SQLite's primary code, also of an error that Django has wrapped."""
    if isinstance(error, sqlite3.Error):
        # None for errors that the Python module raises by itself.
        code: int | None = getattr(error, "sqlite_errorcode", None)
        return None if code is None else code & 0xFF
    return _code(error.__cause__) if error is not None else None
