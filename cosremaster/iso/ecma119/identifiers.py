"""Identifiers for new names, made the way a volume's existing ones are (ECMA-119, 7.5 and 7.6; Joliet, "Allowed
Character Set"). Pure: names and identifiers in, an identifier out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol

from msgspec import Struct

from cosremaster.errors import Place, UnsupportedError
from cosremaster.iso.read_trees import decode_identifier

_VERSION = b";1"
_STRICT = re.compile(rb"[^A-Z0-9_]")
_LOWER = re.compile(rb"[^A-Za-z0-9_]")
_RELAXED = re.compile(rb"[^!-.0-:<-~]")  # printable, but for space, slash and semicolon
_NOT_JOLIET = re.compile("[\x00-\x1f*/:;?\\\\]")
_MARKS = 10**6
_LEAST_BASE = 8
"""Bytes of a long name that its extension leaves, enough for every mark."""
JOLIET_LENGTH, JOLIET_LONG = 64, 103
"""UCS-2 characters of a Joliet identifier: what its specification allows, and what fits a record without a version."""


class IdentifierScheme(Protocol):
    """How a file system writes names."""

    def make_identifier(self, name: bytes, directory: bool, mark: str) -> bytes:
        """An identifier for ``name``; ``mark`` takes the place of the last characters before the extension."""
        ...

    def sort_key(self, identifier: bytes) -> tuple[bytes, bytes]:
        """What the identifiers of one directory are sorted by."""
        ...

    def display_name(self, identifier: bytes) -> bytes:
        """The name that it alone tells."""
        ...


class IdentifierRules(Struct, frozen=True, kw_only=True):
    """How a tree's identifiers look.

    ``version``: what ends a file's identifier; ``dot``: one without an extension ends in a dot; ``dots``: there may be
    several, and one in a directory's; ``base`` and ``extension``: bytes at most, ``whole``: of both with the dot;
    ``other``: the characters that are not allowed. A Joliet tree's lengths count characters.
    """

    is_joliet: bool = False
    version: bytes = _VERSION
    needs_dot: bool = True
    allows_dots: bool = False
    max_base: int = 8
    max_extension: int = 3
    max_length: int = 12
    forbidden: re.Pattern[bytes] = _STRICT

    def make_identifier(self, name: bytes, directory: bool, mark: str) -> bytes:
        """An identifier for ``name``; ``mark`` takes the place of the last characters before the extension."""
        return (self._joliet if self.is_joliet else self._plain)(name, directory, mark)

    def _plain(self, name: bytes, directory: bool, mark: str) -> bytes:
        raw = name if self.forbidden is not _STRICT else name.upper()
        base, dot, extension = (raw, b"", b"") if directory and not self.allows_dots else raw.rpartition(b".")
        if not dot or not base:  # a name that begins with its only dot has no extension
            base, extension = raw, b""
        base, extension = self._allowed(base), self.forbidden.sub(b"_", extension)[: self.max_extension]
        dotted = bool(extension or (self.needs_dot and not directory))
        room = min(self.max_base, self.max_length - len(extension) - dotted)
        base = base[: room - len(mark)] + mark.encode()
        if not base.strip(b"."):  # readers leave out the dots at a name's end
            base = base.replace(b".", b"_") or b"_"
        if directory:
            return base + b"." + extension if extension else base
        return base + (b"." if dotted else b"") + extension + self.version

    def _allowed(self, base: bytes) -> bytes:
        if self.allows_dots:
            return b".".join(self.forbidden.sub(b"_", part) for part in base.split(b"."))
        return self.forbidden.sub(b"_", base.replace(b".", b"_"))

    def _joliet(self, name: bytes, directory: bool, mark: str) -> bytes:
        text = _NOT_JOLIET.sub("_", name.decode("utf-8", "replace"))
        stem, dot, ending = text.rpartition(".")
        if directory or not stem or _units(ending) > self.max_length // 2:
            stem, dot, ending = text, "", ""
        room = self.max_length - _units(dot + ending) - len(mark)
        raw = (_cut(stem, room) + mark + dot + ending).encode("utf-16-be", "surrogatepass")
        return raw if directory else raw + self.version

    def display_name(self, identifier: bytes) -> bytes:
        """The name that it alone tells."""
        return decode_identifier(identifier, joliet=self.is_joliet)

    def sort_key(self, identifier: bytes) -> tuple[bytes, bytes]:
        """What identifiers of one directory are sorted by (9.3): name and extension, padded."""
        if self.is_joliet:
            return identifier.decode("utf-16-be", "replace").partition(";")[0].encode("utf-16-be"), b""
        base, _, extension = identifier.partition(b";")[0].partition(b".")
        return base.ljust(255), extension.ljust(255)


class IdentifierAllocator:
    """The identifiers of one directory, whose entries have those of ``taken`` already."""

    def __init__(self, style: IdentifierScheme, taken: Iterable[bytes], place: Place) -> None:
        self._style, self._place = style, place
        self._taken = {style.display_name(one) for one in taken}  # a file and a directory may not look the same either
        self._next: dict[bytes, int] = {}  # by the first marked identifier of all names that take turns

    def allocate(self, name: bytes, *, directory: bool) -> bytes:
        """One for ``name`` that looks like nothing else. :raises UnsupportedError: there is none left."""
        found = self._style.make_identifier(name, directory, "")
        if self._style.display_name(found) in self._taken:
            turn = self._style.display_name(self._style.make_identifier(name, directory, _mark(0)))
            while self._style.display_name(found) in self._taken:
                number = self._next.get(turn, 0)
                self._next[turn] = number + 1
                if number >= _MARKS:
                    raise UnsupportedError("its directory has no identifier left for it", self._place.inside(name))
                found = self._style.make_identifier(name, directory, _mark(number))
        self._taken.add(self._style.display_name(found))
        return found


def _mark(number: int) -> str:
    return f"{number:03d}"


class UdfIdentifierRules(Struct, frozen=True):
    """UDF's compressed Unicode (OSTA UDF 1.02, 2.1.1): Latin-1 where that does, else UCS-2, of at most 255 bytes."""

    def make_identifier(self, name: bytes, directory: bool, mark: str) -> bytes:
        """As in :class:`Naming`."""
        text = name.decode("utf-8", "replace")
        narrow = all(ord(letter) < 256 for letter in text)
        stem, dot, ending = ("", "", "") if directory else text.rpartition(".")
        if not stem or len(ending) > 100:
            stem, dot, ending = text, "", ""
        room = (254 if narrow else 127) - len(dot + ending) - len(mark)
        text = _cut(stem, room) + mark + dot + ending
        return b"\x08" + text.encode("latin-1") if narrow else b"\x10" + text.encode("utf-16-be", "surrogatepass")

    def sort_key(self, identifier: bytes) -> tuple[bytes, bytes]:
        """None: new names follow the old ones."""
        return b"", b""

    def display_name(self, identifier: bytes) -> bytes:
        """As in :class:`Naming`."""
        text = identifier[1:].decode("utf-16-be" if identifier[:1] == b"\x10" else "latin-1", "replace")
        return text.encode("utf-8", "surrogatepass")


def _units(text: str) -> int:
    """The UTF-16 units of ``text``."""
    return len(text) + sum(letter > "\uffff" for letter in text)


def _cut(text: str, room: int) -> str:
    """The first of ``text``: as many UTF-16 units as ``room`` is, no character halved."""
    text = text[:room]
    while _units(text) > room:
        text = text[:-1]
    return text


def infer_rules(files: Iterable[bytes], directories: Iterable[bytes], *, enhanced: bool, room: int) -> IdentifierRules:
    """The style of a tree with these identifiers. ``enhanced``: it is that of an ISO 9660:1999 volume; ``room``: bytes
    that a record has for an identifier with its version.

    What nothing tells is taken to be as the standard's first level has it (10.1): every reader takes that.
    """
    names = list(files)
    folders = list(directories)
    plain = [one.partition(b";")[0] for one in names]
    every = [*plain, *folders]
    parts = [one.rpartition(b".") if b"." in one else (one, b"", b"") for one in plain]
    long = any(len(base) > 8 or len(extension) > 3 for base, _, extension in parts)
    long = long or any(len(one) > 8 for one in folders)
    most = max(map(len, every), default=0)
    whole = 207 if enhanced else 12 if not long else 31 if most <= 31 else max(most, 37)
    whole = min(whole, room - len(_VERSION))
    letters = b"".join(every)
    other = _STRICT
    if enhanced or _LOWER.search(letters.replace(b".", b"")):
        other = _RELAXED
    elif _STRICT.search(letters.replace(b".", b"")):
        other = _LOWER
    return IdentifierRules(
        version=_VERSION if not names or any(one.endswith(_VERSION) for one in names) else b"",
        needs_dot=not any(b"." not in one for one in plain),
        allows_dots=enhanced or any(one.count(b".") > 1 for one in plain) or any(b"." in one for one in folders),
        max_base=8 if whole == 12 else whole,
        max_extension=3 if whole == 12 else whole - _LEAST_BASE - 1,
        max_length=whole,
        forbidden=other,
    )


def infer_joliet_rules(files: Iterable[bytes], directories: Iterable[bytes]) -> IdentifierRules:
    """The style of a Joliet tree with these identifiers."""
    names = list(files)
    version = _VERSION.decode().encode("utf-16-be")
    versioned = any(one.endswith(version) for one in names)
    most = max((len(one.removesuffix(version)) // 2 for one in (*names, *directories)), default=0)
    whole = JOLIET_LONG if most > JOLIET_LENGTH else JOLIET_LENGTH
    return IdentifierRules(is_joliet=True, version=version if versioned else b"", max_length=whole)
