"""Writes: what is recorded, and what it means when nothing is."""

import contextlib
from dataclasses import replace

import pytest

from durable_workflows.core.records import StepEntry, StepRecord, Verdict
from tests.store.conftest import StepFailed, for_child, outcome, start, step, suspend, until

RECORDED, LOST, CANCELLED = Verdict.RECORDED, Verdict.LOST, Verdict.CANCELLED


@pytest.fixture
def run(world, worker):
    return world.run(worker)


@pytest.fixture
def zombie(run, store, world, worker):
    """A run whose workflow was released and claimed anew while it slept."""
    store.release(worker, [run.id], now=world.clock.now)
    world.claim(worker)
    return run


ENTRIES = {
    "step": step,
    "start": lambda run: start(run, "a-1"),
    "outcome": outcome,
    "suspension": lambda run: suspend(run, until(9e9), 60.0),
    "note": lambda run: suspend(run, until(9e9), keeps=True),
}
every_kind = pytest.mark.parametrize("kind", ENTRIES)


# -- what is written ----------------------------------------------------------


@every_kind
def test_an_entry_of_the_current_run_is_recorded(world, run, kind):
    assert world.write(ENTRIES[kind](run)) is None


def test_a_batch_of_every_kind_is_one_write(store, world, worker):
    runs = {kind: world.run(worker, kind) for kind in ENTRIES}

    assert world.write(*[ENTRIES[kind](runs[kind]) for kind in reversed(ENTRIES)]) is None

    assert store.recorded(runs["step"].id, 1).output == "1"
    assert world.status("outcome").status == "SUCCESS"
    assert store.count_owned(worker) == 3  # all but those that ended or wait


def test_an_outcome_ends_the_workflow(store, world, run, clock):
    world.write(suspend(run, until(clock.epoch), keeps=True))
    clock.advance(1)
    world.write(outcome(run, "ERROR", output=None, error='{"type": "X"}'))

    status = world.status()
    assert (status.status, status.output, status.error) == ("ERROR", None, '{"type": "X"}')
    assert status.completed_at == status.updated_at == clock.now
    assert store.ended(["a", "b"])["a"].error == '{"type": "X"}'
    assert (store.busy(), store.next_due(), store.audit()) == (False, None, [])


def test_a_step_is_recorded_as_it_was_handed_in(store, world, run):
    entry = step(run, 3, name="ä'\"\\", kind="sleep", output='"\\u0000{},NULL"', child="c", took=5)

    world.write(entry)

    expected = StepRecord(3, "ä'\"\\", "sleep", '"\\u0000{},NULL"', None, "c", 1)
    assert store.recorded(run.id, 3) == expected
    assert store.recorded(run.id, 4) is None


def test_a_suspension_lets_go_and_keeps_what_it_waits_for(store, world, run, worker, clock):
    world.write(suspend(run, until(clock.epoch + 60), 60))

    assert store.count_owned(worker) == 0
    assert store.next_due(now=clock.now) == pytest.approx(60)
    assert world.status().status == "PENDING"


def test_a_suspension_without_a_time_is_ready_at_once(world, run, worker):
    world.write(suspend(run))

    assert world.claimed(worker) == ["a"]


def test_a_suspension_can_leave_the_recorded_waits(world, run, worker, clock):
    world.write(suspend(run, until(clock.epoch + 60), keeps=True))
    world.write(suspend(run))

    (again,) = world.claim(worker)

    assert '"until"' in again.waits


def test_a_note_keeps_the_workflow(store, world, run, worker):
    world.write(suspend(run, until(9e9), keeps=True))

    assert store.owned(worker) == [run.id]
    assert store.next_due() is None


def test_a_start_makes_its_children(store, world, run):
    world.write(start(run, "a-1-1", "a-1-2"))

    assert world.status("a-1-1").parent_workflow_id == "a"
    assert world.status("a-1-2").status == "PENDING"
    assert store.recorded(run.id, 1).child == "a-1-1"


def test_a_child_that_is_there_stays_as_it_is(world, run):
    world.create("a-1", name="g")

    assert world.write(start(run, "a-1")) is None
    assert world.status("a-1").name == "g"


# -- what 0 rows mean: a step --------------------------------------------------


@pytest.mark.parametrize("kind", ["step", "start"])
def test_a_step_that_is_written_again_by_its_run_was_recorded(world, run, kind):
    world.write(ENTRIES[kind](run))

    assert world.write(ENTRIES[kind](run)) == [RECORDED]


def test_the_second_writer_of_a_position_adopts_the_first_ones(world, zombie, worker):
    world.write(StepEntry(zombie.id, 2, worker, 1, "charge", "step", output='"first"'))

    (adopted,) = world.write(step(zombie, output='"second"'))

    assert adopted == StepRecord(1, "charge", "step", '"first"', None, None, 2)


def test_the_current_run_adopts_what_an_earlier_one_recorded(world, run, store, worker):
    world.write(step(run, output='"early"'))
    store.release(worker, [run.id])
    (again,) = world.claim(worker)

    (adopted,) = world.write(step(again, output='"late"'))

    assert (adopted.output, adopted.attempt) == ('"early"', 1)


def test_a_position_recorded_under_another_name_is_told(world, run):
    world.write(step(run, name="charge"))

    (found,) = world.write(step(run, name="ship"))

    assert (found.name, found.attempt) == ("charge", 1)


def test_no_child_without_a_fresh_step_row(store, world, run, worker):
    world.write(step(run))
    world.write(start(run, "by the same run"))
    store.release(worker, [run.id])
    (again,) = world.claim(worker)
    world.write(start(run, "by a zombie", position=2), start(again, "by the next run"))

    assert [world.status(f"by {who}") for who in ("the same run", "a zombie", "the next run")] == [
        None,
        None,
        None,
    ]


def test_one_loser_in_a_batch_leaves_the_others_recorded(store, world, worker):
    one, two = world.run(worker, "one"), world.run(worker, "two")
    world.write(step(one, output='"first"'))

    answers = world.write(step(two), step(one, name="ship"), outcome(two))

    assert [answer.name if isinstance(answer, StepRecord) else answer for answer in answers] == [
        RECORDED,
        "charge",
        RECORDED,
    ]
    assert world.status("two").status == "SUCCESS"


# -- what 0 rows mean: the rest ------------------------------------------------


def test_an_outcome_that_is_written_again_was_recorded(world, run):
    world.write(outcome(run))

    assert world.write(outcome(run, output='"other"')) == [RECORDED]
    assert world.status().output == "1"


def test_a_suspension_that_is_written_again_was_recorded(world, run, clock):
    world.write(suspend(run, until(clock.epoch + 60), 60))

    assert world.write(suspend(run, until(clock.epoch + 60), 60)) == [RECORDED]


def test_a_suspension_whose_workflow_runs_again_was_recorded(world, zombie):
    assert world.write(suspend(zombie, until(9e9), 60)) == [RECORDED]


def test_a_note_of_a_suspended_run_is_lost(world, run):
    world.write(suspend(run))

    assert world.write(suspend(run, until(9e9), keeps=True)) == [LOST]


@pytest.mark.parametrize("kind", ["step", "start", "outcome", "note"])
def test_an_entry_of_a_zombie_is_lost(world, zombie, kind):
    assert world.write(ENTRIES[kind](zombie)) == [LOST]


@every_kind
def test_an_entry_of_a_zombie_changes_nothing(store, world, zombie, worker, kind):
    before = world.status()
    world.clock.advance(1)

    world.write(ENTRIES[kind](zombie))

    assert world.status() == before
    assert store.owned(worker) == [zombie.id]
    assert store.recorded(zombie.id, 1) is None
    assert world.status("a-1") is None
    assert store.next_due() is None


@every_kind
def test_an_entry_for_another_owners_run_changes_nothing(store, world, run, kind):
    run = replace(run, worker=world.enlist())
    before = world.status()

    assert world.write(ENTRIES[kind](run)) == [LOST]

    assert world.status() == before


@every_kind
def test_an_entry_of_a_cancelled_run_says_so(store, world, run, people, kind):
    people.cancel("a")
    before = world.status()

    assert world.write(ENTRIES[kind](run)) == [CANCELLED]

    assert world.status() == before
    assert (store.recorded(run.id, 1), world.status("a-1")) == (None, None)


@every_kind
def test_an_entry_of_a_run_cancelled_and_resumed_changes_nothing(store, world, run, people, kind):
    people.cancel("a")
    people.resume("a")
    before = world.status()

    world.write(ENTRIES[kind](run))

    assert world.status() == before
    assert store.recorded(run.id, 1) is None


@every_kind
def test_an_entry_for_a_workflow_that_is_gone_is_lost(world, run, kind):
    run = replace(run, id=4711)

    assert world.write(ENTRIES[kind](run)) == [LOST]


# -- atomic steps --------------------------------------------------------------


def test_the_guard_tells_whether_the_run_is_current(store, world, run, worker, people):
    assert store.guard_step(run.id, 1, worker)
    assert not store.guard_step(run.id, 2, worker)
    assert not store.guard_step(run.id, 1, worker + 1)
    people.cancel("a")
    assert not store.guard_step(run.id, 1, worker)


def test_the_checkpoint_of_an_atomic_step_is_written_with_it(callers, world, run):
    with callers.atomic_step(60.0):
        assert callers.guard_step(run.id, 1, run.worker)
        assert world.write(step(run)) is None

    assert callers.recorded(run.id, 1).output == "1"


def test_the_checkpoint_of_an_atomic_step_rolls_back_with_it(callers, world, run):
    told = []

    with contextlib.suppress(StepFailed), callers.atomic_step(60.0):
        callers.guard_step(run.id, 1, run.worker)
        world.write(start(run, "a-1"))
        callers.on_commit(lambda: told.append("committed"))
        raise StepFailed

    assert (callers.recorded(run.id, 1), world.status("a-1"), told) == (None, None, [])


def test_waits_of_a_suspension_are_read_by_the_next_claim(world, run, worker):
    world.write(suspend(run, for_child("c", tries=("x",)), keeps=True))
    world.write(suspend(run))

    (again,) = world.claim(worker)

    assert again.waits == '{"1":{"kind":"result","what":["c"],"tries":["x"]}}'
