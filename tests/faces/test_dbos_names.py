"""The facade translates names, and says what to use for those that it lacks."""

import importlib
import logging
import subprocess
import sys

import pytest

import durable_workflows
from durable_workflows import dbos, errors
from durable_workflows.dbos import DBOS, DBOSClient, Queue, _error
from durable_workflows.models import Queue as QueueRow
from durable_workflows.testing import run_until_idle
from tests.conftest import ROOT

tries: list[int] = []


@DBOS.step()
def stumble() -> None:
    tries.append(1)
    raise OSError("stumbled")


@DBOS.step(retries_allowed=True, interval_seconds=0.01)
def stumble_thrice() -> None:
    tries.append(1)
    raise OSError("stumbled")


@DBOS.step(retries_allowed=True, interval_seconds=0.01, max_attempts=2)
def stumble_twice() -> None:
    tries.append(1)
    raise OSError("stumbled")


@DBOS.workflow()
def walk(manner: str) -> None:
    {"once": stumble, "twice": stumble_twice, "thrice": stumble_thrice}[manner]()


@pytest.mark.django_db
@pytest.mark.parametrize("manner, count", [("once", 1), ("twice", 2), ("thrice", 3)])
def test_a_step_is_tried_again_only_where_retries_are_allowed(manner, count):
    tries.clear()
    handle = DBOS.start_workflow(walk, manner)

    run_until_idle()

    assert len(tries) == count
    with pytest.raises(OSError if count == 1 else _error.DBOSMaxStepRetriesExceeded):
        handle.get_result()


def test_workflows_are_named_by_their_qualified_name_or_as_given():
    @DBOS.workflow()
    def nested() -> None: ...

    @DBOS.workflow(name="page.given")
    def another() -> None: ...

    assert walk.spec.name == "walk"
    assert nested.spec.name.endswith("<locals>.nested")
    assert another.spec.name == "page.given"


@pytest.mark.django_db
def test_a_queue_holds_its_places():
    queue = Queue("page-holding", concurrency=2, priority_enabled=True)

    queue.enqueue(walk, "once")

    row = QueueRow.objects.get(name="page-holding")
    assert (row.concurrency, row.hold) == (2, True)


@pytest.mark.parametrize("name", [name for name in vars(_error) if name.startswith("DBOS")])
def test_every_error_is_one_that_is_raised_here(name):
    assert issubclass(getattr(_error, name), (errors.DurableError, errors.Leaving))


@pytest.mark.parametrize("name", sorted(set(dbos.__all__)))
def test_every_public_name_is_there(name):
    assert getattr(dbos, name) is not None


def test_a_config_is_accepted_and_said_to_change_nothing(caplog):
    with caplog.at_level(logging.INFO, logger="durable_workflows"):
        DBOS(config={"name": "shop", "system_database_url": "postgresql://elsewhere/shop"})

    assert "DATABASES" in caplog.text
    DBOS()


@pytest.mark.parametrize(
    "name, words",
    [
        ("transaction", "atomic=True"),
        ("register_queue", "Queue(name"),
        ("list_workflows_async", "Workflow.objects"),
        ("get_workflow_status", "get_status()"),
        ("no_such_word", "durable_workflows itself"),
    ],
)
def test_a_word_that_is_missing_names_another(name, words):
    assert not hasattr(DBOS, name)
    with pytest.raises(AttributeError, match=f"no '{name}'") as caught:
        getattr(DBOS, name)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["SetWorkflowID", "SetWorkflowTimeout", "Debouncer"])
def test_an_import_that_is_missing_names_another(name):
    with pytest.raises(ImportError, match="using") as caught:
        exec(f"from durable_workflows.dbos import {name}")

    assert name in str(caught.value)


def test_an_error_that_is_missing_says_where_errors_are():
    with pytest.raises(ImportError, match=r"durable_workflows\.errors"):
        exec("from durable_workflows.dbos._error import DBOSNotAuthorizedError")


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: DBOS.workflow(serialization_type="pickle"), "JSON"),
        (lambda: DBOS.step(preemptible=True), "cancelled with its run"),
        (lambda: DBOS.step(colour="red"), "no 'colour'"),
        (lambda: Queue("page-polling", polling_interval_sec=2.0), "POLL_SECONDS"),
        (lambda: Queue("page-limiter", limiter={"limit": 1, "period": 1}), "no 'limiter'"),
        (lambda: DBOS.destroy(destroy_registry=True), "stay registered"),
        (lambda: DBOSClient(), "application_database_url"),
    ],
)
def test_an_option_that_is_missing_is_an_error(call, words):
    with pytest.raises(TypeError, match=words):
        call()


def test_the_facade_only_passes_on():
    assert DBOS.retrieve_workflow is durable_workflows.retrieve_workflow
    assert DBOS.wait_first is durable_workflows.wait_first
    assert dbos.WorkflowHandle is durable_workflows.WorkflowHandle
    assert importlib.import_module("durable_workflows.dbos._error") is dbos.error


def test_it_can_be_imported_before_django_is_set_up():
    code = (
        "from durable_workflows.dbos import DBOS, Queue\n"
        "queue = Queue('early')\n"
        "@DBOS.workflow()\n"
        "def early(): ...\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True)
