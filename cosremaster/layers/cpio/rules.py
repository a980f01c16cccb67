"""The rules of the programs that unpack a layer, checked over its final entry list.

The programs are busybox ``cpio -i`` into an empty tmpfs and the kernel's initramfs unpacker; docs/formats.md says what
they do with an entry that breaks a rule. Pure: entries in, broken rules out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from functools import cache
from itertools import islice
from typing import TypeVar

from cosremaster.layers.cpio import newc as cpio
from cosremaster.records import Struct, field
from cosremaster.records.tuples import NamedTuple
from cosremaster.tree.nodes import NodeKind
from cosremaster.tree.paths import SymlinkLoopError, normal_name, normal_names, resolve_in_root

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class FinalEntry(NamedTuple):
    """An entry of the finished archive. ``target``: a symlink's text. ``is_new``: the edit adds it.

    ``fields``: the 13 numbers of its header. A tuple, as one is made for every entry of a layer.
    """

    name: bytes
    fields: tuple[int, ...]
    target: bytes = b""
    is_new: bool = False


class BrokenRule(Struct, frozen=True):
    """A rule that the entry ``name`` breaks, in words."""

    name: bytes
    rule: str


MAX_PART = 255
"""Bytes of a name between slashes that Linux file systems take (NAME_MAX)."""

MAX_TARGET = 4095
"""Bytes of a symlink's text: PATH_MAX without the NUL."""

_TYPE = 0o170000
_FILE, _SYMLINK, _DIRECTORY = int(NodeKind.FILE), int(NodeKind.SYMLINK), int(NodeKind.DIRECTORY)
"""As numbers: three comparisons with members of an enumeration are slow for each of 100,000 entries."""
_NOTHING = (0, b"")
_AT_ONCE = 4096  # entries
_SMALL = 1 << 25  # the first inode number that is no small one

DOUBLE_NAME = "an entry of this name stands before it"
_NO_PARENT = "no entry before it makes its parent directory"


class InodeNumbers:
    """Inode numbers: small ones as bits, as there may be a million, and large ones in a set."""

    def __init__(self, bits: bytearray | None = None, large: set[int] | None = None, highest: int = 0) -> None:
        """Begin with no numbers, or with what :meth:`copy` gives."""
        self._bits, self._large = bits or bytearray(), large or set()
        self.highest = highest
        """The highest number, 0 without any."""

    def copy(self) -> InodeNumbers:
        """Return a copy."""
        return InodeNumbers(bytearray(self._bits), set(self._large), self.highest)

    def add(self, numbers: Sequence[int]) -> list[bool]:
        """Add ``numbers``, and return for each whether it is new."""
        bits, large, are_new = self._bits, self._large, list[bool]()
        self.highest = max(self.highest, max(numbers, default=0))
        for number in numbers:
            if number >= _SMALL:
                are_new.append(number not in large)
                large.add(number)
                continue
            at, bit = number >> 3, 1 << (number & 7)
            if at >= len(bits):
                bits += bytes(min(max(at + 1, 2 * len(bits)), _SMALL >> 3) - len(bits))
            are_new.append(not bits[at] & bit)
            bits[at] |= bit
        return are_new

    def __contains__(self, number: int) -> bool:
        """Return whether ``number`` was added."""
        if number >= _SMALL:
            return number in self._large
        at = number >> 3
        return at < len(self._bits) and bool(self._bits[at] >> (number & 7) & 1)


class ChangedTable(MutableMapping[_Key, _Value]):
    """A table after changes; of the table before, which may have a million rows, nothing is copied.

    ``before``: that table; ``gone``: keys of it that are no longer there.
    """

    __slots__ = ("_before", "_changes", "_gone")

    def __init__(self, before: Mapping[_Key, _Value], gone: Iterable[_Key] = ()) -> None:
        """Begin with the rows of ``before`` whose keys are not ``gone``."""
        self._before, self._changes = before, dict[_Key, _Value]()
        self._gone = {key for key in gone if key in before}

    def __getitem__(self, key: _Key) -> _Value:
        """Return the value at ``key``. :raises KeyError: there is none."""
        if key in self._changes:
            return self._changes[key]
        if key in self._gone:
            raise KeyError(key)
        return self._before[key]

    def __contains__(self, key: object) -> bool:
        """Return whether there is a value at ``key``."""
        return key in self._changes or (key in self._before and key not in self._gone)

    def __setitem__(self, key: _Key, value: _Value) -> None:
        """Put ``value`` at ``key``."""
        self._changes[key] = value

    def __delitem__(self, key: _Key) -> None:
        """Remove ``key``. :raises KeyError: there is no value at it."""
        if key not in self:
            raise KeyError(key)
        self._changes.pop(key, None)
        if key in self._before:
            self._gone.add(key)

    def __iter__(self) -> Iterator[_Key]:
        """Yield every key."""
        yield from (key for key in self._before if key not in self._gone and key not in self._changes)
        yield from self._changes

    def __len__(self) -> int:
        """Return how many keys there are."""
        return (
            len(self._before)
            - len(self._gone)
            + sum(key in self._gone or key not in self._before for key in self._changes)
        )


class _RuleError(Exception):
    """A path breaks the rule in the message."""


class UnpackedTree(Struct):
    """The tree that the entries so far unpack to.

    ``made``: type and symlink text by real path. ``earlier``: the same for archives before this one in the file.
    ``late_links``: paths that are made only when the archive has ended. ``inodes``: their numbers; ``owners``: by
    number, the link group that had it first; ``shared``: by number, further groups or names. ``groups``: name and size
    of hard-linked entries, by inode number and device. ``last_directory``: the directory of the last entry, if no link
    leads to it; entries of one stand together.
    """

    made: MutableMapping[bytes, tuple[int, bytes]] = field(default_factory=dict)
    earlier: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)
    late_links: set[bytes] = field(default_factory=set)
    inodes: InodeNumbers = field(default_factory=InodeNumbers)
    owners: MutableMapping[int, object] = field(default_factory=dict)
    shared: dict[int, set[object]] = field(default_factory=dict)
    groups: dict[tuple[int, tuple[int, int]], list[tuple[bytes, int]]] = field(default_factory=dict)
    last_directory: bytes | None = None

    def copy(self, dropped: Collection[bytes] = ()) -> UnpackedTree:
        """Return a copy without the files ``dropped``, real paths, that can be changed.

        Of the large tables it keeps the changes alone.
        """
        shared = {ino: set(owners) for ino, owners in self.shared.items()}
        groups = {key: list(entries) for key, entries in self.groups.items()}
        made, owners = ChangedTable(self.made, dropped), ChangedTable(self.owners)
        return UnpackedTree(made, self.earlier, set(self.late_links), self.inodes.copy(), owners, shared, groups)

    def shares_inode(self, ino: int, group: object) -> bool:
        """Note that an entry of ``group`` has ``ino``, which is no new number; return whether another group had it.

        True once for each further group.
        """
        if self.owners.get(ino) == group or group in (sharing := self.shared.setdefault(ino, set())):
            return False
        sharing.add(group)
        return True

    def resolve_directory(self, path: bytes) -> tuple[bytes, str]:
        """Return the real path of the directory ``path`` and an empty rule, or an empty path and the broken rule."""
        if self.made.get(path, _NOTHING)[0] == _DIRECTORY:
            self.last_directory = path  # a directory never changes its type
            return path, ""
        if b".." in path.split(b"/"):
            return b"", _NO_PARENT
        try:
            return resolve_in_root(path, self._link_target, enter=self._enter), ""
        except (_RuleError, SymlinkLoopError) as broken:
            return b"", str(broken) or _NO_PARENT

    def _link_target(self, path: bytes) -> bytes | None:
        """Return the text of the symlink ``path``, None for no symlink. :raises _RuleError: it is made too late."""
        if path in self.late_links:
            raise _RuleError("its path leads through a link that is made only at the end")
        kind, target = self._entry(path)
        return target if kind == _SYMLINK else None

    def _enter(self, path: bytes, _link: bytes) -> None:
        """Check that ``path`` is a directory. :raises _RuleError: it is not."""
        if self._entry(path)[0] != _DIRECTORY:
            raise _RuleError(_NO_PARENT)

    def _entry(self, path: bytes) -> tuple[int, bytes]:
        """Return type and symlink text at the real path ``path``; type 0 where nothing is."""
        return self.made.get(path) or self.earlier.get(path, _NOTHING)


class CheckedEntries:
    """The entries of an archive, and every rule that they break."""

    def __init__(
        self, entries: Iterable[FinalEntry], preceding: CheckedEntries | None = None,
        earlier: Iterable[FinalEntry] = (), dropped: Collection[bytes] = (),
    ) -> None:  # fmt: skip
        """Check ``entries``, without the trailer.

        :param preceding: checked entries that stand before them in the archive.
        :param dropped: the paths of files among those, which are not there any more; no symlink leads to them.
        :param earlier: entries of the archives before this one in the file, whose directories exist already.
        """
        self._tree: UnpackedTree = UnpackedTree() if preceding is None else preceding._tree.copy(dropped)
        for entry in earlier:
            self._tree.earlier[normal_name(entry.name)] = (entry.fields[1] & _TYPE, entry.target)
        self._single: list[BrokenRule] = [] if preceding is None else list(preceding._single)
        rest = iter(entries)
        while group := list(islice(rest, _AT_ONCE)):
            paths = normal_names([entry.name for entry in group])
            are_new = self._tree.inodes.add([entry.fields[0] for entry in group])
            for entry, path, has_new_inode in zip(group, paths, are_new, strict=True):
                for rule in _check_entry(entry, path, self._tree, has_new_inode=has_new_inode):
                    self._single.append(BrokenRule(entry.name, rule))

    @classmethod
    def from_tree(cls, tree: UnpackedTree) -> CheckedEntries:
        """Return entries that unpack to ``tree`` and break no rule by themselves."""
        checked = cls(())
        checked._tree = tree
        return checked

    @property
    def inodes(self) -> InodeNumbers:
        """Every inode number of an entry."""
        return self._tree.inodes

    def makes_directory(self, path: bytes) -> bool:
        """Return whether an entry makes a directory at ``path``, to which no symlink leads."""
        return self._tree.made.get(path, _NOTHING)[0] == _DIRECTORY

    @property
    def broken_rules(self) -> tuple[BrokenRule, ...]:
        """All broken rules."""
        groups = self._tree.groups
        counts = Counter(ino for ino, _ in groups)
        shared = [
            BrokenRule(group[0][0], rule)
            for (ino, _), group in groups.items()
            for rule in _check_group([size for _, size in group], counts[ino])
        ]
        return (*self._single, *shared)


def _check_entry(entry: FinalEntry, path: bytes, tree: UnpackedTree, *, has_new_inode: bool) -> Sequence[str]:
    """Return the rules that ``entry`` breaks, and add it to ``tree``.

    :param path: its normal name. :param has_new_inode: no entry before it has its inode number.
    """
    ino, mode, _, _, nlink, _, size, major, minor, *_ = entry.fields
    broken: list[str] = []
    kind = mode & _TYPE
    is_linked = kind == _FILE and nlink > 1
    key = ino, (major, minor)
    group: object = key if is_linked else entry.name  # equal for entries that are to share an inode
    parent, _, name = path.rpartition(b"/")
    if path == cpio.TRAILER:
        broken.append("the name ends the archive for every unpacker")
    if len(entry.name) + 1 > cpio.MAX_NAME:
        broken.append(f"the name is longer than {cpio.MAX_NAME - 1} bytes")
    if len(name) > MAX_PART:
        broken.append(f"a part of its name is longer than {MAX_PART} bytes")
    if kind == _SYMLINK and not 0 < len(entry.target) <= MAX_TARGET:
        broken.append("no symlink can have its text")
    directory, rule = (parent, "") if parent == tree.last_directory else tree.resolve_directory(parent)
    if rule:
        broken.append(rule)
    # Most real paths are the paths themselves: one object for both, as there may be a million.
    real = path if directory == parent else directory + b"/" + name if directory else name
    if not rule and (real in tree.made or real in tree.late_links):
        broken.append(DOUBLE_NAME)
    if not has_new_inode and tree.shares_inode(ino, group) and entry.is_new:
        broken.append("another entry has its inode number")
    if is_linked:
        tree.groups.setdefault(key, []).append((entry.name, size))
        if has_new_inode:
            tree.owners[ino] = group
    if rule:
        real = path
    if (kind == _SYMLINK and is_late_target(entry.target)) or (is_linked and not size):
        tree.late_links.add(real)
    else:
        tree.made.setdefault(real, (kind, entry.target) if entry.target else without_target(kind))
    return broken


def is_late_target(target: bytes) -> bool:
    """Return whether busybox makes a symlink with the text ``target`` only when the archive has ended."""
    return target.startswith(b"/") or b".." in target


@cache
def without_target(kind: int) -> tuple[int, bytes]:
    """Return the type ``kind`` without a symlink's text: one object for all entries."""
    return kind, b""


def _check_group(sizes: Sequence[int], count: int) -> Iterable[str]:
    """Yield the rules that a group of hard links breaks: one size of data, and no other group under its inode number.

    busybox compares inode numbers alone, not devices.

    :param sizes: bytes of data of each. :param count: how many groups have the inode number.
    """
    if len({size for size in sizes if size}) > 1:
        yield "names of one hard-linked file carry data of different sizes"
    if count > 1:
        yield "two hard-linked files on different devices have one inode number"
