"""Where runs hand in what must be durable, and wait until it is.

A durable step costs one commit, and commits can be shared: what arrives while one
write is under way is written together by the next. No timer adds latency; a lone
entry is written at once, by the thread that brought it.

There is no flusher for threads. Whoever brings an entry and finds no write under way
takes a pen (a store on a connection of its own) and writes, for itself and for
everything pending, and then passes the pen on: to a waiting thread, whose entry leaves
the queue there and then; else to the writer thread, which serves the coroutines; else
back to the free ones. The second pen is for when a write takes long.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from itertools import pairwise
from queue import SimpleQueue
from typing import Any, Protocol

from asgiref.sync import sync_to_async

from durable_workflows.core.records import Entry, StepEntry, Verdict
from durable_workflows.engine.here import here_is_nobody
from durable_workflows.store.base import Answer, Store

logger = logging.getLogger("durable_workflows")

MOST_ENTRIES = 500
MOST_CHARACTERS = 4 * 1024 * 1024
LONG = 0.005  # seconds after which a write under way holds up the others no more

Done = Callable[["Slip"], None]
Aftermath = Callable[[Store, Sequence[Entry]], None]


class Slip:
    """An entry on its way, and whoever waits for it."""

    __slots__ = (
        "after",
        "answer",
        "done",
        "entry",
        "error",
        "future",
        "gate",
        "loop",
        "pen",
        "settled",
    )

    def __init__(self, entry: Entry):
        self.entry = entry
        self.answer: Answer = Verdict.RECORDED
        self.error: Exception | None = None
        self.gate: threading.Lock | None = None  # a thread, parked
        self.future: asyncio.Future[Answer] | None = None  # a coroutine
        self.done: Done | None = None  # nobody: called when it is settled
        self.loop: asyncio.AbstractEventLoop | None = None  # where future or done belong
        self.after: threading.Lock | None = None  # of the parked thread that this one wakes
        self.pen: Store | None = None  # given to a parked thread that is to write
        self.settled = False  # whoever waits has been told

    def result(self) -> Answer:
        if self.error is not None:
            raise self.error
        return self.answer


class Journal(Protocol):
    def append(self, entry: Entry) -> Answer:
        """Commit an entry and return what became of it. Blocks the calling thread."""

    def submit(self, entry: Entry) -> asyncio.Future[Answer]:
        """See append(), for coroutines."""

    def fire(self, entry: Entry, done: Done) -> None:
        """Accept an entry nobody waits for; `done` is called once it is settled."""

    def fire_from_loop(self, entry: Entry, done: Done) -> None:
        """See fire(); never blocks, and calls `done` on the loop."""


class DirectJournal:
    """The same on the caller's connection, one entry a write: inline runs and tests."""

    def __init__(self, store: Store, aftermath: Aftermath, clock: Any):
        self._store, self._aftermath, self._clock = store, aftermath, clock

    def append(self, entry: Entry) -> Answer:
        answers = self._store.write([entry], patient=True, now=self._clock.now_or_none())
        if answers is not None and answers[0] is not Verdict.RECORDED:
            return answers[0]
        if concerns_others(entry):
            self._aftermath(self._store, [entry])
        return Verdict.RECORDED

    def submit(self, entry: Entry) -> asyncio.Future[Answer]:
        # The caller's context keeps asgiref's thread; the task is not one of the run's.
        context = copy_context()
        context.run(here_is_nobody)
        append = sync_to_async(self.append)(entry)
        return asyncio.get_running_loop().create_task(append, context=context)

    def fire(self, entry: Entry, done: Done) -> None:
        slip = Slip(entry)
        try:
            slip.answer = self.append(entry)
        except Exception as error:
            slip.error = error
        done(slip)

    def fire_from_loop(self, entry: Entry, done: Done) -> None:
        slip = Slip(entry)

        def settle(append: asyncio.Future[Answer]) -> None:
            if (error := append.exception()) is not None:
                slip.error = error  # type: ignore[assignment]
            else:
                slip.answer = append.result()
            done(slip)

        self.submit(entry).add_done_callback(settle)


class GroupJournal:
    """Commits shared by all runs of a process.

    `pens` are dedicated stores. `side` takes the entries whose rows somebody has
    locked; its own pen is patient. `aftermath` is called by the writing thread after
    each commit that ended or suspended runs, before the pen is passed on.
    """

    def __init__(
        self,
        pens: Sequence[Store],
        aftermath: Aftermath,
        *,
        side: GroupJournal | None = None,
        most: int = MOST_ENTRIES,
    ):
        self._aftermath, self._side, self._most = aftermath, side, most
        self._patient = side is None
        self._lock = threading.Lock()
        self._began = 0.0  # when the latest write began
        self._free = list(pens)
        self._pens = list(pens)
        self._parked: deque[Slip] = deque()
        self._others: deque[Slip] = deque()
        self._bell: SimpleQueue[Store | None] = SimpleQueue()
        self._writers = [
            threading.Thread(target=self._serve, name=f"durable-writer-{number}", daemon=True)
            for number in range(len(pens))
        ]
        for writer in self._writers:
            writer.start()

    # -- ways in -----------------------------------------------------------

    def append(self, entry: Entry) -> Answer:
        if self._side is not None and names_foreign_keys(entry):
            return self._side.append(entry)
        _refuse_on_a_deep_stack()
        slip = Slip(entry)
        slip.gate = gate = _own_gate()
        with self._lock:
            pen = self._take_pen()
            if pen is not None:
                batch = self._gather([slip])
            else:
                self._parked.append(slip)
        if pen is None:
            gate.acquire()  # until it is written, or this thread is to write
            if slip.after is not None:
                slip.after.release()
            if slip.pen is None:
                return slip.result()
            pen, slip.pen = slip.pen, None
            with self._lock:
                batch = self._gather([slip])
        slip.gate = None
        slip.settled = True  # whatever comes is told here, by this thread
        self._turn_and_pass_on(pen, batch)
        if slip.answer is Verdict.LOCKED and self._side is not None:
            return self._side.append(entry)
        return slip.result()

    def submit(self, entry: Entry) -> asyncio.Future[Answer]:
        if self._side is not None and names_foreign_keys(entry):
            return self._side.submit(entry)
        slip = Slip(entry)
        slip.loop = asyncio.get_running_loop()
        slip.future = slip.loop.create_future()
        self._post(slip)
        return slip.future

    def fire(self, entry: Entry, done: Done) -> None:
        slip = Slip(entry)
        slip.done = done
        with self._lock:
            pen = self._take_pen()
            if pen is None:
                self._others.append(slip)
                return
            batch = self._gather([slip])
        self._turn_and_pass_on(pen, batch)

    def fire_from_loop(self, entry: Entry, done: Done) -> None:
        slip = Slip(entry)
        slip.loop, slip.done = asyncio.get_running_loop(), done
        self._post(slip)

    def close(self) -> None:
        """Stop the writer threads and give the connections back; nothing may be pending."""
        for _ in self._writers:
            self._bell.put(None)
        for writer in self._writers:
            writer.join(timeout=5)
        for pen in self._pens:
            pen.close()

    # -- the pen -----------------------------------------------------------

    def _post(self, slip: Slip) -> None:
        with self._lock:
            self._others.append(slip)
            pen = self._take_pen()
        if pen is not None:
            self._bell.put(pen)

    def _take_pen(self) -> Store | None:
        """Return a pen for a newcomer, if one may be taken. Called under the lock.

        A second one only while the first takes long: two that write at the same time
        write twice as often, half as much each.
        """
        if not self._free:
            return None
        now = time.monotonic()
        if len(self._free) < len(self._pens) and now - self._began < LONG:
            return None
        self._began = now
        return self._free.pop()

    def _gather(self, batch: list[Slip]) -> list[Slip]:
        """Add what is pending, up to the size of a batch. Called under the lock."""
        for queue in (self._parked, self._others):
            while queue and len(batch) < self._most:
                batch.append(queue.popleft())
        return batch

    def _serve(self) -> None:
        while (pen := self._bell.get()) is not None:
            while True:
                with self._lock:
                    batch = self._gather([])
                    if not batch:
                        # Under the lock that saw the queue empty: no wake-up is lost.
                        self._free.append(pen)
                        break
                try:
                    self._turn(pen, batch)
                except Exception as error:
                    logger.exception("A batch of %d entries could not be settled", len(batch))
                    left = [one for one in batch if not one.settled]
                    for one in left:
                        one.error = one.error or error
                    self._settle(left)

    def _turn(self, pen: Store, batch: list[Slip]) -> None:
        """Write a batch, wake it, and look at those who wait for what it made true."""
        self._write(pen, batch)
        self._tell(pen, self._settle(batch))

    def _turn_and_pass_on(self, pen: Store, batch: list[Slip]) -> None:
        try:
            self._turn(pen, batch)
        except BaseException:  # too little memory or stack: the pen and the others go on
            self._others.extendleft([one for one in batch if not one.settled])
            self._bell.put(pen)
            raise
        self._pass_on(pen)

    def _pass_on(self, pen: Store) -> None:
        with self._lock:
            if self._parked:
                heir = self._parked.popleft()
                heir.pen = pen
                heir.gate.release()  # type: ignore[union-attr]
            elif self._others:
                self._bell.put(pen)
            else:
                self._free.append(pen)

    # -- writing -----------------------------------------------------------

    def _write(self, pen: Store, batch: list[Slip]) -> None:
        self._began = time.monotonic()
        if len(batch) > 1 and _characters(batch) > MOST_CHARACTERS:
            self._halve(pen, batch)
            return
        try:
            answers = pen.write([slip.entry for slip in batch], patient=self._patient)
        except Exception as error:
            if len(batch) > 1:
                self._halve(pen, batch)
                return
            logger.exception("An entry could not be written: %s", type(batch[0].entry).__name__)
            batch[0].error = error
        else:
            if answers is not None:
                for slip, answer in zip(batch, answers, strict=True):
                    slip.answer = answer

    def _halve(self, pen: Store, batch: list[Slip]) -> None:
        """Write the halves apart until the culprit stands alone; the others get their commit."""
        middle = len(batch) // 2
        self._write(pen, batch[:middle])
        self._write(pen, batch[middle:])

    def _settle(self, batch: list[Slip]) -> list[Entry]:
        """Wake those who wait for their entry; return what was written and concerns others."""
        written: list[Entry] = []
        on_loops: dict[asyncio.AbstractEventLoop, list[Slip]] = {}
        parked: list[Slip] = []
        for slip in batch:
            if slip.error is None:
                if slip.answer is Verdict.LOCKED and self._once_more(slip):
                    continue
                if slip.answer is Verdict.RECORDED and concerns_others(slip.entry):
                    written.append(slip.entry)
            slip.settled = True
            if slip.gate is not None:
                parked.append(slip)
            elif slip.loop is not None:
                on_loops.setdefault(slip.loop, []).append(slip)
            elif slip.done is not None:
                slip.done(slip)
        _wake_one_by_one(parked)
        for loop, slips in on_loops.items():
            try:
                loop.call_soon_threadsafe(_settle_on_loop, slips)
            except RuntimeError:
                logger.debug("The loop is closed; %d settled entries have no reader", len(slips))
        return written

    def _tell(self, pen: Store, written: list[Entry]) -> None:
        """Look at those that may wait for what was written, while the pen is ours."""
        if written:
            try:
                self._aftermath(pen, written)
            except Exception:  # the pen must be passed on; the timer looks as well
                logger.exception("Those who wait for %d entries were not looked at", len(written))

    def _once_more(self, slip: Slip) -> bool:
        """Hand a slip whose row is locked to the side lane; False if its own thread does so."""
        lane = self._side or self
        if slip.gate is None and slip.loop is None and slip.done is None:
            return False  # the writer's own: append() goes to the side lane itself
        slip.answer = Verdict.RECORDED
        lane._post(slip)
        return True


def _wake_one_by_one(parked: list[Slip]) -> None:
    """Wake the first, who wakes the next: all at once, they would queue up for the interpreter.

    (A third fewer switches between threads, an eighth more entries a second.)
    """
    for slip, following in pairwise(parked):
        slip.after = following.gate
    if parked:
        parked[0].gate.release()  # type: ignore[union-attr]


def concerns_others(entry: Entry) -> bool:
    """Return whether somebody may wait for what the entry makes true."""
    return type(entry) is not StepEntry or bool(entry.children)


def names_foreign_keys(entry: Entry) -> bool:
    """Return whether a key that a user chose could make the entry wait for a stranger."""
    return type(entry) is StepEntry and any(
        child.chosen_id or child.options.deduplication_id is not None for child in entry.children
    )


DEEP = 120  # frames that writing a batch may take, logging included


def _refuse_on_a_deep_stack() -> None:
    """Raise RecursionError before anything is begun that could not be ended."""
    try:
        sys._getframe(sys.getrecursionlimit() - DEEP)
    except ValueError:
        return  # there are fewer frames
    raise RecursionError("too little of the stack is left for a durable call")


_gates = threading.local()


def _own_gate() -> threading.Lock:
    """Return this thread's lock, held since its birth: parking is acquiring it once more."""
    try:
        return _gates.lock
    except AttributeError:
        _gates.lock = lock = threading.Lock()
        lock.acquire()
        return lock


def _characters(batch: list[Slip]) -> int:
    return sum(len(getattr(slip.entry, "output", None) or "") for slip in batch)


def _settle_on_loop(slips: list[Slip]) -> None:
    for slip in slips:
        if slip.future is not None:
            if slip.future.done():
                continue  # its task was cancelled meanwhile
            if slip.error is not None:
                slip.future.set_exception(slip.error)
            else:
                slip.future.set_result(slip.answer)
        elif slip.done is not None:
            slip.done(slip)
