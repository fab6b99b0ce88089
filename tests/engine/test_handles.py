"""What a handle tells: every field of a status, and the result or the error."""

import dataclasses
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from durable_workflows import (
    Queue,
    WorkflowHandle,
    WorkflowHandleAsync,
    WorkflowStatus,
    WorkflowStatusString,
    cancel_workflow,
    retrieve_workflow,
    start_workflow,
    start_workflow_async,
    wait_first,
    wait_first_async,
    workflow,
)
from durable_workflows.core.failure import encode_error
from durable_workflows.engine.process import process
from durable_workflows.errors import (
    AwaitedWorkflowMaxRecoveryAttemptsExceeded,
    NonExistentWorkflow,
    ResultTimeout,
    WorkflowFailed,
)
from durable_workflows.models import Workflow
from durable_workflows.testing import run_until_idle
from tests.engine.workflows import Declined, doubled, doubled_async, failing, slow

line = Queue("handles")
PATIENCE = 20

INSTANTS = ("created_at", "updated_at", "dequeued_at", "completed_at", "deadline", "delay_until")


# -- statuses ----------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_status_has_every_field_of_a_finished_workflow():
    before = datetime.now(UTC) - timedelta(seconds=5)
    handle = line.enqueue(
        doubled.using(
            workflow_id="order-7",
            priority=2,
            deduplication_id="once",
            partition_key="north",
            attributes={"shop": 1},
            user="ada",
            timeout=600,
            app_version="v9",
        ),
        4,
    )
    waiting = handle.get_status()
    run_until_idle()
    status = handle.get_status()
    after = datetime.now(UTC) + timedelta(seconds=5)

    assert waiting.status == "ENQUEUED"
    assert (waiting.output, waiting.dequeued_at, waiting.completed_at) == (None, None, None)
    assert (waiting.deduplication_id, waiting.executor_id, waiting.attempt) == ("once", None, 0)
    assert dataclasses.replace(
        status, **dict.fromkeys(INSTANTS), executor_id=None
    ) == WorkflowStatus(
        workflow_id="order-7",
        status=WorkflowStatusString.SUCCESS,
        name="engine.doubled",
        input={"args": (4,), "kwargs": {}},
        output=8,
        error=None,
        created_at=None,
        updated_at=None,
        app_version="v9",
        executor_id=None,
        queue_name="handles",
        dequeued_at=None,
        attempt=1,
        recoveries=0,
        priority=2,
        deduplication_id=None,
        queue_partition_key="north",
        forked_from=None,
        parent_workflow_id=None,
        deadline=None,
        delay_until=None,
        completed_at=None,
        attributes={"shop": 1},
        authenticated_user="ada",
    )
    assert ":" in status.executor_id
    assert before < status.created_at <= status.dequeued_at <= status.completed_at < after
    timeout = status.deadline - status.dequeued_at
    assert abs(timeout - timedelta(seconds=600)) < timedelta(seconds=1)


@pytest.mark.django_db
@pytest.mark.parametrize("use_tz", [True, False])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])
def test_instants_are_aware_in_every_project(settings, use_tz, zone):
    settings.USE_TZ, settings.TIME_ZONE = use_tz, zone
    began = datetime.now(UTC)
    handle = line.enqueue(doubled.using(delay=3600, timeout=60), 4)
    delayed = handle.get_status()
    run_until_idle()
    status = handle.get_status()

    assert status.status == "SUCCESS"
    assert all(
        getattr(status, name).utcoffset() is not None for name in INSTANTS if getattr(status, name)
    )
    assert abs(delayed.delay_until - began - timedelta(seconds=3600)) < timedelta(seconds=30)
    assert abs(status.created_at - began) < timedelta(seconds=30)
    assert status.deadline is not None


@pytest.mark.django_db
def test_a_delayed_start_says_until_when():
    status = start_workflow(doubled.using(delay=3600), 4).get_status()
    assert status.status == "DELAYED"
    delay = status.delay_until - status.created_at
    assert abs(delay - timedelta(seconds=3600)) < timedelta(seconds=1)


@pytest.mark.django_db
def test_a_failed_workflows_error_is_one_line():
    handle = start_workflow(failing)
    run_until_idle()
    status = handle.get_status()

    assert (status.status, status.error, status.output) == ("ERROR", "Declined: card", None)


@pytest.mark.django_db
def test_a_child_says_whose_it_is():
    @workflow
    def parent():
        return start_workflow(doubled, 4).get_result()

    start_workflow(parent.using(workflow_id="p"))
    run_until_idle()
    status = retrieve_workflow("p-1").get_status()

    assert status.parent_workflow_id == "p"
    assert status.queue_name is None
    assert status.dequeued_at is None


@pytest.mark.django_db
@pytest.mark.parametrize(
    "stored",
    ["not json", '{"v":1}', '{"v":99,"value":1}', '{"v":1,"value":{"$":"pickle","v":"x"}}', "null"],
)
def test_a_payload_that_cannot_be_read_is_shown_as_it_is_stored(stored):
    handle = start_workflow(doubled, 4)
    run_until_idle()
    Workflow.objects.update(input=stored, output=stored)
    status = handle.get_status()

    assert (status.input, status.output) == (stored, stored)


@pytest.mark.django_db
def test_an_error_that_cannot_be_read_still_has_a_line():
    handle = start_workflow(failing)
    run_until_idle()
    Workflow.objects.update(error="not json")

    assert handle.get_status().error == "An error that can't be read back"


@pytest.mark.django_db
def test_every_status_compares_equal_to_its_word():
    handle = start_workflow(doubled, 4)
    for status in WorkflowStatusString:
        Workflow.objects.update(status=status.value)
        assert handle.get_status().status == status.value
        assert f"{handle.get_status().status}" == status.value


@pytest.mark.django_db
def test_the_status_of_nobody_is_an_error(on_loop):
    with pytest.raises(NonExistentWorkflow, match="nobody"):
        WorkflowHandle("nobody").get_status()
    with pytest.raises(NonExistentWorkflow, match="nobody"):
        on_loop(WorkflowHandleAsync("nobody").get_status())


# -- handles ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [WorkflowHandle, WorkflowHandleAsync])
def test_a_handle_knows_its_id(kind):
    handle = kind("order-7")
    assert handle.workflow_id == handle.get_workflow_id() == "order-7"
    assert repr(handle) == f"{kind.__name__}('order-7')"


@pytest.mark.django_db
def test_results_are_decoded_anew_for_each_caller():
    @workflow
    def listing():
        return [1]

    handle = start_workflow(listing)
    run_until_idle()
    handle.get_result().append(2)

    assert handle.get_result() == [1]


@pytest.mark.django_db
def test_a_failed_workflow_raises_its_own_error(on_loop):
    handle = start_workflow(failing)
    run_until_idle()

    with pytest.raises(Declined, match="card"):
        handle.get_result()
    with pytest.raises(Declined, match="card"):
        on_loop(WorkflowHandleAsync(handle.workflow_id).get_result())


@pytest.mark.django_db
def test_an_error_of_a_class_nobody_imported_is_stood_in_for():
    class Elsewhere(Exception):
        pass

    Elsewhere.__module__, Elsewhere.__qualname__ = "shop.gone", "Elsewhere"
    handle = start_workflow(failing)
    Workflow.objects.update(status="ERROR", error=encode_error(Elsewhere("card")))

    with pytest.raises(WorkflowFailed, match="card") as caught:
        handle.get_result()
    assert caught.value.error_type == "shop.gone.Elsewhere"


@pytest.mark.django_db
def test_a_given_up_workflow_says_so():
    handle = start_workflow(doubled, 4)
    Workflow.objects.update(status="MAX_RECOVERY_ATTEMPTS_EXCEEDED")

    with pytest.raises(AwaitedWorkflowMaxRecoveryAttemptsExceeded, match="given up"):
        handle.get_result()


@pytest.mark.django_db
@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_poll_has_an_interval_above_zero(on_loop, seconds):
    handle = start_workflow(doubled, 4)
    for wait in (
        lambda: handle.get_result(polling_interval_sec=seconds),
        lambda: wait_first([handle], polling_interval_sec=seconds),
        lambda: on_loop(
            WorkflowHandleAsync(handle.workflow_id).get_result(polling_interval_sec=seconds)
        ),
        lambda: on_loop(wait_first_async([handle], polling_interval_sec=seconds)),
    ):
        with pytest.raises(ValueError, match="polling_interval_sec"):
            wait()


# -- waiting while a worker works -----------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_wait_gives_up_after_its_time_and_the_workflow_goes_on(worker, on_loop):
    handle = start_workflow(slow, 3600, 1)

    with pytest.raises(ResultTimeout, match="it goes on") as caught:
        handle.get_result(timeout=0.01)
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.workflow_id, caught.value.timeout) == (handle.workflow_id, 0.01)
    with pytest.raises(ResultTimeout):
        on_loop(WorkflowHandleAsync(handle.workflow_id).get_result(timeout=0.01))
    assert handle.get_status().status == "PENDING"
    cancel_workflow(handle.workflow_id)


@pytest.mark.django_db(transaction=True)
def test_many_threads_wait_over_one_thread(worker, apart):
    handles = [start_workflow(slow, 0.2, number) for number in range(20)]
    results = {}

    def wait(handle, number):
        results[number] = handle.get_result(timeout=PATIENCE)

    threads = [apart(partial(wait, handle, number)) for number, handle in enumerate(handles)]
    waiting = [one.name for one in threading.enumerate() if one.name == "durable-waiters"]
    for thread in threads:
        thread.join(PATIENCE)

    assert results == {number: number for number in range(20)}
    assert len(waiting) <= 1


@pytest.mark.django_db(transaction=True)
def test_coroutines_wait_and_are_woken_on_their_loop(worker, on_loop):
    async def scene():
        handles = [await start_workflow_async(doubled_async, number) for number in range(10)]
        first = await wait_first_async(handles)
        return [await handle.get_result() for handle in handles], first in handles

    assert on_loop(scene()) == ([0, 2, 4, 6, 8, 10, 12, 14, 16, 18], True)


@pytest.mark.django_db(transaction=True)
def test_the_first_of_several_while_a_worker_works(worker):
    handles = [start_workflow(slow, 3600, 1), start_workflow(slow, 0.1, 2)]

    assert wait_first(handles) is handles[1]
    cancel_workflow(handles[0].workflow_id)


@pytest.mark.django_db(transaction=True)
def test_what_another_process_ended_is_seen_by_polling(worker, apart):
    handle = start_workflow(slow, 3600, 1)
    results = []
    thread = apart(
        lambda: results.append(handle.get_result(polling_interval_sec=0.01, timeout=PATIENCE))
    )
    while Workflow.objects.get().wake_at is None:
        time.sleep(0.001)
    Workflow.objects.update(
        status="SUCCESS", output='{"v":1,"value":"elsewhere"}', wake_at=None, waits=""
    )
    thread.join(PATIENCE)

    assert results == ["elsewhere"]


@pytest.mark.django_db(transaction=True)
def test_the_waiting_thread_ends_after_the_last_waiter(worker):
    start_workflow(slow, 0.05, 1).get_result(timeout=PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while process().waiters._thread is not None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
