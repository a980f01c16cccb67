"""The MD5 that isomd5sum implants in the primary volume descriptor's application use area (ECMA-119, 8.4.32).

The area counts as spaces, and the volume's last ``skip`` blocks are left out. Fragment sums are intermediate digests,
taken at the buffer of 32 KiB in which each fragment ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct

APPLICATION_USE = 883
"""The area's offset in the descriptor, in bytes."""
AREA_SIZE = 512
FRAGMENT_CHARACTERS = 60
"""The characters of all fragment sums together."""
_BUFFER = 32 * 1024
_FIELDS = lazy_regex(
    rb"ISO MD5SUM = (?P<md5>[0-9a-f]{32});SKIPSECTORS = (?P<skip>\d{1,6});"
    rb"(?:RHLISOSTATUS=\d;)?"
    rb"(?:FRAGMENT SUMS = (?P<fragments>[0-9a-f]{0,60});FRAGMENT COUNT = (?P<count>\d{1,2});)?"
)


class Md5Sums(Struct, frozen=True):
    """The sums. ``md5``: 32 hexadecimal digits. ``fragments``: the fragment sums in a row, empty if there are none."""

    md5: bytes
    fragments: bytes


class ImplantedMd5(Struct, frozen=True):
    """An application use area with an MD5. ``skip``: blocks of 2,048 bytes left out. ``count``: fragments, or 0."""

    raw: bytes
    sums: Md5Sums
    skip: int
    count: int

    @classmethod
    def parse(cls, raw: bytes) -> ImplantedMd5 | None:
        """Parse the 512 bytes of an application use area; return None where no MD5 is implanted in them."""
        fields = _FIELDS.match(raw)
        if fields is None or len(raw) != AREA_SIZE:
            return None
        sums = Md5Sums(fields["md5"], fields["fragments"] or b"")
        count = int(fields["count"] or 0)
        return cls(raw, sums, int(fields["skip"]), count if 0 < count <= FRAGMENT_CHARACTERS else 0)

    def pack(self) -> bytes:
        """Return the area's 512 bytes."""
        return self.raw

    def with_sums(self, sums: Md5Sums) -> ImplantedMd5:
        """Return the area with other sums; everything else in it stays."""
        fields = _FIELDS.match(self.raw)
        assert fields is not None
        raw = self.raw
        if self.count:
            raw = raw[: fields.start("fragments")] + sums.fragments + raw[fields.end("fragments") :]
        raw = raw[: fields.start("md5")] + sums.md5 + raw[fields.end("md5") :]
        return ImplantedMd5(raw[:AREA_SIZE].ljust(AREA_SIZE), sums, self.skip, self.count)


def compute_md5_sums(chunks: Iterable[bytes], area: int, total: int, count: int) -> Md5Sums:
    """Compute the sums of an image.

    :param chunks: the image's bytes, from its start on.
    :param area: the byte offset of the application use area.
    :param total: the bytes to sum: the volume without the blocks left out.
    :param count: the number of fragments.
    """
    import hashlib  # noqa: PLC0415 - loads OpenSSL, which small commands do not need

    digest = hashlib.md5(usedforsecurity=False)
    fragments = bytearray()
    size = total // (count + 1) if count else 0
    width = FRAGMENT_CHARACTERS // count if count else 0
    last_fragment = 0
    for offset, buffer in _cut_buffers(chunks, area, total):
        digest.update(buffer)
        if size and offset // size != last_fragment:
            last_fragment = offset // size
            fragments += _abridge(digest.digest()[:width])
    return Md5Sums(digest.hexdigest().encode(), bytes(fragments))


def _abridge(digest: bytes) -> bytes:
    """Return the first hexadecimal digit of each byte, as ``%x`` prints it."""
    return b"".join((b"%x" % byte)[:1] for byte in digest)


def _cut_buffers(chunks: Iterable[bytes], area: int, total: int) -> Iterator[tuple[int, bytes]]:
    """Yield the bytes of ``chunks`` in buffers as isomd5sum reads them, with their offsets and the area blanked."""
    waiting = bytearray()
    offset = 0
    for chunk in chunks:
        waiting += chunk
        while len(waiting) >= _BUFFER or offset + len(waiting) >= total:
            length = min(_BUFFER, total - offset)
            if length <= 0:
                return
            yield offset, _blank_area(waiting[:length], area - offset)
            del waiting[:length]
            offset += length


def _blank_area(buffer: bytearray, start: int) -> bytes:
    """Return ``buffer`` with spaces in place of the area, which begins at byte ``start`` of it (maybe before it)."""
    end = min(len(buffer), start + AREA_SIZE)
    start = max(0, start)
    if start < end:
        buffer[start:end] = b" " * (end - start)
    return bytes(buffer)
