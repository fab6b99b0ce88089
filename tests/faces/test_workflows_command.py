"""`manage.py workflows` looks at workflows, stops them and goes on with them."""

import json

import pytest
from django.core.management import CommandError, call_command

from durable_workflows import Queue, step, workflow
from durable_workflows.models import Workflow
from durable_workflows.testing import run_until_idle

pytestmark = pytest.mark.django_db

desk = Queue("command-desk")


@step
def lick(stamp: str) -> str:
    return stamp * 2


@step
def tear(stamp: str) -> str:
    raise LookupError(f"no {stamp}")


@workflow(name="command.frank")
def frank(stamp: str) -> str:
    if stamp == "blue":
        tear(stamp)
    return lick(stamp)


@pytest.fixture
def run(capsys):
    """Return a function that runs `workflows words…` and returns what it printed."""

    def run(*words: str) -> str:
        call_command("workflows", *words)
        return capsys.readouterr().out

    return run


def test_a_healthy_database_passes_the_audit(run):
    desk.enqueue(frank, "red")
    run_until_idle()
    desk.enqueue(frank, "red")
    desk.enqueue(frank.using(delay=60), "red")

    assert "Every workflow" in run("audit")
    assert json.loads(run("audit", "--json")) == []


def test_the_audit_names_each_stranded_row_and_fails(run, capsys):
    stranded = {
        "worker_gone": {"worker": 4711, "status": "PENDING"},
        "owned_and_ended": {"worker": 4711, "status": "SUCCESS"},
        "never_woken": {"status": "DELAYED", "wake_at": None},
    }
    for workflow_id, columns in stranded.items():
        desk.enqueue(frank.using(workflow_id=workflow_id), "red")
        Workflow.objects.filter(workflow_id=workflow_id).update(**columns)

    with pytest.raises(SystemExit) as stop:
        run("audit")
    text = capsys.readouterr().out
    assert stop.value.code == 1
    assert "4711, which is not live" in text
    assert "owned, but SUCCESS" in text
    assert "nothing will wake it" in text
    assert "3 workflows are stranded" in text

    with pytest.raises(SystemExit):
        run("audit", "--json")
    found = json.loads(capsys.readouterr().out)
    assert {one["workflow_id"] for one in found} == set(stranded)
    assert all(one["problem"] for one in found)


def test_the_list_is_filtered_and_newest_first(run):
    desk.enqueue(frank.using(workflow_id="letter-1"), "red")
    run_until_idle()
    desk.enqueue(frank.using(workflow_id="letter-2"), "red")
    desk.enqueue(frank.using(workflow_id="letter-3"), "red")

    newest_first = ["letter-3", "letter-2", "letter-1"]
    assert [line.split()[0] for line in run("list").splitlines()] == newest_first
    ended = ["letter-1", "SUCCESS", "command-desk", "command.frank"]
    assert run("list", "--status", "SUCCESS").split() == ended
    assert len(json.loads(run("list", "--json", "--limit", "2", "--queue", "command-desk"))) == 2
    assert run("list", "--name", "another") == ""


def test_show_prints_a_workflow_and_its_steps(run):
    desk.enqueue(frank.using(workflow_id="letter-1"), "red")
    desk.enqueue(frank.using(workflow_id="letter-2"), "blue")
    run_until_idle()

    text = run("show", "letter-1")
    assert "SUCCESS" in text
    assert "lick (step)" in text
    assert "redred" in text
    failed = json.loads(run("show", "letter-2", "--json"))
    assert (failed["status"], failed["output"]) == ("ERROR", None)
    assert "no blue" in failed["error"]
    assert [step["name"] for step in failed["steps"]] == ["tear"]
    assert "no blue" in failed["steps"][0]["error"]


def test_show_of_an_unknown_id_is_an_error(run):
    with pytest.raises(CommandError, match="nobody"):
        run("show", "nobody")


def test_cancel_and_resume_say_what_each_did(run):
    desk.enqueue(frank.using(workflow_id="letter-1"), "red")
    run_until_idle()
    desk.enqueue(frank.using(workflow_id="letter-2"), "red")

    assert run("cancel", "letter-1", "letter-2").splitlines() == [
        "letter-1  not cancelled: it is SUCCESS",
        "letter-2  cancelled",
    ]
    assert run("resume", "letter-1", "letter-2").splitlines() == [
        "letter-1  not resumed: it is SUCCESS",
        "letter-2  resumed",
    ]
    run_until_idle()
    assert Workflow.objects.get(workflow_id="letter-2").status == "SUCCESS"


def test_an_unknown_id_fails_after_the_known_ones_are_done(run, capsys):
    desk.enqueue(frank.using(workflow_id="letter-1"), "red")

    with pytest.raises(CommandError, match="1 of 2"):
        run("cancel", "nobody", "letter-1")

    said = capsys.readouterr()
    assert "letter-1  cancelled" in said.out
    assert "nobody  is unknown" in said.err
    assert Workflow.objects.get(workflow_id="letter-1").status == "CANCELLED"


@pytest.mark.parametrize(
    "words",
    [(), ("destroy",), ("show",), ("cancel",), ("list", "--limit", "0"), ("list", "--status", "x")],
)
def test_bad_words_are_refused(words):
    with pytest.raises(CommandError):
        call_command("workflows", *words)
