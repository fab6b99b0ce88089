"""The contract suite's world: each test runs on a connection of the engine's own, on the
caller's connection, and in memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from durable_workflows.core.records import (
    Claim,
    NewWorkflow,
    Options,
    OutcomeEntry,
    StepEntry,
    WaitEntry,
    WorkerFacts,
)
from durable_workflows.core.waits import Wait, encode
from durable_workflows.models import Queue, Worker, Workflow
from durable_workflows.store import Store, get_store
from durable_workflows.store.sql import SQLStore
from durable_workflows.testing.memory import MemoryStore

LEASE = 30.0
# Django wraps the errors of its own connections only.


class StepFailed(Exception):
    """An atomic step's body did not make it."""


@dataclass
class Clock:
    now: datetime

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @property
    def epoch(self) -> float:
        return self.now.timestamp()


@pytest.fixture
def clock() -> Clock:
    # After the start of any server: PostgreSQL's leases outlive its restarts.
    return Clock(datetime(2100, 3, 28, 0, 59, 30, tzinfo=UTC))


@pytest.fixture
def dedicated(transactional_db) -> Iterator[Callable[[], Store]]:
    """Return a maker of stores on connections of their own."""
    stores: list[Store] = []

    def make() -> Store:
        stores.append(get_store("default").dedicated())
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def borrowed(transactional_db) -> Store:
    return get_store("default")


on_a_database = pytest.mark.django_db(transaction=True)


@pytest.fixture(
    params=[
        pytest.param("owned", marks=on_a_database),
        pytest.param("borrowed", marks=on_a_database),
        "memory",
    ]
)
def store(request, clock) -> Store:
    match request.param:
        case "owned":
            return request.getfixturevalue("dedicated")()
        case "borrowed":
            return request.getfixturevalue("borrowed")
        case _:
            return MemoryStore(clock=lambda: clock.epoch)


@pytest.fixture
def callers(store) -> Store:
    """The stores that open blocks: those on the caller's connection."""
    if isinstance(store, SQLStore) and store.session.owned:
        pytest.skip("a block is opened on the caller's connection")
    return store


class World:
    """Rows and entries for tests, at the time of the clock."""

    def __init__(self, store: Store, clock: Clock):
        self.store, self.clock = store, clock

    def enlist(self, lease: float = LEASE) -> int:
        return self.store.enlist(WorkerFacts("worker", "host", 7), lease, now=self.clock.now)

    def create(self, workflow_id: str = "a", *, name: str = "f", queue: str = "", **options) -> int:
        row = NewWorkflow(workflow_id, name, "[]", queue, Options(**options))
        return self.store.create([row], now=self.clock.now)[0].id

    def claim(
        self, worker: int, *, asked: int = 10, names: tuple[str, ...] = ("f",)
    ) -> list[Claim]:
        queues = list(self.store.queues().values())
        return self.store.claim(worker, "me", names, queues, asked, now=self.clock.now)

    def claimed(self, worker: int, **how) -> list[str]:
        return [claim.workflow_id for claim in self.claim(worker, **how)]

    def run(self, worker: int, workflow_id: str = "a", **how) -> Claim:
        """Create a workflow and claim it."""
        self.create(workflow_id, **how)
        claim = self.store.claim_one(workflow_id, worker, "me", now=self.clock.now)
        assert claim is not None
        return claim

    def write(self, *entries, **how):
        return self.store.write(list(entries), now=self.clock.now, **how)

    def look(self, *ids: int) -> int:
        return self.store.look(ids, now=self.clock.now)[0]

    def strand(self, worker: int) -> None:
        """Let a worker's lease run out."""
        self.clock.advance(LEASE + 1)
        assert worker in self.store.bury(now=self.clock.now)

    def rescue(self, *, limit: int | None = 100, batch: int = 10, **limits: int):
        return self.store.rescue(limits, limit, batch, now=self.clock.now)

    def status(self, workflow_id: str = "a"):
        return self.store.status(workflow_id)


@pytest.fixture
def world(store, clock) -> World:
    return World(store, clock)


@pytest.fixture
def worker(world) -> int:
    return world.enlist()


class PeopleWithModels:
    """What people do with rows, on a database."""

    def cancel(self, workflow_id: str) -> bool:
        return Workflow.objects.get(workflow_id=workflow_id).cancel()

    def resume(self, workflow_id: str) -> bool:
        return Workflow.objects.get(workflow_id=workflow_id).resume()

    def pause(self, queue: str) -> None:
        Queue.objects.get(name=queue).pause()

    def spoil(self, workflow_id: str, **changes) -> None:
        """Bring a row into a state it must not have."""
        Workflow.objects.filter(workflow_id=workflow_id).update(**changes)

    def worker_state(self, worker: int) -> str:
        return Worker.objects.get(pk=worker).state


class PeopleInMemory:
    def __init__(self, store: MemoryStore):
        self.store = store
        self.pause = store.pause

    def cancel(self, workflow_id: str) -> bool:
        return bool(self.store.cancel([workflow_id]))

    def resume(self, workflow_id: str) -> bool:
        return bool(self.store.resume([workflow_id]))

    def spoil(self, workflow_id: str, **changes) -> None:
        tables = self.store.tables
        for name, value in changes.items():
            setattr(tables.rows[tables.ids[workflow_id]], name, value)

    def worker_state(self, worker: int) -> str:
        return self.store.tables.workers[worker].state


@pytest.fixture
def people(store) -> PeopleWithModels | PeopleInMemory:
    return PeopleInMemory(store) if isinstance(store, MemoryStore) else PeopleWithModels()


# -- entries ------------------------------------------------------------------


def step(run: Claim, position: int = 1, **facts) -> StepEntry:
    facts = {"name": "charge", "kind": "step", "output": "1", **facts}
    return StepEntry(run.id, run.attempt, run.worker, position, **facts)


def start(run: Claim, *children: str, position: int = 1, **facts) -> StepEntry:
    rows = tuple(
        NewWorkflow(child, "f", "[]", parent=run.id, parent_position=position) for child in children
    )
    return step(run, position, kind="start", child=children[0], children=rows, **facts)


def outcome(run: Claim, status: str = "SUCCESS", **facts) -> OutcomeEntry:
    facts = {"output": "1", "error": None, "parent": run.parent, **facts}
    return OutcomeEntry(
        run.id, run.attempt, run.worker, status, workflow_id=run.workflow_id, **facts
    )


def suspend(
    run: Claim, wait: Wait | None = None, seconds: float | None = None, **facts
) -> WaitEntry:
    table = encode({1: wait}) if wait else None
    return WaitEntry(run.id, run.attempt, run.worker, table, seconds, **facts)


def for_child(*workflow_ids: str, **facts) -> Wait:
    return Wait("result", what=workflow_ids, **facts)


def until(epoch: float) -> Wait:
    return Wait("sleep", until=epoch)
