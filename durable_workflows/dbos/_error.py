"""The errors of `dbos`, by its names."""

from __future__ import annotations

from typing import NoReturn

from durable_workflows import errors

DBOSException = errors.DurableError
DBOSBaseException = errors.Leaving
DBOSAwaitedWorkflowCancelledError = errors.AwaitedWorkflowCancelledError
DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded = errors.AwaitedWorkflowMaxRecoveryAttemptsExceeded
DBOSConflictingRegistrationError = errors.RegistrationClash
DBOSConflictingWorkflowError = errors.ConflictingWorkflow
DBOSMaxStepRetriesExceeded = errors.MaxStepRetriesExceeded
DBOSNonExistentWorkflowError = errors.NonExistentWorkflow
DBOSQueueDeduplicatedError = errors.QueueDeduplicated
DBOSStepTimeoutError = errors.StepTimeout
DBOSUnexpectedStepError = errors.NonDeterminism
DBOSWorkflowCancelledError = errors.WorkflowCancelled
DBOSWorkflowConflictIDError = errors.LeaseLost
DBOSWorkflowFunctionNotFoundError = errors.NotRegistered


def __getattr__(name: str) -> NoReturn:
    sentence = (
        f"{__name__} has no {name!r}. What is raised here stands in durable_workflows.errors."
    )
    if name.startswith("DBOS"):
        raise ImportError(sentence)  # an AttributeError's words are lost in `from … import`
    raise AttributeError(sentence, name=name)
