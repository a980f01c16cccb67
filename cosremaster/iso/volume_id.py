"""The volume's id and its modification date in every descriptor that tells them (ECMA-119, 8.4.6 and 8.4.26.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

from cosremaster.errors import UnsupportedError, UsageError
from cosremaster.io.source import ByteSource
from cosremaster.iso.model import IsoImage
from cosremaster.iso.udf.patch import seal_descriptor
from cosremaster.units import BLOCK, lba_offset

VOLUME_ID, ID_SIZE = 40, 32
CREATION, MODIFICATION, DATE_SIZE = 813, 830, 17
_UNSET = (b"0" * 16, bytes(16), b" " * 16)
_ISO_8601 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,6}))?)?(Z|[+-]\d\d(?::?\d\d)?)", re.ASCII
)
_SECONDS = re.compile(r"@(\d{1,12})", re.ASCII)
_DSTRINGS = {1: ((24, 32),), 4: ((116, 128),), 6: ((84, 128),), 256: ((112, 128), (304, 32))}
"""Where UDF descriptors tell the volume's name, by the number in their tag: place and size of a dstring (UDF 2.01,
2.2.4.4, 2.2.7.2.2, 2.3.2; ECMA-167 3/10.1, 4/14.1)."""


def encode_volume_id(text: str) -> bytes:
    """The bytes of a volume id. :raises UsageError: it is too long, or of other letters than volume ids have."""
    if not 1 <= len(text) <= ID_SIZE:
        raise UsageError(f"volume id {text!r} has {len(text)} letters; there is room for 1 to {ID_SIZE}")
    if not all(" " <= letter <= "~" for letter in text) or text != text.strip():
        raise UsageError(f"volume id {text!r} must be of printable ASCII, without spaces around it")
    return text.encode("ascii")


def parse_volume_date(text: str) -> bytes:
    """The 17 bytes of a date (8.4.26.1) in UTC, from ISO 8601 with its time zone, or from ``@`` and seconds since 1970.

    GRUB and blkid take its digits as they stand, whatever its zone says. :raises UsageError: it is no such date.
    """
    when = _parsed(text)
    if when is None or not 1 <= when.year <= 9999:
        raise UsageError(
            f"{text!r} is no date: 2026-11-26T12:00:00Z, with Z or +01:00 for its time zone, or @ and seconds"
        )
    digits = f"{when.year:04}{when.month:02}{when.day:02}{when.hour:02}{when.minute:02}{when.second:02}"
    return f"{digits}{when.microsecond // 10000:02}".encode() + b"\0"


def _parsed(text: str) -> datetime | None:
    seconds, written = _SECONDS.fullmatch(text), _ISO_8601.fullmatch(text)
    try:
        if seconds:
            return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=int(seconds[1]))
        if written is None:
            return None
        year, month, day, hour, minute, second, fraction, zone = written.groups()
        digits = zone[1:].replace(":", "").ljust(4, "0")
        offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:])) if zone != "Z" else timedelta()
        zoned = timezone(-offset if zone[0] == "-" else offset)
        micro = int((fraction or "0").ljust(6, "0"))
        when = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second or 0), micro, zoned)
        return when.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def format_volume_uuid(date: bytes) -> bytes:
    """What GRUB and blkid call the volume's UUID: the date's digits."""
    parts = (date[:4], *(date[at : at + 2] for at in range(4, 16, 2)))
    return b"-".join(parts)


def read_volume_uuid(image: IsoImage, source: ByteSource) -> bytes | None:
    """The volume's UUID: by its modification date, by that of its creation where there is none; None without both."""
    start = lba_offset(image.trees[0].descriptor_lba)
    dates = (source.read(start + at, DATE_SIZE)[:16] for at in (MODIFICATION, CREATION))
    return next((format_volume_uuid(date) for date in dates if date not in _UNSET and date.isdigit()), None)


def read_volume_id(image: IsoImage, source: ByteSource) -> bytes:
    """The primary volume descriptor's volume id, as it stands, without what pads it."""
    return source.read(lba_offset(image.trees[0].descriptor_lba) + VOLUME_ID, ID_SIZE).rstrip(b" \0")


def make_identity_patches(
    image: IsoImage, source: ByteSource, volume_id: bytes | None, date: bytes | None
) -> Iterator[tuple[int, bytes]]:
    """Byte offsets in the image and what has to stand there for another volume id, another modification date.

    Every descriptor is among them: Joliet's, ISO 9660:1999's, those of a partition's own tree and of the last
    session; and UDF's names of the volume, where they are the old id. UDF's dates stay.
    :raises UnsupportedError: UDF's descriptors are damaged.
    """
    for tree in image.trees:
        start = lba_offset(tree.descriptor_lba)
        if volume_id is not None:
            old = source.read(start + VOLUME_ID, ID_SIZE)
            yield start + VOLUME_ID, _joliet(volume_id, old) if tree.kind == "Joliet" else _padded(volume_id, old)
        if date is not None:
            yield start + MODIFICATION, date
    if volume_id is not None:
        yield from _udf(image, source, volume_id)


def _padded(text: bytes, old: bytes) -> bytes:
    return text.ljust(ID_SIZE, b"\0" if old.endswith(b"\0") else b" ")


def _joliet(text: bytes, old: bytes) -> bytes:
    """The first 16 letters in UCS-2, padded as the old one was."""
    pad = b"\0\0" if old.endswith(b"\0\0") else b"\0 "
    wide = text[: ID_SIZE // 2].decode("ascii").encode("utf-16-be")
    return wide + pad * ((ID_SIZE - len(wide)) // 2)


def _udf(image: IsoImage, source: ByteSource, volume_id: bytes) -> Iterator[tuple[int, bytes]]:
    old = read_volume_id(image, source)
    for tag in image.udf.tags if image.udf else ():
        if tag.id not in _DSTRINGS:
            continue
        raw = bytearray(source.read(tag.offset, BLOCK))
        if not tag.is_sound:
            raise UnsupportedError(f"its UDF {tag.name} is damaged, so the volume id cannot follow there",
                                   source.place.at(tag.offset))  # fmt: skip
        for at, size in _DSTRINGS[tag.id]:
            told = _dstring(bytes(raw[at : at + size]))
            if told and old.startswith(told) and len(told) >= min(len(old), size - 2):
                text = volume_id[: size - 2]
                raw[at : at + size] = (b"\x08" + text).ljust(size - 1, b"\0") + bytes((len(text) + 1,))
        new = seal_descriptor(raw, int.from_bytes(raw[10:12], "little"))
        if new != source.read(tag.offset, BLOCK):
            yield tag.offset, new


def _dstring(raw: bytes) -> bytes:
    """What a dstring says (ECMA-167, 1/7.2.12), as ASCII; empty where it is not."""
    text = raw[1 : max(1, raw[-1])]
    try:
        wide = text.decode("utf-16-be" if raw[0] == 16 else "latin-1")
        return wide.encode("ascii") if raw[0] in (8, 16) else b""
    except UnicodeError:
        return b""
