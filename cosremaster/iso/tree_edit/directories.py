"""A directory tree as it can be changed: folders, and the entries in them in the order of their records.

What :mod:`cosremaster.iso.read_trees` reads as values for everybody, read once more with what only changing it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct, field

from cosremaster.errors import ImageError, UnsupportedError
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.identifiers import IdentifierScheme, infer_joliet_rules, infer_rules
from cosremaster.iso.ecma119.records import VolumeDescriptor, locate_record, read_directory
from cosremaster.iso.model import ASSOCIATED, DIRECTORY, MULTI_EXTENT, DirectoryRecord, Extent, IsoTree
from cosremaster.iso.read_trees import JOLIET, choose_name, get_extent
from cosremaster.iso.rockridge.read import find_susp_skip, read_rock_ridge, walk_fields
from cosremaster.iso.rockridge.write import CE_SIZE, RockRidgeProfile
from cosremaster.tree.nodes import Node
from cosremaster.tree.paths import join
from cosremaster.units import BLOCK, Lba, lba_offset

IDENTIFIER_OFFSET, MAX_RECORD_SIZE = 33, 254
"""Where a record has its identifier, and its most bytes, an even number (9.1)."""
_LONGEST, _LEAST_ROOM = 255, 32
MAX_LEVEL = 8
"""Levels of directories, the root's the first (6.8.2.1)."""


class DirectoryEntry(Struct, eq=False):
    """A name in a folder. ``key``: its name in the primary tree, None where that has no such; ``shown``: in its own.

    ``records``: those on the image, all of one file; none: a new one. ``folder``: what it leads to. ``placeholder``:
    its folder is recorded elsewhere (CL, RRIP 4.1.5.1), by an entry that is ``hidden``, as an associated file's is.
    ``renamed``: its records are made anew, for its key. ``node``: what a new one is. ``more``: how many records a
    file's new size takes beside those it has.
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
    shown_name: bytes = b""

    @property
    def is_relocated_record(self) -> bool:
        """It is the record of a relocated directory, whose name stands elsewhere. (RE alone also hides a directory: as
        xorriso marks the one for relocated ones.)"""
        return self.is_hidden and self.directory is not None and self.directory.named_in is not self.directory.parent

    @property
    def needs_records(self) -> bool:
        """It has no record that can stay as it is."""
        return self.is_renamed or not self.records


class EditableDirectory(Struct, eq=False):
    """A directory. ``extent``: where it stands on the image, None for a new one; ``node``: what a new one is.

    ``parent``: where its ``..`` leads, itself for the root; ``above``: the folder that its name stands in, another
    one where it is relocated; ``level``: the root's is 1. ``entry``: its own record's. ``changed``: it is laid anew;
    ``reparented``: its ``..`` is made anew; ``moves``: it gets other blocks.
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

    @property
    def blocks(self) -> int:
        """Blocks on the image."""
        return -(-self.extent.length // BLOCK) if self.extent else 0

    @property
    def subdirectory_count(self) -> int:
        """The directories in it, as their parents count them in link counts."""
        return sum(1 for one in self.entries if one.directory is not None)


class EditableTree(Struct, eq=False):
    """The folders of one root. ``kind``: in words; ``base``: the block from which its numbers count; ``descriptors``:
    those of the image that have it, none for UDF.

    ``dialect``: how Rock Ridge is written, None without; ``counts``: directories' link counts count their
    subdirectories; ``attic``: the folder that relocated directories are recorded in, None where there is none;
    ``serials``: the serial numbers that Rock Ridge tells.
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

    def directories(self) -> Iterator[EditableDirectory]:
        """Every folder, those above before those below."""
        waiting = [self.root]
        while waiting:
            folder = waiting.pop()
            yield folder
            waiting += [
                one.directory for one in reversed(folder.entries) if one.directory and not one.is_relocated_record
            ]

    def files_by_path(self) -> Iterator[tuple[bytes, DirectoryEntry]]:
        """Everything but directories, by the path that this tree shows."""
        waiting = [(b"", self.root)]
        while waiting:
            path, folder = waiting.pop()
            for entry in folder.entries:
                if entry.is_hidden:
                    continue
                below = join(path, entry.shown_name)
                if entry.directory is not None:
                    waiting.append((below, entry.directory))
                else:
                    yield below, entry

    def propagate_moves(self) -> None:
        """Whatever lies below a directory that moves moves too: libarchive, which reads an image front to back, finds
        no directory that stands before the one that names it."""
        spread = True
        while spread:  # a relocated directory may be met before the one that it is recorded in
            spread = False
            for folder in self.directories():
                if not folder.is_moved and (folder.extent is None or _must_follow(folder, self.root)):
                    folder.is_moved = folder.is_changed = spread = True


def _must_follow(folder: EditableDirectory, root: EditableDirectory) -> bool:
    if folder is root or folder.parent is None or folder.named_in is None or folder.extent is None:
        return False
    holders = (folder.parent, folder.named_in)
    before = folder.is_reparented and any(one.extent and folder.extent.lba < one.extent.lba for one in holders)
    return before or any(one.is_moved for one in holders)


def read_editable_trees(source: ByteSource, image_trees: Iterable[IsoTree]) -> list[EditableTree]:
    """A tree of folders for each root, the primary one first; each names its own keys.

    :raises ImageError: a record is malformed. :raises UnsupportedError: a directory has an extended attribute record.
    """
    groups: dict[tuple[Lba, int], list[tuple[IsoTree, VolumeDescriptor]]] = {}
    for tree in image_trees:
        descriptor = VolumeDescriptor(tree.descriptor_lba, source.read(lba_offset(tree.descriptor_lba), BLOCK))
        groups.setdefault((Lba(tree.base + descriptor.root.lba), tree.base), []).append((tree, descriptor))
    return [_read_one(source, group) for group in groups.values()]


def _read_one(source: ByteSource, group: list[tuple[IsoTree, VolumeDescriptor]]) -> EditableTree:
    trees, descriptors = tuple(tree for tree, _ in group), tuple(one for _, one in group)
    base, joliet = trees[0].base, trees[0].kind == JOLIET
    root = EditableDirectory(Extent(Lba(base + descriptors[0].root.lba), descriptors[0].root.length), None, 1)
    root.parent = root
    assert root.extent is not None
    head = source.read(lba_offset(root.extent.lba), 255)
    skip = None if joliet else find_susp_skip(head)
    folders, sample, serials = _walk(source, root, base, skip, joliet)
    files = [one.identifier for folder in folders for one in folder.entries if one.directory is None]
    names = [one.identifier for folder in folders for one in folder.entries if one.directory is not None]
    enhanced = any(tree.kind == "ISO 9660:1999" for tree in trees)
    room = MAX_RECORD_SIZE - IDENTIFIER_OFFSET - (0 if skip is None else skip + CE_SIZE)
    if room < _LEAST_ROOM:
        raise UnsupportedError("its directory records leave no room for names", source.place)
    style: IdentifierScheme = (
        infer_joliet_rules(files, names) if joliet else infer_rules(files, names, enhanced=enhanced, room=room)
    )
    attic = next((folder for folder in folders for one in folder.entries if one.is_relocated_record), None)
    dialect, counts = None, False
    if skip is not None:
        own = [one for _, one in walk_fields(source, head[: head[0]], lba_offset(root.extent.lba), skip, base)]
        dialect = RockRidgeProfile.from_fields(own if sample is None else sample, skip)
        px = next((one for one in own if one[:2] == b"PX" and len(one) > 16), b"")
        counts = int.from_bytes(px[12:16], "little") == 2 + root.subdirectory_count
    return EditableTree(trees[0].kind, base, descriptors, root, style, dialect, counts, attic, serials)


def _walk(
    source: ByteSource, root: EditableDirectory, base: Lba, skip: int | None, joliet: bool
) -> tuple[list[EditableDirectory], list[bytes] | None, frozenset[int]]:
    """Every folder below ``root``, physically, the Rock Ridge fields of one file's record, and all serial numbers."""
    found, waiting, serials = list[EditableDirectory](), [root], set[int]()
    sample: list[bytes] | None = None
    stand: dict[Lba, EditableDirectory] = {root.extent.lba: root} if root.extent else {}
    placeholders: list[tuple[EditableDirectory, DirectoryEntry, Lba]] = []
    while waiting:
        folder = waiting.pop()
        found.append(folder)
        assert folder.extent is not None
        _check_dots(source, folder.extent)
        run: list[DirectoryRecord] = []
        for record, raw in read_directory(source, folder.extent, (), base):
            extra = None if skip is None else read_rock_ridge(source, raw, record.offset, skip, base)
            key = choose_name(record, extra, joliet=joliet)
            serials |= {extra.serial} if extra else set()
            if record.flags & DIRECTORY:
                if not record.is_plain:
                    raise UnsupportedError(
                        "has an extended attribute record, so nothing can be added to or taken from its tree",
                        locate_record(source.place, record),
                    )
                below = EditableDirectory(get_extent(record), folder, folder.level + 1, folder)
                below.entry = DirectoryEntry(key, record.identifier, (record,), below, shown_name=key)
                below.entry.is_hidden = extra is not None and extra.is_relocated
                if record.lba in stand:
                    raise ImageError("directory tree leads into itself", source.place.at(record.offset))
                stand[record.lba] = below
                folder.entries.append(below.entry)
                waiting.append(below)
                continue
            run.append(record)
            if record.flags & MULTI_EXTENT:
                continue
            entry = DirectoryEntry(
                key, record.identifier, tuple(run), is_hidden=bool(record.flags & ASSOCIATED), shown_name=key
            )
            run = []
            folder.entries.append(entry)
            if extra is not None and extra.child_lba is not None:
                placeholders.append((folder, entry, extra.child_lba))
            elif skip is not None and sample is None:
                sample = [one for _, one in walk_fields(source, raw, record.offset, skip, base)]
        if run:
            raise ImageError("the last extent of a file is missing", locate_record(source.place, run[-1]))
    for folder, entry, lba in placeholders:
        below = stand.get(lba, root)
        if below.parent is folder or below.entry is None or not below.entry.is_hidden:
            raise ImageError("relocated directory is not where it should be", source.place.at(entry.records[0].offset))
        entry.directory, entry.is_placeholder, below.named_in = below, True, folder
    return found, sample, frozenset(serials)


def _check_dots(source: ByteSource, extent: Extent) -> None:
    """:raises ImageError: a directory's first two records are not ``.`` and ``..`` (6.8.2.2)."""
    head = source.read(lba_offset(extent.lba), min(2 * _LONGEST, extent.length))
    dot = head[: head[0]] if head else b""
    dot_dot = head[len(dot) : len(dot) + head[len(dot)]] if dot and len(head) > len(dot) else b""
    if (dot[32:34], dot_dot[32:34]) != (b"\1\0", b"\1\1"):
        raise ImageError("a directory does not begin with . and ..", source.place.at(lba_offset(extent.lba)))
