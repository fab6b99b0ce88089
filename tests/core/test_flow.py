"""The flows of durable calls, told facts by hand: what each asks for next, and how it ends."""

import json

import pytest

from durable_workflows.core import flow
from durable_workflows.core.failure import decode_error, encode_error
from durable_workflows.core.flow import (
    Await,
    Blocks,
    Find,
    FindHolder,
    Invoke,
    InvokeAtomic,
    Pause,
    Permit,
    ReadStatus,
    Record,
    StepSpec,
)
from durable_workflows.core.payload import decode_value, encode_value
from durable_workflows.core.records import Ended, NewWorkflow, Options, StepRecord
from durable_workflows.core.replay import FIRST, RESULT, SLEEP, START, STATUS, STEP, Call
from durable_workflows.core.retry import Retry
from durable_workflows.core.waits import Wait
from durable_workflows.errors import (
    AwaitedWorkflowCancelledError,
    AwaitedWorkflowMaxRecoveryAttemptsExceeded,
    ConflictingWorkflow,
    MaxStepRetriesExceeded,
    NonDeterminism,
    NonExistentWorkflow,
    QueueDeduplicated,
    ResultTimeout,
    WaitsBehindItself,
)

CAP = 10_000


def call(kind=STEP, name="charge", recorded=None, wait=None) -> Call:
    return Call("w", 1, name, kind, recorded, wait)


def record(kind=STEP, name="charge", value=None, error=None, child=None) -> StepRecord:
    output = None if error or value is None else encode_value(value, cap=CAP)
    return StepRecord(1, name, kind, output, encode_error(error) if error else None, child)


def spec(**options) -> StepSpec:
    atomic = options.pop("atomic", False)
    return StepSpec("charge", print, Retry(**options), atomic=atomic)


class Talk:
    """A flow and the one who answers it."""

    def __init__(self, generator):
        self.generator = generator
        self.asked = next(generator)

    def tell(self, answer=None):
        self.asked = self.generator.send(answer)
        return self.asked

    def fail(self, error):
        self.asked = self.generator.throw(error)
        return self.asked

    def end(self, answer=None):
        """Give the last answer and return what the flow returns."""
        with pytest.raises(StopIteration) as stop:
            self.generator.send(answer)
        return stop.value.value


def returned(generator):
    """Return what a flow returns that asks for nothing."""
    with pytest.raises(StopIteration) as stop:
        next(generator)
    return stop.value.value


def step(call_, **options) -> Talk:
    return Talk(flow.step_flow(call_, spec(**options), (1,), {}, CAP))


# -- what is recorded is returned, whatever the call ---------------------------------------


@pytest.mark.parametrize(
    "kind, make",
    [
        (STEP, lambda one: flow.step_flow(one, spec(), (), {}, CAP)),
        (SLEEP, lambda one: flow.sleep_flow(one, 5)),
        (RESULT, lambda one: flow.result_flow(one, "child", None)),
        (FIRST, lambda one: flow.first_flow(one, ("a", "b"))),
        (STATUS, lambda one: flow.status_flow(one, "child")),
        (START, lambda one: flow.start_many_flow(one, ())),
    ],
)
def test_a_recorded_call_asks_for_nothing(kind, make):
    assert returned(make(call(kind, recorded=record(kind, value=(1, 2))))) == (1, 2)
    with pytest.raises(ValueError, match="recorded"):
        next(make(call(kind, recorded=record(kind, error=ValueError("recorded")))))
    with pytest.raises(NonDeterminism):
        next(make(call(kind, recorded=record(kind, name="other"))))


def test_a_recorded_start_returns_its_child():
    new = NewWorkflow("mine", "f", "[]")
    assert (
        returned(flow.start_flow(call(START, recorded=record(START, child="first")), new))
        == "first"
    )
    refused = record(START, error=ConflictingWorkflow("mine", "g", "f"))
    with pytest.raises(ConflictingWorkflow):
        next(flow.start_flow(call(START, recorded=refused), new))


@pytest.mark.parametrize(
    "kind, make, answers",
    [
        (STEP, lambda one: flow.step_flow(one, spec(), (), {}, CAP), ["mine"]),
        (SLEEP, lambda one: flow.sleep_flow(one, 5), [None]),
        (
            RESULT,
            lambda one: flow.result_flow(one, "a", None),
            [{"a": Ended("SUCCESS", None, None)}],
        ),
        (FIRST, lambda one: flow.first_flow(one, ("a",)), [{"a": Ended("ERROR", None, None)}]),
        (STATUS, lambda one: flow.status_flow(one, "a"), [encode_value({}, cap=CAP)]),
        (STATUS, lambda one: flow.status_flow(one, "nobody"), [None]),
    ],
)
def test_whoever_comes_second_adopts_what_is_recorded(kind, make, answers):
    talk = Talk(make(call(kind)))
    for answer in answers:
        talk.tell(answer)
    assert isinstance(talk.asked, Record)
    assert talk.end(record(kind, value="theirs")) == "theirs"


def test_a_record_of_another_call_is_changed_code_also_for_the_second():
    talk = step(call())
    talk.tell("mine")
    with pytest.raises(NonDeterminism):
        talk.tell(record(name="other", value=1))


# -- steps --------------------------------------------------------------------------------------


def test_a_step_is_invoked_then_recorded():
    talk = step(call())
    assert type(talk.asked) is Invoke
    assert (talk.asked.args, talk.asked.tries) == ((1,), 1)
    assert decode_value(talk.tell("done").output) == "done"
    assert talk.asked.tries is None
    assert talk.end() == "done"


def test_a_first_run_sees_what_its_replay_will():
    value = (1, {2})
    talk = step(call())
    talk.tell(value)
    assert talk.end() == value
    talk = step(call())
    listed = [1, 2]
    talk.tell(listed)
    assert talk.end() is listed  # nothing to tag: the value itself


def test_an_error_is_recorded_then_raised_itself():
    error = ValueError("no")
    talk = step(call())
    assert str(decode_error(talk.fail(error).error)) == "no"
    with pytest.raises(ValueError) as caught:
        talk.tell(None)
    assert caught.value is error


def test_an_error_that_another_recorded_first_is_theirs():
    talk = step(call())
    talk.fail(ValueError("mine"))
    assert talk.end(record(value="theirs")) == "theirs"


def test_tries_are_counted_and_paused_and_all_told():
    talk = step(call(), max_attempts=3, interval_seconds=1, backoff_rate=2)
    pauses = []
    for number in (1, 2):
        asked = talk.fail(ValueError(f"try {number}"))
        assert isinstance(asked, Pause)
        pauses.append((asked.seconds, len(asked.wait.errors)))
        assert talk.tell().tries == number + 1
    assert pauses == [(1.0, 1), (2.0, 2)]
    recorded = talk.fail(ValueError("try 3"))
    assert json.loads(recorded.tries) == [
        "ValueError: try 1",
        "ValueError: try 2",
        "ValueError: try 3",
    ]
    with pytest.raises(MaxStepRetriesExceeded) as caught:
        talk.tell(None)
    assert [str(error) for error in caught.value.errors] == ["try 1", "try 2", "try 3"]


def test_a_try_that_succeeds_keeps_the_lines_of_those_that_failed():
    talk = step(call(), max_attempts=2)
    talk.fail(ValueError("no"))
    talk.tell()
    assert json.loads(talk.tell("done").tries) == ["ValueError: no"]


def test_only_the_last_lines_of_many_tries_are_kept():
    talk = step(call(), max_attempts=100, interval_seconds=0)
    for number in range(60):
        talk.fail(ValueError(str(number)))
        talk.tell()
    assert json.loads(talk.tell("done").tries) == [
        f"ValueError: {number}" for number in range(40, 60)
    ]


def test_a_woken_step_first_waits_the_rest_of_its_pause_and_keeps_its_count():
    wait = Wait("retry", until=50.0, errors=(encode_error(ValueError("try 1")),))
    talk = step(call(wait=wait), max_attempts=2)
    assert talk.asked == Pause(wait)
    assert talk.tell().tries == 2
    talk.fail(ValueError("try 2"))
    with pytest.raises(MaxStepRetriesExceeded):
        talk.tell(None)


def test_the_judge_is_asked_about_each_error():
    talk = step(call(), max_attempts=9, should_retry=bool)
    error = ValueError("first")
    assert isinstance(talk.fail(error), Permit)
    assert talk.asked.error is error
    assert isinstance(talk.tell(True), Pause)
    talk.tell()
    talk.fail(ValueError("second"))
    assert isinstance(talk.tell(False), Record)
    with pytest.raises(ValueError, match="second"):
        talk.tell(None)


def test_the_judge_is_not_asked_where_there_is_no_other_try():
    talk = step(call(), should_retry=bool)
    assert isinstance(talk.fail(ValueError("only")), Record)


def test_what_cannot_be_stored_is_not_tried_again():
    talk = step(call(), max_attempts=9)
    recorded = talk.tell(object())
    assert isinstance(recorded, Record)
    assert "can't be stored" in str(decode_error(recorded.error))


def test_what_is_no_exception_passes_through():
    talk = step(call(), max_attempts=9)
    with pytest.raises(KeyboardInterrupt):
        talk.fail(KeyboardInterrupt())


def test_an_atomic_step_records_itself():
    talk = step(call(), atomic=True)
    assert type(talk.asked) is InvokeAtomic
    assert talk.asked.cap == CAP
    assert talk.end(("done", None)) == "done"
    assert step(call(), atomic=True).end((None, record(value="theirs"))) == "theirs"


def test_an_atomic_step_that_failed_records_its_error():
    talk = step(call(), atomic=True)
    assert isinstance(talk.fail(ValueError("no")), Record)
    with pytest.raises(ValueError):
        talk.tell(None)


# -- sleeps ----------------------------------------------------------------------------------------


def test_a_sleep_pauses_then_records():
    talk = Talk(flow.sleep_flow(call(SLEEP), 5))
    assert talk.asked == Pause(Wait("sleep"), 5)
    assert talk.tell() == Record()
    assert talk.end() is None


def test_a_woken_sleep_ends_when_it_was_to_end():
    wait = Wait("sleep", until=50.0)
    assert Talk(flow.sleep_flow(call(SLEEP, wait=wait), 5)).asked.wait is wait


@pytest.mark.parametrize(
    "wait, seconds, until",
    [
        (Wait("sleep"), 5.0, 105.0),
        (Wait("sleep", until=50.0), 5.0, 50.0),
        (Wait("result"), None, None),
        (Wait("result"), 0.0, 100.0),
    ],
)
def test_a_waits_end_is_fixed_once(wait, seconds, until):
    assert flow.until(wait, seconds, now=100.0).until == until


# -- starts ------------------------------------------------------------------------------------------


def test_a_start_is_one_record():
    new = NewWorkflow("w-1", "f", "[]")
    talk = Talk(flow.start_flow(call(START), new))
    assert talk.asked == Record(child="w-1", children=(new,))
    assert talk.end() == "w-1"
    assert Talk(flow.start_flow(call(START), new)).end(record(START, child="theirs")) == "theirs"


@pytest.mark.parametrize("there", [None, "f"])
def test_a_chosen_id_is_looked_up_first(there):
    new = NewWorkflow("mine", "f", "[]", chosen_id=True)
    talk = Talk(flow.start_flow(call(START), new))
    assert talk.asked == Find("mine")
    assert talk.tell(there).children == (new,)
    assert talk.end() == "mine"


def test_an_id_of_another_function_is_recorded_as_refused():
    talk = Talk(flow.start_flow(call(START), NewWorkflow("mine", "f", "[]", chosen_id=True)))
    recorded = talk.tell("g")
    assert recorded.children == ()
    with pytest.raises(ConflictingWorkflow):
        talk.tell(None)


def test_many_starts_are_one_record():
    new = tuple(NewWorkflow(f"w-1-{number}", "f", "[]") for number in range(3))
    talk = Talk(flow.start_many_flow(call(START), new))
    assert talk.asked.children == new
    assert talk.end() == 3
    assert Talk(flow.start_many_flow(call(START), new)).end(record(START, value=3)) == 3


# -- others' results ---------------------------------------------------------------------------------


def test_a_result_is_copied_into_the_record():
    talk = Talk(flow.result_flow(call(RESULT), "child", 30))
    assert talk.asked == Blocks(("child",))
    assert talk.tell(None) == Await(Wait("result", what=("child",)), 30)
    output = encode_value((1, 2), cap=CAP)
    assert talk.tell({"child": Ended("SUCCESS", output, None)}) == Record(
        output=output, child="child"
    )
    assert talk.end() == (1, 2)


@pytest.mark.parametrize(
    "ended, error",
    [
        (Ended("ERROR", None, encode_error(ValueError("its own"))), ValueError),
        (Ended("CANCELLED", None, None), AwaitedWorkflowCancelledError),
        (
            Ended("MAX_RECOVERY_ATTEMPTS_EXCEEDED", None, None),
            AwaitedWorkflowMaxRecoveryAttemptsExceeded,
        ),
        (None, ResultTimeout),
    ],
)
def test_a_wait_without_a_result_records_why_and_raises_it(ended, error):
    talk = Talk(flow.result_flow(call(RESULT), "child", 30))
    talk.tell(None)  # nothing stands in its way
    recorded = talk.tell({"child": ended} if ended else {})
    assert isinstance(decode_error(recorded.error), error)
    with pytest.raises(error):
        talk.tell(None)


@pytest.mark.parametrize(
    "ended, value",
    [(Ended("SUCCESS", None, None), None), (Ended("SUCCESS", encode_value(7, cap=CAP), None), 7)],
)
def test_an_outcome_is_its_value(ended, value):
    assert flow.outcome("w", ended) == value


@pytest.mark.parametrize(
    "ended, error",
    [
        (Ended("ERROR", None, encode_error(ValueError("its own"))), ValueError),
        (Ended("CANCELLED", None, None), AwaitedWorkflowCancelledError),
        (
            Ended("MAX_RECOVERY_ATTEMPTS_EXCEEDED", None, None),
            AwaitedWorkflowMaxRecoveryAttemptsExceeded,
        ),
    ],
)
def test_an_outcome_without_a_value_is_raised(ended, error):
    with pytest.raises(error):
        flow.outcome("w", ended)


def test_the_first_is_the_first_as_they_were_given():
    talk = Talk(flow.first_flow(call(FIRST), ("a", "b", "c")))
    assert talk.tell(None) == Await(Wait("first", what=("a", "b", "c")))
    recorded = talk.tell(dict.fromkeys(("c", "b"), Ended("SUCCESS", None, None)))
    assert recorded.child == "b"
    assert talk.end() == "b"


@pytest.mark.parametrize(
    "flow_of",
    [
        lambda: flow.result_flow(call(RESULT), "child", None),
        lambda: flow.first_flow(call(FIRST), ("child",)),
    ],
)
def test_a_wait_that_could_never_end_is_refused_and_the_refusal_recorded(flow_of):
    talk = Talk(flow_of())
    recorded = talk.tell("orders")
    assert (recorded.child, recorded.output) == ("child", None)
    assert isinstance(decode_error(recorded.error), WaitsBehindItself)
    with pytest.raises(WaitsBehindItself, match="'orders'"):
        talk.tell(None)


def test_a_deduplication_id_that_was_taken_in_between_is_the_calls_result():
    new = NewWorkflow("p-1", "f", "[]", "orders", Options(deduplication_id="x"))
    talk = Talk(flow.start_flow(call(START), new))
    assert talk.asked == FindHolder(new)
    assert talk.tell(None) == Record(child="p-1", children=(new,))
    assert talk.fail(ValueError("duplicate key")) == FindHolder(new)
    recorded = talk.tell("other")
    assert isinstance(decode_error(recorded.error), QueueDeduplicated)
    with pytest.raises(QueueDeduplicated, match="already holds other"):
        talk.tell(None)


# -- statuses -----------------------------------------------------------------------------------------


def test_a_status_is_read_and_recorded():
    talk = Talk(flow.status_flow(call(STATUS), "child"))
    assert talk.asked == ReadStatus("child")
    text = encode_value({"status": "PENDING"}, cap=CAP)
    assert talk.tell(text) == Record(output=text, child="child")
    assert talk.end() == {"status": "PENDING"}


def test_a_missing_workflow_is_recorded_as_missing():
    talk = Talk(flow.status_flow(call(STATUS), "nobody"))
    assert isinstance(decode_error(talk.tell(None).error), NonExistentWorkflow)
    with pytest.raises(NonExistentWorkflow):
        talk.tell(None)
