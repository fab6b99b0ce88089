"""`manage.py check` says what a project gets wrong, with the lines that put it right."""

import socket
import sqlite3
import struct
import sys
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from django.apps import apps
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connection, connections

from durable_workflows import checks
from durable_workflows.conf import Settings
from tests.conftest import url_of_the_test_database
from tests.door import Door

SQLITE = "django.db.backends.sqlite3"
GOOD_OPTIONS = {
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
}


def ids(messages: list) -> list[str]:
    return [message.id.removeprefix("durable_workflows.") for message in messages]


@pytest.fixture
def engine_on(settings) -> Iterator[Callable[..., str]]:
    """Return a function that adds an alias and puts the engine on it."""
    added = []

    def add(*, alias: str = "engine", **database: object) -> str:
        filled = connections.configure_settings({"default": {}, alias: database})
        connections.settings[alias] = filled[alias]
        added.append(alias)
        settings.DURABLE_WORKFLOWS = {"DATABASE": alias}
        return alias

    yield add
    for alias in added:
        connections[alias].close()
        del connections[alias], connections.settings[alias]


# -- settings ------------------------------------------------------------------------------------


def test_the_suites_own_settings_are_in_order():
    assert [message for message in run_checks() if message.id.startswith("durable_workflows")] == []


def test_an_unknown_setting_is_an_error_that_names_the_nearest(settings):
    settings.DURABLE_WORKFLOWS = {"LEASE_SECOND": 5, "Threads": 2}

    found = checks.check_settings()

    assert ids(found) == ["E003", "E003"]
    assert "Did you mean 'LEASE_SECONDS'?" in found[0].msg
    assert "Did you mean 'THREADS'?" in found[1].msg


@pytest.mark.parametrize(
    "key, value",
    [
        ("LEASE_SECONDS", 0),
        ("LEASE_SECONDS", -1.0),
        ("LEASE_SECONDS", "30"),
        ("LEASE_SECONDS", float("nan")),
        ("LEASE_SECONDS", None),
        ("PAYLOAD_MAX_BYTES", 1e6),
        ("POLL_SECONDS", 0),
        ("POLL_SECONDS", True),
        ("SUSPEND_AFTER_SECONDS", -1),
        ("MAX_RECOVERY_ATTEMPTS", -1),
        ("THREADS", -1),
        ("ASYNC_SLOTS", "many"),
        ("NOTIFY", 1),
        ("DATABASE", None),
    ],
)
def test_a_value_that_cannot_be_is_an_error_that_names_the_key(settings, key, value):
    settings.DURABLE_WORKFLOWS = {key: value}

    (found,) = checks.check_settings()

    assert ids([found]) == ["E004"]
    assert key in found.msg


def test_settings_that_are_no_dict_are_an_error(settings):
    settings.DURABLE_WORKFLOWS = ["LEASE_SECONDS"]

    assert ids(checks.check_settings()) == ["E004"]


@pytest.mark.parametrize("given", [["LEASE_SECONDS"], {"DATABASE": 1}, {"TREADS": 3}])
def test_wrong_settings_are_said_once(settings, given):
    settings.DURABLE_WORKFLOWS = given

    found = [m for m in run_checks(databases=["default"]) if m.id.startswith("durable_workflows")]

    assert len(found) == 1


def test_all_values_may_be_given(settings):
    settings.DURABLE_WORKFLOWS = {
        "DATABASE": "default",
        "LEASE_SECONDS": 10,
        "PAYLOAD_MAX_BYTES": 2_000_000,
        "SUSPEND_AFTER_SECONDS": 0,
        "MAX_RECOVERY_ATTEMPTS": None,
        "APP_VERSION": "1",
        "NOTIFY": False,
        "POLL_SECONDS": 0.5,
        "THREADS": 0,
        "ASYNC_SLOTS": 10,
    }
    assert settings.DURABLE_WORKFLOWS.keys() == {name.upper() for name in Settings.__slots__}

    assert checks.check_settings() == []


# -- the database --------------------------------------------------------------------------------


def test_an_alias_that_is_not_there_is_an_error(settings):
    settings.DURABLE_WORKFLOWS = {"DATABASE": "nowhere"}

    (found,) = checks.check_database()

    assert ids([found]) == ["E001"]
    assert "'nowhere'" in found.msg
    assert "'default'" in found.msg


def test_a_database_that_the_engine_does_not_know_is_an_error(engine_on):
    engine_on(ENGINE="django.db.backends.dummy")

    (found,) = checks.check_database()

    assert ids([found]) == ["E002"]
    assert "EngineRouter" in found.hint


@pytest.mark.parametrize(
    "options, expected",
    [
        (GOOD_OPTIONS, []),
        ({"transaction_mode": "immediate", "init_command": 'pragma Journal_Mode = "wal"'}, []),
        ({}, ["W001", "W002"]),
        ({"transaction_mode": "IMMEDIATE"}, ["W001"]),
        ({**GOOD_OPTIONS, "transaction_mode": "DEFERRED"}, ["W002"]),
        ({**GOOD_OPTIONS, "init_command": "PRAGMA journal_mode=DELETE"}, ["W001"]),
    ],
)
def test_sqlite_is_told_what_it_lacks(engine_on, tmp_path, options, expected):
    engine_on(ENGINE=SQLITE, NAME=tmp_path / "shop.sqlite3", OPTIONS=options)

    assert ids(checks.check_database()) == expected


def test_the_lines_in_the_hint_put_it_right(engine_on, tmp_path, django_db_blocker):
    alias = engine_on(ENGINE=SQLITE, NAME=tmp_path / "shop.sqlite3")
    found = checks.check_database()

    exec(found[0].hint, {"DATABASES": connections.settings})
    connections[alias].settings_dict["OPTIONS"] = connections.settings[alias]["OPTIONS"]

    assert checks.check_database() == []
    with django_db_blocker.unblock(), connections[alias].cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        assert cursor.fetchone() == ("wal",)


def test_a_file_that_keeps_the_log_already_needs_no_line(engine_on, tmp_path):
    path = tmp_path / "shop.sqlite3"
    file = sqlite3.connect(path)
    file.execute("PRAGMA journal_mode=WAL")
    file.execute("CREATE TABLE shelf (id)")
    file.close()
    engine_on(ENGINE=SQLITE, NAME=path, OPTIONS={"transaction_mode": "IMMEDIATE"})

    assert checks.check_database() == []


@pytest.mark.parametrize("name", [":memory:", "file:shop?mode=memory&cache=shared"])
def test_a_database_in_memory_is_nobody_elses(engine_on, name):
    engine_on(ENGINE=SQLITE, NAME=name)

    assert ids(checks.check_database()) == ["W003"]


# -- several databases ---------------------------------------------------------------------------


def test_one_database_needs_no_router():
    assert checks.check_aliases() == []


def test_several_databases_want_a_router(engine_on, tmp_path):
    engine_on(ENGINE=SQLITE, NAME=tmp_path / "engine.sqlite3")

    (found,) = checks.check_aliases()

    assert ids([found]) == ["W004"]
    assert found.hint == 'DATABASE_ROUTERS = ["durable_workflows.routers.EngineRouter"]'


def test_another_database_would_get_our_tables_without_a_router(settings, engine_on, tmp_path):
    engine_on(ENGINE=SQLITE, NAME=tmp_path / "other.sqlite3", alias="other")
    settings.DURABLE_WORKFLOWS = {}

    (found,) = checks.check_aliases()

    assert ids([found]) == ["W004"]
    assert "'other'" in found.msg


def test_the_router_puts_it_right(settings, engine_on, tmp_path):
    engine_on(ENGINE=SQLITE, NAME=tmp_path / "engine.sqlite3")
    settings.DATABASE_ROUTERS = ["durable_workflows.routers.EngineRouter"]

    assert checks.check_aliases() == []


# -- the command ---------------------------------------------------------------------------------


@pytest.fixture
def channels(tmp_path, monkeypatch) -> Iterator[str]:
    """An app `channels` with a runworker of its own."""
    commands = tmp_path / "channels" / "management" / "commands"
    commands.mkdir(parents=True)
    for folder in (commands, commands.parent, commands.parent.parent):
        (folder / "__init__.py").touch()
    (commands / "runworker.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield "channels"
    sys.modules.pop("channels", None)


def test_channels_above_takes_the_name(settings, channels):
    settings.INSTALLED_APPS = [channels, *settings.INSTALLED_APPS]

    (found,) = checks.check_command()

    assert ids([found]) == ["W005"]
    assert "'channels'" in found.msg
    assert "rundurableworker" in found.hint


def test_channels_below_leaves_us_the_name(settings, channels):
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, channels]

    (found,) = checks.check_command()

    assert ids([found]) == ["I001"]
    assert "rundurableworker" in found.hint


def test_without_channels_there_is_nothing_to_say():
    assert not apps.is_installed("channels")

    assert checks.check_command() == []


# -- the server ----------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_the_server_is_asked_only_where_the_database_is_named(settings):
    settings.DURABLE_WORKFLOWS = {"THREADS": 100_000}

    assert ids(checks.check_server()) == []
    assert ids(checks.check_server(databases=["another"])) == []
    expected = ["W007"] if connection.vendor == "postgresql" else []
    assert ids(checks.check_server(databases=["default"])) == expected


@pytest.mark.django_db(transaction=True)
def test_a_healthy_server_passes(capsys):
    call_command("check", databases=["default"])

    assert "no issues" in capsys.readouterr().out


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_the_number_in_the_hint_fits(settings):
    settings.DURABLE_WORKFLOWS = {"THREADS": 1000}
    (found,) = checks.check_server(databases=["default"])
    pasted: dict = {}
    exec(found.hint, pasted)

    settings.DURABLE_WORKFLOWS = pasted["DURABLE_WORKFLOWS"]

    assert checks.check_server(databases=["default"]) == []


def test_a_server_that_is_away_is_no_business_of_the_check(engine_on, django_db_blocker):
    engine_on(ENGINE="django.db.backends.postgresql", NAME="shop", HOST="127.0.0.1", PORT="1")

    with django_db_blocker.unblock():
        assert checks.check_server(databases=["engine"]) == []


class Deaf(Door):
    """A door to PostgreSQL that lets every message through but notifications, as a pooler does."""

    def carry(self, back: socket.socket, front: socket.socket) -> None:
        stream = back.makefile("rb")
        while head := stream.read(5):
            body = stream.read(struct.unpack("!I", head[1:])[0] - 4)
            if head[:1] != b"A":
                front.sendall(head + body)


@pytest.mark.postgresql
def test_notifications_that_get_lost_are_noticed(deaf):
    assert ids(checks.check_server(databases=[deaf])) == ["W006"]


@pytest.mark.postgresql
def test_polling_that_is_meant_is_in_order(deaf, settings):
    settings.DURABLE_WORKFLOWS = {"DATABASE": deaf, "NOTIFY": False, "POLL_SECONDS": 0.2}

    assert checks.check_server(databases=[deaf]) == []


@pytest.fixture
def deaf(engine_on, django_db_setup, django_db_blocker) -> Iterator[str]:
    """The engine on the test database, through a door that notifications do not pass."""
    database = connection.settings_dict
    url = urlsplit(url_of_the_test_database())
    server = Deaf(database["HOST"] or url.hostname or "", str(database["PORT"] or url.port or 5432))
    door = {
        **database,
        "HOST": "127.0.0.1",
        "PORT": str(server.port),
        "OPTIONS": {**database["OPTIONS"], **Door.OPTIONS},
    }
    with django_db_blocker.unblock():
        yield engine_on(alias="deaf", **door)
        connections["deaf"].close()
    server.close()
