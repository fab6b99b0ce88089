"""What the engine asks of a database, as contracts; and what both databases share.

A store is bound to one session: the caller's connection, or one of the engine's.
Its verbs are statements over batches. Each takes `now`, None for the database's
own clock, and tells by return values, never by exceptions, that somebody else was
first. One contract suite runs against every class here.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from durable_workflows.core import states
from durable_workflows.core.admission import Load, allowance
from durable_workflows.core.records import (
    Beat,
    Claim,
    Created,
    Ended,
    Entry,
    NewWorkflow,
    OutcomeEntry,
    QueueView,
    Rescued,
    StatusRow,
    StepEntry,
    StepRecord,
    Verdict,
    WaitEntry,
    WorkerFacts,
)

Answer = Verdict | StepRecord
Fence = tuple[int, int | None, str]  # attempt, owner, status
Plan = list[tuple[str, int, str]]  # queue, how many at most, of which status ("" is any)


class Store(ABC):
    passed_over = False  # whether the last claim left out a queue that somebody had locked
    supports_notify = False
    pens = 2  # connections that write at the same time to any good

    # -- where -------------------------------------------------------------

    @abstractmethod
    def dedicated(self) -> Store:
        """Return a store of the same database on a connection of its own, opened late."""

    @abstractmethod
    def give_up(self) -> None:
        """Let work that waits for the database to come back end by Closed. For any thread."""

    @abstractmethod
    def close(self) -> None:
        """Give the connection back, if it is the store's own."""

    def hang_up(self) -> None:  # noqa: B027 (most stores have nothing to close)
        """Close the calling thread's connection, unless a transaction is open on it."""

    def openings(self) -> int:
        """Return how often the store's own connection was opened; 0 on the caller's."""
        return 0

    @abstractmethod
    def version(self) -> str:
        """Return the database's version, for people."""

    def most_connections(self) -> int | None:
        """Return how many connections the server takes, None if that is no question."""
        return None

    @abstractmethod
    def in_transaction(self) -> bool:
        """Return whether the caller's thread has an open atomic block (a test's own aside)."""

    @abstractmethod
    def in_test(self) -> bool:
        """Return whether the caller's thread is inside a transaction of Django's TestCase."""

    @abstractmethod
    def atomic_step(self, max_idle: float) -> AbstractContextManager[None]:
        """Open the transaction of an atomic step on the caller's connection.

        Raises WrongPlace, and rolls back, if the body broke the transaction it ran in,
        or wrote through another alias, which this transaction could not roll back.
        """

    @abstractmethod
    def close_left_open(self) -> str | None:
        """Close a connection of the caller's on which a transaction is open outside any block.

        Returns its alias, None where there is none.
        """

    @abstractmethod
    def autocommits(self) -> bool:
        """Return whether a statement by the caller would now commit by itself."""

    @abstractmethod
    def on_commit(self, act: Callable[[], None]) -> None:
        """Run `act` once the caller's open transaction has committed; at once if none is open."""

    @abstractmethod
    def undid(self, error: Exception) -> bool:
        """Return whether an error tells that the database rolled an atomic step back by itself.

        A deadlock, a serialization failure or a lost connection: nothing of it is there,
        and it may run again as a whole.
        """

    # -- hints -------------------------------------------------------------

    def notify(self, channel: str) -> None:  # noqa: B027 (most databases can't)
        """Ring a channel in every process that listens; nothing where the database can't."""

    def listen(self, channels: Sequence[str]) -> bool:
        """Hear these channels on the store's own connection; False where that can't be."""
        return False

    def fileno(self) -> int | None:
        """Return what becomes readable when a listening connection hears something."""
        return None

    def heard(self) -> bool:
        """Take what was heard off the connection; return whether there was anything."""
        return False

    # -- starting ----------------------------------------------------------

    @abstractmethod
    def create(self, rows: Sequence[NewWorkflow], *, now: datetime | None = None) -> list[Created]:
        """Insert workflows in the caller's transaction; an id that is there stays as it is.

        Raise QueueDeduplicated for a deduplication id that is taken; nothing is broken by it.
        """

    @abstractmethod
    def add(self, rows: Sequence[NewWorkflow], *, now: datetime | None = None) -> None:
        """Insert workflows as create() does, with ids that no row can have."""

    def create_claimed(
        self, row: NewWorkflow, worker: int, executor_id: str, *, now: datetime | None = None
    ) -> tuple[Created, Claim | None]:
        """Insert a workflow already owned by `worker`, in one transaction.

        No claim if its id was there before.
        """
        with self.transaction():
            (created,) = self.create([row], now=now)
            if not created.fresh:
                return created, None
            return created, self.claim_one(row.workflow_id, worker, executor_id, now=now)

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """Open a transaction on the caller's connection, or join the open one."""

    # -- running -----------------------------------------------------------

    @abstractmethod
    def claim_one(
        self, workflow_id: str, worker: int, executor_id: str, *, now: datetime | None = None
    ) -> Claim | None:
        """Own one workflow if it is ready; None if it is not."""

    @abstractmethod
    def claim(
        self,
        worker: int,
        executor_id: str,
        names: Sequence[str],
        queues: Sequence[QueueView],
        asked: int,
        *,
        app_version: str = "",
        now: datetime | None = None,
    ) -> list[Claim]:
        """Own up to `asked` ready workflows of these names, and read what their runs need."""

    @abstractmethod
    def write(
        self, entries: Sequence[Entry], *, patient: bool = False, now: datetime | None = None
    ) -> list[Answer] | None:
        """Commit what runs hand in, in one transaction; None means all are recorded.

        `patient` waits for rows that somebody has locked, where the usual batch answers LOCKED.
        """

    @abstractmethod
    def guard_step(self, id: int, attempt: int, worker: int) -> bool:
        """Lock the run's row against a new claim, first thing in an atomic step; False if lost."""

    @abstractmethod
    def look(self, ids: Sequence[int], *, now: datetime | None = None) -> tuple[int, int]:
        """Make ready those of these waiting workflows whose wait is fulfilled.

        Only ever called after the commit that may have fulfilled it, in a statement of
        its own. Returns how many were woken, and how many were skipped because somebody
        had locked them: those are to be looked at again.
        """

    # -- reading -----------------------------------------------------------

    @abstractmethod
    def recorded(self, id: int, position: int) -> StepRecord | None:
        """Return the recorded step of a workflow at a position."""

    @abstractmethod
    def ended(self, workflow_ids: Sequence[str]) -> dict[str, Ended]:
        """Return the outcomes of those that have ended."""

    @abstractmethod
    def holder(self, queue: str, deduplication_id: str) -> str | None:
        """Return the id of the workflow that holds a deduplication id in a queue."""

    @abstractmethod
    def behind(self, queue: str, workflow_ids: Sequence[str]) -> set[str]:
        """Return those that wait for their first claim in a queue of one place that is held."""

    @abstractmethod
    def status(self, workflow_id: str) -> StatusRow | None: ...

    @abstractmethod
    def now(self) -> float:
        """Return the database's clock in epoch seconds."""

    # -- people ------------------------------------------------------------

    @abstractmethod
    def cancel(self, workflow_ids: Sequence[str]) -> int:
        """Cancel those that have not ended; return how many."""

    @abstractmethod
    def resume(self, workflow_ids: Sequence[str]) -> int:
        """Make those ready that were cancelled or given up; return how many."""

    # -- workers -----------------------------------------------------------

    @abstractmethod
    def enlist(self, facts: WorkerFacts, lease: float, *, now: datetime | None = None) -> int:
        """Insert a live worker row and return its id."""

    def presence(self) -> str:
        """Return what the database can tell this store's own connection by, "" if nothing."""
        return ""

    @abstractmethod
    def beat(self, worker: int, *, backend: str | None = None, now: datetime | None = None) -> Beat:
        """Renew the lease of a worker that is still live, and count what it owns.

        `backend` is a new presence() after a reconnection; None leaves the recorded one.
        """

    @abstractmethod
    def count_owned(self, worker: int) -> int: ...

    @abstractmethod
    def discharge(self, worker: int, *, now: datetime | None = None) -> None:
        """Mark a worker as stopped; what it still owns is the rescuer's."""

    @abstractmethod
    def owned(self, worker: int) -> list[int]: ...

    @abstractmethod
    def release(self, worker: int, ids: Sequence[int], *, now: datetime | None = None) -> int:
        """Make workflows ready again that `worker` owns but does not run."""

    @abstractmethod
    def fates(self, ids: Sequence[int]) -> dict[int, str]:
        """Return the statuses of these workflows."""

    @abstractmethod
    def bury(self, *, now: datetime | None = None) -> list[int]:
        """Declare workers dead whose lease is over or whose backend is gone; return their ids."""

    @abstractmethod
    def rescue(
        self,
        limits: dict[str, int | None],
        limit: int | None,
        batch: int,
        *,
        now: datetime | None = None,
    ) -> list[Rescued]:
        """Take up to `batch` workflows from workers that are not live.

        `limits` are the recoveries granted by name, `limit` by any other name.
        """

    # -- time --------------------------------------------------------------

    @abstractmethod
    def wake_due(self, batch: int, *, now: datetime | None = None) -> int:
        """Look at rows whose wake_at has come, make ready or push on; return how many were seen."""

    @abstractmethod
    def next_due(self, *, now: datetime | None = None) -> float | None:
        """Return the seconds until the earliest wake_at, None if nothing waits."""

    # -- queues ------------------------------------------------------------

    @abstractmethod
    def queues(self) -> dict[str, QueueView]:
        """Return every queue with a row, and those that have ready workflows without one."""

    @abstractmethod
    def strangers(self, names: Sequence[str], queues: Sequence[str] | None) -> dict[str, int]:
        """Return how many ready workflows have a name other than these, by their name.

        In these queues and in none; None for all. Counted among the first 10,000 ready.
        """

    @abstractmethod
    def declare_queues(self, queues: Iterable[QueueView]) -> None:
        """Write the limits that code declares; `paused` stays as it is."""

    @abstractmethod
    def audit(self, *, now: datetime | None = None) -> list[tuple[str, str]]:
        """Return (workflow_id, what is wrong) for every row that breaks the invariant."""

    @abstractmethod
    def busy(self) -> bool:
        """Return whether any workflow is ready or owned (what --drain waits for)."""


def by_kind(
    entries: Sequence[Entry],
) -> tuple[list[StepEntry], list[StepEntry], list[OutcomeEntry], list[WaitEntry]]:
    """Sort a batch into plain steps, steps with children, outcomes and waits."""
    steps: list[StepEntry] = []
    starts: list[StepEntry] = []
    outcomes: list[OutcomeEntry] = []
    waits: list[WaitEntry] = []
    for entry in entries:
        if isinstance(entry, StepEntry):
            (starts if entry.children else steps).append(entry)
        elif isinstance(entry, OutcomeEntry):
            outcomes.append(entry)
        else:
            waits.append(entry)
    return steps, starts, outcomes, waits


def attributes_text(attributes: dict[str, Any] | None) -> str | None:
    return None if attributes is None else json.dumps(attributes)


def answer(entry: Entry, record: StepRecord | None, fence: Fence | None) -> Answer:
    """Say what became of an entry that changed no row.

    `record` is the step at its position, None where there is none or the entry is no
    step; `fence` is what its workflow's row says then, None where there is no row.
    """
    if isinstance(entry, StepEntry) and record is not None:
        # A run with my attempt exists once: the row is mine, its COMMIT's answer was lost.
        same = (record.attempt, record.name, record.kind)
        return Verdict.RECORDED if same == (entry.attempt, entry.name, entry.kind) else record
    if fence is None:
        return Verdict.LOST
    attempt, worker, status = fence
    if attempt == entry.attempt and status == states.CANCELLED:
        return Verdict.CANCELLED
    if attempt == entry.attempt and worker == entry.worker and status == states.PENDING:
        return Verdict.LOCKED
    ended = attempt == entry.attempt and status in (states.SUCCESS, states.ERROR)
    left = attempt > entry.attempt or (attempt == entry.attempt and worker is None)
    match entry:
        case OutcomeEntry() if ended:
            return Verdict.RECORDED
        case WaitEntry(keeps=False) if left:
            return Verdict.RECORDED
    return Verdict.LOST


def places(queue: QueueView, load: Load, asked: int) -> Plan:
    """Return how many may be taken of a queue that is under this load."""
    new = 0 if queue.paused else allowance(queue, load, asked)
    if queue.hold and queue.limited:
        # Whoever waits on a holding queue keeps its place among all, so it needs none to go
        # on, but a place on this worker like everybody.
        going_on, fresh = asked, new
        if queue.worker_concurrency is not None:
            going_on = max(0, min(queue.worker_concurrency - load.here, load.awake, asked))
            fresh = min(fresh, queue.worker_concurrency - load.here - going_on)
    elif queue.paused:
        going_on, fresh = allowance(queue, load, asked), 0
    else:
        return [(queue.name, new, "")] if new else []
    plan = [(queue.name, going_on, states.PENDING), (queue.name, fresh, states.ENQUEUED)]
    return [place for place in plan if place[1]]
