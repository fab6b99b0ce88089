"""Arguments and results as JSON text and back: equal, of the same types, in the same order.

The walk in plain.py decides what a value is before any encoder sees it; here are the
envelope with its version, the cap, and the choice of an encoder. Errors: failure.py.
"""

from __future__ import annotations

import json
from typing import Any

from durable_workflows.core import plain, restore
from durable_workflows.errors import CorruptPayload, PayloadTooLarge, Unstorable

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]

VERSION = 1

_CALL = frozenset(("v", "args", "kwargs"))
_VALUE = frozenset(("v", "value"))


def encode_call(args: tuple, kwargs: dict, *, cap: int) -> str:
    """Return the arguments of one call as text.

    Raise Unstorable with a path like `args[0]["items"][3]` or `kwargs["order"]`, or
    PayloadTooLarge over `cap` bytes of UTF-8.
    """
    document = {
        "v": VERSION,
        "args": _plain("args", list(args), plain.LEVELS + 1),
        "kwargs": _plain("kwargs", kwargs, plain.LEVELS + 1),
    }
    return _capped(document, cap, "arguments")


def decode_call(text: str) -> tuple[tuple, dict]:
    """Return the (args, kwargs) that encode_call() was given; raise CorruptPayload."""
    document = open_envelope(text, _CALL)
    args, kwargs = _restored(text, document["args"]), _restored(text, document["kwargs"])
    if type(args) is not list or type(kwargs) is not dict or set(map(type, kwargs)) - {str}:
        raise CorruptPayload("Stored arguments are not a list and a dict with names as keys.")
    return tuple(args), kwargs


def encode_value(value: Any, *, cap: int, path: str = "result") -> str:
    """Return one value as text; `path` is what errors call it.

    Raise Unstorable with the path, or PayloadTooLarge over `cap` bytes of UTF-8.
    """
    return _capped({"v": VERSION, "value": _plain(path, value, plain.LEVELS)}, cap, path)


def decode_value(text: str) -> Any:
    """Return the value that encode_value() was given, anew each time; raise CorruptPayload."""
    return _restored(text, open_envelope(text, _VALUE)["value"])


def open_envelope(text: str, parts: frozenset[str]) -> dict:
    """Return the document that has these parts and a known version, not restored yet.

    Raise CorruptPayload if the text is anything else.
    """
    try:
        document = read(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise CorruptPayload(f"A stored value is not JSON: {str(error)[:200]}") from None
    if type(document) is not dict or "v" not in document:
        raise CorruptPayload("A stored value is not in an envelope with a version.")
    if document["v"] != VERSION:
        raise CorruptPayload(
            f"A stored value is of version {str(document['v'])[:20]}, this release reads {VERSION}."
        )
    if document.keys() != parts:
        raise CorruptPayload(f"A stored value has other parts than {', '.join(sorted(parts))}.")
    return document


_encode = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False
).encode


def write_with_json(document: dict) -> bytes:
    """Return a plain document as compact UTF-8; raise RecursionError."""
    return _encode(document).encode()


def write_with_orjson(document: dict) -> bytes:
    """Return the bytes of write_with_json(), sooner."""
    try:
        return orjson.dumps(document)
    except TypeError:  # it stops at 254 levels
        return write_with_json(document)


def read_with_json(text: str) -> Any:
    """Return what JSON text says; raise ValueError, TypeError or RecursionError."""
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# Alike on what is written here. Of foreign text one may refuse what the other reads (1e999).
write = write_with_orjson if orjson else write_with_json
read = orjson.loads if orjson else read_with_json


def _plain(root: str, value: Any, levels: int) -> Any:
    try:
        return plain.plain(value, levels, plain.other_class)
    except plain.Refused as refused:
        raise refused.unstorable(root) from None
    except RecursionError:
        raise Unstorable(root, _NO_STACK) from None


def _capped(document: dict, cap: int, path: str) -> str:
    try:
        raw = write(document)
    except RecursionError:
        raise Unstorable(path, _NO_STACK) from None
    if len(raw) > cap:
        raise PayloadTooLarge(path, len(raw), cap)
    return raw.decode()


def _restored(text: str, tree: Any) -> Any:
    # Most small values have no tags, and so few signs can't be nested too deeply.
    if len(text) < 2 * restore.LEVELS and '"$"' not in text:
        return tree
    try:
        return restore.restore(tree, restore.LEVELS, {})
    except RecursionError:
        raise CorruptPayload("A stored value is nested too deeply for the stack here.") from None


_NO_STACK = "it is nested too deeply for the stack here. Flatten it."
