"""A workflow that waits leaves memory whatever its code catches, and ends as if it never had."""

import asyncio
import contextlib
import gc
import logging
import time
from contextlib import contextmanager, suppress

import pytest

from durable_workflows import (
    Queue,
    destroy,
    run_step_async,
    sleep,
    sleep_async,
    start_workflow,
    start_workflow_async,
    step,
    workflow,
)
from durable_workflows.engine.process import process
from durable_workflows.models import Workflow

pytestmark = pytest.mark.django_db(transaction=True)

NAP = 0.12  # seconds: longer than the `quick` settings keep a wait in memory
PATIENCE = 20  # seconds until a test gives up

line = Queue("unloading")


@step(name="note")
def note(what):
    return what


@step(name="note")
async def note_async(what):
    return what


@workflow(name="unloading.napping")
def napping(value):
    sleep(NAP)
    return value


@workflow(name="unloading.napping_async")
async def napping_async(value):
    await sleep_async(NAP)
    return value


# -- sync shapes ------------------------------------------------------------------------


def bare_except():
    note("before")
    try:
        sleep(NAP)
    except:  # noqa: E722
        note("caught")
    return note("after")


def except_in_a_loop():
    for number in range(10):
        try:
            sleep(NAP if number in (3, 7) else 0)
            note(number)
        except BaseException:
            pass
    return "looped"


def finally_return():
    note("before")
    with suppress(ZeroDivisionError):
        return returning_anyway()


def returning_anyway():
    value = "left"
    try:
        sleep(NAP)
        value = "slept"
    finally:
        return value  # noqa: B012


def suppressing():
    with suppress(BaseException):
        sleep(NAP)
        note("inside")
    return note("outside")


def generating():
    def several():
        for number in range(4):
            sleep(NAP if number % 2 else 0)
            yield note(number)

    return list(several())


def generating_stubbornly():
    def several():
        try:
            sleep(NAP)
            yield note("in")
        except BaseException:
            yield note("caught")

    return list(several())


def managing():
    @contextmanager
    def manager():
        note("open")
        try:
            sleep(NAP)
            yield "held"
        finally:
            note("close")

    with manager() as held:
        sleep(NAP)
        return note(held)


def raising_instead():
    try:
        sleep(NAP)
    except BaseException:
        raise ValueError("something else") from None
    return "slept"


def waiting_for_a_child():
    try:
        return start_workflow(napping, "child").get_result()
    except BaseException:
        return "left"


def trying_again():
    tries = []

    @step(name="flaky", max_attempts=3, interval_seconds=NAP, backoff_rate=1)
    def flaky():
        tries.append(1)
        raise ValueError("never")

    try:
        flaky()
    except Exception as error:
        return type(error).__name__


SYNC = {
    bare_except: "after",
    except_in_a_loop: "looped",
    finally_return: "slept",
    suppressing: "outside",
    generating: [0, 1, 2, 3],
    generating_stubbornly: ["in"],
    managing: "held",
    raising_instead: "slept",
    waiting_for_a_child: "child",
    trying_again: "MaxStepRetriesExceeded",
}


# -- async shapes --------------------------------------------------------------------------


async def gather_with_errors_as_values():
    results = await asyncio.gather(
        note_async(1), sleep_async(NAP), napping_async("child"), return_exceptions=True
    )
    return [*results, await note_async("after")]


async def gather_plain():
    return await asyncio.gather(sleep_async(NAP), note_async(2), napping_async("child"))


async def task_group():
    async with asyncio.TaskGroup() as group:
        group.create_task(sleep_async(NAP))
        group.create_task(sleep_async(2 * NAP))
        noted = group.create_task(note_async("noted"))
    return noted.result()


async def stubborn_loop():
    rounds = 0
    for _ in range(6):
        try:
            await sleep_async(NAP)
            rounds += 1
            if rounds == 2:
                return await note_async("out")
        except BaseException:
            pass


async def finally_return_async():
    value = "left"
    try:
        await sleep_async(NAP)
        value = "slept"
    finally:
        return value  # noqa: B012


async def suppressing_async():
    with suppress(BaseException):
        await sleep_async(NAP)
        await note_async("inside")
    return await note_async("outside")


async def shielded():
    await asyncio.shield(sleep_async(NAP))
    return await note_async("after")


async def a_task_that_nobody_awaits():
    task = asyncio.create_task(sleep_async(NAP))
    await sleep_async(2 * NAP)
    await task
    return await note_async("after")


async def under_a_timeout():
    async with asyncio.timeout(30):
        await sleep_async(NAP)
    return await note_async("after")


async def over_a_timeout():
    try:
        async with asyncio.timeout(0.01):
            await sleep_async(30)
    except TimeoutError:
        return await note_async("timed out")


async def async_generating():
    async def several():
        for number in range(4):
            await sleep_async(NAP if number % 2 else 0)
            yield await note_async(number)

    return [one async for one in several()]


async def async_managing():
    @contextlib.asynccontextmanager
    async def manager():
        await note_async("open")
        try:
            yield "held"
        finally:
            await note_async("close")

    async with manager() as held:
        await sleep_async(NAP)
        return await note_async(held)


async def awaiting_children():
    handles = [await start_workflow_async(napping_async, number) for number in range(3)]
    return await asyncio.gather(*(handle.get_result() for handle in handles))


async def an_atomic_step_beside_a_wait():
    writing = step(atomic=True, name="writing")(lambda: "written")
    return await asyncio.gather(run_step_async(writing), sleep_async(NAP))


ASYNC = {
    gather_with_errors_as_values: [1, None, "child", "after"],
    gather_plain: [None, 2, "child"],
    task_group: "noted",
    stubborn_loop: "out",
    finally_return_async: "slept",
    suppressing_async: "outside",
    shielded: "after",
    a_task_that_nobody_awaits: "after",
    under_a_timeout: "after",
    over_a_timeout: "timed out",
    async_generating: [0, 1, 2, 3],
    async_managing: "held",
    awaiting_children: [0, 1, 2],
    an_atomic_step_beside_a_wait: ["written", None],
}
# A timer of the workflow's own keeps it in memory; so does a wait that ends by itself.
STAYING = (under_a_timeout, over_a_timeout)

WORKFLOWS = {
    shape: workflow(name=f"unloading.{shape.__name__}")(shape) for shape in [*SYNC, *ASYNC]
}


@pytest.mark.parametrize(
    "shape, result", [*SYNC.items(), *ASYNC.items()], ids=lambda it: getattr(it, "__name__", "")
)
def test_a_hostile_shape_suspends_wakes_and_ends_as_undisturbed(worker, rows, shape, result):
    handle = start_workflow(WORKFLOWS[shape])

    assert handle.get_result(timeout=PATIENCE) == result
    row = rows.of(handle)
    assert row.status == "SUCCESS"
    assert row.recoveries == 0
    assert (row.attempt == 1) == (shape in STAYING)
    positions = [position for position, _, _ in rows.steps(handle)]
    # A call that the code itself gave up has taken its position, and recorded nothing.
    given_up = [1] if shape is over_a_timeout else []
    assert given_up + positions == list(range(1, len(given_up + positions) + 1))


@pytest.mark.parametrize(
    "shape, result", [*SYNC.items(), *ASYNC.items()], ids=lambda it: getattr(it, "__name__", "")
)
def test_the_same_shapes_end_alike_where_they_never_unload(worker, rows, settings, shape, result):
    settings.DURABLE_WORKFLOWS = {"SUSPEND_AFTER_SECONDS": 60}
    worker()
    handle = start_workflow(WORKFLOWS[shape])

    assert handle.get_result(timeout=PATIENCE) == result
    assert rows.of(handle).attempt == 1


def test_a_hundred_hostile_workflows_share_two_threads(worker, rows):
    worker(threads=2, async_slots=5)
    sync = line.enqueue_many(WORKFLOWS[except_in_a_loop], [()] * 50)
    tasks = line.enqueue_many(WORKFLOWS[stubborn_loop], [()] * 50)

    assert {handle.get_result(timeout=PATIENCE) for handle in sync} == {"looped"}
    assert {handle.get_result(timeout=PATIENCE) for handle in tasks} == {"out"}
    assert set(Workflow.objects.values_list("recoveries", flat=True)) == {0}


# -- what holds nothing while it waits ----------------------------------------------------------


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_waiting_workflow_is_owned_by_nobody_and_held_by_nobody(worker, rows, colour):
    @workflow
    def sleeping():
        note("before")
        sleep(3600)

    @workflow
    async def sleeping_async():
        await note_async("before")
        await sleep_async(3600)

    handle = start_workflow(sleeping if colour == "sync" else sleeping_async)
    wait_until(lambda: rows.of(handle).wake_at is not None)

    row = rows.of(handle)
    assert (row.worker_id, row.status) == (None, "PENDING")
    crew = process().embedded.crew
    wait_until(lambda: not crew.held and not crew.runs)


def wait_until(true):
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)


def test_files_are_closed_at_each_suspension(worker, calls):
    @workflow
    def holding():
        try:
            sleep(NAP)
            return "slept"
        finally:
            calls.append("closed")

    assert start_workflow(holding).get_result(timeout=PATIENCE) == "slept"
    assert calls == ["closed", "closed"]


def test_nothing_that_a_leaving_workflow_does_is_kept(worker, rows, calls):
    """Steps, starts and a result, all in a `finally:` that runs at the suspension, too."""

    @step
    def cleaning():
        calls.append("cleaned")

    @workflow
    def leaving():
        try:
            sleep(NAP)
        finally:
            with suppress(BaseException):
                start_workflow(napping, "never at a suspension")
            with suppress(BaseException):
                cleaning()

    handle = start_workflow(leaving)
    handle.get_result(timeout=PATIENCE)

    assert calls == ["cleaned"]
    assert [kind for _, kind, _ in rows.steps(handle)] == ["sleep", "start", "step"]


def test_a_sync_workflow_that_calls_on_while_leaving_is_slowed_down_not_run(worker, rows, calls):
    @step
    def working():
        calls.append("worked")

    @workflow
    def stubborn():
        for number in range(14):
            try:
                if number == 0:
                    sleep(NAP)
                working()
            except BaseException:
                pass

    handle = start_workflow(stubborn)
    handle.get_result(timeout=PATIENCE)

    assert len(calls) == 14
    assert len(rows.steps(handle)) == 15


def test_a_workflow_that_can_never_be_cancelled_goes_on_all_the_same(
    worker, rows, monkeypatch, caplog
):
    monkeypatch.setattr("durable_workflows.engine.leaving.PATIENCE", 0.05)

    @workflow
    async def immortal():
        rounds = 0
        while True:
            try:
                await sleep_async(NAP)
                rounds += 1
                if rounds == 2:
                    return await note_async("out")
            except BaseException:
                pass

    handle = start_workflow(immortal)
    assert handle.get_result(timeout=PATIENCE) == "out"
    assert "left behind" in caplog.text
    # No thread that collects garbage is caught in the loop of the tasks left behind.
    destroy()
    gc.collect()


def test_a_task_that_cannot_be_cancelled_is_left_behind_and_logged(
    worker, rows, monkeypatch, caplog
):
    monkeypatch.setattr("durable_workflows.engine.leaving.PATIENCE", 0.05)
    stop = asyncio.Event()

    async def immortal():
        while not stop.is_set():
            with suppress(BaseException):
                await asyncio.sleep(0)
            with suppress(BaseException):
                await asyncio.wait_for(stop.wait(), 0.01)

    @workflow
    async def around():
        await note_async("before")
        around.left = asyncio.create_task(immortal())
        return "ended"

    with caplog.at_level(logging.WARNING, "durable_workflows"):
        handle = start_workflow(around)
        assert handle.get_result(timeout=PATIENCE) == "ended"
    assert "could not be cancelled" in caplog.text
    process().embedded.crew.tasks.slots.loop.call_soon_threadsafe(stop.set)


# -- outcome last ----------------------------------------------------------------------------------------


def test_durable_calls_in_flight_are_recorded_before_the_outcome(worker, rows):
    @step
    async def slow(number):
        await asyncio.sleep(0.02)
        return number

    @workflow
    async def around():
        around.left = [asyncio.create_task(slow(number)) for number in range(5)]
        await asyncio.sleep(0)
        return "ended"

    handle = start_workflow(around)

    assert handle.get_result(timeout=PATIENCE) == "ended"
    assert len(rows.steps(handle)) == 5
    ended_at = rows.of(handle).completed_at
    assert all(step.completed_at <= ended_at for step in rows.of(handle).steps.all())


def test_a_wait_in_flight_at_the_end_does_not_hold_the_workflow_up(worker, rows):
    @workflow
    async def around():
        around.left = asyncio.create_task(sleep_async(3600))
        await asyncio.sleep(0)
        return "ended"

    handle = start_workflow(around)

    assert handle.get_result(timeout=PATIENCE) == "ended"


# -- no wake-up is lost ----------------------------------------------------------------------------------


@workflow(name="unloading.quick")
def quick_child(number):
    return number


@workflow(name="unloading.quick_async")
async def quick_child_async(number):
    return number


@workflow(name="unloading.parent")
def parent(number):
    return line.enqueue(quick_child_async if number % 2 else quick_child, number).get_result()


@workflow(name="unloading.parent_async")
async def parent_async(number):
    child = quick_child_async if number % 2 else quick_child
    return await (await line.enqueue_async(child, number)).get_result()


def test_no_parent_that_suspends_while_its_child_ends_is_lost(worker, settings):
    """Both commit first and look afterwards; a lost wake-up would sleep five seconds."""
    settings.DURABLE_WORKFLOWS = {"SUSPEND_AFTER_SECONDS": 0.0}
    worker(threads=4, async_slots=10)
    numbers = [(number,) for number in range(100)]
    handles = line.enqueue_many(parent, numbers) + line.enqueue_many(parent_async, numbers)

    results = [handle.get_result(timeout=PATIENCE) for handle in handles]

    assert results == [*range(100), *range(100)]
    assert Workflow.objects.filter(status="SUCCESS").count() == 400


def test_many_children_of_one_parent_wake_it_once_all_have_ended(worker, rows):
    @workflow
    async def fan():
        handles = await line.enqueue_many_async(
            quick_child_async, [(number,) for number in range(50)]
        )
        return sum(await asyncio.gather(*(handle.get_result() for handle in handles)))

    handle = start_workflow(fan)

    assert handle.get_result(timeout=PATIENCE) == sum(range(50))
    assert len(rows.steps(handle)) == 51
