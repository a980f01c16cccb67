"""New clients of a busy server wait for few of its answers to others: for a round or two, not for one each."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
from typing import Any

import pytest

from cosremaster.serve import fair_accept
from cosremaster.serve.app import Receive, Scope, Send
from cosremaster.serve.fair_accept import FairAcceptor
from cosremaster.serve.listen import Address, ServerLimits, open_socket
from cosremaster.serve.metrics import Metrics
from tests.fixtures.tools import require_module

BUSY, NEW = 4, 30


class Busy:
    """An application that computes for each client but the new ones; what it was asked, in order."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.asked: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers."""
        if scope["type"] != "http":
            return
        self.asked.append(scope["path"])
        if scope["path"] == "/busy":
            time.sleep(0.005)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


def test_new_clients_of_a_busy_server_wait_for_few_answers() -> None:
    require_module("uvicorn")
    require_module("uvloop")
    from cosremaster.serve.server import make_server  # noqa: PLC0415 - it may be missing

    app, is_over = Busy(), threading.Event()
    listener = open_socket(Address("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = make_server(app, ServerLimits(grace=1))  # type: ignore[arg-type]
    served = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    served.start()

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while not is_over.is_set():
            connection.request("GET", "/busy")
            connection.getresponse().read()
        connection.close()

    busy = [threading.Thread(target=ask) for _ in range(BUSY)]
    for thread in busy:
        thread.start()
    while app.asked.count("/busy") < 3 * BUSY:
        time.sleep(0.01)
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(NEW)]
    for client in clients:
        client.sendall(b"GET /new HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    answers = [b"".join(iter(lambda client=client: client.recv(4096), b"")) for client in clients]  # type: ignore[misc]
    is_over.set()
    for thread in busy:
        thread.join()
    for client in clients:
        client.close()
    server.should_exit = True
    served.join()
    listener.close()
    assert all(answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"ok") for answer in answers)
    first = app.asked.index("/new")
    last = len(app.asked) - app.asked[::-1].index("/new")
    assert app.asked.count("/new") == NEW
    assert app.asked[first:last].count("/busy") < NEW - 5


@pytest.mark.parametrize("waiting", [0, 1, 5, 40])
def test_connections_are_taken_some_at_once(waiting: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_accept, "AT_ONCE", 6)
    listener = open_socket(Address("127.0.0.1", 0))
    clients = [socket.create_connection(listener.getsockname()) for _ in range(waiting)]
    listener.setblocking(False)

    async def take() -> list[int]:
        """How many are taken by each call, until a call takes none."""
        made: list[Any] = []

        class Counted(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                made.append(transport)

        acceptor, counts = FairAcceptor(listener, Counted, Metrics()), list[int]()
        acceptor.start()
        asyncio.get_running_loop().remove_reader(listener)  # the calls are made here
        while not counts or counts[-1]:
            before = len(made)
            acceptor._accept()
            while acceptor._tasks:
                await asyncio.sleep(0)
            counts.append(len(made) - before)
        acceptor.stop()
        for transport in made:
            transport.close()
        return counts

    counts = asyncio.run(take())
    assert counts == [*[6] * (waiting // 6), *([waiting % 6] if waiting % 6 else []), 0]
    for client in clients:
        client.close()
