"""Plain trees as values again. The way there is plain.py.

Reads nothing but the closed list of tags in READERS, and imports, unpickles and
evaluates nothing: classes are found in modules that are imported already. Whatever
the tree is, CorruptPayload and RecursionError are all that comes out.
"""

from __future__ import annotations

import base64
import sys
from collections import OrderedDict
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from durable_workflows.errors import CorruptPayload

LEVELS = 1000  # of JSON that are read; more than plain.LEVELS, since tags take some

Reader = Callable[[Any, int, dict], Any]  # body, levels left, readers by tag


class ClassNotHere(CorruptPayload):
    """The value's class is not among the imported ones."""


def restore(tree: Any, levels: int, readers: dict[str, Reader]) -> Any:
    """Return the value of a plain tree, in whose lists and dicts it may be built.

    Raise CorruptPayload, or RecursionError if too little of the stack is left.
    """
    if levels <= 0:
        raise CorruptPayload(f"A stored value is nested deeper than {LEVELS} levels.")
    if type(tree) is list:
        for index, item in enumerate(tree):
            if type(item) in _CONTAINERS:
                tree[index] = restore(item, levels - 1, readers)
    elif type(tree) is dict:
        if "$" in tree:
            return _untag(tree, levels, readers)
        for key, item in tree.items():
            if type(item) in _CONTAINERS:
                tree[key] = restore(item, levels - 1, readers)
    return tree


def find_class(module: str, qualname: str) -> type | None:
    """Return the class of this name if its module has been imported already, else None."""
    # Through __dict__: getattr could run a module's own __getattr__, and that may import.
    place: Any = sys.modules.get(module)
    for part in qualname.split("."):
        place = getattr(place, "__dict__", {}).get(part)
    return place if isinstance(place, type) else None


_CONTAINERS = frozenset((list, dict))


def _untag(tree: dict, levels: int, readers: dict[str, Reader]) -> Any:
    tag = tree["$"]
    if type(tag) is not str or tag not in readers:
        raise CorruptPayload(f"A stored value has an unknown tag {str(tag)[:40]!r}.")
    if len(tree) != 2 or "v" not in tree:
        raise CorruptPayload(f"A stored {tag} has the wrong shape.")
    try:
        return readers[tag](tree["v"], levels - 1, readers)
    except (CorruptPayload, RecursionError):
        raise
    except Exception as error:
        raise CorruptPayload(f"A stored {tag} can't be read: {str(error)[:200]}") from None


def _read_items(body: Any, levels: int, readers: dict[str, Reader]) -> list:
    if type(body) is not list:
        raise TypeError("it has no list of items")
    return restore(body, levels, readers)


def _read_pairs(body: Any, levels: int, readers: dict[str, Reader]) -> list:
    flat = _read_items(body, levels, readers)
    return list(zip(flat[::2], flat[1::2], strict=True))


def _read_text(body: Any) -> str:
    if type(body) is not str:
        raise TypeError("its body is not text")
    return body


def _read_clock(cls: type, body: Any, levels: int, readers: dict[str, Reader]) -> Any:
    if type(body) is str:
        return cls.fromisoformat(body)
    wall, fold, *rest = _read_items(body, levels, readers)
    naive = cls.fromisoformat(wall).replace(fold=fold)
    match rest:
        case []:
            return naive
        case [str(key)]:
            return naive.replace(tzinfo=ZoneInfo(key))
        case [int(offset), *name]:
            return naive.replace(tzinfo=timezone(timedelta(microseconds=offset), *name))
    raise ValueError("its time zone has the wrong shape")


def _read_enum(body: Any, levels: int, readers: dict[str, Reader]) -> Enum:
    module, qualname, name, *value = _read_items(body, levels, readers)
    cls = find_class(module, qualname)
    if cls is None or not issubclass(cls, Enum):
        raise ClassNotHere(f"The enum {module}.{qualname} of a stored value is not imported here.")
    return cls(*value) if value else cls.__members__[name]


def _from_text(make: Callable[[str], Any]) -> Reader:
    return lambda body, levels, readers: make(_read_text(body))


def _from_items(make: Callable[[list], Any]) -> Reader:
    return lambda body, levels, readers: make(_read_items(body, levels, readers))


def _from_pairs(make: Callable[[list], Any]) -> Reader:
    return lambda body, levels, readers: make(_read_pairs(body, levels, readers))


def _unbase64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


READERS: dict[str, Reader] = {
    "int": _from_text(lambda text: int(text, 0)),
    "float": _from_text(float),
    "str": _from_text(lambda text: _unbase64(text).decode("utf-8", "surrogatepass")),
    "bytes": _from_text(_unbase64),
    "date": _from_text(date.fromisoformat),
    "Decimal": _from_text(Decimal),
    "UUID": _from_text(UUID),
    "tuple": _from_items(tuple),
    "set": _from_items(set),
    "frozenset": _from_items(frozenset),
    "timedelta": _from_items(lambda items: timedelta(*items)),
    "dict": _from_pairs(dict),
    "OrderedDict": _from_pairs(OrderedDict),
    "datetime": lambda body, *rest: _read_clock(datetime, body, *rest),
    "time": lambda body, *rest: _read_clock(time, body, *rest),
    "enum": _read_enum,
}
