"""Threads for claimed workflows: never fewer than claims while there is room for more."""

import sys
import threading

import pytest

from durable_workflows.core.records import Claim
from durable_workflows.worker.slots import ThreadSlots

SIZE, ROUNDS = 4, 400


class Gathering(ThreadSlots):
    """Runs nothing: each claim waits until all slots are taken."""

    def __init__(self):
        super().__init__(SIZE, None, None)
        self.all_here = threading.Barrier(SIZE + 1)

    def _run(self, claim: Claim, check: bool) -> None:
        self.all_here.wait(20)


def claim(number: int) -> Claim:
    return Claim(number, str(number), "f", "", "[]", 1, 1)


@pytest.fixture
def hasty():
    """Let threads be interrupted everywhere."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_no_claim_waits_behind_a_long_step_while_a_thread_could_be_had(hasty):
    for round in range(ROUNDS):
        slots = Gathering()
        for number in range(SIZE):
            slots.submit([claim(number)])
            for _ in range((round * 37 + number * 101) % 300):
                pass  # the next comes at another moment of a thread's beginning
        slots.all_here.wait(20)
        slots.close(20)


def test_threads_are_made_as_they_are_needed():
    slots = Gathering()
    slots.submit([claim(1), claim(2)])
    assert len(slots._threads) == 2

    slots.submit([claim(3), claim(4)])
    slots.all_here.wait(20)
    slots.close(20)

    assert len(slots._threads) == SIZE


def test_what_is_withdrawn_needs_no_thread():
    slots = Gathering()
    slots.submit([claim(number) for number in range(SIZE + 3)])
    while slots._queue.qsize() > 3:
        pass
    assert sorted(int(one.workflow_id) for one in slots.withdraw()) == [4, 5, 6]

    slots.all_here.wait(20)
    slots.close(20)
    assert slots._unfinished == 0
