"""Answers at once from the connection, and those through uvicorn and the application: they are the same bytes."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import random
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest

from cosremaster.serve import sites as site_images
from cosremaster.serve.access_log import AccessLog
from cosremaster.serve.app import CHUNK, Scope, Send, ServeApp
from cosremaster.serve.catalogs import RecipeCatalog
from cosremaster.serve.exchange import Reply
from cosremaster.serve.listen import Address, ServerLimits, open_socket
from cosremaster.serve.metrics import Metrics
from cosremaster.serve.ranges import Fields
from cosremaster.serve.sites import SiteImages
from cosremaster.serve.tokens import Tokens
from tests.fixtures.tools import require_module
from tests.support.http_heads import make_head, make_requests
from tests.support.serving import write_recipes
from tests.support.small import write_small

TOKEN = "0123456789abcdef"
ANSWERED = 40
"""Turns of the loop behind the answer to what came before."""
DATE = b"Sun, 29 Nov 2026 12:00:00 GMT"


class Ordinary:
    """An application that is answered by its call alone, as any of ASGI."""

    def __init__(self, app: ServeApp) -> None:
        self.metrics, self._app = app.metrics, app

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """Answers."""
        await self._app(scope, receive, send)


class Way:
    """A server, an application of its own for sites that others share, and what it logs."""

    def __init__(self, images: SiteImages, tokens: str, *, is_ordinary: bool) -> None:
        from cosremaster.serve.server import make_server  # noqa: PLC0415 - it may be missing

        self.lines: list[str] = []
        self.log = AccessLog(self.lines.append)
        self.app = ServeApp(images, self.log, Tokens(tokens.splitlines()))
        self.app.metrics = Metrics()
        self.at_once = 0
        answer_at_once = self.app.answer_at_once

        def count(method: str, path: str, fields: Fields, client: str) -> Reply | None:
            reply = answer_at_once(method, path, fields, client)
            self.at_once += reply is not None
            return reply

        self.app.answer_at_once = count  # type: ignore[method-assign]
        self.server = make_server(Ordinary(self.app) if is_ordinary else self.app, ServerLimits())  # type: ignore[arg-type]
        self.server.config.load()
        self.server.server_state.default_headers = [(b"date", DATE)]

    def connect(self) -> tuple[Written, Any]:
        """A connection without a network: its transport, and its protocol."""
        transport = Written()
        protocol = self.server.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.server.config, server_state=self.server.server_state, app_state={},
            _loop=asyncio.get_running_loop(),
        )  # fmt: skip
        transport.protocol = protocol
        protocol.connection_made(transport)
        return transport, protocol

    async def answer(self, parts: Sequence[bytes], turns: int) -> bytes:
        """What comes for the ``parts`` of a connection's bytes, with so many turns of the loop between them."""
        transport, protocol = self.connect()
        for part in parts:
            if not transport.is_closing():
                protocol.data_received(part)
            if turns == ANSWERED:
                await settle(protocol, transport)
            for _ in range(turns):
                await asyncio.sleep(0)
        await settle(protocol, transport)
        for _ in range(3):
            await asyncio.sleep(0)
        if not transport.is_lost:
            protocol.connection_lost(None)
        while self.server.server_state.tasks:
            await asyncio.sleep(0)
        return b"".join(transport.writes)

    def end(self) -> list[dict[str, object]]:
        """Ends, and returns the log without times; lines of answers in advance may change places."""
        self.app.close()
        self.log.close()
        lines = [json.loads(line) for line in "".join(self.lines).splitlines()]
        bare = [{name: value for name, value in line.items() if name not in ("time", "seconds")} for line in lines]
        return sorted(bare, key=repr)


async def settle(protocol: Any, transport: asyncio.Transport) -> None:
    """Waits until all is answered that came."""
    while not transport.is_closing() and protocol.cycle is not None and not protocol.cycle.response_complete:
        if protocol.cycle.more_body and not protocol.cycle.response_started:
            break  # it waits for more of a request
        await asyncio.sleep(0)


class Written(asyncio.Transport):
    """Keeps what is written, and says when it is closed."""

    protocol: asyncio.Protocol
    is_lost = _is_closing = False
    waiting = 0

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keeps it."""
        if not self._is_closing:
            self.writes.append(bytes(data))

    def close(self) -> None:
        """Writes no more."""
        if not self._is_closing:
            self._is_closing = True
            self.writes.append(b"<closed>")
            asyncio.get_running_loop().call_soon(self._lose)

    abort = close

    def _lose(self) -> None:
        self.is_lost = True
        self.protocol.connection_lost(None)

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        """What waits."""
        return self.waiting

    def pause_reading(self) -> None:
        """Gets all the same."""

    def resume_reading(self) -> None:
        """Gets all the same."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The addresses."""
        return {"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 80)}.get(name, default)


class Ways:
    """Both ways."""

    def __init__(self, images: SiteImages, tokens: str) -> None:
        self.quick, self.ordinary = (Way(images, tokens, is_ordinary=each) for each in (False, True))

    async def compare(self, parts: Sequence[bytes], turns: int = 20) -> bytes:
        """Returns what comes."""
        answers = [await way.answer(parts, turns) for way in (self.quick, self.ordinary)]
        assert answers[0] == answers[1], parts
        return answers[0]

    def end(self) -> list[dict[str, object]]:
        """Ends, and returns the log."""
        logs = [way.end() for way in (self.quick, self.ordinary)]
        metrics = [way.app.metrics for way in (self.quick, self.ordinary)]
        assert logs[0] == logs[1]
        assert vars(metrics[0]) == vars(metrics[1])
        assert self.ordinary.at_once == 0
        return logs[0]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteImages]:
    require_module("uvicorn")
    require_module("httptools")
    folder = tmp_path_factory.mktemp("ways")
    recipes = write_recipes(folder, write_small(folder, extra={"pad": bytes(range(256)) * 4000}), 2)
    images = SiteImages(RecipeCatalog(recipes), 10)
    yield images
    images.close()


@pytest.fixture(params=["", f"{TOKEN}\n"], ids=["open", "tokens"])
def ways(images: SiteImages, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Ways:
    monkeypatch.setattr(site_images, "CHECK_INTERVAL", 3600)
    for name in ("site-0", "site-1"):
        images.find_site(name)
        images.check_site(name)
    return Ways(images, request.param)


def requests_for(images: SiteImages) -> list[bytes]:
    """Those for the first site as it is."""
    site = images.known_site("site-0")
    assert site is not None
    fields = dict(site.image.representation._asdict())
    answer = asyncio.run(Ways(images, "").quick.answer([make_head("HEAD /site-0.iso HTTP/1.1", "Host: a")], 1))
    modified = next(line[15:] for line in answer.decode().split("\r\n") if line.startswith("last-modified"))
    return make_requests(str(fields["etag"]), modified, int(fields["size"]), CHUNK, TOKEN)


def test_requests_of_all_kinds(ways: Ways, images: SiteImages) -> None:
    requests = requests_for(images)

    async def ask() -> None:
        for request in requests:
            await ways.compare([request])

    asyncio.run(ask())
    assert ways.quick.at_once > 50
    assert len(ways.end()) > 150


USUAL, HEAD, LONG, MISSING = (
    make_head(line, "Host: a", "Range: bytes=100-70000")
    for line in (
        "GET /site-0.iso HTTP/1.1",
        "HEAD /site-1.iso HTTP/1.1",
        "GET /site-1.iso HTTP/1.1",
        "GET /gone HTTP/1.1",
    )
)
CLOSING = make_head("GET /site-0.iso HTTP/1.1", "Host: a", "Connection: close")
OLD = make_head("GET /site-0.iso HTTP/1.0", "Range: bytes=0-9")
POSTED = make_head("GET /site-0.iso HTTP/1.1", "Host: a", "Range: bytes=5-9", "Content-Length: 4", "", "GET ")[:-4]
WHOLE = make_head("GET /site-0.iso HTTP/1.1", "Host: a")
UPGRADE = make_head("GET /site-0.iso HTTP/1.1", "Host: a", "Connection: upgrade", "Upgrade: x", "Range: bytes=5-9")
HOSTLESS = make_head("GET /site-0.iso HTTP/1.1", "Range: bytes=5-9")
SEVERAL = (USUAL, HEAD, LONG, MISSING, CLOSING, OLD, POSTED, WHOLE, UPGRADE, HOSTLESS)


def test_several_requests_on_a_connection(ways: Ways) -> None:
    """Behind each other, in advance, in a write and in several, and while an answer waits to leave."""

    async def ask() -> None:
        for chosen in itertools.product(SEVERAL, repeat=2):
            for turns in (0, 1, 2, 20):
                await ways.compare([*chosen, USUAL], turns)
            await ways.compare([b"".join((*chosen, USUAL))])
            await ways.compare([chosen[0], chosen[1] + USUAL], 1)

    asyncio.run(ask())
    assert ways.quick.at_once > 200
    ways.end()


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize(
    ("version", "fields", "status"),
    [
        ("1.1", [], 400),
        ("1.1", ["Host: a", "Host: a"], 400),
        ("1.1", ["Host: a b"], 400),
        ("1.1", ["Host: a/b"], 400),
        ("1.1", ["Host: user@a"], 400),
        ("1.1", ["Host: a:b"], 400),
        ("1.1", ["Host: [::1"], 400),
        ("1.1", [b"Host: \xff"], 400),
        ("1.1", ["Host:"], 206),
        ("1.1", ["Host: a.example:8080"], 206),
        ("1.1", ["Host: [fe80::1%25eth0]:80"], 206),
        ("1.1", ["Host: [::1]"], 206),
        ("1.0", [], 206),
        ("1.0", ["Host: a"], 206),
        ("1.0", ["Host: a", "Host: b"], 400),
    ],
)
def test_a_request_names_its_host(
    ways: Ways, method: str, version: str, fields: list[str | bytes], status: int
) -> None:
    """RFC 9112, 3.2. Tokens are not looked at before."""
    authorization = f"Authorization: Bearer {TOKEN}"
    head = make_head(f"{method} /site-0.iso HTTP/{version}", *fields, "Range: bytes=0-9", authorization)
    answer = asyncio.run(ways.compare([head]))
    by_method = {"GET": 206, "HEAD": 200, "POST": 405}
    expected = status if status == 400 else by_method[method]
    assert answer.startswith(b"HTTP/1.1 %d " % expected), answer
    if status == 400:
        assert b"\r\nconnection: close\r\n" in answer and answer.endswith(b"<closed>")
        assert (b"Host field" in answer) == (method != "HEAD")
    ways.end()


def test_a_request_in_pieces(ways: Ways) -> None:
    """Cut at each byte; what follows the cut-off head is read at the right place."""

    async def ask() -> None:
        for request in (USUAL, HEAD, OLD, POSTED, CLOSING):
            for at in range(1, len(request)):
                await ways.compare([request[:at], request[at:], USUAL], at % 3)
                await ways.compare([USUAL + request[:at], request[at:] + USUAL], at % 2)
            await ways.compare([bytes([byte]) for byte in request] + [USUAL], 0)

    asyncio.run(ask())
    assert ways.quick.at_once > 100
    ways.end()


def test_requests_by_chance(ways: Ways, images: SiteImages) -> None:
    """What is left of requests when bytes in them change, cut by chance.

    Each part has its answer before the next comes: uvicorn's refusal of a malformed request overtakes answers.
    """
    chance = random.Random(20)
    requests = requests_for(images)

    async def ask() -> None:
        for _ in range(400):
            data = bytearray(b"".join(chance.choices(requests, k=chance.randrange(1, 4))))
            for _ in range(chance.randrange(3)):
                data[chance.randrange(len(data))] = chance.choice(b"\r\n :-,=/aZ09\t\0\xff")
            cuts = sorted(chance.randrange(len(data)) for _ in range(chance.randrange(3)))
            parts = [bytes(data[start:end]) for start, end in itertools.pairwise([0, *cuts, len(data)]) if end > start]
            await ways.compare([*parts, USUAL], ANSWERED)

    asyncio.run(ask())
    ways.end()


@pytest.mark.parametrize("is_ordinary", [False, True])
def test_a_client_that_goes_on_is_not_cut(ways: Ways, is_ordinary: bool) -> None:
    """Though it was slow with the end of an answer, and idle meanwhile."""
    way = ways.ordinary if is_ordinary else ways.quick

    async def ask() -> None:
        transport, protocol = way.connect()
        transport.waiting = 5
        protocol.timeout_keep_alive_handler()
        assert set(protocol._timers) == {"head", "stall"}
        protocol.pause_writing()
        protocol.data_received(USUAL)
        assert set(protocol._timers) == {"stall"}
        protocol.resume_writing()
        await settle(protocol, transport)
        protocol.timeout_keep_alive_handler()
        assert set(protocol._timers) == {"stall"}
        protocol.data_received(USUAL)
        assert not protocol._timers
        await settle(protocol, transport)
        protocol.connection_lost(None)

    asyncio.run(ask())
    assert way.at_once == (0 if is_ordinary else 1)
    ways.quick.end()
    ways.ordinary.end()


class Ready:
    """An application that has each answer at hand, of 256 KiB where the path says so."""

    def __init__(self) -> None:
        self.metrics, self.count = Metrics(), 0

    def answer_at_once(self, method: str, path: str, fields: Fields, client: str) -> Reply:
        """Answers."""
        self.count += 1
        size = CHUNK if path == "/long" else 5
        return Reply(200, [(b"content-length", b"%d" % size)], bytes(size))

    async def __call__(self, scope: Scope, receive: Callable[[], Awaitable[Any]], send: Send) -> None:
        """Answers."""
        if scope["type"] == "http":
            reply = self.answer_at_once("GET", scope["path"], [], "")
            await send({"type": "http.response.start", "status": 200, "headers": reply.fields})
            await send({"type": "http.response.body", "body": reply.body})


SHORT = make_head("GET /short HTTP/1.1", "Host: a")


@pytest.fixture
def ready(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Ready, int]]:
    """A server within the limits of the test's parameter, and a time for idle connections: application, and port."""
    require_module("uvicorn")
    from cosremaster.serve import server as room  # noqa: PLC0415 - it may be missing

    limits, idle = request.param
    monkeypatch.setattr(room, "IDLE_TIMEOUT", idle)
    app = Ready()
    listener = open_socket(Address("127.0.0.1", 0))
    server = room.make_server(app, limits)  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield app, listener.getsockname()[1]
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()
    listener.close()


def ask_for(connection: socket.socket, request: bytes = SHORT) -> None:
    """Sends a request, and reads the answer of 5 bytes."""
    connection.sendall(request)
    data = b""
    while not data.endswith(b"\r\n\r\n" + bytes(5)):
        part = connection.recv(1 << 16)
        assert part
        data += part


def is_cut(connection: socket.socket) -> bool:
    """Whether nothing comes before the connection ends."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


FAR = 3600


@pytest.mark.parametrize("ready", [(ServerLimits(grace=1, head_timeout=FAR, stall_timeout=0.3), FAR)], indirect=True)
def test_a_client_that_asks_and_takes_nothing_is_cut(ready: tuple[Ready, int]) -> None:
    app, port = ready
    poll = threading.Event()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(0.01)
        while not app.metrics.cut:
            try:
                connection.sendall(make_head("GET /long HTTP/1.1", "Host: a"))
            except OSError:
                poll.wait(0.05)
    assert app.count < 200  # what the buffers of the system hold, and no more in ours


@pytest.mark.parametrize("ready", [(ServerLimits(grace=1, head_timeout=FAR, stall_timeout=FAR), 0.5)], indirect=True)
def test_an_idle_connection_is_closed(ready: tuple[Ready, int]) -> None:
    _, port = ready
    with socket.create_connection(("127.0.0.1", port)) as connection:
        begun = time.monotonic()
        while time.monotonic() - begun < 1.2:  # it is not idle
            ask_for(connection)
            time.sleep(0.02)
        begun = time.monotonic()
        assert connection.recv(1) == b""
        assert time.monotonic() - begun > 0.3


@pytest.mark.parametrize("ready", [(ServerLimits(grace=1, head_timeout=0.4, stall_timeout=FAR), FAR)], indirect=True)
def test_a_head_is_waited_for_behind_answers_at_once(ready: tuple[Ready, int]) -> None:
    _, port = ready
    with socket.create_connection(("127.0.0.1", port)) as connection:
        begun = time.monotonic()
        while time.monotonic() - begun < 1.0:  # the time for the first head is over
            ask_for(connection)
            time.sleep(0.02)
        connection.sendall(b"GET /sh")
        assert is_cut(connection)


@pytest.mark.parametrize(
    "ready", [(ServerLimits(1, 1, grace=1, head_timeout=FAR, stall_timeout=FAR), FAR)], indirect=True
)
def test_a_connection_above_the_limit_gets_nothing(ready: tuple[Ready, int]) -> None:
    app, port = ready
    with (
        socket.create_connection(("127.0.0.1", port)) as first,
        socket.create_connection(("127.0.0.1", port)) as second,
    ):
        ask_for(first)
        assert is_cut(second)
        assert app.metrics.refused_clients == 1
        assert app.count == 1


def test_a_thread_that_computes_leaves_answers_their_turn() -> None:
    """A plan does, and the garbage collector is quick; the interpreter is as before behind the end."""
    require_module("uvicorn")
    from cosremaster.serve import server as room  # noqa: PLC0415 - it may be missing

    before, seen = sys.getswitchinterval(), []
    listener = open_socket(Address("127.0.0.1", 0))
    server = room.make_server(Ready(), ServerLimits(grace=1))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    with socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as connection:
        ask_for(connection)
        seen.append(sys.getswitchinterval())
        assert gc.get_freeze_count() > 1000
    server.should_exit = True
    thread.join()
    listener.close()
    assert seen == [pytest.approx(room.TURN)]
    assert sys.getswitchinterval() == before
    assert gc.get_freeze_count() == 0
