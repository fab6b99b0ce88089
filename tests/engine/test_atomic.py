"""An atomic step: what its body wrote and its checkpoint are one commit, or neither is there."""

import os
import socket
import threading

import pytest
from django.db import (
    DatabaseError,
    IntegrityError,
    OperationalError,
    connection,
    connections,
    transaction,
)

from durable_workflows import run_step_async, start_workflow, step, workflow
from durable_workflows.core.records import WorkerFacts
from durable_workflows.engine.process import process
from durable_workflows.errors import InsideTransaction, MaxStepRetriesExceeded, WrongPlace
from durable_workflows.models import Queue as QueueRow
from durable_workflows.models import Step, Workflow
from durable_workflows.testing import run_until_idle
from tests.models import Effect


def effects() -> list[str]:
    return sorted(Effect.objects.values_list("step", flat=True))


def workflows_of(body, **options):
    """Return a sync and an async workflow around one atomic step with this body."""
    atomic = step(atomic=True, name="writing", **options)(body)

    @workflow
    def around():
        return atomic()

    @workflow
    async def around_async():
        return await run_step_async(atomic)

    return {"sync": around, "async": around_async}


@pytest.fixture(params=["sync", "async"])
def run(request, rows):
    """Run a body as an atomic step of a sync or an async workflow; return its handle."""

    def run(body, **options):
        handle = start_workflow(workflows_of(body, **options)[request.param])
        run_until_idle()
        return handle

    return run


@pytest.fixture
def run_sync(rows):
    def run(body):
        handle = start_workflow(workflows_of(body)["sync"])
        run_until_idle()
        return handle

    return run


# -- one commit ------------------------------------------------------------------------


@pytest.mark.django_db
def test_effect_and_checkpoint_are_there_together(run, rows):
    handle = run(lambda: Effect.objects.create(run="r", step="a").step)

    assert handle.get_result() == "a"
    assert effects() == ["a"]
    assert rows.steps(handle) == [(1, "step", "writing")]


@pytest.mark.django_db
def test_a_recorded_atomic_step_does_not_happen_again(run, rows):
    handle = run(lambda: Effect.objects.create(run="r", step="a").step)
    rows.forget_end(handle)
    run_until_idle()

    assert handle.get_result() == "a"
    assert effects() == ["a"]


@pytest.mark.django_db
def test_the_checkpoint_is_written_inside_the_bodys_transaction(run, rows):
    seen = []

    def body():
        Effect.objects.create(run="r", step="a")
        seen.append((connection.in_atomic_block, Step.objects.count()))
        transaction.on_commit(lambda: seen.append("committed"))

    run(body)

    assert seen[0] == (True, 0)


@pytest.mark.django_db
def test_an_error_takes_the_effect_back_and_is_recorded(run, rows):
    def body():
        Effect.objects.create(run="r", step="a")
        raise ValueError("after the write")

    handle = run(body)

    with pytest.raises(ValueError, match="after the write"):
        handle.get_result()
    assert effects() == []
    assert rows.steps(handle) == [(1, "step", "writing")]


@pytest.mark.django_db
def test_each_try_has_a_transaction_of_its_own(run, calls):
    def body():
        calls.append("tried")
        Effect.objects.create(run="r", step=f"try {len(calls)}")
        if len(calls) < 3:
            raise ValueError("not yet")

    run(body, max_attempts=5, interval_seconds=0)

    assert effects() == ["try 3"]


@pytest.mark.django_db
def test_used_up_tries_leave_no_effect(run, calls):
    def body():
        Effect.objects.create(run="r", step="a")
        raise ValueError("never")

    handle = run(body, max_attempts=3, interval_seconds=60)

    with pytest.raises(MaxStepRetriesExceeded):
        handle.get_result()
    assert effects() == []


@pytest.mark.django_db
def test_a_result_that_cannot_be_kept_takes_the_effect_back(run):
    def body():
        Effect.objects.create(run="r", step="a")
        return object()

    handle = run(body)

    with pytest.raises(TypeError, match="result can't be stored"):
        handle.get_result()
    assert effects() == []


@pytest.mark.django_db
def test_what_json_lacks_is_the_same_in_the_first_run_and_in_replay(run, rows):
    handle = run(lambda: ({1, 2}, b"x"))
    assert handle.get_result() == ({1, 2}, b"x")
    rows.forget_end(handle)
    run_until_idle()
    assert handle.get_result() == ({1, 2}, b"x")


@pytest.mark.django_db
def test_outside_a_workflow_an_atomic_step_is_the_plain_function():
    seen = step(atomic=True)(lambda: connection.in_atomic_block and len(connection.savepoint_ids))
    assert seen() == 0


# -- misuse -----------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_caught_database_error_that_broke_the_transaction_is_told(run, rows):
    QueueRow.objects.create(name="there")

    def body():
        Effect.objects.create(run="r", step="a")
        try:
            QueueRow.objects.create(name="there")
        except IntegrityError:
            pass
        return "went on"

    handle = run(body)

    with pytest.raises(WrongPlace, match=r"transaction\.atomic\(\) of its own"):
        handle.get_result()
    assert effects() == []


@pytest.mark.django_db
def test_a_database_error_in_a_block_of_its_own_is_no_trouble(run):
    QueueRow.objects.create(name="there")

    def body():
        Effect.objects.create(run="r", step="a")
        try:
            with transaction.atomic():
                QueueRow.objects.create(name="there")
        except IntegrityError:
            return "went on"

    assert run(body).get_result() == "went on"
    assert effects() == ["a"]


def raw(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "misuse",
    [
        lambda: connection.close(),
        lambda: connection.connection.close(),
        lambda: connection.rollback(),
        lambda: connection.set_autocommit(True),
        lambda: transaction.set_rollback(True),
        lambda: raw("COMMIT"),
        lambda: raw("/* now */ end"),
        lambda: raw("ROLLBACK"),
        lambda: raw("BEGIN"),
    ],
    ids=["close", "raw close", "rollback", "autocommit", "set_rollback", "c", "e", "r", "b"],
)
def test_a_body_that_ends_its_own_transaction_leaves_neither_effect_nor_checkpoint(rows, misuse):
    def body():
        Effect.objects.create(run="r", step="a")
        misuse()
        return "went on"

    handle = start_workflow(workflows_of(body)["sync"])
    run_until_idle()

    with pytest.raises((WrongPlace, DatabaseError, transaction.TransactionManagementError)):
        handle.get_result()
    assert effects() == []
    assert rows.step(handle, 1).output is None


@pytest.fixture
def elsewhere(tmp_path):
    """Another database of the project, under an alias of its own."""
    connections.databases["elsewhere"] = {
        **connections.databases["default"],
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(tmp_path / "elsewhere.sqlite3"),
        "OPTIONS": {},
    }
    far = connections["elsewhere"]
    far.connect()  # a test's cursor() opens no database that Django was not told of
    with far.cursor() as cursor:
        cursor.execute("CREATE TABLE far (number INTEGER)")
        cursor.execute("INSERT INTO far VALUES (7)")
    yield far
    far.close()
    del connections["elsewhere"], connections.databases["elsewhere"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "statement", ["INSERT INTO far VALUES (8)", " update far SET number = 8", "DELETE FROM far"]
)
def test_a_write_through_another_alias_is_refused(elsewhere, run_sync, statement):
    def body():
        Effect.objects.create(run="r", step="a")
        with elsewhere.cursor() as cursor:
            cursor.execute(statement)

    with pytest.raises(WrongPlace, match="elsewhere"):
        run_sync(body).get_result()
    assert effects() == []
    with elsewhere.cursor() as cursor:
        assert cursor.execute("SELECT number FROM far").fetchall() == [(7,)]


@pytest.mark.django_db
def test_another_alias_may_be_read(elsewhere, run_sync):
    def body():
        with elsewhere.cursor() as cursor:
            return cursor.execute("SELECT number FROM far").fetchone()[0]

    assert run_sync(body).get_result() == 7


@pytest.mark.django_db
def test_an_atomic_step_in_an_open_block_is_refused():
    atomic = step(atomic=True)(lambda: None)

    @workflow
    def around():
        with transaction.atomic():
            atomic()

    handle = start_workflow(around)
    run_until_idle()

    with pytest.raises(InsideTransaction):
        handle.get_result()


# -- zombies ------------------------------------------------------------------------------


def take_over(workflow_id: str) -> None:
    """Let another worker claim the workflow, as after a lost lease."""
    store = process().store
    other = store.enlist(WorkerFacts("worker", "elsewhere", 1), 3600.0)
    Workflow.objects.filter(workflow_id=workflow_id).update(worker=None)
    assert store.claim_one(workflow_id, other, "elsewhere:1")


@pytest.mark.django_db
@pytest.mark.parametrize(
    "colour, when",
    [("sync", "before the step"), ("sync", "within the body"), ("async", "within the body")],
)
def test_a_zombies_atomic_step_changes_nothing(rows, colour, when):
    reached = []

    def body():
        Effect.objects.create(run="r", step="a")
        if when == "within the body":
            take_over("z")

    atomic = step(atomic=True)(body)

    @workflow
    def zombie():
        if when == "before the step":
            take_over("z")
        atomic()
        reached.append("beyond")

    @workflow
    async def zombie_async():
        await run_step_async(atomic)
        reached.append("beyond")

    handle = start_workflow((zombie if colour == "sync" else zombie_async).using(workflow_id="z"))
    run_until_idle()

    assert reached == []
    assert effects() == []
    assert rows.steps(handle) == []
    assert rows.of(handle).executor_id == "elsewhere:1" or when == "within the body"


@pytest.mark.django_db
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_cancelled_workflows_atomic_step_changes_nothing(rows, colour):
    reached = []

    def body():
        Effect.objects.create(run="r", step="a")

    functions = workflows_of(body)

    @step
    def cancelling():
        Workflow.objects.get(workflow_id="c").cancel()

    @workflow
    def around():
        try:
            cancelling()
        finally:
            functions["sync"].spec.function()
            reached.append("beyond")

    @workflow
    async def around_async():
        await run_step_async(cancelling)
        reached.append("beyond")

    start_workflow((around if colour == "sync" else around_async).using(workflow_id="c"))
    run_until_idle()

    assert reached == []
    assert effects() == []
    assert Workflow.objects.get().status == "CANCELLED"


@pytest.mark.django_db
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_result_that_another_attempt_recorded_first_is_adopted(rows, colour):
    """The row of position 1 is there when the body has run: its effect is taken back."""

    def body():
        Effect.objects.create(run="r", step="mine")
        row = Workflow.objects.get(workflow_id="w")
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {Step._meta.db_table} (workflow_id, position, name, kind, output,"
                " attempt, started_at, completed_at) SELECT id, 1, 'writing', 'step',"
                ' \'{"v":1,"value":"theirs"}\', 99, created_at, created_at'
                f" FROM {Workflow._meta.db_table} WHERE id = %s",
                [row.pk],
            )
        return "mine"

    handle = start_workflow(workflows_of(body)[colour].using(workflow_id="w"))
    run_until_idle()

    # Both were in one transaction here, so the other's row went with ours.
    assert effects() == []
    assert handle.get_result() == "theirs"


@pytest.mark.django_db
def test_what_the_database_undid_by_itself_costs_no_try(monkeypatch):
    calls = []

    @step(atomic=True)
    def deadlocked():
        calls.append(Effect.objects.create(run="r", step="s"))
        if len(calls) < 3:
            raise OperationalError("deadlock detected")
        return len(calls)

    @workflow
    def unlucky():
        return deadlocked()

    monkeypatch.setattr(
        "durable_workflows.store.sql.SQLStore.undid",
        lambda self, error: "deadlock" in str(error),
    )
    handle = start_workflow(unlucky)
    run_until_idle()

    assert handle.get_result() == 3
    assert Effect.objects.count() == 1


@pytest.mark.django_db
def test_what_the_database_undoes_again_and_again_ends_in_its_error(monkeypatch):
    calls = []

    @step(atomic=True)
    def deadlocked():
        calls.append(1)
        raise OperationalError("deadlock detected")

    @workflow
    def hopeless():
        return deadlocked()

    monkeypatch.setattr("durable_workflows.store.sql.SQLStore.undid", lambda self, error: True)
    handle = start_workflow(hopeless)
    run_until_idle()

    with pytest.raises(OperationalError, match="deadlock"):
        handle.get_result()
    assert len(calls) == 10


@pytest.mark.postgresql
def test_an_atomic_step_whose_connection_was_cut_runs_again(worker):
    calls = []

    @step(atomic=True)
    def cut_off():
        calls.append(1)
        Effect.objects.create(run="r", step="s")
        if len(calls) == 1:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return len(calls)

    @workflow
    def cut():
        return cut_off()

    assert start_workflow(cut).get_result(timeout=30) == 2
    assert Effect.objects.count() == 1


def cut(line: socket.socket) -> None:
    line.shutdown(socket.SHUT_RDWR)
    line.close()


@pytest.fixture
def slow_commit():
    """A COMMIT that takes its time, as with a slow disk or a synchronous standby."""
    table = Effect._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ begin perform pg_sleep(1); return null; end $$"
        )
        cursor.execute(
            f"CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON {table} "
            "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()"
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TRIGGER slow ON {table}")


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_commit_that_goes_on_after_its_connection_was_cut_takes_effect_once(slow_commit, calls):
    @step(atomic=True)
    def writing():
        calls.append(connection.connection)
        Effect.objects.create(step="once")
        if len(calls) == 1:
            line = socket.socket(fileno=os.dup(connection.connection.fileno()))
            threading.Timer(0.3, cut, [line]).start()
        return len(calls)

    @workflow
    def around():
        return writing()

    handle = start_workflow(around)
    run_until_idle()

    assert len(calls) == 2  # the second met the record of the first, and was undone
    assert effects() == ["once"]
    assert handle.get_result() == 1
