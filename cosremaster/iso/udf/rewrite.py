"""Rewrite a UDF file system whose names change: directories, file entries and counts (ECMA-167, part 4)."""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from cosremaster.errors import ImageError
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.dates import YEAR_1, YEAR_10000
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.spans import Span
from cosremaster.iso.tree_edit.apply import AppliedEdits, apply_edits
from cosremaster.iso.tree_edit.directories import DirectoryEntry, EditableDirectory, EditableTree
from cosremaster.iso.udf.nodes import encode_mode_flags, encode_target
from cosremaster.iso.udf.patch import pack_allocation_descriptors, patch_file_entry, seal_descriptor
from cosremaster.iso.udf.read import (
    DIRECTORY_TYPE,
    FILE_ENTRY,
    FILE_ID,
    FILE_ID_SIZE,
    FILE_TYPE,
    INLINE_DATA,
    MAX_DIRECTORY,
    SYMLINK_TYPE,
    TAG_SIZE,
    Udf,
    UdfDirectory,
    UdfFile,
)
from cosremaster.iso.udf.tree import UdfTree
from cosremaster.records import Struct, field, replace
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.units import BLOCK, Lba, blocks_for, lba_offset

_NO_BLOCK = Lba(0)
_FILE_TYPES = {NodeKind.DIRECTORY: DIRECTORY_TYPE, NodeKind.FILE: FILE_TYPE, NodeKind.SYMLINK: SYMLINK_TYPE}
_ROOT_FLAGS = 0xFFFF & ~(7 | encode_mode_flags(0o7000))
"""The flags (4/14.6.8) that new file entries take from the root's: neither kind of allocation nor setuid and so on."""
_ID_DIRECTORY, _ID_PARENT = 0x02, 0x08  # 4/14.4.3
_UNIQUE_ID, _COUNTS = 40, 120
"""Offsets in an integrity descriptor: the next unique id (3/10.10.5), the counts of files and directories (UDF 1.02,
2.2.6.4)."""

Patches = dict[int, bytes]


class UdfRewrite(Struct):
    """The changes of a UDF file system. Its tree has no directory records, but dummy ones with each file's data.

    ``entry_blocks``: the image's block of each file entry, by the id of the :class:`DirectoryEntry` that names it.
    ``original_directories``: directories on the image, by the id of the :class:`EditableDirectory`.
    ``files``: those on the image, by the block of their file entry.
    ``directory_sizes``: the bytes of each changed directory, by its id.
    """

    udf: Udf
    source: ByteSource
    tree: EditableTree
    applied: AppliedEdits
    entry_blocks: dict[int, Lba]
    original_directories: dict[int, UdfDirectory]
    files: dict[Lba, UdfFile]
    directory_sizes: dict[int, int] = field(default_factory=dict)

    def find_file(self, entry: DirectoryEntry) -> UdfFile | None:
        """Return the file entry of a file that is on the image, None for a new one."""
        return self.files.get(self.entry_blocks[id(entry)]) if entry.records else None

    @property
    def moved_directories(self) -> list[EditableDirectory]:
        """The directories whose file identifiers need other blocks."""
        return [
            directory for directory in self.tree.directories() if directory.is_changed and self._is_outgrown(directory)
        ]

    def _is_outgrown(self, directory: EditableDirectory) -> bool:
        """Return whether the blocks that ``directory`` has on the image cannot hold it."""
        extents = self._original_extents(directory)
        return not extents or self.directory_sizes[id(directory)] > sum(
            blocks_for(length) * BLOCK for _, length in extents
        )

    def _original_extents(self, directory: EditableDirectory) -> tuple[tuple[Lba, int], ...]:
        """Return the extents of ``directory`` on the image, none if it is new or inside its file entry."""
        original = self.original_directories.get(id(directory))
        return () if original is None or original.is_inline else original.file_entry.extents

    @property
    def new_entries(self) -> list[DirectoryEntry]:
        """The entries that need a file entry."""
        return [entry for entry in self.tree.entries() if not entry.records]

    @property
    def needed_spans(self) -> tuple[Span, ...]:
        """The run of blocks that is needed, if any; its place is not known."""
        count = sum(blocks_for(self.directory_sizes[id(directory)]) for directory in self.moved_directories)
        count += len(self.new_entries)
        return (Span(_NO_BLOCK, count, "UDF file entries"),) if count else ()

    def vacated_spans(self) -> Iterator[Span]:
        """Yield the blocks that metadata give up."""
        named = {self.entry_blocks.get(id(entry)) for entry in self.tree.entries()}
        removed = {self.entry_blocks[id(entry)] for entry in self.applied.removed_entries}
        yield from (Span(block, 1, "UDF file entry") for block in sorted(removed - named))
        for directory in (*self.applied.removed_directories, *self.moved_directories):
            for lba, length in self._original_extents(directory):
                yield Span(lba, blocks_for(length), "UDF directory")

    def measure(self) -> None:
        """Set the sizes of changed directories."""
        extents = [(self._partition_start, MAX_DIRECTORY)]
        for directory in self.tree.directories():
            if directory.is_changed:
                self.directory_sizes[id(directory)] = len(self._serialize_directory(directory, extents, {}))

    def render(self, start: Lba, find_data: Callable[[Node], Lba], patches: Patches) -> bytes:
        """Return the bytes of the needed blocks, which begin at block ``start``.

        ``find_data``: returns the first block of a new file's data. ``patches``: all other changes of the image, by
        byte offset; they are extended.
        """
        extents: dict[int, tuple[Lba, int]] = {}
        block = start
        for directory in self.moved_directories:
            extents[id(directory)] = block, self.directory_sizes[id(directory)]
            block = Lba(block + blocks_for(self.directory_sizes[id(directory)]))
        new_entries = self.new_entries
        self.entry_blocks |= {id(entry): Lba(block + index) for index, entry in enumerate(new_entries)}
        first_id = self._next_unique_id()
        unique_ids = {id(entry): first_id + index for index, entry in enumerate(new_entries)}
        run = bytearray((block - start + len(new_entries)) * BLOCK)
        for directory in self.tree.directories():
            if not directory.is_changed:
                continue
            extent = extents.get(id(directory))
            if extent is not None:
                raw = self._serialize_directory(directory, [extent], unique_ids)
                _put_block(run, extent[0] - start, raw)
            directory_extents = [extent] if extent else self._overwrite(directory, unique_ids, patches)
            self._patch_directory_entry(directory, directory_extents, patches)
        for entry in new_entries:
            raw = self._make_file_entry(entry, unique_ids[id(entry)], extents, find_data)
            _put_block(run, self.entry_blocks[id(entry)] - start, raw)
        patches |= dict(self._patch_link_counts(patches))
        self._update_integrity(first_id + len(new_entries), patches)
        return bytes(run)

    def _patch_directory_entry(
        self, directory: EditableDirectory, extents: Sequence[tuple[Lba, int]], patches: Patches
    ) -> None:
        """Patch the file entry of a directory that is on the image."""
        original = self.original_directories.get(id(directory))
        if original is not None:
            file_entry = replace(original.file_entry, allocation_type=0) if original.is_inline else original.file_entry
            size = self.directory_sizes[id(directory)]
            offset, raw = patch_file_entry(self.udf, self.source, file_entry, extents, size, _count_links(directory))
            patches[offset] = raw

    def _patch_link_counts(self, patches: Patches) -> Iterator[tuple[int, bytes]]:
        """Yield patches of the link counts (4/14.9.6) of files that lost names; a new name has its own file entry."""
        old_names = Counter(
            Lba(self._partition_start + identifier.icb_block)
            for directory in self.udf.directories
            for identifier in directory.identifiers
        )
        names = Counter(self.entry_blocks[id(entry)] for entry in self.tree.entries())
        for block in sorted({Lba(file.entry_offset // BLOCK) for file in self.udf.files}):
            if names[block] and names[block] != old_names[block]:
                raw = bytearray(patches.get(lba_offset(block)) or self.source.read(lba_offset(block), BLOCK))
                links = int.from_bytes(raw[48:50], "little") + names[block] - old_names[block]
                raw[48:50] = max(1, links).to_bytes(2, "little")
                yield lba_offset(block), seal_descriptor(raw)

    def _overwrite(
        self, directory: EditableDirectory, unique_ids: Mapping[int, int], patches: Patches
    ) -> list[tuple[Lba, int]]:
        """Patch the file identifiers of ``directory`` in its old blocks; return the extents that they take."""
        remaining, extents = self.directory_sizes[id(directory)], list[tuple[Lba, int]]()
        old_extents = self._original_extents(directory)
        for lba, length in old_extents:
            count = min(remaining, blocks_for(length) * BLOCK)
            if count:
                extents.append((lba, count))
            remaining -= count
        raw = self._serialize_directory(directory, extents, unique_ids)
        at = 0
        for lba, length in old_extents:
            size = blocks_for(length) * BLOCK
            patches[lba_offset(lba)] = raw[at : at + size].ljust(size, b"\0")
            at += size
        return extents

    def _serialize_directory(
        self, directory: EditableDirectory, extents: Sequence[tuple[Lba, int]], unique_ids: Mapping[int, int]
    ) -> bytes:
        """Return the file identifiers of ``directory``, its parent's first; each names the block it begins in."""
        assert directory.parent is not None
        raw, remaining_extents, at = bytearray(), list(extents), 0
        for entry in (None, *directory.entries):
            while remaining_extents and at >= remaining_extents[0][1]:
                at -= remaining_extents.pop(0)[1]
            block = remaining_extents[0][0] + at // BLOCK - self._partition_start
            if entry is None:
                identifier = self._make_parent_identifier(directory.parent, block)
            else:
                identifier = self._make_identifier(entry, unique_ids, block)
            raw += identifier
            at += len(identifier)
        return bytes(raw)

    def _make_parent_identifier(self, parent: EditableDirectory, block: int) -> bytes:
        """Return the file identifier that leads to the ``parent`` directory (4/14.4)."""
        original = self.original_directories.get(id(parent))
        icb = original.block if original else self.entry_blocks.get(id(parent.entry), self._partition_start)
        return self._pack_identifier(b"", _ID_DIRECTORY | _ID_PARENT, icb, 0, block)

    def _make_identifier(self, entry: DirectoryEntry, unique_ids: Mapping[int, int], block: int) -> bytes:
        """Return the file identifier of ``entry`` (4/14.4), with the unique id of its file entry."""
        icb = self.entry_blocks.get(id(entry), self._partition_start)
        unique_id = self._read_unique_id(entry) if entry.records else unique_ids.get(id(entry), 0)
        flags = _ID_DIRECTORY if entry.directory is not None else 0
        return self._pack_identifier(entry.identifier, flags, icb, unique_id, block)

    def _pack_identifier(self, name: bytes, flags: int, icb: Lba, unique_id: int, block: int) -> bytes:
        """Return a file identifier descriptor in ``block`` of the partition (4/14.4)."""
        raw = bytearray(FILE_ID_SIZE) + name
        raw += bytes(-len(raw) % 4)
        raw[16] = 1  # file version number
        raw[18] = flags
        raw[19] = len(name)
        struct.pack_into("<II", raw, 20, BLOCK, icb - self._partition_start)
        raw[32:36] = (unique_id & 0xFFFFFFFF).to_bytes(4, "little")
        return self._add_tag(raw, FILE_ID, block)

    def _read_unique_id(self, entry: DirectoryEntry) -> int:
        """Return the unique id in a file entry on the image (4/14.9.15, 4/14.17.18)."""
        raw = self.source.read(lba_offset(self.entry_blocks[id(entry)]), BLOCK)
        at = 160 if int.from_bytes(raw[:2], "little") == FILE_ENTRY else 200
        return int.from_bytes(raw[at : at + 8], "little")

    def _make_file_entry(
        self,
        entry: DirectoryEntry,
        unique_id: int,
        directory_extents: Mapping[int, tuple[Lba, int]],
        find_data: Callable[[Node], Lba],
    ) -> bytes:
        """Return the file entry of a new entry (4/14.9)."""
        node = entry.node
        assert node is not None
        root = self.source.read(self._root_entry_offset, BLOCK)
        data = encode_target(node.target) if node.kind is NodeKind.SYMLINK else b""
        size = node.content.size if node.content else 0
        extents = [(find_data(node), size)] if entry.directory is None and size else []
        if entry.directory is not None:
            extents = [directory_extents[id(entry.directory)]]
        body = data or pack_allocation_descriptors(self.udf, extents, long=False)
        raw = bytearray(176)
        struct.pack_into("<HHH", raw, 20, 4, 0, 1)  # strategy 4 (4/A.5)
        raw[27] = _FILE_TYPES[node.kind]
        flags = int.from_bytes(root[34:36], "little") & _ROOT_FLAGS | encode_mode_flags(node.mode)
        raw[34:36] = (flags | (INLINE_DATA if data else 0)).to_bytes(2, "little")
        links = _count_links(entry.directory) if entry.directory else 1
        struct.pack_into("<IIIH", raw, 36, node.uid, node.gid, _encode_permissions(node.mode), links)
        lengths = [length for _, length in extents]
        struct.pack_into("<QQ", raw, 56, len(data) or sum(lengths), sum(map(blocks_for, lengths)))
        raw[72:108] = _encode_timestamp(node.mtime) * 3
        raw[108:112] = (1).to_bytes(4, "little")
        at = 128 if int.from_bytes(root[:2], "little") == FILE_ENTRY else 168
        raw[128:160] = root[at : at + 32]  # implementation identifier
        struct.pack_into("<QII", raw, 160, unique_id, 0, len(body))
        return self._add_tag(raw + body, FILE_ENTRY, self.entry_blocks[id(entry)] - self._partition_start)

    def _add_tag(self, raw: bytearray, tag_id: int, block: int) -> bytes:
        """Return ``raw`` in ``block`` of the partition with a tag like the others of the file system (3/7.2)."""
        version, serial = struct.unpack_from("<2xH2xH", self.source.read(self._root_entry_offset, TAG_SIZE))
        struct.pack_into("<HHBBHHHI", raw, 0, tag_id, version, 0, 0, serial, 0, 0, block)
        return seal_descriptor(raw, len(raw) - TAG_SIZE)

    def _next_unique_id(self) -> int:
        """Return the first unused unique id.

        :raises ImageError: when the file system has no integrity descriptor.
        """
        if not self.udf.integrity_descriptors:
            raise ImageError("UDF has no integrity descriptor", self.source.place)
        offset = self.udf.integrity_descriptors[-1]
        return int.from_bytes(self.source.read(offset + _UNIQUE_ID, 8), "little")

    def _update_integrity(self, next_unique_id: int, patches: Patches) -> None:
        """Patch the counts and the next unique id of the integrity descriptors, beside other patches of them."""
        directory_count = sum(1 for _ in self.tree.directories())
        files = {self.entry_blocks[id(entry)] for entry in self.tree.entries() if entry.directory is None}
        for offset in self.udf.integrity_descriptors:
            raw = bytearray(patches.get(offset) or self.source.read(offset, BLOCK))
            raw[_UNIQUE_ID : _UNIQUE_ID + 8] = next_unique_id.to_bytes(8, "little")
            if self.udf.integrity_counts is not None:
                struct.pack_into("<II", raw, _COUNTS, len(files), directory_count)
            patches[offset] = seal_descriptor(raw)

    @property
    def _partition_start(self) -> Lba:
        """The image's first block of the partition."""
        return self.udf.partition.start

    @property
    def _root_entry_offset(self) -> int:
        """The byte offset of the root's file entry."""
        return self.udf.directories[0].file_entry.entry_offset


def restructure_udf(source: ByteSource, read: UdfTree, edits: IsoEdits) -> UdfRewrite:
    """Apply ``edits`` to the UDF file system ``read``, whose entries are matched, and measure it.

    :raises UnsupportedError: when a directory has no identifier left for a name.
    """
    applied = apply_edits(read.tree, edits, source.place)
    rewrite = UdfRewrite(read.udf, source, read.tree, applied, read.entry_blocks, read.original_directories, read.files)
    rewrite.measure()
    return rewrite


def _put_block(run: bytearray, index: int, raw: bytes) -> None:
    """Write ``raw`` into ``run`` from block ``index`` on."""
    run[index * BLOCK : index * BLOCK + len(raw)] = raw


def _count_links(directory: EditableDirectory) -> int:
    """Return the file link count of a directory (4/14.9.6): its own file identifier, and one of each subdirectory."""
    return 1 + directory.subdirectory_count


def _encode_permissions(mode: int) -> int:
    """Return the permissions field (4/14.9.5) for POSIX permissions: five bits each for others, group and owner."""
    permissions = 0
    for index in range(3):
        bits = mode >> 3 * index & 7
        permissions |= (bits >> 2 & 1) << 5 * index + 2 | (bits >> 1 & 1) << 5 * index + 1 | (bits & 1) << 5 * index
    return permissions


def _encode_timestamp(seconds: int) -> bytes:
    """Return a timestamp in UTC (1/7.3), clipped to the years 1 to 9999."""
    time_utc = time.gmtime(min(max(seconds, YEAR_1), YEAR_10000 - 1))
    return struct.pack("<HHBBBBB3x", 0x1000, *time_utc[:6])
