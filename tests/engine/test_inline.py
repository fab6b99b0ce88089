"""A direct call runs here and now, and is durable all the same."""

import asyncio
import logging

import pytest

from durable_workflows import (
    run_step_async,
    sleep,
    sleep_async,
    start_workflow,
    start_workflow_async,
    step,
    wait_first_async,
    workflow,
)
from durable_workflows.engine.inline import inline_host
from durable_workflows.engine.process import process
from durable_workflows.errors import (
    AwaitedWorkflowCancelledError,
    ConflictingWorkflow,
    LeaseLost,
    NothingRuns,
    ResultTimeout,
    Unstorable,
)
from durable_workflows.models import Worker, Workflow
from durable_workflows.testing import manual_clock, run_until_idle
from tests.engine.workflows import Declined, doubled, doubled_async, failing, other, slow


@pytest.fixture
def call(on_loop):
    """Call a workflow of either colour and return its result."""

    def call(function, *args):
        called = function(*args)
        return on_loop(called) if asyncio.iscoroutine(called) else called

    return call


@pytest.fixture(params=["sync", "async"])
def noting(request, calls):
    """A workflow of either colour with one step."""

    @step
    def note(what):
        calls.append(what)
        return what

    @workflow
    def around(what="noted"):
        return note(what)

    @workflow
    async def around_async(what="noted"):
        return await run_step_async(note, what)

    return around if request.param == "sync" else around_async


@pytest.mark.django_db
def test_a_direct_call_returns_the_value_and_leaves_a_finished_row(call, noting, rows):
    assert call(noting.using(workflow_id="w")) == "noted"

    row = Workflow.objects.get()
    assert (row.workflow_id, row.status, row.attempt, row.worker_id) == ("w", "SUCCESS", 1, None)
    assert row.steps.count() == 1
    assert Worker.objects.get().kind == "inline"


@pytest.mark.django_db
def test_the_same_id_again_adopts_the_first_result(call, noting, calls, caplog):
    assert call(noting.using(workflow_id="w"), "first") == "first"
    with caplog.at_level(logging.WARNING, "durable_workflows"):
        assert call(noting.using(workflow_id="w"), "second") == "first"

    assert calls == ["first"]
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


@pytest.mark.django_db
def test_the_same_id_of_a_workflow_that_failed_raises_its_error_again(call):
    for _ in range(2):
        with pytest.raises(Declined, match="card"):
            call(failing.using(workflow_id="w"))


@pytest.mark.django_db
@pytest.mark.parametrize("function", [doubled, doubled_async])
def test_an_id_of_another_function_is_refused(call, function):
    call(other.using(workflow_id="w"), 1)
    with pytest.raises(ConflictingWorkflow):
        call(function.using(workflow_id="w"), 1)


@pytest.mark.django_db
def test_the_error_raised_is_the_original(call, rows):
    original = Declined("card")

    @workflow
    def around():
        raise original

    @workflow
    async def around_async():
        raise original

    for function in (around, around_async):
        with pytest.raises(Declined) as caught:
            call(function)
        assert caught.value is original
    assert set(Workflow.objects.values_list("status", flat=True)) == {"ERROR"}


@pytest.mark.django_db
@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("broken", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_leaves_the_row_to_a_worker(call, calls, rows, colour, broken):
    @step
    def note():
        calls.append("noted")

    def break_off():
        if len(calls) == 1 and not calls.count("broken"):
            calls.append("broken")
            raise broken

    @workflow
    def around():
        note()
        break_off()
        return "done"

    @workflow
    async def around_async():
        await run_step_async(note)
        break_off()
        return "done"

    with pytest.raises(broken):
        call(around if colour == "sync" else around_async)
    row = Workflow.objects.get()
    assert row.status == "PENDING"
    assert row.worker_id is None  # handed over: the process may live on, as a shell does

    run_until_idle()
    assert Workflow.objects.get().status == "SUCCESS"
    assert calls == ["noted", "broken"]


@pytest.mark.django_db
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_sleep_passes_in_place_and_its_end_is_kept(call, rows, colour):
    seen = []

    @workflow
    def around():
        sleep(3600)
        return "slept"

    @workflow
    async def around_async():
        await sleep_async(3600)
        return "slept"

    with manual_clock() as clock:
        began = clock.monotonic()
        clock.sleep = lambda seconds: (
            (
                seen.append(Workflow.objects.get().waits) if seconds > 60 else None,
                clock.advance(seconds),
            )
            if colour == "sync"
            else clock.advance(seconds)
        )
        assert call(around if colour == "sync" else around_async) == "slept"
        assert clock.monotonic() - began >= 3600

    if colour == "sync":
        assert '"kind":"sleep"' in seen[0]
    assert Workflow.objects.get().attempt == 1


@pytest.mark.django_db
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_called_child_runs_here_too(call, rows, colour):
    @workflow
    def parent():
        return doubled(4) + doubled(5)

    @workflow
    async def parent_async():
        return sum(await asyncio.gather(doubled_async(4), doubled_async(5)))

    function = parent if colour == "sync" else parent_async
    assert call(function.using(workflow_id="p")) == 18
    assert set(Workflow.objects.values_list("status", flat=True)) == {"SUCCESS"}
    assert Workflow.objects.count() == 3


@pytest.mark.django_db
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_called_childs_error_reaches_the_parent(call, colour):
    @workflow
    async def failing_async():
        raise Declined("card")

    @workflow
    def parent():
        try:
            return failing()
        except Declined as error:
            return error.args

    @workflow
    async def parent_async():
        try:
            return await failing_async()
        except Declined as error:
            return error.args

    assert call(parent if colour == "sync" else parent_async) == ("card",)


@pytest.mark.django_db
def test_a_child_that_ran_before_is_adopted(call, calls, noting):
    """Its row is there and has ended: a parent that is called again under its id runs nothing."""
    call(noting.using(workflow_id="child"), "first")

    if asyncio.iscoroutinefunction(noting):

        @workflow
        async def parent():
            return await noting.using(workflow_id="child")("second")
    else:

        @workflow
        def parent():
            return noting.using(workflow_id="child")("second")

    assert call(parent) == "first"
    assert calls == ["first"]


@pytest.mark.django_db
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_result_that_cannot_be_kept_is_an_error_here(call, rows, colour):
    @workflow
    def around():
        return object()

    @workflow
    async def around_async():
        return object()

    with pytest.raises(Unstorable, match="result"):
        call(around if colour == "sync" else around_async)
    assert Workflow.objects.get().status == "ERROR"


@pytest.mark.django_db
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_workflow_cancelled_meanwhile_raises_that(call, calls, colour):
    @step
    def cancelling():
        Workflow.objects.get().cancel()

    @workflow
    def around():
        try:
            cancelling()
        except Exception:
            calls.append("caught as an error")
        calls.append("went on")

    @workflow
    async def around_async():
        try:
            await run_step_async(cancelling)
        except Exception:
            calls.append("caught as an error")
        calls.append("went on")

    with pytest.raises(AwaitedWorkflowCancelledError):
        call(around if colour == "sync" else around_async)
    assert calls == []


@pytest.mark.django_db
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_an_outcome_that_came_too_late_is_the_recorded_one(call, colour):
    def finish_elsewhere():
        Workflow.objects.update(
            status="SUCCESS", output='{"v":1,"value":"theirs"}', attempt=7, worker=None
        )

    @workflow
    def around():
        finish_elsewhere()
        return "mine"

    @workflow
    async def around_async():
        from asgiref.sync import sync_to_async

        await sync_to_async(finish_elsewhere)()
        return "mine"

    assert call(around if colour == "sync" else around_async) == "theirs"


@pytest.mark.django_db
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_waiting_in_a_test_for_a_child_that_nobody_runs_says_so(call, colour):
    @workflow
    def around():
        return start_workflow(doubled, 4).get_result()

    @workflow
    async def around_async():
        return await (await start_workflow_async(doubled, 4)).get_result()

    with pytest.raises(NothingRuns):
        call(around if colour == "sync" else around_async)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_an_inline_wait_gives_up_after_its_time(call, colour):
    @workflow
    def around():
        return start_workflow(doubled, 4).get_result(timeout=0.02)

    @workflow
    async def around_async():
        return await (await start_workflow_async(doubled, 4)).get_result(timeout=0.02)

    with pytest.raises(ResultTimeout):
        call(around if colour == "sync" else around_async)


# -- the process as a worker ----------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_inline_runs_of_a_process_share_a_worker_row_that_is_beaten(call, noting):
    inline_host(process())._worker = None
    call(noting)
    call(noting)

    assert Worker.objects.filter(kind="inline").count() == 1
    assert Worker.objects.get(kind="inline").state == "live"


@pytest.mark.django_db(transaction=True)
def test_a_process_that_was_declared_dead_enlists_anew(call, noting):
    inline_host(process())._worker = None
    call(noting)
    Worker.objects.update(state="dead")
    call(noting)

    assert sorted(Worker.objects.values_list("state", flat=True)) == ["dead", "live"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_run_that_loses_its_lease_records_nothing_more(call, calls, settings, colour):
    settings.DURABLE_WORKFLOWS = {"LEASE_SECONDS": 0.06}
    host = inline_host(process())
    host._worker = None

    def lose():
        import time

        Worker.objects.update(state="dead")
        deadline = time.monotonic() + 20
        while not any(run.leaving for run in host._runs):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        # What the rescuer and another worker do.
        Workflow.objects.update(
            status="SUCCESS", output='{"v":1,"value":"theirs"}', attempt=2, worker=None
        )

    @step
    def note():
        calls.append("noted")

    @workflow
    def around():
        lose()
        try:
            note()
        except Exception:
            calls.append("caught as an error")
        except LeaseLost:
            calls.append("told")
            raise
        return "mine"

    @workflow
    async def around_async():
        from asgiref.sync import sync_to_async

        await sync_to_async(lose)()
        try:
            await run_step_async(note)
        except Exception:
            calls.append("caught as an error")
        except LeaseLost:
            calls.append("told")
            raise
        return "mine"

    assert call(around if colour == "sync" else around_async) == "theirs"
    assert calls == ["told"]


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_was_faster_with_a_child_is_waited_for(worker, call):
    @workflow
    def parent():
        return start_workflow(slow, 0.15, "child").get_result()

    assert call(parent) == "child"


@pytest.mark.django_db(transaction=True)
def test_an_async_inline_run_waits_for_a_child_that_a_worker_runs(worker, call):
    @workflow
    async def parent():
        handle = await start_workflow_async(slow, 0.15, "child")
        first = await wait_first_async([handle])
        await sleep_async(0.03)
        return await first.get_result()

    assert call(parent) == "child"
