"""A process that runs workflows, and its lease."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from durable_workflows.models.fields import InstantField


class Worker(models.Model):
    """One row per worker process. Its beat renews the lease of everything it owns."""

    KINDS: ClassVar = [("worker", "worker"), ("embedded", "embedded"), ("inline", "inline")]
    STATES: ClassVar = [("live", "live"), ("stopped", "stopped"), ("dead", "dead")]

    kind = models.CharField(max_length=16, choices=KINDS)
    state = models.CharField(max_length=16, choices=STATES, default="live")
    host = models.CharField(max_length=255)
    pid = models.IntegerField()
    app_version = models.CharField(max_length=255, blank=True, default="")
    queues = models.TextField(blank=True, default="", help_text="Names by comma; empty is all.")
    backend = models.CharField(
        max_length=255, blank=True, default="", help_text="What the database tells presence by."
    )
    missing_since = InstantField(null=True, blank=True, editable=False)
    lease_seconds = models.FloatField(default=30.0)
    started_at = InstantField()
    beat_at = InstantField()

    class Meta:
        indexes = [
            models.Index(
                fields=["beat_at"], name="dw_worker_live", condition=models.Q(state="live")
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk} ({self.host}:{self.pid})"
