"""What PostgreSQL and SQLite do alike: which statement when, and what its rows mean.

The subclasses own the text of the statements, whose parameters come in the same order
in both, and how a batch becomes parameters: an array per column, or rows as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime
from typing import Any, TypeVar

from django.db import connections, transaction

from durable_workflows.core import recovery, states, waits
from durable_workflows.core.admission import Load
from durable_workflows.core.records import (
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
from durable_workflows.errors import QueueDeduplicated, StepIdleTooLong, WrongPlace
from durable_workflows.models import Workflow, WorkflowQuerySet
from durable_workflows.store.base import (
    Answer,
    Fence,
    Plan,
    Store,
    answer,
    attributes_text,
    by_kind,
    places,
)
from durable_workflows.store.session import Borrowed, Owned, Statement

E = TypeVar("E", StepEntry, OutcomeEntry, WaitEntry)
Execute = Callable[..., Any]
Dump = Callable[[Sequence[Any]], str]
Part = tuple[str, list[Any]]  # of a batch: the name of a statement and its parameters

ENDED_ROW = -1  # stands for the position where steps and ended workflows come in one answer

FINAL = "('SUCCESS', 'ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')"
READY = "w.worker_id IS NULL AND w.wake_at IS NULL AND w.status IN ('ENQUEUED', 'PENDING')"

# Of the invariant: a row that is not final is owned by a live worker, ready, or has a wake_at.
AUDIT = """
SELECT w.workflow_id, CASE
    WHEN w.worker_id IS NOT NULL AND w.status <> 'PENDING' THEN 'owned, but ' || w.status
    WHEN w.worker_id IS NOT NULL THEN 'owned by worker ' || w.worker_id || ', which is not live'
    ELSE w.status || ', neither owned nor ready, and nothing will wake it' END
FROM {workflow} w
WHERE (w.worker_id IS NOT NULL AND (w.status <> 'PENDING' OR NOT EXISTS (
          SELECT 1 FROM {worker} k WHERE k.id = w.worker_id AND k.state = 'live')))
   OR (w.worker_id IS NULL AND w.status = 'DELAYED' AND w.wake_at IS NULL)
"""
BUSY = f"""
SELECT EXISTS (SELECT 1 FROM {{workflow}} w WHERE {READY})
    OR EXISTS (SELECT 1 FROM {{workflow}} w WHERE w.worker_id IS NOT NULL)
"""


def named(statements: dict[str, Any], **tables: str) -> dict[str, str]:
    """Put the table names into a module's statements and the common ones, once."""
    return {
        name: text.format(**tables)
        for name, text in {"AUDIT": AUDIT, "BUSY": BUSY, **statements}.items()
        if name.isupper() and isinstance(text, str)
    }


BROKEN = (
    "The body of an atomic step caught a database error that had broken its transaction. "
    "Put the failing part into a transaction.atomic() of its own."
)


class SQLStore(Store):
    # How the values of one column travel in one parameter.
    ints: Dump
    texts: Dump

    def __init__(self, session: Borrowed | Owned, sql: dict[str, str]):
        self.session, self.sql = session, sql

    def _rows(self, rows: Sequence[Sequence[Any]], *columns: Dump) -> list[str]:
        """Return rows as parameters; `columns` tells the kind of each, self.ints or self.texts."""
        raise NotImplementedError

    @staticmethod
    def _moment(value: Any) -> datetime | None:
        """Return an instant as the statements select it."""
        raise NotImplementedError

    # -- where -------------------------------------------------------------

    def give_up(self) -> None:
        if isinstance(self.session, Owned):
            self.session.closing.set()

    def close(self) -> None:
        self.session.close()

    def hang_up(self) -> None:
        connection = connections[self.session.using]
        if not connection.in_atomic_block:
            connection.close()

    def version(self) -> str:
        return str(self.session.execute(self.sql["VERSION"]).rows[0][0])

    def openings(self) -> int:
        return self.session.openings if isinstance(self.session, Owned) else 0

    def in_transaction(self) -> bool:
        blocks = connections[self.session.using].atomic_blocks
        return bool(blocks) and not all(_is_testcases(block) for block in blocks)

    def in_test(self) -> bool:
        blocks = connections[self.session.using].atomic_blocks
        return any(_is_testcases(block) for block in blocks)

    def transaction(self) -> AbstractContextManager[None]:
        if self.session.owned:
            # Its statements would run outside, on SQLite even wait for it for ever.
            raise TypeError("A transaction block is for the store of the caller's connection.")
        return transaction.atomic(using=self.session.using)

    @contextmanager
    def atomic_step(self, max_idle: float) -> Iterator[None]:
        connection = connections[self.session.using]
        with ExitStack() as stack:
            stack.callback(_drop_if_lost, connection)
            for alias in connections:
                if alias != self.session.using:
                    stack.enter_context(connections[alias].execute_wrapper(_refuse_writes))
            stack.enter_context(transaction.atomic(using=self.session.using))
            stack.enter_context(connection.execute_wrapper(_refuse_to_end))
            raw, depth = connection.connection, len(connection.atomic_blocks)
            self._limit_idle(max_idle)
            try:
                yield
            except Exception as error:
                if self._was_idle_too_long(error):
                    raise StepIdleTooLong(max_idle) from error
                if self._was_broken(error):
                    raise WrongPlace(BROKEN) from error
                raise
            if connection.connection is not raw or len(connection.atomic_blocks) != depth:
                raise WrongPlace(
                    "The body of an atomic step closed the connection or the transaction it runs "
                    "in. Leave both to the step, or use a plain @step."
                )
            if connection.needs_rollback:
                raise WrongPlace(BROKEN)

    def _was_idle_too_long(self, error: BaseException) -> bool:
        """Return whether an error says that the database ended an idle transaction."""
        return False

    def _was_broken(self, error: BaseException) -> bool:
        """Return whether an error only says that an earlier one has broken the transaction."""
        return False

    def undid(self, error: Exception) -> bool:
        cause: BaseException | None = error
        while cause is not None:
            if self._was_undone(cause):
                return True
            cause = cause.__cause__
        return False

    def _was_undone(self, error: BaseException) -> bool:
        raise NotImplementedError

    def _limit_idle(self, max_idle: float) -> None:
        """End the transaction by itself if it stays idle so long, where the database can."""

    def close_left_open(self) -> str | None:
        for connection in connections.all(initialized_only=True):
            if (
                connection.connection is not None
                and not connection.in_atomic_block
                and _has_open_transaction(connection)
            ):
                connection.close()
                return str(connection.alias)
        return None

    def autocommits(self) -> bool:
        return self.session.owned or connections[self.session.using].get_autocommit()

    def on_commit(self, act: Callable[[], None]) -> None:
        transaction.on_commit(act, using=self.session.using, robust=True)

    # -- starting ----------------------------------------------------------

    def create(self, rows: Sequence[NewWorkflow], *, now: datetime | None = None) -> list[Created]:
        inserted = self.session.execute(*self._insertion("CREATE", rows, now)).rows
        made = {workflow_id: id for id, workflow_id in inserted}
        missing = [row.workflow_id for row in rows if row.workflow_id not in made]
        known: list[tuple[Any, ...]] = []
        if missing:
            known = self.session.execute(self.sql["THERE"], [self.texts(missing)]).rows
        there = {row[1]: Created(row[0], row[1], row[2], False) for row in known}
        for row in rows:
            if row.workflow_id not in made and row.workflow_id not in there:
                raise self._deduplicated(row)
        return [
            Created(made[row.workflow_id], row.workflow_id, row.name, True)
            if row.workflow_id in made
            else there[row.workflow_id]
            for row in rows
        ]

    def _deduplicated(self, row: NewWorkflow) -> QueueDeduplicated:
        taken = row.options.deduplication_id or ""
        return QueueDeduplicated(row.workflow_id, row.queue, taken, self.holder(row.queue, taken))

    def add(self, rows: Sequence[NewWorkflow], *, now: datetime | None = None) -> None:
        self.session.execute(*self._insertion("ADD", rows, now))

    def _insertion(self, verb: str, rows: Sequence[NewWorkflow], now: datetime | None) -> Statement:
        if len(rows) == 1:
            values = new_row(rows[0])
            return self.sql[verb], [*values[:6], now, *values[6:], now, now]
        return self.sql[f"{verb}_MANY"], [now, now, now, *self._new_rows(rows)]

    def _new_rows(self, rows: Sequence[NewWorkflow]) -> list[str]:
        t, i = self.texts, self.ints
        columns = (t, t, t, t, i, t, i, i, t, t, i, i, t, t, t)
        return self._rows([new_row(row) for row in rows], *columns)

    # -- running -----------------------------------------------------------

    def claim_one(
        self, workflow_id: str, worker: int, executor_id: str, *, now: datetime | None = None
    ) -> Claim | None:
        params = [worker, executor_id, now, now, now, workflow_id]
        rows = self.session.execute(self.sql["CLAIM_ONE"], params).rows
        return self._with_history([Claim(*rows[0])])[0] if rows else None

    def write(
        self, entries: Sequence[Entry], *, patient: bool = False, now: datetime | None = None
    ) -> list[Answer] | None:
        steps, starts, outcomes, waits = by_kind(entries)
        impatient = "" if not patient else "_PATIENT"
        parts: list[Part] = []
        # Sorted by id: two batches that meet lock the same rows in the same order.
        if steps:
            parts.append(("STEPS", [*self._step_rows(by_id(steps)), now]))
        if starts:
            parts += self._starts(by_id(starts), now)
        if outcomes:
            rows = self._outcome_rows(by_id(outcomes))
            parts.append(("OUTCOMES" + impatient, [*rows, now, now]))
        if waits:
            rows = self._wait_rows(by_id(waits))
            parts.append(("WAITS" + impatient, [*rows, now, now]))
        results = self.session.batch(
            [(self.sql[name], values) for name, values in self._joined(parts)]
        )
        if sum(len(result.rows) for result in results) == len(entries):
            return None
        recorded = {
            row if len(row) == 2 and row[1] != ENDED_ROW else row[0]
            for result in results
            for row in result.rows
        }
        return self._answers(entries, recorded)

    def _joined(self, parts: list[Part]) -> list[Part]:
        """Return the parts of a batch, some of them as one statement."""
        return parts

    def _starts(self, entries: list[StepEntry], now: datetime | None) -> list[Part]:
        raise NotImplementedError

    def _step_rows(self, entries: list[StepEntry]) -> list[str]:
        raise NotImplementedError

    def _outcome_rows(self, entries: list[OutcomeEntry]) -> list[str]:
        raise NotImplementedError

    def _wait_rows(self, entries: list[WaitEntry]) -> list[str]:
        raise NotImplementedError

    def guard_step(self, id: int, attempt: int, worker: int) -> bool:
        return bool(self.session.execute(self.sql["GUARD"], [id, attempt, worker]).rows)

    def _plan(self, execute: Execute, worker: int, queues: Sequence[QueueView], asked: int) -> Plan:
        """Return how many may be taken where; locks the rows of queues with limits."""
        limited = [queue.name for queue in queues if queue.limited]
        self.passed_over = False
        loads: dict[str, Load] = {}
        if limited:
            limited = self._lock_queues(execute, limited)
            held = {queue.name for queue in queues if queue.hold}
            loads = self._loads(execute, worker, limited, held)
        plan: Plan = []
        for queue in queues:
            if queue.limited and queue.name not in loads:
                continue  # nothing ready there when the rows were locked
            plan += places(queue, loads.get(queue.name, Load()), asked)
        return plan

    def _lock_queues(self, execute: Execute, names: list[str]) -> list[str]:
        """Return those that have ready workflows and are ours now; note whether others were not."""
        rows = execute(self.sql["LOCK_QUEUES"], [self.texts(names)]).rows
        self.passed_over = not all(locked for _, locked in rows)
        return [name for name, locked in rows if locked]

    def _loads(
        self, execute: Execute, worker: int, names: list[str], held: set[str]
    ) -> dict[str, Load]:
        loads = dict.fromkeys(names, Load())
        rows: list[tuple[Any, ...]] = []
        if free := [name for name in names if name not in held]:
            rows += execute(self.sql["LOADS"], [worker, self.texts(free)]).rows
        if holding := [name for name in names if name in held]:
            text = self.texts(holding)
            rows += execute(self.sql["HELD"], [worker, text, text]).rows
        loads.update({name: Load(*counts) for name, *counts in rows})
        return loads

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
        return self.session.execute(self.sql["HISTORY"], [self.ints(ids)]).rows

    # -- what 0 rows mean ---------------------------------------------------

    def _answers(self, entries: Sequence[Entry], recorded: set[Any]) -> list[Answer]:
        """Look one by one at the entries that changed no row."""
        answers: list[Answer] = []
        for entry in entries:
            if _key(entry) in recorded:
                answers.append(Verdict.RECORDED)
                continue
            record = self.recorded(entry.id, entry.position) if type(entry) is StepEntry else None
            fence = self._read_fence(entry.id) if record is None else None
            answers.append(answer(entry, record, fence))
        return answers

    def _read_fence(self, id: int) -> Fence | None:
        rows = self.session.execute(self.sql["READ_FENCE"], [id]).rows
        return rows[0] if rows else None

    # -- reading -----------------------------------------------------------

    def recorded(self, id: int, position: int) -> StepRecord | None:
        rows = self.session.execute(self.sql["READ_STEP"], [id, position]).rows
        return StepRecord(*rows[0]) if rows else None

    def ended(self, workflow_ids: Sequence[str]) -> dict[str, Ended]:
        return self._ended(self.session.execute, workflow_ids)

    def _ended(self, execute: Execute, workflow_ids: Sequence[str]) -> dict[str, Ended]:
        rows = execute(self.sql["ENDED"], [self.texts(workflow_ids)]).rows
        return {workflow_id: Ended(*row) for workflow_id, *row in rows}

    def holder(self, queue: str, deduplication_id: str) -> str | None:
        rows = self.session.execute(self.sql["HOLDER"], [queue, deduplication_id]).rows
        return str(rows[0][0]) if rows else None

    def behind(self, queue: str, workflow_ids: Sequence[str]) -> set[str]:
        params = [self.texts(workflow_ids), queue]
        return {one for (one,) in self.session.execute(self.sql["BEHIND"], params).rows}

    def status(self, workflow_id: str) -> StatusRow | None:
        rows = self.session.execute(self.sql["STATUS"], [workflow_id]).rows
        if not rows:
            return None
        values = list(rows[0])
        for place in (7, 8, 12, 20, 21, 22):
            values[place] = self._moment(values[place])
        values[23] = None if values[23] is None else json.loads(values[23])
        return StatusRow(*values)

    def now(self) -> float:
        return float(self.session.execute(self.sql["CLOCK"]).rows[0][0])

    # -- workers -----------------------------------------------------------

    def enlist(self, facts: WorkerFacts, lease: float, *, now: datetime | None = None) -> int:
        params = [facts.kind, facts.host, facts.pid, facts.app_version, facts.queues, facts.backend]
        rows = self.session.execute(self.sql["ENLIST"], [*params, lease, now, now]).rows
        return int(rows[0][0])

    def discharge(self, worker: int, *, now: datetime | None = None) -> None:
        self.session.execute(self.sql["DISCHARGE"], [worker])

    def owned(self, worker: int) -> list[int]:
        return [id for (id,) in self.session.execute(self.sql["OWNED"], [worker]).rows]

    def count_owned(self, worker: int) -> int:
        return int(self.session.execute(self.sql["COUNT_OWNED"], [worker]).rows[0][0])

    def release(self, worker: int, ids: Sequence[int], *, now: datetime | None = None) -> int:
        return self.session.execute(self.sql["RELEASE"], [now, self.ints(ids), worker]).rowcount

    def fates(self, ids: Sequence[int]) -> dict[int, str]:
        return dict(self.session.execute(self.sql["FATES"], [self.ints(ids)]).rows)

    # -- people ------------------------------------------------------------

    def cancel(self, workflow_ids: Sequence[str]) -> int:
        return self._people(workflow_ids).cancel()

    def resume(self, workflow_ids: Sequence[str]) -> int:
        return self._people(workflow_ids).resume()

    def _people(self, workflow_ids: Sequence[str]) -> WorkflowQuerySet:
        rows = Workflow.objects.using(self.session.using)
        return rows.filter(workflow_id__in=list(workflow_ids))

    # -- dead workers and time ----------------------------------------------

    def rescue(
        self,
        limits: dict[str, int | None],
        limit: int | None,
        batch: int,
        *,
        now: datetime | None = None,
    ) -> list[Rescued]:
        def work(execute: Execute) -> list[Rescued]:
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
                rescued.append(Rescued(id, workflow_id, name, verdict.recoveries, given_up, parent))
            if changes:
                self._hand_on(execute, changes, now)
            return rescued

        return self.session.unit(work)

    def wake_due(self, batch: int, *, now: datetime | None = None) -> int:
        def work(execute: Execute) -> tuple[int, list[int]]:
            instant, due = self._due(execute, batch, now)
            tables = [(id, status, waits.decode(text), since) for id, status, text, since in due]
            names = set().union(*(waits.named(table) for _, _, table, _ in tables))
            ended = self._ended(execute, sorted(names)) if names else {}
            changes: list[tuple[Any, ...]] = []
            pushed = []
            for id, status, table, since in tables:
                after = states.ENQUEUED if status == states.DELAYED else status
                if waits.fulfilled(table, now=instant, ended=ended):
                    changes.append((id, after, None))
                else:
                    again = waits.next_look(table, now=instant, waited=instant - since)
                    changes.append((id, after, again))
                    pushed.append(id)
            if changes:
                self._set_wake(execute, changes, now)
            return len(due), pushed

        seen, pushed = self.session.unit(work)
        if pushed:
            # A producer's look skipped these rows while they were locked here.
            self.look(pushed, now=now)
        return seen

    def _stranded(
        self, execute: Execute, batch: int, now: datetime | None
    ) -> tuple[float, list[tuple[Any, ...]]]:
        rows = execute(self.sql["STRANDED"], [now, batch]).rows
        return (rows[0][7] if rows else 0.0), [row[:7] for row in rows]

    def _hand_on(
        self, execute: Execute, changes: list[tuple[Any, ...]], now: datetime | None
    ) -> None:
        t, i = self.texts, self.ints
        execute(self.sql["HAND_ON"], [now, now, now, *self._rows(changes, i, t, i, t, i)])

    def _due(
        self, execute: Execute, batch: int, now: datetime | None
    ) -> tuple[float, list[tuple[Any, ...]]]:
        rows = execute(self.sql["DUE"], [now, now, batch]).rows
        return (rows[0][4] if rows else 0.0), [row[:4] for row in rows]

    def _set_wake(
        self, execute: Execute, changes: list[tuple[Any, ...]], now: datetime | None
    ) -> None:
        execute(self.sql["SET_WAKE"], [now, *self._rows(changes, self.ints, self.texts, self.ints)])

    def next_due(self, *, now: datetime | None = None) -> float | None:
        seconds = self.session.execute(self.sql["NEXT_DUE"], [now]).rows[0][0]
        return None if seconds is None else float(seconds)

    # -- queues ------------------------------------------------------------

    def queues(self) -> dict[str, QueueView]:
        return {
            name: QueueView(name, concurrency, per_worker, bool(hold), bool(paused))
            for name, concurrency, per_worker, hold, paused in self.session.execute(
                self.sql["QUEUES"]
            ).rows
        }

    def strangers(self, names: Sequence[str], queues: Sequence[str] | None) -> dict[str, int]:
        ours = None if queues is None else self.texts(["", *queues])
        rows = self.session.execute(self.sql["STRANGERS"], [ours, ours, self.texts(names)]).rows
        return dict(rows)

    def declare_queues(self, queues: Iterable[QueueView]) -> None:
        rows = [
            (queue.name, queue.concurrency, queue.worker_concurrency, int(queue.hold))
            for queue in sorted(queues, key=lambda queue: queue.name)
        ]
        if rows:
            params = self._rows(rows, self.texts, self.ints, self.ints, self.ints)
            self.session.execute(self.sql["DECLARE"], params)

    def audit(self, *, now: datetime | None = None) -> list[tuple[str, str]]:
        return [(row[0], row[1]) for row in self.session.execute(self.sql["AUDIT"]).rows]

    def busy(self) -> bool:
        return bool(self.session.execute(self.sql["BUSY"]).rows[0][0])


def _drop_if_lost(connection: Any) -> None:
    """Throw a connection away that was cut, so that the next transaction opens another."""
    if connection.errors_occurred and not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()


def _has_open_transaction(connection: Any) -> bool:
    """Ask the driver; psycopg and sqlite3 know without a query."""
    if not connection.settings_dict["AUTOCOMMIT"]:
        return False  # the project's own rule: a transaction is always open
    info = getattr(connection.connection, "info", None)
    if info is not None:
        return bool(info.transaction_status)
    return bool(getattr(connection.connection, "in_transaction", False))


def _is_testcases(block: Any) -> bool:
    """Return whether an atomic block is the one that Django's TestCase puts around a test."""
    return bool(block._from_testcase)


# The savepoints of nested blocks are fine.
ENDS = re.compile(
    r"\s*(COMMIT|END|ABORT|BEGIN|START\s+TRANSACTION|PREPARE\s+TRANSACTION|ROLLBACK(?!.*\bTO\b))\b",
    re.IGNORECASE | re.DOTALL,
)


def _refuse_to_end(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
    if ENDS.match(COMMENTS.sub(" ", sql)):
        raise WrongPlace(
            f"An atomic step runs {sql.strip()[:40]!r} itself: what it writes and its record must "
            "be one commit. Leave the transaction to the step, or use a plain @step."
        )
    return execute(sql, params, many, context)


COMMENTS = re.compile(r"/\*.*?\*/|--[^\n]*", re.DOTALL)
WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE|MERGE|REPLACE|COPY|TRUNCATE)\b", re.IGNORECASE)
# `WITH … UPDATE t`, but not `WITH … SELECT … FOR UPDATE` or `FOR NO KEY UPDATE`.
WRITES_WITH = re.compile(
    r"\s*WITH\b.*(\b(INSERT|REPLACE|MERGE)\s+INTO\b|\bDELETE\s+FROM\b|"
    r"(?<!\bFOR\s)(?<!\bKEY\s)\bUPDATE\s)",
    re.IGNORECASE | re.DOTALL,
)


def is_write(sql: str) -> bool:
    """Return whether a statement changes rows, as far as its text tells."""
    bare = COMMENTS.sub(" ", sql)
    return bool(WRITES.match(bare) or WRITES_WITH.match(bare))


def _refuse_writes(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
    if is_write(sql):
        raise WrongPlace(
            f"An atomic step writes through the alias {context['connection'].alias!r}, which its "
            "transaction can't roll back. Keep these models on the engine's alias, or use a plain "
            "@step."
        )
    return execute(sql, params, many, context)


def _key(entry: Entry) -> Any:
    return (entry.id, entry.position) if isinstance(entry, StepEntry) else entry.id


def by_id(entries: list[E]) -> list[E]:
    entries.sort(key=lambda entry: entry.id)
    return entries


def new_row(row: NewWorkflow) -> tuple[Any, ...]:
    """Return the values of a new workflow, in the order of the statements' columns."""
    options = row.options
    return (
        row.workflow_id,
        row.name,
        row.status,
        row.queue,
        options.priority,
        row.input,
        options.delay or None,
        options.timeout,
        options.deduplication_id,
        options.partition_key,
        row.parent,
        row.parent_position,
        attributes_text(options.attributes),
        options.user,
        options.app_version,
    )
