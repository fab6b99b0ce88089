"""What every folder's tests share: the database under test, in this process and in others."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import hypothesis
import pytest
from django.db import connection

ROOT = Path(__file__).parent.parent

# No deadline: a first example pays for imports, and CI's machines stall.
hypothesis.settings.register_profile("suite", deadline=None, print_blob=True)
hypothesis.settings.load_profile("suite")


def pytest_report_header() -> str:
    where = os.environ["DATABASE_URL"].rpartition("@")[2]
    return f"database under test: {connection.vendor} ({where})"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what a marker keeps for the other database."""
    for other in {"sqlite", "postgresql"} - {connection.vendor}:
        skip = pytest.mark.skip(reason=f"for {other} only")
        for item in items:
            if item.get_closest_marker(other):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker) -> Iterator[None]:
    """Close what daemon threads still hold open when the suite ends.

    PostgreSQL refuses to drop a database that somebody is connected to.
    """
    yield
    if connection.vendor == "postgresql":
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


@pytest.fixture
def database_url(transactional_db) -> str:
    """The URL of the test database; what is committed there is seen by other processes."""
    return url_of_the_test_database()


def url_of_the_test_database() -> str:
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{database['NAME']}"
    return urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{database['NAME']}").geturl()


@pytest.fixture
def process_environment(database_url) -> dict[str, str]:
    """The environment in which another process works on the test database."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "DURABLE_TEST_DB": connection.vendor,
        "DATABASE_URL": database_url,
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture
def manage(process_environment) -> Callable[..., list[str]]:
    """Return the command line of `manage.py words`, for subprocess, with cwd=ROOT."""
    return lambda *words: [sys.executable, str(ROOT / "manage.py"), *map(str, words)]
