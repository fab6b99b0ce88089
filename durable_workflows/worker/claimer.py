"""Fills free slots: claims batches, listens while there is nothing, and polls as a net."""

from __future__ import annotations

import random
import time

from durable_workflows.core.records import Claim, QueueView
from durable_workflows.engine.process import Process
from durable_workflows.store.wakeup import READY, Listener
from durable_workflows.worker.crew import Crew
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
        claimed = 0
        for colour in self.crew.colours():
            asked = colour.asks()
            if asked:
                claims = self._claim(listener, colour.names(), asked)
                if claims:
                    self.crew.take(colour, claims)
                    claimed += len(claims)
                colour.filled = len(claims) == asked
        self.found_nothing = not claimed
        if claimed:
            return 0.0
        return self.process.clock.jitter(self.process.settings.poll_seconds)

    def pause(self, seconds: float) -> None:
        assert self._listener is not None
        if self._listener.wait(seconds):
            self._views_at = min(self._views_at, time.monotonic() - VIEWS_EVERY / 4)

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
            listener.store.declare_queues(self.process.registry.declared())
            self._views_at = float("-inf")
        if time.monotonic() - self._views_at > VIEWS_EVERY:
            self._views = {"": QueueView(""), **listener.store.queues()}
            self._views_at = time.monotonic()
        views = [
            view for name, view in self._views.items() if not name or self.only is None or name in self.only
        ]
        share = self.crew.share
        random.shuffle(views)
        # The smallest share first: the statement takes queue by queue until it has enough.
        views.sort(key=lambda view: share(view.name))
        return views
