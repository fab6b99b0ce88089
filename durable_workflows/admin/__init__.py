"""The admin: workflows with their steps, queues and workers, to look at.

Nothing is edited here: what a person may do to a workflow is a verb of its model.
"""

from durable_workflows.admin.queues import QueueAdmin
from durable_workflows.admin.workers import WorkerAdmin
from durable_workflows.admin.workflows import WorkflowAdmin

__all__ = ["QueueAdmin", "WorkerAdmin", "WorkflowAdmin"]
