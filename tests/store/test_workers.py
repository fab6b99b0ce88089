"""Workers: leases, the dead, and what becomes of their workflows."""

import pytest

from tests.store.conftest import LEASE, outcome, step, suspend, until


def test_a_beat_tells_that_the_worker_lives_and_what_it_owns(store, world, worker, clock):
    world.run(worker, "a")
    world.run(worker, "b")
    clock.advance(7)

    beat = store.beat(worker, now=clock.now)

    assert (beat.live, beat.owned) == (True, 2)
    assert beat.database_now == pytest.approx(clock.epoch, abs=0.001)


def test_a_beat_keeps_a_worker_from_being_buried(store, worker, clock):
    for _ in range(3):
        clock.advance(LEASE - 1)
        assert store.beat(worker, now=clock.now).live
        assert store.bury(now=clock.now) == []


def test_a_worker_is_buried_when_its_lease_is_over(store, world, worker, people, clock):
    longer = world.enlist(lease=2 * LEASE)
    clock.advance(LEASE + 0.01)

    assert store.bury(now=clock.now) == [worker]

    assert (people.worker_state(worker), people.worker_state(longer)) == ("dead", "live")
    assert store.bury(now=clock.now) == []


def test_a_lease_that_is_just_over_is_not_late(store, worker, clock):
    clock.advance(LEASE)

    assert store.bury(now=clock.now) == []


@pytest.mark.parametrize("end", ["dead", "stopped"])
def test_a_worker_that_is_not_live_is_told_so_by_its_beat(store, world, worker, people, clock, end):
    world.run(worker)
    if end == "dead":
        world.strand(worker)
    else:
        store.discharge(worker, now=clock.now)

    beat = store.beat(worker, now=clock.now)

    assert (beat.live, beat.owned, people.worker_state(worker)) == (False, 1, end)


def test_the_dead_do_not_become_stopped(store, world, worker, people):
    world.strand(worker)

    store.discharge(worker)

    assert people.worker_state(worker) == "dead"


def test_what_is_owned_is_told_by_worker(store, world, worker):
    mine, other = world.run(worker, "a"), world.enlist()
    world.run(other, "b")

    assert (store.owned(worker), store.count_owned(worker)) == ([mine.id], 1)
    assert (store.owned(4711), store.count_owned(4711)) == ([], 0)


def test_a_release_makes_ready_only_what_one_owns_oneself(store, world, worker, clock):
    mine = [world.run(worker, one) for one in "ab"]
    other = world.run(world.enlist(), "c")
    waiting = world.run(worker, "d")
    world.write(suspend(waiting, until(clock.epoch + 60), 60))

    released = store.release(worker, [mine[0].id, other.id, waiting.id, 4711], now=clock.now)

    assert (released, store.owned(worker)) == (1, [mine[1].id])
    assert [(claim.workflow_id, claim.attempt) for claim in world.claim(worker)] == [("a", 2)]
    assert world.status("a").recoveries == 0


def test_fates_are_told_for_those_that_are_there(store, world, worker, people):
    one, two = world.run(worker, "a"), world.create("b")
    world.write(outcome(one))
    people.cancel("b")

    assert store.fates([one.id, two, 4711]) == {one.id: "SUCCESS", two: "CANCELLED"}
    assert store.fates([]) == {}


# -- rescue -------------------------------------------------------------------


def test_the_workflows_of_the_dead_are_handed_on(store, world, worker):
    world.run(worker, "a")
    lost, owner = world.run(worker, "b"), world.enlist(lease=900)
    world.run(owner, "kept")
    world.strand(worker)

    rescued = world.rescue()

    assert [(one.workflow_id, one.recoveries, one.given_up) for one in rescued] == [
        ("a", 1, False),
        ("b", 1, False),
    ]
    assert store.count_owned(worker) == 0
    assert [claim.attempt for claim in world.claim(owner)] == [2, 2]
    assert world.write(step(lost))[0].value == "lost"


def test_a_worker_that_stopped_leaves_the_rest_to_the_rescuer(store, world, worker):
    world.run(worker)
    store.discharge(worker)

    assert [one.workflow_id for one in world.rescue()] == ["a"]


def test_nothing_is_taken_from_the_living(world, worker):
    world.run(worker)

    assert world.rescue() == []


def test_a_rescue_takes_a_batch(store, world, worker):
    for one in "abc":
        world.run(worker, one)
    world.strand(worker)

    assert [one.workflow_id for one in world.rescue(batch=2)] == ["a", "b"]
    assert [one.workflow_id for one in world.rescue(batch=2)] == ["c"]


def crash(world, store, clock, *, limit: int | None = 100, record: bool = False, names=None):
    """Let a new worker claim the workflow, perhaps record a step, and die; return the rescue."""
    worker = world.enlist()
    while not (claims := world.claim(worker)):
        clock.advance(store.next_due(now=clock.now))
        store.beat(worker, now=clock.now)
        store.wake_due(10, now=clock.now)
    if record:
        world.write(step(claims[0], claims[0].attempt))
    world.strand(worker)
    (rescued,) = world.rescue(limit=limit, **(names or {}))
    return rescued


def test_each_recovery_without_progress_rests_twice_as_long(store, world, clock):
    world.create()
    rests = []

    for _ in range(9):
        crash(world, store, clock)
        rests.append(store.next_due(now=clock.now))

    assert rests == [
        None,
        *[pytest.approx(rest, abs=0.01) for rest in (1, 2, 4, 8, 16, 32, 60, 60)],
    ]


def test_a_recorded_step_starts_the_count_anew(store, world, clock):
    world.create()
    counts = [crash(world, store, clock, record=again == 3).recoveries for again in range(5)]

    assert counts == [1, 2, 3, 1, 2]


def test_the_rescuer_gives_up_at_the_limit(store, world, people, clock):
    world.create("a", deduplication_id="d")
    for _ in range(2):
        assert not crash(world, store, clock, limit=2).given_up

    rescued = crash(world, store, clock, limit=2)

    assert (rescued.given_up, rescued.recoveries) == (True, 2)
    status = world.status()
    assert (status.status, status.recoveries) == ("MAX_RECOVERY_ATTEMPTS_EXCEEDED", 2)
    assert (status.completed_at, status.deduplication_id) == (clock.now, None)
    assert (store.busy(), store.next_due(), store.audit()) == (False, None, [])
    assert store.ended(["a"])["a"].status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED"


def test_the_limit_of_a_name_wins(store, world, clock):
    world.create()

    assert crash(world, store, clock, limit=100, names={"f": 0}).given_up


def test_without_a_limit_the_rescuer_never_gives_up(store, world, clock):
    world.create()

    assert not any(crash(world, store, clock, limit=None).given_up for _ in range(4))


def test_a_given_up_workflow_goes_on_when_a_person_says_so(store, world, people, clock):
    world.create("a", queue="orders")
    crash(world, store, clock, limit=0)

    assert people.resume("a")

    assert (world.status().status, world.status().recoveries) == ("ENQUEUED", 0)
    assert world.claimed(world.enlist()) == ["a"]


def test_waits_and_releases_are_no_recoveries(store, world, worker):
    run = world.run(worker)
    world.write(suspend(run))
    (run,) = world.claim(worker)
    store.release(worker, [run.id])
    (run,) = world.claim(worker)

    assert (run.attempt, run.recoveries) == (3, 0)
