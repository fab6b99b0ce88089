"""Function ⇄ name. What a row names is looked up here and nowhere else.

A workflow's name is `<app label>.<qualname>` unless it was given one. The label is
known once Django's apps are ready, so names are worked out at the first look-up.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from durable_workflows.core.names import check_name
from durable_workflows.core.records import QueueView
from durable_workflows.errors import NotRegistered, RegistrationClash


@dataclass(eq=False, slots=True)
class WorkflowSpec:
    """A registered workflow function and its options."""

    function: Callable[..., Any]
    given_name: str | None = None
    aliases: tuple[str, ...] = ()
    max_recovery_attempts: int | None = 100
    registry: Registry | None = None
    resolved: str | None = None
    clash: RegistrationClash | None = None  # why it has no name
    is_async: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_async = inspect.iscoroutinefunction(self.function)

    @property
    def name(self) -> str:
        if self.resolved is None:
            assert self.registry is not None
            self.registry.resolve()
        if self.clash is not None:
            raise self.clash
        assert self.resolved is not None
        return self.resolved

    @property
    def place(self) -> tuple[str, str]:
        """What makes a second definition the same one: its file and qualified name."""
        code = inspect.unwrap(self.function).__code__
        return code.co_filename, self.function.__qualname__

    @property
    def is_main(self) -> bool:
        return self.function.__module__ == "__main__"


def module_label(module: str) -> str:
    return module


class Registry:
    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._fresh: list[WorkflowSpec] = []
        self._specs: dict[str, WorkflowSpec] = {}
        self._queues: dict[str, QueueView] = {}
        self.version = 0  # grows with every change; claimers compare it
        self.labeller: Callable[[str], str] = module_label

    # -- workflows ---------------------------------------------------------

    def add(self, spec: WorkflowSpec) -> None:
        if spec.given_name is not None:
            check_name(spec.given_name, "A workflow name")
        for alias in spec.aliases:
            check_name(alias, "An alias")
        spec.registry = self
        with self._lock:
            self._fresh.append(spec)
            self.version += 1
        if spec.given_name is not None:
            self.resolve()  # a clash of given names is an error at import

    def get(self, name: str) -> WorkflowSpec | None:
        """Return the workflow registered under a name or alias."""
        if self._fresh:
            self.resolve()
        return self._specs.get(name)

    def named(self, name: str) -> WorkflowSpec:
        spec = self.get(name)
        if spec is None:
            raise NotRegistered(
                f"No workflow named {name!r} is registered in this process. Is its module "
                "imported? A module `workflows` of an installed app is found by itself."
            )
        return spec

    def names(self, *, is_async: bool | None = None) -> list[str]:
        """Return every name and alias of one colour; None for both."""
        self.resolve()
        with self._lock:
            return [
                name
                for name, spec in self._specs.items()
                if is_async is None or spec.is_async is is_async
            ]

    def limits(self) -> dict[str, int | None]:
        """Return the recoveries granted by name."""
        self.resolve()
        with self._lock:
            return {name: spec.max_recovery_attempts for name, spec in self._specs.items()}

    def resolve(self) -> None:
        """Enter what was added; raise RegistrationClash once for a name that is taken."""
        clash = None
        with self._lock:
            for spec in self._fresh:
                label = self.labeller(spec.function.__module__)
                name = spec.given_name or f"{label}.{spec.function.__qualname__}"
                try:
                    self._enter(name, spec)
                except RegistrationClash as error:
                    # The others are registered all the same; whoever uses this one is told again.
                    clash = spec.clash = error
                else:
                    spec.resolved = name
            # Only now: who meets an empty list finds everything entered.
            self._fresh.clear()
        if clash is not None:
            raise clash

    def _enter(self, name: str, spec: WorkflowSpec) -> None:
        names = (name, *spec.aliases)
        for one in names:
            there = self._specs.get(one)
            if there is not None and there.place != spec.place:
                raise RegistrationClash(one, ":".join(there.place), ":".join(spec.place))
        self._specs.update(dict.fromkeys(names, spec))

    # -- queues ------------------------------------------------------------

    def declare(self, queue: QueueView) -> None:
        with self._lock:
            if self._queues.get(queue.name) != queue:
                self._queues[queue.name] = queue
                self.version += 1

    def declared(self) -> list[QueueView]:
        with self._lock:
            return list(self._queues.values())


registry = Registry()
