"""A store in plain Python, for tests without a database.

The same contract as the real ones: one suite runs against all three. Everything is
under one lock, so a verb is a transaction; transaction() and atomic_step() keep the
lock and restore what was there when their block fails. Queues, which people pause on
their model, are paused here on the store.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from django.db import IntegrityError

from durable_workflows.core import recovery, states, waits
from durable_workflows.core.admission import Load
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
from durable_workflows.errors import QueueDeduplicated
from durable_workflows.store.base import Answer, Store, answer, by_kind, places


@dataclass(slots=True)
class Row:
    """A workflow; instants are epoch seconds."""

    id: int
    new: NewWorkflow
    status: str
    created_at: float
    updated_at: float
    wake_at: float | None = None
    worker: int | None = None
    attempt: int = 0
    recoveries: int = 0
    waits: str = ""
    output: str | None = None
    error: str | None = None
    executor_id: str | None = None
    app_version: str | None = None
    deduplication_id: str | None = None
    deadline: float | None = None
    dequeued_at: float | None = None
    completed_at: float | None = None

    @property
    def ready(self) -> bool:
        return self.worker is None and self.wake_at is None and self.status in states.CLAIMABLE

    def ends(self, status: str, now: float) -> None:
        self.status, self.worker, self.wake_at, self.waits = status, None, None, ""
        self.deduplication_id = None
        self.completed_at = self.updated_at = now


@dataclass(slots=True)
class Member:
    """A worker; instants are epoch seconds."""

    facts: WorkerFacts
    lease: float
    beat_at: float
    state: str = "live"


@dataclass(slots=True)
class Tables:
    rows: dict[int, Row] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)  # by workflow_id
    steps: dict[int, dict[int, StepRecord]] = field(default_factory=dict)
    workers: dict[int, Member] = field(default_factory=dict)
    queues: dict[str, QueueView] = field(default_factory=dict)


class MemoryStore(Store):
    """`clock` returns epoch seconds, wherever a verb is not given `now`."""

    def __init__(self, clock: Callable[[], float] = time.time):
        self.clock = clock
        self.tables = Tables()
        self._lock = threading.RLock()
        self._depth = 0  # of open transactions; only their thread gets past the lock
        self._after: list[Callable[[], None]] = []

    # -- where -------------------------------------------------------------

    def dedicated(self) -> MemoryStore:
        return self

    def give_up(self) -> None:
        """Nothing: memory is never away."""

    def close(self) -> None:
        """Nothing: there is no connection."""

    def version(self) -> str:
        return "memory"

    def in_transaction(self) -> bool:
        return False

    def undid(self, error: Exception) -> bool:
        return False

    def in_test(self) -> bool:
        return False

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._lock:
            before, after = copy.deepcopy(self.tables), len(self._after)
            self._depth += 1
            try:
                yield
            except BaseException:
                self.tables = before
                del self._after[after:]
                raise
            finally:
                self._depth -= 1
            acts: list[Callable[[], None]] = []
            if not self._depth:
                acts, self._after = self._after, []
        for act in acts:
            act()

    def atomic_step(self, max_idle: float) -> AbstractContextManager[None]:
        return self.transaction()

    def close_left_open(self) -> str | None:
        return None

    def autocommits(self) -> bool:
        return True

    def on_commit(self, act: Callable[[], None]) -> None:
        with self._lock:
            if self._depth:
                self._after.append(act)
                return
        act()

    # -- starting ----------------------------------------------------------

    def create(self, rows: Sequence[NewWorkflow], *, now: datetime | None = None) -> list[Created]:
        with self._lock:
            for row in rows:
                if self._clashes(row):
                    taken = row.options.deduplication_id or ""
                    holder = self.holder(row.queue, taken)
                    raise QueueDeduplicated(row.workflow_id, row.queue, taken, holder)
            return [self._insert(row, self._at(now)) for row in rows]

    def add(self, rows: Sequence[NewWorkflow], *, now: datetime | None = None) -> None:
        with self._lock:
            if any(row.workflow_id in self.tables.ids or self._clashes(row) for row in rows):
                raise IntegrityError("a workflow id or deduplication id is there already")
            self.create(rows, now=now)

    def _clashes(self, new: NewWorkflow) -> bool:
        wanted = new.options.deduplication_id
        return (
            wanted is not None
            and new.workflow_id not in self.tables.ids
            and any(
                row.deduplication_id == wanted and row.new.queue == new.queue
                for row in self.tables.rows.values()
            )
        )

    def _insert(self, new: NewWorkflow, now: float) -> Created:
        known = self.tables.ids.get(new.workflow_id)
        if known is not None:
            return Created(known, new.workflow_id, self.tables.rows[known].new.name, False)
        id = len(self.tables.rows) + 1
        delay = new.options.delay
        self.tables.rows[id] = Row(
            id=id,
            new=new,
            status=new.status,
            created_at=now,
            updated_at=now,
            wake_at=now + delay if delay else None,
            app_version=new.options.app_version,
            deduplication_id=new.options.deduplication_id,
        )
        self.tables.ids[new.workflow_id] = id
        return Created(id, new.workflow_id, new.name, True)

    # -- running -----------------------------------------------------------

    def claim_one(
        self, workflow_id: str, worker: int, executor_id: str, *, now: datetime | None = None
    ) -> Claim | None:
        with self._lock:
            row = self.tables.rows.get(self.tables.ids.get(workflow_id, 0))
            if row is None or not row.ready:
                return None
            return self._own(row, worker, executor_id, self._at(now))

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
        with self._lock:
            if not self._is_live(worker):
                return []
            taken: list[Row] = []
            for queue in queues:
                for place, room, status in places(queue, self._load(queue, worker), asked):
                    found = self._ready(place, status, names)
                    taken += found[: min(room, asked - len(taken))]
            for row in taken:
                row.app_version = app_version or row.app_version
            return [self._own(row, worker, executor_id, self._at(now)) for row in taken]

    def _ready(self, queue: str, status: str, names: Sequence[str]) -> list[Row]:
        found = [
            row
            for row in self.tables.rows.values()
            if row.ready
            and row.new.queue == queue
            and row.new.name in names
            and status in ("", row.status)
        ]
        return sorted(found, key=lambda row: (row.new.options.priority, row.id))

    def _load(self, queue: QueueView, worker: int) -> Load:
        if not queue.limited:
            return Load()
        counted = [
            row
            for row in self.tables.rows.values()
            if row.new.queue == queue.name
            and (row.status == states.PENDING if queue.hold else row.worker is not None)
        ]
        return Load(
            sum(row.worker == worker for row in counted),
            len(counted),
            sum(row.ready for row in counted),
        )

    def _own(self, row: Row, worker: int, executor_id: str, now: float) -> Claim:
        row.worker, row.executor_id, row.status = worker, executor_id, states.PENDING
        row.attempt += 1
        row.updated_at = now
        if row.new.queue and row.dequeued_at is None:
            row.dequeued_at = now
        if row.deadline is None and row.new.options.timeout is not None:
            row.deadline = now + row.new.options.timeout
        claim = Claim(
            id=row.id,
            workflow_id=row.new.workflow_id,
            name=row.new.name,
            queue=row.new.queue,
            input=row.new.input,
            attempt=row.attempt,
            worker=worker,
            recoveries=row.recoveries,
            parent=row.new.parent,
            waits=row.waits,
            user=row.new.options.user,
        )
        if row.attempt > 1:
            claim.steps.update(self.tables.steps.get(row.id, {}))
            claim.ended.update(self.ended(sorted(waits.named(waits.decode(row.waits)))))
        return claim

    def write(
        self, entries: Sequence[Entry], *, patient: bool = False, now: datetime | None = None
    ) -> list[Answer] | None:
        with self._lock:
            steps, starts, outcomes, suspended = by_kind(entries)
            at = self._at(now)
            ordered: list[Entry] = [*steps, *starts, *outcomes, *suspended]
            done = {id(entry) for entry in ordered if self._write_one(entry, at)}
            if len(done) == len(entries):
                return None
            return [
                Verdict.RECORDED if id(entry) in done else self._answer(entry) for entry in entries
            ]

    def _write_one(self, entry: Entry, now: float) -> bool:
        row = self.tables.rows.get(entry.id)
        if row is None or not self._current(row, entry.attempt, entry.worker):
            return False
        match entry:
            case StepEntry():
                return self._record(entry, now)
            case OutcomeEntry():
                row.ends(entry.status, now)
                row.output, row.error = entry.output, entry.error
            case WaitEntry():
                row.waits = row.waits if entry.waits is None else entry.waits
                row.updated_at = now
                if not entry.keeps:
                    row.worker = None
                    row.wake_at = None if entry.seconds is None else now + entry.seconds
        return True

    def _record(self, entry: StepEntry, now: float) -> bool:
        recorded = self.tables.steps.setdefault(entry.id, {})
        if entry.position in recorded:
            return False
        if any(self._clashes(child) for child in entry.children):
            raise IntegrityError("a deduplication id is taken")
        recorded[entry.position] = StepRecord(
            entry.position,
            entry.name,
            entry.kind,
            entry.output,
            entry.error,
            entry.child,
            entry.attempt,
        )
        for child in entry.children:
            self._insert(child, now)
        return True

    def _answer(self, entry: Entry) -> Answer:
        record = self.recorded(entry.id, entry.position) if isinstance(entry, StepEntry) else None
        row = self.tables.rows.get(entry.id)
        fence = None if row is None else (row.attempt, row.worker, row.status)
        return answer(entry, record, fence)

    def guard_step(self, id: int, attempt: int, worker: int) -> bool:
        with self._lock:
            row = self.tables.rows.get(id)
            return row is not None and self._current(row, attempt, worker)

    def look(self, ids: Sequence[int], *, now: datetime | None = None) -> tuple[int, int]:
        with self._lock:
            woken = [
                row
                for row in self._rows(ids)
                if row.worker is None
                and row.wake_at is not None
                and row.status == states.PENDING
                and row.waits
                and self._fulfilled(row, self._at(now))
            ]
            for row in woken:
                row.wake_at, row.updated_at = None, self._at(now)
            return len(woken), 0

    # -- reading -----------------------------------------------------------

    def recorded(self, id: int, position: int) -> StepRecord | None:
        with self._lock:
            return self.tables.steps.get(id, {}).get(position)

    def ended(self, workflow_ids: Sequence[str]) -> dict[str, Ended]:
        with self._lock:
            rows = self._rows(self.tables.ids.get(one, 0) for one in workflow_ids)
            return {
                row.new.workflow_id: Ended(row.status, row.output, row.error)
                for row in rows
                if row.status in states.FINAL
            }

    def holder(self, queue: str, deduplication_id: str) -> str | None:
        with self._lock:
            for row in self.tables.rows.values():
                if (row.new.queue, row.deduplication_id) == (queue, deduplication_id):
                    return row.new.workflow_id
            return None

    def behind(self, queue: str, workflow_ids: Sequence[str]) -> set[str]:
        with self._lock:
            view = self.tables.queues.get(queue)
            if view is None or not view.hold or view.concurrency != 1:
                return set()
            rows = self._rows(self.tables.ids.get(one, 0) for one in workflow_ids)
            return {
                row.new.workflow_id
                for row in rows
                if row.new.queue == queue and row.status in (states.ENQUEUED, states.DELAYED)
            }

    def status(self, workflow_id: str) -> StatusRow | None:
        with self._lock:
            row = self.tables.rows.get(self.tables.ids.get(workflow_id, 0))
            if row is None:
                return None
            options = row.new.options
            parent = self.tables.rows.get(row.new.parent or 0)
            return StatusRow(
                id=row.id,
                workflow_id=workflow_id,
                status=row.status,
                name=row.new.name,
                input=row.new.input,
                output=row.output,
                error=row.error,
                created_at=datetime.fromtimestamp(row.created_at, UTC),
                updated_at=datetime.fromtimestamp(row.updated_at, UTC),
                app_version=row.app_version,
                executor_id=row.executor_id,
                queue_name=row.new.queue or None,
                dequeued_at=_moment(row.dequeued_at),
                attempt=row.attempt,
                recoveries=row.recoveries,
                priority=options.priority,
                deduplication_id=row.deduplication_id,
                queue_partition_key=options.partition_key,
                forked_from=None,
                parent_workflow_id=parent.new.workflow_id if parent else None,
                deadline=_moment(row.deadline),
                delay_until=_moment(row.wake_at if row.status == states.DELAYED else None),
                completed_at=_moment(row.completed_at),
                attributes=copy.deepcopy(options.attributes),
                authenticated_user=options.user,
            )

    def now(self) -> float:
        return self.clock()

    # -- workers -----------------------------------------------------------

    def enlist(self, facts: WorkerFacts, lease: float, *, now: datetime | None = None) -> int:
        with self._lock:
            id = len(self.tables.workers) + 1
            self.tables.workers[id] = Member(facts, lease, self._at(now))
            return id

    def beat(self, worker: int, *, backend: str | None = None, now: datetime | None = None) -> Beat:
        with self._lock:
            live = self._is_live(worker)
            if live:
                self.tables.workers[worker].beat_at = self._at(now)
            return Beat(live, self.count_owned(worker), self._at(now))

    def count_owned(self, worker: int) -> int:
        return len(self.owned(worker))

    def discharge(self, worker: int, *, now: datetime | None = None) -> None:
        with self._lock:
            if self._is_live(worker):
                self.tables.workers[worker].state = "stopped"

    def owned(self, worker: int) -> list[int]:
        with self._lock:
            return [row.id for row in self.tables.rows.values() if row.worker == worker]

    def release(self, worker: int, ids: Sequence[int], *, now: datetime | None = None) -> int:
        with self._lock:
            rows = [
                row
                for row in self._rows(ids)
                if row.worker == worker and row.status == states.PENDING
            ]
            for row in rows:
                row.worker, row.wake_at, row.updated_at = None, None, self._at(now)
            return len(rows)

    def fates(self, ids: Sequence[int]) -> dict[int, str]:
        with self._lock:
            return {row.id: row.status for row in self._rows(ids)}

    def bury(self, *, now: datetime | None = None) -> list[int]:
        with self._lock:
            late = [
                id
                for id, member in self.tables.workers.items()
                if member.state == "live" and member.beat_at < self._at(now) - member.lease
            ]
            for id in late:
                self.tables.workers[id].state = "dead"
            return late

    def rescue(
        self,
        limits: dict[str, int | None],
        limit: int | None,
        batch: int,
        *,
        now: datetime | None = None,
    ) -> list[Rescued]:
        with self._lock:
            stranded = [
                row
                for row in self.tables.rows.values()
                if row.worker is not None
                and row.status == states.PENDING
                and not self._is_live(row.worker)
            ]
            return [
                self._hand_on(row, limits.get(row.new.name, limit), self._at(now))
                for row in stranded[:batch]
            ]

    def _hand_on(self, row: Row, limit: int | None, now: float) -> Rescued:
        recorded = self.tables.steps.get(row.id, {}).values()
        verdict = recovery.verdict(
            recoveries=row.recoveries,
            progressed=any(step.attempt == row.attempt for step in recorded),
            limit=limit,
        )
        table = waits.decode(row.waits)
        table.pop(waits.RESTING, None)
        row.recoveries = verdict.recoveries
        match verdict:
            case recovery.GiveUp():
                row.ends(states.GIVEN_UP, now)
            case recovery.Requeue(delay=delay):
                row.worker, row.updated_at = None, now
                row.wake_at = now + delay if delay else None
                if delay:
                    table[waits.RESTING] = waits.Wait("rest", until=now + delay)
        row.waits = waits.encode(table)
        given_up = isinstance(verdict, recovery.GiveUp)
        new = row.new
        return Rescued(row.id, new.workflow_id, new.name, row.recoveries, given_up, new.parent)

    # -- time --------------------------------------------------------------

    def wake_due(self, batch: int, *, now: datetime | None = None) -> int:
        with self._lock:
            at = self._at(now)
            due = [
                row
                for row in self.tables.rows.values()
                if row.worker is None and row.wake_at is not None and row.wake_at <= at
            ]
            due = sorted(due, key=lambda row: row.wake_at or at)[:batch]
            for row in due:
                if row.status == states.DELAYED:
                    row.status = states.ENQUEUED if row.new.queue else states.PENDING
                again = None
                if not self._fulfilled(row, at):
                    table = waits.decode(row.waits)
                    again = waits.next_look(table, now=at, waited=at - row.updated_at)
                row.wake_at = None if again is None else at + again
            return len(due)

    def next_due(self, *, now: datetime | None = None) -> float | None:
        with self._lock:
            due = [row.wake_at for row in self.tables.rows.values() if row.wake_at is not None]
            return min(due) - self._at(now) if due else None

    # -- queues ------------------------------------------------------------

    def queues(self) -> dict[str, QueueView]:
        with self._lock:
            unknown = {
                row.new.queue
                for row in self.tables.rows.values()
                if row.ready and row.new.queue not in self.tables.queues
            }
            return {**self.tables.queues, **{name: QueueView(name) for name in sorted(unknown)}}

    def strangers(self, names: Sequence[str], queues: Sequence[str] | None) -> dict[str, int]:
        with self._lock:
            return Counter(
                row.new.name
                for row in self.tables.rows.values()
                if row.ready
                and row.new.name not in names
                and (queues is None or row.new.queue in ("", *queues))
            )

    def declare_queues(self, queues: Iterable[QueueView]) -> None:
        with self._lock:
            for queue in queues:
                known = self.tables.queues.get(queue.name)
                paused = known is not None and known.paused
                self.tables.queues[queue.name] = replace(queue, paused=paused)

    def audit(self, *, now: datetime | None = None) -> list[tuple[str, str]]:
        with self._lock:
            found = [(row, self._wrong(row)) for row in self.tables.rows.values()]
            return [(row.new.workflow_id, wrong) for row, wrong in found if wrong]

    def _wrong(self, row: Row) -> str:
        if row.worker is not None and row.status != states.PENDING:
            return f"owned, but {row.status}"
        if row.worker is not None and not self._is_live(row.worker):
            return f"owned by worker {row.worker}, which is not live"
        if row.worker is None and row.status == states.DELAYED and row.wake_at is None:
            return f"{row.status}, neither owned nor ready, and nothing will wake it"
        return ""

    def busy(self) -> bool:
        with self._lock:
            return any(row.ready or row.worker is not None for row in self.tables.rows.values())

    # -- what people do ----------------------------------------------------

    def cancel(self, workflow_ids: Sequence[str]) -> int:
        with self._lock:
            moved = self._in(workflow_ids, *states.LIVE, states.GIVEN_UP)
            for row in moved:
                row.ends(states.CANCELLED, self.clock())
            return len(moved)

    def resume(self, workflow_ids: Sequence[str]) -> int:
        with self._lock:
            moved = self._in(workflow_ids, states.CANCELLED, states.GIVEN_UP)
            for row in moved:
                row.status = states.ENQUEUED if row.new.queue else states.PENDING
                row.recoveries, row.waits = 0, ""
                row.deadline = row.completed_at = None
                row.updated_at = self.clock()
            return len(moved)

    def pause(self, queue: str) -> None:
        """Start nothing new from this queue."""
        with self._lock:
            self.tables.queues[queue] = replace(self.tables.queues[queue], paused=True)

    def unpause(self, queue: str) -> None:
        with self._lock:
            self.tables.queues[queue] = replace(self.tables.queues[queue], paused=False)

    # -- facts -------------------------------------------------------------

    def _at(self, now: datetime | None) -> float:
        return self.clock() if now is None else now.timestamp()

    def _rows(self, ids: Iterable[int]) -> list[Row]:
        return [self.tables.rows[id] for id in ids if id in self.tables.rows]

    def _in(self, workflow_ids: Sequence[str], *statuses: str) -> list[Row]:
        rows = self._rows(self.tables.ids.get(one, 0) for one in workflow_ids)
        return [row for row in rows if row.status in statuses]

    def _is_live(self, worker: int) -> bool:
        member = self.tables.workers.get(worker)
        return member is not None and member.state == "live"

    def _current(self, row: Row, attempt: int, worker: int) -> bool:
        return (row.attempt, row.worker, row.status) == (attempt, worker, states.PENDING)

    def _fulfilled(self, row: Row, now: float) -> bool:
        table: dict[int, Any] = waits.decode(row.waits)
        return waits.fulfilled(table, now=now, ended=self.ended(sorted(waits.named(table))))


def _moment(epoch: float | None) -> datetime | None:
    return None if epoch is None else datetime.fromtimestamp(epoch, UTC)
