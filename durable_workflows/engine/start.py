"""Starting workflows: from outside, from a workflow's body and from a step.

Outside a run and in steps a start is one INSERT on the caller's connection: it commits
or rolls back with the caller's transaction (an atomic step's is the step's own). In a
workflow's body it is a durable call: child row and step row in one statement.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from asgiref.sync import sync_to_async

from durable_workflows.core import flow
from durable_workflows.core.names import check_name
from durable_workflows.core.payload import encode_call
from durable_workflows.core.records import Created, NewWorkflow, Options, QueueView
from durable_workflows.core.replay import START
from durable_workflows.engine.aperform import adrive
from durable_workflows.engine.clock import new_workflow_id
from durable_workflows.engine.here import here
from durable_workflows.engine.leaving import forever
from durable_workflows.engine.perform import drive, refuse_inside_transaction
from durable_workflows.engine.process import Process, process
from durable_workflows.engine.registry import WorkflowSpec, registry
from durable_workflows.engine.run import InStep, Run
from durable_workflows.errors import (
    ConflictingWorkflow,
    NotRegistered,
    SyncCallOnLoop,
    WrongPlace,
)
from durable_workflows.store.wakeup import READY

logger = logging.getLogger("durable_workflows")

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


# -- rows ----------------------------------------------------------------------


def new_workflow(
    name: str,
    options: Options,
    queue: str,
    arguments: Arguments,
    place: Run | InStep | None,
    position: int | None = None,
    using: Process | None = None,
) -> NewWorkflow:
    """Return the row of a start; raise Unstorable for arguments that can't be kept."""
    here_process = using or process()
    text = encode_call(*arguments, cap=here_process.settings.payload_max_bytes)
    parent, workflow_id = None, options.workflow_id
    if isinstance(place, InStep):
        place.started += 1
        parent, position = place.run, place.position
        default = f"{parent.claim.workflow_id}-{position}-{place.started}"
    elif place is not None:
        parent, default = place, f"{place.claim.workflow_id}-{position}"
    else:
        default = ""
    return NewWorkflow(
        workflow_id=workflow_id or default or new_workflow_id(),
        name=name,
        input=text,
        queue=queue,
        options=options
        if options.user or parent is None
        else options.changed(user=parent.claim.user),
        parent=None if parent is None else parent.claim.id,
        parent_position=position,
        chosen_id=workflow_id is not None,
    )


def refuse_main(spec: WorkflowSpec, here_process: Process) -> None:
    if spec.is_main and not here_process.has_worker:
        raise NotRegistered(
            f"{spec.name} is defined in __main__: no worker can import it. Move it into a module "
            "(`workflows.py` of an installed app is found by itself), or launch() a worker here."
        )


# -- outside a workflow's body ---------------------------------------------------


def create(
    rows: Sequence[NewWorkflow], queue: QueueView | None, using: Process | None = None
) -> None:
    """Insert workflows on the caller's connection and ring once they are committed."""
    here_process = using or process()
    if queue is not None:
        here_process.declare(queue)
    store, now = here_process.store, here_process.clock.now_or_none()
    if all(row.is_surely_new for row in rows):
        store.add(rows, now=now)
    else:
        for row, found in zip(rows, store.create(rows, now=now), strict=True):
            if not found.fresh:
                check_same(row, found)
    store.on_commit(lambda: here_process.ring(READY))


def create_named(
    here_process: Process, queue: str, name: str, options: Options, arguments: Arguments
) -> NewWorkflow:
    """Enqueue by name in the database of `here_process`; the function may be elsewhere."""
    check_name(queue, "A queue name")
    check_name(name, "A workflow name")
    if type(here.get()) is Run:
        raise WrongPlace(
            "A WorkflowClient's start can't be recorded by a workflow: it is in a database of its "
            "own. Put it into a step."
        )
    refuse_on_loop("WorkflowClient.enqueue()", "client.enqueue_async(…)")
    row = new_workflow(name, options, queue, arguments, None, using=here_process)
    create([row], None, here_process)
    return row


def check_same(row: NewWorkflow, found: Created) -> None:
    if found.name != row.name:
        spec = registry.get(row.name)
        if spec is None or found.name not in (spec.name, *spec.aliases):
            raise ConflictingWorkflow(row.workflow_id, found.name, row.name)
    logger.warning(
        "Workflow %s was started before: this start returns it, and its arguments are ignored.",
        row.workflow_id,
    )


def begin(
    spec: WorkflowSpec, options: Options, queue: QueueView | None, arguments: Arguments
) -> str:
    """Start a workflow from wherever we are; return its workflow id."""
    place = here.get()
    refuse_main(spec, process())
    if type(place) is Run:
        return begin_child(place, spec, options, queue, arguments)
    if queue is None:
        refuse_on_loop("start_workflow()", "start_workflow_async(…)")
    else:
        refuse_on_loop("enqueue()", "queue.enqueue_async(…)")
    row = new_workflow(spec.name, options, _name(queue), arguments, place)
    create([row], queue)
    return row.workflow_id


async def begin_async(
    spec: WorkflowSpec, options: Options, queue: QueueView | None, arguments: Arguments
) -> str:
    """See begin()."""
    place = here.get()
    refuse_main(spec, process())
    if type(place) is Run:
        if place.ends:
            await forever(place)
        call = await place.take_turn(spec.name, START)
        row = new_workflow(spec.name, options, _name(queue), arguments, place, call.position)
        await _declare_async(queue)
        return str(await adrive(place, call, flow.start_flow(call, row)))
    row = new_workflow(spec.name, options, _name(queue), arguments, place)
    await sync_to_async(create)([row], queue)
    return row.workflow_id


def begin_child(
    run: Run, spec: WorkflowSpec, options: Options, queue: QueueView | None, arguments: Arguments
) -> str:
    if run.leaving is None:
        refuse_inside_transaction(run, f"Starting {spec.name}")
    call = run.take(spec.name, START)
    row = new_workflow(spec.name, options, _name(queue), arguments, run, call.position)
    if call.recorded is None:
        process().declare(queue)
    return str(drive(run, call, flow.start_flow(call, row)))


async def _declare_async(queue: QueueView | None) -> None:
    if not process().is_declared(queue):
        await sync_to_async(process().declare)(queue)


def begin_many(
    spec: WorkflowSpec,
    options: Options,
    queue: QueueView,
    argument_lists: Iterable[Sequence[Any]],
) -> list[str]:
    """Start many workflows in one statement; return their ids in order."""
    place = here.get()
    refuse_main(spec, process())
    if type(place) is Run:
        if place.leaving is None:
            refuse_inside_transaction(place, f"Starting {spec.name}")
        call = place.take(spec.name, START)
        rows = _rows(spec, options, queue, argument_lists, place, call.position)
        if rows and call.recorded is None:
            process().declare(queue)
        drive(place, call, flow.start_many_flow(call, tuple(rows)))
        return [row.workflow_id for row in rows]
    refuse_on_loop("enqueue_many()", "queue.enqueue_many_async(…)")
    rows = _rows(spec, options, queue, argument_lists, place)
    if rows:
        create(rows, queue)
    return [row.workflow_id for row in rows]


async def begin_many_async(
    spec: WorkflowSpec,
    options: Options,
    queue: QueueView,
    argument_lists: Iterable[Sequence[Any]],
) -> list[str]:
    """See begin_many()."""
    place = here.get()
    refuse_main(spec, process())
    if type(place) is Run:
        if place.ends:
            await forever(place)
        call = await place.take_turn(spec.name, START)
        rows = _rows(spec, options, queue, argument_lists, place, call.position)
        await _declare_async(queue)
        await adrive(place, call, flow.start_many_flow(call, tuple(rows)))
        return [row.workflow_id for row in rows]
    rows = _rows(spec, options, queue, argument_lists, place)
    if rows:
        await sync_to_async(create)(rows, queue)
    return [row.workflow_id for row in rows]


def _rows(
    spec: WorkflowSpec,
    options: Options,
    queue: QueueView,
    argument_lists: Iterable[Sequence[Any]],
    place: Run | InStep | None,
    position: int | None = None,
) -> list[NewWorkflow]:
    if options.workflow_id is not None or options.deduplication_id is not None:
        raise ValueError(
            "enqueue_many starts many: one workflow id or deduplication id can't serve all."
        )
    rows = []
    for number, args in enumerate(argument_lists, start=1):
        if type(args) is not tuple and (isinstance(args, str) or not isinstance(args, Sequence)):
            raise TypeError(
                f"enqueue_many takes a tuple of arguments for each start, not {args!r:.80}."
            )
        row = new_workflow(spec.name, options, queue.name, (tuple(args), {}), place, position)
        if type(place) is Run:
            row = replace(row, workflow_id=f"{row.workflow_id}-{number}")
        rows.append(row)
    return rows


def _name(queue: QueueView | None) -> str:
    return "" if queue is None else queue.name


def refuse_on_loop(what: str, instead: str) -> None:
    """Raise SyncCallOnLoop, with what to await instead, if a loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise SyncCallOnLoop(f"{what} would block the running event loop. Use: await {instead}.")
