"""Forward-only reading over an iterator of byte chunks: exact, counted, without needless copies."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from cosremaster.errors import CorruptError, Place

CHUNK = 1 << 18
"""How many bytes the package reads at once where nothing else sets the size."""


class ByteReader:
    """Reads a stream of chunks as counted bytes.

    ``chunks`` is consumed only as far as asked. ``place`` names the stream in errors; its offset is the
    reader's position. Running dry where bytes must follow raises :class:`CorruptError`.
    """

    __slots__ = ("_chunks", "_current", "_start", "origin", "place", "position")

    def __init__(self, chunks: Iterable[bytes], place: Place) -> None:
        self._chunks: Iterator[bytes] = iter(chunks)
        self._current = b""
        self._start = 0
        self.place = place
        self.origin = 0
        self.position = 0

    @property
    def next_place(self) -> Place:
        """The place of the next byte."""
        return self.place_at(self.position)

    def place_at(self, position: int) -> Place:
        """The place of a byte."""
        return self.place.at(self.origin + position)

    def restart_position(self) -> None:
        """The next byte gets position 0; places stay what they are. :attr:`origin` tells how far that is."""
        self.origin += self.position
        self.position = 0

    def _fill(self) -> bool:
        while self._start == len(self._current):
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._current, self._start = chunk, 0
        return True

    def read_some(self, limit: int = CHUNK) -> bytes:
        """Whatever comes next, at most ``limit`` bytes; empty only at the end of the stream."""
        if not self._fill():
            return b""
        end = min(self._start + limit, len(self._current))
        whole = self._start == 0 and end == len(self._current)
        data = self._current if whole else self._current[self._start : end]
        self._start = end
        self.position += len(data)
        return data

    def read_upto(self, count: int) -> bytes:
        """The next ``count`` bytes, or what is left when the stream ends before."""
        end = self._start + count
        if end <= len(self._current):  # most often so, and the walk over an archive's entries lives on it
            data = self._current[self._start : end]
            self._start = end
            self.position += count
            return data
        first = self.read_some(count)
        if len(first) == count or not first:
            return first
        parts, have = [first], len(first)
        while have < count and (part := self.read_some(count - have)):
            parts.append(part)
            have += len(part)
        return b"".join(parts)

    def read_exactly(self, count: int) -> bytes:
        """The next ``count`` bytes. :raises CorruptError: the stream ends before."""
        start = self.position
        data = self.read_upto(count)
        if len(data) != count:
            raise self._short(start, count)
        return data

    def peek(self, count: int) -> bytes:
        """The next ``count`` bytes (fewer at the end), left to be read again."""
        data = self.read_upto(count)
        self.unread(data)
        return data

    def buffered(self) -> tuple[bytes, int]:
        """What is at hand without another chunk: bytes, and where in them the next one stands. Nothing is consumed."""
        return self._current, self._start

    def unread(self, data: bytes) -> None:
        """Puts back ``data``, the bytes that were read last."""
        if not data:
            return
        rest = self._current[self._start :]
        self._current, self._start = data + rest, 0
        self.position -= len(data)

    def read_parts(self, count: int) -> Iterator[bytes]:
        """The next ``count`` bytes in parts. :raises CorruptError: the stream ends before."""
        start, left = self.position, count
        while left:
            part = self.read_some(left)
            if not part:
                raise self._short(start, count)
            left -= len(part)
            yield part

    def skip(self, count: int) -> None:
        """Leaves out ``count`` bytes. :raises CorruptError: the stream ends before."""
        end = self._start + count
        if end <= len(self._current):
            self._start = end
            self.position += count
            return
        start, left = self.position, count
        while left:
            if not self._fill():
                raise self._short(start, count)
            step = min(left, len(self._current) - self._start)
            self._start += step
            self.position += step
            left -= step

    def read_rest(self) -> Iterator[bytes]:
        """All that is left, in parts."""
        while part := self.read_some():
            yield part

    def _short(self, start: int, count: int) -> CorruptError:
        missing = count - (self.position - start)
        return CorruptError(f"ends {missing:,} bytes too early", self.next_place)


def count_chunks(chunks: Iterable[bytes], count: Callable[[int], None]) -> Iterator[bytes]:
    """``chunks`` unchanged, the length of each told to ``count`` before it is passed on."""
    for chunk in chunks:
        count(len(chunk))
        yield chunk


class Digest(Protocol):
    """A digest of hashlib."""

    def update(self, data: bytes, /) -> None:
        """Takes in ``data``."""
        ...


def hash_chunks(chunks: Iterable[bytes], digest: Digest) -> Iterator[bytes]:
    """``chunks`` unchanged, each taken into ``digest`` before it is passed on."""
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


class LastBytes:
    """Passes chunks on and keeps the last ``keep`` bytes of them, or a little more."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._chunks: deque[bytes] = deque()
        self._size = 0

    def watch(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """``chunks`` unchanged."""
        for chunk in chunks:
            self._chunks.append(chunk)
            self._size += len(chunk)
            while self._size - len(self._chunks[0]) >= self._keep:
                self._size -= len(self._chunks.popleft())
            yield chunk

    def bytes(self) -> bytes:
        """The last bytes that went by."""
        return b"".join(self._chunks)


def digest_of(name: str, chunks: Iterable[bytes]) -> bytes:
    """The digest of all chunks together, by hashlib's ``name``."""
    import hashlib  # noqa: PLC0415 - a plain listing needs none of it

    digest = hashlib.new(name, usedforsecurity=False)
    for chunk in chunks:
        digest.update(chunk)
    return digest.digest()


def digests_of(names: Iterable[str], chunks: Iterable[bytes]) -> dict[str, str]:
    """Several digests of all chunks together in hexadecimal digits, by hashlib's names, from one reading."""
    import hashlib  # noqa: PLC0415 - the same

    found = {name: hashlib.new(name, usedforsecurity=False) for name in names}
    for chunk in chunks:
        for digest in found.values():
            digest.update(chunk)
    return {name: digest.hexdigest() for name, digest in found.items()}


def same_bytes(one: Iterable[bytes], other: Iterable[bytes]) -> bool:
    """True when both hold the same bytes, however they are cut."""
    left, right = ByteReader(one, Place()), ByteReader(other, Place())
    while True:
        data = left.read_upto(CHUNK)
        if data != right.read_upto(CHUNK):
            return False
        if not data:
            return True


def common_prefix_length(one: Iterable[bytes], other: Iterable[bytes]) -> int:
    """How many bytes both begin with, however they are cut."""
    left, right = ByteReader(one, Place()), ByteReader(other, Place())
    while True:
        start, data, beside = left.position, left.read_upto(CHUNK), right.read_upto(CHUNK)
        if data != beside:
            pairs = enumerate(zip(data, beside, strict=False))
            return start + next((at for at, (a, b) in pairs if a != b), min(len(data), len(beside)))
        if not data:
            return start


def sha256_of(chunks: Iterable[bytes]) -> bytes:
    """The SHA-256 digest of all chunks together."""
    return digest_of("sha256", chunks)
