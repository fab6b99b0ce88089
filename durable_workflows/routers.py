"""A router that keeps this app's tables on the engine's alias, and leaves all others alone."""

from __future__ import annotations

from typing import Any

from durable_workflows.conf import settings

APP = "durable_workflows"


class EngineRouter:
    """For projects with several databases.

        DATABASE_ROUTERS = ["durable_workflows.routers.EngineRouter"]

    Put it first: a router that sends reads to a replica would give people an old view.
    """

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return settings().database if model._meta.app_label == APP else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return db == settings().database if app_label == APP else None
