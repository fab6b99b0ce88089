"""The statuses of a workflow and the moves between them.

`docs/states.md` draws the table. Every move is one guarded UPDATE that names
the statuses it may start from; the names are these.
"""

from enum import StrEnum


class WorkflowStatusString(StrEnum):
    """What people see. Members compare equal to their plain strings."""

    PENDING = "PENDING"
    SUCCESS = "SUCCESS"
    ERROR = "ERROR"
    MAX_RECOVERY_ATTEMPTS_EXCEEDED = "MAX_RECOVERY_ATTEMPTS_EXCEEDED"
    CANCELLED = "CANCELLED"
    ENQUEUED = "ENQUEUED"
    DELAYED = "DELAYED"


PENDING = WorkflowStatusString.PENDING.value
SUCCESS = WorkflowStatusString.SUCCESS.value
ERROR = WorkflowStatusString.ERROR.value
GIVEN_UP = WorkflowStatusString.MAX_RECOVERY_ATTEMPTS_EXCEEDED.value
CANCELLED = WorkflowStatusString.CANCELLED.value
ENQUEUED = WorkflowStatusString.ENQUEUED.value
DELAYED = WorkflowStatusString.DELAYED.value

# A row in one of these can be claimed once nobody owns it and no wake_at is set.
CLAIMABLE = (ENQUEUED, PENDING)
LIVE = (ENQUEUED, PENDING, DELAYED)
FINAL = (SUCCESS, ERROR, CANCELLED, GIVEN_UP)

# From → the statuses a row may move to, and who moves it.
MOVES: dict[str, dict[str, str]] = {
    DELAYED: {ENQUEUED: "timer", CANCELLED: "person or deadline"},
    ENQUEUED: {PENDING: "claim", CANCELLED: "person or deadline"},
    PENDING: {
        PENDING: "suspension, wake-up, claim, release, rescue",
        SUCCESS: "run",
        ERROR: "run",
        CANCELLED: "person or deadline",
        GIVEN_UP: "rescuer",
    },
    CANCELLED: {ENQUEUED: "person (resume)", PENDING: "person (resume, no queue)"},
    GIVEN_UP: {
        ENQUEUED: "person (resume)",
        PENDING: "person (resume, no queue)",
        CANCELLED: "person",
    },
    SUCCESS: {},
    ERROR: {},
}
