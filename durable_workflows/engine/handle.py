"""Handles: a workflow seen from outside it, or from another workflow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Generic, TypeVar

from asgiref.sync import sync_to_async

from durable_workflows.core import flow
from durable_workflows.core.failure import error_line
from durable_workflows.core.names import check_name
from durable_workflows.core.payload import decode_call, decode_value
from durable_workflows.core.records import Ended, StatusRow
from durable_workflows.core.replay import FIRST, RESULT, STATUS
from durable_workflows.core.states import WorkflowStatusString
from durable_workflows.engine.aperform import adrive
from durable_workflows.engine.here import here
from durable_workflows.engine.leaving import forever
from durable_workflows.engine.perform import drive, refuse_inside_transaction
from durable_workflows.engine.process import Process, process
from durable_workflows.engine.run import InStep, Run
from durable_workflows.engine.start import refuse_on_loop
from durable_workflows.errors import (
    DurableError,
    NonExistentWorkflow,
    NothingRuns,
    ResultTimeout,
    WaitingInsideTransaction,
    WrongPlace,
)

logger = logging.getLogger("durable_workflows")

R = TypeVar("R")
H = TypeVar("H", bound="WorkflowHandle[Any] | WorkflowHandleAsync[Any]")

ASYNC_HANDLE = "{}() of an async handle, as retrieve_workflow_async() returns it"


@dataclass(frozen=True, slots=True)
class WorkflowStatus:
    """What is known of a workflow at one moment. Instants are aware datetimes.

    `input` is {"args": (…), "kwargs": {…}}; a payload that can't be decoded is given as
    its stored text. `status` compares equal to plain strings.
    """

    workflow_id: str
    status: WorkflowStatusString
    name: str
    input: Any
    output: Any
    error: str | None
    created_at: datetime
    updated_at: datetime
    app_version: str | None
    executor_id: str | None
    queue_name: str | None
    dequeued_at: datetime | None
    attempt: int
    recoveries: int
    priority: int
    deduplication_id: str | None
    queue_partition_key: str | None
    forked_from: str | None
    parent_workflow_id: str | None
    deadline: datetime | None
    delay_until: datetime | None
    completed_at: datetime | None
    attributes: dict[str, Any] | None
    authenticated_user: str | None


def workflow_status(row: StatusRow) -> WorkflowStatus:
    """Return a row with its payloads decoded."""
    values = asdict(row)
    del values["id"]
    values["status"] = WorkflowStatusString(row.status)
    values["input"] = _safely(_decode_input, row.input)
    values["output"] = None if row.output is None else _safely(decode_value, row.output)
    values["error"] = None if row.error is None else error_line(row.error)
    return WorkflowStatus(**values)


def _decode_input(text: str) -> dict[str, Any]:
    args, kwargs = decode_call(text)
    return {"args": args, "kwargs": kwargs}


def _safely(decode: Any, text: str) -> Any:
    try:
        return decode(text)
    except DurableError:
        return text


class WorkflowHandle(Generic[R]):
    """A workflow execution: its id, its status, its result."""

    __slots__ = ("_home", "workflow_id")

    def __init__(self, workflow_id: str, _home: Process | None = None):
        self.workflow_id, self._home = workflow_id, _home

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.workflow_id!r})"

    def get_workflow_id(self) -> str:
        return self.workflow_id

    def get_result(self, *, polling_interval_sec: float = 1.0, timeout: float | None = None) -> R:
        """Wait for the workflow to end and return what it returned.

        `polling_interval_sec` bounds the delay where the database can't notify.
        `timeout` is in seconds; None waits for ever. The value is decoded anew on
        each call, so callers may change it.

        Raise the workflow's own error if it failed, AwaitedWorkflowCancelledError
        if it was cancelled, ResultTimeout if time ran out (the workflow goes on),
        WaitingInsideTransaction inside an open atomic block, unless it has ended.
        """
        place = here.get()
        if type(place) is Run:
            _refuse_foreign(self, "get_result")
            if place.leaving is None:
                refuse_inside_transaction(place, "get_result()")
            call = place.take("result", RESULT)
            return drive(place, call, flow.result_flow(call, self.workflow_id, timeout))
        _refuse_in_step(place, "get_result")
        refuse_on_loop("get_result()", ASYNC_HANDLE.format("get_result"))
        _check_interval(polling_interval_sec)
        ended = _wait(_home(self), [self.workflow_id], polling_interval_sec, timeout)
        if not ended:
            raise ResultTimeout(self.workflow_id, timeout or 0.0)
        return flow.outcome(self.workflow_id, ended[self.workflow_id])

    def get_status(self) -> WorkflowStatus:
        """Return the workflow's status now; in a workflow, a recorded step.

        Raise NonExistentWorkflow if there is no such workflow.
        """
        place = here.get()
        if type(place) is Run:
            _refuse_foreign(self, "get_status")
            if place.leaving is None:
                refuse_inside_transaction(place, "get_status()")
            call = place.take("status", STATUS)
            return _recorded_status(drive(place, call, flow.status_flow(call, self.workflow_id)))
        if not isinstance(place, InStep):
            refuse_on_loop("get_status()", ASYNC_HANDLE.format("get_status"))
        return _read_status(_home(self), self.workflow_id)


class WorkflowHandleAsync(Generic[R]):
    """See WorkflowHandle."""

    __slots__ = ("_home", "workflow_id")

    def __init__(self, workflow_id: str, _home: Process | None = None):
        self.workflow_id, self._home = workflow_id, _home

    __repr__ = WorkflowHandle.__repr__

    def get_workflow_id(self) -> str:
        return self.workflow_id

    async def get_result(
        self, *, polling_interval_sec: float = 1.0, timeout: float | None = None
    ) -> R:
        """See WorkflowHandle.get_result()."""
        place = here.get()
        if type(place) is Run:
            _refuse_foreign(self, "get_result")
            if place.ends:
                await forever(place)
            call = await place.take_turn("result", RESULT)
            return await adrive(place, call, flow.result_flow(call, self.workflow_id, timeout))
        _refuse_in_step(place, "get_result")
        _check_interval(polling_interval_sec)
        ended = await _wait_async(_home(self), [self.workflow_id], polling_interval_sec, timeout)
        if not ended:
            raise ResultTimeout(self.workflow_id, timeout or 0.0)
        return flow.outcome(self.workflow_id, ended[self.workflow_id])

    async def get_status(self) -> WorkflowStatus:
        """See WorkflowHandle.get_status()."""
        place = here.get()
        if type(place) is Run:
            _refuse_foreign(self, "get_status")
            if place.ends:
                await forever(place)
            call = await place.take_turn("status", STATUS)
            recorded = await adrive(place, call, flow.status_flow(call, self.workflow_id))
            return _recorded_status(recorded)
        return await sync_to_async(_read_status)(_home(self), self.workflow_id)


def retrieve_workflow(workflow_id: str, *, existing_workflow: bool = True) -> WorkflowHandle[Any]:
    """Return a handle; raise NonExistentWorkflow for an unknown id unless told not to look."""
    check_name(workflow_id, "A workflow id")
    handle: WorkflowHandle[Any] = WorkflowHandle(workflow_id)
    if existing_workflow:
        handle.get_status()
    return handle


async def retrieve_workflow_async(
    workflow_id: str, *, existing_workflow: bool = True
) -> WorkflowHandleAsync[Any]:
    """See retrieve_workflow()."""
    check_name(workflow_id, "A workflow id")
    handle: WorkflowHandleAsync[Any] = WorkflowHandleAsync(workflow_id)
    if existing_workflow:
        await handle.get_status()
    return handle


def wait_first(handles: Sequence[H], *, polling_interval_sec: float = 1.0) -> H:
    """Wait until one of the workflows has ended, however it did, and return its handle.

    Raise ValueError for no handles, or two of one workflow.
    """
    by_id = _by_id(handles)
    place = here.get()
    if type(place) is Run:
        _refuse_foreign(handles[0], "wait_first")
        if place.leaving is None:
            refuse_inside_transaction(place, "wait_first()")
        call = place.take("wait_first", FIRST)
        return by_id[drive(place, call, flow.first_flow(call, tuple(by_id)))]
    _refuse_in_step(place, "wait_first")
    refuse_on_loop("wait_first()", "wait_first_async(…)")
    _check_interval(polling_interval_sec)
    ended = _wait(_home(handles[0]), list(by_id), polling_interval_sec, None)
    return next(handle for workflow_id, handle in by_id.items() if workflow_id in ended)


async def wait_first_async(handles: Sequence[H], *, polling_interval_sec: float = 1.0) -> H:
    """See wait_first()."""
    by_id = _by_id(handles)
    place = here.get()
    if type(place) is Run:
        _refuse_foreign(handles[0], "wait_first")
        if place.ends:
            await forever(place)
        call = await place.take_turn("wait_first", FIRST)
        return by_id[await adrive(place, call, flow.first_flow(call, tuple(by_id)))]
    _refuse_in_step(place, "wait_first")
    _check_interval(polling_interval_sec)
    ended = await _wait_async(_home(handles[0]), list(by_id), polling_interval_sec, None)
    return next(handle for workflow_id, handle in by_id.items() if workflow_id in ended)


# -- waiting from outside --------------------------------------------------------


def _home(handle: WorkflowHandle[Any] | WorkflowHandleAsync[Any]) -> Process:
    """Return what this process has for the database the workflow is in."""
    return handle._home or process()


def _wait(
    here_process: Process, workflow_ids: list[str], interval: float, timeout: float | None
) -> dict[str, Ended]:
    """Wait until one has ended; {} if `timeout` seconds passed first."""
    if ended := _look_once(here_process, workflow_ids):
        return ended  # and no thread begins to wait
    watch = here_process.waiters.watch(workflow_ids, interval)
    try:
        # Once more: what ended before the watch was set is told to nobody.
        if ended := here_process.store.ended(workflow_ids):
            return ended
        return watch.ended if watch.wait(timeout) else {}
    finally:
        here_process.waiters.forget(watch)


def _look_once(here_process: Process, workflow_ids: list[str]) -> dict[str, Ended]:
    """Return what has ended; refuse to wait where nothing could ever arrive."""
    store = here_process.store
    ended = store.ended(workflow_ids)
    if ended:
        return ended
    if store.in_transaction():
        raise WaitingInsideTransaction(
            f"Waiting for workflow {workflow_ids[0]} inside transaction.atomic(): it may have been "
            "started in that very transaction, and would never be seen. Wait after the block."
        )
    if not here_process.has_worker and store.in_test():
        raise NothingRuns(workflow_ids[0])
    return {}


async def _wait_async(
    here_process: Process, workflow_ids: list[str], interval: float, timeout: float | None
) -> dict[str, Ended]:
    """See _wait()."""
    if ended := await sync_to_async(_look_once)(here_process, workflow_ids):
        return ended
    watch = here_process.waiters.watch_on_loop(workflow_ids, interval)
    try:
        if ended := await sync_to_async(here_process.store.ended)(workflow_ids):
            return ended
        try:
            async with asyncio.timeout(timeout):
                await watch.arrival()
        except TimeoutError:
            return {}
        return watch.ended
    finally:
        here_process.waiters.forget(watch)


def _read_status(here_process: Process, workflow_id: str) -> WorkflowStatus:
    row = here_process.store.status(workflow_id)
    if row is None:
        raise NonExistentWorkflow(workflow_id)
    return workflow_status(row)


def _recorded_status(values: dict[str, Any]) -> WorkflowStatus:
    return workflow_status(
        StatusRow(**{field.name: values[field.name] for field in fields(StatusRow)})
    )


def _by_id(handles: Sequence[H]) -> dict[str, H]:
    if not handles:
        raise ValueError("handles must not be empty")
    by_id = {handle.workflow_id: handle for handle in handles}
    if len(by_id) != len(handles):
        raise ValueError("handles must not name one workflow twice")
    if len({handle._home for handle in handles}) != 1:
        raise ValueError("handles must be of workflows in one database")
    return by_id


def _refuse_foreign(handle: WorkflowHandle[Any] | WorkflowHandleAsync[Any], what: str) -> None:
    if handle._home is not None:
        raise WrongPlace(
            f"{what}() of a WorkflowClient's handle can't be recorded by a workflow: the other one "
            "is in a database of its own. Ask for it inside a step."
        )


def _refuse_in_step(place: Any, what: str) -> None:
    if isinstance(place, InStep):
        raise WrongPlace(
            f"{what}() inside a step would hold its thread for as long as the other workflow "
            "takes. Wait in the workflow's body, where waiting is free."
        )


def _check_interval(seconds: float) -> None:
    if not seconds > 0:
        raise ValueError(f"polling_interval_sec is above zero, not {seconds!r}.")
