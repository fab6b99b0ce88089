"""Arguments, results and errors come back exactly as they went, or are refused by path."""

import enum
import io
import json
import math
import os
import sys
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durable_workflows.core import failure, payload, plain, restore
from durable_workflows.errors import (
    CorruptPayload,
    InterleavedSteps,
    MaxStepRetriesExceeded,
    PayloadTooLarge,
    StepTimeout,
    Suspended,
    Unstorable,
    WorkflowFailed,
)

CAP = 1_048_576


class Color(enum.Enum):
    RED = 1
    ALSO_RED = RED
    BLUE = ("a", "tuple")


class Level(enum.IntEnum):
    LOW = 1


class Fruit(enum.StrEnum):
    APPLE = "apple"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Shop:
    class Kind(enum.Enum):
        BIG = "big"


class OutOfStock(Exception):
    """Its __init__ takes other arguments than it passes on."""

    def __init__(self, *, sku, wanted):
        self.sku, self.wanted = sku, wanted
        super().__init__(f"{wanted} of {sku} wanted")


class Declined(Exception):
    """Its text is made of an attribute, and its __init__ passes nothing on."""

    def __init__(self, card):
        self.card = card

    def __str__(self):
        return f"card {self.card} declined"


class Picky(ValueError):
    """Its __new__ wants what nobody recorded."""

    def __new__(cls, *, secret):
        return super().__new__(cls, "picky")

    def __init__(self, *, secret):
        super().__init__("picky")


@dataclass(frozen=True)
class Frozen(Exception):
    code: str


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class SelfListing(Exception):
    """Keeps itself in a list, as Django's ValidationError does."""

    def __init__(self, message):
        super().__init__(message)
        self.message, self.error_list = message, [self]

    def __str__(self):
        return repr([error.message for error in self.error_list])


class ListedText(str):
    """A text with more to it, as Django REST framework's ErrorDetail."""


@pytest.fixture(params=["orjson", "json"], autouse=True)
def encoder(request, monkeypatch):
    if request.param == "orjson":
        pytest.importorskip("orjson")
    monkeypatch.setattr(payload, "write", getattr(payload, f"write_with_{request.param}"))
    reader = payload.orjson.loads if request.param == "orjson" else payload.read_with_json
    monkeypatch.setattr(payload, "read", reader)


# The fixture picks an encoder for the whole test, so it need not run again per example.
exhaustive = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


def there_and_back(value):
    return payload.decode_value(payload.encode_value(value, cap=CAP))


def same(one, other):
    """Whether two values are equal, of the same types and in the same order, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple) and not isinstance(one, enum.Enum):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, set | frozenset):
        return sorted(map(unordered, one)) == sorted(map(unordered, other))
    if isinstance(one, datetime | time):
        zones = type(one.tzinfo), str(one.tzinfo), type(other.tzinfo), str(other.tzinfo)
        return repr(one) == repr(other) and zones[:2] == zones[2:]
    if isinstance(one, float | Decimal):
        return repr(one) == repr(other)  # tells -0.0 from 0.0 and lets NaN be NaN
    return one == other


def unordered(value):
    """Return a hashable value's repr, whatever the order of the sets in it."""
    if isinstance(value, tuple | frozenset):
        parts = map(unordered, value)
        return f"{type(value)} {list(parts) if isinstance(value, tuple) else sorted(parts)}"
    return repr(value)


def nested(depth, wrap):
    value = 1
    for _ in range(depth):
        value = wrap(value)
    return value


any_text = st.text(st.characters(exclude_categories=()), max_size=8)
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]).map(ZoneInfo)
offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23))
fixed = st.builds(timezone, offsets) | st.builds(timezone, offsets, st.text(max_size=5))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(2**52, 2**70),
    st.floats(),
    any_text,
    st.binary(max_size=8),
    st.dates(),
    st.times(),
    st.times(timezones=fixed),
    st.timedeltas(),
    st.decimals(),
    st.uuids(),
    st.datetimes(),
    st.datetimes(timezones=zones, allow_imaginary=True),
    st.datetimes(timezones=fixed),
    st.builds(lambda at, fold: at.replace(fold=fold), st.datetimes(), st.integers(0, 1)),
    st.sampled_from([*Color, *Level, *Fruit, *Right, Right.READ | Right.WRITE, Shop.Kind.BIG]),
)
keys = scalars.filter(lambda key: not (isinstance(key, Decimal) and key.is_snan()))
hashables = keys | st.tuples(keys, keys) | st.frozensets(keys, max_size=3)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(max_size=4), inner, max_size=4),
        st.dictionaries(st.sampled_from(["$", "v", "a"]), inner, max_size=3),
        st.dictionaries(hashables, inner, max_size=4),
        st.dictionaries(any_text, inner, max_size=3).map(OrderedDict),
        st.sets(hashables, max_size=3),
        st.frozensets(hashables, max_size=3),
    ),
    max_leaves=12,
)


@exhaustive
@given(values)
def test_a_value_comes_back_equal_of_the_same_type_and_in_the_same_order(value):
    assert same(there_and_back(value), value)


@exhaustive
@given(st.lists(values, max_size=3), st.dictionaries(any_text, values, max_size=3))
def test_a_call_comes_back_as_it_was_made(args, kwargs):
    args_back, kwargs_back = payload.decode_call(payload.encode_call(tuple(args), kwargs, cap=CAP))
    assert same(args_back, tuple(args))
    assert same(kwargs_back, kwargs)


@exhaustive
@given(values)
def test_both_encoders_write_the_same_bytes(value):
    pytest.importorskip("orjson")
    document = {"v": 1, "value": plain.plain(value, plain.LEVELS, plain.other_class)}
    assert payload.write_with_orjson(document) == payload.write_with_json(document)


@exhaustive
@given(st.floats())
def test_floats_are_written_alike_by_both_encoders(number):
    pytest.importorskip("orjson")
    document = {"v": plain.plain(number, 1, plain.other_class)}
    assert payload.write_with_orjson(document) == payload.write_with_json(document)


@exhaustive
@given(values)
def test_a_stored_value_is_utf8_without_a_nul(value):
    text = payload.encode_value(value, cap=CAP)
    assert b"\0" not in text.encode()


@pytest.mark.parametrize(
    "value",
    [
        math.nan, math.inf, -math.inf, -0.0, 1e16, 1e-7, 5e-324, 2**53, 2**53 + 1,
        -(2**64), 10**5000,
        "nul \0", "\ud800", "\ud83d\ude00", "\U0001f600", {"\ud800": 1}, {"$": "tuple", "v": [1]},
        {1: "a", "1": "b", None: "c"}, (), ((),), set(), b"", Decimal("sNaN"), Decimal("-0E+7"),
        datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(2024, 10, 27, 2, 30, fold=1), datetime(1, 1, 1, tzinfo=UTC),
        time(12, tzinfo=ZoneInfo("Europe/Berlin"), fold=1), date(1, 1, 1),
        datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=2), "CEST")),
        datetime(2024, 1, 1, tzinfo=timezone(timedelta(microseconds=-1))),
        timedelta(-1, 5, 7), uuid.UUID(int=7), OrderedDict(b=1, a=2), Color.ALSO_RED, ~Right.READ,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_json_lacks_comes_back_all_the_same(value):
    assert same(there_and_back(value), value)


def test_a_value_without_anything_to_tag_is_not_copied():
    value = {"rows": [{"n": 1, "name": "é"}], "ok": True}
    assert plain.plain(value, plain.LEVELS, plain.other_class) is value


def test_encoding_leaves_the_value_as_it_was():
    value = {"rows": [(1, 2)], "at": date(2024, 1, 1)}
    payload.encode_value(value, cap=CAP)
    assert value == {"rows": [(1, 2)], "at": date(2024, 1, 1)}


def test_plain_values_are_plain_json():
    text = payload.encode_call((7, "é"), {"to": [None, 1.5]}, cap=CAP)
    assert text == '{"v":1,"args":[7,"é"],"kwargs":{"to":[null,1.5]}}'


class MyDict(dict):
    pass


class MyInt(int):
    pass


class Model:
    """Looks like a Django model."""

    _meta, pk = object(), 7


class Pydantic:
    model_fields = {}

    def model_dump(self):
        return {}


class Zone(UTC.__class__.__base__):
    """A tzinfo of somebody's own."""

    def utcoffset(self, at):
        return timedelta(hours=1)


@dataclass
class Order:
    price: int


async def coroutine_function():
    pass


def an_awaitable():
    coroutine = coroutine_function()
    coroutine.close()
    return coroutine


@pytest.mark.parametrize(
    "make, advice",
    [
        (Model, "primary key"),
        (lambda: Order(1), "dataclasses.asdict"),
        (Pydantic, "model_dump()"),
        (lambda: lambda: 1, "code"),
        (lambda: Order, "code"),
        (lambda: len, "code"),
        (io.BytesIO, "open file"),
        (lambda: (n for n in []), "Pass a list"),
        (an_awaitable, "await"),
        (lambda: ValueError("x"), "an error"),
        (MyDict, "Pass a plain dict"),
        (lambda: MyInt(1), "Pass a plain int"),
        (lambda: defaultdict(list), "Pass a plain dict"),
        (lambda: namedtuple("Point", "x")(1), "Pass a plain tuple"),
        (lambda: 1j, "no exact form"),
        (object, "no exact form"),
        (lambda: bytearray(b"x"), "no exact form"),
        (lambda: enum.Enum("Local", "A").A, "top level of a module"),
        (lambda: datetime(2024, 1, 1, tzinfo=Zone()), "zoneinfo"),
    ],
)
def test_what_has_no_exact_form_is_refused_with_advice(make, advice):
    with pytest.raises(Unstorable, match=advice) as refusal:
        payload.encode_value({"items": [make()]}, cap=CAP)
    assert refusal.value.path == 'result["items"][0]'


@pytest.mark.parametrize(
    "args, kwargs, path",
    [
        ((object(),), {}, "args[0]"),
        ((1, [{"price": object()}]), {}, 'args[1][0]["price"]'),
        ((), {"order": (1, object())}, 'kwargs["order"][1]'),
        (({1: object()},), {}, "args[0][1]"),
        (({"$": 1, object(): 2},), {}, "args[0].keys()[1]"),
        ((OrderedDict(a=object()),), {}, 'args[0]["a"]'),
        (({'a"b': object()},), {}, r'args[0]["a\"b"]'),
    ],
)
def test_the_path_leads_to_the_value(args, kwargs, path):
    with pytest.raises(Unstorable) as refusal:
        payload.encode_call(args, kwargs, cap=CAP)
    assert refusal.value.path == path


def test_a_value_that_contains_itself_is_refused_where_it_does():
    rows = []
    rows.append({"parent": (1, rows)})
    with pytest.raises(Unstorable, match="contains itself") as refusal:
        payload.encode_value(rows, cap=CAP)
    assert refusal.value.path == 'result[0]["parent"][1]'


WRAPS = {
    "list": lambda v: [v], "tuple": lambda v: (v,), "dict": lambda v: {"a": v},
    "pairs": lambda v: {1: v}, "tag key": lambda v: {"$": v}, "frozenset": lambda v: frozenset([v]),
    "ordered": lambda v: OrderedDict(a=v),
}  # fmt: skip


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_two_hundred_levels_can_be_stored_and_not_one_more(wrap):
    assert there_and_back(nested(200, wrap)) == nested(200, wrap)
    assert payload.decode_call(payload.encode_call((nested(200, wrap),), {}, cap=CAP))
    with pytest.raises(Unstorable, match="deeper than 200 levels"):
        payload.encode_value(nested(201, wrap), cap=CAP)


def test_nesting_is_refused_before_the_stack_ends():
    with pytest.raises(Unstorable):
        payload.encode_value(nested(100_000, lambda value: [value]), cap=CAP)


def test_the_cap_counts_bytes():
    text = payload.encode_value("é" * 100, cap=CAP)
    size = len(text.encode())
    assert payload.encode_value("é" * 100, cap=size) == text
    with pytest.raises(PayloadTooLarge) as refusal:
        payload.encode_value("é" * 100, cap=size - 1, path="event")
    assert (refusal.value.path, refusal.value.size, refusal.value.cap) == ("event", size, size - 1)


# What can't be read

CORRUPT = [
    "", "x", "1", "[]", "{}", "null", '{"v":2,"value":1}', '{"v":null,"value":1}', '{"v":1}',
    '{"value":1}', '{"v":1,"value":1,"more":1}', '{"v":1,"value":NaN}', '{"v":1,"value":Infinity}',
    '{"v":1,"value":{"$":"unknown","v":1}}', '{"v":1,"value":{"$":[],"v":1}}',
    '{"v":1,"value":{"$":"tuple"}}', '{"v":1,"value":{"$":"tuple","v":1,"w":1}}',
    '{"v":1,"value":{"$":"tuple","v":"ab"}}', '{"v":1,"value":{"$":"set","v":[[]]}}',
    '{"v":1,"value":{"$":"dict","v":[1]}}', '{"v":1,"value":{"$":"dict","v":[[],1]}}',
    '{"v":1,"value":{"$":"int","v":"x"}}', '{"v":1,"value":{"$":"int","v":7}}',
    '{"v":1,"value":{"$":"Decimal","v":"x"}}', '{"v":1,"value":{"$":"UUID","v":7}}',
    '{"v":1,"value":{"$":"bytes","v":"é"}}', '{"v":1,"value":{"$":"str","v":"gA=="}}',
    '{"v":1,"value":{"$":"timedelta","v":[1e300]}}', '{"v":1,"value":{"$":"datetime","v":"x"}}',
    '{"v":1,"value":{"$":"datetime","v":["2024-01-01T00:00:00",0,"No/Where"]}}',
    '{"v":1,"value":{"$":"datetime","v":["2024-01-01T00:00:00",0,"../../etc/passwd"]}}',
    '{"v":1,"value":{"$":"time","v":["00:00:00",7]}}',
    '{"v":1,"value":{"$":"enum","v":["no.such.module","X","A"]}}',
    '{"v":1,"value":{"$":"enum","v":["os","system","A"]}}',
    '{"v":1,"value":{"$":"enum","v":[[],1,2]}}',
    '{"v":1,"value":{"$":"error","v":{}}}', '{"v":1,"value":{"$":"self","v":null}}',
    '{"v":1,"value":' + "[" * 1001 + "]" * 1001 + "}",
    "[" * 100_000 + "]" * 100_000, '{"v":1,"value":' + '{"a":' * 100_000 + "1" + "}" * 100_002,
]  # fmt: skip


@pytest.mark.parametrize("text", CORRUPT, ids=lambda text: text[:50] or "empty")
def test_text_that_is_no_stored_value_is_corrupt(text):
    with pytest.raises(CorruptPayload):
        payload.decode_value(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"v":1,"args":{},"kwargs":{}}',
        '{"v":1,"args":[],"kwargs":[]}',
        '{"v":1,"args":[],"kwargs":{"$":"dict","v":[1,2]}}',
        '{"v":1,"value":1}',
    ],
)
def test_text_that_is_no_stored_call_is_corrupt(text):
    with pytest.raises(CorruptPayload):
        payload.decode_call(text)


TAGS = [*restore.READERS, "error", "self", "?"]
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["a.b", "builtins", "2024-01-01", "UTC", "0x1", "nan"]),
    lambda inner: st.lists(inner, max_size=5)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    | st.fixed_dictionaries({"$": st.sampled_from(TAGS), "v": inner}),
    max_leaves=10,
)  # fmt: skip
records = st.fixed_dictionaries(
    {
        "type": jsons | st.sampled_from([["builtins", n] for n in ("OSError", "str", "print")]),
        "message": jsons | st.text(max_size=5), "args": jsons | st.lists(jsons, max_size=3),
        "fields": jsons | st.dictionaries(st.sampled_from(["filename", "name", "x"]), jsons),
        "state": jsons | st.dictionaries(st.sampled_from(["a", "__notes__", "args"]), jsons),
        "cause": jsons, "traceback": jsons,
    }
)  # fmt: skip
envelopes = st.one_of(
    st.fixed_dictionaries({"v": st.just(1), "value": jsons}),
    st.fixed_dictionaries({"v": st.just(1), "args": jsons, "kwargs": jsons}),
    st.fixed_dictionaries({"v": st.just(1), "error": jsons | records}),
    jsons,
).map(json.dumps)


@exhaustive
@given(st.text() | envelopes)
def test_whatever_the_text_only_corrupt_payload_comes_out(text):
    for decode in (payload.decode_value, payload.decode_call, failure.decode_error):
        try:
            decode(text)
        except CorruptPayload:
            pass
    assert isinstance(failure.error_line(text), str)


@exhaustive
@given(values, st.data())
def test_damage_to_a_stored_value_is_noticed_or_harmless(value, data):
    text = payload.encode_value(value, cap=CAP)
    at = data.draw(st.integers(0, len(text) - 1))
    try:
        other = payload.decode_value(text[:at] + data.draw(st.characters()) + text[at + 1 :])
    except CorruptPayload:
        return
    again = payload.encode_value(other, cap=2 * CAP)  # a value like any other
    assert same(payload.decode_value(again), other)


# Errors


def error_and_back(error):
    return failure.decode_error(failure.encode_error(error))


def raised(error):
    try:
        raise error
    except BaseException as caught:
        return caught


ERRORS = [
    ValueError("x"), Exception(), KeyError("k"), OSError(2, "x"),
    OSError(2, "x", "file", None, "to"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), ImportError("m", name="n", path="p"),
    SyntaxError("m", ("f", 1, 2, "text")), StopIteration(4), AttributeError("a", name="b"),
    ValueError({"a": (1, 2)}, [date(2024, 1, 1)]), ValueError("nul \0, lone \ud800"),
    OutOfStock(sku="a", wanted=2), Declined("4711"), Picky(secret=1), StepTimeout("charge", 2.5),
    MaxStepRetriesExceeded("charge", 2, []), InterleavedSteps("w", 3, "charge"), Frozen("x"),
    PayloadTooLarge("result", 2, 1), SelfListing("wrong"), WorkflowFailed("m", "gone.Error"),
]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_comes_back_with_its_class_text_arguments_and_attributes(error):
    back = error_and_back(raised(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert same(back.args, error.args)
    assert vars(back).keys() == vars(error).keys()


@exhaustive
@given(st.lists(values, max_size=3), st.dictionaries(st.text(max_size=5), values, max_size=3))
def test_what_an_error_holds_comes_back_exactly(args, state):
    error = ValueError(*args)
    error.__dict__.update(state)
    back = error_and_back(error)
    assert same(back.args, error.args)
    assert same(vars(back), {name: value for name, value in state.items() if name != "$"})


def test_fields_of_builtin_errors_come_back():
    with pytest.raises(FileNotFoundError) as missing:
        os.stat("/no/such/file")
    back = error_and_back(missing.value)
    assert (back.errno, back.filename, str(back)) == (2, "/no/such/file", str(missing.value))
    assert error_and_back(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")).object == b"\xff"


def test_errors_held_by_an_error_come_back():
    back = error_and_back(MaxStepRetriesExceeded("charge", 2, [ValueError("a"), Declined("1")]))
    assert [(type(error), str(error)) for error in back.errors] == [
        (ValueError, "a"),
        (Declined, "card 1 declined"),
    ]


def test_an_exception_group_comes_back_with_its_errors():
    back = error_and_back(ExceptionGroup("two", [ValueError("a"), KeyError("b")]))
    assert type(back) is ExceptionGroup
    assert [repr(error) for error in back.exceptions] == ["ValueError('a')", "KeyError('b')"]


def test_an_error_that_lists_itself_still_does():
    back = error_and_back(SelfListing("wrong"))
    assert back.error_list == [back]


def test_errors_that_all_hold_each_other_are_cut_somewhere():
    errors = [ValueError(number) for number in range(30)]
    for error in errors:
        error.siblings = errors
    assert type(error_and_back(errors[0])) is ValueError


def test_the_cause_of_an_error_that_refuses_assignment_comes_back():
    error = Frozen("x")
    BaseException.__setattr__(error, "__cause__", KeyError("k"))
    assert repr(error_and_back(error).__cause__) == "KeyError('k')"


def test_notes_and_causes_come_back():
    error, root = ValueError("x"), KeyError("k")
    error.__cause__ = root
    error.add_note("while packing")
    back = error_and_back(error)
    assert back.__notes__ == ["while packing"]
    assert repr(back.__cause__) == "KeyError('k')"


def test_a_chain_of_causes_is_cut_after_five():
    error = ValueError("first")
    error.__cause__ = error  # a ring
    back, length = error_and_back(error), 0
    while back := back.__cause__:
        length += 1
    assert length == 5


def test_a_class_that_is_not_imported_is_stood_for():
    text = failure.encode_error(ValueError("x")).replace('"builtins"', '"not.imported"')
    back = failure.decode_error(text)
    assert type(back) is WorkflowFailed
    assert (str(back), back.error_type) == ("x", "not.imported.ValueError")
    assert "not.imported" not in sys.modules


@pytest.mark.parametrize("name", ["print", "int", "object", "SystemExit", "no.such.name"])
def test_only_an_error_class_is_ever_made(name):
    text = failure.encode_error(ValueError("x")).replace('"ValueError"', f'"{name}"')
    assert type(failure.decode_error(text)) is WorkflowFailed


def test_a_class_inside_a_function_is_stood_for():
    class Local(Exception):
        pass

    assert error_and_back(Local("x")).error_type.endswith("<locals>.Local")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), Suspended()])
def test_control_flow_comes_back_as_a_stand_in(error):
    assert type(error_and_back(error)) is WorkflowFailed


def test_no_code_of_the_class_runs_while_an_error_is_made(monkeypatch):
    text = failure.encode_error(OutOfStock(sku="a", wanted=2))
    for name in ("__new__", "__init__", "__setattr__", "__setstate__"):
        monkeypatch.setattr(OutOfStock, name, lambda *_, **__: pytest.fail("called"), raising=False)
    assert failure.decode_error(text).sku == "a"


def test_what_an_error_holds_that_can_not_be_stored_is_reduced_or_dropped():
    error = ValueError(Model, "kept", 1j)
    error.connection, error.code, error.detail = object(), 7, ListedText("why")
    back = error_and_back(error)
    assert back.args == (str(Model), "kept", "1j")
    assert vars(back) == {"code": 7, "detail": "why"}
    assert type(back.detail) is str


class Hostile(Exception):
    args = property(lambda self: 1 / 0)

    def __str__(self):
        raise RecursionError


@pytest.mark.parametrize("error", [Mute("x"), Hostile(), ValueError(Mute()), ValueError(MyDict)])
def test_writing_an_error_never_fails(error):
    assert isinstance(error_and_back(raised(error)), Exception)


def test_an_error_too_big_keeps_its_class_and_the_beginning_of_its_message():
    error = ValueError("x" * 2_000_000)
    error.__cause__ = KeyError("k")
    text = failure.encode_error(error)
    assert len(text) < 100_000
    assert repr(failure.decode_error(text)) == repr(ValueError("x" * 8_000))


def test_the_traceback_is_kept_without_locals():
    secret = "hunter" + "2"
    record = json.loads(failure.encode_error(raised(ValueError(len(secret)))))["error"]
    assert "in raised" in record["traceback"]
    assert "hunter2" not in record["traceback"]


@pytest.mark.parametrize(
    "error, line",
    [
        (ValueError("x"), "ValueError: x"),
        (ValueError(), "ValueError"),
        (KeyError("k"), "KeyError: 'k'"),
        (ValueError("two\nlines"), "ValueError: two lines"),
        (ValueError("nul \0"), "ValueError: nul �"),
        (ValueError("\ud800"), "ValueError: \\ud800"),
        (ValueError("x" * 5_000), "ValueError: " + "x" * 1_988),
    ],
)
def test_error_line_is_one_line_for_a_list(error, line):
    assert failure.error_line(failure.encode_error(error)) == line


@pytest.mark.parametrize("text", [None, '{"v":1,"error":{"type":[1,2],"message":3}}', *CORRUPT])
def test_error_line_reads_on_whatever_the_text(text):
    assert failure.error_line(text) == "An error that can't be read back"
