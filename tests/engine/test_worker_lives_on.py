"""What user code or the machine does to a worker, and that it goes on for all others."""

import asyncio
import threading
import time

import pytest
from django.db import connection

from durable_workflows import (
    run_step_async,
    sleep,
    sleep_async,
    start_workflow,
    step,
    workflow,
)
from durable_workflows.engine.process import process
from durable_workflows.errors import WorkflowFailed, WrongPlace
from durable_workflows.models import Workflow
from durable_workflows.store.sql import SQLStore
from durable_workflows.worker import slots as slots_module
from tests.models import Effect

pytestmark = pytest.mark.django_db(transaction=True)


@step
def same(value):
    return value


@workflow
def fine():
    return same(1)


@workflow
async def fine_async():
    return await run_step_async(same, 1)


def crew():
    return process().embedded.crew


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt])
def test_async_code_that_wants_to_end_the_process_ends_only_itself(worker, end):
    @workflow
    async def exits():
        await run_step_async(same, 1)
        raise end(3)

    handle = start_workflow(exits)
    with pytest.raises(WorkflowFailed, match="3"):
        handle.get_result(timeout=20)
    assert start_workflow(fine_async).get_result(timeout=20) == 1
    assert handle.get_status().status == "ERROR"


def test_steps_at_the_bottom_of_the_stack_stop_nobody_else(worker):
    @workflow
    def deep():
        def down(n):
            same(n)
            down(n + 1)

        down(0)

    for _ in range(4):
        with pytest.raises(RecursionError):
            start_workflow(deep).get_result(timeout=60)
    assert start_workflow(fine).get_result(timeout=20) == 1


def test_a_free_slot_is_used_though_others_are_taken_for_long(worker):
    worker(threads=8, async_slots=1)
    gate = threading.Event()

    @workflow
    def long():
        gate.wait(60)

    lasting = [start_workflow(long) for _ in range(7)]
    short = [start_workflow(fine) for _ in range(20)]
    assert [handle.get_result(timeout=30) for handle in short] == [1] * 20
    gate.set()
    for handle in lasting:
        handle.get_result(timeout=20)


def test_what_was_claimed_ahead_is_given_back_if_nothing_ends(worker):
    worker(threads=1, async_slots=5)
    opened = threading.Event()

    @workflow
    async def long():
        while not opened.is_set():
            await asyncio.sleep(0.01)

    handles = [start_workflow(long) for _ in range(20)]
    give_up_at = time.monotonic() + 30
    while Workflow.objects.running().count() != 5 or len(crew().runs) != 5:
        assert time.monotonic() < give_up_at, "more is owned than runs"
    opened.set()
    for handle in handles:
        handle.get_result(timeout=20)


def test_a_claim_whose_history_takes_long_to_read_is_not_released(worker, monkeypatch, caplog):
    plain, reading = SQLStore._with_history, threading.Event()
    looks = []
    owned = SQLStore.owned

    def slow(self, claims):
        if any(claim.attempt > 1 for claim in claims):
            before = len(looks)
            while len(looks) < before + 4:  # the keeper looks, and looks again
                reading.wait(0.01)
        return plain(self, claims)

    def noting(self, worker):
        looks.append(worker)
        return owned(self, worker)

    @workflow
    def woken():
        sleep(0.1)
        return same(1)

    monkeypatch.setattr(SQLStore, "_with_history", slow)
    monkeypatch.setattr(SQLStore, "owned", noting)
    handle = start_workflow(woken)
    assert handle.get_result(timeout=30) == 1
    assert Workflow.objects.get().attempt == 2


def test_a_thread_whose_connections_cannot_be_looked_at_serves_on(worker, monkeypatch):
    worker(threads=1, async_slots=1)
    failures = [OSError("no more files")]

    def failing():
        if failures:
            raise failures.pop()

    monkeypatch.setattr(slots_module, "check_connections", failing)
    assert start_workflow(fine).get_result(timeout=30) == 1
    assert start_workflow(fine).get_result(timeout=30) == 1
    assert crew().threads.slots._unfinished == 0


def test_a_thread_that_cannot_be_started_is_no_slot_lost(worker, monkeypatch):
    worker(threads=2, async_slots=1)
    start_workflow(fine).get_result(timeout=20)
    plain, failures = threading.Thread.start, [RuntimeError("can't start new thread")]

    def failing(self):
        if failures and self.name.startswith("durable-slot"):
            raise failures.pop()
        plain(self)

    monkeypatch.setattr(threading.Thread, "start", failing)
    handles = [start_workflow(fine) for _ in range(6)]
    assert [handle.get_result(timeout=20) for handle in handles] == [1] * 6
    assert not failures or len(crew().threads.slots._threads) == 1


def test_a_step_that_raises_stop_iteration_fails_in_an_async_workflow_too(worker):
    @step
    def first():
        return next(iter([]))

    @workflow
    async def around():
        await run_step_async(first)

    with pytest.raises(RuntimeError, match="StopIteration"):
        start_workflow(around).get_result(timeout=20)


@pytest.mark.postgresql
def test_connections_of_async_code_that_were_cut_are_replaced(worker, calls, monkeypatch):
    @step
    def look():
        assert Workflow.objects.exists()
        calls.append(connection.connection.info.backend_pid)
        return True

    @workflow
    async def looking():
        return await run_step_async(look)

    monkeypatch.setattr(slots_module, "CHECK_EVERY", 0.0)
    for handle in [start_workflow(looking) for _ in range(16)]:
        handle.get_result(timeout=20)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM unnest(%s::int[]) pid", [[*{*calls}]]
        )
    handles = [start_workflow(looking) for _ in range(16)]
    assert [handle.get_result(timeout=30) for handle in handles] == [True] * 16


def test_loops_of_several_threads_do_not_get_in_each_others_way():
    """A context can't be entered by two at once; a callback would be lost."""

    @step
    async def nap():
        await asyncio.sleep(0)

    @workflow
    async def naps():
        for _ in range(150):
            await nap()
            await sleep_async(0.0005)
        return "rested"

    ended = []
    threads = [threading.Thread(target=lambda: ended.append(asyncio.run(naps()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert ended == ["rested"] * 3


def turn_autocommit_off() -> None:
    connection.set_autocommit(False)


def begin_by_hand() -> None:
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("how", [turn_autocommit_off, begin_by_hand])
@pytest.mark.parametrize("raises", [False, True])
def test_a_step_that_leaves_a_transaction_open_fails_and_holds_nothing(worker, how, colour, raises):
    @step
    def careless():
        how()
        Effect.objects.create(step="lost")
        if raises:
            raise ValueError("a bug")

    @workflow
    def around():
        careless()

    @workflow
    async def around_async():
        await run_step_async(careless)

    handle = start_workflow(around if colour == "sync" else around_async)
    with pytest.raises(ValueError if raises else WrongPlace, match=r"a bug|rolled back"):
        handle.get_result(timeout=20)
    assert not Effect.objects.exists()
    assert start_workflow(fine).get_result(timeout=20) == 1


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_failure_is_logged_with_the_run_it_belongs_to(worker, colour, caplog):
    @workflow(name="failing")
    def failing():
        same(1)
        raise ValueError("no such order")

    @workflow(name="failing-async")
    async def failing_async():
        await run_step_async(same, 1)
        raise ValueError("no such order")

    handle = start_workflow(failing if colour == "sync" else failing_async)
    with pytest.raises(ValueError, match="no such order"):
        handle.get_result(timeout=20)
    (record,) = [one for one in caplog.records if "failed with" in one.getMessage()]
    assert record.levelname == "WARNING"
    assert record.getMessage() == "failed with ValueError: no such order"
    assert (record.workflow_id, record.workflow_name, record.position) == (
        handle.workflow_id,
        "failing" if colour == "sync" else "failing-async",
        1,
    )
