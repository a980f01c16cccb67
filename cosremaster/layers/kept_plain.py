"""Plain bytes of streams that take long to decode, kept in temporary files from indexing until they are packed anew.

They save time and nothing else: where they cannot be kept, the stream is decoded a second time.
"""

from __future__ import annotations

import shutil
import threading
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from cosremaster.errors import OutputError, Place
from cosremaster.io.pieces import Range
from cosremaster.io.spool import Spool
from cosremaster.io.zstd_frames import MAGIC, has_zstd, new_compressor, pack_frame, unpack_frame
from cosremaster.records.tuples import NamedTuple

if TYPE_CHECKING:
    from cosremaster.codecs.gzip.deflate import DeflatedAhead

BLOCK = 1 << 20
"""The least plain bytes of a block, which is compressed by itself."""

SHARE = 4
"""Of the free bytes of the disk at most one in so many is taken."""

SLOW_CODECS = frozenset(("xz", "lzma", "bzip2"))
"""Codecs that decode far slower than zstd packs and unpacks at its first level."""


class Deflating(NamedTuple):
    """How plain bytes are deflated: by which coder, at which level of zlib, on how many threads."""

    coder: str
    level: int
    threads: int


class PlainKeeper:
    """Keeps plain bytes in nameless files in ``folder``, as long as the context lasts and the disk has room.

    ``is_whole``: all plain bytes are packed anew; else what stays packed is kept so, and no plain bytes are.
    ``deflating``: how, where that is by a fast coder of gzip.
    """

    def __init__(self, folder: Path, *, is_whole: bool = True, deflating: Deflating | None = None) -> None:
        """Begin without files."""
        self.folder, self.is_whole, self._deflating = folder, is_whole, deflating
        self.is_open = True
        self.closing = ExitStack()
        self._lock = threading.Lock()
        self._room: int | None = None

    def __enter__(self) -> PlainKeeper:
        """Return the keeper itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the files; who reads the streams later decodes them."""
        self.is_open = False
        self.closing.close()

    def keep(self, codec: str) -> KeptPlain | None:
        """Return what keeps the plain bytes of a stream under ``codec``; None where decoding takes no time."""
        if codec not in SLOW_CODECS or not (self.is_open and self.is_whole):
            return None
        spool = self.closing.enter_context(Spool(self.folder))
        if self._deflating is None:
            return KeptPlain(self, spool)
        from cosremaster.layers.packed_ahead import DeflatedPlain  # noqa: PLC0415 - few streams become gzip ones

        return DeflatedPlain(self, spool, self.closing.enter_context(Spool(self.folder)), self._deflating)

    def take(self, count: int) -> bool:
        """Return whether the disk has room for ``count`` bytes more, which are then taken."""
        with self._lock:
            if self._room is None:
                self._room = shutil.disk_usage(self.folder).free // SHARE
            self._room -= count
            return self._room >= 0


class LastBlock(NamedTuple):
    """The plain bytes of a block, which is at place ``number``."""

    number: int
    plain: bytes


class KeptPlain:
    """The plain bytes of one stream, in compressed blocks that are read in any order.

    ``is_complete``: all of them are there.
    """

    def __init__(self, keeper: PlainKeeper, spool: Spool) -> None:
        """Begin with no bytes."""
        self._keeper, self._spool = keeper, spool
        self._starts = array("Q", [0])  # the plain offset of each block, and the end
        self._ranges: list[Range] = []
        self._has_ended = False
        self._thread = threading.local()

    @property
    def is_complete(self) -> bool:
        """Whether all bytes can be read here."""
        return self._has_ended and self._keeper.is_open

    @property
    def ahead(self) -> DeflatedAhead | None:
        """The deflate blocks that are kept; None where the bytes are kept in another form."""
        return None

    def watch(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield ``chunks`` unchanged, and keep them; what cannot be written ends keeping and nothing else."""
        compress = _new_packer()
        batch: list[bytes] = []
        size, is_kept = 0, True
        for chunk in chunks:
            if is_kept:
                batch.append(chunk)
                size += len(chunk)
                if size >= BLOCK:
                    is_kept = self._append(compress(b"".join(batch)), size)
                    batch, size = [], 0
            yield chunk
        self._has_ended = is_kept and (not size or self._append(compress(b"".join(batch)), size))

    def _append(self, packed: bytes, size: int) -> bool:
        """Keep a block of ``size`` plain bytes; return False where there is no room."""
        try:
            if not self._keeper.take(len(packed)):
                return False
            self._ranges.append(self._spool.append([packed], packed=True))
        except (OSError, OutputError):
            return False
        self._starts.append(self._starts[-1] + size)
        return True

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield ``length`` bytes from ``offset`` on. :raises OutputError: the temporary file is damaged."""
        end = offset + length
        number = bisect_right(self._starts, offset) - 1
        while offset < end:
            plain, start = self._block(number), self._starts[number]
            part = plain[offset - start : end - start]
            yield part
            offset += len(part)
            number += 1

    def _block(self, number: int) -> bytes:
        """Return the plain bytes of the block at place ``number``; each thread keeps the last."""
        block: LastBlock | None = getattr(self._thread, "block", None)
        if block is None or block.number != number:
            stored = self._ranges[number]
            try:
                plain = _unpack(stored.read(0, stored.length), self._starts[number + 1] - self._starts[number])
            except (ValueError, zlib.error) as error:
                place = Place((str(self._keeper.folder),))
                raise OutputError(f"temporary data are damaged ({error})", place) from error
            self._thread.block = block = LastBlock(number, plain)
        return block.plain


def _new_packer() -> Callable[[bytes], bytes]:
    """Return what packs a block quickly: by zstd, or by zlib where there is none."""
    if not has_zstd():
        return lambda data: zlib.compress(data, 1)
    compressor = new_compressor(1, checksum=True, sized=True)
    return lambda data: pack_frame(compressor, data)


def _unpack(packed: bytes, size: int) -> bytes:
    """Return the ``size`` plain bytes of a block. :raises ValueError, zlib.error: it is damaged."""
    return unpack_frame(packed, size) if packed.startswith(MAGIC) else zlib.decompress(packed)
