"""Cancelling stops a workflow wherever it stands; resuming goes on from its last step."""

import asyncio
import threading
import time

import pytest

from durable_workflows import (
    WorkflowHandle,
    cancel_workflow,
    cancel_workflow_async,
    resume_workflow,
    resume_workflow_async,
    run_step_async,
    sleep,
    sleep_async,
    start_workflow,
    step,
    workflow,
)
from durable_workflows.engine.process import process
from durable_workflows.errors import AwaitedWorkflowCancelledError, NonExistentWorkflow
from durable_workflows.models import Workflow
from durable_workflows.testing import run_until_idle
from tests.engine.workflows import doubled, failing, slow

PATIENCE = 20


@pytest.fixture(params=["sync", "async"])
def halting(request, calls):
    """A workflow of two steps with an hour's sleep between them, of either colour."""

    @step
    def note(what):
        calls.append(what)
        return what

    @step
    async def note_async(what):
        calls.append(what)
        return what

    @workflow
    def around():
        note("before")
        sleep(3600)
        return note("after")

    @workflow
    async def around_async():
        await note_async("before")
        await sleep_async(3600)
        return await note_async("after")

    return around if request.param == "sync" else around_async


# -- in the test's transaction -----------------------------------------------------------


@pytest.mark.django_db
def test_a_waiting_workflow_ends_at_once_and_goes_on_from_its_last_step(halting, calls, rows):
    handle = start_workflow(halting)
    run_until_idle(skip_time=False)
    assert cancel_workflow(handle.workflow_id)

    row = rows.of(handle)
    assert (row.status, row.worker_id, row.wake_at, row.waits) == ("CANCELLED", None, None, "")
    assert row.completed_at is not None
    with pytest.raises(AwaitedWorkflowCancelledError, match="resume_workflow"):
        handle.get_result()
    assert run_until_idle() == 0

    assert resume_workflow(handle.workflow_id)
    assert rows.of(handle).completed_at is None
    run_until_idle()
    assert handle.get_result() == "after"
    assert calls == ["before", "after"]


@pytest.mark.django_db
@pytest.mark.parametrize("delay", [None, 60])
def test_a_workflow_that_has_not_begun_never_begins(halting, calls, rows, delay):
    handle = start_workflow(halting.using(delay=delay))
    assert cancel_workflow(handle.workflow_id)
    assert run_until_idle() == 0
    assert calls == []

    assert resume_workflow(handle.workflow_id)
    assert rows.status(handle) == "PENDING"
    run_until_idle()
    assert handle.get_result() == "after"


@pytest.mark.django_db
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_running_workflow_stops_at_its_next_durable_call(rows, calls, colour):
    @step
    def cancelling():
        calls.append("cancelling")
        assert cancel_workflow("c")

    @step
    def beyond():
        calls.append("beyond")

    @workflow
    def around():
        try:
            cancelling()
            calls.append("went on")
        except Exception:
            calls.append("caught as an error")
        beyond()

    @workflow
    async def around_async():
        try:
            await run_step_async(cancelling)
            calls.append("went on")
        except Exception:
            calls.append("caught as an error")
        await run_step_async(beyond)

    handle = start_workflow((around if colour == "sync" else around_async).using(workflow_id="c"))
    run_until_idle()

    assert rows.status(handle) == "CANCELLED"
    assert calls == ["cancelling"]
    assert rows.steps(handle) == []


@pytest.mark.django_db
def test_a_workflow_cancelled_before_its_end_does_not_succeed(rows):
    @workflow
    def around():
        Workflow.objects.filter(workflow_id="c").update(status="CANCELLED", worker=None)
        return "too late"

    handle = start_workflow(around.using(workflow_id="c"))
    run_until_idle()

    assert rows.status(handle) == "CANCELLED"
    assert rows.of(handle).output is None


@pytest.mark.django_db
@pytest.mark.parametrize("function, status", [(doubled, "SUCCESS"), (failing, "ERROR")])
def test_what_has_ended_stays_as_it_is(rows, function, status):
    handle = start_workflow(function, *([4] if function is doubled else []))
    run_until_idle()

    assert not cancel_workflow(handle.workflow_id)
    assert not resume_workflow(handle.workflow_id)
    assert rows.status(handle) == status


@pytest.mark.django_db
def test_cancelling_twice_is_done_once():
    handle = start_workflow(doubled, 4)
    assert cancel_workflow(handle.workflow_id)
    assert not cancel_workflow(handle.workflow_id)
    assert resume_workflow(handle.workflow_id)
    assert not resume_workflow(handle.workflow_id)


@pytest.mark.django_db
def test_unknown_ids_are_ignored_by_one_and_told_by_the_other(on_loop):
    assert not cancel_workflow("nobody")
    assert not on_loop(cancel_workflow_async("nobody"))
    with pytest.raises(NonExistentWorkflow, match="nobody"):
        resume_workflow("nobody")
    with pytest.raises(NonExistentWorkflow, match="nobody"):
        on_loop(resume_workflow_async("nobody"))


@pytest.mark.django_db
def test_the_async_twins_do_the_same(on_loop, rows):
    handle = start_workflow(doubled, 4)
    assert on_loop(cancel_workflow_async(handle.workflow_id))
    assert rows.status(handle) == "CANCELLED"
    assert on_loop(resume_workflow_async(handle.workflow_id))
    assert rows.status(handle) == "PENDING"


@pytest.mark.django_db
def test_models_have_the_same_verbs(on_loop, rows):
    handle = start_workflow(doubled, 4)
    row = rows.of(handle)
    assert row.cancel()
    assert not row.cancel()
    assert on_loop(row.aresume())
    assert not row.resume()
    assert on_loop(row.acancel())
    assert Workflow.objects.of(doubled).resume() == 1
    run_until_idle()
    assert handle.get_result() == 8


@pytest.mark.django_db
def test_a_given_up_workflow_gets_a_new_life(rows):
    handle = start_workflow(doubled, 4)
    Workflow.objects.update(status="MAX_RECOVERY_ATTEMPTS_EXCEEDED", recoveries=101)
    assert resume_workflow(handle.workflow_id)
    assert rows.of(handle).recoveries == 0
    run_until_idle()
    assert handle.get_result() == 8


@pytest.mark.django_db
def test_cancelling_in_a_workflow_is_a_step(rows):
    @workflow
    def around():
        return cancel_workflow("there"), resume_workflow("there"), cancel_workflow("nobody")

    @workflow
    async def around_async():
        return (
            await cancel_workflow_async("there"),
            await resume_workflow_async("there"),
            await cancel_workflow_async("nobody"),
        )

    start_workflow(doubled.using(workflow_id="there", delay=3600), 1)
    for function in (around, around_async):
        handle = start_workflow(function)
        run_until_idle(skip_time=False)
        rows.forget_end(handle)
        Workflow.objects.filter(workflow_id="there").update(status="DELAYED")
        run_until_idle(skip_time=False)
        assert handle.get_result() == (True, True, False)
        assert [name for _, _, name in rows.steps(handle)] == [
            "cancel_workflow",
            "resume_workflow",
            "cancel_workflow",
        ]


@pytest.mark.django_db
def test_a_parent_is_woken_by_its_childs_cancellation(rows):
    @workflow
    def parent():
        try:
            start_workflow(slow, 3600, 1).get_result()
        except AwaitedWorkflowCancelledError as error:
            return error.workflow_id

    handle = start_workflow(parent.using(workflow_id="p"))
    run_until_idle(skip_time=False)
    cancel_workflow("p-1")
    run_until_idle(skip_time=False)

    if (
        rows.status(handle) == "PENDING"
    ):  # told on commit, which a test never has; then by the timer
        run_until_idle()
    assert handle.get_result() == "p-1"


# -- with a worker ---------------------------------------------------------------------------


def wait_until(true):
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)


@pytest.mark.django_db(transaction=True)
def test_a_running_async_step_is_interrupted(worker, calls, rows):
    began = threading.Event()

    @step
    async def stalling():
        calls.append("began")
        began.set()
        if len(calls) > 1:
            return "finished"
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            calls.append("interrupted")
            raise

    @workflow
    async def around():
        return await stalling()

    handle = start_workflow(around)
    assert began.wait(PATIENCE)
    assert cancel_workflow(handle.workflow_id)
    wait_until(lambda: calls == ["began", "interrupted"])
    wait_until(lambda: not process().embedded.crew.held)
    assert rows.status(handle) == "CANCELLED"
    assert rows.steps(handle) == []

    assert resume_workflow(handle.workflow_id)
    assert handle.get_result(timeout=PATIENCE) == "finished"
    assert calls == ["began", "interrupted", "began"]


@pytest.mark.django_db(transaction=True)
def test_a_sync_step_runs_to_its_end_and_nothing_follows(worker, calls, rows):
    began, go_on = threading.Event(), threading.Event()

    @step
    def stalling():
        calls.append("began")
        began.set()
        assert go_on.wait(PATIENCE)
        return "finished"

    @step
    def following():
        calls.append("followed")

    @workflow
    def around():
        stalling()
        following()
        return "done"

    handle = start_workflow(around)
    assert began.wait(PATIENCE)
    assert cancel_workflow(handle.workflow_id)
    go_on.set()
    wait_until(lambda: not process().embedded.crew.held)

    assert calls == ["began"]
    assert rows.steps(handle) == []
    assert resume_workflow(handle.workflow_id)
    assert handle.get_result(timeout=PATIENCE) == "done"
    assert calls == ["began", "began", "followed"]


@pytest.mark.django_db(transaction=True)
def test_a_waiter_outside_is_told_of_a_cancellation(worker, apart):
    handle = start_workflow(slow, 3600, 1)
    told = []

    def waiting():
        try:
            WorkflowHandle(handle.workflow_id).get_result(timeout=PATIENCE)
        except Exception as error:
            told.append(type(error))

    thread = apart(waiting)
    wait_until(lambda: Workflow.objects.get().wake_at is not None)
    cancel_workflow(handle.workflow_id)
    thread.join(PATIENCE)

    assert told == [AwaitedWorkflowCancelledError]


@pytest.mark.django_db(transaction=True)
def test_a_waiting_workflow_is_resumed_by_the_worker(worker, halting, calls, rows):
    handle = start_workflow(halting)
    wait_until(lambda: rows.of(handle).wake_at is not None)
    assert cancel_workflow(handle.workflow_id)
    assert resume_workflow(handle.workflow_id)
    wait_until(lambda: rows.of(handle).attempt == 2 and rows.of(handle).wake_at is not None)

    assert calls == ["before"]
    cancel_workflow(handle.workflow_id)


@pytest.mark.django_db(transaction=True)
def test_a_process_that_does_nothing_but_cancel_wakes_those_who_wait(rows, monkeypatch):
    @workflow
    def parent():
        return start_workflow(slow, 3600, "never").get_result()

    handle = start_workflow(parent)
    run_until_idle(skip_time=False)
    assert rows.of(handle).wake_at is not None
    monkeypatch.setattr("durable_workflows.engine.process._processes", {})

    assert Workflow.objects.exclude(workflow_id=handle.workflow_id).cancel() == 1

    assert rows.of(handle).wake_at is None
