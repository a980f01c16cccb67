"""The bytes of changed directories and of path tables (ECMA-119, 9.1 and 9.4), wherever things come to stand.

Called twice: to learn how long everything becomes, which no place has an influence on, and for the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate

from msgspec import Struct, field

from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.dates import pack_short_date
from cosremaster.iso.ecma119.records import DIRECTORY, MULTI_EXTENT, pack_both_endian
from cosremaster.iso.ecma119.sections import split_into_sections
from cosremaster.iso.rockridge.read import walk_fields
from cosremaster.iso.rockridge.write import ContinuationAreas, RockRidgeProfile
from cosremaster.iso.tree_edit.directories import (
    IDENTIFIER_OFFSET,
    MAX_RECORD_SIZE,
    DirectoryEntry,
    EditableDirectory,
    EditableTree,
)
from cosremaster.tree.nodes import Node
from cosremaster.units import BLOCK, Lba, blocks_for, lba_offset

RECORD_LBA, RECORD_LENGTH, RECORD_FLAGS = 2, 10, 25
_DOT, _DOT_DOT = b"\0", b"\1"
NO_BLOCK = Lba(0)
CE_HEAD = b"CE\x1c\x01"
"""How the field begins that leads to more fields (SUSP 5.1)."""


class TreePlacement(Struct, frozen=True):
    """Where things stand, counted from the image's start. ``folders``: block and bytes by a folder's id;
    ``data``: block of a new file's data by its node's id; ``more``: further sections of files that grew, by their
    entry's id; ``continued``: the first block of what continues a folder's records, by its id."""

    directories: Mapping[int, tuple[Lba, int]]
    find_data: Callable[[Node], Lba]
    extra_sections: Mapping[int, Sequence[tuple[Lba, int]]]
    continuations: Mapping[int, Lba]


class TreeSerializer(Struct):
    """One round over ``tree``. ``patched``: bytes of the image by offset and length, with what else changed in them;
    ``links``: how many names a new file has; ``serials``: numbers that no file has; ``bearer``: the folder whose
    continued records begin with what continues the root's ``.``; ``numbered``: the numbers of what is new.
    """

    tree: EditableTree
    source: ByteSource
    read: Callable[[int, int], bytes]
    placement: TreePlacement
    link_counts: Mapping[object, int]
    free_serials: Iterator[int]
    root_continuation_host: EditableDirectory | None = None
    assigned_serials: dict[object, int] = field(default_factory=dict)

    def serialize_directories(self) -> tuple[dict[int, bytes], dict[int, bytes]]:
        """The bytes of each changed folder by its id, whole blocks; and what continues its records, where there is
        any."""
        found, more = dict[int, bytes](), dict[int, bytes]()
        for folder in self.tree.directories():
            if folder.is_changed:
                first = self.placement.continuations.get(id(folder), self.tree.base)
                continuation = ContinuationAreas(Lba(first - self.tree.base))
                if folder is self.root_continuation_host:
                    continuation.data += self.root_continuation_fields()
                found[id(folder)] = self._laid(folder, continuation)
                if continuation.data:
                    more[id(folder)] = bytes(continuation.data)
        return found, more

    def root_continuation_fields(self) -> bytes:
        """The fields that continue the root's ``.`` (an ER, SUSP 5.5)."""
        if self.tree.rock_ridge is None or self.tree.root.extent is None:
            return b""
        start = lba_offset(self.tree.root.extent.lba)
        dot = self.source.read(
            start, self.source.read(start, 1)[0]
        )  # as it was: it leads elsewhere once that is settled
        told = walk_fields(self.source, dot, start, self.tree.rock_ridge.skip, self.tree.base)
        return b"".join(one for at, one in told if not start <= at < start + len(dot))

    def serialize_path_table(self, order: str) -> bytes:
        """The path table with numbers in byte ``order``: by level, parent's number and identifier (6.9.1)."""
        numbers, table = {id(self.tree.root): 1}, bytearray()
        level = [(1, _DOT, self.tree.root)]
        while level:
            below: list[tuple[int, bytes, EditableDirectory]] = []
            for parent, identifier, folder in level:
                numbers.setdefault(id(folder), len(numbers) + 1)
                lba = self._place(folder)[0].to_bytes(4, order)  # type: ignore[arg-type]
                table += bytes((len(identifier), 0)) + lba + parent.to_bytes(2, order)  # type: ignore[arg-type]
                table += identifier + bytes(len(identifier) % 2)
                below += [
                    (numbers[id(folder)], one.identifier, one.directory)
                    for one in folder.entries
                    if one.directory is not None and not one.is_placeholder
                ]
            level = sorted(below, key=lambda item: (item[0], self.tree.naming.sort_key(item[1])))
        return bytes(table)

    def _place(self, folder: EditableDirectory) -> tuple[Lba, int]:
        """Block, as the tree counts, and bytes."""
        lba, length = self.placement.directories[id(folder)]
        return Lba(lba - self.tree.base), length

    def _laid(self, folder: EditableDirectory, continuation: ContinuationAreas) -> bytes:
        """A folder's records, none across a block's end (6.8.1.1)."""
        laid, room = bytearray(), 0
        for record in self._records(folder, continuation):
            if len(record) > room:
                laid += bytes(room)
                room = BLOCK
            laid += record
            room -= len(record)
        return bytes(laid) + bytes(room)

    def _records(self, folder: EditableDirectory, continuation: ContinuationAreas) -> Iterator[bytes]:
        dot, dot_dot = self._dots(folder)
        if folder.extent is not None and folder.is_moved:
            dot = self._carried(dot, lba_offset(folder.extent.lba), continuation)
        yield dot or self._made(continuation, _DOT, self._own_fields(folder), *self._place(folder), folder.node)
        if dot_dot and not folder.is_reparented:
            yield dot_dot
        else:
            yield self._made(continuation, _DOT_DOT, *self._parent_of(folder))
        for entry in folder.entries:
            if entry.is_renamed:
                yield from self._renamed(entry, continuation)
            elif not entry.records:
                yield from self._new(entry, continuation)
            elif folder.is_moved:
                for raw, offset in zip(self._kept(entry), self._offsets(entry), strict=True):
                    yield self._carried(_apart(raw, continuation), offset, continuation)
            else:
                yield from self._kept(entry)

    def _carried(self, raw: bytes, offset: int, continuation: ContinuationAreas) -> bytes:
        """A record of a directory that moves, and what continues it with it: libarchive reads no continuation that
        stands before its record."""
        dialect, name = self.tree.rock_ridge, raw[IDENTIFIER_OFFSET : IDENTIFIER_OFFSET + raw[32]]
        if dialect is None or CE_HEAD not in raw[IDENTIFIER_OFFSET + len(name) :]:
            return raw
        return self._packed(continuation, raw[:IDENTIFIER_OFFSET], name, self._fields(raw, offset), _system_use(raw))

    def _dots(self, folder: EditableDirectory) -> tuple[bytes, bytes]:
        """The first two records of one that is on the image."""
        if folder.extent is None:
            return b"", b""
        head = self.read(lba_offset(folder.extent.lba), min(2 * MAX_RECORD_SIZE, folder.extent.length))
        return head[: head[0]], head[head[0] : head[0] + head[head[0]]]

    def _own_fields(self, folder: EditableDirectory) -> list[bytes]:
        """The Rock Ridge fields that tell of a folder: its node's, or those of its ``.``."""
        dialect = self.tree.rock_ridge
        if dialect is None:
            return []
        if folder.node is not None:
            nlink = 2 + folder.subdirectory_count if self.tree.counts_subdirectories else 1
            return dialect.encode_node(folder.node, nlink, self._serial(folder.node))
        dot, _ = self._dots(folder)
        assert folder.extent is not None
        told = self._fields(dot, lba_offset(folder.extent.lba))
        return [one for one in told if one[:2] in (b"PX", b"TF")]

    def _parent_of(self, folder: EditableDirectory) -> tuple[list[bytes], Lba, int, Node | None]:
        """What a new ``..`` says: fields, place, and the node its date comes from."""
        assert folder.parent is not None and folder.named_in is not None
        own = self._own_fields(folder.parent)
        if folder.named_in is not folder.parent:
            own.append(_link(b"PL", self._place(folder.named_in)[0]))
        return own, *self._place(folder.parent), folder.node or folder.parent.node

    def _serial(self, node: Node) -> int:
        """An inode number (RRIP 4.1.1), the same for all names of a file."""
        key = node.link or id(node)
        if key not in self.assigned_serials:
            self.assigned_serials[key] = next(self.free_serials)
        return self.assigned_serials[key]

    def _fields(self, record: bytes, offset: int) -> list[bytes]:
        """The fields of a record that stood at ``offset``, with what changed in those that continue it."""
        assert self.tree.rock_ridge is not None
        found = walk_fields(self.source, record, offset, self.tree.rock_ridge.skip, self.tree.base)
        inside = range(offset, offset + len(record))
        return [one if at in inside else self.read(at, len(one)) for at, one in found]

    def _kept(self, entry: DirectoryEntry) -> Iterator[bytes]:
        """The records as they are; those that a larger size takes beside them are copies of the last."""
        more = self.placement.extra_sections.get(id(entry), ())
        for index, record in enumerate(entry.records, 1):
            raw = self._raw(record.offset)
            last = index == len(entry.records)
            yield _flagged(raw, bool(raw[RECORD_FLAGS] & MULTI_EXTENT) or (last and bool(more)))
        for index, (lba, length) in enumerate(more, 1):
            new = bytearray(raw)
            new[RECORD_LBA : RECORD_LBA + 8] = pack_both_endian(lba - self.tree.base)
            new[RECORD_LENGTH : RECORD_LENGTH + 8] = pack_both_endian(length)
            yield _flagged(bytes(new), index < len(more))

    def _raw(self, offset: int) -> bytes:
        return self.read(offset, self.source.read(offset, 1)[0])

    def _renamed(self, entry: DirectoryEntry, continuation: ContinuationAreas) -> Iterator[bytes]:
        """The records under another name, all that they tell else as it was."""
        for record, offset in zip(self._kept(entry), self._offsets(entry), strict=True):
            told: list[bytes] = []
            if self.tree.rock_ridge is not None:
                told = [one for one in self._fields(record, offset) if one[:2] not in (b"CL", b"RE")]
                told = self.tree.rock_ridge.with_name(self._relocated(entry, told), entry.primary_name or b"")
            raw = _apart(record, continuation)
            head = _leading(raw[:IDENTIFIER_OFFSET]) if entry.is_placeholder else raw[:IDENTIFIER_OFFSET]
            yield self._packed(continuation, head, entry.identifier, told, _system_use(raw))

    def _relocated(self, entry: DirectoryEntry, told: list[bytes]) -> list[bytes]:
        """``told`` with what leads to a relocated directory, or says that this is one."""
        if entry.is_placeholder and entry.directory is not None:
            return [_link(b"CL", self._place(entry.directory)[0]), *told]
        return [b"RE\x04\x01", *told] if entry.is_hidden and entry.directory is not None else told

    def _offsets(self, entry: DirectoryEntry) -> Iterator[int]:
        """Where each of the records stood that :meth:`_kept` yields; those of more sections are copies of the last."""
        yield from (record.offset for record in entry.records)
        yield from (entry.records[-1].offset for _ in self.placement.extra_sections.get(id(entry), ()))

    def _new(self, entry: DirectoryEntry, continuation: ContinuationAreas) -> Iterator[bytes]:
        node, dialect = entry.node, self.tree.rock_ridge
        assert node is not None
        told: list[bytes] = []
        if dialect is not None:
            told = self._own_fields(entry.directory) if entry.directory else self._file_fields(node, dialect)
            told = dialect.with_name(self._relocated(entry, told), entry.primary_name or b"")
        if entry.directory is not None and not entry.is_placeholder:
            yield self._made(continuation, entry.identifier, told, *self._place(entry.directory), node, DIRECTORY)
            return
        size = node.content.size if node.content and not entry.is_placeholder else 0
        lengths = split_into_sections(size, 1)
        # libarchive takes up what has no data where its block is, which so must not stand before what continues it.
        start = self.placement.find_data(node) - self.tree.base if size else continuation.first_block
        starts = accumulate(map(blocks_for, lengths[:-1]), initial=start)
        for index, (lba, length) in enumerate(zip(starts, lengths, strict=True), 1):
            flags = MULTI_EXTENT if index < len(lengths) else 0
            yield self._made(continuation, entry.identifier, told, Lba(lba), length, node, flags)

    def _file_fields(self, node: Node, dialect: RockRidgeProfile) -> list[bytes]:
        return dialect.encode_node(node, self.link_counts.get(node.link, 1) if node.link else 1, self._serial(node))

    def _made(
        self, continuation: ContinuationAreas, identifier: bytes, told: Sequence[bytes], lba: Lba, length: int,
        node: Node | None, flags: int | None = None,
    ) -> bytes:  # fmt: skip
        """A record (9.1) of something new, or of ``.`` and ``..``."""
        if identifier in (_DOT, _DOT_DOT) and self.tree.rock_ridge is not None:
            told = self.tree.rock_ridge.with_rr_field(told)
        dated = pack_short_date(node.mtime) if node is not None else self.read(self._root_date(), 7)
        head = bytearray(IDENTIFIER_OFFSET)
        head[RECORD_LBA : RECORD_LBA + 8] = pack_both_endian(lba)
        head[RECORD_LENGTH : RECORD_LENGTH + 8] = pack_both_endian(length)
        head[18:25] = dated
        head[RECORD_FLAGS] = DIRECTORY if flags is None else flags
        head[28:32] = b"\x01\x00\x00\x01"
        return self._packed(continuation, bytes(head), identifier, told)

    def _root_date(self) -> int:
        """Where the date stands of the root's ``.``."""
        assert self.tree.root.extent is not None
        return lba_offset(self.tree.root.extent.lba) + 18

    def _packed(
        self,
        continuation: ContinuationAreas,
        head: bytes,
        identifier: bytes,
        told: Sequence[bytes],
        before: bytes = b"",
    ) -> bytes:
        """A record with its identifier and its system use area, of an even length (9.1.12, 9.1.13). ``before``: the
        area that it had, of which what Rock Ridge skips is kept; all without Rock Ridge, if there is room."""
        raw = bytearray(head + identifier + bytes(1 - len(identifier) % 2))
        raw[32] = len(identifier)
        if told:
            skip = self.tree.rock_ridge.skip if self.tree.rock_ridge else 0
            raw += before[:skip].ljust(skip, b"\0")
            raw += continuation.split_fields(told, MAX_RECORD_SIZE - len(raw))
        elif self.tree.rock_ridge is None and len(raw) + len(before) <= MAX_RECORD_SIZE:
            raw += before
        raw += bytes(len(raw) % 2)
        raw[0] = len(raw)
        return bytes(raw)


def _link(sign: bytes, lba: Lba) -> bytes:
    """CL or PL (RRIP 4.1.5)."""
    return sign + b"\x0c\x01" + pack_both_endian(lba)


def _system_use(record: bytes) -> bytes:
    """A record's bytes behind its identifier (9.1.13)."""
    return record[IDENTIFIER_OFFSET + record[32] + 1 - record[32] % 2 :]


def _leading(head: bytes) -> bytes:
    """The head of a record that only leads elsewhere: no directory, and no data."""
    raw = bytearray(head)
    raw[RECORD_LBA : RECORD_LENGTH + 8] = bytes(16)
    raw[RECORD_FLAGS] &= ~DIRECTORY
    return bytes(raw)


def _apart(record: bytes, continuation: ContinuationAreas) -> bytes:
    """``record`` of a directory that moves. What has no data names any block; were it one that the directory or one
    above it gets, libarchive would call that a loop."""
    if record[RECORD_FLAGS] & DIRECTORY or any(record[RECORD_LENGTH : RECORD_LENGTH + 4]):
        return record
    return record[:RECORD_LBA] + pack_both_endian(continuation.first_block) + record[RECORD_LENGTH:]


def _flagged(record: bytes, another: bool) -> bytes:
    """``record`` with the flag that tells whether another section of the file follows (9.1.6)."""
    flags = record[RECORD_FLAGS] & ~MULTI_EXTENT | (MULTI_EXTENT if another else 0)
    return record[:RECORD_FLAGS] + bytes((flags,)) + record[RECORD_FLAGS + 1 :]
