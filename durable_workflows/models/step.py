"""A recorded durable call."""

from __future__ import annotations

from typing import Any, NoReturn

from django.db import models

from durable_workflows.models.fields import InstantField


class Step(models.Model):
    """The result of one durable call, written once by the store and never changed."""

    pk = models.CompositePrimaryKey("workflow_id", "position")
    workflow = models.ForeignKey(
        "durable_workflows.Workflow",
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="steps",
    )
    position = models.IntegerField()
    name = models.CharField(max_length=255)
    kind = models.CharField(max_length=16)
    output = models.TextField(null=True)
    error = models.TextField(null=True)
    child = models.CharField(max_length=255, null=True)
    tries = models.TextField(null=True)
    attempt = models.IntegerField()
    started_at = InstantField()
    completed_at = InstantField()

    def __str__(self) -> str:
        return f"{self.position} {self.name}"

    def save(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("A recorded step is a fact: the engine inserts it once, nobody saves it.")

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("Steps are deleted with their workflow.")
