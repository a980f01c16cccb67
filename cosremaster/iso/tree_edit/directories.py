"""An editable directory tree: directories, and their entries in the order of their directory records (ECMA-119, 9.1).

:mod:`cosremaster.iso.read_trees` reads the same trees as immutable values. This module reads them again, with the
fields that only editing needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cosremaster.errors import ImageError, UnsupportedError
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.identifiers import IdentifierScheme, infer_joliet_rules, infer_rules
from cosremaster.iso.ecma119.records import (
    ASSOCIATED,
    DIRECTORY,
    MULTI_EXTENT,
    DirectoryRecord,
    Extent,
    VolumeDescriptor,
    locate_record,
    read_directory,
)
from cosremaster.iso.ecma119.system_use import SystemUsePrefix
from cosremaster.iso.model import IsoTree
from cosremaster.iso.read_trees import JOLIET, choose_name, get_extent
from cosremaster.iso.rockridge.read import RockRidge, find_areas, find_susp_skip, read_rock_ridge, walk_fields
from cosremaster.iso.rockridge.write import CE_SIZE, RockRidgeProfile
from cosremaster.records import Struct, field
from cosremaster.tree.nodes import Node
from cosremaster.tree.paths import join
from cosremaster.units import BLOCK, Lba, blocks_for, lba_offset

IDENTIFIER_OFFSET, MAX_RECORD_SIZE = 33, 254
"""The identifier's offset in a directory record, and the record's largest even size, both in bytes (9.1)."""
_MAX_RECORD_BYTE = 255
"""The largest value of a record's length byte (9.1.1)."""
_MIN_IDENTIFIER_ROOM = 32
UDF = "UDF"
"""The kind of the tree of a UDF file system."""
MAX_LEVEL = 8
"""The most levels of directories; the root's level is 1 (6.8.2.1)."""


class DirectoryEntry(Struct, eq=False):
    """A name in a directory.

    ``primary_name``: its name in the primary tree; its own where the primary tree has no such entry
    (``is_outside_primary``); None where it may be several ones of the primary tree.
    ``identifier``: its file identifier (9.1.11). ``shown_name``: the name that readers of this tree show.
    ``records``: its directory records on the image, one for each file section; none for a new entry.
    ``directory``: the directory that it names.
    ``is_placeholder``: the directory is relocated, and this entry only refers to it (CL, RRIP 4.1.5.1).
    ``is_hidden``: no reader shows it: the true record of a relocated directory, or an associated file.
    ``is_renamed``: its records are written anew, under ``primary_name``.
    ``node``: what a new entry is made from.
    ``extra_records``: how many records a file's new size needs beside ``records``; negative if it needs fewer.
    """

    primary_name: bytes | None
    identifier: bytes
    records: tuple[DirectoryRecord, ...] = ()
    directory: EditableDirectory | None = None
    is_placeholder: bool = False
    is_hidden: bool = False
    is_renamed: bool = False
    node: Node | None = None
    extra_records: int = 0
    is_outside_primary: bool = False
    shown_name: bytes = b""

    @property
    def is_relocated_record(self) -> bool:
        """Whether this is the true record of a relocated directory, whose name is in another directory.

        RE alone does not tell: it also hides a plain directory, as xorriso marks the relocation directory itself.
        """
        return self.is_hidden and self.directory is not None and self.directory.named_in is not self.directory.parent

    @property
    def needed_records(self) -> tuple[DirectoryRecord, ...]:
        """The records on the image as far as the file's new size needs them."""
        return self.records[: len(self.records) + min(self.extra_records, 0)]

    @property
    def needs_records(self) -> bool:
        """Whether its records have to be written anew."""
        return self.is_renamed or not self.records

    @property
    def has_data(self) -> bool:
        """Whether it is a file on the image that is not empty."""
        return self.directory is None and bool(self.records) and self.records[0].length > 0


class EditableDirectory(Struct, eq=False):
    """A directory.

    ``extent``: its extent on the image, None for a new one. ``node``: what a new one is made from.
    ``parent``: the directory that its ``..`` leads to, itself for the root.
    ``named_in``: the directory that holds its name; not ``parent`` where it is relocated.
    ``level``: 1 for the root. ``entry``: the entry of its true record.
    ``is_changed``: its records are written anew. ``is_reparented``: its ``..`` is written anew.
    ``is_moved``: it gets other blocks. ``area_blocks``: the blocks of the continuation areas of its entries' records.
    """

    extent: Extent | None
    parent: EditableDirectory | None
    level: int
    named_in: EditableDirectory | None = None
    entry: DirectoryEntry | None = None
    node: Node | None = None
    entries: list[DirectoryEntry] = field(default_factory=list)
    is_changed: bool = False
    is_reparented: bool = False
    is_moved: bool = False
    area_blocks: set[Lba] = field(default_factory=set)

    @property
    def blocks(self) -> int:
        """The number of blocks that it takes on the image."""
        return blocks_for(self.extent.length) if self.extent else 0

    @property
    def subdirectory_count(self) -> int:
        """The number of directories in it, as link counts include them."""
        return sum(1 for entry in self.entries if entry.directory is not None)

    def must_move(self, root: EditableDirectory) -> bool:
        """Return whether this directory has to move because its parent, or the directory that names it, does.

        It also has to where it got another parent and lies in front of it.
        """
        if self is root or self.parent is None or self.named_in is None or self.extent is None:
            return False
        above = (self.parent, self.named_in)
        if any(directory.is_moved for directory in above):
            return True
        starts = [directory.extent.lba for directory in above if directory.extent]
        return self.is_reparented and self.extent.lba < max(starts, default=Lba(0))


class EditableTree(Struct, eq=False):
    """The directories below one root.

    ``kind``: the tree's name for people. ``base``: the block from which its block numbers count.
    ``descriptors``: the volume descriptors that refer to it, none for UDF. ``naming``: how identifiers are made.
    ``rock_ridge``: how its Rock Ridge fields are written, None without Rock Ridge.
    ``counts_subdirectories``: the link counts of directories include their subdirectories.
    ``relocation_directory``: the directory that holds the true records of relocated directories (libisofs names it
    RR_MOVED), None where no directory is relocated. ``serial_numbers``: the file serial numbers in use (PX).
    ``root_area_blocks``: the blocks of the continuation areas of the root's ``.``.
    ``has_symlinks``: of UDF, whether it has any on the image.
    ``prefix``: what new records have in front of other fields.
    """

    kind: str
    base: Lba
    descriptors: tuple[VolumeDescriptor, ...]
    root: EditableDirectory
    naming: IdentifierScheme
    rock_ridge: RockRidgeProfile | None = None
    counts_subdirectories: bool = False
    relocation_directory: EditableDirectory | None = None
    serial_numbers: frozenset[int] = frozenset()
    root_area_blocks: set[Lba] = field(default_factory=set)
    has_symlinks: bool = False
    prefix: SystemUsePrefix = SystemUsePrefix(b"")

    def directories(self) -> Iterator[EditableDirectory]:
        """Yield every directory, each one before those below it."""
        waiting = [self.root]
        while waiting:
            directory = waiting.pop()
            yield directory
            waiting += [
                entry.directory
                for entry in reversed(directory.entries)
                if entry.directory and not entry.is_relocated_record
            ]

    def entries(self) -> Iterator[DirectoryEntry]:
        """Yield the entries of every directory, hidden ones too."""
        for directory in self.directories():
            yield from directory.entries

    def empty_blocks(self) -> Iterator[Lba]:
        """Yield the block that each record without data names, as far as the record stays as it is."""
        for directory in self.directories():
            if not directory.is_moved:
                records = (record for entry in directory.entries if not entry.is_renamed for record in entry.records)
                yield from (record.lba for record in records if not record.length)

    def files_by_path(self) -> Iterator[tuple[bytes, DirectoryEntry]]:
        """Yield every entry that is not a directory, with the path that readers of this tree show."""
        waiting = [(b"", self.root)]
        while waiting:
            path, directory = waiting.pop()
            for entry in directory.entries:
                if entry.is_hidden:
                    continue
                entry_path = path + b"/" + entry.shown_name if path else entry.shown_name  # which may be empty
                if entry.directory is not None:
                    waiting.append((entry_path, entry.directory))
                else:
                    yield entry_path, entry

    def named_entries(self) -> Iterator[tuple[bytes, DirectoryEntry]]:
        """Yield every entry with its path in the primary tree's names, each directory before what is in it."""
        waiting = [(b"", self.root)]
        while waiting:
            path, directory = waiting.pop()
            for entry in directory.entries:
                if entry.is_hidden or entry.primary_name is None:
                    continue
                entry_path = join(path, entry.primary_name)
                yield entry_path, entry
                if entry.directory is not None:
                    waiting.append((entry_path, entry.directory))

    def propagate_moves(self) -> None:
        """Mark every directory below a moved one as moved.

        libarchive reads an image front to back and loses a directory that lies in front of the one that names it.
        """
        repeat = True
        while repeat:  # a relocated directory may come before the relocation directory
            repeat = False
            for directory in self.directories():
                if directory.is_moved:
                    continue
                if directory.extent is None or directory.must_move(self.root):
                    directory.is_moved = directory.is_changed = repeat = True


def read_editable_trees(source: ByteSource, image_trees: Iterable[IsoTree]) -> list[EditableTree]:
    """Return an editable tree for each root, the primary one first; each entry's ``primary_name`` is its own name.

    :raises ImageError: when a record is malformed.
    :raises UnsupportedError: when a directory has an extended attribute record.
    """
    groups: dict[tuple[Lba, int], list[tuple[IsoTree, VolumeDescriptor]]] = {}
    for tree in image_trees:
        descriptor = VolumeDescriptor(tree.descriptor_lba, source.read(lba_offset(tree.descriptor_lba), BLOCK))
        groups.setdefault((Lba(tree.base + descriptor.root.lba), tree.base), []).append((tree, descriptor))
    return [_read_tree(source, group) for group in groups.values()]


def _read_tree(source: ByteSource, group: list[tuple[IsoTree, VolumeDescriptor]]) -> EditableTree:
    """Read the tree that all descriptors of ``group`` share."""
    trees, descriptors = tuple(tree for tree, _ in group), tuple(descriptor for _, descriptor in group)
    base = trees[0].base
    extent = Extent(Lba(base + descriptors[0].root.lba), descriptors[0].root.length)
    root = EditableDirectory(extent, None, 1)
    root.parent = root
    dot = source.read(lba_offset(extent.lba), _MAX_RECORD_BYTE)
    skip = None if trees[0].kind == JOLIET else find_susp_skip(dot)
    prefix = SystemUsePrefix.from_area(dot[IDENTIFIER_OFFSET + 1 : dot[0]], skip)
    reader = _TreeReader(source, base, skip, trees[0].kind == JOLIET, len(prefix.sample))
    reader.read(root)
    naming = reader.derive_naming(enhanced=any(tree.kind == "ISO 9660:1999" for tree in trees))
    serial_numbers = frozenset(reader.serial_numbers)
    tree = EditableTree(trees[0].kind, base, descriptors, root, naming, serial_numbers=serial_numbers, prefix=prefix)
    tree.relocation_directory = next(
        (directory for directory in reader.directories for entry in directory.entries if entry.is_relocated_record),
        None,
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
    ``prefix_size``: bytes that each record has in front of other fields.
    ``sample_fields``: the Rock Ridge fields of the first plain file's record.
    ``directories_at``: directories by the first block of their extent.
    ``placeholders``: (the directory that holds the name, its entry, the block that CL names).
    """

    source: ByteSource
    base: Lba
    skip: int | None
    joliet: bool
    prefix_size: int = 0
    directories: list[EditableDirectory] = field(default_factory=list)
    sample_fields: list[bytes] | None = None
    serial_numbers: set[int] = field(default_factory=set)
    directories_at: dict[Lba, EditableDirectory] = field(default_factory=dict)
    placeholders: list[tuple[EditableDirectory, DirectoryEntry, Lba]] = field(default_factory=list)

    def read(self, root: EditableDirectory) -> None:
        """Read every directory below ``root``."""
        assert root.extent is not None
        self.directories_at[root.extent.lba] = root
        waiting = [root]
        while waiting:
            directory = waiting.pop()
            self.directories.append(directory)
            waiting += self._read_directory(directory)
        self._link_relocated(root)

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
        name = choose_name(record, ridge, joliet=self.joliet)
        directory = EditableDirectory(get_extent(record), parent, parent.level + 1, parent)
        directory.entry = DirectoryEntry(name, record.identifier, (record,), directory, shown_name=name)
        directory.entry.is_hidden = ridge is not None and ridge.is_relocated
        if record.lba in self.directories_at:
            raise ImageError("directory tree leads into itself", self.source.place.at(record.offset))
        self.directories_at[record.lba] = directory
        parent.entries.append(directory.entry)
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

    def derive_naming(self, *, enhanced: bool) -> IdentifierScheme:
        """Return the rules that the tree's identifiers follow.

        :raises UnsupportedError: when the system use area leaves too little room for identifiers.
        """
        entries = [entry for directory in self.directories for entry in directory.entries]
        files = [entry.identifier for entry in entries if entry.directory is None]
        directories = [entry.identifier for entry in entries if entry.directory is not None]
        room = MAX_RECORD_SIZE - IDENTIFIER_OFFSET - self.prefix_size - (0 if self.skip is None else CE_SIZE)
        if room < _MIN_IDENTIFIER_ROOM:
            raise UnsupportedError("its directory records leave no room for names", self.source.place)
        if self.joliet:
            return infer_joliet_rules(files, directories)
        return infer_rules(files, directories, enhanced=enhanced, room=room)


def list_area_blocks(areas: Iterable[tuple[int, int]]) -> set[Lba]:
    """Return the blocks of continuation areas, each a byte offset and a number of bytes."""
    return {Lba(lba) for offset, length in areas for lba in range(offset // BLOCK, blocks_for(offset + length))}


def _check_dots(source: ByteSource, extent: Extent) -> None:
    """Check that a directory's first two records are ``.`` and ``..`` (6.8.2.2).

    :raises ImageError: when they are not.
    """
    head = source.read(lba_offset(extent.lba), min(2 * _MAX_RECORD_BYTE, extent.length))
    dot = head[: head[0]] if head else b""
    dot_dot = head[len(dot) : len(dot) + head[len(dot)]] if dot and len(head) > len(dot) else b""
    if (dot[32:34], dot_dot[32:34]) != (b"\1\0", b"\1\1"):
        raise ImageError("a directory does not begin with . and ..", source.place.at(lba_offset(extent.lba)))
