"""A forward proxy on loopback: absolute URLs are fetched, CONNECT is a tunnel, and both are logged."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Proxy:
    """A running proxy. ``log``: method and target of each request; ``credentials``: that it wants, if any.

    ``status``: what it answers in place of doing what it is asked.
    """

    url: str = ""
    credentials: str = ""
    status: int = 0
    log: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _is_refused(self) -> bool:
        assert isinstance(self.server, _Server)
        proxy = self.server.proxy
        proxy.log.append(f"{self.command} {self.path}")
        status = proxy.status
        if not status and proxy.credentials and self.headers.get("Proxy-Authorization") != proxy.credentials:
            status = 407
        if status:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
        return bool(status)

    def do_GET(self) -> None:
        """Fetches an absolute URL."""
        if self._is_refused():
            return
        parts = urlsplit(self.path)
        far = HTTPConnection(parts.hostname or "", parts.port or 80, timeout=30)
        fields = {name: value for name, value in self.headers.items() if not name.lower().startswith("proxy-")}
        far.request("GET", parts._replace(scheme="", netloc="").geturl(), headers=fields)
        answer = far.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("server", "date"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        far.close()

    def do_CONNECT(self) -> None:
        """Joins two connections until one of them ends."""
        if self._is_refused():
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), 30) as far:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pass_on, args=(far, self.connection), daemon=True)
            back.start()
            _pass_on(self.connection, far)
            back.join(30)
        self.close_connection = True


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    """Sends what comes from ``source`` to ``target``."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, *_: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def run_proxy() -> Iterator[Proxy]:
    """Runs the proxy until the context ends."""
    proxy = Proxy()
    with _Server(proxy) as server:
        proxy.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()
