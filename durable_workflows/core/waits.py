"""What unfinished calls wait for, as stored in a workflow's `waits`.

A table position → Wait, the only record of a run that is ever changed. Instants
are epoch seconds of the database's clock. Position 0 is no call of the workflow:
there a rescuer notes how long a recovered workflow rests before it runs again.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

RESTING = 0
LONGEST_WAIT = 100 * 365 * 86_400  # seconds; databases' calendars end

# A wait for something another process makes is looked at again after this long,
# in case whoever made it died before its look; doubling to the longest.
FIRST_LOOK = 5.0
LONGEST_LOOK = 600.0
# Databases round wake_at, SQLite to milliseconds: a look that comes a little too early
# must not be due again at once, for ever.
SHORTEST_LOOK = 0.001


@dataclass(frozen=True, slots=True)
class Wait:
    kind: str  # "sleep", "retry", "result" or "rest"
    until: float | None = None
    what: tuple[str, ...] = ()  # workflow ids: any one of them that has ended fulfils it
    tries: tuple[str, ...] = ()  # error lines of a step's tries so far
    errors: tuple[str, ...] = ()  # their encoded errors, for the step that gives up


def encode(waits: dict[int, Wait]) -> str:
    """Return the stored form; an empty table is the empty string."""
    if not waits:
        return ""
    table = {str(position): _plain(wait) for position, wait in sorted(waits.items())}
    return json.dumps(table, separators=(",", ":"))


def decode(text: str) -> dict[int, Wait]:
    if not text:
        return {}
    return {
        int(position): Wait(
            kind=wait["kind"],
            until=wait.get("until"),
            what=tuple(wait.get("what", ())),
            tries=tuple(wait.get("tries", ())),
            errors=tuple(wait.get("errors", ())),
        )
        for position, wait in json.loads(text).items()
    }


def fulfilled(waits: dict[int, Wait], *, now: float, ended: Collection[str]) -> bool:
    """Return whether any wait is over: a row that waits for nothing is ready, a resting one not."""
    rest = waits.get(RESTING)
    if rest is not None and rest.until is not None and rest.until > now:
        return False
    return not waits or any(
        (wait.until is not None and wait.until <= now) or any(one in ended for one in wait.what)
        for wait in waits.values()
    )


def named(waits: dict[int, Wait]) -> set[str]:
    """Return the ids of the workflows that the waits look out for."""
    return {one for wait in waits.values() for one in wait.what}


def first_look(waits: dict[int, Wait], *, now: float) -> float | None:
    """Return the seconds until a row just suspended is looked at, None for never waiting."""
    return _next(waits, now=now, longest=FIRST_LOOK)


def next_look(waits: dict[int, Wait], *, now: float, waited: float) -> float | None:
    """Return the seconds until the following look; `waited` is the time since suspension."""
    seconds = _next(waits, now=now, longest=min(LONGEST_LOOK, max(FIRST_LOOK, waited)))
    return None if seconds is None else max(SHORTEST_LOOK, seconds)


def _next(waits: dict[int, Wait], *, now: float, longest: float) -> float | None:
    due = [max(0.0, wait.until - now) for wait in waits.values() if wait.until is not None]
    if any(wait.what for wait in waits.values()):
        due.append(longest)
    return min(due) if due else None


def _plain(wait: Wait) -> dict[str, object]:
    plain: dict[str, object] = {"kind": wait.kind}
    if wait.until is not None:
        plain["until"] = wait.until
    for name in ("what", "tries", "errors"):
        if value := getattr(wait, name):
            plain[name] = list(value)
    return plain
