"""manage.py workflows: look at workflows, stop them, go on with them, and check them all."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import QuerySet

from durable_workflows.conf import settings
from durable_workflows.core.failure import error_line
from durable_workflows.core.states import WorkflowStatusString
from durable_workflows.engine.audit import audit
from durable_workflows.models import Workflow


class Command(BaseCommand):
    help = "Looks at durable workflows, stops them and goes on with them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")

        one = verbs.add_parser(
            "audit", help="Exit with 1 if a workflow would never be gone on with."
        )
        one.add_argument("--json", action="store_true")

        one = verbs.add_parser("list", help="The newest first.")
        one.add_argument("--status", choices=[status.value for status in WorkflowStatusString])
        one.add_argument("--name")
        one.add_argument("--queue")
        one.add_argument("--limit", type=_limit, default=50, help="The default is 50.")
        one.add_argument("--json", action="store_true")

        one = verbs.add_parser("show", help="A workflow and its recorded steps.")
        one.add_argument("id")
        one.add_argument("--json", action="store_true")

        one = verbs.add_parser("cancel", help="Stop workflows that have not ended.")
        one.add_argument("ids", nargs="+", metavar="id")

        one = verbs.add_parser("resume", help="Go on with cancelled or given-up workflows.")
        one.add_argument("ids", nargs="+", metavar="id")

    def handle(self, *args: Any, **options: Any) -> None:
        getattr(self, "_" + options["verb"])(options)

    # -- looking -----------------------------------------------------------

    def _audit(self, options: dict[str, Any]) -> None:
        found = audit()
        if options["json"]:
            self._dump([{"workflow_id": one.workflow_id, "problem": one.problem} for one in found])
        else:
            for one in found:
                self.stdout.write(f"{one.workflow_id}  {one.problem}")
            self.stdout.write(
                f"{len(found)} workflows are stranded."
                if found
                else "Every workflow has ended, is owned by a live worker, ready, or will be woken."
            )
        if found:
            sys.exit(1)

    def _list(self, options: dict[str, Any]) -> None:
        given = {
            key: options[key] for key in ("status", "name", "queue") if options[key] is not None
        }
        rows = _workflows().filter(**given).order_by("-pk")[: options["limit"]]
        if options["json"]:
            self._dump([_line(row) for row in rows])
            return
        for row in rows:
            queue = row.queue or "-"
            self.stdout.write(f"{row.workflow_id}  {row.status:<9}  {queue}  {row.name}")

    def _show(self, options: dict[str, Any]) -> None:
        row = _workflows().filter(workflow_id=options["id"]).first()
        if row is None:
            raise CommandError(f"No workflow has the id {options['id']!r}.")
        steps = [
            {
                "position": step.position,
                "name": step.name,
                "kind": step.kind,
                "output": step.output,
                "error": None if step.error is None else error_line(step.error),
                "completed_at": step.completed_at.isoformat(),
            }
            for step in row.steps.order_by("position")
        ]
        about = {
            **_line(row),
            "input": row.input,
            "output": row.output,
            "error": None if row.error is None else error_line(row.error),
            "attempt": row.attempt,
            "recoveries": row.recoveries,
            "executor_id": row.executor_id,
        }
        if options["json"]:
            self._dump({**about, "steps": steps})
            return
        for key, value in about.items():
            self.stdout.write(f"{key:<13} {'-' if value in (None, '') else value}")
        for step in steps:
            result = step["output"] if step["error"] is None else step["error"]
            self.stdout.write(f"{step['position']:>6}  {step['name']} ({step['kind']})  {result}")

    def _dump(self, value: Any) -> None:
        self.stdout.write(json.dumps(value, indent=2, ensure_ascii=False))

    # -- acting ------------------------------------------------------------

    def _cancel(self, options: dict[str, Any]) -> None:
        self._act(options["ids"], Workflow.cancel, "cancelled")

    def _resume(self, options: dict[str, Any]) -> None:
        self._act(options["ids"], Workflow.resume, "resumed")

    def _act(self, ids: list[str], verb: Any, done: str) -> None:
        unknown = 0
        rows = {row.workflow_id: row for row in _workflows().filter(workflow_id__in=ids)}
        for workflow_id in ids:
            if (row := rows.get(workflow_id)) is None:
                unknown += 1
                self.stderr.write(self.style.ERROR(f"{workflow_id}  is unknown"))
            elif verb(row):
                self.stdout.write(f"{workflow_id}  {done}")
            else:
                row.refresh_from_db(fields=["status"])
                self.stdout.write(f"{workflow_id}  not {done}: it is {row.status}")
        if unknown:
            raise CommandError(f"{unknown} of {len(ids)} ids are unknown.")


def _workflows() -> QuerySet[Workflow]:
    return Workflow.objects.using(settings().database)


def _line(row: Workflow) -> dict[str, Any]:
    return {
        "workflow_id": row.workflow_id,
        "name": row.name,
        "status": row.status,
        "queue": row.queue,
        "created_at": row.created_at.isoformat(),
        "completed_at": None if row.completed_at is None else row.completed_at.isoformat(),
    }


def _limit(text: str) -> int:
    limit = int(text)
    if limit < 1:
        raise ValueError
    return limit
