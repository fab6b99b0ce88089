"""Queues, statuses, and what the audit says about rows."""

import pytest

from durable_workflows.core.records import QueueView
from tests.store.conftest import outcome, suspend, until


def test_queues_are_those_with_a_row_and_those_with_work(store, world, worker):
    store.declare_queues([QueueView("declared", concurrency=2, hold=True)])
    world.create("a", queue="undeclared")
    world.create("b", queue="declared")
    world.create("c")
    world.create("d", queue="only delayed", delay=60)
    world.write(outcome(world.run(worker, "e", queue="only ended")))

    assert store.queues() == {
        "declared": QueueView("declared", concurrency=2, hold=True),
        "undeclared": QueueView("undeclared"),
        "": QueueView(""),
    }


def test_without_rows_and_work_there_are_no_queues(store):
    assert store.queues() == {}


def test_declaring_writes_limits_and_keeps_the_pause(store, people):
    store.declare_queues([QueueView("orders", concurrency=2, hold=True), QueueView("letters")])
    people.pause("orders")

    store.declare_queues([QueueView("orders", worker_concurrency=5)])

    assert store.queues() == {
        "orders": QueueView("orders", worker_concurrency=5, paused=True),
        "letters": QueueView("letters"),
    }


def test_declaring_nothing_is_nothing(store):
    store.declare_queues([])

    assert store.queues() == {}


def test_the_status_of_an_unknown_workflow_is_none(store):
    assert store.status("no such") is None


def test_the_status_of_a_finished_workflow_has_its_times(world, worker, clock):
    run = world.run(worker, queue="orders", timeout=60)
    began = clock.now
    clock.advance(1.5)
    world.write(outcome(run))

    status = world.status()

    assert (status.created_at, status.dequeued_at, status.completed_at) == (began, began, clock.now)
    assert (status.deadline - began).total_seconds() == 60
    assert (status.output, status.error, status.executor_id) == ("1", None, "me")
    assert status.created_at.utcoffset().total_seconds() == 0


def test_the_store_tells_the_time(store, clock):
    first = store.now()

    assert isinstance(first, float)
    assert store.now() >= first


@pytest.mark.parametrize(
    "state, busy",
    [("ready", True), ("owned", True), ("waiting", False), ("delayed", False), ("ended", False)],
)
def test_busy_means_ready_or_owned(store, world, worker, clock, state, busy):
    match state:
        case "ready":
            world.create()
        case "owned":
            world.run(worker)
        case "waiting":
            world.write(suspend(world.run(worker), until(clock.epoch + 60), 60))
        case "delayed":
            world.create(delay=60)
        case _:
            world.write(outcome(world.run(worker)))

    assert store.busy() is busy


def test_the_audit_finds_nothing_in_healthy_rows(store, world, worker, people, clock):
    world.create("ready")
    world.create("delayed", delay=60)
    world.create("cancelled")
    people.cancel("cancelled")
    world.run(worker, "owned")
    world.write(suspend(world.run(worker, "waiting"), until(clock.epoch + 60), 60))
    world.write(outcome(world.run(worker, "ended")))

    assert store.audit(now=clock.now) == []


@pytest.mark.parametrize(
    "changes, wrong",
    [
        ({"status": "SUCCESS"}, "owned, but SUCCESS"),
        ({"status": "ENQUEUED"}, "owned, but ENQUEUED"),
        ({"status": "DELAYED", "worker": None}, "DELAYED, neither owned nor ready"),
    ],
)
def test_the_audit_finds_a_row_that_nothing_will_move(store, world, worker, people, changes, wrong):
    world.run(worker, "healthy")
    world.run(worker, "broken")
    people.spoil("broken", **changes)

    ((workflow_id, found),) = store.audit()

    assert workflow_id == "broken"
    assert found.startswith(wrong)


def test_the_audit_finds_what_a_dead_worker_owns(store, world, worker):
    world.run(worker)
    world.strand(worker)

    assert store.audit() == [("a", f"owned by worker {worker}, which is not live")]


def test_the_audit_finds_what_nobody_known_owns(store, world, worker, people):
    world.run(worker)
    if hasattr(store, "tables"):
        people.spoil("a", worker=4711)
    else:
        people.spoil("a", worker_id=4711)

    assert store.audit() == [("a", "owned by worker 4711, which is not live")]


def test_ready_workflows_of_strange_names_are_counted(store, world, worker):
    for number, (name, queue) in enumerate(
        [("f", ""), ("g", ""), ("g", "orders"), ("g", "letters"), ("h", "letters")]
    ):
        world.create(str(number), name=name, queue=queue)
    world.create("later", name="k", delay=60)
    world.write(outcome(world.run(worker, "ended", name="k")))

    assert store.strangers(["f"], None) == {"g": 3, "h": 1}
    assert store.strangers(["f"], ["orders"]) == {"g": 2}
    assert store.strangers(["f", "g", "h"], None) == {}
