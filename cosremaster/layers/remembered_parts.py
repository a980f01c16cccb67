"""What plans packed, remembered for the run that follows, beside the indexes (:mod:`cosremaster.layers.cache_folder`).

A plan writes one file: the parts that it packed, one behind the other; a table of them, sorted by keys; and a footer.
Nothing is believed that does not hold its CRC64, and codecs unpack and compare what they take
(:mod:`cosremaster.codecs.part_memory`). Where a file cannot be written or read, the parts are packed again.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from io import FileIO
from typing import TYPE_CHECKING

from cosremaster.codecs.part_memory import PartKey
from cosremaster.crc import crc64_xz
from cosremaster.errors import CorruptError, CosremasterError, Place
from cosremaster.io.streams import CHUNK
from cosremaster.layers.cache_folder import (
    MAX_PARTS_BYTES,
    PARTS_SUFFIX,
    count_free_bytes,
    open_all_remembered,
    writing_remembered,
)
from cosremaster.layers.formats import PartsUse
from cosremaster.lazy_log import LazyLogger
from cosremaster.records.tuples import NamedTuple

if TYPE_CHECKING:
    from typing import BinaryIO

_LOG = LazyLogger(__name__)

SHARE = 10
"""Of the free bytes of the disk a plan takes at most one in so many."""

_MAGIC = b"cosparts"
_FOOTER = struct.Struct("<QQ8s")
"""Bytes of the table, their CRC64, and the magic."""

_HASHED, _KEY = 8, struct.Struct(">8sQII")
"""Bytes of a method's CRC64; that, size, CRC32, and CRC32 of what stands before. A key's bytes sort as it does."""

_ENTRY = struct.Struct("<QQQ")
"""Where a part begins, its bytes, and their CRC64; behind its key."""

_SAMPLE = 4 << 20
"""Plain bytes whose unpacking is measured."""

_ROW = _KEY.size + _ENTRY.size
_MAX_ROWS = 1 << 17


class _FileOfParts(Sequence[bytes]):
    """A file of parts that is open; as a sequence it is the keys of these, sorted."""

    def __init__(self, file: FileIO) -> None:
        """Read the table of ``file``. :raises ValueError, OSError: it has none that holds."""
        self.file = file
        size = os.fstat(file.fileno()).st_size
        length, crc, magic = _FOOTER.unpack(self._read(max(size - _FOOTER.size, 0), _FOOTER.size))
        self._end = size - _FOOTER.size - length
        if magic != _MAGIC or length % _ROW or length > _MAX_ROWS * _ROW or self._end < 0:
            raise ValueError("no table")
        self._table = self._read(self._end, length)
        if crc64_xz(self._table) != crc:
            raise ValueError("a table that is damaged")
        self._is_used = False

    def _read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes. :raises ValueError: there are less."""
        data = os.pread(self.file.fileno(), length, offset)
        if len(data) < length:
            raise ValueError("less bytes than there should be")
        return data

    def __len__(self) -> int:
        """Return the number of parts."""
        return len(self._table) // _ROW

    def __getitem__(self, number: int) -> bytes:  # type: ignore[override]
        """Return the key of a part."""
        return self._table[number * _ROW : number * _ROW + _KEY.size]

    def find(self, prefix: bytes) -> Iterator[_FilePart]:
        """Yield the parts whose keys begin with ``prefix``."""
        for number in range(bisect_left(self, prefix), len(self)):
            if not self[number].startswith(prefix):
                return
            start, length, crc = _ENTRY.unpack_from(self._table, number * _ROW + _KEY.size)
            if length > 0 and start + length <= self._end:
                yield _FilePart(self, start, length, crc)

    def mark_used(self) -> None:
        """Let the file be one that was used last."""
        if not self._is_used:
            self._is_used = True
            with suppress(OSError):
                os.utime(self.file.fileno())


class _FilePart(NamedTuple):
    """A part in a file; implements :class:`cosremaster.codecs.part_memory.StoredPart`."""

    file: _FileOfParts
    start: int
    length: int
    crc: int

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes. :raises CorruptError: they have another CRC64, or cannot be read."""
        total, at, end = 0, self.start, self.start + self.length
        while at < end:
            try:
                data = os.pread(self.file.file.fileno(), min(CHUNK, end - at), at)
            except OSError as error:
                raise CorruptError(f"a remembered part cannot be read: {error.strerror}", Place()) from error
            if not data:
                raise CorruptError("a remembered part is cut off", Place())
            total = crc64_xz(data, total)
            at += len(data)
            yield data
        if total != self.crc:
            raise CorruptError("a remembered part is damaged", Place())
        self.file.mark_used()


class _Writer:
    """Writes a file of parts, as far as the disk has room."""

    def __init__(self) -> None:
        """Begin without a file."""
        self._closing = ExitStack()
        self._file: BinaryIO | None = None
        self._rows: dict[bytes, bytes] = {}
        self._size = 0
        self._room: int | None = None
        self._has_failed = False

    def write(self, key: bytes, chunks: Iterable[bytes]) -> int:
        """Write a part; return its bytes, 0 where it was not written."""
        if self._has_failed or key in self._rows or len(self._rows) == _MAX_ROWS:
            return 0
        try:
            return self._append(key, chunks)
        except (OSError, CosremasterError) as error:
            self._has_failed = True
            _LOG.info("what is packed is not kept for the run: %s", error)
            self.drop()
            return 0

    def _append(self, key: bytes, chunks: Iterable[bytes]) -> int:
        """Write a part behind the others. Returns as :meth:`write`. :raises OSError, CosremasterError: it cannot be."""
        if self._file is None:
            self._file = self._closing.enter_context(writing_remembered(os.urandom(8).hex() + PARTS_SUFFIX))
            self._room = min(MAX_PARTS_BYTES, count_free_bytes() // SHARE)
        crc, start, at = 0, self._size, self._size
        for chunk in chunks:
            at += len(chunk)
            if at + (len(self._rows) + 1) * _ROW + _FOOTER.size > (self._room or 0):
                self._file.seek(start)
                self._file.truncate()
                return 0
            self._file.write(chunk)
            crc = crc64_xz(chunk, crc)
        self._rows[key] = _ENTRY.pack(start, at - start, crc)
        self._size = at
        return at - start

    def finish(self) -> bool:
        """Give the file its name, if there is one; return whether there is now."""
        if self._file is None or not self._rows:
            self.drop()
            return False
        table = b"".join(key + row for key, row in sorted(self._rows.items()))
        try:
            self._file.write(table + _FOOTER.pack(len(table), crc64_xz(table), _MAGIC))
            self._closing.close()
        except OSError as error:
            _LOG.info("what is packed is not kept for the run: %s", error)
            self.drop()
            return False
        return True

    def drop(self) -> None:
        """Remove the file, if it has no name yet."""
        self._file = None
        with suppress(_DroppedError, OSError), self._closing:
            raise _DroppedError


class _DroppedError(Exception):
    """Makes the context of an unfinished file remove it."""


class RememberedParts:
    """The parts that plans packed; a context manager. Any thread may use it.

    ``stores``: what is packed is kept for the run that follows. It appears with :meth:`finish`.
    """

    def __init__(self, *, stores: bool) -> None:
        """Open what there is."""
        self.stores = stores
        self._files: list[_FileOfParts] = []
        self._lock = threading.Lock()
        self._writer = _Writer()
        self.uses: dict[str, PartsUse] = {}
        """What came of it, by the method of work, as :func:`cosremaster.progress.begin_work` gets it."""
        self.rates: dict[str, float] = {}
        """How many plain bytes of stored parts are unpacked in a second, by the method of work."""
        for file in open_all_remembered(PARTS_SUFFIX, MAX_PARTS_BYTES):
            try:
                self._files.append(_FileOfParts(file))
            except (OSError, ValueError, struct.error):
                file.close()

    @property
    def is_empty(self) -> bool:
        """Whether nothing can be found, and nothing is stored."""
        return not (self._files or self.stores)

    def __enter__(self) -> RememberedParts:
        """Return the parts themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all files, and remove an unfinished one."""
        with self._lock:
            self._writer.drop()
            for file in self._files:
                file.file.close()

    def for_work(self, method: str, threads: int) -> WorkParts:
        """Return the memory for a kind of work, which so many ``threads`` do."""
        return WorkParts(self, method, threads)

    def find(self, prefix: bytes) -> Iterator[_FilePart]:
        """Yield the parts whose keys begin with ``prefix``, those of the file that was used last first."""
        for file in self._files:
            yield from file.find(prefix)

    def store(self, key: bytes, chunks: Iterable[bytes], method: str, plain: int) -> None:
        """Keep a part of ``plain`` bytes under ``key``; ``method``: that of the work."""
        with self._lock:
            packed = self._writer.write(key, chunks)
            if packed:
                self._add(method, PartsUse(plain=plain, packed=packed))

    def count_taken(self, method: str, size: int) -> None:
        """Count ``size`` plain bytes of parts that were taken."""
        with self._lock:
            self._add(method, PartsUse(taken=size))

    def _add(self, method: str, use: PartsUse) -> None:
        """Add ``use`` to that of work by ``method``."""
        self.uses[method] = self.uses.get(method, PartsUse()).plus(use)

    @property
    def total(self) -> PartsUse:
        """What came of it in all."""
        total = PartsUse()
        for use in self.uses.values():
            total = total.plus(use)
        return total

    def finish(self) -> None:
        """Let other runs see what was stored; where that cannot be, nothing was kept."""
        with self._lock:
            if not self._writer.finish():
                self.uses = {method: use._replace(plain=0, packed=0) for method, use in self.uses.items()}


class WorkParts(NamedTuple):
    """Parts for one kind of work; implements :class:`cosremaster.codecs.part_memory.PartMemory`."""

    parts: RememberedParts
    method: str
    threads: int

    @property
    def stores(self) -> bool:
        """Whether what is packed is kept."""
        return self.parts.stores

    def find(self, method: str, size: int, crc: int | None = None, before: int = 0) -> Iterator[_FilePart]:
        """Yield the parts with these values, of any ``crc`` where that is None."""
        key = _KEY.pack(_hash(method), size, crc or 0, before)
        return self.parts.find(key if crc is not None else key[: -_KEY.size + _HASHED + 8])

    def store(self, key: PartKey, chunks: Iterable[bytes]) -> None:
        """Keep a part, where parts are kept."""
        if self.parts.stores:
            packed = _KEY.pack(_hash(key.method), key.size, key.crc, key.before)
            self.parts.store(packed, chunks, self.method, key.size)

    def count_taken(self, size: int) -> None:
        """Count ``size`` plain bytes that were not packed again."""
        self.parts.count_taken(self.method, size)

    def measure(self, chunks: Iterable[bytes], *, is_alone: bool = False) -> None:
        """Measure how quickly the first of ``chunks`` come, unless that is known."""
        if self.method in self.parts.rates:
            return
        start, size = time.perf_counter(), 0
        with suppress(CosremasterError, ValueError, MemoryError):
            for chunk in chunks:
                size += len(chunk)
                if size >= _SAMPLE:
                    break
        seconds = time.perf_counter() - start
        if size and seconds > 0:
            self.parts.rates[self.method] = size / seconds * (1 if is_alone else self.threads)


def _hash(method: str) -> bytes:
    """Return what stands for ``method`` in a key."""
    return crc64_xz(method.encode()).to_bytes(_HASHED, "big")
