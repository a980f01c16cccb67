"""A UDF file system whose names come, go or change: its directories, file entries and counts (ECMA-167, part 4)."""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator

from msgspec import Struct, field
from msgspec.structs import replace

from cosremaster.errors import ImageError
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.dates import YEAR_1, YEAR_10000
from cosremaster.iso.ecma119.identifiers import UdfIdentifierRules
from cosremaster.iso.ecma119.records import DirectoryRecord, Extent
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import IsoImage
from cosremaster.iso.spans import Span
from cosremaster.iso.tree_edit.apply import AppliedEdits, apply_edits
from cosremaster.iso.tree_edit.directories import DirectoryEntry, EditableDirectory, EditableTree
from cosremaster.iso.tree_edit.match_trees import match_entries
from cosremaster.iso.udf.patch import pack_allocation_descriptors, patch_file_entry, seal_descriptor
from cosremaster.iso.udf.read import FILE_ENTRY, FILE_ID, MAX_DIRECTORY, TAG_SIZE, Udf, UdfDirectory, UdfFile
from cosremaster.tree.nodes import Node
from cosremaster.units import BLOCK, Lba, blocks_for, lba_offset

_NOWHERE = Lba(0)
_DIRECTORY, _FILE = 4, 5  # 4/14.6.6
_ID_DIRECTORY, _ID_PARENT = 0x02, 0x08  # 4/14.4.3
_HEAD = 38
_UNIQUE, _COUNTS = 40, 120
"""In an integrity descriptor (3/10.10, UDF 1.02, 2.2.6.4): the next unique number, and how many files there are."""

Patches = dict[int, bytes]


class UdfRewrite(Struct):
    """What becomes of a UDF file system. ``blocks``: file entries by the id of what leads to them, blocks of the image;
    ``homes``: folders' own entries by their id; ``lengths``: of changed folders by their id."""

    udf: Udf
    source: ByteSource
    tree: EditableTree
    applied: AppliedEdits
    entry_blocks: dict[int, Lba]
    original_directories: dict[int, UdfDirectory]
    directory_sizes: dict[int, int] = field(default_factory=dict)

    @property
    def moved_directories(self) -> list[EditableDirectory]:
        """Folders whose names need blocks of their own."""
        return [one for one in self.tree.directories() if one.is_changed and self._outgrown(one)]

    def _outgrown(self, folder: EditableDirectory) -> bool:
        home = self.original_directories.get(id(folder))
        if home is None or home.is_inline:
            return True
        return self.directory_sizes[id(folder)] > sum(
            blocks_for(length) * BLOCK for _, length in home.file_entry.extents
        )

    @property
    def new_entries(self) -> list[DirectoryEntry]:
        """Entries that need a file entry."""
        return [one for folder in self.tree.directories() for one in folder.entries if not one.records]

    @property
    def needed_spans(self) -> tuple[Span, ...]:
        """The blocks that are needed: one run."""
        count = len(self.new_entries) + sum(blocks_for(self.directory_sizes[id(one)]) for one in self.moved_directories)
        return (Span(_NOWHERE, count, "UDF file entries"),) if count else ()

    def vacated_spans(self) -> Iterator[Span]:
        """What metadata give up."""
        kept = {self.entry_blocks.get(id(one)) for folder in self.tree.directories() for one in folder.entries}
        left = {self.entry_blocks[id(one)] for one in self.applied.removed_entries} - kept
        yield from (Span(block, 1, "UDF file entry") for block in sorted(left))
        for folder in (*self.applied.removed_directories, *self.moved_directories):
            home = self.original_directories.get(id(folder))
            for lba, length in home.file_entry.extents if home is not None and not home.is_inline else ():
                yield Span(lba, blocks_for(length), "UDF directory")

    def render(self, start: Lba, data: Callable[[Node], Lba], patches: Patches) -> bytes:
        """The bytes of the run that begins at block ``start``; what else changes goes into ``patches``, by byte offset.

        ``data``: where a new file's data begin.
        """
        places: dict[int, Lba] = {}
        at = start
        for folder in self.moved_directories:
            places[id(folder)] = at
            at = Lba(at + blocks_for(self.directory_sizes[id(folder)]))
        made = {id(one): Lba(at + index) for index, one in enumerate(self.new_entries)}
        self.entry_blocks |= made
        unique = self._unique()
        numbers = {key: unique + index for index, key in enumerate(made)}
        run = bytearray((at - start + len(made)) * BLOCK)
        for folder in self.tree.directories():
            if not folder.is_changed:
                continue
            home = self.original_directories.get(id(folder))
            if id(folder) in places:
                lba = places[id(folder)]
                raw = self._names(folder, [(lba_offset(lba), self.directory_sizes[id(folder)])], numbers)
                run[(lba - start) * BLOCK : (lba - start) * BLOCK + len(raw)] = raw
                extents = [(lba, len(raw))]
            else:
                assert home is not None
                extents = self._in_place(folder, home, numbers, patches)
            if home is not None:
                entry = replace(home.file_entry, allocation_type=0) if home.is_inline else home.file_entry
                offset, raw = patch_file_entry(
                    self.udf, self.source, entry, extents, self.directory_sizes[id(folder)], _links(folder)
                )
                patches[offset] = raw
        for one in self.new_entries:
            raw = self._entry(one, made[id(one)], numbers[id(one)], places, data)
            begin = (made[id(one)] - start) * BLOCK
            run[begin : begin + len(raw)] = raw
        patches |= dict(self._link_counts(patches))
        self._count(unique + len(made), patches)
        return bytes(run)

    def _link_counts(self, patches: Patches) -> Iterator[tuple[int, bytes]]:
        """The link counts (4/14.9.6) of files that have fewer names now; a new name has an entry of its own."""
        files = {Lba(one.entry_offset // BLOCK) for one in self.udf.files}
        names = Counter(
            self.udf.partition.start + one.icb_block for folder in self.udf.directories for one in folder.identifiers
        )
        left = Counter(self.entry_blocks[id(one)] for folder in self.tree.directories() for one in folder.entries)
        for block in sorted(files):
            if left[block] and left[block] != names[block]:
                raw = bytearray(patches.get(lba_offset(block)) or self.source.read(lba_offset(block), BLOCK))
                told = int.from_bytes(raw[48:50], "little")
                raw[48:50] = max(1, told + left[block] - names[block]).to_bytes(2, "little")
                yield lba_offset(block), seal_descriptor(raw, int.from_bytes(raw[10:12], "little"))

    def _in_place(
        self, folder: EditableDirectory, home: UdfDirectory, numbers: dict[int, int], patches: Patches
    ) -> list[tuple[Lba, int]]:
        """Writes names over the old ones; returns the extents that they take."""
        left, extents = self.directory_sizes[id(folder)], list[tuple[Lba, int]]()
        for lba, length in home.file_entry.extents:
            taken = min(left, blocks_for(length) * BLOCK)
            if taken:
                extents.append((lba, taken))
            left -= taken
        raw = self._names(folder, [(lba_offset(lba), length) for lba, length in extents], numbers)
        at = 0
        for lba, length in home.file_entry.extents:
            size = blocks_for(length) * BLOCK
            patches[lba_offset(lba)] = raw[at : at + size].ljust(size, b"\0")
            at += size
        return extents

    def measure(self) -> None:
        """Notes how long changed folders become."""
        for folder in self.tree.directories():
            if folder.is_changed:
                self.directory_sizes[id(folder)] = len(
                    self._names(folder, [(lba_offset(self.udf.partition.start), MAX_DIRECTORY)], {})
                )

    def _names(self, folder: EditableDirectory, places: list[tuple[int, int]], numbers: dict[int, int]) -> bytes:
        """A folder's file identifiers, its parent's first, each with the block it stands in (3/7.2.8)."""
        assert folder.parent is not None
        raw, waiting, inside = bytearray(), list(places), 0
        for one in (None, *folder.entries):
            while waiting and inside >= waiting[0][1]:
                inside -= waiting.pop(0)[1]
            block = (waiting[0][0] + inside) // BLOCK - self.udf.partition.start
            identifier = self._identifier(folder, one, numbers, block)
            raw += identifier
            inside += len(identifier)
        return bytes(raw)

    def _identifier(
        self, folder: EditableDirectory, entry: DirectoryEntry | None, numbers: dict[int, int], block: int
    ) -> bytes:
        """One file identifier (4/14.4); with no entry that of the parent."""
        target = (
            self._icb_of(folder.parent) if entry is None else self.entry_blocks.get(id(entry), self.udf.partition.start)
        )
        name = b"" if entry is None else entry.identifier
        directory = entry is None or entry.directory is not None
        number = 0 if entry is None or not entry.records else self._number_of(entry)
        number = numbers.get(id(entry), number)
        raw = bytearray(_HEAD) + name
        raw += bytes(-len(raw) % 4)
        raw[16] = 1  # version
        raw[18] = (_ID_DIRECTORY if directory else 0) | (_ID_PARENT if entry is None else 0)
        raw[19] = len(name)
        struct.pack_into("<II", raw, 20, BLOCK, target - self.udf.partition.start)
        raw[32:36] = (number & 0xFFFFFFFF).to_bytes(4, "little")
        return self._tag(raw, FILE_ID, block)

    def _icb_of(self, folder: EditableDirectory | None) -> Lba:
        """The block of a folder's own file entry."""
        assert folder is not None
        home = self.original_directories.get(id(folder))
        if home is not None:
            return home.block
        return self.entry_blocks.get(id(folder.entry), Lba(self.udf.partition.start))

    def _number_of(self, entry: DirectoryEntry) -> int:
        """The unique number in a file entry on the image (4/14.9.15; 4/14.17.18)."""
        raw = self.source.read(lba_offset(self.entry_blocks[id(entry)]), BLOCK)
        at = 160 if int.from_bytes(raw[:2], "little") == FILE_ENTRY else 200
        return int.from_bytes(raw[at : at + 8], "little")

    def _entry(
        self, entry: DirectoryEntry, block: Lba, number: int, places: dict[int, Lba], data: Callable[[Node], Lba]
    ) -> bytes:
        """A new file entry (4/14.9)."""
        node = entry.node
        assert node is not None
        root = self.source.read(self.udf.directories[0].file_entry.entry_offset, BLOCK)
        if entry.directory is not None:
            runs = [(places[id(entry.directory)], self.directory_sizes[id(entry.directory)])]
        else:
            size = node.content.size if node.content else 0
            runs = [(data(node), size)] if size else []
        listed = pack_allocation_descriptors(self.udf, runs, long=False)
        raw = bytearray(176)
        struct.pack_into("<HHH", raw, 20, 4, 0, 1)  # strategy 4 (4/A.5)
        raw[27] = _FILE if entry.directory is None else _DIRECTORY
        raw[34:36] = root[34] & 0xF8, root[35]
        struct.pack_into("<IIIH", raw, 36, node.uid, node.gid, _permissions(node.mode), _links(entry.directory))
        struct.pack_into("<QQ", raw, 56, sum(one for _, one in runs), sum(blocks_for(one) for _, one in runs))
        raw[72:108] = _stamp(node.mtime) * 3
        raw[108:112] = (1).to_bytes(4, "little")
        at = 128 if int.from_bytes(root[:2], "little") == FILE_ENTRY else 168
        raw[128:160] = root[at : at + 32]
        struct.pack_into("<QII", raw, 160, number, 0, len(listed))
        return self._tag(raw + listed, FILE_ENTRY, block - self.udf.partition.start)

    def _tag(self, raw: bytearray, kind: int, block: int) -> bytes:
        """``raw`` with a tag like those of the file system (3/7.2)."""
        version, serial = struct.unpack_from(
            "<2xH2xH", self.source.read(self.udf.directories[0].file_entry.entry_offset, TAG_SIZE)
        )
        struct.pack_into("<HHBBHHHI", raw, 0, kind, version, 0, 0, serial, 0, 0, block)
        return seal_descriptor(raw, len(raw) - TAG_SIZE)

    def _unique(self) -> int:
        """The first unique number that nothing has."""
        if not self.udf.integrity_descriptors:
            raise ImageError("UDF has no integrity descriptor", self.source.place)
        offset = self.udf.integrity_descriptors[-1]
        return int.from_bytes(self.source.read(offset + _UNIQUE, 8), "little")

    def _count(self, unique: int, patches: Patches) -> None:
        """The integrity descriptors' counts and next number, beside what changes in them otherwise."""
        folders = list(self.tree.directories())
        files = {self.entry_blocks[id(one)] for folder in folders for one in folder.entries if one.directory is None}
        for offset in self.udf.integrity_descriptors:
            raw = bytearray(patches.get(offset) or self.source.read(offset, BLOCK))
            raw[_UNIQUE : _UNIQUE + 8] = unique.to_bytes(8, "little")
            if self.udf.integrity_counts is not None:
                struct.pack_into("<II", raw, _COUNTS, len(files), len(folders))
            patches[offset] = seal_descriptor(raw, int.from_bytes(raw[10:12], "little"))


def restructure_udf(image: IsoImage, source: ByteSource, primary: EditableTree, edits: IsoEdits) -> UdfRewrite | None:
    """The UDF file system of ``image`` after ``edits``, measured; None without. ``primary``: the primary tree before.

    :raises UnsupportedError: a directory has no identifier left.
    """
    if image.udf is None:
        return None
    tree, blocks, homes = _read(image.udf)
    match_entries(primary, tree)
    work = UdfRewrite(image.udf, source, tree, apply_edits(tree, edits, image.place), blocks, homes)
    work.measure()
    return work


def _read(udf: Udf) -> tuple[EditableTree, dict[int, Lba], dict[int, UdfDirectory]]:
    """The file system as folders, each entry's file entry, and each folder's own."""
    by_block = {one.block: one for one in udf.directories}
    files: dict[Lba, UdfFile] = {Lba(one.entry_offset // BLOCK): one for one in udf.files}
    root = _folder(udf.directories[0], None)
    blocks: dict[int, Lba] = {}
    homes = {id(root): udf.directories[0]}
    waiting = [(udf.directories[0], root)]
    while waiting:
        home, folder = waiting.pop()
        for one in home.identifiers:
            block = Lba(udf.partition.start + one.icb_block)
            name = one.name.encode("utf-8", "surrogatepass")
            use = int.from_bytes(one.raw[36:38], "little")
            identifier = one.raw[_HEAD + use : _HEAD + use + one.raw[19]]
            if block in by_block:
                below = _folder(by_block[block], folder)
                extent = below.extent or Extent(_NOWHERE, 0)
                entry = DirectoryEntry(
                    name, identifier, (_record(extent.lba, extent.length, identifier),), below, shown_name=name
                )
                below.entry = entry
                homes[id(below)] = by_block[block]
                waiting.append((by_block[block], below))
            else:
                file = files[block]
                lba = file.extents[0][0] if file.extents else _NOWHERE
                entry = DirectoryEntry(name, identifier, (_record(lba, file.size, identifier),), shown_name=name)
            blocks[id(entry)] = block
            folder.entries.append(entry)
    return EditableTree("UDF", Lba(0), (), root, UdfIdentifierRules()), blocks, homes


def _folder(home: UdfDirectory, parent: EditableDirectory | None) -> EditableDirectory:
    lba = home.file_entry.extents[0][0] if home.file_entry.extents else home.block
    folder = EditableDirectory(Extent(lba, home.file_entry.size), parent, parent.level + 1 if parent else 1, parent)
    if parent is None:
        folder.parent = folder
    return folder


def _record(lba: Lba, length: int, identifier: bytes) -> DirectoryRecord:
    return DirectoryRecord(offset=0, lba=lba, length=length, flags=0, parent=(), identifier=identifier)


def _links(folder: EditableDirectory | None) -> int:
    """How many file identifiers lead to a file entry (4/14.9.6); a directory's subdirectories each have one."""
    return 1 + folder.subdirectory_count if folder is not None else 1


def _permissions(mode: int) -> int:
    """Permissions (4/14.9.5) from those of POSIX: five bits each for others, group and owner."""
    found = 0
    for index in range(3):
        bits = mode >> 3 * index & 7
        found |= (bits >> 2 & 1) << 5 * index + 2 | (bits >> 1 & 1) << 5 * index + 1 | (bits & 1) << 5 * index
    return found


def _stamp(seconds: int) -> bytes:
    """A timestamp (1/7.3), in UTC."""
    at = time.gmtime(min(max(seconds, YEAR_1), YEAR_10000 - 1))
    return struct.pack("<HHBBBBB3x", 0x1000, at.tm_year, at.tm_mon, at.tm_mday, at.tm_hour, at.tm_min, at.tm_sec)
