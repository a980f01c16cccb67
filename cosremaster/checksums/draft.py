"""Plan the lines of a checksum list for files that are added, removed and renamed; checksums stay as they are."""

from __future__ import annotations

import posixpath
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from cosremaster.checksums.lines import ChecksumLine
from cosremaster.checksums.lists import ChecksumList
from cosremaster.checksums.names import is_list, is_signature
from cosremaster.io.pieces import PieceTable
from cosremaster.iso.model import IsoFile, IsoImage
from cosremaster.records import Struct, field, replace

_LOADER_FOLDERS = (b"isolinux", b"syslinux")
"""Ubuntu's lists leave these directories out: mkisofs writes into files there after the checksums were computed."""
_MADE_LATER = (b".disk/mkisofs",)
"""debian-cd writes the command of mkisofs there after it computed the checksums."""
_RECORDING_DATE = 18
"""The byte of a directory record at which its date begins: year, month, day, hour, minute, second, time zone."""


class FileChanges(Struct, frozen=True, kw_only=True):
    """Changes to the files of the primary tree, by path.

    A path that is both removed and added gets a new file.

    :param replaced: old path -> new bytes.
    :param added: path of a new file -> its bytes.
    :param removed: paths of removed files.
    :param renamed: old path -> new path.
    """

    replaced: Mapping[bytes, PieceTable] = field(default_factory=dict)
    added: Mapping[bytes, PieceTable] = field(default_factory=dict)
    removed: frozenset[bytes] = frozenset()
    renamed: Mapping[bytes, bytes] = field(default_factory=dict)

    def new_path(self, path: bytes) -> bytes | None:
        """Return the new path of the file that was at ``path``; None if it is removed."""
        if path in self.renamed:
            return self.renamed[path]
        return None if path in self.removed and path not in self.added else path


class PlannedLine(Struct, frozen=True):
    """A line of the new list.

    :param old_name: the name in the old line.
    :param old_path: path of the file that the old line named; None for none.
    :param path: path of the file that the new line names; None if it names no file of the ISO.
    :param is_added: the line was not in the old list, and its checksum is that of another line.
    """

    line: ChecksumLine
    old_name: bytes
    old_path: bytes | None = None
    path: bytes | None = None
    is_added: bool = False


class ListDraft(Struct, frozen=True):
    """A list with all its new lines, at its new path; how many lines were dropped, and how many got new names."""

    source: ChecksumList
    path: bytes
    lines: tuple[PlannedLine, ...]
    dropped: int
    renamed: int


def draft_list(image: IsoImage, source: ChecksumList, changes: FileChanges) -> ListDraft | None:
    """Return the new lines of ``source``; None for a list that is removed, or that the user replaces."""
    path = changes.new_path(source.path)
    if path is None or source.path in changes.replaced or source.path in changes.removed:
        return None
    old_folder, new_folder = source.path.rpartition(b"/")[0], path.rpartition(b"/")[0]
    base = new_folder if source.base == old_folder else source.base
    old_paths = {file.path for file in image.files}
    planned, dropped, renamed = list[PlannedLine](), 0, 0
    for line, old_path in zip(source.lines, source.files, strict=True):
        if old_path is None:
            planned.append(PlannedLine(line, line.name))
            continue
        new_path = changes.new_path(old_path)
        if new_path is None:
            dropped += 1
            continue
        new_line = line
        if (new_path != old_path or base != source.base) and not line.has_fixed_name:
            new_line = line.with_name(_name_like(line, new_path, base))
            renamed += new_line.raw != line.raw
        planned.append(PlannedLine(new_line, line.name, old_path if old_path in old_paths else None, new_path))
    if dropped and planned and not source.lines[-1].end:  # the new last line has no end either
        planned[-1] = _with_end(planned[-1], b"")
    return ListDraft(source, path, tuple(_with_added(image, source, changes, planned, base)), dropped, renamed)


def _name_like(example: ChecksumLine, path: bytes, base: bytes) -> bytes:
    """Return the name of ``path`` relative to ``base``, with a leading ``/`` or ``./`` where ``example`` has one."""
    if example.name.startswith(b"/"):
        return b"/" + path
    relative = posixpath.relpath(b"/" + path, b"/" + base)
    return b"./" + relative if example.name.startswith(b"./") else relative


def _with_end(planned: PlannedLine, end: bytes) -> PlannedLine:
    """Return the line with another line end."""
    return replace(planned, line=replace(planned.line, end=end))


def _with_added(
    image: IsoImage, source: ChecksumList, changes: FileChanges, planned: Sequence[PlannedLine], base: bytes
) -> Sequence[PlannedLine]:
    """Add lines for added files to ``planned``, for each digest that the list was complete in."""
    digests = dict.fromkeys(line.line.digest for line in planned if line.path is not None)
    for digest in digests if changes.added and source.covers_directory else ():
        old = {path for line, path in zip(source.lines, source.files, strict=True) if line.digest == digest and path}
        if _is_complete(image, source, old):
            listed = {line.path for line in planned if line.line.digest == digest}
            paths = (path for path in changes.added if path not in listed)
            added = [path for path in paths if _is_below(path, base) and not _may_omit(path, old)]
            planned = _insert_lines(planned, digest, added, base)
    return planned


def _is_complete(image: IsoImage, source: ChecksumList, listed: Collection[bytes]) -> bool:
    """Return True if ``listed`` has all regular files below the list's directory.

    Files that such lists leave out (live-build's binary_checksums) do not count: checksum lists, their signatures and
    READMEs, the boot catalog, boot images, mkisofs' TRANS.TBL, and a boot loader's directory as a whole; nor do files
    that were made after the list, and those that the primary tree does not show.
    """
    boot_blocks = {boot.entry.lba for boot in image.boot_images} | ({image.catalog.lba} if image.catalog else set())
    missing = list[IsoFile]()
    for file in image.files:
        if file.is_hidden or not file.is_regular or file.path in listed or not _is_below(file.path, source.base):
            continue
        if file.size and file.records[0].lba in boot_blocks:
            continue
        if not (file.path == source.path or _may_omit(file.path, listed)):
            missing.append(file)
    return bool(listed) and _are_later(image, source, missing, len(listed))


def _are_later(image: IsoImage, source: ChecksumList, missing: Sequence[IsoFile], listed: int) -> bool:
    """Return True if the ``missing`` files of a list were made after it, and are few beside the ``listed`` ones."""
    unknown = [file for file in missing if file.path not in _MADE_LATER]
    if not unknown:
        return True
    own = next(file for file in image.files if file.path == source.path)
    if own.is_hidden:
        return False
    made = _recording_date(image, own)
    return len(unknown) * 10 <= listed and all(_recording_date(image, file) > made for file in unknown)


def _recording_date(image: IsoImage, file: IsoFile) -> bytes:
    """Return the recording date of a file as it is stored (ECMA-119, 9.1.5): later ones are greater."""
    at = file.records[0].offset + _RECORDING_DATE
    return PieceTable([image.source]).read(at, 6)


def _is_below(path: bytes, base: bytes) -> bool:
    """Return True if ``path`` is below the directory ``base``; an empty ``base`` is the root."""
    return not base or path.startswith(base + b"/")


def _may_omit(path: bytes, listed: Iterable[bytes]) -> bool:
    """Return True if a complete list that names the files ``listed`` may leave out ``path``."""
    folder, _, name = path.rpartition(b"/")
    if is_list(path) or is_list(path.removesuffix(b".README")) or is_signature(path) or name == b"TRANS.TBL":
        return True
    loader = next((part for part in folder.split(b"/") if part.lower() in _LOADER_FOLDERS), None)
    if loader is None:
        return False
    loader_folder = folder[: folder.index(loader) + len(loader)] + b"/"
    return not any(other.startswith(loader_folder) for other in listed)


def _insert_lines(
    planned: Sequence[PlannedLine], digest: str, paths: Iterable[bytes], base: bytes
) -> list[PlannedLine]:
    """Insert a line for each of ``paths``: in order if the names of that digest were sorted, else after the last.

    A new line is spelled like the one in front of it.
    """
    indexes = [index for index, line in enumerate(planned) if line.line.digest == digest]
    names = [planned[index].old_name for index in indexes]
    is_sorted = len(names) > 1 and all(name <= following for name, following in pairwise(names))
    inserted: dict[int, list[PlannedLine]] = {}
    for path in sorted(paths):
        position = len(indexes) - 1
        if is_sorted:
            position = bisect_right(names, _name_like(planned[indexes[0]].line, path, base)) - 1
        example = planned[indexes[max(position, 0)]].line
        line = example.with_name(_name_like(example, path, base))
        new = PlannedLine(line, line.name, None, path, is_added=True)
        inserted.setdefault(indexes[position] if position >= 0 else indexes[0] - 1, []).append(new)
    merged = [*inserted.get(-1, ())]
    for index, line_before in enumerate(planned):
        merged += (line_before, *inserted.get(index, ()))
    return list(_fix_line_ends(merged))


def _fix_line_ends(planned: Sequence[PlannedLine]) -> Iterator[PlannedLine]:
    """Yield the lines so that none but the last lacks its end, and an added last line only if another lacked it."""
    line_end = next((line.line.end for line in planned if line.line.end), b"\n")
    has_open_line = any(not line.line.end for line in planned)
    for number, line in enumerate(planned, 1):
        is_last = number == len(planned)
        if not line.line.end and not is_last:
            yield _with_end(line, line_end)
        elif line.is_added and is_last and has_open_line:
            yield _with_end(line, b"")
        else:
            yield line
