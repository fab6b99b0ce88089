"""The contestants: how to start each, and how to read its progress from outside.

Rates are computed from the times that stand in the contestant's own rows,
read by the bench on a connection of its own; no process reports its rate.
"""

import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import psycopg

from benchmarks import environments


class Failed(RuntimeError):
    """A contestant did not do its part; the message ends with its last words."""


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A program that takes part, in one Python, on one server."""

    name: str
    python: str
    url: str  # of any database of the server; of the broker for celery
    progress: str = ""  # SQL: finished, first start, last end (seconds since 1970)
    workflows: str = ""  # the table what is enqueued goes to
    steps: str = ""  # the table of recorded steps

    @property
    def module(self) -> str:
        return "benchmarks.ours" if self.name == "ours" else f"benchmarks.peers.{self.name}"

    def command(self, verb: str, url: str, **options: object) -> list[str]:
        words = [self.python, "-m", self.module, verb, "--url", url]
        for option, value in options.items():
            words += [f"--{option}" if len(option) > 1 else f"-{option}", str(value)]
        return words

    def variables(self, url: str) -> dict[str, str]:
        """Return the process's environment: the settings read the database from it."""
        if self.name == "celery":
            return environments.environment(BENCH_REDIS=url)
        return environments.environment(
            BENCH_DATABASE_URL=url, DJANGO_SETTINGS_MODULE="benchmarks.settings"
        )

    def call(self, verb: str, url: str, **options: object) -> None:
        """Run a verb to its end, unmeasured."""
        with self.process(self.command(verb, url, **options), url) as process:
            process.finish()

    @contextlib.contextmanager
    def process(self, command: list[str], url: str) -> Iterator["Process"]:
        """Start a process and end it with the block."""
        with tempfile.TemporaryFile("w+") as log:
            popen = subprocess.Popen(
                command,
                cwd=environments.ROOT,
                env=self.variables(url),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            process = Process(popen, log)
            try:
                yield process
            finally:
                process.end()

    @contextlib.contextmanager
    def worker(self, url: str, workload: str) -> Iterator["Process"]:
        """Have one worker process run during the block."""
        with self.process(self.command("work", url, workload=workload), url) as process:
            process.hear("ready")
            yield process

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """Yield a fresh database with the contestant's schema in it."""
        if not self.progress:
            yield self.url
            return
        template, name = f"template_{self.name}", f"run_{self.name}"
        if not self.has_database(template):
            self.call("setup", environments.create_database(self.url, f"{template}_making"))
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute(f'ALTER DATABASE "{template}_making" RENAME TO "{template}"')
        yield environments.create_database(self.url, name, template=template)
        environments.drop_database(self.url, name)

    def has_database(self, name: str) -> bool:
        with psycopg.connect(self.url) as connection:
            row = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
            return row.fetchone() is not None

    def must_have(self, url: str, table: str, count: int) -> None:
        """Raise Failed unless the table has `count` rows: no rate for work not recorded."""
        with psycopg.connect(url) as connection:
            [(found,)] = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
        if found != count:
            raise Failed(f"{self.name}: {table} has {found} rows, not {count}")

    def await_finished(self, url: str, count: int, process: "Process", *, within: float) -> float:
        """Wait until `count` workflows have ended; return the seconds they took.

        From the first one's start to the last one's end, by the rows: how often
        they are looked at does not change the figure, so seldom.
        """
        deadline = time.monotonic() + within
        # Compiling a plan, or a scan of a million rows by two processes, would
        # take more from the contestants than the look itself.
        frugal = "-c jit=off -c enable_seqscan=off -c max_parallel_workers_per_gather=0"
        with psycopg.connect(url, autocommit=True, options=frugal) as connection:
            while True:
                finished, first, last = connection.execute(self.progress).fetchone()
                if finished >= count:
                    return float(last) - float(first)
                if time.monotonic() > deadline:
                    raise Failed(
                        f"{self.name}: {finished} of {count} finished in {within} s."
                        f"\n{process.last_words()}"
                    )
                process.must_live()
                time.sleep(0.5)


class Process:
    """A running contestant, with what it says on stdout and its log."""

    def __init__(self, popen: subprocess.Popen, log):
        self.popen, self.log = popen, log

    def hear(self, event: str) -> dict:
        """Return the next line that says `event`; other output is skipped."""
        for line in self.popen.stdout:
            if not line.startswith("{"):
                continue
            facts = json.loads(line)
            if facts.get("event") == event:
                return facts
        self.popen.wait()
        raise Failed(f"{self.popen.args} ended without {event!r}.\n{self.last_words()}")

    def go(self) -> None:
        self.popen.stdin.write("go\n")
        self.popen.stdin.flush()

    def finish(self) -> None:
        """Wait for the end; a status other than 0 is an error."""
        self.popen.communicate()
        if self.popen.returncode:
            raise Failed(f"{self.popen.args} failed.\n{self.last_words()}")

    def must_live(self) -> None:
        if self.popen.poll() is not None:
            raise Failed(f"{self.popen.args} ended.\n{self.last_words()}")

    def end(self) -> None:
        """Ask politely, then end it: nothing is left running after a measurement."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(5)
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.communicate()

    def last_words(self) -> str:
        self.log.seek(0)
        return self.log.read()[-3000:]


DBOS_PROGRESS = """
    SELECT count(*) FILTER (WHERE status = 'SUCCESS'),
           min(started_at_epoch_ms) / 1000.0, max(completed_at) / 1000.0
    FROM dbos.workflow_status
"""

ABSURD_PROGRESS = """
    SELECT count(*) FILTER (WHERE state = 'completed'),
           extract(epoch FROM min(started_at)), extract(epoch FROM max(completed_at))
    FROM absurd.r_bench
"""

PGQUEUER_PROGRESS = """
    SELECT count(*) FILTER (WHERE status = 'successful'),
           extract(epoch FROM min(created) FILTER (WHERE status = 'picked')),
           extract(epoch FROM max(created) FILTER (WHERE status = 'successful'))
    FROM pgqueuer_log
"""

# By key, so that a million rows from before cost nothing to look past.
OUR_PROGRESS = """
    SELECT count(*) FILTER (WHERE status = 'SUCCESS'),
           extract(epoch FROM min(dequeued_at)), extract(epoch FROM max(completed_at))
    FROM durable_workflows_workflow
    WHERE id > (SELECT coalesce(max(id), 0) FROM bench_before)
"""


def peers(database_url: str, redis_url: str | None, wanted: set[str]) -> dict[str, Contestant]:
    """Return the wanted peers by name, their environments installed."""
    facts = {
        "dbos": (DBOS_PROGRESS, "dbos.workflow_status", "dbos.operation_outputs"),
        "absurd": (ABSURD_PROGRESS, "absurd.t_bench", "absurd.c_bench"),
        "pgqueuer": (PGQUEUER_PROGRESS, "pgqueuer", ""),
    }
    found = {
        name: Contestant(name, environments.python_of(name), database_url, *facts[name])
        for name in facts
        if name in wanted
    }
    if "celery" in wanted and redis_url is not None:
        found["celery"] = Contestant("celery", environments.python_of("celery"), redis_url)
    return found


def ours(database_url: str) -> Contestant:
    return Contestant(
        "ours",
        sys.executable,
        database_url,
        OUR_PROGRESS,
        "durable_workflows_workflow",
        "durable_workflows_step",
    )
