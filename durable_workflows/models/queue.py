"""Queues as rows: declared in code, limits and pause editable while workers run."""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class Queue(models.Model):
    """A named line of workflows with limits. A limit of NULL does not bind."""

    name = models.CharField(max_length=255, unique=True)
    concurrency = models.PositiveIntegerField(
        null=True, blank=True, help_text="Workflows executing at once, over all workers."
    )
    worker_concurrency = models.PositiveIntegerField(
        null=True, blank=True, help_text="Workflows executing at once on each worker."
    )
    hold = models.BooleanField(
        default=False,
        help_text="A workflow keeps its place from its start to its end, also while it waits.",
    )
    paused = models.BooleanField(default=False, help_text="No new workflow is started.")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(concurrency__isnull=True) | Q(concurrency__gte=1),
                name="dw_queue_concurrency",
            ),
            models.CheckConstraint(
                condition=Q(worker_concurrency__isnull=True) | Q(worker_concurrency__gte=1),
                name="dw_queue_worker_concurrency",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def pause(self) -> None:
        """Start nothing new from this queue; what runs or waits goes on."""
        self.paused = True
        self.save(update_fields=["paused"])

    def unpause(self) -> None:
        self.paused = False
        self.save(update_fields=["paused"])
