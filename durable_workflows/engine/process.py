"""What this process has for one alias: its store, its ringer, its waiters, its worker.

Made when first asked for; nothing here starts a thread before something waits or rings.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

from durable_workflows.conf import Settings, settings, under_test
from durable_workflows.core.records import (
    Ended,
    Entry,
    OutcomeEntry,
    QueueView,
    StepEntry,
    WaitEntry,
)
from durable_workflows.engine.clock import Clock
from durable_workflows.engine.registry import Registry, registry
from durable_workflows.engine.waiting import LINGER, Waiters
from durable_workflows.signals import workflows_ended, workflows_ready
from durable_workflows.store import Store, get_store
from durable_workflows.store.wakeup import CANCELLED, DONE, READY, Listener, Ringer


class Process:
    """The process-wide parts of the engine on one alias."""

    def __init__(self, using: str):
        self.using = using
        self.registry: Registry = registry
        self.clock = Clock()
        self.notify = self.settings.notify and not under_test()
        self.ringer = Ringer(self.store, notify=self.notify)
        self.waiters = Waiters(self.open_listener, linger=0.0 if under_test() else LINGER)
        self.embedded: Any = None  # the worker that launch() started here
        self._declared: set[QueueView] = set()
        self._passed_over: set[int] = set()  # waiting workflows that a look found locked

    @property
    def has_worker(self) -> bool:
        """Whether launch() started a worker in this very process, not in the one it forked from."""
        return self.embedded is not None and self.embedded.pid == os.getpid()

    @property
    def settings(self) -> Settings:
        return settings()

    @property
    def store(self) -> Store:
        """The store on the calling thread's connection."""
        return get_store(self.using)

    def open_listener(self, *channels: str) -> Listener:
        return Listener(self.store.dedicated(), channels or (DONE,), notify=self.notify)

    def close(self) -> None:
        """Give back the connections that nobody waits on; what comes later opens others."""
        self.waiters.rest()
        self.ringer.rest()
        self.store.hang_up()

    def ring(self, channel: str) -> None:
        """Ring once the caller has committed: over its own connection, the shortest way."""
        store = self.store
        self.ringer.ring(channel, via=store if store.autocommits() else None)

    def declare(self, queue: QueueView | None) -> None:
        """See that a queue's limits are in its row before anything stands in the queue."""
        if queue is None or queue in self._declared:
            return
        self.store.declare_queues([queue])
        # Only once committed: a rollback takes the row back with it.
        self.store.on_commit(lambda: self._declared.add(queue))

    def is_declared(self, queue: QueueView | None) -> bool:
        """Return whether nothing is left to declare."""
        return queue is None or queue in self._declared

    def declare_all(self, store: Store) -> None:
        """Write the limits of every queue that code declares."""
        declared = self.registry.declared()
        store.declare_queues(declared)
        self._declared.update(declared)

    def aftermath(self, pen: Store, entries: Sequence[Entry]) -> None:
        """Wake whoever waits for what was just committed; always after that commit."""
        parents: set[int] = set()
        ended = started = False
        for entry in entries:
            if type(entry) is OutcomeEntry:
                ended = True
                if entry.parent is not None:
                    parents.add(entry.parent)
                self.waiters.deliver(
                    entry.workflow_id, Ended(entry.status, entry.output, entry.error)
                )
            elif type(entry) is StepEntry:
                started = True
            elif type(entry) is WaitEntry:
                if entry.foreign:
                    parents.add(entry.id)
                elif entry.seconds is None and not entry.keeps:
                    started = True
        if parents and self.look(pen, sorted(parents)):
            started = True
        if ended:
            self.ringer.ring(DONE, via=pen)
        if started:
            self.ringer.ring(READY, via=pen)

    def look(self, store: Store, ids: Sequence[int]) -> int:
        """Look at waiting workflows; those that somebody had locked wait for look_again()."""
        woken, skipped = store.look(ids, now=self.clock.now_or_none())
        if skipped:
            # Whoever holds them may do so for long: nothing that others need waits for it.
            self._passed_over.update(ids)
        return woken

    def look_again(self, store: Store) -> bool:
        """Look once more at those that were locked; return whether some still are."""
        if self._passed_over:
            ids = sorted(self._passed_over)
            self._passed_over.difference_update(ids)
            if self.look(store, ids):
                self.ringer.ring(READY, via=store)
        return bool(self._passed_over)

    # -- what people did ---------------------------------------------------

    def ended_by_people(self, rows: list[tuple[int, str, int | None]]) -> None:
        """Wake whoever waits for workflows that a person ended: (id, workflow id, parent)."""
        parents = sorted({parent for _, _, parent in rows if parent is not None})
        if parents and self.look(self.store, parents):
            self.ring(READY)
        self.ring(CANCELLED)
        self.ring(DONE)


class Reader:
    """Reads for many threads over one connection of the engine's own."""

    def __init__(self, store: Store):
        self._store, self._lock = store, threading.Lock()

    def ended(self, workflow_ids: list[str]) -> dict[str, Ended]:
        with self._lock:
            return self._store.ended(workflow_ids)

    def status(self, workflow_id: str) -> Any:
        with self._lock:
            return self._store.status(workflow_id)

    def holder(self, queue: str, deduplication_id: str) -> str | None:
        with self._lock:
            return self._store.holder(queue, deduplication_id)

    def behind(self, queue: str, workflow_ids: list[str]) -> set[str]:
        with self._lock:
            return self._store.behind(queue, workflow_ids)

    def recorded(self, id: int, position: int) -> Any:
        with self._lock:
            return self._store.recorded(id, position)

    def close(self) -> None:
        self._store.close()


_processes: dict[str, Process] = {}
_making = threading.Lock()


def _renew() -> None:
    """In a forked child nobody is left who could let go of the lock."""
    global _making
    _making = threading.Lock()


os.register_at_fork(after_in_child=_renew)


def process(using: str | None = None) -> Process:
    """Return what this process has for an alias; None is the engine's own."""
    using = using or settings().database
    if using not in _processes:
        # Threads that come first together must not make two: neither would hear the other.
        with _making:
            if using not in _processes:
                _processes[using] = Process(using)
    return _processes[using]


def _ended_by_people(using: str, rows: list[tuple[int, str, int | None]], **_: Any) -> None:
    process(using).ended_by_people(rows)


def _ready_by_people(using: str, **_: Any) -> None:
    process(using).ring(READY)


# Here and not in a Process: one that only ever cancels and resumes is made by doing so.
workflows_ended.connect(_ended_by_people)
workflows_ready.connect(_ready_by_people)
