"""Read the directories of a tree with their files, in one pass over the bytes of each.

An image may have very many files. A directory whose records are those of plain files and directories is read by few
steps for each record; any other as :class:`~cosremaster.iso.read_trees.DirectoryWalker` reads it. What follows from the
bytes of a directory of a known image need not be read again where they are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast
from zlib import crc32

from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.records import (
    DIRECTORY,
    MIN_RECORD,
    MULTI_EXTENT,
    RECORD_HEAD,
    DirectoryRecord,
    Extent,
    decode_identifier,
    read_directory_bytes,
)
from cosremaster.iso.model import IsoDirectory, IsoFile, IsoImage, IsoTree
from cosremaster.iso.rockridge.read import CE_HEAD, parse_plain_fields, read_rock_ridge
from cosremaster.iso.walk import DirectoryWalker, NamedRecord
from cosremaster.records import Struct, field
from cosremaster.units import BLOCK, Lba, lba_offset

_PLAIN_FLAGS = DIRECTORY | 0x01
"""The file flags of plain records (9.1.6); readers show names with the lowest bit, which says that none need do so."""
_DOTS = (b"\0", b"\1")


class EarlierTree(Struct, frozen=True):
    """A tree of an image that was read before. ``directories``: by the first block of each; ``source``: the image."""

    tree: IsoTree
    source: ByteSource
    directories: Mapping[Lba, IsoDirectory]

    @classmethod
    def of(cls, tree: IsoTree, image: IsoImage) -> EarlierTree:
        """Return ``tree`` of ``image`` as a known one."""
        source = cast("ByteSource", image.source.source)
        return cls(tree, source, {directory.extent.lba: directory for directory in tree.index})


class TreeReader(Struct):
    """Reads the directories below a root.

    ``files``: those of all directories read so far. ``directories``: the directories in the order of their records.
    ``index``: the directories in the order in which they were read.
    """

    walker: DirectoryWalker
    earlier: EarlierTree | None = None
    files: list[IsoFile] = field(default_factory=list)
    directories: list[IsoDirectory] = field(default_factory=list)
    index: list[IsoDirectory] = field(default_factory=list)

    def read(self, root: Extent) -> None:
        """Read every directory from ``root`` on. Raises as ``walk_records``."""
        waiting = [IsoDirectory(b"", root, (), None)]
        self.directories += waiting
        while waiting:
            directory = waiting.pop()
            self.index.append(directory)
            first = len(self.files)
            if not (self._take_earlier(directory) or self._read_plain(directory)):
                self._read_any(directory)
            directory.files = slice(first, len(self.files))
            self.walker.others.empty_blocks.update(directory.empty_blocks)
            self.directories += directory.children
            waiting += directory.children

    def _take_earlier(self, directory: IsoDirectory) -> bool:
        """Take the files of the same directory of the known image; return False where its bytes or names are others."""
        earlier = self.earlier.directories.get(directory.extent.lba) if self.earlier is not None else None
        if earlier is None or not earlier.is_plain or earlier.data_end > self.walker.source.size:
            return False
        if (earlier.extent, earlier.path, earlier.identifiers) != (
            directory.extent,
            directory.path,
            directory.identifiers,
        ):
            return False
        assert self.earlier is not None
        data = read_directory_bytes(self.walker.source, directory.extent, directory.identifiers)
        if crc32(data) != earlier.crc or data != self.earlier.source.read(lba_offset(earlier.extent.lba), len(data)):
            return False  # the sum is of the bytes that were read then
        self.walker.limits.count_directory(directory.extent.lba, directory.extent.length)
        for child in earlier.children:
            assert child.record is not None
            self.walker.note_directory(child.extent, child.record, len(directory.identifiers))
        self.files += self.earlier.tree.files[earlier.files]
        directory.children = [
            IsoDirectory(child.path, child.extent, child.identifiers, child.record) for child in earlier.children
        ]
        directory.is_plain, directory.data_end, directory.crc = True, earlier.data_end, earlier.crc
        directory.is_ordinary, directory.empty_blocks = earlier.is_ordinary, earlier.empty_blocks
        return True

    def _read_any(self, directory: IsoDirectory) -> None:
        """Read the records of ``directory`` one by one."""
        children, sections = list[IsoDirectory](), list[NamedRecord]()
        for named in self.walker.walk(directory.extent, directory.identifiers, directory.path):
            record = named.record
            if named.directory is not None:
                identifiers = (*directory.identifiers, record.identifier)
                children.append(IsoDirectory(named.path, named.directory, identifiers, record))
                continue
            sections.append(named)
            if not record.flags & MULTI_EXTENT:
                self.files.append(_make_file(sections))
                sections = []
        directory.children = children

    def _read_plain(self, directory: IsoDirectory) -> bool:
        """Read ``directory``; return False, with nothing done, where a record of it is no plain one."""
        walker = self.walker
        data = read_directory_bytes(walker.source, directory.extent, directory.identifiers)
        plain = _PlainDirectory(walker, directory, data)
        if not plain.read():
            return False
        walker.limits.count_directory(directory.extent.lba, directory.extent.length)
        walker.limits.count_path_bytes(plain.path_bytes)
        for child in plain.children:
            assert child.record is not None
            walker.note_directory(child.extent, child.record, len(directory.identifiers))
        self.files += plain.files
        directory.children, directory.is_plain, directory.data_end = plain.children, True, plain.data_end
        directory.is_ordinary = plain.is_ordinary
        directory.empty_blocks, directory.crc = tuple(plain.empty_blocks), crc32(data)
        return True


def _make_file(sections: Sequence[NamedRecord]) -> IsoFile:
    """Return the file whose sections have these records."""
    last = sections[-1]
    records = tuple([named.record for named in sections])
    return IsoFile(last.path, records, last.rock_ridge.is_regular, last.rock_ridge.zisofs_offset)


class _PlainDirectory(Struct):
    """The records of a directory, whose bytes are ``data``, as long as they are plain ones.

    ``path_bytes``: bytes of all paths in it together.
    """

    walker: DirectoryWalker
    directory: IsoDirectory
    data: bytes
    files: list[IsoFile] = field(default_factory=list)
    children: list[IsoDirectory] = field(default_factory=list)
    empty_blocks: list[Lba] = field(default_factory=list)
    data_end: int = 0
    path_bytes: int = 0
    is_ordinary: bool = True

    def read(self) -> bool:
        """Read all records; return False at the first that is no plain one, malformed ones included."""
        data, start, base = self.data, lba_offset(self.directory.extent.lba), self.walker.base
        parent, files, end, path_bytes = self.directory.identifiers, self.files, 0, 0
        prefix = self.directory.path + b"/" if self.directory.path else b""
        unpack, name_of = RECORD_HEAD.unpack_from, self._name_joliet if self.walker.joliet else self._name_record
        offsets = _list_offsets(data)
        if self.walker.limits.is_past(len(prefix) * len(offsets)):
            return False
        for at in offsets:
            raw_length, attributes, lba, size, flags, unit, gap, length = unpack(data, at)
            name_end = at + 33 + length
            if attributes or unit or gap or flags & ~_PLAIN_FLAGS or 33 + length > raw_length:
                return False
            identifier = data[at + 33 : name_end]
            if length == 1 and identifier in _DOTS:
                if CE_HEAD in data[at : at + raw_length]:
                    return False
                continue
            named = name_of(identifier, at, name_end)
            if named is None:
                return False
            path = prefix + named[0]
            path_bytes += len(path)
            record = DirectoryRecord(start + at, base + lba, size, flags, parent, identifier)
            if flags & DIRECTORY:
                extent = Extent(record.lba, size)
                self.children.append(IsoDirectory(path, extent, (*parent, identifier), record))
            else:
                files.append(IsoFile(path, (record,), named[1], named[2]))
                if size and (base + lba) * BLOCK + size > end:
                    end = (base + lba) * BLOCK + size
            if not size:
                self.empty_blocks.append(record.lba)
        self.data_end, self.path_bytes = end, path_bytes
        return bool(offsets) and end <= self.walker.source.size

    def _name_joliet(self, identifier: bytes, _at: int, _end: int) -> tuple[bytes, bool, int]:
        """Return the name of a Joliet record, and that it is a regular file without zisofs."""
        return decode_identifier(identifier, joliet=True), True, 0

    def _name_record(self, identifier: bytes, at: int, name_end: int) -> tuple[bytes, bool, int] | None:
        """Return the name of the record at ``at``, whether it is a regular file, and the offset of its ZF field.

        None where the record leads elsewhere.
        """
        walker, data = self.walker, self.data
        if walker.skip is None:
            return decode_identifier(identifier, joliet=False), True, 0
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


def _list_offsets(data: bytes) -> list[int]:
    """Return the byte offsets of the records in the bytes of a directory; none where one is malformed."""
    offsets = list[int]()
    for block in range(0, len(data), BLOCK):
        at, end = block, min(block + BLOCK, len(data))
        while at < end and data[at]:
            offsets.append(at)
            if data[at] < MIN_RECORD or at + data[at] > end:
                return []
            at += data[at]
    return offsets
