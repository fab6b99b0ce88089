"""The parts of a worker that do something again and again, and what keeps one from another."""

import logging
import threading

import pytest

from durable_workflows.core.records import Claim, NewWorkflow, WorkerFacts
from durable_workflows.engine.process import process
from durable_workflows.store.wakeup import CANCELLED
from durable_workflows.worker import keeper as keeper_module
from durable_workflows.worker import service as service_module
from durable_workflows.worker.claimer import Claimer
from durable_workflows.worker.crew import Crew
from durable_workflows.worker.housekeeper import Housekeeper
from durable_workflows.worker.keeper import Keeper
from durable_workflows.worker.service import Service


class Stumbling(Service):
    """Its pause fails once."""

    name = "stumbling"

    def __init__(self):
        super().__init__()
        self.ticks = 0
        self.ticked_again = threading.Event()

    def tick(self) -> float:
        self.ticks += 1
        if self.ticks == 2:
            self.ticked_again.set()
        return 60.0

    def pause(self, seconds: float) -> None:
        if self.ticks == 1:
            raise ValueError("no such descriptor")
        super().pause(seconds)


def test_a_service_whose_pause_fails_goes_on(monkeypatch, caplog):
    monkeypatch.setattr(service_module, "AFTER_FAILURE", 0.0)
    service = Stumbling()
    service.start()
    assert service.ticked_again.wait(20)
    service.stop()
    service.join()
    assert "no such descriptor" in caplog.text


class Part:
    """What a housekeeper gives turns to."""

    def __init__(self, act):
        self.act = act

    def tick(self, store) -> float:
        self.act()
        return 30.0


@pytest.fixture
def crew():
    here = process()
    crew = Crew("me", here.registry, 1, 0)
    crew.worker = here.store.enlist(WorkerFacts("worker", "host", 7), 30.0)
    return crew


@pytest.fixture
def keeper(crew):
    return Keeper(process(), crew, lambda store: 0)


def claim(crew: Crew) -> Claim:
    store = process().store
    store.add([NewWorkflow("a", "f", "[]")])
    return store.claim_one("a", crew.worker, "me")


@pytest.mark.django_db
def test_a_claim_in_flight_is_not_released_however_often_one_looks(crew, keeper):
    """Looks may follow each other at once: each cancellation asks for one."""
    store = process().store
    claim(crew)
    for _ in range(5):
        keeper.tick(store)
    assert store.count_owned(crew.worker) == 1


@pytest.mark.django_db
def test_what_nobody_here_has_is_released_after_a_while(crew, keeper, monkeypatch):
    store = process().store
    claim(crew)
    keeper.tick(store)
    monkeypatch.setattr(keeper_module, "LASTING", 0.0)
    keeper.tick(store)
    assert store.count_owned(crew.worker) == 0


@pytest.mark.django_db(transaction=True)
def test_a_part_that_fails_keeps_no_other_from_its_turn(crew, caplog):
    here = process()

    told = []
    broken, lookout = Part(lambda: 1 / 0), Part(lambda: told.append("lookout"))
    housekeeper = Housekeeper(here, broken, lookout, here.open_listener(CANCELLED))
    with caplog.at_level(logging.ERROR):
        assert housekeeper.tick() <= service_module.AFTER_FAILURE
    housekeeper.close()

    assert told == ["lookout"]
    assert "Part failed; again in 1 s" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_a_claimer_that_is_stopped_before_it_began_ends_quietly(crew):
    claimer = Claimer(process(), crew, None)
    claimer.stop()
    claimer._loop()
    assert claimer._listener is None
