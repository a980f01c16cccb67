"""HTTP/1.1 messages as a proxy forwards them (RFC 9110, RFC 9112): heads parsed, bodies copied by their framing.

Everything here may come from a hostile client: lengths are limited, and what has two meanings is refused.
"""

from __future__ import annotations

import enum
import re
import socket

from cosremaster.records.tuples import NamedTuple

BLOCK = 1 << 16
"""Bytes that are received at once."""

MAX_HEAD = 1 << 16
"""Bytes of a start line with its header fields."""

_MAX_CHUNK_LINE = 1024
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_REQUEST = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([\x21-\x7e\x80-\xff]+) HTTP/1\.([01])")
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_AUTHORITY = re.compile(rb"(?:[^@/?#]*@)?(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~%-]+)(?::([0-9]{0,5}))?")
_HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
     b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings")
)  # fmt: skip
"""Fields that are about a single connection (RFC 9110, 7.6.1), in lower case."""


class HttpError(Exception):
    """A message is answered with ``status`` and ``sentence`` in place of what it wanted."""

    def __init__(self, status: int, sentence: str) -> None:
        """Make the error."""
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class BrokenMessageError(Exception):
    """A connection ended, or lost its framing, in the middle of a message."""


class Target(NamedTuple):
    """The host and the port that a request leads to; ``host``: a name or an address, without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return both as they stand in a URI."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_authority(authority: bytes, default_port: int | None) -> Target:
    """Return the target that ``authority`` names (RFC 3986, 3.2); ``default_port``: where it has none.

    :raises HttpError: it is none, or lacks a port that has no default.
    """
    match = _AUTHORITY.fullmatch(authority)
    port = int(match[2]) if match and match[2] else default_port
    if match is None or port is None or not 0 < port < 1 << 16:
        raise HttpError(400, "the request names no host and port")
    return Target(match[1].strip(b"[]").decode("ascii").lower(), port)


class BodyLength(NamedTuple):
    """Where a body ends: after ``length`` bytes, after its last chunk, or with the connection (neither)."""

    length: int | None = None
    chunked: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is no body."""
        return self.length == 0

    @property
    def ends_by_close(self) -> bool:
        """Whether only the end of the connection ends it."""
        return self.length is None and not self.chunked


NO_BODY = BodyLength(0)


class MessageHead(NamedTuple):
    """The start line of a message, taken apart, and its header fields in order.

    ``minor``: 0 or 1, for HTTP/1.0 and 1.1; ``words``: method and target, or status and reason.
    """

    minor: int
    words: tuple[bytes, bytes]
    fields: tuple[tuple[bytes, bytes], ...]

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of the fields called ``name``, given in lower case."""
        return [value for field, value in self.fields if field.lower() == name]

    def list_items(self, name: bytes) -> set[bytes]:
        """Return the items of a field that is a list, in lower case."""
        return {item.strip().lower() for value in self.values(name) for item in value.split(b",")}

    @property
    def ends_connection(self) -> bool:
        """Whether the sender closes the connection behind this message."""
        options = self.list_items(b"connection") | self.list_items(b"proxy-connection")
        return b"close" in options or (self.minor == 0 and b"keep-alive" not in options)

    def end_to_end(self) -> list[tuple[bytes, bytes]]:
        """Return the fields that a proxy passes on: those that are not about this connection."""
        dropped = _HOP_BY_HOP | self.list_items(b"connection")
        return [(name, value) for name, value in self.fields if name.lower() not in dropped]

    def declared_framing(self) -> BodyLength | None:
        """Return what the fields say of the body (RFC 9112, 6.3); None: they say nothing.

        :raises HttpError: they say two things, or one that is not understood.
        """
        codings = self.list_items(b"transfer-encoding")
        lengths = {item.strip() for value in self.values(b"content-length") for item in value.split(b",")}
        if codings:
            if codings != {b"chunked"} or self.minor == 0:
                raise HttpError(501, "the message has a transfer encoding other than chunked")
            if lengths:
                raise HttpError(400, "the message has both a length and a transfer encoding")
            return BodyLength(chunked=True)
        if not lengths:
            return None
        (length, *others) = lengths
        if others or not length.isdigit() or len(length) > 15:
            raise HttpError(400, "the message has a length that is no number")
        return BodyLength(int(length))


class MessageKind(enum.Enum):
    """Which side sends a message."""

    REQUEST = _REQUEST
    RESPONSE = _STATUS


def parse_head(data: bytes, kind: MessageKind) -> MessageHead:
    """Return the head in ``data``, which ends with an empty line.

    :raises HttpError: it breaks the grammar of RFC 9112.
    """
    lines = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    first = kind.value.fullmatch(lines[0])
    if first is None:
        raise HttpError(400 if kind is MessageKind.REQUEST else 502, "the message begins with no line of HTTP/1")
    fields = []
    for line in lines[1:]:
        if not line:
            break
        name, colon, value = line.partition(b":")
        value = value.strip(b" \t")
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise HttpError(400 if kind is MessageKind.REQUEST else 502, "the message has a broken header field")
        fields.append((name, value))
    if kind is MessageKind.REQUEST:
        return MessageHead(int(first[3]), (first[1], first[2]), tuple(fields))
    return MessageHead(int(first[1]), (first[2], first[3] or b""), tuple(fields))


def encode_head(start: bytes, fields: list[tuple[bytes, bytes]]) -> bytes:
    """Return a head with the line ``start``, ``fields`` and the empty line."""
    return b"\r\n".join([start, *(name + b": " + value for name, value in fields), b"", b""])


class Wire:
    """A connection that messages are read from and written to; ``sock`` has a timeout for each of its operations."""

    def __init__(self, sock: socket.socket) -> None:
        """Begin to read from ``sock``."""
        self.sock = sock
        self.rest = b""
        """Bytes that were received and are not read yet."""
        self.received = 0

    def _receive(self) -> bool:
        """Receive what there is; return whether there was something before the end."""
        data = self.sock.recv(BLOCK)
        self.received += len(data)
        self.rest += data
        return bool(data)

    def read_head(self, kind: MessageKind) -> MessageHead | None:
        """Return the head of the next message; None where the connection ends before it.

        :raises BrokenMessageError: the connection ends inside it.
        :raises HttpError: it is too long or breaks the grammar.
        """
        checked = 0
        while True:
            if not checked:
                self.rest = self.rest.lstrip(b"\r\n")  # empty lines between messages (RFC 9112, 2.2)
            end = re.compile(rb"\n\r?\n").search(self.rest, max(0, checked - 2))
            if end is not None and end.end() <= MAX_HEAD:
                head, self.rest = self.rest[: end.end()], self.rest[end.end() :]
                return parse_head(head, kind)
            if len(self.rest) > MAX_HEAD:
                raise HttpError(431 if kind is MessageKind.REQUEST else 502, "the head of the message is too long")
            checked = len(self.rest)
            if not self._receive():
                if self.rest:
                    raise BrokenMessageError
                return None

    def _read_line(self) -> bytes:
        """Return the next line without its end. :raises BrokenMessageError: it does not end soon."""
        while b"\n" not in self.rest[: _MAX_CHUNK_LINE + 1]:
            if len(self.rest) > _MAX_CHUNK_LINE or not self._receive():
                raise BrokenMessageError
        line, _, self.rest = self.rest.partition(b"\n")
        return line.removesuffix(b"\r")

    def _copy_bytes(self, count: int | None, target: Wire) -> None:
        """Copy ``count`` bytes to ``target``; None: all until the connection ends."""
        while count is None or count > 0:
            if not self.rest and not self._receive():
                if count is None:
                    return
                raise BrokenMessageError
            data, self.rest = self.rest[:count], self.rest[len(self.rest[:count]) :]
            target.sock.sendall(data)
            count = None if count is None else count - len(data)

    def copy_body(self, framing: BodyLength, target: Wire, *, in_chunks: bool) -> None:
        """Copy a body to ``target``; ``in_chunks``: it stays in chunks there, else only the data is copied.

        Fields behind the last chunk are dropped, as RFC 9110, 6.5.1 allows.

        :raises BrokenMessageError: the connection ends inside it.
        """
        if not framing.chunked:
            self._copy_bytes(framing.length, target)
            return
        while True:
            match = _CHUNK_SIZE.fullmatch(self._read_line())
            if match is None:
                raise BrokenMessageError
            size = int(match[1], 16)
            if not size:
                break
            if in_chunks:
                target.sock.sendall(b"%x\r\n" % size)
            self._copy_bytes(size, target)
            if self._read_line():
                raise BrokenMessageError
            if in_chunks:
                target.sock.sendall(b"\r\n")
        trailers = 0
        while line := self._read_line():
            trailers += len(line)
            if trailers > MAX_HEAD:
                raise BrokenMessageError
        if in_chunks:
            target.sock.sendall(b"0\r\n\r\n")
