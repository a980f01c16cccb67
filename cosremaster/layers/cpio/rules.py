"""The rules of the programs that unpack a layer, checked over its final entry list.

The programs are busybox ``cpio -i`` into an empty tmpfs and the kernel's initramfs unpacker; what they do
with an entry that breaks a rule is told in docs/formats.md. Pure: entries in, problems out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from msgspec import Struct, field

from cosremaster.layers.cpio import newc as cpio
from cosremaster.tree.nodes import NodeKind
from cosremaster.tree.paths import SymlinkLoopError, normal_name, normal_names, resolve_in_root


class FinalEntry(NamedTuple):
    """An entry as it will stand in the archive. ``target``: a symlink's text. ``new``: made by us.

    A tuple, as one is made for every entry of a layer.
    """

    name: bytes
    header: cpio.Header
    target: bytes = b""
    new: bool = False


class Problem(Struct, frozen=True):
    """A rule that an entry breaks."""

    name: bytes
    rule: str


MAX_PART = 255
"""Bytes of a name between slashes that Linux file systems take."""

MAX_TARGET = 4095

_TYPE = 0o170000
_FILE, _SYMLINK, _DIRECTORY = int(NodeKind.FILE), int(NodeKind.SYMLINK), int(NodeKind.DIRECTORY)
"""As numbers: comparing with a member of an enumeration is dear, and there are three for each entry."""
_NOTHING = (0, b"")

_NO_PARENT = "no entry before it makes its parent directory"


class _RuleError(Exception):
    """A directory on a path breaks a rule, which is the text."""


class _Seen(Struct):
    """What the entries so far have made: by real path, the type and a symlink's text.

    ``inodes``: what entries with the same number have in common; ``shared``: numbers that several such have; ``last``:
    a directory that no link leads to, since entries of one stand together.
    """

    made: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)
    earlier: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)
    late: set[bytes] = field(default_factory=set)
    inodes: dict[int, object] = field(default_factory=dict)
    shared: dict[int, set[object]] = field(default_factory=dict)
    groups: dict[tuple[int, tuple[int, int]], list[FinalEntry]] = field(default_factory=dict)
    last: bytes | None = None

    def copy(self) -> _Seen:
        """The same, to go on with."""
        shared = {ino: set(owners) for ino, owners in self.shared.items()}
        groups = {key: list(entries) for key, entries in self.groups.items()}
        return _Seen(dict(self.made), self.earlier, set(self.late), dict(self.inodes), shared, groups)

    def folder(self, path: bytes) -> tuple[bytes, str]:
        """(the real path of the directory ``path``, "") or ("", the rule that it breaks)."""
        if self.made.get(path, _NOTHING)[0] == _DIRECTORY:
            self.last = path  # and what it is it stays
            return path, ""
        if b".." in path.split(b"/"):
            return b"", _NO_PARENT
        try:
            return resolve_in_root(path, self._link_target, enter=self._enter), ""
        except (_RuleError, SymlinkLoopError) as broken:
            return b"", str(broken) or _NO_PARENT

    def _link_target(self, path: bytes) -> bytes | None:
        if path in self.late:
            raise _RuleError("its path leads through a link that is made only at the end")
        kind, target = self._entry(path)
        return target if kind == _SYMLINK else None

    def _enter(self, path: bytes, _link: bytes) -> None:
        if self._entry(path)[0] != _DIRECTORY:
            raise _RuleError(_NO_PARENT)

    def _entry(self, path: bytes) -> tuple[int, bytes]:
        return self.made.get(path) or self.earlier.get(path, _NOTHING)


class Checked:
    """Entries that were checked, and every rule that they break, in order."""

    def __init__(
        self, entries: Iterable[FinalEntry], before: Checked | None = None, earlier: Iterable[FinalEntry] = ()
    ) -> None:
        """``entries`` of an archive, the trailer left out; they follow those of ``before``.

        ``earlier``: the entries of archives that stand before this one in a row; their directories are there.
        """
        self._seen: _Seen = _Seen() if before is None else before._seen.copy()
        for entry in earlier:
            self._seen.earlier[normal_name(entry.name)] = (entry.header.mode & _TYPE, entry.target)
        self._single: list[Problem] = [] if before is None else list(before._single)
        listed = list(entries)
        paths = normal_names([entry.name for entry in listed])
        for entry, path, values in zip(listed, paths, cpio.values_of(entry.header for entry in listed), strict=True):
            for rule in _check_one(entry, path, values, self._seen):
                self._single.append(Problem(entry.name, rule))

    @property
    def inodes(self) -> Collection[int]:
        """Every inode number of an entry."""
        return self._seen.inodes.keys()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The rules that are broken."""
        seen = self._seen
        shared = [Problem(group[0].name, rule) for group in seen.groups.values() for rule in _check_group(group, seen)]
        return (*self._single, *shared)


def _check_one(entry: FinalEntry, path: bytes, values: tuple[int, ...], seen: _Seen) -> Sequence[str]:
    """The rules that ``entry`` breaks; what it makes is noted in ``seen``. ``path``: its normal name; ``values``: the
    fields of its header."""
    ino, mode, nlink, size = values[0], values[1], values[4], values[6]
    broken: list[str] = []
    kind = mode & _TYPE
    linked = kind == _FILE and nlink > 1
    key = ino, (values[7], values[8])
    group: object = key if linked else entry.name  # equal for entries that are to share an inode
    parent, _, name = path.rpartition(b"/")
    if path == cpio.TRAILER:
        broken.append("the name ends the archive for every unpacker")
    if len(entry.name) + 1 > cpio.MAX_NAME:
        broken.append(f"the name is longer than {cpio.MAX_NAME - 1} bytes")
    if len(name) > MAX_PART:
        broken.append(f"a part of its name is longer than {MAX_PART} bytes")
    if kind == _SYMLINK and not 0 < len(entry.target) <= MAX_TARGET:
        broken.append("no symlink can have its text")
    folder, rule = (parent, "") if parent == seen.last else seen.folder(parent)
    if rule:
        broken.append(rule)
    real = folder + b"/" + name if folder else name
    if not rule and (real in seen.made or real in seen.late):
        broken.append("an entry of this name stands before it")
    owner = seen.inodes.setdefault(ino, group)
    if owner != group and group not in (sharing := seen.shared.setdefault(ino, set())):
        if entry.new:
            broken.append("another entry has its inode number")
        sharing.add(group)
    if linked:
        seen.groups.setdefault(key, []).append(entry)
    if rule:
        real = path
    late_symlink = kind == _SYMLINK and (entry.target.startswith(b"/") or b".." in entry.target)
    if late_symlink or (linked and not size):
        seen.late.add(real)
    else:
        seen.made.setdefault(real, (kind, entry.target))
    return broken


def _check_group(group: Sequence[FinalEntry], seen: _Seen) -> Iterable[str]:
    """Hard links: one size of data, and no other group under the inode number (busybox knows no device)."""
    header = group[0].header
    if len({entry.header.size for entry in group if entry.header.size}) > 1:
        yield "names of one hard-linked file carry data of different sizes"
    if sum(1 for key in seen.groups if key[0] == header.ino) > 1:
        yield "two hard-linked files on different devices have one inode number"
