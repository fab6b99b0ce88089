"""A workflow that is called like a function: it runs here and now, durably.

Outside a run it is inline: its row is inserted and claimed in one transaction by this
process's inline worker. In a workflow it is a child, started and waited for; in a step a
plain call.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from asgiref.sync import sync_to_async

from durable_workflows.core import flow
from durable_workflows.core.payload import decode_call
from durable_workflows.core.records import NewWorkflow, Options, Verdict
from durable_workflows.core.replay import RESULT, START
from durable_workflows.core.states import SUCCESS
from durable_workflows.engine.aperform import adrive
from durable_workflows.engine.execute import ending
from durable_workflows.engine.handle import WorkflowHandle, WorkflowHandleAsync
from durable_workflows.engine.here import here
from durable_workflows.engine.inline import executor_id, inline_host
from durable_workflows.engine.leaving import Limb, forever
from durable_workflows.engine.perform import drive
from durable_workflows.engine.process import process
from durable_workflows.engine.registry import WorkflowSpec, registry
from durable_workflows.engine.run import InStep, Run
from durable_workflows.engine.start import (
    Arguments,
    begin_child,
    check_same,
    new_workflow,
    refuse_on_loop,
)
from durable_workflows.errors import InsideTransaction, Leaving
from durable_workflows.store.wakeup import READY

logger = logging.getLogger("durable_workflows")

CALLS_IN_FLIGHT = 0.002  # seconds between two looks at durable calls of other tasks


def call_workflow(
    spec: WorkflowSpec, options: Options, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run a workflow here and now, durably; in a workflow it is a child, waited for."""
    place = here.get()
    if type(place) is Run:
        return _call_child(place, spec, options, (args, kwargs))
    if isinstance(place, InStep):
        return spec.function(*args, **kwargs)  # a durable call inside a step is a plain call
    refuse_on_loop(
        f"A direct call of the sync workflow {spec.name}",
        f"start_workflow_async({spec.function.__name__}, …), and get_result() of its handle",
    )
    host = inline_host(process())
    runtime = host.runtime()
    _refuse_inline_in_transaction(spec, host)
    row = new_workflow(spec.name, options, "", (args, kwargs), None)
    created, claim = runtime.store.create_claimed(row, host.worker(), executor_id())
    if claim is None:
        check_same(row, created)
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
    except BaseException:
        _hand_over(run)
        raise
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
    """Read how a workflow ended; no durable call of the one around it, if it is a child."""
    token = here.set(None)
    try:
        return WorkflowHandle(workflow_id).get_result()
    finally:
        here.reset(token)


def _hand_over(run: Run) -> None:
    """Leave a run to the workers that this process won't end."""
    try:
        run.runtime.store.release(run.claim.worker, [run.claim.id])
        process().ring(READY)
    except Exception:  # what ended the run matters more; its lease runs out with the process
        logger.exception("Workflow %s could not be handed over", run.claim.workflow_id)


def _call_child(run: Run, spec: WorkflowSpec, options: Options, arguments: Arguments) -> Any:
    """A called child takes two positions: its start and its result."""
    child = begin_child(run, spec, options, None, arguments)
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
        check_same(row, created)
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
            while run.limb.live and run.leaving is None:
                await run.limb.doze(CALLS_IN_FLIGHT)  # outcome last, always
    except BaseException:
        await sync_to_async(_hand_over)(run)
        raise
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
    token = here.set(None)
    try:
        return await WorkflowHandleAsync(workflow_id).get_result()
    finally:
        here.reset(token)


async def _call_child_async(
    run: Run, spec: WorkflowSpec, options: Options, arguments: Arguments
) -> Any:
    """Both positions are taken before the first await: siblings can't come between."""
    if run.ends:
        await forever(run)
    start = await run.take_turn(spec.name, START)
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
