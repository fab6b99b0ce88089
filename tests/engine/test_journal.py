"""The journal: entries that arrive during a write share the next commit, and each gets its answer."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from durable_workflows.core.records import (
    NewWorkflow,
    OutcomeEntry,
    StepEntry,
    StepRecord,
    Verdict,
    WaitEntry,
)
from durable_workflows.engine.clock import Clock
from durable_workflows.engine.journal import DirectJournal, GroupJournal

PATIENCE = 20


def step(id, **facts) -> StepEntry:
    return StepEntry(id, 1, 1, facts.pop("position", 1), "charge", "step", **facts)


def outcome(id) -> OutcomeEntry:
    return OutcomeEntry(id, 1, 1, "SUCCESS", "1", None, f"w{id}")


class Pen:
    """A connection of the engine's own, as far as the journal knows one.

    `gate` holds a write up; `spoilt` are ids that no batch can be written with, `answers`
    what is answered for an id.
    """

    def __init__(self):
        self.batches: list[list[int]] = []
        self.threads: list[str] = []
        self.patience: list[bool] = []
        self.writing = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.spoilt: set[int] = set()
        self.answers: dict[int, object] = {}
        self.closed = False

    def write(self, entries, *, patient=False, now=None):
        ids = [entry.id for entry in entries]
        self.batches.append(ids)
        self.threads.append(threading.current_thread().name)
        self.patience.append(patient)
        self.writing.set()
        assert self.gate.wait(PATIENCE)
        if self.spoilt & set(ids):
            raise ValueError(f"can't write {sorted(self.spoilt & set(ids))}")
        if self.answers.keys() & set(ids):
            return [self.answers.get(id, Verdict.RECORDED) for id in ids]
        return None

    def close(self):
        self.closed = True


class Desk:
    """A journal with pens, and threads that hand entries in."""

    def __init__(self, pens=1, side=None, **options):
        self.pens = [Pen() for _ in range(pens)]
        self.told: list[list[int]] = []
        self.journal = GroupJournal(self.pens, self._aftermath, side=side, **options)
        self.threads: list[threading.Thread] = []
        self.answers: dict[int, object] = {}

    @property
    def pen(self) -> Pen:
        return self.pens[0]

    def _aftermath(self, pen, entries):
        self.told.append([entry.id for entry in entries])

    def append_apart(self, entry) -> threading.Thread:
        def append():
            try:
                self.answers[entry.id] = self.journal.append(entry)
            except Exception as error:
                self.answers[entry.id] = str(error)

        thread = threading.Thread(target=append, name=f"appender-{entry.id}")
        self.threads.append(thread)
        thread.start()
        return thread

    def hold(self, entry) -> None:
        """Begin a write and keep it under way."""
        self.pen.gate.clear()
        self.pen.writing.clear()
        self.append_apart(entry)
        assert self.pen.writing.wait(PATIENCE)

    def until_parked(self, count) -> None:
        while len(self.journal._parked) + len(self.journal._others) < count:
            threading.Event().wait(0.001)

    def let_go(self) -> None:
        for pen in self.pens:
            pen.gate.set()
        for thread in self.threads:
            thread.join(PATIENCE)


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.let_go()
    desk.journal.close()


# -- threads ---------------------------------------------------------------------------


def test_a_lone_entry_is_written_at_once_by_the_thread_that_brought_it(desk):
    assert desk.journal.append(step(1)) is Verdict.RECORDED
    assert desk.pen.batches == [[1]]
    assert desk.pen.threads == [threading.current_thread().name]


def test_what_arrives_during_a_write_shares_the_next(desk):
    desk.hold(step(1))
    for id in range(2, 12):
        desk.append_apart(step(id))
    desk.until_parked(10)
    desk.let_go()

    assert desk.pen.batches[0] == [1]
    assert sorted(desk.pen.batches[1]) == list(range(2, 12))
    assert set(desk.answers.values()) == {Verdict.RECORDED}
    assert desk.pen.threads[1].startswith("appender-")


def test_a_batch_is_bounded():
    desk = Desk(most=4)
    desk.hold(step(1))
    for id in range(2, 12):
        desk.append_apart(step(id))
    desk.until_parked(10)
    desk.let_go()

    assert max(map(len, desk.pen.batches)) <= 4
    assert sorted(id for batch in desk.pen.batches for id in batch) == list(range(1, 12))
    desk.journal.close()


def test_a_batch_of_long_entries_is_written_in_parts(desk, monkeypatch):
    monkeypatch.setattr("durable_workflows.engine.journal.MOST_CHARACTERS", 100)
    desk.hold(step(1))
    for id in range(2, 6):
        desk.append_apart(step(id, output="x" * 60))
    desk.until_parked(4)
    desk.let_go()

    assert all(len(batch) == 1 for batch in desk.pen.batches)
    assert set(desk.answers.values()) == {Verdict.RECORDED}


def test_two_pens_write_side_by_side_where_the_first_takes_long(monkeypatch):
    monkeypatch.setattr("durable_workflows.engine.journal.LONG", 0.0)
    desk = Desk(pens=2)
    for pen in desk.pens:
        pen.gate.clear()
    desk.append_apart(step(1))
    desk.append_apart(step(2))
    for pen in desk.pens:
        assert pen.writing.wait(PATIENCE)
    desk.let_go()

    assert sorted(pen.batches for pen in desk.pens) == [[[1]], [[2]]]
    desk.journal.close()


def test_what_comes_while_a_write_has_just_begun_is_written_by_the_next(monkeypatch):
    monkeypatch.setattr("durable_workflows.engine.journal.LONG", 3600.0)
    desk = Desk(pens=2)
    for pen in desk.pens:
        pen.gate.clear()
    for id in range(1, 5):
        desk.append_apart(step(id))
    desk.until_parked(3)
    desk.let_go()

    batches = [batch for pen in desk.pens for batch in pen.batches]
    assert [sorted(batch) for batch in batches] == [[1], [2, 3, 4]]
    desk.journal.close()


def test_a_foreign_row_is_the_answer_of_whoever_came_second(desk):
    there = StepRecord(1, "charge", "step", "1", None, attempt=7)
    desk.pen.answers = {1: there, 2: Verdict.LOST}

    assert desk.journal.append(step(1)) is there
    assert desk.journal.append(step(2)) is Verdict.LOST
    assert desk.journal.append(step(3)) is Verdict.RECORDED


# -- failures ----------------------------------------------------------------------------


@pytest.mark.parametrize("culprits", [{5}, {2, 9}, {2, 3}, set(range(2, 10))])
def test_a_batch_that_fails_is_halved_until_the_culprit_stands_alone(desk, culprits, caplog):
    desk.pen.spoilt = culprits
    desk.hold(step(1))
    for id in range(2, 10):
        desk.append_apart(step(id))
    desk.until_parked(8)
    desk.let_go()

    for id in range(1, 10):
        expected = f"can't write [{id}]" if id in culprits else Verdict.RECORDED
        assert desk.answers[id] == expected
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == len(
        culprits
    )


def test_after_a_failure_the_pen_is_free_again(desk):
    desk.pen.spoilt = {1}
    with pytest.raises(ValueError, match="can't write"):
        desk.journal.append(step(1))

    assert desk.journal.append(step(2)) is Verdict.RECORDED


# -- coroutines ------------------------------------------------------------------------------


def test_futures_are_settled_on_their_own_loop(desk):
    async def scene():
        loop_thread = threading.current_thread()
        desk.pen.gate.clear()
        futures = [desk.journal.submit(step(id)) for id in range(1, 30)]
        seen = []
        futures[0].add_done_callback(lambda _: seen.append(threading.current_thread()))
        desk.pen.gate.set()
        answers = await asyncio.gather(*futures)
        await asyncio.sleep(0)
        return answers, seen == [loop_thread]

    answers, on_loop = asyncio.run(scene())

    assert set(answers) == {Verdict.RECORDED}
    assert on_loop
    assert all(name.startswith("durable-writer") for name in desk.pen.threads)
    assert len(desk.pen.batches) < 29


def test_an_error_reaches_the_future_of_its_entry_only(desk):
    desk.pen.spoilt = {2}

    async def scene():
        futures = [desk.journal.submit(step(id)) for id in (1, 2, 3)]
        return await asyncio.gather(*futures, return_exceptions=True)

    first, second, third = asyncio.run(scene())

    assert first is third is Verdict.RECORDED
    assert isinstance(second, ValueError)


def test_a_task_cancelled_meanwhile_hurts_nobody(desk):
    async def scene():
        desk.pen.gate.clear()
        futures = [desk.journal.submit(step(id)) for id in (1, 2, 3)]
        futures[1].cancel()
        desk.pen.gate.set()
        return await asyncio.gather(*futures, return_exceptions=True)

    first, second, third = asyncio.run(scene())

    assert first is third is Verdict.RECORDED
    assert isinstance(second, asyncio.CancelledError)
    assert sorted(id for batch in desk.pen.batches for id in batch) == [1, 2, 3]


def test_a_loop_that_is_closed_has_no_readers(desk):
    loop = asyncio.new_event_loop()

    async def scene():
        desk.pen.gate.clear()
        desk.journal.submit(step(1))

    loop.run_until_complete(scene())
    loop.close()
    desk.pen.gate.set()

    assert desk.journal.append(step(2)) is Verdict.RECORDED


def test_threads_and_coroutines_share_a_batch(desk):
    async def scene():
        desk.hold(step(1))
        futures = [desk.journal.submit(step(id)) for id in (2, 3)]
        for id in (4, 5):
            desk.append_apart(step(id))
        desk.until_parked(4)
        desk.pen.gate.set()
        return await asyncio.gather(*futures)

    assert set(asyncio.run(scene())) == {Verdict.RECORDED}
    desk.let_go()

    assert sorted(desk.pen.batches[1]) == [2, 3, 4, 5]
    assert set(desk.answers.values()) == {Verdict.RECORDED}


# -- entries nobody waits for ------------------------------------------------------------------


def test_a_fired_entry_is_settled_by_its_callback(desk):
    settled = []
    desk.journal.fire(outcome(1), settled.append)

    assert [(slip.entry.id, slip.answer, slip.error) for slip in settled] == [
        (1, Verdict.RECORDED, None)
    ]


def test_a_fired_entry_that_fails_says_so(desk):
    desk.pen.spoilt = {1}
    settled = []
    desk.journal.fire(outcome(1), settled.append)

    assert isinstance(settled[0].error, ValueError)


def test_firing_while_a_write_is_under_way_does_not_wait(desk):
    settled = threading.Event()
    desk.hold(step(1))
    desk.journal.fire(outcome(2), lambda slip: settled.set())
    assert not settled.is_set()
    desk.let_go()

    assert settled.wait(PATIENCE)
    assert desk.pen.batches == [[1], [2]]


def test_an_entry_fired_from_a_loop_is_settled_there(desk):
    async def scene():
        over = asyncio.get_running_loop().create_future()
        thread = []

        def done(slip):
            thread.append(threading.current_thread())
            over.set_result(slip.answer)

        desk.journal.fire_from_loop(outcome(1), done)
        return await over, thread == [threading.current_thread()]

    assert asyncio.run(scene()) == (Verdict.RECORDED, True)


# -- after the commit --------------------------------------------------------------------------


def test_others_are_told_of_ends_waits_and_starts_and_of_nothing_else(desk):
    desk.pen.answers = {5: Verdict.LOST}
    child = NewWorkflow("child", "f", "[]")
    desk.journal.append(step(1))
    desk.journal.append(step(2, children=(child,)))
    desk.journal.append(outcome(3))
    desk.journal.append(WaitEntry(4, 1, 1))
    desk.journal.append(outcome(5))

    assert desk.told == [[2], [3], [4]]


# -- the side lane -----------------------------------------------------------------------------


@pytest.fixture
def lanes() -> Iterator[tuple[Desk, Desk]]:
    side = Desk(most=1)
    desk = Desk(side=side.journal)
    yield desk, side
    for one in (desk, side):
        one.let_go()
        one.journal.close()


def test_an_id_that_a_user_chose_takes_the_side_lane(lanes):
    desk, side = lanes
    chosen = step(1, children=(NewWorkflow("mine", "f", "[]", chosen_id=True),))

    assert desk.journal.append(chosen) is Verdict.RECORDED

    async def scene():
        return await desk.journal.submit(chosen)

    assert asyncio.run(scene()) is Verdict.RECORDED
    assert desk.pen.batches == []
    assert side.pen.batches == [[1], [1]]


def test_the_usual_lane_skips_locked_rows_and_the_side_lane_waits_for_them(lanes):
    desk, side = lanes
    desk.journal.append(step(1))
    side.journal.append(step(2))

    assert desk.pen.patience == [False]
    assert side.pen.patience == [True]


@pytest.mark.parametrize("way", ["append", "submit", "fire", "fire_from_loop", "parked"])
def test_an_entry_whose_row_is_locked_is_written_on_the_side_lane(lanes, way):
    desk, side = lanes
    desk.pen.answers = {1: Verdict.LOCKED}
    settled = []
    done = threading.Event()

    def settle(slip):
        settled.append(slip.answer)
        done.set()

    async def submitted():
        return await desk.journal.submit(outcome(1))

    async def fired():
        over = asyncio.get_running_loop().create_future()
        desk.journal.fire_from_loop(outcome(1), lambda slip: over.set_result(slip.answer))
        return await over

    if way == "append":
        settled.append(desk.journal.append(outcome(1)))
    elif way == "submit":
        settled.append(asyncio.run(submitted()))
    elif way == "fire":
        desk.journal.fire(outcome(1), settle)
        assert done.wait(PATIENCE)
    elif way == "fire_from_loop":
        settled.append(asyncio.run(fired()))
    else:
        desk.hold(step(9))
        desk.append_apart(step(8))
        desk.until_parked(1)
        desk.append_apart(outcome(1))
        desk.until_parked(2)
        desk.let_go()
        settled.append(desk.answers[1])

    assert settled == [Verdict.RECORDED]
    assert side.pen.batches == [[1]]
    assert desk.told == []  # nothing had been written yet
    side.journal.close()  # others are told after the entry's own run
    assert side.told == [[1]]


def test_the_side_lane_itself_tries_again_until_the_row_is_free(desk):
    """A lone lane is its own side lane: what is locked there goes back into its queue."""
    answers = iter([Verdict.LOCKED, Verdict.LOCKED, Verdict.RECORDED])

    class Locked(dict):
        def keys(self):
            return {1}

        def get(self, id, default):
            return next(answers)

    desk.pen.answers = Locked()
    done = threading.Event()
    desk.journal.fire(outcome(1), lambda slip: done.set())

    assert done.wait(PATIENCE)
    assert desk.pen.batches == [[1], [1], [1]]


# -- the end ---------------------------------------------------------------------------------------


def test_closing_gives_the_connections_back():
    desk = Desk(pens=2)
    desk.journal.append(step(1))
    desk.journal.close()

    assert all(pen.closed for pen in desk.pens)
    assert not any(writer.is_alive() for writer in desk.journal._writers)


def test_nothing_is_lost_under_load():
    """Threads and coroutines, failing, locked and fired entries, over two pens."""
    side = Desk(most=1)
    desk = Desk(pens=2, side=side.journal, most=7)
    spoilt = set(range(0, 4000, 37))
    locked = set(range(1, 4000, 41)) - spoilt
    for pen in desk.pens:
        pen.spoilt = spoilt
        pen.answers = dict.fromkeys(locked, Verdict.LOCKED)
    counted = threading.Semaphore(0)

    def thread(base):
        for id in range(base, base + 200):
            try:
                desk.answers[id] = desk.journal.append(step(id))
            except ValueError as error:
                desk.answers[id] = str(error)
            desk.journal.fire(outcome(id + 2000), lambda slip: counted.release())

    async def coroutine(id):
        try:
            desk.answers[id] = await desk.journal.submit(step(id))
        except ValueError as error:
            desk.answers[id] = str(error)

    async def scene():
        await asyncio.gather(*(coroutine(id) for id in range(1000, 2000)))

    threads = [threading.Thread(target=thread, args=(base,)) for base in range(0, 1000, 200)]
    for one in threads:
        one.start()
    asyncio.run(scene())
    for one in threads:
        one.join(PATIENCE)
    for _ in range(1000):
        assert counted.acquire(timeout=PATIENCE)

    assert desk.answers == {
        id: f"can't write [{id}]" if id in spoilt else Verdict.RECORDED for id in range(2000)
    }
    desk.journal.close()
    side.journal.close()


# -- one entry a write -------------------------------------------------------------------------------


@pytest.fixture
def direct() -> tuple[DirectJournal, Pen, list]:
    pen, told = Pen(), []
    return (
        DirectJournal(pen, lambda pen, entries: told.append([e.id for e in entries]), Clock()),
        pen,
        told,
    )


def test_a_direct_journal_writes_on_the_callers_connection(direct):
    journal, pen, told = direct
    settled = []

    assert journal.append(step(1)) is Verdict.RECORDED
    journal.fire(outcome(2), settled.append)

    assert pen.batches == [[1], [2]]
    assert pen.threads == [threading.current_thread().name] * 2
    assert pen.patience == [True, True]
    assert told == [[2]]
    assert settled[0].result() is Verdict.RECORDED


def test_a_direct_journal_passes_answers_and_errors_on(direct):
    journal, pen, told = direct
    pen.answers, pen.spoilt = {1: Verdict.CANCELLED}, {2}
    settled = []

    assert journal.append(outcome(1)) is Verdict.CANCELLED
    with pytest.raises(ValueError):
        journal.append(outcome(2))
    journal.fire(outcome(2), settled.append)
    with pytest.raises(ValueError):
        settled[0].result()
    assert told == []


def test_a_direct_journal_serves_coroutines(direct):
    journal, pen, _ = direct
    pen.spoilt = {3}

    async def scene():
        settled = [asyncio.get_running_loop().create_future() for _ in range(2)]
        answer = await journal.submit(step(1))
        journal.fire_from_loop(outcome(2), settled[0].set_result)
        journal.fire_from_loop(outcome(3), settled[1].set_result)
        return answer, await settled[0], await settled[1]

    answer, fine, failed = asyncio.run(scene())

    assert answer is fine.result() is Verdict.RECORDED
    assert isinstance(failed.error, ValueError)
