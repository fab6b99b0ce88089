"""PostgreSQL: the statements, beside the methods that run them.

A batch is one statement per kind with an array per column; every statement
reaches the workflow row by its primary key alone. `OFFSET 0` keeps the planner
from pushing the fence's conditions into the look-up, where it would choose the
small index on the owner and pay the square of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from durable_workflows.core.records import (
    Beat,
    Claim,
    OutcomeEntry,
    QueueView,
    StepEntry,
    WaitEntry,
)
from durable_workflows.store import pg_connection
from durable_workflows.store.base import Plan
from durable_workflows.store.pg_connection import ints, texts
from durable_workflows.store.session import Borrowed, Owned
from durable_workflows.store.sql import ENDED_ROW, FINAL, READY, Dump, Part, SQLStore, named

NOW = "COALESCE(%s::timestamptz, clock_timestamp())"

# The columns of a new workflow, in the order of new_row().
NEW = (
    "workflow_id, name, status, queue, priority, input, wake_at, timeout, deduplication_id,"
    " queue_partition_key, parent_id, parent_position, attributes, authenticated_user, app_version,"
    " attempt, recoveries, waits, created_at, updated_at"
)
ADD = f"""
INSERT INTO {{workflow}} ({NEW})
VALUES (%s, %s, %s, %s, %s, %s,
        {NOW} + %s::float8 * interval '1 second', %s::float8, %s, %s, %s::bigint, %s::int,
        %s::jsonb, %s, %s, 0, 0, '', {NOW}, {NOW})
"""
# Whatever is unique: an id that is there, or a deduplication id that is taken.
UNLESS_THERE = "ON CONFLICT DO NOTHING RETURNING id, workflow_id"
CREATE = ADD + UNLESS_THERE
CLAIMED = """w.id, w.workflow_id, w.name, w.queue, w.input, w.attempt, w.worker_id, w.recoveries,
    w.parent_id, w.waits, w.authenticated_user"""
THERE = "SELECT id, workflow_id, name FROM {workflow} WHERE workflow_id = ANY (%s::text[])"
ROWS = """unnest(
        %s::text[], %s::text[], %s::text[], %s::text[], %s::int[], %s::text[], %s::float8[],
        %s::float8[], %s::text[], %s::text[], %s::bigint[], %s::int[], %s::text[], %s::text[],
        %s::text[])
    AS n(workflow_id, name, status, queue, priority, input, delay, timeout, deduplication_id,
         partition_key, parent, position, attributes, who, version)"""
NEW_VALUES = f"""n.workflow_id, n.name, n.status, n.queue, n.priority, n.input,
    {NOW} + n.delay * interval '1 second', n.timeout, n.deduplication_id, n.partition_key,
    n.parent, n.position, n.attributes::jsonb, n.who, n.version, 0, 0, '', {NOW}, {NOW}"""
ADD_MANY = f"INSERT INTO {{workflow}} ({NEW}) SELECT {NEW_VALUES} FROM {ROWS}"
CREATE_MANY = f"{ADD_MANY} {UNLESS_THERE}"

# Rides dw_ready, one short range per queue. FOR UPDATE, not the weaker lock of all
# other moves: an atomic step of an old attempt still holds FOR KEY SHARE, and no new
# attempt may begin before it has ended. SKIP LOCKED: rivals take other rows.
CLAIM = f"""
WITH picked AS MATERIALIZED (
    SELECT w.id
    FROM unnest(%s::text[], %s::int[], %s::text[]) AS q(queue, room, status)
    CROSS JOIN LATERAL (
        SELECT w.id FROM {{workflow}} w
        WHERE w.queue = q.queue AND {READY} AND (q.status = '' OR w.status = q.status)
          AND w.name = ANY (%s::text[])
        ORDER BY w.priority, w.id LIMIT q.room FOR UPDATE SKIP LOCKED
    ) w
    WHERE EXISTS (SELECT 1 FROM {{worker}} k WHERE k.id = %s AND k.state = 'live')
    LIMIT %s
)
UPDATE {{workflow}} w
SET worker_id = %s, attempt = w.attempt + 1, status = 'PENDING', executor_id = %s,
    app_version = COALESCE(NULLIF(%s, ''), w.app_version), updated_at = {NOW},
    dequeued_at = CASE WHEN w.queue = '' THEN NULL ELSE COALESCE(w.dequeued_at, {NOW}) END,
    deadline = COALESCE(w.deadline, {NOW} + w.timeout * interval '1 second')
WHERE w.id = ANY (ARRAY(SELECT id FROM picked))
RETURNING {CLAIMED}, w.priority
"""
CLAIM_ONE = f"""
UPDATE {{workflow}} w
SET worker_id = %s, attempt = w.attempt + 1, status = 'PENDING', executor_id = %s,
    updated_at = {NOW},
    dequeued_at = CASE WHEN w.queue = '' THEN NULL ELSE COALESCE(w.dequeued_at, {NOW}) END,
    deadline = COALESCE(w.deadline, {NOW} + w.timeout * interval '1 second')
WHERE w.id = (SELECT w.id FROM {{workflow}} w WHERE w.workflow_id = %s AND {READY}
              FOR UPDATE SKIP LOCKED)
RETURNING {CLAIMED}
"""
# Locked before anything is counted: the count in the next statement sees what the last
# holder claimed. SKIP LOCKED: somebody's long transaction on one queue must not keep this
# worker from all others.
LOCK_QUEUES = f"""
WITH wanted AS MATERIALIZED (
    SELECT q.id, q.name FROM {{queue}} q
    WHERE q.name = ANY (%s::text[])
      AND EXISTS (SELECT 1 FROM {{workflow}} w WHERE w.queue = q.name AND {READY})
),
locked AS MATERIALIZED (
    SELECT q.id FROM {{queue}} q WHERE q.id = ANY (ARRAY(SELECT id FROM wanted))
    ORDER BY q.id FOR NO KEY UPDATE SKIP LOCKED
)
SELECT w.name, EXISTS (SELECT 1 FROM locked l WHERE l.id = w.id) FROM wanted w
"""
LOADS = """
SELECT queue, count(*) FILTER (WHERE worker_id = %s), count(*) FROM {workflow}
WHERE worker_id IS NOT NULL AND queue = ANY (%s::text[]) GROUP BY queue
"""
# Those that execute, and those that wait: an index each.
HELD = """
SELECT queue, sum(here)::bigint, sum(held)::bigint, sum(awake)::bigint FROM (
    SELECT queue, count(*) FILTER (WHERE worker_id = %s) AS here, count(*) AS held, 0 AS awake
    FROM {workflow} WHERE worker_id IS NOT NULL AND queue = ANY (%s::text[]) GROUP BY queue
    UNION ALL
    SELECT queue, 0, count(*), count(*) FILTER (WHERE wake_at IS NULL) FROM {workflow}
    WHERE status = 'PENDING' AND worker_id IS NULL AND queue <> '' AND queue = ANY (%s::text[])
    GROUP BY queue
) counted GROUP BY queue
"""
HISTORY = """
SELECT workflow_id, position, name, kind, output, error, child, attempt FROM {step}
WHERE workflow_id = ANY (%s::bigint[])
"""

FENCE = """
CROSS JOIN LATERAL (
    SELECT w.attempt, w.worker_id, w.status FROM {workflow} w WHERE w.id = e.id OFFSET 0
) w
WHERE w.attempt = e.attempt AND w.worker_id = e.worker AND w.status = 'PENDING'
"""
# The key is the guarantee: the first to insert a position wins. The look at the
# workflow row is a snapshot that stops a zombie early.
STEPS = f"""
INSERT INTO {{step}} (workflow_id, position, name, kind, output, error, child, tries, attempt,
                      started_at, completed_at)
SELECT e.id, e.position, e.name, e.kind, e.output, e.error, e.child, e.tries, e.attempt,
       t.now - e.took * interval '1 microsecond', t.now
FROM unnest(%s::bigint[], %s::int[], %s::bigint[], %s::int[], %s::text[], %s::text[], %s::text[],
            %s::text[], %s::text[], %s::text[], %s::bigint[])
    AS e(id, attempt, worker, position, name, kind, output, error, child, tries, took)
CROSS JOIN (SELECT {NOW} AS now) t
{FENCE}
ON CONFLICT DO NOTHING
RETURNING workflow_id, position
"""
# No fresh step row, no children.
STARTS = f"""
WITH fresh AS ({STEPS}),
made AS (
    INSERT INTO {{workflow}} ({NEW})
    SELECT {NEW_VALUES} FROM {ROWS}
    JOIN fresh f ON f.workflow_id = n.parent AND f.position = n.position
    ON CONFLICT (workflow_id) DO NOTHING
)
SELECT workflow_id, position FROM fresh
"""
# SKIP LOCKED: a row held by somebody's open transaction must not hold up the other
# outcomes of the batch. The skipped ones are tried again on the side lane, patiently.
TARGETS = """
SELECT e.* FROM e CROSS JOIN LATERAL (
    SELECT w.attempt, w.worker_id, w.status FROM {workflow} w WHERE w.id = e.id
    OFFSET 0 FOR NO KEY UPDATE SKIP LOCKED
) w
WHERE w.attempt = e.attempt AND w.worker_id = e.worker AND w.status = 'PENDING'
"""
OUTCOMES = f"""
WITH e AS (SELECT * FROM unnest(%s::bigint[], %s::int[], %s::bigint[], %s::text[], %s::text[],
                                %s::text[]) AS e(id, attempt, worker, status, output, error)),
t AS MATERIALIZED ({TARGETS})
UPDATE {{workflow}} w
SET status = t.status, output = t.output, error = t.error, worker_id = NULL, wake_at = NULL,
    waits = '', deduplication_id = NULL, completed_at = {NOW}, updated_at = {NOW}
FROM t WHERE w.id = t.id RETURNING w.id
"""
# What a busy sync worker writes most, as one statement: the two touch different rows.
STEPS_AND_OUTCOMES = f"""
WITH recorded AS ({STEPS}), ended AS ({OUTCOMES})
SELECT workflow_id, position FROM recorded UNION ALL SELECT id, {ENDED_ROW} FROM ended
"""
WAITS = f"""
WITH e AS (SELECT * FROM unnest(%s::bigint[], %s::int[], %s::bigint[], %s::text[], %s::float8[],
                                %s::int[]) AS e(id, attempt, worker, waits, seconds, keeps)),
t AS MATERIALIZED ({TARGETS})
UPDATE {{workflow}} w
SET waits = COALESCE(t.waits, w.waits), updated_at = {NOW},
    worker_id = CASE WHEN t.keeps = 1 THEN w.worker_id END,
    wake_at = CASE WHEN t.keeps = 1 THEN NULL ELSE {NOW} + t.seconds * interval '1 second' END
FROM t WHERE w.id = t.id RETURNING w.id
"""
GUARD = """
SELECT 1 FROM (
    SELECT attempt, worker_id, status FROM {workflow} WHERE id = %s OFFSET 0 FOR KEY SHARE
) w
WHERE attempt = %s AND worker_id = %s AND status = 'PENDING'
"""
READ_STEP = """
SELECT position, name, kind, output, error, child, attempt FROM {step}
WHERE workflow_id = %s AND position = %s
"""
READ_FENCE = "SELECT attempt, worker_id, status FROM {workflow} WHERE id = %s"

LOOK = f"""
WITH due AS MATERIALIZED (
    SELECT w.id FROM unnest(%s::bigint[]) AS e(id) CROSS JOIN LATERAL (
        SELECT w.id, w.worker_id, w.wake_at, w.status, w.waits FROM {{workflow}} w
        WHERE w.id = e.id OFFSET 0
    ) w
    WHERE w.worker_id IS NULL AND w.wake_at IS NOT NULL
      AND w.status = 'PENDING' AND w.waits <> ''
      AND COALESCE((w.waits::jsonb -> '0' ->> 'until')::float8 <= extract(epoch FROM {NOW}), true)
      AND EXISTS (
        SELECT 1 FROM jsonb_each(w.waits::jsonb) AS one(position, wait)
        WHERE (wait ->> 'until')::float8 <= extract(epoch FROM {NOW})
           OR EXISTS (SELECT 1 FROM jsonb_array_elements_text(wait -> 'what') AS what(id)
                      JOIN {{workflow}} c ON c.workflow_id = what.id AND c.status IN {FINAL}))),
free AS MATERIALIZED (
    SELECT w.id FROM due CROSS JOIN LATERAL (
        SELECT w.id, w.worker_id, w.wake_at, w.status FROM {{workflow}} w
        WHERE w.id = due.id OFFSET 0 FOR NO KEY UPDATE SKIP LOCKED
    ) w
    WHERE w.worker_id IS NULL AND w.wake_at IS NOT NULL AND w.status = 'PENDING'),
woken AS (
    UPDATE {{workflow}} SET wake_at = NULL, updated_at = {NOW}
    WHERE id = ANY (ARRAY(SELECT id FROM free)) RETURNING id)
SELECT (SELECT count(*) FROM woken), (SELECT count(*) FROM due)
"""
ENDED = f"""
SELECT workflow_id, status, output, error FROM {{workflow}}
WHERE workflow_id = ANY (%s::text[]) AND status IN {FINAL}
"""
HOLDER = "SELECT workflow_id FROM {workflow} WHERE queue = %s AND deduplication_id = %s"
BEHIND = """
SELECT w.workflow_id FROM {workflow} w
WHERE w.workflow_id = ANY (%s::text[]) AND w.queue = %s AND w.status IN ('ENQUEUED', 'DELAYED')
  AND EXISTS (SELECT 1 FROM {queue} q WHERE q.name = w.queue AND q.hold AND q.concurrency = 1)
"""
STATUS = """
SELECT w.id, w.workflow_id, w.status, w.name, w.input, w.output, w.error,
    extract(epoch FROM w.created_at)::float8, extract(epoch FROM w.updated_at)::float8,
    w.app_version, w.executor_id, NULLIF(w.queue, ''), extract(epoch FROM w.dequeued_at)::float8,
    w.attempt, w.recoveries, w.priority, w.deduplication_id, w.queue_partition_key, w.forked_from,
    p.workflow_id, extract(epoch FROM w.deadline)::float8,
    extract(epoch FROM CASE WHEN w.status = 'DELAYED' THEN w.wake_at END)::float8,
    extract(epoch FROM w.completed_at)::float8, w.attributes::text, w.authenticated_user
FROM {workflow} w LEFT JOIN {workflow} p ON p.id = w.parent_id WHERE w.workflow_id = %s
"""

VERSION = "SELECT current_setting('server_version')"
MOST_CONNECTIONS = "SELECT current_setting('max_connections')::int"
CLOCK = "SELECT extract(epoch FROM clock_timestamp())"
ENLIST = f"""
INSERT INTO {{worker}} (kind, state, host, pid, app_version, queues, backend, lease_seconds,
                        started_at, beat_at)
VALUES (%s, 'live', %s, %s, %s, %s, %s, %s, {NOW}, {NOW}) RETURNING id
"""
PRESENCE = """
SELECT pid || '|' || extract(epoch FROM backend_start) || '|' ||
       extract(epoch FROM pg_postmaster_start_time())
FROM pg_stat_activity WHERE pid = pg_backend_pid()
"""
BEAT = f"""
WITH renewed AS (UPDATE {{worker}} SET beat_at = {NOW}, missing_since = NULL,
                        backend = COALESCE(%s, backend)
                 WHERE id = %s AND state = 'live' RETURNING id)
SELECT (SELECT count(*) FROM renewed), (SELECT count(*) FROM {{workflow}} WHERE worker_id = %s),
       extract(epoch FROM {NOW})::float8
"""
# A server that was away took everybody's beats with it: nobody's lease runs out before
# one full lease has passed since it came back, nor since this worker found its way back.
BURY_LATE = f"""
UPDATE {{worker}} SET state = 'dead' WHERE state = 'live'
  AND beat_at < {NOW} - lease_seconds * interval '1 second'
  AND pg_postmaster_start_time() < {NOW} - lease_seconds * interval '1 second'
  AND lease_seconds < %s::float8
RETURNING id
"""
# Presence only shortens a lease: missing in two looks, same server, no beat in between.
GONE = """
state = 'live' AND backend <> ''
AND split_part(backend, '|', 3) = extract(epoch FROM pg_postmaster_start_time())::text
AND NOT EXISTS (SELECT 1 FROM pg_stat_activity a
                WHERE a.pid = split_part(backend, '|', 1)::int
                  AND (a.backend_start IS NULL
                       OR extract(epoch FROM a.backend_start)::text = split_part(backend, '|', 2)))
"""
MISS = f"UPDATE {{worker}} SET missing_since = {NOW} WHERE missing_since IS NULL AND {GONE}"
BURY_GONE = f"""
UPDATE {{worker}} SET state = 'dead'
WHERE missing_since < {NOW} - interval '1.4 seconds' AND {GONE} RETURNING id
"""
DISCHARGE = "UPDATE {worker} SET state = 'stopped' WHERE id = %s AND state = 'live'"
OWNED = "SELECT id FROM {workflow} WHERE worker_id = %s"
COUNT_OWNED = "SELECT count(*) FROM {workflow} WHERE worker_id = %s"
FATES = "SELECT id, status FROM {workflow} WHERE id = ANY (%s::bigint[])"
STRANDED = f"""
SELECT w.id, w.workflow_id, w.name, w.recoveries, w.waits, w.parent_id,
       EXISTS (SELECT 1 FROM {{step}} s WHERE s.workflow_id = w.id AND s.attempt = w.attempt),
       extract(epoch FROM {NOW})::float8
FROM {{workflow}} w
WHERE w.worker_id IS NOT NULL AND w.status = 'PENDING'
  AND NOT EXISTS (SELECT 1 FROM {{worker}} k WHERE k.id = w.worker_id AND k.state = 'live')
ORDER BY w.id LIMIT %s FOR NO KEY UPDATE OF w SKIP LOCKED
"""
HAND_ON = f"""
UPDATE {{workflow}} w
SET worker_id = NULL, status = e.status, recoveries = e.recoveries, waits = e.waits,
    wake_at = {NOW} + e.rest * interval '1 second', updated_at = {NOW},
    completed_at = CASE WHEN e.status = 'PENDING' THEN NULL ELSE {NOW} END,
    deduplication_id = CASE WHEN e.status = 'PENDING' THEN w.deduplication_id END
FROM unnest(%s::bigint[], %s::text[], %s::int[], %s::text[], %s::float8[])
    AS e(id, status, recoveries, waits, rest)
WHERE w.id = e.id
"""
DUE = f"""
SELECT w.id, w.status, w.waits, extract(epoch FROM w.updated_at)::float8,
       extract(epoch FROM {NOW})::float8
FROM {{workflow}} w WHERE w.wake_at <= {NOW} AND w.worker_id IS NULL
ORDER BY w.wake_at LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
"""
# updated_at stays: it tells since when the row waits.
SET_WAKE = f"""
UPDATE {{workflow}} w
SET status = CASE WHEN e.status = 'ENQUEUED' AND w.queue = '' THEN 'PENDING' ELSE e.status END,
    wake_at = {NOW} + e.seconds * interval '1 second'
FROM unnest(%s::bigint[], %s::text[], %s::float8[]) AS e(id, status, seconds) WHERE w.id = e.id
"""
NEXT_DUE = f"""
SELECT extract(epoch FROM min(wake_at) - {NOW})::float8 FROM {{workflow}} WHERE wake_at IS NOT NULL
"""
RELEASE = f"""
UPDATE {{workflow}} SET worker_id = NULL, wake_at = NULL, updated_at = {NOW} WHERE id = ANY (ARRAY(
    SELECT id FROM {{workflow}} WHERE id = ANY (%s::bigint[]) AND worker_id = %s
      AND status = 'PENDING' ORDER BY id FOR NO KEY UPDATE SKIP LOCKED))
"""
QUEUES = f"""
WITH RECURSIVE seen AS (
    (SELECT w.queue FROM {{workflow}} w WHERE {READY} ORDER BY w.queue LIMIT 1)
    UNION ALL
    SELECT (SELECT w.queue FROM {{workflow}} w WHERE {READY} AND w.queue > seen.queue
            ORDER BY w.queue LIMIT 1)
    FROM seen WHERE seen.queue IS NOT NULL
)
SELECT name, concurrency, worker_concurrency, hold, paused FROM {{queue}}
UNION ALL
SELECT queue, NULL, NULL, false, false FROM seen
WHERE queue IS NOT NULL AND NOT EXISTS (SELECT 1 FROM {{queue}} q WHERE q.name = seen.queue)
"""
STRANGERS = f"""
SELECT name, count(*) FROM (
    SELECT w.name FROM {{workflow}} w
    WHERE {READY} AND (%s::text[] IS NULL OR w.queue = ANY (%s::text[])) LIMIT 10000
) ready
WHERE NOT name = ANY (%s::text[]) GROUP BY name
"""
# A declaration that changes nothing locks nothing: it may stand in a long transaction.
DECLARE = """
INSERT INTO {queue} (name, concurrency, worker_concurrency, hold, paused)
SELECT d.name, d.concurrency, d.worker_concurrency, d.hold = 1, false
FROM unnest(%s::text[], %s::int[], %s::int[], %s::int[])
    AS d(name, concurrency, worker_concurrency, hold)
WHERE NOT EXISTS (
    SELECT 1 FROM {queue} q WHERE q.name = d.name AND (q.concurrency, q.worker_concurrency, q.hold)
        IS NOT DISTINCT FROM (d.concurrency, d.worker_concurrency, d.hold = 1))
ON CONFLICT (name) DO UPDATE SET concurrency = EXCLUDED.concurrency,
    worker_concurrency = EXCLUDED.worker_concurrency, hold = EXCLUDED.hold
WHERE ({queue}.concurrency, {queue}.worker_concurrency, {queue}.hold) IS DISTINCT FROM
    (EXCLUDED.concurrency, EXCLUDED.worker_concurrency, EXCLUDED.hold)
"""
OUTCOMES_PATIENT = OUTCOMES.replace(" SKIP LOCKED", "")
WAITS_PATIENT = WAITS.replace(" SKIP LOCKED", "")


class PostgreSQLStore(SQLStore):
    supports_notify = True
    ints = staticmethod(ints)
    texts = staticmethod(texts)

    @classmethod
    def on(cls, using: str, **tables: str) -> PostgreSQLStore:
        return cls(Borrowed(using, pg_connection.run_for_caller), named(globals(), **tables))

    def dedicated(self) -> PostgreSQLStore:
        return PostgreSQLStore(Owned(self.session.using, pg_connection), self.sql)

    def most_connections(self) -> int | None:
        return int(self.session.execute(self.sql["MOST_CONNECTIONS"]).rows[0][0])

    # -- hints -------------------------------------------------------------

    def notify(self, channel: str) -> None:
        self.session.execute("SELECT pg_notify(%s, '')", [channel])

    def listen(self, channels: Sequence[str]) -> bool:
        if not isinstance(self.session, Owned):
            return False
        self.session.greet = lambda raw: (
            None if pg_connection.is_pooled(raw) else pg_connection.listen(raw, channels)
        )
        self.session.close()
        return not pg_connection.is_pooled(self.session.ready())

    def fileno(self) -> int | None:
        raw = self._ready()
        return None if raw is None or pg_connection.is_pooled(raw) else int(raw.fileno())

    def heard(self) -> bool:
        raw = self._ready()
        return raw is None or pg_connection.heard(raw)

    def _ready(self) -> Any:
        return self.session.ready() if isinstance(self.session, Owned) else None

    # -- running -----------------------------------------------------------

    def _was_undone(self, error: BaseException) -> bool:
        return pg_connection.is_conflict(error) or pg_connection.is_cut(error)

    def _was_idle_too_long(self, error: BaseException) -> bool:
        """Code 25P03; sent when the connection is cut, and met by whatever runs next."""
        cause: BaseException | None = error
        while cause is not None:
            if getattr(cause, "sqlstate", None) == "25P03":
                return True
            cause = cause.__cause__
        return False

    def _was_broken(self, error: BaseException) -> bool:
        """Code 25P02: a statement in a transaction that an earlier one has broken."""
        return getattr(error.__cause__, "sqlstate", None) == "25P02"

    def _limit_idle(self, max_idle: float) -> None:
        self.session.execute(
            "SELECT set_config('idle_in_transaction_session_timeout', %s, true)",
            [f"{int(max_idle * 1000)}ms"],
        )

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
        def take(execute: Callable[..., Any], plan: Plan) -> list[Claim]:
            if not plan:
                return []
            places, rooms, statuses = zip(*plan, strict=True)
            params = [texts(places), ints(rooms), texts(statuses), texts(names), worker, asked]
            params += [worker, executor_id, app_version, now, now, now]
            rows = execute(self.sql["CLAIM"], params).rows
            # An UPDATE returns its rows in any order; those that were picked first begin first.
            rank = {place: number for number, place in enumerate(places)}
            rows.sort(key=lambda row: (rank[row[3]], row[11], row[0]))
            return [Claim(*row[:11]) for row in rows]

        if any(queue.limited for queue in queues):
            claims = self.session.unit(
                lambda execute: take(execute, self._plan(execute, worker, queues, asked))
            )
        else:
            execute = self.session.execute
            claims = take(execute, self._plan(execute, worker, queues, asked))
        return self._with_history(claims)

    def look(self, ids: Sequence[int], *, now: datetime | None = None) -> tuple[int, int]:
        params = [ints(sorted(ids)), now, now, now]
        woken, due = self.session.execute(self.sql["LOOK"], params).rows[0]
        return woken, due - woken

    def presence(self) -> str:
        """Return what tells that this store's own connection is alive, "" behind a pooler."""
        if not self.session.owned or pg_connection.is_pooled(self.session.raw()):
            return ""
        rows = self.session.execute(self.sql["PRESENCE"]).rows
        return str(rows[0][0]) if rows else ""

    def beat(self, worker: int, *, backend: str | None = None, now: datetime | None = None) -> Beat:
        params = [now, backend, worker, worker, now]
        renewed, owned, moment = self.session.execute(self.sql["BEAT"], params).rows[0]
        return Beat(bool(renewed), owned, moment)

    def bury(self, *, now: datetime | None = None) -> list[int]:
        # In a unit: its connection is open when it begins, and says since when.
        late = self.session.unit(
            lambda execute: execute(self.sql["BURY_LATE"], [now, now, self.session.back_for]).rows
        )
        gone = self.session.execute(self.sql["BURY_GONE"], [now]).rows
        self.session.execute(self.sql["MISS"], [now])
        return [id for (id,) in [*late, *gone]]

    def _starts(self, entries: list[StepEntry], now: datetime | None) -> list[Part]:
        children = [child for entry in entries for child in entry.children]
        params = [*self._step_rows(entries), now, now, now, now, *self._new_rows(children)]
        return [("STARTS", params)]

    def _joined(self, parts: list[Part]) -> list[Part]:
        if [name for name, _ in parts] == ["STEPS", "OUTCOMES"]:
            return [("STEPS_AND_OUTCOMES", parts[0][1] + parts[1][1])]
        return parts

    # -- rows as arrays ----------------------------------------------------

    def _rows(self, rows: Sequence[Sequence[Any]], *columns: Dump) -> list[str]:
        return [dump(column) for dump, column in zip(columns, zip(*rows, strict=True), strict=True)]

    @staticmethod
    def _moment(value: float | None) -> datetime | None:
        return None if value is None else datetime.fromtimestamp(value, UTC)

    def _step_rows(self, entries: list[StepEntry]) -> list[str]:
        return [
            ints([entry.id for entry in entries]),
            ints([entry.attempt for entry in entries]),
            ints([entry.worker for entry in entries]),
            ints([entry.position for entry in entries]),
            texts([entry.name for entry in entries]),
            texts([entry.kind for entry in entries]),
            texts([entry.output for entry in entries]),
            texts([entry.error for entry in entries]),
            texts([entry.child for entry in entries]),
            texts([entry.tries for entry in entries]),
            ints([entry.took for entry in entries]),
        ]

    def _outcome_rows(self, entries: list[OutcomeEntry]) -> list[str]:
        return [
            ints([entry.id for entry in entries]),
            ints([entry.attempt for entry in entries]),
            ints([entry.worker for entry in entries]),
            texts([entry.status for entry in entries]),
            texts([entry.output for entry in entries]),
            texts([entry.error for entry in entries]),
        ]

    def _wait_rows(self, entries: list[WaitEntry]) -> list[str]:
        return [
            ints([entry.id for entry in entries]),
            ints([entry.attempt for entry in entries]),
            ints([entry.worker for entry in entries]),
            texts([entry.waits for entry in entries]),
            ints([entry.seconds for entry in entries]),  # type: ignore[misc]
            ints([int(entry.keeps) for entry in entries]),
        ]
