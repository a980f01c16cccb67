"""The HTTP proxy that a script's programs talk to: it runs outside and accepts on a socket that was made inside.

A thread accepts, another serves each connection: the supervising process has nothing else to do meanwhile, and the
helper that must be single-threaded is a process of its own. Plain requests are forwarded, in their order on each
connection; CONNECT makes a tunnel for TLS, which is not looked into. :mod:`~cosremaster.sandbox.reach` says where both
may lead.
"""

from __future__ import annotations

import selectors
import socket
import struct
import threading
import time
from contextlib import suppress

from cosremaster.records import Struct
from cosremaster.sandbox.http_messages import (
    BLOCK,
    NO_BODY,
    BodyLength,
    BrokenMessageError,
    HttpError,
    MessageHead,
    MessageKind,
    Target,
    Wire,
    encode_head,
    parse_authority,
)
from cosremaster.sandbox.reach import Reach, UpstreamProxy

MAX_CONNECTIONS = 64
"""Connections that are served at once; others wait."""

IDLE_TIME = 60.0
"""Seconds that a connection may wait for its next request."""

DATA_TIME = 300.0
"""Seconds that a server, or the script, may be silent within a message."""

_LISTED = 200
"""Servers that a report lists."""

_REPEATABLE = (b"GET", b"HEAD", b"OPTIONS")
_VIA = (b"Via", b"1.1 cosremaster")


class NetworkUse(Struct, frozen=True):
    """The servers, as ``host:port``, that a script reached with the number of requests, and those refused to it."""

    requests: dict[str, int]
    refused: tuple[str, ...]


class _Origin:
    """An open connection to a server, or to the proxy before it, that can take more requests for ``target``."""

    def __init__(self, sock: socket.socket, target: Target, upstream: UpstreamProxy | None) -> None:
        """Take over ``sock``."""
        sock.settimeout(DATA_TIME)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.wire = Wire(sock)
        self.target, self.upstream = target, upstream
        self.is_used = False


class Proxy:
    """The proxy on ``listener``, from the beginning of its context to the end, which ends all connections."""

    def __init__(self, listener: socket.socket, reach: Reach) -> None:
        """Make a proxy that takes ``listener`` over; ``reach``: where requests may lead."""
        self._listener, self.reach = listener, reach
        self._room = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._requests: dict[str, int] = {}
        self._refused: dict[str, None] = {}
        self._is_stopped = False
        self._acceptor = threading.Thread(target=self._accept_connections, name="proxy", daemon=True)

    def __enter__(self) -> Proxy:
        """Begin to serve."""
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End all connections. A thread that waits for the resolver ends later, by itself."""
        with self._lock:
            self._is_stopped = True
            for sock in (self._listener, *self._sockets):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits on it
        self._acceptor.join(5)
        self._listener.close()

    def use(self) -> NetworkUse:
        """Return what the network was used for until now."""
        with self._lock:
            return NetworkUse(dict(self._requests), tuple(self._refused))

    def _accept_connections(self) -> None:
        """Serve each connection in a thread of its own, :data:`MAX_CONNECTIONS` at once."""
        while not self._is_stopped:
            self._room.acquire()
            try:
                sock, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve_socket, args=(sock,), name="proxy client", daemon=True)
                thread.start()
            except (OSError, RuntimeError):  # the end, or no descriptor or thread is free
                self._room.release()
                if not self._is_stopped:
                    time.sleep(0.05)

    def _serve_socket(self, sock: socket.socket) -> None:
        """Serve the connection ``sock`` until its end."""
        try:
            with sock:
                if self.hold(sock):
                    if sock.family == socket.AF_INET:  # those of a virtual machine are of another family
                        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    _Client(self, sock).serve()
                self.release(sock)
        finally:
            self._room.release()

    def hold(self, sock: socket.socket) -> bool:
        """Remember ``sock``, to be shut down at the end; return whether that is not here already."""
        with self._lock:
            if not self._is_stopped:
                self._sockets.add(sock)
            return not self._is_stopped

    def release(self, sock: socket.socket) -> None:
        """Forget ``sock``, which is about to be closed."""
        with self._lock:
            self._sockets.discard(sock)

    def count_request(self, target: Target) -> None:
        """Count a request that goes to ``target``."""
        with self._lock:
            if str(target) in self._requests or len(self._requests) < _LISTED:
                self._requests[str(target)] = self._requests.get(str(target), 0) + 1

    def note_refusal(self, target: Target) -> None:
        """Remember that ``target`` was refused."""
        with self._lock:
            if len(self._refused) < _LISTED:
                self._refused[str(target)] = None


class _Client:
    """A connection of the script, with the server that its last request went to."""

    def __init__(self, proxy: Proxy, sock: socket.socket) -> None:
        """Begin with ``sock``."""
        self._proxy, self._wire = proxy, Wire(sock)
        self._origin: _Origin | None = None

    def serve(self) -> None:
        """Serve requests until the connection ends; a request that cannot be served is answered and ends it."""
        try:
            while self._serve_request():
                pass
        except HttpError as error:
            self._answer(error)
        except (OSError, BrokenMessageError):
            self._break_off()
        finally:
            self._close_origin()

    def _serve_request(self) -> bool:
        """Serve a request; return whether another can follow. :raises HttpError: it is to be answered with that."""
        self._wire.sock.settimeout(IDLE_TIME)
        request = self._wire.read_head(MessageKind.REQUEST)
        if request is None:
            return False
        self._wire.sock.settimeout(DATA_TIME)
        method, text = request.words
        if method == b"CONNECT":
            self._serve_tunnel(parse_authority(text, None))
            return False
        if not text.lower().startswith(b"http://"):
            raise HttpError(400, "this is a proxy: ask it for http:// addresses, or for a tunnel by CONNECT")
        authority, path = _split_address(text)
        return self._forward(request, parse_authority(authority, 80), path)

    def _answer(self, error: HttpError) -> None:
        """Answer with ``error``. Its sentence is the reason of the status line too, as apt shows no more of it."""
        text = error.sentence.encode("ascii", "replace")
        fields = [(b"Content-Type", b"text/plain"), (b"Content-Length", b"%d" % (len(text) + 1))]
        head = encode_head(b"HTTP/1.1 %d %s" % (error.status, text), [*fields, (b"Connection", b"close")])
        with suppress(OSError):
            self._wire.sock.sendall(head + text + b"\n")
            self._linger()

    def _linger(self) -> None:
        """Wait for the client's end: closing while it still sends would take the answer away from it."""
        sock, end = self._wire.sock, time.monotonic() + 2
        with suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(2)
            while time.monotonic() < end and sock.recv(BLOCK):
                pass

    def _break_off(self) -> None:
        """Reset the connection, so that a body that ends with it is not taken for whole."""
        with suppress(OSError):
            self._wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _close_origin(self) -> None:
        """Close the connection to the server, if there is one."""
        if self._origin is not None:
            self._proxy.release(self._origin.wire.sock)
            self._origin.wire.sock.close()
            self._origin = None

    def _open_origin(self, target: Target, scheme: str) -> _Origin:
        """Return a connection for ``target``, the last one where it can be used again.

        :raises HttpError: it may not or cannot be reached.
        """
        if self._origin is not None and self._origin.target == target and scheme == "http":
            return self._origin
        self._close_origin()
        reach = self._proxy.reach
        try:
            reach.check_port(target, is_tunnel=scheme == "https")
            upstream = reach.find_upstream(target, scheme)
            if upstream is None:
                sock = reach.connect(target)
            else:
                reach.check_name(target)
                sock = reach.connect_upstream(upstream)
        except HttpError as error:
            if error.status == 403:
                self._proxy.note_refusal(target)
            raise
        self._origin = _Origin(sock, target, upstream)
        if not self._proxy.hold(sock):
            raise BrokenMessageError
        return self._origin

    def _serve_tunnel(self, target: Target) -> None:
        """Make a tunnel to ``target``, and copy both directions until both have ended."""
        origin = self._open_origin(target, "https")
        self._proxy.count_request(target)
        if origin.upstream is not None:
            name = str(target).encode("ascii")
            fields = [(b"Host", name), *_authorization(origin.upstream)]
            origin.wire.sock.sendall(encode_head(b"CONNECT %s HTTP/1.1" % name, fields))
            response = origin.wire.read_head(MessageKind.RESPONSE)
            if response is None or not response.words[0].startswith(b"2"):
                raise HttpError(502, f"{target} cannot be reached: the proxy of this machine refuses it")
        self._wire.sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        copy_both_ways(self._wire, origin.wire)

    def _forward(self, request: MessageHead, target: Target, path: bytes) -> bool:
        """Forward ``request`` for ``path`` of ``target``; return whether another can follow on this connection."""
        framing = request.declared_framing() or NO_BODY
        origin = self._open_origin(target, "http")
        self._proxy.count_request(target)
        is_reused, origin.is_used = origin.is_used, True
        head = _request_head(request, origin, path, framing)
        may_repeat = is_reused and framing.is_empty and request.words[0] in _REPEATABLE
        before = origin.wire.received
        try:
            response = self._exchange_heads(origin, head, framing)
        except (OSError, BrokenMessageError):
            if not may_repeat or origin.wire.received != before:
                raise
            response = None
        if response is None and may_repeat:  # the server has closed the connection since its last answer
            self._close_origin()
            origin = self._open_origin(target, "http")
            origin.is_used = True
            response = self._exchange_heads(origin, head, framing)
        if response is None:
            raise HttpError(502, f"{target} has closed the connection without an answer")
        return self._pass_response(request, response, origin)

    def _exchange_heads(self, origin: _Origin, head: bytes, framing: BodyLength) -> MessageHead | None:
        """Send ``head`` and begin to send the body; return the head of the response, None where there is none."""
        origin.wire.sock.sendall(head)
        self._upload: threading.Thread | None = None
        if not framing.is_empty:
            self._upload = threading.Thread(target=self._send_body, args=(origin, framing), daemon=True)
            self._upload.start()
        return origin.wire.read_head(MessageKind.RESPONSE)

    def _send_body(self, origin: _Origin, framing: BodyLength) -> None:
        """Send the body of the request, while the response is read by another thread."""
        try:
            self._wire.copy_body(framing, origin.wire, in_chunks=True)
        except (OSError, BrokenMessageError):
            with suppress(OSError):
                origin.wire.sock.shutdown(socket.SHUT_WR)

    def _pass_response(self, request: MessageHead, response: MessageHead, origin: _Origin) -> bool:
        """Pass the responses of ``origin`` on, up to the final one; return whether another request can follow."""
        while response.words[0].startswith(b"1"):
            if response.words[0] == b"101":
                raise HttpError(502, "the server changes the protocol, which nobody wanted")
            if request.minor:
                self._wire.sock.sendall(encode_head(_status_line(response), response.end_to_end()))
            following = origin.wire.read_head(MessageKind.RESPONSE)
            if following is None:
                raise HttpError(502, "the server has closed the connection before its answer")
            response = following
        if response.words[0] == b"407":
            raise HttpError(502, "the proxy of this machine wants another password")
        framing = _response_framing(request, response)
        self._let_upload_end()
        stays = not (
            request.ends_connection
            or (framing.ends_by_close or (framing.chunked and not request.minor))
            or self._upload is not None
        )
        fields = [*response.end_to_end(), _VIA, (b"Connection", b"keep-alive" if stays else b"close")]
        if framing.chunked and request.minor:
            fields.append((b"Transfer-Encoding", b"chunked"))
        self._wire.sock.sendall(encode_head(_status_line(response), fields))
        origin.wire.copy_body(framing, self._wire, in_chunks=bool(request.minor))
        if response.ends_connection or framing.ends_by_close or not stays:
            self._close_origin()
        if self._upload is not None:
            self._linger()
        return stays

    def _let_upload_end(self) -> None:
        """Forget the upload if it has ended, or does soon: its last bytes may be on their way."""
        if self._upload is not None:
            self._upload.join(0.2)
            if not self._upload.is_alive():
                self._upload = None


def _split_address(text: bytes) -> tuple[bytes, bytes]:
    """Return authority and path of an ``http://`` address (RFC 9112, 3.2.2)."""
    rest = text[len(b"http://") :].partition(b"#")[0]
    end = min(at for at in (rest.find(b"/"), rest.find(b"?"), len(rest)) if at >= 0)
    path = rest[end:]
    return rest[:end], path if path.startswith(b"/") else b"/" + path


def _authorization(upstream: UpstreamProxy) -> list[tuple[bytes, bytes]]:
    """Return the fields by which this machine is known to ``upstream``."""
    return [(b"Proxy-Authorization", upstream.authorization)] if upstream.authorization else []


def _request_head(request: MessageHead, origin: _Origin, path: bytes, framing: BodyLength) -> bytes:
    """Return the head of ``request`` as it goes to ``origin``."""
    target = origin.target
    host = (f"[{target.host}]" if ":" in target.host else target.host).encode("ascii")
    host += b"" if target.port == 80 else b":%d" % target.port
    fields = [(b"Host", host), *(field for field in request.end_to_end() if field[0].lower() != b"host")]
    fields += [_VIA, (b"Connection", b"keep-alive")]
    if framing.chunked:
        fields.append((b"Transfer-Encoding", b"chunked"))
    if origin.upstream is not None:
        fields += _authorization(origin.upstream)
        path = b"http://" + host + path
    return encode_head(b"%s %s HTTP/1.1" % (request.words[0], path), fields)


def _status_line(response: MessageHead) -> bytes:
    """Return the first line of ``response``."""
    return b"HTTP/1.1 %s %s" % response.words


def _response_framing(request: MessageHead, response: MessageHead) -> BodyLength:
    """Return where the body of ``response`` ends (RFC 9112, 6.3).

    :raises HttpError: its fields do not say that in one way.
    """
    status = response.words[0]
    if request.words[0] == b"HEAD" or status in (b"204", b"304"):
        return NO_BODY
    try:
        return response.declared_framing() or BodyLength()
    except HttpError as error:
        raise HttpError(502, error.sentence) from error


class _Direction:
    """One direction of a tunnel: bytes on their way from ``source`` to ``sink``."""

    def __init__(self, source: Wire, sink: Wire) -> None:
        """Begin with the bytes that were received from ``source`` already."""
        self.source, self.sink = source.sock, sink.sock
        self.waiting, self.is_open, self.is_ended = source.rest, True, False

    def receive(self) -> None:
        """Receive a block from the source."""
        try:
            self.waiting = self.source.recv(BLOCK)
        except BlockingIOError:
            return
        self.is_open = bool(self.waiting)

    def send(self) -> None:
        """Send what is on its way, and the end behind it."""
        try:
            if self.waiting:
                self.waiting = self.waiting[self.sink.send(self.waiting) :]
        except BlockingIOError:
            return
        if not self.waiting and not self.is_open and not self.is_ended:
            self.is_ended = True
            with suppress(OSError):
                self.sink.shutdown(socket.SHUT_WR)


def copy_both_ways(first: Wire, second: Wire) -> None:
    """Copy all that comes from each connection to the other, until both have ended or are silent for too long.

    A side that does not read holds up only those bytes that go to it.
    """
    directions = (_Direction(first, second), _Direction(second, first))
    for direction in directions:
        direction.source.setblocking(False)
    while not all(direction.is_ended for direction in directions):
        with selectors.PollSelector() as selector:
            for sock, events in _wanted_events(directions).items():
                selector.register(sock, events)
            if not selector.select(DATA_TIME):
                return
        for direction in directions:
            if not direction.waiting and direction.is_open:
                direction.receive()
            direction.send()


def _wanted_events(directions: tuple[_Direction, _Direction]) -> dict[socket.socket, int]:
    """Return what to wait for on each socket of a tunnel."""
    events: dict[socket.socket, int] = {}
    for direction in directions:
        if direction.waiting:
            events[direction.sink] = events.get(direction.sink, 0) | selectors.EVENT_WRITE
        elif direction.is_open:
            events[direction.source] = events.get(direction.source, 0) | selectors.EVENT_READ
    return events
