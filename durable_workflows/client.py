"""WorkflowClient: start and look at workflows from a script that has no Django settings.

    with WorkflowClient(database_url="postgresql://app@db.example.com/shop") as client:
        handle = client.enqueue("orders", "shop.fulfil", 7)
        handle.get_result(timeout=60)

The client names functions and never calls one. It has a database alias of its own, and
configures Django only where nobody has: inside a project it leaves the settings alone.
"""

from __future__ import annotations

import hashlib
import os
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import django
from asgiref.sync import sync_to_async
from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from durable_workflows.core.names import check_name
from durable_workflows.core.records import Options
from durable_workflows.engine.decorators import checked
from durable_workflows.engine.handle import WorkflowHandle, WorkflowHandleAsync
from durable_workflows.engine.process import process
from durable_workflows.engine.start import create_named

APP = "durable_workflows"


class WorkflowClient:
    """The workflows in the database at `database_url`.

    The URL is `postgresql://user:password@host:port/name?sslmode=require`, or
    `sqlite:///relative/path` with a fourth slash for an absolute one. What stands behind
    the question mark goes to the driver.
    """

    def __init__(self, database_url: str):
        configure_django()
        self._process = process(add_alias(database_url))
        self._options = Options()

    def __enter__(self) -> WorkflowClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hand in what is still to be rung, and give this thread's connection back.

        The client can be used again; it then opens another one.
        """
        self._process.close()

    def using(self, **changes: Any) -> WorkflowClient:
        """Return a copy whose starts have other options, as a workflow's own `.using()`."""
        copy = object.__new__(type(self))
        copy._process, copy._options = self._process, checked(self._options.changed(**changes))
        return copy

    def enqueue(
        self, queue_name: str, workflow_name: str, /, *args: Any, **kwargs: Any
    ) -> WorkflowHandle[Any]:
        """Put a workflow into a queue, by name; the function need not exist here.

        `workflow_name` is what rows say: `<app label>.<qualname>`, or the `name=` that it was
        given. Nothing looks whether somebody runs it: a misspelt one waits for ever.
        """
        row = create_named(self._process, queue_name, workflow_name, self._options, (args, kwargs))
        return WorkflowHandle(row.workflow_id, self._process)

    async def enqueue_async(
        self, queue_name: str, workflow_name: str, /, *args: Any, **kwargs: Any
    ) -> WorkflowHandleAsync[Any]:
        """See enqueue()."""
        handle = await sync_to_async(self.enqueue)(queue_name, workflow_name, *args, **kwargs)
        return WorkflowHandleAsync(handle.workflow_id, self._process)

    def retrieve_workflow(
        self, workflow_id: str, *, existing_workflow: bool = True
    ) -> WorkflowHandle[Any]:
        """Return a handle; raise NonExistentWorkflow for an unknown id unless told not to look."""
        check_name(workflow_id, "A workflow id")
        handle: WorkflowHandle[Any] = WorkflowHandle(workflow_id, self._process)
        if existing_workflow:
            handle.get_status()
        return handle

    async def retrieve_workflow_async(
        self, workflow_id: str, *, existing_workflow: bool = True
    ) -> WorkflowHandleAsync[Any]:
        """See retrieve_workflow()."""
        check_name(workflow_id, "A workflow id")
        handle: WorkflowHandleAsync[Any] = WorkflowHandleAsync(workflow_id, self._process)
        if existing_workflow:
            await handle.get_status()
        return handle


def configure_django() -> None:
    """See that Django is up with this app in it; settings that are there stay as they are."""
    if not settings.configured and not os.environ.get("DJANGO_SETTINGS_MODULE"):
        settings.configure(INSTALLED_APPS=[APP], USE_TZ=True)
    if not apps.ready:
        django.setup()
    if not apps.is_installed(APP):
        raise ImproperlyConfigured(
            f"WorkflowClient needs {APP!r} in the INSTALLED_APPS of the settings that are in force "
            "here. A script without a project gets it by itself: unset DJANGO_SETTINGS_MODULE."
        )


def add_alias(database_url: str) -> str:
    """Return the alias of a URL, always the same one for the same URL."""
    database = parse(database_url)
    alias = f"{APP}_{hashlib.sha256(database_url.encode()).hexdigest()[:12]}"
    if alias not in connections.settings:
        filled = connections.configure_settings({"default": {}, alias: database})
        connections.settings[alias] = filled[alias]
    return alias


def parse(database_url: str) -> dict[str, Any]:
    """Return the entry of DATABASES that a URL stands for."""
    url = urlsplit(database_url)
    scheme = url.scheme.partition("+")[0]
    options: dict[str, Any] = dict(parse_qsl(url.query))
    if scheme in ("postgres", "postgresql") and url.path.strip("/"):
        return _postgresql(url.netloc, unquote(url.path[1:]), options)
    if scheme == "sqlite" and not url.netloc and url.path.strip("/"):
        return _sqlite(unquote(url.path[1:]), options)
    raise ImproperlyConfigured(
        f"database_url is postgresql://user:password@host/name or sqlite:///path/to/file, not a "
        f"URL of {url.scheme or 'no scheme'!r}"
        + (" without a database's name." if scheme.startswith(("postgres", "sqlite")) else ".")
    )


def _postgresql(netloc: str, name: str, options: dict[str, Any]) -> dict[str, Any]:
    # Not by urlsplit().hostname, which puts a socket's directory into small letters.
    credentials, _, address = netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    host, colon, port = address.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = address, ""
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "USER": unquote(user),
        "PASSWORD": unquote(password),
        "HOST": unquote(host).strip("[]") or options.pop("host", ""),
        "PORT": port or options.pop("port", ""),
        "OPTIONS": options,
    }


def _sqlite(path: str, options: dict[str, Any]) -> dict[str, Any]:
    try:
        timeout = float(options.pop("timeout", 20))
    except ValueError:
        raise ImproperlyConfigured(
            "The timeout in database_url is a number of seconds, as in ?timeout=30."
        ) from None
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        "OPTIONS": {
            "timeout": timeout,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
            **options,
        },
    }
