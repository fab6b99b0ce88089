"""Figures of ours that no peer is held against: recovery, sleepers, long workflows, weight.

They read the database or /proc from outside, like the rest of the bench.
"""

import contextlib
import os
import signal
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg

from benchmarks.contestants import Contestant, Failed, Process
from benchmarks.report import Word

LEASE = 30.0  # seconds, the default
WORKFLOWS = "durable_workflows_workflow"
STEPS = "durable_workflows_step"
Ask = Callable[[str], list[tuple]]

RUNNING_FIRST = "worker_id IS NOT NULL AND attempt = 1 AND status = 'PENDING'"
RUNNING_AGAIN = "worker_id IS NOT NULL AND attempt > 1 AND status = 'PENDING'"
ASLEEP = "worker_id IS NULL AND wake_at IS NOT NULL AND status = 'PENDING'"


def recovery(contestant: Contestant, *, quick: bool) -> list[Word]:
    """Return how long a killed worker's workflows wait until they run again.

    Twenty workflows run in one worker, a second worker stands by; the first is
    killed with SIGKILL. On PostgreSQL the database can tell that it is gone, on
    SQLite the lease has to run out.
    """
    waits = []
    for _ in range(1 if quick else 3):
        with contestant.database() as url:
            waits += kill_one(contestant, url)
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        url = f"sqlite:///{place}/db.sqlite3"
        contestant.call("setup", url)
        slowest = max(kill_one(contestant, url))
    return [
        Word("killed worker's runs go on, PostgreSQL, median", statistics.median(waits), "s", 4.0),
        Word("the same, SQLite, slowest", slowest, "s", LEASE + 2),
    ]


def kill_one(contestant: Contestant, url: str) -> list[float]:
    """Kill a worker with twenty workflows; return each one's wait for its next attempt."""
    contestant.call("fill", url, workload="slow", n=20)
    with reader(url) as ask, contestant.worker(url, "slow") as first:
        await_that(lambda: count(ask, RUNNING_FIRST) == 20, 60, first)
        with contestant.worker(url, "slow") as second:
            await_that(lambda: count_workers(ask) == 2, 60, second)
            time.sleep(8)  # a beat or two: the second worker has looked at the first
            return waits_after_kill(ask, first, second)


def count_workers(ask: Ask) -> int:
    return ask("SELECT count(*) FROM durable_workflows_worker WHERE state = 'live'")[0][0]


def waits_after_kill(ask: Ask, first: Process, second: Process) -> list[float]:
    first.popen.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    waits: list[float] = []
    while len(waits) < 20:
        again = count(ask, RUNNING_AGAIN)
        waits += [time.monotonic() - killed] * (again - len(waits))
        if time.monotonic() - killed > 3 * LEASE:
            raise Failed(f"{again} of 20 run again after {3 * LEASE} s.\n{second.last_words()}")
        time.sleep(0.02)
    return waits


def sleepers(contestant: Contestant, *, quick: bool) -> list[Word]:
    """Return what a worker with 100,000 sleeping workflows takes more than an idle one."""
    asleep = 10_000 if quick else 100_000
    return asleep_on_one_worker(contestant, "sync", asleep) + asleep_on_one_worker(
        contestant, "async", asleep
    )


def asleep_on_one_worker(contestant: Contestant, colour: str, asleep: int) -> list[Word]:
    with (
        contestant.database() as url,
        reader(url) as ask,
        contestant.worker(url, "nap") as worker,
    ):
        time.sleep(10)
        idle = memory(worker.popen.pid)
        contestant.call("fill", url, workload=f"nap-{colour}", n=asleep)
        await_that(lambda: count(ask, ASLEEP) == asleep, 600, worker, every=1.0)
        time.sleep(15)
        name = f"{asleep:,} asleep, {colour}"
        return [
            Word(f"{name}: memory over idle", memory(worker.popen.pid) - idle, "MB", 50.0),
            Word(f"{name}: processor", 100 * load(worker.popen.pid), "% of a core", 5.0),
            Word(
                f"{name}: 1,000 others worked off", others(contestant, url, ask, worker), "s", 5.0
            ),
        ]


def others(contestant: Contestant, url: str, ask: Ask, worker: Process) -> float:
    """Return the seconds from enqueue to end of 1,000 no-op workflows."""
    contestant.call("fill", url, workload="noop-sync", n=1000)
    await_that(lambda: count(ask, "status = 'SUCCESS'") == 1000, 60, worker)
    [(seconds,)] = ask(
        "SELECT extract(epoch FROM max(completed_at) - min(created_at))"
        f" FROM {WORKFLOWS} WHERE status = 'SUCCESS'"
    )
    return float(seconds)


def long(contestant: Contestant, *, quick: bool) -> list[Word]:
    """Return the cost of a step at the end of 5,000 as a ratio to one at the start."""
    steps = 1000 if quick else 5000
    tenth = steps // 10
    with contestant.database() as url, reader(url) as ask:
        contestant.call("fill", url, workload="alone", n=steps)
        with contestant.worker(url, "alone") as worker:
            contestant.await_finished(url, 1, worker, within=300)
        rows = ask(f"SELECT extract(epoch FROM completed_at) FROM {STEPS} ORDER BY position")
    ends = [float(end) for (end,) in rows]
    start, finish = ends[tenth] - ends[0], ends[-1] - ends[-1 - tenth]
    return [
        Word(f"a step at the end of {steps:,} to one at the start", finish / start, "times", 2.0)
    ]


def weight(contestant: Contestant, *, quick: bool) -> list[Word]:
    """Return the bytes a workflow, a step and what they log take, indexes included."""
    n = 200 if quick else 2000
    with contestant.database() as url, reader(url) as ask:
        contestant.call("fill", url, workload="steps-async", n=n)
        begin = wal_position(ask)
        with contestant.worker(url, "steps-async") as worker:
            contestant.await_finished(url, n, worker, within=300)
        logged = wal_position(ask) - begin
        return [
            Word("a finished workflow's row, with indexes", size(ask, WORKFLOWS) / n, "bytes"),
            Word("a recorded step's row, with index", size(ask, STEPS) / (10 * n), "bytes"),
            Word("log a step, with its part of claim and outcome", logged / (10 * n), "bytes"),
        ]


def size(ask: Ask, table: str) -> float:
    return float(ask(f"SELECT pg_total_relation_size('{table}')")[0][0])


def wal_position(ask: Ask) -> float:
    return float(ask("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")[0][0])


@contextlib.contextmanager
def reader(url: str) -> Iterator[Ask]:
    """Yield a function that runs one statement and returns its rows."""
    connection: sqlite3.Connection | psycopg.Connection
    if url.startswith("sqlite"):
        place = url.removeprefix("sqlite://")
        connection = sqlite3.connect(place, isolation_level=None, timeout=20)
    else:
        connection = psycopg.connect(url, autocommit=True)
    with contextlib.closing(connection):
        yield lambda statement: connection.execute(statement).fetchall()


def count(ask: Ask, condition: str) -> int:
    return ask(f"SELECT count(*) FROM {WORKFLOWS} WHERE {condition}")[0][0]


def await_that(
    holds: Callable[[], bool], within: float, process: Process, *, every: float = 0.1
) -> None:
    deadline = time.monotonic() + within
    while not holds():
        process.must_live()
        if time.monotonic() > deadline:
            raise Failed(f"Nothing more happened in {within} s.\n{process.last_words()}")
        time.sleep(every)


def memory(pid: int) -> float:
    """Return the megabytes a process has resident (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def load(pid: int, *, seconds: float = 30) -> float:
    """Return how much of a core a process takes, watched for that long (Linux)."""
    before = processor(pid)
    time.sleep(seconds)
    return (processor(pid) - before) / seconds


def processor(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


WORDS: dict[str, Callable[..., list[Word]]] = {
    "recovery": recovery,
    "sleepers": sleepers,
    "long": long,
    "weight": weight,
}
