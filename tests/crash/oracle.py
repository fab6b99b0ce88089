"""Says whether everything went as if nothing had happened.

It is kept apart from the engine: triggers note what may never change, a table without
constraints counts what atomic steps did, a file what plain steps did, and the outputs
are compared with the recorded rows.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

from durable_workflows.core.payload import decode_value
from durable_workflows.core.states import FINAL, SUCCESS
from durable_workflows.engine.process import process
from durable_workflows.models import Step, Workflow
from tests.models import Effect

WORKFLOW, STEP = Workflow._meta.db_table, Step._meta.db_table
ENDED = ", ".join(f"'{status}'" for status in FINAL)

# name → on which event of which table, under which condition, and of which workflow
TRIGGERS = {
    "crash_step_updated": (f"UPDATE ON {STEP}", "1 = 1", "NEW.workflow_id"),
    "crash_step_deleted": (f"DELETE ON {STEP}", "1 = 1", "OLD.workflow_id"),
    "crash_step_after_end": (
        f"INSERT ON {STEP}",
        f"NEW.workflow_id IN (SELECT id FROM {WORKFLOW} WHERE status IN ({ENDED}))",
        "NEW.workflow_id",
    ),
    "crash_attempt_lowered": (
        f"UPDATE ON {WORKFLOW}",
        "NEW.attempt < OLD.attempt OR NEW.attempt > OLD.attempt + 1",
        "NEW.id",
    ),
    "crash_end_changed": (f"UPDATE ON {WORKFLOW}", f"OLD.status IN ({ENDED})", "NEW.id"),
    "crash_workflow_deleted": (f"DELETE ON {WORKFLOW}", "1 = 1", "OLD.id"),
}


@contextmanager
def watching() -> Iterator[None]:
    """Note each change of what is never to change while the block lasts."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE crash_findings (what varchar(100), workflow bigint)")
        for name, (event, when, workflow) in TRIGGERS.items():
            insert = f"INSERT INTO crash_findings SELECT '{name}', {workflow} WHERE {when};"
            if connection.vendor == "sqlite":
                cursor.execute(f"CREATE TRIGGER {name} AFTER {event} BEGIN {insert} END")
            else:
                cursor.execute(
                    f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS "
                    f"$$BEGIN {insert} RETURN NULL; END$$"
                )
                cursor.execute(
                    f"CREATE TRIGGER {name} AFTER {event} FOR EACH ROW EXECUTE FUNCTION {name}()"
                )
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            for name, (event, *_) in TRIGGERS.items():
                if connection.vendor == "sqlite":
                    cursor.execute(f"DROP TRIGGER {name}")
                else:
                    cursor.execute(f"DROP TRIGGER {name} ON {event.split()[-1]}")
                    cursor.execute(f"DROP FUNCTION {name}")
            cursor.execute("DROP TABLE crash_findings")


def findings(marks: list[list[str]]) -> list[str]:
    """Return a sentence for everything that is wrong, now that all should have ended."""
    return [
        *_invariant(),
        *_never_changed(),
        *_atomic_steps(),
        *_plain_steps(marks),
        *_outputs(),
    ]


def _invariant() -> Iterator[str]:
    yield from (f"{run}: {what}" for run, what in process().store.audit())
    for workflow in Workflow.objects.exclude(status__in=FINAL):
        yield f"{workflow} has not ended: {workflow.status}"
    for workflow in Workflow.objects.exclude(worker=None):
        yield f"{workflow} is still owned by worker {workflow.worker_id}"


def _never_changed() -> Iterator[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT what, workflow, count(*) FROM crash_findings GROUP BY 1, 2")
        yield from (f"{what}: workflow {id}, {count} times" for what, id, count in cursor)
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA integrity_check")
            yield from (f"integrity: {line}" for (line,) in cursor if line != "ok")


def _atomic_steps() -> Iterator[str]:
    effects = Counter(Effect.objects.values_list("run", "step"))
    yield from (
        f"{run}: atomic step {step} took effect {count} times"
        for (run, step), count in effects.items()
        if count != 1
    )
    taken = Counter(run for run, _ in effects)
    recorded = _recorded("written", "written_behind_gate")
    for run in taken.keys() | recorded.keys():
        if taken[run] != recorded[run]:
            yield f"{run}: {taken[run]} effects, but {recorded[run]} atomic steps are recorded"


def _plain_steps(marks: list[list[str]]) -> Iterator[str]:
    attempts = dict(Workflow.objects.values_list("workflow_id", "attempt"))
    called: dict[str, set[str]] = {}
    for (run, attempt, label), count in Counter(
        (run, attempt, " ".join(label)) for run, attempt, *label in marks
    ).items():
        called.setdefault(run, set()).add(label)
        if count > 1:
            yield f"{run}: plain step {label} was called {count} times by attempt {attempt}"
        if int(attempt) > attempts[run]:
            yield f"{run}: attempt {attempt} called a step, but the last was {attempts[run]}"
    recorded = _recorded("plain", "lasting", "gate", "inside_narrow", "looking_back")
    for run in called.keys() | recorded.keys():
        if len(called.get(run, ())) != recorded[run]:
            yield f"{run}: {called.get(run)} were called, {recorded[run]} plain steps are recorded"


def _recorded(*names: str) -> Counter[str]:
    rows = Step.objects.filter(kind="step", name__in=names)
    return Counter(rows.values_list("workflow__workflow_id", flat=True))


def _outputs() -> Iterator[str]:
    values: dict[int, list] = {}
    last: dict[int, tuple[int, int]] = {}
    rows = Step.objects.order_by("workflow_id", "position")
    for step in rows.iterator():
        position, attempt = last.get(step.workflow_id, (0, 0))
        if step.position != position + 1 or step.attempt < attempt:
            yield f"{step} of attempt {step.attempt} follows {position} of {attempt}"
        last[step.workflow_id] = step.position, step.attempt
        if step.kind in ("step", "result") and step.output is not None:
            values.setdefault(step.workflow_id, []).append(decode_value(step.output))
    for workflow in Workflow.objects.filter(status=SUCCESS):
        if decode_value(workflow.output) != values.get(workflow.id, []):
            yield f"{workflow} returned something else than its steps"
        if last[workflow.id][1] > workflow.attempt:
            yield f"{workflow} has a step of an attempt after its last"
