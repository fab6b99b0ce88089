"""The workloads: each runs one contestant once and returns one figure.

A turn has a fresh database, one worker process, and nothing else running. Rates
are per second; latencies are medians in seconds.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable

import psycopg

from benchmarks.contestants import Contestant


@dataclasses.dataclass(frozen=True)
class Turn:
    """One contestant's part in a round: what is run, and how much of it."""

    key: str  # names the figure in the results: "dbos steps-async"
    contestant: str
    run: Callable[[Contestant, int], float]
    n: int  # enough for three seconds or more at the contestant's usual rate


def drain(workload: str) -> Callable[[Contestant, int], float]:
    """Return the measurement of n waiting no-op workflows worked off by one process.

    The rate is taken between the first claim and the last recorded end: start-up
    is left out for everybody.
    """

    def run(contestant: Contestant, n: int) -> float:
        with contestant.database() as url:
            return drained(contestant, url, workload, n)

    return run


def steps(workload: str) -> Callable[[Contestant, int], float]:
    """Return the measurement of n workflows of ten steps each, in steps a second."""

    def run(contestant: Contestant, n: int) -> float:
        with contestant.database() as url:
            rate = drained(contestant, url, workload, n)
            contestant.must_have(url, contestant.steps, 10 * n)
            return 10 * rate

    return run


def drained(contestant: Contestant, url: str, workload: str, n: int) -> float:
    """Fill the database, run a worker until all is done; return workflows a second."""
    contestant.call("fill", url, workload=workload, n=n)
    with contestant.worker(url, workload) as worker:
        return n / contestant.await_finished(url, n, worker, within=300)


def alone(contestant: Contestant, n: int) -> float:
    """Return steps a second of one workflow of n steps that has the worker to itself."""
    with contestant.database() as url:
        contestant.call("fill", url, workload="alone", n=n)
        with contestant.worker(url, "alone") as worker:
            seconds = contestant.await_finished(url, 1, worker, within=300)
        contestant.must_have(url, contestant.steps, n)
        return n / seconds


def timed(verb: str) -> Callable[[Contestant, int], float]:
    """Return the measurement of a verb that does something n times when told to go.

    The stopwatch is the bench's, from "go" to "done"; imports, the connection
    and a first call come before.
    """

    def run(contestant: Contestant, n: int) -> float:
        with (
            contestant.database() as url,
            contestant.process(contestant.command(verb, url, n=n), url) as process,
        ):
            process.hear("ready")
            begin = time.perf_counter()
            process.go()
            process.hear("done")
            seconds = time.perf_counter() - begin
            contestant.must_have(url, contestant.workflows, n + 1)
            return n / seconds

    return run


def latency(contestant: Contestant, n: int) -> float:
    """Return the median of n times from enqueue to result, between two processes.

    The one clock that is not the bench's: only the caller sees both ends.
    """
    with (
        contestant.database() as url,
        contestant.worker(url, "latency"),
        contestant.process(contestant.command("ask", url, n=n), url) as client,
    ):
        client.hear("ready")
        client.go()
        return statistics.median(client.hear("done")["seconds"])


def backlog(kind: str) -> Callable[[Contestant, int], float]:
    """Return the measurement of a drain beside many other rows."""

    def run(contestant: Contestant, n: int) -> float:
        with contestant.database() as url:
            if kind == "finished":
                add_finished(contestant, url, 1_000_000)
            if kind == "waiting":
                contestant.call("fill", url, workload="noop-sync", n=100_000, queue="other")
            settle(url)
            return drained(contestant, url, "noop-sync", n)

    return run


def add_finished(contestant: Contestant, url: str, count: int) -> None:
    """Have one workflow run, and repeat its row until there are `count`."""
    drained(contestant, url, "noop-sync", 1)
    with psycopg.connect(url, autocommit=True) as connection:
        columns = [
            name
            for (name,) in connection.execute(
                "SELECT column_name FROM information_schema.columns"
                " WHERE table_name = 'durable_workflows_workflow' AND column_name <> 'id'"
            )
        ]
        values = [
            "gen_random_uuid()::text" if name == "workflow_id" else f"w.{name}" for name in columns
        ]
        connection.execute(
            f"INSERT INTO durable_workflows_workflow ({', '.join(columns)})"
            f" SELECT {', '.join(values)} FROM durable_workflows_workflow w,"
            f" generate_series(2, %s)",
            [count],
        )


def settle(url: str) -> None:
    """Leave the table as a server that has had time would, and mark where it ends."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE durable_workflows_workflow")
        connection.execute(
            "INSERT INTO bench_before SELECT max(id) FROM durable_workflows_workflow"
        )
        connection.execute("CHECKPOINT")


# By the name that --only takes. Within a round the turns go in this order, so
# that what is compared is run within the same minute or two.
WORKLOADS: dict[str, list[Turn]] = {
    "steps": [
        Turn("dbos steps-async", "dbos", steps("steps-async"), 200),
        Turn("dbos steps-sync", "dbos", steps("steps-sync"), 200),
        Turn("absurd steps-async", "absurd", steps("steps-async"), 600),
        Turn("absurd steps-sync", "absurd", steps("steps-sync"), 300),
        Turn("ours steps-async", "ours", steps("steps-async"), 10_000),
        Turn("ours steps-sync", "ours", steps("steps-sync"), 4_000),
    ],
    "alone": [
        Turn("dbos alone", "dbos", alone, 600),
        Turn("ours alone", "ours", alone, 5_000),
    ],
    "drain": [
        Turn("dbos noop-async", "dbos", drain("noop-async"), 2_000),
        Turn("dbos noop-sync", "dbos", drain("noop-sync"), 4_000),
        Turn("pgqueuer noop", "pgqueuer", drain("noop-async"), 40_000),
        Turn("ours noop-sync", "ours", drain("noop-sync"), 50_000),
        Turn("ours noop-async", "ours", drain("noop-async"), 50_000),
    ],
    "enqueue": [
        Turn("dbos enqueue", "dbos", timed("enqueue"), 1_500),
        Turn("insert", "ours", timed("insert"), 6_000),
        Turn("ours enqueue", "ours", timed("enqueue"), 4_000),
    ],
    "enqueue-many": [
        Turn("pgqueuer enqueue-many", "pgqueuer", timed("enqueue-many"), 100_000),
        Turn("ours enqueue-many", "ours", timed("enqueue-many"), 100_000),
    ],
    "latency": [
        Turn("dbos latency", "dbos", latency, 200),
        Turn("celery latency", "celery", latency, 200),
        Turn("ours latency", "ours", latency, 200),
    ],
    "backlog": [
        Turn("ours drain, empty table", "ours", backlog("nothing"), 50_000),
        Turn("ours drain, 1,000,000 finished", "ours", backlog("finished"), 50_000),
        Turn("ours drain, 100,000 waiting", "ours", backlog("waiting"), 50_000),
    ],
}
