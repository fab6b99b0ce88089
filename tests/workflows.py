"""The suite's sample workflows, found by autodiscovery: each folder keeps its own in a module."""

from tests.crash import workflows as crash
from tests.faces import ground

__all__ = ["crash", "ground"]
