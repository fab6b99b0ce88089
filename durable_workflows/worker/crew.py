"""What a worker holds: its slots, and every workflow that it owns.

A workflow is held from its claim until the entry that ends its attempt is committed.
The keeper compares this with what the database says.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from durable_workflows.core.records import Claim
from durable_workflows.engine.registry import Registry
from durable_workflows.engine.run import Run

AHEAD = 256  # claimed beyond the slots, at most


class Colour:
    """Sync or async: the names it runs, its slots, and how many it may ask for."""

    def __init__(self, registry: Registry, size: int, *, is_async: bool):
        self.registry, self.size, self.is_async = registry, size, is_async
        self.slots: Any = None  # ThreadSlots or LoopSlots
        self.held = 0
        self.filled = False  # the last claim got all it asked for: there is more
        self._names: list[str] = []
        self._version = -1

    def names(self) -> list[str]:
        if self._version != self.registry.version:
            self._version = self.registry.version
            self._names = self.registry.names(is_async=self.is_async)
        return self._names

    def crowded(self) -> bool:
        """Return whether a run that only waits should leave its slot at once."""
        return self.filled or self.held >= self.size

    def asks(self) -> int:
        """Return how many to claim now: not one by one, but when a good part is free."""
        free = self.size - self.held
        if not self.filled:
            return max(0, free)
        # There is more than we took: keep some beyond the slots, so that a freed slot
        # does not wait for a claim.
        free += min(AHEAD, self.size if self.is_async else 4 * self.size)
        return free if free >= max(1, self.size // (8 if self.is_async else 4)) else 0


class Crew:
    """The worker's identity, its two colours of slots and the workflows it holds."""

    def __init__(self, executor_id: str, registry: Registry, threads: int, async_slots: int):
        self.executor_id = executor_id
        self.worker = 0
        self.claiming = True
        self.held: dict[int, Claim] = {}
        self.runs: dict[int, Run] = {}
        self.threads = Colour(registry, threads, is_async=False)
        self.tasks = Colour(registry, async_slots, is_async=True)
        self.on_room: Callable[[], None] = _nothing
        self._lock = threading.Lock()
        self._shares: Counter[str] = Counter()

    def colours(self) -> list[Colour]:
        return [self.threads, self.tasks] if self.claiming else []

    def share(self, queue: str) -> int:
        return self._shares[queue]

    def take(self, colour: Colour, claims: Sequence[Claim]) -> None:
        with self._lock:
            for claim in claims:
                self.held[claim.id] = claim
                self._shares[claim.queue] += 1
            colour.held += len(claims)
        colour.slots.submit(claims)

    def begun(self, run: Run) -> None:
        self.runs[run.claim.id] = run

    def freer(self, colour: Colour) -> Callable[[Claim], None]:
        """Return what the slots of a colour call when an attempt's end is settled."""

        def freed(claim: Claim) -> None:
            with self._lock:
                if self.held.get(claim.id) is claim:
                    del self.held[claim.id]
                    self.runs.pop(claim.id, None)
                self._shares[claim.queue] -= 1
                colour.held -= 1
                asks = colour.asks()
            if asks:
                self.on_room()

        return freed

    def snapshot(self) -> dict[int, Claim]:
        """Return what is held under the worker's present id."""
        with self._lock:
            return {id: claim for id, claim in self.held.items() if claim.worker == self.worker}


def _nothing() -> None:
    """What happens at a free slot before anybody claims."""
