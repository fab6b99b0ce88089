"""A workflow execution, and what people do with it.

Workers go through the store; the verbs here are for views, commands and the
admin. Each is one guarded UPDATE whose row count is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from django.db import models, transaction
from django.db.models import Q
from django.db.models.functions import Now

from durable_workflows import signals
from durable_workflows.core import states
from durable_workflows.models.fields import InstantField

Moved = tuple[int, str, Any, str]  # key, workflow id, parent's key or None, queue

READY = Q(worker__isnull=True, wake_at__isnull=True, status__in=states.CLAIMABLE)


class WorkflowQuerySet(models.QuerySet["Workflow"]):
    def running(self) -> WorkflowQuerySet:
        """Workflows a worker owns now."""
        return self.filter(worker__isnull=False)

    def ready(self) -> WorkflowQuerySet:
        """Workflows that any worker may claim."""
        return self.filter(READY)

    def of(self, function: Any) -> WorkflowQuerySet:
        """Workflows of a registered function, under its name and its aliases."""
        spec = function.spec
        return self.filter(name__in=[spec.name, *spec.aliases])

    def cancel(self) -> int:
        """Cancel every workflow here that has not ended; return how many were."""
        return self._move(
            self.filter(status__in=[*states.LIVE, states.GIVEN_UP]),
            ended=True,
            status=states.CANCELLED,
            worker=None,
            wake_at=None,
            waits="",
            deduplication_id=None,
            completed_at=Now(),
            updated_at=Now(),
        )

    def resume(self) -> int:
        """Go on with every cancelled or given-up workflow here from its last recorded step.

        Returns how many were. A deadline that stopped the workflow is cleared.
        """
        stopped = self.filter(status__in=[states.CANCELLED, states.GIVEN_UP])
        changes = {
            "worker": None,
            "wake_at": None,
            "waits": "",
            "recoveries": 0,
            "deadline": None,
            "completed_at": None,
            "updated_at": Now(),
        }
        return self._move(
            stopped.exclude(queue=""), ended=False, status=states.ENQUEUED, **changes
        ) + self._move(stopped.filter(queue=""), ended=False, status=states.PENDING, **changes)

    def _move(self, rows: WorkflowQuerySet, *, ended: bool, **changes: Any) -> int:
        rows._for_write = True  # type: ignore[attr-defined]  # where rows are changed, whatever replica a router reads from
        using = rows.db
        with transaction.atomic(using=using):
            # Workflows are locked by id everywhere: two bulk verbs can't deadlock.
            locked = (
                rows.using(using)
                .order_by("pk")
                .values_list("pk", "workflow_id", "parent_id", "queue")
            )
            if transaction.get_connection(using).features.has_select_for_no_key_update:
                locked = locked.select_for_update(no_key=True)
            found: list[Moved] = list(locked)
            if not found:
                return 0
            moved = Workflow.objects.using(using).filter(pk__in=[row[0] for row in found])
            count = moved.update(**changes)
            transaction.on_commit(
                lambda: _tell(using, found, ended=ended), using=using, robust=True
            )
        return count


def _tell(using: str, found: Sequence[Moved], *, ended: bool) -> None:
    if ended:
        rows = [(pk, workflow_id, parent) for pk, workflow_id, parent, _ in found]
        signals.workflows_ended.send_robust(Workflow, using=using, rows=rows)
    else:
        queues = sorted({queue for *_, queue in found})
        signals.workflows_ready.send_robust(Workflow, using=using, queues=queues)


class Workflow(models.Model):
    """One execution of a workflow function."""

    STATUSES: ClassVar = [(status.value, status.value) for status in states.WorkflowStatusString]

    id = models.BigAutoField(primary_key=True)
    workflow_id = models.CharField(max_length=255)
    name = models.CharField(max_length=255)
    status = models.CharField(max_length=32, choices=STATUSES)
    queue = models.CharField(max_length=255, blank=True, default="")
    priority = models.IntegerField(default=0, help_text="The lowest number is taken first.")

    input = models.TextField()
    output = models.TextField(null=True, blank=True)
    error = models.TextField(null=True, blank=True)

    attempt = models.IntegerField(default=0, help_text="Grows with every claim; the fence.")
    recoveries = models.IntegerField(
        default=0, help_text="Times a dead worker's run was taken over."
    )
    worker = models.ForeignKey(
        "durable_workflows.Worker",
        null=True,
        blank=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="workflows",
    )
    executor_id = models.CharField(max_length=255, null=True, blank=True)
    app_version = models.CharField(max_length=255, null=True, blank=True)

    timeout = models.FloatField(null=True, blank=True, help_text="Seconds from its first claim.")
    deadline = InstantField(null=True, blank=True)
    wake_at = InstantField(null=True, blank=True)
    waits = models.TextField(blank=True, default="")

    deduplication_id = models.CharField(max_length=255, null=True, blank=True)
    queue_partition_key = models.CharField(max_length=255, null=True, blank=True)
    parent = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="children",
    )
    parent_position = models.IntegerField(null=True, blank=True)
    forked_from = models.CharField(max_length=255, null=True, blank=True)
    attributes = models.JSONField(null=True, blank=True)
    authenticated_user = models.CharField(max_length=255, null=True, blank=True)

    created_at = InstantField()
    updated_at = InstantField()
    dequeued_at = InstantField(null=True, blank=True)
    completed_at = InstantField(null=True, blank=True)

    objects = WorkflowQuerySet.as_manager()

    class Meta:
        indexes = [
            # The hot one: what a claim reads, in the order it is taken.
            models.Index(fields=["queue", "priority", "id"], name="dw_ready", condition=READY),
            # What a worker owns, and how many of a queue are executing.
            models.Index(
                fields=["worker", "queue"], name="dw_owned", condition=Q(worker__isnull=False)
            ),
            # What a holding queue counts beside those: workflows that wait. Executing ones
            # stay out of it, so a claim writes one index entry less.
            models.Index(
                fields=["queue"],
                name="dw_held",
                condition=Q(status=states.PENDING, worker__isnull=True) & ~Q(queue=""),
            ),
            models.Index(fields=["wake_at"], name="dw_wake", condition=Q(wake_at__isnull=False)),
            models.Index(
                fields=["deadline"],
                name="dw_deadline",
                condition=Q(deadline__isnull=False, status__in=states.LIVE),
            ),
            models.Index(fields=["parent"], name="dw_parent", condition=Q(parent__isnull=False)),
        ]
        constraints = [
            # Not unique=True on the column: PostgreSQL would get a second index for LIKE,
            # which every claim and outcome would write too.
            models.UniqueConstraint(fields=["workflow_id"], name="dw_workflow_id"),
            models.UniqueConstraint(
                fields=["queue", "deduplication_id"],
                name="dw_deduplication",
                condition=Q(deduplication_id__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.workflow_id}"

    def cancel(self) -> bool:
        """Cancel the workflow unless it has ended; return whether this call did it.

        A run in progress stops at its next durable call, a waiting one at once.
        """
        return bool(self._row().cancel())

    async def acancel(self) -> bool:
        """See cancel()."""
        from asgiref.sync import sync_to_async

        return await sync_to_async(self.cancel)()

    def resume(self) -> bool:
        """Go on with a cancelled or given-up workflow; return whether this call did it."""
        return bool(self._row().resume())

    async def aresume(self) -> bool:
        """See resume()."""
        from asgiref.sync import sync_to_async

        return await sync_to_async(self.resume)()

    def _row(self) -> WorkflowQuerySet:
        return Workflow.objects.using(self._state.db).filter(pk=self.pk)
