"""dbos: durable steps, queues with results, a client for other processes.

Its best configuration found: queue polled every 50 ms (10 ms where latency is
measured), 16 executor threads, no limit on the worker. The defaults are 1 s.
"""

import signal
import uuid

import psycopg
from dbos import DBOS, DBOSClient

from benchmarks import protocol

QUEUE = "bench"


@DBOS.step()
def same(i):
    return i


@DBOS.step()
async def asame(i):
    return i


@DBOS.workflow(name="steps-sync")
def steps_sync(i):
    for k in range(10):
        same(k)
    return i


@DBOS.workflow(name="steps-async")
async def steps_async(i):
    for k in range(10):
        await asame(k)
    return i


@DBOS.workflow(name="alone")
def alone(steps):
    for k in range(steps):
        same(k)
    return steps


@DBOS.workflow(name="noop-sync")
def noop_sync(i):
    return i


@DBOS.workflow(name="noop-async")
async def noop_async(i):
    return i


def setup(arguments):
    """Make the schema and the queue's row."""
    launch(arguments.url, poll=0.05)
    DBOS.destroy()


def launch(url, *, poll):
    DBOS(
        config={
            "name": "bench",
            "system_database_url": url,
            "application_version": "bench",
            "executor_id": uuid.uuid4().hex,
            "max_executor_threads": 16,
            "log_level": "WARNING",
        }
    )
    DBOS.launch()
    DBOS.register_queue(QUEUE, polling_interval_sec=poll, on_conflict="always_update")


def fill(arguments):
    """Enqueue one workflow by the client, and copy its rows."""
    client = DBOSClient(system_database_url=arguments.url)
    client.enqueue(options(arguments.workload), arguments.n if arguments.workload == "alone" else 1)
    client.destroy()
    if arguments.workload == "alone":
        return
    with psycopg.connect(arguments.url) as connection:
        connection.execute(
            "CREATE TEMP TABLE fresh AS SELECT gen_random_uuid()::text AS id"
            " FROM generate_series(1, %s)",
            [arguments.n - 1],
        )
        [(first,)] = connection.execute("SELECT workflow_uuid FROM dbos.workflow_status").fetchall()
        for table in ("workflow_status", "workflow_input"):
            connection.execute(copy_statement(connection, table), [first])


def copy_statement(connection, table):
    """Return an INSERT that repeats the row `workflow_uuid = %s` for each fresh id."""
    columns = [
        name
        for (name,) in connection.execute(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = 'dbos' AND table_name = %s",
            [table],
        )
    ]
    values = ["fresh.id" if name == "workflow_uuid" else f"t.{name}" for name in columns]
    return (
        f"INSERT INTO dbos.{table} ({', '.join(columns)}) SELECT {', '.join(values)}"
        f" FROM dbos.{table} t, fresh WHERE t.workflow_uuid = %s"
    )


def options(workload):
    return {"queue_name": QUEUE, "workflow_name": workload, "app_version": "bench"}


def enqueue(arguments):
    client = DBOSClient(system_database_url=arguments.url)
    client.enqueue(options("noop-sync"), 0)
    protocol.await_go()
    for i in range(arguments.n):
        client.enqueue(options("noop-sync"), i)
    protocol.say("done")


def ask(arguments):
    client = DBOSClient(system_database_url=arguments.url)

    def once(i):
        client.enqueue(options("noop-sync"), i).get_result(polling_interval_sec=0.005)

    protocol.ask_repeatedly(once, times=arguments.n)


def work(arguments):
    """Run workflows until told to stop."""
    launch(arguments.url, poll=0.01 if arguments.workload == "latency" else 0.05)
    protocol.say("ready")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    DBOS.destroy()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    protocol.run({"setup": setup, "fill": fill, "enqueue": enqueue, "ask": ask, "work": work})
