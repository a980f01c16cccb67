"""Serialize changed directories and path tables (ECMA-119, 9.1 and 9.4).

Run twice: first with dummy block numbers to measure (sizes do not depend on them), then with the real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import accumulate

from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.dates import pack_short_date
from cosremaster.iso.ecma119.records import DIRECTORY, MULTI_EXTENT, Extent, pack_both_endian
from cosremaster.iso.ecma119.sections import split_into_sections
from cosremaster.iso.rockridge.read import CE_HEAD, walk_fields
from cosremaster.iso.rockridge.write import ContinuationAreas, RockRidgeProfile
from cosremaster.iso.tree_edit.directories import (
    IDENTIFIER_OFFSET,
    MAX_RECORD_SIZE,
    DirectoryEntry,
    EditableDirectory,
    EditableTree,
)
from cosremaster.iso.tree_edit.path_tables import ByteOrder, make_path_tables
from cosremaster.records import Struct, field
from cosremaster.tree.nodes import Node
from cosremaster.units import BLOCK, Lba, blocks_for, lba_offset

RECORD_LBA, RECORD_LENGTH, RECORD_FLAGS = 2, 10, 25
"""Offsets in a directory record, in bytes (9.1.3, 9.1.4, 9.1.6)."""
_RECORD_DATE, _RECORD_SEQUENCE_NUMBER, _RECORD_IDENTIFIER_LENGTH = 18, 28, 32
_DOT, _DOT_DOT = b"\0", b"\1"
NO_BLOCK = Lba(0)
"""Stands for a block number that is not known yet."""


def _place_nowhere(_: Node) -> Lba:
    """Return no block: trees on the image have no new files."""
    return NO_BLOCK


class TreePlacement(Struct, frozen=True):
    """Where the parts of a tree are on the new image; blocks count from the image's start.

    ``directories``: extents by the directory's id.
    ``find_data``: returns the first block of a new file's data.
    ``extra_sections``: block and bytes of the file sections that a larger file needs beside those it has, by the
    entry's id.
    ``continuations``: the first block of a directory's continuation areas (SUSP 5.1), by the directory's id.
    ``path_tables``: the new first block of path tables that move, by their old first block and byte order.
    """

    directories: Mapping[int, Extent]
    find_data: Callable[[Node], Lba] = _place_nowhere
    extra_sections: Mapping[int, Sequence[tuple[Lba, int]]] = field(default_factory=dict)
    continuations: Mapping[int, Lba] = field(default_factory=dict)
    path_tables: Mapping[tuple[Lba, ByteOrder], Lba] = field(default_factory=dict)

    @classmethod
    def of_image(cls, tree: EditableTree) -> TreePlacement:
        """Return the placement of the directories of ``tree`` that are on the image."""
        return cls({id(directory): directory.extent for directory in tree.directories() if directory.extent})


class TreeSerializer(Struct):
    """Serializes the directories and path tables of ``tree``.

    ``read``: returns bytes of the image, by offset and length, with all other changes of them.
    ``link_counts``: the number of names of new files, by :attr:`Node.link`.
    ``free_serials``: yields file serial numbers that are not in use.
    ``root_continuation_host``: the directory whose continuation areas begin with those of the root's ``.``.
    ``directories``: those that may be changed.
    ``assigned_serials``: the serial numbers of new files, by :attr:`Node.link` or the node's id.
    ``continued_entries``: the entries with records that continue in new areas, by their id.
    """

    tree: EditableTree
    source: ByteSource
    read: Callable[[int, int], bytes]
    placement: TreePlacement
    link_counts: Mapping[object, int]
    free_serials: Iterator[int]
    root_continuation_host: EditableDirectory | None = None
    directories: Sequence[EditableDirectory] = ()
    assigned_serials: dict[object, int] = field(default_factory=dict)
    continued_entries: dict[int, DirectoryEntry] = field(default_factory=dict)

    def serialize_directories(self) -> tuple[dict[int, bytes], dict[int, bytes]]:
        """Return the records of each changed directory, in whole blocks, and its continuation areas if it has any.

        Both are keyed by the directory's id.
        """
        records, continuations = dict[int, bytes](), dict[int, bytes]()
        self.continued_entries.clear()
        for directory in self.directories:
            if directory.is_changed:
                first = self.placement.continuations.get(id(directory), self.tree.base)
                areas = ContinuationAreas(Lba(first - self.tree.base))
                if directory is self.root_continuation_host:
                    areas.data += self.root_continuation_fields()
                records[id(directory)] = self._serialize_directory(directory, areas)
                if areas.data:
                    continuations[id(directory)] = bytes(areas.data)
        return records, continuations

    def root_continuation_fields(self) -> bytes:
        """Return the fields in the continuation area of the root's ``.`` (an ER field, SUSP 5.5)."""
        if self.tree.rock_ridge is None or self.tree.root.extent is None:
            return b""
        start = lba_offset(self.tree.root.extent.lba)
        # read from the original image: the patched record leads to the new continuation area
        dot = self.source.read(start, self.source.read(start, 1)[0])
        fields = walk_fields(self.source, dot, start, self.tree.rock_ridge.skip, self.tree.base)
        return b"".join(raw for at, raw in fields if not start <= at < start + len(dot))

    def serialize_path_tables(self, orders: Collection[ByteOrder]) -> dict[ByteOrder, bytes]:
        """Return the path table in each of the byte ``orders``."""
        extents, base = self.placement.directories, self.tree.base
        return make_path_tables(
            self.tree.root, _list_recorded, lambda directory: extents[id(directory)].lba - base,
            self.tree.naming.sort_keys, orders,
        )  # fmt: skip

    def _get_extent(self, directory: EditableDirectory) -> Extent:
        """Return the extent of ``directory`` on the new image; its block counts as the tree's records count."""
        extent = self.placement.directories[id(directory)]
        return Extent(Lba(extent.lba - self.tree.base), extent.length)

    def _serialize_directory(self, directory: EditableDirectory, areas: ContinuationAreas) -> bytes:
        """Return the records of ``directory`` in whole blocks; no record crosses a block's end (6.8.1.1)."""
        blocks, room = bytearray(), 0
        for record in self._make_records(directory, areas):
            if len(record) > room:
                blocks += bytes(room)
                room = BLOCK
            blocks += record
            room -= len(record)
        return bytes(blocks) + bytes(room)

    def _make_records(self, directory: EditableDirectory, areas: ContinuationAreas) -> Iterator[bytes]:
        """Yield the records of ``directory``; fields that do not fit into them go into ``areas``."""
        dot, dot_dot = self._read_dots(directory)
        if directory.extent is not None and directory.is_moved:
            dot = self._copy_record(dot, lba_offset(directory.extent.lba), areas)
        if not dot:
            extent = self._get_extent(directory)
            dot = self._make_record(areas, _DOT, self._directory_fields(directory), extent, directory.node)
        yield dot
        yield dot_dot if dot_dot and not directory.is_reparented else self._make_dot_dot(directory, areas)
        for entry in directory.entries:
            start = len(areas.data)
            yield from self._make_entry_records(directory, entry, areas)
            if len(areas.data) > start:
                self.continued_entries[id(entry)] = entry

    def _make_entry_records(
        self, directory: EditableDirectory, entry: DirectoryEntry, areas: ContinuationAreas
    ) -> Iterator[bytes]:
        """Yield the records of ``entry`` in ``directory``; fields that do not fit into them go into ``areas``."""
        if entry.is_renamed:
            yield from self._rename_records(entry, areas)
        elif not entry.records:
            yield from self._make_new_records(entry, areas)
        elif directory.is_moved:
            for raw, offset in zip(self._read_records(entry), self._record_offsets(entry), strict=True):
                yield self._copy_record(_without_dangling_block(raw, areas), offset, areas)
        else:
            yield from self._read_records(entry)

    def _make_dot_dot(self, directory: EditableDirectory, areas: ContinuationAreas) -> bytes:
        """Return a new ``..`` record, with a PL field where the directory is relocated (RRIP 4.1.5.2)."""
        assert directory.parent is not None and directory.named_in is not None
        fields = self._directory_fields(directory.parent)
        if directory.named_in is not directory.parent:
            fields.append(_make_link(b"PL", self._get_extent(directory.named_in).lba))
        node = directory.node or directory.parent.node
        return self._make_record(areas, _DOT_DOT, fields, self._get_extent(directory.parent), node)

    def _copy_record(self, raw: bytes, offset: int, areas: ContinuationAreas) -> bytes:
        """Return a record of a directory that moves, with its continuation area copied into ``areas``.

        libarchive does not read a continuation area that lies in front of its record.
        """
        name = raw[IDENTIFIER_OFFSET : IDENTIFIER_OFFSET + raw[_RECORD_IDENTIFIER_LENGTH]]
        if self.tree.rock_ridge is None or CE_HEAD not in raw[IDENTIFIER_OFFSET + len(name) :]:
            return raw
        fields = self._read_fields(raw, offset)
        return self._pack_record(areas, raw[:IDENTIFIER_OFFSET], name, fields, _system_use_area(raw))

    def _read_dots(self, directory: EditableDirectory) -> tuple[bytes, bytes]:
        """Return the first two records of ``directory``, both empty for a new directory."""
        if directory.extent is None:
            return b"", b""
        head = self.read(lba_offset(directory.extent.lba), min(2 * MAX_RECORD_SIZE, directory.extent.length))
        return head[: head[0]], head[head[0] : head[0] + head[head[0]]]

    def _directory_fields(self, directory: EditableDirectory) -> list[bytes]:
        """Return the Rock Ridge fields with the attributes of ``directory``: from its node, else from its ``.``."""
        profile = self.tree.rock_ridge
        if profile is None:
            return []
        if directory.node is not None:
            links = 2 + directory.subdirectory_count if self.tree.counts_subdirectories else 1
            return profile.encode_node(directory.node, links, self._assign_serial(directory.node))
        assert directory.extent is not None
        start = lba_offset(directory.extent.lba)
        # read from the original image: a patched record may lead to a continuation area that is not on it
        dot = self.source.read(start, self.source.read(start, 1)[0])
        fields = walk_fields(self.source, dot, start, profile.skip, self.tree.base)
        return [self.read(at, len(raw)) for at, raw in fields if raw[:2] in (b"PX", b"TF")]

    def _assign_serial(self, node: Node) -> int:
        """Return the file serial number of ``node`` (PX, RRIP 4.1.1), the same for all names of a file.

        0 where PX fields have none: then those in use need not be read.
        """
        if self.tree.rock_ridge is None or not self.tree.rock_ridge.has_serials:
            return 0
        key = node.link or id(node)
        if key not in self.assigned_serials:
            self.assigned_serials[key] = next(self.free_serials)
        return self.assigned_serials[key]

    def _read_fields(self, record: bytes, offset: int) -> list[bytes]:
        """Return the fields of the ``record`` at byte ``offset`` of the image, its continuation areas patched."""
        assert self.tree.rock_ridge is not None
        fields = walk_fields(self.source, record, offset, self.tree.rock_ridge.skip, self.tree.base)
        inside = range(offset, offset + len(record))
        return [raw if at in inside else self.read(at, len(raw)) for at, raw in fields]

    def _read_records(self, entry: DirectoryEntry) -> Iterator[bytes]:
        """Yield the records of ``entry`` that its size needs, and copies of the last one for sections beyond them."""
        extra_sections = self.placement.extra_sections.get(id(entry), ())
        for index, record in enumerate(entry.needed_records, 1):
            raw = self.read(record.offset, self.source.read(record.offset, 1)[0])
            yield _set_multi_extent(raw, index < len(entry.needed_records) or bool(extra_sections))
        for index, (lba, length) in enumerate(extra_sections, 1):
            new = bytearray(raw)
            new[RECORD_LBA : RECORD_LBA + 8] = pack_both_endian(lba - self.tree.base)
            new[RECORD_LENGTH : RECORD_LENGTH + 8] = pack_both_endian(length)
            yield _set_multi_extent(bytes(new), index < len(extra_sections))

    def _record_offsets(self, entry: DirectoryEntry) -> Iterator[int]:
        """Yield the offset on the image of each record of :meth:`_read_records`; copies have the last record's."""
        yield from (record.offset for record in entry.needed_records)
        yield from (entry.records[-1].offset for _ in self.placement.extra_sections.get(id(entry), ()))

    def _rename_records(self, entry: DirectoryEntry, areas: ContinuationAreas) -> Iterator[bytes]:
        """Yield the records of ``entry`` with its new name; everything else in them stays."""
        for record, offset in zip(self._read_records(entry), self._record_offsets(entry), strict=True):
            fields: list[bytes] = []
            if self.tree.rock_ridge is not None:
                fields = [raw for raw in self._read_fields(record, offset) if raw[:2] not in (b"CL", b"RE")]
                fields = self._name_fields(self.tree.rock_ridge, entry, fields)
            raw = _without_dangling_block(record, areas)
            head = raw[:IDENTIFIER_OFFSET]
            if entry.is_placeholder:
                head = _make_placeholder_head(head)
            yield self._pack_record(areas, head, entry.identifier, fields, _system_use_area(raw))

    def _name_fields(self, profile: RockRidgeProfile, entry: DirectoryEntry, fields: list[bytes]) -> list[bytes]:
        """Return ``fields`` with the name of ``entry``, and with CL or RE for a relocated directory (RRIP 4.1.5)."""
        if entry.is_placeholder and entry.directory is not None:
            fields = [_make_link(b"CL", self._get_extent(entry.directory).lba), *fields]
        elif entry.is_hidden and entry.directory is not None:
            fields = [b"RE\x04\x01", *fields]
        return profile.with_name(fields, entry.primary_name or b"")

    def _make_new_records(self, entry: DirectoryEntry, areas: ContinuationAreas) -> Iterator[bytes]:
        """Yield the records of a new entry, one for each file section."""
        node, profile = entry.node, self.tree.rock_ridge
        assert node is not None
        fields: list[bytes] = []
        if profile is not None:
            links = self.link_counts.get(node.link, 1) if node.link else 1
            if entry.directory is not None:
                fields = self._directory_fields(entry.directory)
            else:
                fields = profile.encode_node(node, links, self._assign_serial(node))
            fields = self._name_fields(profile, entry, fields)
        if entry.directory is not None and not entry.is_placeholder:
            extent = self._get_extent(entry.directory)
            yield self._make_record(areas, entry.identifier, fields, extent, node)
            return
        size = node.content.size if node.content and not entry.is_placeholder else 0
        lengths = split_into_sections(size)
        # libarchive handles a file without data when it reaches the file's block, which so must not lie in front of its
        # continuation area.
        start = self.placement.find_data(node) - self.tree.base if size else areas.first_block
        starts = accumulate(map(blocks_for, lengths[:-1]), initial=start)
        for index, (lba, length) in enumerate(zip(starts, lengths, strict=True), 1):
            flags = MULTI_EXTENT if index < len(lengths) else 0
            yield self._make_record(areas, entry.identifier, fields, Extent(Lba(lba), length), node, flags)

    def _make_record(
        self, areas: ContinuationAreas, identifier: bytes, fields: Sequence[bytes], extent: Extent,
        node: Node | None, flags: int = DIRECTORY,
    ) -> bytes:  # fmt: skip
        """Return a new record (9.1), dated as ``node``, or as the root where there is no node."""
        if identifier in (_DOT, _DOT_DOT) and self.tree.rock_ridge is not None:
            fields = self.tree.rock_ridge.with_rr_field(fields)
        head = bytearray(IDENTIFIER_OFFSET)
        head[RECORD_LBA : RECORD_LBA + 8] = pack_both_endian(extent.lba)
        head[RECORD_LENGTH : RECORD_LENGTH + 8] = pack_both_endian(extent.length)
        head[_RECORD_DATE : _RECORD_DATE + 7] = pack_short_date(node.mtime) if node is not None else self._root_date()
        head[RECORD_FLAGS] = flags
        head[_RECORD_SEQUENCE_NUMBER : _RECORD_SEQUENCE_NUMBER + 4] = b"\x01\x00\x00\x01"
        return self._pack_record(areas, bytes(head), identifier, fields, self._make_prefix(node, flags))

    def _make_prefix(self, node: Node | None, flags: int) -> bytes:
        """Return what a new record has in front of other fields; without a node, as the root's ``.`` has it."""
        if node is None:
            return self.tree.prefix.sample
        return self.tree.prefix.make(node.mode, node.uid, node.gid, is_directory=bool(flags & DIRECTORY))

    def _root_date(self) -> bytes:
        """Return the seven bytes of the date in the root's ``.`` (9.1.5)."""
        assert self.tree.root.extent is not None
        return self.read(lba_offset(self.tree.root.extent.lba) + _RECORD_DATE, 7)

    def _pack_record(
        self, areas: ContinuationAreas, head: bytes, identifier: bytes, fields: Sequence[bytes], old_area: bytes = b""
    ) -> bytes:
        """Return a record of an even length from its parts (9.1.12, 9.1.13).

        ``old_area``: the system use area that the record had. The bytes that Rock Ridge skips are kept of it; without
        Rock Ridge all of it, if there is room.
        """
        raw = bytearray(head + identifier + bytes(1 - len(identifier) % 2))
        raw[_RECORD_IDENTIFIER_LENGTH] = len(identifier)
        if fields:
            skip = self.tree.rock_ridge.skip if self.tree.rock_ridge else 0
            raw += old_area[:skip].ljust(skip, b"\0")
            raw += areas.split_fields(fields, MAX_RECORD_SIZE - len(raw))
        elif self.tree.rock_ridge is None and len(raw) + len(old_area) <= MAX_RECORD_SIZE:
            raw += old_area
        raw += bytes(len(raw) % 2)
        raw[0] = len(raw)
        return bytes(raw)


def _list_recorded(directory: EditableDirectory) -> Sequence[tuple[bytes, EditableDirectory]]:
    """Return the directories that are recorded in ``directory``, with their identifiers."""
    entries = directory.directory_entries
    if not entries:  # as in most
        return ()
    return [
        (entry.identifier, entry.directory)
        for entry in entries
        if entry.directory is not None and not entry.is_placeholder
    ]


def _make_link(signature: bytes, lba: Lba) -> bytes:
    """Return a CL or PL field that leads to block ``lba`` (RRIP 4.1.5)."""
    return signature + b"\x0c\x01" + pack_both_endian(lba)


def _system_use_area(record: bytes) -> bytes:
    """Return the bytes of a record behind its identifier (9.1.13)."""
    length = record[_RECORD_IDENTIFIER_LENGTH]
    return record[IDENTIFIER_OFFSET + length + 1 - length % 2 :]


def _make_placeholder_head(head: bytes) -> bytes:
    """Return the fixed fields of a directory's record as those of an empty file."""
    raw = bytearray(head)
    raw[RECORD_LBA : RECORD_LENGTH + 8] = bytes(16)
    raw[RECORD_FLAGS] &= ~DIRECTORY
    return bytes(raw)


def _without_dangling_block(record: bytes, areas: ContinuationAreas) -> bytes:
    """Return ``record`` of a directory that moves; where it has no data, its block is that of the continuation area.

    The block of an empty file may be any. If the directory or one above it got that block, libarchive would report a
    loop.
    """
    if record[RECORD_FLAGS] & DIRECTORY or any(record[RECORD_LENGTH : RECORD_LENGTH + 4]):
        return record
    return record[:RECORD_LBA] + pack_both_endian(areas.first_block) + record[RECORD_LENGTH:]


def _set_multi_extent(record: bytes, is_continued: bool) -> bytes:
    """Return ``record`` with the flag that says whether another section of the file follows (9.1.6)."""
    flags = record[RECORD_FLAGS] & ~MULTI_EXTENT | (MULTI_EXTENT if is_continued else 0)
    return record[:RECORD_FLAGS] + bytes((flags,)) + record[RECORD_FLAGS + 1 :]
