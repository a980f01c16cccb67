"""Bytes that were made for new images and stay while somebody reads these: each content once."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias
from weakref import WeakValueDictionary

from cosremaster.errors import OutputError, Place
from cosremaster.io.descriptors import read_into, write_error
from cosremaster.io.pieces import Buffers
from cosremaster.io.streams import CHUNK

LARGE = 1 << 20
"""Bytes from which on a content goes to a file."""


class MemoryBlob:
    """Bytes in memory; a direct source. ``digest``: their SHA-256."""

    name = "memory"

    def __init__(self, data: bytes, digest: bytes) -> None:
        """Keep the arguments."""
        self.data, self.digest = data, digest

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield ``length`` bytes from ``offset`` on."""
        yield self.data[offset : offset + length]

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill ``views``, one after another, with the bytes from ``offset`` on."""
        buffers = Buffers(views)
        buffers.put(self.data[offset : offset + buffers.length])


class StoredBlob:
    """Bytes in the file of ``store``, a direct source. It gets their room back when nobody holds them any more."""

    name = "temporary data"

    def __init__(self, store: BlobStore, start: int, length: int, digest: bytes) -> None:
        """Keep the arguments; ``start`` is their offset in the file, and ``digest`` their SHA-256."""
        self._store, self._start = store, start
        self._length, self.digest = length, digest

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill ``views``, one after another, with the bytes from ``offset`` on. :raises OutputError: a read fails."""
        self._store.fill(self._start + offset, views)

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield ``length`` bytes from ``offset`` on. :raises OutputError: a read fails."""
        for start in range(offset, offset + length, CHUNK):
            data = bytearray(min(CHUNK, offset + length - start))
            self.fill(start, [memoryview(data)])
            yield bytes(data)

    def __del__(self) -> None:
        """Give the room in the file back."""
        self._store.free_room(self._start, self._length)


Blob: TypeAlias = MemoryBlob | StoredBlob


class BlobStore:
    """Contents of any length, each kept once, and for as long as anybody holds the blob that :meth:`put` returned.

    Large ones are in a nameless file in ``folder``, which is made with the first of them. Threads may share a store.
    """

    def __init__(self, folder: Path) -> None:
        """Begin without contents."""
        self._folder, self._place = folder, Place((str(folder),))
        self._blobs: WeakValueDictionary[bytes, Blob] = WeakValueDictionary()
        self._lock = threading.RLock()  # a blob may be dropped in the middle of anything
        self._fd: int | None = None
        self._end = 0
        self._rooms: list[tuple[int, int]] = []  # the free ones in front of the end: start and end

    def __del__(self) -> None:
        """Close the file, which removes it."""
        fd, self._fd = self._fd, None  # a blob may go later, and the number be that of another file then
        if fd is not None:
            os.close(fd)

    def put(self, chunks: Iterable[bytes], length: int) -> Blob:
        """Return ``chunks`` of together ``length`` bytes as a blob: the same one for equal bytes.

        :raises OutputError: the folder has no room for them. Raises what ``chunks`` raises.
        """
        if length < LARGE:
            data = b"".join(chunks)
            return self._share(MemoryBlob(data, hashlib.sha256(data).digest()))
        with self._lock:
            start = self._take_room(length)
        try:
            digest, offset = hashlib.sha256(), start
            for chunk in chunks:
                digest.update(chunk)
                offset = self._write(chunk, offset)
        except BaseException:
            self.free_room(start, length)
            raise
        return self._share(StoredBlob(self, start, length, digest.digest()))

    def _share(self, blob: Blob) -> Blob:
        """Return the first blob with the bytes of ``blob``."""
        with self._lock:
            return self._blobs.setdefault(blob.digest, blob)

    def _open(self) -> int:
        """Return the descriptor of the file, a new one the first time."""
        if self._fd is None:
            import tempfile  # noqa: PLC0415 - few contents are large

            try:
                with tempfile.TemporaryFile(dir=self._folder, buffering=0) as file:
                    self._fd = os.dup(file.fileno())
            except OSError as error:
                raise write_error(error, "temporary data", self._place) from error
        return self._fd

    def _write(self, data: bytes, offset: int) -> int:
        """Write ``data`` at byte ``offset`` of the file and return the offset behind it."""
        view = memoryview(data)
        while view:
            try:
                count = os.pwrite(self._open(), view, offset)
            except OSError as error:
                raise write_error(error, "temporary data", self._place) from error
            view, offset = view[count:], offset + count
        return offset

    def _take_room(self, length: int) -> int:
        """Return where ``length`` bytes have room in the file: the first gap of that size, or its end."""
        self._open()
        for number, (start, end) in enumerate(self._rooms):
            if end - start >= length:
                self._rooms[number : number + 1] = [(start + length, end)] if end - start > length else []
                return start
        self._end += length
        return self._end - length

    def free_room(self, start: int, length: int) -> None:
        """Take ``length`` bytes at ``start`` of the file back."""
        with self._lock:
            rooms: list[tuple[int, int]] = []
            for room in sorted([*self._rooms, (start, start + length)]):
                if rooms and rooms[-1][1] == room[0]:
                    rooms[-1] = (rooms[-1][0], room[1])
                else:
                    rooms.append(room)
            if rooms[-1][1] == self._end and self._fd is not None:
                self._end = rooms.pop()[0]
                os.ftruncate(self._fd, self._end)
            self._rooms = rooms

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill ``views`` with the bytes of the file from ``offset`` on. :raises OutputError: a read fails."""
        try:
            count = read_into(self._open(), offset, views)
        except OSError as error:
            raise OutputError(f"temporary data cannot be read: {error.strerror}", self._place) from error
        if count < sum(map(len, views)):
            raise OutputError("temporary data vanished while it was needed", self._place)
