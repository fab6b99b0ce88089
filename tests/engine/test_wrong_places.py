"""Durable calls where they can't be durable are refused, and say what to do instead."""

import asyncio
import threading

import pytest
from django.db import transaction

from durable_workflows import (
    Queue,
    retrieve_workflow,
    sleep,
    sleep_async,
    start_workflow,
    start_workflow_async,
    step,
    wait_first,
    wait_first_async,
    workflow,
)
from durable_workflows.errors import (
    InsideTransaction,
    NothingRuns,
    SyncCallOnLoop,
    WaitingInsideTransaction,
    WrongPlace,
    WrongThread,
)
from durable_workflows.models import Workflow
from durable_workflows.testing import run_until_idle
from tests.engine.workflows import doubled

pytestmark = pytest.mark.django_db

line = Queue("wrong-places")


@step
def noting():
    return "noted"


@step
async def noting_async():
    return "noted"


def outcome_of(function):
    handle = start_workflow(function)
    run_until_idle()
    return handle.get_result()


# -- open transactions --------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        noting,
        lambda: sleep(1),
        lambda: retrieve_workflow("there", existing_workflow=False).get_result(),
        lambda: wait_first([retrieve_workflow("there", existing_workflow=False)]),
        lambda: start_workflow(doubled, 1),
        lambda: line.enqueue(doubled, 1),
        lambda: line.enqueue_many(doubled, [(1,)]),
        lambda: retrieve_workflow("there"),
        lambda: doubled(1),
    ],
    ids=["step", "sleep", "result", "first", "start", "enqueue", "many", "status", "child"],
)
def test_a_durable_call_in_an_open_block_is_refused(call):
    start_workflow(doubled.using(workflow_id="there"), 1)

    @workflow
    def around():
        with transaction.atomic():
            call()

    with pytest.raises(InsideTransaction, match=r"transaction\.atomic\(\)"):
        outcome_of(around)


def test_the_refusal_takes_no_position_and_the_workflow_may_go_on(rows):
    @workflow
    def around():
        try:
            with transaction.atomic():
                noting()
        except InsideTransaction:
            return noting()

    handle = start_workflow(around)
    run_until_idle()

    assert handle.get_result() == "noted"
    assert rows.steps(handle) == [(1, "step", "noting")]


def test_an_inline_run_in_an_open_block_is_refused_and_writes_nothing(on_loop):
    @workflow
    async def doubled_async(number):
        return number * 2

    with transaction.atomic(), pytest.raises(InsideTransaction, match="Enqueue it"):
        doubled(1)
    with transaction.atomic(), pytest.raises(InsideTransaction, match="Enqueue it"):
        on_loop(doubled_async(1))
    assert not Workflow.objects.exists()


def test_waiting_in_an_open_block_is_refused_unless_it_has_ended(on_loop):
    handle = start_workflow(doubled, 4)
    with transaction.atomic(), pytest.raises(WaitingInsideTransaction, match="after the block"):
        handle.get_result()
    with transaction.atomic(), pytest.raises(WaitingInsideTransaction):
        wait_first([handle])
    run_until_idle()

    with transaction.atomic():
        assert handle.get_result() == 8
        assert wait_first([handle]) is handle


def test_waiting_in_a_test_where_nobody_works_says_so(on_loop):
    handle = start_workflow(doubled, 4)
    with pytest.raises(NothingRuns, match=r"run_until_idle\(\)") as caught:
        handle.get_result()
    assert caught.value.workflow_id == handle.workflow_id


# -- loops ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, instead",
    [
        (noting, "run_step_async"),
        (lambda: sleep(1), "_async"),
        (lambda: start_workflow(doubled, 1), "_async"),
        (lambda: line.enqueue_many(doubled, [(1,)]), "_async"),
        (lambda: retrieve_workflow("there"), "_async"),
        (lambda: retrieve_workflow("there", existing_workflow=False).get_result(), "_async"),
        (lambda: doubled(1), "_async"),
    ],
    ids=["step", "sleep", "start", "many", "status", "result", "child"],
)
def test_a_sync_durable_call_in_an_async_workflow_is_refused(call, instead):
    start_workflow(doubled.using(workflow_id="there"), 1)

    @workflow
    async def around():
        call()

    with pytest.raises(SyncCallOnLoop, match=instead):
        outcome_of(around)


@pytest.mark.parametrize(
    "call",
    [
        lambda: start_workflow(doubled, 1),
        lambda: line.enqueue_many(doubled, [(1,)]),
        lambda: doubled(1),
        lambda: retrieve_workflow("there"),
        lambda: retrieve_workflow("there", existing_workflow=False).get_result(),
        lambda: wait_first([retrieve_workflow("there", existing_workflow=False)]),
    ],
    ids=["start", "many", "call", "status", "result", "first"],
)
def test_a_blocking_call_on_any_loop_is_refused(on_loop, call):
    async def view():
        call()

    with pytest.raises(SyncCallOnLoop, match="_async"):
        on_loop(view())


def test_a_coroutine_of_an_async_step_cannot_be_driven_by_a_sync_workflow():
    @workflow
    def around():
        return asyncio.run(noting_async())

    with pytest.raises(WrongThread, match=r"run_step\(\)"):
        outcome_of(around)


def test_a_durable_call_on_another_loop_is_refused():
    @workflow
    async def around():
        def elsewhere():
            return asyncio.run(noting_async())

        from contextvars import copy_context

        return await asyncio.to_thread(copy_context().run, elsewhere)

    with pytest.raises(WrongThread, match="another event loop"):
        outcome_of(around)


# -- threads ------------------------------------------------------------------------------------------


def test_a_durable_call_from_a_foreign_thread_is_refused(rows):
    from contextvars import copy_context

    seen = []

    @workflow
    def around():
        context = copy_context()

        def foreign():
            try:
                context.run(noting)
            except WrongThread as error:
                seen.append(str(error))

        thread = threading.Thread(target=foreign)
        thread.start()
        thread.join()
        return noting()

    handle = start_workflow(around)
    run_until_idle()

    assert handle.get_result() == "noted"
    assert "child workflows" in seen[0]
    assert rows.steps(handle) == [(1, "step", "noting")]


# -- inside steps ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda: sleep(1),
        lambda: retrieve_workflow("there", existing_workflow=False).get_result(),
        lambda: wait_first([retrieve_workflow("there", existing_workflow=False)]),
    ],
    ids=["sleep", "result", "first"],
)
def test_waiting_inside_a_step_is_refused(call):
    waiting = step(name="waiting")(call)

    @workflow
    def around():
        waiting()

    with pytest.raises(WrongPlace, match="step"):
        outcome_of(around)


def test_waiting_inside_an_async_step_is_refused():
    @step
    async def waiting(how):
        handle = retrieve_workflow("there", existing_workflow=False)
        if how == "sleep":
            await sleep_async(1)
        await wait_first_async([handle])

    @workflow
    async def around(how):
        await waiting(how)

    for how in ("sleep", "first"):
        handle = start_workflow(around, how)
        run_until_idle()
        with pytest.raises(WrongPlace, match="step"):
            handle.get_result()


def test_a_status_may_be_read_inside_a_step():
    @step
    def reading():
        return retrieve_workflow("there").get_status().status

    @workflow
    def around():
        return reading()

    start_workflow(doubled.using(workflow_id="there", delay=60), 1)

    assert outcome_of(around) in ("DELAYED", "PENDING", "SUCCESS")


# -- outside ------------------------------------------------------------------------------------------


def test_sleeping_outside_a_workflow_is_refused(on_loop):
    with pytest.raises(WrongPlace, match=r"time\.sleep"):
        sleep(1)
    with pytest.raises(WrongPlace, match=r"asyncio\.sleep"):
        on_loop(sleep_async(1))


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 1e12])
def test_a_sleep_ends_within_a_hundred_years(seconds):
    @workflow
    def around():
        sleep(seconds)

    @workflow
    async def around_async():
        await sleep_async(seconds)

    for function in (around, around_async):
        with pytest.raises(ValueError, match="hundred years"):
            outcome_of(function)


@pytest.mark.parametrize("seconds", [0, -5, -0.0, float("-inf")])
def test_a_sleep_of_no_length_is_nothing_at_all(rows, seconds):
    @workflow
    def around():
        sleep(seconds)

    @workflow
    async def around_async():
        await sleep_async(seconds)

    for function in (around, around_async):
        handle = start_workflow(function)
        run_until_idle()
        assert rows.steps(handle) == []


# -- after the end --------------------------------------------------------------------------------------


def test_a_durable_call_of_a_task_left_behind_is_awaited_or_has_no_effect(rows, calls):
    @step
    async def late():
        calls.append("late")

    async def straggling():
        await asyncio.sleep(0)
        await late()
        calls.append("after")

    @workflow
    async def around():
        around.left = asyncio.create_task(straggling())
        return "ended"

    handle = start_workflow(around)
    run_until_idle()

    assert handle.get_result() == "ended"
    assert calls in ([], ["late", "after"], ["late"])
    assert rows.steps(handle) == ([(1, "step", "late")] if calls else [])


def test_a_durable_call_in_flight_at_the_end_is_recorded_before_the_outcome(rows, calls):
    @step
    async def slow():
        await asyncio.sleep(0.01)
        calls.append("slow")

    @workflow
    async def around():
        around.left = asyncio.create_task(slow())
        await asyncio.sleep(0)
        return "ended"

    handle = start_workflow(around)
    run_until_idle()

    assert handle.get_result() == "ended"
    assert calls == ["slow"]
    assert rows.steps(handle) == [(1, "step", "slow")]
    assert rows.step(handle, 1).completed_at <= rows.of(handle).completed_at


@pytest.mark.parametrize("url", ["not-in-a-workflow"])
def test_async_starts_work_on_a_plain_loop(on_loop, url):
    handle = on_loop(start_workflow_async(doubled.using(workflow_id=url), 1))
    assert handle.workflow_id == url
