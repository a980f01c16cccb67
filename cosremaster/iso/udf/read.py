"""UDF beside ISO 9660 on one image (a bridge): our own raw walk, with places (ECMA-167; section numbers are its).

Everything here reads. Blocks inside the partition count from its start; values here are blocks of the image.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from fastcrc import crc16
from msgspec import Struct, field

from cosremaster.errors import ImageError, Place, UnsupportedError
from cosremaster.io.source import ByteSource
from cosremaster.iso.spans import Span
from cosremaster.units import BLOCK, Lba, blocks_for, lba_offset

ANCHOR, PARTITION, LOGICAL_VOLUME, TERMINATOR, INTEGRITY = 2, 5, 6, 8, 9
FILE_SET, FILE_ID, FILE_ENTRY, EXTENDED_ENTRY = 256, 257, 261, 266
FIRST_ANCHOR = Lba(256)
TAG_SIZE = 16
MAX_DIRECTORY = 1 << 26
MAX_SEQUENCE = 64
_TAG = struct.Struct("<HHBBHHHI")  # 3/7.2
_NAMES = {
    1: "primary volume descriptor", ANCHOR: "anchor", 4: "implementation use volume descriptor",
    PARTITION: "partition descriptor", LOGICAL_VOLUME: "logical volume descriptor", 7: "unallocated space descriptor",
    TERMINATOR: "terminating descriptor", INTEGRITY: "integrity descriptor", FILE_SET: "file set descriptor",
    FILE_ID: "file identifier", FILE_ENTRY: "file entry", EXTENDED_ENTRY: "extended file entry",
}  # fmt: skip
_DIRECTORY_TYPE = 4  # 4/14.6.6
_DELETED, _PARENT = 0x04, 0x08  # 4/14.4.3


class DescriptorTag(Struct, frozen=True):
    """A descriptor's tag. ``offset``: bytes in the image; ``told`` and ``stands``: the block it names and its own."""

    offset: int
    id: int
    tag_location: int
    true_location: int
    has_valid_checksum: bool
    has_valid_crc: bool

    @property
    def name(self) -> str:
        """What it is, in words."""
        return _NAMES.get(self.id, f"descriptor {self.id}")

    @property
    def is_sound(self) -> bool:
        """Checksum, CRC and place hold."""
        return self.has_valid_checksum and self.has_valid_crc and self.tag_location == self.true_location


class UdfFile(Struct, frozen=True):
    """A file. ``entry``: byte offset of its file entry; ``allocation``: where in it descriptors begin.

    ``kind``: 0 for short, 1 for long allocation descriptors; ``extents``: block and bytes of each.
    ``recorded``: logical blocks that the entry says are recorded.
    """

    path: tuple[str, ...]
    entry_offset: int
    is_extended: bool
    allocation_offset: int
    allocation_type: int
    size: int
    recorded_blocks: int
    extents: tuple[tuple[Lba, int], ...]


class FileIdentifier(Struct, frozen=True):
    """A file identifier in a directory (4/14.4): its bytes, the name, and the partition's block of its file entry."""

    raw: bytes
    name: str
    icb_block: int


class UdfDirectory(Struct, frozen=True):
    """A directory: its own file entry, and the names in it but its parent's. ``inline``: they stand in that entry."""

    file_entry: UdfFile
    is_inline: bool
    identifiers: tuple[FileIdentifier, ...]

    @property
    def block(self) -> Lba:
        """The image's block of its file entry."""
        return Lba(self.file_entry.entry_offset // BLOCK)


class Udf(Struct, frozen=True, kw_only=True):
    """A UDF file system. ``anchors``: their blocks; ``partition`` its span in the image.

    ``partition_descriptors``: byte offsets, one in each volume descriptor sequence; ``integrity``: those of the
    integrity descriptors; ``volume``: the logical volume descriptor; ``spans``: what metadata take, without the
    anchors that end the image; ``tail``: those, None where the image does not end with anchors. ``folders``: the
    root first.
    """

    tags: tuple[DescriptorTag, ...]
    anchors: tuple[Lba, ...]
    partition: Span
    partition_descriptors: tuple[int, ...]
    partition_lengths: tuple[int, ...]
    integrity_descriptors: tuple[int, ...]
    integrity_sizes: tuple[int, ...]
    integrity_counts: tuple[int, int] | None
    directories: tuple[UdfDirectory, ...]
    files: tuple[UdfFile, ...]
    metadata_spans: tuple[Span, ...]
    tail_anchors: Span | None

    @property
    def directory_count(self) -> int:
        """How many there are."""
        return len(self.directories)

    def named_files(self) -> Iterator[tuple[tuple[str, ...], UdfFile]]:
        """Every name of every file, in :attr:`files` just one of several that it has."""
        by_block = {one.entry_offset // BLOCK - self.partition.start: one for one in self.files}
        for folder in self.directories:
            for one in folder.identifiers:
                if one.icb_block in by_block:
                    yield (*folder.file_entry.path, one.name), by_block[one.icb_block]


def read_udf(source: ByteSource, blocks: int) -> Udf | None:
    """The UDF file system of an image whose ISO 9660 volume has ``blocks`` blocks; None where there is none.

    Tags that do not hold are told in ``tags``. :raises ImageError: what they lead to cannot be followed.
    :raises UnsupportedError: it is not laid out as on a bridge of one partition.
    """
    if not has_udf(source):
        return None
    return _UdfReader(source, blocks).read()


def has_udf(source: ByteSource) -> bool:
    """True when the volume recognition sequence (2/9.1) names UDF."""
    for lba in range(16, 16 + MAX_SEQUENCE):
        kind = source.read(lba * BLOCK + 1, 5)
        if kind in (b"NSR02", b"NSR03"):
            return True
        if kind not in (b"CD001", b"BEA01", b"BOOT2"):
            return False
    return False


class _UdfReader(Struct):
    """The state of one reading."""

    source: ByteSource
    blocks: int
    tags: list[DescriptorTag] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    start: int = 0
    length: int = 0

    def read(self) -> Udf:
        anchors = [FIRST_ANCHOR]
        head = self._descriptor(FIRST_ANCHOR, FIRST_ANCHOR, (ANCHOR,))
        self.spans.append(Span(FIRST_ANCHOR, 1, "UDF anchor"))
        tail = self._tail()
        anchors += [Lba(lba) for lba in range(tail.start, tail.end)] if tail else []
        partitions, volumes = list[tuple[int, bytes]](), list[bytes]()
        for at in (16, 24):
            length, lba = struct.unpack_from("<II", head, at)  # 3/10.2
            for offset, raw in self._sequence(Lba(lba), length):
                if _id(raw) == PARTITION:
                    partitions.append((offset, raw))
                elif _id(raw) == LOGICAL_VOLUME:
                    volumes.append(raw)
        if not partitions or not volumes:
            raise ImageError("UDF has no partition or no logical volume", self._at(FIRST_ANCHOR))
        shapes = [struct.unpack_from("<II", raw, 188) for _, raw in partitions]
        if len({start for start, _ in shapes}) != 1 or struct.unpack_from("<I", volumes[0], 268)[0] != 1:
            raise UnsupportedError("its UDF has several partitions", self.source.place)
        self.start, self.length = shapes[0]
        if struct.unpack_from("<I", volumes[0], 212)[0] != BLOCK:
            raise UnsupportedError("its UDF blocks are not of 2,048 bytes", self.source.place)
        integrity = self._integrity(volumes[0])
        files, folders = self._files(volumes[0])
        return Udf(
            tags=tuple(self.tags),
            anchors=tuple(anchors),
            partition=Span(Lba(self.start), self.length, "UDF partition"),
            partition_descriptors=tuple(offset for offset, _ in partitions),
            partition_lengths=tuple(length for _, length in shapes),
            integrity_descriptors=tuple(offset for offset, _, _ in integrity),
            integrity_sizes=tuple(one[1] for one in integrity),
            integrity_counts=integrity[-1][2] if integrity else None,
            directories=tuple(folders),
            files=tuple(files),
            metadata_spans=tuple(self.spans),
            tail_anchors=tail,
        )

    def _at(self, lba: int) -> Place:
        return self.source.place.at(lba * BLOCK)

    def _tag(self, raw: bytes, offset: int, stands: int) -> DescriptorTag:
        """The tag in front of ``raw`` (3/7.2), noted."""
        kind, _, checksum, _, _, crc, length, told = _TAG.unpack_from(raw)
        body = raw[TAG_SIZE : TAG_SIZE + length]
        tag = DescriptorTag(
            offset,
            kind,
            told,
            stands,
            compute_tag_checksum(raw) == checksum,
            len(body) == length and crc16.xmodem(body) == crc,
        )
        self.tags.append(tag)
        return tag

    def _descriptor(self, lba: Lba, told: int, kinds: Iterable[int]) -> bytes:
        """The descriptor in block ``lba``, which its tag should call ``told``. :raises ImageError: it is another."""
        raw = self.source.read(lba_offset(lba), BLOCK)
        if len(raw) < BLOCK:
            raise ImageError("UDF leads behind the image's end", self._at(lba))
        if _id(raw) not in kinds:
            wanted = " or ".join(_NAMES[kind] for kind in kinds)
            raise ImageError(f"UDF {wanted} is not where it should be", self._at(lba))
        self._tag(raw, lba_offset(lba), told)
        return raw

    def _tail(self) -> Span | None:
        """The run of anchors that ends the volume (genisoimage fills its padding with them)."""
        first = self.blocks
        while first - 1 > FIRST_ANCHOR:
            raw = self.source.read((first - 1) * BLOCK, BLOCK)
            if len(raw) < BLOCK or _id(raw) != ANCHOR or raw[20:24] != self.source.read(FIRST_ANCHOR * BLOCK + 20, 4):
                break
            first -= 1
            self._tag(raw, first * BLOCK, first)
        return Span(Lba(first), self.blocks - first, "UDF anchors") if first < self.blocks else None

    def _sequence(self, lba: Lba, length: int) -> Iterator[tuple[int, bytes]]:
        """The volume descriptors of one sequence (3/8.4.2), each with its byte offset."""
        count = blocks_for(length)
        if count > MAX_SEQUENCE or lba_offset(lba) + length > self.source.size:
            raise ImageError("UDF volume descriptor sequence lies outside the image", self._at(FIRST_ANCHOR))
        self.spans.append(Span(lba, count, "UDF volume descriptors"))
        for at in range(lba, lba + count):
            raw = self.source.read(at * BLOCK, BLOCK)
            if not any(raw[:TAG_SIZE]):
                return
            self._tag(raw, at * BLOCK, at)
            yield at * BLOCK, raw
            if _id(raw) == TERMINATOR:
                return

    def _integrity(self, volume: bytes) -> list[tuple[int, int, tuple[int, int] | None]]:
        """Offset, partition size and counts of files and directories of each integrity descriptor (3/10.10)."""
        length, lba = struct.unpack_from("<II", volume, 432)
        found = []
        for offset, raw in self._sequence(Lba(lba), length):
            if _id(raw) != INTEGRITY:
                continue
            partitions, use = struct.unpack_from("<II", raw, 72)
            if partitions != 1:
                raise UnsupportedError("its UDF has several partitions", self.source.place.at(offset))
            counts = struct.unpack_from("<II", raw, 88 + 32) if use >= 40 else None  # UDF 1.02, 2.2.6.4
            found.append((offset, int.from_bytes(raw[84:88], "little"), counts))
        return found

    def _files(self, volume: bytes) -> tuple[list[UdfFile], list[UdfDirectory]]:
        """All files and all directories."""
        block = struct.unpack_from("<I", volume, 252)[0]
        file_set_at = self._inside(block)
        file_set = self._descriptor(file_set_at, block, (FILE_SET,))
        self.spans.append(Span(file_set_at, 1, "UDF file set"))
        files, folders = list[UdfFile](), list[UdfDirectory]()
        waiting: list[tuple[int, tuple[str, ...]]] = [(struct.unpack_from("<I", file_set, 404)[0], ())]
        seen = dict[int, bool]()
        while waiting:
            block, path = waiting.pop()
            if block in seen:
                if seen[block]:
                    raise ImageError("UDF directory tree leads into itself", self._at(self._inside(block)))
                continue  # another name of a file
            raw = self._descriptor(self._inside(block), block, (FILE_ENTRY, EXTENDED_ENTRY))
            self.spans.append(Span(self._inside(block), 1, "UDF file entry"))
            entry, inline = self._entry(raw, lba_offset(self._inside(block)), path)
            seen[block] = raw[27] == _DIRECTORY_TYPE
            if seen[block]:
                names = tuple(self._directory(entry, inline))
                folders.append(UdfDirectory(entry, inline is not None, names))
                waiting += [(one.icb_block, (*path, one.name)) for one in names]
            else:
                files.append(entry)
        if not folders:
            raise ImageError("UDF has no root directory", self._at(file_set_at))
        return files, folders

    def _inside(self, block: int) -> Lba:
        """The image's block for the partition's. :raises ImageError: it lies outside."""
        lba = self.start + block
        if block > self.length or lba_offset(Lba(lba)) >= self.source.size:
            raise ImageError("UDF leads out of its partition", self._at(FIRST_ANCHOR))
        return Lba(lba)

    def _entry(self, raw: bytes, offset: int, path: tuple[str, ...]) -> tuple[UdfFile, bytes | None]:
        """A file entry (4/14.9, 4/14.17), and its data where they stand inside it."""
        extended = _id(raw) == EXTENDED_ENTRY
        size, recorded = struct.unpack_from("<QQ", raw, 56)
        if extended:
            recorded = struct.unpack_from("<Q", raw, 72)[0]
        at = 216 if extended else 176
        attributes, length = struct.unpack_from("<II", raw, at - 8)
        at += attributes
        kind = raw[34] & 7
        if at + length > BLOCK or kind not in (0, 1, 3):
            raise ImageError("UDF file entry is malformed", self.source.place.at(offset))
        extents = list[tuple[Lba, int]]()
        if kind != 3:
            for one in range(at, at + length - 7, 16 if kind else 8):
                count, block = struct.unpack_from("<II", raw, one)
                if not count & 0x3FFFFFFF:
                    break
                if count >> 30:
                    raise UnsupportedError("its UDF has files with holes or long lists", self.source.place.at(offset))
                extents.append((self._inside(block), count))
        entry = UdfFile(path, offset, extended, at, kind, size, recorded, tuple(extents))
        return entry, raw[at : at + length] if kind == 3 else None

    def _directory(self, entry: UdfFile, inline: bytes | None) -> Iterator[FileIdentifier]:
        """Everything in a directory but its parent (4/14.4)."""
        if entry.size > MAX_DIRECTORY:
            raise ImageError("UDF directory is too large", self.source.place.at(entry.entry_offset))
        places = [(entry.entry_offset + entry.allocation_offset, len(inline))] if inline is not None else []
        for lba, length in entry.extents:
            if lba_offset(lba) + length > self.source.size:
                raise ImageError("UDF directory lies outside the image", self.source.place.at(entry.entry_offset))
            places.append((lba_offset(lba), length))
            self.spans.append(Span(lba, blocks_for(length), "UDF directory"))
        data = b"".join(self.source.read(start, length) for start, length in places)
        at = 0
        while at + 38 <= len(data):
            offset = _locate(places, at)
            name_length, use = data[at + 19], int.from_bytes(data[at + 36 : at + 38], "little")
            whole = -(-(38 + use + name_length) // 4) * 4
            raw = data[at : at + whole]
            if _id(raw) != FILE_ID or len(raw) < whole:
                raise ImageError("UDF directory holds no file identifier here", self.source.place.at(offset))
            self._tag(raw, offset, offset // BLOCK - self.start)
            if not raw[18] & (_DELETED | _PARENT):
                name = _text(raw[38 + use : 38 + use + name_length])
                yield FileIdentifier(raw, name, struct.unpack_from("<I", raw, 24)[0])
            at += whole


def _locate(places: Iterable[tuple[int, int]], at: int) -> int:
    """The byte of the image that is byte ``at`` of a directory in ``places``."""
    for start, length in places:
        if at < length:
            return start + at
        at -= length
    return at


def _id(raw: bytes) -> int:
    return int.from_bytes(raw[:2], "little")


def compute_tag_checksum(raw: bytes) -> int:
    """The checksum of a tag: its other 15 bytes added up (3/7.2.3)."""
    return (sum(raw[:TAG_SIZE]) - raw[4]) & 0xFF


def _text(raw: bytes) -> str:
    """A compressed Unicode name (OSTA UDF 1.02, 2.1.1)."""
    return raw[1:].decode("utf-16-be" if raw[:1] == b"\x10" else "latin-1", "replace")
