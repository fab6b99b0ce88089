"""What a worker says at its start: what it runs, on which database, with how many connections."""

from __future__ import annotations

import django
from django.db import connections
from django.db.migrations.executor import MigrationExecutor

from durable_workflows.conf import settings
from durable_workflows.engine.process import process
from durable_workflows.worker.worker import Orders


def banner(orders: Orders) -> list[str]:
    here = process()
    connection = connections[here.using]
    queues = "all queues" if orders.queues is None else "queues " + ", ".join(orders.queues)
    return [
        f"durable_workflows worker · Django {django.get_version()} · {connection.display_name} "
        f"{_version(here.using)}, alias {here.using!r}",
        f"  runs {len(here.registry.names())} workflows from {queues}: "
        f"{orders.threads} threads for def, {orders.async_slots} slots for async def",
        f"  takes up to {orders.connections} connections{_of_most(here.using)}; "
        f"lease {settings().lease_seconds:g} s",
    ]


def problems(orders: Orders) -> list[str]:
    """Return a sentence for each thing that would keep this worker from its work."""
    here = process()
    found = []
    connection = connections[here.using]
    executor = MigrationExecutor(connection)
    targets = [key for key in executor.loader.graph.leaf_nodes() if key[0] == "durable_workflows"]
    if executor.migration_plan(targets):
        return [f"Migrations are missing: run migrate --database {here.using}."]
    if orders.queues is not None:
        declared = {queue.name for queue in here.registry.declared()}
        known = declared | set(here.store.queues())
        found += [
            f"Queue {name!r} is neither declared in code nor a row; known: "
            f"{', '.join(sorted(known)) or 'none'}."
            for name in orders.queues
            if name not in known
        ]
    if not here.registry.names():
        found.append("No workflow is registered. Put them into a module `workflows` of an app.")
    most = here.store.most_connections()
    if most is not None and orders.connections > most * 2 // 3:
        found.append(
            f"Up to {orders.connections} connections are more than two thirds of the server's "
            f"{most}: lower --threads, or raise max_connections."
        )
    return found


def _version(using: str) -> str:
    return process(using).store.version()


def _of_most(using: str) -> str:
    most = process(using).store.most_connections()
    return "" if most is None else f" of the server's {most}"
