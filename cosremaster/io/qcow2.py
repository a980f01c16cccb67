"""Disk images in the form of QEMU's qcow2 as a source of bytes (docs/interop/qcow2.rst of QEMU)."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from cosremaster.errors import CorruptError, Place, UnsupportedError
from cosremaster.io.streams import CHUNK
from cosremaster.records.tuples import NamedTuple

if TYPE_CHECKING:
    from types import TracebackType

    from cosremaster.io.source import ByteSource, SourceIdentity

MAGIC = b"QFI\xfb"
"""The first bytes of an image; io.source looks for them too."""

_HEADER = struct.Struct(">4sIQIIQIIQ")
_HEADER_V3 = 104
_MIN_BITS, _MAX_BITS = 9, 21
_MAX_L1 = 1 << 22  # entries: a disk of 2 PiB in clusters of 64 KiB
_CORRUPT, _EXTERNAL, _COMPRESSION, _EXTENDED_L2 = 2, 4, 8, 16
_KNOWN_FEATURES = 0x1F
_OFFSET = 0x00FF_FFFF_FFFF_FE00
_PACKED = 1 << 62
_ZERO = 1
_SUBCLUSTERS = 32
_FORMAT_EXTENSION = 0xE2792ACA
_CACHED_TABLES, _CACHED_CLUSTERS = 64, 64
_MAX_BACKING = 8
_MAX_NAME = 1023
_DEFLATE_WINDOW = -12


class _Header(NamedTuple):
    """What the header says. ``backing``: the name and the format of the file below this one; empty without one."""

    bits: int
    size: int
    l1_size: int
    l1_offset: int
    is_zstd: bool
    has_subclusters: bool
    backing: tuple[str, str]


class Qcow2Source:
    """The disk in a qcow2 image; see :class:`~cosremaster.io.source.ByteSource`. ``file``: the image's own bytes.

    :raises CorruptError: the header is damaged. :raises UnsupportedError: it uses what is not read.
    """

    def __init__(self, file: ByteSource, open_file: Callable[[Path], ByteSource], chain: tuple[Path, ...] = ()) -> None:
        """Read the header; ``open_file`` opens a file as it is. ``chain``: the images that this one stands below."""
        self.file = file
        self.name, self.place = file.name, file.place
        header = _parse_header(file)
        self.size = header.size
        self._header = header
        self._below = _open_backing(file, header, open_file, chain)
        raw = file.read(header.l1_offset, 8 * header.l1_size)
        if len(raw) < 8 * header.l1_size:
            raise CorruptError("the first table of the qcow2 image is cut off", self.place.at(header.l1_offset))
        self._l1 = struct.unpack(f">{header.l1_size}Q", raw)
        self._l2 = lru_cache(_CACHED_TABLES)(self._read_l2)
        self._unpacked = lru_cache(_CACHED_CLUSTERS)(self._unpack)

    @property
    def local_paths(self) -> tuple[Path, ...]:
        """The image's path, and those of the images below it."""
        return (*self.file.local_paths, *(self._below.local_paths if self._below is not None else ()))

    @property
    def is_far(self) -> bool:
        """Whether the image is on another machine."""
        return self.file.is_far

    @property
    def descriptor(self) -> None:
        """The kernel cannot copy from inside a qcow2 image."""
        return

    def __enter__(self) -> Qcow2Source:
        """Return the source itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """End reading."""
        with ExitStack() as stack:
            stack.callback(self.file.close)
            if self._below is not None:
                stack.callback(self._below.close)

    def identity(self) -> SourceIdentity:
        """Return the identity of the file, and of those below it."""
        identity = self.file.identity()
        if self._below is None:
            return identity
        below = self._below.identity()
        state = {**identity.state, **{f"below {key}": value for key, value in below.state.items()}}
        return identity._replace(state={**state, "below": below.name}, is_dated=identity.is_dated and below.is_dated)

    def check_unchanged(self) -> None:
        """Check that nobody wrote to the file, nor to one below it. :raises ImageError: somebody did."""
        self.file.check_unchanged()
        if self._below is not None:
            self._below.check_unchanged()

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes of the disk from ``offset``, fewer where it ends. :raises CorruptError: damage."""
        return b"".join(self._parts(offset, min(length, max(0, self.size - offset))))

    def read_into(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill ``views`` from byte ``offset`` on. :raises CorruptError: the image is damaged, or ends before."""
        for view in views:
            data = self.read(offset, len(view))
            if len(data) < len(view):
                raise CorruptError("ends before its last byte", self.place)
            view[:] = data
            offset += len(view)

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield ``length`` bytes from ``offset`` on. :raises CorruptError: the image is damaged, or ends before."""
        end = offset + length
        while offset < end:
            data = self.read(offset, min(CHUNK, end - offset))
            if not data:
                raise CorruptError("ends before its last byte", self.place)
            yield data
            offset += len(data)

    def _parts(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield the bytes cluster by cluster, or subcluster by subcluster."""
        unit = 1 << self._header.bits
        if self._header.has_subclusters:
            unit //= _SUBCLUSTERS
        end = offset + length
        while offset < end:
            count = min(unit - offset % unit, end - offset)
            yield self._part(offset, count)
            offset += count

    def _part(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes from ``offset``, which lie in one unit of allocation."""
        bits = self._header.bits
        cluster, within = offset >> bits, offset & ((1 << bits) - 1)
        entry, bitmap = self._entry(cluster)
        if entry & _PACKED:
            return self._unpacked(entry)[within : within + count]
        is_zero, is_there = bool(entry & _ZERO), bool(entry & _OFFSET)
        if self._header.has_subclusters:
            place = within * _SUBCLUSTERS >> bits
            is_zero, is_there = bool(bitmap >> (32 + place) & 1), bool(bitmap >> place & 1)
        if is_zero:
            return bytes(count)
        if not is_there:
            below = b"" if self._below is None else self._below.read(offset, count)
            return below.ljust(count, b"\0")
        data = self.file.read((entry & _OFFSET) + within, count)
        if len(data) < count and not self._is_last(cluster):
            raise CorruptError("a cluster of the qcow2 image is outside of the file", self.place.at(entry & _OFFSET))
        return data.ljust(count, b"\0")

    def _is_last(self, cluster: int) -> bool:
        """Return whether ``cluster`` is the last of the disk, which the file may not hold to its end."""
        return (cluster + 1) << self._header.bits >= self.size

    def _entry(self, cluster: int) -> tuple[int, int]:
        """Return the entry of ``cluster`` in its table and the bitmap of its subclusters; zeros for none."""
        size = 16 if self._header.has_subclusters else 8
        per_table = (1 << self._header.bits) // size
        number, place = divmod(cluster, per_table)
        table = self._l1[number] & _OFFSET if number < len(self._l1) else 0
        if not table:
            return 0, 0
        raw = self._l2(table)
        entry = int.from_bytes(raw[place * size : place * size + 8], "big")
        return entry, int.from_bytes(raw[place * size + 8 : place * size + size], "big")

    def _read_l2(self, offset: int) -> bytes:
        """Return the table at ``offset``. :raises CorruptError: it is cut off."""
        raw = self.file.read(offset, 1 << self._header.bits)
        if len(raw) < 1 << self._header.bits:
            raise CorruptError("a table of the qcow2 image is cut off", self.place.at(offset))
        return raw

    def _unpack(self, entry: int) -> bytes:
        """Return the plain bytes of the compressed cluster ``entry``. :raises CorruptError: it is damaged."""
        size = 1 << self._header.bits
        boundary = 62 - (self._header.bits - 8)
        offset = entry & ((1 << boundary) - 1)
        sectors = (entry & (_PACKED - 1)) >> boundary
        packed = self.file.read(offset, (sectors + 1) * 512 - offset % 512)
        try:
            plain = _unpack_zstd(packed, size) if self._header.is_zstd else _inflate(packed, size)
        except (ValueError, zlib.error) as error:
            message = f"a compressed cluster of the qcow2 image cannot be read: {error}"
            raise CorruptError(message, self.place.at(offset)) from error
        if len(plain) != size:
            raise CorruptError("a compressed cluster of the qcow2 image is too short", self.place.at(offset))
        return plain


def _inflate(packed: bytes, size: int) -> bytes:
    """Return ``size`` plain bytes of a deflate stream. :raises zlib.error: it is damaged."""
    return zlib.decompressobj(_DEFLATE_WINDOW).decompress(packed, size)


def _unpack_zstd(packed: bytes, size: int) -> bytes:
    """Return ``size`` plain bytes of a zstd frame. :raises ValueError: it is damaged."""
    from cosremaster.io.zstd_frames import load_zstd, new_decompressor  # noqa: PLC0415 - few images are compressed so

    try:
        return bytes(new_decompressor().decompress(packed, size))
    except load_zstd().ZstdError as error:
        raise ValueError(str(error)) from error


def _parse_header(file: ByteSource) -> _Header:
    """Parse the header. :raises CorruptError: it is damaged. :raises UnsupportedError: it uses what is not read."""
    place = file.place
    raw = file.read(0, 1 << 16)
    if len(raw) < _HEADER.size:
        raise CorruptError("the header of the qcow2 image is cut off", place)
    _, version, backing_at, backing_size, bits, size, encryption, l1_size, l1_offset = _HEADER.unpack_from(raw)
    if version not in (2, 3):
        raise UnsupportedError(f"is a qcow2 image of version {version}, which is not known", place)
    if encryption:
        raise UnsupportedError("is an encrypted qcow2 image, which cannot be read", place)
    features, header_size, compression = 0, 72, 0
    if version == 3:
        if len(raw) < _HEADER_V3:
            raise CorruptError("the header of the qcow2 image is cut off", place)
        (features,) = struct.unpack_from(">Q", raw, 72)
        (header_size,) = struct.unpack_from(">I", raw, 100)
        compression = raw[104] if features & _COMPRESSION and header_size > 104 else 0
    _check_header_features(features, compression, place)
    entry_size = 16 if features & _EXTENDED_L2 else 8
    covered = l1_size << (2 * bits) >> (4 if entry_size == 16 else 3) if bits <= _MAX_BITS else 0
    if not _MIN_BITS <= bits <= _MAX_BITS or l1_size > _MAX_L1 or covered < size:
        raise CorruptError("the header of the qcow2 image has impossible sizes", place)
    backing = ("", "")
    if backing_at:
        if backing_size > _MAX_NAME or backing_at + backing_size > len(raw):
            raise CorruptError("the name of the backing file of the qcow2 image is cut off", place.at(backing_at))
        name = os.fsdecode(raw[backing_at : backing_at + backing_size])
        backing = (name, _backing_format(raw, header_size))
    return _Header(bits, size, l1_size, l1_offset, compression == 1, bool(features & _EXTENDED_L2), backing)


def _check_header_features(features: int, compression: int, place: Place) -> None:
    """Check that each feature is one that is read. :raises UnsupportedError, CorruptError: one is not."""
    if features & _CORRUPT:
        raise CorruptError("is a qcow2 image that is marked as corrupt; qemu-img check may mend it", place)
    if features & _EXTERNAL:
        raise UnsupportedError("is a qcow2 image with its data in another file, which cannot be read", place)
    if features & ~_KNOWN_FEATURES or compression > 1:
        raise UnsupportedError("is a qcow2 image with features that are not known", place)


def _backing_format(raw: bytes, at: int) -> str:
    """Return the format of the backing file, as the extensions behind the header name it; empty if they do not."""
    while at + 8 <= len(raw):
        kind, length = struct.unpack_from(">II", raw, at)
        if not kind:
            break
        if kind == _FORMAT_EXTENSION:
            return raw[at + 8 : at + 8 + length].decode("ascii", "replace")
        at += 8 + (length + 7) // 8 * 8
    return ""


def _is_beside(own: Path, name: str) -> bool:
    """Return whether ``name`` in the image ``own`` means a file in the same folder; it may be an absolute path."""
    named = Path(name)
    if named.is_absolute():
        return ".." not in named.parts and named.parent in (own.parent.absolute(), own.parent.resolve())
    return named.name == name.removeprefix("./")


def _open_backing(
    file: ByteSource, header: _Header, open_file: Callable[[Path], ByteSource], chain: tuple[Path, ...]
) -> ByteSource | None:
    """Open the file that holds what the image does not; None if there is none.

    Only a file beside the image is opened: a name in an image of others must not lead to any file of this machine.

    :raises UnsupportedError: it is not beside the image, or is the end of a long chain, or of a cycle.
    """
    name, kind = header.backing
    if not name:
        return None
    own = file.local_paths[0] if file.local_paths else None
    path = None if own is None else own.parent / Path(name).name
    if own is None or path is None or not _is_beside(own, name) or not path.is_file():
        raise UnsupportedError(f"needs the backing file {name!r}, which is not beside it", file.place)
    resolved = path.resolve()
    chain = (*chain, own.resolve()) if own is not None else chain
    if resolved in chain or len(chain) > _MAX_BACKING:
        raise UnsupportedError(f"its chain of backing files does not end ({name!r})", file.place)
    below = open_file(path)
    try:
        if kind in ("qcow2", "") and below.read(0, len(MAGIC)) == MAGIC:
            return Qcow2Source(below, open_file, chain)
        if kind not in ("raw", ""):
            raise UnsupportedError(f"its backing file {name!r} is of the kind {kind}, which is not known", file.place)
    except BaseException:
        below.close()
        raise
    return below
