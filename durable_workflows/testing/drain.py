"""run_until_idle(): a worker of one, on the test's own connection and thread."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from datetime import UTC, datetime

from asgiref.sync import async_to_sync, sync_to_async

from durable_workflows.core.records import Claim, QueueView, WorkerFacts
from durable_workflows.engine.clock import Clock
from durable_workflows.engine.execute import Host, aexecute, execute
from durable_workflows.engine.inline import executor_id
from durable_workflows.engine.journal import DirectJournal
from durable_workflows.engine.leaving import equip
from durable_workflows.engine.process import Process, process
from durable_workflows.engine.runtime import Runtime
from durable_workflows.engine.waiting import Waiters, Watch
from durable_workflows.testing.clock import ManualClock

BATCH = 100
TICK = 0.001  # seconds: SQLite's instants are not finer


class DeafWaiters(Waiters):
    """Starts no thread: in a test whatever ends, ends between two runs."""

    def _add(self, watch: Watch) -> None:
        with self._lock:
            for workflow_id in watch.workflow_ids:
                self._watches.setdefault(workflow_id, []).append(watch)


def run_until_idle(*, skip_time: bool = True, activations: int = 100_000) -> int:
    """Run every workflow that is ready, and those they start or wake, until none is left.

    Works inside Django's TestCase: everything happens on this thread's connection, in the
    test's transaction, without a thread or a commit. Sleeps and retry pauses are skipped
    unless `skip_time` is false: then what sleeps stays asleep. Returns the number of
    activations; RuntimeError after `activations` of them, for workflows that never end.
    """
    drain = _Drain(process())
    done = 0
    while True:
        claims = drain.claim()
        for claim in claims:
            drain.run(claim)
        done += len(claims)
        if done > activations:
            raise RuntimeError(f"Still not idle after {done:,} activations of workflows.")
        if not claims and not drain.wake(skip_time):
            return done


async def arun_until_idle(*, skip_time: bool = True, activations: int = 100_000) -> int:
    """See run_until_idle()."""
    return await sync_to_async(run_until_idle)(skip_time=skip_time, activations=activations)


class _Told(Host):
    """Resolves a future when the attempt has ended."""

    def __init__(self, over: asyncio.Future[None]):
        self.over = over

    def freed(self, claim: Claim) -> None:
        self.over.set_result(None)


class _Drain:
    def __init__(self, here: Process):
        self.process, self.store = here, here.store
        if here.clock.skips:
            self.clock: Clock = here.clock
        else:
            self.clock = ManualClock(datetime.fromtimestamp(self.store.now(), UTC))
        facts = WorkerFacts("worker", socket.gethostname(), os.getpid())
        self.worker = self.store.enlist(facts, 3600.0, now=self.clock.now_or_none())
        self.runtime = Runtime(
            store=self.store,
            reader=self.store,
            journal=DirectJournal(self.store, self._aftermath, self.clock),
            clock=self.clock,
            registry=here.registry,
            waiters=DeafWaiters(here.open_listener),
            payload_max_bytes=here.settings.payload_max_bytes,
            suspend_after=0.0,
            holds=lambda queue: True,  # the row tells
            app_version=here.settings.app_version,
        )

    def _aftermath(self, store: object, entries: Sequence[object]) -> None:
        parents = [getattr(entry, "parent", None) for entry in entries]
        waiting = [entry.id for entry in entries if getattr(entry, "foreign", False)]  # type: ignore[attr-defined]
        ids = sorted({*waiting, *(parent for parent in parents if parent is not None)})
        if ids:
            self.store.look(ids, now=self.clock.now_or_none())

    def claim(self) -> list[Claim]:
        self.store.declare_queues(self.process.registry.declared())
        queues = {"": QueueView(""), **self.store.queues()}
        return self.store.claim(
            self.worker,
            executor_id(),
            self.process.registry.names(),
            list(queues.values()),
            BATCH,
            now=self.clock.now_or_none(),
        )

    def run(self, claim: Claim) -> None:
        spec = self.process.registry.named(claim.name)
        if spec.is_async:
            async_to_sync(self._run_on_loop)(claim)
        else:
            execute(claim, self.runtime, Host())

    async def _run_on_loop(self, claim: Claim) -> None:
        loop = asyncio.get_running_loop()
        undo = equip(loop)
        over = loop.create_future()
        try:
            aexecute(claim, self.runtime, _Told(over))
            await over
        finally:
            undo()

    def wake(self, skip_time: bool) -> bool:
        """Wake what is due, skipping to the next that will be; False if nothing waits."""
        due = self.store.next_due(now=self.clock.now_or_none())
        if due is None or (due > 0 and not skip_time):
            return False
        # A tick more: databases round instants, and a clock that stands still would never
        # reach what they rounded off.
        self.clock.sleep(max(due, 0.0) + TICK)
        self.store.wake_due(BATCH, now=self.clock.now_or_none())
        return True
