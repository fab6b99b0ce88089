"""A commit whose answer never arrives: the network breaks between the two."""

import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from django.db import connections

from durable_workflows.core.records import QueueView, Verdict
from durable_workflows.models import Step, Workflow
from durable_workflows.store import Store, get_store, pg_connection
from tests.door import Door
from tests.store.conftest import outcome, start, step, suspend, until

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]


class Wire(Door):
    """A way to the server that can swallow the next answer and break."""

    pen: Store  # a store whose connections lead through here
    swallows = False
    broken = 0

    def carry(self, back: socket.socket, front: socket.socket) -> None:
        while data := back.recv(65536):
            if self.swallows:
                self.swallows = False
                self.broken += 1
                return
            front.sendall(data)


@pytest.fixture
def wire(transactional_db) -> Iterator[Wire]:
    params = connections["default"].get_connection_params()
    wire = Wire(str(params.get("host") or "127.0.0.1"), params.get("port") or 5432)
    through = {**params, "host": "127.0.0.1", "port": wire.port, **Door.OPTIONS}

    def connect(using):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connections[using], "get_connection_params", lambda: dict(through))
            return pg_connection.connect(using)

    pen = wire.pen = get_store("default").dedicated()
    pen.session.dialect = SimpleNamespace(**{**vars(pg_connection), "connect": connect})
    pen.session.raw()
    yield wire
    pen.close()
    wire.close()


@pytest.fixture
def store(dedicated):
    return dedicated()


ENTRIES = {
    "step": lambda run: step(run),
    "start": lambda run: start(run, f"{run.workflow_id}-1-1", f"{run.workflow_id}-1-2"),
    "outcome": lambda run: outcome(run),
    "error": lambda run: outcome(run, "ERROR", output=None, error="{}"),
    "suspension": lambda run: suspend(run, until(4e9), 60),
}


@pytest.mark.parametrize("kind", ENTRIES)
def test_an_entry_whose_answer_was_lost_is_known_as_ones_own(wire, world, worker, kind):
    run = world.run(worker)
    entry = ENTRIES[kind](run)
    assert wire.pen.write([ENTRIES[kind](world.run(worker, "z"))]) is None  # prepares it
    wire.swallows = True

    answers = wire.pen.write([entry])

    assert wire.broken == 1
    assert answers in (None, [Verdict.RECORDED])
    assert Step.objects.filter(workflow_id=run.id).count() == (kind in ("step", "start"))
    assert Workflow.objects.filter(parent=run.id).count() == 2 * (kind == "start")
    assert world.status().status == {"outcome": "SUCCESS", "error": "ERROR"}.get(kind, "PENDING")


def test_a_batch_whose_answer_was_lost_is_written_once(wire, world, worker):
    def batch(names):
        makers = [ENTRIES[kind] for kind in ("step", "start", "outcome", "suspension")]
        return [make(world.run(worker, name)) for make, name in zip(makers, names, strict=True)]

    assert wire.pen.write(batch("wxyz")) is None  # prepares the statements
    entries = batch("abcd")
    wire.swallows = True

    answers = wire.pen.write(entries)

    assert wire.broken == 1
    assert answers in (None, [Verdict.RECORDED] * 4)
    assert Step.objects.count() == 2 * 2
    assert Workflow.objects.count() == 2 * 6


def test_a_suspension_whose_answer_was_lost_is_ones_own_after_somebody_else_began(
    wire, world, worker
):
    """It was woken and claimed before the answer was asked for again."""
    run = world.run(worker)
    entry = suspend(run, until(4e9), None)
    assert world.write(entry) is None
    Workflow.objects.update(wake_at=None)
    assert world.claimed(world.enlist()) == ["a"]

    assert wire.pen.write([entry]) == [Verdict.RECORDED]


def test_a_claim_whose_answer_was_lost_is_released_by_the_beat(wire, world, worker):
    def claim():
        return wire.pen.claim(worker, "me", ["f"], [QueueView("")], 10)

    assert claim() == []  # prepares the statement
    world.create("a")
    wire.swallows = True

    claims = claim()

    assert wire.broken == 1
    assert claims == []  # the first try took it, and nobody knows
    assert world.store.beat(worker).owned == 1  # what the keeper compares with what it holds
    assert world.store.release(worker, [Workflow.objects.get().pk]) == 1
    assert world.claimed(world.enlist()) == ["a"]
