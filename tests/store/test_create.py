"""Starting: a row per id, as asked for."""

import pytest
from django.db import transaction

from durable_workflows.core.records import NewWorkflow, Options
from durable_workflows.errors import QueueDeduplicated
from durable_workflows.models import Workflow


def test_the_same_id_again_finds_the_first_one(store, clock):
    first = store.create([NewWorkflow("a", "f", "[1]")], now=clock.now)
    second = store.create([NewWorkflow("a", "g", "[2]")], now=clock.now)

    assert (first[0].fresh, second[0].fresh) == (True, False)
    assert (second[0].id, second[0].name) == (first[0].id, "f")
    assert store.status("a").input == "[1]"


@pytest.mark.parametrize("names", ["a", "abc"])
def test_what_is_surely_new_is_inserted_without_a_look(store, clock, names):
    rows = [NewWorkflow(one, "f", "[1]", "orders", Options(priority=2)) for one in names]

    store.add(rows, now=clock.now)

    found = [store.status(one) for one in names]
    assert [(row.name, row.input, row.queue_name, row.priority) for row in found] == [
        ("f", "[1]", "orders", 2)
    ] * len(names)
    assert {row.status for row in found} == {"ENQUEUED"}


def test_many_are_answered_in_the_order_they_were_asked_for(store, world):
    there = world.create("b")

    created = store.create([NewWorkflow(one, "f", "[]") for one in "abc"])

    assert [one.workflow_id for one in created] == ["a", "b", "c"]
    assert [one.fresh for one in created] == [True, False, True]
    assert created[1].id == there


@pytest.mark.parametrize(
    "queue, delay, status",
    [("", None, "PENDING"), ("orders", None, "ENQUEUED"), ("orders", 5, "DELAYED")],
)
def test_the_status_says_how_it_was_started(world, queue, delay, status):
    world.create(queue=queue, delay=delay)

    assert world.status().status == status


@pytest.mark.parametrize("others", [0, 1])
def test_every_option_is_in_the_row(store, world, clock, others):
    options = Options(
        priority=3,
        delay=90.5,
        timeout=7.25,
        deduplication_id="d",
        partition_key="p",
        app_version="v2",
        attributes={"size": [1, None], "ä": '"'},
        user="ann",
    )
    parent = world.create("parent")
    row = NewWorkflow("a", "f", '["\\u0000 ä"]', "orders", options, parent, 4)
    more = [NewWorkflow(f"other{n}", "f", "[]") for n in range(others)]

    store.create([row, *more], now=clock.now)

    status = store.status("a")
    assert status.input == '["\\u0000 ä"]'
    assert (status.priority, status.deduplication_id, status.queue_partition_key) == (3, "d", "p")
    assert (status.app_version, status.authenticated_user) == ("v2", "ann")
    assert status.attributes == {"size": [1, None], "ä": '"'}
    assert (status.parent_workflow_id, status.queue_name) == ("parent", "orders")
    assert (status.delay_until - clock.now).total_seconds() == 90.5
    assert status.created_at == status.updated_at == clock.now
    assert status.deadline is None  # counts from the first claim


def test_a_deduplication_id_is_taken_once_a_queue(world):
    world.create("a", queue="orders", deduplication_id="d")
    world.create("b", queue="letters", deduplication_id="d")

    with pytest.raises(QueueDeduplicated, match="'orders' already holds a with") as caught:
        world.create("c", queue="orders", deduplication_id="d")

    assert caught.value.holder == "a"
    assert world.status("c") is None


def test_a_deduplication_id_is_free_again_when_its_workflow_has_ended(world, people):
    world.create("a", queue="orders", deduplication_id="d")
    people.cancel("a")

    world.create("b", queue="orders", deduplication_id="d")

    assert world.status("b").deduplication_id == "d"


def test_a_workflow_can_be_created_and_claimed_at_once(callers, world, worker, clock):
    row = NewWorkflow("a", "f", "[1]", options=Options(timeout=5, user="ann"))

    created, claim = callers.create_claimed(row, worker, "me", now=clock.now)

    assert (created.fresh, claim.attempt, claim.worker, claim.user) == (True, 1, worker, "ann")
    assert callers.owned(worker) == [created.id]
    assert (world.status().deadline - clock.now).total_seconds() == 5


def test_a_workflow_that_is_there_is_not_claimed_with_its_creation(callers, world, worker):
    world.create("a")

    created, claim = callers.create_claimed(NewWorkflow("a", "f", "[]"), worker, "me")

    assert (created.fresh, claim) == (False, None)
    assert callers.owned(worker) == []


def test_a_start_rolls_back_with_the_callers_transaction(borrowed):
    with transaction.atomic():
        borrowed.create([NewWorkflow("a", "f", "[]")])
        borrowed.create([NewWorkflow("b", "f", "[]"), NewWorkflow("c", "f", "[]")])
        transaction.set_rollback(True)

    assert not Workflow.objects.exists()


def test_what_is_left_for_the_commit_is_done_after_it(borrowed):
    told = []

    with transaction.atomic():
        borrowed.on_commit(lambda: told.append("first"))
        assert told == []
    borrowed.on_commit(lambda: told.append("second"))

    assert told == ["first", "second"]
