"""A part of a worker that does something again and again."""

from __future__ import annotations

import logging
import threading

from durable_workflows.store.session import Closed

logger = logging.getLogger("durable_workflows.worker")

AFTER_FAILURE = 1.0  # seconds


class Service:
    """A thread around `tick()`, which acts once and says how many seconds until the next."""

    name = "service"

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def tick(self) -> float:
        """Act once; return the seconds until the next tick."""
        raise NotImplementedError

    def start(self) -> None:
        self._thread = threading.Thread(target=self._loop, name=f"durable-{self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask for the end; `join()` waits for it."""
        self._stopping.set()
        self.interrupt()

    def join(self, timeout: float = 5.0) -> None:
        if self._thread is not None:
            self._thread.join(timeout)

    def interrupt(self) -> None:
        """End the pause between two ticks."""

    def pause(self, seconds: float) -> None:
        self._stopping.wait(seconds)

    def close(self) -> None:
        """Give back what the thread used; called by it at its end."""

    def _loop(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    seconds = self.tick()
                    if seconds > 0 and not self._stopping.is_set():
                        self.pause(seconds)
                except Closed:
                    return
                except Exception:
                    # The worker outlives whatever one round meets; the next looks again.
                    logger.exception("%s failed; again in %g s", self.name, AFTER_FAILURE)
                    self._stopping.wait(AFTER_FAILURE)
        finally:
            self.close()
