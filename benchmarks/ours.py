"""durable_workflows itself, by its public API, at its defaults.

The same verbs as the peers'; `work` becomes `manage.py runworker`, and
`insert` is the yardstick of `enqueue`: the bare INSERT of the same row.
"""

import os
import sys
import uuid

import django
from django.core.management import call_command

from benchmarks import protocol

TABLE = "durable_workflows_workflow"


def setup(arguments):
    """Migrate, and make room for the mark that `OUR_PROGRESS` reads."""
    from django.db import connection

    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE bench_before (id bigint)")


def fill(arguments):
    """Enqueue n workflows by `enqueue_many`."""
    from benchmarks import workflows

    function = workflows.WORKLOADS[arguments.workload]
    argument = {"alone": arguments.n, "nap-sync": 3600, "nap-async": 3600}
    n = 1 if arguments.workload == "alone" else arguments.n
    fixed = argument.get(arguments.workload)
    enqueue_batches(getattr(workflows, arguments.queue), function, n, arguments.batch, fixed)


def enqueue_batches(queue, function, n, batch, argument=None):
    for begin in range(0, n, batch):
        numbers = range(begin, min(n, begin + batch))
        queue.enqueue_many(function, [(i if argument is None else argument,) for i in numbers])


def enqueue(arguments):
    from benchmarks.workflows import bench, noop_sync

    bench.enqueue(noop_sync, 0)
    protocol.await_go()
    for i in range(arguments.n):
        bench.enqueue(noop_sync, i)
    protocol.say("done")


def enqueue_many(arguments):
    from benchmarks.workflows import bench, noop_sync

    enqueue_batches(bench, noop_sync, 1, 1)
    protocol.await_go()
    enqueue_batches(bench, noop_sync, arguments.n, arguments.batch)
    protocol.say("done")


def insert(arguments):
    """INSERT and commit, one by one, rows like the one our `enqueue` wrote."""
    import psycopg

    from benchmarks.workflows import bench, noop_sync

    bench.enqueue(noop_sync, 0)
    with psycopg.connect(arguments.url, autocommit=True) as connection:
        columns, row = row_written(connection)
        places = ", ".join(["%s"] * len(columns))
        statement = f"INSERT INTO {TABLE} ({', '.join(columns)}) VALUES ({places})"
        key = columns.index("workflow_id")
        cursor = connection.cursor()
        protocol.await_go()
        for _ in range(arguments.n):
            row[key] = str(uuid.uuid4())
            cursor.execute(statement, row, prepare=True)
        protocol.say("done")


def row_written(connection):
    """Return the columns and values of the first row, without what the table makes itself."""
    from psycopg.types.json import Jsonb

    cursor = connection.execute(f"SELECT * FROM {TABLE} LIMIT 1")
    row = dict(zip((column.name for column in cursor.description), cursor.fetchone(), strict=True))
    del row["id"]
    values = [Jsonb(v) if isinstance(v, dict | list) else v for v in row.values()]
    return list(row), values


def ask(arguments):
    from benchmarks.workflows import bench, noop_sync

    def once(i):
        bench.enqueue(noop_sync, i).get_result()

    protocol.ask_repeatedly(once, times=arguments.n)


def work(arguments):
    """Become the worker, on the bench's queue alone, at the default slots."""
    protocol.say("ready")
    os.dup2(2, 1)  # nobody reads stdout any more: a full pipe would stop the worker
    words = ["runworker", "--queues", "bench", "--threads", "32", "--async-slots", "500"]
    os.execv(sys.executable, [sys.executable, "manage.py", *words])


if __name__ == "__main__":
    django.setup()
    protocol.run(
        {
            "setup": setup,
            "fill": fill,
            "enqueue": enqueue,
            "enqueue-many": enqueue_many,
            "insert": insert,
            "ask": ask,
            "work": work,
        }
    )
