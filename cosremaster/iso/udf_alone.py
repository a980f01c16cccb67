"""Read a UDF file system that has no ISO 9660 beside it, as nodes (ECMA-167; OSTA UDF 1.02 to 2.60).

Its blocks may have other sizes than 2,048 bytes, and its partitions may be mapped: by a sparing table, or by the
metadata file of UDF 2.50. This module only lists what can be extracted; :mod:`cosremaster.iso.udf.read` reads what is
changed.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator

from cosremaster.errors import ImageError, Place, UnsupportedError, printable
from cosremaster.io.pieces import Piece, PieceTable, Range, Zeros
from cosremaster.io.source import ByteSource
from cosremaster.iso.udf.nodes import make_udf_node
from cosremaster.iso.udf.read import (
    ANCHOR,
    DIRECTORY_TYPE,
    EXTENDED_ENTRY,
    FILE_ENTRY,
    FILE_ID,
    FILE_ID_SIZE,
    FILE_SET,
    FIRST_ANCHOR,
    INLINE_DATA,
    LOGICAL_VOLUME,
    MAX_DIRECTORY,
    MAX_SEQUENCE,
    PARTITION,
    TERMINATOR,
    compute_tag_checksum,
    decode_identifier,
    get_tag_id,
)
from cosremaster.records import Struct, field, replace
from cosremaster.tree.nodes import Node
from cosremaster.tree.paths import join

_BLOCK_SIZES = (2048, 512, 4096, 1024, 8192, 16384, 32768)
_MAX_PARTITIONS = 8
_MAX_EXTENTS = 1 << 20
_ALLOCATION_EXTENT = 258  # 3/7.2.1
_STRATEGY = 4
"""The strategy type (4/14.6.2) by which a file entry is the only one of its file (4/A.5)."""
_RECORDED, _CONTINUED = 0, 3  # 4/14.14.1.1
_SPARING_SIZE = 56  # UDF 2.60, 2.2.12
_LONG_DESCRIPTORS, _EXTENDED_DESCRIPTORS = 1, 2  # 4/14.6.8
_DELETED, _PARENT = 0x04, 0x08  # 4/14.4.3


def read_udf_nodes(source: ByteSource) -> dict[bytes, Node]:
    """Read the nodes of a UDF file system except its root, by path, parents before children.

    :raises ImageError: when this is no UDF file system, or a structure cannot be followed.
    :raises UnsupportedError: when its partitions are mapped in a way that cannot be read.
    """
    nodes = _open_volume(source).read_nodes()
    names = Counter(node.link for node in nodes.values() if node.link is not None)
    return {
        path: replace(node, link=None) if node.link is not None and names[node.link] == 1 else node
        for path, node in nodes.items()
    }


class _Partition(Struct):
    """A partition as a partition map describes it (3/10.7).

    ``start``, ``length``: in bytes. ``packet``: the blocks of a packet that the sparing table moves; ``spared``: the
    new first block of such packets, counted from the volume's start. ``metadata``: where the metadata file has its
    bytes, in the partition that it maps; None for other kinds.
    """

    start: int
    length: int
    packet: int = 0
    spared: dict[int, int] = field(default_factory=dict)
    metadata: PieceTable | None = None


class _Volume(Struct):
    """A logical volume. ``block_size``: bytes; ``partitions``: by partition reference number."""

    source: ByteSource
    block_size: int
    partitions: list[_Partition]
    root_icb: tuple[int, int] = (0, 0)

    def place_at(self, offset: int) -> Place:
        """Return the place of byte ``offset``, for messages."""
        return self.source.place.at(offset)

    def read_nodes(self) -> dict[bytes, Node]:
        """Return the nodes of all names, by path."""
        nodes: dict[bytes, Node] = {}
        seen, waiting = set[tuple[int, int]](), [(self.root_icb, b"")]
        while waiting:
            icb, path = waiting.pop()
            if icb in seen:
                raise ImageError("UDF directory tree leads into itself", self.source.place.inside(path))
            seen.add(icb)
            for name, below in self._read_names(icb, path):
                below_path = join(path, name)
                if below_path in nodes:
                    continue
                raw, offset = self._read_entry(below)
                is_directory = raw[27] == DIRECTORY_TYPE
                table = PieceTable([]) if is_directory else self._read_data(raw, offset, below[1], below_path)
                nodes[below_path] = make_udf_node(raw, below_path, table, offset)
                if is_directory:
                    waiting.append((below, below_path))
        return nodes

    def locate(self, partition: int, block: int, length: int) -> Iterator[Range]:
        """Yield where ``length`` bytes from ``block`` of a partition on are.

        :raises ImageError: when they lie outside the partition or the file.
        """
        if partition >= len(self.partitions):
            raise ImageError("UDF names a partition that it does not have", self.place_at(0))
        mapped = self.partitions[partition]
        start = block * self.block_size
        end = start + length
        if mapped.metadata is not None:
            table = mapped.metadata
            if end > table.length:
                raise ImageError("UDF leads out of its metadata file", self.place_at(mapped.start))
            yield from (piece for piece in table.cut(start, end).pieces if isinstance(piece, Range))
            return
        if end > -(-mapped.length // self.block_size) * self.block_size or mapped.start + end > self.source.size:
            raise ImageError("UDF leads out of its partition, or the image is cut off", self.place_at(mapped.start))
        size = mapped.packet * self.block_size if mapped.spared else length
        while start < end:
            stop = min(end, (start // size + 1) * size) if mapped.spared else end
            spared = mapped.spared.get(start // size * mapped.packet) if mapped.spared else None
            at = mapped.start + start if spared is None else spared * self.block_size + start % size
            yield Range(self.source, at, stop - start)
            start = stop

    def read_block(self, partition: int, block: int) -> tuple[bytes, int]:
        """Return the bytes of a block of a partition, and its byte offset in the image."""
        (piece,) = self.locate(partition, block, self.block_size)
        return self.source.read(piece.offset, self.block_size), piece.offset

    def _read_entry(self, icb: tuple[int, int]) -> tuple[bytes, int]:
        """Return the file entry (4/14.9, 4/14.17) of the partition's block ``icb``, and its byte offset."""
        raw, offset = self.read_block(icb[1], icb[0])
        if get_tag_id(raw) not in (FILE_ENTRY, EXTENDED_ENTRY) or compute_tag_checksum(raw) != raw[4]:
            raise ImageError("UDF file entry is not where it should be", self.place_at(offset))
        strategy = int.from_bytes(raw[20:22], "little")
        if strategy != _STRATEGY:
            raise UnsupportedError(f"is UDF with file entries of strategy {strategy:,}", self.place_at(offset))
        return raw, offset

    def _read_data(self, raw: bytes, offset: int, partition: int, path: bytes) -> PieceTable:
        """Return the data of a file entry, whose allocation descriptors count from ``partition``."""
        size = int.from_bytes(raw[56:64], "little")
        start = 216 if get_tag_id(raw) == EXTENDED_ENTRY else 176
        attributes_length, length = struct.unpack_from("<II", raw, start - 8)
        start += attributes_length
        kind = raw[34] & 7
        place = self.source.place.inside(path).at(offset)
        if start + length > len(raw) or kind == _EXTENDED_DESCRIPTORS or kind > INLINE_DATA:
            raise ImageError("UDF file entry is malformed", place)
        if kind == INLINE_DATA:
            return PieceTable([Range(self.source, offset + start, min(size, length))])
        extents = self._walk_extents(raw[start : start + length], kind == _LONG_DESCRIPTORS, partition)
        table = PieceTable(self._list_pieces(extents, size))
        if table.length < size:
            raise ImageError(f"UDF says {size:,} bytes and has extents of {table.length:,}", place)
        return table

    def _list_pieces(self, extents: Iterator[tuple[int, int, int, int]], size: int) -> Iterator[Piece]:
        """Yield the pieces of ``extents`` (kind, bytes, block, partition) up to ``size`` bytes; holes are zeros."""
        for kind, length, block, partition in extents:
            count = min(length, size)
            if count and kind == _RECORDED:
                yield from self.locate(partition, block, count)
            elif count:
                yield Zeros(count)
            size -= count

    def _walk_extents(self, raw: bytes, is_long: bool, partition: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield kind, bytes, block and partition of the extents in allocation descriptors (4/14.14), continued ones
        (4/14.5) too."""
        step, count, at = 16 if is_long else 8, 0, 0
        while at + step <= len(raw) and count < _MAX_EXTENTS:
            length, block = struct.unpack_from("<II", raw, at)
            where = int.from_bytes(raw[at + 8 : at + 10], "little") if is_long else partition
            kind, length = length >> 30, length & 0x3FFFFFFF
            if not length:
                return
            at += step
            count += 1
            if kind != _CONTINUED:
                yield kind, length, block, where
                continue
            continued, offset = self.read_block(where, block)
            if get_tag_id(continued) != _ALLOCATION_EXTENT:
                raise ImageError("UDF allocation descriptors are not continued where they should be",
                                 self.place_at(offset))  # fmt: skip
            raw, at = continued[24 : 24 + int.from_bytes(continued[20:24], "little")], 0

    def _read_names(self, icb: tuple[int, int], path: bytes) -> Iterator[tuple[bytes, tuple[int, int]]]:
        """Yield name and ICB of each entry of a directory (4/14.4), without those that are deleted."""
        raw, offset = self._read_entry(icb)
        if int.from_bytes(raw[56:64], "little") > MAX_DIRECTORY:
            raise ImageError("UDF directory is too large", self.place_at(offset))
        data, at = self._read_data(raw, offset, icb[1], path).read(), 0
        while at + FILE_ID_SIZE <= len(data):
            use_length = int.from_bytes(data[at + 36 : at + 38], "little")
            end = at + FILE_ID_SIZE + use_length + data[at + 19]
            if get_tag_id(data[at : at + 2]) != FILE_ID or end > len(data):
                raise ImageError("UDF directory holds no file identifier here", self.place_at(offset))
            if not data[at + 18] & (_DELETED | _PARENT):
                name = decode_identifier(data[end - data[at + 19] : end]).encode("utf-8", "surrogatepass")
                if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
                    raise ImageError(f"UDF directory has an entry called {printable(name)!r}", self.place_at(offset))
                block, partition = struct.unpack_from("<IH", data, at + 24)
                yield name, (block, partition)
            at += -(-(end - at) // 4) * 4


def _open_volume(source: ByteSource) -> _Volume:
    """Return the logical volume of a UDF file system: its partitions, and where its root is."""
    block_size = _find_block_size(source)
    anchor = source.read(FIRST_ANCHOR * block_size, 512)
    partitions, logical_volume = dict[int, tuple[int, int]](), b""
    for at in (24, 16):  # the reserve sequence, then the main one, which prevails (3/10.2)
        length, block = struct.unpack_from("<II", anchor, at)
        for raw in _walk_sequence(source, block * block_size, length, block_size):
            if get_tag_id(raw) == PARTITION:
                number, (start, count) = int.from_bytes(raw[22:24], "little"), struct.unpack_from("<II", raw, 188)
                partitions[number] = start * block_size, count * block_size
            elif get_tag_id(raw) == LOGICAL_VOLUME:
                logical_volume = raw
    if not partitions or not logical_volume:
        raise ImageError("UDF has no partition or no logical volume", source.place.at(FIRST_ANCHOR * block_size))
    volume = _Volume(source, struct.unpack_from("<I", logical_volume, 212)[0], [])
    if volume.block_size not in _BLOCK_SIZES:
        raise ImageError(f"UDF has blocks of {volume.block_size:,} bytes", source.place)
    _map_partitions(volume, logical_volume, partitions)
    block, reference = struct.unpack_from("<IH", logical_volume, 252)
    file_set, offset = volume.read_block(reference, block)
    if get_tag_id(file_set) != FILE_SET:
        raise ImageError("UDF file set descriptor is not where it should be", source.place.at(offset))
    volume.root_icb = struct.unpack_from("<IH", file_set, 404)
    return volume


def _find_block_size(source: ByteSource) -> int:
    """Return the bytes of a block: the anchor in block 256 names itself (3/10.2)."""
    for block_size in _BLOCK_SIZES:
        raw = source.read(FIRST_ANCHOR * block_size, 16)
        is_anchor = len(raw) == 16 and get_tag_id(raw) == ANCHOR and compute_tag_checksum(raw) == raw[4]
        if is_anchor and int.from_bytes(raw[12:16], "little") == FIRST_ANCHOR:
            return block_size
    raise ImageError("is UDF without an anchor in block 256: it is cut off, damaged or not closed", source.place)


def _walk_sequence(source: ByteSource, start: int, length: int, block_size: int) -> Iterator[bytes]:
    """Yield the descriptors of a volume descriptor sequence (3/8.4.2)."""
    for at in range(start, start + min(length, MAX_SEQUENCE * block_size), block_size):
        raw = source.read(at, block_size)
        if len(raw) < block_size or compute_tag_checksum(raw) != raw[4] or get_tag_id(raw) == TERMINATOR:
            return
        yield raw


def _map_partitions(volume: _Volume, logical_volume: bytes, partitions: dict[int, tuple[int, int]]) -> None:
    """Add the partitions of the partition maps (3/10.7; UDF 2.60, 2.2.8 to 2.2.10) to ``volume``.

    ``partitions``: start and length in bytes by partition number.
    """
    count, at = int.from_bytes(logical_volume[268:272], "little"), 440
    for _ in range(min(count, _MAX_PARTITIONS)):
        raw = logical_volume[at : at + logical_volume[at + 1]]
        at += len(raw)
        is_physical = raw[:2] == b"\1\6"
        identifier = b"" if is_physical else raw[5:28].rstrip(b"\0")
        number = int.from_bytes(raw[4:6] if is_physical else raw[38:40], "little")
        known = (b"", b"*UDF Sparable Partition", b"*UDF Metadata Partition")
        if not raw or identifier not in known:
            kind = identifier.decode("ascii", "replace").lstrip("*") or "partition of an unknown kind"
            raise UnsupportedError(f"is UDF with a {kind}, which cannot be read", volume.source.place)
        if number not in partitions:
            raise ImageError("UDF maps a partition that it does not have", volume.source.place)
        partition = _Partition(*partitions[number])
        if identifier == b"*UDF Sparable Partition":
            partition.packet, partition.spared = _read_sparing(volume, raw)
        elif identifier == b"*UDF Metadata Partition":
            partition.metadata = _read_metadata(volume, raw, partition)
        volume.partitions.append(partition)


def _read_sparing(volume: _Volume, raw: bytes) -> tuple[int, dict[int, int]]:
    """Return the blocks of a packet, and new places of packets by their first block (UDF 2.60, 2.2.9, 2.2.12)."""
    packet, tables = int.from_bytes(raw[40:42], "little"), raw[42]
    for number in range(min(tables, 4)):
        (block,) = struct.unpack_from("<I", raw, 48 + 4 * number)
        head = volume.source.read(block * volume.block_size, _SPARING_SIZE)
        if head[17:40].rstrip(b"\0") != b"*UDF Sparing Table" or not packet:
            continue
        count = int.from_bytes(head[48:50], "little")
        entries = volume.source.read(block * volume.block_size + _SPARING_SIZE, 8 * count)
        pairs = (struct.unpack_from("<II", entries, at) for at in range(0, len(entries) - 7, 8))
        return packet, {old: new for old, new in pairs if old < 0xFFFFFFF0}
    raise ImageError("UDF has no sparing table where it should be", volume.source.place)


def _read_metadata(volume: _Volume, raw: bytes, partition: _Partition) -> PieceTable:
    """Return where the metadata file of a partition, or its mirror, has its bytes (UDF 2.60, 2.2.10, 2.2.13)."""
    physical = _Volume(volume.source, volume.block_size, [partition])
    for (block,) in struct.iter_unpack("<I", raw[40:48]):
        try:
            entry, offset = physical._read_entry((block, 0))
            table = physical._read_data(entry, offset, 0, b"")
        except ImageError:
            continue
        if not any(isinstance(piece, Zeros) for piece in table.pieces):
            return table
    raise ImageError("UDF has no metadata file where it should be", volume.source.place)
