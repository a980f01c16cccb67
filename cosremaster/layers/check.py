"""The rules of the programs that unpack a layer, checked over its final entry list.

The programs are busybox ``cpio -i`` into an empty tmpfs and the kernel's initramfs unpacker; what they do
with an entry that breaks a rule is told in docs/formats.md. Pure: entries in, problems out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cosremaster import cpio
from cosremaster.nodes import Kind


@dataclass(frozen=True, slots=True)
class FinalEntry:
    """An entry as it will stand in the archive. ``target``: a symlink's text. ``new``: made by us."""

    name: bytes
    header: cpio.Header
    target: bytes = b""
    new: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """A rule that an entry breaks."""

    name: bytes
    rule: str


MAX_PART = 255
"""Bytes of a name between slashes that Linux file systems take."""

MAX_TARGET = 4095
MAX_FOLLOWED = 40

_NO_PARENT = "no entry before it makes its parent directory"


@dataclass(slots=True)
class _Seen:
    """What the entries so far have made: by real path, the type and a symlink's text."""

    made: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)
    late: set[bytes] = field(default_factory=set)
    inodes: dict[int, set[object]] = field(default_factory=dict)
    groups: dict[tuple[int, tuple[int, int]], list[FinalEntry]] = field(default_factory=dict)

    def folder(self, path: bytes) -> tuple[bytes, str]:
        """(the real path of the directory ``path``, "") or ("", the rule that it breaks)."""
        if self.made.get(path, (0, b""))[0] == Kind.DIRECTORY:
            return path, ""
        waiting, real, followed = deque(path.split(b"/")), b"", 0
        while waiting:
            part = waiting.popleft()
            if part in (b"", b"."):
                continue
            below = real + b"/" + part if real else part
            if below in self.late:
                return b"", "its path leads through a link that is made only at the end"
            kind, target = self.made.get(below, (0, b""))
            if kind == Kind.SYMLINK and followed < MAX_FOLLOWED:
                followed += 1
                waiting.extendleft(reversed(target.split(b"/")))
            elif kind == Kind.DIRECTORY:
                real = below
            else:
                return b"", _NO_PARENT
        return real, ""


def check_entries(entries: Iterable[FinalEntry]) -> tuple[Problem, ...]:
    """Every rule broken by ``entries``, in order; the trailer is not one of them."""
    seen = _Seen()
    problems: list[Problem] = []
    for entry in entries:
        problems += [Problem(entry.name, rule) for rule in _check_one(entry, seen)]
    for group in seen.groups.values():
        problems += [Problem(group[0].name, rule) for rule in _check_group(group, seen)]
    return tuple(problems)


def _check_one(entry: FinalEntry, seen: _Seen) -> Iterable[str]:
    """The rules that ``entry`` breaks; what it makes is noted in ``seen``."""
    path = cpio.normal_name(entry.name)
    parent, _, name = path.rpartition(b"/")
    if path == cpio.TRAILER:
        yield "the name ends the archive for every unpacker"
    if len(entry.name) + 1 > cpio.MAX_NAME:
        yield f"the name is longer than {cpio.MAX_NAME - 1} bytes"
    if len(name) > MAX_PART:
        yield f"a part of its name is longer than {MAX_PART} bytes"
    if entry.header.mode & 0o170000 == Kind.SYMLINK and not 0 < len(entry.target) <= MAX_TARGET:
        yield "no symlink can have its text"
    folder, rule = seen.folder(parent)
    if rule:
        yield rule
    real = folder + b"/" + name if folder else name
    if not rule and (real in seen.made or real in seen.late):
        yield "an entry of this name stands before it"
    if entry.new and _group_of(entry) not in seen.inodes.get(entry.header.ino, {_group_of(entry)}):
        yield "another entry has its inode number"
    _note(entry, path if rule else real, seen)


def _note(entry: FinalEntry, real: bytes, seen: _Seen) -> None:
    header = entry.header
    kind = header.mode & 0o170000
    seen.inodes.setdefault(header.ino, set()).add(_group_of(entry))
    linked = kind == Kind.FILE and header.nlink > 1
    if linked:
        seen.groups.setdefault((header.ino, header.dev), []).append(entry)
    late_symlink = kind == Kind.SYMLINK and (entry.target.startswith(b"/") or b".." in entry.target)
    if late_symlink or (linked and not header.size):
        seen.late.add(real)
    else:
        seen.made.setdefault(real, (kind, entry.target))


def _group_of(entry: FinalEntry) -> object:
    """Equal for entries that are meant to share an inode."""
    header = entry.header
    shares = header.mode & 0o170000 == Kind.FILE and header.nlink > 1
    return (header.ino, header.dev) if shares else entry.name


def _check_group(group: Sequence[FinalEntry], seen: _Seen) -> Iterable[str]:
    """Hard links: one size of data, and no other group under the inode number (busybox knows no device)."""
    header = group[0].header
    if len({entry.header.size for entry in group if entry.header.size}) > 1:
        yield "names of one hard-linked file carry data of different sizes"
    if sum(1 for key in seen.groups if key[0] == header.ino) > 1:
        yield "two hard-linked files on different devices have one inode number"
