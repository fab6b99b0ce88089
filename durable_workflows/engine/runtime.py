"""What a run needs of the process it runs in, as one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from durable_workflows.core.records import Ended
from durable_workflows.engine.clock import Clock
from durable_workflows.engine.journal import Journal
from durable_workflows.engine.registry import Registry
from durable_workflows.engine.waiting import Waiters
from durable_workflows.store.base import Store


class Reader(Protocol):
    """The few reads of a run, from whatever connection its process keeps for them."""

    def ended(self, workflow_ids: list[str]) -> dict[str, Ended]: ...
    def status(self, workflow_id: str) -> Any: ...
    def holder(self, queue: str, deduplication_id: str) -> str | None: ...
    def behind(self, queue: str, workflow_ids: list[str]) -> set[str]: ...
    def recorded(self, id: int, position: int) -> Any: ...


def never() -> bool:
    return False


def no_queue(name: str) -> bool:
    return False


def nothing() -> None:
    """What is done where nobody cares."""


@dataclass(frozen=True, slots=True)
class Runtime:
    store: Store  # on the calling thread's own connection: atomic steps, the caller's starts
    reader: Reader
    journal: Journal
    clock: Clock
    registry: Registry
    waiters: Waiters
    payload_max_bytes: int
    suspends: bool = True  # False: long waits pass in place, as in an inline run
    suspend_after: float = 1.0  # seconds; shorter waits stay in memory
    crowded: Callable[[], bool] = never  # whether somebody waits for this run's slot
    holds: Callable[[str], bool] = no_queue  # whether a queue's workflows keep their places
    isolate: Callable[[], None] = nothing  # called in the context of a beginning async run
    mend: Callable[[], None] = nothing  # called in the thread of a step's body that failed
    app_version: str = ""
