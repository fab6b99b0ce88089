"""Runs of workflows that are called directly: here, now, and durable all the same.

They belong to a worker row of kind "inline", made with this process's first such run
and beaten by one daemon thread only while there are any. If the process dies, any
worker takes over. Inline runs wait in place; they do not suspend.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from durable_workflows.core.records import WorkerFacts
from durable_workflows.engine.journal import DirectJournal
from durable_workflows.engine.process import Process
from durable_workflows.engine.run import Run
from durable_workflows.engine.runtime import Runtime
from durable_workflows.errors import LeaseLost

logger = logging.getLogger("durable_workflows")


def executor_id() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


class InlineHost:
    """This process as a worker of kind "inline"."""

    def __init__(self, process: Process):
        self.process = process
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._worker: int | None = None
        self._runs: set[Run] = set()
        self._waiting = threading.Event()
        self._thread: threading.Thread | None = None

    def runtime(self) -> Runtime:
        process = self.process
        return Runtime(
            store=process.store,
            reader=process.store,
            journal=DirectJournal(process.store, process.aftermath, process.clock),
            clock=process.clock,
            registry=process.registry,
            waiters=process.waiters,
            payload_max_bytes=process.settings.payload_max_bytes,
            suspends=False,
            suspend_after=process.settings.suspend_after_seconds,
            app_version=process.settings.app_version,
        )

    def worker(self) -> int:
        """Return the id of a live worker row for a run that is about to begin."""
        if self.process.store.in_test():
            # The row lives and dies with the test's transaction; nobody else could see it.
            return self._enlist()
        with self._lock:
            if self._worker is None or not self.process.store.beat(self._worker).live:
                self._worker = self._enlist()
            return self._worker

    @contextmanager
    def beating(self, run: Run, *, in_test: bool) -> Iterator[None]:
        """Keep the lease of this process while the run is under way."""
        if in_test:
            yield
            return
        with self._lock:
            self._runs.add(run)
            self._waiting.clear()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._beat_while_running, name="durable-inline-beat", daemon=True
                )
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._runs.discard(run)
                if not self._runs:
                    self._waiting.set()

    def _enlist(self) -> int:
        facts = WorkerFacts(
            "inline", socket.gethostname(), os.getpid(), self.process.settings.app_version
        )
        return self.process.store.enlist(facts, self.process.settings.lease_seconds)

    def _beat_while_running(self) -> None:
        store = self.process.store.dedicated()
        try:
            while True:
                self._waiting.wait(self.process.settings.beat_seconds)
                with self._lock:
                    if not self._runs:
                        self._thread = None
                        return
                    worker, runs = self._worker, list(self._runs)
                if worker is not None and not store.beat(worker).live:
                    self._lose(worker, runs)
        finally:
            with self._lock:
                if self._thread is threading.current_thread():  # an error: the next run begins anew
                    self._thread = None
            store.close()

    def _lose(self, worker: int, runs: list[Run]) -> None:
        logger.warning("This process was declared dead while it ran workflows inline")
        with self._lock:
            self._worker = None
        for run in runs:
            if run.claim.worker == worker:
                run.lose(LeaseLost(f"worker {worker} was declared dead"))


_hosts: dict[Process, InlineHost] = {}


def inline_host(process: Process) -> InlineHost:
    # One step, also for threads that come first together: a second host would be a worker
    # that nobody beats.
    return _hosts.get(process) or _hosts.setdefault(process, InlineHost(process))
