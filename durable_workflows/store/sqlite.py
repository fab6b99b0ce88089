"""SQLite: the statements, beside the methods that run them.

One transaction at a time holds the file's write lock and sees nothing uncommitted,
so no row is locked and none is skipped: where PostgreSQL locks, here it is enough
that a verb takes the write lock before it reads. Rows come as one JSON array each.
Instants are UTC text down to the millisecond, which sorts as the instants do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from durable_workflows.core.records import (
    Beat,
    Claim,
    OutcomeEntry,
    QueueView,
    StepEntry,
    WaitEntry,
)
from durable_workflows.store import sqlite_connection
from durable_workflows.store.base import Plan
from durable_workflows.store.session import Borrowed, Owned
from durable_workflows.store.sql import (
    FINAL,
    READY,
    Dump,
    Execute,
    Part,
    SQLStore,
    named,
    new_row,
)

T = TypeVar("T")

FORMAT = "'%Y-%m-%d %H:%M:%f'"
NOW = f"strftime({FORMAT}, COALESCE(?, 'now'))"


def after_now(seconds: str) -> str:
    return f"strftime({FORMAT}, COALESCE(?, 'now'), ({seconds}) || ' seconds')"


def epoch(instant: str) -> str:
    return f"round((julianday({instant}) - 2440587.5) * 86400, 3)"


def rows(*columns: str) -> str:
    """Return a table whose rows are the arrays of one JSON parameter."""
    values = [f"json_extract(value, '$[{place}]') AS {name}" for place, name in enumerate(columns)]
    return f"(SELECT {', '.join(values)} FROM json_each(?))"


EPOCH_NOW = epoch("COALESCE(?, 'now')")
NOTABLE = 0.1  # seconds: a shorter wait for the write lock is everyday
VERSION = "SELECT sqlite_version()"
# A write that changes nothing: a unit on the caller's connection begins with it, since
# Django's BEGIN takes the write lock only where the project asks for it.
TAKE_LOCK = "UPDATE {worker} SET state = state WHERE id IS NULL"

# The columns of a new workflow, in the order of new_row().
NEW = (
    "workflow_id, name, status, queue, priority, input, wake_at, timeout, deduplication_id,"
    " queue_partition_key, parent_id, parent_position, attributes, authenticated_user, app_version,"
    " attempt, recoveries, waits, created_at, updated_at"
)
ADD = f"""
INSERT INTO {{workflow}} ({NEW})
VALUES (?, ?, ?, ?, ?, ?, {after_now("?")}, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, '', {NOW}, {NOW})
"""
# Whatever is unique: an id that is there, or a deduplication id that is taken.
UNLESS_THERE = "ON CONFLICT DO NOTHING RETURNING id, workflow_id"
CREATE = ADD + UNLESS_THERE
NEW_VALUES = f"""n.workflow_id, n.name, n.status, n.queue, n.priority, n.input,
    {after_now("n.delay")}, n.timeout, n.deduplication_id, n.partition_key, n.parent, n.position,
    n.attributes, n.who, n.version, 0, 0, '', {NOW}, {NOW}"""
NEW_COLUMNS = (
    *("workflow_id", "name", "status", "queue", "priority", "input", "delay", "timeout"),
    *("deduplication_id", "partition_key", "parent", "position", "attributes", "who", "version"),
)
# WHERE true: else the parser takes ON CONFLICT for the condition of a join.
ADD_MANY = f"""
INSERT INTO {{workflow}} ({NEW}) SELECT {NEW_VALUES} FROM {rows(*NEW_COLUMNS)} n WHERE true
"""
CREATE_MANY = ADD_MANY + UNLESS_THERE
THERE = """
SELECT id, workflow_id, name FROM {workflow}
WHERE workflow_id IN (SELECT value FROM json_each(?))
"""

CLAIMED = """id, workflow_id, name, queue, input, attempt, worker_id, recoveries, parent_id,
    waits, authenticated_user"""
CLAIM_ONE = f"""
UPDATE {{workflow}}
SET worker_id = ?, attempt = attempt + 1, status = 'PENDING', executor_id = ?, updated_at = {NOW},
    dequeued_at = CASE WHEN queue = '' THEN NULL ELSE COALESCE(dequeued_at, {NOW}) END,
    deadline = COALESCE(deadline, {after_now("timeout")})
WHERE id = (SELECT w.id FROM {{workflow}} w WHERE w.workflow_id = ? AND {READY})
RETURNING {CLAIMED}
"""
# Before the write lock is taken: an idle worker's polling must not hold up who writes.
ANY_READY = f"""
SELECT EXISTS (SELECT 1 FROM json_each(?) q WHERE EXISTS (
    SELECT 1 FROM {{workflow}} w WHERE w.queue = q.value AND {READY}))
"""
LIVE = "SELECT 1 FROM {worker} WHERE id = ? AND state = 'live'"
# Rides dw_ready, one short range per queue.
PICK = f"""
SELECT w.id FROM {{workflow}} w
WHERE w.queue = ? AND {READY} AND ? IN ('', w.status)
  AND w.name IN (SELECT value FROM json_each(?))
ORDER BY w.priority, w.id LIMIT ?
"""
CLAIM = f"""
UPDATE {{workflow}}
SET worker_id = ?, attempt = attempt + 1, status = 'PENDING', executor_id = ?,
    app_version = COALESCE(NULLIF(?, ''), app_version), updated_at = {NOW},
    dequeued_at = CASE WHEN queue = '' THEN NULL ELSE COALESCE(dequeued_at, {NOW}) END,
    deadline = COALESCE(deadline, {after_now("timeout")})
WHERE id IN (SELECT value FROM json_each(?))
RETURNING {CLAIMED}
"""
LOCK_QUEUES = f"""
SELECT q.name, 1 FROM {{queue}} q
WHERE q.name IN (SELECT value FROM json_each(?))
  AND EXISTS (SELECT 1 FROM {{workflow}} w WHERE w.queue = q.name AND {READY})
"""
LOADS = """
SELECT queue, count(*) FILTER (WHERE worker_id = ?), count(*) FROM {workflow}
WHERE worker_id IS NOT NULL AND queue IN (SELECT value FROM json_each(?)) GROUP BY queue
"""
# Those that execute, and those that wait: an index each.
# NOT (queue = ''): a partial index is used where its condition stands as it was made.
HELD = """
SELECT queue, sum(here), sum(held), sum(awake) FROM (
    SELECT queue, count(*) FILTER (WHERE worker_id = ?) AS here, count(*) AS held, 0 AS awake
    FROM {workflow}
    WHERE worker_id IS NOT NULL AND queue IN (SELECT value FROM json_each(?)) GROUP BY queue
    UNION ALL
    SELECT queue, 0, count(*), count(*) FILTER (WHERE wake_at IS NULL) FROM {workflow}
    WHERE status = 'PENDING' AND worker_id IS NULL AND NOT (queue = '')
      AND queue IN (SELECT value FROM json_each(?)) GROUP BY queue
) counted GROUP BY queue
"""
HISTORY = """
SELECT workflow_id, position, name, kind, output, error, child, attempt FROM {step}
WHERE workflow_id IN (SELECT value FROM json_each(?))
"""

# The unary plus keeps the planner from the index on the owner: by key, always.
FENCE = "w.attempt = e.attempt AND +w.worker_id = e.worker AND w.status = 'PENDING'"
STEP_ROWS = rows(
    *("id", "attempt", "worker", "position", "name", "kind"),
    *("output", "error", "child", "tries", "took"),
)
# The key is the guarantee: the first to insert a position wins. The look at the
# workflow row stops a zombie, here as surely, since nobody else writes meanwhile.
STEPS = f"""
INSERT INTO {{step}} (workflow_id, position, name, kind, output, error, child, tries, attempt,
                      started_at, completed_at)
SELECT e.id, e.position, e.name, e.kind, e.output, e.error, e.child, e.tries, e.attempt,
       strftime({FORMAT}, t.now, (-e.took / 1000000.0) || ' seconds'), t.now
FROM {STEP_ROWS} e CROSS JOIN {{workflow}} w ON w.id = e.id AND {FENCE}
CROSS JOIN (SELECT {NOW} AS now) t
WHERE true ON CONFLICT DO NOTHING
RETURNING workflow_id, position
"""
# Runs before STEPS in the same transaction, under the same conditions: where no fresh
# step row will be, no children are made.
CHILDREN = f"""
INSERT INTO {{workflow}} ({NEW})
SELECT {NEW_VALUES} FROM {rows(*NEW_COLUMNS, "attempt", "worker")} n
CROSS JOIN {{workflow}} w ON w.id = n.parent AND {FENCE.replace("e.", "n.")}
WHERE NOT EXISTS (SELECT 1 FROM {{step}} s
                  WHERE s.workflow_id = n.parent AND s.position = n.position)
ON CONFLICT (workflow_id) DO NOTHING
"""
OUTCOMES = f"""
WITH e AS {rows("id", "attempt", "worker", "status", "output", "error")}
UPDATE {{workflow}} AS w
SET status = e.status, output = e.output, error = e.error, worker_id = NULL, wake_at = NULL,
    waits = '', deduplication_id = NULL, completed_at = {NOW}, updated_at = {NOW}
FROM e WHERE w.id = e.id AND {FENCE} RETURNING id
"""
WAITS = f"""
WITH e AS {rows("id", "attempt", "worker", "waits", "seconds", "keeps")}
UPDATE {{workflow}} AS w
SET waits = COALESCE(e.waits, w.waits), worker_id = CASE WHEN e.keeps THEN w.worker_id END,
    wake_at = CASE WHEN e.keeps THEN NULL ELSE {after_now("e.seconds")} END, updated_at = {NOW}
FROM e WHERE w.id = e.id AND {FENCE} RETURNING id
"""
OUTCOMES_PATIENT, WAITS_PATIENT = OUTCOMES, WAITS
# An update, so that the atomic step's transaction holds the write lock from here on:
# no new attempt begins before it has ended.
GUARD = """
UPDATE {workflow} SET attempt = attempt
WHERE id = ? AND attempt = ? AND +worker_id = ? AND status = 'PENDING' RETURNING 1
"""
READ_STEP = """
SELECT position, name, kind, output, error, child, attempt FROM {step}
WHERE workflow_id = ? AND position = ?
"""
READ_FENCE = "SELECT attempt, worker_id, status FROM {workflow} WHERE id = ?"

LOOK = f"""
UPDATE {{workflow}} AS w SET wake_at = NULL, updated_at = {NOW}
WHERE w.id IN (SELECT value FROM json_each(?)) AND w.worker_id IS NULL
  AND +w.wake_at IS NOT NULL AND w.status = 'PENDING'
  AND COALESCE(json_extract(NULLIF(w.waits, ''), '$."0".until') <= {EPOCH_NOW}, 1) AND EXISTS (
    SELECT 1 FROM json_each(NULLIF(w.waits, '')) AS one
    WHERE json_extract(one.value, '$.until') <= {EPOCH_NOW}
       OR EXISTS (SELECT 1 FROM json_each(one.value, '$.what') AS what
                  JOIN {{workflow}} c ON c.workflow_id = what.value AND c.status IN {FINAL}))
"""
ENDED = f"""
SELECT workflow_id, status, output, error FROM {{workflow}}
WHERE workflow_id IN (SELECT value FROM json_each(?)) AND +status IN {FINAL}
"""
HOLDER = "SELECT workflow_id FROM {workflow} WHERE queue = ? AND deduplication_id = ?"
BEHIND = """
SELECT w.workflow_id FROM {workflow} w
WHERE w.workflow_id IN (SELECT value FROM json_each(?)) AND w.queue = ?
  AND +w.status IN ('ENQUEUED', 'DELAYED')
  AND EXISTS (SELECT 1 FROM {queue} q WHERE q.name = w.queue AND q.hold AND q.concurrency = 1)
"""
# The empty string keeps Python from reading the column by its declared type.
STATUS = """
SELECT w.id, w.workflow_id, w.status, w.name, w.input, w.output, w.error,
    w.created_at || '', w.updated_at || '',
    w.app_version, w.executor_id, NULLIF(w.queue, ''), w.dequeued_at || '',
    w.attempt, w.recoveries, w.priority, w.deduplication_id, w.queue_partition_key, w.forked_from,
    p.workflow_id, w.deadline || '', CASE WHEN w.status = 'DELAYED' THEN w.wake_at END || '',
    w.completed_at || '', w.attributes || '', w.authenticated_user
FROM {workflow} w LEFT JOIN {workflow} p ON p.id = w.parent_id WHERE w.workflow_id = ?
"""

CLOCK = f"SELECT {epoch(repr('now'))}"
ENLIST = f"""
INSERT INTO {{worker}} (kind, state, host, pid, app_version, queues, backend, lease_seconds,
                        started_at, beat_at)
VALUES (?, 'live', ?, ?, ?, ?, ?, ?, {NOW}, {NOW}) RETURNING id
"""
BEAT = f"""
UPDATE {{worker}} SET beat_at = {NOW}, backend = COALESCE(?, backend)
WHERE id = ? AND state = 'live'
"""
OWNED_NOW = f"SELECT count(*), {EPOCH_NOW} FROM {{workflow}} WHERE worker_id = ?"
DISCHARGE = "UPDATE {worker} SET state = 'stopped' WHERE id = ? AND state = 'live'"
OWNED = "SELECT id FROM {workflow} WHERE worker_id = ?"
COUNT_OWNED = "SELECT count(*) FROM {workflow} WHERE worker_id = ?"
FATES = "SELECT id, status FROM {workflow} WHERE id IN (SELECT value FROM json_each(?))"
BURY = f"""
UPDATE {{worker}} SET state = 'dead'
WHERE state = 'live' AND beat_at < {after_now("-lease_seconds")}
  AND (lease_seconds > ? OR lease_seconds < ?)
RETURNING id
"""
# The unary plus and the index by name: by its statistics the planner would sometimes read
# the whole table, in the order of ids or where much was owned when it was last analysed.
STRANDED = f"""
SELECT w.id, w.workflow_id, w.name, w.recoveries, w.waits, w.parent_id,
       EXISTS (SELECT 1 FROM {{step}} s WHERE s.workflow_id = w.id AND s.attempt = w.attempt),
       {EPOCH_NOW}
FROM {{workflow}} w INDEXED BY dw_owned
WHERE w.worker_id IS NOT NULL AND w.status = 'PENDING'
  AND NOT EXISTS (SELECT 1 FROM {{worker}} k WHERE k.id = w.worker_id AND k.state = 'live')
ORDER BY +w.id LIMIT ?
"""
HAND_ON = f"""
UPDATE {{workflow}} AS w
SET worker_id = NULL, status = e.status, recoveries = e.recoveries, waits = e.waits,
    wake_at = {after_now("e.rest")}, updated_at = {NOW},
    completed_at = CASE WHEN e.status = 'PENDING' THEN NULL ELSE {NOW} END,
    deduplication_id = CASE WHEN e.status = 'PENDING' THEN w.deduplication_id END
FROM {rows("id", "status", "recoveries", "waits", "rest")} e WHERE w.id = e.id
"""
DUE = f"""
SELECT w.id, w.status, w.waits, {epoch("w.updated_at")}, {EPOCH_NOW}
FROM {{workflow}} w WHERE w.wake_at <= {NOW} AND w.worker_id IS NULL
ORDER BY w.wake_at LIMIT ?
"""
# updated_at stays: it tells since when the row waits.
SET_WAKE = f"""
UPDATE {{workflow}} AS w
SET status = CASE WHEN e.status = 'ENQUEUED' AND w.queue = '' THEN 'PENDING' ELSE e.status END,
    wake_at = {after_now("e.seconds")}
FROM {rows("id", "status", "seconds")} e WHERE w.id = e.id
"""
NEXT_DUE = f"""
SELECT {epoch("min(wake_at)")} - {EPOCH_NOW} FROM {{workflow}} WHERE wake_at IS NOT NULL
"""
RELEASE = f"""
UPDATE {{workflow}} SET worker_id = NULL, wake_at = NULL, updated_at = {NOW}
WHERE id IN (SELECT value FROM json_each(?)) AND +worker_id = ? AND status = 'PENDING'
"""
QUEUES = f"""
WITH RECURSIVE seen(queue) AS (
    SELECT (SELECT w.queue FROM {{workflow}} w WHERE {READY} ORDER BY w.queue LIMIT 1)
    UNION ALL
    SELECT (SELECT w.queue FROM {{workflow}} w WHERE {READY} AND w.queue > seen.queue
            ORDER BY w.queue LIMIT 1)
    FROM seen WHERE seen.queue IS NOT NULL
)
SELECT name, concurrency, worker_concurrency, hold, paused FROM {{queue}}
UNION ALL
SELECT queue, NULL, NULL, 0, 0 FROM seen
WHERE queue IS NOT NULL AND NOT EXISTS (SELECT 1 FROM {{queue}} q WHERE q.name = seen.queue)
"""
STRANGERS = f"""
SELECT name, count(*) FROM (
    SELECT w.name FROM {{workflow}} w
    WHERE {READY} AND (? IS NULL OR w.queue IN (SELECT value FROM json_each(?))) LIMIT 10000
) ready
WHERE name NOT IN (SELECT value FROM json_each(?)) GROUP BY name
"""
DECLARE = f"""
INSERT INTO {{queue}} (name, concurrency, worker_concurrency, hold, paused)
SELECT d.name, d.concurrency, d.worker_concurrency, d.hold, 0
FROM {rows("name", "concurrency", "worker_concurrency", "hold")} d WHERE true
ON CONFLICT (name) DO UPDATE SET concurrency = excluded.concurrency,
    worker_concurrency = excluded.worker_concurrency, hold = excluded.hold
WHERE concurrency IS NOT excluded.concurrency OR hold IS NOT excluded.hold
   OR worker_concurrency IS NOT excluded.worker_concurrency
"""

encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class SQLiteStore(SQLStore):
    pens = 1  # a second one would only wait for its turn
    ints = texts = staticmethod(encode)

    def __init__(self, session: Borrowed | Owned, sql: dict[str, str]):
        super().__init__(session, sql)
        self._blocked, self._free_since = 0.0, 0.0

    @classmethod
    def on(cls, using: str, **tables: str) -> SQLiteStore:
        sql = named(globals(), **tables)
        return cls(Borrowed(using, sqlite_connection.execute, opening=sql["TAKE_LOCK"]), sql)

    def dedicated(self) -> SQLiteStore:
        return SQLiteStore(Owned(self.session.using, sqlite_connection), self.sql)

    # -- running -----------------------------------------------------------

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
        def work(execute: Execute) -> list[Claim]:
            if not execute(self.sql["LIVE"], [worker]).rows:
                return []
            ids = self._pick(execute, self._plan(execute, worker, queues, asked), names, asked)
            if not ids:
                return []
            params = [worker, executor_id, app_version, now, now, now, encode(ids)]
            taken = {row[0]: row for row in execute(self.sql["CLAIM"], params).rows}
            return [Claim(*taken[id]) for id in ids]

        places = encode([queue.name for queue in queues])
        if not self.session.execute(self.sql["ANY_READY"], [places]).rows[0][0]:
            return []
        return self._with_history(self.session.unit(work))

    def _pick(self, execute: Execute, plan: Plan, names: Sequence[str], asked: int) -> list[int]:
        ids: list[int] = []
        for queue, room, status in plan:
            room = min(room, asked - len(ids))
            params = [queue, status, encode(names), room]
            ids += [id for (id,) in execute(self.sql["PICK"], params).rows]
            if len(ids) == asked:
                break
        return ids

    def _was_undone(self, error: BaseException) -> bool:
        return isinstance(error, Exception) and sqlite_connection.is_retryable(error)

    def _starts(self, entries: list[StepEntry], now: datetime | None) -> list[Part]:
        children = [
            (*new_row(child), entry.attempt, entry.worker)
            for entry in entries
            for child in entry.children
        ]
        return [
            ("CHILDREN", [now, now, now, encode(children)]),
            ("STEPS", [*self._step_rows(entries), now]),
        ]

    def look(self, ids: Sequence[int], *, now: datetime | None = None) -> tuple[int, int]:
        looked = self.session.batch([(self.sql["LOOK"], [now, encode(ids), now, now])])
        return looked[0].rowcount, 0

    # -- workers -----------------------------------------------------------

    def beat(self, worker: int, *, backend: str | None = None, now: datetime | None = None) -> Beat:
        def work(execute: Execute) -> Beat:
            renewed = execute(self.sql["BEAT"], [now, backend, worker]).rowcount
            owned, moment = execute(self.sql["OWNED_NOW"], [now, worker]).rows[0]
            return Beat(bool(renewed), owned, moment)

        return self._timed(work)

    def bury(self, *, now: datetime | None = None) -> list[int]:
        def work(execute: Execute) -> list[int]:
            # While this process could not write nobody could: whoever's lease may have
            # run out by that gets one whole lease to renew it.
            free_for = time.monotonic() - self._free_since
            params = [now, 2 * self._blocked, free_for]
            return [id for (id,) in execute(self.sql["BURY"], params).rows]

        return self._timed(work)

    def _timed(self, work: Callable[[Execute], T]) -> T:
        """Run `work` as a transaction, and remember for how long it had to wait for its turn."""

        def begun(execute: Execute) -> T:
            now = time.monotonic()
            waited = now - asked
            if waited > NOTABLE:
                fresh = now - self._free_since < 2 * self._blocked
                self._blocked = max(waited, self._blocked) if fresh else waited
                self._free_since = now
            return work(execute)

        asked = time.monotonic()
        return self.session.unit(begun)

    # -- rows as JSON ------------------------------------------------------

    def _rows(self, rows: Sequence[Sequence[Any]], *columns: Dump) -> list[str]:
        return [encode(rows)]

    @staticmethod
    def _moment(value: str | None) -> datetime | None:
        return None if value is None else datetime.fromisoformat(value).replace(tzinfo=UTC)

    def _step_rows(self, entries: list[StepEntry]) -> list[str]:
        return [
            encode(
                [
                    (
                        *(entry.id, entry.attempt, entry.worker, entry.position),
                        *(entry.name, entry.kind, entry.output, entry.error),
                        *(entry.child, entry.tries, entry.took),
                    )
                    for entry in entries
                ]
            )
        ]

    def _outcome_rows(self, entries: list[OutcomeEntry]) -> list[str]:
        return [
            encode(
                [
                    (entry.id, entry.attempt, entry.worker, entry.status, entry.output, entry.error)
                    for entry in entries
                ]
            )
        ]

    def _wait_rows(self, entries: list[WaitEntry]) -> list[str]:
        return [
            encode(
                [
                    (
                        *(entry.id, entry.attempt, entry.worker),
                        *(entry.waits, entry.seconds, entry.keeps),
                    )
                    for entry in entries
                ]
            )
        ]
