"""A worker that is its process's main business: signals, draining, and the way out."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from typing import Any

from durable_workflows.engine.process import process
from durable_workflows.worker.supervisor import SUPERVISED_BY
from durable_workflows.worker.worker import Orders, Worker

logger = logging.getLogger("durable_workflows.worker")

IDLE_LOOKS = 3  # in a row, before a draining worker believes that it is done
LOOK_EVERY = 0.1  # seconds
ORPHANED_EVERY = 1.0  # seconds between two looks whether the supervisor still lives


def orphaned() -> bool:
    """Return whether this process's supervisor has died: nobody would stop it any more."""
    supervisor = os.environ.get(SUPERVISED_BY)
    return supervisor is not None and os.getppid() != int(supervisor)


class Main:
    """Runs one worker until a signal, or until nothing is left if it drains.

    The first SIGTERM or SIGINT lets steps finish; the second, or SIGQUIT, leaves now.
    """

    def __init__(self, orders: Orders, *, drain: bool = False):
        self.worker = Worker(process(), orders)
        self.drain = drain
        self._asked = 0
        self._wake = threading.Event()

    def run(self) -> None:
        self.listen_to_signals()
        self.worker.start()
        idle = 0
        while not self._asked and not orphaned():
            self._wake.wait(LOOK_EVERY if self.drain else ORPHANED_EVERY)
            if self.drain:
                idle = idle + 1 if self.worker.idle else 0
                if idle >= IDLE_LOOKS:
                    break
        began = time.monotonic()
        left = self.worker.stop(hurry=lambda: self._asked > 1)
        logger.info(
            "Worker %d ended after %.1f s", self.worker.crew.worker, time.monotonic() - began
        )
        if left and threading.current_thread() is threading.main_thread():
            # The interpreter would wait for the threads of sync_to_async, whose steps are
            # others' by now.
            logging.shutdown()
            sys.stdout.flush()
            os._exit(0)

    def listen_to_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # under the autoreloader, whose main thread ends the process
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        if hasattr(signal, "SIGQUIT"):
            signal.signal(signal.SIGQUIT, self._leave)

    def _stop(self, number: int, _: Any) -> None:
        self._asked += 1
        self._wake.set()
        if self._asked > 2:
            os._exit(128 + number)

    def _leave(self, number: int, _: Any) -> None:
        os._exit(128 + number)
