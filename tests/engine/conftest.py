"""What the engine's tests share: what was called, rows to look at, a worker in this process."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections

from durable_workflows import destroy, launch
from durable_workflows.engine.process import process
from durable_workflows.models import Step, Workflow


@pytest.fixture
def calls() -> list[Any]:
    """What step bodies noted, in order: the proof of what ran and how often."""
    return []


@pytest.fixture
def quick(settings, monkeypatch) -> None:
    """Waits leave memory soon, so that a short sleep is long enough to unload; the timer is awake."""
    monkeypatch.setattr("durable_workflows.worker.timer.LONGEST_PAUSE", 0.02)
    settings.DURABLE_WORKFLOWS = {**settings.DURABLE_WORKFLOWS, "SUSPEND_AFTER_SECONDS": 0.02}


@pytest.fixture
def worker(transactional_db, quick) -> Iterator[Callable[..., None]]:
    """A worker embedded in this process; call it for other numbers of slots."""

    def relaunch(**orders: Any) -> None:
        destroy(grace=5)
        launch(**orders)

    launch(threads=4, async_slots=50)
    yield relaunch
    destroy(grace=5)
    assert process().store.audit() == []


class Rows:
    """What the database says of a workflow, and the crashes that a test stages there."""

    def of(self, handle: Any) -> Workflow:
        return Workflow.objects.get(workflow_id=handle.workflow_id)

    def status(self, handle: Any) -> str:
        return self.of(handle).status

    def steps(self, handle: Any) -> list[tuple[int, str, str]]:
        """Return (position, kind, name) of the recorded calls; names without their place."""
        return [
            (step.position, step.kind, step.name.rpartition(".")[2])
            for step in self.of(handle).steps.order_by("position")
        ]

    def step(self, handle: Any, position: int) -> Step:
        return self.of(handle).steps.get(position=position)

    def forget_end(self, handle: Any, *, after: int | None = None) -> None:
        """Make the workflow look as if its process had died before its outcome was written.

        With `after`, before any step beyond that position was recorded.
        """
        if after is not None:
            self.of(handle).steps.filter(position__gt=after).delete()
        Workflow.objects.filter(workflow_id=handle.workflow_id).update(
            status="PENDING", output=None, error=None, completed_at=None, worker=None, wake_at=None
        )


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
def apart() -> Callable[[Callable[[], Any]], threading.Thread]:
    """Begin to call a function in a thread that gives its connections back."""

    def begin(function: Callable[[], Any]) -> threading.Thread:
        def call() -> None:
            try:
                function()
            finally:
                connections.close_all()

        thread = threading.Thread(target=call)
        thread.start()
        return thread

    return begin


@pytest.fixture
def on_loop() -> Callable[[Any], Any]:
    """Run a coroutine as a web framework would: on a loop, its ORM in this thread."""
    from asgiref.sync import async_to_sync

    async def awaited(coroutine: Any) -> Any:
        async with asyncio.timeout(60):
            return await coroutine

    return lambda coroutine: async_to_sync(awaited)(coroutine)
