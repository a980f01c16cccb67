"""Forward-only reading of byte chunks: in exact lengths, with a position, without needless copies."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from cosremaster.errors import CorruptError, Place

CHUNK = 1 << 18
"""The bytes that the package reads at once where nothing else sets the size."""


class ByteReader:
    """Reads a stream of chunks forward, in lengths that the caller chooses.

    ``chunks`` is consumed only as far as needed. ``place`` names the stream in errors; its offset is the reader's
    position. Where the stream ends before the bytes that must follow, :class:`CorruptError` is raised.
    """

    __slots__ = ("_chunks", "_current", "_start", "origin", "place", "position")

    def __init__(self, chunks: Iterable[bytes], place: Place) -> None:
        """Begin at the first byte of ``chunks``."""
        self._chunks: Iterator[bytes] = iter(chunks)
        self._current = b""
        self._start = 0
        self.place = place
        self.origin = 0
        self.position = 0

    @property
    def next_place(self) -> Place:
        """The place of the next byte, for messages."""
        return self.place_at(self.position)

    def place_at(self, position: int) -> Place:
        """Return the place of the byte at ``position``, for messages."""
        return self.place.at(self.origin + position)

    def restart_position(self) -> None:
        """Give position 0 to the next byte. Places do not change; :attr:`origin` is the sum of earlier positions."""
        self.origin += self.position
        self.position = 0

    def _fill(self) -> bool:
        """Take chunks until a byte can be read; return False at the end of the stream."""
        while self._start == len(self._current):
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._current, self._start = chunk, 0
        return True

    def read_some(self, limit: int = CHUNK) -> bytes:
        """Return at most ``limit`` bytes, as many as the next chunk holds; none only at the end of the stream."""
        if not self._fill():
            return b""
        end = min(self._start + limit, len(self._current))
        whole = self._start == 0 and end == len(self._current)
        data = self._current if whole else self._current[self._start : end]
        self._start = end
        self.position += len(data)
        return data

    def read_upto(self, count: int) -> bytes:
        """Return the next ``count`` bytes, fewer where the stream ends."""
        end = self._start + count
        if end <= len(self._current):  # the usual case, on which the walk over an archive's entries depends
            data = self._current[self._start : end]
            self._start = end
            self.position += count
            return data
        first = self.read_some(count)
        if len(first) == count or not first:
            return first
        parts, size = [first], len(first)
        while size < count and (part := self.read_some(count - size)):
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    def read_exactly(self, count: int) -> bytes:
        """Return the next ``count`` bytes. :raises CorruptError: the stream ends before."""
        data = self.read_upto(count)
        if len(data) != count:
            raise self._too_short(self.position + count - len(data))
        return data

    def peek(self, count: int) -> bytes:
        """Return the next ``count`` bytes, fewer where the stream ends, without consuming them."""
        end = self._start + count
        if end <= len(self._current):  # without a copy of all that follows
            return self._current[self._start : end]
        data = self.read_upto(count)
        self.unread(data)
        return data

    def buffered(self) -> tuple[bytes, int]:
        """Return the current chunk and the index in it of the next byte. Nothing is consumed."""
        return self._current, self._start

    def read_view(self, count: int) -> memoryview | None:
        """Return the next ``count`` bytes without a copy; None, and nothing is read, where the chunk has fewer."""
        end = self._start + count
        if end > len(self._current):
            return None
        view = memoryview(self._current)[self._start : end]
        self._start = end
        self.position += count
        return view

    def unread(self, data: bytes) -> None:
        """Put back ``data``, the bytes that were read last."""
        if not data:
            return
        rest = self._current[self._start :]
        self._current, self._start = data + rest, 0
        self.position -= len(data)

    def read_parts(self, count: int) -> Iterator[bytes]:
        """Yield the next ``count`` bytes in parts. :raises CorruptError: the stream ends before."""
        end = self.position + count
        while self.position < end:
            part = self.read_some(end - self.position)
            if not part:
                raise self._too_short(end)
            yield part

    def skip(self, count: int) -> None:
        """Move forward by ``count`` bytes. :raises CorruptError: the stream ends before."""
        end = self._start + count
        if end <= len(self._current):
            self._start = end
            self.position += count
            return
        position = self.position + count
        while self.position < position:
            if not self._fill():
                raise self._too_short(position)
            step = min(position - self.position, len(self._current) - self._start)
            self._start += step
            self.position += step

    def read_rest(self) -> Iterator[bytes]:
        """Yield all bytes that follow, in parts."""
        while part := self.read_some():
            yield part

    def skip_zeros(self) -> None:
        """Move forward to the next byte that is not zero, or to the end of the stream."""
        for chunk in self.read_rest():
            rest = chunk.lstrip(b"\0")
            if rest:
                self.unread(rest)
                return

    def _too_short(self, end: int) -> CorruptError:
        """Return the error for a stream that ends before position ``end``."""
        return CorruptError(f"ends {end - self.position:,} bytes too early", self.next_place)


def count_chunks(chunks: Iterable[bytes], count: Callable[[int], None]) -> Iterator[bytes]:
    """Yield ``chunks`` unchanged; ``count`` is called with the length of each before."""
    for chunk in chunks:
        count(len(chunk))
        yield chunk


class Digest(Protocol):
    """A digest, as hashlib makes them."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Add ``data``."""
        ...

    def digest(self) -> bytes:
        """Return the digest of all bytes so far."""
        ...


def new_sha256() -> Digest:
    """Return a SHA-256 of no bytes. ``hashlib`` loads OpenSSL, which most commands that look do not need."""
    import hashlib  # noqa: PLC0415 - as above

    return hashlib.sha256()


def hash_chunks(chunks: Iterable[bytes], digest: Digest) -> Iterator[bytes]:
    """Yield ``chunks`` unchanged; each is added to ``digest`` before."""
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


class LastBytes:
    """Keeps the last ``size`` bytes of the chunks that it passes on, or a little more."""

    def __init__(self, size: int) -> None:
        """Begin with no bytes."""
        self._limit = size
        self._chunks: deque[bytes] = deque()
        self._size = 0

    def watch(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield ``chunks`` unchanged."""
        for chunk in chunks:
            self._chunks.append(chunk)
            self._size += len(chunk)
            while self._chunks and self._size - len(self._chunks[0]) >= self._limit:
                self._size -= len(self._chunks.popleft())
            yield chunk

    def bytes(self) -> bytes:
        """Return the last bytes that were passed on."""
        return b"".join(self._chunks)


def digest_of(name: str, chunks: Iterable[bytes]) -> bytes:
    """Return the digest of all chunks together; ``name`` is one of hashlib's."""
    import hashlib  # noqa: PLC0415 - a plain listing needs none of it

    digest = hashlib.new(name, usedforsecurity=False)
    for chunk in chunks:
        digest.update(chunk)
    return digest.digest()


def digests_of(names: Iterable[str], chunks: Iterable[bytes]) -> dict[str, str]:
    """Return several digests of all chunks together, from one reading: hashlib's name to hexadecimal digits."""
    import hashlib  # noqa: PLC0415 - the same

    digests = {name: hashlib.new(name, usedforsecurity=False) for name in names}
    for chunk in chunks:
        for digest in digests.values():
            digest.update(chunk)
    return {name: digest.hexdigest() for name, digest in digests.items()}


def same_bytes(first: Iterable[bytes], second: Iterable[bytes]) -> bool:
    """Return whether both hold the same bytes, however they are cut into chunks."""
    readers = ByteReader(first, Place()), ByteReader(second, Place())
    while True:
        data = readers[0].read_upto(CHUNK)
        if data != readers[1].read_upto(CHUNK):
            return False
        if not data:
            return True


def common_prefix_length(first: Iterable[bytes], second: Iterable[bytes]) -> int:
    """Return how many bytes both begin with, however they are cut into chunks."""
    readers = ByteReader(first, Place()), ByteReader(second, Place())
    while True:
        start = readers[0].position
        data, other = readers[0].read_upto(CHUNK), readers[1].read_upto(CHUNK)
        if data != other:
            pairs = enumerate(zip(data, other, strict=False))
            return start + next((index for index, (a, b) in pairs if a != b), min(len(data), len(other)))
        if not data:
            return start


def sha256_of(chunks: Iterable[bytes]) -> bytes:
    """Return the SHA-256 digest of all chunks together."""
    return digest_of("sha256", chunks)
