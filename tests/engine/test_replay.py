"""A workflow that runs again is answered from what is recorded, or stopped where its code changed."""

import asyncio
import enum
import logging
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from durable_workflows import sleep, sleep_async, start_workflow, step, workflow
from durable_workflows.errors import InterleavedSteps, NonDeterminism
from durable_workflows.models import Workflow
from durable_workflows.testing import run_until_idle

pytestmark = pytest.mark.django_db


class Broken(Exception):
    def __init__(self, code, detail=""):
        super().__init__(code, detail)
        self.code, self.detail = code, detail


class Color(enum.Enum):
    RED = "red"


# -- recorded steps are not called again --------------------------------------------


def test_recorded_steps_are_not_called_again(calls, rows):
    @step
    def doubled(number):
        calls.append(number)
        return number * 2

    @workflow
    def summing(count):
        return sum(doubled(number) for number in range(count))

    handle = start_workflow(summing, 10)
    run_until_idle()
    rows.forget_end(handle, after=6)
    run_until_idle()

    assert handle.get_result() == 90
    assert calls == [*range(10), 6, 7, 8, 9]


def test_recorded_steps_of_an_async_workflow_are_not_called_again(calls, rows):
    @step
    async def doubled(number):
        calls.append(number)
        return number * 2

    @workflow
    async def summing(count):
        return sum([await doubled(number) for number in range(count)])

    handle = start_workflow(summing, 10)
    run_until_idle()
    rows.forget_end(handle, after=6)
    run_until_idle()

    assert handle.get_result() == 90
    assert calls == [*range(10), 6, 7, 8, 9]


def test_a_recorded_error_that_was_caught_is_raised_again(calls, rows):
    caught = []

    @step
    def charge():
        calls.append("charge")
        raise Broken("declined", "card")

    @step
    def refund():
        calls.append("refund")
        return "refunded"

    @workflow
    def paying():
        try:
            charge()
        except Broken as error:
            caught.append((type(error), error.args, error.code, error.detail))
            return refund()

    handle = start_workflow(paying)
    run_until_idle()
    rows.forget_end(handle, after=1)
    run_until_idle()

    assert handle.get_result() == "refunded"
    assert caught == [(Broken, ("declined", "card"), "declined", "card")] * 2
    assert calls == ["charge", "refund", "refund"]


def test_an_error_nobody_catches_fails_the_workflow_and_its_replay_alike(calls, rows):
    @step
    async def charge():
        calls.append("charge")
        raise Broken("declined")

    @workflow
    async def paying():
        await charge()

    handle = start_workflow(paying)
    for _ in range(2):
        run_until_idle()
        with pytest.raises(Broken, match="declined"):
            handle.get_result()
        assert rows.status(handle) == "ERROR"
        rows.forget_end(handle)
    assert calls == ["charge"]


VALUES = [
    None,
    True,
    7,
    2**70,
    1.5,
    float("inf"),
    "text\n\0",
    b"\xff",
    (1, [2, (3,)]),
    {1: "one", (2, 3): None},
    {"$": "tag"},
    frozenset((1, 2)),
    [{}, [], ()],
    Decimal("1.10"),
    UUID(int=7),
    datetime(2026, 7, 28, 12, 0, 0, 5, tzinfo=UTC),
    date(2026, 2, 28),
    timedelta(days=-1, microseconds=1),
    Color.RED,
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_is_the_same_in_the_first_run_and_in_replay(rows, value):
    seen = []

    @step
    def making():
        return value

    @workflow
    def looking():
        made = making()
        seen.append((made, type(made), repr(made)))
        return made

    handle = start_workflow(looking)
    run_until_idle()
    rows.forget_end(handle)
    run_until_idle()

    assert seen == [(value, type(value), repr(value))] * 2
    assert handle.get_result() == value
    assert type(handle.get_result()) is type(value)


def test_what_the_first_run_changes_in_a_result_is_not_in_the_record(rows):
    @step
    def listing():
        return [1, 2]

    @workflow
    def growing():
        numbers = listing()
        numbers.append(len(numbers))
        return numbers

    handle = start_workflow(growing)
    run_until_idle()
    rows.forget_end(handle)
    run_until_idle()

    assert handle.get_result() == [1, 2, 2]
    assert handle.get_result() is not handle.get_result()


# -- unchanged code is never refused -------------------------------------------------


def test_steps_side_by_side_may_end_in_any_order(calls, rows):
    @step
    async def slow(number, gates):
        calls.append(number)
        for _ in range(gates):
            await asyncio.sleep(0)
        return number

    @workflow
    async def fan():
        first = await asyncio.gather(*(slow(number, 9 - number) for number in range(9)))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(slow(number, number)) for number in range(9, 12)]
        return first + [task.result() for task in tasks] + [await slow(12, 0)]

    handle = start_workflow(fan)
    run_until_idle()
    for last in (12, 9, 4, 0):
        rows.forget_end(handle, after=last)
        run_until_idle()
        assert handle.get_result() == list(range(13))
    assert len(calls) == 13 + 1 + 4 + 9 + 13


def test_steps_in_a_generator_and_a_context_manager_are_replayed(rows, calls):
    from contextlib import contextmanager

    @step
    def note(what):
        calls.append(what)
        return what

    @contextmanager
    def bracket():
        yield note("open")
        note("close")

    def several():
        for number in range(3):
            yield note(number)

    @workflow
    def bracketed():
        with bracket() as opened:
            return [opened, *several()]

    handle = start_workflow(bracketed)
    run_until_idle()
    before = list(calls)
    for last in (5, 3, 1):
        rows.forget_end(handle, after=last)
        run_until_idle()
        assert handle.get_result() == ["open", 0, 1, 2]
    assert before == ["open", 0, 1, 2, "close"]


def test_other_arguments_are_not_changed_code(rows, calls):
    extra = [0]

    @step
    def note(what):
        calls.append(what)
        return what

    @workflow
    def noting():
        return note(extra[0])

    handle = start_workflow(noting)
    run_until_idle()
    rows.forget_end(handle)
    extra[0] = 1
    run_until_idle()

    assert handle.get_result() == 0
    assert calls == [0]


# -- changed code is stopped -----------------------------------------------------------


@pytest.fixture
def story(calls):
    """Return a sync and an async workflow that make the calls of a changeable list."""
    names = list("abcdefghij")
    plan: list = list(names)

    def make(name):
        def body():
            calls.append(name)
            return name

        async def body_async():
            calls.append(name)
            return name

        return step(name=name)(body), step(name=name)(body_async)

    made = {name: make(name) for name in [*names, "x", "y"]}

    @workflow
    def telling():
        for name in plan:
            sleep(0.001) if name == "sleep" else made[name][0]()

    @workflow
    async def telling_async():
        for name in plan:
            await (sleep_async(0.001) if name == "sleep" else made[name][1]())

    return plan, {"sync": telling, "async": telling_async}


def swapped(first: int, second: int) -> str:
    order = list("abcdefghij")
    order[first - 1], order[second - 1] = order[second - 1], order[first - 1]
    return "".join(order)


MUTATIONS = [
    *[(swapped(k, k + 1), k) for k in range(1, 10)],
    (swapped(1, 10), 1),
    (swapped(3, 8), 3),
    *[("abcdefghij"[: k - 1] + "x" + "abcdefghij"[k - 1 :], k) for k in (1, 5, 10)],
    *[("abcdefghij"[: k - 1] + "abcdefghij"[k:], k) for k in (1, 5, 9)],
    *[("abcdefghij"[: k - 1] + "y" + "abcdefghij"[k:], k) for k in (1, 6, 10)],
    ("abccdefghij", 4),
    ("aabbccddeeffgghhiijj", 2),
    ("jihgfedcba", 1),
    ("abcde", 6),
    ("abcdefghi", 10),
    ("", 1),
]


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("changed, position", MUTATIONS)
def test_changed_code_is_stopped_before_any_further_step(
    story, calls, rows, colour, changed, position
):
    plan, functions = story
    handle = start_workflow(functions[colour])
    run_until_idle()
    rows.forget_end(handle)
    calls.clear()
    plan[:] = list(changed)
    run_until_idle()

    assert calls == []
    assert rows.status(handle) == "ERROR"
    with pytest.raises(NonDeterminism) as caught:
        handle.get_result()
    recorded = f"step {'abcdefghij'[position - 1]!r}"
    asked = f"step {changed[position - 1]!r}" if len(changed) >= position else "the workflow's end"
    assert caught.value.position == position
    assert (caught.value.recorded, caught.value.asked) == (recorded, asked)
    assert recorded in rows.of(handle).error


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_another_kind_of_call_is_changed_code(story, calls, rows, colour):
    plan, functions = story
    handle = start_workflow(functions[colour])
    run_until_idle()
    rows.forget_end(handle)
    calls.clear()
    plan[3] = "sleep"
    run_until_idle()

    with pytest.raises(NonDeterminism, match=r"was step 'd'.*asks for sleep 'sleep'"):
        handle.get_result()
    assert calls == []


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_code_that_grew_at_its_end_goes_on(story, calls, rows, colour):
    plan, functions = story
    handle = start_workflow(functions[colour])
    run_until_idle()
    rows.forget_end(handle)
    calls.clear()
    plan += ["x", "y"]
    run_until_idle()

    assert rows.status(handle) == "SUCCESS"
    assert calls == ["x", "y"]


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_workflow_that_now_fails_early_shows_both_reasons(rows, colour):
    broken = []

    @step(name="a")
    def one():
        return 1

    @workflow
    def failing():
        if broken:
            raise Broken("early")
        return one()

    @workflow
    async def failing_async():
        if broken:
            raise Broken("early")
        return await step(name="a")(_async)()

    async def _async():
        return 1

    handle = start_workflow(failing if colour == "sync" else failing_async)
    run_until_idle()
    rows.forget_end(handle)
    broken.append(True)
    run_until_idle()

    with pytest.raises(NonDeterminism, match="the workflow's end") as caught:
        handle.get_result()
    assert isinstance(caught.value.__cause__, Broken)


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_code_that_catches_everything_still_ends_as_changed(rows, calls, colour):
    changed = []

    def note(name):
        return step(name=name)(lambda: calls.append(name))

    def note_async(name):
        async def body():
            calls.append(name)

        return step(name=name)(body)

    @workflow
    def stubborn():
        for name in ["x", "b", "c"] if changed else ["a", "b"]:
            try:
                note(name)()
            except BaseException:
                pass
        return "fine"

    @workflow
    async def stubborn_async():
        for name in ["x", "b", "c"] if changed else ["a", "b"]:
            try:
                await note_async(name)()
            except BaseException:
                pass
        return "fine"

    handle = start_workflow(stubborn if colour == "sync" else stubborn_async)
    run_until_idle()
    assert handle.get_result() == "fine"
    rows.forget_end(handle)
    changed.append(True)
    run_until_idle()

    with pytest.raises(NonDeterminism, match="position 1 was step 'a'"):
        handle.get_result()
    assert calls == ["a", "b"]


def test_changed_code_hurts_nobody_else(story, rows, calls):
    plan, functions = story
    changed = start_workflow(functions["sync"])
    run_until_idle()
    rows.forget_end(changed)
    plan.reverse()
    neighbour = start_workflow(functions["async"])
    run_until_idle()

    assert rows.status(changed) == "ERROR"
    assert rows.status(neighbour) == "SUCCESS"


def test_changed_code_is_logged_at_its_workflow(story, rows, caplog):
    plan, functions = story
    handle = start_workflow(functions["sync"])
    run_until_idle()
    rows.forget_end(handle)
    plan.clear()
    with caplog.at_level(logging.INFO, "durable_workflows"):
        run_until_idle()

    assert "failed with NonDeterminism" in caplog.text


# -- inner tasks ------------------------------------------------------------------------


def test_an_inner_task_may_make_one_durable_call_only(rows, calls):
    @step
    async def note(what):
        calls.append(what)

    async def branch(number):
        await note((number, 1))
        await note((number, 2))

    @workflow
    async def branching():
        await asyncio.gather(branch(1), branch(2))

    handle = start_workflow(branching)
    run_until_idle()

    with pytest.raises(InterleavedSteps, match="child workflow") as caught:
        handle.get_result()
    assert caught.value.workflow_id == handle.workflow_id
    assert "map_steps" not in str(caught.value)
    assert sorted(calls) == [(1, 1), (2, 1)]


def test_interleaving_that_is_swallowed_still_fails_the_workflow(rows):
    @step
    async def note(): ...

    async def branch():
        await note()
        try:
            await note()
        except Exception:
            pass

    @workflow
    async def branching():
        await asyncio.create_task(branch())
        return "passed"

    handle = start_workflow(branching)
    run_until_idle()

    with pytest.raises(InterleavedSteps):
        handle.get_result()


def test_the_main_task_may_go_on_after_its_inner_tasks(rows):
    @step
    async def note(number):
        return number

    @workflow
    async def mixing():
        inner = asyncio.create_task(note(1))
        own = await note(2)
        return own, await inner, await note(3)

    handle = start_workflow(mixing)
    run_until_idle()
    rows.forget_end(handle, after=0)
    run_until_idle()

    assert handle.get_result() == (2, 1, 3)


def test_positions_are_those_of_the_calls(rows):
    @step
    def one(): ...

    @workflow
    def telling():
        one()
        sleep(0.001)
        sleep(0)
        one()

    handle = start_workflow(telling)
    run_until_idle()

    assert rows.steps(handle) == [(1, "step", "one"), (2, "sleep", "sleep"), (3, "step", "one")]
    assert Workflow.objects.get().attempt >= 1


# -- tasks ----------------------------------------------------------------------------


@step(name="a")
async def call_a():
    return "a"


@step(name="b")
async def call_b():
    return "b"


@step(name="c")
async def call_c():
    return "c"


async def later(turns, call):
    for _ in range(turns):
        await asyncio.sleep(0)
    return await call()


async def after(seconds, call):
    await asyncio.sleep(seconds)
    return await call()


@workflow
async def beside_at_once():
    task = asyncio.create_task(call_a())
    values = [await call_b(), await call_c()]
    await sleep_async(60)
    return [*values, await task]


@workflow
async def beside_after_some_turns():
    task = asyncio.create_task(later(2, call_a))
    values = [await call_b(), await call_c()]
    await sleep_async(60)
    return [*values, await task]


@workflow
async def beside_after_a_while():
    task = asyncio.create_task(after(0.01, call_a))
    values = [await call_b()]
    await asyncio.sleep(0.03)
    values += [await call_c()]
    await sleep_async(60)
    return [*values, await task]


@pytest.mark.parametrize(
    "function", [beside_at_once, beside_after_some_turns, beside_after_a_while]
)
def test_tasks_beside_each_other_are_replayed_in_the_order_they_had(rows, function):
    """Recorded calls return at once, so that a task could overtake another in replay."""
    handle = start_workflow(function)
    run_until_idle()  # the sleep is a suspension, so what comes after it is a replay

    assert handle.get_result() == ["b", "c", "a"]
    assert rows.of(handle).attempt == 2
    names = [name for _, kind, name in rows.steps(handle) if kind == "step"]
    rows.forget_end(handle)
    run_until_idle()
    assert [name for _, kind, name in rows.steps(handle) if kind == "step"] == names
    assert handle.get_result() == ["b", "c", "a"]


def test_changed_code_beside_a_task_that_waits_is_found_all_the_same(rows, calls):
    @workflow
    async def around():
        task = asyncio.create_task(asyncio.Event().wait())
        if calls:
            await call_c()
        await call_b()
        calls.append("first")
        await sleep_async(60)
        task.cancel()

    handle = start_workflow(around)
    run_until_idle()
    with pytest.raises(NonDeterminism, match="position 1 was"):
        handle.get_result()
