"""Heads of plain requests, read by one expression, and heads of answers.

A head that could mean anything but what it plainly says is for the parser of the server: bodies, upgrades, HTTP/1.0,
escapes, folded or empty fields, several requests at once. So nothing is decided here that it would decide otherwise.
"""

from __future__ import annotations

import http
from collections.abc import Sequence

from cosremaster.lazy_regex import lazy_regex
from cosremaster.records.tuples import NamedTuple
from cosremaster.serve.exchange import Reply
from cosremaster.serve.ranges import Fields

LONGEST_PLAIN = 4096
"""Bytes of a plain head at most."""

_PLAIN = lazy_regex(
    rb"(GET|HEAD) (/(?!/)[A-Za-z0-9._~/-]*) HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]+: [\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?\r\n)+)\r\n",
    0,
)
_FIELD = lazy_regex(rb"([^:\r\n]+): ([^\r]+)\r\n", 0)
_HOST = lazy_regex(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+(?:%[^\]\s/?#@]*)?\])(?::[0-9]*)?", 0)
_MEANINGFUL = frozenset(
    (
        *(b"connection", b"proxy-connection", b"keep-alive", b"upgrade", b"http2-settings"),
        *(b"content-length", b"transfer-encoding", b"te", b"trailer", b"expect"),
    )
)
"""Fields about the connection and the message. ``Connection: keep-alive`` says what holds anyway (RFC 9112, 9.3)."""


def has_sound_host(fields: Fields, version: str) -> bool:
    """Return whether a request of HTTP ``version`` names the host as RFC 9112, 3.2, wants it; else it is a 400.

    That of HTTP/1.1 has a single field; of 1.0 it may have none. Newer ones name it elsewhere.
    """
    if version not in ("1.0", "1.1"):
        return True
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) != 1:
        return not hosts and version == "1.0"
    return _HOST.fullmatch(hosts[0]) is not None


class PlainHead(NamedTuple):
    """A request without a body, behind which the connection stays. ``fields``: names in lower case."""

    method: str
    path: str
    fields: Fields


def read_plain_head(data: bytes) -> PlainHead | None:
    """Return the head that ``data`` are; None where they are more, or less, or it is not plain."""
    match = _PLAIN.fullmatch(data) if len(data) <= LONGEST_PLAIN else None
    if match is None:
        return None
    method, path, lines = match.groups()
    fields = [(name.lower(), value) for name, value in _FIELD.findall(lines)]
    for name, value in fields:
        if name in _MEANINGFUL and (name, value.lower()) != (b"connection", b"keep-alive"):
            return None
    if not has_sound_host(fields, "1.1"):
        return None
    return PlainHead("GET" if method == b"GET" else "HEAD", path.decode("ascii"), fields)


class HeadWriter:
    """Writes heads of answers on connections that stay, and remembers what many begin with."""

    def __init__(self) -> None:
        """Begin without heads."""
        self._common: Sequence[tuple[bytes, bytes]] = ()
        self._beginnings: dict[int, bytes] = {}

    def write(self, reply: Reply, common: Sequence[tuple[bytes, bytes]]) -> bytes:
        """Return the head of ``reply``; the fields ``common`` come first, the same object while they are the same."""
        if common is not self._common:
            self._common, self._beginnings = common, {}
        beginning = self._beginnings.get(reply.status)
        if beginning is None:
            line = b"HTTP/1.1 %d %b\r\n" % (reply.status, http.HTTPStatus(reply.status).phrase.encode())
            beginning = self._beginnings[reply.status] = line + _join_fields(common)
        return b"%b%b\r\n" % (beginning, _join_fields(reply.fields))


def _join_fields(fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return ``fields`` as lines."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])
