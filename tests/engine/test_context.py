"""What running code may know of its workflow and its step."""

import uuid

import pytest

from durable_workflows import (
    Queue,
    run_step_async,
    start_workflow,
    step,
    step_context,
    workflow,
    workflow_context,
)
from durable_workflows.errors import WrongPlace
from durable_workflows.testing import run_until_idle

pytestmark = pytest.mark.django_db

looked_at = Queue("looked-at")


@pytest.fixture(params=["sync", "atomic", "async", "across"])
def watched(request, calls):
    """Return a maker of a workflow whose two steps note their contexts; the second fails at first."""

    def make(failures=0, **options):
        def noted(name):
            context = step_context()
            calls.append(context)
            if name == "second" and context.tries <= failures:
                raise OSError(name)
            return context.idempotency_key

        if request.param == "async":

            @step(name="noted", **options)
            async def noted_async(name):
                return noted(name)

            @workflow(name="watched")
            async def watched():
                return [await noted_async("first"), await noted_async("second")]

            return watched

        noted_step = step(name="noted", atomic=request.param == "atomic", **options)(noted)
        if request.param == "across":

            @workflow(name="watched")
            async def watched():
                return [
                    await run_step_async(noted_step, "first"),
                    await run_step_async(noted_step, "second"),
                ]

            return watched

        @workflow(name="watched")
        def watched():
            return [noted_step("first"), noted_step("second")]

        return watched

    return make


def test_a_step_knows_which_call_of_which_workflow_it_is(watched, calls):
    handle = start_workflow(watched(max_attempts=3))
    run_until_idle()

    assert [(one.workflow_id, one.position, one.name, one.tries) for one in calls] == [
        (handle.workflow_id, 1, "noted", 1),
        (handle.workflow_id, 2, "noted", 1),
    ]
    assert {one.max_attempts for one in calls} == {3}
    first, second = handle.get_result()
    assert first != second
    assert uuid.UUID(first)


@pytest.mark.parametrize("interval", [0, 3600])  # an hour is a suspension
def test_the_key_is_the_same_in_every_try(watched, calls, interval):
    handle = start_workflow(watched(2, max_attempts=3, interval_seconds=interval))
    run_until_idle()

    _, *second = calls
    assert [one.tries for one in second] == [1, 2, 3]
    assert {one.idempotency_key for one in second} == {handle.get_result()[1]}


def test_the_key_is_the_same_after_a_crash(watched, calls, rows):
    handle = start_workflow(watched())
    run_until_idle()
    keys = handle.get_result()
    rows.forget_end(handle, after=0)
    run_until_idle()

    assert handle.get_result() == keys
    assert [one.idempotency_key for one in calls] == keys * 2


def test_another_workflow_has_other_keys(watched):
    one, other = start_workflow(watched()), start_workflow(watched())
    run_until_idle()
    assert not {*one.get_result()} & {*other.get_result()}


def test_a_key_is_what_it_was_in_earlier_versions():
    @step
    def key():
        return step_context().idempotency_key

    @workflow
    def keyed():
        return key()

    handle = start_workflow(keyed.using(workflow_id="order-7"))
    run_until_idle()
    assert handle.get_result() == "b65f078a-d288-5ce5-8217-d187accb3040"


def test_a_step_called_by_a_step_is_part_of_it(calls):
    @step
    def inner():
        calls.append(step_context())

    @step
    def outer():
        calls.append(step_context())
        inner()

    @workflow
    def nested():
        outer()

    start_workflow(nested)
    run_until_idle()
    one, other = calls
    assert one == other


def test_outside_a_workflow_a_step_is_told_that_it_is_alone():
    context = step_context()
    assert (context.workflow_id, context.position, context.tries) == (None, 0, 1)
    assert uuid.UUID(context.idempotency_key)
    assert step_context().idempotency_key != context.idempotency_key
    assert workflow_context() is None


def test_the_body_of_a_workflow_has_no_step_context():
    @workflow
    def curious():
        step_context()

    handle = start_workflow(curious)
    run_until_idle()
    with pytest.raises(WrongPlace, match="inside the step"):
        handle.get_result()


def test_workflow_and_step_know_the_run(calls, rows):
    @step
    def look():
        calls.append(workflow_context())

    @workflow(name="looking")
    def looking():
        calls.append(workflow_context())
        look()

    handle = looked_at.enqueue(looking.using(user="ada"))
    run_until_idle()
    body, inside = calls
    assert body == inside
    assert (body.workflow_id, body.name, body.queue_name) == (
        handle.workflow_id,
        "looking",
        "looked-at",
    )
    assert (body.attempt, body.recoveries, body.authenticated_user) == (1, 0, "ada")

    rows.forget_end(handle)
    run_until_idle()
    assert calls[-1].attempt == 2
