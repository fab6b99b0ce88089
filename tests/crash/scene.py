"""Where crash tests take place: worker processes, and what can be seen of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from django.db import connection

from durable_workflows.core.states import FINAL
from durable_workflows.models import Worker, Workflow
from tests.crash import oracle

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 60.0  # seconds until a test believes that something will not happen


def until(condition: Callable[[], Any], what: str, *, patience: float = PATIENCE) -> Any:
    """Wait until a condition holds and return what it returned; fail after `patience` seconds."""
    give_up_at = time.monotonic() + patience
    while not (answer := condition()):
        assert time.monotonic() < give_up_at, f"not within {patience:g} s: {what}"
        time.sleep(0.02)
    return answer


class Process:
    """A process of the project, and its log."""

    def __init__(self, scene: "Scene", command: list[str], log: Path):
        self.scene, self.log = scene, log
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                command,
                cwd=ROOT,
                env=scene.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    @property
    def ids(self) -> list[int]:
        """The ids of this process's worker rows, the first one first."""
        rows = Worker.objects.filter(pid=self.pid)
        return list(rows.order_by("id").values_list("id", flat=True))

    def owned(self) -> int:
        return Workflow.objects.filter(worker__pid=self.pid).count()

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def ends(self, patience: float = PATIENCE) -> int:
        """Wait for the end and return the exit status."""
        return self.popen.wait(patience)


class Scene:
    """A database, worker processes on it, and the directory that they share with the test."""

    def __init__(self, environment: dict[str, str], place: Path):
        self.place = place
        self.settings: dict[str, Any] = {
            "LEASE_SECONDS": 2,
            "POLL_SECONDS": 0.2,
            "SUSPEND_AFTER_SECONDS": 0.2,
        }
        self._environment = environment | {"DURABLE_TEST_MARKS": str(place)}
        self.processes: list[Process] = []

    # -- processes -----------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        return self._environment | {"DURABLE_TEST_SETTINGS": json.dumps(self.settings)}

    def watch_stores(self) -> None:
        """Let processes started from now on note batches and refused entries."""
        self._environment["DURABLE_TEST_WATCH"] = "1"

    def set_deaths(self, points: Iterable[str]) -> None:
        """Let workers started from now on die at statements, one at each of these points."""
        self._environment["DURABLE_TEST_DEATHS"] = "1"
        for point in points:
            (self.place / f"die-{point}").touch()

    def deaths_left(self) -> list[str]:
        return sorted(path.name for path in self.place.glob("die-*"))

    def worker(self, *words: str) -> Process:
        return self.run(str(ROOT / "manage.py"), "runworker", "--no-reload", *words)

    def ready_worker(self, *words: str) -> Process:
        """Return a worker that has enlisted."""
        worker = self.worker(*words)
        until(lambda: worker.ids or not worker.alive, "a worker enlists")
        assert worker.alive, self.logs()
        return worker

    def run(self, *words: str) -> Process:
        log = self.place / f"process-{len(self.processes)}.log"
        self.processes.append(Process(self, [sys.executable, *words], log))
        return self.processes[-1]

    def end(self) -> None:
        for process in self.processes:
            if process.alive:
                process.send(signal.SIGCONT)
                process.send(signal.SIGUSR1)
        time.sleep(0.1)
        for process in self.processes:
            if process.alive:
                process.kill()

    def logs(self) -> str:
        return "\n".join(
            f"--- process {process.pid}, status {process.popen.poll()}\n"
            + process.log.read_text(errors="replace")[-20000:]
            for process in self.processes
        )

    # -- traps, gates, marks ---------------------------------------------------

    def set_trap(self, workflow_id: str, point: str) -> None:
        (self.place / f"{workflow_id}@{point}").touch()

    def sprung(self) -> int:
        return len(list(self.place.glob("*.sprung")))

    def open(self, gate: str) -> None:
        (self.place / f"open-{gate}").touch()

    def marks(self, kind: str) -> list[list[str]]:
        """Return the words of the marks of a kind, in the order they were made."""
        return [words[1:] for words in self.all_marks() if words[0] == kind]

    def all_marks(self) -> list[list[str]]:
        try:
            lines = (self.place / "marks").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [line.split() for line in lines]

    def mark(self, *words: object) -> None:
        with (self.place / "marks").open("a") as file:
            file.write(" ".join(map(str, words)) + "\n")

    def see_work(self, count: int, *, patience: float = PATIENCE) -> None:
        """Wait until as many more steps have been called, or nothing is left to do."""
        enough = len(self.marks("step")) + count
        until(
            lambda: len(self.marks("step")) >= enough or self.all_ended(),
            f"{count} steps are called",
            patience=patience,
        )

    # -- workflows -------------------------------------------------------------

    def rows(self, **conditions: Any) -> Any:
        return Workflow.objects.filter(**conditions)

    def all_ended(self) -> bool:
        return not self.rows().exclude(status__in=FINAL).exists()

    def finish(self, *, patience: float = 2 * PATIENCE) -> None:
        """Wait until every workflow has ended, then ask the oracle."""
        try:
            until(self.all_ended, "every workflow ends", patience=patience)
        except AssertionError:
            for row in self.rows().exclude(status__in=FINAL)[:10]:
                print(row, row.status, row.attempt, row.worker_id, row.wake_at, row.waits[:300])
            raise
        assert oracle.findings(self.marks("step")) == []

    def all_succeeded(self) -> bool:
        return not self.rows().exclude(status="SUCCESS").exists()

    def keep_up(
        self,
        condition: Callable[[], Any],
        what: str,
        count: int,
        *words: str,
        patience: float = 2 * PATIENCE,
    ) -> int:
        """Wait for a condition and meanwhile replace workers that ended; return how many."""
        running = [self.worker(*words) for _ in range(count)]
        replaced = 0

        def look() -> Any:
            nonlocal replaced
            for number, worker in enumerate(running):
                if not worker.alive:
                    running[number] = self.worker(*words)
                    replaced += 1
            return condition()

        until(look, what, patience=patience)
        return replaced

    def fits_for_writers(self) -> bool:
        """Return whether somebody can write; a stopped process may hold SQLite's lock."""
        if connection.vendor != "sqlite":
            return True
        import sqlite3

        raw = sqlite3.connect(connection.settings_dict["NAME"], timeout=0.2)
        try:
            raw.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        finally:
            raw.close()
        return True


def ids(handles: Iterable[Any]) -> list[str]:
    return [handle.workflow_id for handle in handles]


def executor(process: Process) -> str:
    return f"{os.uname().nodename}:{process.pid}"
