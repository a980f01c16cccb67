"""The tags that tagmedia writes into the application use area of the primary volume descriptor (openSUSE, SLE).

They are ``key=value`` in a row, with semicolons between them: ``sha256sum=HEX;pad=150;partition=START,BLOCKS,HEX;
signature=START`` (checkmedia, README, "Technical specification"). The digest covers the volume, with zeros for the
first 512 bytes and for the last ``pad`` blocks, spaces for the area itself, and a signature's block emptied. Starts,
and blocks of a partition, count 512 bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator

from cosremaster.boot.implanted import AREA_SIZE, FRAGMENT_CHARACTERS
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct
from cosremaster.units import BLOCK, SECTOR

SIGNATURE_MAGIC = b"7984fc91-a43f-4e45-bf27-6d3aa08b24cf"
SIGNATURE_SIZE = 2048
_SIGNATURE_HEAD = 64
"""Bytes of a signature's block that its digest covers."""
_MBR_SIZE = 512
_BUFFER = 32 * 1024
"""Bytes that checkmedia reads at a time where there are fragment sums; each ends at such a border."""
_TAG = lazy_regex(rb"(?:^|(?<=;))[ \t]*(?P<key>[^=;]*?)[ \t]*(?:=[ \t]*(?P<value>[^;]*?)[ \t\0]*)?(?=;|$)")
_DIGEST = lazy_regex(rb"(?:md5|sha1|sha224|sha256|sha384|sha512)sum")
_PARTITION = lazy_regex(rb"(?P<start>\d{1,10}),(?P<blocks>[1-9]\d{0,9}),(?P<digest>[0-9A-Fa-f]+)")


class TaggedPartition(Struct, frozen=True):
    """A partition with a digest of its own. ``start`` and ``blocks`` count 512 bytes."""

    start: int
    blocks: int
    digest: str


class MediaDigests(Struct, frozen=True):
    """Digests in hexadecimal digits: of the volume and of the partition (empty for none), and the fragment sums."""

    volume: str
    partition: str
    fragments: str


class MediaTags(Struct, frozen=True):
    """An application use area with tags.

    :param kind: hashlib's name of the digest.
    :param digest: that of the volume, in hexadecimal digits.
    :param pad: blocks of 2,048 bytes at the end of the volume that count as zeros.
    :param signature: the block of 512 bytes at which a signature begins; 0 for none.
    :param fragment_count: how many fragments have sums of their own, or 0.
    """

    raw: bytes
    kind: str
    digest: str
    pad: int
    partition: TaggedPartition | None
    signature: int
    fragments: str
    fragment_count: int

    @classmethod
    def parse(cls, raw: bytes) -> MediaTags | None:
        """Parse the 512 bytes of an application use area; return None where they have no digest of this kind."""
        values = {key: value.decode("ascii", "replace") for key, value, _, _ in _list_tags(raw)}
        name = next((key for key in values if _DIGEST.fullmatch(key)), None)
        if name is None or len(raw) != AREA_SIZE:
            return None
        kind, digest = name.removesuffix(b"sum").decode(), values[name]
        digits = 2 * hashlib.new(kind, usedforsecurity=False).digest_size
        if len(digest) != digits or not re.fullmatch(r"[0-9A-Fa-f]+", digest):
            return None
        partition = _PARTITION.fullmatch(values.get(b"partition", "").encode())
        count = _parse_number(values.get(b"fragment count", ""))
        return cls(
            raw=raw, kind=kind, digest=digest.lower(), pad=_parse_number(values.get(b"pad", "")),
            partition=TaggedPartition(
                int(partition["start"]), int(partition["blocks"]), partition["digest"].decode().lower()
            ) if partition else None,
            signature=_parse_number(values.get(b"signature", "")), fragments=values.get(b"fragment sums", ""),
            fragment_count=count if count <= FRAGMENT_CHARACTERS else 0,
        )  # fmt: skip

    def with_values(self, digests: MediaDigests, partition: TaggedPartition | None, signature: int) -> MediaTags | None:
        """Return the area with other values; all other tags in it stay. None if they do not fit into it.

        :param partition: the place of the partition; its digest is that of ``digests``.
        """
        new = {f"{self.kind}sum".encode(): digests.volume, b"signature": str(signature)}
        if partition is not None:
            new[b"partition"] = f"{partition.start},{partition.blocks},{digests.partition}"
        if self.fragment_count:
            new[b"fragment sums"] = digests.fragments
        raw, old = self.raw.rstrip(b" \0"), self.raw
        for key, value, start, end in reversed(list(_list_tags(old))):
            if key in new and value:
                raw = raw[:start] + new[key].encode() + raw[end:]
        return MediaTags.parse(raw.ljust(AREA_SIZE)) if len(raw) <= AREA_SIZE else None

    def pack(self) -> bytes:
        """Return the area's 512 bytes."""
        return self.raw


def is_signed(block: bytes) -> bool:
    """Return True if the ``block`` that tags name as a signature's has one: it may wait for one to be put in."""
    return block.startswith(SIGNATURE_MAGIC) and bool(block[_SIGNATURE_HEAD:].strip(b"\0"))


def _list_tags(raw: bytes) -> Iterator[tuple[bytes, bytes, int, int]]:
    """Yield key in small letters, value, first byte and end of the value of each tag."""
    text = raw.rstrip(b" \0")
    for tag in _TAG.finditer(text):
        if tag["value"] is not None:
            yield tag["key"].lower(), tag["value"], *tag.span("value")


def _parse_number(text: str) -> int:
    """Return the number that ``text`` is; 0 if it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 else 0


def compute_media_digests(
    chunks: Iterable[bytes], tags: MediaTags, area: int, blocks: int, partition: TaggedPartition | None, signature: int
) -> MediaDigests:
    """Compute the digests of an image.

    :param chunks: the image's bytes, from its start on.
    :param area: the byte offset of the application use area.
    :param blocks: the volume's blocks of 2,048 bytes.
    :param partition: the place of the partition.
    :param signature: the block of 512 bytes at which a signature begins; 0 for none.
    """
    covered = max(0, blocks - tags.pad) * BLOCK
    first, last = (partition.start * SECTOR, (partition.start + partition.blocks) * SECTOR) if partition else (0, 0)
    blanks = [(0, _MBR_SIZE, b"\0"), (area, area + AREA_SIZE, b" ")]
    if signature:
        blanks.append((signature * SECTOR + _SIGNATURE_HEAD, signature * SECTOR + SIGNATURE_SIZE, b"\0"))
    whole, part = (hashlib.new(tags.kind, usedforsecurity=False) for _ in range(2))
    fragments, reached = "", 0
    size = covered // (tags.fragment_count + 1) if tags.fragment_count else 0
    for offset, buffer in _cut_buffers(chunks, max(covered, last)):
        data = _blank(buffer, offset, blanks)
        whole.update(memoryview(data)[: max(0, covered - offset)])
        part.update(memoryview(data)[max(0, first - offset) : max(0, last - offset)])
        if size and reached != offset // size <= tags.fragment_count:
            reached = offset // size
            digest = whole.digest()[: FRAGMENT_CHARACTERS // tags.fragment_count]
            fragments += "".join(f"{byte:x}"[0] for byte in digest)
    whole.update(bytes(min(tags.pad, blocks) * BLOCK))
    return MediaDigests(whole.hexdigest(), part.hexdigest() if partition else "", fragments)


def _cut_buffers(chunks: Iterable[bytes], total: int) -> Iterator[tuple[int, bytes]]:
    """Yield the first ``total`` bytes of ``chunks`` in buffers of 32 KiB, with their offsets."""
    waiting, offset = bytearray(), 0
    for chunk in chunks:
        waiting += chunk
        at = 0
        while len(waiting) - at >= _BUFFER and offset < total:
            yield offset, bytes(waiting[at : at + min(_BUFFER, total - offset)])
            at, offset = at + _BUFFER, offset + _BUFFER
        del waiting[:at]
        if offset >= total:
            return
    if waiting and offset < total:
        yield offset, bytes(waiting[: total - offset])


def _blank(buffer: bytes, offset: int, blanks: Iterable[tuple[int, int, bytes]]) -> bytes:
    """Return ``buffer``, which begins at byte ``offset``, with the ranges ``blanks`` filled with their bytes."""
    for start, end, fill in blanks:
        first, last = max(0, start - offset), min(len(buffer), end - offset)
        if first < last:
            buffer = buffer[:first] + fill * (last - first) + buffer[last:]
    return buffer
