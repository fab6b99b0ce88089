"""Values that cross the layers. They hold facts and decide nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import Any

from durable_workflows.core import states


@dataclass(frozen=True, slots=True)
class Options:
    """How one start differs from the plain one; made by `.using()`.

    `delay` and `timeout` are seconds.
    """

    workflow_id: str | None = None
    priority: int = 0
    delay: float | None = None
    timeout: float | None = None
    deduplication_id: str | None = None
    partition_key: str | None = None
    app_version: str | None = None
    attributes: dict[str, Any] | None = None
    user: str | None = None

    def changed(self, **changes: Any) -> Options:
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class NewWorkflow:
    """A workflow about to be inserted; `input` is an encoded payload."""

    workflow_id: str
    name: str
    input: str
    queue: str = ""
    options: Options = Options()
    parent: int | None = None
    parent_position: int | None = None
    chosen_id: bool = False

    @property
    def is_surely_new(self) -> bool:
        """Whether the id was made for this start alone, so that no row can have it."""
        return not self.chosen_id and self.parent is None and not self.options.deduplication_id

    @property
    def status(self) -> str:
        if self.options.delay:
            return states.DELAYED
        return states.ENQUEUED if self.queue else states.PENDING


@dataclass(frozen=True, slots=True)
class Created:
    """What an insert found: `fresh` is False when the id was there before."""

    id: int
    workflow_id: str
    name: str
    fresh: bool


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A recorded durable call. `output` and `error` are encoded; one of them is None."""

    position: int
    name: str
    kind: str
    output: str | None
    error: str | None
    child: str | None = None
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a workflow ended; `output` and `error` are encoded."""

    status: str
    output: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Claim:
    """A workflow that a worker owns, with everything its run needs."""

    id: int
    workflow_id: str
    name: str
    queue: str
    input: str
    attempt: int
    worker: int
    recoveries: int = 0
    parent: int | None = None
    waits: str = ""
    user: str | None = None
    steps: dict[int, StepRecord] = field(default_factory=dict)
    ended: dict[str, Ended] = field(default_factory=dict)


class Verdict(Enum):
    """What became of an entry that is not simply recorded or adopted."""

    RECORDED = "recorded"
    LOST = "lost"  # another attempt, or nobody, owns the workflow
    CANCELLED = "cancelled"
    LOCKED = "locked"  # somebody's transaction holds the row: once more on the side lane


# Entries are made once a step, on the hottest path: slots, but not frozen (a
# frozen dataclass sets each field through object.__setattr__, four times the cost).


@dataclass(slots=True)
class StepEntry:
    """A durable call that has its result. `took` is in microseconds."""

    id: int
    attempt: int
    worker: int
    position: int
    name: str
    kind: str
    output: str | None = None
    error: str | None = None
    child: str | None = None
    tries: str | None = None
    took: int = 0
    children: tuple[NewWorkflow, ...] = ()


@dataclass(slots=True)
class OutcomeEntry:
    """The end of a run: `status` is SUCCESS or ERROR."""

    id: int
    attempt: int
    worker: int
    status: str
    output: str | None
    error: str | None
    workflow_id: str
    parent: int | None = None


@dataclass(slots=True)
class WaitEntry:
    """A run lets go of its workflow, or notes what it waits for.

    `waits` is the encoded table of waits; None leaves the recorded one.
    `seconds` until the row is looked at again; None makes it ready at once.
    `keeps` tells a run that stays in memory and only wants its waits kept.
    """

    id: int
    attempt: int
    worker: int
    waits: str | None = None
    seconds: float | None = None
    keeps: bool = False
    foreign: bool = False  # waits for something another workflow makes: look once committed


Entry = StepEntry | OutcomeEntry | WaitEntry


@dataclass(frozen=True, slots=True)
class QueueView:
    """A queue as the claimer sees it. A limit of None does not bind."""

    name: str
    concurrency: int | None = None
    worker_concurrency: int | None = None
    hold: bool = False
    paused: bool = False

    @property
    def limited(self) -> bool:
        return self.concurrency is not None or self.worker_concurrency is not None


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """Who a worker process is, for its row and for the people who read it."""

    kind: str  # "worker", "embedded" or "inline"
    host: str
    pid: int
    app_version: str = ""
    queues: str = ""
    backend: str = ""  # what presence is told by, in the store's own words; "" if it can't be


@dataclass(frozen=True, slots=True)
class Rescued:
    """A workflow taken from a dead worker; `given_up` instead of handed on."""

    id: int
    workflow_id: str
    name: str
    recoveries: int
    given_up: bool
    parent: int | None


@dataclass(frozen=True, slots=True)
class Beat:
    """What a beat found. `owned` counts workflows; `database_now` is epoch seconds."""

    live: bool
    owned: int
    database_now: float


@dataclass(frozen=True, slots=True)
class StatusRow:
    """A workflow's row as people read it; payloads still encoded."""

    id: int
    workflow_id: str
    status: str
    name: str
    input: str
    output: str | None
    error: str | None
    created_at: datetime
    updated_at: datetime
    app_version: str | None
    executor_id: str | None
    queue_name: str | None
    dequeued_at: datetime | None
    attempt: int
    recoveries: int
    priority: int
    deduplication_id: str | None
    queue_partition_key: str | None
    forked_from: str | None
    parent_workflow_id: str | None
    deadline: datetime | None
    delay_until: datetime | None
    completed_at: datetime | None
    attributes: dict[str, Any] | None
    authenticated_user: str | None
