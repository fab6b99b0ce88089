"""The project's settings.DURABLE_WORKFLOWS, with defaults, units and validation.

One dict; keys are in capitals and carry their unit. `settings()` returns the
frozen result and is computed again when the setting changes (tests override it).
"""

from __future__ import annotations

import difflib
import math
import sys
from dataclasses import dataclass, fields
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

NAME = "DURABLE_WORKFLOWS"


@dataclass(frozen=True, slots=True)
class Settings:
    database: str = "default"  # the engine's alias in DATABASES
    lease_seconds: float = 30.0
    payload_max_bytes: int = 1_048_576
    suspend_after_seconds: float = 1.0  # shorter waits stay in memory
    max_recovery_attempts: int | None = 100
    app_version: str = ""
    notify: bool = True  # LISTEN/NOTIFY where the database has it
    poll_seconds: float = 1.0  # an idle worker looks at least this often
    threads: int = 32
    async_slots: int = 500

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(field.name.upper(), getattr(self, field.name), str(field.type))
        for name in ("lease_seconds", "payload_max_bytes", "poll_seconds"):
            if getattr(self, name) <= 0:
                raise ImproperlyConfigured(f"{NAME}[{name.upper()!r}] must be above zero.")
        for name in ("suspend_after_seconds", "max_recovery_attempts", "threads", "async_slots"):
            if (getattr(self, name) or 0) < 0:
                raise ImproperlyConfigured(f"{NAME}[{name.upper()!r}] can't be negative.")

    @property
    def beat_seconds(self) -> float:
        """How often a worker renews its lease: a sixth of it, at least every 5 s."""
        return min(self.lease_seconds / 6, 5.0)


# What a value of each declared type may be.
TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "int | None": (int, type(None)),
}


def _check_type(key: str, value: object, declared: str) -> None:
    right = isinstance(value, TYPES[declared]) and (declared == "bool" or type(value) is not bool)
    if not right or (isinstance(value, float) and not math.isfinite(value)):
        raise ImproperlyConfigured(
            f"{NAME}[{key!r}] is {value!r}; it has to be of type {declared}."
        )


KEYS = {field.name.upper(): field.name for field in fields(Settings)}

_current: Settings | None = None


def settings() -> Settings:
    """Return the checked settings; raise ImproperlyConfigured for a key or value that can't be."""
    global _current
    if _current is None:
        given: dict[str, Any] = getattr(django_settings, NAME, {})
        if not isinstance(given, dict):
            raise ImproperlyConfigured(f"{NAME} is a dict, not {type(given).__name__}.")
        if unknown := unknown_keys(given):
            raise ImproperlyConfigured(" ".join(unknown))
        _current = Settings(**{KEYS[key]: value for key, value in given.items()})
    return _current


def under_test() -> bool:
    """Return whether Django's test runner, or pytest-django, has set this process up.

    A test's database is dropped as soon as the tests have run: no connection of ours may
    linger then.
    """
    utils = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")


def unknown_keys(given: dict[str, Any]) -> list[str]:
    """Return a sentence for each key that is no setting, with the nearest one that is."""
    sentences = []
    for key in given:
        if key in KEYS:
            continue
        near = difflib.get_close_matches(str(key).upper(), KEYS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(KEYS)}."
        sentences.append(f"{NAME} has no key {key!r}.{hint}")
    return sentences


def _forget(*, setting: str, **_: Any) -> None:
    global _current
    if setting == NAME:
        _current = None


setting_changed.connect(_forget)
