"""Starting workflows: what is written, under which id, and in whose transaction."""

import logging

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from durable_workflows import (
    Queue,
    retrieve_workflow,
    retrieve_workflow_async,
    run_step_async,
    start_workflow,
    start_workflow_async,
    step,
    workflow,
)
from durable_workflows.errors import (
    ConflictingWorkflow,
    InvalidName,
    NonExistentWorkflow,
    PayloadTooLarge,
    Unstorable,
)
from durable_workflows.models import Queue as QueueRow
from durable_workflows.models import Workflow
from durable_workflows.testing import arun_until_idle, run_until_idle
from tests.engine.workflows import doubled, doubled_async, other

orders = Queue("orders")
narrow = Queue("narrow", concurrency=5, worker_concurrency=2)


def ids() -> list[str]:
    return sorted(Workflow.objects.values_list("workflow_id", flat=True))


# -- from outside ---------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("function", [doubled, doubled_async])
def test_a_started_workflow_is_pending_until_somebody_runs_it(function, rows):
    handle = start_workflow(function, 4)
    assert rows.status(handle) == "PENDING"
    assert rows.of(handle).worker_id is None

    assert run_until_idle() == 1
    assert handle.get_result() == 8


@pytest.mark.django_db
def test_an_enqueued_workflow_stands_in_its_queue(rows):
    handle = orders.enqueue(doubled, 4)
    assert rows.status(handle) == "ENQUEUED"
    assert rows.of(handle).queue == "orders"

    run_until_idle()
    assert handle.get_result() == 8
    assert rows.of(handle).dequeued_at is not None


@pytest.mark.django_db
def test_the_async_twins_do_the_same(on_loop):
    async def scene():
        handles = [
            await start_workflow_async(doubled, 1),
            await orders.enqueue_async(doubled_async, number=2),
            *await orders.enqueue_many_async(doubled, [(3,), (4,)]),
        ]
        await arun_until_idle()
        return [await handle.get_result() for handle in handles]

    assert on_loop(scene()) == [2, 4, 6, 8]


@pytest.mark.django_db
def test_without_an_id_ids_ascend():
    first, second = start_workflow(doubled, 1), start_workflow(doubled, 1)
    assert first.workflow_id < second.workflow_id
    assert len(first.workflow_id) == 36


@pytest.mark.django_db
@pytest.mark.parametrize("how", [start_workflow, orders.enqueue])
def test_options_of_one_start_are_in_its_row(how, rows):
    configured = doubled.using(
        workflow_id="order-7",
        priority=3,
        timeout=60,
        attributes={"shop": "north"},
        user="ada",
        app_version="v9",
    )
    handle = how(configured, 4)

    row = rows.of(handle)
    assert handle.workflow_id == "order-7"
    assert (row.priority, row.timeout, row.attributes) == (3, 60.0, {"shop": "north"})
    assert (row.authenticated_user, row.app_version) == ("ada", "v9")


@pytest.mark.django_db
def test_a_delayed_start_waits_its_time(rows):
    handle = orders.enqueue(doubled.using(delay=3600), 4)
    assert rows.status(handle) == "DELAYED"
    assert run_until_idle(skip_time=False) == 0

    run_until_idle()
    assert handle.get_result() == 8


@pytest.mark.django_db
def test_workflows_of_higher_priority_run_first(calls):
    @workflow
    def noting(what):
        calls.append(what)

    for priority in (5, -3, 0):
        orders.enqueue(noting.using(priority=priority), priority)
    run_until_idle()

    assert calls == [-3, 0, 5]


@pytest.mark.django_db
def test_a_queues_limits_are_in_its_row_before_anything_stands_in_it():
    narrow.enqueue(doubled, 1)

    row = QueueRow.objects.get(name="narrow")
    assert (row.concurrency, row.worker_concurrency, row.hold) == (5, 2, False)


@pytest.mark.parametrize(
    "arguments, error, reason",
    [
        (("",), InvalidName, "can't be empty"),
        (("two words",), InvalidName, "white space"),
        (("q", 0), ValueError, "concurrency"),
        (("q", 2.5), ValueError, "concurrency"),
    ],
)
def test_a_queue_that_cannot_be_is_refused(arguments, error, reason):
    with pytest.raises(error, match=reason):
        Queue(*arguments)


def test_a_queue_says_when_its_limits_contradict_each_other():
    with pytest.raises(ValueError, match="can never be reached"):
        Queue("q", concurrency=2, worker_concurrency=3)


def test_a_queue_knows_its_name():
    assert (orders.name, repr(orders)) == ("orders", "Queue('orders')")


# -- many at once -----------------------------------------------------------------------


@pytest.mark.django_db
def test_many_are_enqueued_in_one_statement(django_assert_num_queries):
    orders.enqueue(doubled, 0)  # the queue is known
    with CaptureQueriesContext(connection) as queries:
        with connection.execute_wrapper(counting := Counting()):
            handles = orders.enqueue_many(doubled, [(number,) for number in range(500)])

    assert len(queries) + counting.count <= 1
    assert [handle.workflow_id for handle in handles] == sorted(set(ids()) - {ids()[0]})
    run_until_idle()
    assert [handle.get_result() for handle in handles[::100]] == [0, 200, 400, 600, 800]


class Counting:
    count = 0

    def __call__(self, execute, sql, params, many, context):
        self.count += 1
        return execute(sql, params, many, context)


@pytest.mark.django_db
def test_none_at_all_are_enqueued_without_a_statement():
    assert orders.enqueue_many(doubled, []) == []
    assert not Workflow.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("arguments", ["ab", [1, 2], ["ab"], [{"number": 1}]])
def test_many_take_a_tuple_each(arguments):
    with pytest.raises(TypeError, match="a tuple of arguments for each start"):
        orders.enqueue_many(doubled, arguments)


@pytest.mark.django_db
@pytest.mark.parametrize("option", ["workflow_id", "deduplication_id"])
def test_one_id_cannot_serve_many(option):
    with pytest.raises(ValueError, match="can't serve all"):
        orders.enqueue_many(doubled.using(**{option: "a"}), [(1,), (2,)])


# -- the same id again ---------------------------------------------------------------------


@pytest.mark.django_db
def test_the_same_id_again_is_the_same_workflow_and_one_warning(caplog, rows):
    first = orders.enqueue(doubled.using(workflow_id="order-7"), 4)
    with caplog.at_level(logging.WARNING, "durable_workflows"):
        second = orders.enqueue(doubled.using(workflow_id="order-7"), 99)
    run_until_idle()

    assert ids() == ["order-7"]
    assert first.get_result() == second.get_result() == 8
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "order-7" in caplog.text


@pytest.mark.django_db
def test_the_same_id_after_the_end_does_not_run_again(calls, caplog):
    @workflow
    def noting():
        calls.append("ran")
        return "result"

    for _ in range(3):
        handle = start_workflow(noting.using(workflow_id="order-7"))
        run_until_idle()
        assert handle.get_result() == "result"
    assert calls == ["ran"]


@pytest.mark.django_db
def test_an_id_of_another_function_is_refused():
    start_workflow(doubled.using(workflow_id="order-7"), 4)
    with pytest.raises(ConflictingWorkflow, match="order-7") as caught:
        start_workflow(other.using(workflow_id="order-7"), 4)

    assert caught.value.recorded == doubled.spec.name
    assert caught.value.asked == other.spec.name


@pytest.mark.django_db
def test_an_id_under_a_name_the_function_had_before_is_its_own(caplog):
    @workflow(name="tests.renamed_now", aliases=["tests.renamed_before"])
    def renamed():
        return 1

    start_workflow(renamed.using(workflow_id="order-7"))
    Workflow.objects.update(name="tests.renamed_before")

    assert start_workflow(renamed.using(workflow_id="order-7")).workflow_id == "order-7"


# -- what can't be stored ----------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    "start",
    [
        lambda value: start_workflow(doubled, {"deep": [value]}),
        lambda value: orders.enqueue(doubled, {"deep": [value]}),
        lambda value: doubled({"deep": [value]}),
        lambda value: orders.enqueue_many(doubled, [(1,), ({"deep": [value]},)]),
    ],
)
@pytest.mark.parametrize("value", [lambda: None, object(), Workflow(), open], ids=type)
def test_an_argument_that_cannot_be_kept_is_refused_by_path_and_nothing_is_written(start, value):
    with pytest.raises(Unstorable) as caught:
        start(value)

    assert caught.value.path == 'args[0]["deep"][0]'
    assert not Workflow.objects.exists()


@pytest.mark.django_db
def test_arguments_over_the_cap_are_refused(settings):
    settings.DURABLE_WORKFLOWS = {"PAYLOAD_MAX_BYTES": 100}
    with pytest.raises(PayloadTooLarge, match="over the cap of 100"):
        start_workflow(doubled, "x" * 100)
    assert not Workflow.objects.exists()


# -- the caller's transaction -----------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    "start",
    [
        lambda: start_workflow(doubled, 1),
        lambda: orders.enqueue(doubled, 1),
        lambda: orders.enqueue_many(doubled, [(1,), (2,)]),
        lambda: Queue("only-here", concurrency=1).enqueue(doubled, 1),
    ],
)
def test_a_start_is_rolled_back_with_its_block(start):
    class Undone(Exception): ...

    with pytest.raises(Undone), transaction.atomic():
        start()
        assert Workflow.objects.exists()
        raise Undone

    assert not Workflow.objects.exists()
    assert run_until_idle() == 0


@pytest.mark.django_db(transaction=True)
def test_a_queue_first_used_in_a_block_that_was_rolled_back_is_declared_again():
    queue = Queue("declared-twice", concurrency=3)
    with transaction.atomic():
        queue.enqueue(doubled, 1)
        transaction.set_rollback(True)
    assert not QueueRow.objects.filter(name="declared-twice").exists()

    queue.enqueue(doubled, 1)
    assert QueueRow.objects.get(name="declared-twice").concurrency == 3


@pytest.mark.django_db
def test_a_start_commits_with_its_block():
    with transaction.atomic():
        handle = orders.enqueue(doubled, 1)
    run_until_idle()

    assert handle.get_result() == 2


# -- from a workflow ------------------------------------------------------------------------------


@pytest.mark.django_db
def test_children_are_named_after_parent_and_position(rows):
    @workflow
    def parent():
        first = start_workflow(doubled, 1)
        second = orders.enqueue(doubled, 2)
        many = orders.enqueue_many(doubled, [(3,), (4,)])
        chosen = orders.enqueue(doubled.using(workflow_id="chosen"), 5)
        return [one.workflow_id for one in (first, second, *many, chosen)]

    handle = start_workflow(parent.using(workflow_id="p", user="ada"))
    run_until_idle()

    assert handle.get_result() == ["p-1", "p-2", "p-3-1", "p-3-2", "chosen"]
    assert ids() == sorted(["p", *handle.get_result()])
    assert [kind for _, kind, _ in rows.steps(handle)] == ["start"] * 4
    children = Workflow.objects.exclude(workflow_id="p")
    assert {child.parent.workflow_id for child in children} == {"p"}
    assert {child.authenticated_user for child in children} == {"ada"}
    assert {child.status for child in children} == {"SUCCESS"}


@pytest.mark.django_db
def test_children_of_an_async_parent_are_named_alike(rows):
    @workflow
    async def parent():
        first = await start_workflow_async(doubled_async, 1)
        second = await orders.enqueue_async(doubled, 2)
        many = await orders.enqueue_many_async(doubled_async, [(3,), (4,)])
        none = await orders.enqueue_many_async(doubled, [])
        return [one.workflow_id for one in (first, second, *many, *none)]

    handle = start_workflow(parent.using(workflow_id="p"))
    run_until_idle()

    assert handle.get_result() == ["p-1", "p-2", "p-3-1", "p-3-2"]
    assert set(Workflow.objects.values_list("status", flat=True)) == {"SUCCESS"}


@pytest.mark.django_db
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_parent_that_runs_again_starts_nobody_twice(rows, calls, colour):
    @workflow
    def noting(what):
        calls.append(what)

    @workflow
    def parent():
        one = start_workflow(noting, "one")
        many = orders.enqueue_many(noting, [("two",), ("three",)])
        return [handle.workflow_id for handle in (one, *many)]

    @workflow
    async def parent_async():
        one = await start_workflow_async(noting, "one")
        many = await orders.enqueue_many_async(noting, [("two",), ("three",)])
        return [handle.workflow_id for handle in (one, *many)]

    function = parent if colour == "sync" else parent_async
    handle = start_workflow(function.using(workflow_id="p"))
    run_until_idle()
    for last in (2, 1, 0):
        rows.forget_end(handle, after=last)
        run_until_idle()
        assert handle.get_result() == ["p-1", "p-2-1", "p-2-2"]
    assert sorted(calls) == ["one", "three", "two"]


@pytest.mark.django_db
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_child_under_an_id_of_another_function_fails_alike_in_replay(rows, colour):
    @workflow
    def parent():
        try:
            start_workflow(other.using(workflow_id="taken"), 1)
        except ConflictingWorkflow as error:
            return error.recorded

    @workflow
    async def parent_async():
        try:
            await start_workflow_async(other.using(workflow_id="taken"), 1)
        except ConflictingWorkflow as error:
            return error.recorded

    start_workflow(doubled.using(workflow_id="taken"), 1)
    handle = start_workflow(parent if colour == "sync" else parent_async)
    run_until_idle()
    assert handle.get_result() == doubled.spec.name
    rows.forget_end(handle)
    run_until_idle()
    assert handle.get_result() == doubled.spec.name


@pytest.mark.django_db
def test_a_child_under_an_id_of_its_own_function_is_that_workflow(rows):
    @workflow
    def parent():
        return start_workflow(doubled.using(workflow_id="there"), 99).get_result()

    start_workflow(doubled.using(workflow_id="there"), 4)
    handle = start_workflow(parent)
    run_until_idle()

    assert handle.get_result() == 8


@pytest.mark.django_db
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_called_child_takes_two_positions(rows, colour):
    @workflow
    def parent():
        return doubled(4) + 1

    @workflow
    async def parent_async():
        return await doubled_async(4) + 1

    handle = start_workflow((parent if colour == "sync" else parent_async).using(workflow_id="p"))
    run_until_idle()

    assert handle.get_result() == 9
    name = "doubled" if colour == "sync" else "doubled_async"
    assert rows.steps(handle) == [(1, "start", name), (2, "result", name)]
    assert ids() == ["p", "p-1"]
    rows.forget_end(handle)
    run_until_idle()
    assert handle.get_result() == 9


# -- from steps --------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("atomic", [False, True])
def test_what_a_step_starts_is_numbered_so_that_its_next_try_starts_the_same(calls, atomic):
    @step(atomic=atomic, max_attempts=2, interval_seconds=0)
    def starting():
        calls.append("tried")
        started = [
            start_workflow(doubled, 1),
            orders.enqueue(doubled, 2),
            *orders.enqueue_many(doubled, [(3,), (4,)]),
        ]
        if len(calls) == 1:
            raise ValueError("after the starts")
        return [handle.workflow_id for handle in started]

    @workflow
    def parent():
        return starting()

    handle = start_workflow(parent.using(workflow_id="p"))
    run_until_idle()

    assert handle.get_result() == ["p-1-1", "p-1-2", "p-1-3", "p-1-4"]
    assert ids() == ["p", "p-1-1", "p-1-2", "p-1-3", "p-1-4"]
    assert {row.parent.workflow_id for row in Workflow.objects.exclude(workflow_id="p")} == {"p"}


@pytest.mark.django_db
def test_what_an_async_step_starts_is_numbered_too():
    @step
    async def starting():
        first = await start_workflow_async(doubled, 1)
        return [first.workflow_id, (await orders.enqueue_async(doubled, 2)).workflow_id]

    @workflow
    async def parent():
        return await starting()

    handle = start_workflow(parent.using(workflow_id="p"))
    run_until_idle()

    assert handle.get_result() == ["p-1-1", "p-1-2"]


@pytest.mark.django_db
def test_a_child_started_in_an_atomic_step_is_rolled_back_with_it():
    @step(atomic=True)
    def starting():
        start_workflow(doubled, 1)
        orders.enqueue_many(doubled, [(3,), (4,)])
        raise ValueError("after the starts")

    @workflow
    def parent():
        starting()

    handle = start_workflow(parent.using(workflow_id="p"))
    run_until_idle()

    with pytest.raises(ValueError, match="after the starts"):
        handle.get_result()
    assert ids() == ["p"]


@pytest.mark.django_db
def test_a_child_started_in_a_plain_step_that_failed_stays_started():
    @step
    def starting():
        start_workflow(doubled, 1)
        raise ValueError("after the start")

    @workflow
    def parent():
        starting()

    start_workflow(parent.using(workflow_id="p"))
    run_until_idle()

    assert ids() == ["p", "p-1-1"]
    assert retrieve_workflow("p-1-1").get_result() == 2


@pytest.mark.django_db
def test_an_async_workflow_starts_children_in_an_atomic_step():
    @step(atomic=True)
    def starting():
        return start_workflow(doubled, 1).workflow_id

    @workflow
    async def parent():
        return await run_step_async(starting)

    handle = start_workflow(parent.using(workflow_id="p"))
    run_until_idle()

    assert handle.get_result() == "p-1-1"


# -- by id ------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_workflow_is_found_by_its_id(on_loop):
    start_workflow(doubled.using(workflow_id="order-7"), 4)
    run_until_idle()

    assert retrieve_workflow("order-7").get_result() == 8

    async def scene():
        handle = await retrieve_workflow_async("order-7")
        return await handle.get_result()

    assert on_loop(scene()) == 8


@pytest.mark.django_db
def test_an_unknown_id_is_an_error_unless_nobody_looks(on_loop):
    with pytest.raises(NonExistentWorkflow, match="order-7"):
        retrieve_workflow("order-7")
    with pytest.raises(NonExistentWorkflow, match="order-7"):
        on_loop(retrieve_workflow_async("order-7"))

    assert retrieve_workflow("order-7", existing_workflow=False).workflow_id == "order-7"
    assert (
        on_loop(retrieve_workflow_async("order-7", existing_workflow=False)).workflow_id
        == "order-7"
    )


@pytest.mark.django_db
def test_an_id_that_cannot_be_is_refused(on_loop):
    with pytest.raises(InvalidName):
        retrieve_workflow("two words")
    with pytest.raises(InvalidName):
        on_loop(retrieve_workflow_async(""))
