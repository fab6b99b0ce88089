"""Races between real connections. Nothing here waits by sleeping."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from durable_workflows.core.records import NewWorkflow, QueueView, WorkerFacts
from durable_workflows.models import Workflow
from tests.store.conftest import for_child, outcome, step, suspend

pytestmark = pytest.mark.django_db(transaction=True)

ROUNDS = 200


def together(*acts: Callable[[], object]) -> list[object]:
    """Run acts at the same time, each in a thread; return what they return."""
    gate = threading.Barrier(len(acts))

    def at_once(act):
        gate.wait(10)
        return act()

    with ThreadPoolExecutor(len(acts)) as threads:
        return [answer.result(60) for answer in [threads.submit(at_once, act) for act in acts]]


def enlist(store) -> int:
    return store.enlist(WorkerFacts("worker", "host", 7), 3600.0)


def test_two_claimers_never_exceed_a_limit(dedicated):
    stores = [dedicated(), dedicated()]
    workers = [enlist(store) for store in stores]
    orders = QueueView("orders", concurrency=3)
    stores[0].declare_queues([orders])
    stores[0].create([NewWorkflow(f"o{n}", "f", "[]", "orders") for n in range(3 * ROUNDS + 20)])

    for _ in range(ROUNDS):
        claims = together(
            *[
                lambda store=store, worker=worker: store.claim(worker, "me", ["f"], [orders], 10)
                for store, worker in zip(stores, workers, strict=True)
            ]
        )
        claimed = [claim for some in claims for claim in some]
        assert len(claimed) == 3
        assert len({claim.id for claim in claimed}) == 3
        assert stores[0].write([outcome(claim) for claim in claimed]) is None


def test_two_claimers_never_get_the_same_row(dedicated):
    stores = [dedicated(), dedicated()]
    workers = [enlist(store) for store in stores]
    stores[0].create([NewWorkflow(f"o{n}", "f", "[]", "orders") for n in range(400)])

    claimed = []
    while Workflow.objects.ready().exists():
        for claims in together(
            *[
                lambda store=store, worker=worker: store.claim(
                    worker, "me", ["f"], [QueueView("orders")], 10
                )
                for store, worker in zip(stores, workers, strict=True)
            ]
        ):
            claimed += [claim.id for claim in claims]

    assert len(claimed) == len(set(claimed)) == 400


def test_ten_threads_that_create_the_same_id_make_one_row(dedicated):
    stores = [dedicated() for _ in range(10)]
    for n in range(20):
        row = NewWorkflow(f"a{n}", "f", "[]")
        created = together(
            *[lambda store=store, row=row: store.create([row])[0] for store in stores]
        )
        assert sorted(one.fresh for one in created) == [False] * 9 + [True]
        assert len({one.id for one in created}) == 1

    assert Workflow.objects.count() == 20


def test_one_of_two_writers_of_a_position_wins(dedicated):
    """Two processes believe to run the same attempt: what no fence can tell apart."""
    stores = [dedicated(), dedicated()]
    worker = enlist(stores[0])
    stores[0].create([NewWorkflow("a", "f", "[]")])
    run = stores[0].claim_one("a", worker, "me")

    for position in range(1, ROUNDS):
        entries = [step(run, position, name=name) for name in ("one", "two")]
        first, second = together(
            *[
                lambda store=store, entry=entry: store.write([entry])
                for store, entry in zip(stores, entries, strict=True)
            ]
        )
        loser = first or second
        assert (first is None) != (second is None)
        assert loser[0].name == ("two" if first else "one")


# A parent suspends while its child ends. Each commits first and looks then.


@pytest.fixture
def family(dedicated):
    """Return a maker of (suspend the parent, end the child), each commit and look, and the row."""
    parents, children = dedicated(), dedicated()
    worker = enlist(parents)

    def look(store, id: int) -> None:
        while store.look([id])[1]:
            pass  # skipped: somebody has it locked

    def make(n: int):
        parents.create([NewWorkflow(f"p{n}", "f", "[]")])
        parent = parents.claim_one(f"p{n}", worker, "me")
        children.create([NewWorkflow(f"c{n}", "f", "[]", parent=parent.id, parent_position=1)])
        child = children.claim_one(f"c{n}", worker, "me")

        def leave() -> None:
            assert parents.write([suspend(parent, for_child(f"c{n}"), 600.0)]) is None
            look(parents, parent.id)

        def end() -> None:
            assert children.write([outcome(child)]) is None
            look(children, parent.id)

        return leave, end, f"p{n}"

    return make


@pytest.mark.parametrize("order", ["suspension first", "end first", "at once"])
def test_a_wake_up_is_never_missed(family, order):
    asleep = []
    for n in range(ROUNDS if order == "at once" else 5):
        leave, end, parent = family(n)
        match order:
            case "suspension first":
                leave(), end()
            case "end first":
                end(), leave()
            case _:
                together(leave, end)
        if not Workflow.objects.ready().filter(workflow_id=parent).exists():
            asleep.append(parent)

    assert asleep == []


def test_the_timer_and_a_producer_do_not_hide_a_row_from_each_other(family, dedicated):
    timer = dedicated()
    asleep = []
    for n in range(ROUNDS):
        leave, end, parent = family(n)
        leave()
        Workflow.objects.filter(workflow_id=parent).update(wake_at="2000-01-01T00:00:00Z")
        together(end, lambda: timer.wake_due(10))
        if not Workflow.objects.ready().filter(workflow_id=parent).exists():
            asleep.append(parent)

    assert asleep == []
