"""Read the trees of an image as editable ones.

All directories are known at once, from what reading the image said of them. The entries of a directory become values
when they are first asked for: of a hundred thousand files a change concerns few. A directory with anything but plain
records is read whole at once.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence

from cosremaster.errors import ImageError, UnsupportedError
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.identifiers import (
    JOLIET_VERSION,
    IdentifierRules,
    InferredRules,
    infer_joliet_rules,
    infer_rules,
)
from cosremaster.iso.ecma119.records import (
    ASSOCIATED,
    DIRECTORY,
    MULTI_EXTENT,
    DirectoryRecord,
    Extent,
    VolumeDescriptor,
    begins_with_dots,
    locate_record,
    read_directory,
)
from cosremaster.iso.ecma119.system_use import SystemUsePrefix
from cosremaster.iso.model import IsoDirectory, IsoFile, IsoTree
from cosremaster.iso.read_trees import JOLIET
from cosremaster.iso.rockridge.read import (
    RockRidge,
    find_areas,
    find_susp_skip,
    read_rock_ridge,
    walk_fields,
)
from cosremaster.iso.rockridge.write import CE_SIZE, RockRidgeProfile
from cosremaster.iso.tree_edit.directories import (
    IDENTIFIER_OFFSET,
    MAX_RECORD_SIZE,
    DirectoryEntry,
    EditableDirectory,
    EditableTree,
    EntriesReader,
    SerialNumbers,
    UnreadEntries,
)
from cosremaster.iso.tree_files import FileColumns, list_identifiers
from cosremaster.iso.walk import choose_name, get_extent
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct, field
from cosremaster.units import BLOCK, Lba, blocks_for, lba_offset

_MAX_RECORD_BYTE = 255
"""The largest value of a record's length byte (9.1.1)."""
_MIN_IDENTIFIER_ROOM = 32
_SERIAL = lazy_regex(rb"(?s)PX\x2c\x01.{32}(.{4})")
"""A PX field with a file serial number, little-endian first (RRIP 4.1.1)."""


def read_editable_trees(source: ByteSource, image_trees: Iterable[IsoTree]) -> list[EditableTree]:
    """Return an editable tree for each root, the primary one first; each entry's ``primary_name`` is its own name.

    :raises ImageError: when a record is malformed.
    :raises UnsupportedError: when a directory has an extended attribute record.
    """
    return [read_editable_tree(source, group) for group in group_by_root(source, image_trees)]


def group_by_root(
    source: ByteSource, image_trees: Iterable[IsoTree]
) -> Iterable[Sequence[tuple[IsoTree, VolumeDescriptor]]]:
    """Return the trees with their descriptors; those of one root together, that which has the directories first."""
    groups: dict[tuple[Lba, int], list[tuple[IsoTree, VolumeDescriptor]]] = {}
    for tree in image_trees:
        descriptor = VolumeDescriptor(tree.descriptor_lba, source.read(lba_offset(tree.descriptor_lba), BLOCK))
        groups.setdefault((Lba(tree.base + descriptor.root.lba), tree.base), []).append((tree, descriptor))
    return groups.values()


def read_editable_tree(source: ByteSource, group: Sequence[tuple[IsoTree, VolumeDescriptor]]) -> EditableTree:
    """Read the tree that all descriptors of ``group`` share."""
    trees, descriptors = tuple(tree for tree, _ in group), tuple(descriptor for _, descriptor in group)
    base = trees[0].base
    extent = Extent(Lba(base + descriptors[0].root.lba), descriptors[0].root.length)
    root = EditableDirectory(extent, None, 1)
    root.parent = root
    dot = source.read(lba_offset(extent.lba), _MAX_RECORD_BYTE)
    skip = None if trees[0].kind == JOLIET else find_susp_skip(dot)
    prefix = SystemUsePrefix.from_area(dot[IDENTIFIER_OFFSET + 1 : dot[0]], skip)
    plain = {directory.extent.lba: directory for directory in trees[0].index if directory.is_plain}
    reader = _TreeReader(source, base, skip, trees[0].kind == JOLIET, plain, trees[0].files, len(prefix.sample))
    reader.read(root)
    reader.check_room()
    is_enhanced = any(tree.kind == "ISO 9660:1999" for tree in trees)
    naming = InferredRules(reader.joliet, lambda: reader.derive_naming(enhanced=is_enhanced))
    serials = SerialNumbers(reader.read_serials)
    tree = EditableTree(trees[0].kind, base, descriptors, root, naming, serial_numbers=serials, prefix=prefix)
    above = (entry for directory in reader.directories for entry in directory.directory_entries)
    tree.relocation_directory = next(
        (entry.directory.parent for entry in above if entry.is_relocated_record and entry.directory), None
    )
    if skip is not None:
        root_fields = [raw for _, raw in walk_fields(source, dot[: dot[0]], lba_offset(extent.lba), skip, base)]
        tree.rock_ridge = RockRidgeProfile.from_fields(
            root_fields if reader.sample_fields is None else reader.sample_fields, skip
        )
        tree.root_area_blocks = list_area_blocks(find_areas(source, dot[: dot[0]], lba_offset(extent.lba), skip, base))
        px = next((raw for raw in root_fields if raw[:2] == b"PX" and len(raw) > 16), b"")
        tree.counts_subdirectories = int.from_bytes(px[12:16], "little") == 2 + root.subdirectory_count
    return tree


class _TreeReader(Struct):
    """Reads the directories below a root as they are recorded, then links relocated ones with their names.

    ``skip``: bytes before the Rock Ridge fields (SUSP 5.3), None without Rock Ridge.
    ``plain``: the directories of plain records, by their first block, and ``files`` of the tree; see
    :class:`IsoDirectory`.
    ``prefix_size``: bytes that each record has in front of other fields.
    ``sample_fields``: the Rock Ridge fields of the first plain file's record.
    ``directories_at``: directories by the first block of their extent.
    ``placeholders``: (the directory that holds the name, its entry, the block that CL names).
    ``identifiers``: those of the entries of all directories that are not plain: of files, and of directories.
    """

    source: ByteSource
    base: Lba
    skip: int | None
    joliet: bool
    plain: Mapping[Lba, IsoDirectory]
    files: Sequence[IsoFile]
    prefix_size: int = 0
    directories: list[EditableDirectory] = field(default_factory=list)
    sample_fields: list[bytes] | None = None
    serial_numbers: set[int] = field(default_factory=set)
    directories_at: dict[Lba, EditableDirectory] = field(default_factory=dict)
    placeholders: list[tuple[EditableDirectory, DirectoryEntry, Lba]] = field(default_factory=list)
    identifiers: tuple[list[bytes], list[bytes]] = field(default_factory=lambda: ([], []))

    def read(self, root: EditableDirectory) -> None:
        """Read every directory below ``root``."""
        assert root.extent is not None
        self.directories_at[root.extent.lba] = root
        waiting, read_entries = [root], self._read_plain_entries
        while waiting:
            directory = waiting.pop()
            self.directories.append(directory)
            below = self._skim_directory(directory, read_entries)
            waiting += self._read_directory(directory) if below is None else below
        self._link_relocated(root)
        for entry in (entry for directory in self.directories for entry in directory.read_list):
            self.identifiers[entry.directory is not None].append(entry.identifier)

    def _skim_directory(
        self, directory: EditableDirectory, read_entries: EntriesReader
    ) -> list[EditableDirectory] | None:
        """Return the directories that are recorded in ``directory`` if it is plain; no other records are read.

        :param read_entries: what reads them later.
        """
        assert directory.extent is not None
        plain = self.plain.get(directory.extent.lba)
        if plain is None or plain.extent != directory.extent:
            return None
        if not plain.begins_with_dots:
            raise _no_dots(self.source, directory.extent)
        below, above = list[EditableDirectory](), len(plain.path) + 1 if plain.path else 0
        for child in plain.children:
            assert child.record is not None
            below.append(self._make_directory(directory, child.record, child.path[above:], child.extent))
        if self.skip is not None and self.sample_fields is None and plain.files.stop > plain.files.start:
            self._read_sample(plain)
        entries = [child.entry for child in below if child.entry is not None] if below else ()
        directory.unread = UnreadEntries(read_entries, entries, plain.empty_blocks)
        directory.dots = plain.dot_extents
        return below

    def _read_sample(self, plain: IsoDirectory) -> None:
        """Read the fields of the first file in ``plain``."""
        records = read_directory(self.source, plain.extent, (), self.base)
        record, raw = next((record, raw) for record, raw in records if not record.flags & DIRECTORY)
        fields = walk_fields(self.source, raw, record.offset, self.skip or 0, self.base)
        self.sample_fields = [field_bytes for _, field_bytes in fields]

    def _read_plain_entries(
        self, directory: EditableDirectory, directory_entries: Sequence[DirectoryEntry]
    ) -> list[DirectoryEntry]:
        """Return the entries of a directory that was skimmed; those of directories are known."""
        assert directory.extent is not None
        skimmed, entries = iter(directory_entries), list[DirectoryEntry]()
        for record, raw in read_directory(self.source, directory.extent, (), self.base):
            if record.flags & DIRECTORY:
                entries.append(next(skimmed))
                continue
            ridge = None
            if self.skip is not None:
                ridge = read_rock_ridge(self.source, raw, record.offset, self.skip, self.base)
            name = choose_name(record, ridge, joliet=self.joliet)
            entries.append(DirectoryEntry(name, record.identifier, (record,), shown_name=name))
        return entries

    def _read_directory(self, directory: EditableDirectory) -> list[EditableDirectory]:
        """Read the entries of ``directory``; return the directories that are recorded in it."""
        assert directory.extent is not None
        _check_dots(self.source, directory.extent)
        below: list[EditableDirectory] = []
        sections: list[DirectoryRecord] = []
        for record, raw in read_directory(self.source, directory.extent, (), self.base):
            ridge = None
            if self.skip is not None:
                ridge = read_rock_ridge(self.source, raw, record.offset, self.skip, self.base)
                self.serial_numbers.add(ridge.serial)
                directory.area_blocks |= list_area_blocks(ridge.areas)
            if record.flags & DIRECTORY:
                below.append(self._add_directory(directory, record, ridge))
                continue
            sections.append(record)
            if not record.flags & MULTI_EXTENT:
                self._add_file(directory, sections, raw, ridge)
                sections = []
        if sections:
            raise ImageError("the last extent of a file is missing", locate_record(self.source.place, sections[-1]))
        return below

    def _add_directory(
        self, parent: EditableDirectory, record: DirectoryRecord, ridge: RockRidge | None
    ) -> EditableDirectory:
        """Add the directory of ``record`` to ``parent`` and return it."""
        if not record.is_plain:
            raise UnsupportedError(
                "has an extended attribute record, so nothing can be added to or taken from its tree",
                locate_record(self.source.place, record),
            )
        directory = self._make_directory(
            parent, record, choose_name(record, ridge, joliet=self.joliet), get_extent(record)
        )
        assert directory.entry is not None
        directory.entry.is_hidden = ridge is not None and ridge.is_relocated
        parent.entries.append(directory.entry)
        return directory

    def _make_directory(
        self, parent: EditableDirectory, record: DirectoryRecord, name: bytes, extent: Extent
    ) -> EditableDirectory:
        """Return the directory of ``record`` in ``parent``. :raises ImageError: it was met before."""
        directory = EditableDirectory(extent, parent, parent.level + 1, parent)
        directory.entry = DirectoryEntry(name, record.identifier, (record,), directory, shown_name=name)
        if record.lba in self.directories_at:
            raise ImageError("directory tree leads into itself", self.source.place.at(record.offset))
        self.directories_at[record.lba] = directory
        return directory

    def _add_file(
        self, directory: EditableDirectory, sections: list[DirectoryRecord], raw: bytes, ridge: RockRidge | None
    ) -> None:
        """Add the file with these records to ``directory``; ``raw`` and ``ridge`` are those of the last record."""
        record = sections[-1]
        name = choose_name(record, ridge, joliet=self.joliet)
        entry = DirectoryEntry(name, record.identifier, tuple(sections), shown_name=name)
        entry.is_hidden = bool(record.flags & ASSOCIATED)
        directory.entries.append(entry)
        if ridge is not None and ridge.child_lba is not None:
            self.placeholders.append((directory, entry, ridge.child_lba))
        elif self.skip is not None and self.sample_fields is None:
            fields = walk_fields(self.source, raw, record.offset, self.skip, self.base)
            self.sample_fields = [field_bytes for _, field_bytes in fields]

    def _link_relocated(self, root: EditableDirectory) -> None:
        """Connect each placeholder with the relocated directory that it refers to (CL, RRIP 4.1.5.1)."""
        for directory, entry, lba in self.placeholders:
            relocated = self.directories_at.get(lba, root)
            if relocated.parent is directory or relocated.entry is None or not relocated.entry.is_hidden:
                raise ImageError(
                    "relocated directory is not where it should be", self.source.place.at(entry.records[0].offset)
                )
            entry.directory, entry.is_placeholder, relocated.named_in = relocated, True, directory

    def read_serials(self) -> Iterator[int]:
        """Yield the file serial numbers in use, those of directories that were skimmed included."""
        yield from self.serial_numbers
        numbers = array("I")
        for plain in self._list_skimmed():
            data = plain.data
            numbers.frombytes(b"".join(_SERIAL.findall(data, data[0] + data[data[0]])))  # behind . and ..
        if sys.byteorder == "big":
            numbers.byteswap()
        yield from set(numbers)

    def _list_skimmed(self) -> Iterator[IsoDirectory]:
        """Yield the directories that were skimmed."""
        for directory in self.directories:
            assert directory.extent is not None
            plain = self.plain.get(directory.extent.lba)
            if plain is not None and plain.extent == directory.extent:
                yield plain

    def check_room(self) -> None:
        """Check that identifiers have room. :raises UnsupportedError: the system use area leaves too little."""
        if self._room < _MIN_IDENTIFIER_ROOM:
            raise UnsupportedError("its directory records leave no room for names", self.source.place)

    @property
    def _room(self) -> int:
        """The bytes that a record has for an identifier."""
        return MAX_RECORD_SIZE - IDENTIFIER_OFFSET - self.prefix_size - (0 if self.skip is None else CE_SIZE)

    def derive_naming(self, *, enhanced: bool) -> IdentifierRules:
        """Return the rules that the tree's identifiers, as they are on the image, follow."""
        files, directories = (set(identifiers) for identifiers in self.identifiers)
        longest = 0
        for plain in self._list_skimmed():
            plain_files = self.files[plain.files]
            directories.update([child.record.identifier for child in plain.children if child.record is not None])
            if self.joliet and isinstance(plain_files, FileColumns) and not plain_files.may_hold(JOLIET_VERSION):
                longest = max(longest, plain_files.longest_identifier)
            else:
                files.update(list_identifiers(plain_files))
        if self.joliet:
            return infer_joliet_rules(files, directories, longest)
        return infer_rules(files, directories, enhanced=enhanced, room=self._room)


def list_area_blocks(areas: Iterable[tuple[int, int]]) -> set[Lba]:
    """Return the blocks of continuation areas, each a byte offset and a number of bytes."""
    return {Lba(lba) for offset, length in areas for lba in range(offset // BLOCK, blocks_for(offset + length))}


def _check_dots(source: ByteSource, extent: Extent) -> None:
    """Check that a directory's first two records are ``.`` and ``..``. :raises ImageError: when they are not."""
    if not begins_with_dots(source.read(lba_offset(extent.lba), min(2 * _MAX_RECORD_BYTE, extent.length))):
        raise _no_dots(source, extent)


def _no_dots(source: ByteSource, extent: Extent) -> ImageError:
    """Return the error for a directory whose first two records are others than ``.`` and ``..``."""
    return ImageError("a directory does not begin with . and ..", source.place.at(lba_offset(extent.lba)))
