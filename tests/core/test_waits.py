"""The table of waits: stored exactly, and over when any one of them is."""

from hypothesis import given
from hypothesis import strategies as st

from durable_workflows.core import waits
from durable_workflows.core.waits import FIRST_LOOK, LONGEST_LOOK, Wait

NOW = 1_000_000.0

texts = st.lists(st.text(max_size=5), max_size=3).map(tuple)
instants = st.none() | st.floats(0, 2 * NOW)
tables = st.dictionaries(
    st.integers(0, 10_000),
    st.builds(
        Wait,
        st.sampled_from(["sleep", "retry", "result", "first", "rest"]),
        instants,
        texts,
        texts,
        texts,
    ),
    max_size=5,
)


@given(tables)
def test_a_stored_table_is_read_back_as_it_was(table):
    assert waits.decode(waits.encode(table)) == table


def test_an_empty_table_is_the_empty_string():
    assert waits.encode({}) == ""
    assert waits.decode("") == {}


def test_a_row_that_waits_for_nothing_is_ready():
    assert waits.fulfilled({}, now=NOW, ended=())


def test_a_sleep_is_over_at_its_instant_and_not_before():
    table = {1: Wait("sleep", until=NOW)}
    assert waits.fulfilled(table, now=NOW, ended=())
    assert not waits.fulfilled(table, now=NOW - 0.001, ended=())


def test_any_one_of_several_children_ends_the_wait():
    table = {1: Wait("first", what=("a", "b"))}
    assert waits.fulfilled(table, now=NOW, ended=("b",))
    assert not waits.fulfilled(table, now=NOW, ended=("c",))


def test_the_earliest_of_parked_calls_wakes_the_run():
    table = {2: Wait("sleep", until=NOW + 60), 5: Wait("result", what=("a",), until=NOW + 3)}
    assert waits.first_look(table, now=NOW) == 3
    assert waits.named(table) == {"a"}


def test_a_wait_on_others_is_looked_at_again_ever_more_rarely():
    table = {1: Wait("result", what=("a",))}
    assert waits.first_look(table, now=NOW) == FIRST_LOOK
    looks, waited = [], FIRST_LOOK
    while waited < 10_000:
        looks.append(waits.next_look(table, now=NOW, waited=waited))
        waited += looks[-1]
    assert looks[:3] == [5.0, 10.0, 20.0]
    assert looks[-1] == LONGEST_LOOK


def test_a_sleep_is_not_looked_at_before_its_end():
    assert waits.first_look({1: Wait("sleep", until=NOW + 900)}, now=NOW) == 900


def test_what_waits_for_nobody_is_not_looked_at():
    assert waits.first_look({}, now=NOW) is None
    assert waits.first_look({1: Wait("result")}, now=NOW) is None


@given(tables, st.floats(0, 100_000))
def test_a_look_is_never_due_in_the_past(table, waited):
    for seconds in (
        waits.first_look(table, now=NOW),
        waits.next_look(table, now=NOW, waited=waited),
    ):
        assert seconds is None or seconds >= 0


@given(tables)
def test_a_table_that_can_be_over_at_all_is_looked_at(table):
    everything = waits.named(table)
    can_be_over = table and waits.fulfilled(table, now=float("inf"), ended=everything)
    assert (waits.first_look(table, now=NOW) is not None) == bool(can_be_over)
