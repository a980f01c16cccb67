"""Owners and modes as the user writes them, and what they make of a node."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from cosremaster.errors import UsageError
from cosremaster.overlay.patterns import Pattern
from cosremaster.overlay.request import OwnershipRule
from cosremaster.tree.limits import MAX_NUMBER
from cosremaster.tree.nodes import Node, NodeKind

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)")
_STEP = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_SHIFT = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}


class Owner(Struct, frozen=True):
    """Numeric user and group."""

    uid: int
    gid: int


ROOT = Owner(0, 0)


def parse_owner(text: str) -> Owner | None:
    """``root``, ``UID:GID``, or ``source``, which is None, in any case. :raises UsageError: something else."""
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
    """A mode as for chmod(1): octal, or clauses like ``u+x,go-w`` (who is left out means all, whatever the umask)."""

    def __init__(self, given: str | int) -> None:
        """:raises UsageError: not a mode."""
        self._absolute: int | None = None
        self._steps: list[tuple[str, str, str]] = []
        if isinstance(given, int):
            self._absolute = given
        elif re.fullmatch(r"[0-7]{1,5}", given):
            self._absolute = int(given, 8)
        else:
            for clause in given.split(","):
                match = _CLAUSE.fullmatch(clause)
                if not match:
                    raise UsageError(f"mode {given!r}: octal digits or clauses like u+x,go-w are wanted")
                self._steps += [(match[1] or "a", *step) for step in _STEP.findall(match[2])]
        if self._absolute is not None and not 0 <= self._absolute <= 0o7777:
            raise UsageError(f"mode {given if isinstance(given, str) else oct(given)}: it must lie in 0 to 07777")

    def apply(self, mode: int, *, directory: bool) -> int:
        """What this makes of the twelve permission bits ``mode``."""
        if self._absolute is not None:
            return self._absolute
        for who, sign, what in self._steps:
            mode = _stepped(mode, "ugo" if "a" in who else who, sign, what, directory=directory)
        return mode


def _stepped(mode: int, who: str, sign: str, what: str, *, directory: bool) -> int:
    bits = 0
    runs = "X" in what and (directory or mode & 0o111)
    for one in who:
        if what in _SHIFT:
            bits |= (mode >> _SHIFT[what] & 7) << _SHIFT[one]
            continue
        bits |= sum(_BITS[letter] for letter in set(what) if letter in _BITS) << _SHIFT[one]
        bits |= (1 if runs else 0) << _SHIFT[one]
        if "s" in what:
            bits |= {"u": 0o4000, "g": 0o2000, "o": 0}[one]
    if "t" in what and "o" in who:
        bits |= 0o1000
    if sign == "+":
        return mode | bits
    if sign == "-":
        return mode & ~bits
    cleared = sum({"u": 0o4700, "g": 0o2070, "o": 0o1007}[one] for one in set(who))
    return mode & ~cleared | bits


class _Rule(Struct, frozen=True):
    pattern: Pattern
    speaks_of_owner: bool
    owner: Owner | None
    mode: Mode | None
    directory_mode: Mode | None


class OwnershipPolicy:
    """What an addition makes of the owners and modes of its nodes.

    :raises UsageError: an owner, mode or pattern makes no sense.
    """

    def __init__(self, owner: str, mode: str | int | None, rules: Sequence[OwnershipRule], *, setuid: bool) -> None:
        self._owner = parse_owner(owner)
        self._mode = None if mode is None else Mode(mode)
        self._setuid = setuid
        self._used: set[int] = set()
        self._rules = [
            _Rule(
                Pattern(os.fsencode(rule.pattern)),
                rule.owner is not None,
                None if rule.owner is None else parse_owner(rule.owner),
                None if rule.mode is None else Mode(rule.mode),
                None if rule.directory_mode is None else Mode(rule.directory_mode),
            )
            for rule in rules
        ]

    def drops_special_bits(self, node: Node) -> bool:
        """True when set-user-ID or set-group-ID bits of the source are not taken over."""
        return not self._setuid and bool(node.mode & 0o6000)

    def apply_defaults(self, node: Node) -> Node:
        """``node`` of the source under what was asked for the whole addition."""
        owner, mode = self._owner or Owner(node.uid, node.gid), node.mode
        if not self._setuid:
            mode &= 0o1777 if node.kind is NodeKind.DIRECTORY else 0o777
        if self._mode and node.kind is NodeKind.FILE:
            mode = self._mode.apply(mode, directory=False)
        if (mode, owner.uid, owner.gid) == (node.mode, node.uid, node.gid):
            return node
        return replace(node, mode=mode, uid=owner.uid, gid=owner.gid)

    def apply_rules(self, node: Node, paths: Sequence[bytes], found: Owner) -> Node:
        """``node`` under the rules. ``paths``: what the layer may call it; ``found``: its owner in the source."""
        for number, rule in enumerate(self._rules):
            if not any(rule.pattern.matches(path) for path in paths):
                continue
            self._used.add(number)
            if rule.speaks_of_owner:
                owner = rule.owner or found
                node = replace(node, uid=owner.uid, gid=owner.gid)
            directory = node.kind is NodeKind.DIRECTORY
            change = rule.directory_mode if directory else rule.mode
            if change and node.kind is not NodeKind.SYMLINK:
                node = replace(node, mode=change.apply(node.mode, directory=directory))
        return node

    def unused_patterns(self) -> list[bytes]:
        """The patterns of rules that matched nothing so far."""
        return [rule.pattern.text for number, rule in enumerate(self._rules) if number not in self._used]
