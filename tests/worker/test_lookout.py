"""What a worker tells about workflows that it can't run."""

import logging

import pytest

from durable_workflows.core.records import NewWorkflow
from durable_workflows.engine.process import process
from durable_workflows.models import Workflow
from durable_workflows.worker.lookout import EVERY, Lookout

pytestmark = pytest.mark.django_db


def enqueue_elsewhere(workflow_id: str) -> None:
    """Insert what another project's client would."""
    row = NewWorkflow(workflow_id, "elsewhere.fulfil", "[]", "strange")
    process().store.add([row])


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_name_that_nobody_here_knows_is_told_of_once_while_it_waits(caplog):
    caplog.set_level(logging.WARNING, "durable_workflows")
    here = process()
    lookout = Lookout(here, None)
    enqueue_elsewhere("a")

    assert lookout.tick(here.store) == EVERY
    lookout.tick(here.store)

    (told,) = warnings(caplog)
    assert "'elsewhere.fulfil'" in told
    assert Workflow.objects.get().status == "ENQUEUED"

    Workflow.objects.cancel()
    lookout.tick(here.store)
    enqueue_elsewhere("b")
    lookout.tick(here.store)
    assert len(warnings(caplog)) == 2  # it went away, and came again


def test_a_worker_of_other_queues_says_nothing(caplog):
    enqueue_elsewhere("a")

    Lookout(process(), ["orders"]).tick(process().store)

    assert warnings(caplog) == []
