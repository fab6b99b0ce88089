"""Hints that something may have changed. Nothing depends on one: every wait also polls.

`Ringer.ring(channel)` wakes this process's own listeners at once and, where the
database notifies, those of other processes: the first ring at once, what follows
joined into one at the end of a short silence. A notification never travels in a
writing transaction, where its commit would take a lock of the whole server.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence

from durable_workflows.store.base import Store

READY, DONE, CANCELLED = "dw_ready", "dw_done", "dw_cancelled"

# Seconds between two notifications of a channel. Fixed: a silence that grew while ring
# followed ring would slow down a caller who starts the next as soon as one has ended.
SILENCE = 0.002
# Who rings at shorter intervals is not waiting for an answer: the thread rings for him,
# and less often.
HOT = 0.003
HOT_SILENCE = 0.005
LINGER = 60.0  # an unused ringing connection is kept this long


class Listener:
    """Waits for rings. Close it by the thread that waits; anybody may interrupt().

    `store` is dedicated; where it notifies, its connection LISTENs on the channels,
    also after each reconnection, and stays free for statements between two waits.
    """

    def __init__(self, store: Store, channels: Sequence[str], *, notify: bool = True):
        self.store = store
        self._wake, self._waker = socket.socketpair()
        self._wake.setblocking(False)
        self._waker.setblocking(False)
        self.hears = notify and store.supports_notify
        if self.hears:
            self.hears = store.listen(channels)

    def wait(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds; return whether something rang or interrupted."""
        poll = select.poll()  # select() refuses descriptors from 1024
        poll.register(self._wake, select.POLLIN)
        if self.hears and (fileno := self.store.fileno()) is not None:
            if self.store.heard():
                return True
            poll.register(fileno, select.POLLIN)
        readable = {ready for ready, _ in poll.poll(max(0.0, timeout) * 1000)}
        if self._wake.fileno() in readable:
            self._drain()
        if readable - {self._wake.fileno()}:
            self.store.heard()
        return bool(readable)

    def interrupt(self) -> None:
        with contextlib.suppress(OSError):  # full: it will wake anyway; closed: nobody waits
            self._waker.send(b"!")

    def close(self) -> None:
        self.store.close()
        self._wake.close()
        self._waker.close()

    def _drain(self) -> None:
        try:
            while self._wake.recv(4096):
                pass
        except BlockingIOError:
            pass


class Ringer:
    """One per process and alias; renewed after fork."""

    def __init__(self, store: Store, *, notify: bool = True):
        self._source, self._notify = store, notify and store.supports_notify
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._condition = threading.Condition()
        self._local: dict[str, list[Callable[[], None]]] = {}
        self._quiet_until: dict[str, float] = {}
        self._rung_at: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._resting = False
        self._thread: threading.Thread | None = None

    def subscribe(self, channel: str, act: Callable[[], None]) -> None:
        """Call `act` in the ringing thread at each ring of this process."""
        self._local.setdefault(channel, []).append(act)

    def unsubscribe(self, channel: str, act: Callable[[], None]) -> None:
        self._local[channel].remove(act)

    def ring(self, channel: str, *, via: Store | None = None) -> None:
        """Ring here and elsewhere; `via` is a store that the caller has free, to notify at once."""
        for act in self._local.get(channel, ()):
            act()
        if not self._notify:
            return
        now = time.monotonic()
        with self._condition:
            quiet_until = self._quiet_until.get(channel, 0.0)
            hot = now - self._rung_at.get(channel, float("-inf")) < HOT
            self._rung_at[channel] = now
            if channel in self._due:
                return  # the thread will
            if now < quiet_until or hot or via is None:
                self._due[channel] = now + HOT_SILENCE if hot else max(now, quiet_until)
                self._start()
                return
            self._hush(channel, now)
        via.notify(channel)

    def rest(self) -> None:
        """Ring what is due and end the thread, instead of after a while; return once it has."""
        with self._condition:
            thread = self._thread
            if thread is None:
                return
            self._resting = True
            self._condition.notify()
        thread.join(1.0)

    def _hush(self, channel: str, now: float) -> None:
        self._quiet_until[channel] = now + SILENCE

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="durable-ringer", daemon=True)
            self._thread.start()
        else:
            self._condition.notify()

    def _serve(self) -> None:
        store = self._source.dedicated()
        try:
            while (channels := self._next()) is not None:
                for channel in channels:
                    store.notify(channel)
        finally:
            store.close()
            with self._condition:
                if self._thread is threading.current_thread():  # an error: the next ring renews it
                    self._thread = None
                    self._due.clear()

    def _next(self) -> list[str] | None:
        """Return the channels due now; None, and no thread any more, after a long silence."""
        with self._condition:
            idle_until = time.monotonic() + LINGER
            while True:
                now = time.monotonic()
                if due := [channel for channel, at in self._due.items() if at <= now]:
                    for channel in due:
                        del self._due[channel]
                        self._hush(channel, now)
                    return due
                if not self._due and (self._resting or now >= idle_until):
                    self._resting = False
                    self._thread = None
                    return None
                self._condition.wait(min(self._due.values(), default=idle_until) - now)
