"""How many workflows of a queue may start: as many as the narrowest limit leaves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_workflows.core.admission import Load, allowance
from durable_workflows.core.records import QueueView

limits = st.none() | st.integers(1, 1_000)
counts = st.integers(0, 2_000)


@pytest.mark.parametrize(
    "queue, load, allowed",
    [
        (QueueView("q"), Load(90, 900), 10),
        (QueueView("q", concurrency=5), Load(0, 0), 5),
        (QueueView("q", concurrency=5), Load(1, 3), 2),
        (QueueView("q", concurrency=5), Load(0, 7), 0),
        (QueueView("q", worker_concurrency=2), Load(1, 50), 1),
        (QueueView("q", concurrency=10, worker_concurrency=2), Load(0, 9), 1),
        (QueueView("q", concurrency=10, worker_concurrency=2), Load(2, 2), 0),
    ],
)
def test_the_narrowest_limit_decides(queue, load, allowed):
    assert allowance(queue, load, asked=10) == allowed


@given(limits, limits, counts, counts, counts)
def test_no_limit_is_ever_passed(everywhere, here, running_everywhere, running_here, asked):
    queue, load = QueueView("q", everywhere, here), Load(running_here, running_everywhere)

    allowed = allowance(queue, load, asked)

    assert 0 <= allowed <= asked
    if allowed and everywhere is not None:
        assert running_everywhere + allowed <= everywhere
    if allowed and here is not None:
        assert running_here + allowed <= here


@pytest.mark.parametrize(
    "queue, limited",
    [
        (QueueView("q"), False),
        (QueueView("q", hold=True, paused=True), False),
        (QueueView("q", concurrency=1), True),
        (QueueView("q", worker_concurrency=1), True),
    ],
)
def test_a_queue_is_limited_by_either_number(queue, limited):
    assert queue.limited is limited
