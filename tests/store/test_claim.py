"""Claims: who gets what, and what comes with it."""

import pytest

from durable_workflows.core.records import QueueView, StepRecord
from tests.store.conftest import for_child, outcome, step, suspend, until


def declare(store, **limits) -> None:
    store.declare_queues([QueueView("orders", **limits)])


def fill(world, count: int, queue: str = "orders") -> list[str]:
    ids = [f"{queue}-{n:02}" for n in range(count)]
    for one in ids:
        world.create(one, queue=queue)
    return ids


def test_the_lowest_priority_goes_first_then_the_oldest(world, worker):
    world.create("third")
    world.create("fourth")
    world.create("first", priority=-1)
    world.create("second", priority=-1)

    taken = [one for _ in range(4) for one in world.claimed(worker, asked=1)]

    assert taken == ["first", "second", "third", "fourth"]


def test_no_more_are_claimed_than_asked_for(world, worker):
    fill(world, 3, "orders")
    fill(world, 3, "letters")

    assert len(world.claim(worker, asked=4)) == 4
    assert len(world.claim(worker, asked=4)) == 2


def test_a_claim_makes_the_row_its_own(store, world, worker, clock):
    world.create("a", queue="orders", timeout=10)
    clock.advance(5)

    (claim,) = store.claim(
        worker,
        "me",
        ["f"],
        [QueueView("orders")],
        1,
        app_version="v7",
        now=clock.now,
    )

    status = world.status()
    assert (claim.attempt, claim.worker, claim.queue, claim.input) == (1, worker, "orders", "[]")
    assert (status.status, status.attempt, status.executor_id) == ("PENDING", 1, "me")
    assert (status.app_version, status.dequeued_at, status.updated_at) == (
        "v7",
        clock.now,
        clock.now,
    )
    assert (status.deadline - clock.now).total_seconds() == 10
    assert store.owned(worker) == [claim.id]


def test_a_later_claim_leaves_first_facts_alone(world, worker, clock):
    run = world.run(worker, queue="orders", timeout=10)
    first = world.status()
    world.write(suspend(run))
    clock.advance(3)

    (again,) = world.claim(worker)

    assert again.attempt == 2
    assert world.status().dequeued_at == first.dequeued_at
    assert world.status().deadline == first.deadline


def test_unknown_names_are_left_for_others(world, worker):
    world.create("a", name="unheard")
    world.create("b")

    assert world.claimed(worker) == ["b"]
    assert world.claimed(worker, names=("unheard",)) == ["a"]


def test_queues_not_named_are_left_alone(store, worker, world):
    world.create("a", queue="orders")

    assert store.claim(worker, "me", ["f"], [QueueView("letters")], 5) == []
    assert store.claim(worker, "me", ["f"], [], 5) == []


@pytest.mark.parametrize("end", ["discharged", "buried", "never enlisted"])
def test_a_worker_that_is_not_live_claims_nothing(store, world, worker, clock, end):
    world.create("a")
    match end:
        case "discharged":
            store.discharge(worker, now=clock.now)
        case "buried":
            world.strand(worker)
        case _:
            worker = 4711

    assert world.claim(worker) == []
    assert world.status().attempt == 0


def test_what_is_owned_waits_or_has_ended_is_not_claimed(store, world, worker, people, clock):
    world.run(worker, "owned")
    world.write(suspend(world.run(worker, "waiting"), until(clock.epoch + 60), 60))
    world.write(outcome(world.run(worker, "ended")))
    world.create("cancelled")
    people.cancel("cancelled")
    world.create("delayed", delay=60)

    assert world.claim(worker) == []
    assert store.claim_one("owned", worker, "me") is None
    assert store.claim_one("no such", worker, "me") is None


# -- limits -------------------------------------------------------------------


def test_concurrency_counts_what_all_workers_execute(store, world, worker):
    declare(store, concurrency=3)
    fill(world, 6)
    other = world.enlist()

    assert len(world.claim(worker, asked=2)) == 2
    assert len(world.claim(other)) == 1
    assert world.claim(worker) == []


def test_worker_concurrency_counts_what_this_worker_executes(store, world, worker):
    declare(store, worker_concurrency=2)
    fill(world, 6)
    other = world.enlist()

    assert len(world.claim(worker)) == 2
    assert world.claim(worker) == []
    assert len(world.claim(other)) == 2


def test_a_place_is_free_again_when_its_workflow_waits(store, world, worker, clock):
    declare(store, concurrency=1)
    fill(world, 2)
    (first,) = world.claim(worker)

    world.write(suspend(first, until(clock.epoch + 60), 60))

    assert world.claimed(worker) == ["orders-01"]


def test_a_holding_queue_keeps_the_place_of_what_waits(store, world, worker, clock):
    declare(store, concurrency=1, hold=True)
    fill(world, 2)
    (first,) = world.claim(worker)

    world.write(suspend(first, until(clock.epoch + 60), 60))

    assert world.claim(worker) == []


def test_who_holds_a_place_goes_on_though_the_queue_is_full(store, world, worker):
    declare(store, concurrency=1, hold=True)
    fill(world, 2)
    (first,) = world.claim(worker)
    world.write(suspend(first))

    assert world.claimed(worker) == ["orders-00"]


def test_a_paused_queue_starts_nothing_new(store, world, worker, people):
    declare(store)
    fill(world, 1)
    people.pause("orders")

    assert world.claim(worker) == []


@pytest.mark.parametrize("limits", [{}, {"concurrency": 1}, {"concurrency": 1, "hold": True}])
def test_what_has_started_goes_on_in_a_paused_queue(store, world, worker, people, limits):
    declare(store, **limits)
    fill(world, 2)
    (first,) = world.claim(worker, asked=1)
    world.write(suspend(first))
    people.pause("orders")

    assert world.claimed(worker) == ["orders-00"]


def test_limits_of_one_queue_leave_the_others_alone(store, world, worker):
    declare(store, concurrency=1)
    fill(world, 3)
    fill(world, 3, "letters")

    assert sorted(world.claimed(worker)) == ["letters-00", "letters-01", "letters-02", "orders-00"]


# -- what comes with a claim --------------------------------------------------


def test_a_first_claim_comes_without_history(world, worker):
    world.create("a")

    (claim,) = world.claim(worker)

    assert (claim.steps, claim.ended, claim.waits) == ({}, {}, "")


def test_a_later_claim_comes_with_its_recorded_steps(world, worker):
    run, other = world.run(worker, "a"), world.run(worker, "b")
    world.write(step(run, 1, output='"x"'), step(run, 2, name="ship", output=None, error="{}"))
    world.write(step(other, 1, output='"other"'))
    world.write(suspend(run))

    (again,) = world.claim(worker)

    assert again.steps == {
        1: StepRecord(1, "charge", "step", '"x"', None, None, 1),
        2: StepRecord(2, "ship", "step", None, "{}", None, 1),
    }


def test_ended_workflows_come_with_the_claim_that_waits_for_them(world, worker):
    run, child = world.run(worker, "a"), world.run(worker, "child")
    world.run(worker, "running")
    world.write(outcome(child, "ERROR", output=None, error="{}"))
    world.write(suspend(run, for_child("child", "running"), 5))
    assert world.look(run.id) == 1

    (again,) = world.claim(worker)

    assert {one: (end.status, end.error) for one, end in again.ended.items()} == {
        "child": ("ERROR", "{}")
    }


def test_one_workflow_can_be_claimed_by_its_id(store, world, worker):
    run = world.run(worker, "a")
    world.write(step(run))
    world.write(suspend(run))

    again = store.claim_one("a", worker, "me")

    assert (again.attempt, list(again.steps)) == (2, [1])


@pytest.mark.parametrize("how", ["recovered", "woken"])
def test_what_goes_on_needs_a_place_on_the_worker_also_on_a_holding_queue(store, world, clock, how):
    declare(store, worker_concurrency=2, hold=True)
    fill(world, 6)
    away = world.enlist()
    runs = world.claim(away)
    assert len(runs) == 2
    if how == "woken":
        for run in runs:
            world.write(suspend(run, until(clock.epoch + 5), 5))
        here = world.enlist()
        mine = world.claim(here)
        clock.advance(6)
        store.wake_due(10, now=clock.now)
    else:
        world.strand(away)
        here = world.enlist()
        mine = world.claim(here)
        world.rescue()
    assert len(mine) == 2

    assert world.claim(here) == []
    world.write(outcome(mine[0]))
    assert world.claimed(here) == ["orders-00"]  # before new ones
    assert world.claim(here) == []
