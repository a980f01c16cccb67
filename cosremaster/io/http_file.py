"""A file on a web server, fetched in ranges (RFC 9110, sections 8.8, 13 and 14).

Each request holds the condition that the file is the one that was opened, so that no two versions are ever mixed.
"""

from __future__ import annotations

import logging
import math
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urljoin, urlsplit

import urllib3
import urllib3.util

from cosremaster.errors import ImageError, OutputError, Place, printable
from cosremaster.io.descriptors import write_all
from cosremaster.io.fetched_blocks import BLOCK_SIZE, cannot_keep
from cosremaster.io.http_connections import Connections
from cosremaster.io.http_errors import ConnectionLostError, describe_failure, is_lasting
from cosremaster.io.urls import HTTP_SCHEMES, AbsentFileError, ChangedFileError, Url, escape_url
from cosremaster.records.tuples import NamedTuple
from cosremaster.units import format_size

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

RETRIES = 3
"""How often a request is sent again after its connection was lost, or the server failed for the moment."""

_PROGRESS = 1 << 12
"""Bytes after which a request that broke off counts as new: a server may give less than was asked for (15.3.7)."""

_PAUSES = (0.1, 0.4, 1.6)
"""Seconds before each of them, if the server asks for no more."""

_LONGEST_PAUSE = 30
"""Seconds that a server may ask for (Retry-After, 10.2.3); who asks for more is not waited for."""
_TOLD_PAUSE = 3
"""Seconds of a pause from which on it is told."""

_MOST_REDIRECTS = 8
_CONNECT_SECONDS, _READ_SECONDS = 15, 60
_STEP = 1 << 18  # bytes of a body that are read at once
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_BUSY = frozenset((408, 425, 429, 500, 502, 503, 504))
_EXPIRED = frozenset((400, 401, 403, 404, 410))
"""Answers that the end of a redirect gives when its signature is no longer valid."""

_logger = logging.getLogger("cosremaster")


class _Version(NamedTuple):
    """What a server tells about the state of a file. ``size`` in bytes."""

    size: int
    etag: str
    modified: str

    @property
    def condition(self) -> dict[str, str]:
        """The fields of a request that is to be refused for another state: a weak ETag never fits If-Match."""
        if self.etag and not self.etag.startswith("W/"):
            return {"If-Match": self.etag}
        return {"If-Unmodified-Since": self.modified} if self.modified else {}

    @property
    def renewal(self) -> dict[str, str]:
        """The fields of a request that is to be answered for another state alone."""
        if self.etag:
            return {"If-None-Match": self.etag}
        return {"If-Modified-Since": self.modified} if self.modified else {}

    def differs(self, other: _Version) -> bool:
        """Return whether ``other`` is another state; what only one of them tells does not count."""
        pairs = ((self.etag.removeprefix("W/"), other.etag.removeprefix("W/")), (self.modified, other.modified))
        return self.size != other.size or any(mine and theirs and mine != theirs for mine, theirs in pairs)


class HttpFile:
    """A file that the server gives in ranges; see :class:`~cosremaster.io.remote.RemoteFile`."""

    is_here, is_conditional = False, True

    def __init__(self, url: Url, client: _FileClient, version: _Version, head: bytes) -> None:
        """Keep what the opening request brought."""
        self.size, self.head = version.size, head
        self.state: dict[str, int | str] = {"etag": version.etag, "modified": version.modified}
        self.is_dated = bool(version.condition)
        self._client, self._version = client, version
        self._place = Place((printable(str(url)),))

    def close(self) -> None:
        """End the connections."""
        self._client.close()

    def check_unchanged(self) -> None:
        """Ask for a single byte. :raises ImageError: the file changed since the opening."""
        if self.size:
            self.fetch(0, 1)

    check_current = check_unchanged

    def fetch(self, start: int, end: int) -> bytes:
        """Return the bytes ``start`` to ``end``; what breaks off goes on where it ended.

        :raises ImageError: the file changed, or the connection broke off too often.
        """
        data = bytearray()
        failures = 0
        while len(data) < end - start:
            before = len(data)
            try:
                self._fetch_once(start, end, data)
            except ConnectionLostError as error:
                failures = 1 if len(data) - before >= _PROGRESS else failures + 1
                _pause_or_fail(error, failures, self._place.at(start + len(data)), lasts=False)
            else:
                failures = 0
        return bytes(data)

    def _fetch_once(self, start: int, end: int, data: bytearray) -> None:
        """Append to ``data``, which begins at ``start``, what it lacks, or the part that the server gives of it.

        Raises as :meth:`fetch`. :raises ConnectionLostError: the connection broke off, or the part is tiny.
        """
        at = start + len(data)
        fields = {"Range": f"bytes={at}-{end - 1}", **self._version.condition}
        with closing(self._client.send(fields)) as response:
            if response.status in (412, 416):
                raise self._changed()
            _check_status(response, self._place)
            if response.status == 200:
                if self._version.differs(_version_of(response, self._version.size)):
                    raise self._changed()
                raise ImageError("the server ignores that only a part is asked for (200)", self._place.at(at))
            answered = _parse_range(response, self._place)
            if self._version.differs(_version_of(response, answered.total)):
                raise self._changed()
            if answered.start != at or answered.end > end:
                raise ImageError(
                    f"the server answers with other bytes than were asked for ({answered.text})", self._place.at(at)
                )
            for part in self._client.read_body(response, answered.end - at):
                data += part
        if answered.end < min(end, at + _PROGRESS):
            raise ConnectionLostError("the server gives less than was asked for")

    def _changed(self) -> ChangedFileError:
        """Return the error for a file that is another now."""
        return _changed_error(self._place)


class DownloadedFile:
    """A file that was downloaded as a whole; see :class:`~cosremaster.io.remote.RemoteFile`."""

    is_here = is_conditional = True
    head = b""

    def __init__(self, url: Url, client: _FileClient, version: _Version, file: BinaryIO) -> None:
        """Keep ``file``, which has all the bytes; ``client`` asks whether they are still those of the server."""
        self.size, self._client, self._version = version.size, client, version
        self.state: dict[str, int | str] = {"etag": version.etag, "modified": version.modified}
        self.is_dated = bool(version.condition)
        self._file, self._place = file, Place((printable(str(url)),))

    def close(self) -> None:
        """Give up the bytes."""
        self._file.close()

    def check_unchanged(self) -> None:
        """Do nothing: all bytes are those of a single answer."""

    def check_current(self) -> None:
        """Ask the server for the file, if it is another. :raises ImageError: it is, or the server does not say."""
        try:
            with closing(self._client), closing(self._client.send(self._version.renewal)) as response:
                if response.status == 304:
                    return
                _check_status(response, self._place)
                length = _read_length(response, self._place)
                if self._version.differs(_version_of(response, self.size if length is None else length)):
                    raise _changed_error(self._place)
        except ConnectionLostError as error:
            raise ImageError(str(error), self._place) from error

    def fetch(self, start: int, end: int) -> bytes:
        """Return the bytes ``start`` to ``end``. :raises ImageError: the disk cannot be read."""
        parts = []
        while start < end:
            try:
                part = os.pread(self._file.fileno(), end - start, start)
            except OSError as error:
                raise ImageError(f"cannot be read: {error.strerror}", self._place.at(start)) from error
            if not part:
                break
            parts.append(part)
            start += len(part)
        return b"".join(parts)


def _changed_error(place: Place) -> ChangedFileError:
    """Return the error for a file at ``place`` that is another now."""
    return ChangedFileError("changed on the server while it was being read", place)


def open_http_file(url: Url) -> HttpFile | DownloadedFile:
    """Open the file at ``url`` by a request for its first block, which tells its size, its state, and about ranges.

    :raises ImageError: it cannot be had. :raises OutputError: it must be downloaded, and the disk has no room.
    """
    place = Place((printable(str(url)),))
    client = _FileClient(url, place)
    try:
        for number in range(RETRIES + 1):
            try:
                return _open_once(url, client, place)
            except ConnectionLostError as error:
                _pause_or_fail(error, number + 1, place, lasts=is_lasting(error))
        raise AssertionError
    except BaseException:
        client.close()
        raise


def _pause_or_fail(error: ConnectionLostError, failures: int, place: Place, *, lasts: bool) -> None:
    """Wait before a request is sent again that failed with ``error``, ``failures`` times in a row by now.

    :raises ImageError: it makes no sense, as that ``lasts``, or was often enough, or the server wants a long time.
    """
    if error.pause > _LONGEST_PAUSE:
        raise ImageError(f"{error}, and asks to wait for {error.pause:,} seconds", place) from error
    if lasts or failures > RETRIES:
        raise ImageError(f"{error}{'' if lasts else f' ({failures} times in a row)'}", place) from error
    if error.pause >= _TOLD_PAUSE:
        _logger.warning("%s: %s, and is asked again in %d seconds", place, error, error.pause)
    time.sleep(max(error.pause, _PAUSES[failures - 1]))


def _read_retry_after(response: BaseHTTPResponse) -> int:
    """Return for how many seconds Retry-After of ``response`` asks to wait: a number, or until a date; 0 without."""
    text = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return int(text)
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - rarely needed

    try:
        return max(0, math.ceil(parsedate_to_datetime(text).timestamp() - time.time()))
    except (TypeError, ValueError, IndexError, OverflowError):
        return 0


def _open_once(url: Url, client: _FileClient, place: Place) -> HttpFile | DownloadedFile:
    """Send the opening request. Raises as :func:`open_http_file`.

    :raises ConnectionLostError: the connection broke off.
    """
    with closing(client.send({"Range": f"bytes=0-{BLOCK_SIZE - 1}"})) as response:
        if response.status == 416 and re.fullmatch(r"bytes \*/0", response.headers.get("Content-Range", "")):
            return HttpFile(url, client, _version_of(response, 0), b"")
        _check_status(response, place, client.hint)
        if response.status == 200:
            return _download(url, client, response, place)
        answered = _parse_range(response, place)
        if answered.start or not min(_PROGRESS, answered.total) <= answered.end <= BLOCK_SIZE:
            raise ImageError(f"the server answers with other bytes than were asked for ({answered.text})", place)
        head = b"".join(client.read_body(response, answered.end))
        version = _version_of(response, answered.total)
        if not version.condition:
            _logger.warning("%s: the server tells no version (ETag, Last-Modified), so a change on it goes unseen", url)
        return HttpFile(url, client, version, head)


def _download(url: Url, client: _FileClient, response: BaseHTTPResponse, place: Place) -> DownloadedFile:
    """Keep the whole body of ``response`` in a nameless temporary file. Raises as :func:`_open_once`."""

    def failure(error: OSError) -> OutputError:
        """Return the error to raise for one of writing."""
        return cannot_keep(error, place)

    length = _read_length(response, place)
    told = "" if length is None else f" ({format_size(length)})"
    _logger.warning("%s: the server gives no parts of files, so all of it is downloaded%s", url, told)
    if length is None and not response.headers.get("Transfer-Encoding"):
        _logger.warning("%s: the server does not tell how many bytes there are, so it goes unseen if some are cut", url)
    try:
        file: BinaryIO = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it is closed with the source
    except OSError as error:
        raise failure(error) from error
    size = 0
    try:
        for part in client.read_body(response, length):
            write_all(file.fileno(), part, failure)
            size += len(part)
    except BaseException:
        file.close()
        raise
    client.close()
    return DownloadedFile(url, client, _version_of(response, size), file)


class _Range(NamedTuple):
    """What Content-Range tells: the bytes ``start`` to ``end`` of ``total``; ``text``: all of it, for people."""

    start: int
    end: int
    total: int
    text: str


def _parse_range(response: BaseHTTPResponse, place: Place) -> _Range:
    """Parse Content-Range and compare it with the length of the body. :raises ImageError: they make no sense."""
    text = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", text.strip())
    shown = printable(text[:80]) or "no Content-Range"
    if match is None:
        raise ImageError(f"the server does not tell which part of the file it sends ({shown})", place)
    start, last, total = map(int, match.groups())
    if not start <= last < total:
        raise ImageError(f"the server tells of a part that cannot be ({shown})", place)
    length = _read_length(response, place)
    if length not in (None, last + 1 - start):
        raise ImageError(f"the server tells of {last + 1 - start:,} bytes ({shown}) and sends {length:,}", place)
    return _Range(start, last + 1, total, shown)


def _read_length(response: BaseHTTPResponse, place: Place) -> int | None:
    """Return how many bytes ``response`` says it has; None where it says nothing.

    :raises ImageError: it says none that a file can have, or several (RFC 9110, 8.6): its end is not known.
    """
    text = response.headers.get("Content-Length")
    if text is None:
        return None
    values = {value.strip() for value in text.split(",")}
    value = values.pop()
    if values or not re.fullmatch(r"[0-9]{1,19}", value):
        raise ImageError(f"the server tells of a length that is none ({printable(text[:80])})", place)
    return int(value)


def _version_of(response: BaseHTTPResponse, size: int) -> _Version:
    """Return what ``response`` tells of the file's state, which has ``size`` bytes."""
    etag, modified = (response.headers.get(name, "").strip() for name in ("ETag", "Last-Modified"))
    return _Version(size, etag, modified)


def _check_status(response: BaseHTTPResponse, place: Place, hint: str = "") -> None:
    """Check that ``response`` has the bytes, as they are; ``hint``: what is said where a name is wanted.

    :raises ImageError: it has not. :raises ConnectionLostError: the server fails for the moment.
    """
    status = f"{response.status} {printable(response.reason or '')}".strip()[:80]
    if response.status in _BUSY:
        raise ConnectionLostError(f"the server fails ({status})", pause=_read_retry_after(response))
    if response.status in (404, 410):
        raise AbsentFileError(f"is not there ({status})", place)
    if response.status in (401, 403, 407):
        raise ImageError(f"the server refuses access ({status}){hint if response.status == 401 else ''}", place)
    if response.status not in (200, 206):
        raise ImageError(f"the server answers {status}, and no image", place)
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise ImageError(f"the server packs the image on the way ({printable(coding)}), though it must not", place)


class _FileClient:
    """Sends requests for the file at a URL, along redirects, over connections that are kept."""

    def __init__(self, url: Url, place: Place) -> None:
        """Begin without connections."""
        parts = urlsplit(url.text)
        self._place = place
        self._origin = (parts.scheme.lower(), parts.netloc.rpartition("@")[2].lower())
        self._first = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
        self._target = self._first
        self._secret = {}
        if "@" in parts.netloc:
            user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
            self._secret = dict(urllib3.util.make_headers(basic_auth=user))
        self._connections = Connections(place)

    @property
    def hint(self) -> str:
        """What may help where the server wants a name and a password."""
        if not self._secret:
            return "; a name and a password go into the URL: https://NAME:PASSWORD@..."
        parts = urlsplit(self._target)
        if (parts.scheme, parts.netloc.lower()) != self._origin:
            return f"; {printable(parts.netloc)}, where it redirects to, gets no name and password of another server"
        return " with the name and password in the URL"

    def close(self) -> None:
        """End the connections."""
        self._connections.close()

    def send(self, fields: dict[str, str]) -> BaseHTTPResponse:
        """Return the answer, without its body, to a request for the file with the header ``fields``.

        :raises ConnectionLostError: there is none. :raises ImageError: redirects lead nowhere.
        """
        response = self._follow(self._target, fields)
        if self._target != self._first and response.status in _EXPIRED:
            response.close()
            response = self._follow(self._first, fields)
        return response

    def _follow(self, target: str, fields: dict[str, str]) -> BaseHTTPResponse:
        """Send a request to ``target`` and on along redirects. Raises as :meth:`send`."""
        for _ in range(_MOST_REDIRECTS):
            response = self._send_once(target, fields)
            if response.status not in _REDIRECTS:
                self._target = target
                return response
            response.close()
            target = self._redirected(target, response.headers.get("Location", ""))
        raise ImageError(f"the server redirects more than {_MOST_REDIRECTS} times", self._place)

    def _send_once(self, target: str, fields: dict[str, str]) -> BaseHTTPResponse:
        """Send a request to ``target``; name and password go to the server alone that they were given for."""
        parts = urlsplit(target)
        is_own = (parts.scheme.lower(), parts.netloc.lower()) == self._origin
        headers = {"Accept-Encoding": "identity", "User-Agent": "cosremaster", **fields}
        headers |= self._secret if is_own else {}
        try:
            return self._connections.pool_for(target).request(
                "GET", target, headers=headers, preload_content=False, decode_content=False, redirect=False,
                retries=False, timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
            )  # fmt: skip
        except urllib3.exceptions.HTTPError as error:
            raise describe_failure(error, parts.hostname or "") from error

    def _redirected(self, base: str, location: str) -> str:
        """Return where ``location``, in an answer of ``base``, leads. :raises ImageError: it must not be followed."""
        try:
            target = urljoin(base, escape_url(location.encode("latin-1").decode("utf-8", "replace")))
            parts = urlsplit(target)
            is_sound = bool(location) and parts.scheme in HTTP_SCHEMES and bool(parts.hostname)
            netloc = parts.netloc.rpartition("@")[2]
        except ValueError:
            is_sound, netloc = False, ""
        if not is_sound:
            raise ImageError("the server redirects to what is no http or https URL", self._place)
        if urlsplit(base).scheme == "https" and parts.scheme == "http":
            raise ImageError(f"the server redirects from https to http (on {printable(netloc)})", self._place)
        return parts._replace(netloc=netloc, fragment="").geturl()

    def read_body(self, response: BaseHTTPResponse, length: int | None) -> Iterator[bytes]:
        """Yield the body of ``response`` in parts; ``length``: its bytes, None where nobody knows.

        :raises ConnectionLostError: it breaks off. :raises ImageError: it is longer.
        """
        rest = length
        while rest is None or rest >= 0:
            try:
                part = response.read(_STEP if rest is None else min(_STEP, max(rest, 1)))
            except urllib3.exceptions.HTTPError as error:
                raise describe_failure(error, "") from error
            if not part:
                break
            if rest is not None:
                rest -= len(part)
                if rest < 0:
                    raise ImageError("the server sends more bytes than it tells of", self._place)
            yield part
        if rest:
            raise ConnectionLostError("the connection was cut")
        response.release_conn()
