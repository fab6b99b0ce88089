"""What workflows do besides steps: let time pass."""

from __future__ import annotations

from durable_workflows.core.flow import sleep_flow
from durable_workflows.core.replay import SLEEP
from durable_workflows.core.waits import LONGEST_WAIT
from durable_workflows.engine.aperform import adrive
from durable_workflows.engine.here import here
from durable_workflows.engine.leaving import forever
from durable_workflows.engine.perform import drive, refuse_inside_transaction
from durable_workflows.engine.run import InStep, Run
from durable_workflows.errors import WrongPlace


def sleep(seconds: float) -> None:
    """Let time pass durably: a workflow that wakes after a crash sleeps only the rest.

    A sleeping workflow holds no thread and no memory. Not above zero: nothing happens.
    Raise WrongPlace outside a workflow's body.
    """
    run = _run_of("sleep")
    if _seconds(seconds) <= 0:
        return
    if run.leaving is None:
        refuse_inside_transaction(run, "sleep()")
    call = run.take("sleep", SLEEP)
    drive(run, call, sleep_flow(call, seconds))


async def sleep_async(seconds: float) -> None:
    """See sleep()."""
    run = _run_of("sleep_async")
    if _seconds(seconds) <= 0:
        return
    if run.ends:
        await forever(run)
    call = await run.take_turn("sleep", SLEEP)
    await adrive(run, call, sleep_flow(call, seconds))


def _run_of(what: str) -> Run:
    place = here.get()
    if type(place) is Run:
        return place
    where = "inside a step" if isinstance(place, InStep) else "outside a workflow"
    raise WrongPlace(
        f"{what}() {where} can't be durable. Use time.sleep() or asyncio.sleep() there."
    )


def _seconds(seconds: float) -> float:
    if not seconds <= LONGEST_WAIT:
        raise ValueError(
            f"sleep() takes at most {LONGEST_WAIT:,} seconds (a hundred years), not {seconds!r}."
        )
    return seconds
