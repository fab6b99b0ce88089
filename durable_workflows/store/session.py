"""A way to the database: the caller's own connection, or one of the engine's.

`Borrowed` works on Django's connection of the calling thread, inside whatever
transaction is open there, and lets its errors out. `Owned` is a connection nobody
else uses: it is opened late, thrown away when it breaks, and its work, always a
whole transaction, is tried again until the database is back. Every verb of the
store that runs on an owned connection must therefore bear being run twice.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from django.db import connections, transaction

logger = logging.getLogger("durable_workflows")

T = TypeVar("T")
Statement = tuple[str, Sequence[Any]]


class Result:
    """Rows as tuples (empty for a statement without any) and the row count."""

    __slots__ = ("rowcount", "rows")

    def __init__(self, rows: list[tuple[Any, ...]], rowcount: int):
        self.rows, self.rowcount = rows, rowcount


class Closed(Exception):
    """The engine is shutting down: the work was not tried again."""


class Borrowed:
    """Django's connection of the calling thread.

    `opening` is a statement that every unit begins with.
    """

    owned = False
    back_for = float("inf")  # seconds since the database was away, as far as is known

    def __init__(
        self,
        using: str,
        run: Callable[[Any, str, Sequence[Any]], Result],
        opening: str | None = None,
    ):
        self.using, self._run, self._opening = using, run, opening

    @property
    def connection(self) -> Any:
        return connections[self.using]

    def raw(self) -> Any:
        connection = self.connection
        connection.ensure_connection()
        return connection.connection

    def execute(self, sql: str, params: Sequence[Any] = ()) -> Result:
        connection = self.connection
        connection.ensure_connection()
        with connection.wrap_database_errors:
            return self._run(connection.connection, sql, params)

    def batch(self, statements: list[Statement]) -> list[Result]:
        if len(statements) == 1:
            return [self.execute(*statements[0])]
        with transaction.atomic(using=self.using, savepoint=False):
            return [self.execute(*statement) for statement in statements]

    def unit(self, work: Callable[[Callable[..., Result]], T]) -> T:
        """Run `work(execute)` as one transaction, or as part of the open one."""
        with transaction.atomic(using=self.using, savepoint=False):
            if self._opening:
                self.execute(self._opening)
            return work(self.execute)

    def close(self) -> None:
        """Nothing: the connection is Django's."""


class Owned:
    """A connection of the engine's own, in autocommit.

    `dialect` knows how to open it, to run a statement, a batch and a transaction on
    it, and which errors mean that the connection or the transaction is to be tried
    again. Not for several threads at once.
    """

    owned = True
    LONGEST_PAUSE = 5.0  # seconds between two tries to reach the database

    def __init__(self, using: str, dialect: Any, closing: threading.Event | None = None):
        self.using, self.dialect = using, dialect
        self.closing = closing or threading.Event()
        self.greet: Callable[[Any], None] | None = None  # called with each new connection
        self.openings = 0  # how often the connection was opened
        self._back_at = float("-inf")  # monotonic; the latest reconnection
        self._raw: Any = None

    def raw(self) -> Any:
        if self._raw is None:
            raw = self.dialect.connect(self.using)
            if self.greet is not None:
                self.greet(raw)
            self._raw = raw
            if self.openings:
                self._back_at = time.monotonic()
            self.openings += 1
        return self._raw

    @property
    def back_for(self) -> float:
        """Seconds since the connection was opened anew; infinity for the first one."""
        return time.monotonic() - self._back_at

    def ready(self) -> Any:
        """Return an open connection, or None where the database can't be reached now."""
        try:
            if self._raw is not None and self.dialect.is_closed(self._raw):
                self.close()
            return self.raw()
        except Exception as error:
            if not self.dialect.is_disconnect(error):
                raise
            return None

    def execute(self, sql: str, params: Sequence[Any] = ()) -> Result:
        return self._persist(lambda raw: self.dialect.run(raw, sql, params))

    def batch(self, statements: list[Statement]) -> list[Result]:
        """Run statements as one transaction; their results must not depend on each other."""
        return self._persist(lambda raw: self.dialect.batch(raw, statements))

    def unit(self, work: Callable[[Callable[..., Result]], T]) -> T:
        """Run `work(execute)` as one transaction."""
        return self._persist(lambda raw: self.dialect.transaction(raw, work))

    def close(self) -> None:
        raw, self._raw = self._raw, None
        if raw is not None:
            self.dialect.disconnect(raw)

    def _persist(self, work: Callable[[Any], T]) -> T:
        tries = 0
        while True:
            try:
                return work(self.raw())
            except Exception as error:
                if self.dialect.is_disconnect(error):
                    self.close()
                elif not self.dialect.is_retryable(error):
                    self._mend()
                    raise
                tries += 1
                self._pause(tries, error)

    def _mend(self) -> None:
        """Leave no broken transaction behind a statement that failed by itself."""
        if self._raw is not None and not self.dialect.mend(self._raw):
            self.close()

    def _pause(self, tries: int, error: Exception) -> None:
        seconds = min(self.LONGEST_PAUSE, 0.01 * 2 ** min(tries, 10)) * random.uniform(0.5, 1.0)
        if tries in (5, 10) or tries % 60 == 0:
            logger.warning("The database can't be used (try %d): %s", tries, type(error).__name__)
        if self.closing.wait(seconds):
            raise Closed("shutting down while the database can't be used") from error
