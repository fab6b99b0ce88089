"""Workflows that are hurt, and what they leave behind for the oracle.

In the directory DURABLE_TEST_MARKS each call of a plain step's body leaves a line in
`marks`, also one whose result is never recorded. A file `<workflow id>@<point>` there
is a trap: the first run that comes to the point springs it and stays. A file `open-<name>`
opens a gate.
"""

import asyncio
import faulthandler
import os
import random
import signal
import time
import uuid
from pathlib import Path

from asgiref.sync import sync_to_async

from durable_workflows import (
    Queue,
    run_step_async,
    sleep,
    sleep_async,
    start_workflow,
    start_workflow_async,
    step,
    workflow,
)
from durable_workflows.core.records import OutcomeEntry, StepEntry, Verdict, WaitEntry
from durable_workflows.engine.here import here
from durable_workflows.engine.run import InStep
from durable_workflows.models import Step
from durable_workflows.store import get_store
from durable_workflows.store.sql import SQLStore
from tests.models import Effect

MARKS = Path(os.environ.get("DURABLE_TEST_MARKS", "/nonexistent"))
if "DURABLE_TEST_MARKS" in os.environ:
    faulthandler.register(signal.SIGUSR1)  # a failed test's logs show where each thread stood

line = Queue("crash-line")
narrow = Queue("crash-narrow", concurrency=3)


# -- what is left behind ---------------------------------------------------------


def whose() -> tuple[str, int]:
    """Return the workflow id and the attempt of the run here."""
    place = here.get()
    claim = (place.run if isinstance(place, InStep) else place).claim
    return claim.workflow_id, claim.attempt


def note(*words: object) -> None:
    """Append a line that no kill can tear."""
    text = " ".join(map(str, words)) + "\n"
    file = os.open(MARKS / "marks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def mark(label: str) -> None:
    note("step", *whose(), label)


def sprung(point: str) -> bool:
    """Return whether a trap was set here, and spring it."""
    trap = MARKS / f"{whose()[0]}@{point}"
    try:
        trap.rename(trap.with_suffix(".sprung"))
    except FileNotFoundError:
        return False
    return True


def trap(point: str) -> None:
    if sprung(point):
        time.sleep(600)


async def atrap(point: str) -> None:
    if sprung(point):
        await asyncio.sleep(600)


def opened(gate: str) -> bool:
    return (MARKS / f"open-{gate}").exists()


# -- steps -----------------------------------------------------------------------


@step
def plain(label: str) -> str:
    trap(f"in {label}")
    mark(label)
    trap(f"at the end of {label}")
    return str(uuid.uuid4())


@step(name="plain")
async def aplain(label: str) -> str:
    await atrap(f"in {label}")
    mark(label)
    await atrap(f"at the end of {label}")
    return str(uuid.uuid4())


@step
def lasting(label: str, least: float, most: float) -> str:
    mark(label)
    time.sleep(random.uniform(least, most))
    return str(uuid.uuid4())


@step(name="lasting")
async def alasting(label: str, least: float, most: float) -> str:
    mark(label)
    await asyncio.sleep(random.uniform(least, most))
    return str(uuid.uuid4())


# The tries are for tests that take its connection away.
@step(atomic=True, max_attempts=100, interval_seconds=0.05, backoff_rate=1.5)
def written(label: str) -> str:
    run, attempt = whose()
    Effect.objects.create(run=run, step=label, attempt=attempt, pid=os.getpid())
    # Nobody else could write to SQLite if it stayed: it dies by its own hand.
    if sprung(f"in {label}"):
        os.kill(os.getpid(), signal.SIGKILL)
    return str(uuid.uuid4())


@step
def gate(name: str) -> str:
    mark(name)
    while not opened(name):
        time.sleep(0.01)
    return str(uuid.uuid4())


@step(name="gate")
async def agate(name: str) -> str:
    mark(name)
    while not opened(name):
        await asyncio.sleep(0.01)
    return str(uuid.uuid4())


@step(atomic=True, max_idle=8.0)
def written_behind_gate(name: str) -> str:
    run, attempt = whose()
    Effect.objects.create(run=run, step=name, attempt=attempt, pid=os.getpid())
    note("inside", run, attempt, name)
    while not opened(name):
        time.sleep(0.01)
    return str(uuid.uuid4())


@step
def deadly() -> str:
    note("poisoned", *whose(), os.getpid())
    os._exit(137)


@step
def inside_narrow(seconds: float) -> str:
    mark("inside")
    note("begin", *whose(), os.getpid())
    time.sleep(seconds)
    note("end", *whose(), os.getpid())
    return str(uuid.uuid4())


# -- workflows: each returns what its steps and awaited children returned, in order ---


@workflow
def leaf(label: str) -> list[str]:
    return [plain(label), written(f"{label} written")]


@workflow
async def aleaf(label: str) -> list[str]:
    return [await aplain(label), await run_step_async(written, f"{label} written")]


# Where a run of mixed() or amixed() can be made to stay, outside of atomic steps.
POINTS = [
    "begin",
    "in one",
    "at the end of one",
    "after one",
    "after two",
    "child started",
    "in three",
    "at the end of three",
    "after three",
    "child ended",
    "slept",
    "after four",
    "child enqueued",
    "second child ended",
    "in five",
    "at the end of five",
    "end",
]
POINTS_IN_ATOMIC_STEPS = ["in two", "in four"]


@workflow
def mixed() -> list:
    trap("begin")
    values: list = [plain("one")]
    trap("after one")
    values.append(written("two"))
    trap("after two")
    child = start_workflow(leaf, "child")
    trap("child started")
    values.append(plain("three"))
    trap("after three")
    values.append(child.get_result())
    trap("child ended")
    sleep(0.5)
    trap("slept")
    values.append(written("four"))
    trap("after four")
    second = line.enqueue(leaf, "second")
    trap("child enqueued")
    values.append(second.get_result())
    trap("second child ended")
    values.append(plain("five"))
    trap("end")
    return values


@workflow
async def amixed() -> list:
    await atrap("begin")
    values: list = [await aplain("one")]
    await atrap("after one")
    values.append(await run_step_async(written, "two"))
    await atrap("after two")
    child = await start_workflow_async(aleaf, "child")
    await atrap("child started")
    values.append(await aplain("three"))
    await atrap("after three")
    values.append(await child.get_result())
    await atrap("child ended")
    await sleep_async(0.5)
    await atrap("slept")
    values.append(await run_step_async(written, "four"))
    await atrap("after four")
    second = await line.enqueue_async(aleaf, "second")
    await atrap("child enqueued")
    values.append(await second.get_result())
    await atrap("second child ended")
    values.append(await aplain("five"))
    await atrap("end")
    return values


@workflow
def steady(steps: int, least: float = 0.0, most: float = 0.05) -> list[str]:
    """Plain and atomic steps by turns."""
    return [
        written(f"{number}") if number % 2 else lasting(f"{number}", least, most)
        for number in range(steps)
    ]


@workflow
async def asteady(steps: int, least: float = 0.0, most: float = 0.05) -> list[str]:
    values = []
    for number in range(steps):
        if number % 2:
            values.append(await run_step_async(written, f"{number}"))
        else:
            values.append(await alasting(f"{number}", least, most))
    return values


@workflow
def gated(*gates: str) -> list[str]:
    values = [plain("before")]
    for name in gates:
        values += [gate(name), written(f"behind {name}"), plain(f"after {name}")]
    return values


@workflow
async def agated(*gates: str) -> list[str]:
    values = [await aplain("before")]
    for name in gates:
        values += [
            await agate(name),
            await run_step_async(written, f"behind {name}"),
            await aplain(f"after {name}"),
        ]
    return values


@workflow
async def gated_in_thread(name: str) -> list[str]:
    return [await run_step_async(gate, name), await run_step_async(plain, "after")]


@workflow
def gated_in_transaction(name: str) -> list[str]:
    return [plain("before"), written_behind_gate(name), plain("after")]


@workflow(max_recovery_attempts=3)
def poison() -> list[str]:
    return [deadly()]


@workflow
def narrowly(seconds: float) -> list[str]:
    return [inside_narrow(seconds), plain("after")]


# -- a step that looks for its predecessor -----------------------------------------


@step
def looking_back() -> str:
    """Fail if another connection doesn't see what the step before has recorded."""
    place = here.get()
    assert isinstance(place, InStep)
    if place.position > 1:
        seen = Step.objects.filter(
            workflow_id=place.run.claim.id, position=place.position - 1
        ).exists()
        if not seen:
            raise AssertionError(f"position {place.position - 1} is not there")
    mark(f"{place.position}")
    return str(uuid.uuid4())


@workflow
def retrospective(steps: int) -> list[str]:
    return [looking_back() for _ in range(steps)]


@step(name="looking_back")
async def alooking_back() -> str:
    return await sync_to_async(looking_back)()  # in a step: a plain call


@workflow
async def aretrospective(steps: int) -> list[str]:
    return [await alooking_back() for _ in range(steps)]


# -- what the store was asked and answered -------------------------------------------

if "DURABLE_TEST_WATCH" in os.environ:
    # Looks on only: a fault test is void unless its fault was met.
    plain_write, plain_answers = SQLStore.write, SQLStore._answers

    def watched_write(self, entries, **options):
        if len(entries) > 1:
            note("batch", len(entries))
        return plain_write(self, entries, **options)

    def watched_answers(self, entries, recorded):
        answers = plain_answers(self, entries, recorded)
        for entry, answer in zip(entries, answers, strict=True):
            if answer is not Verdict.RECORDED:
                word = answer.value if isinstance(answer, Verdict) else "adopted"
                note("answer", word, type(entry).__name__, os.getpid())
        return answers

    SQLStore.write, SQLStore._answers = watched_write, watched_answers

# -- death in the middle of a statement ----------------------------------------------

VERBS = ["claim", "write", "guard_step", "look", "wake_due", "rescue", "beat"]
KINDS = {StepEntry: "step", OutcomeEntry: "outcome", WaitEntry: "wait"}
STATEMENTS = [
    "claim",
    "write-step",
    "write-start",
    "write-atomic",
    "write-outcome",
    "write-wait",
    "guard_step",
    "look",
    "wake_due",
    "rescue",
    "beat",
]


def die_at(point: str) -> None:
    """Die if a trap is set at a statement; only the first process does."""
    trap = MARKS / f"die-{point}"
    try:
        trap.rename(MARKS / f"died-{point}")
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def statement(store: SQLStore, verb: str, args: tuple) -> set[str]:
    if verb != "write":
        return {verb}
    if not store.session.owned:
        return {"write-atomic"}
    return {
        "write-start" if getattr(entry, "children", ()) else f"write-{KINDS[type(entry)]}"
        for entry in args[0]
    }


def make_mortal(store: type[SQLStore], verb: str) -> None:
    plain_verb = getattr(store, verb)

    def mortal(self, *args, **options):
        points = statement(self, verb, args)
        for point in points:
            die_at(f"{point}-before")
        answer = plain_verb(self, *args, **options)
        if answer is None or answer:  # a claim, a rescue that found something
            for point in points:
                die_at(f"{point}-after")
        return answer

    setattr(store, verb, mortal)


if "DURABLE_TEST_DEATHS" in os.environ:
    for verb in VERBS:
        make_mortal(type(get_store("default")), verb)
