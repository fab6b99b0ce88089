"""WorkflowClient: scripts without Django settings start and look at workflows."""

import asyncio
import json
import os
import subprocess
import sys
import textwrap

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from durable_workflows import Queue, WorkflowClient, launch, step, wait_first, workflow
from durable_workflows.client import parse
from durable_workflows.engine.process import process
from durable_workflows.errors import (
    ConflictingWorkflow,
    NonExistentWorkflow,
    ResultTimeout,
    Unstorable,
    WrongPlace,
)
from durable_workflows.models import Workflow
from durable_workflows.worker.embedded import destroy
from tests.conftest import ROOT

letters = Queue("client-letters")


@workflow(name="client.stamp")
def stamp(letter: str, *, times: int = 1) -> str:
    return letter * times


@workflow(name="client.crumple")
def crumple(letter: str) -> str:
    raise LookupError(f"no {letter} left")


pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")


@pytest.fixture
def client(clients_url, transactional_db):
    with WorkflowClient(database_url=clients_url) as client:
        yield client


@pytest.fixture
def worker(transactional_db):
    launch(threads=2, async_slots=2)
    yield
    destroy()
    connections.close_all()


def in_a_script(code: str, *arguments: str) -> object:
    """Run code in a process that has no Django settings; return what it prints as JSON."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("DJANGO_SETTINGS_MODULE", "DATABASE_URL", "DURABLE_TEST_DB")
    }
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def test_a_script_without_settings_enqueues_by_name_and_waits(database_url, worker):
    said = in_a_script(
        """
        import json, sys
        from durable_workflows import WorkflowClient

        with WorkflowClient(database_url=sys.argv[1]) as client:
            handle = client.enqueue("client-letters", "client.stamp", "x", times=3)
            result = handle.get_result(timeout=20)
            again = client.retrieve_workflow(handle.workflow_id).get_status()
        print(json.dumps([result, again.status, again.queue_name]))
        """,
        database_url,
    )

    assert said == ["xxx", "SUCCESS", "client-letters"]


def test_a_script_sees_an_error_by_its_type_and_message(database_url, worker):
    said = in_a_script(
        """
        import json, sys
        from durable_workflows import WorkflowClient

        client = WorkflowClient(database_url=sys.argv[1])
        try:
            client.enqueue("client-letters", "client.crumple", "y").get_result(timeout=20)
        except LookupError as error:
            print(json.dumps(str(error)))
        """,
        database_url,
    )

    assert said == "no y left"


def test_an_async_script_waits_on_its_loop(database_url, worker):
    said = in_a_script(
        """
        import asyncio, json, sys
        from durable_workflows import WorkflowClient

        async def main():
            client = WorkflowClient(database_url=sys.argv[1])
            handle = await client.enqueue_async("client-letters", "client.stamp", "z")
            found = await client.retrieve_workflow_async(handle.workflow_id)
            return [await found.get_result(timeout=20), (await found.get_status()).status]

        print(json.dumps(asyncio.run(main())))
        """,
        database_url,
    )

    assert said == ["z", "SUCCESS"]


def test_options_of_a_start_are_a_changed_copy(client):
    copy = client.using(workflow_id="letter-1", priority=7, delay=60)

    first = copy.enqueue("client-letters", "client.stamp", "a")

    row = Workflow.objects.get(workflow_id=first.workflow_id)
    assert (row.workflow_id, row.priority, row.status) == ("letter-1", 7, "DELAYED")
    assert client.enqueue("client-letters", "client.stamp", "a").workflow_id != "letter-1"


def test_the_same_id_again_is_the_first_one(client):
    named = client.using(workflow_id="letter-2")
    named.enqueue("client-letters", "client.stamp", "a")

    again = named.enqueue("client-letters", "client.stamp", "b")

    assert again.get_status().input == {"args": ("a",), "kwargs": {}}
    with pytest.raises(ConflictingWorkflow, match=r"client\.stamp"):
        named.enqueue("client-letters", "client.crumple", "a")


def test_an_argument_that_cannot_be_kept_writes_no_row(client):
    with pytest.raises(Unstorable, match=r"args\[0\]"):
        client.enqueue("client-letters", "client.stamp", object())

    assert not Workflow.objects.exists()


def test_an_unknown_id_is_an_error_unless_told_not_to_look(client):
    with pytest.raises(NonExistentWorkflow):
        client.retrieve_workflow("nobody")

    assert client.retrieve_workflow("nobody", existing_workflow=False).workflow_id == "nobody"


def test_waiting_ends_with_its_timeout(client):
    handle = client.enqueue("client-letters", "client.stamp", "a")

    with pytest.raises(ResultTimeout):
        handle.get_result(timeout=0.05)


def test_the_first_of_several_handles_is_found_in_their_own_database(client, worker):
    slow = client.using(delay=600).enqueue("client-letters", "client.stamp", "a")
    quick = client.enqueue("client-letters", "client.stamp", "b")

    assert wait_first([slow, quick]) is quick


def test_handles_of_two_databases_are_not_waited_for_together(client):
    handle = client.enqueue("client-letters", "client.stamp", "a")

    with pytest.raises(ValueError, match="one database"):
        wait_first([handle, letters.enqueue(stamp, "b")])


def test_one_url_is_one_alias(client, database_url):
    before = len(connections.settings)

    other = WorkflowClient(database_url=database_url)

    assert other._process is client._process
    assert len(connections.settings) == before


def test_a_closed_client_leaves_no_thread_and_can_be_used_again(client, worker):
    client.enqueue("client-letters", "client.stamp", "a").get_result(timeout=20)

    client.close()

    assert client._process.waiters._thread is None
    assert client._process.ringer._thread is None
    assert connections[client._process.using].connection is None
    assert client.enqueue("client-letters", "client.stamp", "b").get_result(timeout=20) == "b"


def test_in_a_workflow_the_client_belongs_into_a_step(client, worker):
    @step
    def outside() -> str:
        return client.enqueue("client-letters", "client.stamp", "in a step").workflow_id

    @workflow(name="client.careless")
    def careless() -> str:
        return client.enqueue("client-letters", "client.stamp", "a").workflow_id

    @workflow(name="client.curious")
    def curious(known: str) -> object:
        return client.retrieve_workflow(known)

    @workflow(name="client.careful")
    def careful() -> str:
        return outside()

    with pytest.raises(WrongPlace, match="step"):
        letters.enqueue(careless).get_result(timeout=20)
    with pytest.raises(WrongPlace, match="step"):
        letters.enqueue(curious, "nobody").get_result(timeout=20)
    started = letters.enqueue(careful).get_result(timeout=20)
    assert client.retrieve_workflow(started).get_result(timeout=20) == "in a step"


def test_a_client_in_a_coroutine_says_which_twin_to_await(client):
    async def start():
        client.enqueue("client-letters", "client.stamp", "a")

    with pytest.raises(WrongPlace, match="enqueue_async"):
        asyncio.run(start())


@pytest.mark.parametrize(
    "url, parts",
    [
        (
            "postgresql://ada:p%40ss@db.example.com:6000/my%20shop?sslmode=require",
            ("ada", "p@ss", "db.example.com", "6000", "my shop", {"sslmode": "require"}),
        ),
        ("postgres://db.example.com/shop", ("", "", "db.example.com", "", "shop", {})),
        ("postgresql://ada@%2FTmp%2FSocket/shop", ("ada", "", "/Tmp/Socket", "", "shop", {})),
        ("postgresql://ada@[::1]:5433/shop", ("ada", "", "::1", "5433", "shop", {})),
        ("postgresql://ada@[::1]/shop", ("ada", "", "::1", "", "shop", {})),
        (
            "postgresql+psycopg:///shop?host=/run/pg&port=5433",
            ("", "", "/run/pg", "5433", "shop", {}),
        ),
    ],
)
def test_a_postgresql_url_is_taken_apart(url, parts):
    database = parse(url)

    assert database["ENGINE"] == "django.db.backends.postgresql"
    keys = ("USER", "PASSWORD", "HOST", "PORT", "NAME", "OPTIONS")
    assert tuple(database[key] for key in keys) == parts


@pytest.mark.parametrize(
    "url, name",
    [("sqlite:///shop.sqlite3", "shop.sqlite3"), ("sqlite:////srv/my%20shop", "/srv/my shop")],
)
def test_a_sqlite_url_gets_what_the_engine_needs(url, name):
    database = parse(url)

    assert database["NAME"] == name
    assert database["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert "WAL" in database["OPTIONS"]["init_command"]


@pytest.mark.parametrize(
    "url",
    ["", "mysql://root@localhost/shop", "postgresql://localhost", "sqlite://", "shop.sqlite3"],
)
def test_another_url_is_refused_without_repeating_its_password(url):
    with pytest.raises(ImproperlyConfigured, match=r"postgresql://user:password@host/name"):
        parse(url)


def test_a_project_keeps_its_settings_and_its_own_process(client):
    assert client._process is not process()
    assert process().using == "default"


def test_settings_without_the_app_are_told_about_it(database_url):
    said = in_a_script(
        """
        import json, sys
        from django.conf import settings
        settings.configure(INSTALLED_APPS=[])
        from django.core.exceptions import ImproperlyConfigured
        from durable_workflows import WorkflowClient
        try:
            WorkflowClient(database_url=sys.argv[1])
        except ImproperlyConfigured as error:
            print(json.dumps(str(error)))
        """,
        database_url,
    )

    assert "INSTALLED_APPS" in said
