"""A recorded call is known again by position, name and kind, and by nothing else."""

import pytest

from durable_workflows.core.records import StepRecord
from durable_workflows.core.replay import SLEEP, STEP, Call, check_end
from durable_workflows.errors import NonDeterminism


def record(position=3, name="charge", kind=STEP) -> StepRecord:
    return StepRecord(position, name, kind, "1", None)


def call(name="charge", kind=STEP) -> Call:
    return Call("order-7", 3, name, kind, None, None)


def test_the_same_name_and_kind_adopt_the_record():
    assert call().check(record()) == record()


@pytest.mark.parametrize("asked", [call(name="ship"), call(kind=SLEEP)])
def test_another_name_or_kind_is_changed_code_and_both_are_named(asked):
    with pytest.raises(NonDeterminism, match="order-7: position 3 was step 'charge'") as caught:
        asked.check(record())
    assert caught.value.position == 3
    assert caught.value.recorded == "step 'charge'"
    assert caught.value.asked == f"{asked.kind} {asked.name!r}"


@pytest.mark.parametrize("position", [3, 4, 100])
def test_code_that_ends_at_or_after_its_last_recorded_step_is_unchanged(position):
    assert check_end("order-7", position, {1: record(1), 3: record(3)}) is None
    assert check_end("order-7", position, {}) is None


def test_code_that_ends_early_is_told_the_first_step_it_left_out():
    steps = {position: record(position) for position in (4, 2, 3, 1)}
    with pytest.raises(NonDeterminism, match="the workflow's end") as caught:
        check_end("order-7", 1, steps)
    assert caught.value.position == 2
