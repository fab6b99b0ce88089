"""celery on Redis, not durable: here only to compare the time to a result.

Its best configuration found: the solo pool, 64 prefetched, no gossip, mingle,
heartbeat or events.
"""

import os

import celery

from benchmarks import protocol

app = celery.Celery("bench")
app.conf.update(
    broker_url=os.environ.get("BENCH_REDIS", ""),
    result_backend=os.environ.get("BENCH_REDIS", ""),
    broker_connection_retry_on_startup=True,
    task_serializer="json",
    worker_prefetch_multiplier=64,
    worker_hijack_root_logger=False,
)


@app.task(name="noop")
def noop(i):
    return i


def work(arguments):
    """Take tasks until told to stop."""
    protocol.say("ready")
    calm = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["worker", "--pool", "solo", "--loglevel", "ERROR", *calm])


def ask(arguments):
    protocol.ask_repeatedly(lambda i: noop.delay(i).get(), times=arguments.n)


if __name__ == "__main__":
    app.set_current()
    protocol.run({"work": work, "ask": ask})
