"""The entries of a tar archive as columns: an archive may have a million, and an object for each takes 500 bytes."""

from __future__ import annotations

from array import array
from typing import TypeAlias, TypeVar

from cosremaster.records.tuples import NamedTuple

DIGEST_SIZE = 32
NO_DIGEST = bytes(DIGEST_SIZE)
_TYPE_BITS, _REGULAR_BITS = 0o170000, 0o100000  # S_IFMT and S_IFREG

Xattrs: TypeAlias = tuple[tuple[bytes, bytes], ...]
Column: TypeAlias = bytearray | memoryview
_Value = TypeVar("_Value")


class SparseMap(NamedTuple):
    """Where the stored bytes of a sparse file belong.

    ``size``: of the file with its holes; ``segments``: offset and size of each part in turn, in order.
    """

    size: int
    segments: array[int]


class TarEntry(NamedTuple):
    """An entry.

    ``mode``: type and permissions as in st_mode, of a hard link those of a regular file. ``start``: where its first
    header begins, extended ones included; ``head``: where its own begins; ``data``: where its data begin, ``stored``
    bytes of them; ``end``: where the next entry may begin. ``target``: the text of a symlink; ``link``: the name that a
    hard link leads to, None for another entry. ``sparse``: None for a file without holes.
    """

    name: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    start: int
    head: int
    data: int
    stored: int
    end: int
    target: bytes = b""
    link: bytes | None = None
    rdev: tuple[int, int] = (0, 0)
    xattrs: Xattrs = ()
    sparse: SparseMap | None = None

    @property
    def is_regular(self) -> bool:
        """Whether it is a regular file with data of its own."""
        return self.mode & _TYPE_BITS == _REGULAR_BITS and self.link is None


_USUAL = [b"", None, (0, 0), (), None]
"""Target, link, device, attributes and sparse map of most entries."""

NUMBERS = "IQQqQQQQQ"
"""The type of each column of numbers: mode, uid, gid, mtime, start, head, data, stored, end."""


class TarEntries:
    """Entries that are made when they are read.

    ``numbers``: the columns of :data:`NUMBERS`; ``names``: of each; the rest by number, where an entry has it;
    ``digests``: 32 bytes each, the SHA-256 of a file's data, zeros where none was taken.
    """

    __slots__ = ("digests", "links", "names", "numbers", "rdevs", "sparse", "targets", "xattrs")

    def __init__(self) -> None:
        """Begin without entries."""
        self.names: list[bytes] = []
        self.numbers = tuple(array(code) for code in NUMBERS)
        self.targets: dict[int, bytes] = {}
        self.links: dict[int, bytes] = {}
        self.rdevs: dict[int, tuple[int, int]] = {}
        self.xattrs: dict[int, Xattrs] = {}
        self.sparse: dict[int, SparseMap] = {}
        self.digests: Column = bytearray()

    def add(self, entry: TarEntry, digest: bytes = b"") -> None:
        """Add ``entry`` behind all others; ``digest``: the SHA-256 of its data."""
        assert isinstance(self.digests, bytearray)
        number = len(self.names)
        name, mode, uid, gid, mtime, start, head, data, stored, end, *others = entry
        modes, uids, gids, mtimes, starts, heads, datas, stored_sizes, ends = self.numbers
        self.names.append(name)
        # One by one, as a loop takes twice as long.
        modes.append(mode)
        uids.append(uid)
        gids.append(gid)
        mtimes.append(mtime)
        starts.append(start)
        heads.append(head)
        datas.append(data)
        stored_sizes.append(stored)
        ends.append(end)
        if others != _USUAL:
            self._add_others(number, entry)
        self.digests += digest or NO_DIGEST

    def _add_others(self, number: int, entry: TarEntry) -> None:
        """Add what few entries have, for ``entry`` at place ``number``."""
        if entry.target:
            self.targets[number] = entry.target
        if entry.link is not None:
            self.links[number] = entry.link
        if entry.rdev != (0, 0):
            self.rdevs[number] = entry.rdev
        if entry.xattrs:
            self.xattrs[number] = entry.xattrs
        if entry.sparse is not None:
            self.sparse[number] = entry.sparse

    def cut(self, count: int) -> TarEntries:
        """Return the first ``count`` entries."""
        front = TarEntries()
        front.names, front.numbers = self.names[:count], tuple(column[:count] for column in self.numbers)
        front.targets, front.links = _first(self.targets, count), _first(self.links, count)
        front.rdevs, front.xattrs = _first(self.rdevs, count), _first(self.xattrs, count)
        front.sparse = _first(self.sparse, count)
        front.digests = self.digests[: count * DIGEST_SIZE]
        return front

    def joined(self, later: TarEntries) -> TarEntries:
        """Return these entries with those of ``later`` behind them."""
        both, count = TarEntries(), len(self)
        both.names = self.names + later.names
        both.numbers = tuple(first + second for first, second in zip(self.numbers, later.numbers, strict=True))
        both.targets = self.targets | _moved(later.targets, count)
        both.links = self.links | _moved(later.links, count)
        both.rdevs = self.rdevs | _moved(later.rdevs, count)
        both.xattrs = self.xattrs | _moved(later.xattrs, count)
        both.sparse = self.sparse | _moved(later.sparse, count)
        both.digests = bytearray(self.digests) + later.digests
        return both

    def __len__(self) -> int:
        """Return how many entries there are."""
        return len(self.names)

    def __getitem__(self, number: int) -> TarEntry:
        """Return the entry at place ``number``."""
        mode, uid, gid, mtime, start, head, data, stored, end = [column[number] for column in self.numbers]
        return TarEntry(
            self.names[number], mode, uid, gid, mtime, start, head, data, stored, end,
            self.targets.get(number, b""), self.links.get(number), self.rdevs.get(number, (0, 0)),
            self.xattrs.get(number, ()), self.sparse.get(number),
        )  # fmt: skip

    def digest(self, number: int) -> bytes | None:
        """Return the SHA-256 of the data of the entry at place ``number``; None where it was not taken."""
        digest = bytes(self.digests[number * DIGEST_SIZE : (number + 1) * DIGEST_SIZE])
        return None if digest == NO_DIGEST else digest


def _first(values: dict[int, _Value], count: int) -> dict[int, _Value]:
    """Return those of ``values``, which are by number of entry, that the first ``count`` entries have."""
    return {number: value for number, value in values.items() if number < count}


def _moved(values: dict[int, _Value], count: int) -> dict[int, _Value]:
    """Return ``values``, which are by number of entry, for entries with ``count`` others before them."""
    return {number + count: value for number, value in values.items()}
