"""Parse and pack the lines of a checksum list, as GNU coreutils (md5sum, sha256sum) and BSD write and check them.

Pure. Packing the parsed lines gives the same bytes again: a line that is no checksum of a file is a line too, and is
kept unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

DIGESTS = {32: "md5", 40: "sha1", 56: "sha224", 64: "sha256", 96: "sha384", 128: "sha512"}
"""Number of hexadecimal digits -> hashlib's name of the digest."""

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
_UNESCAPED = {escape: letter for letter, escape in _ESCAPES.items()}


class ChecksumLine(Struct, frozen=True):
    """One line of a list. Its bytes are kept in parts, which :attr:`raw` joins.

    A line that is no checksum has all its bytes but the end in ``before``.

    :param before: bytes in front of the first of checksum and name.
    :param checksum: the hexadecimal digits.
    :param middle: bytes between checksum and name.
    :param encoded_name: the file's name as the list spells it, with escapes.
    :param end: the line end; empty for a last line without one.
    :param digest: hashlib's name of the digest; empty where the line is no checksum of a file.
    :param is_tagged: the name comes before the middle and the checksum after it (BSD's form).
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
        """The file's name without escapes."""
        if not self.before.lstrip(b" \t").startswith(b"\\"):
            return self.encoded_name
        return re.sub(rb"\\[\\nr]", lambda escape: _UNESCAPED[escape[0]], self.encoded_name)

    def has_checksum(self, hexadecimal: str) -> bool:
        """Return True if the line's checksum is ``hexadecimal``, in any case of letters."""
        return self.checksum.lower() == hexadecimal.encode()

    def with_checksum(self, hexadecimal: str) -> ChecksumLine:
        """Return the line with another checksum, in capital letters where the old one has them."""
        checksum = hexadecimal.encode()
        return replace(self, checksum=checksum.upper() if self.checksum != self.checksum.lower() else checksum)

    def with_name(self, name: bytes) -> ChecksumLine:
        """Return the line with another name, escaped where ``name`` has a backslash or a line end."""
        encoded = re.sub(rb"[\\\n\r]", lambda letter: _ESCAPES[letter[0]], name)
        unescaped = self.before.replace(b"\\", b"", 1)
        indent = len(unescaped) - len(unescaped.lstrip(b" \t"))
        before = unescaped if encoded == name else unescaped[:indent] + b"\\" + unescaped[indent:]
        middle = self.middle
        if not self.is_tagged and len(middle) == 1 and encoded[:1] in (b" ", b"*"):
            middle += b" "  # a single space would swallow the name's first letter
        return replace(self, before=before, middle=middle, encoded_name=encoded)


def parse_lines(data: bytes) -> tuple[ChecksumLine, ...]:
    """Return the lines of a list; any bytes are accepted, and :func:`pack_lines` gives the same bytes again."""
    return tuple(map(_parse_line, re.findall(rb"[^\n]*\n|[^\n]+", data)))


def _parse_line(raw: bytes) -> ChecksumLine:
    """Return the line with the bytes ``raw``, which include its end."""
    body = raw.removesuffix(b"\n").removesuffix(b"\r") if raw.endswith(b"\n") else raw
    end = raw[len(body) :]
    for pattern in (_TAGGED, _PLAIN):
        match = pattern.fullmatch(body)
        if match is None:
            continue
        digest, is_tagged = DIGESTS[len(match["sum"])], pattern is _TAGGED
        if not is_tagged or digest == match["tag"].decode().lower():
            return ChecksumLine(match["before"], match["sum"], match["middle"], match["name"], end, digest, is_tagged)
    return ChecksumLine(body, end=end)


def pack_lines(lines: Iterable[ChecksumLine]) -> bytes:
    """Return the bytes of a list."""
    return b"".join(line.raw for line in lines)
