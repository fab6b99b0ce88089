"""A dead worker's workflow is handed on with growing pauses, and given up at its limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_workflows.core.recovery import LONGEST_DELAY, GiveUp, Requeue, verdict

counts = st.integers(0, 500)


@pytest.mark.parametrize(
    "recoveries, decision",
    [
        (0, Requeue(1, 0.0)),
        (1, Requeue(2, 1.0)),
        (2, Requeue(3, 2.0)),
        (3, Requeue(4, 4.0)),
        (49, Requeue(50, LONGEST_DELAY)),
        (50, GiveUp(50)),
        (51, GiveUp(51)),
    ],
)
def test_fifty_recoveries_are_granted_and_the_next_one_gives_up(recoveries, decision):
    assert verdict(recoveries=recoveries, progressed=False, limit=50) == decision


def test_a_limit_of_nought_gives_up_at_the_first_crash():
    assert verdict(recoveries=0, progressed=False, limit=0) == GiveUp(0)


def test_a_limit_of_one_grants_one_recovery_to_a_run_that_progressed():
    assert verdict(recoveries=1, progressed=True, limit=1) == Requeue(1, 0.0)


@given(recoveries=counts, limit=st.none() | st.integers(1, 500))
def test_a_run_that_recorded_a_step_starts_counting_anew(recoveries, limit):
    assert verdict(recoveries=recoveries, progressed=True, limit=limit) == Requeue(1, 0.0)


@given(recoveries=counts)
def test_without_a_limit_nothing_is_given_up(recoveries):
    decision = verdict(recoveries=recoveries, progressed=False, limit=None)
    assert isinstance(decision, Requeue)
    assert decision.recoveries == recoveries + 1
    assert 0 <= decision.delay <= LONGEST_DELAY


@given(limit=st.integers(0, 60))
def test_a_run_that_always_kills_its_worker_is_recovered_exactly_as_often_as_granted(limit):
    recoveries, delays = 0, []
    while isinstance(
        decision := verdict(recoveries=recoveries, progressed=False, limit=limit), Requeue
    ):
        recoveries = decision.recoveries
        delays.append(decision.delay)
    assert recoveries == limit
    assert delays == sorted(delays)
