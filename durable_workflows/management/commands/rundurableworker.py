"""manage.py rundurableworker: runworker under a name that no other app takes."""

from durable_workflows.management.commands.runworker import Command

__all__ = ["Command"]
