"""The plans of the hot statements: by index, whatever the planner knows of the table.

Looked at is the generic plan, which a prepared statement ends up with, on a connection
that is set up as the engine's.
"""

import json
import re
from collections.abc import Iterator
from types import ModuleType

import psycopg
import pytest
from django.db import connection

from durable_workflows.core.records import NewWorkflow, QueueView, StepEntry, WorkerFacts
from durable_workflows.core.waits import Wait, encode
from durable_workflows.models import Queue, Step, Worker, Workflow
from durable_workflows.store import get_store, pg_connection
from durable_workflows.store.postgresql import PostgreSQLStore
from durable_workflows.store.session import Owned
from tests.store.conftest import outcome, start, step, suspend

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]

ROWS = 20_000
BATCH = 50
WORKFLOW = Workflow._meta.db_table
Read = tuple[str, str | None]  # table, and the index it is read by
TABLES = [model._meta.db_table for model in (Workflow, Step, Queue, Worker)]
QUEUES = [QueueView(f"q{n}") for n in range(6)]

# Of six queues' rows a twentieth has ended, the rest is ready; each has two steps.
FILL = f"""
INSERT INTO {Workflow._meta.db_table}
    (workflow_id, name, status, queue, priority, input, attempt, recoveries, waits,
     created_at, updated_at)
SELECT 'w' || n, 'f', CASE WHEN n % 20 = 0 THEN 'SUCCESS' ELSE 'ENQUEUED' END, 'q' || n % 6, 0,
       '[]', 0, 0, '', now(), now()
FROM generate_series(1, {ROWS}) n
"""
FILL_STEPS = f"""
INSERT INTO {Step._meta.db_table}
    (workflow_id, position, name, kind, output, attempt, started_at, completed_at)
SELECT w.id, n, 'charge', 'step', '1', 1, now(), now()
FROM {Workflow._meta.db_table} w, generate_series(1, 2) n
"""
OWN_ALL = f"""
UPDATE {Workflow._meta.db_table} SET worker_id = %s, status = 'PENDING', attempt = 1
WHERE status = 'ENQUEUED'
"""


class Recorder(Owned):
    """Remembers the statements that go by."""

    def __init__(self, using: str, dialect: ModuleType):
        super().__init__(using, dialect)
        self.statements: list[tuple[str, list]] = []

    def execute(self, sql, params=()):
        self.statements.append((sql, list(params)))
        return super().execute(sql, params)

    def batch(self, statements):
        self.statements += [(sql, list(params)) for sql, params in statements]
        return super().batch(statements)

    def unit(self, work):
        def recorded(execute):
            def remember(sql, params=()):
                self.statements.append((sql, list(params)))
                return execute(sql, params)

            return work(remember)

        return super().unit(recorded)


@pytest.fixture
def store() -> Iterator[PostgreSQLStore]:
    store = PostgreSQLStore(Recorder("default", pg_connection), get_store("default").sql)
    yield store
    store.close()


@pytest.fixture
def worker(store) -> int:
    return store.enlist(WorkerFacts("worker", "host", 7), 3600.0)


@pytest.fixture(params=["not analysed", "analysed", "all owned by one worker"])
def filled(request, worker) -> None:
    with connection.cursor() as cursor:
        # Else the autovacuum decides which of the three cases this is.
        for table in TABLES:
            cursor.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        cursor.execute(FILL)
        cursor.execute(FILL_STEPS)
        if request.param == "all owned by one worker":
            cursor.execute(OWN_ALL, [worker])
        if request.param != "not analysed":
            cursor.execute("ANALYZE")


@pytest.fixture
def runs(filled, store, worker) -> list:
    """Workflows of a worker, among all the others."""
    store.create([NewWorkflow(f"r{n}", "f", "[]", "runs") for n in range(BATCH)])
    return store.claim(worker, "me", ["f"], [QueueView("runs")], BATCH)


def do_everything(store, worker: int, runs: list) -> None:
    """Run each hot verb once."""
    limited = QueueView("q1", concurrency=5)
    holding = QueueView("q2", concurrency=5, hold=True)
    store.declare_queues([limited, holding])
    store.create([NewWorkflow("one", "f", "[]", "q1")])
    store.create([NewWorkflow("held", "f", "[]", "q2")])
    store.create([NewWorkflow(f"many{n}", "f", "[]", "q1") for n in range(BATCH)])
    store.claim(worker, "me", ["f", "g"], QUEUES, BATCH)
    store.claim(worker, "me", ["f", "g"], [limited, holding], BATCH)
    store.claim_one("one", worker, "me")
    store.write([step(run) for run in runs])
    store.write([start(run, f"{run.workflow_id}-2", position=2) for run in runs])
    store.write([StepEntry(runs[0].id, 0, worker, 1, "charge", "step")])  # a zombie's: looked at
    waits = encode({3: Wait("result", what=(f"{runs[0].workflow_id}-2",))})
    store.write([suspend(run, None, 5.0) for run in runs[:10]])
    store.write([suspend(run, None, keeps=True) for run in runs[10:20]])
    Workflow.objects.filter(pk__in=[run.id for run in runs[:5]]).update(waits=waits)
    store.look([run.id for run in runs[:10]])
    store.release(worker, [run.id for run in runs[10:20]])
    store.claim(worker, "me", ["f"], [QueueView("runs")], BATCH)  # with history
    store.write([outcome(run) for run in runs[20:]])
    store.write([outcome(run) for run in runs[20:]], patient=True)
    store.ended([run.workflow_id for run in runs])
    store.status("w7")
    store.beat(worker)
    store.owned(worker)
    store.count_owned(worker)
    store.fates([run.id for run in runs])
    store.guard_step(runs[0].id, 1, worker)
    store.wake_due(BATCH)
    store.next_due()
    store.queues()
    store.bury()
    store.discharge(worker)
    store.rescue({}, 100, BATCH)


def generic_plan(raw: psycopg.Connection, sql: str, params: list) -> dict:
    places = iter(range(1, len(params) + 1))
    raw.execute("PREPARE hot AS " + re.sub("%s", lambda _: f"${next(places)}", sql))
    try:
        with psycopg.ClientCursor(raw) as cursor:
            values = f"({', '.join(['%s'] * len(params))})" if params else ""
            cursor.execute("EXPLAIN (FORMAT JSON, VERBOSE) EXECUTE hot" + values, params or None)
            answer = cursor.fetchone()[0]
    finally:
        raw.execute("DEALLOCATE hot")
    return (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]


def reads(plan: dict) -> Iterator[Read]:
    """Yield how a plan reads tables of ours; what a bitmap was made of counts as its index."""
    table, kind = plan.get("Relation Name"), plan["Node Type"]
    if kind == "Bitmap Heap Scan":
        yield from ((table, index) for index in bitmaps(plan))
    elif table in TABLES and kind.endswith("Scan"):
        yield table, plan.get("Index Name")
    for child in plan.get("Plans", ()):
        yield from reads(child)


def bitmaps(plan: dict) -> Iterator[str]:
    for child in plan.get("Plans", ()):
        if child["Node Type"] == "Bitmap Index Scan":
            yield child["Index Name"]
        elif child["Node Type"].startswith("Bitmap"):
            yield from bitmaps(child)


@pytest.fixture
def plans(store, worker, runs) -> dict[str, set[Read]]:
    """How each hot statement reads tables of ours."""
    store.session.statements.clear()
    do_everything(store, worker, runs)
    names = {sql: name for name, sql in store.sql.items()}
    seen = {names[sql]: (sql, params) for sql, params in store.session.statements if sql in names}
    raw = store.session.raw()
    raw.execute("SET plan_cache_mode = force_generic_plan")
    return {name: set(reads(generic_plan(raw, *said))) for name, said in seen.items()}


HOT = {
    *("CREATE", "CREATE_MANY", "CLAIM", "CLAIM_ONE", "LOCK_QUEUES", "LOADS", "HELD"),
    *("HISTORY", "STEPS", "STARTS", "OUTCOMES", "OUTCOMES_PATIENT", "WAITS", "GUARD"),
    *("READ_STEP", "READ_FENCE", "LOOK", "ENDED", "STATUS", "BEAT", "OWNED"),
    *("COUNT_OWNED", "FATES", "RELEASE", "DUE", "NEXT_DUE", "QUEUES", "STRANDED"),
}
# Statements that reach the workflow row by its key alone. Another index looks cheaper
# where few rows were owned, or waiting, when the table was last analysed; a batch would
# pay the square of what they have become.
BY_KEY = {
    *("STEPS", "STARTS", "OUTCOMES", "OUTCOMES_PATIENT", "WAITS", "GUARD", "READ_FENCE"),
    *("LOOK", "HAND_ON", "SET_WAKE", "FATES"),
}
KEY = f"{WORKFLOW}_pkey"
ID = "dw_workflow_id"  # the index on the ids that people know


def test_every_hot_statement_is_looked_at(plans):
    assert HOT - plans.keys() == set()


def test_hot_statements_read_by_index_only(plans):
    # A handful of queues is read whole.
    scans = {(name, table) for name, found in plans.items() for table, index in found if not index}

    assert scans <= {("QUEUES", Queue._meta.db_table)}


def test_the_fence_is_reached_by_its_key(plans):
    others = {
        (name, index)
        for name in BY_KEY & plans.keys()
        for table, index in plans[name]
        if table == WORKFLOW and index not in (KEY, ID)
    }
    assert others == set()


def test_a_claim_rides_the_index_of_ready_rows(plans):
    assert {index for table, index in plans["CLAIM"] if table == WORKFLOW} == {"dw_ready", KEY}
