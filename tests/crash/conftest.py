"""Real processes that are killed, stopped and cut off. Only here may a test sleep."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from asgiref.sync import SyncToAsync
from django.db import connections

from tests.crash import oracle
from tests.crash.scene import Scene

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.crash)


def playing(scene: Scene) -> Iterator[Scene]:
    try:
        yield scene
    finally:
        scene.end()
        # The thread in which async tests use the ORM keeps its connection; a server that was
        # restarted, or ended everybody's, has cut it.
        SyncToAsync.single_thread_executor.submit(connections.close_all).result(20)
        print(scene.logs())  # pytest shows it when the test fails


@pytest.fixture
def scene(process_environment, tmp_path) -> Iterator[Scene]:
    with oracle.watching():
        yield from playing(Scene(process_environment, tmp_path))


@pytest.fixture
def dice() -> random.Random:
    """Return dice whose seed a failure shows; DURABLE_TEST_SEED throws them again."""
    seed = int(os.environ.get("DURABLE_TEST_SEED") or random.SystemRandom().getrandbits(32))
    print(f"DURABLE_TEST_SEED={seed}")
    return random.Random(seed)
