"""Where am I: the one context variable of the engine.

It holds the Run while workflow code runs, an InStep while a step's body does, and None
elsewhere. It is set around the body only, in the task that runs it: a flag on the run
would make the second of gather(step(1), step(2)) silently not durable.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from durable_workflows.engine.run import InStep, Run

here: ContextVar[Run | InStep | None] = ContextVar("durable_workflows_here", default=None)


def here_is_nobody() -> None:
    """Make the current context one of the engine's own, not of a run."""
    here.set(None)
