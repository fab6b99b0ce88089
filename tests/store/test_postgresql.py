"""What only PostgreSQL does: rows locked by others, presence, skipped looks."""

import contextlib
import threading
import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from django.db import connection, transaction

from durable_workflows.core.records import NewWorkflow, Verdict, WorkerFacts
from durable_workflows.models import Worker, Workflow
from durable_workflows.store import get_store
from tests.store.conftest import StepFailed, World, for_child, outcome, step, suspend

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def store(dedicated):
    return dedicated()


@pytest.fixture
def stranger():
    """Somebody else's connection, with a transaction open."""
    params = connection.get_connection_params()
    known = ("dbname", "host", "port", "user", "password")
    with psycopg.connect(**{name: params[name] for name in known if name in params}) as other:
        yield other
        other.rollback()


def lock(stranger, workflow_id: str = "a") -> None:
    table = Workflow._meta.db_table
    stranger.execute(f"SELECT 1 FROM {table} WHERE workflow_id = %s FOR UPDATE", [workflow_id])


def until_somebody_waits_for_a_lock(pid: int) -> None:
    """Return once this backend waits for a lock of somebody else."""
    give_up = time.monotonic() + 20
    with connection.cursor() as cursor:
        while time.monotonic() < give_up:
            cursor.execute("SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", [pid])
            if cursor.fetchone() == ("Lock",):
                return
    pytest.fail(f"backend {pid} never waited for a lock")


def while_it_waits(store, act, release):
    """Run `act` in a thread, `release` what it waits for, and return its answer."""
    answers = []
    pid = store.session.raw().info.backend_pid
    thread = threading.Thread(target=lambda: answers.append(act()))
    thread.start()
    until_somebody_waits_for_a_lock(pid)
    release()
    thread.join(20)
    return answers[0]


@pytest.mark.parametrize("entry", [outcome, suspend])
def test_a_locked_row_does_not_hold_up_the_batch(world, worker, stranger, entry):
    locked, free = world.run(worker, "a"), world.run(worker, "b")
    lock(stranger)

    answers = world.write(entry(locked), entry(free))

    assert answers == [Verdict.LOCKED, Verdict.RECORDED]


@pytest.mark.parametrize("entry", [outcome, suspend])
def test_a_patient_write_waits_for_a_locked_row(store, world, worker, stranger, entry):
    run = world.run(worker)
    lock(stranger)

    assert (
        while_it_waits(store, lambda: world.write(entry(run), patient=True), stranger.rollback)
        is None
    )


def test_a_look_tells_how_many_rows_it_skipped(store, world, worker, stranger):
    run, child = world.run(worker, "a"), world.run(worker, "child")
    world.write(suspend(run, for_child("child"), 5))
    world.write(outcome(child))
    lock(stranger)

    assert store.look([run.id]) == (0, 1)
    assert while_it_waits(store, lambda: store.look([run.id], patient=True), stranger.rollback) == (
        1,
        0,
    )


def test_a_claim_leaves_a_locked_row_to_later(world, worker, stranger):
    world.create("a")
    world.create("b")
    lock(stranger)

    assert world.claimed(worker) == ["b"]


def test_no_new_attempt_begins_while_an_atomic_step_of_an_old_one_is_open(
    borrowed, store, world, worker
):
    run = world.run(worker)

    with contextlib.suppress(StepFailed), borrowed.atomic_step(60.0):
        assert borrowed.guard_step(run.id, run.attempt, worker)
        assert store.release(worker, [run.id]) == 1  # the rescuer is not held up
        assert world.claim(worker) == []
        assert store.claim_one("a", worker, "me") is None
        assert borrowed.write([step(run)]) == [Verdict.LOST]
        raise StepFailed

    assert [claim.attempt for claim in world.claim(worker)] == [2]


def test_an_open_atomic_step_holds_up_neither_outcome_nor_cancel(borrowed, store, world, worker):
    one, two = world.run(worker, "a"), world.run(worker, "b")

    with borrowed.atomic_step(60.0):
        assert borrowed.guard_step(one.id, one.attempt, worker)
        assert borrowed.guard_step(two.id, two.attempt, worker)
        assert world.write(outcome(one)) is None
        assert store.cancel(["b"]) == 1


def test_the_second_creator_waits_for_the_first_ones_transaction(store, stranger):
    row = NewWorkflow("a", "f", "[]")
    workflow = Workflow(workflow_id="a", name="f", status="PENDING", input="[]")
    fields = {
        field.column: getattr(workflow, field.attname)
        for field in Workflow._meta.concrete_fields
        if not field.primary_key
    }
    fields |= {"created_at": "2026-01-01", "updated_at": "2026-01-01"}
    stranger.execute(
        f"INSERT INTO {Workflow._meta.db_table} ({', '.join(fields)}) "
        f"VALUES ({', '.join(['%s'] * len(fields))})",
        list(fields.values()),
    )

    (created,) = while_it_waits(store, lambda: store.create([row]), stranger.commit)

    assert not created.fresh


# -- presence -----------------------------------------------------------------


@pytest.fixture
def gone(dedicated, store) -> int:
    """A worker whose connection is no longer there."""
    its_own = dedicated()
    backend = its_own.presence()
    worker = store.enlist(WorkerFacts("worker", "host", 7, backend=backend), 3600.0)
    pid = its_own.session.raw().info.backend_pid
    its_own.close()
    while store.session.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]).rows:
        pass
    return worker


def test_a_worker_whose_connection_is_there_is_not_presumed_dead(dedicated, store):
    its_own = dedicated()
    store.enlist(WorkerFacts("worker", "host", 7, backend=its_own.presence()), 3600.0)

    store.bury()

    assert not Worker.objects.filter(missing_since__isnull=False).exists()


def looks(store, *seconds: float) -> list[list[int]]:
    """Return whom looks at these distances from now bury."""
    now = datetime.now(UTC)
    return [store.bury(now=now + timedelta(seconds=distance)) for distance in seconds]


def test_one_look_does_not_bury(gone, store):
    assert looks(store, 0, 0.5, 1) == [[], [], []]


def test_a_second_look_buries_long_before_the_lease(gone, store):
    assert looks(store, 0, 2) == [[], [gone]]


def test_a_beat_between_two_looks_starts_them_anew(gone, store):
    looks(store, 0)
    store.beat(gone)

    assert looks(store, 2, 3) == [[], []]


def test_another_server_start_says_nothing_about_workers(gone, store):
    worker = Worker.objects.get(pk=gone)
    pid, began, _ = worker.backend.split("|")
    Worker.objects.filter(pk=gone).update(backend=f"{pid}|{began}|1.5")
    store.bury()

    assert Worker.objects.get(pk=gone).missing_since is None


def test_the_callers_connection_tells_no_presence(borrowed):
    assert borrowed.presence() == ""


def test_nobody_is_late_before_the_server_has_been_up_for_a_lease(store):
    store.enlist(WorkerFacts("worker", "host", 7), 10 * 365 * 86400.0)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {Worker._meta.db_table} SET beat_at = '2000-01-01'")

    assert store.bury() == []  # no server of tests is that old


@pytest.fixture
def world(store, clock) -> World:
    return World(store, clock)


# -- the caller's connection --------------------------------------------------------------------


def prepared() -> list[str]:
    """Return what the session of this thread's Django connection has prepared of ours."""
    sql = "SELECT statement FROM pg_prepared_statements WHERE statement LIKE '%INSERT INTO%'"
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return [text for (text,) in cursor.fetchall()]


@pytest.fixture
def callers():
    connection.close()  # a session without a past
    store = get_store("default")
    yield store
    connection.close()


def add(store, *names: str) -> None:
    for name in names:
        store.add([NewWorkflow(name, "f", "[]")])


def test_lone_starts_are_prepared_from_the_fifth_use_of_a_connection(callers):
    add(callers, *"abcd")
    assert prepared() == []

    add(callers, *"efg")

    assert len(prepared()) == 1
    assert Workflow.objects.count() == 7
    assert connection.connection.prepare_threshold is None  # the project's own choice stays


def test_inside_a_transaction_nothing_is_prepared(callers):
    for name in "abcdefghi":
        with transaction.atomic():
            add(callers, name)

    assert prepared() == []


@pytest.mark.parametrize("discard", ["DISCARD ALL", "DEALLOCATE ALL"])
def test_a_start_whose_statement_was_discarded_is_sent_again(callers, discard):
    add(callers, *"abcdefg")
    with connection.cursor() as cursor:
        cursor.execute(discard)

    add(callers, *"hijklm")

    assert Workflow.objects.count() == 13


def test_a_name_that_somebody_else_prepared_stops_the_preparing(callers):
    with connection.cursor() as cursor:
        cursor.execute("PREPARE durable_0 AS SELECT 1")

    add(callers, *"abcdefg")

    assert Workflow.objects.count() == 7
