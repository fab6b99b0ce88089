"""Queues, as code declares them and puts workflows into them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec, TypeVar

from durable_workflows.core.names import check_name
from durable_workflows.core.records import QueueView
from durable_workflows.engine.decorators import spec_of
from durable_workflows.engine.handle import WorkflowHandle, WorkflowHandleAsync
from durable_workflows.engine.registry import registry
from durable_workflows.engine.start import begin, begin_async, begin_many, begin_many_async

P = ParamSpec("P")
R = TypeVar("R")


class Queue:
    """A named line of workflows, with limits.

    `concurrency` bounds how many of its workflows execute at once over all workers,
    `worker_concurrency` on each worker; a workflow that waits executes nothing. With
    `hold=True` a workflow keeps its place from its first claim to its end.
    """

    def __init__(
        self,
        name: str,
        concurrency: int | None = None,
        *,
        worker_concurrency: int | None = None,
        hold: bool = False,
    ):
        check_name(name, "A queue name")
        for what, limit in (
            ("concurrency", concurrency),
            ("worker_concurrency", worker_concurrency),
        ):
            if limit is not None and (type(limit) is not int or limit < 1):
                raise ValueError(
                    f"Queue {name!r}: {what} is a number from 1, or None, not {limit!r}."
                )
        if concurrency and worker_concurrency and worker_concurrency > concurrency:
            raise ValueError(
                f"Queue {name!r}: worker_concurrency {worker_concurrency} can never be reached "
                f"under concurrency {concurrency}."
            )
        self.view = QueueView(name, concurrency, worker_concurrency, hold)
        registry.declare(self.view)

    @property
    def name(self) -> str:
        return self.view.name

    def __repr__(self) -> str:
        return f"Queue({self.name!r})"

    def enqueue(
        self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandle[R]:
        """Put a workflow into the queue; it commits or rolls back with the caller's transaction.

        `function` is a workflow, or a `.using(…)` copy of one. Raise Unstorable for an
        argument that can't be kept exactly; nothing is written then.
        """
        spec, options = spec_of(function)
        return WorkflowHandle(begin(spec, options, self.view, (args, kwargs)))

    async def enqueue_async(
        self, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> WorkflowHandleAsync[Any]:
        """See enqueue()."""
        spec, options = spec_of(function)
        return WorkflowHandleAsync(await begin_async(spec, options, self.view, (args, kwargs)))

    def enqueue_many(
        self, function: Callable[..., Any], arguments: Iterable[Sequence[Any]], /
    ) -> list[WorkflowHandle[Any]]:
        """Put a workflow into the queue for each tuple of arguments, in one statement."""
        spec, options = spec_of(function)
        ids = begin_many(spec, options, self.view, arguments)
        return [WorkflowHandle(one) for one in ids]

    async def enqueue_many_async(
        self, function: Callable[..., Any], arguments: Iterable[Sequence[Any]], /
    ) -> list[WorkflowHandleAsync[Any]]:
        """See enqueue_many()."""
        spec, options = spec_of(function)
        ids = await begin_many_async(spec, options, self.view, arguments)
        return [WorkflowHandleAsync(one) for one in ids]


def start_workflow(
    function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
) -> WorkflowHandle[R]:
    """Start a workflow without a queue: the worker embedded here, else any other, takes it.

    Like every start it commits or rolls back with the caller's transaction.
    """
    spec, options = spec_of(function)
    return WorkflowHandle(begin(spec, options, None, (args, kwargs)))


async def start_workflow_async(
    function: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> WorkflowHandleAsync[Any]:
    """See start_workflow()."""
    spec, options = spec_of(function)
    return WorkflowHandleAsync(await begin_async(spec, options, None, (args, kwargs)))
