"""Several worker processes under one: spawned, watched, restarted, and told to stop."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Sequence

logger = logging.getLogger("durable_workflows.worker")

SUPERVISED_BY = "DURABLE_WORKFLOWS_SUPERVISOR"  # process id, for the worker to look after
LONGEST_BACKOFF = 30.0  # seconds between two restarts of a process that keeps ending
HEALTHY_AFTER = 10.0  # seconds


class Child:
    def __init__(self, command: Sequence[str]):
        self.command = command
        self.failures = 0
        self.start()

    def start(self) -> None:
        self.started_at = time.monotonic()
        self.restart_at: float | None = None
        # A session of its own: Ctrl-C at the terminal reaches it once, through us.
        self.process = subprocess.Popen(
            self.command,
            start_new_session=True,
            env={**os.environ, SUPERVISED_BY: str(os.getpid())},
        )

    def look(self) -> None:
        """Restart the process if it has ended, later each time it ends soon."""
        if self.process.poll() is None:
            return
        now = time.monotonic()
        if self.restart_at is None:
            lived = now - self.started_at
            self.failures = 0 if lived > HEALTHY_AFTER else self.failures + 1
            delay = 0.0 if self.failures == 0 else min(LONGEST_BACKOFF, 0.5 * 2**self.failures)
            self.restart_at = now + delay
            logger.error(
                "Worker process %d ended with status %s; a new one starts in %g s",
                self.process.pid,
                self.process.returncode,
                delay,
            )
        if now >= self.restart_at:
            self.start()


class Supervisor:
    """Runs `command` in `count` processes until stopped."""

    def __init__(self, command: Sequence[str], count: int, *, drains: bool):
        self.command, self.count, self.drains = command, count, drains
        self.stopping = 0

    def run(self) -> int:
        """Return the exit status: 0 if every process ended well."""
        for name in ("SIGTERM", "SIGINT", "SIGQUIT"):
            signal.signal(getattr(signal, name), self._stop)
        children = [Child(self.command) for _ in range(self.count)]
        told = 0
        while True:
            if told < self.stopping:
                told = self.stopping
                for child in children:
                    if child.process.poll() is None:
                        child.process.terminate()
            running = [child for child in children if child.process.poll() is None]
            if not running and (self.stopping or self.drains):
                return max((abs(child.process.returncode) for child in children), default=0)
            if not self.stopping:
                for child in children:
                    if not (self.drains and child.process.poll() == 0):
                        child.look()
            time.sleep(0.1)

    def _stop(self, number: int, _: object) -> None:
        self.stopping += 1
