"""What only SQLite does: one writer, text for instants, connections over a file."""

import logging
import sqlite3
import threading
from contextlib import closing

import pytest
from django.db import OperationalError, connection, transaction

from durable_workflows.core.records import NewWorkflow, QueueView, WorkerFacts
from durable_workflows.models import Worker
from durable_workflows.store import sqlite_connection
from durable_workflows.store.session import Closed
from tests.store.conftest import LEASE, World, outcome, step

pytestmark = [pytest.mark.sqlite, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def store(dedicated):
    return dedicated()


@pytest.fixture
def world(store, clock) -> World:
    return World(store, clock)


@pytest.fixture
def stranger():
    """Somebody else's connection, which does not wait."""
    path = connection.settings_dict["NAME"]
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        yield other


@pytest.fixture
def options(monkeypatch):
    """Return what sets the database's options for connections opened from here on."""

    def change(**changes) -> None:
        for name, value in changes.items():
            monkeypatch.setitem(connection.settings_dict["OPTIONS"], name, value)
        connection.close()

    yield change
    monkeypatch.undo()
    connection.close()


@pytest.fixture
def impatient(options) -> None:
    options(timeout=0.01)


def test_an_owned_connection_is_set_up_as_djangos(store):
    raw = store.session.raw().raw

    assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)  # its init_command
    assert raw.execute("PRAGMA foreign_keys").fetchone() == (1,)
    assert raw.execute("SELECT DJANGO_DATE_TRUNC('year', '2026-05-05', NULL, NULL)").fetchone()


def test_an_owned_connection_may_change_threads(store, world):
    world.enlist()
    answers = []

    thread = threading.Thread(target=lambda: answers.append(world.enlist()))
    thread.start()
    thread.join()

    assert answers
    assert Worker.objects.count() == 2


def test_a_locked_database_is_tried_again_until_it_is_free(
    impatient, store, world, stranger, caplog
):
    run = world.run(world.enlist())
    stranger.execute("BEGIN IMMEDIATE")
    answers = []
    thread = threading.Thread(target=lambda: answers.append(world.write(step(run))))
    with caplog.at_level(logging.WARNING, "durable_workflows"):
        thread.start()
        while "try 5" not in caplog.text:
            thread.join(0.01)
    assert answers == []

    stranger.execute("ROLLBACK")
    thread.join(20)

    assert answers == [None]
    assert store.recorded(run.id, 1) is not None


def test_a_store_that_closes_does_not_try_for_ever(impatient, store, world, stranger):
    worker = world.enlist()
    stranger.execute("BEGIN IMMEDIATE")
    store.give_up()

    with pytest.raises(Closed):
        store.beat(worker)


def test_a_locked_database_is_told_to_the_caller(impatient, borrowed, stranger):
    stranger.execute("BEGIN IMMEDIATE")

    with pytest.raises(OperationalError, match="locked"):
        borrowed.create([NewWorkflow("a", "f", "[]")])


@pytest.mark.parametrize("mode", ["DEFERRED", "IMMEDIATE", None])
def test_a_unit_on_the_callers_connection_locks_before_it_reads(borrowed, stranger, mode, options):
    """A unit that read first would fail, at once and for good, when somebody wrote in between."""
    options(transaction_mode=mode)
    seen = []

    def work(execute):
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            stranger.execute("BEGIN IMMEDIATE")
        seen.append(execute(borrowed.sql["CLOCK"]).rows)

    borrowed.session.unit(work)

    assert seen


def test_an_atomic_step_keeps_the_write_lock_from_its_guard_on(borrowed, world, stranger, options):
    options(transaction_mode="DEFERRED")
    run = world.run(world.enlist())

    with borrowed.atomic_step(60.0):
        borrowed.guard_step(run.id, run.attempt, run.worker)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            stranger.execute("BEGIN IMMEDIATE")


def test_a_block_that_has_read_before_others_wrote_is_told_so(borrowed, stranger, options):
    """Why the system check asks for IMMEDIATE: no waiting helps this block."""
    options(transaction_mode="DEFERRED")
    borrowed.enlist(WorkerFacts("worker", "host", 7), LEASE)

    with transaction.atomic():
        assert Worker.objects.exists()
        stranger.execute(f"UPDATE {Worker._meta.db_table} SET pid = 8")
        with pytest.raises(OperationalError, match="locked"):
            borrowed.create([NewWorkflow("a", "f", "[]")])


def test_a_failed_batch_leaves_nothing_behind(store, world):
    run = world.run(world.enlist())
    broken = outcome(run, status=None)

    with pytest.raises(sqlite3.IntegrityError):
        world.write(step(run), broken)

    assert store.recorded(run.id, 1) is None
    assert world.write(step(run)) is None


def test_a_connection_that_broke_is_opened_anew(store, world):
    worker = world.enlist()
    store.session.raw().raw.close()

    assert store.beat(worker, now=world.clock.now).live


def test_an_idle_claim_takes_no_write_lock(store, world, stranger):
    worker = world.enlist()
    stranger.execute("BEGIN IMMEDIATE")

    assert store.claim(worker, "me", ["f"], [QueueView("orders")], 10) == []

    stranger.execute("ROLLBACK")


def test_writers_of_one_process_take_turns():
    turn, order = sqlite_connection.Turn(), []
    threads = []

    def write(n: int) -> None:
        with turn:
            order.append(n)

    with turn:
        for n in range(5):
            threads.append(threading.Thread(target=write, args=(n,)))
            threads[-1].start()
            while len(turn._waiting) <= n:
                pass
    for thread in threads:
        thread.join()
    write(5)

    assert order == [0, 1, 2, 3, 4, 5]


def test_whoever_could_not_write_buries_nobody_before_a_lease_has_passed(store, clock, monkeypatch):
    """A lease can't be renewed while nobody can write."""
    monotonic = [1000.0]
    monkeypatch.setattr("durable_workflows.store.sqlite.time.monotonic", lambda: monotonic[0])
    worker = store.enlist(WorkerFacts("worker", "host", 7), LEASE, now=clock.now)
    clock.advance(LEASE + 10)
    unit = store.session.unit

    def held_up(work):
        monotonic[0] += LEASE + 10  # another process held the write lock
        return unit(work)

    with monkeypatch.context() as locked:
        locked.setattr(store.session, "unit", held_up)
        assert store.bury(now=clock.now) == []
    monotonic[0] += LEASE - 1
    assert store.bury(now=clock.now) == []
    monotonic[0] += 2
    assert store.bury(now=clock.now) == [worker]
