"""Values as plain trees: what JSON can hold exactly, and tags for the rest.

The walk decides by exact class. A tree has None, bool, int, float, str, list and dict
with str keys only; what else may be stored is a dict {"$": tag, "v": body} in it. A
part in which nothing had to be tagged is passed on uncopied. Other classes are refused
with the path to the value. The way back is restore.py.
"""

from __future__ import annotations

import base64
import json
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, EnumMeta, Flag
from types import BuiltinFunctionType, FunctionType, MethodType, NoneType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from durable_workflows.core.restore import find_class
from durable_workflows.errors import Unstorable

LEVELS = 200  # of containers in a value; a tagged one takes two levels of JSON
SAFE_INT = 2**53  # beyond it, JSON readers that only know doubles lose digits

Walk = Callable[[Any, int, Any], Any]  # value, levels left, the walk for classes not listed


class Refused(Exception):
    """Says why, while the walk unwinds and each container adds the step that led down from it."""

    def __init__(self, reason: str):
        self.reason = reason
        self.trail: list[tuple[object, str]] = []  # innermost first

    def below(self, container: object, step: str) -> Refused:
        """Return itself, one step longer."""
        self.trail.append((container, step))
        return self

    def unstorable(self, root: str) -> Unstorable:
        """Return the error for callers, its path starting with `root`."""
        path, passed = root, set()
        for container, step in reversed(self.trail):
            if id(container) in passed:
                return Unstorable(path, "it contains itself. Pass ids in place of links.")
            passed.add(id(container))
            path += step
        return Unstorable(path if len(path) <= 500 else path[:500] + "…", self.reason)


def plain(value: Any, levels: int, other: Walk) -> Any:
    """Return `value` as a plain tree, which may share parts with it.

    `other` is the walk for classes that are not listed. Raise Refused, or
    RecursionError if too little of the stack is left.
    """
    return _WALKS.get(type(value), other)(value, levels, other)


def other_class(value: Any, levels: int, other: Walk) -> Any:
    """Return an enum's member as a plain tree and refuse anything else."""
    if isinstance(type(value), EnumMeta):
        return {"$": "enum", "v": _enum(value, levels, other)}
    raise Refused(_advice(value))


# Walks: value → tree

_TOO_DEEP = f"it is nested deeper than {LEVELS} levels. Flatten it, or store it elsewhere."


def _same(value: Any, levels: int, other: Walk) -> Any:
    return value


def _int(value: int, levels: int, other: Walk) -> Any:
    if -SAFE_INT <= value <= SAFE_INT:
        return value
    # Python reads and writes at most 4,300 decimal digits, but any number of hexadecimal ones.
    return {"$": "int", "v": str(value) if value.bit_length() < 2000 else hex(value)}


def _float(value: float, levels: int, other: Walk) -> Any:
    # In this range every encoder prints the same shortest digits without an exponent.
    # Outside they differ (1e-07, 1e-7), and NaN and the infinities are not JSON at all.
    if 1e-4 <= value < 1e16 or -1e16 < value <= -1e-4 or value == 0:
        return value
    return {"$": "float", "v": repr(value)}


def _str(value: str, levels: int, other: Walk) -> Any:
    if value.isascii() or _is_utf8(value):
        return value
    return {"$": "str", "v": _base64(value.encode("utf-8", "surrogatepass"))}


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def _list(items: list, levels: int, other: Walk) -> list:
    if levels <= 0:
        raise Refused(_TOO_DEEP)
    tree, index = items, 0
    try:
        for index, item in enumerate(items):
            cls = type(item)
            if (cls is str and item.isascii()) or (cls is int and -SAFE_INT <= item <= SAFE_INT):
                continue
            branch = _WALKS.get(cls, other)(item, levels - 1, other)
            if branch is not item:
                if tree is items:
                    tree = items.copy()
                tree[index] = branch
    except Refused as refused:
        raise refused.below(items, f"[{index}]") from None
    return tree


def _dict(mapping: dict, levels: int, other: Walk) -> dict:
    if levels <= 0:
        raise Refused(_TOO_DEEP)
    if "$" in mapping or _has_other_keys(mapping):
        return {"$": "dict", "v": _pairs(mapping, levels, other)}
    tree, key = mapping, ""
    try:
        for key, item in mapping.items():
            cls = type(item)
            if (cls is str and item.isascii()) or (cls is int and -SAFE_INT <= item <= SAFE_INT):
                continue
            branch = _WALKS.get(cls, other)(item, levels - 1, other)
            if branch is not item:
                if tree is mapping:
                    tree = mapping.copy()
                tree[key] = branch
    except Refused as refused:
        raise refused.below(mapping, _subscript(key)) from None
    return tree


def _has_other_keys(mapping: dict) -> bool:
    for key in mapping:  # noqa: SIM110 - any() would cost a small dict a generator
        if type(key) is not str or not (key.isascii() or _is_utf8(key)):
            return True
    return False


def _pairs(mapping: dict, levels: int, other: Walk) -> list:
    """Return [key, value, key, value, …], which keeps keys of any class, and their order."""
    if levels <= 0:
        raise Refused(_TOO_DEEP)
    flat: list = []
    for key, item in mapping.items():
        try:
            flat.append(_WALKS.get(type(key), other)(key, levels - 1, other))
        except Refused as refused:
            raise refused.below(mapping, f".keys()[{len(flat) // 2}]") from None
        try:
            flat.append(_WALKS.get(type(item), other)(item, levels - 1, other))
        except Refused as refused:
            raise refused.below(mapping, _subscript(key)) from None
    return flat


def _subscript(key: Any) -> str:
    if type(key) is str:
        return f"[{json.dumps(key, ensure_ascii=not _is_utf8(key))}]"
    return f"[{key!r}]"


def _clock(value: datetime | time, levels: int, other: Walk) -> Any:
    zone = value.tzinfo
    if not value.fold and (zone is None or zone is UTC):
        return value.isoformat()
    wall = value.replace(tzinfo=None, fold=0).isoformat()
    if zone is None:
        return [wall, value.fold]
    if type(zone) is ZoneInfo and zone.key:
        return [wall, value.fold, zone.key]
    if type(zone) is timezone:
        offset, name = zone.utcoffset(None), zone.tzname(None)
        named = [_str(name, levels, other)] if name != timezone(offset).tzname(None) else []
        return [wall, value.fold, offset // timedelta(microseconds=1), *named]
    raise Refused(f"its time zone is a {_name(zone)}. Use zoneinfo.ZoneInfo or datetime.timezone.")


def _enum(member: Enum, levels: int, other: Walk) -> list:
    cls = type(member)
    known = find_class(cls.__module__, cls.__qualname__) is cls
    if known and isinstance(member, Flag):  # combinations have no names of their own
        return [cls.__module__, cls.__qualname__, None, plain(member._value_, levels - 1, other)]
    if known and cls.__members__.get(member._name_) is member:
        return [cls.__module__, cls.__qualname__, member._name_]
    raise Refused(
        f"the enum {_name(member)} is not found under its module and name. Define it at the top "
        "level of a module, or pass the member's value."
    )


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _tagged(tag: str, body_of: Walk) -> Walk:
    return lambda value, levels, other: {"$": tag, "v": body_of(value, levels, other)}


def _sequence(tag: str) -> Walk:
    return lambda value, levels, other: {"$": tag, "v": _list(list(value), levels, other)}


_WALKS: dict[type, Walk] = {
    NoneType: _same,
    bool: _same,
    int: _int,
    float: _float,
    str: _str,
    list: _list,
    dict: _dict,
    tuple: _sequence("tuple"),
    set: _sequence("set"),
    frozenset: _sequence("frozenset"),
    OrderedDict: _tagged("OrderedDict", _pairs),
    bytes: _tagged("bytes", lambda value, *_: _base64(value)),
    datetime: _tagged("datetime", _clock),
    time: _tagged("time", _clock),
    date: _tagged("date", lambda value, *_: value.isoformat()),
    timedelta: _tagged("timedelta", lambda v, *_: [v.days, v.seconds, v.microseconds]),
    Decimal: _tagged("Decimal", lambda value, *_: str(value)),
    UUID: _tagged("UUID", lambda value, *_: str(value)),
}


# Refusals

_ADVICE = (  # names of attributes that tell a class, what it is, what to pass
    (("_meta", "pk"), "a model instance", "its primary key"),
    (("as_manager", "iterator"), "a query set", "a list of primary keys"),
    (("__dataclass_fields__",), "a dataclass instance", "dataclasses.asdict() of it"),
    (("model_dump", "model_fields"), "a pydantic model", "its model_dump()"),
    (("__await__",), "an awaitable", "what awaiting it returns"),
    (("read", "close"), "an open file", "its path or its content"),
    (("write", "close"), "an open file", "its path or its content"),
    (("__next__",), "an iterator, which can be read only once", "a list"),
    (("__anext__",), "an iterator, which can be read only once", "a list"),
)
_CODE = (type, FunctionType, BuiltinFunctionType, MethodType)


def _advice(value: Any) -> str:
    """Return why a value is refused and what to pass instead."""
    cls, name = type(value), _name(value)
    if isinstance(value, _CODE):
        return f"it is code ({name}). Pass a name, and look it up where it is used."
    for attributes, kind, instead in _ADVICE:
        if all(hasattr(cls, attribute) for attribute in attributes):
            return f"it is {kind} ({name}). Pass {instead}."
    if isinstance(value, BaseException):
        return f"it is an error ({name}). Raise it, or pass str() of it."
    for base in cls.__mro__:
        if base in _WALKS:
            return f"its class {name} is not exactly {base.__name__}. Pass a plain {base.__name__}."
    return (
        f"its class {name} has no exact form in JSON. Pass numbers, text, dates, lists or dicts "
        "from which it can be made again."
    )


def _name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
