"""Stopping and going on, by workflow id. In a workflow each of these is a step."""

from __future__ import annotations

from durable_workflows.engine.decorators import run_step_async, step
from durable_workflows.engine.process import process
from durable_workflows.errors import NonExistentWorkflow


@step(name="cancel_workflow")
def cancel_workflow(workflow_id: str) -> bool:
    """Cancel a workflow unless it has ended; return whether this call did it.

    A waiting workflow ends at once, a running one at its next durable call. Unknown
    ids are ignored.
    """
    return bool(process().store.cancel([workflow_id]))


@step(name="resume_workflow")
def resume_workflow(workflow_id: str) -> bool:
    """Go on with a cancelled or given-up workflow from its last recorded step.

    Returns whether this call did it; an ended one stays as it is. Raise
    NonExistentWorkflow for an unknown id.
    """
    store = process().store
    if store.resume([workflow_id]):
        return True
    if store.status(workflow_id) is None:
        raise NonExistentWorkflow(workflow_id)
    return False


async def cancel_workflow_async(workflow_id: str) -> bool:
    """See cancel_workflow()."""
    return bool(await run_step_async(cancel_workflow, workflow_id))


async def resume_workflow_async(workflow_id: str) -> bool:
    """See resume_workflow()."""
    return bool(await run_step_async(resume_workflow, workflow_id))
