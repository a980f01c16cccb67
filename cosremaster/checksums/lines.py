"""Parse and pack the lines of a checksum list, as GNU coreutils (md5sum, sha256sum) and BSD write and check them.

Also those of SUSE's ``content`` (``HASH SHA256 HEX  name``), and of the section ``[checksums]`` of a .treeinfo
(``name = sha256:HEX``; productmd, "treeinfo 1.x"). Pure. Packing the parsed lines gives the same bytes again: a line
that is no checksum of a file is a line too, and is kept unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct, replace

DIGESTS = {32: "md5", 40: "sha1", 56: "sha224", 64: "sha256", 96: "sha384", 128: "sha512"}
"""Number of hexadecimal digits -> hashlib's name of the digest."""

BLAKE2B = {**DIGESTS, 128: "blake2b"}
"""The same in a list that is named after BLAKE2b."""

_HEX = b"(?P<sum>" + b"|".join(b"[0-9A-Fa-f]{%d}" % digits for digits in sorted(DIGESTS, reverse=True)) + b")"
# "HEX  name", "HEX *name" (binary), "HEX name" (md5 -r); a backslash in front says that the name is escaped.
_PLAIN = lazy_regex(
    rb"(?P<prefix>[ \t]*(?:(?:HASH|META|KEY) \w+ +)?\\?)" + _HEX + rb"(?P<separator>[ \t][ *]?)(?P<name>.+)", re.DOTALL
)
# "MD5 (name) = HEX" as BSD writes it and sha256sum --tag, "MD5(name)= HEX" as openssl(1) does.
_TAGGED = lazy_regex(
    rb"(?P<prefix>[ \t]*\\?(?P<tag>MD5|SHA1|SHA224|SHA256|SHA384|SHA512|BLAKE2b) ?\()(?P<name>.+)"
    rb"(?P<separator>\)[ \t]*=[ \t]*)" + _HEX,
    re.DOTALL,
)
# "name = sha256:HEX"
_TREEINFO = lazy_regex(
    rb"(?P<prefix>[ \t]*)(?P<name>[^=:#;\[\s][^=:]*?)(?P<separator>[ \t]*[=:][ \t]*(?P<tag>md5|sha\d+):)" + _HEX
    + rb"(?P<rest>[ \t]*)"
)  # fmt: skip
_SECTION = lazy_regex(rb"[ \t]*\[(?P<section>[^\]]*)\][ \t]*")
_SOLE = lazy_regex(rb"(?P<prefix>[ \t]*)" + _HEX + rb"(?P<rest>[ \t]*)")
_HEADING = lazy_regex(rb"#[ \t]*(?P<kind>\w+)[ \t]+HASH[ \t]*")
"""A comment that says which digest the lines behind it have (Gentoo's DIGESTS)."""
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
    :param has_fixed_name: what stands for the name names no file: nothing, ``-``, or a path on another machine.
    """

    prefix: bytes
    checksum: bytes = b""
    separator: bytes = b""
    encoded_name: bytes = b""
    end: bytes = b""
    digest: str = ""
    is_tagged: bool = False
    has_fixed_name: bool = False

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


def parse_lines(data: bytes, digests: Mapping[int, str] = DIGESTS) -> tuple[ChecksumLine, ...]:
    """Return the lines of a list; any bytes are accepted, and :func:`pack_lines` gives the same bytes again.

    :param digests: number of hexadecimal digits -> hashlib's name of the digest.
    """
    lines = list[ChecksumLine]()
    for raw in _split(data):
        line = _parse_line(raw, digests)
        heading = _HEADING.fullmatch(line.prefix) if not line.digest else None
        if heading is not None:
            digests = BLAKE2B if heading["kind"].upper() == b"BLAKE2B" else DIGESTS
        lines.append(line)
    return tuple(lines)


def parse_treeinfo(data: bytes) -> tuple[ChecksumLine, ...]:
    """Return the lines of a .treeinfo; those of its section ``[checksums]`` have checksums."""
    lines, section = list[ChecksumLine](), b""
    for raw in _split(data):
        body, end = _cut_end(raw)
        match, heading = _TREEINFO.fullmatch(body), _SECTION.fullmatch(body)
        section = heading["section"] if heading else section
        if match is None or section != b"checksums" or DIGESTS[len(match["sum"])] != match["tag"].decode():
            lines.append(ChecksumLine(body, end=end))
            continue
        lines.append(
            ChecksumLine(
                match["prefix"], match["sum"], match["separator"], match["name"], match["rest"] + end,
                match["tag"].decode(), is_tagged=True,
            )
        )  # fmt: skip
    return tuple(lines)


def parse_sole_checksum(data: bytes, digests: Mapping[int, str]) -> tuple[ChecksumLine, ...] | None:
    """Return the lines of a file that is one checksum without a name; None for any other file."""
    first, *others = _split(data) or [b""]
    body, end = _cut_end(first)
    match = _SOLE.fullmatch(body)
    if match is None or any(line.strip() for line in others):
        return None
    sole = ChecksumLine(
        match["prefix"], match["sum"], end=match["rest"] + end, digest=digests[len(match["sum"])], has_fixed_name=True
    )
    return (sole, *(ChecksumLine(*_cut_end(line)[:1], end=_cut_end(line)[1]) for line in others))


def _split(data: bytes) -> list[bytes]:
    """Return the lines of ``data`` with their ends."""
    return re.findall(rb"[^\n]*\n|[^\n]+", data)


def _cut_end(raw: bytes) -> tuple[bytes, bytes]:
    """Return a line without its end, and its end."""
    body = raw.removesuffix(b"\n").removesuffix(b"\r") if raw.endswith(b"\n") else raw
    return body, raw[len(body) :]


def _parse_line(raw: bytes, digests: Mapping[int, str]) -> ChecksumLine:
    """Return the line with the bytes ``raw``, which include its end."""
    body, end = _cut_end(raw)
    for pattern in (_TAGGED, _PLAIN):
        match = pattern.fullmatch(body)
        if match is None:
            continue
        digits, is_tagged = len(match["sum"]), pattern is _TAGGED
        tag = match["tag"].decode().lower() if is_tagged else digests[digits]
        if tag in (DIGESTS[digits], BLAKE2B[digits]):
            return ChecksumLine(match["prefix"], match["sum"], match["separator"], match["name"], end, tag, is_tagged)
    return ChecksumLine(body, end=end)


def pack_lines(lines: Iterable[ChecksumLine]) -> bytes:
    """Return the bytes of a list."""
    return b"".join(line.raw for line in lines)
