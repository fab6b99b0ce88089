"""Fills free slots: claims batches, listens while there is nothing, and polls as a net."""

from __future__ import annotations

import math
import random
import time

from durable_workflows.core.records import Claim, QueueView
from durable_workflows.engine.process import Process
from durable_workflows.store.wakeup import READY, Listener
from durable_workflows.worker.crew import PART_FOR, Colour, Crew
from durable_workflows.worker.service import Service

# Seconds until a queue is looked at again whose row somebody has locked: mostly a rival's
# claim, which takes some milliseconds; doubling, in case it is a person's transaction.
FIRST_AGAIN, LONGEST_AGAIN = 0.005, 0.5
IN_VAIN = 10  # times what a claim that found nothing took: so long its colour is not asked for
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
        self._put_off = math.inf  # seconds until what was left out now is looked at
        self._again = FIRST_AGAIN
        self.found_nothing = False  # the last look at the database found nothing to take
        crew.on_room = self.interrupt

    # -- ticks -------------------------------------------------------------

    def tick(self) -> float:
        listener, colours = self._listening(), self.crew.colours()
        self._put_off = math.inf
        self._give_back(listener, [colour for colour in colours if colour.stuck()])
        if colours and all(colour.asks() and not colour.filled for colour in colours):
            claimed = self._fill_together(listener, colours)
        else:
            claimed = sum(self._fill(listener, colour) for colour in colours)
        self.crew.claims_taken = self.crew.claims_begun
        self.found_nothing = not claimed
        more = any(colour.filled and colour.asks() > 0 for colour in colours)
        # A claim that got less than it asked for took all there was: what comes now rings.
        poll = self.process.clock.jitter(self.process.settings.poll_seconds)
        if any(colour.filled for colour in colours):
            poll = min(poll, PART_FOR)  # a place may become free, too few to be told of at once
        return 0.0 if more else min(poll, self._put_off)

    def _give_back(self, listener: Listener, colours: list[Colour]) -> None:
        """Release what was claimed ahead and can't begin soon: another worker may be idle."""
        claims = self.crew.withdraw(*colours) if colours else []
        if claims:
            listener.store.release(self.crew.worker, [claim.id for claim in claims])
            self.process.ringer.ring(READY, via=listener.store)

    def _fill(self, listener: Listener, colour: Colour) -> int:
        if (rests := colour.rests_until - time.monotonic()) > 0:
            self._put_off = min(self._put_off, rests)
            return 0
        asked = colour.asks()
        if not asked:
            colour.filled = True  # not looked: there may be more, as far as is known
            asked = colour.asks()
        if not asked:
            return 0
        began = colour.asked_at = time.monotonic()
        claims = self._claim(listener, colour.names(), asked)
        colour.filled = len(claims) == asked
        if claims:
            self.crew.take(colour, claims)
        else:
            # In vain, perhaps past thousands that are the other colour's: not at every turn.
            ended = time.monotonic()
            colour.rests_until = ended + IN_VAIN * (ended - began)
        return len(claims)

    def _fill_together(self, listener: Listener, colours: list[Colour]) -> int:
        """Claim for both in one statement: each has room, and left nothing behind last time."""
        asked = min(colour.asks() for colour in colours)
        names = [name for colour in colours for name in colour.names()]
        claims = self._claim(listener, names, asked)
        for colour in colours:
            colour.filled = len(claims) == asked  # one after the other from now on
            if own := [claim for claim in claims if claim.name in colour.names()]:
                self.crew.take(colour, own)
        return len(claims)

    def pause(self, seconds: float) -> None:
        assert self._listener is not None
        self._listener.wait(seconds)

    def interrupt(self) -> None:
        if self._listener is not None:
            self._listener.interrupt()

    def close(self) -> None:
        if self._listener is not None:  # else it was stopped before its first tick
            self.process.ringer.unsubscribe(READY, self.interrupt)
            self._listener.close()

    # -- claiming ----------------------------------------------------------

    def _listening(self) -> Listener:
        if self._listener is None:
            listener = self.process.open_listener(READY)
            self.process.ringer.subscribe(READY, self.interrupt)
            self._listener = listener
        return self._listener

    def _claim(self, listener: Listener, names: list[str], asked: int) -> list[Claim]:
        if not names:
            return []
        views = self._queues(listener)
        if not views:
            return []
        self.crew.claims_begun += 1
        claims = listener.store.claim(
            self.crew.worker,
            self.crew.executor_id,
            names,
            views,
            asked,
            app_version=self.process.settings.app_version,
        )
        if listener.store.passed_over:
            self._put_off = min(self._put_off, self.process.clock.jitter(self._again))
            self._again = min(LONGEST_AGAIN, 2 * self._again)
        else:
            self._again = FIRST_AGAIN
        return claims

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
            self.crew.holding = {name for name, view in self._views.items() if view.hold}
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
