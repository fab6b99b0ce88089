"""Wakes what is due: sleeps, retries, delayed starts, and waits that were not told."""

from __future__ import annotations

from durable_workflows.engine.process import Process
from durable_workflows.store import Store
from durable_workflows.store.wakeup import READY

LONGEST_PAUSE = 1.0  # seconds: a nearer wait may be written meanwhile
LOCKED_PAUSE = 0.1  # seconds between two looks at what somebody's transaction holds
BATCH = 500


class Timer:
    def __init__(self, process: Process):
        self.process = process

    def tick(self, store: Store) -> float:
        locked = self.process.look_again(store)
        seen = store.wake_due(BATCH)
        if seen:
            self.process.ringer.ring(READY, via=store)
            return 0.0
        if locked:
            return LOCKED_PAUSE
        due = store.next_due()
        # A row due at once that wake_due() did not see is locked by somebody: do not spin.
        return LONGEST_PAUSE if due is None else min(LONGEST_PAUSE, max(0.005, due))
