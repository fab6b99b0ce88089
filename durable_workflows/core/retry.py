"""How long a failed step waits before its next try."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

LONGEST_DELAY = 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class Retry:
    """A step's policy. `max_attempts` counts tries in all: 1 never retries."""

    max_attempts: int = 1
    interval_seconds: float = 1.0
    backoff_rate: float = 2.0
    should_retry: Callable[[Exception], bool | Awaitable[bool]] | None = None

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(
                f"max_attempts counts tries in all and is at least 1, not {self.max_attempts}"
            )
        if not 0 <= self.interval_seconds < math.inf:
            raise ValueError(f"interval_seconds is a number from 0, not {self.interval_seconds}")
        if not 1 <= self.backoff_rate < math.inf:
            raise ValueError(f"backoff_rate is at least 1 and finite, not {self.backoff_rate}")

    def delay(self, tries: int) -> float | None:
        """Return the seconds to wait after `tries` failed tries, None when they were all."""
        if tries >= self.max_attempts:
            return None
        try:
            growth = float(self.backoff_rate) ** (tries - 1)
        except OverflowError:  # the cap is passed long before, unless there is no interval
            return LONGEST_DELAY if self.interval_seconds else 0.0
        return float(min(self.interval_seconds * growth, LONGEST_DELAY))
