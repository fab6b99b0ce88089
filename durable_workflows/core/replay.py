"""Positions, and recorded or new: where non-determinism is found.

A durable call is identified by (position, name, kind). Arguments are not compared.
"""

from __future__ import annotations

from dataclasses import dataclass

from durable_workflows.core.records import StepRecord
from durable_workflows.core.waits import Wait
from durable_workflows.errors import NonDeterminism

STEP, SLEEP, START, RESULT, FIRST, STATUS = "step", "sleep", "start", "result", "first", "status"


@dataclass(slots=True)
class Call:
    """A durable call of a workflow, and what is known of it from earlier attempts."""

    workflow_id: str
    position: int
    name: str
    kind: str
    recorded: StepRecord | None
    wait: Wait | None

    def check(self, record: StepRecord) -> StepRecord:
        """Return the record if it is this call's, else raise NonDeterminism."""
        if record.name != self.name or record.kind != self.kind:
            raise NonDeterminism(
                self.workflow_id,
                self.position,
                describe(record.name, record.kind),
                describe(self.name, self.kind),
            )
        return record


def describe(name: str, kind: str) -> str:
    return f"{kind} {name!r}"


def check_end(workflow_id: str, position: int, steps: dict[int, StepRecord]) -> None:
    """Raise NonDeterminism if code that ends at `position` has steps recorded beyond it."""
    beyond = [recorded for recorded in steps if recorded > position]
    if beyond:
        record = steps[min(beyond)]
        raise NonDeterminism(
            workflow_id, record.position, describe(record.name, record.kind), "the workflow's end"
        )
