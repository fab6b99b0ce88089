"""Starting workflows: from outside, from a workflow's body, from a step, and by a call.

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
from durable_workflows.core.payload import decode_call, encode_call
from durable_workflows.core.records import Created, NewWorkflow, Options, QueueView, Verdict
from durable_workflows.core.replay import RESULT, START
from durable_workflows.core.states import SUCCESS
from durable_workflows.engine.clock import new_workflow_id
from durable_workflows.engine.execute import ending
from durable_workflows.engine.here import here
from durable_workflows.engine.inline import executor_id, inline_host
from durable_workflows.engine.leaving import Limb, forever
from durable_workflows.engine.perform import adrive, drive, refuse_inside_transaction
from durable_workflows.engine.process import Process, process
from durable_workflows.engine.registry import WorkflowSpec, registry
from durable_workflows.engine.run import InStep, Run
from durable_workflows.errors import (
    ConflictingWorkflow,
    InsideTransaction,
    Leaving,
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
                _check_same(row, found)
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
    _refuse_on_loop("enqueue")
    row = new_workflow(name, options, queue, arguments, None, using=here_process)
    create([row], None, here_process)
    return row


def _check_same(row: NewWorkflow, found: Created) -> None:
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
        return _begin_child(place, spec, options, queue, arguments)
    _refuse_on_loop("start_workflow")
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
        call = place.take_async(spec.name, START)
        row = new_workflow(spec.name, options, _name(queue), arguments, place, call.position)
        await _declare_async(queue)
        return str(await adrive(place, call, flow.start_flow(call, row)))
    row = new_workflow(spec.name, options, _name(queue), arguments, place)
    await sync_to_async(create)([row], queue)
    return row.workflow_id


def _begin_child(
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
    _refuse_on_loop("enqueue_many")
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
        call = place.take_async(spec.name, START)
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


def _refuse_on_loop(what: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise SyncCallOnLoop(
        f"{what}() would block the running event loop. Use: await {what}_async(…)."
    )


# -- by a direct call ------------------------------------------------------------


def call_workflow(
    spec: WorkflowSpec, options: Options, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run a workflow here and now, durably; in a workflow it is a child, waited for."""
    place = here.get()
    if type(place) is Run:
        return _call_child(place, spec, options, (args, kwargs))
    if isinstance(place, InStep):
        return spec.function(*args, **kwargs)  # a durable call inside a step is a plain call
    _refuse_on_loop(f"The workflow {spec.name}")
    host = inline_host(process())
    runtime = host.runtime()
    _refuse_inline_in_transaction(spec, host)
    row = new_workflow(spec.name, options, "", (args, kwargs), None)
    created, claim = runtime.store.create_claimed(row, host.worker(), executor_id())
    if claim is None:
        _check_same(row, created)
        return _outcome_of(row.workflow_id)
    return run_inline(Run(claim, spec, runtime), args, kwargs)


def _refuse_inline_in_transaction(spec: WorkflowSpec, host: Any) -> None:
    if host.process.store.in_transaction():
        raise InsideTransaction(
            f"{spec.name} can't run inline inside transaction.atomic(): a rollback would undo the "
            "record of steps that happened. Enqueue it (that commits with the block), or call it "
            "after the block."
        )


def run_inline(run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a claimed workflow in this thread; return its value, raise its error."""
    host = inline_host(process())
    token = here.set(run)
    value: Any = None
    failure: BaseException | None = None
    try:
        with host.beating(run, in_test=run.runtime.store.in_test()):
            try:
                value = run.spec.function(*args, **kwargs)
            except (Exception, Leaving) as error:
                failure = error  # of a run that leaves the recorded outcome tells how it ended
    finally:
        here.reset(token)
    entry = ending(run, value=value, error=failure)
    if entry is None or run.runtime.journal.append(entry) is not Verdict.RECORDED:
        return _outcome_of(run.claim.workflow_id)
    if (final := run.broken or failure) is not None:
        raise final
    if entry.status != SUCCESS:  # type: ignore[union-attr]
        return _outcome_of(run.claim.workflow_id)  # an end that could not be stored
    return value


def _outcome_of(workflow_id: str) -> Any:
    from durable_workflows.engine.handle import WorkflowHandle

    return WorkflowHandle(workflow_id).get_result()


def _call_child(run: Run, spec: WorkflowSpec, options: Options, arguments: Arguments) -> Any:
    """A called child takes two positions: its start and its result."""
    child = _begin_child(run, spec, options, None, arguments)
    call = run.take(spec.name, RESULT)
    if call.recorded is None and not run.runtime.suspends:
        _run_here(run, child)
    return drive(run, call, flow.result_flow(call, child, None))


def _run_here(run: Run, workflow_id: str) -> None:
    """Run a child of an inline run in its place, unless a worker was faster."""
    claim = run.runtime.store.claim_one(workflow_id, run.claim.worker, executor_id())
    if claim is None:
        return
    spec = registry.named(claim.name)
    args, kwargs = decode_call(claim.input)
    try:
        run_inline(Run(claim, spec, run.runtime), args, kwargs)
    except Exception:
        logger.debug("child %s failed; the parent reads it from its row", workflow_id)


async def call_workflow_async(
    spec: WorkflowSpec, options: Options, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """See call_workflow()."""
    place = here.get()
    if type(place) is Run:
        return await _call_child_async(place, spec, options, (args, kwargs))
    if isinstance(place, InStep):
        return await spec.function(*args, **kwargs)
    host = inline_host(process())
    runtime = host.runtime()
    row = new_workflow(spec.name, options, "", (args, kwargs), None)
    created, claim = await sync_to_async(_create_inline)(spec, host, runtime, row)
    if claim is None:
        _check_same(row, created)
        return await _outcome_of_async(row.workflow_id)
    return await run_inline_async(Run(claim, spec, runtime), args, kwargs)


def _create_inline(spec: WorkflowSpec, host: Any, runtime: Any, row: NewWorkflow) -> Any:
    _refuse_inline_in_transaction(spec, host)
    return runtime.store.create_claimed(row, host.worker(), executor_id())


async def run_inline_async(run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """See run_inline(); runs in the caller's own task."""
    host = inline_host(process())
    run.limb = Limb(run)
    run.limb.main = asyncio.current_task()
    in_test = await sync_to_async(run.runtime.store.in_test)()
    token = here.set(run)
    value: Any = None
    failure: BaseException | None = None
    try:
        with host.beating(run, in_test=in_test):
            try:
                value = await run.spec.function(*args, **kwargs)
            except (Exception, Leaving) as error:
                failure = error  # of a run that leaves the recorded outcome tells how it ended
    finally:
        here.reset(token)
    entry = ending(run, value=value, error=failure)
    if entry is None or await run.runtime.journal.submit(entry) is not Verdict.RECORDED:
        return await _outcome_of_async(run.claim.workflow_id)
    if (final := run.broken or failure) is not None:
        raise final
    if entry.status != SUCCESS:  # type: ignore[union-attr]
        return await _outcome_of_async(run.claim.workflow_id)
    return value


async def _outcome_of_async(workflow_id: str) -> Any:
    from durable_workflows.engine.handle import WorkflowHandleAsync

    return await WorkflowHandleAsync(workflow_id).get_result()


async def _call_child_async(
    run: Run, spec: WorkflowSpec, options: Options, arguments: Arguments
) -> Any:
    """Both positions are taken before the first await: siblings can't come between."""
    if run.ends:
        await forever(run)
    start = run.take_async(spec.name, START)
    row = new_workflow(spec.name, options, "", arguments, run, start.position)
    call = run.take_next(spec.name, RESULT)
    child = str(await adrive(run, start, flow.start_flow(start, row)))
    if call.recorded is None and not run.runtime.suspends:
        await _run_here_async(run, child)
    return await adrive(run, call, flow.result_flow(call, child, None))


async def _run_here_async(run: Run, workflow_id: str) -> None:
    claim = await sync_to_async(run.runtime.store.claim_one)(
        workflow_id, run.claim.worker, executor_id()
    )
    if claim is None:
        return
    args, kwargs = decode_call(claim.input)
    try:
        await run_inline_async(Run(claim, registry.named(claim.name), run.runtime), args, kwargs)
    except Exception:
        logger.debug("child %s failed; the parent reads it from its row", workflow_id)
