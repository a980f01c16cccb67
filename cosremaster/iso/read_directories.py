"""Read the directories of a tree with their files, in one pass over the bytes of each.

An image may have very many files. A directory whose records are those of plain files and directories is read by few
steps for each record; any other as :class:`~cosremaster.iso.read_trees.DirectoryWalker` reads it. What follows from the
bytes of a directory of a known image need not be read again where they are the same.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from cosremaster.iso.ecma119.records import (
    DIRECTORY,
    MIN_RECORD,
    MULTI_EXTENT,
    DirectoryRecord,
    Extent,
    begins_with_dots,
    decode_identifier,
    decode_joliet_identifiers,
    read_directory_bytes,
)
from cosremaster.iso.model import IsoDirectory, IsoFile, IsoTree
from cosremaster.iso.rockridge.ordinary import OrdinaryNames
from cosremaster.iso.rockridge.read import CE_HEAD, parse_plain_fields, read_rock_ridge
from cosremaster.iso.tree_files import FileColumns, TreeFiles
from cosremaster.iso.walk import DirectoryWalker, NamedRecord
from cosremaster.records import Struct, field
from cosremaster.units import BLOCK, Lba, lba_offset

_HEAD = struct.Struct("<BBL4xL4x7xBH4xB")
"""That of a record (9.1), with unit size and gap as one number, as plain records have neither."""
_UNSEEN = 0x01
"""The file flag that says that nobody need be shown the name (9.1.6); readers show it."""
_DOTS = (b"\0", b"\1")
_LAST_DOT = 1
"""The byte that is the identifier of ``..`` (6.8.2.2); that of ``.`` is 0."""


class EarlierTree(Struct, frozen=True):
    """A tree of an image that was read before. ``directories``: by the first block of each."""

    tree: IsoTree
    directories: Mapping[Lba, IsoDirectory]

    @classmethod
    def of(cls, tree: IsoTree) -> EarlierTree:
        """Return ``tree`` as a known one."""
        return cls(tree, {directory.extent.lba: directory for directory in tree.index})


class TreeReader(Struct):
    """Reads the directories below a root.

    ``files``: those of all directories read so far. ``directories``: the directories in the order of their records.
    ``index``: the directories in the order in which they were read. ``ordinary_names``: finds names of Rock Ridge.
    """

    walker: DirectoryWalker
    earlier: EarlierTree | None = None
    files: TreeFiles = field(default_factory=TreeFiles)
    directories: list[IsoDirectory] = field(default_factory=list)
    index: list[IsoDirectory] = field(default_factory=list)
    ordinary_names: OrdinaryNames | None = None

    def read(self, root: Extent) -> None:
        """Read every directory from ``root`` on. Raises as ``walk_records``."""
        waiting = [IsoDirectory(b"", root, (), None)]
        self.directories += waiting
        while waiting:
            directory = waiting.pop()
            self.index.append(directory)
            files = self._take_earlier(directory)
            if files is None:
                files = self._read_plain(directory)
            directory.files = self.files.add(self._read_any(directory) if files is None else files)
            self.walker.others.empty_blocks.update(directory.empty_blocks)
            self.directories += directory.children
            waiting += directory.children

    def _take_earlier(self, directory: IsoDirectory) -> Sequence[IsoFile] | None:
        """Return the files of the same directory of the known image; None where its bytes or names are others."""
        earlier = self.earlier.directories.get(directory.extent.lba) if self.earlier is not None else None
        if earlier is None or not earlier.is_plain or earlier.data_end > self.walker.source.size:
            return None
        if (earlier.extent, earlier.path, earlier.identifiers) != (
            directory.extent,
            directory.path,
            directory.identifiers,
        ):
            return None
        assert self.earlier is not None
        data, kept = read_directory_bytes(self.walker.source, directory.extent, directory.identifiers), earlier.data
        if not (data.startswith(kept) and _is_zeros(data, len(kept))):
            return None
        self.walker.limits.count_directory(directory.extent.lba, directory.extent.length)
        for child in earlier.children:
            assert child.record is not None
            self.walker.note_directory(child.extent, child.record, len(directory.identifiers))
        directory.children = [
            IsoDirectory(child.path, child.extent, child.identifiers, child.record) for child in earlier.children
        ]
        directory.is_plain, directory.data_end, directory.data = True, earlier.data_end, kept
        directory.is_ordinary, directory.empty_blocks = earlier.is_ordinary, earlier.empty_blocks
        directory.begins_with_dots = earlier.begins_with_dots
        return self.earlier.tree.files[earlier.files]

    def _read_any(self, directory: IsoDirectory) -> Sequence[IsoFile]:
        """Read the records of ``directory`` one by one, and return its files."""
        files, children, sections = list[IsoFile](), list[IsoDirectory](), list[NamedRecord]()
        for named in self.walker.walk(directory.extent, directory.identifiers, directory.path):
            record = named.record
            if named.directory is not None:
                identifiers = (*directory.identifiers, record.identifier)
                children.append(IsoDirectory(named.path, named.directory, identifiers, record))
                continue
            sections.append(named)
            if not record.flags & MULTI_EXTENT:
                files.append(_make_file(sections))
                sections = []
        directory.children = children
        return files

    def _read_plain(self, directory: IsoDirectory) -> Sequence[IsoFile] | None:
        """Read ``directory`` and return its files; None, with nothing done, where a record of it is no plain one."""
        walker = self.walker
        data = read_directory_bytes(walker.source, directory.extent, directory.identifiers)
        if self.ordinary_names is None and walker.skip is not None:
            self.ordinary_names = OrdinaryNames(walker.skip)
        plain = _PlainDirectory(walker, directory, data, self.ordinary_names)
        files = plain.read()
        size = walker.source.size
        if files is None or (files.data_limit > size and files.data_end > size):
            return None
        walker.limits.count_directory(directory.extent.lba, directory.extent.length)
        walker.limits.count_path_bytes(plain.path_bytes + files.path_bytes)
        for child in plain.children:
            assert child.record is not None
            walker.note_directory(child.extent, child.record, len(directory.identifiers))
        directory.children, directory.is_plain, directory.data_end = plain.children, True, min(files.data_limit, size)
        directory.is_ordinary, directory.begins_with_dots = plain.is_ordinary, begins_with_dots(data)
        directory.empty_blocks = (*plain.empty_blocks, *files.empty_blocks)
        if plain.end * 2 < len(data) and _is_zeros(data, plain.end):  # an image may have very many small directories
            data = data[: plain.end]
        files.data = directory.data = data
        return files


def _is_zeros(data: bytes, start: int) -> bool:
    """Return whether ``data`` are zeros from byte ``start`` on."""
    return data.count(0, start) == len(data) - start


def _make_file(sections: Sequence[NamedRecord]) -> IsoFile:
    """Return the file whose sections have these records."""
    last = sections[-1]
    records = tuple([named.record for named in sections])
    return IsoFile(last.path, records, last.rock_ridge.is_regular, last.rock_ridge.zisofs_offset)


class _PlainDirectory(Struct):
    """The records of a directory, whose bytes are ``data``, as long as they are plain ones.

    ``ordinary_names``: finds names of Rock Ridge; None without it. ``empty_blocks``: those of directories.
    ``path_bytes``: bytes of the paths of directories in it together.
    ``is_ordinary``: see :class:`IsoDirectory`. ``end``: the byte behind the last record.
    """

    walker: DirectoryWalker
    directory: IsoDirectory
    data: bytes
    ordinary_names: OrdinaryNames | None
    children: list[IsoDirectory] = field(default_factory=list)
    empty_blocks: list[Lba] = field(default_factory=list)
    path_bytes: int = 0
    is_ordinary: bool = True
    end: int = 0

    def read(self) -> FileColumns | None:
        """Read all records and return the files; None at the first that is no plain one, malformed ones included."""
        data, directory = self.data, self.directory
        prefix = directory.path + b"/" if directory.path else b""
        if self.walker.limits.is_past(len(prefix) * (len(data) // MIN_RECORD)):
            return None
        start, base = lba_offset(directory.extent.lba), self.walker.base
        files = FileColumns(IsoFile, prefix, start, directory.identifiers, data, base)
        try:
            for block in range(0, len(data), BLOCK):
                if not self._read_block(files, prefix, block, min(block + BLOCK, len(data))):
                    return None
        except struct.error:  # the last record is cut off
            return None
        return files if self.end and self._name_files(files) else None

    def _read_block(self, files: FileColumns, prefix: bytes, first: int, end: int) -> bool:
        """Read the records in bytes ``first`` to ``end``; return False at the first that is no plain one."""
        at, data, base, unpack = first, self.data, self.walker.base, _HEAD.unpack_from
        add_offset, add_start, add_size = files.offsets.append, files.starts.append, files.sizes.append
        while at < end and data[at]:
            raw_length, attributes, lba, size, flags, interleaving, length = unpack(data, at)
            behind = at + raw_length
            if attributes or interleaving or not length or behind > end or 33 + length > raw_length:
                return False
            if flags > _UNSEEN or (length == 1 and data[at + 33] <= _LAST_DOT):
                if not self._read_directory(prefix, at, Extent(base + lba, size), flags):
                    return False
            else:
                add_offset(at)
                add_start(base + lba)
                add_size(size)
            at = behind
        self.end = at if at > first else self.end
        return True

    def _read_directory(self, prefix: bytes, at: int, extent: Extent, flags: int) -> bool:
        """Add the directory whose record is at ``at``; return False where that is no plain one."""
        data, directory = self.data, self.directory
        name_end = at + 33 + data[at + 32]
        identifier = data[at + 33 : name_end]
        if flags & ~(DIRECTORY | _UNSEEN):
            return False
        if identifier in _DOTS:
            return CE_HEAD not in data[at : at + data[at]]
        named = self._name_record(identifier, at, name_end)
        if named is None:
            return False
        path, start = prefix + named[0], lba_offset(directory.extent.lba)
        self.path_bytes += len(path)
        record = DirectoryRecord(start + at, extent.lba, extent.length, flags, directory.identifiers, identifier)
        self.children.append(IsoDirectory(path, extent, (*directory.identifiers, identifier), record))
        if not extent.length:
            self.empty_blocks.append(extent.lba)
        return True

    def _name_files(self, files: FileColumns) -> bool:
        """Set the names of ``files``; return False where one's record leads elsewhere."""
        if self.walker.joliet:
            files.names = decode_joliet_identifiers(files.identifiers)
            return True
        if self.ordinary_names is None:
            files.names = [decode_identifier(identifier, joliet=False) for identifier in files.identifiers]
            return True
        data = self.data
        files.names = names = self.ordinary_names.find(data, files.offsets)
        for number, at in enumerate(files.offsets) if b"" in names else ():
            if not names[number]:
                end = at + 33 + data[at + 32]
                named = self._name_record(data[at + 33 : end], at, end)
                if named is None:
                    return False
                names[number] = named[0]
                files.special[number] = named[1:]
        return True

    def _name_record(self, identifier: bytes, at: int, name_end: int) -> tuple[bytes, bool, int] | None:
        """Return the name of the record at ``at``, whether it is a regular file, and the offset of its ZF field.

        None where the record leads elsewhere.
        """
        walker, data = self.walker, self.data
        if walker.joliet or walker.skip is None:
            return decode_identifier(identifier, joliet=walker.joliet), True, 0
        end = at + data[at]
        plain = parse_plain_fields(data, name_end + 1 - len(identifier) % 2 + walker.skip, end)
        if plain is not None:
            name, is_regular, _ = plain
            return name or decode_identifier(identifier, joliet=False), is_regular, 0
        self.is_ordinary = False
        offset = lba_offset(self.directory.extent.lba) + at
        ridge = read_rock_ridge(walker.source, data[at:end], offset, walker.skip, walker.base)
        if ridge.areas or ridge.is_relocated or ridge.child_lba is not None:
            return None
        return ridge.name or decode_identifier(identifier, joliet=False), ridge.is_regular, ridge.zisofs_offset
