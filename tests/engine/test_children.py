"""Waiting for other workflows, from a workflow: recorded, timed, and told apart by how they end."""

import asyncio

import pytest
from django.db import transaction

from durable_workflows import (
    Queue,
    WorkflowHandle,
    cancel_workflow,
    retrieve_workflow,
    retrieve_workflow_async,
    sleep,
    sleep_async,
    start_workflow,
    start_workflow_async,
    wait_first,
    wait_first_async,
    workflow,
)
from durable_workflows.errors import (
    AwaitedWorkflowCancelledError,
    AwaitedWorkflowMaxRecoveryAttemptsExceeded,
    NonExistentWorkflow,
    QueueDeduplicated,
    ResultTimeout,
    WaitsBehindItself,
)
from durable_workflows.models import Workflow
from durable_workflows.testing import run_until_idle
from tests.engine.workflows import Declined, doubled, doubled_async, failing, slow

pytestmark = pytest.mark.django_db

line = Queue("line", concurrency=2)


# -- results --------------------------------------------------------------------------


def test_waiting_for_a_child_takes_a_position(rows):
    @workflow
    def parent():
        return start_workflow(doubled, 4).get_result()

    handle = start_workflow(parent)
    run_until_idle()

    assert handle.get_result() == 8
    assert rows.steps(handle) == [(1, "start", "doubled"), (2, "result", "result")]
    assert rows.step(handle, 2).child == f"{handle.workflow_id}-1"


def test_a_parent_that_waits_is_in_nobodys_memory(rows):
    @workflow
    def parent():
        return start_workflow(slow, 3600, "at last").get_result()

    handle = start_workflow(parent)
    run_until_idle(skip_time=False)
    row = rows.of(handle)
    assert (row.status, row.worker_id) == ("PENDING", None)
    assert row.wake_at is not None

    run_until_idle()
    assert handle.get_result() == "at last"
    assert rows.status(handle) == "SUCCESS"


def test_a_result_is_recorded_and_not_looked_up_again(rows):
    @workflow
    def parent():
        return start_workflow(doubled, 4).get_result()

    handle = start_workflow(parent.using(workflow_id="p"))
    run_until_idle()
    Workflow.objects.filter(workflow_id="p-1").update(output='{"v":1,"value":"forged"}')
    rows.forget_end(handle)
    run_until_idle()

    assert handle.get_result() == 8


def test_a_failed_childs_error_is_raised_alike_in_replay(rows):
    seen = []

    @workflow
    def parent():
        try:
            start_workflow(failing).get_result()
        except Declined as error:
            seen.append((type(error), error.args))
            return "caught"

    handle = start_workflow(parent)
    run_until_idle()
    rows.forget_end(handle)
    run_until_idle()

    assert handle.get_result() == "caught"
    assert seen == [(Declined, ("card",))] * 2


@pytest.mark.parametrize(
    "status, error",
    [
        ("CANCELLED", AwaitedWorkflowCancelledError),
        ("MAX_RECOVERY_ATTEMPTS_EXCEEDED", AwaitedWorkflowMaxRecoveryAttemptsExceeded),
    ],
)
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_child_without_a_result_raises_why(rows, status, error, colour):
    @workflow
    def parent():
        return retrieve_workflow("child").get_result()

    @workflow
    async def parent_async():
        return await (await retrieve_workflow_async("child")).get_result()

    child = start_workflow(slow.using(workflow_id="child"), 3600, 1)
    handle = start_workflow(parent if colour == "sync" else parent_async)
    run_until_idle(skip_time=False)
    if status == "CANCELLED":
        assert cancel_workflow("child")
    else:
        Workflow.objects.filter(workflow_id="child").update(status=status, wake_at=None, waits="")
    run_until_idle()

    assert rows.status(child) == status
    with pytest.raises(error, match="child") as caught:
        handle.get_result()
    assert caught.value.workflow_id == "child"


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_wait_gives_up_after_its_time_and_the_child_goes_on(rows, colour):
    @workflow
    def parent():
        child = start_workflow(slow, 3600, "at last")
        try:
            return child.get_result(timeout=60)
        except ResultTimeout as error:
            return error.timeout, child.get_result()

    @workflow
    async def parent_async():
        child = await start_workflow_async(slow, 3600, "at last")
        try:
            return await child.get_result(timeout=60)
        except ResultTimeout as error:
            return error.timeout, await child.get_result()

    handle = start_workflow(parent if colour == "sync" else parent_async)
    run_until_idle()
    assert handle.get_result() == (60, "at last")

    rows.forget_end(handle)
    run_until_idle()
    assert handle.get_result() == (60, "at last")


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("timeout", [0, -1])
def test_a_wait_without_any_time_only_looks(rows, timeout, colour):
    @workflow
    def parent():
        with pytest.raises(ResultTimeout):
            start_workflow(slow, 3600, "at last").get_result(timeout=timeout)
        return retrieve_workflow("ended", existing_workflow=False).get_result(timeout=timeout)

    @workflow
    async def parent_async():
        child = await start_workflow_async(slow, 3600, "at last")
        with pytest.raises(ResultTimeout):
            await child.get_result(timeout=timeout)
        ended = await retrieve_workflow_async("ended", existing_workflow=False)
        return await ended.get_result(timeout=timeout)

    start_workflow(doubled.using(workflow_id="ended"), 4)
    run_until_idle()
    handle = start_workflow(parent if colour == "sync" else parent_async)
    run_until_idle(skip_time=False)

    assert handle.get_result() == 8


def test_a_childs_result_is_there_for_several(rows):
    @workflow
    def parent():
        child = start_workflow(doubled, 4)
        return (
            child.get_result(),
            child.get_result(),
            WorkflowHandle(child.workflow_id).get_result(),
        )

    handle = start_workflow(parent)
    run_until_idle()

    assert handle.get_result() == (8, 8, 8)


# -- side by side -----------------------------------------------------------------------


def test_children_are_awaited_side_by_side(rows):
    @workflow
    async def parent():
        called = await asyncio.gather(*(doubled_async(number) for number in range(5)))
        handles = [await line.enqueue_async(doubled, number) for number in range(5)]
        waited = await asyncio.gather(*(handle.get_result() for handle in handles))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(doubled_async(number)) for number in range(3)]
        return called, waited, [task.result() for task in tasks]

    handle = start_workflow(parent)
    run_until_idle()
    expected = ([0, 2, 4, 6, 8], [0, 2, 4, 6, 8], [0, 2, 4])
    assert handle.get_result() == expected

    for last in (25, 17, 10, 3, 0):
        rows.forget_end(handle, after=last)
        run_until_idle()
        assert handle.get_result() == expected
    assert Workflow.objects.count() == 1 + 13


def test_one_failing_child_among_several_is_raised_by_a_plain_gather(rows):
    @workflow
    async def failing_async():
        raise Declined("card")

    @workflow
    async def parent():
        try:
            await asyncio.gather(doubled_async(1), failing_async(), doubled_async(2))
        except Declined:
            return "declined"

    handle = start_workflow(parent)
    run_until_idle()

    assert handle.get_result() == "declined"


def test_results_of_a_gather_that_takes_errors_as_values(rows):
    @workflow
    async def failing_async():
        raise Declined("card")

    @workflow
    async def parent():
        results = await asyncio.gather(doubled_async(1), failing_async(), return_exceptions=True)
        return [results[0], type(results[1]).__name__]

    handle = start_workflow(parent)
    run_until_idle()

    assert handle.get_result() == [2, "Declined"]


# -- the first of several -----------------------------------------------------------------


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_the_first_to_end_is_returned_and_stays_the_first(rows, colour):
    @workflow
    def parent():
        handles = [start_workflow(slow, seconds, seconds) for seconds in (900, 30, 600)]
        first = wait_first(handles)
        return handles.index(first), first.get_result()

    @workflow
    async def parent_async():
        handles = [await start_workflow_async(slow, seconds, seconds) for seconds in (900, 30, 600)]
        first = await wait_first_async(handles)
        return handles.index(first), await first.get_result()

    handle = start_workflow(parent if colour == "sync" else parent_async)
    run_until_idle()
    assert handle.get_result() == (1, 30)

    rows.forget_end(handle)  # all three have ended now
    run_until_idle()
    assert handle.get_result() == (1, 30)


def test_a_failed_one_counts_as_ended():
    @workflow
    def parent():
        handles = [start_workflow(slow, 900, 1), start_workflow(failing)]
        return handles.index(wait_first(handles))

    handle = start_workflow(parent)
    run_until_idle()

    assert handle.get_result() == 1


def test_the_first_of_several_from_outside(on_loop):
    handles = [start_workflow(slow, 900, 1), start_workflow(doubled, 1)]
    run_until_idle(skip_time=False)

    assert wait_first(handles) is handles[1]
    assert on_loop(wait_first_async(handles)) is handles[1]


@pytest.mark.parametrize(
    "handles, reason",
    [([], "empty"), ([WorkflowHandle("a"), WorkflowHandle("b"), WorkflowHandle("a")], "twice")],
)
def test_no_handles_or_the_same_twice_are_refused(on_loop, handles, reason):
    with pytest.raises(ValueError, match=reason):
        wait_first(handles)
    with pytest.raises(ValueError, match=reason):
        on_loop(wait_first_async(handles))


# -- statuses --------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_status_read_in_a_workflow_is_recorded(rows, colour):
    @workflow
    def parent():
        child = retrieve_workflow("child", existing_workflow=False)
        before = child.get_status()
        sleep(60)
        return before.status, before.input, child.get_status().status

    @workflow
    async def parent_async():
        child = await retrieve_workflow_async("child", existing_workflow=False)
        before = await child.get_status()
        await sleep_async(60)
        return before.status, before.input, (await child.get_status()).status

    start_workflow(slow.using(workflow_id="child", delay=1), 5, "x")
    handle = start_workflow(parent if colour == "sync" else parent_async)
    run_until_idle()
    seen = ("DELAYED", {"args": (5, "x"), "kwargs": {}}, "SUCCESS")
    assert handle.get_result() == seen

    rows.forget_end(handle)
    run_until_idle()
    assert handle.get_result() == seen
    assert [kind for _, kind, _ in rows.steps(handle)] == ["status", "sleep", "status"]


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_an_unknown_id_in_a_workflow_is_unknown_in_replay_too(rows, colour):
    @workflow
    def parent():
        with pytest.raises(NonExistentWorkflow):
            retrieve_workflow("nobody")
        return "unknown"

    @workflow
    async def parent_async():
        with pytest.raises(NonExistentWorkflow):
            await retrieve_workflow_async("nobody")
        return "unknown"

    handle = start_workflow(parent if colour == "sync" else parent_async)
    run_until_idle()
    assert handle.get_result() == "unknown"
    start_workflow(doubled.using(workflow_id="nobody"), 1)
    rows.forget_end(handle)
    run_until_idle()
    assert handle.get_result() == "unknown"


# -- behind oneself -------------------------------------------------------------------


one_at_a_time = Queue("one-at-a-time", concurrency=1, hold=True)
two_at_a_time = Queue("two-at-a-time", concurrency=2, hold=True)
in_turns = Queue("in-turns", concurrency=1)


@workflow
def waits_on(name, *names):
    queues = {queue.name: queue for queue in (one_at_a_time, two_at_a_time, in_turns)}
    handles = [queues[each].enqueue(doubled, 4) for each in (name, *names)]
    return wait_first(handles).get_result()


@workflow
async def waits_on_async(name, *names):
    queues = {queue.name: queue for queue in (one_at_a_time, two_at_a_time, in_turns)}
    handles = [await queues[each].enqueue_async(doubled, 4) for each in (name, *names)]
    return await (await wait_first_async(handles)).get_result()


@pytest.mark.parametrize("waits", [waits_on, waits_on_async])
def test_waiting_behind_oneself_on_a_holding_queue_is_refused_at_the_call(rows, waits):
    handle = one_at_a_time.enqueue(waits, one_at_a_time.name)
    run_until_idle()

    with pytest.raises(WaitsBehindItself, match="hold=True"):
        handle.get_result()
    assert rows.steps(handle)[-1][1:] == ("first", "wait_first")  # the refusal is the call's result
    (child,) = Workflow.objects.exclude(workflow_id=handle.workflow_id)
    assert child.status == "SUCCESS"  # its turn came


def test_the_result_of_a_child_behind_oneself_is_refused_as_well():
    @workflow
    def parent():
        try:
            one_at_a_time.enqueue(doubled, 4).get_result()
        except WaitsBehindItself as refusal:
            sleep(60)  # and is the same after the wait
            return str(refusal)

    handle = one_at_a_time.enqueue(parent)
    run_until_idle()

    assert "'one-at-a-time'" in handle.get_result()


@pytest.mark.parametrize("waits", [waits_on, waits_on_async])
@pytest.mark.parametrize(
    "queue, names",
    [
        (in_turns, ["in-turns"]),  # its place is free while it waits
        (two_at_a_time, ["two-at-a-time"]),
        (one_at_a_time, ["in-turns"]),
        (one_at_a_time, ["one-at-a-time", "in-turns"]),  # one of them can begin
        (None, ["one-at-a-time"]),
    ],
)
def test_waiting_for_what_can_begin_is_not_refused(waits, queue, names):
    handle = queue.enqueue(waits, *names) if queue else start_workflow(waits, *names)
    run_until_idle()

    assert handle.get_result() == 8


# -- deduplication --------------------------------------------------------------------


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_deduplication_conflict_is_the_recorded_result_of_the_call(rows, colour, calls):
    """In replay it is the same, though the id is free again."""

    def told(refusal):
        calls.append((refusal.holder, refusal.deduplication_id))

    @workflow
    def parent():
        try:
            in_turns.enqueue(doubled.using(deduplication_id="x"), 4)
        except QueueDeduplicated as refusal:
            told(refusal)
        sleep(3600)

    @workflow
    async def parent_async():
        try:
            await in_turns.enqueue_async(doubled.using(deduplication_id="x"), 4)
        except QueueDeduplicated as refusal:
            told(refusal)
        await sleep_async(3600)

    holder = in_turns.enqueue(doubled.using(deduplication_id="x", delay=60), 4)
    handle = start_workflow(parent if colour == "sync" else parent_async)
    run_until_idle()

    assert handle.get_status().status == "SUCCESS"
    assert calls == [(holder.workflow_id, "x")] * 2
    assert rows.steps(handle)[0][1] == "start"
    assert Workflow.objects.count() == 2


def test_a_conflict_outside_a_workflow_breaks_no_transaction():
    holder = in_turns.enqueue(doubled.using(deduplication_id="x"), 4)
    with transaction.atomic():
        with pytest.raises(QueueDeduplicated, match=holder.workflow_id):
            in_turns.enqueue(doubled.using(deduplication_id="x"), 4)
        other = in_turns.enqueue(doubled.using(deduplication_id="y"), 5)
    run_until_idle()

    assert other.get_result() == 10
    again = in_turns.enqueue(doubled.using(deduplication_id="x"), 6)  # free since it ended
    run_until_idle()
    assert again.get_result() == 12
