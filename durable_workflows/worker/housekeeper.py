"""One thread and one direct connection for all that looks after things.

Its parts take turns: keeper, rescuer, timer and lookout. Each does a bounded piece of work and
says when it wants its next turn, so that none of them can starve the beat.
"""

from __future__ import annotations

import logging
import time

from durable_workflows.engine.process import Process
from durable_workflows.store.session import Closed
from durable_workflows.store.wakeup import CANCELLED, Listener
from durable_workflows.worker.keeper import Keeper
from durable_workflows.worker.lookout import Lookout
from durable_workflows.worker.rescuer import Rescuer
from durable_workflows.worker.service import AFTER_FAILURE, Service
from durable_workflows.worker.timer import Timer

logger = logging.getLogger("durable_workflows.worker")

Part = Keeper | Rescuer | Timer | Lookout


class Housekeeper(Service):
    name = "housekeeper"

    def __init__(self, process: Process, keeper: Keeper, lookout: Lookout, listener: Listener):
        super().__init__()
        self.process, self._listener = process, listener
        self._keeper = keeper
        self._due: dict[Part, float] = dict.fromkeys(
            (keeper, Rescuer(process), Timer(process), lookout), 0.0
        )
        process.ringer.subscribe(CANCELLED, self.interrupt)

    def tick(self) -> float:
        for part, due in self._due.items():
            if time.monotonic() >= due:
                self._due[part] = time.monotonic() + self._turn(part)
        return min(self._due.values()) - time.monotonic()

    def _turn(self, part: Part) -> float:
        """Give a part its turn; one that fails keeps no other from its own."""
        try:
            return part.tick(self._listener.store)
        except Closed:
            raise
        except Exception:
            logger.exception("%s failed; again in %g s", type(part).__name__, AFTER_FAILURE)
            return AFTER_FAILURE

    def pause(self, seconds: float) -> None:
        if self._listener.wait(seconds):
            self._due[self._keeper] = 0.0

    def interrupt(self) -> None:
        self._listener.interrupt()

    def close(self) -> None:
        self.process.ringer.unsubscribe(CANCELLED, self.interrupt)
        self._listener.close()
