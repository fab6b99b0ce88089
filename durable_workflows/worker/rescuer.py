"""Finds dead workers, and hands their workflows on or gives them up."""

from __future__ import annotations

import logging

from durable_workflows import signals
from durable_workflows.engine.process import Process
from durable_workflows.store import Store
from durable_workflows.store.wakeup import DONE, READY

logger = logging.getLogger("durable_workflows.worker")

LOOK_EVERY = 1.0  # seconds
BATCH = 500


class Rescuer:
    def __init__(self, process: Process):
        self.process = process

    def tick(self, store: Store) -> float:
        for worker in store.bury():
            logger.warning("Worker %d is dead; its workflows will be taken over", worker)
        rescued = store.rescue(
            self.process.registry.limits(), self.process.settings.max_recovery_attempts, BATCH
        )
        if not rescued:
            return self.process.clock.jitter(LOOK_EVERY)
        for one in rescued:
            if one.given_up:
                logger.error(
                    "Workflow %s (%s) is given up: its worker died %d times without a new step",
                    one.workflow_id,
                    one.name,
                    one.recoveries,
                )
            else:
                logger.info(
                    "Workflow %s (%s) is recovered, for the %d. time since its last new step",
                    one.workflow_id,
                    one.name,
                    one.recoveries,
                )
                signals.workflow_recovered.send_robust(
                    Rescuer,
                    workflow_id=one.workflow_id,
                    name=one.name,
                    recoveries=one.recoveries,
                )
        self._wake(
            store, sorted({r.parent for r in rescued if r.given_up and r.parent is not None})
        )
        return 0.0 if len(rescued) == BATCH else LOOK_EVERY

    def _wake(self, store: Store, parents: list[int]) -> None:
        if parents:
            self.process.look(store, parents)
            self.process.ringer.ring(DONE, via=store)
        self.process.ringer.ring(READY, via=store)
