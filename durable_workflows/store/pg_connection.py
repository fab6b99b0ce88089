"""The engine's own connections to PostgreSQL: how they open, run and break."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psycopg
from django.db import connections
from psycopg import errors

from durable_workflows.store.session import Result, Statement

T = TypeVar("T")

# On the engine's connections every statement reaches its rows by an index, also on
# a table that was just filled and never analysed; and every call is bounded.
GUCS = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "lock_timeout": "5s",
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "60s",
}
OPTIONS = " ".join(f"-c {name}={value}" for name, value in GUCS.items())
# A pooler refuses start-up options, and a setting would outlive the batch: per transaction then.
LOCAL = "SELECT " + ", ".join(
    f"set_config('{name}', '{value}', true)" for name, value in GUCS.items()
)

DISCONNECTS = (
    psycopg.OperationalError,  # also: "the connection is closed", server gone, starting up
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,  # a failover left us on a replica
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.CannotConnectNow,
)
RETRYABLE = (
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.LockNotAvailable,
    errors.QueryCanceled,
    errors.DiskFull,
    errors.OutOfMemory,
)


def is_pooled(raw: Any) -> bool:
    """Return whether a pooler stands between: sessions may change under us."""
    return bool(getattr(raw, "durable_workflows_pooled", False))


def connect(using: str) -> Any:
    """Open a connection with the parameters of the alias: autocommit, prepared where allowed."""
    params = connections[using].get_connection_params()
    for name in ("cursor_factory", "context", "prepare_threshold", "server_side_binding", "pool"):
        params.pop(name, None)
    given = params.pop("options", "")
    wanted = f"{given} {OPTIONS}".strip()
    try:
        raw = psycopg.connect(**params, options=wanted, autocommit=True, prepare_threshold=None)
    except psycopg.OperationalError as error:
        if "unsupported startup parameter" not in str(error):
            raise
        if given:
            params["options"] = given
        raw = psycopg.connect(**params, autocommit=True, prepare_threshold=None)
    raw.durable_workflows_pooled = _is_behind_pooler(raw)  # type: ignore[attr-defined]
    if not is_pooled(raw):
        raw.prepare_threshold = 0
    return raw


def _is_behind_pooler(raw: Any) -> bool:
    """Ask the server itself: a pooler may swallow start-up options without a word."""
    pid, seqscan = raw.execute(
        "SELECT pg_backend_pid(), current_setting('enable_seqscan')"
    ).fetchone()
    return bool(pid != raw.info.backend_pid or seqscan != "off")


def disconnect(raw: Any) -> None:
    raw.close()


def is_closed(raw: Any) -> bool:
    return bool(raw.closed)


def listen(raw: Any, channels: Sequence[str]) -> None:
    """Hear these channels; what arrives while a statement runs is remembered, not dropped."""
    raw.durable_workflows_heard = False

    def remember(_: Any) -> None:
        raw.durable_workflows_heard = True

    raw.add_notify_handler(remember)
    for channel in channels:
        raw.execute(f'LISTEN "{channel}"')


def heard(raw: Any) -> bool:
    """Take notifications off the socket without waiting; return whether there were any."""
    heard = raw.durable_workflows_heard
    raw.durable_workflows_heard = False
    try:
        raw.pgconn.consume_input()
    except psycopg.OperationalError:
        return True  # gone: let the next statement find out and reconnect
    while raw.pgconn.notifies() is not None:
        heard = True
    return bool(heard)


def run(raw: Any, sql: str, params: Sequence[Any] = ()) -> Result:
    """Run one statement; on the caller's connection within its transaction."""
    if is_pooled(raw):
        return batch(raw, [(sql, params)])[0]
    cursor = psycopg.Cursor(raw)
    cursor.execute(sql, params or None)
    return Result(cursor.fetchall() if cursor.description else [], cursor.rowcount)


def batch(raw: Any, statements: list[Statement]) -> list[Result]:
    """Run statements in one pipeline: in autocommit all up to the sync are one transaction."""
    pooled = is_pooled(raw)
    if len(statements) == 1 and not pooled:
        return [run(raw, *statements[0])]
    if pooled:
        statements = [(LOCAL, ()), *statements]
    cursors = []
    with raw.pipeline():
        for sql, params in statements:
            cursor = psycopg.Cursor(raw)
            cursor.execute(sql, params or None)
            cursors.append(cursor)
    results = [
        Result(cursor.fetchall() if cursor.description else [], cursor.rowcount)
        for cursor in cursors
    ]
    return results[1:] if pooled else results


def transaction(raw: Any, work: Callable[[Callable[..., Result]], T]) -> T:
    def execute(sql: str, params: Sequence[Any] = ()) -> Result:
        cursor = psycopg.Cursor(raw)
        cursor.execute(sql, params or None)
        return Result(cursor.fetchall() if cursor.description else [], cursor.rowcount)

    with raw.transaction():
        if is_pooled(raw):
            execute(LOCAL)
        return work(execute)


def is_disconnect(error: Exception) -> bool:
    return isinstance(error, DISCONNECTS) and not isinstance(error, RETRYABLE)


def is_conflict(error: BaseException) -> bool:
    """Return whether the server chose a transaction to give way to another."""
    return isinstance(error, errors.SerializationFailure | errors.DeadlockDetected)


def is_cut(error: BaseException) -> bool:
    """Return whether the connection went away under a statement, and its transaction with it."""
    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    return error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))


def is_retryable(error: Exception) -> bool:
    return isinstance(error, RETRYABLE)


def mend(raw: Any) -> bool:
    """Return whether the connection can go on after a failed statement."""
    return not raw.closed and raw.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def ints(values: Sequence[int | None]) -> str:
    """Return an array literal: a fifth of the time of psycopg's own list dumper."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def texts(values: Sequence[str | None]) -> str:
    return (
        "{"
        + ",".join(
            [
                "NULL"
                if value is None
                else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
                for value in values
            ]
        )
        + "}"
    )
