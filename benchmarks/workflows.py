"""Our workflows for the benchmark; autodiscovery imports this module."""

import time

from durable_workflows import Queue, sleep, sleep_async, step, workflow

bench = Queue("bench")
other = Queue("other")


@step
def same(i):
    return i


@step
async def asame(i):
    return i


@step
def pause(seconds):
    time.sleep(seconds)


@workflow
def steps_sync(i):
    for k in range(10):
        same(k)
    return i


@workflow
async def steps_async(i):
    for k in range(10):
        await asame(k)
    return i


@workflow
def alone(steps):
    for k in range(steps):
        same(k)
    return steps


@workflow
def noop_sync(i):
    return i


@workflow
async def noop_async(i):
    return i


@workflow
def slow(i):
    """Work for a minute in steps of a tenth of a second: something to kill."""
    for _ in range(600):
        pause(0.1)
    return i


@workflow
def nap_sync(seconds):
    sleep(seconds)


@workflow
async def nap_async(seconds):
    await sleep_async(seconds)


WORKLOADS = {
    "steps-sync": steps_sync,
    "steps-async": steps_async,
    "alone": alone,
    "noop-sync": noop_sync,
    "noop-async": noop_async,
    "slow": slow,
    "nap-sync": nap_sync,
    "nap-async": nap_async,
}
