"""How many workflows of a queue a worker may claim now.

Facts in, a number out. Counting is the store's work; this file never waits,
reads a clock or raises for a full queue: "none" is the answer 0.
"""

from dataclasses import dataclass

from durable_workflows.core.records import QueueView


@dataclass(frozen=True, slots=True)
class Load:
    """How many workflows of a queue count against its limits.

    On a holding queue that is every PENDING one, elsewhere those executing.
    """

    here: int = 0  # executing on this worker
    everywhere: int = 0
    awake: int = 0  # on a holding queue: those that may go on and nobody executes


def allowance(queue: QueueView, load: Load, asked: int) -> int:
    """Return how many new workflows may start, from 0 to `asked`."""
    rooms = [asked]
    if queue.worker_concurrency is not None:
        rooms.append(queue.worker_concurrency - load.here)
    if queue.concurrency is not None:
        rooms.append(queue.concurrency - load.everywhere)
    return max(0, min(rooms))
