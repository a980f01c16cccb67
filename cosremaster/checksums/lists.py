"""The lists of sums on an ISO's tree, and which files their lines name."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator

from msgspec import Struct

from cosremaster.checksums.lines import ChecksumLine, parse_lines
from cosremaster.errors import printable
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import count_chunks, digests_of
from cosremaster.iso.model import IsoFile, IsoImage
from cosremaster.progress import Progress

MAX_LIST = 1 << 24
"""Bytes; a longer file is not taken for a list, whose lines are all held in memory."""

_KINDS = rb"(?:md5|sha1|sha224|sha256|sha384|sha512)"
_NAME = re.compile(rb"(?:" + _KINDS + rb"sums?|checksums?)(?:\.txt)?", re.IGNORECASE)
_COMPANION = re.compile(rb"(?P<of>.+)\." + _KINDS + rb"(?:sums?)?(?:\.txt)?", re.IGNORECASE | re.DOTALL)
_SIGNATURES = (b".gpg", b".asc", b".sig", b".sign")
_SIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"


class ChecksumList(Struct, frozen=True):
    """A list. ``base``: the directory its names count from; ``files``: the path each line names, None where a line is
    no sum, names nothing on the ISO, or something outside it. ``whole``: it may be the list of a whole directory, not
    that of the one file it is named after."""

    path: bytes
    lines: tuple[ChecksumLine, ...]
    base: bytes
    files: tuple[bytes | None, ...]
    covers_directory: bool

    @property
    def is_signed(self) -> bool:
        """A signature stands around the lines."""
        return any(line.before == _SIGNED for line in self.lines[:4])


class NameLookup:
    """Looks up files of an image by the names that lists give them.

    Without Rock Ridge a list has the names that people see, which are the volume's in small letters or Joliet's.
    """

    def __init__(self, image: IsoImage, more: Iterable[bytes] = ()) -> None:
        self._known = {file.path for file in image.files} | set(more)
        self._other: dict[bytes, bytes] = {}
        if image.rock_ridge:
            return
        self._other = {path.lower(): path for path in sorted(self._known, reverse=True)}
        primary = {file.records[0].lba: file.path for file in image.files if file.size}
        for tree in image.trees[1:]:
            for file in tree.files:
                if file.size and file.records[0].lba in primary:
                    self._other.setdefault(file.path, primary[file.records[0].lba])

    def find_path(self, name: bytes, base: bytes) -> bytes | None:
        """The path of what ``name`` means seen from the directory ``base``; a leading slash is the ISO's root."""
        path = posixpath.normpath(b"/" + (name if name.startswith(b"/") else base + b"/" + name)).lstrip(b"/")
        if path in self._known:
            return path
        return self._other.get(path) or self._other.get(path.lower())


def is_list(path: bytes) -> bool:
    """A file of this name is a list of sums, if it has a line of one."""
    name = path.rpartition(b"/")[2]
    return bool(_NAME.fullmatch(name) or _COMPANION.fullmatch(name))


def signature_paths(path: bytes) -> Iterator[bytes]:
    """The paths at which a signature of the file ``path`` would stand."""
    yield from (path + ending for ending in _SIGNATURES)


def is_signature(path: bytes) -> bool:
    """A file of this name signs a list of sums."""
    return any(path.endswith(ending) and is_list(path[: -len(ending)]) for ending in _SIGNATURES)


def read_checksum_lists(image: IsoImage, added_paths: Iterable[bytes] = ()) -> tuple[ChecksumList, ...]:
    """The lists on the tree, sorted by path. ``more``: paths that lists may name beside those of ``image``.

    :raises ImageError: one cannot be read.
    """
    candidates = [file for file in image.files if file.regular and file.size <= MAX_LIST and is_list(file.path)]
    if not candidates:
        return ()
    names = NameLookup(image, added_paths)
    found = (_read(image, file, names) for file in sorted(candidates, key=lambda file: file.path))
    return tuple(one for one in found if any(line.digest for line in one.lines))


def _read(image: IsoImage, file: IsoFile, names: NameLookup) -> ChecksumList:
    lines = parse_lines(b"".join(image.bytes_of(file).chunks()))
    folder, _, name = file.path.rpartition(b"/")
    companion = _COMPANION.fullmatch(name)
    whole = companion is None or names.find_path(companion["of"], folder) is None
    # A list in a folder of its own, such as .disk, may count its names from the root.
    for base in (folder, b""):
        files = tuple(names.find_path(line.name, base) if line.digest else None for line in lines)
        if any(files):
            return ChecksumList(file.path, lines, base, files, whole)
    return ChecksumList(file.path, lines, folder, (None,) * len(lines), whole)


class DigestCache:
    """Digests of piece tables, kept; each table is read once for all digests wanted of it.

    A table is known by its pieces, so that two tables of the same pieces are read once.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._known: dict[tuple[object, ...], dict[str, str]] = {}

    def read(self, wanted: Iterable[tuple[bytes, PieceTable, str]]) -> None:
        """Reads what is not known yet of ``wanted``: the path of a file, its bytes, hashlib's name of the digest.

        Raises what reading them raises.
        """
        merged: dict[tuple[object, ...], tuple[bytes, PieceTable, set[str]]] = {}
        for path, table, digest in wanted:
            if digest not in self._known.get(table.pieces, {}):
                merged.setdefault(table.pieces, (path, table, set()))[2].add(digest)
        for pieces, (path, table, digests) in merged.items():
            with self._progress.step(f"sum {printable(path)}", table.length) as advance:
                found = digests_of(sorted(digests), count_chunks(table.chunks(), advance))
            self._known.setdefault(pieces, {}).update(found)

    def get(self, table: PieceTable, digest: str) -> str:
        """The digest of ``table`` in hexadecimal digits, read now where it is not known."""
        known = self._known.get(table.pieces, {})
        if digest not in known:
            self._known.setdefault(table.pieces, {}).update(digests_of((digest,), table.chunks()))
        return self._known[table.pieces][digest]
