"""What PostgreSQL and SQLite do alike: which statement when, and what its rows mean.

The subclasses own the text of the statements and how a batch becomes parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

from django.db import connections, transaction

from durable_workflows.core import recovery, states, waits
from durable_workflows.core.admission import Load, allowance
from durable_workflows.core.records import (
    Claim,
    Ended,
    Entry,
    OutcomeEntry,
    QueueView,
    Rescued,
    StepEntry,
    StepRecord,
    Verdict,
    WaitEntry,
)
from durable_workflows.store.base import Answer, Store
from durable_workflows.store.session import Borrowed, Owned

Plan = list[tuple[str, int, str]]  # queue, how many at most, of which status ("" is any)


class SQLStore(Store):
    def __init__(self, session: Borrowed | Owned):
        self.session = session

    # -- where -------------------------------------------------------------

    def close(self) -> None:
        self.session.close()

    def in_transaction(self) -> bool:
        blocks = connections[self.session.using].atomic_blocks
        return any(not block._from_testcase for block in blocks)

    def atomic(self) -> AbstractContextManager[None]:
        return transaction.atomic(using=self.session.using)

    def on_commit(self, act: Callable[[], None]) -> None:
        transaction.on_commit(act, using=self.session.using, robust=True)

    # -- running -----------------------------------------------------------

    def _plan(
        self, execute: Callable[..., Any], worker: int, queues: Sequence[QueueView], asked: int
    ) -> Plan:
        """Return how many may be taken where; locks the rows of queues with limits."""
        limited = [queue.name for queue in queues if queue.limited]
        loads: dict[str, Load] = {}
        if limited:
            limited = self._lock_queues(execute, limited)
            held = {queue.name for queue in queues if queue.hold}
            loads = self._loads(execute, worker, limited, held)
        plan: Plan = []
        for queue in queues:
            if queue.limited and queue.name not in loads:
                continue  # nothing ready there when the rows were locked
            plan += _places(queue, loads.get(queue.name, Load()), asked)
        return plan

    def _lock_queues(self, execute: Callable[..., Any], names: list[str]) -> list[str]:
        raise NotImplementedError

    def _loads(
        self, execute: Callable[..., Any], worker: int, names: list[str], held: set[str]
    ) -> dict[str, Load]:
        raise NotImplementedError

    def _with_history(self, claims: list[Claim]) -> list[Claim]:
        """Add recorded steps and ended awaited workflows to those that have run before.

        In a statement after the claim: in the claim's own snapshot a workflow that was
        released meanwhile would come with its new row and its old steps.
        """
        again = [claim for claim in claims if claim.attempt > 1]
        if not again:
            return claims
        steps: dict[int, dict[int, StepRecord]] = {}
        for id, *record in self._read_steps([claim.id for claim in again]):
            steps.setdefault(id, {})[record[0]] = StepRecord(*record)
        awaited = {claim.id: waits.named(waits.decode(claim.waits)) for claim in again}
        names = set().union(*awaited.values())
        ended = self.ended(sorted(names)) if names else {}
        for claim in again:
            claim.steps.update(steps.get(claim.id, {}))
            claim.ended.update({one: ended[one] for one in awaited[claim.id] if one in ended})
        return claims

    def _read_steps(self, ids: list[int]) -> Iterable[tuple[Any, ...]]:
        raise NotImplementedError

    # -- what 0 rows mean ---------------------------------------------------

    def _answers(self, entries: Sequence[Entry], recorded: set[Any]) -> list[Answer]:
        """Look one by one at the entries that changed no row."""
        answers: list[Answer] = []
        for entry in entries:
            if _key(entry) in recorded:
                answers.append(Verdict.RECORDED)
            elif isinstance(entry, StepEntry):
                answers.append(self._step_answer(entry))
            else:
                answers.append(self._row_answer(entry))
        return answers

    def _step_answer(self, entry: StepEntry) -> Answer:
        row = self._read_step(entry.id, entry.position)
        if row is None:
            return self._row_answer(entry)
        record = StepRecord(*row)
        mine = record.attempt == entry.attempt and (record.name, record.kind) == (
            entry.name,
            entry.kind,
        )
        # A run with my attempt exists once: the row is mine, its COMMIT's answer was lost.
        return Verdict.RECORDED if mine else record

    def _row_answer(self, entry: Entry) -> Verdict:
        row = self._read_fence(entry.id)
        if row is None:
            return Verdict.LOST
        attempt, worker, status = row
        if attempt == entry.attempt and status == states.CANCELLED:
            return Verdict.CANCELLED
        if attempt == entry.attempt and worker == entry.worker and status == states.PENDING:
            return Verdict.LOCKED
        match entry:
            case OutcomeEntry() if attempt == entry.attempt and status in (
                states.SUCCESS,
                states.ERROR,
            ):
                return Verdict.RECORDED
            case WaitEntry(keeps=False) if attempt > entry.attempt or (
                attempt == entry.attempt and worker is None
            ):
                return Verdict.RECORDED
        return Verdict.LOST

    def _read_step(self, id: int, position: int) -> tuple[Any, ...] | None:
        raise NotImplementedError

    def _read_fence(self, id: int) -> tuple[int, int | None, str] | None:
        raise NotImplementedError

    # -- dead workers and time ----------------------------------------------

    def rescue(
        self,
        limits: dict[str, int | None],
        limit: int | None,
        batch: int,
        *,
        now: datetime | None = None,
    ) -> list[Rescued]:
        def work(execute: Callable[..., Any]) -> list[Rescued]:
            instant, found = self._stranded(execute, batch, now)
            changes, rescued = [], []
            for id, workflow_id, name, recoveries, waiting, parent, progressed in found:
                verdict = recovery.verdict(
                    recoveries=recoveries,
                    progressed=bool(progressed),
                    limit=limits.get(name, limit),
                )
                given_up = isinstance(verdict, recovery.GiveUp)
                rest = None if given_up else verdict.delay or None  # type: ignore[union-attr]
                table = waits.decode(waiting)
                table.pop(waits.RESTING, None)
                if rest:
                    table[waits.RESTING] = waits.Wait("rest", until=instant + rest)
                status = states.GIVEN_UP if given_up else states.PENDING
                changes.append((id, status, verdict.recoveries, waits.encode(table), rest))
                rescued.append(
                    Rescued(id, workflow_id, name, verdict.recoveries, given_up, parent)
                )
            if changes:
                self._hand_on(execute, changes, now)
            return rescued

        return self.session.unit(work)

    def wake_due(self, batch: int, *, now: datetime | None = None) -> int:
        def work(execute: Callable[..., Any]) -> tuple[int, list[int]]:
            instant, due = self._due(execute, batch, now)
            tables = [(id, status, waits.decode(text), since) for id, status, text, since in due]
            names = set().union(*(waits.named(table) for _, _, table, _ in tables))
            ended = self._ended(execute, sorted(names)) if names else {}
            changes, pushed = [], []
            for id, status, table, since in tables:
                after = states.ENQUEUED if status == states.DELAYED else status
                if waits.fulfilled(table, now=instant, ended=ended):
                    changes.append((id, after, None))
                else:
                    changes.append((id, after, waits.next_look(table, now=instant, waited=instant - since)))
                    pushed.append(id)
            if changes:
                self._set_wake(execute, changes, now)
            return len(due), pushed

        seen, pushed = self.session.unit(work)
        if pushed:
            # A producer's look skipped these rows while they were locked here.
            self.look(pushed, now=now)
        return seen

    def ended(self, workflow_ids: Sequence[str]) -> dict[str, Ended]:
        return self._ended(self.session.execute, workflow_ids)

    def _stranded(
        self, execute: Callable[..., Any], batch: int, now: datetime | None
    ) -> tuple[float, list[tuple[Any, ...]]]:
        raise NotImplementedError

    def _hand_on(
        self, execute: Callable[..., Any], changes: list[tuple[Any, ...]], now: datetime | None
    ) -> None:
        raise NotImplementedError

    def _due(
        self, execute: Callable[..., Any], batch: int, now: datetime | None
    ) -> tuple[float, list[tuple[Any, ...]]]:
        raise NotImplementedError

    def _set_wake(
        self, execute: Callable[..., Any], changes: list[tuple[Any, ...]], now: datetime | None
    ) -> None:
        raise NotImplementedError

    def _ended(
        self, execute: Callable[..., Any], workflow_ids: Sequence[str]
    ) -> dict[str, Ended]:
        raise NotImplementedError


def _places(queue: QueueView, load: Load, asked: int) -> Plan:
    new = 0 if queue.paused else allowance(queue, load, asked)
    if queue.hold and queue.limited:
        # Whoever waits on a holding queue keeps its place, so it needs none to go on.
        going_on, fresh = asked, new
    elif queue.paused:
        going_on, fresh = allowance(queue, load, asked), 0
    else:
        return [(queue.name, new, "")] if new else []
    plan = [(queue.name, going_on, states.PENDING), (queue.name, fresh, states.ENQUEUED)]
    return [place for place in plan if place[1]]


def _key(entry: Entry) -> Any:
    return (entry.id, entry.position) if isinstance(entry, StepEntry) else entry.id


def instant(epoch: float | None) -> datetime | None:
    return None if epoch is None else datetime.fromtimestamp(epoch, UTC)
