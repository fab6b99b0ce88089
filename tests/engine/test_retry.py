"""A step that fails is tried again as its policy says, and what it ends with is recorded."""

import asyncio
import json

import pytest

from durable_workflows import run_step_async, start_workflow, step, workflow
from durable_workflows.core import waits
from durable_workflows.errors import (
    MaxStepRetriesExceeded,
    PayloadTooLarge,
    StepTimeout,
    Unstorable,
)
from durable_workflows.testing import manual_clock, run_until_idle

pytestmark = pytest.mark.django_db


class Flaky(Exception):
    pass


@pytest.fixture(params=["sync", "async"])
def attempted(request, calls):
    """Return a maker of a workflow with one step that fails so many times; calls holds instants."""

    def make(failures, clock=None, **options):
        def attempt():
            calls.append(clock.monotonic() if clock else len(calls))
            if len(calls) <= failures:
                raise Flaky(f"failure {len(calls)}")
            return "done"

        @step(**options)
        def failing():
            return attempt()

        @step(**options)
        async def failing_async():
            return attempt()

        @workflow
        def trying():
            return failing()

        @workflow
        async def trying_async():
            return await failing_async()

        return trying if request.param == "sync" else trying_async

    return make


def test_a_step_is_tried_once_unless_told_otherwise(attempted, calls):
    handle = start_workflow(attempted(1))
    run_until_idle()

    with pytest.raises(Flaky, match="failure 1"):
        handle.get_result()
    assert len(calls) == 1


@pytest.mark.parametrize("failures", [0, 1, 4])
def test_a_step_that_succeeds_at_last_has_succeeded(attempted, calls, rows, failures):
    handle = start_workflow(attempted(failures, max_attempts=5))
    run_until_idle()

    assert handle.get_result() == "done"
    assert len(calls) == failures + 1
    tries = rows.step(handle, 1).tries
    assert len(json.loads(tries) if tries else []) == failures


def test_used_up_tries_end_in_an_error_that_holds_them_all(attempted, calls, rows):
    function = attempted(9, max_attempts=3)
    handle = start_workflow(function)
    for _ in range(2):
        run_until_idle()
        with pytest.raises(MaxStepRetriesExceeded, match="each of its 3 tries") as caught:
            handle.get_result()
        assert [str(error) for error in caught.value.errors] == [
            "failure 1",
            "failure 2",
            "failure 3",
        ]
        assert [type(error) for error in caught.value.errors] == [Flaky] * 3
        assert caught.value.max_attempts == 3
        rows.forget_end(handle)
    assert len(calls) == 3


def test_pauses_grow_by_the_rate(attempted, calls):
    with manual_clock() as clock:
        began = clock.monotonic()
        function = attempted(3, clock, max_attempts=4, interval_seconds=10, backoff_rate=3)
        handle = start_workflow(function)
        run_until_idle()
        passed = [round(instant - began) for instant in calls]

    assert handle.get_result() == "done"
    assert passed == [0, 10, 40, 130]


def test_a_long_pause_unloads_the_workflow_and_keeps_the_count(attempted, calls, rows):
    handle = start_workflow(attempted(2, max_attempts=3, interval_seconds=3600))
    run_until_idle(skip_time=False)

    row = rows.of(handle)
    assert row.worker_id is None
    assert row.status == "PENDING"
    (wait,) = waits.decode(row.waits).values()
    assert (wait.kind, len(wait.errors)) == ("retry", 1)
    assert len(calls) == 1

    run_until_idle()
    assert handle.get_result() == "done"
    assert len(calls) == 3
    assert rows.of(handle).attempt == 3


def test_the_count_is_kept_to_the_last_try(attempted, calls, rows):
    handle = start_workflow(attempted(99, max_attempts=4, interval_seconds=3600))
    run_until_idle()

    with pytest.raises(MaxStepRetriesExceeded) as caught:
        handle.get_result()
    assert len(calls) == len(caught.value.errors) == 4


def test_a_step_without_a_pause_stays_in_memory(attempted, rows):
    handle = start_workflow(attempted(4, max_attempts=5, interval_seconds=0))
    run_until_idle()

    assert handle.get_result() == "done"
    assert rows.of(handle).attempt == 1


def test_an_inline_run_waits_its_pauses_in_place(attempted, calls, on_loop):
    function = attempted(2, max_attempts=3, interval_seconds=3600)
    with manual_clock() as clock:
        before = clock.monotonic()
        result = function()
        assert (on_loop(result) if asyncio.iscoroutine(result) else result) == "done"
        assert clock.monotonic() - before == pytest.approx(2 * 3600)  # no pause is longer
    assert len(calls) == 3


# -- should_retry -------------------------------------------------------------------


def only_the_first(error):
    return str(error) == "failure 1"


async def only_the_first_async(error):
    await asyncio.sleep(0)
    return only_the_first(error)


@pytest.mark.parametrize("judge", [only_the_first, only_the_first_async])
def test_an_error_that_is_not_worth_it_ends_the_tries(attempted, calls, judge):
    handle = start_workflow(attempted(9, max_attempts=5, should_retry=judge))
    run_until_idle()

    with pytest.raises(Flaky, match="failure 2"):
        handle.get_result()
    assert len(calls) == 2


def test_a_judge_that_fails_ends_the_tries_with_its_own_error(attempted, calls):
    def judge(error):
        raise ZeroDivisionError("in the judge")

    handle = start_workflow(attempted(9, max_attempts=5, should_retry=judge))
    run_until_idle()

    with pytest.raises(ZeroDivisionError, match="in the judge"):
        handle.get_result()
    assert len(calls) == 1


# -- what is recorded ------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, error, reason",
    [
        (lambda: None, Unstorable, "result"),
        ([1, {"deep": object()}], Unstorable, r'result\[1\]\["deep"\]'),
        ("x" * 2_000_000, PayloadTooLarge, "PAYLOAD_MAX_BYTES"),
    ],
)
def test_a_result_that_cannot_be_kept_fails_the_step_without_another_try(
    calls, rows, value, error, reason
):
    @step(max_attempts=5)
    def making():
        calls.append("made")
        return value

    @workflow
    def around():
        return making()

    handle = start_workflow(around)
    run_until_idle()

    with pytest.raises(error, match=reason):
        handle.get_result()
    assert calls == ["made"]
    assert rows.status(handle) == "ERROR"


def test_a_workflow_that_returns_what_cannot_be_kept_fails_with_that_reason(rows):
    @workflow
    def around():
        return object()

    handle = start_workflow(around)
    run_until_idle()

    with pytest.raises(Unstorable, match="result can't be stored"):
        handle.get_result()


@pytest.mark.parametrize("broken", [KeyboardInterrupt, SystemExit])
def test_what_is_no_exception_is_neither_retried_nor_recorded(calls, rows, broken):
    @step(max_attempts=5)
    def breaking():
        calls.append("tried")
        raise broken("out")

    @workflow
    def around():
        return breaking()

    handle = start_workflow(around)
    run_until_idle()

    assert rows.status(handle) == "ERROR"
    assert rows.steps(handle) == []
    assert calls == ["tried"]


# -- time limits -------------------------------------------------------------------------


def test_a_try_over_its_time_is_abandoned_and_retried(calls):
    @step(timeout_seconds=0.01, max_attempts=3)
    async def stalling():
        calls.append("tried")
        if len(calls) < 3:
            await asyncio.sleep(60)
        return "in time"

    @workflow
    async def around():
        return await stalling()

    handle = start_workflow(around)
    run_until_idle()

    assert handle.get_result() == "in time"
    assert len(calls) == 3


def test_the_last_try_over_its_time_is_the_steps_error(rows):
    @step(timeout_seconds=0.01)
    async def stalling():
        await asyncio.sleep(60)

    @workflow
    async def around():
        await stalling()

    handle = start_workflow(around)
    run_until_idle()

    with pytest.raises(StepTimeout, match=r"0\.01 s") as caught:
        handle.get_result()
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.timeout_seconds == 0.01


def test_a_steps_own_timeout_is_not_taken_for_its_limit():
    @step(timeout_seconds=60)
    async def raising():
        raise TimeoutError("its own")

    @workflow
    async def around():
        await raising()

    handle = start_workflow(around)
    run_until_idle()

    with pytest.raises(TimeoutError, match="its own") as caught:
        handle.get_result()
    assert type(caught.value) is TimeoutError


# -- across colours ------------------------------------------------------------------------


def test_a_sync_step_retries_in_an_async_workflow(calls):
    @step(max_attempts=3)
    def failing():
        calls.append("tried")
        if len(calls) < 3:
            raise Flaky
        return "done"

    @workflow
    async def around():
        return await run_step_async(failing)

    handle = start_workflow(around)
    run_until_idle()

    assert handle.get_result() == "done"
    assert len(calls) == 3
