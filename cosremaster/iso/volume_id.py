"""Change the volume id and the modification date in every descriptor that has them (ECMA-119, 8.4.6 and 8.4.26.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

from cosremaster.errors import UnsupportedError, UsageError
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.records import VOLUME_ID
from cosremaster.iso.model import IsoImage
from cosremaster.iso.udf.patch import seal_descriptor
from cosremaster.lazy_regex import lazy_regex
from cosremaster.units import BLOCK, lba_offset

ID_SIZE = 32
"""Bytes of a volume id."""
CREATION, MODIFICATION, DATE_SIZE = 813, 830, 17
"""The bytes of a volume descriptor at which the dates of creation and modification begin, and the bytes of a date."""
_UNSET = (b"0" * 16, bytes(16), b" " * 16)
_ISO_8601 = lazy_regex(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,6}))?)?(Z|[+-]\d\d(?::?\d\d)?)", re.ASCII
)
_SECONDS = lazy_regex(r"@(\d{1,12})", re.ASCII)
_DSTRINGS = {1: ((24, 32),), 4: ((116, 128),), 6: ((84, 128),), 256: ((112, 128), (304, 32))}
"""Offset and size of each dstring with the volume's name, by the tag identifier of the UDF descriptor (UDF 2.01,
2.2.4.4, 2.2.7.2.2, 2.3.2; ECMA-167 3/10.1, 4/14.1)."""


def encode_volume_id(text: str) -> bytes:
    """Return the bytes of a volume id. :raises UsageError: when it is too long, or not of printable ASCII letters."""
    if not 1 <= len(text) <= ID_SIZE:
        raise UsageError(f"volume id {text!r} has {len(text)} letters; there is room for 1 to {ID_SIZE}")
    if not all(" " <= letter <= "~" for letter in text) or text != text.strip():
        raise UsageError(f"volume id {text!r} must be of printable ASCII, without spaces around it")
    return text.encode("ascii")


def parse_volume_date(text: str) -> bytes:
    """Return the 17 bytes of a date (8.4.26.1) from ISO 8601 with a time zone, or from ``@`` and seconds since 1970.

    The date is in UTC, because GRUB and blkid take its digits without regard to its time zone.

    :raises UsageError: when ``text`` is not such a date.
    """
    when = _parse_date(text)
    if when is None or not 1 <= when.year <= 9999:
        raise UsageError(
            f"{text!r} is no date: 2026-11-26T12:00:00Z, with Z or +01:00 for its time zone, or @ and seconds"
        )
    digits = f"{when.year:04}{when.month:02}{when.day:02}{when.hour:02}{when.minute:02}{when.second:02}"
    return f"{digits}{when.microsecond // 10000:02}".encode() + b"\0"


def _parse_date(text: str) -> datetime | None:
    """Return the date that ``text`` writes, in UTC; None if it writes none."""
    seconds, date = _SECONDS.fullmatch(text), _ISO_8601.fullmatch(text)
    try:
        if seconds:
            return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=int(seconds[1]))
        if date is None:
            return None
        year, month, day, hour, minute, second, fraction, zone = date.groups()
        digits = zone[1:].replace(":", "").ljust(4, "0")
        offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:])) if zone != "Z" else timedelta()
        zoned = timezone(-offset if zone[0] == "-" else offset)
        micro = int((fraction or "0").ljust(6, "0"))
        when = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second or 0), micro, zoned)
        return when.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def format_volume_uuid(date: bytes) -> bytes:
    """Return the digits of a date in the form that GRUB and blkid call the volume's UUID."""
    parts = (date[:4], *(date[at : at + 2] for at in range(4, 16, 2)))
    return b"-".join(parts)


def read_volume_uuid(image: IsoImage, source: ByteSource) -> bytes | None:
    """Return the volume's UUID, by its modification date, else by its creation date; None without both dates."""
    start = lba_offset(image.trees[0].descriptor_lba)
    dates = (source.read(start + at, DATE_SIZE)[:16] for at in (MODIFICATION, CREATION))
    return next((format_volume_uuid(date) for date in dates if date not in _UNSET and date.isdigit()), None)


def read_volume_id(image: IsoImage, source: ByteSource) -> bytes:
    """Return the bytes of the volume id in the primary volume descriptor, without padding."""
    return source.read(lba_offset(image.trees[0].descriptor_lba) + VOLUME_ID, ID_SIZE).rstrip(b" \0")


def make_identity_patches(
    image: IsoImage, source: ByteSource, volume_id: bytes | None, date: bytes | None
) -> Iterator[tuple[int, bytes]]:
    """Yield byte offsets in the image with the new bytes there, for a new volume id or a new modification date.

    They are in all volume descriptors: those of Joliet, of ISO 9660:1999, of a partition's own tree and of the last
    session. The names of the volume in UDF change too, where they are the old volume id; UDF's dates do not.

    :param volume_id: the new volume id, None to keep it.
    :param date: the new modification date, None to keep it.
    :raises UnsupportedError: when a descriptor of UDF is damaged.
    """
    for tree in image.trees:
        start = lba_offset(tree.descriptor_lba)
        if volume_id is not None:
            old = source.read(start + VOLUME_ID, ID_SIZE)
            pad = _pad_joliet if tree.kind == "Joliet" else _pad
            yield start + VOLUME_ID, pad(volume_id, old)
        if date is not None:
            yield start + MODIFICATION, date
    if volume_id is not None:
        yield from _make_udf_patches(image, source, volume_id)


def _pad(text: bytes, old: bytes) -> bytes:
    """Return ``text`` padded as the ``old`` volume id is."""
    return text.ljust(ID_SIZE, b"\0" if old.endswith(b"\0") else b" ")


def _pad_joliet(text: bytes, old: bytes) -> bytes:
    """Return the first 16 letters of ``text`` in UCS-2, padded as the ``old`` volume id is."""
    pad = b"\0\0" if old.endswith(b"\0\0") else b"\0 "
    wide = text[: ID_SIZE // 2].decode("ascii").encode("utf-16-be")
    return wide + pad * ((ID_SIZE - len(wide)) // 2)


def _make_udf_patches(image: IsoImage, source: ByteSource, volume_id: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the offsets and the new bytes of UDF descriptors with the old volume id, or with as much as they hold."""
    old = read_volume_id(image, source)
    for tag in image.udf.tags if image.udf else ():
        if tag.id not in _DSTRINGS:
            continue
        raw = bytearray(source.read(tag.offset, BLOCK))
        if not tag.is_sound:
            raise UnsupportedError(
                f"its UDF {tag.name} is damaged, so the volume id cannot follow there", source.place.at(tag.offset)
            )
        for at, size in _DSTRINGS[tag.id]:
            name = _decode_dstring(bytes(raw[at : at + size]))
            if name and old.startswith(name) and len(name) >= min(len(old), size - 2):
                text = volume_id[: size - 2]
                raw[at : at + size] = (b"\x08" + text).ljust(size - 1, b"\0") + bytes((len(text) + 1,))
        new = seal_descriptor(raw, int.from_bytes(raw[10:12], "little"))
        if new != source.read(tag.offset, BLOCK):
            yield tag.offset, new


def _decode_dstring(raw: bytes) -> bytes:
    """Return the text of a dstring (ECMA-167, 1/7.2.12) as ASCII; empty where it is not ASCII."""
    text = raw[1 : max(1, raw[-1])]
    try:
        wide = text.decode("utf-16-be" if raw[0] == 16 else "latin-1")
        return wide.encode("ascii") if raw[0] in (8, 16) else b""
    except UnicodeError:
        return b""
