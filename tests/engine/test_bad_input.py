"""Rows that nobody here can run: left alone if unknown, ended with the reason if corrupt."""

import pytest

from durable_workflows import Queue, start_workflow, step, workflow
from durable_workflows.errors import CorruptPayload
from durable_workflows.models import Workflow
from durable_workflows.testing import run_until_idle
from tests.engine.workflows import doubled, doubled_async

line = Queue("bad-input")
PATIENCE = 20

CORRUPT = [
    "",
    "not json",
    "[]",
    '{"v":1,"value":1}',
    '{"v":99,"args":[],"kwargs":{}}',
    '{"v":1,"args":{},"kwargs":{}}',
    '{"v":1,"args":[{"$":"pickle","v":"x"}],"kwargs":{}}',
    '{"v":1,"args":[{"$":"enum","v":["os","environ","PATH"]}],"kwargs":{}}',
    '{"v":1,"args":[' + "[" * 2000 + "]" * 2000 + '],"kwargs":{}}',
]


@pytest.mark.django_db
@pytest.mark.parametrize("function", [doubled, doubled_async])
@pytest.mark.parametrize("stored", CORRUPT, ids=lambda text: text[:40])
def test_corrupt_arguments_end_the_workflow_with_that_reason(rows, function, stored):
    handle = start_workflow(function, 4)
    Workflow.objects.update(input=stored)
    neighbour = start_workflow(function, 5)
    run_until_idle()

    assert rows.status(handle) == "ERROR"
    with pytest.raises(CorruptPayload):
        handle.get_result()
    assert rows.of(handle).worker_id is None
    assert neighbour.get_result() == 10


@pytest.mark.django_db
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_no_user_code_is_called_with_arguments_that_cannot_be_read(calls, colour):
    @workflow
    def around(value):
        calls.append(value)

    @workflow
    async def around_async(value):
        calls.append(value)

    start_workflow(around if colour == "sync" else around_async, 1)
    Workflow.objects.update(input=CORRUPT[6])
    run_until_idle()

    assert calls == []


@pytest.mark.django_db
def test_arguments_that_do_not_fit_the_function_fail_the_workflow(rows):
    handle = start_workflow(doubled)
    run_until_idle()

    with pytest.raises(TypeError, match="number"):
        handle.get_result()


@pytest.mark.django_db
def test_a_recorded_step_that_cannot_be_read_fails_the_workflow_and_runs_nothing(rows, calls):
    @step
    def note(what):
        calls.append(what)
        return what

    @workflow
    def around():
        note("a")
        note("b")

    handle = start_workflow(around)
    run_until_idle()
    rows.of(handle).steps.filter(position=1).update(output='{"v":1,"value":{"$":"pickle","v":""}}')
    rows.forget_end(handle, after=1)
    run_until_idle()

    with pytest.raises(CorruptPayload, match="pickle"):
        handle.get_result()
    assert calls == ["a", "b"]


@pytest.mark.django_db
def test_an_unknown_name_is_left_for_another_worker(rows):
    unknown = start_workflow(doubled, 4)
    Workflow.objects.update(name="shop.of_tomorrow")
    known = start_workflow(doubled, 4)
    run_until_idle()

    row = rows.of(unknown)
    assert (row.status, row.attempt, row.worker_id, row.error) == ("PENDING", 0, None, None)
    assert known.get_result() == 8


@pytest.mark.django_db
def test_workflows_that_never_come_to_rest_are_told():
    @workflow
    def again():
        line.enqueue(again)

    line.enqueue(again)
    with pytest.raises(RuntimeError, match="Still not idle"):
        run_until_idle(activations=20)


@pytest.mark.django_db(transaction=True)
def test_a_worker_goes_on_beside_unknown_and_corrupt_rows(rows, worker):
    from durable_workflows import destroy

    destroy()
    unknown, corrupt = line.enqueue(doubled, 1), line.enqueue(doubled_async, 2)
    Workflow.objects.filter(workflow_id=unknown.workflow_id).update(name="shop.of_tomorrow")
    Workflow.objects.filter(workflow_id=corrupt.workflow_id).update(input=CORRUPT[6])
    worker()
    known = line.enqueue_many(doubled, [(number,) for number in range(10)])

    assert [handle.get_result(timeout=PATIENCE) for handle in known] == list(range(0, 20, 2))
    with pytest.raises(CorruptPayload):
        corrupt.get_result(timeout=PATIENCE)
    assert rows.status(unknown) == "ENQUEUED"
    assert rows.of(unknown).attempt == 0
    Workflow.objects.all().cancel()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_value_that_the_database_refuses_is_the_workflows_error(worker, rows, colour):
    """A lone surrogate or a NUL is tagged, never sent as text."""

    @workflow
    def around():
        return "\0\ud800"

    @workflow
    async def around_async():
        return "\0\ud800"

    handle = start_workflow(around if colour == "sync" else around_async)
    assert handle.get_result(timeout=PATIENCE) == "\0\ud800"
