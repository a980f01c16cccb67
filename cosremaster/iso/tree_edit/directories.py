"""An editable directory tree: directories, and their entries in the order of their directory records (ECMA-119, 9.1).

:mod:`cosremaster.iso.read_trees` reads the same trees as immutable values. :mod:`.read_editable` reads them again, with
the fields that only editing needs; the entries of a directory when they are first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeAlias

from cosremaster.iso.ecma119.identifiers import IdentifierScheme
from cosremaster.iso.ecma119.records import DirectoryRecord, Extent, VolumeDescriptor
from cosremaster.iso.ecma119.system_use import SystemUsePrefix
from cosremaster.iso.rockridge.write import RockRidgeProfile
from cosremaster.records import Struct, field
from cosremaster.tree.nodes import Node
from cosremaster.tree.paths import join
from cosremaster.units import Lba, blocks_for

IDENTIFIER_OFFSET, MAX_RECORD_SIZE = 33, 254
"""The identifier's offset in a directory record, and the record's largest even size, both in bytes (9.1)."""
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
    ``unread``: how its entries are read, None where they are. ``read_list``: the entries, as far as they are read.
    ``dots``: the bytes of its ``.`` and its ``..`` on the image that hold block and length; empty where they are not
    known.
    """

    extent: Extent | None
    parent: EditableDirectory | None
    level: int
    named_in: EditableDirectory | None = None
    entry: DirectoryEntry | None = None
    node: Node | None = None
    is_changed: bool = False
    is_reparented: bool = False
    is_moved: bool = False
    area_blocks: AbstractSet[Lba] = frozenset()
    unread: UnreadEntries | None = None
    read_list: list[DirectoryEntry] = field(default_factory=list)
    dots: bytes = b""

    @property
    def entries(self) -> list[DirectoryEntry]:
        """Its entries in the order of their records; they are read when they are first asked for."""
        if self.unread is not None:
            unread, self.unread = self.unread, None
            self.read_list = unread.read(self, unread.directory_entries)
            for follow in unread.followers:
                follow()
        return self.read_list

    @entries.setter
    def entries(self, entries: list[DirectoryEntry]) -> None:
        """Set its entries."""
        self.read_list = entries

    @property
    def directory_entries(self) -> Sequence[DirectoryEntry]:
        """The entries of directories; no others are read for that."""
        if self.unread is not None:
            return self.unread.directory_entries
        return [entry for entry in self.read_list if entry.directory is not None]

    def files_by_path(self, path: bytes) -> Iterator[tuple[bytes, DirectoryEntry]]:
        """Yield every entry that is not a directory with its path, where this directory is at ``path``."""
        for entry in self.entries:
            if entry.directory is None and not entry.is_hidden:
                yield join_shown(path, entry), entry

    @property
    def blocks(self) -> int:
        """The number of blocks that it takes on the image."""
        return blocks_for(self.extent.length) if self.extent else 0

    @property
    def subdirectory_count(self) -> int:
        """The number of directories in it, as link counts include them."""
        return len(self.directory_entries)

    def must_move(self, root: EditableDirectory) -> bool:
        """Return whether this directory has to move because its parent, or the directory that names it, does.

        It also has to where it got another parent and lies in front of it.
        """
        if self is root or self.parent is None or self.named_in is None or self.extent is None:
            return False
        if self.parent.is_moved or self.named_in.is_moved:
            return True
        if not self.is_reparented:
            return False
        starts = [directory.extent.lba for directory in (self.parent, self.named_in) if directory.extent]
        return self.extent.lba < max(starts, default=Lba(0))


EntriesReader: TypeAlias = Callable[[EditableDirectory, Sequence[DirectoryEntry]], list[DirectoryEntry]]
"""Returns all entries of a directory, of which those of directories are known."""


class UnreadEntries(Struct, eq=False):
    """The entries of a directory that nobody asked for yet; an image may have very many of them.

    ``read``: returns all entries of the directory. ``directory_entries``: those of directories, which are known.
    ``empty_blocks``: the blocks that its records without data name. ``followers``: what is called once they are read.
    """

    read: EntriesReader
    directory_entries: Sequence[DirectoryEntry]
    empty_blocks: Sequence[Lba]
    followers: tuple[Callable[[], None], ...] = ()


class SerialNumbers:
    """The file serial numbers of a tree that are in use (PX, RRIP 4.1.1); they are read when one is first wanted."""

    def __init__(self, read: Callable[[], Iterable[int]] = tuple) -> None:
        """Begin with the numbers that ``read`` returns."""
        self._read, self._numbers = read, set[int]()
        self._is_read = False

    def add_all(self, numbers: Iterable[int]) -> None:
        """Note that ``numbers`` are in use too."""
        self._numbers.update(numbers)

    def __contains__(self, number: int) -> bool:
        """Return whether ``number`` is in use."""
        if not self._is_read:
            self._numbers.update(self._read())
            self._is_read = True
        return number in self._numbers


def join_shown(path: bytes, entry: DirectoryEntry) -> bytes:
    """Return the path that readers show for ``entry`` of the directory at ``path``; its name may be empty."""
    return path + b"/" + entry.shown_name if path else entry.shown_name


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
    serial_numbers: SerialNumbers = field(default_factory=SerialNumbers)
    root_area_blocks: set[Lba] = field(default_factory=set)
    has_symlinks: bool = False
    prefix: SystemUsePrefix = SystemUsePrefix(b"")

    def directories(self) -> Iterator[EditableDirectory]:
        """Yield every directory, each one before those below it."""
        waiting = [self.root]
        while waiting:
            directory = waiting.pop()
            yield directory
            entries = directory.directory_entries if directory.unread is None else directory.unread.directory_entries
            if entries:  # most have none
                waiting += [
                    entry.directory for entry in reversed(entries) if entry.directory and not entry.is_relocated_record
                ]

    def entries(self) -> Iterator[DirectoryEntry]:
        """Yield the entries of every directory, hidden ones too."""
        for directory in self.directories():
            yield from directory.entries

    def read_entries(self) -> Iterator[DirectoryEntry]:
        """Yield the entries of directories whose entries were asked for: all that is new or changed is among them."""
        for directory in self.directories():
            if directory.unread is None:
                yield from directory.entries

    def empty_blocks(self) -> Iterator[Lba]:
        """Yield the block that each record without data names, as far as the record stays as it is."""
        for directory in self.directories():
            if directory.unread is not None and not directory.is_moved:
                yield from directory.unread.empty_blocks
            elif not directory.is_moved:
                records = (record for entry in directory.entries if not entry.is_renamed for record in entry.records)
                yield from (record.lba for record in records if not record.length)

    def directories_by_path(self) -> Iterator[tuple[bytes, EditableDirectory]]:
        """Yield every directory with the path that readers of this tree show."""
        waiting = [(b"", self.root)]
        while waiting:
            path, directory = waiting.pop()
            yield path, directory
            waiting += [
                (join_shown(path, entry), entry.directory)
                for entry in directory.directory_entries
                if entry.directory is not None and not entry.is_hidden
            ]

    def files_by_path(self) -> Iterator[tuple[bytes, DirectoryEntry]]:
        """Yield every entry that is not a directory, with the path that readers of this tree show."""
        for path, directory in self.directories_by_path():
            yield from directory.files_by_path(path)

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
