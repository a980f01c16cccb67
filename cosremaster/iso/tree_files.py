"""The files of a tree, by directory: as values when somebody asks for them, else as columns."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from itertools import chain, pairwise
from typing import TYPE_CHECKING, TypeAlias, cast, overload

from cosremaster.iso.ecma119.records import DirectoryRecord
from cosremaster.units import BLOCK, Lba, blocks_for

if TYPE_CHECKING:
    from cosremaster.iso.model import IsoFile

BlockRun: TypeAlias = tuple[Lba, Lba]
"""The first block of data, and the block after the last one."""
_PathIndex: TypeAlias = "tuple[dict[bytes, list[tuple[int, FileColumns]]], list[tuple[int, Sequence[IsoFile]]]]"
"""Directories of columns by the prefix of their paths, and others, all with the number of their first file."""
_FEW = 32
"""So many paths are looked for one by one among the files, before all are numbered."""


def _get_name(path: bytes) -> bytes:
    """Return what follows the directories in ``path``."""
    return path.rpartition(b"/")[2]


class FileColumns(Sequence["IsoFile"]):
    """The files of a directory of ordinary records: their names and extents, of which they are made when asked for.

    ``names``: as readers show them. ``starts`` and ``sizes``: first block and bytes of each. ``offsets``: of each
    record in ``data``, the bytes of the directory. ``special``: of the files with these numbers, whether they are
    regular, and the offset of a ZF field; the others are regular and have none.
    """

    def __init__(
        self, make: Callable[..., IsoFile], prefix: bytes, start: int, parent: tuple[bytes, ...], data: bytes,
        base: int = 0,
    ) -> None:  # fmt: skip
        """Begin without files.

        ``make``: makes a file from its path, its one record, and what is special about it. ``prefix``: that of their
        paths. ``start``: the byte offset of the directory in the image. ``parent``: the identifiers of its path.
        ``base``: the block from which the records count their blocks.
        """
        self._make, self.prefix, self._start, self._parent = make, prefix, start, parent
        self.data = data
        self.names = list[bytes]()
        self.starts, self.sizes, self.offsets = array("Q" if base else "I"), array("I"), array("I")
        self.special: dict[int, tuple[bool, int]] = {}
        self._made: list[list[IsoFile]] = []

    @property
    def identifiers(self) -> list[bytes]:
        """The identifiers in their records."""
        data = self.data
        return [data[at + 33 : at + 33 + data[at + 32]] for at in self.offsets]

    @property
    def longest_identifier(self) -> int:
        """Bytes of the longest identifier in their records; 0 without files."""
        data = self.data
        return max([data[at + 32] for at in self.offsets], default=0)

    def may_hold(self, part: bytes) -> bool:
        """Return whether ``part`` stands in the bytes of the directory: else it is in no identifier."""
        return part in self.data

    def may_begin(self, beginning: bytes) -> bool:
        """Return whether paths of this directory can begin with ``beginning``."""
        prefix = self.prefix
        return prefix.startswith(beginning) or beginning.startswith(prefix)

    @property
    def paths(self) -> list[bytes]:
        """Their paths."""
        prefix = self.prefix
        return [prefix + name for name in self.names]

    @property
    def regular_names(self) -> list[bytes]:
        """The names of those that are regular."""
        if not self.special:
            return self.names
        return [name for number, name in enumerate(self.names) if self.is_regular(number)]

    def is_regular(self, number: int) -> bool:
        """Return whether the file ``number`` is a regular one."""
        return number not in self.special or self.special[number][0]

    def find_name(self, name: bytes) -> Iterator[int]:
        """Yield the numbers of the files that are called ``name``."""
        return (number for number, own in enumerate(self.names) if own == name) if name in self.names else iter(())

    @property
    def path_bytes(self) -> int:
        """Bytes of all paths together."""
        return len(self.names) * len(self.prefix) + sum(map(len, self.names))

    @cached_property
    def only_run(self) -> BlockRun | None:
        """The blocks of all data, where none is empty and each begins at the end of the one before it; else None."""
        starts = self.starts.tolist()
        ends = [lba - -size // BLOCK for lba, size in zip(starts, self.sizes, strict=True)]
        if not starts or starts[1:] != ends[:-1] or not all(self.sizes):
            return None
        return Lba(starts[0]), Lba(ends[-1])

    @cached_property
    def data_start(self) -> Lba:
        """The first block of all data; 0 without any."""
        if self.only_run is not None:
            return self.only_run[0]
        return Lba(min([lba for lba, size in self.extents if size], default=0))

    @cached_property
    def data_limit(self) -> int:
        """A byte offset behind which there are no data, found faster than their end."""
        return max(self.starts, default=0) * BLOCK + max(self.sizes, default=0)

    @cached_property
    def data_end(self) -> int:
        """The byte offset behind the last data; 0 without any."""
        if self.only_run is not None:
            return self.starts[-1] * BLOCK + self.sizes[-1]
        return max([lba * BLOCK + size for lba, size in self.extents if size], default=0)

    @property
    def extents(self) -> Iterator[tuple[int, int]]:
        """First block and bytes of each."""
        return zip(self.starts, self.sizes, strict=True)

    @property
    def empty_blocks(self) -> list[Lba]:
        """The blocks that the records of files without data name."""
        return [] if all(self.sizes) else [Lba(lba) for lba, size in self.extents if not size]

    def has_extents_of(self, other: FileColumns) -> bool:
        """Return whether ``other`` has the same extents in the same order."""
        return self.starts == other.starts and self.sizes == other.sizes

    @property
    def joined_runs(self) -> Sequence[BlockRun]:
        """The :attr:`block_runs`; a single one where each begins at the end of the one before it, as is usual."""
        if self.only_run is not None:
            return [self.only_run]
        runs = self.block_runs
        if all(end == start for (_, end), (start, _) in pairwise(runs)):
            return [(runs[0][0], runs[-1][1])] if runs else []
        return runs

    @cached_property
    def blocks(self) -> tuple[Lba, Lba]:
        """The first block that a record names, and the last one."""
        return Lba(min(self.starts, default=0)), Lba(max(self.starts, default=0))

    @property
    def block_runs(self) -> list[BlockRun]:
        """The blocks of the data of each file that has some."""
        runs = [(lba, lba - -size // BLOCK) for lba, size in self.extents if size]
        return cast("list[BlockRun]", runs)  # a call of Lba for each would take longer than all else

    def is_touched(self, blocks: AbstractSet[Lba]) -> bool:
        """Return whether a record names one of ``blocks``."""
        return bool(blocks) and not blocks.isdisjoint(self.starts)

    def list_extents_but(self, records: AbstractSet[int], blocks: AbstractSet[Lba]) -> Iterator[tuple[Lba, int]]:
        """Yield first block and bytes of each file with data, but for ``records``, by their offsets, and ``blocks``."""
        for at, lba, size in zip(self.offsets, self.starts, self.sizes, strict=True):
            if size and lba not in blocks and self._start + at not in records:
                yield Lba(lba), size

    @property
    def byte_span(self) -> tuple[int, int]:
        """The byte offsets in the image between which all records begin."""
        return self._start, self._start + len(self.data)

    @property
    def files(self) -> list[IsoFile]:
        """The files as values; where several threads ask first, all get those of one of them."""
        if not self._made:
            self._made.append(self._make_files())
        return self._made[0]

    def _make_files(self) -> list[IsoFile]:
        """Return the files as values."""
        make, start, parent, data = self._make, self._start, self._parent, self.data
        columns = zip(self.paths, self.offsets, self.extents, self.identifiers, strict=True)
        files = [
            make(path, (DirectoryRecord(start + at, Lba(lba), size, data[at + 25], parent, identifier),))
            for path, at, (lba, size), identifier in columns
        ]
        for number, special in self.special.items():
            files[number] = make(files[number].path, files[number].records, *special)
        return files

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.offsets)

    def __iter__(self) -> Iterator[IsoFile]:
        """Yield the files."""
        return iter(self.files)

    @overload
    def __getitem__(self, index: int) -> IsoFile:
        """Return a file."""

    @overload
    def __getitem__(self, index: slice) -> Sequence[IsoFile]:
        """Return some files."""

    def __getitem__(self, index: int | slice) -> IsoFile | Sequence[IsoFile]:
        """Return a file, or some."""
        return self.files[index]

    def __eq__(self, other: object) -> bool:
        """Return whether ``other`` has the same files."""
        if self is other:  # an image that is read after another has its directories where they are the same
            return True
        if not isinstance(other, Sequence):
            return NotImplemented
        if isinstance(other, FileColumns) and self._columns == other._columns:
            return True
        return list(self) == list(other)

    @property
    def _columns(self) -> tuple[object, ...]:
        """All that values are made of."""
        flags = bytes([self.data[at + 25] for at in self.offsets])
        places = self._start, self.prefix, self._parent, self.starts, self.sizes, self.offsets
        return self._make, *places, self.special, flags, self.identifiers, self.names

    def __hash__(self) -> int:
        """Return the same for the same files."""
        return hash(len(self))


class TreeFiles(Sequence["IsoFile"]):
    """The files of the directories of a tree, one directory behind the other."""

    def __init__(self) -> None:
        """Begin without files."""
        self._parts: list[Sequence[IsoFile]] = []
        self._starts: list[int] = []
        self._directories: dict[tuple[int, int], Sequence[IsoFile]] = {}
        self._length = 0
        self._paths: list[bytes] | None = None
        self._by_prefix: _PathIndex | None = None

    def add(self, files: Sequence[IsoFile]) -> slice:
        """Add the files of the next directory; return where they are."""
        first, self._paths, self._by_prefix = self._length, None, None
        self._length += len(files)
        if files:
            self._parts.append(files)
            self._starts.append(first)
            self._directories[first, self._length] = files
        return slice(first, self._length)

    def has_extents_of(self, other: TreeFiles) -> bool:
        """Return whether the columns of both tell that ``other`` has a directory of the same extents for each."""
        own = [part for part in self._parts if isinstance(part, FileColumns)]
        others = {part.starts[0]: part for part in other._parts if isinstance(part, FileColumns)}
        pairs = ((part, others.get(part.starts[0])) for part in own)
        return len(own) == len(self._parts) and all(match and part.has_extents_of(match) for part, match in pairs)

    def block_runs(self, *, joined: bool = False) -> Iterable[BlockRun]:
        """Yield the blocks of the data of each file, one run for each that extents behind each other make.

        ``joined``: those of a directory as one where each begins at the end of the one before it.
        """
        for part in self._parts:
            if isinstance(part, FileColumns):
                yield from part.joined_runs if joined else part.block_runs
            else:
                for file in part:
                    yield from file.block_runs

    def list_kept_runs(self, removed: AbstractSet[Lba], single: AbstractSet[Lba]) -> Iterator[BlockRun]:
        """Yield the blocks of the data of files, but of those that begin at a block of ``removed``.

        Those of a directory are one run where each begins at the end of the one before it, and none of its files begins
        at a block of ``single``.
        """
        for part in self._parts:
            if not isinstance(part, FileColumns):
                kept = (file for file in part if not (file.size and file.start in removed))
                yield from (run for file in kept for run in file.block_runs)
            elif part.is_touched(removed) or part.is_touched(single):
                yield from (run for run in part.block_runs if run[0] not in removed)
            else:
                yield from part.joined_runs

    def list_kept_extents(
        self, removed: AbstractSet[Lba], catalog: AbstractSet[Lba], records: AbstractSet[int],
        is_whole: Callable[[Lba, Lba], bool],
    ) -> Iterator[tuple[Lba, int]]:  # fmt: skip
        """Yield first block and bytes of the data of records, but of files that begin at a block of ``removed``.

        Those of a directory are one where each begin at the end of the ones before, none is left out, and ``is_whole``
        takes the first block and the one behind the last.

        :param catalog: the block of the boot catalog, of which a record is left out.
        :param records: the offsets of records that are left out.
        """
        blocks, offsets = removed | catalog, sorted(records)
        for part in self._parts:
            if not isinstance(part, FileColumns):
                for file in (file for file in part if not (file.size and file.start in removed)):
                    for each in (each for each in file.records if each.offset not in records):
                        if each.length and each.lba not in catalog:
                            yield each.lba, each.length
                continue
            start, end = part.byte_span
            is_all = bisect_left(offsets, start) == bisect_left(offsets, end) and not part.is_touched(blocks)
            if is_all and part.only_run is not None and is_whole(*part.only_run):
                yield part.only_run[0], part.data_end - part.only_run[0] * BLOCK
            else:
                yield from part.list_extents_but(records, blocks)

    def find_in(self, wants: Callable[[bytes], bool]) -> Iterator[IsoFile]:
        """Yield the files of directories with a prefix of paths that ``wants`` takes, and of those without columns."""
        for part in self._parts:
            if not isinstance(part, FileColumns) or wants(part.prefix):
                yield from part

    def find_empty(self) -> Iterator[IsoFile]:
        """Yield the files without data."""
        for part in self._parts:
            if not isinstance(part, FileColumns) or not all(part.sizes):
                yield from (file for file in part if not file.size)

    @property
    def data_end(self) -> Lba:
        """The block after all data."""
        others = (part for part in self._parts if not isinstance(part, FileColumns))
        end = int(max((end for part in others for file in part for _, end in file.block_runs), default=0))
        columns = (part for part in self._parts if isinstance(part, FileColumns))
        for part in sorted(columns, key=lambda part: part.data_limit, reverse=True):
            if blocks_for(part.data_limit) <= end:
                break
            end = max(end, blocks_for(part.data_end))
        return Lba(end)

    @property
    def paths(self) -> Sequence[bytes]:
        """The path of each file, made once: several look for names among them."""
        if self._paths is None:
            self._paths = [
                path
                for part in self._parts
                for path in (part.paths if isinstance(part, FileColumns) else (file.path for file in part))
            ]
        return self._paths

    def has_path_from(self, beginning: bytes) -> bool:
        """Return whether a path begins with ``beginning``."""
        return any(
            path.startswith(beginning)
            for part in self._parts
            if not isinstance(part, FileColumns) or part.may_begin(beginning)
            for path in (part.paths if isinstance(part, FileColumns) else (file.path for file in part))
        )

    def join_names(self, border: bytes) -> bytes:
        """Return the name of each file, what follows its directory in its path, with ``border`` between them."""
        return border.join(
            border.join(part.names if isinstance(part, FileColumns) else [_get_name(file.path) for file in part])
            for part in self._parts
        )

    def join_regular(self, border: bytes) -> tuple[bytes, int]:
        """Return the paths of the regular files with ``border`` on both sides of each, and their number."""
        joined, count = list[bytes](), 0
        for part in self._parts:
            if isinstance(part, FileColumns):
                names, start = part.regular_names, border + part.prefix
            else:
                names, start = [file.path for file in part if file.is_regular], border
            joined += (start, start.join(names)) if names else ()
            count += len(names)
        return b"".join((*joined, border)), count

    def has_path(self, path: bytes) -> bool:
        """Return whether there is a file at ``path``."""
        return any(True for _ in self._find_path(path))

    def find_regular(self, path: bytes) -> int | None:
        """Return the number of the regular file at ``path``, of several that of the last; None for none."""
        return max((number for number, is_regular in self._find_path(path) if is_regular), default=None)

    def _find_path(self, path: bytes) -> Iterator[tuple[int, bool]]:
        """Yield the number of each file at ``path``, and whether it is regular."""
        by_prefix, others = self._index
        end = 0
        while end >= 0:  # a name may hold a slash, too
            for number, part in by_prefix.get(path[:end], ()):
                yield from ((number + at, part.is_regular(at)) for at in part.find_name(path[end:]))
            end = path.find(b"/", end) + 1 or -1
        for number, part_files in others:
            yield from ((at, file.is_regular) for at, file in enumerate(part_files, number) if file.path == path)

    @property
    def _index(self) -> _PathIndex:
        """The directories of columns by the prefix of their paths, and the others, all with their first numbers."""
        if self._by_prefix is None:
            by_prefix: dict[bytes, list[tuple[int, FileColumns]]] = {}
            others: list[tuple[int, Sequence[IsoFile]]] = []
            for part, start in zip(self._parts, self._starts, strict=True):
                if isinstance(part, FileColumns):
                    by_prefix.setdefault(part.prefix, []).append((start, part))
                else:
                    others.append((start, part))
            self._by_prefix = by_prefix, others
        return self._by_prefix

    def number_regular(self) -> dict[bytes, int]:
        """Return the numbers of the regular files by their paths; of several with a path, that of the last."""
        others = set[int]()
        for part, start in zip(self._parts, self._starts, strict=True):
            if isinstance(part, FileColumns):
                others.update(start + at for at, (is_regular, _) in part.special.items() if not is_regular)
            else:
                others.update(number for number, file in enumerate(part, start) if not file.is_regular)
        if not others:
            return dict(zip(self.paths, range(self._length), strict=True))
        return {path: number for number, path in enumerate(self.paths) if number not in others}

    def list_runs_in(self, first: Lba, end: Lba) -> Iterator[BlockRun]:
        """Yield those of the block runs that have a block between ``first`` and the block before ``end``."""
        for part in self._parts:
            if not isinstance(part, FileColumns):
                runs = [run for file in part for run in file.block_runs]
            elif part.blocks[0] < end and first * BLOCK < part.data_limit:
                runs = part.block_runs
            else:
                continue
            yield from (run for run in runs if run[0] < end and first < run[1])

    def find_starts(self, blocks: Collection[Lba]) -> set[Lba]:
        """Return those of ``blocks`` at which one of the block runs begins."""
        starts = set[Lba]()
        for part in self._parts:
            if isinstance(part, FileColumns):
                starts.update([Lba(lba) for lba, size in part.extents if lba in blocks and size])
            else:
                starts.update([start for file in part for start, _ in file.block_runs if start in blocks])
        return starts

    def find_at(self, blocks: AbstractSet[Lba]) -> Iterator[IsoFile]:
        """Yield the files whose data begin at one of ``blocks``."""
        for part in self._parts:
            if isinstance(part, FileColumns) and not part.is_touched(blocks):
                continue
            yield from (file for file in part if file.start in blocks)

    def __len__(self) -> int:
        """Return the number of files."""
        return self._length

    def __iter__(self) -> Iterator[IsoFile]:
        """Yield the files."""
        return chain.from_iterable(self._parts)

    @overload
    def __getitem__(self, index: int) -> IsoFile:
        """Return a file."""

    @overload
    def __getitem__(self, index: slice) -> Sequence[IsoFile]:
        """Return some files."""

    def __getitem__(self, index: int | slice) -> IsoFile | Sequence[IsoFile]:
        """Return a file, or some: those of a directory without making any."""
        if isinstance(index, int):
            at = range(self._length)[index]
            part = bisect_right(self._starts, at) - 1
            return self._parts[part][at - self._starts[part]]
        files = self._directories.get((index.start, index.stop)) if index.step is None else None
        if files is not None:
            return files
        first, end, step = index.indices(self._length)
        return [self[at] for at in range(first, end, step)]

    def __eq__(self, other: object) -> bool:
        """Return whether ``other`` has the same files."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return (isinstance(other, TreeFiles) and self._parts == other._parts) or list(self) == list(other)

    def __hash__(self) -> int:
        """Return the same for the same files."""
        return hash(self._length)


class RegularFiles(Mapping[bytes, "IsoFile"]):
    """The regular files of a tree by their paths: values are made of those that somebody asks for.

    All are numbered when many are asked for; a few are looked for by their directories.
    """

    def __init__(self, files: TreeFiles, wants: Callable[[bytes], bool] | None = None) -> None:
        """Make a mapping of ``files``; with ``wants`` of those alone whose paths it takes."""
        self._files, self._wants = files, wants
        self._known: dict[bytes, int] | None = None
        self._few: dict[bytes, int | None] = {}

    @property
    def _numbers(self) -> dict[bytes, int]:
        """The numbers of all files by their paths."""
        if self._known is None:
            wants, numbers = self._wants, self._files.number_regular()
            self._known = {path: numbers[path] for path in numbers if wants(path)} if wants else numbers
        return self._known

    def _find(self, path: bytes) -> int | None:
        """Return the number of the file at ``path``; None for none."""
        if self._known is None and len(self._few) < _FEW:
            if path not in self._few:
                is_wanted = self._wants is None or self._wants(path)
                self._few[path] = self._files.find_regular(path) if is_wanted else None
            return self._few[path]
        return self._numbers.get(path)

    def select(self, wants: Callable[[bytes], bool]) -> RegularFiles:
        """Return those of the files whose paths ``wants`` takes."""
        own = self._wants
        return RegularFiles(self._files, wants if own is None else lambda path: own(path) and wants(path))

    def __getitem__(self, path: bytes) -> IsoFile:
        """Return the file at ``path``."""
        number = self._find(path)
        if number is None:
            raise KeyError(path)
        return self._files[number]

    def __contains__(self, path: object) -> bool:
        """Return whether there is a file at ``path``."""
        return isinstance(path, bytes) and self._find(path) is not None

    def __iter__(self) -> Iterator[bytes]:
        """Yield the paths."""
        return iter(self._numbers)

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._numbers)


def list_identifiers(files: Sequence[IsoFile]) -> list[bytes]:
    """Return the identifiers in the last records of ``files``."""
    return files.identifiers if isinstance(files, FileColumns) else [file.records[-1].identifier for file in files]
