"""The archives of an initramfs that stand one behind the other, as far as their ends are found without decoding."""

from __future__ import annotations

from cosremaster.errors import CorruptError, Place
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import ByteReader
from cosremaster.layers.identify import Identification, identify_table
from cosremaster.layers.scan import MemberScanner, ScanOptions
from cosremaster.records import Struct

ACPI_TABLES = b"kernel/firmware/acpi/"
"""Of which the kernel takes all that it finds, under one name too (drivers/acpi/tables.c)."""
EARLY = (b"kernel/x86/microcode/", ACPI_TABLES)
"""What the kernel takes from the front of an initramfs before it unpacks it (Documentation/arch/x86/microcode.rst)."""
_MAX_PLAIN = 1 << 24
"""Bytes of an archive that are read to find its end."""
_MAX_SEGMENTS = 16
_HEAD = 1 << 17
_NAMES = ScanOptions(digests=False, nesting=0, edits=False, tail=0, names=True)


class Segment(Struct, frozen=True):
    """An archive in a file of several.

    ``codec``: its name, with that of the format's variant; empty for bytes that are no archive. ``size``: its bytes in
    the file with the zeros behind it; of a compressed one all that follow, as its end is not known. ``entries``: None
    where they were not counted. ``is_early``: the kernel takes something from it before it unpacks any.
    """

    codec: str
    size: int
    entries: int | None = None
    is_early: bool = False


def find_segments(table: PieceTable, identification: Identification) -> tuple[Segment, ...]:
    """Return the archives in the file ``table``, whose first one was identified; one alone where no second is seen."""
    segments, at = list[Segment](), 0
    while len(segments) < _MAX_SEGMENTS:
        if identification.format is None:
            segments.append(Segment("", table.length - at))
            break
        names, end = _read_plain(table, at, identification)
        if names is None or end == table.length:
            count = None if names is None else len(names)
            is_early = names is not None and any(name.startswith(EARLY) for name in names)
            segments.append(Segment(identification.codec_label, table.length - at, count, is_early))
            break
        is_early = any(name.startswith(EARLY) for name in names)
        segments.append(Segment(identification.codec_label, end - at, len(names), is_early))
        at, identification = end, identify_table(table.cut(end, table.length), _HEAD)
    return tuple(segments)


def _read_plain(table: PieceTable, start: int, identification: Identification) -> tuple[list[bytes] | None, int]:
    """Return the paths in the archive at byte ``start`` and where it ends, behind its zeros.

    None for one that is compressed, of an older variant, damaged, or too large to be read now.
    """
    layer_format = identification.format
    if not identification.codec.is_identity or identification.variant or identification.prefix or layer_format is None:
        return None, start
    if layer_format.random_access:
        return None, start
    part = table.cut(start, min(table.length, start + _MAX_PLAIN))
    reader = ByteReader(part.chunks(), Place())
    try:
        index = layer_format.index(reader, 0, MemberScanner(_NAMES, 1), None)
        reader.skip_zeros()
    except CorruptError:
        return None, start
    if reader.position == part.length and start + part.length < table.length:
        return None, start
    return list(index.paths), start + reader.position
