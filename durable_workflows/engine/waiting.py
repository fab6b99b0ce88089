"""Waiting for workflows to end: one thread and one poll for the whole process.

The thread starts with the first wait and ends some time after the last. What ends in
this process is delivered directly, without the database; for the rest the thread
listens where it can, and polls: with a short pause at first, which grows up to the
shortest interval that a waiter asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

from durable_workflows.core.records import Ended
from durable_workflows.store.wakeup import Listener

logger = logging.getLogger("durable_workflows")

FIRST_PAUSE = 0.005  # seconds between two polls, where nothing notifies
GROWTH = 1.5
NET = 1.0  # seconds between two polls at most, where notifications come
AFTER_FAILURE = 1.0  # seconds
LINGER = 10.0  # seconds the thread stays without a waiter


class Watch:
    """One waiter and the workflows it looks out for. `ended` fills as they end."""

    __slots__ = ("_event", "_future", "_loop", "ended", "interval", "workflow_ids")

    def __init__(self, workflow_ids: Sequence[str], interval: float):
        self.workflow_ids, self.interval = tuple(workflow_ids), interval
        self.ended: dict[str, Ended] = {}
        self._event: threading.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._future: asyncio.Future[None] | None = None

    def wait(self, timeout: float | None) -> bool:
        """Block until one of them has ended; False if `timeout` seconds passed first."""
        assert self._event is not None
        return self._event.wait(timeout)

    async def arrival(self) -> None:
        assert self._future is not None
        await self._future

    def deliver(self, workflow_id: str, ended: Ended) -> None:
        self.ended[workflow_id] = ended
        if self._event is not None:
            self._event.set()
        elif self._loop is not None:
            with contextlib.suppress(RuntimeError):  # closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._arrive)

    def _arrive(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class Waiters:
    def __init__(self, open_listener: Callable[[], Listener], *, linger: float = LINGER):
        self._open, self._linger = open_listener, linger
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._watches: dict[str, list[Watch]] = {}
        self._fresh = self._resting = False
        self._listener: Listener | None = None
        self._thread: threading.Thread | None = None

    def watch(self, workflow_ids: Sequence[str], interval: float = 1.0) -> Watch:
        """Start to look out, for a thread; end it with forget()."""
        watch = Watch(workflow_ids, interval)
        watch._event = threading.Event()
        self._add(watch)
        return watch

    def watch_on_loop(self, workflow_ids: Sequence[str], interval: float = 1.0) -> Watch:
        """See watch(), for a coroutine of the running loop."""
        watch = Watch(workflow_ids, interval)
        watch._loop = asyncio.get_running_loop()
        watch._future = watch._loop.create_future()
        self._add(watch)
        return watch

    def forget(self, watch: Watch) -> None:
        with self._lock:
            for workflow_id in watch.workflow_ids:
                watches = self._watches.get(workflow_id, [])
                if watch in watches:
                    watches.remove(watch)
                if not watches:
                    self._watches.pop(workflow_id, None)
            if not self._watches and not self._linger and self._listener is not None:
                self._listener.interrupt()

    def rest(self) -> None:
        """End the thread now if nobody waits, instead of after a while; return once it has."""
        with self._lock:
            thread = self._thread
            if thread is None or self._watches:
                return
            self._resting = True
            if self._listener is not None:
                self._listener.interrupt()
        thread.join(1.0)

    def deliver(self, workflow_id: str, ended: Ended) -> None:
        """Tell those who wait for a workflow that it has ended, as committed."""
        if not self._watches:
            return
        with self._lock:
            watches = list(self._watches.get(workflow_id, ()))
        for watch in watches:
            watch.deliver(workflow_id, ended)

    def _add(self, watch: Watch) -> None:
        with self._lock:
            for workflow_id in watch.workflow_ids:
                self._watches.setdefault(workflow_id, []).append(watch)
            self._fresh = True
            if self._thread is None:
                self._start()
            elif self._listener is not None and not self._listener.hears:
                self._listener.interrupt()  # begin again with short pauses

    def _start(self) -> None:
        """Begin to serve. Called under the lock."""
        self._thread = threading.Thread(target=self._serve, name="durable-waiters", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        listener: Listener | None = None
        try:
            listener = self._open()
            with self._lock:
                self._listener = listener
            self._poll(listener)
        except Exception:
            logger.exception("The thread that waits for results failed; another goes on")
            time.sleep(AFTER_FAILURE)
            with self._lock:
                self._thread = self._listener = None
                if self._watches:
                    self._start()
        finally:
            if listener is not None:
                listener.close()

    def _poll(self, listener: Listener) -> None:
        pause, lonely_since = FIRST_PAUSE, time.monotonic()
        while True:
            with self._lock:
                waited = list(self._watches)
                longest = min(
                    (watch.interval for watches in self._watches.values() for watch in watches),
                    default=self._linger,
                )
                if self._fresh:
                    self._fresh, pause = False, FIRST_PAUSE
                lonely = time.monotonic() - lonely_since
                if not waited and (self._resting or lonely >= self._linger):
                    self._resting = False
                    self._thread = self._listener = None
                    return
            if waited:
                lonely_since = time.monotonic()
                for workflow_id, ended in listener.store.ended(waited).items():
                    self.deliver(workflow_id, ended)
            if listener.hears or not waited:
                pause = min(longest, NET)
            else:
                pause = min(pause * GROWTH, longest)
            if listener.wait(pause):
                pause = FIRST_PAUSE
