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
_PLAIN = re.compile(rb"(?P<prefix>[ \t]*\\?)" + _HEX + rb"(?P<separator>[ \t][ *]?)(?P<name>.+)", re.DOTALL)
# "MD5 (name) = HEX" as BSD writes it and sha256sum --tag, "MD5(name)= HEX" as openssl(1) does.
_TAGGED = re.compile(
    rb"(?P<prefix>[ \t]*\\?(?P<tag>MD5|SHA1|SHA224|SHA256|SHA384|SHA512) ?\()(?P<name>.+)(?P<separator>\)[ \t]*=[ \t]*)"
    + _HEX,
    re.DOTALL,
)
_ESCAPES = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}
_UNESCAPED = {escape: letter for letter, escape in _ESCAPES.items()}


class ChecksumLine(Struct, frozen=True):
    """One line of a list. Its bytes are kept in parts, which :attr:`raw` joins.

    A line that is no checksum has all its bytes but the end in ``prefix``.

    :param prefix: bytes in front of the first of checksum and name.
    :param checksum: the hexadecimal digits.
    :param separator: bytes between checksum and name.
    :param encoded_name: the file's name as the list spells it, with escapes.
    :param end: the line end; empty for a last line without one.
    :param digest: hashlib's name of the digest; empty where the line is no checksum of a file.
    :param is_tagged: the name comes before the separator and the checksum after it (BSD's form).
    """

    prefix: bytes
    checksum: bytes = b""
    separator: bytes = b""
    encoded_name: bytes = b""
    end: bytes = b""
    digest: str = ""
    is_tagged: bool = False

    @property
    def raw(self) -> bytes:
        """The line's bytes."""
        first, last = (self.encoded_name, self.checksum) if self.is_tagged else (self.checksum, self.encoded_name)
        return self.prefix + first + self.separator + last + self.end

    @property
    def name(self) -> bytes:
        """The file's name without escapes."""
        if not self.prefix.lstrip(b" \t").startswith(b"\\"):
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
        unescaped = self.prefix.replace(b"\\", b"", 1)
        indent = len(unescaped) - len(unescaped.lstrip(b" \t"))
        prefix = unescaped if encoded == name else unescaped[:indent] + b"\\" + unescaped[indent:]
        separator = self.separator
        if not self.is_tagged and len(separator) == 1 and encoded[:1] in (b" ", b"*"):
            separator += b" "  # a single space would swallow the name's first letter
        return replace(self, prefix=prefix, separator=separator, encoded_name=encoded)


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
            return ChecksumLine(
                match["prefix"], match["sum"], match["separator"], match["name"], end, digest, is_tagged
            )
    return ChecksumLine(body, end=end)


def pack_lines(lines: Iterable[ChecksumLine]) -> bytes:
    """Return the bytes of a list."""
    return b"".join(line.raw for line in lines)
