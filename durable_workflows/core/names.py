"""One rule for every name that people choose: queues, workflows, ids, topics."""

import re

from durable_workflows.errors import InvalidName

LONGEST = 255
# No white space, quotes or control characters: a name stands in logs, URLs and commands.
RULE = re.compile(r"[^\s\x00-\x1f\x7f'\"\\`]+", re.UNICODE)


def check_text(text: object, what: str) -> str:
    """Return the text, or raise InvalidName; it may hold white space, unlike a name."""
    if not isinstance(text, str):
        raise InvalidName(f"{what} is a string, not {type(text).__name__}.")
    if not 0 < len(text) <= LONGEST:
        raise InvalidName(f"{what} has 1 to {LONGEST} characters, not {len(text)}.")
    if not text.isprintable():
        raise InvalidName(f"{what} holds characters that can't be printed: {text[:80]!r}.")
    return text


def check_name(name: object, what: str) -> str:
    """Return the name, or raise InvalidName that says what names may be."""
    if not isinstance(name, str):
        raise InvalidName(f"{what} is a string, not {type(name).__name__}.")
    if not name:
        raise InvalidName(f"{what} can't be empty.")
    if len(name) > LONGEST:
        raise InvalidName(
            f"{what} has at most {LONGEST} characters; {name[:40]!r}… has {len(name)}."
        )
    if not RULE.fullmatch(name):
        raise InvalidName(
            f"{what} can't hold white space, quotes, backslashes or control characters: "
            f"{name[:80]!r}."
        )
    if not name.isprintable():
        raise InvalidName(f"{what} holds characters that can't be printed: {name[:80]!r}.")
    return name
