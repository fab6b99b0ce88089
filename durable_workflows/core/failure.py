"""Errors as JSON text and back.

Writing never fails: what can't be kept exactly is kept as its text, or dropped. On the
way back the class is looked up among imported modules and filled without a call to
its own Python code; where it is missing, or can't be filled, WorkflowFailed stands for
it with the message and the class's name.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from types import BuiltinFunctionType, WrapperDescriptorType
from typing import Any

from durable_workflows.core import payload
from durable_workflows.core.plain import Refused, Walk, other_class, plain
from durable_workflows.core.restore import LEVELS, find_class, restore
from durable_workflows.errors import CorruptPayload, WorkflowFailed

MESSAGE = 8_000  # characters of a message, and of a traceback's end, that are kept
LINE = 2_000  # characters of error_line()
TEXT = 1_048_576  # bytes of one error; a bigger one loses its attributes and causes
CAUSES = 5  # errors below an error: causes of causes, errors held by errors
HELD = 500  # errors held by an error, in all: each may hold all the others
HELD_TRACEBACK = 1_000  # characters of the traceback of each
PART_LEVELS = 20  # of containers in an argument or attribute


def encode_error(error: BaseException) -> str:
    """Return an error as text: class, arguments, attributes, notes, causes and traceback."""
    try:
        raw = _sealed(_record(error, CAUSES, iter(range(HELD))))
        if len(raw) <= TEXT:
            return raw.decode()
    except Exception:  # whatever its class does when looked at, the failure must be recorded
        pass
    return _sealed(_outline(error)).decode()


def decode_error(text: str) -> Exception:
    """Return the error, or a WorkflowFailed that stands for it; raise CorruptPayload."""
    record = payload.open_envelope(text, _ERROR)["error"]
    try:
        return _rebuild(record, LEVELS)
    except RecursionError:
        raise CorruptPayload("A stored error is nested too deeply for the stack here.") from None


def without_traceback(text: str) -> str:
    """Return an error's text without its traceback; of many tries the last one's is enough."""
    record = payload.open_envelope(text, _ERROR)["error"]
    return _sealed({**record, "traceback": ""}).decode()


def error_line(text: str) -> str:
    """Return "ValueError: message" from what encode_error() gave: one line, fit for any column."""
    try:
        record = payload.open_envelope(text, _ERROR)["error"]
        name, message = record["type"][1].rpartition(".")[2], record["message"]
        line = f"{name}: {message}" if message else name
        return " ".join(_clean(line).replace("\0", "�").splitlines())[:LINE]
    except Exception:
        return "An error that can't be read back"


_ERROR = frozenset(("v", "error"))


def _sealed(record: dict[str, Any]) -> bytes:
    return payload.write({"v": payload.VERSION, "error": record})


# Error → record

# What builtin errors keep outside of args and __dict__.
_FIELDS: dict[type[BaseException], tuple[str, ...]] = {
    OSError: ("filename", "filename2"),
    ImportError: ("name", "path"),
    NameError: ("name",),
    AttributeError: ("name",),
}
_DJANGO_LAZY = ("django.utils.functional", "Promise")
_PLAINER: tuple[Any, ...] = (str, int, float, bytes, dict, list, tuple, set, frozenset)


def _outline(error: BaseException) -> dict[str, Any]:
    """Return the record of an error by what can always be had: class, message, traceback."""
    cls, message = type(error), _text(error)
    return {
        "type": [_clean(str(cls.__module__)), _clean(str(cls.__qualname__))],
        "message": message,
        "args": [message],
        "fields": {},
        "state": {},
        "cause": None,
        "traceback": _traceback(error),
    }


def _record(error: BaseException, causes: int, quota: Iterator[int]) -> dict[str, Any]:
    def held(value: Any, levels: int, other: Walk) -> Any:
        if not isinstance(value, BaseException) or value is error or not causes:
            return _reduced(value, levels, other)
        if next(quota, None) is None:
            raise Refused("too many errors")
        record = _record(value, causes - 1, quota)
        record["traceback"] = record["traceback"][-HELD_TRACEBACK:]
        return {"$": "error", "v": record}

    def held_or_itself(value: Any, levels: int, other: Walk) -> Any:
        if value is error:  # Django's ValidationError is in its own error_list
            return {"$": "self", "v": None}
        return held(value, levels, other)

    cause = error.__cause__ if causes else None
    return {
        **_outline(error),
        "args": [_argument(value, held) for value in error.args],
        "fields": _parts(_fields(error), held),
        "state": _parts(error.__dict__, held_or_itself),
        "cause": None if cause is None else _record(cause, causes - 1, quota),
    }


def _fields(error: BaseException) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for base, names in _FIELDS.items():
        if isinstance(error, base):
            fields |= {name: getattr(base, name).__get__(error) for name in names}
    return {name: value for name, value in fields.items() if value is not None}


def _argument(value: Any, other: Walk) -> Any:
    try:
        return plain(value, PART_LEVELS, other)
    except Exception:
        return _text(value)


def _parts(parts: dict[str, Any], other: Walk) -> dict[str, Any]:
    """Return the trees of the parts that can be stored."""
    kept: dict[str, Any] = {}
    for name, value in parts.items():
        try:
            tree = plain({name: value}, PART_LEVELS + 1, other)
        except Exception:
            continue
        if "$" not in tree:  # a name that is no name
            kept |= tree
    return kept


def _reduced(value: Any, levels: int, other: Walk) -> Any:
    """Return a value that resembles a storable one as the one it resembles, or refuse it."""
    try:
        return other_class(value, levels, other)
    except Refused:
        # str() of many an error needs such attributes: a detail of a str subclass, a lazy
        # translation as its message.
        for base in _PLAINER:
            if isinstance(value, base):
                return plain(base(value), levels, other)
        if any((base.__module__, base.__name__) == _DJANGO_LAZY for base in type(value).__mro__):
            return plain(str(value), levels, other)
        raise


def _text(value: object) -> str:
    try:
        return _clean(str(value))[:MESSAGE]
    except Exception:
        return f"<{_clean(type(value).__qualname__)} without a text>"


def _traceback(error: BaseException) -> str:
    try:
        return _clean("".join(traceback.format_tb(error.__traceback__)))[-MESSAGE:]
    except Exception:
        return ""


def _clean(text: str) -> str:
    """Return text that UTF-8 can hold."""
    return text.encode("utf-8", "backslashreplace").decode()


# Record → error

_BUILTIN = {BuiltinFunctionType, WrapperDescriptorType}


def _rebuild(record: Any, levels: int) -> Exception:
    try:
        (module, qualname), message, cause = record["type"], record["message"], record["cause"]
        args, fields, state = record["args"], record["fields"], record["state"]
    except (KeyError, TypeError, ValueError):
        raise CorruptPayload("A stored error lacks some of its parts.") from None
    if not all(type(part) is str for part in (module, qualname, message)):
        raise CorruptPayload("A stored error has a class or message that is not text.")
    try:
        error = _make(find_class(module, qualname), args, fields, state, levels)
    except RecursionError:
        raise
    except Exception:
        error = WorkflowFailed(message, f"{module}.{qualname}")
    if cause is not None:
        BaseException.__setattr__(error, "__cause__", _rebuild(cause, levels - 1))
    return error


def _make(cls: type | None, args: Any, fields: Any, state: Any, levels: int) -> Exception:
    """Return an error of the class, made and filled by builtin code only; raise anything."""
    if cls is None or not issubclass(cls, Exception):
        raise TypeError("not an error's class")
    # The nearest class written in C: its __new__ and __init__ know the layout, while a Python
    # class's own __init__ may ask for arguments that nobody recorded.
    solid: Any = cls
    while not _BUILTIN & {type(vars(solid).get(name)) for name in ("__new__", "__init__")}:
        solid = solid.__base__
    args = restore(args, levels - 1, {"error": _rebuild})
    error: Exception = solid.__new__(cls, *args)
    solid.__init__(error, *args)
    raw = {"error": _rebuild, "self": lambda body, levels: error}
    for name, value in restore(fields, levels - 1, raw).items():
        base = next(base for base in _FIELDS if isinstance(error, base) and name in _FIELDS[base])
        getattr(base, name).__set__(error, value)
    error.__dict__.update(restore(state, levels - 1, raw))
    return error
