"""Find the checksum lists on an ISO's tree, and the files that their lines name."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence

from cosremaster.checksums.lines import (
    BLAKE2B,
    DIGESTS,
    ChecksumLine,
    parse_lines,
    parse_sole_checksum,
    parse_treeinfo,
)
from cosremaster.checksums.names import COMPANION, TREEINFO_NAMES, is_list, may_be_list
from cosremaster.errors import printable
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import count_chunks, digests_of
from cosremaster.iso.model import IsoFile, IsoImage
from cosremaster.progress import SUM, Progress, begin_work
from cosremaster.records import Struct, replace

_UNNAMED = (b"-", b"stdin")
"""What stands for the name where a program read standard input."""
_SIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"


class ChecksumList(Struct, frozen=True):
    """A checksum list on the ISO's tree.

    :param base: the directory that its names are relative to.
    :param files: for each line the path of the file that it names. None where the line is no checksum, or names no
        file of the ISO.
    :param covers_directory: it may list a whole directory; False for a companion such as ``x.iso.md5``, which lists
        the one file that it is named after.
    :param is_treeinfo: it is a .treeinfo, which may name files of a repository that are not on the ISO.
    """

    path: bytes
    lines: tuple[ChecksumLine, ...]
    base: bytes
    files: tuple[bytes | None, ...]
    covers_directory: bool
    is_treeinfo: bool = False

    @property
    def is_signed(self) -> bool:
        """Whether the lines are inside a PGP signed message."""
        return any(line.prefix == _SIGNED for line in self.lines[:4])


class NameLookup:
    """Finds files of an image by the names that checksum lists use.

    Without Rock Ridge a list has the names that people see: the volume's names in small letters, or Joliet's.
    """

    def __init__(self, image: IsoImage, added_paths: Iterable[bytes] = ()) -> None:
        """Index the files of ``image``, and the ``added_paths`` that it gets."""
        self._paths = {file.path for file in image.files} | set(added_paths)
        self._aliases: dict[bytes, bytes] = {}
        if image.has_rock_ridge:
            return
        self._aliases = {path.lower(): path for path in sorted(self._paths, reverse=True)}
        primary = {file.records[0].lba: file.path for file in image.files if file.size}
        for tree in image.trees[1:]:
            for file in tree.files:
                if file.size and file.records[0].lba in primary:
                    self._aliases.setdefault(file.path, primary[file.records[0].lba])

    def find_path(self, name: bytes, base: bytes) -> bytes | None:
        """Return the path of the file ``name``, relative to the directory ``base`` or, with a leading slash, to the
        ISO's root; None if there is no such file."""
        path = posixpath.normpath(b"/" + (name if name.startswith(b"/") else base + b"/" + name)).lstrip(b"/")
        if path in self._paths:
            return path
        return self._aliases.get(path) or self._aliases.get(path.lower())


def read_checksum_lists(image: IsoImage, added_paths: Iterable[bytes] = ()) -> tuple[ChecksumList, ...]:
    """Return the checksum lists on the tree of ``image``, sorted by path.

    :param added_paths: paths that lists may name besides the files of ``image``.
    :raises ImageError: when a list cannot be read.
    """
    candidates = [file for file in image.files if file.is_regular and may_be_list(file)]
    if not candidates:
        return ()
    names = NameLookup(image, added_paths)
    lists = (_read_list(image, file, names) for file in sorted(candidates, key=lambda file: file.path))
    return tuple(source for source in lists if source is not None and any(line.digest for line in source.lines))


def _read_list(image: IsoImage, file: IsoFile, names: NameLookup) -> ChecksumList | None:
    """Read ``file`` as a list; None if it is none."""
    folder, _, name = file.path.rpartition(b"/")
    data = image.bytes_of(file).read()
    if name.lower() in TREEINFO_NAMES:
        lines = parse_treeinfo(data)
        files = tuple(names.find_path(line.name, folder) if line.digest else None for line in lines)
        return ChecksumList(file.path, lines, folder, files, covers_directory=False, is_treeinfo=True)
    digests = BLAKE2B if re.search(rb"b2|blake", name, re.IGNORECASE) else DIGESTS
    companion = COMPANION.fullmatch(name)
    target = names.find_path(companion["of"], folder) if companion else None
    lines = (parse_sole_checksum(data, digests) if target else None) or parse_lines(data, digests)
    if target is not None:
        base, files = _find_base(lines, names, folder)
        lines, files = _name_target(lines, files, target)
        return ChecksumList(file.path, lines, base, files, covers_directory=False)
    base, files = _find_base(lines, names, folder)
    if not is_list(file.path) and not (any(files) and all(map(_is_list_line, lines))):
        return None
    is_companion = companion is not None and all(
        path is None or path.rpartition(b"/")[2].startswith(companion["of"]) for path in files
    )
    return ChecksumList(file.path, lines, base, files, covers_directory=not is_companion)


def _is_list_line(line: ChecksumLine) -> bool:
    """Return True for a checksum, an empty line, and a comment or another keyword of SUSE's ``content``."""
    return bool(line.digest or not line.prefix.strip() or re.match(rb"[#;]|[A-Z]+ ", line.prefix.lstrip()))


def _find_base(
    lines: Sequence[ChecksumLine], names: NameLookup, folder: bytes
) -> tuple[bytes, tuple[bytes | None, ...]]:
    """Return the directory that the names of ``lines`` are relative to, and the files that they name."""
    # A list in a folder such as .disk may have names that are relative to the root.
    for base in (folder, b""):
        files = tuple(names.find_path(line.name, base) if line.digest else None for line in lines)
        if any(files):
            return base, files
    return folder, (None,) * len(lines)


def _name_target(
    lines: Sequence[ChecksumLine], files: Sequence[bytes | None], target: bytes
) -> tuple[tuple[ChecksumLine, ...], tuple[bytes | None, ...]]:
    """Return the lines of a list beside the file ``target`` that it is named after, and the files that they name.

    A line without a name, or whose name is where the file was when it was summed, names the target.
    """
    named, paths = list[ChecksumLine](), list[bytes | None]()
    for line, path in zip(lines, files, strict=True):
        last = line.name.rpartition(b"/")[2]
        is_target = path is None and (line.has_fixed_name or last in (*_UNNAMED, target.rpartition(b"/")[2]))
        named.append(replace(line, has_fixed_name=True) if line.digest and is_target else line)
        paths.append(target if line.digest and is_target else path)
    return tuple(named), tuple(paths)


class DigestCache:
    """Computes digests of piece tables and keeps them; each table is read once for all digests that are requested.

    Tables are compared by their pieces, so that two tables of the same pieces are read once.
    """

    def __init__(self, progress: Progress) -> None:
        """Create an empty cache; ``progress`` gets a step for all tables that :meth:`read` reads."""
        self._progress = progress
        self._digests: dict[tuple[object, ...], dict[str, str]] = {}

    def read(self, requests: Iterable[tuple[bytes, PieceTable, str]]) -> None:
        """Compute the digests in ``requests`` that are not in the cache yet.

        Errors of reading the tables are passed on.

        :param requests: path of a file, its bytes, hashlib's name of the digest.
        """
        merged: dict[tuple[object, ...], tuple[bytes, PieceTable, set[str]]] = {}
        for path, table, digest in requests:
            if digest not in self._digests.get(table.pieces, {}):
                merged.setdefault(table.pieces, (path, table, set()))[2].add(digest)
        if not merged:
            return
        paths = {path for path, _, _ in merged.values()}  # of a changed file both tables, the old one and the new
        title = f"sum {len(paths):,} files" if len(paths) > 1 else f"sum {printable(paths.pop())}"
        total = sum(table.length for _, table, _ in merged.values())
        with begin_work(self._progress, title, total, SUM) as advance:
            for pieces, (_, table, names) in merged.items():
                digests = digests_of(sorted(names), count_chunks(table.chunks(), advance))
                self._digests.setdefault(pieces, {}).update(digests)

    def get(self, table: PieceTable, digest: str) -> str:
        """Return the digest of ``table`` in hexadecimal digits; compute it now if it is not in the cache."""
        digests = self._digests.setdefault(table.pieces, {})
        if digest not in digests:
            digests.update(digests_of((digest,), table.chunks()))
        return digests[digest]
