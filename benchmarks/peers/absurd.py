"""absurd: durable steps in PL/pgSQL functions, a thin client.

Its best configuration found: eight asynchronous clients in one process, ten
tasks each, because a client is one connection. The synchronous one is a single
client: its worker threads share the one connection.
"""

import asyncio
from functools import partial

import absurdctl
import psycopg
from absurd_sdk import Absurd, AsyncAbsurd

from benchmarks import protocol

QUEUE = "bench"
CLIENTS = 8
TASKS_A_CLIENT = 10


def setup(arguments):
    """Install the schema that absurdctl carries, and make the queue."""
    with psycopg.connect(arguments.url, autocommit=True) as connection:
        connection.execute(absurdctl.BUNDLED_SCHEMA_SQL)
    Absurd(arguments.url, queue_name=QUEUE).create_queue(QUEUE)


def fill(arguments):
    client = Absurd(arguments.url, queue_name=QUEUE)
    for i in range(arguments.n):
        client.spawn(arguments.workload, {"i": i}, queue=QUEUE)


def work(arguments):
    """Run tasks until killed."""
    if arguments.workload.endswith("-async"):
        asyncio.run(work_async(arguments.url))
    else:
        work_sync(arguments.url)


async def work_async(url):
    protocol.say("ready")
    await asyncio.gather(*(run_client(url) for _ in range(CLIENTS)))


async def run_client(url):
    client = AsyncAbsurd(url, queue_name=QUEUE)

    @client.register_task("steps-async")
    async def steps_async(params, context):
        for k in range(10):
            await context.step(f"s{k}", partial(asame, k))
        return params

    await client.start_worker(concurrency=TASKS_A_CLIENT, poll_interval=0.05)


def same(i):
    return i


async def asame(i):
    return i


def work_sync(url):
    client = Absurd(url, queue_name=QUEUE)

    @client.register_task("steps-sync")
    def steps_sync(params, context):
        for k in range(10):
            context.step(f"s{k}", partial(same, k))
        return params

    protocol.say("ready")
    client.start_worker(concurrency=1, batch_size=TASKS_A_CLIENT, poll_interval=0.05)


if __name__ == "__main__":
    protocol.run({"setup": setup, "fill": fill, "work": work})
