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
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

from asgiref.sync import SyncToAsync, ThreadSensitiveContext
from django.db import connections
from django.db.backends.signals import connection_created
from django.dispatch import receiver

from durable_workflows.core.records import Claim
from durable_workflows.engine.execute import Host, aexecute, execute
from durable_workflows.engine.here import here
from durable_workflows.engine.leaving import equip, leave_behind, nobody
from durable_workflows.engine.run import InStep, Run
from durable_workflows.engine.runtime import Runtime

logger = logging.getLogger("durable_workflows.worker")

ORM_THREADS = 8  # of an event loop, for the ORM of async workflows


CHECK_EVERY = 0.1  # seconds between two looks at the connections of a busy thread


def check_connections() -> None:
    """Close user connections of this thread that can't be used, and keep the others."""
    for connection in connections.all(initialized_only=True):
        if connection.connection is not None and not connection.in_atomic_block:
            connection.close_at = None  # kept, whatever CONN_MAX_AGE says
            if connection.errors_occurred or not connection.is_usable():
                connection.close()


@receiver(connection_created, dispatch_uid="durable_workflows.keep_no_log")
def keep_no_log(connection: Any, **kwargs: Any) -> None:
    """Drop what DEBUG would remember of each query: a worker lives for weeks."""
    place = here.get()
    run = place.run if isinstance(place, InStep) else place
    if run is not None and run.runtime.suspends:
        connection.queries_log = deque(maxlen=0)


def close_broken() -> None:
    """Close what a failed step left broken, so that its next try finds a fresh connection."""
    for connection in connections.all(initialized_only=True):
        if connection.errors_occurred and not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


class ThreadSlots:
    """A pool of threads, each running one sync workflow at a time."""

    def __init__(self, size: int, runtime: Runtime, host: Host):
        self.size, self.runtime, self.host = size, runtime, host
        self._queue: SimpleQueue[Claim | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._unfinished = 0  # claims submitted whose thread is not free again
        self._threads: list[threading.Thread] = []

    def submit(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            self._queue.put(claim)
        with self._lock:
            self._unfinished += len(claims)
            # As many threads as claims, up to the size: none waits behind a step that takes hours
            # while there is room for another thread.
            for _ in range(len(self._threads), min(self._unfinished, self.size)):
                thread = threading.Thread(
                    target=self._serve, name=f"durable-slot-{len(self._threads)}", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:  # the system's limit: those there are serve one after another
                    logger.exception("No thread could be started for a workflow")
                    break
                self._threads.append(thread)

    def withdraw(self) -> list[Claim]:
        """Take back what was claimed and no thread has begun."""
        claims: list[Claim] = []
        with suppress(Empty):
            while True:
                claim = self._queue.get_nowait()
                if claim is not None:
                    claims.append(claim)
        with self._lock:
            self._unfinished -= len(claims)
        return claims

    def close(self, timeout: float) -> None:
        for _ in self._threads:
            self._queue.put(None)
        until = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _serve(self) -> None:
        checked_at = 0.0
        try:
            while (claim := self._queue.get()) is not None:
                check = time.monotonic() - checked_at > CHECK_EVERY
                if check:
                    checked_at = time.monotonic()
                # A context of its own: no language, time zone or other context variable
                # leaks from one run into the next.
                Context().run(self._run, claim, check)
                with self._lock:
                    self._unfinished -= 1
        finally:
            connections.close_all()

    def _run(self, claim: Claim, check: bool) -> None:
        try:
            if check:
                check_connections()
            execute(claim, self.runtime, self.host)
        except Exception:
            logger.exception("Workflow %s could not be run here", claim.workflow_id)
            self.host.failed(claim)


class LoopSlots:
    """An event loop in a thread, running many async workflows side by side."""

    def __init__(self, size: int, runtime: Runtime, host: Host):
        self.size, self.host = size, host
        self.loop = asyncio.new_event_loop()
        equip(self.loop)
        # Each is a thread of its own for sync_to_async; a run keeps one for its activation.
        self._orm = [ThreadSensitiveContext() for _ in range(ORM_THREADS)]
        self._contexts = itertools.cycle(self._orm)
        self.runtime = replace(runtime, isolate=self._isolate)
        self._thread: threading.Thread | None = None
        self._backlog: deque[Claim] = deque()
        self._running = 0
        self._closing = False
        self._checked_at: dict[ThreadSensitiveContext, float] = {}

    def start(self) -> None:
        self._thread = threading.Thread(target=self._serve, name="durable-loop", daemon=True)
        self._thread.start()

    def submit(self, claims: Sequence[Claim]) -> None:
        self._backlog.extend(claims)
        self.loop.call_soon_threadsafe(self._fill)

    def withdraw(self) -> list[Claim]:
        """Take back what was claimed and has not begun."""
        claims: list[Claim] = []
        while self._backlog:
            try:
                claims.append(self._backlog.pop())
            except IndexError:
                break  # the loop was faster
        return claims

    def close(self, timeout: float) -> None:
        self._closing = True
        if self._thread is not None:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(timeout)
        if not self.loop.is_running():
            leave_behind(asyncio.all_tasks(self.loop))
            self.loop.close()
        self._dismiss_orm_threads()

    def _dismiss_orm_threads(self) -> None:
        """End the threads of the async runs' ORM, each after closing its own connections."""
        for context in self._orm:
            executor = SyncToAsync.context_to_thread_executor.pop(context, None)
            if executor is not None:
                executor.submit(connections.close_all)
                executor.shutdown(wait=False)

    # What a run tells its host comes by way of the slots: they count who is running.

    def begun(self, run: Run) -> None:
        self._running += 1
        self.host.begun(run)

    def ended(self, run: Run) -> None:
        self._running -= 1
        self.host.ended(run)
        if self._backlog:
            self.loop.call_soon(self._fill, context=nobody())

    def freed(self, claim: Claim) -> None:
        self.host.freed(claim)

    def failed(self, claim: Claim) -> None:
        self.host.failed(claim)

    def _isolate(self) -> None:
        """Give the context of a beginning run one of the ORM threads. Called inside it."""
        context = next(self._contexts)
        SyncToAsync.thread_sensitive_context.set(context)
        executor = SyncToAsync.context_to_thread_executor.get(context)
        now = time.monotonic()
        if executor is not None and now - self._checked_at.get(context, 0.0) > CHECK_EVERY:
            self._checked_at[context] = now
            executor.submit(check_connections)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self._closing:
            # Raised by user code, of whose run they are the end; the loop goes on for the others.
            with suppress(SystemExit, KeyboardInterrupt):
                self.loop.run_forever()

    def _fill(self) -> None:
        while self._running < self.size:
            try:
                claim = self._backlog.popleft()
            except IndexError:
                return
            try:
                aexecute(claim, self.runtime, self)  # type: ignore[arg-type]
            except Exception:
                logger.exception("Workflow %s could not be run here", claim.workflow_id)
                self.host.failed(claim)
