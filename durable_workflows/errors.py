"""Every error a caller can meet.

    DurableError
    ├── Unstorable (TypeError)             an argument or result JSON can't hold exactly
    │   └── PayloadTooLarge
    ├── CorruptPayload                     a stored value that can't be read back
    ├── InvalidName (ValueError)           a queue, workflow or id that breaks the rule on names
    ├── RegistrationClash                  two functions under one name
    ├── NotRegistered                      a function or name no decorator has seen
    ├── NonExistentWorkflow                no row with this id
    ├── ConflictingWorkflow                the id belongs to another function's workflow
    ├── QueueDeduplicated                  the deduplication id is taken
    ├── AwaitedWorkflowCancelledError
    ├── AwaitedWorkflowMaxRecoveryAttemptsExceeded
    ├── WorkflowFailed                     stands for an exception whose class is not here
    ├── ResultTimeout (TimeoutError)       get_result's own time ran out
    ├── NothingRuns                        a test waits and nobody works
    ├── MaxStepRetriesExceeded
    ├── StepTimeout (TimeoutError)
    ├── StepIdleTooLong                    the database ended an atomic step's idle transaction
    ├── NonDeterminism                     changed code
    │   └── InterleavedSteps               two durable calls in one inner task
    └── WrongPlace                         a durable call where it can't be durable
        ├── InsideTransaction
        │   └── WaitingInsideTransaction
        ├── WaitsBehindItself          the awaited one can begin only when this one has ended
        ├── WrongThread
        └── SyncCallOnLoop

Control flow that user code must not catch derives from BaseException:

    Leaving
    ├── Suspended            the run waits; its row says for what
    │   └── Released         its worker stops; any other goes on at once
    ├── LeaseLost            another worker owns the workflow, or nobody does
    └── WorkflowCancelled
"""

from __future__ import annotations


class DurableError(Exception):
    """The root of what durable_workflows raises."""


class Unstorable(DurableError, TypeError):
    """A value can't be stored exactly; `path` leads to it."""

    def __init__(self, path: str, reason: str):
        self.path, self.reason = path, reason
        super().__init__(f"{path} can't be stored: {reason}")


class PayloadTooLarge(Unstorable):
    """An encoded value is over the cap (DURABLE_WORKFLOWS["PAYLOAD_MAX_BYTES"])."""

    def __init__(self, path: str, size: int, cap: int):
        self.size, self.cap = size, cap
        super().__init__(
            path,
            f"{size:,} bytes encoded, over the cap of {cap:,}. Store it elsewhere and pass a "
            "reference, or raise PAYLOAD_MAX_BYTES.",
        )


class CorruptPayload(DurableError):
    """A stored value can't be read back; no user code was called with it."""


class InvalidName(DurableError, ValueError):
    """A name or id is empty, too long, or has characters that names may not have."""


class RegistrationClash(DurableError):
    """Two different functions ask for one registered name."""

    def __init__(self, name: str, first: str, second: str):
        self.name = name
        super().__init__(
            f"{name!r} is registered by {first} and again by {second}. Give one of them name=."
        )


class NotRegistered(DurableError):
    """A function without @workflow, or a name that no function here carries."""


class NonExistentWorkflow(DurableError):
    """No workflow has this id."""

    def __init__(self, workflow_id: str):
        self.workflow_id = workflow_id
        super().__init__(f"No workflow has the id {workflow_id!r}.")


class ConflictingWorkflow(DurableError):
    """The id was used before, for another function."""

    def __init__(self, workflow_id: str, recorded: str, asked: str):
        self.workflow_id, self.recorded, self.asked = workflow_id, recorded, asked
        super().__init__(
            f"Workflow id {workflow_id!r} belongs to a run of {recorded!r}; it can't start "
            f"{asked!r}. Choose another id."
        )


class QueueDeduplicated(DurableError):
    """A live workflow on the queue holds this deduplication id."""

    def __init__(
        self, workflow_id: str, queue_name: str, deduplication_id: str, holder: str | None = None
    ):
        self.workflow_id, self.queue_name = workflow_id, queue_name
        self.deduplication_id, self.holder = deduplication_id, holder
        super().__init__(
            f"Queue {queue_name!r} already holds {holder or 'a workflow'} with deduplication id "
            f"{deduplication_id!r}; {workflow_id} was not enqueued. The id is free again when that "
            "workflow has ended."
        )


class AwaitedWorkflowCancelledError(DurableError):
    """The workflow whose result was awaited has been cancelled."""

    def __init__(self, workflow_id: str):
        self.workflow_id = workflow_id
        super().__init__(
            f"Workflow {workflow_id} was cancelled; resume_workflow() goes on with it."
        )


class AwaitedWorkflowMaxRecoveryAttemptsExceeded(DurableError):
    """The workflow whose result was awaited killed its worker too often."""

    def __init__(self, workflow_id: str):
        self.workflow_id = workflow_id
        super().__init__(
            f"Workflow {workflow_id} was given up: it was recovered as often as its "
            "max_recovery_attempts allows. resume_workflow() tries again."
        )


class WorkflowFailed(DurableError):
    """Stands for a recorded exception whose class is not imported in this process.

    `error_type` is the recorded class's dotted name.
    """

    def __init__(self, message: str, error_type: str = ""):
        self.error_type = error_type
        super().__init__(message)


class ResultTimeout(DurableError, TimeoutError):
    """The time given to get_result() ran out; the workflow goes on."""

    def __init__(self, workflow_id: str, timeout: float):
        self.workflow_id, self.timeout = workflow_id, timeout
        super().__init__(f"Workflow {workflow_id} has not ended within {timeout:g} s; it goes on.")


class NothingRuns(DurableError):
    """A test waits for a workflow and no worker is there to run it."""

    def __init__(self, workflow_id: str):
        self.workflow_id = workflow_id
        super().__init__(
            f"Workflow {workflow_id} has not ended and nothing runs workflows here: "
            "call run_until_idle() first, or launch() a worker."
        )


class MaxStepRetriesExceeded(DurableError):
    """A step failed in each of its tries; `errors` are their errors, in order."""

    def __init__(self, step_name: str, max_attempts: int, errors: list[Exception]):
        self.step_name, self.max_attempts, self.errors = step_name, max_attempts, errors
        last = f": {type(errors[-1]).__name__}: {errors[-1]}" if errors else ""
        super().__init__(f"Step {step_name} failed in each of its {max_attempts} tries{last}")


class StepTimeout(DurableError, TimeoutError):
    """One try of an async step took longer than its timeout_seconds."""

    def __init__(self, step_name: str, timeout_seconds: float):
        self.step_name, self.timeout_seconds = step_name, timeout_seconds
        super().__init__(f"Step {step_name} took longer than its {timeout_seconds:g} s.")


class StepIdleTooLong(DurableError):
    """The database ended an atomic step's transaction because it stood idle for too long.

    Everything the step wrote was rolled back; its retry policy applies.
    """

    def __init__(self, max_idle: float):
        self.max_idle = max_idle
        super().__init__(
            f"The step left its transaction idle for more than {max_idle:g} s and was rolled back. "
            "Call other systems in a plain @step, or raise max_idle."
        )


class NonDeterminism(DurableError):
    """The code asked for a different step than the one recorded."""

    def __init__(self, workflow_id: str, position: int, recorded: str, asked: str):
        self.workflow_id, self.position = workflow_id, position
        self.recorded, self.asked = recorded, asked
        super().__init__(
            f"Workflow {workflow_id}: position {position} was {recorded} when it first ran, now "
            f"the code asks for {asked}. No further step was run. Bring the code back in line with "
            "the recorded steps."
        )


class InterleavedSteps(NonDeterminism):
    """A task other than the workflow's own made a second durable call."""

    def __init__(self, workflow_id: str, position: int, asked: str):
        DurableError.__init__(
            self,
            f"Workflow {workflow_id}: an inner task asked for a second durable call ({asked}, "
            f"position {position}). Its order against other tasks can't be replayed. Make each "
            "branch that needs several steps a child workflow and await the children side by side.",
        )
        self.workflow_id, self.position = workflow_id, position
        self.recorded, self.asked = "", asked


class WrongPlace(DurableError, RuntimeError):
    """A durable call stands where it can't be made durable."""


class InsideTransaction(WrongPlace):
    """A durable call inside an open transaction.atomic() that could roll its checkpoint back."""


class WaitingInsideTransaction(InsideTransaction):
    """Waiting for a workflow inside an open transaction.atomic()."""


class WaitsBehindItself(WrongPlace):
    """Waiting for a workflow that can't begin before the one that waits has ended."""

    def __init__(self, workflow_id: str, queue: str):
        self.workflow_id, self.queue = workflow_id, queue
        super().__init__(
            f"{workflow_id} stands behind this workflow in queue {queue!r}, which has one place "
            "and is declared with hold=True: the place is free only when this workflow has ended. "
            "Put the other one into another queue, or declare the queue without hold."
        )


class WrongThread(WrongPlace):
    """A durable call from a thread or loop that is not the run's own."""


class SyncCallOnLoop(WrongPlace):
    """A blocking durable call while an event loop is running in this thread."""


class Leaving(BaseException):
    """The run ends here without an outcome. Never catch it; a `finally:` may close files."""


class Suspended(Leaving):
    """The workflow waits in the database; a worker goes on with it when the wait is over."""


class Released(Suspended):
    """The worker is stopping; another one goes on from the last recorded step."""


class LeaseLost(Leaving):
    """This attempt is no longer the current one; nothing it does is recorded any more."""


class WorkflowCancelled(Leaving):
    """The workflow was cancelled; its code stops at this durable call."""
