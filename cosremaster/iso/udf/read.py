"""Read the UDF file system of a bridge image, beside ISO 9660, with the place of every structure.

Section numbers are those of ECMA-167 (part/section). This module only reads. On the image, blocks of the partition
count from the partition's start; the values here count from the image's start, where they are an :class:`Lba`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from cosremaster.crc import crc16_xmodem
from cosremaster.errors import ImageError, Place, UnsupportedError
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.limits import TreeLimits
from cosremaster.iso.spans import Span
from cosremaster.records import Struct, field
from cosremaster.units import BLOCK, Lba, blocks_for, lba_offset

ANCHOR, PARTITION, LOGICAL_VOLUME, TERMINATOR, INTEGRITY = 2, 5, 6, 8, 9
FILE_SET, FILE_ID, FILE_ENTRY, EXTENDED_ENTRY = 256, 257, 261, 266
"""Tag identifiers (3/7.2.1, 4/7.2.1)."""
FIRST_ANCHOR = Lba(256)
TAG_SIZE = 16
FILE_ID_SIZE = 38
"""Bytes of a file identifier descriptor without its variable fields (4/14.4)."""
MAX_DIRECTORY = 1 << 26
MAX_SEQUENCE = 64
_TAG = struct.Struct("<HHBBHHHI")  # 3/7.2
_TAG_NAMES = {
    1: "primary volume descriptor", ANCHOR: "anchor", 4: "implementation use volume descriptor",
    PARTITION: "partition descriptor", LOGICAL_VOLUME: "logical volume descriptor", 7: "unallocated space descriptor",
    TERMINATOR: "terminating descriptor", INTEGRITY: "integrity descriptor", FILE_SET: "file set descriptor",
    FILE_ID: "file identifier", FILE_ENTRY: "file entry", EXTENDED_ENTRY: "extended file entry",
}  # fmt: skip
DIRECTORY_TYPE, FILE_TYPE, SYMLINK_TYPE = 4, 5, 12  # 4/14.6.6
_DELETED, _PARENT = 0x04, 0x08  # 4/14.4.3
INLINE_DATA = 3
"""The allocation type of data inside their file entry (4/14.6.8)."""
_LONG_DESCRIPTORS = 1
_ALLOCATION_LENGTH = 0x3FFFFFFF  # 4/14.14.1.1: the upper two bits are the extent's type


class DescriptorTag(Struct, frozen=True):
    """A descriptor's tag (3/7.2).

    ``offset``: its byte offset in the image. ``tag_location``: the block that the tag names (3/7.2.8).
    ``true_location``: the block that it should name. ``has_valid_crc``: the CRC of the descriptor's body holds.
    """

    offset: int
    id: int
    tag_location: int
    true_location: int
    has_valid_checksum: bool
    has_valid_crc: bool

    @property
    def name(self) -> str:
        """The kind of descriptor, in words."""
        return _TAG_NAMES.get(self.id, f"descriptor {self.id}")

    @property
    def is_sound(self) -> bool:
        """Whether checksum, CRC and location hold."""
        return self.has_valid_checksum and self.has_valid_crc and self.tag_location == self.true_location


class UdfFile(Struct, frozen=True):
    """A file entry (4/14.9), or an extended one (4/14.17).

    ``entry_offset``: its byte offset in the image. ``file_type``: see 4/14.6.6. ``allocation_offset``: the offset of
    its allocation descriptors, in bytes from the entry's start. ``allocation_type``: 0 for short
    allocation descriptors, 1 for long ones, 3 for data inside the entry (4/14.6.8). ``size``: the file's bytes.
    ``recorded_blocks``: its logical blocks recorded (4/14.9.11). ``extents``: block and bytes of each.
    """

    path: tuple[str, ...]
    entry_offset: int
    is_extended: bool
    file_type: int
    allocation_offset: int
    allocation_type: int
    size: int
    recorded_blocks: int
    extents: tuple[tuple[Lba, int], ...]

    @property
    def is_inline(self) -> bool:
        """Whether its data are inside the file entry."""
        return self.allocation_type == INLINE_DATA

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """The byte offset in the image and the length of each run of its data, as far as its size goes."""
        if self.is_inline:
            return ((self.entry_offset + self.allocation_offset, min(self.size, BLOCK - self.allocation_offset)),)
        ranges, remaining = list[tuple[int, int]](), self.size
        for lba, length in self.extents:
            ranges.append((lba_offset(lba), min(length, remaining)))
            remaining -= ranges[-1][1]
        return tuple(ranges)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The blocks of the data: extents that follow each other are one span."""
        spans = list[Span]()
        for lba, length in self.extents:
            if spans and spans[-1].end == lba:
                spans[-1] = Span(spans[-1].start, spans[-1].blocks + blocks_for(length), spans[-1].label)
            else:
                spans.append(Span(lba, blocks_for(length), "file of UDF alone"))
        return tuple(spans)


class FileIdentifier(Struct, frozen=True):
    """A file identifier descriptor (4/14.4). ``icb_block``: the partition's block of the file entry that it names."""

    raw: bytes
    name: str
    icb_block: int


class UdfDirectory(Struct, frozen=True):
    """A directory: its file entry, and its file identifiers without the parent's.

    ``is_inline``: the identifiers are inside the file entry.
    """

    file_entry: UdfFile
    is_inline: bool
    identifiers: tuple[FileIdentifier, ...]

    @property
    def block(self) -> Lba:
        """The image's block of its file entry."""
        return Lba(self.file_entry.entry_offset // BLOCK)


class Udf(Struct, frozen=True, kw_only=True):
    """A UDF file system.

    ``tags``: the tags of all descriptors. ``anchors``: their blocks. ``partition``: its blocks on the image.
    ``partition_descriptors``: their byte offsets, one in each volume descriptor sequence; ``partition_lengths``: the
    blocks that they say.
    ``integrity_descriptors``: their byte offsets; ``integrity_sizes``: the partition sizes that they say, in blocks;
    ``integrity_counts``: the numbers of files and directories in the last of them.
    ``directories``: the root first. ``files``: each once, under one of its names.
    ``metadata_spans``: all blocks of metadata but the anchors at the end.
    ``tail_anchors``: the run of anchors that ends the volume, None where the volume does not end with one.
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
        """The number of directories."""
        return len(self.directories)

    def named_files(self) -> Iterator[tuple[tuple[str, ...], UdfFile]]:
        """Yield every name of every file."""
        by_block = {file.entry_offset // BLOCK - self.partition.start: file for file in self.files}
        for directory in self.directories:
            for identifier in directory.identifiers:
                if identifier.icb_block in by_block:
                    yield (*directory.file_entry.path, identifier.name), by_block[identifier.icb_block]


class _Integrity(Struct, frozen=True):
    """A logical volume integrity descriptor (3/10.10). ``counts``: files and directories, None where it has none."""

    offset: int
    partition_size: int
    counts: tuple[int, int] | None


def read_udf(source: ByteSource, blocks: int) -> Udf | None:
    """Read the UDF file system of an image whose ISO 9660 volume has ``blocks`` blocks; return None without UDF.

    Wrong tags raise nothing; they are in :attr:`Udf.tags`.

    :raises ImageError: when a structure cannot be followed.
    :raises UnsupportedError: when it is not laid out as a bridge with one partition.
    """
    return _UdfReader(source, blocks).read() if has_udf(source) else None


def has_udf(source: ByteSource) -> bool:
    """Return whether the volume recognition sequence (2/9.1) names UDF."""
    for lba in range(16, 16 + MAX_SEQUENCE):
        identifier = source.read(lba * BLOCK + 1, 5)
        if identifier in (b"NSR02", b"NSR03"):
            return True
        if identifier not in (b"CD001", b"BEA01", b"BOOT2"):
            return False
    return False


class _UdfReader(Struct):
    """Reads a UDF file system. ``start`` and ``length``: the partition's, in blocks, once its descriptor is read."""

    source: ByteSource
    blocks: int
    tags: list[DescriptorTag] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    start: int = 0
    length: int = 0

    def read(self) -> Udf:
        """Read the whole file system, as :func:`read_udf` does."""
        anchor = self._read_descriptor(FIRST_ANCHOR, FIRST_ANCHOR, (ANCHOR,))
        self.spans.append(Span(FIRST_ANCHOR, 1, "UDF anchor"))
        tail = self._read_tail_anchors()
        partitions, logical_volume = self._read_volume(anchor)
        integrity = self._read_integrity(logical_volume)
        files, directories = self._read_files(logical_volume)
        return Udf(
            tags=tuple(self.tags),
            anchors=(FIRST_ANCHOR, *(Lba(lba) for lba in (range(tail.start, tail.end) if tail else ()))),
            partition=Span(Lba(self.start), self.length, "UDF partition"),
            partition_descriptors=tuple(offset for offset, _ in partitions),
            partition_lengths=tuple(_get_partition_place(raw)[1] for _, raw in partitions),
            integrity_descriptors=tuple(descriptor.offset for descriptor in integrity),
            integrity_sizes=tuple(descriptor.partition_size for descriptor in integrity),
            integrity_counts=integrity[-1].counts if integrity else None,
            directories=tuple(directories), files=tuple(files), metadata_spans=tuple(self.spans), tail_anchors=tail,
        )  # fmt: skip

    def _read_volume(self, anchor: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
        """Read both volume descriptor sequences, and note where the partition is.

        Return all partition descriptors with their byte offsets, and the first logical volume descriptor.
        """
        partitions, logical_volumes = list[tuple[int, bytes]](), list[bytes]()
        for at in (16, 24):  # the extents of the main and the reserve sequence (3/10.2)
            length, lba = struct.unpack_from("<II", anchor, at)
            for offset, raw in self._read_sequence(Lba(lba), length):
                if get_tag_id(raw) == PARTITION:
                    partitions.append((offset, raw))
                elif get_tag_id(raw) == LOGICAL_VOLUME:
                    logical_volumes.append(raw)
        if not partitions or not logical_volumes:
            raise ImageError("UDF has no partition or no logical volume", self._place_of(FIRST_ANCHOR))
        starts = {_get_partition_place(raw)[0] for _, raw in partitions}
        if len(starts) != 1 or struct.unpack_from("<I", logical_volumes[0], 268)[0] != 1:  # partition maps (3/10.6.11)
            raise UnsupportedError("its UDF has several partitions", self.source.place)
        self.start, self.length = _get_partition_place(partitions[0][1])
        if struct.unpack_from("<I", logical_volumes[0], 212)[0] != BLOCK:  # logical block size (3/10.6.5)
            raise UnsupportedError("its UDF blocks are not of 2,048 bytes", self.source.place)
        return partitions, logical_volumes[0]

    def _place_of(self, lba: int) -> Place:
        """Return the place of block ``lba``, for messages."""
        return self.source.place.at(lba * BLOCK)

    def _add_tag(self, raw: bytes, offset: int, true_location: int) -> None:
        """Add the tag that ``raw`` begins with (3/7.2) to the tags."""
        tag_id, _, checksum, _, _, crc, length, tag_location = _TAG.unpack_from(raw)
        body = raw[TAG_SIZE : TAG_SIZE + length]
        has_valid_crc = len(body) == length and crc16_xmodem(body) == crc
        has_valid_checksum = compute_tag_checksum(raw) == checksum
        self.tags.append(DescriptorTag(offset, tag_id, tag_location, true_location, has_valid_checksum, has_valid_crc))

    def _read_descriptor(self, lba: Lba, true_location: int, tag_ids: Iterable[int]) -> bytes:
        """Return the descriptor in block ``lba``, which its tag should call ``true_location``.

        :raises ImageError: when there is another kind of descriptor.
        """
        raw = self.source.read(lba_offset(lba), BLOCK)
        if len(raw) < BLOCK:
            raise ImageError("UDF leads behind the image's end", self._place_of(lba))
        if get_tag_id(raw) not in tag_ids:
            names = " or ".join(_TAG_NAMES[tag_id] for tag_id in tag_ids)
            raise ImageError(f"UDF {names} is not where it should be", self._place_of(lba))
        self._add_tag(raw, lba_offset(lba), true_location)
        return raw

    def _read_tail_anchors(self) -> Span | None:
        """Return the run of anchors that ends the volume (genisoimage fills its padding with them), else the image.

        On Windows discs the volume of ISO 9660 may end before the data of UDF.
        """
        for end in (self.blocks, self.source.size // BLOCK):
            first = end
            while first - 1 > FIRST_ANCHOR and self._is_anchor(first - 1):
                first -= 1
            if first < end:
                for lba in range(end - 1, first - 1, -1):
                    self._add_tag(self.source.read(lba * BLOCK, BLOCK), lba * BLOCK, lba)
                return Span(Lba(first), end - first, "UDF anchors")
        return None

    def _is_anchor(self, lba: int) -> bool:
        """Return whether block ``lba`` is an anchor of the same sequences as the first."""
        raw = self.source.read(lba * BLOCK, BLOCK)
        if len(raw) < BLOCK or get_tag_id(raw) != ANCHOR:
            return False
        return raw[20:24] == self.source.read(FIRST_ANCHOR * BLOCK + 20, 4)

    def _read_sequence(self, lba: Lba, length: int) -> Iterator[tuple[int, bytes]]:
        """Yield the byte offset and the bytes of each descriptor of a sequence (3/8.4.2)."""
        count = blocks_for(length)
        if count > MAX_SEQUENCE or lba_offset(lba) + length > self.source.size:
            raise ImageError("UDF volume descriptor sequence lies outside the image", self._place_of(FIRST_ANCHOR))
        self.spans.append(Span(lba, count, "UDF volume descriptors"))
        for block in range(lba, lba + count):
            raw = self.source.read(block * BLOCK, BLOCK)
            if not any(raw[:TAG_SIZE]):
                return
            self._add_tag(raw, block * BLOCK, block)
            yield block * BLOCK, raw
            if get_tag_id(raw) == TERMINATOR:
                return

    def _read_integrity(self, logical_volume: bytes) -> list[_Integrity]:
        """Return the integrity descriptors of the logical volume (3/10.10)."""
        length, lba = struct.unpack_from("<II", logical_volume, 432)
        descriptors = []
        for offset, raw in self._read_sequence(Lba(lba), length):
            if get_tag_id(raw) != INTEGRITY:
                continue
            partitions, use_length = struct.unpack_from("<II", raw, 72)
            if partitions != 1:
                raise UnsupportedError("its UDF has several partitions", self.source.place.at(offset))
            counts = struct.unpack_from("<II", raw, 88 + 32) if use_length >= 40 else None  # UDF 1.02, 2.2.6.4
            descriptors.append(_Integrity(offset, int.from_bytes(raw[84:88], "little"), counts))
        return descriptors

    def _read_files(self, logical_volume: bytes) -> tuple[list[UdfFile], list[UdfDirectory]]:
        """Return all files and all directories."""
        block = struct.unpack_from("<I", logical_volume, 252)[0]
        file_set_lba = self._map_block(block)
        file_set = self._read_descriptor(file_set_lba, block, (FILE_SET,))
        self.spans.append(Span(file_set_lba, 1, "UDF file set"))
        files, directories = list[UdfFile](), list[UdfDirectory]()
        waiting: list[tuple[int, tuple[str, ...]]] = [(struct.unpack_from("<I", file_set, 404)[0], ())]
        is_directory, limits = dict[int, bool](), TreeLimits(self.source)  # by block
        while waiting:
            block, path = waiting.pop()
            if block in is_directory:
                if is_directory[block]:
                    raise ImageError("UDF directory tree leads into itself", self._place_of(self._map_block(block)))
                continue  # another name of a file
            lba = self._map_block(block)
            raw = self._read_descriptor(lba, block, (FILE_ENTRY, EXTENDED_ENTRY))
            self.spans.append(Span(lba, 1, "UDF file entry"))
            file, inline_data = self._parse_file_entry(raw, lba_offset(lba), path)
            is_directory[block] = raw[27] == DIRECTORY_TYPE
            if is_directory[block]:
                limits.count_directory(lba, sum(length for _, length in file.extents))
                identifiers = tuple(self._read_identifiers(file, inline_data))
                directories.append(UdfDirectory(file, inline_data is not None, identifiers))
                for identifier in identifiers:
                    limits.count_path(identifier.raw, len(path))
                waiting += [(identifier.icb_block, (*path, identifier.name)) for identifier in identifiers]
            else:
                files.append(file)
        if not directories:
            raise ImageError("UDF has no root directory", self._place_of(file_set_lba))
        return files, directories

    def _map_block(self, block: int) -> Lba:
        """Return the image's block for ``block`` of the partition.

        :raises ImageError: when it lies outside the partition or the image.
        """
        lba = self.start + block
        if block > self.length or lba_offset(Lba(lba)) >= self.source.size:
            raise ImageError("UDF leads out of its partition", self._place_of(FIRST_ANCHOR))
        return Lba(lba)

    def _parse_file_entry(self, raw: bytes, offset: int, path: tuple[str, ...]) -> tuple[UdfFile, bytes | None]:
        """Return a file entry (4/14.9, 4/14.17), and its data where they are inside it."""
        is_extended = get_tag_id(raw) == EXTENDED_ENTRY
        size, recorded = struct.unpack_from("<QQ", raw, 56)
        if is_extended:
            recorded = struct.unpack_from("<Q", raw, 72)[0]
        start = 216 if is_extended else 176
        attributes_length, length = struct.unpack_from("<II", raw, start - 8)
        start += attributes_length
        allocation_type = raw[34] & 7
        if start + length > BLOCK or allocation_type not in (0, _LONG_DESCRIPTORS, INLINE_DATA):
            raise ImageError("UDF file entry is malformed", self.source.place.at(offset))
        extents = list[tuple[Lba, int]]()
        if allocation_type != INLINE_DATA:
            for at in range(start, start + length - 7, 16 if allocation_type == _LONG_DESCRIPTORS else 8):
                extent_length, block = struct.unpack_from("<II", raw, at)
                if not extent_length & _ALLOCATION_LENGTH:
                    break
                if extent_length > _ALLOCATION_LENGTH:
                    raise UnsupportedError("its UDF has files with holes or long lists", self.source.place.at(offset))
                extents.append((self._map_block(block), extent_length))
        file = UdfFile(path, offset, is_extended, raw[27], start, allocation_type, size, recorded, tuple(extents))
        return file, raw[start : start + length] if allocation_type == INLINE_DATA else None

    def _read_identifiers(self, file: UdfFile, inline_data: bytes | None) -> Iterator[FileIdentifier]:
        """Yield the file identifiers in the directory of this file entry, without its parent's (4/14.4)."""
        entry_place = self.source.place.at(file.entry_offset)
        if file.size > MAX_DIRECTORY:
            raise ImageError("UDF directory is too large", entry_place)
        runs = [(file.entry_offset + file.allocation_offset, len(inline_data))] if inline_data is not None else []
        for lba, length in file.extents:
            if lba_offset(lba) + length > self.source.size:
                raise ImageError("UDF directory lies outside the image", entry_place)
            runs.append((lba_offset(lba), length))
            self.spans.append(Span(lba, blocks_for(length), "UDF directory"))
        data = b"".join(self.source.read(start, length) for start, length in runs)
        at = 0
        while at + FILE_ID_SIZE <= len(data):
            offset = _map_offset(runs, at)
            name_length, use_length = data[at + 19], int.from_bytes(data[at + 36 : at + 38], "little")
            name_start = FILE_ID_SIZE + use_length
            padded_length = -(-(name_start + name_length) // 4) * 4
            raw = data[at : at + padded_length]
            if get_tag_id(raw) != FILE_ID or len(raw) < padded_length:
                raise ImageError("UDF directory holds no file identifier here", self.source.place.at(offset))
            self._add_tag(raw, offset, offset // BLOCK - self.start)
            if not raw[18] & (_DELETED | _PARENT):
                name = decode_identifier(raw[name_start : name_start + name_length])
                yield FileIdentifier(raw, name, struct.unpack_from("<I", raw, 24)[0])
            at += padded_length


def encode_path(parts: Iterable[str]) -> bytes:
    """Return the path whose names are ``parts``."""
    return b"/".join(part.encode("utf-8", "surrogatepass") for part in parts)


def _map_offset(runs: Iterable[tuple[int, int]], at: int) -> int:
    """Return the image's offset of byte ``at`` of data in ``runs``, pairs of an offset and a length."""
    for start, length in runs:
        if at < length:
            return start + at
        at -= length
    return at


def get_tag_id(raw: bytes) -> int:
    """Return the tag identifier of a descriptor (3/7.2.1)."""
    return int.from_bytes(raw[:2], "little")


def _get_partition_place(raw: bytes) -> tuple[int, int]:
    """Return start and length in blocks from a partition descriptor (3/10.5.8, 3/10.5.9)."""
    start, length = struct.unpack_from("<II", raw, 188)
    return start, length


def compute_tag_checksum(raw: bytes) -> int:
    """Return the checksum of a tag, the sum of its other 15 bytes (3/7.2.3)."""
    return (sum(raw[:TAG_SIZE]) - raw[4]) & 0xFF


def decode_identifier(raw: bytes) -> str:
    """Return the text of a compressed Unicode name (OSTA UDF 1.02, 2.1.1)."""
    return raw[1:].decode("utf-16-be" if raw[:1] == b"\x10" else "latin-1", "replace").partition("\0")[0]
