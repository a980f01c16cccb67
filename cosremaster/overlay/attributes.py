"""Extended attributes of the user's files: which are taken over, and what is said about those that are not.

Specifications: xattr(7), acl(5), capabilities(7).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from cosremaster.errors import Place, UsageError, printable
from cosremaster.overlay.addition import Addition, AttributedPath, PreparedItem
from cosremaster.records import Struct, field, replace
from cosremaster.tree.limits import Limits
from cosremaster.tree.nodes import Node, Xattrs
from cosremaster.tree.xattrs import ACLS, CAPABILITY, capability_of_root

SHOWN = 3
"""Paths that a warning about many of them names."""

_CAPABILITIES, _LISTS, _OTHERS = "file capabilities", "ACLs", "extended attributes"
_DEFAULT = "default"
_KEYWORDS = {
    "none": (),
    _DEFAULT: ("security.capability", "user.*"),
    "all": ("user.*", "trusted.*", "security.*", "system.posix_acl_access", "system.posix_acl_default"),
}


class XattrChoice(Struct, frozen=True):
    """Which extended attributes are taken over: those that fit one of ``wanted`` and none of ``unwanted``.

    ``is_default``: nobody said so.
    """

    wanted: tuple[str, ...]
    unwanted: tuple[str, ...] = ()
    is_default: bool = False

    def takes(self, name: str) -> bool:
        """Return whether the attribute ``name`` is taken over."""
        return any(fnmatchcase(name, pattern) for pattern in self.wanted) and not any(
            fnmatchcase(name, pattern) for pattern in self.unwanted
        )


def parse_choice(text: str) -> XattrChoice:
    """Read ``none``, ``default``, ``all`` or names and patterns, with commas between them; ``-`` before one leaves out.

    :raises UsageError: ``text`` is something else.
    """
    wanted: list[str] = []
    unwanted: list[str] = []
    for word in text.split(","):
        pattern = word.strip()
        names = wanted
        if pattern.startswith("-"):
            names, pattern = unwanted, pattern[1:]
        if pattern.lower() in _KEYWORDS:
            names += _KEYWORDS[pattern.lower()]
        elif "." in pattern or "*" in pattern:
            names.append(pattern)
        else:
            raise UsageError(
                f"xattrs {text!r}: none, default, all or names as in user.*,security.capability are wanted"
            )
    if unwanted and not wanted:
        wanted += _KEYWORDS[_DEFAULT]
    return XattrChoice(tuple(wanted), tuple(unwanted), text.strip().lower() == _DEFAULT)


DEFAULT_CHOICE = parse_choice(_DEFAULT)


class Attributes(Struct, frozen=True):
    """The extended attributes of a file: ``taken`` over, and the names of those ``skipped`` that somebody gave it.

    ``is_unreadable``: others are to be taken over too, but cannot be read.
    """

    taken: Xattrs = ()
    skipped: tuple[bytes, ...] = ()
    is_unreadable: bool = False


_NO_ATTRIBUTES = Attributes()


def _is_given(name: str) -> bool:
    """Return whether a person or a package gave the attribute ``name``.

    All others in the classes ``security`` and ``system`` are this machine's own (labels of SELinux, sums of IMA).
    """
    return name.startswith(("user.", "trusted.")) or os.fsencode(name) in (CAPABILITY, *ACLS)


def skipped_names(names: Iterable[str], choice: XattrChoice) -> tuple[bytes, ...]:
    """Return those of ``names`` that ``choice`` does not take and that a warning tells of: none where a user chose."""
    if not choice.is_default:
        return ()
    return tuple(sorted(os.fsencode(name) for name in names if _is_given(name) and not choice.takes(name)))


def read_attributes(host_path: bytes, directory: int | None, name: bytes, choice: XattrChoice) -> Attributes:
    """Return the attributes of the file ``host_path``, which has the name ``name`` in the open ``directory``.

    Without a directory symlinks are followed.
    """
    if not hasattr(os, "listxattr") or not choice.wanted:
        return _NO_ATTRIBUTES
    follows = directory is None
    try:
        names = os.listxattr(host_path, follow_symlinks=follows)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG or directory is None:
            return _NO_ATTRIBUTES  # the file system has none
        host_path, follows = b"/proc/self/fd/%d/%s" % (directory, name), False
        try:
            names = os.listxattr(host_path, follow_symlinks=follows)
        except OSError:
            return _NO_ATTRIBUTES
    if not names:
        return _NO_ATTRIBUTES
    taken: list[tuple[bytes, bytes]] = []
    is_unreadable = False
    for attribute in sorted(names, key=os.fsencode):
        if choice.takes(attribute):
            try:
                value = os.getxattr(host_path, attribute, follow_symlinks=follows)
                taken.append((os.fsencode(attribute), value))
            except OSError:  # as EOVERFLOW: a capability of another user namespace
                is_unreadable = True
    return Attributes(tuple(taken), skipped_names(names, choice), is_unreadable)


def with_capabilities_of_root(node: Node) -> Node:
    """Return ``node`` with file capabilities that count wherever its image runs, not in this user's namespace alone."""
    if not any(name == CAPABILITY for name, _ in node.xattrs):
        return node
    xattrs = ((name, capability_of_root(value) if name == CAPABILITY else value) for name, value in node.xattrs)
    return replace(node, xattrs=tuple(xattrs))


class FittedItems(Struct):
    """Items whose additions lose the extended attributes that a container with ``limits`` cannot hold.

    What is lost, and what is skipped though it could be held, is noted by source while additions are made. ``single``:
    sources that are a single file.
    """

    limits: Limits
    lost: dict[str, list[AttributedPath]] = field(default_factory=dict)
    skipped: dict[str, list[AttributedPath]] = field(default_factory=dict)
    single: set[str] = field(default_factory=set)

    def fit(self, items: Sequence[PreparedItem]) -> tuple[PreparedItem, ...]:
        """Return ``items`` with such additions; those that are additions already are looked at now."""
        return tuple(
            self.fit_addition(item) if isinstance(item, Addition) else _FittedItem(item, self) for item in items
        )

    def fit_addition(self, addition: Addition) -> Addition:
        """Return ``addition`` without what cannot be held."""
        if addition.is_single_file:
            self.single.add(addition.source)
        for entry in addition.skipped_xattrs:
            unheld = self._note_unheld(addition.source, entry.path, entry.names)
            held = tuple(name for name in entry.names if name not in unheld)
            if held:
                self.skipped.setdefault(addition.source, []).append(AttributedPath(entry.path, held))
        if not any(node.xattrs for node in addition.nodes):
            return addition
        return replace(addition, nodes=tuple(self._fit_node(node, addition.source) for node in addition.nodes))

    def _fit_node(self, node: Node, source: str) -> Node:
        """Return ``node`` without what cannot be held."""
        unheld = self._note_unheld(source, node.path, [name for name, _ in node.xattrs])
        return replace(node, xattrs=tuple(pair for pair in node.xattrs if pair[0] not in unheld)) if unheld else node

    def _note_unheld(self, source: str, path: bytes, names: Iterable[bytes]) -> tuple[bytes, ...]:
        """Return those of ``names``, attributes of ``path``, that cannot be held, and note them as lost."""
        unheld = tuple(name for name in names if not self.limits.holds_xattr(name))
        if unheld:
            self.lost.setdefault(source, []).append(AttributedPath(path, unheld))
        return unheld

    def warnings(self) -> Iterator[str]:
        """Yield the warnings about all of that: one for each kind of attributes and source."""
        for source, entries in self.lost.items():
            place = Place().inside(source)
            for noun, paths in _group_by_noun(entries):
                reason = f"are not taken over: {self.limits.container} holds none"
                if noun == _CAPABILITIES and len(paths) == 1:
                    yield f"{place if source in self.single else place.inside(paths[0])}: its {noun} {reason}"
                else:
                    yield f"{place}: {noun} {reason}: {name_some(paths)}"
        for source, entries in self.skipped.items():
            for noun, paths in _group_by_noun(entries):
                reason = "are not taken over unless --xattrs names them"
                yield f"{Place().inside(source)}: {noun} {reason}: {name_some(paths)}"


def _group_by_noun(attributed: Iterable[AttributedPath]) -> Iterator[tuple[str, list[bytes]]]:
    """Yield each kind of attributes, in words, with the paths that have some."""
    groups: dict[str, dict[bytes, None]] = {_CAPABILITIES: {}, _LISTS: {}, _OTHERS: {}}
    for entry in attributed:
        for name in entry.names:
            noun = _CAPABILITIES if name == CAPABILITY else _LISTS if name in ACLS else _OTHERS
            groups[noun][entry.path] = None
    for noun, paths in groups.items():
        if paths:
            yield noun, sorted(paths)


class _FittedItem(Struct, frozen=True):
    """The item ``item``, with additions that ``fitted`` makes fit."""

    item: PreparedItem
    fitted: FittedItems

    def additions(self, tree: Mapping[bytes, Node]) -> Sequence[Addition]:
        """Return the additions of the item that fit."""
        return [self.fitted.fit_addition(addition) for addition in self.item.additions(tree)]


def name_some(paths: Sequence[bytes]) -> str:
    """Return the first of ``paths`` as text, and how many more there are."""
    shown = ", ".join(printable(path) for path in paths[:SHOWN])
    return f"{shown} and {len(paths) - SHOWN:,} more" if len(paths) > SHOWN else shown
