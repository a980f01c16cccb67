"""The implanted MD5 of isomd5sum: an MD5 of the image in the primary volume descriptor's application use area.

The area (ECMA-119, 8.4.32) counts as spaces while it is summed, and the volume's last ``skip`` blocks are left
out. Fragment sums are taken while the sum runs, at the buffer of 32 KiB in which each fragment ends.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator

from msgspec import Struct

APPLICATION_USE = 883
"""Where the area stands in the descriptor."""
AREA_SIZE = 512
FRAGMENT_CHARACTERS = 60
"""Characters of all fragment sums together."""
_BUFFER = 32 * 1024
_FIELDS = re.compile(
    rb"ISO MD5SUM = (?P<md5>[0-9a-f]{32});SKIPSECTORS = (?P<skip>\d{1,6});"
    rb"(?:RHLISOSTATUS=\d;)?"
    rb"(?:FRAGMENT SUMS = (?P<fragments>[0-9a-f]{0,60});FRAGMENT COUNT = (?P<count>\d{1,2});)?"
)


class Md5Sums(Struct, frozen=True):
    """``md5``: 32 hexadecimal digits; ``fragments``: the fragment sums in a row, empty where there are none."""

    md5: bytes
    fragments: bytes


class ImplantedMd5(Struct, frozen=True):
    """What the area says. ``skip``: blocks of 2,048 bytes left out; ``count``: fragments, 0 where there are none."""

    raw: bytes
    sums: Md5Sums
    skip: int
    count: int

    @classmethod
    def parse(cls, raw: bytes) -> ImplantedMd5 | None:
        """The 512 bytes of the application use area; None where no MD5 is implanted in them."""
        found = _FIELDS.match(raw)
        if found is None or len(raw) != AREA_SIZE:
            return None
        sums = Md5Sums(found["md5"], found["fragments"] or b"")
        count = int(found["count"] or 0)
        return cls(raw, sums, int(found["skip"]), count if 0 < count <= FRAGMENT_CHARACTERS else 0)

    def pack(self) -> bytes:
        """The 512 bytes."""
        return self.raw

    def with_sums(self, sums: Md5Sums) -> ImplantedMd5:
        """The area with other sums; all else in it stays."""
        found = _FIELDS.match(self.raw)
        assert found is not None
        raw = self.raw
        if self.count:
            raw = raw[: found.start("fragments")] + sums.fragments + raw[found.end("fragments") :]
        raw = raw[: found.start("md5")] + sums.md5 + raw[found.end("md5") :]
        return ImplantedMd5(raw[:AREA_SIZE].ljust(AREA_SIZE), sums, self.skip, self.count)


def compute_md5_sums(chunks: Iterable[bytes], area: int, total: int, count: int) -> Md5Sums:
    """The sums of an image whose bytes from its start on are ``chunks``.

    ``area``: the byte at which the application use area stands; ``total``: bytes that are summed, the volume
    without the blocks left out; ``count``: fragments.
    """
    digest = hashlib.md5(usedforsecurity=False)
    fragments = bytearray()
    size = total // (count + 1) if count else 0
    width = FRAGMENT_CHARACTERS // count if count else 0
    before = 0
    for offset, buffer in _buffers(chunks, area, total):
        digest.update(buffer)
        if size and offset // size != before:
            before = offset // size
            fragments += _abridged(digest.digest()[:width])
    return Md5Sums(digest.hexdigest().encode(), bytes(fragments))


def _abridged(digest: bytes) -> bytes:
    """The first hexadecimal digit of each byte as ``%x`` prints it."""
    return b"".join((b"%x" % byte)[:1] for byte in digest)


def _buffers(chunks: Iterable[bytes], area: int, total: int) -> Iterator[tuple[int, bytes]]:
    """``chunks`` cut into buffers as isomd5sum reads them, each with its offset, the area blanked."""
    waiting = bytearray()
    offset = 0
    for chunk in chunks:
        waiting += chunk
        while len(waiting) >= _BUFFER or offset + len(waiting) >= total:
            taken = min(_BUFFER, total - offset)
            if taken <= 0:
                return
            yield offset, _blanked(waiting[:taken], area - offset)
            del waiting[:taken]
            offset += taken


def _blanked(buffer: bytearray, start: int) -> bytes:
    end = min(len(buffer), start + AREA_SIZE)
    start = max(0, start)
    if start < end:
        buffer[start:end] = b" " * (end - start)
    return bytes(buffer)
