"""What a worker holds: its slots, and every workflow that it owns.

A workflow is held from its claim until the entry that ends its attempt is committed;
the keeper compares this with what the database says. Its slot is free earlier: as soon
as that entry is on its way.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from durable_workflows.core.records import Claim
from durable_workflows.engine.execute import Host
from durable_workflows.engine.registry import Registry
from durable_workflows.engine.run import Run
from durable_workflows.errors import LeaseLost

MOST_AHEAD = 256  # claimed beyond the slots, at most
AHEAD_FOR = 1.0  # seconds without a beginning after which they are given back
PART_FOR = 0.05  # seconds that a claim waits for a good part of the slots to be free
WINDOW = 0.05  # seconds: what ended within them is kept ahead for the next
MOST_UNSETTLED = 1000  # ends on their way; more and the database is what is slow


class Colour(Host):
    """Sync or async: the names it runs, its slots, and how many it may ask for."""

    def __init__(self, crew: Crew, registry: Registry, size: int, *, is_async: bool):
        self.crew, self.registry, self.size, self.is_async = crew, registry, size, is_async
        self.slots: Any = None  # ThreadSlots or LoopSlots
        self.busy = 0  # claimed, and the function has not ended
        self.unsettled = 0  # ended, and the commit is not known
        self.filled = False  # the last claim got all it asked for: there is more
        self.rests_until = 0.0  # monotonic; a claim for it alone was in vain
        self.asked_at = 0.0  # monotonic; the last claim
        self.begun_at = 0.0  # monotonic; the last run that began
        self._names: list[str] = []
        self._version = -1
        self._ends = 0
        self._ends_since = 0.0
        self._pace = 0.0  # ends a second

    def names(self) -> list[str]:
        if self._version != self.registry.version:
            self._version = self.registry.version
            self._names = self.registry.names(is_async=self.is_async)
        return self._names

    def crowded(self) -> bool:
        """Return whether a run that only waits should leave its slot at once."""
        return self.filled or self.busy >= self.size

    def asks(self) -> int:
        """Return how many to claim now: not one by one, but when a good part is free."""
        if self.unsettled > MOST_UNSETTLED:
            return 0
        free = self.size - self.busy
        if not self.filled:
            return max(0, free)
        now = time.monotonic()
        enough = max(1, self.size // (8 if self.is_async else 4))
        if 0 < free < enough and now - self.asked_at > PART_FOR:
            enough = 1  # the others are taken for long: what is free is not kept waiting
        if now - self.begun_at < AHEAD_FOR:
            # There is more than was taken: keep some beyond the slots, so that a freed slot
            # does not wait for a claim. Async about one load; sync what ends in a moment.
            free += min(MOST_AHEAD, self.size if self.is_async else int(self._pace * WINDOW))
        return free if free >= enough else 0

    def stuck(self) -> bool:
        """Return whether what was claimed ahead waits behind runs that take long."""
        return self.busy > self.size and time.monotonic() - self.begun_at > AHEAD_FOR

    # -- what slots tell ---------------------------------------------------

    def begun(self, run: Run) -> None:
        self.crew.runs[run.claim.id] = run
        self.begun_at = time.monotonic()
        if run.claim.worker != self.crew.worker:
            run.lose(LeaseLost(f"worker {run.claim.worker} was declared dead"))
        elif not self.crew.claiming:
            run.stop()

    def ended(self, run: Run) -> None:
        with self.crew.lock:
            self.busy -= 1
            self.unsettled += 1
            self.crew.runs.pop(run.claim.id, None)
            self._count_end()
            wanted = self.filled and self.asks() > 0
        if wanted:
            self.crew.on_room()

    def freed(self, claim: Claim) -> None:
        with self.crew.lock:
            self.unsettled -= 1
            self.crew.drop(claim)
        if claim.queue in self.crew.limited:
            self.crew.on_room()  # its place counts as free only now

    def failed(self, claim: Claim) -> None:
        with self.crew.lock:
            self.busy -= 1
            self.crew.drop(claim)

    def _count_end(self) -> None:
        self._ends += 1
        now = time.monotonic()
        if now - self._ends_since > WINDOW:
            self._pace = self._ends / (now - self._ends_since)
            self._ends, self._ends_since = 0, now


class Crew:
    """The worker's identity, its two colours of slots and the workflows it holds."""

    def __init__(self, executor_id: str, registry: Registry, threads: int, async_slots: int):
        self.executor_id = executor_id
        self.worker = 0
        self.claiming = True
        self.claims_begun = self.claims_taken = 0  # calls to the database, and what they brought
        self.held: dict[int, Claim] = {}
        self.runs: dict[int, Run] = {}  # those whose function has begun and not ended
        self.limited: set[str] = set()  # queues whose places are counted
        self.holding: set[str] = set()  # queues whose workflows keep their places while they wait
        self.lock = threading.Lock()
        self.threads = Colour(self, registry, threads, is_async=False)
        self.tasks = Colour(self, registry, async_slots, is_async=True)
        self.on_room: Callable[[], None] = _nothing
        self._shares: Counter[str] = Counter()

    def colours(self) -> list[Colour]:
        return [self.threads, self.tasks] if self.claiming else []

    def share(self, queue: str) -> int:
        return self._shares[queue]

    def take(self, colour: Colour, claims: Sequence[Claim]) -> None:
        """Hold what was claimed, and hand it to the slots."""
        with self.lock:
            for claim in claims:
                self.held[claim.id] = claim
                self._shares[claim.queue] += 1
            colour.busy += len(claims)
        colour.slots.submit(claims)

    def withdraw(self, *colours: Colour) -> list[Claim]:
        """Take back what was claimed and has not begun, of all colours by default."""
        withdrawn: list[Claim] = []
        for colour in colours or (self.threads, self.tasks):
            claims = colour.slots.withdraw()
            with self.lock:
                colour.busy -= len(claims)
                for claim in claims:
                    self.drop(claim)
            withdrawn += claims
        return withdrawn

    def drop(self, claim: Claim) -> None:
        """Hold a claim no longer. Called under the lock."""
        if self.held.get(claim.id) is claim:
            del self.held[claim.id]
        self._shares[claim.queue] -= 1

    def snapshot(self) -> dict[int, Claim]:
        """Return what is held under the worker's present id."""
        with self.lock:
            return {id: claim for id, claim in self.held.items() if claim.worker == self.worker}


def _nothing() -> None:
    """What happens at a free slot before anybody claims."""
