"""What a project gets wrong, said by `manage.py check` with the lines that put it right.

E001  the engine's alias is not in DATABASES
E002  the engine's alias is a database the engine does not know
E003  a setting that does not exist
E004  a value that can't be
W001  SQLite without the write-ahead log
W002  SQLite whose transactions take the write lock too late
W003  SQLite in memory: no other process sees it
W004  several databases, and nothing keeps our tables on the engine's
W005  `runworker` is another app's command
I001  `runworker` is ours, and another app has one, too
W006  notifications get lost on their way        (asks the server: check --database)
W007  a worker may take most of the connections  (asks the server: check --database)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Info, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.core.management import find_commands
from django.db import connections, router
from django.db.utils import DatabaseError

from durable_workflows.conf import NAME, settings, unknown_keys
from durable_workflows.engine.probe import notifications_arrive
from durable_workflows.engine.process import process
from durable_workflows.worker.worker import Orders

APP = "durable_workflows"
COMMAND = "runworker"
VENDORS = ("postgresql", "sqlite")

PASTE_SQLITE = """\
DATABASES["{alias}"]["OPTIONS"] = {{
    "timeout": 20,
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
}}"""
PASTE_ROUTER = 'DATABASE_ROUTERS = ["durable_workflows.routers.EngineRouter"]'


@register()
def check_settings(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    given = getattr(django_settings, NAME, {})
    if not isinstance(given, dict):
        return [
            _error(
                4, f"{NAME} is a dict of settings, not {type(given).__name__}.", f"{NAME} = {{}}"
            )
        ]
    if unknown := unknown_keys(given):
        return [_error(3, sentence, "Rename or remove the key.") for sentence in unknown]
    try:
        settings()
    except ImproperlyConfigured as error:
        return [_error(4, str(error), "Change or remove the value.")]
    return []


@register()
def check_database(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    if (alias := _alias()) is None:
        return []
    if alias not in connections:
        known = ", ".join(map(repr, connections.settings))
        return [
            _error(
                1,
                f"The engine's alias {alias!r} is not in DATABASES, which has {known}.",
                f'{NAME} = {{"DATABASE": "default"}}',
            )
        ]
    vendor = connections[alias].vendor
    if vendor not in VENDORS:
        return [
            _error(
                2,
                f"The engine runs on PostgreSQL and SQLite; the alias {alias!r} is {vendor}.",
                "Keep the workflows in a database of their own:\n"
                f'{NAME} = {{"DATABASE": "workflows"}}\n{PASTE_ROUTER}',
            )
        ]
    return _check_sqlite(alias) if vendor == "sqlite" else []


def _check_sqlite(alias: str) -> list[CheckMessage]:
    database = connections[alias].settings_dict
    options, name = database.get("OPTIONS", {}), str(database["NAME"])
    hint = PASTE_SQLITE.format(alias=alias)
    if ":memory:" in name or "mode=memory" in name:
        return [
            _warning(
                3,
                f"The alias {alias!r} is a database in memory: it ends with its process, and no "
                "worker sees it.",
                f'DATABASES["{alias}"]["NAME"] = BASE_DIR / "db.sqlite3"',
            )
        ]
    found: list[CheckMessage] = []
    if not (_asks_for_wal(options.get("init_command", "")) or _is_in_wal(name)):
        found.append(
            _warning(
                1,
                f"The alias {alias!r} keeps no write-ahead log: readers and the writer hold each "
                "other up.",
                hint,
            )
        )
    if str(options.get("transaction_mode", "")).upper() != "IMMEDIATE":
        found.append(
            _warning(
                2,
                f"Transactions on the alias {alias!r} take SQLite's write lock after their first "
                "read: they fail with “database is locked” when somebody wrote in between, and no "
                "timeout helps.",
                hint,
            )
        )
    return found


def _asks_for_wal(init_command: str) -> bool:
    return bool(re.search(r"journal_mode\s*=\s*['\"]?wal", init_command, re.IGNORECASE))


def _is_in_wal(name: str) -> bool:
    """Return whether the file says so itself: the mode outlives the connection that set it."""
    try:
        with Path(name).open("rb") as file:
            return file.read(20)[18:20] == b"\x02\x02"
    except OSError:
        return False


@register()
def check_aliases(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Several databases: our tables, and people's queries, belong to the engine's."""
    alias = _alias()
    others = [other for other in django_settings.DATABASES if other != alias]
    if alias is None or not others:
        return []
    workflow = apps.get_model(APP, "Workflow")
    astray = router.db_for_write(workflow) != alias or router.db_for_read(workflow) != alias
    spread = [other for other in others if router.allow_migrate(other, APP)]
    if not astray and not spread:
        return []
    what = (
        f"queries for workflows go to another alias than the engine's, {alias!r}"
        if astray
        else f"migrate would make our tables on {', '.join(map(repr, spread))}, too, to stay empty"
    )
    return [_warning(4, f"The project has several databases, and {what}.", PASTE_ROUTER)]


@register()
def check_command(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """`channels` ships a runworker of its own; the app listed first wins."""
    having = [
        config.name
        for config in apps.get_app_configs()
        if COMMAND in find_commands(str(Path(config.path) / "management"))
    ]
    if len(having) < 2:
        return []
    others = ", ".join(repr(name) for name in having if name != APP)
    if having[0] == APP:
        return [
            Info(
                f"manage.py {COMMAND} runs durable workflows; {others} has a command of that name, "
                "too, and stands lower in INSTALLED_APPS.",
                hint="manage.py rundurableworker is ours in any order.",
                id=f"{APP}.I001",
            )
        ]
    return [
        _warning(
            5,
            f"manage.py {COMMAND} is the command of {having[0]!r}, which stands above {APP!r} in "
            "INSTALLED_APPS: it runs no workflows.",
            f"Run manage.py rundurableworker, which is always ours, or put {APP!r} above.",
        )
    ]


@register(Tags.database)
def check_server(
    app_configs: Any = None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Ask the server itself, where somebody said --database (migrate does)."""
    alias = _alias()
    if alias is None or alias not in (databases or ()) or alias not in connections:
        return []
    if connections[alias].vendor not in VENDORS:
        return []
    try:
        connections[alias].ensure_connection()
    except DatabaseError:
        return []  # whoever wanted the database says so
    return [*_check_notifications(alias), *_check_connections(alias)]


def _check_notifications(alias: str) -> Iterable[CheckMessage]:
    if settings().notify and notifications_arrive(process(alias)) is False:
        yield _warning(
            6,
            f"Notifications on the alias {alias!r} do not arrive: a pooler in transaction mode "
            "stands between. Workers poll instead, which is slower, and a dead one is noticed only "
            "when its lease is over.",
            "Give workers the server's own address, or say that polling is meant:\n"
            f'{NAME} = {{"NOTIFY": False, "POLL_SECONDS": 0.2}}',
        )


def _check_connections(alias: str) -> Iterable[CheckMessage]:
    most = process(alias).store.most_connections()
    wanted = Orders(threads=settings().threads, async_slots=settings().async_slots).connections
    if most is not None and wanted > most * 2 // 3:
        fitting = max(1, settings().threads - (wanted - most * 2 // 3))
        yield _warning(
            7,
            f"A worker may take {wanted} connections, more than two thirds of the server's {most}.",
            f'{NAME} = {{"THREADS": {fitting}}}  # or raise max_connections',
        )


def _alias() -> str | None:
    """Return the engine's alias; None while the settings are wrong, which is said elsewhere."""
    try:
        return settings().database
    except (ImproperlyConfigured, AttributeError, TypeError):
        return None


def _error(number: int, sentence: str, hint: str) -> Error:
    return Error(sentence, hint=hint, id=f"{APP}.E{number:03}")


def _warning(number: int, sentence: str, hint: str) -> Warning:
    return Warning(sentence, hint=hint, id=f"{APP}.W{number:03}")
