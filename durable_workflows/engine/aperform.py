"""Does what flows ask for in a coroutine: the twin of perform.py.

What talks to the database goes to a thread; entries of the journal are awaited. A run
that is leaving is told nothing: its durable calls wait for what never comes.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any, cast

from asgiref.sync import sync_to_async

from durable_workflows.core import flow
from durable_workflows.core.flow import Effect, Flow
from durable_workflows.core.records import Ended, StepRecord, Verdict
from durable_workflows.core.replay import Call
from durable_workflows.engine.here import here
from durable_workflows.engine.leaving import forever
from durable_workflows.engine.perform import (
    CLOCKS_DIFFER,
    blocking_queue,
    call_body,
    find_holder,
    find_name,
    holds_place,
    invoke_atomic,
    known_at_claim,
    look_in_place,
    note_waits,
    read_status,
    step_entry,
)
from durable_workflows.engine.run import InStep, Run
from durable_workflows.engine.runtime import nothing
from durable_workflows.errors import LeaseLost, NonDeterminism, StepTimeout, WorkflowCancelled


async def adrive(run: Run, call: Call, steps: Flow) -> Any:
    """See drive()."""
    began = perf_counter_ns()
    limb = run.limb
    if call.recorded is not None:
        # At first the loop turned while this call was under way, and other tasks began.
        await asyncio.sleep(0)
        if run.ends:
            await forever(run)
    limb.live += 1
    try:
        effect = next(steps)
        while True:
            try:
                answer = await aperform(run, call, effect, began)
            except BaseException as error:
                effect = steps.throw(error)
            else:
                effect = steps.send(answer)
    except StopIteration as stop:
        return stop.value
    except NonDeterminism as error:
        if error.workflow_id == run.claim.workflow_id:
            run.broken = error
        raise
    finally:
        limb.live -= 1
        if limb.live == 0:
            limb.stir()


async def aperform(run: Run, call: Call, effect: Effect, began: int) -> Any:
    """See perform()."""
    match effect:
        case flow.InvokeAtomic():
            value, adopted = await sync_to_async(_invoke_atomic_apart)(run, call, effect, began)
            if run.leaving is not None:
                await forever(run)
            return value, adopted
        case flow.Invoke():
            return await _ainvoke(run, call, effect)
        case flow.Record():
            answer = await run.runtime.journal.submit(step_entry(run, call, effect, began))
            if answer is Verdict.RECORDED:
                return None
            if isinstance(answer, StepRecord):
                return answer
            run.lose(WorkflowCancelled() if answer is Verdict.CANCELLED else LeaseLost())
            await forever(run)
        case flow.Pause():
            return await _apause(run, call, effect)
        case flow.Await():
            return await _aawait(run, call, effect)
        case flow.Permit():
            return await _apermit(effect)
        case flow.Blocks():
            if not holds_place(run):
                return None
            return await _in_thread(blocking_queue, run, effect.workflow_ids)
        case flow.Find():
            return await _in_thread(find_name, run, effect.workflow_id)
        case flow.FindHolder():
            return await _in_thread(find_holder, run, effect.new)
        case flow.ReadStatus():
            return await _in_thread(read_status, run, effect.workflow_id)
    raise AssertionError(effect)


async def _in_thread(read: Callable[..., Any], *args: Any) -> Any:
    return await sync_to_async(read)(*args)


def _invoke_atomic_apart(
    run: Run, call: Call, effect: flow.InvokeAtomic, began: int
) -> tuple[Any, StepRecord | None]:
    """Run an atomic step in a step thread; a fenced one is told by the run's `leaving`."""
    try:
        return cast(
            tuple[Any, StepRecord | None],
            _call_apart(invoke_atomic, (run, call, effect, began), {}),
        )
    except (LeaseLost, WorkflowCancelled):
        run.limb.leave_soon()
        return None, None


async def _ainvoke(run: Run, call: Call, effect: flow.Invoke) -> Any:
    spec = effect.spec
    token = here.set(InStep(run, call.position, effect.spec, effect.tries))
    try:
        if not spec.is_async:
            return await sync_to_async(_call_apart)(
                call_body, (run, spec.name, spec.function, effect.args, effect.kwargs), {}
            )
        if spec.timeout_seconds is None:
            return await spec.function(*effect.args, **effect.kwargs)
        try:
            async with asyncio.timeout(spec.timeout_seconds) as limit:
                return await spec.function(*effect.args, **effect.kwargs)
        except TimeoutError:
            if limit.expired():
                raise StepTimeout(spec.name, spec.timeout_seconds) from None
            raise
    except Exception:
        if run.runtime.mend is not nothing:
            await sync_to_async(run.runtime.mend)()
        raise
    finally:
        here.reset(token)


def _call_apart(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except StopIteration as stop:  # no future takes it; what PEP 479 makes of it elsewhere
        raise RuntimeError("the step raised StopIteration") from stop


async def _apause(run: Run, call: Call, effect: flow.Pause) -> None:
    clock = run.runtime.clock
    wait = flow.until(effect.wait, effect.seconds, clock.database_now())
    assert wait.until is not None
    left = wait.until - clock.database_now()
    if left <= 0:
        return
    if not run.runtime.suspends:
        if left > run.runtime.suspend_after:
            await _in_thread(note_waits, run, {call.position: wait})
        if clock.skips:
            clock.sleep(left)
            return
    if run.runtime.suspend_after and left <= CLOCKS_DIFFER:
        await run.limb.doze(left)
    else:
        await run.limb.park(call.position, wait, left)


async def _aawait(run: Run, call: Call, effect: flow.Await) -> dict[str, Ended]:
    runtime = run.runtime
    wait = flow.until(effect.wait, effect.timeout, runtime.clock.database_now())
    if known := known_at_claim(run, wait.what):
        return known
    watch = runtime.waiters.watch_on_loop(wait.what)
    try:
        left = None if wait.until is None else max(0.0, wait.until - runtime.clock.database_now())
        # A worker's run is told by the watch. One that waits in place, or not at all, looks.
        looks = not runtime.suspends or left == 0.0
        if looks and (ended := await _in_thread(look_in_place, run, wait, left)):
            return ended
        if left == 0.0:
            return {}
        await run.limb.park(call.position, wait, left, watch.arrival())
        return watch.ended
    finally:
        runtime.waiters.forget(watch)


async def _apermit(effect: flow.Permit) -> bool:
    should_retry = effect.spec.retry.should_retry
    assert should_retry is not None
    verdict = should_retry(effect.error)
    return bool(await verdict if inspect.isawaitable(verdict) else verdict)
