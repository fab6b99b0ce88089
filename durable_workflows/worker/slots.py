"""Where claimed workflows run: threads for `def`, one loop for `async def`.

User code's database connections are Django's own, one per slot thread; async code gets
its ORM through a few long-lived threads, so that one slow query delays a few runs and
not all. They are kept for an activation and checked at its start, whatever
CONN_MAX_AGE says; between steps only a broken one is closed.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Sequence
from queue import SimpleQueue

from asgiref.sync import SyncToAsync, ThreadSensitiveContext
from django.db import connections
from django.utils import timezone, translation

from durable_workflows.core.records import Claim
from durable_workflows.engine.execute import Begun, Freed, aexecute, execute
from durable_workflows.engine.leaving import equip
from durable_workflows.engine.runtime import Runtime

logger = logging.getLogger("durable_workflows.worker")

ORM_THREADS = 8  # of an event loop, for the ORM of async workflows


def begin_activation() -> None:
    """Give a run fresh ground: usable connections, the project's language and time zone."""
    for connection in connections.all(initialized_only=True):
        if connection.connection is not None:
            connection.close_at = None  # kept, whatever CONN_MAX_AGE says
            if connection.errors_occurred or not connection.in_atomic_block:
                connection.close_if_unusable_or_obsolete()
        connection.force_debug_cursor = False
        connection.queries_log.clear()
    translation.deactivate()
    timezone.deactivate()


class ThreadSlots:
    """A pool of threads, each running one sync workflow at a time."""

    def __init__(self, size: int, runtime: Runtime, begun: Begun, freed: Freed):
        self.size, self.runtime, self.begun, self.freed = size, runtime, begun, freed
        self._queue: SimpleQueue[Claim | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._threads: list[threading.Thread] = []
        self.waiting = 0  # claimed, but no thread has begun them

    def submit(self, claims: Sequence[Claim]) -> None:
        with self._lock:
            self.waiting += len(claims)
            missing = min(self.waiting - self._idle, self.size - len(self._threads))
            for _ in range(missing):
                thread = threading.Thread(
                    target=self._serve,
                    name=f"durable-slot-{len(self._threads)}",
                    daemon=True,
                )
                self._threads.append(thread)
                thread.start()
        for claim in claims:
            self._queue.put(claim)

    def withdraw(self) -> list[Claim]:
        """Take back what was claimed ahead and has not begun."""
        claims = []
        while not self._queue.empty():
            claim = self._queue.get()
            if claim is not None:
                claims.append(claim)
        with self._lock:
            self.waiting -= len(claims)
        return claims

    def close(self, timeout: float) -> None:
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout)

    def _serve(self) -> None:
        try:
            while True:
                with self._lock:
                    self._idle += 1
                claim = self._queue.get()
                with self._lock:
                    self._idle -= 1
                    self.waiting -= claim is not None
                if claim is None:
                    return
                self._run(claim)
        finally:
            connections.close_all()

    def _run(self, claim: Claim) -> None:
        try:
            begin_activation()
            execute(claim, self.runtime, self.freed, self.begun)
        except Exception:
            logger.exception("Workflow %s could not be run here", claim.workflow_id)
            self.freed(claim)


class LoopSlots:
    """An event loop in a thread, running many async workflows side by side."""

    def __init__(self, size: int, runtime: Runtime, begun: Begun, freed: Freed):
        self.size, self.runtime, self.begun, self.freed = size, runtime, begun, freed
        self.loop = asyncio.new_event_loop()
        equip(self.loop)
        # Each is a thread of its own for sync_to_async; a run keeps one for its activation.
        self._contexts = itertools.cycle([ThreadSensitiveContext() for _ in range(ORM_THREADS)])
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._serve, name="durable-loop", daemon=True)
        self._thread.start()

    def submit(self, claims: Sequence[Claim]) -> None:
        self.loop.call_soon_threadsafe(self._run, claims)

    def isolate(self) -> None:
        """Give the context of a beginning run one of the ORM threads. Called inside it."""
        SyncToAsync.thread_sensitive_context.set(next(self._contexts))

    def close(self, timeout: float) -> None:
        if self._thread is not None:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(timeout)
        if not self.loop.is_running():
            self.loop.close()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def _run(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            try:
                aexecute(claim, self.runtime, self.freed, self.begun)
            except Exception:
                logger.exception("Workflow %s could not be run here", claim.workflow_id)
                self.freed(claim)
