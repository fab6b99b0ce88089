"""A clock that tests move, and that skips what workflows sleep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from durable_workflows.engine.clock import Clock
from durable_workflows.engine.process import process


class ManualClock(Clock):
    """Stands still until `advance()`; a sleep advances it instead of waiting."""

    skips = True

    def __init__(self, start: datetime | None = None):
        super().__init__()
        self._now = (start or datetime.now(UTC)).timestamp()

    def now_or_none(self) -> datetime:
        return datetime.fromtimestamp(self._now, UTC)

    def monotonic(self) -> float:
        return self._now

    def database_now(self) -> float:
        return self._now

    def learn(self, database_now: float) -> None:
        """Nothing: the database is told the time, not asked."""

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def jitter(self, seconds: float) -> float:
        return seconds

    def advance(self, seconds: float) -> None:
        self._now += seconds


@contextmanager
def manual_clock(start: datetime | None = None) -> Iterator[ManualClock]:
    """Run this process's workflows, also inline ones, by a clock that skips their sleeps."""
    here_process = process()
    before, clock = here_process.clock, ManualClock(start)
    here_process.clock = clock
    try:
        yield clock
    finally:
        here_process.clock = before
