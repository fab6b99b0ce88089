"""What only PostgreSQL does: rows locked by others, presence, skipped looks."""

import contextlib
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from django.db import connection, transaction

from durable_workflows.core.records import NewWorkflow, QueueView, Verdict, WorkerFacts
from durable_workflows.engine.journal import GroupJournal
from durable_workflows.engine.process import process
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
    stranger.rollback()
    assert store.look([run.id]) == (1, 0)


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
        cursor.execute("PREPARE durable_1 AS SELECT 1")

    add(callers, *"abcdefg")

    assert Workflow.objects.count() == 7


# -- what others hold ---------------------------------------------------------------------------


LIMITED = QueueView("orders", concurrency=3)


@pytest.mark.parametrize("changed", [False, True])
def test_a_declaration_in_an_open_transaction_keeps_nobody_from_other_queues(
    store, world, worker, borrowed, changed
):
    store.declare_queues([LIMITED])
    world.create("a", queue="orders")
    world.create("b", queue="letters")
    declared = QueueView("orders", concurrency=4) if changed else LIMITED
    views = [LIMITED, QueueView("letters")]

    with transaction.atomic():
        borrowed.declare_queues([declared])
        claimed = {claim.workflow_id for claim in store.claim(worker, "me", ["f"], views, 10)}
        assert store.passed_over is changed

    assert claimed == ({"b"} if changed else {"a", "b"})
    store.claim(worker, "me", ["f"], views, 10)
    assert store.passed_over is False


def test_what_somebody_holds_is_not_released_and_holds_nothing_up(world, store, worker, stranger):
    locked, free = world.run(worker, "a"), world.run(worker, "b")
    lock(stranger)

    assert store.release(worker, [locked.id, free.id]) == 1
    assert store.owned(worker) == [locked.id]


def test_one_locked_parent_holds_up_no_pen(dedicated, worker, world, stranger):
    parent, other = world.run(worker, "a"), world.run(worker, "other")
    children = [world.run(worker, name) for name in ("b", "c")]
    children = [replace(child, parent=parent.id) for child in children]
    world.write(suspend(parent, for_child("b", "c"), 600.0))
    lock(stranger)
    here = process()
    journal = GroupJournal([dedicated()], here.aftermath)

    for child in children:
        assert journal.append(outcome(child)) is Verdict.RECORDED
    assert journal.append(step(other)) is Verdict.RECORDED
    assert here.look_again(dedicated()) is True  # still locked

    stranger.rollback()
    assert here.look_again(dedicated()) is False
    assert Workflow.objects.ready().get(workflow_id="a")
    journal.close()


# -- statements that were prepared --------------------------------------------------------------


@contextlib.contextmanager
def a_wider_column():
    """A migration changes a column that statements return, and changes it back."""
    table = Workflow._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} ALTER COLUMN name TYPE varchar(500)")
    yield
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} ALTER COLUMN name TYPE varchar(255)")


def test_a_migration_under_prepared_statements_is_lived_through(store, world, worker):
    world.run(worker, "a")
    world.create("b")
    openings = store.openings()

    with a_wider_column():
        assert world.claimed(worker) == ["b"]
        assert store.status("a").name == "f"
        assert store.openings() == openings


def test_so_it_is_inside_a_transaction(store, world, worker):
    store.declare_queues([LIMITED])
    world.create("a", queue="orders")
    assert [one.workflow_id for one in store.claim(worker, "me", ["f"], [LIMITED], 1)] == ["a"]
    world.create("b", queue="orders")

    with a_wider_column():
        assert [one.workflow_id for one in store.claim(worker, "me", ["f"], [LIMITED], 1)] == ["b"]


def test_so_it_is_on_the_callers_connection(callers):
    add(callers, *"abcdefg")
    assert callers.status("a").name == "f"
    with a_wider_column():
        assert [callers.status("a").name for _ in range(3)] == ["f"] * 3


def test_a_session_that_forgot_its_statements_prepares_them_again(store, world, worker):
    world.run(worker, "a")
    store.session.raw().execute("DEALLOCATE ALL")
    for name in "bcd":
        world.create(name)
        assert world.claimed(worker) == [name]


def test_a_role_to_assume_is_assumed_on_the_engines_connections_too(store, monkeypatch):
    with connection.cursor() as cursor:
        cursor.execute("DROP ROLE IF EXISTS durable_assumed")
        cursor.execute("CREATE ROLE durable_assumed")
    options = {**connection.settings_dict["OPTIONS"], "assume_role": "durable_assumed"}
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
    store.close()
    assert store.session.execute("SELECT current_user").rows == [("durable_assumed",)]
    store.close()
    monkeypatch.undo()
    with connection.cursor() as cursor:
        cursor.execute("DROP ROLE durable_assumed")


def test_who_has_just_found_the_way_back_buries_nobody_for_a_lease(store, world, people, clock):
    late = world.enlist(lease=30)
    clock.advance(31)
    raw = store.session.raw()
    raw.close()  # whatever lay between this worker and the server lay between others, too

    assert store.bury(now=clock.now) == []
    store.session._back_at -= 31
    assert store.bury(now=clock.now) == [late]
