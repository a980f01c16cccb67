"""Connections of a socket on which several processes may wait: each takes as many as the others.

The kernel wakes all, and whoever comes first would take all that wait, or, with a socket for each process
(SO_REUSEPORT), get what chance gives it. Clients that stay for thousands of requests then wait behind each other in a
process while another is idle.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from cosremaster.serve.metrics import Metrics

DEFERRAL = 0.001
"""Seconds for which a connection is left to processes that have fewer; then anybody takes it."""
SLACK = 8
"""A process may have more connections than another by a part of which this is the inverse: none waits for that."""
AT_ONCE = 16
"""Connections that are taken between two rounds of answers: new clients wait for few, and delay others for little."""
NO_DESCRIPTORS = 1.0
"""Seconds after which is tried again what failed for want of descriptors or memory."""


class FairAcceptor:
    """Takes connections of ``listener``, which others may wait on too, for protocols of ``make_protocol``."""

    def __init__(
        self, listener: socket.socket, make_protocol: Callable[[], asyncio.Protocol], metrics: Metrics
    ) -> None:
        """Keep the arguments."""
        self._listener, self._make_protocol, self._metrics = listener, make_protocol, metrics
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to take connections, on the loop that runs."""
        self._loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        self._metrics.is_accepting = 1
        self._loop.add_reader(self._listener, self._accept)

    def stop(self) -> None:
        """Take no more."""
        self._metrics.is_accepting = 0
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        """Take connections that wait, or leave them to a process that has fewer; the loop calls again for others."""
        for _ in range(AT_ONCE):
            fewest = self._metrics.fewest_elsewhere()
            if fewest is not None and fewest + fewest // SLACK < self._metrics.connections + len(self._tasks):
                self._pause(DEFERRAL, self._take)
                return
            if not self._take():
                return

    def _take(self) -> bool:
        """Take a connection, if any waits still; return whether it did."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # another process took it, or it is gone
            return False
        except OSError:
            self._pause(NO_DESCRIPTORS, lambda: None)
            return False
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # uvloop leaves that out here
        task = self._loop.create_task(self._connect(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _connect(self, connection: socket.socket) -> None:
        """Let a protocol talk on ``connection``."""
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, connection)
        except OSError:  # the client is gone
            connection.close()

    def _pause(self, seconds: float, action: Callable[[], object]) -> None:
        """Take none for so many ``seconds``, and go on with ``action`` then."""
        self._loop.remove_reader(self._listener)
        self._timer = self._loop.call_later(seconds, self._resume, action)

    def _resume(self, action: Callable[[], object]) -> None:
        """Go on with ``action``."""
        self._timer = None
        self._loop.add_reader(self._listener, self._accept)
        action()
