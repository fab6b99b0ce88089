"""`manage.py runworker` says what it will do, whether it fits, and refuses what makes no sense."""

import os
import re
import signal
import subprocess
import time

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.db.migrations.recorder import MigrationRecorder

from durable_workflows import Queue
from durable_workflows.engine.audit import audit
from durable_workflows.management.commands import rundurableworker, runworker
from durable_workflows.models import Queue as QueueRow
from durable_workflows.models import Worker
from tests.conftest import ROOT
from tests.faces import ground

pytestmark = pytest.mark.django_db(transaction=True)

bell = Queue("runworker-bell")


@pytest.fixture
def check(capsys):
    """Return a function that runs `runworker --check words…`: exit status, output, errors."""

    def check(*words: str) -> tuple[int, str, str]:
        status = 0
        try:
            call_command("runworker", "--check", *words)
        except SystemExit as stop:
            status = stop.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return check


# -- what it says --------------------------------------------------------------------------------


def test_the_banner_says_what_runs_where_and_with_how_many_connections(check):
    status, said, _ = check("--threads", "3", "--async-slots", "20")

    name = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[connection.vendor]
    assert status == 0
    assert re.search(rf"{name} \d+\.\d+.*, alias 'default'", said)
    assert re.search(r"runs \d+ workflows from all queues", said)
    assert "3 threads for def, 20 slots for async def" in said
    most = " of the server's" if connection.vendor == "postgresql" else "; lease"
    assert f"takes up to 17 connections{most}" in said
    assert "lease 30 s" in said
    assert "Everything fits." in said


def test_the_banner_counts_no_connections_for_slots_that_are_not_there(check):
    _, said, _ = check("--threads", "3", "--async-slots", "0")

    assert "up to 9 connections" in said


def test_the_settings_are_the_defaults(check, settings):
    settings.DURABLE_WORKFLOWS = {"THREADS": 5, "ASYNC_SLOTS": 7, "LEASE_SECONDS": 12}

    _, said, _ = check()

    assert "5 threads for def, 7 slots for async def" in said
    assert "lease 12 s" in said


def test_the_queues_are_named(check):
    status, said, _ = check("--queues", "runworker-bell, ground-errands,")

    assert status == 0
    assert "from queues runworker-bell, ground-errands:" in said


def test_a_queue_with_a_row_is_known(check):
    QueueRow.objects.create(name="from-the-admin")

    assert check("--queues", "from-the-admin")[0] == 0


# -- what does not fit ---------------------------------------------------------------------------


def test_an_unknown_queue_does_not_fit(check):
    status, said, errors = check("--queues", "runworker-bel")

    assert status == 1
    assert "'runworker-bel'" in errors
    assert "runworker-bell" in errors
    assert "Everything fits" not in said


def test_missing_migrations_do_not_fit(check):
    recorder = MigrationRecorder(connection)
    recorder.record_unapplied("durable_workflows", "0001_initial")
    try:
        status, _, errors = check()
    finally:
        recorder.record_applied("durable_workflows", "0001_initial")

    assert status == 1
    assert "migrate --database default" in errors


@pytest.mark.postgresql
def test_too_many_connections_do_not_fit(check):
    status, _, errors = check("--threads", "5000")

    assert status == 1
    assert "two thirds" in errors
    assert "--threads" in errors


def test_no_workflow_at_all_does_not_fit(process_environment, manage, tmp_path):
    (tmp_path / "bare_settings.py").write_text(
        "from tests.settings import *\n"
        'INSTALLED_APPS = ["durable_workflows", "django.contrib.contenttypes"]\n'
        "ROOT_URLCONF = None\n"
    )
    environment = {
        **process_environment,
        "DJANGO_SETTINGS_MODULE": "bare_settings",
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
    }

    answer = subprocess.run(
        manage("runworker", "--check"), cwd=ROOT, env=environment, capture_output=True, text=True
    )

    assert answer.returncode == 1
    assert "No workflow is registered" in answer.stderr


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["--threads", "-1"], "--threads can't be negative"),
        (["--async-slots", "-1"], "--async-slots can't be negative"),
        (["--threads", "0", "--async-slots", "0"], "runs nothing"),
        (["--processes", "0"], "--processes is at least 1"),
        (["--grace", "-1"], "--grace can't be negative"),
        (["--grace", "nan"], "--grace can't be negative"),
        (["--queues", " , "], "names no queue"),
        (["--queues", "two words"], "--queues: A queue name can't hold white space"),
        (["--threads", "many"], "invalid int value"),
        (["--colour", "red"], "unrecognized arguments"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(words, complaint):
    with pytest.raises(CommandError, match=complaint):
        call_command("runworker", "--check", *words)


# -- as a process --------------------------------------------------------------------------------


def test_the_other_name_is_the_same_command():
    assert rundurableworker.Command is runworker.Command


@pytest.mark.parametrize("command", ["runworker", "rundurableworker"])
def test_it_drains_and_ends(manage, process_environment, command):
    tower, square = bell.enqueue(ground.errand, "tower"), bell.enqueue(ground.stroll, "square")

    answer = subprocess.run(
        manage(command, "--drain", "--threads", "2", "--async-slots", "2"),
        cwd=ROOT,
        env=process_environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("durable_workflows worker")
    assert tower.get_result() == ["at the tower", 1]
    assert square.get_result() == ["at the square", 1]
    assert Worker.objects.get(kind="worker").state == "stopped"
    assert audit() == []


def test_it_takes_only_the_queues_that_it_is_given(manage, process_environment):
    mine = bell.enqueue(ground.errand, "tower")
    others = ground.errands.enqueue(ground.errand, "bank")

    subprocess.run(
        manage("runworker", "--drain", "--queues", "runworker-bell", "--threads", "2"),
        cwd=ROOT,
        env=process_environment,
        capture_output=True,
        check=True,
        timeout=60,
    )

    assert mine.get_status().status == "SUCCESS"
    assert others.get_status().status == "ENQUEUED"


def test_several_processes_share_the_work_and_end_with_their_parent(manage, process_environment):
    handles = [bell.enqueue(ground.errand, f"tower {number}") for number in range(20)]

    parent = subprocess.Popen(
        manage("runworker", "--processes", "2", "--threads", "2", "--no-reload"),
        cwd=ROOT,
        env=process_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 40
        while Worker.objects.filter(state="live", kind="worker").count() < 2:
            assert time.monotonic() < until
            time.sleep(0.1)
        while any(handle.get_status().status != "SUCCESS" for handle in handles):
            assert time.monotonic() < until
            time.sleep(0.1)
    finally:
        parent.send_signal(signal.SIGTERM)
        _, errors = parent.communicate(timeout=40)

    assert parent.returncode == 0, errors
    assert set(Worker.objects.filter(kind="worker").values_list("state", flat=True)) == {"stopped"}
    connections.close_all()
