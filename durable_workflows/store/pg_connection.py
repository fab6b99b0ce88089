"""The engine's own connections to PostgreSQL: how they open, run and break."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import psycopg
from django.db import connections
from psycopg import errors
from psycopg.adapt import Transformer
from psycopg.sql import SQL, Identifier, quote

from durable_workflows.store.session import Result, Statement

T = TypeVar("T")

# On the engine's connections every statement reaches its rows by an index, also on
# a table that was just filled and never analysed; and every call is bounded. Planned
# once: with the index given there is nothing to win by planning each call anew, which
# costs more than the statement (0.17 ms of the 0.48 of a lone step, without its commit).
GUCS = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "lock_timeout": "5s",
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "60s",
}
# A server that is gone without a word is noticed by this side alone: by what is not
# acknowledged, and where an answer is waited for by keepalives.
BOUNDS = {
    "connect_timeout": 10,  # seconds
    "tcp_user_timeout": 20_000,  # milliseconds
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
OPTIONS = " ".join(f"-c {name}={value}" for name, value in GUCS.items())
# A pooler refuses start-up options, and a setting would outlive the batch: per transaction then.
LOCAL = "SELECT " + ", ".join(
    f"set_config('{name}', '{value}', true)" for name, value in GUCS.items()
)

PREPARED_FROM = 5  # uses of a caller's connection, as in psycopg

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
    for name, value in BOUNDS.items():
        params.setdefault(name, value)
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
    raw.durable_workflows_local = _local(using)  # type: ignore[attr-defined]
    if not is_pooled(raw) and (role := _role(using)):
        raw.execute(SQL("SET ROLE {}").format(Identifier(role)))
    raw.durable_workflows_names = {}  # type: ignore[attr-defined]
    if not is_pooled(raw):
        raw.prepare_threshold = 0
    return raw


def _role(using: str) -> str | None:
    """Return the role that Django would assume on a connection of this alias."""
    return connections[using].settings_dict["OPTIONS"].get("assume_role")


def _local(using: str) -> str:
    role = _role(using)
    return LOCAL if not role else LOCAL + f", set_config('role', {quote(role)}, true)"


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
    """Run one statement on a connection of the engine's own."""
    if is_pooled(raw):
        return batch(raw, [(sql, params)])[0]
    return run_prepared(raw, sql, params)


def run_cursor(raw: Any, sql: str, params: Sequence[Any] = ()) -> Result:
    """Run one statement as psycopg would: nothing of it stays on the server."""
    cursor = psycopg.Cursor(raw)
    cursor.execute(sql, params or None)
    return _fetched(cursor)


def _fetched(cursor: Any) -> Result:
    return Result(cursor.fetchall() if cursor.description else [], cursor.rowcount)


def run_prepared(raw: Any, sql: str, params: Sequence[Any] = ()) -> Result:
    """Run one statement by libpq's own blocking call, prepared at its first use.

    A cursor gives the interpreter's lock away three times a statement, and gets it back
    behind all others; this call once. Values travel as text: a list as its literal.
    """
    values = [_text(value) for value in params]
    try:
        result = _checked(raw.pgconn.exec_prepared(_prepared(raw, sql), values))
    except STALE as error:
        del raw.durable_workflows_names[sql]
        if raw.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            # The transaction is lost with it; another connection runs the whole again.
            raise psycopg.OperationalError(str(error)) from error
        result = _checked(raw.pgconn.exec_prepared(_prepared(raw, sql), values))
    rows: list[tuple[Any, ...]] = []
    if count := result.ntuples:
        reader = Transformer(raw)
        reader.set_pgresult(result)
        rows = reader.load_rows(0, count, tuple)
    return Result(rows, result.command_tuples or 0)


# A migration has changed a column that the statement returns, or somebody discarded it.
STALE = (errors.FeatureNotSupported, errors.InvalidSqlStatementName)


def _prepared(raw: Any, sql: str) -> bytes:
    """Return the name under which this session has prepared a statement."""
    names = raw.durable_workflows_names
    if sql not in names:
        raw.durable_workflows_count = number = getattr(raw, "durable_workflows_count", 0) + 1
        name = b"durable_%d" % number
        _checked(raw.pgconn.prepare(name, _numbered(sql)))
        names[sql] = name
    return names[sql]


def _numbered(sql: str) -> bytes:
    """Return a statement with libpq's places, $1 for the first %s."""
    head, *parts = sql.split("%s")
    return (head + "".join(f"${n}{part}" for n, part in enumerate(parts, start=1))).encode()


def _text(value: Any) -> bytes | None:
    if value is None:
        return None
    text = str(value).encode()
    if 0 in text:  # the C string would end there
        raise psycopg.DataError("PostgreSQL text can't contain NUL (0x00) bytes")
    return text


def _checked(result: Any) -> Any:
    if result.status in (psycopg.pq.ExecStatus.TUPLES_OK, psycopg.pq.ExecStatus.COMMAND_OK):
        return result
    state = result.error_field(psycopg.pq.DiagnosticField.SQLSTATE)
    message = result.error_message.decode(errors="replace")
    if state is None:
        raise psycopg.OperationalError(message)
    try:
        kind = errors.lookup(state.decode())
    except KeyError:
        kind = psycopg.DatabaseError
    raise kind(message)


def run_for_caller(raw: Any, sql: str, params: Sequence[Any] = ()) -> Result:
    """Run one statement on Django's connection, prepared if it is a transaction by itself.

    Planning takes a quarter of a lone enqueue. In an open transaction nothing is
    prepared: a statement that somebody discarded meanwhile would break it.
    """
    # In an atomic block the status of the first statement is IDLE, too: its BEGIN comes along.
    alone = raw.autocommit and raw.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    if not alone or raw.prepare_threshold is not None or not _pays_to_prepare(raw):
        return run_cursor(raw, sql, params)
    try:
        return run_prepared(raw, sql, params)
    except (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement):
        raw.durable_workflows_uses = float("-inf")  # a pooler after all
    return run_cursor(raw, sql, params)


def _pays_to_prepare(raw: Any) -> bool:
    """Return whether this connection lives long enough, and leads to one server session."""
    uses = raw.durable_workflows_uses = getattr(raw, "durable_workflows_uses", 0) + 1
    if uses == PREPARED_FROM:
        (pid,) = raw.execute("SELECT pg_backend_pid()").fetchone()
        if pid != raw.info.backend_pid or _is_under_gevent():
            raw.durable_workflows_uses = float("-inf")
        raw.durable_workflows_names = {}
    return bool(raw.durable_workflows_uses >= PREPARED_FROM)


def _is_under_gevent() -> bool:
    """Return whether a blocking call would hold up other greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("select"))


def batch(raw: Any, statements: list[Statement]) -> list[Result]:
    """Run statements in one pipeline: in autocommit all up to the sync are one transaction."""
    pooled = is_pooled(raw)
    if len(statements) == 1 and not pooled:
        return [run_prepared(raw, *statements[0])]
    if pooled:
        statements = [(raw.durable_workflows_local, ()), *statements]
    cursors = []
    with raw.pipeline():
        for sql, params in statements:
            cursor = psycopg.Cursor(raw)
            cursor.execute(sql, params or None)
            cursors.append(cursor)
    results = [_fetched(cursor) for cursor in cursors]
    return results[1:] if pooled else results


def transaction(raw: Any, work: Callable[[Callable[..., Result]], T]) -> T:
    pooled = is_pooled(raw)
    with raw.transaction():
        if pooled:
            run_cursor(raw, raw.durable_workflows_local)
        return work(partial(run_cursor if pooled else run_prepared, raw))


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
