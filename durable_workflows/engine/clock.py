"""The only place where the engine reads a clock or throws dice.

Leases, timers and deadlines live by the database's clock, which statements read
themselves (`now_or_none()` is None). `database_now()` estimates it from the last
answer and the monotonic clock: good enough for how long a wait still lasts.
"""

from __future__ import annotations

import os
import random
import struct
import threading
import time
from collections.abc import Iterator
from datetime import datetime


class Clock:
    skips = False  # whether long waits pass at once

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def now_or_none(self) -> datetime | None:
        """Return the instant statements are to use; None for the database's own clock."""
        return None

    def monotonic(self) -> float:
        return time.monotonic()

    def database_now(self) -> float:
        """Return the database's clock in epoch seconds, as far as this process knows."""
        return time.monotonic() + self._ahead

    def learn(self, database_now: float) -> None:
        self._ahead = database_now - time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def jitter(self, seconds: float) -> float:
        """Return `seconds` give or take a tenth, so that many pollers do not march in step."""
        return seconds * random.uniform(0.9, 1.1)


_last_lock = threading.Lock()
_last = 0
_dice: Iterator[tuple[int]] = iter(())  # thrown in hundreds: one by one is half of an id's price


def _begin_anew() -> None:
    """A forked child throws dice of its own, and nobody is left who could unlock the lock."""
    global _last_lock, _dice
    _last_lock, _dice = threading.Lock(), iter(())


os.register_at_fork(after_in_child=_begin_anew)


def new_workflow_id() -> str:
    """Return a UUIDv7 (RFC 9562): ordered by time, so that indexes grow at one end."""
    global _last, _dice
    with _last_lock:
        # The 12 bits below the millisecond hold a fraction of it, then a count: ids of
        # one process are strictly ascending.
        _last = max(_last + 1, time.time_ns() * 4096 // 1_000_000)
        stamp = _last
        dice = next(_dice, None)
        if dice is None:
            _dice = struct.iter_unpack("Q", os.urandom(4096))
            dice = next(_dice)
    high = (stamp >> 12 & 0xFFFF_FFFF_FFFF) << 16 | 0x7000 | stamp & 0xFFF
    low = dice[0] & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
    text = f"{high:016x}{low:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
