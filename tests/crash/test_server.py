"""The database goes away and comes back: workers live on, and nobody is blamed."""

import random
import time
from collections.abc import Iterator

import pytest
from django.core.management import call_command
from django.db import connection
from psycopg.conninfo import conninfo_to_dict

from durable_workflows import start_workflow
from tests.crash import oracle
from tests.crash.conftest import playing
from tests.crash.scene import Scene
from tests.crash.workflows import amixed, asteady, line, mixed, steady
from tests.throwaway_postgres import Server

pytestmark = pytest.mark.postgresql


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def elsewhere(server, process_environment, tmp_path, monkeypatch) -> Iterator[Scene]:
    """A scene on a server of its own, where this process's default alias leads, too."""
    where = conninfo_to_dict(server.url)
    connection.close()
    with monkeypatch.context() as patch:
        for key, part in {"HOST": "host", "PORT": "port", "NAME": "dbname"}.items():
            patch.setitem(connection.settings_dict, key, where[part])
        for key, part in {"USER": "user", "PASSWORD": "password"}.items():
            patch.setitem(connection.settings_dict, key, where[part])
        call_command("migrate", run_syncdb=True, verbosity=0)
        scene = Scene(process_environment | {"DATABASE_URL": server.url}, tmp_path)
        with oracle.watching():
            yield from playing(scene)
        connection.close()


def test_workers_live_through_restarts_of_the_server(elsewhere, server):
    scene = elsewhere
    scene.settings["LEASE_SECONDS"] = 10
    workers = [scene.ready_worker("--threads", "8") for _ in range(2)]
    for immediately in (False, True, False, True):
        line.enqueue_many(steady, [(8, 0.0, 0.4)] * 30)
        line.enqueue_many(asteady, [(8, 0.0, 0.4)] * 30)
        start_workflow(mixed)
        start_workflow(amixed)
        scene.see_work(20)

        server.restart(immediately=immediately)

        back_at = time.monotonic()
        connection.close()
        scene.see_work(20, patience=15)
        print(f"work went on {time.monotonic() - back_at:.1f} s after the server was back")
    scene.finish()

    assert scene.all_succeeded()
    assert all(worker.alive for worker in workers)
    assert set(scene.rows().values_list("recoveries", flat=True)) == {0}


def test_workers_live_through_the_end_of_their_connections(scene, dice):
    scene.settings["LEASE_SECONDS"] = 10
    workers = [scene.ready_worker("--threads", "8") for _ in range(2)]
    ended = 0
    while ended < 50:
        if ended % 10 == 0:
            line.enqueue_many(steady, [(6, 0.0, 0.3)] * 20)
            line.enqueue_many(asteady, [(6, 0.0, 0.3)] * 20)
            start_workflow(mixed)
            start_workflow(amixed)
        ended += end_a_backend(dice)
        time.sleep(dice.uniform(0.0, 0.2))
    scene.finish()

    assert scene.all_succeeded()
    assert all(worker.alive for worker in workers)
    assert set(scene.rows().values_list("recoveries", flat=True)) == {0}


def end_a_backend(dice: random.Random) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' "
            "AND datname = current_database() AND pid <> pg_backend_pid() ORDER BY pid"
        )
        pids = [pid for (pid,) in cursor]
        cursor.execute("SELECT pg_terminate_backend(%s)", [dice.choice(pids)])
        return cursor.fetchone()[0]
