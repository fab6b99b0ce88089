"""The beat: a reconciliation of what this worker holds with what the database says.

It renews the lease and learns how many workflows the worker owns. Where that differs
from what is held here, the ids tell which runs were cancelled or lost, and which rows
nobody here has had for two looks: those are made ready again. A worker that has been
declared dead ends its runs and goes on under a new id.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from durable_workflows.core import states
from durable_workflows.engine.process import Process
from durable_workflows.errors import LeaseLost, WorkflowCancelled
from durable_workflows.store import Store
from durable_workflows.store.wakeup import READY
from durable_workflows.worker.crew import Crew

logger = logging.getLogger("durable_workflows.worker")

LOOK_EVERY = 0.5  # seconds between two comparisons; a beat is due less often
LASTING = 0.9  # seconds after which a difference is none of a moment


class Keeper:
    def __init__(self, process: Process, crew: Crew, enlist: Callable[[Store], int]):
        self.process, self.crew, self._enlist = process, crew, enlist
        self._beat_due = 0.0
        self._openings = -1
        # Since when (monotonic) the database and this worker differ about a workflow; of a
        # stray also how many claims had been begun then: the last may yet bring it.
        self._strays: dict[int, tuple[float, int]] = {}
        self._missing: dict[int, float] = {}

    def tick(self, store: Store) -> float:
        if store.openings() != self._openings or time.monotonic() >= self._beat_due:
            # Also at once after a reconnection: presence is told by the old backend.
            self._beat(store)
            self._openings = store.openings()
            self._reconcile(store)  # equal numbers may hide that one is missing and one too many
            return LOOK_EVERY
        owned = store.count_owned(self.crew.worker)
        if owned != len(self.crew.snapshot()) or self._strays or self._missing:
            self._reconcile(store)
        return LOOK_EVERY

    def _beat(self, store: Store) -> None:
        beat = store.beat(self.crew.worker, backend=store.presence())
        self._beat_due = time.monotonic() + self.process.settings.beat_seconds
        self.process.clock.learn(beat.database_now)
        if not beat.live:
            self._rise_again(store)

    def _rise_again(self, store: Store) -> None:
        dead = self.crew.worker
        lost = self.crew.snapshot()
        self.crew.worker = self._enlist(store)
        logger.warning(
            "Worker %d was declared dead; its %d workflows are others' now. Going on as worker %d.",
            dead,
            len(lost),
            self.crew.worker,
        )
        for id in lost:
            if (run := self.crew.runs.get(id)) is not None:
                run.lose(LeaseLost(f"worker {dead} was declared dead"))

    def _reconcile(self, store: Store) -> None:
        owned = set(store.owned(self.crew.worker))
        held = set(self.crew.snapshot())
        missing = held - owned
        # An entry on its way or a claim just made explains a difference for a moment, and looks
        # may follow each other at once: what counts is how long it lasts.
        now = time.monotonic()
        self._missing = {id: self._missing.get(id, now) for id in missing}
        sight = (now, self.crew.claims_begun)
        self._strays = {id: self._strays.get(id, sight) for id in owned - held}
        if missing:
            self._tell(store, missing, now)
        lasting = {
            id
            for id, (since, claims) in self._strays.items()
            if now - since >= LASTING and self.crew.claims_taken >= claims
        }
        if released := sorted(lasting - set(self.crew.snapshot())):
            count = store.release(self.crew.worker, released)
            logger.warning("%d workflows were owned here and run by nobody; released", count)
            self.process.ringer.ring(READY, via=store)
            self._strays = {id: at for id, at in self._strays.items() if id not in released}

    def _tell(self, store: Store, missing: set[int], now: float) -> None:
        """Tell runs whose rows this worker no longer owns that they are to end."""
        fates = store.fates(sorted(missing))
        for id in missing:
            run = self.crew.runs.get(id)
            if run is None or run.leaving is not None:
                continue
            if fates.get(id) == states.CANCELLED:
                run.lose(WorkflowCancelled())
                logger.info("Workflow %s was cancelled", run.claim.workflow_id)
            elif now - self._missing[id] >= LASTING:
                run.lose(LeaseLost())
