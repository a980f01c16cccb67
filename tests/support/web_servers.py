"""A small web server on loopback that answers in the ways that HTTP/1.1 allows, and a proxy in front of it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cosremaster.sandbox.http_messages import Target
from cosremaster.sandbox.proxy import Proxy
from cosremaster.sandbox.reach import Reach

LARGE = b"0123456789abcdef" * (1 << 16)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, body: bytes, status: int = 200, **fields: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **fields}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        """Answers in the way that the path names."""
        if self.path == "/chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"3;x=y\r\nabc\r\n00A\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n")
        elif self.path == "/until-close":
            self.close_connection = True
            self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\nall of it")
        elif self.path == "/short":
            self.close_connection = True
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        elif self.path == "/unchanged":
            self.send_response(304)
            self.send_header("Content-Length", "99")
            self.end_headers()
        elif self.path == "/leaves":  # says that the connection stays, and closes it
            self._send(b"bye")
            self.close_connection = True
        elif self.path == "/fields":
            self._send(str(self.headers).encode(), Connection="X-Secret", X_Secret="1", X_Open="2")
        elif self.path == "/large":
            self._send(LARGE)
        elif self.path == "/slow":
            time.sleep(60)
        else:
            self._send(f"{self.path} {self.client_address[1]}".encode())

    do_HEAD = do_GET  # noqa: N815 - the name that BaseHTTPRequestHandler looks for

    def do_POST(self) -> None:
        """Answers with the body, or before it is there."""
        if self.path == "/refused":
            self._send(b"too much", 413, Connection="close")
            self.close_connection = True
        else:
            self._send(self._body())

    do_PUT = do_POST  # noqa: N815 - likewise


@contextlib.contextmanager
def serve_web() -> Iterator[Target]:
    """Serves on loopback."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield Target("127.0.0.1", server.server_address[1])
        server.shutdown()


@contextlib.contextmanager
def serve_socket(talk: Callable[[socket.socket], None]) -> Iterator[Target]:
    """Serves each connection on loopback by `talk`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    threading.Thread(target=run, args=(sock,), daemon=True).start()

        def run(sock: socket.socket) -> None:
            with sock, contextlib.suppress(OSError):
                talk(sock)

        threading.Thread(target=accept, daemon=True).start()
        yield Target("127.0.0.1", listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def serve_proxy(*allowed: Target) -> Iterator[tuple[Target, Proxy]]:
    """Serves a proxy on loopback that reaches `allowed` and what any script may reach."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    with Proxy(listener, Reach(allowed)) as proxy:
        yield Target("127.0.0.1", listener.getsockname()[1]), proxy
