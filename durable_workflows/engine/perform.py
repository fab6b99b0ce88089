"""Does what flows ask for, in a thread; what both colours share is here, too.

aperform.py is the twin for coroutines.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import asdict
from time import perf_counter_ns
from typing import Any

from asgiref.sync import async_to_sync

from durable_workflows.core import flow, waits
from durable_workflows.core.flow import Effect, Flow
from durable_workflows.core.payload import encode_value
from durable_workflows.core.records import (
    Ended,
    NewWorkflow,
    StepEntry,
    StepRecord,
    Verdict,
    WaitEntry,
)
from durable_workflows.core.replay import Call
from durable_workflows.core.waits import Wait
from durable_workflows.engine.here import here
from durable_workflows.engine.run import InStep, Run
from durable_workflows.errors import (
    InsideTransaction,
    LeaseLost,
    NonDeterminism,
    NothingRuns,
    WorkflowCancelled,
    WrongPlace,
)
from durable_workflows.store.base import Answer

logger = logging.getLogger("durable_workflows.run")


def drive(run: Run, call: Call, steps: Flow) -> Any:
    """Pump a flow in the run's own thread; return what it returns."""
    began = perf_counter_ns()
    try:
        effect = next(steps)
        while True:
            try:
                answer = perform(run, call, effect, began)
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


def perform(run: Run, call: Call, effect: Effect, began: int) -> Any:
    match effect:
        case flow.Record():
            answer = run.runtime.journal.append(step_entry(run, call, effect, began))
            return _adopted(run, call, answer)
        case flow.InvokeAtomic():
            return invoke_atomic(run, call, effect, began)
        case flow.Invoke():
            return _invoke(run, call, effect)
        case flow.Pause():
            return _pause(run, call, effect)
        case flow.Await():
            return _await(run, call, effect)
        case flow.Permit():
            return _permit(effect)
        case flow.Blocks():
            return blocking_queue(run, effect.workflow_ids) if holds_place(run) else None
        case flow.Find():
            return find_name(run, effect.workflow_id)
        case flow.FindHolder():
            return find_holder(run, effect.new)
        case flow.ReadStatus():
            return read_status(run, effect.workflow_id)
    raise AssertionError(effect)


def _invoke(run: Run, call: Call, effect: flow.Invoke) -> Any:
    function = effect.spec.function
    if effect.spec.is_async:
        function = async_to_sync(function)
    token = here.set(InStep(run, call.position, effect.spec, effect.tries))
    try:
        return call_body(run, effect.spec.name, function, effect.args, effect.kwargs)
    except Exception:
        run.runtime.mend()
        raise
    finally:
        here.reset(token)


def call_body(run: Run, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call the body of a plain step, which must leave no transaction of its own open.

    What it wrote would be lost with the connection, though its record says that it is there.
    """
    store = run.runtime.store
    try:
        value = function(*args, **kwargs)
    except BaseException:
        store.close_left_open()
        raise
    if (alias := store.close_left_open()) is not None:
        raise WrongPlace(
            f"Step {name} left a transaction open on {alias!r}, which was rolled back. Put what it "
            "writes into transaction.atomic(), or commit() before the step ends."
        )
    return value


class _Fenced(Exception):
    """Rolls an atomic step back; `answer` says why, None where the claim is gone."""

    def __init__(self, answer: Answer | None):
        self.answer = answer


MOST_UNITS = 10  # transactions that the database undid by itself, within one try


def invoke_atomic(
    run: Run, call: Call, effect: flow.InvokeAtomic, began: int
) -> tuple[Any, StepRecord | None]:
    """Run an atomic step; one that the database itself undid costs no try."""
    runtime = run.runtime
    for unit in range(1, MOST_UNITS + 1):
        try:
            return _atomic_unit(run, call, effect, began)
        except Exception as error:
            if unit == MOST_UNITS or not runtime.store.undid(error):
                raise
            logger.info("step %s was rolled back by the database; again", effect.spec.name)
            runtime.clock.sleep(runtime.clock.jitter(0.01 * 2**unit))
    raise AssertionError("unreachable: the last unit returns or raises")


def _atomic_unit(
    run: Run, call: Call, effect: flow.InvokeAtomic, began: int
) -> tuple[Any, StepRecord | None]:
    """Run the body and insert its checkpoint in one transaction: exactly once."""
    store, claim = run.runtime.store, run.claim
    value, finished = None, False
    token = here.set(InStep(run, call.position, effect.spec, effect.tries, atomic=True))
    try:
        with store.atomic_step(effect.spec.max_idle):
            # Locks the row first: no new attempt begins while this transaction is open.
            if not store.guard_step(claim.id, claim.attempt, claim.worker):
                raise _Fenced(None)
            value = effect.spec.function(*effect.args, **effect.kwargs)
            output = encode_value(value, cap=effect.cap)
            answers = store.write([step_entry(run, call, flow.Record(output=output), began)])
            if answers is not None:
                # No fresh row. One of this very attempt is there when the answer to an earlier
                # COMMIT was lost while the server was still at it: its effects are, too.
                raise _Fenced(store.recorded(claim.id, call.position) or answers[0])
            finished = True
    except _Fenced as fenced:
        return None, _after_fence(run, call, fenced.answer)
    except Exception:
        # The answer to COMMIT may be lost: the row, if it is there, is mine by its attempt.
        record = run.runtime.reader.recorded(claim.id, call.position) if finished else None
        if record is None:
            raise
        if record.attempt != claim.attempt:
            return None, record
    finally:
        here.reset(token)
    return value, None


def _after_fence(run: Run, call: Call, answer: Answer | None) -> StepRecord | None:
    if isinstance(answer, StepRecord):
        return answer
    if answer is None:
        # Why the claim is gone is told by what a write of this run would meet.
        probe = WaitEntry(run.claim.id, run.claim.attempt, run.claim.worker, keeps=True)
        answer = run.runtime.journal.append(probe)
        if answer is Verdict.RECORDED:
            answer = Verdict.LOST
    return _adopted(run, call, answer)


def step_entry(run: Run, call: Call, record: flow.Record, began: int) -> StepEntry:
    claim = run.claim
    return StepEntry(
        claim.id,
        claim.attempt,
        claim.worker,
        call.position,
        call.name,
        call.kind,
        record.output,
        record.error,
        record.child,
        record.tries,
        (perf_counter_ns() - began) // 1000,
        record.children,
    )


def _adopted(run: Run, call: Call, answer: Answer) -> StepRecord | None:
    """Return None if our result is recorded, else the row to adopt; leave if fenced."""
    if answer is Verdict.RECORDED:
        return None
    if isinstance(answer, StepRecord):
        return answer
    run.lost(WorkflowCancelled if answer is Verdict.CANCELLED else LeaseLost)
    raise AssertionError("unreachable: lost() raises")


def _pause(run: Run, call: Call, effect: flow.Pause) -> None:
    runtime = run.runtime
    wait = flow.until(effect.wait, effect.seconds, runtime.clock.database_now())
    assert wait.until is not None
    left = wait.until - runtime.clock.database_now()
    if left <= 0:
        return
    if runtime.suspends and _is_long(run, left):
        run.suspend({call.position: wait})
    if left > runtime.suspend_after:
        note_waits(run, {call.position: wait})
    runtime.clock.sleep(left)


# The process's idea of the database's clock may be some milliseconds behind the one that
# woke it: what is left then must not be a reason to suspend again.
CLOCKS_DIFFER = 0.05  # seconds


def _is_long(run: Run, left: float) -> bool:
    """Return whether a wait is worth unloading for."""
    runtime = run.runtime
    return left > runtime.suspend_after or (left > CLOCKS_DIFFER and runtime.crowded())


def note_waits(run: Run, table: dict[int, Wait]) -> None:
    """Keep the waits of a run that waits in place: if its process dies, the time counts on."""
    claim = run.claim
    entry = WaitEntry(claim.id, claim.attempt, claim.worker, waits.encode(table), keeps=True)
    if (answer := run.runtime.journal.append(entry)) is not Verdict.RECORDED:
        run.lost(WorkflowCancelled if answer is Verdict.CANCELLED else LeaseLost)


def _await(run: Run, call: Call, effect: flow.Await) -> dict[str, Ended]:
    runtime = run.runtime
    wait = flow.until(effect.wait, effect.timeout, runtime.clock.database_now())
    if known := known_at_claim(run, wait.what):
        return known
    patience = _patience(run, wait)
    if patience == 0.0:
        if ended := runtime.reader.ended(list(wait.what)):
            return ended
        if wait.until is not None and wait.until <= runtime.clock.database_now():
            return {}
        run.suspend({call.position: wait})
    watch = runtime.waiters.watch(wait.what)
    try:
        # Looked at after the watch is set: what ends from now on is delivered.
        if ended := look_in_place(run, wait, patience):
            return ended
        if watch.wait(patience):
            return watch.ended
    finally:
        runtime.waiters.forget(watch)
    if not runtime.suspends:
        return {}
    if wait.until is not None and wait.until <= runtime.clock.database_now():
        return {}
    run.suspend({call.position: wait})
    raise AssertionError("unreachable: suspend() raises")


def look_in_place(run: Run, wait: Wait, left: float | None) -> dict[str, Ended]:
    """Return what has ended; refuse to wait in place where nothing could ever arrive."""
    ended = run.runtime.reader.ended(list(wait.what))
    if not ended and not run.runtime.suspends and left != 0.0 and run.runtime.store.in_test():
        raise NothingRuns(wait.what[0])
    return ended


def _patience(run: Run, wait: Wait) -> float | None:
    """Return how long a wait may last in memory; None for as long as it takes."""
    runtime = run.runtime
    left = None if wait.until is None else max(0.0, wait.until - runtime.clock.database_now())
    if not runtime.suspends:
        return left
    patience = 0.0 if runtime.crowded() else runtime.suspend_after
    return patience if left is None else min(left, patience)


def known_at_claim(run: Run, workflow_ids: tuple[str, ...]) -> dict[str, Ended]:
    ended = run.claim.ended
    return {one: ended[one] for one in workflow_ids if one in ended} if ended else {}


def _permit(effect: flow.Permit) -> bool:
    should_retry = effect.spec.retry.should_retry
    assert should_retry is not None
    if inspect.iscoroutinefunction(should_retry):
        return bool(async_to_sync(should_retry)(effect.error))
    return bool(should_retry(effect.error))


def holds_place(run: Run) -> bool:
    return bool(run.claim.queue) and run.runtime.holds(run.claim.queue)


def blocking_queue(run: Run, workflow_ids: tuple[str, ...]) -> str | None:
    queue = run.claim.queue
    behind = run.runtime.reader.behind(queue, list(workflow_ids))
    return queue if len(behind) == len(set(workflow_ids)) else None


def find_name(run: Run, workflow_id: str) -> str | None:
    row = run.runtime.reader.status(workflow_id)
    return None if row is None else str(row.name)


def find_holder(run: Run, new: NewWorkflow) -> str | None:
    return run.runtime.reader.holder(new.queue, new.options.deduplication_id or "")


def read_status(run: Run, workflow_id: str) -> str | None:
    row = run.runtime.reader.status(workflow_id)
    if row is None:
        return None
    # A payload is decoded by whoever reads the status, not nested in another payload.
    return encode_value(asdict(row), cap=4 * run.runtime.payload_max_bytes)


def refuse_inside_transaction(run: Run, what: str) -> None:
    """Raise unless no transaction of the caller's could roll a checkpoint back."""
    if run.runtime.store.in_transaction():
        raise InsideTransaction(
            f"{what} stands inside transaction.atomic(): a rollback would undo the record of "
            "something that happened. Move it out of the block, or make the whole block one "
            "@step(atomic=True)."
        )
