"""The application on uvicorn: limits for slow and hostile clients, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeAlias

from cosremaster.errors import UnsupportedError
from cosremaster.records.tuples import NamedTuple
from cosremaster.serve.app import ServeApp
from cosremaster.serve.clients import Clients
from cosremaster.serve.exchange import Reply
from cosremaster.serve.fair_accept import FairAcceptor
from cosremaster.serve.heads import HeadWriter, read_plain_head
from cosremaster.serve.listen import BACKLOG, ServerLimits, find_client
from cosremaster.serve.metrics import Metrics
from cosremaster.serve.ranges import Fields

try:
    import uvicorn
    from uvicorn.protocols.http.auto import AutoHTTPProtocol
except ImportError as error:
    raise UnsupportedError("serve needs a web server: pip install 'cosremaster[serve]'") from error

AnswerAtOnce: TypeAlias = Callable[[str, str, Fields, str], "Reply | None"]

IDLE_TIMEOUT = 30
"""Seconds for which a connection stays open between two requests."""
LONGEST_HEAD = 16 << 10
"""Bytes of a head at most, and of a body that nobody wants. Each short field takes some 30 times its bytes."""
MOST_WAITING = 64
"""Requests that wait on a connection for the answer to an earlier one."""

TURN = 0.0001
"""Seconds for which a thread that plans keeps the interpreter from answers, each of which has to get it several times.

With Python's 0.005, 64 clients wait 0.9 s at worst beside a thread that computes; so 0.06 s (each p99).
"""

_SHORT = 2048
"""Bytes of a write that may wait for the next: a head has less."""


class SharedListener(NamedTuple):
    """A socket on which several server processes wait.

    ``client_key``: by which they all count clients; ``on_ready`` is called when connections are taken.
    """

    socket: socket.socket
    client_key: bytes
    on_ready: Callable[[], object]


def make_server(app: ServeApp, limits: ServerLimits, shared: SharedListener | None = None) -> uvicorn.Server:
    """Return a server for ``app``, whose ``run`` ends at SIGTERM or SIGINT; answers in progress get time to end.

    With ``shared`` it takes its part of the connections there, and ``run`` wants no sockets.
    """
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # the access log says it, a line each
    protocol = _bounded_protocol(app, limits, b"" if shared is None else shared.client_key)
    config = uvicorn.Config(
        app, http=protocol, ws="none", lifespan="on", log_config=None, access_log=False,
        server_header=False, timeout_keep_alive=IDLE_TIMEOUT, timeout_graceful_shutdown=limits.grace,
        backlog=BACKLOG, proxy_headers=False,
    )  # fmt: skip
    return _QuietServer(config, app.metrics, shared)


class _QuietServer(uvicorn.Server):
    """A server for which SIGTERM is an orderly end: it is not raised again behind it. Other threads get short turns.

    It takes connections itself where it is one of several servers on a socket, and on uvloop, which would take one
    between two rounds of answers: at a busy server the last of many new clients waits for as many rounds.
    """

    def __init__(self, config: uvicorn.Config, metrics: Metrics, shared: SharedListener | None) -> None:
        """Keep the arguments."""
        super().__init__(config)
        self._metrics, self._shared = metrics, shared
        self._acceptors: list[FairAcceptor] = []

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal ends it."""
        before = sys.getswitchinterval()
        sys.setswitchinterval(TURN)
        gc.freeze()  # what is there already: so the collector, for which answers wait, takes a tenth of the time
        try:
            super().run(sockets)
        finally:
            gc.unfreeze()
            sys.setswitchinterval(before)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let signals end the server while the context lasts; a second SIGINT ends it at once."""
        if threading.current_thread() is not threading.main_thread():  # the only one that gets signals
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections."""
        loop = asyncio.get_running_loop()
        if self._shared is not None:
            sockets = [self._shared.socket]
        elif sockets is None or not _is_of_uvloop(loop):
            await super().startup(sockets)
            return
        await super().startup([])
        protocol: Any = self.config.http_protocol_class

        def make_protocol() -> asyncio.Protocol:
            """Return the protocol of a new connection."""
            made: asyncio.Protocol = protocol(
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop
            )
            return made

        self._acceptors = [FairAcceptor(listener, make_protocol, self._metrics) for listener in sockets]
        for acceptor in self._acceptors:
            acceptor.start()
        if self._shared is not None:
            self._shared.on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and give answers in progress time to end."""
        for acceptor in self._acceptors:
            acceptor.stop()
        await super().shutdown([] if self._acceptors else sockets)


def _is_of_uvloop(thing: object) -> bool:
    """Return whether the loop or transport ``thing`` is uvloop's."""
    return type(thing).__module__.partition(".")[0] == "uvloop"


class _Connections:
    """The connections of a server, and their limits.

    ``answer_at_once``: :meth:`ServeApp.answer_at_once`, None for an application that has none.
    """

    def __init__(self, clients: Clients, metrics: Metrics, limits: ServerLimits, answer_at_once: AnswerAtOnce | None):
        """Keep the arguments."""
        self.clients, self.metrics, self.limits, self.answer_at_once = clients, metrics, limits, answer_at_once
        self.heads = HeadWriter()


def _bounded_protocol(app: ServeApp, limits: ServerLimits, key: bytes) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol for ``app`` with the limits ``limits``, which it lacks; ``key``: that of clients."""
    clients = Clients(app.metrics, limits, key)
    connections = _Connections(clients, app.metrics, limits, getattr(app, "answer_at_once", None))
    return type("BoundedProtocol", (_BoundedProtocol,), {"all_connections": connections})


class JoiningTransport:
    """A transport that sends a short write together with the next: a head with its body, in one segment.

    What no other write follows leaves with the next turn of the ``loop``.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        """Write to ``transport``."""
        self._transport, self._loop = transport, loop
        self._head = b""
        self._takes_parts = _is_of_uvloop(transport)  # asyncio joins them, or forgets to pause

    def __getattr__(self, name: str) -> Any:
        """Return the attribute ``name`` of the transport, for all that is not about writing."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write ``data``; if it is short, a little later."""
        if not self._head and len(data) < _SHORT:
            self._head = data
            self._loop.call_soon(self._flush)
            return
        head, self._head = self._head, b""
        self._transport.write(head + data if head else data)

    def write_answer(self, head: bytes, body: bytes) -> None:
        """Write a whole answer, behind what waits."""
        if self._head:
            self._flush()
        if self._takes_parts:
            self._transport.writelines((head, body))
        else:
            self._transport.write(head + body)

    def close(self) -> None:
        """Write what waits, and close."""
        self._flush()
        self._transport.close()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait."""
        return self._transport.get_write_buffer_size() + len(self._head)

    def _flush(self) -> None:
        """Write what waits."""
        head, self._head = self._head, b""
        if head and not self._transport.is_closing():
            self._transport.write(head)


_Protocol: Any = AutoHTTPProtocol


class _BoundedProtocol(_Protocol):  # type: ignore[misc]
    """A connection that is closed when it is one too many, or its client is too slow.

    A plain request whose answer is at hand is answered here; for each other one uvicorn calls the application.
    """

    all_connections: ClassVar[_Connections]
    _address = ""
    _is_between = hasattr(_Protocol, "on_message_begin")
    """Whether the parser has seen no byte of a request that is not complete; never where it does not say so (h11)."""
    _answered = 0.0
    """When the last request was answered here, on the loop's clock."""
    _unfinished = 0
    """Bytes that came since the head of a request was complete."""
    _is_ended = False
    """Whether the client sends nothing more, and waits for answers."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin, unless there are too many connections."""
        super().connection_made(JoiningTransport(transport, self.loop))
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._address = find_client((transport.get_extra_info("peername") or ("",))[0])
        if self.all_connections.clients.add(self._address):
            self._wait_for_head()
        else:
            self._is_between = False
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._unset_keepalive_if_required()
        self._stop_timer("head")
        self._stop_timer("stall")
        self.all_connections.clients.remove(self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take ``data``; a head that is not complete has to be so in time, and within bounds."""
        if self._is_between and self._answer_at_once(data):
            return
        for start in range(0, len(data), LONGEST_HEAD):
            part, before = data[start : start + LONGEST_HEAD], self.cycle
            super().data_received(part)
            if self.transport.is_closing():
                return
            self._unfinished = self._unfinished + len(part) if self.cycle is before else 0
            if self._unfinished > LONGEST_HEAD or len(getattr(self, "pipeline", ())) > MOST_WAITING:
                self._cut()
                return
        if self.cycle is not None and not self.cycle.response_complete:
            self._end_waiting()
        elif "head" not in self._timers:
            self._wait_for_head()

    def eof_received(self) -> bool:
        """Return whether the connection stays: a client that sends nothing more may wait for answers."""
        self._is_ended = self.cycle is not None and not self.cycle.response_complete
        return self._is_ended

    def on_response_complete(self) -> None:
        """Go on with the next request; close the connection where none can come."""
        super().on_response_complete()
        if self._is_ended and self.cycle.response_complete:
            self.transport.close()

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._is_between = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """End a request, with its body."""
        self._is_between = True
        super().on_message_complete()

    def _answer_at_once(self, data: bytes) -> bool:
        """Answer the request that ``data`` are, all of it; return False, and do nothing, where that cannot be.

        No other may wait for its answer, and no answer for its client.
        """
        connections, cycle = self.all_connections, self.cycle
        is_busy = self.flow.write_paused or (cycle is not None and not cycle.response_complete)
        if is_busy or connections.answer_at_once is None:
            return False
        head = read_plain_head(data)
        if head is None:
            return False
        reply = connections.answer_at_once(head.method, head.path, head.fields, self.client[0] if self.client else "")
        if reply is None:
            return False
        if self._timers:
            self._end_waiting()
        self.transport.write_answer(connections.heads.write(reply, self.server_state.default_headers), reply.body)
        self.server_state.total_requests += 1
        self._answered = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._wait_for_request(self.timeout_keep_alive)
        return True

    def pause_writing(self) -> None:
        """Wait for the client to take what was written."""
        super().pause_writing()
        self._start_timer("stall", self.all_connections.limits.stall_timeout, self._cut)

    def resume_writing(self) -> None:
        """Go on: the client took enough."""
        super().resume_writing()
        self._stop_timer("stall")

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; where the last answer is not taken yet, give it its time."""
        self.timeout_keep_alive_task = None
        rest = self._answered + self.timeout_keep_alive - self.loop.time()
        if rest > 0:
            self._wait_for_request(rest)
        elif self.transport.get_write_buffer_size():
            self._start_timer("stall", self.all_connections.limits.stall_timeout, self._cut)
        else:
            super().timeout_keep_alive_handler()

    def _wait_for_request(self, seconds: float) -> None:
        """Look after so many ``seconds`` whether the connection is idle. A timer for each request would be dear."""
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _wait_for_head(self) -> None:
        """Close the connection if no request comes in time."""
        self._start_timer("head", self.all_connections.limits.head_timeout, self.transport.abort)

    def _end_waiting(self) -> None:
        """Go on with a request: its head came, and the client took most of the answer before it if it had to."""
        self._stop_timer("head")
        if not self.flow.write_paused:
            self._stop_timer("stall")

    def _cut(self) -> None:
        """Cut the connection of a client that takes nothing, or sends too much."""
        self.all_connections.metrics.cut += 1
        self.transport.abort()

    def _start_timer(self, name: str, seconds: float, action: Callable[[], object]) -> None:
        """Call ``action`` in so many ``seconds``, in the place of what was to be called under this name."""
        self._stop_timer(name)
        self._timers[name] = self.loop.call_later(seconds, action)

    def _stop_timer(self, name: str) -> None:
        """Call nothing under this name."""
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
