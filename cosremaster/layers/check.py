"""The rules of the programs that unpack a layer, checked over its final entry list.

The programs are busybox ``cpio -i`` into an empty tmpfs and the kernel's initramfs unpacker; what they do
with an entry that breaks a rule is told in docs/formats.md. Pure: entries in, problems out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cosremaster import cpio
from cosremaster.nodes import Kind, parent_of


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


@dataclass(slots=True)
class _Seen:
    """What the entries so far have made."""

    kinds: dict[bytes, int] = field(default_factory=dict)
    late: set[bytes] = field(default_factory=set)
    inodes: dict[int, set[object]] = field(default_factory=dict)
    groups: dict[tuple[int, tuple[int, int]], list[FinalEntry]] = field(default_factory=dict)


def check_entries(entries: Iterable[FinalEntry]) -> tuple[Problem, ...]:
    """Every rule broken by ``entries``, in order; the trailer is not one of them."""
    seen = _Seen()
    problems: list[Problem] = []
    for entry in entries:
        problems += [Problem(entry.name, rule) for rule in _check_one(entry, seen)]
        _note(entry, seen)
    for group in seen.groups.values():
        problems += [Problem(group[0].name, rule) for rule in _check_group(group, seen)]
    return tuple(problems)


def _check_one(entry: FinalEntry, seen: _Seen) -> Iterable[str]:
    path = cpio.normal_name(entry.name)
    if path == cpio.TRAILER:
        yield "the name ends the archive for every unpacker"
    if len(entry.name) + 1 > cpio.MAX_NAME:
        yield f"the name is longer than {cpio.MAX_NAME - 1} bytes"
    if path in seen.kinds:
        yield "an entry of this name stands before it"
    parent = parent_of(path)
    if parent and seen.kinds.get(parent) not in (Kind.DIRECTORY, Kind.SYMLINK):
        yield "no entry before it makes its parent directory"
    ancestor = parent
    while ancestor:
        if ancestor in seen.late:
            yield "its path leads through a link that is made only at the end"
        ancestor = parent_of(ancestor)
    if entry.new and _group_of(entry) not in seen.inodes.get(entry.header.ino, {_group_of(entry)}):
        yield "another entry has its inode number"


def _note(entry: FinalEntry, seen: _Seen) -> None:
    path, header = cpio.normal_name(entry.name), entry.header
    kind = header.mode & 0o170000
    seen.kinds[path] = kind
    seen.inodes.setdefault(header.ino, set()).add(_group_of(entry))
    linked = kind == Kind.FILE and header.nlink > 1
    if linked:
        seen.groups.setdefault((header.ino, header.dev), []).append(entry)
    if kind == Kind.SYMLINK and (entry.target.startswith(b"/") or b".." in entry.target.split(b"/")):
        seen.late.add(path)
    if linked and not header.size:
        seen.late.add(path)


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
