"""What the faces' tests share."""

from collections.abc import Iterator

import pytest
from django.db import connections

from durable_workflows.client import add_alias
from tests.conftest import url_of_the_test_database


@pytest.fixture(scope="module")
def clients_url(django_db_setup) -> Iterator[str]:
    """The test database's URL, whose alias is there before a test names its databases.

    Django forbids a test the aliases that it has not named: mark it
    `django_db(transaction=True, databases="__all__")`.
    """
    url = url_of_the_test_database()
    alias = add_alias(url)
    yield url
    del connections.settings[alias]
