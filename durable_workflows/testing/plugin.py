"""Fixtures for pytest, loaded by its entry point."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from durable_workflows.testing.clock import ManualClock

# Imported late: the plugin is loaded in every pytest run, also where Django is not set up.


@pytest.fixture
def manual_clock(db: None) -> Iterator[ManualClock]:
    """A clock that stands still until `advance()`, and that skips what workflows sleep."""
    from durable_workflows.testing.clock import manual_clock

    with manual_clock() as clock:
        yield clock


@pytest.fixture
def run_until_idle(db: None) -> Callable[..., int]:
    """Runs every workflow that is ready until none is left; see durable_workflows.testing."""
    from durable_workflows.testing.drain import run_until_idle

    return run_until_idle


@pytest.fixture
def arun_until_idle(db: None) -> Callable[..., object]:
    """See run_until_idle."""
    from durable_workflows.testing.drain import arun_until_idle

    return arun_until_idle
