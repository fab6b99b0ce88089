"""The plans of the hot statements on SQLite: by index, with and without statistics."""

import re

import pytest
from django.db import connection

from durable_workflows.core.records import NewWorkflow, QueueView, WorkerFacts
from durable_workflows.models import Step, Workflow
from durable_workflows.store import get_store, sqlite_connection
from durable_workflows.store.sqlite import SQLiteStore
from tests.plans.test_plans import BATCH, QUEUES, Recorder, do_everything

pytestmark = [pytest.mark.sqlite, pytest.mark.django_db(transaction=True)]

ROWS = 5_000
# The two big tables, by name or by the alias that the statements give them.
WHOLE = re.compile(rf"SCAN ({Workflow._meta.db_table}|{Step._meta.db_table}|[wcps])( USING .*)?")


@pytest.fixture
def store():
    recorder = Recorder("default", sqlite_connection)
    store = SQLiteStore(recorder, get_store("default").sql)
    yield store
    store.close()
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM sqlite_master WHERE name LIKE 'sqlite_stat%'")
        for (table,) in cursor.fetchall():
            cursor.execute(f"DELETE FROM {table}")


@pytest.fixture(params=["not analysed", "analysed", "all owned by one worker"])
def plans(request, store) -> dict[str, list[str]]:
    """What SQLite says it does for each hot statement, line by line."""
    worker = store.enlist(WorkerFacts("worker", "host", 7), 3600.0)
    queues = [queue.name for queue in QUEUES]
    store.create([NewWorkflow(f"w{n}", "f", "[]", queues[n % 6]) for n in range(ROWS)])
    if request.param == "all owned by one worker":
        store.claim(worker, "me", ["f"], QUEUES, ROWS)
    if request.param != "not analysed":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
    store.create([NewWorkflow(f"r{n}", "f", "[]", "runs") for n in range(BATCH)])
    runs = store.claim(worker, "me", ["f"], [QueueView("runs")], BATCH)
    store.session.statements.clear()
    do_everything(store, worker, runs)
    names = {sql: name for name, sql in store.sql.items()}
    seen = {names[sql]: (sql, params) for sql, params in store.session.statements if sql in names}
    raw = store.session.raw().raw
    return {
        name: [line for *_, line in raw.execute("EXPLAIN QUERY PLAN " + sql, params)]
        for name, (sql, params) in seen.items()
    }


def test_hot_statements_never_read_a_whole_table(plans):
    assert len(plans) > 30
    read = {
        (name, line) for name, lines in plans.items() for line in lines if WHOLE.fullmatch(line)
    }
    # The first queue with ready rows is the first entry of their index.
    assert read <= {("QUEUES", "SCAN w USING INDEX dw_ready")}


def test_the_fence_is_reached_by_its_key(plans):
    others = {
        (name, line)
        for name in ("STEPS", "CHILDREN", "OUTCOMES", "WAITS", "GUARD", "LOOK", "RELEASE")
        for line in plans.get(name, ())
        if "dw_" in line
    }
    assert others == set()


def test_a_claim_rides_the_index_of_ready_rows(plans):
    assert any("dw_ready" in line for line in plans["PICK"])
    assert not any("TEMP B-TREE" in line for line in plans["PICK"])
