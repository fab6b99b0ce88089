"""Django's ground: projects are set up in many ways, and workflows run in all of them.

What belongs to a whole process is tried in one with settings of its own, on a database
that nobody else has.
"""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.db import connection, connections, transaction
from django.test import TestCase, TransactionTestCase

from durable_workflows import destroy, launch
from durable_workflows.engine.audit import audit
from durable_workflows.errors import NothingRuns
from durable_workflows.models import Workflow
from durable_workflows.routers import EngineRouter
from durable_workflows.testing import run_until_idle
from tests.conftest import ROOT
from tests.faces import ground
from tests.models import Effect

SETTINGS = "from tests.settings import *\n"


class Project:
    """A project in a folder of its own, with an empty database of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        self.folder, self.environment = folder, environment
        self.settings("")

    def settings(self, lines: str) -> None:
        self.write("ground_settings.py", SETTINGS + textwrap.dedent(lines))

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")

    def python(self, *words: str, **environment: str) -> str:
        answer = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout

    def manage(self, *words: str) -> str:
        return self.python("manage.py", *words)

    def migrate(self, alias: str = "default") -> None:
        self.manage("migrate", "--run-syncdb", "-v0", "--database", alias)

    def run(
        self, code: str, *options: str, setup: str = "import django; django.setup()\n"
    ) -> object:
        """Run code after django.setup(); return what it tells as JSON."""
        text = setup + textwrap.dedent(code)
        return json.loads(self.python(*options, "-W", "error", "-c", text))

    def exercise(self, *options: str) -> object:
        """Migrate, run the small set of workflows, and return what came of it."""
        self.migrate()
        return self.run("from tests.faces import ground\nground.tell(ground.exercise())", *options)


@pytest.fixture
def project(tmp_path, empty_database) -> Project:
    environment = {
        **os.environ,
        "DATABASE_URL": empty_database,
        "DURABLE_TEST_DB": connection.vendor,
        "DJANGO_SETTINGS_MODULE": "ground_settings",
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
        "PYTHONDEVMODE": "",
    }
    return Project(tmp_path, environment)


@pytest.fixture
def empty_database(tmp_path, django_db_setup, django_db_blocker) -> Iterator[str]:
    if connection.vendor == "sqlite":
        yield f"sqlite:///{tmp_path / 'ground.sqlite3'}"
        return
    name = f"ground_{os.getpid()}"
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    yield urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def is_right(came: dict) -> bool:
    # The clock of the machine bounds it: a zone taken for another would be hours off.
    assert 1.3 <= came.pop("lasted") < 20
    assert came == ground.EXPECTED
    return True


# -- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        "USE_TZ = False",
        'USE_TZ = False\nTIME_ZONE = "America/St_Johns"',
        'USE_TZ = True\nTIME_ZONE = "Asia/Kathmandu"',
        'TIME_ZONE = "Asia/Kathmandu"\nDATABASES["default"]["TIME_ZONE"] = "America/St_Johns"',
        'DURABLE_WORKFLOWS = {"NOTIFY": False, "POLL_SECONDS": 0.2}',
    ],
)
def test_workflows_run_whatever_the_settings_say(project, lines):
    project.settings(lines)

    assert is_right(project.exercise())
    assert "Every workflow" in project.manage("workflows", "audit")


def test_workflows_run_without_asserts(project):
    assert is_right(project.exercise("-O"))


def test_a_swapped_user_model_is_no_obstacle(project):
    project.write("shoppers/__init__.py", "")
    project.write(
        "shoppers/models.py",
        """
        from django.contrib.auth.models import AbstractUser

        class Shopper(AbstractUser):
            number = __import__("django").db.models.IntegerField(null=True)
        """,
    )
    project.write("shoppers/migrations/__init__.py", "")
    project.settings(
        'INSTALLED_APPS = ["shoppers", *INSTALLED_APPS]\nAUTH_USER_MODEL = "shoppers.Shopper"\n'
    )
    project.manage("makemigrations", "shoppers", "-v0")

    assert is_right(project.exercise())
    status = project.run(
        """
        from django.contrib.auth import get_user_model
        from django.test import Client
        from tests.faces import ground
        client = Client()
        client.force_login(get_user_model().objects.create_superuser("ada", password="x"))
        ground.tell(client.get("/admin/durable_workflows/workflow/").status_code)
        """
    )
    assert status == 200


# -- several databases ---------------------------------------------------------------------------

TWO = """
import pathlib
DATABASES["other"] = sqlite(pathlib.Path(__file__).parent / "other.sqlite3")
DATABASE_ROUTERS = ["durable_workflows.routers.EngineRouter"]
"""
TABLES = """
from django.db import connections
from tests.faces import ground
tables = {
    alias: sorted(
        name for name in connections[alias].introspection.table_names()
        if name.startswith("durable_workflows_")
    )
    for alias in ("default", "other")
}
ground.tell({alias: len(names) for alias, names in tables.items()})
"""


def test_the_router_keeps_our_tables_on_the_engines_alias(project):
    project.settings(TWO)

    project.migrate()
    project.migrate("other")

    assert project.run(TABLES) == {"default": 4, "other": 0}
    assert "no issues" in project.manage("check", "--database", "default", "--database", "other")


def test_the_engine_works_on_another_alias_than_the_default(project):
    project.settings(
        """
        import pathlib
        DATABASES["other"], DATABASES["default"] = DATABASES["default"], sqlite(
            pathlib.Path(__file__).parent / "default.sqlite3"
        )
        DATABASE_ROUTERS = ["durable_workflows.routers.EngineRouter"]
        DURABLE_WORKFLOWS = {"DATABASE": "other"}
        """
    )
    project.migrate()
    project.migrate("other")

    came = project.run(
        """
        from durable_workflows import destroy, launch, start_workflow
        from durable_workflows.models import Workflow
        from tests.faces import ground
        launch()
        stayed = start_workflow(ground.stroll.using(workflow_id="stays"), "pier", 3600)
        ended = start_workflow(ground.fail, "pier")
        try:
            ended.get_result(timeout=20)
        except LookupError as error:
            said = str(error)
        cancelled = Workflow.objects.get(workflow_id="stays").cancel()
        destroy()
        ground.tell([said, cancelled, stayed.get_status().status, Workflow.objects.count()])
        """
    )

    assert came == ["the pier is closed", True, "CANCELLED", 2]
    assert project.run(TABLES) == {"default": 0, "other": 4}
    assert "Every workflow" in project.manage("workflows", "audit")


def test_an_atomic_step_refuses_models_on_another_alias(project):
    project.settings(TWO)
    project.migrate()
    project.migrate("other")

    came = project.run(
        """
        from durable_workflows import destroy, launch, start_workflow
        from durable_workflows.errors import WrongPlace
        from tests.faces import ground
        from tests.models import Effect
        launch()
        try:
            start_workflow(ground.astray, "moon").get_result(timeout=20)
        except WrongPlace as error:
            said = str(error)
        destroy()
        ground.tell([said, Effect.objects.using("other").count()])
        """
    )

    assert "alias 'other'" in came[0]
    assert came[1] == 0


def test_the_router_has_no_say_over_other_apps():
    router = EngineRouter()

    assert router.db_for_read(Workflow) == router.db_for_write(Workflow) == "default"
    assert router.db_for_read(Effect) is None
    assert router.db_for_write(Effect) is None
    assert router.allow_migrate("default", "durable_workflows") is True
    assert router.allow_migrate("other", "durable_workflows") is False
    assert router.allow_migrate("other", "tests") is None


class ReplicaRouter:
    def db_for_read(self, model: type, **hints: object) -> str:
        return "replica"

    def db_for_write(self, model: type, **hints: object) -> str:
        return "default"


@pytest.mark.django_db
def test_a_router_to_a_replica_does_not_mislead_the_verbs(settings):
    settings.DATABASE_ROUTERS = [f"{__name__}.ReplicaRouter"]
    handle = ground.errands.enqueue(ground.errand, "bank")

    assert Workflow.objects.filter(workflow_id=handle.workflow_id).cancel() == 1

    assert handle.get_status().status == "CANCELLED"


# -- tests of projects ---------------------------------------------------------------------------


class InTestCase(TestCase):
    def test_workflows_run_inside_the_tests_transaction(self):
        handle = ground.errands.enqueue(ground.detour, "quay")

        run_until_idle()

        assert handle.get_result()[1::2] == [1, 1]
        assert handle.get_status().status == "SUCCESS"

    def test_the_previous_test_left_nothing(self):
        assert Workflow.objects.count() == 0

    def test_waiting_for_nobody_says_what_to_call(self):
        with pytest.raises(NothingRuns, match="run_until_idle"):
            ground.errands.enqueue(ground.errand, "quay").get_result()


class InTransactionTestCase(TransactionTestCase):
    def tearDown(self):
        destroy()

    def test_workflows_are_drained(self):
        handle = ground.errands.enqueue(ground.detour, "quay")

        run_until_idle()

        assert handle.get_result()[1::2] == [1, 1]

    def test_an_embedded_worker_runs_them(self):
        launch(threads=2, async_slots=2)

        handle = ground.errands.enqueue(ground.stroll, "quay")

        assert handle.get_result(timeout=20) == ["at the quay", 1]
        assert audit() == []


TINY = """
from django.db import IntegrityError, connection, transaction
from django.test import TestCase, TransactionTestCase
from durable_workflows.models import Queue, Workflow
from durable_workflows.testing import run_until_idle
from tests.faces import ground

class Drained(TestCase):
    def test_it_runs(self):
        self.assertEqual(Workflow.objects.count(), 0)
        handle = ground.errands.enqueue(ground.errand, "{name}", 30)
        run_until_idle()
        self.assertEqual(handle.get_result(), ["at the {name}", 1])

class Committed(TransactionTestCase):
    def test_it_runs(self):
        self.assertEqual(Workflow.objects.count(), 0)
        handle = ground.errands.enqueue(ground.detour, "{name}")
        run_until_idle()
        self.assertEqual(handle.get_result()[1::2], [1, 1])

class Guarded(TestCase):
    def test_one_live_workflow_has_a_deduplication_id(self):
        ground.errands.enqueue(ground.errand.using(deduplication_id="x"), "{name}")
        other = ground.errands.enqueue(ground.errand, "{name}").workflow_id
        with self.assertRaises(IntegrityError), transaction.atomic():
            Workflow.objects.filter(workflow_id=other).update(deduplication_id="x")

    def test_a_queue_of_nothing_is_refused(self):
        for limits in ({{"concurrency": 0}}, {{"worker_concurrency": 0}}):
            with self.assertRaises(IntegrityError), transaction.atomic():
                Queue.objects.create(name="none", **limits)

    def test_ids_are_unique_and_indexes_are_there(self):
        with connection.cursor() as cursor:
            found = connection.introspection.get_constraints(cursor, Workflow._meta.db_table)
        self.assertTrue(
            any(one["unique"] and one["columns"] == ["workflow_id"] for one in found.values())
        )
        names = {{index.name for index in Workflow._meta.indexes}}
        self.assertLessEqual(names | {{"dw_deduplication"}}, set(found))
"""


@pytest.mark.parametrize("options", [[], ["--nomigrations"]])
def test_constraints_are_there_with_and_without_migrations(project, options):
    project.write("test_tiny.py", TINY.format(name="harbour"))

    said = project.python(
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        str(ROOT / "setup.cfg"),
        "--ds",
        "ground_settings",
        *options,
        str(project.folder / "test_tiny.py"),
    )

    assert "5 passed" in said


def test_test_processes_run_side_by_side(project):
    # Django's own default, on SQLite in memory: a file's clone would lack what is in its log.
    project.settings('DATABASES["default"]["TEST"] = {}')
    for name in ("harbour", "station"):
        project.write(f"tiny/test_{name}.py", TINY.format(name=name))
    project.write("tiny/__init__.py", "")

    said = subprocess.run(
        [
            sys.executable,
            "manage.py",
            "test",
            "--parallel",
            "2",
            "--noinput",
            "-t",
            project.folder,
            project.folder / "tiny",
        ],
        cwd=ROOT,
        env=project.environment,
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert said.returncode == 0, said.stderr
    assert "Ran 10 tests" in said.stderr


# -- processes -----------------------------------------------------------------------------------

FORK = """
    import json, os, sys
    from django.db import connections
    from durable_workflows import destroy, launch, retrieve_workflow, start_workflow
    from tests.faces import ground

    def ask(place):
        return start_workflow(ground.errand, place).get_result(timeout=20)

    {begin}
    came = [ask("parent")]
    connections.close_all()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            {again}
            # an inline run, a start and a wait, and the parent's own workflow
            came = [ask("child"), ground.errand("child inline")]
            {end}
            os.write(writing, json.dumps(came).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    came.append(ask("parent again"))
    with open(reading) as pipe:
        came.append(json.loads(pipe.read() or "null"))
    _, status = os.waitpid(child, 0)
    {end}
    ground.tell([*came, status])
"""
FORKED = [
    ["at the parent", 1],
    ["at the parent again", 1],
    [["at the child", 1], ["at the child inline", 1]],
    0,
]


def test_a_preloaded_parent_and_its_fork_both_start_and_wait(project):
    project.migrate()
    worker = subprocess.Popen(
        [sys.executable, "manage.py", "runworker", "--no-reload", "--threads", "2"],
        cwd=ROOT,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        came = project.run(FORK.format(begin="", again="", end=""))
    finally:
        worker.terminate()
        _, errors = worker.communicate(timeout=30)

    assert came == FORKED
    assert worker.returncode == 0, errors


def test_a_worker_embedded_before_a_fork_is_the_parents_and_the_child_has_its_own(project):
    project.migrate()

    came = project.run(FORK.format(begin="launch()", again="launch()", end="destroy()"))

    assert came == FORKED


def test_the_query_log_of_a_debugging_worker_does_not_grow(project):
    project.settings("DEBUG = True")
    project.migrate()

    lengths = project.run(
        """
        from durable_workflows import destroy, launch, start_workflow
        from tests.faces import ground
        launch(threads=1)
        lengths = [start_workflow(ground.chatty, 50).get_result(timeout=30) for _ in range(3)]
        destroy()
        ground.tell(lengths)
        """
    )

    assert lengths == [0, 0, 0]


@pytest.fixture
def embedded(transactional_db) -> Iterator[Callable[..., None]]:
    launch(threads=1, async_slots=1)
    yield
    destroy()
    connections.close_all()


@pytest.mark.parametrize("name", ["abroad", "abroad_async"])
def test_a_language_and_a_zone_stay_with_their_workflow(embedded, settings, name):
    settings.LANGUAGE_CODE, settings.TIME_ZONE = "fr", "Asia/Kathmandu"
    abroad = getattr(ground, name)

    found = [ground.errands.enqueue(abroad).get_result(timeout=20) for _ in range(3)]

    assert found == [["fr", "Asia/Kathmandu"]] * 3


@pytest.mark.django_db(transaction=True)
def test_a_start_rolls_back_with_the_block_around_it():
    with transaction.atomic():
        ground.errands.enqueue(ground.errand, "bank")
        transaction.set_rollback(True)

    assert Workflow.objects.count() == 0
