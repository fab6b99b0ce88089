"""pgqueuer: a queue without results or steps; claims and finishes in batches.

Its best configuration found: batches of 100, an asyncpg pool of four; uvloop,
as its own command line uses it; its periodic statistics are off.
"""

from datetime import timedelta

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from benchmarks import protocol

ENTRYPOINT = "noop"


async def connect(url):
    return Queries(AsyncpgDriver(await asyncpg.connect(url)))


async def setup(arguments):
    await (await connect(arguments.url)).install()


async def fill(arguments):
    await enqueue_batches(await connect(arguments.url), arguments.n, arguments.batch)


async def enqueue_many(arguments):
    queries = await connect(arguments.url)
    await enqueue_batches(queries, 1, 1)
    protocol.await_go()
    await enqueue_batches(queries, arguments.n, arguments.batch)
    protocol.say("done")


async def enqueue_batches(queries, n, batch):
    for begin in range(0, n, batch):
        payloads = [str(i).encode() for i in range(begin, min(n, begin + batch))]
        size = len(payloads)
        await queries.enqueue([ENTRYPOINT] * size, payloads, [0] * size)


async def work(arguments):
    """Take jobs until killed."""
    pool = await asyncpg.create_pool(arguments.url, min_size=4, max_size=4)
    worker = PgQueuer.from_asyncpg_pool(pool)

    @worker.entrypoint(ENTRYPOINT)
    async def noop(job):
        pass

    protocol.say("ready")
    await worker.run(batch_size=100, log_aggregation_interval=timedelta(0))


def in_loop(verb):
    return lambda arguments: uvloop.run(verb(arguments))


if __name__ == "__main__":
    verbs = {"setup": setup, "fill": fill, "enqueue-many": enqueue_many, "work": work}
    protocol.run({name: in_loop(verb) for name, verb in verbs.items()})
