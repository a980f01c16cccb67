"""The lines of a list of sums, as GNU coreutils (md5sum, sha256sum) and BSD write and check them. Pure.

A list is bytes in, lines out, and the same bytes again: what is no sum of a file is a line too, and stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

DIGESTS = {32: "md5", 40: "sha1", 56: "sha224", 64: "sha256", 96: "sha384", 128: "sha512"}
"""Hexadecimal digits -> hashlib's name of the digest that has so many."""

_HEX = b"(?P<sum>" + b"|".join(b"[0-9A-Fa-f]{%d}" % digits for digits in sorted(DIGESTS, reverse=True)) + b")"
# "HEX  name", "HEX *name" (binary), "HEX name" (md5 -r); a backslash in front says that the name is escaped.
_PLAIN = re.compile(rb"(?P<before>[ \t]*\\?)" + _HEX + rb"(?P<middle>[ \t][ *]?)(?P<name>.+)", re.DOTALL)
# "MD5 (name) = HEX" as BSD writes it and sha256sum --tag, "MD5(name)= HEX" as openssl(1) does.
_TAGGED = re.compile(
    rb"(?P<before>[ \t]*\\?(?P<tag>MD5|SHA1|SHA224|SHA256|SHA384|SHA512) ?\()(?P<name>.+)(?P<middle>\)[ \t]*=[ \t]*)"
    + _HEX,
    re.DOTALL,
)
_ESCAPES = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}
_PLAIN_OF = {escape: letter for letter, escape in _ESCAPES.items()}


class ChecksumLine(Struct, frozen=True):
    """One line. ``digest``: hashlib's name of the sum's digest, empty where the line is no sum of a file.

    The others are its bytes, part by part: what stands ``before``, the ``sum`` in hexadecimal digits, what is in the
    ``middle``, the name as ``written``, and the ``end``. With ``tagged`` the name comes before the middle and the sum
    after it. A line that is no sum has all its bytes but the end in ``before``.
    """

    before: bytes
    checksum: bytes = b""
    middle: bytes = b""
    encoded_name: bytes = b""
    end: bytes = b""
    digest: str = ""
    is_tagged: bool = False

    @property
    def raw(self) -> bytes:
        """The line's bytes."""
        first, last = (self.encoded_name, self.checksum) if self.is_tagged else (self.checksum, self.encoded_name)
        return self.before + first + self.middle + last + self.end

    @property
    def name(self) -> bytes:
        """The file's name, escapes undone."""
        if not self._escaped:
            return self.encoded_name
        return re.sub(rb"\\[\\nr]", lambda found: _PLAIN_OF[found[0]], self.encoded_name)

    @property
    def _escaped(self) -> bool:
        return self.before.lstrip(b" \t").startswith(b"\\")

    def has_checksum(self, hexadecimal: str) -> bool:
        """The line's sum is this one."""
        return self.checksum.lower() == hexadecimal.encode()

    def with_checksum(self, hexadecimal: str) -> ChecksumLine:
        """The line with another sum, in capitals where the old one is."""
        new = hexadecimal.encode()
        return replace(self, checksum=new.upper() if self.checksum != self.checksum.lower() else new)

    def with_name(self, name: bytes) -> ChecksumLine:
        """The line with another name, escaped where that has a backslash or ends lines."""
        written = re.sub(rb"[\\\n\r]", lambda found: _ESCAPES[found[0]], name)
        bare = self.before.replace(b"\\", b"", 1)
        start = len(bare) - len(bare.lstrip(b" \t"))
        before = bare if written == name else bare[:start] + b"\\" + bare[start:]
        middle = self.middle
        if not self.is_tagged and len(middle) == 1 and written[:1] in (b" ", b"*"):
            middle += b" "  # a single space would swallow the name's first letter
        return replace(self, before=before, middle=middle, encoded_name=written)


def parse_lines(data: bytes) -> tuple[ChecksumLine, ...]:
    """The lines of a list; ``pack`` makes the same bytes of them, whatever they are."""
    return tuple(map(_line, re.findall(rb"[^\n]*\n|[^\n]+", data)))


def _line(raw: bytes) -> ChecksumLine:
    body = raw.removesuffix(b"\n").removesuffix(b"\r") if raw.endswith(b"\n") else raw
    end = raw[len(body) :]
    found = _TAGGED.fullmatch(body)
    if found is not None:
        digest = DIGESTS[len(found["sum"])]
        if digest == found["tag"].decode().lower():
            return ChecksumLine(
                found["before"], found["sum"], found["middle"], found["name"], end, digest, is_tagged=True
            )
    found = _PLAIN.fullmatch(body)
    if found is None:
        return ChecksumLine(body, end=end)
    return ChecksumLine(found["before"], found["sum"], found["middle"], found["name"], end, DIGESTS[len(found["sum"])])


def pack_lines(lines: Iterable[ChecksumLine]) -> bytes:
    """The bytes of a list."""
    return b"".join(line.raw for line in lines)
