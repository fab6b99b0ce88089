"""Decorated functions stay functions, have a name in rows, and refuse options that can't be."""

import inspect

import pytest

from durable_workflows import run_step, run_step_async, start_workflow, step, workflow
from durable_workflows.engine.decorators import make_step
from durable_workflows.engine.registry import Registry, WorkflowSpec, registry
from durable_workflows.errors import InvalidName, NotRegistered, RegistrationClash
from durable_workflows.models import Workflow
from durable_workflows.testing import run_until_idle


def plain(number: int) -> int:
    """Doubled."""
    return number * 2


async def plain_async(number: int) -> int:
    """Doubled."""
    return number * 2


bare_workflow = workflow(plain)
called_workflow = workflow(name="tests.called")(plain)
async_workflow = workflow(name="tests.plain_async")(plain_async)
bare_step, called_step = step(plain), step(max_attempts=3)(plain)


# -- functions stay functions ---------------------------------------------------


@pytest.mark.parametrize("decorated", [bare_workflow, called_workflow, bare_step, called_step])
def test_a_decorated_function_keeps_its_face(decorated):
    assert decorated.__name__ == "plain"
    assert decorated.__doc__ == "Doubled."
    assert inspect.signature(decorated) == inspect.signature(plain)
    assert not inspect.iscoroutinefunction(decorated)


@pytest.mark.parametrize(
    "decorated", [async_workflow, step(plain_async), step(name="s")(plain_async)]
)
def test_a_decorated_coroutine_function_stays_one(decorated):
    assert inspect.iscoroutinefunction(decorated)


@pytest.mark.parametrize("decorated", [bare_step, called_step])
def test_a_step_outside_a_workflow_is_the_plain_function(decorated):
    assert decorated(4) == 8


def test_an_async_step_outside_a_workflow_is_the_plain_function(on_loop):
    assert on_loop(step(timeout_seconds=0.001)(plain_async)(4)) == 8


def test_run_step_outside_a_workflow_is_a_plain_call_of_either_colour(on_loop):
    assert run_step(plain, 4) == run_step(plain_async, 4) == run_step(bare_step, 4) == 8
    assert on_loop(run_step_async(plain, 4)) == on_loop(run_step_async(plain_async, number=4)) == 8


@pytest.mark.django_db
def test_steps_inside_a_step_are_plain_calls(rows, calls):
    @step
    def inner(number):
        calls.append(number)
        return number

    @step
    def outer(number):
        return inner(number) + inner(number + 1)

    @workflow
    def nesting():
        return outer(1)

    handle = start_workflow(nesting)
    run_until_idle()

    assert handle.get_result() == 3
    assert calls == [1, 2]
    assert rows.steps(handle) == [(1, "step", "outer")]


@pytest.mark.django_db
def test_async_steps_inside_a_step_are_plain_calls(rows):
    @step
    async def inner(number):
        return number

    @step
    async def outer(number):
        return await inner(number) + await inner(number + 1)

    @workflow
    async def nesting():
        return await outer(1)

    handle = start_workflow(nesting)
    run_until_idle()

    assert handle.get_result() == 3
    assert rows.steps(handle) == [(1, "step", "outer")]


@pytest.mark.django_db
def test_a_workflow_called_in_a_step_is_a_plain_call(rows):
    @step
    def calling():
        return called_workflow(4)

    @step
    async def calling_async():
        return await async_workflow(4)

    @workflow
    async def around():
        return await run_step_async(calling) + await calling_async()

    handle = start_workflow(around)
    run_until_idle()

    assert handle.get_result() == 16
    assert Workflow.objects.count() == 1


@pytest.mark.django_db
def test_methods_can_be_steps(rows):
    class Till:
        def __init__(self, rate):
            self.rate = rate

        @step
        def price(self, amount):
            return amount * self.rate

    @workflow
    def buying():
        return Till(3).price(5)

    handle = start_workflow(buying)
    run_until_idle()

    assert handle.get_result() == 15
    assert rows.steps(handle) == [(1, "step", "price")]


@pytest.mark.django_db
def test_any_callable_runs_as_a_step_under_its_own_name(rows):
    class Doubling:
        def __call__(self, number):
            return number * 2

    @workflow
    def calling():
        return (
            run_step(Doubling(), 1),
            run_step(plain, 2),
            run_step(len, "abc"),
            run_step(plain_async, 4),
        )

    handle = start_workflow(calling)
    run_until_idle()

    assert handle.get_result() == (2, 4, 3, 8)
    assert [name for _, _, name in rows.steps(handle)] == [
        "Doubling",
        "plain",
        "len",
        "plain_async",
    ]


# -- names -----------------------------------------------------------------------


def test_a_workflow_is_named_by_app_label_and_qualified_name():
    assert bare_workflow.spec.name == "tests.plain"


def test_a_nested_function_has_its_place_in_its_name():
    @workflow
    def nested(): ...

    assert nested.spec.name == (
        "tests.test_a_nested_function_has_its_place_in_its_name.<locals>.nested"
    )


def test_a_module_of_no_app_gives_its_own_name():
    function = eval("lambda: None", {"__name__": "scripts.nightly"})
    spec = WorkflowSpec(function)
    own = Registry()
    own.add(spec)
    assert spec.name == "scripts.nightly.<lambda>"


def test_a_given_name_stands_as_it_is():
    assert called_workflow.spec.name == "tests.called"
    assert registry.named("tests.called") is called_workflow.spec


def test_a_workflow_is_found_under_the_names_it_had_before():
    @workflow(name="tests.today", aliases=["tests.yesterday", "tests.long_ago"])
    def renamed(): ...

    for name in ("tests.today", "tests.yesterday", "tests.long_ago"):
        assert registry.named(name) is renamed.spec
        assert name in registry.names(is_async=False)
        assert name not in registry.names(is_async=True)


@pytest.mark.django_db
def test_a_row_of_an_old_name_runs_under_its_alias(rows):
    @workflow(name="tests.new_name", aliases=["tests.old_name"])
    def renamed():
        return "ran"

    handle = start_workflow(renamed)
    Workflow.objects.update(name="tests.old_name")
    run_until_idle()

    assert handle.get_result() == "ran"


def test_a_second_function_under_one_name_is_refused_naming_both_places():
    @workflow(name="tests.taken")
    def first(): ...

    with pytest.raises(RegistrationClash) as caught:

        @workflow(name="tests.taken")
        def second(): ...

    assert "first" in str(caught.value)
    assert "second" in str(caught.value)
    assert str(caught.value).count("test_decorators.py") == 2
    assert registry.named("tests.taken") is first.spec


def test_an_alias_that_is_anothers_name_is_refused():
    @workflow(name="tests.occupied")
    def first(): ...

    with pytest.raises(RegistrationClash, match=r"tests\.occupied"):

        @workflow(name="tests.newcomer", aliases=["tests.occupied"])
        def second(): ...

    assert registry.named("tests.occupied") is first.spec


def test_a_clash_found_late_stops_neither_the_first_nor_its_neighbours():
    functions = {}
    for module in ("one", "two"):
        source = compile("def same(): ...\ndef other(): ...", f"{module}.py", "exec")
        exec(source, functions.setdefault(module, {"__name__": f"shop.{module}"}))
    functions["two"]["other"].__qualname__ = "neighbour"
    own = Registry()
    own.labeller = lambda module: "shop"
    first, second, neighbour = (
        WorkflowSpec(functions["one"]["same"]),
        WorkflowSpec(functions["two"]["same"]),
        WorkflowSpec(functions["two"]["other"]),
    )
    for spec in (first, second, neighbour):
        own.add(spec)

    with pytest.raises(RegistrationClash, match=r"one\.py.*two\.py"):
        own.resolve()

    assert own.names(is_async=False) == ["shop.same", "shop.neighbour"]
    assert own.named("shop.same") is first
    with pytest.raises(RegistrationClash):
        second.name


def test_defining_the_same_function_again_replaces_it():
    def define(answer):
        @workflow(name="tests.reloaded")
        def reloaded():
            return answer

        return reloaded

    define(1)
    later = define(2)

    assert registry.named("tests.reloaded") is later.spec


def test_an_unknown_name_is_said_to_be_unknown():
    with pytest.raises(NotRegistered, match=r"tests\.nobody"):
        registry.named("tests.nobody")


@pytest.mark.parametrize("name", ["", "two words", "x" * 300, 7])
def test_a_name_that_breaks_the_rule_is_refused(name):
    with pytest.raises(InvalidName):
        workflow(name=name)(plain)
    with pytest.raises(InvalidName):
        step(name=name)(plain)


@pytest.mark.parametrize("alias", ["", "two words"])
def test_an_alias_that_breaks_the_rule_is_refused(alias):
    with pytest.raises(InvalidName):
        workflow(name="tests.with_alias", aliases=[alias])(plain)


@pytest.mark.django_db
def test_a_function_of_main_is_not_started_where_no_worker_can_import_it():
    def in_main(): ...

    in_main.__module__ = "__main__"
    function = workflow(name="tests.in_main")(in_main)

    with pytest.raises(NotRegistered, match="__main__"):
        start_workflow(function)
    assert not Workflow.objects.exists()


@pytest.mark.django_db
def test_a_function_of_main_runs_inline():
    def in_main():
        return "here"

    in_main.__module__ = "__main__"

    assert workflow(name="tests.in_main_inline")(in_main)() == "here"


@pytest.mark.django_db
def test_what_is_no_workflow_is_not_started():
    with pytest.raises(NotRegistered, match="Decorate it with @workflow"):
        start_workflow(plain, 1)


# -- options -----------------------------------------------------------------------


@pytest.mark.parametrize("thing", [7, "name", len, type("Thing", (), {})])
def test_a_workflow_is_a_function(thing):
    with pytest.raises(TypeError, match="decorates a function"):
        workflow(thing)


def test_a_step_can_be_called():
    with pytest.raises(TypeError, match="decorates a function"):
        step(7)


def test_recoveries_granted_are_not_negative():
    with pytest.raises(ValueError, match="max_recovery_attempts"):
        workflow(max_recovery_attempts=-1)(plain)


@pytest.mark.parametrize(
    "options, error, reason",
    [
        ({"max_attempts": 0}, ValueError, "max_attempts"),
        ({"interval_seconds": -1}, ValueError, "interval_seconds"),
        ({"backoff_rate": 0.9}, ValueError, "backoff_rate"),
        ({"timeout_seconds": 1}, TypeError, "async steps"),
        ({"retries": 3}, TypeError, "retries"),
    ],
)
def test_a_step_refuses_options_that_cannot_be(options, error, reason):
    with pytest.raises(error, match=reason):
        step(**options)(plain)


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_time_limit_is_a_finite_number_above_zero(seconds):
    with pytest.raises(ValueError, match="timeout_seconds"):
        step(timeout_seconds=seconds)(plain_async)


def test_an_atomic_step_is_a_plain_def():
    with pytest.raises(TypeError, match="run_step_async"):
        step(atomic=True)(plain_async)


def test_a_step_carries_its_options():
    spec = make_step(plain, name="charge", max_attempts=5, atomic=True, max_idle=3)
    assert (spec.name, spec.retry.max_attempts, spec.atomic, spec.max_idle) == (
        "charge",
        5,
        True,
        3.0,
    )


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"workflow_id": ""}, "can't be empty"),
        ({"workflow_id": "two words"}, "white space"),
        ({"delay": -1}, "delay"),
        ({"delay": float("inf")}, "delay"),
        ({"timeout": float("nan")}, "timeout"),
        ({"priority": 2**31}, "priority"),
        ({"priority": -(2**31) - 1}, "priority"),
    ],
)
def test_using_refuses_options_that_cannot_be(options, reason):
    with pytest.raises(ValueError, match=reason):
        bare_workflow.using(**options)


def test_using_refuses_an_unknown_option():
    with pytest.raises(TypeError, match="colour"):
        bare_workflow.using(colour="red")


def test_using_makes_a_changed_copy_and_leaves_the_original():
    first = bare_workflow.using(priority=3)
    second = first.using(delay=60)

    assert (second.options.priority, second.options.delay) == (3, 60)
    assert first.options.delay is None
    assert bare_workflow.options.priority == 0
    assert second.__name__ == "plain"
