"""The only room with SQL. `get_store(using)` gives the store of an alias."""

from __future__ import annotations

from functools import cache

from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from durable_workflows.store.base import Answer, Store

__all__ = ["Answer", "Store", "get_store"]


@cache
def get_store(using: str) -> Store:
    """Return the store on the calling thread's connection to `using`."""
    from durable_workflows.models import Queue, Step, Worker, Workflow

    tables = {
        model.__name__.lower(): connections[using].ops.quote_name(model._meta.db_table)
        for model in (Queue, Step, Worker, Workflow)
    }
    vendor = connections[using].vendor
    if vendor == "postgresql":
        from durable_workflows.store.postgresql import PostgreSQLStore

        return PostgreSQLStore.on(using, **tables)
    if vendor == "sqlite":
        from durable_workflows.store.sqlite import SQLiteStore

        return SQLiteStore.on(using, **tables)
    raise ImproperlyConfigured(
        f"durable_workflows runs on PostgreSQL and SQLite; the alias {using!r} is {vendor}. "
        'Name another alias in DURABLE_WORKFLOWS["DATABASE"].'
    )
