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

RawReader = Callable[[Any, int], Any]  # body, levels left


def restore(tree: Any, levels: int, raw: dict[str, RawReader]) -> Any:
    """Return the value of a plain tree, in whose lists and dicts it may be built.

    `raw` reads the bodies of further tags, before anything in them is restored. Raise
    CorruptPayload, or RecursionError if too little of the stack is left.
    """
    if levels <= 0:
        raise CorruptPayload(f"A stored value is nested deeper than {LEVELS} levels.")
    if type(tree) is list:
        for index, item in enumerate(tree):
            if type(item) in _CONTAINERS:
                tree[index] = restore(item, levels - 1, raw)
    elif type(tree) is dict:
        if "$" in tree:
            tag, body = _tag_and_body(tree)
            if tag in raw:
                return raw[tag](body, levels - 1)
            return _read(tag, restore(body, levels - 1, raw))
        for key, item in tree.items():
            if type(item) in _CONTAINERS:
                tree[key] = restore(item, levels - 1, raw)
    return tree


def find_class(module: str, qualname: str) -> type | None:
    """Return the class of this name if its module has been imported already, else None."""
    # Through __dict__: getattr could run a module's own __getattr__, and that may import.
    place: Any = sys.modules.get(module)
    for part in qualname.split("."):
        place = getattr(place, "__dict__", {}).get(part)
    return place if isinstance(place, type) else None


_CONTAINERS = frozenset((list, dict))


def _tag_and_body(tree: dict) -> tuple[str, Any]:
    tag = tree["$"]
    if type(tag) is not str or len(tree) != 2 or "v" not in tree:
        raise CorruptPayload("A stored value has a tag of the wrong shape.")
    return tag, tree["v"]


def _read(tag: str, body: Any) -> Any:
    if tag not in READERS:
        raise CorruptPayload(f"A stored value has an unknown tag: {tag[:40]!r}.")
    try:
        return READERS[tag](body)
    except CorruptPayload:
        raise
    except Exception as error:
        raise CorruptPayload(f"A stored {tag} can't be read: {str(error)[:200]}") from None


# Readers: restored body → value


def _text(body: Any) -> str:
    if type(body) is not str:
        raise TypeError("its body is not text")
    return body


def _items(body: Any) -> list:
    if type(body) is not list:
        raise TypeError("its body is not a list")
    return body


def _pairs(body: Any) -> list:
    flat = _items(body)
    return list(zip(flat[::2], flat[1::2], strict=True))


def _bytes(body: Any) -> bytes:
    return base64.b64decode(_text(body), validate=True)


def _clock(cls: Any, body: Any) -> Any:
    if type(body) is str:
        return cls.fromisoformat(body)
    wall, fold, *zone = _items(body)
    naive = cls.fromisoformat(wall).replace(fold=fold)
    match zone:
        case []:
            return naive
        case [str(key)]:
            return naive.replace(tzinfo=ZoneInfo(key))
        case [int(offset), *name]:
            return naive.replace(tzinfo=timezone(timedelta(microseconds=offset), *name))
    raise ValueError("its time zone has the wrong shape")


def _enum(body: Any) -> Enum:
    module, qualname, name, *value = _items(body)
    cls = find_class(_text(module), _text(qualname))
    if cls is None or not issubclass(cls, Enum):
        raise CorruptPayload(
            f"A stored value is a member of {module}.{qualname}, which is not imported here."
        )
    return cls(*value) if value else cls.__members__[name]


READERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda body: int(_text(body), 0),
    "float": lambda body: float(_text(body)),
    "str": lambda body: _bytes(body).decode("utf-8", "surrogatepass"),
    "bytes": _bytes,
    "tuple": lambda body: tuple(_items(body)),
    "set": lambda body: set(_items(body)),
    "frozenset": lambda body: frozenset(_items(body)),
    "dict": lambda body: dict(_pairs(body)),
    "OrderedDict": lambda body: OrderedDict(_pairs(body)),
    "datetime": lambda body: _clock(datetime, body),
    "time": lambda body: _clock(time, body),
    "date": date.fromisoformat,
    "timedelta": lambda body: timedelta(*_items(body)),
    "Decimal": lambda body: Decimal(_text(body)),
    "UUID": lambda body: UUID(_text(body)),
    "enum": _enum,
}
