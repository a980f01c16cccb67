"""Make identifiers for new names by the rules that a volume's existing identifiers follow.

Rules: ECMA-119, 7.5 and 7.6; Joliet specification, "Allowed Character Set"; OSTA UDF 1.02, 2.1.1. Nothing here reads
or writes an image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import repeat
from typing import Protocol

from cosremaster.errors import Place, UnsupportedError
from cosremaster.iso.ecma119.records import decode_identifier, join_joliet, split_version
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct

_VERSION = b";1"
JOLIET_VERSION = _VERSION.decode().encode("utf-16-be")
_NOT_D_CHARACTER = lazy_regex(rb"[^A-Z0-9_]")
_NOT_LETTER_OR_DIGIT = lazy_regex(rb"[^A-Za-z0-9_]")
_NOT_PRINTABLE = lazy_regex(rb"[^!-.0-:<-~]")  # nor space, slash, semicolon
_PART_OR_PADDING = lazy_regex(rb"[\0- .;]")
"""What divides an identifier, and what sorts before the spaces by which it is padded."""
_NOT_JOLIET = lazy_regex("[\x00-\x1f*/:;?\\\\]")
_MAX_MARKS = 10**6
_MIN_LONG_BASE = 8
"""Bytes that the extension of a long name leaves to its base, enough for every mark."""
JOLIET_LENGTH, JOLIET_LONG = 64, 103
"""UCS-2 characters of a Joliet identifier: the specification's limit, and what a record holds without a version."""


class IdentifierScheme(Protocol):
    """The way in which a file system writes names."""

    def make_identifier(self, name: bytes, directory: bool, mark: str) -> bytes:
        """Return an identifier for ``name``; ``mark`` replaces the last characters before the extension."""
        ...

    def sort_key(self, identifier: bytes) -> tuple[bytes, bytes]:
        """Return the key by which the identifiers of a directory are sorted."""
        ...

    def sort_keys(self, identifiers: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
        """Return keys that sort ``identifiers``, which may be very many, as those of :meth:`sort_key` do."""
        ...

    def display_name(self, identifier: bytes) -> bytes:
        """Return the name that readers show for ``identifier``."""
        ...


class IdentifierRules(Struct, frozen=True, kw_only=True):
    """The rules of the identifiers of an ISO 9660 or Joliet tree.

    ``version``: the end of a file's identifier; ``needs_dot``: a file's identifier without an extension ends in a
    dot; ``allows_dots``: an identifier may have several dots, and that of a directory one; ``max_base``,
    ``max_extension`` and ``max_length`` (base, dot and extension): in bytes, in UTF-16 units on a Joliet tree;
    ``forbidden``: the characters that are replaced by ``_``.
    """

    is_joliet: bool = False
    version: bytes = _VERSION
    needs_dot: bool = True
    allows_dots: bool = False
    max_base: int = 8
    max_extension: int = 3
    max_length: int = 12
    forbidden: re.Pattern[bytes] = _NOT_D_CHARACTER

    def make_identifier(self, name: bytes, directory: bool, mark: str) -> bytes:
        """Return an identifier for ``name``; ``mark`` replaces the last characters before the extension."""
        return (self._make_joliet if self.is_joliet else self._make_plain)(name, directory, mark)

    def _make_plain(self, name: bytes, directory: bool, mark: str) -> bytes:
        """Return an ISO 9660 identifier, see :meth:`make_identifier`."""
        raw = name if self.forbidden is not _NOT_D_CHARACTER else name.upper()
        base, dot, extension = (raw, b"", b"") if directory and not self.allows_dots else raw.rpartition(b".")
        if not dot or not base:  # a name that begins with its only dot has no extension
            base, extension = raw, b""
        base, extension = self._clean_base(base), self.forbidden.sub(b"_", extension)[: self.max_extension]
        has_dot = bool(extension or (self.needs_dot and not directory))
        room = min(self.max_base, self.max_length - len(extension) - has_dot)
        base = base[: room - len(mark)] + mark.encode()
        if not base.strip(b"."):  # readers leave out the dots at a name's end
            base = base.replace(b".", b"_") or b"_"
        if directory:
            return base + b"." + extension if extension else base
        return base + (b"." if has_dot else b"") + extension + self.version

    def _clean_base(self, base: bytes) -> bytes:
        """Return ``base`` with ``_`` for each character that is not allowed."""
        if self.allows_dots:
            return b".".join(self.forbidden.sub(b"_", part) for part in base.split(b"."))
        return self.forbidden.sub(b"_", base.replace(b".", b"_"))

    def _make_joliet(self, name: bytes, directory: bool, mark: str) -> bytes:
        """Return a Joliet identifier, see :meth:`make_identifier`."""
        text = _NOT_JOLIET.sub("_", name.decode("utf-8", "replace"))
        stem, dot, extension = text.rpartition(".")
        if directory or not stem or _count_units(extension) > self.max_length // 2:
            stem, dot, extension = text, "", ""
        room = self.max_length - _count_units(dot + extension) - len(mark)
        raw = (_truncate(stem, room) + mark + dot + extension).encode("utf-16-be", "surrogatepass")
        return raw if directory else raw + self.version

    def display_name(self, identifier: bytes) -> bytes:
        """Return the name that readers without Rock Ridge show for ``identifier``."""
        return decode_identifier(identifier, joliet=self.is_joliet)

    def sort_key(self, identifier: bytes) -> tuple[bytes, bytes]:
        """Return the key by which the identifiers of a directory are sorted (9.3): name and extension, padded."""
        if self.is_joliet:
            return self.display_name(identifier).decode().encode("utf-16-be"), b""
        base, _, extension = split_version(identifier)[0].partition(b".")
        return base.ljust(255), extension.ljust(255)

    def sort_keys(self, identifiers: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
        """Return keys that sort ``identifiers`` as :meth:`sort_key` does: themselves if none has parts or padding."""
        if self.is_joliet:
            text = join_joliet(identifiers)
            sorts_alone = text is not None and b";" not in text and b"\0" not in text
        else:
            sorts_alone = _PART_OR_PADDING.search(b"".join(identifiers)) is None
        return zip(identifiers, repeat(b"")) if sorts_alone else map(self.sort_key, identifiers)


class InferredRules:
    """The rules of a tree, inferred when an identifier is first made: from all of them, which may be very many."""

    def __init__(self, is_joliet: bool, infer: Callable[[], IdentifierRules]) -> None:
        """Begin without the rules that ``infer`` returns; identifiers are read and sorted without them."""
        self._infer = infer
        self._readable = IdentifierRules(is_joliet=is_joliet)
        self._rules: IdentifierRules | None = None

    def make_identifier(self, name: bytes, directory: bool, mark: str) -> bytes:
        """Return an identifier for ``name``, see :meth:`IdentifierScheme.make_identifier`."""
        if self._rules is None:
            self._rules = self._infer()
        return self._rules.make_identifier(name, directory, mark)

    def sort_key(self, identifier: bytes) -> tuple[bytes, bytes]:
        """Return the key by which the identifiers of a directory are sorted."""
        return self._readable.sort_key(identifier)

    def sort_keys(self, identifiers: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
        """Return keys that sort ``identifiers``."""
        return self._readable.sort_keys(identifiers)

    def display_name(self, identifier: bytes) -> bytes:
        """Return the name that readers show for ``identifier``."""
        return self._readable.display_name(identifier)


class IdentifierAllocator:
    """Gives out unique identifiers in one directory."""

    def __init__(self, scheme: IdentifierScheme, used: Iterable[bytes], place: Place) -> None:
        """Begin with the identifiers ``used`` by the entries of the directory at ``place``."""
        self._scheme, self._place = scheme, place
        # readers may not show a file and a directory under one name either
        self._used = {scheme.display_name(identifier) for identifier in used}
        self._next_mark: dict[bytes, int] = {}  # by the first marked name of all names that take turns

    def allocate(self, name: bytes, *, directory: bool) -> bytes:
        """Return an identifier for ``name`` that readers show unlike all others of the directory.

        :raises UnsupportedError: when a million identifiers for such names are in use.
        """
        scheme = self._scheme
        identifier = scheme.make_identifier(name, directory, "")
        if scheme.display_name(identifier) in self._used:
            turn = scheme.display_name(scheme.make_identifier(name, directory, _format_mark(0)))
            while scheme.display_name(identifier) in self._used:
                number = self._next_mark.get(turn, 0)
                self._next_mark[turn] = number + 1
                if number >= _MAX_MARKS:
                    raise UnsupportedError("its directory has no identifier left for it", self._place.inside(name))
                identifier = scheme.make_identifier(name, directory, _format_mark(number))
        self._used.add(scheme.display_name(identifier))
        return identifier


def _format_mark(number: int) -> str:
    """Return ``number`` as the mark of an identifier, with three digits at least."""
    return f"{number:03d}"


class UdfIdentifierRules(Struct, frozen=True):
    """OSTA compressed Unicode (OSTA UDF 1.02, 2.1.1): Latin-1 where that is enough, else UCS-2; at most 255 bytes."""

    def make_identifier(self, name: bytes, directory: bool, mark: str) -> bytes:
        """Return an identifier for ``name``, see :meth:`IdentifierScheme.make_identifier`."""
        text = name.decode("utf-8", "replace")
        narrow = all(ord(letter) < 256 for letter in text)
        stem, dot, extension = ("", "", "") if directory else text.rpartition(".")
        if not stem or len(extension) > 100:
            stem, dot, extension = text, "", ""
        room = (254 if narrow else 127) - len(dot + extension) - len(mark)
        text = _truncate(stem, room) + mark + dot + extension
        return b"\x08" + text.encode("latin-1") if narrow else b"\x10" + text.encode("utf-16-be", "surrogatepass")

    def sort_key(self, identifier: bytes) -> tuple[bytes, bytes]:
        """Return equal keys: directories of UDF are not sorted, new names follow the old ones."""
        return b"", b""

    def sort_keys(self, identifiers: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
        """Return equal keys."""
        return map(self.sort_key, identifiers)

    def display_name(self, identifier: bytes) -> bytes:
        """Return the name that readers show for ``identifier``."""
        text = identifier[1:].decode("utf-16-be" if identifier[:1] == b"\x10" else "latin-1", "replace")
        return text.partition("\0")[0].encode("utf-8", "surrogatepass")


def _count_units(text: str) -> int:
    """Return the number of UTF-16 units of ``text``."""
    return len(text) + sum(letter > "\uffff" for letter in text)


def _truncate(text: str, room: int) -> str:
    """Return the beginning of ``text`` that ``room`` UTF-16 units hold; no character is halved."""
    text = text[:room]
    while _count_units(text) > room:
        text = text[:-1]
    return text


def infer_rules(files: Iterable[bytes], directories: Iterable[bytes], *, enhanced: bool, room: int) -> IdentifierRules:
    """Infer the rules of a tree from its identifiers.

    Where the identifiers decide nothing, the rules are those of interchange level 1 (10.1), which every reader takes.

    :param files: the identifiers of files, with their versions.
    :param directories: the identifiers of directories.
    :param enhanced: the tree is that of an enhanced volume descriptor (ISO 9660:1999).
    :param room: bytes that a directory record has for an identifier with its version.
    """
    files, directories = set(files), set(directories)  # of very many names many are the same
    names = [
        identifier[: -len(_VERSION)] if identifier.endswith(_VERSION) else split_version(identifier)[0]
        for identifier in files
    ]
    max_length = _infer_length(names, directories, enhanced, room)
    letters = b"".join((*names, *directories)).replace(b".", b"")
    forbidden = _NOT_D_CHARACTER
    if enhanced or _NOT_LETTER_OR_DIGIT.search(letters):
        forbidden = _NOT_PRINTABLE
    elif _NOT_D_CHARACTER.search(letters):
        forbidden = _NOT_LETTER_OR_DIGIT
    is_short = max_length == 12
    return IdentifierRules(
        version=_infer_version(files, _VERSION),
        needs_dot=all(b"." in name for name in names),
        allows_dots=enhanced
        or any(name.count(b".") > 1 for name in names)
        or any(b"." in name for name in directories),
        max_base=8 if is_short else max_length,
        max_extension=3 if is_short else max_length - _MIN_LONG_BASE - 1,
        max_length=max_length,
        forbidden=forbidden,
    )


def _infer_length(names: Collection[bytes], directories: Collection[bytes], enhanced: bool, room: int) -> int:
    """Return the greatest length of an identifier without its version: 12 for names of 8 and 3 characters."""
    longest = max(map(len, (*names, *directories)), default=0)
    if enhanced:
        length = 207
    elif longest <= 12 and all(map(_is_short, names)) and all(len(name) <= 8 for name in directories):
        length = 12
    else:
        length = 31 if longest <= 31 else max(longest, 37)
    return min(length, room - len(_VERSION))


def _is_short(name: bytes) -> bool:
    """Return whether ``name`` of a file has eight characters, and three behind a dot, at most."""
    base, dot, extension = name.rpartition(b".")
    return len(base) <= 8 and len(extension) <= (3 if dot else 8)


def _infer_version(files: Collection[bytes], version: bytes) -> bytes:
    """Return ``version`` if one of the identifiers ends in it, or there are none; else nothing."""
    return version if not files or any(identifier.endswith(version) for identifier in files) else b""


def infer_joliet_rules(files: Iterable[bytes], directories: Iterable[bytes], longest: int = 0) -> IdentifierRules:
    """Infer the rules of a Joliet tree from its identifiers, see :func:`infer_rules`.

    :param longest: bytes of the longest identifier of further files, all without a version.
    """
    files = set(files)
    has_version = any(identifier.endswith(JOLIET_VERSION) for identifier in files)
    names = (identifier.removesuffix(JOLIET_VERSION) for identifier in files) if has_version else files
    longest = max((longest, *map(len, names), *map(len, directories)))
    max_length = JOLIET_LONG if longest // 2 > JOLIET_LENGTH else JOLIET_LENGTH
    return IdentifierRules(is_joliet=True, version=JOLIET_VERSION if has_version else b"", max_length=max_length)
