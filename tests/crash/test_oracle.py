"""The oracle finds what it is there to find."""

import pytest
from django.db import connection

from durable_workflows import start_workflow
from durable_workflows.testing import run_until_idle
from tests.crash import oracle, workflows
from tests.crash.oracle import STEP, WORKFLOW
from tests.models import Effect

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def marks(tmp_path, monkeypatch):
    """One workflow has run, with a plain and an atomic step."""
    monkeypatch.setattr(workflows, "MARKS", tmp_path)
    with oracle.watching():
        handle = start_workflow(workflows.leaf, "label")
        run_until_idle()
        yield [[handle.workflow_id, "1", "label"]]


def test_an_undisturbed_run_is_all_right(marks):
    assert oracle.findings(marks) == []


@pytest.mark.parametrize(
    "statement, found",
    [
        (f"UPDATE {STEP} SET attempt = 7", "crash_step_updated"),
        (f"DELETE FROM {STEP} WHERE position = 2", "crash_step_deleted"),
        (f"UPDATE {WORKFLOW} SET attempt = 0", "crash_attempt_lowered"),
        (f"UPDATE {WORKFLOW} SET status = 'ERROR'", "crash_end_changed"),
        (f"UPDATE {WORKFLOW} SET output = (SELECT max(output) FROM {STEP})", "something else"),
        (f"UPDATE {WORKFLOW} SET status = 'PENDING'", "has not ended"),
        (f"UPDATE {WORKFLOW} SET worker_id = 7", "is still owned by worker 7"),
        ("DELETE FROM tests_effect", "0 effects, but 1 atomic steps"),
    ],
)
def test_what_may_never_change_is_found(marks, statement, found):
    with connection.cursor() as cursor:
        cursor.execute(statement)

    assert any(found in finding for finding in oracle.findings(marks))


def test_an_effect_too_many_is_found(marks):
    Effect.objects.create(run=marks[0][0], step="label written")

    assert any("took effect 2 times" in finding for finding in oracle.findings(marks))


def test_a_plain_step_called_twice_by_one_attempt_is_found(marks):
    found = oracle.findings(2 * marks)

    assert any("was called 2 times by attempt 1" in finding for finding in found)
