"""The names of the DBOS page on workflow handles, over the public API.

    from durable_workflows.dbos import DBOS, Queue

A table and nothing more: what each name does is said, and done, by the name on the right.
Workflows register under their `__qualname__`, and a queue's workflows keep their place from
start to end, as there. A name of `dbos` that is not here says what to use instead.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn, ParamSpec, TypeVar

import durable_workflows
from durable_workflows import (
    WorkflowHandle,
    WorkflowHandleAsync,
    WorkflowStatus,
    WorkflowStatusString,
)
from durable_workflows.dbos import _error

__all__ = [
    "DBOS",
    "DBOSClient",
    "DBOSConfig",
    "Queue",
    "WorkflowHandle",
    "WorkflowHandleAsync",
    "WorkflowStatus",
    "WorkflowStatusString",
    "error",
]

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("durable_workflows")

error = _error
DBOSConfig = dict[str, Any]

_USING = "an option of one start is a changed copy of the function: "
_QUERY = "ask the models, as in Workflow.objects.filter(…)"
_MODEL = "the row has its verbs, as in Workflow.objects.filter(…).cancel()"

# A name of dbos that is not here → what does its work.
INSTEAD = {
    "Debouncer": "fulfil.using(workflow_id=…, delay=…)",
    "DBOSConfiguredInstance": "a module's function, which takes what it needs as arguments",
    "SetWorkflowID": _USING + "fulfil.using(workflow_id=…)",
    "SetWorkflowTimeout": _USING + "fulfil.using(timeout=…)",
    "SetEnqueueOptions": _USING + "fulfil.using(priority=…, deduplication_id=…, delay=…)",
    "SetWorkflowAttributes": _USING + "fulfil.using(attributes=…)",
    "DBOSContextSetAuth": _USING + "fulfil.using(user=…)",
    "EnqueueOptions": "a plain dict with the same keys",
    "SQLAlchemyDatasource": "Django's ORM inside @step(atomic=True)",
    "AsyncSQLAlchemyDatasource": "Django's ORM inside @step(atomic=True)",
    "transaction": "durable_workflows.step(atomic=True)",
    "run_step": "durable_workflows.run_step(function, …)",
    "run_step_async": "await durable_workflows.run_step_async(function, …)",
    "register_queue": "Queue(name, …)",
    "register_queue_async": "Queue(name, …)",
    "retrieve_queue": "the model durable_workflows.models.Queue",
    "list_queues": "the model durable_workflows.models.Queue",
    "delete_queue": "the model durable_workflows.models.Queue",
    "listen_queues": "manage.py runworker --queues",
    "enqueue_workflow": "Queue(name).enqueue(function, …)",
    "enqueue_workflow_async": "await Queue(name).enqueue_async(function, …)",
    "enqueue_workflow_with_options": "WorkflowClient(…).using(…).enqueue(queue, name, …)",
    "get_result": "DBOS.retrieve_workflow(id).get_result()",
    "get_result_async": "await (await DBOS.retrieve_workflow_async(id)).get_result()",
    "get_workflow_status": "DBOS.retrieve_workflow(id).get_status()",
    "get_workflow_status_async": "await (await DBOS.retrieve_workflow_async(id)).get_status()",
    "list_workflows": _QUERY,
    "list_queued_workflows": _QUERY,
    "list_workflow_steps": "ask the models, as in workflow.steps.all()",
    "cancel_workflows": _MODEL,
    "resume_workflows": _MODEL,
    "logger": "logging.getLogger(__name__)",
    "scheduled": "a cron entry that calls start_workflow()",
    "create_schedule": "a cron entry that calls start_workflow()",
}


def instead(owner: str, name: str) -> str:
    """Return a sentence on a name of dbos that is not here, with what is."""
    way = INSTEAD.get(name) or INSTEAD.get(name.removesuffix("_async"))
    return f"{owner} has no {name!r}. " + (
        f"Use {way}." if way else "See what durable_workflows itself offers."
    )


def refuse(what: str, options: Mapping[str, Any], ways: Mapping[str, str]) -> None:
    """Raise for options that are not here, saying what is."""
    for name in options:
        way = f" {ways[name]}" if name in ways else ""
        raise TypeError(f"{what} takes no {name!r} here.{way}")


class _Names(type):
    def __getattr__(cls, name: str) -> NoReturn:
        raise AttributeError(instead("DBOS", name), name=name)


class DBOS(metaclass=_Names):
    """The reference's words. `DBOS(config=…)` is accepted; the project's settings hold."""

    def __init__(self, *, config: Mapping[str, Any] | None = None):
        if config:
            logger.info(
                "DBOS(config=…) changes nothing here: the database is that of DATABASES, the rest "
                "stands in DURABLE_WORKFLOWS."
            )

    start_workflow_async = staticmethod(durable_workflows.start_workflow_async)
    retrieve_workflow = staticmethod(durable_workflows.retrieve_workflow)
    retrieve_workflow_async = staticmethod(durable_workflows.retrieve_workflow_async)
    wait_first = staticmethod(durable_workflows.wait_first)
    wait_first_async = staticmethod(durable_workflows.wait_first_async)
    sleep = staticmethod(durable_workflows.sleep)
    sleep_async = staticmethod(durable_workflows.sleep_async)
    cancel_workflow = staticmethod(durable_workflows.cancel_workflow)
    cancel_workflow_async = staticmethod(durable_workflows.cancel_workflow_async)
    resume_workflow = staticmethod(durable_workflows.resume_workflow)
    resume_workflow_async = staticmethod(durable_workflows.resume_workflow_async)

    @staticmethod
    def start_workflow(
        function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandle[R]:
        """See durable_workflows.start_workflow()."""
        return durable_workflows.start_workflow(function, *args, **kwargs)

    @staticmethod
    def workflow(
        *, name: str | None = None, max_recovery_attempts: int | None = 100, **options: Any
    ) -> Callable[[Callable[..., Any]], Any]:
        """See durable_workflows.workflow(). The name is `__qualname__` unless given."""
        refuse(
            "DBOS.workflow()",
            options,
            {
                "serialization_type": "Payloads are always JSON.",
                "validate_args": "Validate in the function.",
            },
        )

        def decorate(function: Callable[..., Any]) -> Any:
            return durable_workflows.workflow(
                name=name or function.__qualname__, max_recovery_attempts=max_recovery_attempts
            )(function)

        return decorate

    @staticmethod
    def step(
        *,
        name: str | None = None,
        retries_allowed: bool = False,
        interval_seconds: float = 1.0,
        max_attempts: int = 3,
        backoff_rate: float = 2.0,
        should_retry: Callable[[Exception], bool | Awaitable[bool]] | None = None,
        timeout_seconds: float | None = None,
        **options: Any,
    ) -> Callable[[Callable[..., Any]], Any]:
        """See durable_workflows.step(). Without `retries_allowed` there is one try."""
        refuse("DBOS.step()", options, {"preemptible": "An async step is cancelled with its run."})
        return durable_workflows.step(
            name=name,
            max_attempts=max_attempts if retries_allowed else 1,
            interval_seconds=interval_seconds,
            backoff_rate=backoff_rate,
            should_retry=should_retry,
            timeout_seconds=timeout_seconds,
        )

    @staticmethod
    def launch() -> None:
        """See durable_workflows.launch()."""
        durable_workflows.launch()

    @staticmethod
    def destroy(*, workflow_completion_timeout_sec: float = 0.0, **options: Any) -> None:
        """See durable_workflows.destroy()."""
        refuse("DBOS.destroy()", options, {"destroy_registry": "Functions stay registered."})
        durable_workflows.destroy(grace=workflow_completion_timeout_sec)


class Queue(durable_workflows.Queue):
    """A queue whose limits count every workflow from its start to its end."""

    def __init__(
        self,
        name: str,
        concurrency: int | None = None,
        *,
        worker_concurrency: int | None = None,
        priority_enabled: bool = True,
        **options: Any,
    ):
        refuse(
            "Queue()",
            options,
            {
                "polling_interval_sec": (
                    "Workers are told; DURABLE_WORKFLOWS['POLL_SECONDS'] bounds the rest."
                )
            },
        )
        super().__init__(name, concurrency, worker_concurrency=worker_concurrency, hold=True)


class DBOSClient(durable_workflows.WorkflowClient):
    """See durable_workflows.WorkflowClient. The two keywords mean one database."""

    def __init__(
        self,
        *,
        application_database_url: str | None = None,
        system_database_url: str | None = None,
    ):
        url = system_database_url or application_database_url
        if url is None:
            raise TypeError("DBOSClient() wants application_database_url or system_database_url.")
        super().__init__(url)

    def destroy(self) -> None:
        """See WorkflowClient.close()."""
        self.close()


def __getattr__(name: str) -> NoReturn:
    sentence = instead(__name__, name)
    if name in INSTEAD:
        raise ImportError(sentence)  # an AttributeError's words are lost in `from … import`
    raise AttributeError(sentence, name=name)
