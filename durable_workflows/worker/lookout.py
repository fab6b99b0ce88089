"""Tells of ready workflows whose functions this worker does not know."""

from __future__ import annotations

import logging

from durable_workflows.engine.process import Process
from durable_workflows.store import Store

logger = logging.getLogger("durable_workflows.worker")

EVERY = 30.0  # seconds


class Lookout:
    """They are left for a worker that knows them; each name is told of once while it waits."""

    def __init__(self, process: Process, queues: list[str] | None):
        self.process, self._queues = process, queues
        self._told: set[str] = set()

    def tick(self, store: Store) -> float:
        strangers = store.strangers(self.process.registry.names(), self._queues)
        for name in strangers.keys() - self._told:
            logger.warning(
                "%d workflows of %r are ready, and this worker does not know that function. They "
                "wait for a worker that does: was its module renamed (aliases=…), or is a deploy "
                "under way?",
                strangers[name],
                name,
            )
        self._told = set(strangers)
        return EVERY
