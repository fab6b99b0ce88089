"""One thread and one direct connection for all that looks after things.

Its parts take turns: keeper, rescuer, timer and lookout. Each does a bounded piece of work and
says when it wants its next turn, so that none of them can starve the beat.
"""

from __future__ import annotations

import time

from durable_workflows.engine.process import Process
from durable_workflows.store.wakeup import CANCELLED, Listener
from durable_workflows.worker.keeper import Keeper
from durable_workflows.worker.lookout import Lookout
from durable_workflows.worker.rescuer import Rescuer
from durable_workflows.worker.service import Service
from durable_workflows.worker.timer import Timer

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
                self._due[part] = time.monotonic() + part.tick(self._listener.store)
        return min(self._due.values()) - time.monotonic()

    def pause(self, seconds: float) -> None:
        if self._listener.wait(seconds):
            self._due[self._keeper] = 0.0

    def interrupt(self) -> None:
        self._listener.interrupt()

    def close(self) -> None:
        self.process.ringer.unsubscribe(CANCELLED, self.interrupt)
        self._listener.close()
