"""How an async run unloads: by parking its waits and cancelling from outside.

Nothing is raised into user code where it waits: gather(return_exceptions=True) would
take it as a value, and a plain gather would leave siblings running. A durable wait
parks instead, its future unresolved. When all that is left of a run is parked calls,
and this has lasted, the run leaves: its tasks are cancelled until they have ended,
and only then is the suspension written, with the waits of every parked call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context
from typing import TYPE_CHECKING, Any

from durable_workflows.core.waits import Wait
from durable_workflows.engine.here import here
from durable_workflows.errors import Leaving, Released, Suspended

if TYPE_CHECKING:
    from durable_workflows.engine.run import Run

logger = logging.getLogger("durable_workflows.run")

ROUNDS = (0.0, 0.001, 0.01, 0.1)  # seconds between two rounds of cancelling; the last repeats
CROWDED = 0.01  # seconds a run that only waits keeps a slot that others wait for
PATIENCE = 5.0  # seconds until a task that can't be cancelled is left behind

# What the engine asks of a loop runs in this context: in a run's own, a timer would count
# as the run's. A new one each time: two loops can't be in the same at once.
nobody = Context


async def forever(run: Run) -> Any:
    """Never return to a leaving run: a future nobody resolves, or its error in place.

    Each round of cancelling costs the loop one turn, whatever the code catches.
    """
    if not run.limb.hosted:
        assert run.leaving is not None
        raise run.leaving
    run.limb.stir()
    while True:
        await asyncio.get_running_loop().create_future()


_left_behind: list[asyncio.Task[Any]] = []


def leave_behind(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Keep tasks that nobody will run again from being collected.

    Collecting one throws GeneratorExit into its code, outside any run: a loop that
    catches everything would never let go of the thread that happened to collect it.
    """
    _left_behind.extend(tasks)


class Limb:
    """What an async run has in flight: its tasks, live and parked calls, and timers."""

    __slots__ = (
        "_bursts",
        "_cancelling_since",
        "_moves",
        "_rounds",
        "hosted",
        "live",
        "loop",
        "main",
        "on_ended",
        "parked",
        "queueing",
        "run",
        "tasks",
        "timers",
    )

    def __init__(self, run: Run, on_ended: Callable[[Run], None] | None = None):
        self.run, self.on_ended = run, on_ended
        self.loop = asyncio.get_running_loop()
        self.hosted = on_ended is not None  # False: inside the caller's own task
        self.main: asyncio.Task[Any] | None = None
        self.tasks: set[asyncio.Task[Any]] | None = None
        self.parked: dict[int, tuple[Wait, asyncio.Future[None]]] = {}
        self.live = 0  # durable calls whose body or entry is under way
        self.timers = 0  # of the run's own, pending
        self.queueing = 0  # tasks that wait in replay for the position of their call
        self._bursts: set[Any] | None = None
        self._moves = 0
        self._rounds = 0
        self._cancelling_since = 0.0

    # -- who may call ------------------------------------------------------

    def may_call(self, task: asyncio.Task[Any] | None) -> bool:
        """Return whether a task may make a durable call: an inner one may make one only."""
        if task is self.main:
            return True
        if self._bursts is None:
            self._bursts = set()
        if task in self._bursts:
            return False
        self._bursts.add(task)
        return True

    def others_may_move(self) -> bool:
        """Return whether the run has tasks beside those that wait for their position."""
        return len(self._remaining()) > self.queueing

    def adopt(self, task: asyncio.Task[Any]) -> None:
        if self.tasks is None:
            self.tasks = set()
        self.tasks.add(task)
        task.add_done_callback(self._task_ended, context=nobody())

    # -- parking -----------------------------------------------------------

    async def park(
        self,
        position: int,
        wait: Wait,
        seconds: float | None,
        arrival: Coroutine[Any, Any, None] | None = None,
    ) -> None:
        """Wait until `seconds` have passed or `arrival` is there, counted as parked."""
        over: asyncio.Future[None] = self.loop.create_future()
        timer = None
        if seconds is not None:
            timer = self.loop.call_later(seconds, _resolve, over, context=nobody())
        bringer = None
        if arrival is not None:
            bringer = self.loop.create_task(arrival, context=nobody())
            bringer.add_done_callback(lambda _: _resolve(over), context=nobody())
        self.parked[position] = (wait, over)
        self.live -= 1
        self.stir()
        try:
            await over
        finally:
            self.live += 1
            self._moves += 1
            if self.run.leaving is None:
                del self.parked[position]
            if timer is not None:
                timer.cancel()
            if bringer is not None:
                bringer.cancel()
        if self.run.leaving is not None:
            await forever(self.run)

    async def doze(self, seconds: float) -> None:
        """Let a moment pass without parking."""
        over: asyncio.Future[None] = self.loop.create_future()
        self.loop.call_later(seconds, _resolve, over, context=nobody())
        await over

    def stir(self) -> None:
        """Look, after a while without a move, whether nothing but parked calls is left."""
        self._moves += 1
        if self.run.stopping and not self.live and self.run.leaving is None and self._runs():
            self._pack()
            self.leave(Suspended() if self.parked else Released())
        elif self._rests():
            runtime = self.run.runtime
            # Also where somebody waits for the slot a task that can go on does so first.
            patience = CROWDED if runtime.crowded() else runtime.suspend_after
            self.loop.call_later(patience, self._look, self._moves, context=nobody())
        elif self.main is not None and self.main.done():
            self._finish_if_ended()

    def stir_soon(self) -> None:
        """See stir(), asked by any thread."""
        if self.hosted:
            self.loop.call_soon_threadsafe(self.stir, context=nobody())

    def _rests(self) -> bool:
        return bool(
            self.hosted
            and self.parked
            and not self.live
            and not self.timers
            and self.run.leaving is None
            and self._runs()
        )

    def _runs(self) -> bool:
        return self.main is not None and not self.main.done()

    def _look(self, moves: int) -> None:
        if moves == self._moves and self._rests():
            self._pack()
            self.leave(Suspended())

    def _pack(self) -> None:
        self.run.waits = {position: wait for position, (wait, _) in self.parked.items()}

    # -- leaving -----------------------------------------------------------

    def leave_soon(self) -> None:
        """Begin to leave, asked by any thread; `run.leaving` says how."""
        if self.hosted and self.run.leaving is not None:
            self.loop.call_soon_threadsafe(self.leave, self.run.leaving, context=nobody())

    def leave(self, how: Leaving) -> None:
        self.run.leaving = how
        if self._cancelling_since == 0.0:
            self._cancelling_since = self.loop.time()
            self._cancel()

    def _cancel(self) -> None:
        remaining = self._remaining()
        if not remaining:
            return
        if self.loop.time() - self._cancelling_since > PATIENCE:
            logger.warning(
                "Workflow %s: %d tasks could not be cancelled and are left behind; "
                "nothing they do is recorded.",
                self.run.claim.workflow_id,
                len(remaining),
            )
            leave_behind(remaining)
            self._end()
            return
        for task in remaining:
            task.cancel()
        pause = ROUNDS[min(self._rounds, len(ROUNDS) - 1)]
        self._rounds += 1
        self.loop.call_later(pause, self._cancel, context=nobody())

    def _remaining(self) -> list[asyncio.Task[Any]]:
        tasks = list(self.tasks or ())
        if self.main is not None and not self.main.done():
            tasks.append(self.main)
        return tasks

    # -- the end -----------------------------------------------------------

    def main_ended(self, _: asyncio.Task[Any]) -> None:
        self._finish_if_ended()

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        assert self.tasks is not None
        self.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen: the workflow's own outcome tells what matters
        if self.main is not None and self.main.done():
            self._finish_if_ended()

    def _finish_if_ended(self) -> None:
        """Outcome last, always: durable calls in flight first, then every other task."""
        if self.live and self.run.leaving is None:
            return  # stir() comes back
        if self.tasks:
            if self._cancelling_since == 0.0:
                self._cancelling_since = self.loop.time()
                self._cancel()
            return
        self._end()

    def _end(self) -> None:
        on_ended, self.on_ended = self.on_ended, None
        if on_ended is not None:
            on_ended(self.run)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


# -- the loop that hosts runs --------------------------------------------------


class _Counted:
    """The callback of a run's own timer: while it is pending the run stays in memory."""

    __slots__ = ("callback", "limb")

    def __init__(self, limb: Limb, callback: Callable[..., Any]):
        self.limb: Limb | None = limb
        self.callback = callback
        limb.timers += 1

    def __call__(self, *args: Any) -> None:
        self.settle()
        self.callback(*args)

    def settle(self) -> None:
        limb, self.limb = self.limb, None
        if limb is not None:
            limb.timers -= 1
            limb.stir()


class _CountedTimer(asyncio.TimerHandle):
    __slots__ = ()

    def cancel(self) -> None:
        callback: Any = self._callback  # type: ignore[attr-defined]
        super().cancel()
        if callback is not None:
            callback.settle()


def equip(loop: Any) -> Callable[[], None]:
    """Make a loop register the tasks and count the timers of the runs it hosts.

    Returns what undoes it.
    """

    def limb_of(context: Context | None) -> Limb | None:
        place = here.get() if context is None else context.get(here)
        if place is None:
            return None
        run: Any = getattr(place, "run", place)  # an InStep knows its run
        return run.limb if run.limb is not None and run.limb.hosted else None

    def make_task(
        loop: asyncio.AbstractEventLoop, coro: Any, context: Context | None = None, **kwargs: Any
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=loop, context=context, **kwargs)
        limb = limb_of(context)
        if limb is not None:
            if limb.main is None:
                limb.main = task
            else:
                limb.adopt(task)
        return task

    plain_call_at, plain_factory = loop.call_at, loop.get_task_factory()

    def call_at(when: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        limb = limb_of(context)
        if limb is None:
            return plain_call_at(when, callback, *args, context=context)
        timer = plain_call_at(when, _Counted(limb, callback), *args, context=context)
        timer.__class__ = _CountedTimer
        return timer

    loop.set_task_factory(make_task)
    loop.call_at = call_at

    def undo() -> None:
        loop.set_task_factory(plain_factory)
        del loop.call_at

    return undo
