"""A worker inside a process that does something else: scripts, tests, a small site."""

from __future__ import annotations

from collections.abc import Sequence

from durable_workflows.engine.process import process
from durable_workflows.errors import WrongPlace
from durable_workflows.worker.worker import Orders, Worker


def launch(
    *,
    queues: Sequence[str] | None = None,
    threads: int = 8,
    async_slots: int = 100,
    grace: float = 5.0,
) -> None:
    """Start a worker in threads of this process; destroy() ends it.

    Nothing does so by itself: a web process runs workflows only if it asks to. Raise
    WrongPlace if one runs here already.
    """
    here = process()
    if here.has_worker:
        raise WrongPlace("launch() was called before in this process; call destroy() first.")
    orders = Orders(
        "embedded", None if queues is None else tuple(queues), threads, async_slots, grace
    )
    worker = Worker(here, orders)
    worker.start()
    here.embedded = worker


def destroy(*, grace: float | None = None) -> None:
    """End the worker that launch() started, if there is one; what it ran others go on with.

    `grace` is how many seconds running steps are given to finish.
    """
    here = process()
    ours = here.has_worker
    worker, here.embedded = here.embedded, None
    if ours:
        worker.stop(grace=grace)
