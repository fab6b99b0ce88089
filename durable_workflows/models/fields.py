"""Columns whose meaning must not depend on the project's settings."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db import models
from django.utils import timezone


class InstantField(models.DateTimeField):
    """A point in time, stored in UTC whatever USE_TZ and TIME_ZONE say.

    The engine compares these columns in SQL, where SQLite has only text: one zone
    keeps the text in order. Values read are aware where USE_TZ is on, else naive in
    the project's zone, as Django's own.
    """

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        if not prepared:
            value = self.get_prep_value(value)
        if not isinstance(value, datetime):
            return value  # None, or an expression
        aware = value if timezone.is_aware(value) else timezone.make_aware(value)
        if connection.features.supports_timezones:
            return aware
        return aware.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")

    def get_db_converters(self, connection: Any) -> list[Any]:
        return [self.from_stored]

    @staticmethod
    def from_stored(value: Any, expression: Any, connection: Any) -> datetime | None:
        if value is None:
            return None
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if not connection.features.supports_timezones:
            # The text is UTC, whatever zone the backend has just read it in.
            moment = moment.replace(tzinfo=UTC)
        return moment if _use_tz() or timezone.is_naive(moment) else timezone.make_naive(moment)


def _use_tz() -> bool:
    from django.conf import settings

    return bool(settings.USE_TZ)
