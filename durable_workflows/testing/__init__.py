"""For tests of workflows: drain them in the test's own transaction, skip time, need no worker.

    from durable_workflows.testing import run_until_idle

    class FulfilTests(TestCase):
        def test_an_order_ships(self):
            handle = orders.enqueue(fulfil, self.order.pk)
            run_until_idle()
            self.assertEqual(handle.get_result(), "shipped")

pytest gets the fixtures `run_until_idle`, `arun_until_idle` and `manual_clock` by itself.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durable_workflows.testing.clock import ManualClock, manual_clock
    from durable_workflows.testing.drain import arun_until_idle, run_until_idle
    from durable_workflows.testing.memory import MemoryStore

# Imported when asked for: pytest loads this package's plugin also where there is no Django.
_HOMES = {
    "ManualClock": "clock",
    "MemoryStore": "memory",
    "arun_until_idle": "drain",
    "manual_clock": "clock",
    "run_until_idle": "drain",
}

__all__ = ["ManualClock", "MemoryStore", "arun_until_idle", "manual_clock", "run_until_idle"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
