"""Fills free slots: claims batches, listens while there is nothing, and polls as a net."""

from __future__ import annotations

import random
import time

from durable_workflows.core.records import Claim, QueueView
from durable_workflows.engine.process import Process
from durable_workflows.store.wakeup import READY, Listener
from durable_workflows.worker.crew import Colour, Crew
from durable_workflows.worker.service import Service

VIEWS_EVERY = 1.0  # seconds between two looks at the queues' rows and limits


class Claimer(Service):
    name = "claimer"

    def __init__(self, process: Process, crew: Crew, queues: list[str] | None):
        super().__init__()
        self.process, self.crew, self.only = process, crew, queues
        self._listener: Listener | None = None
        self._views: dict[str, QueueView] = {}
        self._views_at = float("-inf")
        self._declared = -1
        self.found_nothing = False  # the last look at the database found nothing to take
        crew.on_room = self.interrupt

    # -- ticks -------------------------------------------------------------

    def tick(self) -> float:
        listener = self._listening()
        claimed, more = 0, False
        for colour in self.crew.colours():
            claimed += self._fill(listener, colour)
            more = more or (colour.filled and colour.asks() > 0)
        self.found_nothing = not claimed
        # A claim that got less than it asked for took all there was: what comes now rings.
        return 0.0 if more else self.process.clock.jitter(self.process.settings.poll_seconds)

    def _fill(self, listener: Listener, colour: Colour) -> int:
        asked = colour.asks()
        if not asked:
            colour.filled = True  # not looked: there may be more, as far as is known
            asked = colour.asks()
        if not asked:
            return 0
        claims = self._claim(listener, colour.names(), asked)
        colour.filled = len(claims) == asked
        if claims:
            self.crew.take(colour, claims)
        return len(claims)

    def pause(self, seconds: float) -> None:
        assert self._listener is not None
        self._listener.wait(seconds)

    def interrupt(self) -> None:
        if self._listener is not None:
            self._listener.interrupt()

    def close(self) -> None:
        self.process.ringer.unsubscribe(READY, self.interrupt)
        if self._listener is not None:
            self._listener.close()

    # -- claiming ----------------------------------------------------------

    def _listening(self) -> Listener:
        if self._listener is None:
            self._listener = self.process.open_listener(READY)
            self.process.ringer.subscribe(READY, self.interrupt)
        return self._listener

    def _claim(self, listener: Listener, names: list[str], asked: int) -> list[Claim]:
        if not names:
            return []
        views = self._queues(listener)
        if not views:
            return []
        return listener.store.claim(
            self.crew.worker,
            self.crew.executor_id,
            names,
            views,
            asked,
            app_version=self.process.settings.app_version,
        )

    def _queues(self, listener: Listener) -> list[QueueView]:
        """Return the queues to look at, in an order that starves none."""
        version = self.process.registry.version
        if self._declared != version:
            self._declared = version
            self.process.declare_all(listener.store)
            self._views_at = float("-inf")
        if time.monotonic() - self._views_at > VIEWS_EVERY:
            self._views = {"": QueueView(""), **listener.store.queues()}
            self._views_at = time.monotonic()
            self.crew.limited = {name for name, view in self._views.items() if view.limited}
        views = [
            view
            for name, view in self._views.items()
            if not name or self.only is None or name in self.only
        ]
        share = self.crew.share
        random.shuffle(views)
        # The smallest share first: the statement takes queue by queue until it has enough.
        views.sort(key=lambda view: share(view.name))
        return views
