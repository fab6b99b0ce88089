"""One claim, from its first line to its outcome: execute() in a thread, aexecute() on a loop."""

from __future__ import annotations

import asyncio
import logging
from contextvars import copy_context
from typing import Any

from durable_workflows.core import states, waits
from durable_workflows.core.failure import encode_error, error_line
from durable_workflows.core.payload import decode_call, encode_value
from durable_workflows.core.records import Claim, Entry, OutcomeEntry, Verdict, WaitEntry
from durable_workflows.core.replay import check_end
from durable_workflows.engine.here import here
from durable_workflows.engine.journal import Slip
from durable_workflows.engine.leaving import Limb, nobody
from durable_workflows.engine.registry import WorkflowSpec
from durable_workflows.engine.run import Run
from durable_workflows.engine.runtime import Runtime
from durable_workflows.errors import CorruptPayload, Released, Suspended

logger = logging.getLogger("durable_workflows.run")


class Host:
    """Who gave a run its slot, and wants to know how far it is. This one does not."""

    def begun(self, run: Run) -> None:
        """The run is about to begin with its first line."""

    def ended(self, run: Run) -> None:
        """The function has ended, and the slot is free; what ends the attempt is on its way."""

    def freed(self, claim: Claim) -> None:
        """The end of the attempt is committed, or it is known that it won't be."""

    def failed(self, claim: Claim) -> None:
        """The run could not even begin; the claim is for others."""


def execute(claim: Claim, runtime: Runtime, host: Host) -> None:
    """Run a claimed workflow in this thread and hand in how its attempt ends."""
    spec = runtime.registry.named(claim.name)
    run = Run(claim, spec, runtime)
    host.begun(run)
    token = here.set(run)
    try:
        entry = _ending(run)
    finally:
        here.reset(token)
    host.ended(run)
    if entry is None:
        host.freed(claim)
    else:
        runtime.journal.fire(entry, lambda slip: _settled(run, slip, host))


def _call(run: Run) -> Any:
    args, kwargs = decode_call(run.claim.input)
    return run.spec.function(*args, **kwargs)


def _ending(run: Run) -> Entry | None:
    """Call the workflow's code and return the entry that ends this attempt."""
    try:
        value = _call(run)
    except BaseException as error:
        return ending(run, error=error)
    return ending(run, value=value)


def ending(run: Run, *, value: Any = None, error: BaseException | None = None) -> Entry | None:
    """Return the entry that ends the attempt: outcome, suspension, or None if it was lost.

    From the moment a run is leaving its own words no longer count.
    """
    if run.leaving is not None:
        return suspension(run) if isinstance(run.leaving, Suspended) else None
    if error is None or isinstance(error, Exception):
        error = run.broken or _beyond(run, error) or error
    if error is None:
        try:
            output = encode_value(value, cap=run.runtime.payload_max_bytes)
        except Exception as unstorable:
            error = unstorable
        else:
            return _outcome(run, states.SUCCESS, output, None)
    text = encode_error(error)
    if not isinstance(error, CorruptPayload):
        _tell_failure(run, error_line(text))
    return _outcome(run, states.ERROR, None, text)


def _tell_failure(run: Run, line: str) -> None:
    """Log how a run failed, as the run's own record: its code has ended, and its context."""
    token = here.set(run)
    try:
        logger.warning("failed with %s", line)
    finally:
        here.reset(token)


def _beyond(run: Run, error: BaseException | None) -> Exception | None:
    """Return what is wrong if the code ended before steps that are recorded."""
    if isinstance(error, CorruptPayload):
        return None
    try:
        check_end(run.claim.workflow_id, run.position, run.claim.steps)
    except Exception as beyond:
        beyond.__cause__ = error
        return beyond
    return None


def _outcome(run: Run, status: str, output: str | None, error: str | None) -> OutcomeEntry:
    claim = run.claim
    return OutcomeEntry(
        claim.id,
        claim.attempt,
        claim.worker,
        status,
        output,
        error,
        claim.workflow_id,
        claim.parent,
    )


def suspension(run: Run) -> WaitEntry:
    if isinstance(run.leaving, Released):
        return WaitEntry(run.claim.id, run.claim.attempt, run.claim.worker)
    table = {position: wait for position, wait in run.waits.items() if position}
    now = run.runtime.clock.database_now()
    return WaitEntry(
        run.claim.id,
        run.claim.attempt,
        run.claim.worker,
        waits.encode(table),
        waits.first_look(table, now=now),
        foreign=any(wait.what for wait in table.values()),
    )


def _settled(run: Run, slip: Slip, host: Host) -> None:
    """Look at what became of the last entry; an outcome that can't be stored says so itself."""
    if (
        slip.error is not None
        and isinstance(slip.entry, OutcomeEntry)
        and slip.entry.status == states.SUCCESS
    ):
        entry = _outcome(run, states.ERROR, None, encode_error(slip.error))
        journal = run.runtime.journal
        fire = journal.fire if run.limb is None else journal.fire_from_loop
        fire(entry, lambda slip: _settled(run, slip, host))
        return
    if slip.answer is not Verdict.RECORDED:
        logger.info(
            "Workflow %s: attempt %d was no longer current at its end (%s)",
            run.claim.workflow_id,
            run.claim.attempt,
            slip.answer,
        )
    host.freed(run.claim)


# -- on a loop -----------------------------------------------------------------


def aexecute(claim: Claim, runtime: Runtime, host: Host) -> None:
    """See execute(). Called on an equipped loop; returns at once."""
    spec = runtime.registry.named(claim.name)
    run = Run(claim, spec, runtime)
    host.begun(run)
    # The end is handed in where the run was begun: asgiref keeps in the context which
    # thread's connection is meant.
    context, ground = copy_context(), copy_context()
    run.limb = Limb(run, on_ended=lambda run: ground.run(_hand_in, run, _ended_on_loop(run), host))
    context.run(_enter, run)
    run.limb.leave_soon()  # if it was lost before it began
    try:
        args, kwargs = decode_call(claim.input)
    except CorruptPayload as error:
        _hand_in(run, ending(run, error=error), host)
        return
    # The equipped loop takes the first task of a run for its main one.
    main = run.limb.loop.create_task(_body(spec, args, kwargs), context=context)
    main.add_done_callback(run.limb.main_ended, context=nobody())


async def _body(spec: WorkflowSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return await spec.function(*args, **kwargs)


def _enter(run: Run) -> None:
    here.set(run)
    run.runtime.isolate()


def _hand_in(run: Run, entry: Entry | None, host: Host) -> None:
    host.ended(run)
    if entry is None:
        host.freed(run.claim)
    else:
        run.runtime.journal.fire_from_loop(entry, lambda slip: _settled(run, slip, host))


def _ended_on_loop(run: Run) -> Entry | None:
    main = run.limb.main
    if not main.done():
        return ending(run)  # left behind: leaving decides
    if main.cancelled():
        return ending(run, error=asyncio.CancelledError("the workflow cancelled itself"))
    error = main.exception()
    return ending(run, error=error) if error is not None else ending(run, value=main.result())
