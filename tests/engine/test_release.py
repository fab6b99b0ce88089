"""Runs that are ended from outside: by a stopping worker, a lost claim, or a database that says no."""

import asyncio
import logging
import threading
from contextlib import contextmanager, suppress

import pytest
from django.db import DataError, OperationalError, connection

from durable_workflows import (
    Queue,
    destroy,
    launch,
    retrieve_workflow_async,
    run_step_async,
    sleep,
    sleep_async,
    start_workflow,
    start_workflow_async,
    step,
    wait_first_async,
    workflow,
)
from durable_workflows.core.records import OutcomeEntry
from durable_workflows.engine.process import process
from durable_workflows.errors import AwaitedWorkflowCancelledError, NonDeterminism, Suspended
from durable_workflows.models import Step, Workflow
from durable_workflows.testing import manual_clock, run_until_idle
from tests.engine.workflows import doubled_async
from tests.models import Effect

line = Queue("release")
PATIENCE = 20


# -- a worker that stops ---------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_stopping_worker_lets_the_step_finish_and_another_goes_on(worker, calls, rows, colour):
    began, go_on = threading.Event(), threading.Event()

    def stall():
        calls.append("stalled")
        began.set()
        assert go_on.wait(PATIENCE)
        return "stalled"

    stalling = step(name="stalling")(stall)

    @step
    def following():
        calls.append("followed")
        return "followed"

    @workflow
    def around():
        return stalling(), following()

    @workflow
    async def around_async():
        return await run_step_async(stalling), await run_step_async(following)

    handle = start_workflow(around if colour == "sync" else around_async)
    assert began.wait(PATIENCE)
    stopping = threading.Thread(target=destroy, kwargs={"grace": PATIENCE})
    stopping.start()
    while not any(run.stopping for run in list(held_runs())):
        threading.Event().wait(0.001)
    go_on.set()
    stopping.join(PATIENCE)

    row = rows.of(handle)
    assert (row.status, row.worker_id, row.recoveries) == ("PENDING", None, 0)
    assert calls == ["stalled"]
    launch(threads=2, async_slots=5)
    assert handle.get_result(timeout=PATIENCE) == ("stalled", "followed")
    assert calls == ["stalled", "followed"]


@pytest.fixture(autouse=True)
def crew(monkeypatch):
    """The crew of the embedded worker, also while destroy() has taken it away."""
    from durable_workflows.worker.crew import Crew

    made = []
    init = Crew.__init__

    def remember(self, *args, **kwargs):
        init(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(Crew, "__init__", remember)
    held_runs.crews = made


def held_runs():
    for crew in held_runs.crews:
        yield from crew.runs.values()


@pytest.mark.django_db(transaction=True)
def test_a_workflow_that_only_waits_is_suspended_by_a_stopping_worker(settings, rows):
    settings.DURABLE_WORKFLOWS = {"SUSPEND_AFTER_SECONDS": 3600}
    parked = threading.Event()

    @step
    async def note():
        parked.set()

    @workflow
    async def waiting():
        await asyncio.gather(note(), sleep_async(1800))

    launch(threads=1, async_slots=5)
    handle = start_workflow(waiting)
    assert parked.wait(PATIENCE)
    while not Step.objects.exists():
        threading.Event().wait(0.001)
    destroy(grace=PATIENCE)

    row = rows.of(handle)
    assert (row.status, row.worker_id) == ("PENDING", None)
    assert '"kind":"sleep"' in row.waits
    row.cancel()


# -- what a leaving run does -----------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "last_words",
    [
        lambda: start_workflow_async(doubled_async, 1),
        lambda: line.enqueue_many_async(doubled_async, [(1,), (2,)]),
        lambda: doubled_async(1),
        lambda: sleep_async(0.01),
        lambda: result_of("nobody"),
        lambda: status_of("nobody"),
        lambda: first_of("nobody"),
        lambda: run_step_async(Effect.objects.create, run="r", step="last words"),
    ],
    ids=["start", "many", "child", "sleep", "result", "status", "first", "step"],
)
def test_the_last_words_of_a_leaving_async_workflow_have_no_effect(worker, rows, last_words):
    left = []

    @workflow
    async def leaving():
        try:
            await sleep_async(3600)
        finally:
            try:
                await last_words()
            finally:
                left.append(True)

    handle = start_workflow(leaving)
    while not left or rows.of(handle).wake_at is None:
        threading.Event().wait(0.001)

    assert rows.steps(handle) == []
    assert Workflow.objects.count() == 1
    assert not Effect.objects.exists()
    rows.of(handle).cancel()


async def result_of(workflow_id):
    handle = await retrieve_workflow_async(workflow_id, existing_workflow=False)
    return await handle.get_result()


async def status_of(workflow_id):
    return await (await retrieve_workflow_async(workflow_id, existing_workflow=False)).get_status()


async def first_of(workflow_id):
    return await wait_first_async(
        [await retrieve_workflow_async(workflow_id, existing_workflow=False)]
    )


# -- claims that are gone ----------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_step_that_another_attempt_recorded_first_is_adopted(colour, calls):
    assert outcome_beside(colour, "plain") == "theirs"


@pytest.mark.django_db
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_another_call_that_another_attempt_recorded_first_is_changed_code(colour, calls):
    with pytest.raises(NonDeterminism, match="was step 'other'"):
        outcome_beside(colour, "other")


def outcome_beside(colour, recorded):
    """Return the result of a workflow whose first position somebody records within its step."""

    def body():
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {Step._meta.db_table} (workflow_id, position, name, kind, output,"
                " attempt, started_at, completed_at) SELECT id, 1, %s, 'step',"
                ' \'{"v":1,"value":"theirs"}\', 99, created_at, created_at'
                f" FROM {Workflow._meta.db_table} WHERE workflow_id = 'w'",
                [recorded],
            )
        return "mine"

    plain = step(name="plain")(body)

    @workflow
    def around():
        with suppress(NonDeterminism):
            return plain()

    @workflow
    async def around_async():
        with suppress(NonDeterminism):
            return await run_step_async(plain)

    handle = start_workflow((around if colour == "sync" else around_async).using(workflow_id="w"))
    run_until_idle()
    return handle.get_result()


@pytest.mark.django_db
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_long_inline_sleep_of_a_cancelled_workflow_does_not_begin(on_loop, colour):
    def cancel():
        Workflow.objects.get().cancel()

    @workflow
    def around():
        cancel()
        sleep(3600)

    @workflow
    async def around_async():
        from asgiref.sync import sync_to_async

        await sync_to_async(cancel)()
        await sleep_async(3600)

    with manual_clock() as clock:
        began = clock.monotonic()
        with pytest.raises(AwaitedWorkflowCancelledError):
            around() if colour == "sync" else on_loop(around_async())
        assert clock.monotonic() - began < 3600


# -- a database that says no --------------------------------------------------------------------


@pytest.fixture
def refusing(monkeypatch):
    """A database that refuses every successful outcome."""
    kind = type(process().store)
    write = kind.write

    def refuse(self, entries, **options):
        for entry in entries:
            if isinstance(entry, OutcomeEntry) and entry.status == "SUCCESS":
                raise DataError("no such value")
        return write(self, entries, **options)

    monkeypatch.setattr(kind, "write", refuse)


@pytest.mark.django_db
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_an_outcome_that_the_database_refuses_is_the_workflows_error(refusing, colour):
    assert_refused(colour, run_until_idle)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_worker_tells_an_outcome_that_the_database_refuses(worker, refusing, colour):
    assert_refused(colour, lambda: None)


def assert_refused(colour, work):
    @workflow
    def around():
        return "result"

    @workflow
    async def around_async():
        return "result"

    handle = start_workflow(around if colour == "sync" else around_async)
    work()
    with pytest.raises(DataError, match="no such value"):
        handle.get_result(timeout=PATIENCE)


@pytest.mark.django_db
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_an_atomic_step_whose_commit_was_not_answered_counts_as_committed(
    monkeypatch, calls, rows, colour
):
    kind = type(process().store)
    atomic_step = kind.atomic_step

    @contextmanager
    def silent(self, *args):
        with atomic_step(self, *args):
            yield
        raise OperationalError("the answer was lost")

    monkeypatch.setattr(kind, "atomic_step", silent)

    @step(atomic=True)
    def writing():
        calls.append("written")
        Effect.objects.create(run="r", step="a")
        return "written"

    @workflow
    def around():
        return writing()

    @workflow
    async def around_async():
        return await run_step_async(writing)

    handle = start_workflow(around if colour == "sync" else around_async)
    run_until_idle()

    assert handle.get_result() == "written"
    assert calls == ["written"]
    assert Effect.objects.count() == 1


@pytest.mark.django_db
def test_an_end_that_is_no_longer_current_is_logged(caplog):
    @workflow
    def around():
        Workflow.objects.update(attempt=7)
        return "too late"

    start_workflow(around)
    with caplog.at_level(logging.INFO, "durable_workflows"):
        run_until_idle(activations=3)

    assert "no longer current" in caplog.text


@pytest.mark.django_db
def test_a_workflow_that_raises_the_engines_own_words_has_failed():
    @workflow
    def impostor():
        raise Suspended

    @workflow
    async def impostor_async():
        raise Suspended

    handles = [start_workflow(impostor), start_workflow(impostor_async)]
    assert run_until_idle() == 2
    assert [handle.get_status().status for handle in handles] == ["ERROR", "ERROR"]

    with pytest.raises(Suspended):
        impostor()
    assert Workflow.objects.filter(status="ERROR").count() == 3
