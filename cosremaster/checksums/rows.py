"""What becomes of a list's lines when files come, go and get other names; sums are no matter here. Pure."""

from __future__ import annotations

import posixpath
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from msgspec import Struct, field
from msgspec.structs import replace

from cosremaster.checksums.lines import ChecksumLine
from cosremaster.checksums.lists import ChecksumList, is_list, is_signature
from cosremaster.io.pieces import PieceTable
from cosremaster.iso.model import IsoImage

_LOADER_FOLDERS = (b"isolinux", b"syslinux")
"""Ubuntu's lists leave them out: mkisofs writes into what is in there after the sums were taken."""


class FileChanges(Struct, frozen=True, kw_only=True):
    """What happens to the files of the primary tree, by their paths.

    ``exchanged``: old files with other bytes; ``added``: new ones; ``removed``: files that go; ``renamed``: old paths
    -> new ones. A path that is both removed and added holds something new.
    """

    replaced: Mapping[bytes, PieceTable] = field(default_factory=dict)
    added: Mapping[bytes, PieceTable] = field(default_factory=dict)
    removed: frozenset[bytes] = frozenset()
    renamed: Mapping[bytes, bytes] = field(default_factory=dict)

    def new_path(self, path: bytes) -> bytes | None:
        """Where what was called ``path`` is; None when it is nowhere."""
        if path in self.renamed:
            return self.renamed[path]
        return None if path in self.removed and path not in self.added else path


class PlannedLine(Struct, frozen=True):
    """A line to come. ``old``: the file it named; ``path``: the one it names now; None for none that is on the ISO.
    ``was``: the name in the line before; ``fresh``: the line was not there, and the sum in it is another's."""

    line: ChecksumLine
    old_name: bytes
    old_path: bytes | None = None
    path: bytes | None = None
    is_added: bool = False


class ListDraft(Struct, frozen=True):
    """A list with all its lines to come, at its path to come; how many were dropped, and how many got other names."""

    source: ChecksumList
    path: bytes
    lines: tuple[PlannedLine, ...]
    dropped: int
    renamed: int


def draft_list(image: IsoImage, source: ChecksumList, changes: FileChanges) -> ListDraft | None:
    """What ``source`` becomes, sums aside; None for a list that leaves, or that the user brought anew."""
    path = changes.new_path(source.path)
    if path is None or source.path in changes.replaced or source.path in changes.removed:
        return None
    folders = source.path.rpartition(b"/")[0], path.rpartition(b"/")[0]
    base = folders[1] if source.base == folders[0] else source.base
    there = {file.path for file in image.files}
    rows, dropped, renamed = list[PlannedLine](), 0, 0
    for line, named in zip(source.lines, source.files, strict=True):
        if named is None:
            rows.append(PlannedLine(line, line.name))
            continue
        now = changes.new_path(named)
        if now is None:
            dropped += 1
            continue
        was = line.name
        if now != named or base != source.base:
            new = line.with_name(_styled(line, now, base))
            renamed += new.raw != line.raw
            line = new  # noqa: PLW2901 - the same line under its new name
        rows.append(PlannedLine(line, was, named if named in there else None, now))
    if dropped and rows and not source.lines[-1].end:
        rows[-1] = replace(rows[-1], line=replace(rows[-1].line, end=b""))  # the last line ends as the last one did
    return ListDraft(source, path, tuple(_with_added(image, source, changes, rows, base)), dropped, renamed)


def _styled(like: ChecksumLine, path: bytes, base: bytes) -> bytes:
    """The name of ``path`` seen from ``base``, in the manner of the line ``like``."""
    if like.name.startswith(b"/"):
        return b"/" + path
    relative = posixpath.relpath(b"/" + path, b"/" + base)
    return b"./" + relative if like.name.startswith(b"./") else relative


def _with_added(
    image: IsoImage, source: ChecksumList, changes: FileChanges, rows: Sequence[PlannedLine], base: bytes
) -> Sequence[PlannedLine]:
    """``rows`` with lines for added files, for each digest of which the list was complete."""
    digests = dict.fromkeys(row.line.digest for row in rows if row.path is not None)
    for digest in digests if changes.added and source.covers_directory else ():
        named = {path for line, path in zip(source.lines, source.files, strict=True) if line.digest == digest and path}
        if _complete(image, source, named):
            listed = {row.path for row in rows if row.line.digest == digest}
            new = [path for path in changes.added if path not in listed and _wanted(path, base, named)]
            rows = _inserted(rows, digest, new, base)
    return rows


def _complete(image: IsoImage, source: ChecksumList, named: set[bytes]) -> bool:
    """``named`` are all regular files below the list's directory, but for what such lists leave out (live-build's
    binary_checksums): lists of sums, their signatures and READMEs, the boot catalog, boot images, mkisofs' TRANS.TBL,
    and a loader's folder as a whole."""
    booted = {boot.entry.lba for boot in image.boot_images} | ({image.catalog.lba} if image.catalog else set())
    for file in image.files:
        if not file.regular or file.path in named or not _below(file.path, source.base):
            continue
        if file.size and file.records[0].lba in booted:
            continue
        if not _left_out(file.path, named):
            return False
    return bool(named)


def _wanted(path: bytes, base: bytes, named: Iterable[bytes]) -> bool:
    return _below(path, base) and not _left_out(path, named)


def _below(path: bytes, base: bytes) -> bool:
    return not base or path.startswith(base + b"/")


def _left_out(path: bytes, named: Iterable[bytes]) -> bool:
    """A list that names the files ``named`` may leave out ``path``."""
    folder, _, name = path.rpartition(b"/")
    if is_list(path) or is_list(path.removesuffix(b".README")) or is_signature(path) or name == b"TRANS.TBL":
        return True
    loader = next((part for part in folder.split(b"/") if part.lower() in _LOADER_FOLDERS), None)
    if loader is None:
        return False
    above = folder[: folder.index(loader) + len(loader)] + b"/"
    return not any(one.startswith(above) for one in named)


def _inserted(rows: Sequence[PlannedLine], digest: str, paths: Iterable[bytes], base: bytes) -> list[PlannedLine]:
    """``rows`` with a line for each of ``paths``: where its name belongs if the names were sorted, else at the end.

    A line looks like the one before it.
    """
    places = [place for place, row in enumerate(rows) if row.line.digest == digest]
    names = [rows[place].old_name for place in places]
    ordered = len(names) > 1 and all(one <= other for one, other in pairwise(names))
    behind: dict[int, list[PlannedLine]] = {}
    for path in sorted(paths):
        index = len(places) - 1
        if ordered:
            index = bisect_right(names, _styled(rows[places[0]].line, path, base)) - 1
        like = rows[places[max(index, 0)]].line
        line = like.with_name(_styled(like, path, base))
        behind.setdefault(places[index] if index >= 0 else places[0] - 1, []).append(
            PlannedLine(line, line.name, None, path, True)
        )
    return list(_ended(_merged(rows, behind)))


def _merged(rows: Sequence[PlannedLine], behind: Mapping[int, Sequence[PlannedLine]]) -> Iterator[PlannedLine]:
    yield from behind.get(-1, ())
    for place, row in enumerate(rows):
        yield row
        yield from behind.get(place, ())


def _ended(rows: Iterable[PlannedLine]) -> Iterator[PlannedLine]:
    """``rows`` with no line but the last without an end."""
    found = list(rows)
    common = next((row.line.end for row in found if row.line.end), b"\n")
    bare = any(not row.line.end for row in found)
    for number, row in enumerate(found):
        last = number == len(found) - 1
        if not row.line.end and not last:
            yield replace(row, line=replace(row.line, end=common))
        elif row.is_added and last and bare:
            yield replace(row, line=replace(row.line, end=b""))
        else:
            yield row
