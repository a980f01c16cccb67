"""A file on another machine as a source of bytes: fetched in blocks, each once, ahead of who reads a stream."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

from cosremaster.errors import ImageError, Place, UnsupportedError, printable
from cosremaster.io.fetched_blocks import BLOCK_SIZE, FetchedBlocks, cannot_keep
from cosremaster.io.shared_use import SharedUse
from cosremaster.io.source import SourceIdentity
from cosremaster.io.streams import CHUNK
from cosremaster.io.urls import HTTP_SCHEMES, AbsentFileError, ChangedFileError, Url

if TYPE_CHECKING:
    from pathlib import Path

_MOST_AHEAD = (1 << 20) // BLOCK_SIZE
"""Blocks that are fetched ahead at most while a stream is read."""

_MOST_AT_ONCE = (4 << 20) // BLOCK_SIZE
"""Blocks of a request at most."""

_STREAMS = 32
"""How many streams may be read at the same time, each with its own blocks ahead."""


class RemoteFile(Protocol):
    """A file that is fetched in ranges: how a scheme of URLs does that.

    ``head``: its first bytes, which came when it was opened. ``state`` is that of
    :class:`~cosremaster.io.source.SourceIdentity`; ``is_dated``: the server tells when the file changes. ``is_here``:
    all of it was downloaded, and no block needs to be kept. ``is_conditional``: what is fetched is of the file that was
    opened, or it is an error.
    """

    is_here: bool
    is_conditional: bool
    size: int
    head: bytes
    state: dict[str, int | str]
    is_dated: bool

    def fetch(self, start: int, end: int) -> bytes:
        """Return the bytes ``start`` to ``end``. :raises ImageError: they cannot be had, or the file changed."""
        ...

    def check_unchanged(self) -> None:
        """Ask the server for its state, unless all is here. :raises ChangedFileError: it changed since the opening."""
        ...

    def check_current(self) -> None:
        """Ask the server for its state. Raises as :meth:`check_unchanged`."""
        ...

    def close(self) -> None:
        """End the connections."""
        ...


class RemoteSource:
    """A remote file; see :class:`~cosremaster.io.source.ByteSource`.

    Everybody who opens a URL while it is open gets the same source, until somebody sees that the file changed; it
    closes with the last of them.
    """

    descriptor = None

    def __init__(self, url: Url, file: RemoteFile, blocks: FetchedBlocks) -> None:
        """Take over ``file``, and ``blocks`` with what is fetched of it."""
        self.name = printable(str(url))
        self.place = Place((self.name,))
        self.size = file.size
        self._url, self._file, self._blocks = url, file, blocks
        self._lock = threading.Lock()
        self._checks_each = False
        self._ahead: dict[int, int] = {}  # the block that a stream wants next, and how many it gets
        self._store(0, file.head)
        self._use = SharedUse(self._end, self.name)
        self.is_far = not file.is_here

    @property
    def local_paths(self) -> tuple[Path, ...]:
        """No file of this machine."""
        return ()

    def __repr__(self) -> str:
        """Return the class and what may be shown of the URL."""
        return f"RemoteSource({self.name!r})"

    def __enter__(self) -> RemoteSource:
        """Return the source itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close the source. :raises ImageError: requests held no condition, and the file is another than at first."""
        try:
            if kind is None:
                self.check_fetched()
        finally:
            self.close()

    def check_fetched(self) -> None:
        """Check that what was fetched is of one file. :raises ImageError: it may not be; where it must, nobody asks."""
        if not self._file.is_conditional:
            self.check_unchanged()

    def check_each_fetch(self) -> None:
        """Ask behind each fetch from now on, too, where requests hold no condition: for who cannot wait for the end.

        :raises ImageError: what was fetched until now may be of two files.
        """
        with self._lock:
            self._checks_each = not self._file.is_conditional
        if self._checks_each:
            self.check_unchanged()

    def share(self) -> RemoteSource:
        """Return the source for one more user, who closes it too."""
        self._use.begin()
        return self

    def close(self) -> None:
        """End reading, with the last user."""
        with _OPENING:
            self._use.end()

    def _end(self) -> None:
        """End the connections, and give up what was fetched."""
        self._retire()
        self._file.close()
        self._blocks.close()

    def keep_whole(self) -> None:
        """Keep all blocks from now on, so that none comes twice. Reading raises OutputError where there is no room."""
        with self._lock:
            self._blocks.keep_all(self.size)

    def identity(self) -> SourceIdentity:
        """Return a digest of the URL, without user and password, and what the server tells of the file's state."""
        import hashlib  # noqa: PLC0415 - loads OpenSSL, which a listing does not need

        scheme, _, rest = self._url.text.partition("://")
        authority, slash, path = rest.partition("/")
        public = f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
        name = hashlib.sha256(public.encode()).hexdigest()[:40]
        return SourceIdentity(f"url-{name}", {"size": self.size, **self._file.state}, self._file.is_dated)

    def check_unchanged(self) -> None:
        """Ask the server. :raises ImageError: the file is another since it was opened."""
        with self._seeing_changes():
            self._file.check_unchanged()

    def check_current(self) -> None:
        """Ask the server, also where all is on this machine.

        :raises ChangedFileError: the file is another since it was opened. :raises AbsentFileError: it is gone.
        :raises ImageError: the server does not say.
        """
        with self._seeing_changes():
            self._file.check_current()

    @contextmanager
    def _seeing_changes(self) -> Iterator[None]:
        """Ask the server in this context; whoever opens the URL behind a change opens the file that is there then."""
        try:
            yield
        except (AbsentFileError, ChangedFileError):
            with _OPENING:
                self._retire()
            raise

    def _retire(self) -> None:
        """Let nobody get this source who opens the URL from now on."""
        if _OPENED.get(self._url) is self:
            del _OPENED[self._url]

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``, fewer where the file ends. :raises ImageError: a read fails."""
        return b"".join(self._parts(offset, min(length, max(0, self.size - offset))))

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield ``length`` bytes from ``offset`` on. :raises ImageError: the file ends before."""
        end = offset + length
        while offset < end:
            data = self.read(offset, min(CHUNK, end - offset))
            if not data:
                raise ImageError(f"ends {end - offset:,} bytes too early", self.place.at(offset))
            yield data
            offset += len(data)

    def read_into(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill ``views``, one after another, from byte ``offset`` on. :raises ImageError: the file ends before."""
        end = offset + sum(map(len, views))
        if end > self.size:
            raise ImageError(f"ends {end - self.size:,} bytes too early", self.place.at(self.size))
        for view in views:
            at = 0
            for part in self._parts(offset, len(view)):
                view[at : at + len(part)] = part
                at += len(part)
            offset += len(view)

    def _parts(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield ``length`` bytes from ``offset`` on, which the file has, in parts of some MiB at most."""
        end = offset + length
        while offset < end:
            first = offset // BLOCK_SIZE
            count = min(-(-end // BLOCK_SIZE) - first, _MOST_AT_ONCE)
            with self._lock:
                data = self._take(first, count)
            part = data[offset - first * BLOCK_SIZE : end - first * BLOCK_SIZE]
            yield part
            offset += len(part)

    def _take(self, first: int, count: int) -> bytes:
        """Return ``count`` blocks from number ``first`` on; those that are not here are fetched."""
        if self._file.is_here:
            return self._file.fetch(first * BLOCK_SIZE, min((first + count) * BLOCK_SIZE, self.size))
        blocks = {number: self._blocks.read(number) for number in range(first, first + count)}
        missing = [number for number, data in blocks.items() if data is None]
        while missing:
            end = missing[0] + 1
            # A block that is here between two that are not is cheaper fetched again than a request more.
            while end - 1 != missing[-1] and (end in missing or end + 1 in missing):
                end += 1
            blocks.update(self._fetch(missing[0], end))
            missing = [number for number in missing if number >= end]
        return b"".join(data or b"" for data in (blocks[number] for number in range(first, first + count)))

    def _fetch(self, start: int, end: int) -> dict[int, bytes]:
        """Fetch and keep the blocks from number ``start`` to ``end``, and some more where a stream is read."""
        last = -(-self.size // BLOCK_SIZE)
        window = min(2 * self._ahead.pop(start, 0), _MOST_AHEAD)
        stop = end
        while stop < min(start + window, last) and stop not in self._blocks:
            stop += 1
        self._ahead[stop] = max(stop - start, window // 2)
        if len(self._ahead) > _STREAMS:
            del self._ahead[next(iter(self._ahead))]
        with self._seeing_changes():
            data = self._file.fetch(start * BLOCK_SIZE, min(stop * BLOCK_SIZE, self.size))
            if self._checks_each:
                self._file.check_unchanged()
        return self._store(start, data)

    def _store(self, first: int, data: bytes) -> dict[int, bytes]:
        """Keep ``data``, whole blocks from number ``first`` on or the end of the file, and return them by number."""
        blocks: dict[int, bytes] = {}
        for at in range(0, len(data), BLOCK_SIZE):
            part = data[at : at + BLOCK_SIZE]
            number = first + at // BLOCK_SIZE
            if len(part) == BLOCK_SIZE or number * BLOCK_SIZE + len(part) == self.size:
                blocks[number] = part
                try:
                    self._blocks.store(number, part)
                except OSError as error:
                    raise cannot_keep(error, self.place) from error
        return blocks


_OPENED: dict[Url, RemoteSource] = {}
_OPENING = threading.Lock()  # of both, for moments
_BEING_OPENED: WeakValueDictionary[Url, threading.Lock] = WeakValueDictionary()
"""A lock for each URL that somebody opens: a server may take long, and nobody who uses another waits for it."""


def open_remote(url: Url) -> RemoteSource:
    """Open the file at ``url``.

    :raises ImageError: it is not there, or the server does not give it. :raises UsageError: there is no such scheme.
    :raises UnsupportedError: what reads such a URL is not installed.
    """
    with _OPENING:
        lock = _BEING_OPENED.setdefault(url, threading.Lock())
    with lock:
        with _OPENING:
            source = _OPENED.get(url)
            if source is not None:
                return source.share()
        source = RemoteSource(url, _open_file(url), FetchedBlocks())
        with _OPENING:
            _OPENED[url] = source
        return source


def _open_file(url: Url) -> RemoteFile:
    """Open the file at ``url`` by its scheme. Raises as :func:`open_remote`."""
    if url.scheme in HTTP_SCHEMES:
        try:
            from cosremaster.io.http_file import open_http_file  # noqa: PLC0415 - optional, and takes 0.1 s
        except ImportError as error:
            raise UnsupportedError(
                "is read through urllib3, which is not installed here (pip install 'cosremaster[remote]')",
                Place((printable(str(url)),)),
            ) from error
        return open_http_file(url)
    from cosremaster.io.fsspec_file import FsspecFile  # noqa: PLC0415 - the same

    return FsspecFile(url)
