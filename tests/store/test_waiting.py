"""Waits and wake-ups: state, and looks at it."""

import pytest

from durable_workflows.core.records import QueueView, WaitEntry
from durable_workflows.core.waits import RESTING, decode, encode
from tests.store.conftest import for_child, outcome, step, suspend, until


@pytest.fixture
def wake(store, clock):
    """Advance the clock to the next due look, and look."""

    def to_next() -> float:
        seconds = store.next_due(now=clock.now)
        clock.advance(seconds)
        assert store.wake_due(10, now=clock.now) >= 1
        return seconds

    return to_next


@pytest.mark.parametrize("seconds", [60, 0.1, 0.123456, 86_400 * 40])
def test_a_sleep_is_over_when_its_time_has_come(store, world, worker, clock, seconds):
    run = world.run(worker)
    world.write(suspend(run, until(clock.epoch + seconds), seconds))
    clock.advance(seconds * 0.9)
    assert (store.wake_due(10, now=clock.now), world.claim(worker)) == (0, [])

    clock.advance(seconds * 0.1 + 0.001)

    assert store.wake_due(10, now=clock.now) == 1
    assert world.claimed(worker) == ["a"]


def test_time_skipped_to_the_next_due_look_wakes_a_sleep(world, worker, clock, wake):
    """A simulation that jumps from due to due must never stand still."""
    run = world.run(worker)
    world.write(suspend(run, until(clock.epoch + 0.0303039), 0.0303039))

    while not world.claimed(worker):
        wake()

    assert world.status().status == "PENDING"


def test_a_look_wakes_who_waits_for_what_has_ended(world, worker):
    run, child = world.run(worker, "a"), world.run(worker, "child")
    world.write(suspend(run, for_child("child"), 5))
    assert world.look(run.id) == 0
    world.write(outcome(child))

    assert world.look(run.id) == 1

    assert world.claimed(worker) == ["a"]


@pytest.mark.parametrize("end", ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"])
def test_every_end_is_an_end(world, worker, people, end):
    run = world.run(worker, "a")
    world.create("child")
    people.spoil("child", status=end)
    world.write(suspend(run, for_child("child"), 5))

    assert world.look(run.id) == 1


def test_any_one_of_several_waits_wakes(world, worker, clock):
    run, child = world.run(worker, "a"), world.run(worker, "third")
    world.write(suspend(run, for_child("first", "second", "third", until=clock.epoch + 60), 5))
    assert world.look(run.id) == 0
    world.write(outcome(child))

    assert world.look(run.id) == 1


def test_a_look_at_a_wait_that_is_over_in_time_wakes(world, worker, clock):
    run = world.run(worker)
    world.write(suspend(run, for_child("nobody", until=clock.epoch + 60), 60))
    clock.advance(60)

    assert world.look(run.id) == 1


def test_a_look_leaves_alone_what_does_not_wait(world, worker, people):
    owned, ready, ended = (world.run(worker, one) for one in ("owned", "ready", "ended"))
    child = world.run(worker, "child")
    world.write(outcome(child))
    world.write(suspend(owned, for_child("child"), keeps=True))
    world.write(suspend(ready, for_child("child")))
    world.write(suspend(ended, for_child("child"), 5))
    people.cancel("ended")
    delayed = world.create("delayed", delay=60)

    assert world.look(owned.id, ready.id, ended.id, delayed, 4711) == 0


def test_a_wait_that_is_not_over_is_pushed_on_without_a_claim(store, world, worker, wake):
    run = world.run(worker, "a")
    world.create("child")
    world.write(suspend(run, for_child("child"), 5))

    distances = [wake() for _ in range(4)]

    assert distances == pytest.approx([5, 5, 10, 20], abs=0.01)  # the time it has waited
    assert world.claimed(worker) == ["child"]
    assert world.status("a").attempt == 1


def test_the_distance_between_looks_has_an_end(world, worker, wake):
    run = world.run(worker, "a")
    world.create("child")
    world.write(suspend(run, for_child("child"), 5))

    distances = [wake() for _ in range(12)]

    assert distances[-1] == pytest.approx(600, abs=0.01)


def test_the_timer_finds_what_a_look_has_missed(store, world, worker, wake):
    run, child = world.run(worker, "a"), world.run(worker, "child")
    world.write(suspend(run, for_child("child"), 5))
    world.write(outcome(child))  # its process dies before the look

    wake()

    assert world.claimed(worker) == ["a"]


def test_a_delayed_workflow_is_enqueued_when_its_time_has_come(world, worker, wake):
    world.create(queue="orders", delay=60)
    assert world.claim(worker) == []

    assert wake() == pytest.approx(60)

    assert (world.status().status, world.status().delay_until) == ("ENQUEUED", None)
    assert world.claimed(worker) == ["a"]


def test_the_timer_works_in_batches_earliest_first(store, world, worker, clock):
    for n, delay in enumerate([30, 10, 20]):
        world.create(f"d{n}", queue="orders", delay=delay)
    clock.advance(60)

    assert store.wake_due(2, now=clock.now) == 2
    assert sorted(world.claimed(worker)) == ["d1", "d2"]
    assert store.wake_due(2, now=clock.now) == 1
    assert store.wake_due(2, now=clock.now) == 0


def test_nothing_is_due_where_nothing_waits(store, world, worker, clock):
    world.run(worker)

    assert store.next_due(now=clock.now) is None


def test_the_next_due_is_the_earliest(store, world, clock):
    world.create("late", queue="orders", delay=600)
    world.create("soon", queue="orders", delay=3)

    assert store.next_due(now=clock.now) == pytest.approx(3)
    clock.advance(5)
    assert store.next_due(now=clock.now) == pytest.approx(-2)


def test_a_recovered_workflow_rests_and_then_runs(store, world, worker, clock, wake):
    run = world.run(worker)
    world.write(step(run))
    world.write(suspend(run, until(clock.epoch + 900), keeps=True))
    for _ in range(3):
        world.strand(worker)
        world.rescue()
        worker = world.enlist()
        if store.next_due(now=clock.now) is not None:
            assert world.claim(worker) == []
            wake()
        (again,) = world.claim(worker)

    assert again.recoveries == 3
    assert sorted(decode(again.waits)) == [RESTING, 1]  # the sleep goes on


def test_a_look_at_a_resting_workflow_does_not_wake_it(store, world, worker, clock):
    world.run(worker)
    for _ in range(3):
        world.strand(worker)
        (rescued,) = world.rescue()
        worker = world.enlist()
        clock.advance(2)
        store.wake_due(10, now=clock.now)
        world.claim(worker)
    world.strand(worker)
    (rescued,) = world.rescue()

    assert rescued.recoveries == 4
    assert world.look(rescued.id) == 0


@pytest.mark.parametrize(
    "concurrency, hold, behind", [(1, True, {"b", "c"}), (1, False, set()), (2, True, set())]
)
def test_what_stands_behind_one_that_holds_the_only_place(
    store, world, worker, people, concurrency, hold, behind
):
    store.declare_queues([QueueView("q", concurrency, None, hold)])
    world.run(worker, "a", queue="q")
    for name, queue in {"b": "q", "c": "q", "d": "q", "e": "other"}.items():
        world.create(name, queue=queue, delay=60 if name == "c" else None)
    people.cancel("d")

    assert store.behind("q", ["a", "b", "c", "d", "e", "nobody"]) == behind


def test_a_resting_workflow_is_woken_by_nobody_before_its_rest_is_over(
    store, world, worker, clock, people
):
    """Also not where an older wait of it is fulfilled meanwhile."""
    run, child = world.run(worker, "parent"), world.run(worker, "child")
    table = encode({RESTING: until(clock.epoch + 60), 3: for_child("child")})
    world.write(WaitEntry(run.id, run.attempt, run.worker, table, 60.0))
    world.write(outcome(child))

    assert world.look(run.id) == 0
    clock.advance(61)
    assert world.look(run.id) == 1
