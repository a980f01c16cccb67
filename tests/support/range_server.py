"""A web server on loopback for one file, which gives ranges of it, or misbehaves as a test says."""

from __future__ import annotations

import contextlib
import re
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.fixtures.tools import require_module


@dataclass
class ServedFile:
    """What the server has and how it behaves; a test may change all of it while the server runs.

    ``cuts``: after how many bytes of a body the connection is cut, for the next answers. ``statuses``: of the next
    answers, in place of the file. ``most``: bytes that a part has at most, if any.
    ``redirects``: where paths lead. ``log``: the ranges of all requests, and the other
    fields of the last one in ``fields``. ``files``: other paths with a content of their own. ``interim``: statuses that
    come before each answer; ``extra``: more fields of each.
    """

    data: bytes
    etag: str = '"v1"'
    modified: str = "Sat, 28 Nov 2026 20:00:00 GMT"
    has_ranges: bool = True
    has_head: bool = True
    answers_whole: bool = False
    content_range: str = ""
    short_by: int = 0
    most: int = 0
    coding: str = ""
    delay: float = 0
    is_conditional: bool = True
    credentials: str = ""
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)
    interim: list[int] = field(default_factory=list)
    extra: list[tuple[str, str]] = field(default_factory=list)
    sent: int = 0
    url: str = ""
    change_after: int = 0

    def change(self) -> None:
        """Puts another version in the place of the file."""
        self.etag, self.modified = '"v2"', "Sat, 28 Nov 2026 21:00:00 GMT"
        self.data = self.data[::-1]

    def forget(self) -> None:
        """Empties the log."""
        self.log.clear()
        self.sent = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 17

    @property
    def _served(self) -> ServedFile:
        assert isinstance(self.server, _Server)
        return self.server.served

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _answer(self, status: int, body: bytes = b"", **fields: str) -> None:
        served = self._served
        for each in served.interim:
            self.send_response_only(each)
            self.send_header("Link", "</a>; rel=preload")
            self.end_headers()
        self.send_response(status)
        for name, value in [*{"Content-Length": str(len(body)), **fields}.items(), *served.extra]:
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        cut = served.cuts.pop(0) if served.cuts and status < 300 else None
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
            served.sent += len(body[:cut])
        self.wfile.flush()
        if cut is not None:
            self.close_connection = True

    def do_HEAD(self) -> None:
        """Tells the size, unless HEAD is refused."""
        served = self._served
        if served.has_head:
            self._answer(200, served.data)
        else:
            self._answer(405)

    def do_GET(self) -> None:
        """Gives the file, or what the test wants in its place."""
        served = self._served
        time.sleep(served.delay)
        path = self.path.partition("?")[0]
        asked = self.headers.get("Range", "")
        served.log.append(asked)
        served.fields = dict(self.headers.items())
        if served.change_after and len(served.log) > served.change_after:
            served.change_after = 0
            served.change()
        if path in served.redirects:
            self._answer(302, Location=served.redirects[path])
        elif served.statuses:
            self._answer(served.statuses.pop(0))
        elif served.credentials and self.headers.get("Authorization") != served.credentials:
            self._answer(401, WWW_Authenticate="Basic")
        elif path in served.files:
            self._answer(200, served.files[path], ETag='"other"')
        elif path.rpartition("/")[2] not in ("in.iso", "in.cgz"):
            self._answer(404)
        else:
            self._give(asked)

    def _give(self, asked: str) -> None:
        served = self._served
        version = {"ETag": served.etag, "Last_Modified": served.modified}
        version = {name: value for name, value in version.items() if value}
        if served.coding:
            version["Content_Encoding"] = served.coding
        condition = self.headers.get("If-Match")
        since = self.headers.get("If-Unmodified-Since")
        if served.is_conditional and (condition or served.etag) != served.etag:
            self._answer(412)
            return
        if served.is_conditional and since and since != served.modified:
            self._answer(412)
            return
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", asked)
        if match is None or not served.has_ranges or served.answers_whole:
            self._answer(200, served.data, **version)
            return
        start, last = int(match[1]), min(int(match[2]), len(served.data) - 1)
        if start >= len(served.data):
            self._answer(416, Content_Range=f"bytes */{len(served.data)}")
            return
        last = min(last, start + served.most - 1) if served.most else last
        text = served.content_range or f"bytes {start}-{last}/{len(served.data)}"
        body = served.data[start : last + 1 - served.short_by]
        self._answer(206, body, Content_Range=text, **version)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, served: ServedFile) -> None:
        self.served = served
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, *_: object) -> None:
        """Says nothing: a client that goes away is what some tests are about."""


@contextlib.contextmanager
def serve_file(data: bytes, name: str = "in.iso", certificate: Path | None = None) -> Iterator[ServedFile]:
    """Serves ``data`` as ``/name``; ``certificate``: for https, a file with its key too."""
    require_module("urllib3")  # cosremaster reads by it
    served = ServedFile(data)
    server = _Server(served)
    scheme = "http"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    served.url = f"{scheme}://127.0.0.1:{server.server_port}/{name}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
