"""The invariant: every non-terminal row is owned by a live worker, ready, or will be woken."""

from __future__ import annotations

from dataclasses import dataclass

from durable_workflows.engine.process import process


@dataclass(frozen=True, slots=True)
class Finding:
    """A row that nobody would ever go on with, and what is wrong with it."""

    workflow_id: str
    problem: str


def audit() -> list[Finding]:
    """Return what breaks the invariant; on a healthy database nothing.

    A worker that has just died is a finding only until its lease is over and a rescuer
    has looked.
    """
    here = process()
    found = here.store.audit(now=here.clock.now_or_none())
    return [Finding(workflow_id, problem) for workflow_id, problem in found]
