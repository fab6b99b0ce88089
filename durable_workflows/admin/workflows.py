"""Workflows, each with its recorded steps.

A step's key is composite, which the admin can't register: steps stand on the page of
their workflow.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.utils import timezone
from django.utils.formats import localize
from django.utils.html import format_html, format_html_join

from durable_workflows.admin.readonly import ReadOnlyAdmin
from durable_workflows.core.failure import error_line
from durable_workflows.models import Step, Workflow

MOST_STEPS = 200  # on one page; the last ones, which tell why it stands where it stands
LONGEST = 200  # characters of a result in the table of steps


@admin.register(Workflow)
class WorkflowAdmin(ReadOnlyAdmin):
    list_display = [
        "workflow_id",
        "name",
        "status",
        "queue",
        "attempt",
        "recoveries",
        "created_at",
        "completed_at",
    ]
    list_filter = ["status", "name", "queue"]
    # Not the admin's "^": in capital letters no index is of use.
    search_fields = ["workflow_id__startswith"]
    search_help_text = "A workflow id, or how it begins."
    ordering = ["-id"]
    readonly_fields = ["steps_table"]
    fieldsets = [
        (None, {"fields": ["workflow_id", "name", "status", "queue", "priority"]}),
        ("What it was given and gave", {"fields": ["input", "output", "error"]}),
        ("Steps", {"fields": ["steps_table"]}),
        (
            "Where it is",
            {"fields": ["attempt", "recoveries", "worker", "executor_id", "wake_at", "waits"]},
        ),
        (
            "When",
            {"fields": ["created_at", "dequeued_at", "updated_at", "completed_at", "deadline"]},
        ),
        (
            "Belonging",
            {
                "fields": [
                    "parent",
                    "parent_position",
                    "forked_from",
                    "deduplication_id",
                    "queue_partition_key",
                    "app_version",
                    "attributes",
                    "authenticated_user",
                ]
            },
        ),
    ]

    @admin.display(description="recorded")
    def steps_table(self, workflow: Workflow) -> str:
        steps = Step.objects.using(workflow._state.db).filter(workflow_id=workflow.pk)
        last = list(steps.order_by("-position")[: MOST_STEPS + 1])
        if not last:
            return "none yet"
        before = "(the last ones; earlier steps are not shown)" if len(last) > MOST_STEPS else ""
        rows = format_html_join(
            "",
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            (_cells(step) for step in reversed(last[:MOST_STEPS])),
        )
        return format_html(
            "{}<table><thead><tr><th>Position</th><th>Name</th><th>Kind</th><th>Result</th>"
            "<th>Attempt</th><th>Recorded</th></tr></thead><tbody>{}</tbody></table>",
            before,
            rows,
        )


def _cells(step: Step) -> tuple[Any, ...]:
    result = error_line(step.error) if step.error is not None else step.output or ""
    if len(result) > LONGEST:
        result = result[: LONGEST - 1] + "…"
    at = step.completed_at
    recorded = localize(timezone.localtime(at) if timezone.is_aware(at) else at)
    return step.position, step.name, step.kind, result, step.attempt, recorded
