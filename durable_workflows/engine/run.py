"""The run of a workflow in this thread or task, and how far it is."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass
from typing import Any

from durable_workflows.core import waits
from durable_workflows.core.flow import StepSpec
from durable_workflows.core.records import Claim
from durable_workflows.core.replay import Call, describe
from durable_workflows.core.waits import Wait
from durable_workflows.engine.here import here
from durable_workflows.engine.leaving import forever
from durable_workflows.engine.registry import WorkflowSpec
from durable_workflows.engine.runtime import Runtime
from durable_workflows.errors import (
    InterleavedSteps,
    LeaseLost,
    Leaving,
    NonDeterminism,
    Released,
    Suspended,
    SyncCallOnLoop,
    WrongThread,
)

logger = logging.getLogger("durable_workflows.run")


class RunFilter(logging.Filter):
    """Adds workflow_id, workflow_name and position to log records of a run.

    Our own logger has it; put it on a handler to have it on every record.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        place = here.get()
        run = place.run if isinstance(place, InStep) else place
        record.workflow_id = run.claim.workflow_id if run is not None else ""
        record.workflow_name = run.claim.name if run is not None else ""
        record.position = (
            place.position if isinstance(place, InStep) else run.position if run is not None else 0
        )
        return True


logger.addFilter(RunFilter())

TURN = 1.0  # seconds an async call waits in replay for the task whose call is recorded next
SHORT_TURNS = 50  # of the loop, before it waits in milliseconds
PATIENCE = 10  # durable calls a leaving sync run may make before they slow down


class Run:
    """One attempt at a workflow. Knows its claim and position, nothing of other starts."""

    __slots__ = (
        "__weakref__",
        "broken",
        "calls_while_leaving",
        "claim",
        "leaving",
        "limb",
        "position",
        "runtime",
        "spec",
        "stopping",
        "thread",
        "waits",
    )

    def __init__(self, claim: Claim, spec: WorkflowSpec, runtime: Runtime):
        self.claim, self.spec, self.runtime = claim, spec, runtime
        self.position = 0
        self.waits: dict[int, Wait] = waits.decode(claim.waits) if claim.waits else {}
        self.leaving: Leaving | None = None
        self.broken: NonDeterminism | None = None
        self.stopping = False  # its worker ends: leave at the next durable call
        self.calls_while_leaving = 0
        self.thread = threading.get_ident()
        self.limb: Any = None  # an async run's tasks and parked calls: engine.leaving.Limb

    # -- positions ---------------------------------------------------------

    def take(self, name: str, kind: str) -> Call:
        """Take the next position for a durable call of a sync run."""
        if threading.get_ident() != self.thread:
            raise WrongThread(
                f"{describe(name, kind)} is called from a thread that is not the workflow's own, "
                "so its order can't be replayed. Start child workflows and wait for them, or do "
                "the parallel work inside one step."
            )
        if self.spec.is_async:
            raise SyncCallOnLoop(
                f"{describe(name, kind)} would block the event loop of an async workflow. "
                f"Use: await run_step_async({name}, …), or the _async twin."
            )
        return self._next(name, kind)

    def take_async(self, name: str, kind: str) -> Call:
        """Take the next position for a durable call of an async run, before its first await."""
        if not self.spec.is_async:
            raise WrongThread(
                f"{describe(name, kind)} is a coroutine of another loop than the sync workflow "
                "that asks for it. Use run_step(), or make the workflow async."
            )
        limb = self.limb
        if asyncio.get_running_loop() is not limb.loop:
            raise WrongThread(
                f"{describe(name, kind)} runs on another event loop than its workflow. "
                "Await it there."
            )
        call = self._next(name, kind)
        if not limb.may_call(asyncio.current_task()):
            self.fail(InterleavedSteps(self.claim.workflow_id, call.position, describe(name, kind)))
        return call

    async def take_turn(self, name: str, kind: str) -> Call:
        """See take_async(). In replay tasks take their positions in the order they did at first."""
        if self.claim.steps and self.limb is not None and not self._is_turn_of(name, kind):
            await self._wait_for_turn(name, kind)
        return self.take_async(name, kind)

    def _is_turn_of(self, name: str, kind: str) -> bool:
        record = self.claim.steps.get(self.position + 1)
        return record is None or (record.name == name and record.kind == kind)

    async def _wait_for_turn(self, name: str, kind: str) -> None:
        """Let other tasks of the run move, one of which may have made the recorded call.

        Recorded calls return at once in replay, so a task may be earlier than it was. When no
        other can move it is the code that has changed.
        """
        limb, turns = self.limb, 0
        limb.queueing += 1
        try:
            give_up_at = limb.loop.time() + TURN
            while limb.others_may_move() and (limb.timers or limb.loop.time() < give_up_at):
                await (asyncio.sleep(0) if turns < SHORT_TURNS else limb.doze(0.002))
                turns += 1
                if self.ends or self._is_turn_of(name, kind):
                    break
        finally:
            limb.queueing -= 1
        if self.ends:
            await forever(self)

    def take_next(self, name: str, kind: str) -> Call:
        """Take one more position for a durable call that has just taken one."""
        return self._next(name, kind)

    def _next(self, name: str, kind: str) -> Call:
        if self.leaving is not None:
            self.refuse()
        if self.stopping:
            self.leave(Released())
        if self.broken is not None:
            raise self.broken
        self.position = position = self.position + 1
        call = Call(
            self.claim.workflow_id,
            position,
            name,
            kind,
            self.claim.steps.get(position),
            self.waits.get(position),
        )
        if call.recorded is not None and (call.recorded.name != name or call.recorded.kind != kind):
            try:
                call.check(call.recorded)
            except NonDeterminism as error:
                self.fail(error)
        return call

    def fail(self, error: NonDeterminism) -> None:
        """Stop the run for good: no further durable call does anything."""
        self.broken = error
        raise error

    # -- leaving -----------------------------------------------------------

    @property
    def ends(self) -> bool:
        """Whether a durable call of an async run is not to return any more."""
        return self.leaving is not None or self.stopping

    def leave(self, how: Leaving) -> None:
        """Begin to leave: from now on what the function returns or raises is ignored."""
        if self.leaving is None:
            self.leaving = how
            logger.debug("%s at position %d", type(how).__name__, self.position)
        self.refuse()

    def lose(self, how: Leaving) -> None:
        """Tell the run, from another thread, that it has lost or must end."""
        if self.leaving is None:
            self.leaving = how
        if self.limb is not None:
            self.limb.leave_soon()

    def stop(self) -> None:
        """Ask the run, from another thread, to leave at its next durable call."""
        self.stopping = True
        if self.limb is not None:
            self.limb.stir_soon()

    def refuse(self) -> None:
        """Raise what ends a leaving run; a sync one that goes on calling is slowed down."""
        assert self.leaving is not None
        if self.limb is None:
            self.calls_while_leaving += 1
            if self.calls_while_leaving > PATIENCE:
                excess = self.calls_while_leaving - PATIENCE
                self.runtime.clock.sleep(min(1.0, 0.001 * 2 ** min(excess, 10)))
        raise type(self.leaving)(*self.leaving.args)

    def suspend(self, parked: dict[int, Wait]) -> None:
        """Begin to leave because everything waits."""
        self.waits = parked
        self.leave(Suspended())

    def lost(self, how: type[Leaving] = LeaseLost) -> None:
        self.leave(how(f"workflow {self.claim.workflow_id}, attempt {self.claim.attempt}"))


@dataclass(slots=True)
class InStep:
    """Inside the body of a step: durable calls are plain calls here."""

    run: Run
    position: int
    spec: StepSpec
    tries: int  # this one included
    atomic: bool = False
    started: int = 0  # workflows started by this body so far: their ids are numbered
