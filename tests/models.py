"""A user's model, for steps that write."""

from django.db import models


class Effect(models.Model):
    """One execution of a step's body that was committed.

    Nothing is unique on purpose: a step that took effect twice leaves two rows.
    """

    run = models.CharField(max_length=200)
    step = models.CharField(max_length=200)
    attempt = models.IntegerField(null=True)
    pid = models.IntegerField(default=0)
    at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.step} of {self.run}"
