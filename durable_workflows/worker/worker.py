"""A worker: builds its services, and ends them in the right order."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from durable_workflows.core.records import Claim, WorkerFacts
from durable_workflows.engine.inline import executor_id
from durable_workflows.engine.journal import GroupJournal
from durable_workflows.engine.process import Process, Reader
from durable_workflows.engine.runtime import Runtime
from durable_workflows.store import Store
from durable_workflows.store.session import Closed
from durable_workflows.store.wakeup import CANCELLED, READY
from durable_workflows.worker.claimer import Claimer
from durable_workflows.worker.crew import Crew
from durable_workflows.worker.housekeeper import Housekeeper
from durable_workflows.worker.keeper import Keeper
from durable_workflows.worker.lookout import Lookout
from durable_workflows.worker.slots import ORM_THREADS, LoopSlots, ThreadSlots, close_broken

logger = logging.getLogger("durable_workflows.worker")

OWN_CONNECTIONS = Store.pens + 4  # and side lane, claimer, housekeeper, reader
LAST_TRIES = 5.0  # seconds for each thing that a worker tells the database at its end


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker is to do. `queues` are names; None is all. `grace` is in seconds."""

    kind: str = "worker"
    queues: tuple[str, ...] | None = None
    threads: int = 32
    async_slots: int = 500
    grace: float = 30.0

    @property
    def connections(self) -> int:
        """The most connections such a worker may take, user code's included."""
        return OWN_CONNECTIONS + self.threads + (ORM_THREADS if self.async_slots else 0)


class Worker:
    def __init__(self, process: Process, orders: Orders):
        self.process, self.orders, self.pid = process, orders, os.getpid()
        self.crew = Crew(executor_id(), process.registry, orders.threads, orders.async_slots)

    # -- beginning ---------------------------------------------------------

    def start(self) -> None:
        """Enlist and begin to claim; returns at once."""
        process, crew, store = self.process, self.crew, self.process.store
        watch = process.open_listener(CANCELLED)
        process.clock.learn(watch.store.now())
        crew.worker = self._enlist(watch.store)
        side, readers = store.dedicated(), store.dedicated()
        pens = [store.dedicated() for _ in range(store.pens)]
        self._stores = [watch.store, side, readers, *pens]
        self._side = GroupJournal([side], process.aftermath, most=1)
        self._journal = GroupJournal(pens, process.aftermath, side=self._side)
        self._reader = Reader(readers)
        self._hire(self._runtime())
        keeper = Keeper(process, crew, self._enlist)
        lookout = Lookout(process, self._queues())
        self._housekeeper = Housekeeper(process, keeper, lookout, watch)
        self._claimer = Claimer(process, crew, self._queues())
        self._housekeeper.start()
        self._claimer.start()

    def _enlist(self, store: Store) -> int:
        settings = self.process.settings
        facts = WorkerFacts(
            self.orders.kind,
            socket.gethostname(),
            os.getpid(),
            settings.app_version,
            ",".join(self.orders.queues or ()),
            store.presence(),
        )
        return store.enlist(facts, settings.lease_seconds)

    def _runtime(self) -> Runtime:
        process = self.process
        return Runtime(
            store=process.store,
            reader=self._reader,
            journal=self._journal,
            clock=process.clock,
            registry=process.registry,
            waiters=process.waiters,
            payload_max_bytes=process.settings.payload_max_bytes,
            suspend_after=process.settings.suspend_after_seconds,
            mend=close_broken,
            holds=lambda queue: queue in self.crew.holding,
            app_version=process.settings.app_version,
        )

    def _hire(self, runtime: Runtime) -> None:
        threads, tasks = self.crew.threads, self.crew.tasks
        threads.slots = ThreadSlots(
            threads.size, replace(runtime, crowded=threads.crowded), threads
        )
        tasks.slots = LoopSlots(tasks.size, replace(runtime, crowded=tasks.crowded), tasks)
        tasks.slots.start()

    def _queues(self) -> list[str] | None:
        return None if self.orders.queues is None else list(self.orders.queues)

    # -- going on ----------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether nothing is held and the last claim found nothing to take."""
        return not self.crew.held and self._claimer.found_nothing

    # -- ending ------------------------------------------------------------

    def stop(self, *, grace: float | None = None, hurry: Callable[[], bool] = lambda: False) -> int:
        """Claim no more, let steps finish within the grace time, release the rest.

        Returns how many were released while a step of theirs still ran.
        `grace` is in seconds, None for what was ordered. `hurry` is asked meanwhile; once
        it says yes the grace time is over.
        """
        crew = self.crew
        crew.claiming = False
        self._claimer.stop()
        self._claimer.join()
        self._release(crew.withdraw())
        for run in list(crew.runs.values()):
            run.stop()
        until = time.monotonic() + (self.orders.grace if grace is None else grace)
        while crew.held and time.monotonic() < until and not hurry():
            time.sleep(0.02)
        if left := list(crew.snapshot().values()):
            logger.warning("%d workflows did not stop in time and are released", len(left))
            self._release(left)
        self._close()
        return len(left)

    def _release(self, claims: list[Claim]) -> None:
        if not claims:
            return
        with self._briefly("release its workflows") as store:
            store.release(self.crew.worker, [claim.id for claim in claims])
            self.process.ringer.ring(READY, via=store)

    @contextmanager
    def _briefly(self, what: str) -> Iterator[Store]:
        """Open a store that tries for some seconds only: the database may be away."""
        store = self.process.store.dedicated()
        timer = threading.Timer(LAST_TRIES, store.give_up)
        timer.daemon = True
        timer.start()
        try:
            yield store
        except Closed:
            logger.warning(
                "Worker %d can't %s: the database is away. Others take over when it is back "
                "and the lease has run out.",
                self.crew.worker,
                what,
            )
        finally:
            timer.cancel()
            store.close()

    def _close(self) -> None:
        # What can be written now is; nothing waits for a database that is away.
        for store in self._stores:
            store.give_up()
        self._housekeeper.stop()
        self._housekeeper.join()
        self.crew.tasks.slots.close(timeout=2.0)
        self.crew.threads.slots.close(timeout=0.5)
        self._journal.close()
        self._side.close()
        self._reader.close()
        with self._briefly("say that it ends") as store:
            store.discharge(self.crew.worker)
