"""Whether notifications arrive on a database: asked by trying it."""

from __future__ import annotations

import uuid

from durable_workflows.engine.process import Process
from durable_workflows.store.wakeup import Listener

PATIENCE = 2.0  # seconds; a notification takes about a millisecond


def notifications_arrive(process: Process) -> bool | None:
    """Ring a channel of its own and listen; None where the database has no notifications."""
    if not process.store.supports_notify:
        return None
    channel = f"dw_probe_{uuid.uuid4().hex}"
    listener = Listener(process.store.dedicated(), [channel])
    caller = process.store.dedicated()
    try:
        if not listener.hears:
            return False
        caller.notify(channel)
        return listener.wait(PATIENCE)
    finally:
        caller.close()
        listener.close()
