"""Edits of a squashfs file system: old data and metadata blocks stay as compressed bytes, new ones follow them.

References to inodes and listings count from the start of their table, so a table can grow at its end. New are the
inodes of added nodes, the directories on the way to a change with their inodes, and the small tables behind them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import count

from cosremaster.errors import CorruptError, OverlayError, Place, SizeError, UnsupportedError
from cosremaster.io.pieces import Literal, PieceTable, Zeros
from cosremaster.layers.formats import EditResources
from cosremaster.layers.squashfs.check import KeptMetadata, check_edit
from cosremaster.layers.squashfs.directories import SquashfsEntry, add_listing
from cosremaster.layers.squashfs.filesystem import SquashfsFilesystem
from cosremaster.layers.squashfs.inodes import DIRECTORY, TYPES, Inode
from cosremaster.layers.squashfs.metadata import GrowingTable, reopen_table, store_block
from cosremaster.layers.squashfs.pack_data import DataPacker, NewBlocks, PackedData
from cosremaster.layers.squashfs.superblock import ABSENT, PADDING, SUPERBLOCK_SIZE, Flags, Superblock
from cosremaster.layers.squashfs.tree import SquashfsTree
from cosremaster.layers.squashfs.xattrs import XattrTable, can_hold
from cosremaster.records import Struct, field, replace
from cosremaster.tree.nodes import Content, Edits, Node, NodeKind

_MAX_NAME, _MAX_TARGET = 255, 4095
_MAX_IDS = 0xFFFF
_VERITY = b"verity\0\0"
"""The first bytes of a superblock of dm-verity (cryptsetup, lib/verity/verity.c)."""
_MAX_MAJOR, _MAX_MINOR = 0xFFF, 0xFFFFF
_NO_INODE = ABSENT
"""In the table of inodes for NFS: this number has none (fs/squashfs/export.c)."""


class _ChangedDirectory(Struct):
    """A directory that is written again.

    ``inode``: as it is to be, apart from its listing. ``entries``: by name, without those of changed directories and of
    new inodes, whose places are not known yet; ``new``: the numbers of these inodes.
    """

    path: bytes
    inode: Inode
    entries: dict[bytes, SquashfsEntry] = field(default_factory=dict)
    directories: dict[bytes, _ChangedDirectory] = field(default_factory=dict)
    new: dict[bytes, int] = field(default_factory=dict)

    def forget(self, name: bytes) -> None:
        """Take the entry ``name`` away."""
        self.entries.pop(name, None)
        self.directories.pop(name, None)
        self.new.pop(name, None)


def apply_edits(tree: SquashfsTree, edits: Edits, resources: EditResources, place: Place) -> PieceTable:
    """Return the bytes of the image after ``edits``.

    :raises OverlayError: the format cannot hold a node. :raises SizeError: the image would have too many owners.
    :raises ProofError: the new image would break a rule of its readers.
    """
    editor = _Editor(tree, place)
    editor.remove(edits.removed_paths, {node.path for node, _ in edits.additions if node.kind is NodeKind.DIRECTORY})
    editor.add([node for node, _ in edits.additions])
    editor.correct_link_counts(edits.removed_paths)
    data = DataPacker(tree.filesystem, resources).pack(editor.contents)
    writer = _ImageWriter(tree.filesystem, editor, data)
    table = writer.write()
    check_edit(
        table, place, tree.filesystem, KeptMetadata(writer.kept_inodes, writer.kept_listings, writer.kept_blocks)
    )
    return table


def check_nothing_follows(filesystem: SquashfsFilesystem) -> None:
    """Check that nothing but zeros stands behind the tables of ``filesystem``.

    :raises UnsupportedError: something does: it belongs to the old bytes, and who reads it is not known.
    """
    table, used = filesystem.table, filesystem.superblock.bytes_used
    rest = table.cut(min(used, table.length), table.length)
    if not any(any(chunk) for chunk in rest.chunks()):
        return
    start = used + -used % PADDING
    is_verity = table.read(start, min(len(_VERITY), max(table.length - start, 0))) == _VERITY
    noun = "hashes of dm-verity follow it" if is_verity else f"{rest.length:,} bytes that are no part of it follow it"
    message = f"is a squashfs file system that cannot be changed: {noun} in its file, and would no longer fit"
    raise UnsupportedError(message, filesystem.place.at(used))


class _Editor:
    """The changed directories and new inodes, before they have places."""

    def __init__(self, tree: SquashfsTree, place: Place) -> None:
        """Begin with the root, which every change rewrites."""
        self.tree, self.place = tree, place
        self.filesystem = tree.filesystem
        self.ids = list(self.filesystem.ids)
        self.xattrs = XattrTable(self.filesystem)
        self.root = self._make_directory(b"", self.filesystem.root)
        self.inodes: dict[int, Inode] = {}
        """New and rewritten inodes that are no directories, by number."""
        self.contents: list[Content] = []
        """The contents of new files, in the order of their data."""
        self.file_numbers: list[int] = []
        """The numbers of their inodes."""
        self._ids = {number: at for at, number in reversed(list(enumerate(self.ids)))}
        self._numbers = count(self.filesystem.superblock.inodes + 1)
        self._linked: dict[object, int] = {}
        self._lost_links: dict[int, int] = {}

    def open_directory(self, path: bytes) -> _ChangedDirectory:
        """Return the directory at ``path``, which is written again from now on."""
        directory = self.root
        at = b""
        for name in path.split(b"/") if path else ():
            at = at + b"/" + name if at else name
            below = directory.directories.get(name)
            if below is None:
                entry = directory.entries.pop(name)
                inode = self.filesystem.inode(entry.reference)
                below = self._make_directory(at, inode)
                directory.directories[name] = below
            directory = below
        return directory

    def _make_directory(self, path: bytes, inode: Inode) -> _ChangedDirectory:
        """Return the directory at ``path``, whose listing and ``inode`` are written again.

        :raises CorruptError: it, or what it names, has a number that is no inode's: no listing can hold it, or it is
            that of a new inode.
        """
        entries, inodes = dict(self.tree.directory(path) or {}), self.filesystem.superblock.inodes
        for number in (inode.number, *(entry.number for entry in entries.values())):
            if not 1 <= number <= inodes:
                message = f"squashfs names inode {number:,} in a directory, among {inodes:,}"
                raise CorruptError(message, self.place.inside(path))
        return _ChangedDirectory(path, inode, entries)

    def remove(self, paths: Iterable[bytes], new_directories: set[bytes]) -> None:
        """Remove the entries at ``paths``; a directory that one of ``new_directories`` replaces keeps its entries."""
        removed = set(paths)
        for path in sorted(removed):
            entry = self.tree.entry(path)
            if entry is None:
                continue
            if entry.type != DIRECTORY:
                self._count_lost_link(entry)
            elif path in new_directories:
                continue
            parent, _, name = path.rpartition(b"/")
            if not (parent in removed and parent not in new_directories):
                self.open_directory(parent).forget(name)

    def _count_lost_link(self, entry: SquashfsEntry) -> None:
        """Note that the inode of ``entry`` has a name less, if it has others."""
        inode = self.filesystem.inode(entry.reference)
        if inode.nlink > 1:
            self._lost_links[inode.number] = self._lost_links.get(inode.number, 0) + 1

    def add(self, nodes: Iterable[Node]) -> None:
        """Add ``nodes``, parents before children. :raises OverlayError: the format cannot hold one."""
        for node in nodes:
            _check_node(node, self.place)
            if not node.path:
                self.root.inode = self._with_attributes(self.root.inode, node)
                continue
            parent_path, _, name = node.path.rpartition(b"/")
            parent = self.open_directory(parent_path)
            if node.kind is NodeKind.DIRECTORY:
                self._add_directory(parent, name, node)
                continue
            parent.forget(name)
            number = self._linked.get(node.link) if node.link is not None else None
            if number is None:
                number = next(self._numbers)
                self.inodes[number] = self._make_inode(node, number)
                if node.content is not None:
                    self.contents.append(node.content)
                    self.file_numbers.append(number)
                if node.link is not None:
                    self._linked[node.link] = number
            else:
                self.inodes[number] = replace(self.inodes[number], nlink=self.inodes[number].nlink + 1)
            parent.new[name] = number

    def _add_directory(self, parent: _ChangedDirectory, name: bytes, node: Node) -> None:
        """Add a directory, or give one that is there the attributes of ``node``."""
        existing = parent.entries.get(name)
        if name in parent.directories or (existing is not None and existing.type == DIRECTORY):
            directory = self.open_directory(node.path)
            directory.inode = self._with_attributes(directory.inode, node)
            return
        parent.forget(name)
        inode = replace(self._make_inode(node, next(self._numbers)), parent=parent.inode.number)
        parent.directories[name] = _ChangedDirectory(node.path, inode)

    def _with_attributes(self, inode: Inode, node: Node) -> Inode:
        """Return ``inode`` with the mode, owner, time and extended attributes of ``node``."""
        return replace(
            inode, mode=node.mode, uid=self._id(node.uid), gid=self._id(node.gid), mtime=node.mtime,
            xattr=self.xattrs.number(node.xattrs),
        )  # fmt: skip

    def _make_inode(self, node: Node, number: int) -> Inode:
        """Return the inode of ``node``, without places."""
        return Inode(
            type=TYPES[node.kind], mode=node.mode, uid=self._id(node.uid), gid=self._id(node.gid),
            mtime=node.mtime, number=number, target=node.target, rdev=node.rdev, xattr=self.xattrs.number(node.xattrs),
        )  # fmt: skip

    def _id(self, number: int) -> int:
        """Return the place of a user or group in the table of ids. :raises SizeError: the table is full."""
        if number not in self._ids:
            if len(self.ids) >= _MAX_IDS:
                raise SizeError(f"more than {_MAX_IDS:,} owners do not fit a squashfs file system", self.place)
            self._ids[number] = len(self.ids)
            self.ids.append(number)
        return self._ids[number]

    def correct_link_counts(self, removed: frozenset[bytes]) -> None:
        """Write those inodes again that lost a name and keep another, and the directories that name them.

        Their names are found by going over all directories.
        """
        if not self._lost_links:
            return
        for path, entry in list(self.filesystem.walk()):
            lost = self._lost_links.get(entry.number)
            if lost is None or entry.type == DIRECTORY or path in removed:
                continue
            parent_path, _, name = path.rpartition(b"/")
            if entry.number not in self.inodes:
                inode = self.filesystem.inode(entry.reference)
                self.inodes[entry.number] = replace(inode, nlink=max(inode.nlink - lost, 1))
            directory = self.open_directory(parent_path)
            directory.entries.pop(name)
            directory.new[name] = entry.number


def _check_node(node: Node, place: Place) -> None:
    """Check that squashfs can hold ``node``. :raises OverlayError: it cannot."""
    name = node.path.rpartition(b"/")[2]
    problem = ""
    if len(name) > _MAX_NAME:
        problem = f"its name is longer than {_MAX_NAME} bytes"
    elif node.kind is NodeKind.SYMLINK and not 0 < len(node.target) <= _MAX_TARGET:
        problem = "no symlink can have its text"
    elif node.rdev[0] > _MAX_MAJOR or node.rdev[1] > _MAX_MINOR:
        problem = f"device {node.rdev[0]}:{node.rdev[1]} does not fit a squashfs inode"
    elif not can_hold(node.xattrs):
        problem = "it has too many or too long extended attributes"
    if problem:
        raise OverlayError(f"cannot be added: {problem}", place.inside(node.path))


class _ImageWriter:
    """Writes the image: gives places to inodes and listings, and packs the tables."""

    def __init__(self, filesystem: SquashfsFilesystem, editor: _Editor, data: NewBlocks) -> None:
        """Open the tables of inodes and directories behind their last full block."""
        self._filesystem, self._editor, self._data = filesystem, editor, data
        self._old = filesystem.superblock
        self._is_blank = self._old.inodes == 1  # it has a root alone, which every edit writes anew
        self._codec = filesystem.codec
        self._data_start = self._old.inode_table
        self._inode_table = self._data_start + data.length
        pack = store_block if self._old.flags & Flags.STORED_INODES else self._codec.pack
        span = (self._old.inode_table, self._old.inode_table if self._is_blank else self._old.directory_table)
        self.kept_inodes, self._inode_writer = reopen_table(filesystem.metadata, span, pack)
        starts = filesystem.list_table_starts()
        end = next(start for start in starts if start >= self._old.directory_table)
        span = (self._old.directory_table, self._old.directory_table if self._is_blank else end)
        self.kept_listings, self._listing_writer = reopen_table(filesystem.metadata, span, pack)
        self.kept_blocks: set[int] = set()
        self._references: dict[int, int] = {}
        self._written = 0

    def write(self) -> PieceTable:
        """Return the bytes of the new image."""
        with_data = {number: self._data.files[at] for at, number in enumerate(self._editor.file_numbers)}
        for number, inode in self._editor.inodes.items():
            if number in with_data:
                inode = _with_data(inode, with_data[number], self._data_start)  # noqa: PLW2901
            self._add_inode(inode)
        directories = self._list_directories()
        total = (0 if self._is_blank else self._old.inodes) + self._written + len(directories)
        self._editor.root.inode = replace(self._editor.root.inode, parent=total + 1)
        entries: dict[int, SquashfsEntry] = {}
        for directory in directories:
            entries[id(directory)] = self._write_directory(directory, entries)
        return self._join(total, entries[id(self._editor.root)].reference)

    def _list_directories(self) -> list[_ChangedDirectory]:
        """Return all changed directories, each behind those in it; there may be more levels than Python can call."""
        backwards, waiting = [], [self._editor.root]
        while waiting:
            directory = waiting.pop()
            backwards.append(directory)
            waiting += directory.directories.values()
        return backwards[::-1]

    def _add_inode(self, inode: Inode) -> int:
        """Write ``inode`` and return its reference."""
        self._written += 1
        self._references[inode.number] = self._inode_writer.add(inode.pack())
        return self._references[inode.number]

    def _write_directory(self, directory: _ChangedDirectory, written: dict[int, SquashfsEntry]) -> SquashfsEntry:
        """Write the listing of ``directory`` and its inode; return its entry, without a name.

        :param written: the entries of those in it, by identity.
        """
        entries = dict(directory.entries)
        for name, below in directory.directories.items():
            entries[name] = written.pop(id(below))._replace(name=name)
        for name, number in directory.new.items():
            entries[name] = SquashfsEntry(name, self._references[number], number, self._editor.inodes[number].type)
        ordered = [entries[name] for name in sorted(entries)]
        inode = add_listing(self._listing_writer, ordered, directory.inode)
        return SquashfsEntry(b"", self._add_inode(inode), inode.number, DIRECTORY)

    def _join(self, total: int, root: int) -> PieceTable:
        """Return the whole image, with ``total`` inodes and the root's at the reference ``root``."""
        old, table = self._old, self._filesystem.table
        inodes, listings = self._inode_writer.finish(), self._listing_writer.finish()
        directory_table = self._inode_table + self.kept_inodes + len(inodes)
        position = directory_table + self.kept_listings + len(listings)
        tables, superblock = self._pack_tables(position, total)
        superblock = replace(
            superblock, inodes=total, root=root, inode_table=self._inode_table, directory_table=directory_table,
            bytes_used=position + len(tables),
        )  # fmt: skip
        body = PieceTable([
            Literal(superblock.pack()), *table.cut(SUPERBLOCK_SIZE, old.inode_table).pieces, *self._data.pieces,
            *table.cut(old.inode_table, old.inode_table + self.kept_inodes).pieces, Literal(inodes),
            *table.cut(old.directory_table, old.directory_table + self.kept_listings).pieces, Literal(listings),
            Literal(tables),
        ])  # fmt: skip
        return PieceTable([*body.pieces, Zeros(-body.length % PADDING)])

    def _pack_tables(self, position: int, total: int) -> tuple[bytes, Superblock]:
        """Return the tables behind the directories, and a superblock with their places; they begin at ``position``."""
        old, filesystem, parts = self._old, self._filesystem, bytearray()
        places = {"fragment_table": old.fragment_table, "lookup_table": old.lookup_table}
        fragments = filesystem.fragment_table
        for number, (start, word) in enumerate(self._data.fragments, start=fragments.count):
            fragments.put(number, struct.pack("<QII", self._data_start + start, word, 0))
        pack_data = store_block if old.flags & Flags.STORED_FRAGMENTS else self._codec.pack
        pack_inodes = store_block if old.flags & Flags.STORED_INODES else self._codec.pack
        pack_ids = store_block if old.flags & (Flags.STORED_IDS | Flags.STORED_INODES) else self._codec.pack
        if fragments.count or old.fragment_table != ABSENT:
            blocks, places["fragment_table"] = fragments.pack(pack_data, position)
            self.kept_blocks.update(fragments.kept)
            parts += blocks
        if old.has_lookup:
            lookup = self._point_to_inodes(total)
            blocks, places["lookup_table"] = lookup.pack(pack_inodes, position + len(parts))
            self.kept_blocks.update(lookup.kept)
            parts += blocks
        ids = GrowingTable(filesystem.metadata, old.id_table, 4, old.ids)
        for number, owner in enumerate(self._editor.ids[old.ids :], start=old.ids):
            ids.put(number, struct.pack("<I", owner))
        blocks, id_table = ids.pack(pack_ids, position + len(parts))
        self.kept_blocks.update(ids.kept)
        parts += blocks
        blocks, xattr_table = self._editor.xattrs.pack(position + len(parts))
        parts += blocks
        superblock = replace(
            old,
            flags=old.flags & ~Flags.NO_XATTRS if self._editor.xattrs.is_changed else old.flags,
            fragments=fragments.count,
            ids=len(self._editor.ids),
            id_table=id_table,
            xattr_table=xattr_table,
            **places,
        )
        return bytes(parts), superblock

    def _point_to_inodes(self, total: int) -> GrowingTable:
        """Return the table of inodes for NFS, with ``total`` entries."""
        lookup = GrowingTable(self._filesystem.metadata, self._old.lookup_table, 8, self._old.inodes)
        for number in range(self._old.inodes, total):
            lookup.put(number, struct.pack("<Q", self._references.get(number + 1, _NO_INODE)))
        for number, reference in self._references.items():
            if number <= self._old.inodes:
                lookup.put(number - 1, struct.pack("<Q", reference))
        return lookup


def _with_data(inode: Inode, data: PackedData, start: int) -> Inode:
    """Return ``inode`` with its data at their place; ``start``: where all new data begin in the image."""
    return replace(
        inode, size=data.size, start=start + data.start if data.blocks else 0, blocks=data.blocks, sparse=data.sparse,
        fragment=data.fragment, offset=data.offset,
    )  # fmt: skip
