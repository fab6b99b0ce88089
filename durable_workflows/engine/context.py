"""What running code may know of its workflow and its step."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from durable_workflows.engine.clock import new_workflow_id
from durable_workflows.engine.here import here
from durable_workflows.engine.run import InStep, Run
from durable_workflows.errors import WrongPlace

# The namespace of idempotency keys. Never change it: a step that runs again after an
# upgrade must send the key that it sent before.
KEYS = uuid.UUID("6f0c1f0e-6d5d-5c1e-9a44-8f6d7d0b7f52")


@dataclass(frozen=True, slots=True)
class WorkflowContext:
    """The run here: which workflow, and how often it was begun."""

    workflow_id: str
    name: str
    queue_name: str | None
    attempt: int  # grows with every claim: first, after a wait, after a crash
    recoveries: int  # crashes since it last recorded a step
    authenticated_user: str | None
    app_version: str


@dataclass(frozen=True, slots=True)
class StepContext:
    """The step here: which call of the workflow, and which try of it.

    Outside a workflow a step is a plain function: `workflow_id` is None there,
    `position` 0, and the key another one at each look.
    """

    workflow_id: str | None
    position: int
    name: str
    tries: int  # this try included, also those before a crash or a wait
    max_attempts: int
    idempotency_key: str
    """A UUID that is the same in every try and after every recovery of this call.

    Send it to a service that keeps it, and what it does is done once.
    """


def workflow_context() -> WorkflowContext | None:
    """Return what is known of the workflow here, also inside its steps; None elsewhere."""
    place = here.get()
    run = place.run if isinstance(place, InStep) else place
    if run is None:
        return None
    claim = run.claim
    return WorkflowContext(
        claim.workflow_id,
        claim.name,
        claim.queue or None,
        claim.attempt,
        claim.recoveries,
        claim.user,
        run.runtime.app_version,
    )


def step_context() -> StepContext:
    """Return what is known of the step here; of steps called by steps the outermost counts.

    Outside a workflow, where a step is a plain function, the context says so. Raise
    WrongPlace in a workflow's body: what it handed on would differ from replay to replay.
    """
    place = here.get()
    if place is None:
        return StepContext(None, 0, "", 1, 1, new_workflow_id())
    if isinstance(place, Run):
        raise WrongPlace(
            f"step_context() is for the body of a step; this is the body of {place.claim.name}. "
            "Call it inside the step that needs it."
        )
    workflow_id = place.run.claim.workflow_id
    return StepContext(
        workflow_id,
        place.position,
        place.spec.name,
        place.tries,
        place.spec.retry.max_attempts,
        str(uuid.uuid5(KEYS, f"{place.position} {workflow_id}")),
    )
