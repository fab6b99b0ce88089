"""The schema, and people's verbs on it."""

from durable_workflows.models.queue import Queue
from durable_workflows.models.step import Step
from durable_workflows.models.worker import Worker
from durable_workflows.models.workflow import Workflow, WorkflowQuerySet

__all__ = ["Queue", "Step", "Worker", "Workflow", "WorkflowQuerySet"]
