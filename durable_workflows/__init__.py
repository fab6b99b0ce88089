"""Durable workflows for Django: functions that survive crashes, in the project's own database.

    from durable_workflows import Queue, step, workflow

The names below are importable at any time, also before Django's apps are ready.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durable_workflows.client import WorkflowClient
    from durable_workflows.core.states import WorkflowStatusString
    from durable_workflows.engine.context import (
        StepContext,
        WorkflowContext,
        step_context,
        workflow_context,
    )
    from durable_workflows.engine.decorators import run_step, run_step_async, step, workflow
    from durable_workflows.engine.handle import (
        WorkflowHandle,
        WorkflowHandleAsync,
        WorkflowStatus,
        retrieve_workflow,
        retrieve_workflow_async,
        wait_first,
        wait_first_async,
    )
    from durable_workflows.engine.manage import (
        cancel_workflow,
        cancel_workflow_async,
        resume_workflow,
        resume_workflow_async,
    )
    from durable_workflows.engine.queue import Queue, start_workflow, start_workflow_async
    from durable_workflows.engine.talk import sleep, sleep_async
    from durable_workflows.worker.embedded import destroy, launch

# Where each public name lives: nothing is imported before it is asked for, so that
# importing the package neither needs settings nor touches a model.
_HOMES = {
    "Queue": "engine.queue",
    "StepContext": "engine.context",
    "WorkflowClient": "client",
    "WorkflowContext": "engine.context",
    "WorkflowHandle": "engine.handle",
    "WorkflowHandleAsync": "engine.handle",
    "WorkflowStatus": "engine.handle",
    "WorkflowStatusString": "core.states",
    "cancel_workflow": "engine.manage",
    "cancel_workflow_async": "engine.manage",
    "destroy": "worker.embedded",
    "launch": "worker.embedded",
    "resume_workflow": "engine.manage",
    "resume_workflow_async": "engine.manage",
    "retrieve_workflow": "engine.handle",
    "retrieve_workflow_async": "engine.handle",
    "run_step": "engine.decorators",
    "run_step_async": "engine.decorators",
    "sleep": "engine.talk",
    "sleep_async": "engine.talk",
    "start_workflow": "engine.queue",
    "start_workflow_async": "engine.queue",
    "step": "engine.decorators",
    "step_context": "engine.context",
    "wait_first": "engine.handle",
    "wait_first_async": "engine.handle",
    "workflow": "engine.decorators",
    "workflow_context": "engine.context",
}

__all__ = [
    "Queue",
    "StepContext",
    "WorkflowClient",
    "WorkflowContext",
    "WorkflowHandle",
    "WorkflowHandleAsync",
    "WorkflowStatus",
    "WorkflowStatusString",
    "cancel_workflow",
    "cancel_workflow_async",
    "destroy",
    "launch",
    "resume_workflow",
    "resume_workflow_async",
    "retrieve_workflow",
    "retrieve_workflow_async",
    "run_step",
    "run_step_async",
    "sleep",
    "sleep_async",
    "start_workflow",
    "start_workflow_async",
    "step",
    "step_context",
    "wait_first",
    "wait_first_async",
    "workflow",
    "workflow_context",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
