"""The ringer: the first ring at once, what follows joined, and no ring lost with its thread."""

import os
import resource

import pytest

from durable_workflows.store import wakeup
from durable_workflows.store.wakeup import DONE, READY, Listener, Ringer


class Bell:
    """A store as the ringer knows it; remembers what was notified."""

    supports_notify = True

    def __init__(self, source=None, breaks=False):
        self.source, self.breaks = source, breaks
        self.rung: list[str] = []
        self.made: list[Bell] = []

    def dedicated(self):
        bell = Bell(self, breaks=self.breaks and not self.made)
        self.made.append(bell)
        return bell

    def notify(self, channel):
        if self.breaks:
            raise ValueError("a bug")
        self.rung.append(channel)

    def close(self):
        pass


@pytest.fixture
def bell():
    return Bell()


@pytest.fixture
def hot(monkeypatch):
    """Whoever rings a second time is in a hurry, however slow the machine."""
    monkeypatch.setattr(wakeup, "HOT", 1000.0)


def test_the_first_ring_goes_out_at_once_over_the_callers_connection(bell):
    Ringer(bell).ring(READY, via=bell)
    assert (bell.rung, bell.made) == ([READY], [])


def test_what_follows_closely_is_joined_into_one(bell, hot):
    ringer = Ringer(bell)
    for _ in range(10):
        ringer.ring(READY, via=bell)
    ringer.ring(DONE, via=bell)  # a channel of its own
    ringer.rest()

    assert bell.rung == [READY, DONE]
    assert [other.rung for other in bell.made] == [[READY]]


def test_a_caller_without_a_connection_leaves_it_to_the_thread(bell):
    ringer = Ringer(bell)
    ringer.ring(READY)
    ringer.rest()

    assert [other.rung for other in bell.made] == [[READY]]


def test_without_notifications_only_this_process_hears(bell):
    ringer, heard = Ringer(bell, notify=False), []
    ringer.subscribe(READY, lambda: heard.append("here"))
    ringer.ring(READY, via=bell)
    ringer.ring(DONE, via=bell)

    assert (heard, bell.rung) == (["here"], [])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_ringing_thread_that_failed_is_renewed_by_the_next_ring():
    bell = Bell(breaks=True)
    ringer = Ringer(bell)
    ringer.ring(READY)
    ringer.rest()
    ringer.ring(READY)
    ringer.rest()

    assert [other.rung for other in bell.made] == [[], [READY]]


@pytest.fixture
def many_files():
    """A process that has more than a thousand descriptors open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2048), hard))
    null = os.open(os.devnull, os.O_RDONLY)
    copies = [os.dup(null) for _ in range(1100)]
    yield
    for copy in [null, *copies]:
        os.close(copy)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_listener_with_a_high_descriptor_hears(many_files, bell):
    listener = Listener(bell, [READY], notify=False)
    assert listener._wake.fileno() > 1024

    assert listener.wait(0) is False
    listener.interrupt()
    assert listener.wait(10) is True
    listener.close()
