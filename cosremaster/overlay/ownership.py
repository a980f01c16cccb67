"""Owners and modes as users write them, and how they change nodes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from cosremaster.errors import UsageError
from cosremaster.lazy_regex import lazy_regex
from cosremaster.overlay.patterns import Pattern
from cosremaster.overlay.request import OwnershipRule
from cosremaster.records import Struct, replace
from cosremaster.tree.limits import MAX_NUMBER
from cosremaster.tree.nodes import Node, NodeKind

_CLAUSE = lazy_regex(r"([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)")
_STEP = lazy_regex(r"([-+=])([ugo]|[rwxXst]*)")
_SHIFT = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}


class Owner(Struct, frozen=True):
    """Numeric user and group."""

    uid: int
    gid: int


ROOT = Owner(0, 0)


def parse_owner(text: str) -> Owner | None:
    """Read an owner: ``root``, ``UID:GID``, or ``source`` (returned as None); letter case does not matter.

    :raises UsageError: ``text`` is something else.
    """
    if text.lower() == "source":
        return None
    if text.lower() == "root":
        return ROOT
    uid, colon, gid = text.partition(":")
    numbers = [int(part) for part in (uid, gid) if part.isascii() and part.isdigit() and len(part) <= 10]
    if not colon or len(numbers) != 2 or max(numbers) > MAX_NUMBER:
        raise UsageError(f"owner {text!r}: root, source or two numbers as in 1000:1000 are wanted")
    return Owner(*numbers)


class Mode:
    """A mode as for chmod(1): octal, or clauses like ``u+x,go-w`` (without u, g or o: all, whatever the umask)."""

    def __init__(self, mode: str | int) -> None:
        """Parse ``mode``. :raises UsageError: it is no mode."""
        self._absolute: int | None = None
        self._steps: list[tuple[str, str, str]] = []
        if isinstance(mode, int):
            self._absolute = mode
        elif re.fullmatch(r"[0-7]{1,5}", mode):
            self._absolute = int(mode, 8)
        else:
            for clause in mode.split(","):
                match = _CLAUSE.fullmatch(clause)
                if not match:
                    raise UsageError(f"mode {mode!r}: octal digits or clauses like u+x,go-w are wanted")
                self._steps += [(match[1] or "a", *step) for step in _STEP.findall(match[2])]
        if self._absolute is not None and not 0 <= self._absolute <= 0o7777:
            raise UsageError(f"mode {mode if isinstance(mode, str) else oct(mode)}: it must lie in 0 to 07777")

    def apply(self, mode: int, *, directory: bool) -> int:
        """Return the twelve permission bits ``mode`` after this change. ``directory``: they are of a directory."""
        if self._absolute is not None:
            return self._absolute
        for classes, sign, permissions in self._steps:
            mode = _apply_step(mode, "ugo" if "a" in classes else classes, sign, permissions, directory=directory)
        return mode


def _apply_step(mode: int, classes: str, sign: str, permissions: str, *, directory: bool) -> int:
    """Return ``mode`` after one step of chmod(1), such as ``+x`` for the ``classes`` ``ug``.

    ``permissions``: letters of ``rwxXst``, or the class to copy from.
    """
    bits = 0
    sets_execute = "X" in permissions and (directory or mode & 0o111)
    for user_class in classes:
        shift = _SHIFT[user_class]
        if permissions in _SHIFT:
            bits |= (mode >> _SHIFT[permissions] & 7) << shift
            continue
        bits |= sum(_BITS[letter] for letter in set(permissions) if letter in _BITS) << shift
        bits |= (1 if sets_execute else 0) << shift
        if "s" in permissions:
            bits |= {"u": 0o4000, "g": 0o2000, "o": 0}[user_class]
    if "t" in permissions and "o" in classes:
        bits |= 0o1000
    if sign == "+":
        return mode | bits
    if sign == "-":
        return mode & ~bits
    cleared = sum({"u": 0o4700, "g": 0o2070, "o": 0o1007}[user_class] for user_class in set(classes))
    return mode & ~cleared | bits


class _ParsedRule(Struct, frozen=True):
    """An :class:`OwnershipRule` with its texts read. ``sets_owner`` without ``owner``: the owner of the source."""

    pattern: Pattern
    sets_owner: bool
    owner: Owner | None
    mode: Mode | None
    directory_mode: Mode | None


class OwnershipPolicy:
    """The owners and modes that one :class:`AddPath` gives to its nodes."""

    def __init__(self, owner: str, mode: str | int | None, rules: Sequence[OwnershipRule], *, setuid: bool) -> None:
        """Read the fields of an :class:`AddPath`. :raises UsageError: an owner, mode or pattern makes no sense."""
        self._owner = parse_owner(owner)
        self._mode = None if mode is None else Mode(mode)
        self._setuid = setuid
        self._used: set[int] = set()
        self._rules = [
            _ParsedRule(
                Pattern(os.fsencode(rule.pattern)),
                rule.owner is not None,
                None if rule.owner is None else parse_owner(rule.owner),
                None if rule.mode is None else Mode(rule.mode),
                None if rule.directory_mode is None else Mode(rule.directory_mode),
            )
            for rule in rules
        ]

    @property
    def keeps_owners(self) -> bool:
        """Whether nodes keep the owners that they have in the source."""
        return self._owner is None

    def apply_defaults(self, node: Node) -> Node:
        """Return ``node`` of the source with the owner and mode for the whole addition."""
        owner, mode = self._owner or Owner(node.uid, node.gid), node.mode
        if not self._setuid:
            mode &= 0o1777 if node.kind is NodeKind.DIRECTORY else 0o777
        if self._mode and node.kind is NodeKind.FILE:
            mode = self._mode.apply(mode, directory=False)
        if (mode, owner.uid, owner.gid) == (node.mode, node.uid, node.gid):
            return node
        return replace(node, mode=mode, uid=owner.uid, gid=owner.gid)

    def apply_rules(self, node: Node, paths: Sequence[bytes], source_owner: Owner) -> Node:
        """Return ``node`` after the rules. ``paths``: the paths that the layer may give it."""
        for number, rule in enumerate(self._rules):
            if not any(rule.pattern.matches(path) for path in paths):
                continue
            self._used.add(number)
            if rule.sets_owner:
                owner = rule.owner or source_owner
                node = replace(node, uid=owner.uid, gid=owner.gid)
            directory = node.kind is NodeKind.DIRECTORY
            change = rule.directory_mode if directory else rule.mode
            if change and node.kind is not NodeKind.SYMLINK:
                node = replace(node, mode=change.apply(node.mode, directory=directory))
        return node

    def unused_patterns(self) -> list[bytes]:
        """Return the patterns of the rules that matched no path so far."""
        return [rule.pattern.text for number, rule in enumerate(self._rules) if number not in self._used]
