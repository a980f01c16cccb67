"""Makes the lists of sums on an ISO true for a tree that changes.

Digests stand in front of, or among, the bytes they sum, so they are settled while the image is planned: a list's length
is known without any, and what files will hold is asked of the plan (docs/architecture.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter

from msgspec import Struct, field

from cosremaster.checksums.lines import pack_lines
from cosremaster.checksums.lists import ChecksumList, DigestCache, signature_paths
from cosremaster.checksums.rows import FileChanges, ListDraft, PlannedLine, draft_list
from cosremaster.errors import printable
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.iso.model import IsoFile, IsoImage

ReadNewFile = Callable[[bytes], PieceTable]
"""The bytes that the file at a path, as it is called in the end, will hold in the new image."""

MAX_LISTED = 3
"""Paths named in a warning before the rest is only counted."""


class ListChange(Struct, frozen=True, kw_only=True):
    """What changed in the list at ``path``, in lines. A line that is both renamed and rewritten counts as both."""

    path: bytes
    rewritten: int = 0
    added: int = 0
    dropped: int = 0
    renamed: int = 0


class RenewedLists(Struct, frozen=True):
    """``lists``: path, as it is in the end, of each list that changes -> its new bytes; ``told``: what changed in
    each, sorted by path."""

    lists: Mapping[bytes, PieceTable] = field(default_factory=dict)
    changes: tuple[ListChange, ...] = ()
    warnings: tuple[str, ...] = ()


def find_stale_lists(image: IsoImage, lists: Iterable[ChecksumList], changes: FileChanges) -> tuple[bytes, ...]:
    """The lists that ``changes`` makes say wrong things when they stay as they are; nothing is read for it."""
    gone = {*changes.replaced, *changes.removed, *changes.renamed}
    there = {file.path for file in image.files}
    return tuple(
        one.path
        for one in lists
        if one.path in there and changes.new_path(one.path) is not None and one.path not in changes.replaced
        and any(path in gone for path in one.files)
    )  # fmt: skip


def renew_lists(
    image: IsoImage,
    lists: Iterable[ChecksumList],
    changes: FileChanges,
    read_new_file: ReadNewFile,
    digests: DigestCache,
) -> RenewedLists:
    """What the ``lists`` of ``image`` (from ``read_lists``, with the added paths) have to become.

    Lines of files whose bytes change get new sums, unless the old sum was wrong before: such a line stays, with a
    warning. Lines of removed files go, those of renamed ones get the new name, and a list that is complete gets lines
    for added ones; all other bytes stay. Lists that name each other are settled in the order that takes.
    Raises what reading the files raises.
    """
    return _Renewal(image, lists, changes, read_new_file, digests).run()


class _Renewal:
    """The parts of :func:`renewed_sums`. ``done``: the new bytes of lists, by their path in the end."""

    def __init__(
        self,
        image: IsoImage,
        lists: Iterable[ChecksumList],
        changes: FileChanges,
        written: ReadNewFile,
        digests: DigestCache,
    ) -> None:
        self._image = image
        self._changes = changes
        self._written = written
        self._digests = digests
        self._files: dict[bytes, IsoFile] = {file.path: file for file in image.files}
        drafts = (draft_list(image, one, changes) for one in lists)
        self._drafts = {one.path: one for one in drafts if one is not None}
        self._done: dict[bytes, PieceTable] = {}

    def run(self) -> RenewedLists:
        """The lists, those that others name before those others."""
        self._digests.read(self._wanted())
        told, warnings = list[ListChange](), list[str]()
        for path in self._order():
            one = self._drafts[path]
            change, wrong = self._settle(one)
            old = self._old(one.source.path)
            if wrong:
                warnings.append(f"{printable(path)}: its sums of {_some(wrong)} were wrong before, and stay so")
            if pack_lines(one.source.lines) != b"".join(self._done[path].chunks()):
                told.append(change)
                warnings += self._signatures(one)
            else:
                self._done[path] = old
        lists = {one.path: self._done[one.path] for one in told}
        return RenewedLists(lists, tuple(sorted(told, key=lambda one: one.path)), tuple(warnings))

    def _old(self, path: bytes) -> PieceTable:
        return self._image.bytes_of(self._files[path])

    def _new(self, path: bytes) -> PieceTable:
        return self._done[path] if path in self._done else self._written(path)

    def _changed(self, row: PlannedLine) -> bool:
        """The file of ``row`` will hold other bytes than the one it named."""
        assert row.path is not None
        return row.old_path is None or self._new(row.path).pieces != self._old(row.old_path).pieces

    def _wanted(self) -> Iterator[tuple[bytes, PieceTable, str]]:
        """What has to be summed, lists aside: they are small, and settled one after the other."""
        for row in (row for one in self._drafts.values() for row in one.lines):
            if row.path is None or row.path in self._drafts or not self._changed(row):
                continue
            yield row.path, self._written(row.path), row.line.digest
            if row.old_path is not None:
                yield row.old_path, self._old(row.old_path), row.line.digest

    def _right(self, row: PlannedLine) -> bool:
        """The old sum was that of the old file, or there was no such file."""
        return row.old_path is None or row.line.has_checksum(
            self._digests.get(self._old(row.old_path), row.line.digest)
        )

    def _order(self) -> Sequence[bytes]:
        """The lists' paths, each behind those whose sum it has. That of itself no list can have, nor two lists each
        that of the other: one of two such sums was wrong before, and wrong lines stay and wait for nothing."""
        sorter = TopologicalSorter[bytes]()
        for path, one in self._drafts.items():
            named = (row for row in one.lines if row.path in self._drafts and row.path != path)
            sorter.add(path, *sorted({row.path for row in named if row.path and self._right(row)}))
        return tuple(sorter.static_order())

    def _settle(self, one: ListDraft) -> tuple[ListChange, list[bytes]]:
        """Makes the list's new bytes; returns what changed, and the files whose changed sums were wrong before."""
        lines, rewritten, wrong = [], 0, list[bytes]()
        for row in one.lines:
            line = row.line
            if row.path is not None and row.path != one.path and self._changed(row):
                if self._right(row):
                    line = line.with_checksum(self._digests.get(self._new(row.path), line.digest))
                    rewritten += not row.is_added and line.checksum != row.line.checksum
                else:
                    wrong.append(row.path)
            lines.append(line)
        self._done[one.path] = PieceTable([Literal(pack_lines(lines))])
        added = sum(row.is_added for row in one.lines)
        return ListChange(
            path=one.path, rewritten=rewritten, added=added, dropped=one.dropped, renamed=one.renamed
        ), wrong  # fmt: skip

    def _signatures(self, one: ListDraft) -> Iterator[str]:
        """That a signature of the list does not hold any longer."""
        if one.source.is_signed:
            yield f"{printable(one.path)} is signed, and changes: the signature in it will not hold"
        for path in signature_paths(one.source.path):
            now = self._changes.new_path(path) if path in self._files else None
            if now is not None and path not in self._changes.replaced:
                yield f"{printable(now)} signs {printable(one.path)}, which changes: the signature will not hold"


def _some(paths: Sequence[bytes]) -> str:
    more = f" and {len(paths) - MAX_LISTED:,} more" if len(paths) > MAX_LISTED else ""
    return ", ".join(printable(path) for path in paths[:MAX_LISTED]) + more
