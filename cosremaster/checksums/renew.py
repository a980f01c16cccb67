"""Correct the checksum lists on an ISO for a tree that changes.

Digests are stored next to the bytes that they cover, so the lists are updated while the image is planned: the length of
a list is known without any digest, and the plan tells what the files will hold (docs/architecture.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from graphlib import TopologicalSorter

from cosremaster.checksums.draft import FileChanges, ListDraft, PlannedLine, draft_list
from cosremaster.checksums.lines import pack_lines
from cosremaster.checksums.lists import ChecksumList, DigestCache
from cosremaster.checksums.names import signature_paths
from cosremaster.checksums.values import RenewedLists
from cosremaster.errors import printable
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.iso.model import IsoFile, IsoImage
from cosremaster.records.lazy_dataclass import dataclass

ReadNewFile = Callable[[bytes], PieceTable]
"""Returns the bytes that the file at a path (in the changed tree) has in the new image."""

MAX_LISTED = 3
"""Paths that a warning names; further ones are only counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListChange:
    """Numbers of changed lines in the list at ``path``. A line that is both renamed and rewritten counts as both."""

    path: bytes
    rewritten: int = 0
    added: int = 0
    dropped: int = 0
    renamed: int = 0


def find_stale_lists(image: IsoImage, lists: Iterable[ChecksumList], changes: FileChanges) -> tuple[bytes, ...]:
    """Return the paths of the lists that would be wrong after ``changes`` if they were kept; reads no file."""
    changed = {*changes.replaced, *changes.removed, *changes.renamed}
    old_paths = {file.path for file in image.files}
    return tuple(
        source.path
        for source in lists
        if source.path in old_paths and changes.new_path(source.path) is not None
        and source.path not in changes.replaced and any(path in changed for path in source.files)
    )  # fmt: skip


def renew_lists(
    image: IsoImage,
    lists: Iterable[ChecksumList],
    changes: FileChanges,
    read_new_file: ReadNewFile,
    digests: DigestCache,
) -> RenewedLists:
    """Return the new bytes of ``lists``.

    Lines of files whose bytes change get new checksums, unless the old checksum was wrong before: such a line stays,
    with a warning. Lines of removed files are dropped, those of renamed files get the new name, and a complete list
    gets lines for added files; all other bytes stay. Where a list names another list, the named one is renewed first.
    Errors of reading the files are passed on.

    :param lists: as ``read_checksum_lists(image, changes.added)`` returns them.
    """
    return _Renewal(image, lists, changes, read_new_file, digests).run()


class _Renewal:
    """The state of :func:`renew_lists`; ``_new_lists`` has the new bytes of lists, by their new path."""

    def __init__(
        self,
        image: IsoImage,
        lists: Iterable[ChecksumList],
        changes: FileChanges,
        read_new_file: ReadNewFile,
        digests: DigestCache,
    ) -> None:
        """Draft the new lines of all lists."""
        self._image = image
        self._changes = changes
        self._read_new_file = read_new_file
        self._digests = digests
        self._files: dict[bytes, IsoFile] = {file.path: file for file in image.files}
        drafts = (draft_list(image, source, changes) for source in lists)
        self._drafts = {draft.path: draft for draft in drafts if draft is not None}
        self._new_lists: dict[bytes, PieceTable] = {}

    def run(self) -> RenewedLists:
        """Renew all lists, each after the lists that it names."""
        self._digests.read(self._digest_requests())
        changes, warnings = list[ListChange](), list[str]()
        for path in self._order_lists():
            draft = self._drafts[path]
            change, wrong = self._renew_list(draft)
            if wrong:
                warnings.append(
                    f"{printable(path)}: its sums of {_abridge_paths(wrong)} were wrong before, and stay so"
                )
            if pack_lines(draft.source.lines) != self._new_lists[path].read():
                changes.append(change)
                warnings += self._signature_warnings(draft)
            else:
                self._new_lists[path] = self._old_bytes(draft.source.path)
        lists = {change.path: self._new_lists[change.path] for change in changes}
        return RenewedLists(lists, tuple(sorted(changes, key=lambda change: change.path)), tuple(warnings))

    def _old_bytes(self, path: bytes) -> PieceTable:
        """Return the bytes of the file at ``path`` in the old image."""
        return self._image.bytes_of(self._files[path])

    def _new_bytes(self, path: bytes) -> PieceTable:
        """Return the bytes of the file, or the list, at ``path`` in the new image."""
        return self._new_lists[path] if path in self._new_lists else self._read_new_file(path)

    def _has_changed(self, planned: PlannedLine) -> bool:
        """Return True if the file of the line gets other bytes than the file that the old line named."""
        assert planned.path is not None
        if planned.old_path is None:
            return True
        return self._new_bytes(planned.path).pieces != self._old_bytes(planned.old_path).pieces

    def _digest_requests(self) -> Iterator[tuple[bytes, PieceTable, str]]:
        """Yield path, bytes and digest of every changed file; lists are left out: they are small, and change later."""
        for planned in (line for draft in self._drafts.values() for line in draft.lines):
            if planned.path is None or planned.path in self._drafts or not self._has_changed(planned):
                continue
            yield planned.path, self._read_new_file(planned.path), planned.line.digest
            if planned.old_path is not None:
                yield planned.old_path, self._old_bytes(planned.old_path), planned.line.digest

    def _was_right(self, planned: PlannedLine) -> bool:
        """Return True if the old checksum was that of the old file, or there was no old file."""
        if planned.old_path is None:
            return True
        return planned.line.has_checksum(self._digests.get(self._old_bytes(planned.old_path), planned.line.digest))

    def _order_lists(self) -> Sequence[bytes]:
        """Return the paths of the lists, each after the lists whose checksums it has.

        There is always such an order: no list can have its own checksum, and of two lists that have each other's one
        was wrong before. Wrong lines stay as they are and wait for nothing.
        """
        sorter: TopologicalSorter[bytes] = TopologicalSorter()  # Python 3.10 takes no brackets at run time
        for path, draft in self._drafts.items():
            lines = (line for line in draft.lines if line.path in self._drafts and line.path != path)
            sorter.add(path, *sorted({line.path for line in lines if line.path and self._was_right(line)}))
        return tuple(sorter.static_order())

    def _renew_list(self, draft: ListDraft) -> tuple[ListChange, list[bytes]]:
        """Make the list's new bytes; return what changed, and the changed files whose checksums were wrong before."""
        lines, rewritten, wrong = [], 0, list[bytes]()
        for planned in draft.lines:
            line = planned.line
            if planned.path is not None and planned.path != draft.path and self._has_changed(planned):
                if self._was_right(planned):
                    line = line.with_checksum(self._digests.get(self._new_bytes(planned.path), line.digest))
                    rewritten += not planned.is_added and line.checksum != planned.line.checksum
                else:
                    wrong.append(planned.path)
            lines.append(line)
        self._new_lists[draft.path] = PieceTable([Literal(pack_lines(lines))])
        added = sum(planned.is_added for planned in draft.lines)
        change = ListChange(
            path=draft.path, rewritten=rewritten, added=added, dropped=draft.dropped, renamed=draft.renamed
        )
        return change, wrong

    def _signature_warnings(self, draft: ListDraft) -> Iterator[str]:
        """Yield warnings of signatures of the list that are no longer valid."""
        if draft.source.is_signed:
            yield f"{printable(draft.path)} is signed, and changes: the signature in it will not hold"
        for path in signature_paths(draft.source.path):
            new_path = self._changes.new_path(path) if path in self._files else None
            if new_path is not None and path not in self._changes.replaced:
                yield f"{printable(new_path)} signs {printable(draft.path)}, which changes: the signature will not hold"


def _abridge_paths(paths: Sequence[bytes]) -> str:
    """Return the first paths as text, and how many more there are."""
    more = f" and {len(paths) - MAX_LISTED:,} more" if len(paths) > MAX_LISTED else ""
    return ", ".join(printable(path) for path in paths[:MAX_LISTED]) + more
