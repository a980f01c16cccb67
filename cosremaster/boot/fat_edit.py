"""Exchange, add and remove files in a FAT file system, and change nothing else: no clock is read.

The chains of clusters in every FAT, the directory entries, and the free count of FSInfo follow. The result is a list of
patches: byte offsets in the file system, and the bytes there. docs/dependencies.md says why no library does it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from cosremaster.boot.fat import (
    DELETED,
    END,
    MAX_ENTRIES,
    Fat,
    FatFile,
    get_fat_entry,
)
from cosremaster.boot.fat_names import (
    ARCHIVE,
    ATTRIBUTES,
    DIRECTORY,
    ENTRY_SIZE,
    LONG_NAME,
    find_name_fault,
    fold_path,
    fold_paths,
    make_entries,
    pack_time,
)
from cosremaster.errors import ImageError, SizeError, UnsupportedError, printable
from cosremaster.io.pieces import Literal, PieceTable, Zeros
from cosremaster.records import Struct, field

MAX_FILE = (1 << 32) - 1
"""Bytes of the largest file ("Directory Structure", DIR_FileSize)."""
_LAST_CLUSTER = {12: 0xFFF, 16: 0xFFFF, 32: 0x0FFFFFFF}
_FREE_COUNT = 488
_UNKNOWN = 0xFFFFFFFF
_STEP = 4096

Patch = tuple[int, PieceTable]


class FatEntry(Struct, frozen=True):
    """A new file or directory. ``table``: a file's bytes, None for a directory; ``mtime``: seconds since 1970."""

    path: bytes
    table: PieceTable | None
    mtime: int


class FatEdits(Struct, frozen=True, kw_only=True):
    """The changes to a FAT file system. Removals come first, then exchanges, then additions.

    ``removed``: files, and directories with everything in them. ``replaced``: new bytes by a file's path; its name and
    its times stay. ``added``: new entries, directories before what is in them.
    """

    removed: tuple[bytes, ...] = ()
    replaced: Mapping[bytes, PieceTable] = field(default_factory=dict)
    added: tuple[FatEntry, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes."""
        return not (self.removed or self.replaced or self.added)


def edit_fat(fat: Fat, edits: FatEdits) -> tuple[Patch, ...]:
    """Return the patches that make ``edits`` in the file system.

    Chains grow by the lowest free clusters; clusters that a chain no longer needs become free. The bytes of removed
    files become zeros.

    :raises ImageError: when there is no such file, or the file system is damaged.
    :raises UnsupportedError: when it cannot be changed safely, or cannot hold a name.
    :raises SizeError: when it has no room.
    """
    if edits.is_empty:
        return ()
    walked = tuple(fat.walk())
    check_sound(fat, walked)
    draft = _FatDraft(fat, walked)
    for path in edits.removed:
        draft.remove(path)
    shrinks = {path for path, table in edits.replaced.items() if table.length < draft.find(path).size}
    for path in sorted(edits.replaced, key=lambda path: path not in shrinks):
        draft.replace(path, edits.replaced[path])
    for entry in edits.added:
        draft.add(entry)
    return tuple(draft.list_patches())


def check_sound(fat: Fat, files: Iterable[FatFile]) -> None:
    """Check that the file system is sound enough to be changed.

    :raises UnsupportedError: when it is not.
    """
    bpb = fat.bpb
    if bpb.total_size > fat.size:
        raise UnsupportedError(
            "its FAT file system is larger than what holds it, so no file in it is changed", fat.place
        )
    if not bpb.is_mirrored:
        raise UnsupportedError("the copies of its FAT are not kept equal, so no file in it is changed", fat.place)
    for copy in range(1, bpb.fat_count):
        if fat.read(bpb.fat_offset + copy * bpb.fat_size, bpb.fat_size) != fat.first_fat:
            raise UnsupportedError("the copies of its FAT differ, so no file in it is changed", fat.place)
    used = set(fat.read_chain(bpb.root_cluster, fat.place) if bpb.root_cluster else ())
    for file in files:
        chain = _read_chain(fat, file)
        if -(-file.size // bpb.cluster_size) > len(chain) or used.intersection(chain):
            raise UnsupportedError("files in its FAT share clusters or lack them, so none is changed",
                                   fat.place.inside(file.path))  # fmt: skip
        used.update(chain)


def _read_chain(fat: Fat, file: FatFile) -> tuple[int, ...]:
    """Return the clusters of ``file``."""
    return fat.read_chain(file.first_cluster, fat.place.inside(file.path)) if file.first_cluster else ()


class _Directory(Struct):
    """A directory while it is edited.

    ``chain``: its clusters, none for the root of FAT12 and FAT16. ``spans``: offset and length in bytes of each run of
    ``data``, in order. ``old``: the bytes that ``data`` had.
    """

    chain: tuple[int, ...]
    spans: list[tuple[int, int]]
    data: bytearray
    old: bytes

    def index_of(self, offset: int) -> int:
        """Return the place in ``data`` of byte ``offset`` of the file system."""
        base = 0
        for start, length in self.spans:
            if start <= offset < start + length:
                return base + offset - start
            base += length
        raise AssertionError("an entry is in its directory")

    def offset_of(self, index: int) -> int:
        """Return the byte offset in the file system of byte ``index`` of ``data``."""
        for start, length in self.spans:
            if index < length:
                return start + index
            index -= length
        raise AssertionError("a byte of a directory is in a span of it")

    def cut_at_spans(self, at: int, data: bytes) -> Iterator[Patch]:
        """Yield a patch for each span that ``data``, new bytes from byte ``at`` of the directory on, lie in."""
        base = 0
        for start, length in self.spans:
            first, end = max(at, base), min(at + len(data), base + length)
            if first < end:
                yield start + first - base, PieceTable([Literal(data[first - at : end - at])])
            base += length

    def list_short_names(self) -> set[bytes]:
        """Return the short names, of 11 bytes, of all entries that are in use."""
        names = set[bytes]()
        for at in range(0, len(self.data), ENTRY_SIZE):
            if self.data[at] == END:
                break
            if self.data[at] != DELETED and self.data[at + ATTRIBUTES] & 0x3F != LONG_NAME:
                names.add(bytes(self.data[at : at + 11]))
        return names

    def find_room(self, count: int) -> int | None:
        """Return where ``count`` free entries follow each other; None where there are not so many."""
        start, has_ended = 0, False
        for at in range(0, len(self.data), ENTRY_SIZE):
            has_ended = has_ended or self.data[at] == END
            if not has_ended and self.data[at] != DELETED:
                start = at + ENTRY_SIZE
            elif at + ENTRY_SIZE - start == count * ENTRY_SIZE:
                return start
        return None

    def write(self, at: int, entries: bytes) -> None:
        """Write ``entries`` at ``at``; what follows the last entry in use is marked as never used."""
        used = next((end for end in range(0, len(self.data), ENTRY_SIZE) if self.data[end] == END), len(self.data))
        end = at + len(entries)
        self.data[at:end] = entries
        if used < end < len(self.data):
            self.data[end] = END


class _FatDraft:
    """A FAT file system while it is edited: its FAT, its directories, and the new bytes of clusters."""

    def __init__(self, fat: Fat, files: Sequence[FatFile]) -> None:
        """Begin with no changes. ``files``: all files and directories."""
        self._fat = fat
        self._files = {file.path: file for file in files}
        self._names = fold_paths(self._files)
        self._table = bytearray(fat.first_fat)
        self._directories = dict[bytes, _Directory]()
        self._contents = list[Patch]()
        self._cleared, self._reused = set[int](), set[int]()
        self._free_from, self._freed = 2, 0

    def find(self, path: bytes) -> FatFile:
        """Return the file or directory at ``path``. :raises ImageError: when there is none."""
        if path not in self._files:
            raise ImageError("is not there", self._fat.place.inside(path))
        return self._files[path]

    def remove(self, path: bytes) -> None:
        """Remove a file, or a directory with everything in it."""
        removed = self.find(path)
        for below in [name for name in self._files if name.startswith(path + b"/")] if removed.is_directory else ():
            self._release(_read_chain(self._fat, self._files.pop(below)))
            self._names.pop(fold_path(below), None)
            self._directories.pop(below, None)
        self._directories.pop(path, None)
        parent = self._open_directory(path.rpartition(b"/")[0])
        for offset in (*removed.long_offsets, removed.entry_offset):
            parent.data[parent.index_of(offset)] = DELETED
        self._release(_read_chain(self._fat, self._files.pop(path)))
        self._names.pop(fold_path(path), None)

    def replace(self, path: bytes, table: PieceTable) -> None:
        """Give the file at ``path`` the bytes ``table``."""
        file = self.find(path)
        if file.is_directory:
            raise ImageError("is a directory", self._fat.place.inside(path))
        chain = self._write_file(path, _read_chain(self._fat, file), table)
        parent = self._open_directory(path.rpartition(b"/")[0])
        at = parent.index_of(file.entry_offset)
        entry, first = bytes(parent.data[at : at + ENTRY_SIZE]), chain[0] if chain else 0
        is_fat32 = self._fat.bpb.bits == 32
        parent.data[at : at + ENTRY_SIZE] = _point_entry(entry, first, table.length, has_upper_half=is_fat32)

    def add(self, new: FatEntry) -> None:
        """Add a file or an empty directory."""
        parent_path, _, name = new.path.rpartition(b"/")
        place = self._fat.place.inside(new.path)
        if fault := find_name_fault(name):
            raise UnsupportedError(f"its name {fault}", place)
        if namesake := self._names.get(fold_path(new.path)):
            raise UnsupportedError(f"is the same name as {printable(namesake)} in a FAT file system", place)
        parent = self._open_directory(parent_path)
        if new.table is None:
            chain = self._allocate(1, new.path)
            self._directories[new.path] = self._make_directory(chain, parent if parent_path else None, new.mtime)
        else:
            chain = self._write_file(new.path, (), new.table)
        first, size = chain[0] if chain else 0, new.table.length if new.table is not None else 0
        attributes = DIRECTORY if new.table is None else ARCHIVE
        entries = make_entries(
            name, _make_entry(b" " * 11, attributes, new.mtime, first, size), parent.list_short_names()
        )
        while (at := parent.find_room(len(entries) // ENTRY_SIZE)) is None:
            self._extend_directory(parent, new.path)
        parent.write(at, entries)
        offset = parent.offset_of(at + len(entries) - ENTRY_SIZE)
        self._files[new.path] = FatFile(new.path, offset, first, size, new.table is None)
        self._names[fold_path(new.path)] = new.path

    def list_patches(self) -> Iterator[Patch]:
        """Yield the patches that all changes make, none of which overlap."""
        yield from self._contents
        for group in _list_runs(sorted(self._cleared)):
            length = len(group) * self._fat.bpb.cluster_size
            yield self._fat.cluster_offset(group[0]), PieceTable([Zeros(length)])
        for directory in self._directories.values():
            kept = len(directory.old)
            changes = [*_find_changes(directory.old, directory.data[:kept]), (kept, bytes(directory.data[kept:]))]
            for at, data in changes:
                yield from directory.cut_at_spans(at, data)
        for at, data in _find_changes(self._fat.first_fat, self._table):
            for copy in range(self._fat.bpb.fat_count):
                start = self._fat.bpb.fat_offset + copy * self._fat.bpb.fat_size
                yield start + at, PieceTable([Literal(data)])
        if self._freed and self._fat.bpb.fsinfo_offset:
            yield from _patch_free_count(self._fat, self._freed)

    def _open_directory(self, path: bytes) -> _Directory:
        """Return the directory at ``path`` for changes. :raises ImageError: when there is none."""
        if path not in self._directories:
            first = self._fat.bpb.root_cluster
            if path:
                directory = self.find(path)
                if not directory.is_directory:
                    raise ImageError("is no directory", self._fat.place.inside(path))
                first = directory.first_cluster
            place = self._fat.place.inside(path) if path else self._fat.place
            spans = self._fat.locate_directory(first, place)
            data = b"".join(self._fat.read(start, length) for start, length in spans)
            chain = self._fat.read_chain(first, place) if first else ()
            self._directories[path] = _Directory(chain, list(spans), bytearray(data), data)
        return self._directories[path]

    def _make_directory(self, chain: tuple[int, ...], parent: _Directory | None, mtime: int) -> _Directory:
        """Return a new directory in the cluster ``chain``, with its ``.`` and ``..`` entries.

        ``parent``: the directory above; None for the root, which ``..`` has as cluster 0 ("Directory Creation").
        """
        above = parent.chain[0] if parent else 0
        data = bytearray(self._fat.bpb.cluster_size)
        data[:ENTRY_SIZE] = _make_entry(b".".ljust(11), DIRECTORY, mtime, chain[0], 0)
        data[ENTRY_SIZE : 2 * ENTRY_SIZE] = _make_entry(b"..".ljust(11), DIRECTORY, mtime, above, 0)
        return _Directory(chain, list(self._fat.cluster_runs(chain)), data, b"")

    def _extend_directory(self, directory: _Directory, path: bytes) -> None:
        """Add a cluster to ``directory``, which has no room for ``path``.

        :raises SizeError: when it cannot grow.
        """
        size = len(directory.data) + self._fat.bpb.cluster_size
        if not directory.chain or size > MAX_ENTRIES * ENTRY_SIZE:
            raise SizeError("does not fit: its directory can hold no more names", self._fat.place.inside(path))
        directory.chain = self._resize(directory.chain, len(directory.chain) + 1, path)
        directory.spans = list(self._fat.cluster_runs(directory.chain))
        directory.data += bytes(self._fat.bpb.cluster_size)

    def _write_file(self, path: bytes, old_chain: tuple[int, ...], table: PieceTable) -> tuple[int, ...]:
        """Write the bytes ``table`` of the file ``path`` into ``old_chain``, cut or extended. Return its new chain."""
        cluster_size = self._fat.bpb.cluster_size
        if table.length > MAX_FILE:
            raise SizeError(
                "does not fit: a file in a FAT file system has less than 4 GiB", self._fat.place.inside(path)
            )
        chain = self._resize(old_chain, -(-table.length // cluster_size), path)
        at = 0
        for start, length in self._fat.cluster_runs(chain):
            part = table.cut(at, min(at + length, table.length))
            at += part.length
            if part.length < length and chain[-1] in self._reused:  # behind the end are bytes of a removed file
                part = PieceTable([*part.pieces, Zeros(length - part.length)])
            self._contents.append((start, part))
        return chain

    def _resize(self, old: tuple[int, ...], count: int, path: bytes) -> tuple[int, ...]:
        """Return the chain ``old`` cut or extended to ``count`` clusters, and enter it in the FAT."""
        bits = self._fat.bpb.bits
        new = (*old[:count], *self._allocate(count - len(old), path))
        if len(new) == len(old):
            return old
        for cluster in old[count:]:
            self._free(cluster)
        for cluster, following in zip(new, (*new[1:], _LAST_CLUSTER[bits]), strict=False):
            if get_fat_entry(self._table, cluster, bits) != following:
                _set_entry(self._table, cluster, following, bits)
        return new

    def _allocate(self, count: int, path: bytes) -> tuple[int, ...]:
        """Return the lowest ``count`` free clusters, entered in the FAT as the ends of chains.

        :raises SizeError: when there are fewer; ``path`` needs them.
        """
        bits, cluster_size, clusters = self._fat.bpb.bits, self._fat.bpb.cluster_size, list[int]()
        end, cluster = self._fat.bpb.cluster_count + 2, self._free_from
        while len(clusters) < count and cluster < end:
            if not get_fat_entry(self._table, cluster, bits):
                clusters.append(cluster)
            cluster += 1
        if len(clusters) < count:
            needed, room = count * cluster_size, len(clusters) * cluster_size
            raise SizeError(
                f"does not fit: it needs {needed:,} more bytes, and its FAT file system has {room:,} free",
                self._fat.place.inside(path),
            )
        self._free_from = cluster if clusters else self._free_from
        self._freed -= len(clusters)
        self._reused.update(self._cleared.intersection(clusters))
        self._cleared.difference_update(clusters)
        for cluster in clusters:
            _set_entry(self._table, cluster, _LAST_CLUSTER[bits], bits)
        return tuple(clusters)

    def _free(self, cluster: int) -> None:
        """Mark ``cluster`` as free."""
        _set_entry(self._table, cluster, 0, self._fat.bpb.bits)
        self._free_from = min(self._free_from, cluster)
        self._freed += 1

    def _release(self, chain: Iterable[int]) -> None:
        """Free the clusters of something that is removed; their bytes become zeros."""
        for cluster in chain:
            self._free(cluster)
            self._cleared.add(cluster)


def _make_entry(short: bytes, attributes: int, mtime: int, first: int, size: int) -> bytes:
    """Return the directory entry of a new file or directory ("Directory Structure")."""
    time = pack_time(mtime)
    entry = short + bytes([attributes, 0, 0]) + time + time[2:] + b"\0\0" + time
    return _point_entry(entry + bytes(6), first, size)


def _point_entry(entry: bytes, first: int, size: int, *, has_upper_half: bool = True) -> bytes:
    """Return ``entry`` with another first cluster and size.

    ``has_upper_half``: bytes 20 and 21 belong to the cluster's number, which they do on FAT32 alone.
    """
    number = first.to_bytes(4, "little")
    upper = number[2:] if has_upper_half else entry[20:22]
    return entry[:20] + upper + entry[22:26] + number[:2] + size.to_bytes(4, "little")


def _set_entry(table: bytearray, cluster: int, value: int, bits: int) -> None:
    """Set the FAT entry of ``cluster``; the upper four bits of FAT32 stay ("FAT Data Structure")."""
    if bits == 12:
        at = cluster + cluster // 2
        pair = int.from_bytes(table[at : at + 2], "little")
        pair = pair & 0x000F | value << 4 if cluster & 1 else pair & 0xF000 | value
        table[at : at + 2] = pair.to_bytes(2, "little")
    elif bits == 16:
        table[cluster * 2 : cluster * 2 + 2] = value.to_bytes(2, "little")
    else:
        upper = table[cluster * 4 + 3] & 0xF0
        table[cluster * 4 : cluster * 4 + 4] = (value | upper << 24).to_bytes(4, "little")


def _find_changes(old: bytes, new: bytes | bytearray) -> Iterator[tuple[int, bytes]]:
    """Yield the place and the new bytes of each run that differs; both have the same length."""
    parts = (at for at in range(0, len(old), _STEP) if old[at : at + _STEP] != new[at : at + _STEP])
    changed = [at for part in parts for at in range(part, min(part + _STEP, len(old))) if old[at] != new[at]]
    for run in _list_runs(changed):
        yield run[0], bytes(new[run[0] : run[-1] + 1])


def _list_runs(numbers: Iterable[int]) -> Iterator[list[int]]:
    """Yield the runs of consecutive numbers."""
    for _, group in groupby(enumerate(numbers), lambda item: item[1] - item[0]):
        yield [number for _, number in group]


def _patch_free_count(fat: Fat, freed: int) -> Iterator[Patch]:
    """Yield a patch of FSInfo's count of free clusters, where it has one ("FSInfo Sector Structure")."""
    raw = fat.read(fat.bpb.fsinfo_offset, 512)
    count = int.from_bytes(raw[_FREE_COUNT : _FREE_COUNT + 4], "little")
    if raw[:4] == b"RRaA" and count != _UNKNOWN:
        data = max(0, count + freed).to_bytes(4, "little")
        yield fat.bpb.fsinfo_offset + _FREE_COUNT, PieceTable([Literal(data)])
