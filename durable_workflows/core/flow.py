"""The life of a durable call, as generators of effects.

A flow is told facts and says what is to be done next; `engine.perform` does it and
sends the answer back, for threads and coroutines alike. Nothing here waits, reads a
clock or knows whether it is awaited.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Any

from durable_workflows.core import states
from durable_workflows.core.failure import decode_error, encode_error, without_traceback
from durable_workflows.core.payload import decode_value, encode_value
from durable_workflows.core.records import Ended, NewWorkflow, StepRecord
from durable_workflows.core.replay import Call
from durable_workflows.core.retry import Retry
from durable_workflows.core.waits import Wait
from durable_workflows.errors import (
    AwaitedWorkflowCancelledError,
    AwaitedWorkflowMaxRecoveryAttemptsExceeded,
    ConflictingWorkflow,
    MaxStepRetriesExceeded,
    NonExistentWorkflow,
    QueueDeduplicated,
    ResultTimeout,
    Unstorable,
    WaitsBehindItself,
)

MOST_TRIES_KEPT = 20  # of a step, for the timeline


@dataclass(frozen=True, slots=True)
class StepSpec:
    """A step function and its options. `timeout_seconds` bounds one try of an async step."""

    name: str
    function: Callable[..., Any]
    retry: Retry = field(default_factory=Retry)
    timeout_seconds: float | None = None
    atomic: bool = False
    max_idle: float = 60.0  # seconds an atomic step may leave its transaction idle
    is_async: bool = False


# What a flow asks for. Each is answered by a value or an exception sent back in.


@dataclass(slots=True)
class Invoke:
    """Call the step's body for the `tries`-th time; answered by what it returned or raised."""

    spec: StepSpec
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    tries: int


@dataclass(slots=True)
class InvokeAtomic(Invoke):
    """Call the body and record its result in one transaction; answered by (value, adopted)."""

    cap: int


@dataclass(slots=True)
class Permit:
    """Ask the step's `should_retry` about an error; answered by its verdict."""

    spec: StepSpec
    error: Exception


@dataclass(slots=True)
class Record:
    """Make the call's result durable; answered by None, or the row of whoever was first."""

    output: str | None = None
    error: str | None = None
    child: str | None = None
    tries: str | None = None
    children: tuple[NewWorkflow, ...] = ()


@dataclass(slots=True)
class Pause:
    """Let `seconds` pass, or what is left until `wait.until` if that is known."""

    wait: Wait
    seconds: float = 0.0


@dataclass(slots=True)
class Await:
    """Wait until one of `wait.what` has ended; answered by those that have, none on timeout."""

    wait: Wait
    timeout: float | None = None


@dataclass(slots=True)
class Blocks:
    """Ask whether this run holds the one place that all of these workflows wait for.

    Answered by the name of the queue, or None.
    """

    workflow_ids: tuple[str, ...]


@dataclass(slots=True)
class Find:
    """Look up the registered name of a workflow id; answered by None if there is no row."""

    workflow_id: str


@dataclass(slots=True)
class FindHolder:
    """Look up who holds a start's deduplication id; answered by a workflow id or None."""

    new: NewWorkflow


@dataclass(slots=True)
class ReadStatus:
    """Read a workflow's status; answered by an encoded payload."""

    workflow_id: str


Effect = Invoke | Permit | Record | Pause | Await | Blocks | Find | FindHolder | ReadStatus
Flow = Generator[Effect, Any, Any]


def replayed(record: StepRecord) -> Any:
    """Return what was recorded, or raise it."""
    if record.error is not None:
        raise decode_error(record.error)
    return None if record.output is None else decode_value(record.output)


def step_flow(
    call: Call, spec: StepSpec, args: tuple[Any, ...], kwargs: dict[str, Any], cap: int
) -> Flow:
    """Run a step to its recorded result: its value is returned, its error raised."""
    if call.recorded is not None:
        return replayed(call.check(call.recorded))
    failed = list(call.wait.errors) if call.wait is not None else []
    if call.wait is not None:
        yield Pause(call.wait)
    while True:
        tries = len(failed) + 1
        try:
            if spec.atomic:
                value, adopted = yield InvokeAtomic(spec, args, kwargs, tries, cap)
                return value if adopted is None else replayed(call.check(adopted))
            value = yield Invoke(spec, args, kwargs, tries)
            output = encode_value(value, cap=cap)
        except Exception as error:
            # All of them are written at each suspension: only the last keeps its traceback.
            failed[-1:] = [without_traceback(text) for text in failed[-1:]]
            failed.append(encode_error(error))
            pause, final = yield from _after_failure(spec, error, failed)
            if final is not None:
                adopted = yield Record(error=encode_error(final), tries=_tries(failed))
                if adopted is not None:
                    return replayed(call.check(adopted))
                if final is error:
                    raise
                raise final from error
            assert pause is not None
            yield pause
        else:
            adopted = yield Record(output=output, tries=_tries(failed) if failed else None)
            if adopted is not None:
                return replayed(call.check(adopted))
            # What JSON lacks is read back, so that a first run sees what its replay will.
            return decode_value(output) if '"$"' in output else value


def _after_failure(
    spec: StepSpec, error: Exception, failed: list[str]
) -> Generator[Effect, Any, tuple[Pause | None, Exception | None]]:
    """Return the pause before the next try, or the error the step ends with."""
    delay = spec.retry.delay(len(failed))
    # What can't be stored now can't be stored next time.
    if isinstance(error, Unstorable) or spec.retry.max_attempts == 1:
        return None, error
    if spec.retry.should_retry is not None:
        try:
            permitted = yield Permit(spec, error)
        except Exception as bug:  # in should_retry itself: a result like any other
            return None, bug
        if not permitted:
            return None, error
    if delay is None:
        errors = [decode_error(text) for text in failed]
        return None, MaxStepRetriesExceeded(spec.name, spec.retry.max_attempts, errors)
    return Pause(Wait("retry", errors=tuple(failed)), delay), None


def _tries(failed: list[str]) -> str:
    from durable_workflows.core.failure import error_line

    return json.dumps([error_line(text) for text in failed[-MOST_TRIES_KEPT:]])


def sleep_flow(call: Call, seconds: float) -> Flow:
    """Let time pass, counted from when the call was first made."""
    if call.recorded is not None:
        return replayed(call.check(call.recorded))
    yield Pause(call.wait or Wait("sleep"), seconds)
    adopted = yield Record()
    return None if adopted is None else replayed(call.check(adopted))


def start_flow(call: Call, new: NewWorkflow) -> Flow:
    """Start a child in the commit that records the start; return its workflow id."""
    if call.recorded is not None:
        record = call.check(call.recorded)
        return replayed(record) if record.error is not None else record.child
    if new.chosen_id:
        there = yield Find(new.workflow_id)
        if there is not None and there != new.name:
            error = ConflictingWorkflow(new.workflow_id, there, new.name)
            return (yield from _conclude(call, Record(error=encode_error(error))))
    if new.options.deduplication_id is None:
        adopted = yield Record(child=new.workflow_id, children=(new,))
    else:
        # Looked at first, so that the rule is a result and no broken transaction; the index
        # is what holds, should somebody come between.
        if (taken := (yield from _taken(new))) is not None:
            return (yield from _conclude(call, Record(error=encode_error(taken))))
        try:
            adopted = yield Record(child=new.workflow_id, children=(new,))
        except Exception:
            if (taken := (yield from _taken(new))) is None:
                raise
            return (yield from _conclude(call, Record(error=encode_error(taken))))
    return new.workflow_id if adopted is None else call.check(adopted).child


def _taken(new: NewWorkflow) -> Generator[Effect, Any, QueueDeduplicated | None]:
    """Return the error of a start whose deduplication id another workflow holds."""
    holder = yield FindHolder(new)
    if holder is None or holder == new.workflow_id:
        return None
    return QueueDeduplicated(new.workflow_id, new.queue, new.options.deduplication_id or "", holder)


def start_many_flow(call: Call, new: tuple[NewWorkflow, ...]) -> Flow:
    """Start many children in one commit; return their workflow ids."""
    if call.recorded is not None:
        return replayed(call.check(call.recorded))
    ids = [one.workflow_id for one in new]
    # The ids follow from the parent's: the row keeps their number, not their text.
    adopted = yield Record(output=encode_value(len(ids), cap=100), children=new)
    if adopted is not None:
        call.check(adopted)
    return len(ids)


def result_flow(call: Call, workflow_id: str, timeout: float | None) -> Flow:
    """Wait for another workflow and return what it returned, or raise what it raised."""
    if call.recorded is not None:
        return replayed(call.check(call.recorded))
    if (refusal := (yield from _refusal(call, (workflow_id,)))) is not None:
        return (yield from _conclude(call, refusal))
    wait = call.wait or Wait("result", what=(workflow_id,))
    ended = (yield Await(wait, timeout)).get(workflow_id)
    if ended is None:
        error = ResultTimeout(workflow_id, timeout or 0.0)
        return (yield from _conclude(call, Record(error=encode_error(error), child=workflow_id)))
    return (yield from _conclude(call, _record_of(workflow_id, ended)))


def _refusal(call: Call, workflow_ids: tuple[str, ...]) -> Generator[Effect, Any, Record | None]:
    """Return the refusal of a wait that could never end, or None."""
    queue = None if call.wait is not None else (yield Blocks(workflow_ids))
    if queue is None:
        return None
    error = WaitsBehindItself(workflow_ids[0], queue)
    return Record(error=encode_error(error), child=workflow_ids[0])


def _conclude(call: Call, record: Record) -> Flow:
    """Record a result or an error, and end the call as recorded, by itself or by another."""
    adopted = yield record
    own = StepRecord(0, call.name, call.kind, record.output, record.error)
    return replayed(call.check(adopted or own))


def _record_of(workflow_id: str, ended: Ended) -> Record:
    match ended.status:
        case states.SUCCESS:
            return Record(output=ended.output, child=workflow_id)
        case states.ERROR:
            return Record(error=ended.error, child=workflow_id)
    return Record(error=encode_error(awaited(workflow_id, ended)), child=workflow_id)


def awaited(workflow_id: str, ended: Ended) -> Exception:
    """Return the error that waiting for a workflow without a result raises."""
    if ended.status == states.CANCELLED:
        return AwaitedWorkflowCancelledError(workflow_id)
    if ended.status == states.GIVEN_UP:
        return AwaitedWorkflowMaxRecoveryAttemptsExceeded(workflow_id)
    return decode_error(ended.error or "")


def outcome(workflow_id: str, ended: Ended) -> Any:
    """Return what an ended workflow returned, decoded anew, or raise its error."""
    if ended.status == states.SUCCESS:
        return None if ended.output is None else decode_value(ended.output)
    raise awaited(workflow_id, ended)


def first_flow(call: Call, workflow_ids: tuple[str, ...]) -> Flow:
    """Wait for the first of several workflows to end; return its id."""
    if call.recorded is not None:
        return replayed(call.check(call.recorded))
    if (refusal := (yield from _refusal(call, workflow_ids))) is not None:
        return (yield from _conclude(call, refusal))
    ended = yield Await(call.wait or Wait("first", what=workflow_ids))
    first = next(one for one in workflow_ids if one in ended)
    adopted = yield Record(output=encode_value(first, cap=1000), child=first)
    return first if adopted is None else replayed(call.check(adopted))


def status_flow(call: Call, workflow_id: str) -> Flow:
    """Read a workflow's status once; a replay sees the same."""
    if call.recorded is not None:
        return replayed(call.check(call.recorded))
    text = yield ReadStatus(workflow_id)
    if text is None:
        error = NonExistentWorkflow(workflow_id)
        adopted = yield Record(error=encode_error(error), child=workflow_id)
        if adopted is None:
            raise error
        return replayed(call.check(adopted))
    adopted = yield Record(output=text, child=workflow_id)
    return decode_value(text) if adopted is None else replayed(call.check(adopted))


def until(wait: Wait, seconds: float | None, now: float) -> Wait:
    """Return the wait with its end fixed, in the database's time, if it has one."""
    if wait.until is not None or seconds is None:
        return wait
    return replace(wait, until=now + seconds)
