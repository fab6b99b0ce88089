"""The pauses between the tries of a step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_workflows.core.retry import LONGEST_DELAY, Retry


def test_by_default_a_step_is_tried_once():
    assert Retry().delay(1) is None


def test_max_attempts_counts_tries_in_all():
    retry = Retry(max_attempts=4, interval_seconds=1, backoff_rate=3)
    assert [retry.delay(tries) for tries in (1, 2, 3, 4, 5)] == [1.0, 3.0, 9.0, None, None]


def test_no_pause_is_longer_than_an_hour():
    assert Retry(max_attempts=1000, interval_seconds=10).delay(60) == LONGEST_DELAY


@given(
    tries=st.integers(1, 1_000),
    interval=st.floats(0, 10_000),
    rate=st.floats(1, 10),
)
def test_every_pause_can_be_slept(tries, interval, rate):
    delay = Retry(10_000, interval, rate).delay(tries)
    assert type(delay) is float
    assert 0 <= delay <= LONGEST_DELAY


@given(st.integers(1, 30), st.floats(0, 100), st.floats(1, 5))
def test_pauses_never_shrink(tries, interval, rate):
    retry = Retry(100, interval, rate)
    assert retry.delay(tries) <= retry.delay(tries + 1)


@pytest.mark.parametrize(
    "options, named",
    [
        ({"max_attempts": 0}, "max_attempts"),
        ({"interval_seconds": -1.0}, "interval_seconds"),
        ({"backoff_rate": 0.5}, "backoff_rate"),
        ({"interval_seconds": float("nan")}, "interval_seconds"),
        ({"interval_seconds": float("inf")}, "interval_seconds"),
        ({"backoff_rate": float("nan")}, "backoff_rate"),
        ({"backoff_rate": float("inf")}, "backoff_rate"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_by_name(options, named):
    with pytest.raises(ValueError, match=named):
        Retry(**options)
