"""What a rescuer does with a dead worker's workflow: hand it on, or give it up."""

from dataclasses import dataclass

DEFAULT_LIMIT = 100  # recoveries granted, as in the reference
LONGEST_DELAY = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Requeue:
    recoveries: int
    delay: float  # seconds until the row is ready; 0 is now


@dataclass(frozen=True, slots=True)
class GiveUp:
    recoveries: int


def verdict(*, recoveries: int, progressed: bool, limit: int | None) -> Requeue | GiveUp:
    """Decide over a workflow whose worker died.

    `recoveries` were granted before this one. A run that recorded a step since
    its last recovery (`progressed`) starts counting anew: what kills it now is not
    what killed it then. A `limit` of None never gives up.

    The delays 0, 1, 2, 4 … 60 s let a run that kills its process soon run apart
    from its neighbours, which recover at once.
    """
    counted = 1 if progressed else recoveries + 1
    if limit is not None and counted > limit:
        return GiveUp(recoveries)
    delay = 0.0 if counted == 1 else min(LONGEST_DELAY, 2.0 ** (counted - 2))
    return Requeue(counted, delay)
