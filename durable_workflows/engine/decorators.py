"""@workflow and @step: functions stay functions, and gain a spec."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, ParamSpec, TypeVar, overload

from durable_workflows.core.flow import StepSpec, step_flow
from durable_workflows.core.names import check_name, check_text
from durable_workflows.core.records import Options
from durable_workflows.core.replay import STEP
from durable_workflows.core.retry import Retry
from durable_workflows.core.waits import LONGEST_WAIT
from durable_workflows.engine.aperform import adrive
from durable_workflows.engine.call import call_workflow, call_workflow_async
from durable_workflows.engine.here import here
from durable_workflows.engine.leaving import forever
from durable_workflows.engine.perform import drive, refuse_inside_transaction
from durable_workflows.engine.registry import WorkflowSpec, registry
from durable_workflows.engine.run import Run
from durable_workflows.errors import NotRegistered

P = ParamSpec("P")
R = TypeVar("R")


class Configured(Generic[P, R]):
    """A workflow function with options for its starts; made by `.using()`.

    It goes wherever the function goes: called, started, enqueued.
    """

    def __init__(self, spec: WorkflowSpec, options: Options):
        self.spec, self.options = spec, options
        functools.update_wrapper(self, spec.function)

    def using(self, **changes: Any) -> Configured[P, R]:
        """Return a copy with other options; see workflow()."""
        return Configured(self.spec, checked(self.options.changed(**changes)))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        call = call_workflow_async if self.spec.is_async else call_workflow
        return call(self.spec, self.options, args, kwargs)  # type: ignore[return-value]


class WorkflowFunction(Configured[P, R]):
    """What the type checker sees of a decorated function: itself, with `.using()`."""


@overload
def workflow(function: Callable[P, R], /) -> WorkflowFunction[P, R]: ...


@overload
def workflow(
    *,
    name: str | None = None,
    aliases: Sequence[str] = (),
    max_recovery_attempts: int | None = 100,
) -> Callable[[Callable[P, R]], WorkflowFunction[P, R]]: ...


def workflow(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    aliases: Sequence[str] = (),
    max_recovery_attempts: int | None = 100,
) -> Any:
    """Make a function durable: each of its steps is recorded before the next begins.

    `name` is what rows say instead of `<app label>.<qualname>`; `aliases` are names it
    had before. A workflow that was taken over from a dead worker
    `max_recovery_attempts` times without recording a step is given up; None never is.

    Called directly it runs here and now. `.using(workflow_id=…, priority=…, delay=…,
    timeout=…, …)` returns a copy whose starts have these options.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        if not inspect.isfunction(function):
            raise TypeError(f"@workflow decorates a function, not {function!r}.")
        if max_recovery_attempts is not None and max_recovery_attempts < 0:
            raise ValueError("max_recovery_attempts can't be negative.")
        spec = WorkflowSpec(function, name, tuple(aliases), max_recovery_attempts)
        registry.add(spec)
        wrapper = _async_workflow(spec) if spec.is_async else _sync_workflow(spec)
        wrapper.spec, wrapper.options = spec, Options()  # type: ignore[attr-defined]
        wrapper.using = lambda **changes: Configured(spec, checked(Options(**changes)))  # type: ignore[attr-defined]
        return wrapper

    return decorate if function is None else decorate(function)


def _sync_workflow(spec: WorkflowSpec) -> Callable[..., Any]:
    @functools.wraps(spec.function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return call_workflow(spec, Options(), args, kwargs)

    return wrapper


def _async_workflow(spec: WorkflowSpec) -> Callable[..., Any]:
    @functools.wraps(spec.function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await call_workflow_async(spec, Options(), args, kwargs)

    return wrapper


def checked(options: Options) -> Options:
    """Return the options, or raise ValueError for one that can't be."""
    if options.workflow_id is not None:
        check_name(options.workflow_id, "A workflow id")
    for text, what in (
        (options.deduplication_id, "A deduplication id"),
        (options.partition_key, "A partition key"),
        (options.app_version, "An app version"),
        (options.user, "A user's name"),
    ):
        if text is not None:
            check_text(text, what)
    for field in ("delay", "timeout"):
        seconds = getattr(options, field)
        if seconds is not None and not 0 <= seconds <= LONGEST_WAIT:
            raise ValueError(
                f"{field} is a number of seconds from 0 to {LONGEST_WAIT:,} (a hundred years), "
                f"not {seconds!r}."
            )
    if not -(2**31) <= options.priority < 2**31:
        raise ValueError(f"priority is a 32-bit integer, not {options.priority!r}.")
    return options


def spec_of(function: Any) -> tuple[WorkflowSpec, Options]:
    """Return the spec and options of a decorated function or a `.using()` copy of one."""
    spec = getattr(function, "spec", None)
    if not isinstance(spec, WorkflowSpec):
        raise NotRegistered(f"{function!r} is no workflow. Decorate it with @workflow.")
    return spec, function.options


@overload
def step(function: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def step(
    *,
    name: str | None = None,
    max_attempts: int = 1,
    interval_seconds: float = 1.0,
    backoff_rate: float = 2.0,
    should_retry: Callable[[Exception], bool | Awaitable[bool]] | None = None,
    timeout_seconds: float | None = None,
    atomic: bool = False,
    max_idle: float = 60.0,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def step(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a step: called by a workflow, its result is recorded once.

    Elsewhere, also inside another step, it is the plain function.

    `max_attempts` counts tries in all (default 1: no retry); between two tries pass
    `interval_seconds`, times `backoff_rate` for each further one, at most an hour; an
    error of which `should_retry(error)` says False is not retried. When the tries are
    used up MaxStepRetriesExceeded is raised. `timeout_seconds` bounds one try of an async
    step. `atomic=True` runs the body in a transaction of the engine's alias that also holds the
    record: exactly once; it may leave that transaction idle for `max_idle` seconds.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        spec = make_step(function, **options)
        wrapper = _async_step(spec) if spec.is_async else _sync_step(spec)
        wrapper.step_spec = spec  # type: ignore[attr-defined]
        return wrapper

    return decorate if function is None else decorate(function)


def make_step(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    max_attempts: int = 1,
    interval_seconds: float = 1.0,
    backoff_rate: float = 2.0,
    should_retry: Callable[[Exception], bool | Awaitable[bool]] | None = None,
    timeout_seconds: float | None = None,
    atomic: bool = False,
    max_idle: float = 60.0,
) -> StepSpec:
    """Return the checked spec of a step; raise TypeError or ValueError for what can't be."""
    if not callable(function):
        raise TypeError(f"@step decorates a function, not {function!r}.")
    is_async = inspect.iscoroutinefunction(function)
    if name is not None:
        check_name(name, "A step name")
    if atomic and is_async:
        raise TypeError(
            f"{function.__qualname__}: an atomic step is a plain def, since Django's transactions "
            "are; an async workflow awaits run_step_async() of it."
        )
    if timeout_seconds is not None:
        if not is_async:
            raise TypeError(
                f"{function.__qualname__}: timeout_seconds is for async steps; a thread can't be "
                "stopped. Give the call inside the step a timeout of its own."
            )
        if not (timeout_seconds > 0 and math.isfinite(timeout_seconds)):
            raise ValueError(f"timeout_seconds is above zero, not {timeout_seconds!r}.")
    retry = Retry(max_attempts, float(interval_seconds), float(backoff_rate), should_retry)
    default = getattr(function, "__qualname__", type(function).__name__)
    return StepSpec(
        name or default, function, retry, timeout_seconds, atomic, float(max_idle), is_async
    )


def _sync_step(spec: StepSpec) -> Callable[..., Any]:
    function = spec.function

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        run = here.get()
        if type(run) is not Run:
            return function(*args, **kwargs)
        return perform_step(run, spec, args, kwargs)

    return wrapper


def _async_step(spec: StepSpec) -> Callable[..., Any]:
    function = spec.function

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        run = here.get()
        if type(run) is not Run:
            return await function(*args, **kwargs)
        return await perform_step_async(run, spec, args, kwargs)

    return wrapper


def perform_step(run: Run, spec: StepSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if run.leaving is None:
        refuse_inside_transaction(run, f"Step {spec.name}")
    call = run.take(spec.name, STEP)
    return drive(run, call, step_flow(call, spec, args, kwargs, run.runtime.payload_max_bytes))


async def perform_step_async(
    run: Run, spec: StepSpec, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """See perform_step()."""
    if run.ends:
        await forever(run)
    call = await run.take_turn(spec.name, STEP)
    flow = step_flow(call, spec, args, kwargs, run.runtime.payload_max_bytes)
    return await adrive(run, call, flow)


def run_step(function: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
    """Run any function as a step of the sync workflow here, also an async one.

    Options go by `step(…)(function)`. Outside a workflow it is a plain call.
    """
    spec = getattr(function, "step_spec", None) or make_step(function)
    run = here.get()
    if type(run) is Run:
        return perform_step(run, spec, args, kwargs)
    if spec.is_async:
        from asgiref.sync import async_to_sync

        return async_to_sync(spec.function)(*args, **kwargs)
    return spec.function(*args, **kwargs)


async def run_step_async(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """See run_step(); a sync function runs in a step thread, off the loop."""
    spec = getattr(function, "step_spec", None) or make_step(function)
    run = here.get()
    if type(run) is Run:
        return await perform_step_async(run, spec, args, kwargs)
    if spec.is_async:
        return await spec.function(*args, **kwargs)
    from asgiref.sync import sync_to_async

    return await sync_to_async(spec.function)(*args, **kwargs)
